//! Watching the others and oneself: what the detector wants, and what the host must be told.

use crate::core::{Millis, NodeId, Term};
use crate::detector::{BlockedBy, LeaderView, Output};

use super::action::Action;
use super::engine::Engine;
use super::{Event, Guard, Role};

/// What was seen and told so far.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// What the host was last told: role, term, leader.
    told_role: (Role, Term, Option<NodeId>),
    /// Who led when anybody last did, as far as this node knows.
    pub last_leader: Option<NodeId>,
    told_quorum: Option<bool>,
    /// Whose exclusions are held back by what, and since when it is so.
    blocked: Vec<(NodeId, BlockedBy)>,
    blocked_since: Millis,
    told_blocked: Vec<(NodeId, BlockedBy)>,
    told_unreliable: Vec<NodeId>,
    told_stalled: bool,
    told_claim: bool,
    told_newer: Vec<NodeId>,
    told_short: Vec<NodeId>,
    pub leading_since: Millis,
    /// When a packet of a leader confirmed by a majority last came.
    pub leader_fresh_at: Option<Millis>,
}

impl Engine {
    pub fn leader_view(&self) -> LeaderView {
        let early = if self.raft.is_early() {
            self.settings.election
        } else {
            0
        };
        LeaderView {
            leading: self.raft.is_leader(),
            fresh: self.is_fresh(),
            since: self.watch.leading_since + early,
            change_in_flight: self.raft.change_in_flight(),
        }
    }

    pub fn detect(&mut self) {
        self.detector.set_outcast(self.outcast());
        let leader = self.leader_view();
        self.detector.evaluate(self.now, leader);
        for output in self.detector.take_outputs() {
            match output {
                Output::AskGuard { cut } => self.actions.push(Action::Guard(cut)),
                Output::Exclude { ids, silent } => self.exclude_dead(ids, silent),
                Output::Fence { fenced, why } => self.fence(fenced, why),
                Output::NodeChange {
                    id,
                    state,
                    old,
                    silent,
                } => {
                    self.actions.push(Action::Node {
                        id,
                        state,
                        old,
                        silent,
                    });
                }
                Output::Tell(id) => self.tell(id),
                Output::Paused(late) => {
                    self.metrics.pauses += 1;
                    self.log(
                        2,
                        format!("this process was stopped or starved for {late} ms"),
                    );
                    self.event(Event::Paused { late });
                }
            }
        }
    }

    /// A peer's log has what this version cannot read; told once in a run.
    pub fn newer(&mut self, id: NodeId) {
        if self.watch.told_newer.contains(&id) || !self.raft.configuration().contains(id) {
            return;
        }
        self.watch.told_newer.push(id);
        self.log(
            1,
            format!(
                "{id} sends log entries that this version does not know: this node stays where \
                 it is until it runs a newer one"
            ),
        );
        self.event(Event::PeerNewer { id });
    }

    fn fence(&mut self, fenced: bool, why: &str) {
        let word = if fenced { "stop serving" } else { "may serve" };
        let lack = self
            .lack_of_room()
            .filter(|_| fenced && self.lacks_leader());
        let why = lack.unwrap_or_else(|| why.to_owned());
        self.log(2, format!("{word}: {why}"));
        self.actions.push(Action::Fence { fenced, why });
    }

    /// The host's word on an exclusion.
    pub fn guard_answered(&mut self, cut: &[NodeId], answer: Guard) {
        self.detector.guard_answer(cut, answer);
    }

    /// Whether this node leads with a majority behind it, and has applied all that was decided
    /// before its term: until then it judges and confirms by settings of the past.
    pub fn is_fresh(&self) -> bool {
        let applied = self.cluster.applied();
        let caught_up = self.raft.opened_at().is_some_and(|at| applied >= at);
        caught_up && self.raft.is_quorum_fresh(self.now)
    }

    /// Whether a leader that a majority has confirmed is known: this node, or one heard lately.
    pub fn has_quorum(&self) -> bool {
        let keepalive = self.cluster.params().keepalive_ms();
        let recent = self.settings.election + keepalive;
        let heard = self
            .watch
            .leader_fresh_at
            .is_some_and(|at| self.now < at + recent);
        let follows = heard && self.raft.leader().is_some() && !self.raft.is_leader();
        let follows = follows && !self.is_out();
        self.raft.is_quorum_fresh(self.now) || follows
    }

    /// Whether this node is a member, and nobody leads who could confirm it.
    pub fn lacks_leader(&self) -> bool {
        self.outcast().is_none() && !self.has_quorum()
    }

    pub fn role(&self) -> Role {
        use crate::core::RoleKind;
        let id = self.settings.id;
        if self.outcast().is_some() {
            return Role::Excluded;
        }
        match self.raft.role() {
            RoleKind::Leader => Role::Leader,
            RoleKind::PreCandidate | RoleKind::Candidate => Role::Candidate,
            RoleKind::Follower if self.raft.configuration().is_learner(id) => Role::Learner,
            RoleKind::Follower => Role::Follower,
        }
    }

    pub fn notice_role(&mut self) {
        let role = (self.role(), self.raft.term(), self.raft.leader());
        self.watch.last_leader = role.2.or(self.watch.last_leader);
        if role == self.watch.told_role {
            return;
        }
        let led = self.watch.told_role.0 == Role::Leader;
        let again = led && self.watch.told_role.1 == role.1;
        self.watch.told_role = role;
        let (role, term, leader) = role;
        if role == Role::Leader && !again {
            self.watch.leading_since = self.now;
            self.event(Event::Leading { term });
        } else if led && role != Role::Leader {
            self.event(Event::NotLeading { term });
        }
        self.actions.push(Action::Role { role, term, leader });
    }

    /// What holds an exclusion back is told once it has lasted: a guard's answer or the commit of
    /// an exclusion that goes through takes a moment, and is nobody's concern.
    fn notice_blocked(&mut self) {
        if !self
            .detector
            .blocked()
            .eq(self.watch.blocked.iter().copied())
        {
            self.watch.blocked = self.detector.blocked().collect();
            self.watch.blocked_since = self.now;
        }
        let keepalive = self.cluster.params().keepalive_ms();
        let lasts = self.now >= self.watch.blocked_since + keepalive;
        if !lasts || self.watch.blocked == self.watch.told_blocked || self.is_out() {
            return;
        }
        self.watch.told_blocked.clone_from(&self.watch.blocked);
        let why = match self.watch.blocked.is_empty() {
            true => String::new(),
            false => {
                let notice = self.detector.notice();
                let lack = self.lack_of_room();
                lack.map_or(notice.to_owned(), |lack| format!("{notice}; {lack}"))
            }
        };
        self.event(Event::Blocked { why });
    }

    /// Whether this node is out, and so has no say about others.
    pub fn is_out(&self) -> bool {
        self.raft.hard_state().excluded.is_some() || self.has_lost_state()
    }

    /// What this node's log has lost, in plain words; `None` if that is nothing.
    pub fn loss(&self) -> Option<String> {
        let claim = self.raft.hard_state().claim?;
        let upto = match claim.is_counted() {
            true => format!("up to log index {} of term {}", claim.index, claim.term),
            false => format!("up to term {}, it is not known how many", claim.term),
        };
        Some(format!(
            "this node lost log entries that it may have acknowledged, {upto}: it does not lead, \
             and votes only for nodes that have them, until the leader has sent them again"
        ))
    }

    fn notice_claim(&mut self) {
        let loss = self.loss();
        if std::mem::replace(&mut self.watch.told_claim, loss.is_some()) == loss.is_some() {
            return;
        }
        let index = self.raft.log().last_index();
        match loss {
            Some(loss) => {
                self.log(
                    1,
                    format!(
                        "{loss}; if all nodes have lost entries, nobody leads, and an \
                         administrator decides: keelctl repair --accept-loss"
                    ),
                );
                self.event(Event::LostData { index });
            }
            None => {
                let text = "this node's log holds again all that it had lost";
                self.log(2, text.to_owned());
                self.event(Event::Refilled { index });
            }
        }
    }

    fn notice_lack_of_room(&mut self) {
        let mut short = self.short_of_room();
        // Of its own disk it has spoken.
        short.retain(|id| *id != self.settings.id);
        if short == self.watch.told_short {
            return;
        }
        match self.lack_of_room().filter(|_| !short.is_empty()) {
            Some(lack) => self.log(1, lack),
            None => {
                let text = "nothing waits for room on another node's disk any more";
                self.log(2, text.to_owned());
            }
        }
        self.watch.told_short = short;
    }

    /// What changes without anybody's doing: quorum, what holds an exclusion back, peers.
    pub fn notice_changes(&mut self) {
        let has = self.has_quorum();
        if self.watch.told_quorum != Some(has) {
            self.watch.told_quorum = Some(has);
            let (heard, needed) = self.voters_heard();
            self.event(Event::Quorum { has, heard, needed });
        }
        self.notice_blocked();
        let stalled = self.raft.is_stalled();
        if std::mem::replace(&mut self.watch.told_stalled, stalled) != stalled {
            self.event(Event::Stalled { stalled });
        }
        self.notice_claim();
        self.notice_lack_of_room();
        let members = self.raft.configuration().members();
        let lost = |id: &NodeId| {
            self.raft
                .progress(*id)
                .is_some_and(|p| p.has_lost_entries())
        };
        let unreliable: Vec<NodeId> = members.filter(lost).collect();
        for id in &unreliable {
            if !self.watch.told_unreliable.contains(id) {
                self.log(
                    1,
                    format!(
                        "{id} lost entries that it had acknowledged: it is filled again; look at \
                         its disk"
                    ),
                );
                self.event(Event::PeerLostData { id: *id });
            }
        }
        self.watch.told_unreliable = unreliable;
    }
}
