//! What is committed takes effect: on the cluster's state, on this node, and on the host.

use crate::cluster::{Fact, Params};
use crate::core::{Entry, Epoch, Exclusion, Index, NodeId, Payload};

use super::action::Action;
use super::engine::Engine;
use super::{Error, Event};

/// Entries that are taken from the core at once: few, for there must be memory for them.
const APPLY_TOGETHER: usize = 64;

impl Engine {
    /// Applies what is committed; true if there was anything.
    pub fn apply(&mut self) -> bool {
        let mut any = false;
        while self.snapshots.loading.is_none() && self.stopped.is_none() {
            let most = self.apply_left.min(APPLY_TOGETHER);
            let entries = self.raft.take_committed(most).into_owned();
            if entries.is_empty() {
                break;
            }
            any = true;
            self.apply_left -= entries.len();
            self.apply_all(&entries);
        }
        any && self.stopped.is_none()
    }

    fn apply_all(&mut self, entries: &[Entry]) {
        for entry in entries {
            match self.cluster.apply(entry) {
                Ok(facts) => self.applied(entry, facts),
                Err(error) => {
                    let text = format!("log entry {}: {error}", entry.index);
                    return self.stop(Error::Corrupt(text));
                }
            }
        }
    }

    fn applied(&mut self, entry: &Entry, facts: Vec<Fact>) {
        let index = entry.index;
        self.note_applied(entry);
        if let Payload::Host(data) = &entry.payload {
            let (term, data) = (entry.term, data.clone());
            self.actions.push(Action::Apply { index, term, data });
        }
        // What an earlier run has told is no news, and no alarm.
        let news = index > self.replayed_to;
        let mut refused = None;
        for fact in facts {
            if matches!(fact, Fact::Members { .. } | Fact::Params) {
                self.changed_at = index;
            }
            match fact {
                Fact::Excluded { epoch, ids, index } => self.excluded(epoch, ids, index, news),
                Fact::Members { epoch, index } => {
                    self.actions.push(Action::Members { epoch, index });
                }
                Fact::Params => {
                    let params = self.cluster.params().clone();
                    if news {
                        self.warn_of(&params);
                    }
                    self.actions.push(Action::Params(params));
                }
                Fact::ParamsRefused(refusal) => refused = Some(refusal.into()),
                Fact::Registered { id } => self.registered(id),
                Fact::Compact { .. } | Fact::Pieces(_) => self.snapshot_fact(entry, fact),
                Fact::Leads => {}
                _ if !news => {}
                Fact::Readmitted { id } => self.event(Event::Readmitted { id }),
                Fact::Replaced { old, by } => self.event(Event::Replaced { old, by }),
                Fact::Promoted { id } => self.event(Event::Promoted { id }),
                Fact::Added { id } => self.event(Event::Added { id }),
                Fact::Removed { epoch, id, index } => self.removed(epoch, id, index),
                Fact::Bootstrapped => {}
            }
        }
        self.complete(entry, refused);
    }

    /// Settings that are allowed and likely to be regretted.
    fn warn_of(&mut self, params: &Params) {
        for warning in params.warnings() {
            self.log(2, warning);
        }
        let election = self.settings.election;
        let fencetime = params.fencetime_ms(election);
        if params.deadtime_ms() > 0 && fencetime < 2 * election {
            self.log(
                2,
                format!(
                    "fencetime is {fencetime} ms, an election takes up to {} ms: a change of \
                     leader may fence every node for a moment; a longer hb_deadtime or a shorter \
                     election_ms helps",
                    2 * election
                ),
            );
        }
    }

    fn excluded(&mut self, epoch: Epoch, ids: Vec<NodeId>, index: Index, news: bool) {
        if ids.contains(&self.settings.id) {
            self.raft.note_exclusion(Exclusion { epoch, index });
        }
        if news {
            self.log(
                2,
                format!("excluded {ids:?} at epoch {epoch}, log index {index}"),
            );
            let ids = ids.clone();
            self.event(Event::Excluded { epoch, index, ids });
        }
        self.actions.push(Action::Excluded { epoch, ids, index });
    }
}
