//! A cluster of detectors on a bad network, with injected time: as much Raft around them as
//! decides who leads, whether a majority confirms it, and what is committed.
//!
//! Every step checks what must never happen: an exclusion that no majority's true silence
//! justifies, an exclusion by a deposed or unconfirmed leader, and a node that may still serve
//! when its exclusion is proposed (detection.md 4.7, I1).

use std::collections::BTreeMap;

use raftkeel::core::{Configuration, Millis, NodeId, Term};
use raftkeel::detector::{
    Detector, Envelope, GuardAnswer, Keepalive, LeaderView, NodeState, Outcast, Output, Timers,
};

pub const ELECTION: Millis = 2000;
pub const DEADTIME: Millis = 30_000;
const HEARTBEAT: Millis = 200;
const STEP: Millis = 10;
const LOST: u32 = 1000;

/// detection.md 4.2 at deadtime 30 s.
pub fn timers() -> Timers {
    Timers {
        keepalive: 1000,
        warntime: 15_000,
        deadtime: DEADTIME,
        initdead: 120_000,
        settle: 3000,
        fencetime: DEADTIME - ELECTION - 2000,
        election: ELECTION,
        min_nodes: 0,
    }
}

pub fn id(i: usize) -> NodeId {
    NodeId::new(i as u64 + 1).expect("never 0")
}

fn at(node: NodeId) -> usize {
    node.get() as usize - 1
}

/// The seed of a test, printed; `RAFTKEEL_SEED` replays one.
pub fn seed(default: u64) -> u64 {
    let given = std::env::var("RAFTKEEL_SEED").ok();
    let seed = given.and_then(|s| s.parse().ok()).unwrap_or(default);
    println!("RAFTKEEL_SEED={seed}");
    seed
}

/// xorshift64*
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub to: usize,
    pub envelope: Envelope,
    pub keepalive: Option<Keepalive>,
    pub heartbeat: bool,
    pub term: Term,
    pub epoch: u64,
}

pub struct Node {
    pub detector: Detector,
    pub running: bool,
    pub paused_until: Millis,
    pub incarnation: u64,
    /// Its clock is the simulation's plus this.
    pub offset: Millis,
    pub fenced: bool,
    pub epoch: u64,
    inbox: Vec<Packet>,
    next: Millis,
    term: Term,
    leading_since: Option<Millis>,
    /// A voter of its had heard a leader within the election timeout.
    early: bool,
    leader_heard: Millis,
    /// It does not know the leader that it has heard: its connection is said to be lost, or it has
    /// started since.
    lost: bool,
    acked: Vec<Millis>,
    heartbeat_at: Millis,
    retry: bool,
}

/// Something a test may want to look at afterwards.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Excluded { by: usize, ids: Vec<NodeId> },
    Late { by: usize, who: NodeId },
    Suspected { by: usize, who: NodeId },
    Fenced { who: usize, fenced: bool },
    Told { by: usize, who: NodeId },
    Paused { who: usize },
}

pub struct Sim {
    pub now: Millis,
    pub rng: Rng,
    pub nodes: Vec<Node>,
    /// Lost packets per thousand, from and to.
    pub loss: Vec<Vec<u32>>,
    pub delay_max: Millis,
    pub duplicates: u32,
    pub timers: Timers,
    pub log: Vec<(Millis, Event)>,
    pub sent: u64,
    /// A leader by early votes is taken for any other: what must not be.
    pub hasty: bool,
    /// What would break I1 is not asserted, for the test looks itself.
    pub unsafely: bool,
    /// What the host answers to the guard.
    pub answer: GuardAnswer,
    /// Every packet delivered, if wanted.
    pub recording: Option<Vec<Packet>>,
    configs: Vec<(Configuration, Vec<NodeId>)>,
    wire: BTreeMap<(Millis, u64), Packet>,
    /// When the newest packet of `[who]` that reached `[by]` was sent, on the simulation's clock.
    heard: Vec<Vec<Millis>>,
    /// When a silence of deadtime between them ended last.
    broken: Vec<Vec<Millis>>,
    top_term: Term,
}

impl Sim {
    pub fn new(n: usize, seed: u64, timers: Timers) -> Sim {
        let mut rng = Rng::new(seed);
        let config = Configuration {
            epoch: 1,
            voters: (0..n).map(id).collect(),
            ..Configuration::default()
        };
        let nodes = (0..n).map(|_| Node {
            detector: Detector::new(id(0), 1, 0, timers),
            running: false,
            paused_until: 0,
            incarnation: 0,
            offset: 1 + rng.below(1_000_000_000),
            fenced: true,
            epoch: 0,
            inbox: Vec::new(),
            next: 0,
            term: 0,
            leading_since: None,
            early: false,
            leader_heard: 0,
            lost: false,
            acked: vec![0; n],
            heartbeat_at: 0,
            retry: false,
        });
        let mut sim = Sim {
            now: 10_000,
            nodes: nodes.collect(),
            rng,
            loss: vec![vec![0; n]; n],
            delay_max: 5,
            duplicates: 0,
            timers,
            log: Vec::new(),
            sent: 0,
            hasty: false,
            unsafely: false,
            answer: GuardAnswer::Allow,
            recording: None,
            configs: vec![(config, Vec::new())],
            wire: BTreeMap::new(),
            heard: vec![vec![0; n]; n],
            broken: vec![vec![0; n]; n],
            top_term: 0,
        };
        for i in 0..n {
            sim.start(i);
        }
        sim
    }

    pub fn start(&mut self, i: usize) {
        let epoch = self.nodes[i].epoch.max(1);
        let node = &mut self.nodes[i];
        node.incarnation += 1;
        node.detector = Detector::new(
            id(i),
            node.incarnation,
            self.rng.below(1 << 30),
            self.timers,
        );
        node.running = true;
        node.fenced = true;
        node.next = 0;
        node.leading_since = None;
        (node.leader_heard, node.lost) = (self.now, true);
        node.inbox.clear();
        node.detector.advance(self.now + node.offset);
        self.adopt(i, epoch);
    }

    pub fn crash(&mut self, i: usize) {
        self.nodes[i].running = false;
        self.nodes[i].leading_since = None;
    }

    /// A node is told that it has lost its connection to the leader, rightly or not.
    pub fn lose_leader(&mut self, i: usize) {
        self.nodes[i].lost = true;
    }

    pub fn pause(&mut self, i: usize, span: Millis) {
        self.nodes[i].paused_until = self.now + span;
    }

    /// Cuts or heals the way from `a` to `b`.
    pub fn cut(&mut self, a: usize, b: usize, cut: bool) {
        self.loss[a][b] = if cut { LOST } else { 0 };
    }

    pub fn cut_both(&mut self, a: usize, b: usize, cut: bool) {
        self.cut(a, b, cut);
        self.cut(b, a, cut);
    }

    pub fn lose_everywhere(&mut self, permille: u32) {
        self.loss.iter_mut().flatten().for_each(|l| *l = permille);
    }

    pub fn run(&mut self, span: Millis) {
        let end = self.now + span;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `what` is so; panics after `limit`.
    pub fn run_until(&mut self, limit: Millis, mut what: impl FnMut(&Sim) -> bool) {
        let end = self.now + limit;
        while !what(self) {
            assert!(self.now < end, "not within {limit} ms; log: {:?}", self.log);
            self.step();
        }
    }

    /// Runs until a leader is confirmed and everybody that runs has been heard.
    pub fn settle_in(&mut self) -> usize {
        self.run_until(20_000, |sim| sim.leader().is_some());
        self.run(5000);
        self.leader().expect("a quiet cluster keeps its leader")
    }

    /// The confirmed leader.
    pub fn leader(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|&i| self.nodes[i].running && self.view(i).fresh)
    }

    pub fn excluded(&self) -> Vec<(Millis, Vec<NodeId>)> {
        let picked = self.log.iter().filter_map(|(t, event)| match event {
            Event::Excluded { ids, .. } => Some((*t, ids.clone())),
            _ => None,
        });
        picked.collect()
    }

    pub fn suspected(&self, who: usize) -> bool {
        let is = |e: &Event| matches!(e, Event::Suspected { who: w, .. } if *w == id(who));
        self.log.iter().any(|(_, event)| is(event))
    }

    pub fn anybody_suspected(&self) -> bool {
        (0..self.nodes.len()).any(|i| self.suspected(i))
    }

    pub fn fenced_at(&self, who: usize) -> Option<Millis> {
        let is = |e: &Event| *e == Event::Fenced { who, fenced: true };
        self.log.iter().rev().find(|(_, e)| is(e)).map(|(t, _)| *t)
    }

    pub fn node(&self, by: usize, who: usize) -> raftkeel::detector::Assessment {
        self.nodes[by].detector.node(id(who)).expect("a member")
    }

    /// Takes an excluded node back, everywhere at once.
    pub fn readmit(&mut self, who: usize) {
        let (mut config, mut excluded) = self.configs.last().expect("never empty").clone();
        excluded.retain(|&x| x != id(who));
        config.epoch += 1;
        config.voters.push(id(who));
        config.voters.sort_unstable();
        self.configs.push((config, excluded));
        let epoch = self.configs.len() as u64;
        for i in (0..self.nodes.len())
            .filter(|&i| self.nodes[i].running)
            .collect::<Vec<_>>()
        {
            self.adopt(i, epoch);
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let packet = entry.remove();
            let to = &self.nodes[packet.to];
            // What arrives at a stopped process overflows its socket's buffer.
            if to.running && to.paused_until <= self.now {
                self.recording
                    .iter_mut()
                    .for_each(|r| r.push(packet.clone()));
                self.nodes[packet.to].inbox.push(packet);
            }
        }
        for i in 0..self.nodes.len() {
            let node = &self.nodes[i];
            let due = self.now + node.offset >= node.next || !node.inbox.is_empty();
            if node.running && node.paused_until <= self.now && due {
                self.drive(i);
            }
        }
        if self.now.is_multiple_of(500) {
            self.elect();
        }
    }

    /// One driving call, in the order that the engine keeps.
    pub fn drive(&mut self, i: usize) {
        let local = self.now + self.nodes[i].offset;
        self.nodes[i].detector.advance(local);
        for packet in std::mem::take(&mut self.nodes[i].inbox) {
            self.receive(i, local, packet);
        }
        if std::mem::take(&mut self.nodes[i].retry) {
            self.nodes[i].detector.proposal_failed();
        }
        let view = self.view(i);
        self.nodes[i].detector.evaluate(local, view);
        for output in self.nodes[i].detector.take_outputs() {
            self.carry_out(i, output);
        }
        let mut due = Vec::new();
        self.nodes[i].detector.take_due(local, &mut due);
        for (to, keepalive) in due {
            self.send(i, to, Some(keepalive), false);
        }
        if view.leading && self.now >= self.nodes[i].heartbeat_at {
            self.nodes[i].heartbeat_at = self.now + HEARTBEAT;
            for peer in (0..self.nodes.len()).filter(|&peer| peer != i) {
                let rider = self.nodes[i].detector.ride_along(id(peer), local);
                self.send(i, id(peer), rider, true);
            }
        }
        self.nodes[i].next = self.nodes[i].detector.next_deadline();
        assert!(self.nodes[i].next > local, "a detector must not spin");
    }

    pub fn receive(&mut self, i: usize, local: Millis, packet: Packet) {
        let from = at(packet.envelope.from);
        let known = self.configs[self.nodes[i].epoch as usize - 1].1.clone();
        if packet.envelope.incarnation == self.nodes[from].incarnation {
            let sent = packet.envelope.stamp - self.nodes[from].offset;
            if self.heard[from][i] + self.timers.deadtime <= self.now {
                self.broken[from][i] = self.now;
            }
            self.heard[from][i] = self.heard[from][i].max(sent);
        }
        let node = &mut self.nodes[i];
        node.detector.heard(local, &packet.envelope);
        if let Some(keepalive) = packet.keepalive {
            node.detector.keepalive(local, &packet.envelope, keepalive);
        }
        if known.contains(&id(from)) {
            return;
        }
        if packet.term > node.term {
            node.term = packet.term;
            node.leading_since = None;
        }
        if packet.heartbeat && packet.term == node.term {
            (node.leader_heard, node.lost) = (self.now, false);
            if packet.epoch > node.epoch {
                self.adopt(i, packet.epoch);
            }
            self.send(i, id(from), None, false);
        } else if packet.term == node.term && packet.envelope.echo_incarnation == node.incarnation {
            node.acked[from] = node.acked[from].max(packet.envelope.echo);
        }
    }

    fn view(&self, i: usize) -> LeaderView {
        let node = &self.nodes[i];
        let Some(since) = node.leading_since else {
            return LeaderView::default();
        };
        let early = node.early && !self.hasty;
        let local = self.now + node.offset;
        let voters = &self.configs[node.epoch as usize - 1].0.voters;
        let newer = |v: &&NodeId| {
            **v == id(i) || node.acked[at(**v)] >= since.max(local.saturating_sub(ELECTION))
        };
        LeaderView {
            leading: true,
            fresh: voters.iter().filter(newer).count() > voters.len() / 2,
            since: since + if early { ELECTION } else { 0 },
            change_in_flight: false,
        }
    }

    fn carry_out(&mut self, i: usize, output: Output) {
        let event = match output {
            Output::NodeChange {
                id,
                state: NodeState::Suspect,
                ..
            } => Event::Suspected { by: i, who: id },
            Output::NodeChange {
                id,
                state: NodeState::Late,
                ..
            } => Event::Late { by: i, who: id },
            Output::NodeChange { .. } => return,
            Output::Fence { fenced, .. } => {
                self.nodes[i].fenced = fenced;
                Event::Fenced { who: i, fenced }
            }
            Output::AskGuard { cut } => {
                let answer = self.answer.clone();
                self.nodes[i].detector.guard_answer(&cut, answer);
                return;
            }
            Output::Exclude { ids, silent } => {
                assert_eq!(ids.len(), silent.len());
                assert!(
                    silent
                        .iter()
                        .all(|&ms| u64::from(ms) >= self.timers.deadtime),
                    "{silent:?}"
                );
                self.commit(i, &ids);
                Event::Excluded { by: i, ids }
            }
            Output::Tell(who) => Event::Told { by: i, who },
            Output::Paused(_) => Event::Paused { who: i },
        };
        self.log.push((self.now, event));
    }

    /// Checks an exclusion that a leader proposes, and commits it if a majority follows.
    fn commit(&mut self, leader: usize, ids: &[NodeId]) {
        let (config, excluded) = self.configs.last().expect("never empty").clone();
        assert!(
            self.view(leader).fresh,
            "an unconfirmed leader proposes {ids:?}"
        );
        for &x in ids {
            let running = self.nodes[at(x)].running && self.nodes[at(x)].paused_until <= self.now;
            assert!(
                !running || self.nodes[at(x)].fenced || self.unsafely,
                "{x} may still serve at {} (I1); log: {:?}",
                self.now,
                self.log
            );
            // A witness may have heard it again since its last report, which is at most six
            // keepalives old.
            let silent = |v: &&NodeId| {
                self.heard[at(x)][at(**v)] + self.timers.deadtime <= self.now
                    || self.broken[at(x)][at(**v)] + 6000 >= self.now
            };
            let silent = config
                .voters
                .iter()
                .filter(|v| **v != x)
                .filter(silent)
                .count();
            assert!(silent > config.voters.len() / 2, "{x} is heard by too many");
        }
        let node = &self.nodes[leader];
        if node.epoch != config.epoch || node.term != self.top_term {
            self.nodes[leader].retry = true;
            return;
        }
        let mut next = config.clone();
        next.epoch += 1;
        next.voters.retain(|v| !ids.contains(v));
        assert!(
            next.voters.len() > config.voters.len() / 2,
            "a minority remains"
        );
        let gone = excluded.iter().chain(ids).copied().collect();
        self.configs.push((next, gone));
        let epoch = self.configs.len() as u64;
        self.adopt(leader, epoch);
    }

    fn adopt(&mut self, i: usize, epoch: u64) {
        let (config, excluded) = &self.configs[epoch as usize - 1];
        let provisioned = (config.voters.len() + excluded.len()) as u32;
        let node = &mut self.nodes[i];
        node.epoch = epoch;
        node.detector.set_members(config, excluded, provisioned);
        let out = excluded.contains(&id(i)).then_some(Outcast::Excluded);
        node.detector.set_outcast(out);
    }

    fn send(&mut self, from: usize, to: NodeId, keepalive: Option<Keepalive>, heartbeat: bool) {
        let fresh = self.view(from).fresh;
        let node = &self.nodes[from];
        let (echo, echo_incarnation) = node.detector.echo_for(to);
        let packet = Packet {
            to: at(to),
            envelope: Envelope {
                from: id(from),
                incarnation: node.incarnation,
                stamp: self.now + node.offset,
                echo,
                echo_incarnation,
                leader_term: if fresh { node.term } else { 0 },
            },
            keepalive,
            heartbeat,
            term: node.term,
            epoch: node.epoch,
        };
        let copies = 1 + u32::from(self.rng.below(1000) < u64::from(self.duplicates));
        for _ in 0..copies {
            self.sent += 1;
            if self.rng.below(1000) < u64::from(self.loss[from][at(to)]) {
                continue;
            }
            let arrival = self.now + 1 + self.rng.below(self.delay_max.max(1));
            self.wire.insert((arrival, self.sent), packet.clone());
        }
    }

    /// An election: somebody whom a majority neither hears a leader from nor outruns.
    fn elect(&mut self) {
        let n = self.nodes.len();
        let first = self.rng.below(n as u64) as usize;
        for candidate in (0..n).map(|k| (first + k) % n) {
            let node = &self.nodes[candidate];
            let (config, _) = &self.configs[node.epoch as usize - 1];
            let awake = |i: usize| {
                let x = &self.nodes[i];
                x.running && x.paused_until <= self.now
            };
            let leaderless = |i: usize| {
                let x = &self.nodes[i];
                x.leading_since.is_none() && (x.lost || x.leader_heard + ELECTION <= self.now)
            };
            if !awake(candidate)
                || !leaderless(candidate)
                || !config.voters.contains(&id(candidate))
            {
                continue;
            }
            let votes = config.voters.iter().map(|&v| at(v)).filter(|&v| {
                let linked = self.loss[candidate][v] < LOST && self.loss[v][candidate] < LOST;
                let behind = self.nodes[v].epoch <= node.epoch;
                v == candidate || awake(v) && leaderless(v) && linked && behind
            });
            let votes: Vec<usize> = votes.collect();
            if votes.len() <= config.voters.len() / 2 {
                continue;
            }
            let late = |v: &usize| self.nodes[*v].leader_heard + ELECTION <= self.now;
            self.nodes[candidate].early = !votes.iter().all(late);
            self.top_term += 1;
            for v in votes {
                self.nodes[v].term = self.top_term;
                (self.nodes[v].leader_heard, self.nodes[v].lost) = (self.now, false);
            }
            self.nodes[candidate].leading_since = Some(self.now + self.nodes[candidate].offset);
            return;
        }
        self.resign();
    }

    /// Check-quorum: a leader that no majority answers steps down.
    fn resign(&mut self) {
        for i in 0..self.nodes.len() {
            let view = self.view(i);
            let local = self.now + self.nodes[i].offset;
            if view.leading && !view.fresh && local > view.since + 2 * ELECTION {
                self.nodes[i].leading_since = None;
            }
        }
    }
}
