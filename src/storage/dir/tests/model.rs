//! What a directory must hold, told by what was done to it; and the check that it does, that power
//! may fail right after, and that it can be gone on with.

use super::super::{Directory, Options};
use super::images::{image, read_all};
use super::sim::{Loss, Sim};
use super::{INSTANCE, OPTIONS, identity};
use crate::core::{Entry, HardState, Index, Payload, Persist, Position, Restored, Snapshot, Token};
use crate::storage::read_back::unfold;
use crate::storage::{Opened, Storage, StorageError};

/// One state that an opening may find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) hard: HardState,
    /// Oldest first; of those that were kept the last two are.
    pub(super) snapshots: Vec<Snapshot>,
    /// What the log begins behind: the last reset.
    pub(super) start: Position,
    /// Everything behind it: nothing is ever trimmed here.
    pub(super) log: Vec<Entry>,
    /// Segments up to here may be gone.
    pub(super) trimmed: Index,
    /// What was received: at least so much, at most so much.
    pub(super) partial: Option<(Snapshot, u64, u64)>,
}

impl Model {
    pub(super) fn newest(&self) -> Option<&Snapshot> {
        self.snapshots.last()
    }

    fn oldest(&self) -> Index {
        self.snapshots.first().map_or(0, |s| s.last.index)
    }

    pub(super) fn last(&self) -> Position {
        self.log.last().map_or(self.start, Entry::position)
    }

    /// The term at an index within the log or where it begins.
    pub(super) fn term(&self, index: Index) -> Option<u64> {
        match index.checked_sub(self.start.index + 1) {
            None => (index == self.start.index).then_some(self.start.term),
            Some(nth) => self.log.get(nth as usize).map(|entry| entry.term),
        }
    }

    pub(super) fn holds(&self, at: Position) -> bool {
        self.term(at.index) == Some(at.term)
    }

    pub(super) fn from(&self, first: Index) -> &[Entry] {
        let nth = first.checked_sub(self.start.index + 1);
        nth.and_then(|nth| self.log.get(nth as usize..))
            .unwrap_or(&[])
    }

    pub(super) fn apply(&mut self, persist: &Persist) {
        self.hard = persist.hard.unwrap_or(self.hard);
        if let Some(snapshot) = &persist.reset {
            self.start = snapshot.last;
            self.log.clear();
        }
        if let Some(first) = persist.entries.first() {
            let kept = (first.index - 1 - self.start.index) as usize;
            assert!(kept <= self.log.len(), "the workload leaves a gap");
            self.log.truncate(kept);
            self.log.extend_from_slice(&persist.entries);
        }
    }

    /// An image has its place, be there a newer one that its writer knows nothing of.
    pub(super) fn keep(&mut self, snapshot: &Snapshot) {
        self.snapshots.push(snapshot.clone());
        self.snapshots.sort_by_key(|s| s.last.index);
        self.snapshots.dedup();
        let surplus = self.snapshots.len().saturating_sub(2);
        self.snapshots.drain(..surplus);
    }

    /// As the next opening finds it: an image that the log does not hold counts alone.
    pub(super) fn reopened(&self) -> Model {
        let mut model = self.clone();
        let newest = self.newest().map(|s| s.last);
        if let Some(last) = newest.filter(|last| !self.holds(*last)) {
            model.start = last;
            model.log.clear();
        }
        let known = newest.map_or(0, |last| last.index);
        model.partial = model.partial.filter(|p| p.0.last.index > known);
        model
    }

    /// Whether an opening that finds this state may say so.
    fn allows(&self, found: &Restored) -> bool {
        let model = self.reopened();
        let base = found.base;
        let begins = (model.start.index..=model.start.index.max(model.trimmed))
            .contains(&base.index)
            && model.holds(base);
        let received = match (&model.partial, &found.partial) {
            (None, None) => true,
            (Some((snapshot, least, most)), Some((found, stored))) => {
                snapshot == found && (*least..=*most).contains(stored)
            }
            _ => false,
        };
        let whole = found.hard == model.hard && found.snapshot.as_ref() == model.newest();
        whole && begins && received && found.entries == model.from(base.index + 1)
    }
}

/// The one of several states that was found, made certain.
pub(super) fn settle(states: &[Model], directory: &Directory, found: &Restored) -> Option<Model> {
    let oldest = directory.oldest_snapshot();
    let fits = |state: &&Model| state.allows(found) && state.oldest() == oldest;
    let mut model = states.iter().find(fits)?.reopened();
    model.partial = found.partial.clone().map(|(s, stored)| (s, stored, stored));
    Some(model)
}

/// The image of a snapshot in these tests.
pub(super) fn image_of(last: Position, size: u64) -> Vec<u8> {
    image(last.index << 20 ^ last.term, size as usize)
}

/// What opening finds, with the entries that it leaves in storage; and if those cannot be read, what the
/// next opening finds, which must have seen it.
pub(super) fn open(sim: &Sim) -> Result<(Directory, Opened), StorageError> {
    open_twice(sim).0
}

/// As [`open`] on a full disk, unless there is no opening without a new segment.
pub(super) fn open_crowded(sim: &Sim) -> Result<(Directory, Opened), StorageError> {
    sim.be_full_after(Some(0));
    let opened = open(sim);
    sim.be_full_after(None);
    match opened {
        Err(StorageError::Full { .. }) => open(sim),
        opened => opened,
    }
}

/// As [`open`], and whether damage was seen by reading alone.
pub(super) fn open_twice(sim: &Sim) -> (Result<(Directory, Opened), StorageError>, bool) {
    match open_once(sim) {
        Ok(Err(StorageError::Corrupt { .. })) => {
            let again = open_once(sim);
            let read = |read: Result<_, _>| read.expect("what an opening has read is there");
            (again.map(read), true)
        }
        // Forged, checksums and all: nothing but what is made of them can tell.
        Ok(Err(error @ (StorageError::Record { .. } | StorageError::Version { .. }))) => {
            (Err(error), true)
        }
        Ok(read) => (read, false),
        Err(error) => (Err(error), false),
    }
}

/// What one opening finds; the inner error is one of reading what it has left in storage.
pub(super) fn open_once(
    sim: &Sim,
) -> Result<Result<(Directory, Opened), StorageError>, StorageError> {
    // Most of the log is left in storage.
    let options = Options {
        tail_bytes: 1500,
        ..OPTIONS
    };
    let opened = Directory::open_on(Box::new(sim.clone()), &identity(), options);
    let (mut directory, mut opened) = opened?;
    let read = unfold(&mut directory, &mut opened.restored);
    Ok(read.map(|()| (directory, opened)))
}

/// As [`open`], where nothing is damaged.
fn open_sound(sim: &Sim) -> Result<(Directory, Opened), StorageError> {
    open_once(sim)?
}

/// The machine after power failed, with everything lost that was not synced.
fn reboot(sim: &Sim) -> Sim {
    Sim::boot(&sim.now().lose_power(Loss::All))
}

/// How far a workload got, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Whether `create` has returned.
    pub(super) created: bool,
    /// The last incarnation handed out.
    pub(super) incarnation: u32,
    /// What may be found.
    pub(super) states: Vec<Model>,
}

/// Checks that a directory holds what it must after a workload got as far as `progress`, that it
/// still does when power fails right after, and that it can be gone on with.
pub(super) fn check(sim: &Sim, progress: &Progress) -> Result<(), String> {
    let (mut directory, opened) = match open_sound(sim) {
        Ok(opened) => opened,
        Err(StorageError::Missing { .. }) if !progress.created => {
            let made = Directory::create_on(&mut sim.clone(), &identity(), INSTANCE);
            return made.map_err(|e| format!("cannot be made: {e}"));
        }
        Err(e) => return Err(format!("cannot be opened: {e}")),
    };
    let found = &opened.restored;
    if let Some(lost) = &opened.lost {
        return Err(format!("a crash is taken for damage: {lost:?}"));
    }
    let Some(model) = settle(&progress.states, &directory, found) else {
        let oldest = directory.oldest_snapshot();
        return Err(format!("found {found:?}, the oldest image at {oldest}"));
    };
    if opened.incarnation <= progress.incarnation || opened.instance != INSTANCE {
        return Err(format!("incarnation {}", opened.incarnation));
    }
    expect_contents(&mut directory, &model, found)?;
    expect(&reboot(sim), found)?;
    let mut model = finish_receiving(sim, &mut directory, model)?;
    go_on(&mut directory, &mut model)?;
    let sim = &reboot(sim);
    let mut directory = expect_model(sim, &model)?;
    let Some(oldest) = model.snapshots.first().map(|s| s.last) else {
        return Ok(());
    };
    let trimmed = directory.trim(oldest);
    trimmed.map_err(|e| format!("cannot be trimmed: {e}"))?;
    model.trimmed = model.trimmed.max(oldest.index);
    expect_model(sim, &model).map(|_| ())
}

/// As [`check`], with a start on a full disk before it, what that found being durable.
pub(super) fn check_crowded(sim: &Sim, progress: &Progress) -> Result<(), String> {
    match open_crowded(sim) {
        Ok((_, opened)) => expect(&reboot(sim), &opened.restored)?,
        Err(_) if !progress.created => {}
        Err(e) => return Err(format!("cannot be opened on a full disk: {e}")),
    }
    check(sim, progress)
}

/// What an opening makes of a log that has lost some of `whole`, or may have: it is one that the node
/// once had, `past` says which ones those are; nothing else of the node is forgotten, and what is
/// claimed covers all that was acknowledged. It is the same when it is opened again, and can be written
/// on.
pub(super) fn check_lost(sim: &Sim, opened: &Opened, whole: &Restored, past: &[Vec<Entry>]) {
    let Some(lost) = &opened.lost else {
        panic!("nothing is lost");
    };
    check_claim(&opened.restored, whole, past);
    let found = &opened.restored;
    let claim = found.hard.claim;
    assert_eq!((last_of(found), claim), (lost.kept, Some(lost.claim)));
    let (mut directory, again) = open(&reboot(sim)).unwrap();
    assert_eq!((&again.restored, &again.lost), (found, &None));
    let persist = next_term(found.hard, lost.kept.index + 1, Payload::Noop);
    submit(&mut directory, &persist).unwrap();
}

/// The same of the log and the claim alone.
pub(super) fn check_claim(found: &Restored, whole: &Restored, past: &[Vec<Entry>]) {
    let claim = found.hard.claim.expect("it may have lost something");
    let acknowledged = last_of(whole);
    assert!(
        claim.reaches(acknowledged),
        "{claim:?} for {acknowledged:?}"
    );
    let covered = found.snapshot.as_ref().map_or(0, |s| s.last.index);
    let hard = HardState {
        claim: Some(claim),
        commit: whole.hard.commit.min(covered),
        ..whole.hard
    };
    assert_eq!(found.hard, hard);
    assert!(
        found.base.index <= covered,
        "nothing covers what comes before"
    );
    let found = &found.entries[..];
    let holds = |log: &Vec<Entry>| log.ends_with(found);
    assert!(
        found.is_empty() || past.iter().any(holds),
        "never was a log: {found:?}"
    );
}

/// Where the log ends.
pub(super) fn last_of(restored: &Restored) -> Position {
    let last = restored.entries.last();
    last.map_or(restored.base, Entry::position)
}

/// Everything that can be read of it.
fn expect_contents(
    directory: &mut Directory,
    model: &Model,
    found: &Restored,
) -> Result<(), String> {
    if let Some(first) = found.entries.first() {
        match directory.fetch(first.index, Index::MAX, usize::MAX) {
            Ok(entries) if entries == found.entries => {}
            other => return Err(format!("fetched {other:?}")),
        }
    }
    if directory.oldest_snapshot() != model.oldest() {
        return Err(format!("not the oldest: {}", directory.oldest_snapshot()));
    }
    for snapshot in &model.snapshots {
        let read = directory
            .read_snapshot(snapshot)
            .and_then(|mut reader| read_all(&mut *reader));
        match read {
            Ok(read) if read == image_of(snapshot.last, snapshot.size) => {}
            Ok(_) => return Err(format!("another image of {snapshot:?}")),
            Err(e) => return Err(format!("image cannot be read: {e}")),
        }
    }
    Ok(())
}

/// Receives what is missing of an image, and adopts it.
fn finish_receiving(
    sim: &Sim,
    directory: &mut Directory,
    mut model: Model,
) -> Result<Model, String> {
    let Some((snapshot, stored, _)) = model.partial.take() else {
        return Ok(model);
    };
    let image = image_of(snapshot.last, snapshot.size);
    if stored < snapshot.size {
        let stored = directory.store_piece(&snapshot, stored, &image[stored as usize..]);
        stored.map_err(|e| format!("piece cannot be stored: {e}"))?;
    }
    let adopted = directory.adopt(&snapshot);
    adopted.map_err(|e| format!("cannot be adopted: {e}"))?;
    model.keep(&snapshot);
    raise_term(&mut model.hard, &snapshot);
    expect_model(&reboot(sim), &model)?;
    if model.holds(snapshot.last) {
        return Ok(model);
    }
    let persist = Persist {
        token: Token(1),
        hard: None,
        reset: Some(snapshot),
        entries: Vec::new(),
    };
    submit(directory, &persist)?;
    model.apply(&persist);
    Ok(model)
}

/// What adopting a snapshot of a newer term makes of the hard state.
pub(super) fn raise_term(hard: &mut HardState, snapshot: &Snapshot) {
    if snapshot.last.term > hard.term {
        hard.term = snapshot.last.term;
        hard.vote = None;
    }
}

fn submit(directory: &mut Directory, persist: &Persist) -> Result<(), String> {
    directory.submit(persist.clone());
    let completion = directory.poll().ok_or("no completion")?;
    let written = completion.result;
    written.map_err(|e| format!("cannot be written: {e}"))
}

/// What the first entry of a new term brings.
fn next_term(hard: HardState, index: Index, payload: Payload) -> Persist {
    let term = hard.term + 1;
    Persist {
        token: Token(1),
        hard: Some(HardState {
            term,
            vote: None,
            ..hard
        }),
        reset: None,
        entries: vec![Entry {
            index,
            term,
            payload,
        }],
    }
}

fn go_on(directory: &mut Directory, model: &mut Model) -> Result<(), String> {
    let payload = Payload::Host(vec![0; 2000].into());
    let persist = next_term(model.hard, model.last().index + 1, payload);
    submit(directory, &persist)?;
    model.apply(&persist);
    Ok(())
}

fn expect(sim: &Sim, restored: &Restored) -> Result<(), String> {
    match open_sound(sim) {
        Ok((_, opened)) if opened.restored == *restored => Ok(()),
        Ok((_, opened)) => Err(format!("then found {:?}", opened.restored)),
        Err(e) => Err(format!("cannot be opened again: {e}")),
    }
}

fn expect_model(sim: &Sim, model: &Model) -> Result<Directory, String> {
    let (mut directory, opened) =
        open_sound(sim).map_err(|e| format!("cannot be opened later: {e}"))?;
    let found = &opened.restored;
    if !model.allows(found) {
        return Err(format!("later found {found:?} instead of {model:?}"));
    }
    expect_contents(&mut directory, &model.reopened(), found)?;
    Ok(directory)
}
