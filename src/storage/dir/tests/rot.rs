//! Rot in images and in a log that was trimmed or dropped. The outcome is right data, by way of
//! the older image and the log if need be; or what is left, with a claim that covers what was
//! acknowledged; or a named error.

use std::fmt::Debug;
use std::sync::Arc;

use super::super::image::{BLOCK, DATA};
use super::super::page::{PAGE, SECTOR};
use super::super::{Directory, meta, receive, snapshot};
use super::images::{draft, offered, read_all};
use super::model::{check_lost, image_of, open};
use super::sim::{Image, Loss, Sim};
use super::{INSTANCE, identity};
use crate::core::{
    Entry, HardState, NodeId, Payload, Persist, Position, Restored, Snapshot, Token,
};
use crate::storage::{Identity, Storage, StorageError};

/// Two images, a log that begins before the older one, and a part of a third.
pub(super) struct Sample {
    pub(super) image: Image,
    pub(super) whole: Restored,
    older: Snapshot,
}

fn at(n: u64) -> Position {
    Position { index: n, term: n }
}

/// A snapshot of [`draft`] with an image like no other.
fn offer(n: u64, size: u64) -> (Snapshot, Vec<u8>) {
    let image = image_of(at(n), size);
    (offered(n, &image), image)
}

fn write(directory: &mut Directory, first: u64, last: u64) {
    for n in first..=last {
        submit(directory, n, None);
    }
}

fn entry(n: u64) -> Entry {
    Entry {
        index: n,
        term: n,
        payload: Payload::Host(vec![n as u8; 700].into()),
    }
}

/// Entry `n` in term `n`, or a reset in that term.
pub(super) fn submit(directory: &mut Directory, n: u64, reset: Option<Snapshot>) {
    directory.submit(Persist {
        token: Token(n),
        hard: Some(HardState {
            term: n,
            commit: n - 1,
            ..HardState::default()
        }),
        entries: if reset.is_none() {
            vec![entry(n)]
        } else {
            vec![]
        },
        reset,
    });
    directory.poll().unwrap().result.unwrap();
}

fn save(directory: &mut Directory, n: u64, size: u64) -> Snapshot {
    let (snapshot, image) = offer(n, size);
    let mut writer = directory.write_snapshot(draft(n)).unwrap();
    writer.write(&image).unwrap();
    assert_eq!(writer.finish().unwrap(), snapshot);
    snapshot
}

fn receive(directory: &mut Directory, n: u64, size: u64, end: u64) -> Snapshot {
    let (snapshot, image) = offer(n, size);
    for (nth, piece) in image[..end as usize].chunks(30_000).enumerate() {
        let offset = nth as u64 * 30_000;
        directory.store_piece(&snapshot, offset, piece).unwrap();
    }
    snapshot
}

pub(super) fn made() -> (Sim, Directory) {
    let sim = Sim::default();
    Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
    let directory = open(&sim).unwrap().0;
    (sim, directory)
}

pub(super) fn sample() -> Sample {
    let (sim, mut directory) = made();
    write(&mut directory, 1, 30);
    let older = save(&mut directory, 12, 70_000);
    save(&mut directory, 25, 100_000);
    directory.trim(at(12)).unwrap();
    write(&mut directory, 31, 36);
    receive(&mut directory, 90, 150_000, 100_000);
    drop(directory);
    Sample::of(&sim, older)
}

impl Sample {
    fn of(sim: &Sim, older: Snapshot) -> Sample {
        let image = sim.now().lose_power(Loss::All);
        let (_, opened) = open(&Sim::boot(&image)).unwrap();
        Sample {
            image,
            whole: opened.restored,
            older,
        }
    }

    fn changed(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Image {
        let mut image = self.image.clone();
        change(Arc::make_mut(image.get_mut(name).unwrap()));
        image
    }

    fn newest(&self) -> &Snapshot {
        self.whole.snapshot.as_ref().unwrap()
    }

    fn without(&self, names: &[&str]) -> Image {
        let mut image = self.image.clone();
        names.iter().for_each(|name| {
            image.remove(*name).unwrap();
        });
        image
    }

    fn segments(&self) -> Vec<&String> {
        let names = self.image.keys();
        names.filter(|name| name.ends_with(".seg")).collect()
    }

    fn open(&self, image: &Image, what: &dyn Debug) -> Found {
        let sim = Sim::boot(image);
        let (mut directory, opened) = match open(&sim) {
            Ok((directory, opened)) if opened.lost.is_some() => {
                drop(directory);
                println!("{what:?}: {:?}", opened.lost);
                check_lost(&sim, &opened, &self.whole, &past());
                return Found::Lost;
            }
            Ok(opened) => opened,
            Err(StorageError::Io { .. }) => panic!("{what:?}: not a matter of input and output"),
            Err(error) => return Found::Refused(error),
        };
        let mut expected = self.whole.clone();
        // A part of an image is no promise.
        expected.partial = opened.restored.partial.clone();
        // What an image covers may be lost without harm.
        let base = opened.restored.base;
        expected.base = base;
        expected.entries.retain(|entry| entry.index > base.index);
        let found = match opened.restored == expected {
            true => Found::Right,
            false => {
                expected.snapshot = Some(self.older.clone());
                assert!(opened.restored == expected, "{what:?}: wrong data");
                Found::Older
            }
        };
        let snapshot = expected.snapshot.unwrap();
        let mut reader = directory.read_snapshot(&snapshot).unwrap();
        let read = match read_all(&mut *reader) {
            Ok(read) => read,
            Err(error) => return Found::Refused(error),
        };
        assert!(
            read == image_of(snapshot.last, snapshot.size),
            "{what:?}: wrong image"
        );
        found
    }
}

/// All that a log ever was, entry by entry.
pub(super) fn past() -> Vec<Vec<Entry>> {
    let upto = |last| (1..=last).map(entry).collect();
    (1..=60).map(upto).collect()
}

/// What came of opening a damaged directory and reading its newest image.
#[derive(Debug)]
enum Found {
    /// Everything.
    Right,
    /// Everything, by way of the older image.
    Older,
    /// Less, and it was claimed what was lost.
    Lost,
    /// An error with a name.
    Refused(StorageError),
}

#[test]
fn a_damaged_newest_image_is_replaced_by_the_older_one_and_the_log() {
    let sample = sample();
    let name = snapshot::name(sample.newest().last);
    let (mut right, mut older) = (0, 0);
    let bits = sample.image[&name].len() * 8;
    for bit in (0..bits).step_by(433).chain(0..1000) {
        let image = sample.changed(&name, |data| data[bit / 8] ^= 1 << (bit % 8));
        match sample.open(&image, &bit) {
            Found::Right => right += 1,
            Found::Older => older += 1,
            found => panic!("bit {bit}: {found:?}"),
        }
    }
    println!("{right} right, {older} older");
    assert!(older > 1500 && right < older / 50);
}

#[test]
fn a_damaged_image_goes_when_the_next_one_is_there() {
    let sample = sample();
    let name = snapshot::name(sample.newest().last);
    let sim = Sim::boot(&sample.changed(&name, |data| data[PAGE] ^= 1));
    let (mut directory, opened) = open(&sim).unwrap();
    assert_eq!(opened.restored.snapshot, Some(sample.older.clone()));
    assert_eq!(directory.oldest_snapshot(), sample.older.last.index);
    save(&mut directory, 33, 10);
    let newest = save(&mut directory, 36, 10);
    directory.trim(at(33)).unwrap();
    drop(directory);
    let image = sim.now().lose_power(Loss::All);
    assert!(!image.contains_key(&name));
    let (_, opened) = open(&Sim::boot(&image)).unwrap();
    assert_eq!(opened.restored.snapshot, Some(newest));
}

/// Of two images that are there the log holds the end of the newer one only, and that one is
/// damaged. What an image says was committed, and what contradicts it was not; the rest is claimed.
#[test]
fn of_a_log_and_an_older_image_that_contradict_each_other_the_image_counts() {
    let (sim, mut directory) = made();
    let before = sim.now().lose_power(Loss::All);
    write(&mut directory, 1, 12);
    let newest = save(&mut directory, 9, 10);
    drop(directory);
    // So that no file of the other life is newer than META.
    open(&sim).unwrap();
    let mut image = sim.now().lose_power(Loss::All);

    let sim = Sim::boot(&before);
    let (mut directory, _) = open(&sim).unwrap();
    write(&mut directory, 1, 3);
    let mut other = draft(4);
    other.last.term = 3;
    directory.write_snapshot(other).unwrap().finish().unwrap();
    let name = snapshot::name(Position { index: 4, term: 3 });
    image.insert(name.clone(), sim.now().lose_power(Loss::All)[&name].clone());
    open(&Sim::boot(&image)).unwrap();

    let damaged = snapshot::name(newest.last);
    Arc::make_mut(image.get_mut(&damaged).unwrap())[PAGE] ^= 1;
    let sim = Sim::boot(&image);
    for again in [false, true] {
        let (_, opened) = open(&sim).unwrap();
        let lost = opened.lost.map(|lost| lost.what);
        assert_eq!(again, lost.is_none());
        assert!(lost.is_none_or(|what| what.contains(&damaged)));
        let restored = opened.restored;
        assert_eq!(
            restored.snapshot.map(|s| s.last),
            Some(Position { index: 4, term: 3 })
        );
        assert_eq!((restored.base.index, restored.entries), (4, Vec::new()));
        assert!(restored.hard.claim.unwrap().reaches(at(12)));
        assert!(restored.hard.commit <= 4);
    }
}

#[test]
fn every_length_and_every_lost_sector_of_an_image_is_noticed() {
    let sample = sample();
    let name = snapshot::name(sample.newest().last);
    let whole = sample.image[&name].len();
    for len in (0..whole).step_by(997).chain([whole - 1]) {
        let image = sample.changed(&name, |data| data.truncate(len));
        assert!(matches!(sample.open(&image, &len), Found::Older));
    }
    let image = sample.changed(&name, |data| data.push(0));
    assert!(matches!(sample.open(&image, &whole), Found::Older));
    for sector in 0..whole / SECTOR {
        let image = sample.changed(&name, |data| data[sector * SECTOR..][..SECTOR].fill(0));
        if image != sample.image {
            assert!(matches!(sample.open(&image, &sector), Found::Older));
        }
    }
}

#[test]
fn blocks_that_moved_are_noticed() {
    let sample = sample();
    let [newest, older] = [sample.newest(), &sample.older].map(|s| snapshot::name(s.last));
    let block = |image: &Image, name: &str| image[name][PAGE..PAGE + BLOCK].to_vec();
    let theirs = block(&sample.image, &older);
    let image = sample.changed(&newest, |data| {
        data[PAGE..PAGE + BLOCK].copy_from_slice(&theirs);
    });
    assert!(matches!(sample.open(&image, &"block"), Found::Older));
    let image = sample.changed(&newest, |data| {
        let len = data.len() - PAGE - BLOCK;
        data.copy_within(PAGE + BLOCK.., PAGE);
        data.copy_within(PAGE..PAGE + len, PAGE + BLOCK);
    });
    assert!(matches!(sample.open(&image, &"moved"), Found::Older));
    // Files under each other's names.
    let mut image = sample.image.clone();
    image.insert(newest.clone(), sample.image[&older].clone());
    assert!(matches!(sample.open(&image, &"exchanged"), Found::Older));
    image.insert(older, sample.image[&newest].clone());
    assert!(matches!(sample.open(&image, &"both"), Found::Lost));
}

/// Behind the back of a running process, when the checksum of the whole is not compared any more.
#[test]
fn blocks_that_move_later_are_noticed_when_they_are_read() {
    let (sim, mut directory) = made();
    write(&mut directory, 1, 9);
    let saved = [7, 9].map(|n| save(&mut directory, n, 2 * DATA as u64));
    let image = sim.now().lose_power(Loss::All);
    let [older, newest] = saved.each_ref().map(|s| &image[&snapshot::name(s.last)]);
    let first = PAGE..PAGE + BLOCK;
    let mut moved = newest.as_ref().clone();
    moved.copy_within(first.clone(), PAGE + BLOCK);
    let mut replaced = newest.as_ref().clone();
    replaced[first.clone()].copy_from_slice(&older[first]);
    for data in [moved, replaced] {
        let mut reader = directory.read_snapshot(&saved[1]).unwrap();
        sim.put(&snapshot::name(saved[1].last), Arc::new(data));
        let read = reader.read_at(DATA as u64 - 1, &mut [0; 2]);
        assert!(
            matches!(read, Err(StorageError::Corrupt { .. })),
            "{read:?}"
        );
    }
}

#[test]
fn a_damaged_older_image_does_not_matter_until_it_is_read() {
    let sample = sample();
    let name = snapshot::name(sample.older.last);
    let mut refused = 0;
    for bit in (0..sample.image[&name].len() * 8).step_by(433) {
        let image = sample.changed(&name, |data| data[bit / 8] ^= 1 << (bit % 8));
        assert!(matches!(sample.open(&image, &bit), Found::Right));
        let (mut directory, _) = open(&Sim::boot(&image)).unwrap();
        let reader = directory.read_snapshot(&sample.older);
        match reader.and_then(|mut reader| read_all(&mut *reader)) {
            Ok(read) => assert!(read == image_of(sample.older.last, sample.older.size)),
            Err(StorageError::Corrupt { .. } | StorageError::Missing { .. }) => refused += 1,
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
    assert!(refused > 1000);
}

#[test]
fn without_a_whole_image_the_log_behind_it_is_lost() {
    let sample = sample();
    let [newest, older] = [sample.newest(), &sample.older].map(|s| snapshot::name(s.last));
    assert!(matches!(
        sample.open(&sample.without(&[&newest]), &1),
        Found::Older
    ));
    assert!(matches!(
        sample.open(&sample.without(&[&older]), &2),
        Found::Right
    ));
    let none = sample.open(&sample.without(&[&newest, &older]), &3);
    assert!(matches!(none, Found::Lost), "{none:?}");
    let mut image = sample.without(&[&older]);
    for offset in [0, PAGE, PAGE + SECTOR, PAGE + BLOCK + SECTOR] {
        Arc::make_mut(image.get_mut(&newest).unwrap())[offset] ^= 1;
        let (_, opened) = open(&Sim::boot(&image)).unwrap();
        let lost = opened.lost.expect("a damaged image is missed");
        assert!(lost.what.contains(&newest), "{lost:?}");
        assert!(matches!(sample.open(&image, &4), Found::Lost));
    }
}

#[test]
fn an_untrimmed_log_needs_no_image() {
    let (sim, mut directory) = made();
    write(&mut directory, 1, 20);
    let older = save(&mut directory, 8, 100);
    drop(directory);
    let sample = Sample::of(&sim, older.clone());
    let image = sample.changed(&snapshot::name(older.last), |data| data[PAGE] ^= 1);
    for image in [image, sample.without(&[&snapshot::name(older.last)])] {
        let (_, opened) = open(&Sim::boot(&image)).unwrap();
        let expected = Restored {
            snapshot: None,
            ..sample.whole.clone()
        };
        assert_eq!(opened.restored, expected);
    }
}

/// The log was dropped for an image, or is about to be: without it there is nothing.
#[test]
fn a_damaged_image_that_was_received_is_not_made_up_for_by_an_older_log() {
    for reset in [false, true] {
        let (sim, mut directory) = made();
        write(&mut directory, 1, 20);
        let older = save(&mut directory, 8, 100);
        let newest = receive(&mut directory, 50, 100_000, 100_000);
        directory.adopt(&newest).unwrap();
        if reset {
            submit(&mut directory, 51, Some(newest.clone()));
            write(&mut directory, 51, 53);
        }
        drop(directory);
        let sample = Sample::of(&sim, older);
        let name = snapshot::name(newest.last);
        for bit in (0..sample.image[&name].len() * 8).step_by(4001) {
            let image = sample.changed(&name, |data| data[bit / 8] ^= 1 << (bit % 8));
            match sample.open(&image, &bit) {
                Found::Right | Found::Lost => {}
                found => panic!("bit {bit}: {found:?}"),
            }
        }
        if reset {
            let missing = sample.open(&sample.without(&[&name]), &name);
            assert!(matches!(missing, Found::Lost), "{missing:?}");
        }
    }
}

#[test]
fn a_part_of_an_image_is_what_was_sent_or_is_sent_again() {
    let sample = sample();
    let name = receive::NAME;
    let (offered, bytes) = offer(90, 150_000);
    let mut lengths = std::collections::BTreeSet::new();
    for bit in (0..sample.image[name].len() * 8)
        .step_by(1709)
        .chain(0..300)
    {
        let image = sample.changed(name, |data| data[bit / 8] ^= 1 << (bit % 8));
        let sim = Sim::boot(&image);
        let (mut directory, opened) = open(&sim).unwrap();
        let stored = opened.restored.partial.map_or(0, |(_, stored)| stored);
        assert!(stored <= 100_000);
        lengths.insert(stored);
        let rest = &bytes[stored as usize..];
        directory.store_piece(&offered, stored, rest).unwrap();
        let mut reader = directory.read_snapshot(&offered).unwrap();
        assert!(read_all(&mut *reader).unwrap() == bytes, "bit {bit}");
        directory.adopt(&offered).unwrap();
        drop(directory);
        let (_, opened) = open(&Sim::boot(&sim.now().lose_power(Loss::All))).unwrap();
        assert_eq!(opened.restored.snapshot, Some(offered.clone()));
    }
    println!("{lengths:?}");
    assert!(lengths.len() > 2, "{lengths:?}");
}

#[test]
fn a_log_that_was_trimmed_is_checked_like_any_other() {
    let sample = sample();
    assert!(sample.whole.base.index > 0);
    let names = sample.segments();
    let (mut right, mut lost) = (0, 0);
    for name in &names {
        let found = sample.open(&sample.without(&[name]), name);
        // Without the first one META might be older than the trimming.
        let first = *name == names[0];
        assert!(matches!(found, Found::Refused(_)) == first, "{found:?}");
        for bit in (0..sample.image[*name].len() * 8).step_by(61) {
            let image = sample.changed(name, |data| data[bit / 8] ^= 1 << (bit % 8));
            match sample.open(&image, &(name, bit)) {
                Found::Right => right += 1,
                Found::Lost => lost += 1,
                found => panic!("{name}: bit {bit}: {found:?}"),
            }
        }
    }
    println!("{right} right, {lost} lost");
    assert!(right > 100 && lost > 100);
}

#[test]
fn segments_that_were_trimmed_are_neither_read_nor_missed() {
    let (sim, mut directory) = made();
    write(&mut directory, 1, 30);
    let older = save(&mut directory, 12, 100);
    let before = sim.now().lose_power(Loss::All);
    directory.trim(at(12)).unwrap();
    drop(directory);
    let mut sample = Sample::of(&sim, older);
    let old: Vec<&String> = before
        .keys()
        .filter(|name| !sample.image.contains_key(*name))
        .collect();
    assert!(!old.is_empty());
    for name in old {
        let mut image = sample.image.clone();
        image.insert(name.clone(), Arc::new(vec![1; 99]));
        let sim = Sim::boot(&image);
        let (_, opened) = open(&sim).unwrap();
        assert_eq!(opened.restored, sample.whole);
        assert!(!sim.now().lose_power(Loss::Nothing).contains_key(name));
    }
    // META as it was before knows of segments that are not there.
    let meta = before[meta::NAME].clone();
    sample.image.insert(meta::NAME.to_owned(), meta);
    let found = sample.open(&sample.image, &"an older META");
    assert!(matches!(
        found,
        Found::Refused(StorageError::Corrupt { .. })
    ));
}

#[test]
fn a_reset_is_checked_like_any_other_group() {
    let (sim, mut directory) = made();
    write(&mut directory, 1, 9);
    let older = save(&mut directory, 8, 100);
    let newest = receive(&mut directory, 50, 10, 10);
    directory.adopt(&newest).unwrap();
    submit(&mut directory, 51, Some(newest));
    write(&mut directory, 51, 53);
    drop(directory);
    let sample = Sample::of(&sim, older);
    assert_eq!(sample.whole.base, at(50));
    for name in sample.segments() {
        for bit in (0..sample.image[name].len() * 8).step_by(41) {
            let image = sample.changed(name, |data| data[bit / 8] ^= 1 << (bit % 8));
            match sample.open(&image, &(name, bit)) {
                Found::Right | Found::Lost => {}
                found => panic!("{name}: bit {bit}: {found:?}"),
            }
        }
    }
}

#[test]
fn images_of_others_and_of_newer_versions_are_refused() {
    let sample = sample();
    let name = snapshot::name(sample.newest().last);
    let others = [
        (identity(), INSTANCE + 1),
        (
            Identity {
                cluster: 43,
                ..identity()
            },
            INSTANCE,
        ),
    ];
    for (other, instance) in others {
        let sim = Sim::default();
        Directory::create_on(&mut sim.clone(), &other, instance).unwrap();
        let opened = Directory::open_on(Box::new(sim.clone()), &other, super::OPTIONS);
        let mut directory = opened.unwrap().0;
        write(&mut directory, 1, 25);
        save(&mut directory, 25, 100_000);
        let mut image = sample.image.clone();
        image.insert(name.clone(), sim.now().lose_power(Loss::All)[&name].clone());
        match sample.open(&image, &other) {
            Found::Refused(StorageError::Foreign { found, .. }) => assert_eq!(found, other),
            Found::Refused(StorageError::Corrupt { what, .. }) => {
                assert_eq!(what, "file of an earlier node of this id");
            }
            found => panic!("{found:?}"),
        }
    }
    // Major version 2, checksum made right again.
    let image = sample.changed(&name, |data| {
        data[12] = 2;
        let crc = crc32fast::hash(&data[12..PAGE]);
        data[8..12].copy_from_slice(&crc.to_le_bytes());
    });
    let found = sample.open(&image, &"newer");
    assert!(matches!(
        found,
        Found::Refused(StorageError::Version { .. })
    ));
}

#[test]
fn an_older_meta_than_an_image_is_refused() {
    let (sim, mut directory) = made();
    write(&mut directory, 1, 5);
    let before = sim.now().lose_power(Loss::All)[meta::NAME].clone();
    // The image is of a term that META hears of by it alone.
    let newest = receive(&mut directory, 50, 10, 10);
    directory.adopt(&newest).unwrap();
    expect_stale(&sim, before);
    // An image of this node's own was begun after a vote that META has forgotten.
    let (sim, mut directory) = made();
    write(&mut directory, 1, 5);
    let before = sim.now().lose_power(Loss::All)[meta::NAME].clone();
    directory.submit(Persist {
        token: Token(6),
        hard: Some(HardState {
            term: 6,
            vote: NodeId::new(2),
            ..HardState::default()
        }),
        reset: None,
        entries: Vec::new(),
    });
    save(&mut directory, 5, 10);
    expect_stale(&sim, before);
}

fn expect_stale(sim: &Sim, meta: Arc<Vec<u8>>) {
    let mut image = sim.now().lose_power(Loss::All);
    image.insert(meta::NAME.to_owned(), meta);
    match open(&Sim::boot(&image)) {
        Err(StorageError::Corrupt { what, .. }) => assert_eq!(what, "META is older than the log"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a term was forgotten"),
    }
}
