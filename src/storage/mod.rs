//! Where a node keeps its hard state and its log: the trait, and what can go wrong.
//!
//! The discipline is one token a write. The engine submits a [`Persist`]; nothing that depends on
//! it leaves the node until [`Storage::poll`] has handed back its token with `Ok`. A failed write
//! is never retried (fsync may lie the second time): the engine is poisoned by it.

mod dir;
mod memory;

pub use dir::{Directory, Options};
pub use memory::Memory;

use std::fmt;
use std::path::PathBuf;

use crate::core::{Index, NodeId, Persist, Restored, Token};

/// The durable home of one node's hard state and log.
pub trait Storage: Send {
    /// Starts one atomic write. Entries replace whatever is stored from the first one's index on.
    fn submit(&mut self, persist: Persist);

    /// The next finished write, in order of submission; `None` while there is none.
    fn poll(&mut self) -> Option<Completion>;
}

/// A finished write.
#[derive(Debug)]
pub struct Completion {
    /// The token of the `Persist`.
    pub token: Token,
    /// `Ok` when all of it is durable. After an `Err` the storage takes no more writes.
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
}

/// Everything that can be wrong with a directory or a write.
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
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Io { op, path, error } => write!(f, "{op} {}: {error}", path.display()),
            StorageError::Corrupt {
                path,
                offset,
                index,
                what,
            } => write!(
                f,
                "{}: {what} at offset {offset} (log index {index})",
                path.display()
            ),
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
        }
    }
}

impl std::error::Error for StorageError {}
