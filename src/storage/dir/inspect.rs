//! What is in a directory, found without changing anything, be it whole, damaged or in use.
//!
//! What opening would say is asked of the code that opens. The rest is a walk over all files that
//! goes on behind damage, so that an administrator learns what is left and not only what is wrong
//! first.

use std::path::Path;

use crate::core::{Entry, Index, Position, Snapshot, Term};
use crate::storage::{Identity, Lost, StorageError};

use super::aside::is_aside;
use super::checkpoint::is_checkpoint;
use super::frame::{Frame, HEADER, Kind, is_zero, whiten};
use super::meta::{self, Meta};
use super::open::{Alone, Contents, load_meta};
use super::page::{Flaw, PAGE, SECTOR};
use super::receive::{self, Partial};
use super::recover::{Reading, frame_at, read_group};
use super::segment::{Header, MAX_BYTES, PREPARED, is_segment};
use super::slots::MISNAMED;
use super::vfs::{Disk, Vfs};
use super::{LOCK, holds_node, repair, snapshot};

pub use super::file::{FileState, Run, Saved, command, file};

/// All that could be found out about a directory.
#[derive(Debug)]
pub struct Inspection {
    /// The state that META holds.
    pub meta: Result<MetaState, StorageError>,
    /// Oldest first.
    pub segments: Vec<SegmentState>,
    /// Oldest first.
    pub images: Vec<ImageState>,
    /// An image that is being received.
    pub receiving: Option<Receiving>,
    /// Names of files that were being made when their process ended; the next opening removes them.
    pub unfinished: Vec<String>,
    /// Names of segments that an opening has found behind damage: they go when the log holds again what it
    /// has lost.
    pub aside: Vec<String>,
    /// Names of files with what a repair has dropped, or with a segment that was put back after that. Nobody
    /// removes them but an administrator.
    pub lost: Vec<String>,
    /// Names of files that no version of this library made.
    pub foreign: Vec<String>,
    /// What opening it would find, or why it would be refused.
    pub verdict: Result<Sound, StorageError>,
    /// By the newest configuration that is left of the log this node votes alone.
    pub only_voter: bool,
}

/// META: whose directory it is, and what this node must remember.
#[derive(Clone, Debug)]
pub struct MetaState {
    /// Whose directory it is.
    pub identity: Identity,
    /// Drawn when it was made.
    pub instance: u64,
    /// How often it was opened.
    pub incarnation: u32,
    /// Term, vote, exclusion, and what is known to be committed.
    pub hard: crate::core::HardState,
    /// One of the two copies is damaged, or older than a crash explains; the other one counts.
    pub repaired: bool,
}

/// What opening would find.
#[derive(Clone, Debug)]
pub struct Sound {
    /// What the log begins behind.
    pub base: Position,
    /// The last entry, or what the log begins behind.
    pub last: Position,
    /// Bytes of a write that was cut off, which nobody was told of.
    pub torn_bytes: u64,
    /// What is wrong and does not matter, for something else has its place.
    pub passed_over: Vec<String>,
    /// Entries are lost that may have been acknowledged: only the other nodes can replace them.
    pub lost: Option<Lost>,
}

/// One segment of the log.
#[derive(Debug)]
pub struct SegmentState {
    /// The file's name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The opening in which it was made, if its first page can be read.
    pub made: Option<u32>,
    /// The segment that it holds, if that is another one than its name says.
    pub other: Option<Other>,
    /// What its first page says, and what was found behind it.
    pub contents: Result<Walk, StorageError>,
    /// The log begins behind it: a snapshot has its place, or it went with a log that was lost. The next
    /// opening takes it away.
    pub trimmed: bool,
}

/// The segment that a file holds under another one's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The name of that segment.
    pub name: String,
    /// Whether the file of that name holds the same bytes, if there is one.
    pub same: Option<bool>,
}

/// What was found in a segment.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The entry that it continues.
    pub prev: Position,
    /// Whole groups, each of which was written at once.
    pub groups: u64,
    /// Entries in them.
    pub entries: u64,
    /// Lowest and highest index of them.
    pub indexes: Option<(Index, Index)>,
    /// Lowest and highest term of them.
    pub terms: Option<(Term, Term)>,
    /// Groups that take the place of entries before them.
    pub replacing: u64,
    /// It begins with a group that drops the log before it.
    pub resets: bool,
    /// What is not whole, by offset.
    pub gaps: Vec<Gap>,
    /// Bytes at the end that were never written.
    pub unused: u64,
}

/// Lowest and highest term of a group's entries, if it has any.
type Terms = Option<(Term, Term)>;

/// A part of a segment in which there is no whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// The index that belongs there, if what comes before it is whole.
    pub index: Index,
    /// What is wrong with its first group.
    pub what: &'static str,
}

/// One image of a snapshot.
#[derive(Debug)]
pub struct ImageState {
    /// The file's name.
    pub name: String,
    /// Its snapshot, every byte of which was checked.
    pub contents: Result<Snapshot, StorageError>,
}

/// An image that is being received.
#[derive(Clone, Debug)]
pub struct Receiving {
    /// What it will be.
    pub snapshot: Snapshot,
    /// How many bytes of it are there, and whole.
    pub stored: u64,
}

/// Reads everything in the directory at `path`. It is not locked: while an engine uses it the end
/// of the log may be seen half written.
///
/// # Errors
/// `Missing` if there is no node, `Io`.
pub fn inspect(path: &Path) -> Result<Inspection, StorageError> {
    inspect_on(&Disk::new(path))
}

pub(super) fn inspect_on(fs: &dyn Vfs) -> Result<Inspection, StorageError> {
    let mut names = fs.list()?;
    if !holds_node(&names) {
        return Err(StorageError::Missing { path: fs.root() });
    }
    names.sort();
    let meta = load_meta(fs, &names);
    let known = meta.as_ref().ok().map(|(meta, _)| meta);
    let (verdict, only_voter) = verdict(fs, &names);
    Ok(Inspection {
        segments: segments(fs, &names, known)?,
        images: images(fs, &names)?,
        receiving: receiving(fs, &names, known)?,
        unfinished: some(&names, |name| name.starts_with(PREPARED)),
        aside: some(&names, is_aside),
        lost: some(&names, |name| {
            name.starts_with(repair::PREFIX) && !is_aside(name)
        }),
        foreign: some(&names, is_foreign),
        meta: meta.map(|(meta, repaired)| state_of(&meta, repaired)),
        verdict,
        only_voter,
    })
}

fn some(names: &[String], wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let wanted = names.iter().filter(|name| wanted(name));
    wanted.cloned().collect()
}

fn is_foreign(name: &str) -> bool {
    let ours = [meta::NAME, receive::NAME, LOCK].contains(&name);
    let kind = is_segment(name) || is_checkpoint(name) || snapshot::position(name).is_some();
    let made = [PREPARED, repair::PREFIX];
    !ours && !kind && !made.iter().any(|prefix| name.starts_with(prefix))
}

pub(super) fn state_of(meta: &Meta, repaired: bool) -> MetaState {
    MetaState {
        identity: meta.identity,
        instance: meta.instance,
        incarnation: meta.incarnation,
        hard: meta.hard,
        repaired,
    }
}

fn verdict(fs: &dyn Vfs, names: &[String]) -> (Result<Sound, StorageError>, bool) {
    let mut contents = match Contents::read(fs, names, None, Reading::All) {
        Ok(contents) => contents,
        Err(error) => return (Err(error), false),
    };
    let reset = contents.reconcile(fs, Alone::Refused);
    let at = reset.as_ref().ok().copied().flatten();
    let only_voter = contents.voters(at) == [contents.meta.identity.node];
    let sound = reset.map(|reset| {
        let (base, last) = contents.span();
        Sound {
            base: reset.unwrap_or(base),
            last: reset.unwrap_or(last),
            torn_bytes: contents.torn_bytes(),
            passed_over: contents.damaged,
            lost: contents.lost,
        }
    });
    (sound, only_voter)
}

// ---- the log --------------------------------------------------------------

fn segments(
    fs: &dyn Vfs,
    names: &[String],
    meta: Option<&Meta>,
) -> Result<Vec<SegmentState>, StorageError> {
    let names = names.iter().filter(|name| is_segment(name));
    names.map(|name| segment(fs, name, meta)).collect()
}

fn segment(fs: &dyn Vfs, name: &str, meta: Option<&Meta>) -> Result<SegmentState, StorageError> {
    let stored = fs.read(name, MAX_BYTES + 1)?;
    let page = &stored[..stored.len().min(PAGE)];
    let header = Header::decode(page).map_err(|flaw| flaw.at(fs.path(name), 0, 0));
    let made = header.as_ref().ok().map(|header| header.origin.incarnation);
    let proper = header.as_ref().ok().map(Header::name);
    let other = proper.filter(|proper| proper != name).map(|proper| Other {
        // What cannot be read is looked at where it stands itself.
        same: fs
            .read(&proper, MAX_BYTES + 1)
            .ok()
            .map(|own| own == stored),
        name: proper,
    });
    let checked = header.and_then(|header| {
        if other.is_some() {
            return Err(Flaw::Bad(MISNAMED).at(fs.path(name), 0, 0));
        }
        if let Some(meta) = meta {
            meta.check(&header.origin, fs, name, header.prev.index + 1)?;
        }
        Ok(header)
    });
    let oldest = meta.map_or(0, |meta| meta.first_seq);
    Ok(SegmentState {
        name: name.to_owned(),
        bytes: stored.len() as u64,
        made,
        other,
        trimmed: checked.as_ref().is_ok_and(|header| header.seq < oldest),
        contents: checked.map(|header| walk(&header, &stored)),
    })
}

/// Looks at every page: a group that is whole and in its place counts, whatever is around it.
pub(super) fn walk(header: &Header, stored: &[u8]) -> Walk {
    let mut walk = Walk {
        prev: header.prev,
        ..Walk::default()
    };
    let sectors = stored.chunks(SECTOR);
    let written = sectors.len() - sectors.rev().take_while(|sector| is_zero(sector)).count();
    let end = (written * SECTOR).min(stored.len());
    let mut offset = PAGE;
    let mut next = header.prev.index + 1;
    while offset < end {
        match group(header, stored, offset) {
            Ok(Group { frame, entries, .. }) => {
                let terms = entries.first().zip(entries.last());
                let terms = terms.map(|(first, last)| (first.term, last.term));
                walk.count(&frame, terms);
                next = frame.last_index() + 1;
                offset += frame.size();
            }
            Err(what) => {
                walk.miss(offset, next, what);
                next = 0;
                offset += PAGE;
            }
        }
    }
    walk.unused = stored.len().saturating_sub(offset) as u64;
    walk.end_gaps(header, stored.len());
    walk
}

/// A whole group.
pub(super) struct Group {
    pub(super) frame: Frame,
    /// Where the log goes on behind, if it drops what is before it.
    pub(super) reset: Option<Position>,
    pub(super) entries: Vec<Entry>,
}

/// All whole groups from an offset on.
pub(super) fn groups_from(
    header: &Header,
    stored: &[u8],
    mut offset: usize,
) -> impl Iterator<Item = Group> {
    std::iter::from_fn(move || {
        while offset < stored.len() {
            match group(header, stored, offset) {
                Ok(group) => {
                    offset += group.frame.size();
                    return Some(group);
                }
                Err(_) => offset += PAGE,
            }
        }
        None
    })
}

/// The whole group at an offset.
fn group(header: &Header, stored: &[u8], offset: usize) -> Result<Group, &'static str> {
    let rest = &stored[offset..];
    if rest.len() < HEADER || is_zero(&rest[..rest.len().min(SECTOR)]) {
        return Err("never written, or gone");
    }
    let frame = frame_at(header, stored, offset as u64).map_err(described)?;
    if frame.place.lsn != header.start_lsn + (offset - PAGE) as u64 {
        return Err("frame of another place");
    }
    let Some(group) = rest.get(..frame.size()) else {
        return Err("frame runs past the segment");
    };
    let mut group = group.to_vec();
    whiten(header.salt, offset as u64, &mut group);
    if !frame.is_whole(&group) {
        return Err("wrong checksum of a group");
    }
    let (reset, entries) = read_group(&frame, &group).map_err(described)?;
    Ok(Group {
        frame,
        reset,
        entries,
    })
}

fn described(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Bad(what) => what,
        Flaw::Newer(_) => "written by a newer version",
        Flaw::NoMemory => "there is no memory for it",
    }
}

impl Walk {
    fn count(&mut self, frame: &Frame, terms: Terms) {
        self.groups += 1;
        self.entries += u64::from(frame.count);
        self.replacing += u64::from(frame.kind == Kind::Replace);
        self.resets |= frame.kind == Kind::Reset;
        if frame.count > 0 {
            let indexes = (frame.first_index, frame.last_index());
            self.indexes = Some(widest(self.indexes, indexes));
        }
        self.terms = terms.map_or(self.terms, |terms| Some(widest(self.terms, terms)));
    }

    /// There is no whole group here.
    fn miss(&mut self, offset: usize, index: Index, what: &'static str) {
        let offset = offset as u64;
        match self.gaps.last_mut() {
            Some(gap) if gap.offset + gap.bytes == offset => gap.bytes += PAGE as u64,
            _ => self.gaps.push(Gap {
                offset,
                bytes: PAGE as u64,
                index,
                what,
            }),
        }
    }

    /// A gap ends with the file, and a file that is too short or too long is one.
    fn end_gaps(&mut self, header: &Header, len: usize) {
        let len = len as u64;
        if let Some(gap) = self.gaps.last_mut() {
            gap.bytes = gap.bytes.min(len.saturating_sub(gap.offset));
        }
        if len != header.bytes {
            let offset = len.min(header.bytes);
            self.gaps.push(Gap {
                offset,
                bytes: len.abs_diff(header.bytes),
                index: 0,
                what: "the file is not as long as it was made",
            });
        }
    }
}

fn widest(so_far: Option<(u64, u64)>, (low, high): (u64, u64)) -> (u64, u64) {
    so_far.map_or((low, high), |(lowest, highest)| {
        (lowest.min(low), highest.max(high))
    })
}

// ---- images ---------------------------------------------------------------

fn images(fs: &dyn Vfs, names: &[String]) -> Result<Vec<ImageState>, StorageError> {
    let names = names.iter().filter(|n| snapshot::position(n).is_some());
    let images = names.map(|name| {
        Ok(ImageState {
            name: name.clone(),
            contents: snapshot::verify(fs, name)?,
        })
    });
    images.collect()
}

fn receiving(
    fs: &dyn Vfs,
    names: &[String],
    meta: Option<&Meta>,
) -> Result<Option<Receiving>, StorageError> {
    let (true, Some(meta)) = (names.iter().any(|name| name == receive::NAME), meta) else {
        return Ok(None);
    };
    let partial = Partial::find(fs, meta)?;
    Ok(partial.map(|partial| Receiving {
        snapshot: partial.snapshot().clone(),
        stored: partial.stored(),
    }))
}
