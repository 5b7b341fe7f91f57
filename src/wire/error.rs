//! Why bytes are refused.

use std::collections::TryReserveError;
use std::fmt;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// They end too early, or a length in them points behind their end.
    Truncated,
    /// They go on after the end of what was expected.
    Trailing,
    /// They do not begin as a packet does.
    BadMagic,
    /// A format that this library does not speak.
    Version(u8),
    /// They were changed on their way.
    Checksum,
    /// A length above the limit.
    TooLong {
        /// Of what.
        what: &'static str,
        /// The length found.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A value that its field cannot have.
    BadValue {
        /// The field.
        what: &'static str,
    },
    /// A log entry or a cluster command of a kind that this library does not know. It must never be
    /// skipped (raft.md rule 59).
    UnknownKind {
        /// Entry or command.
        what: &'static str,
        /// The kind found.
        kind: u8,
    },
    /// There is no memory for what they hold, which may be all right.
    NoMemory,
}

impl From<TryReserveError> for WireError {
    fn from(_: TryReserveError) -> WireError {
        WireError::NoMemory
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Truncated => f.write_str("the bytes end too early"),
            WireError::Trailing => f.write_str("there are bytes after the end"),
            WireError::BadMagic => f.write_str("this is no packet"),
            WireError::Version(v) => write!(f, "format version {v} is not known to this library"),
            WireError::Checksum => f.write_str("the checksum is wrong"),
            WireError::TooLong { what, len, max } => {
                write!(f, "{what}: {len} is more than the limit of {max}")
            }
            WireError::BadValue { what } => write!(f, "{what}: impossible value"),
            WireError::UnknownKind { what, kind } => {
                write!(f, "{what} of kind {kind} is not known to this library")
            }
            WireError::NoMemory => f.write_str("there is no memory for what the bytes hold"),
        }
    }
}

impl std::error::Error for WireError {}
