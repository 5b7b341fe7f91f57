//! Checking segments that are written no more: each gets its checkpoint, and is read once. What one
//! that was begun since the start holds is known from writing it; reading it back at once would take as
//! much of the disk as writing it, and waits until no segment was finished for a while.
//!
//! It is done by a thread of its own where the log is written by one, and takes its time: nothing ever
//! waits for it. Without one the segment that was just finished is done by the write that has begun the
//! next, unread if it was begun since the start, and an older one that lacks its checkpoint with it;
//! nothing else is.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::core::Index;
use crate::panics::{self, lock};
use crate::storage::{StorageError, Wake};

use super::checkpoint::{self, Checkpoint};
use super::helper::Helper;
use super::page::Flaw;
use super::segment::{End, Header};
use super::vfs::Vfs;
use super::write::Known;

/// What is read without a pause, and the pause: 32 MiB a second at most, so that little of what the disk
/// can do is taken from the writes. Segments that are finished faster get their checkpoints later; a
/// start before that reads them.
const SLICE: u64 = 1 << 20;
const PAUSE: Duration = Duration::from_millis(32);
/// Nobody writes much any more if no segment was finished for so long.
const QUIET: Duration = Duration::from_secs(2);

/// Segments that wait to be read: those that were written without a quiet moment for longer are read by
/// the next start.
const OLD_MAX: usize = 1024;

/// A segment that is written no more.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) header: Header,
    /// Where the log ends with it.
    pub(super) end: End,
    /// There is a file of its checkpoint's name.
    pub(super) has_checkpoint: bool,
    /// What is to be its checkpoint, without reading it.
    pub(super) made: Option<Checkpoint>,
    /// It was begun since the start.
    pub(super) own: bool,
}

#[derive(Default)]
struct State {
    /// Finished in this run.
    new: VecDeque<Sealed>,
    /// To be read in time: found by the opening, and behind those what was finished since.
    old: VecDeque<Sealed>,
    /// When one was finished last.
    finished: Option<Instant>,
    /// What is wrong, and was not told yet.
    found: VecDeque<(Index, StorageError)>,
    threaded: bool,
    ending: bool,
}

impl State {
    /// How long the next one is left alone that is to be read in time.
    fn rest(&self) -> Duration {
        let Some(next) = self.old.front() else {
            return Duration::MAX;
        };
        let finished = self.finished.filter(|_| next.own);
        finished.map_or(Duration::ZERO, |at| QUIET.saturating_sub(at.elapsed()))
    }
}

/// What is to be checked.
pub(super) struct Checks {
    fs: Arc<dyn Vfs>,
    known: Arc<Mutex<Known>>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Checks {
    pub(super) fn new(fs: Arc<dyn Vfs>, known: Arc<Mutex<Known>>, old: VecDeque<Sealed>) -> Checks {
        let state = State {
            old,
            ..State::default()
        };
        Checks {
            fs,
            known,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// The log has gone on in another segment; `made` is what whoever wrote this one knows of it.
    pub(super) fn sealed(&self, header: &Header, end: End, made: Option<Checkpoint>) {
        let mut state = lock(&self.state);
        let sealed = Sealed {
            header: header.clone(),
            end,
            has_checkpoint: false,
            own: made.is_some(),
            made,
        };
        if state.threaded {
            state.finished = Some(Instant::now());
            state.new.push_back(sealed);
            self.changed.notify_all();
            return;
        }
        state.old.retain(|old| !old.has_checkpoint);
        let old = state.old.pop_front();
        drop(state);
        for sealed in [Some(sealed), old].into_iter().flatten() {
            self.check(&sealed, &|_| true);
        }
    }

    /// What was found to be wrong since the last question: the first index that it concerns.
    pub(super) fn take_found(&self) -> Option<(Index, StorageError)> {
        lock(&self.state).found.pop_front()
    }

    /// Reads a segment, and writes its checkpoint if that is not there; true if something is wrong.
    fn check(&self, sealed: &Sealed, goes_on: &dyn Fn(u64) -> bool) -> bool {
        let Sealed { header, end, .. } = sealed;
        let segment = header.name();
        if let Some(made) = &sealed.made {
            self.write(made, header);
            return false;
        }
        let wrong = match Checkpoint::of_segment(&*self.fs, header, end, goes_on) {
            Ok(None) => return false,
            Ok(Some(found)) => match Checkpoint::read(&*self.fs, header, end) {
                Some(known) if known == found => return false,
                Some(_) => Flaw::Bad("not what its checkpoint says").at(
                    self.fs.path(&segment),
                    0,
                    header.prev.index + 1,
                ),
                None => {
                    self.write(&found, header);
                    return false;
                }
            },
            // It was trimmed.
            Err(error) if checkpoint::is_missing(&error) => return false,
            Err(error) => error,
        };
        let index = match &wrong {
            StorageError::Corrupt { index, .. } => *index,
            _ => header.prev.index + 1,
        };
        // What cannot be read now may be whole.
        if !matches!(wrong, StorageError::Io { .. }) {
            checkpoint::remove(&*self.fs, &segment);
        }
        lock(&self.state).found.push_back((index, wrong));
        true
    }

    /// Whatever keeps it from being written: the segment will be read instead.
    fn write(&self, checkpoint: &Checkpoint, header: &Header) {
        let segment = header.name();
        if checkpoint.write(&*self.fs, &segment).is_err() {
            return;
        }
        let trimmed = self.fs.open(&segment).err();
        let trimmed = trimmed.is_some_and(|error| checkpoint::is_missing(&error));
        // Who trimmed it, or found it damaged, may have looked for this before it was there.
        if trimmed || lock(&self.known).condemned.contains(&header.seq) {
            checkpoint::remove(&*self.fs, &segment);
        }
    }

    /// Checks one after the other. Calls `wake` when something is wrong.
    fn work(&self, wake: &Wake) {
        let read = Cell::new(0);
        while let Some(sealed) = self.next() {
            let goes_on = |bytes: u64| {
                read.set(read.get() + bytes);
                if read.get() < SLICE {
                    return self.pauses(Duration::ZERO);
                }
                read.set(0);
                self.pauses(PAUSE)
            };
            let checked = panics::catch(|| self.check(&sealed, &goes_on));
            if checked.unwrap_or(false) {
                wake();
            }
            if sealed.made.is_some() {
                self.read_in_time(sealed);
            }
        }
    }

    /// What was just written is read when it is quiet, unless too much waits for that already.
    fn read_in_time(&self, sealed: Sealed) {
        let old = &mut lock(&self.state).old;
        if old.len() < OLD_MAX && old.try_reserve(1).is_ok() {
            old.push_back(Sealed {
                has_checkpoint: true,
                made: None,
                ..sealed
            });
        }
    }

    /// The next one, be it a new one; `None` at the end.
    fn next(&self) -> Option<Sealed> {
        let mut state = lock(&self.state);
        loop {
            if state.ending {
                return None;
            }
            if let Some(new) = state.new.pop_front() {
                return Some(new);
            }
            let rest = state.rest();
            if rest.is_zero() {
                return state.old.pop_front();
            }
            let waited = self.changed.wait_timeout(state, rest);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits so long; false at the end.
    fn pauses(&self, rest: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self
            .changed
            .wait_timeout_while(state, rest, |state| !state.ending);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.ending
    }
}

/// The thread that checks. Dropping it waits until it has ended, which it does within a group.
pub(super) struct CheckThread {
    checks: Arc<Checks>,
    thread: Helper,
}

impl CheckThread {
    pub(super) fn spawn(checks: &Arc<Checks>, wake: Wake) -> Result<CheckThread, StorageError> {
        let theirs = checks.clone();
        lock(&checks.state).threaded = true;
        let main = move || theirs.work(&wake);
        let thread = Helper::start(
            "keel-check",
            "start of the checking thread",
            checks.fs.root(),
            main,
        )
        .inspect_err(|_| lock(&checks.state).threaded = false)?;
        Ok(CheckThread {
            checks: checks.clone(),
            thread,
        })
    }

    /// Leaves it alone, in a child where it does not exist.
    pub(super) fn forget(mut self) {
        self.thread.forget();
    }
}

impl Drop for CheckThread {
    fn drop(&mut self) {
        if !self.thread.is_there() {
            return;
        }
        lock(&self.checks.state).ending = true;
        self.checks.changed.notify_all();
        self.thread.join();
    }
}
