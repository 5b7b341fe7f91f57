//! A26 to A28 and others: leadership handed over, in time, too late, or to nobody; and those who
//! may not have it.

use raftkeel::core::{Message, Millis, ProposeError, RoleKind, TimeoutNow, TransferError};

use crate::cluster::{Cluster, E, H, joint, n, plain};
use crate::network::Envelope;

fn is_timeout_now(e: &Envelope) -> bool {
    matches!(e.message, Message::TimeoutNow(_))
}

#[test]
fn leadership_is_handed_over_at_once() {
    let mut c = Cluster::led(3);
    c.heartbeat(1);
    assert_eq!(Ok(n(2)), c.transfer(1, Some(2)));
    assert_eq!(Err(ProposeError::TransferInFlight), c.propose(1, "X"));
    assert_eq!(Err(TransferError::InFlight), c.transfer(1, Some(3)));
    c.deliver_all();
    assert_eq!(
        (Some(2), 3),
        (c.leader(), c.term(2)),
        "no timeout has passed"
    );
    assert_eq!(Some(n(2)), c.raft(1).leader());
    c.propose(2, "X").unwrap();
}

#[test]
fn what_was_accepted_before_is_committed_first() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(1) && e.is_append_reply());
    let (_, index) = c.propose(1, "X").unwrap();
    c.transfer(1, Some(2)).unwrap();
    c.deliver_all();
    assert_eq!(Some(1), c.leader());
    c.release();
    assert_eq!((Some(2), vec![1, 2, 2, 3]), (c.leader(), c.terms(2)));
    assert!(c.commit(1) >= index);
}

/// The target has it all, but a majority has not: let it be committed by who proposed it.
#[test]
fn nobody_is_told_before_everything_is_committed() {
    let mut c = Cluster::led(5);
    for raw in [3, 4, 5] {
        c.network
            .hold(move |e| e.from == n(raw) && e.is_append_reply());
    }
    let (_, index) = c.propose(1, "X").unwrap();
    c.transfer(1, Some(2)).unwrap();
    c.deliver_all();
    let progress = c.raft(1).progress(n(2)).unwrap();
    assert_eq!((index, index - 1), (progress.match_index(), c.commit(1)));
    assert!(!c.network.take_record().iter().any(is_timeout_now));
    c.release();
    assert_eq!(Some(2), c.leader());
}

#[test]
fn without_a_target_the_most_up_to_date_one_leads() {
    let mut c = Cluster::led(5);
    for raw in [2, 3, 5] {
        c.network.hold(move |e| e.to == n(raw) && e.has_entries());
    }
    c.propose(1, "X").unwrap();
    c.deliver_all();
    assert_eq!(Ok(n(4)), c.transfer(1, None));
    c.release();
    assert_eq!(Some(4), c.leader());
}

#[test]
fn without_a_target_only_who_is_in_contact_is_one() {
    let mut c = Cluster::led(3);
    c.cut(1, 2);
    c.run(E + 2 * H);
    assert_eq!(Ok(n(3)), c.transfer(1, None));
    let mut c = Cluster::new(1);
    c.step();
    assert_eq!(Err(TransferError::NobodyElse), c.transfer(1, None));
}

#[test]
fn only_another_voter_that_may_lead_is_a_target() {
    let mut c = Cluster::led_with_spares(3, 5);
    c.change(1, plain(2, &[1, 2, 3], &[4])).unwrap();
    c.deliver_all();
    c.heartbeat(1);
    assert_eq!(Err(TransferError::NotLeader), c.transfer(2, Some(3)));
    assert_eq!(Err(TransferError::Leads), c.transfer(1, Some(1)));
    assert_eq!(Err(TransferError::NotVoter), c.transfer(1, Some(4)));
    assert_eq!(Err(TransferError::NotMember), c.transfer(1, Some(5)));
    c.set_eligible(2, false);
    assert_eq!(Err(TransferError::Ineligible), c.transfer(1, Some(2)));
    assert_eq!(Ok(n(3)), c.transfer(1, None));
}

#[test]
fn a26_a_late_word_does_not_disturb_a_leader_that_went_on() {
    for more in [0, 3] {
        let mut c = Cluster::led(3);
        c.network.hold(is_timeout_now);
        c.transfer(1, Some(2)).unwrap();
        c.run(E + H);
        assert_eq!(None, c.raft(1).transferring(), "given up");
        let late = c.network.end_holds();
        assert!(!late.is_empty());
        for _ in 0..more {
            c.propose(1, "X").unwrap();
        }
        c.heartbeat(1);
        for message in late {
            c.deliver(message);
        }
        c.deliver_all();
        assert_eq!((Some(1), 2), (c.leader(), c.term(2)), "{more} more");
        assert_eq!(0, c.raft(2).elections());
    }
}

#[test]
fn a27_a_transfer_ends_with_the_leadership() {
    let mut c = Cluster::led(3);
    c.cut(1, 2);
    c.transfer(1, Some(2)).unwrap();
    c.isolate(1);
    // Through the step only: nobody gives it up before.
    c.step_down(1);
    assert_eq!(RoleKind::Follower, c.role(1));
    c.network.heal();
    c.elect(1);
    assert!(c.raft(1).is_leader());
    c.propose(1, "X").unwrap();
}

#[test]
fn a28_the_target_is_brought_up_first() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(2));
    for _ in 0..10 {
        c.propose(1, "X").unwrap();
    }
    c.deliver_all();
    c.network.end_holds();
    let progress = c.raft(1).progress(n(2)).unwrap();
    assert_eq!((2, 13), (progress.match_index(), progress.next_index()));
    c.network.take_record();
    c.cut(1, 2);
    c.transfer(1, Some(2)).unwrap();
    c.deliver_all();
    assert!(!c.network.take_record().iter().any(is_timeout_now));
    assert_eq!(Err(ProposeError::TransferInFlight), c.propose(1, "Y"));
    c.network.heal();
    c.run(3 * H);
    assert_eq!(Some(2), c.leader());
    assert_eq!(13, c.terms(2).len());

    let mut c = Cluster::led(3);
    c.cut(1, 2);
    c.propose(1, "X").unwrap();
    c.transfer(1, Some(2)).unwrap();
    c.run(E + 5);
    c.propose(1, "taken again").unwrap();
}

#[test]
fn a_word_that_gets_lost_is_said_again() {
    let mut c = Cluster::led(3);
    c.network.hold(is_timeout_now);
    c.transfer(1, Some(2)).unwrap();
    c.network.end_holds();
    c.run(2 * H);
    assert_eq!(Some(2), c.leader());
}

#[test]
fn a_target_that_is_not_fit_stays_where_it_is() {
    let word = |term, seq, last_index, last_term| {
        Message::TimeoutNow(TimeoutNow {
            term,
            seq,
            last_index,
            last_term,
        })
    };
    let mut c = Cluster::led_with_spares(3, 4);
    c.change(1, plain(2, &[1, 2, 3], &[4])).unwrap();
    c.deliver_all();
    c.heartbeat(1);
    let cases = [
        (1, 2, word(1, 1000, 3, 1), "of an old term"),
        (1, 2, word(2, 1, 3, 2), "older than an append"),
        (1, 2, word(2, 1000, 4, 2), "a longer log"),
        (1, 2, word(2, 1000, 2, 2), "a shorter log"),
        (3, 2, word(2, 1000, 3, 2), "not of the leader"),
        (1, 4, word(2, 1000, 3, 2), "to a learner"),
    ];
    for (from, to, message, what) in cases {
        c.inject(from, to, message);
        assert_eq!((RoleKind::Follower, 2), (c.role(to), c.term(to)), "{what}");
    }
    c.set_eligible(2, false);
    c.inject(1, 2, word(2, 1000, 3, 2));
    assert_eq!(RoleKind::Follower, c.role(2), "may not lead");
    c.set_eligible(2, true);
    c.node_mut(2).hold_writes = true;
    c.propose(1, "X").unwrap();
    c.deliver_all();
    assert_eq!(4, c.raft(2).log().last_index());
    c.inject(1, 2, word(2, 1000, 4, 2));
    assert_eq!(RoleKind::Follower, c.role(2), "its tail is not written");
    c.complete_all(2);
    c.inject(1, 2, word(2, 1000, 4, 2));
    assert_eq!((RoleKind::Candidate, 3), (c.role(2), c.term(2)));
}

/// The same leader, the same log, but a term ago.
#[test]
fn a_word_of_an_earlier_term_is_not_heeded() {
    let mut c = Cluster::led(3);
    for _ in 0..5 {
        c.heartbeat(1);
    }
    c.network.hold(is_timeout_now);
    c.transfer(1, Some(2)).unwrap();
    let late = c.network.end_holds();
    assert_eq!(1, late.len());
    c.step_down(1);
    c.network.hold(|e| e.has_entries());
    c.elect(1);
    c.heartbeat(1);
    assert_eq!((3, 2), (c.term(2), c.raft(2).log().last_index()));
    assert_eq!(Some(n(1)), c.raft(2).leader());
    for message in late {
        c.deliver(message);
    }
    assert_eq!((RoleKind::Follower, 3), (c.role(2), c.term(2)));
}

#[test]
fn a_transfer_passes_loyalty_and_not_the_log_check() {
    let mut c = Cluster::led(3);
    c.cut(1, 2);
    c.propose(1, "X").unwrap();
    c.deliver_all();
    c.heartbeat(1);
    let request = raftkeel::core::VoteRequest {
        term: 3,
        last_index: 2,
        last_term: 2,
        transfer: true,
    };
    c.inject(2, 3, Message::Vote(request));
    assert_eq!((3, None), (c.term(3), c.raft(3).hard_state().vote));
}

#[test]
fn a_transfer_outlives_the_end_of_a_joint_configuration() {
    let mut c = Cluster::led_with_spares(3, 4);
    c.change(1, plain(2, &[1, 2, 3], &[4])).unwrap();
    c.deliver_all();
    c.heartbeat(1);
    c.network.hold(|e| e.is_append_reply());
    c.change(1, joint(3, &[1, 2, 4], &[1, 2, 3], &[])).unwrap();
    c.transfer(1, Some(2)).unwrap();
    c.deliver_all();
    c.release();
    c.run(4 * H);
    assert_eq!(Some(2), c.leader());
    assert_eq!(&plain(3, &[1, 2, 4], &[]), c.raft(2).configuration());
    assert_eq!(Err(ProposeError::TransferInFlight), {
        c.transfer(2, Some(1)).unwrap();
        c.change(2, plain(4, &[1, 2, 4], &[3]))
    });
}

#[test]
fn a_leader_that_hands_over_confirms_nobodys_right_to_serve() {
    let mut c = Cluster::led(3);
    c.heartbeat(1);
    let now = c.clock(n(1));
    assert!(c.raft(1).may_confirm(now));
    c.cut(1, 2);
    c.transfer(1, Some(2)).unwrap();
    c.deliver_all();
    assert!(c.raft(1).is_quorum_fresh(now) && !c.raft(1).may_confirm(now));
    c.run(E + 5);
    let now = c.clock(n(1));
    assert!(c.raft(1).may_confirm(now), "it leads on");
}

#[test]
fn a_leader_confirms_until_its_successor_can_be_told() {
    let mut c = Cluster::led(3);
    c.heartbeat(1);
    c.isolate(2);
    c.propose(1, "X").unwrap();
    c.deliver_all();
    c.transfer(1, Some(2)).unwrap();
    c.heartbeat(1);
    let now = c.clock(n(1));
    assert_eq!(Some(n(2)), c.raft(1).transferring());
    assert!(c.raft(1).may_confirm(now), "n2 lacks X");
    c.network.heal();
    c.network
        .hold(|e| matches!(e.message, Message::TimeoutNow(_)));
    c.heartbeat(1);
    c.heartbeat(1);
    let now = c.clock(n(1));
    assert_eq!(Some(n(2)), c.raft(1).transferring());
    assert!(c.raft(1).is_quorum_fresh(now) && !c.raft(1).may_confirm(now));
    // Told once is told, also when it needs to be told again.
    c.isolate(2);
    c.heartbeat(1);
    let now = c.clock(n(1));
    assert_eq!(Some(n(2)), c.raft(1).transferring());
    assert!(c.raft(1).is_quorum_fresh(now) && !c.raft(1).may_confirm(now));
}

// ---- eligibility -----------------------------------------------------------

#[test]
fn who_may_not_lead_votes_and_does_not_campaign() {
    let mut c = Cluster::new(3);
    c.set_eligible(1, false);
    c.set_eligible(2, false);
    c.crash(1);
    c.run_until(4 * E, "n3 leads with the vote of n2", |c| {
        c.leader() == Some(3)
    });
    assert_eq!(0, c.raft(2).elections());
    c.crash(3);
    c.restart(1);
    c.run(9 * E);
    assert_eq!(None, c.leader());
    c.run_until(6 * E, "an ineligible majority is slow, not dead", |c| {
        c.leader().is_some()
    });
}

#[test]
fn a_leader_that_may_not_lead_hands_over() {
    let mut c = Cluster::led(3);
    c.heartbeat(1);
    c.set_eligible(2, false);
    c.set_eligible(1, false);
    c.run(2 * H);
    assert_eq!((Some(3), 3), (c.leader(), c.term(3)));
}

#[test]
fn a_leader_whom_nobody_follows_keeps_what_it_does_not_want() {
    let mut c = Cluster::led(3);
    c.network.hold(is_timeout_now);
    c.set_eligible(1, false);
    c.run(H + E);
    c.propose(1, "taken again").unwrap();
    c.run(9 * E);
    assert_eq!(Some(1), c.leader());
    c.propose(1, "and for long").unwrap();
    c.network.end_holds();
    c.run(2 * E);
    assert_ne!(Some(1), c.leader(), "it tries again");
}

/// Three servers that read by leases, led by n1.
fn leased() -> Cluster {
    let mut c = Cluster::create(3, 3, 1);
    c.options.lease_reads = true;
    for raw in 1..=3 {
        c.crash(raw);
        c.restart(raw);
    }
    c.elect(1);
    c.heartbeat(1);
    c
}

/// n1 hands over to a server that does not get the word, and goes on; the words.
fn hand_over_in_vain(c: &mut Cluster, to: u64) -> Vec<Envelope> {
    c.network.hold(is_timeout_now);
    c.transfer(1, Some(to)).unwrap();
    c.run(E + H);
    assert_eq!(None, c.raft(1).transferring(), "given up");
    c.network.end_holds()
}

/// n2 has got a late word while n1 is alone: if it is acted on, nothing may be read at n1.
fn assert_no_stale_read(c: &mut Cluster) {
    c.deliver_all();
    if c.raft(2).is_leader() {
        c.propose(2, "W").unwrap();
        c.deliver_all();
        assert!(c.commit(2) > c.commit(1));
        let read = c.read(1).unwrap();
        assert_eq!(None, c.outcome(1, read), "n2 has committed more");
    }
}

/// A target that starts again has forgotten how late the word comes (raft.md rule 55).
#[test]
fn no_lease_while_a_target_that_restarts_may_act_on_a_late_word() {
    let mut c = leased();
    c.network.hold(|e| e.to == n(2) && e.is_append());
    c.heartbeat(1);
    let append = c.network.end_holds().remove(0);
    let words = hand_over_in_vain(&mut c, 2);
    c.heartbeat(1);
    c.isolate(1);
    c.crash(2);
    c.restart(2);
    c.deliver(append);
    c.deliver(words[0].clone());
    assert_no_stale_read(&mut c);
}

/// One that was told before the last one may still act on it.
#[test]
fn no_lease_while_any_target_may_act_on_a_late_word() {
    let mut c = leased();
    // n2 stands still, and finds the word when it goes on.
    c.node_mut(2).paused_until = Millis::MAX;
    let words = hand_over_in_vain(&mut c, 2);
    c.run(H);
    hand_over_in_vain(&mut c, 3);
    c.run(H);
    c.isolate(1);
    c.node_mut(2).paused_until = 0;
    c.deliver(words[0].clone());
    assert_no_stale_read(&mut c);
}

/// Once it has acknowledged more it will not take any earlier word for the newest.
#[test]
fn a_lease_comes_back_after_a_transfer_that_failed() {
    let mut c = leased();
    hand_over_in_vain(&mut c, 2);
    c.propose(1, "X").unwrap();
    c.deliver_all();
    c.heartbeat(1);
    let read = c.read(1).unwrap();
    assert_eq!(
        Some(Ok(c.commit(1))),
        c.outcome(1, read),
        "no round is needed"
    );
}
