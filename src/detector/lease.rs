//! The right to serve: a node that no leader hears stops before the others may exclude it
//! (detection.md 4.3, 4.7 invariant I1).
//!
//! The lease counts from the moment this node *sent* the newest packet that a leader with a fresh
//! majority has shown to have received, and on plain time, not on listened time: whatever passed,
//! passed for the others too.

use crate::core::{Millis, Term};

use super::evidence::Envelope;
use super::{Outcast, Timers};

/// Whether this node may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unconfirmed,
    Serving,
    Silent,
    Out(Outcast),
}

impl Standing {
    fn why(self) -> &'static str {
        match self {
            Standing::Unconfirmed => "not confirmed by a leader yet",
            Standing::Serving => "confirmed by a leader",
            Standing::Silent => "no leader with a majority has answered for too long",
            Standing::Out(Outcast::Excluded) => "excluded",
            Standing::Out(Outcast::Removed) => "removed from the cluster for good",
            Standing::Out(Outcast::LostState) => {
                "this node has lost its state: a new node under a new id must replace it"
            }
        }
    }
}

/// This node's lease.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// When this node sent the newest packet that is confirmed.
    confirmed: Option<Millis>,
    leader_term: Term,
    outcast: Option<Outcast>,
    /// What the host was told last.
    told: Option<Standing>,
}

impl Lease {
    /// A packet of a peer, with its echo of a stamp of this run, if any.
    pub(super) fn packet(&mut self, e: &Envelope, own_echo: Option<Millis>, now: Millis) {
        if e.leader_term == 0 || e.leader_term < self.leader_term {
            return;
        }
        self.leader_term = e.leader_term;
        // An echo from the future is of no clock of ours; believing it would never fence.
        if let Some(echo) = own_echo.filter(|&echo| echo <= now) {
            self.confirm(echo);
        }
    }

    /// This node leads, and a majority has received what it sent at `quorum_echo`.
    pub(super) fn lead(&mut self, quorum_echo: Millis) {
        self.confirm(quorum_echo);
    }

    /// This node was put out, or taken back: then it needs a new confirmation.
    pub(super) fn set_outcast(&mut self, outcast: Option<Outcast>) {
        if self.outcast != outcast {
            self.outcast = outcast;
            self.confirmed = None;
        }
    }

    /// The highest term of a leader with a fresh majority that was heard.
    pub(super) fn leader_term(&self) -> Term {
        self.leader_term
    }

    /// How long this node may still serve: `None` without limit, 0 when fenced.
    pub(super) fn remaining(&self, now: Millis, timers: &Timers) -> Option<Millis> {
        match self.standing(now, timers) {
            Standing::Serving if timers.deadtime == 0 => None,
            Standing::Serving => self.deadline(timers).map(|end| end.saturating_sub(now)),
            Standing::Unconfirmed | Standing::Silent | Standing::Out(_) => Some(0),
        }
    }

    /// Whether the lease is so old that every peer should be asked more often.
    pub(super) fn is_old(&self, now: Millis, timers: &Timers) -> bool {
        let age = self.confirmed.map(|at| now.saturating_sub(at));
        timers.deadtime > 0 && age.is_some_and(|age| age > timers.fencetime / 2)
    }

    /// Why it must not serve, as the host was told or has to assume; `None` if it may.
    pub(super) fn fenced(&self) -> Option<&'static str> {
        let told = self.told.unwrap_or(Standing::Unconfirmed);
        (told != Standing::Serving).then(|| told.why())
    }

    /// What the host must be told, if it changed: fenced or not, and why.
    pub(super) fn judge(&mut self, now: Millis, timers: &Timers) -> Option<(bool, &'static str)> {
        let standing = self.standing(now, timers);
        if self.told.replace(standing) == Some(standing) {
            return None;
        }
        Some((standing != Standing::Serving, standing.why()))
    }

    fn standing(&self, now: Millis, timers: &Timers) -> Standing {
        if let Some(outcast) = self.outcast {
            return Standing::Out(outcast);
        }
        match self.deadline(timers) {
            None => Standing::Unconfirmed,
            Some(end) if timers.deadtime > 0 && now >= end => Standing::Silent,
            Some(_) => Standing::Serving,
        }
    }

    fn deadline(&self, timers: &Timers) -> Option<Millis> {
        self.confirmed.map(|at| at.saturating_add(timers.fencetime))
    }

    fn confirm(&mut self, sent: Millis) {
        if sent > 0 && self.outcast.is_none() {
            self.confirmed = self.confirmed.max(Some(sent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{id, timers};
    use super::*;

    fn from_leader(term: Term) -> Envelope {
        Envelope {
            from: id(1),
            incarnation: 1,
            stamp: 1,
            echo: 0,
            echo_incarnation: 1,
            leader_term: term,
        }
    }

    #[test]
    fn a_node_is_fenced_until_a_leader_confirms_it() {
        let (t, mut lease) = (timers(), Lease::default());
        assert!(lease.fenced().is_some());
        let first = lease.judge(1000, &t);
        assert_eq!(first, Some((true, "not confirmed by a leader yet")));
        lease.packet(&from_leader(0), Some(900), 1000);
        assert_eq!(lease.judge(1000, &t), None, "the sender does not lead");
        lease.packet(&from_leader(3), Some(900), 1000);
        assert_eq!(
            lease.judge(1000, &t),
            Some((false, "confirmed by a leader"))
        );
        assert_eq!(lease.remaining(1000, &t), Some(t.fencetime - 100));
    }

    #[test]
    fn it_counts_from_what_was_sent_and_ends_on_the_millisecond() {
        let (t, mut lease) = (timers(), Lease::default());
        lease.packet(&from_leader(3), Some(900), 5000);
        lease.judge(5000, &t);
        assert_eq!(lease.judge(899 + t.fencetime, &t), None);
        assert!(
            lease
                .judge(900 + t.fencetime, &t)
                .is_some_and(|(fenced, _)| fenced)
        );
        assert_eq!(lease.remaining(900 + t.fencetime, &t), Some(0));
        lease.packet(&from_leader(3), Some(901), 900 + t.fencetime);
        assert!(
            lease
                .judge(900 + t.fencetime, &t)
                .is_some_and(|(fenced, _)| !fenced)
        );
    }

    #[test]
    fn old_leaders_old_echoes_and_the_future_renew_nothing() {
        let (t, mut lease) = (timers(), Lease::default());
        lease.packet(&from_leader(3), Some(900), 1000);
        lease.packet(&from_leader(2), Some(950), 1000);
        lease.packet(&from_leader(3), Some(800), 1000);
        lease.packet(&from_leader(3), Some(1001), 1000);
        lease.packet(&from_leader(3), None, 1000);
        assert_eq!(lease.remaining(1000, &t), Some(t.fencetime - 100));
        assert_eq!(lease.leader_term(), 3);
    }

    #[test]
    fn without_deadtime_silence_never_fences_a_confirmed_node() {
        let (mut t, mut lease) = (timers(), Lease::default());
        (t.deadtime, t.fencetime) = (0, 0);
        assert_eq!(lease.remaining(1000, &t), Some(0));
        lease.packet(&from_leader(3), Some(900), 1000);
        assert_eq!(lease.remaining(u64::MAX, &t), None);
        assert!(!lease.is_old(u64::MAX, &t));
    }

    #[test]
    fn the_excluded_are_fenced_and_need_a_new_confirmation_afterwards() {
        let (t, mut lease) = (timers(), Lease::default());
        lease.packet(&from_leader(3), Some(900), 1000);
        lease.judge(1000, &t);
        lease.set_outcast(Some(Outcast::Excluded));
        lease.packet(&from_leader(3), Some(950), 1000);
        assert_eq!(lease.judge(1000, &t), Some((true, "excluded")));
        lease.set_outcast(None);
        assert!(lease.judge(1000, &t).is_some_and(|(fenced, _)| fenced));
        lease.packet(&from_leader(3), Some(990), 1000);
        assert!(lease.judge(1000, &t).is_some_and(|(fenced, _)| !fenced));
    }

    #[test]
    fn a_lease_is_old_after_half_of_fencetime() {
        let (t, mut lease) = (timers(), Lease::default());
        assert!(!lease.is_old(1_000_000, &t), "none is not old");
        lease.lead(1000);
        assert!(!lease.is_old(1000 + t.fencetime / 2, &t));
        assert!(lease.is_old(1001 + t.fencetime / 2, &t));
    }
}
