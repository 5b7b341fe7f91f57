//! Which term every entry of the log has.

use crate::core::{Index, Position, Term};

/// What was dropped of the log, then the first index of every term behind that; ascending in both.
#[derive(Debug)]
pub(super) struct Terms(Vec<Position>);

impl Terms {
    /// Those of an empty log behind `base`.
    pub(super) fn behind(base: Position) -> Terms {
        Terms(vec![base])
    }

    /// The term at `index`, which is in the log or where it begins.
    pub(super) fn at(&self, index: Index) -> Term {
        let Some(term) = self.find(index) else {
            panic!("entry {index} was dropped");
        };
        term
    }

    /// The same, or `None` for what was dropped.
    pub(super) fn find(&self, index: Index) -> Option<Term> {
        let run = self.0.partition_point(|run| run.index <= index);
        Some(self.0[..run].last()?.term)
    }

    /// The log goes on with this entry.
    pub(super) fn push(&mut self, index: Index, term: Term) {
        let last = self.0.last().map_or(0, |run| run.term);
        assert!(term >= last, "entry {index}: term goes back");
        if term > last {
            self.0.push(Position { index, term });
        }
    }

    /// Everything from `first` on is dropped.
    pub(super) fn cut(&mut self, first: Index) {
        assert!(
            first > self.0[0].index,
            "entry {first} was dropped long ago"
        );
        self.0.retain(|run| run.index < first);
    }

    /// Everything up to `base` is dropped.
    pub(super) fn trim(&mut self, base: Position) {
        if base.index > self.0[0].index {
            self.0.retain(|run| run.index > base.index);
            self.0.insert(0, base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: Index, term: Term) -> Position {
        Position { index, term }
    }

    #[test]
    fn every_entry_has_its_term_after_every_change() {
        let mut terms = Terms::behind(at(3, 2));
        for (index, term) in [(4, 2), (5, 4), (6, 4), (7, 5)] {
            terms.push(index, term);
        }
        assert_eq!([2, 2, 4, 4, 5], [3, 4, 5, 6, 7].map(|i| terms.at(i)));
        terms.cut(6);
        terms.push(6, 6);
        assert_eq!([2, 2, 4, 6], [3, 4, 5, 6].map(|i| terms.at(i)));
        terms.trim(at(5, 4));
        terms.trim(at(4, 2));
        assert_eq!([4, 6], [5, 6].map(|i| terms.at(i)));
        terms.trim(at(6, 6));
        terms.push(7, 6);
        assert_eq!([6, 6], [6, 7].map(|i| terms.at(i)));
    }

    #[test]
    #[should_panic(expected = "entry 2 was dropped")]
    fn what_was_dropped_has_none() {
        Terms::behind(at(3, 2)).at(2);
    }
}
