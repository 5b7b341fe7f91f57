//! The guard around an engine: death by panic, and what the host is told of it.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex};

use super::super::callbacks::keel_callbacks;
use super::super::code::*;
use super::super::config::{KEEL_VOLATILE, keel_config, keel_params, keel_peer};
use super::super::drive::{keel_dispatch, keel_fd, keel_step, keel_timeout_ms};
use super::super::errmsg::keel_errmsg;
use super::super::guard::{self, Access};
use super::super::input::keel_propose;
use super::super::keel::{keel, keel_bootstrap, keel_free, keel_new};
use super::super::query::{keel_leader, keel_lease_ms, keel_role};
use super::super::status::{
    KEEL_ROLE_FOLLOWER, keel_status_free, keel_status_info, keel_status_take,
};

/// What the callbacks saw, in order.
#[derive(Default)]
struct Seen {
    stopped: Vec<c_int>,
    log: Vec<String>,
    done: Vec<(c_int, String)>,
}

type Shared = Mutex<Seen>;

fn text(c: *const c_char) -> String {
    // SAFETY: every text that is given here is a C string that is still valid.
    unsafe { CStr::from_ptr(c) }.to_string_lossy().into_owned()
}

/// # Safety
/// `ud` is the `Shared` of the test.
unsafe fn seen(ud: *mut c_void) -> std::sync::MutexGuard<'static, Seen> {
    // SAFETY: the caller vouches; tests keep it alive until their engine is freed.
    unsafe { &*ud.cast::<Shared>() }
        .lock()
        .expect("no test panics while it looks")
}

unsafe extern "C" fn on_send(_: *mut c_void, _: u64, _: *const c_void, _: usize) {}

unsafe extern "C" fn on_stopped(ud: *mut c_void, why: c_int) {
    // SAFETY: `ud` is what the test gave to keel_new.
    unsafe { seen(ud) }.stopped.push(why);
}

unsafe extern "C" fn on_log(ud: *mut c_void, _: c_int, line: *const c_char) {
    // SAFETY: `ud` is what the test gave to keel_new.
    unsafe { seen(ud) }.log.push(text(line));
}

unsafe extern "C" fn on_done(ud: *mut c_void, status: c_int, _: u64) {
    // SAFETY: `ud` is what the test gave with the request.
    unsafe { seen(ud) }.done.push((status, text(keel_errmsg())));
}

fn make(shared: &Shared) -> *mut keel {
    let params = keel_params {
        size: size_of::<keel_params>(),
        version: 0,
        hb_keepalive_ms: 0,
        hb_warntime_ms: 0,
        hb_deadtime_ms: 0,
        hb_initdead_ms: 0,
        settle_ms: 0,
        min_nodes: 0,
        reserved: [0; 22],
    };
    let config = keel_config {
        size: size_of::<keel_config>(),
        id: 1,
        cluster: 7,
        dir: null(),
        storage: null(),
        params,
        heartbeat_ms: 0,
        election_ms: 0,
        queue_max: 0,
        entry_max: 0,
        message_max: 0,
        compaction: 0,
        compact_entries: 0,
        compact_bytes: 0,
        memory_max: 0,
        snapshot_rate: 0,
        seed: 1,
        log_level: 0,
        flags: KEEL_VOLATILE,
    };
    // SAFETY: all-zero callbacks are NULL ones.
    let mut callbacks: keel_callbacks = unsafe { std::mem::zeroed() };
    callbacks.size = size_of::<keel_callbacks>();
    callbacks.send = Some(on_send);
    callbacks.stopped = Some(on_stopped);
    callbacks.log = Some(on_log);
    let mut k = null_mut();
    let ud = std::ptr::from_ref(shared).cast_mut().cast();
    // SAFETY: all of them live here.
    let code = unsafe { keel_new(&mut k, &config, &callbacks, ud) };
    assert_eq!(code, KEEL_OK, "{}", text(keel_errmsg()));
    k
}

/// A member of a pair whose other half is never heard: it leads nothing, requests stay or fail.
fn make_pair(shared: &Shared) -> *mut keel {
    let k = make(shared);
    let peer = |id| keel_peer {
        size: size_of::<keel_peer>(),
        id,
        address: null(),
        meta: null(),
        meta_len: 0,
    };
    let peers = [peer(1), peer(2)];
    // SAFETY: the engine is alive, the peers live here.
    assert_eq!(unsafe { keel_bootstrap(k, peers.as_ptr(), 2) }, KEEL_OK);
    k
}

fn panicking(k: *mut keel, access: Access) -> c_int {
    // SAFETY: the engine is alive.
    let k = unsafe { k.as_ref() };
    match guard::enter(k, access, |_| -> Result<(), Failure> {
        panic!("wheel {} off", 3)
    }) {
        Ok(()) => KEEL_OK,
        Err(code) => code,
    }
}

fn step(k: *mut keel, now: u64) -> c_int {
    let mut next = 0;
    // SAFETY: the engine is alive.
    unsafe { keel_step(k, now, &mut next) }
}

fn propose(k: *mut keel, shared: &Shared) -> c_int {
    let arg = std::ptr::from_ref(shared).cast_mut().cast();
    // SAFETY: the engine is alive, the data is static.
    unsafe { keel_propose(k, b"x".as_ptr().cast(), 1, Some(on_done), arg) }
}

#[test]
fn a_panic_while_driving_ends_the_engine_and_nothing_else() {
    let shared = Shared::default();
    let k = make_pair(&shared);
    assert_eq!(propose(k, &shared), KEEL_OK);
    assert_eq!(panicking(k, Access::Drive), KEEL_ERR_INTERNAL);
    let message = text(keel_errmsg());
    assert!(message.contains("wheel 3 off"), "{message}");
    assert!(message.contains("engine.rs"), "says where: {message}");
    {
        let seen = shared.lock().unwrap();
        assert_eq!(seen.stopped, [KEEL_ERR_INTERNAL]);
        assert!(
            seen.log.iter().any(|line| line.contains("wheel 3 off")),
            "{:?}",
            seen.log
        );
        assert_eq!(seen.done.len(), 1, "what waited is answered");
        assert_eq!(seen.done[0].0, KEEL_ERR_CLOSED);
        assert!(!seen.done[0].1.is_empty());
    }

    assert_eq!(step(k, 1), KEEL_ERR_INTERNAL);
    // SAFETY: the engine is alive.
    unsafe {
        assert_eq!(keel_dispatch(k), KEEL_ERR_INTERNAL);
        assert_eq!(keel_fd(k), KEEL_ERR_INTERNAL);
    }
    assert_eq!(propose(k, &shared), KEEL_ERR_CLOSED);
    // SAFETY: the engine is alive, then freed once.
    unsafe {
        assert_eq!(keel_role(k), KEEL_ROLE_FOLLOWER);
        assert_eq!(keel_leader(k), 0);
        assert_eq!(keel_lease_ms(k), 0, "a dead engine must not serve");
        let mut status = null_mut();
        assert_eq!(keel_status_take(k, &mut status), KEEL_OK);
        assert_eq!((*keel_status_info(status)).fenced, 1);
        assert_eq!((*keel_status_info(status)).lease_ms, 0);
        keel_status_free(status);
        assert_eq!(keel_free(k), KEEL_OK);
    }
    let seen = shared.lock().unwrap();
    assert_eq!(seen.stopped, [KEEL_ERR_INTERNAL], "told once");
    assert_eq!(seen.done.len(), 1, "completed once");
}

#[test]
fn a_panic_in_an_input_is_told_by_the_next_driving_call() {
    let shared = Shared::default();
    let k = make_pair(&shared);
    assert_eq!(panicking(k, Access::Input), KEEL_ERR_INTERNAL);
    assert!(
        shared.lock().unwrap().stopped.is_empty(),
        "callbacks run in driving calls only"
    );
    assert_eq!(step(k, 1), KEEL_ERR_INTERNAL);
    assert_eq!(step(k, 2), KEEL_ERR_INTERNAL);
    assert_eq!(shared.lock().unwrap().stopped, [KEEL_ERR_INTERNAL]);
    // SAFETY: the engine is alive.
    assert_eq!(unsafe { keel_free(k) }, KEEL_OK);
}

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: i16,
    revents: i16,
}

unsafe extern "C" {
    fn poll(fds: *mut PollFd, n: std::ffi::c_ulong, timeout_ms: c_int) -> c_int;
}

fn is_readable(fd: c_int) -> bool {
    const POLLIN: i16 = 1;
    let mut asked = PollFd {
        fd,
        events: POLLIN,
        revents: 0,
    };
    // SAFETY: it lives here, and there is one.
    unsafe { poll(&mut asked, 1, 0) == 1 }
}

#[test]
fn a_death_is_due_until_it_was_told() {
    let shared = Shared::default();
    let k = make_pair(&shared);
    // SAFETY: the engine is alive, then freed once.
    unsafe {
        let fd = keel_fd(k);
        assert_eq!(keel_dispatch(k), KEEL_OK);
        assert!(!is_readable(fd) && keel_timeout_ms(k) > 0);
        assert_eq!(panicking(k, Access::Input), KEEL_ERR_INTERNAL);
        assert!(is_readable(fd));
        assert_eq!(keel_timeout_ms(k), 0);
        assert_eq!(keel_dispatch(k), KEEL_ERR_INTERNAL);
        assert_eq!(shared.lock().unwrap().stopped, [KEEL_ERR_INTERNAL]);
        assert!(!is_readable(fd));
        assert_eq!(keel_timeout_ms(k), -1);
        assert_eq!(keel_free(k), KEEL_OK);
    }
}

#[test]
fn what_waits_is_answered_before_free_returns() {
    let shared = Shared::default();
    let k = make_pair(&shared);
    for _ in 0..3 {
        assert_eq!(propose(k, &shared), KEEL_OK);
    }
    // SAFETY: the engine is alive.
    assert_eq!(unsafe { keel_free(k) }, KEEL_OK);
    let seen = shared.lock().unwrap();
    assert_eq!(
        seen.done.iter().map(|d| d.0).collect::<Vec<_>>(),
        [KEEL_ERR_CLOSED; 3]
    );
    assert!(seen.stopped.is_empty(), "freeing is no failure");
}

#[test]
fn a_second_driver_is_turned_away_at_once() {
    let shared = Shared::default();
    let k = make_pair(&shared);
    // SAFETY: the engine is alive.
    let engine = unsafe { k.as_ref() };
    let inner = guard::enter(engine, Access::Drive, |_| {
        assert_eq!(step(k, 1), KEEL_ERR_BUSY);
        // SAFETY: the engine is alive; it is not freed now.
        assert_eq!(unsafe { keel_free(k) }, KEEL_ERR_BUSY);
        assert_eq!(propose(k, &shared), KEEL_OK);
        Ok(())
    });
    assert_eq!(inner, Ok(()));
    assert_eq!(step(k, 2), KEEL_OK);
    // SAFETY: the engine is alive.
    assert_eq!(unsafe { keel_free(k) }, KEEL_OK);
}

#[test]
fn a_time_that_no_clock_shows_is_refused() {
    let shared = Shared::default();
    let k = make_pair(&shared);
    assert_eq!(step(k, 1), KEEL_OK);
    for now in [1 << 63, u64::MAX] {
        assert_eq!(step(k, now), KEEL_ERR_INVALID);
    }
    assert_eq!(step(k, (1 << 63) - 1), KEEL_OK);
    assert!(
        shared.lock().unwrap().stopped.is_empty(),
        "nothing was done"
    );
    // SAFETY: the engine is alive.
    assert_eq!(unsafe { keel_free(k) }, KEEL_OK);
}

#[test]
fn guards_nest_and_keep_their_own_text() {
    assert_eq!(guard::catch(|| 1), Ok(1));
    let inner = guard::catch(|| {
        let nested = guard::catch(|| panic!("inner"));
        assert!(nested.is_err_and(|text: String| text.contains("inner")));
        panic!("outer");
    });
    assert!(inner.is_err_and(|text: String| text.contains("outer") && !text.contains("inner")));
}

/// What the thread keeps is gone in the order opposite to that of its first use.
#[test]
fn a_panic_in_a_thread_that_is_ending_is_contained() {
    struct Last(Arc<Mutex<Option<Result<(), String>>>>);
    impl Drop for Last {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = Some(guard::catch(|| panic!("late")));
        }
    }
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let caught = Arc::new(Mutex::new(None));
    let last = Last(caught.clone());
    std::thread::spawn(|| {
        LAST.set(Some(last));
        assert!(guard::catch(|| panic!("early")).is_err());
    })
    .join()
    .unwrap();
    let caught = caught.lock().unwrap().take();
    let text = caught.expect("it was dropped").expect_err("it panics");
    assert_eq!(text, "internal error: panic", "its text was gone before");
}
