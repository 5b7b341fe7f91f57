//! Driving a member: plain steps with the host's time, or behind one descriptor.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::cluster::{Peer, bootstrap_entry};
use crate::core::{Millis, Random};
use crate::storage::{Directory, HostStorage, Identity, Memory, Opened, Options, Storage, Writes};

use super::action::{Action, Answer};
use super::descriptor::Descriptor;
use super::engine::Engine;
use super::shared::{Handle, Shared};
use super::{Error, Host, Input, Place, Settings};

/// Rounds of one driving call: a host that makes a request from every completion is served
/// again by the next call, which is then due at once.
const ROUNDS: usize = 16;

/// The latest time: nobody needs to check whether anything can be added to it. What is beyond is
/// "never" taken for a time.
const TIME_MAX: Millis = i64::MAX as Millis;

/// The time of a driving call. Nothing is handled as of a time before it came, or a voter would give its
/// vote away within the election timeout of having heard a leader, and a leader confirm others who were
/// promised nothing for as long (detection.md 4.7 invariant I1).
enum Clock<'a> {
    /// The host's: what comes to the member from outside after the call began waits for the next one.
    Given(Millis),
    /// Read anew whenever inputs were taken: none of them has come later.
    Read(&'a dyn Fn() -> Millis),
}

impl Clock<'_> {
    fn now(&self) -> Millis {
        match self {
            Clock::Given(now) => *now,
            Clock::Read(read) => read(),
        }
    }
}

/// The driven half of a member: one thread at a time.
pub struct Member {
    engine: Engine,
    shared: Arc<Shared>,
    descriptor: Option<Descriptor>,
    /// What a round works on; empty between rounds, its memory is kept.
    inputs: VecDeque<Input>,
    /// Whether the host's own steps have driven it.
    stepped: bool,
}

impl Member {
    /// Opens the node's storage, or makes it.
    pub fn new(settings: Settings, place: Place) -> Result<(Member, Handle), Error> {
        settings.validate()?;
        let Found {
            opened,
            storage,
            writes,
        } = open(&settings, place)?;
        let (id, cluster, queue_max) = (settings.id, settings.cluster, settings.queue_max);
        let shared = Shared::new(id, cluster, queue_max, writes);
        let shared = Arc::new(shared);
        let handle = Handle {
            shared: shared.clone(),
        };
        let mut member = Member {
            engine: Engine::new(settings, opened, storage, shared.clone())?,
            shared,
            descriptor: None,
            inputs: VecDeque::new(),
            stepped: false,
        };
        member.publish();
        Ok((member, handle))
    }

    /// The first start of a cluster: every first member is given the same list. Durable when it
    /// returns `Ok`, with the host's storage when that says so. `Exists` if this node holds a log already; `Invalid` changes nothing.
    pub fn bootstrap(&mut self, peers: &[Peer]) -> Result<(), Error> {
        self.check_alive()?;
        let settings = &self.engine.settings;
        if !peers.iter().any(|m| m.id == settings.id) {
            let text = format!(
                "{} is not among the members of its own cluster",
                settings.id
            );
            return Err(Error::Invalid(text));
        }
        let entry = bootstrap_entry(peers, &settings.params)?;
        self.engine.bootstrap(entry)?;
        self.shared.wake();
        Ok(())
    }

    /// Drives the member: takes the inputs queued so far, does what is due at `now`, and tells
    /// the host. `now` never goes back, and stays under 2^63; it is to be read directly before, for what
    /// came in between is handled as if it had come at `now`. What the host asks for during the call is
    /// done in it; what comes from outside waits for the next one, which is due at once then. Returns when
    /// to call again at the latest.
    pub fn step(&mut self, now: Millis, host: &mut dyn Host) -> Result<Millis, Error> {
        if self.descriptor.is_some() {
            let text = "this engine is driven through its descriptor: use keel_dispatch()";
            return Err(Error::State(text.to_owned()));
        }
        self.stepped = true;
        self.drive(Clock::Given(now), host)
    }

    /// A descriptor that is readable whenever [`Member::dispatch`] should be called: inputs and
    /// timers are behind it. It belongs to the member.
    pub fn fd(&mut self) -> Result<RawFd, Error> {
        if self.stepped {
            let text = "this engine is driven by keel_step(): it has no descriptor";
            return Err(Error::State(text.to_owned()));
        }
        if self.descriptor.is_none() {
            // Weak: a forked child that drops the rest closes the descriptor.
            let shared = Arc::downgrade(&self.shared);
            let wake = move || {
                if let Some(shared) = shared.upgrade() {
                    shared.note_written();
                }
            };
            let finished = self.engine.storage.spawn_writer(Arc::new(wake))?;
            self.descriptor = Some(Descriptor::new(&self.shared, finished)?);
        }
        Ok(self.descriptor.as_ref().map_or(-1, Descriptor::fd))
    }

    /// Drives the member with the system's time, which it reads as often as it takes inputs; never blocks
    /// on a peer.
    pub fn dispatch(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        let Some(descriptor) = &mut self.descriptor else {
            let text = "ask for the descriptor first: keel_fd()";
            return Err(Error::State(text.to_owned()));
        };
        let shared = self.shared.clone();
        let driven = shared.drive();
        descriptor.clear()?;
        let due = self.drive(Clock::Read(&Descriptor::now), host)?;
        drop(driven);
        if let Some(descriptor) = &mut self.descriptor {
            descriptor.arm(due)?;
        }
        if self.shared.has_inputs() {
            self.shared.wake();
        }
        Ok(())
    }

    /// Takes the descriptor's readiness away, if there is one.
    pub fn quiet(&mut self) {
        if let Some(descriptor) = &mut self.descriptor {
            // It is only that a dead engine's host is called once more.
            let _ = descriptor.clear();
        }
    }

    /// Why the engine is dead, if it is.
    pub fn stopped(&self) -> Option<&Error> {
        self.engine.stopped.as_ref()
    }

    fn check_alive(&self) -> Result<(), Error> {
        self.engine.stopped.clone().map_or(Ok(()), Err)
    }

    fn drive(&mut self, clock: Clock<'_>, host: &mut dyn Host) -> Result<Millis, Error> {
        self.check_alive()?;
        let now = clock.now();
        self.check_time(now)?;
        if !self.engine.is_open() {
            return self.not_open(now, host);
        }
        self.shared.take_inputs(&mut self.inputs);
        // Whatever the clock does from here on: what was taken must be handled.
        self.engine.begin(clock.now().max(now));
        for round in 1..=ROUNDS {
            self.engine.round(&mut self.inputs);
            self.publish();
            let answered = self.perform(host);
            if self.engine.stopped.is_some() || round == ROUNDS {
                break;
            }
            if !self.take_more(&clock) && !answered {
                break;
            }
        }
        self.engine.conclude();
        self.perform(host);
        if self.engine.holds_nothing_back() {
            self.shared.settle();
        }
        let more = self.shared.has_inputs() || self.engine.has_more();
        let due = self.engine.next_deadline(more);
        self.shared.set_due_at(Some(due));
        self.check_alive()
            .inspect_err(|_| drop(self.shared.close()))?;
        Ok(due)
    }

    fn check_time(&self, now: Millis) -> Result<(), Error> {
        let then = self.engine.now;
        let wrong = match now {
            _ if now < then => format!("time went back from {then} to {now} ms"),
            _ if now > TIME_MAX => format!("no clock has come to {now} ms"),
            _ => return Ok(()),
        };
        Err(Error::Invalid(wrong))
    }

    /// Takes what has come while the host was told, as far as it can be handled in this driving call.
    /// Whether there is anything to be done for it.
    fn take_more(&mut self, clock: &Clock<'_>) -> bool {
        let Clock::Read(read) = clock else {
            return self.shared.take_own_inputs(&mut self.inputs);
        };
        let any = self.shared.has_inputs();
        if any {
            self.shared.take_inputs(&mut self.inputs);
            self.engine.go_on(read().max(self.engine.now));
        }
        any
    }

    /// Nothing happens before this run has its number; what is queued waits for it.
    fn not_open(&mut self, now: Millis, host: &mut dyn Host) -> Result<Millis, Error> {
        self.publish();
        self.perform(host);
        self.check_alive()
            .inspect_err(|_| drop(self.shared.close()))?;
        let due = match self.shared.has_inputs() {
            true => now,
            false => Millis::MAX,
        };
        self.shared.set_due_at(Some(due));
        Ok(due)
    }

    /// Tells the host what the round brought. True if the host's answers need another round.
    fn perform(&mut self, host: &mut dyn Host) -> bool {
        let mut answered = false;
        let mut actions = std::mem::take(&mut self.engine.actions).into_iter();
        // What is on its way to the others need not wait for this node's disk, and its disk not for
        // anything else.
        let mut started = false;
        while let Some(action) = actions.next() {
            if !started && !matches!(action, Action::Send { .. }) {
                self.engine.storage.start();
                started = true;
            }
            match action.perform(host) {
                Answer::Nothing => {}
                Answer::Guard(ids, answer) => {
                    self.engine.guard_answered(&ids, answer);
                    answered = true;
                }
                Answer::ApplyFailed { index, code } => {
                    let text = format!("apply of log entry {index} returned {code}");
                    self.engine.stop(Error::State(text));
                    // What comes after it in the log must not be applied, nor be said.
                    actions = std::mem::take(&mut self.engine.actions).into_iter();
                    self.publish();
                }
            }
        }
        if !started {
            self.engine.storage.start();
        }
        answered
    }

    fn publish(&mut self) {
        let refused = self.shared.set_genesis(self.engine.cluster.genesis());
        self.shared
            .publish(|view| self.engine.publish(view, refused));
    }
}

/// Tells a directory from all others. Not from the seed: one that is made anew must differ from
/// what it was before, whatever the host has set.
fn draw_instance() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| Error::Io(format!("getrandom: {error}")))?;
    // 0 stands for "not registered".
    Ok(u64::from_ne_bytes(bytes).max(1))
}

/// A node's storage, as it was opened.
struct Found {
    opened: Opened,
    storage: Box<dyn Storage>,
    writes: Option<Arc<Writes>>,
}

fn open(settings: &Settings, place: Place) -> Result<Found, Error> {
    let identity = Identity {
        cluster: settings.cluster,
        node: settings.id,
    };
    match place {
        Place::Directory { path, create } => {
            if create {
                Directory::create(&path, &identity, draw_instance()?)?;
            }
            let options = Options {
                tail_bytes: settings.tail_bytes,
                ..Options::default()
            };
            let opened = Directory::open_with(&path, &identity, options);
            let (directory, opened) = opened.map_err(Error::of_opening)?;
            Ok(Found {
                opened,
                storage: Box::new(directory),
                writes: None,
            })
        }
        Place::Host { store, create } => {
            let instance = if create { Some(draw_instance()?) } else { None };
            let (storage, opened, writes) =
                HostStorage::open(store, &identity, instance, settings.tail_bytes)?;
            Ok(Found {
                opened,
                storage: Box::new(storage),
                writes: Some(writes),
            })
        }
        Place::Volatile => {
            // Of the seed, so that a simulation repeats.
            let instance = Random::new(settings.seed ^ settings.id.get())
                .next_u64()
                .max(1);
            let opened = Opened {
                restored: Default::default(),
                incarnation: 1,
                instance,
                torn_bytes: 0,
                meta_repaired: false,
                damaged: Vec::new(),
                lost: None,
            };
            Ok(Found {
                opened,
                storage: Box::new(Memory::new()),
                writes: None,
            })
        }
    }
}

#[cfg(test)]
mod tests;
