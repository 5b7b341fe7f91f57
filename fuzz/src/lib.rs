//! The targets, as the tests in tests/fuzz and src/fuzz have them too.

#[path = "../../tests/support/commands.rs"]
mod commands;
#[path = "../../tests/support/packets.rs"]
mod packets;
#[path = "../../tests/support/rng.rs"]
mod rng;
#[path = "../../tests/fuzz/targets/mod.rs"]
pub mod targets;

// It is the allocator of the whole program: there can be only one.
use raftkeel::fuzz::alloc;
