//! keel_status: one consistent instant, owned by the caller, with everything it points to inside.

use std::collections::TryReserveError;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::OnceLock;

use super::code::{Failure, KEEL_ERR_NOMEM, KEEL_OK};
use super::config::keel_id;
use super::errmsg::c_text;
use super::guard::{self, Access};
use super::json;
use super::keel::keel;
use crate::core::{Millis, NodeId};
use crate::detector::{BlockedBy, NodeState};
use crate::engine::{Info, Metrics, NodeView, Role, View};

/// Follows, or looks for a leader.
pub const KEEL_ROLE_FOLLOWER: c_int = 1;
/// Campaigns to become leader.
pub const KEEL_ROLE_CANDIDATE: c_int = 2;
/// Leads.
pub const KEEL_ROLE_LEADER: c_int = 3;
/// Receives the log and does not vote yet.
pub const KEEL_ROLE_LEARNER: c_int = 4;
/// Has been excluded or removed, or has lost its state, and knows it.
pub const KEEL_ROLE_EXCLUDED: c_int = 5;

/// Never heard by this node since it started.
pub const KEEL_NODE_JOINING: c_int = 1;
/// Heard.
pub const KEEL_NODE_ALIVE: c_int = 2;
/// Silent for hb_warntime_ms.
pub const KEEL_NODE_LATE: c_int = 3;
/// Judged dead, not excluded yet: keel_node.blocked_by says what holds it back, excludes_in_ms
/// when it will be excluded.
pub const KEEL_NODE_SUSPECT: c_int = 4;
/// Excluded by a committed decision; SX prints FAULTY.
pub const KEEL_NODE_EXCLUDED: c_int = 5;
/// Excluded, and heard again since.
pub const KEEL_NODE_RETURNED: c_int = 6;
/// Another node has its place for good.
pub const KEEL_NODE_REPLACED: c_int = 7;
/// The administrator took it away for good.
pub const KEEL_NODE_REMOVED: c_int = 8;

/// Nothing holds the exclusion back.
pub const KEEL_GUARD_NONE: c_int = 0;
/// hb_deadtime_ms is 0: nothing is excluded automatically.
pub const KEEL_GUARD_DISABLED: c_int = 1;
/// No leader, or one not yet confirmed by a majority, or too new.
pub const KEEL_GUARD_NOT_LEADER_FRESH: c_int = 2;
/// The leader's own listening is in doubt.
pub const KEEL_GUARD_LISTENER_UNHEALTHY: c_int = 3;
/// What remains would have no majority.
pub const KEEL_GUARD_NO_QUORUM_AFTER: c_int = 4;
/// Fewer than min_nodes voters would remain.
pub const KEEL_GUARD_MIN_NODES: c_int = 5;
/// The host's guard said no, or later.
pub const KEEL_GUARD_VETO: c_int = 6;
/// A witness that has not heard it since its own start waits for hb_initdead_ms.
pub const KEEL_GUARD_INITDEAD: c_int = 7;
/// Waiting for others that fell silent at about the same time.
pub const KEEL_GUARD_SETTLING: c_int = 8;

/// The cluster as this node sees it. Made by the library, only read by the host: later versions
/// add fields at the end.
///
/// cbindgen:field-names=[self, leader, role, fenced, cluster, term, epoch, commit, applied, last_index, voters, voters_heard, quorum, has_quorum, armed, lease_ms, health_score, notice, hb_keepalive_ms, hb_warntime_ms, hb_deadtime_ms, hb_initdead_ms, settle_ms, fencetime_ms, min_nodes, fenced_why, leader_address, recorded_leader, recorded_term, recorded_address, first_index, snapshot_index, loading, disk_full]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_info {
    /// This node.
    pub self_id: keel_id,
    /// Who leads; 0 = none known.
    pub leader: keel_id,
    /// This node's KEEL_ROLE_*.
    pub role: i32,
    /// 1: this node must not serve.
    pub fenced: i32,
    /// The cluster's number.
    pub cluster: u64,
    /// Raft's term.
    pub term: u64,
    /// Number of the membership.
    pub epoch: u64,
    /// The highest log index known to be committed. On a follower whose disk is full it may be ahead
    /// of what this node has stored, and so of `applied`, until there is room.
    pub commit: u64,
    /// The highest log index taken in by this engine; `apply` is called for it at the end of the
    /// same driving call, so from within a callback the host's own state may be behind.
    pub applied: u64,
    /// The highest index in this node's log; what waits to be written counts, where a disk is full as
    /// well: it is lost if the process ends before there is room.
    pub last_index: u64,
    /// How many nodes vote.
    pub voters: u32,
    /// How many of them are heard, this node included: a leader, and on a leader the others, within
    /// less than election_ms; else within election_ms and hb_keepalive_ms.
    pub voters_heard: u32,
    /// How many make a majority.
    pub quorum: u32,
    /// 1: a leader that a majority has confirmed is known.
    pub has_quorum: i32,
    /// 1: dead nodes are excluded automatically.
    pub armed: i32,
    /// As keel_lease_ms().
    pub lease_ms: i32,
    /// 0 healthy .. 8; above 3 this node's testimony about others does not count.
    pub health_score: i32,
    /// Why an exclusion is held back, or what the log of this node has lost, or on which full disks
    /// everything waits, or "".
    pub notice: *const c_char,
    /// The push interval in force; this and the following with every derived value filled in.
    pub hb_keepalive_ms: u32,
    /// Silence after which a node is LATE.
    pub hb_warntime_ms: u32,
    /// Silence before a verdict; 0 = never.
    pub hb_deadtime_ms: u32,
    /// The same for a node not heard since the witness started.
    pub hb_initdead_ms: u32,
    /// How long a cut waits for others that fell silent at about the same time.
    pub settle_ms: u32,
    /// A node that no leader with a majority has answered for so long is fenced.
    pub fencetime_ms: u32,
    /// Fewest voters that automatic exclusion leaves.
    pub min_nodes: u32,
    /// Why this node must not serve, or "".
    pub fenced_why: *const c_char,
    /// Where `leader` is to be found, as its keel_peer.address says; "" if none is known.
    pub leader_address: *const c_char,
    /// Who led last as the replicated log says, up to `applied`: a value that every node has, the
    /// same at the same index, also one that has lost touch. 0 = nobody yet.
    pub recorded_leader: keel_id,
    /// The term of that leadership.
    pub recorded_term: u64,
    /// Where `recorded_leader` is to be found.
    pub recorded_address: *const c_char,
    /// The lowest index that this node goes by in its log: what came before is in its snapshots
    /// only. The files may hold more, until all of a segment can go.
    pub first_index: u64,
    /// The last index that the newest snapshot covers, 0 if there is none.
    pub snapshot_index: u64,
    /// 1: the host has yet to load a snapshot, and nothing is applied before that.
    pub loading: i32,
    /// 1: the disk has no room for the log: entries wait, and if this node leads proposals end with
    /// KEEL_ERR_NOSPC.
    pub disk_full: i32,
}

/// A node as this node sees it. Made by the library, only read by the host: later versions add
/// fields at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_node {
    /// The node.
    pub id: keel_id,
    /// Its KEEL_ROLE_* as far as known.
    pub role: i32,
    /// Its KEEL_NODE_*.
    pub state: i32,
    /// What holds its exclusion back: KEEL_GUARD_*.
    pub blocked_by: i32,
    /// How long it has not been heard; UINT32_MAX = never in this run.
    pub silent_ms: u32,
    /// When it will be excluded unless it is heard; UINT32_MAX = not foreseen.
    pub excludes_in_ms: u32,
    /// The epoch that its exclusion or removal began, else 0.
    pub epoch: u64,
    /// The log index of its exclusion or removal, else 0.
    pub index: u64,
    /// On a leader: how far its log is known to agree; elsewhere 0.
    pub match_index: u64,
    /// How many of the witnesses hear it.
    pub heard_by: u32,
    /// How many nodes have told lately whom they hear.
    pub witnesses: u32,
    /// Never NULL.
    pub address: *const c_char,
    /// NULL if there is none.
    pub meta: *const c_void,
    /// Bytes of it.
    pub meta_len: usize,
    /// Who took its place; 0 = nobody.
    pub replaced_by: keel_id,
    /// 1: it runs with another directory than the one that the cluster knows under its id, and is
    /// ignored: replace it under a new id.
    pub lost_state: i32,
    /// 1: a learner that votes only after keel_node_promote().
    pub awaits_promotion: i32,
}

/// Counters since keel_new(). Made by the library, only read by the host: later versions add
/// fields at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_metrics {
    /// Driving calls.
    pub steps: u64,
    /// Messages accepted by keel_recv().
    pub messages_in: u64,
    /// Messages given to `send`.
    pub messages_out: u64,
    /// Bytes of the messages in.
    pub bytes_in: u64,
    /// Bytes of the messages out.
    pub bytes_out: u64,
    /// Messages that did not parse.
    pub dropped_malformed: u64,
    /// Messages of another cluster or for another node.
    pub dropped_foreign: u64,
    /// Parts of messages whose type this version does not know, skipped.
    pub dropped_unknown: u64,
    /// Elections that this node started.
    pub elections: u64,
    /// The latest that a driving call ever was, in milliseconds after it was due.
    pub step_late_ms_max: u64,
    /// Pauses noticed: this node's own testimony was put aside.
    pub pauses: u64,
    /// Writes to storage.
    pub persists: u64,
    /// Log entries in them.
    pub entries_persisted: u64,
    /// Messages dropped because the input queue was full.
    pub dropped_full: u64,
    /// Snapshots that this node made.
    pub snapshots: u64,
    /// Snapshots of a leader that took the place of this node's state.
    pub snapshots_installed: u64,
    /// Bytes of snapshots received.
    pub snapshot_bytes_in: u64,
    /// Bytes of snapshots sent.
    pub snapshot_bytes_out: u64,
    /// Times that this node handed leadership over because its own disk was slow; see
    /// KEEL_SLOW_LEADER.
    pub slow_disk_transfers: u64,
}

/// A snapshot of what an engine knows: one consistent instant. It belongs to who took it,
/// outlives the engine, never changes, and may be read by several threads at once.
pub struct keel_status {
    info: keel_info,
    metrics: keel_metrics,
    nodes: Vec<keel_node>,
    view: View,
    json: OnceLock<CString>,
    // What `info` and `nodes` point to; never touched again, only kept.
    _texts: Vec<CString>,
}

impl keel_status {
    fn new(view: View) -> Result<keel_status, TryReserveError> {
        let (mut texts, mut nodes) = (Vec::new(), Vec::new());
        texts.try_reserve_exact(4 + view.nodes.len())?;
        nodes.try_reserve_exact(view.nodes.len())?;
        let address = |id: Option<NodeId>| c_text(view.address_of(id));
        texts.extend([
            c_text(&view.info.notice),
            c_text(view.info.fenced_why),
            address(view.info.leader),
            address(view.info.recorded_leader),
        ]);
        let info = info_of(&view.info, [0, 1, 2, 3].map(|i: usize| texts[i].as_ptr()));
        for node in &view.nodes {
            let address = c_text(&node.address);
            nodes.push(node_of(node, address.as_ptr()));
            texts.push(address);
        }
        Ok(keel_status {
            info,
            metrics: metrics_of(&view.metrics),
            nodes,
            view,
            json: OnceLock::new(),
            _texts: texts,
        })
    }
}

/// A role in C.
pub fn role_code(role: Role) -> c_int {
    match role {
        Role::Follower => KEEL_ROLE_FOLLOWER,
        Role::Candidate => KEEL_ROLE_CANDIDATE,
        Role::Leader => KEEL_ROLE_LEADER,
        Role::Learner => KEEL_ROLE_LEARNER,
        Role::Excluded => KEEL_ROLE_EXCLUDED,
    }
}

/// A node's state in C.
pub fn node_state(state: NodeState) -> c_int {
    match state {
        NodeState::Joining => KEEL_NODE_JOINING,
        NodeState::Alive => KEEL_NODE_ALIVE,
        NodeState::Late => KEEL_NODE_LATE,
        NodeState::Suspect => KEEL_NODE_SUSPECT,
        NodeState::Excluded => KEEL_NODE_EXCLUDED,
        NodeState::Returned => KEEL_NODE_RETURNED,
        NodeState::Replaced => KEEL_NODE_REPLACED,
        NodeState::Removed => KEEL_NODE_REMOVED,
    }
}

fn blocked_by(guard: BlockedBy) -> c_int {
    match guard {
        BlockedBy::None => KEEL_GUARD_NONE,
        BlockedBy::Disabled => KEEL_GUARD_DISABLED,
        BlockedBy::NotLeaderFresh => KEEL_GUARD_NOT_LEADER_FRESH,
        BlockedBy::ListenerUnhealthy => KEEL_GUARD_LISTENER_UNHEALTHY,
        BlockedBy::NoQuorumAfter => KEEL_GUARD_NO_QUORUM_AFTER,
        BlockedBy::MinNodes => KEEL_GUARD_MIN_NODES,
        BlockedBy::Veto => KEEL_GUARD_VETO,
        BlockedBy::InitDead => KEEL_GUARD_INITDEAD,
        BlockedBy::Settling => KEEL_GUARD_SETTLING,
    }
}

/// A lease in C: INT_MAX has no limit, so one that has a limit stays below.
pub fn lease_ms(lease: Option<Millis>) -> c_int {
    match lease {
        None => c_int::MAX,
        Some(ms) => c_int::try_from(ms)
            .unwrap_or(c_int::MAX)
            .min(c_int::MAX - 1),
    }
}

/// A span in C: UINT32_MAX is "none", so a real one stays below.
fn span_ms(span: Option<Millis>) -> u32 {
    span.map_or(u32::MAX, |ms| {
        u32::try_from(ms).unwrap_or(u32::MAX).min(u32::MAX - 1)
    })
}

/// `texts`: the notice, why it is fenced, the addresses of the leader and of the recorded one.
fn info_of(info: &Info, texts: [*const c_char; 4]) -> keel_info {
    let [notice, fenced_why, leader_address, recorded_address] = texts;
    keel_info {
        self_id: NodeId::raw(info.id),
        leader: NodeId::raw(info.leader),
        role: role_code(info.role),
        fenced: i32::from(info.fenced),
        cluster: info.cluster,
        term: info.term,
        epoch: info.epoch,
        commit: info.commit,
        applied: info.applied,
        last_index: info.last_index,
        voters: info.voters,
        voters_heard: info.voters_heard,
        quorum: info.quorum,
        has_quorum: i32::from(info.has_quorum),
        armed: i32::from(info.armed),
        lease_ms: lease_ms(info.lease),
        health_score: i32::try_from(info.health_score).unwrap_or(i32::MAX),
        notice,
        hb_keepalive_ms: span_ms(Some(info.timers.keepalive)),
        hb_warntime_ms: span_ms(Some(info.timers.warntime)),
        hb_deadtime_ms: span_ms(Some(info.timers.deadtime)),
        hb_initdead_ms: span_ms(Some(info.timers.initdead)),
        settle_ms: span_ms(Some(info.timers.settle)),
        fencetime_ms: span_ms(Some(info.timers.fencetime)),
        min_nodes: info.timers.min_nodes,
        fenced_why,
        leader_address,
        recorded_leader: NodeId::raw(info.recorded_leader),
        recorded_term: info.recorded_term,
        recorded_address,
        first_index: info.first_index,
        snapshot_index: info.snapshot_index,
        loading: i32::from(info.loading),
        disk_full: i32::from(info.full),
    }
}

fn node_of(node: &NodeView, address: *const c_char) -> keel_node {
    keel_node {
        id: node.id.get(),
        role: role_code(node.role),
        state: node_state(node.state),
        blocked_by: blocked_by(node.blocked_by),
        silent_ms: span_ms(node.silent),
        excludes_in_ms: span_ms(node.excludes_in),
        epoch: node.epoch,
        index: node.index,
        match_index: node.match_index,
        heard_by: node.heard_by,
        witnesses: node.witnesses,
        address,
        meta: if node.meta.is_empty() {
            std::ptr::null()
        } else {
            node.meta.as_ptr().cast()
        },
        meta_len: node.meta.len(),
        replaced_by: NodeId::raw(node.replaced_by),
        lost_state: i32::from(node.lost_state),
        awaits_promotion: i32::from(node.awaits_promotion),
    }
}

fn metrics_of(m: &Metrics) -> keel_metrics {
    keel_metrics {
        steps: m.steps,
        messages_in: m.packets_in,
        messages_out: m.packets_out,
        bytes_in: m.bytes_in,
        bytes_out: m.bytes_out,
        dropped_malformed: m.dropped_malformed,
        dropped_foreign: m.dropped_foreign,
        dropped_unknown: m.unknown_parts,
        elections: m.elections,
        step_late_ms_max: m.step_late_ms_max,
        pauses: m.pauses,
        persists: m.persists,
        entries_persisted: m.entries_persisted,
        dropped_full: m.dropped_full,
        snapshots: m.snapshots,
        snapshots_installed: m.snapshots_installed,
        snapshot_bytes_in: m.snapshot_bytes_in,
        snapshot_bytes_out: m.snapshot_bytes_out,
        slow_disk_transfers: m.slow_disk_transfers,
    }
}

/// Takes a snapshot and stores it at `out` (NULL there on failure); free it with
/// keel_status_free(). A dead engine still has one: fenced, with a lease of 0. KEEL_ERR_NOMEM. Query
/// function.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn keel_status_take(k: *const keel, out: *mut *mut keel_status) -> c_int {
    if !out.is_null() {
        // SAFETY: not NULL, and the host vouches for what it points to.
        unsafe { out.write(std::ptr::null_mut()) };
    }
    // SAFETY: the host vouches for the engine.
    let k = unsafe { k.as_ref() };
    let taken = guard::enter(k, Access::Query, |e| {
        if out.is_null() {
            return Err(Failure::invalid("out is NULL"));
        }
        let taken = e.keel.view(View::copy).and_then(keel_status::new);
        taken.map(Box::new).map_err(|_| {
            let text = "no memory for a status of so many nodes";
            Failure::new(KEEL_ERR_NOMEM, text)
        })
    });
    match taken {
        Ok(status) => {
            // SAFETY: not NULL, or nothing would have been taken.
            unsafe { out.write(Box::into_raw(status)) };
            KEEL_OK
        }
        Err(code) => code,
    }
}

/// Frees a snapshot and everything that came from it; NULL: nothing happens. Any thread, any
/// process that has a copy of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_status_free(s: *mut keel_status) {
    if !s.is_null() {
        // SAFETY: it came from Box::into_raw in keel_status_take, and the host gives it up.
        drop(unsafe { Box::from_raw(s) });
    }
}

/// The cluster, valid until the snapshot is freed; NULL for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_status_info(s: *const keel_status) -> *const keel_info {
    // SAFETY: the host vouches for the snapshot.
    unsafe { s.as_ref() }.map_or(std::ptr::null(), |status| &status.info)
}

/// The counters, valid until the snapshot is freed; NULL for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_status_metrics(s: *const keel_status) -> *const keel_metrics {
    // SAFETY: the host vouches for the snapshot.
    unsafe { s.as_ref() }.map_or(std::ptr::null(), |status| &status.metrics)
}

/// How many nodes there are: every one that was ever a member; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_status_count(s: *const keel_status) -> usize {
    // SAFETY: the host vouches for the snapshot.
    unsafe { s.as_ref() }.map_or(0, |status| status.nodes.len())
}

/// A node, in the order of the ids, valid until the snapshot is freed; NULL past the end and for
/// NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_status_node(s: *const keel_status, i: usize) -> *const keel_node {
    // SAFETY: the host vouches for the snapshot.
    unsafe { s.as_ref() }
        .and_then(|status| status.nodes.get(i))
        .map_or(std::ptr::null(), std::ptr::from_ref)
}

/// The whole snapshot as one JSON object on one line, valid until the snapshot is freed; NULL for
/// NULL, and if there is no memory for it. The keys are those of keel_info, with "params", "metrics" and the list "nodes";
/// roles and states are lower-case words; a value that is absent (no leader, never heard, no
/// limit) is null; meta is in hexadecimal. Later versions add keys. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keel_status_json(s: *const keel_status) -> *const c_char {
    // SAFETY: the host vouches for the snapshot.
    let Some(status) = (unsafe { s.as_ref() }) else {
        return std::ptr::null();
    };
    let text = guard::catch(|| {
        if let Some(text) = status.json.get() {
            return text.as_ptr();
        }
        match json::status(&status.view) {
            // Another thread's may have been first.
            Some(text) => status.json.get_or_init(|| text).as_ptr(),
            None => std::ptr::null(),
        }
    });
    text.unwrap_or(c"{}".as_ptr())
}
