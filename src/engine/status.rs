//! Publishing what any thread may ask about, without allocating as long as nothing but times
//! changes.

use crate::cluster::{Member, Status};
use crate::core::{NodeId, majority};
use crate::detector::{Assessment, BlockedBy, NodeState};

use super::engine::Engine;
use super::shared::Refused;
use super::{Info, Metrics, NodeView, Role, View, same_text};

impl Engine {
    /// Brings the view up to date.
    pub fn publish(&self, view: &mut View, refused: Refused) {
        let stale = view.info.applied != self.cluster.applied()
            || view.nodes.len() != self.cluster.members().count();
        let count = self.cluster.members().count();
        // Without memory for a node that came the others are shown as they were.
        if stale && view.nodes.try_reserve(count).is_ok() {
            view.params = self.cluster.params().clone();
            view.nodes.clear();
            let members = self.cluster.members();
            view.nodes.extend(members.map(NodeView::of));
        }
        for node in &mut view.nodes {
            self.update_node(node);
        }
        self.update_info(&mut view.info);
        view.at = self.now;
        let metrics = &mut view.metrics;
        *metrics = Metrics {
            dropped_malformed: refused.malformed,
            dropped_foreign: refused.foreign,
            dropped_full: refused.full,
            unknown_parts: refused.skipped,
            packets_in: refused.packets,
            bytes_in: refused.bytes,
            elections: self.raft.elections(),
            ..self.metrics
        };
    }

    fn update_info(&self, info: &mut Info) {
        let config = self.raft.configuration();
        let (heard, needed) = self.voters_heard();
        info.id = Some(self.settings.id);
        info.leader = self.raft.leader();
        info.role = self.role();
        let fenced = self.detector.fenced();
        info.fenced = fenced.is_some();
        info.fenced_why = fenced.unwrap_or_default();
        let lack = self.lack_of_room();
        if info.fenced && lack.is_some() && self.lacks_leader() {
            info.fenced_why = "too few disks have room for the log";
        }
        info.cluster = self.settings.cluster;
        info.term = self.raft.term();
        info.epoch = self.cluster.epoch();
        info.commit = self.raft.commit();
        info.applied = self.cluster.applied();
        info.last_index = self.raft.log().last_index();
        info.first_index = self.raft.log().base().index + 1;
        info.snapshot_index = self.raft.snapshot().map_or(0, |s| s.last.index);
        info.loading = self.snapshots.loading.is_some();
        info.full = self.is_disk_full();
        info.recorded_leader = self.cluster.leader().map(|l| l.id);
        info.recorded_term = self.cluster.leader().map_or(0, |l| l.term);
        info.voters = count(config.voters.len());
        info.voters_heard = heard;
        info.quorum = needed;
        info.has_quorum = self.has_quorum();
        info.timers = super::timers(
            self.cluster.params(),
            &self.settings,
            self.cluster.provisioned(),
        );
        info.armed = self.cluster.params().deadtime_ms() > 0;
        info.lease = self.detector.lease_ms(self.now);
        info.health_score = u32::from(self.detector.health());
        let notice = match self.is_out() {
            true => "",
            false => self.detector.notice(),
        };
        // Nothing is decided either while there is no room.
        let own = lack.or_else(|| self.loss().filter(|_| notice.is_empty()));
        let notice = own.as_deref().unwrap_or(notice);
        if !same_text(&info.notice, notice) {
            info.notice = notice.to_owned();
        }
    }

    /// Voters that this node hears, itself included, and how many make a majority.
    pub fn voters_heard(&self) -> (u32, u32) {
        let voters = &self.raft.configuration().voters;
        let heard = voters.iter().filter(|id| self.has_heard(**id)).count();
        (count(heard), count(majority(voters.len())))
    }

    /// Whether it was heard so lately that it counts. A leader speaks with every heartbeat, and is
    /// answered; so whoever was not heard since is missing by the time when the leader is given up, or
    /// gives up. What else is said may have come a heartbeat later. All others speak with every keepalive.
    pub fn has_heard(&self, id: NodeId) -> bool {
        let (me, leader) = (self.settings.id, self.watch.last_leader);
        let election = self.settings.election;
        let window = match leader == Some(id) || leader == Some(me) {
            true => election - self.settings.heartbeat.min(election / 4),
            false => election + self.cluster.params().keepalive_ms(),
        };
        id == me || self.detector.silence(id).is_some_and(|ms| ms < window)
    }

    /// Whether a voter can be counted on now.
    pub fn is_heard(&self, id: NodeId) -> bool {
        self.detector.state(id) == Some(NodeState::Alive)
    }

    fn update_node(&self, node: &mut NodeView) {
        let id = node.id;
        node.match_index = match self.raft.progress(id) {
            Some(progress) => progress.match_index(),
            None if id == self.settings.id => self.raft.log().durable(),
            None => 0,
        };
        let seen = self.detector.node(id);
        if node.role != Role::Excluded && self.raft.leader() == Some(id) {
            node.role = Role::Leader;
        } else if node.role == Role::Leader {
            node.role = Role::Follower;
        }
        if let Some(exclusion) = self.cluster.is_excluded(id) {
            (node.epoch, node.index) = (exclusion.epoch, exclusion.index);
        }
        let me = id == self.settings.id;
        node.lost_state = self.instances.has_lost(id) || me && self.has_lost_state();
        let own = self.raft.hard_state().excluded;
        if let Some(exclusion) = own.filter(|_| me) {
            // Told by a peer: this node's own log may not hold the decision.
            node.role = Role::Excluded;
            (node.epoch, node.index) = (exclusion.epoch, exclusion.index);
        }
        // The detector follows those who leave until they have left.
        let gone = matches!(node.state, NodeState::Replaced | NodeState::Removed);
        if let Some(seen) = seen.filter(|_| !gone) {
            node.see(seen);
        }
    }
}

impl NodeView {
    fn of(member: &Member) -> NodeView {
        let (epoch, index) = match member.status {
            Status::Excluded { epoch, index } | Status::Removed { epoch, index } => (epoch, index),
            _ => (0, 0),
        };
        let (role, state, replaced_by) = match member.status {
            Status::Voter => (Role::Follower, NodeState::Joining, None),
            Status::Learner => (Role::Learner, NodeState::Joining, None),
            Status::Excluded { .. } => (Role::Excluded, NodeState::Excluded, None),
            Status::Replaced { by } => (Role::Excluded, NodeState::Replaced, Some(by)),
            Status::Removed { .. } => (Role::Excluded, NodeState::Removed, None),
        };
        NodeView {
            id: member.id,
            role,
            state,
            blocked_by: BlockedBy::None,
            silent: None,
            excludes_in: None,
            epoch,
            index,
            match_index: 0,
            heard_by: 0,
            witnesses: 0,
            address: member.address.clone(),
            meta: member.meta.clone(),
            replaced_by,
            lost_state: false,
            awaits_promotion: member.status == Status::Learner && !member.meant_to_vote,
        }
    }

    fn see(&mut self, seen: Assessment) {
        self.state = seen.state;
        self.blocked_by = seen.blocked_by;
        self.silent = seen.silent;
        self.excludes_in = seen.excludes_in;
        self.heard_by = seen.heard_by;
        self.witnesses = seen.witnesses;
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
