//! A node's life as its disk sees it: terms, votes, entries, conflicts, snapshots made and
//! received, trimming, restarts.

use std::sync::Arc;

use super::super::Directory;
use super::super::image::DATA;
use super::super::write::run_length;
use super::model::{Model, Progress, image_of, open, open_crowded, raise_term, settle};
use super::sim::Sim;
use super::{INSTANCE, Rng, identity};
use crate::core::{
    Bytes, Configuration, Entry, Exclusion, HardState, NodeId, Payload, Persist, Position,
    Snapshot, Token,
};
use crate::storage::{Draft, SnapshotWriter, Storage, StorageError};

/// What a life consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mix {
    /// Hard state and entries only.
    Log,
    /// Everything.
    All,
}

/// What a workload left behind.
pub(super) struct Outcome {
    /// One for each mark that the disk was given.
    pub(super) progress: Vec<Progress>,
    /// Why it ended early.
    pub(super) error: Option<StorageError>,
    /// What the directory was told.
    pub(super) live: Model,
    /// How often each kind of thing was done to its end.
    pub(super) done: Done,
}

/// See [`Outcome::done`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub(super) saved: u32,
    pub(super) pieces: u32,
    /// Pieces that were added to a block.
    pub(super) grown: u32,
    pub(super) adopted: u32,
    pub(super) resets: u32,
    pub(super) trims: u32,
    /// Groups of several persists.
    pub(super) merged: u32,
}

impl Done {
    pub(super) fn add(&mut self, other: &Done) {
        self.saved += other.saved;
        self.pieces += other.pieces;
        self.grown += other.grown;
        self.adopted += other.adopted;
        self.resets += other.resets;
        self.trims += other.trims;
        self.merged += other.merged;
    }

    /// How often the rarest of them was.
    pub(super) fn least(&self) -> u32 {
        let Done {
            saved,
            pieces,
            grown,
            adopted,
            resets,
            trims,
            merged,
        } = *self;
        let all = [saved, pieces, grown, adopted, resets, trims, merged];
        all.into_iter().min().unwrap_or(0)
    }
}

impl Outcome {
    pub(super) fn last(&self) -> &Progress {
        self.progress.last().unwrap()
    }
}

/// An image of the node's own that is being written.
struct Writing {
    writer: Box<dyn SnapshotWriter>,
    snapshot: Snapshot,
    image: Vec<u8>,
    written: usize,
}

struct Run<'a> {
    sim: &'a Sim,
    rng: Rng,
    mix: Mix,
    /// Go on after an error, as far as the directory allows.
    persevere: bool,
    /// There is no room on the disk when it is opened.
    crowded: bool,
    now: Progress,
    progress: Vec<Progress>,
    /// What the running directory was told.
    live: Model,
    writing: Option<Writing>,
    /// The log must go on behind this next.
    reset: Option<Snapshot>,
    /// Nothing up to here is replaced: it is committed.
    floor: u64,
    token: u64,
    done: Done,
}

/// Creates a directory, opens it, and does something `steps` times, with restarts in between.
pub(super) fn run(sim: &Sim, seed: u64, steps: u64, mix: Mix) -> Outcome {
    run_on(sim, seed, steps, mix, (false, false))
}

/// As [`run`], but what fails is given up and something else is done.
pub(super) fn persevere(sim: &Sim, seed: u64, steps: u64, mix: Mix) -> Outcome {
    run_on(sim, seed, steps, mix, (true, false))
}

/// As [`run`], but the disk is full at every opening.
pub(super) fn crowded(sim: &Sim, seed: u64, steps: u64, mix: Mix) -> Outcome {
    run_on(sim, seed, steps, mix, (false, true))
}

fn run_on(
    sim: &Sim,
    seed: u64,
    steps: u64,
    mix: Mix,
    (persevere, crowded): (bool, bool),
) -> Outcome {
    let mut run = Run {
        sim,
        rng: Rng(seed),
        mix,
        persevere,
        crowded,
        now: Progress::default(),
        progress: Vec::new(),
        live: Model::default(),
        writing: None,
        reset: None,
        floor: 0,
        token: 0,
        done: Done::default(),
    };
    run.now.states = vec![Model::default()];
    run.note();
    let error = run.all(steps).err();
    run.writing = None;
    Outcome {
        progress: run.progress,
        error,
        live: run.live,
        done: run.done,
    }
}

impl Run<'_> {
    fn note(&mut self) {
        self.sim.mark(self.progress.len());
        self.progress.push(self.now.clone());
    }

    /// From now on each state may also be found as these say.
    fn may_become(&mut self, changes: &[&dyn Fn(&mut Model)]) {
        let mut states = self.now.states.clone();
        for change in changes {
            states.extend(self.now.states.iter().cloned().map(|mut state| {
                change(&mut state);
                state
            }));
        }
        self.now.states = states;
        self.note();
    }

    /// From now on nothing else is found than what each state becomes by this.
    fn became(&mut self, before: Vec<Model>, change: &dyn Fn(&mut Model)) {
        change(&mut self.live);
        self.now.states = before;
        self.now.states.iter_mut().for_each(change);
        self.note();
    }

    fn all(&mut self, steps: u64) -> Result<(), StorageError> {
        Directory::create_on(&mut self.sim.clone(), &identity(), INSTANCE)?;
        self.now.created = true;
        self.note();
        let mut directory = self.open()?;
        for step in 1..=steps {
            if step % 9 == 0 {
                self.writing = None;
                drop(directory);
                directory = self.open()?;
            }
            let done = self.step(&mut directory);
            if self.persevere && directory.refuse_if_failed().is_ok() {
                continue;
            }
            done?;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Directory, StorageError> {
        let opened = match self.crowded {
            true => open_crowded(self.sim),
            false => open(self.sim),
        };
        let opened = match opened {
            Err(StorageError::Io { .. }) if self.persevere => open(self.sim),
            opened => opened,
        };
        let (directory, opened) = opened?;
        let found = &opened.restored;
        let Some(model) = settle(&self.now.states, &directory, found) else {
            panic!("found {found:?}, expected one of {:?}", self.now.states);
        };
        let clean = (opened.torn_bytes, opened.meta_repaired) == (0, false);
        assert!(clean || self.persevere, "an opening may have failed before");
        assert!(opened.incarnation > self.now.incarnation);
        self.now.incarnation = opened.incarnation;
        self.now.states = vec![model.clone()];
        self.live = model;
        self.reset = None;
        self.note();
        Ok(directory)
    }

    fn step(&mut self, directory: &mut Directory) -> Result<(), StorageError> {
        let what = match (self.mix, self.reset.is_some()) {
            (Mix::All, false) => self.rng.below(16),
            _ => 0,
        };
        match what {
            8..=10 => self.write_image(directory),
            11 | 12 => self.receive(directory),
            13 => self.adopt(directory),
            14 | 15 => self.trim(directory),
            _ => self.write(directory),
        }
    }

    // ---- the log ---------------------------------------------------------

    fn write(&mut self, directory: &mut Directory) -> Result<(), StorageError> {
        let run = self.run();
        let before = self.now.states.clone();
        let hard = Persist {
            reset: None,
            entries: Vec::new(),
            ..run[0].clone()
        };
        let all = |m: &mut Model| run.iter().for_each(|persist| m.apply(persist));
        self.may_become(&[&|m| m.apply(&hard), &all]);
        let written = write_run(directory, &run);
        if let Err(StorageError::Full { .. }) = written {
            // Only what needs no new space was done; the rest will be tried again.
            self.became(before, &|m| m.apply(&hard));
            return Ok(());
        }
        if written.is_err() {
            self.expect_silence(directory);
        }
        written?;
        if run[0].reset.is_some() {
            self.reset = None;
            self.done.resets += 1;
        }
        self.done.merged += u32::from(run.len() > 1);
        self.became(before, &all);
        Ok(())
    }

    /// A persist, and sometimes others that are submitted before it is written.
    fn run(&mut self) -> Vec<Persist> {
        let mut run = vec![self.persist()];
        let mut after = self.live.clone();
        after.apply(&run[0]);
        if after.hard.term == 0 {
            return run;
        }
        for _ in 0..self.rng.below(8).saturating_sub(4) {
            self.token += 1;
            let count = self.rng.below(4);
            let persist = Persist {
                token: Token(self.token),
                hard: None,
                reset: None,
                entries: self.entries(after.last().index + 1, count, after.hard.term),
            };
            after.apply(&persist);
            run.push(persist);
        }
        run
    }

    /// After a failure nothing is written and nothing succeeds.
    fn expect_silence(&mut self, directory: &mut Directory) {
        let before = self.sim.operations();
        let persist = self.persist();
        directory.submit(persist.clone());
        let completion = directory.poll().unwrap();
        assert_eq!(completion.token, persist.token);
        assert!(completion.result.is_err());
        let last = Position { index: 1, term: 1 };
        let snapshot = snapshot(last, 0);
        assert!(directory.adopt(&snapshot).is_err());
        assert!(directory.store_piece(&snapshot, 0, &[]).is_err());
        assert!(directory.trim(last).is_err());
        assert!(directory.write_snapshot(draft(last)).is_err());
        assert_eq!(self.sim.operations(), before, "something was tried again");
    }

    fn persist(&mut self) -> Persist {
        self.token += 1;
        let token = Token(self.token);
        if let Some(snapshot) = self.reset.clone() {
            let mut hard = self.hard();
            hard.commit = snapshot.last.index;
            let count = self.rng.below(3);
            return Persist {
                token,
                hard: Some(hard),
                entries: self.entries(snapshot.last.index + 1, count, hard.term),
                reset: Some(snapshot),
            };
        }
        let what = self.rng.below(4);
        let hard = (what != 0).then(|| self.hard());
        let term = hard.unwrap_or(self.live.hard).term;
        let last = self.live.last().index;
        let floor = self.floor.max(self.live.start.index);
        let back = match self.rng.below(3) {
            0 => self.rng.below(6).min(last.saturating_sub(floor)),
            _ => 0,
        };
        let count = match what == 3 || term == 0 {
            true => 0,
            false => 1 + self.rng.below(4),
        };
        Persist {
            token,
            hard,
            reset: None,
            entries: self.entries(last + 1 - back, count, term),
        }
    }

    fn hard(&mut self) -> HardState {
        let old = self.live.hard;
        let epoch = self.rng.below(9);
        match self.rng.below(4) {
            0 => old,
            1 => HardState {
                vote: old.vote.or(NodeId::new(1 + self.rng.below(3))),
                ..old
            },
            2 => HardState {
                term: old.term + 1,
                vote: NodeId::new(self.rng.below(3)),
                ..old
            },
            _ => HardState {
                excluded: match old.excluded {
                    Some(_) => None,
                    None => Some(Exclusion { epoch, index: 3 }),
                },
                ..old
            },
        }
    }

    fn entries(&mut self, first: u64, count: u64, term: u64) -> Vec<Entry> {
        (first..first + count)
            .map(|index| Entry {
                index,
                term,
                payload: self.payload(),
            })
            .collect()
    }

    fn payload(&mut self) -> Payload {
        match self.rng.below(6) {
            0 => Payload::Noop,
            1 => Payload::Cluster(Bytes::from(vec![7; 40])),
            2 => {
                let epoch = 1 + self.rng.below(100);
                Payload::Config(Arc::new(configuration(epoch)), Bytes::from(&b"c"[..]))
            }
            // Zeros, so that sectors would be zero if they were stored as they are.
            3 => Payload::Host(Bytes::from(vec![0; self.rng.below(3000) as usize])),
            4 => Payload::Host(Bytes::from(vec![1; self.rng.below(300) as usize])),
            _ => {
                let len = self.rng.below(900);
                let bytes: Vec<u8> = (0..len).map(|_| self.rng.next() as u8).collect();
                Payload::Host(Bytes::from(bytes))
            }
        }
    }

    fn trim(&mut self, directory: &mut Directory) -> Result<(), StorageError> {
        let oldest = directory.oldest_snapshot();
        let index = oldest - self.rng.below(3).min(oldest);
        let term = self.live.term(index).unwrap_or(0);
        let raise = |m: &mut Model| m.trimmed = m.trimmed.max(index);
        self.now.states.iter_mut().for_each(raise);
        raise(&mut self.live);
        self.note();
        let segments = directory.log().meta.first_seq;
        let trimmed = directory.trim(Position { index, term });
        self.done.trims += u32::from(directory.log().meta.first_seq > segments);
        trimmed
    }

    // ---- images ----------------------------------------------------------

    fn size(&mut self) -> u64 {
        match self.rng.below(6) {
            0 => 0,
            1 => 60_000 + self.rng.below(90_000),
            _ => 1 + self.rng.below(3000),
        }
    }

    /// Begins an image of what the log holds, or writes on, or finishes.
    fn write_image(&mut self, directory: &mut Directory) -> Result<(), StorageError> {
        let Some(mut writing) = self.writing.take() else {
            return self.begin_image(directory);
        };
        let rest = &writing.image[writing.written..];
        if rest.len() > 50_000 {
            writing.writer.write(&rest[..50_000])?;
            writing.written += 50_000;
            self.writing = Some(writing);
            return Ok(());
        }
        writing.writer.write(rest)?;
        let before = self.now.states.clone();
        let snapshot = writing.snapshot;
        let newest = self.live.newest().map_or(0, |s| s.last.index);
        let keep = |m: &mut Model| {
            if snapshot.last.index > newest {
                m.keep(&snapshot);
            }
        };
        self.may_become(&[&keep]);
        assert_eq!(writing.writer.finish()?, snapshot);
        self.done.saved += 1;
        self.became(before, &keep);
        Ok(())
    }

    fn begin_image(&mut self, directory: &mut Directory) -> Result<(), StorageError> {
        let end = self.live.last().index;
        let newest = self.live.newest().map_or(0, |s| s.last.index);
        let least = self.floor.max(newest).max(self.live.start.index);
        if least >= end {
            return Ok(());
        }
        let index = least + 1 + self.rng.below(end - least);
        let term = self.live.term(index).unwrap();
        let last = Position { index, term };
        let size = self.size();
        self.floor = index;
        self.writing = Some(Writing {
            writer: directory.write_snapshot(draft(last))?,
            snapshot: snapshot(last, size),
            image: image_of(last, size),
            written: 0,
        });
        match self.rng.below(2) {
            0 => self.write_image(directory),
            _ => Ok(()),
        }
    }

    /// Receives the first piece of an image, or the next one.
    fn receive(&mut self, directory: &mut Directory) -> Result<(), StorageError> {
        let (snapshot, stored) = match self.live.partial.clone() {
            Some((snapshot, stored, _)) if stored < snapshot.size && self.rng.below(16) != 0 => {
                (snapshot, stored)
            }
            _ => (self.offer(), 0),
        };
        let image = image_of(snapshot.last, snapshot.size);
        let most = match self.rng.below(2) {
            0 => 1 + self.rng.below(100_000),
            _ => 1 + self.rng.below(snapshot.size / 2 + 1),
        };
        let end = snapshot.size.min(stored + most);
        let before = self.now.states.clone();
        let some = Some((snapshot.clone(), stored, end));
        self.may_become(&[&|m| m.partial = some.clone()]);
        self.live.partial = None;
        directory.store_piece(&snapshot, stored, &image[stored as usize..end as usize])?;
        self.done.pieces += 1;
        self.done.grown += u32::from(!stored.is_multiple_of(DATA as u64));
        let all = Some((snapshot, end, end));
        self.became(before, &|m| m.partial = all.clone());
        match self.rng.below(2) {
            0 => self.adopt(directory),
            _ => Ok(()),
        }
    }

    /// A snapshot that a leader may send: of what this log holds, or lacks, or contradicts.
    fn offer(&mut self) -> Snapshot {
        let newest = self.live.newest().map_or(0, |s| s.last.index);
        let least = self.floor.max(newest).max(self.live.start.index) + 1;
        let end = self.live.last().index;
        let index = match self.rng.below(2) {
            0 if least <= end => least + self.rng.below(end - least + 1),
            _ => least.max(end) + self.rng.below(9),
        };
        let known = self.live.term(index);
        let term = match known.filter(|_| self.rng.below(3) != 0) {
            Some(term) => term,
            None => self.live.hard.term.max(1) + self.rng.below(2),
        };
        let size = self.size();
        snapshot(Position { index, term }, size)
    }

    fn adopt(&mut self, directory: &mut Directory) -> Result<(), StorageError> {
        let snapshot = match self.live.partial.clone() {
            Some((snapshot, stored, _)) if stored == snapshot.size => snapshot,
            Some(_) => return self.receive(directory),
            None if self.rng.below(4) != 0 => return self.write_image(directory),
            None => {
                let mut offered = self.offer();
                offered.size = 0;
                offered.crc = 0;
                offered
            }
        };
        let newest = self.live.newest().map_or(0, |s| s.last.index);
        if snapshot.last.index <= newest.max(self.live.hard.commit) {
            return Ok(());
        }
        let before = self.now.states.clone();
        let begun = |m: &mut Model| {
            if snapshot.size == 0 {
                m.partial = Some((snapshot.clone(), 0, 0));
            }
        };
        let raised = |m: &mut Model| {
            begun(m);
            raise_term(&mut m.hard, &snapshot);
        };
        let adopted = |m: &mut Model| {
            raised(m);
            m.keep(&snapshot);
            m.partial = None;
        };
        self.may_become(&[&begun, &raised, &adopted]);
        // So far the core knows, whatever storage makes of it.
        raise_term(&mut self.live.hard, &snapshot);
        self.live.partial = None;
        let done = directory.adopt(&snapshot);
        if done.is_err() {
            // It may have its new name already, and go with the next one that is made.
            self.may_become(&[&|m| m.partial = None]);
        }
        done?;
        self.done.adopted += 1;
        self.became(before, &adopted);
        if self.live.holds(snapshot.last) {
            self.floor = self.floor.max(snapshot.last.index);
        } else {
            self.floor = snapshot.last.index;
            self.reset = Some(snapshot.clone());
        }
        Ok(())
    }
}

/// Writes what waits for its turn together.
fn write_run(directory: &mut Directory, run: &[Persist]) -> Result<(), StorageError> {
    if let [persist] = run {
        directory.submit(persist.clone());
        let completion = directory.poll().unwrap();
        assert_eq!(completion.token, persist.token);
        return completion.result;
    }
    assert_eq!(run_length(run.iter()), run.len());
    directory.log().write(run)
}

pub(super) fn configuration(epoch: u64) -> Configuration {
    Configuration {
        epoch,
        voters: (1..4).filter_map(NodeId::new).collect(),
        ..Configuration::default()
    }
}

fn draft(last: Position) -> Draft {
    Draft {
        last,
        config: Arc::new(configuration(1)),
        config_index: 1,
        pieces: None,
    }
}

fn snapshot(last: Position, size: u64) -> Snapshot {
    let crc = crc32fast::hash(&image_of(last, size));
    draft(last).finished(size, crc)
}
