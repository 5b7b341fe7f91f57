//! The driving functions: by steps with the host's time, or behind a file descriptor.

use std::ffi::c_int;

use super::code::{Failure, KEEL_OK};
use super::guard::{self, Access};
use super::keel::{keel, last_words};

/// Driving by steps: takes everything that was queued, does what is due at `now_ms`, stores,
/// sends, applies and tells. `*next_ms` becomes the time by which to call again even without new
/// input (UINT64_MAX = only with input; also on failure); `next_ms` may be NULL.
///
/// `now_ms` is any clock that never goes back and does not stop while the process does, such as
/// CLOCK_BOOTTIME. The same configuration, seed, inputs and times give the same outputs. A call
/// that is late is noticed, and its lateness is not held against the others.
///
/// Votes and the right to serve rest on nothing's being taken for older than it is. So what
/// keel_recv(), keel_heard() and keel_lost() give while the call runs, in its callbacks or in another
/// thread, waits for the next call, which is due at once then; what callbacks ask for is done in the
/// same call. Read the clock directly before the call: what another thread gives in between counts as
/// if it had come at `now_ms`. Where that may be long, take no messages in other threads meanwhile, or
/// use keel_fd(), behind which the library reads the clock itself.
///
/// Driving function. KEEL_ERR_STATE once keel_fd() was used, KEEL_ERR_INVALID for an earlier time
/// than before, or one that is past INT64_MAX: nothing was done. Any other failure: the engine has
/// stopped (see `stopped`), and later calls return the same.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_step(k: *mut keel, now_ms: u64, next_ms: *mut u64) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Drive, |e| {
        let keel = e.keel;
        let (member, mut host) = e.drive();
        member
            .step(now_ms, &mut host)
            .map_err(|error| last_words(keel, error.into()))
    });
    let (code, next) = match result {
        Ok(next) => (KEEL_OK, next),
        Err(code) => (code, u64::MAX),
    };
    if !next_ms.is_null() {
        // SAFETY: not NULL, and the host vouches for what it points to.
        unsafe { next_ms.write(next) };
    }
    code
}

/// Driving in the host's own loop: a descriptor that becomes readable when keel_dispatch() has
/// something to do, timers included. Watch it for reading with poll(), select() or level-triggered
/// epoll; never read, write or close it. From the first call on the library uses its own clock and
/// keel_step() gives KEEL_ERR_STATE; later calls return the same descriptor.
///
/// With keel_config.dir threads of the library's own write to the disk from then on and read from it,
/// so that a slow one delays no heartbeat; keel_free() waits until what was accepted is written. They
/// block all signals, and call nothing of the host's. On ext4 and xfs they use io_submit(2) where the
/// system has it; elsewhere, and without it, they write and sync themselves.
///
/// After messages of others were given with keel_recv(), keel_dispatch() may be called at once, in
/// the same turn of the loop: the descriptor need not be waited for.
///
/// Driving function. KEEL_ERR_STATE after keel_step(); KEEL_ERR_IO: no descriptor, or no thread, to be
/// had now.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_fd(k: *mut keel) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Drive, |e| {
        e.drive().0.fd().map_err(Failure::from)
    });
    match result {
        Ok(fd) => fd,
        Err(code) => code,
    }
}

/// Milliseconds until keel_dispatch() is due, for loops that want to know (the descriptor of
/// keel_fd() becomes readable by itself then): 0 = now, also while `stopped` is to be called; -1 =
/// nothing is planned: it was called, or there is no descriptor. Query function. Failures are
/// negative too: poll() takes every one of them for "no timeout".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_timeout_ms(k: *const keel) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Query, |e| {
        let planned = e.keel.handle().timeout_ms();
        Ok(match e.keel.death() {
            None => planned,
            // One that ended in an input or a query has its death to tell.
            Some(_) if e.keel.must_tell() => planned.map(|_| 0),
            Some(_) => None,
        })
    });
    match result {
        Ok(Some(ms)) => c_int::try_from(ms).unwrap_or(c_int::MAX),
        Ok(None) => -1,
        Err(code) => code,
    }
}

/// Does what keel_step() does, at the present time: call it when the descriptor of keel_fd() is
/// readable; at any other time it does no harm. One call does a bounded amount of work; when
/// something is left the descriptor stays readable. Messages that come while it runs, however long
/// callbacks take, are handled by a time that is read after they came.
///
/// Driving function. KEEL_ERR_STATE before keel_fd(); else as keel_step().
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_dispatch(k: *mut keel) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Drive, |e| {
        let keel = e.keel;
        let (member, mut host) = e.drive();
        member
            .dispatch(&mut host)
            .map_err(|error| last_words(keel, error.into()))
    });
    result.err().unwrap_or(KEEL_OK)
}
