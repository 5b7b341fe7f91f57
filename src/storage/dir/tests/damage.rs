//! Rot: files that do not hold what was written. The outcome is right data; or what is whole before
//! the damage, with a claim that covers all that was ever acknowledged; or, where META is at stake, a
//! named error. Only a hole in the very last group may pass for a torn write, and is counted.

use std::sync::Arc;

use super::super::checkpoint::is_checkpoint;
use super::super::page::{PAGE, SECTOR};
use super::super::segment::is_segment;
use super::super::vfs::Vfs;
use super::super::{Directory, Options, meta};
use super::model::{self, Model, check_lost};
use super::sim::{Image, Loss, Sim};
use super::workload::{Mix, Outcome, run};
use super::{INSTANCE, OPTIONS, identity, seed};
use crate::core::{Entry, HardState, NodeId, Payload, Persist, Restored, Token};
use crate::storage::{Identity, Opened, Storage, StorageError};

/// A directory of several segments, the last one large enough for both groups that were written
/// after the last opening, and what it holds; without the last group, and with it.
struct Sample {
    image: Image,
    before: Restored,
    whole: Restored,
    /// All that the log ever was.
    past: Vec<Vec<Entry>>,
}

/// Bytes of the last group.
const LAST: usize = 4 * PAGE;

fn sample(seed: u64) -> Sample {
    let sim = Sim::default();
    let outcome = run(&sim, seed, 30, Mix::Log);
    assert!(outcome.error.is_none());
    let mut before = restored(&outcome.live);
    let options = Options {
        segment_bytes: 64 * 1024,
        ..Options::default()
    };
    let (mut directory, _) =
        Directory::open_on(Box::new(sim.clone()), &identity(), options).unwrap();
    let first = next(&before, 100);
    before.entries.push(first.clone());
    write(&mut directory, None, vec![first]);
    let mut whole = before.clone();
    let last = next(&before, LAST - PAGE);
    whole.entries.push(last.clone());
    write(&mut directory, None, vec![last]);
    let image = sim.now().lose_power(Loss::All);
    assert!(image.len() >= 4, "too few segments: {:?}", image.keys());
    let mut past = past(&outcome);
    past.extend([&before, &whole].map(|restored| restored.entries.clone()));
    Sample {
        image,
        before,
        whole,
        past,
    }
}

/// All that the log was in the course of a workload.
fn past(outcome: &Outcome) -> Vec<Vec<Entry>> {
    let states = outcome.progress.iter().flat_map(|p| &p.states);
    states.map(|state| state.log.clone()).collect()
}

/// What is found of a log that was never trimmed.
fn restored(model: &Model) -> Restored {
    Restored {
        hard: model.hard,
        entries: model.log.clone(),
        ..Restored::default()
    }
}

/// An entry that continues the log.
fn next(restored: &Restored, len: usize) -> Entry {
    Entry {
        index: restored.entries.len() as u64 + 1,
        term: restored.hard.term.max(1),
        payload: Payload::Host(vec![5; len].into()),
    }
}

fn open(sim: &Sim) -> Result<(Directory, Opened), StorageError> {
    model::open(sim)
}

fn write(directory: &mut Directory, hard: Option<HardState>, entries: Vec<Entry>) {
    directory.submit(Persist {
        token: Token(1),
        hard,
        reset: None,
        entries,
    });
    directory.poll().unwrap().result.unwrap();
}

/// What came of opening a damaged directory.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Everything.
    Right,
    /// Everything but the last group, and it was said.
    Cut,
    /// What comes before the damage, and it was claimed what was lost.
    Lost,
    /// An error with a name.
    Refused,
}

impl Sample {
    fn open(&self, image: &Image, what: &dyn std::fmt::Debug) -> Found {
        let sim = Sim::boot(image);
        match open(&sim) {
            Ok((directory, opened)) if opened.lost.is_some() => {
                drop(directory);
                println!("{what:?}: {:?}", opened.lost);
                check_lost(&sim, &opened, &self.whole, &self.past);
                Found::Lost
            }
            Ok((_, opened)) if opened.restored == self.whole => Found::Right,
            Ok((_, opened)) if opened.restored == self.before && opened.torn_bytes > 0 => {
                Found::Cut
            }
            Ok(_) => panic!("{what:?}: wrong data"),
            Err(StorageError::Io { .. }) => panic!("{what:?}: not a matter of input and output"),
            Err(error) => {
                println!("{what:?}: {error}");
                Found::Refused
            }
        }
    }

    fn changed(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Image {
        let mut image = self.image.clone();
        if let Some(data) = image.get_mut(name) {
            change(Arc::make_mut(data));
        }
        image
    }

    fn segments(&self) -> Vec<&String> {
        self.image.keys().filter(|n| is_segment(n)).collect()
    }
}

#[test]
fn a_flipped_bit_in_the_log_is_never_taken_for_data_nor_for_a_torn_write() {
    let sample = sample(seed(4));
    let (mut right, mut lost) = (0, 0);
    for name in sample.segments() {
        let bits = sample.image[name].len() * 8;
        for bit in (0..bits).step_by(61) {
            let image = sample.changed(name, |data| data[bit / 8] ^= 1 << (bit % 8));
            match sample.open(&image, &(name, bit)) {
                Found::Right => right += 1,
                Found::Lost => lost += 1,
                Found::Refused => panic!("{name}: bit {bit}: refused"),
                Found::Cut => panic!("{name}: bit {bit}: taken for a torn write"),
            }
        }
    }
    println!("{right} right, {lost} lost");
    assert!(right > 100 && lost > 1000);
}

#[test]
fn a_flipped_bit_in_meta_never_matters() {
    let sample = sample(seed(5));
    let len = sample.image[meta::NAME].len();
    let slots = (0..PAGE * 8).chain(len / 2 * 8..(len / 2 + PAGE) * 8);
    for bit in slots.step_by(13) {
        let image = sample.changed(meta::NAME, |data| data[bit / 8] ^= 1 << (bit % 8));
        let (_, opened) = open(&Sim::boot(&image)).unwrap();
        assert_eq!(opened.restored, sample.whole, "bit {bit}");
        assert!(opened.meta_repaired, "bit {bit}");
    }
}

#[test]
fn both_slots_damaged_is_never_a_new_node() {
    let sample = sample(seed(6));
    for byte in (0..PAGE).step_by(5) {
        let image = sample.changed(meta::NAME, |data| {
            let second = data.len() / 2;
            data[byte] ^= 0x10;
            data[second + PAGE - 1 - byte] ^= 1;
        });
        assert_eq!(sample.open(&image, &byte), Found::Refused);
    }
}

#[test]
fn a_missing_sector_is_damage_unless_it_may_be_torn() {
    let sample = sample(seed(7));
    let mut cut = 0;
    for name in sample.segments() {
        let sectors = sample.image[name].len() / SECTOR;
        for sector in 0..sectors {
            let image = sample.changed(name, |data| {
                data[sector * SECTOR..][..SECTOR].fill(0);
            });
            match sample.open(&image, &(name, sector)) {
                Found::Cut => {
                    assert_eq!(Some(&name), sample.segments().last());
                    cut += 1;
                }
                Found::Right | Found::Lost => {}
                Found::Refused => panic!("{name}: sector {sector}: refused"),
            }
        }
    }
    assert_eq!(
        cut,
        LAST / SECTOR,
        "the last group, all of it, and nothing else"
    );
}

#[test]
fn what_an_opening_found_can_no_longer_be_torn() {
    let sample = sample(seed(12));
    let sim = Sim::boot(&sample.image);
    open(&sim).unwrap();
    let reopened = Sample {
        image: sim.now().lose_power(Loss::All),
        ..sample
    };
    let name = reopened.segments()[reopened.segments().len() - 1];
    let written = |data: &[u8]| data.chunks(SECTOR).rposition(|s| s.iter().any(|b| *b != 0));
    let end = written(&reopened.image[name]).unwrap() + 1;
    for from in PAGE / SECTOR..end {
        let image = reopened.changed(name, |data| data[from * SECTOR..].fill(0));
        assert_eq!(reopened.open(&image, &from), Found::Lost);
    }
}

#[test]
fn after_an_orderly_close_nothing_can_be_torn() {
    let sample = sample(seed(14));
    let sim = Sim::boot(&sample.image);
    let (mut directory, _) = open(&sim).unwrap();
    let mut whole = sample.whole.clone();
    let last = next(&whole, 100);
    whole.entries.push(last.clone());
    write(&mut directory, None, vec![last]);
    let crashed = sim.now().lose_power(Loss::All);
    drop(directory);
    let closed = sim.now().lose_power(Loss::All);
    let name = crashed.keys().rfind(|name| name.ends_with(".seg")).unwrap();
    let page = crashed[name]
        .rchunks(PAGE)
        .position(|page| page.iter().any(|b| *b != 0));
    let from = crashed[name].len() - (page.unwrap() + 1) * PAGE;
    let mut past = sample.past.clone();
    past.push(whole.entries.clone());
    for (image, found) in [(crashed.clone(), Found::Cut), (closed, Found::Lost)] {
        for sectors in 1..=PAGE / SECTOR {
            let mut image = image.clone();
            let data = Arc::make_mut(image.get_mut(name).unwrap());
            data[from..][..sectors * SECTOR].fill(0);
            let sample = Sample {
                image: image.clone(),
                before: sample.whole.clone(),
                whole: whole.clone(),
                past: past.clone(),
            };
            match sectors {
                // Nothing of it is left: of a crash nobody would know that there was any.
                8 if found == Found::Cut => continue,
                _ => assert_eq!(sample.open(&image, &sectors), found, "{sectors} sectors"),
            }
        }
    }
}

#[test]
fn a_segment_that_was_continued_is_whole_even_if_meta_does_not_know_yet() {
    let sim = Sim::default();
    sim.keep_history();
    let outcome = run(&sim, seed(13), 30, Mix::Log);
    let mut tried = 0;
    for (moment, mark) in sim.history() {
        let image = moment.lose_power(Loss::All);
        let ours = |name: &&String| *name != meta::NAME && !is_checkpoint(name);
        let names: Vec<String> = image.keys().filter(ours).cloned().collect();
        let finished = names.iter().filter(|n| n.ends_with(".seg")).count();
        let known = meta::load(&Sim::boot(&image)).map_or(u64::MAX, |(meta, _)| meta.head_seq);
        if names.len() != finished || finished < 2 || finished as u64 <= known {
            continue;
        }
        let mut acknowledged = restored(&outcome.progress[mark].states[0]);
        // It may be on its way to the next state.
        acknowledged.hard = meta::load(&Sim::boot(&image)).unwrap().0.hard;
        let sample = Sample {
            image,
            before: Restored::default(),
            whole: acknowledged,
            past: past(&outcome),
        };
        let name = &names[finished - 2];
        for sector in PAGE / SECTOR..sample.image[name].len() / SECTOR {
            let blank = sample.changed(name, |data| data[sector * SECTOR..].fill(0));
            if blank != sample.image {
                assert_eq!(sample.open(&blank, &sector), Found::Lost);
                tried += 1;
            }
        }
    }
    assert!(tried > 0);
}

#[test]
fn the_newest_segment_is_missed_when_it_is_gone() {
    let mut sample = sample(seed(16));
    let sim = Sim::boot(&sample.image);
    let (mut directory, opened) = open(&sim).unwrap();
    let mut restored = opened.restored;
    let before = sim.list().unwrap();
    let newest = loop {
        let entry = next(&restored, 2 * PAGE);
        restored.entries.push(entry.clone());
        sample.past.push(restored.entries.clone());
        write(&mut directory, None, vec![entry]);
        let new = sim
            .list()
            .unwrap()
            .into_iter()
            .find(|n| is_segment(n) && !before.contains(n));
        if let Some(new) = new {
            break new;
        }
    };
    let mut image = sim.now().lose_power(Loss::All);
    image.remove(&newest);
    let sim = Sim::boot(&image);
    let (directory, opened) = open(&sim).unwrap();
    drop(directory);
    check_lost(&sim, &opened, &restored, &sample.past);
    let lost = opened.lost.unwrap();
    assert!(lost.what.contains("the newest segment is missing"));
    assert_eq!(lost.claim.index, u64::MAX / 2, "nobody knows how many");
}

#[test]
fn a_group_of_another_copy_does_not_fit_in() {
    let sample = sample(seed(14));
    let grow = |lens: [usize; 2]| {
        let sim = Sim::boot(&sample.image);
        let (mut directory, opened) = open(&sim).unwrap();
        let mut restored = opened.restored;
        let mut past = vec![];
        for len in lens {
            let entry = next(&restored, len);
            restored.entries.push(entry.clone());
            past.push(restored.entries.clone());
            write(&mut directory, None, vec![entry]);
        }
        let image = sim.now().lose_power(Loss::All);
        Sample {
            before: Restored::default(),
            whole: restored,
            past,
            image,
        }
    };
    let (mut ours, theirs) = (grow([10, 10]), grow([20, 10]));
    // Only the group behind it tells that the first one is another's.
    ours.past.extend(sample.past.iter().cloned());
    let name = ours.segments()[ours.segments().len() - 1];
    let differs = |page: &usize| {
        let range = page * PAGE..(page + 1) * PAGE;
        ours.image[name][range.clone()] != theirs.image[name][range]
    };
    let pages: Vec<usize> = (0..ours.image[name].len() / PAGE).filter(differs).collect();
    assert_eq!(pages.len(), 2, "the salts are the same, both groups differ");
    let image = ours.changed(name, |data| {
        let range = pages[0] * PAGE..(pages[0] + 1) * PAGE;
        data[range.clone()].copy_from_slice(&theirs.image[name][range]);
    });
    assert_eq!(ours.open(&image, &pages), Found::Lost);
}

#[test]
fn pages_that_moved_are_noticed() {
    let sample = sample(seed(8));
    for name in sample.segments() {
        let pages = sample.image[name].len() / PAGE;
        for (from, to) in (0..pages).flat_map(|a| (0..pages).map(move |b| (a, b))) {
            if from == to {
                continue;
            }
            let swapped = sample.changed(name, |data| {
                let page = data[from * PAGE..][..PAGE].to_vec();
                data.copy_within(to * PAGE..(to + 1) * PAGE, from * PAGE);
                data[to * PAGE..][..PAGE].copy_from_slice(&page);
            });
            sample.open(&swapped, &(name, from, to));
            let copied = sample.changed(name, |data| {
                data.copy_within(from * PAGE..(from + 1) * PAGE, to * PAGE);
            });
            sample.open(&copied, &(name, from, to));
        }
    }
}

#[test]
fn files_cut_short_or_missing_or_exchanged_are_noticed() {
    let sample = sample(seed(9));
    let segments = sample.segments();
    for name in &segments {
        let whole = sample.image[*name].len();
        for len in (0..whole).step_by(499) {
            let image = sample.changed(name, |data| data.truncate(len));
            match sample.open(&image, &(name, len)) {
                Found::Lost => {}
                // What was never written is not missed where the log goes on elsewhere.
                Found::Right if Some(name) != segments.last() => {}
                found => panic!("{name} cut to {len}: {found:?}"),
            }
        }
        let image = sample.changed(name, |data| data.push(0));
        assert_eq!(sample.open(&image, &name), Found::Right);
        for other in segments.iter().filter(|o| *o != name) {
            let mut image = sample.image.clone();
            image.insert(name.to_string(), image[*other].clone());
            assert_eq!(sample.open(&image, &(name, other)), Found::Lost);
        }
    }
    for name in sample.image.keys().filter(|name| !is_checkpoint(name)) {
        let mut image = sample.image.clone();
        image.remove(name);
        // Without the first one nobody knows who the members are.
        let refused = name == meta::NAME || name == segments[0];
        let expected = if refused { Found::Refused } else { Found::Lost };
        assert_eq!(sample.open(&image, name), expected);
    }
}

fn expect_stale(image: &Image) {
    match open(&Sim::boot(image)) {
        Err(StorageError::Corrupt { what, .. }) => assert_eq!(what, "META is older than the log"),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("a vote was forgotten"),
    }
}

#[test]
fn an_older_meta_is_refused() {
    let sim = Sim::boot(&sample(seed(10)).image);
    let (mut directory, opened) = open(&sim).unwrap();
    let hard = opened.restored.hard;
    let newer = HardState {
        term: hard.term + 1,
        ..HardState::default()
    };
    let voted = HardState {
        vote: NodeId::new(2),
        ..newer
    };
    let mut restored = opened.restored;
    // A newer term, then a vote in the same one: META goes back over each alone.
    for hard in [newer, voted] {
        let old = sim.now().lose_power(Loss::All)[meta::NAME].clone();
        restored.hard = hard;
        let entry = next(&restored, 10);
        restored.entries.push(entry.clone());
        write(&mut directory, Some(hard), vec![entry]);
        let mut image = sim.now().lose_power(Loss::All);
        image.insert(meta::NAME.to_owned(), old);
        expect_stale(&image);
    }
}

#[test]
fn a_meta_that_knows_less_than_the_log_is_refused_however_new_it_says_it_is() {
    let sample = sample(seed(15));
    let sim = Sim::boot(&sample.image);
    let (mut meta, _) = meta::load(&sim).unwrap();
    meta.generation += 10;
    meta.hard.term -= 1;
    meta::update(&*sim.open(meta::NAME).unwrap(), &meta).unwrap();
    expect_stale(&sim.now().lose_power(Loss::All));
}

#[test]
fn segments_of_others_are_refused() {
    let sample = sample(seed(11));
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
        Directory::open_on(Box::new(sim.clone()), &other, OPTIONS).unwrap();
        let theirs = sim.now().lose_power(Loss::All);
        let name = sample.segments()[0];
        let mut image = sample.image.clone();
        image.insert(name.clone(), theirs[name].clone());
        match open(&Sim::boot(&image)) {
            Err(StorageError::Foreign { found, .. }) => assert_eq!(found, other),
            Err(StorageError::Corrupt { what, .. }) => {
                assert_eq!(what, "file of an earlier node of this id");
            }
            _ => panic!("opened with a segment of {other:?}"),
        }
    }
}
