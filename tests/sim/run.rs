//! One run: a seed, its faults, its ending, and what came of it.

use raftkeel::core::{Configuration, Raft};

use crate::checker::Checker;
use crate::queue::Micros;
use crate::settle::Knows;
use crate::swarm::Swarm;
use crate::watch::Watch;
use crate::world::World;

/// The bare core under the checker, with somebody who counts the marks.
pub type CoreWorld = World<Raft, (Checker, Watch)>;

impl Knows for (Checker, Watch) {
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
    pub proposed: u64,
    pub committed: u64,
    pub read: u64,
}

/// A run that is about to begin.
pub fn prepare(seed: u64, told: bool) -> CoreWorld {
    with_swarm(Swarm::draw(seed), seed, told)
}

pub fn with_swarm(swarm: Swarm, seed: u64, told: bool) -> CoreWorld {
    let judge = (Checker::new(swarm.nodes), Watch::new(swarm.nodes));
    World::new(swarm, seed, judge, told)
}

/// Runs to the end; panics if anything is wrong.
pub fn simulate(world: &mut CoreWorld) -> Summary {
    let start = world.now;
    world.run_until(start + world.swarm.span);
    world.settle();
    let nodes = world.nodes.iter().enumerate();
    let rafts = nodes.filter_map(|(at, node)| Some((at, node.server.as_ref()?)));
    world.judge.0.look_at_whole_logs(rafts);
    Summary {
        hash: world.trace.hash(),
        calls: world.trace.calls,
        span: world.now - start,
        proposed: world.proposals,
        committed: world.judge.0.committed(),
        read: world.judge.0.reads_done(),
    }
}
