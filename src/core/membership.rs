//! Changing the members: joint consensus, in force on append, rolled back with the log
//! (thesis 4.1, 4.3; raft.md rules 42 to 46).

use std::sync::Arc;

use super::bytes::Bytes;
use super::raft::{ProposeError, Raft};
use super::types::{Configuration, Index, Millis, Payload, Restored, Term};

/// The newest committed configuration and those after it in the log.
#[derive(Clone, Debug)]
pub struct Configurations {
    /// Ascending by index; the newest is in force. Empty on a node that has none yet.
    stack: Vec<(Index, Arc<Configuration>)>,
    none: Configuration,
}

impl Configurations {
    /// That of the snapshot, and all in the restored log behind it.
    pub fn restore(restored: &Restored) -> Configurations {
        let snapshot = restored.snapshot.as_ref();
        let covered = snapshot.map_or(0, |s| s.config_index);
        let outline = restored.outline.iter().flat_map(|o| &o.configs);
        let outline = outline.map(|(index, config)| (*index, config));
        let entries = restored.entries.iter().filter_map(|e| match &e.payload {
            Payload::Config(config, _) => Some((e.index, config)),
            _ => None,
        });
        let forgotten = |index| cfg!(keel_bug = "config_forgotten") && index > restored.hard.commit;
        let logged = outline
            .chain(entries)
            .filter(|(index, _)| *index > covered && !forgotten(*index))
            .map(|(index, config)| (index, config.clone()));
        let first = snapshot.map(|s| (s.config_index, s.config.clone()));
        Configurations {
            stack: first.into_iter().chain(logged).collect(),
            none: Configuration::default(),
        }
    }

    /// The log was replaced by a snapshot.
    pub(super) fn reset(&mut self, index: Index, config: Arc<Configuration>) {
        config.assert_well_formed();
        self.stack = vec![(index, config)];
    }

    /// The newest one at or below `index`, and where it stands. Those older than the newest
    /// committed one are not known any more.
    pub fn at(&self, index: Index) -> Option<(Index, &Arc<Configuration>)> {
        let newest = self.stack.iter().rev().find(|(at, _)| *at <= index)?;
        Some((newest.0, &newest.1))
    }

    /// The configuration in force: the newest in the log, committed or not.
    pub fn latest(&self) -> &Configuration {
        self.stack.last().map_or(&self.none, |(_, c)| c)
    }

    /// Where it stands in the log; 0 if there is none.
    pub fn latest_index(&self) -> Index {
        self.stack.last().map_or(0, |(index, _)| *index)
    }

    /// The newest one that is committed.
    pub fn committed(&self, commit: Index) -> &Configuration {
        self.at(commit).map_or(&self.none, |(_, config)| config)
    }

    pub(super) fn push(&mut self, index: Index, config: Arc<Configuration>) {
        assert!(
            index > self.latest_index(),
            "configurations stand in log order"
        );
        config.assert_well_formed();
        self.stack.push((index, config));
    }

    pub(super) fn truncate(&mut self, first: Index) {
        self.stack.retain(|(index, _)| *index < first);
    }

    /// Whether any stands from `first` to `last`, none of which has been committed before.
    pub(super) fn any_within(&self, first: Index, last: Index) -> bool {
        let mut stack = self.stack.iter();
        stack.any(|(index, _)| (first..=last).contains(index))
    }

    /// Forgets what no truncation can bring back.
    pub(super) fn prune(&mut self, commit: Index) {
        let committed = self.stack.partition_point(|(index, _)| *index <= commit);
        self.stack.drain(..committed.saturating_sub(1));
    }
}

impl Raft {
    /// Appends a change of membership: `target` is in force at once, and when it is joint the
    /// leader leaves the joint state by itself as soon as it is committed.
    ///
    /// `target.epoch` must be the present epoch plus one: the compare-and-set of every change.
    /// Refused while another change is under way (thesis 4.1) and before an entry of the
    /// leader's own term has committed (raft.md rule 43).
    pub fn propose_config(
        &mut self,
        now: Millis,
        target: Configuration,
        cause: Bytes,
    ) -> Result<(Term, Index), ProposeError> {
        self.observe(now);
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        if self.transferring().is_some() {
            return Err(ProposeError::TransferInFlight);
        }
        if self.change_in_flight() {
            return Err(ProposeError::ChangeInFlight);
        }
        let latest = self.configs.latest();
        if target.epoch != latest.epoch + 1 {
            return Err(ProposeError::StaleEpoch);
        }
        let voters_change = target.voters != latest.voters;
        let outgoing = voters_change.then_some(&latest.voters[..]);
        assert_eq!(
            outgoing.unwrap_or_default(),
            target.outgoing,
            "a change of voters goes through a joint configuration, no other does"
        );
        target.assert_well_formed();
        if !self.log.reserve(1) {
            return Err(ProposeError::NoMemory);
        }
        let appended = self.append_own(Payload::Config(Arc::new(target), cause));
        self.follow_members();
        Ok(appended)
    }

    /// Whether a change of membership must wait: one is uncommitted or joint, this leader has not
    /// committed in its term yet, or hands over.
    pub fn change_in_flight(&self) -> bool {
        let uncommitted = self.configs.latest_index() > self.commit;
        let leaving = self.configs.latest().is_joint() || self.transferring().is_some();
        let new = !self.has_committed_in_term() && !cfg!(keel_bug = "change_before_own_commit");
        (uncommitted && !cfg!(keel_bug = "two_changes")) || leaving || new
    }

    /// Leaves the joint state once it is committed, also when a predecessor entered it
    /// (raft.md rule 45).
    pub(super) fn leave_joint(&mut self) {
        let latest = self.configs.latest();
        let committed = self.configs.latest_index() <= self.commit;
        let may = committed || cfg!(keel_bug = "joint_left_early");
        if !self.is_leader() || !latest.is_joint() || !may {
            return;
        }
        let left = Arc::new(latest.left());
        self.append_own(Payload::Config(left, Raft::no_bytes()));
        self.follow_members();
    }

    /// An exclusion ends with a committed configuration of a later epoch that holds this node.
    pub(super) fn note_readmission(&mut self) {
        let committed = self.configs.committed(self.commit);
        let member = committed.keeps(self.id);
        let excluded = self.hard.excluded;
        if excluded.is_some_and(|x| member && committed.epoch > x.epoch) {
            self.hard.excluded = None;
            self.staged.hard = true;
        }
    }

    /// What the commit of a configuration brings about on this node.
    pub(super) fn configuration_committed(&mut self) {
        self.note_readmission();
        let committed = self.configs.committed(self.commit);
        // A node that starts alone must know its peers: keep a durable lower bound.
        self.hard.commit = match cfg!(keel_bug = "commit_kept_before_log") {
            true => self.commit,
            false => self.commit.min(self.log.durable()),
        };
        self.staged.hard = true;
        let removed = !committed.is_joint() && !committed.is_voter(self.id);
        let settled = self.configs.latest_index() <= self.commit;
        self.configs.prune(self.commit);
        if removed && settled && self.is_leader() {
            // It has led the change that removed it to its end (thesis 4.2.2), and its last word
            // spares the others an election over an entry that is committed already.
            self.note_commit();
            self.announce_commit();
            self.become_follower(self.hard.term, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::NodeId;

    fn config(epoch: u64, voters: &[u64]) -> Arc<Configuration> {
        Arc::new(Configuration {
            epoch,
            voters: voters.iter().filter_map(|v| NodeId::new(*v)).collect(),
            ..Configuration::default()
        })
    }

    #[test]
    fn truncation_brings_the_configuration_before_back() {
        let mut c = Configurations::restore(&Restored::default());
        c.push(1, config(1, &[1, 2, 3]));
        c.push(5, config(2, &[1, 2]));
        assert_eq!(2, c.latest().epoch);
        c.truncate(5);
        assert_eq!((1, 1), (c.latest().epoch, c.latest_index()));
    }

    #[test]
    fn pruning_keeps_the_newest_committed() {
        let mut c = Configurations::restore(&Restored::default());
        for epoch in 1..=3 {
            c.push(epoch * 10, config(epoch, &[1]));
        }
        c.prune(25);
        assert_eq!(2, c.committed(25).epoch);
        assert_eq!(0, c.committed(15).epoch, "older ones are gone");
        assert_eq!(3, c.latest().epoch);
    }
}
