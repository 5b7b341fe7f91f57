//! Checkpoints: an opening that passes over segments by them finds what one finds that reads them, they
//! are never needed, and what is damaged behind them is seen when it is read, and by the next opening.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::check::CheckThread;
use super::super::checkpoint::{Checkpoint, is_checkpoint, name_of};
use super::super::page::PAGE;
use super::super::segment::{Header, is_segment};
use super::super::vfs::Vfs;
use super::super::{Directory, Options};
use super::disk::nth;
use super::images::{image, save};
use super::model::{open, open_once};
use super::rot::{made, submit};
use super::sim::{Image, Loss, Sim};
use super::workload::{Mix, run};
use super::{OPTIONS, identity, seed};
use crate::core::Position;
use crate::storage::{Opened, Storage, StorageError};

const PATIENCE: Duration = Duration::from_secs(60);

fn durable(sim: &Sim) -> Image {
    sim.now().lose_power(Loss::All)
}

/// A log of several segments, each but the last with its checkpoint.
pub(super) fn sample() -> Image {
    let (sim, mut directory) = made();
    (1..=40).for_each(|n| submit(&mut directory, n, None));
    drop(directory);
    // A name is durable with the next thing that is.
    open(&sim).unwrap();
    let image = durable(&sim);
    let count = |kind: fn(&str) -> bool| image.keys().filter(|name| kind(name)).count();
    assert_eq!(count(is_segment), 1 + count(is_checkpoint));
    assert!(count(is_checkpoint) >= 3);
    image
}

pub(super) fn names(image: &Image, kind: fn(&str) -> bool) -> Vec<String> {
    let names = image.keys().filter(|name| kind(name));
    names.cloned().collect()
}

fn without_checkpoints(image: &Image) -> Image {
    let mut image = image.clone();
    image.retain(|name, _| !is_checkpoint(name));
    image
}

fn flip(image: &mut Image, name: &str, bit: usize) {
    Arc::make_mut(image.get_mut(name).unwrap())[bit / 8] ^= 1 << (bit % 8);
}

/// Opens it with so many bytes of the last entries, and starts its threads.
fn threaded(sim: &Sim, tail_bytes: usize) -> Directory {
    let options = Options {
        tail_bytes,
        ..OPTIONS
    };
    let opened = Directory::open_on(Box::new(sim.clone()), &identity(), options);
    let mut directory = opened.unwrap().0;
    directory.spawn_writer(Arc::new(|| {})).unwrap();
    directory
}

fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "nothing came of it");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_passed_over_comes_to_the_same() {
    let (seed, mut passed) = (seed(81), 0);
    for n in 0..60 {
        let sim = Sim::default();
        let outcome = run(&sim, seed + n, 60, Mix::All);
        assert!(outcome.error.is_none());
        let image = durable(&sim);
        passed += names(&image, is_checkpoint).len();
        let found = [image.clone(), without_checkpoints(&image)].map(|image| {
            let sim = Sim::boot(&image);
            let (directory, opened) = open_once(&sim).unwrap().unwrap();
            let layout = directory.known().layout.clone();
            (opened.restored, layout)
        });
        assert_eq!(found[0], found[1], "seed {}", seed + n);
    }
    assert!(passed > 60, "{passed}");
}

/// Whoever writes a segment knows of it what reading it finds.
#[test]
fn what_was_written_is_what_is_read() {
    let (seed, mut compared) = (seed(82), 0);
    for n in 0..60 {
        let sim = Sim::default();
        run(&sim, seed + n, 60, Mix::All);
        let segments = names(&durable(&sim), is_segment);
        let headers = segments.iter().map(|name| {
            let page = sim.read(name, PAGE as u64).unwrap();
            Header::decode(&page).unwrap()
        });
        let headers: Vec<Header> = headers.collect();
        for (header, next) in headers.iter().zip(headers.iter().skip(1)) {
            let end = next.start();
            let Some(written) = Checkpoint::read(&sim, header, &end) else {
                continue;
            };
            let read = Checkpoint::of_segment(&sim, header, &end, &|_| true);
            assert_eq!(Some(written), read.unwrap(), "seed {}", seed + n);
            compared += 1;
        }
    }
    assert!(compared > 60, "{compared}");
}

#[test]
fn a_start_does_not_read_what_a_checkpoint_tells_of() {
    let image = sample();
    let segments = names(&image, is_segment);
    for name in segments.iter().take(segments.len() - 2) {
        let mut image = image.clone();
        flip(&mut image, name, (PAGE + 700) * 8);
        let sim = Sim::boot(&image);
        match open_once(&sim).unwrap() {
            Err(StorageError::Corrupt { path, index, .. }) => {
                assert!(path.ends_with(name) && index > 0, "{path:?}, {index}");
            }
            other => panic!("{name}: not seen: {:?}", other.map(|(_, opened)| opened)),
        }
        let left = durable(&sim);
        assert!(!left.contains_key(&name_of(name)));
        let opened = open_once(&sim).unwrap().unwrap().1;
        assert!(opened.lost.unwrap().what.contains(name));
    }
    // With room for all of it everything is read.
    let mut image = image;
    flip(&mut image, &segments[0], (PAGE + 700) * 8);
    let opened = Directory::open_on(Box::new(Sim::boot(&image)), &identity(), OPTIONS);
    assert!(opened.unwrap().1.lost.is_some());
}

fn is_right(opened: &Opened, whole: &Opened) {
    assert_eq!((&opened.restored, &opened.lost), (&whole.restored, &None));
    assert!(opened.damaged.is_empty(), "{:?}", opened.damaged);
}

#[test]
fn a_damaged_checkpoint_is_no_damage() {
    let image = sample();
    let whole = open(&Sim::boot(&image)).unwrap().1;
    let checkpoints = names(&image, is_checkpoint);
    for (nth, name) in checkpoints.iter().enumerate() {
        for bit in (0..image[name].len() * 8).step_by(7) {
            let mut image = image.clone();
            flip(&mut image, name, bit);
            is_right(&open_once(&Sim::boot(&image)).unwrap().unwrap().1, &whole);
        }
        for len in (0..image[name].len()).step_by(3) {
            let mut image = image.clone();
            Arc::make_mut(image.get_mut(name).unwrap()).truncate(len);
            is_right(&open_once(&Sim::boot(&image)).unwrap().unwrap().1, &whole);
        }
        // Another one's.
        let mut image = image.clone();
        let other = image[&checkpoints[(nth + 1) % checkpoints.len()]].clone();
        image.insert(name.clone(), other);
        is_right(&open_once(&Sim::boot(&image)).unwrap().unwrap().1, &whole);
    }
    is_right(
        &open(&Sim::boot(&without_checkpoints(&image))).unwrap().1,
        &whole,
    );
}

/// The segment has another file now, with the same entries.
#[test]
fn a_checkpoint_counts_for_one_file_only() {
    let image = sample();
    let segments = names(&image, is_segment);
    let (sim, mut directory) = made();
    (1..=40).for_each(|n| submit(&mut directory, n, None));
    drop(directory);
    // One more opening: the salts differ from then on.
    open(&sim).unwrap();
    let (mut directory, _) = open(&sim).unwrap();
    (41..=60).for_each(|n| submit(&mut directory, n, None));
    let last = name_of(segments.last().unwrap());
    let theirs = durable(&sim)[&last].clone();
    let mut ours = image.clone();
    ours.insert(last.clone(), theirs);
    let sim = Sim::boot(&ours);
    let (mut directory, opened) = open(&sim).unwrap();
    is_right(&opened, &open(&Sim::boot(&image)).unwrap().1);
    assert!(
        !sim.now().lose_power(Loss::Nothing).contains_key(&last),
        "no such segment is sealed"
    );
    (41..=60).for_each(|n| submit(&mut directory, n, None));
    drop(directory);
    let (_, opened) = open_once(&sim).unwrap().unwrap();
    assert_eq!(opened.restored.entries.len(), 60);
}

#[test]
fn a_checkpoint_goes_with_its_segment() {
    let (sim, mut directory) = made();
    (1..=40).for_each(|n| submit(&mut directory, n, None));
    save(&mut directory, 30, &image(3, 100));
    directory
        .trim(Position {
            index: 30,
            term: 30,
        })
        .unwrap();
    let image = durable(&sim);
    let stems = |kind| -> Vec<String> {
        let names = names(&image, kind).into_iter();
        names.map(|name| name[..41].to_owned()).collect()
    };
    let (segments, checkpoints) = (stems(is_segment), stems(is_checkpoint));
    assert!(checkpoints.iter().all(|stem| segments.contains(stem)));
    drop(directory);
    // Somebody who knows of none has trimmed the log.
    let mut image = durable(&sim);
    let orphan = format!("{}.ckpt", "0".repeat(20) + "-" + &"1".repeat(20));
    image.insert(orphan.clone(), Arc::new(vec![1; 100]));
    let sim = Sim::boot(&image);
    open(&sim).unwrap();
    assert!(!sim.now().lose_power(Loss::Nothing).contains_key(&orphan));
}

#[test]
fn a_thread_checks_what_was_passed_over_and_tells() {
    let image = sample();
    let segments = names(&image, is_segment);
    let mut changed = image.clone();
    flip(&mut changed, &segments[1], (PAGE + 700) * 8);
    let sim = Sim::boot(&changed);
    let mut directory = threaded(&sim, 0);
    let (index, error) = until(|| directory.damage());
    assert!(matches!(&error, StorageError::Corrupt { path, .. } if path.ends_with(&segments[1])));
    assert!(index > 1);
    drop(directory);
    assert!(!durable(&sim).contains_key(&name_of(&segments[1])));
    let (_, opened) = open_once(&sim).unwrap().unwrap();
    assert!(opened.lost.is_some());
}

#[test]
fn a_read_that_fails_is_told_and_is_no_damage() {
    let image = sample();
    let sim = Sim::boot(&image);
    let opened = Directory::open_on(Box::new(sim.clone()), &identity(), OPTIONS);
    let mut directory = opened.unwrap().0;
    // The thread is the only one who reads.
    sim.fail_read_after(Some(0));
    directory.spawn_writer(Arc::new(|| {})).unwrap();
    let (_, error) = until(|| directory.damage());
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
    drop(directory);
    for name in names(&image, is_checkpoint) {
        assert!(durable(&sim).contains_key(&name));
    }
}

#[test]
fn a_thread_writes_the_checkpoints_that_are_missing() {
    let image = sample();
    let sim = Sim::boot(&without_checkpoints(&image));
    let mut directory = threaded(&sim, 0);
    let wanted = names(&image, is_checkpoint);
    until(|| {
        let there = sim.now().lose_power(Loss::Nothing);
        wanted
            .iter()
            .all(|name| there.contains_key(name))
            .then_some(())
    });
    assert!(directory.damage().is_none());
    drop(directory);
    let left = sim.now().lose_power(Loss::Nothing);
    for name in wanted {
        assert_eq!(left[&name], image[&name], "the same again");
    }
}

/// What is behind it is right, and it says something else.
#[test]
fn a_checkpoint_that_is_wrong_does_not_last() {
    let image = sample();
    let segments = names(&image, is_segment);
    let name = name_of(&segments[1]);
    let whole = open(&Sim::boot(&image)).unwrap().1;
    let right = image[&name].clone();
    for at in 150..image[&name].len() {
        let mut image = image.clone();
        let data = Arc::make_mut(image.get_mut(&name).unwrap());
        data[at] ^= 1;
        let crc = crc32fast::hash(&data[12..]);
        data[8..12].copy_from_slice(&crc.to_le_bytes());
        let sim = Sim::boot(&image);
        // Whatever it makes of that: the thread compares, and the next opening has nothing to go by.
        let mut directory = threaded(&sim, 0);
        until(|| {
            let told = directory.damage().is_some();
            let now = sim.now().lose_power(Loss::Nothing).get(&name).cloned();
            (told || now.as_ref() == Some(&right)).then_some(())
        });
        drop(directory);
        is_right(&open_once(&sim).unwrap().unwrap().1, &whole);
    }
}

/// Whoever finds a segment damaged before its checkpoint is written is not contradicted by it.
#[test]
fn a_segment_that_was_found_damaged_gets_no_checkpoint_afterwards() {
    let sim = Sim::boot(&sample());
    let options = Options {
        tail_bytes: 0,
        ..OPTIONS
    };
    let open = || Directory::open_on(Box::new(sim.clone()), &identity(), options);
    let mut directory = open().unwrap().0;
    // The thread is kept at one segment, and at the next while what follows is looked at.
    sim.hold_reads(true);
    let checks = CheckThread::spawn(&directory.checks, Arc::new(|| {}));
    directory.check_thread = Some(checks.unwrap());
    until(|| (sim.held_reads() > 0).then_some(()));
    let before = directory.log().segment.header.seq;
    let mut last = 40;
    while directory.log().segment.header.seq < before + 3 {
        last += 1;
        submit(&mut directory, last, None);
    }
    let header = |seq| directory.known().layout.header(seq).clone();
    let (header, after) = (header(before + 1), header(before + 2));
    sim.hold_syncs(true);
    sim.hold_reads(false);
    let preparing = |name: &String| name.starts_with("prep-") && is_checkpoint(&name[5..]);
    until(|| sim.list().unwrap().iter().any(preparing).then_some(()));
    let mut data = sim.read(&header.name(), u64::MAX).unwrap();
    data[PAGE + 700] ^= 1;
    sim.put(&header.name(), Arc::new(data));
    let first = header.prev.index + 1;
    let found = directory.fetch(first, first, 1 << 20);
    assert!(
        matches!(found, Err(StorageError::Corrupt { .. })),
        "{found:?}"
    );
    sim.hold_syncs(false);
    let written = name_of(&after.name());
    until(|| sim.list().unwrap().contains(&written).then_some(()));
    drop(directory);
    assert!(!sim.list().unwrap().contains(&name_of(&header.name())));
    assert!(open().unwrap().1.lost.is_some());
}

/// What this run has written is read as well, once nobody writes much.
#[test]
fn damage_of_what_was_just_written_is_found_in_time() {
    let sim = Sim::boot(&sample());
    let mut directory = threaded(&sim, usize::MAX);
    let before = directory.log().segment.header.seq;
    for last in 41..80 {
        directory.submit(nth(last));
        directory.start();
        let done = until(|| directory.poll());
        done.result.unwrap();
    }
    assert!(directory.log().segment.header.seq > before + 2);
    let header = directory.known().layout.header(before + 1).clone();
    let mut data = sim.read(&header.name(), u64::MAX).unwrap();
    data[PAGE + 700] ^= 1;
    sim.put(&header.name(), Arc::new(data));
    let (index, error) = until(|| directory.damage());
    assert!(index > header.prev.index, "{error}");
    drop(directory);
    assert!(!sim.list().unwrap().contains(&name_of(&header.name())));
}
