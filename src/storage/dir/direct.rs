//! Writes that whoever drives the engine begins itself, and that the system ends by itself.
//!
//! A hand-over to a thread and back costs more than the write of a few small entries. So, as long
//! as the disk is quick, a group of nothing but entries goes to the system's own queue from where it
//! was submitted. Beginning may block where a disk has more to do than it can take: after a while
//! without a write, or a slow one, the thread is sent ahead.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use crate::core::Persist;
use crate::panics::{self, lock};
use crate::storage::StorageError;

use super::vfs::Queue;
use super::write::{Effect, Log};

/// A write that takes longer is slow. Long enough that a busy machine, on which its end is seen late,
/// does not pass for a slow disk.
const SLOW: Duration = Duration::from_millis(50);
/// A beginning that takes longer was blocked; no heartbeat is missed for that.
const BLOCKED: Duration = Duration::from_millis(10);
/// How long what is known of the disk holds.
const RECENT: Duration = Duration::from_secs(1);

/// Whether the disk is quick.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When the last write ended, if it was quick.
    quick: Option<Instant>,
    /// Until then nothing is begun here, however quick.
    shunned: Option<Instant>,
}

impl Pace {
    /// A write has taken from `begun` until `now`.
    pub(super) fn ended(&mut self, begun: Instant, now: Instant) {
        let quick = now.saturating_duration_since(begun) <= SLOW;
        self.quick = quick.then_some(now);
    }

    /// Only to begin a write has taken from `begun` until `now`.
    fn began(&mut self, begun: Instant, now: Instant) {
        if now.saturating_duration_since(begun) > BLOCKED {
            self.shunned = Some(now + RECENT);
        }
    }

    /// Whether to begin one is not going to block, as far as one can know.
    fn is_quick(&self, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) <= RECENT;
        self.quick.is_some_and(recent) && self.shunned.is_none_or(|until| until <= now)
    }
}

/// What has become of a write.
pub(super) enum Ended {
    /// It is durable, or has failed for good.
    Done(Vec<Persist>, Result<(), StorageError>),
    /// The system cannot do it this way: another has to, and all that follow.
    Undone(Vec<Persist>),
}

struct UnderWay {
    run: Vec<Persist>,
    effect: Effect,
    begun: Instant,
}

/// The queue, and what is in it.
pub(super) struct Direct {
    log: Arc<Mutex<Log>>,
    queue: Box<dyn Queue>,
    under_way: Option<UnderWay>,
    /// It did not work once.
    useless: bool,
}

impl Direct {
    /// `None` where the system has no such queue.
    pub(super) fn new(log: &Arc<Mutex<Log>>) -> Option<Direct> {
        let queue = {
            let mut log = lock(log);
            log.prepare_unbuffered();
            log.fs.queue()?
        };
        Some(Direct {
            log: log.clone(),
            queue,
            under_way: None,
            useless: false,
        })
    }

    /// Becomes readable, as an edge, when what is under way has ended.
    pub(super) fn fd(&self) -> RawFd {
        self.queue.fd()
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether something may be begun at `now`.
    pub(super) fn is_free(&self, pace: &Pace, now: Instant) -> bool {
        !self.useless && self.under_way.is_none() && pace.is_quick(now)
    }

    /// Begins to write them as one; they come back if another has to write them.
    pub(super) fn begin(&mut self, run: Vec<Persist>, pace: &mut Pace) -> Result<(), Vec<Persist>> {
        assert!(self.under_way.is_none(), "one write at a time");
        let begun = Instant::now();
        let Some(mut log) = free(&self.log) else {
            return Err(run);
        };
        // A panic is for the one who writes these next to find, and to report.
        let Ok(Some((stored, file))) = panics::catch(|| {
            let file = log.segment.unbuffered()?;
            Some((log.plain(&run)?, file))
        }) else {
            return Err(run);
        };
        match self.queue.begin(file, stored.buffer, stored.offset) {
            Ok(()) => {
                pace.began(begun, Instant::now());
                let effect = stored.effect;
                self.under_way = Some(UnderWay { run, effect, begun });
                Ok(())
            }
            Err(buffer) => {
                log.keep(buffer);
                self.useless = true;
                Err(run)
            }
        }
    }

    /// What has become of what was under way, if it has ended; with `wait` when it has.
    pub(super) fn end(&mut self, wait: bool, pace: &mut Pace) -> Option<Ended> {
        self.under_way.as_ref()?;
        let mut log = match wait {
            true => lock(&self.log),
            false => free(&self.log)?,
        };
        let (buffer, result) = self.queue.end(wait)?;
        let UnderWay { run, effect, begun } = self.under_way.take()?;
        pace.ended(begun, Instant::now());
        log.keep(buffer);
        let result = match result {
            Ok(()) => {
                log.settle(&effect);
                Ok(())
            }
            Err(error) if is_unsupported(&error) => {
                self.useless = true;
                return Some(Ended::Undone(run));
            }
            Err(error) => Err(StorageError::Io {
                op: "pwrite",
                path: log.fs.path(&log.segment.header.name()),
                error,
            }),
        };
        let result = log.fail_with(result);
        Some(Ended::Done(run, result))
    }
}

/// The log, unless somebody is at it who may wait for the disk: who adopts an image, as a rule, and
/// calls when that is done.
fn free(log: &Mutex<Log>) -> Option<MutexGuard<'_, Log>> {
    match log.try_lock() {
        Ok(log) => Some(log),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Whether it is what a system says that has not even tried: writing the same bytes in another way
/// hides nothing then.
fn is_unsupported(error: &io::Error) -> bool {
    let tried = [libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS];
    error
        .raw_os_error()
        .is_some_and(|code| tried.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_that_is_known_to_be_quick_is_written_to_directly() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert!(!pace.is_quick(start), "nothing is known");
        pace.ended(at(0), at(50));
        assert!(pace.is_quick(at(50)) && pace.is_quick(at(1_050)));
        assert!(!pace.is_quick(at(1_051)), "it may be another disk by now");
        pace.ended(at(2_000), at(2_051));
        assert!(!pace.is_quick(at(2_051)), "it was slow");
        pace.ended(at(3_000), at(3_001));
        pace.began(at(3_100), at(3_110));
        assert!(pace.is_quick(at(3_110)));
        pace.began(at(3_200), at(3_211));
        pace.ended(at(3_200), at(3_212));
        assert!(!pace.is_quick(at(4_210)), "it has blocked");
        pace.ended(at(4_210), at(4_211));
        assert!(pace.is_quick(at(4_211)));
    }
}
