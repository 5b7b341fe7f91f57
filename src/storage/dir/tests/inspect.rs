//! Looking at a directory: what is said of it is what opening finds, and nothing is changed.

use std::sync::Arc;

use super::super::checkpoint::is_checkpoint;
use super::super::inspect::{Inspection, inspect_on};
use super::super::page::PAGE;
use super::super::segment::is_segment;
use super::model::{last_of, open};
use super::sim::{Image, Loss, Sim};
use super::workload::{Mix, run};
use super::{INSTANCE, Rng, identity, seed};
use crate::storage::StorageError;

/// Directories that held various amounts of everything when the power failed.
fn directories(seed: u64, steps: &[u64]) -> Vec<Image> {
    let losses = [Loss::All, Loss::Nothing];
    let images = steps
        .iter()
        .zip(losses.iter().cycle())
        .map(|(steps, loss)| {
            let sim = Sim::default();
            let outcome = run(&sim, seed + steps, *steps, Mix::All);
            assert!(outcome.error.is_none());
            sim.now().lose_power(*loss)
        });
    images.collect()
}

/// Looks at it, which must leave it as it is.
fn look(image: &Image) -> Inspection {
    let sim = Sim::boot(image);
    let found = inspect_on(&sim).unwrap();
    assert_eq!(0, sim.operations(), "looking has changed something");
    found
}

/// What looking said against what opening does; whether all of it is there.
fn agrees(image: &Image, what: &dyn std::fmt::Debug) -> bool {
    let found = look(image);
    // What is behind a checkpoint an opening sees later, an inspection at once.
    let mut image = image.clone();
    image.retain(|name, _| !is_checkpoint(name));
    match (&found.verdict, open(&Sim::boot(&image))) {
        (Ok(sound), Ok((_, opened))) => {
            let restored = &opened.restored;
            let last = last_of(restored);
            assert_eq!((restored.base, last), (sound.base, sound.last), "{what:?}");
            assert_eq!(opened.torn_bytes, sound.torn_bytes, "{what:?}");
            let meta = found.meta.unwrap();
            assert_eq!(opened.meta_repaired, meta.repaired, "{what:?}");
            assert_eq!(
                (identity(), INSTANCE, opened.incarnation - 1),
                (meta.identity, meta.instance, meta.incarnation),
                "{what:?}"
            );
            let mut hard = restored.hard;
            if let Some(lost) = &opened.lost {
                assert_eq!(Some(lost.claim), hard.claim, "{what:?}");
                (hard.claim, hard.commit) = (meta.hard.claim, meta.hard.commit);
            }
            assert_eq!((hard, &opened.lost), (meta.hard, &sound.lost), "{what:?}");
            assert_eq!(opened.damaged, sound.passed_over, "{what:?}");
            opened.lost.is_none()
        }
        (Err(said), Err(refused)) => {
            assert_eq!(refused.to_string(), said.to_string(), "{what:?}");
            false
        }
        (said, opened) => panic!("{what:?}: said {said:?}, opened {:?}", opened.err()),
    }
}

#[test]
fn it_says_what_opening_finds() {
    for image in directories(seed(61), &[0, 1, 5, 12, 25, 40, 60, 90]) {
        let names: Vec<_> = image.keys().cloned().collect();
        assert!(agrees(&image, &names));
        for segment in look(&image).segments {
            let walk = segment.contents.unwrap();
            assert!(walk.entries >= walk.indexes.map_or(0, |(low, high)| high - low + 1));
        }
    }
}

#[test]
fn it_says_what_opening_says_of_damage() {
    let mut rng = Rng(seed(62));
    let (mut sound, mut damaged_ones) = (0, 0);
    for image in directories(rng.below(1000), &[10, 25, 40, 60]) {
        for name in image.keys() {
            for _ in 0..60 {
                let mut damaged = image.clone();
                let data = Arc::make_mut(damaged.get_mut(name).unwrap());
                let at = rng.below(data.len().max(1) as u64) as usize;
                match rng.below(4) {
                    0 => data.truncate(at),
                    1 => data[at..].iter_mut().take(PAGE).for_each(|byte| *byte = 0),
                    _ if data.is_empty() => {}
                    _ => data[at] ^= 1 << rng.below(8),
                }
                match agrees(&damaged, &(name, at)) {
                    true => sound += 1,
                    false => damaged_ones += 1,
                }
            }
            let mut without = image.clone();
            without.remove(name);
            agrees(&without, &(name, "missing"));
        }
    }
    println!("{sound} sound, {damaged_ones} not");
    assert!(sound > 100 && damaged_ones > 100);
}

#[test]
fn it_goes_on_behind_damage() {
    let mut found = 0;
    for image in directories(seed(63), &[25, 40, 60]) {
        for name in image.keys().filter(|name| is_segment(name)) {
            let whole = walk_of(&image, name);
            if whole.groups < 3 || !whole.gaps.is_empty() {
                continue;
            }
            let mut damaged = image.clone();
            Arc::make_mut(damaged.get_mut(name).unwrap())[PAGE + 70] ^= 1;
            let walk = walk_of(&damaged, name);
            assert_eq!(whole.groups - 1, walk.groups);
            assert_eq!(1, walk.gaps.len());
            let gap = walk.gaps[0];
            assert_eq!((PAGE as u64, whole.prev.index + 1), (gap.offset, gap.index));
            assert_eq!("wrong checksum of a group", gap.what);
            found += 1;
        }
    }
    assert!(found >= 3, "{found} segments were long enough");
}

fn walk_of(image: &Image, name: &str) -> super::super::inspect::Walk {
    let segments = look(image).segments;
    let mut segments = segments.into_iter().filter(|s| s.name == name);
    segments.next().unwrap().contents.unwrap()
}

#[test]
fn no_node_is_no_directory() {
    assert!(matches!(
        inspect_on(&Sim::default()),
        Err(StorageError::Missing { .. })
    ));
}
