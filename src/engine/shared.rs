//! The half of a member that any thread may use: the input queue and the published view.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::core::{Millis, NodeId};
use crate::panics::lock;
use crate::storage::{HostCode, OutOfOrder, Writes};
use crate::wire::{self, WireError};

use super::descriptor::Descriptor;
use super::reserve::Reserve;
use super::{Error, Input, View};

/// Bytes of packets and proposals that may wait for the next driving call.
const QUEUE_BYTES: usize = 64 << 20;

/// A packet of so many bytes at most is taken whatever memory is left.
const SMALL: usize = 4096;

/// Inputs that there is always room for: see [`Shared::tell`].
const TOLD: usize = 4;

/// What both halves hold.
pub(super) struct Shared {
    pub id: NodeId,
    pub cluster: u64,
    queue_max: usize,
    queue: Mutex<Queue>,
    view: Mutex<View>,
    /// Makes the descriptor readable; set when the member is driven through one.
    pub waker: OnceLock<mio::Waker>,
    /// The descriptor once more, to be asked whether it is readable.
    pub registry: OnceLock<mio::Registry>,
    /// What the host reports of its storage, if it keeps the node's state.
    writes: Option<Arc<Writes>>,
    /// Memory for what is taken in.
    reserve: Reserve,
    /// Storage has finished a write or a task since a round last began.
    written: AtomicBool,
    /// A driving call through the descriptor is under way: it sees what comes meanwhile.
    driven: AtomicBool,
}

/// As long as it lives nobody is woken; see [`Shared::drive`].
pub(super) struct Driven<'a>(&'a AtomicBool);

impl Drop for Driven<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Queue {
    inputs: VecDeque<Input>,
    /// Bytes that the inputs hold.
    bytes: usize,
    closed: bool,
    /// Packets and bytes refused or taken, counted where it happens.
    refused: Refused,
    genesis: u64,
    due_at: Option<Millis>,
}

/// Counters of the receiving side.
#[derive(Clone, Copy, Default)]
pub(super) struct Refused {
    pub malformed: u64,
    pub foreign: u64,
    pub full: u64,
    pub skipped: u64,
    pub packets: u64,
    pub bytes: u64,
}

impl Shared {
    pub fn new(id: NodeId, cluster: u64, queue_max: usize, writes: Option<Arc<Writes>>) -> Shared {
        Shared {
            id,
            cluster,
            queue_max,
            queue: Mutex::default(),
            view: Mutex::default(),
            waker: OnceLock::new(),
            registry: OnceLock::new(),
            writes,
            reserve: Reserve::default(),
            written: AtomicBool::new(false),
            driven: AtomicBool::new(false),
        }
    }

    /// Queues an input that holds so many bytes; `count` runs only if that succeeds, in the same
    /// critical section.
    fn enqueue(
        &self,
        input: Input,
        bytes: usize,
        count: impl FnOnce(&mut Refused),
    ) -> Result<(), Error> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(Error::Closed);
        }
        let long = queue.inputs.len() >= self.queue_max;
        // One input is always taken, or a large one could never be.
        let heavy = queue.bytes + bytes > QUEUE_BYTES && !queue.inputs.is_empty();
        if long || heavy {
            queue.refused.full += u64::from(matches!(input, Input::Packet(_)));
            return Err(Error::Full);
        }
        // And some for what must not be refused.
        if queue.inputs.try_reserve(1 + TOLD).is_err() {
            return Err(Error::NoMemory("no memory for one more input".to_owned()));
        }
        count(&mut queue.refused);
        let first = queue.inputs.is_empty();
        queue.inputs.push_back(input);
        queue.bytes += bytes;
        self.reserve.admitted(bytes);
        drop(queue);
        if first {
            self.wake();
        }
        Ok(())
    }

    /// Whether there is memory for so many bytes more, and for what they bring about.
    fn spare(&self, bytes: usize) -> Result<(), Error> {
        match self.reserve.admits(bytes) {
            true => Ok(()),
            false => Err(Error::NoMemory("no memory for one more input".to_owned())),
        }
    }

    /// Nothing waits for the engine to go on with it; what is queued may.
    pub fn settle(&self) {
        if !self.reserve.is_settled() {
            let queue = lock(&self.queue);
            if queue.inputs.is_empty() {
                self.reserve.settle();
            }
        }
    }

    /// Queues what must not be refused, and of which there is never much: the end of something that
    /// the engine itself began. A closed engine does not want it any more.
    pub fn tell(&self, input: Input) {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return;
        }
        queue.inputs.push_back(input);
        drop(queue);
        self.wake();
    }

    /// Storage has finished a write or a task: a driving call is due.
    pub fn note_written(&self) {
        // Before `driven` is looked at, as in `drive` after it was changed.
        self.written.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Spares those who come while the member is driven a wake-up, the host's callbacks above all.
    /// Whoever drives it must look for inputs once this has ended.
    pub fn drive(&self) -> Driven<'_> {
        self.driven.store(true, Ordering::SeqCst);
        Driven(&self.driven)
    }

    /// Makes the descriptor readable, if there is one and nobody is at it. Failing that, its timer
    /// will.
    pub fn wake(&self) {
        if self.driven.load(Ordering::SeqCst) {
            return;
        }
        if let Some(waker) = self.waker.get() {
            let _ = waker.wake();
        }
    }

    fn receive(&self, from: Option<NodeId>, bytes: &[u8]) -> Result<(), Error> {
        // A small one brings what was promised to those who wait, or says that its sender is alive.
        if bytes.len() > SMALL {
            self.spare(bytes.len())?;
        }
        let packet = match wire::decode(bytes) {
            Ok(packet) => packet,
            Err(WireError::NoMemory) => {
                let text = format!("no memory for a message of {} bytes", bytes.len());
                return Err(Error::NoMemory(text));
            }
            Err(error) => {
                lock(&self.queue).refused.malformed += 1;
                self.notice_newer(&error, bytes);
                return Err(Error::Malformed(error.to_string()));
            }
        };
        if let Err(why) = self.admit(from, &packet.header) {
            lock(&self.queue).refused.foreign += 1;
            return Err(Error::Foreign(why));
        }
        let skipped = u64::from(packet.skipped);
        self.enqueue(Input::Packet(packet), bytes.len(), |counters| {
            counters.skipped += skipped;
            counters.packets += 1;
            counters.bytes += bytes.len() as u64;
        })
    }

    /// A log entry of an unknown kind is never skipped: this node stays where it is until a newer
    /// version runs on it, and somebody must be told (raft.md rule 59).
    fn notice_newer(&self, error: &WireError, bytes: &[u8]) {
        let newer = matches!(error, WireError::UnknownKind { .. });
        let Some(header) = wire::peek(bytes).ok().filter(|_| newer) else {
            return;
        };
        if self.admit(None, &header).is_ok() {
            // If the queue is full the next one will be told: its sender sends it again.
            let _ = self.enqueue(Input::Newer(header.from), 0, |_| ());
        }
    }

    /// Whether a packet is meant for this node of this cluster, and is its sender's.
    fn admit(&self, from: Option<NodeId>, header: &wire::Header) -> Result<(), String> {
        let genesis = lock(&self.queue).genesis;
        if header.cluster != self.cluster {
            return Err(format!(
                "message of cluster {}, this is cluster {}",
                header.cluster, self.cluster
            ));
        }
        if header.genesis != 0 && genesis != 0 && header.genesis != genesis {
            return Err(format!(
                "{} was bootstrapped with other members or settings than this node",
                header.from
            ));
        }
        if header.to != self.id {
            return Err(format!("message for {}, this is {}", header.to, self.id));
        }
        if header.from == self.id {
            return Err("message from this node's own id".to_owned());
        }
        match from {
            Some(from) if from != header.from => {
                Err(format!("message of {} came from {from}", header.from))
            }
            _ => Ok(()),
        }
    }

    /// Everything queued so far, in exchange for an empty queue, whose memory is used again.
    pub fn take_inputs(&self, inputs: &mut VecDeque<Input>) {
        assert!(inputs.is_empty(), "inputs would be queued again");
        self.written.store(false, Ordering::Release);
        let mut queue = lock(&self.queue);
        queue.bytes = 0;
        std::mem::swap(&mut queue.inputs, inputs);
    }

    /// The same, but only of what the host itself asks for and reports; the rest stays queued, in its
    /// order. False if there is nothing to be done: neither that, nor a write of the host's that has come to
    /// its end.
    pub fn take_own_inputs(&self, inputs: &mut VecDeque<Input>) -> bool {
        assert!(inputs.is_empty(), "inputs would be queued again");
        let reports = |writes: &Arc<Writes>| writes.has_reports();
        let written = self.writes.as_ref().is_some_and(reports);
        let mut queue = lock(&self.queue);
        let own = queue.inputs.iter().filter(|i| !i.is_from_outside()).count();
        // What there is no memory for is taken by the next driving call.
        if own == 0 || inputs.try_reserve(own).is_err() {
            return written;
        }
        for _ in 0..queue.inputs.len() {
            let Some(input) = queue.inputs.pop_front() else {
                break;
            };
            match input.is_from_outside() {
                true => queue.inputs.push_back(input),
                false => {
                    queue.bytes -= input.weight();
                    inputs.push_back(input);
                }
            }
        }
        true
    }

    /// Whether a driving call would find anything. Before the storage is open it takes no inputs.
    pub fn has_inputs(&self) -> bool {
        match &self.writes {
            _ if self.written.load(Ordering::SeqCst) => true,
            Some(writes) if writes.has_reports() => true,
            Some(writes) if !writes.is_open() => false,
            _ => !lock(&self.queue).inputs.is_empty(),
        }
    }

    fn write_done(&self, batch: u64, result: Result<(), HostCode>) -> Result<(), Error> {
        let Some(writes) = &self.writes else {
            let text = "this engine does not store with the host";
            return Err(Error::State(text.to_owned()));
        };
        match writes.report(batch, result) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(OutOfOrder { next: Some(next) }) => Err(Error::Invalid(format!(
                "batch {batch} is not the one to be reported now: that is {next}"
            ))),
            Err(OutOfOrder { next: None }) => {
                let text = format!("batch {batch} is not under way, and none is");
                Err(Error::Invalid(text))
            }
        }
    }

    /// Takes no more inputs; those queued are returned.
    pub fn close(&self) -> VecDeque<Input> {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        std::mem::take(&mut queue.inputs)
    }

    /// Tells the receiving side which cluster this is; its counters so far are returned.
    pub fn set_genesis(&self, genesis: u64) -> Refused {
        let mut queue = lock(&self.queue);
        queue.genesis = genesis;
        queue.refused
    }

    pub fn set_due_at(&self, due_at: Option<Millis>) {
        lock(&self.queue).due_at = due_at;
    }

    pub fn due_at(&self) -> Option<Millis> {
        lock(&self.queue).due_at
    }

    /// Changes the published view in one piece.
    pub fn publish(&self, change: impl FnOnce(&mut View)) {
        change(&mut lock(&self.view));
    }

    pub fn view<R>(&self, read: impl FnOnce(&View) -> R) -> R {
        read(&lock(&self.view))
    }
}

/// Inputs and questions, from any thread; outlives the member.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// Queues an input for the next driving call. `Full`, `NoMemory` or `Closed`: nothing happened.
    pub fn submit(&self, input: Input) -> Result<(), Error> {
        let bytes = input.weight();
        self.shared.enqueue(input, bytes, |_| ())
    }

    /// Whether there is memory for a proposal of so many bytes: to be asked before it is copied.
    /// `NoMemory`.
    pub fn spare(&self, bytes: usize) -> Result<(), Error> {
        self.shared.spare(bytes)
    }

    /// Checks a message and queues it. `from` is the sender as the transport knows it, `None` to
    /// believe the message. `Malformed`, `Foreign`, `Full`, `NoMemory`, `Closed`: nothing happened.
    pub fn receive(&self, from: Option<NodeId>, bytes: &[u8]) -> Result<(), Error> {
        self.shared.receive(from, bytes)
    }

    /// Makes the member's descriptor readable, if it has one.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// The host's storage has finished a batch, or failed to: `Invalid` unless it is the oldest one
    /// under way, and then nothing happened; `State` if the node's state is kept elsewhere.
    pub fn write_done(&self, batch: u64, result: Result<(), HostCode>) -> Result<(), Error> {
        self.shared.write_done(batch, result)
    }

    /// Reads the view as of the end of the last round of a driving call.
    pub fn view<R>(&self, read: impl FnOnce(&View) -> R) -> R {
        self.shared.view(read)
    }

    /// How long this node may still serve unheard: `None` without limit, 0 when fenced. Behind a
    /// descriptor it runs down between driving calls, so that a worker thread is not misled by a
    /// driving thread that hangs; with the host's own steps it is as of the last one.
    pub fn lease_ms(&self) -> Option<Millis> {
        let (lease, at) = self.shared.view(|view| (view.info.lease, view.at));
        let passed = match self.shared.waker.get() {
            Some(_) => Descriptor::now().saturating_sub(at),
            None => 0,
        };
        lease.map(|ms| ms.saturating_sub(passed))
    }

    /// How long the descriptor will stay quiet, in milliseconds; 0 when a driving call is due.
    /// `None` for a member that is not driven through a descriptor.
    pub fn timeout_ms(&self) -> Option<Millis> {
        self.shared.waker.get()?;
        if self.shared.has_inputs() {
            return Some(0);
        }
        let due = self.shared.due_at().unwrap_or(0);
        let left = due.saturating_sub(Descriptor::now());
        let readable = || {
            let registry = self.shared.registry.get();
            registry.is_some_and(Descriptor::is_readable)
        };
        // One system call, and none if it is due anyway.
        Some(if left > 0 && readable() { 0 } else { left })
    }
}
