//! What a round wants the host to be told, in order.

use std::collections::{LinkedList, linked_list};
use std::iter::Flatten;

use crate::cluster::Params;
use crate::core::{Bytes, Epoch, Index, Millis, NodeId, Term};
use crate::detector::NodeState;

use super::{Error, Event, Guard, Host, Load, Role, Save, Ticket};

/// In so many actions memory for them comes.
const BLOCK: usize = 32;

/// Calls to the host, in order. How many there are depends on the host and the peers, and none may get
/// lost: so their memory is never wanted in one large piece.
#[derive(Debug, Default)]
pub(super) struct Actions(LinkedList<Vec<Action>>);

impl Actions {
    pub fn push(&mut self, action: Action) {
        match self.0.back_mut() {
            Some(block) if block.len() < BLOCK => block.push(action),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(action);
                self.0.push_back(block);
            }
        }
    }
}

impl IntoIterator for Actions {
    type Item = Action;
    type IntoIter = Flatten<linked_list::IntoIter<Vec<Action>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// One call to the host; see [`Host`].
#[derive(Debug)]
pub(super) enum Action {
    Apply {
        index: Index,
        term: Term,
        data: Bytes,
    },
    Save {
        save: Save,
        index: Index,
    },
    Load {
        load: Load,
        index: Index,
    },
    Send {
        to: NodeId,
        bytes: Vec<u8>,
    },
    Done {
        ticket: Ticket,
        result: Result<Index, Error>,
    },
    Role {
        role: Role,
        term: Term,
        leader: Option<NodeId>,
    },
    Node {
        id: NodeId,
        state: NodeState,
        old: NodeState,
        silent: Millis,
    },
    Excluded {
        epoch: Epoch,
        ids: Vec<NodeId>,
        index: Index,
    },
    Members {
        epoch: Epoch,
        index: Index,
    },
    Params(Params),
    Fence {
        fenced: bool,
        why: String,
    },
    Event(Event),
    Log {
        level: i32,
        text: String,
    },
    Guard(Vec<NodeId>),
    Stopped(Error),
}

/// What a call to the host has to tell the engine.
pub(super) enum Answer {
    Nothing,
    Guard(Vec<NodeId>, Guard),
    ApplyFailed { index: Index, code: i32 },
}

impl Action {
    pub fn perform(self, host: &mut dyn Host) -> Answer {
        match self {
            Action::Apply { index, term, data } => {
                if let Err(code) = host.apply(index, term, &data) {
                    return Answer::ApplyFailed { index, code };
                }
            }
            Action::Save { save, index } => host.save(save, index),
            Action::Load { load, index } => host.load(load, index),
            Action::Send { to, bytes } => host.send(to, &bytes),
            Action::Done { ticket, result } => host.done(ticket, result),
            Action::Role { role, term, leader } => host.role(role, term, leader),
            Action::Node {
                id,
                state,
                old,
                silent,
            } => host.node(id, state, old, silent),
            Action::Excluded { epoch, ids, index } => host.excluded(epoch, &ids, index),
            Action::Members { epoch, index } => host.members(epoch, index),
            Action::Params(params) => host.params(&params),
            Action::Fence { fenced, why } => host.fence(fenced, &why),
            Action::Event(event) => host.event(&event),
            Action::Log { level, text } => host.log(level, &text),
            Action::Guard(ids) => {
                let answer = host.guard(&ids);
                return Answer::Guard(ids, answer);
            }
            Action::Stopped(why) => host.stopped(&why),
        }
        Answer::Nothing
    }
}
