//! Runs of nodes: how they start, stop and find their disks; and what members tell of themselves.

use std::ffi::c_int;

use raftkeel::core::Millis;
use raftkeel::ffi::code::*;
use raftkeel::ffi::status::*;

use super::host::{Host, Manners, OWN_FAILURE};
use super::keel::last_error;
use super::marks::Mark::*;
use super::world::{Due, World};
use crate::dice::Dice;
use crate::disk::Finished;
use crate::host::Pace;
use crate::marks::Fault::StoppedUntold;
use crate::queue::NEVER;

impl World {
    /// Starts a node from its disk.
    pub fn start(&mut self, at: usize) {
        let pace = match self.rough {
            true => self.plan.swarm.pace(&mut self.dice),
            false => Pace::FAST,
        };
        let (seed, dice) = (self.dice.word(), Dice::new(self.dice.word()));
        let manners = self.manners(at);
        let slowed = pace.takes > 0 || !self.are_disks_alike();
        let node = &mut self.nodes[at];
        (node.slowed, node.yielded) = (slowed, None);
        node.run += 1;
        (node.role, node.term, node.fenced) = (KEEL_ROLE_FOLLOWER, 0, false);
        (node.stopped, node.asleep) = (false, false);
        (node.paused_until, node.inbox) = (0, 0);
        (node.armed, node.timer_at) = (Millis::MAX, NEVER);
        node.pace = pace;
        node.driven = node.clock.read(self.now);
        node.seat.begin(dice, manners);
        self.judge.started(at);
        let node = &mut self.nodes[at];
        let blank = node.seat.disk.image.is_blank();
        let code = node.seat.open(&node.setup, seed, blank);
        self.trace.mix((at, code));
        self.trace
            .tell(self.now, format!("n{} starts: {code}", at + 1));
        if code != KEEL_OK {
            self.fail_to_open(at, code);
            return;
        }
        if std::mem::take(&mut node.poisoned) {
            PoisonReplaced.hit();
        }
        if node.priority != 1 {
            let code = node.seat.set_eligible(node.priority);
            assert_eq!(code, KEEL_OK, "keel_set_eligible(): {}", last_error());
        }
        self.quiet_since = self.now;
        if self.rough && self.plan.swarm.late_founders > 0 {
            let after = self.dice.below(self.plan.swarm.late_founders);
            self.plan_due(after, at, Due::Bootstrap);
        } else {
            self.bootstrap(at);
        }
        self.step(at);
    }

    fn manners(&self, at: usize) -> Manners {
        let manners = self.plan.manners[at];
        match self.rough {
            true => manners,
            false => Manners {
                image: manners.image,
                alike: manners.alike,
                stores_at_once: manners.stores_at_once,
                ..Manners::default()
            },
        }
    }

    /// Only a store that was told to fail may be a reason.
    fn fail_to_open(&mut self, at: usize, code: c_int) {
        let node = &self.nodes[at];
        assert!(
            code == KEEL_ERR_IO && node.seat.has_failed,
            "n{}: keel_new() returns {code}: {}",
            at + 1,
            last_error()
        );
        OpenFailed.hit();
        let after = self.draw_span();
        self.plan_due(after, at, Due::Restart);
    }

    /// A founder that holds nothing is given the first entry.
    pub fn bootstrap(&mut self, at: usize) {
        let founders = self.plan.swarm.founders as u64;
        let node = &mut self.nodes[at];
        if !node.founder || !node.lives() {
            return;
        }
        let code = node.seat.bootstrap(1..=founders);
        self.trace.mix((at, code));
        self.take_in(at);
        let node = &self.nodes[at];
        let failed = code == KEEL_ERR_IO && node.stopped && node.seat.has_failed;
        assert!(
            matches!(code, KEEL_OK | KEEL_ERR_EXISTS) || failed,
            "n{}: keel_bootstrap() returns {code}: {}",
            at + 1,
            last_error()
        );
        self.feed(at);
    }

    /// Stops a node at once. Some first few of its writes under way have reached the disk.
    pub fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.is_up() {
            return;
        }
        self.trace.tell(self.now, format!("n{} stops", at + 1));
        node.seat.free();
        let before = node.seat.disk.under_way();
        let wrote = !node.seat.disk.image.is_blank();
        node.seat.crash(&mut self.dice);
        if before > 0 {
            RestartedWithLoss.hit();
        }
        if before > 0 && !wrote && node.seat.disk.image.is_blank() {
            RestartedBare.hit();
        }
        self.take_in(at);
        self.nodes[at].run += 1;
        self.quiet_since = self.now;
    }

    /// Starts a node, which is stopped first if need be.
    pub fn restart(&mut self, at: usize) {
        self.crash(at);
        self.start(at);
    }

    /// Another node, with a new id and an empty disk, takes the place of one that is gone.
    pub fn renew(&mut self, at: usize) {
        self.crash(at);
        let nature = self.plan.swarm.disks[at];
        let id = self.next_id;
        self.next_id += 1;
        self.trace
            .tell(self.now, format!("n{} is node {id} now", at + 1));
        let node = &mut self.nodes[at];
        let listens = node.seat.listens;
        *node.seat = Host::new(id, nature);
        node.seat.listens = listens;
        (node.founder, node.gone, node.poisoned) = (false, false, false);
        (node.setup, node.priority) = (self.plan.setup, 1);
        self.start(at);
    }

    // ---- the disk --------------------------------------------------------

    pub fn finish_write(&mut self, at: usize) {
        let finished = self.nodes[at].seat.disk.finish(&mut self.dice);
        self.written(at, finished);
    }

    /// A write of a node has ended.
    pub fn written(&mut self, at: usize, finished: Finished<super::store::Batch>) {
        let node = &mut self.nodes[at];
        let (number, status) = match finished {
            Finished::Nothing => return,
            Finished::Landed(batch) => {
                let number = batch.number;
                if batch.term < node.term {
                    StoredInOldTerm.hit();
                }
                node.seat.disk.image.land(batch);
                node.seat.durable += 1;
                (number, 0)
            }
            Finished::Failed => {
                node.seat.has_failed = true;
                let number = node.seat.disk.oldest().map_or(0, |batch| batch.number);
                if node.leads() {
                    LeaderWriteFailed.hit();
                }
                (number, OWN_FAILURE)
            }
        };
        if status == 0 && self.rough && self.dice.chance(self.plan.swarm.storage.stops) {
            StoppedUntold.hit();
            self.crash(at);
            let after = self.draw_span();
            self.plan_due(after, at, Due::Restart);
            return;
        }
        let code = node_write_done(self, at, number, status);
        self.trace.mix((at, number, status, code));
        self.feed(at);
    }

    /// All writes of a node are looked at again.
    pub fn revive_writes(&mut self, node: usize, count: usize) {
        for _ in 0..count {
            self.plan_due(0, node, Due::Written);
        }
    }

    /// What the host has put off is done.
    pub fn do_chores(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.is_up() {
            return;
        }
        if node.seat.finish_save() {
            SavedLate.hit();
        }
        if node.seat.finish_load() {
            LoadedLate.hit();
        }
        self.take_in(at);
        self.feed(at);
    }
}

fn node_write_done(world: &mut World, at: usize, number: u64, status: c_int) -> c_int {
    let node = &mut world.nodes[at];
    let code = node.seat.write_done(number, status);
    let dead = code == KEEL_ERR_CLOSED && node.stopped;
    assert!(
        code == KEEL_OK || dead,
        "n{}: keel_write_done() returns {code}: {}",
        at + 1,
        last_error()
    );
    code
}
