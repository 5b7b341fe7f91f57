//! Power fails before every operation, and of what was not synced everything is lost that can be:
//! nothing that was acknowledged may be missed.

use std::collections::HashSet;

use super::super::Rng;
use super::super::model::{Progress, check, open};
use super::super::seed;
use super::super::sim::{Image, Moment, Sim};
use super::super::workload::{Mix, run};
use super::{in_parallel, thorough};

/// Sectors of what some disks write as a whole.
const BLOCK: usize = 8;

/// What is lost, by kind; each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Everything,
    Nothing,
    AllButAPrefix,
    ASubset,
    Torn512,
    Torn4096,
    Reordered,
    Names,
}

const KINDS: [Kind; 8] = [
    Kind::Everything,
    Kind::Nothing,
    Kind::AllButAPrefix,
    Kind::ASubset,
    Kind::Torn512,
    Kind::Torn4096,
    Kind::Reordered,
    Kind::Names,
];

/// One way to lose what was not synced. An operation is named by its number, see
/// [`Moment::unsynced`].
#[derive(Clone, Copy, Debug)]
enum Cut {
    Everything,
    Nothing,
    /// Everything from this operation on.
    From(u64),
    /// Whole operations, by chance.
    Some(u64),
    /// Of one operation the pieces of so many sectors from this number on.
    Tail(u64, usize, usize),
    /// Of one operation the pieces of so many sectors before this number.
    Head(u64, usize, usize),
    /// Of one operation pieces of so many sectors, by chance.
    Pieces(u64, usize, u64),
    /// Only this operation.
    One(u64),
    /// Everything but this operation.
    AllBut(u64),
    /// Only this change of a name.
    Name(u64),
    /// Every change of a name.
    Names,
    /// Every write.
    Data,
}

impl Cut {
    fn kind(self) -> Kind {
        match self {
            Cut::Everything => Kind::Everything,
            Cut::Nothing => Kind::Nothing,
            Cut::From(_) => Kind::AllButAPrefix,
            Cut::Some(_) => Kind::ASubset,
            Cut::Tail(_, 1, _) | Cut::Head(_, 1, _) | Cut::Pieces(_, 1, _) => Kind::Torn512,
            Cut::Tail(..) | Cut::Head(..) | Cut::Pieces(..) => Kind::Torn4096,
            Cut::One(_) | Cut::AllBut(_) => Kind::Reordered,
            Cut::Name(_) | Cut::Names | Cut::Data => Kind::Names,
        }
    }

    fn keeps(self, at: u64, sector: usize, is_name: bool) -> bool {
        let chance = |seed: u64| Rng(seed ^ at << 20).below(2) == 0;
        match self {
            Cut::Everything => false,
            Cut::Nothing => true,
            Cut::From(first) => at < first,
            Cut::Some(seed) => chance(seed),
            Cut::Tail(of, unit, n) => at != of || sector / unit < n,
            Cut::Head(of, unit, n) => at != of || sector / unit >= n,
            Cut::Pieces(of, unit, seed) => {
                at != of || chance(seed ^ ((sector / unit) as u64) << 40)
            }
            Cut::One(of) | Cut::Name(of) => at != of,
            Cut::AllBut(of) => at == of,
            Cut::Names => !is_name,
            Cut::Data => is_name,
        }
    }

    fn apply(self, moment: &Moment, names: &HashSet<u64>) -> Image {
        moment.keep(&|at, sector| self.keeps(at, sector, names.contains(&at)))
    }
}

/// Every cut that is worth trying with these operations not synced.
fn cuts(unsynced: &[(u64, usize)], seed: u64) -> Vec<Cut> {
    let mut cuts = vec![Cut::Everything, Cut::Nothing, Cut::Names, Cut::Data];
    for (at, sectors) in unsynced {
        if *sectors == 0 {
            cuts.push(Cut::Name(*at));
        }
        for unit in [1, BLOCK] {
            cuts.extend(tears(*at, unit, sectors.div_ceil(unit), seed));
        }
    }
    if let [_, rest @ ..] = unsynced {
        cuts.extend(rest.iter().map(|(at, _)| Cut::From(*at)));
        cuts.extend(rest.iter().map(|(at, _)| Cut::AllBut(*at)));
    }
    if let [rest @ .., _] = unsynced {
        cuts.extend(rest.iter().map(|(at, _)| Cut::One(*at)));
    }
    if unsynced.len() > 2 {
        cuts.extend((0..4).map(|n| Cut::Some(seed ^ n)));
    }
    cuts
}

/// Ways to write only some pieces of a write that has so many.
fn tears(at: u64, unit: usize, pieces: usize, seed: u64) -> Vec<Cut> {
    let places = [1, 2, 3, 7, 8, 9, pieces / 2, pieces.saturating_sub(1)];
    let inside = places.into_iter().filter(|n| 0 < *n && *n < pieces);
    let mut tears: Vec<Cut> = inside
        .flat_map(|n| [Cut::Tail(at, unit, n), Cut::Head(at, unit, n)])
        .collect();
    if pieces > 2 {
        tears.extend((0..4).map(|n| Cut::Pieces(at, unit, seed ^ n << 50)));
    }
    tears
}

/// How many different states were tried, by kind.
#[derive(Default)]
struct Tried([u64; KINDS.len()]);

impl Tried {
    fn add(&mut self, other: &Tried) {
        for (sum, n) in self.0.iter_mut().zip(other.0) {
            *sum += n;
        }
    }

    fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// A checksum that tells one state of the same moment from another.
fn fingerprint(image: &Image) -> (u32, usize) {
    let mut hasher = crc32fast::Hasher::new();
    for (name, data) in image {
        hasher.update(name.as_bytes());
        hasher.update(data);
    }
    (hasher.finalize(), image.len())
}

/// Every state that a loss of power at this moment leaves.
fn at_moment(
    moment: &Moment,
    seed: u64,
    tried: &mut Tried,
    mut each: impl FnMut(&Image, Cut) -> Result<(), String>,
) -> Result<(), String> {
    let unsynced = moment.unsynced();
    let names = unsynced.iter().filter(|(_, sectors)| *sectors == 0);
    let names: HashSet<u64> = names.map(|(at, _)| *at).collect();
    let mut seen = HashSet::new();
    for cut in cuts(&unsynced, seed) {
        let image = cut.apply(moment, &names);
        if seen.insert(fingerprint(&image)) {
            each(&image, cut).map_err(|wrong| format!("{cut:?}: {wrong}"))?;
            let kind = KINDS.iter().position(|kind| *kind == cut.kind());
            tried.0[kind.unwrap()] += 1;
        }
    }
    Ok(())
}

/// The opening of a state that power left, with power failing again at each of its operations.
fn in_recovery(
    image: &Image,
    progress: &Progress,
    seed: u64,
    tried: &mut Tried,
) -> Result<(), String> {
    let sim = Sim::boot(image);
    sim.keep_history();
    let _ = open(&sim);
    for (second, (moment, _)) in sim.history().iter().enumerate() {
        at_moment(moment, seed, tried, |image, _| {
            check(&Sim::boot(image), progress)
        })
        .map_err(|wrong| format!("operation {second} of the recovery, {wrong}"))?;
    }
    Ok(())
}

/// One life; its number is the seed.
fn life(sim: &Sim, seed: u64, mix: Mix) -> Result<(Tried, Tried), String> {
    sim.keep_history();
    let outcome = run(sim, seed, 45, mix);
    assert!(outcome.error.is_none());
    let mut history = sim.history();
    history.push((sim.now(), outcome.progress.len() - 1));
    let (mut once, mut twice) = (Tried::default(), Tried::default());
    let mut states = 0;
    for (operation, (moment, mark)) in history.iter().enumerate() {
        let progress = &outcome.progress[*mark];
        let seed = seed ^ (operation as u64) << 8;
        at_moment(moment, seed, &mut once, |image, _| {
            check(&Sim::boot(image), progress)?;
            states += 1;
            match states % 400 {
                0 => in_recovery(image, progress, seed, &mut twice),
                _ => Ok(()),
            }
        })
        .map_err(|wrong| format!("seed {seed}, {mix:?}, operation {operation}, {wrong}"))?;
    }
    Ok((once, twice))
}

#[test]
fn no_loss_of_power_loses_what_was_acknowledged() {
    let seed = seed(1000);
    let (lives, least) = match thorough() {
        true => (120, 200_000),
        false => (2, 1000),
    };
    let (mut once, mut twice) = (Tried::default(), Tried::default());
    let mixes = [Mix::All, Mix::Log];
    for (first, second) in in_parallel(lives, |n| {
        life(&Sim::default(), seed + n as u64, mixes[n % 2])
    }) {
        once.add(&first);
        twice.add(&second);
    }
    for (kind, (first, second)) in KINDS.iter().zip(once.0.iter().zip(twice.0)) {
        println!("lost {kind:?}: {first} states, {second} in the middle of a recovery");
        assert!(*first > 0, "no state of kind {kind:?}");
        assert!(second > 0 || !thorough(), "none of {kind:?} in a recovery");
    }
    let total = once.total() + twice.total();
    println!("{total} states that a loss of power leaves, nothing acknowledged was missed");
    assert!(total >= least, "only {total} states");
}

#[test]
fn a_sync_that_is_left_out_is_noticed() {
    for (files, names) in [(Some(".seg"), false), (Some("META"), false), (None, true)] {
        let noticed = (1..4).any(|seed| {
            let sim = Sim::default();
            sim.be_deaf(files, names);
            life(&sim, seed, Mix::Log).is_err()
        });
        assert!(noticed, "files {files:?}, names {names}");
    }
}
