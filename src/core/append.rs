//! A follower's side of replication: the consistency check, repair, acknowledgement (paper 5.3;
//! raft.md rules 14 to 19).

use super::message::{Append, AppendOutcome, AppendReply, Message};
use super::persistence::Effect;
use super::raft::Raft;
use super::types::{Entry, Index, NodeId, Position, Term};

impl Raft {
    pub(super) fn on_append(&mut self, from: NodeId, append: Append) {
        if append.term < self.hard.term {
            // It teaches a deposed leader, and frees one that is stuck (raft.md rule 7).
            self.refuse(from, &append);
            return;
        }
        if !is_well_formed(&append) {
            // Forged, or its sender is broken.
            return;
        }
        if self.hear_leader(from, append.term, append.seq).is_none() {
            return;
        }
        self.ask_for_log_end(from);
        if self.log_differs(&append) {
            self.refuse(from, &append);
            return;
        }
        if !self.log.reserve(append.entries.len()) {
            // As if it had been lost, but for its sender's being heard.
            return;
        }
        self.take_entries(from, append);
    }

    /// Takes the sender of a message of no older term for the leader of that term. `None` if it
    /// cannot be, or if this is an old copy of what it said; else whether it is a copy of less use:
    /// one does not prove that the leader lives; what is refused later does (raft.md rule 10).
    pub(super) fn hear_leader(&mut self, from: NodeId, term: Term, seq: u64) -> Option<bool> {
        let current = term == self.hard.term;
        let repeated = current && seq <= self.leader_seq;
        if repeated && self.leader.is_none() {
            // What a leader said before it fell silent does not bring it back.
            return None;
        }
        let rival = self.is_leader() || self.leader.is_some_and(|known| known != from);
        if current && rival {
            // A term has one leader.
            return None;
        }
        if !current || self.leader != Some(from) {
            self.become_follower(term, Some(from));
        }
        if seq > self.leader_seq {
            self.leader_seq = seq;
            let lost = self.leader_lost;
            self.leader_lost &= cfg!(keel_bug = "lost_never_void");
            if lost {
                self.words_count_from = self.now + self.options.election;
            }
            // Once for all that comes at the same time.
            if self.leader_heard_at != self.now || lost {
                self.leader_heard_at = self.now;
                self.draw_election_timeout();
            }
        }
        Some(repeated)
    }

    /// Whether the entry before the first one sent is missing or another. What is committed
    /// agrees with every leader's log.
    fn log_differs(&self, append: &Append) -> bool {
        let place = Position {
            index: append.prev_index,
            term: append.prev_term,
        };
        place.index > self.commit && !self.log.matches(place)
    }

    fn refuse(&mut self, to: NodeId, append: &Append) {
        let hint_index = self
            .log
            .find_term_at_most(append.prev_index, append.prev_term);
        // Only an append of an old term asks for what was dropped, and its sender has no use for
        // the hint.
        let hint_index = self.log.term(hint_index).map_or(0, |_| hint_index);
        let hint_term = self.log.term(hint_index).unwrap_or(0);
        let term = self.hard.term;
        let outcome = AppendOutcome::Rejected {
            prev_index: append.prev_index,
            hint_index,
            hint_term,
        };
        // Numbers of another term mean nothing in this one, which its sender may lead as well.
        let current = append.term == term;
        let seq = if current { append.seq } else { 0 };
        let reply = Message::AppendReply(AppendReply { term, seq, outcome });
        self.after_hard(Effect::Send(to, term, Box::new(reply)));
    }

    fn take_entries(&mut self, from: NodeId, append: Append) {
        let Append {
            seq,
            prev_index,
            commit,
            entries,
            ..
        } = append;
        let shown = prev_index + entries.len() as Index;
        let fresh = self.append_missing(entries);
        // All that is committed agrees as well, when the append lies below it (rule 16).
        self.verified = self.verified.max(shown).max(self.commit);
        assert!(
            self.verified <= self.log.last_index(),
            "an append shows no more than it brings"
        );
        let most = match cfg!(keel_bug = "commit_beyond_shown") {
            true => self.log.last_index(),
            false => shown,
        };
        self.commit_to(commit.min(most));
        let term = self.hard.term;
        let acknowledge = Effect::Acknowledge {
            to: from,
            term,
            seq,
        };
        let short = shown >= self.commit && shown < self.log.last_index();
        if cfg!(keel_bug = "truncate_always") && short {
            self.truncate(shown + 1);
        }
        if fresh && !cfg!(keel_bug = "ack_before_sync") {
            self.staged.effect(acknowledge);
        } else {
            // Says what is durable now; a write on its way is reported when it completes.
            self.after_hard(acknowledge);
        }
    }

    /// Appends what is not there, replacing a tail only from the first entry that conflicts:
    /// a short or old append never truncates (raft.md rule 15). True if anything was appended.
    fn append_missing(&mut self, entries: Vec<Entry>) -> bool {
        let mut fresh = false;
        for entry in entries {
            match self.log.term(entry.index) {
                // Long committed, and dropped since.
                None if entry.index <= self.commit => {}
                Some(term) if term == entry.term || entry.index <= self.commit => {
                    assert_eq!(
                        term, entry.term,
                        "the leader's log conflicts with a committed entry at index {}",
                        entry.index
                    );
                }
                Some(_) => {
                    self.truncate(entry.index);
                    self.append(entry);
                    fresh = true;
                }
                None => {
                    self.append(entry);
                    fresh = true;
                }
            }
        }
        fresh
    }
}

/// Entries follow each other and the entry before them, with terms that never decrease and never
/// exceed the leader's.
fn is_well_formed(append: &Append) -> bool {
    let mut index = append.prev_index;
    let mut term = append.prev_term;
    let follows = append.entries.iter().all(|entry| {
        let next = index.checked_add(1) == Some(entry.index) && entry.term >= term;
        (index, term) = (entry.index, entry.term);
        next
    });
    follows && term <= append.term
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Payload;

    fn append(prev: (Index, u64), terms: &[u64]) -> Append {
        let entries = terms.iter().enumerate().map(|(i, term)| Entry {
            index: prev.0 + 1 + i as Index,
            term: *term,
            payload: Payload::Noop,
        });
        Append {
            term: 5,
            seq: 1,
            prev_index: prev.0,
            prev_term: prev.1,
            commit: 0,
            entries: entries.collect(),
        }
    }

    #[test]
    fn entries_must_be_contiguous_with_rising_terms() {
        assert!(is_well_formed(&append((3, 2), &[2, 3, 5])));
        assert!(!is_well_formed(&append((3, 2), &[3, 2])), "terms decrease");
        assert!(
            !is_well_formed(&append((3, 2), &[6])),
            "newer than the leader"
        );
        let mut gap = append((3, 2), &[2, 2]);
        gap.entries[1].index = 9;
        assert!(!is_well_formed(&gap));
    }
}
