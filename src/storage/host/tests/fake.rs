//! A host's database in memory, done naively as the header says. Writes are under way until they are
//! told to land.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::{Batch, HostCode, HostStore, Records};
use crate::core::Index;

/// What is on the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) state: Option<Vec<u8>>,
    pub(super) log: BTreeMap<Index, Vec<u8>>,
    /// And whether it is committed.
    pub(super) images: BTreeMap<u64, (Vec<u8>, bool)>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) disk: Disk,
    /// Taken, not on the disk.
    pub(super) under_way: VecDeque<Taken>,
    /// Of every call from now on, by its name.
    pub(super) failures: BTreeMap<&'static str, HostCode>,
    /// There is no memory to pass anything on.
    pub(super) is_short: bool,
    /// Everything else does the host right, but it does not delete what a batch cuts.
    pub(super) forgets_to_cut: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) number: u64,
    state: Vec<u8>,
    cut: Index,
    first: Index,
    entries: Vec<Vec<u8>>,
}

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Fake(Arc<Mutex<Inner>>);

impl Fake {
    pub(super) fn with(disk: Disk) -> Fake {
        let fake = Fake::default();
        fake.inner().disk = disk;
        fake
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics while it looks")
    }

    /// A copy of what is on the disk.
    pub(super) fn disk(&self) -> Disk {
        self.inner().disk.clone()
    }

    /// The machine stops: of what is under way the oldest `landed` batches are on the disk, and
    /// images that were not committed are gone.
    pub(super) fn crash(&self, landed: usize) -> Fake {
        let mut inner = self.inner();
        let mut disk = inner.disk.clone();
        for taken in inner.under_way.drain(..).take(landed) {
            disk.land(taken, false);
        }
        disk.images.retain(|_, (_, committed)| *committed);
        Fake::with(disk)
    }

    /// The oldest batch under way reaches the disk; its number.
    pub(super) fn land(&self) -> Option<u64> {
        let mut inner = self.inner();
        let taken = inner.under_way.pop_front()?;
        let number = taken.number;
        let forgetful = inner.forgets_to_cut;
        inner.disk.land(taken, forgetful);
        Some(number)
    }

    fn check(&self, call: &'static str) -> Result<MutexGuard<'_, Inner>, HostCode> {
        let inner = self.inner();
        match inner.failures.get(call) {
            Some(code) => Err(*code),
            None => Ok(inner),
        }
    }
}

impl Disk {
    fn land(&mut self, taken: Taken, forgetful: bool) {
        self.state = Some(taken.state);
        if !forgetful {
            self.log.retain(|index, _| *index < taken.cut);
        }
        self.log.extend((taken.first..).zip(taken.entries));
    }
}

impl HostStore for Fake {
    fn reserve(&self, entries: usize) -> bool {
        entries == 0 || !self.inner().is_short
    }

    fn open(&self, records: &mut Records) -> Result<(), HostCode> {
        let inner = self.check("open")?;
        if let Some(state) = &inner.disk.state {
            records.state(state).map_err(|_| -1)?;
        }
        for (index, record) in &inner.disk.log {
            records.entry(*index, record).map_err(|_| -1)?;
        }
        for (number, (image, committed)) in &inner.disk.images {
            if *committed {
                records.image(*number, image.len() as u64).map_err(|_| -1)?;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch<'_>) -> Result<(), HostCode> {
        let mut inner = self.check("write")?;
        assert!(1 <= batch.cut && batch.cut <= batch.first);
        assert!(batch.state.len() < 256);
        inner.under_way.push_back(Taken {
            number: batch.number,
            state: batch.state.to_vec(),
            cut: batch.cut,
            first: batch.first,
            entries: batch.entries.iter().map(|e| e.to_vec()).collect(),
        });
        Ok(())
    }

    fn read(&self, first: Index, last: Index, records: &mut Records) -> Result<(), HostCode> {
        let inner = self.check("read")?;
        for (index, record) in inner.disk.log.range(first..=last) {
            if !records.entry(*index, record).map_err(|_| -1)? {
                break;
            }
        }
        Ok(())
    }

    fn trim(&self, index: Index) -> Result<(), HostCode> {
        self.check("trim")?.disk.log.retain(|at, _| *at > index);
        Ok(())
    }

    fn keeps_snapshots(&self) -> bool {
        !self.inner().failures.contains_key("snapshots")
    }

    fn snap_put(&self, image: u64, offset: u64, data: &[u8]) -> Result<(), HostCode> {
        let mut inner = self.check("snap_put")?;
        if offset == 0 {
            inner.disk.images.remove(&image);
        }
        let (bytes, committed) = inner.disk.images.entry(image).or_default();
        assert_eq!(bytes.len() as u64, offset, "appended");
        assert!(!*committed, "what is committed does not change");
        bytes.extend_from_slice(data);
        Ok(())
    }

    fn snap_commit(&self, image: u64) -> Result<(), HostCode> {
        let mut inner = self.check("snap_commit")?;
        inner.disk.images.get_mut(&image).ok_or(-2)?.1 = true;
        Ok(())
    }

    fn snap_get(&self, image: u64, offset: u64, buf: &mut [u8]) -> Result<usize, HostCode> {
        let inner = self.check("snap_get")?;
        let (bytes, _) = inner.disk.images.get(&image).ok_or(-2)?;
        let rest = bytes.get(offset as usize..).unwrap_or(&[]);
        // Less than asked for: a host may.
        let len = rest.len().min(buf.len()).min(1000);
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn snap_drop(&self, image: u64) -> Result<(), HostCode> {
        self.check("snap_drop")?.disk.images.remove(&image);
        Ok(())
    }
}
