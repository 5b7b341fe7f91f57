//! The program around one server: it applies what is committed, at its own pace, makes and loads
//! snapshots of its state, and tells its clients what became of their requests.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::sync::Arc;

use raftkeel::core::{
    Bytes, Configuration, Entry, Index, Payload, Position, Random, Snapshot, Term,
};

use crate::queue::Micros;
use crate::trace::{Mixer, hash_payload};

/// What a client is told of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands in the log at this place, for ever.
    Done(Term, Index),
    /// It never took effect and never will.
    Lost,
    /// Nobody can say.
    Unknown,
}

/// How fast a host applies, from the seed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Entries that it takes at once.
    pub batch: usize,
    /// And how long it works on them.
    pub takes: Micros,
}

impl Pace {
    pub const FAST: Pace = Pace {
        batch: usize::MAX,
        takes: 0,
    };
}

/// A proposal whose entry has a place and no outcome.
struct Waiting {
    proposal: u64,
    term: Term,
    index: Index,
}

/// What the host's state is after an entry, given what it was before.
pub fn next_state(state: u64, index: Index, payload: u64) -> u64 {
    let mut mixer = Mixer::new();
    mixer.write_u64(state);
    mixer.write_u64(index);
    mixer.write_u64(payload);
    // 0 stands for a state that is not known.
    mixer.finish().max(1)
}

/// The state of a host that has applied nothing.
pub const EMPTY: u64 = 1;

/// One run of a host.
pub struct Host {
    pub pace: Pace,
    /// What was applied last, and the state since.
    pub applied: Position,
    pub state: u64,
    /// The newest configuration that was applied, and where it stands.
    config: (Index, Arc<Configuration>),
    /// It will be asked whether it has room again.
    pub awaited: bool,
    /// It writes a snapshot.
    pub saving: bool,
    busy_until: Micros,
    /// By index.
    waiting: VecDeque<Waiting>,
}

impl Host {
    pub fn new(pace: Pace) -> Host {
        Host {
            pace,
            applied: Position::default(),
            state: EMPTY,
            config: (0, Arc::default()),
            awaited: false,
            saving: false,
            busy_until: 0,
            waiting: VecDeque::new(),
        }
    }

    /// How many entries it would take now.
    pub fn room(&self, now: Micros) -> usize {
        if now < self.busy_until {
            0
        } else {
            self.pace.batch
        }
    }

    /// Applies entries; when it has room for more.
    pub fn apply(
        &mut self,
        now: Micros,
        entries: &[Entry],
        mut tell: impl FnMut(u64, Outcome),
    ) -> Micros {
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            self.applied = Position { index, term };
            self.state = match self.state {
                0 => 0,
                state => next_state(state, index, hash_payload(&entry.payload)),
            };
            if let Payload::Config(config, _) = &entry.payload {
                self.config = (index, config.clone());
            }
            self.settle(
                |waiting| match waiting.term == term {
                    true => Outcome::Done(term, index),
                    false => Outcome::Lost,
                },
                &mut tell,
            );
        }
        if !entries.is_empty() {
            self.busy_until = now + self.pace.takes;
        }
        self.busy_until.max(now)
    }

    /// Ends the wait for all that is decided by what was applied last.
    fn settle(
        &mut self,
        outcome_there: impl Fn(&Waiting) -> Outcome,
        tell: &mut impl FnMut(u64, Outcome),
    ) {
        let Position { index, term } = self.applied;
        // Terms in a log never decrease: what waits beyond an entry of a later term is lost.
        let settled = |w: &Waiting| w.index <= index || w.term < term;
        while self.waiting.front().is_some_and(settled)
            && let Some(next) = self.waiting.pop_front()
        {
            let outcome = match next.index <= index {
                true => outcome_there(&next),
                false => Outcome::Lost,
            };
            tell(next.proposal, outcome);
        }
    }

    /// A proposal of its own was taken.
    pub fn proposed(&mut self, proposal: u64, term: Term, index: Index) {
        // A leader that was deposed and has returned takes places anew, and its old entries may
        // still be committed by others.
        let at = self.waiting.partition_point(|w| w.index <= index);
        let waiting = Waiting {
            proposal,
            term,
            index,
        };
        self.waiting.insert(at, waiting);
    }

    /// Proposals that have no outcome.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// It stops, and nobody learns any more what became of these.
    pub fn abandon(&mut self, mut tell: impl FnMut(u64, Outcome)) {
        for waiting in self.waiting.drain(..) {
            tell(waiting.proposal, Outcome::Unknown);
        }
    }

    // ---- snapshots -------------------------------------------------------

    /// Its state as an image of this size; whoever has the same salt writes the same bytes.
    pub fn save(&self, size: usize, salt: u64) -> (Snapshot, Bytes) {
        let image = draw_image(self.applied.index, self.state, salt, size);
        let snapshot = Snapshot {
            last: self.applied,
            config: self.config.1.clone(),
            config_index: self.config.0,
            size: image.len() as u64,
            crc: checksum(&image),
            pieces: None,
        };
        (snapshot, image)
    }

    /// Takes on the state of an image, in place of its own.
    pub fn load(&mut self, snapshot: &Snapshot, image: &[u8], mut tell: impl FnMut(u64, Outcome)) {
        self.applied = snapshot.last;
        self.config = (snapshot.config_index, snapshot.config.clone());
        self.state = read_image(snapshot.last.index, image);
        // Whether it was one of those that the state is made of is not to be seen in it.
        self.settle(|_| Outcome::Unknown, &mut tell);
    }
}

/// Tells images apart; which checksum it is does not matter to those who send them.
pub fn checksum(image: &[u8]) -> u32 {
    let mut mixer = Mixer::new();
    mixer.write(image);
    mixer.finish() as u32
}

/// Numbers before the filling: index, state, salt.
const HEAD: usize = 24;

fn draw_image(index: Index, state: u64, salt: u64, size: usize) -> Bytes {
    if size == 0 {
        return Bytes::from([]);
    }
    let mut image = Vec::with_capacity(size.max(HEAD));
    for number in [index, state, salt] {
        image.extend_from_slice(&number.to_le_bytes());
    }
    let mut filling = Random::new(index ^ state ^ salt);
    while image.len() < size {
        image.push(filling.next_u64() as u8);
    }
    image.into()
}

/// The state in an image; 0 if it holds none.
fn read_image(index: Index, image: &[u8]) -> u64 {
    if image.is_empty() {
        return 0;
    }
    let number = |at: usize| {
        let bytes = image.get(8 * at..8 * at + 8).expect("an image has a head");
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    };
    let (state, salt) = (number(1), number(2));
    let right = draw_image(index, state, salt, image.len());
    assert!(
        *right == *image,
        "I14: the image of snapshot {index} is mixed up"
    );
    state
}

/// Data that name their proposal and are as long as wanted.
pub fn data_of(proposal: u64, len: usize) -> Bytes {
    let mut data = proposal.to_le_bytes().to_vec();
    data.resize(len.max(8), b'-');
    data.into()
}

/// Which proposal it was.
pub fn proposal_of(payload: &Payload) -> Option<u64> {
    let Payload::Host(data) = payload else {
        return None;
    };
    let number = data.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_what_was_saved() {
        let mut host = Host::new(Pace::FAST);
        host.applied = Position { index: 7, term: 2 };
        host.state = 12345;
        for size in [1, 24, 100] {
            let (snapshot, image) = host.save(size, 9);
            assert_eq!(image.len().max(HEAD) as u64, snapshot.size);
            assert_eq!(12345, read_image(7, &image));
        }
        assert_eq!(0, read_image(7, &host.save(0, 9).1));
    }

    #[test]
    #[should_panic(expected = "mixed up")]
    fn bytes_of_two_images_make_none() {
        let host = Host::new(Pace::FAST);
        let (first, second) = (host.save(100, 1).1, host.save(100, 2).1);
        let mixed: Vec<u8> = first[..50].iter().chain(&second[50..]).copied().collect();
        read_image(0, &mixed);
    }
}
