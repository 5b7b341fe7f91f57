//! A45 to A51: snapshots on their way, piece by piece, and what may come between.

use raftkeel::core::{Ask, Flow, Message, SnapshotPiece};

use super::snapshot::{compacted, piece, span};
use crate::cluster::{Cluster, E, H, joint, n, plain};
use crate::network::Envelope;

fn sent_piece(e: &Envelope) -> Option<&SnapshotPiece> {
    match &e.message {
        Message::Snapshot(piece) if !piece.data.is_empty() => Some(piece),
        _ => None,
    }
}

/// Where the pieces began that a server has sent since the last look.
fn offsets(c: &mut Cluster, from: u64) -> Vec<u64> {
    let record = c.network.take_record();
    let sent = record.iter().filter(|e| e.from == n(from));
    sent.filter_map(sent_piece).map(|p| p.offset).collect()
}

fn kept(c: &Cluster, raw: u64) -> usize {
    let partial = c.nodes[&n(raw)].disk.partial.as_ref();
    partial.map_or(0, |(_, kept)| kept.len())
}

fn is_sent_one(c: &Cluster, raw: u64) -> bool {
    let progress = c.raft(1).progress(n(raw));
    progress.is_some_and(|p| p.sending().is_some())
}

fn is_caught_up(c: &Cluster, raw: u64, by: u64) -> bool {
    let progress = c.raft(by).progress(n(raw)).unwrap();
    let last = c.raft(by).log().last_index();
    progress.match_index() == last && *progress.flow() == Flow::Replicate && c.commit(raw) == last
}

/// n3 has two of four pieces or more, and the next one does not come to it.
fn half_way() -> Cluster {
    let mut c = compacted(8);
    c.network.heal();
    c.network
        .hold(|e| e.to == n(3) && sent_piece(e).is_some_and(|p| p.offset == 16));
    c.run(2 * H);
    assert_eq!(16, kept(&c, 3));
    c
}

#[test]
fn a45_a_transfer_goes_on_after_a_restart_with_what_survived() {
    for survives in [true, false] {
        let mut c = half_way();
        c.crash(3);
        if !survives {
            c.node_mut(3).disk.partial = None;
        }
        c.restart(3);
        c.network.take_record();
        // The piece for which n3 asked before comes now.
        c.release();
        c.run(4 * H);
        let sent = offsets(&mut c, 1);
        let expected: &[u64] = if survives { &[24] } else { &[0, 8, 16, 24] };
        assert_eq!(expected, sent);
        assert_eq!(10, c.nodes[&n(3)].loaded);
        assert!(is_caught_up(&c, 3, 1));
    }
}

#[test]
fn a46_pieces_of_two_snapshots_make_no_image() {
    let mut c = compacted(8);
    let old = |c: &Cluster, seq, from| piece(c, 1, 2, seq, (from, from + 8));
    let first = old(&c, 1000, 0);
    c.inject(1, 3, first);
    assert_eq!(8, kept(&c, 3));
    for _ in 0..3 {
        c.propose(1, "Y").unwrap();
    }
    c.deliver_all();
    c.heartbeat(1);
    c.save(2);
    c.compact(2, 13, true, true);
    c.step_down(1);
    c.elect(2);
    assert_eq!((true, 3), (c.raft(2).is_leader(), c.term(2)));
    let new = |c: &Cluster, seq, from| piece(c, 2, 3, seq, (from, from + 8));
    let size = c.nodes[&n(2)].disk.snapshot.as_ref().unwrap().0.size as usize;
    let mut seq = 1000;
    let mut at = 0;
    while at < size {
        for from in [at, 0, at + 16, at] {
            let delayed = old(&c, 1001, 8);
            c.inject(1, 3, delayed);
            if from < size {
                seq += 1;
                let message = new(&c, seq, from);
                c.inject(2, 3, message);
            }
        }
        at += 8;
    }
    let node = &c.nodes[&n(3)];
    assert_eq!((13, 13), (node.loaded, node.state.last.index));
    c.network.heal();
    c.run(2 * E);
    let leader = c.leader().unwrap();
    assert_eq!(c.commit(leader), c.commit(3));
}

/// The first snapshot, another one, and the first once more, from leaders of three terms, while
/// storage is slow: what it says of the oldest piece is not said of the newest.
#[test]
fn a46_an_answer_about_an_older_piece_is_not_one_about_a_newer() {
    let mut c = compacted(8);
    for _ in 0..3 {
        c.propose(1, "Y").unwrap();
    }
    c.deliver_all();
    c.heartbeat(1);
    let first = |c: &Cluster, term, at| piece(c, 1, term, 1000 + at as u64, (at, at + 8));
    let message = first(&c, 2, 0);
    c.inject(1, 3, message);
    c.node_mut(3).hold_asks = true;
    let message = first(&c, 2, 8);
    c.inject(1, 3, message);
    c.save(2);
    c.step_down(1);
    c.elect(2);
    let other = piece(&c, 2, 3, 1000, (0, 8));
    c.inject(2, 3, other);
    c.step_down(2);
    c.elect(1);
    assert_eq!((true, 4), (c.raft(1).is_leader(), c.term(1)));
    let message = first(&c, 4, 0);
    c.inject(1, 3, message);
    while !c.nodes[&n(3)].asks.is_empty() {
        c.answer(3, false);
    }
    c.node_mut(3).hold_asks = false;
    c.network.take_record();
    for at in [0, 8, 16, 24] {
        let message = first(&c, 4, at);
        c.inject(1, 3, message);
    }
    assert_eq!(10, c.nodes[&n(3)].loaded);
}

#[test]
fn a47_what_could_not_be_loaded_is_sent_again() {
    let mut c = compacted(8);
    c.node_mut(3).hold_asks = true;
    c.network.heal();
    loop {
        c.run_until(5 * H, "n3 wants something", |c| {
            !c.nodes[&n(3)].asks.is_empty()
        });
        if matches!(c.nodes[&n(3)].asks[0], Ask::Install { .. }) {
            break;
        }
        c.answer(3, false);
    }
    assert_eq!(vec![0, 8, 16, 24], offsets(&mut c, 1));
    c.answer(3, true);
    assert_eq!((0, 2), (c.nodes[&n(3)].loaded, c.commit(3)));
    c.complete_all(3);
    c.run(5 * H);
    assert_eq!(vec![0, 8, 16, 24], offsets(&mut c, 1));
    assert_eq!(10, c.nodes[&n(3)].loaded);
    assert!(is_caught_up(&c, 3, 1));
}

#[test]
fn a48_a_lost_answer_does_not_keep_a_peer_in_snapshot_state() {
    let mut c = compacted(1 << 16);
    c.network.heal();
    c.run_until(5 * H, "n3 needs a snapshot", |c| is_sent_one(c, 3));
    c.network.hold(|e| e.from == n(3) && e.is_append_reply());
    c.run_until(5 * H, "n3 has loaded", |c| c.nodes[&n(3)].loaded == 10);
    assert!(!c.network.end_holds().is_empty());
    assert!(is_sent_one(&c, 3));
    c.run(3 * E);
    assert!(is_caught_up(&c, 3, 1));
    assert_eq!((true, 2), (c.raft(1).is_leader(), c.term(1)));
}

/// Entries that were sent before bring the peer to where the log goes on from, below the snapshot.
#[test]
fn a48_a_log_that_connects_ends_a_transfer_wherever_that_is() {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(3) && e.is_append());
    for _ in 0..8 {
        c.propose(1, "X").unwrap();
    }
    c.deliver_all();
    c.save(1);
    c.compact(1, 8, true, true);
    c.node_mut(3).hold_asks = true;
    let mut late = c.network.end_holds();
    late.retain(Envelope::has_entries);
    assert_eq!(8, late.len());
    late.truncate(7);
    c.run(2 * H);
    assert!(is_sent_one(&c, 3));
    for envelope in late {
        c.deliver(envelope);
    }
    assert_eq!(9, c.raft(3).log().last_index());
    c.deliver_all();
    assert!(!is_sent_one(&c, 3));
    assert!(is_caught_up(&c, 3, 1), "10 was sent by itself");
    c.complete_all(3);
    c.run(2 * E);
    assert_eq!(0, c.nodes[&n(3)].loaded);
    assert!(is_caught_up(&c, 3, 1));
}

/// n1 is reading a piece for n3.
fn reading() -> Cluster {
    let mut c = half_way();
    c.node_mut(1).hold_asks = true;
    c.run_until(5 * H, "a piece is read", |c| {
        !c.nodes[&n(1)].asks.is_empty()
    });
    c.network.end_holds();
    c
}

/// All has been read that was asked for, before and since: it is sent as often as this transfer
/// wants it.
fn ends_well(mut c: Cluster, sent: &[u64]) {
    c.network.take_record();
    let asks = c.nodes[&n(1)].asks.len();
    (0..asks).for_each(|_| c.answer(1, false));
    assert_eq!(sent, offsets(&mut c, 1));
    c.complete_all(1);
    c.run(3 * E);
    assert!(is_caught_up(&c, 3, 1));
}

#[test]
fn a49_a_transfer_ends_with_the_membership_of_its_receiver() {
    for early in [true, false] {
        let mut c = reading();
        c.cut(1, 3);
        c.change(1, joint(2, &[1, 2], &[1, 2, 3], &[])).unwrap();
        c.deliver_all();
        assert!(c.raft(1).progress(n(3)).is_none());
        c.network.take_record();
        if early {
            c.answer(1, false);
            assert!(c.network.take_record().is_empty(), "to nobody");
        }
        c.network.heal();
        c.change(1, plain(3, &[1, 2], &[3])).unwrap();
        c.deliver_all();
        ends_well(c, &[16]);
    }
}

#[test]
fn a49_a_transfer_ends_with_the_term_of_its_sender() {
    let mut c = reading();
    c.step_down(1);
    c.elect(1);
    assert_eq!((true, 3), (c.raft(1).is_leader(), c.term(1)));
    assert_eq!(
        2,
        c.nodes[&n(1)].asks.len(),
        "it is asked for in both terms"
    );
    ends_well(c, &[16]);
}

#[test]
fn a50_the_log_is_kept_behind_a_snapshot_on_its_way() {
    for anyway in [false, true] {
        let mut c = half_way();
        for _ in 0..20 {
            c.propose(1, "Y").unwrap();
        }
        c.deliver_all();
        c.heartbeat(1);
        c.save(1);
        c.compact(1, 30, anyway, true);
        let base = if anyway { 30 } else { 10 };
        assert_eq!((base, 30), span(&c, 1));
        c.release();
        c.run(6 * H);
        assert!(is_caught_up(&c, 3, 1));
        assert_eq!(base, c.nodes[&n(3)].loaded);
    }
}

#[test]
fn a51_who_lost_a_whole_window_behind_the_base_is_sent_a_snapshot() {
    let mut c = Cluster::led(3);
    c.network.cut(n(1), n(3));
    for _ in 0..100 {
        c.propose(1, "X").unwrap();
    }
    c.deliver_all();
    assert!(!c.raft(1).progress(n(3)).unwrap().is_open());
    c.save(1);
    c.compact(1, 102, true, true);
    c.network.heal();
    c.network.take_record();
    c.run(5 * H);
    for envelope in c.network.take_record() {
        if let Message::Append(append) = envelope.message {
            assert_eq!((102, 2), (append.prev_index, append.prev_term));
        }
    }
    assert_eq!(102, c.nodes[&n(3)].loaded);
    assert!(is_caught_up(&c, 3, 1));
}
