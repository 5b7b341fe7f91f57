//! Who looks on from outside: what members tell their hosts is held against what all of them have
//! told before, in all of their runs.

use std::collections::BTreeMap;
use std::ffi::c_int;

use raftkeel::ffi::code::*;
use raftkeel::ffi::status::{KEEL_ROLE_LEADER, KEEL_ROLE_LEARNER};

use super::host::{EMPTY, Told};
use super::keel::{Look, Order};
use super::marks::Mark::*;

/// What was asked of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Proposal,
    Order(Order),
}

/// A request, from when it is made to its completion and beyond.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub kind: Kind,
    /// The node.
    pub at: usize,
    /// What was known to be committed anywhere when it was made.
    floor: u64,
    /// And the last of it that hosts had been given.
    top: u64,
    /// The newest term in which anybody had led.
    term: u64,
    accepted: bool,
    pub completion: Option<(c_int, u64)>,
    /// Where a proposal stands in the log.
    applied_at: Option<u64>,
}

impl Request {
    pub fn waits(&self) -> bool {
        self.accepted && self.completion.is_none()
    }

    pub fn is_done(&self) -> bool {
        matches!(self.completion, Some((KEEL_OK, _)))
    }
}

/// What stands at one index, as the first host to apply it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    request: u64,
    term: u64,
    /// A host's state when it has applied it.
    state: u64,
}

/// What is known of one node's run.
#[derive(Default)]
struct Watched {
    /// What its host has applied, or holds since it loaded a snapshot.
    applied: u64,
    role: c_int,
    term: u64,
    /// It is being told what a snapshot held.
    catching_up: bool,
    /// Epochs of the exclusions that it was told of.
    told: Vec<u64>,
    /// What it said of itself.
    commit: u64,
    took_in: u64,
    epoch: u64,
}

/// One decision.
#[derive(Debug, PartialEq, Eq)]
struct Exclusion {
    epoch: u64,
    index: u64,
    ids: Vec<u64>,
}

#[derive(Default)]
pub struct Judge {
    pub requests: Vec<Request>,
    log: Vec<Option<Slot>>,
    /// Who led in which term.
    tenures: BTreeMap<u64, u64>,
    exclusions: Vec<Exclusion>,
    /// Where each membership begins in the log.
    epochs: BTreeMap<u64, u64>,
    nodes: Vec<Watched>,
    /// The highest index that is known to be committed.
    committed: u64,
    pub reads: u64,
    pub applied: u64,
    pub lease_reads: bool,
}

/// Codes that say that nobody knows.
fn is_unknown(status: c_int) -> bool {
    matches!(status, KEEL_ERR_LOST | KEEL_ERR_CLOSED)
}

impl Judge {
    pub fn new(nodes: usize) -> Judge {
        Judge {
            nodes: (0..nodes).map(|_| Watched::default()).collect(),
            ..Judge::default()
        }
    }

    /// The last index that any host was given.
    pub fn top(&self) -> u64 {
        (self.log.len() as u64).saturating_sub(1)
    }

    /// Who led in the newest term.
    pub fn last_leader(&self) -> Option<u64> {
        self.tenures.values().next_back().copied()
    }

    /// Another run of a node begins.
    pub fn started(&mut self, at: usize) {
        self.nodes[at] = Watched::default();
    }

    // ---- requests --------------------------------------------------------

    /// A request is about to be made; its number.
    pub fn asks(&mut self, at: usize, kind: Kind) -> u64 {
        self.requests.push(Request {
            kind,
            at,
            floor: self.committed,
            top: self.top(),
            term: self.tenures.keys().next_back().copied().unwrap_or(0),
            accepted: false,
            completion: None,
            applied_at: None,
        });
        self.requests.len() as u64 - 1
    }

    /// What the call returned.
    pub fn asked(&mut self, number: u64, code: c_int) {
        let request = &mut self.requests[number as usize];
        request.accepted = code == KEEL_OK;
        assert!(
            request.accepted || request.applied_at.is_none(),
            "request {number} was not accepted, and is applied"
        );
    }

    fn done(&mut self, at: usize, number: u64, status: c_int, index: u64) {
        let request = &mut self.requests[number as usize];
        assert!(
            request.waits() && request.at == at,
            "request {number} was not accepted at n{}, or is completed twice: {request:?}",
            at + 1
        );
        request.completion = Some((status, index));
        let request = *request;
        assert_eq!(
            status == KEEL_OK,
            index > 0,
            "request {number}: status {status} with index {index}"
        );
        assert!(
            may_end(request.kind, status),
            "request {number}, {:?}, ends in {status}, which the header does not name",
            request.kind
        );
        if status == KEEL_OK {
            self.committed = self.committed.max(index);
        }
        match request.kind {
            Kind::Proposal => self.proposal_done(&request, number, status, index),
            Kind::Order(_) if status != KEEL_OK => {}
            Kind::Order(Order::Barrier) => self.read(&request, number, index),
            Kind::Order(Order::Snapshot | Order::Settle(_)) => {}
            Kind::Order(Order::Transfer(to)) => self.handed_over(&request, number, to),
            Kind::Order(order) => self.changed(number, order, index),
        }
    }

    /// The target leads, or has led since.
    fn handed_over(&self, request: &Request, number: u64, to: u64) {
        let mut since = self.tenures.range(request.term..);
        assert!(
            since.any(|(_, leader)| to == 0 || *leader == to),
            "transfer {number} to node {to} is done, and it never led"
        );
    }

    /// A change of members that is done was told, at its place in the log.
    fn changed(&self, number: u64, order: Order, index: u64) {
        let told = match order {
            Order::Exclude(id) => {
                let mut all = self.exclusions.iter();
                all.any(|e| e.index == index && e.ids.contains(&id))
            }
            _ => self.epochs.values().any(|at| *at == index),
        };
        assert!(
            told,
            "request {number}, {order:?}, is done at index {index}, and nobody was told"
        );
    }

    fn proposal_done(&mut self, request: &Request, number: u64, status: c_int, index: u64) {
        let at = request.at;
        if status == KEEL_OK {
            let slot = self.log.get(index as usize).copied().flatten();
            assert!(
                slot.is_some_and(|slot| slot.request == number),
                "request {number} was done at index {index}, where {slot:?} stands"
            );
            let applied = self.nodes[at].applied;
            assert!(
                applied >= index,
                "request {number} was done at index {index}, and its host has applied {applied}"
            );
        } else if !is_unknown(status) {
            assert!(
                request.applied_at.is_none(),
                "request {number} was surely not done ({status}), and is applied: {request:?}"
            );
        } else if request.applied_at.is_some() {
            UnknownTookEffect.hit();
        }
    }

    /// Linearizability: who may read here has applied all that was committed anywhere before.
    fn read(&mut self, request: &Request, number: u64, index: u64) {
        let node = &self.nodes[request.at];
        assert!(
            index >= request.floor && node.applied >= request.top,
            "barrier {number} at n{} gives {index} and has applied {}; before it was asked {} was \
             committed and {} applied",
            request.at + 1,
            node.applied,
            request.floor,
            request.top
        );
        self.reads += 1;
        match node.role {
            KEEL_ROLE_LEADER if self.lease_reads => BarrierByLease.hit(),
            KEEL_ROLE_LEADER => BarrierAtLeader.hit(),
            KEEL_ROLE_LEARNER => BarrierAtLearner.hit(),
            _ => BarrierAtFollower.hit(),
        }
    }

    // ---- what members tell ----------------------------------------------

    /// A member has told its host something.
    pub fn told(&mut self, at: usize, id: u64, told: &Told) {
        match told {
            Told::Applied {
                index,
                term,
                request,
                state,
            } => {
                let slot = Slot {
                    request: *request,
                    term: *term,
                    state: *state,
                };
                self.applied(at, *index, slot);
            }
            Told::Loaded {
                index,
                applied,
                state,
                ..
            } => self.loaded(at, *index, *applied, *state),
            Told::Role { role, term, .. } => self.role(at, id, *role, *term),
            Told::Excluded { epoch, ids, index } => self.excluded(at, *epoch, ids, *index),
            Told::Members { epoch, index } => self.members(at, *epoch, *index),
            // The last thing that is told of what a snapshot held.
            Told::Params { .. } => self.nodes[at].catching_up = false,
            Told::Done {
                request,
                status,
                index,
            } => self.done(at, *request, *status, *index),
            Told::Made { request, code } => self.asked(*request, *code),
            _ => {}
        }
    }

    /// State machine safety: one entry an index, on every node, in order, each once.
    fn applied(&mut self, at: usize, index: u64, slot: Slot) {
        let node = &mut self.nodes[at];
        self.applied += 1;
        self.committed = self.committed.max(index);
        let from = (node.applied as usize + 1).min(self.log.len());
        let between = &self.log[from..(index as usize).clamp(from, self.log.len())];
        assert!(
            between.iter().all(Option::is_none),
            "n{} leaves out what others applied between {} and {index}",
            at + 1,
            node.applied
        );
        node.applied = index;
        if let Some(known) = self.log.get(index as usize) {
            assert_eq!(
                *known,
                Some(slot),
                "n{} applies another entry at index {index}",
                at + 1
            );
            return;
        }
        let request = self.requests.get_mut(slot.request as usize);
        let request = request.expect("an entry names a request that was made");
        assert!(
            request.accepted && request.applied_at.is_none(),
            "request {} was not accepted, or is applied twice: {request:?} and at {index}",
            slot.request
        );
        request.applied_at = Some(index);
        match request.completion {
            None => {}
            Some((status, _)) if is_unknown(status) => UnknownTookEffect.hit(),
            Some((status, _)) => panic!(
                "request {} was over ({status}) before it was applied at {index}",
                slot.request
            ),
        }
        self.log.resize(index as usize, None);
        self.log.push(Some(slot));
    }

    /// An image is the state at its index.
    fn loaded(&mut self, at: usize, index: u64, applied: u64, state: u64) {
        let node = &mut self.nodes[at];
        let known = match applied {
            0 => Some(EMPTY),
            _ => self
                .log
                .get(applied as usize)
                .copied()
                .flatten()
                .map(|s| s.state),
        };
        assert!(
            applied <= index && known == Some(state),
            "n{} loads a snapshot up to {index} of a state that nobody had at {applied}",
            at + 1
        );
        let from = (applied as usize + 1).min(self.log.len());
        let between = &self.log[from..(index as usize + 1).clamp(from, self.log.len())];
        assert!(
            between.iter().all(Option::is_none),
            "n{} loads a snapshot up to {index} that lacks what follows {applied}",
            at + 1
        );
        assert!(
            node.applied <= applied,
            "n{} goes back from {} to {applied}",
            at + 1,
            node.applied
        );
        node.applied = applied;
        node.catching_up = true;
        self.committed = self.committed.max(index);
    }

    /// Election safety: one leader a term, over all of history.
    fn role(&mut self, at: usize, id: u64, role: c_int, term: u64) {
        let node = &mut self.nodes[at];
        assert!(
            term >= node.term,
            "n{} goes back from term {} to {term}",
            at + 1,
            node.term
        );
        (node.role, node.term) = (role, term);
        if role == KEEL_ROLE_LEADER {
            let leader = *self.tenures.entry(term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {term}");
        }
    }

    /// One decision, the same on every node, told once in every run. With a snapshot comes what
    /// still holds of it.
    fn excluded(&mut self, at: usize, epoch: u64, ids: &[u64], index: u64) {
        let catching_up = self.nodes[at].catching_up;
        let known = self
            .exclusions
            .iter()
            .find(|e| e.epoch == epoch || e.index == index);
        let same = known.is_none_or(|e| {
            let all = e.ids.len() == ids.len() || catching_up;
            e.epoch == epoch && e.index == index && all && ids.iter().all(|id| e.ids.contains(id))
        });
        assert!(
            same && !ids.is_empty(),
            "n{} is told of an exclusion of {ids:?} at epoch {epoch}, index {index}; it was {known:?}",
            at + 1
        );
        let told = &mut self.nodes[at].told;
        assert!(
            catching_up || !told.contains(&epoch),
            "n{} is told twice of epoch {epoch}",
            at + 1
        );
        told.push(epoch);
        if known.is_none() {
            assert!(
                !catching_up,
                "n{} loads an exclusion at epoch {epoch} that nobody was told of",
                at + 1
            );
            self.exclusions.push(Exclusion {
                epoch,
                index,
                ids: ids.to_vec(),
            });
        }
    }

    /// Whether a node was told of this exclusion as the first one.
    pub fn is_news(&self, epoch: u64) -> bool {
        !self.exclusions.iter().any(|e| e.epoch == epoch)
    }

    fn members(&mut self, at: usize, epoch: u64, index: u64) {
        if self.nodes[at].catching_up {
            return;
        }
        let known = *self.epochs.entry(epoch).or_insert(index);
        assert_eq!(
            known,
            index,
            "n{} is told another place of epoch {epoch}",
            at + 1
        );
    }

    /// What a member says of itself never goes back in one run.
    pub fn looked(&mut self, at: usize, look: &Look) {
        let node = &mut self.nodes[at];
        let forward = look.commit >= node.commit
            && look.applied >= node.took_in
            && look.epoch >= node.epoch
            && look.term >= node.term;
        let ordered = look.applied <= look.commit && look.commit <= look.last;
        assert!(
            forward && ordered,
            "n{} goes back, or knows more than it holds: {look:?}; before, commit {}, applied {}, \
             epoch {}, term {}",
            at + 1,
            node.commit,
            node.took_in,
            node.epoch,
            node.term
        );
        (node.commit, node.took_in, node.epoch) = (look.commit, look.applied, look.epoch);
        self.committed = self.committed.max(look.commit);
    }

    // ---- the end ---------------------------------------------------------

    /// Every accepted request has its completion.
    pub fn nobody_waits(&self) {
        let waiting = self.requests.iter().enumerate().find(|(_, r)| r.waits());
        assert!(waiting.is_none(), "request without completion: {waiting:?}");
    }
}

/// Whether the header names this end of such a request.
fn may_end(kind: Kind, status: c_int) -> bool {
    let also: &[c_int] = match kind {
        Kind::Proposal => &[
            KEEL_ERR_NOT_LEADER,
            KEEL_ERR_FULL,
            KEEL_ERR_CONFLICT,
            KEEL_ERR_EXCLUDED,
        ],
        Kind::Order(Order::Barrier) => &[KEEL_ERR_NO_QUORUM, KEEL_ERR_FULL, KEEL_ERR_EXCLUDED],
        Kind::Order(Order::Snapshot) => &[
            KEEL_ERR_NOT_LEADER,
            KEEL_ERR_CONFLICT,
            KEEL_ERR_STATE,
            KEEL_ERR_IO,
        ],
        Kind::Order(_) => &[
            KEEL_ERR_NOT_LEADER,
            KEEL_ERR_CONFLICT,
            KEEL_ERR_STATE,
            KEEL_ERR_NOT_FOUND,
            KEEL_ERR_EXISTS,
            KEEL_ERR_NO_QUORUM,
            KEEL_ERR_FULL,
            KEEL_ERR_EXCLUDED,
        ],
    };
    matches!(status, KEEL_OK | KEEL_ERR_LOST | KEEL_ERR_CLOSED) || also.contains(&status)
}
