//! What is committed, and whether enough copies of it are left: I6, I8 to I11.

use raftkeel::core::{Configuration, NodeId, Raft};

use super::ghost::{Committed, is_quorum};
use super::outline::Outline;
use super::{Checker, place};
use crate::host::{EMPTY, next_state};
use crate::judge::Call;
use crate::marks::Mark::*;
use crate::server::Input;

impl Checker {
    pub(super) fn commits(&mut self, call: &Call<'_, Raft>, log_changed: bool) {
        let (before, after) = (call.before.commit, call.after.commit);
        if after != before {
            self.commit_monotone(call);
            self.nodes[call.node].commit = after;
            self.take_commits(call);
            self.state_machine_safety(call);
            if call.before.leads() && call.before.term == call.after.term {
                self.leader_commits(call);
            }
            if after > call.after.durable {
                CommittedBeforeDurable.hit();
            }
        }
        if call.after.config_index != call.before.config_index || log_changed {
            self.newest_in_force(call);
        }
        if after != before || log_changed {
            self.more_up_to_date(call.node);
        }
        if std::mem::take(&mut self.copies_changed) {
            self.quorum_log();
            self.nobody_else_electable();
        }
    }

    /// I11: the commit index never goes back, nor beyond the log.
    fn commit_monotone(&self, call: &Call<'_, Raft>) {
        let (before, after) = (call.before.commit, call.after.commit);
        assert!(
            after >= before,
            "I11: the commit index of {} goes back from {before} to {after}",
            call.id
        );
        assert!(
            after <= call.after.last_index,
            "I11: {} commits {after}, its log ends at {}",
            call.id,
            call.after.last_index
        );
    }

    /// Remembers what nobody knew to be committed before.
    fn take_commits(&mut self, call: &Call<'_, Raft>) {
        let by_term = call.after.term;
        while self.committed() < call.after.commit {
            let index = self.committed() + 1;
            let term = self.nodes[call.node].log.term(index);
            let term = term.expect("within the log");
            let record = self.ghost.get(index, term).expect("in a log");
            let before = self.committed.last().map_or(EMPTY, |c| c.state);
            let state = next_state(before, index, record.payload);
            self.committed.push(Committed {
                term,
                by_term,
                state,
            });
            self.common.push(term);
            self.copies_changed = true;
            if let Some(config) = &record.config {
                self.members = (index, config.clone());
                self.common_configs.push((index, term, config.clone()));
            }
            let number = record.proposal;
            self.clients.committed(number, term, index);
        }
    }

    /// I6: what is committed once is committed for ever. The last one stands for all before.
    fn state_machine_safety(&self, call: &Call<'_, Raft>) {
        let index = call.after.commit;
        let own = self.nodes[call.node].log.term(index);
        let known = self.committed[index as usize - 1].term;
        assert!(
            own == Some(known),
            "I6: {} commits {index} of term {own:?}, it was committed with term {known}",
            call.id
        );
    }

    fn leader_commits(&mut self, call: &Call<'_, Raft>) {
        let (from, index, term) = (call.before.commit, call.after.commit, call.after.term);
        let node = &mut self.nodes[call.node];
        if node.log.term(from + 1) != Some(term) {
            CommittedOldTerm.hit();
        }
        for at in from + 1..=index {
            if node.log.term(at) == Some(term) {
                let weight = self.ghost.get(at, term).map_or(0, |r| r.weight);
                node.uncommitted = node.uncommitted.saturating_sub(weight);
            }
        }
        if index > node.disk.log().last() {
            CommittedWithoutOwnDisk.hit();
        }
        self.commit_rule(call);
        self.committed_is_durable(call);
    }

    /// I11: by counting copies a leader commits only entries of its own term.
    fn commit_rule(&self, call: &Call<'_, Raft>) {
        let (index, term) = (call.after.commit, call.after.term);
        let own = self.nodes[call.node].log.term(index);
        assert!(
            own == Some(term),
            "I11: leader {} of term {term} commits {index} of term {own:?} by counting",
            call.id
        );
    }

    /// I9: what a leader commits, a quorum has on its disks.
    fn committed_is_durable(&self, call: &Call<'_, Raft>) {
        let index = call.after.commit;
        let term = self.committed[index as usize - 1].term;
        let durable = |id: NodeId| self.protects(id, index, term);
        // The one in force when it counted: a commit may have ended it.
        let mut configs = self.nodes[call.node].configs.iter();
        let config = configs.rfind(|c| c.0 <= call.before.config_index);
        let config = config.map(|c| &*c.2).expect("a leader has one");
        assert!(
            is_quorum(config, durable),
            "I9: leader {} commits {index} without a durable quorum of {config:?}",
            call.id
        );
        if config.is_joint() {
            CommittedByBoth.hit();
        }
        if matches!(call.input, Input::Written { .. }) && config.members().count() > 1 {
            CommittedByOwnDisk.hit();
        }
    }

    /// I10: who has the more up-to-date log has all that the other knows to be committed; unless
    /// the other has only the knowledge, and not yet the entry of the leader's term that it
    /// came with: such a follower's log is older than what it knows.
    fn more_up_to_date(&self, at: usize) {
        let own = &self.nodes[at];
        for peer in self
            .nodes
            .iter()
            .filter(|peer| peer.up && peer.id != own.id)
        {
            let (first, second) = match own.log.end() >= peer.log.end() {
                true => (own, peer),
                false => (peer, own),
            };
            let same = first.log.end() == second.log.end();
            self.holds_commits(&first.log, first.id, second);
            if same {
                self.holds_commits(&second.log, second.id, first);
            }
        }
    }

    fn holds_commits(&self, log: &Outline, id: NodeId, other: &super::Seen) {
        let commit = other.commit;
        let Some(last) = (commit as usize).checked_sub(1) else {
            return;
        };
        if other.log.last_term() < self.committed[last].by_term {
            return;
        }
        assert!(
            log.holds(commit, self.committed[last].term),
            "I10: {id} is more up to date than {}, and lacks {commit}, which that one committed",
            other.id
        );
    }

    /// I8: every quorum of every configuration that can act has a durable copy of all that is
    /// committed. The newest stands for all before.
    fn quorum_log(&self) {
        let index = self.committed();
        // Bootstrap commits the first entry by decree.
        if index <= 1 {
            return;
        }
        let term = self.committed[index as usize - 1].term;
        let lacks = |id: NodeId| !self.protects(id, index, term);
        for config in self.acting() {
            assert!(
                !is_quorum(config, lacks),
                "I8: {index} is committed, and a quorum of {config:?} lacks it on its disks"
            );
        }
    }

    /// The newest committed configuration, and those after it in logs that hold it.
    fn acting(&self) -> impl Iterator<Item = &Configuration> {
        let (index, newest) = (self.members.0, &*self.members.1);
        let term = self.committed[index as usize - 1].term;
        let follow = move |log: &Outline| log.holds(index, term);
        let nodes = self.nodes.iter();
        let later = nodes.flat_map(move |node| {
            let held = (node.up && follow(&node.log)).then_some(&node.configs);
            let kept = follow(node.disk.log()).then_some(node.disk.configs());
            let held = held.map(|configs| &configs[..]);
            held.into_iter().chain(kept).flatten()
        });
        let later = later.filter(move |c| c.0 > index).map(|c| &*c.2);
        later.chain([newest])
    }

    /// I8 for those who lack the newest committed entry, by whatever configuration they act: the
    /// nodes whose durable logs are no newer than theirs are no quorum.
    fn nobody_else_electable(&self) {
        let index = self.committed();
        if index <= 1 {
            return;
        }
        let term = self.committed[index as usize - 1].term;
        for node in &self.nodes {
            let (log, configs) = match node.up && !node.failed {
                true => (&node.log, &node.configs[..]),
                false => (node.disk.log(), node.disk.configs()),
            };
            let lacks = !log.holds(index, term) && node.hard.claim.is_none();
            let Some(config) = configs.last().filter(|_| lacks) else {
                continue;
            };
            let grants = |id: NodeId| {
                let voter = &self.nodes[place(id)];
                let (held, lost) = (voter.disk.log(), voter.hard.claim);
                let lost = lost.map(|claim| (claim.term, claim.index));
                let holds = held.last() > 0 || lost.is_some();
                holds && held.end() <= log.end() && lost <= Some(log.end())
            };
            assert!(
                !is_quorum(&config.2, grants),
                "I8: {} lacks the committed entry {index}, and could be elected",
                node.id
            );
        }
    }
}
