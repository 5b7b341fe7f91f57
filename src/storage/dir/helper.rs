//! Threads of a directory's own: the host's signals do not reach them, and they end with their handle.

use std::path::PathBuf;
use std::thread::{Builder, JoinHandle};

use crate::storage::StorageError;

use super::signals;

/// A thread, until it was waited for.
pub(super) struct Helper(Option<JoinHandle<()>>);

impl Helper {
    /// Starts it. An error names `op`, what could not be begun, and the directory `root`.
    pub(super) fn start(
        name: &str,
        op: &'static str,
        root: PathBuf,
        main: impl FnOnce() + Send + 'static,
    ) -> Result<Helper, StorageError> {
        let thread = signals::blocked(|| Builder::new().name(name.to_owned()).spawn(main));
        match thread {
            Ok(thread) => Ok(Helper(Some(thread))),
            Err(error) => Err(StorageError::Io {
                op,
                path: root,
                error,
            }),
        }
    }

    /// Leaves it alone, in a child where it does not exist.
    pub(super) fn forget(&mut self) {
        std::mem::forget(self.0.take());
    }

    /// Whether it is to be waited for.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until it has ended, which it was told to.
    pub(super) fn join(&mut self) {
        if let Some(thread) = self.0.take() {
            // It contains its panics.
            let _ = thread.join();
        }
    }
}
