//! Recovery: reads the log back, but for what a checkpoint tells of ([`pass`](super::pass)), and tells a
//! write that was cut off from damage.
//!
//! A write that was cut off may be dropped, because nobody was told of it; anything else that is
//! wrong is damage: what is whole before it counts, and what is behind it is lost, which is said
//! ([`damage`](super::damage)). The rules at the first group that is not whole, at position p
//! (design, recovery table):
//!
//! - in a segment that is not the last: damage;
//! - before the position that META knows to be durable: damage;
//! - a later whole frame says that p had been durable: damage;
//! - no sector of it is missing and yet a checksum is wrong: damage;
//! - a sector of it is missing, and nothing after it says otherwise: cut off at p.
//!
//! What says that META is older than the log, or that the log is another node's or of a newer
//! version, is no damage: such a directory is refused.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use crate::core::{Entry, Index, Position, Term};
use crate::storage::read_back::ReadBack;
use crate::storage::{StorageError, lacks_memory};

use super::checkpoint::is_checkpoint;
use super::damage::{Damage, claim};
use super::frame::{Frame, HEADER, Kind, has_hole, is_zero, whiten};
use super::layout::Layout;
use super::meta::{Meta, stale};
use super::page::{Flaw, PAGE, SECTOR};
use super::pass::passable;
use super::segment::{End, Header, MAX_BYTES, is_segment, missing_name, seq_of};
use super::slots::{Slot, slots};
use super::vfs::Vfs;

/// Segments that the disk is asked for before they are read: with one at a time it would stand idle
/// while that is checked.
const AHEAD: usize = 4;

/// What the segments hold.
pub(super) struct Recovered {
    /// The log behind the layout's base, as far as it is whole.
    pub(super) log: ReadBack,
    pub(super) layout: Layout,
    /// Where it ends.
    pub(super) end: End,
    /// The last segment that counts and its whole groups, plain; `None` if none does.
    pub(super) tail: Option<(Header, Vec<u8>)>,
    /// Bytes of the write that was cut off.
    pub(super) torn_bytes: u64,
    /// The oldest segment that is needed.
    pub(super) first_seq: u64,
    /// A number that no segment has had.
    pub(super) free_seq: u64,
    /// Segments before those that count, whose files are still there.
    pub(super) trimmed: Vec<String>,
    /// Segments behind them.
    pub(super) dropped: Vec<String>,
    /// What is wrong with the log, if it is not whole.
    pub(super) damage: Option<Damage>,
    /// Damage that does not matter, for a snapshot has the place of what was lost.
    pub(super) passed_over: Option<StorageError>,
    /// Names of all checkpoints that there are.
    pub(super) checkpoints: BTreeSet<String>,
}

/// Tries of reading the log from a later segment on.
const LATER: usize = 4;

/// How much of a log is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// All of it; none of its entries is kept.
    All,
    /// What no [checkpoint](super::checkpoint) tells of, and the last entries, of which so many bytes
    /// are kept.
    Tail(usize),
}

/// Reads and checks the segments among `names` that were not trimmed. `covered` is where the newest
/// snapshot ends, which has the place of what is lost before. Changes nothing.
pub(super) fn recover(
    fs: &dyn Vfs,
    names: &[String],
    meta: &Meta,
    reading: Reading,
    covered: Option<Position>,
) -> Result<Recovered, StorageError> {
    let checkpoints = names.iter().filter(|name| is_checkpoint(name)).cloned();
    let checkpoints: BTreeSet<String> = checkpoints.collect();
    let mut recovered = read_all(fs, names, meta, reading, covered, &checkpoints)?;
    recovered.checkpoints = checkpoints;
    Ok(recovered)
}

fn read_all(
    fs: &dyn Vfs,
    names: &[String],
    meta: &Meta,
    reading: Reading,
    covered: Option<Position>,
    checkpoints: &BTreeSet<String>,
) -> Result<Recovered, StorageError> {
    let names = names.iter().filter(|name| is_segment(name)).cloned();
    let is_trimmed = |name: &String| seq_of(name).is_some_and(|seq| seq < meta.first_seq);
    let (trimmed, mut names): (Vec<String>, Vec<String>) = names.partition(is_trimmed);
    names.sort();
    let slots = slots(
        fs,
        &names,
        meta,
        checkpoints,
        covered.map_or(0, |at| at.index),
    )?;
    let (tail_bytes, passable) = match reading {
        Reading::All => (0, 0),
        Reading::Tail(bytes) => (bytes, passable(&slots, bytes)),
    };
    let read = |from, until| Scan::all(fs, meta, &slots, (from, until), (tail_bytes, 0));
    let mut scan = Scan::all(fs, meta, &slots, (0, None), (tail_bytes, passable))?;
    if scan.flaw.is_some() && scan.passed > 0 {
        // From here on nothing is taken on trust, and the first damage may be an earlier one.
        drop(scan);
        scan = read(0, None)?;
    }
    let Some(flaw) = scan.flaw else {
        return Ok(scan.recovered(meta, &slots, trimmed, 0));
    };
    // Two logs are never in memory at once.
    let (reached, doubt) = (scan.reached, scan.doubt);
    drop((scan.log, scan.tail));
    for from in later(&slots, reached, covered) {
        let scan = read(from, None)?;
        if scan.flaw.is_none() && covered.is_some_and(|at| scan.log.holds(at)) {
            let mut recovered = scan.recovered(meta, &slots, trimmed, from);
            recovered.passed_over = Some(flaw);
            return Ok(recovered);
        }
    }
    let mut recovered = read(0, doubt)?.recovered(meta, &slots, trimmed, 0);
    recovered.damage = Some(Damage {
        claim: claim(fs, meta, &slots)?,
        error: flaw,
    });
    Ok(recovered)
}

/// Segments behind the damaged one at which the log may begin anew, for the snapshot covers what
/// comes before them; the one with least to read first.
fn later(slots: &[Slot], damaged: usize, covered: Option<Position>) -> Vec<usize> {
    let covered = covered.map_or(0, |at| at.index);
    let fits = move |slot: &Slot| {
        let header = slot.header.as_ref();
        header.is_ok_and(|header| covered > 0 && header.prev.index <= covered)
    };
    let behind = slots.iter().enumerate().skip(damaged + 1).rev();
    let whole = behind.take_while(|(_, slot)| slot.header.is_ok());
    whole
        .filter(move |(_, slot)| fits(slot))
        .map(|(at, _)| at)
        .take(LATER)
        .collect()
}

/// Where the segment behind one continues the log.
#[derive(Clone, Copy)]
enum Next {
    /// There is none.
    None,
    /// Here.
    At(u64),
    /// That is not known, for it is damaged.
    Unknown,
}

/// The log as far as it was read.
pub(super) struct Scan<'a> {
    pub(super) fs: &'a dyn Vfs,
    pub(super) meta: &'a Meta,
    pub(super) log: ReadBack,
    pub(super) layout: Layout,
    pub(super) end: End,
    pub(super) tail: Option<(Header, Vec<u8>)>,
    torn_bytes: u64,
    /// How many segments were taken in by their checkpoints.
    pub(super) passed: usize,
    /// Where among the slots it came to.
    reached: usize,
    /// Position of the last group.
    pub(super) newest: u64,
    /// Position of a group that the one behind it does not continue: either may be the wrong one.
    doubt: Option<u64>,
    /// It is not read further than to here.
    until: Option<u64>,
    /// What is wrong there.
    flaw: Option<StorageError>,
}

/// Why there is no whole group.
enum Stop {
    /// Nothing was ever written from here on.
    Blank,
    /// A sector never reached the disk.
    Hole,
    /// All of it did, and it is not what was written.
    Damaged(&'static str),
    /// Not a matter of evidence.
    Fatal(Problem),
}

/// What keeps the log from being read on.
enum Problem {
    /// The directory is not to be used.
    Refused(StorageError),
    /// What comes from here on is lost.
    Damaged(StorageError),
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Problem {
        Problem::Refused(error)
    }
}

impl<'a> Scan<'a> {
    /// Reads the segments from one on, up to the first that is wrong, or up to a position; those before
    /// `passable` by their checkpoints, if they have any.
    fn all(
        fs: &'a dyn Vfs,
        meta: &'a Meta,
        slots: &[Slot],
        (from, until): (usize, Option<u64>),
        (tail_bytes, passable): (usize, usize),
    ) -> Result<Scan<'a>, StorageError> {
        // What the first one continues was trimmed, so it is taken at its word.
        let first = slots.get(from).and_then(|slot| slot.header.as_ref().ok());
        let end = first.map_or(End::default(), Header::start);
        let mut scan = Scan {
            fs,
            meta,
            log: ReadBack::behind(end.last, tail_bytes),
            layout: Layout::default(),
            end,
            tail: None,
            torn_bytes: 0,
            passed: 0,
            reached: from,
            newest: end.lsn,
            doubt: None,
            until,
            flaw: None,
        };
        for (at, slot) in slots.iter().enumerate().skip(from) {
            scan.reached = at;
            // The disk reads one while another is checked.
            let soon = if at == from {
                1..AHEAD
            } else {
                AHEAD - 1..AHEAD
            };
            for later in soon.filter_map(|n| slots.get(at + n).map(|slot| (at + n, slot))) {
                later.1.announce(fs, later.0 < passable);
            }
            let header = slot.header.as_ref().ok();
            let header = header.filter(|_| slot.has_checkpoint && at < passable);
            let behind = slots.get(at + 1).and_then(|next| next.header.as_ref().ok());
            if let (Some(header), Some(next)) = (header, behind)
                && scan.pass(header, next)
            {
                continue;
            }
            let next = match slots.get(at + 1).map(|next| &next.header) {
                None => Next::None,
                Some(Ok(next)) => Next::At(next.start_lsn),
                Some(Err(_)) => Next::Unknown,
            };
            scan.slot(slot, next)?;
            if scan.flaw.is_some() {
                break;
            }
        }
        Ok(scan)
    }

    fn slot(&mut self, slot: &Slot, next: Next) -> Result<(), StorageError> {
        match &slot.header {
            Ok(header) => self.segment(header, next),
            Err(what) => {
                let name = match &slot.name {
                    Some(name) => name.clone(),
                    None => missing_name(slot.seq),
                };
                let flaw = Flaw::Bad(what).at(self.fs.path(&name), 0, self.next_index());
                self.flaw = Some(flaw);
                Ok(())
            }
        }
    }

    /// What was read, with the files that are not needed for it; it began at `from`.
    fn recovered(
        self,
        meta: &Meta,
        slots: &[Slot],
        mut trimmed: Vec<String>,
        from: usize,
    ) -> Recovered {
        let names = |slots: &[Slot]| {
            let names = slots.iter().filter_map(|slot| slot.name.clone());
            names.collect::<Vec<String>>()
        };
        trimmed.extend(names(&slots[..from]));
        let tail_seq = self.tail.as_ref().map(|(header, _)| header.seq);
        let behind = slots.partition_point(|slot| tail_seq.is_some_and(|seq| slot.seq <= seq));
        Recovered {
            first_seq: slots.get(from).map_or(meta.first_seq, |slot| slot.seq),
            free_seq: slots.last().map_or(meta.head_seq, |slot| slot.seq) + 1,
            dropped: names(&slots[behind..]),
            log: self.log,
            layout: self.layout,
            end: self.end,
            tail: self.tail.map(|(header, mut stored)| {
                stored.truncate(header.offset(self.end.lsn) as usize);
                stored.drain(..PAGE.min(stored.len()));
                (header, stored)
            }),
            torn_bytes: if self.flaw.is_none() {
                self.torn_bytes
            } else {
                0
            },
            trimmed,
            damage: None,
            passed_over: None,
            checkpoints: BTreeSet::new(),
        }
    }

    /// Takes in one segment, up to where the one after it continues.
    fn segment(&mut self, header: &Header, next: Next) -> Result<(), StorageError> {
        if self.end != header.start() {
            self.doubt = Some(self.newest).filter(|_| self.end.lsn == header.start_lsn);
            self.flaw = Some(self.corrupt(header, "segment does not continue the one before"));
            return Ok(());
        }
        self.tail = None;
        let mut stored = self.fs.read(&header.name(), MAX_BYTES + 1)?;
        self.expect_memory(header, stored.len())?;
        let cut = (stored.len() as u64) < header.bytes;
        let len = (stored.len() as u64).min(header.bytes) as usize;
        stored.truncate(len - len % PAGE);
        self.layout.enter(header);
        match self.groups(header, &mut stored, next) {
            Err(Problem::Refused(error)) => return Err(error),
            Err(Problem::Damaged(_)) | Ok(()) if cut && !self.has_reached(next) => {
                self.flaw = Some(self.corrupt(header, "segment of the wrong size"));
            }
            Err(Problem::Damaged(error)) => self.flaw = Some(error),
            Ok(()) => {}
        }
        self.tail = Some((header.clone(), stored));
        Ok(())
    }

    /// A segment is as large as the host's entries made it: its entries are copied out of it, and its
    /// groups to their place in the next file, and lack of memory must not take the host along.
    fn expect_memory(&self, header: &Header, len: usize) -> Result<(), StorageError> {
        match lacks_memory(len.saturating_mul(3)) {
            false => Ok(()),
            true => Err(StorageError::Io {
                op: "read",
                path: self.fs.path(&header.name()),
                error: ErrorKind::OutOfMemory.into(),
            }),
        }
    }

    fn has_reached(&self, next: Next) -> bool {
        matches!(next, Next::At(lsn) if lsn == self.end.lsn)
    }

    fn groups(&mut self, header: &Header, stored: &mut [u8], next: Next) -> Result<(), Problem> {
        while !self.has_reached(next) {
            if self.until == Some(self.end.lsn) {
                return Err(self.damaged(header, "group that the next one does not continue"));
            }
            if let Err(stop) = self.group(header, stored) {
                return self.judge(stop, header, stored, next);
            }
        }
        Ok(())
    }

    /// Takes in the group at the end of what has been read so far, and leaves it plain. One that is
    /// not whole stays as it is stored, like all behind it.
    fn group(&mut self, header: &Header, stored: &mut [u8]) -> Result<(), Stop> {
        let offset = header.offset(self.end.lsn);
        let rest = stored.get(offset as usize..).unwrap_or(&[]);
        let sector = &rest[..rest.len().min(SECTOR)];
        if is_zero(sector) {
            return Err(match is_zero(rest) {
                true => Stop::Blank,
                false => Stop::Hole,
            });
        }
        let frame = frame_at(header, stored, offset).map_err(|flaw| match flaw {
            Flaw::Bad(what) => Stop::Damaged(what),
            newer => {
                let newer = newer.at(self.fs.path(&header.name()), offset, self.next_index());
                Stop::Fatal(newer.into())
            }
        })?;
        if frame.place.lsn != self.end.lsn {
            return Err(Stop::Damaged("frame of another place"));
        }
        if frame.place.prev_crc != self.end.crc {
            self.doubt = Some(self.newest);
            return Err(Stop::Damaged("frame that does not continue the one before"));
        }
        if frame.size() > rest.len() {
            return Err(Stop::Damaged("frame runs past the segment"));
        }
        let group = &mut stored[offset as usize..][..frame.size()];
        whiten(header.salt, offset, group);
        if !frame.is_whole(group) {
            whiten(header.salt, offset, group);
            return Err(match has_hole(group) {
                true => Stop::Hole,
                false => Stop::Damaged("wrong checksum of a group"),
            });
        }
        self.accept(header, &frame, group).map_err(Stop::Fatal)
    }

    /// Takes the entries of a whole group into the log.
    fn accept(&mut self, header: &Header, frame: &Frame, group: &[u8]) -> Result<(), Problem> {
        if frame.place.generation > self.meta.generation {
            return Err(stale(self.fs, frame.first_index).into());
        }
        let (reset, entries) = match read_group(frame, group) {
            Ok(read) => read,
            Err(Flaw::Bad(what)) => return Err(self.damaged(header, what)),
            Err(newer) => {
                let offset = header.offset(self.end.lsn);
                let path = self.fs.path(&header.name());
                return Err(newer.at(path, offset, self.next_index()).into());
            }
        };
        let next = self.next_index();
        let base = self.layout.base().index;
        let fits = match frame.kind {
            Kind::Append => frame.first_index == next,
            Kind::Replace => (base + 1..next).contains(&frame.first_index),
            Kind::Reset => self.end.lsn == header.start_lsn,
        };
        if !fits {
            return Err(self.damaged(header, "index out of order"));
        }
        let before = match reset {
            Some(base) => base.term,
            None => self.log.term(frame.first_index - 1).unwrap_or(0),
        };
        self.check_terms(header, before, &entries)?;
        if let Some(base) = reset {
            self.reset(base)?;
        }
        self.layout
            .group(frame.kind, frame.first_index, self.end.lsn, frame.crc);
        self.extend(frame.first_index, entries)?;
        self.newest = self.end.lsn;
        self.end.lsn += frame.size() as u64;
        self.end.crc = frame.crc;
        Ok(())
    }

    fn reset(&mut self, base: Position) -> Result<(), StorageError> {
        if base.term > self.meta.hard.term {
            return Err(stale(self.fs, base.index));
        }
        self.log.reset(base);
        self.layout.reset(base);
        self.end.last = base;
        Ok(())
    }

    /// Before anything of a group is taken in: what is kept ends with whole groups.
    fn check_terms(
        &self,
        header: &Header,
        mut term: Term,
        entries: &[Entry],
    ) -> Result<(), Problem> {
        for entry in entries {
            if entry.term > self.meta.hard.term {
                return Err(stale(self.fs, entry.index).into());
            }
            if entry.term < term {
                return Err(self.damaged(header, "term out of order"));
            }
            term = entry.term;
        }
        Ok(())
    }

    /// The log goes on from `first` with these entries.
    fn extend(&mut self, first: Index, entries: Vec<Entry>) -> Result<(), StorageError> {
        self.log.reserve(entries.len())?;
        if first < self.next_index() {
            self.log.truncate(first);
        }
        for entry in entries {
            self.log.push(entry);
        }
        self.end.last = self.log.last();
        Ok(())
    }

    /// Decides whether the log may end here.
    fn judge(
        &mut self,
        stop: Stop,
        header: &Header,
        stored: &[u8],
        next: Next,
    ) -> Result<(), Problem> {
        let sealed = !matches!(next, Next::None);
        let lost = sealed || self.end.lsn < self.meta.durable_lsn;
        match stop {
            Stop::Fatal(problem) => Err(problem),
            Stop::Damaged(_) if cfg!(keel_bug = "truncate_on_bad_checksum") && !lost => Ok(()),
            Stop::Damaged(what) => Err(self.damaged(header, what)),
            // It is the next one that is damaged.
            Stop::Blank if matches!(next, Next::Unknown) => Ok(()),
            Stop::Blank | Stop::Hole if lost => {
                Err(self.damaged(header, "durable part of the log is gone"))
            }
            Stop::Blank => Ok(()),
            Stop::Hole if self.was_durable(header, stored) => {
                Err(self.damaged(header, "hole in the durable part of the log"))
            }
            Stop::Hole => {
                let rest = &stored[header.offset(self.end.lsn) as usize..];
                let written = rest.chunks(SECTOR).rposition(|sector| !is_zero(sector));
                self.torn_bytes = written.map_or(0, |last| ((last + 1) * SECTOR) as u64);
                Ok(())
            }
        }
    }

    /// Whether a frame further on says that the group here had been durable.
    fn was_durable(&self, header: &Header, stored: &[u8]) -> bool {
        let here = header.offset(self.end.lsn) as usize;
        (here + PAGE..stored.len()).step_by(PAGE).any(|offset| {
            let lsn = header.start_lsn + (offset - PAGE) as u64;
            frame_at(header, stored, offset as u64)
                .is_ok_and(|frame| frame.place.lsn == lsn && frame.place.durable_lsn > self.end.lsn)
        })
    }

    fn next_index(&self) -> u64 {
        self.log.last().index + 1
    }

    fn damaged(&self, header: &Header, what: &'static str) -> Problem {
        Problem::Damaged(self.corrupt(header, what))
    }

    fn corrupt(&self, header: &Header, what: &'static str) -> StorageError {
        // The segment may turn out not to continue here at all.
        let offset = match self.end.lsn >= header.start_lsn {
            true => header.offset(self.end.lsn),
            false => 0,
        };
        Flaw::Bad(what).at(self.fs.path(&header.name()), offset, self.next_index())
    }
}

/// What a whole group says: where the log begins anew, if it does, and its entries.
pub(super) fn read_group(
    frame: &Frame,
    group: &[u8],
) -> Result<(Option<Position>, Vec<Entry>), Flaw> {
    Ok((frame.reset(group)?, frame.entries(group)?))
}

/// The frame header at a page of the segment.
pub(super) fn frame_at(header: &Header, stored: &[u8], offset: u64) -> Result<Frame, Flaw> {
    let mut head = [0; HEADER];
    head.copy_from_slice(&stored[offset as usize..][..HEADER]);
    whiten(header.salt, offset, &mut head);
    Frame::decode(&head)
}
