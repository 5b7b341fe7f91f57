//! What a request or a call can end as. `ffi` maps each to one KEEL_ERR_* code.

use std::fmt;
use std::io::ErrorKind;

use crate::storage::StorageError;

/// What a request or a call ended as; the text is for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A bad argument; nothing changed.
    Invalid(String),
    /// Not allowed in this state or mode.
    State(String),
    /// The engine stopped before this was done.
    Closed,
    /// A broken invariant: the engine is poisoned.
    Internal(String),
    /// Out of memory; nothing changed.
    NoMemory(String),
    /// Storage or a system call failed.
    Io(String),
    /// Stored data fails its checksum.
    Corrupt(String),
    /// A message does not parse.
    Malformed(String),
    /// A message or directory of another cluster or node.
    Foreign(String),
    /// The directory is open elsewhere.
    Locked(String),
    /// Surely not done: this node does not lead.
    NotLeader,
    /// Leadership was lost: may or may not take effect.
    Lost,
    /// No majority is in reach.
    NoQuorum(String),
    /// Another change is under way, or the version is stale.
    Conflict(String),
    /// No such node.
    NotFound(String),
    /// It exists already.
    Exists(String),
    /// Larger than a limit.
    TooBig(String),
    /// A queue is full: retry later.
    Full,
    /// The log's disk is full: nothing is added to it for now.
    NoSpace(String),
    /// The host's guard refused.
    Vetoed(String),
    /// This node has been excluded or removed, or has lost its state.
    Excluded,
    /// Written by a newer version, or an unknown flag.
    Unsupported(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid(s)
            | Error::State(s)
            | Error::Internal(s)
            | Error::NoMemory(s)
            | Error::Io(s)
            | Error::Corrupt(s)
            | Error::Malformed(s)
            | Error::Foreign(s)
            | Error::Locked(s)
            | Error::NoQuorum(s)
            | Error::Conflict(s)
            | Error::NotFound(s)
            | Error::Exists(s)
            | Error::TooBig(s)
            | Error::NoSpace(s)
            | Error::Vetoed(s)
            | Error::Unsupported(s) => f.write_str(s),
            Error::Closed => f.write_str("the engine stopped before this was done"),
            Error::NotLeader => f.write_str("this node does not lead"),
            Error::Lost => f.write_str("leadership was lost before the outcome was known"),
            Error::Full => f.write_str("too much is waiting already"),
            Error::Excluded => f.write_str("this node is no member of the cluster any more"),
        }
    }
}

impl std::error::Error for Error {}

impl From<&StorageError> for Error {
    fn from(error: &StorageError) -> Error {
        let text = error.to_string();
        match error {
            StorageError::Io { .. } | StorageError::Full { .. } => Error::Io(text),
            StorageError::Corrupt { .. } | StorageError::Record { .. } => Error::Corrupt(text),
            StorageError::Missing { .. } => Error::NotFound(text),
            StorageError::Exists { .. } => Error::Exists(text),
            StorageError::Locked { .. } => Error::Locked(text),
            StorageError::Foreign { .. } => Error::Foreign(text),
            StorageError::Version { .. } => Error::Unsupported(text),
            StorageError::NoSnapshots => Error::State(text),
            StorageError::NoMemory => Error::NoMemory(text),
        }
    }
}

impl Error {
    /// What an opening of storage failed with: until it is open nothing is lost by trying again.
    pub(super) fn of_opening(error: StorageError) -> Error {
        match &error {
            StorageError::Io { error: reason, .. } if reason.kind() == ErrorKind::OutOfMemory => {
                Error::NoMemory(error.to_string())
            }
            StorageError::Full { .. } => Error::NoSpace(error.to_string()),
            _ => Error::from(error),
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Error {
        Error::from(&error)
    }
}
