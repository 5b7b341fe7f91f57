//! What a server is made with.

use std::num::NonZeroU64;

use super::types::{Millis, NodeId};

/// Limits and timers of one server.
#[derive(Clone, Debug)]
pub struct Options {
    /// This server.
    pub id: NodeId,
    /// Interval of a leader's heartbeats, in milliseconds, at least 1.
    pub heartbeat: Millis,
    /// E: base of the election timeout, which is drawn from [E, 1.5E); above `heartbeat`.
    pub election: Millis,
    /// Bytes of entries in one append; a larger entry travels alone.
    pub batch_bytes: usize,
    /// Bytes of proposals that may wait for their commit, counted by [`Payload::weight`]; one
    /// proposal is always admitted.
    pub uncommitted_bytes: usize,
    /// Largest proposal of the host's data in bytes; commands have limits of their own.
    pub entry_max: usize,
    /// Bytes of committed entries that are kept in memory, counted by [`Payload::weight`]; older
    /// ones are fetched when a peer needs them.
    pub tail_bytes: usize,
    /// Bytes of one piece of a snapshot, at least 1.
    pub piece_bytes: usize,
    /// Bytes of snapshots that a leader sends in a second, all peers together; `None` for no
    /// limit. One piece is always sent whole.
    pub snapshot_rate: Option<NonZeroU64>,
    /// A leader whose oldest write takes longer than this steps down (raft.md rule 31).
    pub stall: Millis,
    /// Reads may trust clocks: a leader answers without asking as long as no other can have been
    /// elected, if clocks run equally fast within a twentieth. The same on every node, for it
    /// needs that nobody votes in the first election timeout of a run (raft.md rule 55).
    pub lease_reads: bool,
    /// Of the election jitter; differs from node to node.
    pub seed: u64,
    /// Names this run of the server: no other run of it has the same.
    pub run: u64,
}

impl Options {
    /// Those of server `id`, as long as nothing else is said.
    pub fn new(id: NodeId) -> Options {
        Options {
            id,
            heartbeat: 100,
            election: 2000,
            batch_bytes: 256 << 10,
            uncommitted_bytes: 64 << 20,
            entry_max: 1 << 20,
            tail_bytes: 16 << 20,
            piece_bytes: 256 << 10,
            snapshot_rate: None,
            stall: 8000,
            lease_reads: false,
            seed: 0,
            run: 0,
        }
    }
}
