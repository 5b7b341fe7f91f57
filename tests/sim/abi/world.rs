//! The nodes, the network between them and the time. A member is driven only through the C
//! functions; after every call the judge sees what it has told its host.

use std::rc::Rc;
use std::sync::Arc;

use raftkeel::core::Millis;
use raftkeel::ffi::status::{KEEL_ROLE_FOLLOWER, KEEL_ROLE_LEADER};

use super::host::{Host, Told};
use super::judge::Judge;
use super::keel::{Look, Seat, Setup};
use super::plan::Plan;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::host::Pace;
use crate::net::{Net, Passing};
use crate::queue::{Micros, NEVER, Queue};
use crate::trace::Trace;

/// Events of one instant that are too many.
const BUSY: u64 = 100_000;

/// A message on its way.
#[derive(Clone)]
pub struct Packet {
    /// The ids of both ends when it was sent.
    pub from: u64,
    pub to: u64,
    pub bytes: Rc<[u8]>,
}

/// One place where a node runs, or not: a host with its disk, its clock and its member.
pub struct Node {
    pub seat: Seat,
    pub setup: Setup,
    pub clock: Clock,
    pub run: u32,
    /// Was given the first entry, or will be.
    pub founder: bool,
    /// What the member was last told to be.
    pub role: i32,
    pub term: u64,
    pub fenced: bool,
    /// Dead of something.
    pub stopped: bool,
    /// A failed write was the end of its last run.
    pub poisoned: bool,
    /// The cluster has done with this id: another node will take the place.
    pub gone: bool,
    pub priority: i32,
    pub pace: Pace,
    /// Frozen until then, like a stopped process or one that is busy.
    pub paused_until: Micros,
    /// A machine that sleeps hears nothing.
    pub asleep: bool,
    /// When it was driven last, on its own clock.
    pub driven: Millis,
    /// The deadline, on its own clock, for which its timer is set.
    pub armed: Millis,
    /// When that timer goes off.
    pub timer_at: Micros,
    /// Messages that came while it was paused.
    pub inbox: usize,
    /// In this run its disk may have seemed slower to it than those of the others.
    pub slowed: bool,
    /// When it handed over for that in this run, on its own clock.
    pub yielded: Option<Millis>,
}

impl Node {
    pub fn is_up(&self) -> bool {
        self.seat.runs()
    }

    /// Runs, and is not dead.
    pub fn lives(&self) -> bool {
        self.seat.runs() && !self.stopped
    }

    pub fn leads(&self) -> bool {
        self.lives() && self.role == KEEL_ROLE_LEADER
    }
}

/// What is due at one run of a node.
pub enum Due {
    /// Its timer goes off.
    Timer,
    /// The oldest write ends.
    Written,
    /// The host gets around to what it has put off.
    Chores,
    /// The first entry is given to a founder.
    Bootstrap,
    /// A machine wakes up.
    Awake,
    /// A stuck disk works again.
    Unstick,
    /// A slow disk is as fast as before.
    Quicken,
    /// It is stopped, if it runs, and started.
    Restart,
    /// Another node takes its place.
    Renew,
    /// It is told that its connection to this node is lost.
    Lost(u64),
}

/// What is to happen.
pub enum Event {
    Deliver(Passing<Packet>),
    Due {
        node: usize,
        run: u32,
        due: Due,
    },
    /// All links work again.
    Heal,
    /// A link of a node fails.
    Cut(usize),
    /// A fault of the list is due.
    Strike(usize),
    /// A piece of work of the list is due.
    Work(usize),
}

/// All of it.
pub struct World {
    pub now: Micros,
    pub nodes: Vec<Node>,
    pub net: Net<Packet>,
    pub dice: Dice,
    pub judge: Judge,
    pub trace: Trace,
    pub plan: Arc<Plan>,
    /// Faults and work go on.
    pub rough: bool,
    pub proposals: u64,
    /// The id of the next node that takes a place.
    pub next_id: u64,
    /// Ids that an administrator has ordered out, or wanted to.
    pub ordered_out: Vec<u64>,
    /// Ids whose disks were lost.
    pub lost: Vec<u64>,
    /// Nothing has happened since then that could make a node fall silent.
    pub quiet_since: Micros,
    pub queue: Queue<Event>,
    pub told: Vec<Told>,
    pub look: Look,
    pub data: Vec<u8>,
}

impl World {
    pub fn new(plan: Plan, seed: u64, told: bool) -> World {
        let mut dice = Dice::new(seed);
        let nodes = plan.swarm.nodes;
        let mut judge = Judge::new(nodes);
        judge.lease_reads = plan.setup.lease_reads;
        let mut world = World {
            now: 1_000_000,
            nodes: Vec::new(),
            net: Net::new(plan.swarm.net.clone(), nodes, &mut dice),
            dice,
            judge,
            trace: Trace::new(told),
            plan: Arc::new(plan),
            rough: true,
            proposals: 0,
            next_id: nodes as u64 + 1,
            ordered_out: Vec::new(),
            lost: Vec::new(),
            quiet_since: 1_000_000,
            queue: Queue::new(),
            told: Vec::new(),
            look: Look::default(),
            data: Vec::new(),
        };
        for at in 0..nodes {
            let node = world.make_node(at);
            world.nodes.push(node);
        }
        (0..nodes).for_each(|at| world.start(at));
        for at in 0..world.plan.swarm.strikes.len() {
            world.plan_strike(at);
        }
        for at in 0..world.plan.swarm.work.len() {
            world.plan_work(at);
        }
        world
    }

    fn make_node(&mut self, at: usize) -> Node {
        let swarm = &self.plan.swarm;
        let drift = self.dice.within(0, 2 * swarm.drift) as i64 - swarm.drift as i64;
        let showed = self.dice.below(100_000_000);
        let mut host = Host::new(at as u64 + 1, swarm.disks[at]);
        host.listens = self.trace.is_told();
        Node {
            seat: Seat::new(host),
            setup: self.plan.setup,
            clock: Clock::new(self.now, showed, drift),
            run: 0,
            founder: at < swarm.founders,
            role: KEEL_ROLE_FOLLOWER,
            term: 0,
            fenced: false,
            stopped: false,
            poisoned: false,
            gone: false,
            priority: 1,
            pace: Pace::FAST,
            paused_until: 0,
            asleep: false,
            driven: 0,
            armed: Millis::MAX,
            timer_at: NEVER,
            inbox: 0,
            slowed: false,
            yielded: None,
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
                "a member wants to be called again and again, and no time passes"
            );
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    /// Lets time pass until something is so, looked at ten times an election timeout. Whether it
    /// came to be so within `span`.
    pub fn run_while(&mut self, span: Micros, so: impl Fn(&mut Self) -> bool) -> bool {
        let (end, step) = (self.now + span, self.unit() / 10);
        while !so(self) {
            if self.now >= end {
                return false;
            }
            self.run_until(self.now + step);
        }
        true
    }

    /// The election timeout.
    pub fn unit(&self) -> Micros {
        self.plan.swarm.election_micros()
    }

    /// Plans an event, so much later.
    pub fn plan_event(&mut self, after: Micros, event: Event) {
        self.queue.push(self.now.saturating_add(after), event);
    }

    /// Plans what is due at a node; nothing comes of it if the node stops before.
    pub fn plan_due(&mut self, after: Micros, node: usize, due: Due) {
        let run = self.nodes[node].run;
        self.plan_event(after, Event::Due { node, run, due });
    }

    fn plan_strike(&mut self, at: usize) {
        let gap = self.plan.swarm.strikes[at].1;
        let after = self.dice.within(1, 2 * gap);
        self.plan_event(after, Event::Strike(at));
    }

    fn plan_work(&mut self, at: usize) {
        let gap = self.plan.swarm.work[at].1;
        let after = self.dice.within(1, 2 * gap);
        self.plan_event(after, Event::Work(at));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(passing) => self.deliver(passing),
            Event::Due { node, run, due } if self.nodes[node].run == run => self.come(node, due),
            Event::Heal if self.rough => self.heal(),
            Event::Cut(node) if self.rough => self.cut_again(node),
            Event::Strike(at) if self.rough => {
                self.strike(self.plan.swarm.strikes[at].0);
                self.plan_strike(at);
            }
            Event::Work(at) if self.rough => {
                self.work(self.plan.swarm.work[at].0);
                self.plan_work(at);
            }
            _ => {}
        }
    }

    /// Something is due at a node.
    fn come(&mut self, at: usize, due: Due) {
        let waits = matches!(
            due,
            Due::Timer | Due::Written | Due::Chores | Due::Bootstrap | Due::Lost(_)
        );
        if waits && self.is_paused(at) {
            // The world goes on, and the process learns of it later.
            let until = self.nodes[at].paused_until;
            if let Due::Timer = due {
                self.set_timer(at, until);
            } else {
                self.plan_due(until - self.now, at, due);
            }
            return;
        }
        match due {
            Due::Timer => self.wake(at),
            Due::Written => self.finish_write(at),
            Due::Chores => self.do_chores(at),
            Due::Bootstrap => self.bootstrap(at),
            Due::Awake => self.nodes[at].asleep = false,
            Due::Unstick => self.unstick(at),
            Due::Quicken if self.rough => self.nodes[at].seat.disk.slowness = 0,
            Due::Restart if self.rough => self.restart(at),
            Due::Renew if self.rough => self.renew(at),
            Due::Lost(id) => self.lose(at, id),
            Due::Restart | Due::Renew | Due::Quicken => {}
        }
    }

    // ---- questions -------------------------------------------------------

    pub fn is_paused(&self, at: usize) -> bool {
        self.nodes[at].paused_until > self.now
    }

    /// Lives, and is not frozen.
    pub fn is_at_work(&self, at: usize) -> bool {
        self.nodes[at].lives() && !self.is_paused(at)
    }

    /// The leader of the newest term.
    pub fn leader(&self) -> Option<usize> {
        let leaders = (0..self.nodes.len()).filter(|at| self.nodes[*at].leads());
        leaders.max_by_key(|at| self.nodes[*at].term)
    }

    /// What a member says of itself, which the judge sees too.
    pub fn look_at(&mut self, at: usize) -> bool {
        let node = &self.nodes[at];
        let says = node.is_up() && node.seat.look(&mut self.look);
        if says && node.lives() {
            self.judge.looked(at, &self.look);
            let lease = node.seat.lease_ms();
            assert!(
                lease >= 0 && (!self.look.fenced || lease == 0),
                "n{} is fenced, and has a lease of {lease} ms",
                at + 1
            );
        }
        says
    }
}
