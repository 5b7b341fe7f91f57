//! What detectors say to each other. `wire` turns it into bytes.

use crate::core::{Index, NodeId};

use super::{BlockedBy, NodeState};

/// What a keepalive asks of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepaliveKind {
    /// The regular one; answered shortly, without a row.
    Push,
    /// Answer at once: the sender is about to take you for dead, or its own lease is old.
    Probe,
    /// Answer at once with a fresh row: the sender is about to judge a third node.
    Poll,
    /// The answer to any of them; never answered itself.
    Reply,
}

/// One keepalive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// What it asks for.
    pub kind: KeepaliveKind,
    /// The sender's local health score, 0 healthy .. 8.
    pub health: u8,
    /// Highest index that the sender has applied.
    pub applied: Index,
    /// What the sender hears of the others, at most 64 items; empty in a short answer.
    pub row: Vec<RowItem>,
    /// Leader only: its assessment, so that every node can show it.
    pub notice: Option<Notice>,
}

/// What one witness hears of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowItem {
    /// The node.
    pub node: NodeId,
    /// Milliseconds listened since it was heard; `u32::MAX` = never in the witness's run.
    pub age: u32,
    /// Milliseconds that the witness has listened in its run, saturating.
    pub span: u32,
    /// The run of the node that was heard; 0 = never.
    pub incarnation: u64,
}

/// The leader's assessment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// At most 64 nodes.
    pub nodes: Vec<(NodeId, NodeState, BlockedBy)>,
    /// For a person; at most 200 bytes.
    pub why: String,
}
