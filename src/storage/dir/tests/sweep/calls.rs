//! Every call to the system fails, once or for good, with nothing, half or all of a write done: what
//! was acknowledged is there at the next good opening.

use std::io::ErrorKind;

use super::super::model::check;
use super::super::seed;
use super::super::sim::{Failure, Loss, Sim, Written};
use super::super::workload::{Mix, Outcome, persevere, run};
use super::{in_parallel, thorough};
use crate::storage::StorageError;

type Life = fn(&Sim, u64, u64, Mix) -> Outcome;

const LIVES: [Life; 2] = [run, persevere];

const LOSSES: [Loss; 5] = Loss::usual(11);

const STEPS: u64 = 35;

fn failures() -> Vec<Failure> {
    let mut failures = Vec::new();
    for error in [ErrorKind::Other, ErrorKind::StorageFull] {
        for lasts in [false, true] {
            for written in [Written::Nothing, Written::Half, Written::All] {
                failures.push(Failure {
                    error,
                    lasts,
                    written,
                });
            }
        }
    }
    failures
}

/// What the directory says of a call that failed must be its failure, and nothing worse.
fn check_error(outcome: &Outcome) -> Result<(), String> {
    match &outcome.error {
        None | Some(StorageError::Io { .. } | StorageError::Full { .. }) => Ok(()),
        Some(other) => Err(format!("a failed call is taken for another thing: {other}")),
    }
}

/// As after a loss of power, and as a process finds it that starts on the same system.
fn check_after(sim: &Sim, outcome: &Outcome) -> Result<(), String> {
    check_error(outcome)?;
    let progress = outcome.last();
    let now = sim.now();
    for loss in LOSSES {
        let after = Sim::boot(&now.lose_power(loss));
        check(&after, progress).map_err(|wrong| format!("{loss:?}: {wrong}"))?;
    }
    check(sim, progress).map_err(|wrong| format!("restart: {wrong}"))
}

/// A life with the failure at one changing call; false if it has no such call.
fn with_write(life: Life, seed: u64, failure: Failure, call: u64) -> Result<bool, String> {
    let sim = Sim::default();
    sim.fail_as(failure);
    sim.fail_at(Some(call));
    let outcome = life(&sim, seed, STEPS, Mix::All);
    sim.fail_at(None);
    let wrong = |wrong| format!("seed {seed}, {failure:?} at call {call}: {wrong}");
    check_after(&sim, &outcome).map_err(wrong)?;
    Ok(sim.operations() >= call)
}

/// The same of one reading call.
fn with_read(life: Life, seed: u64, failure: Failure, call: u64) -> Result<bool, String> {
    let sim = Sim::default();
    sim.fail_as(failure);
    sim.fail_read_after(Some(call));
    let outcome = life(&sim, seed, STEPS, Mix::All);
    sim.fail_read_after(None);
    let wrong = |wrong| format!("seed {seed}, {failure:?} at read {call}: {wrong}");
    let reached = sim.reads() > call;
    check_after(&sim, &outcome).map_err(wrong)?;
    Ok(reached)
}

/// Every call of a life in turn, or one in so many, until there is none of that number.
fn all_calls(step: u64, with: impl Fn(u64) -> Result<bool, String>) -> Result<u64, String> {
    let mut tried = 0;
    loop {
        if !with(1 + tried * step)? {
            return Ok(tried);
        }
        tried += 1;
    }
}

#[test]
fn no_failing_call_loses_what_was_acknowledged() {
    let seed = seed(2000);
    let step = if thorough() { 1 } else { 23 };
    let failures = failures();
    let tried = in_parallel(failures.len() * LIVES.len(), |n| {
        let (failure, life) = (failures[n / LIVES.len()], LIVES[n % LIVES.len()]);
        let writes = all_calls(step, |call| with_write(life, seed, failure, call))?;
        let reads = match failure.written {
            Written::Nothing => all_calls(step, |call| with_read(life, seed, failure, call))?,
            _ => 0,
        };
        Ok((failure, writes, reads))
    });
    for (failure, writes, reads) in &tried {
        println!("{failure:?}: {writes} changing calls, {reads} reads");
        let enough = *writes * step > 100 && (*reads > 0 || failure.written != Written::Nothing);
        assert!(enough, "too few calls");
    }
    let total: u64 = tried.iter().map(|(_, writes, reads)| writes + reads).sum();
    println!("{total} failing calls, nothing acknowledged was missed");
}
