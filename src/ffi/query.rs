//! The query functions: what is known as of the end of the last driving call.

use std::ffi::{c_char, c_int};

use super::code::{Failure, KEEL_OK};
use super::code::{KEEL_EPOCH_AHEAD, KEEL_ERR_EXCLUDED, KEEL_ERR_NOT_FOUND, KEEL_ERR_STALE};
use super::config::{keel_id, keel_params, node_id, params_to};
use super::errmsg::c_text;
use super::guard::{self, Access};
use super::keel::keel;
use super::sized;
use super::status::{lease_ms, role_code};
use crate::core::NodeId;
use crate::detector::NodeState;
use crate::engine::View;

/// This node's KEEL_ROLE_*, or a negative code. Query function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_role(k: *const keel) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let role = guard::enter(k, Access::Query, |e| Ok(e.keel.view(|v| v.info.role)));
    role.map_or_else(|code| code, role_code)
}

/// The leader as far as this node knows, itself included; 0 = none known, or a failure. Query
/// function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_leader(k: *const keel) -> keel_id {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let leader = guard::enter(k, Access::Query, |e| Ok(e.keel.view(|v| v.info.leader)));
    NodeId::raw(leader.ok().flatten())
}

/// Who leads, in which term, and where, as far as this node knows, all of the same moment. `*id`
/// becomes 0 and `address` "" if nobody is known; NULL may be given for what is not wanted. A text
/// longer than `cap` bytes, its final NUL included, is cut: KEEL_ADDRESS_MAX + 1 always does.
///
/// Query function. KEEL_ERR_INVALID, KEEL_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_find_leader(
    k: *const keel,
    id: *mut keel_id,
    term: *mut u64,
    address: *mut c_char,
    cap: usize,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Query, |e| {
        let found = e.keel.view(|view| {
            let leader = view.info.leader;
            let address = c_text(view.address_of(leader));
            (NodeId::raw(leader), view.info.term, address)
        });
        if !id.is_null() {
            // SAFETY: not NULL, and the host vouches for what it points to.
            unsafe { id.write(found.0) };
        }
        if !term.is_null() {
            // SAFETY: as above.
            unsafe { term.write(found.1) };
        }
        if !address.is_null() && cap > 0 {
            let text = found.2.as_bytes();
            let len = text.len().min(cap - 1);
            // SAFETY: the host vouches for `cap` bytes, and `len` and a NUL are no more.
            unsafe {
                address
                    .cast::<u8>()
                    .copy_from_nonoverlapping(text.as_ptr(), len);
                address.add(len).write(0);
            }
        }
        Ok(())
    });
    result.err().unwrap_or(KEEL_OK)
}

/// The number of the membership, one higher after every change of it; send it with the host's own
/// traffic and check it with keel_check_epoch(). 0 = no membership known yet, or a failure. Query
/// function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_epoch(k: *const keel) -> u64 {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let epoch = guard::enter(k, Access::Query, |e| {
        Ok(e.keel.handle().view(|v| v.info.epoch))
    });
    epoch.unwrap_or(0)
}

/// Whether the host's own traffic from a node may be served, by the epoch that came with it:
/// KEEL_OK: both know the same membership; KEEL_EPOCH_AHEAD (positive): this node is behind, wait
/// until its epoch has caught up; KEEL_ERR_EXCLUDED: the sender is excluded, replaced or
/// removed, refuse; KEEL_ERR_NOT_FOUND: no member, refuse; KEEL_ERR_STALE: the sender is behind, refuse until it
/// has caught up. Serve on KEEL_OK only. Query function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_check_epoch(k: *const keel, from: keel_id, epoch: u64) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Query, |e| {
        let from = node_id(from, "from")?;
        e.keel.handle().view(|view| check_epoch(view, from, epoch))
    });
    result.unwrap_or_else(|code| code)
}

/// A newer epoch comes first: whatever is known here about the sender may have changed in it.
pub fn check_epoch(view: &View, from: NodeId, epoch: u64) -> Result<c_int, Failure> {
    let ours = view.info.epoch;
    if epoch > ours {
        return Ok(KEEL_EPOCH_AHEAD);
    }
    let Some(node) = view.nodes.iter().find(|n| n.id == from) else {
        let text = format!("node {} is no member at epoch {ours}", from.get());
        return Err(Failure::new(KEEL_ERR_NOT_FOUND, text));
    };
    if matches!(
        node.state,
        NodeState::Excluded | NodeState::Returned | NodeState::Replaced | NodeState::Removed
    ) {
        let text = format!("node {} is out since epoch {}", from.get(), node.epoch);
        return Err(Failure::new(KEEL_ERR_EXCLUDED, text));
    }
    if epoch < ours {
        let text = format!(
            "node {} is at epoch {epoch}, this node at {ours}",
            from.get()
        );
        return Err(Failure::new(KEEL_ERR_STALE, text));
    }
    Ok(KEEL_OK)
}

/// How many milliseconds this node may go on serving without hearing from a majority: > 0; 0 =
/// fenced, do not serve; INT_MAX = without limit (hb_deadtime_ms is 0, nobody is ever excluded
/// without the administrator). With keel_dispatch() it runs down also while nobody drives the
/// engine, so that any thread can ask it before it serves; with keel_step() it counts from the last
/// call. 0 for a dead engine. Negative: a failure, do not serve. Query function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_lease_ms(k: *const keel) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Query, |e| {
        Ok(match e.keel.death() {
            Some(_) => 0,
            None => lease_ms(e.keel.handle().lease_ms()),
        })
    });
    result.unwrap_or_else(|code| code)
}

/// The settings in force, as they were set: a 0 stays a 0. Set p->size first (KEEL_PARAMS_INIT).
/// Query function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_get_params(k: *const keel, p: *mut keel_params) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Query, |e| {
        let params = e.keel.handle().view(|v| params_to(&v.params));
        // SAFETY: the host vouches for the struct.
        unsafe { sized::write(p, &params) }
    });
    result.err().unwrap_or(KEEL_OK)
}
