//! The few file operations that a directory needs, as a trait: a disk in production, a simulated
//! one that crashes and fails at every operation in tests.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::storage::StorageError;

use super::aio::Aio;
use super::buffer::Buffer;
use super::write_out::write_out;

/// One flat directory. Names are plain file names.
pub(super) trait Vfs: Send + Sync {
    /// Where the directory is, for messages.
    fn root(&self) -> PathBuf;
    /// Where the file is, for messages.
    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }
    /// Makes the directory unless it exists, durably.
    fn make_root(&self) -> Result<(), StorageError>;
    /// Locks the named file, made if need be, for the life of this value.
    fn lock(&mut self, name: &str) -> Result<(), StorageError>;
    /// Gives up the lock in this process: in a child that drops what it got from its parent, which keeps
    /// it. Anywhere else the lock is not held any more afterwards.
    fn unlock(&self);
    /// Every name in the directory; `Missing` if there is none.
    fn list(&self) -> Result<Vec<String>, StorageError>;
    /// The first `max` bytes of the file, fewer if it is shorter.
    fn read(&self, name: &str, max: u64) -> Result<Vec<u8>, StorageError>;
    /// All of the file will be read soon: the disk may be asked for it now.
    fn announce(&self, _name: &str) {}
    /// A new, empty file; there must be none of that name.
    fn create(&self, name: &str) -> Result<Box<dyn VfsFile>, StorageError>;
    /// An existing file.
    fn open(&self, name: &str) -> Result<Box<dyn VfsFile>, StorageError>;
    /// Renames a file, in the place of another if there is one; durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError>;
    /// Removes a file; durable after `sync_dir`.
    fn remove(&self, name: &str) -> Result<(), StorageError>;
    /// Makes every creation, renaming and removal durable.
    fn sync_dir(&self) -> Result<(), StorageError>;
    /// 64 bits that nobody can foresee.
    fn random(&self) -> Result<u64, StorageError>;
    /// A queue for writes of its files; `None` if the system has no such thing.
    fn queue(&self) -> Option<Box<dyn Queue>> {
        None
    }
}

/// Writes that the system does by itself, one at a time: who begins one does not wait for the disk.
pub(super) trait Queue: Send {
    /// Becomes readable, as an edge, when a write ends. It belongs to the queue.
    fn fd(&self) -> RawFd;
    /// Begins to write the bytes, whole pages, at `offset` of a file for unbuffered writing. They are
    /// durable when it has ended well. If it cannot begin, they come back.
    fn begin(&mut self, file: RawFd, buffer: Buffer, offset: u64) -> Result<(), Buffer>;
    /// How the write has ended, if it has; with `wait` when it has.
    fn end(&mut self, wait: bool) -> Option<(Buffer, io::Result<()>)>;
}

/// An open file: it stays what it is when its name goes to another.
pub(super) trait VfsFile: Send {
    /// Fills `buf` from `offset` on; the number of bytes is less only at the end of the file.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, StorageError>;
    /// Its length in bytes.
    fn size(&self) -> Result<u64, StorageError>;
    /// Writes all of `data` at `offset`; durable after `sync`.
    fn write(&self, data: &[u8], offset: u64) -> Result<(), StorageError>;
    /// Makes sure of room for so many bytes of a file that is empty, if the file system can; an error if
    /// there is none. True if so many zeros are in it then, durable after `sync`.
    fn reserve(&self, _bytes: u64) -> Result<bool, StorageError> {
        Ok(false)
    }
    /// Has the disk take in what was written there, so that less is left for `sync`: nothing is durable
    /// by this. An error is one of writing.
    fn write_out(&self, _offset: u64, _bytes: u64) -> Result<(), StorageError> {
        Ok(())
    }
    /// What was made durable is not needed in memory.
    fn forget(&self) {}
    /// The same file for writing past the page cache, for a [`Queue`]; `None` if that cannot be.
    fn unbuffered(&self) -> Option<RawFd> {
        None
    }
    /// It has another name now: for messages.
    fn renamed(&mut self, name: &str);
    /// Makes every write durable. After an error nothing is known about any of them, and trying
    /// again would only hide it.
    fn sync(&self) -> Result<(), StorageError>;
}

/// A directory of the operating system.
pub(super) struct Disk {
    root: PathBuf,
    lock: Mutex<Option<Lock>>,
    /// Held from its first use on: a host that has run out of descriptors for a moment must not
    /// keep a renaming from being made durable.
    dir: OnceLock<File>,
}

/// A lock, given up when it is dropped.
struct Lock {
    file: File,
    /// The process that took it.
    pid: u32,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave it to whatever child has a copy of the descriptor, be it only until
        // that execs; and a child must not give up what is its parent's.
        if self.pid == std::process::id() {
            let _ = self.file.unlock();
        }
    }
}

struct DiskFile {
    file: File,
    path: PathBuf,
    /// Opened when it is asked for.
    unbuffered: OnceLock<Option<File>>,
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    move |error| StorageError::Io {
        op,
        path: path.to_owned(),
        error,
    }
}

impl Disk {
    /// A relative path is relative to where the process is now, wherever it goes later.
    pub(super) fn new(root: &Path) -> Disk {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Disk {
            root,
            lock: Mutex::default(),
            dir: OnceLock::new(),
        }
    }

    /// The directory itself.
    fn dir(&self) -> Result<&File, StorageError> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir);
        }
        let dir = open_dir(&self.root)?;
        Ok(self.dir.get_or_init(|| dir))
    }

    fn open_with(
        &self,
        name: &str,
        options: &mut OpenOptions,
    ) -> Result<Box<dyn VfsFile>, StorageError> {
        let path = self.path(name);
        let file = options
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .and_then(off_stdio)
            .map_err(failed("open", &path))?;
        Ok(Box::new(DiskFile {
            file,
            path,
            unbuffered: OnceLock::new(),
        }))
    }
}

impl Vfs for Disk {
    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    fn make_root(&self) -> Result<(), StorageError> {
        match DirBuilder::new().mode(0o700).create(&self.root) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("mkdir", &self.root)(e)),
        }
        // Also when it existed: the attempt that made it may have been cut off before this.
        let parent = match self.root.parent() {
            Some(parent) if parent != Path::new("") => parent,
            Some(_) => Path::new("."),
            None => return Ok(()),
        };
        sync_dir(&open_dir(parent)?, parent)
    }

    fn lock(&mut self, name: &str) -> Result<(), StorageError> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(off_stdio)
            .map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => {
                let pid = std::process::id();
                let lock = Some(Lock { file, pid });
                *self.lock.get_mut().unwrap_or_else(PoisonError::into_inner) = lock;
                Ok(())
            }
            Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path }),
            Err(TryLockError::Error(error)) => Err(failed("flock", &path)(error)),
        }
    }

    fn unlock(&self) {
        // Nobody holds it for long, and in a child nobody does.
        if let Ok(mut lock) = self.lock.try_lock() {
            *lock = None;
        }
    }

    fn list(&self) -> Result<Vec<String>, StorageError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let path = self.root.clone();
                return Err(StorageError::Missing { path });
            }
            Err(e) => return Err(failed("opendir", &self.root)(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("readdir", &self.root))?;
            // A name that is not UTF-8 is none of ours.
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, name: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        let path = self.path(name);
        let file = File::open(&path)
            .and_then(off_stdio)
            .map_err(failed("open", &path))?;
        let mut data = Vec::new();
        file.take(max)
            .read_to_end(&mut data)
            .map_err(failed("read", &path))?;
        Ok(data)
    }

    fn announce(&self, name: &str) {
        // Whatever is wrong with the file is found when it is read.
        if let Ok(file) = File::open(self.path(name)).and_then(off_stdio) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::WillNeed);
        }
    }

    fn create(&self, name: &str) -> Result<Box<dyn VfsFile>, StorageError> {
        self.open_with(name, OpenOptions::new().create_new(true))
    }

    fn open(&self, name: &str) -> Result<Box<dyn VfsFile>, StorageError> {
        self.open_with(name, &mut OpenOptions::new())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let path = self.path(from);
        fs::rename(&path, self.path(to)).map_err(failed("rename", &path))
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(name);
        fs::remove_file(&path).map_err(failed("unlink", &path))
    }

    fn sync_dir(&self) -> Result<(), StorageError> {
        sync_dir(self.dir()?, &self.root)
    }

    fn random(&self) -> Result<u64, StorageError> {
        let mut bytes = [0; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            match rustix::rand::getrandom(&mut bytes[filled..], flags) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(failed("getrandom", &self.root)(errno.into())),
            }
        }
        Ok(u64::from_le_bytes(bytes))
    }

    fn queue(&self) -> Option<Box<dyn Queue>> {
        Some(Box::new(Aio::new()?))
    }
}

impl DiskFile {
    fn is_tried(&self) -> bool {
        let kind = rustix::fs::fstatfs(&self.file).map(|system| system.f_type);
        kind.is_ok_and(|kind| TRIED.iter().any(|tried| u64::from(*tried) == kind as u64))
    }
}

impl VfsFile for DiskFile {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        let mut filled = 0;
        while filled < buf.len() {
            match self
                .file
                .read_at(&mut buf[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed("pread", &self.path)(e)),
            }
        }
        Ok(filled)
    }

    fn size(&self) -> Result<u64, StorageError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(failed("fstat", &self.path))?.len())
    }

    fn write(&self, data: &[u8], offset: u64) -> Result<(), StorageError> {
        self.file
            .write_all_at(data, offset)
            .map_err(failed("pwrite", &self.path))
    }

    fn reserve(&self, bytes: u64) -> Result<bool, StorageError> {
        use rustix::io::Errno;
        let flags = rustix::fs::FallocateFlags::empty();
        loop {
            return match rustix::fs::fallocate(&self.file, flags, 0, bytes) {
                Err(Errno::INTR) => continue,
                Ok(()) => Ok(self.is_tried()),
                // It will be seen when it is written.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
                Err(errno) => Err(failed("fallocate", &self.path)(errno.into())),
            };
        }
    }

    fn write_out(&self, offset: u64, bytes: u64) -> Result<(), StorageError> {
        match write_out(&self.file, offset, bytes) {
            Ok(true) => Ok(()),
            Ok(false) => self.sync(),
            Err(error) => Err(failed("sync_file_range", &self.path)(error)),
        }
    }

    fn forget(&self) {
        // A wish: nothing depends on it.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn unbuffered(&self) -> Option<RawFd> {
        let open = || {
            let mut options = OpenOptions::new();
            let opened = options
                .write(true)
                .custom_flags(libc::O_DIRECT)
                .open(&self.path)
                .and_then(off_stdio);
            opened.ok().filter(|_| self.is_tried())
        };
        let file = self.unbuffered.get_or_init(open).as_ref()?;
        Some(file.as_raw_fd())
    }

    fn renamed(&mut self, name: &str) {
        self.path.set_file_name(name);
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.file
            .sync_data()
            .map_err(failed("fdatasync", &self.path))
    }
}

/// File systems on which writing past the page cache, and into room that was only reserved, was tried
/// with real losses of power: ext4 and xfs, by the magic numbers of linux/magic.h. Others differ in what
/// they do with the cache.
const TRIED: [u32; 2] = [0xef53, 0x5846_5342];

/// The file behind a descriptor that is none of 0 to 2: in a daemon that has closed those, whatever
/// is printed anywhere goes to who has their numbers, and there it would overwrite META or the log.
fn off_stdio(file: File) -> io::Result<File> {
    const FIRST_FREE: i32 = 3;
    match file.as_raw_fd() < FIRST_FREE {
        true => Ok(rustix::io::fcntl_dupfd_cloexec(&file, FIRST_FREE)?.into()),
        false => Ok(file),
    }
}

fn open_dir(path: &Path) -> Result<File, StorageError> {
    File::open(path)
        .and_then(off_stdio)
        .map_err(failed("open", path))
}

fn sync_dir(dir: &File, path: &Path) -> Result<(), StorageError> {
    dir.sync_all().map_err(failed("fsync", path))
}
