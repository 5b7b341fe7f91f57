//! Power fails before every single operation, in every way that a disk may lose what was not
//! synced.

use super::seed;
use super::sim::{Loss, Moment, Sim};
use super::workload::{check, run};

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

/// Runs a workload on `sim` and tries every crash; the number of states, and what went wrong.
fn sweep(sim: &Sim, seed: u64) -> (usize, Vec<String>) {
    sim.keep_history();
    let outcome = run(sim, seed, 45);
    assert!(outcome.error.is_none());
    let mut states = 0;
    let mut wrong = Vec::new();
    let history = sim.history();
    for (operation, (moment, mark)) in history.iter().enumerate() {
        for loss in losses(moment, seed ^ (operation as u64) << 8) {
            states += 1;
            let sim = Sim::boot(&moment.lose_power(loss));
            if let Err(what) = check(&sim, &outcome.progress[*mark]) {
                wrong.push(format!("operation {operation}, {loss:?}: {what}"));
            }
        }
    }
    (states, wrong)
}

#[test]
fn no_crash_loses_what_was_acknowledged() {
    let seed = seed(1);
    let mut total = 0;
    for round in 0..3 {
        let (states, wrong) = sweep(&Sim::default(), seed + round);
        assert!(
            wrong.is_empty(),
            "seed {}: {} of {states}, first: {}",
            seed + round,
            wrong.len(),
            wrong[0]
        );
        total += states;
    }
    println!("{total} states");
    assert!(total > 5000, "only {total} states");
}

#[test]
fn a_crash_during_recovery_from_a_crash_loses_nothing() {
    let seed = seed(2);
    let sim = Sim::default();
    sim.keep_history();
    let outcome = run(&sim, seed, 20);
    let history = sim.history();
    for (operation, (moment, mark)) in history.iter().enumerate().skip(3).step_by(7) {
        let progress = &outcome.progress[*mark];
        let again = Sim::boot(&moment.lose_power(Loss::Random(operation as u64)));
        again.keep_history();
        check(&again, progress).unwrap();
        // Only the first opening: later moments hold what the check itself wrote.
        for (second, (moment, _)) in again.history().iter().enumerate().take(14) {
            for loss in [Loss::All, Loss::Nothing, Loss::Random(seed)] {
                let sim = Sim::boot(&moment.lose_power(loss));
                check(&sim, progress)
                    .unwrap_or_else(|e| panic!("{operation}, then {second}, {loss:?}: {e}"));
            }
        }
    }
}

#[test]
fn the_sweep_notices_a_sync_that_is_left_out() {
    for (files, names) in [(true, false), (false, true)] {
        let sim = Sim::default();
        sim.be_deaf(files, names);
        let (_, wrong) = sweep(&sim, 1);
        assert!(!wrong.is_empty(), "files {files}, names {names}");
    }
}
