//! Where the log is: which segments it lies in, which of them it needs, and where in them to look
//! for an entry.
//!
//! It is kept in memory and is sparse: one place for each 64 KiB of log or so. What lies between
//! two places is found by reading from the first one on.

use std::collections::VecDeque;

use crate::core::{Index, Position};

use super::frame::Kind;
use super::segment::Header;

/// Bytes of log that one run spans, up to where its last group begins.
pub(super) const STRIDE: u64 = 64 * 1024;

/// Groups in one segment that continue each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The index that its first group begins with.
    pub(super) first: Index,
    /// The number of the segment.
    pub(super) seq: u64,
    /// Position of the first group in the log.
    pub(super) lsn: u64,
    /// Checksum of the first group's header.
    pub(super) crc: u32,
}

#[derive(Debug)]
struct Extent {
    header: Header,
    /// The lowest index from which on a group in it replaces what was there before.
    replaced: Index,
    /// Its first group drops whatever the segments before it hold.
    resets: bool,
}

/// The segments of a log and the runs in them.
#[derive(Debug, Default)]
pub(super) struct Layout {
    base: Position,
    /// Ascending by `first`: a run ends before the next one begins, whatever its groups hold.
    runs: Vec<Run>,
    /// Oldest first, without gaps.
    segments: VecDeque<Extent>,
}

impl Layout {
    /// What the log begins behind.
    pub(super) fn base(&self) -> Position {
        self.base
    }

    /// The log goes on in this segment; the first one says what it begins behind.
    pub(super) fn enter(&mut self, header: &Header) {
        if self.segments.is_empty() {
            self.base = header.prev;
        }
        self.segments.push_back(Extent {
            header: header.clone(),
            replaced: Index::MAX,
            resets: false,
        });
    }

    /// The newest segment has another file now.
    pub(super) fn remade(&mut self, header: &Header) {
        match self.segments.back_mut() {
            Some(extent) => extent.header = header.clone(),
            None => self.enter(header),
        }
    }

    /// The log begins behind `base` from the next group on, which is the first in its segment.
    pub(super) fn reset(&mut self, base: Position) {
        self.base = base;
        self.runs.clear();
    }

    /// A group was added to the newest segment.
    pub(super) fn group(&mut self, kind: Kind, first: Index, lsn: u64, crc: u32) {
        let Some(extent) = self.segments.back_mut() else {
            panic!("a group lies in a segment");
        };
        match kind {
            Kind::Append => {}
            Kind::Replace => {
                extent.replaced = extent.replaced.min(first);
                let kept = self.runs.partition_point(|run| run.first < first);
                self.runs.truncate(kept);
            }
            Kind::Reset => extent.resets = true,
        }
        let run = Run {
            first,
            seq: extent.header.seq,
            lsn,
            crc,
        };
        let continued = |last: &Run| last.seq == run.seq && lsn - last.lsn < STRIDE;
        if kind != Kind::Append || !self.runs.last().is_some_and(continued) {
            self.runs.push(run);
        }
    }

    /// The run that holds the entry at `index`, if that is within the log, and where the next run
    /// begins.
    pub(super) fn find(&self, index: Index) -> Option<(Run, Option<Index>)> {
        let next = self.runs.partition_point(|run| run.first <= index);
        let run = self.runs[..next].last()?;
        Some((*run, self.runs.get(next).map(|run| run.first)))
    }

    /// The header of a segment that the log lies in.
    pub(super) fn header(&self, seq: u64) -> &Header {
        let oldest = self.segments[0].header.seq;
        &self.segments[(seq - oldest) as usize].header
    }

    /// The oldest segment without which the log behind `base` could not be read back.
    pub(super) fn needed(&self, base: Index) -> u64 {
        let mut replaced = Index::MAX;
        for extent in self.segments.iter().rev() {
            replaced = replaced.min(extent.replaced);
            let prev = extent.header.prev.index;
            // Reading begins behind `prev`; nothing read may go back to before it.
            if extent.resets || (prev <= base && replaced > prev) {
                return extent.header.seq;
            }
        }
        self.segments.front().map_or(1, |oldest| oldest.header.seq)
    }

    /// Forgets the segments before this one, which are not needed; yields the names of their
    /// files, oldest first.
    pub(super) fn trim(&mut self, seq: u64) -> Vec<String> {
        let old = self.segments.iter();
        let old = old.take_while(|extent| extent.header.seq < seq).count();
        let names = self.segments.drain(..old).map(|e| e.header.name());
        let names = names.collect();
        self.runs.retain(|run| run.seq >= seq);
        if let Some(oldest) = self.segments.front().filter(|oldest| !oldest.resets) {
            self.base = oldest.header.prev;
        }
        names
    }
}
