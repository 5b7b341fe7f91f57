//! The thread that reads back, and keeps the images that are received: a peer that lags behind by more
//! than is in memory, or a disk that is slow, keeps nobody else waiting.
//!
//! Tasks are done one after the other. Of those that wait one with the same purpose as a newer one is
//! dropped, so there are never more than one for each peer besides the one that is being done; and
//! nobody asks for more than one thing at once that concerns an image which is received.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use crate::core::{Entry, Index, Snapshot};
use crate::panics::{self, lock};
use crate::storage::task::Desk;
use crate::storage::{Done, Draft, SnapshotReader, SnapshotWriter, StorageError, Task, Wake};

use super::fetch::fetch;
use super::helper::Helper;
use super::receive::{self, Partial};
use super::snapshot::{ImageReader, Snapshots, Writer, name};
use super::vfs::Vfs;
use super::write::{Known, Log};

/// What of a directory is used while somebody else may write the log.
pub(super) struct Files {
    pub(super) fs: Arc<dyn Vfs>,
    pub(super) log: Arc<Mutex<Log>>,
    pub(super) known: Arc<Mutex<Known>>,
    pub(super) snapshots: Arc<Snapshots>,
    /// What has come of an image that is being received; locked as long as something is done with it.
    pub(super) partial: Mutex<Option<Partial>>,
}

impl Files {
    pub(super) fn refuse_if_failed(&self) -> Result<(), StorageError> {
        lock(&self.known).refuse_if_failed(&*self.fs)
    }

    pub(super) fn read_snapshot(&self, snapshot: &Snapshot) -> Result<ImageReader, StorageError> {
        if self.snapshots.holds(snapshot) {
            ImageReader::open(&*self.fs, &name(snapshot.last), snapshot)
        } else if self.has_received(snapshot)? {
            ImageReader::open(&*self.fs, receive::NAME, snapshot)
        } else if (snapshot.size, snapshot.crc) == (0, 0) {
            Ok(ImageReader::empty())
        } else {
            let path = self.fs.path(&name(snapshot.last));
            Err(StorageError::Missing { path })
        }
    }

    pub(super) fn write_snapshot(&self, draft: Draft) -> Result<Writer, StorageError> {
        self.refuse_if_failed()?;
        let origin = lock(&self.known).origin;
        Writer::begin(&self.snapshots, origin, draft)
    }
}

impl Desk for &Files {
    fn fetch(
        &mut self,
        first: Index,
        last: Index,
        bytes: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        fetch(&*self.fs, &self.known, first, last, bytes)
    }

    /// The first block of it is in memory.
    fn open(&mut self, snapshot: &Snapshot) -> Result<Box<dyn SnapshotReader>, StorageError> {
        let mut reader = self.read_snapshot(snapshot)?;
        reader.read_at(0, &mut [0])?;
        Ok(Box::new(reader))
    }

    fn store(&mut self, snapshot: &Snapshot, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        self.refuse_if_failed()?;
        self.keep_piece(snapshot, offset, data)
    }

    fn adopt(&mut self, snapshot: &Snapshot) -> Result<(), StorageError> {
        self.refuse_if_failed()?;
        self.adopt_received(snapshot)
    }

    fn write(&mut self, draft: Draft) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Ok(Box::new(self.write_snapshot(draft)?))
    }
}

#[derive(Default)]
pub(super) struct Queue {
    tasks: VecDeque<Task>,
    done: VecDeque<Done>,
    pub(super) ending: bool,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    /// There is something to be done.
    more: Condvar,
}

/// A handle on the thread. Dropping it waits for the task that is being done, and forgets the others:
/// nobody was told of any of them.
pub(super) struct ReadThread {
    pub(super) shared: Arc<Shared>,
    thread: Helper,
}

impl ReadThread {
    /// Starts it. It calls `wake` after every task.
    pub(super) fn spawn(files: &Arc<Files>, wake: Wake) -> Result<ReadThread, StorageError> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let root = files.fs.root();
        // Weak, so that a forked child that drops the rest closes the files.
        let files = Arc::downgrade(files);
        let main = move || work(&theirs, &files, &wake);
        let thread = Helper::start("keel-read", "start of the reading thread", root, main)?;
        Ok(ReadThread { shared, thread })
    }

    pub(super) fn begin(&self, task: Task) {
        let mut queue = lock(&self.shared.queue);
        queue.tasks.retain(|waiting| !task.replaces(waiting));
        queue.tasks.push_back(task);
        self.shared.more.notify_one();
    }

    pub(super) fn finished(&self) -> Option<Done> {
        lock(&self.shared.queue).done.pop_front()
    }

    /// Leaves it alone, in a child where it does not exist.
    pub(super) fn forget(mut self) {
        self.thread.forget();
    }
}

impl Drop for ReadThread {
    fn drop(&mut self) {
        if !self.thread.is_there() {
            return;
        }
        lock(&self.shared.queue).ending = true;
        self.shared.more.notify_one();
        self.thread.join();
    }
}

impl Shared {
    /// The next task; `None` at the end.
    fn next(&self) -> Option<Task> {
        let idle = |queue: &mut Queue| queue.tasks.is_empty() && !queue.ending;
        let waited = self.more.wait_while(lock(&self.queue), idle);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        match queue.ending {
            true => None,
            false => queue.tasks.pop_front(),
        }
    }
}

fn work(shared: &Shared, files: &Weak<Files>, wake: &Wake) {
    while let Some(mut task) = shared.next() {
        let Some(files) = files.upgrade() else {
            return;
        };
        let done = panics::catch(|| task.perform(&mut &*files));
        let done = done.unwrap_or_else(|text| {
            task.failed(StorageError::Io {
                op: "read",
                path: files.fs.root(),
                error: io::Error::other(text),
            })
        });
        lock(&shared.queue).done.push_back(done);
        wake();
    }
}
