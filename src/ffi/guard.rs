//! The one way in. Every function that takes an engine goes through [`enter`], which checks in
//! one place what c-api.md promises of all of them: NULL, fork, a dead engine, a second driver,
//! panics, and the text for keel_errmsg().

use std::ffi::c_int;
use std::sync::{MutexGuard, PoisonError, TryLockError};

use super::callbacks::HostCalls;
use super::code::{Failure, KEEL_ERR_BUSY, KEEL_ERR_CLOSED, KEEL_ERR_FORKED, KEEL_ERR_INTERNAL};
use super::errmsg;
use super::keel::keel;
use crate::engine::Member;
use crate::panics;

/// What a function does with the engine; decides who may call it when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Queues something: any thread, also from callbacks; CLOSED once the engine is dead.
    Input,
    /// Looks only: any thread, also from callbacks and after the engine's death.
    Query,
    /// Drives: one thread at a time, never from a callback.
    Drive,
}

/// An engine that may be used in the way asked for.
pub struct Entered<'a> {
    /// The engine.
    pub keel: &'a keel,
    member: Option<MutexGuard<'a, Member>>,
}

impl Entered<'_> {
    /// The driven half and the way out to the host.
    pub fn drive(&mut self) -> (&mut Member, HostCalls<'_>) {
        match self.member.as_deref_mut() {
            Some(member) => (member, HostCalls::new(self.keel)),
            None => panic!("only Access::Drive holds the driven half"),
        }
    }
}

/// Runs `f` on the engine (`None` for NULL) if it may be used in this way; on failure the code is
/// returned and the detail is kept for this thread.
pub fn enter<T>(
    k: Option<&keel>,
    access: Access,
    f: impl FnOnce(&mut Entered<'_>) -> Result<T, Failure>,
) -> Result<T, c_int> {
    let result = match k {
        None => Err(Failure::invalid("the engine (keel *) is NULL")),
        Some(keel) => admit(keel, access).and_then(|mut entered| {
            let result = contained(keel, || f(&mut entered));
            match access {
                Access::Drive => announce(keel),
                // Whoever drives is to tell the host.
                _ if keel.must_tell() => keel.handle().wake(),
                _ => {}
            }
            result
        }),
    };
    result.map_err(|failure| {
        errmsg::set(&failure.text);
        failure.code
    })
}

/// The same for functions that need no engine: contains panics, keeps the detail of a failure.
pub fn outside<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, c_int> {
    let result = catch(f).unwrap_or_else(|text| Err(Failure::new(KEEL_ERR_INTERNAL, text)));
    result.map_err(|failure| {
        errmsg::set(&failure.text);
        failure.code
    })
}

fn admit(keel: &keel, access: Access) -> Result<Entered<'_>, Failure> {
    if keel.is_forked() {
        return Err(Failure::new(
            KEEL_ERR_FORKED,
            format!(
                "this engine belongs to process {}, this is its child {}",
                keel.pid(),
                std::process::id()
            ),
        ));
    }
    let member = match access {
        Access::Query => None,
        Access::Input => match keel.death() {
            Some(death) => {
                let text = format!("the engine has stopped: {}", death.text);
                return Err(Failure::new(KEEL_ERR_CLOSED, text));
            }
            None => None,
        },
        Access::Drive => {
            let mut member = try_drive(keel)?;
            if let Some(death) = keel.death() {
                let death = death.clone();
                // Nothing is left to be done after this, so the descriptor is not to say so.
                let _ = catch(|| member.quiet());
                announce(keel);
                return Err(death);
            }
            Some(member)
        }
    };
    Ok(Entered { keel, member })
}

/// The driving thread holds this lock while callbacks run. Nobody ever waits for it, so no
/// callback can deadlock on it.
pub fn try_drive(keel: &keel) -> Result<MutexGuard<'_, Member>, Failure> {
    match keel.member().try_lock() {
        Ok(member) => Ok(member),
        Err(TryLockError::Poisoned(poisoned)) => Ok(PoisonError::into_inner(poisoned)),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            KEEL_ERR_BUSY,
            "this engine is being driven by another thread, or by the caller of this callback",
        )),
    }
}

/// A panic leaves the engine in an unknown state: it is never driven again.
fn contained<T>(keel: &keel, f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch(f).unwrap_or_else(|text| {
        let failure = Failure::new(KEEL_ERR_INTERNAL, text);
        keel.die_of_panic(failure.clone());
        Err(failure)
    })
}

/// Tells the host of the engine's death, once, in the driving call that notices it.
fn announce(keel: &keel) {
    if keel.must_announce() {
        // A second panic, on the way of telling about the first, has nobody left to be told to.
        let _ = catch(|| HostCalls::new(keel).announce_death());
    }
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// As long as it lives this thread is not cancelled. pthread_cancel() unwinds it from within some
/// system call, and unwinding that is not Rust's own ends the process where it meets Rust's.
struct Uncancelled {
    before: c_int,
}

impl Uncancelled {
    fn begin() -> Uncancelled {
        const DISABLE: c_int = 1;
        let mut before = 0;
        // SAFETY: it changes this thread's state only, and `before` is there to be written.
        unsafe { pthread_setcancelstate(DISABLE, &mut before) };
        Uncancelled { before }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        // SAFETY: as above; who asked before does not want to know.
        unsafe { pthread_setcancelstate(self.before, std::ptr::null_mut()) };
    }
}

/// Runs `f`; a panic becomes its text. The closures given here touch the engine only, which is
/// abandoned after a panic.
pub fn catch<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    let _uncancelled = Uncancelled::begin();
    panics::catch(f)
}
