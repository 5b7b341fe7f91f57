//! META: whose directory it is, the hard state, and what the log must at least reach.
//!
//! Two slots in separate regions of one file hold the same state. An update writes the first and
//! syncs, then the second and syncs, and only then is anything acknowledged: so everything that
//! was ever acknowledged is in both, and either one alone will do.

use crate::core::{Exclusion, HardState, Index, NodeId, Position};
use crate::storage::{Identity, StorageError, zeros};

use super::page::{CLAIM, Flaw, PAGE, seal_with, take_number, take_u8, take_u32, take_u64, unseal};
use super::vfs::{Vfs, VfsFile};

/// The file's name.
pub(super) const NAME: &str = "META";
const PREPARED: &str = "prep-META";

/// What is said where there is none, and where neither slot can be read.
pub(super) const MISSING: &str = "META is missing, the log is not";
pub(super) const DAMAGED: &str = "both META slots are damaged";

const MAGIC: &[u8; 8] = b"KEELMETA";
/// Slots are this far apart, so that no one erase block or misdirected write takes both.
const REGION: usize = 64 * 1024;
const SLOTS: usize = 2;

/// Whose a file is, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) identity: Identity,
    pub(super) instance: u64,
    /// The opening in which it was made.
    pub(super) incarnation: u32,
    /// META's generation at that time.
    pub(super) generation: u64,
}

/// The state that both slots hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) identity: Identity,
    /// Drawn when the directory was made.
    pub(super) instance: u64,
    /// How often the directory has been opened.
    pub(super) incarnation: u32,
    /// Grows with every update.
    pub(super) generation: u64,
    pub(super) hard: HardState,
    /// The newest segment that must exist; 0 before the first opening.
    pub(super) head_seq: u64,
    /// The log was durable at least up to here.
    pub(super) durable_lsn: u64,
    /// The oldest segment that must exist, counted from 1; those before it were trimmed.
    pub(super) first_seq: u64,
    /// Where the image ends that was adopted last, until the log is known to hold that or to begin
    /// there: so long nothing else would tell of an image that is gone.
    pub(super) adopted: Option<Position>,
}

impl Meta {
    /// What a file that is made now says of itself.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            identity: self.identity,
            instance: self.instance,
            incarnation: self.incarnation,
            generation: self.generation,
        }
    }

    /// Whether the named file is this node's, and not newer than META; `index` is for the message.
    pub(super) fn check(
        &self,
        origin: &Origin,
        fs: &dyn Vfs,
        name: &str,
        index: Index,
    ) -> Result<(), StorageError> {
        if origin.identity != self.identity {
            return Err(StorageError::Foreign {
                path: fs.path(name),
                found: origin.identity,
                asked: self.identity,
            });
        }
        if origin.instance != self.instance {
            let flaw = Flaw::Bad("file of an earlier node of this id");
            return Err(flaw.at(fs.path(name), 0, 0));
        }
        match origin.generation > self.generation || origin.incarnation > self.incarnation {
            true => Err(stale(fs, index)),
            false => Ok(()),
        }
    }

    fn encode(&self, slot: usize) -> Vec<u8> {
        let excluded = self.hard.excluded;
        let mut out = Vec::new();
        out.extend_from_slice(&(slot as u32).to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        for field in [
            self.identity.cluster,
            self.identity.node.get(),
            self.instance,
            self.generation,
            self.hard.term,
            self.hard.commit,
            NodeId::raw(self.hard.vote),
            excluded.map_or(0, |e| e.epoch),
            excluded.map_or(0, |e| e.index),
            self.head_seq,
            self.durable_lsn,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.push(u8::from(excluded.is_some()));
        out.extend_from_slice(&self.first_seq.to_le_bytes());
        encode_position(self.hard.claim, &mut out);
        // No feature of its own: who does not know of it misses the image no worse than before.
        encode_position(self.adopted, &mut out);
        seal_with(MAGIC, &out, self.hard.claim.map_or(0, |_| CLAIM))
    }

    fn decode(slot: usize, page: &[u8]) -> Result<Meta, Flaw> {
        let input = &mut unseal(MAGIC, page)?;
        if take_u32(input)? as usize != slot {
            return Err(Flaw::Bad("META slot in the wrong place"));
        }
        let incarnation = take_u32(input)?;
        let cluster = take_u64(input)?;
        let node = NodeId::new(take_u64(input)?).ok_or(Flaw::Bad("META of node 0"))?;
        let instance = take_u64(input)?;
        let generation = take_number(input)?;
        let term = take_number(input)?;
        let commit = take_number(input)?;
        let vote = NodeId::new(take_u64(input)?);
        let exclusion = Exclusion {
            epoch: take_u64(input)?,
            index: take_u64(input)?,
        };
        let head_seq = take_number(input)?;
        let durable_lsn = take_number(input)?;
        let excluded = match take_u8(input)? {
            0 => None,
            1 => Some(exclusion),
            other => return Err(Flaw::Newer(u32::from(other))),
        };
        // 0 in a META of format 1.0, whose log was never trimmed.
        let first_seq = take_number(input)?.max(1);
        // Zeros in a META of before there were such.
        let claim = take_position(input)?;
        let adopted = take_position(input)?;
        if first_seq > head_seq.max(1) {
            // What is written next would lie in a segment that is taken for trimmed.
            return Err(Flaw::Bad("META that trims its newest segment"));
        }
        Ok(Meta {
            identity: Identity { cluster, node },
            instance,
            incarnation,
            generation,
            hard: HardState {
                term,
                vote,
                excluded,
                commit,
                claim,
            },
            head_seq,
            durable_lsn,
            first_seq,
            adopted,
        })
    }
}

/// A place, or zeros for none.
fn encode_position(position: Option<Position>, out: &mut Vec<u8>) {
    let Position { index, term } = position.unwrap_or_default();
    out.push(u8::from(position.is_some()));
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&term.to_le_bytes());
}

fn take_position(input: &mut &[u8]) -> Result<Option<Position>, Flaw> {
    let some = take_u8(input)?;
    let position = Position {
        index: take_number(input)?,
        term: take_number(input)?,
    };
    match some {
        0 => Ok(None),
        1 => Ok(Some(position)),
        other => Err(Flaw::Newer(u32::from(other))),
    }
}

/// Something is newer than META: META was put back from a copy, and votes may have been forgotten.
pub(super) fn stale(fs: &dyn Vfs, index: Index) -> StorageError {
    Flaw::Bad("META is older than the log").at(fs.path(NAME), 0, index)
}

/// Makes the file, complete and durable or not at all.
pub(super) fn create(fs: &dyn Vfs, meta: &Meta) -> Result<(), StorageError> {
    let mut image = zeros(REGION * SLOTS)?;
    for slot in 0..SLOTS {
        image[slot * REGION..][..PAGE].copy_from_slice(&meta.encode(slot));
    }
    let file = fs.create(PREPARED)?;
    file.write(&image, 0)?;
    file.sync()?;
    fs.rename(PREPARED, NAME)?;
    fs.sync_dir()
}

/// Writes both slots, one after the other, each durable before the next is touched.
pub(super) fn update(file: &dyn VfsFile, meta: &Meta) -> Result<(), StorageError> {
    for slot in 0..SLOTS {
        file.write(&meta.encode(slot), (slot * REGION) as u64)?;
        if !cfg!(keel_bug = "meta_not_synced") {
            file.sync()?;
        }
    }
    Ok(())
}

/// The newest state, and whether a slot was found damaged or behind by more than a crash explains.
pub(super) fn load(fs: &dyn Vfs) -> Result<(Meta, bool), StorageError> {
    let image = fs.read(NAME, (REGION * SLOTS) as u64)?;
    choose(&image).map_err(|(flaw, offset)| flaw.at(fs.path(NAME), offset, 0))
}

/// As [`load`], from the bytes of the file; a flaw comes with its offset.
pub(super) fn choose(image: &[u8]) -> Result<(Meta, bool), (Flaw, u64)> {
    let second = REGION as u64;
    match (slot(image, 0), slot(image, 1)) {
        // A newer library wrote here and was cut off: its state must not be undone by an older one.
        (Err(Flaw::Newer(found)), _) => Err((Flaw::Newer(found), 0)),
        (_, Err(Flaw::Newer(found))) => Err((Flaw::Newer(found), second)),
        (Err(_), Err(_)) => Err((Flaw::Bad(DAMAGED), 0)),
        (Ok(meta), Err(_)) | (Err(_), Ok(meta)) => Ok((meta, true)),
        (Ok(a), Ok(b)) => {
            let alike = a.identity == b.identity && a.instance == b.instance;
            if !alike || (a.generation == b.generation && a != b) {
                return Err((Flaw::Bad("META slots contradict each other"), second));
            }
            // A crash between the two writes leaves the first slot one ahead, nothing else.
            let behind = a.generation.wrapping_sub(b.generation) > 1;
            let newest = if b.generation > a.generation { b } else { a };
            Ok((newest, behind))
        }
    }
}

fn slot(image: &[u8], slot: usize) -> Result<Meta, Flaw> {
    let region = image.get(slot * REGION..).unwrap_or(&[]);
    Meta::decode(slot, &region[..region.len().min(PAGE)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(generation: u64) -> Meta {
        Meta {
            identity: Identity {
                cluster: 5,
                node: NodeId::new(3).unwrap(),
            },
            instance: 77,
            incarnation: 2,
            generation,
            hard: HardState {
                term: generation,
                vote: NodeId::new(2),
                excluded: (generation % 2 == 1).then_some(Exclusion { epoch: 4, index: 9 }),
                commit: generation / 2,
                claim: (generation.is_multiple_of(3)).then_some(Position { index: 70, term: 4 }),
            },
            head_seq: 4,
            durable_lsn: 4096,
            first_seq: 3,
            adopted: (generation.is_multiple_of(2)).then_some(Position { index: 80, term: 5 }),
        }
    }

    fn image(first: &Meta, second: &Meta) -> Vec<u8> {
        let mut image = vec![0; REGION * SLOTS];
        image[..PAGE].copy_from_slice(&first.encode(0));
        image[REGION..][..PAGE].copy_from_slice(&second.encode(1));
        image
    }

    #[test]
    fn the_newest_valid_slot_counts() {
        for (first, second, newest, behind) in [
            (8, 8, 8, false),
            (9, 8, 9, false),
            (9, 7, 9, true),
            (8, 9, 9, true),
        ] {
            let image = image(&meta(first), &meta(second));
            assert_eq!(choose(&image), Ok((meta(newest), behind)));
        }
    }

    #[test]
    fn every_flipped_bit_leaves_the_other_slot() {
        let whole = image(&meta(9), &meta(9));
        for slot in [0, REGION] {
            for bit in 0..PAGE * 8 {
                let mut image = whole.clone();
                image[slot + bit / 8] ^= 1 << (bit % 8);
                assert_eq!(choose(&image), Ok((meta(9), true)), "slot {slot} bit {bit}");
            }
        }
    }

    #[test]
    fn every_length_gives_the_state_or_an_error() {
        let whole = image(&meta(9), &meta(9));
        for len in (0..=whole.len()).step_by(64) {
            let found = choose(&whole[..len]);
            match len {
                0..PAGE => assert!(found.is_err(), "{len}"),
                _ => assert_eq!(found, Ok((meta(9), len < REGION + PAGE)), "{len}"),
            }
        }
    }

    #[test]
    fn slots_that_cannot_both_be_true_are_refused() {
        let mut other = meta(9);
        other.hard.vote = NodeId::new(1);
        assert!(choose(&image(&meta(9), &other)).is_err());
        let mut foreign = meta(8);
        foreign.instance += 1;
        assert!(choose(&image(&meta(9), &foreign)).is_err());
        let mut swapped = image(&meta(9), &meta(9));
        let (first, second) = swapped.split_at_mut(REGION);
        first[..PAGE].swap_with_slice(&mut second[..PAGE]);
        assert!(choose(&swapped).is_err());
    }

    #[test]
    fn the_newest_segment_is_never_trimmed() {
        for (first_seq, head_seq, good) in
            [(1, 0, true), (4, 4, true), (2, 0, false), (5, 4, false)]
        {
            let meta = Meta {
                first_seq,
                head_seq,
                ..meta(9)
            };
            assert_eq!(choose(&image(&meta, &meta)).is_ok(), good, "{first_seq}");
        }
    }

    #[test]
    fn numbers_that_leave_no_next_one_are_refused() {
        let fields: [fn(&mut Meta) -> &mut u64; 6] = [
            |meta| &mut meta.generation,
            |meta| &mut meta.hard.term,
            |meta| &mut meta.hard.commit,
            |meta| &mut meta.head_seq,
            |meta| &mut meta.durable_lsn,
            |meta| &mut meta.first_seq,
        ];
        for (at, field) in fields.iter().enumerate() {
            let mut meta = meta(9);
            meta.head_seq = u64::MAX / 2;
            *field(&mut meta) = u64::MAX / 2;
            assert_eq!(choose(&image(&meta, &meta)), Ok((meta.clone(), false)));
            for number in [u64::MAX / 2 + 1, u64::MAX] {
                *field(&mut meta) = number;
                assert!(choose(&image(&meta, &meta)).is_err(), "{at}: {number}");
            }
        }
    }

    #[test]
    fn a_newer_slot_is_never_overruled() {
        let mut image = image(&meta(9), &meta(9));
        // Major version 2, checksum made right again.
        image[REGION + 12] = 2;
        let crc = crc32fast::hash(&image[REGION + 12..REGION + PAGE]);
        image[REGION + 8..REGION + 12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(choose(&image), Err((Flaw::Newer(0x2_0001), REGION as u64)));
    }
}
