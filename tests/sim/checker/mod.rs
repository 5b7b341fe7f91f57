//! The predicates that must hold after every step, with a memory of all that ever happened, so
//! that they also see what no single state shows. Their numbers, I1 and so on, are those of the
//! design's list (raft.md section 3); each is a function that names itself.
//!
//! A step costs only as much as it changed: logs are kept as outlines, looked at from where they
//! changed, and compared through the ghost of every entry that ever was. From time to time, and
//! at the end, a log is read as a whole all the same.

mod clients;
mod commits;
mod ghost;
mod leaders;
mod logs;
mod members;
mod messages;
mod outline;
mod snapshots;

use std::collections::VecDeque;
use std::sync::Arc;

use raftkeel::core::{
    Configuration, HardState, Index, Millis, NodeId, Persist, Position, Raft, Snapshot, Term,
};

use clients::Clients;
pub use ghost::is_quorum;
use ghost::{Committed, Ghost, Led};
use outline::Outline;
use snapshots::Disk;

use crate::host::{Outcome, proposal_of};
use crate::image::Image;
use crate::judge::{Call, Judge};
use crate::marks::Mark::*;
use crate::net::MAX_NODES;
use crate::server::{Answer, Input, Setup, State};

/// A whole log is read once in so many calls into its server.
const WHOLE: u64 = 4096;

/// A configuration in a log, with its index and term.
type Configured = (Index, Term, Arc<Configuration>);

/// What is known of one node.
struct Seen {
    id: NodeId,
    up: bool,
    /// It was told that a write failed.
    failed: bool,
    /// Its log in memory.
    log: Outline,
    configs: Vec<Configured>,
    commit: Index,
    applied: Index,
    calls: u64,
    /// Leader: when each node was last heard, on the leader's clock.
    heard: [Millis; MAX_NODES],
    /// Leader: bytes of its own entries that are not committed.
    uncommitted: usize,
    /// Leader: appends with entries sent to each node since something came from it.
    in_flight: [(usize, usize); MAX_NODES],
    limits: Limits,
    /// When the writes under way began, on the node's clock.
    writes: VecDeque<Millis>,
    /// Its host loads a snapshot.
    installing: bool,

    // What outlives a crash.
    hard: HardState,
    disk: Disk,
    /// The newest number of a leader that it has heard, and in which term.
    numbered: (Term, u64),
    /// The newest vote that left it.
    granted: (Term, Option<NodeId>),
    /// The newest term that it spoke of.
    spoke: Term,
    /// The most it acknowledged in each term, oldest first.
    acked: Vec<(Term, Index)>,
}

impl Seen {
    fn new(at: usize) -> Seen {
        Seen {
            id: NodeId::new(at as u64 + 1).expect("ids start at 1"),
            up: false,
            failed: false,
            log: Outline::default(),
            configs: Vec::new(),
            commit: 0,
            applied: 0,
            calls: 0,
            heard: [0; MAX_NODES],
            uncommitted: 0,
            in_flight: [(0, 0); MAX_NODES],
            limits: Limits::default(),
            writes: VecDeque::new(),
            installing: false,
            hard: HardState::default(),
            disk: Disk::default(),
            numbered: (0, 0),
            granted: (0, None),
            spoke: 0,
            acked: Vec::new(),
        }
    }

    /// The most it acknowledged in a term.
    fn acked(&self, term: Term) -> Index {
        let newest = self.acked.iter().rev();
        let mut from = newest.skip_while(|(t, _)| *t > term);
        from.next()
            .filter(|(t, _)| *t == term)
            .map_or(0, |(_, i)| *i)
    }
}

/// What a server was told to keep to.
#[derive(Default)]
struct Limits {
    uncommitted_bytes: usize,
    election: Millis,
    stall: Millis,
    piece_bytes: usize,
    tail_bytes: usize,
    lease_reads: bool,
}

fn place(id: NodeId) -> usize {
    id.get() as usize - 1
}

/// All that ever happened.
pub struct Checker {
    nodes: Vec<Seen>,
    ghost: Ghost,
    committed: Vec<Committed>,
    /// The log of all that is committed, and its configurations.
    common: Outline,
    common_configs: Vec<Configured>,
    /// The newest configuration that anybody knew to be committed, and where it stands.
    members: (Index, Arc<Configuration>),
    /// By term.
    leaders: Vec<Option<Led>>,
    clients: Clients,
    /// Enough copies of all that is committed must be looked for again.
    copies_changed: bool,
}

impl Checker {
    pub fn new(nodes: usize) -> Checker {
        Checker {
            nodes: (0..nodes).map(Seen::new).collect(),
            ghost: Ghost::default(),
            committed: Vec::new(),
            common: Outline::default(),
            common_configs: Vec::new(),
            members: (0, Arc::default()),
            leaders: Vec::new(),
            clients: Clients::new(nodes),
            copies_changed: false,
        }
    }

    /// Number of entries that anybody ever knew to be committed.
    pub fn committed(&self) -> Index {
        self.committed.len() as Index
    }

    /// Reads that wait at a node.
    pub fn reads_waiting(&self, node: usize) -> usize {
        self.clients.reads_waiting(node)
    }

    /// Reads that were answered.
    pub fn reads_done(&self) -> u64 {
        self.clients.reads_done
    }

    /// Configurations that some node may still act by, in memory or after a crash: those that
    /// follow the newest committed one, and that one.
    pub fn configurations(&self) -> impl Iterator<Item = &Configuration> {
        let later = self.nodes.iter().flat_map(|node| {
            let kept = node.disk.configs().iter();
            let held = node.configs.iter().filter(|_| node.up);
            kept.chain(held)
        });
        let later = later.filter(|c| c.0 > self.members.0).map(|c| &*c.2);
        later.chain([&*self.members.1])
    }

    /// A look at every log as a whole.
    pub fn look_at_whole_logs<'a>(&self, rafts: impl Iterator<Item = (usize, &'a Raft)>) {
        for (at, raft) in rafts {
            if !self.nodes[at].failed {
                self.whole_log(at, raft);
            }
        }
    }

    fn propose(&mut self, call: &Call<'_, Raft>) {
        let Input::Propose(data) = call.input else {
            return;
        };
        let payload = raftkeel::core::Payload::Host(data.clone());
        let number = proposal_of(&payload).unwrap_or(0);
        let placed = matches!(call.output.answer, Answer::Placed(..));
        let committed = self.committed();
        self.clients.proposed(number, placed, committed);
        if placed {
            self.bounded_backlog(call, payload.weight());
        }
    }

    /// I3: terms never go back, not by a restart either.
    fn term_monotone(&self, at: usize, term: Term, before: Term) {
        let node = &self.nodes[at];
        assert!(
            term >= before && term >= node.spoke,
            "I3: the term of {} goes back to {term}, it was {before} and spoke of {}",
            node.id,
            node.spoke
        );
    }

    /// I21: after an I/O error nothing leaves.
    fn poison(&self, call: &Call<'_, Raft>) {
        let output = call.output;
        let silent = output.sent.is_empty()
            && output.applied.is_empty()
            && output.write.is_none()
            && output.asks.is_empty()
            && output.reads.iter().all(|(_, index)| index.is_none());
        let refuses = !matches!(
            output.answer,
            Answer::Placed(..) | Answer::Reading(_) | Answer::Handing(_)
        );
        assert!(
            silent && refuses && !call.after.leads(),
            "I21: {} does something after an I/O error",
            call.id
        );
    }

    /// I11: what is applied is committed, in order, each index once in every run.
    fn applied_in_order(&mut self, call: &Call<'_, Raft>) {
        for entry in &call.output.applied {
            let node = &mut self.nodes[call.node];
            node.applied += 1;
            let (id, index) = (node.id, entry.index);
            assert!(
                node.applied == index,
                "I11: {id} applies {index}, {} is next",
                node.applied
            );
            assert!(
                index <= call.after.commit,
                "I11: {id} applies {index}, which it does not know to be committed"
            );
            assert!(
                node.disk.log().holds(index, entry.term),
                "I11: {id} applies {index}, which is not on its disk"
            );
            assert!(
                !node.installing,
                "I11: {id} applies {index} while its host loads a snapshot"
            );
            let committed = &self.committed[index as usize - 1];
            assert!(
                committed.term == entry.term && self.ghost.is_same(entry),
                "I6: {id} applies another entry at {index} than was committed"
            );
        }
    }

    fn reads(&mut self, call: &Call<'_, Raft>) {
        if let (Input::Read, Answer::Reading(read)) = (call.input, call.output.answer) {
            let committed = self.committed();
            self.clients.read_made(call.node, call.id, read, committed);
        }
        let applied = self.nodes[call.node].applied;
        for read in &call.output.reads {
            self.clients.read_done(call.node, call.id, *read, applied);
        }
        self.lease(call);
    }

    /// I18: who answers a read at once, asking nobody, is the last who was elected.
    fn lease(&self, call: &Call<'_, Raft>) {
        let Answer::Reading(read) = call.output.answer else {
            return;
        };
        let at_once = call.output.reads.contains(&(read, Some(call.after.commit)));
        let alone = call.server.configuration().voters == [call.id] && !call.after.joint;
        if !at_once || !call.after.leads() || alone {
            return;
        }
        ReadByLease.hit();
        assert!(
            self.nodes[call.node].limits.lease_reads,
            "I18: {} answers a read without asking, and has no lease",
            call.id
        );
        let newer = self.leaders.len() - 1 > call.after.term as usize;
        assert!(
            !newer,
            "I18: {} reads by a lease in term {}, and somebody leads in {}",
            call.id,
            call.after.term,
            self.leaders.len() - 1
        );
    }

    /// L4: who waits too long for its disk leads no more.
    fn disk_in_time(&mut self, call: &Call<'_, Raft>) {
        let node = &mut self.nodes[call.node];
        if matches!(call.input, Input::Written { .. } | Input::HeldBack { .. }) {
            node.writes.pop_front();
        }
        if call.output.write.is_some() {
            node.writes.push_back(call.now);
        }
        let oldest = node.writes.front().copied();
        let stalls = oldest.is_some_and(|since| call.now >= since + node.limits.stall);
        assert!(
            !stalls || !call.after.leads() || !matches!(call.input, Input::Tick),
            "L4: {} leads, and has waited for its disk since {oldest:?}",
            call.id
        );
        if stalls && call.before.leads() && !call.after.leads() {
            LeaderStalled.hit();
        }
    }
}

impl Judge<Raft> for Checker {
    fn found(&mut self, _: usize, _: &Image) {}

    fn started(&mut self, at: usize, setup: &Setup, now: Millis, state: &State, raft: &Raft) {
        self.disk_found(at);
        let node = &mut self.nodes[at];
        (node.up, node.failed, node.installing) = (true, false, false);
        node.commit = state.commit;
        node.applied = node.disk.image.map_or(0, |place| place.index);
        node.limits = Limits {
            uncommitted_bytes: setup.uncommitted_bytes,
            election: setup.election,
            stall: setup.stall,
            piece_bytes: setup.piece_bytes,
            tail_bytes: setup.tail_bytes,
            lease_reads: setup.lease_reads,
        };
        node.heard = [now; MAX_NODES];
        node.writes.clear();
        // What is on the disk is what it starts with.
        node.log = node.disk.log().clone();
        node.configs = node.disk.configs().to_vec();
        self.term_monotone(at, state.term, 0);
        self.restarted(at, state);
        self.whole_log(at, raft);
    }

    fn called(&mut self, call: &Call<'_, Raft>) {
        let at = call.node;
        let node = &mut self.nodes[at];
        node.calls += 1;
        if let Input::Written { ok: false, .. } = call.input {
            node.failed = true;
        }
        if node.failed {
            self.poison(call);
            return;
        }
        self.term_monotone(at, call.after.term, call.before.term);
        self.propose(call);
        let changed = self.look_at_log(call);
        self.leads(call);
        self.campaigns(call);
        self.commits(call, changed);
        self.says(call);
        self.snapshots(call);
        self.applied_in_order(call);
        self.reads(call);
        self.believes(call);
        self.disk_in_time(call);
        self.bounded_memory(call);
        if self.nodes[at].calls.is_multiple_of(WHOLE) {
            self.whole_log(at, call.server);
        }
    }

    fn spares(&self, at: usize) -> bool {
        let whole = |id| place(id) != at && self.is_whole(&self.nodes[place(id)]);
        self.configurations().all(|config| is_quorum(config, whole))
    }

    fn damaged(&mut self, at: usize, kept: Index, claim: Position) {
        self.log_lost(at, kept, claim);
    }

    fn landed(&mut self, at: usize, write: &Persist) {
        self.write_landed(at, write);
    }

    fn kept(&mut self, at: usize, snapshot: &Snapshot) {
        self.image_kept(at, snapshot);
    }

    fn loaded(&mut self, at: usize, snapshot: &Snapshot, state: Option<u64>) {
        self.state_loaded(at, snapshot, state);
    }

    fn stopped(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.up = false;
        self.clients.forget_reads(at);
    }

    fn outcome(&mut self, proposal: u64, outcome: Outcome) {
        self.clients.outcome(proposal, outcome);
    }
}
