//! The nodes, the network between them and the time. A server is called only when it wants to be
//! and when something happens to it; after every call the judge has its say.

use std::sync::Arc;

use raftkeel::core::{Configuration, Exclusion, Index, Millis, NodeId, Payload};

use crate::clock::Clock;
use crate::dice::Dice;
use crate::disk::{Disk, Finished};
use crate::host::{Host, Pace, data_of, proposal_of};
use crate::judge::{Call, Judge};
use crate::marks::Fault::*;
use crate::net::{MAX_NODES, Net, Passing};
use crate::queue::{Micros, NEVER, Queue};
use crate::server::{Answer, Input, Output, Server, Setup, State};
use crate::swarm::{Swarm, When};
use crate::trace::Trace;

/// Packets that wait for a node that is paused.
const INBOX: usize = 512;

/// One node, running or not.
pub struct Node<S: Server> {
    pub id: NodeId,
    pub server: Option<S>,
    /// What the server was after the last call.
    pub state: State,
    pub disk: Disk<S>,
    pub clock: Clock,
    pub host: Host,
    pub setup: Setup,
    pub run: u32,
    /// Frozen until then, like a stopped process.
    pub paused_until: Micros,
    /// A write has failed in this run.
    pub failed: bool,
    /// The deadline, on its own clock, for which its timer is set.
    armed: Millis,
    /// When that timer goes off.
    timer_at: Micros,
    /// Packets that came while it was paused.
    inbox: usize,
}

impl<S: Server> Node<S> {
    pub fn is_up(&self) -> bool {
        self.server.is_some()
    }

    pub fn is_paused(&self, now: Micros) -> bool {
        self.paused_until > now
    }
}

/// The end of a fault, or its next blow.
#[derive(Clone, Copy)]
pub enum Later {
    Heal,
    Cut { node: usize },
    Bootstrap { node: usize, run: u32 },
    Resume { node: usize, run: u32 },
    Unstick { node: usize, run: u32 },
}

/// What is to happen.
enum Event<P> {
    Deliver(Passing<P>),
    Timer {
        node: usize,
        run: u32,
    },
    Written {
        node: usize,
        run: u32,
    },
    Ready {
        node: usize,
        run: u32,
    },
    Restart {
        node: usize,
        run: u32,
    },
    Later(Later),
    /// A fault of the swarm's list is due.
    Strike(usize),
    /// A piece of work of the swarm's list is due.
    Work(usize),
}

/// All of it.
pub struct World<S: Server, J: Judge<S>> {
    pub now: Micros,
    pub nodes: Vec<Node<S>>,
    pub net: Net<S::Packet>,
    pub dice: Dice,
    pub judge: J,
    pub trace: Trace,
    pub swarm: Arc<Swarm>,
    /// Faults and work go on.
    pub rough: bool,
    /// Proposals made so far.
    pub proposals: u64,
    /// The newest configuration that a host has seen committed, and where it stands.
    pub members: Option<(Index, Arc<Configuration>)>,
    /// What each node was last told of its exclusion.
    pub notices: [Option<Exclusion>; MAX_NODES],
    queue: Queue<Event<S::Packet>>,
    output: Output<S>,
}

impl<S: Server, J: Judge<S>> World<S, J> {
    pub fn new(swarm: Swarm, seed: u64, judge: J, told: bool) -> World<S, J> {
        let mut dice = Dice::new(seed);
        let mut world = World {
            now: 1_000_000,
            nodes: Vec::new(),
            net: Net::new(swarm.net.clone(), swarm.nodes, &mut dice),
            dice,
            judge,
            trace: Trace::new(told),
            swarm: Arc::new(swarm),
            rough: true,
            proposals: 0,
            members: None,
            notices: [None; MAX_NODES],
            queue: Queue::new(),
            output: Output::default(),
        };
        for at in 0..world.swarm.nodes {
            let node = world.make_node(at);
            world.nodes.push(node);
        }
        (0..world.swarm.nodes).for_each(|at| world.start(at));
        for at in 0..world.swarm.strikes.len() {
            world.plan_strike(at);
        }
        for at in 0..world.swarm.work.len() {
            world.plan_work(at);
        }
        world
    }

    fn make_node(&mut self, at: usize) -> Node<S> {
        let id = NodeId::new(at as u64 + 1).expect("ids start at 1");
        let drift = self.swarm.drift;
        let drift = self.dice.within(0, 2 * drift) as i64 - drift as i64;
        let showed = self.dice.below(100_000_000);
        Node {
            id,
            server: None,
            state: State::NONE,
            disk: Disk::new(self.swarm.disks[at]),
            clock: Clock::new(self.now, showed, drift),
            host: Host::new(Pace::FAST),
            setup: self.swarm.setup(id),
            run: 0,
            paused_until: 0,
            failed: false,
            armed: Millis::MAX,
            timer_at: NEVER,
            inbox: 0,
        }
    }

    // ---- time ------------------------------------------------------------

    /// Lets time pass.
    pub fn run_until(&mut self, until: Micros) {
        while let Some((at, event)) = self.queue.pop(until) {
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    /// Lets time pass until something is so, looked at ten times an election timeout. Whether
    /// it came to be so within `span`.
    pub fn run_while(&mut self, span: Micros, so: impl Fn(&Self) -> bool) -> bool {
        let (end, step) = (self.now + span, self.swarm.election_micros() / 10);
        while !so(self) {
            if self.now >= end {
                return false;
            }
            self.run_until(self.now + step);
        }
        true
    }

    fn happen(&mut self, event: Event<S::Packet>) {
        match event {
            Event::Deliver(passing) => self.deliver(passing),
            Event::Timer { node, run } if self.nodes[node].run == run => self.wake(node),
            Event::Written { node, run } if self.nodes[node].run == run => self.finish_write(node),
            Event::Ready { node, run } if self.nodes[node].run == run => self.take(node),
            Event::Restart { node, run } if self.rough && self.nodes[node].run == run => {
                self.restart(node);
            }
            Event::Later(later) => self.end(later),
            Event::Strike(at) if self.rough => {
                self.strike(self.swarm.strikes[at].0);
                self.plan_strike(at);
            }
            Event::Work(at) if self.rough => {
                self.work(self.swarm.work[at].0);
                self.plan_work(at);
            }
            _ => {}
        }
    }

    fn plan_strike(&mut self, at: usize) {
        let gap = self.swarm.strikes[at].1;
        let at_time = self.now + self.dice.within(1, 2 * gap);
        self.queue.push(at_time, Event::Strike(at));
    }

    fn plan_work(&mut self, at: usize) {
        let gap = self.swarm.work[at].1;
        let at_time = self.now + self.dice.within(1, 2 * gap);
        self.queue.push(at_time, Event::Work(at));
    }

    /// Plans the end of a fault.
    pub fn plan(&mut self, after: Micros, later: Later) {
        self.queue.push(self.now + after, Event::Later(later));
    }

    pub fn plan_restart(&mut self, node: usize, after: Micros) {
        let run = self.nodes[node].run;
        let event = Event::Restart { node, run };
        self.queue.push(self.now + after, event);
    }

    // ---- what happens to a node ------------------------------------------

    fn deliver(&mut self, passing: Passing<S::Packet>) {
        let Passing { from, to, .. } = passing;
        if self.net.is_cut(from, to) {
            self.net.stop(passing);
            return;
        }
        let node = &mut self.nodes[to];
        if !node.is_up() {
            PacketToNobody.hit();
            return;
        }
        if node.is_paused(self.now) {
            if node.inbox < INBOX {
                node.inbox += 1;
                let at = node.paused_until;
                self.queue.push(at, Event::Deliver(passing));
            }
            return;
        }
        node.inbox = 0;
        let from = self.nodes[from].id;
        let packet = passing.packet;
        self.call(to, Input::Receive { from, packet });
    }

    /// Hands a packet to a node, some time from now.
    pub fn deliver_at(&mut self, at: Micros, passing: Passing<S::Packet>) {
        self.queue.push(at, Event::Deliver(passing));
    }

    /// The timer of a node has gone off; its deadline may have moved since it was set.
    fn wake(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.timer_at != now {
            return;
        }
        (node.armed, node.timer_at) = (Millis::MAX, NEVER);
        let Some(server) = &node.server else {
            return;
        };
        if node.is_paused(now) {
            let until = node.paused_until;
            self.set_timer(at, until);
        } else if node.clock.read(now) >= server.deadline() {
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

    fn set_timer(&mut self, at: usize, due: Micros) {
        let node = &mut self.nodes[at];
        node.timer_at = due;
        if due < NEVER {
            let run = node.run;
            self.queue.push(due, Event::Timer { node: at, run });
        }
    }

    /// The clock of a node has changed, and its timer is set anew.
    pub fn clock_changed(&mut self, at: usize) {
        self.nodes[at].armed = Millis::MAX;
        self.arm(at);
    }

    fn finish_write(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.is_paused(now) {
            // The disk goes on, and the process learns of it later.
            let (until, run) = (node.paused_until, node.run);
            self.queue.push(until, Event::Written { node: at, run });
            return;
        }
        let finished = node.disk.finish(&mut self.dice);
        self.written(at, finished);
    }

    /// A write of a node has ended.
    pub fn written(&mut self, at: usize, finished: Finished<S>) {
        let node = &mut self.nodes[at];
        match finished {
            Finished::Nothing => {}
            Finished::Landed(write) => {
                let token = S::token(&write);
                self.judge.landed(at, &write);
                S::land(&mut node.disk.image, write);
                self.call(at, Input::Written { token, ok: true });
            }
            Finished::Failed(token) => {
                node.failed = true;
                let judge = &mut self.judge;
                node.host.abandon(|id, outcome| judge.outcome(id, outcome));
                self.call(at, Input::Written { token, ok: false });
                let after = self.dice.scaled(1, self.swarm.down.max(1));
                self.plan_restart(at, after);
            }
        }
    }

    /// All writes of a node are looked at again.
    pub fn revive_writes(&mut self, node: usize, count: usize) {
        let run = self.nodes[node].run;
        for _ in 0..count {
            self.queue.push(self.now, Event::Written { node, run });
        }
    }

    fn take(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.is_paused(self.now) {
            let (until, run) = (node.paused_until, node.run);
            self.queue.push(until, Event::Ready { node: at, run });
        } else {
            self.call(at, Input::Take);
        }
    }

    // ---- calls -----------------------------------------------------------

    /// Calls into a running server, and does what it wants.
    pub fn call(&mut self, at: usize, input: Input<S::Packet>) -> Answer {
        let node = &mut self.nodes[at];
        let Some(server) = &mut node.server else {
            return Answer::None;
        };
        let now = node.clock.read(self.now);
        let room = node.host.room(self.now);
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
        let answer = self.output.answer;
        if let (Input::Propose(data), Answer::Placed(term, index)) = (&input, answer) {
            let proposal = proposal_of(&Payload::Host(data.clone()));
            node.host.proposed(proposal.unwrap_or(0), term, index);
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
        match ambush {
            Some((strike, _)) => self.strike_at(strike, at),
            None => self.arm(at),
        }
    }

    fn start_write(&mut self, at: usize) {
        let Some(write) = self.output.write.take() else {
            return;
        };
        let node = &mut self.nodes[at];
        let done = node.disk.start(self.now, write, &mut self.dice);
        if done < NEVER {
            let run = node.run;
            self.queue.push(done, Event::Written { node: at, run });
        }
    }

    fn send(&mut self, from: usize) {
        let mut sent = std::mem::take(&mut self.output.sent);
        for (to, packet) in sent.drain(..) {
            let to = to.get() as usize - 1;
            if self.net.is_cut(from, to) {
                self.net.stop(Passing { from, to, packet });
                continue;
            }
            self.net.archive((from, to), &packet, &mut self.dice);
            let fate = self.net.send(self.now, (from, to), &mut self.dice);
            if let Some(at) = fate.copy {
                let packet = packet.clone();
                self.deliver_at(at, Passing { from, to, packet });
            }
            if let Some(at) = fate.original {
                self.deliver_at(at, Passing { from, to, packet });
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
        if self.output.more && (ready > self.now || !applied.is_empty()) {
            let run = node.run;
            self.queue.push(ready, Event::Ready { node: at, run });
        }
    }

    // ---- runs ------------------------------------------------------------

    /// Starts a node from its disk.
    pub fn start(&mut self, at: usize) {
        let now = self.now;
        let pace = self.swarm.pace(&mut self.dice);
        let node = &mut self.nodes[at];
        node.run += 1;
        node.setup.run = u64::from(node.run);
        node.setup.seed = self.dice.word();
        (node.failed, node.paused_until, node.inbox) = (false, 0, 0);
        (node.armed, node.timer_at) = (Millis::MAX, NEVER);
        node.host = Host::new(pace);
        let local = node.clock.read(now);
        let server = S::start(&node.setup, &node.disk.image, local);
        node.state = server.state();
        self.trace
            .tell(now, format!("n{} starts: {:?}", at + 1, node.state));
        let judge = &mut self.judge;
        judge.started(at, &node.setup, local, &node.state, &server);
        node.server = Some(server);
        self.call(at, Input::Take);
        if self.rough && self.swarm.late_founders > 0 {
            let run = self.nodes[at].run;
            let after = self.dice.below(self.swarm.late_founders);
            self.plan(after, Later::Bootstrap { node: at, run });
        } else {
            self.bootstrap(at);
        }
    }

    /// A founder that holds nothing is given the first entry.
    pub fn bootstrap(&mut self, at: usize) {
        let founder = at < self.swarm.founders;
        if founder && S::is_blank(&self.nodes[at].disk.image) {
            let voters = self.nodes[..self.swarm.founders].iter().map(|n| n.id);
            let voters = voters.collect();
            self.call(at, Input::Bootstrap(voters));
        }
    }

    /// Stops a node at once. Some first few of its writes under way have reached the disk.
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
        for write in node.disk.crash(&mut self.dice) {
            self.judge.landed(at, &write);
            S::land(&mut node.disk.image, write);
        }
    }

    /// Starts a node, which is stopped first if need be.
    pub fn restart(&mut self, at: usize) {
        self.crash(at);
        self.start(at);
    }

    /// Proposes something new at a node.
    pub fn propose(&mut self, at: usize, len: usize) -> Answer {
        self.proposals += 1;
        let data = data_of(self.proposals, len);
        self.call(at, Input::Propose(data))
    }

    // ---- questions -------------------------------------------------------

    /// Nodes that run.
    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_up())
    }

    /// Runs, and is not frozen.
    pub fn is_at_work(&self, at: usize) -> bool {
        self.nodes[at].is_up() && !self.nodes[at].is_paused(self.now)
    }

    /// The running leader of the newest term.
    pub fn leader(&self) -> Option<usize> {
        let leaders = self.running().filter(|at| self.nodes[*at].state.leads());
        leaders.max_by_key(|at| self.nodes[*at].state.term)
    }
}
