//! What becomes of a command: a change, a refusal, facts, or an error that stops the node.

use std::fmt;

use crate::core::{Configuration, Epoch, Index, NodeId};
use crate::wire::WireError;

/// Why a leader does not propose a command; the text is for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such node.
    NotFound(String),
    /// It exists already.
    Exists(String),
    /// Another change is under way, or the command was decided on an older state.
    Conflict(String),
    /// It breaks a rule in any state.
    Invalid(String),
    /// Not in this state.
    State(String),
    /// Larger than a limit.
    TooBig(String),
}

/// What a command that was checked turns into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A `Payload::Config` with this configuration and the command as its cause. It is joint exactly
    /// if the voters change (thesis 4.3).
    Config(Configuration),
    /// A `Payload::Cluster` with the command.
    Plain,
}

/// What an entry has changed, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The cluster exists.
    Bootstrapped,
    /// An exclusion was decided.
    Excluded {
        /// The epoch that begins with it.
        epoch: Epoch,
        /// Who is out, sorted.
        ids: Vec<NodeId>,
        /// The log index of the decision.
        index: Index,
    },
    /// An excluded node is back, as a learner.
    Readmitted {
        /// Which.
        id: NodeId,
    },
    /// A new node has taken the place of an excluded one, as a learner.
    Replaced {
        /// The excluded one.
        old: NodeId,
        /// The new one.
        by: NodeId,
    },
    /// A learner votes.
    Promoted {
        /// Which.
        id: NodeId,
    },
    /// A new node has joined, as a learner.
    Added {
        /// Which.
        id: NodeId,
    },
    /// A node leaves for good. Until the joint configuration is left, if there is one, it still
    /// counts.
    Removed {
        /// The epoch that begins with it.
        epoch: Epoch,
        /// Which.
        id: NodeId,
        /// The log index of the decision.
        index: Index,
    },
    /// It is known which storage a member has.
    Registered {
        /// Which member.
        id: NodeId,
    },
    /// It is on record who leads.
    Leads,
    /// Everybody makes a snapshot now.
    Compact {
        /// The host's part comes in the log.
        in_log: bool,
    },
    /// All pieces of the host's part of a snapshot have come.
    Pieces(Pieces),
    /// The membership changed; follows the fact that says how.
    Members {
        /// The epoch that begins.
        epoch: Epoch,
        /// The log index of the change.
        index: Index,
    },
    /// The settings changed.
    Params,
    /// They did not: another change came first.
    ParamsRefused(Refusal),
}

/// Where in the log the host's part of a snapshot lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Log index of the [`Command::Compact`](super::Command::Compact): the snapshot is of what was
    /// applied up to there.
    pub at: Index,
    /// Log index of the first piece.
    pub first: Index,
    /// Log index of the last one. Between them stand other entries too, and may stand pieces that
    /// do not belong to it.
    pub last: Index,
}

/// Why an entry cannot be applied: the log is not one that this version's leaders write. The node
/// must stop, for going on would make its state differ from the others'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterError {
    /// The command does not parse, or is of a newer version.
    Malformed(WireError),
    /// Not the entry after the last one applied.
    Index {
        /// The one after it.
        expected: Index,
        /// The one given.
        found: Index,
    },
    /// The configuration's epoch is not the one that the command must begin.
    Epoch {
        /// The one it must have.
        expected: Epoch,
        /// The one it has.
        found: Epoch,
    },
    /// A committed command breaks a rule that its leader had to check.
    Refused(Refusal),
    /// Entry and command contradict each other.
    Contradiction(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotFound(s)
            | Refusal::Exists(s)
            | Refusal::Conflict(s)
            | Refusal::Invalid(s)
            | Refusal::State(s)
            | Refusal::TooBig(s) => f.write_str(s),
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterError::Malformed(error) => write!(f, "a cluster command in the log: {error}"),
            ClusterError::Index { expected, found } => {
                write!(f, "entry {found} was given where entry {expected} is next")
            }
            ClusterError::Epoch { expected, found } => {
                write!(
                    f,
                    "a configuration of epoch {found} where epoch {expected} is next"
                )
            }
            ClusterError::Refused(refusal) => {
                write!(f, "a committed command breaks the rules: {refusal}")
            }
            ClusterError::Contradiction(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ClusterError {}

impl From<WireError> for ClusterError {
    fn from(error: WireError) -> ClusterError {
        ClusterError::Malformed(error)
    }
}
