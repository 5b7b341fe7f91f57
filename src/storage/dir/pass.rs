//! Passing over segments at a start: those before the last entries, if a checkpoint says what is in
//! them. Whatever there is to doubt about one, the segment is read.

use super::checkpoint::Checkpoint;
use super::recover::Scan;
use super::segment::Header;
use super::slots::Slot;

/// How many of the segments, from the oldest on, need not be read for the last entries, of so many
/// bytes.
pub(super) fn passable(slots: &[Slot], tail_bytes: usize) -> usize {
    let mut from = slots.len().saturating_sub(1);
    let mut bytes = 0;
    while from > 0 && bytes < tail_bytes as u64 {
        from -= 1;
        if let (Ok(header), Ok(next)) = (&slots[from].header, &slots[from + 1].header) {
            bytes += next.start_lsn.saturating_sub(header.start_lsn);
        }
    }
    from
}

impl Scan<'_> {
    /// Takes in a segment, which `next` goes on from, by its checkpoint; `false` if that is of no use,
    /// and nothing has happened.
    pub(super) fn pass(&mut self, header: &Header, next: &Header) -> bool {
        let end = next.start();
        if self.end != header.start() || next.seq != header.seq + 1 {
            return false;
        }
        let Some(found) = Checkpoint::read(self.fs, header, &end) else {
            return false;
        };
        if !self.fits(&found) || !self.is_there(header, header.offset(end.lsn)) {
            return false;
        }
        let first = found.layout.first();
        if found.layout.only().1.resets {
            self.log.reset(found.layout.base());
        } else if first <= self.log.last().index {
            self.log.truncate(first);
        }
        self.log
            .pass(&found.content.terms, found.configs(), end.last.index);
        self.layout.join(found.layout);
        self.tail = None;
        self.newest = end.lsn;
        self.end = end;
        self.passed += 1;
        true
    }

    /// Whether it says nothing that reading the segment would refuse, or find damaged.
    fn fits(&self, found: &Checkpoint) -> bool {
        let first = found.layout.first();
        let base = found.layout.base();
        let known = &self.meta.hard;
        let before = match found.layout.only().1.resets {
            true => Some(base.term),
            false if first > self.log.base().index => self.log.term(first - 1),
            false => None,
        };
        let begins = found.content.terms.first().map_or(u64::MAX, |run| run.term);
        found.content.generation <= self.meta.generation
            && found.end.last.term.max(base.term) <= known.term
            && before.is_some_and(|term| term <= begins)
    }

    /// Whether the file is as long as what is in it; if not, reading it will tell.
    fn is_there(&self, header: &Header, bytes: u64) -> bool {
        let size = self.fs.open(&header.name()).and_then(|file| file.size());
        size.is_ok_and(|size| size >= bytes)
    }
}
