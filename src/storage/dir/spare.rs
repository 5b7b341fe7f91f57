//! A spare segment: a file of zeros that is durable before it is needed, so that no append pays for
//! it, and so that a full disk is met here and not in the middle of a write.
//!
//! Zeros are written where groups are small: a write into them changes nothing but data. Where groups
//! are large they take as much of the disk as the log itself, and it is left to the file system to note
//! what was written.
//!
//! It is made in slices, by a thread of its own where the log is written by one: with a pause after
//! each, so that few of the log's own writes find the disk at work, and those not for long; without,
//! where it would not be ready in time. Without a thread it is made when it is needed. There is one at
//! a time; the next opening removes it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::panics::{self, lock};
use crate::storage::{StorageError, Wake};

use super::Options;
use super::helper::Helper;
use super::open::lacks_room;
use super::segment::ZEROS;
use super::vfs::{Vfs, VfsFile};

/// What the files' names begin with; a number follows, for the next one may be begun while this one
/// is given its place.
const NAME: &str = "prep-spare-";

/// Bytes that are written in one go: what is written for later must not keep the log's own writes
/// waiting for all of it.
const SLICE: u64 = 128 << 10;
/// The same when it is late.
const LARGE_SLICE: u64 = 1 << 20;
/// After a slice that is not late.
const PAUSE: Duration = Duration::from_millis(4);

/// How often a disk that was full is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Zeros, durable but for the name.
pub(super) struct Spare {
    pub(super) name: String,
    pub(super) file: Box<dyn VfsFile>,
    pub(super) bytes: u64,
}

impl Spare {
    /// Makes the file. `slice` is asked before each slice, with the bytes that there are, how large it
    /// is to be: `None` is the end of it. If anything fails there is none: the next opening removes
    /// what cannot be removed here.
    fn make(
        fs: &dyn Vfs,
        name: String,
        bytes: u64,
        zeros: bool,
        slice: &dyn Fn(u64) -> Option<u64>,
    ) -> Result<Spare, StorageError> {
        let file = fs.create(&name)?;
        let written = fill(&*file, bytes, zeros, slice);
        match written {
            Ok(()) => Ok(Spare { name, file, bytes }),
            Err(error) => {
                let _ = fs.remove(&name);
                Err(error)
            }
        }
    }
}

/// With `zeros` they are written, and not only where they must be.
fn fill(
    file: &dyn VfsFile,
    bytes: u64,
    zeros: bool,
    slice: &dyn Fn(u64) -> Option<u64>,
) -> Result<(), StorageError> {
    // On a full disk this is where it ends, and nothing of what is left was used up meanwhile.
    if file.reserve(bytes)? && !zeros {
        return file.sync();
    }
    let mut end = 0;
    while end < bytes {
        let Some(slice) = slice(end) else {
            return Err(StorageError::Io {
                op: "write",
                path: Default::default(),
                error: io::ErrorKind::Interrupted.into(),
            });
        };
        let begin = end;
        let slice_end = (begin + slice).min(bytes);
        while end < slice_end {
            let len = (slice_end - end).min(ZEROS.len() as u64);
            file.write(&ZEROS[..len as usize], end)?;
            end += len;
        }
        file.write_out(begin, end - begin)?;
    }
    file.sync()?;
    // Else a group that is written there makes all of the large pages dirty in which they lie.
    file.forget();
    Ok(())
}

/// Whether a smaller one might be had: there is no room, or no file may be that large (RLIMIT_FSIZE).
fn is_too_large(error: &StorageError) -> bool {
    let limit = |error: &io::Error| error.kind() == io::ErrorKind::FileTooLarge;
    lacks_room(error) || matches!(error, StorageError::Io { error, .. } if limit(error))
}

/// Whether a spare of which `made` of its `bytes` are there will not be ready in time if it goes on at
/// leisure, by what is `used` of the segment before it: it is to be there when four fifths of that are.
fn is_late(made: u64, bytes: u64, used: u64, of: u64) -> bool {
    let wide = u128::from;
    wide(made) * wide(of) * 4 < wide(used) * wide(bytes) * 5
}

#[derive(Default)]
struct State {
    ready: Option<Spare>,
    /// A thread makes them.
    threaded: bool,
    /// Why there is none.
    failed: Option<StorageError>,
    /// Names given so far.
    names: u64,
    /// The log is written in large groups.
    large: bool,
    /// Somebody waits for the one that is being made.
    awaited: bool,
    ending: bool,
}

impl State {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("{NAME}{}", self.names)
    }
}

/// What the log takes its segments from.
pub(super) struct Spares {
    fs: Arc<dyn Vfs>,
    options: Options,
    /// Size of the newest segment, and bytes of it that are written.
    newest: AtomicU64,
    used: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Spares {
    /// None is made yet.
    pub(super) fn new(fs: Arc<dyn Vfs>, options: Options) -> Spares {
        Spares {
            fs,
            options,
            newest: AtomicU64::new(0),
            used: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// A segment was filled with so many groups of so many bytes together: the next spare is made for
    /// such.
    pub(super) fn filled(&self, groups: u64, bytes: u64) {
        let average = bytes.checked_div(groups).unwrap_or(0);
        lock(&self.state).large = average >= self.options.large_group_bytes;
    }

    /// So many bytes are written of the newest segment, which has so many.
    pub(super) fn used(&self, bytes: u64, of: u64) {
        self.used.store(bytes, Ordering::Relaxed);
        self.newest.store(of, Ordering::Relaxed);
    }

    /// A spare of at least `least` bytes; `None` if there is none. One that is being made is waited
    /// for. An error is why it could not be.
    pub(super) fn take(&self, least: u64) -> Result<Option<Spare>, StorageError> {
        if least > self.options.ahead_size(u64::MAX) {
            return Ok(None);
        }
        let mut state = lock(&self.state);
        while state.threaded && state.ready.is_none() && state.failed.is_none() {
            state.awaited = true;
            self.changed.notify_all();
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.awaited = false;
        if state.ready.as_ref().is_some_and(|it| it.bytes >= least) {
            self.changed.notify_all();
            return Ok(state.ready.take());
        }
        match &state.failed {
            Some(error) => Err(error.again()),
            None => Ok(None),
        }
    }

    /// Makes one now, if there is none and nobody else does; true if there is one.
    pub(super) fn make_now(&self) -> bool {
        let mut state = lock(&self.state);
        if !state.threaded && state.ready.is_none() {
            let name = state.name();
            let slice = |_| Some(LARGE_SLICE);
            state.ready = Spare::make(&*self.fs, name, self.bytes(), !state.large, &slice).ok();
        }
        state.ready.is_some()
    }

    /// Bytes of the one that is ready, if there is one.
    pub(super) fn ready(&self) -> Option<u64> {
        lock(&self.state).ready.as_ref().map(|spare| spare.bytes)
    }

    /// Bytes of each, at least.
    pub(super) fn bytes(&self) -> u64 {
        self.options.segment_size(0)
    }

    /// Removes what nobody has taken.
    pub(super) fn discard(&self) {
        if let Some(spare) = lock(&self.state).ready.take() {
            let _ = self.fs.remove(&spare.name);
        }
    }

    /// How large the next slice is to be of a spare that will have `bytes`, when it is time for it;
    /// `None` at the end.
    fn next_slice(&self, made: u64, bytes: u64) -> Option<u64> {
        let late = || {
            let of = self.newest.load(Ordering::Relaxed);
            is_late(made, bytes, self.used.load(Ordering::Relaxed), of)
        };
        let leisure = |state: &mut State| !state.ending && !state.awaited && !late();
        let state = lock(&self.state);
        let most = if made == 0 { Duration::ZERO } else { PAUSE };
        let waited = self.changed.wait_timeout_while(state, most, leisure);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (state.ending, leisure(&mut state)) {
            (true, _) => None,
            (false, true) => Some(SLICE),
            (false, false) => Some(LARGE_SLICE),
        }
    }

    /// Makes one after the other. Calls `wake` when there is one where there could be none before.
    fn work(&self, wake: &Wake) {
        loop {
            let (name, zeros) = {
                let mut state = lock(&self.state);
                (state.name(), !state.large)
            };
            let made = panics::catch(|| self.make_ahead(name, zeros));
            let made = made.unwrap_or_else(|text| {
                Err(StorageError::Io {
                    op: "write",
                    path: self.fs.root(),
                    error: io::Error::other(text),
                })
            });
            let full = made.as_ref().is_err_and(lacks_room);
            let hopeless = made.is_err() && !full;
            if self.keep(made) {
                wake();
            }
            if hopeless || self.is_over(full.then_some(RETRY)) {
                return;
            }
        }
    }

    /// As large as it is wanted, or as there is room.
    fn make_ahead(&self, name: String, zeros: bool) -> Result<Spare, StorageError> {
        let make = |name, bytes| {
            let slice = |made| self.next_slice(made, bytes);
            Spare::make(&*self.fs, name, bytes, zeros, &slice)
        };
        let bytes = self.options.ahead_size(self.newest.load(Ordering::Relaxed));
        match make(name.clone(), bytes) {
            Err(error) if is_too_large(&error) && bytes > self.bytes() => make(name, self.bytes()),
            made => made,
        }
    }

    /// Takes in what came of it; whether there was none before for want of room.
    fn keep(&self, made: Result<Spare, StorageError>) -> bool {
        let mut state = lock(&self.state);
        let failed_before = state.failed.take().is_some();
        let good = made.is_ok();
        match made {
            Ok(spare) => state.ready = Some(spare),
            Err(error) => state.failed = Some(error),
        }
        self.changed.notify_all();
        good && failed_before
    }

    /// Waits until another one is wanted, or may be tried again; true at the end.
    fn is_over(&self, again: Option<Duration>) -> bool {
        let state = lock(&self.state);
        let idle = |state: &mut State| !state.ending && (again.is_some() || state.ready.is_some());
        let wait = again.unwrap_or(Duration::MAX);
        match self.changed.wait_timeout_while(state, wait, idle) {
            Ok((state, _)) => state.ending,
            Err(_) => true,
        }
    }
}

/// The thread that makes them. Dropping it waits until it has ended.
pub(super) struct SpareThread {
    spares: Arc<Spares>,
    thread: Helper,
}

impl SpareThread {
    pub(super) fn spawn(spares: &Arc<Spares>, wake: Wake) -> Result<SpareThread, StorageError> {
        let theirs = spares.clone();
        lock(&spares.state).threaded = true;
        let main = move || theirs.work(&wake);
        let thread = Helper::start(
            "keel-spare",
            "start of the preparing thread",
            spares.fs.root(),
            main,
        )
        .inspect_err(|_| lock(&spares.state).threaded = false)?;
        Ok(SpareThread {
            spares: spares.clone(),
            thread,
        })
    }

    /// Leaves it alone, in a child where it does not exist.
    pub(super) fn forget(mut self) {
        self.thread.forget();
    }
}

impl Drop for SpareThread {
    fn drop(&mut self) {
        if !self.thread.is_there() {
            return;
        }
        lock(&self.spares.state).ending = true;
        self.spares.changed.notify_all();
        self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::thread;
    use std::time::Instant;

    use super::super::vfs::Disk;
    use super::*;

    /// On a disk that nobody touches.
    fn spares() -> Spares {
        let disk = Disk::new(Path::new("/nowhere"));
        Spares::new(Arc::new(disk), Options::default())
    }

    #[test]
    fn slices_are_as_large_as_time_allows() {
        let spares = spares();
        let slice = |made| spares.next_slice(made, 20 * SLICE);
        assert_eq!(slice(0), Some(SLICE), "nothing is used");
        assert_eq!(slice(SLICE), Some(SLICE));
        spares.used(SLICE, 5 * SLICE);
        assert_eq!(slice(5 * SLICE), Some(SLICE), "just in time");
        assert_eq!(slice(5 * SLICE - 1), Some(LARGE_SLICE), "late");
        lock(&spares.state).ending = true;
        assert_eq!(slice(SLICE), None);
    }

    #[test]
    fn those_made_ahead_grow() {
        let options = Options::default();
        let (least, most) = (options.segment_bytes, options.ahead_bytes);
        assert_eq!(options.ahead_size(0), least);
        assert_eq!(options.ahead_size(least), 2 * least);
        assert_eq!(options.ahead_size(2 * least), most);
        assert_eq!(options.ahead_size(u64::MAX), most);
    }

    #[test]
    fn a_smaller_one_is_made_where_files_may_not_be_large() {
        let error = |error: io::Error| StorageError::Io {
            op: "fallocate",
            path: Default::default(),
            error,
        };
        let of = |errno: rustix::io::Errno| error(errno.into());
        assert!(is_too_large(&of(rustix::io::Errno::FBIG)));
        assert!(is_too_large(&of(rustix::io::Errno::NOSPC)));
        assert!(!is_too_large(&of(rustix::io::Errno::IO)));
    }

    #[test]
    fn nobody_waits_for_a_spare_at_leisure() {
        let spares = spares();
        lock(&spares.state).threaded = true;
        let end = Instant::now() + Duration::from_secs(60);
        thread::scope(|scope| {
            let taker = scope.spawn(|| spares.take(1).is_err());
            while spares.next_slice(SLICE, 4 * SLICE) != Some(LARGE_SLICE) && Instant::now() < end {
            }
            assert!(lock(&spares.state).awaited);
            let path = spares.fs.root();
            let error = io::ErrorKind::StorageFull.into();
            spares.keep(Err(StorageError::Full { path, error }));
            assert!(taker.join().unwrap());
        });
        assert!(!lock(&spares.state).awaited);
    }
}
