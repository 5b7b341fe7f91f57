//! A2 to A4, A19, A54, A55 and others: what followers accept, and how they are repaired.

use raftkeel::core::{Append, AppendOutcome, AppendReply, Message, Payload, RoleKind};

use crate::cluster::{Cluster, E, H, n};

/// n2 has a stale tail 2.2 3.2; n1 leads term 3 with n3, and n2 was only probed at 1.1.
fn stale_tail() -> Cluster {
    let mut c = Cluster::new(3);
    c.put(1, 2, &[1]);
    c.put(3, 2, &[1]);
    c.put(2, 2, &[1, 2, 2]);
    c.network.hold(|e| e.has_entries());
    c.elect(1);
    assert_eq!((true, 3), (c.raft(1).is_leader(), c.term(1)));
    c
}

#[test]
fn a02_an_ack_covers_what_was_shown_not_what_is_there() {
    let mut c = stale_tail();
    c.heartbeat(1);
    c.propose(1, "Y").unwrap();
    c.deliver_all();
    assert_eq!(1, c.raft(1).progress(n(2)).unwrap().match_index());
    assert_eq!((1, 3), (c.commit(1), c.raft(1).log().last_index()));
    assert_eq!(vec![1, 2, 2], c.terms(2), "a probe truncates nothing");
}

#[test]
fn a03_a_follower_does_not_commit_its_own_stale_tail() {
    let mut c = stale_tail();
    for envelope in c.network.end_holds() {
        if envelope.to == n(3) {
            c.network.put(c.now, envelope);
        }
    }
    c.network.hold(|e| e.to == n(2) && e.has_entries());
    c.deliver_all();
    assert_eq!(2, c.commit(1));
    c.heartbeat(1);
    let probe = Append {
        entries: Vec::new(),
        ..c.append_of(1, 1, 1000)
    };
    assert_eq!(2, probe.commit);
    c.inject(1, 2, Message::Append(probe));
    assert_eq!((1, vec![1, 2, 2]), (c.commit(2), c.terms(2)));
    c.release();
    c.heartbeat(1);
    assert_eq!((2, vec![1, 3]), (c.commit(2), c.terms(2)));
    let applied: Vec<u64> = c.node_mut(2).applied.iter().map(|e| e.term).collect();
    assert_eq!(vec![1, 3], applied);
}

#[test]
fn a04_a_short_old_append_truncates_nothing() {
    let mut c = Cluster::led(3);
    c.isolate(3);
    c.propose(1, "X").unwrap();
    let old = c.append_of(1, 2, 1000);
    c.propose(1, "Y").unwrap();
    c.deliver_all();
    assert_eq!(4, c.commit(1));
    c.inject(1, 2, Message::Append(old));
    assert_eq!(4, c.raft(2).log().last_index());
    c.crash(1);
    c.network.heal();
    c.elect(3);
    assert!(!c.raft(3).is_leader(), "n3 lacks committed entries");
    c.elect(2);
    assert_eq!(vec![1, 2, 2, 2, 3], c.terms(3));
}

#[test]
fn a19_a_leader_that_is_refused_is_alive() {
    let mut c = Cluster::led(3);
    c.network.cut(n(3), n(1));
    c.network.hold(|e| e.to == n(3));
    for data in ["a", "b"] {
        c.propose(1, data).unwrap();
    }
    c.heartbeat(1);
    for round in 0..5 * E / H {
        c.skip(3, H);
        let append = Append {
            entries: Vec::new(),
            ..c.append_of(1, 4, 1000 + round)
        };
        c.inject(1, 3, Message::Append(append));
        c.advance(3, 0);
        assert_eq!(RoleKind::Follower, c.role(3));
        assert_eq!(Some(n(1)), c.raft(3).leader());
    }
    assert_eq!(2, c.raft(3).log().last_index(), "all of them were refused");
}

#[test]
fn a54_what_cannot_be_read_leaves_no_gap() {
    let mut c = Cluster::led_with(3, |options| options.tail_bytes = 100);
    c.isolate(3);
    for _ in 0..50 {
        c.propose(1, "some data").unwrap();
        c.deliver_all();
    }
    assert!(c.raft(1).log().first_in_memory() > 3);
    c.node_mut(1).hold_asks = true;
    c.network.heal();
    c.network.take_record();
    let sent = |c: &mut Cluster| {
        let record = c.network.take_record().into_iter();
        let sent = record.filter(|e| e.to == n(3) && e.has_entries());
        sent.filter_map(|e| match e.message {
            Message::Append(append) => Some(append),
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    for _ in 0..3 {
        c.heartbeat(1);
        assert_eq!(1, c.node_mut(1).asks.len());
        c.answer(1, true);
        c.deliver_all();
        assert_eq!(Vec::<Append>::new(), sent(&mut c));
    }
    c.complete_all(1);
    c.run(4 * H);
    let mut next = 3;
    for append in sent(&mut c) {
        assert_eq!((next, 2), (append.prev_index + 1, append.prev_term));
        next += append.entries.len() as u64;
    }
    assert_eq!((53, 52), (next, c.commit(3)));
}

#[test]
fn a54_entries_that_do_not_follow_are_not_taken() {
    let mut c = Cluster::led(3);
    for prev in [(0, 0), (2, 2)] {
        let append = Append {
            term: 2,
            seq: 1000,
            prev_index: prev.0,
            prev_term: prev.1,
            commit: 50,
            entries: vec![crate::cluster::host_entry(50, 2)],
        };
        c.inject(1, 3, Message::Append(append));
        assert_eq!((2, 2), (c.raft(3).log().last_index(), c.commit(3)));
    }
}

#[test]
fn a55_a_conflicting_tail_is_repaired_one_entry_at_a_time() {
    let mut c = Cluster::new(2);
    c.options.batch_bytes = 1;
    // n2 led term 2 and could show its no-op to nobody; n1 led term 3.
    c.put(2, 2, &[1, 1, 1, 1, 1, 2]);
    c.put(1, 3, &[1, 1, 1, 1, 1, 3, 3]);
    c.elect(1);
    for _ in 0..3 {
        c.heartbeat(1);
    }
    assert_eq!(c.terms(1), c.terms(2));
    assert_eq!(vec![1, 1, 1, 1, 1, 3, 3, 4], c.terms(2));
    assert_eq!(8, c.commit(2));
}

#[test]
fn a_repair_takes_one_probe_a_term() {
    let mut c = Cluster::new(2);
    let long: Vec<u64> = (1..=40).map(|i| 1 + i / 20).collect();
    c.put(2, 3, &long);
    let mut other = long[..10].to_vec();
    other.extend([4; 40]);
    c.put(1, 4, &other);
    c.elect(1);
    c.heartbeat(1);
    assert_eq!(c.terms(1), c.terms(2));
    let record = c.network.take_record();
    let refused = |e: &&crate::network::Envelope| match &e.message {
        Message::AppendReply(r) => matches!(r.outcome, AppendOutcome::Rejected { .. }),
        _ => false,
    };
    let refused = record.iter().filter(refused).count();
    assert!(refused <= 3, "{refused} refusals for two terms");
}

#[test]
fn a_lost_window_is_sent_again_after_one_heartbeat() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(3) && e.has_entries());
    for i in 0..200 {
        c.propose(1, &format!("{i}")).unwrap();
    }
    c.deliver_all();
    let progress = c.raft(1).progress(n(3)).unwrap();
    assert!(!progress.is_open(), "the window has closed");
    c.network.end_holds();
    c.heartbeat(1);
    assert_eq!(c.terms(1), c.terms(3));
    assert!(c.raft(1).progress(n(3)).unwrap().is_open());
}

#[test]
fn a_delayed_append_of_an_old_term_does_not_silence_a_peer() {
    let mut c = Cluster::led(3);
    let old = c.append_of(1, 2, 1_000_000);
    c.isolate(1);
    c.network.hold(|e| e.has_entries());
    c.elect(2);
    c.crash(2);
    c.network.end_holds();
    c.network.heal();
    c.elect(1);
    let term = c.term(1);
    assert!(c.raft(1).is_leader() && term > old.term);
    c.inject(1, 3, Message::Append(old));
    c.run(10 * E);
    assert_eq!((true, term), (c.raft(1).is_leader(), c.term(1)));
}

#[test]
fn copies_of_a_dead_leaders_heartbeats_delay_nobody_for_ever() {
    let mut c = Cluster::led(3);
    c.heartbeat(1);
    let copies: Vec<_> = {
        c.network.take_record();
        c.heartbeat(1);
        let record = c.network.take_record();
        record.into_iter().filter(|e| e.is_append()).collect()
    };
    c.crash(1);
    for _ in 0..10 * E {
        for copy in &copies {
            c.network.put(c.now, copy.clone());
        }
        c.step();
    }
    assert!(c.leader().is_some());
}

#[test]
fn a_forged_ack_neither_commits_nor_kills() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to != n(1));
    let reply = AppendReply {
        term: 2,
        seq: 500,
        outcome: AppendOutcome::Accepted { match_index: 77 },
    };
    c.inject(2, 1, Message::AppendReply(reply));
    assert_eq!((true, 2), (c.raft(1).is_leader(), c.commit(1)));
}

#[test]
fn a_rival_of_the_same_term_is_not_believed() {
    let mut c = Cluster::led(3);
    let mut forged = c.append_of(1, 2, 9000);
    forged.entries = vec![crate::cluster::host_entry(3, 2)];
    c.inject(3, 1, Message::Append(forged.clone()));
    c.inject(3, 2, Message::Append(forged.clone()));
    assert_eq!(
        (2, 2),
        (c.raft(1).log().last_index(), c.raft(2).log().last_index())
    );
    forged.prev_index = u64::MAX;
    c.inject(1, 2, Message::Append(forged));
    assert_eq!(2, c.raft(2).log().last_index());
}

#[test]
fn a_large_proposal_is_admitted_when_nothing_waits() {
    let mut c = Cluster::create(3, 3, 1);
    c.options.uncommitted_bytes = 10;
    for raw in 1..=3 {
        c.crash(raw);
        c.restart(raw);
    }
    c.elect(1);
    c.heartbeat(1);
    let large = "x".repeat(1000);
    assert!(c.propose(1, &large).is_ok());
    assert!(c.propose(1, "y").is_err(), "nothing fits beside it");
    c.deliver_all();
    assert!(c.propose(1, &large).is_ok(), "the first has committed");
    let entry = c.raft(3).log().get(3).unwrap();
    assert_eq!(Payload::Host(large.as_bytes().into()), entry.payload);
}
