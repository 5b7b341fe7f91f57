//! The images of snapshots: numbered, written from front to back, found again by their end.
//!
//! An older image stays with the host as long as the log reaches back to it, for it may be on its way
//! to a peer; and as long as somebody reads it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::{Index, Snapshot};
use crate::storage::{Draft, SnapshotReader, SnapshotWriter, StorageError, zeros};

use super::record::{IMAGE_END, Seal};
use super::records::flawed;
use super::{HostStore, corrupt, said};

/// Bytes that are read at once to compare a checksum.
const STRIDE: usize = 64 << 10;

/// All images of one store; shared with those who write and read them.
#[derive(Clone)]
pub(super) struct Images(Arc<Shelf>);

struct Shelf {
    store: Arc<dyn HostStore>,
    seal: Seal,
    kept: Mutex<Kept>,
}

struct Kept {
    /// The number of the next image. One that was not committed before a restart has its number
    /// given again, and is begun anew by that.
    next: u64,
    /// Committed, the newest last.
    images: Vec<Image>,
    /// Being written, given up, or replaced.
    others: Vec<Place>,
}

/// An image's number; the host keeps the image as long as anybody refers to it.
#[derive(Clone)]
struct Place(Arc<u64>);

#[derive(Clone)]
struct Image {
    place: Place,
    snapshot: Snapshot,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Images")
    }
}

impl Images {
    /// The images that the host has listed, each with its size. One that is damaged is left aside;
    /// what is wrong with it is returned, for it may turn out to be needed.
    pub(super) fn find(
        store: Arc<dyn HostStore>,
        seal: Seal,
        listed: &[(u64, u64)],
    ) -> Result<(Images, Option<StorageError>), StorageError> {
        let mut kept = Kept {
            next: listed.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1,
            images: Vec::new(),
            others: Vec::new(),
        };
        let mut damaged = None;
        for (number, size) in listed {
            let place = Place(Arc::new(*number));
            match describe(&*store, &seal, *number, *size) {
                Ok(snapshot) => kept.images.push(Image { place, snapshot }),
                Err(error @ StorageError::Record { .. }) => {
                    kept.others.push(place);
                    damaged = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        kept.images.sort_by_key(|image| image.snapshot.last.index);
        kept.retire(Index::MAX);
        let kept = Mutex::new(kept);
        let images = Images(Arc::new(Shelf { store, seal, kept }));
        Ok((images, damaged))
    }

    pub(super) fn newest(&self) -> Option<Snapshot> {
        self.lock()
            .images
            .last()
            .map(|image| image.snapshot.clone())
    }

    /// The log begins behind `base` now.
    pub(super) fn retire(&self, base: Index) {
        self.lock().retire(base);
        self.sweep();
    }

    /// The last index of the newest one.
    pub(super) fn newest_index(&self) -> Index {
        self.newest().map_or(0, |snapshot| snapshot.last.index)
    }

    /// Begins an image.
    pub(super) fn begin(&self) -> Writing {
        self.sweep();
        let mut kept = self.lock();
        let place = Place(Arc::new(kept.next));
        kept.next += 1;
        kept.others.push(place.clone());
        Writing {
            images: self.clone(),
            place,
            size: 0,
            hasher: crc32fast::Hasher::new(),
        }
    }

    /// Opens a committed image, whose checksum is compared first.
    pub(super) fn open(&self, snapshot: &Snapshot) -> Option<Result<Reader, StorageError>> {
        let kept = self.lock();
        let mut images = kept.images.iter();
        let place = images.find(|i| i.snapshot == *snapshot)?.place.clone();
        drop(kept);
        Some(self.read(place, snapshot))
    }

    fn read(&self, place: Place, snapshot: &Snapshot) -> Result<Reader, StorageError> {
        let mut reader = Reader {
            images: self.clone(),
            place,
            size: snapshot.size,
            index: snapshot.last.index,
        };
        match reader.checksum()? == snapshot.crc {
            true => Ok(reader),
            false => Err(corrupt(
                snapshot.last.index,
                "image of a snapshot is not what was written",
            )),
        }
    }

    /// Reads what is there of `buf.len()` bytes at `offset`.
    fn get(&self, place: &Place, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        get(&*self.0.store, *place.0, offset, buf)
    }

    /// Has the host drop what nobody needs. If it fails to, the image is found again by the next
    /// opening, and is in the way of nothing.
    fn sweep(&self) {
        let mut kept = self.lock();
        let unused = kept.others.extract_if(.., |p| Arc::strong_count(&p.0) == 1);
        let unused: Vec<Place> = unused.collect();
        drop(kept);
        for place in unused {
            let _ = self.0.store.snap_drop(*place.0);
        }
    }

    /// No section leaves this half changed, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// What ends before `base` is not needed any more, but for the newest.
    fn retire(&mut self, base: Index) {
        let before = |image: &Image| image.snapshot.last.index < base;
        let older = self.images.partition_point(before);
        let older = older.min(self.images.len().saturating_sub(1));
        let older = self.images.drain(..older).map(|image| image.place);
        self.others.extend(older);
    }
}

/// An image that is being written, from front to back; dropping it gives it up. That makes no call
/// and takes no lock: it may be the end of a forked child's copy.
pub(super) struct Writing {
    images: Images,
    place: Place,
    size: u64,
    hasher: crc32fast::Hasher,
}

impl Writing {
    /// Bytes written so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn crc(&self) -> u32 {
        self.hasher.clone().finalize()
    }

    pub(super) fn append(&mut self, data: &[u8]) -> Result<(), StorageError> {
        if data.is_empty() {
            return Ok(());
        }
        self.put(data)?;
        self.size += data.len() as u64;
        self.hasher.update(data);
        Ok(())
    }

    fn put(&self, data: &[u8]) -> Result<(), StorageError> {
        let store = &self.images.0.store;
        said("snap_put", store.snap_put(*self.place.0, self.size, data))
    }

    /// Reads what was written, which is not committed yet.
    pub(super) fn read(&self, snapshot: &Snapshot) -> Result<Reader, StorageError> {
        self.images.read(self.place.clone(), snapshot)
    }

    /// Makes it durable, as the newest image if none is newer. It was verified by the caller.
    pub(super) fn commit(&self, snapshot: &Snapshot) -> Result<(), StorageError> {
        let whole = self.size == snapshot.size && self.crc() == snapshot.crc;
        if !whole {
            let what = "image of a snapshot is not whole";
            return Err(corrupt(snapshot.last.index, what));
        }
        if self.images.newest_index() >= snapshot.last.index {
            return Ok(());
        }
        let shelf = &self.images.0;
        self.put(&shelf.seal.encode_description(snapshot))?;
        said("snap_commit", shelf.store.snap_commit(*self.place.0))?;
        let mut kept = self.images.lock();
        kept.others.retain(|place| place.0 != self.place.0);
        kept.images.push(Image {
            place: self.place.clone(),
            snapshot: snapshot.clone(),
        });
        kept.images.sort_by_key(|image| image.snapshot.last.index);
        Ok(())
    }
}

/// An image of this node's own.
pub(super) struct Saving {
    writing: Writing,
    draft: Draft,
}

impl Saving {
    pub(super) fn new(writing: Writing, draft: Draft) -> Saving {
        Saving { writing, draft }
    }
}

impl SnapshotWriter for Saving {
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        self.writing.append(data)
    }

    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError> {
        let writing = &self.writing;
        let snapshot = self.draft.finished(writing.size(), writing.crc());
        // The log before it will be dropped: what the host gives back must be what it was given.
        drop(writing.read(&snapshot)?);
        writing.commit(&snapshot)?;
        writing.images.sweep();
        Ok(snapshot)
    }

    /// The image is never committed, and stays with the host as long as it is read.
    fn finish_aside(self: Box<Self>) -> Result<(Box<dyn SnapshotReader>, u64, u32), StorageError> {
        let (size, crc) = (self.writing.size(), self.writing.crc());
        let reader = self.writing.read(&self.draft.finished(size, crc))?;
        Ok((Box::new(reader), size, crc))
    }
}

/// An image that is being read.
pub(super) struct Reader {
    images: Images,
    place: Place,
    size: u64,
    index: Index,
}

impl Reader {
    fn checksum(&mut self) -> Result<u32, StorageError> {
        let mut hasher = crc32fast::Hasher::new();
        let mut buf = zeros(STRIDE)?;
        let mut offset = 0;
        loop {
            let len = self.read_at(offset, &mut buf)?;
            if len == 0 {
                return Ok(hasher.finalize());
            }
            hasher.update(&buf[..len]);
            offset += len as u64;
        }
    }
}

impl SnapshotReader for Reader {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        let rest = self.size.saturating_sub(offset);
        let len = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        let got = self.images.get(&self.place, offset, &mut buf[..len])?;
        match got == len {
            true => Ok(len),
            false => Err(corrupt(self.index, "image of a snapshot is cut short")),
        }
    }
}

/// What an image says of itself at its end.
fn describe(
    store: &dyn HostStore,
    seal: &Seal,
    number: u64,
    size: u64,
) -> Result<Snapshot, StorageError> {
    let short = || corrupt(0, "image that is cut short");
    let read = |len: usize| {
        let offset = size.checked_sub(len as u64).ok_or_else(short)?;
        let mut bytes = zeros(len)?;
        match get(store, number, offset, &mut bytes)? == len {
            true => Ok(bytes),
            false => Err(short()),
        }
    };
    let mut end = [0; IMAGE_END];
    end.copy_from_slice(&read(IMAGE_END)?);
    let len = Seal::description_len(&end).map_err(|flaw| flawed(flaw, 0))?;
    let description = read(len)?;
    seal.decode_description(&description, size - len as u64)
        .map_err(|flaw| flawed(flaw, 0))
}

/// Reads until `buf` is full or the image ends.
fn get(
    store: &dyn HostStore,
    number: u64,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize, StorageError> {
    let mut filled = 0;
    while filled < buf.len() {
        let rest = &mut buf[filled..];
        let room = rest.len();
        let got = store.snap_get(number, offset + filled as u64, rest);
        match said("snap_get", got)? {
            0 => break,
            got => filled += got.min(room),
        }
    }
    Ok(filled)
}
