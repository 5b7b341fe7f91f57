//! The end of a run: faults end, for all nodes or for one quorum of them, and what was promised
//! for such times must come to pass.

use std::fmt::Write;

use raftkeel::ffi::code::{KEEL_ERR_EXCLUDED, KEEL_OK};
use raftkeel::ffi::status::*;

use super::host::Manners;
use super::keel::Order;
use super::marks::Mark::*;
use super::world::World;
use crate::host::Pace;
use crate::marks::Fault;
use crate::queue::Micros;
use crate::swarm::Ending;

/// In election timeouts: until there is a leader that a majority has confirmed, until everybody
/// is a member again and has caught up, until one more entry is everywhere, and how long
/// leadership must then be at rest.
pub const ELECTS: u64 = 20;
const CATCHES_UP: u64 = 100;
pub const COMMITS: u64 = 6;
const RESTS: u64 = 4;

impl World {
    /// Ends the faults, and holds the cluster to its promises.
    pub fn settle(&mut self) -> u64 {
        let well = self.calm();
        let unit = self.unit();
        let start = self.now;
        if self.counts_on_lost() {
            // A change that nobody can see from outside may need the vote of a node whose disk was
            // lost amid it: then nothing is promised but that nothing goes wrong.
            self.run_until(self.now + ELECTS * unit);
            return 0;
        }
        // A leader that was cut off or paused until now may still find out that it is none.
        self.run_until(self.now + 2 * unit);
        let elected = self.run_while((ELECTS - 2) * unit, |world| {
            world.leader_among(&well).is_some()
        });
        self.hold(elected, "L1: no leader");
        let took = 10 * (self.now - start) / unit;
        let together = self.bring_together(&well);
        self.hold(together, "L3: members have not caught up");
        // What was late may still come, and say what is no more so.
        self.run_until(self.now + self.plan.swarm.net.late_by);
        let together = self.bring_together(&well);
        self.hold(together, "L3: members have not stayed together");
        self.works(&well);
        self.run_until(self.now + RESTS * unit);
        self.nobody_waits(&well);
        self.slow_down(&well);
        self.rest_is_out(&well);
        took
    }

    pub fn hold(&mut self, so: bool, what: &str) {
        if so {
            return;
        }
        let mut text = String::new();
        for at in 0..self.nodes.len() {
            let says = self.look_at(at);
            let node = &self.nodes[at];
            let (id, applied) = (node.seat.id, node.seat.applied);
            let state = match says {
                true => format!("{:?}", self.look),
                false => "is down".to_owned(),
            };
            text.push_str(&format!(
                "\n  n{} ({id}) applied {applied}, {state}",
                at + 1
            ));
        }
        for (number, request) in self.judge.requests.iter().enumerate().rev().take(16) {
            let (at, end) = (request.at + 1, request.completion);
            let _ = write!(
                text,
                "\n  request {number} at n{at}: {:?} {end:?}",
                request.kind
            );
        }
        panic!("{what}:{text}");
    }

    // ---- ends of faults --------------------------------------------------

    /// Ends the faults of those who shall be well, and says who they are.
    fn calm(&mut self) -> Vec<usize> {
        self.rough = false;
        self.net.calm(self.plan.swarm.heartbeat * 250);
        self.heal();
        for at in 0..self.nodes.len() {
            if self.nodes[at].gone {
                // Whoever is out for good is another's place now, at the latest.
                self.renew(at);
            } else {
                self.cure(at);
            }
        }
        // Those that were started come to know what they hold.
        self.run_until(self.now + self.plan.swarm.heartbeat * 1000);
        let well = self.draw_well();
        self.trace
            .tell(self.now, format!("calm: {well:?} are well"));
        for at in 0..self.nodes.len() {
            if !well.contains(&at) {
                self.break_for_good(at);
            }
        }
        (0..self.nodes.len()).for_each(|at| self.set_priority(at, 1));
        self.quiet_since = self.now;
        well
    }

    fn cure(&mut self, at: usize) {
        let latency = self.plan.swarm.heartbeat * 250;
        let manners = self.plan.manners[at];
        let node = &mut self.nodes[at];
        (node.paused_until, node.asleep, node.pace) = (0, false, Pace::FAST);
        node.seat.manners = Manners {
            image: manners.image,
            alike: manners.alike,
            ..Manners::default()
        };
        let writes = node.seat.disk.calm(latency);
        // Only a restart heals a member whose disk has failed, or is about to be found so.
        let failed = node.seat.disk.health == crate::disk::Health::Failed;
        if !node.lives() || failed || self.dice.coin() {
            self.restart(at);
        } else {
            self.revive_writes(at, writes);
            self.do_chores(at);
            self.step(at);
        }
    }

    /// Everybody, or those who with some luck are only just enough: any quorum of every
    /// membership that some node may still act by.
    fn draw_well(&mut self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.nodes.len()).collect();
        if self.plan.swarm.ending == Ending::All {
            return all;
        }
        let mut voters: Vec<Vec<u64>> = Vec::new();
        for at in 0..self.nodes.len() {
            if self.look_at(at) && self.look.last == 0 {
                continue;
            }
            let known = self.look.nodes.iter().filter(|seen| seen.is_voter());
            let known: Vec<u64> = known.map(|seen| seen.id).collect();
            if known.is_empty() || known.len() != self.look.voters as usize {
                // A change is under way, and who will count is not to be seen from outside.
                return all;
            }
            voters.push(known);
        }
        if voters.is_empty() {
            return all;
        }
        self.dice.shuffle(&mut all);
        let mut well = Vec::new();
        while let Some(at) = all.pop() {
            well.push(at);
            let votes = |id: &&u64| {
                let place = well.iter().find(|at| self.nodes[**at].seat.id == **id);
                // Who holds nothing abstains.
                place.is_some_and(|at| !self.nodes[*at].seat.disk.image.holds_nothing())
            };
            let enough = |voters: &Vec<u64>| 2 * voters.iter().filter(votes).count() > voters.len();
            if voters.iter().all(enough) {
                break;
            }
        }
        if !all.is_empty() {
            QuorumHealed.hit();
        }
        well
    }

    /// Whether a node whose disk was lost is a member yet, as far as any node knows: a learner may be
    /// about to vote.
    fn counts_on_lost(&mut self) -> bool {
        if self.lost.is_empty() {
            return false;
        }
        let counts = (0..self.nodes.len()).any(|at| {
            let says = self.look_at(at);
            let mut members = self.look.nodes.iter();
            let lost = |id: &u64| self.lost.contains(id);
            says && members.any(|seen| seen.role != KEEL_ROLE_EXCLUDED && lost(&seen.id))
        });
        if !counts {
            DoneWithout.hit();
        }
        counts
    }

    /// A node that is not healed must not keep the others from their work.
    fn break_for_good(&mut self, at: usize) {
        match self.dice.below(4) {
            0 => {
                Fault::NodeCrashed.hit();
                self.crash(at);
            }
            1 => self.net.isolate(at),
            2 => self.net.deafen(at),
            _ => self.net.silence(at),
        }
    }

    // ---- promises --------------------------------------------------------

    /// The leader, if a majority has confirmed it.
    pub fn leader_among(&mut self, well: &[usize]) -> Option<usize> {
        let leaders = well.iter().copied().filter(|at| self.nodes[*at].leads());
        let leader = leaders.max_by_key(|at| self.nodes[*at].term)?;
        let confirmed = self.look_at(leader) && self.look.leader == self.nodes[leader].seat.id;
        (confirmed && self.look.applied == self.look.last).then_some(leader)
    }

    /// An administrator sees to it that whoever is well is a member, or was removed for good, and
    /// all of them catch up.
    fn bring_together(&mut self, well: &[usize]) -> bool {
        let end = self.now + CATCHES_UP * self.unit() + self.exclusion_takes();
        while self.now < end {
            if self.are_together(well) {
                return true;
            }
            if let Some(leader) = self.leader_among(well) {
                self.take_back(leader, well);
            }
            self.run_until(self.now + self.unit() / 2);
        }
        false
    }

    /// Until a dead node is out, at the latest.
    fn exclusion_takes(&self) -> Micros {
        2_500 * u64::from(self.plan.setup.deadtime_ms.max(self.plan.setup.initdead_ms))
    }

    fn take_back(&mut self, leader: usize, well: &[usize]) {
        let nodes = self.look.nodes.clone();
        self.put_out_lost(leader);
        for at in well {
            let id = self.nodes[*at].seat.id;
            let seen = nodes.iter().find(|seen| seen.id == id);
            match seen.map(|seen| (seen.state, seen.awaits_promotion)) {
                Some((KEEL_NODE_EXCLUDED | KEEL_NODE_RETURNED, _)) => {
                    self.order(leader, Order::Readmit(id));
                }
                Some((_, true)) => self.order(leader, Order::Promote(id)),
                _ => {}
            }
        }
    }

    /// All members that are well hold the same, vote, and follow the same leader.
    fn are_together(&mut self, well: &[usize]) -> bool {
        let Some(leader) = self.leader_among(well) else {
            return false;
        };
        let (id, look) = (self.nodes[leader].seat.id, self.look.clone());
        for at in well.iter().copied() {
            let me = self.nodes[at].seat.id;
            let seen = look.nodes.iter().find(|seen| seen.id == me);
            let Some(seen) = seen else { continue };
            match seen.state {
                KEEL_NODE_REPLACED | KEEL_NODE_REMOVED => {
                    let known = self.nodes[leader].seat.check_epoch(me, look.epoch);
                    assert_eq!(known, KEEL_ERR_EXCLUDED, "node {me} is out");
                    continue;
                }
                KEEL_NODE_EXCLUDED | KEEL_NODE_RETURNED => return false,
                _ => {}
            }
            let known = self.nodes[leader].seat.check_epoch(me, look.epoch);
            let says = self.look_at(at);
            let same = known == KEEL_OK
                && self.look.applied == look.applied
                && self.look.last == look.last
                && self.look.commit == look.last
                && self.look.epoch == look.epoch
                && self.look.leader == id;
            let holds = self.nodes[at].seat.applied == self.judge.top();
            if !says || !same || !holds || seen.role == KEEL_ROLE_LEARNER {
                return false;
            }
        }
        true
    }

    /// One more entry gets everywhere, and everybody may read.
    fn works(&mut self, well: &[usize]) {
        let unit = self.unit();
        let leader = self.leader_among(well).unwrap_or(0);
        let number = self.propose(leader, 8);
        let number = number.expect("a leader is at work") as usize;
        let done = self.run_while(COMMITS * unit, |world| {
            let done = world.judge.requests[number].is_done();
            done && world.are_together(well)
        });
        self.hold(done, "L2: a proposal at rest is not everywhere");
        let first = self.judge.requests.len();
        for at in well.iter().copied() {
            let follows = self.look_at(at) && self.look.leader != 0;
            if follows && self.look.role != KEEL_ROLE_EXCLUDED {
                self.order(at, Order::Barrier);
            }
        }
        let read = self.run_while(COMMITS * unit, |world| {
            let barriers = &world.judge.requests[first..];
            barriers.iter().all(|barrier| barrier.is_done())
        });
        self.hold(read, "L2: a barrier at rest is not answered");
    }

    /// Every request at those who are well has its completion.
    fn nobody_waits(&mut self, well: &[usize]) {
        let waits = self.judge.requests.iter();
        let waits = waits.filter(|request| request.waits() && well.contains(&request.at));
        let count = waits.count();
        self.hold(count == 0, "L2: requests without completion");
        // Somebody may be about to be excluded.
        let rests = self.run_while(COMMITS * self.unit(), |world| {
            world.leader_among(well).is_some()
        });
        self.hold(rests, "L1: leadership is not at rest");
    }

    /// Those that were not healed are out in the end, unless the rest could not do without them;
    /// and they do not serve.
    fn rest_is_out(&mut self, well: &[usize]) {
        if well.len() == self.nodes.len() || self.plan.setup.deadtime_ms == 0 {
            return;
        }
        self.run_until(self.now + self.exclusion_takes());
        let Some(leader) = self.leader_among(well) else {
            return;
        };
        self.look_at(leader);
        let out = self.look.nodes.clone().into_iter();
        let out = out.filter(|seen| matches!(seen.state, KEEL_NODE_EXCLUDED | KEEL_NODE_RETURNED));
        for seen in out {
            let Some(at) = self.place_of(seen.id).filter(|at| !well.contains(at)) else {
                continue;
            };
            RestExcluded.hit();
            let node = &self.nodes[at];
            let serves = node.lives() && node.seat.lease_ms() > 0;
            assert!(!serves, "n{} is excluded for long, and serves", at + 1);
        }
    }
}
