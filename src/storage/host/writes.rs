//! Which writes are under way with the host, and what it has reported of them, from any thread.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The host's own code for a failure; not 0.
pub type HostCode = i32;

/// Shared by the storage, which gives batches and takes reports, and by those who report.
#[derive(Debug, Default)]
pub struct Writes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What the numbers of this run begin behind.
    before: u64,
    /// The last batch that was given to the host.
    given: u64,
    /// The last one that it has reported.
    reported: u64,
    /// Reports that were not taken yet.
    reports: VecDeque<Result<(), HostCode>>,
    /// The first batch is durable.
    opened: bool,
}

/// A report that was not taken: another batch is to be reported next, if any is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrder {
    /// The batch that may be reported next; `None` while none is under way.
    pub next: Option<u64>,
}

impl Writes {
    /// Of a run whose first number is one behind its incarnation in the upper half: a late report of
    /// an earlier run's batch is none of this one's.
    pub(super) fn of_run(incarnation: u32) -> Writes {
        let before = u64::from(incarnation) << 32;
        Writes(Mutex::new(State {
            before,
            given: before,
            reported: before,
            ..State::default()
        }))
    }

    /// The number of a batch that is about to be given: it may be reported from now on.
    pub(super) fn give(&self) -> u64 {
        let mut state = self.lock();
        state.given += 1;
        state.given
    }

    /// The host says how a batch ended: in order, each once.
    pub fn report(&self, batch: u64, result: Result<(), HostCode>) -> Result<(), OutOfOrder> {
        let mut state = self.lock();
        let next = (state.reported < state.given).then_some(state.reported + 1);
        if next != Some(batch) {
            return Err(OutOfOrder { next });
        }
        state.reported = batch;
        state.reports.push_back(result);
        Ok(())
    }

    /// The next report; batches are reported in order.
    pub(super) fn take(&self) -> Option<Result<(), HostCode>> {
        let mut state = self.lock();
        let report = state.reports.pop_front()?;
        state.opened |= report.is_ok();
        Some(report)
    }

    /// Whether any batch was given yet.
    pub(super) fn has_begun(&self) -> bool {
        let state = self.lock();
        state.given > state.before
    }

    /// Whether the first batch is known to be durable.
    pub fn is_open(&self) -> bool {
        self.lock().opened
    }

    /// Whether there is a report to be taken.
    pub fn has_reports(&self) -> bool {
        !self.lock().reports.is_empty()
    }

    /// No section leaves this half changed, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_is_reported_once_and_in_order() {
        let writes = Writes::of_run(0);
        let none = Err(OutOfOrder { next: None });
        assert_eq!(none, writes.report(1, Ok(())), "nothing was given");
        assert_eq!([1, 2, 3], [writes.give(), writes.give(), writes.give()]);
        let first = Err(OutOfOrder { next: Some(1) });
        assert_eq!(first, writes.report(2, Ok(())), "not the oldest");
        assert_eq!(first, writes.report(0, Ok(())));
        assert_eq!(Ok(()), writes.report(1, Ok(())));
        let second = Err(OutOfOrder { next: Some(2) });
        assert_eq!(second, writes.report(1, Ok(())), "twice");
        assert!(writes.has_reports() && !writes.is_open());
        assert_eq!(Some(Ok(())), writes.take());
        assert!(!writes.has_reports() && writes.is_open());
        assert_eq!(Ok(()), writes.report(2, Err(-5)));
        assert_eq!(Ok(()), writes.report(3, Ok(())));
        assert_eq!(
            (Some(Err(-5)), Some(Ok(())), None),
            (writes.take(), writes.take(), writes.take())
        );
        assert_eq!(none, writes.report(4, Ok(())));
    }

    #[test]
    fn what_one_run_gave_another_does_not_take() {
        let (earlier, later) = (Writes::of_run(6), Writes::of_run(7));
        let late = [earlier.give(), earlier.give()];
        assert!(!later.has_begun());
        let first = later.give();
        assert!(later.has_begun());
        for number in late {
            let next = Some(first);
            assert_eq!(Err(OutOfOrder { next }), later.report(number, Ok(())));
        }
        assert_eq!(Ok(()), later.report(first, Ok(())));
    }
}
