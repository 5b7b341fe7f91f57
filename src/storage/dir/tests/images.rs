//! Snapshots on a real file system: written, read, received, and the log that goes on behind them.

use std::fs;
use std::sync::Arc;
use std::thread;

use super::super::Directory;
use super::super::image::DATA;
use super::super::snapshot::{self, Found, Snapshots};
use super::super::vfs::{Disk, Vfs};
use super::Rng;
use super::disk::{Temp, nth, open, write};
use crate::core::{Configuration, Entry, HardState, NodeId, Payload, Persist, Position, Snapshot};
use crate::core::{Restored, Token};
use crate::storage::{Draft, SnapshotReader, SnapshotWriter, Storage, StorageError};
use crate::wire::MAX_PIECE;

/// What an image that ends at entry `n` of [`nth`] will be.
pub(super) fn draft(n: u64) -> Draft {
    let config = Configuration {
        epoch: 1,
        voters: (1..4).filter_map(NodeId::new).collect(),
        ..Configuration::default()
    };
    Draft {
        last: Position { index: n, term: n },
        config: Arc::new(config),
        config_index: 1,
        pieces: None,
    }
}

/// Bytes like no others.
pub(super) fn image(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut image = Vec::with_capacity(len + 8);
    while image.len() < len {
        image.extend_from_slice(&rng.next().to_le_bytes());
    }
    image.truncate(len);
    image
}

/// The snapshot that a leader would offer with this image.
pub(super) fn offered(n: u64, image: &[u8]) -> Snapshot {
    draft(n).finished(image.len() as u64, crc32fast::hash(image))
}

/// Writes an image in parts of odd sizes.
pub(super) fn save(directory: &mut Directory, n: u64, image: &[u8]) -> Snapshot {
    let mut writer = directory.write_snapshot(draft(n)).unwrap();
    for part in image.chunks(10_007) {
        writer.write(part).unwrap();
    }
    let snapshot = writer.finish().unwrap();
    assert_eq!(snapshot, offered(n, image));
    snapshot
}

/// Stores an image from `offset` on, in pieces.
fn receive(
    directory: &mut Directory,
    snapshot: &Snapshot,
    image: &[u8],
    offset: u64,
    piece: usize,
) {
    let mut at = offset;
    for part in image[offset as usize..].chunks(piece) {
        directory.store_piece(snapshot, at, part).unwrap();
        at += part.len() as u64;
    }
}

pub(super) fn read_all(reader: &mut dyn SnapshotReader) -> Result<Vec<u8>, StorageError> {
    let mut all = Vec::new();
    let mut buf = vec![0; 30_011];
    loop {
        match reader.read_at(all.len() as u64, &mut buf)? {
            0 => return Ok(all),
            len => all.extend_from_slice(&buf[..len]),
        }
    }
}

fn expect(directory: &mut Directory, snapshot: &Snapshot, image: &[u8]) {
    let mut reader = directory.read_snapshot(snapshot).unwrap();
    assert!(read_all(&mut *reader).unwrap() == image, "another image");
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.flat_map(|n| nth(n).entries).collect()
}

fn segments(temp: &Temp) -> usize {
    let names = fs::read_dir(&temp.0).unwrap();
    let names = names.map(|name| name.unwrap().file_name());
    names
        .filter(|n| n.to_string_lossy().ends_with(".seg"))
        .count()
}

fn files(temp: &Temp, part: &str) -> Vec<String> {
    let names = fs::read_dir(&temp.0).unwrap();
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(part)).collect()
}

/// The reset that a server submits when it has installed `snapshot`, in term `term`.
fn reset(snapshot: &Snapshot, term: u64, entries: Vec<Entry>) -> Persist {
    Persist {
        token: Token(7),
        hard: Some(HardState {
            term,
            commit: snapshot.last.index,
            ..HardState::default()
        }),
        reset: Some(snapshot.clone()),
        entries,
    }
}

#[test]
fn images_of_every_length_come_back_and_are_there_again() {
    let lengths = [0, 1, DATA - 1, DATA, DATA + 1, 3 * DATA, 1_000_000];
    for (n, len) in (1..).zip(lengths) {
        let temp = Temp::made();
        let image = image(n, len);
        let (mut directory, opened) = open(&temp.0).unwrap();
        assert_eq!(opened.restored, Restored::default());
        (1..=9).for_each(|n| write(&mut directory, nth(n)));
        let snapshot = save(&mut directory, 5, &image);
        expect(&mut directory, &snapshot, &image);
        drop(directory);
        let (mut directory, opened) = open(&temp.0).unwrap();
        assert_eq!(opened.restored.snapshot, Some(snapshot.clone()));
        assert_eq!(
            opened.restored.entries,
            entries(1..=9),
            "nothing was trimmed"
        );
        expect(&mut directory, &snapshot, &image);
    }
}

#[test]
fn an_image_is_read_from_anywhere() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    (1..=3).for_each(|n| write(&mut directory, nth(n)));
    let image = image(1, 3 * DATA + 17);
    let snapshot = save(&mut directory, 3, &image);
    let mut reader = directory.read_snapshot(&snapshot).unwrap();
    let mut rng = Rng(1);
    for _ in 0..300 {
        let offset = rng.below(image.len() as u64 + 10) as usize;
        let mut buf = vec![0; rng.below(3 * DATA as u64) as usize];
        let expected = image.get(offset..).unwrap_or(&[]);
        let expected = &expected[..expected.len().min(buf.len())];
        assert_eq!(
            reader.read_at(offset as u64, &mut buf).unwrap(),
            expected.len()
        );
        assert!(&buf[..expected.len()] == expected);
    }
    assert_eq!(reader.read_at(u64::MAX, &mut [0; 9]).unwrap(), 0);
}

#[test]
fn two_images_are_kept_and_what_is_read_stays_readable() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    (1..=20).for_each(|n| write(&mut directory, nth(n)));
    assert_eq!(directory.oldest_snapshot(), 0);
    let images = [image(1, 100_000), image(2, 200_000), image(3, 300_000)];
    let first = save(&mut directory, 4, &images[0]);
    assert_eq!(directory.oldest_snapshot(), 4);
    let mut reader = directory.read_snapshot(&first).unwrap();
    let second = save(&mut directory, 9, &images[1]);
    assert_eq!(directory.oldest_snapshot(), 4);
    let third = save(&mut directory, 12, &images[2]);
    assert_eq!(directory.oldest_snapshot(), 9);
    assert_eq!(files(&temp, ".snap").len(), 2);
    assert!(read_all(&mut *reader).unwrap() == images[0]);
    expect(&mut directory, &second, &images[1]);
    expect(&mut directory, &third, &images[2]);
    let gone = directory.read_snapshot(&first);
    assert!(matches!(gone, Err(StorageError::Missing { .. })));
    // An older one than the newest is ready too late.
    save(&mut directory, 11, &images[0]);
    assert_eq!(directory.oldest_snapshot(), 9);
    drop(directory);
    let (mut directory, opened) = open(&temp.0).unwrap();
    assert_eq!(opened.restored.snapshot, Some(third));
    assert_eq!(directory.oldest_snapshot(), 9);
    expect(&mut directory, &second, &images[1]);
}

#[test]
fn an_image_that_is_given_up_leaves_nothing() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    write(&mut directory, nth(1));
    let mut writer = directory.write_snapshot(draft(1)).unwrap();
    writer.write(&[1; 200_000]).unwrap();
    assert_eq!(files(&temp, "prep-").len(), 1);
    drop(writer);
    assert_eq!(files(&temp, "prep-").len(), 0);
    assert_eq!(directory.oldest_snapshot(), 0);
}

#[test]
fn images_are_written_and_read_in_threads_beside_the_log() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    (1..=40).for_each(|n| write(&mut directory, nth(n)));
    let old = image(1, 400_000);
    let first = save(&mut directory, 10, &old);
    let mut writer: Box<dyn SnapshotWriter> = directory.write_snapshot(draft(30)).unwrap();
    let mut reader: Box<dyn SnapshotReader> = directory.read_snapshot(&first).unwrap();
    let new = image(2, 700_000);
    let second = offered(30, &new);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for part in new.chunks(4096) {
                writer.write(part).unwrap();
            }
            writer.finish().unwrap()
        });
        let reading = scope.spawn(move || read_all(&mut *reader).unwrap());
        (41..=120).for_each(|n| write(&mut directory, nth(n)));
        assert_eq!(writing.join().unwrap(), second);
        assert!(reading.join().unwrap() == old);
    });
    expect(&mut directory, &second, &new);
    drop(directory);
    let (_, opened) = open(&temp.0).unwrap();
    assert_eq!(opened.restored.snapshot, Some(second));
    assert_eq!(opened.restored.entries, entries(1..=120));
}

#[test]
fn a_directory_stays_locked_while_an_image_is_written() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    write(&mut directory, nth(1));
    let writer = directory.write_snapshot(draft(1)).unwrap();
    drop(directory);
    assert!(matches!(open(&temp.0), Err(StorageError::Locked { .. })));
    drop(writer);
    open(&temp.0).unwrap();
}

#[test]
fn trimming_removes_whole_segments_and_nothing_that_is_needed() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    (1..=40).for_each(|n| write(&mut directory, nth(n)));
    let before = segments(&temp);
    save(&mut directory, 20, &image(1, 1000));
    for n in [5, 12, 12, 20] {
        directory.trim(Position { index: n, term: n }).unwrap();
    }
    let after = segments(&temp);
    assert!(after < before, "{after} of {before}");
    let first = directory.known().layout.base().index + 1;
    assert!((15..=21).contains(&first), "first {first}");
    drop(directory);
    for _ in 0..2 {
        let (mut directory, opened) = open(&temp.0).unwrap();
        let base = opened.restored.base;
        assert_eq!((base.index, base.term), (first - 1, first - 1));
        assert_eq!(opened.restored.entries, entries(first..=40));
        assert_eq!(
            directory.fetch(first, 40, usize::MAX).unwrap(),
            entries(first..=40)
        );
        assert!(directory.fetch(first - 1, 40, 1).is_err());
        assert_eq!(segments(&temp), after);
    }
    let (mut directory, _) = open(&temp.0).unwrap();
    (41..=60).for_each(|n| write(&mut directory, nth(n)));
    assert_eq!(
        directory.fetch(first, 60, usize::MAX).unwrap(),
        entries(first..=60)
    );
}

#[test]
#[should_panic(expected = "an image ends at 10")]
fn trimming_what_the_older_image_needs_is_a_bug_of_the_caller() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    (1..=20).for_each(|n| write(&mut directory, nth(n)));
    save(&mut directory, 10, &[]);
    save(&mut directory, 20, &[]);
    let _ = directory.trim(Position {
        index: 11,
        term: 11,
    });
}

#[test]
fn an_image_is_received_piece_by_piece_over_restarts() {
    for piece in [1 << 20, 100_000, DATA, 7_001] {
        let temp = Temp::made();
        let (mut directory, _) = open(&temp.0).unwrap();
        (1..=5).for_each(|n| write(&mut directory, nth(n)));
        let other = image(8, 70_000);
        receive(&mut directory, &offered(60, &other), &other, 0, 33_000);
        let image = image(9, 2_500_000);
        let snapshot = offered(90, &image);
        let mut stored = 0;
        for share in [3, 5, 9, 10] {
            let end = image.len() * share / 10;
            receive(&mut directory, &snapshot, &image[..end], stored, piece);
            stored = end as u64;
            drop(directory);
            let (reopened, opened) = open(&temp.0).unwrap();
            assert_eq!(opened.restored.partial, Some((snapshot.clone(), stored)));
            assert_eq!(opened.restored.snapshot, None);
            directory = reopened;
        }
        expect(&mut directory, &snapshot, &image);
        directory.adopt(&snapshot).unwrap();
        expect(&mut directory, &snapshot, &image);
        assert_eq!(directory.oldest_snapshot(), 90);
        assert_eq!(files(&temp, "recv").len(), 0);
        drop(directory);
        // The log does not reach it, so it counts alone, and the log goes on behind it.
        let (mut directory, opened) = open(&temp.0).unwrap();
        assert_eq!(opened.restored.snapshot, Some(snapshot.clone()));
        assert_eq!(opened.restored.base, snapshot.last);
        assert_eq!(opened.restored.entries, []);
        assert_eq!(opened.restored.partial, None);
        assert!(
            opened.restored.hard.term >= 90,
            "no entry is newer than META"
        );
        write(&mut directory, nth(91));
        expect(&mut directory, &snapshot, &image);
        drop(directory);
        let (_, opened) = open(&temp.0).unwrap();
        assert_eq!(
            (opened.restored.base, opened.restored.entries),
            (snapshot.last, entries(91..=91))
        );
    }
}

#[test]
fn a_snapshot_of_no_bytes_needs_no_piece() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    let empty = offered(4, &[]);
    expect(&mut directory, &empty, &[]);
    directory.adopt(&empty).unwrap();
    expect(&mut directory, &empty, &[]);
    drop(directory);
    let (_, opened) = open(&temp.0).unwrap();
    assert_eq!(opened.restored.snapshot, Some(empty));
}

#[test]
fn an_image_that_is_not_what_its_checksum_says_is_not_handed_out() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    let image = image(1, 90_000);
    let mut snapshot = offered(4, &image);
    snapshot.crc ^= 1;
    receive(&mut directory, &snapshot, &image, 0, MAX_PIECE);
    let read = directory.read_snapshot(&snapshot);
    assert!(matches!(read, Err(StorageError::Corrupt { .. })));
    let adopted = directory.adopt(&snapshot);
    assert!(matches!(adopted, Err(StorageError::Corrupt { .. })));
    assert_eq!(directory.oldest_snapshot(), 0);
    // Not whole is not there.
    receive(
        &mut directory,
        &offered(4, &image),
        &image[..80_000],
        0,
        MAX_PIECE,
    );
    let read = directory.read_snapshot(&offered(4, &image));
    assert!(matches!(read, Err(StorageError::Missing { .. })));
    assert!(directory.adopt(&offered(4, &image)).is_err());
}

#[test]
fn a_log_that_holds_where_the_image_ends_is_kept() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    (1..=9).for_each(|n| write(&mut directory, nth(n)));
    let image = image(1, 10_000);
    let snapshot = offered(6, &image);
    receive(&mut directory, &snapshot, &image, 0, MAX_PIECE);
    directory.adopt(&snapshot).unwrap();
    drop(directory);
    let (_, opened) = open(&temp.0).unwrap();
    assert_eq!(opened.restored.snapshot, Some(snapshot));
    assert_eq!(opened.restored.entries, entries(1..=9));
}

#[test]
fn a_log_that_contradicts_the_image_is_dropped() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    for n in 1..=9 {
        let mut persist = nth(n);
        // None of it is known to be committed.
        persist.hard.as_mut().unwrap().commit = 0;
        write(&mut directory, persist);
    }
    let mut snapshot = offered(6, &[]);
    snapshot.last.term = 5;
    directory.adopt(&snapshot).unwrap();
    drop(directory);
    for _ in 0..2 {
        let (_, opened) = open(&temp.0).unwrap();
        let restored = opened.restored;
        assert_eq!(restored.base, snapshot.last);
        assert_eq!(
            (restored.snapshot, restored.entries),
            (Some(snapshot.clone()), vec![])
        );
    }
}

#[test]
fn a_reset_drops_the_log_and_makes_room() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    (1..=30).for_each(|n| write(&mut directory, nth(n)));
    for (n, with) in [(50, 0), (70, 2)] {
        let snapshot = offered(n, &[]);
        directory.adopt(&snapshot).unwrap();
        let following = entries(n + 1..=n + with);
        write(
            &mut directory,
            reset(&snapshot, n + with, following.clone()),
        );
        assert!(directory.fetch(n, n + 9, 1).is_err());
        write(&mut directory, nth(n + with + 1));
        let all = entries(n + 1..=n + with + 1);
        assert_eq!(directory.fetch(n + 1, n + 9, usize::MAX).unwrap(), all);
        drop(directory);
        let (reopened, opened) = open(&temp.0).unwrap();
        directory = reopened;
        assert_eq!(
            (opened.restored.base, opened.restored.entries),
            (snapshot.last, all)
        );
        directory.trim(Position { index: 1, term: 1 }).unwrap();
        assert_eq!(segments(&temp), 1, "what was dropped has no use");
    }
}

#[test]
#[should_panic(expected = "an image that is durable")]
fn a_reset_without_an_image_is_a_bug_of_the_caller() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    write(&mut directory, nth(1));
    write(&mut directory, reset(&offered(5, &[]), 9, vec![]));
}

#[test]
fn a_large_payload_of_the_log_does_not_matter_to_an_image() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    let mut large = nth(1);
    large.entries[0].payload = Payload::Host(vec![3; 300_000].into());
    write(&mut directory, large.clone());
    (2..=9).for_each(|n| write(&mut directory, nth(n)));
    save(&mut directory, 9, &image(1, 50));
    directory.trim(Position { index: 9, term: 9 }).unwrap();
    drop(directory);
    let (_, opened) = open(&temp.0).unwrap();
    assert!(opened.restored.base.index >= 1, "its segment is gone");
}

#[test]
fn an_image_that_is_written_aside_is_nobodys_snapshot() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    for n in 1..=3 {
        write(&mut directory, nth(n));
    }
    let image = image(7, 3 * DATA + 5);
    let mut writer = directory.write_snapshot(draft(3)).unwrap();
    writer.write(&image).unwrap();
    let (mut reader, size, crc) = writer.finish_aside().unwrap();
    assert_eq!(
        (size, crc),
        (image.len() as u64, crc32fast::hash(&image)),
        "what it is"
    );
    assert!(read_all(&mut *reader).unwrap() == image, "another image");
    assert_eq!(0, directory.oldest_snapshot());
    drop(directory);
    let (_, opened) = open(&temp.0).unwrap();
    assert_eq!(None, opened.restored.snapshot);
    assert!(read_all(&mut *reader).unwrap() == image, "another image");
}

/// As when a leader's image and this node's own are finished by two threads.
#[test]
fn of_two_images_of_the_same_entry_one_has_the_place() {
    let temp = Temp::made();
    let disk = Disk::new(&temp.0);
    for name in ["own", "received", "next"] {
        disk.create(name).unwrap();
    }
    let snapshots = Snapshots::new(Arc::new(disk), Found::default());
    let (fifth, sixth) = (offered(5, b"five"), offered(6, b"six"));
    assert!(snapshots.publish("own", &fifth).unwrap());
    assert!(!snapshots.publish("received", &fifth).unwrap());
    assert_eq!(files(&temp, "received").len(), 1, "left to its owner");
    assert!(snapshots.publish("next", &sixth).unwrap());
    assert_eq!((snapshots.oldest(), snapshots.newest()), (5, Some(sixth)));
    let expected = [snapshot::name(fifth.last)];
    assert_eq!(files(&temp, &expected[0]), expected, "kept, and there");
}
