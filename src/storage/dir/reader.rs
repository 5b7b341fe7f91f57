//! The thread that reads back: a peer that lags behind by more than is in memory, or a disk that is
//! slow to read, keeps nobody else waiting.
//!
//! Tasks are done one after the other. Of those that wait one with the same purpose as a newer one is
//! dropped, so there are never more than one for each peer besides the one that is being done.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};

use crate::core::{Entry, Index};
use crate::panics::{self, lock};
use crate::storage::task::Desk;
use crate::storage::{Done, StorageError, Task, Wake};

use super::fetch::fetch;
use super::signals;
use super::vfs::Vfs;
use super::write::Known;

/// What of a directory is used while somebody else may write the log.
pub(super) struct Files {
    pub(super) fs: Arc<dyn Vfs>,
    pub(super) known: Arc<Mutex<Known>>,
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
    thread: Option<JoinHandle<()>>,
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
        let thread = signals::blocked(|| Builder::new().name("keel-read".to_owned()).spawn(main));
        match thread {
            Ok(thread) => Ok(ReadThread {
                shared,
                thread: Some(thread),
            }),
            Err(error) => Err(StorageError::Io {
                op: "start of the reading thread",
                path: root,
                error,
            }),
        }
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
        std::mem::forget(self.thread.take());
    }
}

impl Drop for ReadThread {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        lock(&self.shared.queue).ending = true;
        self.shared.more.notify_one();
        // It contains its panics.
        let _ = thread.join();
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
