//! What is done with the bytes that a fuzzer chose, one function for each target. They are tried by
//! the fuzzer in fuzz/ and, with the corpus it has found, by tests.

pub mod calls;
pub mod cluster;
pub mod structs;
pub mod wire;

use crate::alloc::within;

/// The name of a target's corpus, and the target.
type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("packet", wire::packet),
    ("packet_made", wire::packet_made),
    ("entry", wire::entry),
    ("entry_made", wire::entry_made),
    ("snapshot", wire::snapshot),
    ("command", cluster::command),
    ("command_made", cluster::command_made),
    ("state", cluster::state),
    ("state_made", cluster::state_made),
    ("structs", structs::structs),
    ("calls", calls::calls),
];
