//! A few members in one process, driven through the functions that a C host calls, with a network that
//! loses nothing and time of its own.

#![allow(unsafe_code, reason = "it calls a C interface")]

use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};

use raftkeel::ffi::code::*;
use raftkeel::ffi::config::{KEEL_NEW_NODE, keel_config, keel_params, keel_peer};
use raftkeel::ffi::drive::keel_step;
use raftkeel::ffi::input::{keel_node_add, keel_node_remove, keel_propose, keel_recv};
use raftkeel::ffi::keel::{keel, keel_bootstrap, keel_free, keel_new};
use raftkeel::ffi::leadership::{keel_barrier, keel_transfer};
use raftkeel::ffi::snapshot::{KEEL_COMPACT_APPLICATION, KEEL_COMPACT_IN_LOG, keel_snapshot};
use raftkeel::ffi::status::{
    KEEL_ROLE_LEADER, keel_status_free, keel_status_json, keel_status_take,
};
use raftkeel::ffi::tickets::keel_done_fn;

use crate::alloc::{self, inside};
use crate::host::{self, Host, Ticket, on_done};

/// Milliseconds of one turn.
const TURN: u64 = 20;
/// Memory that is short from some moment on is so for so long; longer than three elections.
const SHORTAGE: u64 = 8000;
/// What takes longer, beyond a shortage, never happens.
const PATIENCE: u64 = 40_000;

/// Where the members keep their state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Directory,
    Host,
}

/// What is asked of a member.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Data(usize),
    Barrier,
    Snapshot,
    Add(u64),
    Remove(u64),
    Transfer(u64),
}

pub struct Cluster {
    root: PathBuf,
    place: Place,
    in_log: bool,
    /// By id, less one. The library knows where they are: there are never more.
    hosts: Vec<Host>,
    running: Vec<bool>,
    now: u64,
    next: u64,
    /// What was proposed, and what became of it.
    data: BTreeMap<u64, c_int>,
    /// When memory was first short.
    short_since: Option<u64>,
    /// Whose memory is limited, if it is that of one member alone.
    limited: Option<u64>,
}

impl Cluster {
    pub fn new(root: PathBuf, place: Place, in_log: bool, size: usize) -> Cluster {
        Cluster {
            root,
            place,
            in_log,
            hosts: (0..size).map(|_| Host::new()).collect(),
            running: vec![false; size],
            now: 1000,
            next: 1,
            data: BTreeMap::new(),
            short_since: None,
            limited: None,
        }
    }

    /// From now on the limit is one for the leader.
    pub fn limit_leader(&mut self) {
        self.limited = Some(self.await_leader());
    }

    fn host(&mut self, id: u64) -> &mut Host {
        alloc::is_limited(self.limited.is_none_or(|limited| limited == id));
        &mut self.hosts[id as usize - 1]
    }

    // ---- life ----------------------------------------------------------------

    /// Makes or opens a member; as long as there is no memory for it, it is tried again.
    pub fn open(&mut self, id: u64, create: bool) {
        let mut flags = if create { KEEL_NEW_NODE } else { 0 };
        let deadline = self.now + SHORTAGE + PATIENCE;
        loop {
            match self.try_open(id, flags) {
                KEEL_OK => break,
                KEEL_ERR_NOMEM => {}
                // It was made, and there was no memory to open it.
                KEEL_ERR_EXISTS if create && flags != 0 => flags = 0,
                code => panic!("keel_new() returns {code}"),
            }
            assert!(self.now < deadline, "node {id} is never opened");
            self.turn();
        }
        self.running[id as usize - 1] = true;
    }

    fn try_open(&mut self, id: u64, flags: u32) -> c_int {
        let dir = self.root.join(id.to_string());
        let dir = CString::new(dir.to_str().expect("a name")).expect("no NUL");
        let (place, in_log) = (self.place, self.in_log);
        let host = self.host(id);
        let ud: *mut c_void = std::ptr::from_mut(host).cast();
        let storage = host::storage(ud);
        let config = keel_config {
            size: size_of::<keel_config>(),
            id,
            cluster: 7,
            dir: if place == Place::Directory {
                dir.as_ptr()
            } else {
                null()
            },
            storage: if place == Place::Host {
                &storage
            } else {
                null()
            },
            params: params(),
            heartbeat_ms: 100,
            election_ms: 1000,
            queue_max: 0,
            entry_max: 0,
            message_max: 0,
            compaction: if in_log {
                KEEL_COMPACT_IN_LOG
            } else {
                KEEL_COMPACT_APPLICATION
            },
            compact_entries: 0,
            compact_bytes: 0,
            memory_max: 200_000,
            snapshot_rate: 0,
            seed: id,
            log_level: 3,
            flags,
        };
        (host.applied, host.stopped, host.role) = (Vec::new(), None, 0);
        let mut engine: *mut keel = null_mut();
        let callbacks = host::callbacks();
        // SAFETY: everything lives until the call returns, and the host until after keel_free().
        let code = inside(|| unsafe { keel_new(&mut engine, &config, &callbacks, ud) });
        self.host(id).engine = engine;
        code
    }

    pub fn bootstrap(&mut self, id: u64, ids: &[u64]) {
        let peers: Vec<keel_peer> = ids.iter().map(|id| peer(*id)).collect();
        let deadline = self.now + SHORTAGE + PATIENCE;
        loop {
            let engine = self.host(id).engine;
            // SAFETY: the peers live until the call returns.
            let code = inside(|| unsafe { keel_bootstrap(engine, peers.as_ptr(), peers.len()) });
            match code {
                KEEL_OK => return,
                KEEL_ERR_NOMEM => {}
                // It was written after all, when there was memory.
                KEEL_ERR_EXISTS => return,
                code => panic!("keel_bootstrap() returns {code}"),
            }
            assert!(self.now < deadline, "node {id} is never bootstrapped");
            self.turn();
        }
    }

    pub fn free(&mut self, id: u64) {
        self.running[id as usize - 1] = false;
        let engine = std::mem::replace(&mut self.host(id).engine, null_mut());
        // SAFETY: the engine is used no more.
        assert_eq!(inside(|| unsafe { keel_free(engine) }), KEEL_OK);
        self.host(id).sent.clear();
    }

    pub fn free_all(&mut self) {
        for id in self.running() {
            self.free(id);
        }
    }

    fn running(&self) -> Vec<u64> {
        let ids = (1..).zip(&self.running);
        ids.filter(|(_, runs)| **runs).map(|(id, _)| id).collect()
    }

    // ---- time ------------------------------------------------------------------

    /// One driving call of each member, and everything that was sent arrives.
    pub fn turn(&mut self) {
        self.now += TURN;
        if alloc::is_short() {
            let since = *self.short_since.get_or_insert(self.now);
            if self.now >= since + SHORTAGE {
                alloc::heal();
            }
        }
        let now = self.now;
        for id in self.running() {
            let engine = self.host(id).engine;
            // SAFETY: the engine is one of ours.
            let code = inside(|| unsafe { keel_step(engine, now, null_mut()) });
            let host = self.host(id);
            assert_eq!(code, KEEL_OK, "node {id}: {:?}", host.said.last());
            assert_eq!(host.stopped, None, "node {id}: {:?}", host.said.last());
        }
        for from in self.running() {
            for (to, message) in std::mem::take(&mut self.host(from).sent) {
                if self.running.get(to as usize - 1) == Some(&true) {
                    self.deliver(from, to, &message);
                }
            }
        }
    }

    fn deliver(&mut self, from: u64, to: u64, message: &[u8]) {
        let engine = self.host(to).engine;
        let (at, len) = (message.as_ptr().cast(), message.len());
        // SAFETY: the message lives until the call returns.
        let code = inside(|| unsafe { keel_recv(engine, from, at, len) });
        let known = [KEEL_OK, KEEL_ERR_NOMEM, KEEL_ERR_FULL].contains(&code);
        assert!(known, "keel_recv() returns {code}");
    }

    /// Goes on until this holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Cluster) -> bool) {
        let mut deadline = self.now + SHORTAGE + PATIENCE;
        while !holds(self) {
            if alloc::is_short() {
                deadline = deadline.max(self.now + PATIENCE);
            }
            if self.now >= deadline {
                let said: Vec<_> = self
                    .hosts
                    .iter()
                    .map(|h| h.said.iter().rev().take(12).collect::<Vec<_>>())
                    .collect();
                panic!("never: {what}; {said:#?}");
            }
            self.turn();
        }
    }

    /// Lets so many milliseconds pass.
    pub fn pass(&mut self, time: u64) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
        }
    }

    pub fn leader(&mut self) -> Option<u64> {
        let running = self.running();
        running
            .into_iter()
            .find(|id| self.host(*id).role == KEEL_ROLE_LEADER)
    }

    pub fn await_leader(&mut self) -> u64 {
        self.until("there is a leader", |c| c.leader().is_some());
        self.leader().expect("there is one")
    }

    // ---- requests ----------------------------------------------------------------

    /// Asks a member, without waiting: the number of the request, or the code that refuses it.
    fn ask(&mut self, id: u64, order: Order) -> Result<u64, c_int> {
        let number = self.next;
        self.next += 1;
        let host: *mut Host = self.host(id);
        let k = self.host(id).engine;
        let ticket = Box::into_raw(Box::new(Ticket { host, number }));
        let (done, arg): (keel_done_fn, *mut c_void) = (Some(on_done), ticket.cast());
        // SAFETY: what is pointed to lives until the calls return, the ticket until it is completed.
        let code = unsafe {
            match order {
                Order::Data(len) => {
                    let data = host::data_of(number, len);
                    let (at, len) = (data.as_ptr().cast(), data.len());
                    inside(|| keel_propose(k, at, len, done, arg))
                }
                Order::Barrier => inside(|| keel_barrier(k, done, arg)),
                Order::Snapshot => inside(|| keel_snapshot(k, done, arg)),
                Order::Add(id) => inside(|| keel_node_add(k, &peer(id), done, arg)),
                Order::Remove(id) => inside(|| keel_node_remove(k, id, done, arg)),
                Order::Transfer(id) => inside(|| keel_transfer(k, id, done, arg)),
            }
        };
        if code == KEEL_OK {
            return Ok(number);
        }
        // SAFETY: what was refused is never completed.
        drop(unsafe { Box::from_raw(ticket) });
        assert!(
            [KEEL_ERR_NOMEM, KEEL_ERR_FULL].contains(&code),
            "{order:?} is refused with {code}"
        );
        Err(code)
    }

    /// Proposes so many entries of so many bytes at once, and again what of them has failed, until
    /// all of them are committed.
    pub fn commit(&mut self, count: usize, len: usize) {
        let mut left = count;
        let mut waiting: Vec<(u64, u64)> = Vec::new();
        self.until("all is committed", |c| {
            if let Some(leader) = c.leader() {
                while waiting.len() < left {
                    match c.ask(leader, Order::Data(len)) {
                        Ok(number) => waiting.push((leader, number)),
                        Err(_) => break,
                    }
                }
            }
            waiting.retain(|(id, number)| {
                let Some(code) = c.host(*id).done.remove(number) else {
                    return true;
                };
                c.data.insert(*number, code);
                left -= usize::from(code == KEEL_OK);
                let known = [
                    KEEL_OK,
                    KEEL_ERR_NOMEM,
                    KEEL_ERR_NOSPC,
                    KEEL_ERR_NOT_LEADER,
                    KEEL_ERR_LOST,
                    KEEL_ERR_CONFLICT,
                    KEEL_ERR_FULL,
                ];
                assert!(known.contains(&code), "a proposal ends with {code}");
                false
            });
            left == 0
        });
        assert!(waiting.is_empty());
    }

    /// Whether a proposal of so many bytes is refused for want of memory.
    pub fn refuses(&mut self, len: usize) -> bool {
        let leader = self.leader().expect("there is one");
        self.ask(leader, Order::Data(len)) == Err(KEEL_ERR_NOMEM)
    }

    /// Proposes so many entries of so many bytes, and waits until all that were taken have come to their
    /// end: how many were refused or have failed for want of memory, and how many are committed.
    pub fn flood(&mut self, count: usize, len: usize) -> (usize, usize) {
        let leader = self.await_leader();
        let asked = (0..count).map(|_| self.ask(leader, Order::Data(len)));
        let asked: Vec<_> = asked.collect();
        let mut waiting: Vec<u64> = asked.iter().filter_map(|asked| asked.ok()).collect();
        let (mut refused, mut committed) = (count - waiting.len(), 0);
        self.until("all that was taken has ended", |c| {
            waiting.retain(|number| {
                let Some(code) = c.host(leader).done.remove(number) else {
                    return true;
                };
                c.data.insert(*number, code);
                match code {
                    KEEL_OK => committed += 1,
                    KEEL_ERR_NOMEM => refused += 1,
                    KEEL_ERR_LOST | KEEL_ERR_NOT_LEADER | KEEL_ERR_CONFLICT => {}
                    code => panic!("a proposal ends with {code}"),
                }
                false
            });
            waiting.is_empty()
        });
        (refused, committed)
    }

    /// Asks whoever leads, or this node, until it is done.
    pub fn order(&mut self, of: Option<u64>, order: Order) {
        let mut waiting = None;
        let mut last = 0;
        self.until(&format!("{order:?}"), |c| {
            let Some((id, number)) = waiting else {
                let id = of.or_else(|| c.leader());
                waiting = id.and_then(|id| Some((id, c.ask(id, order).ok()?)));
                return false;
            };
            let Some(code) = c.host(id).done.remove(&number) else {
                return false;
            };
            waiting = None;
            let settled = matches!(order, Order::Add(_) | Order::Remove(_))
                && [KEEL_ERR_EXISTS, KEEL_ERR_NOT_FOUND].contains(&code)
                && last == KEEL_ERR_LOST;
            last = code;
            let known = [
                KEEL_OK,
                KEEL_ERR_NOMEM,
                KEEL_ERR_NOSPC,
                KEEL_ERR_NOT_LEADER,
                KEEL_ERR_LOST,
                KEEL_ERR_NO_QUORUM,
                KEEL_ERR_CONFLICT,
                KEEL_ERR_FULL,
            ];
            assert!(
                settled || known.contains(&code),
                "{order:?} ends with {code}"
            );
            code == KEEL_OK || settled
        });
    }

    /// The status as JSON; `None` if there is no memory for it.
    pub fn status(&mut self, id: u64) -> Option<usize> {
        let engine = self.host(id).engine;
        let mut status = null_mut();
        // SAFETY: what is pointed to lives until the calls return.
        unsafe {
            let code = inside(|| keel_status_take(engine, &mut status));
            if code == KEEL_ERR_NOMEM {
                return None;
            }
            assert_eq!(code, KEEL_OK);
            let json = inside(|| keel_status_json(status));
            let len = json
                .as_ref()
                .map(|json| std::ffi::CStr::from_ptr(json).count_bytes());
            inside(|| keel_status_free(status));
            len
        }
    }

    // ---- what must hold --------------------------------------------------------------

    /// Everybody has applied the same, all that was acknowledged, and nothing that was refused.
    pub fn agree(&mut self) {
        self.until("all have applied the same", |c| {
            let states: Vec<_> = c
                .running()
                .into_iter()
                .map(|id| c.host(id).applied.clone())
                .collect();
            let data = &c.data;
            let whole = |state: &Vec<u64>| {
                let known: std::collections::BTreeSet<_> = state.iter().collect();
                assert_eq!(known.len(), state.len(), "an entry is applied once");
                data.iter()
                    .all(|(number, code)| *code != KEEL_OK || known.contains(number))
            };
            states.windows(2).all(|pair| pair[0] == pair[1]) && states.iter().all(whole)
        });
        let leader = self.await_leader();
        for number in self.host(leader).applied.clone() {
            let code = self.data.get(&number).copied();
            let may_be = matches!(code, Some(KEEL_OK | KEEL_ERR_LOST));
            assert!(may_be, "{number} was refused with {code:?}, and is applied");
        }
    }

    pub fn installed(&mut self, id: u64) -> u32 {
        self.host(id).installed
    }
}

fn peer(id: u64) -> keel_peer {
    static META: [u8; 256] = [7; 256];
    static ADDRESS: [u8; 200] = {
        let mut text = [b'a'; 200];
        text[199] = 0;
        text
    };
    keel_peer {
        size: size_of::<keel_peer>(),
        id,
        address: ADDRESS.as_ptr().cast(),
        meta: META.as_ptr().cast(),
        meta_len: META.len(),
    }
}

fn params() -> keel_params {
    keel_params {
        size: size_of::<keel_params>(),
        version: 0,
        hb_keepalive_ms: 0,
        hb_warntime_ms: 0,
        hb_deadtime_ms: 0,
        hb_initdead_ms: 0,
        settle_ms: 0,
        min_nodes: 0,
        reserved: [0; 22],
    }
}
