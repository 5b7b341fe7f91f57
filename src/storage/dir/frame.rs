//! Frames: one commit group each, the unit that a crash keeps or loses.
//!
//! A group starts on a fresh page and is padded to the end of its last, so that a durable page is
//! never written again. Its frame header lies within one sector. The checksum of the header covers
//! the one of the body, and each header names its predecessor's: a frame taken from elsewhere or
//! from an older copy of the file does not fit in.

use crate::core::{Entry, Index, Position, Term};
use crate::wire::{WireError, decode_entry, encode_entry, entry_len};

use super::buffer::Buffer;
use super::page::{Flaw, PAGE, SECTOR, take, take_number, take_u8, take_u32, take_u64};

/// Bytes of a frame header.
pub(super) const HEADER: usize = 64;
/// Largest group, in bytes; keeps lengths far from every integer's limit.
pub(super) const MAX_GROUP: usize = 256 * 1024 * 1024;

const MAGIC: u32 = u32::from_le_bytes(*b"KLFR");
/// Bytes of the shortest entry.
const MIN_ENTRY: usize = 17;
const CRC_END: usize = 8;

/// What a group does to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Continues it.
    Append,
    /// Truncates it before the group's first index, then continues it. Truncation is a record of
    /// its own kind: an index that goes back without it is damage.
    Replace,
    /// Drops all of it: the log goes on behind the place before the group's first index, whose
    /// term comes before the entries, of which there may be none. Such a group is the first in
    /// its segment, so that the segments before it are of no use any more.
    Reset,
}

/// Where in the log's history a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its position in the log, in bytes, headers of segments not counted.
    pub(super) lsn: u64,
    /// Everything before here was durable when the group was written.
    pub(super) durable_lsn: u64,
    /// META's generation at that time.
    pub(super) generation: u64,
    /// Checksum of the frame header before it; 0 for the first of all.
    pub(super) prev_crc: u32,
}

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) first_index: Index,
    pub(super) count: u32,
    /// Bytes behind the header without the padding.
    pub(super) payload_len: u32,
    /// Of everything behind the header.
    pub(super) body_crc: u32,
    /// The checksum of this header.
    pub(super) crc: u32,
}

/// Why there is no group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// It exceeds [`MAX_GROUP`].
    Ever,
    /// There is no memory for it now.
    Now,
}

/// An unfinished group: room for the header, the entries, the padding. With `reset` it is one that
/// drops the log, which goes on behind there. It is put together in `buffer`, whatever that holds;
/// without a group that is empty afterwards.
pub(super) fn start_group<'a>(
    buffer: &mut Buffer,
    reset: Option<Position>,
    entries: impl Iterator<Item = &'a Entry> + Clone,
) -> Result<Group, TooLarge> {
    let prefix = reset.map_or(0, |_| size_of::<Term>());
    let len = HEADER + prefix + entries.clone().map(entry_len).sum::<usize>();
    if len > MAX_GROUP {
        return Err(TooLarge::Ever);
    }
    let mut buffer = std::mem::take(buffer);
    if !buffer.restart(len.next_multiple_of(PAGE)) {
        return Err(TooLarge::Now);
    }
    let start = buffer.appended().len();
    let bytes = buffer.appended();
    bytes.resize(start + HEADER, 0);
    if let Some(base) = reset {
        bytes.extend_from_slice(&base.term.to_le_bytes());
    }
    let mut first_index = reset.map(|base| base.index + 1);
    let (mut count, mut last) = (0, None);
    for entry in entries {
        encode_entry(entry, bytes);
        first_index.get_or_insert(entry.index);
        count += 1;
        last = Some(entry.position());
    }
    assert_eq!(buffer.len(), len, "a group is as long as was reckoned");
    let payload_len = len - HEADER;
    buffer.pad();
    Ok(Group {
        buffer,
        first_index: first_index.unwrap_or(0),
        last: last.or(reset),
        count,
        payload_len: payload_len as u32,
    })
}

/// See [`start_group`]; all counts fit their fields because the bytes are fewer than [`MAX_GROUP`].
pub(super) struct Group {
    buffer: Buffer,
    first_index: Index,
    last: Option<Position>,
    count: u32,
    payload_len: u32,
}

impl Group {
    /// Index of the first entry; where it would be if there is none.
    pub(super) fn first_index(&self) -> Index {
        self.first_index
    }

    /// Where the log ends with it, if it has an entry or drops the log.
    pub(super) fn last(&self) -> Option<Position> {
        self.last
    }

    /// Bytes that it takes in a segment.
    pub(super) fn size(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// See [`Buffer::is_aligned`].
    pub(super) fn is_aligned(&self) -> bool {
        self.buffer.is_aligned()
    }

    /// Only its memory.
    pub(super) fn give_up(self) -> Buffer {
        self.buffer
    }

    /// Fills in the header; yields the plain bytes and the header's checksum.
    pub(super) fn finish(mut self, kind: Kind, place: &Place) -> (Buffer, u32) {
        let empty = self.count == 0 && kind != Kind::Reset;
        assert!(!empty, "a group without entries");
        let body_crc = crc32fast::hash(&self.buffer.bytes()[HEADER..]);
        let mut head = Vec::with_capacity(HEADER);
        head.extend_from_slice(&MAGIC.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head.push(match kind {
            Kind::Append => 1,
            Kind::Replace => 2,
            Kind::Reset => 3,
        });
        head.extend_from_slice(&[0; 3]);
        head.extend_from_slice(&self.count.to_le_bytes());
        head.extend_from_slice(&place.lsn.to_le_bytes());
        head.extend_from_slice(&place.durable_lsn.to_le_bytes());
        head.extend_from_slice(&self.first_index.to_le_bytes());
        head.extend_from_slice(&place.generation.to_le_bytes());
        head.extend_from_slice(&self.payload_len.to_le_bytes());
        head.extend_from_slice(&body_crc.to_le_bytes());
        head.extend_from_slice(&place.prev_crc.to_le_bytes());
        head.resize(HEADER, 0);
        let crc = crc32fast::hash(&head[CRC_END..]);
        head[4..CRC_END].copy_from_slice(&crc.to_le_bytes());
        self.buffer.bytes_mut()[..HEADER].copy_from_slice(&head);
        (self.buffer, crc)
    }
}

impl Frame {
    /// Reads a plain header. That it fits its place is for the caller to check.
    pub(super) fn decode(head: &[u8; HEADER]) -> Result<Frame, Flaw> {
        let input = &mut &head[..];
        if take_u32(input)? != MAGIC {
            return Err(Flaw::Bad("no frame where one belongs"));
        }
        let crc = take_u32(input)?;
        if crc != crc32fast::hash(&head[CRC_END..]) {
            return Err(Flaw::Bad("wrong checksum of a frame header"));
        }
        let kind = match take_u8(input)? {
            1 => Kind::Append,
            2 => Kind::Replace,
            3 => Kind::Reset,
            unknown => return Err(Flaw::Newer(u32::from(unknown))),
        };
        for _ in 0..3 {
            match take_u8(input)? {
                0 => {}
                unknown => return Err(Flaw::Newer(u32::from(unknown))),
            }
        }
        let count = take_u32(input)?;
        let (lsn, durable_lsn) = (take_u64(input)?, take_u64(input)?);
        let first_index = take_number(input)?;
        if first_index == 0 {
            return Err(Flaw::Bad("frame with an impossible index"));
        }
        let generation = take_u64(input)?;
        let (payload_len, body_crc) = (take_u32(input)?, take_u32(input)?);
        if payload_len as usize > MAX_GROUP {
            return Err(Flaw::Bad("frame longer than any may be"));
        }
        let prev_crc = take_u32(input)?;
        Ok(Frame {
            kind,
            place: Place {
                lsn,
                durable_lsn,
                generation,
                prev_crc,
            },
            first_index,
            count,
            payload_len,
            body_crc,
            crc,
        })
    }

    /// Index of the last entry; the one before the first if there are no entries.
    pub(super) fn last_index(&self) -> Index {
        self.first_index - 1 + u64::from(self.count)
    }

    /// Bytes of the payload that stand before the entries.
    pub(super) fn prefix(&self) -> usize {
        match self.kind {
            Kind::Append | Kind::Replace => 0,
            Kind::Reset => size_of::<Term>(),
        }
    }

    /// Where the log goes on behind, if the whole group drops it.
    pub(super) fn reset(&self, group: &[u8]) -> Result<Option<Position>, Flaw> {
        if self.kind != Kind::Reset {
            return Ok(None);
        }
        let term = take_u64(&mut &group[HEADER..][..self.payload_len as usize])?;
        let index = self.first_index - 1;
        if index == 0 && term != 0 {
            return Err(Flaw::Bad(
                "log that begins behind an entry that there never is",
            ));
        }
        Ok(Some(Position { index, term }))
    }

    /// Bytes of the whole group, padding included.
    pub(super) fn size(&self) -> usize {
        (HEADER + self.payload_len as usize).next_multiple_of(PAGE)
    }

    /// Whether the plain group, of the length that the header says, is what was written.
    pub(super) fn is_whole(&self, group: &[u8]) -> bool {
        assert_eq!(group.len(), self.size());
        crc32fast::hash(&group[HEADER..]) == self.body_crc
    }

    /// The entries of a whole group, in number and position as the header says.
    pub(super) fn entries(&self, group: &[u8]) -> Result<Vec<Entry>, Flaw> {
        let mut input = &group[HEADER..HEADER + self.payload_len as usize];
        take(&mut input, self.prefix())?;
        let mut entries = Vec::new();
        let most = (self.count as usize).min(input.len() / MIN_ENTRY);
        if entries.try_reserve_exact(most).is_err() {
            return Err(Flaw::NoMemory);
        }
        for expected in (self.first_index..).take(self.count as usize) {
            let entry = decode_entry(&mut input).map_err(flaw)?;
            if entry.index != expected {
                return Err(Flaw::Bad("entry with the wrong index"));
            }
            entries.push(entry);
        }
        let empty = entries.is_empty() && self.kind != Kind::Reset;
        if !input.is_empty() || empty {
            return Err(Flaw::Bad("frame with the wrong number of entries"));
        }
        Ok(entries)
    }
}

/// Turns plain bytes into stored ones and back.
///
/// The stored form depends on the segment's salt and on the place in the file. So no sector that
/// was ever written is all zero, a zero sector of a zero-filled segment surely never reached the
/// disk, and a page that landed in the wrong place is not taken for a frame.
pub(super) fn whiten(salt: u64, offset: u64, bytes: &mut [u8]) {
    let (words, rest) = bytes.as_chunks_mut();
    assert!(offset.is_multiple_of(8) && rest.is_empty());
    for (word, number) in words.iter_mut().zip(offset / 8..) {
        let mixed = salt
            .wrapping_add(number)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = mixed ^ (mixed >> 29);
        *word = (u64::from_le_bytes(*word) ^ key).to_le_bytes();
    }
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

/// Whether some sector of the stored bytes never reached the disk.
pub(super) fn has_hole(stored: &[u8]) -> bool {
    stored.chunks(SECTOR).any(is_zero)
}

/// A kind of entry that is not known halts the node, it is never skipped (raft.md rule 59).
pub(super) fn flaw(error: WireError) -> Flaw {
    match error {
        WireError::UnknownKind { kind, .. } => Flaw::Newer(u32::from(kind)),
        WireError::NoMemory => Flaw::NoMemory,
        _ => Flaw::Bad("entry that cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Bytes, Payload};

    const PLACE: Place = Place {
        lsn: 3 * PAGE as u64,
        durable_lsn: PAGE as u64,
        generation: 8,
        prev_crc: 0xabcd,
    };

    fn entries(first: u64, count: u64, len: usize) -> Vec<Entry> {
        (first..first + count)
            .map(|index| Entry {
                index,
                term: 4,
                payload: Payload::Host(Bytes::from(vec![0; len])),
            })
            .collect()
    }

    fn group(reset: Option<Position>, entries: &[Entry]) -> Group {
        start_group(&mut Buffer::default(), reset, entries.iter()).unwrap()
    }

    fn finished(group: Group, kind: Kind) -> (Vec<u8>, u32) {
        let (buffer, crc) = group.finish(kind, &PLACE);
        assert!(buffer.is_aligned());
        (buffer.bytes().to_vec(), crc)
    }

    fn head(group: &[u8]) -> [u8; HEADER] {
        group[..HEADER].try_into().unwrap()
    }

    #[test]
    fn groups_come_back() {
        for (count, len) in [(1, 0), (3, 100), (2, PAGE), (1, PAGE - HEADER - 21)] {
            let log = entries(7, count, len);
            let group = group(None, &log);
            let size = group.size();
            let (bytes, crc) = finished(group, Kind::Replace);
            let frame = Frame::decode(&head(&bytes)).unwrap();
            assert_eq!((frame.kind, frame.place), (Kind::Replace, PLACE));
            assert_eq!((frame.size() as u64, frame.crc), (size, crc));
            assert!(frame.is_whole(&bytes));
            assert_eq!(frame.entries(&bytes), Ok(log));
        }
    }

    #[test]
    fn a_reset_comes_back_with_and_without_entries() {
        let base = Position { index: 6, term: 3 };
        for count in [0, 2] {
            let log = entries(7, count, 100);
            let group = group(Some(base), &log);
            let (bytes, _) = finished(group, Kind::Reset);
            let frame = Frame::decode(&head(&bytes)).unwrap();
            assert_eq!((frame.kind, frame.last_index()), (Kind::Reset, 6 + count));
            assert!(frame.is_whole(&bytes));
            assert_eq!(frame.reset(&bytes), Ok(Some(base)));
            assert_eq!(frame.entries(&bytes), Ok(log));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (mut bytes, _) = finished(group(None, &entries(1, 2, 30)), Kind::Append);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let noticed = match Frame::decode(&head(&bytes)) {
                Ok(frame) => !frame.is_whole(&bytes),
                Err(_) => true,
            };
            assert!(noticed, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn unknown_kinds_halt() {
        let (bytes, _) = finished(group(None, &entries(1, 1, 0)), Kind::Append);
        let mut head = head(&bytes);
        head[8] = 4;
        let crc = crc32fast::hash(&head[CRC_END..]);
        head[4..CRC_END].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Frame::decode(&head), Err(Flaw::Newer(4)));
    }

    #[test]
    fn an_index_that_leaves_no_next_one_is_refused() {
        let group = |first| finished(group(None, &entries(first, 1, 0)), Kind::Append);
        let (bytes, _) = group(u64::MAX / 2);
        let frame = Frame::decode(&head(&bytes)).unwrap();
        assert_eq!(frame.entries(&bytes), Ok(entries(u64::MAX / 2, 1, 0)));
        for first in [u64::MAX / 2 + 1, u64::MAX - 1] {
            let (bytes, _) = group(first);
            assert!(Frame::decode(&head(&bytes)).is_err());
        }
    }

    #[test]
    fn stored_zeros_are_never_zero() {
        for salt in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let mut bytes = vec![0; 16 * PAGE];
            whiten(salt, PAGE as u64, &mut bytes);
            assert!(!has_hole(&bytes), "salt {salt:#x}");
            assert!(
                bytes
                    .chunks(SECTOR)
                    .zip(bytes.chunks(SECTOR).skip(1))
                    .all(|(a, b)| a != b)
            );
            whiten(salt, PAGE as u64, &mut bytes);
            assert!(is_zero(&bytes));
        }
    }
}
