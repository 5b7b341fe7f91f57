//! What a log that has lost entries still stands for: [`HardState::claim`] holds the last entry that
//! this server ever acknowledged, or a place behind it (the design's page on storage, section 2,
//! recovery 5).
//!
//! It votes as if it still held that entry, and does not campaign: so whatever it counted for in a
//! quorum is as safe as before, by the proof of Leader Completeness with the claim in the place of the
//! voter's own last entry. A claim that is too large only refuses more.
//!
//! [`HardState::claim`]: super::HardState::claim

use super::message::{LogEnd, LogEndReply, Message, VoteRequest};
use super::persistence::Effect;
use super::raft::Raft;
use super::types::{NodeId, Position};

impl Raft {
    /// Whether a candidate's log holds at least as much as this one, and as this one once held.
    pub(super) fn is_current(&self, request: &VoteRequest) -> bool {
        let last = Position {
            index: request.last_index,
            term: request.last_term,
        };
        let claim = self.hard.claim;
        let claim = claim.filter(|_| !cfg!(keel_bug = "damaged_votes"));
        claim.is_none_or(|claim| last.reaches(claim))
            && self.log.is_up_to_date(last.term, last.index)
    }

    /// A claim ends once the log, as it is on the disk, reaches it: from then on the log itself
    /// keeps what was promised.
    pub(super) fn end_claim(&mut self) {
        let index = self.log.durable();
        let (Some(claim), Some(term)) = (self.hard.claim, self.log.term(index)) else {
            return;
        };
        let early = self.leader.is_some() && index >= self.commit;
        let early = early && cfg!(keel_bug = "claim_ended_early");
        if (Position { index, term }).reaches(claim) || early {
            self.hard.claim = None;
            self.staged.hard = true;
        }
    }

    /// A claim that is a bound may lie behind all that the term ever brings. But what this server held
    /// of the term came from its leader, whose log only grows: where that ends now is a bound too.
    pub(super) fn ask_for_log_end(&mut self, leader: NodeId) {
        let (term, run) = (self.hard.term, self.options.run);
        let open = self.hard.claim.is_some_and(|claim| claim.term == term);
        if !open || self.now < self.end_asked_at + self.options.heartbeat {
            return;
        }
        self.end_asked_at = self.now;
        let question = Message::LogEnd(LogEnd { term, run });
        self.after_hard(Effect::Send(leader, term, Box::new(question)));
    }

    pub(super) fn on_log_end(&mut self, from: NodeId, question: &LogEnd) {
        if self.is_leader() && question.term == self.hard.term {
            let reply = LogEndReply {
                term: question.term,
                run: question.run,
                index: self.log.last_index(),
            };
            self.send(from, Message::LogEndReply(reply));
        }
    }

    pub(super) fn on_log_end_reply(&mut self, from: NodeId, reply: &LogEndReply) {
        let own_run = reply.run == self.options.run;
        let mine = reply.term == self.hard.term && own_run && self.leader == Some(from);
        let Some(claim) = self.hard.claim.as_mut().filter(|_| mine) else {
            return;
        };
        if claim.term == reply.term && reply.index < claim.index {
            claim.index = reply.index;
            self.staged.hard = true;
            self.end_claim();
        }
    }
}
