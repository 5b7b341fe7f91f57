//! The rule by which a node is taken for dead, and the cut: all the dead that are put out at once
//! (detection.md 4.5).

use crate::core::{Millis, NodeId};

use super::Timers;
use super::clock::Listened;
use super::members::Members;

/// What one voter has to say about the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// The voter.
    pub(super) witness: NodeId,
    /// Its present testimony, if it is fresh and the witness healthy.
    pub(super) testimony: Option<Testimony>,
    /// Milliseconds since it is known to have heard the target, in whatever run and however
    /// fresh its row is.
    pub(super) heard_ago: Option<Millis>,
}

/// A healthy witness's fresh word, exactly as it reported it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Testimony {
    /// Milliseconds since it heard the target; `None` never in its run.
    pub(super) age: Option<Millis>,
    /// Milliseconds it has listened for the target in its run.
    pub(super) span: Millis,
}

impl Testimony {
    /// The silence it demands: a witness that has not yet heard the target in its run cannot
    /// tell a dead node from one still starting.
    fn need(&self, timers: &Timers) -> Millis {
        match self.age {
            Some(_) => timers.deadtime,
            None => timers.initdead,
        }
    }

    fn silence(&self) -> Millis {
        self.age.unwrap_or(self.span)
    }
}

/// What the reports together say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Witnesses that testify.
    pub(super) witnesses: u32,
    /// Of them, how many hear the target: within warntime.
    pub(super) heard_by: u32,
    /// Whether they are a majority of the voters.
    pub(super) quorate: bool,
    /// Whether the target is dead.
    pub(super) dead: bool,
    /// The only thing missing is the longer silence that a witness demands that has never heard
    /// the target in its run.
    pub(super) initdead: bool,
    /// Whether some witness is within two keepalives of what it demands, or past it.
    pub(super) near: bool,
    /// The shortest silence among those whose word led to the verdict.
    pub(super) silent: Millis,
    /// When the verdict falls if nothing is heard, milliseconds from now.
    pub(super) left: Millis,
}

/// Weighs the reports of all voters but the target. Dead means: a majority testifies after having
/// listened long enough, every one of them demands no longer silence, and no voter at all, not
/// even one that went silent itself, is known to have heard the target within deadtime. The last
/// part covers what only a dead leader heard: it may have confirmed the target's lease.
pub(super) fn weigh(members: &Members, timers: &Timers, reports: &[Report]) -> Tally {
    let mut tally = Tally {
        silent: Millis::MAX,
        ..Tally::default()
    };
    let mut heard = false;
    let mut unheard_witness = false;
    for report in reports {
        if let Some(ago) = report.heard_ago {
            heard |= ago < timers.deadtime;
            tally.left = tally.left.max(timers.deadtime.saturating_sub(ago));
        }
        let Some(t) = report.testimony else { continue };
        let need = t.need(timers);
        tally.witnesses += 1;
        tally.heard_by += u32::from(t.age.is_some_and(|age| age < timers.warntime));
        heard |= t.age.is_some_and(|age| age < need);
        unheard_witness |= t.age.is_none() && t.span < need;
        tally.near |= t.silence() + 2 * timers.keepalive >= need;
        tally.left = tally.left.max(need.saturating_sub(t.silence()));
        if t.span >= need {
            tally.silent = tally.silent.min(t.silence());
        }
    }
    let testimony = |id: NodeId| {
        let report = reports.iter().find(|report| report.witness == id);
        report.and_then(|report| report.testimony)
    };
    let listened = |id| testimony(id).is_some_and(|t| t.span >= t.need(timers));
    tally.quorate = members.is_majority(|id| testimony(id).is_some());
    if timers.deadtime > 0 && !heard {
        tally.dead = members.is_majority(listened);
        tally.initdead = tally.quorate && !tally.dead && unheard_witness;
    }
    tally
}

/// When the dead that are waiting to be put out together began to wait.
#[derive(Debug, Default)]
pub(super) struct Cut {
    began: Option<Listened>,
}

impl Cut {
    /// Whether anybody is dead now.
    pub(super) fn update(&mut self, anybody: bool, at: Listened) {
        self.began = anybody.then(|| self.began.unwrap_or(at));
    }

    /// Milliseconds left of settle, counted from the first verdict.
    pub(super) fn settling(&self, at: Listened, settle: Millis) -> Millis {
        let passed = self.began.map_or(0, |began| at.since(began));
        settle.saturating_sub(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, id, ids, timers};
    use super::*;
    use crate::core::Configuration;

    fn members(n: u64) -> Members {
        let voters: Vec<u64> = (1..=n).collect();
        Members::new(&config(&voters), &[], n as u32)
    }

    /// A witness that has listened for an hour and heard the target `age` ago.
    fn heard(witness: u64, age: Millis) -> Report {
        Report {
            witness: id(witness),
            testimony: Some(Testimony {
                age: Some(age),
                span: 3_600_000,
            }),
            heard_ago: Some(age),
        }
    }

    /// A witness that has listened for `span` and never heard the target.
    fn unheard(witness: u64, span: Millis) -> Report {
        Report {
            witness: id(witness),
            testimony: Some(Testimony { age: None, span }),
            heard_ago: None,
        }
    }

    /// A voter whose testimony does not count.
    fn gone(witness: u64, heard_ago: Option<Millis>) -> Report {
        Report {
            witness: id(witness),
            testimony: None,
            heard_ago,
        }
    }

    fn dead(n: u64, reports: &[Report]) -> bool {
        weigh(&members(n), &timers(), reports).dead
    }

    #[test]
    fn death_is_unanimous_and_not_a_millisecond_early() {
        assert!(dead(3, &[heard(1, 30_000), heard(2, 30_000)]));
        assert!(!dead(3, &[heard(1, 29_999), heard(2, 40_000)]));
        assert!(!dead(3, &[heard(1, 40_000), heard(2, 29_999)]));
    }

    #[test]
    fn one_healthy_witness_that_hears_blocks() {
        let mut reports = vec![heard(1, 90_000), heard(2, 90_000), heard(3, 90_000)];
        assert!(dead(5, &reports));
        reports.push(heard(4, 100));
        let tally = weigh(&members(5), &timers(), &reports);
        assert!(!tally.dead);
        assert_eq!((tally.witnesses, tally.heard_by), (4, 1));
    }

    #[test]
    fn a_majority_of_the_voters_must_testify() {
        assert!(!dead(5, &[heard(1, 90_000), heard(2, 90_000)]));
        assert!(!dead(2, &[heard(1, 90_000)]), "two nodes exclude nobody");
        let reports = [heard(1, 90_000), heard(2, 90_000), gone(3, None)];
        assert!(!weigh(&members(5), &timers(), &reports).quorate);
    }

    #[test]
    fn a_joint_configuration_needs_a_majority_of_witnesses_in_both_halves() {
        let joint = Configuration {
            voters: ids(&[1, 2, 3]),
            outgoing: ids(&[1, 4, 5]),
            ..Configuration::default()
        };
        let joint = Members::new(&joint, &[], 5);
        let mut reports = vec![heard(1, 90_000), heard(2, 90_000)];
        assert!(!weigh(&joint, &timers(), &reports).dead);
        reports.push(heard(4, 90_000));
        assert!(weigh(&joint, &timers(), &reports).dead);
    }

    #[test]
    fn what_a_silent_voter_heard_last_must_not_contradict() {
        let two = [heard(1, 90_000), heard(2, 90_000), heard(3, 90_000)];
        let with = |last| [&two[..], &[gone(4, last)]].concat();
        assert!(dead(5, &with(None)));
        assert!(dead(5, &with(Some(30_000))));
        assert!(!dead(5, &with(Some(29_999))));
    }

    #[test]
    fn a_witness_that_never_heard_it_demands_initdead() {
        let tally = |span| {
            weigh(
                &members(3),
                &timers(),
                &[heard(1, 90_000), unheard(2, span)],
            )
        };
        let young = tally(119_999);
        assert!(!young.dead && young.initdead);
        assert_eq!(young.left, 1);
        let old = tally(120_000);
        assert!(old.dead && !old.initdead);
        assert_eq!(old.silent, 90_000);
    }

    #[test]
    fn a_young_witness_is_not_waited_for_if_there_are_enough_others() {
        let old = [heard(1, 30_000), heard(2, 31_000), heard(3, 32_000)];
        let tally = weigh(
            &members(5),
            &timers(),
            &[&old[..], &[unheard(4, 500)]].concat(),
        );
        assert!(tally.dead && !tally.initdead);
        assert_eq!(
            tally.silent, 30_000,
            "the young one's silence is no part of it"
        );
    }

    #[test]
    fn without_deadtime_nobody_is_dead() {
        let off = Timers {
            deadtime: 0,
            ..timers()
        };
        let reports = [heard(1, 900_000), heard(2, 900_000)];
        assert!(!weigh(&members(3), &off, &reports).dead);
    }

    #[test]
    fn a_verdict_is_near_two_keepalives_before() {
        let near = |age| weigh(&members(3), &timers(), &[heard(1, age), heard(2, 10)]).near;
        assert!(!near(27_999));
        assert!(near(28_000));
    }

    #[test]
    fn settle_counts_from_the_first_verdict_of_the_cut() {
        let mut clock = super::super::clock::Clock::default();
        clock.advance(0, 1000, true);
        let mut cut = Cut::default();
        cut.update(true, clock.listened());
        clock.advance(100, 1000, true);
        cut.update(true, clock.listened());
        assert_eq!(cut.settling(clock.listened(), 3000), 2900);
        cut.update(false, clock.listened());
        cut.update(true, clock.listened());
        assert_eq!(cut.settling(clock.listened(), 3000), 3000);
    }
}
