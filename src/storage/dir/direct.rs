//! Writes that the thread begins and the system ends by itself.
//!
//! A group of nothing but entries goes to the system's own queue. Whoever drives the engine is told
//! by the system when it has ended: the thread need not wait for the disk, wake up, and pass that on.
//! To begin may block, on a file system that is frozen or a disk that has more to do than it can
//! take; so whoever drives never begins one, and waits for no lock that is held meanwhile.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, TryLockError};

use crate::core::Persist;
use crate::panics::{self, lock};
use crate::storage::StorageError;

use super::vfs::Queue;
use super::write::{Effect, Log};

/// What has become of a write.
pub(super) enum Ended {
    /// It is durable, or has failed for good.
    Done(Vec<Persist>, Result<(), StorageError>),
    /// The system cannot do it this way: another has to, and all that follow.
    Undone(Vec<Persist>),
}

/// What was not begun: why it failed, or nothing if another has to write it.
pub(super) type Unbegun = (Vec<Persist>, Option<StorageError>);

/// The queue, and what is in it.
pub(super) struct Direct {
    queue: Box<dyn Queue>,
    under_way: Option<(Vec<Persist>, Effect)>,
    /// It did not work once.
    useless: bool,
}

impl Direct {
    /// `None` where the system has no such queue.
    pub(super) fn new(log: &mut Log) -> Option<Direct> {
        log.prepare_unbuffered();
        Some(Direct {
            queue: log.fs.queue()?,
            under_way: None,
            useless: false,
        })
    }

    /// Becomes readable, as an edge, when what is under way has ended.
    pub(super) fn fd(&self) -> RawFd {
        self.queue.fd()
    }

    /// Begins to write them as one; they come back if that failed, or if another has to write them.
    /// `begins` is called before it can end.
    pub(super) fn begin(
        &mut self,
        log: &Mutex<Log>,
        run: Vec<Persist>,
        begins: impl FnOnce(),
    ) -> Result<(), Unbegun> {
        assert!(self.under_way.is_none(), "one write at a time");
        let mut log = lock(log);
        let plain = panics::catch(|| match self.useless {
            true => Ok(None),
            false => log.plain(&run),
        });
        let (stored, file) = match plain {
            Ok(Ok(Some(plain))) => plain,
            Ok(Err(error)) => return Err((run, Some(error))),
            Ok(Ok(None)) => return Err((run, None)),
            Err(text) => return Err((run, log.fail_with::<()>(panicked(&log, text)).err())),
        };
        begins();
        match self.queue.begin(file, stored.buffer, stored.offset) {
            Ok(()) => {
                self.under_way = Some((run, stored.effect));
                Ok(())
            }
            Err(buffer) => {
                log.keep(buffer);
                self.useless = true;
                Err((run, None))
            }
        }
    }

    /// What has become of what was under way, if it has ended; with `wait` when it has.
    pub(super) fn end(&mut self, log: &Mutex<Log>, wait: bool) -> Option<Ended> {
        self.under_way.as_ref()?;
        let mut log = match wait {
            true => lock(log),
            // Who adopts an image is at it, and calls when that is done.
            false => unless_locked(log)?,
        };
        let (buffer, result) = self.queue.end(wait)?;
        let (run, effect) = self.under_way.take()?;
        log.keep(buffer);
        let result = match result {
            Ok(()) => {
                let entries = run.iter().flat_map(|persist| &persist.entries);
                log.settle(&effect, entries);
                Ok(())
            }
            Err(error) if is_untried(&error) => {
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

/// The end of the log, as a failed write is.
pub(super) fn panicked<T>(log: &Log, text: String) -> Result<T, StorageError> {
    Err(StorageError::Io {
        op: "write",
        path: log.fs.root(),
        error: io::Error::other(text),
    })
}

/// What is locked, unless somebody else has it.
pub(super) fn unless_locked<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Whether it is what a system says that has not even tried: writing the same bytes in another way
/// hides nothing then.
fn is_untried(error: &io::Error) -> bool {
    let untried = [
        libc::EINVAL,
        libc::EOPNOTSUPP,
        libc::ENOSYS,
        libc::EAGAIN,
        libc::EINTR,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| untried.contains(&code))
}
