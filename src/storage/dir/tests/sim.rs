//! A simulated disk: it knows what is durable and what only the page cache shows, can lose power
//! at any moment, and can fail any operation.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rustix::io::Errno;

use super::super::buffer::Buffer;
use super::super::page::SECTOR;
use super::super::vfs::{Queue, Vfs, VfsFile};
use super::Rng;
use crate::storage::StorageError;

/// What is found on the disk after power came back.
pub(super) type Image = BTreeMap<String, Arc<Vec<u8>>>;

/// A way for power to fail: what becomes of everything not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing of it is there.
    All,
    /// All of it is there.
    Nothing,
    /// Names are as they were, data is there.
    Names,
    /// Names are new, data is not there.
    Data,
    /// Of the last write only so many of its first sectors; everything else.
    AfterSectors(usize),
    /// Of the last write not its first so many sectors; everything else.
    FirstSectors(usize),
    /// Every sector of every write, and every change of a name, by chance.
    Random(u64),
}

impl Loss {
    /// Those that do not depend on what was written last; chance by this seed.
    pub(super) const fn usual(seed: u64) -> [Loss; 5] {
        [
            Loss::All,
            Loss::Nothing,
            Loss::Names,
            Loss::Data,
            Loss::Random(seed),
        ]
    }
}

/// How operations fail that are to fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    /// The system's reason.
    pub(super) error: io::ErrorKind,
    /// All that follow fail as well.
    pub(super) lasts: bool,
    pub(super) written: Written,
}

/// What a failing write leaves behind, in whole sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Nothing,
    Half,
    All,
}

impl Default for Failure {
    fn default() -> Failure {
        Failure {
            error: io::ErrorKind::Other,
            lasts: false,
            written: Written::Half,
        }
    }
}

impl Failure {
    fn strikes(&self, at: Option<u64>, now: u64) -> bool {
        at.is_some_and(|at| at == now || (self.lasts && at < now))
    }
}

#[derive(Clone, Default)]
struct Inode {
    durable: Arc<Vec<u8>>,
    cache: Arc<Vec<u8>>,
    /// Written since the last sync: by which operation, offset, and data.
    pending: Vec<(u64, usize, Arc<Vec<u8>>)>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, usize),
    /// From, to, and which file: a disk that has kept nothing else knows what was meant.
    Rename(String, String, usize),
    Remove(String),
}

/// Everything about the disk at one moment.
#[derive(Clone, Default)]
pub(super) struct Moment {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<(u64, NameChange)>,
}

/// Whether it writes by itself, and how often it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unaided {
    #[default]
    Never,
    /// So many times.
    Writes(u64),
    /// It says that it does, and refuses when it comes to it: at once, or in the end.
    Refuses,
    RefusesLate,
}

#[derive(Default)]
struct State {
    now: Moment,
    /// Changing operations so far.
    operations: u64,
    /// The number of the one that fails.
    fail_at: Option<u64>,
    /// Reads so far, and the number of the one that fails.
    reads: u64,
    fail_read_at: Option<u64>,
    panic_at_reads: bool,
    failure: Failure,
    /// Syncs of files whose name has this in it report success and do nothing: what a sweep must
    /// notice.
    deaf_files: Option<&'static str>,
    deaf_names: bool,
    /// Bytes of all files together that it has room for.
    capacity: Option<usize>,
    /// What it does by itself.
    unaided: Unaided,
    /// What it says when there is none; `None` for the usual.
    full_with: Option<Errno>,
    /// A copy before each operation, with the caller's mark, if kept.
    history: Option<Vec<(Moment, usize)>>,
    mark: usize,
    salt: u64,
}

/// A handle on a simulated disk; clones share it.
#[derive(Clone, Default)]
pub(super) struct Sim(Arc<Mutex<State>>, Arc<Gates>);

#[derive(Default)]
struct Gates {
    syncs: Gate,
    reads: Gate,
}

/// What operations of a kind wait for.
#[derive(Default)]
struct Gate {
    /// Whether it is closed, and how many wait.
    state: Mutex<(bool, u64)>,
    changed: Condvar,
}

impl Gate {
    fn close(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.state.lock().unwrap().0
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        state = self
            .changed
            .wait_while(state, |(closed, _)| *closed)
            .unwrap();
        state.1 -= 1;
    }
}

struct SimFile {
    sim: Sim,
    inode: usize,
    name: String,
}

fn write_at(data: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if data.len() < offset + bytes.len() {
        data.resize(offset + bytes.len(), 0);
    }
    data[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn change(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Add(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

impl Moment {
    /// The disk after power failed at this moment.
    pub(super) fn lose_power(&self, loss: Loss) -> Image {
        let mut rng = Rng(match loss {
            Loss::Random(seed) => seed,
            _ => 0,
        });
        let mut names = self.durable_names.clone();
        for (_, pending) in &self.pending_names {
            let kept = match loss {
                Loss::All | Loss::Names => false,
                Loss::Random(_) => rng.below(2) == 0,
                _ => true,
            };
            if kept {
                change(&mut names, pending);
            }
        }
        let content = |inode: usize| self.inodes[inode].after(loss, &mut rng);
        let (names, inodes): (Vec<String>, Vec<usize>) = names.into_iter().unzip();
        names
            .into_iter()
            .zip(inodes.into_iter().map(content))
            .collect()
    }

    /// The operations of which nothing was synced yet, in their order: the number of each, and how
    /// many sectors it has written; a change of a name has none.
    pub(super) fn unsynced(&self) -> Vec<(u64, usize)> {
        let names = self.pending_names.iter().map(|(at, _)| (*at, 0));
        let writes = self.inodes.iter().flat_map(|inode| &inode.pending);
        let writes = writes.map(|(at, _, data)| (*at, data.len().div_ceil(SECTOR)));
        let mut all: Vec<(u64, usize)> = names.chain(writes).collect();
        all.sort_unstable();
        all
    }

    /// The disk after power failed at this moment, with what `kept` says of each of these operations
    /// and each sector of it.
    pub(super) fn keep(&self, kept: &dyn Fn(u64, usize) -> bool) -> Image {
        let mut names = self.durable_names.clone();
        for (at, pending) in &self.pending_names {
            if kept(*at, 0) {
                change(&mut names, pending);
            }
        }
        let content = |inode: usize| self.inodes[inode].keep(kept);
        let files = names.into_iter();
        files.map(|(name, inode)| (name, content(inode))).collect()
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> usize {
        let size = |inode: &usize| self.inodes[*inode].cache.len();
        self.names.values().map(size).sum()
    }

    /// Most sectors that a last pending write has; tells which torn writes are worth trying.
    pub(super) fn last_write_sectors(&self) -> usize {
        let last = |inode: &Inode| inode.pending.last().map_or(0, |w| w.2.len() / SECTOR);
        self.inodes.iter().map(last).max().unwrap_or(0)
    }
}

impl Inode {
    fn keep(&self, kept: &dyn Fn(u64, usize) -> bool) -> Arc<Vec<u8>> {
        let mut data = self.durable.clone();
        for (at, offset, bytes) in &self.pending {
            for (sector, piece) in bytes.chunks(SECTOR).enumerate() {
                if kept(*at, sector) {
                    write_at(Arc::make_mut(&mut data), offset + sector * SECTOR, piece);
                }
            }
        }
        data
    }

    fn after(&self, loss: Loss, rng: &mut Rng) -> Arc<Vec<u8>> {
        if self.pending.is_empty() || matches!(loss, Loss::All | Loss::Data) {
            return self.durable.clone();
        }
        let mut data = self.durable.as_ref().clone();
        for (number, (_, offset, bytes)) in self.pending.iter().enumerate() {
            let last = number + 1 == self.pending.len();
            for (sector, piece) in bytes.chunks(SECTOR).enumerate() {
                let kept = match loss {
                    Loss::AfterSectors(n) => !last || sector < n,
                    Loss::FirstSectors(n) => !last || sector >= n,
                    Loss::Random(_) => rng.below(4) != 0,
                    _ => true,
                };
                if kept {
                    write_at(&mut data, offset + sector * SECTOR, piece);
                }
            }
        }
        Arc::new(data)
    }
}

impl Sim {
    /// A machine that starts with this disk.
    pub(super) fn boot(image: &Image) -> Sim {
        let sim = Sim::default();
        let mut state = sim.state();
        for (inode, (name, data)) in image.iter().enumerate() {
            state.now.names.insert(name.clone(), inode);
            state.now.inodes.push(Inode {
                durable: data.clone(),
                cache: data.clone(),
                pending: Vec::new(),
            });
        }
        state.now.durable_names = state.now.names.clone();
        drop(state);
        sim
    }

    /// What every descriptor of the file reads from now on.
    pub(super) fn put(&self, name: &str, data: Arc<Vec<u8>>) {
        let mut state = self.state();
        let inode = state.now.names[name];
        state.now.inodes[inode].cache = data;
    }

    pub(super) fn keep_history(&self) {
        self.state().history = Some(Vec::new());
    }

    pub(super) fn history(&self) -> Vec<(Moment, usize)> {
        self.state().history.take().unwrap()
    }

    /// What the history's next moments are marked with.
    pub(super) fn mark(&self, mark: usize) {
        self.state().mark = mark;
    }

    pub(super) fn fail_at(&self, operation: Option<u64>) {
        self.state().fail_at = operation;
    }

    /// How what fails from now on does.
    pub(super) fn fail_as(&self, failure: Failure) {
        self.state().failure = failure;
    }

    /// Lets the read after so many others fail; `None` lets none.
    pub(super) fn fail_read_after(&self, reads: Option<u64>) {
        let mut state = self.state();
        state.fail_read_at = reads.map(|reads| state.reads + 1 + reads);
    }

    pub(super) fn be_deaf(&self, files: Option<&'static str>, names: bool) {
        let mut state = self.state();
        (state.deaf_files, state.deaf_names) = (files, names);
    }

    /// Lets it have room for so many bytes more; `None` for any number.
    pub(super) fn be_full_after(&self, bytes: Option<usize>) {
        let mut state = self.state();
        state.capacity = bytes.map(|bytes| state.now.used() + bytes);
    }

    /// From now on it does what is asked of it by itself, as `unaided` says.
    pub(super) fn be_unaided(&self, unaided: Unaided) {
        self.state().unaided = unaided;
    }

    pub(super) fn unaided(&self) -> Unaided {
        self.state().unaided
    }

    /// What it says when it has no room.
    pub(super) fn be_full_with(&self, errno: Errno) {
        self.state().full_with = Some(errno);
    }

    /// Lets syncs wait until they are let go.
    pub(super) fn hold_syncs(&self, hold: bool) {
        self.1.syncs.close(hold);
    }

    /// Lets reads of what is open wait until they are let go.
    pub(super) fn hold_reads(&self, hold: bool) {
        self.1.reads.close(hold);
    }

    /// How many of them wait now.
    pub(super) fn held_reads(&self) -> u64 {
        self.1.reads.state.lock().unwrap().1
    }

    /// Lets every read of what is open panic.
    pub(super) fn panic_at_reads(&self, panic: bool) {
        self.state().panic_at_reads = panic;
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(super) fn reads(&self) -> u64 {
        self.state().reads
    }

    pub(super) fn now(&self) -> Moment {
        self.state().now.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Counts a changing operation; `true` if it is the one to fail.
    fn step(&self) -> (MutexGuard<'_, State>, bool) {
        let mut state = self.state();
        if let Some(mut history) = state.history.take() {
            history.push((state.now.clone(), state.mark));
            state.history = Some(history);
        }
        state.operations += 1;
        let fails = state.failure.strikes(state.fail_at, state.operations);
        (state, fails)
    }

    /// Counts a read; an error if it is the one to fail.
    fn read_step(&self, op: &'static str) -> Result<MutexGuard<'_, State>, StorageError> {
        let mut state = self.state();
        state.reads += 1;
        match state.failure.strikes(state.fail_read_at, state.reads) {
            true => Err(self.error(op, &state)),
            false => Ok(state),
        }
    }

    fn change_names(&self, op: &'static str, what: NameChange) -> Result<(), StorageError> {
        let (mut state, fails) = self.step();
        if fails {
            return Err(self.error(op, &state));
        }
        change(&mut state.now.names, &what);
        let at = state.operations;
        state.now.pending_names.push((at, what));
        Ok(())
    }

    fn error(&self, op: &'static str, state: &State) -> StorageError {
        StorageError::Io {
            op,
            path: self.root(),
            error: io::Error::new(state.failure.error, "injected"),
        }
    }

    fn inode(&self, name: &str) -> Result<usize, StorageError> {
        let state = self.state();
        let inode = state.now.names.get(name).copied();
        inode.ok_or_else(|| self.error("open", &state))
    }
}

impl Vfs for Sim {
    fn root(&self) -> PathBuf {
        PathBuf::from("/sim")
    }

    fn make_root(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn lock(&mut self, _name: &str) -> Result<(), StorageError> {
        Ok(())
    }

    fn unlock(&self) {}

    fn list(&self) -> Result<Vec<String>, StorageError> {
        let state = self.read_step("readdir")?;
        Ok(state.now.names.keys().cloned().collect())
    }

    fn read(&self, name: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        let inode = self.inode(name)?;
        let data = self.read_step("read")?.now.inodes[inode].cache.clone();
        Ok(data[..data.len().min(max as usize)].to_vec())
    }

    fn create(&self, name: &str) -> Result<Box<dyn VfsFile>, StorageError> {
        if self.inode(name).is_ok() {
            return Err(self.error("create", &self.state()));
        }
        // At once: several threads make files.
        let (mut state, fails) = self.step();
        if fails {
            return Err(self.error("create", &state));
        }
        let what = NameChange::Add(name.to_owned(), state.now.inodes.len());
        state.now.inodes.push(Inode::default());
        change(&mut state.now.names, &what);
        let at = state.operations;
        state.now.pending_names.push((at, what));
        drop(state);
        self.open(name)
    }

    fn open(&self, name: &str) -> Result<Box<dyn VfsFile>, StorageError> {
        Ok(Box::new(SimFile {
            sim: self.clone(),
            inode: self.inode(name)?,
            name: name.to_owned(),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let inode = self.inode(from)?;
        let what = NameChange::Rename(from.to_owned(), to.to_owned(), inode);
        self.change_names("rename", what)
    }

    fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.inode(name)?;
        self.change_names("remove", NameChange::Remove(name.to_owned()))
    }

    fn sync_dir(&self) -> Result<(), StorageError> {
        let (mut state, fails) = self.step();
        if fails {
            return Err(self.error("fsync", &state));
        }
        if !state.deaf_names {
            state.now.durable_names = state.now.names.clone();
            state.now.pending_names.clear();
        }
        Ok(())
    }

    fn random(&self) -> Result<u64, StorageError> {
        let mut state = self.state();
        state.salt += 1;
        Ok(Rng(state.salt).next())
    }

    fn queue(&self) -> Option<Box<dyn Queue>> {
        (self.unaided() != Unaided::Never).then(|| {
            Box::new(SimQueue {
                sim: self.clone(),
                under_way: None,
            }) as Box<dyn Queue>
        })
    }
}

/// A queue of it. Nobody is told when a write ends: who asks finds out.
struct SimQueue {
    sim: Sim,
    under_way: Option<(SimFile, Buffer, Result<(), StorageError>)>,
}

impl Queue for SimQueue {
    fn fd(&self) -> RawFd {
        -1
    }

    fn begin(&mut self, file: RawFd, buffer: Buffer, offset: u64) -> Result<(), Buffer> {
        assert!(self.under_way.is_none() && buffer.is_aligned());
        let name = String::new();
        let (sim, inode) = (self.sim.clone(), file as usize);
        let file = SimFile { sim, inode, name };
        let written = match self.sim.unaided() {
            Unaided::Refuses => return Err(buffer),
            Unaided::RefusesLate => Err(StorageError::Io {
                op: "pwrite",
                path: PathBuf::new(),
                error: io::Error::from_raw_os_error(libc::EINVAL),
            }),
            _ => file.write(buffer.bytes(), offset),
        };
        self.under_way = Some((file, buffer, written));
        Ok(())
    }

    fn end(&mut self, wait: bool) -> Option<(Buffer, io::Result<()>)> {
        self.under_way.as_ref()?;
        if !wait && self.sim.1.syncs.is_closed() {
            return None;
        }
        let (file, buffer, written) = self.under_way.take()?;
        let result = written.and_then(|()| file.sync());
        if let Unaided::Writes(count) = &mut self.sim.state().unaided {
            *count += 1;
        }
        let result = result.map_err(|error| match error {
            StorageError::Io { error, .. } => error,
            other => panic!("{other}"),
        });
        Some((buffer, result))
    }
}

impl VfsFile for SimFile {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.sim.1.reads.pass();
        let panics = self.sim.state().panic_at_reads;
        assert!(!panics, "told to panic");
        let state = self.sim.read_step("pread")?;
        let data = &state.now.inodes[self.inode].cache;
        let rest = data.get(offset as usize..).unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn size(&self) -> Result<u64, StorageError> {
        let state = self.sim.read_step("fstat")?;
        Ok(state.now.inodes[self.inode].cache.len() as u64)
    }

    fn write(&self, data: &[u8], offset: u64) -> Result<(), StorageError> {
        let (mut state, fails) = self.sim.step();
        let size = state.now.inodes[self.inode].cache.len();
        let growth = (offset as usize + data.len()).saturating_sub(size);
        let full = state
            .capacity
            .is_some_and(|c| state.now.used() + growth > c);
        if growth > 0 && full {
            return Err(StorageError::Io {
                op: "pwrite",
                path: self.sim.path(&self.name),
                error: state.full_with.unwrap_or(Errno::NOSPC).into(),
            });
        }
        let len = match (fails, state.failure.written) {
            (true, Written::Nothing) => 0,
            (true, Written::Half) => data.len() / 2 / SECTOR * SECTOR,
            (true, Written::All) | (false, _) => data.len(),
        };
        let at = state.operations;
        let inode = &mut state.now.inodes[self.inode];
        write_at(
            Arc::make_mut(&mut inode.cache),
            offset as usize,
            &data[..len],
        );
        inode
            .pending
            .push((at, offset as usize, Arc::new(data[..len].to_vec())));
        match fails {
            true => Err(self.sim.error("pwrite", &state)),
            false => Ok(()),
        }
    }

    fn reserve(&self, bytes: u64) -> Result<bool, StorageError> {
        self.write(&vec![0; bytes as usize], 0)?;
        Ok(true)
    }

    fn unbuffered(&self) -> Option<RawFd> {
        Some(self.inode as RawFd)
    }

    fn renamed(&mut self, name: &str) {
        self.name = name.to_owned();
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.sim.1.syncs.pass();
        let (mut state, fails) = self.sim.step();
        let deaf = state
            .deaf_files
            .is_some_and(|part| self.name.contains(part));
        let inode = &mut state.now.inodes[self.inode];
        if fails {
            // As Linux does: the pages count as clean and stay visible, the disk never gets them.
            inode.pending.clear();
            return Err(self.sim.error("fdatasync", &state));
        }
        if !deaf {
            let mut durable = std::mem::take(&mut inode.durable);
            let data = Arc::make_mut(&mut durable);
            for (_, offset, bytes) in inode.pending.drain(..) {
                write_at(data, offset, &bytes);
            }
            inode.durable = durable;
        }
        Ok(())
    }
}
