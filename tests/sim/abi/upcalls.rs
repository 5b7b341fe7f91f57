//! The functions of the host that the library calls back: pointers in, and on to the host.
//!
//! Every function gets the pointer that was given with it. References made from it end before the
//! library is called again, for it may call back.

#![allow(unsafe_code, reason = "a C interface calls it")]

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::rc::Rc;

use raftkeel::ffi::callbacks::keel_callbacks;
use raftkeel::ffi::code::KEEL_OK;
use raftkeel::ffi::config::{keel_id, keel_params};
use raftkeel::ffi::input;
use raftkeel::ffi::snapshot::{
    keel_load, keel_load_finish, keel_load_read, keel_save, keel_save_finish, keel_save_write,
};
use raftkeel::ffi::storage::{
    keel_batch, keel_records, keel_records_entry, keel_records_image, keel_records_state,
    keel_storage, keel_write_done,
};

use super::host::{Host, OWN_FAILURE, Told, data_of};
use super::keel::{Inner, Ticket, text};
use super::store::Batch;

/// The host's storage, which is found behind `ud`.
pub fn storage(ud: *mut c_void) -> keel_storage {
    keel_storage {
        size: size_of::<keel_storage>(),
        ud,
        open: Some(on_open),
        write: Some(on_write),
        read: Some(on_read),
        trim: Some(on_trim),
        snap_put: Some(on_snap_put),
        snap_commit: Some(on_snap_commit),
        snap_get: Some(on_snap_get),
        snap_drop: Some(on_snap_drop),
    }
}

/// Everything that a host may be told and asked; the log only if it is wanted.
pub fn callbacks(listens: bool) -> keel_callbacks {
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

/// What a completion is told by, good until the member is freed.
pub unsafe fn ticket(inner: *mut Inner, request: u64) -> *mut c_void {
    // SAFETY: nobody else refers to the list.
    let tickets = unsafe { &mut (*inner).tickets };
    let seat = inner;
    tickets.push_back(Ticket { seat, request });
    let ticket: *mut Ticket = tickets.back_mut().map_or(null_mut(), |last| last);
    ticket.cast()
}

pub unsafe extern "C" fn on_done(arg: *mut c_void, status: c_int, index: u64) {
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

/// Writes the snapshot that is wanted, if one is; whether one was.
pub unsafe fn finish_save(inner: *mut Inner) -> bool {
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

/// Loads the snapshot that is there, if one is; whether one was.
pub unsafe fn finish_load(inner: *mut Inner) -> bool {
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
    unsafe { host(ud).send(to, bytes(message, len)) }
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
const EVENTS: [&str; 27] = [
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
    "LOST_DATA",
    "REFILLED",
    "DISK_STALLED",
    "DISK_BACK",
    "",
];

/// What an event says of a name, if that is a number.
fn fact(json: &str, name: &str) -> Option<u64> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

fn slow(json: &str) -> Option<Told> {
    Some(Told::Slow {
        to: fact(json, "to")?,
        own: fact(json, "own_ms")?,
        quorum: fact(json, "quorum_ms")?,
    })
}

unsafe extern "C" fn on_event(ud: *mut c_void, code: *const c_char, json: *const c_char) {
    // SAFETY: what the library gives is valid until this returns.
    let (host, code, json) = unsafe { (host(ud), text(code.as_ref()), text(json.as_ref())) };
    if code == "DISK_SLOW" {
        match slow(&json) {
            Some(told) => host.told.push(told),
            None => host.complain(|| format!("DISK_SLOW lacks facts: {json}")),
        }
        return;
    }
    match EVENTS.iter().find(|known| **known == code) {
        Some(known) => host.told.push(Told::Event(known)),
        None => host.complain(|| format!("an event that the header does not name: {code}")),
    }
}

unsafe extern "C" fn on_stopped(ud: *mut c_void, why: c_int) {
    // SAFETY: see above.
    let host = unsafe { host(ud) };
    host.is_dead = true;
    host.told.push(Told::Stopped(why));
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
