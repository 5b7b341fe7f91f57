//! A member, driven through the functions that a C host calls, and the functions of the host that
//! it calls back: the only place of the simulator that handles C's pointers.

#![allow(unsafe_code, reason = "it calls a C interface")]

use std::collections::LinkedList;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null, null_mut};
use std::rc::Rc;

use raftkeel::ffi::callbacks::keel_callbacks;
use raftkeel::ffi::code::KEEL_OK;
use raftkeel::ffi::config::{
    KEEL_LEASE_READS, KEEL_NEW_NODE, keel_config, keel_id, keel_params, keel_peer,
};
use raftkeel::ffi::drive::keel_step;
use raftkeel::ffi::errmsg::keel_errmsg;
use raftkeel::ffi::input;
use raftkeel::ffi::keel::{keel, keel_bootstrap, keel_free, keel_new};
use raftkeel::ffi::leadership::{keel_barrier, keel_set_eligible, keel_transfer};
use raftkeel::ffi::query::{keel_check_epoch, keel_get_params, keel_lease_ms};
use raftkeel::ffi::snapshot::{
    keel_load, keel_load_finish, keel_load_read, keel_save, keel_save_finish, keel_save_write,
    keel_snapshot,
};
use raftkeel::ffi::status::{
    keel_info, keel_status_count, keel_status_free, keel_status_info, keel_status_node,
    keel_status_take,
};
use raftkeel::ffi::storage::{
    keel_batch, keel_records, keel_records_entry, keel_records_image, keel_records_state,
    keel_storage, keel_write_done,
};

use super::host::{Host, OWN_FAILURE, Told, data_of};
use super::store::Batch;

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
struct Ticket {
    seat: *mut Inner,
    request: u64,
}

/// What callbacks get to see. A reference to it never lives while the library may call back.
struct Inner {
    host: Host,
    engine: *mut keel,
    save: *mut keel_save,
    load: *mut keel_load,
    /// A list, for its nodes stay where they are.
    tickets: LinkedList<Ticket>,
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
        let storage = keel_storage {
            size: size_of::<keel_storage>(),
            ud: inner.cast(),
            open: Some(on_open),
            write: Some(on_write),
            read: Some(on_read),
            trim: Some(on_trim),
            snap_put: Some(on_snap_put),
            snap_commit: Some(on_snap_commit),
            snap_get: Some(on_snap_get),
            snap_drop: Some(on_snap_drop),
        };
        let flags = [
            (create, KEEL_NEW_NODE),
            (setup.lease_reads, KEEL_LEASE_READS),
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
        let callbacks = callbacks(self.listens);
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
            for (save, load) in [(
                std::mem::replace(&mut (*inner).save, null_mut()),
                std::mem::replace(&mut (*inner).load, null_mut()),
            )] {
                // A snapshot that is not there is refused.
                keel_save_finish(save, OWN_FAILURE);
                keel_load_finish(load, OWN_FAILURE);
            }
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

fn text(first: Option<&c_char>) -> String {
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

fn callbacks(listens: bool) -> keel_callbacks {
    keel_callbacks {
        size: size_of::<keel_callbacks>(),
        apply: Some(on_apply),
        save: Some(on_save),
        load: Some(on_load),
        send: Some(on_send),
        role: Some(on_role),
        node: Some(on_node),
        excluded: Some(on_excluded),
        members: Some(on_members),
        params: Some(on_params),
        fence: Some(on_fence),
        event: Some(on_event),
        stopped: Some(on_stopped),
        guard: Some(on_guard),
        log: if listens { Some(on_log) } else { None },
    }
}

// ---- what the library calls ------------------------------------------------
// Every function gets the pointer that was given with it. References made from it end before the
// library is called again, for it may call back.

unsafe fn host<'a>(ud: *mut c_void) -> &'a mut Host {
    // SAFETY: `ud` was given to the library as a pointer to this.
    unsafe { &mut (*ud.cast::<Inner>()).host }
}

unsafe fn bytes<'a>(data: *const c_void, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the library vouches for `len` bytes.
    unsafe { std::slice::from_raw_parts(data.cast(), len) }
}

unsafe fn ids<'a>(first: *const keel_id, n: usize) -> &'a [keel_id] {
    if n == 0 {
        return &[];
    }
    // SAFETY: the library vouches for `n` of them.
    unsafe { std::slice::from_raw_parts(first, n) }
}

unsafe fn ticket(inner: *mut Inner, request: u64) -> *mut c_void {
    // SAFETY: nobody else refers to the list.
    let tickets = unsafe { &mut (*inner).tickets };
    let seat = inner;
    tickets.push_back(Ticket { seat, request });
    let ticket: *mut Ticket = tickets.back_mut().map_or(null_mut(), |last| last);
    ticket.cast()
}

unsafe extern "C" fn on_done(arg: *mut c_void, status: c_int, index: u64) {
    // SAFETY: it was given to the library by `ticket`.
    let (inner, request) = unsafe {
        (
            (*arg.cast::<Ticket>()).seat,
            (*arg.cast::<Ticket>()).request,
        )
    };
    // SAFETY: `inner` is what callbacks get as well.
    let (host, engine) = unsafe { (host(inner.cast()), (*inner).engine) };
    host.told.push(Told::Done {
        request,
        status,
        index,
    });
    if let Some(request) = host.eager.take() {
        let mut data = Vec::new();
        data_of(request, 0, &mut data);
        // SAFETY: as in `Seat::propose`; an input function calls nothing back.
        let code = unsafe {
            let arg = ticket(inner, request);
            input::keel_propose(engine, data.as_ptr().cast(), data.len(), Some(on_done), arg)
        };
        host.told.push(Told::Made { request, code });
    }
}

unsafe extern "C" fn on_apply(
    ud: *mut c_void,
    index: u64,
    term: u64,
    data: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: what the library gives is valid until this returns.
    unsafe { host(ud).apply(index, term, bytes(data, len)) }
}

unsafe extern "C" fn on_save(ud: *mut c_void, save: *mut keel_save, index: u64) {
    let inner: *mut Inner = ud.cast();
    // SAFETY: see above.
    unsafe {
        // One that is still being written was overtaken by a leader's snapshot.
        finish_save(inner);
        (*inner).save = save;
        if host(ud).begin_save(index) {
            finish_save(inner);
        }
    }
}

unsafe fn finish_save(inner: *mut Inner) -> bool {
    // SAFETY: see above.
    unsafe {
        let save = std::mem::replace(&mut (*inner).save, null_mut());
        let Some((image, stands)) = host(inner.cast()).draw_image() else {
            return false;
        };
        let mut status = KEEL_OK;
        for piece in image.chunks(1000) {
            if status == KEEL_OK {
                status = keel_save_write(save, piece.as_ptr().cast(), piece.len());
            }
        }
        let kept = stands && status == KEEL_OK;
        keel_save_finish(save, if kept { KEEL_OK } else { OWN_FAILURE });
        host(inner.cast()).told.push(Told::Saved { kept });
    }
    true
}

unsafe extern "C" fn on_load(ud: *mut c_void, load: *mut keel_load, index: u64) {
    let inner: *mut Inner = ud.cast();
    // SAFETY: see above.
    unsafe {
        (*inner).load = load;
        if host(ud).begin_load(index) {
            finish_load(inner);
        }
    }
}

unsafe fn finish_load(inner: *mut Inner) -> bool {
    // SAFETY: see above.
    unsafe {
        let load = std::mem::replace(&mut (*inner).load, null_mut());
        if load.is_null() {
            return false;
        }
        let (mut image, mut room) = (Vec::new(), [0u8; 700]);
        let whole = loop {
            let mut got = 0;
            match keel_load_read(load, room.as_mut_ptr().cast(), room.len(), &mut got) {
                KEEL_OK if got == 0 => break true,
                KEEL_OK => image.extend_from_slice(&room[..got]),
                _ => break false,
            }
        };
        let loaded = host(inner.cast()).load(whole.then_some(&image));
        keel_load_finish(load, if loaded { KEEL_OK } else { OWN_FAILURE });
    }
    true
}

unsafe extern "C" fn on_send(ud: *mut c_void, to: keel_id, message: *const c_void, len: usize) {
    // SAFETY: what the library gives is valid until this returns.
    unsafe { host(ud).sent.push((to, Rc::from(bytes(message, len)))) }
}

unsafe extern "C" fn on_role(ud: *mut c_void, role: c_int, term: u64, leader: keel_id) {
    // SAFETY: see above.
    unsafe { host(ud) }
        .told
        .push(Told::Role { role, term, leader });
}

unsafe extern "C" fn on_node(ud: *mut c_void, id: keel_id, state: c_int, before: c_int, _: u32) {
    // SAFETY: see above.
    unsafe { host(ud) }
        .told
        .push(Told::Node { id, state, before });
}

unsafe extern "C" fn on_excluded(
    ud: *mut c_void,
    epoch: u64,
    first: *const keel_id,
    n: usize,
    index: u64,
) {
    // SAFETY: what the library gives is valid until this returns.
    let (host, ids) = unsafe { (host(ud), ids(first, n).to_vec()) };
    host.told.push(Told::Excluded { epoch, ids, index });
}

unsafe extern "C" fn on_members(ud: *mut c_void, epoch: u64, index: u64) {
    // SAFETY: see above.
    unsafe { host(ud) }
        .told
        .push(Told::Members { epoch, index });
}

unsafe extern "C" fn on_params(ud: *mut c_void, params: *const keel_params) {
    // SAFETY: what the library gives is valid until this returns.
    let (host, version) = unsafe { (host(ud), (*params).version) };
    host.told.push(Told::Params { version });
}

unsafe extern "C" fn on_fence(ud: *mut c_void, fenced: c_int, why: *const c_char) {
    // SAFETY: what the library gives is valid until this returns.
    let (host, why) = unsafe { (host(ud), text(why.as_ref())) };
    if why.is_empty() {
        host.complain(|| "fenced or not, and nobody says why".to_owned());
    }
    host.told.push(Told::Fence(fenced != 0));
}

/// The codes that the header names.
const EVENTS: [&str; 25] = [
    "LEADING",
    "NOT_LEADING",
    "QUORUM",
    "NO_QUORUM",
    "EXCLUDED",
    "EXCLUDED_SELF",
    "REMOVED_SELF",
    "READMITTED",
    "ADDED",
    "PROMOTED",
    "PEER_LOST_DATA",
    "PEER_LOST_STATE",
    "PEER_NEWER",
    "REMOVED",
    "REPLACED",
    "LOST_STATE",
    "BLOCKED",
    "PAUSED",
    "SNAPSHOT",
    "SNAPSHOT_INSTALLED",
    "SNAPSHOT_FAILED",
    "DIVERGED",
    "DISK_STALLED",
    "DISK_BACK",
    "",
];

unsafe extern "C" fn on_event(ud: *mut c_void, code: *const c_char, _json: *const c_char) {
    // SAFETY: what the library gives is valid until this returns.
    let (host, code) = unsafe { (host(ud), text(code.as_ref())) };
    match EVENTS.iter().find(|known| **known == code) {
        Some(known) => host.told.push(Told::Event(known)),
        None => host.complain(|| format!("an event that the header does not name: {code}")),
    }
}

unsafe extern "C" fn on_stopped(ud: *mut c_void, why: c_int) {
    // SAFETY: see above.
    unsafe { host(ud) }.told.push(Told::Stopped(why));
}

unsafe extern "C" fn on_guard(
    ud: *mut c_void,
    first: *const keel_id,
    n: usize,
    why: *mut c_char,
    cap: usize,
) -> c_int {
    // SAFETY: what the library gives is valid until this returns; there is room for `cap` bytes.
    unsafe {
        if cap > 1 {
            why.write(b'-' as c_char);
            why.add(1).write(0);
        }
        host(ud).guard(ids(first, n))
    }
}

unsafe extern "C" fn on_log(ud: *mut c_void, _level: c_int, line: *const c_char) {
    // SAFETY: what the library gives is valid until this returns.
    let (host, line) = unsafe { (host(ud), text(line.as_ref())) };
    host.lines.push(line);
}

// ---- the host's storage ----------------------------------------------------

unsafe extern "C" fn on_open(ud: *mut c_void, records: *mut keel_records) -> c_int {
    // SAFETY: the functions called here call nothing back.
    unsafe {
        let host = host(ud);
        if !host.opens() {
            return OWN_FAILURE;
        }
        let store = &host.disk.image;
        if store.is_blank() {
            return 0;
        }
        let mut code = keel_records_state(records, store.state.as_ptr().cast(), store.state.len());
        for (index, entry) in &store.log {
            if code == KEEL_OK {
                code = keel_records_entry(records, *index, entry.as_ptr().cast(), entry.len());
            }
        }
        let committed = store.images.iter().filter(|(_, image)| image.committed);
        for (number, image) in committed {
            if code == KEEL_OK {
                code = keel_records_image(records, *number, image.bytes.len() as u64);
            }
        }
        code
    }
}

unsafe extern "C" fn on_write(ud: *mut c_void, batch: *const keel_batch) -> c_int {
    // SAFETY: what the library gives is valid until this returns.
    let (number, taken) = unsafe {
        let batch = &*batch;
        let entry = |at| {
            let record = &*batch.entries.add(at);
            Rc::from(bytes(record.data, record.len))
        };
        let batch = Batch {
            number: batch.number,
            state: bytes(batch.state.data, batch.state.len).to_vec(),
            cut: batch.cut,
            first: batch.first,
            entries: (0..batch.n).map(entry).collect(),
            term: 0,
        };
        (batch.number, host(ud).write(batch))
    };
    match taken {
        Ok(false) => 0,
        Err(code) => code,
        Ok(true) => {
            // SAFETY: no reference into it lives.
            let code = unsafe { keel_write_done((*ud.cast::<Inner>()).engine, number, 0) };
            if code != KEEL_OK {
                let complaint = || format!("keel_write_done() in `write` returns {code}");
                // SAFETY: see above.
                unsafe { host(ud) }.complain(complaint);
            }
            0
        }
    }
}

unsafe extern "C" fn on_read(
    ud: *mut c_void,
    first: u64,
    last: u64,
    records: *mut keel_records,
) -> c_int {
    // SAFETY: the functions called here call nothing back.
    unsafe {
        let host = host(ud);
        if !host.reads(first, last) {
            return OWN_FAILURE;
        }
        let mut next = first;
        for (index, entry) in host.disk.image.log.range(first..=last) {
            if *index != next {
                break;
            }
            next += 1;
            match keel_records_entry(records, *index, entry.as_ptr().cast(), entry.len()) {
                KEEL_OK => {}
                code if code > 0 => return 0,
                code => return code,
            }
        }
        if next <= last {
            host.complain(|| format!("entries {first} to {last} are wanted, {next} is not there"));
        }
        0
    }
}

unsafe extern "C" fn on_trim(ud: *mut c_void, index: u64) -> c_int {
    // SAFETY: see above.
    unsafe { host(ud) }.trim(index)
}

unsafe extern "C" fn on_snap_put(
    ud: *mut c_void,
    image: u64,
    offset: u64,
    data: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: what the library gives is valid until this returns.
    unsafe { host(ud).snap_put(image, offset, bytes(data, len)) }
}

unsafe extern "C" fn on_snap_commit(ud: *mut c_void, image: u64) -> c_int {
    // SAFETY: see above.
    unsafe { host(ud) }.snap_commit(image)
}

unsafe extern "C" fn on_snap_get(
    ud: *mut c_void,
    image: u64,
    offset: u64,
    buf: *mut c_void,
    cap: usize,
    got: *mut usize,
) -> c_int {
    // SAFETY: there is room for `cap` bytes, and for the number.
    unsafe {
        let room = std::slice::from_raw_parts_mut(buf.cast(), cap);
        match host(ud).snap_get(image, offset, room) {
            Ok(len) => {
                got.write(len);
                0
            }
            Err(code) => code,
        }
    }
}

unsafe extern "C" fn on_snap_drop(ud: *mut c_void, image: u64) -> c_int {
    // SAFETY: see above.
    unsafe { host(ud) }.snap_drop(image)
}
