//! Servers with their disks, under one injected time. Every call into a server is followed by the
//! checker; nothing here knows what a scenario expects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use raftkeel::core::{
    Append, AppendOutcome, Ask, Bytes, Configuration, DEFAULT_PRIORITY, Entry, Exclusion,
    HardState, Index, MAY_NOT_LEAD, Message, Millis, NodeId, Options, Payload, Persist, Position,
    Priority, ProposeError, Raft, Random, ReadError, ReadId, Restored, Term, TransferError,
};

use crate::checker::Checker;
use crate::disk::Disk;
use crate::host::State;
use crate::model::Model;
use crate::model::adapter::{self, Taken};
use crate::model::data::Input;
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

/// One server, running or not.
#[derive(Default)]
pub struct Node {
    pub raft: Option<Raft>,
    pub disk: Disk,
    /// Handed out and not completed.
    pub writes: VecDeque<Persist>,
    /// Writes complete only when told to.
    pub hold_writes: bool,
    /// Its disk has no room for entries.
    pub full: bool,
    /// It has refused some: only hard state is given to it.
    refusing: bool,
    /// The first entry that found no room: what comes behind it builds on it. 0 for a reset.
    refused_from: Option<Index>,
    /// How far this node's clock is ahead of the common one.
    pub ahead: Millis,
    /// Frozen, like a stopped process, until then.
    pub paused_until: Millis,
    /// A write has failed in this run.
    pub poisoned: bool,
    /// Asked for and not answered.
    pub asks: VecDeque<Ask>,
    /// Answers come only when told to.
    pub hold_asks: bool,
    /// What the host has made of the log, and up to where a snapshot was loaded in this run.
    pub state: State,
    pub loaded: Index,
    /// What the host has been given in this run.
    pub applied: Vec<Entry>,
    /// What became of this run's reads.
    pub reads: BTreeMap<ReadId, Result<Index, ReadError>>,
    /// This server is made so, in every run.
    pub ineligible: bool,
    runs: u64,
}

impl Node {
    fn note_refused(&mut self, write: &Persist) {
        let first = write.entries.first().map_or(0, |first| first.index);
        let from = if write.reset.is_some() { 0 } else { first };
        self.refused_from = Some(self.refused_from.map_or(from, |known| known.min(from)));
    }

    /// Whether there is no room for what the write says of the log.
    fn refuses(&self, write: &Persist) -> bool {
        let Some(first) = write.entries.first() else {
            return self.full && write.reset.is_some();
        };
        let behind = self.refused_from.is_some_and(|from| first.index > from);
        let follows = write.reset.is_none() && behind;
        self.full || follows
    }
}

/// The servers, their network, their history.
pub struct Cluster {
    pub now: Millis,
    pub nodes: BTreeMap<NodeId, Node>,
    pub network: Network,
    pub checker: Checker,
    pub model: Model,
    /// Hosts' states by index.
    pub states: BTreeMap<Index, u64>,
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
            model: Model::new(),
            states: BTreeMap::new(),
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
            let input = Input::Bootstrap(adapter::entry(&first));
            assert!(cluster.raft_mut(raw).bootstrap(first));
            cluster.after_call(n(raw), input);
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

    /// The same as `led` with other options.
    pub fn led_with(size: u64, set: impl FnOnce(&mut Options)) -> Cluster {
        let mut cluster = Cluster::new(size);
        set(&mut cluster.options);
        for raw in 1..=size {
            cluster.crash(raw);
            cluster.restart(raw);
        }
        cluster.elect(1);
        cluster.heartbeat(1);
        assert_eq!((2, 2), (cluster.term(1), cluster.commit(size)));
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

    /// What a server has acknowledged since the network's record was last taken.
    pub fn acks(&mut self, from: u64) -> Vec<Index> {
        let accepted = |e: &Envelope| match &e.message {
            Message::AppendReply(reply) if e.from == n(from) => match reply.outcome {
                AppendOutcome::Accepted { match_index } => Some(match_index),
                AppendOutcome::Rejected { .. } => None,
            },
            _ => None,
        };
        let record = self.network.take_record();
        record.iter().filter_map(accepted).collect()
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
        self.model.stop(raw);
        let node = self.node_mut(raw);
        for mut write in node.writes.drain(..).take(landed).collect::<Vec<_>>() {
            let whole = !self.node_mut(raw).refuses(&write);
            if !whole {
                self.node_mut(raw).note_refused(&write);
                (write.reset, write.entries) = (None, Vec::new());
            }
            self.checker.written(id, &write);
            self.node_mut(raw).disk.write(write);
            self.model.land(raw, whole);
        }
        self.node_mut(raw).refused_from = None;
        self.node_mut(raw).refusing = false;
        self.node_mut(raw).writes.clear();
        self.node_mut(raw).asks.clear();
        self.node_mut(raw).hold_asks = false;
        self.checker.stopped(id);
    }

    /// Stops a server; what was not completed is lost.
    pub fn crash(&mut self, raw: u64) {
        self.crash_after(raw, 0);
    }

    /// The disk of a stopped server loses its log behind `kept`; what is found there claims this
    /// from now on.
    pub fn damage(&mut self, raw: u64, kept: Index, claim: Position) {
        assert!(!self.is_up(raw), "only what is not in use is damaged");
        self.model.damage(raw, kept, (claim.term, claim.index));
        self.node_mut(raw).disk.damage(kept, claim);
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
        let restored = node.disk.restored();
        let loaded = node.disk.snapshot.as_ref();
        node.state = loaded.map_or(State::default(), |(of, image)| State::load(of, image));
        node.loaded = node.state.last.index;
        let input = adapter::start(&options, &restored);
        let mut raft = Raft::new(options, restored, now);
        raft.set_priority(priority(!node.ineligible));
        node.raft = Some(raft);
        self.after_call(n(raw), input);
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
        self.model.forget(raw);
        self.states.clear();
        let hard = HardState {
            term,
            ..HardState::default()
        };
        self.node_mut(raw).disk = Disk {
            hard,
            entries,
            ..Disk::default()
        };
        self.restart(raw);
    }

    // ---- inputs ----------------------------------------------------------

    /// The time as a server sees it.
    pub fn clock(&self, id: NodeId) -> Millis {
        self.now + self.nodes[&id].ahead
    }

    /// Calls into a server, takes what it wants, and checks; `said` is what the call was.
    pub fn call<T>(
        &mut self,
        id: NodeId,
        call: impl FnOnce(&mut Raft, Millis) -> T,
        said: impl FnOnce(&T) -> Input,
    ) -> T {
        let now = self.clock(id);
        let node = self.nodes.get_mut(&id).expect("the node exists");
        let result = call(node.raft.as_mut().expect("the server runs"), now);
        self.after_call(id, said(&result));
        result
    }

    fn after_call(&mut self, id: NodeId, input: Input) {
        self.checker.stepped(id, &self.nodes);
        self.take_outputs(id, input);
        self.finish_all(id);
    }

    fn take_outputs(&mut self, id: NodeId, input: Input) {
        let now = self.clock(id);
        let node = self.nodes.get_mut(&id).expect("the node exists");
        let Some(raft) = node.raft.as_mut() else {
            return;
        };
        let persist = match node.refusing {
            true => raft.take_hard(),
            false => raft.take_persist(),
        };
        let messages = raft.take_messages().collect::<Vec<_>>();
        let mut committed = raft.take_committed(usize::MAX).into_owned();
        // What is in memory comes first, and then what was fetched; or the other way round.
        while let more @ [_, ..] = &raft.take_committed(usize::MAX)[..] {
            committed.extend_from_slice(more);
        }
        let finished: Vec<_> = std::iter::from_fn(|| raft.take_read()).collect();
        let asks = raft.take_asks();
        let taken = Taken {
            persist: persist.as_ref(),
            messages: &messages,
            committed: &committed,
            reads: &finished,
            asks: &asks,
        };
        let step = adapter::step(&self.model, id, now, input, raft, taken);
        let verdict = self.model.accept(&step);
        node.writes.extend(persist);
        node.applied.extend(committed.iter().cloned());
        node.asks.extend(asks);
        for entry in &committed {
            node.state.apply(entry);
        }
        node.reads.extend(finished.iter().copied());
        if let Err(broken) = verdict {
            panic!("the model refuses: {broken}\n{step:?}");
        }
        self.checker.applied(id, &committed, &self.nodes);
        if !committed.is_empty() {
            self.check_state(id);
        }
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
        if node.refuses(&write) {
            return self.hold_back(id, write);
        }
        let token = write.token;
        if !write.entries.is_empty() || write.reset.is_some() {
            node.refused_from = None;
        }
        self.checker.written(id, &write);
        node.disk.write(write);
        if let Some(raft) = node.raft.as_mut() {
            raft.persisted(token, true);
        }
        self.checker.stepped(id, &self.nodes);
        let (token, ok) = (token.0, true);
        self.take_outputs(id, Input::Persisted { token, ok });
    }

    /// Of a write that finds no room for its entries the hard state is durable.
    fn hold_back(&mut self, id: NodeId, mut write: Persist) {
        let node = self.nodes.get_mut(&id).expect("the node exists");
        node.note_refused(&write);
        node.refusing = node.full;
        (write.reset, write.entries) = (None, Vec::new());
        let token = write.token;
        self.checker.written(id, &write);
        node.disk.write(write);
        if let Some(raft) = node.raft.as_mut() {
            raft.held_back(token);
            raft.set_full(node.full);
        }
        self.checker.stepped(id, &self.nodes);
        let token = token.0;
        self.take_outputs(id, Input::HeldBack { token });
    }

    /// A server's disk has no room for entries from now on, or has room again.
    pub fn set_full(&mut self, raw: u64, full: bool) {
        let id = n(raw);
        let node = self.node_mut(raw);
        node.full = full;
        node.refusing &= full;
        if full || node.raft.is_none() {
            return;
        }
        self.call(id, |raft, _| raft.set_full(false), |()| Input::Tick);
    }

    /// Ends the writes and answers what was asked for, where nothing is held.
    fn finish_all(&mut self, id: NodeId) {
        loop {
            let node = &self.nodes[&id];
            if !node.hold_writes && !node.writes.is_empty() {
                self.finish_write(id);
            } else if !node.hold_asks && !node.asks.is_empty() {
                self.answer(id.get(), false);
            } else {
                return;
            }
        }
    }

    /// Completes the oldest write of a server.
    pub fn complete(&mut self, raw: u64) {
        self.finish_write(n(raw));
    }

    /// Completes everything, and whatever is written from now on at once.
    pub fn complete_all(&mut self, raw: u64) {
        self.node_mut(raw).hold_writes = false;
        self.node_mut(raw).hold_asks = false;
        self.finish_all(n(raw));
    }

    /// Lets the oldest write of a server fail; nobody knows what is on the disk.
    pub fn fail(&mut self, raw: u64) {
        let node = self.node_mut(raw);
        let token = node.writes.front().expect("a write is under way").token;
        node.poisoned = true;
        let raft = node.raft.as_mut().expect("the server runs");
        raft.persisted(token, false);
        self.checker.poisoned(n(raw));
        let (token, ok) = (token.0, false);
        self.take_outputs(n(raw), Input::Persisted { token, ok });
    }

    pub fn propose(&mut self, raw: u64, data: &str) -> Result<(Term, Index), ProposeError> {
        let payload = Payload::Host(Bytes::from(data.as_bytes()));
        let call = |raft: &mut Raft, now| raft.propose(now, payload.clone());
        self.call(n(raw), call, |result| adapter::propose(&payload, result))
    }

    /// Makes a read; the checker sees to what comes of it.
    pub fn read(&mut self, raw: u64) -> Result<ReadId, ReadError> {
        self.reads(raw, 1).remove(0)
    }

    /// Makes several reads at once.
    pub fn reads(&mut self, raw: u64, count: usize) -> Vec<Result<ReadId, ReadError>> {
        let now = self.clock(n(raw));
        let raft = self.raft_mut(raw);
        let made: Vec<_> = (0..count).map(|_| raft.read(now)).collect();
        for read in made.iter().flatten() {
            self.checker.read_made(n(raw), *read);
        }
        self.after_call(n(raw), adapter::reads(&made));
        made
    }

    /// What became of a read of a server's present run; `None` while it waits.
    pub fn outcome(&self, raw: u64, read: ReadId) -> Option<Result<Index, ReadError>> {
        self.node(raw).reads.get(&read).copied()
    }

    pub fn transfer(&mut self, raw: u64, to: Option<u64>) -> Result<NodeId, TransferError> {
        let call = |raft: &mut Raft, now| raft.transfer(now, to.map(n));
        self.call(n(raw), call, |_| Input::Yield)
    }

    pub fn step_down(&mut self, raw: u64) {
        self.call(n(raw), Raft::step_down, |_| Input::Yield);
    }

    /// A peer tells a server that it has been excluded.
    pub fn exclude(&mut self, raw: u64, exclusion: Exclusion) {
        let said = Input::Exclude(exclusion.epoch, exclusion.index);
        let call = |raft: &mut Raft, _| raft.note_exclusion(exclusion);
        self.call(n(raw), call, |_| said);
    }

    /// Says whether a server may lead, to itself and to all others.
    pub fn set_eligible(&mut self, raw: u64, eligible: bool) {
        self.node_mut(raw).ineligible = !eligible;
        for node in self.nodes.values_mut() {
            if let Some(raft) = &mut node.raft {
                raft.note_priority(n(raw), priority(eligible));
            }
        }
        let call = |raft: &mut Raft, _| raft.set_priority(priority(eligible));
        self.call(n(raw), call, |_| Input::Yield);
    }

    pub fn change(
        &mut self,
        raw: u64,
        target: Configuration,
    ) -> Result<(Term, Index), ProposeError> {
        let (node, to) = (n(raw), target.clone());
        let call = |raft: &mut Raft, now| raft.propose_config(now, to, Raft::no_bytes());
        self.call(node, call, |result| adapter::change(&target, result))
    }

    /// Hands a message to a server at once.
    pub fn inject(&mut self, from: u64, to: u64, message: Message) {
        self.model.forge(from, to, &adapter::message(&message));
        self.deliver(Envelope {
            from: n(from),
            to: n(to),
            message,
        });
    }

    pub fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        if self.nodes[&to].raft.is_some() {
            let said = adapter::receive(from, &message);
            let call = |raft: &mut Raft, now| raft.receive(now, from, message);
            self.call(to, call, |_| said);
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
}

/// One server alone, as its storage restored it, at time 1.
pub fn server(raw: u64, restored: Restored) -> Raft {
    let options = Options {
        election: E,
        heartbeat: E / 5,
        ..Options::new(n(raw))
    };
    Raft::new(options, restored, 1)
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
        payload: Payload::Host(Bytes::from(data.as_bytes())),
    }
}
