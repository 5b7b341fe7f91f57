//! What an opening does about damage is done whole or not at all, wherever power fails; and who has
//! nobody to ask is refused.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use super::super::aside::is_aside;
use super::super::checkpoint::is_checkpoint;
use super::super::inspect::inspect_on;
use super::super::meta::{Meta, Origin};
use super::super::page::PAGE;
use super::super::segment::{End, Header, MIN_BYTES, is_segment};
use super::super::slots::{OLDER, slots};
use super::super::snapshot;
use super::super::vfs::Vfs;
use super::super::{Directory, Options};
use super::disk::{nth, write};
use super::images::{image, offered, save};
use super::model::{check_claim, open};
use super::rot::{made, past, sample, submit};
use super::sim::{Failure, Image, Loss, Sim, Written};
use super::workload::configuration;
use super::{INSTANCE, OPTIONS, Rng, identity, seed};
use crate::core::{
    Configuration, Entry, HardState, NodeId, Payload, Persist, Position, Snapshot, Token,
};
use crate::storage::{Opened, Storage, StorageError};

/// Directories that are damaged in one way or another, and each may have lost something by that.
fn damaged(image: &Image, rng: &mut Rng) -> Vec<(String, Image)> {
    let mut all = Vec::new();
    let segments: Vec<&String> = image.keys().filter(|name| is_segment(name)).collect();
    for name in &segments {
        let pages = image[*name].len() as u64 / PAGE as u64;
        for (what, at) in [
            ("header", 9),
            ("page", PAGE as u64 * (1 + rng.below(pages - 1))),
        ] {
            let mut changed = image.clone();
            let at = at as usize + rng.below(60) as usize;
            Arc::make_mut(changed.get_mut(*name).unwrap())[at] ^= 1;
            all.push((format!("{name}: {what}"), changed));
        }
        let mut cut = image.clone();
        let len = rng.below(image[*name].len() as u64) as usize;
        Arc::make_mut(cut.get_mut(*name).unwrap()).truncate(len);
        all.push((format!("{name}: cut to {len}"), cut));
    }
    for name in segments.iter().skip(1) {
        let mut without = image.clone();
        without.remove(*name);
        all.push((format!("{name}: missing"), without));
    }
    let mut without = image.clone();
    without.retain(|name, _| snapshot::position(name).is_none());
    all.push(("no snapshots".to_owned(), without.clone()));
    without.retain(|name, _| !is_segment(name));
    all.push(("no log".to_owned(), without));
    all
}

/// Has power fail at each operation of an opening that the disk has a history of, and opens what is
/// left; how often that was.
fn cut_short(what: &str, opening: &Sim, check: impl Fn(&str, &Opened)) -> u64 {
    let mut states = 0;
    for (operation, (moment, _)) in opening.history().iter().enumerate() {
        for loss in Loss::usual(operation as u64) {
            states += 1;
            let when = format!("{what}, operation {operation}, {loss:?}");
            let again = open(&Sim::boot(&moment.lose_power(loss)));
            let (_, again) = again.unwrap_or_else(|error| panic!("{when}: {error}"));
            check(&when, &again);
        }
    }
    states
}

#[test]
fn power_that_fails_while_damage_is_dealt_with_loses_no_claim() {
    let sample = sample();
    let (mut states, mut lost) = (0, 0);
    for (what, image) in damaged(&sample.image, &mut Rng(seed(71))) {
        let sim = Sim::boot(&image);
        sim.keep_history();
        let (directory, opened) = open(&sim).unwrap();
        drop(directory);
        if opened.lost.is_none() {
            continue;
        }
        lost += 1;
        states += cut_short(&what, &sim, |when, again| {
            println!("{when}: {:?}", again.lost);
            check_claim(&again.restored, &sample.whole, &past());
        });
    }
    println!("{states} states of {lost} openings");
    assert!(lost > 5 && states > 500, "{states} states, {lost} openings");
}

#[test]
fn damage_before_what_a_snapshot_covers_loses_nothing() {
    let sample = sample();
    let names: Vec<&String> = sample.image.keys().filter(|n| is_segment(n)).collect();
    let mut image = sample.image.clone();
    Arc::make_mut(image.get_mut(names[0]).unwrap())[PAGE + 100] ^= 1;
    let sim = Sim::boot(&image);
    let (directory, opened) = open(&sim).unwrap();
    drop(directory);
    assert_eq!(None, opened.lost);
    assert_eq!(1, opened.damaged.len(), "{:?}", opened.damaged);
    let mut restored = opened.restored;
    assert!(restored.base.index > sample.whole.base.index);
    assert!(restored.base.index <= sample.whole.snapshot.as_ref().unwrap().last.index);
    let image = sim.now().lose_power(Loss::Nothing);
    assert!(!image.contains_key(names[0]), "it has no use any more");
    let (_, again) = open(&Sim::boot(&image)).unwrap();
    assert_eq!((&again.restored, again.damaged.len()), (&restored, 0));
    restored.base = sample.whole.base;
    let mut whole = sample.whole.clone();
    whole
        .entries
        .retain(|e| e.index > again.restored.base.index);
    assert_eq!(restored, whole);
}

#[test]
fn damage_on_top_of_damage_claims_no_less() {
    let sample = sample();
    let mut rng = Rng(seed(72));
    let mut twice = 0;
    for (what, image) in damaged(&sample.image, &mut rng) {
        let sim = Sim::boot(&image);
        let (directory, opened) = open(&sim).unwrap();
        drop(directory);
        let Some(first) = opened.lost else {
            continue;
        };
        for (more, image) in damaged(&sim.now().lose_power(Loss::All), &mut rng) {
            println!("{what}, then {more}");
            let Ok((_, opened)) = open(&Sim::boot(&image)) else {
                continue;
            };
            twice += u32::from(opened.lost.is_some());
            let claim = opened.restored.hard.claim.unwrap();
            assert!(claim.reaches(first.claim), "{what}, then {more}: {claim:?}");
        }
    }
    assert!(twice > 10, "{twice}");
}

/// A log of several segments that ends where a snapshot does.
fn covered_sample() -> Image {
    let (sim, mut directory) = made();
    (1..=30).for_each(|n| submit(&mut directory, n, None));
    save(&mut directory, 30, &image(74, 70_000));
    drop(directory);
    sim.now().lose_power(Loss::All)
}

/// What a snapshot covers is lost to nobody, not even to the only voter, whom nobody could give it back.
#[test]
fn power_that_fails_while_covered_damage_is_dealt_with_loses_nothing() {
    let (mut states, mut covered) = (0, 0);
    let sample = covered_sample();
    for (what, image) in damaged(&sample, &mut Rng(seed(73))) {
        let sim = Sim::boot(&image);
        sim.keep_history();
        let Ok((directory, opened)) = open(&sim) else {
            continue;
        };
        drop(directory);
        if opened.lost.is_some() || opened.damaged.is_empty() {
            continue;
        }
        covered += 1;
        states += cut_short(&what, &sim, |when, again| {
            assert_eq!(None, again.lost, "{when}");
            assert_eq!(opened.restored, again.restored);
        });
    }
    println!("{states} states of {covered} openings");
    assert!(
        covered > 5 && states > 300,
        "{states} states, {covered} openings"
    );
}

/// A log of one entry, a configuration, and ten others.
fn of_voters(voters: &[u64]) -> Image {
    let (sim, mut directory) = made();
    let config = Configuration {
        voters: voters.iter().filter_map(|id| NodeId::new(*id)).collect(),
        ..configuration(1)
    };
    directory.submit(Persist {
        token: Token(1),
        hard: Some(HardState {
            term: 1,
            ..HardState::default()
        }),
        reset: None,
        entries: vec![Entry {
            index: 1,
            term: 1,
            payload: Payload::Config(Arc::new(config), Vec::new().into()),
        }],
    });
    directory.poll().unwrap().result.unwrap();
    (2..=11).for_each(|n| submit(&mut directory, n, None));
    drop(directory);
    sim.now().lose_power(Loss::All)
}

#[test]
fn who_has_nobody_to_ask_is_refused() {
    assert_eq!(identity().node.get(), 1);
    for (voters, refused) in [(&[1][..], true), (&[1, 2], false), (&[2], false)] {
        let mut image = of_voters(voters);
        let names: Vec<String> = image.keys().filter(|n| is_segment(n)).cloned().collect();
        let last = names.last().unwrap();
        Arc::make_mut(image.get_mut(last).unwrap())[PAGE + 100] ^= 1;
        let sim = Sim::boot(&image);
        match open(&sim) {
            Err(StorageError::Corrupt { path, .. }) => {
                assert!(refused && path.ends_with(last), "{voters:?}: {path:?}");
                assert_eq!(0, sim.operations(), "it is left as it is");
            }
            Err(error) => panic!("{error}"),
            Ok((_, opened)) => assert!(!refused && opened.lost.is_some(), "{voters:?}"),
        }
    }
}

/// Of term 40 and nothing else.
fn of_term_40(commit: u64, claim: Option<Position>) -> Persist {
    Persist {
        token: Token(1),
        hard: Some(HardState {
            term: 40,
            commit,
            claim,
            ..HardState::default()
        }),
        reset: None,
        entries: Vec::new(),
    }
}

/// A log up to 12 to begin with, and an image of a leader's that ends at `at`, adopted.
fn adopted(
    (sim, mut directory): (Sim, Directory),
    at: Position,
    claim: Option<Position>,
) -> Adopted {
    write(&mut directory, of_term_40(0, claim));
    let image = image(75, 1000);
    let mut snapshot = offered(at.index, &image);
    snapshot.last = at;
    directory.store_piece(&snapshot, 0, &image).unwrap();
    directory.adopt(&snapshot).unwrap();
    Adopted {
        sim,
        directory,
        snapshot,
    }
}

struct Adopted {
    sim: Sim,
    directory: Directory,
    snapshot: Snapshot,
}

fn to_12() -> (Sim, Directory) {
    let (sim, mut directory) = made();
    (1..=12).for_each(|n| submit(&mut directory, n, None));
    (sim, directory)
}

/// The log was to be dropped for an image that is damaged or gone now: what it holds may never have
/// been committed, whether what was lost is claimed already or not.
#[test]
fn what_an_image_contradicted_is_not_committed() {
    let at = Position { index: 8, term: 30 };
    let claimed = Position {
        index: 90,
        term: 40,
    };
    let cases = [
        (None, false),
        (None, true),
        (Some(claimed), false),
        (Some(claimed), true),
    ];
    for (claim, gone) in cases {
        let mut adopted = adopted(to_12(), at, claim);
        write(&mut adopted.directory, of_term_40(8, claim));
        drop(adopted.directory);
        let mut image = adopted.sim.now().lose_power(Loss::All);
        let name = snapshot::name(at);
        match gone {
            false => Arc::make_mut(image.get_mut(&name).unwrap())[PAGE + 600] ^= 1,
            true => drop(image.remove(&name)),
        }
        let sim = Sim::boot(&image);
        for again in [false, true] {
            let (_, opened) = open(&sim).unwrap();
            let restored = opened.restored;
            assert_eq!((12, None), (restored.entries.len(), restored.snapshot));
            assert!(restored.hard.claim.unwrap().reaches(at));
            assert_eq!(0, restored.hard.commit, "{claim:?}, {gone}, {again}");
        }
    }
}

/// Wherever power fails, from its adoption on, an image that is gone then is missed or was not needed.
#[test]
fn an_image_that_was_adopted_is_missed_until_the_log_begins_behind_it() {
    let at = Position { index: 8, term: 30 };
    let Adopted {
        sim,
        mut directory,
        snapshot,
    } = adopted(to_12(), at, None);
    sim.keep_history();
    let persist = Persist {
        reset: Some(snapshot),
        ..of_term_40(8, None)
    };
    write(&mut directory, persist);
    drop(directory);
    let mut history = sim.history();
    history.push((sim.now(), 0));
    let mut missed = 0;
    for (operation, (moment, _)) in history.iter().enumerate() {
        for loss in Loss::usual(operation as u64) {
            let mut image = moment.lose_power(loss);
            image.remove(&snapshot::name(at)).unwrap();
            let (_, opened) = open(&Sim::boot(&image)).unwrap();
            let lost = opened.lost.expect("the image is missed");
            assert!(lost.claim.reaches(at), "{operation}, {loss:?}: {lost:?}");
            assert_eq!(0, opened.restored.hard.commit);
            missed += 1;
            // What an opening that finds it is about to do may be cut short as well.
            let sim = Sim::boot(&moment.lose_power(loss));
            sim.keep_history();
            open(&sim).unwrap();
            for (moment, _) in sim.history() {
                let mut image = moment.lose_power(Loss::All);
                image.remove(&snapshot::name(at)).unwrap();
                let (_, opened) = open(&Sim::boot(&image)).unwrap();
                assert!(opened.lost.is_some(), "{operation}, {loss:?}");
                assert_eq!(0, opened.restored.hard.commit);
            }
        }
    }
    assert!(missed > 30, "{missed}");
}

/// Whatever call fails of an adoption, or of the opening after it, and whatever of that was done: no loss
/// of power makes an image missed that nobody was told of.
#[test]
fn an_adoption_that_failed_is_not_missed() {
    let image = image(75, 1000);
    let mut snapshot = offered(8, &image);
    snapshot.last.term = 30;
    let mut failed = 0;
    for (nth, (lasts, written)) in (1..30).flat_map(|nth| {
        let whole = [Written::Nothing, Written::Half, Written::All];
        let all = [false, true].into_iter();
        all.flat_map(move |lasts| whole.map(|written| (nth, (lasts, written))))
    }) {
        let (sim, mut directory) = to_12();
        write(&mut directory, of_term_40(0, None));
        directory.store_piece(&snapshot, 0, &image).unwrap();
        sim.fail_as(Failure {
            error: ErrorKind::Other,
            lasts,
            written,
        });
        sim.fail_at(Some(sim.operations() + nth));
        let adopted = directory.adopt(&snapshot).is_ok();
        drop(directory);
        let _ = open(&sim);
        sim.fail_at(None);
        failed += u32::from(!adopted);
        for loss in Loss::usual(nth) {
            let (_, opened) = open(&Sim::boot(&sim.now().lose_power(loss))).unwrap();
            assert_eq!(None, opened.lost, "{nth}, {lasts}, {loss:?}");
            let newest = opened.restored.snapshot.is_some();
            assert!(newest || !adopted, "{nth}, {lasts}, {loss:?}");
        }
    }
    assert!(failed > 30, "{failed}");
}

#[test]
fn an_adopted_image_that_the_log_has_the_place_of_is_not_missed() {
    let Adopted { sim, directory, .. } = adopted(to_12(), Position { index: 8, term: 8 }, None);
    drop(directory);
    let mut image = sim.now().lose_power(Loss::All);
    image.retain(|name, _| snapshot::position(name).is_none());
    let (_, opened) = open(&Sim::boot(&image)).unwrap();
    assert_eq!((None, 12), (opened.lost, opened.restored.entries.len()));
}

#[test]
fn an_adopted_image_that_is_gone_is_an_error_to_who_has_nobody_to_ask() {
    for (voters, refused) in [(&[1][..], true), (&[1, 2], false)] {
        let sim = Sim::boot(&of_voters(voters));
        let directory = open(&sim).unwrap().0;
        let Adopted { sim, directory, .. } =
            adopted((sim, directory), Position { index: 8, term: 30 }, None);
        drop(directory);
        let mut image = sim.now().lose_power(Loss::All);
        image.retain(|name, _| snapshot::position(name).is_none());
        match open(&Sim::boot(&image)) {
            Err(StorageError::Corrupt { index: 8, .. }) => assert!(refused),
            Err(error) => panic!("{error}"),
            Ok((_, opened)) => assert!(!refused && opened.lost.is_some()),
        }
    }
}

#[test]
fn a_claim_that_ended_is_gone() {
    let sample = sample();
    let mut image = sample.image.clone();
    let names: Vec<String> = image.keys().filter(|n| is_segment(n)).cloned().collect();
    image.remove(names.last().unwrap());
    let sim = Sim::boot(&image);
    let (mut directory, opened) = open(&sim).unwrap();
    let mut hard = opened.restored.hard;
    hard.claim = None;
    directory.submit(Persist {
        token: Token(1),
        hard: Some(hard),
        reset: None,
        entries: Vec::new(),
    });
    directory.poll().unwrap().result.unwrap();
    drop(directory);
    let image = sim.now().lose_power(Loss::All);
    let (_, opened) = open(&Sim::boot(&image)).unwrap();
    assert_eq!((opened.restored.hard, opened.lost), (hard, None));
}

#[test]
fn segments_behind_damage_are_set_aside_until_all_is_there_again() {
    let sample = sample();
    let names: Vec<String> = sample
        .image
        .keys()
        .filter(|n| is_segment(n))
        .cloned()
        .collect();
    let mut image = sample.image.clone();
    // So that the first opening sees it.
    image.retain(|name, _| !is_checkpoint(name));
    // Behind what the newest snapshot covers.
    let nth = names.len() - 3;
    Arc::make_mut(image.get_mut(&names[nth]).unwrap())[PAGE + 100] ^= 1;
    let sim = Sim::boot(&image);
    let (mut directory, opened) = open(&sim).unwrap();
    assert!(opened.lost.is_some());
    let aside = |sim: &Sim| -> Vec<Arc<Vec<u8>>> {
        let files = sim.now().lose_power(Loss::All).into_iter();
        files
            .filter(|(name, _)| is_aside(name))
            .map(|(_, data)| data)
            .collect()
    };
    let behind: Vec<_> = names[nth + 1..].iter().map(|n| image[n].clone()).collect();
    assert_eq!(aside(&sim), behind);
    let told = inspect_on(&sim).unwrap();
    assert_eq!((told.aside.len(), told.foreign.len()), (behind.len(), 0));
    drop(directory);
    directory = open(&sim).unwrap().0;
    assert_eq!(aside(&sim), behind, "not all is there again");
    let claim = opened.restored.hard.claim;
    let hard = |claim| Persist {
        token: Token(1),
        hard: Some(HardState {
            claim,
            ..opened.restored.hard
        }),
        reset: None,
        entries: Vec::new(),
    };
    write(&mut directory, hard(claim));
    assert_eq!(aside(&sim), behind);
    let claimed = sim.now().lose_power(Loss::All);
    write(&mut directory, hard(None));
    let left = sim.now().lose_power(Loss::Nothing);
    assert!(!left.keys().any(|name| is_aside(name)));
    // A full disk has no room for them.
    let sim = Sim::boot(&claimed);
    let mut directory = open(&sim).unwrap().0;
    directory.make_room();
    assert!(
        !sim.now()
            .lose_power(Loss::Nothing)
            .keys()
            .any(|name| is_aside(name))
    );
}

/// Somebody finds a segment again that was given up, when the log has gone on without it.
#[test]
fn a_segment_that_is_put_back_behind_newer_ones_is_not_taken_for_the_log() {
    let image = super::checkpoint::sample();
    let segments = super::checkpoint::names(&image, is_segment);
    let mut cut = image.clone();
    let found = cut.remove(&segments[1]).unwrap();
    let sim = Sim::boot(&cut);
    let opened = open(&sim).unwrap().1;
    assert!(opened.lost.is_some());
    let last = opened.restored.entries.len() as u64;
    // With room for more in the last one that is left.
    let options = Options {
        segment_bytes: 16 * OPTIONS.segment_bytes,
        ..OPTIONS
    };
    let opened = Directory::open_on(Box::new(sim.clone()), &identity(), options);
    let mut directory = opened.unwrap().0;
    for index in last + 1..=last + 3 {
        let mut persist = nth(index);
        let term = 41;
        let hard = persist.hard.as_mut().unwrap();
        (hard.term, hard.vote) = (term, None);
        persist.entries[0].term = term;
        write(&mut directory, persist);
    }
    drop(directory);
    let file = sim.create(&segments[1]).unwrap();
    file.write(&found, 0).unwrap();
    file.sync().unwrap();
    match super::model::open_once(&sim).unwrap() {
        Err(StorageError::Corrupt { path, .. }) => assert!(path.ends_with(&segments[1])),
        Err(other) => panic!("{other}"),
        Ok((_, opened)) => {
            let lost = opened.lost.unwrap();
            assert!(lost.what.contains(&segments[1]), "{}", lost.what);
            let kept = opened.restored.entries.last().unwrap();
            assert_eq!((kept.index, kept.term), (last + 3, 41));
        }
    }
}

#[test]
fn of_two_segments_of_one_number_that_of_the_earlier_run_is_named() {
    let meta = Meta {
        identity: identity(),
        instance: INSTANCE,
        incarnation: 3,
        generation: 9,
        hard: HardState::default(),
        head_seq: 1,
        durable_lsn: 0,
        first_seq: 1,
        adopted: None,
    };
    for (earlier, later) in [(7, 20), (20, 7)] {
        let fs = Sim::default();
        let name = |incarnation, index| {
            let origin = Origin {
                incarnation,
                ..meta.origin()
            };
            let end = End {
                last: Position { index, term: 1 },
                ..End::default()
            };
            let header = Header::new(origin, 1, &end, 0, MIN_BYTES);
            let file = fs.create(&header.name()).unwrap();
            file.write(&header.encode(), 0).unwrap();
            header.name()
        };
        let older = name(2, earlier);
        let mut names = vec![name(3, later), older.clone()];
        names.sort();
        let found = slots(&fs, &names, &meta, &BTreeSet::new(), 0).err();
        let Some(StorageError::Corrupt {
            path, what, index, ..
        }) = found
        else {
            panic!("one of them is chosen");
        };
        assert_eq!((OLDER, earlier + 1), (what, index));
        assert!(path.ends_with(&older), "{path:?}");
    }
}
