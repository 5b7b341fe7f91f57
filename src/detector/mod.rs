//! Failure detection, pure: silence, witnesses, verdicts, guards (detection.md).
//!
//! Everybody observes everybody; only a committed log entry excludes. Events go in with their
//! time, packets and outputs come out; nothing here knows a clock, a socket or a thread.
//!
//! A driving call goes through a [`Detector`] in this order: [`Detector::advance`], then whatever
//! arrived, then [`Detector::evaluate`], then [`Detector::take_outputs`] and
//! [`Detector::take_due`]. Arrivals are taken in *after* the clock has moved and *before*
//! anything is judged, so a reported silence is never longer than the true one.
//!
//! - `clock`: listened time and pauses.
//! - `evidence`: the newest packet of each peer.
//! - `witness`: what each peer testifies about the others.
//! - `verdict`: who is dead, and who is put out together.
//! - `guards`: what holds an exclusion back.
//! - `lease`: this node's own right to serve.
//! - `health`: how far this node trusts its own ears.
//! - `keepalive`: when whom is spoken to.
//! - `members`: whose testimony counts, what a majority is.
//! - `machine`, `decide`, `status`: the [`Detector`], its verdicts, what it shows.

mod clock;
mod decide;
mod evidence;
mod guards;
mod health;
mod keepalive;
mod lease;
mod machine;
mod members;
mod message;
mod status;
#[cfg(test)]
mod testing;
mod verdict;
mod witness;

pub use evidence::Envelope;
pub use machine::Detector;
pub use message::{Keepalive, KeepaliveKind, Notice, RowItem};
pub use status::Assessment;

use crate::core::{Millis, NodeId};

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
    /// Taken away for good by the administrator.
    Removed,
}

/// Why this node itself is no member and must not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcast {
    /// It was excluded, and may be taken back.
    Excluded,
    /// It was removed for good.
    Removed,
    /// Its storage is not the one that the cluster knows under its id (raft.md rule 51).
    LostState,
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

impl BlockedBy {
    /// The code as an operator reads it; empty for `None`.
    pub fn code(self) -> &'static str {
        match self {
            BlockedBy::None => "",
            BlockedBy::Disabled => "DISABLED",
            BlockedBy::NotLeaderFresh => "NOT_LEADER_FRESH",
            BlockedBy::ListenerUnhealthy => "LISTENER_UNHEALTHY",
            BlockedBy::NoQuorumAfter => "NO_QUORUM_AFTER",
            BlockedBy::MinNodes => "MIN_NODES",
            BlockedBy::Veto => "VETO",
            BlockedBy::InitDead => "INITDEAD",
            BlockedBy::Settling => "SETTLING",
        }
    }
}

/// The cluster's timers, every derived value filled in (detection.md 4.2). In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// Push interval; at least 10.
    pub keepalive: Millis,
    /// Silence after which a node is LATE; at least `keepalive`.
    pub warntime: Millis,
    /// Silence before a verdict, more than two keepalives; 0 = detect and report, never exclude.
    pub deadtime: Millis,
    /// The same for a witness that has never heard the node in its run; at least `deadtime`.
    pub initdead: Millis,
    /// How long a cut waits for others that fell silent at about the same time.
    pub settle: Millis,
    /// Age at which a node's own lease ends; less than `deadtime` unless that is 0.
    pub fencetime: Millis,
    /// Raft's shortest election timeout.
    pub election: Millis,
    /// Fewest voters that automatic exclusion may leave; 0 = majority of the provisioned.
    pub min_nodes: u32,
}

/// What the core says about this node's leadership, for one evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderView {
    /// This node leads.
    pub leading: bool,
    /// An entry of its term is committed, and a majority has answered within the election
    /// timeout.
    pub fresh: bool,
    /// When it began to lead; an election timeout later if a voter of its had heard a leader within
    /// one, for that may be confirmed as much longer.
    pub since: Millis,
    /// A change of membership is not yet committed: no second one may be proposed.
    pub change_in_flight: bool,
}

/// The host's answer to [`Output::AskGuard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardAnswer {
    /// Yes; good for one keepalive.
    Allow,
    /// Ask again in so many milliseconds, because.
    Later(Millis, String),
    /// No, because; asked again every five seconds.
    Deny(String),
}

/// What the detector wants done or told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A node's state as this node sees it changed.
    NodeChange {
        /// The node.
        id: NodeId,
        /// What it is taken for now.
        state: NodeState,
        /// What it was taken for before.
        old: NodeState,
        /// Milliseconds of listened silence.
        silent: Millis,
    },
    /// Stop serving, or serve again.
    Fence {
        /// Stop.
        fenced: bool,
        /// In plain words.
        why: &'static str,
    },
    /// Ask the host whether these dead nodes may be excluded; the answer goes to
    /// [`Detector::guard_answer`].
    AskGuard {
        /// Sorted.
        cut: Vec<NodeId>,
    },
    /// Propose to exclude these nodes, in one entry. Not repeated until the membership changes or
    /// [`Detector::proposal_failed`].
    Exclude {
        /// Sorted.
        ids: Vec<NodeId>,
        /// For each, the shortest silence in milliseconds that a witness gave.
        silent: Vec<u32>,
    },
    /// An excluded node was heard: tell it the verdict. At most once a keepalive for each.
    Tell(NodeId),
    /// This process was stopped or starved; milliseconds that the driving call was late.
    Paused(Millis),
}
