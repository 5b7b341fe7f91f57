//! The replicated cluster state: members, settings, epochs, exclusions; its commands.

use crate::core::{Bytes, Epoch, Index, NodeId};

/// Cluster-wide settings, the same on every node. All times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Grows with every change; in a request the version expected, 0 for any.
    pub version: u64,
    /// Push interval.
    pub hb_keepalive: u32,
    /// Silence after which a node is LATE; 0 = derived.
    pub hb_warntime: u32,
    /// Silence before a verdict; 0 = detect and report, never exclude.
    pub hb_deadtime: u32,
    /// The same for a node never heard by the witness in its run; 0 = derived.
    pub hb_initdead: u32,
    /// How long a cut waits for others that fell silent at about the same time; 0 = derived.
    pub settle: u32,
    /// Fewest voters that automatic exclusion may leave; 0 = majority of the provisioned.
    pub min_nodes: u32,
}

/// Where a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Votes.
    Voter,
    /// Receives the log, is promoted when it has caught up.
    Learner,
    /// Out, by decision.
    Excluded {
        /// The epoch that began with it.
        epoch: Epoch,
        /// The log index of the decision.
        index: Index,
    },
    /// Out for good: another node has its place.
    Replaced {
        /// That node.
        by: NodeId,
    },
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Opaque in host-fed mode, at most 255 bytes.
    pub address: String,
    /// The host's own, at most 256 bytes.
    pub meta: Bytes,
    /// Where it stands.
    pub status: Status,
}
