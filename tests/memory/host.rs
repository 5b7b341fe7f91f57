//! A host: what it was told, its state, its database, and the messages that it has to carry.

#![allow(unsafe_code, reason = "it calls a C interface, and is called by it")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use raftkeel::ffi::callbacks::keel_callbacks;
use raftkeel::ffi::code::KEEL_OK;
use raftkeel::ffi::config::keel_id;
use raftkeel::ffi::keel::keel;
use raftkeel::ffi::snapshot::{
    keel_load, keel_load_finish, keel_load_read, keel_save, keel_save_finish, keel_save_write,
};
use raftkeel::ffi::storage::{
    keel_batch, keel_records, keel_records_entry, keel_records_image, keel_records_state,
    keel_storage, keel_write_done,
};

use crate::alloc::{inside, outside};

/// What a snapshot of the host has besides its state, so that it is large.
pub const BALLAST: usize = 300_000;
/// What a host reports of a failure of its own.
pub const OWN_FAILURE: c_int = -99;

/// Data of this number, of so many bytes.
pub fn data_of(number: u64, len: usize) -> Vec<u8> {
    let mut data = vec![number as u8; len.max(8)];
    data[..8].copy_from_slice(&number.to_le_bytes());
    data
}

/// One image in a host's database: its bytes, and whether it is committed.
type Image = (Vec<u8>, bool);

#[derive(Default)]
pub struct Store {
    state: Vec<u8>,
    log: BTreeMap<u64, Vec<u8>>,
    images: BTreeMap<u64, Image>,
}

pub struct Host {
    pub engine: *mut keel,
    /// Its state: the numbers of all data that was applied.
    pub applied: Vec<u64>,
    pub role: c_int,
    pub sent: Vec<(keel_id, Vec<u8>)>,
    /// Completions by the number of the request.
    pub done: BTreeMap<u64, c_int>,
    pub store: Store,
    pub stopped: Option<c_int>,
    pub said: Vec<String>,
    pub installed: u32,
}

impl Host {
    pub fn new() -> Host {
        Host {
            engine: null_mut(),
            applied: Vec::new(),
            role: 0,
            sent: Vec::new(),
            done: BTreeMap::new(),
            store: Store::default(),
            stopped: None,
            said: Vec::new(),
            installed: 0,
        }
    }
}

/// Who is told of a completion, and of which.
pub struct Ticket {
    pub host: *mut Host,
    pub number: u64,
}

pub fn callbacks() -> keel_callbacks {
    keel_callbacks {
        size: size_of::<keel_callbacks>(),
        apply: Some(on_apply),
        save: Some(on_save),
        load: Some(on_load),
        send: Some(on_send),
        role: Some(on_role),
        node: None,
        excluded: None,
        members: None,
        params: None,
        fence: None,
        event: Some(on_event),
        stopped: Some(on_stopped),
        guard: None,
        log: Some(on_log),
    }
}

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

unsafe fn host<'a>(ud: *mut c_void) -> &'a mut Host {
    // SAFETY: `ud` was given to the library as a pointer to this, and no other reference is in use.
    unsafe { &mut *ud.cast::<Host>() }
}

unsafe fn bytes<'a>(data: *const c_void, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the library vouches for `len` bytes.
    unsafe { std::slice::from_raw_parts(data.cast(), len) }
}

unsafe fn text(first: *const c_char) -> String {
    // SAFETY: every text of the library ends with NUL.
    unsafe { CStr::from_ptr(first) }
        .to_string_lossy()
        .into_owned()
}

pub unsafe extern "C" fn on_done(arg: *mut c_void, status: c_int, _index: u64) {
    outside(|| {
        // SAFETY: it was leaked for this one call.
        let ticket = unsafe { Box::from_raw(arg.cast::<Ticket>()) };
        // SAFETY: the host outlives its engine.
        let host = unsafe { &mut *ticket.host };
        let before = host.done.insert(ticket.number, status);
        assert!(before.is_none(), "a request is completed once");
    });
}

unsafe extern "C" fn on_apply(
    ud: *mut c_void,
    _index: u64,
    _term: u64,
    data: *const c_void,
    len: usize,
) -> c_int {
    outside(|| {
        // SAFETY: what the library gives is valid until this returns.
        let (host, data) = unsafe { (host(ud), bytes(data, len)) };
        let number = u64::from_le_bytes(data[..8].try_into().expect("eight bytes"));
        assert!(data == data_of(number, len), "what is applied was proposed");
        host.applied.push(number);
    });
    0
}

unsafe extern "C" fn on_save(ud: *mut c_void, save: *mut keel_save, _index: u64) {
    outside(|| {
        // SAFETY: see above.
        let host = unsafe { host(ud) };
        let mut image: Vec<u8> = host.applied.iter().flat_map(|n| n.to_le_bytes()).collect();
        image.splice(0..0, (host.applied.len() as u64).to_le_bytes());
        image.resize(image.len() + BALLAST, 1);
        let mut code = KEEL_OK;
        for piece in image.chunks(100_000) {
            if code == KEEL_OK {
                // SAFETY: the piece lives until the call returns.
                code =
                    inside(|| unsafe { keel_save_write(save, piece.as_ptr().cast(), piece.len()) });
            }
        }
        // SAFETY: it is given up with this.
        inside(|| unsafe { keel_save_finish(save, code) });
    });
}

unsafe extern "C" fn on_load(ud: *mut c_void, load: *mut keel_load, _index: u64) {
    outside(|| {
        let (mut image, mut room) = (Vec::new(), vec![0u8; 50_000]);
        let code = loop {
            let mut got = 0;
            let (at, cap) = (room.as_mut_ptr().cast(), room.len());
            // SAFETY: there is room for as many bytes, and for the number.
            match inside(|| unsafe { keel_load_read(load, at, cap, &mut got) }) {
                KEEL_OK if got == 0 => break KEEL_OK,
                KEEL_OK => image.extend_from_slice(&room[..got]),
                code => break code,
            }
        };
        if code == KEEL_OK {
            let words = image.chunks(8).map(|w| w.try_into().unwrap_or([1; 8]));
            let mut words = words.map(u64::from_le_bytes);
            let count = words.next().expect("how many there are") as usize;
            assert_eq!(8 * (1 + count) + BALLAST, image.len());
            // SAFETY: see above.
            unsafe { host(ud) }.applied = words.take(count).collect();
        }
        // SAFETY: it is given up with this.
        inside(|| unsafe { keel_load_finish(load, code) });
    });
}

unsafe extern "C" fn on_send(ud: *mut c_void, to: keel_id, message: *const c_void, len: usize) {
    outside(|| {
        // SAFETY: what the library gives is valid until this returns.
        let (host, message) = unsafe { (host(ud), bytes(message, len)) };
        host.sent.push((to, message.to_vec()));
    });
}

unsafe extern "C" fn on_role(ud: *mut c_void, role: c_int, _term: u64, _leader: keel_id) {
    // SAFETY: see above.
    unsafe { host(ud) }.role = role;
}

unsafe extern "C" fn on_event(ud: *mut c_void, code: *const c_char, _json: *const c_char) {
    outside(|| {
        // SAFETY: what the library gives is valid until this returns.
        let (host, code) = unsafe { (host(ud), text(code)) };
        host.installed += u32::from(code == "SNAPSHOT_INSTALLED");
    });
}

unsafe extern "C" fn on_stopped(ud: *mut c_void, why: c_int) {
    // SAFETY: see above.
    unsafe { host(ud) }.stopped = Some(why);
}

unsafe extern "C" fn on_log(ud: *mut c_void, _level: c_int, line: *const c_char) {
    outside(|| {
        // SAFETY: what the library gives is valid until this returns.
        let (host, line) = unsafe { (host(ud), text(line)) };
        host.said.push(line);
    });
}

// ---- the host's database ----------------------------------------------------

unsafe extern "C" fn on_open(ud: *mut c_void, records: *mut keel_records) -> c_int {
    outside(|| {
        // SAFETY: see above.
        let store = unsafe { &host(ud).store };
        if store.state.is_empty() {
            return 0;
        }
        let state = &store.state;
        // SAFETY: what is given lives until the calls return.
        unsafe {
            let mut code =
                inside(|| keel_records_state(records, state.as_ptr().cast(), state.len()));
            for (index, entry) in &store.log {
                if code == KEEL_OK {
                    let (at, len) = (entry.as_ptr().cast(), entry.len());
                    code = inside(|| keel_records_entry(records, *index, at, len));
                }
            }
            for (number, (image, _)) in store.images.iter().filter(|(_, (_, whole))| *whole) {
                if code == KEEL_OK {
                    code = inside(|| keel_records_image(records, *number, image.len() as u64));
                }
            }
            code
        }
    })
}

unsafe extern "C" fn on_write(ud: *mut c_void, batch: *const keel_batch) -> c_int {
    outside(|| {
        // SAFETY: what the library gives is valid until this returns.
        let (host, batch) = unsafe { (host(ud), &*batch) };
        // SAFETY: as above.
        host.store.state = unsafe { bytes(batch.state.data, batch.state.len) }.to_vec();
        host.store.log.split_off(&batch.cut);
        for at in 0..batch.n {
            // SAFETY: there are `n` of them.
            let record = unsafe { &*batch.entries.add(at) };
            // SAFETY: as above.
            let entry = unsafe { bytes(record.data, record.len) }.to_vec();
            host.store.log.insert(batch.first + at as u64, entry);
        }
        let (engine, number) = (host.engine, batch.number);
        // SAFETY: the engine is the one that calls; before keel_new() has returned nothing is written.
        inside(|| unsafe { keel_write_done(engine, number, 0) })
    })
}

unsafe extern "C" fn on_read(
    ud: *mut c_void,
    first: u64,
    last: u64,
    records: *mut keel_records,
) -> c_int {
    outside(|| {
        // SAFETY: see above.
        let store = unsafe { &host(ud).store };
        for (index, entry) in store.log.range(first..=last) {
            let (at, len) = (entry.as_ptr().cast(), entry.len());
            // SAFETY: what is given lives until the call returns.
            match inside(|| unsafe { keel_records_entry(records, *index, at, len) }) {
                KEEL_OK => {}
                code => return code.min(0),
            }
        }
        0
    })
}

unsafe extern "C" fn on_trim(ud: *mut c_void, index: u64) -> c_int {
    outside(|| {
        // SAFETY: see above.
        let store = unsafe { &mut host(ud).store };
        store.log = store.log.split_off(&(index + 1));
    });
    0
}

unsafe extern "C" fn on_snap_put(
    ud: *mut c_void,
    image: u64,
    offset: u64,
    data: *const c_void,
    len: usize,
) -> c_int {
    outside(|| {
        // SAFETY: what the library gives is valid until this returns.
        let (store, data) = unsafe { (&mut host(ud).store, bytes(data, len)) };
        let (kept, _) = store.images.entry(image).or_default();
        kept.truncate(offset as usize);
        kept.extend_from_slice(data);
    });
    0
}

unsafe extern "C" fn on_snap_commit(ud: *mut c_void, image: u64) -> c_int {
    outside(|| {
        // SAFETY: see above.
        unsafe { host(ud) }.store.images.entry(image).or_default().1 = true;
    });
    0
}

unsafe extern "C" fn on_snap_get(
    ud: *mut c_void,
    image: u64,
    offset: u64,
    buf: *mut c_void,
    cap: usize,
    got: *mut usize,
) -> c_int {
    // SAFETY: see above.
    let store = unsafe { &host(ud).store };
    let Some((kept, _)) = store.images.get(&image) else {
        return OWN_FAILURE;
    };
    let rest = kept.get(offset as usize..).unwrap_or(&[]);
    let len = rest.len().min(cap);
    // SAFETY: there is room for `cap` bytes, and for the number.
    unsafe {
        buf.cast::<u8>()
            .copy_from_nonoverlapping(rest.as_ptr(), len);
        got.write(len);
    }
    0
}

unsafe extern "C" fn on_snap_drop(ud: *mut c_void, image: u64) -> c_int {
    outside(|| {
        // SAFETY: see above.
        unsafe { host(ud) }.store.images.remove(&image);
    });
    0
}
