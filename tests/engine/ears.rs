//! A host that only remembers what it was told.

use raftkeel::cluster::Params;
use raftkeel::core::{Epoch, Index, Millis, NodeId, Term};
use raftkeel::detector::NodeState;
use raftkeel::engine::{Error, Event, Guard, Host, Load, Role, Save, Ticket};

/// What the host of one run was told in one call, in order.
pub enum Said {
    Apply(Index, Vec<u8>),
    Done(Ticket, Result<Index, Error>),
    Role(Role, Term),
    Excluded(Epoch, Vec<NodeId>, Index),
    Readmitted(NodeId),
    Params(Params),
    Fence(bool),
    Stopped(Error),
}

#[derive(Default)]
pub struct Ears {
    pub outbox: Vec<(NodeId, Vec<u8>)>,
    pub said: Vec<Said>,
    pub log: Vec<String>,
}

impl Host for Ears {
    fn apply(&mut self, index: Index, _term: Term, data: &[u8]) -> Result<(), i32> {
        self.said.push(Said::Apply(index, data.to_vec()));
        Ok(())
    }
    fn save(&mut self, save: Save, _index: Index) {
        save.finish(false);
    }
    fn load(&mut self, load: Load, _index: Index) {
        load.finish(false);
    }
    fn send(&mut self, to: NodeId, bytes: &[u8]) {
        self.outbox.push((to, bytes.to_vec()));
    }
    fn done(&mut self, ticket: Ticket, result: Result<Index, Error>) {
        self.said.push(Said::Done(ticket, result));
    }
    fn role(&mut self, role: Role, term: Term, _leader: Option<NodeId>) {
        self.said.push(Said::Role(role, term));
    }
    fn node(&mut self, _id: NodeId, _state: NodeState, _old: NodeState, _silent: Millis) {}
    fn excluded(&mut self, epoch: Epoch, ids: &[NodeId], index: Index) {
        self.said.push(Said::Excluded(epoch, ids.to_vec(), index));
    }
    fn members(&mut self, _epoch: Epoch, _index: Index) {}
    fn params(&mut self, params: &Params) {
        self.said.push(Said::Params(params.clone()));
    }
    fn fence(&mut self, fenced: bool, _why: &str) {
        self.said.push(Said::Fence(fenced));
    }
    fn event(&mut self, event: &Event) {
        if let Event::Readmitted { id } = event {
            self.said.push(Said::Readmitted(*id));
        }
    }
    fn guard(&mut self, _ids: &[NodeId]) -> Guard {
        Guard::Allow
    }
    fn log(&mut self, _level: i32, text: &str) {
        self.log.push(text.to_owned());
    }
    fn stopped(&mut self, why: &Error) {
        self.said.push(Said::Stopped(why.clone()));
    }
}
