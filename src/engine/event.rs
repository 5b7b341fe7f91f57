//! What is worth a line in a monitoring system. The codes and their facts are a promise.

use crate::core::{Epoch, Index, Millis, NodeId, Term};

/// Something that happened to this member or to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node leads.
    Leading {
        /// In this term.
        term: Term,
    },
    /// This node leads no more.
    NotLeading {
        /// The newest term it knows.
        term: Term,
    },
    /// A leader confirmed by a majority is known again, or not any more.
    Quorum {
        /// Which of the two.
        has: bool,
        /// Voters that this node hears, itself included.
        heard: u32,
        /// How many make a majority.
        needed: u32,
    },
    /// Members were excluded, by decision.
    Excluded {
        /// The epoch that began with it.
        epoch: Epoch,
        /// The log index of the decision.
        index: Index,
        /// Who.
        ids: Vec<NodeId>,
    },
    /// A peer told this node that it has been excluded.
    ExcludedSelf {
        /// The epoch that began with it.
        epoch: Epoch,
        /// The log index of the decision.
        index: Index,
        /// The peer.
        told_by: NodeId,
    },
    /// An excluded node was taken back.
    Readmitted {
        /// Which.
        id: NodeId,
    },
    /// A new node has the place of an excluded one.
    Replaced {
        /// The excluded one.
        old: NodeId,
        /// The new one.
        by: NodeId,
    },
    /// A learner has caught up and votes.
    Promoted {
        /// Which.
        id: NodeId,
    },
    /// A new node has joined, as a learner.
    Added {
        /// Which.
        id: NodeId,
    },
    /// It was decided that a node leaves for good.
    Removed {
        /// The epoch that began with it.
        epoch: Epoch,
        /// The log index of the decision.
        index: Index,
        /// Which.
        id: NodeId,
    },
    /// A peer told this node that it has been removed for good.
    RemovedSelf {
        /// The epoch that began with it.
        epoch: Epoch,
        /// The log index of the decision.
        index: Index,
        /// The peer.
        told_by: NodeId,
    },
    /// What holds an exclusion back changed; an empty text: nothing any more.
    Blocked {
        /// In plain words.
        why: String,
    },
    /// This process was stopped or starved.
    Paused {
        /// How late its driving call was.
        late: Millis,
    },
    /// A peer lacks what it had acknowledged: it is filled again, and its disk is not to be trusted.
    PeerLostData {
        /// Which.
        id: NodeId,
    },
    /// A node was heard whose storage is not the one that is known under its id.
    PeerLostState {
        /// Which.
        id: NodeId,
    },
    /// This node's storage is not the one that the cluster knows under its id.
    LostState,
    /// A node sends log entries that this node's version does not know.
    PeerNewer {
        /// Which.
        id: NodeId,
    },
    /// This node has made a snapshot.
    Snapshot {
        /// The last log index that it covers.
        index: Index,
        /// Bytes of its image beside the log.
        bytes: u64,
    },
    /// A snapshot could not be made, or the leader's not be taken.
    SnapshotFailed {
        /// The last log index that it would cover.
        index: Index,
        /// In plain words.
        why: String,
    },
    /// A snapshot of the leader has taken the place of this node's state.
    SnapshotInstalled {
        /// The last log index that it covers.
        index: Index,
        /// Bytes of its image beside the log.
        bytes: u64,
    },
    /// A node's state is not the same as this node's, though the same entries were applied.
    Diverged {
        /// Which node.
        id: NodeId,
        /// The last log index of the snapshots that were compared.
        index: Index,
    },
    /// This node's log is damaged: entries are lost that it may have acknowledged.
    LostData {
        /// The last log index that is left of it.
        index: Index,
    },
    /// The log reaches again what was lost of it.
    Refilled {
        /// The last log index.
        index: Index,
    },
    /// This node's disk does not answer, or answers again.
    Stalled {
        /// Which of the two.
        stalled: bool,
    },
    /// This node hands leadership over, for its own disk is slower than those of the others.
    Slow {
        /// To whom.
        to: NodeId,
        /// Milliseconds that its disk takes for an entry.
        own_ms: Millis,
        /// And a quorum of the others.
        quorum_ms: Millis,
    },
}

impl Event {
    /// Its stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Event::Leading { .. } => "LEADING",
            Event::NotLeading { .. } => "NOT_LEADING",
            Event::Quorum { has: true, .. } => "QUORUM",
            Event::Quorum { has: false, .. } => "NO_QUORUM",
            Event::Excluded { .. } => "EXCLUDED",
            Event::ExcludedSelf { .. } => "EXCLUDED_SELF",
            Event::Readmitted { .. } => "READMITTED",
            Event::Replaced { .. } => "REPLACED",
            Event::Promoted { .. } => "PROMOTED",
            Event::Added { .. } => "ADDED",
            Event::Removed { .. } => "REMOVED",
            Event::RemovedSelf { .. } => "REMOVED_SELF",
            Event::Blocked { .. } => "BLOCKED",
            Event::Paused { .. } => "PAUSED",
            Event::PeerLostData { .. } => "PEER_LOST_DATA",
            Event::PeerLostState { .. } => "PEER_LOST_STATE",
            Event::LostState => "LOST_STATE",
            Event::PeerNewer { .. } => "PEER_NEWER",
            Event::Snapshot { .. } => "SNAPSHOT",
            Event::SnapshotFailed { .. } => "SNAPSHOT_FAILED",
            Event::SnapshotInstalled { .. } => "SNAPSHOT_INSTALLED",
            Event::Diverged { .. } => "DIVERGED",
            Event::LostData { .. } => "LOST_DATA",
            Event::Refilled { .. } => "REFILLED",
            Event::Stalled { stalled: true } => "DISK_STALLED",
            Event::Stalled { stalled: false } => "DISK_BACK",
            Event::Slow { .. } => "DISK_SLOW",
        }
    }
}
