//! Handing out what is committed, also what is not in memory any more (raft.md rules 25, 36).

use std::borrow::Cow;
use std::collections::VecDeque;

use super::raft::Raft;
use super::types::{Ask, Entry, Index, Millis, NodeId};

/// Entries to be applied that come from storage.
#[derive(Clone, Debug, Default)]
pub(super) enum Fetched {
    /// None are needed.
    #[default]
    No,
    /// They were asked for.
    Asked,
    /// They could not be read, and are asked for again at this time.
    Failed(Millis),
    /// They are here; the first one is the next to be applied.
    Here(VecDeque<Entry>),
}

impl Fetched {
    /// A snapshot was installed: what is here, or could not be read, is not what is applied next.
    pub fn forget(&mut self) {
        if cfg!(keel_bug = "fetched_outlives_snapshot") {
            return;
        }
        if let Fetched::Here(_) | Fetched::Failed(_) = self {
            *self = Fetched::No;
        }
    }
}

impl Raft {
    /// The last entry that may be handed out now: committed, durable on this server as well, and
    /// not while the host is loading a state of its own.
    fn ready(&self) -> Index {
        let loading = self.incoming.as_ref().is_some_and(|i| i.installing);
        let loading = loading && !cfg!(keel_bug = "apply_while_loading");
        match self.poisoned || loading {
            true => self.handed,
            false if cfg!(keel_bug = "apply_before_durable") => self.commit,
            false => self.commit.min(self.log.durable()),
        }
    }

    /// Whether [`Raft::take_committed`] has anything, or would ask for it.
    pub fn has_committed(&self) -> bool {
        let next = self.handed + 1;
        let waits = matches!(self.fetched, Fetched::Asked | Fetched::Failed(_));
        self.ready() >= next && (next >= self.log.first_in_memory() || !waits)
    }

    /// Committed entries not handed out before, durable on this server as well; as they are in the
    /// log, or as they were fetched. What is not in memory is asked for instead.
    pub fn take_committed(&mut self, most: usize) -> Cow<'_, [Entry]> {
        let ready = self.ready();
        if ready <= self.handed {
            return Cow::Borrowed(&[]);
        }
        let most = most.min((ready - self.handed) as usize);
        let first = self.handed + 1;
        if first < self.log.first_in_memory() {
            let entries = self.take_fetched(first, ready, most);
            self.handed += entries.len() as Index;
            return Cow::Owned(entries);
        }
        self.handed += most as Index;
        Cow::Borrowed(&self.log.from(first)[..most])
    }

    fn take_fetched(&mut self, first: Index, ready: Index, most: usize) -> Vec<Entry> {
        let ask = match &mut self.fetched {
            Fetched::Here(entries) => {
                let taken = entries.drain(..most.min(entries.len())).collect();
                if entries.is_empty() {
                    self.fetched = Fetched::No;
                }
                return taken;
            }
            Fetched::No => true,
            Fetched::Asked => false,
            Fetched::Failed(again) => self.now >= *again,
        };
        if ask {
            self.fetched = Fetched::Asked;
            self.asks.push(Ask::Entries {
                to: None,
                first,
                last: ready.min(self.log.first_in_memory() - 1),
                bytes: self.options.batch_bytes,
            });
        }
        Vec::new()
    }

    /// When entries to be applied are to be asked for again; not as long as none may be applied.
    pub(super) fn fetch_due(&self) -> Millis {
        match self.fetched {
            Fetched::Failed(again) if self.ready() > self.handed => again,
            _ => Millis::MAX,
        }
    }

    /// Storage has answered [`Ask::Entries`]: with entries from `first` on, at least one; or with
    /// an error, and then it is asked again later and nothing is sent or applied meanwhile.
    pub fn fetched(
        &mut self,
        now: Millis,
        to: Option<NodeId>,
        first: Index,
        entries: Result<Vec<Entry>, ()>,
    ) {
        self.observe(now);
        let current = entries.as_ref().is_ok_and(|e| self.are_current(first, e));
        match to {
            // Whoever asked was deposed, perhaps, and they were replaced.
            Some(to) if !current => self.fetched_for(to, first, Err(())),
            Some(to) => self.fetched_for(to, first, entries),
            None => {
                assert!(
                    current || entries.is_err(),
                    "storage gave other entries from {first} on than the log holds"
                );
                self.fetched_to_apply(first, entries);
            }
        }
    }

    /// Whether these are the log's entries from `first` on, as far as it was not compacted.
    fn are_current(&self, first: Index, entries: &[Entry]) -> bool {
        assert!(!entries.is_empty(), "nothing was fetched, and no error");
        let base = self.log.base().index;
        (first..).zip(entries).all(|(index, entry)| {
            assert_eq!(index, entry.index, "what is fetched is contiguous");
            index < base || self.log.term(index) == Some(entry.term)
        })
    }

    fn fetched_to_apply(&mut self, first: Index, entries: Result<Vec<Entry>, ()>) {
        let asked = matches!(self.fetched, Fetched::Asked);
        if !asked || self.poisoned {
            return;
        }
        self.fetched = match entries {
            // A snapshot was installed meanwhile.
            _ if first != self.handed + 1 => Fetched::No,
            Ok(entries) => Fetched::Here(entries.into()),
            Err(()) => Fetched::Failed(self.now + self.options.heartbeat),
        };
    }

    /// Keeps what is in memory within its bound. Moving what stays costs as much as there is of it,
    /// so it waits until as much again can go.
    pub(super) fn keep_tail(&mut self) {
        let most = self.options.tail_bytes;
        if self.log.bytes_in_memory() > 2 * most {
            let upto = self.commit.min(self.log.durable());
            self.log.forget(upto, most);
        }
    }
}
