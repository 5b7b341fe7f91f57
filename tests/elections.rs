//! How elections go when a leader dies: how long nobody leads, and how often votes are split. Cores
//! alone, with links and disks that take some time; the moment of death and all times are drawn.
//!
//! ELECTIONS=10000 asks for so many of each kind; what came of them is printed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use raftkeel::cluster::{Params, Peer, bootstrap_entry};
use raftkeel::core::{Message, Millis, NodeId, Options, Persist, Raft, Random, Restored};

/// Microseconds.
type Micros = u64;

/// How fast everything is.
#[derive(Clone, Copy, Debug)]
struct Nature {
    nodes: u64,
    election: Millis,
    heartbeat: Millis,
    /// Of a message, at most; at least half of that.
    link: Micros,
    /// Of a write of the log, at most; META takes two. At least half of that.
    sync: Micros,
}

enum Due {
    Message(NodeId, Message),
    Written(Persist),
    Time,
}

struct Event {
    at: Micros,
    number: u64,
    node: u64,
    due: Due,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.number == other.number
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Event) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct World {
    nature: Nature,
    random: Random,
    now: Micros,
    nodes: BTreeMap<u64, Raft>,
    /// When the disk of a node is free again, and when its clock is looked at next.
    disks: BTreeMap<u64, Micros>,
    timers: BTreeMap<u64, Micros>,
    events: BinaryHeap<Reverse<Event>>,
    number: u64,
}

/// What came of the death of a leader.
struct Outcome {
    until_commit: Micros,
    terms: u64,
}

impl World {
    fn new(nature: Nature, seed: u64) -> World {
        let mut world = World {
            nature,
            random: Random::new(seed),
            now: 1_000_000,
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            timers: BTreeMap::new(),
            events: BinaryHeap::new(),
            number: 0,
        };
        let peer = |raw| Peer {
            id: id(raw),
            address: String::new(),
            meta: [][..].into(),
        };
        let peers: Vec<Peer> = (1..=nature.nodes).map(peer).collect();
        let first = bootstrap_entry(&peers, &Params::default()).unwrap();
        for raw in 1..=nature.nodes {
            let options = Options {
                heartbeat: nature.heartbeat,
                election: nature.election,
                seed: world.random.next_u64(),
                ..Options::new(id(raw))
            };
            let mut raft = Raft::new(options, Restored::default(), 0);
            assert!(raft.bootstrap(first.clone()));
            raft.start(world.millis());
            world.nodes.insert(raw, raft);
            world.take(raw);
        }
        world
    }

    fn millis(&self) -> Millis {
        self.now / 1000
    }

    fn plan(&mut self, at: Micros, node: u64, due: Due) {
        self.number += 1;
        let number = self.number;
        self.events.push(Reverse(Event {
            at,
            number,
            node,
            due,
        }));
    }

    fn half_to(&mut self, most: Micros) -> Micros {
        self.random.between(most / 2, most + 1)
    }

    /// Takes all that a node wants.
    fn take(&mut self, raw: u64) {
        let raft = self.nodes.get_mut(&raw).unwrap();
        let persist = raft.take_persist();
        let messages: Vec<(NodeId, Message)> = raft.take_messages().collect();
        while !raft.take_committed(usize::MAX).is_empty() {}
        for (to, message) in messages {
            let takes = self.half_to(self.nature.link);
            self.plan(self.now + takes, to.get(), Due::Message(id(raw), message));
        }
        if let Some(persist) = persist {
            let syncs =
                2 * u64::from(persist.hard.is_some()) + u64::from(!persist.entries.is_empty());
            let takes = (0..syncs)
                .map(|_| self.half_to(self.nature.sync))
                .sum::<u64>();
            let free = self.disks.get(&raw).copied().unwrap_or(0).max(self.now);
            self.disks.insert(raw, free + takes);
            self.plan(free + takes, raw, Due::Written(persist));
        }
        let due = self.nodes[&raw].next_deadline().saturating_mul(1000);
        let due = due.max(self.now);
        if self.timers.get(&raw).is_none_or(|at| due < *at) {
            self.timers.insert(raw, due);
            self.plan(due, raw, Due::Time);
        }
    }

    fn step(&mut self) {
        let Reverse(event) = self.events.pop().expect("something is always due");
        self.now = event.at;
        let now = self.millis();
        let timed = matches!(event.due, Due::Time);
        if timed && self.timers.get(&event.node) == Some(&event.at) {
            self.timers.remove(&event.node);
        }
        let Some(raft) = self.nodes.get_mut(&event.node) else {
            return;
        };
        match event.due {
            Due::Message(from, message) => raft.receive(now, from, message),
            Due::Written(persist) => raft.persisted(persist.token, true),
            Due::Time => {}
        }
        raft.tick(now);
        self.take(event.node);
    }

    /// Runs until there is a leader that has committed in its term; which one.
    fn lead(&mut self) -> u64 {
        loop {
            let mut nodes = self.nodes.iter();
            let leads = nodes.find(|(_, raft)| raft.is_leader() && raft.has_committed_in_term());
            if let Some((raw, _)) = leads {
                return *raw;
            }
            self.step();
        }
    }

    fn run_until(&mut self, end: Micros) {
        while self.events.peek().is_some_and(|event| event.0.at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Kills the leader at some moment.
    fn kill_leader(mut self) -> Outcome {
        let leader = self.lead();
        let beat = self.nature.heartbeat * 1000;
        let moment = self.now + 3 * beat + self.random.between(0, beat);
        self.run_until(moment);
        let term = self.nodes[&leader].term();
        self.nodes.remove(&leader);
        let next = self.lead();
        Outcome {
            until_commit: self.now - moment,
            terms: self.nodes[&next].term() - term,
        }
    }
}

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

fn part(sorted: &[Micros], thousandth: usize) -> f64 {
    sorted[(sorted.len() - 1) * thousandth / 1000] as f64 / 1000.0
}

/// Of a thousand elections, how many took more than one term.
fn measure(nature: Nature, count: u64) -> u64 {
    let outcomes: Vec<Outcome> = (0..count)
        .map(|seed| World::new(nature, seed).kill_leader())
        .collect();
    let split = outcomes.iter().filter(|o| o.terms > 1).count() as u64;
    let mut times: Vec<Micros> = outcomes.iter().map(|o| o.until_commit).collect();
    times.sort_unstable();
    println!(
        "{nature:?}: {split} of {count} split; ms to the next commit: median {:.1}, p90 {:.1}, p99 \
         {:.1}, most {:.1}",
        part(&times, 500),
        part(&times, 900),
        part(&times, 990),
        part(&times, 1000),
    );
    split * 1000 / count
}

#[test]
fn votes_are_rarely_split() {
    let count = std::env::var("ELECTIONS").map_or(300, |count| count.parse().unwrap());
    for nodes in [3, 5] {
        for (election, heartbeat) in [(1000, 100), (150, 15)] {
            for (link, sync) in [(200, 400), (1000, 5000)] {
                let nature = Nature {
                    nodes,
                    election,
                    heartbeat,
                    link,
                    sync,
                };
                let split = measure(nature, count);
                assert!(split <= 50, "{split} of 1000 elections are split");
            }
        }
    }
}
