//! Calls into servers: what each is told, and what becomes of what it wants.

use raftkeel::core::{Millis, Payload, Position};

use crate::host::{data_of, proposal_of};
use crate::judge::{Call, Judge};
use crate::marks::Fault::*;
use crate::marks::Mark::{HandedOverWithoutRoom, VotedWithoutRoom};
use crate::net::Passing;
use crate::queue::{Micros, NEVER};
use crate::server::{Answer, Input, Room, Server, State};
use crate::swarm::When;
use crate::world::{Due, World};

impl<S: Server, J: Judge<S>> World<S, J> {
    /// Calls into a running server, and does what it wants.
    pub fn call(&mut self, at: usize, input: Input<S::Packet>) -> Answer {
        if std::mem::take(&mut self.nodes[at].away) {
            self.call(at, Input::WasAway);
        }
        let node = &mut self.nodes[at];
        let Some(server) = &mut node.server else {
            return Answer::None;
        };
        let now = node.clock.read(self.now);
        let room = Room {
            applies: node.host.room(self.now),
            writes: !node.refusing,
        };
        self.trace.input::<S>(self.now, at, &input);
        server.step(now, &input, room, &mut self.output);
        let (before, after) = (node.state, server.state());
        node.state = after;
        self.trace.output(&self.output, &before, &after);
        let call = Call {
            node: at,
            id: node.id,
            run: node.run,
            now,
            input: &input,
            output: &self.output,
            before: &before,
            after: &after,
            server,
        };
        self.judge.called(&call);
        if node.refusing {
            watch_without_room(&before, &after);
        }
        let answer = self.output.answer;
        if let (Input::Propose(data), Answer::Placed(term, index)) = (&input, answer) {
            let proposal = proposal_of(&Payload::Host(data.clone()));
            node.host.proposed(proposal.unwrap_or(0), term, index);
        }
        if after.base != before.base && matches!(input, Input::Compact { .. }) {
            self.trim(at, after.base);
        }
        self.dispatch(at, &before, &after);
        answer
    }

    fn dispatch(&mut self, at: usize, before: &State, after: &State) {
        let ambush = self.ambush(before, after);
        self.start_write(at);
        if ambush.is_some_and(|(_, when)| when == When::BeforeSending) {
            PacketsUnsent.hit();
            self.output.sent.clear();
        } else {
            self.send(at);
        }
        self.host_applies(at);
        self.start_asks(at);
        match ambush {
            Some((strike, _)) => self.strike_at(strike, at),
            None => self.arm(at),
        }
        let elected = after.leads() && !before.leads();
        if elected && self.swarm.limits.lease_reads && self.rough {
            self.rivals_read(at);
        }
    }

    /// Whoever led until now is asked at the worst of times: its lease must be over.
    fn rivals_read(&mut self, elected: usize) {
        for at in 0..self.nodes.len() {
            if at != elected && self.is_at_work(at) && self.nodes[at].state.leads() {
                self.call(at, Input::Read);
            }
        }
    }

    fn start_write(&mut self, at: usize) {
        let Some(write) = self.output.write.take() else {
            return;
        };
        let node = &mut self.nodes[at];
        let done = node.disk.start(self.now, write, &mut self.dice);
        if done < NEVER {
            self.plan_due(done - self.now, at, Due::Written);
        }
    }

    fn send(&mut self, from: usize) {
        let mut sent = std::mem::take(&mut self.output.sent);
        for (to, packet) in sent.drain(..) {
            let to = to.get() as usize - 1;
            let passing = Passing { from, to, packet };
            for (at, passing) in self.net.pass(self.now, passing, &mut self.dice) {
                self.deliver_at(at, passing);
            }
        }
    }

    fn host_applies(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let judge = &mut self.judge;
        let tell = |id, outcome| judge.outcome(id, outcome);
        let applied = &self.output.applied;
        let ready = node.host.apply(self.now, applied, tell);
        for entry in applied {
            if let Payload::Config(config, _) = &entry.payload {
                let known = self.members.as_ref().map_or(0, |(index, _)| *index);
                if entry.index > known {
                    self.members = Some((entry.index, config.clone()));
                }
            }
        }
        if ready > self.now && !applied.is_empty() {
            HostSlow.hit();
        }
        let node = &mut self.nodes[at];
        let behind = node.host.applied.index < node.state.commit.min(node.state.durable);
        if behind && self.output.full && !node.host.awaited {
            node.host.awaited = true;
            self.plan_due(ready - self.now, at, Due::Ready);
        }
    }

    /// The log was dropped up to here; a disk does so at once, or some time.
    fn trim(&mut self, at: usize, base: Position) {
        if self.dice.once_in(4) {
            TrimLate.hit();
        } else {
            self.nodes[at].disk.image.trim(base);
        }
    }

    /// Proposes something new at a node.
    pub fn propose(&mut self, at: usize, len: usize) -> Answer {
        self.proposals += 1;
        let data = data_of(self.proposals, len);
        self.call(at, Input::Propose(data))
    }

    // ---- timers ----------------------------------------------------------

    /// The timer of a node has gone off; its deadline may have moved since it was set.
    pub fn wake(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.timer_at != now {
            return;
        }
        (node.armed, node.timer_at) = (Millis::MAX, NEVER);
        let Some(server) = &node.server else {
            return;
        };
        if node.clock.read(now) >= server.deadline() {
            self.call(at, Input::Tick);
        } else {
            self.arm(at);
        }
    }

    /// Sees to it that a node is woken at its deadline; one that only moves away is met by the
    /// timer that is set already.
    fn arm(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(server) = &node.server else {
            return;
        };
        let deadline = server.deadline();
        if deadline >= node.armed {
            return;
        }
        node.armed = deadline;
        let mut due = node.clock.when(self.now, deadline);
        if self.swarm.lateness > 0 && self.rough {
            due += self.dice.below(self.swarm.lateness);
        }
        self.set_timer(at, due);
    }

    /// Sets the timer of a node; one that was set before goes off in vain.
    pub fn set_timer(&mut self, at: usize, due: Micros) {
        self.nodes[at].timer_at = due;
        if due < NEVER {
            self.plan_due(due - self.now, at, Due::Timer);
        }
    }

    /// The clock of a node has changed, and its timer is set anew.
    pub fn clock_changed(&mut self, at: usize) {
        self.nodes[at].armed = Millis::MAX;
        self.arm(at);
    }
}

/// What a server does whose disk is full.
fn watch_without_room(before: &State, after: &State) {
    if after.vote.is_some() && (after.term, after.vote) != (before.term, before.vote) {
        VotedWithoutRoom.hit();
    }
    if after.transferring.is_some() && before.transferring.is_none() {
        HandedOverWithoutRoom.hit();
    }
}
