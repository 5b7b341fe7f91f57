//! Writing in a thread: order, what is written as one, failures, panics, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::page::PAGE;
use super::super::spare::Spares;
use super::super::vfs::Vfs;
use super::super::{Directory, Options, meta};
use super::disk::nth;
use super::images::{image, save};
use super::model::open;
use super::sim::{Loss, Sim, Unaided};
use super::{INSTANCE, Rng, identity, seed};
use crate::core::{Entry, HardState, NodeId, Payload, Persist, Position, Token};
use crate::storage::{Completion, Room, Storage};

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is written by a thread, and how often that has called.
pub(super) fn threaded(sim: &Sim) -> (Directory, Arc<AtomicU64>) {
    threaded_for(sim, Options::default().large_group_bytes)
}

/// The same, with groups that are large from so many bytes on.
fn threaded_for(sim: &Sim, large_group_bytes: u64) -> (Directory, Arc<AtomicU64>) {
    threaded_with(
        sim,
        Options {
            segment_bytes: 256 * 1024,
            ahead_bytes: 512 * 1024,
            large_group_bytes,
            ..Options::default()
        },
    )
}

fn threaded_with(sim: &Sim, options: Options) -> (Directory, Arc<AtomicU64>) {
    let opened = Directory::open_on(Box::new(sim.clone()), &identity(), options);
    let (mut directory, _) = opened.unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let wake = move || {
        counted.fetch_add(1, Ordering::SeqCst);
    };
    directory.spawn_writer(Arc::new(wake)).unwrap();
    settle(&directory);
    (directory, calls)
}

pub(super) fn made() -> Sim {
    let sim = Sim::default();
    Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
    sim
}

/// Tries it where the thread does everything, and where the disk does much by itself.
fn both(test: impl Fn(&Sim)) {
    test(&made());
    let sim = made();
    sim.be_unaided(Unaided::Writes(0));
    test(&sim);
    assert_ne!(
        sim.unaided(),
        Unaided::Writes(0),
        "the thread did everything"
    );
}

pub(super) fn submit(directory: &mut Directory, persist: Persist) {
    directory.submit(persist);
    directory.start();
}

pub(super) fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "nothing came of it");
        std::thread::yield_now();
    }
}

/// Waits until the next segment is ready: from then on only the log is written.
fn settle(directory: &Directory) {
    until(|| directory.spares.ready());
}

pub(super) fn next(directory: &mut Directory) -> Completion {
    until(|| {
        let completion = directory.poll();
        directory.start();
        completion
    })
}

pub(super) fn append(index: u64, len: usize) -> Persist {
    Persist {
        token: Token(index),
        hard: None,
        reset: None,
        entries: vec![Entry {
            index,
            term: 1,
            payload: Payload::Host(vec![index as u8; len].into()),
        }],
    }
}

/// The first entry, with its term, is durable.
pub(super) fn begin(directory: &mut Directory) {
    submit(directory, nth(1));
    assert!(next(directory).result.is_ok());
}

fn entries_after_a_crash(sim: &Sim) -> u64 {
    let image = sim.now().lose_power(Loss::All);
    let (_, opened) = open(&Sim::boot(&image)).unwrap();
    opened.restored.entries.len() as u64
}

#[test]
fn what_waits_for_a_sync_is_written_as_one() {
    let sim = made();
    let (mut directory, calls) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    sim.hold_syncs(true);
    let before = sim.operations();
    submit(&mut directory, append(2, 128));
    // It is being written, and waits for its sync.
    until(|| (sim.operations() > before).then_some(()));
    (3..19).for_each(|n| submit(&mut directory, append(n, 128)));
    let end = directory.log.try_lock().is_err();
    assert!(end, "the thread is not at work");
    assert!(directory.poll().is_none(), "told before it was durable");
    let calls_before = calls.load(Ordering::SeqCst);
    sim.hold_syncs(false);
    for n in 2..19 {
        let completion = next(&mut directory);
        assert_eq!(completion.token, Token(n));
        completion.result.unwrap();
    }
    directory.flush();
    // META is told after a while, which may have passed.
    let operations = (sim.operations() - before).min(4);
    assert_eq!(operations, 4, "two writes, two syncs");
    assert_eq!(calls.load(Ordering::SeqCst) - calls_before, 2);
    let lsn = directory.log().end.lsn;
    assert_eq!(lsn, 3 * PAGE as u64, "sixteen entries in one page");
    assert_eq!(entries_after_a_crash(&sim), 18);
}

#[test]
fn reading_does_not_wait_for_a_sync() {
    both(|sim| {
        let (mut directory, _) = threaded(sim);
        begin(&mut directory);
        (2..6).for_each(|n| submit(&mut directory, append(n, 128)));
        directory.flush();
        sim.hold_syncs(true);
        let before = sim.operations();
        submit(&mut directory, append(6, 128));
        until(|| (sim.operations() > before).then_some(()));
        // What is not durable is not there yet.
        let entries = directory.fetch(1, 6, usize::MAX).unwrap();
        assert_eq!(entries.len(), 5);
        assert!(directory.fetch(6, 6, usize::MAX).is_err());
        assert_eq!(directory.oldest_snapshot(), 0);
        directory.trim(Position::default()).unwrap();
        sim.hold_syncs(false);
        directory.flush();
        assert_eq!(directory.fetch(1, 6, usize::MAX).unwrap().len(), 6);
    });
}

/// Takes in what is done, which is what follows `done`.
fn take_in_order(directory: &mut Directory, done: &mut u64) {
    while let Some(completion) = directory.poll() {
        *done += 1;
        assert_eq!(completion.token, Token(*done));
        completion.result.unwrap();
    }
}

#[test]
fn everything_is_durable_when_it_is_said_and_in_order() {
    both(|sim| {
        let mut rng = Rng(seed(61));
        let (mut directory, _) = threaded(sim);
        begin(&mut directory);
        let (mut submitted, mut done, mut term, mut tried) = (1, 1, 1, 0);
        while done < 3000 {
            for _ in 0..rng.below(20) {
                submitted += 1;
                let mut persist = append(submitted, rng.below(300) as usize);
                term += u64::from(rng.below(40) == 0);
                persist.entries[0].term = term;
                persist.hard = (term > 1).then_some(HardState {
                    claim: None,
                    term,
                    vote: NodeId::new(term % 3),
                    excluded: None,
                    commit: 0,
                });
                until(|| {
                    take_in_order(&mut directory, &mut done);
                    directory.start();
                    (directory.room() == Room::All).then_some(())
                });
                submit(&mut directory, persist);
            }
            take_in_order(&mut directory, &mut done);
            directory.start();
            if rng.below(10) == 0 && tried < 20 {
                tried += 1;
                assert!(entries_after_a_crash(sim) >= done);
            }
        }
        assert!(tried > 5, "only {tried} crashes");
        drop(directory);
        assert_eq!(entries_after_a_crash(sim), submitted, "an end writes all");
    });
}

#[test]
fn a_conflict_is_written_after_what_it_replaces() {
    both(|sim| {
        let (mut directory, _) = threaded(sim);
        begin(&mut directory);
        (2..20).for_each(|n| submit(&mut directory, append(n, 50)));
        let mut conflict = append(9, 70);
        conflict.token = Token(20);
        conflict.hard = Some(HardState {
            term: 2,
            ..HardState::default()
        });
        conflict.entries[0].term = 2;
        submit(&mut directory, conflict.clone());
        drop(directory);
        let (_, opened) = open(sim).unwrap();
        assert_eq!(opened.restored.entries.len(), 9);
        assert_eq!(opened.restored.entries.last(), conflict.entries.last());
    });
}

#[test]
fn a_failed_sync_fails_all_that_waits_and_nothing_is_tried_again() {
    for (operation, unaided) in [1, 2].into_iter().flat_map(|operation| {
        let each = [Unaided::Never, Unaided::Writes(0)];
        each.map(|unaided| (operation, unaided))
    }) {
        let sim = made();
        sim.be_unaided(unaided);
        let (mut directory, _) = threaded(&sim);
        begin(&mut directory);
        directory.flush();
        until(|| (!directory.log().is_ahead_of_meta()).then_some(()));
        sim.fail_at(Some(sim.operations() + operation));
        (2..30).for_each(|n| submit(&mut directory, append(n, 50)));
        for n in 2..30 {
            let completion = next(&mut directory);
            assert_eq!(completion.token, Token(n));
            assert!(completion.result.is_err());
        }
        let before = sim.operations();
        submit(&mut directory, append(30, 50));
        assert!(next(&mut directory).result.is_err());
        assert!(directory.trim(Position::default()).is_err());
        directory.flush();
        assert_eq!(sim.operations(), before);
        drop(directory);
        assert_eq!(entries_after_a_crash(&sim), 1);
    }
}

/// Whatever fails while the log goes on in another segment: who waits hears of that, and it is not tried
/// again.
#[test]
fn a_segment_that_cannot_be_begun_fails_the_write_that_needs_it() {
    for unaided in [Unaided::Never, Unaided::Writes(0)] {
        let mut failed = 0;
        for operation in 1..=20 {
            let sim = made();
            sim.be_unaided(unaided);
            let (mut directory, _) = threaded(&sim);
            begin(&mut directory);
            submit(&mut directory, append(2, 200_000));
            assert!(next(&mut directory).result.is_ok());
            directory.flush();
            settle(&directory);
            until(|| (!directory.log().is_ahead_of_meta()).then_some(()));
            let seq = directory.log().segment.header.seq;
            sim.fail_at(Some(sim.operations() + operation));
            submit(&mut directory, append(3, 200_000));
            let result = next(&mut directory).result;
            sim.fail_at(None);
            let Err(error) = result else {
                // It was one of the spare thread's, or none at all.
                assert_eq!(directory.log().segment.header.seq, seq + 1);
                drop(directory);
                assert_eq!(entries_after_a_crash(&sim), 3);
                continue;
            };
            failed += 1;
            let error = error.to_string();
            assert!(!error.contains("after a failed one"), "{error}");
            submit(&mut directory, append(4, 50));
            let again = next(&mut directory).result.unwrap_err().to_string();
            assert!(again.contains("after a failed one"), "{again}");
            drop(directory);
            assert!((2..=3).contains(&entries_after_a_crash(&sim)));
        }
        assert!(failed >= 3, "only {failed} operations");
    }
}

#[test]
fn a_panic_is_a_failed_write() {
    let mut vote = nth(1);
    vote.hard.as_mut().unwrap().vote = NodeId::new(3);
    vote.entries.clear();
    let cases = [(vote, "second vote"), (append(3, 50), "leave a gap")];
    for (broken, why) in cases {
        for unaided in [Unaided::Never, Unaided::Writes(0)] {
            let sim = made();
            sim.be_unaided(unaided);
            let (mut directory, _) = threaded(&sim);
            begin(&mut directory);
            submit(&mut directory, broken.clone());
            submit(&mut directory, append(2, 50));
            let error = next(&mut directory).result.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(next(&mut directory).result.is_err());
            drop(directory);
            assert_eq!(entries_after_a_crash(&sim), 1);
        }
    }
}

#[test]
fn a_quiet_thread_has_meta_know_what_is_durable() {
    both(|sim| {
        let (mut directory, _) = threaded(sim);
        begin(&mut directory);
        (2..6).for_each(|n| submit(&mut directory, append(n, 50)));
        directory.flush();
        let known = |sim: &Sim| {
            let image = sim.now().lose_power(Loss::All);
            meta::load(&Sim::boot(&image)).unwrap().0.durable_lsn
        };
        let end = directory.log().end.lsn;
        until(|| (known(sim) == end).then_some(()));
        // Once is enough.
        directory.flush();
        let before = sim.operations();
        directory.trim(Position::default()).unwrap();
        directory.flush();
        assert_eq!(sim.operations(), before);
        drop(directory);
        assert_eq!(sim.operations(), before + 1, "the spare segment is removed");
    });
}

#[test]
fn spare_segments_are_taken_and_none_is_left_behind() {
    both(|sim| {
        let (mut directory, _) = threaded(sim);
        begin(&mut directory);
        let mut last = 1;
        let mut rolled = 0;
        while rolled < 5 {
            directory.flush();
            settle(&directory);
            until(|| (!directory.log().is_ahead_of_meta()).then_some(()));
            let seq = directory.log().segment.header.seq;
            last += 1;
            submit(&mut directory, append(last, 60_000));
            let done = next(&mut directory);
            done.result.unwrap();
            rolled += u32::from(directory.log().segment.header.seq > seq);
        }
        drop(directory);
        let names = sim.list().unwrap();
        assert!(
            names.iter().all(|name| !name.starts_with("prep-")),
            "{names:?}"
        );
        assert_eq!(entries_after_a_crash(sim), last);
    });
}

#[test]
fn power_may_fail_while_spare_segments_are_made_and_taken() {
    // With zeros that are written, and with zeros that are none of theirs.
    for large_group_bytes in [u64::MAX, 0] {
        power_may_fail_with_spares_for(large_group_bytes);
    }
}

fn power_may_fail_with_spares_for(large_group_bytes: u64) {
    both(|sim| {
        let (mut directory, _) = threaded_for(sim, large_group_bytes);
        begin(&mut directory);
        sim.keep_history();
        let mut told = 1;
        for n in 2..30 {
            sim.mark(told as usize);
            submit(&mut directory, append(n, 50_000));
            assert!(next(&mut directory).result.is_ok());
            told = n;
        }
        drop(directory);
        let history = sim.history();
        let mut spares = 0;
        for (at, (moment, told)) in history.iter().enumerate() {
            for loss in Loss::usual(at as u64) {
                let image = moment.lose_power(loss);
                spares += u32::from(image.keys().any(|name| name.starts_with("prep-spare")));
                let (_, opened) = open(&Sim::boot(&image)).unwrap();
                let found = opened.restored.entries.len();
                assert!(
                    found >= *told,
                    "operation {at}, {loss:?}: {found} of {told}"
                );
            }
        }
        assert!(spares > 50, "only {spares} with a spare segment");
    });
}

/// What it costs to make a spare after a segment of such groups.
fn operations(groups: u64, bytes: u64) -> u64 {
    let sim = Sim::default();
    let options = Options::default();
    let spares = Spares::new(Arc::new(sim.clone()), options);
    spares.filled(groups, bytes);
    assert!(spares.make_now());
    let spare = spares.take(options.segment_bytes).unwrap().unwrap();
    let mut read = vec![1; options.segment_bytes as usize];
    assert_eq!(spare.file.read(&mut read, 0).unwrap(), read.len());
    assert!(read.iter().all(|byte| *byte == 0));
    sim.operations()
}

#[test]
fn zeros_are_written_for_small_groups_only() {
    let bytes = Options::default().segment_bytes;
    let large = operations(bytes / (64 * 1024), bytes);
    assert_eq!(large, 3, "made, reserved, and durable");
    assert!(operations(bytes / (64 * 1024) + 1, bytes) > large);
    assert!(operations(0, 0) > large, "nothing is known yet");
}

#[test]
fn the_next_segment_is_larger_where_there_is_room() {
    let sim = made();
    let options = Options {
        segment_bytes: 16 * 1024,
        ahead_bytes: 64 * 1024,
        ..Options::default()
    };
    sim.be_full_after(Some(40 * 1024));
    let (mut directory, _) = threaded_with(&sim, options);
    assert_eq!(
        directory.spares.ready(),
        Some(16 * 1024),
        "32 KiB are too much"
    );
    sim.be_full_after(None);
    begin(&mut directory);
    let mut next_size = 0;
    for n in 2..60 {
        submit(&mut directory, append(n, 3000));
        assert!(next(&mut directory).result.is_ok());
        let ready = until(|| directory.spares.ready());
        assert!(ready <= 64 * 1024);
        next_size = ready.max(next_size);
    }
    assert_eq!(next_size, 64 * 1024);
    drop(directory);
    assert_eq!(entries_after_a_crash(&sim), 59);
}

#[test]
fn the_log_is_trimmed_in_its_turn() {
    for unaided in [Unaided::Never, Unaided::Writes(0)] {
        let sim = &made();
        sim.be_unaided(unaided);
        let (mut directory, _) = threaded(sim);
        begin(&mut directory);
        (2..200).for_each(|n| submit(&mut directory, append(n, 9000)));
        directory.flush();
        save(&mut directory, 150, &image(1, 1000));
        let position = Position {
            index: 150,
            term: 1,
        };
        directory.trim(position).unwrap();
        (200..220).for_each(|n| submit(&mut directory, append(n, 100)));
        directory.flush();
        let first = directory.known().layout.base().index + 1;
        assert!((2..=151).contains(&first), "first {first}");
        assert_eq!(
            directory.fetch(151, 219, usize::MAX).unwrap().len(),
            219 - 150
        );
    }
}

#[test]
fn a_disk_that_takes_its_time_by_itself_keeps_nobody_waiting() {
    let sim = made();
    sim.be_unaided(Unaided::Writes(0));
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    sim.hold_syncs(true);
    (2..30).for_each(|n| submit(&mut directory, append(n, 50)));
    assert!(directory.poll().is_none(), "told before it was durable");
    assert_eq!(directory.room(), Room::All);
    // The thread waits for nothing either.
    until(|| directory.log.try_lock().is_ok().then_some(()));
    assert_eq!(entries_after_a_crash(&sim), 1);
    sim.hold_syncs(false);
    for n in 2..30 {
        let completion = next(&mut directory);
        assert_eq!(completion.token, Token(n));
        completion.result.unwrap();
    }
    let Unaided::Writes(writes) = sim.unaided() else {
        panic!("it does nothing by itself");
    };
    assert!((1..=2).contains(&writes), "all that waited is one write");
    // And at the end nothing is left under way.
    submit(&mut directory, append(30, 50));
    submit(&mut directory, append(31, 50));
    drop(directory);
    assert_eq!(entries_after_a_crash(&sim), 31);
}

#[test]
fn what_the_system_will_not_do_by_itself_the_thread_does() {
    for unaided in [Unaided::Refuses, Unaided::RefusesLate] {
        let sim = made();
        sim.be_unaided(unaided);
        let (mut directory, _) = threaded(&sim);
        begin(&mut directory);
        for n in 2..30 {
            submit(&mut directory, append(n, 50));
            if n % 3 == 0 {
                directory.flush();
            }
        }
        for n in 2..30 {
            let completion = next(&mut directory);
            assert_eq!(completion.token, Token(n), "{unaided:?}");
            completion.result.unwrap();
        }
        // It is not asked again.
        sim.be_unaided(Unaided::Writes(0));
        submit(&mut directory, append(30, 50));
        next(&mut directory).result.unwrap();
        assert_eq!(sim.unaided(), Unaided::Writes(0), "{unaided:?}");
        drop(directory);
        assert_eq!(entries_after_a_crash(&sim), 30);
    }
}
