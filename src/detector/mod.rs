//! Failure detection, pure: silence, witnesses, verdicts, guards (detection.md).

mod message;

pub use message::{Keepalive, KeepaliveKind, Notice, RowItem};

/// What a node is taken for; the names of detection.md 4.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// Never heard by this node in its run.
    #[default]
    Joining,
    /// Heard.
    Alive,
    /// Silent for warntime.
    Late,
    /// Verdict reached, waiting for settle or guards.
    Suspect,
    /// Out, by a committed decision.
    Excluded,
    /// Excluded and heard again.
    Returned,
    /// Another node has its place.
    Replaced,
}

/// What holds an exclusion back; the codes of detection.md 4.6 that exist so far, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockedBy {
    /// Nothing.
    #[default]
    None,
    /// hb_deadtime is 0.
    Disabled,
    /// No leader, or one not yet confirmed by a majority, or too new.
    NotLeaderFresh,
    /// The leader's own listening is in doubt.
    ListenerUnhealthy,
    /// The rest would have no majority of the present voters.
    NoQuorumAfter,
    /// Fewer nodes than the floor would remain.
    MinNodes,
    /// The host's guard said no or later.
    Veto,
    /// A witness that has never heard it in its run demands initdead.
    InitDead,
    /// Waiting for others that fell silent at about the same time.
    Settling,
}
