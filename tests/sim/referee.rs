//! The reference model as a judge: every call of a server must be a step that Raft permits, in
//! every run. That takes two fifths of the time: on the machine where it was measured, `speed`
//! used 0.80 s of processor time for 24,000 simulated seconds of three nodes, 0.49 s without it.

use raftkeel::core::{
    Entry, Index, Millis, NodeId, Payload, Persist, Position, Raft, ReadId, Restored, Snapshot,
};

use crate::core::{first_entry, options};
use crate::host::Outcome;
use crate::image::Image;
use crate::judge::{Call, Judge};
use crate::model::Model;
use crate::model::adapter::{self, Taken};
use crate::model::data::{self, Step};
use crate::server::{Answer, Input, Setup, State};

/// Events that are recorded at most.
const RECORDED: usize = 20_000;

/// What the model was told.
#[derive(Clone, Debug)]
pub enum Event {
    Step(Box<Step>),
    /// A node has stopped.
    Stop(u64),
    /// The oldest write of a stopped node did reach the disk, or only its hard state did.
    Land(u64, bool),
    /// The log of a stopped node is lost behind an index, and what (term, index) it claims.
    Damage(u64, u64, (u64, u64)),
}

/// The model, and what it has to know of a start.
#[derive(Default)]
pub struct Referee {
    pub model: Model,
    found: Restored,
    running: Vec<bool>,
    /// All that the model was told, if anybody wants to know.
    pub record: Option<Vec<Event>>,
}

impl Referee {
    pub fn new(nodes: usize) -> Referee {
        Referee {
            running: vec![false; nodes],
            ..Referee::default()
        }
    }

    fn accept(&mut self, id: NodeId, now: Millis, input: data::Input, raft: &Raft, taken: Taken) {
        let step = adapter::step(&self.model, id, now, input, raft, taken);
        if let Err(broken) = self.model.accept(&step) {
            panic!("the model refuses: {broken}; {step:?}");
        }
        self.note(|| Event::Step(Box::new(step)));
    }

    fn note(&mut self, event: impl FnOnce() -> Event) {
        if let Some(record) = self.record.as_mut().filter(|r| r.len() < RECORDED) {
            record.push(event());
        }
    }
}

fn id_of(node: usize) -> u64 {
    node as u64 + 1
}

impl Judge<Raft> for Referee {
    fn found(&mut self, _: usize, image: &Image) {
        self.found = image.restored();
    }

    fn started(&mut self, node: usize, setup: &Setup, now: Millis, _: &State, raft: &Raft) {
        self.running[node] = true;
        let input = adapter::start(&options(setup), &self.found);
        self.found = Restored::default();
        self.accept(setup.id, now, input, raft, Taken::default());
    }

    fn called(&mut self, call: &Call<'_, Raft>) {
        let output = call.output;
        let index = |index: Option<u64>| index.ok_or(raftkeel::core::ReadError::TimedOut);
        let reads = output
            .reads
            .iter()
            .map(|(id, at)| (ReadId(*id), index(*at)));
        let taken = Taken {
            persist: output.write.as_ref(),
            messages: &output.sent,
            committed: &output.applied,
            reads: &reads.collect::<Vec<_>>(),
            asks: &output.asks,
        };
        let input = input_of(call);
        self.accept(call.id, call.now, input, call.server, taken);
    }

    fn landed(&mut self, node: usize, write: &Persist) {
        // Of a node that runs the model hears when the node does.
        if !self.running[node] {
            let whole = write.reset.is_some() || !write.entries.is_empty();
            self.model.land(id_of(node), whole);
            self.note(|| Event::Land(id_of(node), whole));
        }
    }

    fn damaged(&mut self, node: usize, kept: Index, claim: Position) {
        let claim = (claim.term, claim.index);
        self.model.damage(id_of(node), kept, claim);
        self.note(|| Event::Damage(id_of(node), kept, claim));
    }

    fn kept(&mut self, _: usize, _: &Snapshot) {}

    fn loaded(&mut self, _: usize, _: &Snapshot, _: Option<u64>) {}

    fn stopped(&mut self, node: usize) {
        self.running[node] = false;
        self.model.stop(id_of(node));
        self.note(|| Event::Stop(id_of(node)));
    }

    fn outcome(&mut self, _: u64, _: Outcome) {}
}

/// What a server was told, in the model's words.
fn input_of(call: &Call<'_, Raft>) -> data::Input {
    let placed = match call.output.answer {
        Answer::Placed(term, index) => Ok((term, index)),
        _ => Err(()),
    };
    match call.input {
        Input::Bootstrap(voters) => data::Input::Bootstrap(adapter::entry(&first_entry(voters))),
        Input::Tick => data::Input::Tick,
        Input::Receive { from, packet } => adapter::receive(*from, packet),
        Input::Written { token, ok } => data::Input::Persisted {
            token: *token,
            ok: *ok,
        },
        Input::HeldBack { token, .. } => data::Input::HeldBack { token: *token },
        Input::Room => data::Input::Tick,
        Input::Propose(data) => adapter::propose(&Payload::Host(data.clone()), &placed),
        Input::Read => data::Input::Read(match call.output.answer {
            Answer::Reading(id) => vec![id],
            _ => Vec::new(),
        }),
        Input::Change(_) => {
            let entry = placed.ok().and_then(|(_, at)| call.server.log().get(at));
            match entry {
                Some(Entry {
                    payload: Payload::Config(config, _),
                    ..
                }) => adapter::change(config, &placed),
                _ => data::Input::Yield,
            }
        }
        Input::Transfer(_) | Input::Priority(..) | Input::StepDown | Input::Take => {
            data::Input::Yield
        }
        Input::Lost(node) => data::Input::Lost(node.get()),
        Input::Excluded(exclusion) => data::Input::Exclude(exclusion.epoch, exclusion.index),
        Input::Saved(snapshot) => data::Input::Saved(adapter::snapshot(snapshot)),
        Input::Compact { .. } => data::Input::Compact,
        Input::Fetched { first, entries, .. } => adapter::fetched(*first, entries),
        Input::PieceRead {
            to,
            snapshot,
            offset,
            data,
        } => adapter::piece_read(*to, snapshot, *offset, data),
        Input::PieceStored { snapshot, end, ok } => adapter::piece_stored(snapshot, *end, *ok),
        Input::Installed { snapshot, ok } => adapter::installed(snapshot, *ok),
        Input::WasAway => data::Input::Paused,
    }
}
