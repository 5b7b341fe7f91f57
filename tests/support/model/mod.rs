//! A reference model of Raft that says of every step of an implementation whether the protocol
//! permits it. It is written from the paper (Ongaro and Ousterhout 2014, extended version), the
//! thesis (Ongaro 2014) and the rules of the design (section 1 of its page on Raft), and shares
//! nothing with the implementation.
//!
//! For each node it keeps the state of the specification, what is durable, and the evidence that
//! the node has been given: votes, acknowledgements, what a leader has shown. It is free where
//! Raft is free: when something times out, how much is sent, whether an answer comes at all, a
//! message that is ignored. It is strict where Raft is strict, and its answer names the rule.
//!
//! - `data`: what it is told; `log`: logs and writes
//! - `state`: terms, votes, roles
//! - `damage`: logs that have lost what they held
//! - `entries`: the log, commits, configurations
//! - `speech`: what is written, said and applied
//! - `reads`: thesis 6.4
//! - `snapshots`: paper 7, thesis 5
//! - `timers`: what a leader must not do for too long
//! - `history`: what no single node knows

// Each test program that includes this uses its own part of it.
#![allow(dead_code)]

/// Refuses the step unless something is so: the rule's source, then what is wrong.
macro_rules! rule {
    ($so:expr => $source:literal, $($wrong:tt)+) => {
        if !$so {
            return Err(format!("{}: {}", $source, format!($($wrong)+)));
        }
    };
}

pub mod adapter;
mod damage;
pub mod data;
mod entries;
mod history;
mod log;
mod reads;
mod snapshots;
mod speech;
mod state;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use data::{Config, Entry, Hard, Id, Input, Message, Role, Snapshot, Step, View};
use history::History;
use log::{Log, Tail};
use reads::{Lease, Reads};
use snapshots::Snapshots;

/// Whether a step is permitted, and if not, by which rule.
pub type Verdict = Result<(), String>;

/// All nodes, and what ever happened.
#[derive(Clone, Default)]
pub struct Model {
    nodes: BTreeMap<Id, Node>,
    history: History,
}

impl Model {
    pub fn new() -> Model {
        Model::default()
    }

    /// Takes in a step of a node. After a refusal the model is of no use any more.
    pub fn accept(&mut self, step: &Step) -> Verdict {
        let node = self.nodes.entry(step.node).or_default();
        node.id = step.node;
        let verdict = node.accept(step, &mut self.history);
        verdict.map_err(|broken| format!("n{} at {}: {broken}", step.node, step.now))
    }

    /// A node stops.
    pub fn stop(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.running = false;
        }
    }

    /// The oldest write of a node that has stopped did reach the disk, or only its hard state.
    pub fn land(&mut self, id: Id, whole: bool) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.land(whole);
        }
    }

    /// A node gets another past, or has lost its disk: its next start is believed.
    pub fn forget(&mut self, id: Id) {
        self.nodes.remove(&id);
    }

    /// A message that nobody has sent will be received all the same.
    pub fn forge(&mut self, from: Id, to: Id, message: &Message) {
        self.history.say(from, to, message);
    }

    /// A node as the model sees it.
    pub fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The highest index that anybody ever knew to be committed.
    pub fn committed(&self) -> u64 {
        self.history.committed()
    }
}

/// A write that has not ended.
#[derive(Clone, Debug)]
pub struct Write {
    token: u64,
    /// When it was handed out.
    pub since: u64,
    hard: Option<Hard>,
    tail: Tail,
}

/// What a leader has been told by a peer in its term.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub id: Id,
    /// The peer's log is durable and the leader's up to here.
    pub matched: u64,
    /// The newest of the leader's messages that the peer has answered.
    pub answered: u64,
    /// When its last answer came.
    pub heard_at: u64,
}

/// What a follower has been told by the leader of its term.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    /// When a message came that was no old copy.
    pub at: Option<u64>,
    pub seq: u64,
    pub commit: u64,
    /// The log is known to be the leader's up to here.
    pub verified: u64,
}

/// A node of the specification.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub id: Id,
    pub election: u64,
    heartbeat: u64,
    pub run: u64,
    started_at: u64,
    pub stall: u64,
    /// It led when this step began, in the term that it is in.
    led: bool,
    /// A write has ended in this step, and what waited for it may be said.
    delayed: bool,
    started: bool,
    pub running: bool,
    pub poisoned: bool,

    pub term: u64,
    pub vote: Id,
    pub role: Role,
    pub leader: Id,
    pub commit: u64,
    pub applied: u64,
    pub excluded: Option<(u64, u64)>,
    /// Term and index of what it once held, and may have lost.
    pub claim: Option<(u64, u64)>,
    pub successor: Id,
    pub log: Log,
    /// Where its log begins.
    pub base: u64,
    pub snapshots: Snapshots,

    pub heard: Heard,
    /// When it last heard a leader, of this term or of an older one.
    contact: Option<u64>,
    /// When it last gave its vote to another.
    voted_at: Option<u64>,
    /// When it was first told that it has lost its connection to the leader, not heard since.
    pub lost_at: Option<u64>,
    /// It has voted, in this term, when no leader had been heard for E.
    voted_late: bool,
    /// A candidate's own vote, or one that it was given, was early.
    early: bool,
    /// For which term this node last asked for pre-votes, and the end of its log then. What waits
    /// for a write is said later, as the network would have delayed it.
    sought: Option<(u64, u64, u64)>,
    /// Pre-votes and votes that this candidate was given.
    pregrants: Vec<Id>,
    pub grants: Vec<Id>,
    /// Pre-votes that this node may give: to whom, for which term.
    askers: BTreeSet<(Id, u64)>,
    /// A leader has told it to campaign in this term.
    forced: bool,

    pub peers: Vec<Peer>,
    /// The newest number that this leader gave to a message.
    pub seq: u64,
    /// Index of the no-op that opened this leader's term.
    pub opened_at: u64,
    /// When this leader was elected, or changed members last.
    settled_at: u64,
    pub lease: Lease,
    pub reads: Reads,

    pub hard: Hard,
    pub durable: Log,
    pub writes: VecDeque<Write>,
    /// Entries found no room, and none were written since: hard state may be written without them.
    holds_back: bool,
    /// The log is dropped in this step, for this snapshot.
    dropped_for: Option<Arc<Snapshot>>,
    /// The last one that it was dropped for.
    owed: Option<Arc<Snapshot>>,
    token: u64,
}

/// What a node was before a step.
#[derive(Clone, Copy)]
struct Was {
    term: u64,
    vote: Id,
    role: Role,
    leader: Id,
    commit: u64,
    last: u64,
    successor: Id,
}

impl Node {
    fn accept(&mut self, step: &Step, history: &mut History) -> Verdict {
        if let Input::Start { .. } = step.input {
            self.start(step, history)?;
            return self.check_output(step, history);
        }
        rule!(self.running => "harness", "a node that does not run acts");
        let was = Was {
            term: self.term,
            vote: self.vote,
            role: self.role,
            leader: self.leader,
            commit: self.commit,
            last: self.log.last(),
            successor: self.successor,
        };
        match &step.input {
            Input::Receive { from, message } => {
                let said = history.has_said(*from, self.id, message);
                rule!(said => "harness", "n{from} never sent {message:?}");
                self.hear_answer(&was, step.now, *from, message);
            }
            Input::Persisted { token, ok } => self.write_ended(*token, *ok)?,
            Input::HeldBack { token } => self.write_held_back(*token)?,
            Input::Paused => self.lease.void(self.seq),
            _ => {}
        }
        if self.poisoned {
            return self.check_silence(step);
        }
        let after = &step.after;
        self.check_pre_vote(&was, step)?;
        self.check_lost(&was, step)?;
        self.take_term_and_vote(&was, step)?;
        self.take_role(&was, step, history)?;
        self.take_snapshots(&was, step, history)?;
        self.take_log(&was, step, history)?;
        if let Some((_, message)) = received(step) {
            self.hear_leader(step.now, message);
        }
        self.take_commit(&was, step, history)?;
        self.take_exclusion(&was, step)?;
        self.take_claim(&was, step)?;
        self.check_view(after, history)?;
        if after.role == Role::PreCandidate {
            let (index, term) = self.log.end();
            self.sought = Some((self.term + 1, index, term));
        }
        self.successor = after.successor;
        self.delayed = matches!(step.input, Input::Persisted { .. } | Input::HeldBack { .. });
        self.led = was.role == Role::Leader && was.term == after.term;
        self.check_timers(step)?;
        self.hear_reads(step, history);
        self.check_output(step, history)
    }

    /// Paper 3.8 and rule 33: a node starts as a follower with what it finds on its disk.
    fn start(&mut self, step: &Step, history: &mut History) -> Verdict {
        rule!(!self.running => "harness", "a node that runs starts");
        let Input::Start {
            election,
            heartbeat,
            run,
            stall,
            leases,
            hard,
            snapshot,
            base,
            partial,
            ..
        } = &step.input
        else {
            return Ok(());
        };
        let (log, after) = (self.check_disk(step, history)?, &step.after);
        let as_found = (hard.term, hard.vote) == (after.term, after.vote);
        rule!(as_found => "rule 33", "finds {hard:?}, starts with {after:?}");
        // A snapshot may know of a readmission that the hard state does not know yet.
        let committed = log.config_at(after.commit).map(|(_, config)| &**config);
        let known = hard.excluded.map_or(0, |(epoch, _)| epoch);
        let readmitted = committed.is_some_and(|c| c.readmits(self.id, known));
        let right = after.excluded == hard.excluded || after.excluded.is_none() && readmitted;
        rule!(right => "HardState", "finds {:?}, starts with {:?}", hard.excluded, after.excluded);
        let follows = after.role == Role::Follower && after.leader == 0;
        rule!(follows => "rule 33", "starts as {:?}", after.role);
        // Bootstrap commits the first entry by decree.
        let decreed = log.config_at(1).map_or(0, |(index, _)| *index);
        let covered = snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let most = hard.commit.max(decreed).min(log.last()).max(covered);
        let right = (covered..=most).contains(&after.commit);
        rule!(right => "rule 33", "commits {}, not {covered} to {most}", after.commit);
        *self = Node {
            id: self.id,
            election: *election,
            heartbeat: *heartbeat,
            run: *run,
            started_at: step.now,
            stall: *stall,
            started: true,
            running: true,
            term: hard.term,
            vote: hard.vote,
            commit: after.commit,
            applied: covered,
            excluded: after.excluded,
            log: log.clone(),
            base: base.0,
            snapshots: Snapshots::found(snapshot.clone(), partial.clone()),
            lease: Lease::new(*leases),
            hard: *hard,
            durable: log,
            claim: hard.claim,
            ..Node::default()
        };
        self.check_claim(self.claim, after.claim)?;
        self.check_view(after, history)?;
        history.commit(self, 0)
    }

    /// What a node finds is what it had written, and what it starts with.
    fn check_disk(&mut self, step: &Step, history: &mut History) -> Result<Log, String> {
        let Input::Start {
            hard,
            snapshot,
            base,
            entries,
            ..
        } = &step.input
        else {
            return Err("harness: no start".into());
        };
        let Some(mut found) = history.log_to(base.0).filter(|log| log.end() == *base) else {
            return Err(format!("rule 33: finds a log behind {base:?}"));
        };
        for entry in entries {
            let place = found.push(entry);
            history.append(found.last(), Some(place))?;
        }
        if let Some(snapshot) = snapshot {
            history.check_snapshot(snapshot)?;
            let reaches = found.term(snapshot.index) == Some(snapshot.term);
            rule!(reaches && base.0 <= snapshot.index => "rule 33", "{snapshot:?} is not in the log");
        }
        let covered = snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        rule!(base.0 <= covered => "rule 40", "nothing covers what was dropped to {}", base.0);
        if self.started {
            let own = self.snapshots.index();
            rule!(covered >= own => "rule 33", "finds snapshot {covered}, had {own}");
            // Rule 34: a log that the snapshot contradicts goes.
            let reset = history
                .log_to(covered)
                .filter(|log| log.place(covered) != self.durable.place(covered));
            let known = reset.as_ref().unwrap_or(&self.durable).end();
            let end = found.end();
            let same = reset.as_ref().unwrap_or(&self.durable).place(end.0) == found.place(end.0);
            rule!(same && end == known => "rule 33", "finds a log to {end:?}, wrote {known:?}");
            let known = self.hard;
            rule!(*hard == known => "rule 33", "finds {hard:?}, wrote {known:?}");
        }
        let (kept, loaded) = (step.after.kept, &step.after.suffix);
        let before = found
            .place(kept)
            .filter(|_| kept + loaded.len() as u64 == found.last());
        let place = before.map(|before| loaded.iter().fold(before, |place, e| place.then(e)));
        let same = place.is_some() && place == found.place(found.last());
        rule!(same => "rule 33", "starts with another log than its disk's");
        Ok(found)
    }

    /// What others may see of a node besides its log.
    fn check_view(&self, after: &View, history: &History) -> Verdict {
        let end = self.log.end();
        rule!(after.last == end => "I5", "ends at {:?}, not {end:?}", after.last);
        let base = self.base;
        rule!(after.base == base => "rule 40", "begins at {}, not {base}", after.base);
        let newest = self.snapshots.index();
        rule!(after.snapshot == newest => "rule 34", "{} is not {newest}", after.snapshot);
        let config = self.config();
        let config = config.map_or((0, 0), |(index, c)| (index, c.epoch));
        let right = after.config == config;
        rule!(right => "thesis 4.1, rule 44", "is in {:?}, not {config:?}", after.config);
        let leads = after.role == Role::Leader;
        let right = match after.role {
            Role::Leader => after.leader == self.id,
            // Rule 7a: who campaigns knows no leader.
            Role::Candidate | Role::PreCandidate => after.leader == 0,
            Role::Follower => after.leader == 0 || history.leads(self.term, after.leader),
        };
        rule!(right => "paper 5.2", "{:?} takes n{} for the leader", after.role, after.leader);
        for (id, matched, next) in &after.peers {
            let told = self.peer(*id).map_or(0, |peer| peer.matched);
            let honest = leads && *matched <= told && next > matched;
            rule!(honest => "paper fig. 2, I13", "n{id} said {told}: {matched}, {next}");
        }
        let hands_over = after.successor == 0 || leads;
        rule!(hands_over => "rule 56", "hands over and does not lead");
        Ok(())
    }

    /// The configuration in force: the newest in the log (thesis 4.1).
    pub fn config(&self) -> Option<(u64, &Config)> {
        self.log.config().map(|(index, config)| (*index, &**config))
    }

    pub fn peer(&self, id: Id) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    /// Whether the log up to an index survives a crash, whichever of the writes under way are done
    /// by then (rules 16, 27, 28).
    pub fn is_secure(&self, index: u64) -> bool {
        let place = self.log.place(index);
        let mut written = self
            .writes
            .iter()
            .filter_map(|write| write.tail.place(index));
        // Rule 35: the image of a snapshot is durable before it is heard of here.
        let covered = index <= self.snapshots.index();
        covered
            || place.is_some() && self.durable.place(index) == place && written.all(|w| w == place)
    }

    /// Whether the log agrees with that of a leader who has this entry: what is committed is in
    /// every leader's (Leader Completeness).
    fn agrees(&self, index: u64, term: u64) -> bool {
        index <= self.commit || self.log.term(index) == Some(term)
    }
}

/// The message that a step begins with.
fn received(step: &Step) -> Option<(Id, &Message)> {
    match &step.input {
        Input::Receive { from, message } => Some((*from, message)),
        _ => None,
    }
}

/// The entries that a message brings.
fn entries_of(message: &Message) -> &[Entry] {
    match message {
        Message::Append { entries, .. } => entries,
        _ => &[],
    }
}
