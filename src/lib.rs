//! Automatic failover for storage daemons: a leader chosen by Raft, dead nodes found without
//! accusing a living one, and every exclusion decided once, by consensus.
//!
//! The crate is used through its C ABI (`include/raftkeel.h`). Inside, every arrow points down:
//!
//! - [`ffi`]: the C ABI; nothing but translation.
//! - [`engine`]: one cluster member: input queue, step, completions, status, drivers.
//! - [`storage`]: the durable home of hard state and log.
//! - [`wire`]: messages as bytes.
//! - [`cluster`]: the replicated cluster state: members, settings, epochs, exclusions.
//! - [`detector`]: silence, witnesses, verdicts, guards. Pure.
//! - `panics`: none of them crosses into the host.
//! - [`core`]: Raft. Pure: it knows no clock, socket, file or C.

#![deny(unsafe_code)]

#[cfg(not(panic = "unwind"))]
compile_error!("raftkeel contains panics at its C boundary, which needs panic = \"unwind\"");

pub mod cluster;
pub mod core;
pub mod detector;
pub mod engine;
pub mod ffi;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod panics;
pub mod storage;
pub mod wire;

// Files that tests of the insides share with those in tests/ know the crate by its name.
#[cfg(test)]
extern crate self as raftkeel;
