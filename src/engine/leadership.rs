//! What the host asks of leadership itself: a point in time to read at, another leader, and not to
//! be one. Every barrier and every transfer is completed exactly once, unless the engine stops.

use std::collections::BTreeMap;

use crate::core::{
    Index, MAX_READS, MAY_NOT_LEAD, Message, Millis, NodeId, Priority, ReadError, ReadId,
    ReadIndex, Term, TransferError,
};

use crate::cluster::Command;
use crate::wire::SNAPSHOTS;

use super::action::Action;
use super::engine::Engine;
use super::{Error, Ticket};

/// Barriers and a transfer on their way.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    barriers: BTreeMap<ReadId, Ticket>,
    /// What may be read here once the host has loaded its state. Has room for all barriers.
    held: Vec<(Ticket, Index)>,
    /// With leases: barriers to be made by the next driving call, and questions of followers that
    /// it answers.
    asked: Vec<Ticket>,
    questions: BTreeMap<NodeId, ReadIndex>,
    /// With leases: a leader was heard in this driving call.
    heard: bool,
    transfer: Option<Transfer>,
    /// The newest record of its leadership that this node has proposed.
    recorded: (Term, Index),
}

/// A transfer whose outcome is not known.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    ticket: Ticket,
    to: NodeId,
    /// The term that this node led.
    term: Term,
    /// Nobody is known to lead by then: nobody knows what has become of it.
    due: Millis,
}

impl Engine {
    /// A lease is compared with the time, and the present one may have been taken before the host
    /// asked: with leases only the next driving call answers.
    pub fn barrier(&mut self, ticket: Ticket) {
        match self.settings.lease_reads {
            true if self.leadership.asked.try_reserve(1).is_err() => {
                self.done(ticket, Err(ReadError::NoMemory.into()));
            }
            true => self.leadership.asked.push(ticket),
            false => self.make_barrier(ticket),
        }
    }

    /// A message of a peer's Raft. With leases what it says of time is reckoned by that of the next
    /// driving call: this one may last long, and messages come while it does.
    pub fn raft_message(&mut self, from: NodeId, message: Message) {
        let leased = self.settings.lease_reads;
        match message {
            Message::ReadIndex(question) if leased && self.raft.progress(from).is_some() => {
                // One is for all that its sender has asked so far.
                self.leadership.questions.insert(from, question);
                return;
            }
            _ => {}
        }
        let promises = matches!(message, Message::Append(_) | Message::Snapshot(_));
        self.raft.receive(self.now, from, message);
        self.leadership.heard |= leased && promises && self.raft.leader() == Some(from);
    }

    /// Goes on with what came before this driving call and depends on its time.
    pub fn go_on_with_leases(&mut self) {
        if std::mem::take(&mut self.leadership.heard) {
            self.raft.renew_promise(self.now);
        }
        for (from, question) in std::mem::take(&mut self.leadership.questions) {
            let question = Message::ReadIndex(question);
            self.raft.receive(self.now, from, question);
        }
        self.make_barriers();
    }

    /// Makes the barriers that were asked for before this driving call.
    fn make_barriers(&mut self) {
        for ticket in std::mem::take(&mut self.leadership.asked) {
            self.make_barrier(ticket);
        }
    }

    /// Whether the next driving call is wanted at once.
    pub fn wants_next_call(&self) -> bool {
        let Leadership {
            asked,
            questions,
            heard,
            ..
        } = &self.leadership;
        *heard || !asked.is_empty() || !questions.is_empty()
    }

    fn make_barrier(&mut self, ticket: Ticket) {
        let Leadership { barriers, held, .. } = &mut self.leadership;
        let made = match self.raft.hard_state().excluded {
            Some(_) => Err(Error::Excluded),
            None if held.len() >= MAX_READS => Err(Error::Full),
            None if held.try_reserve(barriers.len() + 1).is_err() => {
                Err(ReadError::NoMemory.into())
            }
            None => self.raft.read(self.now).map_err(Error::from),
        };
        match made {
            Ok(id) => {
                let earlier = self.leadership.barriers.insert(id, ticket);
                assert!(earlier.is_none(), "a read is numbered once");
            }
            Err(error) => self.done(ticket, Err(error)),
        }
    }

    /// Comes after everything that was applied, so that the host has seen it when it is told.
    pub fn finish_barriers(&mut self) {
        while let Some((id, result)) = self.raft.take_read() {
            let Some(ticket) = self.leadership.barriers.remove(&id) else {
                panic!("nobody waits for {id:?}");
            };
            match result {
                Ok(index) => self.leadership.held.push((ticket, index)),
                Err(error) => self.done(ticket, Err(error.into())),
            }
        }
        // A snapshot counts as applied before the host has it.
        if self.snapshots.loading.is_none() {
            let mut held = std::mem::take(&mut self.leadership.held);
            for (ticket, index) in held.drain(..) {
                self.done(ticket, Ok(index));
            }
            // Its memory is kept.
            self.leadership.held = held;
        }
    }

    /// None of them can be answered any more.
    pub fn fail_barriers(&mut self) {
        let barriers = std::mem::take(&mut self.leadership.barriers);
        let held = std::mem::take(&mut self.leadership.held);
        let held = held.into_iter().map(|(ticket, _)| ticket);
        for ticket in barriers.into_values().chain(held) {
            self.done(ticket, Err(Error::Lost));
        }
    }

    /// Puts on record that this node leads, so that every node can look up where (raft.md, finding
    /// the leader).
    pub fn record_leader(&mut self) {
        let (id, term) = (self.settings.id, self.raft.term());
        let known = self.cluster.leader();
        let done = known.is_some_and(|known| known.term >= term);
        let (proposed, index) = self.leadership.recorded;
        let on_its_way = proposed == term && index > self.cluster.applied();
        if done || on_its_way || !self.is_fresh() || !self.all_understand(SNAPSHOTS) {
            return;
        }
        match self.propose_command(&Command::Lead { id, term }) {
            Ok(proposed) => self.leadership.recorded = proposed,
            Err(error) => self.log(4, format!("leadership is not recorded yet: {error}")),
        }
    }

    pub fn transfer(&mut self, ticket: Ticket, to: Option<NodeId>) {
        let begun = match self.raft.hard_state().excluded {
            Some(_) => Err(Error::Excluded),
            None => self.raft.transfer(self.now, to).map_err(Error::from),
        };
        let to = match begun {
            Ok(to) => to,
            Err(error) => return self.done(ticket, Err(error)),
        };
        // This node leads again, so the last one has come to its end.
        self.end_transfer(Err(Error::Lost));
        self.log(3, format!("handing leadership over to {to}"));
        let transfer = Transfer {
            ticket,
            to,
            term: self.raft.term(),
            // It is given up after one election timeout; electing somebody takes up to two.
            due: self.now + 3 * self.settings.election,
        };
        self.leadership.transfer = Some(transfer);
    }

    /// Completes a transfer as soon as its outcome is known.
    pub fn follow_transfer(&mut self) {
        if let Some(transfer) = self.leadership.transfer
            && let Some(result) = self.outcome(&transfer)
        {
            self.end_transfer(result);
        }
    }

    /// When [`Engine::follow_transfer`] must look at the latest.
    pub fn transfer_due(&self) -> Millis {
        let transfer = &self.leadership.transfer;
        transfer.as_ref().map_or(Millis::MAX, |t| t.due)
    }

    pub fn set_priority(&mut self, priority: Priority) {
        if priority != self.raft.priority() {
            let text = match priority {
                MAY_NOT_LEAD => "this node may not lead from now on".to_owned(),
                _ => format!("this node may lead, with priority {priority}"),
            };
            self.log(3, text);
            self.raft.set_priority(priority);
        }
    }

    fn outcome(&self, transfer: &Transfer) -> Option<Result<Index, Error>> {
        let (term, leader) = (self.raft.term(), self.raft.leader());
        let later = term > transfer.term;
        if later && leader == Some(transfer.to) {
            return Some(Ok(self.raft.commit()));
        }
        if self.raft.is_leader() && !later {
            let given_up = self.raft.transferring() != Some(transfer.to);
            let text = format!(
                "{} did not take over in time, this node leads on",
                transfer.to
            );
            return given_up.then_some(Err(Error::Conflict(text)));
        }
        let lost = (later && leader.is_some()) || self.now >= transfer.due;
        lost.then_some(Err(Error::Lost))
    }

    fn end_transfer(&mut self, result: Result<Index, Error>) {
        if let Some(transfer) = self.leadership.transfer.take() {
            self.done(transfer.ticket, result);
        }
    }

    fn done(&mut self, ticket: Ticket, result: Result<Index, Error>) {
        self.actions.push(Action::Done { ticket, result });
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Error {
        match error {
            ReadError::NoLeader => Error::NoQuorum("no leader is known".to_owned()),
            ReadError::Full => Error::Full,
            ReadError::NoMemory => Error::NoMemory("no memory for one more barrier".to_owned()),
            ReadError::LeaderLost => Error::Lost,
            ReadError::TimedOut => {
                Error::NoQuorum("no majority has confirmed the leader in time".to_owned())
            }
        }
    }
}

impl From<TransferError> for Error {
    fn from(error: TransferError) -> Error {
        match error {
            TransferError::NotLeader => Error::NotLeader,
            TransferError::InFlight => {
                Error::Conflict("leadership is being handed over".to_owned())
            }
            TransferError::Leads => Error::Exists("this node leads already".to_owned()),
            TransferError::NotMember => Error::NotFound("no such member".to_owned()),
            TransferError::NotVoter => Error::State("only a voter can lead".to_owned()),
            TransferError::Ineligible => Error::State("that node may not lead".to_owned()),
            TransferError::NobodyElse => {
                Error::NoQuorum("no other voter that may lead is in contact".to_owned())
            }
        }
    }
}
