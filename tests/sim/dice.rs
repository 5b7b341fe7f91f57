//! The dice: everything that is left to chance in a run comes from one seed.

use raftkeel::core::Random;

/// Chances are counted in millionths.
pub type Ppm = u32;

/// A source of draws.
pub struct Dice(Random);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        // Neighbouring seeds give unrelated runs.
        let mut random = Random::new(seed.wrapping_mul(0xd134_2543_de82_ef95));
        random.next_u64();
        Dice(random)
    }

    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 to `count - 1`.
    pub fn below(&mut self, count: u64) -> u64 {
        self.0.between(0, count)
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        self.0.between(low, high + 1)
    }

    /// Every order of magnitude between `low` and `high` is as likely as the others.
    pub fn scaled(&mut self, low: u64, high: u64) -> u64 {
        assert!(0 < low && low <= high, "no scale from {low} to {high}");
        let octaves = u64::from((high / low).ilog2());
        let base = low << self.below(octaves + 1);
        self.within(base, (2 * base).min(high))
    }

    /// True with this chance; an impossible thing costs no draw.
    pub fn chance(&mut self, ppm: Ppm) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }

    pub fn coin(&mut self) -> bool {
        self.word() >> 63 == 1
    }

    /// True once in `count` times.
    pub fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// One of the places, as likely as its weight says.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (place, weight) in weights.iter().enumerate() {
            if at < *weight {
                return place;
            }
            at -= weight;
        }
        unreachable!("the weights add up")
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
