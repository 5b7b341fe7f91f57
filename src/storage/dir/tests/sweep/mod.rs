//! Sweeps over everything that can happen to a small directory: too many cases for a debug build,
//! which tries a sample. `make check-storage` sets RAFTKEEL_SWEEP=all and builds for speed.

mod calls;
mod cuts;
mod rot;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Whether all of it is to be tried.
fn thorough() -> bool {
    std::env::var("RAFTKEEL_SWEEP").is_ok_and(|what| what == "all")
}

/// Does every job, on every core, and panics with what is wrong with the first that failed.
fn in_parallel<T: Send>(jobs: usize, job: impl Fn(usize) -> Result<T, String> + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= jobs {
                return Ok(done);
            }
            match job(number) {
                Ok(result) => done.push(result),
                Err(wrong) => {
                    next.store(jobs, Ordering::Relaxed);
                    return Err(wrong);
                }
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut all = Vec::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(Ok(done)) => all.extend(done),
                Ok(Err(wrong)) => panic!("{wrong}"),
                Err(panicked) => std::panic::resume_unwind(panicked),
            }
        }
    });
    all
}
