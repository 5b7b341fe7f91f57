//! What the core asks storage and host for; above all snapshots of others: their pieces, and how
//! one takes the place of this node's state (raft.md rules 34 to 38). And loading this node's own
//! when it starts.

use crate::cluster::{Piece, State, Status};
use crate::core::{Ask, Bytes, Entry, Epoch, Index, NodeId, Payload, Snapshot};
use crate::storage::{Done, Draft, LogPiece, SnapshotReader, StorageError, Task};

use super::action::Action;
use super::engine::Engine;
use super::image::{Load, read_head};
use super::{Error, Event, HostState};

/// Why nothing is applied.
#[derive(Debug)]
pub(super) enum Loading {
    /// The host's part lies in the log, and not all of it is committed here yet.
    Pieces(Snapshot),
    /// The host loads its state at this index, for it has begun anew.
    Host(Index),
    /// The host loads a leader's snapshot, which will be this node's then. If it cannot, it waits for
    /// the pieces of its own again that it had not loaded.
    Installing(Snapshot, Box<State>, Option<Snapshot>),
    /// It is made durable as this node's.
    Adopting(Box<State>),
    /// There was no memory to do so.
    AdoptingLater(Snapshot, Box<State>),
    /// There was no memory to hand the host its state from this snapshot.
    Own(Snapshot),
}

/// A snapshot that is being read for peers.
pub(super) type Open = Option<(Snapshot, Box<dyn SnapshotReader>)>;

impl Engine {
    /// Answers the core; true if there was anything.
    pub fn answer_asks(&mut self) -> bool {
        let asks = self.raft.take_asks();
        let any = !asks.is_empty();
        for ask in asks {
            match ask {
                Ask::Entries {
                    to,
                    first,
                    last,
                    bytes,
                } if !self.is_compacted(first) => self.begin_task(Task::Entries {
                    to,
                    first,
                    last,
                    bytes,
                }),
                Ask::Entries { to, first, .. } => {
                    self.raft.fetched(self.now, to, first, Err(()));
                }
                Ask::Piece {
                    to,
                    snapshot,
                    offset,
                    len,
                } => {
                    let open = self.open.take_if(|(open, _)| *open == snapshot);
                    self.begin_task(Task::Piece {
                        to,
                        snapshot,
                        offset,
                        len,
                        reader: open.map(|(_, reader)| reader),
                    });
                }
                Ask::Store {
                    snapshot,
                    offset,
                    data,
                } => {
                    self.metrics.snapshot_bytes_in += data.len() as u64;
                    self.begin_task(Task::Store {
                        snapshot,
                        offset,
                        data,
                    });
                }
                Ask::Install { snapshot } => match self.may_install() {
                    Ok(()) => self.begin_task(Task::Open { snapshot }),
                    Err(error) => self.not_installed(&snapshot, &error),
                },
            }
        }
        any
    }

    /// Whether what was asked for has been compacted since: storage was told that nobody needs it.
    fn is_compacted(&self, index: Index) -> bool {
        index <= self.raft.log().base().index
    }

    pub fn begin_task(&mut self, task: Task) {
        if let Some(done) = self.storage.begin(task) {
            self.finished(done);
        }
    }

    /// Takes in what a thread of the storage's has done.
    pub fn take_finished(&mut self) {
        while let Some(done) = self.storage.finished() {
            self.finished(done);
        }
    }

    fn finished(&mut self, done: Done) {
        match done {
            Done::Entries { to, first, result } => {
                let entries = result.map_err(|error| self.cannot_read(first, &error));
                self.raft.fetched(self.now, to, first, entries);
            }
            Done::Piece {
                to,
                snapshot,
                offset,
                result,
                reader,
            } => {
                if let Some(reader) = reader {
                    self.open = Some((snapshot.clone(), reader));
                }
                let data = self.piece_read(&snapshot, result);
                self.raft.piece_read(self.now, to, &snapshot, offset, data);
            }
            Done::Store {
                snapshot,
                end,
                result,
            } => self.stored(&snapshot, end, result),
            Done::Open { snapshot, result } => {
                if let Err(error) = self.begin_install(&snapshot, result) {
                    self.not_installed(&snapshot, &error);
                }
            }
            Done::Adopt { snapshot, result } => self.adopted(&snapshot, result),
            Done::Write { draft, result } => self.written(&draft, result),
            Done::Gather { draft, result } => self.gathered(&draft, result),
        }
    }

    /// What is damaged stays so, and is said once; anything else may pass.
    pub(super) fn cannot_read(&mut self, index: Index, error: &StorageError) {
        if self.is_compacted(index) {
            return;
        }
        let damaged = matches!(
            error,
            StorageError::Corrupt { .. }
                | StorageError::Record { .. }
                | StorageError::Version { .. }
        );
        if !damaged {
            self.log(2, format!("log entry {index}: {error}"));
        } else if self.raft.configuration().is_only_voter(self.settings.id) {
            // It could neither hand over nor be sent anything.
            let text =
                format!("log entry {index} cannot be read, and no other voter has it: {error}");
            self.stop(Error::Corrupt(text));
        } else if self.raft.set_unreadable() {
            let leads = match self.raft.is_leader() {
                true => "hands leadership over",
                false => "applies nothing from there on, and does not lead",
            };
            self.log(
                1,
                format!(
                    "log entry {index} cannot be read, so this node {leads}; start it again, and the \
                     others will send what it has lost: {error}"
                ),
            );
        }
    }

    fn piece_read(
        &mut self,
        snapshot: &Snapshot,
        result: Result<Bytes, StorageError>,
    ) -> Result<Bytes, ()> {
        if let Ok(data) = &result {
            self.metrics.snapshot_bytes_out += data.len() as u64;
        }
        result.map_err(|error| self.log(2, format!("snapshot {}: {error}", snapshot.last.index)))
    }

    fn stored(&mut self, snapshot: &Snapshot, end: u64, result: Result<(), StorageError>) {
        if let Err(error) = &result {
            self.install_failed(snapshot, &error.to_string());
        }
        self.raft
            .piece_stored(self.now, snapshot, end, result.is_ok());
    }

    fn install_failed(&mut self, snapshot: &Snapshot, why: &str) {
        let (index, why) = (snapshot.last.index, why.to_owned());
        self.log(2, format!("the leader's snapshot {index}: {why}"));
        self.event(Event::SnapshotFailed { index, why });
    }

    fn not_installed(&mut self, snapshot: &Snapshot, why: &Error) {
        self.install_failed(snapshot, &why.to_string());
        self.raft.installed(self.now, snapshot, false);
    }

    fn may_install(&self) -> Result<(), Error> {
        self.may_keep_snapshots()?;
        let loading = &self.snapshots.loading;
        if matches!(loading, Some(Loading::Host(_) | Loading::Own(_))) {
            // Its own, from the start; it can be asked for the other one later.
            return Err(Error::Conflict("the host loads another one".to_owned()));
        }
        Ok(())
    }

    /// A leader's snapshot is here as a whole.
    fn begin_install(
        &mut self,
        snapshot: &Snapshot,
        opened: Result<Box<dyn SnapshotReader>, StorageError>,
    ) -> Result<(), Error> {
        self.may_install()?;
        let mut reader = opened?;
        let (state, body) = read_head(&mut *reader, snapshot)?;
        let hosts = snapshot.pieces.is_none() && self.settings.host_state == HostState::Saved;
        if !hosts {
            self.adopt(snapshot, state);
            return Ok(());
        }
        let index = snapshot.last.index;
        let load = Load::new(index, reader, body, self.shared.clone());
        let unloaded = match self.snapshots.loading.take() {
            Some(Loading::Pieces(own)) => Some(own),
            _ => None,
        };
        let (snapshot, state) = (snapshot.clone(), Box::new(state));
        self.snapshots.loading = Some(Loading::Installing(snapshot, state, unloaded));
        self.actions.push(Action::Load { load, index });
        Ok(())
    }

    /// The host has loaded what it was to load, or could not.
    pub fn loaded(&mut self, index: Index, ok: bool) {
        match self.snapshots.loading.take() {
            Some(Loading::Host(at)) if at == index => self.loaded_own(index, ok),
            Some(Loading::Installing(snapshot, state, own)) if snapshot.last.index == index => {
                if ok {
                    self.adopt(&snapshot, *state);
                } else {
                    self.snapshots.loading = own.map(Loading::Pieces);
                    self.install_failed(&snapshot, "the host could not load it");
                    self.raft.installed(self.now, &snapshot, false);
                }
            }
            other => self.snapshots.loading = other,
        }
    }

    fn loaded_own(&mut self, index: Index, ok: bool) {
        if ok {
            self.tell_state(index);
        } else {
            let text = format!("the host could not load snapshot {index} of its state");
            self.stop(Error::State(text));
        }
    }

    /// The leader's snapshot will be this node's.
    fn adopt(&mut self, snapshot: &Snapshot, state: State) {
        self.snapshots.loading = Some(Loading::Adopting(Box::new(state)));
        self.begin_task(Task::Adopt {
            snapshot: snapshot.clone(),
        });
    }

    /// The leader's snapshot is this node's from now on.
    fn adopted(&mut self, snapshot: &Snapshot, result: Result<(), StorageError>) {
        let Some(Loading::Adopting(state)) = self.snapshots.loading.take() else {
            panic!("no snapshot was to be adopted");
        };
        match result {
            Ok(()) => {}
            Err(StorageError::NoMemory) => {
                return self.load_later(Loading::AdoptingLater(snapshot.clone(), state));
            }
            Err(error) => return self.stop(error.into()),
        }
        let index = snapshot.last.index;
        self.give_up_saving();
        self.raft.installed(self.now, snapshot, true);
        self.cluster = *state;
        self.note_snapshot(snapshot);
        self.replayed_to = self.replayed_to.max(index);
        self.metrics.snapshots_installed += 1;
        self.event(Event::SnapshotInstalled {
            index,
            bytes: snapshot.size,
        });
        self.fail_skipped(index);
        self.take_in_state();
        match snapshot.pieces {
            Some(_) if self.settings.host_state == HostState::Saved => {
                self.snapshots.loading = Some(Loading::Pieces(snapshot.clone()));
            }
            _ => self.tell_state(index),
        }
    }

    /// What the state says about this node, and about whose storage is whose.
    fn take_in_state(&mut self) {
        let me = self.settings.id;
        if let Some(exclusion) = self.cluster.is_excluded(me) {
            self.raft.note_exclusion(exclusion);
        }
        let ids: Vec<NodeId> = self.cluster.members().map(|m| m.id).collect();
        for id in ids {
            if self.cluster.instance(id).is_some() {
                self.registered(id);
            }
        }
        self.leave();
    }

    /// Tells the host what holds, which it would have been told entry by entry.
    fn tell_state(&mut self, index: Index) {
        self.changed_at = index;
        let mut exclusions: Vec<(Epoch, Index, NodeId)> = Vec::new();
        for member in self.cluster.excluded() {
            if let Status::Excluded { epoch, index } = member.status {
                exclusions.push((epoch, index, member.id));
            }
        }
        exclusions.sort_unstable();
        for group in exclusions.chunk_by(|a, b| a.0 == b.0) {
            let (epoch, index, _) = group[0];
            let ids = group.iter().map(|(_, _, id)| *id).collect();
            self.actions.push(Action::Excluded { epoch, ids, index });
        }
        let epoch = self.cluster.epoch();
        self.actions.push(Action::Members { epoch, index });
        self.actions
            .push(Action::Params(self.cluster.params().clone()));
    }

    // ---- this node's own, at a start --------------------------------------

    /// The host begins anew: it needs the state that the log goes on from.
    pub fn load_own(&mut self) {
        let Some(snapshot) = self.raft.snapshot().cloned() else {
            return;
        };
        let index = snapshot.last.index;
        self.take_in_state();
        match self.settings.host_state {
            HostState::None => self.tell_state(index),
            HostState::Unsaved => {
                let text = "there is a snapshot, and the host cannot load it: set `load`";
                self.stop(Error::State(text.to_owned()));
            }
            HostState::Saved if snapshot.pieces.is_some() => {
                self.snapshots.loading = Some(Loading::Pieces(snapshot));
            }
            HostState::Saved => self.begin_own(snapshot),
        }
    }

    fn begin_own(&mut self, snapshot: Snapshot) {
        match self.try_begin_own(&snapshot) {
            Ok(()) => {}
            Err(Error::NoMemory(_)) => self.load_later(Loading::Own(snapshot)),
            Err(error) => self.stop(error),
        }
    }

    fn try_begin_own(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let mut reader = self.storage.read_snapshot(snapshot)?;
        let (_, body) = read_head(&mut *reader, snapshot)?;
        self.begin_load(snapshot.last.index, reader, body);
        Ok(())
    }

    fn begin_load(&mut self, index: Index, reader: Box<dyn SnapshotReader>, at: u64) {
        let load = Load::new(index, reader, at, self.shared.clone());
        self.snapshots.loading = Some(Loading::Host(index));
        self.actions.push(Action::Load { load, index });
    }

    /// It goes on when it is tried again; until then nothing is applied.
    fn load_later(&mut self, loading: Loading) {
        self.log(
            2,
            "no memory to load a snapshot: it is tried again".to_owned(),
        );
        self.snapshots.gather_at = self.now + self.settings.heartbeat;
        self.snapshots.loading = Some(loading);
    }

    /// Goes on with what was put off.
    pub fn go_on_loading(&mut self) {
        if self.now < self.snapshots.gather_at {
            return;
        }
        match self.snapshots.loading.take() {
            Some(Loading::Own(snapshot)) => self.begin_own(snapshot),
            Some(Loading::AdoptingLater(snapshot, state)) => self.adopt(&snapshot, *state),
            Some(Loading::Pieces(snapshot)) => {
                self.snapshots.loading = Some(Loading::Pieces(snapshot.clone()));
                if !self.snapshots.gathering {
                    self.gather_pieces(&snapshot);
                }
            }
            other => self.snapshots.loading = other,
        }
    }

    /// Has the host load a part that lies in the log, once all of it is there.
    fn gather_pieces(&mut self, snapshot: &Snapshot) {
        let Some((first, last)) = snapshot.pieces else {
            panic!("this snapshot has no pieces");
        };
        let there = self.raft.commit().min(self.raft.log().durable());
        if there < last {
            return;
        }
        let draft = Draft {
            last: snapshot.last,
            config: snapshot.config.clone(),
            config_index: snapshot.config_index,
            pieces: None,
        };
        self.snapshots.gathering = true;
        self.begin_task(Task::Gather {
            draft,
            first,
            last,
            piece_of,
        });
    }

    fn gathered(
        &mut self,
        draft: &Draft,
        result: Result<Result<Box<dyn SnapshotReader>, String>, StorageError>,
    ) {
        self.snapshots.gathering = false;
        let index = draft.last.index;
        let waits = |loading: &Loading| match loading {
            Loading::Pieces(snapshot) => snapshot.last == draft.last,
            _ => false,
        };
        if !self.snapshots.loading.as_ref().is_some_and(waits) {
            // A leader's snapshot has come meanwhile.
            return;
        }
        let result = result.map_err(Error::from);
        match result.and_then(|made| made.map_err(Error::Corrupt)) {
            Ok(reader) => self.begin_load(index, reader, 0),
            // What cannot be read now may be later, as everywhere else.
            Err(Error::Io(text) | Error::NoMemory(text)) => {
                self.snapshots.gather_at = self.now + self.settings.heartbeat;
                self.log(2, format!("snapshot {index}: {text}"));
            }
            Err(error) => self.stop(error),
        }
    }
}

/// See [`PieceOf`](crate::storage::PieceOf).
fn piece_of(entry: &Entry, of: Index) -> Result<Option<LogPiece<'_>>, String> {
    let Payload::Cluster(bytes) = &entry.payload else {
        return Ok(None);
    };
    let piece = Piece::decode(bytes).map_err(|e| format!("log entry {}: {e}", entry.index))?;
    let piece = piece.filter(|piece| piece.at == of);
    Ok(piece.map(|piece| (piece.offset, piece.data, piece.whole)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::full::tests::alone;
    use crate::engine::image::tests::snapshot;

    #[test]
    fn who_could_not_load_a_leaders_snapshot_still_waits_for_its_own() {
        let (mut engine, _) = alone();
        engine.settings.host_state = HostState::Saved;
        let (leaders, image) = snapshot(&[1, 2, 3]);
        let own = Snapshot {
            pieces: Some((2, 3)),
            ..leaders.clone()
        };
        engine.snapshots.loading = Some(Loading::Pieces(own.clone()));
        engine.begin_install(&leaders, Ok(Box::new(image))).unwrap();
        engine.loaded(1, false);
        match &engine.snapshots.loading {
            Some(Loading::Pieces(waits)) => assert_eq!(*waits, own),
            _ => panic!("entries are applied to no state"),
        }
    }

    #[test]
    fn an_only_voter_that_cannot_read_its_log_stops() {
        let (mut engine, _) = alone();
        let error = |engine: &mut Engine| {
            let what = "wrong checksum of a group";
            engine.cannot_read(1, &StorageError::Record { index: 1, what });
            engine.stopped.clone()
        };
        assert!(matches!(error(&mut engine), Some(Error::Corrupt(_))));
    }
}
