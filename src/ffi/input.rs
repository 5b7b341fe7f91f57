//! The input functions: they queue, and return at once.

use std::ffi::{c_int, c_void};

use super::code::{Failure, KEEL_ERR_CLOSED, KEEL_ERR_TOO_BIG, KEEL_OK};
use super::config::{copy_bytes, keel_id, keel_params, keel_peer, node_id, params_from, read_peer};
use super::guard::{self, Access};
use super::keel::keel;
use super::sized;
use super::tickets::keel_done_fn;
use crate::core::NodeId;
use crate::engine::{Input, Request};
use crate::wire::MAX_PACKET;

/// A message of a peer, as its `send` gave it. `from` is who sent it if the transport knows, and
/// then the message must say the same; 0 = believe the message.
///
/// Input function. It is checked before it is queued: KEEL_ERR_MALFORMED, KEEL_ERR_FOREIGN (of
/// another cluster, for another node, or not from `from`), KEEL_ERR_TOO_BIG, KEEL_ERR_FULL,
/// KEEL_ERR_NOMEM: each of them means that the message was dropped, which is always allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_recv(
    k: *mut keel,
    from: keel_id,
    msg: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Input, |e| {
        if msg.is_null() {
            return Err(Failure::invalid("msg is NULL"));
        }
        if len > MAX_PACKET {
            let text = format!("a message of {len} bytes; none has more than {MAX_PACKET}");
            return Err(Failure::new(KEEL_ERR_TOO_BIG, text));
        }
        // SAFETY: not NULL, and the host vouches for `len` bytes.
        let bytes = unsafe { std::slice::from_raw_parts(msg.cast::<u8>(), len) };
        Ok(e.keel.handle().receive(NodeId::new(from), bytes)?)
    });
    result.err().unwrap_or(KEEL_OK)
}

/// The host heard this node by other means, its own traffic for instance: as good a sign of life
/// as a message. Only what really came from that node in this moment counts.
///
/// Input function. KEEL_ERR_INVALID, KEEL_ERR_FULL. An unknown node is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_heard(k: *mut keel, from: keel_id) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Input, |e| {
        let from = node_id(from, "from")?;
        Ok(e.keel.handle().submit(Input::Heard(from))?)
    });
    result.err().unwrap_or(KEEL_OK)
}

/// The host says that it has lost its connection to node `id`, or cannot make one: the process there has
/// ended, perhaps. Give what came from it with keel_recv() first. It matters only if that node is the
/// leader that this one follows, and need not be taken back.
///
/// This node then does not wait until the leader was silent for election_ms: it asks the others for
/// their votes after heartbeat_ms and up to a quarter of election_ms. Those give them who were told of
/// a lost connection to the leader as well, or have not heard it for election_ms; so another leader is
/// elected at once if a majority has lost the leader, and none if a majority goes on hearing it.
///
/// It is a hint, and may be wrong. If this node hears the leader before it asks, nothing happens, and
/// further hints count for nothing in the election_ms after that. If a majority is told without cause
/// there is another leader for no reason; the one before learns of it by the next message, at the latest
/// in election_ms, and until then both may have KEEL_ROLE_LEADER, of which only the new one commits and
/// answers barriers. The hint is no silence in the sense of hb_deadtime, and no exclusion comes sooner
/// for it. With KEEL_LEASE_READS it is ignored.
///
/// Input function. KEEL_ERR_INVALID, KEEL_ERR_FULL. An unknown node is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_lost(k: *mut keel, id: keel_id) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let result = guard::enter(k, Access::Input, |e| {
        let id = node_id(id, "id")?;
        Ok(e.keel.handle().submit(Input::Lost(id))?)
    });
    result.err().unwrap_or(KEEL_OK)
}

/// Queues a request; on success its completion is certain, on failure there is none.
pub(super) fn request(
    k: Option<&keel>,
    done: keel_done_fn,
    arg: *mut c_void,
    make: impl FnOnce(&keel) -> Result<Request, Failure>,
) -> c_int {
    let result = guard::enter(k, Access::Input, |e| {
        let keel = e.keel;
        let request = make(keel)?;
        let closed = || Failure::new(KEEL_ERR_CLOSED, "the engine has stopped");
        let ticket = keel.tickets().issue(done, arg).ok_or_else(closed)?;
        match keel.handle().submit(Input::Request(ticket, request)) {
            Ok(()) => Ok(()),
            // Whoever closed the table meanwhile has run the completion: the host has its
            // answer and must not get a second one.
            Err(_) if keel.tickets().take(ticket).is_none() => Ok(()),
            Err(error) => Err(Failure::from(error)),
        }
    });
    result.err().unwrap_or(KEEL_OK)
}

/// Appends the host's own data to the log of the cluster: once committed, every node's `apply`
/// gets it. Data of length 0 is allowed. At the leader only, elsewhere the completion says
/// KEEL_ERR_NOT_LEADER.
///
/// Input function. KEEL_ERR_TOO_BIG (over keel_config.entry_max), KEEL_ERR_FULL, KEEL_ERR_NOMEM. The
/// completion says KEEL_ERR_NOSPC or KEEL_ERR_NOMEM where the leader's disk or memory has no room for
/// more entries.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_propose(
    k: *mut keel,
    data: *const c_void,
    len: usize,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |keel| {
        if len > keel.entry_max() {
            let text = format!("{len} bytes, over entry_max = {}", keel.entry_max());
            return Err(Failure::new(KEEL_ERR_TOO_BIG, text));
        }
        keel.handle().spare(len).map_err(Failure::from)?;
        // SAFETY: the host vouches for `len` bytes.
        Ok(Request::Propose(unsafe { copy_bytes(data, len, "data") }?))
    })
}

/// Excludes a node by the administrator's will, as the detector would. At the leader only.
/// Completions: KEEL_ERR_NOT_FOUND, KEEL_ERR_EXISTS (it is excluded already), KEEL_ERR_CONFLICT,
/// KEEL_ERR_STATE (fewer than two voters would remain), KEEL_ERR_NO_QUORUM (without it no majority
/// of the present voters is alive: nothing could be decided any more), KEEL_ERR_NOT_LEADER.
///
/// Input function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_node_exclude(
    k: *mut keel,
    id: keel_id,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| Ok(Request::Exclude(node_id(id, "id")?)))
}

/// A new node, whose id was never used before, joins: as a learner, which receives the log and
/// votes only after keel_node_promote(). It is started with KEEL_NEW_NODE and not bootstrapped,
/// before or soon after: like every member it is excluded if it is not heard for hb_initdead_ms. At
/// the leader only. Completions: KEEL_ERR_EXISTS (the id was used), KEEL_ERR_TOO_BIG (64 nodes),
/// KEEL_ERR_CONFLICT, KEEL_ERR_NOT_LEADER.
///
/// Input function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_node_add(
    k: *mut keel,
    peer: *const keel_peer,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| {
        // SAFETY: the host vouches for the struct and what it points to.
        Ok(Request::Add(unsafe { read_peer(peer) }?))
    })
}

/// Makes a learner a voter. At the leader only. Completions: KEEL_ERR_NOT_FOUND, KEEL_ERR_STATE (it
/// votes already, is out, or has lost its state), KEEL_ERR_CONFLICT (it has not caught up:
/// keel_errmsg() inside the completion says how far behind it is; or another change is under way),
/// KEEL_ERR_NOT_LEADER.
///
/// Input function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_node_promote(
    k: *mut keel,
    id: keel_id,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| Ok(Request::Promote(node_id(id, "id")?)))
}

/// Takes a voter, a learner or an excluded node away for good: it is told and must not serve any
/// more, and its id is never used again. The leader may take itself away; the others then elect a
/// new one. `excluded` is not called: whatever a node stores must be elsewhere before it is removed.
/// Let it run until it has been told: its vote may be needed until then.
/// At the leader only. Completions: KEEL_ERR_NOT_FOUND, KEEL_ERR_STATE (it is the last voter, or
/// gone already), KEEL_ERR_NO_QUORUM (too few voters are alive to decide it, or to go on without
/// it), KEEL_ERR_CONFLICT, KEEL_ERR_NOT_LEADER.
///
/// Input function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_node_remove(
    k: *mut keel,
    id: keel_id,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| Ok(Request::Remove(node_id(id, "id")?)))
}

/// Takes an excluded node back, with the data it has: as a learner, which votes again when it has
/// caught up, if it ever did or was meant to. At the leader only. Completions: KEEL_ERR_NOT_FOUND,
/// KEEL_ERR_STATE (it is not excluded, or has lost its state), KEEL_ERR_CONFLICT,
/// KEEL_ERR_NOT_LEADER.
///
/// Input function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_node_readmit(
    k: *mut keel,
    id: keel_id,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| Ok(Request::Readmit(node_id(id, "id")?)))
}

/// Puts a new node, whose id was never used before, in the place of an excluded one: as a
/// learner, which votes when it has caught up, as the old one did. At the leader only. Completions:
/// KEEL_ERR_NOT_FOUND, KEEL_ERR_STATE (the old one is not excluded), KEEL_ERR_EXISTS (the new id
/// was used), KEEL_ERR_CONFLICT, KEEL_ERR_NOT_LEADER.
///
/// Input function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_node_replace(
    k: *mut keel,
    old_id: keel_id,
    by: *const keel_peer,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| {
        let old = node_id(old_id, "old_id")?;
        // SAFETY: the host vouches for the struct and what it points to.
        let by = unsafe { read_peer(by) }?;
        Ok(Request::Replace { old, by })
    })
}

/// Changes the cluster-wide settings, all of them together: take them with keel_get_params(),
/// change fields, set them. At the leader only. Completions: KEEL_ERR_INVALID (a value breaks a
/// rule; keel_errmsg() inside the completion says which), KEEL_ERR_CONFLICT (`version` is neither
/// 0 nor the current one), KEEL_ERR_NOT_LEADER.
///
/// Input function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_set_params(
    k: *mut keel,
    p: *const keel_params,
    done: keel_done_fn,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    request(k, done, arg, |_| {
        // SAFETY: the host vouches for the struct.
        let params = params_from(&unsafe { sized::read(p) }?)?;
        Ok(Request::SetParams(params))
    })
}
