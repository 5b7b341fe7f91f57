//! Who waits for the completion of which request. Every accepted request is answered exactly
//! once: by the engine, or with CLOSED by whoever closes the table.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::Ticket;

/// Called exactly once for every request that was accepted (the call returned 0), never for one
/// that was not, always inside a driving function or keel_free(). `status` is KEEL_OK or a
/// KEEL_ERR_* code; `index` is the log index of the committed entry, 0 on failure. KEEL_ERR_LOST
/// and KEEL_ERR_CLOSED mean that the outcome is unknown, every other code that it is surely not
/// done. Where one is taken NULL may be given: then nobody is told.
pub type keel_done_fn = Option<unsafe extern "C" fn(arg: *mut c_void, status: c_int, index: u64)>;

/// The host's own pointer. The library only hands it back.
#[derive(Clone, Copy, Debug)]
pub struct UserData(pub *mut c_void);

// SAFETY: the pointer is never looked through here. Where it may be used is between the host and
// itself: the header says in which thread callbacks run.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

/// One waiting completion.
#[derive(Debug)]
pub struct Done {
    call: keel_done_fn,
    arg: UserData,
}

impl Done {
    /// Runs it. By value: nothing can run it twice.
    pub fn run(self, status: c_int, index: u64) {
        if let Some(call) = self.call {
            // SAFETY: the host gave function and argument together for this one call.
            unsafe { call(self.arg.0, status, index) }
        }
    }
}

#[derive(Debug)]
struct Inner {
    open: bool,
    next: u64,
    waiting: BTreeMap<u64, Done>,
}

/// The table of waiting completions. Its lock is never held while one runs.
#[derive(Debug)]
pub struct Tickets(Mutex<Inner>);

impl Tickets {
    /// An open, empty table.
    pub fn new() -> Tickets {
        Tickets(Mutex::new(Inner {
            open: true,
            next: 1,
            waiting: BTreeMap::new(),
        }))
    }

    /// A ticket for a new request; `None` once the table is closed.
    pub fn issue(&self, call: keel_done_fn, arg: *mut c_void) -> Option<Ticket> {
        let mut inner = self.lock();
        if !inner.open {
            return None;
        }
        let number = inner.next;
        inner.next += 1;
        let arg = UserData(arg);
        let before = inner.waiting.insert(number, Done { call, arg });
        assert!(before.is_none(), "a ticket is issued once");
        Some(Ticket(number))
    }

    /// The completion behind a ticket, for the one who gets to run it.
    pub fn take(&self, ticket: Ticket) -> Option<Done> {
        self.lock().waiting.remove(&ticket.0)
    }

    /// No tickets from now on; whatever still waits, oldest first.
    pub fn close(&self) -> Vec<Done> {
        let mut inner = self.lock();
        inner.open = false;
        std::mem::take(&mut inner.waiting).into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Tickets {
    fn default() -> Tickets {
        Tickets::new()
    }
}
