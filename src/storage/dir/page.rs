//! Pages that know whether they are whole: magic, checksum, format version, feature bits.
//!
//! META slots and the headers of segments and images are such pages. Magic, checksum and version keep their places
//! in every future format, so that an old reader can tell "newer" from "damaged".

use std::path::PathBuf;

use crate::core::Index;
use crate::storage::StorageError;

/// What is written and checked as one; also the alignment of commit groups.
pub(super) const PAGE: usize = 4096;
/// What a disk is trusted to write as a whole.
pub(super) const SECTOR: usize = 512;

/// A reader refuses another major version; a minor one only adds fields where zeros were.
const MAJOR: u16 = 1;
const MINOR: u16 = 1;
/// Feature bits without which a directory must not be read: this is all that this version knows.
const INCOMPAT: u32 = CLAIM;
/// META holds a claim: a node that does not know of it could vote against what it once acknowledged.
pub(super) const CLAIM: u32 = 1;
/// Feature bits that a reader may ignore.
const COMPAT: u32 = 0;

const MAGIC_LEN: usize = 8;
const CRC_END: usize = MAGIC_LEN + 4;
const FIELDS: usize = CRC_END + 12;

/// Why bytes are not what they should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// They are not what was written.
    Bad(&'static str),
    /// They are whole, but of a newer version: its number or unknown bits.
    Newer(u32),
    /// They may be, and there is no memory for what they hold.
    NoMemory,
}

impl Flaw {
    /// The flaw as an error that names its place.
    pub(super) fn at(self, path: PathBuf, offset: u64, index: Index) -> StorageError {
        match self {
            Flaw::Bad(what) => StorageError::Corrupt {
                path,
                offset,
                index,
                what,
            },
            Flaw::Newer(found) => StorageError::Version { path, found },
            Flaw::NoMemory => StorageError::NoMemory,
        }
    }
}

/// Makes a page of `fields`, padded with zeros.
pub(super) fn seal(magic: &[u8; MAGIC_LEN], fields: &[u8]) -> Vec<u8> {
    seal_with(magic, fields, 0)
}

/// The same, of a page that must not be read without these features.
pub(super) fn seal_with(magic: &[u8; MAGIC_LEN], fields: &[u8], features: u32) -> Vec<u8> {
    assert!(fields.len() <= PAGE - FIELDS, "fields exceed the page");
    let mut page = Vec::with_capacity(PAGE);
    page.extend_from_slice(magic);
    page.extend_from_slice(&[0; 4]);
    page.extend_from_slice(&MAJOR.to_le_bytes());
    page.extend_from_slice(&MINOR.to_le_bytes());
    page.extend_from_slice(&features.to_le_bytes());
    page.extend_from_slice(&COMPAT.to_le_bytes());
    page.extend_from_slice(fields);
    page.resize(PAGE, 0);
    let crc = crc32fast::hash(&page[CRC_END..]);
    page[MAGIC_LEN..CRC_END].copy_from_slice(&crc.to_le_bytes());
    page
}

/// The fields of a page, with the zeros that pad them.
pub(super) fn unseal<'a>(magic: &[u8; MAGIC_LEN], page: &'a [u8]) -> Result<&'a [u8], Flaw> {
    if page.len() != PAGE {
        return Err(Flaw::Bad("page is cut short"));
    }
    let mut rest = page;
    if take(&mut rest, MAGIC_LEN)? != magic {
        return Err(Flaw::Bad("wrong magic number"));
    }
    if take_u32(&mut rest)? != crc32fast::hash(&page[CRC_END..]) {
        return Err(Flaw::Bad("wrong checksum of the page"));
    }
    let (major, minor) = (take_u16(&mut rest)?, take_u16(&mut rest)?);
    if major != MAJOR {
        return Err(Flaw::Newer(u32::from(major) << 16 | u32::from(minor)));
    }
    let unknown = take_u32(&mut rest)? & !INCOMPAT;
    if unknown != 0 {
        return Err(Flaw::Newer(unknown));
    }
    let _compat = take_u32(&mut rest)?;
    Ok(rest)
}

/// The next `len` bytes.
pub(super) fn take<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], Flaw> {
    let Some((head, rest)) = input.split_at_checked(len) else {
        return Err(Flaw::Bad("field runs past the end"));
    };
    *input = rest;
    Ok(head)
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Flaw> {
    let mut array = [0; N];
    array.copy_from_slice(take(input, N)?);
    Ok(array)
}

/// The next byte.
pub(super) fn take_u8(input: &mut &[u8]) -> Result<u8, Flaw> {
    take_array(input).map(u8::from_le_bytes)
}

/// The next 16 bits, little-endian as everything here.
pub(super) fn take_u16(input: &mut &[u8]) -> Result<u16, Flaw> {
    take_array(input).map(u16::from_le_bytes)
}

/// The next 32 bits.
pub(super) fn take_u32(input: &mut &[u8]) -> Result<u32, Flaw> {
    take_array(input).map(u32::from_le_bytes)
}

/// The next 64 bits.
pub(super) fn take_u64(input: &mut &[u8]) -> Result<u64, Flaw> {
    take_array(input).map(u64::from_le_bytes)
}

/// The next 64 bits, a number that goes on being counted. Above half of all there are nobody ever
/// got: it could not be counted on from there for long.
pub(super) fn take_number(input: &mut &[u8]) -> Result<u64, Flaw> {
    match take_u64(input)? {
        number if number >> 63 == 0 => Ok(number),
        _ => Err(Flaw::Bad("number that nobody counts to")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"TESTPAGE";

    /// A page with a field of the prefix overwritten and the checksum made right again.
    fn patched(offset: usize, bytes: &[u8]) -> Vec<u8> {
        let mut page = seal(MAGIC, b"fields");
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
        let crc = crc32fast::hash(&page[CRC_END..]);
        page[MAGIC_LEN..CRC_END].copy_from_slice(&crc.to_le_bytes());
        page
    }

    #[test]
    fn fields_come_back() {
        let page = seal(MAGIC, b"fields");
        assert_eq!(page.len(), PAGE);
        assert!(unseal(MAGIC, &page).unwrap().starts_with(b"fields\0"));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut page = seal(MAGIC, b"fields");
        for bit in 0..PAGE * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(unseal(MAGIC, &page), Err(Flaw::Bad(_))),
                "bit {bit}"
            );
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn newer_formats_are_told_from_damage() {
        let major = patched(CRC_END, &2u16.to_le_bytes());
        assert_eq!(unseal(MAGIC, &major), Err(Flaw::Newer(0x2_0001)));
        let incompat = patched(CRC_END + 4, &4u32.to_le_bytes());
        assert_eq!(unseal(MAGIC, &incompat), Err(Flaw::Newer(4)));
        let minor = patched(CRC_END + 2, &7u16.to_le_bytes());
        assert!(unseal(MAGIC, &minor).is_ok());
        let compat = patched(CRC_END + 8, &1u32.to_le_bytes());
        assert!(unseal(MAGIC, &compat).is_ok());
    }
}
