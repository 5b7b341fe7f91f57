//! Where a node keeps its hard state, its log and its snapshots: the traits, and what can go wrong.
//!
//! The discipline is one token a write. The engine submits a [`Persist`]; nothing that depends on
//! it leaves the node until [`Storage::poll`] has handed back its token with `Ok`. A failed write
//! is never retried (fsync may lie the second time): the engine is poisoned by it.
//!
//! A snapshot's image is written and read in pieces, beside the log: by a [`SnapshotWriter`] or a
//! [`SnapshotReader`], each of which may be used in a thread of its own. An image is there as a
//! whole or not at all, and once it is, it counts: a log that does not hold the entry where it ends
//! is found empty behind it when the node starts again.

mod dir;
mod host;
mod memory;
mod read_back;
mod task;

pub use dir::{Directory, Options, inspect, repair};
pub use host::{Batch, HostCode, HostStorage, HostStore, OutOfOrder, Records, Writes};
pub use memory::Memory;
pub use task::{Done, LogPiece, PieceOf, Task};
#[cfg(any(test, fuzzing))]
pub(crate) use {dir::tests::fuzz as dir_fuzz, host::tests::fuzz as host_fuzz};

use std::collections::TryReserveError;
use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::core::{
    Configuration, Entry, Index, NodeId, Persist, Position, Restored, Snapshot, Token,
};

/// Heap bytes that opening a directory may take at any moment for one byte in its files; over time it
/// takes at most twice as much. The worst case, 14, is one group of no-ops, 17 bytes each: in a list
/// that has just grown, and on their way from there to the log, which has grown too. An inspection,
/// which looks at everything twice, may take twice as much.
pub const OPEN_AMPLIFICATION: usize = 16;

/// Heap bytes that it may take besides: images are read block by block.
pub const OPEN_OVERHEAD: usize = 96 * 1024;

/// Heap bytes that opening a host's storage may take for one byte of the records and the ends of
/// images that it gives back.
pub const HOST_AMPLIFICATION: usize = 8;

/// Heap bytes that it may take besides, once and for each image that is listed: what is known of it,
/// and the longest description of one while it is read.
pub const HOST_OVERHEAD: usize = 8 * 1024;

/// What of a write storage would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All of it.
    All,
    /// Only hard state: the last write's entries got [`StorageError::Full`], or came after such.
    Hard,
    /// Nothing for now: enough is under way.
    None,
}

/// Told, from any thread, that there is something to be polled.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// So many zeros, to be read over.
pub(crate) fn zeros(len: usize) -> Result<Vec<u8>, StorageError> {
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(len)?;
    zeros.resize(len, 0);
    Ok(zeros)
}

/// Whether so many bytes cannot be had now. What is allocated next without a way to fail may still not
/// be there, but only if somebody else took it meanwhile.
pub(crate) fn lacks_memory(len: usize) -> bool {
    let mut tried = Vec::<u8>::new();
    let lacks = tried.try_reserve_exact(len).is_err();
    // Else the compiler may leave out what nobody uses, and say that it was there.
    std::hint::black_box(&mut tried);
    lacks
}

/// The durable home of one node's hard state, log and snapshots.
pub trait Storage: Send {
    /// Whether this run has its number durable: until then nothing may be said in its name. Where
    /// that takes its time it is begun by the first question.
    fn ready(&mut self) -> Result<bool, StorageError> {
        Ok(true)
    }

    /// What may be submitted now. If nothing, what is to be written is gathered into a larger write,
    /// until one of those under way has been polled.
    fn room(&self) -> Room {
        Room::All
    }

    /// Tries again to find room for entries. Asked every second or so while [`Storage::room`] is
    /// [`Room::Hard`].
    fn make_room(&mut self) {}

    /// From now on writes and tasks may be done by threads of the storage's own, which call `wake`
    /// whenever one is finished; `Ok` as well where there are no such threads. Some writes may be
    /// finished without them: of those a descriptor tells, if one is returned, by becoming readable,
    /// as an edge. It is the storage's own.
    fn spawn_writer(&mut self, _wake: Wake) -> Result<Option<RawFd>, StorageError> {
        Ok(None)
    }

    /// Waits until all writes that were submitted are finished, if a thread of the storage's own
    /// does them.
    fn flush(&mut self) {}

    /// Takes in one atomic write. With `reset` the log is dropped first, and goes on behind that
    /// snapshot. Entries replace whatever is stored from the first one's index on.
    fn submit(&mut self, persist: Persist);

    /// Begins what was submitted, as far as that was not begun at once: when the messages that left
    /// with it are on their way.
    fn start(&mut self) {}

    /// The next finished write, in order of submission; `None` while there is none.
    fn poll(&mut self) -> Option<Completion>;

    /// Begins a task. What came of it is returned if it was done at once; where a thread does it,
    /// [`Storage::finished`] hands it out later. One that waits for its turn is forgotten when
    /// another one comes for the same.
    fn begin(&mut self, mut task: Task) -> Option<Done> {
        Some(task.perform(self))
    }

    /// The next task that a thread has finished, in the order in which they were begun; `None` while
    /// there is none.
    fn finished(&mut self) -> Option<Done> {
        None
    }

    /// Durable entries from `first` to at most `last`: at least one, and about as many as weigh
    /// `bytes`. After an error the same may be asked again.
    fn fetch(
        &mut self,
        first: Index,
        last: Index,
        bytes: usize,
    ) -> Result<Vec<Entry>, StorageError>;

    /// What turned out to be damaged without being fetched, and was not told yet: the first entry that
    /// it concerns. The next opening finds it as well.
    fn damage(&mut self) -> Option<(Index, StorageError)> {
        None
    }

    /// Everything up to here is not needed any more; a snapshot that is durable has its place.
    /// What is still found at a start is dropped again then: nothing waits for this.
    fn trim(&mut self, base: Position) -> Result<(), StorageError>;

    /// Whether there is room for snapshots at all; if not, every function about them says so.
    fn keeps_snapshots(&self) -> bool {
        true
    }

    /// Begins an image of this node's own. One at a time; dropping the writer gives it up.
    fn write_snapshot(&mut self, draft: Draft) -> Result<Box<dyn SnapshotWriter>, StorageError>;

    /// Opens a durable image, or the newest one that is received and whole, whose checksum is
    /// compared first. `Missing`, or `Record` of the host's, if there is none such.
    fn read_snapshot(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<Box<dyn SnapshotReader>, StorageError>;

    /// Keeps a piece of an image that is being received. At offset 0 it takes the place of all that
    /// was received of another; else it follows the piece before.
    fn store_piece(
        &mut self,
        snapshot: &Snapshot,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StorageError>;

    /// Makes the image that was received durable, as the newest snapshot. An empty one needs no
    /// piece.
    fn adopt(&mut self, snapshot: &Snapshot) -> Result<(), StorageError>;

    /// The last index of the oldest image that is kept, 0 without any: the log must reach back to
    /// there, so that this image will do if a newer one is damaged.
    fn oldest_snapshot(&self) -> Index;
}

/// What a snapshot will be, before its image is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// See [`Snapshot::last`].
    pub last: Position,
    /// See [`Snapshot::config`].
    pub config: Arc<Configuration>,
    /// See [`Snapshot::config_index`].
    pub config_index: Index,
    /// See [`Snapshot::pieces`].
    pub pieces: Option<(Index, Index)>,
}

impl Draft {
    /// The snapshot with this image.
    pub fn finished(&self, size: u64, crc: u32) -> Snapshot {
        Snapshot {
            last: self.last,
            config: self.config.clone(),
            config_index: self.config_index,
            size,
            crc,
            pieces: self.pieces,
        }
    }
}

/// Writes an image from front to back, in any thread.
pub trait SnapshotWriter: Send {
    /// Appends to it. After an error it is given up.
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError>;

    /// Verifies it and makes it durable, as the newest snapshot if none is newer.
    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError>;

    /// Ends it without making it a snapshot: it can be read until the reader is dropped, and is gone
    /// then. Its size and CRC-32 come with it.
    fn finish_aside(self: Box<Self>) -> Result<(Box<dyn SnapshotReader>, u64, u32), StorageError>;
}

/// Reads an image, in any thread. What is being read stays readable when newer ones come.
pub trait SnapshotReader: Send {
    /// Fills as much of `buf` as there is of the image from `offset` on; 0 at its end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError>;
}

/// A finished write.
#[derive(Debug)]
pub struct Completion {
    /// The token of the `Persist`.
    pub token: Token,
    /// `Ok` when all of it is durable. After an `Err`, unless it is [`StorageError::Full`], the
    /// storage takes no more writes.
    pub result: Result<(), StorageError>,
}

/// Whose directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's number, chosen by the host.
    pub cluster: u64,
    /// The node's id.
    pub node: NodeId,
}

/// What opening storage yields besides the storage itself.
#[derive(Debug)]
pub struct Opened {
    /// Hard state and log as they were durable.
    pub restored: Restored,
    /// Grows with every opening, durable before it is handed out.
    pub incarnation: u32,
    /// Drawn when the directory was made: tells a wiped and remade node from its predecessor.
    pub instance: u64,
    /// Bytes of a torn, never acknowledged tail that were cut off.
    pub torn_bytes: u64,
    /// Whether one of the two META slots had to be rewritten from the other.
    pub meta_repaired: bool,
    /// What is wrong with snapshots or with parts of the log that were passed over: others have
    /// their place, and nothing is lost.
    pub damaged: Vec<String>,
    /// The log is damaged, and entries are lost that may have been acknowledged.
    pub lost: Option<Lost>,
}

/// What was lost of a log. Its [claim](crate::core::HardState::claim) is durable by the time this is
/// handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What is wrong, with file and offset.
    pub what: String,
    /// Where the log ends now.
    pub kept: Position,
    /// The last entry that was ever acknowledged, or a place behind it.
    pub claim: Position,
}

/// Everything that can be wrong with a directory, a host's storage, or a write.
#[derive(Debug)]
pub enum StorageError {
    /// A system call failed.
    Io {
        /// What was being done, e.g. "fdatasync".
        op: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// There is no room for entries, or no descriptor to be had. What a write says of the hard state
    /// is durable, nothing else has happened, and storage goes on; see [`Storage::room`].
    Full {
        /// The file that could not be made.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A file does not hold what was written to it.
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Byte offset of the first bad record.
        offset: u64,
        /// The log index expected there, 0 if unknown.
        index: Index,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What the host's storage gave back is not what was written.
    Record {
        /// The log index that it concerns, 0 if none.
        index: Index,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no node here; a directory is made only when asked to.
    Missing {
        /// The directory or the file in it.
        path: PathBuf,
    },
    /// A node was to be made where there is one already.
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// Another engine has the directory open.
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory belongs to another node or cluster.
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Who asked.
        asked: Identity,
    },
    /// The directory was written by a newer version.
    Version {
        /// The file.
        path: PathBuf,
        /// Its format version or feature bits.
        found: u32,
    },
    /// The host's storage has no room for snapshots.
    NoSnapshots,
    /// There is no memory for what is to be read or written. Nothing has happened; it may be tried again.
    NoMemory,
}

impl From<TryReserveError> for StorageError {
    fn from(_: TryReserveError) -> StorageError {
        StorageError::NoMemory
    }
}

impl StorageError {
    /// The same once more, for another who is told of it.
    pub(crate) fn again(&self) -> StorageError {
        let copy = |error: &std::io::Error| match error.raw_os_error() {
            Some(code) => std::io::Error::from_raw_os_error(code),
            None => std::io::Error::new(error.kind(), error.to_string()),
        };
        match self {
            StorageError::Full { path, error } => StorageError::Full {
                path: path.clone(),
                error: copy(error),
            },
            StorageError::Io { op, path, error } => StorageError::Io {
                op,
                path: path.clone(),
                error: copy(error),
            },
            StorageError::NoMemory => StorageError::NoMemory,
            other => StorageError::Io {
                op: "write",
                path: PathBuf::new(),
                error: std::io::Error::other(other.to_string()),
            },
        }
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Full { path, error } => {
                write!(f, "no room for {}: {error}", path.display())
            }
            StorageError::Io { op, path, error } => write!(f, "{op} {}: {error}", path.display()),
            StorageError::Corrupt {
                path,
                offset,
                index,
                what,
            } => {
                write!(f, "{}: {what} at offset {offset}", path.display())?;
                match index {
                    0 => Ok(()),
                    _ => write!(f, " (log index {index})"),
                }
            }
            StorageError::Record { index: 0, what } => write!(f, "keel_storage: {what}"),
            StorageError::Record { index, what } => {
                write!(f, "keel_storage: log index {index}: {what}")
            }
            StorageError::Missing { path } => write!(
                f,
                "{}: no node here; a new node is made with KEEL_NEW_NODE, a lost one must be replaced under a new id",
                path.display()
            ),
            StorageError::Exists { path } => {
                write!(
                    f,
                    "{}: a node exists here already; open it without KEEL_NEW_NODE",
                    path.display()
                )
            }
            StorageError::Locked { path } => {
                write!(f, "{}: in use by another engine", path.display())
            }
            StorageError::Foreign { path, found, asked } => write!(
                f,
                "{}: belongs to node {} of cluster {}, not to node {} of cluster {}",
                path.display(),
                found.node.get(),
                found.cluster,
                asked.node.get(),
                asked.cluster
            ),
            StorageError::Version { path, found } => write!(
                f,
                "{}: format {found:#x} is newer than this library",
                path.display()
            ),
            StorageError::NoSnapshots => {
                f.write_str("keel_storage.snap_put is NULL: this node keeps no snapshots")
            }
            StorageError::NoMemory => f.write_str("there is no memory for what is stored"),
        }
    }
}

impl std::error::Error for StorageError {}
