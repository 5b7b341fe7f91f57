//! Every single operation fails once: nothing acknowledged is lost, nothing is tried again, and
//! the next process does not believe the page cache.

use super::seed;
use super::sim::{Loss, Sim};
use super::workload::{check, run};

const STEPS: u64 = 25;

#[test]
fn no_failing_operation_loses_what_was_acknowledged() {
    let seed = seed(3);
    let mut operation = 0;
    loop {
        operation += 1;
        let sim = Sim::default();
        sim.fail_at(Some(operation));
        let outcome = run(&sim, seed, STEPS);
        if outcome.error.is_none() {
            break;
        }
        sim.fail_at(None);
        let progress = outcome.last();
        let now = sim.now();
        for loss in [
            Loss::All,
            Loss::Nothing,
            Loss::Names,
            Loss::Data,
            Loss::Random(seed),
        ] {
            check(&Sim::boot(&now.lose_power(loss)), progress)
                .unwrap_or_else(|e| panic!("operation {operation}, {loss:?}: {e}"));
        }
        // Last, because it goes on with the same disk: a restart without a loss of power.
        check(&sim, progress).unwrap_or_else(|e| panic!("operation {operation}, restart: {e}"));
    }
    println!("{operation} operations");
    assert!(operation > 150, "only {operation} operations");
}
