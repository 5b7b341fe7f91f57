//! One run: a seed, its faults, its ending, and what came of it.

use raftkeel::core::{Configuration, Raft};

use crate::checker::Checker;
use crate::marks::{Fault, Mark};
use crate::queue::Micros;
use crate::referee::{Event, Referee};
use crate::runner::Simulation;
use crate::settle::Knows;
use crate::swarm::Swarm;
use crate::watch::Watch;
use crate::world::World;

/// The bare core under the checker and the reference model, with somebody who counts the marks.
pub type CoreWorld = World<Raft, (Checker, (Watch, Referee))>;

impl Knows for (Checker, (Watch, Referee)) {
    fn acting(&self) -> Vec<Configuration> {
        self.0.configurations().cloned().collect()
    }

    fn reads_waiting(&self, node: usize) -> usize {
        self.0.reads_waiting(node)
    }
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Of everything that went into servers and came out of them.
    pub hash: u64,
    pub calls: u64,
    pub span: Micros,
    /// From the end of the faults to a leader that can commit, in tenths of an election timeout.
    pub elected: u64,
    pub proposed: u64,
    pub committed: u64,
    pub read: u64,
}

fn judges(nodes: usize) -> (Checker, (Watch, Referee)) {
    (
        Checker::new(nodes),
        (Watch::new(nodes), Referee::new(nodes)),
    )
}

pub fn with_swarm(swarm: Swarm, seed: u64, told: bool) -> CoreWorld {
    let judge = judges(swarm.nodes);
    World::new(swarm, seed, judge, told)
}

impl Simulation for CoreWorld {
    const KNOWN: &str = include_str!("seeds.txt");
    const SEEDS: u64 = 1_000;
    const ENOUGH: u64 = 15_000;
    const FOREIGN: &[Fault] = &[Fault::DiskSlowed];

    fn describe(seed: u64) -> String {
        format!("{:#?}", Swarm::draw(seed))
    }

    fn prepare(seed: u64, told: bool) -> CoreWorld {
        with_swarm(Swarm::draw(seed), seed, told)
    }

    fn simulate(&mut self) -> Summary {
        let start = self.now;
        self.run_until(start + self.swarm.span);
        let elected = self.settle();
        let nodes = self.nodes.iter().enumerate();
        let rafts = nodes.filter_map(|(at, node)| Some((at, node.server.as_ref()?)));
        self.judge.0.look_at_whole_logs(rafts);
        Summary {
            elected,
            hash: self.trace.hash(),
            calls: self.trace.calls,
            span: self.now - start,
            proposed: self.proposals,
            committed: self.judge.0.committed(),
            read: self.judge.0.reads_done(),
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

/// What the model was told in a run, while there were faults; of a long one only the beginning.
pub fn record(seed: u64) -> Vec<Event> {
    let swarm = Swarm::draw(seed);
    let mut judge = judges(swarm.nodes);
    judge.1.1.record = Some(Vec::new());
    let mut world = World::new(swarm, seed, judge, false);
    world.run_until(world.now + world.swarm.span);
    world.judge.1.1.record.take().unwrap_or_default()
}
