//! Every single operation fails once: nothing acknowledged is lost, nothing is tried again, and
//! the next process does not believe the page cache.

use super::model::check;
use super::seed;
use super::sim::{Loss, Sim};
use super::workload::{Mix, Outcome, persevere, run};

const LOSSES: [Loss; 5] = [
    Loss::All,
    Loss::Nothing,
    Loss::Names,
    Loss::Data,
    Loss::Random(7),
];

/// Lets each operation fail in turn, until there is none of that number any more.
fn every_operation(least: u64, workload: impl Fn(&Sim) -> Outcome) {
    let mut operation = 0;
    loop {
        operation += 1;
        let sim = Sim::default();
        sim.fail_at(Some(operation));
        let outcome = workload(&sim);
        sim.fail_at(None);
        if sim.operations() < operation {
            break;
        }
        let progress = outcome.last();
        let now = sim.now();
        for loss in LOSSES {
            check(&Sim::boot(&now.lose_power(loss)), progress)
                .unwrap_or_else(|e| panic!("operation {operation}, {loss:?}: {e}"));
        }
        // Last, because it goes on with the same disk: a restart without a loss of power.
        check(&sim, progress).unwrap_or_else(|e| panic!("operation {operation}, restart: {e}"));
    }
    println!("{operation} operations");
    assert!(operation > least, "only {operation} operations");
}

#[test]
fn no_failing_operation_loses_what_was_acknowledged() {
    let seed = seed(3);
    every_operation(150, |sim| run(sim, seed, 25, Mix::Log));
}

#[test]
fn no_failing_operation_loses_a_snapshot_or_what_its_log_needs() {
    let seed = seed(32);
    for seed in seed..seed + 3 {
        every_operation(200, |sim| run(sim, seed, 35, Mix::All));
    }
}

#[test]
fn what_fails_beside_the_log_is_given_up_and_the_rest_goes_on() {
    let seed = seed(35);
    for seed in seed..seed + 3 {
        every_operation(200, |sim| persevere(sim, seed, 35, Mix::All));
    }
}
