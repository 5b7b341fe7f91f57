//! What a member is made with.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cluster::Params;
use crate::core::{Millis, NodeId};
use crate::storage::HostStore;
use crate::wire;

use super::Error;

/// Heartbeat interval when none is set, in milliseconds.
pub const HEARTBEAT_DEFAULT: Millis = 100;
/// Election timeout when none is set, in heartbeats: at 30 % loss each way a shorter one fires
/// without reason (detection.md 5b).
pub const ELECTION_HEARTBEATS: Millis = 20;
/// Inputs that may wait for the next driving call when no number is set.
pub const QUEUE_DEFAULT: usize = 4096;
/// Bytes of one proposal when no limit is set.
pub const ENTRY_DEFAULT: usize = 1 << 20;

/// Bytes of one message to a peer when no limit is set and entries are no larger than usual.
pub const MESSAGE_DEFAULT: usize = (1 << 20) + MESSAGE_REST;
/// What a message carries besides entries: its header, keepalives with the rows of 64 nodes, and
/// other parts, all of them small.
pub const MESSAGE_REST: usize = 16 << 10;

const MESSAGE_MIN: usize = 2 * MESSAGE_REST;

/// Upper bound of both Raft timers: an hour.
const TIMER_MAX: Millis = 3_600_000;
const QUEUE_MAX: usize = 1 << 20;

/// Bytes of log entries that are kept in memory when no number is set.
pub const TAIL_DEFAULT: usize = 16 << 20;
/// Bytes of log entries after which a snapshot is made when no number is set.
pub const COMPACT_BYTES_DEFAULT: u64 = 64 << 20;
/// Log entries after which one is made when no number is set.
pub const COMPACT_ENTRIES_DEFAULT: u64 = 1 << 20;

/// Who decides when the log is compacted, and where the snapshot goes (thesis 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Every node for itself; its snapshot is kept beside its log.
    #[default]
    Application,
    /// The leader, by an entry; every node makes a snapshot exactly there, and they are compared.
    Leader,
    /// The leader; its host's part goes into the log.
    InLog,
}

/// When and how the log is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Who decides, and where it goes.
    pub way: Way,
    /// So many bytes applied since the last snapshot make a new one; counted by
    /// [`Payload::weight`](crate::core::Payload::weight).
    pub bytes: u64,
    /// So do so many entries.
    pub entries: u64,
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction {
            way: Way::default(),
            bytes: COMPACT_BYTES_DEFAULT,
            entries: COMPACT_ENTRIES_DEFAULT,
        }
    }
}

/// Whether the host has a state of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostState {
    /// None: snapshots are of the cluster's own state.
    None,
    /// One that it writes and loads.
    Saved,
    /// One that it cannot write: there are no snapshots, and the log is never compacted.
    #[default]
    Unsaved,
}

/// One member's own settings; the cluster's are [`Params`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub id: NodeId,
    /// The cluster's number; messages of others are refused.
    pub cluster: u64,
    /// The cluster-wide settings that bootstrap starts with.
    pub params: Params,
    /// Milliseconds between a leader's heartbeats.
    pub heartbeat: Millis,
    /// Base of the election timeout in milliseconds, randomised in [E, 1.5E).
    pub election: Millis,
    /// Inputs that may wait for the next driving call.
    pub queue_max: usize,
    /// Bytes of one proposal.
    pub entry_max: usize,
    /// Bytes of one message to a peer.
    pub message_max: usize,
    /// When and how the log is compacted.
    pub compaction: Compaction,
    /// Whether the host has a state of its own that must be in snapshots.
    pub host_state: HostState,
    /// Bytes of snapshots that this node sends in a second as leader; `None` for no limit.
    pub snapshot_rate: Option<NonZeroU64>,
    /// Bytes of log entries that are kept in memory.
    pub tail_bytes: usize,
    /// Leaders may answer barriers without asking anybody, trusting clocks.
    pub lease_reads: bool,
    /// A leader hands over if its own disk is much slower than those of the others.
    pub spares_own_disk: bool,
    /// What this node says to understand (`wire::FEATURES`); less than that is for tests of
    /// clusters of several versions.
    pub features: u32,
    /// Of all jitter; never the same on two nodes.
    pub seed: u64,
    /// 1 error .. 5 trace.
    pub log_level: i32,
}

impl Settings {
    /// Those of node `id` of a cluster, as long as nothing else is set; the seed is its own.
    pub fn new(id: NodeId, cluster: u64, seed: u64) -> Settings {
        Settings {
            id,
            cluster,
            params: Params::default(),
            heartbeat: HEARTBEAT_DEFAULT,
            election: HEARTBEAT_DEFAULT * ELECTION_HEARTBEATS,
            queue_max: QUEUE_DEFAULT,
            entry_max: ENTRY_DEFAULT,
            message_max: MESSAGE_DEFAULT,
            compaction: Compaction::default(),
            host_state: HostState::default(),
            snapshot_rate: None,
            tail_bytes: TAIL_DEFAULT,
            lease_reads: false,
            spares_own_disk: true,
            features: wire::FEATURES,
            seed,
            log_level: 3,
        }
    }

    /// Bytes of entries that fit in one message, beside everything else that it carries.
    pub fn message_entries(&self) -> usize {
        self.message_max - MESSAGE_REST
    }

    /// Whether the values make sense together; the text names the one that does not.
    pub fn validate(&self) -> Result<(), Error> {
        let rule = |holds: bool, text: &str| {
            if holds {
                Ok(())
            } else {
                Err(Error::Invalid(text.to_owned()))
            }
        };
        let timer = |ms: Millis| (1..=TIMER_MAX).contains(&ms);
        rule(timer(self.heartbeat), "heartbeat_ms must be 1 to 3600000")?;
        rule(timer(self.election), "election_ms must be 1 to 3600000")?;
        rule(
            self.election >= 2 * self.heartbeat,
            "election_ms must be at least twice heartbeat_ms",
        )?;
        rule(
            (1..=QUEUE_MAX).contains(&self.queue_max),
            "queue_max must be 1 to 1048576",
        )?;
        rule(
            (1..=wire::MAX_PAYLOAD).contains(&self.entry_max),
            "entry_max must be 1 byte to 16 MiB",
        )?;
        rule(
            (MESSAGE_MIN..=wire::MAX_PACKET).contains(&self.message_max),
            "message_max must be 32 KiB to 17 MiB",
        )?;
        rule(
            self.entry_max <= self.message_entries(),
            "entry_max must be at least 16 KiB less than message_max",
        )?;
        rule(
            self.compaction.bytes >= 1 && self.compaction.entries >= 1,
            "compact_bytes and compact_entries must be at least 1",
        )?;
        rule(
            (1..=5).contains(&self.log_level),
            "log_level must be 1 (error) to 5 (trace)",
        )?;
        self.params
            .validate()
            .map_err(|e| Error::Invalid(e.to_string()))
    }
}

/// Where a member keeps its hard state and log.
#[derive(Clone, Debug)]
pub enum Place {
    /// The built-in directory.
    Directory {
        /// Its path.
        path: PathBuf,
        /// Make it, for a node that never existed; otherwise it must be there.
        create: bool,
    },
    /// The host's own storage.
    Host {
        /// What it is asked through.
        store: Arc<dyn HostStore>,
        /// It is that of a node that never existed, and empty.
        create: bool,
    },
    /// Memory: lost with the member. For tests and simulations.
    Volatile,
}
