//! The program around one server: it applies what is committed, at its own pace, and tells its
//! clients what became of their requests.

use std::collections::VecDeque;

use raftkeel::core::{Bytes, Entry, Index, Payload, Term};

use crate::queue::Micros;

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

/// One run of a host.
pub struct Host {
    pub pace: Pace,
    pub applied: Index,
    busy_until: Micros,
    /// By index.
    waiting: VecDeque<Waiting>,
}

impl Host {
    pub fn new(pace: Pace) -> Host {
        Host {
            pace,
            applied: 0,
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
            self.applied = entry.index;
            // Terms in a log never decrease: what waits beyond an entry of a later term is lost.
            let settled = |w: &Waiting| w.index <= entry.index || w.term < entry.term;
            while self.waiting.front().is_some_and(settled)
                && let Some(next) = self.waiting.pop_front()
            {
                let mine = (next.term, next.index) == (entry.term, entry.index);
                let outcome = match mine {
                    true => Outcome::Done(entry.term, entry.index),
                    false => Outcome::Lost,
                };
                tell(next.proposal, outcome);
            }
        }
        if !entries.is_empty() {
            self.busy_until = now + self.pace.takes;
        }
        self.busy_until.max(now)
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
