//! keel_storage: the host's own storage, and the way from the engine out to it.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::sync::Mutex;

use super::code::{Failure, KEEL_ERR_STATE, KEEL_OK};
use super::guard::{self, Access};
use super::keel::keel;
use super::sized::{self, HostStruct};
use crate::core::Index;
use crate::engine::Error;
use crate::panics::lock;
use crate::storage::{Batch, HostCode, HostStore, Records, StorageError};

/// keel_records_entry(): this entry and those after it are not needed.
pub const KEEL_ENOUGH: c_int = 1;

/// What `open` and `read` give stored records back through; valid until they return.
pub struct keel_records {
    _opaque: [u8; 0],
}

/// Bytes that the host stores and gives back as they are.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_record {
    /// Never NULL.
    pub data: *const c_void,
    /// Never 0.
    pub len: usize,
}

/// One write: all of it is stored, or nothing. In this order, always all three:
///
/// 1. Replace the stored state by `state`.
/// 2. Delete every stored entry whose index is `cut` or more.
/// 3. Insert the `n` entries, at the indexes `first`, `first` + 1, and so on.
///
/// As SQL, in one transaction: UPDATE the state; DELETE FROM log WHERE idx >= cut; INSERT INTO log.
/// There are no special cases: where nothing is to be deleted, `cut` is behind the last entry; where
/// the log is dropped because a snapshot has taken its place, `cut` is 1 and `first` behind the
/// snapshot, and the indexes between are left out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_batch {
    /// For keel_write_done(): one more than that of the batch before. Each run of the engine that has
    /// stored anything has numbers of its own.
    pub number: u64,
    /// Less than 256 bytes.
    pub state: keel_record,
    /// Not 0.
    pub cut: u64,
    /// Not below `cut`.
    pub first: u64,
    /// `n` of them. None is longer than keel_config.entry_max, or 64 KiB if that is more, and 4 KiB.
    pub entries: *const keel_record,
    /// Often 0.
    pub n: usize,
}

/// Storage by the host: for a daemon that owns a database, and wants this node's state in it
/// instead of in a directory (keel_config.storage). It keeps, for each engine, one state, a log of
/// entries by index, and, if there are to be snapshots, numbered images. All of them are bytes that
/// mean nothing to the host: what they say, whose they are and whether they are whole is inside, and
/// checked when they come back. Initialise with KEEL_STORAGE_INIT.
///
/// Results. 0 is success. Anything else is a failure, of a code of the host's own (errno, for
/// instance), which keel_errmsg() shows; but KEEL_ENOUGH, which `read` may hand on, so that its own
/// failures must have other numbers than 1.
///
/// Threads. `open` runs inside keel_new(); `write`, `read` and `trim` inside driving functions, in
/// the thread that drives; the snap_ functions there, inside keel_new(), and inside
/// keel_save_write(), keel_save_finish() and keel_load_read(), whichever thread calls those: also
/// several at once, but never two for one image that is not committed. From all but `open` every
/// input and query function may be called. None is called after keel_free() has returned, or by it.
///
/// Durable means: it survives the loss of power. A daemon that reports what is not breaks the
/// promises of the whole cluster.
///
/// One engine at a time may use a store, and only the host can see to that.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_storage {
    /// sizeof(keel_storage)
    pub size: usize,
    /// Handed to the functions below as it is; not the one of keel_new().
    pub ud: *mut c_void,
    /// Give back everything that is stored, with keel_records_state() first, then
    /// keel_records_entry() for all entries in the order of their indexes, and keel_records_image()
    /// for every committed image; for a node that has stored nothing, call none of them. When one
    /// of them fails, return its code. What an earlier engine has written must have landed, or be
    /// lost for good, before this begins. Images that were not committed may be deleted.
    ///
    /// With KEEL_NEW_NODE nothing may be stored, without it something must be. Set the flag because
    /// the node is to be made, not because the store was found empty: that is what one looks like
    /// that was lost. Until the first batch is durable the node has said nothing to anybody, and may
    /// be made again. Required.
    pub open: Option<unsafe extern "C" fn(ud: *mut c_void, r: *mut keel_records) -> c_int>,
    /// Take a batch, whose pointers are valid until this returns. 0 = taken: then call
    /// keel_write_done() once it is durable, or has failed: at once, from in here, or any time
    /// later, from any thread. Up to four batches may be under way, what comes meanwhile makes the
    /// next one larger; they take effect in order, so after a crash those that are stored are the
    /// first ones, each of them whole. The engine goes on, and holds back what depends on them; a
    /// leader whose oldest batch takes longer than four times election_ms steps down.
    ///
    /// A failed write, here or in keel_write_done(), ends the engine: KEEL_ERR_IO. Nothing of a run
    /// leaves the node before the first batch is durable. Required. What is still under way at
    /// keel_free() is reported to nobody any more; the next engine's numbers are others, and it
    /// refuses such a report with KEEL_ERR_INVALID, but when nothing of the earlier run was stored.
    pub write: Option<unsafe extern "C" fn(ud: *mut c_void, batch: *const keel_batch) -> c_int>,
    /// Give back entries from `first` to `last`, with keel_records_entry(), until that returns
    /// anything but KEEL_OK. They are durable, and no batch under way touches them. After a failure
    /// they are asked for again, a little later. Required.
    pub read: Option<
        unsafe extern "C" fn(ud: *mut c_void, first: u64, last: u64, r: *mut keel_records) -> c_int,
    >,
    /// Entries up to this index are not needed any more: they may be deleted now, later (from the
    /// lowest on), or never. Nothing waits for it.
    ///
    /// This and the four below may be NULL, all of them together: then this node takes no
    /// snapshots (keel_snapshot(): KEEL_ERR_STATE), keeps its whole log, and cannot follow a leader
    /// that has dropped a part of it.
    pub trim: Option<unsafe extern "C" fn(ud: *mut c_void, index: u64) -> c_int>,
    /// Append to an image, which has `offset` bytes so far. At 0 it begins, and whatever is stored
    /// under its number is dropped. It need not be durable yet. A failure ends this snapshot, and
    /// another one is tried later.
    pub snap_put: Option<
        unsafe extern "C" fn(
            ud: *mut c_void,
            image: u64,
            offset: u64,
            data: *const c_void,
            len: usize,
        ) -> c_int,
    >,
    /// Make an image durable before this returns: from now on `open` gives it. After a failure the
    /// snapshot is given up or, if it is a leader's that the host has loaded already, the engine ends.
    pub snap_commit: Option<unsafe extern "C" fn(ud: *mut c_void, image: u64) -> c_int>,
    /// Read up to `cap` bytes of an image at `offset`, whether it is committed or not, and store at
    /// `got` how many there were: 0 only at its end. What was put is read once before it is
    /// committed. A failure is one of whoever reads: of keel_new(), of keel_load_read(), or of a
    /// message to a peer, for which it is read again later.
    pub snap_get: Option<
        unsafe extern "C" fn(
            ud: *mut c_void,
            image: u64,
            offset: u64,
            buf: *mut c_void,
            cap: usize,
            got: *mut usize,
        ) -> c_int,
    >,
    /// Delete an image, committed or not; one that is not there is no failure.
    pub snap_drop: Option<unsafe extern "C" fn(ud: *mut c_void, image: u64) -> c_int>,
}

// SAFETY: repr(C), size first, nullable pointers only.
unsafe impl HostStruct for keel_storage {
    const NAME: &'static str = "keel_storage";
    const INIT: &'static str = "KEEL_STORAGE_INIT";
    const FIRST: usize = size_of::<keel_storage>();
}

/// The host's functions, copied.
///
/// # Safety
/// As [`sized::read`], and every pointer in it is NULL or a function of its type.
pub unsafe fn read_storage(host: *const keel_storage) -> Result<CStore, Failure> {
    // SAFETY: passed on to the caller.
    let calls = unsafe { sized::read(host) }?;
    let needed = [
        ("open", calls.open.is_some()),
        ("write", calls.write.is_some()),
        ("read", calls.read.is_some()),
    ];
    if let Some((name, _)) = needed.iter().find(|(_, set)| !set) {
        return Err(Failure::invalid(format!("keel_storage.{name} is NULL")));
    }
    let together = [
        ("trim", calls.trim.is_some()),
        ("snap_put", calls.snap_put.is_some()),
        ("snap_commit", calls.snap_commit.is_some()),
        ("snap_get", calls.snap_get.is_some()),
        ("snap_drop", calls.snap_drop.is_some()),
    ];
    let snapshots = calls.snap_put.is_some();
    if let Some((name, _)) = together.iter().find(|(_, set)| *set != snapshots) {
        return Err(Failure::invalid(format!(
            "keel_storage.{name} and keel_storage.snap_put: one is NULL, the other is not"
        )));
    }
    Ok(CStore(calls, Mutex::default()))
}

/// The engine's way out to the host's storage; with the memory in which batches are passed on.
pub struct CStore(keel_storage, Mutex<Vec<keel_record>>);

// SAFETY: `ud` is only handed back. In which threads the functions run, and which of them at the
// same time, is what the header tells the host.
unsafe impl Send for CStore {}
// SAFETY: as above.
unsafe impl Sync for CStore {}

impl fmt::Debug for CStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keel_storage")
    }
}

/// A function that may be NULL was not called, for the host keeps no snapshots.
const ABSENT: HostCode = KEEL_ERR_STATE;

/// Many libraries have positive codes for their failures: none may pass for "durable".
fn answer(code: c_int) -> Result<(), HostCode> {
    match code {
        KEEL_OK => Ok(()),
        code => Err(code),
    }
}

fn record(bytes: &[u8]) -> keel_record {
    keel_record {
        data: bytes.as_ptr().cast(),
        len: bytes.len(),
    }
}

fn to_host(records: &mut Records) -> *mut keel_records {
    std::ptr::from_mut(records).cast()
}

// Every call below follows the same contract: function and `ud` were given together by the host,
// and pointers are valid for the length of the call.
impl HostStore for CStore {
    fn open(&self, records: &mut Records) -> Result<(), HostCode> {
        let call = self.0.open.ok_or(ABSENT)?;
        // SAFETY: see above.
        answer(unsafe { call(self.0.ud, to_host(records)) })
    }

    fn reserve(&self, entries: usize) -> bool {
        lock(&self.1).try_reserve(entries).is_ok()
    }

    fn write(&self, batch: &Batch<'_>) -> Result<(), HostCode> {
        let call = self.0.write.ok_or(ABSENT)?;
        let mut entries = std::mem::take(&mut *lock(&self.1));
        entries.extend(batch.entries.iter().map(|e| record(e)));
        let batch = keel_batch {
            number: batch.number,
            state: record(batch.state),
            cut: batch.cut,
            first: batch.first,
            entries: entries.as_ptr(),
            n: entries.len(),
        };
        // SAFETY: see above.
        let result = answer(unsafe { call(self.0.ud, &batch) });
        // Its memory is kept.
        entries.clear();
        *lock(&self.1) = entries;
        result
    }

    fn read(&self, first: Index, last: Index, records: &mut Records) -> Result<(), HostCode> {
        let call = self.0.read.ok_or(ABSENT)?;
        // SAFETY: see above.
        match unsafe { call(self.0.ud, first, last, to_host(records)) } {
            KEEL_ENOUGH => Ok(()),
            code => answer(code),
        }
    }

    fn trim(&self, index: Index) -> Result<(), HostCode> {
        let call = self.0.trim.ok_or(ABSENT)?;
        // SAFETY: see above.
        answer(unsafe { call(self.0.ud, index) })
    }

    fn keeps_snapshots(&self) -> bool {
        self.0.snap_put.is_some()
    }

    fn snap_put(&self, image: u64, offset: u64, data: &[u8]) -> Result<(), HostCode> {
        let call = self.0.snap_put.ok_or(ABSENT)?;
        let (data, len) = (data.as_ptr().cast(), data.len());
        // SAFETY: see above.
        answer(unsafe { call(self.0.ud, image, offset, data, len) })
    }

    fn snap_commit(&self, image: u64) -> Result<(), HostCode> {
        let call = self.0.snap_commit.ok_or(ABSENT)?;
        // SAFETY: see above.
        answer(unsafe { call(self.0.ud, image) })
    }

    fn snap_get(&self, image: u64, offset: u64, buf: &mut [u8]) -> Result<usize, HostCode> {
        let call = self.0.snap_get.ok_or(ABSENT)?;
        let mut got = 0;
        let (data, cap) = (buf.as_mut_ptr().cast(), buf.len());
        // SAFETY: see above.
        answer(unsafe { call(self.0.ud, image, offset, data, cap, &mut got) })?;
        Ok(got)
    }

    fn snap_drop(&self, image: u64) -> Result<(), HostCode> {
        let call = self.0.snap_drop.ok_or(ABSENT)?;
        // SAFETY: see above.
        answer(unsafe { call(self.0.ud, image) })
    }
}

/// Says how a batch ended that `write` has taken: `status` 0: it is durable; anything else: it
/// failed, with a code of the host's own, and the engine ends. Once for every batch, in their order.
///
/// Input function, also from inside `write`. When it has returned 0 the next driving call has
/// something to do. KEEL_ERR_INVALID: another batch is to be reported first, or this one was
/// already; nothing happened. KEEL_ERR_STATE: this engine stores elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_write_done(k: *mut keel, batch: u64, status: c_int) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Input, |e| {
        Ok(e.keel.handle().write_done(batch, answer(status))?)
    });
    result.err().unwrap_or(KEEL_OK)
}

/// Hands one thing that is stored to who asked for it.
///
/// # Safety
/// `r` is NULL or came from the running `open` or `read`.
unsafe fn hand<T>(
    r: *mut keel_records,
    give: impl FnOnce(&mut Records) -> Result<T, &StorageError>,
) -> Result<T, Failure> {
    // SAFETY: it is what `to_host` made, which nobody else uses meanwhile.
    let records = unsafe { r.cast::<Records>().as_mut() };
    let records = records.ok_or_else(|| Failure::invalid("r is NULL"))?;
    give(records).map_err(|error| Failure::from(Error::from(error)))
}

/// The same with the bytes of a record. One that has none is not taken for one that is not there,
/// whatever the host makes of the answer.
///
/// # Safety
/// As [`hand`], and `data` is NULL or points to `len` readable bytes.
unsafe fn hand_bytes<T>(
    r: *mut keel_records,
    data: *const c_void,
    len: usize,
    give: impl for<'a> FnOnce(&'a mut Records, &[u8]) -> Result<T, &'a StorageError>,
) -> Result<T, Failure> {
    if data.is_null() || len == 0 {
        // SAFETY: passed on to the caller.
        let _ = unsafe { hand(r, Records::refuse) };
        return Err(Failure::invalid("a record is NULL or has no bytes"));
    }
    // SAFETY: not NULL, and the host vouches for `len` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast(), len) };
    // SAFETY: passed on to the caller.
    unsafe { hand(r, |records| give(records, bytes)) }
}

/// From `open`: the stored state, first of all.
///
/// KEEL_ERR_INVALID (no bytes), KEEL_ERR_FOREIGN, KEEL_ERR_CORRUPT, KEEL_ERR_UNSUPPORTED; whatever
/// `open` returns then, keel_new() returns this, and KEEL_ERR_CORRUPT for KEEL_ERR_INVALID.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_records_state(
    r: *mut keel_records,
    data: *const c_void,
    len: usize,
) -> c_int {
    let result = guard::outside(|| {
        // SAFETY: the host vouches for all of it.
        unsafe { hand_bytes(r, data, len, |records, bytes| records.state(bytes)) }
    });
    result.err().unwrap_or(KEEL_OK)
}

/// From `open` and `read`: one entry, in the order of the indexes.
///
/// KEEL_OK: the next one; KEEL_ENOUGH (positive, only in `read`): no more. KEEL_ERR_INVALID,
/// KEEL_ERR_CORRUPT, KEEL_ERR_UNSUPPORTED, KEEL_ERR_NOMEM: return it.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_records_entry(
    r: *mut keel_records,
    index: u64,
    data: *const c_void,
    len: usize,
) -> c_int {
    let result = guard::outside(|| {
        // SAFETY: the host vouches for all of it.
        unsafe { hand_bytes(r, data, len, |records, bytes| records.entry(index, bytes)) }
    });
    match result {
        Ok(true) => KEEL_OK,
        Ok(false) => KEEL_ENOUGH,
        Err(code) => code,
    }
}

/// From `open`: a committed image and how many bytes it has, in any order.
///
/// KEEL_ERR_INVALID, KEEL_ERR_CORRUPT: return it.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_records_image(r: *mut keel_records, image: u64, size: u64) -> c_int {
    let result = guard::outside(|| {
        // SAFETY: the host vouches for it.
        unsafe { hand(r, |records| records.image(image, size)) }
    });
    result.err().unwrap_or(KEEL_OK)
}
