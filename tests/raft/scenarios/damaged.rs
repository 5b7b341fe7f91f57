//! Logs that have lost what was acknowledged: what a node with a claim does and does not, and how
//! it is made whole (the design's page on storage, section 2, recovery 5).

use raftkeel::core::{
    AppendOutcome, AppendReply, Flow, Index, Message, Position, RoleKind, Term, TimeoutNow,
};

use crate::cluster::{Cluster, E, first_entry, n};
use crate::network::Envelope;

fn at(term: Term, index: Index) -> Position {
    Position { index, term }
}

fn claim(c: &Cluster, raw: u64) -> Option<Position> {
    c.raft(raw).hard_state().claim
}

/// X = 3.2 and Y = 4.2 are committed by n1 and n2; n2 has lost both, and says so. n3 has neither.
fn lost_by_n2() -> Cluster {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(3) && e.has_entries());
    c.propose(1, "X").unwrap();
    c.propose(1, "Y").unwrap();
    c.deliver_all();
    assert_eq!(4, c.commit(1));
    c.crash(2);
    c.damage(2, 2, at(2, 4));
    c
}

#[test]
fn who_lost_an_entry_elects_nobody_who_lacks_it() {
    let mut c = lost_by_n2();
    c.crash(1);
    c.network.end_holds();
    c.restart(2);
    c.run(20 * E);
    assert_eq!(None, c.leader(), "n3 lacks X and Y");
    assert_eq!(Some(at(2, 4)), claim(&c, 2));
    c.restart(1);
    c.run_until(10 * E, "Y is everywhere", |c| {
        (1..=3).all(|raw| c.commit(raw) >= 5)
    });
    assert_eq!(2, c.terms(2)[3], "Y is kept");
    assert_eq!(None, claim(&c, 2));
}

#[test]
fn a_claim_outlives_restarts() {
    let mut c = lost_by_n2();
    c.crash(1);
    c.network.end_holds();
    for _ in 0..3 {
        c.restart(2);
        c.run(3 * E);
        assert_eq!(Some(at(2, 4)), claim(&c, 2));
        assert_eq!(None, c.leader());
        c.crash(2);
    }
}

#[test]
fn who_lost_an_entry_does_not_campaign() {
    let mut c = lost_by_n2();
    c.network.end_holds();
    c.restart(2);
    c.isolate(2);
    c.run(10 * E);
    assert_eq!((RoleKind::Follower, 2), (c.role(2), c.term(2)));
    assert_eq!(0, c.raft(2).elections());
}

#[test]
fn who_lost_an_entry_does_not_campaign_on_a_leaders_word_either() {
    let mut c = lost_by_n2();
    c.restart(2);
    c.network.hold(|e| e.to == n(2) && e.has_entries());
    c.heartbeat(1);
    assert_eq!(Some(n(1)), c.raft(2).leader());
    let word = TimeoutNow {
        term: 2,
        seq: 1000,
        last_index: 2,
        last_term: 2,
    };
    c.inject(1, 2, Message::TimeoutNow(word));
    assert_eq!((RoleKind::Follower, 2), (c.role(2), c.term(2)));
}

#[test]
fn a_claim_ends_when_the_disk_reaches_it_and_not_before() {
    let mut c = lost_by_n2();
    c.network.end_holds();
    c.restart(2);
    c.node_mut(2).hold_writes = true;
    c.run(2 * E);
    assert_eq!(vec![1, 2, 2, 2], c.terms(2), "refilled in memory");
    assert_eq!(Some(at(2, 4)), claim(&c, 2));
    c.complete(2);
    assert_eq!(None, claim(&c, 2));
    assert!(c.node_mut(2).disk.hard.claim.is_some(), "not written yet");
    c.complete_all(2);
    assert_eq!(None, c.node_mut(2).disk.hard.claim);
    let progress = c.raft(1).progress(n(2)).unwrap();
    assert!(progress.has_lost_entries(), "its leader has noticed");
    assert_eq!(
        (true, 2, 4),
        (c.raft(1).is_leader(), c.term(1), c.commit(2))
    );
}

#[test]
fn a_crash_before_the_end_of_a_claim_is_durable_ends_it_again() {
    let mut c = lost_by_n2();
    c.network.end_holds();
    c.restart(2);
    c.node_mut(2).hold_writes = true;
    c.run(2 * E);
    c.complete(2);
    c.crash(2);
    assert!(c.node_mut(2).disk.hard.claim.is_some());
    c.restart(2);
    assert_eq!(None, claim(&c, 2), "the log reaches it");
}

/// Of n2, who may have held more, up to index 1000.
fn lost_more_by_n2() -> Cluster {
    let mut c = lost_by_n2();
    c.damage(2, 2, at(2, 1000));
    c.restart(2);
    c
}

fn is_answer(e: &Envelope) -> bool {
    matches!(e.message, Message::LogEndReply(_))
}

#[test]
fn a_bound_is_held_until_a_later_term() {
    let mut c = lost_more_by_n2();
    c.network.end_holds();
    c.network.hold(is_answer);
    c.run(4 * E);
    assert_eq!(4, c.commit(2), "refilled");
    assert_eq!(Some(at(2, 1000)), claim(&c, 2), "it may have held more");
    c.crash(1);
    c.run(10 * E);
    assert_eq!(None, c.leader(), "n3 may lack what n2 held");
    c.restart(1);
    c.run_until(10 * E, "a leader of a later term", |c| {
        claim(c, 2).is_none()
    });
    assert!(c.term(2) > 2);
}

#[test]
fn the_leader_of_the_term_says_how_much_there_was() {
    let mut c = lost_more_by_n2();
    c.network.end_holds();
    c.network.hold(|e| e.to == n(2) && e.has_entries());
    c.run(2 * E);
    assert_eq!(Some(at(2, 4)), claim(&c, 2));
    c.release();
    c.run(2 * E);
    assert_eq!((None, 2, 4), (claim(&c, 2), c.term(2), c.commit(2)));
}

#[test]
fn what_was_answered_to_an_earlier_run_says_nothing() {
    let mut c = lost_more_by_n2();
    c.network.end_holds();
    c.network.hold(is_answer);
    c.run(2 * E);
    assert_eq!(Some(at(2, 1000)), claim(&c, 2));
    c.crash(2);
    // Meanwhile it got and lost more.
    c.damage(2, 2, at(2, 1000));
    c.restart(2);
    let late = c.network.end_holds();
    c.network.hold(|e| e.from == n(2));
    c.heartbeat(1);
    assert_eq!(Some(n(1)), c.raft(2).leader());
    let late: Vec<Envelope> = late.into_iter().filter(is_answer).collect();
    assert!(!late.is_empty());
    late.into_iter().for_each(|answer| c.deliver(answer));
    assert_eq!(Some(at(2, 1000)), claim(&c, 2));
}

#[test]
fn what_was_compacted_is_made_up_for_by_a_snapshot() {
    let mut c = lost_by_n2();
    c.network.end_holds();
    c.run(2 * E);
    c.save(1);
    c.compact(1, 4, true, true);
    assert_eq!(4, c.raft(1).log().base().index);
    c.restart(2);
    c.run_until(10 * E, "n2 follows again", |c| {
        let progress = c.raft(1).progress(n(2)).unwrap();
        claim(c, 2).is_none() && *progress.flow() == Flow::Replicate
    });
    assert_eq!(at(2, 4), c.raft(2).log().base());
}

#[test]
fn who_lost_everything_votes_for_who_has_it() {
    let mut c = Cluster::led(3);
    c.propose(1, "X").unwrap();
    c.heartbeat(1);
    (1..=3).for_each(|raw| c.crash(raw));
    c.damage(2, 0, at(2, 3));
    c.damage(3, 1, at(2, 3));
    c.restart(2);
    let first = first_entry(&[1, 2, 3]);
    let node = c.node_mut(2);
    let raft = node.raft.as_mut().unwrap();
    assert!(!raft.bootstrap(first), "it is no new node");
    c.restart(3);
    c.run(10 * E);
    assert_eq!(None, c.leader());
    c.restart(1);
    c.run_until(10 * E, "everybody is whole", |c| {
        (1..=3).all(|raw| c.commit(raw) >= 4 && claim(c, raw).is_none())
    });
    assert_eq!(Some(1), c.leader());
}

#[test]
fn nobody_leads_where_all_have_lost_entries() {
    let mut c = Cluster::led(3);
    c.propose(1, "X").unwrap();
    c.heartbeat(1);
    (1..=3).for_each(|raw| c.crash(raw));
    for raw in 1..=3 {
        c.damage(raw, 2, at(2, 3));
        c.restart(raw);
    }
    c.run(20 * E);
    assert_eq!(None, c.leader());
    assert!((1..=3).all(|raw| c.term(raw) == 2 && claim(&c, raw).is_some()));
}

#[test]
fn an_old_answer_does_not_stop_the_refilling() {
    let mut c = lost_by_n2();
    c.restart(2);
    c.network.hold(|e| e.to == n(2) && e.has_entries());
    let matched = |c: &Cluster| c.raft(1).progress(n(2)).unwrap().match_index();
    c.heartbeat(1);
    assert_eq!(0, matched(&c), "n1 knows better than to count on it");
    // An answer of the run before has waited in the network.
    let late = AppendReply {
        term: 2,
        seq: 4,
        outcome: AppendOutcome::Accepted { match_index: 4 },
    };
    c.inject(2, 1, Message::AppendReply(late));
    assert_eq!(4, matched(&c));
    c.heartbeat(1);
    assert_eq!((0, 4), (matched(&c), c.commit(1)));
    c.network.end_holds();
    c.run(2 * E);
    assert_eq!((4, 4, None), (matched(&c), c.commit(2), claim(&c, 2)));
}
