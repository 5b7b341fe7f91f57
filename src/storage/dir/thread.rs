//! The thread that writes: whoever drives the engine hands over, and hears of it when it is durable.
//! What the system can do by itself needs no thread ([`direct`](super::direct)).
//!
//! While a sync is under way, what is submitted waits, and goes to the disk as one group with one
//! sync if it can ([`run_length`]). Completions come in the order of submission. After a failure, or
//! a panic here, everything that waits fails.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::core::{Index, Persist};
use crate::panics::{self, lock};
use crate::storage::{Completion, StorageError, Wake};

use super::direct::{Direct, Ended, Unbegun, panicked, unless_locked};
use super::helper::Helper;
use super::write::{Log, run_length};

/// Writes that wait or are being done. Each is what one driving call brought, and a few words beside
/// the entries, which it shares with the core: so a sync may take as long as so many calls before
/// the core begins to gather into larger ones, which costs those that come late another sync.
const UNDER_WAY_MAX: usize = 256;

/// After so long without a write META is told how much is durable.
const IDLE: Duration = Duration::from_millis(50);
/// And at the latest so long after it was: what is missing of what it knows is damage, while what is
/// behind it may pass for a write that was cut off.
const BUSY: Duration = Duration::from_secs(1);

/// What is to be done, in order.
enum Job {
    Write(Persist),
    /// Remove what the log behind this index does not need.
    Trim(Index),
}

/// What the thread does next.
enum Next {
    Write(Vec<Persist>),
    Trim(Index),
    Idle,
    End,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Writes among them, and those that are being done.
    writes: usize,
    /// The thread is at work.
    busy: bool,
    /// It was called, and has not come yet.
    called: bool,
    /// A write is under way that needs no thread; until it has ended the thread begins nothing.
    direct: bool,
    /// Somebody wanted to see whether that has ended while it was being begun.
    missed: bool,
    /// Groups written so far.
    written: u64,
    /// Since when META may know less than is durable.
    ahead: Option<Instant>,
    done: VecDeque<Completion>,
    /// Somebody waits until there is nothing more to be done.
    flushed: bool,
    /// Why something could not be removed.
    trim_failed: Option<StorageError>,
    ending: bool,
}

#[derive(Default)]
struct Shared {
    /// What the system does by itself, where it does. Locked before the others; while a write is
    /// begun, however long that takes.
    direct: Mutex<Option<Direct>>,
    queue: Mutex<Queue>,
    /// There is something to be done.
    more: Condvar,
    /// There is nothing more to be done.
    quiet: Condvar,
}

/// A handle on the thread. Dropping it waits until everything is done that was submitted.
pub(super) struct LogThread {
    shared: Arc<Shared>,
    log: Arc<Mutex<Log>>,
    thread: Helper,
    fd: Option<RawFd>,
}

impl LogThread {
    /// Starts it. It calls `wake` after every completion.
    pub(super) fn spawn(log: &Arc<Mutex<Log>>, wake: Wake) -> Result<LogThread, StorageError> {
        let direct = Direct::new(&mut lock(log));
        let fd = direct.as_ref().map(Direct::fd);
        let shared = Arc::new(Shared {
            direct: Mutex::new(direct),
            ..Shared::default()
        });
        // Weak, so that a forked child that drops the rest closes the files: what this thread holds
        // while it writes nobody can drop there.
        let (theirs, log_of_it) = (shared.clone(), Arc::downgrade(log));
        let main = move || work(&theirs, &log_of_it, &wake);
        let root = lock(log).fs.root();
        let thread = Helper::start("keel-log", "start of the writing thread", root, main)?;
        Ok(LogThread {
            shared,
            log: log.clone(),
            thread,
            fd,
        })
    }

    pub(super) fn has_room(&self) -> bool {
        lock(&self.shared.queue).writes < UNDER_WAY_MAX
    }

    /// Becomes readable, as an edge, when something is finished of which nobody is woken otherwise.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.fd
    }

    /// It is begun by [`LogThread::go_on`].
    pub(super) fn submit(&mut self, persist: Persist) {
        let mut queue = lock(&self.shared.queue);
        queue.writes += 1;
        queue.jobs.push_back(Job::Write(persist));
    }

    /// Has what comes next begun, unless something is being done, after which it goes on anyway.
    pub(super) fn go_on(&mut self) {
        let mut queue = lock(&self.shared.queue);
        let waits = !queue.busy && !queue.direct && !queue.called;
        if waits && !queue.jobs.is_empty() {
            queue.called = true;
            // Or the thread would wake up to wait for this lock.
            drop(queue);
            self.shared.more.notify_one();
        }
    }

    /// Takes in what has become of a write that the system does; with `wait` when it has ended.
    fn reap(&mut self, wait: bool) {
        let Some(mut direct) = self.shared.direct(wait) else {
            return;
        };
        let ended = direct.as_mut().and_then(|it| it.end(&self.log, wait));
        drop(direct);
        let Some(ended) = ended else {
            return;
        };
        let mut queue = lock(&self.shared.queue);
        queue.direct = false;
        match ended {
            Ended::Done(run, result) => {
                let first = queue.ahead.is_none();
                queue.finish(&run, &result);
                if first {
                    // From now on it counts the time until META is to be told.
                    self.shared.more.notify_one();
                }
            }
            Ended::Undone(run) => queue.put_back(run),
        }
    }

    /// An error is one of an earlier call.
    pub(super) fn trim(&mut self, base: Index) -> Result<(), StorageError> {
        let failed = {
            let mut queue = lock(&self.shared.queue);
            queue.jobs.push_back(Job::Trim(base));
            queue.trim_failed.take()
        };
        self.go_on();
        failed.map_or(Ok(()), Err)
    }

    pub(super) fn poll(&mut self) -> Option<Completion> {
        self.reap(false);
        lock(&self.shared.queue).done.pop_front()
    }

    /// Waits until there is nothing to be done.
    pub(super) fn flush(&mut self) {
        loop {
            self.go_on();
            let mut queue = lock(&self.shared.queue);
            if queue.direct && !queue.busy {
                drop(queue);
                self.reap(true);
            } else if queue.busy || !queue.jobs.is_empty() {
                queue.flushed = true;
                let waited = self.shared.quiet.wait(queue);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            } else {
                return;
            }
        }
    }

    /// Leaves it alone, in a child where it does not exist.
    pub(super) fn forget(mut self) {
        self.thread.forget();
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        if !self.thread.is_there() {
            return;
        }
        // What waits behind is the thread's.
        self.flush();
        lock(&self.shared.queue).ending = true;
        self.shared.more.notify_one();
        self.thread.join();
    }
}

impl Shared {
    /// For whoever drives: `None` while a write is being begun, after which it is called.
    fn direct(&self, wait: bool) -> Option<MutexGuard<'_, Option<Direct>>> {
        if wait {
            return Some(lock(&self.direct));
        }
        unless_locked(&self.direct).or_else(|| {
            lock(&self.queue).missed = true;
            // It may have been begun just now, and nobody have seen that it was missed.
            unless_locked(&self.direct)
        })
    }

    /// Has the system write it, if that can be.
    fn begin(&self, log: &Mutex<Log>, run: Vec<Persist>, wake: &Wake) -> Result<(), Unbegun> {
        let begun = match &mut *lock(&self.direct) {
            Some(direct) => direct.begin(log, run, || lock(&self.queue).direct = true),
            None => return Err((run, None)),
        };
        let mut queue = lock(&self.queue);
        queue.direct &= begun.is_ok();
        if std::mem::take(&mut queue.missed) {
            drop(queue);
            wake();
        }
        begun
    }

    /// The next thing to be done, or that there was none for so long that META is to be told.
    fn next(&self) -> Next {
        let mut queue = lock(&self.queue);
        queue.busy = false;
        loop {
            queue.called = false;
            if queue.is_overdue() {
                queue.ahead = None;
                queue.busy = true;
                return Next::Idle;
            }
            if let Some(next) = queue.next() {
                queue.busy = true;
                return next;
            }
            if std::mem::take(&mut queue.flushed) {
                self.quiet.notify_all();
            }
            if queue.ending {
                return Next::End;
            }
            // Without a limit longer than anybody lives.
            let most = queue.ahead.map_or(Duration::MAX, |_| IDLE);
            let before = queue.written;
            let waited = self.more.wait_timeout(queue, most);
            let (woken, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            if waited.timed_out() && queue.is_idle() && queue.written == before {
                queue.busy = true;
                queue.ahead = None;
                return Next::Idle;
            }
        }
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && !self.direct && !self.ending
    }

    /// Whether META is to be told now, whatever else there is to do.
    fn is_overdue(&self) -> bool {
        let long = |since: Instant| since.elapsed() >= BUSY;
        !self.direct && !self.ending && self.ahead.is_some_and(long)
    }

    /// What the thread does next.
    fn next(&mut self) -> Option<Next> {
        if self.direct {
            return None;
        }
        if let Some(Job::Trim(base)) = self.jobs.front() {
            let base = *base;
            self.jobs.pop_front();
            return Some(Next::Trim(base));
        }
        self.run().map(Next::Write)
    }

    /// The next writes, as many as may be written as one.
    fn run(&mut self) -> Option<Vec<Persist>> {
        let writes = self.jobs.iter().map_while(|job| match job {
            Job::Write(persist) => Some(persist),
            Job::Trim(_) => None,
        });
        let count = run_length(writes);
        let run = self.jobs.drain(..count).filter_map(|job| match job {
            Job::Write(persist) => Some(persist),
            Job::Trim(_) => None,
        });
        let run: Vec<Persist> = run.collect();
        (!run.is_empty()).then_some(run)
    }

    /// They were not written after all.
    fn put_back(&mut self, run: Vec<Persist>) {
        for persist in run.into_iter().rev() {
            self.jobs.push_front(Job::Write(persist));
        }
    }

    /// What has come of a run.
    fn finish(&mut self, run: &[Persist], result: &Result<(), StorageError>) {
        self.ahead.get_or_insert_with(Instant::now);
        self.written += 1;
        self.writes -= run.len();
        self.done.extend(run.iter().map(|persist| Completion {
            token: persist.token,
            result: result.as_ref().copied().map_err(StorageError::again),
        }));
    }
}

fn work(shared: &Shared, log: &Weak<Mutex<Log>>, wake: &Wake) {
    loop {
        let next = shared.next();
        let Some(log) = log.upgrade() else {
            return;
        };
        match next {
            Next::End => return,
            Next::Idle => {
                // If it fails, the next write will say so.
                let _ = guarded(&log, Log::note_durable);
            }
            Next::Trim(base) => {
                let failed = guarded(&log, |log| log.trim_segments(base)).err();
                lock(&shared.queue).trim_failed = failed;
            }
            Next::Write(run) => {
                let Err((run, failed)) = shared.begin(&log, run, wake) else {
                    continue;
                };
                let result = match failed {
                    Some(error) => Err(error),
                    None => guarded(&log, |log| log.write(&run)),
                };
                lock(&shared.queue).finish(&run, &result);
                wake();
            }
        }
    }
}

/// Does something with the log. A panic is the end of it, as a failed write is.
fn guarded(
    log: &Mutex<Log>,
    act: impl FnOnce(&mut Log) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let result = panics::catch(|| act(&mut lock(log)));
    result.unwrap_or_else(|text| {
        let log = lock(log);
        log.fail_with(panicked(&log, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or what it does not know of could be gone without a word, however long that was durable.
    #[test]
    fn meta_is_told_in_time_though_there_is_always_more_to_do() {
        let shared = Shared::default();
        let waits = || lock(&shared.queue).jobs.push_back(Job::Trim(1));
        lock(&shared.queue).ahead = Some(Instant::now());
        waits();
        assert!(matches!(shared.next(), Next::Trim(1)));
        lock(&shared.queue).ahead = Instant::now().checked_sub(BUSY);
        waits();
        lock(&shared.queue).direct = true;
        assert!(!lock(&shared.queue).is_overdue(), "a write is under way");
        lock(&shared.queue).direct = false;
        assert!(matches!(shared.next(), Next::Idle));
        assert!(matches!(shared.next(), Next::Trim(1)));
    }
}
