//! An image that is being received: `recv.part`, an image file that grows piece by piece.
//!
//! A piece is durable before it is acknowledged. One that was cut off or failed may be there in
//! part; what was acknowledged before it still counts. After a failure nothing is added to the
//! file: its sender begins again, with a new one.

use crc32fast::Hasher;

use crate::core::Snapshot;
use crate::panics::lock;
use crate::storage::{StorageError, zeros};
use crate::wire::MAX_PIECE;

use super::image::{
    BLOCK, Count, DATA, Header, Image, block_checksum, block_offset, decode_counts, encode_counts,
};
use super::meta::Meta;
use super::page::SECTOR;
use super::reader::Files;
use super::snapshot::Snapshots;
use super::vfs::Vfs;

/// The file's name.
pub(super) const NAME: &str = "recv.part";

/// What has come so far of an image, open for more.
pub(super) struct Partial {
    image: Image,
    stored: u64,
    /// Of the block that is not full: the checksum so far, both counts, and which of them says so.
    checksum: Hasher,
    counts: [Count; 2],
    newest: usize,
}

impl Partial {
    /// Begins with the first piece; what was received before, of whatever image, stays until this
    /// is durable.
    pub(super) fn begin(
        snapshots: &Snapshots,
        header: Header,
        data: &[u8],
    ) -> Result<Partial, StorageError> {
        let prepared = snapshots.prepared(NAME);
        let made = Partial::make(snapshots.fs(), &prepared, header, data);
        if made.is_err() {
            snapshots.discard(&prepared);
        }
        made
    }

    fn make(
        fs: &dyn Vfs,
        prepared: &str,
        header: Header,
        data: &[u8],
    ) -> Result<Partial, StorageError> {
        let file = fs.create(prepared)?;
        file.write(&header.encode(), 0)?;
        let mut partial = Partial::of(Image {
            file,
            path: fs.path(NAME),
            header,
        });
        partial.append(data)?;
        fs.rename(prepared, NAME)?;
        fs.sync_dir()?;
        Ok(partial)
    }

    fn of(image: Image) -> Partial {
        Partial {
            image,
            stored: 0,
            checksum: Hasher::new(),
            counts: [Count::default(); 2],
            newest: 0,
        }
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        self.image.snapshot()
    }

    /// Bytes of the image that are durable.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Adds a piece, durably. After an error this must not be used any more.
    pub(super) fn append(&mut self, mut data: &[u8]) -> Result<(), StorageError> {
        while !data.is_empty() {
            let room = DATA - (self.stored % DATA as u64) as usize;
            let (part, rest) = data.split_at(room.min(data.len()));
            self.append_to_block(part)?;
            data = rest;
        }
        self.image.file.sync()
    }

    fn append_to_block(&mut self, part: &[u8]) -> Result<(), StorageError> {
        let number = self.stored / DATA as u64;
        let before = (self.stored % DATA as u64) as usize;
        if before == 0 {
            self.checksum = block_checksum(self.image.header.salt, number);
            self.counts = [Count::default(); 2];
        }
        self.checksum.update(part);
        self.newest = 1 - self.newest;
        self.counts[self.newest] = Count {
            len: (before + part.len()) as u32,
            crc: self.checksum.clone().finalize(),
        };
        let counts = encode_counts(&self.counts);
        let (file, offset) = (&self.image.file, block_offset(number));
        if before == 0 {
            let mut block = Vec::new();
            block.try_reserve_exact(SECTOR + part.len())?;
            block.resize(SECTOR, 0);
            block[..counts.len()].copy_from_slice(&counts);
            block.extend_from_slice(part);
            file.write(&block, offset)?;
        } else {
            file.write(part, offset + (SECTOR + before) as u64)?;
            file.write(&counts, offset)?;
        }
        self.stored += part.len() as u64;
        Ok(())
    }

    /// Finds what an earlier process received, as far as it is whole: whatever is wrong with it,
    /// it can be sent again. The last piece may be one that this process sees and the disk never
    /// got, so it is written once more.
    pub(super) fn find(fs: &dyn Vfs, meta: &Meta) -> Result<Option<Partial>, StorageError> {
        let image = match Image::open(fs, NAME) {
            Err(error @ StorageError::Io { .. }) => return Err(error),
            Err(_) => return Ok(None),
            Ok(image) => image,
        };
        let ours = meta.check(&image.header.origin, fs, NAME, 0).is_ok();
        if !ours {
            return Ok(None);
        }
        let mut partial = Partial::of(image);
        partial.measure()?;
        Ok(Some(partial))
    }

    /// Counts what is there, up to the first byte that is not.
    fn measure(&mut self) -> Result<(), StorageError> {
        let mut block = zeros(BLOCK)?;
        for number in 0..self.image.blocks() {
            let read = self.image.file.read(&mut block, block_offset(number))?;
            let len = self.measure_block(number, &block[..read]);
            self.stored += len as u64;
            if len < DATA {
                break;
            }
        }
        Ok(())
    }

    fn measure_block(&mut self, number: u64, block: &[u8]) -> usize {
        let Some(data) = block.get(SECTOR..) else {
            return 0;
        };
        let Ok(counts) = decode_counts(block) else {
            return 0;
        };
        self.counts = counts;
        let mut longest = 0;
        for (at, count) in counts.iter().enumerate() {
            let len = count.len as usize;
            if len <= longest || len > self.image.expected(number) || len > data.len() {
                continue;
            }
            let mut checksum = block_checksum(self.image.header.salt, number);
            checksum.update(&data[..len]);
            if checksum.clone().finalize() == count.crc {
                (longest, self.newest, self.checksum) = (len, at, checksum);
            }
        }
        longest
    }

    /// Makes the last piece durable in this process: see [`Partial::find`].
    pub(super) fn rewrite(&self) -> Result<(), StorageError> {
        let first = self.stored.saturating_sub(MAX_PIECE as u64) / DATA as u64;
        let mut block = zeros(BLOCK)?;
        for number in first..self.stored.div_ceil(DATA as u64) {
            let data = (self.stored - number * DATA as u64).min(DATA as u64) as usize;
            let offset = block_offset(number);
            // As it is, with both counts: if this is cut off, the older one still holds.
            let read = self.image.file.read(&mut block[..SECTOR + data], offset)?;
            self.image.file.write(&block[..read], offset)?;
        }
        self.image.file.sync()
    }
}

impl Files {
    /// Keeps a piece, which follows the one before or is the first.
    pub(super) fn keep_piece(
        &self,
        snapshot: &Snapshot,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StorageError> {
        let end = offset.checked_add(data.len() as u64);
        assert!(
            data.len() <= MAX_PIECE && end.is_some_and(|end| end <= snapshot.size),
            "a piece of {} bytes at {offset} of {}",
            data.len(),
            snapshot.size
        );
        let mut kept = lock(&self.partial);
        // Unless all goes well there is nothing that another piece may follow.
        let before = kept.take();
        if offset == 0 {
            *kept = Some(self.begin_partial(snapshot, data)?);
            return Ok(());
        }
        let before = before.filter(|p| p.snapshot() == snapshot && p.stored == offset);
        let Some(mut partial) = before else {
            panic!("a piece at {offset} follows no other");
        };
        partial.append(data)?;
        *kept = Some(partial);
        Ok(())
    }

    fn begin_partial(&self, snapshot: &Snapshot, data: &[u8]) -> Result<Partial, StorageError> {
        let header = Header {
            origin: lock(&self.known).origin,
            salt: self.fs.random()?,
            snapshot: snapshot.clone(),
        };
        Partial::begin(&self.snapshots, header, data)
    }

    /// Whether this very snapshot was received, all of it and as its checksum says.
    pub(super) fn has_received(&self, snapshot: &Snapshot) -> Result<bool, StorageError> {
        is_whole(lock(&self.partial).as_ref(), snapshot)
    }

    /// Makes what was received the newest snapshot.
    pub(super) fn adopt_received(&self, snapshot: &Snapshot) -> Result<(), StorageError> {
        let mut kept = lock(&self.partial);
        if self.snapshots.is_old(snapshot) {
            *kept = None;
            self.snapshots.discard(NAME);
            return Ok(());
        }
        if snapshot.size == 0 {
            *kept = Some(self.begin_partial(snapshot, &[])?);
        }
        if !is_whole(kept.as_ref(), snapshot)? {
            let path = self.fs.path(NAME);
            return Err(StorageError::Missing { path });
        }
        // Storage never holds what is newer than the term it knows, whatever order it is told in.
        let term = lock(&self.known).term;
        if snapshot.last.term > term {
            lock(&self.log).raise_term(snapshot.last.term)?;
        }
        // From here on it is not known under which name it is.
        if let Some(partial) = kept.take() {
            partial.image.file.sync()?;
        }
        match self.snapshots.publish(NAME, snapshot)? {
            // Not before: a crash in between must not look as if the image had been lost.
            true => lock(&self.log).note_adopted(snapshot.last),
            false => {
                self.snapshots.discard(NAME);
                Ok(())
            }
        }
    }
}

fn is_whole(partial: Option<&Partial>, snapshot: &Snapshot) -> Result<bool, StorageError> {
    let whole = |p: &&Partial| p.snapshot() == snapshot && p.stored == snapshot.size;
    match partial.filter(whole) {
        Some(partial) => partial.image.verify().map(|()| true),
        None => Ok(false),
    }
}
