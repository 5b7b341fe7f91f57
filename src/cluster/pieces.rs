//! A snapshot whose pieces come in the log: which of them belong to it, and whether all have come.
//! The same on every node, for it follows from the log.

use crate::core::Index;

use super::Pieces;

/// A snapshot of which not all pieces have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// See [`Pieces::at`].
    pub at: Index,
    /// Log index of the first piece, 0 before it has come.
    pub first: Index,
    /// Where the next piece begins.
    pub next: u64,
}

impl Assembly {
    /// Nothing has come yet.
    pub fn new(at: Index) -> Assembly {
        Assembly {
            at,
            first: 0,
            next: 0,
        }
    }

    /// A piece stands at log index `index`. False if it does not belong to this snapshot, or not
    /// here: it was proposed twice, or by a leader that is none any more.
    pub fn take(&mut self, index: Index, at: Index, offset: u64, len: usize) -> bool {
        let Some(end) = offset.checked_add(len as u64) else {
            return false;
        };
        if at != self.at || offset != self.next {
            return false;
        }
        if self.first == 0 {
            self.first = index;
        }
        self.next = end;
        true
    }

    /// Where it lies, when the one at `last` was its last piece.
    pub fn pieces(&self, last: Index) -> Pieces {
        Pieces {
            at: self.at,
            first: self.first,
            last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_piece_of_the_same_snapshot_belongs_to_it() {
        let mut assembly = Assembly::new(10);
        assert!(!assembly.take(12, 10, 5, 5), "not the first");
        assert!(!assembly.take(13, 9, 0, 5), "of an earlier one");
        assert!(assembly.take(14, 10, 0, 5));
        assert!(!assembly.take(15, 10, 0, 5), "the same again");
        assert!(assembly.take(19, 10, 5, 0));
        assert!(!assembly.take(20, 10, 5, usize::MAX), "no end");
        let (at, first, last) = (10, 14, 19);
        assert_eq!(Pieces { at, first, last }, assembly.pieces(19));
    }
}
