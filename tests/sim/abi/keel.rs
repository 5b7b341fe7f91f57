//! A member, driven through the functions that a C host calls. With `upcalls`, the only place of the
//! simulator that handles C's pointers.

#![allow(unsafe_code, reason = "it calls a C interface")]

use std::collections::LinkedList;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null, null_mut};

use raftkeel::ffi::code::KEEL_OK;
use raftkeel::ffi::config::{
    KEEL_LEASE_READS, KEEL_NEW_NODE, KEEL_SLOW_LEADER, keel_config, keel_id, keel_params, keel_peer,
};
use raftkeel::ffi::drive::keel_step;
use raftkeel::ffi::errmsg::keel_errmsg;
use raftkeel::ffi::input;
use raftkeel::ffi::keel::{keel, keel_bootstrap, keel_free, keel_new};
use raftkeel::ffi::leadership::{keel_barrier, keel_set_eligible, keel_transfer};
use raftkeel::ffi::query::{keel_check_epoch, keel_get_params, keel_lease_ms};
use raftkeel::ffi::snapshot::{
    keel_load, keel_load_finish, keel_save, keel_save_finish, keel_snapshot,
};
use raftkeel::ffi::status::{
    KEEL_ROLE_EXCLUDED, KEEL_ROLE_LEARNER, keel_info, keel_status_count, keel_status_free,
    keel_status_info, keel_status_node, keel_status_take,
};
use raftkeel::ffi::storage::keel_write_done;

use super::host::{Host, OWN_FAILURE};
use super::upcalls::{self, finish_load, finish_save, on_done, ticket};

/// How a member is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    pub heartbeat_ms: u32,
    pub election_ms: u32,
    pub queue_max: u32,
    pub entry_max: u32,
    pub message_max: u32,
    pub compaction: u32,
    pub compact_entries: u32,
    pub memory_max: u64,
    pub snapshot_rate: u64,
    pub lease_reads: bool,
    /// A leader leads on where its disk is slow.
    pub slow_leader: bool,
    pub keepalive_ms: u32,
    pub deadtime_ms: u32,
    pub initdead_ms: u32,
    pub settle_ms: u32,
}

/// What is asked of a member, besides proposals.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Order {
    Barrier,
    Transfer(u64),
    Snapshot,
    Exclude(u64),
    Add(u64),
    Promote(u64),
    Remove(u64),
    Readmit(u64),
    Replace(u64, u64),
    /// The settings as they are, with another `settle_ms`.
    Settle(u32),
}

/// A node as a member sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: u64,
    pub role: c_int,
    pub state: c_int,
    pub awaits_promotion: bool,
}

impl Seen {
    pub fn is_voter(&self) -> bool {
        !matches!(self.role, KEEL_ROLE_LEARNER | KEEL_ROLE_EXCLUDED)
    }
}

/// What a member says of itself and the cluster.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub role: c_int,
    pub fenced: bool,
    pub term: u64,
    pub leader: u64,
    pub epoch: u64,
    pub commit: u64,
    pub applied: u64,
    pub last: u64,
    pub first: u64,
    pub snapshot: u64,
    pub voters: u32,
    pub loading: bool,
    pub nodes: Vec<Seen>,
}

/// Who is told of a completion, and of which.
pub(super) struct Ticket {
    pub seat: *mut Inner,
    pub request: u64,
}

/// What callbacks get to see. A reference to it never lives while the library may call back.
pub(super) struct Inner {
    pub host: Host,
    pub engine: *mut keel,
    pub save: *mut keel_save,
    pub load: *mut keel_load,
    /// A list, for its nodes stay where they are.
    pub tickets: LinkedList<Ticket>,
}

/// A host with its member, if that runs.
pub struct Seat(NonNull<Inner>);

impl Deref for Seat {
    type Target = Host;

    fn deref(&self) -> &Host {
        // SAFETY: it was leaked by `new`; callbacks run only inside functions with `&mut self`.
        unsafe { &self.0.as_ref().host }
    }
}

impl DerefMut for Seat {
    fn deref_mut(&mut self) -> &mut Host {
        // SAFETY: as above.
        unsafe { &mut self.0.as_mut().host }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.free();
        // SAFETY: it was leaked by `new`, and no member knows it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Seat {
    pub fn new(host: Host) -> Seat {
        Seat(NonNull::from(Box::leak(Box::new(Inner {
            host,
            engine: null_mut(),
            save: null_mut(),
            load: null_mut(),
            tickets: LinkedList::new(),
        }))))
    }

    fn engine(&self) -> *mut keel {
        // SAFETY: as in `deref`.
        unsafe { self.0.as_ref().engine }
    }

    pub fn runs(&self) -> bool {
        !self.engine().is_null()
    }

    // ---- life ------------------------------------------------------------

    /// Makes the member from what is stored, or for the first time.
    pub fn open(&mut self, setup: &Setup, seed: u64, create: bool) -> c_int {
        let inner = self.0.as_ptr();
        let storage = upcalls::storage(inner.cast());
        let flags = [
            (create, KEEL_NEW_NODE),
            (setup.lease_reads, KEEL_LEASE_READS),
            (setup.slow_leader, KEEL_SLOW_LEADER),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag);
        let config = keel_config {
            size: size_of::<keel_config>(),
            id: self.id,
            cluster: 77,
            dir: null(),
            storage: &storage,
            params: params(setup),
            heartbeat_ms: setup.heartbeat_ms,
            election_ms: setup.election_ms,
            queue_max: setup.queue_max,
            entry_max: setup.entry_max,
            message_max: setup.message_max,
            compaction: setup.compaction,
            compact_entries: setup.compact_entries,
            compact_bytes: 0,
            memory_max: setup.memory_max,
            snapshot_rate: setup.snapshot_rate,
            seed: seed.max(1),
            log_level: if self.listens { 4 } else { 1 },
            flags: flags.sum(),
        };
        let callbacks = upcalls::callbacks(self.listens);
        let mut engine = null_mut();
        // SAFETY: everything lives until the call returns; `inner` until after keel_free().
        let code = unsafe { keel_new(&mut engine, &config, &callbacks, inner.cast()) };
        // SAFETY: no callback runs any more.
        unsafe { (*inner).engine = engine };
        code
    }

    /// The first start of a cluster.
    pub fn bootstrap(&mut self, ids: impl Iterator<Item = u64>) -> c_int {
        let peers: Vec<keel_peer> = ids.map(peer).collect();
        // SAFETY: `peers` lives until the call returns.
        unsafe { keel_bootstrap(self.engine(), peers.as_ptr(), peers.len()) }
    }

    /// One driving call: when the next is due.
    pub fn step(&mut self, now: u64) -> Result<u64, c_int> {
        let mut next = 0;
        // SAFETY: `next` lives until the call returns.
        match unsafe { keel_step(self.engine(), now, &mut next) } {
            KEEL_OK => Ok(next),
            code => Err(code),
        }
    }

    /// Ends the member; what waits is completed.
    pub fn free(&mut self) {
        let inner = self.0.as_ptr();
        // SAFETY: no reference into `inner` lives while the library may call back.
        unsafe {
            // One that is not there is refused, and nothing happens.
            keel_save_finish(
                std::mem::replace(&mut (*inner).save, null_mut()),
                OWN_FAILURE,
            );
            keel_load_finish(
                std::mem::replace(&mut (*inner).load, null_mut()),
                OWN_FAILURE,
            );
            let code = keel_free((*inner).engine);
            (*inner).engine = null_mut();
            (*inner).tickets.clear();
            if code != KEEL_OK {
                (*inner)
                    .host
                    .complain(|| format!("keel_free() returns {code}"));
            }
        }
    }

    // ---- inputs ----------------------------------------------------------

    pub fn receive(&mut self, from: u64, message: &[u8]) -> c_int {
        // SAFETY: `message` lives until the call returns.
        unsafe { input::keel_recv(self.engine(), from, message.as_ptr().cast(), message.len()) }
    }

    pub fn lost(&mut self, id: u64) -> c_int {
        // SAFETY: the engine is one of ours.
        unsafe { input::keel_lost(self.engine(), id) }
    }

    pub fn heard(&mut self, from: u64) -> c_int {
        // SAFETY: the engine is one of ours.
        unsafe { input::keel_heard(self.engine(), from) }
    }

    pub fn set_eligible(&mut self, priority: c_int) -> c_int {
        // SAFETY: the engine is one of ours.
        unsafe { keel_set_eligible(self.engine(), priority) }
    }

    pub fn write_done(&mut self, number: u64, status: c_int) -> c_int {
        // SAFETY: the engine is one of ours.
        unsafe { keel_write_done(self.engine(), number, status) }
    }

    fn ticket(&mut self, request: u64) -> *mut c_void {
        // SAFETY: the list's node stays where it is until `free`.
        unsafe { ticket(self.0.as_ptr(), request) }
    }

    pub fn propose(&mut self, request: u64, data: &[u8]) -> c_int {
        let (engine, arg) = (self.engine(), self.ticket(request));
        let done = Some(on_done as unsafe extern "C" fn(*mut c_void, c_int, u64));
        // SAFETY: `data` lives until the call returns, `arg` until keel_free() has.
        unsafe { input::keel_propose(engine, data.as_ptr().cast(), data.len(), done, arg) }
    }

    pub fn order(&mut self, request: u64, order: Order) -> c_int {
        let (k, arg) = (self.engine(), self.ticket(request));
        let done = Some(on_done as unsafe extern "C" fn(*mut c_void, c_int, u64));
        // SAFETY: what is pointed to lives until the calls return, `arg` until keel_free() has.
        unsafe {
            match order {
                Order::Barrier => keel_barrier(k, done, arg),
                Order::Transfer(to) => keel_transfer(k, to, done, arg),
                Order::Snapshot => keel_snapshot(k, done, arg),
                Order::Exclude(id) => input::keel_node_exclude(k, id, done, arg),
                Order::Add(id) => input::keel_node_add(k, &peer(id), done, arg),
                Order::Promote(id) => input::keel_node_promote(k, id, done, arg),
                Order::Remove(id) => input::keel_node_remove(k, id, done, arg),
                Order::Readmit(id) => input::keel_node_readmit(k, id, done, arg),
                Order::Replace(old, by) => input::keel_node_replace(k, old, &peer(by), done, arg),
                Order::Settle(settle_ms) => {
                    let mut params = params(&Setup::default());
                    match keel_get_params(k, &mut params) {
                        KEEL_OK => {
                            params.settle_ms = settle_ms;
                            input::keel_set_params(k, &params, done, arg)
                        }
                        code => code,
                    }
                }
            }
        }
    }

    /// Writes the snapshot that was put off, if there is one; whether there was.
    pub fn finish_save(&mut self) -> bool {
        // SAFETY: no reference into it lives.
        unsafe { finish_save(self.0.as_ptr()) }
    }

    /// Loads the snapshot that was put off, if there is one; whether there was.
    pub fn finish_load(&mut self) -> bool {
        // SAFETY: no reference into it lives.
        unsafe { finish_load(self.0.as_ptr()) }
    }

    // ---- questions -------------------------------------------------------

    pub fn lease_ms(&self) -> c_int {
        // SAFETY: the engine is one of ours.
        unsafe { keel_lease_ms(self.engine()) }
    }

    pub fn check_epoch(&self, from: u64, epoch: u64) -> c_int {
        // SAFETY: the engine is one of ours.
        unsafe { keel_check_epoch(self.engine(), from, epoch) }
    }

    /// Everything that the member knows; false if it says nothing.
    pub fn look(&self, look: &mut Look) -> bool {
        let mut status = null_mut();
        // SAFETY: `status` lives until the call returns, and what came from it until it is freed.
        unsafe {
            if keel_status_take(self.engine(), &mut status) != KEEL_OK {
                return false;
            }
            if let Some(info) = keel_status_info(status).as_ref() {
                read_info(info, look);
            }
            look.nodes.clear();
            for at in 0..keel_status_count(status) {
                if let Some(node) = keel_status_node(status, at).as_ref() {
                    look.nodes.push(Seen {
                        id: node.id,
                        role: node.role,
                        state: node.state,
                        awaits_promotion: node.awaits_promotion != 0,
                    });
                }
            }
            keel_status_free(status);
        }
        true
    }
}

/// What the last failure of this thread was about.
pub fn last_error() -> String {
    // SAFETY: the text is valid until the next failure.
    text(unsafe { keel_errmsg().as_ref() })
}

pub(super) fn text(first: Option<&c_char>) -> String {
    let Some(first) = first else {
        return String::new();
    };
    // SAFETY: every text of the library ends with NUL.
    unsafe { CStr::from_ptr(first) }
        .to_string_lossy()
        .into_owned()
}

fn read_info(info: &keel_info, look: &mut Look) {
    look.role = info.role;
    look.fenced = info.fenced != 0;
    (look.term, look.leader, look.epoch) = (info.term, info.leader, info.epoch);
    (look.commit, look.applied) = (info.commit, info.applied);
    (look.first, look.last) = (info.first_index, info.last_index);
    (look.snapshot, look.voters) = (info.snapshot_index, info.voters);
    look.loading = info.loading != 0;
}

fn params(setup: &Setup) -> keel_params {
    keel_params {
        size: size_of::<keel_params>(),
        version: 0,
        hb_keepalive_ms: setup.keepalive_ms,
        hb_warntime_ms: 0,
        hb_deadtime_ms: setup.deadtime_ms,
        hb_initdead_ms: setup.initdead_ms,
        settle_ms: setup.settle_ms,
        min_nodes: 0,
        reserved: [0; 22],
    }
}

fn peer(id: keel_id) -> keel_peer {
    keel_peer {
        size: size_of::<keel_peer>(),
        id,
        address: null(),
        meta: null(),
        meta_len: 0,
    }
}
