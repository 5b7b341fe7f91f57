//! The nouns of the protocol: nodes, entries, configurations, durable state.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::bytes::Bytes;

/// A Raft term; 0 is "before the first".
pub type Term = u64;
/// A position in the log; the first entry has index 1, 0 is "before it".
pub type Index = u64;
/// Number of a membership: grows by one with every change of members.
pub type Epoch = u64;
/// A point or a span of time in milliseconds, on a clock that never goes back.
pub type Millis = u64;

/// A place in the log and the term of the entry there; 0, 0 is the place before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// The entry's index.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

impl Position {
    /// An index that nobody counts to: of a claim when it is not known how many entries there were.
    pub const UNCOUNTED: Index = Index::MAX / 2;

    /// Whether the index says how many entries there may have been.
    pub fn is_counted(self) -> bool {
        self.index < Position::UNCOUNTED
    }

    /// Whether a log that ends here holds at least as much as one that ends there (paper 5.4.1).
    pub fn reaches(self, other: Position) -> bool {
        (self.term, self.index) >= (other.term, other.index)
    }
}

/// Identity of a cluster member; never 0, never used again for another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// `None` for 0, which stands for "no node" in C and on the wire.
    pub const fn new(raw: u64) -> Option<NodeId> {
        match NonZeroU64::new(raw) {
            Some(id) => Some(NodeId(id)),
            None => None,
        }
    }

    /// The number that C and the wire know the node by.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The number of an optional node, 0 for none.
    pub fn raw(id: Option<NodeId>) -> u64 {
        id.map_or(0, NodeId::get)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Most members that a cluster may have, learners included.
pub const MAX_MEMBERS: usize = 64;

/// Who votes and who follows, as the log says it (thesis 4.3: joint consensus).
///
/// Every list is sorted and free of duplicates. `outgoing` is not empty exactly while the
/// configuration is joint: then elections, commits and check-quorum need a majority of `voters`
/// and a majority of `outgoing`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// +1 with every change of membership; leaving the joint state is not one.
    pub epoch: Epoch,
    /// Voters of the configuration in force, or of the one being entered.
    pub voters: Vec<NodeId>,
    /// Voters of the configuration being left; empty when not joint.
    pub outgoing: Vec<NodeId>,
    /// Members that receive the log and never count.
    pub learners: Vec<NodeId>,
}

impl Configuration {
    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the node's vote counts, in either half.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.binary_search(&id).is_ok() || self.outgoing.binary_search(&id).is_ok()
    }

    /// Whether no other node's vote counts, and no change of that is under way.
    pub fn is_only_voter(&self, id: NodeId) -> bool {
        self.voters == [id] && !self.is_joint()
    }

    /// Whether the node receives the log without voting.
    pub fn is_learner(&self, id: NodeId) -> bool {
        self.learners.binary_search(&id).is_ok() && !self.is_voter(id)
    }

    /// Whether the node has any part in it.
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.is_learner(id)
    }

    /// Whether the node has a part in it that does not end with the joint state.
    pub fn keeps(&self, id: NodeId) -> bool {
        self.voters.binary_search(&id).is_ok() || self.is_learner(id)
    }

    /// Everybody in it, each once, in no particular order.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        let outgoing = self
            .outgoing
            .iter()
            .filter(|id| self.voters.binary_search(id).is_err());
        let learners = self.learners.iter().filter(|id| !self.is_voter(**id));
        self.voters.iter().chain(outgoing).chain(learners).copied()
    }

    /// The configuration after the joint state is left; its epoch stays (thesis 4.3).
    pub fn left(&self) -> Configuration {
        Configuration {
            outgoing: Vec::new(),
            ..self.clone()
        }
    }

    /// Panics unless the lists are sorted, free of duplicates and within [`MAX_MEMBERS`].
    pub fn assert_well_formed(&self) {
        for list in [&self.voters, &self.outgoing, &self.learners] {
            assert!(
                list.windows(2).all(|w| w[0] < w[1]),
                "configuration lists must be sorted and unique: {self:?}"
            );
        }
        assert!(!self.voters.is_empty(), "a configuration needs a voter");
        assert!(
            self.members().count() <= MAX_MEMBERS,
            "a configuration has at most {MAX_MEMBERS} members"
        );
    }
}

/// What a log entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// Opens a leader's term (thesis 6.4, raft.md rule 4).
    Noop,
    /// The host's own data.
    Host(Bytes),
    /// A command to the replicated cluster state that changes no membership.
    Cluster(Bytes),
    /// A change of membership, in force from the moment it is appended (thesis 4.1), with the
    /// cluster command that caused it; empty when a joint configuration is being left.
    Config(Arc<Configuration>, Bytes),
}

impl Payload {
    /// Bytes that the entry's data takes, for limits; fixed parts are not counted.
    pub fn len(&self) -> usize {
        match self {
            Payload::Noop => 0,
            Payload::Host(data) | Payload::Cluster(data) => data.len(),
            Payload::Config(config, cause) => cause.len() + 8 * config.members().count(),
        }
    }

    /// Whether it carries no data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entry weighs in limits on memory: its data, and what keeping it costs.
    pub fn weight(&self) -> usize {
        const ENTRY: usize = 64;
        self.len() + ENTRY
    }
}

/// One position of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it stands.
    pub index: Index,
    /// The term of the leader that appended it.
    pub term: Term,
    /// What it holds.
    pub payload: Payload,
}

impl Entry {
    /// Index and term.
    pub fn position(&self) -> Position {
        Position {
            index: self.index,
            term: self.term,
        }
    }
}

/// What a snapshot stands for, and how to know its image.
///
/// Two snapshots are the same exactly if all of this is: then their images are too, whoever wrote
/// them, and the transfer of one may go on with the other (raft.md rule 38).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The last entry that it covers; committed.
    pub last: Position,
    /// The newest configuration at or below it, which is committed with it (raft.md rule 37).
    pub config: Arc<Configuration>,
    /// Where that one stands in the log.
    pub config_index: Index,
    /// Bytes of the image.
    pub size: u64,
    /// CRC-32 of the image.
    pub crc: u32,
    /// The entries of the log, first and last, among which the host's part of the image lies in
    /// pieces; `None` if all of the image is kept beside the log. `size` and `crc` are of what is
    /// kept beside it.
    pub pieces: Option<(Index, Index)>,
}

/// That this node has been excluded: told by a peer or read in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exclusion {
    /// The epoch that the exclusion began.
    pub epoch: Epoch,
    /// The log index of the decision.
    pub index: Index,
}

/// What must survive a crash besides the log, always written before it is acted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The newest term this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// Set while this node is excluded: it neither votes nor campaigns.
    pub excluded: Option<Exclusion>,
    /// A lower bound of what was known to be committed, so that a node that starts alone knows
    /// its peers. Nothing waits for it, and it may lag.
    pub commit: Index,
    /// Set while the log may lack entries that this node has acknowledged, because its storage was
    /// damaged: the last one that it acknowledged, or a place behind it. Until its log reaches
    /// there again it does not campaign, and votes only for those whose log does: so what it counts
    /// for in a quorum is not lost with it (storage-and-testing.md section 2, recovery 5).
    pub claim: Option<Position>,
}

/// Names one atomic write; grows by one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// One atomic write. What depends on it stays in the core until its token comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// To be handed back when the write is durable, or has failed.
    pub token: Token,
    /// The new hard state, if it changed.
    pub hard: Option<HardState>,
    /// The whole log is dropped, and goes on behind this snapshot, whose image is durable already
    /// (raft.md rule 34).
    pub reset: Option<Snapshot>,
    /// Contiguous entries; whatever the log holds from the first one's index on is replaced.
    pub entries: Vec<Entry>,
}

/// Entries that are left in storage at a start, where they are fetched from when somebody needs
/// them: what a server must know of them nevertheless. They are contiguous from `base.index + 1` of
/// the [`Restored`] on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Index of the last of them.
    pub last: Index,
    /// The first of every term, ascending in both.
    pub terms: Vec<Position>,
    /// The configurations among them, in order.
    pub configs: Vec<(Index, Arc<Configuration>)>,
}

/// What storage found when a node starts again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The last durable hard state; the default on a new node.
    pub hard: HardState,
    /// The newest durable snapshot. The log reaches it, and holds the same entry there.
    pub snapshot: Option<Snapshot>,
    /// What was dropped of the log: it begins behind this place, which no snapshot is older than.
    pub base: Position,
    /// What the log begins with and storage keeps for itself; `None` if that is nothing.
    pub outline: Option<Outline>,
    /// The log behind it, contiguous.
    pub entries: Vec<Entry>,
    /// A snapshot that was being received, and how many bytes of its image are durable.
    pub partial: Option<(Snapshot, u64)>,
}

/// What a server needs of its storage or its host besides writes. Each is answered by one call of
/// [`Raft`](super::Raft), at any later time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Entries that are not in memory any more; answered by `fetched`.
    Entries {
        /// The peer that they are for; `None`: they are to be applied.
        to: Option<NodeId>,
        /// The first one that is wanted.
        first: Index,
        /// The last one that is.
        last: Index,
        /// Enough are about so many bytes of them, counted by [`Payload::weight`], but at least
        /// one entry.
        bytes: usize,
    },
    /// A piece of a snapshot's image; answered by `piece_read`.
    Piece {
        /// The peer that it is for.
        to: NodeId,
        /// The snapshot.
        snapshot: Snapshot,
        /// Where in the image.
        offset: u64,
        /// Bytes, all of them within the image.
        len: usize,
    },
    /// A piece that a leader has sent is to be kept, behind those before it; at offset 0 it takes
    /// the place of whatever was received before. Answered by `piece_stored`.
    Store {
        /// The snapshot.
        snapshot: Snapshot,
        /// Where in the image.
        offset: u64,
        /// Its bytes.
        data: Bytes,
    },
    /// All pieces were kept: the image is to be checked, loaded by the host, and made durable as
    /// this server's newest snapshot. Answered by `installed`.
    Install {
        /// The snapshot.
        snapshot: Snapshot,
    },
}
