//! Who looks on: everything that happens to a server is shown to a judge, who objects by panicking.

use raftkeel::core::{Index, Millis, NodeId, Position, Snapshot};

use crate::host::Outcome;
use crate::image::Image;
use crate::server::{Input, Output, Server, Setup, State};

/// One call into a server, as it was seen from outside.
pub struct Call<'a, S: Server> {
    /// Place of the node among the nodes.
    pub node: usize,
    pub id: NodeId,
    /// Which run of the node it is.
    pub run: u32,
    /// The node's own time.
    pub now: Millis,
    pub input: &'a Input<S::Packet>,
    pub output: &'a Output<S>,
    pub before: &'a State,
    pub after: &'a State,
    /// As it is after the call.
    pub server: &'a S,
}

/// Looks at every step. A judge that holds a model of the server replays `input` and compares
/// `output`; what it may assume of durability it learns from `landed` and `stopped`.
pub trait Judge<S: Server> {
    /// A server is to start from what its disk holds.
    fn found(&mut self, node: usize, image: &Image);

    /// A server has started from its disk, and has not been called yet.
    fn started(&mut self, node: usize, setup: &Setup, now: Millis, state: &State, server: &S);

    fn called(&mut self, call: &Call<'_, S>);

    /// A write is durable. Its completion is told to the server later, or never.
    fn landed(&mut self, node: usize, write: &S::Write);

    /// Whether the log of a node may be damaged: the others can do without it.
    fn spares(&self, _node: usize) -> bool {
        false
    }

    /// The disk of a node that has stopped has lost its log behind `kept`; from now on it claims
    /// what is found to have been there.
    fn damaged(&mut self, _node: usize, _kept: Index, _claim: Position) {}

    /// The image of a snapshot is durable, and the node's newest.
    fn kept(&mut self, node: usize, snapshot: &Snapshot);

    /// A host has taken on the state of a snapshot, which is this one if that can be known.
    fn loaded(&mut self, node: usize, snapshot: &Snapshot, state: Option<u64>);

    /// A server is gone, with all that is not durable.
    fn stopped(&mut self, node: usize);

    /// What became of a proposal.
    fn outcome(&mut self, proposal: u64, outcome: Outcome);
}

/// Both look on.
impl<S: Server, A: Judge<S>, B: Judge<S>> Judge<S> for (A, B) {
    fn found(&mut self, node: usize, image: &Image) {
        self.0.found(node, image);
        self.1.found(node, image);
    }

    fn started(&mut self, node: usize, setup: &Setup, now: Millis, state: &State, server: &S) {
        self.0.started(node, setup, now, state, server);
        self.1.started(node, setup, now, state, server);
    }

    fn called(&mut self, call: &Call<'_, S>) {
        self.0.called(call);
        self.1.called(call);
    }

    fn landed(&mut self, node: usize, write: &S::Write) {
        self.0.landed(node, write);
        self.1.landed(node, write);
    }

    fn spares(&self, node: usize) -> bool {
        self.0.spares(node) || self.1.spares(node)
    }

    fn damaged(&mut self, node: usize, kept: Index, claim: Position) {
        self.0.damaged(node, kept, claim);
        self.1.damaged(node, kept, claim);
    }

    fn kept(&mut self, node: usize, snapshot: &Snapshot) {
        self.0.kept(node, snapshot);
        self.1.kept(node, snapshot);
    }

    fn loaded(&mut self, node: usize, snapshot: &Snapshot, state: Option<u64>) {
        self.0.loaded(node, snapshot, state);
        self.1.loaded(node, snapshot, state);
    }

    fn stopped(&mut self, node: usize) {
        self.0.stopped(node);
        self.1.stopped(node);
    }

    fn outcome(&mut self, proposal: u64, outcome: Outcome) {
        self.0.outcome(proposal, outcome);
        self.1.outcome(proposal, outcome);
    }
}
