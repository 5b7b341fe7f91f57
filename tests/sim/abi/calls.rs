//! Messages between members, driving calls, and what comes of them.

use raftkeel::core::Millis;
use raftkeel::ffi::code::*;
use raftkeel::wire;

use super::host::Told;
use super::keel::last_error;
use super::marks::Mark::{Foreign, QueueFull};
use super::world::{Due, Event, Packet, World};
use crate::marks::Fault::*;
use crate::net::Passing;
use crate::queue::{Micros, NEVER};
use crate::swarm::{Occasion, Strike, When};

/// Messages that wait for a node that is paused.
const INBOX: usize = 512;

impl World {
    // ---- messages --------------------------------------------------------

    pub fn deliver(&mut self, passing: Passing<Packet>) {
        let Passing { from, to, .. } = passing;
        if self.net.is_cut(from, to) {
            self.net.stop(passing);
            return;
        }
        let node = &mut self.nodes[to];
        if !node.is_up() || node.asleep {
            PacketToNobody.hit();
            return;
        }
        if node.paused_until > self.now {
            if node.inbox < INBOX {
                node.inbox += 1;
                let at = node.paused_until;
                self.deliver_at(at, passing);
            }
            return;
        }
        node.inbox = 0;
        let packet = passing.packet;
        let named = if self.plan.nameless { 0 } else { packet.from };
        let code = node.seat.receive(named, &packet.bytes);
        let (stopped, mine) = (node.stopped, packet.to == node.seat.id);
        match code {
            KEEL_OK => assert!(mine, "n{} takes what was for n{}", to + 1, packet.to),
            KEEL_ERR_FULL if mine => QueueFull.hit(),
            KEEL_ERR_CLOSED if stopped => {}
            KEEL_ERR_FOREIGN if !mine => Foreign.hit(),
            _ => panic!("n{}: keel_recv() returns {code}: {}", to + 1, last_error()),
        }
        self.trace.mix((to, code, packet.bytes.len()));
        if mine && self.dice.once_in(32) {
            // The host's own traffic came with it.
            let code = self.nodes[to].seat.heard(packet.from);
            let dead = code == KEEL_ERR_CLOSED && stopped;
            assert!(
                matches!(code, KEEL_OK | KEEL_ERR_FULL) || dead,
                "n{}: keel_heard() returns {code}: {}",
                to + 1,
                last_error()
            );
        }
        self.feed(to);
    }

    /// Hands a message to a node, at some time.
    pub fn deliver_at(&mut self, at: Micros, passing: Passing<Packet>) {
        self.queue.push(at, Event::Deliver(passing));
    }

    fn send(&mut self, from: usize) {
        let mut sent = std::mem::take(&mut self.nodes[from].seat.sent);
        let id = self.nodes[from].seat.id;
        for (to_id, bytes) in sent.drain(..) {
            self.trace.mix((to_id, bytes.len()));
            if self.trace.is_told() {
                self.tell_message(from, to_id, &bytes);
            }
            let Some(to) = self.place_of(to_id) else {
                continue;
            };
            let packet = Packet {
                from: id,
                to: to_id,
                bytes,
            };
            let passing = Passing { from, to, packet };
            for (at, passing) in self.net.pass(self.now, passing, &mut self.dice) {
                self.deliver_at(at, passing);
            }
        }
        self.nodes[from].seat.sent = sent;
    }

    fn tell_message(&mut self, from: usize, to: u64, bytes: &[u8]) {
        let parts = match wire::decode(bytes) {
            Ok(packet) => format!("{:?}", packet.parts),
            Err(error) => error.to_string(),
        };
        self.trace
            .tell(self.now, format!("n{}     -> {to} {parts}", from + 1));
    }

    /// Where a node runs; nobody runs those that were replaced.
    pub fn place_of(&self, id: u64) -> Option<usize> {
        self.nodes.iter().position(|node| node.seat.id == id)
    }

    // ---- driving ---------------------------------------------------------

    /// There is something new for a member; its host drives it now or soon.
    pub fn feed(&mut self, at: usize) {
        if self.plan.burst == 0 || !self.rough {
            self.step(at);
            return;
        }
        let due = self.now + self.dice.below(self.plan.burst);
        if due < self.nodes[at].timer_at {
            self.nodes[at].armed = 0;
            self.set_timer(at, due);
        }
    }

    /// One driving call.
    pub fn step(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.is_up() {
            return;
        }
        let local = node.clock.read(self.now);
        self.trace.calls += 1;
        self.trace.mix((self.now, at, local));
        let result = node.seat.step(local);
        node.driven = local;
        node.armed = Millis::MAX;
        let next = result.unwrap_or(Millis::MAX);
        let occasions = self.collect(at);
        if let Err(code) = result {
            let dead = self.nodes[at].stopped;
            assert!(
                dead,
                "n{}: keel_step() returns {code}, and `stopped` did not say so: {}",
                at + 1,
                last_error()
            );
        }
        self.finish_call(at, occasions);
        self.arm(at, next);
    }

    /// What comes of a call: messages leave, or something strikes before.
    fn finish_call(&mut self, at: usize, occasions: u32) {
        let ambush = self.ambush(occasions);
        self.start_writes(at);
        match ambush {
            Some((strike, when)) => {
                if when == When::BeforeSending && matches!(strike, Strike::Crash) {
                    PacketsUnsent.hit();
                    self.nodes[at].seat.sent.clear();
                }
                self.send(at);
                self.strike_at(strike, at);
            }
            None => self.send(at),
        }
    }

    /// Takes in what a host was told, and does it outside of a driving call.
    pub fn take_in(&mut self, at: usize) {
        let occasions = self.collect(at);
        self.finish_call(at, occasions);
    }

    /// Takes in what a host was told; on which occasions for a fault.
    fn collect(&mut self, at: usize) -> u32 {
        let mut told = std::mem::take(&mut self.told);
        std::mem::swap(&mut told, &mut self.nodes[at].seat.told);
        let mut occasions = 0;
        let mut applied = 0;
        for one in &told {
            self.trace.mix((at, one));
            if self.trace.is_told() {
                self.trace
                    .tell(self.now, format!("n{}     {one:?}", at + 1));
            }
            occasions |= self.notice(at, one);
            let id = self.nodes[at].seat.id;
            self.judge.told(at, id, one);
            applied += u64::from(matches!(one, Told::Applied { .. }));
        }
        told.clear();
        self.told = told;
        let node = &mut self.nodes[at];
        if self.trace.is_told() {
            for line in node.seat.lines.drain(..) {
                self.trace
                    .tell(self.now, format!("n{}     : {line}", at + 1));
            }
        }
        if let Some(wrong) = node.seat.wrong.take() {
            panic!("n{}: {wrong}", at + 1);
        }
        if !node.seat.taken.is_empty() {
            occasions |= 1 << Occasion::Writes as u32;
        }
        if applied > 0 && self.rough && node.pace.takes > 0 && node.lives() {
            // As long as it works on them it does nothing else.
            HostSlow.hit();
            let until = self.now + node.pace.takes;
            node.paused_until = node.paused_until.max(until);
            self.quiet_since = self.now;
        }
        occasions
    }

    fn start_writes(&mut self, at: usize) {
        let mut taken = std::mem::take(&mut self.nodes[at].seat.taken);
        for mut batch in taken.drain(..) {
            batch.term = self.nodes[at].term;
            self.trace
                .mix((batch.number, batch.cut, batch.first, batch.entries.len()));
            if self.trace.is_told() {
                let last = batch.first + batch.entries.len() as u64 - 1;
                let text = format!(
                    "n{}     writes #{}: cut {}, {}..={last}",
                    at + 1,
                    batch.number,
                    batch.cut,
                    batch.first
                );
                self.trace.tell(self.now, text);
            }
            let disk = &mut self.nodes[at].seat.disk;
            let done = disk.start(self.now, batch, &mut self.dice);
            if done < NEVER {
                self.plan_due(done - self.now, at, Due::Written);
            }
        }
        self.nodes[at].seat.taken = taken;
    }

    // ---- timers ----------------------------------------------------------

    /// The timer of a node has gone off.
    pub fn wake(&mut self, at: usize) {
        if self.nodes[at].timer_at != self.now {
            return;
        }
        self.nodes[at].timer_at = NEVER;
        self.step(at);
    }

    /// Sees to it that a member is driven when it wants to be.
    fn arm(&mut self, at: usize, next: Millis) {
        let node = &mut self.nodes[at];
        if !node.lives() {
            return;
        }
        node.armed = next;
        let mut due = node.clock.when(self.now, next);
        if self.plan.swarm.lateness > 0 && self.rough && due < NEVER {
            due += self.dice.below(self.plan.swarm.lateness);
        }
        self.set_timer(at, due);
    }

    /// Sets the timer of a node; one that was set before goes off in vain.
    pub fn set_timer(&mut self, at: usize, due: Micros) {
        if self.nodes[at].timer_at == due {
            return;
        }
        self.nodes[at].timer_at = due;
        if due < NEVER {
            self.plan_due(due - self.now, at, Due::Timer);
        }
    }

    /// The clock of a node has changed, and its timer is set anew.
    pub fn clock_changed(&mut self, at: usize) {
        let next = self.nodes[at].armed;
        self.arm(at, next);
    }
}
