//! Whose testimony counts and what a majority is, in the configuration in force.

use crate::core::{Configuration, MAX_MEMBERS, Millis, NodeId, agreed, reached};

/// The membership as the engine told it.
#[derive(Debug, Default)]
pub(super) struct Members {
    config: Configuration,
    excluded: Vec<NodeId>,
    provisioned: u32,
}

impl Members {
    /// `excluded` in any order; replaced nodes are not among them.
    pub(super) fn new(config: &Configuration, excluded: &[NodeId], provisioned: u32) -> Members {
        let mut excluded = excluded.to_vec();
        excluded.sort_unstable();
        excluded.dedup();
        let members = Members {
            config: config.clone(),
            excluded,
            provisioned,
        };
        assert!(members.ids().len() <= MAX_MEMBERS, "too many members");
        assert!(members.excluded.len() <= MAX_MEMBERS, "too many excluded");
        members
    }

    /// Every member that is not excluded, sorted.
    pub(super) fn ids(&self) -> Vec<NodeId> {
        let c = &self.config;
        let lists = [&c.voters, &c.outgoing, &c.learners];
        let mut ids: Vec<NodeId> = lists.into_iter().flatten().copied().collect();
        ids.retain(|&id| !self.is_excluded(id));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Excluded nodes, sorted.
    pub(super) fn excluded(&self) -> &[NodeId] {
        &self.excluded
    }

    /// Whether a decision has put it out.
    pub(super) fn is_excluded(&self, id: NodeId) -> bool {
        self.excluded.binary_search(&id).is_ok()
    }

    /// Whether it votes in either half and is not excluded.
    pub(super) fn votes(&self, id: NodeId) -> bool {
        let listed = self.config.voters.contains(&id) || self.config.outgoing.contains(&id);
        listed && !self.is_excluded(id)
    }

    /// Every voter of either half that is not excluded, each once.
    pub(super) fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        let c = &self.config;
        let old = c.outgoing.iter().filter(|id| !c.voters.contains(id));
        let all = c.voters.iter().chain(old).copied();
        all.filter(|&id| !self.is_excluded(id))
    }

    /// Voters of the configuration in force, or being entered.
    pub(super) fn incoming(&self) -> &[NodeId] {
        &self.config.voters
    }

    /// Nodes that the cluster was built from: excluded ones count until they are replaced.
    pub(super) fn provisioned(&self) -> u32 {
        self.provisioned
    }

    /// Whether those for whom `has` holds are a majority of every half (thesis 4.3).
    pub(super) fn is_majority(&self, has: impl Fn(NodeId) -> bool) -> bool {
        agreed(&self.config, has)
    }

    /// The largest value that a majority of every half has reached; 0 without voters.
    pub(super) fn reached_by_majority(&self, value: impl Fn(NodeId) -> Millis) -> Millis {
        reached(&self.config, value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, id, ids};
    use super::*;

    #[test]
    fn a_majority_is_more_than_half() {
        let four = Members::new(&config(&[1, 2, 3, 4]), &[], 4);
        assert!(!four.is_majority(|n| n.get() <= 2));
        assert!(four.is_majority(|n| n.get() <= 3));
        let none = Members::default();
        assert!(!none.is_majority(|_| true));
    }

    #[test]
    fn a_joint_configuration_needs_both_halves() {
        let joint = Configuration {
            voters: ids(&[1, 2, 3]),
            outgoing: ids(&[3, 4, 5]),
            ..Configuration::default()
        };
        let members = Members::new(&joint, &[], 5);
        assert!(!members.is_majority(|n| n.get() <= 3));
        assert!(!members.is_majority(|n| n.get() >= 3));
        assert!(members.is_majority(|n| (2..=4).contains(&n.get())));
        assert_eq!(members.reached_by_majority(|n| n.get() * 10), 20);
    }

    #[test]
    fn the_value_of_a_majority_is_the_middle_one_or_below() {
        let three = Members::new(&config(&[1, 2, 3]), &[], 3);
        assert_eq!(three.reached_by_majority(|n| n.get() * 10), 20);
        let four = Members::new(&config(&[1, 2, 3, 4]), &[], 4);
        assert_eq!(four.reached_by_majority(|n| n.get() * 10), 20);
        assert_eq!(Members::default().reached_by_majority(|_| 7), 0);
    }

    #[test]
    fn the_excluded_are_neither_members_nor_voters() {
        let joint = Configuration {
            voters: ids(&[1, 2]),
            outgoing: ids(&[1, 2, 3]),
            learners: ids(&[4]),
            ..Configuration::default()
        };
        let members = Members::new(&joint, &[id(3)], 4);
        assert_eq!(members.ids(), ids(&[1, 2, 4]));
        assert_eq!(members.voters().collect::<Vec<_>>(), ids(&[1, 2]));
        assert!(!members.votes(id(3)) && !members.votes(id(4)));
    }
}
