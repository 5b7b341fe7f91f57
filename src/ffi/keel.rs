//! An engine's life: made, bootstrapped, dead, freed.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use super::callbacks::{HostCalls, host_state, keel_callbacks, read_callbacks};
use super::code::{Failure, KEEL_ERR_CLOSED, KEEL_ERR_INTERNAL, KEEL_OK};
use super::config::{keel_config, keel_peer, read_config, read_peers};
use super::errmsg;
use super::guard::{self, Access};
use super::tickets::{Tickets, UserData};
use crate::engine::{Handle, Member, View};

/// An engine: one member of one cluster.
pub struct keel {
    pid: u32,
    entry_max: usize,
    member: Mutex<Member>,
    handle: Handle,
    tickets: Tickets,
    callbacks: keel_callbacks,
    ud: UserData,
    death: OnceLock<Failure>,
    panicked: AtomicBool,
    announced: AtomicBool,
}

// Inputs and queries come from any thread.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<keel>();
};

impl keel {
    /// The process that made it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether this is another process than the one that made it.
    pub fn is_forked(&self) -> bool {
        self.pid != std::process::id()
    }

    /// The most bytes of one proposal.
    pub fn entry_max(&self) -> usize {
        self.entry_max
    }

    /// The driven half; only tried, never waited for.
    pub fn member(&self) -> &Mutex<Member> {
        &self.member
    }

    /// The half that any thread may use.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Reads what the engine knows; of a dead one that it leads nobody.
    pub fn view<R>(&self, read: impl FnOnce(&View) -> R) -> R {
        if self.death().is_none() {
            return self.handle.view(read);
        }
        let mut view = self.handle.view(View::clone);
        view.bury();
        read(&view)
    }

    /// Who waits for what.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// The host's functions.
    pub fn callbacks(&self) -> &keel_callbacks {
        &self.callbacks
    }

    /// The host's argument to them.
    pub fn ud(&self) -> *mut c_void {
        self.ud.0
    }

    /// Why it is dead, if it is.
    pub fn death(&self) -> Option<&Failure> {
        self.death.get()
    }

    /// Ends it; the first reason is the one that counts.
    pub fn die(&self, why: Failure) {
        let _ = self.death.set(why);
    }

    /// Ends it by a panic, which the engine cannot have logged itself.
    pub fn die_of_panic(&self, why: Failure) {
        self.panicked.store(true, Ordering::Release);
        self.die(why);
    }

    /// Whether a panic ended it.
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// Whether it is dead and the host was not told yet.
    pub fn must_tell(&self) -> bool {
        self.death.get().is_some() && !self.announced.load(Ordering::Acquire)
    }

    /// True once: for the caller that has to tell the host of the death.
    pub fn must_announce(&self) -> bool {
        self.death.get().is_some() && !self.announced.swap(true, Ordering::AcqRel)
    }
}

/// Makes an engine, opens its directory or storage, and stores it at `out` (NULL there on failure).
/// Nothing is sent, and no callback runs but keel_storage's `open` and `snap_get`, before the first
/// driving call. `cb` is copied; `ud` is handed to every callback of it as it is.
///
/// A directory whose log is damaged opens with what is whole of it: see LOST_DATA in
/// keel_callbacks.event. KEEL_ERR_CORRUPT means that nobody could make the node whole: term and vote
/// are lost, or this is the only voter (`keelctl inspect` says which); or that keel_storage has lost
/// anything.
///
/// Any thread. KEEL_ERR_INVALID (see keel_errmsg()), KEEL_ERR_UNSUPPORTED; of the directory or
/// storage KEEL_ERR_NOT_FOUND, KEEL_ERR_EXISTS, KEEL_ERR_LOCKED, KEEL_ERR_FOREIGN,
/// KEEL_ERR_CORRUPT, KEEL_ERR_IO; KEEL_ERR_NOSPC: no descriptor, or no room, which a restart on
/// a full disk needs in rare cases only; KEEL_ERR_NOMEM: there is none for what is stored.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_new(
    out: *mut *mut keel,
    cfg: *const keel_config,
    cb: *const keel_callbacks,
    ud: *mut c_void,
) -> c_int {
    let made = guard::outside(|| {
        if out.is_null() {
            return Err(Failure::invalid("out is NULL"));
        }
        // SAFETY: not NULL, and the host vouches for what it points to.
        unsafe { out.write(std::ptr::null_mut()) };
        // SAFETY: the host vouches for the struct and the text in it.
        let (mut settings, place) = unsafe { read_config(cfg) }?;
        // SAFETY: the host vouches for the struct.
        let callbacks = unsafe { read_callbacks(cb) }?;
        settings.host_state = host_state(&callbacks);
        let entry_max = settings.entry_max;
        let (member, handle) = Member::new(settings, place)?;
        Ok(Box::new(keel {
            pid: std::process::id(),
            entry_max,
            member: Mutex::new(member),
            handle,
            tickets: Tickets::new(),
            callbacks,
            ud: UserData(ud),
            death: OnceLock::new(),
            panicked: AtomicBool::new(false),
            announced: AtomicBool::new(false),
        }))
    });
    match made {
        Ok(engine) => {
            // SAFETY: not NULL, or nothing would have been made.
            unsafe { out.write(Box::into_raw(engine)) };
            KEEL_OK
        }
        Err(code) => code,
    }
}

/// The first start of a cluster: every first member calls it once, with the same list in any
/// order, itself included. A node that joins later is made with KEEL_NEW_NODE and never
/// bootstrapped: the leader adds it (keel_node_add(), keel_node_replace()) and sends it everything.
///
/// Driving function. KEEL_ERR_EXISTS once the node has any log: a restarted daemon may call it
/// every time and take that for success. KEEL_ERR_INVALID: a bad list or bad settings in
/// keel_config.params. KEEL_ERR_NOSPC, KEEL_ERR_NOMEM: not durable yet, and is once there is room.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_bootstrap(k: *mut keel, peers: *const keel_peer, n: usize) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Drive, |e| {
        // SAFETY: the host vouches for `n` peers and what they point to.
        let peers = unsafe { read_peers(peers, n) }?;
        let keel = e.keel;
        let (member, _) = e.drive();
        member
            .bootstrap(&peers)
            .map_err(|error| last_words(keel, error.into()))
    });
    result.err().unwrap_or(KEEL_OK)
}

/// A failure of a driving call, which may be the engine's last.
pub fn last_words(keel: &keel, failure: Failure) -> Failure {
    if failure.ends_engine() {
        keel.die(failure.clone());
    }
    failure
}

/// Closes an engine and frees it. Requests that still wait are completed with KEEL_ERR_CLOSED
/// before it returns; in their completions inputs give KEEL_ERR_CLOSED and queries still work.
/// No other thread may be in, or later begin, a call on this engine.
///
/// Returns 0; KEEL_ERR_BUSY when called from a callback or while another thread drives: then
/// nothing is freed. NULL: 0, nothing happens. In a forked child it frees the child's copy, runs
/// no callback and leaves the parent's engine alone; forked inside a callback, nothing happens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_free(k: *mut keel) -> c_int {
    // SAFETY: the host vouches for the engine.
    let Some(keel) = (unsafe { k.as_ref() }) else {
        return KEEL_OK;
    };
    match guard::try_drive(keel) {
        // The thread that drives does not exist in a child; what it was changing is unknown and
        // is left alone for good.
        Err(_) if keel.is_forked() => return KEEL_OK,
        Err(busy) => {
            errmsg::set(&busy.text);
            return busy.code;
        }
        Ok(member) => {
            if !keel.is_forked() {
                close(keel);
            }
            drop(member);
        }
    }
    // SAFETY: it came from Box::into_raw in keel_new, and the host vouches that no other thread
    // uses it; the reference above is not used any more.
    let engine = unsafe { Box::from_raw(k) };
    match guard::catch(move || drop(engine)) {
        Ok(()) => KEEL_OK,
        Err(text) => {
            errmsg::set(&text);
            KEEL_ERR_INTERNAL
        }
    }
}

/// Answers what waits, with the driven half locked: a completion cannot drive or free.
fn close(keel: &keel) {
    keel.announced.store(true, Ordering::Release);
    keel.die(Failure::new(KEEL_ERR_CLOSED, "the engine is being freed"));
    let _ = guard::catch(|| HostCalls::new(keel).close_tickets());
}
