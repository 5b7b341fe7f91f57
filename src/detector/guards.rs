//! What holds an exclusion back although its nodes are dead (detection.md 4.6), in the fixed
//! order of the codes, and the host's consent.

use crate::core::{Millis, NodeId};

use super::members::Members;
use super::{BlockedBy, GuardAnswer, LeaderView, Timers};

/// A denied cut is put to the host again after so long, or after hb_keepalive if that is longer.
const ASK_AGAIN: Millis = 5000;

/// Why an exclusion is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) by: BlockedBy,
    /// Values and threshold in plain words.
    pub(super) why: String,
}

impl Held {
    pub(super) fn new(by: BlockedBy, why: impl Into<String>) -> Held {
        let why = why.into();
        Held { by, why }
    }
}

/// Everything the guards that need no answer look at.
pub(super) struct Situation<'a> {
    pub(super) members: &'a Members,
    pub(super) timers: &'a Timers,
    pub(super) cut: &'a [NodeId],
    pub(super) view: LeaderView,
    pub(super) now: Millis,
    /// The health score, and whether a pause is not yet overcome.
    pub(super) score: u8,
    pub(super) healthy: bool,
    pub(super) recovering: bool,
    /// A voter that others heard after its last report to this node.
    pub(super) unaccounted: Option<NodeId>,
    /// Whether a voter is heard by this node, or is this node.
    pub(super) alive: &'a dyn Fn(NodeId) -> bool,
}

impl Situation<'_> {
    /// The first guard that holds the cut, settle and the host's consent apart.
    pub(super) fn held(&self) -> Option<Held> {
        self.disabled()
            .or_else(|| self.not_leader_fresh())
            .or_else(|| self.listener_unhealthy())
            .or_else(|| self.no_quorum_after())
            .or_else(|| self.min_nodes())
    }

    fn disabled(&self) -> Option<Held> {
        (self.timers.deadtime == 0).then(|| Held::new(BlockedBy::Disabled, "hb_deadtime is 0"))
    }

    fn not_leader_fresh(&self) -> Option<Held> {
        let held = |why: String| Some(Held::new(BlockedBy::NotLeaderFresh, why));
        if !self.view.leading {
            return held("this node does not lead".into());
        }
        if !self.view.fresh {
            return held("no majority has confirmed this leader lately".into());
        }
        let led = self.now.saturating_sub(self.view.since);
        let grace = (2 * self.timers.keepalive).max(self.timers.election);
        if led < grace {
            return held(format!("leading for {led} ms, need {grace} ms"));
        }
        // An earlier leader may have confirmed the lease of a node that it alone heard. What it
        // heard is in its rows; if they did not come here, only time can tell.
        if led < self.timers.deadtime {
            let unknown = self.unaccounted?;
            return held(format!(
                "leading for {led} ms, and the last reports of {unknown} are missing"
            ));
        }
        None
    }

    fn listener_unhealthy(&self) -> Option<Held> {
        let why = if self.recovering {
            "this node was stopped and has not listened for three keepalives since".into()
        } else if !self.healthy {
            format!("health score is {}, at most 3 is healthy", self.score)
        } else {
            return None;
        };
        Some(Held::new(BlockedBy::ListenerUnhealthy, why))
    }

    fn no_quorum_after(&self) -> Option<Held> {
        let remains = |id| !self.cut.contains(&id) && (self.alive)(id);
        if self.members.is_majority(remains) {
            return None;
        }
        let voters = self.members.incoming();
        let alive = voters.iter().filter(|&&id| remains(id)).count();
        let why = format!(
            "{alive} of {} voters alive, need {}",
            voters.len(),
            voters.len() / 2 + 1
        );
        Some(Held::new(BlockedBy::NoQuorumAfter, why))
    }

    fn min_nodes(&self) -> Option<Held> {
        let voters = self.members.incoming();
        let remain = voters.iter().filter(|id| !self.cut.contains(id)).count();
        let floor = floor(self.timers, self.members.provisioned());
        // A cut of learners takes no voter away, so the floor has nothing to say.
        if remain == voters.len() || remain >= floor as usize {
            return None;
        }
        let why = format!("{remain} would remain, floor is {floor}");
        Some(Held::new(BlockedBy::MinNodes, why))
    }
}

/// Fewest voters that automatic exclusion may leave.
fn floor(timers: &Timers, provisioned: u32) -> u32 {
    let wanted = match timers.min_nodes {
        0 => provisioned / 2 + 1,
        set => set,
    };
    wanted.max(2)
}

/// What to do about the host's consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It has it: propose.
    Propose,
    /// Ask for it.
    Ask,
    /// Wait.
    Hold(Held),
}

/// The host's consent to one cut. A cut that changes needs a new one.
#[derive(Debug, Default)]
pub(super) enum Consent {
    #[default]
    Unasked,
    Asked(Vec<NodeId>),
    Given(Vec<NodeId>, Millis),
    Refused(Vec<NodeId>, Millis, String),
}

impl Consent {
    /// What to do about `cut` now.
    pub(super) fn step(&mut self, cut: &[NodeId], now: Millis) -> Step {
        match self {
            Consent::Given(of, until) if of == cut && now <= *until => Step::Propose,
            Consent::Asked(of) if of == cut => {
                Step::Hold(Held::new(BlockedBy::Veto, "the host has not answered yet"))
            }
            Consent::Refused(of, again, why) if of == cut && now < *again => {
                Step::Hold(Held::new(BlockedBy::Veto, why.as_str()))
            }
            _ => {
                *self = Consent::Asked(cut.to_vec());
                Step::Ask
            }
        }
    }

    /// The host's answer; one to anything but the last question is stale and ignored.
    pub(super) fn answer(
        &mut self,
        cut: &[NodeId],
        answer: GuardAnswer,
        now: Millis,
        keepalive: Millis,
    ) {
        if !matches!(self, Consent::Asked(of) if of == cut) {
            return;
        }
        let cut = cut.to_vec();
        *self = match answer {
            GuardAnswer::Allow => Consent::Given(cut, now.saturating_add(keepalive)),
            GuardAnswer::Later(wait, why) => {
                Consent::Refused(cut, now.saturating_add(wait.max(1)), why)
            }
            GuardAnswer::Deny(why) => {
                Consent::Refused(cut, now.saturating_add(keepalive.max(ASK_AGAIN)), why)
            }
        };
    }

    /// The cut is gone or decided.
    pub(super) fn forget(&mut self) {
        *self = Consent::Unasked;
    }
}

#[cfg(test)]
mod tests;
