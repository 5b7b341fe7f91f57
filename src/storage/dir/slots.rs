//! Which segments a log must consist of, and what their first pages say.

use std::collections::BTreeSet;

use crate::core::Index;
use crate::storage::StorageError;

use super::checkpoint;
use super::meta::Meta;
use super::page::{Flaw, PAGE};
use super::segment::{End, Header, seq_of};
use super::vfs::Vfs;

pub(super) const MISNAMED: &str = "segment under another one's name";
const COPY: &str = "a copy of another segment under this one's number, which has a file: move it out of the directory";
pub(super) const OLDER: &str =
    "segment of an earlier run than another one of its number: move it out of the directory";
const DOUBLE: &str =
    "several files have the number of this one, and one of them must be moved out of the directory";

/// A segment that must be there.
pub(super) struct Slot {
    pub(super) seq: u64,
    /// There is a checkpoint of it, whatever that is worth.
    pub(super) has_checkpoint: bool,
    /// Its file, unless that is missing.
    pub(super) name: Option<String>,
    /// Its header, or what is wrong with it.
    pub(super) header: Result<Header, &'static str>,
}

/// The named segments in order, and those that are missing among them: one for all that are missing
/// in one place. Each header is checked by itself and against META. A snapshot has the place of what
/// comes up to `covered`.
pub(super) fn slots(
    fs: &dyn Vfs,
    names: &[String],
    meta: &Meta,
    checkpoints: &BTreeSet<String>,
    covered: Index,
) -> Result<Vec<Slot>, StorageError> {
    let mut files = Vec::new();
    for name in names {
        files.extend(slot(fs, name, meta, checkpoints)?);
    }
    refuse_doubles(fs, &files)?;
    let mut slots: Vec<Slot> = Vec::new();
    let mut newest = meta.first_seq - 1;
    for mut slot in files {
        let seq = slot.seq;
        if seq > newest + 1 {
            // A log that was begun anew, when nothing was left of an older one; or one whose beginning
            // no trimming can have removed, for the snapshot that there is has not its place.
            let known = |header: &Header| {
                header.start() == End::default() || (1..header.prev.index).contains(&covered)
            };
            if slots.is_empty() && !slot.header.as_ref().is_ok_and(known) {
                // As if META were older than a trimming. Without a snapshot nobody knows either who the
                // members are, and whether there is another one who could help.
                let lost = slot.header.as_ref().map_or(0, |header| header.prev.index);
                let flaw = Flaw::Bad("the segment before this one is missing");
                return Err(flaw.at(fs.path(slot.name.as_deref().unwrap_or_default()), 0, lost));
            }
            slots.push(Slot {
                seq: newest + 1,
                has_checkpoint: false,
                name: None,
                header: Err("the segment is missing"),
            });
        }
        if slots
            .last()
            .is_some_and(|before| slot.is_older_than(before))
        {
            slot.header = Err("segment of an earlier run than the one before it");
        }
        newest = seq;
        slots.push(slot);
    }
    if newest < meta.head_seq {
        slots.push(Slot {
            seq: meta.head_seq,
            has_checkpoint: false,
            name: None,
            header: Err("the newest segment is missing"),
        });
    }
    Ok(slots)
}

impl Slot {
    /// Whether it was made in an earlier run: then it is none that continues the other, but was put
    /// back behind it after the log was cut.
    fn is_older_than(&self, before: &Slot) -> bool {
        match (&self.header, &before.header) {
            (Ok(own), Ok(before)) => own.origin.incarnation < before.origin.incarnation,
            _ => false,
        }
    }

    /// What will be read of it soon.
    pub(super) fn announce(&self, fs: &dyn Vfs, passable: bool) {
        match &self.name {
            Some(name) if passable && self.has_checkpoint => {
                fs.announce(&checkpoint::name_of(name));
            }
            Some(name) => fs.announce(name),
            None => {}
        }
    }
}

/// The segment of this name, which must be in its place.
fn slot(
    fs: &dyn Vfs,
    name: &str,
    meta: &Meta,
    checkpoints: &BTreeSet<String>,
) -> Result<Option<Slot>, StorageError> {
    let Some(seq) = seq_of(name) else {
        return Ok(None);
    };
    let header = match Header::decode(&fs.read(name, PAGE as u64)?) {
        Ok(header) => {
            meta.check(&header.origin, fs, name, header.prev.index + 1)?;
            match header.name() == name {
                true => Ok(header),
                false => Err(MISNAMED),
            }
        }
        Err(Flaw::Bad(what)) => Err(what),
        Err(newer) => return Err(newer.at(fs.path(name), 0, 0)),
    };
    Ok(Some(Slot {
        seq,
        has_checkpoint: checkpoints.contains(&checkpoint::name_of(name)),
        name: Some(name.to_owned()),
        header,
    }))
}

/// One number is one segment's. Of several files that have it one may be a copy that was put back; none of
/// them is chosen, for it could be the wrong one.
fn refuse_doubles(fs: &dyn Vfs, files: &[Slot]) -> Result<(), StorageError> {
    let same = files.chunk_by(|one, other| one.seq == other.seq);
    for files in same.filter(|files| files.len() > 1) {
        // What is known to be a segment in its place, and when it was made.
        let age = |slot: &&Slot| {
            let origin = slot.header.as_ref().ok().map(|header| header.origin);
            origin.map(|origin| (origin.incarnation, origin.generation))
        };
        let (Some(oldest), Some(newest)) =
            (files.iter().min_by_key(age), files.iter().max_by_key(age))
        else {
            continue;
        };
        let what = match (age(&oldest), age(&newest)) {
            (None, Some(_)) if oldest.header == Err(MISNAMED) => COPY,
            (Some(old), Some(new)) if old < new => OLDER,
            _ => DOUBLE,
        };
        let name = oldest.name.as_deref().unwrap_or_default();
        let index = oldest
            .header
            .as_ref()
            .map_or(0, |header| header.prev.index + 1);
        return Err(Flaw::Bad(what).at(fs.path(name), 0, index));
    }
    Ok(())
}
