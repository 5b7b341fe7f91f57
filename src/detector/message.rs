//! What detectors say to each other. `wire` turns it into bytes.

use crate::core::{Index, NodeId};

use super::{BlockedBy, NodeState};

/// What a keepalive is for, and how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepaliveKind {
    /// Sent every hb_keepalive with the sender's row; answered with a `Reply`.
    Push,
    /// Answered at once with a `Reply`; sent to nodes that are LATE, or to all when the sender's
    /// own lease grows old.
    Probe,
    /// Answered at once with a `Reply` that carries a fresh row; sent when a verdict is near.
    Poll,
    /// The answer; not answered.
    Reply,
}

/// One packet part of the detector's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// What it is for.
    pub kind: KeepaliveKind,
    /// The sender's health score, 0 healthy .. 8; above 3 its row does not count.
    pub health: u8,
    /// How far the sender has applied the log.
    pub applied: Index,
    /// The sender's row, at most 64 items, by ascending node; empty when none is carried.
    pub row: Vec<RowItem>,
    /// The leader's assessment; leaders only.
    pub notice: Option<Notice>,
}

/// How one node hears another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowItem {
    /// The node heard, or not.
    pub node: NodeId,
    /// Milliseconds listened since it was heard; `u32::MAX` never in the reporter's run.
    pub age: u32,
    /// Milliseconds the reporter has listened for it in its run; saturates.
    pub span: u32,
    /// The run of `node` as heard; 0 when no packet of it was heard.
    pub incarnation: u64,
}

/// The leader's assessment, so that every node can show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Every member that is not ALIVE, at most 64.
    pub nodes: Vec<(NodeId, NodeState, BlockedBy)>,
    /// What holds an exclusion back, at most 200 bytes; empty when nothing does.
    pub why: String,
}
