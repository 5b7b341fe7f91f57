//! A11 to A18, A20: elections under partial failures, and what pre-vote, stickiness and
//! check-quorum owe each other.

use raftkeel::core::{Message, RoleKind, VoteRequest};

use crate::cluster::{Cluster, E, n};

#[test]
fn a11_a_refused_pre_vote_teaches_the_term() {
    let mut c = Cluster::new(3);
    c.crash(3);
    c.put(1, 5, &[1, 1, 5]);
    c.put(2, 7, &[1, 1]);
    c.run(20 * E);
    assert_eq!(Some(1), c.leader());
    assert!(c.term(1) >= 8);
}

#[test]
fn a12_a_pre_vote_of_a_low_term_is_answered() {
    let mut c = Cluster::new(3);
    c.put(1, 5, &[1]);
    c.put(2, 5, &[1]);
    c.isolate(3);
    c.elect(2);
    assert_eq!((true, 6), (c.raft(2).is_leader(), c.term(2)));
    c.crash(2);
    c.network.heal();
    c.run_until(4 * E, "n1 and n3 elect one of them", |c| {
        c.leader().is_some()
    });
}

#[test]
fn a13_a_pre_candidate_has_no_leader_to_be_loyal_to() {
    let mut c = Cluster::led(3);
    c.heartbeat(1);
    c.isolate(1);
    c.advance(2, 2 * E);
    c.deliver_all();
    assert_eq!(RoleKind::PreCandidate, c.role(2), "n3 has just heard n1");
    c.advance(3, 2 * E);
    c.deliver_all();
    assert_eq!(Some(3), c.leader());
}

#[test]
fn a14_a_pre_vote_changes_nothing_on_its_receiver() {
    let mut c = Cluster::led(5);
    c.crash(1);
    for raw in 1..=4 {
        c.network.cut(n(raw), n(5));
    }
    let mut elected_at = None;
    for at in 0..10 * E {
        if at % (E / 2) == 0 {
            let request = VoteRequest {
                term: c.term(5) + 1,
                last_index: 2,
                last_term: 2,
                transfer: false,
            };
            for raw in 2..=4 {
                let before = c.raft(raw).hard_state();
                let deadline = c.raft(raw).next_deadline();
                c.inject(5, raw, Message::PreVote(request.clone()));
                assert_eq!(before, c.raft(raw).hard_state());
                assert_eq!(deadline, c.raft(raw).next_deadline());
            }
        }
        c.step();
        elected_at = elected_at.or(c.leader().map(|_| at));
    }
    assert!(elected_at.is_some_and(|at| at < 5 * E));
    assert_eq!(2, c.term(5), "the deaf one never raised its term");
    assert_eq!(3, c.term(2), "one election was enough");
}

#[test]
fn a15_a_leader_without_quorum_makes_way() {
    let mut c = Cluster::led(5);
    c.only_links(&[(1, 2), (2, 3), (2, 4), (3, 4)]);
    c.run(2 * E);
    assert!(!c.raft(1).is_leader(), "check-quorum");
    c.run(8 * E);
    let leader = c.leader().unwrap();
    assert!([2, 3, 4].contains(&leader));
    let (_, index) = c.propose(leader, "W").unwrap();
    c.run(E);
    assert!(c.commit(leader) >= index);
}

#[test]
fn a16_one_broken_link_deposes_nobody() {
    let mut c = Cluster::new(3);
    c.elect(3);
    c.heartbeat(3);
    c.cut(1, 3);
    let (term, elections) = (c.term(3), c.raft(1).elections());
    let mut last = 0;
    for at in 0..30 * E {
        if at % 10 == 0 {
            last = c.propose(3, "W").unwrap().1;
        }
        c.step();
    }
    c.run(E);
    assert_eq!((Some(3), term), (c.leader(), c.term(3)));
    assert_eq!(last, c.commit(2));
    assert_eq!(elections, c.raft(1).elections(), "n1 never campaigned");
}

#[test]
fn a17_the_only_connected_node_takes_over() {
    let mut c = Cluster::new(5);
    c.elect(3);
    c.heartbeat(3);
    c.only_links(&[(1, 2), (1, 3), (1, 4), (1, 5)]);
    c.run(2 * E);
    assert!(!c.raft(3).is_leader(), "check-quorum");
    c.run(18 * E);
    assert_eq!(Some(1), c.leader());
    let (_, index) = c.propose(1, "W").unwrap();
    c.run(E);
    assert!(c.commit(4) >= index);
}

#[test]
fn a18_half_connected_nodes_cause_no_storm() {
    let mut c = Cluster::new(5);
    c.elect(3);
    c.heartbeat(3);
    c.only_links(&[(1, 2), (1, 3), (2, 3), (2, 4), (3, 5)]);
    let term = c.term(3);
    let mut last = 0;
    for at in 0..50 * E {
        let leader = c.leader();
        if let Some(leader) = leader.filter(|_| at % 10 == 0) {
            last = c.propose(leader, "W").unwrap().1;
        }
        c.step();
    }
    c.run(E);
    let leader = c.leader().unwrap();
    assert!(c.term(leader) <= term + 1, "at most one change of leader");
    assert!(c.commit(leader) >= last);
    assert!(last > 400, "work went on");
}

#[test]
fn a20_a_node_at_a_higher_term_is_freed_by_one_election() {
    let mut c = Cluster::led(3);
    c.put(3, 9, &[1]);
    c.run(6 * E);
    let leader = c.leader().unwrap();
    assert_eq!(10, c.term(leader), "one election");
    assert_eq!(Some(leader), c.raft(3).leader().map(|id| id.get()));
    assert_eq!(c.terms(leader), c.terms(3));
}

#[test]
fn a_server_alone_leads_at_once_and_after_a_restart() {
    let mut c = Cluster::new(1);
    c.step();
    assert_eq!((Some(1), 2), (c.leader(), c.commit(1)));
    c.crash(1);
    c.restart(1);
    c.step();
    assert_eq!((Some(1), 3), (c.leader(), c.commit(1)));
}

#[test]
fn a_leader_heard_within_the_base_timeout_is_not_deposed() {
    let mut c = Cluster::led(3);
    c.heartbeat(1);
    let request = VoteRequest {
        term: 9,
        last_index: 9,
        last_term: 9,
        transfer: false,
    };
    c.skip(2, E - 1);
    c.inject(3, 2, Message::Vote(request.clone()));
    assert_eq!(2, c.term(2));
    c.skip(2, 1);
    c.inject(3, 2, Message::Vote(request));
    assert_eq!(9, c.term(2));
}

/// In a ring of numbers: then one that has a short wait is alone with it, and splits no votes.
#[test]
fn who_is_next_to_the_leader_campaigns_first() {
    for leader in 1..=5 {
        let mut c = Cluster::led(5);
        c.run(2 * E);
        c.elect(leader);
        c.heartbeat(leader);
        let next = leader % 5 + 1;
        let wait = |raw| c.raft(raw).next_deadline() - c.clock(n(raw));
        let others = (1..=5).filter(|raw| *raw != leader && *raw != next);
        assert!((E..E + E / 12 + 1).contains(&wait(next)), "{}", wait(next));
        for other in others {
            let wait = wait(other);
            assert!((E + E / 12..E + E / 2).contains(&wait), "{wait}");
        }
    }
}
