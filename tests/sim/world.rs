//! The nodes, the network between them and the time. A server is called only when it wants to be
//! and when something happens to it; after every call the judge has its say.

use std::sync::Arc;

use raftkeel::core::{Ask, Bytes, Configuration, Exclusion, Index, Millis, NodeId, Snapshot};

use crate::clock::Clock;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::host::{Host, Pace};
use crate::image::Image;
use crate::judge::Judge;
use crate::marks::Fault::*;
use crate::net::{MAX_NODES, Net, Passing};
use crate::queue::{Micros, NEVER, Queue};
use crate::server::{Input, Output, Server, Setup, State};
use crate::swarm::Swarm;
use crate::trace::Trace;

/// Events of one instant that are too many.
const BUSY: u64 = 100_000;
/// Packets that wait for a node that is paused.
const INBOX: usize = 512;

/// One node, running or not.
pub struct Node<S: Server> {
    pub id: NodeId,
    pub server: Option<S>,
    /// What the server was after the last call.
    pub state: State,
    pub disk: Disk<Image, S::Write>,
    pub clock: Clock,
    pub host: Host,
    pub setup: Setup,
    pub run: u32,
    /// Frozen until then, like a stopped process.
    pub paused_until: Micros,
    /// Its clock stands still as well.
    pub asleep: bool,
    /// It stood still, and the server has not been told.
    pub away: bool,
    /// A write has failed in this run.
    pub failed: bool,
    /// Its disk has no room for entries.
    pub full: bool,
    /// The server knows that, and writes hard state only.
    pub refusing: bool,
    /// Entries from here on found no room, and what builds on them finds none either.
    pub refused_from: Option<Index>,
    /// The deadline, on its own clock, for which its timer is set.
    pub armed: Millis,
    /// When that timer goes off.
    pub timer_at: Micros,
    /// Packets that came while it was paused.
    pub inbox: usize,
}

impl<S: Server> Node<S> {
    pub fn is_up(&self) -> bool {
        self.server.is_some()
    }

    /// Whether there is no room for what the write changes in the log.
    pub fn refuses(&self, write: &S::Write) -> bool {
        let Some(first) = S::first_written(write) else {
            return false;
        };
        let follows = first > 0 && self.refused_from.is_some_and(|from| first > from);
        self.full || follows
    }

    pub fn is_paused(&self, now: Micros) -> bool {
        self.paused_until > now || self.asleep
    }
}

/// What is due at one run of a node.
pub enum Due {
    /// Its timer goes off.
    Timer,
    /// The oldest write ends.
    Written,
    /// The host has room for entries.
    Ready,
    /// What was asked for is done.
    Answer(Ask),
    /// A snapshot of the host's own is written.
    Saved(Snapshot, Bytes),
    /// The first entry is given to a founder.
    Bootstrap,
    /// A pause ends.
    Resume,
    /// A pause ends in which the clock stood still for so long.
    Awake(Micros),
    /// A stuck disk works again.
    Unstick,
    /// It is stopped, if it runs, and started.
    Restart,
    /// It is told that its connection to this node is lost.
    Lost(usize),
}

/// What is to happen.
pub enum Event<P> {
    Deliver(Passing<P>),
    Due {
        node: usize,
        run: u32,
        due: Due,
    },
    /// All links work again.
    Heal,
    /// The disk of a node has room again.
    Room(usize),
    /// A link of a node fails.
    Cut(usize),
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
    pub output: Output<S>,
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
            asleep: false,
            away: false,
            failed: false,
            full: false,
            refusing: false,
            refused_from: None,
            armed: Millis::MAX,
            timer_at: NEVER,
            inbox: 0,
        }
    }

    // ---- time ------------------------------------------------------------

    /// Lets time pass.
    pub fn run_until(&mut self, until: Micros) {
        let mut busy = 0;
        while let Some((at, event)) = self.queue.pop(until) {
            busy = if at == self.now { busy + 1 } else { 0 };
            assert!(
                busy < BUSY,
                "a server wants to be called again and again, and no time passes"
            );
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

    /// Plans an event, so much later.
    pub fn plan(&mut self, after: Micros, event: Event<S::Packet>) {
        self.queue.push(self.now + after, event);
    }

    /// Plans what is due at a node; nothing comes of it if the node stops before.
    pub fn plan_due(&mut self, after: Micros, node: usize, due: Due) {
        let run = self.nodes[node].run;
        self.plan(after, Event::Due { node, run, due });
    }

    fn plan_strike(&mut self, at: usize) {
        let gap = self.swarm.strikes[at].1;
        let after = self.dice.within(1, 2 * gap);
        self.plan(after, Event::Strike(at));
    }

    fn plan_work(&mut self, at: usize) {
        let gap = self.swarm.work[at].1;
        let after = self.dice.within(1, 2 * gap);
        self.plan(after, Event::Work(at));
    }

    fn happen(&mut self, event: Event<S::Packet>) {
        match event {
            Event::Deliver(passing) => self.deliver(passing),
            Event::Due { node, run, due } if self.nodes[node].run == run => self.come(node, due),
            Event::Heal if self.rough => self.heal(),
            Event::Room(node) if self.rough => self.make_room(node),
            Event::Cut(node) if self.rough => self.cut_again(node),
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

    /// Something is due at a node.
    fn come(&mut self, at: usize, due: Due) {
        let node = &self.nodes[at];
        let waits = !matches!(
            due,
            Due::Restart | Due::Resume | Due::Awake(_) | Due::Unstick
        );
        if waits && node.is_paused(self.now) {
            // The world goes on, and the process learns of it later.
            let after = node.paused_until - self.now;
            if let Due::Timer = due {
                self.set_timer(at, self.now + after);
            } else {
                self.plan_due(after, at, due);
            }
            return;
        }
        match due {
            Due::Timer => self.wake(at),
            Due::Written => self.finish_write(at),
            Due::Ready => {
                self.nodes[at].host.awaited = false;
                self.call(at, Input::Take);
            }
            Due::Answer(ask) => self.answer(at, ask),
            Due::Saved(snapshot, image) => self.saved(at, snapshot, image),
            Due::Bootstrap => self.bootstrap(at),
            Due::Resume => self.resume(at),
            Due::Awake(span) if self.nodes[at].asleep => self.awake(at, span),
            Due::Unstick => self.unstick(at),
            Due::Lost(other) => self.lose(at, other),
            Due::Restart if self.rough => self.restart(at),
            Due::Restart | Due::Awake(_) => {}
        }
    }

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

    /// Hands a packet to a node, at some time.
    pub fn deliver_at(&mut self, at: Micros, passing: Passing<S::Packet>) {
        self.queue.push(at, Event::Deliver(passing));
    }

    /// Loses all that is on its way.
    pub fn lose_packets(&mut self) {
        self.queue
            .retain(|event| !matches!(event, Event::Deliver(_)));
        self.nodes.iter_mut().for_each(|node| node.inbox = 0);
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
