//! How far this node may trust its own ears: the local health score (detection.md 4.4, after
//! Lifeguard).
//!
//! An overloaded or half-deaf node would be the loudest accuser. The score makes it doubt itself
//! first: above `HEALTHY` its row does not count, and as a leader it excludes nobody.

use crate::core::Millis;

use super::clock::Listened;
use super::witness::HEALTHY;

/// The worst score.
const WORST: u8 = 8;

/// The score and the keepalive it was last settled in.
#[derive(Debug)]
pub(super) struct Health {
    score: u8,
    settled: Listened,
    clean: bool,
}

impl Health {
    /// Healthy, from `at` on.
    pub(super) fn new(at: Listened) -> Health {
        Health {
            score: 0,
            settled: at,
            clean: true,
        }
    }

    /// 0 healthy .. 8.
    pub(super) fn score(&self) -> u8 {
        self.score
    }

    /// Whether this node's testimony counts.
    pub(super) fn is_healthy(&self) -> bool {
        self.score <= HEALTHY
    }

    /// A driving call came late.
    pub(super) fn late(&mut self) {
        self.worsen(1);
    }

    /// Whether a keepalive of listened time has passed since the score was settled.
    pub(super) fn is_due(&self, at: Listened, keepalive: Millis) -> bool {
        at.since(self.settled) >= keepalive
    }

    /// Settles the score of one keepalive. `deaf`: this node misses what others hear.
    pub(super) fn settle(&mut self, at: Listened, deaf: bool) {
        self.settled = at;
        if deaf {
            self.worsen(2);
        }
        if self.clean {
            self.score = self.score.saturating_sub(1);
        }
        self.clean = true;
    }

    fn worsen(&mut self, by: u8) {
        self.score = (self.score + by).min(WORST);
        self.clean = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::*;

    const KEEPALIVE: Millis = 1000;

    fn keepalives(clock: &mut Clock, health: &mut Health, n: u32, deaf: bool) {
        for _ in 0..n * 10 {
            clock.advance(clock.now() + 100, KEEPALIVE, true);
            if health.is_due(clock.listened(), KEEPALIVE) {
                health.settle(clock.listened(), deaf);
            }
        }
    }

    #[test]
    fn late_calls_worsen_it_and_clean_keepalives_heal_it() {
        let mut clock = Clock::default();
        clock.advance(0, KEEPALIVE, true);
        let mut health = Health::new(clock.listened());
        for _ in 0..4 {
            health.late();
        }
        assert!(!health.is_healthy());
        keepalives(&mut clock, &mut health, 1, false);
        assert_eq!(health.score(), 4, "the keepalive was not clean");
        keepalives(&mut clock, &mut health, 1, false);
        assert!(health.is_healthy());
        keepalives(&mut clock, &mut health, 9, false);
        assert_eq!(health.score(), 0);
    }

    #[test]
    fn deafness_counts_once_per_keepalive_and_stops_at_the_worst() {
        let mut clock = Clock::default();
        clock.advance(0, KEEPALIVE, true);
        let mut health = Health::new(clock.listened());
        keepalives(&mut clock, &mut health, 1, true);
        assert_eq!(health.score(), 2);
        keepalives(&mut clock, &mut health, 9, true);
        assert_eq!(health.score(), WORST);
    }
}
