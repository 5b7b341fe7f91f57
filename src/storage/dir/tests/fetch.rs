//! Reading entries back: the same as what was written, in any amount, whatever was replaced; and
//! after a failed read the same may be asked again.

use std::sync::Arc;

use super::super::frame::HEADER;
use super::super::page::{PAGE, SECTOR};
use super::super::{Directory, Options};
use super::sim::{Loss, Sim};
use super::{INSTANCE, OPTIONS, Rng, identity, seed};
use crate::core::{Bytes, Entry, HardState, Payload, Persist, Token};
use crate::storage::{Storage, StorageError};

/// A directory whose log was written in groups of all sizes, some of them replaced by later ones.
struct Sample {
    sim: Sim,
    directory: Directory,
    log: Vec<Entry>,
    term: u64,
    rng: Rng,
}

impl Sample {
    fn new(seed: u64, options: Options) -> Sample {
        let sim = Sim::default();
        Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
        let opened = Directory::open_on(Box::new(sim.clone()), &identity(), options);
        Sample {
            directory: opened.unwrap().0,
            sim,
            log: Vec::new(),
            term: 0,
            rng: Rng(seed),
        }
    }

    fn grow(&mut self, writes: u64) {
        for _ in 0..writes {
            let last = self.log.len() as u64;
            let back = match self.rng.below(5) {
                0 => self.rng.below(20).min(last),
                _ => 0,
            };
            let count = 1 + self.rng.below(9);
            let len = match self.rng.below(20) {
                0 => 200_000,
                1 => 20_000,
                _ => self.rng.below(2000),
            };
            self.write(last + 1 - back, count, len as usize);
        }
    }

    fn write(&mut self, first: u64, count: u64, len: usize) {
        self.term += 1;
        let term = self.term;
        let entry = |index| Entry {
            index,
            term,
            payload: Payload::Host(Bytes::from(vec![(term + index) as u8; len])),
        };
        let entries: Vec<Entry> = (first..first + count).map(entry).collect();
        self.log.truncate(first as usize - 1);
        self.log.extend_from_slice(&entries);
        self.directory.submit(Persist {
            token: Token(1),
            hard: Some(HardState {
                term,
                ..HardState::default()
            }),
            reset: None,
            entries,
        });
        self.directory.poll().unwrap().result.unwrap();
    }

    /// What must be fetched, unless less is, for the sake of what has to be read for it.
    fn most(&self, first: u64, last: u64, bytes: usize) -> &[Entry] {
        let rest = &self.log[first as usize - 1..last.min(self.log.len() as u64) as usize];
        let mut weight = 0;
        let fitting = rest.iter().take_while(|entry| {
            weight += entry.payload.weight();
            weight <= bytes
        });
        let fitting = fitting.count();
        &rest[..fitting.max(1)]
    }

    fn check(&mut self, first: u64, last: u64, bytes: usize) {
        let found = self.directory.fetch(first, last, bytes).unwrap();
        let most = self.most(first, last, bytes);
        assert!(!found.is_empty() && found.len() <= most.len());
        assert!(
            found == most[..found.len()],
            "{first} to {last}, {bytes} bytes"
        );
        if bytes == usize::MAX {
            assert_eq!(found.len(), most.len());
        }
    }
}

#[test]
fn whatever_is_asked_for_comes_back() {
    for (round, segment_bytes) in [16 * 1024, 300_000, 2_000_000].into_iter().enumerate() {
        let mut sample = Sample::new(
            seed(20) + round as u64,
            Options {
                segment_bytes,
                ..Options::default()
            },
        );
        for _ in 0..10 {
            sample.grow(15);
            for _ in 0..40 {
                let end = sample.log.len() as u64;
                let first = 1 + sample.rng.below(end);
                let last = first + sample.rng.below(end + 3);
                let bytes = sample.rng.below(60_000) as usize;
                sample.check(first, last, bytes);
                sample.check(first, first, 0);
            }
            sample.check(1, u64::MAX, usize::MAX);
        }
        // The same from what an opening finds.
        let reopened = Directory::open_on(Box::new(sample.sim.clone()), &identity(), OPTIONS);
        sample.directory = reopened.unwrap().0;
        sample.grow(5);
        for first in 1..=sample.log.len() as u64 {
            sample.check(first, u64::MAX, 5000);
        }
        sample.check(1, u64::MAX, usize::MAX);
    }
}

#[test]
fn what_is_not_in_the_log_is_an_error() {
    let mut sample = Sample::new(1, OPTIONS);
    sample.write(1, 5, 10);
    for (first, last) in [(0, 3), (6, 9), (3, 2)] {
        assert!(sample.directory.fetch(first, last, 1000).is_err());
    }
}

#[test]
fn a_failed_read_may_be_asked_for_again() {
    let mut sample = Sample::new(seed(21), OPTIONS);
    sample.grow(20);
    let end = sample.log.len() as u64;
    for first in 1..=end {
        let mut reads = 0;
        loop {
            sample.sim.fail_read_after(Some(reads));
            let found = sample.directory.fetch(first, end, 100_000);
            sample.sim.fail_read_after(None);
            match found {
                Ok(found) => assert!(found == sample.log[first as usize - 1..][..found.len()]),
                Err(StorageError::Io { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            sample.check(first, end, 100_000);
            reads += 1;
            if reads == 10 {
                break;
            }
        }
    }
    sample.grow(3);
    sample.check(1, u64::MAX, usize::MAX);
}

/// Damage behind the back of a running process: what is handed out is right or nothing is.
#[test]
fn damage_is_never_handed_out() {
    let mut sample = Sample::new(seed(22), OPTIONS);
    for _ in 0..20 {
        let next = sample.log.len() as u64 + 1;
        let back = sample.rng.below(4).min(next - 1);
        let len = sample.rng.below(4000) as usize;
        sample.write(next - back, 3, len);
    }
    let image = sample.sim.now().lose_power(Loss::All);
    let end = sample.log.len() as u64;
    let mut refused = 0;
    for name in image.keys().filter(|name| name.ends_with(".seg")) {
        let whole = &image[name];
        let anywhere = (PAGE / SECTOR..whole.len() / SECTOR).map(|n| n * SECTOR + n % SECTOR);
        // What kind of an entry it is, says the byte behind its index and its term.
        let kinds = (1..whole.len() / PAGE).map(|page| page * PAGE + HEADER + 16);
        for at in anywhere.chain(kinds) {
            let mut data = whole.as_ref().clone();
            data[at] ^= 0x40;
            sample.sim.put(name, Arc::new(data));
            for first in (1..=end).step_by(5) {
                match sample.directory.fetch(first, end, usize::MAX) {
                    Ok(found) => assert!(found == sample.log[first as usize - 1..][..found.len()]),
                    Err(StorageError::Corrupt { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        for len in [0, 100, PAGE, whole.len() / 2, whole.len() - 3] {
            sample.sim.put(name, Arc::new(whole[..len].to_vec()));
            match sample.directory.fetch(1, end, usize::MAX) {
                Ok(found) => assert!(found == sample.log[..found.len()]),
                Err(StorageError::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        sample.sim.put(name, whole.clone());
    }
    println!("{refused} refused");
    assert!(refused > 50);
    sample.check(1, u64::MAX, usize::MAX);
}
