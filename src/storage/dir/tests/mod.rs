//! What a directory does when processes, power, system calls and disks fail.

mod disk;

use crate::core::NodeId;
use crate::storage::Identity;

use super::Options;

/// Small segments, so that a short workload fills several.
const OPTIONS: Options = Options {
    segment_bytes: 16 * 1024,
};

const INSTANCE: u64 = 0x1234;

fn identity() -> Identity {
    Identity {
        cluster: 42,
        node: NodeId::new(1).unwrap(),
    }
}
