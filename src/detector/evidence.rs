//! What shows that a peer is alive, and that it hears us: the newest packet of each (detection.md
//! 4.4).
//!
//! A packet is evidence only if it is newer than every packet seen of its sender, by run and by
//! the sender's own clock. A copy, a replay or a straggler of an earlier run shows nothing about
//! the present.

use crate::core::{Millis, NodeId, Term};

use super::clock::Listened;

/// What the head of a packet tells the detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// The sender's run; grows with every start, never 0.
    pub incarnation: u64,
    /// The sender's clock when it sent this, in milliseconds.
    pub stamp: Millis,
    /// The newest stamp that the sender has received from this node, on this node's clock.
    pub echo: Millis,
    /// The run of this node which that stamp belongs to; 0 when there is none.
    pub echo_incarnation: u64,
    /// The sender's term if it leads and a majority has answered it within the election timeout;
    /// 0 otherwise.
    pub leader_term: Term,
}

/// What a packet is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// The first of a newer run of the sender.
    NewRun,
    /// Newer than every one before.
    News,
    /// Of the present run, and not newer than what was seen: no evidence.
    Repeated,
    /// Of an earlier run: to be ignored altogether.
    Foregone,
}

/// What is known first-hand about one peer.
#[derive(Debug)]
pub(super) struct Evidence {
    known_since: Listened,
    heard_at: Option<Listened>,
    incarnation: u64,
    stamp: Millis,
    echoed: Millis,
}

impl Evidence {
    /// Of a peer that becomes known at `at`.
    pub(super) fn new(at: Listened) -> Evidence {
        Evidence {
            known_since: at,
            heard_at: None,
            incarnation: 0,
            stamp: 0,
            echoed: 0,
        }
    }

    /// Counts silence anew, as for a peer never heard: it has just become a member again.
    pub(super) fn renew(&mut self, at: Listened) {
        self.known_since = at;
        self.heard_at = None;
    }

    /// Takes a packet in. `own_echo` is its echo of a stamp of this node's present run, if any.
    pub(super) fn packet(&mut self, e: &Envelope, own_echo: Option<Millis>, at: Listened) -> Worth {
        if e.incarnation < self.incarnation || e.incarnation == 0 {
            return Worth::Foregone;
        }
        // A late packet's echo is as true as on the day it was sent.
        self.echoed = self.echoed.max(own_echo.unwrap_or(0));
        let worth = if e.incarnation > self.incarnation {
            Worth::NewRun
        } else if e.stamp > self.stamp {
            Worth::News
        } else {
            return Worth::Repeated;
        };
        self.incarnation = e.incarnation;
        self.stamp = e.stamp;
        self.heard_at = Some(at);
        worth
    }

    /// The host heard it by other means.
    pub(super) fn hint(&mut self, at: Listened) {
        self.heard_at = Some(at);
    }

    /// Whether it was ever heard in this run.
    pub(super) fn was_heard(&self) -> bool {
        self.heard_at.is_some()
    }

    /// Milliseconds listened since it was heard; `None` never in this run.
    pub(super) fn age(&self, at: Listened) -> Option<Millis> {
        self.heard_at.map(|heard| at.since(heard))
    }

    /// Milliseconds listened for it in this run.
    pub(super) fn span(&self, at: Listened) -> Millis {
        at.since(self.known_since)
    }

    /// Milliseconds of silence: since it was heard or, if never, since it is listened for.
    pub(super) fn silence(&self, at: Listened) -> Millis {
        self.age(at).unwrap_or_else(|| self.span(at))
    }

    /// Its newest run and stamp, to be echoed: `(stamp, incarnation)`, both 0 before the first.
    pub(super) fn newest(&self) -> (Millis, u64) {
        (self.stamp, self.incarnation)
    }

    /// The newest own stamp that it is known to have received; 0 none.
    pub(super) fn echoed(&self) -> Millis {
        self.echoed
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::super::testing::id;
    use super::*;

    fn envelope(incarnation: u64, stamp: Millis) -> Envelope {
        Envelope {
            from: id(2),
            incarnation,
            stamp,
            echo: 0,
            echo_incarnation: 0,
            leader_term: 0,
        }
    }

    #[test]
    fn only_a_newer_packet_is_evidence() {
        let at = Clock::default().listened();
        let mut evidence = Evidence::new(at);
        let mut take = |run, stamp| evidence.packet(&envelope(run, stamp), None, at);
        assert_eq!(take(7, 100), Worth::NewRun);
        assert_eq!(take(7, 101), Worth::News);
        assert_eq!(take(7, 101), Worth::Repeated);
        assert_eq!(take(7, 100), Worth::Repeated);
        assert_eq!(take(6, 999), Worth::Foregone);
        assert_eq!(take(8, 5), Worth::NewRun, "a new run starts its clock anew");
        assert_eq!(take(7, 999), Worth::Foregone);
        assert_eq!(take(0, 999), Worth::Foregone);
    }

    #[test]
    fn a_packet_without_evidence_leaves_the_silence_alone() {
        let mut clock = Clock::default();
        clock.advance(0, 1000, true);
        let mut evidence = Evidence::new(clock.listened());
        evidence.packet(&envelope(7, 100), None, clock.listened());
        clock.advance(100, 1000, true);
        evidence.packet(&envelope(7, 100), None, clock.listened());
        evidence.packet(&envelope(6, 200), None, clock.listened());
        assert_eq!(evidence.age(clock.listened()), Some(100));
    }

    #[test]
    fn echoes_only_grow_and_those_of_a_dead_run_are_ignored() {
        let at = Clock::default().listened();
        let mut evidence = Evidence::new(at);
        evidence.packet(&envelope(7, 100), Some(50), at);
        evidence.packet(&envelope(7, 99), Some(60), at);
        evidence.packet(&envelope(7, 101), Some(40), at);
        evidence.packet(&envelope(6, 500), Some(90), at);
        assert_eq!(evidence.echoed(), 60);
    }

    #[test]
    fn silence_of_the_unheard_is_the_time_listened() {
        let mut clock = Clock::default();
        clock.advance(0, 1000, true);
        let mut evidence = Evidence::new(clock.listened());
        clock.advance(150, 1000, true);
        assert_eq!(evidence.age(clock.listened()), None);
        assert_eq!(evidence.silence(clock.listened()), 150);
        evidence.hint(clock.listened());
        assert_eq!(evidence.silence(clock.listened()), 0);
        evidence.renew(clock.listened());
        assert!(!evidence.was_heard());
    }
}
