//! Disks that are slow for long: a leader hands over whose own is slower than those of the others
//! (KEEL_SLOW_LEADER). How that comes about, and what the header promises of it.

use raftkeel::core::Millis;

use super::keel::Order;
use super::marks::Mark::*;
use super::plan::Slowness;
use super::settle::{COMMITS, ELECTS};
use super::world::{Due, World};
use crate::marks::Fault::DiskSlowed;
use crate::queue::Micros;

/// Between two hand-overs of one run.
const PAUSE: Millis = 60_000;
/// Proposals within which a slow disk is noticed: three times the samples that a verdict takes.
const NOTICED: u32 = 48;

impl World {
    /// For how long a disk is judged.
    fn window(&self) -> Micros {
        2 * self.unit().max(1_000_000)
    }

    /// Whether no node has a disk that is faster by nature, or a host that knows how to use it better.
    pub fn are_disks_alike(&self) -> bool {
        let plan = &self.plan;
        let kind = |at: usize| (plan.swarm.disks[at], plan.manners[at].stores_at_once);
        (0..self.nodes.len()).all(|at| kind(at) == kind(0))
    }

    /// A leader's disk takes longer for every write, for so long that it may be noticed.
    pub fn slow_disk(&mut self, at: usize) {
        let slowness = self.dice.scaled(5_000, self.unit());
        let span = self.dice.within(self.window(), 8 * self.window());
        if self.nodes[at].leads() && self.nodes[at].seat.disk.slowness == 0 {
            DiskSlowed.hit();
            self.set_slowness(at, slowness);
            self.plan_due(span, at, Due::Quicken);
        }
    }

    fn set_slowness(&mut self, at: usize, slowness: Micros) {
        let node = &mut self.nodes[at];
        node.seat.disk.slowness = slowness;
        node.slowed |= slowness > 0;
    }

    /// A member hands over as its disk is slow.
    pub fn notice_slow(&mut self, at: usize, to: u64, own: u64, quorum: u64) {
        let node = &mut self.nodes[at];
        let (name, now) = (at + 1, node.driven);
        assert!(
            node.leads() && to != node.seat.id,
            "n{name} hands over to {to}, and does not lead"
        );
        assert!(
            !node.setup.slow_leader,
            "n{name} hands over for its disk's sake, and was told to lead on"
        );
        assert!(
            own >= 3 * quorum && own >= quorum + 5,
            "n{name} hands over, and its disk takes {own} ms, a quorum's {quorum}"
        );
        assert!(
            node.slowed,
            "n{name} hands over, and its disk is as fast as all others"
        );
        let since = node.yielded.replace(now).map(|before| now - before);
        assert!(
            since.is_none_or(|since| since >= PAUSE),
            "n{name} hands over for its disk's sake {since:?} ms after it did so last"
        );
        DiskSlow.hit();
    }

    // ---- at the end ------------------------------------------------------

    /// All is well but disks, which become slow.
    pub fn slow_down(&mut self, well: &[usize]) {
        let (Some(whose), Some(leader)) = (self.plan.slow_end, self.leader_among(well)) else {
            return;
        };
        let yielded = self.nodes[leader].yielded;
        let spare = self.is_spare(leader, well);
        // What an entry takes to the others and back, with their disks, is less than a third of what a
        // slow disk does, and that less than what elections can bear.
        let (swift, slowness) = (self.unit() / 40, self.unit() / 2);
        self.net.calm(swift);
        for at in well.iter().copied() {
            self.nodes[at].seat.disk.calm(swift);
            if whose == Slowness::All || at == leader {
                self.set_slowness(at, slowness);
            }
        }
        let free = yielded.is_none() && !self.nodes[leader].setup.slow_leader && spare;
        let leads_on = self.keep_busy(leader, well);
        match whose {
            Slowness::All => {
                self.hold(leads_on, "all disks are slow, and leadership moves");
                DisksAllSlow.hit();
            }
            Slowness::Leader if free => {
                self.hold(!leads_on, "a leader whose disk is slow leads on");
                DiskSlowAtRest.hit();
                self.give_back(leader, well);
            }
            // It must not, as the judge sees, or nobody could do without it.
            Slowness::Leader => {}
        }
        for at in well.iter().copied() {
            self.nodes[at].seat.disk.slowness = 0;
        }
        let rests = self.run_while(ELECTS * self.unit(), |world| {
            world.leader_among(well).is_some()
        });
        self.hold(rests, "L1: no leader after disks were slow");
    }

    /// Whether those that are well are a majority without this one.
    fn is_spare(&mut self, leader: usize, well: &[usize]) -> bool {
        self.look_at(leader);
        let votes = |at: &&usize| {
            let id = self.nodes[**at].seat.id;
            let seen = self.look.nodes.iter().find(|seen| seen.id == id);
            **at != leader && seen.is_some_and(|seen| seen.is_voter())
        };
        2 * well.iter().filter(votes).count() > self.look.voters as usize
    }

    /// Proposes one thing after the other, for as long as a slow disk may take to be noticed. Whether
    /// this node leads until the end.
    fn keep_busy(&mut self, leader: usize, well: &[usize]) -> bool {
        let end = self.now + 3 * self.window();
        let mut proposed = 0;
        while self.now < end || proposed < NOTICED {
            proposed += 1;
            let number = self.propose(leader, 8).expect("it is at work") as usize;
            // One that is refused, or needs no other node, is over at once.
            self.run_until(self.now + self.unit() / 20);
            self.run_while(COMMITS * self.unit(), |world| {
                !world.judge.requests[number].waits()
            });
            if !self.nodes[leader].leads() {
                let elected = self.run_while(ELECTS * self.unit(), |world| {
                    world.leader_among(well).is_some()
                });
                self.hold(elected, "L1: no leader after one has handed over");
                return false;
            }
        }
        true
    }

    /// One that has handed over gets leadership back, and keeps it for now, slow as it is.
    fn give_back(&mut self, old: usize, well: &[usize]) {
        let id = self.nodes[old].seat.id;
        let leader = self.leader_among(well).filter(|leader| *leader != old);
        let leader = leader.expect("another one leads, as was just seen");
        self.order(leader, Order::Transfer(id));
        let back = self.run_while(COMMITS * self.unit(), |world| {
            world.leader_among(well) == Some(old)
        });
        let yielded = self.nodes[old].yielded;
        if back && self.keep_busy(old, well) {
            DiskSlowAgain.hit();
        } else if back {
            let again = self.nodes[old].yielded != yielded;
            self.hold(
                again,
                "a leader that had handed over lately does not lead on",
            );
        }
    }
}
