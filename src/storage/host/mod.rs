//! Storage by the host: a daemon that owns a database keeps this node's records in it.
//!
//! The host stores and returns bytes; that they are whole, in order and this node's own is seen to
//! here. Writes are atomic, take effect in the order in which they are given, and may be reported
//! late, from any thread ([`Writes`]). Every one of them carries the state, and the state says where
//! the log ends: so a store that keeps only a part of a write, or forgets one that it had reported,
//! is noticed at the next opening.
//!
//! Opening gives the run its number, which must be durable before anything is said in its name:
//! until the first write is, [`Storage::ready`] says no.
//!
//! Whatever the host gives back, opening neither panics nor takes more memory than
//! [`HOST_AMPLIFICATION`](super::HOST_AMPLIFICATION) times its length and
//! [`HOST_OVERHEAD`](super::HOST_OVERHEAD).
//!
//! - [`HostStore`]: what the host must be able to do
//! - `record`: the bytes; `records`: taking them back; `terms`: which term every entry has
//! - `writes`: what is under way; `images`: snapshots

mod images;
mod record;
mod records;
mod terms;
mod writes;

#[cfg(any(test, fuzzing))]
pub(crate) mod tests;

use std::collections::{TryReserveError, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::core::{Entry, HardState, Index, Persist, Position, Restored, Snapshot, Token};

use super::read_back::ReadBack;
use super::{
    Completion, Draft, Identity, Opened, Room, SnapshotReader, SnapshotWriter, Storage,
    StorageError,
};

use images::{Images, Saving, Writing};
use record::{Seal, State};
use records::Found;
use terms::Terms;

pub use records::Records;
pub use writes::{HostCode, OutOfOrder, Writes};

/// Batches under way: enough to keep a disk busy, and few enough that what comes while it is makes
/// large ones.
const UNDER_WAY_MAX: usize = 4;

/// A host's database. Every failure is a code of its own.
///
/// All but the `snap_` methods are called by whoever drives the engine, one at a time.
pub trait HostStore: Send + Sync + fmt::Debug {
    /// Gives back all that is stored: the state, then the entries in order, and the images.
    fn open(&self, records: &mut Records) -> Result<(), HostCode>;

    /// Makes sure of what it takes to pass on a batch of so many entries; false if it cannot be had.
    fn reserve(&self, _entries: usize) -> bool {
        true
    }

    /// Takes one atomic write, which is reported to [`Writes`] once it is durable, or has failed;
    /// an error here is a failed write as well.
    fn write(&self, batch: &Batch<'_>) -> Result<(), HostCode>;

    /// Gives back entries from `first` to `last`, until they are not needed any more.
    fn read(&self, first: Index, last: Index, records: &mut Records) -> Result<(), HostCode>;

    /// Entries up to here may be deleted.
    fn trim(&self, index: Index) -> Result<(), HostCode>;

    /// Whether the `snap_` methods may be called.
    fn keeps_snapshots(&self) -> bool;

    /// Appends to an image, which has `offset` bytes; at 0 it begins, whatever there was.
    fn snap_put(&self, image: u64, offset: u64, data: &[u8]) -> Result<(), HostCode>;

    /// Makes an image durable: from now on opening lists it.
    fn snap_commit(&self, image: u64) -> Result<(), HostCode>;

    /// Reads from an image, committed or not; 0 bytes at its end.
    fn snap_get(&self, image: u64, offset: u64, buf: &mut [u8]) -> Result<usize, HostCode>;

    /// Deletes an image, committed or not.
    fn snap_drop(&self, image: u64) -> Result<(), HostCode>;
}

/// One atomic write: the state is replaced, entries from `cut` on are deleted, and `entries` are
/// inserted, the first one at `first`.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// One more than the batch before; in every run others.
    pub number: u64,
    /// The state record.
    pub state: &'a [u8],
    /// The first entry that is deleted; if none is, the one behind the last.
    pub cut: Index,
    /// Where the first new entry goes; not below `cut`.
    pub first: Index,
    /// Records of the new entries.
    pub entries: &'a [&'a [u8]],
}

/// A host's database as storage.
#[derive(Debug)]
pub struct HostStorage {
    store: Arc<dyn HostStore>,
    writes: Arc<Writes>,
    /// As of the last batch that was given.
    state: State,
    terms: Terms,
    seal: Seal,
    /// The stored log is not the one that goes on here: the next batch drops it.
    stale: bool,
    /// Who waits for the batches that are under way, oldest first.
    pending: VecDeque<Waiting>,
    /// There was no memory to pass on the entries from here on, and what builds on them waits as well. 0
    /// if the log was to be dropped.
    refused: Option<Index>,
    /// Nothing was tried since.
    short: bool,
    done: VecDeque<Completion>,
    /// The write that failed first, and the host's code.
    failed: Option<(&'static str, HostCode)>,
    images: Images,
    receiving: Option<Receiving>,
}

/// Who waits for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Nobody: it opens the run.
    Nobody,
    /// The whole write is in it.
    Write(Token),
    /// Only what the write says of the hard state is in it.
    Hard(Token),
}

/// What it takes to pass on entries.
#[derive(Default)]
struct Memory<'a> {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    records: Vec<&'a [u8]>,
}

impl Memory<'_> {
    fn of(entries: &[Entry]) -> Result<Self, TryReserveError> {
        let mut memory = Memory::default();
        let bytes = entries.iter().map(Seal::entry_len).sum();
        memory.bytes.try_reserve_exact(bytes)?;
        memory.ends.try_reserve_exact(entries.len())?;
        memory.records.try_reserve_exact(entries.len())?;
        Ok(memory)
    }
}

/// An image that comes from a leader. After a restart it is received anew.
struct Receiving {
    snapshot: Snapshot,
    writing: Writing,
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {:?}", self.writing.size(), self.snapshot)
    }
}

impl HostStorage {
    /// Opens the node's store; with an instance, drawn by the caller, it is that of a node which
    /// never existed, and must be empty. Of the log so many bytes of the last entries are handed
    /// out, the others are outlined. Nothing is written before the first driving call.
    ///
    /// # Errors
    /// `Missing`, `Exists`, `Foreign`, `Version`, `Record`, `Io`.
    pub fn open(
        store: Arc<dyn HostStore>,
        identity: &Identity,
        instance: Option<u64>,
        tail_bytes: usize,
    ) -> Result<(HostStorage, Opened, Arc<Writes>), StorageError> {
        let mut records = Records::all(*identity, store.keeps_snapshots(), tail_bytes);
        let result = store.open(&mut records);
        if !records.has_failed() {
            said("open", result)?;
        }
        let mut found = records.found()?;
        let (mut state, seal) = owner(&mut found, identity, instance)?;
        state.incarnation = state
            .incarnation
            .checked_add(1)
            .ok_or_else(|| corrupt(0, "opened more often than can be counted"))?;
        let (images, damaged) = Images::find(store.clone(), seal.clone(), &found.images)?;
        let passed_over = damaged.iter().map(StorageError::to_string).collect();
        let (log, stale) = reconcile(found, &mut state, images.newest().as_ref(), damaged)?;
        let mut terms = Terms::behind(log.base());
        for run in log.terms() {
            terms.push(run.index, run.term);
        }
        let (base, (outline, entries)) = (log.base(), log.into_parts());
        let restored = Restored {
            hard: state.hard,
            snapshot: images.newest(),
            base,
            outline,
            entries,
            partial: None,
        };
        let opened = Opened {
            restored,
            incarnation: state.incarnation,
            instance: state.instance,
            torn_bytes: 0,
            meta_repaired: false,
            damaged: passed_over,
            lost: None,
        };
        let writes = Arc::new(Writes::of_run(state.incarnation));
        let storage = HostStorage {
            store,
            writes: writes.clone(),
            state,
            terms,
            seal,
            stale,
            pending: VecDeque::new(),
            refused: None,
            short: false,
            done: VecDeque::new(),
            failed: None,
            images,
            receiving: None,
        };
        Ok((storage, opened, writes))
    }

    /// Gives the host a batch. Whatever it does with it, it is under way from here.
    fn give(
        &mut self,
        waiting: Waiting,
        hard: Option<HardState>,
        reset: Option<&Snapshot>,
        (entries, memory): (&[Entry], Memory<'_>),
    ) {
        self.state.hard = hard.unwrap_or(self.state.hard);
        let behind = self.state.last.index + 1;
        let mut cut = entries.first().map_or(behind, |e| e.index);
        if let Some(snapshot) = reset {
            self.state.last = snapshot.last;
            self.terms = Terms::behind(snapshot.last);
            self.images.retire(snapshot.last.index);
        }
        if reset.is_some() || self.stale {
            cut = 1;
            self.stale = false;
        }
        let Memory {
            mut bytes,
            mut ends,
            mut records,
        } = memory;
        self.encode(entries, &mut bytes, &mut ends);
        let mut start = 0;
        let cut_out = |end| &bytes[std::mem::replace(&mut start, end)..end];
        records.extend(ends.into_iter().map(cut_out));
        let state = self.state.encode();
        let batch = Batch {
            number: self.writes.give(),
            state: &state,
            cut,
            first: self.state.last.index + 1 - entries.len() as u64,
            entries: &records,
        };
        self.pending.push_back(waiting);
        if let Err(code) = self.store.write(&batch) {
            self.failed.get_or_insert(("write", code));
        }
    }

    /// The records of entries that replace what there is from the first one's index on, and where
    /// each ends.
    fn encode(&mut self, entries: &[Entry], bytes: &mut Vec<u8>, ends: &mut Vec<usize>) {
        let Some(first) = entries.first().map(|e| e.index) else {
            return;
        };
        let last = self.state.last.index;
        assert!(
            (1..=last + 1).contains(&first),
            "entries from {first} on leave a gap after {last}"
        );
        self.terms.cut(first);
        let mut before = self.terms.at(first - 1);
        for (index, entry) in (first..).zip(entries) {
            assert_eq!(entry.index, index, "entries are not contiguous");
            self.seal.encode_entry(before, entry, bytes);
            ends.push(bytes.len());
            self.terms.push(index, entry.term);
            (before, self.state.last) = (entry.term, entry.position());
        }
    }

    /// What it takes to pass on a write's entries, unless they build on others that wait.
    fn memory_for<'a>(&mut self, persist: &Persist) -> Option<Memory<'a>> {
        let first = persist.entries.first().map(|e| e.index);
        let waits = |refused| persist.reset.is_none() && first.is_some_and(|at| at > refused);
        if self.refused.is_some_and(waits) || !self.store.reserve(persist.entries.len()) {
            return None;
        }
        let memory = Memory::of(&persist.entries).ok()?;
        if first.is_some() || persist.reset.is_some() {
            self.refused = None;
        }
        Some(memory)
    }

    /// Takes in what the host has reported. After a failure everything under way has failed.
    fn collect(&mut self) {
        while self.failed.is_none() {
            match self.writes.take() {
                Some(Ok(())) => self.complete(Ok(())),
                Some(Err(code)) => self.failed = Some(("keel_write_done", code)),
                None => return,
            }
        }
        while !self.pending.is_empty() {
            let failure = self.failure();
            self.complete(failure);
        }
    }

    fn complete(&mut self, result: Result<(), StorageError>) {
        let (token, result) = match self.pending.pop_front() {
            None => panic!("a batch was reported that is not under way"),
            Some(Waiting::Nobody) => return,
            Some(Waiting::Write(token)) => (token, result),
            Some(Waiting::Hard(token)) => (token, result.and_then(|()| Err(no_memory()))),
        };
        self.done.push_back(Completion { token, result });
    }

    fn failure(&self) -> Result<(), StorageError> {
        self.failed.map_or(Ok(()), |(op, code)| said(op, Err(code)))
    }

    fn must_keep_snapshots(&self) -> Result<(), StorageError> {
        match self.keeps_snapshots() {
            true => Ok(()),
            false => Err(StorageError::NoSnapshots),
        }
    }
}

impl Storage for HostStorage {
    fn ready(&mut self) -> Result<bool, StorageError> {
        if !self.writes.has_begun() {
            self.give(Waiting::Nobody, None, None, Default::default());
        }
        self.collect();
        self.failure()?;
        Ok(self.writes.is_open())
    }

    fn room(&self) -> Room {
        match self.pending.len() < UNDER_WAY_MAX {
            true if self.short => Room::Hard,
            true => Room::All,
            false => Room::None,
        }
    }

    fn make_room(&mut self) {
        self.short = false;
    }

    /// # Panics
    /// If the entries are not contiguous, leave a gap after the log, or a term goes back.
    fn submit(&mut self, persist: Persist) {
        let whole = Waiting::Write(persist.token);
        if self.failed.is_some() {
            self.pending.push_back(whole);
            return;
        }
        if let Some(memory) = self.memory_for(&persist) {
            let (reset, entries) = (persist.reset.as_ref(), &persist.entries[..]);
            self.give(whole, persist.hard, reset, (entries, memory));
            return;
        }
        let first = persist.entries.first().map_or(0, |e| e.index);
        let begin = if persist.reset.is_some() { 0 } else { first };
        self.refused = Some(self.refused.map_or(begin, |first| first.min(begin)));
        self.short = true;
        let hard = Waiting::Hard(persist.token);
        self.give(hard, persist.hard, None, Default::default());
    }

    fn poll(&mut self) -> Option<Completion> {
        self.collect();
        self.done.pop_front()
    }

    fn fetch(
        &mut self,
        first: Index,
        last: Index,
        bytes: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut records = Records::some(self.seal.clone(), first, last, bytes);
        let result = self.store.read(first, last, &mut records);
        if !records.has_failed() {
            said("read", result)?;
        }
        let entries = records.entries()?;
        // Whole and this node's own, and yet one that was replaced since.
        let stale = |entry: &&Entry| self.terms.find(entry.index) != Some(entry.term);
        match (entries.iter().find(stale), entries.is_empty()) {
            (Some(stale), _) => Err(corrupt(stale.index, "entry of another term than the log's")),
            (None, true) => Err(corrupt(first, "entry is missing")),
            (None, false) => Ok(entries),
        }
    }

    fn trim(&mut self, base: Position) -> Result<(), StorageError> {
        self.terms.trim(base);
        self.images.retire(base.index);
        said("trim", self.store.trim(base.index))
    }

    fn keeps_snapshots(&self) -> bool {
        self.store.keeps_snapshots()
    }

    fn write_snapshot(&mut self, draft: Draft) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        self.must_keep_snapshots()?;
        Ok(Box::new(Saving::new(self.images.begin(), draft)))
    }

    fn read_snapshot(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<Box<dyn SnapshotReader>, StorageError> {
        self.must_keep_snapshots()?;
        if let Some(reader) = self.images.open(snapshot) {
            return Ok(Box::new(reader?));
        }
        let received = self.receiving.as_ref().filter(|r| r.snapshot == *snapshot);
        match received {
            Some(received) => Ok(Box::new(received.writing.read(snapshot)?)),
            None if snapshot.size == 0 => Ok(Box::new(self.images.begin().read(snapshot)?)),
            None => Err(corrupt(
                snapshot.last.index,
                "no image of this snapshot is kept",
            )),
        }
    }

    fn store_piece(
        &mut self,
        snapshot: &Snapshot,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StorageError> {
        self.must_keep_snapshots()?;
        if offset == 0 {
            self.receiving = None;
            self.receiving = Some(Receiving {
                snapshot: snapshot.clone(),
                writing: self.images.begin(),
            });
        }
        let receiving = self.receiving.as_mut();
        let Some(receiving) = receiving.filter(|r| r.snapshot == *snapshot) else {
            return Err(corrupt(snapshot.last.index, "piece of another snapshot"));
        };
        assert_eq!(
            receiving.writing.size(),
            offset,
            "a piece follows the one before"
        );
        receiving.writing.append(data)
    }

    fn adopt(&mut self, snapshot: &Snapshot) -> Result<(), StorageError> {
        self.must_keep_snapshots()?;
        let received = self.receiving.take().filter(|r| r.snapshot == *snapshot);
        let writing = received.map_or_else(|| self.images.begin(), |r| r.writing);
        writing.commit(snapshot)
    }

    fn oldest_snapshot(&self) -> Index {
        self.images.newest_index()
    }
}

/// Whose store it is, and what its checksums begin with.
fn owner(
    found: &mut Found,
    identity: &Identity,
    instance: Option<u64>,
) -> Result<(State, Seal), StorageError> {
    match (found.is_empty(), instance) {
        (true, None) => Err(StorageError::Missing { path: place() }),
        (false, Some(_)) => Err(StorageError::Exists { path: place() }),
        (false, None) => found
            .state
            .take()
            .ok_or_else(|| corrupt(0, "image, and no state")),
        (true, Some(instance)) => {
            let state = State {
                identity: *identity,
                instance,
                incarnation: 0,
                hard: HardState::default(),
                last: Position::default(),
            };
            Ok((state, Seal::new(identity, instance)))
        }
    }
}

/// The log as it counts, and whether the stored one is another.
fn reconcile(
    found: Found,
    state: &mut State,
    snapshot: Option<&Snapshot>,
    damaged: Option<StorageError>,
) -> Result<(ReadBack, bool), StorageError> {
    // Without an entry it was reset, or trimmed to its end.
    let end = found.log.as_ref().map(ReadBack::last);
    let mut log = found.log.unwrap_or(ReadBack::behind(state.last, 0));
    check_end(end, state)?;
    let covered = snapshot.map_or(0, |s| s.last.index);
    if log.base().index > covered {
        return Err(damaged.unwrap_or_else(|| corrupt(covered + 1, "entry is missing")));
    }
    let mut stale = false;
    if let Some(last) = snapshot.map(|s| s.last) {
        // It counts once it is there: the write that drops the log for it was cut off.
        if !log.holds(last) {
            stale = true;
            log.reset(last);
            state.last = last;
        }
        // So was, perhaps, the one that says what its leader's term is. This node has promised
        // nothing in that term, or it would be known here.
        if last.term > state.hard.term {
            state.hard.term = last.term;
            state.hard.vote = None;
        }
    }
    if state.hard.commit > state.last.index || state.last.term > state.hard.term {
        return Err(corrupt(state.last.index, "state that contradicts the log"));
    }
    Ok((log, stale))
}

/// The log ends where the last write left it.
fn check_end(end: Option<Position>, state: &State) -> Result<(), StorageError> {
    match end {
        Some(end) if end.index < state.last.index => Err(corrupt(
            end.index + 1,
            "entry is missing, the state knows of it",
        )),
        Some(end) if end != state.last => Err(corrupt(
            end.index,
            "entry that the state knows nothing of: a write was not atomic",
        )),
        _ => Ok(()),
    }
}

/// What messages call the host's storage.
fn place() -> PathBuf {
    PathBuf::from("keel_storage")
}

fn corrupt(index: Index, what: &'static str) -> StorageError {
    StorageError::Record { index, what }
}

/// Entries that cannot be passed on wait as they do on a full disk.
fn no_memory() -> StorageError {
    StorageError::Full {
        path: place(),
        error: std::io::ErrorKind::OutOfMemory.into(),
    }
}

/// The host's answer to a call.
fn said<T>(op: &'static str, result: Result<T, HostCode>) -> Result<T, StorageError> {
    result.map_err(|code| StorageError::Io {
        op,
        path: place(),
        error: std::io::Error::other(format!("the host says {code}")),
    })
}
