//! A21 to A25 and others: reads without a log entry, at the leader and at those who follow it.

use raftkeel::core::{MAX_READS, Message, ReadError, ReadId, ReadIndexReply};

use crate::cluster::{Cluster, E, H, joint, n, plain};
use crate::network::Envelope;

/// Answers to appends that a server has sent.
fn replies(c: &mut Cluster, from: u64) -> Vec<Envelope> {
    let sent = c.network.take_record();
    let mine = |e: &Envelope| e.from == n(from) && e.is_append_reply();
    sent.into_iter().filter(mine).collect()
}

/// n1 is cut off in term 2 and does not know it; n3 leads term 3 and has committed 4.3.
fn replaced(c: &mut Cluster) {
    c.isolate(1);
    c.elect(3);
    let (_, index) = c.propose(3, "W").unwrap();
    c.deliver_all();
    assert_eq!((Some(3), index), (c.leader(), c.commit(2)));
    assert!(c.raft(1).is_leader());
}

#[test]
fn a21_copies_of_old_answers_confirm_nothing() {
    let mut c = Cluster::led(3);
    let first = c.read(1).unwrap();
    c.deliver_all();
    assert_eq!(Some(Ok(2)), c.outcome(1, first));
    let kept = replies(&mut c, 2);
    assert!(!kept.is_empty());
    replaced(&mut c);
    let reads = [c.read(1).unwrap(), c.read(1).unwrap()];
    for copy in kept {
        c.deliver(copy);
    }
    assert_eq!([None, None], reads.map(|read| c.outcome(1, read)));
    c.network.heal();
    c.run(2 * E);
    let lost = Some(Err(ReadError::LeaderLost));
    assert_eq!([lost, lost], reads.map(|read| c.outcome(1, read)));
}

#[test]
fn a22_an_answer_to_an_older_heartbeat_confirms_nothing() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(1) && e.is_append_reply());
    c.heartbeat(1);
    let answers = c.network.end_holds();
    assert_eq!(2, answers.len());
    replaced(&mut c);
    let read = c.read(1).unwrap();
    for answer in answers {
        c.deliver(answer);
    }
    assert_eq!(None, c.outcome(1, read));
}

#[test]
fn a23_a_new_leader_answers_nothing_before_its_own_entry_is_committed() {
    let mut c = Cluster::led(3);
    // n2 has X at 3 and does not know that it is committed.
    c.network
        .hold(|e| e.to == n(2) && !e.has_entries() && e.is_append());
    c.propose(1, "X").unwrap();
    c.deliver_all();
    assert_eq!((3, 2), (c.commit(1), c.commit(2)));
    c.crash(1);
    c.network.end_holds();
    c.network.hold(|e| e.from == n(2) && e.has_entries());
    c.elect(2);
    assert!(c.raft(2).is_leader());
    let read = c.read(2).unwrap();
    let follower = c.read(3);
    c.heartbeat(2);
    assert_eq!(
        None,
        c.outcome(2, read),
        "its majority answers, but 2 is not 3"
    );
    c.release();
    c.heartbeat(2);
    assert_eq!(Some(Ok(4)), c.outcome(2, read));
    if let Ok(read) = follower {
        assert_eq!(Some(Ok(4)), c.outcome(3, read));
    }
}

#[test]
fn a24_a_voter_alone_reads_nothing_old_after_a_restart() {
    let mut c = Cluster::new(1);
    c.step();
    for data in ["a", "b", "c"] {
        c.propose(1, data).unwrap();
    }
    assert_eq!(5, c.commit(1));
    c.crash(1);
    c.restart(1);
    assert!(c.commit(1) < 5, "it has forgotten how far it had committed");
    assert_eq!(Err(ReadError::NoLeader), c.read(1));
    c.node_mut(1).hold_writes = true;
    c.step();
    while !c.raft(1).is_leader() {
        c.complete(1);
    }
    let read = c.read(1).unwrap();
    assert_eq!(None, c.outcome(1, read), "its own entry is not written");
    c.complete_all(1);
    assert_eq!(Some(Ok(6)), c.outcome(1, read));
}

/// n1 leads by a lease and has told n2 to take over, which is to come to n2 later.
fn handing_over() -> (Cluster, Vec<Envelope>) {
    let mut c = Cluster::led_with(3, |options| options.lease_reads = true);
    c.heartbeat(1);
    let read = c.read(1).unwrap();
    assert_eq!(Some(Ok(2)), c.outcome(1, read), "no question was asked");
    c.network
        .hold(|e| matches!(e.message, Message::TimeoutNow(_)));
    c.transfer(1, Some(2)).unwrap();
    let word = c.network.end_holds();
    assert_eq!(1, word.len());
    (c, word)
}

/// n2 takes over without n1's knowledge, and commits more than n1 knows.
fn takes_over(c: &mut Cluster, word: Vec<Envelope>) {
    c.isolate(1);
    for envelope in word {
        c.deliver(envelope);
    }
    c.deliver_all();
    let (_, index) = c.propose(2, "W").unwrap();
    c.deliver_all();
    assert_eq!((Some(2), index), (c.leader(), c.commit(3)));
    assert_eq!((true, 2), (c.raft(1).is_leader(), c.commit(1)));
    let read = c.read(1).unwrap();
    assert_eq!(None, c.outcome(1, read));
    c.run(2 * E);
    assert_eq!(Some(Err(ReadError::LeaderLost)), c.outcome(1, read));
}

#[test]
fn a25_the_word_to_take_over_voids_the_lease() {
    let (mut c, word) = handing_over();
    takes_over(&mut c, word);
}

#[test]
fn a25_a_word_that_may_still_be_heeded_voids_the_lease() {
    let (mut c, word) = handing_over();
    c.cut(1, 2);
    c.run(E);
    assert_eq!(None, c.raft(1).transferring(), "given up");
    assert_eq!(Some(n(1)), c.raft(2).leader(), "n2 waits for n1 still");
    takes_over(&mut c, word);
}

/// Whatever else it forgets by a restart, an entry that is on its disk makes the word out of date.
#[test]
fn a25_a_lease_comes_back_when_the_target_holds_a_later_entry() {
    let (mut c, _) = handing_over();
    c.network
        .hold(|e| matches!(e.message, Message::TimeoutNow(_)));
    c.run(E + 2 * H);
    assert_eq!(None, c.raft(1).transferring(), "given up");
    let read = c.read(1).unwrap();
    assert_eq!(None, c.outcome(1, read), "it has to ask");
    c.propose(1, "X").unwrap();
    c.run(2 * H);
    let read = c.read(1).unwrap();
    assert_eq!(Some(Ok(3)), c.outcome(1, read));
}

#[test]
fn followers_and_learners_read_through_the_leader() {
    let mut c = Cluster::led_with_spares(3, 4);
    c.change(1, plain(2, &[1, 2, 3], &[4])).unwrap();
    c.deliver_all();
    c.heartbeat(1);
    c.network
        .hold(|e| e.to != n(3) && e.is_append() && !e.has_entries());
    let (_, index) = c.propose(1, "X").unwrap();
    c.deliver_all();
    assert_eq!((index, index - 1), (c.commit(1), c.commit(2)));
    let reads = [(2, c.read(2).unwrap()), (4, c.read(4).unwrap())];
    c.deliver_all();
    for (raw, read) in reads {
        assert_eq!(None, c.outcome(raw, read), "n{raw} has not applied X");
    }
    c.release();
    c.heartbeat(1);
    for (raw, read) in reads {
        assert_eq!(Some(Ok(index)), c.outcome(raw, read));
    }
}

#[test]
fn reads_of_one_call_share_one_round() {
    let mut c = Cluster::led(3);
    let mut reads = Vec::new();
    for raw in [1, 2] {
        c.network.take_record();
        let made = c.reads(raw, 2).into_iter();
        reads.extend(made.map(|read| (raw, read.unwrap())));
        let sent = c.network.take_record();
        let wanted = if raw == 1 { 2 } else { 1 };
        assert_eq!(wanted, sent.len(), "an append to each, or one question");
    }
    assert!(
        reads
            .iter()
            .all(|(raw, read)| c.outcome(*raw, *read).is_none())
    );
}

#[test]
fn an_answer_to_an_earlier_run_is_not_taken() {
    let mut c = Cluster::led(3);
    c.network
        .hold(|e| matches!(e.message, Message::ReadIndexReply(_)));
    c.read(2).unwrap();
    c.deliver_all();
    let answers = c.network.end_holds();
    assert_eq!(1, answers.len());
    c.crash(2);
    c.restart(2);
    c.heartbeat(1);
    c.propose(1, "X").unwrap();
    c.deliver_all();
    c.network.hold(|e| e.from == n(2));
    let read = c.read(2).unwrap();
    assert_eq!(ReadId(1), read, "numbered like the one of the earlier run");
    for answer in answers {
        c.deliver(answer);
    }
    assert_eq!(None, c.outcome(2, read));
    c.release();
    assert_eq!(Some(Ok(3)), c.outcome(2, read));
}

#[test]
fn an_answer_is_for_reads_up_to_its_number_and_of_the_leader_only() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.from == n(2));
    let reads = [c.read(2).unwrap(), c.read(2).unwrap()];
    let answer = |term| {
        Message::ReadIndexReply(ReadIndexReply {
            term,
            run: 1,
            seq: 1,
            index: 2,
        })
    };
    c.inject(3, 2, answer(2));
    c.inject(1, 2, answer(1));
    assert_eq!([None, None], reads.map(|read| c.outcome(2, read)));
    c.inject(1, 2, answer(2));
    assert_eq!([Some(Ok(2)), None], reads.map(|read| c.outcome(2, read)));
}

#[test]
fn a_question_that_gets_lost_is_asked_again() {
    let mut c = Cluster::led(3);
    c.cut(1, 2);
    let read = c.read(2).unwrap();
    c.network.heal();
    c.run(H + 5);
    assert_eq!(Some(Ok(2)), c.outcome(2, read));
    c.network.cut(n(2), n(1));
    let read = c.read(2).unwrap();
    c.run(2 * E - 5);
    assert_eq!(None, c.outcome(2, read));
    c.run(5);
    assert_eq!(Some(Err(ReadError::TimedOut)), c.outcome(2, read));
    assert_eq!(
        Some(n(1)),
        c.raft(2).leader(),
        "it hears the leader all the time"
    );
}

#[test]
fn a_leader_without_quorum_answers_nobody() {
    let mut c = Cluster::led(5);
    for raw in 3..=5 {
        c.crash(raw);
    }
    let reads = [(1, c.read(1).unwrap()), (2, c.read(2).unwrap())];
    c.run(3 * E);
    for (raw, read) in reads {
        let lost = c.outcome(raw, read);
        assert!(lost.is_some_and(|r| r.is_err()), "n{raw}: {lost:?}");
    }
    assert_eq!(Err(ReadError::NoLeader), c.read(1));
}

#[test]
fn a_change_of_leader_fails_what_was_not_answered() {
    let mut c = Cluster::led(3);
    c.network
        .hold(|e| e.from == n(2) && matches!(e.message, Message::ReadIndex(_)));
    let read = c.read(2).unwrap();
    c.isolate(1);
    c.elect(3);
    assert_eq!(Some(Err(ReadError::LeaderLost)), c.outcome(2, read));
    // The question of the old term means nothing to the new leader.
    for question in c.network.end_holds() {
        c.network.take_record();
        c.inject(2, 3, question.message);
        c.heartbeat(3);
        let sent = c.network.take_record();
        let answer = |e: &Envelope| matches!(e.message, Message::ReadIndexReply(_));
        assert!(!sent.iter().any(answer));
    }
}

#[test]
fn reads_need_both_majorities_of_a_joint_configuration() {
    let mut c = Cluster::led_with_spares(3, 5);
    c.change(1, plain(2, &[1, 2, 3], &[4, 5])).unwrap();
    c.deliver_all();
    c.heartbeat(1);
    c.network
        .hold(|e| e.is_append_reply() && e.from != n(4) && e.from != n(5));
    c.change(1, joint(3, &[1, 4, 5], &[1, 2, 3], &[])).unwrap();
    c.deliver_all();
    let read = c.read(1).unwrap();
    c.deliver_all();
    assert_eq!(None, c.outcome(1, read), "n1, n4, n5 are only one half");
    c.release();
    c.heartbeat(1);
    assert!(c.outcome(1, read).is_some_and(|r| r.is_ok()));
}

#[test]
fn a_smaller_quorum_confirms_what_waits() {
    let mut c = Cluster::led(5);
    // n2 answers everything, n3 only what tells it of entries, n4 and n5 nothing.
    let beat = |e: &Envelope| e.to == n(3) && e.is_append() && !e.has_entries();
    c.network.hold(beat);
    for raw in [4, 5] {
        c.cut(1, raw);
    }
    let read = c.read(1).unwrap();
    c.deliver_all();
    assert_eq!(None, c.outcome(1, read), "n1 and n2 are not three of five");
    c.change(1, joint(2, &[1, 2], &[1, 2, 3, 4, 5], &[]))
        .unwrap();
    c.deliver_all();
    assert!(!c.raft(1).configuration().is_joint());
    assert!(c.outcome(1, read).is_some_and(|r| r.is_ok()));
}

#[test]
fn only_so_many_reads_may_wait() {
    let mut c = Cluster::led(3);
    c.isolate(1);
    for _ in 0..MAX_READS {
        c.read(1).unwrap();
    }
    assert_eq!(Err(ReadError::Full), c.read(1));
    c.run(3 * E);
    assert_eq!(MAX_READS, c.node_mut(1).reads.len(), "each is finished");
}

#[test]
fn a_leader_removed_by_its_own_change_does_not_count_itself() {
    let mut c = Cluster::led(3);
    c.change(1, joint(2, &[2, 3], &[1, 2, 3], &[])).unwrap();
    c.network.hold(|e| e.to == n(1));
    c.deliver_all();
    let read = c.read(1).unwrap();
    for held in c.network.end_holds() {
        if held.from == n(2) {
            c.deliver(held);
        }
    }
    c.network.hold(|e| e.from == n(3));
    c.deliver_all();
    assert_eq!(
        None,
        c.outcome(1, read),
        "n2 is not a majority of n2 and n3"
    );
}
