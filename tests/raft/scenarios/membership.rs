//! A33 to A42: changes of members that meet crashes, truncations and elections.

use raftkeel::core::{
    Configuration, Exclusion, Message, Payload, ProposeError, RoleKind, VoteReply, VoteRequest,
};

use crate::cluster::{Cluster, E, H, ids, joint, n, plain};

/// The configurations in a server's log.
fn configurations(c: &Cluster, raw: u64) -> Vec<Configuration> {
    let entries = c.raft(raw).log().configurations();
    entries
        .filter_map(|e| match &e.payload {
            Payload::Config(config, _) => Some(config.as_ref().clone()),
            _ => None,
        })
        .collect()
}

/// n1 leads voters 1 to 3; 4 and 5 follow as learners.
fn with_two_learners() -> Cluster {
    let mut c = Cluster::led_with_spares(3, 5);
    c.change(1, plain(2, &[1, 2, 3], &[4, 5])).unwrap();
    for _ in 0..3 {
        c.heartbeat(1);
    }
    assert_eq!(c.terms(1), c.terms(5));
    c
}

#[test]
fn a33_a_truncated_configuration_is_gone() {
    let mut c = Cluster::led_with_spares(3, 4);
    c.isolate(1);
    c.change(1, joint(2, &[1, 2, 3, 4], &[1, 2, 3], &[]))
        .unwrap();
    assert_eq!(ids(&[1, 2, 3, 4]), c.raft(1).configuration().voters);
    c.elect(2);
    c.network.heal();
    c.heartbeat(2);
    c.heartbeat(2);
    assert_eq!(&plain(1, &[1, 2, 3], &[]), c.raft(1).configuration());
    c.crash(3);
    c.crash(2);
    c.restart(2);
    c.run(6 * E);
    let leader = c.leader().unwrap();
    c.propose(leader, "W").unwrap();
    c.run(E);
    assert_eq!(c.commit(1), c.commit(2));
    assert!(c.raft(leader).has_committed_in_term());
}

#[test]
fn a34_the_newest_logged_configuration_counts_after_a_restart() {
    let mut c = Cluster::led(2);
    c.change(1, joint(2, &[2], &[1, 2], &[])).unwrap();
    // n2 acknowledges C and hears no more.
    c.network.hold(|e| e.to == n(2) && !e.has_entries());
    c.deliver_all();
    assert_eq!(RoleKind::Follower, c.role(1), "n1 has left");
    c.network.end_holds();
    c.crash(1);
    c.crash(2);
    c.restart(2);
    assert!(c.commit(2) < c.raft(2).configuration_index());
    c.run(10 * E);
    assert_eq!(Some(2), c.leader());
    assert_eq!(c.raft(2).log().last_index(), c.commit(2));
}

#[test]
fn a35_an_inherited_joint_configuration_is_left_once_committed() {
    let mut c = with_two_learners();
    let target = joint(3, &[3, 4, 5], &[1, 2, 3], &[]);
    c.network.hold(|e| e.to != n(2) && e.has_entries());
    let (_, index) = c.change(1, target.clone()).unwrap();
    c.deliver_all();
    c.crash(1);
    c.network.end_holds();
    // Nobody but n2 and n3 is left of the old half: without n3's word nothing may commit.
    c.network.hold(|e| e.from == n(3) && e.is_append_reply());
    c.elect(2);
    c.heartbeat(2);
    assert!(c.raft(2).is_leader());
    assert_eq!(c.terms(2), c.terms(4), "the new half has it");
    assert!(c.commit(2) < index);
    assert_eq!(&target, c.raft(2).configuration());
    c.network.end_holds();
    c.heartbeat(2);
    c.heartbeat(2);
    c.run(6 * E);
    let left = configurations(&c, 3);
    assert_eq!(Some(&plain(3, &[3, 4, 5], &[])), left.last());
    let leader = c.leader().unwrap();
    assert!([3, 4, 5].contains(&leader), "n2 has left");
}

#[test]
fn a36_no_change_before_an_entry_of_the_own_term_commits() {
    let mut c = Cluster::create(4, 5, 1);
    c.elect(1);
    c.heartbeat(1);
    c.change(1, plain(2, &[1, 2, 3, 4], &[5])).unwrap();
    for _ in 0..3 {
        c.heartbeat(1);
    }
    c.isolate(1);
    c.change(1, joint(3, &[1, 2, 3, 4, 5], &[1, 2, 3, 4], &[]))
        .unwrap();
    c.network.hold(|e| e.is_append_reply());
    c.elect(2);
    assert!(c.raft(2).is_leader());
    let remove = joint(3, &[2, 3, 4], &[1, 2, 3, 4], &[5]);
    assert_eq!(
        Err(ProposeError::ChangeInFlight),
        c.change(2, remove.clone())
    );
    c.release();
    c.heartbeat(2);
    assert!(c.change(2, remove).is_ok());
    c.deliver_all();
    c.network.heal();
    c.run(6 * E);
    assert_eq!(ids(&[2, 3, 4]), c.checker.configuration().voters);
}

#[test]
fn a37_two_candidates_never_win_with_different_configurations() {
    let mut c = with_two_learners();
    // In force on append: n3 has the changes in its log, though it does not know their commit.
    c.network.hold(|e| e.to == n(3) && !e.has_entries());
    c.change(1, joint(3, &[1, 2, 3, 4, 5], &[1, 2, 3], &[]))
        .unwrap();
    c.deliver_all();
    assert_eq!(ids(&[1, 2, 3, 4, 5]), c.checker.configuration().voters);
    assert!(!c.checker.configuration().is_joint());
    c.network.end_holds();
    c.step_down(1);
    c.only_links(&[(1, 3), (2, 4), (2, 5), (4, 5)]);
    for raw in 1..=5 {
        c.skip(raw, E);
    }
    c.advance(2, E);
    c.advance(3, E);
    c.deliver_all();
    assert!(!c.raft(3).is_leader(), "two of five are no majority");
    assert_eq!(Some(2), c.leader());
}

#[test]
fn a38_a_removed_leader_does_not_count_itself() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.has_entries() && e.to == n(3));
    c.change(1, joint(2, &[2, 3], &[1, 2, 3], &[])).unwrap();
    c.deliver_all();
    assert_eq!(2, c.commit(1), "the new half needs both");
    let held = c.network.end_holds();
    c.network.hold(|e| e.from == n(3));
    for envelope in held {
        c.network.put(c.now, envelope);
    }
    c.deliver_all();
    let replies = c.network.end_holds();
    // With n3's word for the joint configuration it is left; n3 stays silent about the rest.
    c.network.hold(|e| e.to == n(3));
    for envelope in replies {
        c.network.put(c.now, envelope);
    }
    c.deliver_all();
    assert_eq!((3, 4), (c.commit(1), c.raft(1).log().last_index()));
    c.propose(1, "bar").unwrap();
    c.heartbeat(1);
    assert_eq!(5, c.raft(1).progress(n(2)).unwrap().match_index());
    assert_eq!((true, 3), (c.raft(1).is_leader(), c.commit(1)));
    c.network.end_holds();
    c.heartbeat(1);
    c.heartbeat(1);
    assert_eq!(RoleKind::Follower, c.role(1));
    assert!(c.commit(1) >= 4);
    c.run(6 * E);
    assert!([Some(2), Some(3)].contains(&c.leader()));
    assert_eq!(RoleKind::Follower, c.role(1), "it does not campaign");
}

#[test]
fn a39_both_halves_elect_the_leader_of_a_joint_configuration() {
    let mut c = with_two_learners();
    c.network.hold(|e| e.is_append_reply());
    c.change(1, joint(3, &[3, 4, 5], &[1, 2, 3], &[])).unwrap();
    c.deliver_all();
    c.crash(1);
    c.network.end_holds();
    c.isolate(2);
    c.elect(4);
    assert!(!c.raft(4).is_leader(), "3, 4, 5 hold only one of 1, 2, 3");
    let term = c.term(4);
    // Even real votes of the whole new half do not suffice.
    for from in [3, 5] {
        let reply = VoteReply {
            term: term + 1,
            granted: true,
            early: false,
        };
        c.inject(from, 4, Message::PreVoteReply(reply));
    }
    assert_eq!(RoleKind::PreCandidate, c.role(4));
    c.network.heal();
    c.elect(4);
    assert!(c.raft(4).is_leader());
}

#[test]
fn a40_exactly_one_final_configuration_is_committed() {
    let mut c = with_two_learners();
    c.change(1, joint(3, &[1, 2, 4], &[1, 2, 3], &[5])).unwrap();
    // All may store the joint entry; n1 dies when it knows the commit, with C_new on its way.
    c.network.hold(|e| match &e.message {
        Message::Append(a) => {
            let config = |e: &raftkeel::core::Entry| match &e.payload {
                Payload::Config(c, _) => !c.is_joint(),
                _ => false,
            };
            a.entries.iter().any(config)
        }
        _ => false,
    });
    c.deliver_all();
    let index = c.raft(1).configuration_index();
    assert!(!c.raft(1).configuration().is_joint());
    assert!(c.commit(1) < index);
    c.crash(1);
    c.network.end_holds();
    c.run(10 * E);
    let leader = c.leader().unwrap();
    let last: Vec<Configuration> = configurations(&c, leader)
        .into_iter()
        .filter(|c| c.epoch == 3)
        .collect();
    assert_eq!(
        vec![
            joint(3, &[1, 2, 4], &[1, 2, 3], &[5]),
            plain(3, &[1, 2, 4], &[5])
        ],
        last
    );
    assert!(!c.raft(leader).change_in_flight());
    c.restart(1);
    c.run(2 * E);
    assert_eq!(c.terms(leader), c.terms(1));
}

#[test]
fn a41_a_removed_node_with_a_high_term_costs_one_election() {
    let mut c = Cluster::led(3);
    c.isolate(3);
    c.change(1, joint(2, &[1, 2], &[1, 2, 3], &[])).unwrap();
    c.deliver_all();
    assert_eq!(ids(&[1, 2]), c.checker.configuration().voters);
    c.put(3, 20, &[1]);
    c.network.heal();
    c.heartbeat(1);
    for raw in [1, 2] {
        let request = VoteRequest {
            term: 20,
            last_index: 1,
            last_term: 1,
            transfer: false,
        };
        c.inject(3, raw, Message::Vote(request));
        assert_eq!(2, c.term(raw), "a living leader is known");
    }
    c.run(6 * E);
    assert_eq!((Some(1), 2), (c.leader(), c.term(1)));
    c.change(1, plain(3, &[1, 2], &[3])).unwrap();
    c.run(8 * E);
    let leader = c.leader().unwrap();
    assert_eq!(21, c.term(leader), "one election");
    assert_eq!(c.terms(leader), c.terms(3));
}

/// Voters 1 and 2, and n3 that was promoted without hearing of it; then n1 dies.
fn promoted_unawares(excluded: Option<Exclusion>) -> Cluster {
    let mut c = Cluster::led(3);
    c.change(1, joint(2, &[1, 2], &[1, 2, 3], &[])).unwrap();
    c.run(E);
    if let Some(exclusion) = excluded {
        c.exclude(3, exclusion);
    }
    // n3 stores its readmission, and never hears that it is committed.
    c.network.hold(|e| e.from == n(2));
    let (_, readmission) = c.change(1, plain(3, &[1, 2], &[3])).unwrap();
    c.run(E / 2);
    c.network.end_holds();
    c.network.hold(|e| e.to == n(3));
    c.run(E);
    assert_eq!(readmission, c.raft(3).log().last_index());
    assert!(c.commit(3) < readmission);
    c.change(1, joint(4, &[1, 2, 3], &[1, 2], &[])).unwrap();
    c.run(E);
    assert_eq!(&plain(4, &[1, 2, 3], &[]), c.checker.configuration());
    assert_eq!(2, c.raft(1).configuration_index() - readmission);
    c.crash(1);
    c.network.end_holds();
    c
}

#[test]
fn a42_a_voter_that_does_not_know_it_is_one_votes() {
    let mut c = promoted_unawares(None);
    assert!(c.raft(3).configuration().is_learner(n(3)));
    c.elect(2);
    assert_eq!(Some(2), c.leader());
}

#[test]
fn a_readmitted_voter_votes_before_it_knows_the_commit() {
    let exclusion = Exclusion { epoch: 2, index: 3 };
    let mut c = promoted_unawares(Some(exclusion));
    assert_eq!(Some(exclusion), c.raft(3).hard_state().excluded);
    c.elect(2);
    assert_eq!(Some(2), c.leader());
    c.run(E);
    assert_eq!(None, c.raft(3).hard_state().excluded);
}

#[test]
fn an_excluded_node_abstains_until_it_is_readmitted() {
    let mut c = Cluster::led(3);
    let exclusion = Exclusion { epoch: 2, index: 3 };
    c.exclude(3, exclusion);
    c.crash(1);
    c.run(10 * E);
    assert_eq!(None, c.leader(), "n2 alone is no majority");
    assert_eq!(0, c.raft(3).elections());
}

#[test]
fn a_learner_that_has_caught_up_is_reported_ready() {
    let mut c = Cluster::led_with_spares(3, 4);
    for i in 0..50 {
        c.propose(1, &format!("{i}")).unwrap();
    }
    c.change(1, plain(2, &[1, 2, 3], &[4])).unwrap();
    assert!(!c.raft(1).is_ready_to_vote(n(4)));
    c.run(4 * H);
    assert!(c.raft(1).is_ready_to_vote(n(4)));
    c.isolate(4);
    c.run(2 * E);
    assert!(!c.raft(1).is_ready_to_vote(n(4)), "out of contact");
}

#[test]
#[should_panic(expected = "a change of voters goes through a joint configuration")]
fn a_joint_configuration_without_a_change_of_voters_is_a_mistake() {
    let mut c = Cluster::led(3);
    let _ = c.change(1, joint(2, &[1, 2, 3], &[7], &[]));
}
