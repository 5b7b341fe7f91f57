//! The simulator: whole clusters of the Raft core, with their networks, disks, clocks and hosts,
//! under faults that one seed decides, a checker that holds every step against the predicates of
//! the protocol, and a reference model that every step must be permitted by.
//!
//! `cargo test --profile sim --test sim` runs some seeds. In the environment:
//!
//! - `RAFTKEEL_SEED=n` tells one run, with its last events if it fails;
//! - `RAFTKEEL_SEEDS=n`, `RAFTKEEL_SECONDS=n`, `RAFTKEEL_HOURS=n` say how much is run;
//! - `RAFTKEEL_FIRST=n` is the first seed; a soak of hours begins with one of its own.
//!
//! Profile `sim` is a release with debug assertions and overflow checks, which `make check` uses;
//! the trace of a seed is the same in every profile.
//!
//! - `server`: what is driven, behind one call; `core`: the Raft core as that
//! - `world`: nodes, events, time; `lives`: their runs; `calls`: the calls into their servers
//! - `net`, `disk`, `clock`, `host`: what surrounds a server; `image`: what a disk holds; `asks`:
//!   what is wanted of storage and host besides writes
//! - `swarm`: what a seed decides; `schedule`: the faults; `workload`: the work
//! - `judge`: who looks on; `checker`: the predicates; `referee`: the reference model of
//!   `tests/support/model`; `watch`, `marks`: where runs get to
//! - `mutations`: that the model bites
//! - `settle`: the end of a run, and what must come to pass then
//! - `abi`: the same with whole members, driven through the C functions
//! - `run`, `runner`, `trace`: one run, many runs, and what is told of them

#[cfg(not(keel_core_alone))]
mod abi;
mod asks;
mod calls;
mod checker;
mod clock;
mod core;
mod dice;
mod disk;
mod host;
mod image;
mod judge;
mod lives;
mod marks;
#[path = "../support/model/mod.rs"]
mod model;
mod mutations;
mod net;
mod queue;
mod referee;
mod run;
mod runner;
mod schedule;
mod server;
mod settle;
mod swarm;
mod trace;
mod watch;
mod workload;
mod world;

use std::time::Instant;

use crate::run::CoreWorld;
use crate::runner::{Simulation, number};
use crate::swarm::Swarm;

#[test]
fn no_promise_is_broken_by_any_mix_of_faults() {
    runner::run_wished::<CoreWorld>();
}

/// I22: the same inputs give the same outputs.
#[test]
fn a_seed_decides_everything() {
    runner::assert_repeats::<CoreWorld>(20);
}

/// Prints what the first seeds did, to be compared between builds.
#[test]
#[ignore = "scripts/sim-hashes.sh compares what it prints"]
fn hashes() {
    for seed in 1..=number("RAFTKEEL_SEEDS").unwrap_or(100) {
        let summary = runner::run_seed::<CoreWorld>(seed).expect("it passes");
        println!("hash of seed {seed}: {:016x}", summary.hash);
    }
}

/// Prints how fast three nodes are simulated under moderate trouble, on one core.
#[test]
#[ignore = "a measurement"]
fn speed() {
    const SPAN: u64 = 600;
    let runs = number("RAFTKEEL_SEEDS").unwrap_or(40);
    let (start, mut calls) = (Instant::now(), 0);
    for seed in 1..=runs {
        let mut world = run::with_swarm(Swarm::moderate(SPAN * 1_000_000), seed, false);
        calls += world.simulate().calls;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "sim speed: {:.0} simulated s/s, {:.0} calls/s, on one core, 3 nodes",
        (runs * SPAN) as f64 / seconds,
        calls as f64 / seconds
    );
}
