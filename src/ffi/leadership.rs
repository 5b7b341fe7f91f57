//! The input functions about leadership: to read as if at the leader, to hand it over, to decline
//! it.

use std::ffi::{c_int, c_void};

use super::code::{Failure, KEEL_OK};
use super::config::keel_id;
use super::guard::{self, Access};
use super::input::request;
use super::keel::keel;
use super::tickets::keel_done_fn;
use crate::core::{NodeId, Priority};
use crate::engine::{Input, Request};

/// A point to read at, without a log entry: when it completes with KEEL_OK, this node has applied
/// everything that was committed anywhere in the cluster when it was called, and `index` is how
/// far that goes at least. What the host reads from its own state then is linearizable. On every
/// node that is a member; a leader asks a majority, others ask the leader. Barriers that arrive
/// together cost one round together.
///
/// Nothing changes in any case: whatever the completion says, it can be called again.
/// KEEL_ERR_NO_QUORUM (no leader is known, or none that a majority confirms), KEEL_ERR_LOST (the
/// leader changed meanwhile), KEEL_ERR_FULL (4096 wait on this node), KEEL_ERR_EXCLUDED. On a follower
/// whose disk is full (keel_info.disk_full) it may not complete before there is room, for nothing is
/// applied that is not stored; another node answers at once.
///
/// Input function. KEEL_ERR_FULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_barrier(k: *mut keel, done: keel_done_fn, arg: *mut c_void) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| Ok(Request::Barrier))
}

/// Hands leadership over to a voter, or with 0 to the most up-to-date one in contact that may lead
/// (keel_set_eligible()). At the leader only. Until it is over, at most for election_ms, requests
/// that change anything complete with KEEL_ERR_CONFLICT; those accepted before are finished first.
/// From the moment when the target has caught up and is told, this leader confirms no other node's
/// right to serve (keel_lease_ms()) until another one leads or it leads on: a target that ignores the
/// order costs the others' leases up to election_ms, and fences nobody where the fencing time is longer
/// than that by a few keepalives.
///
/// KEEL_OK: the target leads; `index` is how far this node knows the log to be committed.
/// KEEL_ERR_CONFLICT: it did not take over in time and this node leads on, or another transfer is
/// under way. KEEL_ERR_LOST: another node leads now, or none is known to. KEEL_ERR_NOT_FOUND (no
/// member), KEEL_ERR_STATE (a learner, or a node that may not lead), KEEL_ERR_EXISTS (this node
/// leads already), KEEL_ERR_NO_QUORUM (with 0: nobody is in contact), KEEL_ERR_NOT_LEADER,
/// KEEL_ERR_EXCLUDED.
///
/// Input function. KEEL_ERR_FULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_transfer(
    k: *mut keel,
    to: keel_id,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| Ok(Request::Transfer(NodeId::new(to))))
}

/// Whether this node may lead, and how much it is wished for: 0 = it may not, 1 = it may, as every
/// node until told otherwise in each run, up to 255 = rather than those with less. A node that may
/// not lead goes on voting and does not campaign; a leader hands over as soon as one that is wished
/// for more has caught up and can take it, and a node campaigns up to one election_ms later while
/// another is wished for more. This delays and never denies: a node that has heard no leader for ten
/// times election_ms campaigns all the same, so a cluster whose majority may not lead is slow to
/// elect, not dead.
///
/// Input function. KEEL_ERR_INVALID: not from 0 to 255; KEEL_ERR_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_set_eligible(k: *mut keel, priority: c_int) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Input, |e| {
        let priority = Priority::try_from(priority).map_err(|_| {
            Failure::invalid(format!("a priority of {priority} is not from 0 to 255"))
        })?;
        Ok(e.keel.handle().submit(Input::Priority(priority))?)
    });
    result.err().unwrap_or(KEEL_OK)
}
