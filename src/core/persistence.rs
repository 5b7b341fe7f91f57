//! Nothing leaves before what it depends on is durable (raft.md rules 2, 3, 27 to 30).
//!
//! What an input changes is staged; [`Raft::take_persist`] hands all of it out as one write, and
//! what must wait for it is kept with its token. Completions come in the order of the writes.
//!
//! On a full disk entries wait and hard state does not: [`Raft::take_hard`] hands out that alone, and a
//! write whose entries found no room is given back by [`Raft::held_back`]. Votes and terms depend on
//! hard state only; what is acknowledged is what is durable, whenever it is said.

use super::log::copied;
use super::message::{AppendOutcome, AppendReply, Message};
use super::raft::{Raft, Role};
use super::read::Reads;
use super::types::{Entry, Index, Millis, NodeId, Payload, Persist, Snapshot, Term, Token};

/// Bytes of entries in one write, counted by [`Payload::weight`]; a larger one is written alone. What a
/// disk without room has held back must not need more room at once than was ever made for it.
const PERSIST_BYTES: usize = 2 << 20;

/// Something that may happen only after a write.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Say this, unless the term has changed since.
    Send(NodeId, Term, Box<Message>),
    /// Tell the leader of this term how much is durable.
    Acknowledge { to: NodeId, term: Term, seq: u64 },
    /// Count the vote for oneself and ask for the others'.
    Campaign(Term),
    /// Have an image made this server's own: its term must not be newer than the hard state's.
    Install(Box<Snapshot>),
}

/// What has changed and was not handed out yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Staged {
    pub hard: bool,
    /// The log was replaced by this snapshot.
    pub reset: Option<Snapshot>,
    /// First index of the entries to write.
    pub first: Option<Index>,
    pub(super) effects: Vec<Effect>,
}

impl Staged {
    /// Waits for what is staged. One acknowledgement answers all appends of a batch.
    pub fn effect(&mut self, effect: Effect) {
        if let Effect::Acknowledge { to, term, seq } = effect {
            for earlier in &mut self.effects {
                if let Effect::Acknowledge {
                    to: t,
                    term: m,
                    seq: s,
                } = earlier
                    && (*t, *m) == (to, term)
                {
                    *s = seq.max(*s);
                    return;
                }
            }
        }
        self.effects.push(effect);
    }
}

/// A write that has been handed out.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub token: Token,
    pub since: Millis,
    pub hard: bool,
    /// As in [`Staged`].
    pub reset: Option<Snapshot>,
    /// As in [`Staged`].
    pub first: Option<Index>,
    /// What of the present log is durable once it completes; a later truncation lowers it.
    pub last: Index,
    pub effects: Vec<Effect>,
}

impl Raft {
    /// Everything that must be written now, as one atomic write; of very many entries the first ones,
    /// and the others with the next call. Entries that there is no memory to hand out wait as well.
    pub fn take_persist(&mut self) -> Option<Persist> {
        if self.poisoned || self.pending.try_reserve(1).is_err() {
            return None;
        }
        if !self.staged.hard && self.staged.first.is_none() && self.staged.reset.is_none() {
            return None;
        }
        let first = self.staged.first.unwrap_or(self.log.last_index() + 1);
        let Some(entries) = copied(self.log.batch(first, PERSIST_BYTES, usize::MAX)) else {
            return self.take_hard();
        };
        let staged = std::mem::take(&mut self.staged);
        let mut last = self.log.last_index();
        if let Some(first) = staged.first {
            last = first - 1 + entries.len() as Index;
            if last < self.log.last_index() {
                self.staged.first = Some(last + 1);
                self.stage_again(&staged.effects);
            }
        }
        Some(self.hand_out(staged, entries, last))
    }

    /// Of what must be written now the hard state alone: there is no room for entries. They stay, and
    /// so does what is to be said of them once they are durable.
    pub fn take_hard(&mut self) -> Option<Persist> {
        if self.poisoned || !self.staged.hard || self.pending.try_reserve(1).is_err() {
            return None;
        }
        let durable = self
            .unwritten()
            .map_or(self.log.last_index(), |first| first - 1);
        let staged = Staged {
            hard: true,
            effects: std::mem::take(&mut self.staged.effects),
            ..Staged::default()
        };
        self.staged.hard = false;
        self.stage_again(&staged.effects);
        Some(self.hand_out(staged, Vec::new(), durable))
    }

    /// Whether the log is to be dropped for a snapshot: that needs little room, and makes some.
    pub fn has_reset(&self) -> bool {
        self.staged.reset.is_some() && !self.poisoned
    }

    /// The first entry that is staged; the first one of all if they follow a reset that is.
    fn unwritten(&self) -> Option<Index> {
        match self.staged.reset {
            Some(_) => Some(self.log.base().index + 1),
            None => self.staged.first,
        }
    }

    /// As long as entries are staged, what tells a leader of them is said once more with them.
    fn stage_again(&mut self, effects: &[Effect]) {
        if self.unwritten().is_none() {
            return;
        }
        for effect in effects {
            if let Effect::Acknowledge { .. } = effect {
                self.staged.effect(effect.clone());
            }
        }
    }

    /// After this write everything up to `last` is durable, if what is under way is before it.
    fn hand_out(&mut self, staged: Staged, entries: Vec<Entry>, last: Index) -> Persist {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.pending.push_back(Pending {
            token,
            since: self.now,
            hard: staged.hard,
            reset: staged.reset.clone(),
            first: staged.first,
            last,
            effects: staged.effects,
        });
        Persist {
            token,
            hard: staged.hard.then_some(self.hard),
            reset: staged.reset,
            entries,
        }
    }

    /// Storage had no room for a write's entries: its hard state is durable, and nothing else of it.
    /// What came after it fares alike, if it builds on those entries.
    pub fn held_back(&mut self, token: Token) {
        if self.poisoned {
            return;
        }
        let pending = self.pending.pop_front();
        let Some(mut pending) = pending.filter(|p| p.token == token) else {
            panic!("write {token:?} was held back out of order");
        };
        self.restage(&mut pending);
        self.stage_again(&pending.effects);
        for effect in pending.effects {
            self.release(effect);
        }
    }

    /// What a write did not write is to be written again, as far as it is still in the log.
    fn restage(&mut self, pending: &mut Pending) {
        let dropped = self.pending.iter().any(|later| later.reset.is_some());
        if dropped || self.staged.reset.is_some() {
            // The log has been another one since.
            return;
        }
        let begin = match &pending.reset {
            Some(snapshot) => Some(snapshot.last.index + 1),
            None => pending.first,
        };
        let Some(begin) = begin else {
            return;
        };
        if pending.reset.is_none() && pending.last < begin {
            // Nothing of it is: what was handed out since begins before it, or was refused with it.
            return;
        }
        for later in &mut self.pending {
            // What begins before it writes it as well.
            if later.first.is_none_or(|first| first > begin) {
                later.last = later.last.min(begin - 1);
            }
        }
        self.staged.reset = pending.reset.take();
        if self.staged.reset.is_none() || self.log.last_index() >= begin {
            self.staged.first = Some(self.staged.first.map_or(begin, |first| first.min(begin)));
        }
    }

    /// Whether there is room for entries. A leader without takes no data of the host's, and hands
    /// over; others would rather not lead.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Something in the log cannot be read any more: whoever lacks it needs another leader. This server
    /// hands over, and would rather not lead again in this run. True the first time.
    pub fn set_unreadable(&mut self) -> bool {
        !std::mem::replace(&mut self.unreadable, true)
    }

    /// Whether what storage is capable of is too little for a leader.
    pub(super) fn is_impaired(&self) -> bool {
        self.full || self.unreadable
    }

    /// A write has completed; they complete in order. A failed one poisons the server: it says
    /// nothing more, for what is on the disk is unknown (raft.md rule 29).
    pub fn persisted(&mut self, token: Token, ok: bool) {
        if self.poisoned {
            return;
        }
        let pending = self.pending.pop_front();
        let Some(pending) = pending.filter(|p| p.token == token) else {
            panic!("write {token:?} completed out of order");
        };
        if !ok && !cfg!(keel_bug = "failed_write_ignored") {
            self.poison();
            return;
        }
        let last = match cfg!(keel_bug = "stale_completion") {
            true => pending.last.min(self.log.last_index()),
            false => pending.last,
        };
        self.log.completed(last);
        self.end_claim();
        for effect in pending.effects {
            self.release(effect);
        }
        if self.is_leader() {
            self.advance_commit();
        }
        self.keep_tail();
    }

    /// Since when the oldest write is under way.
    pub(super) fn writing_since(&self) -> Option<Millis> {
        self.pending.front().map(|pending| pending.since)
    }

    /// When a leader's disk has taken too long: it must not keep its peers from electing one
    /// whose disk works (raft.md rule 31).
    pub(super) fn stalled_at(&self) -> Millis {
        let since = self.writing_since();
        let since = since.filter(|_| !cfg!(keel_bug = "stall_ignored"));
        since.map_or(Millis::MAX, |since| {
            since.saturating_add(self.options.stall)
        })
    }

    /// Whether the oldest write takes so long that this server had better not lead.
    pub fn is_stalled(&self) -> bool {
        self.now >= self.stalled_at()
    }

    /// Says nothing and does nothing from now on.
    pub fn poison(&mut self) {
        self.poisoned = true;
        self.role = Role::Follower;
        self.leader = None;
        self.messages.clear();
        self.staged = Staged::default();
        self.reads = Reads::default();
        self.pending.clear();
        self.asks.clear();
        self.incoming = None;
    }

    pub(super) fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Send(to, term, message) if term == self.hard.term => self.send(to, *message),
            Effect::Acknowledge { to, term, seq } if term == self.hard.term => {
                let hasty = cfg!(any(
                    keel_bug = "ack_before_sync",
                    keel_bug = "ack_again_before_sync"
                ));
                let match_index = match self.verified.min(self.log.durable()) {
                    _ if hasty => self.verified,
                    _ if cfg!(keel_bug = "ack_last_index") => self.log.durable(),
                    shown => shown,
                };
                let reply = AppendReply {
                    term,
                    seq,
                    outcome: AppendOutcome::Accepted { match_index },
                };
                self.send(to, Message::AppendReply(reply));
            }
            Effect::Campaign(term) if term == self.hard.term => self.campaign_durable(),
            Effect::Install(snapshot) => self.install_unless_reached(*snapshot),
            _ => {}
        }
    }

    /// Appends an entry and stages it.
    pub(super) fn append(&mut self, entry: Entry) {
        let index = entry.index;
        if let Payload::Config(config, _) = &entry.payload {
            self.configs.push(index, config.clone());
        }
        self.log.push(entry);
        self.staged.first = Some(self.staged.first.map_or(index, |first| first.min(index)));
    }

    /// Drops a conflicting tail. Writes on their way no longer prove anything about it
    /// (raft.md rule 28).
    pub(super) fn truncate(&mut self, first: Index) {
        assert!(
            first > self.commit,
            "a committed entry conflicts with the leader's log at index {first}"
        );
        self.log.truncate(first);
        self.configs.truncate(first);
        self.verified = self.verified.min(first - 1);
        for pending in &mut self.pending {
            if !cfg!(keel_bug = "stale_completion") {
                pending.last = pending.last.min(first - 1);
            }
        }
        if self.staged.first.is_some_and(|staged| staged >= first) {
            self.staged.first = None;
        }
    }
}
