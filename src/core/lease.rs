//! Reads by a lease, if the host has chosen them: as long as no other leader can have been
//! elected, this one need not ask (thesis 6.4.1; raft.md rule 55).
//!
//! Whoever answers an append votes for nobody else for an election timeout from when it came, so
//! for at least as long from when it left. The lease is a little shorter, for clocks do not run
//! equally fast. It is void from the moment somebody is told to take over: then a vote may come
//! earlier.

use std::collections::{BTreeMap, VecDeque};

use super::progress::Progress;
use super::quorum;
use super::raft::{Raft, Role};
use super::types::{Index, Millis, NodeId};

/// Of an election timeout, in hundredths: clocks may differ by a twentieth in speed, and by one
/// millisecond in what they call now.
const SPAN: Millis = 95;

/// The numbers of what a leader of a term sends, and by them its lease.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    newest: u64,
    /// How long a lease lasts from when its round left; `None` if there are no lease reads.
    span: Option<Millis>,
    /// How long it is known when a round left.
    kept: Millis,
    /// The first number sent at each of the last times.
    sent: VecDeque<(u64, Millis)>,
    /// Rounds that left before this prove nothing.
    after: Millis,
    /// Who was told to take over, and with which last index the newest time.
    told: BTreeMap<NodeId, Index>,
}

impl Numbers {
    pub fn new(lease_reads: bool, election: Millis) -> Numbers {
        let parts = match cfg!(keel_bug = "lease_too_long") {
            true => 2 * SPAN,
            false => SPAN,
        };
        let span = (election * parts / 100).saturating_sub(1);
        Numbers {
            span: lease_reads.then_some(span),
            kept: election,
            ..Numbers::default()
        }
    }

    /// That of the newest message, 0 before the first.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// That of a message which leaves now.
    pub fn next(&mut self, now: Millis) -> u64 {
        self.newest += 1;
        self.remember(self.kept, now);
        self.newest
    }

    fn remember(&mut self, span: Millis, now: Millis) {
        if self.sent.back().is_some_and(|(_, at)| *at == now) {
            return;
        }
        self.sent.push_back((self.newest, now));
        // Of those that are too old the newest is kept: it tells too old from never sent.
        while self.sent.get(1).is_some_and(|(_, at)| at + span <= now) {
            self.sent.pop_front();
        }
    }

    /// Somebody is told to take over, whose log must end there.
    pub fn hand_over(&mut self, to: NodeId, last: Index) {
        self.told.insert(to, last);
    }

    /// When the newest round left that is not later than this number; `None` if too long ago.
    fn left_at(&self, number: u64) -> Option<Millis> {
        let at = self.sent.partition_point(|(first, _)| *first <= number);
        at.checked_sub(1).map(|at| self.sent[at].1)
    }

    /// Whether a quorum that has answered number `confirmed` proves that nobody else leads.
    fn lasts(&self, confirmed: u64, now: Millis) -> bool {
        let at = self.sent.partition_point(|(first, _)| *first <= confirmed);
        let round = at.checked_sub(1).map(|at| self.sent[at].1);
        let (Some(round), Some(span)) = (round, self.span) else {
            return false;
        };
        round >= self.after && now < round + span
    }
}

impl Raft {
    /// Whether this server may answer reads without asking anybody.
    pub(super) fn has_lease(&self) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let newest = leader.numbers.newest;
        let heard = |id: NodeId| leader.peers.get(&id).map_or(0, Progress::heard_seq);
        let holds = |id: NodeId| leader.peers.get(&id).map_or(0, Progress::match_index);
        // Until a target's disk holds a later entry, the word to take over may still come to it,
        // and be acted on: it may have stood still, or have forgotten by a restart what came later.
        let mut told = leader.numbers.told.iter();
        let handing = told.any(|(to, last)| holds(*to) <= *last);
        let able = self.options.lease_reads && self.has_committed_in_term();
        let handing = handing || leader.transfer.is_some();
        if !able || (handing && !cfg!(keel_bug = "lease_while_handing_over")) {
            return false;
        }
        let confirmed = quorum::reached(self.configs.latest(), |voter| match voter == self.id {
            true => newest,
            false => heard(voter).min(newest),
        });
        leader.numbers.lasts(confirmed, self.now)
    }

    /// Whether a quorum has answered what left within E, whenever the answers came: the voters among them
    /// have heard this leader since.
    pub(super) fn is_confirmed(&self, now: Millis) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let newest = leader.numbers.newest;
        let heard = |id: NodeId| leader.peers.get(&id).map_or(0, Progress::heard_seq);
        let confirmed = quorum::reached(self.configs.latest(), |voter| match voter == self.id {
            true => u64::MAX,
            false => heard(voter).min(newest),
        });
        let left = match confirmed {
            u64::MAX => Some(now),
            number => leader.numbers.left_at(number),
        };
        left.is_some_and(|left| now < left + self.options.election)
    }

    /// What the last driving call took in may have come long after the time that it went by, but
    /// before this time: whoever was heard then is promised from now on that nobody is voted for.
    pub fn renew_promise(&mut self, now: Millis) {
        self.observe(now);
        self.leader_heard_at = now;
        // Itself included. What comes at the same time draws no other.
        self.draw_election_timeout();
    }

    /// This process was away: what was sent before proves nothing any more.
    pub fn void_lease(&mut self) {
        let now = self.now;
        if let Role::Leader(leader) = &mut self.role {
            leader.numbers.after = now + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_reckoned_from_when_its_round_left() {
        let mut lease = Numbers::new(true, 100);
        for (seq, at) in [(1, 10), (2, 10), (3, 30), (4, 60)] {
            assert_eq!(seq, lease.next(at));
        }
        assert!(lease.lasts(2, 10 + 93) && !lease.lasts(2, 10 + 94));
        assert!(lease.lasts(3, 30 + 93) && !lease.lasts(3, 30 + 94));
        assert!(!lease.lasts(0, 11), "nobody has answered");
        lease.next(200);
        assert!(!lease.lasts(4, 200), "forgotten rounds prove nothing");
        assert!(lease.lasts(5, 200));
        lease.after = 201;
        assert!(!lease.lasts(5, 201), "void");
    }

    #[test]
    fn what_is_off_is_never_a_proof() {
        let mut lease = Numbers::new(false, 100);
        lease.next(10);
        assert!(!lease.lasts(1, 10));
    }
}
