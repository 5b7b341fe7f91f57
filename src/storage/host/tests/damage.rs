//! Whatever a host makes of the records: the right data, or a refusal with a reason.

use super::fake::Disk;
use super::*;

/// Three entries of term 1, two of term 2 in the place of older ones.
fn disk() -> Disk {
    let mut store = Store::new();
    store.write(persist(1, 1, 5, 1));
    store.write(persist(2, 4, 5, 2));
    store.fake.disk()
}

fn refused(disk: Disk) -> String {
    refusal(Fake::with(disk), None)
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = disk();
    let state = good.state.clone().unwrap();
    for bit in 0..state.len() * 8 {
        let mut damaged = good.clone();
        damaged.state.as_mut().unwrap()[bit / 8] ^= 1 << (bit % 8);
        refused(damaged);
    }
    for (index, record) in &good.log {
        for bit in 0..record.len() * 8 {
            let mut damaged = good.clone();
            damaged.log.get_mut(index).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let text = refused(damaged);
            assert!(text.contains(&format!("log index {index}: ")), "{text}");
        }
    }
}

#[test]
fn torn_records_are_noticed() {
    let good = disk();
    for len in 0..good.state.as_ref().unwrap().len() {
        let mut torn = good.clone();
        torn.state.as_mut().unwrap().truncate(len);
        refused(torn);
    }
    for (index, record) in &good.log {
        for len in 0..record.len() {
            let mut torn = good.clone();
            torn.log.get_mut(index).unwrap().truncate(len);
            refused(torn);
        }
    }
}

#[test]
fn missing_records_are_noticed() {
    let good = disk();
    for index in 1..=5 {
        let mut damaged = good.clone();
        damaged.log.remove(&index);
        // Before the first one that is there; at the end only the state knows of it.
        let named = if index < 5 && index > 1 {
            index + 1
        } else {
            index
        };
        let text = refused(damaged);
        assert!(text.contains(&format!("log index {named}: ")), "{text}");
        assert!(text.contains("missing"), "{text}");
    }
    let mut damaged = good.clone();
    damaged.log.clear();
    assert!(refused(damaged).contains("log index 1: entry is missing"));
    let mut damaged = good.clone();
    damaged.state = None;
    assert!(refused(damaged).contains("no state before it"));
}

#[test]
fn records_in_each_others_places_are_noticed() {
    let good = disk();
    for a in 1..=5 {
        for b in (1..=5).filter(|b| *b != a) {
            let mut damaged = good.clone();
            damaged.log.insert(a, good.log[&b].clone());
            refused(damaged);
        }
    }
    let mut damaged = good.clone();
    damaged.log.insert(6, good.log[&5].clone());
    refused(damaged);
}

/// A host that does not delete, or keeps an entry where it should replace it.
#[test]
fn what_was_replaced_is_not_taken_for_the_log() {
    let mut store = Store::new();
    store.write(persist(1, 1, 5, 1));
    let old = store.fake.inner().disk.log.clone();
    store.fake.inner().forgets_to_cut = true;
    store.write(persist(2, 3, 4, 2));
    let text = refusal(store.fake.crash(0), None);
    assert!(
        text.contains("log index 5: the entry before this one is another"),
        "{text}"
    );
    let good = disk();
    for index in [4, 5] {
        let mut damaged = good.clone();
        damaged.log.insert(index, old[&index].clone());
        refused(damaged);
    }
}

#[test]
fn a_part_of_a_write_is_noticed() {
    let mut store = Store::new();
    store.write(persist(1, 1, 3, 1));
    let before = store.fake.disk();
    store.write(persist(2, 3, 4, 2));
    let after = store.fake.disk();
    // The state without the entries, and the entries without the state.
    let text = refused(Disk {
        state: after.state.clone(),
        ..before.clone()
    });
    assert!(text.contains("log index 4: entry is missing"), "{text}");
    let text = refused(Disk {
        state: before.state,
        ..after
    });
    assert!(text.contains("a write was not atomic"), "{text}");
}

#[test]
fn records_of_an_earlier_node_of_this_id_are_noticed() {
    let good = disk();
    let mut store = Store::open(Fake::default(), Some(100)).unwrap();
    store.begin();
    store.write(persist(1, 1, 5, 1));
    let mut mixed = store.fake.disk();
    mixed.log.insert(2, good.log[&2].clone());
    let text = refused(mixed);
    assert!(
        text.contains("log index 2: record with a wrong checksum"),
        "{text}"
    );
}

#[test]
fn a_newer_format_is_not_read() {
    let mut newer = disk();
    let state = newer.state.as_mut().unwrap();
    state[8] = 2;
    let end = state.len() - 4;
    let crc = crc32fast::hash(&state[..end]);
    state[end..].copy_from_slice(&crc.to_le_bytes());
    assert!(refused(newer).contains("newer than this library"));
}

/// A state record with another number in it and a checksum that is right.
fn with_number(at: usize, number: u64) -> Disk {
    let mut disk = disk();
    let state = disk.state.as_mut().unwrap();
    state[at..at + 8].copy_from_slice(&number.to_le_bytes());
    let end = state.len() - 4;
    let crc = crc32fast::hash(&state[..end]);
    state[end..].copy_from_slice(&crc.to_le_bytes());
    disk
}

#[test]
fn numbers_that_leave_no_next_one_are_refused() {
    // Term and commit follow magic, version, identity, instance and incarnation; the index of the
    // last entry is followed by its term and the checksum.
    let last = disk().state.unwrap().len() - 20;
    for at in [37, 53, last] {
        for number in [(1 << 62) + 1, u64::MAX] {
            let text = refused(with_number(at, number));
            assert!(
                text.contains("number that nobody counts to"),
                "{at}: {text}"
            );
        }
    }
    let mut disk = disk();
    disk.images.insert(u64::MAX, (vec![1; 64], true));
    assert!(refused(disk).contains("image with an impossible number"));
}

/// One that reads from a copy of its log which is behind.
#[test]
fn what_was_replaced_is_not_read_back() {
    let mut store = Store::new();
    store.write(persist(1, 1, 5, 1));
    let old = store.fake.inner().disk.log.clone();
    store.write(persist(2, 4, 6, 2));
    let new = std::mem::replace(&mut store.fake.inner().disk.log, old);
    let before = store.storage.fetch(1, 3, 9999).expect("it is as it was");
    assert_eq!(3, before.len());
    for first in 3..=5 {
        let error = store.storage.fetch(first, 6, 9999).expect_err("replaced");
        let named = format!("log index {}: entry of another term", first.max(4));
        assert!(error.to_string().contains(&named), "{error}");
    }
    store.fake.inner().disk.log = new;
    assert_eq!(4, store.storage.fetch(3, 6, 9999).expect("there").len());
}
