//! The detector of one node: what goes in, and what leaves for the peers.

use crate::core::{Configuration, Index, Millis, NodeId};

use super::clock::{self, Clock, Lateness, Listened};
use super::evidence::{Evidence, Worth};
use super::guards::Consent;
use super::health::Health;
use super::keepalive::{Dice, Due, Interest, Schedule};
use super::lease::Lease;
use super::members::Members;
use super::verdict::Cut;
use super::witness::{Instant, Witness};
use super::{
    BlockedBy, Envelope, GuardAnswer, Keepalive, KeepaliveKind, LeaderView, NodeState, Notice,
    Outcast, Output, RowItem, Timers,
};

/// All that is kept about one other node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) excluded: bool,
    pub(super) returned: bool,
    pub(super) evidence: Evidence,
    pub(super) witness: Witness,
    pub(super) schedule: Schedule,
    pub(super) applied: Index,
    pub(super) told_at: Option<Listened>,
    pub(super) state: NodeState,
    pub(super) blocked_by: BlockedBy,
    pub(super) excludes_in: Option<Millis>,
    /// The shortest silence that its verdict rests on.
    pub(super) silent: Millis,
}

impl Peer {
    fn new(id: NodeId, clock: &Clock) -> Peer {
        Peer {
            id,
            excluded: false,
            returned: false,
            evidence: Evidence::new(clock.listened()),
            witness: Witness::default(),
            schedule: Schedule::new(clock.now()),
            applied: 0,
            told_at: None,
            state: NodeState::Joining,
            blocked_by: BlockedBy::None,
            excludes_in: None,
            silent: 0,
        }
    }
}

/// The failure detector of one node. Used by one thread; bounded by [`crate::core::MAX_MEMBERS`].
#[derive(Debug)]
pub struct Detector {
    pub(super) me: NodeId,
    pub(super) incarnation: u64,
    pub(super) timers: Timers,
    pub(super) clock: Clock,
    pub(super) members: Members,
    /// Everybody else, excluded nodes included, by id.
    pub(super) peers: Vec<Peer>,
    pub(super) health: Health,
    pub(super) lease: Lease,
    pub(super) outcast: Option<Outcast>,
    pub(super) view: LeaderView,
    /// A pause is not yet overcome.
    pub(super) recovering: bool,
    pub(super) cut: Cut,
    pub(super) consent: Consent,
    /// An exclusion was handed out and not yet heard of again.
    pub(super) proposed: bool,
    /// After a failed proposal none before this.
    pub(super) retry_at: Millis,
    /// A verdict is near: witnesses are polled.
    pub(super) polling: bool,
    /// What holds an exclusion back, as this node sees it.
    pub(super) why: String,
    /// The leader's word, and when it came.
    pub(super) leader_notice: Option<(Listened, Notice)>,
    pub(super) outputs: Vec<Output>,
    pub(super) applied: Index,
    dice: Dice,
}

impl Detector {
    /// The detector of node `me` in the run `incarnation`, which is greater than that of every
    /// earlier run and never 0. `seed` only spreads its packets in time.
    pub fn new(me: NodeId, incarnation: u64, seed: u64, timers: Timers) -> Detector {
        assert!(incarnation > 0, "0 stands for no run");
        check_timers(&timers);
        let clock = Clock::default();
        Detector {
            me,
            incarnation,
            timers,
            health: Health::new(clock.listened()),
            clock,
            members: Members::default(),
            peers: Vec::new(),
            lease: Lease::default(),
            outcast: None,
            view: LeaderView::default(),
            recovering: false,
            cut: Cut::default(),
            consent: Consent::default(),
            proposed: false,
            retry_at: 0,
            polling: false,
            why: String::new(),
            leader_notice: None,
            outputs: Vec::new(),
            applied: 0,
            dice: Dice(seed),
        }
    }

    /// The cluster's settings changed; in force at once.
    pub fn set_timers(&mut self, timers: Timers) {
        check_timers(&timers);
        self.timers = timers;
        for peer in &mut self.peers {
            peer.schedule.hasten(self.clock.now(), timers.keepalive);
        }
    }

    /// The membership in force. `excluded` are the nodes put out and not gone for good; `provisioned`
    /// counts voters, learners and them. What is known about nodes that stay is kept; a node that
    /// becomes a member, or becomes one again, is listened for from now on.
    pub fn set_members(&mut self, config: &Configuration, excluded: &[NodeId], provisioned: u32) {
        self.members = Members::new(config, excluded, provisioned);
        self.proposed = false;
        let (members, me) = (&self.members, self.me);
        let mut ids = members.ids();
        ids.extend_from_slice(members.excluded());
        ids.sort_unstable();
        ids.retain(|&id| id != me);

        let mut before = std::mem::take(&mut self.peers);
        for &id in &ids {
            let known = before.iter().position(|peer| peer.id == id);
            let mut peer = match known {
                Some(at) => before.swap_remove(at),
                None => Peer::new(id, &self.clock),
            };
            let excluded = members.is_excluded(id);
            if peer.excluded && !excluded {
                peer.evidence.renew(self.clock.listened());
            }
            if peer.excluded != excluded {
                peer.returned = false;
            }
            peer.excluded = excluded;
            peer.witness
                .keep_only(|node| node == me || ids.binary_search(&node).is_ok());
            self.peers.push(peer);
        }
    }

    /// This node itself is no member, or is one again.
    pub fn set_outcast(&mut self, outcast: Option<Outcast>) {
        self.outcast = outcast;
        self.lease.set_outcast(outcast);
    }

    /// How far this node has applied the log; told to the peers.
    pub fn set_applied(&mut self, applied: Index) {
        self.applied = applied;
    }

    /// Begins a driving call at `now`, on a clock that never goes back. Everything else in the
    /// call comes after it.
    pub fn advance(&mut self, now: Millis) {
        let promised = !self.peers.is_empty();
        match self.clock.advance(now, self.timers.keepalive, promised) {
            Lateness::InTime => {}
            Lateness::Late => self.health.late(),
            Lateness::Paused(late) => {
                self.health.late();
                self.recovering = true;
                self.outputs.push(Output::Paused(late));
            }
        }
    }

    /// A packet of a peer arrived, whatever it carries. Packets of strangers are ignored.
    pub fn heard(&mut self, now: Millis, e: &Envelope) {
        self.check_now(now);
        let (listened, now) = (self.clock.listened(), self.clock.now());
        let keepalive = self.timers.keepalive;
        let own_echo = self.own_echo(e);
        let Some(peer) = self.peer_mut(e.from) else {
            return;
        };
        let worth = peer.evidence.packet(e, own_echo, listened);
        if worth == Worth::Foregone {
            return;
        }
        if worth == Worth::NewRun {
            peer.applied = 0;
            peer.witness.restarted();
            peer.schedule.hasten(now, 0);
        }
        if !peer.excluded {
            self.lease.packet(e, own_echo, now);
        } else if worth != Worth::Repeated {
            peer.returned = true;
            let told = peer.told_at.map(|at| listened.since(at));
            if told.is_none_or(|ago| ago >= keepalive) {
                peer.told_at = Some(listened);
                self.outputs.push(Output::Tell(e.from));
            }
        }
    }

    /// A keepalive arrived in the packet `e`, which was given to [`Detector::heard`] just before.
    pub fn keepalive(&mut self, now: Millis, e: &Envelope, mut k: Keepalive) {
        self.check_now(now);
        let listened = self.clock.listened();
        let own_echo = self.own_echo(e).unwrap_or(0);
        let leader_term = self.lease.leader_term();
        let Some(peer) = self.peer_mut(e.from) else {
            return;
        };
        let (stamp, incarnation) = peer.evidence.newest();
        if peer.excluded || e.incarnation != incarnation {
            return;
        }
        let notice = k.notice.take();
        let newest = e.stamp == stamp;
        if newest {
            peer.schedule.asked(k.kind);
            peer.applied = k.applied;
        }
        peer.witness.testify(listened, e.stamp, own_echo, k);
        // Only a leader with a fresh majority is believed: a deposed one shows what was.
        let Some(notice) = notice else { return };
        if newest && e.leader_term > 0 && e.leader_term >= leader_term {
            self.leader_notice = Some((listened, notice));
        }
    }

    /// The host heard this node by other means than a packet.
    pub fn note_heard(&mut self, node: NodeId) {
        let listened = self.clock.listened();
        if let Some(peer) = self.peer_mut(node) {
            peer.evidence.hint(listened);
            peer.returned |= peer.excluded;
        }
    }

    /// The host's answer to [`Output::AskGuard`]. Takes effect at the next evaluation.
    pub fn guard_answer(&mut self, cut: &[NodeId], answer: GuardAnswer) {
        let now = self.clock.now();
        self.consent.answer(cut, answer, now, self.timers.keepalive);
    }

    /// The exclusion handed out last was not accepted. It is tried again, from a fresh look at
    /// the witnesses, one keepalive later.
    pub fn proposal_failed(&mut self) {
        self.proposed = false;
        self.retry_at = self.clock.now().saturating_add(self.timers.keepalive);
    }

    /// Takes the keepalives that are due now, at most a question and an answer for each peer.
    pub fn take_due(&mut self, now: Millis, out: &mut Vec<(NodeId, Keepalive)>) {
        self.check_now(now);
        let (now, keepalive) = (self.clock.now(), self.timers.keepalive);
        for i in 0..self.peers.len() {
            if self.peers[i].excluded {
                continue;
            }
            let interest = self.interest(&self.peers[i]);
            let peer = &mut self.peers[i];
            let due = peer.schedule.take(now, keepalive, interest, &mut self.dice);
            if due == Due::default() {
                continue;
            }
            let id = peer.id;
            let composed = self.compose(due);
            out.extend(composed.into_iter().flatten().map(|k| (id, k)));
        }
    }

    /// A packet leaves for `to` anyway: a keepalive that may go with it.
    pub fn ride_along(&mut self, to: NodeId, now: Millis) -> Option<Keepalive> {
        self.check_now(now);
        let (now, keepalive) = (self.clock.now(), self.timers.keepalive);
        let i = self.position(to)?;
        let peer = &mut self.peers[i];
        if peer.excluded {
            return None;
        }
        let due = peer.schedule.ride(now, keepalive, &mut self.dice);
        if due == Due::default() {
            return None;
        }
        let [ask, reply] = self.compose(due);
        ask.or(reply)
    }

    /// Takes what is to be done and told, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When the next driving call must come at the latest. With peers that is within a tick, a
    /// tenth of hb_keepalive: a later call counts against this node's own health.
    pub fn next_deadline(&self) -> Millis {
        let now = self.clock.now();
        let tick = clock::tick(self.timers.keepalive);
        if self.peers.is_empty() {
            // Nobody to listen to; but a lease wants renewing.
            return match self.timers.deadtime {
                0 => Millis::MAX,
                _ => now.saturating_add(tick.max(self.timers.fencetime / 2)),
            };
        }
        let sending = self.peers.iter().filter(|peer| !peer.excluded);
        let due = sending.map(|peer| {
            let interest = self.interest(peer);
            peer.schedule.next(self.timers.keepalive, interest)
        });
        let soonest = due.min().unwrap_or(Millis::MAX);
        soonest.clamp(now.saturating_add(1), now.saturating_add(tick))
    }

    /// What a packet for `to` echoes: the newest stamp received from it, and the run of it which
    /// that belongs to; both 0 before the first.
    pub fn echo_for(&self, to: NodeId) -> (Millis, u64) {
        let peer = self.position(to).map(|i| &self.peers[i]);
        peer.map_or((0, 0), |peer| peer.evidence.newest())
    }

    /// How far a peer had applied the log when it last said so in its present run; 0 never.
    pub fn applied_by(&self, id: NodeId) -> Index {
        self.position(id).map_or(0, |i| self.peers[i].applied)
    }

    pub(super) fn position(&self, id: NodeId) -> Option<usize> {
        self.peers.binary_search_by_key(&id, |peer| peer.id).ok()
    }

    pub(super) fn instant(&self) -> Instant {
        Instant {
            now: self.clock.now(),
            listened: self.clock.listened(),
            keepalive: self.timers.keepalive,
        }
    }

    fn peer_mut(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.position(id).map(|i| &mut self.peers[i])
    }

    /// The stamp of this run which the packet echoes. One from the future is nobody's.
    fn own_echo(&self, e: &Envelope) -> Option<Millis> {
        let own = e.echo_incarnation == self.incarnation && e.echo <= self.clock.now();
        own.then_some(e.echo)
    }

    fn interest(&self, peer: &Peer) -> Interest {
        if peer.evidence.silence(self.clock.listened()) >= self.timers.warntime {
            Interest::Alive
        } else if self.polling && self.members.votes(peer.id) {
            Interest::Row
        } else if self.lease.is_old(self.clock.now(), &self.timers) {
            Interest::Alive
        } else {
            Interest::Usual
        }
    }

    fn compose(&self, due: Due) -> [Option<Keepalive>; 2] {
        let ask = due.ask.map(|kind| {
            let push = kind == KeepaliveKind::Push;
            let notice = (push && self.view.leading && self.view.fresh).then(|| self.assessment());
            self.message(kind, push, notice)
        });
        let reply = due
            .reply
            .map(|with_row| self.message(KeepaliveKind::Reply, with_row, None));
        [ask, reply]
    }

    fn message(&self, kind: KeepaliveKind, with_row: bool, notice: Option<Notice>) -> Keepalive {
        Keepalive {
            kind,
            health: self.health.score(),
            applied: self.applied,
            row: if with_row { self.row() } else { Vec::new() },
            notice,
        }
    }

    /// How this node hears every other member.
    fn row(&self) -> Vec<RowItem> {
        let at = self.clock.listened();
        let members = self.peers.iter().filter(|peer| !peer.excluded);
        let items = members.map(|peer| RowItem {
            node: peer.id,
            age: peer.evidence.age(at).map_or(u32::MAX, clamp_age),
            span: u32::try_from(peer.evidence.span(at)).unwrap_or(u32::MAX),
            incarnation: peer.evidence.newest().1,
        });
        items.collect()
    }

    pub(super) fn check_now(&self, now: Millis) {
        assert!(
            now <= self.clock.now(),
            "advance() comes first in a driving call"
        );
    }
}

/// An age in a row: `u32::MAX` is kept for "never".
pub(super) fn clamp_age(age: Millis) -> u32 {
    u32::try_from(age).unwrap_or(u32::MAX).min(u32::MAX - 1)
}

fn check_timers(t: &Timers) {
    assert!(
        t.keepalive >= 10,
        "hb_keepalive is too short to be measured"
    );
    assert!(t.warntime >= t.keepalive, "every node would always be LATE");
    assert!(t.initdead >= t.deadtime, "initdead is the longer silence");
    if t.deadtime > 0 {
        assert!(t.deadtime > 2 * t.keepalive, "one lost packet would kill");
        assert!(t.warntime < t.deadtime, "LATE comes before dead");
        assert!(
            t.fencetime < t.deadtime,
            "a node stops before it is put out"
        );
    }
}

#[cfg(test)]
mod tests;
