//! Logs that have lost what they held: section 2 of the design's page on storage, recovery 5.
//!
//! A node that lost entries claims the last one that it held. Its vote protects what it claims as
//! it protected what it held, until its durable log reaches there again.

use super::data::Id;
use super::{Model, Node, Verdict};

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
    /// A claim ends when what is durable reaches it; nothing else changes it.
    pub(super) fn take_claim(&mut self, after: Option<(u64, u64)>) -> Verdict {
        let Some(claim) = self.claim.filter(|_| after != self.claim) else {
            rule!(after == self.claim => "recovery 5", "claims {after:?} of itself");
            return Ok(());
        };
        let last = self.log.last();
        let secure = (0..=last).rev().find(|index| self.is_secure(*index));
        let held = secure.and_then(|index| Some((self.log.term(index)?, index)));
        let right = after.is_none() && held >= Some(claim);
        rule!(right => "recovery 5", "claim {claim:?} becomes {after:?}, {held:?} is durable");
        self.claim = None;
        Ok(())
    }
}
