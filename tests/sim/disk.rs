//! The disk of one node: writes complete late, never, or not at all, and a crash leaves some
//! first few of those under way.

use std::collections::VecDeque;

use crate::dice::{Dice, Ppm};
use crate::marks::Fault::*;
use crate::queue::{Micros, NEVER};

/// What a disk is like, from the seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nature {
    /// A write takes between these.
    pub latency: (Micros, Micros),
    /// Some take up to `stall` more.
    pub stalls: Ppm,
    pub stall: Micros,
    /// Some fail.
    pub fails: Ppm,
}

/// How a disk works at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As its nature is.
    Good,
    /// Nothing completes.
    Stuck,
    /// A write has failed: nothing is known of those after it.
    Failed,
}

/// What is durable, and what is under way: atomic writes.
pub struct Disk<I, W> {
    pub image: I,
    pub health: Health,
    /// At present every write takes so much longer.
    pub slowness: Micros,
    nature: Nature,
    writes: VecDeque<W>,
    /// When the newest write completes.
    busy_until: Micros,
}

impl<I: Default, W> Disk<I, W> {
    pub fn new(nature: Nature) -> Disk<I, W> {
        Disk {
            image: I::default(),
            health: Health::Good,
            slowness: 0,
            nature,
            writes: VecDeque::new(),
            busy_until: 0,
        }
    }

    /// Takes a write in; when it completes.
    pub fn start(&mut self, now: Micros, write: W, dice: &mut Dice) -> Micros {
        self.writes.push_back(write);
        if self.health != Health::Good {
            return NEVER;
        }
        let nature = &self.nature;
        let mut takes = self.slowness + dice.within(nature.latency.0, nature.latency.1);
        if dice.chance(nature.stalls) {
            WriteStalled.hit();
            takes += dice.below(nature.stall);
        }
        // One after the other.
        self.busy_until = self.busy_until.max(now + takes);
        self.busy_until
    }

    /// The oldest write is done, for good or ill.
    pub fn finish(&mut self, dice: &mut Dice) -> Finished<W> {
        match self.health {
            Health::Good if self.writes.is_empty() => Finished::Nothing,
            Health::Good if dice.chance(self.nature.fails) => self.fail(),
            Health::Good => self
                .writes
                .pop_front()
                .map_or(Finished::Nothing, Finished::Landed),
            Health::Stuck | Health::Failed => Finished::Nothing,
        }
    }

    /// The oldest write fails. What is on the disk now is known after a restart.
    pub fn fail(&mut self) -> Finished<W> {
        if self.writes.is_empty() {
            return Finished::Nothing;
        }
        WriteFailed.hit();
        self.health = Health::Failed;
        Finished::Failed
    }

    /// What has been under way for longest.
    pub fn oldest(&self) -> Option<&W> {
        self.writes.front()
    }

    /// How many writes are under way.
    pub fn under_way(&self) -> usize {
        self.writes.len()
    }

    /// Works, and has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.health == Health::Good && self.writes.is_empty()
    }

    /// The node stops. The writes that reached the disk, in their order: any first few. The one
    /// after them may have been cut off, which is for whoever knows what is in it.
    pub fn crash(&mut self, dice: &mut Dice) -> (Vec<W>, Option<W>) {
        let under_way = self.writes.len();
        let landed = match dice.below(4) {
            0 => 0,
            1 => under_way,
            _ => dice.within(0, under_way as u64) as usize,
        };
        if under_way > 0 {
            match landed {
                0 => WritesLost.hit(),
                n if n == under_way => WritesLanded.hit(),
                _ => SomeWritesLost.hit(),
            }
        }
        self.health = Health::Good;
        (self.busy_until, self.slowness) = (0, 0);
        let mut writes = std::mem::take(&mut self.writes);
        let mut lost = writes.split_off(landed);
        (writes.into(), lost.pop_front())
    }

    /// Stalls and failures end, and what is under way completes now, one after the other.
    pub fn calm(&mut self, latency: Micros) -> usize {
        let nature = &mut self.nature;
        nature.latency.0 = nature.latency.0.min(latency);
        nature.latency.1 = nature.latency.1.min(latency);
        (nature.stalls, nature.fails) = (0, 0);
        (self.busy_until, self.slowness) = (0, 0);
        self.unstick()
    }

    /// A stuck disk works again: so many writes complete now.
    pub fn unstick(&mut self) -> usize {
        if self.health == Health::Failed {
            return 0;
        }
        self.health = Health::Good;
        self.writes.len()
    }
}

/// What came of a write.
pub enum Finished<W> {
    Nothing,
    Landed(W),
    /// The oldest has failed, and may be on the disk all the same.
    Failed,
}
