//! The predicates that must hold after every step, with a memory of all that ever happened, so
//! that they also see what no single state shows. Their numbers, I1 and so on, are those of the
//! design's list. Quorums are counted here on their own, not with the core's functions.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use raftkeel::core::{
    AppendOutcome, Configuration, Entry, Index, Message, NodeId, Payload, Persist, Position, Raft,
    ReadError, ReadId, RoleKind, Term,
};

use crate::cluster::Node;

type Nodes = BTreeMap<NodeId, Node>;

/// What a running server was last seen to be.
#[derive(Default)]
struct View {
    log: Vec<Term>,
    configs: Vec<(Index, Configuration)>,
    role: Option<RoleKind>,
    term: Term,
    commit: Index,
    elections: u64,
    applied: Index,
    poisoned: bool,
}

/// An entry that somebody knew to be committed.
struct Committed {
    term: Term,
    /// Term of the server that knew it first.
    by_term: Term,
}

/// All that ever happened.
#[derive(Default)]
pub struct Checker {
    views: BTreeMap<NodeId, View>,
    leaders: BTreeMap<Term, NodeId>,
    leader_logs: BTreeMap<Term, Vec<Term>>,
    /// Hash of an entry and of everything before it, by index and term.
    chains: BTreeMap<(Index, Term), (u64, u64)>,
    /// Configurations, by index and term of their entries.
    configs: BTreeMap<(Index, Term), Configuration>,
    committed: Vec<Committed>,
    committed_config: (Index, Configuration),
    durable_votes: BTreeMap<(NodeId, Term), NodeId>,
    acks: BTreeMap<(NodeId, Term), Index>,
    sent_terms: BTreeMap<NodeId, Term>,
    /// Reads that wait, with what anybody knew to be committed when they were made.
    reads: BTreeMap<(NodeId, ReadId), Index>,
    /// A disk has lost what was on it: whether enough copies are left is not looked at any more.
    pub disks_lie: bool,
}

/// A majority of the voters, and of the outgoing ones if there are any.
fn is_quorum(config: &Configuration, member: impl Fn(NodeId) -> bool) -> bool {
    let most = |list: &[NodeId]| 2 * list.iter().filter(|id| member(**id)).count() > list.len();
    most(&config.voters) && (config.outgoing.is_empty() || most(&config.outgoing))
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn payload_hash(payload: &Payload) -> u64 {
    match payload {
        Payload::Noop => 1,
        Payload::Host(data) => hash_of(&(2, data)),
        Payload::Cluster(data) => hash_of(&(3, data)),
        Payload::Config(c, cause) => {
            hash_of(&(4, c.epoch, &c.voters, &c.outgoing, &c.learners, cause))
        }
    }
}

fn config_of(entry: &Entry) -> Option<&Configuration> {
    match &entry.payload {
        Payload::Config(config, _) => Some(config),
        _ => None,
    }
}

impl Checker {
    // ---- events ----------------------------------------------------------

    /// A server has taken an input.
    pub fn stepped(&mut self, id: NodeId, nodes: &Nodes) {
        let Some(raft) = &nodes[&id].raft else {
            return;
        };
        let view = self.views.remove(&id).unwrap_or_default();
        if view.poisoned {
            self.views.insert(id, view);
            return;
        }
        let mut next = self.look_at_log(id, raft, &view);
        // What a snapshot holds counts as applied.
        next.applied = view.applied.max(nodes[&id].loaded);
        self.check_term(id, raft, &view);
        self.check_leader(id, raft, &view, &next);
        self.check_candidate(id, raft, &view, &next);
        self.check_commit(id, raft, &view, &next, nodes);
        self.check_progress(id, raft);
        self.views.insert(id, next);
        self.check_up_to_date(id);
        self.check_copies(nodes);
    }

    /// A server has stopped, and forgets what is not on its disk.
    pub fn stopped(&mut self, id: NodeId) {
        self.views.remove(&id);
        self.reads.retain(|(node, _), _| *node != id);
    }

    /// A server gets another past.
    pub fn forget(&mut self, id: NodeId) {
        self.views.remove(&id);
        self.sent_terms.remove(&id);
        self.durable_votes.retain(|(node, _), _| *node != id);
    }

    /// A server has been told that a write failed.
    pub fn poisoned(&mut self, id: NodeId) {
        if let Some(view) = self.views.get_mut(&id) {
            view.poisoned = true;
        }
    }

    /// A write has reached a disk. I2: one vote a term, over restarts too.
    pub fn written(&mut self, id: NodeId, write: &Persist) {
        let Some(hard) = write.hard else {
            return;
        };
        if let Some(vote) = hard.vote {
            let known = *self.durable_votes.entry((id, hard.term)).or_insert(vote);
            assert_eq!(
                known, vote,
                "I2: {id} voted for two nodes in term {}",
                hard.term
            );
        }
    }

    /// A server was given entries to apply.
    pub fn applied(&mut self, id: NodeId, entries: &[Entry], nodes: &Nodes) {
        let durable = entries.iter().map(|e| self.disk_term(&nodes[&id], e.index));
        let durable: Vec<_> = durable.collect();
        let Some(view) = self.views.get_mut(&id) else {
            return;
        };
        for (entry, durable) in entries.iter().zip(durable) {
            assert!(!view.poisoned, "I21: {id} applies after an I/O error");
            view.applied += 1;
            assert_eq!(
                view.applied, entry.index,
                "I11: {id} applies out of its order"
            );
            assert!(
                entry.index <= view.commit,
                "I11: {id} applies what is not committed"
            );
            let committed = &self.committed[entry.index as usize - 1];
            assert_eq!(
                committed.term, entry.term,
                "I6: {id} applies another entry at {}",
                entry.index
            );
            let chain = self.chains[&(entry.index, entry.term)];
            assert_eq!(
                chain.1,
                payload_hash(&entry.payload),
                "I6: {id} applies another payload at {}",
                entry.index
            );
            assert_eq!(
                Some(entry.term),
                durable,
                "{id} applies what is not on its disk"
            );
        }
    }

    /// A server has taken a read in.
    pub fn read_made(&mut self, id: NodeId, read: ReadId) {
        let before = self.reads.insert((id, read), self.committed());
        assert!(before.is_none(), "{id} gives {read:?} out twice");
    }

    /// I17: who reads at an index has applied all that was committed anywhere when it asked.
    pub fn read_finished(&mut self, id: NodeId, read: ReadId, result: Result<Index, ReadError>) {
        let Some(committed) = self.reads.remove(&(id, read)) else {
            panic!("{id} finishes {read:?}, which does not wait");
        };
        let Some(view) = self.views.get(&id) else {
            panic!("{id} does not run, and finishes {read:?}");
        };
        assert!(!view.poisoned, "I21: {id} reads after an I/O error");
        if let Ok(index) = result {
            assert!(
                index >= committed,
                "I17: {id} reads at {index}, {committed} was committed before"
            );
            assert!(
                view.applied >= index,
                "I17: {id} reads at {index}, and has applied {}",
                view.applied
            );
        }
    }

    /// A message leaves a server: what it says must be on the disk.
    pub fn sent(&mut self, id: NodeId, to: NodeId, message: &Message, nodes: &Nodes) {
        let node = &nodes[&id];
        let durable = node.disk.hard.term;
        assert!(to != id, "I20: {id} talks to itself");
        let poisoned = self.views.get(&id).is_some_and(|view| view.poisoned);
        assert!(!poisoned, "I21: {id} speaks after an I/O error");
        match message {
            Message::PreVote(request) => assert!(durable + 1 >= request.term, "I3: {id}"),
            Message::PreVoteReply(reply) if reply.granted => {}
            _ => self.sent_term(id, message.term(), durable),
        }
        match message {
            Message::Vote(request) => self.check_vote(id, id, request.term),
            Message::VoteReply(reply) if reply.granted => self.check_vote(id, to, reply.term),
            Message::Append(append) => self.check_append(id, append),
            Message::AppendReply(reply) => {
                if let AppendOutcome::Accepted { match_index } = reply.outcome {
                    self.check_ack(id, reply.term, match_index, node);
                }
            }
            _ => {}
        }
    }

    // ---- predicates ------------------------------------------------------

    /// I3: what is said of a term is durable.
    fn sent_term(&mut self, id: NodeId, term: Term, durable: Term) {
        assert!(
            durable >= term,
            "I3: {id} speaks in term {term}, its disk has {durable}"
        );
        let newest = self.sent_terms.entry(id).or_default();
        *newest = term.max(*newest);
    }

    /// I2: a released vote is on the disk.
    fn check_vote(&self, id: NodeId, candidate: NodeId, term: Term) {
        assert_eq!(
            Some(&candidate),
            self.durable_votes.get(&(id, term)),
            "I2: {id} gives a vote of term {term} that is not durable"
        );
    }

    /// What a leader sends is its log.
    fn check_append(&self, id: NodeId, append: &raftkeel::core::Append) {
        assert_eq!(Some(&id), self.leaders.get(&append.term), "I1: {id}");
        let place = (append.prev_index, append.prev_term);
        let known = place == (0, 0) || self.chains.contains_key(&place);
        assert!(known, "{id} sends an unknown entry before the first");
        let mut index = append.prev_index;
        for entry in &append.entries {
            index += 1;
            assert_eq!(index, entry.index, "{id} sends a gap");
            let chain = self.chains[&(entry.index, entry.term)];
            assert_eq!(chain.1, payload_hash(&entry.payload), "{id} sends another");
        }
    }

    /// I12: what is acknowledged is durable, and is what the leader has there.
    fn check_ack(&mut self, id: NodeId, term: Term, upto: Index, node: &Node) {
        let durable = self.disk_term(node, upto);
        assert!(
            durable.is_some(),
            "I12: {id} acknowledges {upto}, which is not on its disk"
        );
        if upto > 0 {
            let leaders = &self.leader_logs[&term];
            assert_eq!(
                leaders.get(upto as usize - 1).copied(),
                durable,
                "I12: {id} acknowledges {upto} in term {term}, the leader has another entry there"
            );
        }
        let most = self.acks.entry((id, term)).or_default();
        *most = upto.max(*most);
    }

    /// I5: the same index and term, the same log up to there, over all of history.
    fn look_at_log(&mut self, id: NodeId, raft: &Raft, view: &View) -> View {
        let last = raft.log().last_index();
        let known = view.log.len().min(last as usize) as Index;
        let same =
            (1..=known).take_while(|at| self.term_at(raft, *at) == view.log[*at as usize - 1]);
        let same = same.count();
        let mut terms = view.log[..same].to_vec();
        let mut configs = view.configs.clone();
        configs.retain(|(index, _)| *index <= same as Index);
        for index in same as Index + 1..=last {
            let term = self.term_at(raft, index);
            if let Some(entry) = raft.log().get(index) {
                self.look_at_entry(id, entry, terms.last().copied());
            }
            assert!(
                self.chains.contains_key(&(index, term)),
                "I5: {id} has an entry {index}.{term} that nobody has seen"
            );
            terms.push(term);
            if let Some(config) = self.configs.get(&(index, term)) {
                self.check_adjacent(id, configs.last().map(|(_, c)| c), config);
                configs.push((index, config.clone()));
            }
        }
        let latest = configs.last().cloned().unwrap_or_default();
        assert_eq!(
            (latest.0, &latest.1),
            (raft.configuration_index(), raft.configuration()),
            "I15: {id} is not in the newest configuration of its log"
        );
        View {
            log: terms,
            configs,
            role: Some(raft.role()),
            term: raft.term(),
            commit: raft.commit(),
            elections: raft.elections(),
            ..View::default()
        }
    }

    /// I5: one entry, and one log before it, for an index and a term.
    fn look_at_entry(&mut self, id: NodeId, entry: &Entry, before: Option<Term>) {
        let before = before.map_or(0, |term| self.chains[&(entry.index - 1, term)].0);
        let own = payload_hash(&entry.payload);
        let chain = (hash_of(&(before, entry.term, own)), own);
        let place = (entry.index, entry.term);
        let known = *self.chains.entry(place).or_insert(chain);
        assert_eq!(
            known, chain,
            "I5: {id} has another entry {}.{}, or another before it",
            entry.index, entry.term
        );
        if let Some(config) = config_of(entry) {
            self.configs.insert(place, config.clone());
        }
    }

    /// Term of an entry of a server's log; what it has dropped of it is committed.
    fn term_at(&self, raft: &Raft, index: Index) -> Term {
        let base = raft.log().base();
        if index < base.index {
            return self.committed[index as usize - 1].term;
        }
        raft.log().term(index).expect("the log has no gaps")
    }

    /// Term of what is durable at a server, in its log or covered by a snapshot.
    fn disk_term(&self, node: &Node, index: Index) -> Option<Term> {
        let snapshot = node.disk.snapshot.as_ref();
        let covered = snapshot.map_or(0, |(snapshot, _)| snapshot.last.index);
        if index > 0 && index <= covered {
            return self.committed.get(index as usize - 1).map(|c| c.term);
        }
        node.disk.term(index)
    }

    /// I15: every change keeps the voters, or enters or leaves a joint configuration.
    fn check_adjacent(&self, id: NodeId, before: Option<&Configuration>, after: &Configuration) {
        let Some(before) = before else {
            return;
        };
        let next = after.epoch == before.epoch + 1 && !before.is_joint();
        let learners = next && after.voters == before.voters && !after.is_joint();
        let enters = next && after.outgoing == before.voters;
        let leaves = before.is_joint() && *after == before.left();
        assert!(
            learners || enters || leaves,
            "I15: {id} goes from {before:?} to {after:?}"
        );
    }

    /// I3: terms never go back, not by a restart either.
    fn check_term(&self, id: NodeId, raft: &Raft, view: &View) {
        let sent = self.sent_terms.get(&id).copied().unwrap_or_default();
        assert!(
            raft.term() >= view.term.max(sent),
            "I3: the term of {id} goes back"
        );
    }

    /// I1, I2, I4, I7, I15 of leaders.
    fn check_leader(&mut self, id: NodeId, raft: &Raft, view: &View, next: &View) {
        if !raft.is_leader() {
            return;
        }
        let term = raft.term();
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "I1: two leaders in term {term}");
        let went_on = view.role == Some(RoleKind::Leader) && view.term == term;
        if went_on {
            assert!(
                next.log.starts_with(&view.log),
                "I4: leader {id} changes its log"
            );
        } else {
            self.check_vote(id, id, term);
            for (i, committed) in self.committed.iter().enumerate() {
                assert!(
                    committed.by_term >= term || next.log.get(i) == Some(&committed.term),
                    "I7: leader {id} of term {term} lacks the committed entry {}",
                    i + 1
                );
            }
        }
        if went_on && next.configs.len() > view.configs.len() {
            let before = view.configs.last().map_or(0, |(index, _)| *index);
            let own = raft.log().term(raft.commit()) == Some(term);
            assert!(
                before <= raft.commit() && own,
                "I15: {id} changes members before it may"
            );
        }
        self.leader_logs.insert(term, next.log.clone());
    }

    /// I16: only a voter, of the newest configuration or of the committed one, campaigns.
    fn check_candidate(&self, id: NodeId, raft: &Raft, view: &View, next: &View) {
        if raft.elections() == view.elections {
            return;
        }
        let committed = next.configs.iter().rev().find(|c| c.0 <= next.commit);
        let newest = next.configs.last();
        let voter = [committed, newest]
            .into_iter()
            .flatten()
            .any(|(_, config)| config.is_voter(id));
        assert!(voter, "I16: {id} campaigns and is no voter");
        let (_, config) = newest.expect("a voter has a configuration");
        let excluded = raft.hard_state().excluded;
        let out = excluded.is_some_and(|x| x.epoch >= config.epoch || !config.contains(id));
        assert!(!out, "I16: {id} campaigns and is excluded");
    }

    /// I6, I9, I11.
    fn check_commit(&mut self, id: NodeId, raft: &Raft, view: &View, next: &View, nodes: &Nodes) {
        let (commit, term) = (raft.commit(), raft.term());
        assert!(
            commit >= view.commit,
            "I11: the commit index of {id} goes back"
        );
        assert!(
            commit <= raft.log().last_index(),
            "I11: {id} commits beyond its log"
        );
        for index in view.commit + 1..=commit {
            let own = next.log[index as usize - 1];
            if index as usize > self.committed.len() {
                let by_term = term;
                self.committed.push(Committed { term: own, by_term });
                if let Some((_, config)) = next.configs.iter().find(|c| c.0 == index) {
                    self.committed_config = (index, config.clone());
                }
            }
            assert_eq!(
                self.committed[index as usize - 1].term,
                own,
                "I6: {id} commits another entry at {index}"
            );
        }
        let led = view.role == Some(RoleKind::Leader) && view.term == term;
        if led && commit > view.commit {
            assert_eq!(
                raft.log().term(commit),
                Some(term),
                "I11: leader {id} commits an entry of an old term by counting"
            );
            let (_, config) = view.configs.last().expect("a leader has a configuration");
            let held = |voter| self.disk_term(&nodes[&voter], commit) == Some(term);
            let at = Position {
                index: commit,
                term,
            };
            let durable = |voter| held(voter) || nodes[&voter].disk.claims(at);
            assert!(
                self.disks_lie || is_quorum(config, durable),
                "I9: leader {id} commits {commit} without a durable quorum"
            );
        }
    }

    /// I13: a leader believes no more than it was told.
    fn check_progress(&self, id: NodeId, raft: &Raft) {
        let term = raft.term();
        let others = raft.configuration().members().filter(|peer| *peer != id);
        for peer in others {
            let Some(progress) = raft.progress(peer) else {
                assert!(!raft.is_leader(), "leader {id} knows nothing of {peer}");
                return;
            };
            let told = self.acks.get(&(peer, term)).copied().unwrap_or_default();
            assert!(
                progress.match_index() <= told,
                "I13: {id} believes {peer} has {}, it said {told}",
                progress.match_index()
            );
            assert!(
                progress.next_index() > progress.match_index(),
                "I13: {id} sends {peer} what it has: {progress:?}"
            );
        }
    }

    /// I10: who has the more up-to-date log has all that the other knows to be committed.
    fn check_up_to_date(&self, id: NodeId) {
        let last = |v: &View| (v.log.last().copied().unwrap_or_default(), v.log.len());
        let holds = |a: &View, b: &View| {
            let commit = b.commit as usize;
            commit == 0 || a.log.get(commit - 1) == b.log.get(commit - 1)
        };
        let own = &self.views[&id];
        for (peer, other) in &self.views {
            let (first, second) = (last(own), last(other));
            assert!(
                first < second || holds(own, other),
                "I10: {id} lacks what {peer} committed"
            );
            assert!(
                second < first || holds(other, own),
                "I10: {peer} lacks what {id} committed"
            );
        }
    }

    /// I8: every quorum that can act has a durable copy of all that is committed.
    fn check_copies(&self, nodes: &Nodes) {
        let Some(last) = self.committed.last() else {
            return;
        };
        let index = self.committed.len() as Index;
        if self.disks_lie || index == 1 {
            // Bootstrap commits the first entry by decree.
            return;
        }
        let term = last.term;
        // Who has lost it, and says so, protects it still.
        let lacks = |id: NodeId| {
            self.disk_term(&nodes[&id], index) != Some(term)
                && !nodes[&id].disk.claims(Position { index, term })
        };
        let newest = (self.committed_config.0, &self.committed_config.1);
        let later = self.views.values().filter_map(|view| view.configs.last());
        let later = later.map(|(at, config)| (*at, config));
        for (_, config) in later.filter(|c| c.0 > newest.0).chain([newest]) {
            assert!(
                !is_quorum(config, lacks),
                "I8: {index} is committed, and a quorum of {config:?} lacks it on its disks"
            );
        }
    }

    // ---- questions -------------------------------------------------------

    /// Number of entries that anybody ever knew to be committed.
    pub fn committed(&self) -> Index {
        self.committed.len() as Index
    }

    /// The newest configuration that anybody ever knew to be committed.
    pub fn configuration(&self) -> &Configuration {
        &self.committed_config.1
    }
}
