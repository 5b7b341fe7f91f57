//! The C ABI, one file per exported object; nothing but translation.
//!
//! The documentation of everything exported here is written for a C programmer: it becomes
//! `include/raftkeel.h`. The rules that all functions share stand at the top of that header
//! (`cbindgen.toml`); they are also the safety contract of every `unsafe extern "C"` function.
//!
//! - [`code`]: result codes and their texts.
//! - [`errmsg`]: the detail of a thread's last failure.
//! - [`guard`]: the one way in: NULL, fork, death, second driver, panics.
//! - [`sized`]: structs that the host fills and that may be older or newer than this library.
//! - [`config`], [`callbacks`], [`storage`]: what an engine is made from.
//! - [`tickets`]: who waits for the completion of which request.
//! - [`keel`]: an engine's life. [`drive`], [`input`], [`query`]: its functions by kind of access;
//!   [`leadership`]: the inputs about that.
//! - [`snapshot`]: the host's part of a snapshot.
//! - [`status`], [`json`]: a snapshot of what an engine knows.

#![allow(unsafe_code, reason = "the only place where C's pointers are touched")]
#![allow(non_camel_case_types, reason = "the names are those of the C header")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the contract is the header's rules"
)]

pub mod callbacks;
pub mod code;
pub mod config;
pub mod drive;
pub mod errmsg;
pub mod guard;
pub mod input;
pub mod json;
pub mod keel;
pub mod leadership;
pub mod query;
pub mod sized;
pub mod snapshot;
pub mod status;
pub mod storage;
pub mod tickets;

#[cfg(test)]
mod tests;
