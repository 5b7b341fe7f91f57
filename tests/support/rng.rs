//! Where random tests get their numbers from: a seed, or bytes that a fuzzer chooses and changes.

#![allow(dead_code, reason = "each test file uses its part")]

/// A small generator, enough for tests and the same everywhere.
pub struct Rng<'a>(Source<'a>);

enum Source<'a> {
    /// splitmix64.
    Seed(u64),
    /// Read from front to back, and followed by zeros without end.
    Bytes(&'a [u8]),
}

impl<'a> Rng<'a> {
    /// Seeded by `RAFTKEEL_SEED` or, without it, by the time; prints which seed it is.
    pub fn for_test(name: &str) -> Rng<'a> {
        let seed = match std::env::var("RAFTKEEL_SEED") {
            Ok(text) => text.parse().expect("RAFTKEEL_SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |d| d.as_nanos() as u64),
        };
        println!("{name}: RAFTKEEL_SEED={seed}");
        Rng::seeded(seed)
    }

    /// The same numbers for the same seed.
    pub fn seeded(seed: u64) -> Rng<'a> {
        Rng(Source::Seed(seed))
    }

    /// What `bytes` say: a fuzzer that changes some of them changes a few decisions, not all.
    pub fn of(bytes: &'a [u8]) -> Rng<'a> {
        Rng(Source::Bytes(bytes))
    }

    /// Whether the bytes have been used up; never with a seed.
    pub fn is_done(&self) -> bool {
        matches!(self.0, Source::Bytes([]))
    }

    pub fn next(&mut self) -> u64 {
        match &mut self.0 {
            Source::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
            Source::Bytes(bytes) => {
                let (head, rest) = bytes.split_at(bytes.len().min(8));
                *bytes = rest;
                let mut word = [0; 8];
                word[..head.len()].copy_from_slice(head);
                u64::from_le_bytes(word)
            }
        }
    }

    pub fn byte(&mut self) -> u8 {
        match &mut self.0 {
            Source::Seed(_) => self.next() as u8,
            Source::Bytes(bytes) => match bytes.split_first() {
                Some((byte, rest)) => {
                    *bytes = rest;
                    *byte
                }
                None => 0,
            },
        }
    }

    /// 0 .. `end`, which is excluded. Takes one byte where one is enough.
    pub fn below(&mut self, end: u64) -> u64 {
        match &self.0 {
            Source::Bytes(_) if end <= 256 => u64::from(self.byte()) % end,
            _ => self.next() % end,
        }
    }

    /// Numbers of every magnitude, the extremes often.
    pub fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            _ => self.next() >> self.below(64),
        }
    }

    pub fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Fewer than `end` bytes.
    pub fn bytes(&mut self, end: u64) -> Vec<u8> {
        (0..self.below(end)).map(|_| self.byte()).collect()
    }
}
