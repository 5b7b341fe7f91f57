//! The two sides of the engine: what may be put in, and what the host is told.

use crate::cluster::{Params, Peer};
use crate::core::{Bytes, Epoch, Index, Millis, NodeId, Priority, Term};
use crate::detector::NodeState;
use crate::wire::Packet;

use super::{Error, Event, Load, Role, Save, Saved};

/// The host's answer to "may these dead nodes be excluded?"
pub use crate::detector::GuardAnswer as Guard;

/// Names a request until its one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What a member can be asked for; all but a barrier, and a snapshot where every node makes its
/// own, only the leader.
#[derive(Clone, Debug)]
pub enum Request {
    /// Append the host's data to the log.
    Propose(Bytes),
    /// The administrator's set-faulty.
    Exclude(NodeId),
    /// Take an excluded node back, as a learner that is promoted when it has caught up.
    Readmit(NodeId),
    /// Put a new node in the place of an excluded one.
    Replace {
        /// The excluded one.
        old: NodeId,
        /// The new one; its id was never used before.
        by: Peer,
    },
    /// A new node joins, as a learner that votes only once it is promoted by request; its id was
    /// never used before.
    Add(Peer),
    /// Make a learner that has caught up a voter.
    Promote(NodeId),
    /// A voter, a learner or an excluded node leaves for good.
    Remove(NodeId),
    /// Change the cluster-wide settings; `Params::version` is the one expected, 0 for any.
    SetParams(Params),
    /// Wait until everything is applied here that was committed anywhere when this was asked.
    Barrier,
    /// Make a snapshot now; in the modes where the leader decides, of the whole cluster.
    Snapshot,
    /// Hand leadership over to this node; `None` to the most up-to-date one in contact that may
    /// lead.
    Transfer(Option<NodeId>),
}

/// What the engine is fed with, from any thread.
#[derive(Debug)]
pub enum Input {
    /// A packet of a peer, decoded and checked to be for this node of this cluster.
    Packet(Packet),
    /// A request; its completion carries the ticket.
    Request(Ticket, Request),
    /// The host heard this node by other means.
    Heard(NodeId),
    /// The host has lost its connection to this node.
    Lost(NodeId),
    /// How much this node is wished for as leader, until this is said again.
    Priority(Priority),
    /// This node has sent a log entry of a kind that this version does not know.
    Newer(NodeId),
    /// The host has written its part of the snapshot at this index, or could not.
    Saved(Index, Result<Saved, Error>),
    /// The host has loaded the snapshot at this index, or could not.
    Loaded(Index, bool),
}

impl Input {
    /// Whether it tells of something that happened elsewhere: when it came matters.
    pub(super) fn is_from_outside(&self) -> bool {
        matches!(self, Input::Packet(_) | Input::Heard(_) | Input::Lost(_))
    }

    /// Bytes that it holds, a packet's aside.
    pub(super) fn weight(&self) -> usize {
        match self {
            Input::Request(_, Request::Propose(data)) => data.len(),
            _ => 0,
        }
    }
}

/// What the host is told, only at the end of a driving call. Every method may do
/// nothing, and what a host has no use for does.
pub trait Host {
    /// One committed entry of the host's, in log order, exactly once per run.
    fn apply(&mut self, index: Index, term: Term, data: &[u8]) -> Result<(), i32>;
    /// Write everything that was applied so far, and nothing that is applied later, now or at any
    /// time, in any thread.
    fn save(&mut self, save: Save, index: Index);
    /// Take this snapshot in the place of all that was applied, now or at any time, in any thread.
    /// Nothing is applied until it is finished.
    fn load(&mut self, load: Load, index: Index);
    /// Put one message on the wire, or drop it.
    fn send(&mut self, _to: NodeId, _bytes: &[u8]) {}
    /// A request is finished.
    fn done(&mut self, _ticket: Ticket, _result: Result<Index, Error>) {}
    /// This node's role, the term, or the known leader changed.
    fn role(&mut self, _role: Role, _term: Term, _leader: Option<NodeId>) {}
    /// A node's state as this node sees it changed.
    fn node(&mut self, _id: NodeId, _state: NodeState, _old: NodeState, _silent: Millis) {}
    /// An exclusion was decided.
    fn excluded(&mut self, _epoch: Epoch, _ids: &[NodeId], _index: Index) {}
    /// The membership changed.
    fn members(&mut self, _epoch: Epoch, _index: Index) {}
    /// The cluster-wide settings changed.
    fn params(&mut self, _params: &Params) {}
    /// Stop serving, or serve again.
    fn fence(&mut self, _fenced: bool, _why: &str) {}
    /// Something worth a line in a monitoring system.
    fn event(&mut self, _event: &Event) {}
    /// May these dead nodes be excluded? See [`Guard`].
    fn guard(&mut self, _ids: &[NodeId]) -> Guard {
        Guard::Allow
    }
    /// A line for the log; level 1 error .. 5 trace.
    fn log(&mut self, _level: i32, _text: &str) {}
    /// The engine is dead.
    fn stopped(&mut self, _why: &Error) {}
}
