//! The callbacks of a host that calls back.

use std::ffi::{c_char, c_int, c_void};

use raftkeel::ffi::callbacks::keel_callbacks;
use raftkeel::ffi::code::{KEEL_ERR_BUSY, KEEL_OK};
use raftkeel::ffi::config::keel_params;
use raftkeel::ffi::keel::keel_free;
use raftkeel::ffi::snapshot::{keel_load, keel_save};

use super::{DEPTH, Host, Letter, MAIL, World};

/// All of them; which are left out is chosen by the caller.
pub fn callbacks() -> keel_callbacks {
    keel_callbacks {
        size: size_of::<keel_callbacks>(),
        apply: Some(apply),
        save: Some(save),
        load: Some(load),
        send: Some(send),
        role: Some(role),
        node: Some(node),
        excluded: Some(excluded),
        members: Some(members),
        params: Some(params),
        fence: Some(fence),
        event: Some(event),
        stopped: Some(stopped),
        guard: Some(guard),
        log: Some(log),
    }
}

/// A completion: `arg` is the number of the request.
pub unsafe extern "C" fn done(arg: *mut c_void, status: c_int, index: u64) {
    CURRENT.with(|current| {
        let world = current.get();
        if world.is_null() {
            return;
        }
        // SAFETY: it is set as long as that world runs.
        let world = unsafe { &*world.cast::<World<'_>>() };
        world.expect((status == KEEL_OK) == (index > 0), || {
            format!("completed with {status} at index {index}")
        });
        if let Some((_, completed)) = world.requests.borrow_mut().get_mut(arg as usize) {
            *completed += 1;
        }
    });
}

thread_local! {
    /// The world of the completions, whose argument is no pointer.
    static CURRENT: std::cell::Cell<*const c_void> = const { std::cell::Cell::new(std::ptr::null()) };
}

/// Sets the world that completions are of.
pub fn enter(world: &World<'_>) {
    CURRENT.set(std::ptr::from_ref(world).cast());
}

/// Runs what a callback does: now and then another call, and always one that must not succeed.
fn inside<T>(ud: *mut c_void, answer: impl FnOnce(&Host<'_>) -> T) -> T {
    // SAFETY: it is the host that the engine was made with, and lives longer.
    let host = unsafe { &*ud.cast::<Host<'_>>() };
    let world = host.world;
    if world.depth.get() < DEPTH && world.below(8) == 7 {
        world.depth.set(world.depth.get() + 1);
        // SAFETY: the engine is alive: it calls.
        let code = unsafe { keel_free(host.k.get()) };
        world.expect(code == KEEL_ERR_BUSY || host.k.get().is_null(), || {
            format!("keel_free in a callback: {code}")
        });
        host.call();
        world.depth.set(world.depth.get() - 1);
    }
    answer(host)
}

unsafe extern "C" fn apply(
    ud: *mut c_void,
    index: u64,
    _: u64,
    data: *const c_void,
    len: usize,
) -> c_int {
    inside(ud, |host| {
        let order = index > host.applied.replace(index);
        host.world
            .expect(order && (len == 0 || !data.is_null()), || {
                format!("applied {index} of {len} bytes")
            });
        match host.world.below(64) {
            63 => -1,
            other => other as c_int,
        }
    })
}

unsafe extern "C" fn save(ud: *mut c_void, s: *mut keel_save, _: u64) {
    inside(ud, |host| host.saves.borrow_mut().push(s));
}

unsafe extern "C" fn load(ud: *mut c_void, l: *mut keel_load, index: u64) {
    inside(ud, |host| {
        host.applied.set(index);
        host.loads.borrow_mut().push(l);
    });
}

unsafe extern "C" fn send(ud: *mut c_void, to: u64, msg: *const c_void, len: usize) {
    inside(ud, |host| {
        // SAFETY: so many bytes are there.
        let bytes = unsafe { std::slice::from_raw_parts(msg.cast::<u8>(), len) }.to_vec();
        let mut mail = host.world.mail.borrow_mut();
        if mail.len() < MAIL {
            let from = host.id;
            mail.push_back(Letter { from, to, bytes });
        }
    });
}

unsafe extern "C" fn role(ud: *mut c_void, _: c_int, _: u64, _: u64) {
    inside(ud, |_| ());
}

unsafe extern "C" fn node(ud: *mut c_void, _: u64, _: c_int, _: c_int, _: u32) {
    inside(ud, |_| ());
}

unsafe extern "C" fn excluded(ud: *mut c_void, _: u64, ids: *const u64, n: usize, _: u64) {
    inside(ud, |host| {
        host.world
            .expect(n > 0 && !ids.is_null(), || "nobody is excluded".to_owned());
    });
}

unsafe extern "C" fn members(ud: *mut c_void, _: u64, _: u64) {
    inside(ud, |_| ());
}

unsafe extern "C" fn params(ud: *mut c_void, _: *const keel_params) {
    inside(ud, |_| ());
}

unsafe extern "C" fn fence(ud: *mut c_void, _: c_int, _: *const c_char) {
    inside(ud, |_| ());
}

unsafe extern "C" fn event(ud: *mut c_void, _: *const c_char, _: *const c_char) {
    inside(ud, |_| ());
}

unsafe extern "C" fn stopped(ud: *mut c_void, why: c_int) {
    // SAFETY: as in `inside`. First, for other calls may set another text.
    let host = unsafe { &*ud.cast::<Host<'_>>() };
    host.world.check("stopped", why);
    inside(ud, |_| ());
}

unsafe extern "C" fn guard(
    ud: *mut c_void,
    _: *const u64,
    _: usize,
    why: *mut c_char,
    why_cap: usize,
) -> c_int {
    inside(ud, |host| {
        // To its very end: there need not be a NUL. And no UTF-8.
        // SAFETY: so many bytes are there.
        unsafe { why.cast::<u8>().write_bytes(0xf0, why_cap) };
        match host.world.below(4) {
            0 => -1,
            1 => c_int::MAX,
            2 => 1,
            _ => 0,
        }
    })
}

unsafe extern "C" fn log(ud: *mut c_void, _: c_int, _: *const c_char) {
    inside(ud, |_| ());
}
