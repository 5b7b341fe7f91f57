//! Words of lost connections, right and wrong: what they may do, and what they may not.

use raftkeel::core::{Message, Millis, RoleKind, VoteRequest};

use crate::cluster::{Cluster, E, H, n};
use crate::model::data::Input;

impl Cluster {
    /// A server's host says that its connection to `other` is lost.
    fn lose(&mut self, raw: u64, other: u64) {
        self.call(
            n(raw),
            |raft, now| raft.lost(now, n(other)),
            |_| Input::Lost(other),
        );
    }

    fn lose_everywhere(&mut self, size: u64, other: u64) {
        (1..=size)
            .filter(|raw| *raw != other && self.is_up(*raw))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|raw| self.lose(raw, other));
    }
}

/// A leader of all, in the middle of a quiet time.
fn calm(size: u64) -> Cluster {
    let mut c = Cluster::led(size);
    c.run(2 * E);
    c
}

/// The time that an election on a word takes at most, one round trip and a write apart.
const SOON: Millis = H + E / 2;

#[test]
fn a_leader_that_all_have_lost_is_replaced_at_once() {
    for size in [3, 5] {
        let mut c = calm(size);
        c.crash(1);
        c.deliver_all();
        c.lose_everywhere(size, 1);
        c.run_until(SOON, "another one leads", |c| c.leader().is_some());
        let leader = c.leader().expect("somebody leads");
        assert!(c.raft(leader).is_early(), "its voters have heard n1 lately");
    }
}

#[test]
fn a_dead_leader_that_one_has_lost_is_replaced_in_time() {
    let mut c = calm(3);
    c.crash(1);
    c.lose(2, 1);
    c.run_until(4 * E, "another one leads", |c| c.leader().is_some());
}

#[test]
fn a_leader_elected_after_a_silence_is_not_early() {
    let mut c = calm(3);
    c.crash(1);
    c.run_until(4 * E, "another one leads", |c| c.leader().is_some());
    let leader = c.leader().expect("somebody leads");
    assert!(!c.raft(leader).is_early());
}

/// The word of any minority, said again and again, by servers that lose and find the leader.
#[test]
fn a_leader_that_a_minority_has_lost_is_followed_by_the_others() {
    for (size, few) in [(3, 1), (5, 2)] {
        let mut c = calm(size);
        for _ in 0..20 {
            for raw in 2..2 + few {
                c.lose(raw, 1);
                c.cut(1, raw);
            }
            c.run(E / 2);
            c.network.heal();
            c.run(E / 2);
        }
        c.run(2 * E);
        assert_eq!((Some(1), 2), (c.leader(), c.term(1)));
        assert!((2..=size).all(|raw| c.raft(raw).leader() == Some(n(1))));
    }
}

/// Wrong words at all followers at once, as fast as they can be said: the leader is heard within a
/// heartbeat each time.
#[test]
fn a_leader_that_is_heard_survives_wrong_words_of_everybody() {
    for size in [3, 5] {
        let mut c = calm(size);
        for _ in 0..200 {
            c.lose_everywhere(size, 1);
            c.run(H / 4);
        }
        assert_eq!((Some(1), 2), (c.leader(), c.term(1)));
    }
}

/// All links of a living leader break at once, and come back when another one leads: never two
/// in a term, as the checker sees, nothing is lost, and all follow one again soon.
#[test]
fn a_leader_that_lives_and_all_have_lost_gives_way() {
    for size in [3, 5] {
        let mut c = calm(size);
        let (_, index) = c.propose(1, "x").expect("n1 leads");
        c.run(2 * H);
        for raw in 2..=size {
            c.cut(1, raw);
        }
        c.lose_everywhere(size, 1);
        c.run_until(SOON, "another one leads", |c| {
            (2..=size).any(|raw| c.raft(raw).is_leader())
        });
        // n1 still believes that it leads: what it takes now is not committed.
        assert_eq!(RoleKind::Leader, c.role(1));
        let (_, vain) = c.propose(1, "y").expect("it does not know better");
        let read = c.read(1).expect("nor does it here");
        c.run(H);
        assert!(c.commit(1) < vain && c.outcome(1, read).is_none());
        c.network.heal();
        c.run_until(2 * H, "n1 follows", |c| c.role(1) == RoleKind::Follower);
        c.run(2 * E);
        let leader = c.leader().expect("somebody leads");
        assert_ne!(1, leader);
        assert!((1..=size).all(|raw| c.commit(raw) > index));
        assert!(c.outcome(1, read).is_some_and(|read| read.is_err()));
    }
}

#[test]
fn who_was_told_waits_for_a_heartbeat_and_is_loyal_again_when_it_comes() {
    let mut c = calm(3);
    c.heartbeat(1);
    let due = c.raft(2).next_deadline();
    c.lose(2, 1);
    assert_eq!(Some(n(1)), c.raft(2).leader(), "nobody sees a word");
    assert!(c.raft(2).has_lost_leader());
    let now = c.clock(n(2));
    assert!(c.raft(2).next_deadline() >= now + H && c.raft(2).next_deadline() < due);
    c.heartbeat(1);
    assert!(!c.raft(2).has_lost_leader());
    assert!(c.raft(2).next_deadline() >= c.clock(n(2)) + E - H);
}

#[test]
fn a_voter_that_was_told_helps_a_candidate_and_says_that_it_is_early() {
    let mut c = calm(3);
    c.heartbeat(1);
    let request = VoteRequest {
        term: 3,
        last_index: c.raft(2).log().last_index(),
        last_term: 2,
        transfer: false,
    };
    c.network.take_record();
    c.inject(3, 2, Message::Vote(request.clone()));
    assert_eq!(2, c.term(2), "it is loyal");
    c.lose(2, 1);
    c.inject(3, 2, Message::Vote(request));
    assert_eq!(3, c.term(2));
    let record = c.network.take_record();
    let granted = record.iter().any(|envelope| {
        let vote = |m: &Message| matches!(m, Message::VoteReply(r) if r.granted && r.early);
        vote(&envelope.message)
    });
    assert!(granted, "{record:?}");
}

#[test]
fn a_lost_connection_to_a_follower_means_nothing() {
    let mut c = calm(3);
    c.heartbeat(1);
    for (raw, other) in [(1, 2), (2, 3), (1, 1)] {
        let deadline = c.raft(raw).next_deadline();
        c.lose(raw, other);
        assert_eq!((Some(n(1)), 2), (c.raft(raw).leader(), c.term(raw)));
        assert!(!c.raft(raw).has_lost_leader());
        assert_eq!(deadline, c.raft(raw).next_deadline());
    }
}

#[test]
fn where_leaders_read_by_leases_all_stay_loyal() {
    let mut c = Cluster::led_with(3, |options| options.lease_reads = true);
    c.heartbeat(1);
    let deadline = c.raft(2).next_deadline();
    c.lose_everywhere(3, 1);
    assert!(!c.raft(2).has_lost_leader() && !c.raft(3).has_lost_leader());
    assert_eq!(deadline, c.raft(2).next_deadline());
    // Its lease holds, and nobody else is elected before its end.
    for raw in [2, 3] {
        c.cut(1, raw);
    }
    c.run(E - 2 * H);
    assert!((2..=3).all(|raw| c.term(raw) == 2));
}

/// A voter whose disk is slow answers long after it has heard the leader, and reckons by when it heard:
/// so must the leader, before it gives others leave to serve.
#[test]
fn a_late_answer_does_not_let_a_leader_confirm_for_longer() {
    let mut c = calm(5);
    c.heartbeat(1);
    // The last that n2 hears of n1 is an entry.
    c.node_mut(2).hold_writes = true;
    c.propose(1, "x").expect("n1 leads");
    c.run(2);
    // The links break: {1, 5} and {2, 3, 4}; but n2's answer still comes to n1.
    for raw in 2..=4 {
        c.network.cut(n(1), n(raw));
        c.cut(5, raw);
        if raw > 2 {
            c.network.cut(n(raw), n(1));
        }
    }
    c.run(E - H - 5);
    assert!(c.raft(1).is_leader());
    c.complete_all(2);
    c.run(2);
    c.cut(1, 2);
    c.run_until(4 * E, "another one leads", |c| {
        (2..=4).any(|raw| c.raft(raw).is_leader())
    });
    let new = (2..=4).find(|raw| c.raft(*raw).is_leader()).unwrap();
    assert!(!c.raft(new).is_early());
    assert!(!c.raft(1).may_confirm(c.clock(n(1))));
}

/// A host may say it again and again, of a leader whose messages come all the same.
#[test]
fn a_word_that_was_void_is_not_believed_again_soon() {
    let mut c = calm(3);
    c.heartbeat(1);
    c.lose(2, 1);
    assert!(c.raft(2).has_lost_leader());
    let due = c.raft(2).next_deadline();
    c.lose(2, 1);
    assert_eq!(due, c.raft(2).next_deadline(), "one wait is drawn");
    c.heartbeat(1);
    for _ in 0..(E / H - 2) {
        c.lose(2, 1);
        assert!(!c.raft(2).has_lost_leader());
        c.heartbeat(1);
        c.run(H);
    }
    c.run(2 * H);
    c.lose(2, 1);
    assert!(c.raft(2).has_lost_leader());
}
