//! What a server is, as numbers: a search over its states must know those it has met before.
//!
//! Two servers that say the same behave the same, whoever drives them, as long as the driver keeps
//! the clock out of it: what only the clock decides is left out. So are limits on memory, which
//! small searches do not reach. Every structure is taken apart by name, so that a new field does
//! not compile until somebody has thought of it here.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::message::{AppendReply, Message};
use super::persistence::{Effect, Pending, Staged};
use super::raft::{Leader, Raft, Role};
use super::transfer::DEFAULT_PRIORITY;
use super::types::{NodeId, Term};

/// Takes the numbers.
pub trait Sink {
    /// A number that means what it is.
    fn word(&mut self, word: u64);
    /// The number of an append of a term, of which only its place among the others of that term
    /// matters; 0 is before them all.
    fn sequence(&mut self, term: Term, seq: u64);
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Raft {
    /// Says what the server is. Outputs must have been taken.
    #[doc(hidden)]
    pub fn digest(&self, sink: &mut dyn Sink) {
        let Raft {
            options: _,
            id: _,
            // The clock, and what only it decides.
            now: _,
            leader_heard_at: _,
            early: _,
            // Small searches have no hosts that lose connections.
            leader_lost,
            words_count_from: _,
            election_at: _,
            end_asked_at: _,
            random: _,
            hard,
            log,
            // Follows from the log and the commit index.
            configs: _,
            commit,
            handed,
            role,
            leader,
            leader_seq,
            verified,
            // Counts for reports only.
            elections: _,
            // Small searches neither read nor hand over.
            priority,
            priorities,
            begins,
            // Nor do they compact: what is not in a log there was never in it.
            snapshot,
            incoming,
            storing,
            fetched: _,
            asks,
            reads,
            staged,
            pending,
            // Only the order of the writes matters.
            next_token: _,
            messages,
            poisoned,
            full,
            unreadable,
        } = self;
        assert!(messages.is_empty(), "messages must be taken first");
        let plain =
            *priority == DEFAULT_PRIORITY && priorities.is_empty() && !begins && reads.is_idle();
        assert!(plain, "reads and priorities have no digest");
        assert!(!full && !unreadable, "a bad disk has no digest");
        assert!(!leader_lost, "a lost connection has no digest");
        let whole = snapshot.is_none() && incoming.is_none() && !storing && asks.is_empty();
        assert!(whole, "snapshots have no digest");
        sink.word(hash_of(hard));
        sink.word(log.last_index());
        for entry in log.from(1) {
            sink.word(hash_of(entry));
        }
        let numbers = [log.durable(), *commit, *handed, *verified];
        numbers.iter().for_each(|number| sink.word(*number));
        sink.word(NodeId::raw(*leader));
        sink.sequence(hard.term, *leader_seq);
        sink.word(u64::from(*poisoned));
        self.digest_role(role, sink);
        self.digest_writes(staged, pending.iter(), sink);
    }

    fn digest_role(&self, role: &Role, sink: &mut dyn Sink) {
        match role {
            Role::Follower => sink.word(0),
            Role::PreCandidate { grants } => digest_grants(1, grants, sink),
            // Whether its votes were early only the clock decides.
            Role::Candidate {
                grants, transfer, ..
            } => {
                digest_grants(2 + u64::from(*transfer), grants, sink);
            }
            Role::Leader(leader) => {
                sink.word(4);
                self.digest_leader(leader, sink);
            }
        }
    }

    fn digest_leader(&self, leader: &Leader, sink: &mut dyn Sink) {
        let Leader {
            peers,
            opened_at,
            numbers,
            heartbeat_at: _,
            // A limit, and it follows from the log and the commit index.
            uncommitted: _,
            questions,
            transfer,
            willing_until: _,
            piece_at: _,
        } = leader;
        let plain = questions.is_empty() && transfer.is_none();
        assert!(plain, "reads and transfers have no digest");
        let term = self.hard.term;
        sink.word(*opened_at);
        sink.sequence(term, numbers.newest());
        sink.word(peers.len() as u64);
        for (id, progress) in peers {
            sink.word(id.get());
            progress.digest(term, sink);
        }
    }

    fn digest_writes<'a>(
        &self,
        staged: &Staged,
        pending: impl ExactSizeIterator<Item = &'a Pending>,
        sink: &mut dyn Sink,
    ) {
        let Staged {
            hard,
            reset: _,
            first,
            effects,
        } = staged;
        sink.word(u64::from(*hard));
        sink.word(first.unwrap_or(0));
        self.digest_effects(effects, sink);
        sink.word(pending.len() as u64);
        for write in pending {
            let Pending {
                token: _,
                since: _,
                hard,
                // For a disk that has no room.
                reset: _,
                first: _,
                last,
                effects,
            } = write;
            sink.word(u64::from(*hard));
            sink.word(*last);
            self.digest_effects(effects, sink);
        }
    }

    /// What waits for a write, but for what belongs to an older term and is never released.
    fn digest_effects(&self, effects: &[Effect], sink: &mut dyn Sink) {
        let present = |effect: &&Effect| match effect {
            Effect::Send(_, term, _) | Effect::Acknowledge { term, .. } => *term == self.hard.term,
            Effect::Campaign(term) => *term == self.hard.term,
            Effect::Install(_) => true,
        };
        sink.word(effects.iter().filter(present).count() as u64);
        for effect in effects.iter().filter(present) {
            match effect {
                Effect::Send(to, _, message) => {
                    sink.word(to.get());
                    message.digest(sink);
                }
                Effect::Acknowledge { to, term, seq } => {
                    sink.word(to.get());
                    sink.sequence(*term, *seq);
                }
                Effect::Campaign(_) => sink.word(0),
                Effect::Install(snapshot) => sink.word(hash_of(snapshot)),
            }
        }
    }
}

fn digest_grants(role: u64, grants: &[NodeId], sink: &mut dyn Sink) {
    let mut sorted = grants.to_vec();
    sorted.sort();
    sink.word(role);
    sink.word(hash_of(&sorted));
}

impl Message {
    /// Says what the message is.
    #[doc(hidden)]
    pub fn digest(&self, sink: &mut dyn Sink) {
        let kind = std::mem::discriminant(self);
        sink.word(hash_of(&kind));
        match self {
            Message::PreVote(request) | Message::Vote(request) => sink.word(hash_of(request)),
            Message::PreVoteReply(reply) | Message::VoteReply(reply) => {
                sink.word(hash_of(&(reply.term, reply.granted)));
            }
            Message::Append(append) => {
                sink.sequence(append.term, append.seq);
                let rest = (append.term, append.prev_index, append.prev_term);
                sink.word(hash_of(&(rest, append.commit, &append.entries)));
            }
            Message::AppendReply(AppendReply { term, seq, outcome }) => {
                sink.sequence(*term, *seq);
                sink.word(hash_of(&(term, outcome)));
            }
            Message::TimeoutNow(message) => sink.word(hash_of(message)),
            Message::ReadIndex(question) => sink.word(hash_of(question)),
            Message::ReadIndexReply(reply) => sink.word(hash_of(reply)),
            Message::Snapshot(piece) => sink.word(hash_of(piece)),
            Message::SnapshotReply(reply) => sink.word(hash_of(reply)),
            Message::LogEnd(question) => sink.word(hash_of(question)),
            Message::LogEndReply(reply) => sink.word(hash_of(reply)),
        }
    }
}
