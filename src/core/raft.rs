//! One Raft server: its state, its inputs, its outputs. The parts of the protocol are in the
//! files beside this one, named as the papers name them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::vec::Drain;

use super::apply::Fetched;
use super::bytes::Bytes;
use super::lease::Numbers;
use super::log::Log;
use super::membership::Configurations;
use super::message::Message;
use super::options::Options;
use super::persistence::{Effect, Pending, Staged};
use super::progress::Progress;
use super::random::Random;
use super::read::{Questions, ReadError, Reads};
use super::snapshot::Incoming;
use super::transfer::{DEFAULT_PRIORITY, Priority, Transfer};
use super::types::{
    Ask, Entry, HardState, Index, Millis, NodeId, Payload, Restored, Snapshot, Term,
};

/// Why a proposal was refused; it is surely not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// Another server leads, or none.
    NotLeader,
    /// Too much waits for its commit.
    Full,
    /// Larger than [`Options::entry_max`].
    TooBig,
    /// Another change of membership is under way, or this leader is too new for one.
    ChangeInFlight,
    /// The membership changed since the proposal was made.
    StaleEpoch,
    /// Leadership is being handed over.
    TransferInFlight,
    /// This server's disk has no room for entries.
    NoSpace,
    /// There is no memory for one more entry.
    NoMemory,
}

/// What a server is doing, with what it needs only then.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Follower,
    PreCandidate {
        grants: Vec<NodeId>,
    },
    Candidate {
        grants: Vec<NodeId>,
        transfer: bool,
        early: bool,
    },
    Leader(Leader),
}

/// A leader's knowledge.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub peers: BTreeMap<NodeId, Progress>,
    /// Index of the no-op that opened the term.
    pub opened_at: Index,
    pub numbers: Numbers,
    pub heartbeat_at: Millis,
    /// Bytes of own entries above the commit index.
    pub uncommitted: usize,
    pub questions: Questions,
    pub transfer: Option<Transfer>,
    /// It does not hand over of itself before this.
    pub willing_until: Millis,
    /// When the next piece of a snapshot may leave.
    pub piece_at: Millis,
}

/// One Raft server. Every input carries its time, which never goes back.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(super) options: Options,
    pub(super) id: NodeId,
    pub(super) now: Millis,
    pub(super) hard: HardState,
    pub(super) log: Log,
    pub(super) configs: Configurations,
    pub(super) commit: Index,
    /// Highest index handed out to be applied.
    pub(super) handed: Index,
    pub(super) role: Role,
    pub(super) leader: Option<NodeId>,
    /// When the leader was last heard, by an append that is not an old copy; this server itself
    /// counts while it leads, and its start does.
    pub(super) leader_heard_at: Millis,
    /// The host has lost its connection to the leader, which was not heard since.
    pub(super) leader_lost: bool,
    /// A word of a lost connection was void, and none counts before this.
    pub(super) words_count_from: Millis,
    /// See [`Raft::is_early`]; means something while this server leads.
    pub(super) early: bool,
    /// Highest `seq` heard in this term.
    pub(super) leader_seq: u64,
    /// The log agrees with that of this term's leader up to here.
    pub(super) verified: Index,
    pub(super) election_at: Millis,
    /// When a leader was last asked where its log ends.
    pub(super) end_asked_at: Millis,
    pub(super) elections: u64,
    /// This server's own, and that of the members who have another than the usual one.
    pub(super) priority: Priority,
    pub(super) priorities: BTreeMap<NodeId, Priority>,
    /// The host has begun anew, and has not loaded its state yet.
    pub(super) begins: bool,
    /// The newest durable snapshot.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) incoming: Option<Incoming>,
    /// A piece is being kept, of that snapshot or of one that it took the place of.
    pub(super) storing: bool,
    pub(super) fetched: Fetched,
    pub(super) asks: Vec<Ask>,
    pub(super) reads: Reads,
    pub(super) staged: Staged,
    pub(super) pending: VecDeque<Pending>,
    pub(super) next_token: u64,
    pub(super) messages: Vec<(NodeId, Message)>,
    pub(super) random: Random,
    pub(super) poisoned: bool,
    /// See [`Raft::set_full`].
    pub(super) full: bool,
    /// See [`Raft::set_unreadable`].
    pub(super) unreadable: bool,
}

impl Raft {
    /// A server as storage restored it; always a follower at first (raft.md rule 33).
    pub fn new(options: Options, restored: Restored, now: Millis) -> Raft {
        assert!(
            options.heartbeat >= 1,
            "a heartbeat interval is at least 1 ms"
        );
        assert!(
            options.election > options.heartbeat,
            "the election timeout must be above the heartbeat interval"
        );
        assert!(options.piece_bytes >= 1, "a piece has at least one byte");
        let hard = restored.hard;
        let configs = Configurations::restore(&restored);
        let snapshot = restored.snapshot.clone();
        let incoming = restored.partial.clone();
        let log = Log::restore(restored);
        let covered = snapshot.as_ref().map_or(0, |s| s.last.index);
        assert!(
            log.last_term() <= hard.term,
            "the log is newer than the hard state"
        );
        assert!(
            hard.commit <= log.last_index(),
            "a committed entry is missing from the log"
        );
        assert!(
            snapshot.as_ref().is_none_or(|s| log.matches(s.last)) && log.base().index <= covered,
            "the log does not go on where the snapshot ends"
        );
        let commit = hard.commit.max(covered);
        let mut raft = Raft {
            id: options.id,
            random: Random::new(options.seed),
            options,
            now,
            commit,
            handed: covered,
            verified: commit,
            hard,
            log,
            configs,
            role: Role::Follower,
            leader: None,
            leader_heard_at: now,
            leader_lost: false,
            words_count_from: 0,
            early: false,
            leader_seq: 0,
            election_at: 0,
            end_asked_at: 0,
            elections: 0,
            priority: DEFAULT_PRIORITY,
            priorities: BTreeMap::new(),
            begins: false,
            snapshot,
            incoming: incoming
                .filter(|(snapshot, _)| snapshot.last.index > commit)
                .map(|(snapshot, stored)| Incoming::new(snapshot, stored)),
            storing: false,
            fetched: Fetched::default(),
            asks: Vec::new(),
            reads: Reads::default(),
            staged: Staged::default(),
            pending: VecDeque::new(),
            next_token: 1,
            messages: Vec::new(),
            poisoned: false,
            full: false,
            unreadable: false,
        };
        // The first entry is made by bootstrap, and committed by that.
        raft.commit = raft.commit.max(raft.log.last_index().min(1));
        raft.verified = raft.commit;
        // A snapshot may know what the hard state does not yet.
        raft.note_readmission();
        raft.end_claim();
        if cfg!(keel_bug = "claim_forgotten_at_restart") {
            raft.hard.claim = None;
        }
        raft.draw_first_timeout();
        raft
    }

    /// Whether it holds nothing, and never has: one that has voted is in a cluster, whatever became of
    /// its log.
    pub fn is_blank(&self) -> bool {
        let hard = &self.hard;
        // A crash may have left the term of an earlier attempt without its entry.
        let began = hard.term > 1 || hard.vote.is_some() || hard.claim.is_some();
        self.log.last_index() == 0 && !began
    }

    /// Gives a server that holds nothing its first entry, which is committed by being there: every
    /// first member is given the same one. False if the server holds anything.
    pub fn bootstrap(&mut self, entry: Entry) -> bool {
        if self.poisoned || !self.is_blank() {
            return false;
        }
        assert_eq!(
            (1, 1),
            (entry.index, entry.term),
            "bootstrap makes the first entry"
        );
        assert!(
            matches!(entry.payload, Payload::Config(..)),
            "the first entry is a configuration"
        );
        self.hard.term = 1;
        self.staged.hard = true;
        self.append(entry);
        self.commit = 1;
        self.draw_first_timeout();
        true
    }

    /// The first driving call: the clock may stand anywhere, and timeouts run from here.
    pub fn start(&mut self, now: Millis) {
        self.observe(now);
        self.leader_heard_at = now;
        self.draw_first_timeout();
    }

    /// Takes in the time; it never goes back.
    pub(super) fn observe(&mut self, now: Millis) {
        assert!(now >= self.now, "time went back from {} to {now}", self.now);
        self.now = now;
    }

    /// A message of a peer.
    pub fn receive(&mut self, now: Millis, from: NodeId, message: Message) {
        self.observe(now);
        assert!(
            from != self.id,
            "a message to oneself is dropped before it gets here"
        );
        if self.poisoned {
            return;
        }
        match message {
            Message::PreVote(request) => self.on_pre_vote(from, &request),
            Message::PreVoteReply(reply) => self.on_pre_vote_reply(from, &reply),
            Message::Vote(request) => self.on_vote(from, &request),
            Message::VoteReply(reply) => self.on_vote_reply(from, &reply),
            Message::Append(append) => self.on_append(from, append),
            Message::AppendReply(reply) => self.on_append_reply(from, &reply),
            Message::TimeoutNow(message) => self.on_timeout_now(from, &message),
            Message::ReadIndex(question) => self.on_read_index(from, &question),
            Message::ReadIndexReply(reply) => self.on_read_index_reply(from, &reply),
            Message::Snapshot(piece) => self.on_snapshot(from, *piece),
            Message::SnapshotReply(reply) => self.on_snapshot_reply(from, &reply),
            Message::LogEnd(question) => self.on_log_end(from, &question),
            Message::LogEndReply(reply) => self.on_log_end_reply(from, &reply),
        }
    }

    /// Does whatever is due.
    pub fn tick(&mut self, now: Millis) {
        self.observe(now);
        if self.poisoned {
            return;
        }
        if self.is_leader() {
            self.tick_leader();
        } else if self.now >= self.election_at {
            self.election_timed_out();
        }
        self.tick_reads();
    }

    /// When [`Raft::tick`] must be called again at the latest.
    pub fn next_deadline(&self) -> Millis {
        let due = match &self.role {
            _ if self.poisoned => return Millis::MAX,
            // A transfer that takes too long is given up at a heartbeat at the latest.
            Role::Leader(leader) => {
                let due = leader.heartbeat_at.min(self.quorum_lost_at());
                due.min(self.stalled_at()).min(self.pieces_due())
            }
            _ => self.election_at,
        };
        due.min(self.reads_due()).min(self.fetch_due())
    }

    /// Appends the host's data or a cluster command; the entry's place is returned, which says
    /// nothing yet about its fate.
    pub fn propose(
        &mut self,
        now: Millis,
        payload: Payload,
    ) -> Result<(Term, Index), ProposeError> {
        self.observe(now);
        assert!(
            matches!(payload, Payload::Host(_) | Payload::Cluster(_)),
            "no-ops and configurations are not proposed this way"
        );
        let size = payload.weight();
        let Role::Leader(leader) = &mut self.role else {
            return Err(ProposeError::NotLeader);
        };
        let data = matches!(payload, Payload::Host(_));
        if data && self.full {
            // Also while it hands over for that.
            return Err(ProposeError::NoSpace);
        }
        if leader.transfer.is_some() {
            return Err(ProposeError::TransferInFlight);
        }
        if data && payload.len() > self.options.entry_max {
            return Err(ProposeError::TooBig);
        }
        // The first one is always admitted, or a large one could never be (raft.md rule 23).
        let full = leader.uncommitted + size > self.options.uncommitted_bytes;
        if full && leader.uncommitted > 0 {
            return Err(ProposeError::Full);
        }
        if !self.log.reserve(1) {
            return Err(ProposeError::NoMemory);
        }
        Ok(self.append_own(payload))
    }

    /// Gives up leadership or a campaign, e.g. after a pause of this process.
    pub fn step_down(&mut self, now: Millis) {
        self.observe(now);
        self.become_follower(self.hard.term, None);
    }

    /// This node has been excluded: it neither votes nor campaigns until a committed
    /// configuration of a later epoch holds it again.
    pub fn note_exclusion(&mut self, exclusion: super::Exclusion) {
        let known = self
            .hard
            .excluded
            .is_some_and(|x| x.epoch >= exclusion.epoch);
        let committed = self.configs.committed(self.commit);
        // Old news: this node was taken back, or the teller is wrong.
        let refuted = match committed.epoch.cmp(&exclusion.epoch) {
            Ordering::Less => false,
            Ordering::Equal => committed.keeps(self.id),
            Ordering::Greater => committed.contains(self.id),
        };
        if known || refuted || self.poisoned {
            return;
        }
        self.hard.excluded = Some(exclusion);
        self.staged.hard = true;
        self.become_follower(self.hard.term, None);
    }

    /// What is to be sent now. What is not taken of it is lost, like any message may be.
    pub fn take_messages(&mut self) -> Drain<'_, (NodeId, Message)> {
        self.make_messages();
        if !self.poisoned {
            self.announce_commit();
        }
        // Its memory is kept.
        self.messages.drain(..)
    }

    /// The same, but for mere news of what is committed: where more may be proposed at once, which
    /// says it as well. In the end [`Raft::take_messages`] must be called.
    pub fn take_first_messages(&mut self) -> Drain<'_, (NodeId, Message)> {
        self.make_messages();
        self.messages.drain(..)
    }

    fn make_messages(&mut self) {
        if !self.poisoned {
            self.ask_for_reads();
            self.replicate();
            self.begin_round();
            self.tell_successor();
            self.answer_questions();
        }
    }

    /// What storage and host are to be asked for; taken last, for the others may ask. Memory
    /// is brought within its bound.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        self.keep_tail();
        if !self.poisoned {
            self.ask_for_pieces();
        }
        std::mem::take(&mut self.asks)
    }

    /// Whether [`Raft::take_asks`] has anything at once.
    pub fn has_asks(&self) -> bool {
        !self.asks.is_empty()
    }

    /// Sends once what depends on nothing that is unwritten.
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        say(&mut self.messages, to, message);
    }

    pub(super) fn after_hard(&mut self, effect: Effect) {
        let waiting = self.pending.iter_mut().rev().find(|p| p.hard);
        if self.staged.hard {
            self.staged.effect(effect);
        } else if let Some(pending) = waiting {
            pending.effects.push(effect);
        } else {
            self.release(effect);
        }
    }

    /// Adopts a term, following `leader` if the message was a leader's.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        let back = cfg!(keel_bug = "old_term_adopted") && term < self.hard.term;
        assert!(term >= self.hard.term || back, "terms never go back");
        let was_leader = self.is_leader();
        let follows_on = matches!(self.role, Role::Follower) && leader == self.leader;
        if term > self.hard.term || !follows_on {
            self.fail_reads(ReadError::LeaderLost);
        }
        if term > self.hard.term || back {
            self.hard.term = term;
            self.hard.vote = None;
            self.staged.hard = true;
            // A term has one leader, and nothing is known yet of this one's log.
            self.verified = self.commit;
            self.leader_seq = 0;
            if !cfg!(keel_bug = "piece_number_outlives_term") {
                self.incoming.iter_mut().for_each(Incoming::forget_number);
            }
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.leader_lost = false;
        if leader.is_some() {
            self.words_count_from = 0;
        }
        if was_leader {
            // What peers needed may be truncated now, and storage be told so before it answers.
            let of_peers = |ask: &Ask| matches!(ask, Ask::Entries { to: Some(_), .. });
            self.asks.retain(|ask| !of_peers(ask));
            self.leader_heard_at = self.now;
            // A leader had no election timer: start one.
            self.draw_election_timeout();
        }
    }

    /// An empty byte string for entries without a cause.
    pub fn no_bytes() -> Bytes {
        Bytes::from([])
    }
}

/// Puts a message among those that are to be sent. What there is no memory for is lost, as any may be.
pub(super) fn say(messages: &mut Vec<(NodeId, Message)>, to: NodeId, message: Message) {
    if messages.try_reserve(1).is_ok() {
        messages.push((to, message));
    }
}
