//! Storage in a directory: META in two slots, and a log in segments.
//!
//! What it promises: whatever was acknowledged survives the loss of the process or of power; a
//! write that was cut off is as if it had never begun; and anything else that is wrong with the
//! files is an error with file and offset, never other data than was written and never less.
//!
//! | file | what it is |
//! |---|---|
//! | `LOCK` | flock()ed while a [`Directory`] lives |
//! | `META` | identity, hard state, incarnation, twice ([`meta`]) |
//! | `<seq>-<first index>.seg` | the log ([`segment`], [`frame`]) |
//! | `prep-*` | being made; removed by the next opening |
//!
//! Opening copies the last segment, checked, into a new file that takes its name. The page cache
//! may show data that an earlier process failed to write: nothing is trusted that this process
//! has not made durable itself. The remains of a torn write go away with the old file.

mod frame;
mod meta;
mod page;
mod recover;
mod segment;
mod vfs;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use crate::core::{Entry, HardState, Index, Persist, Position, Snapshot, Token};

use super::{
    Completion, Draft, Identity, Opened, SnapshotReader, SnapshotWriter, Storage, StorageError,
};

use frame::{Kind, MAX_GROUP, Place, start_group};
use meta::Meta;
use page::PAGE;
use recover::{Recovered, recover};
use segment::{End, Header, PREPARED, Segment, is_segment};
use vfs::{Disk, Vfs, VfsFile};

const LOCK: &str = "LOCK";

/// How a directory is laid out from now on; what exists keeps its shape.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a new segment file, rounded up to a multiple of 4096 and kept within 16 KiB and
    /// 256 MiB. All of it is written when the file is made, by the submit that needs it. A group
    /// of entries that is larger gets a segment of its own size.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 4 * 1024 * 1024,
        }
    }
}

impl Options {
    /// Size of a segment that must have room for `groups` bytes.
    fn segment_size(&self, groups: u64) -> u64 {
        self.segment_bytes
            .clamp(segment::MIN_BYTES, segment::MAX_BYTES)
            .next_multiple_of(PAGE as u64)
            .max(PAGE as u64 + groups)
    }
}

/// An open directory.
///
/// Writes are done by `submit` itself, on the calling thread; their completions are ready when it
/// returns. One persist may hold 256 MiB of encoded entries.
///
/// It must not be used on both sides of a fork(); a child that keeps the descriptors keeps the lock.
pub struct Directory {
    fs: Box<dyn Vfs>,
    options: Options,
    meta: Meta,
    meta_file: Box<dyn VfsFile>,
    segment: Segment,
    end: End,
    /// What went wrong first; from then on nothing is written.
    failed: Option<String>,
    done: VecDeque<Completion>,
}

impl Directory {
    /// Makes the directory of a node that never existed. It does not open it.
    ///
    /// `instance` is drawn at random by the caller: it tells this node from an earlier one of the
    /// same id whose directory was lost. The parent directory must exist; the directory itself
    /// may, if it holds no node. A crash before the end leaves no node, and `create` may be tried
    /// again.
    ///
    /// # Errors
    /// `Exists`, `Locked`, `Io`.
    pub fn create(path: &Path, identity: &Identity, instance: u64) -> Result<(), StorageError> {
        Directory::create_on(&mut Disk::new(path), identity, instance)
    }

    /// Opens the directory of a node, and locks it until the value is dropped.
    ///
    /// Reads and checks every byte of the log. Nothing is changed before all of it was found good.
    ///
    /// # Errors
    /// `Missing` if there is no node, `Foreign` if it is another one, `Locked`, `Version`,
    /// `Corrupt` if anything is wrong that a crash does not explain, `Io`.
    pub fn open(path: &Path, identity: &Identity) -> Result<(Directory, Opened), StorageError> {
        Directory::open_with(path, identity, Options::default())
    }

    /// As [`Directory::open`], with other options.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub fn open_with(
        path: &Path,
        identity: &Identity,
        options: Options,
    ) -> Result<(Directory, Opened), StorageError> {
        Directory::open_on(Box::new(Disk::new(path)), identity, options)
    }

    fn create_on(fs: &mut dyn Vfs, identity: &Identity, instance: u64) -> Result<(), StorageError> {
        fs.make_root()?;
        fs.lock(LOCK)?;
        let names = fs.list()?;
        if holds_node(&names) {
            return Err(StorageError::Exists { path: fs.root() });
        }
        remove_prepared(fs, &names)?;
        let meta = Meta {
            identity: *identity,
            instance,
            incarnation: 0,
            generation: 1,
            hard: HardState::default(),
            head_seq: 0,
            durable_lsn: 0,
        };
        meta::create(fs, &meta)
    }

    fn open_on(
        mut fs: Box<dyn Vfs>,
        identity: &Identity,
        options: Options,
    ) -> Result<(Directory, Opened), StorageError> {
        // Before the lock, so that nothing is left behind where there is no node.
        if !holds_node(&fs.list()?) {
            return Err(StorageError::Missing { path: fs.root() });
        }
        fs.lock(LOCK)?;
        let names = fs.list()?;
        if !names.iter().any(|name| name == meta::NAME) {
            let flaw = page::Flaw::Bad("META is missing, the log is not");
            return Err(flaw.at(fs.path(meta::NAME), 0, 0));
        }
        let (meta, meta_repaired) = meta::load(&*fs)?;
        if meta.identity != *identity {
            return Err(StorageError::Foreign {
                path: fs.root(),
                found: meta.identity,
                asked: *identity,
            });
        }
        let recovered = recover(&*fs, &names, &meta)?;
        let last = recovered.log.len() as u64;
        if last < meta.hard.commit {
            // Whatever the tail looks like, it was acknowledged: never cut, never forgotten.
            let flaw = page::Flaw::Bad("the log ends before an entry known to be committed");
            return Err(flaw.at(fs.root(), 0, last + 1));
        }
        remove_prepared(&*fs, &names)?;
        Directory::resume(fs, options, meta, recovered, meta_repaired)
    }

    /// Makes durable, in this process, what was found, and takes it from there.
    fn resume(
        fs: Box<dyn Vfs>,
        options: Options,
        mut meta: Meta,
        recovered: Recovered,
        meta_repaired: bool,
    ) -> Result<(Directory, Opened), StorageError> {
        let meta_file = fs.open(meta::NAME)?;
        meta.incarnation = meta.incarnation.checked_add(1).ok_or_else(|| {
            page::Flaw::Bad("opened more often than can be counted").at(fs.path(meta::NAME), 0, 0)
        })?;
        // First: the new segment file carries META's generation, which must never be the newer one.
        meta.generation += 1;
        meta::update(&*meta_file, &meta)?;

        let (old, groups) = recovered.tail.unzip();
        let groups = groups.unwrap_or_default();
        let size = options.segment_size(groups.len() as u64);
        let header = match old {
            Some(old) => Header {
                incarnation: meta.incarnation,
                generation: meta.generation,
                salt: fs.random()?,
                bytes: size,
                ..old
            },
            None => new_header(&meta, 1, &End::default(), fs.random()?, size),
        };
        let segment = Segment::make(&*fs, header, groups)?;

        meta.generation += 1;
        meta.head_seq = segment.header.seq;
        meta.durable_lsn = recovered.end.lsn;
        meta::update(&*meta_file, &meta)?;
        let opened = Opened {
            restored: crate::core::Restored {
                hard: meta.hard,
                entries: recovered.log,
                ..crate::core::Restored::default()
            },
            incarnation: meta.incarnation,
            instance: meta.instance,
            torn_bytes: recovered.torn_bytes,
            meta_repaired,
        };
        let directory = Directory {
            fs,
            options,
            meta,
            meta_file,
            segment,
            end: recovered.end,
            failed: None,
            done: VecDeque::new(),
        };
        Ok((directory, opened))
    }

    fn write(&mut self, persist: &Persist) -> Result<(), StorageError> {
        // Hard state first: a crash in between must not leave an entry of a term META knows not of.
        if let Some(hard) = persist.hard.filter(|hard| *hard != self.meta.hard) {
            self.meta.hard = hard;
            self.update_meta()?;
        }
        if !persist.entries.is_empty() {
            self.append(&persist.entries)?;
        }
        Ok(())
    }

    fn update_meta(&mut self) -> Result<(), StorageError> {
        self.meta.generation += 1;
        self.meta.durable_lsn = self.end.lsn;
        meta::update(&*self.meta_file, &self.meta)
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), StorageError> {
        let Some(group) = start_group(entries) else {
            return Err(StorageError::Io {
                op: "encode",
                path: self.fs.path(&self.segment.header.name()),
                error: io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("one write of more than {MAX_GROUP} bytes"),
                ),
            });
        };
        let size = group.size();
        if !self.segment.has_room(self.end.lsn, size) {
            self.roll(size)?;
        }
        let kind = match entries[0].index > self.end.index {
            true => Kind::Append,
            false => Kind::Replace,
        };
        let place = Place {
            lsn: self.end.lsn,
            // Every group before this one was synced before this one is written.
            durable_lsn: self.end.lsn,
            generation: self.meta.generation,
            prev_crc: self.end.crc,
        };
        let crc = self.segment.append(group, kind, &place)?;
        let last = &entries[entries.len() - 1];
        self.end = End {
            lsn: self.end.lsn + size,
            crc,
            index: last.index,
            term: last.term,
        };
        Ok(())
    }

    /// Goes on in a new segment that has room for `size` bytes.
    fn roll(&mut self, size: u64) -> Result<(), StorageError> {
        let seq = self.segment.header.seq + 1;
        let size = self.options.segment_size(size);
        let header = new_header(&self.meta, seq, &self.end, self.fs.random()?, size);
        self.segment = Segment::make(&*self.fs, header, Vec::new())?;
        // Before the first group in it: a segment that holds anything acknowledged is one that
        // META misses when it is gone.
        self.meta.head_seq = seq;
        self.update_meta()
    }

    /// What a caller that keeps Raft's rules never does.
    fn check(&self, persist: &Persist) {
        let old = &self.meta.hard;
        let hard = persist.hard.unwrap_or(*old);
        assert!(
            hard.term >= old.term,
            "term goes back from {} to {}",
            old.term,
            hard.term
        );
        assert!(
            hard.term > old.term || old.vote.is_none() || hard.vote == old.vote,
            "second vote in term {}",
            hard.term
        );
        let Some(first) = persist.entries.first() else {
            return;
        };
        assert!(
            (1..=self.end.index + 1).contains(&first.index),
            "entries from {} on leave a gap after {}",
            first.index,
            self.end.index
        );
        let mut term = match first.index > self.end.index {
            true => self.end.term,
            false => 0,
        };
        for (index, entry) in (first.index..).zip(&persist.entries) {
            assert_eq!(entry.index, index, "entries are not contiguous");
            assert!(entry.term >= term, "entry {index}: term goes back");
            term = entry.term;
        }
        assert!(term <= hard.term, "entry of term {term} in {}", hard.term);
    }
}

impl Storage for Directory {
    /// # Panics
    /// If the persist breaks a rule of Raft: a gap in the log, a term that goes back, a second
    /// vote in a term.
    fn submit(&mut self, persist: Persist) {
        let token = persist.token;
        if let Some(first) = &self.failed {
            let completion = refusal(token, &*self.fs, first);
            self.done.push_back(completion);
            return;
        }
        self.check(&persist);
        let result = self.write(&persist);
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
        }
        self.done.push_back(Completion { token, result });
    }

    fn poll(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn fetch(&mut self, _: Index, _: Index, _: usize) -> Result<Vec<Entry>, StorageError> {
        Err(self.unsupported())
    }

    fn trim(&mut self, _: Position) -> Result<(), StorageError> {
        Err(self.unsupported())
    }

    fn write_snapshot(&mut self, _: Draft) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Err(self.unsupported())
    }

    fn read_snapshot(&mut self, _: &Snapshot) -> Result<Box<dyn SnapshotReader>, StorageError> {
        Err(self.unsupported())
    }

    fn store_piece(&mut self, _: &Snapshot, _: u64, _: &[u8]) -> Result<(), StorageError> {
        Err(self.unsupported())
    }

    fn adopt(&mut self, _: &Snapshot) -> Result<(), StorageError> {
        Err(self.unsupported())
    }

    fn oldest_snapshot(&self) -> Index {
        0
    }
}

impl Directory {
    fn unsupported(&self) -> StorageError {
        StorageError::Io {
            op: "snapshot",
            path: self.fs.root(),
            error: io::ErrorKind::Unsupported.into(),
        }
    }
}

fn refusal(token: Token, fs: &dyn Vfs, first: &str) -> Completion {
    Completion {
        token,
        result: Err(StorageError::Io {
            op: "write after a failed one",
            path: fs.root(),
            error: io::Error::other(first.to_owned()),
        }),
    }
}

fn new_header(meta: &Meta, seq: u64, end: &End, salt: u64, bytes: u64) -> Header {
    Header {
        identity: meta.identity,
        instance: meta.instance,
        incarnation: meta.incarnation,
        generation: meta.generation,
        seq,
        prev_index: end.index,
        prev_term: end.term,
        start_lsn: end.lsn,
        prev_crc: end.crc,
        salt,
        bytes,
    }
}

/// Whether anything of a node is there, be it whole or not.
fn holds_node(names: &[String]) -> bool {
    names
        .iter()
        .any(|name| name == meta::NAME || is_segment(name))
}

fn remove_prepared(fs: &dyn Vfs, names: &[String]) -> Result<(), StorageError> {
    for name in names.iter().filter(|name| name.starts_with(PREPARED)) {
        fs.remove(name)?;
    }
    Ok(())
}
