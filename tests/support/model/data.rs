//! What the model is told, in plain numbers and lists: nothing of the implementation is in here.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

/// A node; 0 is none.
pub type Id = u64;

/// Who votes and who listens. `outgoing` is not empty exactly while the configuration is joint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Config {
    pub epoch: u64,
    pub voters: Vec<Id>,
    pub outgoing: Vec<Id>,
    pub learners: Vec<Id>,
}

impl Config {
    /// A majority of the voters, and one of the outgoing ones if there are any (thesis 4.3).
    pub fn agrees(&self, has: impl Fn(Id) -> bool) -> bool {
        let most = |list: &[Id]| 2 * list.iter().filter(|id| has(**id)).count() > list.len();
        most(&self.voters) && (self.outgoing.is_empty() || most(&self.outgoing))
    }

    pub fn is_voter(&self, id: Id) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Any part in it.
    pub fn contains(&self, id: Id) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Ends an exclusion of a node that began with an epoch.
    pub fn readmits(&self, id: Id, epoch: u64) -> bool {
        self.epoch > epoch && self.contains(id)
    }

    /// A part in it that does not end with the joint state.
    pub fn keeps(&self, id: Id) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }
}

/// One entry; its index follows from where it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub term: u64,
    /// Of all that it carries, its kind included; [`NOOP`] for a no-op and for nothing else.
    pub hash: u64,
    pub config: Option<Arc<Config>>,
}

/// Hash of a no-op.
pub const NOOP: u64 = 1;

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.term, self.hash).hash(state);
    }
}

/// Hard state: what survives besides the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hard {
    pub term: u64,
    pub vote: Id,
    /// Epoch and index of an exclusion.
    pub excluded: Option<(u64, u64)>,
    pub commit: u64,
    /// Term and index of what the node once held, and may have lost.
    pub claim: Option<(u64, u64)>,
}

/// What a snapshot stands for, and how its image is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The last entry that it covers.
    pub index: u64,
    pub term: u64,
    /// The newest configuration up to there, and where it stands.
    pub config: Arc<Config>,
    pub config_index: u64,
    /// Bytes of the image.
    pub size: u64,
    /// Its checksum.
    pub crc: u32,
    /// Entries, first and last, among which a part of it lies.
    pub pieces: Option<(u64, u64)>,
}

/// A part of a snapshot's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    pub offset: u64,
    pub len: u64,
    /// Of its bytes.
    pub hash: u64,
}

/// What a follower wants of a snapshot's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wants {
    From(u64),
    Patience,
    Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoteRequest {
    pub term: u64,
    pub last_index: u64,
    pub last_term: u64,
    pub transfer: bool,
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    PreVote(VoteRequest),
    PreVoteReply {
        term: u64,
        granted: bool,
    },
    Vote(VoteRequest),
    VoteReply {
        term: u64,
        granted: bool,
        /// Its giver had heard a leader within E.
        early: bool,
    },
    Append {
        term: u64,
        seq: u64,
        prev_index: u64,
        prev_term: u64,
        commit: u64,
        entries: Vec<Entry>,
    },
    Accepted {
        term: u64,
        seq: u64,
        match_index: u64,
    },
    Rejected {
        term: u64,
        seq: u64,
        prev_index: u64,
        hint_index: u64,
        hint_term: u64,
    },
    TimeoutNow {
        term: u64,
        seq: u64,
        last_index: u64,
        last_term: u64,
    },
    ReadIndex {
        term: u64,
        run: u64,
        seq: u64,
    },
    ReadIndexReply {
        term: u64,
        run: u64,
        seq: u64,
        index: u64,
    },
    Snapshot {
        term: u64,
        seq: u64,
        snapshot: Arc<Snapshot>,
        piece: Piece,
    },
    SnapshotReply {
        term: u64,
        seq: u64,
        /// Index and checksum of the snapshot.
        index: u64,
        crc: u32,
        wants: Wants,
    },
    LogEnd {
        term: u64,
        run: u64,
    },
    LogEndReply {
        term: u64,
        run: u64,
        index: u64,
    },
}

impl Message {
    pub fn term(&self) -> u64 {
        match self {
            Message::PreVote(request) | Message::Vote(request) => request.term,
            Message::PreVoteReply { term, .. }
            | Message::VoteReply { term, .. }
            | Message::Append { term, .. }
            | Message::Accepted { term, .. }
            | Message::Rejected { term, .. }
            | Message::TimeoutNow { term, .. }
            | Message::ReadIndex { term, .. }
            | Message::ReadIndexReply { term, .. }
            | Message::Snapshot { term, .. }
            | Message::SnapshotReply { term, .. }
            | Message::LogEnd { term, .. }
            | Message::LogEndReply { term, .. } => *term,
        }
    }
}

/// Why the implementation was called, with all that it was given.
#[derive(Clone, Debug)]
pub enum Input {
    /// It starts from what storage found.
    Start {
        /// E, in milliseconds.
        election: u64,
        /// Of a leader, in milliseconds.
        heartbeat: u64,
        /// Names this run.
        run: u64,
        /// A leader with a write that takes longer steps down; in milliseconds.
        stall: u64,
        /// Reads may trust clocks.
        leases: bool,
        hard: Hard,
        /// The newest snapshot.
        snapshot: Option<Arc<Snapshot>>,
        /// Index and term of what was dropped of the log last.
        base: (u64, u64),
        /// The log behind it.
        entries: Vec<Entry>,
        /// A snapshot of which a part has come, and how much.
        partial: Option<(Arc<Snapshot>, u64)>,
    },
    /// The first entry is given to a node that holds nothing.
    Bootstrap(Entry),
    Tick,
    /// The host has lost its connection to this node.
    Lost(Id),
    Receive {
        from: Id,
        message: Message,
    },
    /// Data of this hash; where it was put, if it was accepted.
    Propose {
        hash: u64,
        placed: Option<(u64, u64)>,
    },
    /// A change of members; term and index, if it was accepted.
    Change {
        config: Config,
        placed: Option<(u64, u64)>,
    },
    /// Reads that were accepted, by their numbers, which grow within a run.
    Read(Vec<u64>),
    /// A write has come to its end.
    Persisted {
        token: u64,
        ok: bool,
    },
    /// There was no room for a write's entries, nor for what follows them; its hard state is durable.
    HeldBack {
        token: u64,
    },
    /// The node is told that it has been excluded: epoch and index.
    Exclude(u64, u64),
    /// A snapshot of the node's own state is durable.
    Saved(Arc<Snapshot>),
    /// The host has the log compacted.
    Compact,
    /// Storage has answered: entries from `first` on.
    Fetched {
        first: u64,
        entries: Vec<Entry>,
    },
    /// Storage has answered: a piece for a peer, none if that failed.
    PieceRead {
        to: Id,
        snapshot: Arc<Snapshot>,
        piece: Option<Piece>,
    },
    /// Storage has answered: a piece is kept up to `end`, or nothing of the snapshot.
    PieceStored {
        snapshot: Arc<Snapshot>,
        end: u64,
        ok: bool,
    },
    /// Storage and host have answered: the image is durable and loaded, or not.
    Installed {
        snapshot: Arc<Snapshot>,
        ok: bool,
    },
    /// The process was away.
    Paused,
    /// Leadership is to be handed over or given up, or who should have it has changed: nothing
    /// that Raft has a rule for.
    Yield,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// What a node is after a step.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub term: u64,
    pub vote: Id,
    pub role: Role,
    pub leader: Id,
    pub commit: u64,
    pub excluded: Option<(u64, u64)>,
    pub claim: Option<(u64, u64)>,
    /// Index of the newest durable snapshot, and where the log begins.
    pub snapshot: u64,
    pub base: u64,
    /// Index and epoch of the configuration in force.
    pub config: (u64, u64),
    /// Index and term of the last entry.
    pub last: (u64, u64),
    /// The log up to here is the one of before the step; at a start the index before `suffix`,
    /// which then is what is in memory.
    pub kept: u64,
    /// What comes after that.
    pub suffix: Vec<Entry>,
    /// A leader's knowledge: peer, match index, next index.
    pub peers: Vec<(Id, u64, u64)>,
    /// To whom a leader hands over.
    pub successor: Id,
    /// A leader that was elected by an early vote, its own or another's.
    pub early: bool,
}

/// A write that is handed out.
#[derive(Clone, Debug)]
pub struct Persist {
    pub token: u64,
    pub hard: Option<Hard>,
    /// The log goes on behind this, and nothing else is kept.
    pub reset: Option<Arc<Snapshot>>,
    /// Index of the first of the entries.
    pub first: u64,
    pub entries: Vec<Entry>,
}

/// What a node wants of storage and host.
#[derive(Clone, Debug)]
pub enum Ask {
    Entries {
        /// 0: to be applied.
        to: Id,
        first: u64,
        last: u64,
    },
    Piece {
        to: Id,
        snapshot: Arc<Snapshot>,
        offset: u64,
        len: u64,
    },
    Store {
        snapshot: Arc<Snapshot>,
        piece: Piece,
    },
    Install {
        snapshot: Arc<Snapshot>,
    },
}

/// What a node wants after a step, in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub persist: Option<Persist>,
    pub messages: Vec<(Id, Message)>,
    /// Entries to be applied, and the index of the first.
    pub applied: (u64, Vec<Entry>),
    /// Reads that are finished; the index that must be applied first, none on failure.
    pub reads: Vec<(u64, Option<u64>)>,
    pub asks: Vec<Ask>,
}

/// One call of the implementation.
#[derive(Clone, Debug)]
pub struct Step {
    pub node: Id,
    /// The node's own clock, in milliseconds.
    pub now: u64,
    pub input: Input,
    pub output: Output,
    pub after: View,
}

/// A quick hash for numbers and bytes that nobody chose to collide.
#[derive(Clone, Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product >> 64) as u64 ^ product as u64 ^ self.0.rotate_left(23);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Of hash tables in the model.
pub type MixState = BuildHasherDefault<Mix>;

/// Hash of anything.
pub fn mix(value: &impl Hash) -> u64 {
    let mut hasher = Mix::default();
    value.hash(&mut hasher);
    hasher.finish()
}
