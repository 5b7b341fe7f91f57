//! Majorities, of one list of voters or of both halves of a joint configuration (thesis 4.3).

use super::types::{Configuration, MAX_MEMBERS, NodeId};

/// How many of `n` make a majority.
pub fn majority(n: usize) -> usize {
    n / 2 + 1
}

/// The largest value that a quorum has reached: in a joint configuration, that a majority of each
/// half has. 0 if there are no voters.
pub fn reached(config: &Configuration, value: impl Fn(NodeId) -> u64) -> u64 {
    if cfg!(keel_bug = "union_quorum") && config.is_joint() {
        let all: Vec<NodeId> = config.members().filter(|id| config.is_voter(*id)).collect();
        return reached_by(&all, &value);
    }
    let incoming = reached_by(&config.voters, &value);
    if config.is_joint() {
        incoming.min(reached_by(&config.outgoing, &value))
    } else {
        incoming
    }
}

/// Whether a quorum says yes.
pub fn agreed(config: &Configuration, yes: impl Fn(NodeId) -> bool) -> bool {
    reached(config, |id| u64::from(yes(id))) == 1
}

fn reached_by(voters: &[NodeId], value: &impl Fn(NodeId) -> u64) -> u64 {
    if voters.is_empty() {
        return 0;
    }
    assert!(
        voters.len() <= MAX_MEMBERS,
        "more voters than a cluster has"
    );
    // The usual sizes need no array of the largest one.
    if voters.len() <= 8 {
        median::<8>(voters, value)
    } else {
        median::<MAX_MEMBERS>(voters, value)
    }
}

fn median<const N: usize>(voters: &[NodeId], value: &impl Fn(NodeId) -> u64) -> u64 {
    let mut values = [0u64; N];
    let values = &mut values[..voters.len()];
    for (slot, id) in values.iter_mut().zip(voters) {
        *slot = value(*id);
    }
    values.sort_unstable_by(|a, b| b.cmp(a));
    values[majority(voters.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(raw: &[u64]) -> Vec<NodeId> {
        raw.iter().filter_map(|r| NodeId::new(*r)).collect()
    }

    fn config(voters: &[u64], outgoing: &[u64]) -> Configuration {
        Configuration {
            epoch: 1,
            voters: ids(voters),
            outgoing: ids(outgoing),
            learners: Vec::new(),
        }
    }

    #[test]
    fn a_majority_is_more_than_half() {
        assert_eq!([1, 2, 2, 3, 3, 4, 4], [1, 2, 3, 4, 5, 6, 7].map(majority));
    }

    #[test]
    fn the_value_of_the_median_voter_counts() {
        let c = config(&[1, 2, 3], &[]);
        assert_eq!(5, reached(&c, |id| [9, 5, 1][id.get() as usize - 1]));
        let c = config(&[1, 2, 3, 4], &[]);
        assert_eq!(4, reached(&c, |id| [9, 5, 4, 1][id.get() as usize - 1]));
    }

    #[test]
    fn both_halves_must_agree() {
        let c = config(&[3, 4, 5], &[1, 2, 3]);
        assert!(!agreed(&c, |id| id.get() >= 3), "only one of the old half");
        assert!(!agreed(&c, |id| id.get() <= 3), "only one of the new half");
        assert!(agreed(&c, |id| (2..=4).contains(&id.get())));
    }

    #[test]
    fn without_voters_nothing_is_reached() {
        assert_eq!(0, reached(&Configuration::default(), |_| 7));
    }
}
