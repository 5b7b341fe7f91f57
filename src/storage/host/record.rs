//! The records: what the host stores for the library, as bytes that know whether they are whole and
//! whose they are.
//!
//! ```text
//! state   magic "KEELSTAT", version (1), cluster, node, instance (8 each), incarnation (4), term,
//!         vote, commit (8 each), excluded (1, and 16 if it is 1), index and term of the last entry
//!         of the log (8 each), CRC-32 of all of it
//! entry   term of the entry before it (8), the entry as on the wire, CRC-32 of both
//! image   the image, then what it is: the snapshot as on the wire, the length of that (4), magic
//!         "KEELSNAP", CRC-32 of these three
//! ```
//!
//! The checksums of entries and images begin with the store's own identity and instance, so that
//! what belongs to another node, or to an earlier one of the same id, is not taken for good.

use crate::core::{Entry, Exclusion, HardState, Index, NodeId, Position, Snapshot, Term};
use crate::storage::Identity;
use crate::wire::{
    MAX_SNAPSHOT_INDEX, MAX_TERM, Reader, WireError, Writer, decode_entry, decode_snapshot,
    encode_entry, encode_snapshot, entry_len,
};

const STATE_MAGIC: &[u8; 8] = b"KEELSTAT";
const IMAGE_MAGIC: &[u8; 8] = b"KEELSNAP";
/// Of all records; every state record says it.
const VERSION: u8 = 1;
const CRC: usize = 4;

/// Bytes at the very end of an image, which say how to read what is before them.
pub(super) const IMAGE_END: usize = 4 + IMAGE_MAGIC.len() + CRC;
/// More than a snapshot's description ever needs.
pub(super) const DESCRIPTION_MAX: usize = 4096;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// They are not what was written.
    Bad(&'static str),
    /// They are whole, but of a newer version: its number.
    Newer(u32),
    /// They may be, and there is no memory for what they hold.
    NoMemory,
}

impl From<WireError> for Flaw {
    /// A kind of entry that is not known halts the node, it is never skipped (raft.md rule 59).
    fn from(error: WireError) -> Flaw {
        match error {
            WireError::UnknownKind { kind, .. } => Flaw::Newer(u32::from(kind)),
            WireError::NoMemory => Flaw::NoMemory,
            _ => Flaw::Bad("record that cannot be read"),
        }
    }
}

/// What a state record says; each replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) identity: Identity,
    /// Drawn when the store was first written to.
    pub(super) instance: u64,
    /// How often it has been opened.
    pub(super) incarnation: u32,
    pub(super) hard: HardState,
    /// Where the log ends.
    pub(super) last: Position,
}

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut out = Writer::new(&mut bytes);
        out.raw(STATE_MAGIC);
        out.u8(VERSION);
        out.u64(self.identity.cluster);
        out.node(self.identity.node);
        out.u64(self.instance);
        out.u32(self.incarnation);
        out.u64(self.hard.term);
        out.optional_node(self.hard.vote);
        out.u64(self.hard.commit);
        out.bool(self.hard.excluded.is_some());
        if let Some(exclusion) = self.hard.excluded {
            out.u64(exclusion.epoch);
            out.u64(exclusion.index);
        }
        out.u64(self.last.index);
        out.u64(self.last.term);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(record: &[u8]) -> Result<State, Flaw> {
        let body = checked(record, &crc32fast::Hasher::new())?;
        let mut input = Reader::new(body);
        if input.take(STATE_MAGIC.len())? != STATE_MAGIC {
            return Err(Flaw::Bad("this is no state"));
        }
        match input.u8()? {
            VERSION => {}
            newer => return Err(Flaw::Newer(u32::from(newer))),
        }
        let cluster = input.u64()?;
        let node = input.node("node")?;
        let (instance, incarnation) = (input.u64()?, input.u32()?);
        let term = input.u64()?;
        let vote = input.optional_node()?;
        let commit = input.u64()?;
        let excluded = match input.bool("excluded")? {
            false => None,
            true => Some(Exclusion {
                epoch: input.u64()?,
                index: input.u64()?,
            }),
        };
        let last = Position {
            index: input.u64()?,
            term: input.u64()?,
        };
        input.finish()?;
        // What the node goes on from must leave it a next one.
        let goes_on = last.index <= MAX_SNAPSHOT_INDEX && term.max(commit) <= MAX_TERM;
        if !goes_on {
            return Err(Flaw::Bad("number that nobody counts to"));
        }
        Ok(State {
            identity: Identity { cluster, node },
            instance,
            incarnation,
            hard: HardState {
                term,
                vote,
                excluded,
                commit,
                // A host's storage that has lost anything is refused.
                claim: None,
            },
            last,
        })
    }
}

/// What the checksums of one store begin with.
#[derive(Clone, Debug)]
pub(super) struct Seal(crc32fast::Hasher);

impl Seal {
    pub(super) fn new(identity: &Identity, instance: u64) -> Seal {
        let mut hasher = crc32fast::Hasher::new();
        for number in [identity.cluster, NodeId::get(identity.node), instance] {
            hasher.update(&number.to_le_bytes());
        }
        Seal(hasher)
    }

    /// Appends the checksum of what `bytes` holds from `start` on.
    fn close(&self, bytes: &mut Vec<u8>, start: usize) {
        let mut hasher = self.0.clone();
        hasher.update(&bytes[start..]);
        bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
    }

    /// How many bytes [`Seal::encode_entry`] appends.
    pub(super) fn entry_len(entry: &Entry) -> usize {
        size_of::<Term>() + entry_len(entry) + CRC
    }

    /// Appends an entry's record; `before` is the term of the entry before it.
    pub(super) fn encode_entry(&self, before: Term, entry: &Entry, out: &mut Vec<u8>) {
        let start = out.len();
        Writer::new(out).u64(before);
        encode_entry(entry, out);
        self.close(out, start);
    }

    /// Reads the record of the entry at `index`, and the term of the one before it.
    pub(super) fn decode_entry(&self, index: Index, record: &[u8]) -> Result<(Term, Entry), Flaw> {
        let mut input = Reader::new(checked(record, &self.0)?);
        let before = input.u64()?;
        let mut rest = input.rest();
        let entry = decode_entry(&mut rest)?;
        if !rest.is_empty() {
            return Err(Flaw::Bad("bytes after an entry"));
        }
        if entry.index != index {
            return Err(Flaw::Bad("entry under the index of another one"));
        }
        if before > entry.term || (before == 0) != (index == 1) {
            return Err(Flaw::Bad("term out of order"));
        }
        Ok((before, entry))
    }

    /// What follows an image.
    pub(super) fn encode_description(&self, snapshot: &Snapshot) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_snapshot(snapshot, &mut Writer::new(&mut bytes));
        assert!(bytes.len() <= DESCRIPTION_MAX, "{snapshot:?} is too long");
        let len = bytes.len() as u32;
        Writer::new(&mut bytes).u32(len);
        bytes.extend_from_slice(IMAGE_MAGIC);
        self.close(&mut bytes, 0);
        bytes
    }

    /// How many bytes of an image that ends so are its description, with this end.
    pub(super) fn description_len(end: &[u8; IMAGE_END]) -> Result<usize, Flaw> {
        let mut input = Reader::new(end);
        let len = input.u32()? as usize;
        match input.take(IMAGE_MAGIC.len())? == IMAGE_MAGIC && len <= DESCRIPTION_MAX {
            true => Ok(len + IMAGE_END),
            false => Err(Flaw::Bad("image that does not end as one does")),
        }
    }

    /// Reads what follows an image of so many bytes.
    pub(super) fn decode_description(
        &self,
        description: &[u8],
        size: u64,
    ) -> Result<Snapshot, Flaw> {
        let body = checked(description, &self.0)?;
        let len = body.len().saturating_sub(IMAGE_END - CRC);
        let mut input = Reader::new(&body[..len]);
        let snapshot = decode_snapshot(&mut input)?;
        input.finish()?;
        match snapshot.size == size {
            true => Ok(snapshot),
            false => Err(Flaw::Bad("image of the wrong size")),
        }
    }
}

/// All but the checksum at the end, if that is right; it begins with `seed`.
fn checked<'a>(record: &'a [u8], seed: &crc32fast::Hasher) -> Result<&'a [u8], Flaw> {
    let Some((body, crc)) = record.split_last_chunk::<CRC>() else {
        return Err(Flaw::Bad("record that is cut short"));
    };
    let mut hasher = seed.clone();
    hasher.update(body);
    match hasher.finalize() == u32::from_le_bytes(*crc) {
        true => Ok(body),
        false => Err(Flaw::Bad("record with a wrong checksum")),
    }
}
