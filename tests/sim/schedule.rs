//! The faults: what each does to the world, and how long it lasts.

use raftkeel::core::{Index, Position};

use crate::disk::Health;
use crate::judge::Judge;
use crate::marks::Fault::*;
use crate::net::{CUT_OFFS, Shape};
use crate::queue::Micros;
use crate::server::{Input, Server, State};
use crate::swarm::{Limits, Occasion, Strike, When};
use crate::world::{Due, Event, World};

impl<S: Server, J: Judge<S>> World<S, J> {
    /// A fault without a victim finds one.
    pub fn strike(&mut self, strike: Strike) {
        let any = self.dice.below(self.nodes.len() as u64) as usize;
        match strike {
            Strike::CrashLeader | Strike::PauseLeader | Strike::CutLeader | Strike::Depose => {
                let victim = self.leader().unwrap_or(any);
                self.strike_at(strike, victim);
            }
            _ => self.strike_at(strike, any),
        }
    }

    /// A fault strikes a node.
    pub fn strike_at(&mut self, strike: Strike, at: usize) {
        if self.trace.is_told() {
            let text = format!("{strike:?} strikes at n{}", at + 1);
            self.trace.tell(self.now, text);
        }
        match strike {
            Strike::Crash => self.crash_for_a_while(at, NodeCrashed),
            Strike::CrashLeader => self.crash_for_a_while(at, LeaderCrashed),
            Strike::CrashMost | Strike::CrashAll => self.crash_many(strike),
            Strike::Pause => self.pause(at, NodePaused),
            Strike::PauseLeader => self.pause(at, LeaderPaused),
            Strike::Suspend => self.suspend(at),
            Strike::Cut => self.cut(at),
            Strike::CutLeader => self.cut_leader(at),
            Strike::Depose => self.depose(at),
            Strike::Blackout => self.black_out(),
            Strike::Flap => self.flap(at),
            Strike::StickDisk => self.stick_disk(at),
            Strike::FailWrite => self.fail_write(at),
            Strike::FillDisk => self.fill_disk(at),
            Strike::JumpClock => self.jump_clock(at),
            Strike::Replay => self.replay(),
            Strike::EarlyTick => self.tick_early(at),
            Strike::Upgrade => self.upgrade(at),
            Strike::Damage => self.damage(at),
            // A server alone does not mind whose disk is slower.
            Strike::SlowDisk => {}
            Strike::Lose => self.break_connections(at, false),
            Strike::LoseAll => self.break_connections(at, true),
            Strike::StepDown => {
                if self.is_at_work(at) {
                    HostSteppedDown.hit();
                    self.call(at, Input::StepDown);
                }
            }
        }
    }

    /// How long something lasts.
    pub fn draw_span(&mut self) -> Micros {
        self.dice
            .scaled(1 + self.swarm.down / 64, 1 + self.swarm.down)
    }

    fn crash_for_a_while(&mut self, at: usize, fault: crate::marks::Fault) {
        if !self.nodes[at].is_up() {
            return;
        }
        fault.hit();
        self.crash(at);
        let after = self.draw_span();
        self.plan_due(after, at, Due::Restart);
        self.spread_news(at);
    }

    /// Those that run are told that a node has stopped, each as soon as its host notices.
    fn spread_news(&mut self, of: usize) {
        let running: Vec<usize> = self.running().collect();
        for at in running {
            if self.dice.chance(self.swarm.news) {
                let late = self.dice.scaled(10, self.swarm.election_micros() / 2);
                self.plan_due(late, at, Due::Lost(of));
            }
        }
    }

    /// A node, or every one, is told that it has lost its leader, which is not so; what they send
    /// each other comes through.
    fn break_connections(&mut self, at: usize, all: bool) {
        let leader = self.leader().unwrap_or(at);
        if all {
            ConnectionsBroken.hit();
        }
        for other in 0..self.nodes.len() {
            if all || other == at {
                self.lose(other, leader);
            }
        }
    }

    /// A node is told that its connection to another is lost.
    pub fn lose(&mut self, at: usize, other: usize) {
        if !self.is_at_work(at) {
            return;
        }
        match self.nodes[other].is_up() {
            true => ConnectionBroken.hit(),
            false => ConnectionLost.hit(),
        }
        let id = self.nodes[other].id;
        self.call(at, Input::Lost(id));
    }

    fn crash_many(&mut self, strike: Strike) {
        let mut all: Vec<usize> = self.running().collect();
        self.dice.shuffle(&mut all);
        let (count, fault) = match strike {
            Strike::CrashAll => (all.len(), AllCrashed),
            _ => (all.len() / 2 + 1, MostCrashed),
        };
        fault.hit();
        for at in all.into_iter().take(count) {
            self.crash_for_a_while(at, NodeCrashed);
        }
    }

    fn pause(&mut self, at: usize, fault: crate::marks::Fault) {
        if !self.is_at_work(at) {
            return;
        }
        fault.hit();
        let span = self.draw_span();
        self.nodes[at].paused_until = self.now + span;
        self.plan_due(span, at, Due::Resume);
    }

    /// A machine sleeps, and its clock with it.
    fn suspend(&mut self, at: usize) {
        if self.is_at_work(at) {
            NodeSuspended.hit();
            let span = self.draw_span();
            self.nodes[at].paused_until = self.now + span;
            (self.nodes[at].asleep, self.nodes[at].away) = (true, true);
            self.plan_due(span, at, Due::Awake(span));
        }
    }

    fn cut(&mut self, at: usize) {
        let shape = *self.dice.pick(&self.swarm.shapes);
        let node = match self.dice.coin() {
            true => self.leader().unwrap_or(at),
            false => at,
        };
        self.cut_for_a_while(shape, node);
    }

    fn cut_for_a_while(&mut self, shape: Shape, node: usize) {
        self.trace
            .tell(self.now, format!("cut: {shape:?} at n{}", node + 1));
        self.net.take_shape(shape, node, &mut self.dice);
        let after = self.draw_span();
        self.plan(after, Event::Heal);
    }

    fn cut_leader(&mut self, at: usize) {
        LeaderCutOff.hit();
        let shape = *self.dice.pick(&CUT_OFFS);
        self.cut_for_a_while(shape, at);
    }

    /// A leader is cut off with a minority, for long enough that the others elect another.
    fn depose(&mut self, at: usize) {
        LeaderDeposed.hit();
        self.net.part_with_few(at, &mut self.dice);
        let unit = self.swarm.election_micros();
        let after = self.dice.within(2 * unit, 6 * unit);
        self.plan(after, Event::Heal);
    }

    fn black_out(&mut self) {
        Blackout.hit();
        (0..self.nodes.len()).for_each(|at| self.net.isolate(at));
        let after = self.draw_span();
        self.plan(after, Event::Heal);
    }

    /// A link that comes and goes.
    fn flap(&mut self, at: usize) {
        LinkFlapped.hit();
        let beat = self.swarm.heartbeat * 1000;
        self.net.take_shape(Shape::Link, at, &mut self.dice);
        self.plan(beat + self.swarm.net.latency.1, Event::Heal);
        for i in 1..self.dice.within(2, 6) {
            self.plan(2 * i * beat, Event::Cut(at));
            self.plan((2 * i + 1) * beat, Event::Heal);
        }
    }

    fn stick_disk(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.is_up() && node.disk.health == Health::Good {
            DiskStuck.hit();
            node.disk.health = Health::Stuck;
            let after = self.draw_span();
            if self.dice.once_in(3) {
                // For ever: until somebody restarts it.
                self.plan_due(after, at, Due::Restart);
            } else {
                self.plan_due(after, at, Due::Unstick);
            }
        }
    }

    /// A leader's disk as often as not: it has more to lose.
    fn fill_disk(&mut self, at: usize) {
        let at = match self.dice.coin() {
            true => self.leader().unwrap_or(at),
            false => at,
        };
        // A first entry that finds no room is lost with the next crash, and its node may have voted by
        // then: it must be made anew, which these hosts do not.
        if !self.nodes[at].full && !self.nodes[at].disk.image.is_blank() {
            DiskFilled.hit();
            self.nodes[at].full = true;
            let after = self.draw_span();
            self.plan(after, Event::Room(at));
        }
    }

    fn fail_write(&mut self, at: usize) {
        if self.is_at_work(at) && self.nodes[at].disk.health != Health::Failed {
            let failed = self.nodes[at].disk.fail();
            self.written(at, failed);
        }
    }

    fn jump_clock(&mut self, at: usize) {
        ClockJumped.hit();
        let unit = self.swarm.election_micros();
        let span = self.dice.scaled(unit / 20, 10 * unit);
        self.nodes[at].clock.jump(self.now, span);
        self.clock_changed(at);
    }

    fn replay(&mut self) {
        if let Some(old) = self.net.remember(&mut self.dice) {
            PacketReplayed.hit();
            self.deliver_at(self.now, old);
        }
    }

    fn tick_early(&mut self, at: usize) {
        if self.is_at_work(at) {
            TickedEarly.hit();
            self.call(at, Input::Tick);
        }
    }

    /// A node is stopped in order, and starts as another version with other limits.
    fn upgrade(&mut self, at: usize) {
        if !self.is_at_work(at) {
            return;
        }
        NodeUpgraded.hit();
        let (size, unit) = (self.swarm.storage.size, self.swarm.election_micros());
        let limits = Limits::draw(&mut self.dice, size, unit);
        let setup = &mut self.nodes[at].setup;
        setup.batch_bytes = limits.batch_bytes;
        setup.uncommitted_bytes = limits.uncommitted_bytes;
        setup.tail_bytes = limits.tail_bytes;
        setup.piece_bytes = limits.piece_bytes;
        if self.dice.coin() && self.nodes[at].state.leads() {
            self.call(at, Input::Transfer(None));
        }
        let after = self.draw_span();
        self.plan_due(after, at, Due::Restart);
    }

    /// A node stops, and its disk loses a part of the log that was durable, of which there is
    /// enough elsewhere. What its storage finds is where the log ended, or a bound on that.
    fn damage(&mut self, at: usize) {
        self.crash_for_a_while(at, NodeCrashed);
        let image = &self.nodes[at].disk.image;
        let ((base, last), hard) = (image.span(), image.hard);
        if self.nodes[at].is_up() || last.index == base.index || !self.judge.spares(at) {
            return;
        }
        LogDamaged.hit();
        let kept = match self.dice.once_in(4) {
            true => base.index,
            false => self.dice.within(base.index, last.index - 1),
        };
        let bound = Position {
            index: match self.dice.coin() {
                true => last.index + self.dice.below(100),
                false => Index::MAX / 2,
            },
            term: hard.term,
        };
        let found = if self.dice.once_in(4) { bound } else { last };
        let known = hard.claim.filter(|known| known.reaches(found));
        let claim = known.unwrap_or(found);
        let text = format!("n{} keeps its log to {kept}, claims {claim:?}", at + 1);
        self.trace.tell(self.now, text);
        self.nodes[at].disk.image.damage(kept, claim);
        self.judge.damaged(at, kept, claim);
    }

    // ---- ends ------------------------------------------------------------

    /// The next beat of a link that comes and goes.
    pub fn cut_again(&mut self, node: usize) {
        self.net.take_shape(Shape::Link, node, &mut self.dice);
    }

    /// All links work again.
    pub fn heal(&mut self) {
        self.trace.tell(self.now, "links heal");
        for passing in self.net.heal() {
            let at = self.now + self.dice.below(1000);
            self.deliver_at(at, passing);
        }
    }

    /// A paused process goes on; its host may know that it has slept.
    pub fn resume(&mut self, at: usize) {
        if !self.rough {
            return;
        }
        let careful = self.swarm.careful_hosts && self.nodes[at].state.leads();
        if careful && self.is_at_work(at) {
            HostSteppedDown.hit();
            self.call(at, Input::StepDown);
        }
    }

    /// A machine that slept goes on.
    pub fn awake(&mut self, at: usize, span: Micros) {
        let node = &mut self.nodes[at];
        (node.asleep, node.paused_until) = (false, self.now);
        node.clock.stand(self.now, span);
        self.clock_changed(at);
    }

    /// A stuck disk works again.
    pub fn unstick(&mut self, at: usize) {
        if self.nodes[at].disk.health == Health::Stuck {
            let count = self.nodes[at].disk.unstick();
            self.revive_writes(at, count);
        }
    }

    // ---- ambushes --------------------------------------------------------

    /// Whether what a node has just done draws a fault on it.
    pub fn ambush(&mut self, before: &State, after: &State) -> Option<(Strike, When)> {
        if self.swarm.ambushes.is_empty() || !self.rough || before == after {
            return None;
        }
        let swarm = self.swarm.clone();
        let mut due = swarm
            .ambushes
            .iter()
            .filter(|a| occurs(a.on, before, after));
        let ambush = due.find(|ambush| self.dice.chance(ambush.chance))?;
        Ambushed.hit();
        Some((ambush.strike, ambush.when))
    }
}

fn occurs(on: Occasion, before: &State, after: &State) -> bool {
    match on {
        Occasion::Leads => after.leads() && !before.leads(),
        Occasion::Campaigns => after.elections > before.elections,
        Occasion::Votes => after.vote != before.vote && after.vote.is_some(),
        Occasion::NewTerm => after.term > before.term,
        Occasion::NewMembers => after.config_index != before.config_index,
        Occasion::Truncates => after.last_index < before.last_index,
        Occasion::CommitsAsLeader => after.leads() && after.commit > before.commit,
        Occasion::Writes => after.last_index > before.last_index,
        Occasion::HandsOver => after.transferring.is_some() && before.transferring.is_none(),
    }
}
