//! What a detector shows.

use crate::core::{Index, Millis, NodeId};

use super::machine::Detector;
use super::{BlockedBy, NodeState, Outcast};

/// One node as this node sees it, as of the last evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// What it is taken for.
    pub state: NodeState,
    /// What holds its exclusion back: the leader's word if it is fresh.
    pub blocked_by: BlockedBy,
    /// Milliseconds listened since it was heard; `None` never in this run.
    pub silent: Option<Millis>,
    /// Milliseconds until it is excluded unless heard; `None` not foreseen.
    pub excludes_in: Option<Millis>,
    /// Of the witnesses, how many hear it: within warntime.
    pub heard_by: u32,
    /// Other voters, this node included, with fresh and healthy testimony about it.
    pub witnesses: u32,
    /// How far it had applied the log when it last said so.
    pub applied: Index,
    /// Its run as heard; 0 never.
    pub incarnation: u64,
}

impl Detector {
    /// How this node takes a member or an excluded node; itself too. `None` for strangers.
    pub fn node(&self, id: NodeId) -> Option<Assessment> {
        let state = self.state(id)?;
        let tally = self.tally(id);
        if id == self.me {
            return Some(Assessment {
                state,
                blocked_by: BlockedBy::None,
                silent: Some(0),
                excludes_in: None,
                heard_by: tally.heard_by,
                witnesses: tally.witnesses,
                applied: self.applied,
                incarnation: self.incarnation,
            });
        }
        let peer = &self.peers[self.position(id)?];
        Some(Assessment {
            state,
            blocked_by: peer.blocked_by,
            silent: peer.evidence.age(self.clock.listened()),
            excludes_in: peer.excludes_in,
            heard_by: tally.heard_by,
            witnesses: tally.witnesses,
            applied: peer.applied,
            incarnation: peer.evidence.newest().1,
        })
    }

    /// What a node is taken for, without what the others say about it.
    pub fn state(&self, id: NodeId) -> Option<NodeState> {
        if id == self.me {
            return Some(match self.outcast {
                Some(Outcast::Removed) => NodeState::Removed,
                Some(Outcast::Excluded | Outcast::LostState) => NodeState::Excluded,
                None => NodeState::Alive,
            });
        }
        self.position(id).map(|i| self.peers[i].state)
    }

    /// Milliseconds listened since another node was heard; `None` never in this run, and for strangers.
    pub fn silence(&self, id: NodeId) -> Option<Millis> {
        let peer = &self.peers[self.position(id)?];
        peer.evidence.age(self.clock.listened())
    }

    /// Why an exclusion is held back, as the leader or, without a fresh word of one, this node
    /// sees it; empty when nothing is. At most 200 bytes.
    pub fn notice(&self) -> &str {
        match self.fresh_leader_notice() {
            Some(notice) => &notice.why,
            None => &self.why,
        }
    }

    /// Whose exclusions are held back, and by what: what [`Detector::notice`] is about, without
    /// the times in it, which change with every call.
    pub fn blocked(&self) -> impl Iterator<Item = (NodeId, BlockedBy)> + '_ {
        let peers = self.peers.iter().filter(|peer| !peer.excluded);
        let blocked = peers.map(|peer| (peer.id, peer.blocked_by));
        blocked.filter(|(_, by)| *by != BlockedBy::None)
    }

    /// This node's health score, 0 healthy .. 8; above 3 its testimony does not count.
    pub fn health(&self) -> u8 {
        self.health.score()
    }

    /// How long this node may still serve unheard: `None` without limit, 0 when fenced.
    pub fn lease_ms(&self, now: Millis) -> Option<Millis> {
        self.lease.remaining(now, &self.timers)
    }

    /// Why this node must not serve, as last output; `None` if it may.
    pub fn fenced(&self) -> Option<&'static str> {
        self.lease.fenced()
    }
}
