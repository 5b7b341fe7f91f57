//! Writing: one persist, in an order that a crash may cut anywhere.

use std::io;

use crate::core::{Entry, Persist, Position};
use crate::storage::StorageError;

use super::Directory;
use super::frame::{Kind, MAX_GROUP, Place, start_group};
use super::meta;
use super::open::lacks_room;
use super::segment::{End, Header, Segment};

impl Directory {
    pub(super) fn write(&mut self, persist: &Persist) -> Result<(), StorageError> {
        // Hard state first: a crash in between must not leave an entry of a term META knows not of.
        if let Some(hard) = persist.hard.filter(|hard| *hard != self.meta.hard) {
            self.meta.hard = hard;
            self.update_meta()?;
        }
        let reset = persist.reset.as_ref().map(|snapshot| snapshot.last);
        match reset.is_none() && persist.entries.is_empty() {
            true => Ok(()),
            false => self.append(reset, &persist.entries),
        }
    }

    pub(super) fn update_meta(&mut self) -> Result<(), StorageError> {
        self.meta.generation += 1;
        self.meta.durable_lsn = self.end.lsn;
        meta::update(&*self.meta_file, &self.meta)
    }

    /// Writes a group, which with `reset` drops the log.
    pub(super) fn append(
        &mut self,
        reset: Option<Position>,
        entries: &[Entry],
    ) -> Result<(), StorageError> {
        let Some(group) = start_group(reset, entries) else {
            return Err(StorageError::Io {
                op: "encode",
                path: self.fs.path(&self.segment.header.name()),
                error: io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("one write of more than {MAX_GROUP} bytes"),
                ),
            });
        };
        let size = group.size();
        let used = self.end.lsn > self.segment.header.start_lsn;
        if (reset.is_some() && used) || !self.segment.has_room(self.end.lsn, size) {
            self.roll(size, reset.is_some())?;
        }
        let first = reset.map_or_else(|| entries[0].index, |base| base.index + 1);
        let kind = match reset {
            Some(_) => Kind::Reset,
            None if first > self.end.last.index => Kind::Append,
            None => Kind::Replace,
        };
        let place = Place {
            lsn: self.end.lsn,
            // Every group before this one was synced before this one is written.
            durable_lsn: self.end.lsn,
            generation: self.meta.generation,
            prev_crc: self.end.crc,
        };
        let crc = self.segment.append(group, kind, &place)?;
        if let Some(base) = reset {
            self.layout.reset(base);
        }
        self.layout.group(kind, first, self.end.lsn, crc);
        let last = entries.last().map(|last| Position {
            index: last.index,
            term: last.term,
        });
        self.end = End {
            lsn: self.end.lsn + size,
            crc,
            last: last.or(reset).unwrap_or(self.end.last),
        };
        Ok(())
    }

    /// Goes on in a new segment that has room for `size` bytes. On a full disk it may have room for
    /// little more if the log is dropped with it: that makes room.
    fn roll(&mut self, size: u64, drops: bool) -> Result<(), StorageError> {
        let seq = self.segment.header.seq + 1;
        let make = |bytes| {
            let origin = self.meta.origin();
            let header = Header::new(origin, seq, &self.end, self.fs.random()?, bytes);
            Segment::make(&*self.fs, header, &[])
        };
        self.segment = match make(self.options.segment_size(size)) {
            Err(error) if drops && lacks_room(&error) => {
                make(self.options.scant_segment_size(size))?
            }
            made => made?,
        };
        self.layout.enter(&self.segment.header);
        // Before the first group in it: a segment that holds anything acknowledged is one that
        // META misses when it is gone.
        self.meta.head_seq = seq;
        self.update_meta()
    }

    /// What a caller that keeps Raft's rules never does.
    pub(super) fn check(&self, persist: &Persist) {
        let old = &self.meta.hard;
        let hard = persist.hard.unwrap_or(*old);
        assert!(
            hard.term >= old.term,
            "term goes back from {} to {}",
            old.term,
            hard.term
        );
        assert!(
            hard.term > old.term || old.vote.is_none() || hard.vote == old.vote,
            "second vote in term {}",
            hard.term
        );
        let (base, last) = match &persist.reset {
            Some(snapshot) => (snapshot.last, snapshot.last),
            None => (self.layout.base(), self.end.last),
        };
        assert!(
            persist
                .reset
                .as_ref()
                .is_none_or(|s| self.snapshots.is_old(s)),
            "the log is dropped without an image that is durable"
        );
        let Some(first) = persist.entries.first() else {
            return;
        };
        assert!(
            (base.index + 1..=last.index + 1).contains(&first.index),
            "entries from {} on leave a gap after {}",
            first.index,
            last.index
        );
        let mut term = match first.index > last.index {
            true => last.term,
            false => base.term,
        };
        for (index, entry) in (first.index..).zip(&persist.entries) {
            assert_eq!(entry.index, index, "entries are not contiguous");
            assert!(entry.term >= term, "entry {index}: term goes back");
            term = entry.term;
        }
        assert!(term <= hard.term, "entry of term {term} in {}", hard.term);
    }
}
