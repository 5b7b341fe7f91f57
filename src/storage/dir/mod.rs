//! Storage in a directory: META in two slots, a log in segments, and images of snapshots.
//!
//! What it promises: whatever was acknowledged survives the loss of the process or of power; a
//! write that was cut off is as if it had never begun; and of a log that is damaged otherwise what is
//! whole is kept, while META claims what may be missing ([`damage`]). Anything else that is wrong with
//! the files is an error with file and offset: never other data than was written, and never less
//! without saying so.
//!
//! | file | what it is |
//! |---|---|
//! | `LOCK` | flock()ed while a [`Directory`] lives, or one who writes an image |
//! | `META` | identity, hard state, incarnation, twice ([`meta`]) |
//! | `<seq>-<first index>.seg` | the log ([`segment`], [`frame`]) |
//! | `<seq>-<first index>.ckpt` | what an opening needs to know of a segment ([`checkpoint`]) |
//! | `snap-<index>-<term>.snap` | the image that ends at this entry ([`image`], [`snapshot`]) |
//! | `recv.part` | an image that is being received ([`receive`]) |
//! | `prep-*` | being made, or the next segment ([`spare`]); removed by the next opening |
//! | `lost-*.aside` | segments behind damage, until all is there again ([`aside`]) |
//! | `lost-*.found` | segments of a log that was lost, put back later ([`aside`]); the administrator's |
//! | `lost-*` | what a repair has dropped ([`repair`]); nobody's business but an administrator's |
//!
//! Whatever the files hold, opening them neither panics nor takes more memory than
//! [`OPEN_AMPLIFICATION`](super::OPEN_AMPLIFICATION) times their length and
//! [`OPEN_OVERHEAD`](super::OPEN_OVERHEAD); a directory that is refused is left as it is, and one that
//! is accepted can be written on.
//!
//! Opening copies the last segment, checked, into a new file that takes its name. The page cache
//! may show data that an earlier process failed to write: nothing is trusted that this process
//! has not made durable itself. The remains of a torn write go away with the old file. On a full disk
//! the last segment is written once more where it is instead, the same bytes with zeros for such remains.
//!
//! The log begins anywhere: [`trim`] removes segments whose place a snapshot has. Two snapshots are
//! kept, and the log behind the older one, so that one damaged file is not the end of the node.

mod aio;
mod aside;
mod buffer;
mod check;
mod checkpoint;
mod damage;
mod direct;
mod fetch;
mod file;
mod frame;
mod helper;
mod image;
pub mod inspect;
mod layout;
mod meta;
mod open;
mod page;
mod pass;
mod reader;
mod rebuild;
mod receive;
mod recover;
pub mod repair;
mod segment;
mod signals;
mod slots;
mod snapshot;
mod spare;
mod thread;
mod trim;
mod vfs;
mod write;
mod write_out;

#[cfg(any(test, fuzzing))]
pub(crate) mod tests;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::core::{Entry, HardState, Index, Persist, Position, Snapshot};
use crate::panics::lock;

use super::task::Desk;
use super::{
    Completion, Done, Draft, Identity, Opened, Room, SnapshotReader, SnapshotWriter, Storage,
    StorageError, Task, Wake,
};

use check::{CheckThread, Checks};
use meta::Meta;
use page::PAGE;
use reader::{Files, ReadThread};
use segment::{PREPARED, is_segment};
use snapshot::Snapshots;
use spare::{SpareThread, Spares};
use thread::LogThread;
use vfs::{Disk, Vfs};
use write::{Known, Log};

const LOCK: &str = "LOCK";

/// How a directory is laid out from now on; what exists keeps its shape.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a new segment file, rounded up to a multiple of 4096 and kept within 16 KiB and
    /// 256 MiB. All of it has its place when the file is made, by the submit that needs it. A group
    /// of entries that is larger gets a segment of its own size.
    pub segment_bytes: u64,
    /// The same of one that is made ahead, by a thread of its own: at most so much, and at most twice
    /// as much as the one before it, so that a log that grows fast begins new ones rarely. If there
    /// is no room for that it is made as `segment_bytes` says.
    pub ahead_bytes: u64,
    /// Bytes of the last entries that an opening hands out, counted by
    /// [`Payload::weight`](crate::core::Payload::weight); the others are outlined, and fetched when
    /// somebody needs them.
    pub tail_bytes: usize,
    /// If the groups of entries in a segment came to so many bytes on average, the zeros of the next one
    /// are not written, where a file system keeps account of what was not: half as much goes to the disk,
    /// for which every write takes a little longer. 0 for always, `u64::MAX` for never.
    pub large_group_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 4 * 1024 * 1024,
            ahead_bytes: 16 * 1024 * 1024,
            tail_bytes: usize::MAX,
            // Measured on ext4: a write of 64 KiB takes 80 us longer, and to write as much once more
            // about as long.
            large_group_bytes: 64 * 1024,
        }
    }
}

impl Options {
    /// Size of a segment that must have room for `groups` bytes.
    fn segment_size(&self, groups: u64) -> u64 {
        Options::size(self.segment_bytes).max(PAGE as u64 + groups)
    }

    /// Size of a segment that is made ahead, while the newest one has this.
    fn ahead_size(&self, newest: u64) -> u64 {
        let least = self.segment_size(0);
        let most = Options::size(self.ahead_bytes).max(least);
        newest.saturating_mul(2).clamp(least, most)
    }

    fn size(wanted: u64) -> u64 {
        wanted
            .clamp(segment::MIN_BYTES, segment::MAX_BYTES)
            .next_multiple_of(PAGE as u64)
    }

    /// The same on a disk that has no room for that: what is used and a little more.
    fn scant_segment_size(&self, groups: u64) -> u64 {
        (groups + segment::MIN_BYTES)
            .next_multiple_of(PAGE as u64)
            .min(self.segment_size(groups))
    }
}

/// An open directory.
///
/// Images are written and read beside it, in any thread; one that is being written keeps the
/// directory locked. Writes are done by `submit` itself, on the calling thread, and their completions
/// are ready when it returns; unless [`Storage::spawn_writer`] was called. One persist may hold 256 MiB
/// of encoded entries.
///
/// Dropping it finishes what was submitted. It must not be used on both sides of a fork(); dropping
/// it in a child writes nothing. The lock is given up with it, whatever descriptors a child has kept; with a
/// process that ends otherwise it goes when those are closed as well.
pub struct Directory {
    fs: Arc<dyn Vfs>,
    /// For whoever writes; locked as long as that takes.
    log: Arc<Mutex<Log>>,
    known: Arc<Mutex<Known>>,
    snapshots: Arc<Snapshots>,
    /// Writes, once there is one.
    thread: Option<LogThread>,
    spares: Arc<Spares>,
    /// Makes spare segments, once there is one.
    spare_thread: Option<SpareThread>,
    /// For whoever does the tasks.
    files: Arc<Files>,
    /// Does them, once there is one.
    read_thread: Option<ReadThread>,
    checks: Arc<Checks>,
    /// Checks what is written no more, once there is one.
    check_thread: Option<CheckThread>,
    /// Of writes that were done without a thread.
    done: VecDeque<Completion>,
    /// The process that opened it.
    pid: u32,
}

impl Directory {
    /// Makes the directory of a node that never existed. It does not open it.
    ///
    /// `instance` is drawn at random by the caller: it tells this node from an earlier one of the
    /// same id whose directory was lost. The parent directory must exist; the directory itself
    /// may, if it holds no node. A crash before the end leaves no node, and `create` may be tried
    /// again.
    ///
    /// # Errors
    /// `Exists`, `Locked`, `Io`.
    pub fn create(path: &Path, identity: &Identity, instance: u64) -> Result<(), StorageError> {
        Directory::create_on(&mut Disk::new(path), identity, instance)
    }

    /// Opens the directory of a node, and locks it until the value is dropped.
    ///
    /// Reads and checks every byte of the newest image, of the last entries, and of whatever else of the
    /// log no checkpoint tells of. Nothing is changed before that is done; what is damaged is dropped
    /// then, and [`Opened::lost`] tells of it. All other entries are checked when they are fetched, and
    /// once in the background ([`Storage::damage`]) if there are threads.
    ///
    /// # Errors
    /// `Missing` if there is no node, `Foreign` if it is another one, `Locked`, `Version`,
    /// `Corrupt` if META is damaged or older than the log, or if something is lost and this node is
    /// the only voter, `Io`.
    pub fn open(path: &Path, identity: &Identity) -> Result<(Directory, Opened), StorageError> {
        Directory::open_with(path, identity, Options::default())
    }

    /// As [`Directory::open`], with other options.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub fn open_with(
        path: &Path,
        identity: &Identity,
        options: Options,
    ) -> Result<(Directory, Opened), StorageError> {
        Directory::open_on(Box::new(Disk::new(path)), identity, options)
    }

    fn create_on(fs: &mut dyn Vfs, identity: &Identity, instance: u64) -> Result<(), StorageError> {
        fs.make_root()?;
        fs.lock(LOCK)?;
        let names = fs.list()?;
        if holds_node(&names) {
            return Err(StorageError::Exists { path: fs.root() });
        }
        remove_prepared(fs, &names)?;
        let meta = Meta {
            identity: *identity,
            instance,
            incarnation: 0,
            generation: 1,
            hard: HardState::default(),
            head_seq: 0,
            durable_lsn: 0,
            first_seq: 1,
            adopted: None,
        };
        meta::create(fs, &meta).map_err(open::or_full)
    }
}

impl Storage for Directory {
    /// # Panics
    /// If the persist breaks a rule of Raft: a gap in the log, a term that goes back, a second
    /// vote in a term.
    fn submit(&mut self, persist: Persist) {
        if let Some(thread) = &mut self.thread {
            return thread.submit(persist);
        }
        let token = persist.token;
        let result = self.log().write(&[persist]);
        self.done.push_back(Completion { token, result });
    }

    fn start(&mut self) {
        if let Some(thread) = &mut self.thread {
            thread.go_on();
        }
    }

    fn poll(&mut self) -> Option<Completion> {
        let done = self.done.pop_front();
        done.or_else(|| self.thread.as_mut()?.poll())
    }

    fn room(&self) -> Room {
        let full = match self.known().lacking {
            Some(bytes) => self.spares.ready().is_none_or(|ready| bytes > ready),
            None => false,
        };
        match full {
            _ if !self.thread.as_ref().is_none_or(LogThread::has_room) => Room::None,
            true => Room::Hard,
            false => Room::All,
        }
    }

    fn make_room(&mut self) {
        aside::remove_all(&*self.fs);
        let made = self.spares.ready().unwrap_or(self.spares.bytes());
        if self.known().lacking.is_some_and(|bytes| bytes > made) {
            // The next write tries to make a segment for itself alone.
            self.known().lacking = None;
        } else {
            self.spares.make_now();
        }
    }

    fn spawn_writer(&mut self, wake: Wake) -> Result<Option<RawFd>, StorageError> {
        if self.thread.is_none() {
            self.thread = Some(LogThread::spawn(&self.log, wake.clone())?);
            self.spare_thread = Some(SpareThread::spawn(&self.spares, wake.clone())?);
        }
        if self.read_thread.is_none() {
            self.read_thread = Some(ReadThread::spawn(&self.files, wake.clone())?);
        }
        if self.check_thread.is_none() {
            self.check_thread = Some(CheckThread::spawn(&self.checks, wake)?);
        }
        Ok(self.thread.as_ref().and_then(LogThread::fd))
    }

    fn damage(&mut self) -> Option<(Index, StorageError)> {
        self.checks.take_found()
    }

    fn flush(&mut self) {
        if let Some(thread) = &mut self.thread {
            thread.flush();
        }
    }

    fn fetch(
        &mut self,
        first: Index,
        last: Index,
        bytes: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        (&*self.files).fetch(first, last, bytes)
    }

    fn begin(&mut self, mut task: Task) -> Option<Done> {
        let Some(thread) = &self.read_thread else {
            return Some(task.perform(&mut &*self.files));
        };
        thread.begin(task);
        None
    }

    fn finished(&mut self) -> Option<Done> {
        self.read_thread.as_ref()?.finished()
    }

    /// # Panics
    /// If the oldest snapshot needs what is to be dropped.
    fn trim(&mut self, base: Position) -> Result<(), StorageError> {
        self.refuse_if_failed()?;
        let oldest = self.snapshots.oldest();
        assert!(
            base.index <= oldest,
            "the log is trimmed up to {}, an image ends at {oldest}",
            base.index
        );
        match &mut self.thread {
            Some(thread) => thread.trim(base.index),
            None => self.log().trim_segments(base.index),
        }
    }

    fn write_snapshot(&mut self, draft: Draft) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Ok(Box::new(self.files.write_snapshot(draft)?))
    }

    fn read_snapshot(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<Box<dyn SnapshotReader>, StorageError> {
        Ok(Box::new(self.files.read_snapshot(snapshot)?))
    }

    /// # Panics
    /// If the piece does not follow the one before, or exceeds [`MAX_PIECE`](crate::wire::MAX_PIECE).
    fn store_piece(
        &mut self,
        snapshot: &Snapshot,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StorageError> {
        (&*self.files).store(snapshot, offset, data)
    }

    fn adopt(&mut self, snapshot: &Snapshot) -> Result<(), StorageError> {
        (&*self.files).adopt(snapshot)
    }

    fn oldest_snapshot(&self) -> Index {
        self.snapshots.oldest()
    }
}

impl Directory {
    /// With nothing received, and no thread.
    fn of(log: Log) -> Directory {
        let (fs, known, snapshots) = (log.fs.clone(), log.known.clone(), log.snapshots.clone());
        let (spares, checks) = (log.spares.clone(), log.checks.clone());
        let log = Arc::new(Mutex::new(log));
        let files = Files {
            fs: fs.clone(),
            log: log.clone(),
            known: known.clone(),
            snapshots: snapshots.clone(),
            partial: Mutex::default(),
        };
        Directory {
            fs,
            known,
            snapshots,
            spares,
            checks,
            log,
            files: Arc::new(files),
            thread: None,
            spare_thread: None,
            read_thread: None,
            check_thread: None,
            done: VecDeque::new(),
            pid: std::process::id(),
        }
    }

    /// What is written; the lock is free as long as there is no thread.
    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    fn refuse_if_failed(&self) -> Result<(), StorageError> {
        self.files.refuse_if_failed()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            // The files are the parent's, and its threads do not exist here: what they were using
            // when the process was forked stays as it was, but for the lock.
            if let Some(thread) = self.thread.take() {
                thread.forget();
                self.fs.unlock();
            }
            if let Some(thread) = self.spare_thread.take() {
                thread.forget();
            }
            if let Some(thread) = self.read_thread.take() {
                thread.forget();
            }
            if let Some(thread) = self.check_thread.take() {
                thread.forget();
            }
            return;
        }
        self.thread = None;
        self.spare_thread = None;
        self.read_thread = None;
        self.check_thread = None;
        self.spares.discard();
        // Everything is there, whatever comes of this; the next opening knows a little less.
        let _ = self.log().note_durable();
    }
}

/// Whether anything of a node is there, be it whole or not.
fn holds_node(names: &[String]) -> bool {
    names
        .iter()
        .any(|name| name == meta::NAME || is_segment(name) || snapshot::position(name).is_some())
}

fn remove_prepared(fs: &dyn Vfs, names: &[String]) -> Result<(), StorageError> {
    for name in names.iter().filter(|name| name.starts_with(PREPARED)) {
        fs.remove(name)?;
    }
    Ok(())
}
