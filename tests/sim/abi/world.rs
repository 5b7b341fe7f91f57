//! The nodes, the network between them and the time. A member is driven only through the C
//! functions; after every call the judge sees what it has told its host.

use std::rc::Rc;
use std::sync::Arc;

use raftkeel::core::Millis;
use raftkeel::ffi::code::*;
use raftkeel::ffi::status::{KEEL_ROLE_CANDIDATE, KEEL_ROLE_FOLLOWER, KEEL_ROLE_LEADER};

use super::host::{Host, Told};
use super::judge::Judge;
use super::keel::{Look, Seat, Setup, last_error};
use super::plan::Plan;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::host::Pace;
use crate::marks::Fault::*;
use crate::net::{Net, Passing};
use crate::queue::{Micros, NEVER, Queue};
use crate::swarm::{Occasion, Strike, When};
use crate::trace::Trace;

/// Events of one instant that are too many.
const BUSY: u64 = 100_000;
/// Messages that wait for a node that is paused.
const INBOX: usize = 512;

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
    /// It is stopped, if it runs, and started.
    Restart,
    /// Another node takes its place.
    Renew,
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
    /// Nothing has happened since then that could make a node fall silent.
    pub quiet_since: Micros,
    queue: Queue<Event>,
    told: Vec<Told>,
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
            Due::Timer | Due::Written | Due::Chores | Due::Bootstrap
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
            Due::Restart if self.rough => self.restart(at),
            Due::Renew if self.rough => self.renew(at),
            Due::Restart | Due::Renew => {}
        }
    }

    // ---- messages --------------------------------------------------------

    fn deliver(&mut self, passing: Passing<Packet>) {
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
                self.queue.push(at, Event::Deliver(passing));
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
            KEEL_ERR_FULL if mine => super::marks::Mark::QueueFull.hit(),
            KEEL_ERR_CLOSED if stopped => {}
            KEEL_ERR_FOREIGN if !mine => super::marks::Mark::Foreign.hit(),
            _ => panic!("n{}: keel_recv() returns {code}: {}", to + 1, last_error()),
        }
        self.trace.mix((to, code, packet.bytes.len()));
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
            let Some(to) = self.place_of(to_id) else {
                continue;
            };
            let packet = Packet {
                from: id,
                to: to_id,
                bytes,
            };
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
        self.nodes[from].seat.sent = sent;
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
        let mut told = std::mem::replace(&mut self.told, Vec::new());
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
    fn wake(&mut self, at: usize) {
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
    fn set_timer(&mut self, at: usize, due: Micros) {
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
        }
        says
    }
}

/// Which occasions a change of role is.
pub fn occasions_of_role(before: (i32, u64), after: (i32, u64)) -> u32 {
    let mut occasions = 0;
    let mut add = |so: bool, occasion: Occasion| occasions |= u32::from(so) << occasion as u32;
    add(
        after.0 == KEEL_ROLE_LEADER && before.0 != after.0,
        Occasion::Leads,
    );
    add(after.0 == KEEL_ROLE_CANDIDATE, Occasion::Campaigns);
    add(after.1 > before.1, Occasion::NewTerm);
    add(
        after.1 > before.1 && after.0 == KEEL_ROLE_FOLLOWER,
        Occasion::Votes,
    );
    occasions
}
