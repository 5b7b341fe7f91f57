//! Random lives against the storage in memory, which does the same in an obvious way: whatever is
//! written, lost and landed, both find the same at the next start. The seed is printed;
//! `RAFTKEEL_SEED` replays it.

use super::*;
use crate::core::{Configuration, Position, Random, Snapshot};
use crate::storage::{Draft, Memory};

const LIVES: u64 = 300;

struct Pair {
    random: Random,
    memory: Memory,
    host: Store,
    hard: HardState,
    /// Terms from the base on; that of the base is the first.
    base: Position,
    terms: Vec<Term>,
    durable: Index,
    token: u64,
    snapshot: Index,
}

fn config() -> Arc<Configuration> {
    Arc::new(Configuration {
        epoch: 1,
        voters: vec![node(3)],
        ..Configuration::default()
    })
}

impl Pair {
    fn last(&self) -> Position {
        Position {
            index: self.base.index + self.terms.len() as u64,
            term: self.terms.last().copied().unwrap_or(self.base.term),
        }
    }

    fn term(&self, index: Index) -> Term {
        match index.checked_sub(self.base.index + 1) {
            Some(at) => self.terms[at as usize],
            None => self.base.term,
        }
    }

    /// Appends, replaces a tail, or only votes.
    fn write(&mut self, reset: Option<Snapshot>) {
        let kind = self.random.between(0, 4);
        if kind == 0 || self.last().term > self.hard.term || self.hard.term == 0 {
            self.hard.term = self.last().term.max(self.hard.term) + 1;
            self.hard.vote = NodeId::new(self.random.between(0, 3));
        }
        // What is durable may be replaced as well, but not what a snapshot stands for.
        let low = self.base.index.max(self.snapshot) + 1;
        let first = match kind {
            1 if low <= self.last().index => self.random.between(low, self.last().index + 1),
            _ => self.last().index + 1,
        };
        let count = self.random.between(0, 4);
        let mut entries = Vec::new();
        if count > 0 {
            self.terms.truncate((first - 1 - self.base.index) as usize);
            self.durable = self.durable.min(first - 1);
            for index in first..first + count {
                entries.push(entry(index, self.hard.term));
                self.terms.push(self.hard.term);
            }
        }
        self.token += 1;
        let persist = Persist {
            token: Token(self.token),
            hard: Some(self.hard),
            reset,
            entries,
        };
        self.memory.submit(persist.clone());
        self.host.storage.submit(persist);
    }

    /// Some of what is under way is finished.
    fn finish(&mut self, most: u64) {
        for _ in 0..self.random.between(0, most + 1) {
            if !self.memory.complete_next(true) {
                break;
            }
            let number = self.host.fake.land().expect("both have as much under way");
            self.host.report(number, Ok(()));
        }
        let done: Vec<u64> = std::iter::from_fn(|| self.memory.poll())
            .map(|c| c.token.0)
            .collect();
        let told: Vec<u64> = self.host.polled().iter().map(|(token, _)| *token).collect();
        assert_eq!(done, told);
        if self.memory.waiting().is_empty() {
            self.durable = self.last().index;
        }
    }

    /// A snapshot of its own, up to something durable; and perhaps the log before it goes.
    fn save(&mut self) {
        let low = self.base.index.max(self.snapshot) + 1;
        if low > self.durable {
            return;
        }
        let index = self.random.between(low, self.durable + 1);
        let draft = Draft {
            last: Position {
                index,
                term: self.term(index),
            },
            config: config(),
            config_index: 1,
            pieces: None,
        };
        for storage in [&mut self.memory as &mut dyn Storage, &mut self.host.storage] {
            let mut writer = storage.write_snapshot(draft.clone()).unwrap();
            writer.write(&index.to_le_bytes()).unwrap();
            writer.finish().unwrap();
        }
        self.snapshot = index;
        if self.random.between(0, 2) == 0 {
            let upto = self.random.between(self.base.index, index + 1);
            let base = Position {
                index: upto,
                term: self.term(upto),
            };
            self.memory.trim(base).unwrap();
            self.host.storage.trim(base).unwrap();
            self.terms.drain(..(upto - self.base.index) as usize);
            self.base = base;
        }
    }

    /// A leader's snapshot takes the place of the log.
    fn install(&mut self) {
        let index = self.last().index + self.random.between(1, 5);
        let image = index.to_le_bytes();
        self.hard.term = self.hard.term.max(self.last().term).max(1) + 1;
        self.hard.vote = None;
        let snapshot = Snapshot {
            last: Position {
                index,
                term: self.hard.term,
            },
            config: config(),
            config_index: 1,
            size: 8,
            crc: crc32fast::hash(&image),
            pieces: None,
        };
        // Its term is written before the image counts, for the storage in memory knows no other way.
        self.write(None);
        for storage in [&mut self.memory as &mut dyn Storage, &mut self.host.storage] {
            storage.store_piece(&snapshot, 0, &image[..3]).unwrap();
            storage.store_piece(&snapshot, 3, &image[3..]).unwrap();
            storage.adopt(&snapshot).unwrap();
        }
        self.snapshot = index;
        self.base = snapshot.last;
        self.terms.clear();
        self.durable = index;
        self.write(Some(snapshot));
    }

    /// Both stop, and find the same. What is under way lands in part.
    fn crash(&mut self) -> Restored {
        let landed = self.random.between(0, 4) as usize;
        let expected = self.memory.crash_landed(landed);
        self.host = self.host.again(landed);
        let mut found = self.host.restored().clone();
        if found.hard.term != expected.hard.term {
            // The term of a snapshot whose leader's was not stored.
            let last = expected
                .snapshot
                .as_ref()
                .expect("no snapshot, no excuse")
                .last;
            assert_eq!((last.term, None), (found.hard.term, found.hard.vote));
            found.hard = expected.hard;
        }
        // What was received in part is received anew.
        assert_eq!(
            Restored {
                partial: None,
                ..expected
            },
            found
        );
        self.host.restored().clone()
    }
}

fn live(seed: u64) {
    let mut random = Random::new(seed);
    let mut pair = Pair {
        memory: Memory::new(),
        host: Store::new(),
        hard: HardState::default(),
        base: Position::default(),
        terms: Vec::new(),
        durable: 0,
        token: 0,
        snapshot: 0,
        random: Random::new(random.next_u64()),
    };
    pair.memory.hold(true);
    for _ in 0..random.between(1, 6) {
        for _ in 0..random.between(0, 20) {
            match random.between(0, 12) {
                0 => pair.save(),
                1 => pair.install(),
                2..=4 => pair.finish(3),
                _ => pair.write(None),
            }
        }
        let restored = pair.crash();
        let image = restored.snapshot.as_ref().map_or(0, |s| s.last.index);
        pair.hard = restored.hard;
        pair.base = restored.base;
        pair.terms = restored.entries.iter().map(|e| e.term).collect();
        pair.snapshot = image;
        pair.durable = pair.last().index;
        pair.token = 0;
        pair.memory = Memory::with(restored, Bytes::from(&image.to_le_bytes()[..]), Vec::new());
        pair.memory.hold(true);
        pair.host.begin();
    }
}

#[test]
fn random_lives_are_those_of_storage_in_memory() {
    let seed = std::env::var("RAFTKEEL_SEED").map(|text| text.parse().expect("a number"));
    let lives = seed.as_ref().map_or(0..LIVES, |seed| *seed..*seed + 1);
    for seed in lives {
        let result = std::panic::catch_unwind(|| live(seed));
        if let Err(panic) = result {
            eprintln!("failed: RAFTKEEL_SEED={seed} replays it");
            std::panic::resume_unwind(panic);
        }
    }
}
