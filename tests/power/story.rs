//! A life of a directory that is told by its seed alone: what was done in so many steps is known without
//! having seen it.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use raftkeel::core::{
    Configuration, Entry, HardState, NodeId, Payload, Persist, Position, Snapshot, Token,
};
use raftkeel::storage::{
    Directory, Draft, Identity, Opened, Options, SnapshotReader, Storage, StorageError,
};

const STEPS: u64 = 40;
const INSTANCE: u64 = 0x5eed;

fn identity() -> Identity {
    Identity {
        cluster: 7,
        node: NodeId::new(1).unwrap(),
    }
}

/// In every other life of those with threads into room that is only reserved.
fn options(seed: u64) -> Options {
    Options {
        segment_bytes: 16 * 1024,
        ahead_bytes: 32 * 1024,
        large_group_bytes: if seed.is_multiple_of(4) { 0 } else { u64::MAX },
        ..Options::default()
    }
}

/// splitmix64
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// How many steps were acknowledged; `None` before the directory was made.
#[derive(Clone, Copy, Debug)]
pub struct Done(Option<u64>);

impl Done {
    /// The last one that a process spoke of.
    pub fn heard(said: &str) -> Done {
        let steps = said.lines().filter_map(|line| line.strip_prefix("done "));
        Done(steps.filter_map(|step| step.parse().ok()).next_back())
    }
}

/// What a directory must hold.
#[derive(Clone, Debug, Default)]
struct Model {
    hard: HardState,
    log: Vec<Entry>,
    /// The last two, oldest first.
    snapshots: Vec<Snapshot>,
    /// The log may begin behind any entry up to here.
    trimmed: u64,
}

enum Step {
    Write(Option<HardState>, Vec<Entry>),
    Save(Draft, Vec<u8>),
    Trim(Position),
    Reopen,
}

fn bytes(seed: u64, len: u64) -> Vec<u8> {
    let mut rng = Rng(seed);
    (0..len).map(|_| rng.next() as u8).collect()
}

fn image(last: Position, size: u64) -> Vec<u8> {
    bytes(last.index << 20 ^ last.term, size)
}

impl Model {
    fn last(&self) -> u64 {
        self.log.len() as u64
    }

    fn position(&self, index: u64) -> Position {
        let nth = index.checked_sub(1).map(|nth| &self.log[nth as usize]);
        Position {
            index,
            term: nth.map_or(0, |entry| entry.term),
        }
    }

    fn newest(&self) -> u64 {
        self.snapshots.last().map_or(0, |s| s.last.index)
    }

    /// What is done next.
    fn next(&self, rng: &mut Rng) -> Step {
        match rng.below(16) {
            0 | 1 => Step::Write(Some(self.voted(rng)), Vec::new()),
            2 | 3 if self.last() > self.newest() => self.save(rng),
            4 if !self.snapshots.is_empty() => Step::Trim(self.snapshots[0].last),
            5 => Step::Reopen,
            6 | 7 => self.replace(rng),
            _ => self.append(rng, self.last()),
        }
    }

    fn voted(&self, rng: &mut Rng) -> HardState {
        HardState {
            term: self.hard.term + 1,
            vote: NodeId::new(rng.below(4)),
            ..self.hard
        }
    }

    fn append(&self, rng: &mut Rng, behind: u64) -> Step {
        let hard = (self.hard.term == 0 || rng.below(4) == 0).then(|| self.voted(rng));
        let term = hard.unwrap_or(self.hard).term;
        let count = 1 + rng.below(4);
        let entries = (behind + 1..=behind + count).map(|index| Entry {
            index,
            term,
            payload: Payload::Host(bytes(rng.next(), 1 << rng.below(13)).into()),
        });
        Step::Write(hard, entries.collect())
    }

    /// Entries that no image holds give way to others.
    fn replace(&self, rng: &mut Rng) -> Step {
        let back = rng.below(1 + (self.last() - self.newest()).min(5));
        self.append(rng, self.last() - back)
    }

    fn save(&self, rng: &mut Rng) -> Step {
        let index = self.newest() + 1 + rng.below(self.last() - self.newest());
        let last = self.position(index);
        let config = Configuration {
            epoch: 1,
            voters: NodeId::new(1).into_iter().collect(),
            ..Configuration::default()
        };
        let draft = Draft {
            last,
            config: Arc::new(config),
            config_index: 1,
            pieces: None,
        };
        let image = image(last, 1 << rng.below(18));
        Step::Save(draft, image)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Write(hard, entries) => {
                self.hard = hard.unwrap_or(self.hard);
                if let Some(first) = entries.first() {
                    self.log.truncate(first.index as usize - 1);
                }
                self.log.extend_from_slice(entries);
            }
            Step::Save(draft, image) => {
                let crc = crc32fast::hash(image);
                self.snapshots.push(draft.finished(image.len() as u64, crc));
                let surplus = self.snapshots.len().saturating_sub(2);
                self.snapshots.drain(..surplus);
            }
            Step::Trim(base) => self.trimmed = base.index,
            Step::Reopen => {}
        }
    }

    /// What may be found while a step is taken.
    fn during(&self, step: &Step) -> Vec<Model> {
        let mut all = vec![self.clone()];
        if let Step::Write(hard, _) = step {
            let mut half = self.clone();
            half.hard = hard.unwrap_or(half.hard);
            all.push(half);
        }
        if let Step::Trim(base) = step {
            all[0].trimmed = base.index;
        }
        let mut after = self.clone();
        after.apply(step);
        all.push(after);
        all
    }

    fn allows(&self, opened: &Opened) -> bool {
        let found = &opened.restored;
        let base = found.base;
        let begins = base.index <= self.trimmed && self.position(base.index) == base;
        found.hard == self.hard
            && found.snapshot.as_ref() == self.snapshots.last()
            && begins
            && found.entries == self.log[base.index as usize..]
    }
}

// ---- in the process that is to die ---------------------------------------

fn submit(directory: &mut Directory, persist: Persist) -> Result<(), StorageError> {
    directory.submit(persist);
    directory.start();
    loop {
        match directory.poll() {
            Some(completion) => return completion.result,
            None => thread::yield_now(),
        }
    }
}

fn take(directory: &mut Directory, step: &Step) -> Result<(), StorageError> {
    match step {
        Step::Write(hard, entries) => {
            let persist = Persist {
                token: Token(1),
                hard: *hard,
                reset: None,
                entries: entries.clone(),
            };
            submit(directory, persist)
        }
        Step::Save(draft, image) => {
            let mut writer = directory.write_snapshot(draft.clone())?;
            writer.write(image)?;
            writer.finish().map(|_| ())
        }
        Step::Trim(base) => directory.trim(*base),
        Step::Reopen => Ok(()),
    }
}

/// Opened, and every other time written by a thread, or by the system itself where it does that.
fn opened(path: &Path, seed: u64) -> Result<Directory, StorageError> {
    let (mut directory, _) = Directory::open_with(path, &identity(), options(seed))?;
    if seed.is_multiple_of(2) {
        directory.spawn_writer(Arc::new(|| {}))?;
    }
    Ok(directory)
}

/// Makes the directory and does all of it, saying each step that is done.
pub fn live(path: &Path, seed: u64) -> Result<(), StorageError> {
    Directory::create(path, &identity(), INSTANCE)?;
    let mut directory = Some(opened(path, seed)?);
    let (mut model, mut rng) = (Model::default(), Rng(seed));
    println!("\ndone 0");
    for number in 1..=STEPS {
        let step = model.next(&mut rng);
        if let Step::Reopen = step {
            directory = None;
        }
        let directory = match &mut directory {
            Some(directory) => directory,
            closed => closed.insert(opened(path, seed)?),
        };
        take(directory, &step)?;
        model.apply(&step);
        println!("\ndone {number}");
    }
    Ok(())
}

// ---- afterwards ----------------------------------------------------------

fn read_all(reader: &mut dyn SnapshotReader) -> Result<Vec<u8>, StorageError> {
    let (mut image, mut buf) = (Vec::new(), vec![0; 30_011]);
    loop {
        match reader.read_at(image.len() as u64, &mut buf)? {
            0 => return Ok(image),
            len => image.extend_from_slice(&buf[..len]),
        }
    }
}

/// What may be found when so many steps were done, and another one may have been under way.
fn states(seed: u64, done: u64) -> Vec<Model> {
    let (mut model, mut rng) = (Model::default(), Rng(seed));
    for _ in 0..done {
        let step = model.next(&mut rng);
        model.apply(&step);
    }
    match done < STEPS {
        true => model.during(&model.next(&mut rng)),
        false => vec![model],
    }
}

/// Opens it, compares everything, goes on, and does so once more.
pub fn check(path: &Path, seed: u64, done: Done) -> Result<(), String> {
    let open = || Directory::open_with(path, &identity(), options(seed));
    let (mut directory, opened) = match (open(), done) {
        (Ok(opened), _) => opened,
        (Err(StorageError::Missing { .. }), Done(None)) => return Ok(()),
        (Err(error), _) => return Err(error.to_string()),
    };
    let states = states(seed, done.0.unwrap_or(0));
    let Some(mut model) = states.into_iter().find(|state| state.allows(&opened)) else {
        return Err(format!("found {:?}", opened.restored));
    };
    if opened.instance != INSTANCE {
        return Err("another instance".to_owned());
    }
    for snapshot in &model.snapshots {
        let read = directory.read_snapshot(snapshot);
        let read = read.and_then(|mut reader| read_all(&mut *reader));
        let read = read.map_err(|error| error.to_string())?;
        if read != image(snapshot.last, snapshot.size) {
            return Err(format!("another image of {snapshot:?}"));
        }
    }
    let step = model.append(&mut Rng(1), model.last());
    take(&mut directory, &step).map_err(|error| format!("cannot go on: {error}"))?;
    model.apply(&step);
    drop(directory);
    let (_, opened) = open().map_err(|error| format!("later: {error}"))?;
    match model.allows(&opened) {
        true => Ok(()),
        false => Err(format!("later found {:?}", opened.restored)),
    }
}
