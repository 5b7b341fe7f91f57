//! What is driven: one Raft server behind one call, whatever it is made of. The world around it
//! knows nothing else of it, so that the same weather can pass over the bare core and over the
//! C functions of a whole member.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;

use raftkeel::core::{
    Ask, Bytes, Configuration, Entry, Exclusion, Index, Millis, NodeId, Position, RoleKind,
    Snapshot, Term,
};

use crate::image::Image;

/// A change of members that a host wants.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Wish {
    /// Receive the log, and do not vote.
    Learn(NodeId),
    /// A learner becomes a voter, and in the same step a voter may go.
    Promote(NodeId, Option<NodeId>),
    /// A voter goes on as a learner.
    Demote(NodeId),
    /// A member goes.
    Remove(NodeId),
}

/// What happens to a server.
#[derive(Clone, Debug, Hash)]
pub enum Input<P> {
    /// The first start of a cluster with these voters.
    Bootstrap(Vec<NodeId>),
    /// Time has passed.
    Tick,
    /// A packet has come.
    Receive { from: NodeId, packet: P },
    /// The oldest write under way is durable, or has failed.
    Written { token: u64, ok: bool },
    /// Of the oldest write under way the hard state is durable, and for the rest there was no room;
    /// `full` as long as there is none.
    HeldBack { token: u64, full: bool },
    /// There is room for entries again.
    Room,
    /// The host has data for the log.
    Propose(Bytes),
    /// The host wants to read.
    Read,
    /// The host wants other members.
    Change(Wish),
    /// The host wants another leader.
    Transfer(Option<NodeId>),
    /// How much a node is wanted as leader, another one or, without a name, this one; 0 is not at all.
    Priority(Option<NodeId>, u8),
    /// The host has lost its connection to a node.
    Lost(NodeId),
    /// The host gives leadership up.
    StepDown,
    /// A peer says that this node is out.
    Excluded(Exclusion),
    /// The host has room for more committed entries.
    Take,
    /// A snapshot of the host's own is durable.
    Saved(Snapshot),
    /// The host wants the log dropped up to there, or to where it is still needed; `anyway` also
    /// behind a snapshot that is being sent.
    Compact { upto: Index, anyway: bool },
    /// The answer to [`Ask::Entries`].
    Fetched {
        to: Option<NodeId>,
        first: Index,
        entries: Result<Vec<Entry>, ()>,
    },
    /// The answer to [`Ask::Piece`].
    PieceRead {
        to: NodeId,
        snapshot: Snapshot,
        offset: u64,
        data: Result<Bytes, ()>,
    },
    /// The answer to [`Ask::Store`].
    PieceStored {
        snapshot: Snapshot,
        end: u64,
        ok: bool,
    },
    /// The answer to [`Ask::Install`].
    Installed { snapshot: Snapshot, ok: bool },
    /// The process was away, and its host knows.
    WasAway,
}

/// What a request was told at once.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub enum Answer {
    /// It was no request.
    #[default]
    None,
    /// Taken: a proposal or a change with its place.
    Placed(Term, Index),
    /// Taken: a read with its number.
    Reading(u64),
    /// Taken: a transfer with its target.
    Handing(NodeId),
    /// Refused, with the reason's number.
    Refused(u8),
}

/// What there is room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// So many committed entries at the host.
    pub applies: usize,
    /// Entries on the disk.
    pub writes: bool,
}

/// What an input brought about.
pub struct Output<S: Server> {
    pub answer: Answer,
    /// One atomic write, to be started now.
    pub write: Option<S::Write>,
    /// Packets, to be sent now.
    pub sent: Vec<(NodeId, S::Packet)>,
    /// Committed entries that the host has been given.
    pub applied: Vec<Entry>,
    /// Reads that are finished, with the index at which they may be answered.
    pub reads: Vec<(u64, Option<Index>)>,
    /// The host had room for no more entries than these.
    pub full: bool,
    /// What is wanted of storage and host, each to be answered by an input.
    pub asks: Vec<Ask>,
}

impl<S: Server> Default for Output<S> {
    fn default() -> Output<S> {
        Output {
            answer: Answer::None,
            write: None,
            sent: Vec::new(),
            applied: Vec::new(),
            reads: Vec::new(),
            full: false,
            asks: Vec::new(),
        }
    }
}

/// What can be seen of a server from outside, at no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub role: RoleKind,
    pub term: Term,
    pub vote: Option<NodeId>,
    pub excluded: Option<Exclusion>,
    /// What it once held, and may have lost.
    pub claim: Option<Position>,
    pub leader: Option<NodeId>,
    pub commit: Index,
    pub last_index: Index,
    pub last_term: Term,
    /// The log was dropped up to here.
    pub base: Position,
    /// How much of its log the server knows to be durable.
    pub durable: Index,
    pub config_index: Index,
    pub joint: bool,
    pub elections: u64,
    pub transferring: Option<NodeId>,
    /// Leads, and has committed an entry of its own term.
    pub settled: bool,
}

impl State {
    pub const NONE: State = State {
        role: RoleKind::Follower,
        term: 0,
        vote: None,
        excluded: None,
        claim: None,
        leader: None,
        commit: 0,
        last_index: 0,
        last_term: 0,
        base: Position { index: 0, term: 0 },
        durable: 0,
        config_index: 0,
        joint: false,
        elections: 0,
        transferring: None,
        settled: false,
    };

    pub fn leads(&self) -> bool {
        self.role == RoleKind::Leader
    }
}

/// How a server is set up, one run of it after another.
#[derive(Clone, Debug)]
pub struct Setup {
    pub id: NodeId,
    pub run: u64,
    pub seed: u64,
    pub heartbeat: Millis,
    pub election: Millis,
    pub batch_bytes: usize,
    pub uncommitted_bytes: usize,
    pub entry_max: usize,
    pub tail_bytes: usize,
    pub piece_bytes: usize,
    pub snapshot_rate: Option<NonZeroU64>,
    pub stall: Millis,
    pub lease_reads: bool,
    pub priority: u8,
}

/// One Raft server.
pub trait Server: Sized {
    /// What travels between servers.
    type Packet: Clone + Debug + Hash;
    /// One atomic write.
    type Write: Debug;

    /// Starts from what the disk holds.
    fn start(setup: &Setup, image: &Image, now: Millis) -> Self;

    /// The name of a write, to be handed back when it is durable.
    fn token(write: &Self::Write) -> u64;

    /// The first entry that a write changes in the log; 0 if it drops the log, `None` if it leaves it
    /// as it is.
    fn first_written(write: &Self::Write) -> Option<Index>;

    /// A write has reached the disk.
    fn land(image: &mut Image, write: Self::Write);

    /// What is on the disk of a write that was cut off in its midst: storage writes the hard state
    /// before the log.
    fn torn(write: Self::Write) -> Option<Self::Write>;

    /// Takes an input, and says what it brought about.
    fn step(
        &mut self,
        now: Millis,
        input: &Input<Self::Packet>,
        room: Room,
        output: &mut Output<Self>,
    );

    /// When it must be ticked at the latest.
    fn deadline(&self) -> Millis;

    fn state(&self) -> State;

    fn configuration(&self) -> &Configuration;

    /// Whether a learner may be made a voter.
    fn is_ready(&self, learner: NodeId) -> bool;

    /// Whether a snapshot is being sent to anybody.
    fn sends_snapshot(&self) -> bool;

    fn digest_write<H: Hasher>(write: &Self::Write, hasher: &mut H);
}
