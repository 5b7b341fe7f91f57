//! What a directory does when processes, power, system calls and disks fail.

// The fuzzer has its targets and what they need from here, and none of the tests.
#![cfg_attr(fuzzing, allow(dead_code, unused_imports))]

mod checkpoint;
mod crash;
mod damage;
mod disk;
mod fault;
mod fetch;
pub(crate) mod fuzz;
mod images;
mod inspect;
mod lost;
mod model;
mod reader;
mod rot;
mod sim;
mod sweep;
mod thread;
mod workload;

use crate::core::NodeId;
use crate::storage::Identity;

use super::Options;

/// Small segments, so that a short workload fills several.
const OPTIONS: Options = Options {
    segment_bytes: 16 * 1024,
    tail_bytes: usize::MAX,
    ahead_bytes: 16 * 1024,
    large_group_bytes: 64 * 1024,
};

const INSTANCE: u64 = 0x1234;

fn identity() -> Identity {
    Identity {
        cluster: 42,
        node: NodeId::new(1).unwrap(),
    }
}

/// The seed of a randomised test: KEEL_SEED if set; printed, and shown when the test fails.
fn seed(default: u64) -> u64 {
    let seed = std::env::var("KEEL_SEED").map_or(default, |s| s.parse().unwrap());
    println!("KEEL_SEED={seed}");
    seed
}

/// splitmix64: enough randomness for tests, from one number.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
