//! Clients of Raft servers under faults. Every client works through one object at a time: it gives
//! its call to a server that believes to lead, and waits until that server applies it or another
//! entry in its place. What the clients saw must be linearizable.
//!
//! Reads go through the log like everything else, except in the run that proves that the checker
//! bites: there servers answer from what they hold.
//!
//! A failing seed is printed; `RAFTKEEL_SEED=n` replays it, `RAFTKEEL_SEEDS=n` tries n of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use raftkeel::core::{Entry, Index, Millis, Payload, Random, Term};

use crate::cluster::{Cluster, E, n};
use crate::linear::{Call, Operation, Reply, Value, Verdict, check};
use crate::network::Faults;
use crate::{number, seeds};

const SEEDS: u64 = 1_000;
/// How long faults last.
const CHAOS: Millis = 15 * E;
const CLIENTS: usize = 5;
/// Even keys hold lists, odd ones registers.
const KEYS: u64 = 3;
/// When the most patient client gives up waiting.
const PATIENCE: Millis = 4 * E;
/// Configurations looked at per object; see `check`.
const BUDGET: u64 = 3_000_000;

/// Where reads are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// In their place in the log.
    Logged,
    /// By whichever server is asked, at once.
    Local,
}

/// What one run of a server made of the log.
#[derive(Default)]
struct Machine {
    applied: usize,
    objects: BTreeMap<u64, Value>,
}

/// What a client waits for.
struct Waiting {
    /// Its place in the history.
    operation: usize,
    server: u64,
    place: (Term, Index),
    since: Millis,
}

struct Run {
    cluster: Cluster,
    random: Random,
    size: u64,
    reads: Reads,
    /// Chances in ten thousand per millisecond.
    crashes: u64,
    cuts: u64,
    pauses: u64,
    step_downs: u64,
    /// One write in this many milliseconds completes, per server; 0 for at once.
    disk: u64,
    /// When clients give up waiting.
    patience: Millis,
    machines: BTreeMap<u64, Machine>,
    waiting: [Option<Waiting>; CLIENTS],
    history: Vec<Operation>,
    /// Numbers of operations of which it is known that they never took effect.
    void: Vec<usize>,
}

impl Run {
    fn new(seed: u64, reads: Reads) -> Run {
        let mut random = Random::new(seed);
        let size = [1, 3, 3, 3, 5, 5][random.between(0, 6) as usize];
        let mut cluster = Cluster::create(size, size, random.next_u64());
        cluster.network.forget();
        // Each trouble is absent in many runs: together they often keep anything from happening.
        let mut rarely = |most: u64| match random.between(0, 3) {
            0 => 0,
            _ => random.between(0, most + 1),
        };
        cluster.network.set_faults(Some(Faults {
            lost: rarely(200),
            doubled: rarely(200),
            delay: rarely(20),
        }));
        let mut run = Run {
            crashes: rarely(40),
            cuts: rarely(60),
            pauses: rarely(30),
            step_downs: rarely(20),
            disk: rarely(8),
            patience: random.between(E / 4, PATIENCE),
            cluster,
            size,
            reads,
            machines: BTreeMap::new(),
            waiting: Default::default(),
            history: Vec::new(),
            void: Vec::new(),
            random,
        };
        for raw in 1..=size {
            run.machines.insert(raw, Machine::default());
            run.cluster.node_mut(raw).hold_writes = run.disk > 0;
        }
        run
    }

    fn chance(&mut self, of: u64) -> bool {
        of > 0 && self.random.between(0, 10_000) < of
    }

    fn any(&mut self) -> u64 {
        self.random.between(1, self.size + 1)
    }

    // ---- faults ----------------------------------------------------------

    fn chaos(&mut self) {
        for _ in 0..CHAOS {
            self.step();
            self.disks();
            self.servers();
            self.links();
            self.clients();
        }
    }

    fn disks(&mut self) {
        for raw in (1..=self.size).filter(|_| self.disk > 0) {
            let waiting = !self.cluster.nodes[&n(raw)].writes.is_empty();
            if waiting && self.random.between(0, self.disk) == 0 {
                self.cluster.complete(raw);
            }
        }
    }

    fn servers(&mut self) {
        if self.chance(self.crashes) {
            let raw = self.any();
            self.crash_or_restart(raw);
        }
        if self.chance(self.pauses) {
            let (raw, span) = (self.any(), self.random.between(1, 3 * E));
            self.cluster.node_mut(raw).paused_until = self.cluster.now + span;
        }
        if self.chance(self.step_downs) {
            let raw = self.any();
            if self.cluster.is_up(raw) {
                self.cluster.step_down(raw);
            }
        }
    }

    fn crash_or_restart(&mut self, raw: u64) {
        if !self.cluster.is_up(raw) {
            self.cluster.restart(raw);
            self.cluster.node_mut(raw).hold_writes = self.disk > 0;
            self.machines.insert(raw, Machine::default());
            return;
        }
        // Any number of the writes under way may have reached the disk, in their order.
        let under_way = self.cluster.nodes[&n(raw)].writes.len() as u64;
        let landed = self.random.between(0, under_way + 1);
        self.cluster.crash_after(raw, landed as usize);
        for waiting in &mut self.waiting {
            // Its clients lose their connection, and with it the answer.
            waiting.take_if(|w| w.server == raw);
        }
    }

    fn links(&mut self) {
        if self.chance(60) {
            self.cluster.network.heal();
        }
        if self.chance(self.cuts) {
            let (a, b) = (self.any(), self.any());
            match self.random.between(0, 3) {
                0 => self.cluster.network.cut(n(a), n(b)),
                1 => self.cluster.cut(a, b),
                _ => self.cluster.isolate(a),
            }
        }
    }

    // ---- clients ---------------------------------------------------------

    /// One millisecond; then the servers' machines follow their logs, and clients get answers.
    fn step(&mut self) {
        self.cluster.step();
        for raw in 1..=self.size {
            let applied = &self.cluster.nodes[&n(raw)].applied;
            let known = self.machines[&raw].applied;
            let fresh: Vec<Entry> = applied.get(known..).unwrap_or(&[]).to_vec();
            for entry in fresh {
                self.apply(raw, &entry);
            }
        }
        let now = self.cluster.now;
        for waiting in &mut self.waiting {
            waiting.take_if(|w| now - w.since > self.patience);
        }
    }

    fn apply(&mut self, raw: u64, entry: &Entry) {
        let machine = self.machines.entry(raw).or_default();
        machine.applied += 1;
        let reply = match &entry.payload {
            Payload::Host(data) => {
                let operation = &self.history[decode(data)];
                let object = machine.objects.entry(operation.key).or_default();
                let (after, reply) = operation.call.apply(object);
                *object = after;
                Some(reply)
            }
            _ => None,
        };
        self.answer(raw, entry, reply);
    }

    /// Tells the client that waits for this place on this server, if there is one.
    fn answer(&mut self, raw: u64, entry: &Entry, reply: Option<Reply>) {
        let now = self.cluster.now;
        for waiting in &mut self.waiting {
            let here = |w: &mut Waiting| w.server == raw && w.place.1 == entry.index;
            let Some(waiting) = waiting.take_if(here) else {
                continue;
            };
            if waiting.place.0 == entry.term {
                let reply = reply.clone().expect("the client's entry is the host's");
                self.history[waiting.operation].outcome = Some((now, reply));
            } else {
                // Another entry was committed in its place: it never was and never will be.
                self.void.push(waiting.operation);
            }
        }
    }

    fn clients(&mut self) {
        for client in 0..CLIENTS {
            if self.waiting[client].is_none() && self.random.between(0, 10) == 0 {
                let call = self.draw_call();
                self.invoke(client, call);
            }
        }
    }

    fn draw_call(&mut self) -> (u64, Call) {
        let key = self.random.between(0, KEYS);
        let fresh = self.history.len() as u64;
        let write = self.random.between(0, 2) == 0;
        let call = match (write, key % 2) {
            (false, _) => Call::Read,
            (true, 0) => Call::Append(fresh),
            (true, _) if self.random.between(0, 2) == 0 => Call::Write(vec![fresh]),
            (true, _) => Call::CompareAndSet {
                expected: self.guess(key),
                new: vec![fresh],
            },
        };
        (key, call)
    }

    /// What some server holds: often what a compare-and-set must expect to succeed.
    fn guess(&mut self, key: u64) -> Value {
        let raw = self.any();
        let held = self.machines[&raw].objects.get(&key);
        held.cloned().unwrap_or_default()
    }

    /// Gives a call to a server; whoever believes to lead takes it, and there may be several.
    fn invoke(&mut self, client: usize, (key, call): (u64, Call)) -> bool {
        let raw = self.any();
        if !self.cluster.is_up(raw) {
            return false;
        }
        let now = self.cluster.now;
        let operation = self.history.len();
        if self.reads == Reads::Local && call == Call::Read {
            let held = self.machines[&raw].objects.get(&key);
            let found = Reply::Found(held.cloned().unwrap_or_default());
            self.record(key, call, Some((now, found)));
            return true;
        }
        let Ok(place) = self.cluster.propose(raw, &encode(operation)) else {
            return false;
        };
        self.record(key, call, None);
        self.waiting[client] = Some(Waiting {
            operation,
            server: raw,
            place,
            since: now,
        });
        true
    }

    fn record(&mut self, key: u64, call: Call, outcome: Option<(Millis, Reply)>) {
        self.history.push(Operation {
            key,
            call,
            invoked: self.cluster.now,
            outcome,
        });
    }

    // ---- the end ---------------------------------------------------------

    /// All faults end, and every object is read once more.
    fn calm(&mut self) {
        self.cluster.network.heal();
        self.cluster.network.set_faults(None);
        for raw in 1..=self.size {
            self.cluster.node_mut(raw).paused_until = 0;
            if !self.cluster.is_up(raw) {
                self.crash_or_restart(raw);
            }
            self.cluster.complete_all(raw);
        }
        for _ in 0..2 * PATIENCE {
            self.step();
        }
        assert!(
            self.waiting.iter().all(Option::is_none),
            "nobody waits for ever"
        );
        for key in 0..KEYS {
            let before = self.history.len();
            for _ in 0..200 {
                // Some server leads, and takes it sooner or later.
                if self.invoke(0, (key, Call::Read)) {
                    break;
                }
            }
            for _ in 0..PATIENCE {
                self.step();
            }
            let read = self.history.get(before);
            let answered = read.is_some_and(|o| o.outcome.is_some());
            assert!(answered, "the last read of object {key} is not answered");
        }
    }

    /// What clients saw, without what they know to have had no effect.
    fn seen(&self) -> Vec<Operation> {
        let all = self.history.iter().enumerate();
        let counts = all.filter(|(i, _)| !self.void.contains(i));
        counts.map(|(_, operation)| operation.clone()).collect()
    }
}

fn encode(operation: usize) -> String {
    operation.to_string()
}

fn decode(data: &[u8]) -> usize {
    let text = std::str::from_utf8(data).expect("entries are numbers");
    text.parse().expect("entries are numbers")
}

/// What happened in some runs.
#[derive(Debug, Default)]
struct Tally {
    operations: usize,
    unknown: usize,
    void: usize,
    violations: u64,
}

fn simulate(seed: u64, reads: Reads, tally: &mut Tally) -> Verdict {
    let mut run = Run::new(seed, reads);
    run.chaos();
    run.calm();
    let seen = run.seen();
    tally.operations += seen.len();
    tally.unknown += seen.iter().filter(|o| o.outcome.is_none()).count();
    tally.void += run.void.len();
    check(&seen, BUDGET)
}

#[test]
fn what_clients_see_is_linearizable() {
    let count = number("RAFTKEEL_SEEDS").unwrap_or(SEEDS);
    let mut tally = Tally::default();
    for seed in seeds(count) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let verdict = simulate(seed, Reads::Logged, &mut tally);
            assert_eq!(Verdict::Linearizable, verdict);
        }));
        if let Err(panic) = result {
            eprintln!("failed: RAFTKEEL_SEED={seed} replays it");
            resume_unwind(panic);
        }
    }
    println!("{count} runs: {tally:?}");
    if number("RAFTKEEL_SEED").is_none() {
        let runs = count as usize;
        assert!(tally.operations > 50 * runs, "hardly anything was done");
        assert!(tally.unknown > runs, "hardly any outcome is unknown");
        assert!(tally.void > runs / 100, "hardly anything was overwritten");
    }
}

/// The same runs with servers that answer reads from what they hold, which Raft does not allow.
#[test]
fn reads_that_skip_the_log_are_caught() {
    let mut tally = Tally::default();
    for seed in 0..20 {
        let verdict = simulate(seed, Reads::Local, &mut tally);
        tally.violations += u64::from(matches!(verdict, Verdict::Violation { .. }));
    }
    println!("20 runs with reads that skip the log: {tally:?}");
    assert!(tally.violations >= 10, "stale reads were not seen");
}
