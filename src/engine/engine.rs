//! One round: inputs go through core and detector, what must be durable is written, and what is
//! to be said and told is gathered. No call to the host is made here.

use std::collections::{BTreeMap, VecDeque};

use crate::cluster::State;
use crate::core::{Entry, Index, Millis, NodeId, Options, Raft, Random, Term};
use crate::detector::{BlockedBy, Detector, Envelope, LeaderView, Output};
use crate::storage::{Opened, Storage, StorageError};
use crate::wire::{Header, INELIGIBLE, Packet, Part};

use super::action::Action;
use super::instances::Instances;
use super::leadership::Leadership;
use super::outbox::Outbox;
use super::outcast::Fate;
use super::requests::Pending;
use super::{Error, Event, Guard, Input, Metrics, Role, Settings};

/// Bytes of entries in one append.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes of proposals that may wait for their commit.
const UNCOMMITTED_BYTES: usize = 64 << 20;
/// Entries applied in one driving call. While the host applies them nothing is sent, and a node
/// that is slow to read its log again must not look like a dead one.
const APPLY_MAX: usize = 256;

/// The driven half of a member, without its driver.
pub(super) struct Engine {
    pub settings: Settings,
    pub raft: Raft,
    pub detector: Detector,
    pub cluster: State,
    storage: Box<dyn Storage>,
    pub instance: u64,
    incarnation: u64,
    pub now: Millis,
    started: bool,
    /// Entries that may still be applied in this driving call.
    pub apply_left: usize,
    /// When the last driving call promised to be called again.
    promised: Option<Millis>,
    pub outbox: Outbox,
    pub actions: Vec<Action>,
    /// Accepted requests by the index of their entry.
    pub pending: BTreeMap<Index, Pending>,
    pub leadership: Leadership,
    pub instances: Instances,
    pub fate: Fate,
    /// What the host was last told: role, term, leader.
    told_role: (Role, Term, Option<NodeId>),
    told_quorum: Option<bool>,
    /// Whose exclusions are held back by what, and since when it is so.
    blocked: Vec<(NodeId, BlockedBy)>,
    blocked_since: Millis,
    told_blocked: Vec<(NodeId, BlockedBy)>,
    told_unreliable: Vec<NodeId>,
    leading_since: Millis,
    /// When a packet of a leader confirmed by a majority last came.
    leader_fresh_at: Option<Millis>,
    /// What the detector was last told: configuration index, applied epoch.
    members_told: (Index, u64),
    /// What is known to have been committed in an earlier run.
    pub replayed_to: Index,
    /// Where the last applied change of members or settings stands in the log.
    pub changed_at: Index,
    pub stopped: Option<Error>,
    pub metrics: Metrics,
}

impl Engine {
    pub fn new(settings: Settings, opened: Opened, storage: Box<dyn Storage>) -> Engine {
        let mut random = Random::new(settings.seed);
        let incarnation = u64::from(opened.incarnation) << 32 | random.next_u64() >> 32;
        let options = Options {
            id: settings.id,
            heartbeat: settings.heartbeat,
            election: settings.election,
            batch_bytes: BATCH_BYTES.min(settings.message_entries()),
            uncommitted_bytes: UNCOMMITTED_BYTES,
            entry_max: settings.entry_max,
            seed: random.next_u64(),
            run: incarnation,
        };
        let raft = Raft::new(options, opened.restored, 0);
        let replayed_to = raft.commit();
        let cluster = State::default();
        let timers = super::timers(cluster.params(), &settings, 0);
        let detector = Detector::new(settings.id, incarnation, random.next_u64(), timers);
        let mut instances = Instances::default();
        instances.hear(settings.id, opened.instance);
        Engine {
            raft,
            detector,
            cluster,
            storage,
            instance: opened.instance,
            incarnation,
            now: 0,
            started: false,
            apply_left: 0,
            promised: None,
            outbox: Outbox::default(),
            actions: Vec::new(),
            pending: BTreeMap::new(),
            leadership: Leadership::default(),
            instances,
            fate: Fate::default(),
            told_role: (Role::Follower, 0, None),
            told_quorum: None,
            blocked: Vec::new(),
            blocked_since: 0,
            told_blocked: Vec::new(),
            told_unreliable: Vec::new(),
            leading_since: 0,
            leader_fresh_at: None,
            members_told: (0, 0),
            changed_at: 0,
            replayed_to,
            stopped: None,
            metrics: Metrics::default(),
            settings,
        }
    }

    /// The node's first entry; durable when this returns `Ok`.
    pub fn bootstrap(&mut self, entry: Entry) -> Result<(), Error> {
        if !self.raft.bootstrap(entry) {
            let text = "this node holds a log already: a cluster is bootstrapped once";
            return Err(Error::Exists(text.to_owned()));
        }
        self.write();
        self.stopped.clone().map_or(Ok(()), Err)
    }

    /// Takes in the time of a driving call. A leader that was away for an election timeout gives
    /// up before it does anything else: others may lead by now (detection.md 4.3).
    pub fn begin(&mut self, now: Millis) {
        assert!(now >= self.now, "time went back");
        self.now = now;
        self.apply_left = APPLY_MAX;
        if !self.started {
            self.started = true;
            self.raft.start(now);
            self.leading_since = now;
            if self.raft.log().last_index() == 0 {
                let text = "no membership yet: bootstrap this node, or let the leader take it in";
                self.log(2, text.to_owned());
            }
        }
        let late = self.promised.map_or(0, |due| now.saturating_sub(due));
        self.metrics.steps += 1;
        self.metrics.step_late_ms_max = self.metrics.step_late_ms_max.max(late);
        if late >= self.settings.election && self.raft.is_leader() {
            self.raft.step_down(now);
            self.log(
                2,
                format!("stepped down: this process was away for {late} ms"),
            );
        }
        self.detector.advance(now);
    }

    /// One round: everything that the inputs and the time bring about. Takes all of `inputs`.
    pub fn round(&mut self, inputs: &mut VecDeque<Input>) {
        self.follow_membership();
        for input in inputs.drain(..) {
            match input {
                Input::Packet(packet) => self.packet(packet),
                Input::Request(ticket, request) => self.request(ticket, request),
                // Whatever still speaks there, it is not the member of that id.
                Input::Heard(node) if self.instances.has_lost(node) => {}
                Input::Heard(node) => self.detector.note_heard(node),
                Input::Eligible(eligible) => self.set_eligible(eligible),
            }
        }
        self.raft.tick(self.now);
        self.settle();
        self.detect();
        self.promote();
        self.register_instances();
        self.settle();
        self.notice_role();
        self.notice_changes();
        self.fail_lost();
        self.follow_transfer();
        if !self.has_lost_state() {
            self.keepalives();
        }
        self.flush();
    }

    /// When the next driving call is due: at once if there is more to do. Whichever it is, only
    /// what comes after it is late.
    pub fn next_deadline(&mut self, more: bool) -> Millis {
        let due = match more {
            true => self.now,
            false => {
                let due = self.raft.next_deadline().min(self.detector.next_deadline());
                due.min(self.transfer_due())
            }
        };
        let due = due.max(self.now);
        self.promised = Some(due);
        due
    }

    /// Writes, applies and sends what the inputs so far have brought about.
    fn settle(&mut self) {
        self.write();
        self.collect_messages();
        if self.apply() {
            // What was applied may change who counts, and may concern this node itself.
            self.leave();
            self.follow_membership();
            self.write();
            self.collect_messages();
        }
        self.finish_barriers();
    }

    /// Whether committed entries were left for the next driving call.
    pub fn has_more(&self) -> bool {
        self.stopped.is_none() && self.raft.has_committed()
    }

    /// Everything that depends on a write waits in the core for its token.
    fn write(&mut self) {
        while self.stopped.is_none() {
            if let Some(persist) = self.raft.take_persist() {
                self.metrics.persists += 1;
                self.metrics.entries_persisted += persist.entries.len() as u64;
                self.storage.submit(persist);
            }
            let Some(completion) = self.storage.poll() else {
                return;
            };
            self.raft
                .persisted(completion.token, completion.result.is_ok());
            if let Err(error) = completion.result {
                self.stop(error.into());
            }
        }
    }

    fn collect_messages(&mut self) {
        for (to, message) in self.raft.take_messages() {
            self.outbox.push(to, Part::Raft(message));
        }
    }

    /// Tells the detector who counts, and under which settings.
    fn follow_membership(&mut self) {
        let told = (self.raft.configuration_index(), self.cluster.applied());
        if told == self.members_told {
            return;
        }
        self.members_told = told;
        let excluded: Vec<NodeId> = self.cluster.excluded().map(|m| m.id).collect();
        let provisioned = self.cluster.provisioned();
        let timers = super::timers(self.cluster.params(), &self.settings, provisioned);
        let count = u32::try_from(provisioned).unwrap_or(u32::MAX);
        self.detector
            .set_members(self.raft.configuration(), &excluded, count);
        self.detector.set_timers(timers);
    }

    // ---- packets ---------------------------------------------------------

    fn packet(&mut self, packet: Packet) {
        let from = packet.header.from;
        if self.has_lost_state() {
            self.admit_loss(&packet);
            return;
        }
        if !self.is_genuine(&packet) {
            return;
        }
        let header = &packet.header;
        let envelope = self.envelope(header);
        self.detector.heard(self.now, &envelope);
        if envelope.leader_term >= self.raft.term() && envelope.leader_term > 0 {
            self.leader_fresh_at = Some(self.now);
        }
        self.raft
            .note_eligible(from, header.features & INELIGIBLE == 0);
        let barred = self.is_barred(from, header.epoch);
        if barred && self.detector.node(from).is_none() {
            // Out for good: the detector does not follow it, but it must learn its fate.
            self.tell(from);
        }
        for part in packet.parts {
            match part {
                Part::Raft(_) if barred => {}
                Part::Raft(message) => self.raft.receive(self.now, from, message),
                Part::Keepalive(keepalive) => {
                    self.detector.keepalive(self.now, &envelope, keepalive);
                }
                Part::Verdict(verdict) => self.verdict(from, verdict, false),
                Part::Removed(verdict) => self.verdict(from, verdict, true),
                Part::LostState { node, instance } => self.lost_state(from, node, instance),
            }
        }
    }

    /// What the detector needs to know of a packet. A leader confirms this node's right to serve
    /// only once this node knows the membership that the leader has: it may have been excluded
    /// and taken back, and must learn both before it serves.
    fn envelope(&self, header: &Header) -> Envelope {
        let behind = header.epoch > self.raft.configuration().epoch;
        Envelope {
            from: header.from,
            incarnation: header.incarnation,
            stamp: header.stamp,
            echo: header.echo,
            echo_incarnation: header.echo_incarnation,
            leader_term: if behind { 0 } else { header.leader_term },
        }
    }

    // ---- detection -------------------------------------------------------

    pub fn leader_view(&self) -> LeaderView {
        LeaderView {
            leading: self.raft.is_leader(),
            fresh: self.is_fresh(),
            since: self.leading_since,
            change_in_flight: self.raft.change_in_flight(),
        }
    }

    fn detect(&mut self) {
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

    fn fence(&mut self, fenced: bool, why: &str) {
        let word = if fenced { "stop serving" } else { "may serve" };
        self.log(2, format!("{word}: {why}"));
        let why = why.to_owned();
        self.actions.push(Action::Fence { fenced, why });
    }

    /// The host's word on an exclusion.
    pub fn guard_answered(&mut self, cut: &[NodeId], answer: Guard) {
        self.detector.guard_answer(cut, answer);
    }

    /// Whether this node leads with a majority behind it, and has applied all that was decided
    /// before its term: until then it judges and confirms by settings of the past.
    fn is_fresh(&self) -> bool {
        let applied = self.cluster.applied();
        let caught_up = self.raft.opened_at().is_some_and(|at| applied >= at);
        caught_up && self.raft.is_quorum_fresh(self.now)
    }

    /// Whether a leader that a majority has confirmed is known: this node, or one heard lately.
    pub fn has_quorum(&self) -> bool {
        let keepalive = self.cluster.params().keepalive_ms();
        let recent = self.settings.election + keepalive;
        let heard = self
            .leader_fresh_at
            .is_some_and(|at| self.now < at + recent);
        let follows = heard && self.raft.leader().is_some() && !self.raft.is_leader();
        let follows = follows && !self.is_out();
        self.raft.is_quorum_fresh(self.now) || follows
    }

    // ---- outgoing --------------------------------------------------------

    /// Keepalives that are due, and those that may ride on what leaves anyway.
    fn keepalives(&mut self) {
        self.detector.set_applied(self.cluster.applied());
        let mut due = Vec::new();
        self.detector.take_due(self.now, &mut due);
        for (to, keepalive) in due {
            self.outbox.push(to, Part::Keepalive(keepalive));
        }
        for to in self.outbox.addressees() {
            if let Some(keepalive) = self.detector.ride_along(to, self.now) {
                self.outbox.push(to, Part::Keepalive(keepalive));
            }
        }
    }

    fn flush(&mut self) {
        if self.stopped.is_some() {
            self.outbox = Outbox::default();
            return;
        }
        let fresh = self.is_fresh() && self.raft.may_confirm(self.now);
        let changed_at = self.changed_at;
        let features = if self.raft.is_eligible() {
            0
        } else {
            INELIGIBLE
        };
        let base = Header {
            cluster: self.settings.cluster,
            genesis: self.cluster.genesis(),
            from: self.settings.id,
            to: self.settings.id,
            instance: self.instance,
            incarnation: self.incarnation,
            epoch: self.raft.configuration().epoch,
            stamp: self.now,
            echo: 0,
            echo_incarnation: 0,
            leader_term: 0,
            features,
        };
        let (detector, cluster, term) = (&self.detector, &self.cluster, self.raft.term());
        let newest = self.raft.configuration();
        let limit = self.settings.message_entries();
        let packets = self.outbox.drain(limit, |to| {
            let (echo, echo_incarnation) = detector.echo_for(to);
            // A leader's word gives leave to serve: not to a node that is on its way out, nor to
            // one that is out until its return is decided, nor to one that does not know the
            // settings yet that say for how long.
            let knows = detector.applied_by(to) >= changed_at;
            let stays = newest.keeps(to) && cluster.is_excluded(to).is_none();
            let confirms = fresh && stays && knows;
            Header {
                to,
                echo,
                echo_incarnation,
                leader_term: if confirms { term } else { 0 },
                ..base.clone()
            }
        });
        for (to, bytes) in packets {
            self.metrics.packets_out += 1;
            self.metrics.bytes_out += bytes.len() as u64;
            self.actions.push(Action::Send { to, bytes });
        }
    }

    // ---- telling the host ------------------------------------------------

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

    fn notice_role(&mut self) {
        let role = (self.role(), self.raft.term(), self.raft.leader());
        if role == self.told_role {
            return;
        }
        let led = self.told_role.0 == Role::Leader;
        let again = led && self.told_role.1 == role.1;
        self.told_role = role;
        let (role, term, leader) = role;
        if role == Role::Leader && !again {
            self.leading_since = self.now;
            self.event(Event::Leading { term });
        } else if led && role != Role::Leader {
            self.event(Event::NotLeading { term });
        }
        self.actions.push(Action::Role { role, term, leader });
    }

    /// What holds an exclusion back is told once it has lasted: a guard's answer or the commit of
    /// an exclusion that goes through takes a moment, and is nobody's concern.
    fn notice_blocked(&mut self) {
        if !self.detector.blocked().eq(self.blocked.iter().copied()) {
            self.blocked = self.detector.blocked().collect();
            self.blocked_since = self.now;
        }
        let keepalive = self.cluster.params().keepalive_ms();
        let lasts = self.now >= self.blocked_since + keepalive;
        if !lasts || self.blocked == self.told_blocked || self.is_out() {
            return;
        }
        self.told_blocked.clone_from(&self.blocked);
        let why = match self.blocked.is_empty() {
            true => String::new(),
            false => self.detector.notice().to_owned(),
        };
        self.event(Event::Blocked { why });
    }

    /// Whether this node is out, and so has no say about others.
    pub fn is_out(&self) -> bool {
        self.raft.hard_state().excluded.is_some() || self.has_lost_state()
    }

    /// What changes without anybody's doing: quorum, what holds an exclusion back, peers.
    fn notice_changes(&mut self) {
        let has = self.has_quorum();
        if self.told_quorum != Some(has) {
            self.told_quorum = Some(has);
            let (heard, needed) = self.voters_heard();
            self.event(Event::Quorum { has, heard, needed });
        }
        self.notice_blocked();
        let members = self.raft.configuration().members();
        let lost = |id: &NodeId| {
            self.raft
                .progress(*id)
                .is_some_and(|p| p.has_lost_entries())
        };
        let unreliable: Vec<NodeId> = members.filter(lost).collect();
        for id in &unreliable {
            if !self.told_unreliable.contains(id) {
                self.log(
                    1,
                    format!("{id} lost entries that it had acknowledged: replace it"),
                );
                self.event(Event::PeerLostData { id: *id });
            }
        }
        self.told_unreliable = unreliable;
    }

    pub fn log(&mut self, level: i32, text: String) {
        if level <= self.settings.log_level {
            self.actions.push(Action::Log { level, text });
        }
    }

    pub fn event(&mut self, event: Event) {
        self.actions.push(Action::Event(event));
    }

    /// The engine is dead: it says nothing more to its peers.
    pub fn stop(&mut self, why: Error) {
        if self.stopped.is_none() {
            self.raft.poison();
            self.stopped = Some(why.clone());
            self.log(1, format!("stopped: {why}"));
            self.actions.push(Action::Stopped(why));
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Error {
        let text = error.to_string();
        match error {
            StorageError::Io { .. } => Error::Io(text),
            StorageError::Corrupt { .. } => Error::Corrupt(text),
            StorageError::Missing { .. } => Error::NotFound(text),
            StorageError::Exists { .. } => Error::Exists(text),
            StorageError::Locked { .. } => Error::Locked(text),
            StorageError::Foreign { .. } => Error::Foreign(text),
            StorageError::Version { .. } => Error::Unsupported(text),
        }
    }
}
