//! Every single operation fails once: nothing acknowledged is lost, nothing is tried again, and
//! the next process does not believe the page cache.

use std::io::ErrorKind;
use std::path::PathBuf;

use rustix::io::Errno;

use super::super::Directory;
use super::super::Options;
use super::super::image::BLOCK;
use super::super::open::or_full;
use super::super::segment::is_segment;
use super::disk::{nth, write};
use super::images::{image, offered, read_all, save};
use super::model::{Progress, check, check_crowded, open};
use super::sim::{Failure, Loss, Sim, Written};
use super::workload::{Mix, Outcome, crowded, persevere, run};
use super::{INSTANCE, OPTIONS, identity, seed};
use crate::core::{Payload, Persist};
use crate::storage::{Opened, Room, Storage, StorageError};

const LOSSES: [Loss; 5] = Loss::usual(7);

/// Lets each operation fail in turn, until there is none of that number any more.
fn every_operation(least: u64, workload: impl Fn(&Sim) -> Outcome) {
    every_operation_and(check, least, workload);
}

fn every_operation_and(
    check: impl Fn(&Sim, &Progress) -> Result<(), String>,
    least: u64,
    workload: impl Fn(&Sim) -> Outcome,
) {
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
    every_operation(100, |sim| run(sim, seed, 25, Mix::Log));
}

#[test]
fn no_failing_operation_loses_a_snapshot_or_what_its_log_needs() {
    let seed = seed(32);
    for seed in seed..seed + 3 {
        every_operation(100, |sim| run(sim, seed, 35, Mix::All));
    }
}

#[test]
fn what_fails_beside_the_log_is_given_up_and_the_rest_goes_on() {
    let seed = seed(35);
    for seed in seed..seed + 3 {
        every_operation(100, |sim| persevere(sim, seed, 35, Mix::All));
    }
}

#[test]
fn a_failed_read_is_an_error_and_changes_nothing() {
    let seed = seed(38);
    let sim = Sim::default();
    let outcome = run(&sim, seed, 40, Mix::All);
    assert!(outcome.error.is_none());
    let image = sim.now().lose_power(Loss::All);
    let mut reads = 0;
    loop {
        let sim = Sim::boot(&image);
        sim.fail_read_after(Some(reads));
        let Err(error) = open(&sim) else {
            break;
        };
        assert!(
            matches!(error, StorageError::Io { .. }),
            "read {reads}: {error}"
        );
        sim.fail_read_after(None);
        check(&sim, outcome.last()).unwrap_or_else(|e| panic!("read {reads}: {e}"));
        reads += 1;
    }
    println!("{reads} reads");
    assert!(reads > 10, "only {reads} reads");
}

#[test]
fn an_image_whose_last_piece_failed_is_not_adopted() {
    let sim = Sim::default();
    Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
    let (mut directory, _) = open(&sim).unwrap();
    let image = image(1, 1000);
    let snapshot = offered(5, &image);
    directory.store_piece(&snapshot, 0, &image[..600]).unwrap();
    for operation in 1..=3 {
        sim.fail_at(Some(sim.operations() + operation));
        let stored = directory.store_piece(&snapshot, 600, &image[600..]);
        assert!(stored.is_err(), "two writes and a sync");
        let read = directory.read_snapshot(&snapshot);
        assert!(matches!(read, Err(StorageError::Missing { .. })));
        assert!(directory.adopt(&snapshot).is_err());
        directory.store_piece(&snapshot, 0, &image[..600]).unwrap();
    }
    directory
        .store_piece(&snapshot, 600, &image[600..])
        .unwrap();
    directory.adopt(&snapshot).unwrap();
}

#[test]
fn a_failed_read_of_an_image_may_be_tried_again() {
    let sim = Sim::default();
    Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
    let (mut directory, _) = open(&sim).unwrap();
    write(&mut directory, nth(1));
    let image = image(1, 3 * BLOCK);
    let snapshot = save(&mut directory, 1, &image);
    let mut reader = directory.read_snapshot(&snapshot).unwrap();
    for reads in 0..4 {
        sim.fail_read_after(Some(reads));
        assert!(read_all(&mut *reader).is_err(), "read {reads}");
        sim.fail_read_after(None);
        assert!(read_all(&mut *reader).unwrap() == image);
    }
    sim.fail_read_after(Some(0));
    assert!(directory.read_snapshot(&snapshot).is_err());
    sim.fail_read_after(None);
    write(&mut directory, nth(2));
}

#[test]
fn an_append_costs_one_write_and_one_sync() {
    let sim = Sim::default();
    Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
    let (mut directory, _) = open(&sim).unwrap();
    write(&mut directory, nth(1));
    let before = sim.operations();
    let mut second = nth(2);
    second.hard = None;
    second.entries[0].term = 1;
    write(&mut directory, second);
    assert_eq!(sim.operations() - before, 2);
}

/// A directory whose segments are much larger than what is in them.
fn open_wide(sim: &Sim) -> Result<(Directory, Opened), StorageError> {
    let options = Options {
        segment_bytes: 32 * OPTIONS.segment_bytes,
        ..Options::default()
    };
    Directory::open_on(Box::new(sim.clone()), &identity(), options)
}

/// With entries 1 to 5, and no room for another segment.
fn full_disk() -> Sim {
    let sim = Sim::default();
    Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
    let (mut directory, _) = open_wide(&sim).unwrap();
    (1..=5).for_each(|n| write(&mut directory, nth(n)));
    sim.be_full_after(Some(4 * OPTIONS.segment_bytes as usize));
    sim
}

#[test]
fn a_full_disk_does_not_keep_a_node_from_its_start() {
    let sim = full_disk();
    let start = |entries: u64| {
        let (mut directory, opened) = open_wide(&sim).unwrap();
        assert_eq!(opened.restored.entries.len() as u64, entries);
        write(&mut directory, hard_only(entries + 1));
        directory
    };
    start(5);
    sim.be_full_after(Some(0));
    for _ in 0..3 {
        start(5);
    }
    // What its last segment has room for is written, and what does not fit waits.
    let (last, error) = fill(&mut start(5), 5);
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
    assert!(last > 50, "the segment had room for more than {last}");
    for _ in 0..3 {
        let (_, error) = fill(&mut start(last), last);
        assert!(matches!(error, StorageError::Full { .. }), "{error}");
    }
    sim.be_full_after(None);
    write(&mut start(last), nth(last + 1));
}

/// Be it that its name is what there is no room for.
#[test]
fn a_start_that_finds_no_room_harms_nothing() {
    let mut tried = 0;
    for (lasts, written) in [(false, Written::Nothing), (true, Written::Half)] {
        for nth_call in 1.. {
            let sim = full_disk();
            sim.be_full_after(None);
            sim.fail_as(Failure {
                error: ErrorKind::StorageFull,
                lasts,
                written,
            });
            let before = sim.operations();
            sim.fail_at(Some(before + nth_call));
            drop(open_wide(&sim));
            if sim.operations() < before + nth_call {
                break;
            }
            sim.fail_at(None);
            tried += 1;
            for loss in LOSSES {
                let after = Sim::boot(&sim.now().lose_power(loss));
                let (_, opened) = open_wide(&after).unwrap();
                assert!(opened.lost.is_none(), "{nth_call}, {loss:?}: {opened:?}");
                assert_eq!(opened.restored.entries.len(), 5, "{nth_call}, {loss:?}");
            }
        }
    }
    assert!(tried > 20, "only {tried} operations");
}

/// The file that the last segment was to be written over in may be the new one already, which only the
/// directory does not hold durably.
#[test]
fn a_start_that_lacks_room_for_a_name_leaves_what_has_it_alone() {
    let sim = Sim::default();
    Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
    // The salts of a booted disk begin anew: the next one's must be another.
    drop(open_wide(&sim).unwrap());
    let (mut directory, _) = open_wide(&sim).unwrap();
    (1..=40).for_each(|n| write(&mut directory, nth(n)));
    drop(directory);
    let image = sim.now().lose_power(Loss::All);
    for operation in 1..60 {
        let sim = Sim::boot(&image);
        sim.fail_as(Failure {
            error: ErrorKind::StorageFull,
            ..Failure::default()
        });
        sim.fail_at(Some(operation));
        sim.keep_history();
        drop(open_wide(&sim));
        for (moment, _) in sim.history().iter().skip(operation as usize) {
            for loss in LOSSES {
                let again = Sim::boot(&moment.lose_power(loss));
                let (_, opened) = open_wide(&again).unwrap();
                assert_eq!(opened.restored.entries.len(), 40, "{operation}, {loss:?}");
                assert!(opened.lost.is_none(), "{operation}, {loss:?}");
            }
        }
    }
}

/// One that never had a segment, or whose segment is not what it was, makes do with a small one.
#[test]
fn a_little_room_is_enough_for_a_start() {
    let little = Some(4 * OPTIONS.segment_bytes as usize);
    let sim = Sim::default();
    Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
    sim.be_full_after(Some(0));
    let refused = open_wide(&sim).err();
    assert!(matches!(refused, Some(StorageError::Full { .. })));
    sim.be_full_after(little);
    let (mut directory, _) = open_wide(&sim).unwrap();
    write(&mut directory, nth(1));
    sim.be_full_after(None);
    drop(directory);

    let sim = full_disk();
    let image = sim.now().lose_power(Loss::Nothing);
    let (name, data) = image.iter().find(|(name, _)| is_segment(name)).unwrap();
    let half = data[..data.len() / 2].to_vec();
    sim.put(name, half.into());
    sim.be_full_after(Some(0));
    let refused = open_wide(&sim).err();
    assert!(matches!(refused, Some(StorageError::Full { .. })));
    sim.be_full_after(little);
    let (mut directory, opened) = open_wide(&sim).unwrap();
    assert_eq!(opened.restored.entries.len(), 5);
    write(&mut directory, nth(6));
}

#[test]
fn no_failing_operation_on_a_full_disk_loses_what_was_acknowledged() {
    let seed = seed(36);
    every_operation_and(check_crowded, 100, |sim| crowded(sim, seed, 25, Mix::Log));
    every_operation_and(check_crowded, 100, |sim| crowded(sim, seed, 35, Mix::All));
}

/// Writes until there is no room; the last entry that was written, and why there is no more.
fn fill(directory: &mut Directory, mut last: u64) -> (u64, StorageError) {
    loop {
        directory.submit(nth(last + 1));
        match directory.poll().unwrap().result {
            Ok(()) => last += 1,
            Err(error) => return (last, error),
        }
    }
}

/// A directory with no room for entries any more, and the last one.
fn filled(sim: &Sim) -> (Directory, u64) {
    let (mut directory, _) = open_wide(sim).unwrap();
    sim.be_full_after(Some(0));
    let (last, error) = fill(&mut directory, 5);
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
    assert_eq!(directory.room(), Room::Hard);
    (directory, last)
}

fn hard_only(n: u64) -> Persist {
    let mut vote = nth(n);
    vote.entries.clear();
    vote.hard.as_mut().unwrap().commit = 5;
    vote
}

#[test]
fn a_full_disk_keeps_entries_waiting_and_nothing_else() {
    keeps_entries_waiting(Errno::NOSPC);
}

#[test]
fn so_does_a_quota() {
    keeps_entries_waiting(Errno::DQUOT);
}

#[test]
fn what_a_lack_of_room_is() {
    let failed = |errno: Errno| {
        or_full(StorageError::Io {
            op: "openat",
            path: PathBuf::new(),
            error: errno.into(),
        })
    };
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE] {
        assert!(
            matches!(failed(errno), StorageError::Full { .. }),
            "{errno}"
        );
    }
    for errno in [Errno::IO, Errno::ROFS, Errno::NOMEM] {
        assert!(matches!(failed(errno), StorageError::Io { .. }), "{errno}");
    }
}

fn keeps_entries_waiting(errno: Errno) {
    let sim = full_disk();
    sim.be_full_with(errno);
    let (mut directory, last) = filled(&sim);
    // What was refused with its entries is durable of the hard state, and so is what comes later.
    let after = |n: u64, entries: u64| {
        let image = sim.now().lose_power(Loss::All);
        let sim = Sim::boot(&image);
        let (_, opened) = open_wide(&sim).unwrap();
        assert_eq!(opened.restored.hard.term, n);
        assert_eq!(opened.restored.entries.len() as u64, entries);
    };
    after(last + 1, last);
    write(&mut directory, hard_only(last + 2));
    after(last + 2, last);
    // Entries behind those that were refused leave a gap, and are refused as well.
    let mut later = nth(last + 3);
    later.entries[0].index = last + 2;
    later.hard.as_mut().unwrap().commit = 5;
    directory.submit(later);
    let refused = directory.poll().unwrap().result;
    assert!(matches!(refused, Err(StorageError::Full { .. })));
    after(last + 3, last);
    directory.make_room();
    assert_eq!(directory.room(), Room::Hard, "still full");
    sim.be_full_after(None);
    directory.make_room();
    assert_eq!(directory.room(), Room::All);
    let mut again = nth(last + 3);
    again.entries[0].index = last + 1;
    again.hard.as_mut().unwrap().commit = 5;
    write(&mut directory, again);
    assert_eq!(directory.room(), Room::All);
    after(last + 3, last + 1);
    drop(directory);
    open_wide(&sim).unwrap();
}

#[test]
fn power_may_fail_while_a_disk_is_full() {
    let sim = full_disk();
    let (mut directory, last) = filled(&sim);
    sim.keep_history();
    write(&mut directory, hard_only(last + 2));
    let mut refused = nth(last + 3);
    refused.hard.as_mut().unwrap().commit = 5;
    directory.submit(refused);
    assert!(directory.poll().unwrap().result.is_err());
    sim.be_full_after(None);
    directory.make_room();
    let mut again = nth(last + 3);
    again.entries[0].index = last + 1;
    again.hard.as_mut().unwrap().commit = 5;
    write(&mut directory, again);
    drop(directory);
    let history = sim.history();
    assert!(history.len() > 20, "only {} operations", history.len());
    for (at, (moment, _)) in history.iter().enumerate() {
        for loss in LOSSES {
            let (_, opened) = open_wide(&Sim::boot(&moment.lose_power(loss))).unwrap();
            let entries = opened.restored.entries.len() as u64;
            assert!(
                (last..=last + 1).contains(&entries),
                "operation {at}, {loss:?}"
            );
        }
    }
}

/// What was refused would have replaced what is there, and what comes next builds on it: there is no
/// gap, and room enough.
#[test]
fn what_builds_on_refused_entries_is_refused_though_there_is_room() {
    let sim = full_disk();
    let (mut directory, _) = open_wide(&sim).unwrap();
    sim.be_full_after(Some(0));
    let replace = |index: u64, len: usize| {
        let mut persist = nth(9);
        persist.hard.as_mut().unwrap().commit = 1;
        persist.entries[0].index = index;
        persist.entries[0].payload = Payload::Host(vec![0; len].into());
        persist
    };
    let hard = |mut persist: Persist, term: u64| {
        let hard = persist.hard.as_mut().unwrap();
        hard.term = term;
        persist.entries[0].term = term;
        persist
    };
    let large = replace(3, 32 * OPTIONS.segment_bytes as usize);
    for persist in [large, hard(replace(4, 10), 10), hard(replace(6, 10), 11)] {
        directory.submit(persist);
        let result = directory.poll().unwrap().result;
        assert!(
            matches!(result, Err(StorageError::Full { .. })),
            "{result:?}"
        );
    }
    // What begins where it began is not behind it.
    write(&mut directory, hard(replace(3, 10), 12));
    write(&mut directory, hard(replace(4, 10), 13));
    let (_, opened) = open_wide(&Sim::boot(&sim.now().lose_power(Loss::All))).unwrap();
    let terms: Vec<u64> = opened.restored.entries.iter().map(|e| e.term).collect();
    assert_eq!(terms, [1, 2, 12, 13]);
}

/// The entries behind a reset belong to another log than the one that is still there.
#[test]
fn what_comes_behind_a_refused_reset_is_refused() {
    let sim = full_disk();
    let (mut directory, last) = filled(&sim);
    sim.be_full_after(None);
    let image = image(4, 1000);
    let mut snapshot = offered(4, &image);
    snapshot.last.term = last + 1;
    directory.store_piece(&snapshot, 0, &image).unwrap();
    directory.adopt(&snapshot).unwrap();
    sim.be_full_after(Some(0));
    let mut reset = nth(last + 2);
    reset.hard.as_mut().unwrap().commit = 4;
    reset.reset = Some(snapshot.clone());
    reset.entries.clear();
    let mut behind = nth(last + 2);
    behind.hard = None;
    behind.entries[0].index = 5;
    for persist in [reset.clone(), behind.clone()] {
        directory.submit(persist);
        let result = directory.poll().unwrap().result;
        assert!(
            matches!(result, Err(StorageError::Full { .. })),
            "{result:?}"
        );
    }
    sim.be_full_after(None);
    directory.make_room();
    write(&mut directory, reset);
    write(&mut directory, behind.clone());
    drop(directory);
    let (_, opened) = open_wide(&sim).unwrap();
    assert_eq!(opened.restored.base, snapshot.last);
    assert_eq!(opened.restored.entries, behind.entries);
}

#[test]
fn power_may_fail_while_a_full_disk_is_made_do_with() {
    let sim = full_disk();
    sim.be_full_after(Some(0));
    sim.keep_history();
    open_wide(&sim).unwrap();
    let history = sim.history();
    assert!(history.len() > 10, "only {} operations", history.len());
    for (at, (moment, _)) in history.iter().enumerate() {
        for loss in LOSSES {
            let image = moment.lose_power(loss);
            let (_, opened) = open_wide(&Sim::boot(&image)).unwrap();
            let entries = opened.restored.entries.len();
            assert_eq!(entries, 5, "operation {at}, {loss:?}");
        }
    }
}

/// The image takes the place of the log, which the last run did not come to drop.
#[test]
fn a_full_disk_does_not_keep_a_log_from_being_dropped() {
    let sim = full_disk();
    let (mut directory, _) = open_wide(&sim).unwrap();
    sim.be_full_after(None);
    let image = image(20, 1000);
    let snapshot = offered(20, &image);
    directory.store_piece(&snapshot, 0, &image).unwrap();
    directory.adopt(&snapshot).unwrap();
    drop(directory);
    sim.be_full_after(Some(8 * OPTIONS.segment_bytes as usize));
    let (_, opened) = open_wide(&sim).unwrap();
    assert_eq!(opened.restored.base, snapshot.last);
}
