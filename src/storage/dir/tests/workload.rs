//! A node's life as its disk sees it: terms, votes, entries, conflicts, restarts; and the check
//! that what is found afterwards is what was acknowledged.

use std::sync::Arc;

use super::super::Directory;
use super::sim::{Loss, Sim};
use super::{INSTANCE, OPTIONS, Rng, identity};
use crate::core::{
    Bytes, Configuration, Entry, Exclusion, HardState, NodeId, Payload, Persist, Restored, Token,
};
use crate::storage::memory::apply;
use crate::storage::{Storage, StorageError};

/// How far a workload got, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Whether `create` has returned.
    pub(super) created: bool,
    /// The last incarnation handed out.
    pub(super) incarnation: u32,
    /// What was acknowledged.
    pub(super) acknowledged: Restored,
    /// The write under way, if any.
    pub(super) submitted: Option<Persist>,
}

/// What a workload left behind.
pub(super) struct Outcome {
    /// One for each mark that the disk was given.
    pub(super) progress: Vec<Progress>,
    /// Why it ended early.
    pub(super) error: Option<StorageError>,
}

impl Outcome {
    pub(super) fn last(&self) -> &Progress {
        self.progress.last().unwrap()
    }
}

struct Run<'a> {
    sim: &'a Sim,
    rng: Rng,
    now: Progress,
    progress: Vec<Progress>,
    token: u64,
}

/// Creates a directory, opens it, and writes `steps` times, with restarts in between.
pub(super) fn run(sim: &Sim, seed: u64, steps: u64) -> Outcome {
    let mut run = Run {
        sim,
        rng: Rng(seed),
        now: Progress::default(),
        progress: Vec::new(),
        token: 0,
    };
    run.note();
    let error = run.all(steps).err();
    Outcome {
        progress: run.progress,
        error,
    }
}

impl Run<'_> {
    fn note(&mut self) {
        self.sim.mark(self.progress.len());
        self.progress.push(self.now.clone());
    }

    fn all(&mut self, steps: u64) -> Result<(), StorageError> {
        Directory::create_on(&mut self.sim.clone(), &identity(), INSTANCE)?;
        self.now.created = true;
        self.note();
        let mut directory = self.open()?;
        for step in 1..=steps {
            if step % 9 == 0 {
                drop(directory);
                directory = self.open()?;
            }
            self.write(&mut directory)?;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Directory, StorageError> {
        let (directory, opened) =
            Directory::open_on(Box::new(self.sim.clone()), &identity(), OPTIONS)?;
        assert_eq!(opened.restored, self.now.acknowledged);
        assert_eq!((opened.torn_bytes, opened.meta_repaired), (0, false));
        assert!(opened.incarnation > self.now.incarnation);
        self.now.incarnation = opened.incarnation;
        self.note();
        Ok(directory)
    }

    fn write(&mut self, directory: &mut Directory) -> Result<(), StorageError> {
        let persist = self.persist();
        self.now.submitted = Some(persist.clone());
        self.note();
        directory.submit(persist.clone());
        let completion = directory.poll().unwrap();
        assert_eq!(completion.token, persist.token);
        if completion.result.is_err() {
            self.expect_silence(directory);
        }
        completion.result?;
        apply(&mut self.now.acknowledged, &persist);
        self.now.submitted = None;
        self.note();
        Ok(())
    }

    /// After a failure nothing is written and nothing succeeds.
    fn expect_silence(&mut self, directory: &mut Directory) {
        let before = self.sim.operations();
        let persist = self.persist();
        directory.submit(persist.clone());
        let completion = directory.poll().unwrap();
        assert_eq!(completion.token, persist.token);
        assert!(completion.result.is_err());
        assert_eq!(self.sim.operations(), before, "something was tried again");
    }

    fn persist(&mut self) -> Persist {
        self.token += 1;
        let what = self.rng.below(4);
        let hard = (what != 0).then(|| self.hard());
        let term = hard.unwrap_or(self.now.acknowledged.hard).term;
        let entries = match what {
            3 => Vec::new(),
            _ if term == 0 => Vec::new(),
            _ => self.entries(term),
        };
        Persist {
            token: Token(self.token),
            hard,
            reset: None,
            entries,
        }
    }

    fn hard(&mut self) -> HardState {
        let old = self.now.acknowledged.hard;
        let epoch = self.rng.below(9);
        match self.rng.below(4) {
            0 => old,
            1 => HardState {
                vote: old.vote.or(NodeId::new(1 + self.rng.below(3))),
                ..old
            },
            2 => HardState {
                term: old.term + 1,
                vote: NodeId::new(self.rng.below(3)),
                ..old
            },
            _ => HardState {
                excluded: match old.excluded {
                    Some(_) => None,
                    None => Some(Exclusion { epoch, index: 3 }),
                },
                ..old
            },
        }
    }

    fn entries(&mut self, term: u64) -> Vec<Entry> {
        let last = self.now.acknowledged.entries.len() as u64;
        let back = match self.rng.below(3) {
            0 => self.rng.below(6).min(last),
            _ => 0,
        };
        let first = last + 1 - back;
        let count = 1 + self.rng.below(4);
        (first..first + count)
            .map(|index| Entry {
                index,
                term,
                payload: self.payload(),
            })
            .collect()
    }

    fn payload(&mut self) -> Payload {
        match self.rng.below(6) {
            0 => Payload::Noop,
            1 => Payload::Cluster(Bytes::from(vec![7; 40])),
            2 => {
                let configuration = Configuration {
                    epoch: 1 + self.rng.below(100),
                    voters: (1..4).filter_map(NodeId::new).collect(),
                    ..Configuration::default()
                };
                Payload::Config(Arc::new(configuration), Bytes::from(&b"c"[..]))
            }
            // Zeros, so that sectors would be zero if they were stored as they are.
            3 => Payload::Host(Bytes::from(vec![0; self.rng.below(3000) as usize])),
            4 => Payload::Host(Bytes::from(vec![1; self.rng.below(300) as usize])),
            _ => {
                let len = self.rng.below(900);
                let bytes: Vec<u8> = (0..len).map(|_| self.rng.next() as u8).collect();
                Payload::Host(Bytes::from(bytes))
            }
        }
    }
}

/// Checks that a directory holds what it must after the workload got as far as `progress`, that
/// it still does when power fails right after, and that it can be written on.
pub(super) fn check(sim: &Sim, progress: &Progress) -> Result<(), String> {
    let open = |sim: &Sim| Directory::open_on(Box::new(sim.clone()), &identity(), OPTIONS);
    let (mut directory, opened) = match open(sim) {
        Ok(opened) => opened,
        Err(StorageError::Missing { .. }) if !progress.created => {
            let made = Directory::create_on(&mut sim.clone(), &identity(), INSTANCE);
            return made.map_err(|e| format!("cannot be made: {e}"));
        }
        Err(e) => return Err(format!("cannot be opened: {e}")),
    };
    let found = &opened.restored;
    if !allowed(found, progress) {
        return Err(format!("found {found:?}"));
    }
    if opened.incarnation <= progress.incarnation || opened.instance != INSTANCE {
        return Err(format!("incarnation {}", opened.incarnation));
    }
    let reboot = |sim: &Sim| Sim::boot(&sim.now().lose_power(Loss::All));
    expect(&reboot(sim), found)?;
    let hard = HardState {
        term: found.hard.term + 1,
        vote: None,
        ..found.hard
    };
    let persist = Persist {
        token: Token(1),
        hard: Some(hard),
        reset: None,
        entries: vec![Entry {
            index: found.entries.len() as u64 + 1,
            term: hard.term,
            payload: Payload::Host(Bytes::from(vec![0; 2000])),
        }],
    };
    directory.submit(persist.clone());
    directory
        .poll()
        .ok_or("no completion")?
        .result
        .map_err(|e| format!("cannot be written: {e}"))?;
    let mut grown = found.clone();
    apply(&mut grown, &persist);
    expect(&reboot(sim), &grown)
}

fn expect(sim: &Sim, restored: &Restored) -> Result<(), String> {
    match Directory::open_on(Box::new(sim.clone()), &identity(), OPTIONS) {
        Ok((_, opened)) if opened.restored == *restored => Ok(()),
        Ok((_, opened)) => Err(format!("then found {:?}", opened.restored)),
        Err(e) => Err(format!("cannot be opened again: {e}")),
    }
}

/// What was acknowledged, or what was being written: hard state alone, or all of it.
fn allowed(found: &Restored, progress: &Progress) -> bool {
    let mut state = progress.acknowledged.clone();
    if *found == state {
        return true;
    }
    let Some(persist) = &progress.submitted else {
        return false;
    };
    state.hard = persist.hard.unwrap_or(state.hard);
    if *found == state {
        return true;
    }
    apply(&mut state, persist);
    *found == state
}
