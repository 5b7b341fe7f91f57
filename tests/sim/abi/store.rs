//! What a host's database holds for its member: a state, a log and images, all of them bytes.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::dice::Dice;

/// One write: all of it is stored, or nothing.
#[derive(Debug)]
pub struct Batch {
    pub number: u64,
    pub state: Vec<u8>,
    pub cut: u64,
    pub first: u64,
    pub entries: Vec<Rc<[u8]>>,
    /// The member's term when it was taken.
    pub term: u64,
}

/// The bytes of one snapshot.
#[derive(Default)]
pub struct Picture {
    pub bytes: Vec<u8>,
    pub committed: bool,
}

/// All that is durable, and images that are not yet.
#[derive(Default)]
pub struct Store {
    pub state: Vec<u8>,
    pub log: BTreeMap<u64, Rc<[u8]>>,
    pub images: BTreeMap<u64, Picture>,
    /// The number of the last batch that has reached the disk.
    pub landed: u64,
}

impl Store {
    /// Nothing was ever stored.
    pub fn is_blank(&self) -> bool {
        self.state.is_empty()
    }

    /// There is neither a log nor a snapshot, and so no vote.
    pub fn holds_nothing(&self) -> bool {
        self.log.is_empty() && !self.images.values().any(|image| image.committed)
    }

    /// A batch has reached the disk.
    pub fn land(&mut self, batch: Batch) {
        self.landed = batch.number;
        self.state = batch.state;
        self.log.split_off(&batch.cut);
        self.log.extend((batch.first..).zip(batch.entries));
    }

    pub fn trim(&mut self, index: u64) {
        self.log = self.log.split_off(&(index + 1));
    }

    /// The machine stops: of images that were not committed anything may be left.
    pub fn crash(&mut self, dice: &mut Dice) {
        self.images.retain(|_, image| {
            if !image.committed {
                let kept = dice.within(0, image.bytes.len() as u64) as usize;
                image.bytes.truncate(kept);
            }
            image.committed || dice.coin()
        });
    }
}
