//! Trimming: removing the segments whose entries a snapshot has the place of.
//!
//! Whole segments go. META says first which one is the oldest that must exist: from then on those
//! before it are neither read nor missed, whatever a crash leaves of them, and the next opening
//! removes it.

use crate::core::Index;
use crate::storage::StorageError;

use super::checkpoint;
use super::write::Log;

impl Log {
    /// Removes every segment that the log behind `base` does not need.
    pub(super) fn trim_segments(&mut self, base: Index) -> Result<(), StorageError> {
        let needed = self.known().layout.needed(base);
        if needed <= self.meta.first_seq {
            return Ok(());
        }
        self.meta.first_seq = needed;
        let updated = self.update_meta();
        self.fail_with(updated)?;
        let names = self.known().layout.trim(needed);
        for name in names {
            self.fs.remove(&name)?;
            // What stays of them goes with the next opening.
            let _ = self.fs.remove(&checkpoint::name_of(&name));
        }
        self.fs.sync_dir()
    }
}
