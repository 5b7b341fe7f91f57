//! What cores say to each other. `wire` turns it into bytes.

use super::bytes::Bytes;
use super::types::{Entry, Index, Snapshot, Term};

/// A request for a vote or a pre-vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VoteRequest {
    /// The term campaigned for; in a pre-vote the term that would be campaigned for.
    pub term: Term,
    /// Index of the candidate's last entry.
    pub last_index: Index,
    /// Term of the candidate's last entry.
    pub last_term: Term,
    /// Leadership is being handed over: stickiness does not apply (thesis 3.10).
    pub transfer: bool,
}

/// The answer to a vote or pre-vote request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VoteReply {
    /// Granted pre-votes carry the requested term, everything else the responder's own
    /// (raft.md rule 6).
    pub term: Term,
    /// Whether the vote was given.
    pub granted: bool,
    /// Of a vote that was given, not of a pre-vote: its giver had heard a leader within E.
    pub early: bool,
}

/// Entries, or a heartbeat when there are none (thesis 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Append {
    /// The leader's term.
    pub term: Term,
    /// Grows with every append of the term, so that an old copy cannot keep a dead leader alive.
    pub seq: u64,
    /// Index of the entry before the first one sent.
    pub prev_index: Index,
    /// Its term.
    pub prev_term: Term,
    /// The leader's commit index.
    pub commit: Index,
    /// Contiguous from `prev_index + 1`.
    pub entries: Vec<Entry>,
}

/// The answer to an append.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendReply {
    /// The follower's term.
    pub term: Term,
    /// The `seq` of the append it answers; of the newest one, when it answers several; 0 when that
    /// append was of an older term.
    pub seq: u64,
    /// How it went.
    pub outcome: AppendOutcome,
}

/// How an append went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// The log agrees with the leader's and is durable up to here.
    Accepted {
        /// Never more than what is durable, never more than what the leader has shown.
        match_index: Index,
    },
    /// The entry before the first one sent is missing or differs.
    Rejected {
        /// `prev_index` of the refused append.
        prev_index: Index,
        /// The largest index not above it that may agree (raft.md rule 19).
        hint_index: Index,
        /// The term there.
        hint_term: Term,
    },
}

/// "Campaign now": a leader hands over (thesis 3.10).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
    /// Numbered among the appends of the term: stale once a later append has come.
    pub seq: u64,
    /// Index of the leader's last entry.
    pub last_index: Index,
    /// Its term.
    pub last_term: Term,
}

/// "Up to where must I apply?" (thesis 6.4)
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndex {
    /// The term of the leader that is asked.
    pub term: Term,
    /// The asker's run, so that the answer to a question of an earlier one is known as that.
    pub run: u64,
    /// The newest of the asker's reads; grows within a run.
    pub seq: u64,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndexReply {
    /// The leader's term.
    pub term: Term,
    /// The run that asked.
    pub run: u64,
    /// The `seq` of the question: the answer is for all reads up to that one.
    pub seq: u64,
    /// Everything that was committed anywhere when the question was asked is at or below this.
    pub index: Index,
}

/// "Where does your log end?" From a node that may have lost more of this term than it knows of
/// (see `HardState::claim`): it held no more of it than its leader has by now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogEnd {
    /// The term of the leader that is asked.
    pub term: Term,
    /// The asker's run: what was answered to an earlier one may be less than that run got later.
    pub run: u64,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogEndReply {
    /// The leader's term.
    pub term: Term,
    /// The run that asked.
    pub run: u64,
    /// The last index of the leader's log, an entry of its term, after the question was asked.
    pub index: Index,
}

/// A piece of a snapshot; an empty one asks how much the addressee has of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotPiece {
    /// The leader's term.
    pub term: Term,
    /// Numbered among the appends of the term.
    pub seq: u64,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Where in the image the data belongs.
    pub offset: u64,
    /// Part of the image; it does not run past its end.
    pub data: Bytes,
}

/// The answer to a piece of a snapshot that the log cannot do without. To one that it can, the
/// answer is that to an append.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotReply {
    /// The follower's term.
    pub term: Term,
    /// The `seq` of the newest piece that it answers.
    pub seq: u64,
    /// The snapshot that is spoken of, by its last index and the checksum of its image.
    pub index: Index,
    /// See `index`.
    pub crc: u32,
    /// What the follower wants.
    pub wants: Wants,
}

/// What a follower wants of a snapshot's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wants {
    /// The image from this byte on: the follower drives, for only it knows what survived its
    /// restart (raft.md rule 38).
    From(u64),
    /// Nothing now: a piece is being stored, or the image loaded.
    Patience,
    /// To begin again, but not at once: the image could not be stored or loaded.
    Again,
}

/// Everything that one core may say to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// "Would you vote for me?" Changes nothing on the receiver (thesis 9.6).
    PreVote(VoteRequest),
    /// The answer to it.
    PreVoteReply(VoteReply),
    /// "Vote for me."
    Vote(VoteRequest),
    /// The answer to it.
    VoteReply(VoteReply),
    /// Entries or a heartbeat.
    Append(Append),
    /// The answer to it.
    AppendReply(AppendReply),
    /// "Campaign now."
    TimeoutNow(TimeoutNow),
    /// A follower's read.
    ReadIndex(ReadIndex),
    /// The answer to it.
    ReadIndexReply(ReadIndexReply),
    /// A piece of a snapshot.
    Snapshot(Box<SnapshotPiece>),
    /// The answer to it.
    SnapshotReply(SnapshotReply),
    /// "Where does your log end?"
    LogEnd(LogEnd),
    /// The answer to it.
    LogEndReply(LogEndReply),
}

impl Message {
    /// The term that the message carries.
    pub fn term(&self) -> Term {
        match self {
            Message::PreVote(m) | Message::Vote(m) => m.term,
            Message::PreVoteReply(m) | Message::VoteReply(m) => m.term,
            Message::Append(m) => m.term,
            Message::AppendReply(m) => m.term,
            Message::TimeoutNow(m) => m.term,
            Message::ReadIndex(m) => m.term,
            Message::ReadIndexReply(m) => m.term,
            Message::Snapshot(m) => m.term,
            Message::SnapshotReply(m) => m.term,
            Message::LogEnd(m) => m.term,
            Message::LogEndReply(m) => m.term,
        }
    }
}
