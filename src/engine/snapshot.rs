//! This node's own snapshots: when one is made, who makes it, and what becomes of the log (thesis 5;
//! raft.md rules 37, 40). What the host has to do is in [`Save`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::cluster::{Command, Fact, MAX_LOG_PIECE, Pieces};
use crate::core::{Configuration, Entry, Index, Millis, NodeId, Payload, Position, Snapshot, Term};
use crate::storage::{Draft, StorageError, Task, zeros};
use crate::wire::SNAPSHOTS;

use super::action::Action;
use super::engine::Engine;
use super::image::{Aside, Save, Saved, head_of};
use super::install::Loading;
use super::{Error, Event, HostState, Input, Ticket, Way};

/// Pieces of a snapshot that may be in the log and not applied yet.
const PIECES_IN_FLIGHT: Index = 8;
/// Bytes of such an entry besides the piece, and more.
const PIECE_REST: usize = 256;
/// A snapshot that is being sent keeps the log behind it, until the log is so many times larger
/// than what makes a new snapshot.
const PATIENCE: u64 = 4;
/// Digests of this node's own snapshots that are kept for comparison.
const DIGESTS: usize = 4;

/// What was applied last, and what a snapshot must say of it.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub last: Position,
    pub config: Arc<Configuration>,
    pub config_index: Index,
}

/// Snapshots under way, and what makes the next one.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    pub applied: Applied,
    /// The host writes its part of the snapshot at this index.
    saving: Option<Index>,
    pub loading: Option<Loading>,
    /// What could not be loaded is tried again from this time on.
    pub gather_at: Millis,
    /// They are being read.
    pub gathering: bool,
    /// The cluster's part of a snapshot whose host's part is coming in the log.
    head: Option<(Draft, Vec<u8>)>,
    /// This node puts that part into the log.
    pump: Option<Pump>,
    /// The newest [`Command::Compact`] that this node has proposed as leader.
    marked: (Term, Index),
    /// Who waits for the next snapshot.
    tickets: Vec<Ticket>,
    /// Weight and number of all that was applied in this run, and what they were at the last
    /// snapshots that were begun.
    weight: u64,
    count: u64,
    begun: VecDeque<(Index, u64, u64)>,
    /// Index and checksum of the newest own snapshots that must be alike on all nodes.
    digests: VecDeque<(Index, u32)>,
    told_diverged: BTreeMap<NodeId, Index>,
}

/// An image on its way into the log.
#[derive(Debug)]
struct Pump {
    at: Index,
    term: Term,
    image: Box<Aside>,
    offset: u64,
    /// Log index of the newest piece.
    newest: Index,
}

impl Snapshots {
    pub fn is_saving(&self) -> bool {
        self.saving.is_some() || self.pump.is_some()
    }

    fn since_last(&self) -> (u64, u64) {
        let (_, weight, count) = self.begun.back().copied().unwrap_or_default();
        (self.weight - weight, self.count - count)
    }

    fn begin(&mut self, index: Index) {
        self.begun.push_back((index, self.weight, self.count));
        while self.begun.len() > 3 {
            self.begun.pop_front();
        }
    }
}

impl Engine {
    /// An entry has been applied.
    pub fn note_applied(&mut self, entry: &Entry) {
        let snapshots = &mut self.snapshots;
        let piece = matches!(&entry.payload, Payload::Cluster(bytes) if Command::is_piece(bytes));
        if !piece {
            // Or a snapshot in the log would be reason enough for the next one.
            snapshots.weight += entry.payload.weight() as u64;
            snapshots.count += 1;
        }
        snapshots.applied.last = entry.position();
        if let Payload::Config(config, _) = &entry.payload {
            snapshots.applied.config = config.clone();
            snapshots.applied.config_index = entry.index;
        }
    }

    /// What was applied is what this snapshot says.
    pub fn note_snapshot(&mut self, snapshot: &Snapshot) {
        self.snapshots.applied = Applied {
            last: snapshot.last,
            config: snapshot.config.clone(),
            config_index: snapshot.config_index,
        };
    }

    /// The host, or whoever it acts for, wants a snapshot.
    pub fn request_snapshot(&mut self, ticket: Ticket) {
        if let Err(error) = self.begin_requested() {
            self.actions.push(Action::Done {
                ticket,
                result: Err(error),
            });
            return;
        }
        self.snapshots.tickets.push(ticket);
    }

    /// Whether this node can make snapshots and load them.
    pub fn may_keep_snapshots(&self) -> Result<(), Error> {
        if self.settings.host_state == HostState::Unsaved {
            let text = "the host can neither save nor load its state: `save` and `load` are NULL";
            return Err(Error::State(text.to_owned()));
        }
        match self.storage.keeps_snapshots() {
            true => Ok(()),
            false => Err(StorageError::NoSnapshots.into()),
        }
    }

    fn begin_requested(&mut self) -> Result<(), Error> {
        self.may_keep_snapshots()?;
        if self.snapshots.is_saving() || self.snapshots.loading.is_some() {
            let text = "a snapshot is being made or loaded already";
            return Err(Error::Conflict(text.to_owned()));
        }
        if self.cluster.applied() == 0 {
            let text = "there is nothing to be saved: no membership yet";
            return Err(Error::State(text.to_owned()));
        }
        match self.settings.compaction.way {
            Way::Application => self.begin_save(false),
            Way::Leader | Way::InLog => self.mark(),
        }
    }

    /// Makes a snapshot when enough has been applied since the last one.
    pub fn snapshot_if_due(&mut self) {
        let (bytes, entries) = self.snapshots.since_last();
        let compaction = self.settings.compaction;
        // Writing snapshots costs no more than writing the log.
        let size = self.raft.snapshot().map_or(0, |s| s.size);
        let due = bytes >= compaction.bytes.max(size) || entries >= compaction.entries;
        let busy = self.snapshots.is_saving() || self.snapshots.loading.is_some();
        let able = self.may_keep_snapshots().is_ok() && self.stopped.is_none();
        if !due || busy || !able {
            return;
        }
        match compaction.way {
            Way::Application => {
                if let Err(error) = self.begin_save(false) {
                    self.snapshot_failed(self.cluster.applied(), &error);
                }
            }
            Way::Leader | Way::InLog if self.is_fresh() => {
                if let Err(error) = self.mark() {
                    self.log(4, format!("the log is not compacted yet: {error}"));
                }
            }
            Way::Leader | Way::InLog => {}
        }
    }

    /// The leader says where everybody makes a snapshot.
    fn mark(&mut self) -> Result<(), Error> {
        if !self.raft.is_leader() {
            return Err(Error::NotLeader);
        }
        if !self.all_understand(SNAPSHOTS) {
            let text = "a member does not understand snapshots yet";
            return Err(Error::Conflict(text.to_owned()));
        }
        let (term, index) = self.snapshots.marked;
        if term == self.raft.term() && index > self.cluster.applied() {
            // On its way already.
            return Ok(());
        }
        let in_log = self.settings.compaction.way == Way::InLog;
        self.snapshots.marked = self.propose_command(&Command::Compact { in_log })?;
        Ok(())
    }

    /// What the log says about snapshots takes effect.
    pub fn snapshot_fact(&mut self, entry: &Entry, fact: Fact) {
        match fact {
            Fact::Compact { in_log: false } => self.save_here(),
            Fact::Compact { in_log: true } => self.begin_in_log(entry),
            Fact::Pieces(pieces) => self.finish_in_log(pieces),
            _ => panic!("{fact:?} is not about snapshots"),
        }
    }

    fn save_here(&mut self) {
        if self.may_keep_snapshots().is_err() {
            return;
        }
        let index = self.cluster.applied();
        if self.snapshots.is_saving() {
            self.snapshots.begin(index);
            let text = format!("no snapshot at {index}: the host still writes an earlier one");
            self.log(2, text);
        } else if let Err(error) = self.begin_save(false) {
            self.snapshot_failed(index, &error);
        }
    }

    /// A snapshot of all that is applied now. With `aside` it is to go into the log.
    fn begin_save(&mut self, aside: bool) -> Result<(), Error> {
        let index = self.cluster.applied();
        assert!(!self.snapshots.is_saving(), "one snapshot at a time");
        self.snapshots.begin(index);
        if !aside && self.settings.host_state != HostState::Saved {
            let head = head_of(&self.cluster)?;
            self.snapshots.saving = Some(index);
            self.write_head(self.draft(), head);
            return Ok(());
        }
        let mut writer = self.storage.write_snapshot(self.draft())?;
        if !aside {
            writer.write(&head_of(&self.cluster)?)?;
        }
        let save = Save::new(index, aside, writer, self.shared.clone());
        self.snapshots.saving = Some(index);
        match self.settings.host_state {
            HostState::Saved => self.actions.push(Action::Save { save, index }),
            HostState::None | HostState::Unsaved => save.finish(true),
        }
        Ok(())
    }

    fn draft(&self) -> Draft {
        let applied = &self.snapshots.applied;
        assert_eq!(
            applied.last.index,
            self.cluster.applied(),
            "a snapshot is of what was applied"
        );
        Draft {
            last: applied.last,
            config: applied.config.clone(),
            config_index: applied.config_index,
            pieces: None,
        }
    }

    /// The host's part is written, or cannot be.
    pub fn saved(&mut self, index: Index, result: Result<Saved, Error>) {
        if self.snapshots.saving != Some(index) {
            // Given up meanwhile: a snapshot of a leader has taken its place.
            return;
        }
        self.snapshots.saving = None;
        match result {
            Ok(Saved::Kept(snapshot)) => self.keep(snapshot),
            Ok(Saved::Aside(image)) if self.is_awaited(index) => self.begin_pump(index, image),
            // Others led meanwhile, and have begun another one or ended this one.
            Ok(Saved::Aside(_)) => self.finish_tickets(Err(Error::Lost)),
            Err(error) => self.snapshot_failed(index, &error),
        }
    }

    fn keep(&mut self, snapshot: Snapshot) {
        let (index, bytes) = (snapshot.last.index, snapshot.size);
        if self.settings.compaction.way == Way::Leader {
            self.snapshots.digests.push_back((index, snapshot.crc));
            if self.snapshots.digests.len() > DIGESTS {
                self.snapshots.digests.pop_front();
            }
        }
        self.raft.saved(snapshot);
        self.metrics.snapshots += 1;
        self.event(Event::Snapshot { index, bytes });
        self.finish_tickets(Ok(index));
        self.compact();
    }

    fn snapshot_failed(&mut self, index: Index, error: &Error) {
        self.log(2, format!("no snapshot at {index}: {error}"));
        let why = error.to_string();
        self.event(Event::SnapshotFailed { index, why });
        self.finish_tickets(Err(error.clone()));
    }

    /// Nobody knows what becomes of a snapshot whose leader is no more before it was begun here.
    pub fn fail_lost_snapshot(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        let snapshots = &self.snapshots;
        let (term, index) = snapshots.marked;
        let leads = self.raft.is_leader() && self.raft.term() == term;
        let on_its_way = leads && index > self.cluster.applied();
        if !snapshots.tickets.is_empty() && !snapshots.is_saving() && !on_its_way {
            self.finish_tickets(Err(Error::Lost));
        }
    }

    fn finish_tickets(&mut self, result: Result<Index, Error>) {
        for ticket in std::mem::take(&mut self.snapshots.tickets) {
            let result = result.clone();
            self.actions.push(Action::Done { ticket, result });
        }
    }

    /// A snapshot of a leader has taken the place of this node's state.
    pub fn give_up_saving(&mut self) {
        self.snapshots.saving = None;
        self.snapshots.pump = None;
        self.snapshots.head = None;
        self.finish_tickets(Err(Error::Lost));
    }

    /// Drops what of the log is not needed any more, as soon as nobody needs it.
    pub fn compact(&mut self) {
        if !self.raft.is_sending_snapshot() {
            self.open = None;
        }
        let oldest = self.storage.oldest_snapshot();
        let before = self.raft.log().base();
        if oldest <= before.index {
            return;
        }
        let known = self.snapshots.begun.iter().find(|(at, ..)| *at == oldest);
        let anyway = known.is_some_and(|(_, weight, count)| {
            let most = self.settings.compaction;
            self.snapshots.weight - weight > most.bytes.saturating_mul(PATIENCE)
                || self.snapshots.count - count > most.entries.saturating_mul(PATIENCE)
        });
        let base = self.raft.compact(oldest, anyway);
        if base == before {
            return;
        }
        if let Err(error) = self.storage.trim(base) {
            self.log(2, format!("the log before {} stays: {error}", base.index));
        }
    }

    // ---- snapshots in the log -------------------------------------------

    fn begin_in_log(&mut self, entry: &Entry) {
        if self.may_keep_snapshots().is_err() {
            return;
        }
        self.snapshots.pump = None;
        let draft = self.draft();
        match head_of(&self.cluster) {
            Ok(head) => self.snapshots.head = Some((draft, head)),
            Err(error) => {
                self.snapshots.head = None;
                self.snapshots.begin(entry.index);
                return self.snapshot_failed(entry.index, &error.into());
            }
        }
        let mine = self.raft.is_leader() && self.raft.term() == entry.term;
        if !mine {
            self.snapshots.begin(entry.index);
        } else if self.snapshots.saving.is_some() {
            let error = Error::Conflict("the host still writes an earlier one".to_owned());
            self.snapshot_failed(entry.index, &error);
        } else if let Err(error) = self.begin_save(true) {
            self.snapshot_failed(entry.index, &error);
        }
    }

    /// Whether the log is waiting for the host's part of the snapshot at this index.
    fn is_awaited(&self, at: Index) -> bool {
        let head = self.snapshots.head.as_ref();
        head.is_some_and(|(draft, _)| draft.last.index == at)
    }

    fn begin_pump(&mut self, at: Index, image: Box<Aside>) {
        self.snapshots.pump = Some(Pump {
            at,
            term: self.raft.term(),
            image,
            offset: 0,
            newest: 0,
        });
        self.pump_pieces();
    }

    /// Puts pieces of the image into the log, as many as may be on their way.
    pub fn pump_pieces(&mut self) {
        while let Some(mut pump) = self.snapshots.pump.take() {
            let ended = pump.offset == pump.image.size && pump.newest > 0;
            let current = self.raft.is_leader() && self.raft.term() == pump.term;
            if !current {
                // The next leader begins anew.
                self.finish_tickets(Err(Error::Lost));
                return;
            }
            let full = pump.newest > self.cluster.applied() + PIECES_IN_FLIGHT;
            let sent = !ended && !full && self.send_piece(&mut pump);
            let failed = pump.offset > pump.image.size;
            if !failed {
                self.snapshots.pump = Some(pump);
            }
            if !sent {
                return;
            }
        }
    }

    /// False if it is to be tried again later. An image that cannot be read is given up.
    fn send_piece(&mut self, pump: &mut Pump) -> bool {
        let left = pump.image.size - pump.offset;
        let most = MAX_LOG_PIECE.min(self.settings.message_entries() - PIECE_REST);
        let Ok(mut data) = zeros(left.min(most as u64) as usize) else {
            return false;
        };
        if let Err(error) = read_all(&mut pump.image, pump.offset, &mut data) {
            self.snapshot_failed(pump.at, &error.into());
            pump.offset = u64::MAX;
            return false;
        }
        let end = pump.offset + data.len() as u64;
        let piece = Command::Piece {
            at: pump.at,
            offset: pump.offset,
            data,
            whole: (end == pump.image.size).then_some(pump.image.crc),
        };
        match self.propose_command(&piece) {
            Ok((_, index)) => {
                pump.offset = end;
                pump.newest = index;
                true
            }
            Err(_) => false,
        }
    }

    fn finish_in_log(&mut self, pieces: Pieces) {
        let head = self.snapshots.head.take();
        let Some((mut draft, head)) = head.filter(|(draft, _)| draft.last.index == pieces.at)
        else {
            return;
        };
        if self
            .snapshots
            .pump
            .as_ref()
            .is_some_and(|p| p.at == pieces.at)
        {
            self.snapshots.pump = None;
        }
        draft.pieces = Some((pieces.first, pieces.last));
        self.write_head(draft, head);
    }

    /// A snapshot of which nothing else is in an image.
    fn write_head(&mut self, draft: Draft, image: Vec<u8>) {
        self.begin_task(Task::Write { draft, image });
    }

    /// It is written, or cannot be.
    pub fn written(&mut self, draft: &Draft, result: Result<Snapshot, StorageError>) {
        let index = draft.last.index;
        if draft.pieces.is_none() {
            let result = result.map(Saved::Kept).map_err(Error::from);
            self.shared.tell(Input::Saved(index, result));
            return;
        }
        match result {
            Ok(snapshot) => self.keep(snapshot),
            Err(error) => self.snapshot_failed(index, &error.into()),
        }
    }

    // ---- divergence ------------------------------------------------------

    /// What a leader is told to compare.
    pub fn newest_digest(&self) -> Option<(Index, u32)> {
        self.snapshots.digests.back().copied()
    }

    /// A peer's snapshot of the same entries must be the same as this node's.
    pub fn compare_digest(&mut self, id: NodeId, index: Index, crc: u32) {
        let own = self.snapshots.digests.iter().find(|(at, _)| *at == index);
        let differs = own.is_some_and(|(_, own)| *own != crc);
        if !differs || self.snapshots.told_diverged.get(&id) == Some(&index) {
            return;
        }
        self.snapshots.told_diverged.insert(id, index);
        self.log(
            1,
            format!("the state of {id} at log index {index} is not that of this node"),
        );
        self.event(Event::Diverged { id, index });
    }
}

fn read_all(image: &mut Aside, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        match image.reader.read_at(at, &mut buf[done..])? {
            0 => {
                return Err(StorageError::Io {
                    op: "read",
                    path: Default::default(),
                    error: std::io::ErrorKind::UnexpectedEof.into(),
                });
            }
            n => done += n,
        }
    }
    Ok(())
}
