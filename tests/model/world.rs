//! All of a small cluster at one instant: servers, disks, messages on their way, and what must be
//! remembered of the past. Worlds are copied at every step, so they share what does not change.
//!
//! Time is taken out. A server that does not lead sees each input long after the one before, so
//! that it is never bound to a leader it once heard, and its election timer always has run out when
//! it is asked; a leader's clock stands still between its heartbeats. The least that time forbids
//! in a real cluster is allowed here.

use std::collections::VecDeque;
use std::sync::Arc;

use raftkeel::core::{
    Bytes, Configuration, Entry, HardState, Index, Message, Millis, NodeId, Options, Payload,
    Persist, Position, Raft, Restored, Term, VoteReply,
};

use crate::checks::{self, Past};
use crate::fingerprint::Words;
use crate::scope::Scope;

/// Far above all that the heartbeats of a search add up to.
const E: Millis = 1 << 30;

/// The node of this number.
pub fn n(raw: u64) -> NodeId {
    NodeId::new(raw).expect("node numbers start at 1")
}

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    pub hard: HardState,
    pub entries: Vec<Entry>,
    /// What it held before it lost the end of it; its claim stands for that.
    pub lost: Vec<Entry>,
}

impl Disk {
    /// An entry on the disk.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get((index as usize).checked_sub(1)?)
    }

    /// Its term.
    pub fn term(&self, index: Index) -> Option<Term> {
        match index {
            0 => Some(0),
            _ => self.get(index).map(|entry| entry.term),
        }
    }

    /// Whether the entry of this term is here, or what is here stands for it.
    pub fn keeps(&self, index: Index, term: Term) -> bool {
        let lost = self.lost.iter().any(|e| (e.index, e.term) == (index, term));
        lost || self.term(index) == Some(term)
    }

    /// Loses what is behind `kept`, which whoever opens it notices.
    fn rot(&mut self, kept: usize) {
        let last = self.entries.last().map(|last| Position {
            index: last.index,
            term: last.term,
        });
        if self
            .hard
            .claim
            .is_none_or(|claim| last.is_some_and(|last| last.reaches(claim)))
        {
            self.hard.claim = last;
            self.lost.clone_from(&self.entries);
        }
        self.entries.truncate(kept);
        self.hard.commit = self.hard.commit.min(kept as Index);
    }

    fn write(&mut self, write: &Persist) {
        checks::written(self, write);
        if let Some(hard) = write.hard {
            self.hard = hard;
            if hard.claim.is_none() {
                self.lost.clear();
            }
        }
        if let Some(first) = write.entries.first() {
            self.entries.truncate(first.index as usize - 1);
            self.entries.extend(write.entries.iter().cloned());
        }
    }
}

/// One server.
#[derive(Clone)]
pub struct Node {
    pub raft: Raft,
    pub disk: Disk,
    /// Handed out and not completed.
    pub writes: VecDeque<Persist>,
    clock: Millis,
    pub words: Words,
}

/// A message on its way.
pub struct Envelope {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
    pub words: Words,
}

/// How often something has happened that is bounded.
#[derive(Clone, Copy, Default, Hash)]
pub struct Used {
    pub timeouts: u8,
    pub heartbeats: u8,
    pub crashes: u8,
    pub rots: u8,
    pub copies: u8,
    pub proposals: u8,
    pub changes: u8,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// A message arrives.
    Deliver(usize),
    /// A message arrives, and a copy of it stays on its way.
    Copy(usize),
    /// A message is lost.
    Drop(usize),
    /// A server's election timer runs out; a leader has lost touch with its quorum.
    Timeout(usize),
    /// A leader's heartbeat is due.
    Heartbeat(usize),
    /// A server's oldest write completes.
    Complete(usize),
    /// A server stops and starts again; of its writes under way, this many reached the disk.
    Crash(usize, usize),
    /// A server stops, loses what its disk holds behind this index, and starts again.
    Rot(usize, usize),
    /// A leader is given something to replicate.
    Propose(usize),
    /// A leader is given a configuration to enter: one of the scope's.
    Change(usize, usize),
}

/// The cluster.
#[derive(Clone)]
pub struct World {
    pub nodes: Vec<Arc<Node>>,
    pub network: Vec<Arc<Envelope>>,
    pub past: Past,
    pub used: Used,
}

/// No two starts of a server are of the same run.
fn start(id: NodeId, restored: Restored, run: u64) -> Raft {
    let options = Options {
        heartbeat: 1,
        election: E,
        // Disks as slow as can be are searched; what time does with them is not.
        stall: Millis::MAX,
        seed: 1,
        run,
        ..Options::new(id)
    };
    Raft::new(options, restored, 0)
}

impl World {
    /// The servers of a scope, all of which hold the first configuration; nobody leads.
    pub fn new(scope: &Scope) -> World {
        let first = Entry {
            index: 1,
            term: 1,
            payload: Payload::Config(Arc::new(scope.first.clone()), Raft::no_bytes()),
        };
        let disk = Disk {
            hard: HardState {
                term: 1,
                ..HardState::default()
            },
            entries: vec![first],
            lost: Vec::new(),
        };
        let node = |raw| {
            let restored = Restored {
                hard: disk.hard,
                entries: disk.entries.clone(),
                ..Restored::default()
            };
            Arc::new(Node {
                raft: start(n(raw), restored, 0),
                disk: disk.clone(),
                writes: VecDeque::new(),
                clock: 0,
                words: Words::default(),
            })
        };
        let mut world = World {
            nodes: (1..=scope.nodes).map(node).collect(),
            network: Vec::new(),
            past: Past::new(),
            used: Used::default(),
        };
        for i in 0..world.nodes.len() {
            world.input(scope, i, |_, _| ());
        }
        if scope.led {
            world.settle(scope);
        }
        world
    }

    /// The first server wins an election and everybody learns of it.
    fn settle(&mut self, scope: &Scope) {
        self.act(scope, Action::Timeout(0));
        for _ in 0..1_000 {
            let writing = self.nodes.iter().position(|node| !node.writes.is_empty());
            match writing {
                Some(i) => self.act(scope, Action::Complete(i)),
                None if !self.network.is_empty() => self.act(scope, Action::Deliver(0)),
                None if self.nodes.iter().all(|node| node.raft.commit() == 2) => {
                    self.used = Used::default();
                    return;
                }
                None => self.act(scope, Action::Heartbeat(0)),
            }
        }
        panic!("the first server does not get to lead");
    }

    // ---- what may happen -------------------------------------------------

    /// Everything that may happen next within the bounds. A message that never arrives is lost:
    /// losing one is a step of its own only to make room.
    pub fn actions(&self, scope: &Scope) -> Vec<Action> {
        let messages = self.network.len();
        if messages > scope.messages {
            return (0..messages).map(Action::Drop).collect();
        }
        let mut actions = Vec::new();
        for i in 0..messages {
            actions.push(Action::Deliver(i));
            if self.used.copies < scope.copies {
                actions.push(Action::Copy(i));
            }
        }
        for i in 0..self.nodes.len() {
            self.actions_of(scope, i, &mut actions);
        }
        actions
    }

    fn actions_of(&self, scope: &Scope, i: usize, actions: &mut Vec<Action>) {
        let Node { raft, writes, .. } = &*self.nodes[i];
        let (used, leads) = (&self.used, raft.is_leader());
        if !writes.is_empty() {
            actions.push(Action::Complete(i));
        }
        if used.crashes < scope.crashes {
            let landed = 0..=writes.len();
            actions.extend(landed.map(|landed| Action::Crash(i, landed)));
        }
        if used.rots < scope.rots {
            let held = self.nodes[i].disk.entries.len();
            actions.extend((0..held).map(|kept| Action::Rot(i, kept)));
        }
        if used.timeouts < scope.timeouts && (leads || raft.term() < scope.terms) {
            actions.push(Action::Timeout(i));
        }
        if leads && used.heartbeats < scope.heartbeats {
            actions.push(Action::Heartbeat(i));
        }
        let room = raft.log().last_index() < scope.entries;
        if leads && room && used.proposals < scope.proposals {
            actions.push(Action::Propose(i));
        }
        if leads && room && used.changes < scope.changes && !raft.change_in_flight() {
            let epoch = raft.configuration().epoch + 1;
            let fits = |target: &Configuration| {
                let same = target.outgoing == raft.configuration().voters;
                target.epoch == epoch && same
            };
            let fitting = (0..scope.targets.len()).filter(|t| fits(&scope.targets[*t]));
            actions.extend(fitting.map(|target| Action::Change(i, target)));
        }
    }

    // ---- what happens ----------------------------------------------------

    /// Lets something happen, and checks the promises.
    pub fn act(&mut self, scope: &Scope, action: Action) {
        match action {
            Action::Deliver(i) => {
                let envelope = self.network.swap_remove(i);
                self.deliver(scope, &envelope);
            }
            Action::Copy(i) => {
                self.used.copies += 1;
                let envelope = self.network[i].clone();
                self.deliver(scope, &envelope);
            }
            Action::Drop(i) => {
                self.network.swap_remove(i);
            }
            Action::Timeout(i) => self.time_out(scope, i),
            Action::Heartbeat(i) => {
                self.used.heartbeats += 1;
                self.input(scope, i, |raft, _| raft.tick(raft.next_deadline()));
                Arc::make_mut(&mut self.nodes[i]).clock += 1;
            }
            Action::Complete(i) => {
                self.complete(i);
                self.after_input(scope, i);
            }
            Action::Crash(i, landed) => {
                self.used.crashes += 1;
                self.restart(scope, i, landed, None);
            }
            Action::Rot(i, kept) => {
                self.used.rots += 1;
                self.restart(scope, i, 0, Some(kept));
            }
            Action::Propose(i) => {
                self.used.proposals += 1;
                let data: [u8; 1] = [self.used.proposals];
                let payload = Payload::Host(Bytes::from(data));
                self.input(scope, i, |raft, now| {
                    assert!(raft.propose(now, payload).is_ok(), "a leader with room");
                });
            }
            Action::Change(i, target) => {
                self.used.changes += 1;
                let target = scope.targets[target].clone();
                self.input(scope, i, |raft, now| {
                    let result = raft.propose_config(now, target, Raft::no_bytes());
                    assert!(result.is_ok(), "a leader that may change members");
                });
            }
        }
    }

    fn deliver(&mut self, scope: &Scope, envelope: &Envelope) {
        let to = envelope.to.get() as usize - 1;
        let (from, message) = (envelope.from, envelope.message.clone());
        self.input(scope, to, |raft, now| raft.receive(now, from, message));
    }

    fn time_out(&mut self, scope: &Scope, i: usize) {
        self.used.timeouts += 1;
        let node = Arc::make_mut(&mut self.nodes[i]);
        let led = node.raft.is_leader();
        if led {
            node.clock += 2 * E;
        }
        let forged = !scope.pre_votes && !led;
        self.input(scope, i, |raft, now| {
            raft.tick(now);
            if forged {
                grant_pre_votes(raft, now, n(i as u64 + 1));
            }
        });
    }

    fn restart(&mut self, scope: &Scope, i: usize, landed: usize, kept: Option<usize>) {
        let node = Arc::make_mut(&mut self.nodes[i]);
        for write in node.writes.drain(..).take(landed) {
            node.disk.write(&write);
        }
        if let Some(kept) = kept {
            node.disk.rot(kept);
        }
        let restored = Restored {
            hard: node.disk.hard,
            entries: node.disk.entries.clone(),
            ..Restored::default()
        };
        let run = self.used.crashes + self.used.rots;
        node.raft = start(n(i as u64 + 1), restored, u64::from(run));
        node.clock = 0;
        node.writes.clear();
        self.past.restarted(i);
        self.after_input(scope, i);
    }

    fn complete(&mut self, i: usize) {
        let node = Arc::make_mut(&mut self.nodes[i]);
        let write = node.writes.pop_front().expect("a write is under way");
        node.disk.write(&write);
        node.raft.persisted(write.token, true);
    }

    /// Calls into a server at a time that its role allows, and takes what it wants.
    fn input(&mut self, scope: &Scope, i: usize, call: impl FnOnce(&mut Raft, Millis)) {
        let node = Arc::make_mut(&mut self.nodes[i]);
        if !node.raft.is_leader() {
            node.clock = node.clock.max(node.raft.next_deadline()) + E;
        }
        call(&mut node.raft, node.clock);
        self.after_input(scope, i);
    }

    fn after_input(&mut self, scope: &Scope, i: usize) {
        checks::stepped(self, i);
        loop {
            self.take_outputs(scope, i);
            if scope.slow_disks || self.nodes[i].writes.is_empty() {
                break;
            }
            self.complete(i);
            checks::stepped(self, i);
        }
        let node = Arc::make_mut(&mut self.nodes[i]);
        node.words = Words::of_node(node);
    }

    fn take_outputs(&mut self, scope: &Scope, i: usize) {
        let node = Arc::make_mut(&mut self.nodes[i]);
        node.writes.extend(node.raft.take_persist());
        let messages = node.raft.take_messages().collect::<Vec<_>>();
        let committed = node.raft.take_committed(usize::MAX).into_owned();
        checks::applied(self, i, &committed);
        for (to, message) in messages {
            checks::sent(self, i, to, &message);
            if !scope.pre_votes && matches!(message, Message::PreVote(_)) {
                continue;
            }
            self.network
                .push(Arc::new(Envelope::new(n(i as u64 + 1), to, message)));
        }
    }
}

impl Envelope {
    fn new(from: NodeId, to: NodeId, message: Message) -> Envelope {
        Envelope {
            words: Words::of_message(from, to, &message),
            from,
            to,
            message,
        }
    }
}

/// Pre-votes protect the living leader, not the log: without them an election may be tried at any
/// time, and nothing may break.
fn grant_pre_votes(raft: &mut Raft, now: Millis, id: NodeId) {
    let config = raft.configuration().clone();
    let term = raft.term() + 1;
    for peer in config.members().filter(|peer| *peer != id) {
        let reply = VoteReply {
            term,
            granted: true,
            early: false,
        };
        raft.receive(now, peer, Message::PreVoteReply(reply));
    }
}
