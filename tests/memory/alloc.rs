//! An allocator that has no memory for the library when it is told so. What tests allocate for
//! themselves it always has.

#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The system's, but for what fails.
pub struct Failing;

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Which allocations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This one, counted from 1.
    Once(u64),
    /// This one and all after it, until [`heal`].
    From(u64),
}

thread_local! {
    /// This thread is in a function of the library, and not in one that it calls back.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Bytes in all allocations of more than a page, and how many they may be for the library to get more.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static LIMITED: AtomicBool = AtomicBool::new(true);
const PAGE: usize = 4096;

/// From now on the process has room for so many bytes more, until [`unlimit`].
pub fn limit(bytes: usize) {
    LIMIT.store(LIVE.load(Relaxed) + bytes, Relaxed);
}

/// Whether the limit is one for what is done next: members in one process are each limited for itself.
pub fn is_limited(limited: bool) {
    LIMITED.store(limited, Relaxed);
}

/// There is room for everything again.
pub fn unlimit() {
    LIMIT.store(usize::MAX, Relaxed);
}

/// Whether the library cannot have so many bytes more.
fn exceeds(size: usize) -> bool {
    let inside = INSIDE.try_with(Cell::get).unwrap_or(false);
    inside
        && LIMITED.load(Relaxed)
        && size > PAGE
        && LIVE.load(Relaxed) + size > LIMIT.load(Relaxed)
}

fn count(got: *mut u8, size: usize) -> *mut u8 {
    if size > PAGE && !got.is_null() {
        LIVE.fetch_add(size, Relaxed);
    }
    got
}

fn discount(size: usize) {
    if size > PAGE {
        LIVE.fetch_sub(size, Relaxed);
    }
}

/// Smaller ones never fail and are not counted.
static SMALLEST: AtomicUsize = AtomicUsize::new(4096);
static SEEN: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
static FIRST: AtomicU64 = AtomicU64::new(u64::MAX);
static LAST: AtomicU64 = AtomicU64::new(u64::MAX);
static TRACED: AtomicU64 = AtomicU64::new(0);
static RECORDS: AtomicBool = AtomicBool::new(false);
static STACKS: Mutex<BTreeMap<u64, (u64, u64)>> = Mutex::new(BTreeMap::new());

/// Runs a function of the library.
pub fn inside<T>(f: impl FnOnce() -> T) -> T {
    marked(true, f)
}

/// Runs what the library calls back.
pub fn outside<T>(f: impl FnOnce() -> T) -> T {
    marked(false, f)
}

fn marked<T>(is_inside: bool, f: impl FnOnce() -> T) -> T {
    let before = INSIDE.replace(is_inside);
    let result = f();
    INSIDE.set(before);
    result
}

/// From now on this is what fails, of allocations of at least so many bytes. Standard error is told from
/// where the one of number `traced` came.
pub fn set(fault: Fault, smallest: usize, traced: u64) {
    let (first, last) = match fault {
        Fault::Once(n) => (n, n),
        Fault::From(n) => (n, u64::MAX),
    };
    SMALLEST.store(smallest, Relaxed);
    FIRST.store(first, Relaxed);
    LAST.store(last, Relaxed);
    TRACED.store(traced, Relaxed);
}

/// Nothing fails any more.
pub fn heal() {
    LAST.store(0, Relaxed);
}

/// How many have failed.
pub fn failed() -> u64 {
    FAILED.load(Relaxed)
}

/// Whether the next one fails.
pub fn is_short() -> bool {
    let next = SEEN.load(Relaxed) + 1;
    (FIRST.load(Relaxed)..=LAST.load(Relaxed)).contains(&next) && failed() > 0
}

/// From now on it is noted where allocations of at least so many bytes come from.
pub fn record(smallest: usize) {
    SMALLEST.store(smallest, Relaxed);
    // The first call loads a library.
    let _ = stack();
    RECORDS.store(true, Relaxed);
}

/// How many there were, and of each place that they came from the first and the last one.
pub fn recorded() -> (u64, Vec<(u64, u64)>) {
    RECORDS.store(false, Relaxed);
    let stacks = STACKS.lock().expect("nobody panics with it");
    (SEEN.load(Relaxed), stacks.values().copied().collect())
}

/// Frames that tell one place from another.
const DEPTH: usize = 14;

unsafe extern "C" {
    fn backtrace(frames: *mut *mut c_void, max: c_int) -> c_int;
}

/// A number for the way that led here.
fn stack() -> u64 {
    // This and the allocator's own are the first few.
    let mut frames = [std::ptr::null_mut(); DEPTH];
    // SAFETY: there is room for as many frames.
    let count = unsafe { backtrace(frames.as_mut_ptr(), frames.len() as c_int) };
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for frame in &frames[..count.max(0) as usize] {
        hash = (hash ^ *frame as u64).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

/// Whether an allocation of so many bytes fails.
fn fails(size: usize) -> bool {
    let inside = INSIDE.try_with(Cell::get).unwrap_or(false);
    if !inside || size < SMALLEST.load(Relaxed) {
        return false;
    }
    let n = SEEN.fetch_add(1, Relaxed) + 1;
    if RECORDS.load(Relaxed) {
        outside(|| {
            let mut stacks = STACKS.lock().expect("nobody panics with it");
            stacks.entry(stack()).or_insert((n, n)).1 = n;
        });
    }
    let fails = (FIRST.load(Relaxed)..=LAST.load(Relaxed)).contains(&n);
    if fails {
        FAILED.fetch_add(1, Relaxed);
        if n == TRACED.load(Relaxed) {
            outside(|| eprintln!("{size} bytes:\n{}", Backtrace::force_capture()));
        } else if TRACED.load(Relaxed) == 0 {
            outside(|| eprintln!("NUMBER {n}"));
        }
    }
    fails
}

// SAFETY: everything is done by the system's allocator, or refused.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) || exceeds(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: passed on to the caller.
        count(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        discount(layout.size());
        // SAFETY: passed on to the caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails(layout.size()) || exceeds(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: passed on to the caller.
        count(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > layout.size() && (fails(size) || exceeds(size)) {
            return std::ptr::null_mut();
        }
        // SAFETY: passed on to the caller.
        let got = unsafe { System.realloc(at, layout, size) };
        if !got.is_null() {
            discount(layout.size());
        }
        count(got, size)
    }
}
