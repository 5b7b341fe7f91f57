//! What an opening takes out of a damaged log: the segments behind the damage, under names that no
//! opening reads, until the log holds again what was lost.
//!
//! They count for nothing. But where every node has lost something they may be the last copy of an
//! entry, so that a repair writes down what can be read in them. On a full disk they go.

use crate::storage::StorageError;

use super::repair::PREFIX;
use super::vfs::Vfs;

const SUFFIX: &str = ".aside";
const FOUND: &str = ".found";

/// Whether the name is that of a segment which was set aside.
pub(super) fn is_aside(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// Takes a segment out of the log, in the opening of this number; durable when the directory is.
pub(super) fn set_aside(fs: &dyn Vfs, incarnation: u32, segment: &str) -> Result<(), StorageError> {
    put_away(fs, incarnation, segment, SUFFIX)
}

/// Puts a segment out of the way that no opening has taken out, for good: it was put back after the log
/// was cut.
pub(super) fn keep(fs: &dyn Vfs, incarnation: u32, segment: &str) -> Result<(), StorageError> {
    put_away(fs, incarnation, segment, FOUND)
}

fn put_away(
    fs: &dyn Vfs,
    incarnation: u32,
    segment: &str,
    suffix: &str,
) -> Result<(), StorageError> {
    let name = format!("{PREFIX}{incarnation:010}-{segment}{suffix}");
    fs.rename(segment, &name)
}

/// Removes all of them. What stays of them does no harm, and goes another time.
pub(super) fn remove_all(fs: &dyn Vfs) {
    let names = fs.list().unwrap_or_default();
    for name in names.iter().filter(|name| is_aside(name)) {
        let _ = fs.remove(name);
    }
}
