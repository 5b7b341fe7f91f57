//! Which segments a log must consist of, and what their first pages say.

use std::collections::BTreeSet;

use crate::core::Index;
use crate::storage::StorageError;

use super::checkpoint;
use super::meta::Meta;
use super::page::{Flaw, PAGE};
use super::segment::{End, Header, seq_of};
use super::vfs::Vfs;

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
    let mut slots: Vec<Slot> = Vec::new();
    let mut newest = meta.first_seq - 1;
    for name in names {
        let refused = |what, index| Err(Flaw::Bad(what).at(fs.path(name), 0, index));
        let Some(seq) = seq_of(name).filter(|seq| *seq > newest) else {
            return refused("segment under another one's name", 0);
        };
        let mut slot = slot(fs, name, seq, meta)?;
        slot.has_checkpoint = checkpoints.contains(&checkpoint::name_of(name));
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
                return refused("the segment before this one is missing", lost);
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

fn slot(fs: &dyn Vfs, name: &str, seq: u64, meta: &Meta) -> Result<Slot, StorageError> {
    let header = match Header::decode(&fs.read(name, PAGE as u64)?) {
        Ok(header) => {
            meta.check(&header.origin, fs, name, header.prev.index + 1)?;
            match header.name() == name {
                true => Ok(header),
                false => Err("segment under another one's name"),
            }
        }
        Err(Flaw::Bad(what)) => Err(what),
        Err(newer) => return Err(newer.at(fs.path(name), 0, 0)),
    };
    Ok(Slot {
        seq,
        has_checkpoint: false,
        name: Some(name.to_owned()),
        header,
    })
}
