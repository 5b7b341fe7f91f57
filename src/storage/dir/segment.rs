//! Segments: files of fixed size, zero-filled when made, written once from front to back.
//!
//! A segment is one sealed header page and then commit groups. It appears under its name only
//! when all of it is durable, zeros included: what follows its last group is known to be zero, and
//! writing a group needs no new space and changes no file metadata. (One that is made for large groups
//! may have zeros that were never written; then the file system notes what was.)

use std::os::fd::RawFd;

use crate::core::{NodeId, Position};
use crate::storage::{Identity, StorageError};

use super::buffer::Buffer;
use super::frame::{MAX_GROUP, whiten};
use super::meta::Origin;
use super::open::or_full;
use super::page::{Flaw, PAGE, seal, take_number, take_u32, take_u64, unseal};
use super::spare::Spare;
use super::vfs::{Vfs, VfsFile};

/// What names of segments end in.
pub(super) const SUFFIX: &str = ".seg";
/// What names of unfinished files begin with.
pub(super) const PREPARED: &str = "prep-";
/// Smallest and largest size of a segment file in bytes.
pub(super) const MIN_BYTES: u64 = 4 * PAGE as u64;
pub(super) const MAX_BYTES: u64 = (PAGE + MAX_GROUP) as u64;

const MAGIC: &[u8; 8] = b"KEELSEGM";

pub(super) static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What the first page of a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) origin: Origin,
    /// Segments are numbered from 1 without gaps.
    pub(super) seq: u64,
    /// The last entry of the log where this segment continues it.
    pub(super) prev: Position,
    /// Position in the log of the first group.
    pub(super) start_lsn: u64,
    /// Checksum of the last frame header before it.
    pub(super) prev_crc: u32,
    /// Drawn for each file: see [`whiten`].
    pub(super) salt: u64,
    /// Size of the file.
    pub(super) bytes: u64,
}

impl Header {
    /// Of a segment that goes on at `end`.
    pub(super) fn new(origin: Origin, seq: u64, end: &End, salt: u64, bytes: u64) -> Header {
        Header {
            origin,
            seq,
            prev: end.last,
            start_lsn: end.lsn,
            prev_crc: end.crc,
            salt,
            bytes,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        seal(MAGIC, &self.fields())
    }

    /// All that it says, as bytes.
    pub(super) fn fields(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.origin.incarnation.to_le_bytes());
        out.extend_from_slice(&self.prev_crc.to_le_bytes());
        for field in [
            self.origin.identity.cluster,
            self.origin.identity.node.get(),
            self.origin.instance,
            self.origin.generation,
            self.seq,
            self.prev.index,
            self.prev.term,
            self.start_lsn,
            self.salt,
            self.bytes,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out
    }

    /// Reads the first page of a segment.
    pub(super) fn decode(page: &[u8]) -> Result<Header, Flaw> {
        let input = &mut unseal(MAGIC, page)?;
        let incarnation = take_u32(input)?;
        let prev_crc = take_u32(input)?;
        let cluster = take_u64(input)?;
        let node = NodeId::new(take_u64(input)?).ok_or(Flaw::Bad("segment of node 0"))?;
        let origin = Origin {
            identity: Identity { cluster, node },
            instance: take_u64(input)?,
            incarnation,
            generation: take_u64(input)?,
        };
        let header = Header {
            origin,
            seq: take_number(input)?,
            prev: Position {
                index: take_number(input)?,
                term: take_u64(input)?,
            },
            start_lsn: take_number(input)?,
            prev_crc,
            salt: take_u64(input)?,
            bytes: take_u64(input)?,
        };
        if header.prev.index == 0 && header.prev.term != 0 {
            return Err(Flaw::Bad("segment behind an entry that there never is"));
        }
        let aligned = header.bytes.is_multiple_of(PAGE as u64);
        if !aligned || !(MIN_BYTES..=MAX_BYTES).contains(&header.bytes) {
            return Err(Flaw::Bad("impossible size of a segment"));
        }
        Ok(header)
    }

    /// The name of the segment's file.
    pub(super) fn name(&self) -> String {
        format!("{:020}-{:020}{SUFFIX}", self.seq, self.prev.index + 1)
    }

    /// Where the log ended when the segment was begun.
    pub(super) fn start(&self) -> End {
        End {
            lsn: self.start_lsn,
            crc: self.prev_crc,
            last: self.prev,
        }
    }

    /// Byte offset in the file of a position in the log.
    pub(super) fn offset(&self, lsn: u64) -> u64 {
        assert!(
            lsn >= self.start_lsn,
            "position {lsn} is before the segment"
        );
        PAGE as u64 + (lsn - self.start_lsn)
    }
}

/// Whether the name is that of a segment, whatever the file holds. What is called but nearly so nobody
/// here has named: it is left alone.
pub(super) fn is_segment(name: &str) -> bool {
    let numbers = || name.strip_suffix(SUFFIX)?.split_once('-');
    numbers().is_some_and(|(seq, first)| is_number(seq) && is_number(first))
}

/// Whether it is written as a name has it.
fn is_number(text: &str) -> bool {
    let number: Option<u64> = text.parse().ok();
    number.is_some_and(|number| number >> 63 == 0 && format!("{number:020}") == text)
}

/// What tells which segment is missing: the other half of its name is not known.
pub(super) fn missing_name(seq: u64) -> String {
    format!("{seq:020}-*{SUFFIX}")
}

/// The number of the segment of this name, if it is one.
pub(super) fn seq_of(name: &str) -> Option<u64> {
    name.split_once('-').and_then(|(seq, _)| seq.parse().ok())
}

/// Where the log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Position of the next group.
    pub(super) lsn: u64,
    /// Checksum of the last frame header, 0 if there is none.
    pub(super) crc: u32,
    /// The last entry, or what the log begins behind if there is none.
    pub(super) last: Position,
}

/// The newest segment, open for writing.
pub(super) struct Segment {
    pub(super) header: Header,
    file: Box<dyn VfsFile>,
}

impl Segment {
    /// Makes the file with `groups`, plain, as its first bytes; it takes the place of one of the
    /// same name. When this returns, file and name are durable.
    pub(super) fn make(
        fs: &dyn Vfs,
        header: Header,
        groups: &[u8],
    ) -> Result<Segment, StorageError> {
        assert!(header.bytes.is_multiple_of(PAGE as u64) && header.bytes <= MAX_BYTES);
        assert!(groups.len() as u64 <= header.bytes - PAGE as u64);
        let prepared = format!("{PREPARED}{}", header.name());
        let made = Segment::make_as(fs, &prepared, header, groups);
        if made.is_err() {
            // On a full disk it may hold all that was free. The next opening removes it if this fails.
            let _ = fs.remove(&prepared);
        }
        made
    }

    fn make_as(
        fs: &dyn Vfs,
        prepared: &str,
        header: Header,
        groups: &[u8],
    ) -> Result<Segment, StorageError> {
        let mut file = fs.create(prepared).map_err(or_full)?;
        fill(&*file, &header, groups).map_err(or_full)?;
        let name = header.name();
        fs.rename(prepared, &name).map_err(or_full)?;
        fs.sync_dir()?;
        file.renamed(&name);
        Ok(Segment { header, file })
    }

    /// Makes the file durable as it was found, with `groups`, plain, and zeros behind them: what is
    /// written over what counts is the same. `None` if the file is not as long as it was made, or another.
    pub(super) fn rewrite(
        fs: &dyn Vfs,
        header: &Header,
        groups: &[u8],
    ) -> Result<Option<Segment>, StorageError> {
        let file = fs.open(&header.name())?;
        let known = header.encode();
        let mut found = vec![0; known.len()];
        let read = file.read(&mut found, 0)?;
        if file.size()? != header.bytes || read < found.len() || found != known {
            return Ok(None);
        }
        fill(&*file, header, groups)?;
        fs.sync_dir()?;
        let header = header.clone();
        Ok(Some(Segment { header, file }))
    }

    /// Makes one of a spare. When this returns, file and name are durable.
    pub(super) fn of_spare(
        fs: &dyn Vfs,
        spare: Spare,
        header: Header,
    ) -> Result<Segment, StorageError> {
        assert_eq!(spare.bytes, header.bytes, "a segment as large as its spare");
        let mut file = spare.file;
        let name = header.name();
        let begun = file.write(&header.encode(), 0).and_then(|()| file.sync());
        if let Err(error) = begun.and_then(|()| fs.rename(&spare.name, &name)) {
            let _ = fs.remove(&spare.name);
            return Err(or_full(error));
        }
        fs.sync_dir()?;
        file.renamed(&name);
        Ok(Segment { header, file })
    }

    /// Whether a group of `size` bytes fits behind `lsn`.
    pub(super) fn has_room(&self, lsn: u64, size: u64) -> bool {
        self.header.offset(lsn) + size <= self.header.bytes
    }

    /// Turns the group that belongs behind `lsn` into what is stored there; yields the place in the
    /// file.
    pub(super) fn store(&self, lsn: u64, group: &mut Buffer) -> u64 {
        assert!(self.has_room(lsn, group.len() as u64));
        let offset = self.header.offset(lsn);
        whiten(self.header.salt, offset, group.bytes_mut());
        offset
    }

    /// Writes what is stored at `offset`, and makes it durable.
    pub(super) fn write(&self, stored: &[u8], offset: u64) -> Result<(), StorageError> {
        self.file.write(stored, offset)?;
        match self.file.sync() {
            // The second one says that all is well, and what the first one lost stays lost.
            Err(_) if cfg!(keel_bug = "fsync_retried") => self.file.sync(),
            synced => synced,
        }
    }

    /// See [`VfsFile::unbuffered`].
    pub(super) fn unbuffered(&self) -> Option<RawFd> {
        self.file.unbuffered()
    }
}

/// The header, the groups, and zeros up to the end, durable.
fn fill(file: &dyn VfsFile, header: &Header, groups: &[u8]) -> Result<(), StorageError> {
    file.write(&header.encode(), 0)?;
    let mut end = PAGE as u64;
    let mut stored = Vec::new();
    stored.try_reserve_exact(groups.len().min(ZEROS.len()))?;
    for part in groups.chunks(ZEROS.len()) {
        stored.clear();
        stored.extend_from_slice(part);
        whiten(header.salt, end, &mut stored);
        file.write(&stored, end)?;
        end += part.len() as u64;
    }
    while end < header.bytes {
        let len = (header.bytes - end).min(ZEROS.len() as u64);
        file.write(&ZEROS[..len as usize], end)?;
        end += len;
    }
    file.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_leave_no_next_one_are_refused() {
        let header = |[seq, index, start_lsn]: [u64; 3]| Header {
            origin: Origin {
                identity: Identity {
                    cluster: 5,
                    node: NodeId::new(3).unwrap(),
                },
                instance: 77,
                incarnation: 2,
                generation: 4,
            },
            seq,
            prev: Position { index, term: 1 },
            start_lsn,
            prev_crc: 0,
            salt: 9,
            bytes: MIN_BYTES,
        };
        let last = header([u64::MAX / 2; 3]);
        assert_eq!(Header::decode(&last.encode()), Ok(last));
        let mut nowhere = header([1, 0, 1]);
        assert!(Header::decode(&nowhere.encode()).is_err(), "a term at 0");
        nowhere.prev.term = 0;
        assert_eq!(Header::decode(&nowhere.encode()), Ok(nowhere));
        for field in 0..3 {
            for number in [u64::MAX / 2 + 1, u64::MAX] {
                let mut numbers = [1; 3];
                numbers[field] = number;
                assert!(Header::decode(&header(numbers).encode()).is_err());
            }
        }
    }
}
