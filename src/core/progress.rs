//! What a leader knows of one peer's log, and how much it may send it (raft.md rules 19 to 21, 39).

use std::collections::VecDeque;

use super::digest::Sink;
use super::snapshot::Sending;
use super::types::{Index, Millis, Snapshot, Term};

/// Whether the leader knows where the peer's log agrees with its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Not known: one append at a time.
    Probe {
        /// An append is on its way; the next one leaves with its answer or a heartbeat.
        waiting: bool,
    },
    /// Known: appends leave before earlier ones are acknowledged, within the window.
    Replicate,
    /// The log does not reach back to what the peer needs: it is sent a snapshot, and no entries
    /// until its log connects again.
    Snapshot(Sending),
}

/// Whether the entries to be sent next are wanted from storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetch {
    No,
    /// From this one on.
    Asked(Index),
    /// Not to be asked again before the next heartbeat.
    Failed,
}

/// One round of catching up (thesis 4.2.1).
#[derive(Clone, Copy, Debug)]
struct Round {
    target: Index,
    started: Millis,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct Progress {
    match_index: Index,
    /// Newest number sent to anybody when `match_index` was learnt: answers to later appends
    /// come from a log that holds it.
    matched_seq: u64,
    /// The peer refused what it had acknowledged.
    lost_entries: bool,
    next_index: Index,
    flow: Flow,
    fetch: Fetch,
    /// Last index and bytes of every append that may still be on its way.
    inflight: VecDeque<(Index, usize)>,
    inflight_bytes: usize,
    heard_at: Millis,
    heard_seq: u64,
    round: Option<Round>,
    caught_up: bool,
    /// More was committed since the last append, and it is up to date but for that.
    untold: bool,
}

/// Most appends with entries on their way to one peer.
pub const WINDOW_MESSAGES: usize = 64;
/// Most bytes of entries on their way to one peer; one append may exceed it.
pub const WINDOW_BYTES: usize = 4 << 20;

impl Progress {
    /// A peer at the start of a term. It counts as just heard, so that a leader does not step
    /// down before anybody could answer.
    pub fn new(last_index: Index, now: Millis) -> Progress {
        Progress {
            match_index: 0,
            matched_seq: 0,
            lost_entries: false,
            next_index: last_index + 1,
            flow: Flow::Probe { waiting: false },
            fetch: Fetch::No,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            heard_at: now,
            heard_seq: 0,
            round: None,
            caught_up: false,
            untold: false,
        }
    }

    /// The peer's durable log agrees with the leader's up to here.
    pub fn match_index(&self) -> Index {
        self.match_index
    }

    /// The next entry to send.
    pub fn next_index(&self) -> Index {
        self.next_index
    }

    /// When anything of this term came from the peer.
    pub fn heard_at(&self) -> Millis {
        self.heard_at
    }

    /// Number of the newest append that the peer has answered.
    pub fn heard_seq(&self) -> u64 {
        self.heard_seq
    }

    /// The peer has answered the append numbered `seq`. An old copy of an answer does not prove
    /// that the peer is in contact.
    pub fn heard(&mut self, seq: u64, now: Millis) {
        if seq > self.heard_seq {
            self.heard_seq = seq;
            self.heard_at = now;
        }
    }

    /// Whether the leader knows where the peer's log agrees, and what it is doing about it.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Whether entries may be sent now.
    pub fn is_open(&self) -> bool {
        match self.flow {
            _ if self.fetch != Fetch::No => false,
            Flow::Probe { waiting } => !waiting,
            Flow::Replicate => {
                self.inflight.len() < WINDOW_MESSAGES && self.inflight_bytes < WINDOW_BYTES
            }
            Flow::Snapshot(_) => false,
        }
    }

    /// The entries to be sent next have been asked of storage.
    pub(super) fn fetching(&mut self) {
        self.fetch = Fetch::Asked(self.next_index);
    }

    /// Storage has answered what was asked from `first` on. Where that is not what was asked last,
    /// the other answer is still to come.
    pub(super) fn fetched(&mut self, first: Index, ok: bool) {
        if self.fetch == Fetch::Asked(first) {
            self.fetch = if ok { Fetch::No } else { Fetch::Failed };
        }
    }

    /// What could not be read may be asked for again.
    pub(super) fn retry_fetch(&mut self) {
        if self.fetch == Fetch::Failed {
            self.fetch = Fetch::No;
        }
    }

    /// The snapshot on its way to the peer.
    pub fn sending(&self) -> Option<&Sending> {
        match &self.flow {
            Flow::Snapshot(sending) => Some(sending),
            _ => None,
        }
    }

    /// The snapshot on its way to the peer.
    pub(super) fn sending_mut(&mut self) -> Option<&mut Sending> {
        match &mut self.flow {
            Flow::Snapshot(sending) => Some(sending),
            _ => None,
        }
    }

    /// The peer needs what the log does not hold any more.
    pub(super) fn begin_snapshot(&mut self, snapshot: Snapshot) {
        self.next_index = snapshot.last.index.max(self.match_index) + 1;
        self.clear_window();
        self.fetch = Fetch::No;
        self.flow = Flow::Snapshot(Sending::new(snapshot));
    }

    /// More was committed than the peer was told, which has been sent all there is up to `last`.
    pub fn note_commit(&mut self, last: Index) {
        self.untold = self.next_index > last;
    }

    /// An append is made for it, which says what is committed.
    pub fn told(&mut self) {
        self.untold = false;
    }

    /// Whether it must be told what is committed.
    pub fn is_untold(&self) -> bool {
        self.untold
    }

    /// Entries up to `last` have been sent.
    pub fn sent(&mut self, last: Index, bytes: usize) {
        match &mut self.flow {
            Flow::Probe { waiting } => *waiting = true,
            Flow::Replicate => {
                assert!(
                    last >= self.next_index,
                    "sent entries must follow the sent ones"
                );
                self.next_index = last + 1;
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
            }
            Flow::Snapshot(_) => panic!("no entries are sent behind a snapshot"),
        }
    }

    /// The peer's log agrees; `match_index` of it is durable there. `newest_seq` is the number of
    /// the newest append to anybody; `base` is what the leader's log begins behind.
    pub fn accepted(&mut self, match_index: Index, newest_seq: u64, base: Index) {
        if match_index > self.match_index {
            self.match_index = match_index;
            self.matched_seq = newest_seq;
        }
        let snapshot = matches!(self.flow, Flow::Snapshot(_));
        // The log connects again, wherever that is (raft.md rule 39).
        if snapshot && match_index >= base {
            self.next_index = match_index + 1;
        }
        self.next_index = self.next_index.max(self.match_index + 1);
        if snapshot && match_index < base {
            // It says what the log cannot go on from: an old answer, or the log has gone.
            return;
        }
        self.flow = Flow::Replicate;
        while let Some((last, bytes)) = self.inflight.front().copied() {
            if last > self.match_index {
                break;
            }
            self.inflight.pop_front();
            self.inflight_bytes -= bytes;
        }
        assert!(
            self.next_index > self.match_index,
            "next must stay above match"
        );
    }

    /// The peer refused append `seq` at `prev_index`; its log may agree up to `hint`. False if
    /// this is old news.
    pub fn rejected(&mut self, seq: u64, prev_index: Index, hint: Index) -> bool {
        if prev_index <= self.match_index && seq > self.matched_seq {
            // Its disk has lost what it had acknowledged, and it must be filled again.
            self.lost_entries = true;
            self.match_index = 0;
        }
        let stale = match self.flow {
            Flow::Probe { .. } => prev_index + 1 != self.next_index,
            Flow::Replicate => prev_index >= self.next_index,
            // An append from before.
            Flow::Snapshot(_) => true,
        };
        if stale || prev_index <= self.match_index {
            return false;
        }
        self.probe_from(hint.min(prev_index - 1) + 1);
        true
    }

    /// Whether the peer was found to have lost entries that it had acknowledged in this term: its
    /// disk must not be trusted.
    pub fn has_lost_entries(&self) -> bool {
        self.lost_entries
    }

    /// What was on its way may be lost: find out where the peer stands.
    fn probe_from(&mut self, next_index: Index) {
        self.next_index = next_index.max(self.match_index + 1);
        self.flow = Flow::Probe { waiting: false };
        self.fetch = Fetch::No;
        self.clear_window();
    }

    fn clear_window(&mut self) {
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// Says all that decides what is sent to the peer and believed of it, but for times.
    pub(super) fn digest(&self, term: Term, sink: &mut dyn Sink) {
        let Progress {
            match_index,
            matched_seq,
            lost_entries,
            next_index,
            flow,
            // Small searches keep all of the log in memory.
            fetch: _,
            // Only limits look at what is on its way.
            inflight: _,
            inflight_bytes: _,
            // Only the watch over the quorum and catching up look at these, and the clock.
            heard_at: _,
            heard_seq: _,
            round: _,
            caught_up: _,
            // It is told before anything else happens.
            untold: _,
        } = self;
        sink.word(*match_index);
        sink.sequence(term, *matched_seq);
        sink.word(u64::from(*lost_entries));
        sink.word(*next_index);
        sink.word(u64::from(*flow == Flow::Replicate));
        sink.word(u64::from(self.sending().is_some()));
        sink.word(u64::from(self.is_open()));
    }

    /// Follows a learner's rounds of catching up: it has caught up once a round takes less than
    /// an election timeout (thesis 4.2.1).
    pub fn follow_round(&mut self, last_index: Index, now: Millis, election: Millis) {
        match self.round {
            Some(round) if self.match_index < round.target => {}
            Some(round) if now - round.started < election => self.caught_up = true,
            _ => {
                self.round = Some(Round {
                    target: last_index,
                    started: now,
                });
            }
        }
    }

    /// Whether the learner's log is close enough to the leader's for it to vote.
    pub fn has_caught_up(&self) -> bool {
        self.caught_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::core::Position;

    #[test]
    fn a_probe_sends_one_append_at_a_time() {
        let mut p = Progress::new(5, 0);
        assert!(p.is_open());
        p.sent(9, 100);
        assert!(!p.is_open());
        assert_eq!(6, p.next_index(), "a probe does not run ahead");
    }

    #[test]
    fn the_window_closes_and_opens_again() {
        let mut p = Progress::new(0, 0);
        p.accepted(0, 0, 0);
        for i in 1..=WINDOW_MESSAGES as u64 {
            assert!(p.is_open());
            p.sent(i, 1);
        }
        assert!(!p.is_open());
        p.accepted(2, 0, 0);
        assert!(p.is_open());
        assert_eq!(
            (2, WINDOW_MESSAGES as u64 + 1),
            (p.match_index(), p.next_index())
        );
    }

    #[test]
    fn bytes_close_the_window_too() {
        let mut p = Progress::new(0, 0);
        p.accepted(0, 0, 0);
        p.sent(1, WINDOW_BYTES);
        assert!(!p.is_open());
    }

    #[test]
    fn a_rejection_goes_back_to_the_hint_and_clears_the_window() {
        let mut p = Progress::new(10, 0);
        p.accepted(3, 0, 0);
        p.sent(20, 7);
        assert!(p.rejected(9, 15, 8));
        assert_eq!(9, p.next_index());
        assert!(p.is_open(), "an append may leave at once");
    }

    #[test]
    fn old_rejections_are_ignored() {
        let mut p = Progress::new(10, 0);
        assert!(!p.rejected(1, 7, 2), "not what the probe asked");
        assert!(p.rejected(2, 10, 4));
        assert!(!p.rejected(2, 10, 4), "the same again");
        p.accepted(6, 9, 0);
        assert!(!p.rejected(9, 6, 2), "below match");
    }

    #[test]
    fn a_refusal_of_what_was_acknowledged_before_is_a_loss() {
        let mut p = Progress::new(10, 0);
        p.accepted(10, 5, 0);
        assert!(!p.rejected(5, 10, 6) && !p.has_lost_entries(), "reordered");
        assert!(p.rejected(6, 10, 6) && p.has_lost_entries());
        assert_eq!((0, 7), (p.match_index(), p.next_index()));
    }

    /// It lost its log, and is sent a snapshot; a word from before still arrives.
    #[test]
    fn an_old_answer_during_a_snapshot_keeps_next_above_match() {
        let mut p = Progress::new(10, 0);
        let snapshot = Snapshot {
            last: Position { index: 5, term: 1 },
            config: Arc::default(),
            config_index: 1,
            size: 1,
            crc: 0,
            pieces: None,
        };
        p.begin_snapshot(snapshot);
        p.accepted(8, 1, 9);
        assert_eq!((8, 9), (p.match_index(), p.next_index()));
        assert!(p.sending().is_some(), "the log does not connect there");
        p.accepted(9, 2, 9);
        assert_eq!((9, 10), (p.match_index(), p.next_index()));
        assert!(p.sending().is_none());
    }

    #[test]
    fn a_learner_catches_up_in_a_round_shorter_than_an_election() {
        let mut p = Progress::new(0, 0);
        p.follow_round(100, 0, 50);
        p.accepted(100, 0, 0);
        p.follow_round(200, 80, 50);
        assert!(!p.has_caught_up(), "the first round took 80 ms");
        p.follow_round(200, 80, 50);
        p.accepted(200, 0, 0);
        p.follow_round(300, 100, 50);
        assert!(p.has_caught_up());
    }
}
