//! Handing leadership over, and who had better have it (thesis 3.10; raft.md rules 12, 56, 57).
//!
//! A leader that hands over takes no proposals, brings its successor's log up to its own, and
//! tells it to campaign at once. What comes of it is an election like any other: nothing here is
//! needed for safety. If the successor does not lead within an election timeout, the leader goes
//! on.
//!
//! Every server has a [`Priority`]. Votes do not look at it: a server waits longer before it
//! campaigns while another would lead better, and a leader hands over to one that would. So it
//! decides who leads in the end, and can delay an election by a bounded time only.

use std::cmp::Reverse;

use super::message::{Message, TimeoutNow};
use super::quorum::agreed;
use super::raft::{Leader, Raft, Role};
use super::types::{Millis, NodeId};

/// How much a server is wished for as leader, compared to others.
pub type Priority = u8;
/// Such a server does not lead, as long as there is any other way.
pub const MAY_NOT_LEAD: Priority = 0;
/// That of a server of which nothing else is said.
pub const DEFAULT_PRIORITY: Priority = 1;

/// A server that may not lead campaigns all the same after this many election timeouts without a
/// leader, and tries as seldom to get rid of leadership that nobody takes: eligibility may delay
/// an election, and must not deny it for ever (raft.md rule 12).
const PATIENCE: Millis = 10;

/// Why a leader does not hand over; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// Another server leads, or none.
    NotLeader,
    /// A transfer is under way already.
    InFlight,
    /// This server leads already.
    Leads,
    /// The target is no member.
    NotMember,
    /// The target is a learner, or is on its way out.
    NotVoter,
    /// The target may not lead.
    Ineligible,
    /// No other voter that may lead is in contact.
    NobodyElse,
}

/// Leadership that is being handed over. It is part of a leader's state, and so ends with its
/// role and its term, however these end.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    to: NodeId,
    /// Given up then.
    until: Millis,
    /// The target has been told since the last heartbeat.
    told: bool,
    /// It has been told at all.
    ever_told: bool,
}

impl Raft {
    /// Begins to hand leadership over to `to`, or to the most up-to-date eligible voter in
    /// contact; returns who it is. Until that one leads, or an election timeout has passed,
    /// proposals are refused.
    pub fn transfer(&mut self, now: Millis, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        self.observe(now);
        let Role::Leader(leader) = &self.role else {
            return Err(TransferError::NotLeader);
        };
        if leader.transfer.is_some() {
            return Err(TransferError::InFlight);
        }
        let to = match to {
            Some(to) => self.check_target(to)?,
            None => self.successor().ok_or(TransferError::NobodyElse)?,
        };
        self.begin_transfer(to);
        Ok(to)
    }

    /// Leader only: to whom it hands over.
    pub fn transferring(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.to),
            _ => None,
        }
    }

    /// Whether others may take this server's word as the leader's: not once it has told one to
    /// take over, who need not wait for anybody's loyalty to end (raft.md rule 55). A target that is
    /// still being brought up to date has not been told, and waits like any other.
    pub fn may_confirm(&self, now: Millis) -> bool {
        let told = match &self.role {
            Role::Leader(leader) => leader.transfer.as_ref().is_some_and(|t| t.ever_told),
            _ => false,
        };
        self.is_quorum_fresh(now) && self.is_confirmed(now) && !told
    }

    /// How much this server is wished for as leader; [`DEFAULT_PRIORITY`] after every start.
    /// Whatever it is, it votes like any other.
    pub fn set_priority(&mut self, priority: Priority) {
        self.priority = priority;
    }

    /// Whether the host has yet to load the state that the log goes on from: a leader that applies
    /// nothing is of little use, so that such a server leads as seldom as one that may not.
    pub fn set_begins(&mut self, begins: bool) {
        self.begins = begins;
    }

    /// How much this server is wished for as leader.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Another server says its priority.
    pub fn note_priority(&mut self, id: NodeId, priority: Priority) {
        if self.priority_of(id) == priority {
            return;
        }
        // Members only, so that there are never more than members.
        let config = self.configs.latest();
        self.priorities.retain(|other, _| config.contains(*other));
        if config.contains(id) {
            self.priorities.insert(id, priority);
        }
    }

    fn priority_of(&self, id: NodeId) -> Priority {
        self.priorities
            .get(&id)
            .copied()
            .unwrap_or(DEFAULT_PRIORITY)
    }

    /// Whether another voter would lead better than this one; not the present leader, for it is
    /// its end that is waited for.
    pub(super) fn is_outranked(&self) -> bool {
        if self.priorities.is_empty() && self.priority >= DEFAULT_PRIORITY {
            return false;
        }
        let voters = self.configs.latest().voters.iter().copied();
        let mut others = voters.filter(|id| *id != self.id && Some(*id) != self.leader);
        others.any(|id| self.priority_of(id) > self.priority)
    }

    /// Whether this server may campaign as far as its priority and its host's state go.
    pub(super) fn may_lead(&self) -> bool {
        let patience = PATIENCE * self.options.election;
        self.is_willing() || self.now >= self.leader_heard_at + patience
    }

    fn is_willing(&self) -> bool {
        let alone = self.configs.latest().voters == [self.id];
        self.priority > MAY_NOT_LEAD && (!self.begins && !self.is_impaired() || alone)
    }

    fn check_target(&self, to: NodeId) -> Result<NodeId, TransferError> {
        let config = self.configs.latest();
        if to == self.id {
            return Err(TransferError::Leads);
        }
        if !config.contains(to) {
            return Err(TransferError::NotMember);
        }
        if config.voters.binary_search(&to).is_err() {
            return Err(TransferError::NotVoter);
        }
        if self.priority_of(to) == MAY_NOT_LEAD {
            return Err(TransferError::Ineligible);
        }
        Ok(to)
    }

    /// The best one in contact to hand over to: by priority, then by how much of the log it has.
    fn successor(&self) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let able = leader.peers.iter().filter(|(id, progress)| {
            let in_contact = self.now < progress.heard_at() + self.options.election;
            in_contact && self.check_target(**id).is_ok()
        });
        let rank = |id: NodeId, match_index| (self.priority_of(id), match_index, Reverse(id));
        able.max_by_key(|(id, progress)| rank(**id, progress.match_index()))
            .map(|(id, _)| *id)
    }

    /// Leader only: a voter in contact that holds all that is committed, and would take over without
    /// being wished for less than this server.
    pub fn peer_to_lead(&self) -> Option<NodeId> {
        let to = self.successor()?;
        let ready = self.progress(to)?.match_index() >= self.commit;
        (ready && self.priority_of(to) >= self.priority).then_some(to)
    }

    /// Whom this leader hands over to of itself: somebody who would lead better, and is ready to;
    /// anybody who is if its storage is of too little use.
    fn better_leader(&self) -> Option<NodeId> {
        let impaired = self.is_impaired() && (self.unreadable || self.others_suffice());
        if !(impaired || self.is_outranked()) || !self.has_committed_in_term() {
            return None;
        }
        let to = self.successor()?;
        let ready = self.progress(to)?.match_index() >= self.commit;
        (ready && (impaired || self.priority_of(to) > self.priority)).then_some(to)
    }

    /// Whether those in contact can commit without this leader. If not, nobody who leads instead of one
    /// whose disk is full commits anything, be it the first entry of a term, without which nothing is
    /// read either.
    fn others_suffice(&self) -> bool {
        let in_contact = |id| {
            let progress = self.progress(id);
            progress.is_some_and(|p| self.now < p.heard_at() + self.options.election)
        };
        agreed(self.configs.latest(), |id| id != self.id && in_contact(id))
    }

    fn begin_transfer(&mut self, to: NodeId) {
        let until = self.now + self.options.election;
        if let Role::Leader(leader) = &mut self.role {
            leader.transfer = Some(Transfer {
                to,
                until,
                told: false,
                ever_told: false,
            });
        }
    }

    /// Gives up a transfer that takes too long, has the target told again with every heartbeat,
    /// and hands over of itself to somebody who would lead better.
    pub(super) fn tick_transfer(&mut self, heartbeat: bool) {
        let now = self.now;
        let patience = PATIENCE * self.options.election;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if let Some(transfer) = &mut leader.transfer {
            transfer.told &= !heartbeat;
            if now >= transfer.until {
                leader.transfer = None;
                leader.willing_until = now + patience;
            }
            return;
        }
        if now >= leader.willing_until
            && let Some(to) = self.better_leader()
        {
            self.begin_transfer(to);
        }
    }

    /// Tells the target to campaign, once its log holds all that this one holds. Everything is
    /// committed by then, so that no proposal's outcome is in doubt because of the transfer.
    pub(super) fn tell_successor(&mut self) {
        let (term, commit, now) = (self.hard.term, self.commit, self.now);
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        let config = self.configs.latest();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Leader {
            peers, transfer, ..
        } = &mut *leader;
        let Some(transfer) = transfer else {
            return;
        };
        let to = transfer.to;
        let votes = config.voters.binary_search(&to).is_ok();
        let matches = peers
            .get(&to)
            .is_some_and(|p| match cfg!(keel_bug = "transfer_by_next") {
                true => p.next_index() > last_index,
                false => p.match_index() == last_index,
            });
        if transfer.told || !votes || !matches || commit < last_index {
            return;
        }
        transfer.told = true;
        transfer.ever_told = true;
        let seq = leader.numbers.next(now);
        leader.numbers.hand_over(to, last_index);
        let message = Message::TimeoutNow(TimeoutNow {
            term,
            seq,
            last_index,
            last_term,
        });
        self.send(to, message);
    }

    /// Campaigns at once, unless the word is out of date: then the leader has gone on, and is
    /// not to be disturbed.
    pub(super) fn on_timeout_now(&mut self, from: NodeId, message: &TimeoutNow) {
        let current = message.term == self.hard.term
            && self.leader == Some(from)
            && message.seq > self.leader_seq;
        let last = (self.log.last_index(), self.log.last_term());
        let complete = last == (message.last_index, message.last_term);
        let complete = complete || cfg!(keel_bug = "transfer_by_next");
        let durable = self.log.durable() == self.log.last_index();
        let able = self.is_willing() && self.may_campaign();
        if current && complete && durable && able {
            self.campaign(true);
        }
    }
}
