//! Threads that the host's signals do not reach.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Runs `f` with every signal blocked in this thread: a thread that `f` starts has them blocked for
/// good.
pub(super) fn blocked<T>(f: impl FnOnce() -> T) -> T {
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are there to be written, and `all` is filled before it is read.
    let changed = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    let result = f();
    if changed == 0 {
        // SAFETY: the call above succeeded, so `before` is what the thread had blocked.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
    result
}
