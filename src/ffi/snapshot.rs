//! keel_save and keel_load: the host's part of a snapshot, written and read in pieces; and
//! keel_snapshot().

use std::ffi::{c_int, c_void};

use super::code::{Failure, KEEL_ERR_FORKED, KEEL_OK};
use super::guard;
use super::input::request;
use super::keel::keel;
use super::tickets::keel_done_fn;
use crate::engine::{Load, Request, Save};

/// keel_config.compaction: every node makes its own snapshots, when enough was applied or when it
/// is told to, and keeps them beside its log. Nodes need not be alike.
pub const KEEL_COMPACT_APPLICATION: u32 = 0;
/// keel_config.compaction: the leader decides where in the log a snapshot is made, every node makes
/// it exactly there, and the nodes compare their snapshots: one whose host has another state than
/// the leader's is reported (event DIVERGED). What `save` writes must be the same on every node that
/// has applied the same.
pub const KEEL_COMPACT_LEADER: u32 = 1;
/// keel_config.compaction: the leader decides, and only its host writes a snapshot, which goes into
/// the log in pieces, to every node. For hosts whose snapshots are small and whose nodes should do
/// no work of their own for them.
pub const KEEL_COMPACT_IN_LOG: u32 = 2;

/// A snapshot that the host is writing. It belongs to the host from when `save` gets it until
/// keel_save_finish(), may be used by one thread at a time, and also after `save` has returned.
pub struct keel_save {
    save: Save,
    pid: u32,
}

/// A snapshot that the host is loading. It belongs to the host from when `load` gets it until
/// keel_load_finish(), may be used by one thread at a time, and also after `load` has returned.
pub struct keel_load {
    load: Load,
    pid: u32,
}

/// Hands a snapshot to the host, to be written.
pub fn save_to_c(save: Save) -> *mut keel_save {
    let pid = std::process::id();
    Box::into_raw(Box::new(keel_save { save, pid }))
}

/// Hands a snapshot to the host, to be loaded.
pub fn load_to_c(load: Load) -> *mut keel_load {
    let pid = std::process::id();
    Box::into_raw(Box::new(keel_load { load, pid }))
}

fn same_process(pid: u32) -> Result<(), Failure> {
    if pid == std::process::id() {
        return Ok(());
    }
    Err(Failure::new(
        KEEL_ERR_FORKED,
        format!("this snapshot belongs to process {pid}: have the child give it the data"),
    ))
}

fn null(what: &str) -> Failure {
    Failure::invalid(format!("{what} is NULL"))
}

/// Appends to the snapshot; `data` may be changed again when it returns. It goes to the disk in the
/// calling thread and does not wait for it. After a failure only keel_save_finish() is left.
///
/// Any thread, also from callbacks. KEEL_ERR_INVALID, KEEL_ERR_IO, KEEL_ERR_NOMEM, KEEL_ERR_STATE (it
/// has failed already), KEEL_ERR_FORKED.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_save_write(
    s: *mut keel_save,
    data: *const c_void,
    len: usize,
) -> c_int {
    let result = guard::outside(|| {
        // SAFETY: the host vouches for the snapshot, and that no other thread uses it.
        let s = unsafe { s.as_mut() }.ok_or_else(|| null("the snapshot (keel_save *)"))?;
        same_process(s.pid)?;
        if len == 0 {
            return Ok(());
        }
        if data.is_null() {
            return Err(null("data"));
        }
        // SAFETY: not NULL, and the host vouches for `len` bytes.
        let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
        Ok(s.save.write(data)?)
    });
    result.err().unwrap_or(KEEL_OK)
}

/// Ends the snapshot and frees `s`. With `status` KEEL_OK all was written: it is verified and made
/// durable in the calling thread, which waits for the disk; do it in a thread of your own if it is
/// large. With any other `status` the snapshot is given up; the next one is tried when as much has
/// been applied again. To be called for every keel_save, and before keel_free().
///
/// Any thread, also from callbacks. KEEL_ERR_INVALID: `s` is NULL; KEEL_ERR_FORKED: nothing
/// happened. What becomes of the snapshot is told by the events SNAPSHOT and SNAPSHOT_FAILED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_save_finish(s: *mut keel_save, status: c_int) -> c_int {
    let result = guard::outside(|| {
        // SAFETY: the host vouches for the snapshot.
        let known = unsafe { s.as_ref() }.ok_or_else(|| null("the snapshot (keel_save *)"))?;
        same_process(known.pid)?;
        // SAFETY: it came from Box::into_raw in save_to_c, and the host gives it up with this call.
        let owned = unsafe { Box::from_raw(s) };
        owned.save.finish(status == KEEL_OK);
        Ok(())
    });
    result.err().unwrap_or(KEEL_OK)
}

/// Reads on in the snapshot: what keel_save_write() got on the node that made it, in order, cut
/// anywhere. `*got` becomes the number of bytes read, at most `cap`; 0 at the end. Every byte is
/// checked against its checksum before it is handed out.
///
/// Any thread, also from callbacks. KEEL_ERR_INVALID, KEEL_ERR_IO, KEEL_ERR_CORRUPT,
/// KEEL_ERR_FORKED; then only keel_load_finish() is left.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_load_read(
    l: *mut keel_load,
    buf: *mut c_void,
    cap: usize,
    got: *mut usize,
) -> c_int {
    let result = guard::outside(|| {
        // SAFETY: the host vouches for the snapshot, and that no other thread uses it.
        let l = unsafe { l.as_mut() }.ok_or_else(|| null("the snapshot (keel_load *)"))?;
        same_process(l.pid)?;
        if got.is_null() || (buf.is_null() && cap > 0) {
            return Err(null(if got.is_null() { "got" } else { "buf" }));
        }
        let mut read = 0;
        if cap > 0 {
            // SAFETY: not NULL, and the host vouches for `cap` writable bytes, which are
            // initialised before anybody can look at them.
            let buf = unsafe {
                buf.cast::<u8>().write_bytes(0, cap);
                std::slice::from_raw_parts_mut(buf.cast::<u8>(), cap)
            };
            read = l.load.read(buf)?;
        }
        // SAFETY: not NULL, and the host vouches for what it points to.
        unsafe { got.write(read) };
        Ok(())
    });
    result.err().unwrap_or(KEEL_OK)
}

/// Ends the loading and frees `l`. With `status` KEEL_OK the host's state is that of the snapshot,
/// and nothing else; `apply` goes on behind it. With any other it could not be loaded: a leader's is
/// sent again, a little later, and until then the host keeps the state it had; the node's own, at a
/// start, stops the engine (KEEL_ERR_STATE). To be called for every keel_load, and before
/// keel_free().
///
/// Any thread, also from callbacks. KEEL_ERR_INVALID: `l` is NULL; KEEL_ERR_FORKED: nothing
/// happened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_load_finish(l: *mut keel_load, status: c_int) -> c_int {
    let result = guard::outside(|| {
        // SAFETY: the host vouches for the snapshot.
        let known = unsafe { l.as_ref() }.ok_or_else(|| null("the snapshot (keel_load *)"))?;
        same_process(known.pid)?;
        // SAFETY: it came from Box::into_raw in load_to_c, and the host gives it up with this call.
        let owned = unsafe { Box::from_raw(l) };
        owned.load.finish(status == KEEL_OK);
        Ok(())
    });
    result.err().unwrap_or(KEEL_OK)
}

/// Makes a snapshot now, whatever has been applied since the last one, so that the log before the
/// one before it can be dropped; a keel_storage keeps the newest one only. With KEEL_COMPACT_APPLICATION on this node; with the other two
/// kinds on all of them, at the leader only. Completed when this node's own is durable, with the last
/// log index that it covers. Completions: KEEL_ERR_STATE (no `save`; a keel_storage without
/// snap_put; nothing to be saved yet), KEEL_ERR_CONFLICT (one is being made or loaded already),
/// KEEL_ERR_NOT_LEADER, KEEL_ERR_LOST, KEEL_ERR_IO.
///
/// Input function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_snapshot(
    k: *mut keel,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| Ok(Request::Snapshot))
}
