//! One run: a seed, its faults, its ending, and what came of it.

use raftkeel::core::{Configuration, Raft};

use crate::checker::Checker;
use crate::queue::Micros;
use crate::referee::{Event, Referee};
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

/// A run that is about to begin.
pub fn prepare(seed: u64, told: bool) -> CoreWorld {
    with_swarm(Swarm::draw(seed), seed, told)
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

/// Runs to the end; panics if anything is wrong.
pub fn simulate(world: &mut CoreWorld) -> Summary {
    let start = world.now;
    world.run_until(start + world.swarm.span);
    let elected = world.settle();
    let nodes = world.nodes.iter().enumerate();
    let rafts = nodes.filter_map(|(at, node)| Some((at, node.server.as_ref()?)));
    world.judge.0.look_at_whole_logs(rafts);
    Summary {
        elected,
        hash: world.trace.hash(),
        calls: world.trace.calls,
        span: world.now - start,
        proposed: world.proposals,
        committed: world.judge.0.committed(),
        read: world.judge.0.reads_done(),
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
