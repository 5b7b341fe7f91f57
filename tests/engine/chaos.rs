//! Members with directories through anything that may happen to machines: killed and started
//! again, with a clock that stands where it stood or starts anew, stopped, cut off in one
//! direction or both, excluded, taken back, replaced, under settings that change.
//!
//! A failing seed is printed; `RAFTKEEL_SEED=n` replays it, `RAFTKEEL_SEEDS=n` tries n of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use raftkeel::cluster::Params;
use raftkeel::core::{Millis, Random};
use raftkeel::engine::Request;

use crate::fleet::{Fleet, LIVENESS};

const SEEDS: u64 = 12;

struct Run {
    fleet: Fleet,
    random: Random,
    proposed: u64,
    next_id: u64,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random::new(seed);
        let count = 3 + 2 * (random.next_u64() % 2);
        Run {
            fleet: Fleet::new(seed, count),
            random,
            proposed: 0,
            next_id: count + 1,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    fn any(&mut self) -> u64 {
        let ids: Vec<u64> = self.fleet.nodes.keys().copied().collect();
        ids[self.below(ids.len() as u64) as usize]
    }

    fn propose(&mut self, at: u64) -> Option<u64> {
        self.proposed += 1;
        let data = self.proposed.to_le_bytes()[..].into();
        self.fleet.request(at, Request::Propose(data))
    }

    fn settings(&mut self) {
        let deadtimes = [0, 4_000, 6_000, 12_000, 30_000];
        let deadtime = deadtimes[self.below(5) as usize];
        self.set_deadtime(deadtime);
    }

    fn set_deadtime(&mut self, deadtime: u32) {
        let Some(leader) = self.fleet.leader() else {
            return;
        };
        let params = Params {
            hb_deadtime: deadtime,
            hb_initdead: 2 * deadtime,
            ..Params::default()
        };
        self.fleet.request(leader, Request::SetParams(params));
    }

    fn administrate(&mut self) {
        let (Some(leader), target) = (self.fleet.leader(), self.any()) else {
            return;
        };
        if self.fleet.is_out(leader, target) {
            match self.below(3) {
                0 if self.next_id < 12 => self.replace(leader, target),
                _ => self.fleet.readmit(leader, target),
            }
        } else if self.below(3) == 0 {
            self.fleet.exclude(leader, target);
        }
    }

    fn replace(&mut self, leader: u64, old: u64) {
        let by = self.next_id;
        self.next_id += 1;
        self.fleet.replace(leader, old, by);
    }

    fn something_happens(&mut self) {
        let (a, b) = (self.any(), self.any());
        match self.below(16) {
            0 => self.fleet.isolate(a),
            1 => self.fleet.cut(a, b),
            2 => self.fleet.cut_one_way(a, b),
            3 => self.fleet.reconnect(a),
            4 => self.fleet.pause(a),
            5 | 6 => self.fleet.resume(a),
            7 | 8 => self.fleet.kill(a),
            9 | 10 => {
                let reboot = self.below(2) == 0;
                self.fleet.start(a, reboot);
            }
            11 => {
                self.fleet.kill(a);
                let reboot = self.below(2) == 0;
                self.fleet.start(a, reboot);
            }
            12 => self.fleet.loss = self.below(400),
            13 => self.administrate(),
            14 if self.below(3) == 0 => self.settings(),
            _ => self.fleet.heal(),
        }
    }

    fn chaos(&mut self) {
        let end = self.fleet.now + 30_000 + self.below(60_000);
        while self.fleet.now < end {
            self.something_happens();
            for _ in 0..self.below(4) {
                let at = self.any();
                self.propose(at);
            }
            let span = match self.below(8) {
                0 => 14_000,
                _ => 100 + self.below(4_000),
            };
            self.fleet.run(span);
        }
    }

    /// Everything is healed: everybody comes back, or is replaced, and serves.
    fn calm(&mut self) {
        self.fleet.loss = 0;
        self.fleet.heal();
        self.fleet.run(10_000);
        let end = self.fleet.now + 4 * LIVENESS;
        while !self.fleet.is_whole() {
            if let Some(leader) = self.fleet.leader() {
                let ids: Vec<u64> = self.fleet.nodes.keys().copied().collect();
                for id in ids {
                    if self.fleet.is_out(leader, id) && !self.fleet.is_replaced(leader, id) {
                        self.fleet.readmit(leader, id);
                    }
                }
            }
            self.fleet.run(1_000);
            assert!(self.fleet.now < end, "stuck: {}", self.fleet.describe());
        }
        self.works();
    }

    fn works(&mut self) {
        let end = self.fleet.now + LIVENESS;
        loop {
            let leader = self.fleet.leader();
            let ticket = leader.and_then(|leader| self.propose(leader));
            self.fleet.run(2_000);
            if ticket.is_some_and(|ticket| self.fleet.is_applied_everywhere(ticket)) {
                return;
            }
            assert!(self.fleet.now < end, "stuck: {}", self.fleet.describe());
        }
    }

    /// As many die as the rest can do without, and are excluded.
    fn deaths(&mut self) {
        let deadtime: Millis = 6_000;
        self.set_deadtime(deadtime as u32);
        self.fleet.run(3 * deadtime);
        let members = self.fleet.members();
        let count = 1 + self.below((members.len() as u64 - 1) / 2);
        let at = self.below(members.len() as u64) as usize;
        let dead: Vec<u64> = members
            .iter()
            .cycle()
            .skip(at)
            .take(count as usize)
            .copied()
            .collect();
        for id in &dead {
            self.fleet.kill(*id);
        }
        self.fleet.run(3 * deadtime);
        for id in dead {
            let leader = self.fleet.leader().expect("a majority lives");
            assert!(
                self.fleet.is_out(leader, id),
                "{id} is dead and not excluded: {}",
                self.fleet.describe()
            );
        }
        self.works();
    }
}

fn simulate(seed: u64) -> (u64, u64) {
    let mut run = Run::new(seed);
    run.fleet.elect();
    run.set_deadtime(6_000);
    run.fleet.run(4_000);
    run.chaos();
    run.calm();
    run.deaths();
    run.fleet.finish();
    (run.fleet.starts, run.fleet.exclusions())
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number is wanted"))
}

#[test]
fn clusters_come_through_restarts_cuts_and_orders() {
    let seeds = match number("RAFTKEEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RAFTKEEL_SEEDS").unwrap_or(SEEDS),
    };
    let mut done = (0, 0);
    for seed in seeds.clone() {
        match catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
            Ok((starts, exclusions)) => done = (done.0 + starts, done.1 + exclusions),
            Err(panic) => {
                eprintln!("failed: RAFTKEEL_SEED={seed} replays it");
                resume_unwind(panic);
            }
        }
    }
    println!("{seeds:?}: {} starts, {} exclusions", done.0, done.1);
}
