//! The snapshots of a directory: which of them are kept, how one is written and read.
//!
//! An image is made under a name of its own, in any thread, and takes its place when it is durable
//! and was read back. Two are kept, the newest and one before it: should the newest be damaged,
//! the older one and the log behind it have the same to say. Older ones go after the newest is
//! durable, and not before.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crc32fast::Hasher;

use crate::core::{Index, Position, Snapshot};
use crate::storage::{Draft, SnapshotReader, SnapshotWriter, StorageError, zeros};

use super::image::{
    BLOCK, COUNTS, Count, DATA, Header, Image, block_checksum, block_offset, encode_counts,
};
use super::meta::{self, Meta, Origin};
use super::page::{Flaw, SECTOR};
use super::segment::PREPARED;
use super::vfs::{Vfs, VfsFile};

const PREFIX: &str = "snap-";
const SUFFIX: &str = ".snap";
/// How many are kept.
const KEPT: usize = 2;

/// The name of a snapshot's file.
pub(super) fn name(last: Position) -> String {
    format!("{PREFIX}{:020}-{:020}{SUFFIX}", last.index, last.term)
}

/// Where the image of this name ends, if it is one.
pub(super) fn position(name: &str) -> Option<Position> {
    let numbers = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let (index, term) = numbers.split_once('-')?;
    let last = Position {
        index: index.parse().ok()?,
        term: term.parse().ok()?,
    };
    (self::name(last) == name).then_some(last)
}

/// The image files that an opening found.
#[derive(Default)]
pub(super) struct Found {
    /// The newest whole image, and one before it that looks whole.
    pub(super) kept: Vec<Snapshot>,
    /// Images that should be newer than those, and are not what was written.
    pub(super) damaged: Vec<(Position, StorageError)>,
    /// All other files.
    obsolete: Vec<String>,
}

/// Reads the newest image and checks every byte of it; if it is damaged, the one before it.
/// Changes nothing.
pub(super) fn find(fs: &dyn Vfs, names: &[String], meta: &Meta) -> Result<Found, StorageError> {
    let mut files: Vec<Position> = names.iter().filter_map(|name| position(name)).collect();
    files.sort_by_key(|last| (last.index, last.term));
    let mut found = Found::default();
    for last in files.into_iter().rev() {
        let newest = found.kept.is_empty();
        if found.kept.len() == KEPT {
            found.obsolete.push(name(last));
            continue;
        }
        match load(fs, meta, last, newest)? {
            Ok(snapshot) => found.kept.insert(0, snapshot),
            Err(error) => {
                found.obsolete.push(name(last));
                if newest {
                    found.damaged.push((last, error));
                }
            }
        }
    }
    Ok(found)
}

/// The snapshot of a file, or what is wrong with the file; with `whole` all of its image is read.
/// The outer error is not a matter of this file alone.
fn load(
    fs: &dyn Vfs,
    meta: &Meta,
    last: Position,
    whole: bool,
) -> Result<Result<Snapshot, StorageError>, StorageError> {
    let name = name(last);
    let image = match Image::open(fs, &name) {
        Err(error @ StorageError::Corrupt { .. }) => return Ok(Err(error)),
        opened => opened?,
    };
    meta.check(&image.header.origin, fs, &name, last.index)?;
    if image.snapshot().last != last {
        let flaw = Flaw::Bad("image under another one's name");
        return Ok(Err(image.flawed(flaw, 0)));
    }
    if last.term > meta.hard.term {
        return Err(meta::stale(fs, last.index));
    }
    let checked = match whole {
        true => image.verify(),
        false => image.check_size(),
    };
    match checked {
        Err(error @ StorageError::Corrupt { .. }) => Ok(Err(error)),
        checked => checked.map(|()| Ok(image.header.snapshot)),
    }
}

/// The snapshot of a file, every byte of which was read, or what is wrong with the file.
pub(super) fn verify(
    fs: &dyn Vfs,
    name: &str,
) -> Result<Result<Snapshot, StorageError>, StorageError> {
    let checked = Image::open(fs, name).and_then(|image| {
        image.verify()?;
        if self::name(image.snapshot().last) != name {
            return Err(image.flawed(Flaw::Bad("image under another one's name"), 0));
        }
        Ok(image.header.snapshot)
    });
    match checked {
        Err(error @ (StorageError::Io { .. } | StorageError::NoMemory)) => Err(error),
        checked => Ok(checked),
    }
}

/// What is kept, shared with those who write an image in another thread.
pub(super) struct Snapshots {
    fs: Arc<dyn Vfs>,
    /// Held by who gives a file its place; taken before `state`, never while that is held.
    publishing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    kept: Vec<Snapshot>,
    /// Files that go when the next image is durable.
    obsolete: Vec<String>,
    /// Names given to unfinished files.
    prepared: u64,
}

impl Snapshots {
    pub(super) fn new(fs: Arc<dyn Vfs>, found: Found) -> Snapshots {
        let state = State {
            kept: found.kept,
            obsolete: found.obsolete,
            prepared: 0,
        };
        Snapshots {
            fs,
            publishing: Mutex::new(()),
            state: Mutex::new(state),
        }
    }

    pub(super) fn fs(&self) -> &dyn Vfs {
        &*self.fs
    }

    /// A name that no other unfinished file has.
    pub(super) fn prepared(&self, name: &str) -> String {
        let mut state = self.state();
        state.prepared += 1;
        format!("{PREPARED}{}-{name}", state.prepared)
    }

    /// Removes an unfinished file; the next opening does if this fails.
    pub(super) fn discard(&self, prepared: &str) {
        let _ = self.fs.remove(prepared);
    }

    /// The newest one.
    pub(super) fn newest(&self) -> Option<Snapshot> {
        self.state().kept.last().cloned()
    }

    /// The last index of the oldest one, 0 without any.
    pub(super) fn oldest(&self) -> Index {
        self.state().kept.first().map_or(0, |s| s.last.index)
    }

    /// Whether a snapshot at least as new is kept.
    pub(super) fn is_old(&self, snapshot: &Snapshot) -> bool {
        let newest = self.state().kept.last().map_or(0, |s| s.last.index);
        snapshot.last.index <= newest
    }

    /// Whether this very one is kept.
    pub(super) fn holds(&self, snapshot: &Snapshot) -> bool {
        self.state().kept.contains(snapshot)
    }

    /// Gives a file, durable and verified, its place, and removes those that are not kept any more;
    /// `false`, and nothing happened, if a snapshot at least as new is kept. This node's own image
    /// and a leader's may come at once, and end at the same entry.
    pub(super) fn publish(&self, file: &str, snapshot: &Snapshot) -> Result<bool, StorageError> {
        let _one = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.is_old(snapshot) {
            return Ok(false);
        }
        let name = name(snapshot.last);
        let renamed = self.fs.rename(file, &name);
        if let Err(error) = renamed.and_then(|()| self.fs.sync_dir()) {
            // It may be there or not. Nothing relies on it, and it goes with the next one.
            self.state().obsolete.push(name);
            return Err(error);
        }
        let obsolete = self.state().keep(snapshot.clone(), &name);
        for name in obsolete {
            if self.fs.remove(&name).is_err() {
                self.state().obsolete.push(name);
            }
        }
        Ok(true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half changed, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes one in; yields the files that are to be removed.
    fn keep(&mut self, snapshot: Snapshot, file: &str) -> Vec<String> {
        self.kept.push(snapshot);
        self.kept.sort_by_key(|snapshot| snapshot.last.index);
        // A damaged one, or one that may have been there already.
        self.obsolete.retain(|name| name != file);
        let surplus = self.kept.len().saturating_sub(KEPT);
        let old = self.kept.drain(..surplus).map(|old| name(old.last));
        self.obsolete.extend(old);
        std::mem::take(&mut self.obsolete)
    }
}

/// An image of this node's own that is being written.
pub(super) struct Writer {
    snapshots: Arc<Snapshots>,
    draft: Draft,
    origin: Origin,
    salt: u64,
    file: Box<dyn VfsFile>,
    prepared: String,
    /// The block that is not full: room for its first sector, and data.
    block: Vec<u8>,
    size: u64,
    checksum: Hasher,
    failed: bool,
    published: bool,
}

impl Writer {
    pub(super) fn begin(
        snapshots: &Arc<Snapshots>,
        origin: Origin,
        draft: Draft,
    ) -> Result<Writer, StorageError> {
        let fs = snapshots.fs();
        let prepared = snapshots.prepared(&name(draft.last));
        let salt = fs.random()?;
        let mut block = Vec::new();
        block.try_reserve_exact(BLOCK)?;
        block.resize(SECTOR, 0);
        Ok(Writer {
            file: fs.create(&prepared)?,
            snapshots: snapshots.clone(),
            draft,
            origin,
            salt,
            prepared,
            block,
            size: 0,
            checksum: Hasher::new(),
            failed: false,
            published: false,
        })
    }

    fn append(&mut self, mut data: &[u8]) -> Result<(), StorageError> {
        while !data.is_empty() {
            let room = BLOCK - self.block.len();
            let (part, rest) = data.split_at(room.min(data.len()));
            self.block.extend_from_slice(part);
            self.checksum.update(part);
            self.size += part.len() as u64;
            data = rest;
            if self.block.len() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes the block that holds the last byte.
    fn flush(&mut self) -> Result<(), StorageError> {
        let data = &self.block[SECTOR..];
        let number = (self.size - data.len() as u64) / DATA as u64;
        let mut checksum = block_checksum(self.salt, number);
        checksum.update(data);
        let count = Count {
            len: data.len() as u32,
            crc: checksum.finalize(),
        };
        let counts = encode_counts(&[count, Count::default()]);
        self.block[..COUNTS].copy_from_slice(&counts);
        self.file.write(&self.block, block_offset(number))?;
        self.block.truncate(SECTOR);
        Ok(())
    }

    /// Writes what is missing of the file.
    fn end(&mut self) -> Result<Snapshot, StorageError> {
        if self.block.len() > SECTOR {
            self.flush()?;
        }
        let checksum = self.checksum.clone().finalize();
        let snapshot = self.draft.finished(self.size, checksum);
        let header = Header {
            origin: self.origin,
            salt: self.salt,
            snapshot: snapshot.clone(),
        };
        self.file.write(&header.encode(), 0)?;
        Ok(snapshot)
    }

    fn complete(&mut self) -> Result<Snapshot, StorageError> {
        let snapshot = self.end()?;
        self.file.sync()?;
        let written = Image::open(self.snapshots.fs(), &self.prepared)?;
        written.verify()?;
        self.published = self.snapshots.publish(&self.prepared, &snapshot)?;
        Ok(snapshot)
    }

    fn refuse_if_failed(&self) -> Result<(), StorageError> {
        match self.failed {
            false => Ok(()),
            true => Err(StorageError::Io {
                op: "write after a failed one",
                path: self.snapshots.fs().path(&self.prepared),
                error: std::io::ErrorKind::Other.into(),
            }),
        }
    }
}

impl SnapshotWriter for Writer {
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        self.refuse_if_failed()?;
        let written = self.append(data);
        self.failed = written.is_err();
        written
    }

    fn finish(mut self: Box<Self>) -> Result<Snapshot, StorageError> {
        self.refuse_if_failed()?;
        self.complete()
    }

    /// The file has no name any more when this returns.
    fn finish_aside(
        mut self: Box<Self>,
    ) -> Result<(Box<dyn SnapshotReader>, u64, u32), StorageError> {
        self.refuse_if_failed()?;
        let snapshot = self.end()?;
        let reader = ImageReader::open(self.snapshots.fs(), &self.prepared, &snapshot)?;
        Ok((Box::new(reader), snapshot.size, snapshot.crc))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.published {
            self.snapshots.discard(&self.prepared);
        }
    }
}

/// A whole image that is being read, block by block.
pub(super) struct ImageReader {
    /// `None` for an empty one.
    image: Option<Image>,
    block: Vec<u8>,
    /// The block that is in memory.
    number: Option<u64>,
}

impl ImageReader {
    /// Of the named file, which must be that of this snapshot.
    pub(super) fn open(
        fs: &dyn Vfs,
        name: &str,
        snapshot: &Snapshot,
    ) -> Result<ImageReader, StorageError> {
        let image = Image::open(fs, name)?;
        if image.snapshot() != snapshot {
            return Err(image.flawed(Flaw::Bad("image of another snapshot"), 0));
        }
        image.check_size()?;
        Ok(ImageReader {
            image: Some(image),
            block: zeros(BLOCK)?,
            number: None,
        })
    }

    /// Of an image of no bytes, which needs no file.
    pub(super) fn empty() -> ImageReader {
        ImageReader {
            image: None,
            block: Vec::new(),
            number: None,
        }
    }

    /// The image's bytes from `offset` on, as far as they are in one block.
    fn part(&mut self, offset: u64) -> Result<&[u8], StorageError> {
        let Some(image) = &self.image else {
            return Ok(&[]);
        };
        let number = offset / DATA as u64;
        let len = image.expected(number);
        if self.number != Some(number) {
            self.number = None;
            image.read(number, &mut self.block)?;
            self.number = Some(number);
        }
        let at = (offset % DATA as u64) as usize;
        Ok(self.block[SECTOR..SECTOR + len].get(at..).unwrap_or(&[]))
    }
}

impl SnapshotReader for ImageReader {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        let size = self.image.as_ref().map_or(0, |i| i.snapshot().size);
        let mut filled = 0;
        while filled < buf.len() {
            let Some(at) = offset.checked_add(filled as u64).filter(|at| *at < size) else {
                break;
            };
            let part = self.part(at)?;
            let len = part.len().min(buf.len() - filled);
            buf[filled..filled + len].copy_from_slice(&part[..len]);
            filled += len;
        }
        Ok(filled)
    }
}
