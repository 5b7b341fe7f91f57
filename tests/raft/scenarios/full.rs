//! A disk that is full for a while: hard state is written, entries wait, and whatever is said is
//! durable (raft.md rule 29).

use raftkeel::core::{Index, Message, Position, ProposeError, Random, VoteRequest};

use crate::cluster::{Cluster, E, H, n};

/// The most that a server has acknowledged since the last look, and how often it did.
fn acks(c: &mut Cluster, from: u64) -> (Index, usize) {
    let acks = c.acks(from);
    (acks.iter().copied().max().unwrap_or(0), acks.len())
}

#[test]
fn a_follower_goes_on_answering_and_acknowledges_what_is_durable() {
    let mut c = Cluster::led(3);
    c.set_full(2, true);
    for _ in 0..4 {
        c.propose(1, "X").unwrap();
        c.deliver_all();
        c.heartbeat(1);
    }
    assert_eq!((6, 6), (c.commit(1), c.raft(2).log().last_index()));
    let (most, count) = acks(&mut c, 2);
    assert_eq!(most, 2, "only 2 is durable");
    assert!(count >= 4, "heartbeats are answered");
    assert_eq!(c.node_mut(2).disk.entries.len(), 2);
    assert_eq!(
        c.node_mut(2).applied.len(),
        2,
        "what is not durable is not applied"
    );
    c.set_full(2, false);
    assert_eq!(acks(&mut c, 2).0, 6, "without being asked again");
    c.heartbeat(1);
    assert_eq!(c.node_mut(2).disk.entries.len(), 6);
    assert_eq!(c.node_mut(2).applied.len(), 6);
}

#[test]
fn a_vote_is_durable_though_entries_are_not() {
    let mut c = Cluster::led(3);
    c.set_full(2, true);
    c.propose(1, "X").unwrap();
    c.deliver_all();
    c.crash(1);
    c.advance(2, 2 * E);
    let vote = |last_index| {
        Message::Vote(VoteRequest {
            term: 9,
            last_index,
            last_term: 2,
            transfer: false,
        })
    };
    c.inject(1, 2, vote(2));
    assert_eq!(c.node_mut(2).disk.hard.term, 9);
    assert_eq!(c.node_mut(2).disk.hard.vote, None, "its own log is longer");
    c.inject(1, 2, vote(3));
    assert_eq!(c.node_mut(2).disk.hard.vote, Some(n(1)));
    // The vote outlives the entry.
    c.crash(2);
    c.restart(2);
    assert_eq!(c.raft(2).log().last_index(), 2);
    c.inject(3, 2, vote(3));
    assert_eq!(c.node_mut(2).disk.hard.vote, Some(n(1)), "a second vote");
}

#[test]
fn a_leader_refuses_proposals_and_hands_over() {
    let mut c = Cluster::led(3);
    c.set_full(1, true);
    c.propose(1, "X").unwrap();
    assert_eq!(c.propose(1, "Y"), Err(ProposeError::NoSpace));
    c.run_until(10 * E, "another leads", |c| {
        c.leader().is_some_and(|leader| leader != 1)
    });
    let leader = c.leader().unwrap();
    assert_eq!(
        c.term(leader),
        3,
        "it was told, and did not wait for a timeout"
    );
    c.propose(leader, "Y").unwrap();
    c.run(4 * H);
    assert!(c.commit(leader) >= 5, "X, a no-op, Y");
    assert_eq!(c.node_mut(1).disk.entries.len(), 2);
    c.set_full(1, false);
    c.run(4 * H);
    assert_eq!(
        c.node_mut(1).disk.entries.len(),
        c.node_mut(leader).disk.entries.len()
    );
}

#[test]
fn a_leader_without_a_successor_goes_on_when_there_is_room() {
    let mut c = Cluster::led(1);
    c.set_full(1, true);
    c.propose(1, "X").unwrap();
    assert_eq!(c.propose(1, "Y"), Err(ProposeError::NoSpace));
    c.run(20 * E);
    assert!(c.raft(1).is_leader());
    assert_eq!(c.commit(1), 2);
    c.set_full(1, false);
    assert_eq!(c.commit(1), 3);
    c.propose(1, "Y").unwrap();
    assert_eq!(c.commit(1), 4);
}

/// Whoever led instead would commit nothing, not even the first entry of its term, which reads need.
#[test]
fn a_leader_that_is_needed_for_a_majority_stays() {
    for dead in [None, Some(3)] {
        let mut c = Cluster::led(if dead.is_some() { 3 } else { 2 });
        dead.into_iter().for_each(|id| c.isolate(id));
        c.run(2 * E);
        c.set_full(1, true);
        c.propose(1, "X").unwrap();
        c.run(20 * E);
        assert_eq!(c.propose(1, "Y"), Err(ProposeError::NoSpace));
        assert_eq!((c.leader(), c.term(1), c.commit(1)), (Some(1), 2, 2));
        let read = c.read(1).unwrap();
        c.run(2 * H);
        assert!(matches!(c.outcome(1, read), Some(Ok(_))));
        if dead.is_some() {
            // With a third voter there is somebody to commit with.
            c.network.heal();
            c.run_until(10 * E, "another leads", |c| {
                c.leader().is_some_and(|leader| leader != 1)
            });
        }
        c.set_full(1, false);
        c.run(20 * H);
        let leader = c.leader().unwrap();
        assert_eq!(c.commit(leader), c.raft(leader).log().last_index());
    }
}

#[test]
fn entries_that_wait_may_be_replaced() {
    let mut c = Cluster::led(5);
    c.set_full(2, true);
    c.network.hold(|e| e.to != n(2) && e.has_entries());
    c.propose(1, "X").unwrap();
    c.deliver_all();
    c.propose(1, "X").unwrap();
    c.deliver_all();
    assert_eq!(c.raft(2).log().last_index(), 4, "they wait");
    c.isolate(1);
    c.network.end_holds();
    c.elect(3);
    c.run(4 * H);
    assert_eq!(c.terms(2), vec![1, 2, 3], "others wait in their place");
    assert_eq!(c.node_mut(2).disk.entries.len(), 2);
    acks(&mut c, 2);
    c.set_full(2, false);
    assert_eq!(acks(&mut c, 2).0, 3);
    assert_eq!(c.node_mut(2).disk.term(3), Some(3));
    assert_eq!(c.node_mut(2).disk.term(4), None);
}

/// What was refused would have replaced what the disk has, and the next write builds on it: there
/// is no gap, and yet it must not land.
#[test]
fn what_builds_on_entries_that_wait_waits_as_well() {
    let mut c = Cluster::led(5);
    c.network.hold(|e| e.to != n(2) && e.has_entries());
    for _ in 0..3 {
        c.propose(1, "X").unwrap();
        c.deliver_all();
    }
    c.node_mut(2).hold_writes = true;
    c.isolate(1);
    c.network.end_holds();
    c.elect(3);
    c.run(2 * H);
    assert_eq!(c.terms(2), vec![1, 2, 3]);
    c.network.heal();
    c.isolate(3);
    c.elect(4);
    c.run(2 * H);
    assert_eq!(c.terms(2), vec![1, 2, 3, 4]);
    assert_eq!(c.node_mut(2).disk.entries.len(), 5);
    c.set_full(2, true);
    while c.node_mut(2).writes.front().unwrap().entries.is_empty() {
        c.complete(2);
    }
    c.complete(2);
    // What comes next is smaller, and would find room.
    c.set_full(2, false);
    acks(&mut c, 2);
    while c.node_mut(2).writes.len() > 1 {
        c.complete(2);
        let before = c.node_mut(2).disk.term(3);
        assert_eq!(before, Some(2), "nothing lands behind X");
        assert_eq!(c.node_mut(2).disk.entries.len(), 5);
    }
    c.complete_all(2);
    c.run(2 * H);
    assert_eq!(acks(&mut c, 2).0, 4);
    let terms: Vec<_> = c.node_mut(2).disk.entries.iter().map(|e| e.term).collect();
    assert_eq!(terms, vec![1, 2, 3, 4]);
}

/// What was refused is in a write of its own again by the time the next refusal is heard of.
#[test]
fn what_is_written_after_a_refusal_counts_whatever_is_refused_before_it() {
    let mut c = Cluster::led(1);
    c.node_mut(1).hold_writes = true;
    c.propose(1, "X").unwrap();
    c.propose(1, "Y").unwrap();
    c.set_full(1, true);
    c.complete(1);
    c.set_full(1, false);
    c.propose(1, "Z").unwrap();
    c.complete_all(1);
    assert_eq!(c.node_mut(1).disk.entries.len(), 5);
    assert_eq!(c.raft(1).log().durable(), 5);
    assert_eq!(c.commit(1), 5);
}

/// The write of a reset was under way when the disk became full.
#[test]
fn a_reset_that_finds_no_room_is_written_later() {
    let mut c = super::snapshot::compacted(1 << 20);
    c.node_mut(3).hold_writes = true;
    c.network.heal();
    for _ in 0..20 {
        c.run(H);
        let reset = |c: &Cluster| c.nodes[&n(3)].writes.iter().any(|w| w.reset.is_some());
        while !c.node_mut(3).writes.is_empty() && !reset(&c) {
            c.complete(3);
        }
    }
    assert!(
        c.node_mut(3).writes.iter().any(|w| w.reset.is_some()),
        "no reset"
    );
    c.set_full(3, true);
    while !c.node_mut(3).writes.is_empty() {
        c.complete(3);
    }
    assert!(c.raft(3).has_reset());
    assert_eq!(c.node_mut(3).disk.base.index, 0);
    c.run(10 * H);
    c.node_mut(3).hold_writes = false;
    c.set_full(3, false);
    c.run(10 * H);
    assert!(!c.raft(3).has_reset());
    assert_eq!(c.node_mut(3).disk.base.index, 10);
    c.crash(3);
    c.restart(3);
    c.run(10 * E);
    assert_eq!(c.commit(3), c.commit(1));
}

fn below(random: &mut Random, limit: u64) -> u64 {
    random.next_u64() % limit
}

/// One of twelve things happens to a server, or nothing if it cannot.
fn happen(c: &mut Cluster, raw: u64, what: u64, random: &mut Random) {
    match what {
        0 | 1 => c.set_full(raw, true),
        2 | 3 => c.set_full(raw, false),
        4 if c.is_up(raw) => c.crash_after(raw, below(random, 3) as usize),
        4 | 5 if !c.is_up(raw) => c.restart(raw),
        6 if c.is_up(raw) => c.node_mut(raw).hold_writes = true,
        7 if c.is_up(raw) => c.complete_all(raw),
        8 => c.isolate(raw),
        9 => c.network.heal(),
        10 if c.is_up(raw) => c.save(raw),
        11 if c.is_up(raw) => {
            let snapshot = c.node_mut(raw).disk.snapshot.as_ref();
            let upto = snapshot.map_or(0, |(snapshot, _)| snapshot.last.index);
            c.compact(raw, upto, true, true);
        }
        _ => {}
    }
}

/// All that may be wrong comes to an end, and all servers agree then.
fn settle(c: &mut Cluster, size: u64) {
    c.network.heal();
    for raw in 1..=size {
        c.set_full(raw, false);
        if !c.is_up(raw) {
            c.restart(raw);
        }
        c.complete_all(raw);
    }
    c.run_until(60 * E, "all agree", |c| {
        c.leader().is_some_and(|leader| {
            let last = c.raft(leader).log().last_index();
            (1..=size).all(|raw| c.commit(raw) == last)
        })
    });
}

/// What may happen to a cluster, disks that are full now and then among it. Model and checker look
/// at every step.
#[test]
fn nothing_is_lost_or_voted_twice_whatever_disks_are_full() {
    let first: u64 = std::env::var("RAFTKEEL_SEED").map_or(0, |s| s.parse().unwrap());
    let (mut refused, mut resets) = (0, 0);
    for seed in first..first + 300 {
        println!("RAFTKEEL_SEED={seed}");
        let mut random = Random::new(seed);
        let mut c = Cluster::create(3, 3, seed);
        for _ in 0..150 {
            let raw = 1 + below(&mut random, 3);
            let what = below(&mut random, 12);
            happen(&mut c, raw, what, &mut random);
            if let Some(leader) = c.leader() {
                for _ in 0..below(&mut random, 4) {
                    let full = c.propose(leader, "X") == Err(ProposeError::NoSpace);
                    refused += u32::from(full);
                }
            }
            c.run(below(&mut random, 2 * E));
            let waits = |raw| c.is_up(raw) && c.raft(raw).has_reset();
            resets += (1..=3).filter(|raw| waits(*raw)).count();
        }
        settle(&mut c, 3);
    }
    println!("{refused} proposals refused, {resets} resets seen to wait");
    assert!(refused > 500, "only {refused} proposals were refused");
    assert!(resets > 20, "only {resets} resets were seen to wait");
}

/// Where nothing is under way, all that is durable counts.
fn expect_counted(c: &mut Cluster, raw: u64) {
    let node = c.node_mut(raw);
    let quiet = node.writes.is_empty() && !node.full;
    let last = node
        .disk
        .entries
        .last()
        .map_or(node.disk.base, |e| Position {
            index: e.index,
            term: e.term,
        });
    if quiet && c.is_up(raw) {
        let log = c.raft(raw).log();
        assert_eq!((log.last(), log.durable()), (last, last.index), "n{raw}");
    }
}

/// The disk of a stopped server loses entries, unless another's has; whether it did. What it claims is
/// the last one, or a bound.
fn lose(c: &mut Cluster, raw: u64, random: &mut Random) -> bool {
    if c.nodes.values().any(|node| node.disk.hard.claim.is_some()) {
        return false;
    }
    let disk = &c.node_mut(raw).disk;
    let covered = disk.snapshot.as_ref().map_or(1, |(s, _)| s.last.index);
    let low = covered.max(disk.base.index);
    let Some(last) = disk.entries.last().filter(|last| last.index > low) else {
        return false;
    };
    let exact = Position {
        index: last.index,
        term: last.term,
    };
    let bound = Position {
        index: last.index + below(random, 5),
        term: disk.hard.term,
    };
    let kept = low + below(random, last.index - low);
    let claim = [exact, bound][below(random, 2) as usize];
    c.damage(raw, kept, claim);
    true
}

/// As above, with disks that lose entries as well: one at a time, so that a quorum knows everything.
#[test]
fn nothing_is_lost_whatever_disks_are_full_or_damaged() {
    let first: u64 = std::env::var("RAFTKEEL_SEED").map_or(0, |s| s.parse().unwrap());
    let mut lost = 0;
    for seed in first..first + 300 {
        println!("RAFTKEEL_SEED={seed}");
        let mut random = Random::new(seed);
        let size = 3 + 2 * (seed % 2);
        let mut c = Cluster::create(size, size, seed);
        for _ in 0..150 {
            let raw = 1 + below(&mut random, size);
            match below(&mut random, 18) {
                12 if !c.is_up(raw) => lost += u32::from(lose(&mut c, raw, &mut random)),
                13.. if c.is_up(raw) && !c.node_mut(raw).writes.is_empty() => c.complete(raw),
                what => happen(&mut c, raw, what, &mut random),
            }
            if let Some(leader) = c.leader() {
                for _ in 0..below(&mut random, 4) {
                    let _ = c.propose(leader, "X");
                }
            }
            c.run(below(&mut random, 2 * E));
            (1..=size).for_each(|raw| expect_counted(&mut c, raw));
        }
        settle(&mut c, size);
    }
    println!("{lost} disks lost entries");
    assert!(lost > 50, "only {lost} disks lost entries");
}
