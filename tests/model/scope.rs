//! How much may happen in a search. Every bound is a number of events over a whole history, not at
//! a time, unless it says otherwise.

use raftkeel::core::{Configuration, Index, Term};

use crate::world::n;

/// The bounds of one search.
#[derive(Clone, Debug)]
pub struct Scope {
    pub name: &'static str,
    /// Servers, whether they vote or not.
    pub nodes: u64,
    /// The configuration that all of them hold at the beginning.
    pub first: Configuration,
    /// Whether the first server leads term 2 at the beginning, with its no-op committed.
    pub led: bool,
    /// Whether pre-votes are sent and answered; otherwise all are granted at once, whatever the
    /// others would say.
    pub pre_votes: bool,
    /// Whether writes take time; otherwise they complete at once.
    pub slow_disks: bool,
    /// Newest term that a server may campaign for.
    pub terms: Term,
    /// Longest log that is still added to by proposals and changes of members; no-ops and the
    /// entry that leaves a joint configuration come on top.
    pub entries: Index,
    /// Messages on their way at a time; those beyond are lost, any of them.
    pub messages: usize,
    pub timeouts: u8,
    pub heartbeats: u8,
    pub crashes: u8,
    /// Disks that lose the end of what they hold.
    pub rots: u8,
    /// Messages delivered twice.
    pub copies: u8,
    pub proposals: u8,
    pub changes: u8,
    /// Joint configurations that may be entered.
    pub targets: Vec<Configuration>,
}

impl Scope {
    /// Three voters of which nobody leads, and nothing else happens than the delivery of messages.
    pub fn quiet(name: &'static str) -> Scope {
        Scope {
            name,
            nodes: 3,
            first: configuration(1, &[1, 2, 3], &[], &[]),
            led: false,
            pre_votes: false,
            slow_disks: false,
            terms: 3,
            entries: 4,
            messages: 4,
            timeouts: 0,
            heartbeats: 0,
            crashes: 0,
            rots: 0,
            copies: 0,
            proposals: 0,
            changes: 0,
            targets: Vec::new(),
        }
    }

    /// The same with room for more to happen at once.
    pub fn loosened(&self) -> Scope {
        Scope {
            messages: self.messages + 2,
            crashes: self.crashes + 1,
            copies: self.copies + 1,
            ..self.clone()
        }
    }
}

/// A configuration of these nodes.
pub fn configuration(
    epoch: u64,
    voters: &[u64],
    outgoing: &[u64],
    learners: &[u64],
) -> Configuration {
    let ids = |list: &[u64]| list.iter().map(|raw| n(*raw)).collect();
    Configuration {
        epoch,
        voters: ids(voters),
        outgoing: ids(outgoing),
        learners: ids(learners),
    }
}
