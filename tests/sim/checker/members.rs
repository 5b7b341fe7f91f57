//! Configurations: I15.

use raftkeel::core::{Configuration, Raft};

use super::ghost::quorums_meet;
use super::{Checker, Configured, place};
use crate::judge::Call;
use crate::marks::Mark::*;

impl Checker {
    /// A configuration has been appended to a log.
    pub(super) fn take_config(&mut self, call: &Call<'_, Raft>, configured: Configured) {
        let (index, term, config) = &configured;
        let node = &self.nodes[call.node];
        let before = node.configs.last().cloned();
        if let Some(before) = &before {
            adjacent(call, &before.2, config);
            if call.before.leads() && call.after.leads() && *term == call.after.term {
                self.one_change_at_a_time(call, before);
            }
        }
        self.copies_changed |= *index > self.members.0;
        let node = &mut self.nodes[call.node];
        for id in config.members() {
            let joins = before.as_ref().is_none_or(|b| !b.2.contains(id));
            if joins && call.after.leads() {
                node.heard[place(id)] = call.now;
                node.in_flight[place(id)] = (0, 0);
            }
        }
        node.configs.push(configured);
    }

    /// I15: a leader changes the members only when the change before is committed, and an entry
    /// of its own term.
    fn one_change_at_a_time(&self, call: &Call<'_, Raft>, before: &Configured) {
        // A commit of this very call opens the way for leaving a joint configuration.
        let commit = call.after.commit;
        let own = self.nodes[call.node].log.term(commit) == Some(call.after.term);
        assert!(
            before.0 <= commit && own,
            "I15: {} changes the members, and {} is committed up to {commit}, the change \
             before is at {}",
            call.id,
            if own {
                "its log"
            } else {
                "no entry of its own"
            },
            before.0
        );
    }

    /// I15: the newest configuration of the log is in force, also after a truncation.
    pub(super) fn newest_in_force(&self, call: &Call<'_, Raft>) {
        let newest = self.nodes[call.node].configs.last();
        let index = newest.map_or(0, |c| c.0);
        let same = index == call.after.config_index
            && newest.is_none_or(|c| *c.2 == *call.server.configuration());
        assert!(
            same,
            "I15: {} acts by the configuration at {}, the newest of its log is at {index}",
            call.id, call.after.config_index
        );
    }
}

/// I15: every change keeps the voters, or enters or leaves a joint configuration, and quorums of
/// neighbours meet.
fn adjacent(call: &Call<'_, Raft>, before: &Configuration, after: &Configuration) {
    let next = after.epoch == before.epoch + 1 && !before.is_joint();
    let learners = next && after.voters == before.voters && !after.is_joint();
    let enters = next && after.outgoing == before.voters;
    let leaves = before.is_joint() && *after == before.left();
    assert!(
        (learners || enters || leaves) && quorums_meet(before, after),
        "I15: {} goes from {before:?} to {after:?}",
        call.id
    );
    if !call.after.leads() {
        return;
    }
    if enters {
        JointEntered.hit();
        let (old, new) = (before.voters.len(), after.voters.len());
        let joined = after.voters.iter().filter(|id| !before.is_voter(**id));
        let left = before
            .voters
            .iter()
            .filter(|id| !after.voters.contains(*id));
        if joined.count() + left.count() > 1 {
            SeveralAtOnce.hit();
        }
        if old == 1 {
            SingleVoterJoined.hit();
        }
        if new == 1 {
            SingleVoterLeft.hit();
        }
        if !after.keeps(call.id) {
            LeaderRemovesItself.hit();
        }
    } else if leaves {
        JointLeft.hit();
    } else {
        LearnersChanged.hit();
    }
}
