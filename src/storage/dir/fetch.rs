//! Reading entries back from the segments, through descriptors of their own.
//!
//! A group is read in pieces, so that a large one takes no more memory than what is wanted of it;
//! but all of it is read and its checksum compared before any of it is handed out.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use crc32fast::Hasher;

use crate::core::{Entry, Index, Term};
use crate::panics::lock;
use crate::storage::StorageError;
use crate::wire::{WireError, decode_entry};

use super::checkpoint;
use super::frame::{Frame, HEADER, Kind, flaw, whiten};
use super::layout::Run;
use super::page::Flaw;
use super::segment::Header;
use super::vfs::{Vfs, VfsFile};
use super::write::Known;

/// Bytes that are read at once, a multiple of a page.
const PIECE: usize = 64 * 1024;

/// Entries from `first` to at most `last`: at least one, and no more than weigh `bytes` but for the
/// first. Where they are is looked up in between, and may change: of a log that is written meanwhile
/// some may have been replaced.
pub(super) fn fetch(
    fs: &dyn Vfs,
    known: &Mutex<Known>,
    first: Index,
    last: Index,
    bytes: usize,
) -> Result<Vec<Entry>, StorageError> {
    let mut fetch = Fetch {
        next: first,
        bytes,
        entries: Vec::new(),
        full: false,
    };
    while !fetch.full && fetch.next <= last {
        let Some((header, run, limit)) = find(&lock(known), fetch.next, last) else {
            break;
        };
        let done = fetch.run(fs, &header, &run, limit);
        if let Err(StorageError::Corrupt { .. } | StorageError::Version { .. }) = &done {
            // The next opening is to see it.
            lock(known).condemned.insert(header.seq);
            checkpoint::remove(fs, &header.name());
        }
        match done {
            Ok(()) => {}
            // What comes before the damage may be all that is needed.
            Err(_) if !fetch.entries.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    match fetch.entries.is_empty() {
        true => Err(StorageError::Io {
            op: "read of an entry that is not there",
            path: fs.root(),
            error: io::ErrorKind::NotFound.into(),
        }),
        false => Ok(fetch.entries),
    }
}

/// The run that holds the entry at `index`, with its segment and the last entry up to `last` that can
/// be read from there.
fn find(known: &Known, index: Index, last: Index) -> Option<(Header, Run, Index)> {
    // The end of the log at this moment: behind it nothing was read, or what was read is gone.
    let last = last.min(known.last);
    let (run, replaced) = known.layout.find(index).filter(|_| index <= last)?;
    let limit = replaced.map_or(last, |at| last.min(at - 1));
    Some((known.layout.header(run.seq).clone(), run, limit))
}

/// What was gathered so far, all of it verified between two groups.
struct Fetch {
    /// The entry that is wanted next.
    next: Index,
    /// Weight of what is still wanted.
    bytes: usize,
    entries: Vec<Entry>,
    /// The next entry weighs too much.
    full: bool,
}

impl Fetch {
    /// Takes what is wanted of a run, of which entries above `limit` were replaced.
    fn run(
        &mut self,
        fs: &dyn Vfs,
        header: &Header,
        run: &Run,
        limit: Index,
    ) -> Result<(), StorageError> {
        let mut source = Source::open(fs, header, run)?;
        while !self.full && self.next <= limit {
            let frame = source.frame()?;
            if frame.last_index() < self.next {
                source.skip(frame.size() - HEADER);
                continue;
            }
            // One that may not fit is left for the next call, which then reads it once.
            self.full = !self.entries.is_empty() && frame.payload_len as usize > self.bytes;
            if !self.full {
                let verified = self.entries.len();
                let taken = self.group(&mut source, &frame, limit);
                taken.inspect_err(|_| self.entries.truncate(verified))?;
            }
        }
        Ok(())
    }

    fn group(
        &mut self,
        source: &mut Source,
        frame: &Frame,
        limit: Index,
    ) -> Result<(), StorageError> {
        let mut body = Body::new(frame);
        while !self.full && self.next <= limit.min(frame.last_index()) {
            let entry = body.entry(source)?;
            if entry.index == self.next {
                self.entries.try_reserve(1)?;
                self.take(entry);
            }
        }
        body.finish(source)
    }

    fn take(&mut self, entry: Entry) {
        let weight = entry.payload.weight();
        self.full = !self.entries.is_empty() && weight > self.bytes;
        if !self.full {
            self.bytes = self.bytes.saturating_sub(weight);
            self.next += 1;
            self.entries.push(entry);
        }
    }
}

/// The body of a group on its way through memory.
pub(super) struct Body<'a> {
    frame: &'a Frame,
    /// Bytes that were not read yet, with and without the padding.
    unread: usize,
    payload: usize,
    checksum: Hasher,
    /// Read and not decoded, from `at` on.
    buffer: Vec<u8>,
    at: usize,
    coming: Index,
}

impl Body<'_> {
    pub(super) fn new(frame: &Frame) -> Body<'_> {
        Body {
            frame,
            unread: frame.size() - HEADER,
            payload: frame.payload_len as usize,
            checksum: Hasher::new(),
            buffer: Vec::new(),
            at: frame.prefix(),
            coming: frame.first_index,
        }
    }

    /// The term that stands before the entries of a group that drops the log.
    pub(super) fn base_term(&mut self, source: &mut Source) -> Result<Term, StorageError> {
        const LEN: usize = size_of::<Term>();
        while self.buffer.len() < LEN {
            if self.payload == 0 {
                return Err(source.flawed(Flaw::Bad("field runs past the end")));
            }
            self.fill(source)?;
        }
        let mut term = [0; LEN];
        term.copy_from_slice(&self.buffer[..LEN]);
        Ok(Term::from_le_bytes(term))
    }

    /// The next entry; there must be one.
    pub(super) fn entry(&mut self, source: &mut Source) -> Result<Entry, StorageError> {
        loop {
            let mut input = self.buffer.get(self.at..).unwrap_or(&[]);
            let before = input.len();
            match decode_entry(&mut input) {
                Ok(entry) if entry.index == self.coming => {
                    self.at += before - input.len();
                    self.coming += 1;
                    return Ok(entry);
                }
                Ok(_) => {
                    let flaw = Flaw::Bad("entry with the wrong index");
                    return Err(self.senseless(source, flaw));
                }
                Err(WireError::Truncated) if self.payload > 0 => self.more(source)?,
                Err(error) => return Err(self.senseless(source, flaw(error))),
            }
        }
    }

    fn more(&mut self, source: &mut Source) -> Result<(), StorageError> {
        let decoded = self.at.min(self.buffer.len());
        self.buffer.drain(..decoded);
        self.at -= decoded;
        self.fill(source)
    }

    /// Reads on, with all that was read before kept.
    fn fill(&mut self, source: &mut Source) -> Result<(), StorageError> {
        let piece = source.next(self.unread)?;
        self.checksum.update(piece);
        self.unread -= piece.len();
        let payload = piece.len().min(self.payload);
        self.payload -= payload;
        self.buffer.try_reserve(payload)?;
        self.buffer.extend_from_slice(&piece[..payload]);
        Ok(())
    }

    /// Reads what is left of it: only then is it known whether any of it was right.
    pub(super) fn finish(mut self, source: &mut Source) -> Result<(), StorageError> {
        match self.is_whole(source)? {
            true => Ok(()),
            false => Err(source.flawed(Flaw::Bad("wrong checksum of a group"))),
        }
    }

    fn is_whole(&mut self, source: &mut Source) -> Result<bool, StorageError> {
        while self.unread > 0 {
            let piece = source.next(self.unread)?;
            self.checksum.update(piece);
            self.unread -= piece.len();
        }
        Ok(self.checksum.clone().finalize() == self.frame.body_crc)
    }

    /// What is wrong with bytes that make no sense: a newer version's they are only if they are whole.
    fn senseless(&mut self, source: &mut Source, flaw: Flaw) -> StorageError {
        match self.is_whole(source) {
            Ok(true) => source.flawed(flaw),
            Ok(false) => source.flawed(Flaw::Bad("wrong checksum of a group")),
            Err(error) => error,
        }
    }
}

/// The plain bytes of a segment, from the first group of a run on.
pub(super) struct Source {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    salt: u64,
    /// Where the buffer ends in the file.
    end: u64,
    buffer: Vec<u8>,
    /// So much of the buffer was taken.
    at: usize,
    /// The group that is being read: its offset and its first index.
    group: (u64, Index),
    expected: Expected,
}

/// What the header of the next group must say.
struct Expected {
    lsn: u64,
    first: Index,
    /// Known of the first group in a run.
    crc: Option<u32>,
    /// Known of the others.
    prev_crc: Option<u32>,
}

impl Source {
    fn open(fs: &dyn Vfs, header: &Header, run: &Run) -> Result<Source, StorageError> {
        let expected = Expected {
            lsn: run.lsn,
            first: run.first,
            crc: Some(run.crc),
            prev_crc: None,
        };
        Source::from(fs, header, expected)
    }

    /// From the first group of a segment on.
    pub(super) fn of_segment(fs: &dyn Vfs, header: &Header) -> Result<Source, StorageError> {
        let expected = Expected {
            lsn: header.start_lsn,
            first: header.prev.index + 1,
            crc: None,
            prev_crc: Some(header.prev_crc),
        };
        Source::from(fs, header, expected)
    }

    fn from(fs: &dyn Vfs, header: &Header, expected: Expected) -> Result<Source, StorageError> {
        let offset = header.offset(expected.lsn);
        Ok(Source {
            file: fs.open(&header.name())?,
            path: fs.path(&header.name()),
            salt: header.salt,
            end: offset,
            buffer: Vec::new(),
            at: 0,
            group: (offset, expected.first),
            expected,
        })
    }

    /// The header of the next group of a run.
    fn frame(&mut self) -> Result<Frame, StorageError> {
        let begins = self.expected.prev_crc.is_none();
        let first = self.expected.first;
        let frame = self.any_frame()?;
        match frame.first_index == first && (begins || frame.kind == Kind::Append) {
            true => Ok(frame),
            false => Err(self.flawed(Flaw::Bad("frame of another place"))),
        }
    }

    /// The header of the next group, whatever that does to the log.
    pub(super) fn any_frame(&mut self) -> Result<Frame, StorageError> {
        let unread = (self.buffer.len() - self.at) as u64;
        self.group = (self.end - unread, self.expected.first);
        let mut head = [0; HEADER];
        let bytes = self.next(HEADER)?;
        if bytes.len() < HEADER {
            return Err(self.flawed(Flaw::Bad("segment of the wrong size")));
        }
        head.copy_from_slice(bytes);
        let frame = Frame::decode(&head).map_err(|flaw| self.flawed(flaw))?;
        let expected = &self.expected;
        let fits = frame.place.lsn == expected.lsn
            && expected.crc.is_none_or(|crc| frame.crc == crc)
            && expected
                .prev_crc
                .is_none_or(|crc| frame.place.prev_crc == crc);
        if !fits {
            return Err(self.flawed(Flaw::Bad("frame of another place")));
        }
        self.expected = Expected {
            lsn: frame.place.lsn + frame.size() as u64,
            first: frame.last_index() + 1,
            crc: None,
            prev_crc: Some(frame.crc),
        };
        Ok(frame)
    }

    /// The next bytes: at least one, at most `most`.
    fn next(&mut self, most: usize) -> Result<&[u8], StorageError> {
        if self.at == self.buffer.len() {
            self.at = 0;
            self.buffer.clear();
            self.buffer.try_reserve_exact(PIECE)?;
            self.buffer.resize(PIECE, 0);
            let read = self.file.read(&mut self.buffer, self.end)?;
            // Whole words, as they were whitened.
            self.buffer.truncate(read / 8 * 8);
            whiten(self.salt, self.end, &mut self.buffer);
            self.end += self.buffer.len() as u64;
        }
        if self.buffer.is_empty() {
            return Err(self.flawed(Flaw::Bad("segment of the wrong size")));
        }
        let len = most.min(self.buffer.len() - self.at);
        self.at += len;
        Ok(&self.buffer[self.at - len..self.at])
    }

    fn skip(&mut self, len: usize) {
        let buffered = len.min(self.buffer.len() - self.at);
        self.at += buffered;
        self.end += (len - buffered) as u64;
    }

    pub(super) fn flawed(&self, flaw: Flaw) -> StorageError {
        flaw.at(self.path.clone(), self.group.0, self.group.1)
    }
}
