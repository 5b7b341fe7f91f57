//! META made anew, where both copies of it are lost.
//!
//! Nobody else knows how a node has voted: a node that votes with others never gets another META. But
//! where the log says that it votes alone no vote of it counts for anybody else, and all that its META must
//! say is a term in which it has sent no entry yet: one that is further on than it can have come without
//! leaving an entry of it. Whether the log is all that was written only the old META could have told.

use std::sync::Arc;

use crate::core::{Configuration, HardState, Index, Payload, Term};
use crate::storage::StorageError;

use super::checkpoint::is_checkpoint;
use super::image;
use super::inspect::groups_from;
use super::meta::{self, Meta, Origin};
use super::page::{Flaw, PAGE};
use super::segment::{Header, MAX_BYTES, is_segment, seq_of};
use super::snapshot;
use super::vfs::Vfs;

/// More terms than a node campaigns in without an entry of its own: one a millisecond for 49 days.
const TERMS: Term = 1 << 32;
/// More openings than leave no file.
const OPENINGS: u32 = 1 << 16;

/// Whether this says that there is no META to be had, and nothing else.
pub(super) fn is_lost(fs: &dyn Vfs, error: &StorageError) -> bool {
    let lost = [meta::MISSING, meta::DAMAGED];
    match error {
        StorageError::Corrupt { path, what, .. } => {
            *path == fs.path(meta::NAME) && lost.contains(what)
        }
        _ => false,
    }
}

/// What the files of a directory say that has no META.
pub(super) struct Rebuilt {
    /// Newer than everything in them.
    pub(super) meta: Meta,
    /// Every configuration in a segment that can still be read, be it in the log that is left or not.
    pub(super) configs: Vec<(Index, Arc<Configuration>)>,
}

impl Rebuilt {
    /// Whether anything that can be read behind this index says that others vote: the log that is left
    /// knows nothing of it.
    pub(super) fn has_others(&self, behind: Index) -> bool {
        let node = self.meta.identity.node;
        let other = |config: &Configuration| {
            let mut members = config.members();
            members.any(|id| id != node && config.is_voter(id))
        };
        let mut configs = self.configs.iter();
        configs.any(|(index, config)| *index > behind && other(config))
    }
}

/// Reads them; `None` if none of them says whose it is. What they say that contradicts each other is not
/// looked at.
pub(super) fn read(fs: &dyn Vfs, names: &[String]) -> Result<Option<Rebuilt>, StorageError> {
    let mut known = Known::default();
    for name in names {
        if is_segment(name) {
            known.segment(fs, name)?;
        } else if let Some(last) = snapshot::position(name) {
            known.term = known.term.max(last.term);
            known.image(fs, name)?;
        }
    }
    let Some(origin) = known.origin else {
        return Ok(None);
    };
    let segments = names.iter().filter(|name| is_segment(name));
    let seqs = segments.filter_map(|name| seq_of(name));
    // One that has a checkpoint was not the last.
    let sealed = names.iter().filter(|name| is_checkpoint(name));
    let begun = sealed.filter_map(|name| seq_of(name)?.checked_add(1));
    let first_seq = seqs.clone().min().unwrap_or(1).max(1);
    let meta = Meta {
        identity: origin.identity,
        instance: origin.instance,
        incarnation: known.incarnation.saturating_add(OPENINGS),
        generation: known.generation + 1,
        hard: HardState {
            term: known.term.saturating_add(TERMS),
            ..HardState::default()
        },
        head_seq: seqs.chain(begun).max().unwrap_or(0).max(first_seq - 1),
        durable_lsn: 0,
        first_seq,
        adopted: None,
    };
    let configs = known.configs;
    Ok(Some(Rebuilt { meta, configs }))
}

/// The newest that the files tell of.
#[derive(Default)]
struct Known {
    origin: Option<Origin>,
    incarnation: u32,
    generation: u64,
    term: Term,
    configs: Vec<(Index, Arc<Configuration>)>,
}

impl Known {
    fn origin(&mut self, origin: Origin) {
        self.incarnation = self.incarnation.max(origin.incarnation);
        self.generation = self.generation.max(origin.generation);
        let newer = |known: &Origin| origin.generation > known.generation;
        if self.origin.as_ref().is_none_or(newer) {
            self.origin = Some(origin);
        }
    }

    fn segment(&mut self, fs: &dyn Vfs, name: &str) -> Result<(), StorageError> {
        let stored = fs.read(name, MAX_BYTES + 1)?;
        let header = match Header::decode(&stored[..stored.len().min(PAGE)]) {
            Ok(header) => header,
            Err(Flaw::Bad(_)) => return Ok(()),
            Err(newer) => return Err(newer.at(fs.path(name), 0, 0)),
        };
        self.origin(header.origin);
        self.term = self.term.max(header.prev.term);
        for group in groups_from(&header, &stored, PAGE) {
            self.generation = self.generation.max(group.frame.place.generation);
            let terms = group.entries.iter().map(|entry| entry.term);
            let terms = terms.chain(group.reset.map(|base| base.term));
            self.term = terms.fold(self.term, Term::max);
            for entry in group.entries {
                if let Payload::Config(config, _) = entry.payload {
                    self.configs.push((entry.index, config));
                }
            }
        }
        Ok(())
    }

    fn image(&mut self, fs: &dyn Vfs, name: &str) -> Result<(), StorageError> {
        match image::Image::open(fs, name) {
            Ok(image) => self.origin(image.header.origin),
            Err(StorageError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
