//! A log as a start reads it back: how much of it is kept in memory is bounded.

use std::sync::Arc;

use crate::core::{Configuration, Entry, Index, Log, Outline, Payload, Position, Term};

use super::StorageError;

/// The log so far: terms and configurations of all of it, and the last entries.
#[derive(Debug, Default)]
pub(super) struct ReadBack {
    log: Log,
    configs: Vec<(Index, Arc<Configuration>)>,
    /// Bytes of entries that are handed out, counted by [`Payload::weight`].
    most: usize,
}

impl ReadBack {
    /// An empty one behind `base`.
    pub(super) fn behind(base: Position, most: usize) -> ReadBack {
        let mut read = ReadBack {
            most,
            ..ReadBack::default()
        };
        read.reset(base);
        read
    }

    pub(super) fn base(&self) -> Position {
        self.log.base()
    }

    /// Place and term of the last entry, that of the base if there is none.
    pub(super) fn last(&self) -> Position {
        self.log.last()
    }

    /// The term of the entry at `index`, if it is in the log or where the log begins.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    /// Whether the log holds what stands at `at`, or begins behind it.
    pub(super) fn holds(&self, at: Position) -> bool {
        self.log.matches(at)
    }

    /// The newest configuration in it.
    pub(super) fn config(&self) -> Option<&Configuration> {
        self.configs.last().map(|(_, config)| &**config)
    }

    /// Drops everything, and goes on behind `base`.
    pub(super) fn reset(&mut self, base: Position) {
        self.log.reset(base);
        self.configs.clear();
    }

    /// Drops everything from `first` on.
    pub(super) fn truncate(&mut self, first: Index) {
        self.log.truncate(first);
        self.configs.retain(|(index, _)| *index < first);
    }

    /// Makes sure of memory for so many more entries.
    pub(super) fn reserve(&mut self, count: usize) -> Result<(), StorageError> {
        match self.log.reserve(count) {
            true => Ok(()),
            false => Err(StorageError::NoMemory),
        }
    }

    /// Goes on with an entry, which continues the log.
    pub(super) fn push(&mut self, entry: Entry) {
        if let Payload::Config(config, _) = &entry.payload {
            self.configs.push((entry.index, config.clone()));
        }
        self.log.push(entry);
        // Moving what stays costs as much as there is of it.
        if self.log.bytes_in_memory() > self.most.saturating_mul(2) {
            self.log.forget(self.log.last_index(), self.most);
        }
    }

    /// Goes on with entries up to `last` that stay in storage, as all before them do: the first index
    /// of every term, and the configurations.
    pub(super) fn pass(
        &mut self,
        terms: &[Position],
        mut configs: Vec<(Index, Arc<Configuration>)>,
        last: Index,
    ) {
        for (at, run) in terms.iter().enumerate() {
            let upto = terms.get(at + 1).map_or(last, |next| next.index - 1);
            self.log.skip(upto, run.term);
        }
        self.configs.append(&mut configs);
    }

    /// The first index of every term behind the base.
    pub(super) fn terms(&self) -> &[Position] {
        self.log.terms()
    }

    /// What stays in storage, and the entries behind it.
    pub(super) fn into_parts(mut self) -> (Option<Outline>, Vec<Entry>) {
        self.log.forget(self.log.last_index(), self.most);
        let outline = self.log.outline().map(|outline| {
            self.configs.retain(|(index, _)| *index <= outline.last);
            Outline {
                configs: self.configs,
                ..outline
            }
        });
        (outline, self.log.into_tail())
    }
}

/// Fetches the entries that an opening has left in storage; an error if they are not those of the
/// outline.
#[cfg(any(test, fuzzing))]
pub(super) fn unfold(
    storage: &mut dyn super::Storage,
    restored: &mut crate::core::Restored,
) -> Result<(), super::StorageError> {
    let Some(outline) = restored.outline.take() else {
        return Ok(());
    };
    let mut read = ReadBack::behind(restored.base, usize::MAX);
    let other = || super::StorageError::Record {
        index: 0,
        what: "not what the outline says",
    };
    while read.last().index < outline.last {
        let next = read.last().index + 1;
        for entry in storage.fetch(next, outline.last, 10_000)? {
            if entry.term < read.last().term {
                return Err(other());
            }
            read.push(entry);
        }
    }
    if outline.terms != read.terms() || outline.configs != read.configs {
        return Err(other());
    }
    let (_, mut entries) = read.into_parts();
    entries.append(&mut restored.entries);
    restored.entries = entries;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: Index, term: u64) -> Entry {
        let payload = match index % 7 {
            0 => Payload::Config(Arc::default(), Vec::new().into()),
            _ => Payload::Host(vec![0; 100].into()),
        };
        Entry {
            index,
            term,
            payload,
        }
    }

    fn at(index: Index, term: u64) -> Position {
        Position { index, term }
    }

    /// Entries to 100 behind 10, a new term every 20, the last ones replaced by one of a later term.
    fn read(most: usize) -> ReadBack {
        let mut read = ReadBack::behind(at(10, 1), most);
        for index in 11..=100 {
            read.push(entry(index, 1 + index / 20));
        }
        assert!(read.holds(at(50, 3)) && !read.holds(at(50, 4)) && !read.holds(at(9, 1)));
        read.truncate(40);
        read.push(entry(40, 9));
        read
    }

    #[test]
    fn everything_is_handed_out_if_there_is_room() {
        let (outline, entries) = read(1 << 20).into_parts();
        assert_eq!((None, 30), (outline, entries.len()));
    }

    #[test]
    fn what_stays_in_storage_is_outlined() {
        for most in [0, 1, 300, 1000] {
            let read = read(most);
            assert_eq!((at(10, 1), at(40, 9)), (read.base(), read.last()));
            let (outline, entries) = read.into_parts();
            let outline = outline.expect("not all of it has room");
            let weight: usize = entries.iter().map(|e| e.payload.weight()).sum();
            assert!(weight <= most);
            assert_eq!(40, outline.last + entries.len() as u64);
            let terms = [at(11, 1), at(20, 2), at(40, 9)];
            let terms = terms.into_iter().filter(|run| run.index <= outline.last);
            assert_eq!(terms.collect::<Vec<_>>(), outline.terms);
            let configs: Vec<Index> = outline.configs.iter().map(|(index, _)| *index).collect();
            let all = [14, 21, 28, 35].into_iter();
            let expected: Vec<Index> = all.filter(|index| *index <= outline.last).collect();
            assert_eq!(expected, configs);
        }
    }
}
