//! Logs that have lost what they held: section 2 of the design's page on storage, recovery 5.
//!
//! A node that lost entries claims the last one that it held. Its vote protects what it claims as
//! it protected what it held, until its durable log reaches there again.

use super::data::{Id, Message, Step};
use super::{Model, Node, Verdict, Was, received};

impl Model {
    /// The disk of a node that has stopped loses its log behind an index; what is found there says
    /// so, and claims (term, index) from now on.
    pub fn damage(&mut self, id: Id, kept: u64, claim: (u64, u64)) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.durable.truncate(kept);
            // What is left may be what the log was before entries in it were replaced.
            node.hard.commit = 0;
            node.hard.claim = node.hard.claim.max(Some(claim));
        }
    }
}

impl Node {
    /// A claim becomes less where the leader of its term says, to this run, that its log ends before:
    /// nobody held more of the term than it has.
    pub(super) fn take_claim(&mut self, was: &Was, step: &Step) -> Verdict {
        let mut bound = self.claim;
        if let Some((from, Message::LogEndReply { term, run, index })) = received(step) {
            let fits = (*term, *run, from) == (was.term, self.run, was.leader);
            let within = |claim: &(u64, u64)| fits && claim.0 == *term && claim.1 > *index;
            if bound.as_ref().is_some_and(within) {
                bound = Some((*term, *index));
            }
        }
        match step.after.claim == self.claim {
            true => Ok(()),
            false => self.check_claim(bound, step.after.claim),
        }
    }

    /// A claim ends when what is durable reaches it; nothing else ends it.
    pub(super) fn check_claim(
        &mut self,
        claim: Option<(u64, u64)>,
        after: Option<(u64, u64)>,
    ) -> Verdict {
        let last = self.log.last();
        let secure = (0..=last).rev().find(|index| self.is_secure(*index));
        let held = secure.and_then(|index| Some((self.log.term(index)?, index)));
        let ended = claim.is_some() && after.is_none() && held >= claim;
        let right = after == claim || ended;
        rule!(right => "recovery 5", "claim {claim:?} becomes {after:?}, {held:?} is durable");
        self.claim = after;
        Ok(())
    }
}
