//! A1, A5 to A10, A43, A44: what is on the disk when something is said.

use raftkeel::core::{Index, Message, ProposeError, RoleKind, VoteReply, VoteRequest};

use crate::cluster::{Cluster, E, host_entry, n};
use crate::network::Envelope;

/// Votes granted by a server since the last look.
fn grants(cluster: &mut Cluster, from: u64) -> usize {
    let granted = |e: &&Envelope| match &e.message {
        Message::VoteReply(reply) => e.from == n(from) && reply.granted,
        _ => false,
    };
    cluster.network.take_record().iter().filter(granted).count()
}

fn vote(term: u64, last: (Index, u64)) -> Message {
    Message::Vote(VoteRequest {
        term,
        last_index: last.0,
        last_term: last.1,
        transfer: false,
    })
}

fn granted(term: u64) -> VoteReply {
    let granted = true;
    VoteReply {
        term,
        granted,
        early: false,
    }
}

/// n2 holds X = 3.2 in memory and has been asked for it again and again.
fn asked_twice() -> Cluster {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(3));
    c.node_mut(2).hold_writes = true;
    c.propose(1, "X").unwrap();
    let copy = c.append_of(1, 2, 1000);
    c.deliver_all();
    c.inject(1, 2, Message::Append(copy));
    let heartbeat = c.append_of(1, 3, 1001);
    c.inject(1, 2, Message::Append(heartbeat));
    assert_eq!(vec![1, 2, 2], c.terms(2));
    c
}

#[test]
fn a01_an_ack_does_not_ride_ahead_of_the_disk_on_a_duplicate() {
    let mut c = asked_twice();
    assert!(c.acks(2).iter().all(|index| *index <= 2));
    c.crash(2);
    c.crash(1);
    c.restart(2);
    c.network.end_holds();
    c.elect(2);
    assert!(c.raft(2).is_leader());

    let mut c = asked_twice();
    c.acks(2);
    c.complete_all(2);
    assert_eq!(Some(&3), c.acks(2).iter().max());
}

/// Five servers; n2's disk holds back what n1 and n3 made it append at index 3 in turn.
fn three_leaders() -> Cluster {
    let mut c = Cluster::led(5);
    c.network.hold(|e| e.to != n(2) && e.has_entries());
    c.node_mut(2).hold_writes = true;
    c.propose(1, "X").unwrap();
    c.deliver_all();
    c.network.end_holds();
    assert_eq!((2, 1), (c.term(2), c.node_mut(2).writes.len()));

    c.isolate(1);
    c.network.hold(|e| {
        e.has_entries() && e.to != n(2) || matches!(e.message, Message::Vote(_)) && e.to == n(2)
    });
    c.elect(3);
    assert_eq!(vec![1, 2, 3], c.terms(2), "n3's no-op replaced X");
    assert_eq!(2, c.node_mut(2).writes.len());
    c.network.end_holds();
    c
}

#[test]
fn a05_a_write_of_the_same_entry_long_ago_proves_nothing() {
    let mut c = three_leaders();
    c.crash(3);
    c.network.heal();
    c.network.hold(|e| e.to == n(2) || e.has_entries());
    c.elect(1);
    assert_eq!((true, 4), (c.raft(1).is_leader(), c.term(1)));
    // X again, and n1's no-op, with the same place and term that the oldest write has.
    let append = c.append_of(1, 2, 1);
    c.inject(1, 2, Message::Append(append));
    assert_eq!(vec![1, 2, 2, 4], c.terms(2));
    c.acks(2);
    c.complete(2);
    c.complete(2);
    assert_eq!(3, c.node_mut(2).disk.term(3).unwrap(), "the disk has n3's");
    assert!(c.acks(2).iter().all(|index| *index <= 2));
    c.complete(2);
    assert_eq!(vec![4], c.acks(2));
}

#[test]
fn a06_a_completion_does_not_cover_what_was_truncated() {
    let mut c = Cluster::led(5);
    c.network.hold(|e| e.to != n(2) && e.has_entries());
    c.node_mut(2).hold_writes = true;
    for data in ["a", "b", "c", "d", "e"] {
        c.propose(1, data).unwrap();
    }
    c.deliver_all();
    assert_eq!(7, c.raft(2).log().last_index());
    c.network.end_holds();
    c.isolate(1);
    c.network
        .hold(|e| matches!(e.message, Message::Vote(_)) && e.to == n(2));
    c.elect(3);
    assert_eq!(vec![1, 2, 3], c.terms(2));
    c.acks(2);
    while c.node_mut(2).writes.len() > 1 {
        c.complete(2);
        assert_eq!(2, c.raft(2).log().durable());
    }
    assert!(c.acks(2).iter().all(|index| *index <= 2));
    // A crash now finds the old tail: a prefix of what n1 once said.
    assert_eq!(Some(2), c.node_mut(2).disk.term(3));
    c.complete_all(2);
    assert_eq!(Some(&3), c.acks(2).iter().max());
}

#[test]
fn a07_a_vote_is_durable_before_it_is_given() {
    for landed in [0, 1] {
        let mut c = Cluster::new(3);
        c.node_mut(2).hold_writes = true;
        c.inject(1, 2, vote(2, (1, 1)));
        assert_eq!(0, grants(&mut c, 2), "n2 speaks before its disk");
        c.crash_after(2, landed);
        c.restart(2);
        c.inject(3, 2, vote(2, (1, 1)));
        assert_eq!(1 - landed, grants(&mut c, 2), "{landed} writes landed");
        c.inject(1, 2, vote(2, (1, 1)));
        assert_eq!(landed, grants(&mut c, 2), "the same vote may be repeated");
    }
}

#[test]
fn a08_a_candidates_own_vote_counts_when_it_is_durable() {
    let mut c = Cluster::new(3);
    c.network.hold(|e| e.from == n(3));
    c.node_mut(1).hold_writes = true;
    c.advance(1, 2 * E);
    c.deliver_all();
    assert_eq!((RoleKind::Candidate, 2), (c.role(1), c.term(1)));
    c.inject(2, 1, Message::VoteReply(granted(2)));
    assert_eq!(RoleKind::Candidate, c.role(1));
    c.crash(1);
    c.restart(1);
    assert_eq!((RoleKind::Follower, 1), (c.role(1), c.term(1)));
    c.network.end_holds();
    c.crash(2);
    c.elect(3);
    assert_eq!((true, 2), (c.raft(3).is_leader(), c.term(3)));
}

#[test]
fn a09_an_old_terms_own_writes_and_votes_do_not_count() {
    let mut c = Cluster::led(3);
    c.isolate(1);
    c.node_mut(1).hold_writes = true;
    for data in ["a", "b", "c", "d", "e"] {
        c.propose(1, data).unwrap();
    }
    c.deliver_all();
    c.elect(2);
    let append = c.append_of(2, 2, 1);
    c.inject(2, 1, Message::Append(append));
    assert_eq!(vec![1, 2, 3], c.terms(1), "n1 follows n2");
    assert_eq!(2, c.raft(1).log().durable());
    while c.node_mut(1).writes.len() > 1 {
        c.complete(1);
        assert_eq!(2, c.raft(1).log().durable());
    }
    c.complete_all(1);
    assert_eq!(3, c.raft(1).log().durable());

    // A pre-vote that comes when its asker campaigns already is no vote.
    let mut c = Cluster::new(5);
    c.network.hold(|e| matches!(e.message, Message::Vote(_)));
    c.advance(1, 2 * E);
    c.deliver_all();
    assert_eq!((RoleKind::Candidate, 2), (c.role(1), c.term(1)));
    for from in 2..=5 {
        for term in [2, 3] {
            c.inject(from, 1, Message::PreVoteReply(granted(term)));
        }
    }
    assert_eq!((RoleKind::Candidate, 2), (c.role(1), c.term(1)));
}

#[test]
fn a10_a_leader_whose_write_failed_leads_no_more() {
    let mut c = Cluster::led(3);
    c.node_mut(1).hold_writes = true;
    c.propose(1, "X").unwrap();
    c.deliver_all();
    assert_eq!(3, c.commit(1), "committed by the others");
    c.fail(1);
    assert_eq!(Err(ProposeError::NotLeader), c.propose(1, "Y"));
    c.network.take_record();
    c.inject(2, 1, vote(9, (9, 9)));
    c.advance(1, 10 * E);
    let said = c.network.take_record();
    assert!(said.is_empty(), "a poisoned server says {said:?}");
}

#[test]
fn a43_a_voter_without_its_state_abstains() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(2) && e.has_entries());
    let x = c.propose(1, "X").unwrap();
    c.deliver_all();
    assert_eq!(x.1, c.commit(1));
    c.crash(1);
    c.crash(3);
    c.network.end_holds();
    c.checker.disks_lie = true;
    c.checker.forget(n(3));
    c.model.forget(3);
    c.node_mut(3).disk = Default::default();
    c.restart(3);
    // The policy of this version: it abstains until the log reaches it again.
    c.run(20 * E);
    assert_eq!(None, c.leader());
    c.restart(1);
    c.run(10 * E);
    let leader = c.leader().unwrap();
    assert_eq!(x.0, c.terms(leader)[x.1 as usize - 1], "X is kept");
}

#[test]
fn a44_a_follower_that_lost_acknowledged_entries_is_refilled() {
    let mut c = Cluster::led(3);
    for i in 0..8 {
        c.propose(1, &format!("{i}")).unwrap();
    }
    c.heartbeat(1);
    assert_eq!(10, c.raft(1).progress(n(2)).unwrap().match_index());
    c.crash(2);
    c.model.forget(2);
    c.node_mut(2).disk.entries.truncate(6);
    c.restart(2);
    assert!(c.commit(2) <= 6);
    c.run(4 * E);
    assert_eq!((10, 10), (c.raft(2).log().last_index(), c.commit(2)));
    assert_eq!((true, 2), (c.raft(1).is_leader(), c.term(1)));
    assert!(c.raft(1).progress(n(2)).unwrap().has_lost_entries());
    assert!(!c.raft(1).progress(n(3)).unwrap().has_lost_entries());
}

#[test]
fn a_put_past_is_the_past_of_all() {
    let mut c = Cluster::new(2);
    c.put(1, 3, &[1, 2, 3]);
    assert_eq!(vec![1, 2, 3], c.terms(1));
    assert_eq!(Some(&host_entry(2, 2)), c.raft(1).log().get(2));
}
