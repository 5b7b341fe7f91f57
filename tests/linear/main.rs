//! Linearizability: of what clients of a cluster see under faults, by a checker that is itself
//! checked against brute force, against histories that are known to be wrong, and against right
//! ones of which one reply was made wrong.

// The simulated servers serve other tests too, which use more of them.
#[allow(dead_code)]
#[path = "../raft/checker.rs"]
mod checker;
#[allow(dead_code)]
#[path = "../raft/cluster.rs"]
mod cluster;
#[path = "../raft/disk.rs"]
mod disk;
#[allow(dead_code)]
#[path = "../raft/drive.rs"]
mod drive;
#[allow(dead_code)]
#[path = "../raft/host.rs"]
mod host;
#[path = "../support/linear.rs"]
mod linear;
#[path = "../support/model/mod.rs"]
mod model;
#[allow(dead_code)]
#[path = "../raft/network.rs"]
mod network;

mod brute;
mod handmade;
mod mutated;
mod servers;

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number is wanted"))
}

/// The seed to replay, or as many as these.
fn seeds(count: u64) -> std::ops::Range<u64> {
    match number("RAFTKEEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}
