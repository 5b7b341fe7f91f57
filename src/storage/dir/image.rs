//! Image files: the image of a snapshot, whole or as far as it was received.
//!
//! First a sealed page says whose file it is and of which snapshot; then come blocks of 64 KiB. A
//! block is one sector that counts what of the image is in it, and that much of the image. There
//! are two counts, of which either will do: one that grows is written in the place of the other,
//! so that what was there before still counts if the write is cut off.
//!
//! The checksum of a block depends on the block's number and on the file's salt: one that landed
//! in the wrong place is not taken for another.

use std::path::PathBuf;

use crc32fast::Hasher;

use crate::core::{NodeId, Snapshot};
use crate::storage::{Identity, StorageError, zeros};
use crate::wire::{Reader, Writer, decode_snapshot, encode_snapshot};

use super::meta::Origin;
use super::page::{Flaw, PAGE, SECTOR, seal, take_u32, take_u64, unseal};
use super::vfs::{Vfs, VfsFile};

/// Bytes of a block in the file, and of the image in a block.
pub(super) const BLOCK: usize = 64 * 1024;
pub(super) const DATA: usize = BLOCK - SECTOR;

const MAGIC: &[u8; 8] = b"KEELSNAP";

/// What the first page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) origin: Origin,
    /// Drawn for each file.
    pub(super) salt: u64,
    pub(super) snapshot: Snapshot,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let origin = &self.origin;
        let mut out = Vec::new();
        out.extend_from_slice(&origin.incarnation.to_le_bytes());
        for field in [
            origin.identity.cluster,
            origin.identity.node.get(),
            origin.instance,
            origin.generation,
            self.salt,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        encode_snapshot(&self.snapshot, &mut Writer::new(&mut out));
        seal(MAGIC, &out)
    }

    pub(super) fn decode(page: &[u8]) -> Result<Header, Flaw> {
        let input = &mut unseal(MAGIC, page)?;
        let incarnation = take_u32(input)?;
        let cluster = take_u64(input)?;
        let node = NodeId::new(take_u64(input)?).ok_or(Flaw::Bad("image of node 0"))?;
        let origin = Origin {
            identity: Identity { cluster, node },
            instance: take_u64(input)?,
            incarnation,
            generation: take_u64(input)?,
        };
        let salt = take_u64(input)?;
        let snapshot = decode_snapshot(&mut Reader::new(input));
        Ok(Header {
            origin,
            salt,
            snapshot: snapshot.map_err(|_| Flaw::Bad("snapshot that cannot be read"))?,
        })
    }
}

/// How much of the image is in a block, and the checksum of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) len: u32,
    pub(super) crc: u32,
}

/// Bytes of the two counts at the front of a block.
pub(super) const COUNTS: usize = 16;

/// The counts as bytes.
pub(super) fn encode_counts(counts: &[Count; 2]) -> [u8; COUNTS] {
    let mut bytes = [0; COUNTS];
    for (count, bytes) in counts.iter().zip(bytes.chunks_mut(COUNTS / 2)) {
        bytes[..4].copy_from_slice(&count.len.to_le_bytes());
        bytes[4..].copy_from_slice(&count.crc.to_le_bytes());
    }
    bytes
}

/// The counts of a block that begins so.
pub(super) fn decode_counts(block: &[u8]) -> Result<[Count; 2], Flaw> {
    let input = &mut &block[..];
    let mut counts = [Count::default(); 2];
    for count in &mut counts {
        count.len = take_u32(input)?;
        count.crc = take_u32(input)?;
    }
    Ok(counts)
}

/// Where a block begins in the file.
pub(super) fn block_offset(number: u64) -> u64 {
    // No file is that long, but a forged size of one may be.
    (PAGE as u64).saturating_add(number.saturating_mul(BLOCK as u64))
}

/// A checksum of what is in a block of the file with this salt.
pub(super) fn block_checksum(salt: u64, number: u64) -> Hasher {
    let mut checksum = Hasher::new();
    checksum.update(&salt.to_le_bytes());
    checksum.update(&number.to_le_bytes());
    checksum
}

/// An image file that exists.
pub(super) struct Image {
    pub(super) file: Box<dyn VfsFile>,
    /// For messages.
    pub(super) path: PathBuf,
    pub(super) header: Header,
}

impl Image {
    /// Opens the file and reads its first page; that the rest is there is not looked at.
    pub(super) fn open(fs: &dyn Vfs, name: &str) -> Result<Image, StorageError> {
        let file = fs.open(name)?;
        let mut page = vec![0; PAGE];
        let len = file.read(&mut page, 0)?;
        page.truncate(len);
        let path = fs.path(name);
        let header = Header::decode(&page).map_err(|flaw| flaw.at(path.clone(), 0, 0))?;
        Ok(Image { file, path, header })
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.header.snapshot
    }

    /// Bytes of the image that the block should hold.
    pub(super) fn expected(&self, number: u64) -> usize {
        let before = number.saturating_mul(DATA as u64);
        let rest = self.snapshot().size.saturating_sub(before);
        rest.min(DATA as u64) as usize
    }

    /// Number of blocks of the whole image.
    pub(super) fn blocks(&self) -> u64 {
        self.snapshot().size.div_ceil(DATA as u64)
    }

    /// Compares the file's size with that of the whole image.
    pub(super) fn check_size(&self) -> Result<(), StorageError> {
        let expected = match self.blocks() {
            0 => PAGE as u64,
            blocks => {
                let last = (SECTOR + self.expected(blocks - 1)) as u64;
                block_offset(blocks - 1).saturating_add(last)
            }
        };
        let found = self.file.size()?;
        match found == expected {
            true => Ok(()),
            false => Err(self.flawed(Flaw::Bad("image of the wrong size"), expected.min(found))),
        }
    }

    /// Reads a block of a whole image into `block`, which has room for one; yields what is in it
    /// of the image.
    pub(super) fn read<'a>(
        &self,
        number: u64,
        block: &'a mut [u8],
    ) -> Result<&'a [u8], StorageError> {
        let expected = self.expected(number);
        let offset = block_offset(number);
        let len = self.file.read(&mut block[..SECTOR + expected], offset)?;
        if len < SECTOR + expected {
            return Err(self.flawed(Flaw::Bad("image is cut short"), offset + len as u64));
        }
        let mut checksum = block_checksum(self.header.salt, number);
        checksum.update(&block[SECTOR..SECTOR + expected]);
        let count = Count {
            len: expected as u32,
            crc: checksum.finalize(),
        };
        let counts = decode_counts(block).map_err(|flaw| self.flawed(flaw, offset))?;
        match counts.contains(&count) {
            true => Ok(&block[SECTOR..SECTOR + expected]),
            false => Err(self.flawed(Flaw::Bad("wrong checksum of a block"), offset)),
        }
    }

    /// Reads all of a whole image, and compares every checksum.
    pub(super) fn verify(&self) -> Result<(), StorageError> {
        self.check_size()?;
        let mut block = zeros(BLOCK)?;
        let mut checksum = Hasher::new();
        for number in 0..self.blocks() {
            checksum.update(self.read(number, &mut block)?);
        }
        match checksum.finalize() == self.snapshot().crc {
            true => Ok(()),
            false => Err(self.flawed(Flaw::Bad("wrong checksum of an image"), 0)),
        }
    }

    pub(super) fn flawed(&self, flaw: Flaw, offset: u64) -> StorageError {
        flaw.at(self.path.clone(), offset, self.snapshot().last.index)
    }
}
