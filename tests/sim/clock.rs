//! The clock of one node: it never goes back, and that is all that can be said for it.

use raftkeel::core::Millis;

use crate::queue::{Micros, NEVER};

/// A clock that runs too fast or too slow, and may jump ahead.
#[derive(Clone, Copy)]
pub struct Clock {
    /// When it was last set, in simulated time.
    set_at: Micros,
    /// What it showed then, in microseconds.
    showed: Micros,
    /// How much too fast it is, in millionths; negative for too slow.
    drift: i64,
}

impl Clock {
    /// A clock that shows `showed` at time `now`.
    pub fn new(now: Micros, showed: Micros, drift: i64) -> Clock {
        Clock {
            set_at: now,
            showed,
            drift,
        }
    }

    fn micros(&self, now: Micros) -> Micros {
        let passed = (now - self.set_at) as i64;
        self.showed + (passed + (passed * self.drift).div_euclid(1_000_000)) as Micros
    }

    /// What it shows.
    pub fn read(&self, now: Micros) -> Millis {
        self.micros(now) / 1000
    }

    /// The first moment at which it shows at least this; not before `now`.
    pub fn when(&self, now: Micros, shows: Millis) -> Micros {
        let Some(target) = shows.checked_mul(1000) else {
            return NEVER;
        };
        let Some(wanted) = target.checked_sub(self.showed) else {
            return now;
        };
        let rate = (1_000_000 + self.drift) as u128;
        let passed = (u128::from(wanted) * 1_000_000).div_ceil(rate);
        let mut at = self.set_at.saturating_add(passed as Micros);
        while at < NEVER && self.micros(at) < target {
            at += 1;
        }
        at.max(now)
    }

    /// It stood still for this long.
    pub fn stand(&mut self, now: Micros, span: Micros) {
        let slept = span as i64 + (span as i64 * self.drift).div_euclid(1_000_000);
        // Rounding must not take it back.
        self.showed = self.micros(now) + 1 - slept as Micros;
        self.set_at = now;
    }

    /// Suddenly it shows more.
    pub fn jump(&mut self, now: Micros, span: Micros) {
        self.showed = self.micros(now) + span;
        self.set_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_at_the_first_possible_moment() {
        for drift in [-20_000, -1, 0, 1, 7, 20_000] {
            let clock = Clock::new(123, 5_432_100, drift);
            for shows in [5_432, 5_433, 6_000, 99_999] {
                let at = clock.when(123, shows);
                assert!(clock.read(at) >= shows);
                assert!(at == 123 || clock.read(at - 1) < shows, "{drift} {shows}");
            }
        }
        assert_eq!(NEVER, Clock::new(0, 0, 0).when(0, Millis::MAX));
    }
}
