//! Reading in a thread: nobody waits for it, no more waits than one for each peer, and what was
//! replaced meanwhile is no damage.

use super::super::Directory;
use super::sim::Sim;
use super::thread::{append, begin, made, next, threaded, until};
use super::{Rng, seed};
use crate::core::{Entry, HardState, Index, NodeId, Persist, Token};
use crate::panics::lock;
use crate::storage::{Done, Storage, StorageError, Task};

fn entries(to: Option<u64>, first: Index, last: Index) -> Task {
    Task::Entries {
        to: to.and_then(NodeId::new),
        first,
        last,
        bytes: usize::MAX,
    }
}

fn finished(directory: &mut Directory) -> Done {
    until(|| directory.finished())
}

type Fetched = (Option<NodeId>, Index, Result<Vec<Entry>, StorageError>);

fn fetched(directory: &mut Directory) -> Fetched {
    let Done::Entries { to, first, result } = finished(directory);
    (to, first, result)
}

/// A directory of five entries; the first of them is being read for peer 2, and that takes its time.
fn held() -> (Sim, Directory) {
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    (2..6).for_each(|n| directory.submit(append(n, 128)));
    directory.flush();
    while directory.poll().is_some() {}
    sim.hold_reads(true);
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    until(|| (sim.held_reads() == 1).then_some(()));
    (sim, directory)
}

#[test]
fn nobody_waits_for_a_read() {
    let (sim, mut directory) = held();
    for n in 6..50 {
        directory.submit(append(n, 128));
        next(&mut directory).result.unwrap();
    }
    assert!(directory.finished().is_none());
    assert_eq!(sim.held_reads(), 1);
    sim.hold_reads(false);
    let (to, first, result) = fetched(&mut directory);
    assert_eq!((to, first), (NodeId::new(2), 1));
    assert_eq!(result.unwrap().len(), 1);
}

#[test]
fn a_wake_comes_with_every_read() {
    let sim = made();
    let (mut directory, calls) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    let count = || calls.load(std::sync::atomic::Ordering::SeqCst);
    let before = until(|| Some(count()).filter(|calls| *calls > 0));
    assert!(directory.begin(entries(None, 1, 1)).is_none());
    until(|| (count() > before).then_some(()));
    assert!(directory.finished().is_some(), "it calls when it is done");
}

#[test]
fn of_those_that_wait_only_the_newest_for_each_peer_is_done() {
    let (sim, mut directory) = held();
    for (to, first) in [
        (Some(2), 2),
        (Some(3), 3),
        (None, 2),
        (Some(2), 4),
        (Some(3), 1),
    ] {
        assert!(directory.begin(entries(to, first, 5)).is_none());
    }
    sim.hold_reads(false);
    for (to, first) in [(Some(2), 1), (None, 2), (Some(2), 4), (Some(3), 1)] {
        let (for_whom, from, result) = fetched(&mut directory);
        assert_eq!((for_whom, from), (to.and_then(NodeId::new), first));
        assert_eq!(result.unwrap()[0].index, first);
    }
    assert!(directory.finished().is_none());
}

#[test]
fn a_failed_read_is_told_and_may_be_tried_again() {
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    sim.fail_read_after(Some(0));
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    let failed = fetched(&mut directory).2;
    assert!(matches!(failed, Err(StorageError::Io { .. })), "{failed:?}");
    sim.fail_read_after(None);
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    assert!(fetched(&mut directory).2.is_ok());
}

#[test]
fn a_panic_is_a_failed_read() {
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    sim.panic_at_reads(true);
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    let error = fetched(&mut directory).2.unwrap_err().to_string();
    assert!(error.contains("told to panic"), "{error}");
    sim.panic_at_reads(false);
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    assert!(
        fetched(&mut directory).2.is_ok(),
        "the thread is still there"
    );
}

#[test]
fn the_end_waits_for_one_read_and_for_no_other() {
    let (sim, mut directory) = held();
    for to in 3..10 {
        assert!(directory.begin(entries(Some(to), 1, 5)).is_none());
    }
    let thread = directory.read_thread.as_ref().unwrap();
    let shared = thread.shared.clone();
    let end = std::thread::spawn(move || drop(directory));
    until(|| lock(&shared.queue).ending.then_some(()));
    let reads = sim.reads();
    sim.hold_reads(false);
    end.join().unwrap();
    assert_eq!(sim.reads(), reads + 1);
}

/// While entries are read the log is replaced from some index on, over and over: what is read was
/// written there at some time, or is not there.
#[test]
fn what_is_replaced_meanwhile_is_no_damage() {
    let mut rng = Rng(seed(77));
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    let (mut last, mut term, mut whole, mut under_way) = (1_u64, 1, 0, false);
    for token in 2..4000 {
        let back = if rng.below(3) == 0 { rng.below(40) } else { 0 };
        let first = (last + 1).saturating_sub(back).max(2);
        term += u64::from(first <= last);
        last = first + rng.below(6);
        let write = |index| {
            let mut persist = append(index, (index * term % 700) as usize);
            persist.entries[0].term = term;
            persist.entries.remove(0)
        };
        directory.submit(Persist {
            token: Token(token),
            hard: (term > 1).then_some(HardState {
                term,
                ..HardState::default()
            }),
            reset: None,
            entries: (first..=last).map(write).collect(),
        });
        if !under_way {
            let from = 1 + rng.below(last);
            assert!(directory.begin(entries(Some(2), from, last)).is_none());
            under_way = true;
        }
        next(&mut directory).result.unwrap();
        let Some(Done::Entries { first, result, .. }) = directory.finished() else {
            continue;
        };
        under_way = false;
        match result {
            Ok(entries) => {
                whole += 1;
                for (index, entry) in (first..).zip(entries) {
                    assert_eq!(entry.index, index);
                    let wanted = append(index, (index * entry.term % 700) as usize);
                    let as_written = index == 1 || wanted.entries[0].payload == entry.payload;
                    assert!(as_written, "{index}");
                }
            }
            Err(error) => assert!(matches!(error, StorageError::Io { .. }), "{error}"),
        }
    }
    assert!(whole > 100, "only {whole} reads");
}
