//! Writes that are late, fail, or are lost.

use super::super::OutOfOrder;
use super::*;
use crate::core::Configuration;
use crate::core::{Position, Snapshot};
use crate::storage::Room;

fn numbers(store: &Store) -> Vec<u64> {
    store
        .fake
        .inner()
        .under_way
        .iter()
        .map(|t| t.number)
        .collect()
}

/// Of the run's batches.
fn first(incarnation: u32) -> u64 {
    (u64::from(incarnation) << 32) + 1
}

#[test]
fn nothing_begins_before_the_run_has_its_number() {
    let mut store = Store::open(Fake::default(), Some(7)).unwrap();
    for _ in 0..3 {
        assert!(!store.storage.ready().unwrap());
        assert_eq!([first(1)], numbers(&store)[..], "begun once");
    }
    let lost = Store::open(store.fake.crash(0), Some(8)).unwrap();
    assert_eq!(1, lost.opened.incarnation, "the number was never used");

    let mut store = Store::open(Fake::default(), Some(7)).unwrap();
    assert!(!store.storage.ready().unwrap());
    let number = store.fake.land().unwrap();
    assert!(
        !store.storage.ready().unwrap(),
        "it landed, and nobody said so"
    );
    assert_eq!(2, store.again(0).opened.incarnation);
    store.report(number, Ok(()));
    assert!(store.storage.ready().unwrap());
    assert_eq!(store.polled(), [], "nobody waits for it");
}

#[test]
fn a_report_that_comes_after_its_run_is_refused() {
    let mut store = Store::new();
    store.storage.submit(persist(1, 1, 1, 1));
    let late = numbers(&store);
    let mut again = store.again(0);
    let _ = again.storage.ready();
    again.settle();
    again.storage.submit(persist(1, 1, 1, 1));
    assert_eq!(late.len(), numbers(&again).len());
    let next = numbers(&again).first().copied();
    assert_eq!(
        Err(OutOfOrder { next }),
        again.writes.report(late[0], Ok(()))
    );
    assert_eq!(again.polled(), []);
    again.settle();
    assert_eq!(again.polled(), [(1, true)]);
}

#[test]
fn a_first_entry_opens_as_well() {
    let mut store = Store::open(Fake::default(), Some(7)).unwrap();
    store.storage.submit(persist(1, 1, 1, 1));
    assert!(!store.storage.ready().unwrap());
    assert_eq!(
        [first(1)],
        numbers(&store)[..],
        "it carries the number of the run"
    );
    store.settle();
    assert!(store.storage.ready().unwrap());
    assert_eq!(store.polled(), [(1, true)]);
    let again = store.again(0);
    assert_eq!(
        (2, 1),
        (again.opened.incarnation, again.restored().entries.len())
    );
}

#[test]
fn writes_are_finished_when_the_host_says_so() {
    let mut store = Store::new();
    for (token, index) in [(1, 1), (2, 2), (3, 2)] {
        store
            .storage
            .submit(persist(token, index, index + 1, token));
    }
    assert_eq!(store.polled(), []);
    let first = store.fake.land().unwrap();
    assert_eq!(store.polled(), [], "on the disk, and nobody knows");
    assert!(store.writes.report(first + 1, Ok(())).is_err());
    store.report(first, Ok(()));
    assert_eq!(store.polled(), [(1, true)]);
    store.settle();
    assert_eq!(store.polled(), [(2, true), (3, true)]);
    let expected = vec![entry(1, 1), entry(2, 3), entry(3, 3)];
    assert_eq!(expected, store.again(0).restored().entries);
}

#[test]
fn entries_without_memory_wait_and_hard_state_does_not() {
    let mut store = Store::new();
    store.write(persist(1, 1, 3, 1));
    store.fake.inner().is_short = true;
    store.storage.submit(persist(2, 3, 3, 2));
    store.fake.inner().is_short = false;
    // It builds on what waits, and is no gap.
    store.storage.submit(persist(3, 4, 5, 2));
    assert_eq!(Room::Hard, store.storage.room());
    assert_eq!(store.polled(), [], "the hard state is on its way");
    store.settle();
    for token in [2, 3] {
        let completion = store.storage.poll().expect("it is finished");
        assert_eq!(Token(token), completion.token);
        let full = matches!(completion.result, Err(StorageError::Full { .. }));
        assert!(full, "{:?}", completion.result);
    }
    let again = store.again(0);
    assert_eq!(hard(2), again.restored().hard);
    assert_eq!(3, again.restored().entries.len());
    assert_eq!(1, again.restored().entries[2].term);
    store.storage.make_room();
    assert_eq!(Room::All, store.storage.room());
    store.write(persist(4, 3, 5, 2));
    let again = store.again(0);
    let entries = &again.restored().entries;
    assert_eq!((5, 2), (entries.len(), entries[2].term));
}

#[test]
fn a_crash_keeps_the_first_of_those_under_way() {
    let prepare = || {
        let mut store = Store::new();
        store.write(persist(1, 1, 3, 1));
        store.storage.submit(persist(2, 2, 2, 2));
        store.storage.submit(persist(3, 3, 5, 2));
        store
    };
    for (landed, length, term) in [(0, 3, 1), (1, 2, 2), (2, 5, 2)] {
        let again = prepare().again(landed);
        let entries = &again.restored().entries;
        assert_eq!((length, term), (entries.len(), entries[1].term));
        assert_eq!(hard(term), again.restored().hard);
    }
}

/// Every way in which the host can say that a write failed.
#[test]
fn a_failure_takes_everything_after_it_along() {
    for at_once in [true, false] {
        let mut store = Store::new();
        store.storage.submit(persist(1, 1, 1, 1));
        store.storage.submit(persist(2, 2, 2, 1));
        let first = store.fake.land().unwrap();
        if at_once {
            store.report(first, Ok(()));
            assert_eq!(store.polled(), [(1, true)]);
            store.fake.inner().failures.insert("write", -28);
            store.storage.submit(persist(3, 3, 3, 1));
        } else {
            store.report(first, Ok(()));
            store.report(first + 1, Err(-28));
            assert_eq!(store.storage.poll().map(|c| c.token), Some(Token(1)));
            store.storage.submit(persist(3, 3, 3, 1));
        }
        let failed = store.storage.poll().unwrap();
        let text = failed.result.unwrap_err().to_string();
        assert!(text.ends_with("the host says -28"), "{text}");
        assert_eq!((Token(2), vec![(3, false)]), (failed.token, store.polled()));
        store.storage.submit(persist(4, 4, 4, 1));
        assert_eq!(store.polled(), [(4, false)]);
        assert!(store.storage.ready().is_err());
        assert!(
            numbers(&store).len() <= 1,
            "nothing more is given to the host"
        );
    }
}

#[test]
fn a_failed_opening_is_no_opening() {
    let mut store = Store::open(Fake::default(), Some(7)).unwrap();
    store.fake.inner().failures.insert("write", -5);
    assert!(store.storage.ready().is_err());
    let mut store = Store::open(Fake::default(), Some(7)).unwrap();
    assert!(!store.storage.ready().unwrap());
    store.report(first(1), Err(-5));
    let text = store.storage.ready().unwrap_err().to_string();
    assert_eq!("keel_write_done keel_storage: the host says -5", text);
}

#[test]
fn entries_are_fetched_in_pieces() {
    let mut store = Store::new();
    store.write(persist(1, 1, 9, 2));
    let weight = entry(1, 2).payload.weight();
    let mut fetch = |first, last, bytes| {
        let entries = store.storage.fetch(first, last, bytes).unwrap();
        entries.iter().map(|e| e.index).collect::<Vec<_>>()
    };
    assert_eq!(vec![3], fetch(3, 9, 0), "at least one");
    assert_eq!(vec![3, 4], fetch(3, 9, 2 * weight + 1));
    assert_eq!(vec![3, 4], fetch(3, 4, 9999));
    assert_eq!((1..=9).collect::<Vec<_>>(), fetch(1, 9, 9999));
}

#[test]
fn a_read_may_fail_and_be_asked_again() {
    let mut store = Store::new();
    store.write(persist(1, 1, 4, 1));
    store.fake.inner().failures.insert("read", -5);
    let text = store.storage.fetch(2, 4, 9999).unwrap_err().to_string();
    assert_eq!("read keel_storage: the host says -5", text);
    store.fake.inner().failures.clear();
    let kept = store.fake.inner().disk.log.clone();
    for damage in [2, 3] {
        store.fake.inner().disk.log.remove(&damage);
        assert!(
            store.storage.fetch(2, 4, 9999).is_err(),
            "{damage} is missing"
        );
        store.fake.inner().disk.log = kept.clone();
        store.fake.inner().disk.log.get_mut(&damage).unwrap()[20] ^= 1;
        assert!(
            store.storage.fetch(2, 4, 9999).is_err(),
            "{damage} is damaged"
        );
        store.fake.inner().disk.log = kept.clone();
        store.fake.inner().disk.log.insert(damage, kept[&1].clone());
        assert!(
            store.storage.fetch(2, 4, 9999).is_err(),
            "{damage} is another"
        );
        store.fake.inner().disk.log = kept.clone();
    }
    store.fake.inner().disk.log.clear();
    assert!(
        store.storage.fetch(2, 4, 9999).is_err(),
        "nothing is no answer"
    );
    store.fake.inner().disk.log = kept;
    assert_eq!(3, store.storage.fetch(2, 4, 9999).unwrap().len());
}

#[test]
fn a_log_is_dropped_for_a_snapshot_in_one_write() {
    let mut store = Store::new();
    store.write(persist(1, 1, 4, 1));
    let snapshot = Snapshot {
        last: Position { index: 9, term: 3 },
        config: Arc::new(Configuration {
            epoch: 1,
            voters: vec![node(3)],
            ..Configuration::default()
        }),
        config_index: 1,
        size: 0,
        crc: 0,
        pieces: None,
    };
    store.storage.adopt(&snapshot).unwrap();
    let mut reset = persist(2, 10, 11, 3);
    reset.reset = Some(snapshot.clone());
    store.write(reset);
    let log: Vec<Index> = store.fake.inner().disk.log.keys().copied().collect();
    assert_eq!(vec![10, 11], log);
    let again = store.again(0);
    assert_eq!(
        (snapshot.last, Some(&snapshot)),
        (again.restored().base, again.restored().snapshot.as_ref())
    );
    assert_eq!(vec![entry(10, 3), entry(11, 3)], again.restored().entries);
}

#[test]
#[should_panic(expected = "leave a gap")]
fn a_gap_is_a_bug_of_the_caller() {
    Store::new().storage.submit(persist(1, 2, 2, 1));
}
