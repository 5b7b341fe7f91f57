//! What is asked of storage beside the writes of the log, and may take as long as a disk does.

use crate::core::{Entry, Index, NodeId};

use super::{Storage, StorageError};

/// Something that takes its time. Where storage has a thread for it, whoever drives the engine does
/// not wait; see [`Storage::begin`].
#[derive(Debug)]
pub enum Task {
    /// See [`Storage::fetch`].
    Entries {
        /// The peer that they are for; `None`: they are to be applied.
        to: Option<NodeId>,
        /// The first one.
        first: Index,
        /// The last one.
        last: Index,
        /// About what they may weigh.
        bytes: usize,
    },
}

/// What came of a [`Task`].
#[derive(Debug)]
pub enum Done {
    /// Of [`Task::Entries`].
    Entries {
        /// As in the task.
        to: Option<NodeId>,
        /// As in the task.
        first: Index,
        /// What [`Storage::fetch`] said.
        result: Result<Vec<Entry>, StorageError>,
    },
}

/// Whoever can do the tasks.
pub(super) trait Desk {
    fn fetch(
        &mut self,
        first: Index,
        last: Index,
        bytes: usize,
    ) -> Result<Vec<Entry>, StorageError>;
}

impl<S: Storage + ?Sized> Desk for S {
    fn fetch(
        &mut self,
        first: Index,
        last: Index,
        bytes: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        Storage::fetch(self, first, last, bytes)
    }
}

impl Task {
    /// Does it now.
    pub(super) fn perform(&mut self, desk: &mut (impl Desk + ?Sized)) -> Done {
        match *self {
            Task::Entries {
                to,
                first,
                last,
                bytes,
            } => Done::Entries {
                to,
                first,
                result: desk.fetch(first, last, bytes),
            },
        }
    }

    /// It could not be done at all.
    pub(super) fn failed(self, error: StorageError) -> Done {
        match self {
            Task::Entries { to, first, .. } => Done::Entries {
                to,
                first,
                result: Err(error),
            },
        }
    }

    /// Whether this takes the place of another one that was not begun: nobody waits for that any more.
    pub(super) fn replaces(&self, other: &Task) -> bool {
        match (self, other) {
            (Task::Entries { to, .. }, Task::Entries { to: other, .. }) => to == other,
        }
    }
}
