//! The state that every node derives from the log, and the rules of its changes.

use std::collections::BTreeMap;
use std::fmt;

use crate::core::{Configuration, Entry, Epoch, Exclusion, Index, NodeId};
use crate::wire::WireError;

use super::{Command, Member, Params, Peer};

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

/// The replicated cluster state as of one log index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    members: BTreeMap<NodeId, Member>,
    params: Params,
    epoch: Epoch,
    genesis: u64,
    applied: Index,
    joint: bool,
}

/// The first entry of a new cluster's log, to be stored by each of its first members: index 1,
/// term 1. The same members, in any order, and the same settings give the same entry.
pub fn bootstrap_entry(members: &[Peer], params: &Params) -> Result<Entry, Refusal> {
    let _ = (members, params);
    unimplemented!()
}

impl State {
    /// What the leader asks before it proposes `cmd`. `newest` is the newest configuration of its
    /// log, committed or not: only one change may be under way (thesis 4.1, raft.md rule 43).
    pub fn check(&self, newest: &Configuration, cmd: &Command) -> Result<Change, Refusal> {
        let _ = (newest, cmd);
        unimplemented!()
    }

    /// Applies a committed entry of any kind, in log order from index 1 on. Deterministic: equal
    /// states and entries give equal states and facts. After an error the state is unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<Vec<Fact>, ClusterError> {
        let _ = entry;
        unimplemented!()
    }

    /// The settings in force.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The number of the membership; 0 before the bootstrap entry.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Digest of the bootstrap entry; 0 before it.
    pub fn genesis(&self) -> u64 {
        self.genesis
    }

    /// Index of the last entry applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Any node that is or was a member.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Every node that is or was a member, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Those that are excluded and not replaced, by id.
    pub fn excluded(&self) -> impl Iterator<Item = &Member> {
        self.members().filter(|_| unimplemented!())
    }

    /// The exclusion of a node that is out and not replaced.
    pub fn is_excluded(&self, id: NodeId) -> Option<Exclusion> {
        let _ = id;
        unimplemented!()
    }

    /// How many nodes the cluster is meant to have: voters, learners, and the excluded that nobody
    /// has replaced (detection.md 4.6, cumulative minority rule).
    pub fn provisioned(&self) -> usize {
        unimplemented!()
    }

    /// The configuration that the members make.
    pub fn configuration(&self) -> Configuration {
        unimplemented!()
    }
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
