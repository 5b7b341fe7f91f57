//! keel_callbacks, and the way from the engine out to them.

use std::ffi::{c_char, c_int, c_void};

use super::code::{Failure, KEEL_ERR_CLOSED, KEEL_OK, code_of};
use super::config::{keel_id, keel_params, params_to};
use super::errmsg::{self, c_text};
use super::json;
use super::keel::keel;
use super::sized::{self, HostStruct};
use super::snapshot::{keel_load, keel_save, load_to_c, save_to_c};
use super::status::{node_state, role_code};
use crate::cluster::Params;
use crate::core::{Epoch, Index, Millis, NodeId, Term};
use crate::detector::NodeState;
use crate::engine::{Error, Event, Guard, Host, HostState, Load, Role, Save, Ticket};

/// What the host is told and asked. Every pointer but `send` may be NULL. They run only inside a
/// driving function, one at a time, with no lock held and the engine's state consistent; what
/// they receive is valid until they return. Initialise with KEEL_CALLBACKS_INIT.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_callbacks {
    /// sizeof(keel_callbacks)
    pub size: usize,
    /// One committed entry of the host's own: in log order, the same on every node, exactly once
    /// per run of the engine, and in each run from the beginning: from the first entry, or from the
    /// snapshot that `load` was given. 0 = done; anything else stops the engine (KEEL_ERR_STATE).
    pub apply: Option<
        unsafe extern "C" fn(
            ud: *mut c_void,
            index: u64,
            term: u64,
            data: *const c_void,
            len: usize,
        ) -> c_int,
    >,
    /// Write a snapshot of the host's state as it is now: all that `apply` was called for so far,
    /// up to log index `index`, and nothing later. Writing may go on after this has returned, in any
    /// thread, while `apply` is called for what comes next; so look at the state as it is now first
    /// (a read transaction of a database, a copy, a list of files that never change). The
    /// keel_save is to be ended with keel_save_finish(), here or later.
    ///
    /// `save` and `load` come together. A host with `apply` and without them has no snapshots and a
    /// log that only grows, and cannot follow one that has; a host without the three has no state of
    /// its own to save, and its log is compacted by itself.
    pub save: Option<unsafe extern "C" fn(ud: *mut c_void, s: *mut keel_save, index: u64)>,
    /// Load a snapshot: the host's state becomes that, whatever it was; it covers the log up to
    /// `index`. At the first driving call of every run if there is one, before any `apply`; and when
    /// this node has missed so much that the leader sends its own. Reading may go on after this has
    /// returned, in any thread; nothing is applied before keel_load_finish(). `excluded`, `members`
    /// and `params` follow with what holds then.
    pub load: Option<unsafe extern "C" fn(ud: *mut c_void, l: *mut keel_load, index: u64)>,
    /// Put one message on the way to a node, where keel_recv() takes it; or drop it. It may be
    /// lost, doubled, late or out of order, but not altered. At most keel_config.message_max bytes.
    /// To a node whose address is not known yet (0 members in the status of one that joins) answer
    /// the way its last message came. Must not block. Required.
    pub send:
        Option<unsafe extern "C" fn(ud: *mut c_void, to: keel_id, msg: *const c_void, len: usize)>,
    /// This node's KEEL_ROLE_*, its term, or the leader it knows (0 = none) changed.
    pub role:
        Option<unsafe extern "C" fn(ud: *mut c_void, role: c_int, term: u64, leader: keel_id)>,
    /// A node's KEEL_NODE_* as this node sees it changed; silent_ms: how long it has not been
    /// heard (UINT32_MAX = never).
    pub node: Option<
        unsafe extern "C" fn(
            ud: *mut c_void,
            id: keel_id,
            state: c_int,
            old_state: c_int,
            silent_ms: u32,
        ),
    >,
    /// An exclusion was decided. Every living node is told the same epoch, ids and log index; an
    /// excluded one itself only if it was in touch when that happened, else `fence` tells it.
    ///
    /// Like `apply`, `members` and `params` it comes in log order, from the beginning in each run:
    /// a restarted node is told of exclusions that were undone since, and of those that a snapshot
    /// covers only what holds. Who is in now is what
    /// keel_status_take() says; act on that, and take this as the moment to look.
    pub excluded: Option<
        unsafe extern "C" fn(
            ud: *mut c_void,
            epoch: u64,
            ids: *const keel_id,
            n: usize,
            index: u64,
        ),
    >,
    /// The membership changed, by whatever cause: see keel_status_take(), which is the newest that
    /// this node knows and may be ahead of `epoch`. In each run from the beginning, see `excluded`.
    pub members: Option<unsafe extern "C" fn(ud: *mut c_void, epoch: u64, index: u64)>,
    /// The cluster-wide settings changed; in each run from the beginning, see `excluded`.
    pub params: Option<unsafe extern "C" fn(ud: *mut c_void, p: *const keel_params)>,
    /// 1: stop serving, the others may go on without this node; 0: serve again. `why` is for a
    /// person.
    pub fence: Option<unsafe extern "C" fn(ud: *mut c_void, fenced: c_int, why: *const c_char)>,
    /// Something worth a line in a monitoring system: a stable code and its facts as one JSON
    /// object. LEADING, NOT_LEADING (term); QUORUM, NO_QUORUM (voters_heard, quorum); EXCLUDED
    /// (epoch, index, ids); EXCLUDED_SELF, REMOVED_SELF (epoch, index, told_by); READMITTED, ADDED,
    /// PROMOTED, PEER_LOST_DATA, PEER_LOST_STATE, PEER_NEWER (id; it sends log entries that this
    /// version cannot read, so this node stays behind until it is upgraded); REMOVED (epoch, index,
    /// id); REPLACED (old, by); LOST_STATE: this node's directory is not the one that the cluster knows; BLOCKED (why;
    /// empty when nothing is held back any more); PAUSED (late_ms); SNAPSHOT, SNAPSHOT_INSTALLED
    /// (index, bytes): this node has made a snapshot, or taken the leader's; SNAPSHOT_FAILED (index,
    /// why); DIVERGED (id, index): a node's state is not this node's, see KEEL_COMPACT_LEADER;
    /// LOST_DATA, REFILLED (index: where the log ends): this node's directory was damaged and has lost
    /// entries that it may have acknowledged; it does not lead, and votes only for nodes that have
    /// them, until the leader has sent them again;
    /// DISK_STALLED, DISK_BACK: this node's disk does not answer, and a leader steps down; DISK_SLOW
    /// (to, own_ms, quorum_ms): this leader hands over, see KEEL_SLOW_LEADER. Later versions add codes
    /// and facts. What an earlier run has told is not told again.
    pub event:
        Option<unsafe extern "C" fn(ud: *mut c_void, code: *const c_char, json: *const c_char)>,
    /// The engine is dead, for the reason `why` (KEEL_ERR_*; keel_errmsg() has the text). It
    /// comes once. Stop serving, call keel_free(), start again from what is on the disk.
    pub stopped: Option<unsafe extern "C" fn(ud: *mut c_void, why: c_int)>,
    /// Leader only: may these dead nodes be excluded? 0 = yes; > 0 = ask again in so many
    /// milliseconds; < 0 = no. The reason goes to `why` (why_cap bytes with the final NUL): it is
    /// logged and shown in the status. Must not block.
    pub guard: Option<
        unsafe extern "C" fn(
            ud: *mut c_void,
            ids: *const keel_id,
            n: usize,
            why: *mut c_char,
            why_cap: usize,
        ) -> c_int,
    >,
    /// A line for the log, without newline; level as in keel_config.log_level.
    pub log: Option<unsafe extern "C" fn(ud: *mut c_void, level: c_int, text: *const c_char)>,
}

// SAFETY: repr(C), size first, nullable function pointers only.
unsafe impl HostStruct for keel_callbacks {
    const NAME: &'static str = "keel_callbacks";
    const INIT: &'static str = "KEEL_CALLBACKS_INIT";
    const FIRST: usize = size_of::<keel_callbacks>();
}

/// The host's functions, copied.
///
/// # Safety
/// As [`sized::read`], and every pointer in it is NULL or a function of its type.
pub unsafe fn read_callbacks(host: *const keel_callbacks) -> Result<keel_callbacks, Failure> {
    // SAFETY: passed on to the caller.
    let callbacks = unsafe { sized::read(host) }?;
    if callbacks.send.is_none() {
        return Err(Failure::invalid(
            "keel_callbacks.send is NULL: without it no message leaves this node",
        ));
    }
    if callbacks.save.is_some() != callbacks.load.is_some() {
        return Err(Failure::invalid(
            "keel_callbacks.save and load come together: one of them is NULL",
        ));
    }
    Ok(callbacks)
}

/// What the callbacks say about the host's state.
pub fn host_state(callbacks: &keel_callbacks) -> HostState {
    match (callbacks.apply, callbacks.save) {
        (_, Some(_)) => HostState::Saved,
        (None, None) => HostState::None,
        (Some(_), None) => HostState::Unsaved,
    }
}

/// Room for a guard's reason, its final NUL included.
const WHY_CAP: usize = 256;

/// The engine's way out to the host.
pub struct HostCalls<'a> {
    keel: &'a keel,
    ids: Vec<keel_id>,
}

impl<'a> HostCalls<'a> {
    /// To the host of this engine. Only for whoever holds its driven half.
    pub fn new(keel: &'a keel) -> HostCalls<'a> {
        HostCalls {
            keel,
            ids: Vec::new(),
        }
    }

    /// Says once why the engine is dead, then answers what waits.
    pub fn announce_death(&mut self) {
        let Some(death) = self.keel.death() else {
            panic!("only a death is announced");
        };
        if self.keel.has_panicked() {
            self.log(1, &death.text);
        }
        errmsg::set(&death.text);
        if let Some(stopped) = self.keel.callbacks().stopped {
            // SAFETY: the host gave function and argument together.
            unsafe { stopped(self.keel.ud(), death.code) }
        }
        self.close_tickets();
    }

    /// Answers every waiting request with CLOSED; no more are taken.
    pub fn close_tickets(&mut self) {
        for done in self.keel.tickets().close() {
            errmsg::set(&Error::Closed.to_string());
            done.run(KEEL_ERR_CLOSED, 0);
        }
    }

    fn raw_ids(&mut self, ids: &[NodeId]) -> &[keel_id] {
        self.ids.clear();
        self.ids.extend(ids.iter().map(|id| id.get()));
        &self.ids
    }
}

// Every call below follows the same contract: function and `ud` were given together by the host,
// pointers are valid for the length of the call, and the driven half is held, so that calls come
// one at a time.
impl Host for HostCalls<'_> {
    fn apply(&mut self, index: Index, term: Term, data: &[u8]) -> Result<(), i32> {
        let Some(apply) = self.keel.callbacks().apply else {
            return Ok(());
        };
        // SAFETY: see above.
        match unsafe {
            apply(
                self.keel.ud(),
                index,
                term,
                data.as_ptr().cast(),
                data.len(),
            )
        } {
            KEEL_OK => Ok(()),
            code => Err(code),
        }
    }

    fn save(&mut self, save: Save, index: Index) {
        match self.keel.callbacks().save {
            // SAFETY: see above.
            Some(call) => unsafe { call(self.keel.ud(), save_to_c(save), index) },
            None => save.finish(false),
        }
    }

    fn load(&mut self, load: Load, index: Index) {
        match self.keel.callbacks().load {
            // SAFETY: see above.
            Some(call) => unsafe { call(self.keel.ud(), load_to_c(load), index) },
            None => load.finish(false),
        }
    }

    fn send(&mut self, to: NodeId, bytes: &[u8]) {
        if let Some(send) = self.keel.callbacks().send {
            // SAFETY: see above.
            unsafe { send(self.keel.ud(), to.get(), bytes.as_ptr().cast(), bytes.len()) }
        }
    }

    fn done(&mut self, ticket: Ticket, result: Result<Index, Error>) {
        // Nobody waits any more if the request was answered when the engine died.
        let Some(done) = self.keel.tickets().take(ticket) else {
            return;
        };
        match result {
            Ok(index) => done.run(KEEL_OK, index),
            Err(error) => {
                errmsg::set(&error.to_string());
                done.run(code_of(&error), 0);
            }
        }
    }

    fn role(&mut self, role: Role, term: Term, leader: Option<NodeId>) {
        if let Some(call) = self.keel.callbacks().role {
            // SAFETY: see above.
            unsafe { call(self.keel.ud(), role_code(role), term, NodeId::raw(leader)) }
        }
    }

    fn node(&mut self, id: NodeId, state: NodeState, old: NodeState, silent: Millis) {
        if let Some(call) = self.keel.callbacks().node {
            let silent = u32::try_from(silent).unwrap_or(u32::MAX);
            // SAFETY: see above.
            unsafe {
                call(
                    self.keel.ud(),
                    id.get(),
                    node_state(state),
                    node_state(old),
                    silent,
                )
            }
        }
    }

    fn excluded(&mut self, epoch: Epoch, ids: &[NodeId], index: Index) {
        if let Some(call) = self.keel.callbacks().excluded {
            let ud = self.keel.ud();
            let ids = self.raw_ids(ids);
            // SAFETY: see above.
            unsafe { call(ud, epoch, ids.as_ptr(), ids.len(), index) }
        }
    }

    fn members(&mut self, epoch: Epoch, index: Index) {
        if let Some(call) = self.keel.callbacks().members {
            // SAFETY: see above.
            unsafe { call(self.keel.ud(), epoch, index) }
        }
    }

    fn params(&mut self, params: &Params) {
        if let Some(call) = self.keel.callbacks().params {
            // SAFETY: see above.
            unsafe { call(self.keel.ud(), &params_to(params)) }
        }
    }

    fn fence(&mut self, fenced: bool, why: &str) {
        if let Some(call) = self.keel.callbacks().fence {
            // SAFETY: see above.
            unsafe { call(self.keel.ud(), c_int::from(fenced), c_text(why).as_ptr()) }
        }
    }

    fn event(&mut self, event: &Event) {
        if let Some(call) = self.keel.callbacks().event {
            let (code, facts) = (c_text(event.code()), c_text(&json::event(event)));
            // SAFETY: see above.
            unsafe { call(self.keel.ud(), code.as_ptr(), facts.as_ptr()) }
        }
    }

    fn guard(&mut self, ids: &[NodeId]) -> Guard {
        let Some(call) = self.keel.callbacks().guard else {
            return Guard::Allow;
        };
        let ud = self.keel.ud();
        let ids = self.raw_ids(ids);
        let mut why = [0u8; WHY_CAP];
        // SAFETY: see above.
        let answer = unsafe {
            call(
                ud,
                ids.as_ptr(),
                ids.len(),
                why.as_mut_ptr().cast(),
                why.len(),
            )
        };
        // A host that fills the room to its end has no NUL in it.
        let end = why.iter().position(|&b| b == 0).unwrap_or(why.len());
        let why = String::from_utf8_lossy(&why[..end]).into_owned();
        match answer {
            0 => Guard::Allow,
            wait if wait > 0 => Guard::Later(Millis::from(wait.unsigned_abs()), why),
            _ => Guard::Deny(why),
        }
    }

    fn log(&mut self, level: i32, text: &str) {
        if let Some(call) = self.keel.callbacks().log {
            // SAFETY: see above.
            unsafe { call(self.keel.ud(), level, c_text(text).as_ptr()) }
        }
    }

    /// Only noted here: the host is told at the end of the driving call, once, in one place.
    fn stopped(&mut self, why: &Error) {
        self.keel.die(Failure::from(why.clone()));
    }
}
