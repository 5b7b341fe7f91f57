//! Every bit of every file of a small directory is flipped, every sector lost, moved, or as it was
//! before, every file cut at every length, missing, or an older one. What comes of it is right data, or
//! what is whole of it with a claim that covers the rest, or an error with a name: never other data, and
//! never less of it in silence.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::super::checkpoint::is_checkpoint;
use super::super::super::meta::Meta;
use super::super::super::page::{PAGE, SECTOR};
use super::super::super::{Directory, meta, snapshot};
use super::super::disk::write;
use super::super::images::{draft, offered, read_all};
use super::super::model::{check_claim, image_of, last_of, open, open_twice};
use super::super::sim::{Image, Loss, Sim};
use super::super::{INSTANCE, identity};
use super::{in_parallel, thorough};
use crate::core::Restored;
use crate::core::{Entry, HardState, NodeId, Payload, Persist, Position, Snapshot, Token};
use crate::storage::{Opened, Storage, StorageError};

type Data = Arc<Vec<u8>>;

/// Where the two images end, and how large they are.
const IMAGES: [(u64, u64); 2] = [(4, 300), (8, 5000)];
/// Of the leader's image there is so much of it.
const RECEIVED: (u64, u64, usize) = (60, 2000, 700);
/// The entries, of which the last one is the last group.
const LAST: u64 = 11;

/// A directory, what it holds, and what it was made of.
struct Base {
    image: Image,
    whole: Restored,
    /// What is held without the last group, if that may have been cut off: nothing that came after it
    /// says that it was durable.
    before: Option<Restored>,
    /// Files as they were some time before, if they were others.
    older: Image,
    snapshots: [Snapshot; 2],
}

fn entry(n: u64) -> Entry {
    // The last one takes more than a page.
    let len = if n == LAST { PAGE + 1000 } else { 700 };
    Entry {
        index: n,
        term: 1 + n / 4,
        payload: Payload::Host(vec![n as u8; len].into()),
    }
}

fn hard(n: u64) -> HardState {
    HardState {
        term: 1 + n / 4,
        vote: NodeId::new(1 + n % 3),
        excluded: None,
        commit: 0,
        claim: None,
    }
}

fn append(directory: &mut Directory, n: u64) {
    let persist = Persist {
        token: Token(n),
        hard: (n == 1 || n.is_multiple_of(4)).then(|| hard(n)),
        reset: None,
        entries: vec![entry(n)],
    };
    write(directory, persist);
}

fn save(directory: &mut Directory, (n, size): (u64, u64)) -> Snapshot {
    let last = Position {
        index: n,
        term: 1 + n / 4,
    };
    let mut draft = draft(n);
    draft.last = last;
    let mut writer = directory.write_snapshot(draft).unwrap();
    writer.write(&image_of(last, size)).unwrap();
    writer.finish().unwrap()
}

fn durable(sim: &Sim) -> Image {
    sim.now().lose_power(Loss::All)
}

impl Base {
    /// The last group was written a moment ago.
    fn live() -> Base {
        let sim = Sim::default();
        Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
        let (mut directory, _) = open(&sim).unwrap();
        (1..LAST).for_each(|n| append(&mut directory, n));
        let snapshots = IMAGES.map(|image| save(&mut directory, image));
        directory.trim(snapshots[0].last).unwrap();
        let (n, size, part) = RECEIVED;
        let last = Position { index: n, term: n };
        let received = image_of(last, size);
        let offer = offered(n, &received);
        directory.store_piece(&offer, 0, &received[..part]).unwrap();
        drop(directory);
        let (mut directory, opened) = open(&sim).unwrap();
        let older = durable(&sim);
        let before = opened.restored;
        append(&mut directory, LAST);
        // Once it is closed it is known to be durable.
        let image = durable(&sim);
        drop(directory);
        let mut whole = before.clone();
        whole.entries.push(entry(LAST));
        Base {
            image,
            whole,
            before: Some(before),
            older,
            snapshots,
        }
    }

    /// It was opened since.
    fn reopened() -> Base {
        let live = Base::live();
        let sim = Sim::boot(&live.image);
        open(&sim).unwrap();
        Base {
            image: durable(&sim),
            before: None,
            older: live.image.clone(),
            ..live
        }
    }

    fn names(&self) -> Vec<&String> {
        self.image.keys().collect()
    }
}

// ---- what is done to a file ----------------------------------------------

#[derive(Clone, Copy, Debug)]
enum Damage {
    Bit(usize),
    /// From this offset on so many bytes.
    Zeroed(usize, usize),
    /// So many bytes at the first offset become those at the second.
    Copied(usize, usize, usize),
    /// So many bytes change places.
    Swapped(usize, usize, usize),
    /// So many bytes at this offset are as they were before.
    Stale(usize, usize),
    CutTo(usize),
    /// So many bytes are added.
    Longer(usize),
    Missing,
    Older,
    /// As the file of this number.
    Other(usize),
}

const KINDS: [&str; 10] = [
    "a flipped bit",
    "a sector of zeros",
    "a sector twice",
    "two sectors exchanged",
    "a sector as it was before",
    "a file cut short",
    "a file too long",
    "a missing file",
    "an older file",
    "another file",
];

impl Damage {
    fn kind(self) -> usize {
        match self {
            Damage::Bit(_) => 0,
            Damage::Zeroed(..) => 1,
            Damage::Copied(..) => 2,
            Damage::Swapped(..) => 3,
            Damage::Stale(..) => 4,
            Damage::CutTo(_) => 5,
            Damage::Longer(_) => 6,
            Damage::Missing => 7,
            Damage::Older => 8,
            Damage::Other(_) => 9,
        }
    }

    /// What becomes of a file; `None` if it is gone.
    fn apply(self, base: &Base, name: &str) -> Option<Data> {
        let whole = &base.image[name];
        let mut data = whole.as_ref().clone();
        match self {
            Damage::Bit(bit) => data[bit / 8] ^= 1 << (bit % 8),
            Damage::Zeroed(at, len) => data[at..at + len].fill(0),
            Damage::Copied(to, from, len) => data.copy_within(from..from + len, to),
            Damage::Swapped(a, b, len) => {
                data.copy_within(b..b + len, a);
                data[b..b + len].copy_from_slice(&whole[a..a + len]);
            }
            Damage::Stale(at, len) => {
                data[at..at + len].copy_from_slice(&base.older[name][at..at + len]);
            }
            Damage::CutTo(len) => data.truncate(len),
            Damage::Longer(len) => data.resize(whole.len() + len, 0),
            Damage::Missing => return None,
            Damage::Older => data.clone_from(&base.older[name]),
            Damage::Other(other) => data.clone_from(&base.image[base.names()[other]]),
        }
        Some(Arc::new(data))
    }
}

/// Everything that is done to a file of this length but flipping its bits.
fn damages(base: &Base, number: usize) -> Vec<Damage> {
    let name = base.names()[number];
    let len = base.image[name].len();
    let old = base.older.get(name).map_or(0, |data| data.len());
    let mut all = vec![Damage::Missing];
    all.extend((old > 0).then_some(Damage::Older));
    all.extend([1, SECTOR, PAGE].map(Damage::Longer));
    let others = (0..base.image.len()).filter(|other| *other != number);
    all.extend(others.map(Damage::Other));
    all.extend((0..len).map(Damage::CutTo));
    for unit in [SECTOR, PAGE] {
        let places = || (0..len / unit).map(|n| n * unit);
        for at in places() {
            all.push(Damage::Zeroed(at, unit));
            all.extend((at + unit <= old).then_some(Damage::Stale(at, unit)));
            // The neighbours, every page, and the other slot of META.
            let near = |other: &usize| other.abs_diff(at) <= 4 * unit || unit == PAGE;
            for other in places().filter(|o| *o != at && near(o)) {
                all.push(Damage::Copied(at, other, unit));
                all.extend((at < other).then_some(Damage::Swapped(at, other, unit)));
            }
        }
    }
    all
}

// ---- what comes of it ----------------------------------------------------

/// What came of opening a damaged directory, each of which is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything is there, and all of it right.
    Right,
    /// All of it is right, by way of the older image, and it was said.
    Older,
    /// All of it is right but what a snapshot has the place of, and it was said.
    Covered,
    /// All of it is right but the last group, which looks as if it had never been acknowledged.
    Cut,
    /// What comes before the damage, and it was claimed what was lost.
    Lost,
    /// An error with a name.
    Refused,
}

const OUTCOMES: [Outcome; 6] = [
    Outcome::Right,
    Outcome::Older,
    Outcome::Covered,
    Outcome::Cut,
    Outcome::Lost,
    Outcome::Refused,
];

/// Each outcome of a directory that was accepted has its function here.
type Is = fn(&Base, &Opened) -> bool;
const ACCEPTED: [(Outcome, Is); 5] = [
    (Outcome::Right, is_right),
    (Outcome::Older, is_older),
    (Outcome::Covered, is_covered),
    (Outcome::Cut, is_cut),
    (Outcome::Lost, is_lost),
];

/// But for the part of an image, which is no promise, and is checked when it is whole.
fn holds(found: &Restored, expected: &Restored, snapshot: &Snapshot) -> bool {
    found.hard == expected.hard
        && found.snapshot.as_ref() == Some(snapshot)
        && found.base == expected.base
        && found.outline == expected.outline
        && found.entries == expected.entries
}

fn is_right(base: &Base, opened: &Opened) -> bool {
    holds(&opened.restored, &base.whole, &base.snapshots[1])
}

fn is_older(base: &Base, opened: &Opened) -> bool {
    holds(&opened.restored, &base.whole, &base.snapshots[0])
}

fn is_covered(base: &Base, opened: &Opened) -> bool {
    let (found, newest) = (&opened.restored, &base.snapshots[1]);
    let behind = base.whole.entries.ends_with(&found.entries);
    found.hard == base.whole.hard
        && found.snapshot.as_ref() == Some(newest)
        && (base.whole.base.index + 1..=newest.last.index).contains(&found.base.index)
        && behind
        && last_of(found) == last_of(&base.whole)
        && !opened.damaged.is_empty()
}

fn is_cut(base: &Base, opened: &Opened) -> bool {
    let before = base.before.as_ref();
    before.is_some_and(|before| holds(&opened.restored, before, &base.snapshots[1]))
}

/// What is wrong with it panics.
fn is_lost(base: &Base, opened: &Opened) -> bool {
    let Some(lost) = &opened.lost else {
        return false;
    };
    let found = &opened.restored;
    let past: Vec<Vec<Entry>> = (0..=LAST).map(|n| (1..=n).map(entry).collect()).collect();
    check_claim(found, &base.whole, &past);
    assert_eq!(
        (lost.kept, Some(lost.claim)),
        (last_of(found), found.hard.claim)
    );
    let newest = found.snapshot.as_ref();
    newest.is_some_and(|newest| base.snapshots.contains(newest))
}

/// Images whose damage was behind a checkpoint, so that the first opening did not see it.
static SEEN_BY_READING: AtomicU64 = AtomicU64::new(0);

fn judge(base: &Base, image: &Image) -> Result<Outcome, String> {
    let sim = Sim::boot(image);
    let (opened, seen_by_reading) = open_twice(&sim);
    SEEN_BY_READING.fetch_add(seen_by_reading.into(), Ordering::Relaxed);
    let (mut directory, opened) = match opened {
        Ok(opened) => opened,
        Err(StorageError::Io { op, .. }) => return Err(format!("{op} is said to have failed")),
        Err(_) => return Ok(Outcome::Refused),
    };
    let found = &opened.restored;
    let Some((outcome, _)) = ACCEPTED.iter().find(|(_, is)| is(base, &opened)) else {
        return Err(format!("wrong data: {found:?}"));
    };
    let newest = found.snapshot.as_ref();
    let gone = !image.contains_key(&snapshot::name(base.snapshots[1].last));
    if *outcome == Outcome::Older && opened.damaged.is_empty() && !gone {
        return Err("a damaged image is passed over in silence".to_owned());
    }
    for snapshot in &base.snapshots {
        let read = directory.read_snapshot(snapshot);
        match read.and_then(|mut reader| read_all(&mut *reader)) {
            Ok(read) if read == image_of(snapshot.last, snapshot.size) => {}
            Ok(_) => return Err(format!("another image of {snapshot:?}")),
            Err(StorageError::Io { op, .. }) => return Err(format!("{op} of an image fails")),
            Err(error) if newest == Some(snapshot) => return Err(error.to_string()),
            Err(_) => {}
        }
    }
    Ok(*outcome)
}

/// As [`judge`]; and only what is missing from the last group may pass for cut off.
fn judge_damage(base: &Base, image: &Image, name: &str, damage: Damage) -> Result<Outcome, String> {
    let judged = catch_unwind(AssertUnwindSafe(|| judge(base, image)));
    let wrong = match judged {
        Ok(Ok(Outcome::Cut)) if !may_be_cut(base, image, name, damage) => {
            "taken for a write that was cut off".to_owned()
        }
        Ok(Ok(outcome)) => return Ok(outcome),
        Ok(Err(wrong)) => wrong,
        Err(_) => "panicked".to_owned(),
    };
    Err(format!("{name}: {damage:?}: {wrong}"))
}

/// Whether the last group lost a sector of it and nothing else was touched: so may a write that was
/// never acknowledged.
fn may_be_cut(base: &Base, image: &Image, name: &str, damage: Damage) -> bool {
    let (Some(data), Some(old)) = (image.get(name), base.older.get(name)) else {
        return false;
    };
    let whole = &base.image[name];
    let of_last = |at: usize| old[at] != whole[at];
    let first = (0..whole.len()).find(|at| of_last(*at));
    let same = |at: &usize| data.get(*at) == whole.get(*at);
    let touched = (0..whole.len()).find(|at| !same(at));
    !matches!(damage, Damage::Bit(_)) && data.len() == whole.len() && touched >= first
}

// ---- all of it -----------------------------------------------------------

#[derive(Default)]
struct Tried([[u64; OUTCOMES.len()]; KINDS.len()]);

impl Tried {
    fn count(&mut self, damage: Damage, outcome: Outcome) {
        let nth = OUTCOMES.iter().position(|o| *o == outcome);
        self.0[damage.kind()][nth.unwrap()] += 1;
    }

    fn add(&mut self, other: &Tried) {
        for (sums, counts) in self.0.iter_mut().zip(other.0) {
            for (sum, n) in sums.iter_mut().zip(counts) {
                *sum += n;
            }
        }
    }

    fn total(&self) -> u64 {
        self.0.iter().flatten().sum()
    }

    fn of(&self, outcome: Outcome) -> u64 {
        let nth = OUTCOMES.iter().position(|o| *o == outcome).unwrap();
        self.0.iter().map(|kind| kind[nth]).sum()
    }
}

/// Bits of a file, or of what else is done to it, that one job does.
const SHARE: usize = 16 * 1024;

enum Job {
    /// File, and which of its bits.
    Bits(usize, std::ops::Range<usize>),
    /// File, and which of its other damages.
    Others(usize, std::ops::Range<usize>),
}

fn jobs(base: &Base) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (number, (name, data)) in base.image.iter().enumerate() {
        if base.before.is_some() && base.older.get(name) == Some(data) {
            // Nothing is new in it: it is damaged in the other base.
            continue;
        }
        let shares = |len: usize| {
            (0..len)
                .step_by(SHARE)
                .map(move |at| at..len.min(at + SHARE))
        };
        jobs.extend(shares(data.len() * 8).map(|range| Job::Bits(number, range)));
        let others = damages(base, number).len();
        jobs.extend(shares(others).map(|range| Job::Others(number, range)));
    }
    jobs
}

/// Without RAFTKEEL_SWEEP=all one bit and one length in so many.
const STEP: usize = 199;

/// What an opening reads in META.
fn meta_of(image: &Image) -> Option<(Meta, bool)> {
    meta::choose(&image[meta::NAME]).ok()
}

/// Flips one bit after the other in a copy that is shared by nobody in between.
fn flip(
    base: &Base,
    number: usize,
    bits: impl Iterator<Item = usize>,
    tried: &mut Tried,
) -> Result<(), String> {
    let mut image = base.image.clone();
    let name = base.names()[number].clone();
    let known = meta_of(&image);
    for bit in bits {
        let change = |image: &mut Image| {
            let data = image.get_mut(&name).map(Arc::make_mut);
            data.unwrap()[bit / 8] ^= 1 << (bit % 8);
        };
        change(&mut image);
        let damage = Damage::Bit(bit);
        let outcome = match name == meta::NAME && meta_of(&image) == known {
            // An opening knows META by nothing else.
            true => Outcome::Right,
            false => judge_damage(base, &image, &name, damage)?,
        };
        tried.count(damage, outcome);
        change(&mut image);
    }
    Ok(())
}

fn do_job(base: &Base, job: &Job) -> Result<Tried, String> {
    let step = if thorough() { 1 } else { STEP };
    let mut tried = Tried::default();
    match job {
        Job::Bits(number, bits) => {
            let bits = bits.clone().step_by(step);
            flip(base, *number, bits, &mut tried)?;
        }
        Job::Others(number, range) => {
            let name = base.names()[*number];
            let all = &damages(base, *number)[range.clone()];
            let left_out =
                |d: &Damage| matches!(d, Damage::CutTo(len) if !len.is_multiple_of(step));
            for damage in all.iter().filter(|damage| !left_out(damage)) {
                let mut image = base.image.clone();
                match damage.apply(base, name) {
                    Some(data) => image.insert(name.clone(), data),
                    None => image.remove(name),
                };
                if image != base.image {
                    tried.count(*damage, judge_damage(base, &image, name, *damage)?);
                }
            }
        }
    }
    Ok(tried)
}

fn sweep(base: &Base) -> Tried {
    let jobs = jobs(base);
    let mut all = Tried::default();
    for tried in in_parallel(jobs.len(), |n| do_job(base, &jobs[n])) {
        all.add(&tried);
    }
    println!("{:26} {OUTCOMES:?}", "");
    for (kind, outcomes) in KINDS.iter().zip(all.0) {
        println!("{kind:26} {outcomes:?}");
        assert!(outcomes.iter().sum::<u64>() > 0, "nothing of kind {kind}");
    }
    println!(
        "{} images, no wrong data, nothing lost in silence",
        all.total()
    );
    all
}

#[test]
fn no_damage_passes_for_data_after_an_opening() {
    let base = Base::reopened();
    let segments = base.names().iter().filter(|n| n.ends_with(".seg")).count();
    assert!(segments >= 3 && base.image.contains_key(meta::NAME));
    assert!(base.names().iter().any(|name| is_checkpoint(name)));
    let tried = sweep(&base);
    for (outcome, least) in [
        (Outcome::Right, 100),
        (Outcome::Older, 100),
        (Outcome::Covered, 10),
        (Outcome::Lost, 1000),
        (Outcome::Refused, 10),
    ] {
        assert!(tried.of(outcome) > least, "hardly ever {outcome:?}");
    }
    let by_reading = SEEN_BY_READING.load(Ordering::Relaxed);
    println!("{by_reading} of them were seen when the log was read, and by the next opening");
    assert!(by_reading > 100, "hardly any: {by_reading}");
    let cut = tried.of(Outcome::Cut);
    assert_eq!(cut, 0, "after an opening nothing may be taken for cut off");
    assert!(!thorough() || tried.total() >= 1_000_000);
}

#[test]
fn no_damage_passes_for_data_a_moment_after_a_write() {
    let base = Base::live();
    let tried = sweep(&base);
    let cut = tried.of(Outcome::Cut);
    assert!(
        cut > 0,
        "a lost sector of the last group may be a torn write"
    );
}

#[test]
fn the_judge_tells_wrong_data_and_missing_data() {
    let base = Base::reopened();
    assert_eq!(judge(&base, &base.image), Ok(Outcome::Right));
    let changes: [fn(&mut Restored); 4] = [
        |whole| whole.hard.vote = None,
        |whole| whole.hard.term += 1,
        |whole| whole.entries[0].payload = Payload::Noop,
        |whole| whole.entries.push(entry(LAST + 1)),
    ];
    for (nth, change) in changes.iter().enumerate() {
        let mut other = Base::reopened();
        change(&mut other.whole);
        assert!(judge(&other, &base.image).is_err(), "change {nth}");
    }
    let mut other = Base::reopened();
    other.snapshots[0].crc ^= 1;
    other.snapshots[1].crc ^= 1;
    assert!(judge(&other, &base.image).is_err());
}
