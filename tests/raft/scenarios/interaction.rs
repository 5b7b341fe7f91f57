//! What the interaction tests of etcd's raft show of a cluster from outside, as far as it can be
//! said of this one; and where else that is shown:
//!
//! - async storage writes: here, and `a05`, `a06`, `a09`, `a32`; the race of two equal appends: `a05`
//! - campaign: here; a learner that must vote: `a42`; a single node:
//!   `a_server_alone_leads_at_once_and_after_a_restart`, `a24`
//! - check-quorum: `a15`, `a20`, `a_leader_heard_within_the_base_timeout_is_not_deposed`
//! - pre-vote: here, `a11`, `a12`, `a14`; with check-quorum: `a13`; votes: here, `a07`, `a08`
//! - changes of members: here; by who has not committed in its term, or one after another: `a36`;
//!   of two voters: `a39`, `a40`; of the leader: here, `a34`, `a38`,
//!   `a_transfer_outlives_the_end_of_a_joint_configuration`
//! - probing, heartbeats, lagging commits: here, `a55`, `a_repair_takes_one_probe_a_term`
//! - windows and pauses: here, `a_lost_window_is_sent_again_after_one_heartbeat`
//! - a slow follower after a compaction: `a51`; a snapshot that succeeds by the answer to an
//!   append, also to one further behind: `a48`
//!
//! Not here, for there is nothing of the kind:
//!
//! - A joint configuration that is left on demand, or a change that is not joint: a change of
//!   voters always is, and is always left by the leader itself.
//! - Configurations that count when they are applied, so that a change is dropped while one is
//!   committed and not applied; or without any checks: they count when they are appended.
//! - A leader that is forgotten on demand: it is when it is silent.

use raftkeel::core::{Flow, Message, RoleKind, VoteRequest};

use crate::cluster::{Cluster, E, H, joint, n, plain};
use crate::network::Envelope;

/// What kind of message it is.
fn kind(e: &Envelope) -> &'static str {
    match &e.message {
        Message::PreVote(_) => "pre-vote",
        Message::PreVoteReply(_) => "pre-vote reply",
        Message::Vote(_) => "vote",
        Message::VoteReply(_) => "vote reply",
        Message::Append(append) if append.entries.is_empty() => "heartbeat",
        Message::Append(_) => "entries",
        Message::AppendReply(_) => "reply",
        _ => "another",
    }
}

fn counts(c: &mut Cluster, what: &str) -> usize {
    let record = c.network.take_record();
    record.iter().filter(|e| kind(e) == what).count()
}

fn flow(c: &Cluster, leader: u64, of: u64) -> Flow {
    c.raft(leader).progress(n(of)).unwrap().flow().clone()
}

// ---- asynchronous storage ------------------------------------------------

#[test]
fn what_others_commit_is_applied_when_the_own_disk_has_it() {
    let mut c = Cluster::led(3);
    for raw in [1, 2] {
        c.node_mut(raw).hold_writes = true;
    }
    c.propose(1, "X").unwrap();
    c.deliver_all();
    assert_eq!(2, c.commit(1), "n3 alone has it");
    c.complete_all(2);
    c.deliver_all();
    assert_eq!([3, 3, 3], [1, 2, 3].map(|raw| c.commit(raw)));
    let applied = |c: &Cluster, raw: u64| c.nodes[&n(raw)].state.last.index;
    assert_eq!([2, 3, 3], [1, 2, 3].map(|raw| applied(&c, raw)));
    c.complete_all(1);
    assert_eq!(3, applied(&c, 1));
}

#[test]
fn entries_leave_before_the_leaders_disk_has_them_and_one_by_one() {
    let mut c = Cluster::led(3);
    c.node_mut(1).hold_writes = true;
    for _ in 0..3 {
        c.propose(1, "X").unwrap();
    }
    assert_eq!(6, counts(&mut c, "entries"));
    c.deliver_all();
    assert_eq!(5, c.commit(1));
    assert_eq!(2, c.raft(1).log().durable());
    c.complete(1);
    assert_eq!(3, c.raft(1).log().durable());
    c.complete_all(1);
    assert_eq!(5, c.raft(1).log().durable());
}

// ---- elections -----------------------------------------------------------

#[test]
fn a_campaign_asks_everybody_twice_and_opens_its_term() {
    let mut c = Cluster::new(3);
    for raw in [2, 3] {
        c.skip(raw, E);
    }
    c.advance(1, 2 * E);
    assert_eq!((RoleKind::PreCandidate, 1), (c.role(1), c.term(1)));
    assert_eq!(2, counts(&mut c, "pre-vote"));
    c.deliver_all();
    assert_eq!((Some(1), 2), (c.leader(), c.term(3)));
    let record = c.network.take_record();
    let count = |what| record.iter().filter(|e| kind(e) == what).count();
    let asked = ["pre-vote reply", "vote", "vote reply", "entries"].map(count);
    assert_eq!([2, 2, 2, 2], asked);
    assert_eq!(2, c.commit(1));
    // Who answered last hears of the commit with the next heartbeat.
    c.heartbeat(1);
    for raw in 1..=3 {
        assert_eq!((vec![1, 2], 2), (c.terms(raw), c.commit(raw)));
        assert_eq!(Some(n(1)), c.raft(raw).leader());
    }
}

#[test]
fn who_lags_gets_no_pre_vote_and_disturbs_nobody() {
    let mut c = Cluster::led(3);
    c.isolate(3);
    c.propose(1, "X").unwrap();
    c.deliver_all();
    c.network.heal();
    c.step_down(1);
    c.elect(3);
    assert_eq!((None, 2), (c.leader(), c.term(3)), "its log is older");
    assert_eq!((2, 2), (c.term(1), c.term(2)));
    c.elect(2);
    assert_eq!((Some(2), 3), (c.leader(), c.term(1)));
    c.heartbeat(2);
    assert_eq!(vec![1, 2, 2, 3], c.terms(3));
}

/// A voter whose log ends with 3.3 is asked in term 4.
#[test]
fn a_vote_goes_to_a_log_that_is_as_new() {
    let ask = |index, term| {
        Message::Vote(VoteRequest {
            term: 4,
            last_index: index,
            last_term: term,
            transfer: false,
        })
    };
    let logs = [
        ((3, 3), true),
        ((4, 3), true),
        ((2, 4), true),
        ((2, 3), false),
        ((9, 2), false),
        ((3, 2), false),
    ];
    for ((index, term), granted) in logs {
        let mut c = Cluster::new(3);
        c.put(2, 3, &[1, 1, 3]);
        let gives = |c: &mut Cluster, from| {
            c.network.take_record();
            c.inject(from, 2, ask(index, term));
            let record = c.network.take_record();
            let given = |e: &Envelope| match &e.message {
                Message::VoteReply(reply) => reply.granted && reply.term == 4,
                _ => false,
            };
            record.iter().any(given)
        };
        assert_eq!(granted, gives(&mut c, 1), "{index}.{term}");
        assert_eq!(granted, gives(&mut c, 1), "{index}.{term} again");
        assert!(!granted || !gives(&mut c, 3), "one vote a term");
        assert_eq!((4, 3), (c.term(2), c.raft(2).log().last_index()));
    }
}

// ---- replication ---------------------------------------------------------

/// The new leader's log holds what is committed, and it does not know that yet.
#[test]
fn a_commit_index_does_not_go_back_by_a_new_leaders_heartbeat() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(2) && kind(e) == "heartbeat");
    c.propose(1, "X").unwrap();
    c.deliver_all();
    assert_eq!([3, 2, 3], [1, 2, 3].map(|raw| c.commit(raw)));
    c.network.end_holds();
    c.network.hold(|e| kind(e) == "entries");
    c.step_down(1);
    c.elect(2);
    assert!(c.raft(2).is_leader());
    c.network.take_record();
    c.heartbeat(2);
    assert_eq!(2, counts(&mut c, "heartbeat"));
    assert_eq!([3, 2, 3], [1, 2, 3].map(|raw| c.commit(raw)));
    assert_eq!(Some(n(2)), c.raft(3).leader());
    c.release();
    assert_eq!([4, 4, 4], [1, 2, 3].map(|raw| c.commit(raw)));
}

#[test]
fn a_heartbeat_brings_what_a_lost_commit_did_not() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(3) && kind(e) == "heartbeat");
    c.propose(1, "X").unwrap();
    c.deliver_all();
    c.network.end_holds();
    assert_eq!((3, 2), (c.raft(3).log().durable(), c.commit(3)));
    c.heartbeat(1);
    assert_eq!(3, c.commit(3));
}

#[test]
fn the_next_entries_bring_the_commit_of_the_last() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(3) && kind(e) == "heartbeat");
    for next in 3..6 {
        c.propose(1, "X").unwrap();
        c.deliver_all();
        assert_eq!((next, next - 1), (c.commit(1), c.commit(3)));
    }
}

/// Nothing is proposed meanwhile.
#[test]
fn an_answered_heartbeat_ends_a_probe_that_got_lost() {
    let mut c = Cluster::new(3);
    c.network.hold(|e| e.to == n(3) && kind(e) == "entries");
    c.elect(1);
    assert_eq!(Flow::Probe { waiting: true }, flow(&c, 1, 3));
    assert_eq!(Flow::Replicate, flow(&c, 1, 2));
    c.network.end_holds();
    c.heartbeat(1);
    assert_eq!(Flow::Replicate, flow(&c, 1, 3));
    assert_eq!((vec![1, 2], 2), (c.terms(3), c.commit(3)));
}

/// Figure 7 of the paper: followers that lack entries, have others, or both.
#[test]
fn a_leader_makes_any_log_its_own() {
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let mut c = Cluster::new(7);
    let longer = |more: &[u64]| [&leader[..], more].concat();
    c.put(1, 6, &leader);
    c.put(2, 6, &leader[..9]);
    c.put(3, 4, &leader[..4]);
    c.put(4, 6, &longer(&[6]));
    c.put(5, 7, &longer(&[7, 7]));
    c.put(6, 4, &[1, 1, 1, 4, 4, 4, 4]);
    c.put(7, 3, &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]);
    c.elect(1);
    assert_eq!((Some(1), 8), (c.leader(), c.term(1)));
    for raw in 2..=7 {
        let granted = c.nodes[&n(raw)].disk.hard.vote == Some(n(1));
        assert_eq!(raw != 4 && raw != 5, granted, "the vote of n{raw}");
    }
    c.heartbeat(1);
    for raw in 2..=7 {
        assert_eq!((longer(&[8]), 11), (c.terms(raw), c.commit(raw)), "n{raw}");
        assert_eq!(Flow::Replicate, flow(&c, 1, raw));
    }
}

/// A peer that answers nothing gets no more entries than the window holds, and costs the others
/// nothing.
#[test]
fn a_full_window_stops_entries_and_no_heartbeats() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(3));
    for _ in 0..100 {
        c.propose(1, "X").unwrap();
        c.deliver_all();
    }
    assert_eq!(102, c.commit(2));
    let to_n3 = |c: &mut Cluster, what| {
        let record = c.network.take_record().into_iter();
        record.filter(|e| e.to == n(3) && kind(e) == what).count()
    };
    assert_eq!(64, to_n3(&mut c, "entries"));
    for _ in 0..3 {
        c.heartbeat(1);
        assert_eq!(1, to_n3(&mut c, "heartbeat"));
    }
    c.release();
    assert_eq!((102, 102), (c.commit(3), c.raft(3).log().last_index()));
}

// ---- membership ----------------------------------------------------------

#[test]
fn a_voter_alone_is_joined_by_two_and_left_again() {
    let mut c = Cluster::led_with_spares(1, 3);
    c.isolate(1);
    let (_, entered) = c.change(1, joint(2, &[1, 2, 3], &[1], &[])).unwrap();
    c.deliver_all();
    c.heartbeat(1);
    assert_eq!(entered - 1, c.commit(1), "two of three are needed");
    assert!(c.raft(1).configuration().is_joint());
    c.network.heal();
    for _ in 0..3 {
        c.heartbeat(1);
    }
    assert_eq!([entered + 1; 3], [1, 2, 3].map(|raw| c.commit(raw)));
    for raw in 1..=3 {
        assert_eq!(&plain(2, &[1, 2, 3], &[]), c.raft(raw).configuration());
    }
    c.change(1, joint(3, &[1], &[1, 2, 3], &[])).unwrap();
    c.deliver_all();
    assert_eq!(&plain(3, &[1], &[]), c.raft(1).configuration());
    assert!(c.raft(1).progress(n(2)).is_none());
    c.isolate(1);
    let (_, index) = c.propose(1, "X").unwrap();
    assert_eq!(index, c.commit(1), "nobody else is needed");
}

#[test]
fn a_joint_configuration_is_not_left_when_what_came_before_is_committed() {
    let mut c = Cluster::led_with_spares(3, 4);
    c.change(1, plain(2, &[1, 2, 3], &[4])).unwrap();
    for _ in 0..3 {
        c.heartbeat(1);
    }
    let (_, before) = c.propose(1, "X").unwrap();
    c.network.hold(|e| kind(e) == "entries");
    let (_, entered) = c
        .change(1, joint(3, &[1, 2, 3, 4], &[1, 2, 3], &[]))
        .unwrap();
    c.deliver_all();
    assert_eq!((before, entered), (c.commit(1), before + 1));
    assert_eq!(entered, c.raft(1).log().last_index());
    c.release();
    c.heartbeat(1);
    assert_eq!(entered + 1, c.commit(1));
    assert_eq!(&plain(3, &[1, 2, 3, 4], &[]), c.raft(1).configuration());
}

#[test]
fn a_leader_that_is_replaced_leads_to_the_end_and_steps_down() {
    let mut c = Cluster::led_with_spares(3, 4);
    c.change(1, plain(2, &[1, 2, 3], &[4])).unwrap();
    for _ in 0..3 {
        c.heartbeat(1);
    }
    c.network.hold(|e| e.from == n(2) && e.is_append_reply());
    let (_, entered) = c.change(1, joint(3, &[2, 3, 4], &[1, 2, 3], &[])).unwrap();
    c.deliver_all();
    // n1 counts in the outgoing half, and not in the incoming one, where n3 and n4 are enough.
    assert_eq!(entered + 1, c.raft(3).log().last_index());
    assert_eq!(RoleKind::Follower, c.role(1));
    assert_eq!(entered + 1, c.commit(1), "it is committed");
    c.network.end_holds();
    c.run_until(5 * E, "another leads", |c| {
        c.leader().is_some_and(|leader| leader != 1)
    });
    let leader = c.leader().unwrap();
    let (_, index) = c.propose(leader, "X").unwrap();
    c.run(2 * H);
    assert_eq!([index; 3], [2, 3, 4].map(|raw| c.commit(raw)));
    assert_eq!(&plain(3, &[2, 3, 4], &[]), c.raft(leader).configuration());
}
