//! The network between the servers: a pool of messages that can be cut, held and copied.

use std::collections::{BTreeMap, BTreeSet};

use raftkeel::core::{Message, Millis, NodeId};

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

type Filter = Box<dyn Fn(&Envelope) -> bool>;

/// The pool. Messages of one instant leave it in the order in which they came.
pub struct Network {
    transit: BTreeMap<(Millis, u64), Envelope>,
    serial: u64,
    cuts: BTreeSet<(NodeId, NodeId)>,
    filters: Vec<Filter>,
    held: Vec<Envelope>,
    record: Vec<Envelope>,
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
            record: Vec::new(),
        }
    }

    /// Everything sent since the last call, delivered or not.
    pub fn take_record(&mut self) -> Vec<Envelope> {
        std::mem::take(&mut self.record)
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
    pub fn send(&mut self, now: Millis, envelope: Envelope) {
        self.record.push(envelope.clone());
        if self.cuts.contains(&(envelope.from, envelope.to)) {
            return;
        }
        if self.filters.iter().any(|filter| filter(&envelope)) {
            self.held.push(envelope);
            return;
        }
        self.put(now + 1, envelope);
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
