//! One round: inputs go through core and detector, what must be durable is written, and what is
//! to be said and told is gathered. No call to the host is made here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::cluster::State;
use crate::core::{Entry, Index, Millis, NodeId, Options, Raft, Random};
use crate::detector::Detector;
use crate::storage::{Lost, Opened, Storage};
use crate::wire::Part;

use super::action::{Action, Actions};
use super::full::Full;
use super::image::read_head;
use super::install::{Loading, Open};
use super::instances::Instances;
use super::leadership::Leadership;
use super::outbox::Outbox;
use super::outcast::Fate;
use super::requests::Pending;
use super::shared::Shared;
use super::slow::OwnDisk;
use super::snapshot::Snapshots;
use super::watch::Watch;
use super::{Error, Event, Input, Metrics, Settings};

/// Bytes of entries in one append.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes of proposals that may wait for their commit.
const UNCOMMITTED_BYTES: usize = 64 << 20;
/// Bytes of one piece of a snapshot.
const PIECE_BYTES: usize = 256 << 10;
/// A leader whose disk has not answered for so many election timeouts steps down.
const STALL: Millis = 4;
/// Entries applied in one driving call. While the host applies them nothing is sent, and a node
/// that is slow to read its log again must not look like a dead one.
const APPLY_MAX: usize = 256;
/// What is wrong where there is no log, and was or is a cluster.
const LOG_LOST: &str = "this node has no log, and has taken part in a cluster: only its leader can \
    give it one. If there is none, begin with an empty directory";

/// The driven half of a member, without its driver.
pub(super) struct Engine {
    pub settings: Settings,
    pub raft: Raft,
    pub detector: Detector,
    pub cluster: State,
    pub storage: Box<dyn Storage>,
    pub shared: Arc<Shared>,
    pub instance: u64,
    pub incarnation: u64,
    pub now: Millis,
    started: bool,
    /// Entries that may still be applied in this driving call.
    pub apply_left: usize,
    /// When the last driving call promised to be called again.
    promised: Option<Millis>,
    pub outbox: Outbox,
    pub actions: Actions,
    /// Accepted requests by the index of their entry.
    pub pending: BTreeMap<Index, Pending>,
    pub leadership: Leadership,
    pub snapshots: Snapshots,
    pub open: Open,
    pub instances: Instances,
    /// What members understand, and the run and time in which they said so.
    pub features: BTreeMap<NodeId, ((u64, u64), u32)>,
    pub fate: Fate,
    pub watch: Watch,
    pub full: Full,
    pub own_disk: OwnDisk,
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
    pub fn new(
        settings: Settings,
        opened: Opened,
        mut storage: Box<dyn Storage>,
        shared: Arc<Shared>,
    ) -> Result<Engine, Error> {
        let mut random = Random::new(settings.seed);
        let incarnation = u64::from(opened.incarnation) << 32 | random.next_u64() >> 32;
        let options = Options {
            heartbeat: settings.heartbeat,
            election: settings.election,
            batch_bytes: BATCH_BYTES.min(settings.message_entries()),
            uncommitted_bytes: UNCOMMITTED_BYTES,
            entry_max: settings.entry_max,
            tail_bytes: settings.tail_bytes,
            snapshot_rate: settings.snapshot_rate,
            lease_reads: settings.lease_reads,
            piece_bytes: PIECE_BYTES.min(settings.message_entries()),
            stall: STALL * settings.election,
            seed: random.next_u64(),
            run: incarnation,
            ..Options::new(settings.id)
        };
        let found = remarks(&opened);
        let raft = Raft::new(options, opened.restored, 0);
        let replayed_to = raft.commit();
        let cluster = match raft.snapshot() {
            Some(snapshot) => read_head(&mut *storage.read_snapshot(snapshot)?, snapshot)?.0,
            None => State::default(),
        };
        let timers = super::timers(cluster.params(), &settings, 0);
        let detector = Detector::new(settings.id, incarnation, random.next_u64(), timers);
        let mut instances = Instances::default();
        instances.hear(settings.id, opened.instance);
        let mut engine = Engine {
            raft,
            detector,
            cluster,
            storage,
            shared,
            instance: opened.instance,
            incarnation,
            now: 0,
            started: false,
            apply_left: 0,
            promised: None,
            outbox: Outbox::default(),
            actions: Actions::default(),
            pending: BTreeMap::new(),
            leadership: Leadership::default(),
            snapshots: Snapshots::default(),
            open: None,
            instances,
            features: BTreeMap::new(),
            fate: Fate::default(),
            watch: Watch::default(),
            full: Full::default(),
            own_disk: OwnDisk::default(),
            members_told: (0, 0),
            changed_at: 0,
            replayed_to,
            stopped: None,
            metrics: Metrics::default(),
            settings,
        };
        if let Some(snapshot) = engine.raft.snapshot().cloned() {
            engine.note_snapshot(&snapshot);
        }
        for (level, text) in found {
            engine.log(level, text);
        }
        Ok(engine)
    }

    /// The node's first entry; durable when this returns `Ok`.
    pub fn bootstrap(&mut self, entry: Entry) -> Result<(), Error> {
        if !self.raft.bootstrap(entry) {
            let text = match self.raft.log().last_index() {
                0 => LOG_LOST,
                _ => "this node holds a log already: a cluster is bootstrapped once",
            };
            return Err(Error::Exists(text.to_owned()));
        }
        self.write();
        self.storage.flush();
        self.write();
        if self.is_full() {
            // It is written as soon as there is room; until then a crash leaves nothing of it.
            return Err(self.why_full());
        }
        self.stopped.clone().map_or(Ok(()), Err)
    }

    /// Whether this run may begin; see [`Storage::ready`].
    pub fn is_open(&mut self) -> bool {
        self.started
            || self.storage.ready().unwrap_or_else(|error| {
                self.stop(error.into());
                false
            })
    }

    /// Takes in the time of a driving call.
    pub fn begin(&mut self, now: Millis) {
        self.apply_left = APPLY_MAX;
        self.metrics.steps += 1;
        if !self.started {
            self.started = true;
            self.now = now;
            self.raft.start(now);
            self.watch.leading_since = now;
            self.load_own();
            if self.raft.log().last_index() == 0 && self.raft.hard_state().claim.is_none() {
                let text = match self.raft.is_blank() {
                    true => "no membership yet: bootstrap this node, or let the leader take it in",
                    false => LOG_LOST,
                };
                self.log(2, text.to_owned());
            }
        }
        self.take_in(now);
    }

    /// The host has taken its time within a driving call, and more has come meanwhile: that is handled
    /// as by another call, which was due at once.
    pub fn go_on(&mut self, now: Millis) {
        self.promised = Some(self.now);
        self.take_in(now);
    }

    /// Takes in the time. A leader that was away for an election timeout gives up before it does
    /// anything else: others may lead by now (detection.md 4.3).
    fn take_in(&mut self, now: Millis) {
        assert!(now >= self.now, "time went back");
        self.now = now;
        let late = self.promised.map_or(0, |due| now.saturating_sub(due));
        self.metrics.step_late_ms_max = self.metrics.step_late_ms_max.max(late);
        if late >= self.settings.election && self.raft.is_leader() {
            self.raft.step_down(now);
            self.log(
                2,
                format!("stepped down: this process was away for {late} ms"),
            );
        }
        if late >= self.settings.heartbeat {
            self.raft.void_lease();
        }
        self.detector.advance(now);
        self.go_on_with_leases();
        self.make_room();
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
                Input::Lost(node) => self.raft.lost(self.now, node),
                Input::Priority(priority) => self.set_priority(priority),
                Input::Newer(node) => self.newer(node),
                Input::Saved(index, result) => self.saved(index, result),
                Input::Loaded(index, ok) => self.loaded(index, ok),
            }
        }
        let loading = &self.snapshots.loading;
        let begins = matches!(loading, Some(Loading::Host(_) | Loading::Own(_)));
        self.raft.set_begins(begins);
        self.take_finished();
        self.raft.tick(self.now);
        self.settle();
        self.detect();
        self.promote();
        self.register_instances();
        self.record_leader();
        self.go_on_loading();
        self.pump_pieces();
        self.snapshot_if_due();
        self.compact();
        self.spare_own_disk();
        self.settle();
        self.notice_role();
        self.notice_changes();
        self.fail_lost();
        self.fail_lost_snapshot();
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
                due.min(self.transfer_due()).min(self.room_due())
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
        let answered = self.answer_asks();
        if self.apply() || answered {
            // What was applied may change who counts, and may concern this node itself.
            self.leave();
            self.follow_membership();
            self.write();
            self.collect_messages();
        }
        self.finish_barriers();
    }

    /// Whether something was left for the next driving call.
    pub fn has_more(&self) -> bool {
        let applies = self.raft.has_committed() && self.snapshots.loading.is_none();
        let more = applies || self.raft.has_asks() || self.wants_next_call();
        self.stopped.is_none() && more
    }

    /// Everything that depends on a write waits in the core for its token.
    fn write(&mut self) {
        while let Some((index, error)) = self.storage.damage() {
            self.cannot_read(index, &error);
        }
        while self.stopped.is_none() {
            if let Some(persist) = self.next_persist() {
                self.metrics.persists += 1;
                self.metrics.entries_persisted += persist.entries.len() as u64;
                self.storage.submit(persist);
            }
            let Some(completion) = self.storage.poll() else {
                return;
            };
            self.completed(completion);
        }
    }

    fn collect_messages(&mut self) {
        for (to, message) in self.raft.take_first_messages() {
            self.outbox.push(to, Part::Raft(message));
        }
    }

    /// Tells the peers of what was committed, unless an append of this driving call has: a host that
    /// proposes the next entry when it hears of the last one spares them half of the messages.
    pub fn conclude(&mut self) {
        for (to, message) in self.raft.take_messages() {
            self.outbox.push(to, Part::Raft(message));
        }
        self.flush();
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

/// What an administrator should know of what was opened, with the levels of the log.
fn remarks(opened: &Opened) -> Vec<(i32, String)> {
    let mut remarks = Vec::new();
    if opened.torn_bytes > 0 {
        let bytes = opened.torn_bytes;
        let text = format!(
            "dropped {bytes} bytes of a write that was cut off; nobody was told of it, unless \
             the disk has lost what was durable for less than a second or two"
        );
        remarks.push((2, text));
    }
    if opened.meta_repaired {
        let text = "one of the two copies in META was damaged: it was written anew from the other";
        remarks.push((1, text.to_owned()));
    }
    for what in &opened.damaged {
        let text = match what.contains(".snap") {
            true => format!("a snapshot is passed over, the log has its place: {what}"),
            false => format!("a part of the log is passed over, a snapshot has its place: {what}"),
        };
        remarks.push((1, text));
    }
    if let Some(lost) = &opened.lost {
        let Lost { what, kept, .. } = lost;
        let text = format!(
            "the log is damaged: {what}; what is whole of it ends at index {}, and the rest was \
             dropped",
            kept.index
        );
        remarks.push((1, text));
    }
    remarks
}
