//! Where the log is: which segments it lies in, which of them it needs, and where in them to look
//! for an entry.
//!
//! It is kept in memory and is sparse: one place for each 64 KiB of log or so. What lies between
//! two places is found by reading from the first one on.

use std::collections::VecDeque;

use crate::core::{Index, Position};

use super::frame::Kind;
use super::segment::{End, Header};

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

/// What is known of a segment besides its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    header: Header,
    /// The lowest index from which on a group in it replaces what was there before.
    pub(super) replaced: Index,
    /// Its first group drops whatever the segments before it hold.
    pub(super) resets: bool,
}

/// The segments of a log and the runs in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

    // ---- one segment by itself -------------------------------------------

    /// The segment, of a layout of one.
    pub(super) fn only(&self) -> (&Header, &Extent) {
        let extent = &self.segments[0];
        assert_eq!(self.segments.len(), 1, "of one segment");
        (&extent.header, extent)
    }

    /// Where the log ended before the only segment.
    pub(super) fn start(&self) -> End {
        self.only().0.start()
    }

    /// The lowest index that the only segment has a say in.
    pub(super) fn first(&self) -> Index {
        let (_, extent) = self.only();
        extent.replaced.min(self.base.index + 1)
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// What the groups of the only segment came to.
    pub(super) fn fill(&mut self, reset: Option<Position>, replaced: Index, runs: Vec<Run>) {
        self.base = reset.unwrap_or(self.base);
        self.runs = runs;
        if let Some(extent) = self.segments.back_mut() {
            (extent.replaced, extent.resets) = (replaced, reset.is_some());
        }
    }

    /// The newest segment by itself, if so much memory is left: its runs are the last, for nothing
    /// was added behind them.
    pub(super) fn newest(&self) -> Option<Layout> {
        let extent = self.segments.back()?;
        let older = self.runs.partition_point(|run| run.seq < extent.header.seq);
        let mut one = Layout {
            base: match extent.resets {
                true => self.base,
                false => extent.header.prev,
            },
            ..Layout::default()
        };
        one.runs.try_reserve_exact(self.runs.len() - older).ok()?;
        one.runs.extend_from_slice(&self.runs[older..]);
        one.segments.push_back(extent.clone());
        Some(one)
    }

    /// The log goes on in a segment, of which there is a layout by itself.
    pub(super) fn join(&mut self, mut one: Layout) {
        let reset = one.only().1.resets.then_some(one.base);
        if self.segments.is_empty() {
            self.base = one.base;
        }
        if let Some(base) = reset {
            self.reset(base);
        }
        let first = one.first();
        let kept = self.runs.partition_point(|run| run.first < first);
        self.runs.truncate(kept);
        self.runs.append(&mut one.runs);
        self.segments.append(&mut one.segments);
    }

    /// The oldest segment.
    pub(super) fn oldest(&self) -> Option<&Header> {
        self.segments.front().map(|extent| &extent.header)
    }

    /// Every segment but the last, with where the log ends with it.
    pub(super) fn sealed(&self) -> Vec<(Header, End)> {
        let next = self.segments.iter().skip(1);
        let pairs = self.segments.iter().zip(next);
        let pairs = pairs.map(|(extent, next)| (extent.header.clone(), next.header.start()));
        pairs.collect()
    }

    // ---- where an entry is -------------------------------------------------

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::NodeId;
    use crate::storage::Identity;
    use crate::storage::dir::meta::Origin;
    use crate::storage::dir::tests::Rng;

    #[derive(Clone, Copy, Debug)]
    struct Group {
        seq: u64,
        kind: Kind,
        first: Index,
        count: u64,
        lsn: u64,
    }

    /// A log without its entries: for each index the group that it was written by.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Plain {
        base: Index,
        written: Vec<u64>,
    }

    impl Plain {
        fn add(&mut self, group: &Group) {
            if group.kind == Kind::Reset {
                self.base = group.first - 1;
                self.written.clear();
            }
            let kept = group.first.checked_sub(self.base + 1);
            let kept = kept.expect("a group goes back to before the log");
            assert!(kept <= self.written.len() as u64, "a gap");
            self.written.truncate(kept as usize);
            self.written.extend((0..group.count).map(|_| group.lsn));
        }

        fn last(&self) -> Index {
            self.base + self.written.len() as u64
        }

        fn from(&self, base: Index) -> &[u64] {
            &self.written[(base - self.base) as usize..]
        }
    }

    fn header(seq: u64, prev: Index, lsn: u64) -> Header {
        let identity = Identity {
            cluster: 1,
            node: NodeId::new(1).unwrap(),
        };
        let origin = Origin {
            identity,
            instance: 1,
            incarnation: 1,
            generation: 1,
        };
        let last = Position {
            index: prev,
            term: 1,
        };
        let end = End { lsn, crc: 0, last };
        Header::new(origin, seq, &end, 0, 1 << 20)
    }

    /// Groups in segments, as a directory writes them.
    fn history(rng: &mut Rng) -> (Layout, Vec<Header>, Vec<Group>, Plain) {
        let mut layout = Layout::default();
        let mut headers = Vec::new();
        let (mut groups, mut plain) = (Vec::new(), Plain::default());
        let mut committed = 0;
        let mut lsn = 0;
        for number in 0..60 {
            let reset = rng.below(25) == 0;
            let last = plain.last();
            if number == 0 || reset || rng.below(4) == 0 {
                headers.push(header(headers.len() as u64 + 1, last, lsn));
                layout.enter(&headers[headers.len() - 1]);
            }
            let back = match rng.below(3) {
                0 => rng.below(8).min(last - committed),
                _ => 0,
            };
            let group = Group {
                seq: headers.len() as u64,
                kind: match (reset, back) {
                    (true, _) => Kind::Reset,
                    (_, 0) => Kind::Append,
                    _ => Kind::Replace,
                },
                first: if reset { last + 9 } else { last + 1 - back },
                count: 1 + rng.below(3),
                lsn,
            };
            if reset {
                let index = group.first - 1;
                layout.reset(Position { index, term: 1 });
                committed = index;
            }
            layout.group(group.kind, group.first, lsn, number);
            plain.add(&group);
            groups.push(group);
            committed += rng.below(plain.last() - committed + 1) / 2;
            lsn += 4096 * (1 + rng.below(20));
        }
        (layout, headers, groups, plain)
    }

    #[test]
    fn every_entry_is_found_behind_the_place_that_is_named() {
        for seed in 0..200 {
            let (layout, _, groups, plain) = history(&mut Rng(seed));
            assert_eq!(layout.find(plain.base), None);
            for index in plain.base + 1..=plain.last() {
                let (run, next) = layout.find(index).unwrap();
                assert!(run.first <= index && next.is_none_or(|next| index < next));
                // Reading on from there, the last group that begins at or before the index.
                let found = groups
                    .iter()
                    .skip_while(|group| group.lsn < run.lsn)
                    .take_while(|group| group.seq == run.seq)
                    .take_while(|group| group.lsn == run.lsn || group.kind == Kind::Append)
                    .find(|group| index < group.first + group.count);
                let expected = plain.written[(index - plain.base - 1) as usize];
                assert_eq!(found.unwrap().lsn, expected, "seed {seed}, index {index}");
            }
        }
    }

    #[test]
    fn what_is_not_needed_can_be_left_out() {
        let mut trimmed = 0;
        for seed in 0..200 {
            let mut rng = Rng(seed);
            let (mut layout, headers, groups, plain) = history(&mut rng);
            let base = rng.below(plain.last() + 1);
            let needed = layout.needed(base);
            trimmed += u32::from(needed > 1);
            // Reading begins where the segment says, and comes to the same.
            let mut read = Plain {
                base: headers[needed as usize - 1].prev.index,
                ..Plain::default()
            };
            let rest = groups.iter().filter(|group| group.seq >= needed);
            rest.for_each(|group| read.add(group));
            assert!(read.base <= base.max(plain.base), "seed {seed}");
            assert_eq!(read.from(read.base), plain.from(read.base), "seed {seed}");
            let names = layout.trim(needed);
            assert_eq!(names.len() as u64, needed - 1);
            assert_eq!(layout.base().index, read.base);
            assert_eq!(layout.needed(0), needed, "nothing more goes of itself");
            for index in read.base + 1..=plain.last() {
                assert!(layout.find(index).unwrap().0.seq >= needed);
            }
        }
        assert!(trimmed > 100);
    }
}
