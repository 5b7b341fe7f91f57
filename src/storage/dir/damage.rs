//! Damage: how much of a log that is not whole may have been acknowledged.
//!
//! What comes from the damage on is lost to this node, but what it acknowledged of it must stay in
//! force: it claims the last entry that it ever acknowledged ([`HardState::claim`]). Where the log
//! ended is known exactly if a frame survives with nothing but zeros behind it. If not, the claim is
//! a bound: no entry has a newer term than META, nor stands further behind those that are known than
//! as many as the lost bytes have room for.
//!
//! [`HardState::claim`]: crate::core::HardState::claim

use crate::core::{Index, Position};
use crate::storage::StorageError;

use super::frame::{Frame, is_zero, whiten};
use super::meta::{Meta, stale};
use super::page::PAGE;
use super::recover::frame_at;
use super::segment::{Header, MAX_BYTES};
use super::slots::Slot;
use super::vfs::Vfs;

/// Bytes that an entry takes at least.
const ENTRY: u64 = 17;

/// What is wrong with a log, and what it may have held.
pub(super) struct Damage {
    pub(super) error: StorageError,
    /// At least the last entry that was ever acknowledged.
    pub(super) claim: Position,
}

impl Damage {
    /// What is lost besides makes it worse; the first error is the one that is told.
    pub(super) fn add(damage: Option<Damage>, error: StorageError, claim: Position) -> Damage {
        match damage {
            None => Damage { error, claim },
            Some(known) => Damage {
                claim: later(known.claim, claim),
                ..known
            },
        }
    }
}

/// The one of two places that a log needs to reach both.
pub(super) fn later(a: Position, b: Position) -> Position {
    if a.reaches(b) { a } else { b }
}

/// The last entry that the segments ever held, or a bound on it.
pub(super) fn claim(fs: &dyn Vfs, meta: &Meta, slots: &[Slot]) -> Result<Position, StorageError> {
    match slots.last().map(|slot| &slot.header) {
        Some(Ok(newest)) => last_of(fs, meta, newest),
        _ => Ok(bound(meta, Position::UNCOUNTED)),
    }
}

/// When nothing is known but how many bytes of a log that ends with `last` may be gone.
pub(super) fn bound_behind(meta: &Meta, last: Index, bytes: u64) -> Position {
    let last = last.max(meta.hard.commit);
    bound(meta, last.saturating_add(bytes.div_ceil(ENTRY)))
}

fn bound(meta: &Meta, index: Index) -> Position {
    Position {
        index: index.min(Position::UNCOUNTED),
        term: meta.hard.term,
    }
}

/// The last entry that the newest segment ever held, or a bound on it.
fn last_of(fs: &dyn Vfs, meta: &Meta, header: &Header) -> Result<Position, StorageError> {
    let mut stored = fs.read(&header.name(), MAX_BYTES + 1)?;
    let whole = stored.len() as u64 >= header.bytes;
    stored.truncate((stored.len() as u64).min(header.bytes) as usize);
    stored.truncate(stored.len() - stored.len() % PAGE);
    let newest = newest_frame(header, &stored);
    let (last, end) = match &newest {
        Some((_, frame)) if frame.place.generation > meta.generation => {
            return Err(stale(fs, frame.first_index));
        }
        Some((offset, frame)) => {
            let term = last_term(header, &stored, *offset, frame);
            let last = Position {
                index: frame.last_index(),
                term: term.unwrap_or(meta.hard.term),
            };
            (last, offset + frame.size())
        }
        None => (header.prev, PAGE),
    };
    let durable = meta.durable_lsn <= header.start_lsn + (end - PAGE) as u64;
    if whole && durable && stored.get(end..).is_some_and(is_zero) {
        return Ok(last);
    }
    Ok(match newest {
        Some(_) => bound_behind(meta, last.index, header.bytes.saturating_sub(end as u64)),
        // Its first group may have dropped the log, and have gone on anywhere.
        None => bound(meta, Position::UNCOUNTED),
    })
}

/// The last frame header of the segment that is in its place, and its offset.
fn newest_frame(header: &Header, stored: &[u8]) -> Option<(usize, Frame)> {
    let offsets = (PAGE..stored.len()).step_by(PAGE).rev();
    let mut frames = offsets.filter_map(|offset| {
        let frame = frame_at(header, stored, offset as u64).ok()?;
        let lsn = header.start_lsn + (offset - PAGE) as u64;
        (frame.place.lsn == lsn).then_some((offset, frame))
    });
    frames.next()
}

/// The term of the last entry of a group, if the group is whole.
fn last_term(header: &Header, stored: &[u8], offset: usize, frame: &Frame) -> Option<u64> {
    let mut group = stored.get(offset..offset + frame.size())?.to_vec();
    whiten(header.salt, offset as u64, &mut group);
    if !frame.is_whole(&group) {
        return None;
    }
    let entries = frame.entries(&group).ok()?;
    let reset = frame.reset(&group).ok()?;
    let last = entries.last().map(|entry| entry.term);
    last.or(reset.map(|base| base.term))
}
