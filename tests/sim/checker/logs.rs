//! Logs, in memory and on disks: I2 to I5 as far as they are about what is kept.

use raftkeel::core::{Entry, Index, NodeId, Persist, Position, Raft, Snapshot, Term};

use super::{Checker, Configured, Seen, place};
use crate::judge::Call;
use crate::marks::Mark::*;
use crate::server::{Input, State};

impl Checker {
    /// Finds what changed in a log, and takes it in; whether anything did.
    pub(super) fn look_at_log(&mut self, call: &Call<'_, Raft>) -> bool {
        let (node, log) = (&self.nodes[call.node], call.server.log());
        let written = call.output.write.as_ref().and_then(|w| w.entries.first());
        // On the disk it may find no room, and be dropped there later, with what has come behind it.
        let reset = match call.input {
            Input::Installed { snapshot, .. } => Some(snapshot),
            _ => None,
        };
        let dropped = |to: &&Snapshot| call.after.base == to.last && call.before.base != to.last;
        let reset = reset.filter(dropped);
        let end = (call.after.last_term, call.after.last_index);
        if written.is_none() && reset.is_none() && end == node.log.end() {
            return false;
        }
        if let Some(snapshot) = reset {
            self.log_reset(call, snapshot);
        }
        let node = &self.nodes[call.node];
        // Agreement is sought from the end, for it is mostly there. What was dropped is committed.
        let base = call.after.base.index;
        let mut agrees = node.log.last().min(call.after.last_index);
        while agrees > base && log.term(agrees) != node.log.term(agrees) {
            agrees -= 1;
        }
        let first = written.map_or(agrees + 1, |entry| entry.index.min(agrees + 1));
        self.leader_append_only(call, agrees);
        if agrees < node.log.last() {
            self.truncated(call, agrees + 1);
        }
        let mut before = self.nodes[call.node].log.term(first - 1);
        for entry in log.from(first) {
            let term = before.expect("a log has no gaps");
            self.take_entry(call, entry, term, entry.index > agrees);
            before = Some(entry.term);
        }
        true
    }

    fn take_entry(&mut self, call: &Call<'_, Raft>, entry: &Entry, before: Term, fresh: bool) {
        if self.ghost.note(call.id, entry, before) {
            let record = self.ghost.get(entry.index, entry.term);
            let number = record.map_or(0, |r| r.proposal);
            self.clients.appended(call.id, number, entry.index);
        }
        if !fresh {
            return;
        }
        let node = &mut self.nodes[call.node];
        node.log.push(entry.term);
        if call.after.leads() && entry.term == call.after.term {
            node.uncommitted += entry.payload.weight();
        }
        let record = self.ghost.get(entry.index, entry.term);
        if let Some(config) = record.and_then(|r| r.config.clone()) {
            self.take_config(call, (entry.index, entry.term, config));
        }
    }

    /// A tail is gone from memory.
    fn truncated(&mut self, call: &Call<'_, Raft>, first: u64) {
        let node = &mut self.nodes[call.node];
        Truncated.hit();
        if node.disk.log().last() >= first {
            TruncatedDurable.hit();
        }
        if call.before.durable < call.before.last_index {
            TruncatedUnderWay.hit();
        }
        let led = self.leaders.get(node.log.last_term() as usize);
        let led = led.and_then(Option::as_ref);
        if led.is_some_and(|led| led.id == node.id) {
            TruncatedOwn.hit();
        }
        if node.configs.last().is_some_and(|c| c.0 >= first) {
            TruncatedConfig.hit();
        }
        node.log.truncate(first);
        node.configs.retain(|c| c.0 < first);
    }

    /// I4: the log of a leader only grows.
    fn leader_append_only(&self, call: &Call<'_, Raft>, agrees: u64) {
        let led = call.before.leads() && call.before.term == call.after.term;
        let node = &self.nodes[call.node];
        assert!(
            !(led && call.after.leads()) || agrees == node.log.last(),
            "I4: leader {} changes its log from {} on",
            node.id,
            agrees + 1
        );
    }

    /// I5, read as a whole: the log in memory is what was seen of it.
    pub(super) fn whole_log(&self, at: usize, raft: &Raft) {
        let (node, log) = (&self.nodes[at], raft.log());
        let id = node.id;
        assert!(
            log.last_index() == node.log.last(),
            "I5: the log of {id} has changed unseen"
        );
        let base = log.base();
        assert!(
            node.log.holds(base.index, base.term) && base.index <= node.commit,
            "I5: the log of {id} begins behind {base:?}, which it had not, or not committed"
        );
        for index in base.index..=log.last_index() {
            assert!(
                log.term(index) == node.log.term(index),
                "I5: {id} has another term at {index} than it had"
            );
        }
        for entry in log.from(log.first_in_memory()) {
            assert!(
                self.ghost.is_same(entry),
                "I5: {id} has another entry {}.{} than it had",
                entry.index,
                entry.term
            );
        }
    }

    /// I23: whenever something was written, of what is committed and durable no more is kept in
    /// memory than the limit allows.
    pub(super) fn bounded_memory(&self, call: &Call<'_, Raft>) {
        let (node, log) = (&self.nodes[call.node], call.server.log());
        let (bytes, most) = (log.bytes_in_memory(), 2 * node.limits.tail_bytes);
        if bytes <= most || !matches!(call.input, Input::Written { .. }) {
            return;
        }
        let settled = call.after.commit.min(call.after.durable);
        let weight = |index| {
            let record = self.ghost.get(index, log.term(index)?);
            record.map(|r| r.weight)
        };
        let unsettled: usize = (settled + 1..=log.last_index()).filter_map(weight).sum();
        assert!(
            bytes <= most + unsettled,
            "I23: {} keeps {bytes} bytes of its log in memory, {unsettled} are unsettled",
            node.id
        );
    }

    // ---- disks -----------------------------------------------------------

    /// A write has reached a disk.
    pub(super) fn write_landed(&mut self, at: usize, write: &Persist) {
        self.vote_once(at, write);
        if let Some(snapshot) = &write.reset {
            self.disk_reset(at, snapshot);
        }
        self.entries_landed(at, &write.entries);
        self.find_disk(at);
        let node = &self.nodes[at];
        let last = node.disk.log().last();
        if node.up && node.log.term(last) != node.disk.log().term(last) {
            CompletedTruncated.hit();
        }
    }

    /// What was durable is lost, and claimed from now on.
    pub(super) fn log_lost(&mut self, at: usize, kept: Index, claim: Position) {
        let node = &mut self.nodes[at];
        node.disk.written.truncate(kept + 1);
        node.disk.written_configs.retain(|c| c.0 <= kept);
        node.hard.claim = Some(claim);
        self.copies_changed = true;
        self.find_disk(at);
    }

    /// Holds something, and has lost nothing.
    pub(super) fn is_whole(&self, node: &Seen) -> bool {
        node.hard.claim.is_none() && node.disk.log().last() > 0
    }

    /// Whether a node protects what stands there: it has it on its disk, or has lost it perhaps,
    /// and says so.
    pub(super) fn protects(&self, id: NodeId, index: Index, term: Term) -> bool {
        let node = &self.nodes[place(id)];
        let lost = node.hard.claim;
        let lost = lost.is_some_and(|claim| claim.reaches(Position { index, term }));
        node.disk.log().holds(index, term) || lost
    }

    fn entries_landed(&mut self, at: usize, entries: &[Entry]) {
        let Some(first) = entries.first() else {
            return;
        };
        let node = &mut self.nodes[at];
        let (id, disk) = (node.id, &mut node.disk);
        assert!(
            first.index <= disk.written.last() + 1,
            "I5: {id} writes from {} on, its disk ends at {}",
            first.index,
            disk.written.last()
        );
        if first.index <= disk.written.last() {
            self.copies_changed = true;
            disk.written.truncate(first.index);
            disk.written_configs.retain(|c| c.0 < first.index);
        }
        for entry in entries {
            assert!(self.ghost.is_same(entry), "I5: {id} writes another entry");
            disk.written.push(entry.term);
            let record = self.ghost.get(entry.index, entry.term);
            if let Some(config) = record.and_then(|r| r.config.clone()) {
                let configured: Configured = (entry.index, entry.term, config);
                disk.written_configs.push(configured);
                self.copies_changed = true;
            }
        }
    }

    /// I2, I3: one vote a term, and terms that never go back, over restarts too.
    fn vote_once(&mut self, at: usize, write: &Persist) {
        let Some(hard) = write.hard else {
            return;
        };
        let node = &mut self.nodes[at];
        let (id, known) = (node.id, node.hard);
        assert!(
            hard.term >= known.term,
            "I3: the disk of {id} goes back from term {} to {}",
            known.term,
            hard.term
        );
        assert!(
            hard.term > known.term || known.vote.is_none() || hard.vote == known.vote,
            "I2: {id} voted for {:?} and for {:?} in term {}",
            known.vote,
            hard.vote,
            hard.term
        );
        node.hard = hard;
    }

    /// What a restart finds.
    pub(super) fn restarted(&self, at: usize, state: &State) {
        let node = &self.nodes[at];
        assert!(
            (state.term, state.vote) == (node.hard.term, node.hard.vote),
            "I2: {} starts with another term or vote than its disk has",
            node.id
        );
        if node.configs.last().is_some_and(|c| c.0 > state.commit) {
            RestartedInChange.hit();
        }
        if state.joint {
            RestartedJoint.hit();
        }
        if node.granted.0 == state.term && state.vote.is_some() {
            RestartedAfterVote.hit();
        }
    }
}
