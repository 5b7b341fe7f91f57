//! An allocator that counts what one thread has allocated: peak, total, largest piece.

#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's, with counters of each thread.
pub struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a thread has allocated since [`measure`] began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes less those freed; negative when older ones were.
    live: isize,
    /// The most that were live at once. A block that grows counts twice while it is moved.
    pub peak: usize,
    /// Bytes of all allocations together.
    pub total: usize,
}

thread_local! {
    static USAGE: Cell<Usage> = const { Cell::new(Usage { live: 0, peak: 0, total: 0 }) };
}

/// Runs `f`, and counts what this thread allocates meanwhile. Not to be nested.
pub fn measure<T>(f: impl FnOnce() -> T) -> (T, Usage) {
    USAGE.set(Usage::default());
    let result = f();
    (result, USAGE.get())
}

fn count(allocated: usize, freed: usize) {
    // A thread that ends may free after its counters are gone.
    let _ = USAGE.try_with(|cell| {
        let mut usage = cell.get();
        usage.total += allocated;
        usage.live += allocated as isize;
        usage.peak = usage.peak.max(usage.live.max(0) as usize);
        usage.live -= freed as isize;
        cell.set(usage);
    });
}

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: passed on to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: passed on to the caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: passed on to the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: passed on to the caller.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Runs `f`, which may have `bound` bytes live at any moment and allocate twice as many in all.
pub fn within<T>(bound: usize, f: impl FnOnce() -> T) -> T {
    let (result, usage) = measure(f);
    assert!(
        usage.peak <= bound && usage.total <= 2 * bound,
        "{usage:?}, over {bound}"
    );
    result
}
