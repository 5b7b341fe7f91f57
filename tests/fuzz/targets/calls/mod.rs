//! Calls of the C interface in any order, with odd arguments, from inside callbacks too: on engines
//! that are members of one cluster, of none, dead, or NULL. What the header forbids a host to do, to
//! use what it has freed for instance, is not done.

mod engine;
mod host;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;

use raftkeel::ffi::code::{KEEL_EPOCH_AHEAD, KEEL_ERR_INTERNAL, KEEL_ERR_STALE, KEEL_OK};
use raftkeel::ffi::drive::keel_step;
use raftkeel::ffi::errmsg::keel_errmsg;
use raftkeel::ffi::input::keel_recv;
use raftkeel::ffi::keel::{keel, keel_free};
use raftkeel::ffi::snapshot::{keel_load, keel_load_finish, keel_save, keel_save_finish};

use crate::alloc::measure;
use crate::rng::Rng;

/// The engines that a host may have at a time.
const ENGINES: usize = 4;
/// Calls from callbacks within callbacks.
const DEPTH: u32 = 3;
/// Messages on their way; more are lost.
const MAIL: usize = 256;
/// Far more than so few engines with so little to do need.
const BOUND: usize = 64 << 20;

/// A message from one engine to another.
#[derive(Clone)]
struct Letter {
    from: u64,
    to: u64,
    bytes: Vec<u8>,
}

/// One engine, and what its callbacks are given.
struct Host<'a> {
    world: &'a World<'a>,
    k: Cell<*mut keel>,
    id: u64,
    /// The last index that was applied.
    applied: Cell<u64>,
    saves: RefCell<Vec<*mut keel_save>>,
    loads: RefCell<Vec<*mut keel_load>>,
}

/// Everything there is, and the bytes that decide what happens.
struct World<'a> {
    rng: RefCell<Rng<'a>>,
    mail: RefCell<VecDeque<Letter>>,
    now: Cell<u64>,
    depth: Cell<u32>,
    /// For each request whether it was accepted, and how often it was completed.
    requests: RefCell<Vec<(bool, u32)>>,
    /// What went wrong first. A callback cannot panic.
    wrong: RefCell<Option<String>>,
}

/// Runs what the bytes say.
pub fn calls(data: &[u8]) {
    let world = World {
        rng: RefCell::new(Rng::of(data)),
        mail: RefCell::default(),
        now: Cell::new(1),
        depth: Cell::new(0),
        requests: RefCell::default(),
        wrong: RefCell::default(),
    };
    let ((), usage) = measure(|| world.run());
    assert!(usage.peak <= BOUND, "{usage:?}");
}

impl<'a> World<'a> {
    fn below(&self, end: u64) -> u64 {
        self.rng.borrow_mut().below(end)
    }

    fn number(&self) -> u64 {
        self.rng.borrow_mut().number()
    }

    /// Mostly an id that is in use.
    fn id(&self) -> u64 {
        match self.below(16) {
            15 => self.number(),
            some => some % 6,
        }
    }

    fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        let mut wrong = self.wrong.borrow_mut();
        if !holds && wrong.is_none() {
            *wrong = Some(what());
        }
    }

    /// A code that the header has, and a text for every failure; never a bug of the library.
    fn check(&self, call: &str, code: c_int) {
        let known = (KEEL_ERR_STALE..=KEEL_EPOCH_AHEAD).contains(&code);
        // SAFETY: it is never NULL, and valid until the next failure.
        let text = unsafe { CStr::from_ptr(keel_errmsg()) };
        let good = known && code != KEEL_ERR_INTERNAL && (code >= 0 || !text.is_empty());
        self.expect(good, || format!("{call}: {code}, {text:?}"));
    }

    fn run(&'a self) {
        let mut hosts: Vec<Option<Box<Host<'a>>>> = (0..ENGINES).map(|_| None).collect();
        while !self.rng.borrow().is_done() {
            let place = self.below(ENGINES as u64) as usize;
            match self.below(8) {
                0 => self.replace(&mut hosts[place], place),
                1 => self.free(&mut hosts[place]),
                2 | 3 => self.live(&hosts),
                _ => match &hosts[place] {
                    Some(host) => host.call(),
                    None => self.nobody().call(),
                },
            }
            self.report();
        }
        hosts.iter_mut().for_each(|host| self.free(host));
        self.report();
        for (number, (accepted, completed)) in self.requests.borrow().iter().enumerate() {
            assert_eq!(u32::from(*accepted), *completed, "request {number}");
        }
    }

    fn report(&self) {
        if let Some(wrong) = self.wrong.take() {
            panic!("{wrong}");
        }
    }

    /// Whose engine is NULL.
    fn nobody(&'a self) -> Host<'a> {
        Host {
            world: self,
            k: Cell::new(null_mut()),
            id: 0,
            applied: Cell::new(0),
            saves: RefCell::default(),
            loads: RefCell::default(),
        }
    }

    fn replace(&'a self, place: &mut Option<Box<Host<'a>>>, number: usize) {
        self.free(place);
        let host = Box::new(Host {
            id: number as u64 + 1,
            ..self.nobody()
        });
        if host.make() {
            *place = Some(host);
        }
    }

    fn free(&self, place: &mut Option<Box<Host<'a>>>) {
        let Some(host) = place.take() else {
            return;
        };
        host.finish_all();
        // SAFETY: it is alive, and nobody uses it afterwards.
        let code = unsafe { keel_free(host.k.get()) };
        self.expect(code == KEEL_OK, || format!("keel_free: {code}"));
    }

    /// Lets a while pass in which every engine is driven and most messages arrive.
    fn live(&self, hosts: &[Option<Box<Host<'a>>>]) {
        let step = [1, 10, 100, 2_000][self.below(4) as usize];
        for _ in 0..1 + self.below(48) {
            self.now.set(self.now.get().saturating_add(step));
            for host in hosts.iter().flatten() {
                host.step(self.now.get());
            }
            let mail = self.mail.take();
            mail.into_iter().for_each(|letter| deliver(hosts, &letter));
        }
    }

    /// A request's argument, by which its completion is known.
    fn request(&self) -> *mut c_void {
        let mut requests = self.requests.borrow_mut();
        requests.push((false, 0));
        (requests.len() - 1) as *mut c_void
    }
}

fn deliver(hosts: &[Option<Box<Host<'_>>>], letter: &Letter) {
    let to = hosts.iter().flatten().find(|host| host.id == letter.to);
    if let Some(host) = to {
        host.receive(letter.from, &letter.bytes);
    }
}

impl Host<'_> {
    fn step(&self, now: u64) {
        let mut next = 0;
        // SAFETY: the engine is alive or NULL.
        let code = unsafe { keel_step(self.k.get(), now, &mut next) };
        self.world.check("keel_step", code);
        self.world.expect(code == KEEL_OK || next == u64::MAX, || {
            format!("after {code} the next step is at {next}")
        });
    }

    fn receive(&self, from: u64, bytes: &[u8]) {
        // SAFETY: the engine is alive or NULL.
        let code = unsafe { keel_recv(self.k.get(), from, bytes.as_ptr().cast(), bytes.len()) };
        self.world.check("keel_recv", code);
    }

    /// Before its engine may be freed.
    fn finish_all(&self) {
        for save in self.saves.take() {
            // SAFETY: it has not been finished yet.
            let code = unsafe { keel_save_finish(save, KEEL_OK) };
            self.world.check("keel_save_finish", code);
        }
        for load in self.loads.take() {
            // SAFETY: as above.
            let code = unsafe { keel_load_finish(load, KEEL_OK) };
            self.world.check("keel_load_finish", code);
        }
    }
}
