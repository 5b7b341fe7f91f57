//! What a leader must not do for too long, seen when time is taken in: rules 9 and 31.

use super::data::{Input, Role, Step};
use super::{Node, Verdict};

impl Node {
    pub(super) fn check_timers(&mut self, step: &Step) -> Verdict {
        if self.role != Role::Leader {
            return Ok(());
        }
        let changed = !step.after.suffix.is_empty()
            && self.log.config_at(step.after.kept) != self.log.config();
        if !self.led || changed {
            self.settled_at = step.now;
        }
        let Input::Tick = step.input else {
            return Ok(());
        };
        let oldest = self.writes.front().map_or(step.now, |write| write.since);
        let stalled = step.now > oldest + self.stall;
        rule!(!stalled => "rule 31", "leads, and waits for its disk since {oldest}");
        // Thesis 6.2: the timeout may begin when the last one ends.
        let from = step.now.saturating_sub(2 * self.election);
        let heard =
            |id| self.settled_at >= from || self.peer(id).is_some_and(|p| p.heard_at >= from);
        let heard = self
            .config()
            .is_some_and(|(_, c)| c.agrees(|id| id == self.id || heard(id)));
        rule!(heard => "thesis 6.2, rule 9, L4", "leads, and a quorum is silent since {from}");
        Ok(())
    }
}
