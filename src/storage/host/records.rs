//! What the host gives back, checked record by record as it comes.

use crate::core::{Entry, Index, Position, Term};
use crate::storage::read_back::ReadBack;
use crate::storage::{Identity, StorageError};

use super::record::{Flaw, Seal, State};
use super::{corrupt, place};

/// Takes what is stored from the host, while it runs the function that got this.
#[derive(Debug)]
pub struct Records {
    wanted: Wanted,
    /// What was wrong first; from then on nothing is taken.
    failure: Option<StorageError>,
}

#[derive(Debug)]
enum Wanted {
    /// Everything.
    All(Box<Found>),
    /// Some entries.
    Some(Fetch),
}

/// All that a store holds.
#[derive(Debug)]
pub(super) struct Found {
    identity: Identity,
    takes_images: bool,
    pub(super) state: Option<(State, Seal)>,
    /// The log; `None` if not an entry was given.
    pub(super) log: Option<ReadBack>,
    tail_bytes: usize,
    /// Numbers and sizes.
    pub(super) images: Vec<(u64, u64)>,
}

/// Entries that are wanted.
#[derive(Debug)]
struct Fetch {
    seal: Seal,
    first: Index,
    last: Index,
    bytes: usize,
    entries: Vec<Entry>,
    weight: usize,
}

impl Records {
    /// Takes everything that belongs to this node, and keeps so many bytes of the last entries.
    pub(super) fn all(identity: Identity, takes_images: bool, tail_bytes: usize) -> Records {
        Records::wanting(Wanted::All(Box::new(Found {
            identity,
            takes_images,
            state: None,
            log: None,
            tail_bytes,
            images: Vec::new(),
        })))
    }

    /// Takes entries from `first` to at most `last`, about as many as weigh `bytes`.
    pub(super) fn some(seal: Seal, first: Index, last: Index, bytes: usize) -> Records {
        Records::wanting(Wanted::Some(Fetch {
            seal,
            first,
            last,
            bytes,
            entries: Vec::new(),
            weight: 0,
        }))
    }

    fn wanting(wanted: Wanted) -> Records {
        Records {
            wanted,
            failure: None,
        }
    }

    /// The state, before everything else.
    pub fn state(&mut self, record: &[u8]) -> Result<(), &StorageError> {
        self.take(|wanted| match wanted {
            Wanted::All(found) => found.take_state(record),
            Wanted::Some(_) => Err(corrupt(0, "state where entries were asked for")),
        })
    }

    /// An entry, in the order of their indexes. `false`: it and what comes after it is not needed.
    pub fn entry(&mut self, index: Index, record: &[u8]) -> Result<bool, &StorageError> {
        self.take(|wanted| match wanted {
            Wanted::All(found) => found.take_entry(index, record).map(|()| true),
            Wanted::Some(fetch) => fetch.take_entry(index, record),
        })
    }

    /// A committed image and its size in bytes.
    pub fn image(&mut self, image: u64, size: u64) -> Result<(), &StorageError> {
        self.take(|wanted| match wanted {
            Wanted::All(found) => found.take_image(image, size),
            Wanted::Some(_) => Err(corrupt(0, "image where entries were asked for")),
        })
    }

    /// A record came that has no bytes.
    pub fn refuse(&mut self) -> Result<(), &StorageError> {
        self.take(|_| Err(corrupt(0, "record without bytes")))
    }

    fn take<T>(
        &mut self,
        take: impl FnOnce(&mut Wanted) -> Result<T, StorageError>,
    ) -> Result<T, &StorageError> {
        if self.failure.is_none() {
            match take(&mut self.wanted) {
                Ok(taken) => return Ok(taken),
                Err(error) => self.failure = Some(error),
            }
        }
        match &self.failure {
            Some(error) => Err(error),
            None => panic!("what fails leaves its reason"),
        }
    }

    /// Everything that was given, if nothing was wrong with it.
    pub(super) fn found(self) -> Result<Found, StorageError> {
        match (self.failure, self.wanted) {
            (Some(error), _) => Err(error),
            (None, Wanted::All(found)) => Ok(*found),
            (None, Wanted::Some(_)) => panic!("entries were asked for, not everything"),
        }
    }

    /// The entries that were given, if nothing was wrong with them.
    pub(super) fn entries(self) -> Result<Vec<Entry>, StorageError> {
        match (self.failure, self.wanted) {
            (Some(error), _) => Err(error),
            (None, Wanted::Some(fetch)) => Ok(fetch.entries),
            (None, Wanted::All(_)) => panic!("everything was asked for, not some entries"),
        }
    }

    /// Whether something was wrong.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }
}

impl Found {
    fn take_state(&mut self, record: &[u8]) -> Result<(), StorageError> {
        if self.state.is_some() {
            return Err(corrupt(0, "second state"));
        }
        let state = State::decode(record).map_err(|flaw| flawed(flaw, 0))?;
        if state.identity != self.identity {
            return Err(StorageError::Foreign {
                path: place(),
                found: state.identity,
                asked: self.identity,
            });
        }
        let seal = Seal::new(&state.identity, state.instance);
        self.state = Some((state, seal));
        Ok(())
    }

    fn take_entry(&mut self, index: Index, record: &[u8]) -> Result<(), StorageError> {
        let Some((_, seal)) = &self.state else {
            return Err(corrupt(index, "entry, and no state before it"));
        };
        let previous = self.log.as_ref().map(|log| log.last());
        let previous = previous.map(|last| (last.index, last.term));
        let (before, entry) = decoded(seal, previous, index, record)?;
        let behind = Position {
            index: index - 1,
            term: before,
        };
        let empty = || ReadBack::behind(behind, self.tail_bytes);
        let log = self.log.get_or_insert_with(empty);
        log.reserve(1)?;
        log.push(entry);
        Ok(())
    }

    fn take_image(&mut self, image: u64, size: u64) -> Result<(), StorageError> {
        if !self.takes_images {
            return Err(corrupt(0, "image, and no snap_get to read it with"));
        }
        // Images are numbered on from the highest.
        let possible = (1..=u64::MAX / 2).contains(&image);
        if !possible || self.images.iter().any(|(known, _)| *known == image) {
            return Err(corrupt(0, "image with an impossible number"));
        }
        self.images.push((image, size));
        Ok(())
    }

    /// Whether nothing was ever written here.
    pub(super) fn is_empty(&self) -> bool {
        self.state.is_none() && self.log.is_none() && self.images.is_empty()
    }
}

impl Fetch {
    fn take_entry(&mut self, index: Index, record: &[u8]) -> Result<bool, StorageError> {
        if self.is_full() {
            return Ok(false);
        }
        let previous = self.entries.last().map(|e| (e.index, e.term));
        if previous.is_none() && index != self.first {
            return Err(corrupt(index, "another entry than the first asked for"));
        }
        let (_, entry) = decoded(&self.seal, previous, index, record)?;
        let weight = self.weight + entry.payload.weight();
        if weight > self.bytes && previous.is_some() {
            return Ok(false);
        }
        self.entries.try_reserve(1)?;
        self.weight = weight;
        self.entries.push(entry);
        Ok(!self.is_full())
    }

    fn is_full(&self) -> bool {
        let last = self.entries.last();
        last.is_some_and(|e| e.index >= self.last || self.weight >= self.bytes)
    }
}

/// An entry that fits behind the one before it, if there is one.
fn decoded(
    seal: &Seal,
    previous: Option<(Index, Term)>,
    index: Index,
    record: &[u8],
) -> Result<(Term, Entry), StorageError> {
    if previous.is_some_and(|(at, _)| at.checked_add(1) != Some(index)) {
        return Err(corrupt(index, "the entry before this one is missing"));
    }
    let (before, entry) = seal
        .decode_entry(index, record)
        .map_err(|flaw| flawed(flaw, index))?;
    if previous.is_some_and(|(_, term)| term != before) {
        return Err(corrupt(index, "the entry before this one is another"));
    }
    Ok((before, entry))
}

pub(super) fn flawed(flaw: Flaw, index: Index) -> StorageError {
    match flaw {
        Flaw::Bad(what) => corrupt(index, what),
        Flaw::Newer(found) => StorageError::Version {
            path: place(),
            found,
        },
        Flaw::NoMemory => StorageError::NoMemory,
    }
}
