//! Logs as the model keeps them: an entry is its term and the hash of it and of all before it.

use std::sync::Arc;

use super::data::{Config, Entry, mix};

/// What stands at an index: two logs with the same `chain` there are the same up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub term: u64,
    pub chain: u64,
}

impl Place {
    /// What follows if this entry is appended.
    pub fn then(self, entry: &Entry) -> Place {
        Place {
            term: entry.term,
            chain: mix(&(self.chain, entry.term, entry.hash)),
        }
    }
}

/// A log, and the configurations in it. What a node drops from its head stays here: it is
/// committed, and known.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// From index 1.
    places: Vec<Place>,
    /// Ascending by index.
    configs: Vec<(u64, Arc<Config>)>,
}

impl Log {
    /// Appends what is known to be committed.
    pub fn push_known(&mut self, place: Place) {
        self.places.push(place);
    }

    /// Names a configuration, which stands higher than those before.
    pub fn push_config(&mut self, index: u64, config: &Arc<Config>) {
        self.configs.push((index, config.clone()));
    }

    pub fn last(&self) -> u64 {
        self.places.len() as u64
    }

    pub fn place(&self, index: u64) -> Option<Place> {
        match index {
            0 => Some(Place::default()),
            _ => self.places.get(index as usize - 1).copied(),
        }
    }

    pub fn term(&self, index: u64) -> Option<u64> {
        self.place(index).map(|place| place.term)
    }

    /// Index and term of the last entry.
    pub fn end(&self) -> (u64, u64) {
        (self.last(), self.places.last().map_or(0, |p| p.term))
    }

    pub fn push(&mut self, entry: &Entry) -> Place {
        let before = self.places.last().copied().unwrap_or_default();
        let place = before.then(entry);
        self.places.push(place);
        if let Some(config) = &entry.config {
            self.configs.push((self.last(), config.clone()));
        }
        place
    }

    pub fn truncate(&mut self, kept: u64) {
        self.places.truncate(kept as usize);
        while self.configs.last().is_some_and(|(index, _)| *index > kept) {
            self.configs.pop();
        }
    }

    /// The newest configuration, committed or not (thesis 4.1).
    pub fn config(&self) -> Option<&(u64, Arc<Config>)> {
        self.configs.last()
    }

    /// The newest configuration not above an index.
    pub fn config_at(&self, index: u64) -> Option<&(u64, Arc<Config>)> {
        self.configs.iter().rev().find(|(at, _)| *at <= index)
    }
}

/// A part of a log on its way to the disk.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    /// Index of the first of the places; what the disk holds from there on is replaced.
    first: u64,
    /// What stands before it, if it is not all of a log.
    before: Option<Place>,
    places: Vec<Place>,
    configs: Vec<(u64, Arc<Config>)>,
}

impl Tail {
    /// A whole log, to be put in the place of all that there is.
    pub fn whole(log: Log) -> Tail {
        Tail {
            first: 1,
            before: None,
            places: log.places,
            configs: log.configs,
        }
    }

    /// These entries, to be put after `before`.
    pub fn new(first: u64, entries: &[Entry], before: Place) -> Tail {
        let (mut places, mut configs, mut place) = (Vec::new(), Vec::new(), before);
        for (index, entry) in (first..).zip(entries) {
            place = place.then(entry);
            places.push(place);
            configs.extend(entry.config.iter().map(|c| (index, c.clone())));
        }
        Tail {
            first,
            before: Some(before),
            places,
            configs,
        }
    }

    /// Whether it goes on from what the log holds.
    pub fn follows(&self, log: &Log) -> bool {
        let empty = self.places.is_empty() || self.before.is_none();
        empty || log.place(self.first - 1) == self.before
    }

    /// Index and place of the last entry.
    pub fn end(&self) -> Option<(u64, Place)> {
        let last = self.places.last()?;
        Some((self.first + self.places.len() as u64 - 1, *last))
    }

    /// What a log holds at an index when this is written; nothing if this does not reach there.
    pub fn place(&self, index: u64) -> Option<Option<Place>> {
        let offset = index.checked_sub(self.first).map(|offset| offset as usize);
        let reaches = !self.places.is_empty();
        offset
            .filter(|_| reaches)
            .map(|at| self.places.get(at).copied())
    }

    pub fn write(self, log: &mut Log) {
        if !self.places.is_empty() {
            log.truncate(self.first - 1);
            log.places.extend(self.places);
            log.configs.extend(self.configs);
        }
    }
}
