//! Storage that lives in memory: for tests, simulations and engines that ask for no durability.
//!
//! Every step that a real disk may take apart can be taken apart here: a write may be held, may
//! finish, may fail, and at a crash an unfinished one may or may not have landed.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::{Bytes, Entry, Index, Persist, Position, Restored, Snapshot, Token};

use super::{Completion, Draft, Room, SnapshotReader, SnapshotWriter, Storage, StorageError};

/// A handle on storage in memory; clones share it, so that a test keeps one and the engine the other.
///
/// It may be used from any thread. Unless told to hold, writes finish at once.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    durable: Restored,
    /// Of the newest snapshot.
    image: Bytes,
    /// Of the one that is being received, as far as it came.
    partial: Vec<u8>,
    /// A read is to fail.
    fail_reads: bool,
    hold: bool,
    failed: bool,
    /// There is no room for entries; and some were refused since there was.
    full: bool,
    refusing: bool,
    crashed: bool,
    /// Submitted and not finished; after a failure those that ended with an error.
    unfinished: VecDeque<Persist>,
    done: VecDeque<Completion>,
}

impl Memory {
    /// The storage of a node that never existed.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Storage that holds `restored` already, as after a restart; the image of its snapshot, and
    /// what was received of another one.
    pub fn with(restored: Restored, image: Bytes, partial: Vec<u8>) -> Memory {
        let memory = Memory::default();
        {
            let mut state = memory.state();
            state.durable = restored;
            state.image = image;
            state.partial = partial;
        }
        memory
    }

    /// With `true` every read of entries and images fails.
    pub fn fail_reads(&self, fail: bool) {
        self.state().fail_reads = fail;
    }

    /// The image of the newest snapshot, and what was received of another one.
    pub fn images(&self) -> (Bytes, Vec<u8>) {
        let state = self.state();
        (state.image.clone(), state.partial.clone())
    }

    /// With `true` writes stay unfinished until [`Memory::complete_next`]; `false` finishes all
    /// that are waiting, in order, and from then on every write at once.
    pub fn hold(&self, hold: bool) {
        let mut state = self.state();
        state.hold = hold;
        while !hold && !state.failed && state.finish_next() {}
    }

    /// With `true` there is no room for entries, as on a full disk; `false` makes room, which is
    /// noticed by [`Storage::make_room`].
    pub fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// Finishes the oldest waiting write, or lets it fail, and every other with it: after a
    /// failure storage takes no more writes. `false` if none was waiting.
    pub fn complete_next(&self, ok: bool) -> bool {
        let mut state = self.state();
        if state.failed || state.unfinished.is_empty() {
            return false;
        }
        if ok {
            return state.finish_next();
        }
        state.failed = true;
        let tokens: Vec<Token> = state.unfinished.iter().map(|p| p.token).collect();
        state.done.extend(tokens.into_iter().map(refusal));
        true
    }

    /// Tokens of the writes that neither finished nor failed, oldest first.
    pub fn waiting(&self) -> Vec<Token> {
        let state = self.state();
        match state.failed {
            true => Vec::new(),
            false => state.unfinished.iter().map(|p| p.token).collect(),
        }
    }

    /// A copy of what is durable now, as the next start finds it.
    pub fn durable(&self) -> Restored {
        reconciled(self.state().durable.clone())
    }

    /// The node stops; returns what the next start finds: exactly the writes that finished.
    /// Afterwards this storage ignores everything that is submitted to it.
    pub fn crash(&self) -> Restored {
        self.crash_landed(0)
    }

    /// As [`Memory::crash`], but the `landed` oldest of the unfinished or failed writes had
    /// reached the disk, though nobody was told; more than there are means all.
    pub fn crash_landed(&self, landed: usize) -> Restored {
        let mut state = self.state();
        state.crashed = true;
        state.done.clear();
        let mut restored = state.durable.clone();
        for persist in state.unfinished.drain(..).take(landed) {
            apply(&mut restored, &persist);
        }
        reconciled(restored)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half changed, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn finish_next(&mut self) -> bool {
        let Some(mut persist) = self.unfinished.pop_front() else {
            return false;
        };
        let result = match self.refuses(&persist) {
            true => {
                self.refusing = true;
                (persist.reset, persist.entries) = (None, Vec::new());
                let (path, error) = (place(), std::io::ErrorKind::StorageFull.into());
                Err(StorageError::Full { path, error })
            }
            false => Ok(()),
        };
        apply(&mut self.durable, &persist);
        let token = persist.token;
        self.done.push_back(Completion { token, result });
        true
    }

    /// Whether there is no room for what the write says of the log, or was none for what comes
    /// before it.
    fn refuses(&self, persist: &Persist) -> bool {
        let writes = persist.reset.is_some() || !persist.entries.is_empty();
        writes && (self.full || self.refusing)
    }
}

impl Storage for Memory {
    fn submit(&mut self, persist: Persist) {
        let mut state = self.state();
        if state.crashed {
            return;
        }
        if state.failed {
            state.done.push_back(refusal(persist.token));
            return;
        }
        state.unfinished.push_back(persist);
        if !state.hold {
            state.finish_next();
        }
    }

    fn room(&self) -> Room {
        match self.state().refusing {
            true => Room::Hard,
            false => Room::All,
        }
    }

    fn make_room(&mut self) {
        let mut state = self.state();
        // What was submitted before must not come behind what it follows.
        state.refusing &= state.full || !state.unfinished.is_empty();
    }

    fn poll(&mut self) -> Option<Completion> {
        self.state().done.pop_front()
    }

    fn fetch(
        &mut self,
        first: Index,
        last: Index,
        bytes: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let state = self.state();
        state.may_read()?;
        let skipped = first.checked_sub(state.durable.base.index + 1);
        let entries = skipped.and_then(|n| state.durable.entries.get(n as usize..));
        let wanted = entries
            .unwrap_or(&[])
            .iter()
            .take_while(|e| e.index <= last);
        let mut size = 0;
        let fitting = wanted.enumerate().take_while(|(at, entry)| {
            size += entry.payload.weight();
            *at == 0 || size <= bytes
        });
        let entries: Vec<Entry> = fitting.map(|(_, entry)| entry.clone()).collect();
        if entries.is_empty() {
            return Err(failed("read", "no such entry"));
        }
        Ok(entries)
    }

    fn trim(&mut self, base: Position) -> Result<(), StorageError> {
        let mut state = self.state();
        let known = state.durable.base.index;
        if state.crashed || base.index <= known {
            return Ok(());
        }
        state.durable.base = base;
        state.durable.entries.retain(|e| e.index > base.index);
        Ok(())
    }

    fn write_snapshot(&mut self, draft: Draft) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Ok(Box::new(Writer {
            memory: self.clone(),
            draft,
            image: Vec::new(),
        }))
    }

    fn read_snapshot(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<Box<dyn SnapshotReader>, StorageError> {
        let state = self.state();
        state.may_read()?;
        let image = match &state.durable.partial {
            _ if state.durable.snapshot.as_ref() == Some(snapshot) => state.image.clone(),
            Some((partial, _)) if partial == snapshot => Bytes::from(&state.partial[..]),
            _ if snapshot.size == 0 => Bytes::from([]),
            _ => return Err(failed("read", "no such snapshot")),
        };
        check_image(&image, snapshot)?;
        Ok(Box::new(Reader(image)))
    }

    fn store_piece(
        &mut self,
        snapshot: &Snapshot,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.crashed || state.failed {
            return Err(failed("write", "told to fail"));
        }
        if offset == 0 {
            state.partial.clear();
        }
        assert_eq!(
            state.partial.len() as u64,
            offset,
            "a piece follows the one before"
        );
        state.partial.extend_from_slice(data);
        let end = offset + data.len() as u64;
        state.durable.partial = Some((snapshot.clone(), end));
        Ok(())
    }

    fn adopt(&mut self, snapshot: &Snapshot) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.crashed || state.failed {
            return Err(failed("write", "told to fail"));
        }
        let image = Bytes::from(std::mem::take(&mut state.partial));
        check_image(&image, snapshot)?;
        state.durable.partial = None;
        state.keep(snapshot.clone(), image);
        Ok(())
    }

    fn oldest_snapshot(&self) -> Index {
        let state = self.state();
        state.durable.snapshot.as_ref().map_or(0, |s| s.last.index)
    }
}

impl State {
    fn may_read(&self) -> Result<(), StorageError> {
        match self.fail_reads {
            true => Err(failed("read", "told to fail")),
            false => Ok(()),
        }
    }

    fn keep(&mut self, snapshot: Snapshot, image: Bytes) {
        let newest = self.durable.snapshot.as_ref().map_or(0, |s| s.last.index);
        if !self.crashed && snapshot.last.index > newest {
            self.durable.snapshot = Some(snapshot);
            self.image = image;
        }
    }
}

struct Writer {
    memory: Memory,
    draft: Draft,
    image: Vec<u8>,
}

impl SnapshotWriter for Writer {
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        self.image
            .try_reserve(data.len())
            .map_err(|_| failed("write", "no memory"))?;
        self.image.extend_from_slice(data);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError> {
        let image = Bytes::from(self.image);
        let crc = crc32fast::hash(&image);
        let snapshot = self.draft.finished(image.len() as u64, crc);
        self.memory.state().keep(snapshot.clone(), image);
        Ok(snapshot)
    }

    fn finish_aside(self: Box<Self>) -> Result<(Box<dyn SnapshotReader>, u64, u32), StorageError> {
        let image = Bytes::from(self.image);
        let (size, crc) = (image.len() as u64, crc32fast::hash(&image));
        Ok((Box::new(Reader(image)), size, crc))
    }
}

struct Reader(Bytes);

impl SnapshotReader for Reader {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..));
        let rest = rest.unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

fn check_image(image: &[u8], snapshot: &Snapshot) -> Result<(), StorageError> {
    let whole = image.len() as u64 == snapshot.size && crc32fast::hash(image) == snapshot.crc;
    match whole {
        true => Ok(()),
        false => Err(StorageError::Corrupt {
            path: place(),
            offset: 0,
            index: snapshot.last.index,
            what: "image of a snapshot is not whole",
        }),
    }
}

fn failed(op: &'static str, why: &'static str) -> StorageError {
    StorageError::Io {
        op,
        path: place(),
        error: std::io::Error::other(why),
    }
}

/// What messages call it.
fn place() -> PathBuf {
    PathBuf::from("(memory)")
}

fn refusal(token: Token) -> Completion {
    Completion {
        token,
        result: Err(failed("write", "told to fail")),
    }
}

/// An image counts once it is there: a log that does not reach it, or holds another entry where it
/// ends, is dropped.
fn reconciled(mut restored: Restored) -> Restored {
    let Some(snapshot) = &restored.snapshot else {
        return restored;
    };
    let last = snapshot.last;
    let held = |entry: &Entry| (entry.index, entry.term) == (last.index, last.term);
    if restored.base != last && !restored.entries.iter().any(held) {
        restored.base = last;
        restored.entries.clear();
    }
    restored
}

/// What `restored` becomes by one write.
///
/// # Panics
/// If the entries are not contiguous among themselves or leave a gap after the log.
pub(super) fn apply(restored: &mut Restored, persist: &Persist) {
    if let Some(hard) = persist.hard {
        restored.hard = hard;
    }
    if let Some(snapshot) = &persist.reset {
        restored.base = snapshot.last;
        restored.entries.clear();
    }
    let Some(first) = persist.entries.first() else {
        return;
    };
    let base = restored.base.index;
    let last = base + restored.entries.len() as u64;
    assert!(
        first.index > base && first.index <= last + 1,
        "entries from {} on leave a gap after {last}",
        first.index
    );
    for (expected, entry) in (first.index..).zip(&persist.entries) {
        assert_eq!(entry.index, expected, "entries are not contiguous");
    }
    // At most the length of a Vec, so it fits.
    restored.entries.truncate((first.index - 1 - base) as usize);
    restored.entries.extend_from_slice(&persist.entries);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Entry, HardState, Payload};

    fn persist(token: u64, from: u64, to: u64, term: u64) -> Persist {
        let entry = |index| Entry {
            index,
            term,
            payload: Payload::Noop,
        };
        Persist {
            token: Token(token),
            hard: Some(HardState {
                term,
                ..HardState::default()
            }),
            reset: None,
            entries: (from..=to).map(entry).collect(),
        }
    }

    fn polled(memory: &mut Memory) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| memory.poll())
            .map(|c| (c.token.0, c.result.is_ok()))
            .collect()
    }

    #[test]
    fn writes_finish_at_once_unless_held() {
        let mut memory = Memory::new();
        memory.submit(persist(1, 1, 2, 1));
        assert_eq!(polled(&mut memory), [(1, true)]);
        memory.hold(true);
        memory.submit(persist(2, 2, 4, 2));
        memory.submit(persist(3, 5, 5, 2));
        assert_eq!(polled(&mut memory), []);
        assert_eq!(memory.waiting(), [Token(2), Token(3)]);
        assert_eq!(memory.durable().entries.len(), 2);
        assert!(memory.complete_next(true));
        assert_eq!(polled(&mut memory), [(2, true)]);
        assert_eq!(memory.durable().entries[1].term, 2, "replaced from 2 on");
        memory.hold(false);
        assert_eq!(polled(&mut memory), [(3, true)]);
        assert!(!memory.complete_next(true), "nothing waits");
    }

    #[test]
    fn a_failure_takes_everything_after_it_along() {
        let mut memory = Memory::new();
        memory.hold(true);
        memory.submit(persist(1, 1, 1, 1));
        memory.submit(persist(2, 2, 2, 1));
        assert!(memory.complete_next(false));
        memory.submit(persist(3, 3, 3, 1));
        memory.hold(false);
        assert_eq!(polled(&mut memory), [(1, false), (2, false), (3, false)]);
        assert_eq!(memory.waiting(), []);
        assert_eq!(memory.durable(), Restored::default());
        assert_eq!(memory.crash_landed(1).entries.len(), 1);
    }

    #[test]
    fn a_crash_keeps_what_finished_and_perhaps_more() {
        let prepare = || {
            let mut memory = Memory::new();
            memory.submit(persist(1, 1, 3, 1));
            memory.hold(true);
            memory.submit(persist(2, 2, 2, 2));
            memory.submit(persist(3, 3, 3, 2));
            memory
        };
        assert_eq!(prepare().crash().entries.len(), 3);
        assert_eq!(prepare().crash_landed(1).entries.len(), 2);
        assert_eq!(prepare().crash_landed(9).entries.len(), 3);
        let mut late = prepare();
        let restored = late.crash();
        late.submit(persist(4, 4, 4, 2));
        assert_eq!(late.poll().map(|c| c.token), None);
        let again = Memory::with(restored.clone(), Bytes::from([]), Vec::new());
        assert_eq!(again.durable(), restored);
    }

    #[test]
    #[should_panic(expected = "leave a gap")]
    fn a_gap_is_a_bug_of_the_caller() {
        Memory::new().submit(persist(1, 2, 2, 1));
    }
}
