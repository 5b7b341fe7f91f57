//! The faults: what each does to the world, and how long it lasts.

use raftkeel::ffi::code::{KEEL_ERR_FULL, KEEL_OK};

use super::keel::{Order, last_error};
use super::marks::Mark::DiskLost;
use super::plan::draw_rate;
use super::world::{Due, Event, World};
use crate::disk::Health;
use crate::marks::Fault::{self, *};
use crate::net::{CUT_OFFS, Shape};
use crate::queue::Micros;
use crate::swarm::{Limits, Strike, When};

impl World {
    /// A fault without a victim finds one.
    pub fn strike(&mut self, strike: Strike) {
        let any = self.dice.below(self.nodes.len() as u64) as usize;
        let at = match strike {
            Strike::CrashLeader
            | Strike::PauseLeader
            | Strike::CutLeader
            | Strike::Depose
            | Strike::SlowDisk => self.leader().unwrap_or(any),
            _ => any,
        };
        self.strike_at(strike, at);
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
            Strike::SlowDisk => self.slow_disk(at),
            Strike::JumpClock => self.jump_clock(at),
            Strike::Replay => self.replay(),
            Strike::EarlyTick => {
                if self.is_at_work(at) {
                    TickedEarly.hit();
                    self.step(at);
                }
            }
            Strike::Upgrade => self.upgrade(at),
            // No C function gives leadership up to nobody.
            Strike::StepDown => self.order(at, Order::Transfer(0)),
            // These hosts keep the state themselves: what they lose is refused, and they have no way to
            // say that they have no room.
            Strike::Damage | Strike::FillDisk => {}
            Strike::Lose => self.break_connections(at, false),
            Strike::LoseAll => self.break_connections(at, true),
        }
    }

    /// How long something lasts.
    pub fn draw_span(&mut self) -> Micros {
        let deadtime = 1000 * u64::from(self.plan.setup.deadtime_ms);
        if deadtime > 0 && self.rough && self.dice.once_in(16) {
            // Or until it is found dead.
            return self.dice.within(deadtime, 3 * deadtime);
        }
        let down = self.plan.swarm.down;
        self.dice.scaled(1 + down / 64, 1 + down)
    }

    fn crash_for_a_while(&mut self, at: usize, fault: Fault) {
        if !self.nodes[at].is_up() {
            return;
        }
        fault.hit();
        self.crash(at);
        let after = self.draw_span();
        self.spread_news(at);
        let lost = self.dice.once_in(12) && self.may_lose(at);
        if lost {
            // Its disk is gone, and it must not come back under its id.
            DiskLost.hit();
            self.lost.push(self.nodes[at].seat.id);
            self.nodes[at].gone = true;
        }
        let due = if lost { Due::Renew } else { Due::Restart };
        self.plan_due(after, at, due);
    }

    /// Those that live are told that a node has stopped, each as soon as its host notices.
    fn spread_news(&mut self, of: usize) {
        let id = self.nodes[of].seat.id;
        for at in 0..self.nodes.len() {
            if self.nodes[at].lives() && self.dice.chance(self.plan.swarm.news) {
                let late = self.dice.scaled(10, self.unit() / 2);
                self.plan_due(late, at, Due::Lost(id));
            }
        }
    }

    /// A node, or every one, is told that it has lost its leader, which is not so; what they send
    /// each other comes through.
    fn break_connections(&mut self, at: usize, all: bool) {
        let leader = self.nodes[self.leader().unwrap_or(at)].seat.id;
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
    pub fn lose(&mut self, at: usize, id: u64) {
        if !self.is_at_work(at) {
            return;
        }
        let runs = self.place_of(id).is_some_and(|of| self.nodes[of].is_up());
        match runs {
            true => ConnectionBroken.hit(),
            false => ConnectionLost.hit(),
        }
        let code = self.nodes[at].seat.lost(id);
        assert!(
            matches!(code, KEEL_OK | KEEL_ERR_FULL),
            "n{}: keel_lost() returns {code}: {}",
            at + 1,
            last_error()
        );
        self.trace.mix((at, code, id));
        self.feed(at);
    }

    /// Whether the cluster can do without the disk of a node: every disk that was lost before is
    /// out of the membership that every node knows, and a majority remains without this one.
    fn may_lose(&mut self, at: usize) -> bool {
        let id = self.nodes[at].seat.id;
        if self.nodes.len() == 1 {
            return false;
        }
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let bare = self.nodes[other].seat.disk.image.holds_nothing();
            let knows = self.look_at(other) && self.look.epoch > 0;
            if bare || !knows || self.look.applied != self.look.last {
                return false;
            }
            let nodes = &self.look.nodes;
            let counts = |id: &u64| nodes.iter().any(|n| n.id == *id && n.is_voter());
            let known = nodes.iter().filter(|n| n.is_voter()).count();
            let same = known == self.look.voters as usize;
            if !same || self.lost.iter().any(counts) || (counts(&id) && known < 3) {
                return false;
            }
        }
        true
    }

    fn crash_many(&mut self, strike: Strike) {
        let up = (0..self.nodes.len()).filter(|at| self.nodes[*at].is_up());
        let mut all: Vec<usize> = up.collect();
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

    fn pause(&mut self, at: usize, fault: Fault) {
        if self.is_at_work(at) {
            fault.hit();
            self.nodes[at].paused_until = self.now + self.draw_span();
        }
    }

    /// A machine sleeps: its clock goes on, as the header wants it, and what comes is lost.
    fn suspend(&mut self, at: usize) {
        if self.is_at_work(at) {
            NodeSuspended.hit();
            let span = self.draw_span();
            self.nodes[at].paused_until = self.now + span;
            self.nodes[at].asleep = true;
            self.plan_due(span, at, Due::Awake);
        }
    }

    fn cut(&mut self, at: usize) {
        let plan = self.plan.clone();
        let shape = *self.dice.pick(&plan.swarm.shapes);
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
        self.plan_event(after, Event::Heal);
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
        let unit = self.unit();
        let after = self.dice.within(2 * unit, 6 * unit);
        self.plan_event(after, Event::Heal);
    }

    fn black_out(&mut self) {
        Blackout.hit();
        (0..self.nodes.len()).for_each(|at| self.net.isolate(at));
        let after = self.draw_span();
        self.plan_event(after, Event::Heal);
    }

    /// A link that comes and goes.
    fn flap(&mut self, at: usize) {
        LinkFlapped.hit();
        let beat = self.plan.swarm.heartbeat * 1000;
        self.net.take_shape(Shape::Link, at, &mut self.dice);
        self.plan_event(beat + self.plan.swarm.net.latency.1, Event::Heal);
        for i in 1..self.dice.within(2, 6) {
            self.plan_event(2 * i * beat, Event::Cut(at));
            self.plan_event((2 * i + 1) * beat, Event::Heal);
        }
    }

    fn stick_disk(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.is_up() && node.seat.disk.health == Health::Good {
            DiskStuck.hit();
            node.seat.disk.health = Health::Stuck;
            let after = self.draw_span();
            // Or for ever: until somebody restarts it.
            let due = match self.dice.once_in(3) {
                true => Due::Restart,
                false => Due::Unstick,
            };
            self.plan_due(after, at, due);
        }
    }

    fn fail_write(&mut self, at: usize) {
        if self.is_at_work(at) && self.nodes[at].seat.disk.health != Health::Failed {
            let failed = self.nodes[at].seat.disk.fail();
            self.written(at, failed);
        }
    }

    fn jump_clock(&mut self, at: usize) {
        ClockJumped.hit();
        let unit = self.unit();
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

    /// A node is stopped in order, and starts as another version with other limits of its own.
    fn upgrade(&mut self, at: usize) {
        if !self.is_at_work(at) {
            return;
        }
        NodeUpgraded.hit();
        let (size, unit) = (self.plan.swarm.storage.size, self.unit());
        let limits = Limits::draw(&mut self.dice, size, unit);
        let setup = &mut self.nodes[at].setup;
        setup.memory_max = limits.tail_bytes as u64;
        setup.snapshot_rate = match limits.snapshot_rate {
            Some(_) => draw_rate(&mut self.dice, self.plan.manners[at].image, unit),
            None => 0,
        };
        if self.dice.coin() && self.nodes[at].leads() {
            self.order(at, Order::Transfer(0));
        }
        let after = self.draw_span();
        self.plan_due(after, at, Due::Restart);
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

    /// A stuck disk works again.
    pub fn unstick(&mut self, at: usize) {
        let disk = &mut self.nodes[at].seat.disk;
        if disk.health == Health::Stuck {
            let count = disk.unstick();
            self.revive_writes(at, count);
        }
    }

    // ---- ambushes --------------------------------------------------------

    /// Whether what a node has just done draws a fault on it.
    pub fn ambush(&mut self, occasions: u32) -> Option<(Strike, When)> {
        if self.plan.swarm.ambushes.is_empty() || !self.rough || occasions == 0 {
            return None;
        }
        let plan = self.plan.clone();
        let ambushes = plan.swarm.ambushes.iter();
        let mut due = ambushes.filter(|a| occasions >> (a.on as u32) & 1 == 1);
        let ambush = due.find(|ambush| self.dice.chance(ambush.chance))?;
        Ambushed.hit();
        Some((ambush.strike, ambush.when))
    }
}
