//! Requests of the host and of the detector: checked, proposed, and completed exactly once.

use crate::cluster::{Cause, Change, Command, Params, Refusal};
use crate::core::{Bytes, Entry, Index, NodeId, Payload, ProposeError, Term, agreed};

use super::action::Action;
use super::engine::Engine;
use super::{Error, Request, Ticket};

/// Requests that may wait for their entries: a host that proposes faster than it applies is told so.
const PENDING_MAX: usize = 1 << 16;

/// An accepted request, waiting for the entry at its index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    ticket: Ticket,
    term: Term,
}

impl Engine {
    pub fn request(&mut self, ticket: Ticket, request: Request) {
        let proposed = match request {
            Request::Barrier => return self.barrier(ticket),
            Request::Snapshot => return self.request_snapshot(ticket),
            Request::Transfer(to) => return self.transfer(ticket, to),
            request => self.propose(request),
        };
        match proposed {
            Ok((term, index)) => {
                let earlier = self.pending.insert(index, Pending { ticket, term });
                assert!(earlier.is_none(), "two requests wait for index {index}");
            }
            Err(error) => {
                let result = Err(error);
                self.actions.push(Action::Done { ticket, result });
            }
        }
    }

    fn propose(&mut self, request: Request) -> Result<(Term, Index), Error> {
        if self.pending.len() >= PENDING_MAX {
            return Err(Error::Full);
        }
        if self.outcast().is_some() {
            return Err(Error::Excluded);
        }
        if !self.raft.is_leader() {
            return Err(Error::NotLeader);
        }
        let expect = self.cluster.epoch();
        let command = match request {
            Request::Propose(data) => {
                let proposed = self.raft.propose(self.now, Payload::Host(data));
                return proposed.map_err(|e| self.refused(e));
            }
            Request::Exclude(id) => {
                self.require_quorum_without(id)?;
                self.exclusion(vec![id], Cause::Admin)
            }
            Request::Readmit(id) => {
                self.require_state_of(id)?;
                Command::Readmit { expect, id }
            }
            Request::Replace { old, by } => Command::Replace { expect, old, by },
            Request::Add(peer) => Command::Add { expect, peer },
            Request::Promote(id) => self.promotion(id)?,
            Request::Remove(id) => self.removal(id)?,
            Request::SetParams(params) => set_params(params)?,
            Request::Barrier | Request::Transfer(_) | Request::Snapshot => {
                panic!("barriers, transfers and snapshots are not proposed")
            }
        };
        self.propose_command(&command)
    }

    pub fn propose_command(&mut self, command: &Command) -> Result<(Term, Index), Error> {
        let change = self.cluster.check(self.raft.configuration(), command)?;
        let bytes = command.try_encode();
        let no_memory = |_| Error::NoMemory("no memory for a command to the cluster".to_owned());
        let bytes: Bytes = bytes.map_err(no_memory)?.into();
        let proposed = match change {
            Change::Config(target) => self.raft.propose_config(self.now, target, bytes),
            Change::Plain => self.raft.propose(self.now, Payload::Cluster(bytes)),
        };
        proposed.map_err(|e| self.refused(e))
    }

    fn refused(&self, error: ProposeError) -> Error {
        match error {
            ProposeError::NotLeader => Error::NotLeader,
            ProposeError::Full => Error::Full,
            ProposeError::TooBig => Error::TooBig(format!(
                "a proposal has at most {} bytes",
                self.settings.entry_max
            )),
            ProposeError::ChangeInFlight => Error::Conflict(
                "another change of membership is under way, or this leader is too new for one"
                    .to_owned(),
            ),
            ProposeError::TransferInFlight => {
                Error::Conflict("leadership is being handed over".to_owned())
            }
            ProposeError::NoSpace => self.why_full(),
            ProposeError::NoMemory => {
                Error::NoMemory("no memory for one more log entry".to_owned())
            }
            ProposeError::StaleEpoch => {
                Error::Conflict("the membership has changed meanwhile".to_owned())
            }
        }
    }

    fn exclusion(&self, ids: Vec<NodeId>, by: Cause) -> Command {
        let silence = |id: &NodeId| {
            let silent = self.detector.node(*id).and_then(|seen| seen.silent);
            silent.map_or(u32::MAX, |ms| u32::try_from(ms).unwrap_or(u32::MAX))
        };
        let silent = ids.iter().map(silence).collect();
        let expect = self.cluster.epoch();
        Command::Exclude {
            expect,
            ids,
            silent,
            by,
        }
    }

    /// The administrator decides who is out, but never against the quorum: a majority of the
    /// present voters must be alive besides.
    fn require_quorum_without(&self, id: NodeId) -> Result<(), Error> {
        let alive = |voter: NodeId| voter != id && self.can_vote(voter);
        if agreed(self.raft.configuration(), alive) {
            return Ok(());
        }
        Err(Error::NoQuorum(format!(
            "without {id} no majority of the present voters is alive"
        )))
    }

    /// Alive, and known to hold something: one that does not abstains from every vote (raft.md rule
    /// 51), and so does one that has lost its state, so no change may come to need it.
    fn can_vote(&self, voter: NodeId) -> bool {
        let holds = |id| self.raft.progress(id).is_some_and(|p| p.match_index() > 0);
        let keeps = !self.instances.has_lost(voter);
        keeps && self.is_heard(voter) && (voter == self.settings.id || holds(voter))
    }

    /// A node that comes back without its state would never be listened to.
    fn require_state_of(&self, id: NodeId) -> Result<(), Error> {
        if !self.instances.has_lost(id) {
            return Ok(());
        }
        Err(Error::State(format!(
            "{id} has lost its state: a new node under a new id must replace it"
        )))
    }

    fn promotion(&self, id: NodeId) -> Result<Command, Error> {
        let expect = self.cluster.epoch();
        let command = Command::Promote { expect, id };
        // What waiting cannot mend is said first.
        self.cluster.check(self.raft.configuration(), &command)?;
        self.require_state_of(id)?;
        if self.is_promotable(id) {
            return Ok(command);
        }
        let progress = self.raft.progress(id);
        let (held, commit) = (progress.map_or(0, |p| p.match_index()), self.raft.commit());
        Err(Error::Conflict(match commit.saturating_sub(held) {
            0 => format!("{id} has not followed for long enough, or is out of contact"),
            behind => format!(
                "{id} is {behind} entries behind: it holds the log up to {held} of {commit}"
            ),
        }))
    }

    /// A voter's storage must be on record before it votes, or its loss could not be found.
    fn is_promotable(&self, learner: NodeId) -> bool {
        let registered = self.cluster.instance(learner).is_some();
        let keeps = !self.instances.has_lost(learner);
        registered && keeps && self.raft.is_ready_to_vote(learner)
    }

    /// The node that leaves may help to decide it, but the others must be able to go on alone.
    fn removal(&self, id: NodeId) -> Result<Command, Error> {
        let expect = self.cluster.epoch();
        let command = Command::Remove { expect, id };
        let change = self.cluster.check(self.raft.configuration(), &command)?;
        let alive = |voter: NodeId| self.can_vote(voter);
        match change {
            Change::Config(target) if !agreed(&target, alive) => Err(Error::NoQuorum(format!(
                "too few voters are alive to remove {id} and to go on without it"
            ))),
            _ => Ok(command),
        }
    }

    /// The detector's verdict on dead nodes.
    pub fn exclude_dead(&mut self, ids: Vec<NodeId>, silent: Vec<u32>) {
        let text = format!("excluding {ids:?}, silent for {silent:?} ms");
        // The detector hears nothing of lost states: to it such a node is alive for a while.
        let stays = |id: NodeId| !ids.contains(&id) && !self.instances.has_lost(id);
        if !agreed(self.raft.configuration(), stays) {
            self.log(2, format!("{text}: too few voters have their state"));
            self.detector.proposal_failed();
            return;
        }
        let expect = self.cluster.epoch();
        let by = Cause::Detector;
        let command = Command::Exclude {
            expect,
            ids,
            silent,
            by,
        };
        match self.propose_command(&command) {
            Ok(_) => self.log(2, text),
            Err(error) => {
                self.log(2, format!("{text}: {error}"));
                self.detector.proposal_failed();
            }
        }
    }

    /// Makes a learner that is meant to vote, and has caught up, a voter.
    pub fn promote(&mut self) {
        if self.raft.change_in_flight() {
            return;
        }
        let mut learners = self.raft.configuration().learners.iter().copied();
        let ready = |id: &NodeId| self.cluster.is_elector(*id) && self.is_promotable(*id);
        let Some(id) = learners.find(ready) else {
            return;
        };
        let expect = self.cluster.epoch();
        match self.propose_command(&Command::Promote { expect, id }) {
            Ok(_) => self.log(3, format!("{id} has caught up and becomes a voter")),
            Err(error) => self.log(3, format!("{id} cannot become a voter yet: {error}")),
        }
    }

    /// An entry was applied: the request that waited for its index is finished. If another
    /// leader's entry stands there, the request surely has not happened.
    pub fn complete(&mut self, entry: &Entry, refused: Option<Error>) {
        let Some(pending) = self.pending.remove(&entry.index) else {
            return;
        };
        let result = match refused {
            _ if pending.term != entry.term => Err(Error::NotLeader),
            Some(error) => Err(error),
            None => Ok(entry.index),
        };
        let ticket = pending.ticket;
        self.actions.push(Action::Done { ticket, result });
    }

    /// A snapshot has taken the place of entries up to `index`: nobody knows any more which of them
    /// were this node's (raft.md rule 34).
    pub fn fail_skipped(&mut self, index: Index) {
        let later = self.pending.split_off(&(index + 1));
        for pending in std::mem::replace(&mut self.pending, later).into_values() {
            let (ticket, result) = (pending.ticket, Err(Error::Lost));
            self.actions.push(Action::Done { ticket, result });
        }
    }

    /// Requests whose leader is no more: nobody knows what becomes of them, but for those that
    /// are committed and only wait to be applied.
    pub fn fail_lost(&mut self) {
        if self.stopped.is_some() {
            // Leadership has nothing to do with it: they are answered with the engine's death.
            return;
        }
        let term = self.raft.is_leader().then(|| self.raft.term());
        // What is committed is not applied any more without the state that it belongs to.
        let commit = match self.has_lost_state() {
            true => 0,
            false => self.raft.commit(),
        };
        let actions = &mut self.actions;
        self.pending.retain(|index, pending| {
            let stays = *index <= commit || Some(pending.term) == term;
            if !stays {
                let (ticket, result) = (pending.ticket, Err(Error::Lost));
                actions.push(Action::Done { ticket, result });
            }
            stays
        });
    }
}

fn set_params(params: Params) -> Result<Command, Error> {
    params
        .validate()
        .map_err(|e| Error::Invalid(e.to_string()))?;
    let expect_version = params.version;
    Ok(Command::SetParams {
        expect_version,
        params,
    })
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::NotFound(text) => Error::NotFound(text),
            Refusal::Exists(text) => Error::Exists(text),
            Refusal::Conflict(text) => Error::Conflict(text),
            Refusal::Invalid(text) => Error::Invalid(text),
            Refusal::State(text) => Error::State(text),
            Refusal::TooBig(text) => Error::TooBig(text),
        }
    }
}
