//! Listened time: the clock on which the silence of others is measured, and the pauses of this
//! process (detection.md 4.3).
//!
//! Silence counts only while this process was demonstrably awake. Listened time therefore grows
//! by at most two ticks per driving call, however long the process was stopped in between, so a
//! stopped process accuses nobody when it wakes up.

use crate::core::Millis;

/// A point of listened time. Not a `Millis`, so that it cannot be mixed up with the time of day
/// of a driving call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listened(Millis);

/// Where a run begins: not at 0, because a peer may report that it heard a node long before this
/// run began, and that point must exist too. Every age in a row fits below it.
const RUN_START: Listened = Listened(1 << 33);

impl Listened {
    /// Milliseconds listened from `earlier` to `self`; 0 if it is not earlier.
    pub(super) fn since(self, earlier: Listened) -> Millis {
        self.0.saturating_sub(earlier.0)
    }

    /// The point `span` before this one.
    pub(super) fn before(self, span: Millis) -> Listened {
        Listened(self.0.saturating_sub(span))
    }
}

/// Lateness that any busy machine shows; with a short hb_keepalive a tick is less than that.
const JITTER: Millis = 50;

/// How late a driving call was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lateness {
    /// Not worth mentioning.
    InTime,
    /// More than a tick, and more than jitter.
    Late,
    /// So much that this node's own testimony is put aside; milliseconds after the promise.
    Paused(Millis),
}

/// The clock of one detector.
#[derive(Debug)]
pub(super) struct Clock {
    now: Option<Millis>,
    listened: Listened,
    /// When the last pause ended, until this node is trusted again.
    pause_end: Option<(Millis, Listened)>,
}

/// The detector's resolution, derived from hb_keepalive (detection.md 4.3).
pub(super) fn tick(keepalive: Millis) -> Millis {
    (keepalive / 10).clamp(10, 250)
}

impl Default for Clock {
    fn default() -> Clock {
        Clock {
            now: None,
            listened: RUN_START,
            pause_end: None,
        }
    }
}

impl Clock {
    /// The time of the present driving call; 0 before the first.
    pub(super) fn now(&self) -> Millis {
        self.now.unwrap_or(0)
    }

    /// The present point of listened time.
    pub(super) fn listened(&self) -> Listened {
        self.listened
    }

    /// Begins a driving call. `promised` says whether one was due within a tick: only then can it
    /// be late. A `now` before the previous one counts as no time passed.
    pub(super) fn advance(&mut self, now: Millis, keepalive: Millis, promised: bool) -> Lateness {
        let Some(last) = self.now else {
            self.now = Some(now);
            return Lateness::InTime;
        };
        let tick = tick(keepalive);
        let passed = now.saturating_sub(last);
        self.now = Some(last.max(now));
        self.listened.0 = self.listened.0.saturating_add(passed.min(2 * tick));

        let late = passed.saturating_sub(tick);
        if !promised || late <= tick.max(JITTER) {
            Lateness::InTime
        } else if late > pause_threshold(keepalive) {
            self.pause_end = Some((now, self.listened));
            Lateness::Paused(late)
        } else {
            Lateness::Late
        }
    }

    /// Whether a pause is not yet overcome. It is when three keepalives were listened to since,
    /// and a majority has answered something sent since (`quorum_echo`): before that nothing
    /// shows that the world still takes this node for what it was.
    pub(super) fn recovering(&mut self, keepalive: Millis, quorum_echo: Millis) -> bool {
        let Some((end, listened)) = self.pause_end else {
            return false;
        };
        if self.listened.since(listened) >= 3 * keepalive && quorum_echo >= end {
            self.pause_end = None;
        }
        self.pause_end.is_some()
    }
}

/// Lateness above this is a pause.
fn pause_threshold(keepalive: Millis) -> Millis {
    (keepalive / 2).max(250)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPALIVE: Millis = 1000;

    fn run_to(clock: &mut Clock, from: Millis, to: Millis) {
        for now in (from..=to).step_by(100) {
            assert_eq!(clock.advance(now, KEEPALIVE, true), Lateness::InTime);
        }
    }

    #[test]
    fn listened_time_follows_punctual_calls() {
        let mut clock = Clock::default();
        run_to(&mut clock, 50_000, 60_000);
        assert_eq!(clock.listened().since(RUN_START), 10_000);
    }

    #[test]
    fn there_is_a_past_before_the_run() {
        let start = Clock::default().listened();
        assert_eq!(start.since(start.before(u64::from(u32::MAX))), 0xFFFF_FFFF);
    }

    #[test]
    fn a_stopped_process_gains_two_ticks_however_long_it_slept() {
        let mut clock = Clock::default();
        run_to(&mut clock, 0, 1000);
        let before = clock.listened();
        assert_eq!(
            clock.advance(3_601_000, KEEPALIVE, true),
            Lateness::Paused(3_599_900)
        );
        assert_eq!(clock.listened().since(before), 200);
    }

    #[test]
    fn lateness_has_three_degrees() {
        let mut clock = Clock::default();
        clock.advance(0, KEEPALIVE, true);
        assert_eq!(clock.advance(200, KEEPALIVE, true), Lateness::InTime);
        assert_eq!(clock.advance(401, KEEPALIVE, true), Lateness::Late);
        assert_eq!(clock.advance(1001, KEEPALIVE, true), Lateness::Late);
        assert_eq!(clock.advance(1602, KEEPALIVE, true), Lateness::Paused(501));
    }

    #[test]
    fn jitter_is_no_lateness_however_short_a_tick() {
        let mut clock = Clock::default();
        clock.advance(0, 100, true);
        assert_eq!(clock.advance(60, 100, true), Lateness::InTime);
        assert_eq!(clock.advance(121, 100, true), Lateness::Late);
    }

    #[test]
    fn nothing_is_late_that_was_not_promised() {
        let mut clock = Clock::default();
        clock.advance(0, KEEPALIVE, false);
        assert_eq!(clock.advance(90_000, KEEPALIVE, false), Lateness::InTime);
    }

    #[test]
    fn time_that_goes_back_is_no_time() {
        let mut clock = Clock::default();
        run_to(&mut clock, 5000, 6000);
        let before = clock.listened();
        assert_eq!(clock.advance(10, KEEPALIVE, true), Lateness::InTime);
        assert_eq!(clock.listened(), before);
        assert_eq!(clock.now(), 6000);
    }

    #[test]
    fn a_pause_is_over_after_three_keepalives_and_a_fresh_round_trip() {
        let mut clock = Clock::default();
        clock.advance(0, KEEPALIVE, true);
        clock.advance(10_000, KEEPALIVE, true);
        run_to(&mut clock, 10_100, 12_900);
        assert!(clock.recovering(KEEPALIVE, 10_500), "too early");
        run_to(&mut clock, 13_000, 13_100);
        assert!(clock.recovering(KEEPALIVE, 9_999), "no round trip since");
        assert!(!clock.recovering(KEEPALIVE, 10_000));
        assert!(!clock.recovering(KEEPALIVE, 0), "over is over");
    }
}
