//! The functions that take an engine, each with arguments that are right, odd or wrong.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use raftkeel::ffi::code::{KEEL_OK, keel_strerror};
use raftkeel::ffi::config::{KEEL_LEASE_READS, KEEL_VOLATILE, keel_config, keel_params, keel_peer};
use raftkeel::ffi::drive::{keel_dispatch, keel_fd, keel_timeout_ms};
use raftkeel::ffi::input::*;
use raftkeel::ffi::keel::{keel_bootstrap, keel_new};
use raftkeel::ffi::leadership::{keel_barrier, keel_set_eligible, keel_transfer};
use raftkeel::ffi::query::*;
use raftkeel::ffi::snapshot::{
    keel_load_finish, keel_load_read, keel_save_finish, keel_save_write, keel_snapshot,
};
use raftkeel::ffi::status::*;

use super::{Host, World, host};

/// The cluster that most engines are of.
const CLUSTER: u64 = 7;

fn no_params() -> keel_params {
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

impl World<'_> {
    /// Mostly `usual`, else anything.
    fn odd(&self, usual: u64) -> u64 {
        match self.below(32) {
            31 => self.number(),
            _ => usual,
        }
    }

    fn params(&self) -> keel_params {
        let dead = [0, 1_500, 5_000, 60_000][self.below(4) as usize];
        let mut params = keel_params {
            size: self.odd(size_of::<keel_params>() as u64) as usize,
            version: self.odd(0),
            hb_keepalive_ms: self.odd(500) as u32,
            hb_warntime_ms: self.odd(0) as u32,
            hb_deadtime_ms: self.odd(dead) as u32,
            hb_initdead_ms: self.odd(dead) as u32,
            settle_ms: self.odd(0) as u32,
            min_nodes: self.odd(0) as u32,
            reserved: [0; 22],
        };
        // Of another size the host would need memory for it.
        if params.size > size_of::<keel_params>() {
            params.size = 0;
        }
        params.reserved[21] = self.odd(0) as u32;
        params
    }

    fn config(&self, id: u64) -> keel_config {
        let lease_reads = match self.below(8) {
            7 => KEEL_LEASE_READS,
            _ => 0,
        };
        keel_config {
            size: match self.odd(0) {
                0 => size_of::<keel_config>(),
                odd => odd as usize % size_of::<keel_config>(),
            },
            id: self.odd(id),
            cluster: self.odd(CLUSTER),
            dir: match self.odd(0) {
                0 => null(),
                // In which nothing can be made.
                _ => c"/dev/null/keel".as_ptr(),
            },
            storage: null(),
            params: self.params(),
            heartbeat_ms: self.odd(0) as u32,
            election_ms: self.odd(0) as u32,
            queue_max: self.odd(0) as u32,
            entry_max: self.odd(0) as u32,
            message_max: self.odd(0) as u32,
            compaction: self.odd(self.below(3)) as u32,
            compact_entries: self.odd(8 * self.below(4)) as u32,
            compact_bytes: self.odd(0),
            memory_max: self.odd(self.below(3)),
            snapshot_rate: self.odd(0),
            // Never from the system: the same bytes do the same.
            seed: self.odd(1).max(1),
            log_level: self.odd(5) as i32,
            flags: self.odd(u64::from(KEEL_VOLATILE)) as u32 | lease_reads,
        }
    }

    fn peer(&self, address: &[u8], meta: &[u8]) -> keel_peer {
        keel_peer {
            size: size_of::<keel_peer>() * usize::from(self.odd(0) == 0),
            id: self.id(),
            address: address.as_ptr().cast(),
            meta: meta.as_ptr().cast(),
            meta_len: meta.len(),
        }
    }
}

impl Host<'_> {
    /// Makes its engine; whether there is one now.
    pub fn make(&self) -> bool {
        let w = self.world;
        let config = w.config(self.id);
        let mut callbacks = host::callbacks();
        match w.below(16) {
            0 => callbacks.apply = None,
            1 => (callbacks.save, callbacks.load) = (None, None),
            2 => callbacks.load = None,
            3 => callbacks.send = None,
            4 => (callbacks.guard, callbacks.log) = (None, None),
            5 => (callbacks.stopped, callbacks.event) = (None, None),
            6 => callbacks.size -= 1,
            _ => {}
        }
        let mut k = null_mut();
        let ud = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
        host::enter(w);
        // SAFETY: all of them live here, and this host longer than its engine.
        let code = unsafe { keel_new(&mut k, &config, &callbacks, ud) };
        w.check("keel_new", code);
        w.expect((code == KEEL_OK) != k.is_null(), || {
            format!("{code}: {k:?}")
        });
        self.k.set(k);
        !k.is_null()
    }

    /// Calls something on its engine.
    pub fn call(&self) {
        match self.world.below(12) {
            0 | 1 => self.drive(),
            2..=4 => self.change_members(),
            5 | 6 => self.ask_for(),
            7 => self.post(),
            8 | 9 => self.snapshots(),
            10 => self.query(),
            _ => self.look(),
        }
    }

    fn drive(&self) {
        let w = self.world;
        let k = self.k.get();
        match w.below(16) {
            0..8 => {
                let ids: Vec<(Vec<u8>, [u8; 2])> = (0..w.below(5))
                    .map(|n| (format!("10.0.0.{n}:7000\0").into_bytes(), [n as u8; 2]))
                    .collect();
                let mut peers: Vec<keel_peer> = (1..)
                    .zip(&ids)
                    .map(|(id, (address, meta))| keel_peer {
                        id: w.odd(id),
                        size: size_of::<keel_peer>(),
                        ..w.peer(address, meta)
                    })
                    .collect();
                let len = match w.odd(0) {
                    0 => peers.len(),
                    odd => 65 + odd as usize / 2,
                };
                let first = match peers.is_empty() {
                    true => null_mut(),
                    false => peers.as_mut_ptr(),
                };
                // SAFETY: so many are there, or more than are looked at.
                w.check("keel_bootstrap", unsafe { keel_bootstrap(k, first, len) });
            }
            8..14 => {
                // Also backwards, and to the end of time.
                let now = w.odd(w.now.get() + w.below(64));
                self.step(now);
            }
            14 => {
                // SAFETY: the engine is alive or NULL, here and below.
                let fd = unsafe { keel_fd(k) };
                w.check("keel_fd", fd.min(0));
            }
            // SAFETY: as above.
            _ => w.check("keel_dispatch", unsafe { keel_dispatch(k) }),
        }
    }

    /// Makes a request with a number of its own, or without a completion.
    fn request(
        &self,
        name: &str,
        call: impl FnOnce(raftkeel::ffi::tickets::keel_done_fn, *mut c_void) -> c_int,
    ) {
        let w = self.world;
        let told = w.below(8) > 0;
        let arg = w.request();
        let done: raftkeel::ffi::tickets::keel_done_fn = match told {
            true => Some(host::done),
            false => None,
        };
        let code = call(done, arg);
        w.check(name, code);
        if let Some((accepted, _)) = w.requests.borrow_mut().get_mut(arg as usize) {
            *accepted = code == KEEL_OK && told;
        }
    }

    fn change_members(&self) {
        let w = self.world;
        let k = self.k.get();
        let meta = [1; 3];
        let peer = w.peer(b"10.0.0.9:7000\0", &meta);
        let peer = match w.odd(0) {
            0 => &raw const peer,
            _ => null(),
        };
        let id = w.id();
        // SAFETY: the engine is alive or NULL, and what is pointed to lives here.
        match w.below(6) {
            0 => self.request("add", |f, arg| unsafe { keel_node_add(k, peer, f, arg) }),
            1 => self.request("promote", |f, arg| unsafe {
                keel_node_promote(k, id, f, arg)
            }),
            2 => self.request("remove", |f, arg| unsafe {
                keel_node_remove(k, id, f, arg)
            }),
            3 => self.request("exclude", |f, arg| unsafe {
                keel_node_exclude(k, id, f, arg)
            }),
            4 => self.request("readmit", |f, arg| unsafe {
                keel_node_readmit(k, id, f, arg)
            }),
            _ => self.request("replace", |f, arg| unsafe {
                keel_node_replace(k, id, peer, f, arg)
            }),
        }
    }

    fn ask_for(&self) {
        let w = self.world;
        let k = self.k.get();
        let id = w.id();
        // SAFETY: the engine is alive or NULL, and what is pointed to lives here.
        match w.below(8) {
            0..3 => {
                let data = vec![7; w.below(200) as usize];
                let pointer = if w.odd(0) == 0 { data.as_ptr() } else { null() };
                self.request("propose", |f, arg| unsafe {
                    keel_propose(k, pointer.cast(), data.len(), f, arg)
                });
            }
            3 => self.request("barrier", |f, arg| unsafe { keel_barrier(k, f, arg) }),
            4 => self.request("transfer", |f, arg| unsafe { keel_transfer(k, id, f, arg) }),
            5 => self.request("snapshot", |f, arg| unsafe { keel_snapshot(k, f, arg) }),
            6 => {
                let params = w.params();
                self.request("params", |f, arg| unsafe {
                    keel_set_params(k, &params, f, arg)
                });
            }
            _ => {
                let priority = w.odd(w.below(4)) as c_int;
                w.check("keel_set_eligible", unsafe {
                    keel_set_eligible(k, priority)
                });
            }
        }
    }

    /// Messages that are doubled, old, cut, garbled, or none.
    fn post(&self) {
        let w = self.world;
        let letter = {
            let mail = w.mail.borrow();
            let at = w.below(16) as usize;
            mail.get(at).cloned()
        };
        let (from, mut bytes) = match letter {
            Some(letter) => (letter.from, letter.bytes),
            None => (w.id(), w.rng.borrow_mut().bytes(40)),
        };
        match w.below(8) {
            0 => bytes.truncate(w.below(bytes.len() as u64 + 1) as usize),
            1 => {
                let at = w.below(bytes.len().max(1) as u64) as usize;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << w.below(8);
                }
            }
            2 => {
                // SAFETY: the engine is alive or NULL, here and below; of too many bytes none is read.
                let code =
                    unsafe { keel_recv(self.k.get(), from, bytes.as_ptr().cast(), usize::MAX) };
                w.check("keel_recv", code);
            }
            // SAFETY: as above.
            3 => w.check("keel_heard", unsafe { keel_heard(self.k.get(), w.id()) }),
            // SAFETY: as above.
            4 => w.check("keel_lost", unsafe { keel_lost(self.k.get(), w.id()) }),
            5 => bytes.clear(),
            _ => {}
        }
        self.receive(w.odd(from), &bytes);
    }

    fn snapshots(&self) {
        let w = self.world;
        let status = if w.below(4) == 0 { -1 } else { KEEL_OK };
        let save = self.saves.borrow().first().copied().unwrap_or(null_mut());
        let load = self.loads.borrow().first().copied().unwrap_or(null_mut());
        // SAFETY: neither has been finished yet, or it is NULL; so many bytes are there.
        match w.below(4) {
            0 => {
                let data = vec![3; w.below(100) as usize];
                let pointer = if w.odd(0) == 0 { data.as_ptr() } else { null() };
                let code = unsafe { keel_save_write(save, pointer.cast(), data.len()) };
                w.check("keel_save_write", code);
            }
            1 => {
                if !save.is_null() {
                    self.saves.borrow_mut().remove(0);
                }
                w.check("keel_save_finish", unsafe {
                    keel_save_finish(save, status)
                });
            }
            2 => {
                let mut buf = vec![0u8; w.below(100) as usize];
                let mut got = 0;
                let out = if w.odd(0) == 0 {
                    &raw mut got
                } else {
                    null_mut()
                };
                let code = unsafe { keel_load_read(load, buf.as_mut_ptr().cast(), buf.len(), out) };
                w.check("keel_load_read", code);
                w.expect(got <= buf.len(), || format!("{got} bytes read"));
            }
            _ => {
                if !load.is_null() {
                    self.loads.borrow_mut().remove(0);
                }
                w.check("keel_load_finish", unsafe {
                    keel_load_finish(load, status)
                });
            }
        }
    }

    fn query(&self) {
        let w = self.world;
        let k = self.k.get();
        let mut params = no_params();
        let (mut id, mut term, mut address) = (0, 0, [1 as c_char; 300]);
        let cap = w.below(300) as usize;
        // SAFETY: the engine is alive or NULL, and what is pointed to lives here.
        unsafe {
            w.check("keel_role", keel_role(k).min(0));
            w.check(
                "keel_check_epoch",
                keel_check_epoch(k, w.id(), w.odd(keel_epoch(k))),
            );
            w.check("keel_lease_ms", keel_lease_ms(k).min(0));
            let timeout = keel_timeout_ms(k);
            w.expect(timeout >= -1, || format!("keel_timeout_ms: {timeout}"));
            let code = keel_find_leader(k, &mut id, &mut term, address.as_mut_ptr(), cap);
            w.check("keel_find_leader", code);
            w.check("keel_get_params", keel_get_params(k, &mut params));
            w.expect(!keel_strerror(w.number() as c_int).is_null(), || {
                "no text of a code".to_owned()
            });
        }
        w.expect(address[cap..].iter().all(|byte| *byte == 1), || {
            "written beyond the room".to_owned()
        });
    }

    fn look(&self) {
        let w = self.world;
        let mut status = null_mut();
        // SAFETY: the engine is alive or NULL; the status lives until it is freed, or is NULL.
        unsafe {
            let code = keel_status_take(self.k.get(), &mut status);
            w.check("keel_status_take", code);
            w.expect((code == KEEL_OK) != status.is_null(), || {
                "no status".to_owned()
            });
            let there = !status.is_null();
            let count = keel_status_count(status);
            let at = w.odd(w.below(6)) as usize;
            let node = keel_status_node(status, at);
            let right = node.is_null() != (at < count)
                && keel_status_info(status).is_null() != there
                && keel_status_metrics(status).is_null() != there
                && keel_status_json(status).is_null() != there;
            w.expect(right, || format!("node {at} of {count}: {node:?}"));
            if there {
                let first = *keel_status_json(status) as u8;
                w.expect(first == b'{', || format!("JSON begins with {first}"));
            }
            keel_status_free(status);
        }
    }
}
