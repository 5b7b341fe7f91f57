//! What a server shows.

use super::log::Log;
use super::progress::Progress;
use super::raft::{Raft, Role};
use super::types::{Configuration, HardState, Index, Millis, NodeId, Term};

/// A server's role, for those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Follows, or waits.
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

impl Raft {
    /// What it is doing.
    pub fn role(&self) -> RoleKind {
        match self.role {
            Role::Follower => RoleKind::Follower,
            Role::PreCandidate { .. } => RoleKind::PreCandidate,
            Role::Candidate { .. } => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Who leads, as far as known.
    pub fn leader(&self) -> Option<NodeId> {
        if self.is_leader() {
            Some(self.id)
        } else {
            self.leader
        }
    }

    /// The newest term it has seen.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Hard state as it will be once everything staged is written.
    pub fn hard_state(&self) -> HardState {
        self.hard
    }

    /// Highest index known to be committed.
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The configuration in force.
    pub fn configuration(&self) -> &Configuration {
        self.configs.latest()
    }

    /// Where it stands in the log.
    pub fn configuration_index(&self) -> Index {
        self.configs.latest_index()
    }

    /// Elections started, pre-votes not counted.
    pub fn elections(&self) -> u64 {
        self.elections
    }

    /// Leader only: what it knows of a peer.
    pub fn progress(&self, id: NodeId) -> Option<&Progress> {
        match &self.role {
            Role::Leader(leader) => leader.peers.get(&id),
            _ => None,
        }
    }

    /// Whether it leads and has committed an entry of its own term.
    pub fn has_committed_in_term(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => self.commit >= leader.opened_at,
            _ => false,
        }
    }

    /// Leader only: the index of the no-op that opened its term. Who has applied it has applied all
    /// that was decided before.
    pub fn opened_at(&self) -> Option<Index> {
        match &self.role {
            Role::Leader(leader) => Some(leader.opened_at),
            _ => None,
        }
    }

    /// Whether it leads, has committed in its term, and a quorum answered within the election
    /// timeout.
    pub fn is_quorum_fresh(&self, now: Millis) -> bool {
        self.has_committed_in_term() && now < self.quorum_lost_at()
    }

    /// Leader only: whether a learner has caught up and is in contact, ready to vote.
    pub fn is_ready_to_vote(&self, learner: NodeId) -> bool {
        let progress = self.progress(learner);
        progress.is_some_and(|p| {
            let near = p.match_index() >= self.commit;
            let recent = self.now - p.heard_at() < self.options.election;
            p.has_caught_up() && near && recent
        })
    }
}
