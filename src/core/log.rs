//! The log: what of it is in memory, which terms it holds, and how much of it is durable.

use super::types::{Entry, Index, Outline, Payload, Position, Restored, Term};

/// Entries that there is always room for in memory: what a leader appends of its own accord must not
/// depend on whether there is more to be had.
const SPARE: usize = 16;

/// Contiguous entries behind a base.
///
/// The terms of all of them are known; of the entries themselves those that are committed may be
/// dropped from memory, oldest first, and are fetched from storage when somebody needs them again.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Everything up to here was dropped: a snapshot has its place.
    base: Position,
    /// The first index of every term, ascending in both.
    terms: Vec<Position>,
    /// The entries in memory: the last ones.
    tail: Vec<Entry>,
    /// Weight of the tail.
    tail_bytes: usize,
    last: Index,
    /// Everything up to here is on disk as it is here; a truncation lowers it at once
    /// (raft.md rule 28).
    durable: Index,
}

impl Log {
    /// The log as storage found it, all of it durable.
    pub fn restore(restored: Restored) -> Log {
        let mut log = Log::default();
        log.reset(restored.base);
        if let Some(outline) = restored.outline {
            log.pass(outline.terms, outline.last);
        }
        log.take(restored.entries);
        log.durable = log.last;
        log
    }

    /// Takes in the entries behind it, which are not moved: how much memory there is does not matter.
    fn take(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            self.note(entry);
        }
        self.tail = entries;
    }

    /// Takes in entries that stay in storage, behind the base.
    fn pass(&mut self, terms: Vec<Position>, last: Index) {
        let first = self.base.index + 1;
        let ascending =
            |pair: &[Position]| pair[0].index < pair[1].index && pair[0].term < pair[1].term;
        let begins = terms.first().is_some_and(|run| run.index == first);
        let ends = terms.last().is_some_and(|run| run.index <= last);
        let later = terms.first().is_some_and(|run| run.term >= self.base.term);
        assert!(
            begins && ends && later && terms.windows(2).all(ascending),
            "an outline says which terms all of its entries have"
        );
        (self.terms, self.last) = (terms, last);
    }

    /// All that is not in memory, as a start finds it again; without its configurations.
    pub fn outline(&self) -> Option<Outline> {
        let last = self.first_in_memory() - 1;
        let terms = self.terms.iter().filter(|run| run.index <= last);
        (last > self.base.index).then(|| Outline {
            last,
            terms: terms.copied().collect(),
            configs: Vec::new(),
        })
    }

    /// The first index of every term behind the base, ascending in both.
    pub fn terms(&self) -> &[Position] {
        &self.terms
    }

    /// The entries in memory.
    pub fn into_tail(self) -> Vec<Entry> {
        self.tail
    }

    /// What was dropped: the log begins behind it.
    pub fn base(&self) -> Position {
        self.base
    }

    /// Index of the last entry, that of the base if there is none.
    pub fn last_index(&self) -> Index {
        self.last
    }

    /// Term of the last entry, that of the base if there is none.
    pub fn last_term(&self) -> Term {
        self.terms.last().map_or(self.base.term, |run| run.term)
    }

    /// Place and term of the last entry.
    pub fn last(&self) -> Position {
        Position {
            index: self.last,
            term: self.last_term(),
        }
    }

    /// Term of the entry at `index`, or of the base there; `None` before and beyond.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        let run = self.terms.partition_point(|run| run.index <= index);
        assert!(run > 0, "every entry belongs to a term");
        Some(self.terms[run - 1].term)
    }

    /// Whether this log holds what stands at `at`, or stood there before it was dropped.
    pub fn matches(&self, at: Position) -> bool {
        self.term(at.index) == Some(at.term)
    }

    /// Index of the first entry in memory; one beyond the last if there is none.
    pub fn first_in_memory(&self) -> Index {
        self.last + 1 - self.tail.len() as Index
    }

    /// The entry at `index`, if it is in memory.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let at = index.checked_sub(self.first_in_memory())?;
        self.tail.get(at as usize)
    }

    /// Entries from `first` on, which must be in memory; empty beyond the end.
    pub fn from(&self, first: Index) -> &[Entry] {
        let memory = self.first_in_memory();
        assert!(first >= memory, "entry {first} is not in memory");
        self.tail.get((first - memory) as usize..).unwrap_or(&[])
    }

    /// Entries from `first` on, in memory, whose weight fits in `bytes`, at least one, at most
    /// `count` (raft.md rule 22: an entry larger than a batch travels alone).
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
        assert!(index <= self.last, "durable beyond the end of the log");
        self.durable = self.durable.max(index);
    }

    /// Makes sure of memory for so many more entries, without their data. False if there is none, and
    /// then nothing has changed.
    pub fn reserve(&mut self, count: usize) -> bool {
        let count = count.saturating_add(SPARE);
        self.terms.try_reserve(count).is_ok() && self.tail.try_reserve(count).is_ok()
    }

    /// Appends one entry.
    pub fn push(&mut self, entry: Entry) {
        self.note(&entry);
        self.tail.push(entry);
    }

    /// Knows of one more entry, which comes into the tail.
    fn note(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.last + 1, "the log has no gaps");
        let term = self.last_term();
        assert!(entry.term >= term, "terms in the log never decrease");
        if entry.term > term || self.terms.is_empty() {
            self.terms.push(entry.position());
        }
        self.last = entry.index;
        self.tail_bytes += entry.payload.weight();
    }

    /// Goes on with entries of one term, up to `upto`, that stay in storage; so do all before them.
    pub fn skip(&mut self, upto: Index, term: Term) {
        assert!(upto > self.last, "what is skipped continues the log");
        assert!(term >= self.last_term(), "terms in the log never decrease");
        self.forget(self.last, 0);
        if term > self.last_term() || self.terms.is_empty() {
            let index = self.last + 1;
            self.terms.push(Position { index, term });
        }
        self.last = upto;
    }

    /// Drops everything from `first` on, be it in memory or not.
    pub fn truncate(&mut self, first: Index) {
        assert!(
            first > self.base.index,
            "what a snapshot has the place of is never truncated"
        );
        let kept = first.saturating_sub(self.first_in_memory()) as usize;
        let dropped = self.tail.drain(kept.min(self.tail.len())..);
        self.tail_bytes -= dropped.map(|e| e.payload.weight()).sum::<usize>();
        self.last = first - 1;
        self.terms.retain(|run| run.index < first);
        self.durable = self.durable.min(first - 1);
    }

    /// Drops everything up to `upto`, which is within the log, and known to a snapshot.
    pub fn compact(&mut self, upto: Index) {
        let Some(term) = self.term(upto) else {
            panic!("the log is compacted up to {upto}, which it does not hold");
        };
        assert!(upto <= self.durable, "only what is durable is dropped");
        self.forget(upto, 0);
        self.base = Position { index: upto, term };
        let past = self.terms.partition_point(|run| run.index <= upto);
        if past == 0 || upto == self.last {
            self.terms.drain(..past);
            return;
        }
        // The term that the base is in goes on behind it.
        self.terms.drain(..past - 1);
        if self.terms.get(1).is_some_and(|run| run.index == upto + 1) {
            self.terms.remove(0);
        } else {
            self.terms[0].index = upto + 1;
        }
    }

    /// Drops everything, and goes on behind `base`.
    pub fn reset(&mut self, base: Position) {
        *self = Log {
            base,
            last: base.index,
            durable: base.index,
            ..Log::default()
        };
    }

    /// Drops entries up to `upto` from memory, oldest first, as long as more than `most` bytes are
    /// kept. They stay in the log.
    pub fn forget(&mut self, upto: Index, most: usize) {
        let known = (upto + 1).saturating_sub(self.first_in_memory());
        let mut bytes = self.tail_bytes;
        let forgotten = self
            .tail
            .iter()
            .take(known as usize)
            .take_while(|entry| {
                let heavy = bytes > most;
                bytes -= if heavy { entry.payload.weight() } else { 0 };
                heavy
            })
            .count();
        self.tail.drain(..forgotten);
        self.tail_bytes = bytes;
    }

    /// Bytes of the entries in memory, counted by [`Payload::weight`].
    pub fn bytes_in_memory(&self) -> usize {
        self.tail_bytes
    }

    /// Whether a log that ends with `(last_term, last_index)` holds at least as much as this one
    /// (paper 5.4.1).
    pub fn is_up_to_date(&self, last_term: Term, last_index: Index) -> bool {
        if cfg!(keel_bug = "vote_by_index") {
            return last_index >= self.last;
        }
        (last_term, last_index) >= (self.last_term(), self.last)
    }

    /// The largest index not above `limit` whose term is at most `term` (raft.md rule 19). What
    /// was dropped may have any term.
    pub fn find_term_at_most(&self, limit: Index, term: Term) -> Index {
        let limit = limit.min(self.last);
        if limit <= self.base.index {
            return limit;
        }
        let later = self.terms.partition_point(|run| run.term <= term);
        let end = self.terms.get(later).map_or(self.last, |run| run.index - 1);
        limit.min(end)
    }

    /// Configurations among the entries in memory, in order.
    pub fn configurations(&self) -> impl Iterator<Item = &Entry> {
        self.tail
            .iter()
            .filter(|e| matches!(e.payload, Payload::Config(..)))
    }
}

/// A copy of entries, which share their data; `None` if there is no memory for it.
pub(super) fn copied(entries: &[Entry]) -> Option<Vec<Entry>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(entries.len()).ok()?;
    copy.extend_from_slice(entries);
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: Index, term: Term) -> Entry {
        Entry {
            index,
            term,
            payload: Payload::Host(vec![0; 10].into()),
        }
    }

    fn log(terms: &[Term]) -> Log {
        let mut log = Log::default();
        for (i, term) in terms.iter().enumerate() {
            log.push(entry(i as Index + 1, *term));
        }
        log
    }

    /// The terms at these indexes, as said by an explicit list.
    fn all_terms(log: &Log) -> Vec<Option<Term>> {
        (0..=9).map(|index| log.term(index)).collect()
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

    #[test]
    fn compaction_keeps_the_terms_of_what_is_left() {
        let terms = [1, 1, 3, 3, 4, 4];
        for upto in 0..=6 {
            let mut log = log(&terms);
            log.completed(6);
            log.compact(upto);
            let expected: Vec<Option<Term>> = (0..=9)
                .map(|index: Index| match index {
                    0 if upto == 0 => Some(0),
                    index if index < upto.max(1) || index > 6 => None,
                    index => Some(terms[index as usize - 1]),
                })
                .collect();
            assert_eq!(expected, all_terms(&log), "up to {upto}");
            assert_eq!((6, 4), (log.last_index(), log.last_term()));
            log.push(entry(7, 4));
            assert_eq!(Some(4), log.term(7));
            log.push(entry(8, 5));
            assert_eq!((Some(4), Some(5)), (log.term(7), log.term(8)));
            assert_eq!(upto + 1, log.first_in_memory().max(upto + 1));
            assert_eq!((8 - upto) as usize, log.from(upto + 1).len());
        }
    }

    #[test]
    fn below_the_base_a_hint_is_taken_as_it_is() {
        let mut log = log(&[1, 1, 3, 3, 4, 4]);
        log.completed(6);
        log.compact(4);
        assert_eq!(2, log.find_term_at_most(2, 1));
        assert_eq!(4, log.find_term_at_most(6, 3));
        assert_eq!(6, log.find_term_at_most(6, 9));
    }

    #[test]
    fn what_is_forgotten_stays_in_the_log() {
        let mut log = log(&[1, 1, 2, 2]);
        let weight = log.get(1).map_or(0, |e| e.payload.weight());
        log.forget(3, 2 * weight);
        assert_eq!((3, 4), (log.first_in_memory(), log.last_index()));
        assert_eq!(2 * weight, log.bytes_in_memory());
        assert_eq!((None, Some(1)), (log.get(2), log.term(2)));
        log.forget(3, 0);
        assert_eq!(4, log.first_in_memory(), "not what may still be truncated");
        log.truncate(4);
        assert_eq!((3, 0), (log.last_index(), log.bytes_in_memory()));
        assert_eq!(4, log.first_in_memory());
        log.push(entry(4, 7));
        assert_eq!(Some(7), log.term(4));
    }

    #[test]
    fn a_reset_log_goes_on_behind_its_base() {
        let mut log = log(&[1, 1, 2, 2]);
        log.reset(Position { index: 9, term: 5 });
        assert_eq!(
            (9, 5, 9),
            (log.last_index(), log.last_term(), log.durable())
        );
        assert_eq!((None, Some(5)), (log.term(8), log.term(9)));
        log.push(entry(10, 5));
        assert_eq!(Some(5), log.term(10));
    }
}
