//! A log directory on real file systems that lose power, and under a system whose calls fail: what was
//! acknowledged is there afterwards.
//!
//! Power fails by killing a process at one of its system calls and shutting its file system down: what
//! is not on the disk by then never comes there. That takes root, loop devices, `strace`, and the tools
//! of ext4 and xfs. Where anything of that is missing nothing is tested, and it is said why.
//!
//! RAFTKEEL_CUTS is how often power fails, on both file systems together (8; `make check` 200, `make
//! soak` 2000); RAFTKEEL_SEED the first seed of what is written.

mod frozen;
mod rig;
mod story;
mod victim;

use std::env;
use std::path::Path;

use rig::{Disk, FILE_SYSTEMS, Scratch};
use victim::{Calls, End, Fault};

/// System calls that change something, each of which is a moment for power to fail.
const CHANGING: &str = "pwrite64,fdatasync,fsync,fallocate,?sync_file_range,?io_submit,?rename,\
     ?renameat,?renameat2,?unlink,?unlinkat";

/// What was only interrupted has done nothing yet, and is done again.
const REPEATED: [&str; 6] = [
    "pwrite64",
    "pread64",
    "fallocate",
    "fdatasync",
    "fsync",
    "sync_file_range",
];

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |n| n.parse().unwrap())
}

/// The calls at which power is to fail: `count` of all, evenly.
fn spread(calls: &Calls, count: usize) -> Vec<(String, u64)> {
    let all: Vec<(String, u64)> = calls
        .iter()
        .flat_map(|(name, n)| (1..=*n).map(|nth| (name.clone(), nth)))
        .collect();
    let step = all.len() as f64 / count as f64;
    let nth = (0..count.min(all.len())).map(|n| (n as f64 * step.max(1.0)) as usize);
    nth.map(|at| all[at].clone()).collect()
}

/// Lets power fail once; whether it did so at a call rather than when all was done.
fn cut(disk: &mut Disk, seed: u64, call: &str, nth: u64) -> bool {
    let dir = disk.path().join(format!("{seed}-{call}-{nth}"));
    let (end, done) = victim::run(&dir, seed, call, Fault::Kill(nth));
    disk.lose_power();
    if let Err(wrong) = story::check(&dir, seed, done) {
        let disk = disk.keep();
        panic!("{disk}: seed {seed}, killed at {call} {nth}, {done:?} done: {wrong}");
    }
    let _ = std::fs::remove_dir_all(&dir);
    assert!(
        end != End::Panicked,
        "seed {seed}, {call} {nth}: it panicked"
    );
    end == End::Killed
}

/// Lets it fail at so many calls of as many lives as that takes.
fn cuts(kind: &str, count: usize, first_seed: u64) -> (usize, usize) {
    let mut disk = Disk::make(kind);
    let (mut tried, mut killed) = (0, 0);
    let mut seed = first_seed;
    while tried < count {
        // Lives differ in what they do: no more than a part of the cuts in each.
        let calls = victim::count_calls(&disk.path().join("counted"), seed, CHANGING);
        let _ = std::fs::remove_dir_all(disk.path().join("counted"));
        for (call, nth) in spread(&calls, (count - tried).min(25)) {
            killed += usize::from(cut(&mut disk, seed, &call, nth));
            tried += 1;
        }
        seed += 1;
    }
    (tried, killed)
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let count = number("RAFTKEEL_CUTS", 8) as usize;
    let seed = number("RAFTKEEL_SEED", 1);
    println!("RAFTKEEL_SEED={seed}");
    if let Some(why) = rig::lacks_for_power_cuts() {
        println!("SKIPPED: no power cuts on this machine: {why}");
        return;
    }
    for kind in FILE_SYSTEMS {
        let (tried, killed) = cuts(kind, count / FILE_SYSTEMS.len(), seed);
        println!("{kind}: {tried} power cuts, {killed} of them in the middle of a system call");
        // strace counts the calls of each thread by itself: not all of them come to the number.
        assert!(killed * 3 >= tried, "the process is rarely killed");
    }
}

/// Otherwise nothing above would mean anything.
#[test]
fn a_sync_that_is_left_out_is_noticed() {
    if let Some(why) = rig::lacks_for_power_cuts() {
        println!("SKIPPED: no power cuts on this machine: {why}");
        return;
    }
    for kind in FILE_SYSTEMS {
        for call in ["fdatasync", "fsync"] {
            let mut disk = Disk::make(kind);
            let dir = disk.path().join("deaf");
            let (end, done) = victim::run(&dir, 1, call, Fault::Deaf);
            assert_eq!(end, End::Finished);
            disk.lose_power();
            let checked = story::check(&dir, 1, done);
            assert!(checked.is_err(), "{kind}: nobody misses {call}");
        }
    }
}

/// What comes of a life in which one system call fails.
fn fail(scratch: &Path, seed: u64, call: &str, nth: u64, error: &'static str) -> End {
    let dir = scratch.join(format!("{call}-{nth}-{error}"));
    let (end, done) = victim::run(&dir, seed, call, Fault::Error(nth, error));
    if end != End::NotBegun {
        story::check(&dir, seed, done)
            .unwrap_or_else(|wrong| panic!("{error} of {call} {nth}, {done:?} done: {wrong}"));
    }
    let _ = std::fs::remove_dir_all(&dir);
    end
}

#[test]
fn no_failing_system_call_loses_what_was_acknowledged() {
    let seed = number("RAFTKEEL_SEED", 1);
    // Of each error; the simulated disk lets every call fail.
    let count = number("RAFTKEEL_CUTS", 8) as usize / 4;
    println!("RAFTKEEL_SEED={seed}");
    if let Some(why) = rig::lacks("strace") {
        println!("SKIPPED: no system call is made to fail: {why}");
        return;
    }
    let scratch = Scratch::new("failing");
    let calls = victim::count_calls(
        &scratch.path().join("counted"),
        seed,
        &format!("{CHANGING},pread64"),
    );
    for error in ["EIO", "ENOSPC", "EINTR"] {
        let (mut said, mut passed) = (0, 0);
        for (call, nth) in spread(&calls, count) {
            let end = fail(scratch.path(), seed, &call, nth, error);
            match end {
                End::Failed => said += 1,
                End::Finished => passed += 1,
                End::NotBegun => continue,
                End::Killed | End::Panicked => panic!("{error} of {call} {nth}: {end:?}"),
            }
            let repeated = error == "EINTR" && REPEATED.contains(&&*call);
            assert!(
                !repeated || end == End::Finished,
                "{call} {nth} is not repeated"
            );
        }
        println!("{error}: {said} calls that ended a life, {passed} that did not");
        assert!(said > 0 || error == "EINTR", "no failure was noticed");
    }
}
