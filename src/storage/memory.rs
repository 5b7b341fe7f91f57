//! Storage that lives in memory: for tests, simulations and engines that ask for no durability.
//!
//! Every step that a real disk may take apart can be taken apart here: a write may be held, may
//! finish, may fail, and at a crash an unfinished one may or may not have landed.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::{Persist, Restored, Token};

use super::{Completion, Storage, StorageError};

/// A handle on storage in memory; clones share it, so that a test keeps one and the engine the other.
///
/// It may be used from any thread. Unless told to hold, writes finish at once.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    durable: Restored,
    hold: bool,
    failed: bool,
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

    /// Storage that holds `restored` already, as after a restart.
    pub fn with(restored: Restored) -> Memory {
        let memory = Memory::default();
        memory.state().durable = restored;
        memory
    }

    /// With `true` writes stay unfinished until [`Memory::complete_next`]; `false` finishes all
    /// that are waiting, in order, and from then on every write at once.
    pub fn hold(&self, hold: bool) {
        let mut state = self.state();
        state.hold = hold;
        while !hold && !state.failed && state.finish_next() {}
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

    /// A copy of what is durable now.
    pub fn durable(&self) -> Restored {
        self.state().durable.clone()
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
        restored
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half changed, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn finish_next(&mut self) -> bool {
        let Some(persist) = self.unfinished.pop_front() else {
            return false;
        };
        apply(&mut self.durable, &persist);
        self.done.push_back(Completion {
            token: persist.token,
            result: Ok(()),
        });
        true
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

    fn poll(&mut self) -> Option<Completion> {
        self.state().done.pop_front()
    }
}

fn refusal(token: Token) -> Completion {
    Completion {
        token,
        result: Err(StorageError::Io {
            op: "write",
            path: PathBuf::from("(memory)"),
            error: std::io::Error::other("told to fail"),
        }),
    }
}

/// What `restored` becomes by one write.
///
/// # Panics
/// If the entries are not contiguous among themselves or leave a gap after the log.
pub(super) fn apply(restored: &mut Restored, persist: &Persist) {
    if let Some(hard) = persist.hard {
        restored.hard = hard;
    }
    let Some(first) = persist.entries.first() else {
        return;
    };
    let last = restored.entries.len() as u64;
    assert!(
        first.index >= 1 && first.index <= last + 1,
        "entries from {} on leave a gap after {last}",
        first.index
    );
    for (expected, entry) in (first.index..).zip(&persist.entries) {
        assert_eq!(entry.index, expected, "entries are not contiguous");
    }
    // At most the length of a Vec, so it fits.
    restored.entries.truncate((first.index - 1) as usize);
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
        assert_eq!(Memory::with(restored.clone()).durable(), restored);
    }

    #[test]
    #[should_panic(expected = "leave a gap")]
    fn a_gap_is_a_bug_of_the_caller() {
        Memory::new().submit(persist(1, 2, 2, 1));
    }
}
