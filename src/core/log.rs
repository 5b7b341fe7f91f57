//! The log in memory, and how much of it is durable.

use super::types::{Entry, Index, Payload, Restored, Term};

/// Contiguous entries from index 1.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    /// Everything up to here is on disk as it is here; a truncation lowers it at once
    /// (raft.md rule 28).
    durable: Index,
}

impl Log {
    /// The log as storage found it, all of it durable.
    pub fn restore(restored: Restored) -> Log {
        let mut log = Log::default();
        for entry in restored.entries {
            log.push(entry);
        }
        log.durable = log.last_index();
        log
    }

    /// Index of the last entry, 0 if there is none.
    pub fn last_index(&self) -> Index {
        self.entries.len() as Index
    }

    /// Term of the last entry, 0 if there is none.
    pub fn last_term(&self) -> Term {
        self.entries.last().map_or(0, |e| e.term)
    }

    /// Term of the entry at `index`; 0 at index 0, `None` beyond the end.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == 0 {
            return Some(0);
        }
        self.entries.get(index as usize - 1).map(|e| e.term)
    }

    /// The entry at `index`.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get((index as usize).checked_sub(1)?)
    }

    /// Entries from `first` on; empty beyond the end.
    pub fn from(&self, first: Index) -> &[Entry] {
        assert!(first >= 1, "the log starts at index 1");
        self.entries.get(first as usize - 1..).unwrap_or(&[])
    }

    /// Entries from `first` on whose weight fits in `bytes`, at least one, at most `count`
    /// (raft.md rule 22: an entry larger than a batch travels alone).
    pub fn batch(&self, first: Index, bytes: usize, count: usize) -> &[Entry] {
        let tail = self.from(first);
        let mut size = 0;
        let fitting = tail
            .iter()
            .take(count)
            .take_while(|entry| {
                size += entry.payload.weight();
                size <= bytes
            })
            .count();
        &tail[..fitting.max(1).min(tail.len())]
    }

    /// Everything up to here is durable.
    pub fn durable(&self) -> Index {
        self.durable
    }

    /// A write of everything up to `index` has completed. `index` is what the write still
    /// covers after later truncations, so durability never goes back here.
    pub fn completed(&mut self, index: Index) {
        assert!(
            index <= self.last_index(),
            "durable beyond the end of the log"
        );
        self.durable = self.durable.max(index);
    }

    /// Appends one entry.
    pub fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last_index() + 1, "the log has no gaps");
        assert!(
            entry.term >= self.last_term(),
            "terms in the log never decrease"
        );
        self.entries.push(entry);
    }

    /// Drops everything from `first` on.
    pub fn truncate(&mut self, first: Index) {
        assert!(first >= 1, "the log starts at index 1");
        self.entries.truncate(first as usize - 1);
        self.durable = self.durable.min(first - 1);
    }

    /// Whether a log that ends with `(last_term, last_index)` holds at least as much as this one
    /// (paper 5.4.1).
    pub fn is_up_to_date(&self, last_term: Term, last_index: Index) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last_index())
    }

    /// The largest index not above `limit` whose term is at most `term` (raft.md rule 19).
    pub fn find_term_at_most(&self, limit: Index, term: Term) -> Index {
        let limit = limit.min(self.last_index());
        let head = &self.entries[..limit as usize];
        head.partition_point(|e| e.term <= term) as Index
    }

    /// Configurations in the log, in order.
    pub fn configurations(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|e| matches!(e.payload, Payload::Config(..)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[Term]) -> Log {
        let mut log = Log::default();
        for (i, term) in terms.iter().enumerate() {
            log.push(Entry {
                index: i as Index + 1,
                term: *term,
                payload: Payload::Host(vec![0; 10].into()),
            });
        }
        log
    }

    #[test]
    fn terms_are_known_within_the_log_and_before_it() {
        let log = log(&[1, 1, 3]);
        assert_eq!(
            [Some(0), Some(1), Some(1), Some(3), None],
            [0, 1, 2, 3, 4].map(|i| log.term(i))
        );
    }

    #[test]
    fn truncation_takes_durability_along() {
        let mut log = log(&[1, 1, 1]);
        log.completed(3);
        log.truncate(2);
        assert_eq!((1, 1), (log.last_index(), log.durable()));
    }

    #[test]
    fn up_to_date_compares_terms_before_lengths() {
        let log = log(&[1, 2]);
        assert!(log.is_up_to_date(3, 1));
        assert!(log.is_up_to_date(2, 2));
        assert!(!log.is_up_to_date(2, 1));
        assert!(!log.is_up_to_date(1, 9));
    }

    #[test]
    fn a_hint_skips_whole_terms() {
        let log = log(&[1, 1, 4, 4, 4, 6]);
        assert_eq!(2, log.find_term_at_most(5, 3));
        assert_eq!(5, log.find_term_at_most(9, 5));
        assert_eq!(0, log.find_term_at_most(6, 0));
    }

    #[test]
    fn a_batch_holds_at_least_one_entry() {
        let log = log(&[1, 1, 1, 1]);
        assert_eq!(1, log.batch(1, 5, 100).len());
        assert_eq!(2, log.batch(1, 150, 100).len());
        assert_eq!(3, log.batch(2, 1000, 100).len());
        assert_eq!(1, log.batch(2, 1000, 1).len());
        assert!(log.batch(5, 1000, 100).is_empty());
    }
}
