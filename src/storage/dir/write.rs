//! Writing: persists, in an order that a crash may cut anywhere.
//!
//! Appends that wait for their turn together are written as one group, and made durable by one
//! sync: a crash keeps all of it or nothing. Nobody was told of any of them before.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::core::{Entry, HardState, Index, Persist, Position, Term};
use crate::panics::lock;
use crate::storage::StorageError;

use super::Options;
use super::aside;
use super::buffer::Buffer;
use super::check::Checks;
use super::checkpoint::{Checkpoint, Content};
use super::frame::{Group, Kind, MAX_GROUP, Place, TooLarge, start_group};
use super::layout::Layout;
use super::meta::{self, Meta, Origin};
use super::open::or_full;
use super::segment::{End, Header, Segment};
use super::snapshot::Snapshots;
use super::spare::Spares;
use super::vfs::{Vfs, VfsFile};

/// Bytes of entries that are written as one group if they were submitted one by one: writing more
/// takes longer than a sync, so that nothing is won by letting the first of them wait.
const MERGE_BYTES: usize = 1 << 20;
/// Memory that is kept from one group to the next.
const BUFFER_BYTES: usize = 2 * MERGE_BYTES;

/// The log and META, for whoever writes them: one at a time.
pub(super) struct Log {
    pub(super) fs: Arc<dyn Vfs>,
    pub(super) options: Options,
    pub(super) meta: Meta,
    pub(super) meta_file: Box<dyn VfsFile>,
    pub(super) segment: Segment,
    pub(super) end: End,
    /// Groups that were written to the segment.
    pub(super) groups: u64,
    /// What is in the segment, unless it was begun by an earlier run, or memory was lacking.
    pub(super) content: Option<Content>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) known: Arc<Mutex<Known>>,
    pub(super) spares: Arc<Spares>,
    pub(super) checks: Arc<Checks>,
    /// Entries were refused for want of room, and what builds on them is refused as well.
    pub(super) refused: Option<Refused>,
    /// What the next group is put together in.
    pub(super) buffer: Buffer,
    /// Segments are opened for writing past the page cache as well.
    pub(super) unbuffered: bool,
}

/// A group as it is stored, on its way to the disk.
pub(super) struct Stored {
    pub(super) buffer: Buffer,
    /// Its place in the newest segment.
    pub(super) offset: u64,
    pub(super) effect: Effect,
}

/// What the log is when a group is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    kind: Kind,
    reset: Option<Position>,
    first: Index,
    end: End,
    /// META's generation as the group has it.
    generation: u64,
}

/// What there was no room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// Bytes of the segment that it needs.
    bytes: u64,
    /// Entries behind this one build on what was refused, be there a gap or not: it may have been to
    /// replace what is still there. 0 if the log was to be dropped.
    first: Index,
}

/// What those know of the log who do not write it: all of it is durable. Held for a moment only.
pub(super) struct Known {
    pub(super) layout: Layout,
    /// The last entry.
    pub(super) last: Index,
    /// What a file that is made now says of itself.
    pub(super) origin: Origin,
    pub(super) term: Term,
    /// What went wrong first; from then on nothing is written.
    pub(super) failed: Option<String>,
    /// Entries were refused, for want of a segment of so many bytes.
    pub(super) lacking: Option<u64>,
    /// Segments that are damaged: they are to have no checkpoint, whoever is about to write one.
    pub(super) condemned: BTreeSet<u64>,
}

impl Known {
    pub(super) fn new(layout: Layout, last: Index, meta: &Meta) -> Known {
        Known {
            layout,
            last,
            origin: meta.origin(),
            term: meta.hard.term,
            failed: None,
            lacking: None,
            condemned: BTreeSet::new(),
        }
    }

    pub(super) fn refuse_if_failed(&self, fs: &dyn Vfs) -> Result<(), StorageError> {
        match &self.failed {
            None => Ok(()),
            Some(first) => Err(StorageError::Io {
                op: "write after a failed one",
                path: fs.root(),
                error: io::Error::other(first.clone()),
            }),
        }
    }
}

/// How many of these, from the first one on, may be written as one: appends to what is written
/// before them, with nothing for META and no reset but the first one's.
pub(super) fn run_length<'a>(mut persists: impl Iterator<Item = &'a Persist>) -> usize {
    let Some(first) = persists.next() else {
        return 0;
    };
    let weight = |persist: &Persist| -> usize {
        let weights = persist.entries.iter().map(|entry| entry.payload.weight());
        weights.sum()
    };
    let reset = first.reset.as_ref().map(|snapshot| snapshot.last.index);
    let mut end = first.entries.last().map(|entry| entry.index).or(reset);
    let mut bytes = weight(first);
    let more = persists.take_while(|persist| {
        bytes += weight(persist);
        let next = persist.entries.first().map(|entry| entry.index);
        let follows = next.is_none() || end.is_none_or(|end| next == Some(end + 1));
        end = persist
            .entries
            .last()
            .map_or(end, |entry| Some(entry.index));
        follows && persist.hard.is_none() && persist.reset.is_none() && bytes <= MERGE_BYTES
    });
    1 + more.count()
}

impl Log {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// Makes persists durable that [`run_length`] allows to be written as one.
    ///
    /// # Panics
    /// If one breaks a rule of Raft: a gap in the log, a term that goes back, a second vote in a
    /// term.
    pub(super) fn write(&mut self, run: &[Persist]) -> Result<(), StorageError> {
        self.known().refuse_if_failed(&*self.fs)?;
        if let Some(refused) = self.refused.filter(|refused| Log::follows(refused, run)) {
            return self.write_hard(&run[0], refused);
        }
        self.check(run);
        let written = self.write_run(run);
        if let Err(StorageError::Full { .. }) = &written {
            let entries = run.iter().flat_map(|persist| &persist.entries);
            let first = match run[0].reset {
                Some(_) => 0,
                None => entries.map(|entry| entry.index).next().unwrap_or(0),
            };
            let bytes = self.known().lacking.unwrap_or(0);
            self.refused = Some(Refused { bytes, first });
        }
        self.fail_with(written)
    }

    /// Whether these entries come after others that were refused.
    fn follows(refused: &Refused, run: &[Persist]) -> bool {
        let mut entries = run.iter().flat_map(|persist| &persist.entries);
        let behind = entries.next().is_some_and(|e| e.index > refused.first);
        run[0].reset.is_none() && behind
    }

    /// Of a write that is refused what it says of the hard state.
    fn write_hard(&mut self, persist: &Persist, refused: Refused) -> Result<(), StorageError> {
        let hard = [Persist {
            entries: Vec::new(),
            ..persist.clone()
        }];
        self.check(&hard);
        let written = self.write_run(&hard);
        self.fail_with(written)?;
        self.known().lacking = Some(refused.bytes);
        Err(StorageError::Full {
            path: self.fs.root(),
            error: io::ErrorKind::StorageFull.into(),
        })
    }

    fn write_run(&mut self, run: &[Persist]) -> Result<(), StorageError> {
        let Some(first) = run.first() else {
            return Ok(());
        };
        // Hard state first: a crash in between must not leave an entry of a term META knows not of.
        if let Some(hard) = first.hard.filter(|hard| *hard != self.meta.hard) {
            let ended = self.meta.hard.claim.is_some() && hard.claim.is_none();
            self.meta.hard = hard;
            self.update_meta()?;
            if ended {
                aside::remove_all(&*self.fs);
            }
        }
        let reset = first.reset.as_ref().map(|snapshot| snapshot.last);
        let entries = run.iter().flat_map(|persist| &persist.entries);
        match reset.is_none() && entries.clone().next().is_none() {
            true => Ok(()),
            false => self.append(reset, entries),
        }
    }

    /// After a failed write of log or META nothing is written any more.
    pub(super) fn fail_with<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        match &result {
            Ok(_) | Err(StorageError::Full { .. }) => {}
            Err(error) => {
                let first = error.to_string();
                self.known().failed.get_or_insert(first);
            }
        }
        result
    }

    pub(super) fn update_meta(&mut self) -> Result<(), StorageError> {
        self.meta.generation += 1;
        self.meta.durable_lsn = self.end.lsn;
        meta::update(&*self.meta_file, &self.meta)?;
        let mut known = self.known();
        known.origin = self.meta.origin();
        known.term = self.meta.hard.term;
        Ok(())
    }

    /// A snapshot of a newer term is about to become this node's own.
    pub(super) fn raise_term(&mut self, term: Term) -> Result<(), StorageError> {
        self.known().refuse_if_failed(&*self.fs)?;
        if term <= self.meta.hard.term {
            return Ok(());
        }
        self.meta.hard.term = term;
        self.meta.hard.vote = None;
        let updated = self.update_meta();
        self.fail_with(updated)
    }

    /// An image that was received has its place, and the log may have to be dropped for it.
    pub(super) fn note_adopted(&mut self, last: Position) -> Result<(), StorageError> {
        self.meta.adopted = Some(last);
        let updated = self.update_meta();
        self.fail_with(updated)
    }

    /// Whether META knows less of the log than is durable.
    pub(super) fn is_ahead_of_meta(&self) -> bool {
        self.meta.durable_lsn < self.end.lsn && self.known().failed.is_none()
    }

    /// Has META know all that is durable: what is missing of it later is damage, and no write that
    /// was cut off.
    pub(super) fn note_durable(&mut self) -> Result<(), StorageError> {
        if !self.is_ahead_of_meta() {
            return Ok(());
        }
        let updated = self.update_meta();
        self.fail_with(updated)
    }

    /// Writes a group, which with `reset` drops the log.
    pub(super) fn append<'a>(
        &mut self,
        reset: Option<Position>,
        entries: impl Iterator<Item = &'a Entry> + Clone,
    ) -> Result<(), StorageError> {
        let group = self.group(reset, entries.clone())?;
        self.make_room(group.size(), reset.is_some())?;
        let stored = self.store(group, reset);
        self.segment.write(stored.buffer.bytes(), stored.offset)?;
        self.keep(stored.buffer);
        self.settle(&stored.effect, entries);
        Ok(())
    }

    /// Puts a group together.
    fn group<'a>(
        &mut self,
        reset: Option<Position>,
        entries: impl Iterator<Item = &'a Entry> + Clone,
    ) -> Result<Group, StorageError> {
        let group = start_group(&mut self.buffer, reset, entries);
        group.map_err(|why| match why {
            TooLarge::Ever => StorageError::Io {
                op: "encode",
                path: self.fs.path(&self.segment.header.name()),
                error: io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("one write of more than {MAX_GROUP} bytes"),
                ),
            },
            TooLarge::Now => {
                // More than any spare has: it is tried again when there may be room, not before.
                self.known().lacking = Some(u64::MAX);
                StorageError::Full {
                    path: self.fs.root(),
                    error: io::ErrorKind::OutOfMemory.into(),
                }
            }
        })
    }

    /// Gives a group the place behind the last, for which the segment has room.
    fn store(&self, group: Group, reset: Option<Position>) -> Stored {
        let (first, last) = (group.first_index(), group.last());
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
        let size = group.size();
        let (mut buffer, crc) = group.finish(kind, &place);
        let offset = self.segment.store(place.lsn, &mut buffer);
        Stored {
            buffer,
            offset,
            effect: Effect {
                kind,
                reset,
                first,
                end: End {
                    lsn: place.lsn + size,
                    crc,
                    last: last.unwrap_or(self.end.last),
                },
                generation: place.generation,
            },
        }
    }

    /// What a write of nothing but entries is to store, in whole pages at the address of one, and the
    /// segment that has room for it, past the page cache. `None` if there is more to it than that: then
    /// another write does all of it, or finds that there is no room.
    pub(super) fn plain(
        &mut self,
        run: &[Persist],
    ) -> Result<Option<(Stored, RawFd)>, StorageError> {
        if !self.is_plain(run) || self.segment.unbuffered().is_none() {
            return Ok(None);
        }
        self.check(run);
        let entries = run.iter().flat_map(|persist| &persist.entries);
        let Ok(group) = start_group(&mut self.buffer, None, entries) else {
            return Ok(None);
        };
        let made = match group.is_aligned() {
            true => self.make_room(group.size(), false).map(|()| true),
            false => Ok(false),
        };
        let room = match self.fail_with(made) {
            Err(StorageError::Full { .. }) => Ok(false),
            other => other,
        };
        let file = match room {
            Ok(true) => self.segment.unbuffered(),
            _ => None,
        };
        match file {
            Some(file) => Ok(Some((self.store(group, None), file))),
            None => {
                self.keep(group.give_up());
                room.map(|_| None)
            }
        }
    }

    /// Whether it writes entries and nothing else, and nothing is in the way.
    fn is_plain(&self, run: &[Persist]) -> bool {
        let Some(first) = run.first() else {
            return false;
        };
        let hard = first.hard.is_some_and(|hard| hard != self.meta.hard);
        let empty = run.iter().all(|persist| persist.entries.is_empty());
        let more = hard || first.reset.is_some() || empty;
        !more && self.refused.is_none() && self.known().failed.is_none()
    }

    /// The newest segment is to be written past the page cache, and those that follow.
    pub(super) fn prepare_unbuffered(&mut self) {
        self.unbuffered = true;
        // It is opened here, where that may take its time; if it cannot be, others write.
        let _ = self.segment.unbuffered();
    }

    /// Keeps the memory for the next group.
    pub(super) fn keep(&mut self, buffer: Buffer) {
        if buffer.capacity() <= BUFFER_BYTES {
            self.buffer = buffer;
        }
    }

    /// The group that was stored, with these entries, is durable.
    pub(super) fn settle<'a>(
        &mut self,
        effect: &Effect,
        mut entries: impl Iterator<Item = &'a Entry>,
    ) {
        self.refused = None;
        self.groups += 1;
        self.content = self.content.take().and_then(|mut content| {
            content.group(effect.first, effect.generation);
            let noted = entries.try_for_each(|entry| content.entry(entry));
            noted.is_ok().then_some(content)
        });
        // One that was adopted later still needs it.
        let reset = effect.reset.map_or(0, |at| at.index);
        self.meta.adopted = self.meta.adopted.filter(|at| at.index > reset);
        let lsn = std::mem::replace(&mut self.end, effect.end).lsn;
        self.note_used();
        let mut known = self.known();
        known.lacking = None;
        if let Some(base) = effect.reset {
            known.layout.reset(base);
        }
        known
            .layout
            .group(effect.kind, effect.first, lsn, effect.end.crc);
        known.last = effect.end.last.index;
    }

    /// Has the newest segment be one with room for `size` bytes; of a log that is dropped one in which
    /// nothing else is.
    fn make_room(&mut self, size: u64, drops: bool) -> Result<(), StorageError> {
        let used = self.end.lsn > self.segment.header.start_lsn;
        match (drops && used) || !self.segment.has_room(self.end.lsn, size) {
            true => self.roll(size, drops),
            false => Ok(()),
        }
    }

    /// Goes on in a new segment that has room for `size` bytes. On a full disk it may have room for
    /// little more if the log is dropped with it: that makes room.
    fn roll(&mut self, size: u64, drops: bool) -> Result<(), StorageError> {
        let seq = self.segment.header.seq + 1;
        let written = self.end.lsn - self.segment.header.start_lsn;
        self.spares.filled(self.groups, written);
        let bytes = self.options.segment_size(size);
        let made = match self.next_segment(seq, bytes) {
            Err(StorageError::Full { .. }) if drops => {
                self.make_segment(seq, self.options.scant_segment_size(size))
            }
            made => made,
        };
        if let Err(StorageError::Full { .. }) = &made {
            self.known().lacking = Some(bytes);
        }
        let segment = made?;
        let made = self.finished();
        let finished = std::mem::replace(&mut self.segment, segment);
        self.groups = 0;
        self.note_used();
        if self.unbuffered {
            self.prepare_unbuffered();
        }
        self.known().layout.enter(&self.segment.header);
        // Before the first group in it: a segment that holds anything acknowledged is one that
        // META misses when it is gone.
        self.meta.head_seq = seq;
        self.update_meta()?;
        self.checks
            .sealed(&finished.header, self.segment.header.start(), made);
        Ok(())
    }

    /// Has those that make the next segment know how soon it will be wanted.
    pub(super) fn note_used(&self) {
        let header = &self.segment.header;
        self.spares
            .used(self.end.lsn - header.start_lsn, header.bytes);
    }

    /// The checkpoint of the newest segment, as far as that is known; the next one begins empty.
    fn finished(&mut self) -> Option<Checkpoint> {
        let content = self.content.replace(Content::default())?;
        Some(Checkpoint {
            layout: self.known().layout.newest()?,
            end: self.end,
            content,
        })
    }

    fn next_segment(&self, seq: u64, bytes: u64) -> Result<Segment, StorageError> {
        let Some(spare) = self.spares.take(bytes).map_err(or_full)? else {
            return self.make_segment(seq, bytes);
        };
        let header = self.next_header(seq, spare.bytes)?;
        Segment::of_spare(&*self.fs, spare, header)
    }

    fn make_segment(&self, seq: u64, bytes: u64) -> Result<Segment, StorageError> {
        Segment::make(&*self.fs, self.next_header(seq, bytes)?, &[])
    }

    fn next_header(&self, seq: u64, bytes: u64) -> Result<Header, StorageError> {
        let salt = self.fs.random()?;
        Ok(Header::new(self.meta.origin(), seq, &self.end, salt, bytes))
    }

    /// What a caller that keeps Raft's rules never does.
    fn check(&self, run: &[Persist]) {
        let mut state = Expected {
            hard: self.meta.hard,
            base: self.known().layout.base(),
            last: self.end.last,
        };
        for persist in run {
            let durable = |s| self.snapshots.is_old(s);
            assert!(
                persist.reset.as_ref().is_none_or(durable),
                "the log is dropped without an image that is durable"
            );
            state.follow(persist);
        }
    }
}

/// What the next persist goes on from.
struct Expected {
    hard: HardState,
    base: Position,
    last: Position,
}

impl Expected {
    fn follow(&mut self, persist: &Persist) {
        let old = self.hard;
        let hard = persist.hard.unwrap_or(old);
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
        self.hard = hard;
        if let Some(snapshot) = &persist.reset {
            (self.base, self.last) = (snapshot.last, snapshot.last);
        }
        let (base, last) = (self.base, self.last);
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
            self.last = Position { index, term };
        }
        assert!(term <= hard.term, "entry of term {term} in {}", hard.term);
    }
}
