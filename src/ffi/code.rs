//! Result codes: what each means, its short text, and which engine error becomes which.

use std::ffi::{CStr, c_char, c_int};

use crate::engine::Error;

/// Done; in a completion: committed and applied on this node.
pub const KEEL_OK: c_int = 0;
/// Programming error: a bad argument, or NULL where a pointer is required. Nothing changed.
pub const KEEL_ERR_INVALID: c_int = -1;
/// Programming error: not allowed in this state or driving mode.
pub const KEEL_ERR_STATE: c_int = -2;
/// Programming error: another thread drives this engine, or the call was made from a callback.
pub const KEEL_ERR_BUSY: c_int = -3;
/// Programming error: the engine belongs to the process that made it, not to this one.
pub const KEEL_ERR_FORKED: c_int = -4;
/// The engine has stopped. In a completion: it stopped before the outcome was known, so the
/// request may or may not take effect.
pub const KEEL_ERR_CLOSED: c_int = -5;
/// A bug in the library. The engine has stopped.
pub const KEEL_ERR_INTERNAL: c_int = -6;
/// Out of memory. Nothing changed, and a request is surely not done: it may be made again.
pub const KEEL_ERR_NOMEM: c_int = -7;
/// An unknown flag, a struct that uses fields newer than this library, or a directory written
/// by a newer one.
pub const KEEL_ERR_UNSUPPORTED: c_int = -8;
/// Storage or a system call failed; keel_errmsg() has the system's reason. From a driving
/// function: the engine has stopped.
pub const KEEL_ERR_IO: c_int = -9;
/// Stored data fails its checksum. From a driving function: the engine has stopped.
pub const KEEL_ERR_CORRUPT: c_int = -10;
/// A message does not parse: drop it.
pub const KEEL_ERR_MALFORMED: c_int = -11;
/// Go elsewhere: surely not done, this node does not lead. Ask keel_leader().
pub const KEEL_ERR_NOT_LEADER: c_int = -12;
/// Check, then retry: leadership was lost, the request may or may not take effect.
pub const KEEL_ERR_LOST: c_int = -13;
/// Retry later: no majority is in reach.
pub const KEEL_ERR_NO_QUORUM: c_int = -14;
/// Retry later: another change is under way, or the version expected is not the current one.
pub const KEEL_ERR_CONFLICT: c_int = -15;
/// No such node, or no such directory.
pub const KEEL_ERR_NOT_FOUND: c_int = -16;
/// It exists already.
pub const KEEL_ERR_EXISTS: c_int = -17;
/// Larger than a limit.
pub const KEEL_ERR_TOO_BIG: c_int = -18;
/// Retry later: a queue is full. Surely not done.
pub const KEEL_ERR_FULL: c_int = -19;
/// The host's guard refused.
pub const KEEL_ERR_VETOED: c_int = -20;
/// Go elsewhere: this node has been excluded or removed or has lost its state, or
/// (keel_check_epoch()) the other one is out.
pub const KEEL_ERR_EXCLUDED: c_int = -21;
/// A message or a directory of another cluster or of another node.
pub const KEEL_ERR_FOREIGN: c_int = -22;
/// Another engine has the directory open.
pub const KEEL_ERR_LOCKED: c_int = -23;
/// keel_check_epoch(): the sender's epoch is behind; it must catch up before it is served.
pub const KEEL_ERR_STALE: c_int = -24;
/// Retry later: this node's disk has no room for the log, or no descriptor is to be had for it.
/// Surely not done; leadership goes to a node that has room, if there is one and a majority without
/// this node. Everything goes on by itself when there is room again.
pub const KEEL_ERR_NOSPC: c_int = -25;

/// keel_check_epoch(): the sender knows a newer epoch than this node, which must catch up first.
pub const KEEL_EPOCH_AHEAD: c_int = 1;

/// A failed call on its way to C: the code it returns and the detail for keel_errmsg().
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One of the KEEL_ERR_* codes.
    pub code: c_int,
    /// For a person; says what was wrong with which value.
    pub text: String,
}

impl Failure {
    /// Puts a code and its detail together.
    pub fn new(code: c_int, text: impl Into<String>) -> Failure {
        assert!(code < 0, "success is not a failure");
        Failure {
            code,
            text: text.into(),
        }
    }

    /// A bad argument.
    pub fn invalid(text: impl Into<String>) -> Failure {
        Failure::new(KEEL_ERR_INVALID, text)
    }

    /// Whether an engine that met this while being driven can go on. What the disk holds is
    /// unknown after a failed write, and what memory holds after a broken invariant.
    pub fn ends_engine(&self) -> bool {
        matches!(
            self.code,
            KEEL_ERR_IO | KEEL_ERR_CORRUPT | KEEL_ERR_INTERNAL
        )
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(code_of(&error), error.to_string())
    }
}

/// The code that stands for an engine error in C.
pub fn code_of(error: &Error) -> c_int {
    match error {
        Error::Invalid(_) => KEEL_ERR_INVALID,
        Error::State(_) => KEEL_ERR_STATE,
        Error::Closed => KEEL_ERR_CLOSED,
        Error::Internal(_) => KEEL_ERR_INTERNAL,
        Error::NoMemory(_) => KEEL_ERR_NOMEM,
        Error::Io(_) => KEEL_ERR_IO,
        Error::Corrupt(_) => KEEL_ERR_CORRUPT,
        Error::Malformed(_) => KEEL_ERR_MALFORMED,
        Error::Foreign(_) => KEEL_ERR_FOREIGN,
        Error::Locked(_) => KEEL_ERR_LOCKED,
        Error::NotLeader => KEEL_ERR_NOT_LEADER,
        Error::Lost => KEEL_ERR_LOST,
        Error::NoQuorum(_) => KEEL_ERR_NO_QUORUM,
        Error::Conflict(_) => KEEL_ERR_CONFLICT,
        Error::NotFound(_) => KEEL_ERR_NOT_FOUND,
        Error::Exists(_) => KEEL_ERR_EXISTS,
        Error::TooBig(_) => KEEL_ERR_TOO_BIG,
        Error::Full => KEEL_ERR_FULL,
        Error::NoSpace(_) => KEEL_ERR_NOSPC,
        Error::Vetoed(_) => KEEL_ERR_VETOED,
        Error::Excluded => KEEL_ERR_EXCLUDED,
        Error::Unsupported(_) => KEEL_ERR_UNSUPPORTED,
    }
}

fn text_of(code: c_int) -> &'static CStr {
    match code {
        KEEL_OK => c"success",
        KEEL_EPOCH_AHEAD => c"the sender knows a newer epoch",
        KEEL_ERR_INVALID => c"invalid argument",
        KEEL_ERR_STATE => c"not allowed in this state or mode",
        KEEL_ERR_BUSY => c"the engine is being driven already",
        KEEL_ERR_FORKED => c"the engine belongs to another process",
        KEEL_ERR_CLOSED => c"the engine has stopped",
        KEEL_ERR_INTERNAL => c"internal error",
        KEEL_ERR_NOMEM => c"out of memory",
        KEEL_ERR_UNSUPPORTED => c"not supported by this version",
        KEEL_ERR_IO => c"input/output error",
        KEEL_ERR_CORRUPT => c"stored data is damaged",
        KEEL_ERR_MALFORMED => c"malformed message",
        KEEL_ERR_NOT_LEADER => c"this node does not lead",
        KEEL_ERR_LOST => c"leadership was lost, the outcome is unknown",
        KEEL_ERR_NO_QUORUM => c"no majority is in reach",
        KEEL_ERR_CONFLICT => c"conflict with another change",
        KEEL_ERR_NOT_FOUND => c"not found",
        KEEL_ERR_EXISTS => c"exists already",
        KEEL_ERR_TOO_BIG => c"too big",
        KEEL_ERR_FULL => c"queue full",
        KEEL_ERR_VETOED => c"refused by the host's guard",
        KEEL_ERR_EXCLUDED => c"excluded from the cluster",
        KEEL_ERR_FOREIGN => c"belongs to another cluster or node",
        KEEL_ERR_LOCKED => c"in use by another engine",
        KEEL_ERR_STALE => c"the sender's epoch is behind",
        KEEL_ERR_NOSPC => c"no room for the log",
        _ => c"unknown code",
    }
}

/// A short text for a code; never NULL, static. Any thread, any time, in any process.
#[unsafe(no_mangle)]
pub extern "C" fn keel_strerror(code: c_int) -> *const c_char {
    text_of(code).as_ptr()
}

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version holds no NUL"),
    };

const fn decimal(digits: &str) -> u32 {
    let bytes = digits.as_bytes();
    let mut value = 0;
    let mut i = 0;
    while i < bytes.len() {
        assert!(bytes[i].is_ascii_digit(), "version numbers are decimal");
        value = value * 10 + (bytes[i] - b'0') as u32;
        i += 1;
    }
    value
}

/// The version of the library in use, e.g. "0.1.0"; compare with KEEL_VERSION_* of the header.
/// Static. Any thread, any time.
#[unsafe(no_mangle)]
pub extern "C" fn keel_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The same as a number: major << 16 | minor << 8 | patch, comparable with KEEL_VERSION_NUMBER.
#[unsafe(no_mangle)]
pub extern "C" fn keel_version_number() -> u32 {
    const MAJOR: u32 = decimal(env!("CARGO_PKG_VERSION_MAJOR"));
    const MINOR: u32 = decimal(env!("CARGO_PKG_VERSION_MINOR"));
    const PATCH: u32 = decimal(env!("CARGO_PKG_VERSION_PATCH"));
    const { assert!(MINOR < 256 && PATCH < 256) };
    MAJOR << 16 | MINOR << 8 | PATCH
}
