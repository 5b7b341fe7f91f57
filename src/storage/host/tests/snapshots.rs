//! Images with the host.

use super::*;
use crate::core::{Configuration, Position, Snapshot};
use crate::storage::Draft;

fn draft(index: Index, term: Term) -> Draft {
    Draft {
        last: Position { index, term },
        config: Arc::new(Configuration {
            epoch: 1,
            voters: vec![node(1), node(3)],
            ..Configuration::default()
        }),
        config_index: 1,
        pieces: None,
    }
}

/// Not the same anywhere.
fn bytes(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i * 31 / 7) as u8 ^ salt).collect()
}

fn snapshot(index: Index, term: Term, image: &[u8]) -> Snapshot {
    draft(index, term).finished(image.len() as u64, crc32fast::hash(image))
}

/// With entries 1 to 9 of term 1.
pub(super) fn with_a_log() -> Store {
    let mut store = Store::new();
    store.write(persist(1, 1, 9, 1));
    store
}

impl Store {
    pub(super) fn save(&mut self, index: Index, image: &[u8]) -> Snapshot {
        let mut writer = self.storage.write_snapshot(draft(index, 1)).unwrap();
        for piece in image.chunks(700) {
            writer.write(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(&mut self, snapshot: &Snapshot) -> Result<Vec<u8>, StorageError> {
        let mut reader = self.storage.read_snapshot(snapshot)?;
        let (mut image, mut buf) = (Vec::new(), vec![0; 3000]);
        loop {
            match reader.read_at(image.len() as u64, &mut buf)? {
                0 => return Ok(image),
                len => image.extend_from_slice(&buf[..len]),
            }
        }
    }

    fn receive(&mut self, snapshot: &Snapshot, image: &[u8]) {
        let mut offset = 0;
        for piece in image.chunks(900) {
            self.storage.store_piece(snapshot, offset, piece).unwrap();
            offset += piece.len() as u64;
        }
    }

    fn trim(&mut self, index: Index) {
        let base = Position { index, term: 1 };
        self.storage.trim(base).unwrap();
    }

    fn images(&self) -> Vec<u64> {
        self.fake.inner().disk.images.keys().copied().collect()
    }
}

#[test]
fn an_image_is_written_read_and_found_again() {
    for len in [0, 1, 699, 700, 70_000] {
        let mut store = with_a_log();
        let image = bytes(len, 1);
        let saved = store.save(5, &image);
        assert_eq!(snapshot(5, 1, &image), saved);
        assert_eq!(image, store.read(&saved).unwrap());
        assert_eq!(5, store.storage.oldest_snapshot());
        let mut again = store.again(0);
        assert_eq!(Some(&saved), again.restored().snapshot.as_ref());
        assert_eq!(
            (0, 9),
            (again.restored().base.index, again.restored().entries.len())
        );
        assert_eq!(image, again.read(&saved).unwrap());
    }
}

#[test]
fn a_log_may_be_trimmed_behind_it() {
    for (upto, kept) in [(3, 6), (5, 4), (9, 0)] {
        let mut store = with_a_log();
        store.save(9, &bytes(10, 2));
        store.trim(upto);
        let mut again = store.again(0);
        let restored = again.restored();
        assert_eq!(
            (upto, 1, kept),
            (
                restored.base.index,
                restored.base.term,
                restored.entries.len()
            )
        );
        again.begin();
        again.write(persist(1, 10, 10, 1));
        assert_eq!(kept + 1, again.again(0).restored().entries.len());
    }
}

#[test]
fn an_older_image_stays_as_long_as_the_log_reaches_back_to_it() {
    let mut store = with_a_log();
    let (old, new) = (bytes(5000, 3), bytes(4000, 4));
    let first = store.save(3, &old);
    let second = store.save(6, &new);
    assert_eq!(
        old,
        store.read(&first).unwrap(),
        "it may be on its way to a peer"
    );
    store.trim(3);
    assert_eq!(old, store.read(&first).unwrap());
    store.trim(4);
    assert!(store.read(&first).is_err());
    store.trim(6);
    assert_eq!(new, store.read(&second).unwrap(), "the newest stays");
    assert_eq!(vec![2], store.images());
    assert_eq!(6, store.storage.oldest_snapshot());
    store.save(7, &old);
    assert_eq!(vec![2, 3], store.images());
    store.again(0).begin();
    let again = store.again(0);
    assert_eq!(7, again.restored().snapshot.as_ref().unwrap().last.index);
}

#[test]
fn what_is_read_stays_until_it_was_read() {
    let mut store = with_a_log();
    let (old, new) = (bytes(5000, 3), bytes(4000, 4));
    let first = store.save(3, &old);
    let mut reader = store.storage.read_snapshot(&first).unwrap();
    let second = store.save(6, &new);
    store.save(7, &new);
    store.trim(7);
    assert_eq!(vec![1, 3], store.images(), "the second one was not read");
    assert!(store.read(&second).is_err());
    let mut buf = vec![0; 5000];
    assert_eq!(5000, reader.read_at(0, &mut buf).unwrap());
    assert_eq!(
        (old, 0),
        (buf.clone(), reader.read_at(5000, &mut buf).unwrap())
    );
    drop(reader);
    store.save(8, &new);
    assert_eq!(vec![3, 4], store.images());
}

#[test]
fn an_older_image_takes_no_newer_ones_place() {
    let mut store = with_a_log();
    let image = bytes(100, 5);
    let mut late = store.storage.write_snapshot(draft(4, 1)).unwrap();
    late.write(&image).unwrap();
    let newest = store.save(6, &image);
    assert_eq!(4, late.finish().unwrap().last.index);
    let whole = |(_, committed): &&(Vec<u8>, bool)| *committed;
    let images = store.fake.disk().images;
    assert_eq!(1, images.values().filter(whole).count(), "nor its room");
    assert_eq!(6, store.storage.oldest_snapshot());
    assert_eq!(Some(newest), store.again(0).opened.restored.snapshot);
}

#[test]
fn an_image_that_was_given_up_leaves_nothing() {
    let mut store = with_a_log();
    let mut writer = store.storage.write_snapshot(draft(4, 1)).unwrap();
    writer.write(&bytes(100, 6)).unwrap();
    drop(writer);
    assert_eq!(vec![1], store.images());
    store.save(5, &bytes(10, 7));
    assert_eq!(vec![2], store.images());
}

#[test]
fn a_failure_ends_the_image_and_not_the_store() {
    for call in ["snap_put", "snap_get", "snap_commit"] {
        let mut store = with_a_log();
        let kept = store.save(3, &bytes(100, 8));
        store.fake.inner().failures.insert(call, -28);
        let mut writer = store.storage.write_snapshot(draft(5, 1)).unwrap();
        let written = writer.write(&bytes(100, 9)).and_then(|()| writer.finish());
        let text = written.unwrap_err().to_string();
        assert_eq!(format!("{call} keel_storage: the host says -28"), text);
        store.fake.inner().failures.clear();
        assert_eq!(3, store.storage.oldest_snapshot());
        assert_eq!(Some(kept), store.again(0).opened.restored.snapshot);
        assert_eq!(5, store.save(5, &bytes(100, 9)).last.index);
        store.trim(5);
        assert_eq!(1, store.images().len());
    }
}

#[test]
fn an_image_that_the_host_spoils_does_not_count() {
    let mut store = with_a_log();
    let mut writer = store.storage.write_snapshot(draft(5, 1)).unwrap();
    writer.write(&bytes(100, 9)).unwrap();
    store.fake.inner().disk.images.get_mut(&1).unwrap().0[50] ^= 1;
    assert!(writer.finish().is_err());
    assert_eq!(0, store.storage.oldest_snapshot());
    let saved = store.save(5, &bytes(100, 9));
    store.fake.inner().disk.images.get_mut(&2).unwrap().0[50] ^= 1;
    assert!(
        store.read(&saved).is_err(),
        "its checksum is compared first"
    );
}

#[test]
fn an_image_is_received_and_adopted() {
    let mut store = with_a_log();
    let own = store.save(5, &bytes(100, 9));
    let image = bytes(10_000, 10);
    let received = snapshot(20, 4, &image);
    store.receive(&received, &image);
    assert_eq!(
        image,
        store.read(&received).unwrap(),
        "the host loads it first"
    );
    assert_eq!(5, store.storage.oldest_snapshot());
    store.storage.adopt(&received).unwrap();
    assert_eq!(
        (20, image),
        (
            store.storage.oldest_snapshot(),
            store.read(&received).unwrap()
        )
    );
    let mut reset = persist(2, 1, 0, 4);
    reset.reset = Some(received.clone());
    store.write(reset);
    assert_eq!(1, store.images().len(), "its own is of no use any more");
    assert!(store.read(&own).is_err());
    let mut again = store.again(0);
    assert_eq!(
        (received.last, 0),
        (again.restored().base, again.restored().entries.len())
    );
    again.begin();
    again.write(persist(1, 21, 21, 5));
    assert_eq!(vec![entry(21, 5)], again.again(0).opened.restored.entries);
}

#[test]
fn an_image_that_is_not_whole_is_not_adopted() {
    let mut store = with_a_log();
    let image = bytes(2000, 11);
    let wanted = snapshot(20, 4, &image);
    assert!(store.storage.adopt(&wanted).is_err(), "nothing came");
    store.receive(&wanted, &image[..1999]);
    assert!(store.read(&wanted).is_err());
    assert!(store.storage.adopt(&wanted).is_err());
    let mut other = image.clone();
    other[5] ^= 1;
    store.receive(&wanted, &other);
    assert!(store.read(&wanted).is_err());
    assert!(store.storage.adopt(&wanted).is_err());
    assert!(
        store
            .storage
            .store_piece(&wanted, 900, &image[900..])
            .is_err()
    );
    // What takes the place of another is begun at 0.
    store.receive(&snapshot(19, 4, &other), &other[..900]);
    store.receive(&wanted, &image);
    store.storage.adopt(&wanted).unwrap();
    assert_eq!(Some(wanted), store.again(0).opened.restored.snapshot);
}

/// The image counts once it is there, also when the write that drops the log for it was lost.
#[test]
fn an_adopted_image_drops_the_log_at_the_next_opening() {
    let mut store = with_a_log();
    let image = bytes(10, 12);
    // Another entry stands at its place here, of an older term; and its term was not stored.
    let received = snapshot(8, 4, &image);
    store.receive(&received, &image);
    store.storage.adopt(&received).unwrap();
    let mut again = store.again(0);
    let restored = again.restored();
    assert_eq!((received.last, 0), (restored.base, restored.entries.len()));
    assert_eq!((4, None), (restored.hard.term, restored.hard.vote));
    again.begin();
    assert!(
        again.fake.inner().disk.log.is_empty(),
        "the first write drops it for good"
    );
    assert_eq!(received.last, again.again(0).opened.restored.base);
    again.write(persist(1, 9, 9, 4));
    assert_eq!(vec![entry(9, 4)], again.again(0).opened.restored.entries);
}

#[test]
fn a_log_that_begins_behind_the_image_is_damaged() {
    let mut store = with_a_log();
    store.save(4, &bytes(10, 13));
    store.trim(4);
    store.fake.inner().disk.log.remove(&5);
    let text = refusal(store.fake.crash(0), None);
    assert!(text.contains("log index 5: entry is missing"), "{text}");
    store.fake.inner().disk.log.clear();
    let text = refusal(store.fake.crash(0), None);
    assert!(text.contains("log index 5: entry is missing"), "{text}");
}

#[test]
fn a_damaged_image_matters_if_the_log_needs_it() {
    let mut store = with_a_log();
    let image = bytes(100, 14);
    store.save(4, &image);
    let end = store.fake.inner().disk.images[&1].0.len();
    for byte in image.len()..end {
        let fake = store.fake.crash(0);
        fake.inner().disk.images.get_mut(&1).unwrap().0[byte] ^= 1;
        let whole = Store::open(fake, None).unwrap();
        assert_eq!(
            (None, 9),
            (
                whole.restored().snapshot.as_ref(),
                whole.restored().entries.len()
            )
        );
    }
    store.trim(2);
    for byte in image.len()..end {
        let fake = store.fake.crash(0);
        fake.inner().disk.images.get_mut(&1).unwrap().0[byte] ^= 1;
        let text = refusal(fake, None);
        assert!(text.contains("image") || text.contains("record"), "{text}");
    }
    for len in 0..end {
        let fake = store.fake.crash(0);
        fake.inner()
            .disk
            .images
            .get_mut(&1)
            .unwrap()
            .0
            .truncate(len);
        refusal(fake, None);
    }
}

#[test]
fn a_host_may_keep_none() {
    let mut store = with_a_log();
    store.fake.inner().failures.insert("snapshots", -1);
    let image = bytes(10, 15);
    let wanted = snapshot(20, 4, &image);
    let none = |result: Result<(), StorageError>| {
        assert!(
            matches!(result, Err(StorageError::NoSnapshots)),
            "{result:?}"
        );
    };
    none(store.storage.write_snapshot(draft(4, 1)).map(drop));
    none(store.storage.read_snapshot(&wanted).map(drop));
    none(store.storage.store_piece(&wanted, 0, &image));
    none(store.storage.adopt(&wanted));
    assert_eq!(9, store.again(0).restored().entries.len());
}
