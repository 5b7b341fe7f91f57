//! The simulator with whole members in its loop: the same networks, disks, clocks and faults, and
//! everything that a C host does and sees goes through the C functions.
//!
//! - `keel`: a member behind its C functions; `upcalls`: those that it calls back; `host`: the
//!   program around it; `store`: what its database holds
//! - `plan`: what a seed decides; `world`: nodes, events, time; `calls`: messages and driving calls;
//!   `lives`: runs of nodes; `notice`: what members tell
//! - `faults`, `work`: what happens to them; `slow`: leaders with slow disks; `settle`: the end, and
//!   what must come to pass then
//! - `judge`: who looks on, from outside; `marks`: where runs get to

mod calls;
mod faults;
mod host;
mod judge;
mod keel;
mod lives;
mod marks;
mod notice;
mod plan;
mod settle;
mod slow;
mod store;
mod upcalls;
mod work;
mod world;

use self::marks::Mark;
use self::plan::Plan;
use self::world::World;
use crate::marks::Fault;
use crate::run::Summary;
use crate::runner::{self, Simulation};

impl Simulation for World {
    const KNOWN: &str = include_str!("seeds.txt");
    const SEEDS: u64 = 100;
    const ENOUGH: u64 = 1_000;
    const FOREIGN: &[Fault] = &[
        Fault::HostSteppedDown,
        Fault::WriteTorn,
        Fault::LogDamaged,
        Fault::DiskFilled,
    ];

    fn describe(seed: u64) -> String {
        format!("{:#?}", Plan::draw(seed))
    }

    fn prepare(seed: u64, told: bool) -> World {
        World::new(Plan::draw(seed), seed, told)
    }

    fn simulate(&mut self) -> Summary {
        let start = self.now;
        self.run_until(start + self.plan.swarm.span);
        let elected = self.settle();
        let span = self.now - start;
        (0..self.nodes.len()).for_each(|at| self.crash(at));
        self.judge.nobody_waits();
        Summary {
            elected,
            hash: self.trace.hash(),
            calls: self.trace.calls,
            span,
            proposed: self.proposals,
            committed: self.judge.top(),
            read: self.judge.reads,
        }
    }

    fn last_words(&self) -> String {
        self.trace.last_words()
    }

    fn marks() -> Vec<&'static str> {
        Mark::ALL.iter().map(|mark| mark.1).collect()
    }

    fn take_marks() -> Vec<u64> {
        Mark::take()
    }
}

#[test]
fn no_promise_is_broken_through_the_c_interface() {
    runner::run_wished::<World>();
}

/// I22: the same inputs give the same outputs.
#[test]
fn a_seed_decides_what_members_do() {
    runner::assert_repeats::<World>(5);
}
