//! Power fails before every single operation, in every way that a disk may lose what was not
//! synced.

use super::model::{Progress, check, check_crowded, open_crowded};
use super::seed;
use super::sim::{Loss, Moment, Sim};
use super::workload::{Done, Mix, Outcome, crowded, run};

/// The ways to lose power that are worth trying at this moment.
fn losses(moment: &Moment, seed: u64) -> Vec<Loss> {
    let mut losses = vec![Loss::All, Loss::Nothing, Loss::Names, Loss::Data];
    let sectors = moment.last_write_sectors();
    let interesting = [1, 2, 3, 7, 8, 9, sectors.saturating_sub(1)];
    for n in interesting.into_iter().filter(|n| *n < sectors) {
        losses.extend([Loss::AfterSectors(n), Loss::FirstSectors(n)]);
    }
    losses.extend((0..5).map(|n| Loss::Random(seed ^ n)));
    losses
}

/// Runs a workload on `sim` and tries every crash, until one went wrong; the number of states, what
/// was done, and what went wrong.
fn sweep(sim: &Sim, seed: u64, mix: Mix) -> (usize, Done, Result<(), String>) {
    sim.keep_history();
    let outcome = run(sim, seed, 45, mix);
    sweep_over(sim, seed, outcome, check)
}

fn sweep_over(
    sim: &Sim,
    seed: u64,
    outcome: Outcome,
    check: impl Fn(&Sim, &Progress) -> Result<(), String>,
) -> (usize, Done, Result<(), String>) {
    assert!(outcome.error.is_none());
    let mut states = 0;
    let history = sim.history();
    for (operation, (moment, mark)) in history.iter().enumerate() {
        for loss in losses(moment, seed ^ (operation as u64) << 8) {
            states += 1;
            let sim = Sim::boot(&moment.lose_power(loss));
            if let Err(what) = check(&sim, &outcome.progress[*mark]) {
                let wrong = format!("operation {operation}, {loss:?}: {what}");
                return (states, outcome.done, Err(wrong));
            }
        }
    }
    (states, outcome.done, Ok(()))
}

fn sweep_all(seeds: std::ops::Range<u64>, mix: Mix) -> (usize, Done) {
    let mut total = 0;
    let mut all = Done::default();
    for seed in seeds {
        let (states, done, outcome) = sweep(&Sim::default(), seed, mix);
        outcome.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        total += states;
        all.add(&done);
    }
    println!("{total} states, {all:?}");
    (total, all)
}

#[test]
fn no_crash_loses_what_was_acknowledged() {
    let seed = seed(1);
    let (total, done) = sweep_all(seed..seed + 3, Mix::Log);
    assert!(total > 5000, "only {total} states");
    assert!(done.merged >= 15, "only {done:?}");
}

#[test]
fn no_crash_loses_a_snapshot_or_what_its_log_needs() {
    let seed = seed(30);
    let (total, done) = sweep_all(seed..seed + 4, Mix::All);
    assert!(total > 9000, "only {total} states");
    assert!(done.least() >= 2, "only {done:?}");
}

#[test]
fn no_crash_at_a_start_on_a_full_disk_loses_what_was_acknowledged() {
    let first = seed(40);
    let mut total = 0;
    for (seed, mix) in [
        (first, Mix::Log),
        (first + 1, Mix::All),
        (first + 2, Mix::All),
    ] {
        let sim = Sim::default();
        sim.keep_history();
        let outcome = crowded(&sim, seed, 45, mix);
        let (states, _, outcome) = sweep_over(&sim, seed, outcome, check_crowded);
        outcome.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        total += states;
    }
    println!("{total} states");
    assert!(total > 5000, "only {total} states");
}

/// What a crash has left, be it a torn write, is opened on a full disk, and power fails again.
#[test]
fn a_crash_during_such_a_start_after_a_crash_loses_nothing() {
    for (mix, seed) in [(Mix::Log, seed(43)), (Mix::All, seed(44))] {
        let sim = Sim::default();
        sim.keep_history();
        let outcome = run(&sim, seed, 30, mix);
        for (operation, (moment, mark)) in sim.history().iter().enumerate().skip(3).step_by(7) {
            let progress = &outcome.progress[*mark];
            let again = Sim::boot(&moment.lose_power(Loss::Random(operation as u64)));
            again.keep_history();
            let opened = open_crowded(&again).map(|_| ());
            assert!(
                opened.is_ok() || !progress.created,
                "{operation}: {opened:?}"
            );
            for (second, (moment, _)) in again.history().iter().enumerate() {
                for loss in losses(moment, seed ^ (second as u64) << 8) {
                    let sim = Sim::boot(&moment.lose_power(loss));
                    check_crowded(&sim, progress)
                        .unwrap_or_else(|e| panic!("{operation}, then {second}, {loss:?}: {e}"));
                }
            }
        }
    }
}

#[test]
fn a_crash_during_recovery_from_a_crash_loses_nothing() {
    for (mix, seed) in [(Mix::Log, seed(2)), (Mix::All, seed(31))] {
        let sim = Sim::default();
        sim.keep_history();
        let outcome = run(&sim, seed, 30, mix);
        let history = sim.history();
        for (operation, (moment, mark)) in history.iter().enumerate().skip(3).step_by(11) {
            let progress = &outcome.progress[*mark];
            let again = Sim::boot(&moment.lose_power(Loss::Random(operation as u64)));
            again.keep_history();
            check(&again, progress).unwrap();
            // Only the first opening: later moments hold what the check itself wrote.
            let opening = again.history().into_iter().take(14).enumerate();
            for (second, (moment, _)) in opening {
                for loss in [Loss::All, Loss::Nothing, Loss::Random(seed)] {
                    let sim = Sim::boot(&moment.lose_power(loss));
                    check(&sim, progress)
                        .unwrap_or_else(|e| panic!("{operation}, then {second}, {loss:?}: {e}"));
                }
            }
        }
    }
}

#[test]
fn the_sweep_notices_a_sync_that_is_left_out() {
    for mix in [Mix::Log, Mix::All] {
        for (files, names) in [(Some(""), false), (None, true)] {
            notices(files, names, mix);
        }
    }
    for files in [".seg", "META", ".snap", "recv"] {
        notices(Some(files), false, Mix::All);
    }
}

fn notices(files: Option<&'static str>, names: bool, mix: Mix) {
    let noticed = (1..4).any(|seed| {
        let sim = Sim::default();
        sim.be_deaf(files, names);
        sweep(&sim, seed, mix).2.is_err()
    });
    assert!(noticed, "{mix:?}: files {files:?}, names {names}");
}
