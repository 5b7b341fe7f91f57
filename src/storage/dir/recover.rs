//! Recovery: reads the whole log back, and tells a write that was cut off from damage.
//!
//! A write that was cut off may be dropped, because nobody was told of it; anything else that is
//! wrong is an error, never a shorter log. The rules at the first group that is not whole, at
//! position p (design, recovery table):
//!
//! - in a segment that is not the last: damage;
//! - before the position that META knows to be durable: damage;
//! - a later whole frame says that p had been durable: damage;
//! - no sector of it is missing and yet a checksum is wrong: damage;
//! - a sector of it is missing, and nothing after it says otherwise: cut off at p.

use crate::core::{Entry, Index, Position};
use crate::storage::StorageError;
use crate::storage::read_back::ReadBack;

use super::frame::{Frame, HEADER, Kind, has_hole, is_zero, whiten};
use super::layout::Layout;
use super::meta::{self, Meta, stale};
use super::page::{Flaw, PAGE, SECTOR};
use super::segment::{End, Header, MAX_BYTES, is_segment, seq_of};
use super::vfs::Vfs;

/// Segments that the disk is asked for before they are read: with one at a time it would stand idle
/// while that is checked.
const AHEAD: usize = 4;

/// What the segments hold.
pub(super) struct Recovered {
    /// The log behind the layout's base.
    pub(super) log: ReadBack,
    pub(super) layout: Layout,
    /// Where it ends.
    pub(super) end: End,
    /// The last segment and its whole groups, plain; `None` if there is no segment.
    pub(super) tail: Option<(Header, Vec<u8>)>,
    /// Bytes of the write that was cut off.
    pub(super) torn_bytes: u64,
    /// Segments that were trimmed, and whose files are still there.
    pub(super) trimmed: Vec<String>,
}

/// Reads and checks every segment among `names` that was not trimmed. Changes nothing.
pub(super) fn recover(
    fs: &dyn Vfs,
    names: &[String],
    meta: &Meta,
    tail_bytes: usize,
) -> Result<Recovered, StorageError> {
    let names = names.iter().filter(|name| is_segment(name)).cloned();
    let is_trimmed = |name: &String| seq_of(name).is_some_and(|seq| seq < meta.first_seq);
    let (trimmed, mut names): (Vec<String>, Vec<String>) = names.partition(is_trimmed);
    names.sort();
    let headers = headers(fs, &names, meta)?;
    // What the first one continues was trimmed, so it is taken at its word.
    let end = headers.first().map_or(End::default(), Header::start);
    let mut scan = Scan {
        fs,
        meta,
        log: ReadBack::behind(end.last, tail_bytes),
        layout: Layout::default(),
        end,
        torn_bytes: 0,
    };
    let mut tail = None;
    for (at, header) in headers.iter().enumerate() {
        // The disk reads one while another is checked.
        let soon = if at == 0 { 1..AHEAD } else { AHEAD..AHEAD + 1 };
        for later in headers.iter().skip(at).skip(soon.start).take(soon.len()) {
            fs.announce(&later.name());
        }
        let next = headers.get(at + 1).map(|next| next.start_lsn);
        let groups = scan.segment(header, next)?;
        tail = groups.map(|groups| (header.clone(), groups));
    }
    Ok(Recovered {
        log: scan.log,
        layout: scan.layout,
        end: scan.end,
        tail,
        torn_bytes: scan.torn_bytes,
        trimmed,
    })
}

/// The headers of the named segments, in order, each checked by itself and against META.
fn headers(fs: &dyn Vfs, names: &[String], meta: &Meta) -> Result<Vec<Header>, StorageError> {
    let mut headers: Vec<Header> = Vec::new();
    let mut newest = meta.first_seq - 1;
    for name in names {
        let bad = |what| Flaw::Bad(what).at(fs.path(name), 0, 0);
        let header = fs.read(name, PAGE as u64)?;
        let header = Header::decode(&header).map_err(|flaw| flaw.at(fs.path(name), 0, 0))?;
        meta.check(&header.origin, fs, name, header.prev.index + 1)?;
        if header.name() != *name {
            return Err(bad("segment under another one's name"));
        }
        if header.seq != newest + 1 {
            return Err(bad("the segment before this one is missing"));
        }
        newest = header.seq;
        headers.push(header);
    }
    if newest < meta.head_seq {
        let flaw = Flaw::Bad("the newest segment is missing");
        return Err(flaw.at(fs.path(meta::NAME), 0, 0));
    }
    Ok(headers)
}

struct Scan<'a> {
    fs: &'a dyn Vfs,
    meta: &'a Meta,
    log: ReadBack,
    layout: Layout,
    end: End,
    torn_bytes: u64,
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
    Fatal(StorageError),
}

impl Scan<'_> {
    /// Takes in one segment, up to `next` where the one after it continues; the last one yields its
    /// groups, plain.
    fn segment(
        &mut self,
        header: &Header,
        next: Option<u64>,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let mut stored = self.fs.read(&header.name(), MAX_BYTES + 1)?;
        if stored.len() as u64 != header.bytes {
            return Err(self.corrupt(header, "segment of the wrong size"));
        }
        if self.end != header.start() {
            return Err(self.corrupt(header, "segment does not continue the one before"));
        }
        self.layout.enter(header);
        while next != Some(self.end.lsn) {
            if let Err(stop) = self.group(header, &mut stored) {
                self.judge(stop, header, &stored, next.is_some())?;
                break;
            }
        }
        Ok(next.is_none().then(|| {
            stored.truncate(header.offset(self.end.lsn) as usize);
            stored.split_off(PAGE)
        }))
    }

    /// Takes in the group at the end of what has been read so far, and leaves it plain. One that is
    /// not whole stays as it is stored, like all behind it.
    fn group(&mut self, header: &Header, stored: &mut [u8]) -> Result<(), Stop> {
        let offset = header.offset(self.end.lsn);
        let rest = &mut stored[offset as usize..];
        let sector = &rest[..rest.len().min(SECTOR)];
        if is_zero(sector) {
            return Err(match is_zero(rest) {
                true => Stop::Blank,
                false => Stop::Hole,
            });
        }
        let frame = frame_at(header, rest, offset).map_err(|flaw| match flaw {
            Flaw::Bad(what) => Stop::Damaged(what),
            newer => Stop::Fatal(newer.at(self.fs.path(&header.name()), offset, self.next_index())),
        })?;
        if frame.place.lsn != self.end.lsn || frame.place.prev_crc != self.end.crc {
            return Err(Stop::Damaged("frame of another place"));
        }
        if frame.size() > rest.len() {
            return Err(Stop::Damaged("frame runs past the segment"));
        }
        let group = &mut rest[..frame.size()];
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
    fn accept(&mut self, header: &Header, frame: &Frame, group: &[u8]) -> Result<(), StorageError> {
        if frame.place.generation > self.meta.generation {
            return Err(stale(self.fs, frame.first_index));
        }
        let (reset, entries) = read(frame, group).map_err(|flaw| {
            let offset = header.offset(self.end.lsn);
            flaw.at(self.fs.path(&header.name()), offset, self.next_index())
        })?;
        let next = self.next_index();
        let base = self.layout.base().index;
        let fits = match frame.kind {
            Kind::Append => frame.first_index == next,
            Kind::Replace => (base + 1..next).contains(&frame.first_index),
            Kind::Reset => self.end.lsn == header.start_lsn,
        };
        if !fits {
            return Err(self.corrupt(header, "index out of order"));
        }
        if let Some(base) = reset {
            self.reset(base)?;
        }
        self.layout
            .group(frame.kind, frame.first_index, self.end.lsn, frame.crc);
        self.extend(header, frame.first_index, entries)?;
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

    /// The log goes on from `first` with these entries.
    fn extend(
        &mut self,
        header: &Header,
        first: Index,
        entries: Vec<Entry>,
    ) -> Result<(), StorageError> {
        if first < self.next_index() {
            self.log.truncate(first);
        }
        for entry in entries {
            if entry.term < self.log.last().term {
                return Err(self.corrupt(header, "term out of order"));
            }
            if entry.term > self.meta.hard.term {
                return Err(stale(self.fs, entry.index));
            }
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
        sealed: bool,
    ) -> Result<(), StorageError> {
        let lost = sealed || self.end.lsn < self.meta.durable_lsn;
        match stop {
            Stop::Fatal(error) => Err(error),
            Stop::Damaged(_) if cfg!(keel_bug = "truncate_on_bad_checksum") && !lost => Ok(()),
            Stop::Damaged(what) => Err(self.corrupt(header, what)),
            Stop::Blank | Stop::Hole if lost => {
                Err(self.corrupt(header, "durable part of the log is gone"))
            }
            Stop::Blank => Ok(()),
            Stop::Hole if self.was_durable(header, stored) => {
                Err(self.corrupt(header, "hole in the durable part of the log"))
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
            frame_at(header, &stored[offset..], offset as u64)
                .is_ok_and(|frame| frame.place.lsn == lsn && frame.place.durable_lsn > self.end.lsn)
        })
    }

    fn next_index(&self) -> u64 {
        self.log.last().index + 1
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
fn read(frame: &Frame, group: &[u8]) -> Result<(Option<Position>, Vec<Entry>), Flaw> {
    Ok((frame.reset(group)?, frame.entries(group)?))
}

/// The frame header that a page of the segment begins with, which stands at `offset`.
pub(super) fn frame_at(header: &Header, page: &[u8], offset: u64) -> Result<Frame, Flaw> {
    let mut head = [0; HEADER];
    head.copy_from_slice(&page[..HEADER]);
    whiten(header.salt, offset, &mut head);
    Frame::decode(&head)
}
