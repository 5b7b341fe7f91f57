//! The outline of a log: which term stands at which index. With the rule that an index and a term
//! name one entry and all before it, an outline says everything about a log.

use raftkeel::core::{Index, Term};

/// Terms of a log as runs, so that copies and comparisons cost next to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// First index of every run, and its term.
    runs: Vec<(Index, Term)>,
    last: Index,
}

impl Outline {
    pub fn last(&self) -> Index {
        self.last
    }

    pub fn last_term(&self) -> Term {
        self.runs.last().map_or(0, |(_, term)| *term)
    }

    /// What elections compare.
    pub fn end(&self) -> (Term, Index) {
        (self.last_term(), self.last)
    }

    /// The term at an index; 0 at index 0, `None` beyond the end.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == 0 {
            return Some(0);
        }
        if index > self.last {
            return None;
        }
        let newest = self.runs.last().filter(|(first, _)| *first <= index);
        let run = newest.or_else(|| {
            let after = self.runs.partition_point(|(first, _)| *first <= index);
            self.runs.get(after.checked_sub(1)?)
        });
        run.map(|(_, term)| *term)
    }

    /// Whether the entry is there.
    pub fn holds(&self, index: Index, term: Term) -> bool {
        self.term(index) == Some(term)
    }

    pub fn push(&mut self, term: Term) {
        self.last += 1;
        if self.last_term() != term || self.runs.is_empty() {
            self.runs.push((self.last, term));
        }
    }

    /// The same up to `last`, which it reaches.
    pub fn up_to(&self, last: Index) -> Outline {
        let mut outline = self.clone();
        outline.truncate(last + 1);
        outline
    }

    /// Drops everything from `first` on.
    pub fn truncate(&mut self, first: Index) {
        while self.runs.last().is_some_and(|(start, _)| *start >= first) {
            self.runs.pop();
        }
        self.last = self.last.min(first.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_knows_every_term() {
        let mut outline = Outline::default();
        let terms = [1, 1, 3, 3, 3, 7];
        terms.iter().for_each(|term| outline.push(*term));
        let read: Vec<_> = (0..=7).map(|i| outline.term(i)).collect();
        let wanted = [
            Some(0),
            Some(1),
            Some(1),
            Some(3),
            Some(3),
            Some(3),
            Some(7),
            None,
        ];
        assert_eq!(wanted.to_vec(), read);
        outline.truncate(4);
        assert_eq!(((3, 3), None), (outline.end(), outline.term(4)));
        outline.push(5);
        assert_eq!((Some(3), Some(5)), (outline.term(3), outline.term(4)));
        outline.truncate(1);
        assert_eq!(Outline::default(), outline);
    }
}
