//! The network between the servers: a pool of messages that can be cut, held, copied, lost,
//! doubled and delayed.

use std::collections::{BTreeMap, BTreeSet};

use raftkeel::core::{Message, Millis, NodeId, Random};

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
}

impl Envelope {
    /// An append that brings entries, as opposed to a heartbeat.
    pub fn has_entries(&self) -> bool {
        matches!(&self.message, Message::Append(a) if !a.entries.is_empty())
    }

    /// Entries or a heartbeat.
    pub fn is_append(&self) -> bool {
        matches!(self.message, Message::Append(_))
    }

    /// An answer to an append.
    pub fn is_append_reply(&self) -> bool {
        matches!(self.message, Message::AppendReply(_))
    }
}

/// Chances in a thousand of what may happen to a message, and its longest delay.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub lost: u64,
    pub doubled: u64,
    pub delay: Millis,
}

type Filter = Box<dyn Fn(&Envelope) -> bool>;

/// The pool. Messages of one instant leave it in the order in which they came.
pub struct Network {
    transit: BTreeMap<(Millis, u64), Envelope>,
    serial: u64,
    cuts: BTreeSet<(NodeId, NodeId)>,
    filters: Vec<Filter>,
    held: Vec<Envelope>,
    record: Option<Vec<Envelope>>,
    faults: Option<Faults>,
}

impl Network {
    /// A network that works and keeps a record of what is sent.
    pub fn new() -> Network {
        Network {
            transit: BTreeMap::new(),
            serial: 0,
            cuts: BTreeSet::new(),
            filters: Vec::new(),
            held: Vec::new(),
            record: Some(Vec::new()),
            faults: None,
        }
    }

    /// Stops recording, which a long run has no use for.
    pub fn forget(&mut self) {
        self.record = None;
    }

    /// Everything sent since the last call, delivered or not.
    pub fn take_record(&mut self) -> Vec<Envelope> {
        self.record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What may happen to messages from now on.
    pub fn set_faults(&mut self, faults: Option<Faults>) {
        self.faults = faults;
    }

    /// Cuts one direction; what is on its way there is lost as well.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
        self.transit.retain(|_, e| (e.from, e.to) != (from, to));
    }

    /// Repairs everything.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Keeps back what the filter matches, from now on.
    pub fn hold(&mut self, filter: impl Fn(&Envelope) -> bool + 'static) {
        self.filters.push(Box::new(filter));
    }

    /// Ends all holds; what was kept back is lost, and handed to the caller.
    pub fn end_holds(&mut self) -> Vec<Envelope> {
        self.filters.clear();
        std::mem::take(&mut self.held)
    }

    /// Takes a message of a server in.
    pub fn send(&mut self, now: Millis, envelope: Envelope, random: &mut Random) {
        if let Some(record) = &mut self.record {
            record.push(envelope.clone());
        }
        if self.cuts.contains(&(envelope.from, envelope.to)) {
            return;
        }
        if self.filters.iter().any(|filter| filter(&envelope)) {
            self.held.push(envelope);
            return;
        }
        let Some(faults) = self.faults else {
            self.put(now + 1, envelope);
            return;
        };
        if random.between(0, 1000) < faults.lost {
            return;
        }
        if random.between(0, 1000) < faults.doubled {
            // A copy may come long after, when everything is different.
            let late = now + 1 + random.between(0, 20 * faults.delay + 1);
            self.put(late, envelope.clone());
        }
        self.put(now + 1 + random.between(0, faults.delay + 1), envelope);
    }

    /// Puts a message into the pool, whatever is cut or held.
    pub fn put(&mut self, at: Millis, envelope: Envelope) {
        self.serial += 1;
        self.transit.insert((at, self.serial), envelope);
    }

    /// The next message that is due.
    pub fn next_due(&mut self, now: Millis) -> Option<Envelope> {
        let (key, _) = self.transit.first_key_value()?;
        if key.0 > now {
            return None;
        }
        self.transit.pop_first().map(|(_, envelope)| envelope)
    }
}
