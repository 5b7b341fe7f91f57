//! One run for each allocation that fails, each a process of its own: this program again, told by its
//! environment what to do.

#![allow(unsafe_code, reason = "a process ends itself if it hangs")]

use std::ffi::c_uint;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::alloc::{self, Fault};

/// Smaller allocations never fail: what takes no more than a page nobody has chosen the size of.
const SMALLEST: usize = 4097;
/// What a child is to do: the fault, and the number of the allocation. And where.
const RUN: &str = "RAFTKEEL_MEMORY_RUN";
const ROOT: &str = "RAFTKEEL_MEMORY_ROOT";
/// Which allocation a child is to tell of.
const TRACE: &str = "RAFTKEEL_MEMORY_TRACE";
/// Seconds after which a child hangs.
const PATIENCE: c_uint = 300;
/// Runs that are told of in detail if they fail.
const TOLD: usize = 8;

unsafe extern "C" {
    fn alarm(seconds: c_uint) -> c_uint;
}

/// Has every allocation of `live` fail that [`points`] chooses, in children that run this same test.
pub fn sweep(test: &str, live: impl Fn(&Path)) {
    if let (Ok(run), Ok(root)) = (std::env::var(RUN), std::env::var(ROOT)) {
        // SAFETY: it is only that the process ends if this takes too long.
        unsafe { alarm(PATIENCE) };
        return child(&run, || live(Path::new(&root)));
    }
    let (ok, said) = spawn(test, "record", 0);
    assert!(ok, "{said}");
    let points = points(&said);
    let faults = |n| [format!("once:{n}"), format!("from:{n}")];
    let runs: Vec<String> = points.into_iter().flat_map(faults).collect();
    let bad = run_all(test, &runs);
    println!("{test}: {} runs, {} bad", runs.len(), bad.len());
    for (run, said) in bad.iter().take(TOLD) {
        explain(test, run, said);
    }
    assert!(bad.is_empty(), "{} of {} runs", bad.len(), runs.len());
}

/// Has a child of this same test do `live`, and passes on what it has said.
pub fn alone(test: &str, live: impl FnOnce(&Path)) {
    if let (Ok(_), Ok(root)) = (std::env::var(RUN), std::env::var(ROOT)) {
        // SAFETY: as above.
        unsafe { alarm(PATIENCE) };
        return live(Path::new(&root));
    }
    let (ok, said) = spawn(test, "alone", 0);
    println!("{said}");
    assert!(ok, "it failed");
}

fn child(run: &str, live: impl FnOnce()) {
    if run == "record" {
        alloc::record(SMALLEST);
        live();
        let (count, stacks) = alloc::recorded();
        println!("\nCOUNT {count}");
        for (first, last) in stacks {
            println!("STACK {first} {last}");
        }
        return;
    }
    let (kind, n) = run.split_once(':').expect("a fault and a number");
    let n = n.parse().expect("a number");
    let fault = match kind {
        "once" => Fault::Once(n),
        "from" => Fault::From(n),
        _ => panic!("no such fault: {kind}"),
    };
    let traced = std::env::var(TRACE).map_or(0, |n| n.parse().expect("a number"));
    alloc::set(fault, SMALLEST, traced);
    live();
    assert!(alloc::failed() > 0, "nothing failed");
}

/// The numbers behind a word in what a child has said.
fn numbers<'a>(said: &'a str, word: &'a str) -> impl Iterator<Item = u64> + 'a {
    let lines = said.lines().filter_map(move |line| line.strip_prefix(word));
    let words = lines.flat_map(str::split_whitespace);
    words.map(|n| n.parse().expect("a number"))
}

/// Which allocations are to fail, of those that were recorded: of each place that they come from the
/// first and the last one, or all.
fn points(said: &str) -> Vec<u64> {
    let mut points: Vec<u64> = match std::env::var("RAFTKEEL_MEMORY").as_deref() {
        Ok("all") => (1..=numbers(said, "COUNT ").sum()).collect(),
        _ => numbers(said, "STACK ").collect(),
    };
    points.sort_unstable();
    points.dedup();
    points
}

/// Those of the runs that failed, with what they said.
fn run_all(test: &str, runs: &[String]) -> Vec<(String, String)> {
    let (next, bad) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (ok, said) = spawn(test, run, 0);
            if !ok {
                bad.lock().expect("no panic").push((run.clone(), said));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    bad.into_inner().expect("no panic")
}

/// Has a child do it: whether it came to its end, and all that it has said. It is to say from where the
/// allocation of number `traced` comes.
fn spawn(test: &str, run: &str, traced: u64) -> (bool, String) {
    let root = scratch();
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([test, "--exact", "--nocapture", "--test-threads", "1"]);
    command.env(RUN, run).env(ROOT, &root);
    if traced > 0 {
        command.env(TRACE, traced.to_string());
    }
    let output = command.output().expect("a child");
    // What is left of it is in nobody's way.
    drop(std::fs::remove_dir_all(root));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

/// A directory for one run, in memory if the machine has such.
fn scratch() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let memory = PathBuf::from("/dev/shm");
    let root = match memory.is_dir() {
        true => memory,
        false => std::env::temp_dir(),
    };
    let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let root = root.join(format!("raftkeel-{pid}-memory-{number}"));
    std::fs::create_dir_all(&root).expect("a directory");
    root
}

/// Says what came of a run, and from where the allocation came that failed last: if the process was
/// ended by one, by that.
fn explain(test: &str, run: &str, said: &str) {
    let last = numbers(said, "NUMBER ").last().unwrap_or(1);
    let (_, said) = spawn(test, run, last);
    println!("---- {RUN}={run} {TRACE}={last}");
    let words = [
        "panicked",
        "memory allocation",
        "never",
        " bytes:",
        "raftkeel::",
    ];
    let tells = |line: &&str| words.iter().any(|word| line.contains(word));
    for line in said.lines().filter(tells).take(40) {
        println!("{line}");
    }
}
