//! The memory of all that ever stood in a log, and of all that was ever committed.

use std::sync::Arc;

use raftkeel::core::{Configuration, Entry, Index, NodeId, Payload, Term};

use super::outline::Outline;
use crate::host::proposal_of;
use crate::trace::hash_payload;

/// An entry that stood in some log, known by its index and term.
pub struct Record {
    pub term: Term,
    /// Term of the entry before it.
    pub before: Term,
    /// Hash of what it holds.
    pub payload: u64,
    pub weight: usize,
    /// Whose proposal it is; 0 for nobody's.
    pub proposal: u64,
    pub config: Option<Arc<Configuration>>,
}

/// Every entry that ever stood in a log.
#[derive(Default)]
pub struct Ghost {
    /// By index, from 1; nearly always one of them.
    records: Vec<Vec<Record>>,
}

impl Ghost {
    pub fn get(&self, index: Index, term: Term) -> Option<&Record> {
        let place = (index as usize).checked_sub(1)?;
        self.records.get(place)?.iter().find(|r| r.term == term)
    }

    /// Takes an entry in that stands in the log of a node after one of term `before`; whether it
    /// was not known.
    pub fn note(&mut self, id: NodeId, entry: &Entry, before: Term) -> bool {
        let payload = hash_payload(&entry.payload);
        let place = entry.index as usize - 1;
        while self.records.len() <= place {
            self.records.push(Vec::new());
        }
        let records = &mut self.records[place];
        if let Some(known) = records.iter().find(|r| r.term == entry.term) {
            log_matching(id, entry, known, before, payload);
            return false;
        }
        records.push(Record {
            term: entry.term,
            before,
            payload,
            weight: entry.payload.weight(),
            proposal: proposal_of(&entry.payload).unwrap_or(0),
            config: match &entry.payload {
                Payload::Config(config, _) => Some(config.clone()),
                _ => None,
            },
        });
        true
    }

    /// Whether an entry is the one that is known by its index and term.
    pub fn is_same(&self, entry: &Entry) -> bool {
        let known = self.get(entry.index, entry.term);
        known.is_some_and(|r| r.payload == hash_payload(&entry.payload))
    }
}

/// I5, over all of history: an index and a term name one entry, and one before it, and so on down
/// to the first.
fn log_matching(id: NodeId, entry: &Entry, known: &Record, before: Term, payload: u64) {
    let (index, term) = (entry.index, entry.term);
    assert!(
        known.payload == payload,
        "I5: {id} has another payload in entry {index}.{term} than was there before"
    );
    assert!(
        known.before == before,
        "I5: {id} has {index}.{term} after an entry of term {before}, it stood after one of \
         term {}",
        known.before
    );
}

/// Who led a term.
pub struct Led {
    pub id: NodeId,
    /// The leader's log, as long as it led.
    pub log: Outline,
}

/// An entry that somebody knew to be committed.
pub struct Committed {
    pub term: Term,
    /// Term of the server that knew it first.
    pub by_term: Term,
    /// What the state of a host is that has applied all up to it.
    pub state: u64,
}

/// A majority of the voters, and of the outgoing ones if there are any. Counted here on its own,
/// not with the core's functions.
pub fn is_quorum(config: &Configuration, member: impl Fn(NodeId) -> bool) -> bool {
    let most = |list: &[NodeId]| 2 * list.iter().filter(|id| member(**id)).count() > list.len();
    most(&config.voters) && (config.outgoing.is_empty() || most(&config.outgoing))
}

/// The largest value that a quorum has reached.
pub fn reached(config: &Configuration, value: impl Fn(NodeId) -> u64) -> u64 {
    let voters = config.voters.iter().chain(&config.outgoing);
    let values = voters.map(|id| value(*id));
    let holds = |least: u64| is_quorum(config, |id| value(id) >= least);
    values.filter(|v| holds(*v)).max().unwrap_or(0)
}

/// Whether every quorum of one configuration meets every quorum of the other.
pub fn quorums_meet(a: &Configuration, b: &Configuration) -> bool {
    let mut all: Vec<NodeId> = a.members().chain(b.members()).collect();
    all.sort();
    all.dedup();
    (0..1_u32 << all.len()).all(|set| {
        let inside = |id: NodeId| match all.binary_search(&id) {
            Ok(at) => set >> at & 1 == 1,
            Err(_) => false,
        };
        !is_quorum(a, inside) || !is_quorum(b, |id| !inside(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(voters: &[u64], outgoing: &[u64]) -> Configuration {
        let ids = |raw: &[u64]| raw.iter().filter_map(|r| NodeId::new(*r)).collect();
        Configuration {
            voters: ids(voters),
            outgoing: ids(outgoing),
            ..Configuration::default()
        }
    }

    #[test]
    fn quorums_of_far_configurations_do_not_meet() {
        let (old, new) = (config(&[1, 2, 3], &[]), config(&[3, 4, 5], &[]));
        assert!(!quorums_meet(&old, &new));
        let joint = config(&[3, 4, 5], &[1, 2, 3]);
        assert!(quorums_meet(&old, &joint) && quorums_meet(&joint, &new));
        assert!(quorums_meet(&old, &config(&[1, 2, 3, 4], &[])));
    }

    #[test]
    fn both_halves_must_reach_a_value() {
        let joint = config(&[3, 4, 5], &[1, 2, 3]);
        assert_eq!(2, reached(&joint, |id| id.get()));
        assert_eq!(4, reached(&config(&[3, 4, 5], &[]), |id| id.get()));
    }
}
