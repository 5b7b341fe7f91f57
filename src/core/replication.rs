//! A leader's side of replication: sending, acknowledgements, commitment (paper 5.3, 5.4.2;
//! raft.md rules 5, 14 to 25).

use super::log::{Log, copied};
use super::message::{Append, AppendOutcome, AppendReply, Message};
use super::progress::Progress;
use super::quorum;
use super::raft::{Raft, Role, say};
use super::types::{Ask, Entry, Index, NodeId, Payload, Term};

/// Most entries in one append.
pub const BATCH_ENTRIES: usize = 1024;

impl Raft {
    /// Appends an entry of this leader's own. It may be sent before it is durable here, and
    /// counts here only afterwards (thesis 10.2.1).
    pub(super) fn append_own(&mut self, payload: Payload) -> (Term, Index) {
        let (term, index) = (self.hard.term, self.log.last_index() + 1);
        let size = payload.weight();
        self.append(Entry {
            index,
            term,
            payload,
        });
        let Role::Leader(leader) = &mut self.role else {
            panic!("only a leader appends entries of its own");
        };
        leader.uncommitted += size;
        (term, index)
    }

    /// Follows those who are in the newest configuration, and nobody else.
    pub(super) fn follow_members(&mut self) {
        let (now, id, last) = (self.now, self.id, self.log.last_index());
        let members: Vec<NodeId> = self.configs.latest().members().collect();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.peers.retain(|peer, _| members.contains(peer));
        for peer in members.into_iter().filter(|peer| *peer != id) {
            let start = || Progress::new(last, now);
            leader.peers.entry(peer).or_insert_with(start);
        }
    }

    pub(super) fn tick_leader(&mut self) {
        if self.now >= self.quorum_lost_at() || self.is_stalled() {
            self.become_follower(self.hard.term, None);
            return;
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let heartbeat = self.now >= leader.heartbeat_at;
        if heartbeat {
            leader.heartbeat_at = self.now + self.options.heartbeat;
            leader.peers.values_mut().for_each(Progress::retry_fetch);
            let peers: Vec<NodeId> = leader.peers.keys().copied().collect();
            for peer in peers {
                self.send_append(peer, false);
            }
        }
        self.tick_transfer(heartbeat);
    }

    /// Sends every peer what its window has room for.
    pub(super) fn replicate(&mut self) {
        let last = self.log.last_index();
        self.send_appends(true, |p| p.is_open() && p.next_index() <= last);
    }

    /// An append to every peer that is due one; with entries, to each as many as that takes.
    fn send_appends(&mut self, with_entries: bool, due: impl Fn(&Progress) -> bool) {
        let (base, in_memory) = (self.log.base().index, self.log.first_in_memory());
        let bytes = self.options.batch_bytes;
        // Who needs what is not in memory; nobody, as a rule.
        let mut others = Vec::new();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let numbers = &mut leader.numbers;
        for (id, progress) in leader.peers.iter_mut().filter(|(_, p)| due(p)) {
            let first = progress.next_index();
            if first <= base || progress.sending().is_some() || with_entries && first < in_memory {
                others.push(*id);
                continue;
            }
            loop {
                let entries = match with_entries {
                    true => self.log.batch(progress.next_index(), bytes, BATCH_ENTRIES),
                    false => &[],
                };
                // What there is no memory for is sent later.
                let Some(entries) = copied(entries) else {
                    break;
                };
                let place = (self.hard.term, self.commit, numbers.next(self.now));
                let append = make_append(&self.log, progress, place, entries);
                say(&mut self.messages, *id, Message::Append(append));
                if !with_entries || !due(progress) {
                    break;
                }
            }
        }
        for id in others {
            self.send_append(id, with_entries);
        }
    }

    /// One append: with entries, or empty as a heartbeat. Both carry the place before the next
    /// entry, so that a heartbeat finds out whether anything got lost (raft.md rules 20, 21).
    pub(super) fn send_append(&mut self, to: NodeId, with_entries: bool) {
        if self.needs_snapshot(to) {
            self.offer(to);
            return;
        }
        let (bytes, in_memory) = (self.options.batch_bytes, self.log.first_in_memory());
        let Some(progress) = self.progress_mut(to) else {
            return;
        };
        let first = progress.next_index();
        if !with_entries {
            self.send_entries(to, Vec::new());
        } else if first >= in_memory {
            if let Some(entries) = copied(self.log.batch(first, bytes, BATCH_ENTRIES)) {
                self.send_entries(to, entries);
            }
        } else {
            progress.fetching();
            self.asks.push(Ask::Entries {
                to: Some(to),
                first,
                last: in_memory - 1,
                bytes,
            });
        }
    }

    /// Entries for a peer have come from storage, or could not be read: then the next heartbeat
    /// has it try again.
    pub(super) fn fetched_for(
        &mut self,
        to: NodeId,
        first: Index,
        entries: Result<Vec<Entry>, ()>,
    ) {
        let base = self.log.base().index;
        let Some(progress) = self.progress_mut(to) else {
            return;
        };
        progress.fetched(first, entries.is_ok());
        // It may have gone on meanwhile, or the log have been compacted: then this is of no use.
        let wanted = progress.sending().is_none() && progress.next_index() == first;
        if let Ok(entries) = entries
            && wanted
            && first > base
        {
            self.send_entries(to, entries);
        }
    }

    fn send_entries(&mut self, to: NodeId, entries: Vec<Entry>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.peers.get_mut(&to) else {
            return;
        };
        let place = (self.hard.term, self.commit, leader.numbers.next(self.now));
        let append = make_append(&self.log, progress, place, entries);
        self.send(to, Message::Append(append));
    }

    fn progress_mut(&mut self, id: NodeId) -> Option<&mut Progress> {
        match &mut self.role {
            Role::Leader(leader) => leader.peers.get_mut(&id),
            _ => None,
        }
    }

    /// An answer to what this leader numbered. `None` if there is no more to it than its term.
    pub(super) fn hear(&mut self, from: NodeId, term: Term, seq: u64) -> Option<&mut Progress> {
        let now = self.now;
        // A node that has left cannot depose a leader (raft.md rule 48).
        if self.is_leader() && self.progress(from).is_none() {
            return None;
        }
        if term > self.hard.term {
            self.become_follower(term, None);
        }
        if term < self.hard.term && !cfg!(keel_bug = "ack_of_old_term") {
            return None;
        }
        let progress = self.progress_mut(from)?;
        progress.heard(seq, now);
        Some(progress)
    }

    pub(super) fn on_append_reply(&mut self, from: NodeId, reply: &AppendReply) {
        let last = self.log.last_index();
        let base = self.log.base().index;
        let (now, election) = (self.now, self.options.election);
        let learner = self.configs.latest().is_learner(from);
        if self.hear(from, reply.term, reply.seq).is_none() {
            return;
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let newest_seq = leader.numbers.newest();
        let Some(progress) = leader.peers.get_mut(&from) else {
            return;
        };
        match reply.outcome {
            // More than there is was never sent: forged, or a broken peer.
            AppendOutcome::Accepted { match_index } if match_index > last => {}
            AppendOutcome::Accepted { match_index } => {
                progress.accepted(match_index, newest_seq, base);
                if learner {
                    progress.follow_round(last, now, election);
                }
                // What is committed already commits nothing more.
                if match_index > self.commit {
                    self.advance_commit();
                }
            }
            AppendOutcome::Rejected {
                prev_index,
                hint_index,
                hint_term,
            } => {
                let hint = self.log.find_term_at_most(hint_index, hint_term);
                progress.rejected(reply.seq, prev_index, hint);
            }
        }
    }

    /// Commits what a quorum holds durably, counting only entries of this term (paper 5.4.2);
    /// a leader counts itself only as a voter, and only what it has on disk.
    pub(super) fn advance_commit(&mut self) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let held = |id: NodeId| {
            if id == self.id {
                return self.log.durable();
            }
            leader.peers.get(&id).map_or(0, Progress::match_index)
        };
        let config = self.configs.latest();
        let reached = match cfg!(keel_bug = "removed_leader_counts") && !config.is_voter(self.id) {
            true => {
                let mut config = config.clone();
                config.voters.push(self.id);
                quorum::reached(&config, held)
            }
            false => quorum::reached(config, held),
        };
        let own = self.log.term(reached) == Some(self.hard.term);
        if reached <= self.commit || !(own || cfg!(keel_bug = "commit_old_term")) {
            return;
        }
        self.commit_to(reached);
        self.note_commit();
        self.leave_joint();
    }

    /// More is committed. Those who would otherwise hear of it only with the next heartbeat are told
    /// when everything else has been sent: an append that leaves before that says it as well.
    pub(super) fn note_commit(&mut self) {
        let last = self.log.last_index();
        if let Role::Leader(leader) = &mut self.role {
            let peers = leader.peers.values_mut();
            peers.for_each(|progress| progress.note_commit(last));
        }
    }

    /// Tells those who are not told by anything else what is committed.
    pub(super) fn announce_commit(&mut self) {
        self.send_appends(false, Progress::is_untold);
        if let Role::Leader(leader) = &mut self.role {
            // Who was offered a snapshot instead is not offered it again for that.
            leader.peers.values_mut().for_each(Progress::told);
        }
    }

    /// Moves the commit index, on leader and follower alike.
    pub(super) fn commit_to(&mut self, index: Index) {
        assert!(
            index <= self.log.last_index(),
            "committed beyond the end of the log"
        );
        let first = self.commit + 1;
        if index < first {
            return;
        }
        self.commit = index;
        let changed = self.configs.any_within(first, index);
        if let Role::Leader(leader) = &mut self.role {
            // Its own entries stay in memory until they are committed; older ones need not.
            let own = first.max(leader.opened_at);
            let count = (index + 1).saturating_sub(own) as usize;
            let own = self.log.from(own).iter().take(count);
            let bytes: usize = own.map(|e| e.payload.weight()).sum();
            assert!(
                bytes <= leader.uncommitted,
                "committed more than was appended"
            );
            leader.uncommitted -= bytes;
        }
        if changed {
            self.configuration_committed();
        }
    }
}

/// The append of `entries` to a peer, which its progress takes note of; with the leader's term and
/// commit index, and the append's number.
fn make_append(
    log: &Log,
    progress: &mut Progress,
    (term, commit, seq): (Term, Index, u64),
    entries: Vec<Entry>,
) -> Append {
    progress.told();
    let prev_index = progress.next_index() - 1;
    let Some(prev_term) = log.term(prev_index) else {
        panic!("the entry before the next one to send is missing");
    };
    if let Some(last) = entries.last() {
        let size = entries.iter().map(|e| e.payload.weight()).sum();
        progress.sent(last.index, size);
    }
    Append {
        term,
        seq,
        prev_index,
        prev_term,
        commit,
        entries,
    }
}
