//! Servers with their disks, under one injected time. Every call into a server is followed by the
//! checker; nothing here knows what a scenario expects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use raftkeel::core::{
    Append, Configuration, DEFAULT_PRIORITY, Entry, HardState, Index, MAY_NOT_LEAD, Message,
    Millis, NodeId, Options, Payload, Persist, Priority, ProposeError, Raft, Random, ReadError,
    ReadId, Restored, RoleKind, Term, TransferError,
};

use crate::checker::Checker;
use crate::network::{Envelope, Network};

/// Base election timeout of every server, in milliseconds.
pub const E: Millis = 100;
/// Heartbeat interval of every server.
pub const H: Millis = 20;

fn priority(eligible: bool) -> Priority {
    if eligible {
        DEFAULT_PRIORITY
    } else {
        MAY_NOT_LEAD
    }
}

/// The node of this number.
pub fn n(raw: u64) -> NodeId {
    NodeId::new(raw).expect("node numbers start at 1")
}

/// The nodes of these numbers.
pub fn ids(raw: &[u64]) -> Vec<NodeId> {
    raw.iter().map(|r| n(*r)).collect()
}

/// A configuration that is not joint.
pub fn plain(epoch: u64, voters: &[u64], learners: &[u64]) -> Configuration {
    joint(epoch, voters, &[], learners)
}

/// A configuration on the way from `outgoing` to `voters`.
pub fn joint(epoch: u64, voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Configuration {
    Configuration {
        epoch,
        voters: ids(voters),
        outgoing: ids(outgoing),
        learners: ids(learners),
    }
}

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    pub hard: HardState,
    pub entries: Vec<Entry>,
}

impl Disk {
    fn write(&mut self, write: Persist) {
        if let Some(hard) = write.hard {
            self.hard = hard;
        }
        let Some(first) = write.entries.first() else {
            return;
        };
        let kept = first.index as usize - 1;
        assert!(kept <= self.entries.len(), "a write leaves a gap");
        self.entries.truncate(kept);
        self.entries.extend(write.entries);
    }

    /// Term of a durable entry.
    pub fn term(&self, index: Index) -> Option<Term> {
        match index {
            0 => Some(0),
            _ => self.entries.get(index as usize - 1).map(|e| e.term),
        }
    }
}

/// One server, running or not.
#[derive(Default)]
pub struct Node {
    pub raft: Option<Raft>,
    pub disk: Disk,
    /// Handed out and not completed.
    pub writes: VecDeque<Persist>,
    /// Writes complete only when told to.
    pub hold_writes: bool,
    /// How far this node's clock is ahead of the common one.
    ahead: Millis,
    /// Frozen, like a stopped process, until then.
    pub paused_until: Millis,
    /// A write has failed in this run.
    pub poisoned: bool,
    /// What the host has been given in this run.
    pub applied: Vec<Entry>,
    /// What became of this run's reads.
    pub reads: BTreeMap<ReadId, Result<Index, ReadError>>,
    /// This server is made so, in every run.
    pub ineligible: bool,
    runs: u64,
}

/// The servers, their network, their history.
pub struct Cluster {
    pub now: Millis,
    pub nodes: BTreeMap<NodeId, Node>,
    pub network: Network,
    pub checker: Checker,
    pub options: Options,
    pub random: Random,
}

impl Cluster {
    /// Servers 1 to `size`, of which the first `voters` are bootstrapped and the rest are empty.
    pub fn create(voters: u64, size: u64, seed: u64) -> Cluster {
        let mut cluster = Cluster {
            now: 1,
            nodes: BTreeMap::new(),
            network: Network::new(),
            checker: Checker::default(),
            options: Options {
                heartbeat: H,
                election: E,
                batch_bytes: 1 << 16,
                uncommitted_bytes: 1 << 20,
                entry_max: 1 << 16,
                stall: 4 * E,
                ..Options::new(n(1))
            },
            random: Random::new(seed),
        };
        for raw in 1..=size {
            cluster.nodes.insert(n(raw), Node::default());
            cluster.restart(raw);
        }
        let members: Vec<u64> = (1..=voters).collect();
        for raw in 1..=voters {
            let first = first_entry(&members);
            assert!(cluster.raft_mut(raw).bootstrap(first));
            cluster.after_call(n(raw));
        }
        cluster
    }

    /// `size` voters without a leader; their logs hold 1.1.
    pub fn new(size: u64) -> Cluster {
        Cluster::create(size, size, 1)
    }

    /// `size` voters led by n1 in term 2; their logs hold 1.1 and its no-op 2.2, committed.
    pub fn led(size: u64) -> Cluster {
        Cluster::led_with_spares(size, size)
    }

    /// The same, and empty servers up to number `size`.
    pub fn led_with_spares(voters: u64, size: u64) -> Cluster {
        let mut cluster = Cluster::create(voters, size, 1);
        cluster.elect(1);
        cluster.heartbeat(1);
        assert_eq!((2, 2), (cluster.term(1), cluster.commit(voters)));
        cluster.network.take_record();
        cluster
    }

    // ---- servers ---------------------------------------------------------

    fn node(&self, raw: u64) -> &Node {
        &self.nodes[&n(raw)]
    }

    pub fn node_mut(&mut self, raw: u64) -> &mut Node {
        self.nodes.get_mut(&n(raw)).expect("the node exists")
    }

    /// A running server.
    pub fn raft(&self, raw: u64) -> &Raft {
        self.node(raw).raft.as_ref().expect("the server runs")
    }

    fn raft_mut(&mut self, raw: u64) -> &mut Raft {
        self.node_mut(raw).raft.as_mut().expect("the server runs")
    }

    pub fn is_up(&self, raw: u64) -> bool {
        self.node(raw).raft.is_some()
    }

    /// Stops a server; of its writes that were not completed, the first `landed` did reach the
    /// disk.
    pub fn crash_after(&mut self, raw: u64, landed: usize) {
        let id = n(raw);
        let node = self.node_mut(raw);
        node.raft = None;
        node.hold_writes = false;
        node.poisoned = false;
        for write in node.writes.drain(..).take(landed).collect::<Vec<_>>() {
            self.checker.written(id, &write);
            self.node_mut(raw).disk.write(write);
        }
        self.node_mut(raw).writes.clear();
        self.checker.stopped(id);
    }

    /// Stops a server; what was not completed is lost.
    pub fn crash(&mut self, raw: u64) {
        self.crash_after(raw, 0);
    }

    /// Starts a server from its disk.
    pub fn restart(&mut self, raw: u64) {
        assert!(!self.is_up(raw), "the server runs already");
        let now = self.clock(n(raw));
        let mut options = self.options.clone();
        let node = self.node_mut(raw);
        node.runs += 1;
        node.applied.clear();
        node.reads.clear();
        options.id = n(raw);
        options.seed = raw * 1000 + node.runs;
        options.run = node.runs;
        let restored = Restored {
            hard: node.disk.hard,
            entries: node.disk.entries.clone(),
            ..Restored::default()
        };
        let mut raft = Raft::new(options, restored, now);
        raft.set_priority(priority(!node.ineligible));
        node.raft = Some(raft);
        self.after_call(n(raw));
    }

    /// Gives a server another past: a durable term and a log with entries of these terms, the
    /// first of which is the bootstrap's. The same index and term give the same entry.
    pub fn put(&mut self, raw: u64, term: Term, terms: &[Term]) {
        let members: Vec<u64> = self.nodes.keys().map(|id| id.get()).collect();
        let mut entries = vec![first_entry(&members)];
        for (i, term) in terms.iter().enumerate().skip(1) {
            entries.push(host_entry(i as Index + 1, *term));
        }
        self.crash(raw);
        self.checker.forget(n(raw));
        let hard = HardState {
            term,
            ..HardState::default()
        };
        self.node_mut(raw).disk = Disk { hard, entries };
        self.restart(raw);
    }

    // ---- inputs ----------------------------------------------------------

    /// The time as a server sees it.
    pub fn clock(&self, id: NodeId) -> Millis {
        self.now + self.nodes[&id].ahead
    }

    /// Calls into a server, takes what it wants, and checks.
    pub fn call<T>(&mut self, id: NodeId, input: impl FnOnce(&mut Raft, Millis) -> T) -> T {
        let result = self.call_unfinished(id, input);
        self.after_call(id);
        result
    }

    fn call_unfinished<T>(&mut self, id: NodeId, input: impl FnOnce(&mut Raft, Millis) -> T) -> T {
        let now = self.clock(id);
        let node = self.nodes.get_mut(&id).expect("the node exists");
        input(node.raft.as_mut().expect("the server runs"), now)
    }

    fn after_call(&mut self, id: NodeId) {
        self.checker.stepped(id, &self.nodes);
        loop {
            self.take_outputs(id);
            let node = &self.nodes[&id];
            if node.hold_writes || node.writes.is_empty() {
                return;
            }
            self.finish_write(id);
        }
    }

    fn take_outputs(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("the node exists");
        let Some(raft) = node.raft.as_mut() else {
            return;
        };
        node.writes.extend(raft.take_persist());
        let messages = raft.take_messages().collect::<Vec<_>>();
        let committed = raft.take_committed(usize::MAX).into_owned();
        node.applied.extend(committed.iter().cloned());
        let finished = raft.take_reads();
        node.reads.extend(finished.iter().copied());
        self.checker.applied(id, &committed, &self.nodes);
        for (read, result) in finished {
            self.checker.read_finished(id, read, result);
        }
        for (to, message) in messages {
            self.checker.sent(id, to, &message, &self.nodes);
            let envelope = Envelope {
                from: id,
                to,
                message,
            };
            self.network.send(self.now, envelope, &mut self.random);
        }
    }

    fn finish_write(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("the node exists");
        let write = node.writes.pop_front().expect("a write is under way");
        let token = write.token;
        self.checker.written(id, &write);
        node.disk.write(write);
        if let Some(raft) = node.raft.as_mut() {
            raft.persisted(token, true);
        }
        self.checker.stepped(id, &self.nodes);
    }

    /// Completes the oldest write of a server.
    pub fn complete(&mut self, raw: u64) {
        self.finish_write(n(raw));
        self.take_outputs(n(raw));
    }

    /// Completes everything, and whatever is written from now on at once.
    pub fn complete_all(&mut self, raw: u64) {
        self.node_mut(raw).hold_writes = false;
        self.after_call(n(raw));
    }

    /// Lets the oldest write of a server fail; nobody knows what is on the disk.
    pub fn fail(&mut self, raw: u64) {
        let node = self.node_mut(raw);
        let token = node.writes.front().expect("a write is under way").token;
        node.poisoned = true;
        let raft = node.raft.as_mut().expect("the server runs");
        raft.persisted(token, false);
        self.checker.poisoned(n(raw));
        self.take_outputs(n(raw));
    }

    pub fn propose(&mut self, raw: u64, data: &str) -> Result<(Term, Index), ProposeError> {
        let payload = Payload::Host(Arc::from(data.as_bytes()));
        self.call(n(raw), |raft, now| raft.propose(now, payload))
    }

    /// Makes a read; the checker sees to what comes of it.
    pub fn read(&mut self, raw: u64) -> Result<ReadId, ReadError> {
        let read = self.call_unfinished(n(raw), Raft::read);
        if let Ok(read) = read {
            self.checker.read_made(n(raw), read);
        }
        self.after_call(n(raw));
        read
    }

    /// What became of a read of a server's present run; `None` while it waits.
    pub fn outcome(&self, raw: u64, read: ReadId) -> Option<Result<Index, ReadError>> {
        self.node(raw).reads.get(&read).copied()
    }

    pub fn transfer(&mut self, raw: u64, to: Option<u64>) -> Result<NodeId, TransferError> {
        self.call(n(raw), |raft, now| raft.transfer(now, to.map(n)))
    }

    /// Says whether a server may lead, to itself and to all others.
    pub fn set_eligible(&mut self, raw: u64, eligible: bool) {
        self.node_mut(raw).ineligible = !eligible;
        for node in self.nodes.values_mut() {
            if let Some(raft) = &mut node.raft {
                raft.note_priority(n(raw), priority(eligible));
            }
        }
        self.call(n(raw), |raft, _| raft.set_priority(priority(eligible)));
    }

    pub fn change(
        &mut self,
        raw: u64,
        target: Configuration,
    ) -> Result<(Term, Index), ProposeError> {
        self.call(n(raw), |raft, now| {
            raft.propose_config(now, target, Raft::no_bytes())
        })
    }

    /// Hands a message to a server at once.
    pub fn inject(&mut self, from: u64, to: u64, message: Message) {
        self.deliver(Envelope {
            from: n(from),
            to: n(to),
            message,
        });
    }

    pub fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        if self.nodes[&to].raft.is_some() {
            self.call(to, |raft, now| raft.receive(now, from, message));
        }
    }

    /// An append as a leader would send it with this entry before the first.
    pub fn append_of(&self, leader: u64, prev_index: Index, seq: u64) -> Append {
        let raft = self.raft(leader);
        Append {
            term: raft.term(),
            seq,
            prev_index,
            prev_term: raft.log().term(prev_index).expect("within the log"),
            commit: raft.commit(),
            entries: raft.log().from(prev_index + 1).to_vec(),
        }
    }

    // ---- time ------------------------------------------------------------

    /// Moves a server's clock without letting it act.
    pub fn skip(&mut self, raw: u64, span: Millis) {
        self.node_mut(raw).ahead += span;
    }

    /// Moves a server's clock and lets it act.
    pub fn advance(&mut self, raw: u64, span: Millis) {
        self.skip(raw, span);
        self.call(n(raw), Raft::tick);
    }

    /// Delivers until nobody has anything to say, without time passing.
    pub fn deliver_all(&mut self) {
        for _ in 0..100_000 {
            match self.network.next_due(Millis::MAX) {
                Some(envelope) => self.deliver(envelope),
                None => return,
            }
        }
        panic!("the servers never stop talking");
    }

    /// Moves a leader to its next heartbeat, and delivers all.
    pub fn heartbeat(&mut self, raw: u64) {
        self.advance(raw, H);
        self.deliver_all();
    }

    /// Lets every other server's sticky window pass and this one's election timeout, and delivers
    /// all: at most three times, for a term may have to be learnt first.
    pub fn elect(&mut self, raw: u64) {
        let running: Vec<u64> = self.nodes.keys().map(|id| id.get()).collect();
        for _ in 0..3 {
            for other in running.iter().filter(|other| **other != raw) {
                self.skip(*other, E);
            }
            self.advance(raw, 2 * E);
            self.deliver_all();
            if self.raft(raw).is_leader() {
                return;
            }
        }
    }

    /// One millisecond: deliver what is due, then let everybody act.
    pub fn step(&mut self) {
        self.now += 1;
        while let Some(envelope) = self.network.next_due(self.now) {
            let paused = self.nodes[&envelope.to].paused_until;
            if paused > self.now {
                self.network.put(paused, envelope);
            } else {
                self.deliver(envelope);
            }
        }
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in all {
            let now = self.clock(id);
            let node = &self.nodes[&id];
            let awake = node.paused_until <= self.now;
            let due = node
                .raft
                .as_ref()
                .is_some_and(|r| awake && now >= r.next_deadline());
            if due {
                self.call(id, Raft::tick);
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Millis) {
        for _ in 0..span {
            self.step();
        }
    }

    /// Lets time pass until something is so; panics if that takes longer than `span`.
    pub fn run_until(&mut self, span: Millis, what: &str, so: impl Fn(&Cluster) -> bool) {
        for _ in 0..span {
            if so(self) {
                return;
            }
            self.step();
        }
        assert!(so(self), "not within {span} ms: {what}");
    }

    // ---- links -----------------------------------------------------------

    /// Cuts both directions between two servers.
    pub fn cut(&mut self, a: u64, b: u64) {
        self.network.cut(n(a), n(b));
        self.network.cut(n(b), n(a));
    }

    /// Cuts a server off from everybody.
    pub fn isolate(&mut self, raw: u64) {
        let others: Vec<u64> = self.nodes.keys().map(|id| id.get()).collect();
        for other in others.into_iter().filter(|other| *other != raw) {
            self.cut(raw, other);
        }
    }

    /// Leaves only these links, both ways.
    pub fn only_links(&mut self, links: &[(u64, u64)]) {
        let all: Vec<u64> = self.nodes.keys().map(|id| id.get()).collect();
        self.network.heal();
        for a in &all {
            for b in all.iter().filter(|b| *b > a) {
                if !links.contains(&(*a, *b)) {
                    self.cut(*a, *b);
                }
            }
        }
    }

    /// Ends all holds and delivers what was held.
    pub fn release(&mut self) {
        for envelope in self.network.end_holds() {
            self.network.put(self.now, envelope);
        }
        self.deliver_all();
    }

    // ---- questions -------------------------------------------------------

    pub fn term(&self, raw: u64) -> Term {
        self.raft(raw).term()
    }

    pub fn commit(&self, raw: u64) -> Index {
        self.raft(raw).commit()
    }

    pub fn role(&self, raw: u64) -> RoleKind {
        self.raft(raw).role()
    }

    /// Terms of a server's log from index 1.
    pub fn terms(&self, raw: u64) -> Vec<Term> {
        let log = self.raft(raw).log();
        log.from(1).iter().map(|e| e.term).collect()
    }

    /// The running leader of the newest term.
    pub fn leader(&self) -> Option<u64> {
        let running = self.nodes.values().filter_map(|node| node.raft.as_ref());
        let leaders = running.filter(|raft| raft.is_leader());
        let newest = leaders.max_by_key(|raft| raft.term())?;
        newest.leader().map(NodeId::get)
    }
}

/// The first entry of every log: who votes at the beginning.
pub fn first_entry(voters: &[u64]) -> Entry {
    Entry {
        index: 1,
        term: 1,
        payload: Payload::Config(Arc::new(plain(1, voters, &[])), Raft::no_bytes()),
    }
}

/// An entry whose data follow from its place.
pub fn host_entry(index: Index, term: Term) -> Entry {
    let data = format!("{index}.{term}");
    Entry {
        index,
        term,
        payload: Payload::Host(Arc::from(data.as_bytes())),
    }
}
