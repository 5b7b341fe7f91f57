//! Runs of nodes: how they start, stop and find their disks.

use raftkeel::core::Millis;

use crate::disk::Finished;
use crate::host::Host;
use crate::judge::Judge;
use crate::marks::Fault;
use crate::marks::Mark::{EntriesHeldBack, RoomAgain};
use crate::queue::NEVER;
use crate::server::{Input, Server, State};
use crate::world::{Due, Event, World};

impl<S: Server, J: Judge<S>> World<S, J> {
    /// Starts a node from its disk.
    pub fn start(&mut self, at: usize) {
        let now = self.now;
        let pace = self.swarm.pace(&mut self.dice);
        let node = &mut self.nodes[at];
        node.run += 1;
        node.setup.run = u64::from(node.run);
        node.setup.seed = self.dice.word();
        (node.failed, node.asleep, node.away) = (false, false, false);
        (node.refusing, node.refused_from) = (false, None);
        (node.paused_until, node.inbox) = (0, 0);
        (node.armed, node.timer_at) = (Millis::MAX, NEVER);
        node.host = Host::new(pace);
        let local = node.clock.read(now);
        node.disk.image.reconcile();
        self.judge.found(at, &node.disk.image);
        let server = S::start(&node.setup, &node.disk.image, local);
        node.state = server.state();
        let text = format!("n{} starts: {:?}", at + 1, node.state);
        self.trace.tell(now, text);
        let judge = &mut self.judge;
        judge.started(at, &node.setup, local, &node.state, &server);
        node.server = Some(server);
        if let Some((snapshot, image)) = node.disk.image.newest().cloned() {
            self.load(at, &snapshot, &image);
        }
        self.call(at, Input::Take);
        if self.rough && self.notices[at].is_some() && self.dice.coin() {
            // The first that it hears may be the oldest.
            self.tell_excluded(at);
        }
        if self.rough && self.swarm.late_founders > 0 {
            let after = self.dice.below(self.swarm.late_founders);
            self.plan_due(after, at, Due::Bootstrap);
        } else {
            self.bootstrap(at);
        }
    }

    /// A founder that holds nothing is given the first entry.
    pub fn bootstrap(&mut self, at: usize) {
        let founder = at < self.swarm.founders;
        if founder && self.nodes[at].disk.image.is_blank() {
            let voters = self.nodes[..self.swarm.founders].iter().map(|n| n.id);
            let voters = voters.collect();
            self.call(at, Input::Bootstrap(voters));
        }
    }

    /// Stops a node at once. Some first few of its writes under way have reached the disk, and
    /// perhaps the first part of another.
    pub fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.server.take().is_none() {
            return;
        }
        self.trace.tell(self.now, format!("n{} stops", at + 1));
        let judge = &mut self.judge;
        node.host.abandon(|id, outcome| judge.outcome(id, outcome));
        node.run += 1;
        node.state = State::NONE;
        self.judge.stopped(at);
        let (mut landed, mut cut_off) = node.disk.crash(&mut self.dice);
        if let Some(refused) = landed.iter().position(|write| node.refuses(write)) {
            cut_off = landed.drain(refused..).next();
        }
        if let Some(torn) = cut_off.and_then(S::torn).filter(|_| self.dice.coin()) {
            Fault::WriteTorn.hit();
            landed.push(torn);
        }
        for write in landed {
            self.judge.landed(at, &write);
            S::land(&mut node.disk.image, write);
        }
    }

    /// Starts a node, which is stopped first if need be.
    pub fn restart(&mut self, at: usize) {
        self.crash(at);
        self.start(at);
    }

    pub fn finish_write(&mut self, at: usize) {
        let finished = self.nodes[at].disk.finish(&mut self.dice);
        self.written(at, finished);
    }

    /// A write of a node has ended.
    pub fn written(&mut self, at: usize, finished: Finished<S::Write>) {
        let node = &mut self.nodes[at];
        match finished {
            Finished::Nothing => {}
            Finished::Landed(write) if node.refuses(&write) => self.hold_back(at, write),
            Finished::Landed(write) => {
                if S::first_written(&write).is_some() {
                    node.refused_from = None;
                }
                let token = S::token(&write);
                self.judge.landed(at, &write);
                S::land(&mut node.disk.image, write);
                self.call(at, Input::Written { token, ok: true });
            }
            Finished::Failed => {
                node.failed = true;
                let token = node.disk.oldest().map_or(0, S::token);
                let judge = &mut self.judge;
                node.host.abandon(|id, outcome| judge.outcome(id, outcome));
                self.call(at, Input::Written { token, ok: false });
                let after = self.dice.scaled(1, self.swarm.down.max(1));
                self.plan_due(after, at, Due::Restart);
            }
        }
    }

    /// There is no room for what a write changes in the log: of it the hard state is durable.
    fn hold_back(&mut self, at: usize, write: S::Write) {
        EntriesHeldBack.hit();
        let node = &mut self.nodes[at];
        let first = S::first_written(&write).unwrap_or(0);
        node.refused_from = Some(node.refused_from.map_or(first, |from| from.min(first)));
        node.refusing = node.full;
        let (token, full) = (S::token(&write), node.full);
        if let Some(hard) = S::torn(write) {
            self.judge.landed(at, &hard);
            S::land(&mut node.disk.image, hard);
        }
        self.call(at, Input::HeldBack { token, full });
    }

    /// The disk of a node has room again, of which one that does not run hears later.
    pub fn make_room(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.full = false;
        if node.is_paused(self.now) {
            return self.plan(self.swarm.heartbeat * 1000, Event::Room(at));
        }
        if std::mem::take(&mut node.refusing) && node.is_up() {
            RoomAgain.hit();
            self.call(at, Input::Room);
        }
    }

    /// All writes of a node are looked at again.
    pub fn revive_writes(&mut self, node: usize, count: usize) {
        for _ in 0..count {
            self.plan_due(0, node, Due::Written);
        }
    }
}
