//! A29 to A32, A52, A53 and others: what a server makes of a snapshot, and of what its log holds
//! no more.

use raftkeel::core::{Append, Ask, Index, Message, Position, SnapshotPiece, Term};

use crate::cluster::{Cluster, E, H, n};
use crate::network::Envelope;

/// n1 leads with n2; it has compacted to 8 and has a snapshot at 10. n3 is cut off and has 2.
pub fn compacted(piece_bytes: usize) -> Cluster {
    let mut c = Cluster::led_with(3, |options| options.piece_bytes = piece_bytes);
    c.isolate(3);
    for _ in 0..8 {
        c.propose(1, "X").unwrap();
    }
    c.deliver_all();
    c.heartbeat(1);
    c.save(1);
    c.compact(1, 8, true, true);
    assert_eq!(Position { index: 8, term: 2 }, c.raft(1).log().base());
    c
}

/// A piece of a server's newest snapshot, as a leader of this term would send it.
pub fn piece(c: &Cluster, of: u64, term: Term, seq: u64, place: (usize, usize)) -> Message {
    let (snapshot, image) = c.nodes[&n(of)].disk.snapshot.clone().unwrap();
    Message::Snapshot(Box::new(SnapshotPiece {
        term,
        seq,
        snapshot,
        offset: place.0 as u64,
        data: image[place.0..place.1.min(image.len())].into(),
    }))
}

/// All of it at once.
fn whole(c: &Cluster, of: u64, seq: u64) -> Message {
    piece(c, of, c.term(of), seq, (0, usize::MAX))
}

/// Where a server's log begins and ends.
pub fn span(c: &Cluster, raw: u64) -> (Index, Index) {
    let log = c.raft(raw).log();
    (log.base().index, log.last_index())
}

/// What a server has acknowledged since the last look, at most; 0 for nothing.
fn acked(c: &mut Cluster, from: u64) -> Index {
    c.acks(from).into_iter().max().unwrap_or(0)
}

/// What a server has been given to keep of snapshots, from which bytes on.
fn stored(c: &Cluster, raw: u64) -> Vec<u64> {
    let offset = |ask: &Ask| match ask {
        Ask::Store { offset, .. } => Some(*offset),
        _ => None,
    };
    c.nodes[&n(raw)].asks.iter().filter_map(offset).collect()
}

#[test]
fn a29_a_tail_that_conflicts_with_a_snapshot_goes_as_a_whole() {
    let mut c = Cluster::new(3);
    c.put(1, 3, &[1, 3, 3, 3, 3]);
    c.put(2, 3, &[1, 3, 3, 3, 3]);
    c.put(3, 2, &[1, 2, 2, 2, 2, 2, 2, 2]);
    c.isolate(3);
    c.elect(1);
    c.heartbeat(1);
    assert_eq!((4, 6), (c.term(1), c.commit(1)));
    c.save(1);
    c.compact(1, 6, true, true);
    c.network.heal();
    c.network.take_record();
    c.run(5 * H);
    assert_eq!((6, 6), span(&c, 3));
    assert_eq!((6, 6), (c.commit(3), c.nodes[&n(3)].loaded));
    let sent = c.network.take_record();
    let piece = |e: &&Envelope| match &e.message {
        Message::Snapshot(piece) => !piece.data.is_empty(),
        _ => false,
    };
    assert_eq!(1, sent.iter().filter(piece).count(), "one image was enough");
    c.crash(3);
    c.restart(3);
    assert_eq!(((6, 6), 6), (span(&c, 3), c.commit(3)));
    let (_, index) = c.propose(1, "X").unwrap();
    c.run(5 * H);
    assert_eq!((index, 4), (c.commit(3), c.raft(3).log().last_term()));
}

/// n3 has 1 to 6 and has acknowledged them, and n1 has committed 6 by that; of commits n3 knows
/// only 2. n1 has a snapshot at 4.
fn acknowledged() -> Cluster {
    let mut c = Cluster::led(3);
    c.network.hold(|e| e.to == n(3) && e.is_append());
    for _ in 0..2 {
        c.propose(1, "X").unwrap();
    }
    c.deliver_all();
    c.save(1);
    c.cut(1, 2);
    for _ in 0..2 {
        c.propose(1, "Y").unwrap();
    }
    assert_eq!((4, 6), (c.commit(1), c.raft(1).log().last_index()));
    c
}

/// All that n1 has, but for what it has committed.
fn bring_entries(c: &mut Cluster) {
    let append = Append {
        commit: 2,
        ..c.append_of(1, 2, 1000)
    };
    c.inject(1, 3, Message::Append(append));
    c.deliver_all();
    assert_eq!((6, 2), (c.commit(1), c.commit(3)));
}

/// n1 is gone, and n3 leads with what it had acknowledged.
fn goes_on_without_n1(mut c: Cluster, applied: &[Index]) {
    c.crash(1);
    c.network.end_holds();
    c.network.heal();
    c.elect(3);
    assert!(c.raft(3).is_leader());
    c.heartbeat(3);
    assert_eq!((7, 7), (c.commit(3), c.commit(2)));
    let handed = c.nodes[&n(3)].applied.iter().map(|e| e.index);
    assert_eq!(applied, handed.collect::<Vec<_>>());
}

#[test]
fn a30_a_snapshot_that_the_log_holds_drops_nothing() {
    let mut c = acknowledged();
    bring_entries(&mut c);
    let late = whole(&c, 1, 1001);
    c.inject(1, 3, late);
    assert_eq!(((0, 6), 4), (span(&c, 3), c.commit(3)));
    assert_eq!(0, c.nodes[&n(3)].loaded, "the host went on by entries");
    goes_on_without_n1(c, &[1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a30_entries_that_come_while_a_snapshot_is_loaded_stay() {
    let mut c = acknowledged();
    c.node_mut(3).hold_asks = true;
    let early = whole(&c, 1, 999);
    c.inject(1, 3, early);
    c.answer(3, false);
    assert!(matches!(c.nodes[&n(3)].asks[0], Ask::Install { .. }));
    bring_entries(&mut c);
    c.answer(3, false);
    assert_eq!(((0, 6), 4), (span(&c, 3), c.commit(3)));
    assert_eq!(4, c.nodes[&n(3)].loaded);
    c.node_mut(3).hold_asks = false;
    goes_on_without_n1(c, &[1, 2, 5, 6, 7]);
}

#[test]
fn a31_an_old_snapshot_takes_nobody_back() {
    for begun in [false, true] {
        let mut c = Cluster::led_with(3, |options| options.piece_bytes = 8);
        c.network.hold(|e| e.to == n(3) && e.is_append());
        for _ in 0..2 {
            c.propose(1, "X").unwrap();
        }
        c.deliver_all();
        c.save(1);
        if begun {
            let first = piece(&c, 1, 2, 999, (0, 8));
            c.inject(1, 3, first);
        }
        for _ in 0..4 {
            c.propose(1, "Y").unwrap();
        }
        c.deliver_all();
        c.release();
        c.heartbeat(1);
        assert_eq!((8, 8), (c.commit(3), c.nodes[&n(3)].state.last.index));
        acked(&mut c, 3);
        let late = match begun {
            true => piece(&c, 1, 2, 1000, (8, usize::MAX)),
            false => whole(&c, 1, 1000),
        };
        c.inject(1, 3, late);
        assert_eq!(8, acked(&mut c, 3));
        let node = &c.nodes[&n(3)];
        assert_eq!((0, 8), (node.loaded, node.state.last.index));
        assert_eq!(((0, 8), 8), (span(&c, 3), c.commit(3)));
    }
}

#[test]
fn a32_a_snapshot_is_acknowledged_when_it_is_durable() {
    for crashes_at in 0..=3 {
        let mut c = compacted(1 << 16);
        c.node_mut(3).hold_asks = true;
        c.network.heal();
        c.run(2 * H);
        assert_eq!(vec![0], stored(&c, 3));
        // The piece is kept, the image is loaded, the log is written.
        for step in 0..3 {
            assert!(acked(&mut c, 3) <= 2, "after {step} steps");
            assert!(c.raft(1).progress(n(3)).unwrap().match_index() <= 2);
            if crashes_at == step {
                c.crash(3);
                c.restart(3);
                break;
            }
            match step {
                0 => c.answer(3, false),
                1 => {
                    c.node_mut(3).hold_writes = true;
                    c.answer(3, false);
                }
                _ => c.complete(3),
            }
        }
        if crashes_at == 3 {
            assert_eq!(10, acked(&mut c, 3));
        }
        c.complete_all(3);
        c.run(2 * E);
        assert_eq!((10, 10), (c.commit(3), c.nodes[&n(3)].state.last.index));
    }
}

#[test]
fn a32_a_newer_snapshot_is_not_acknowledged_by_the_write_of_an_older_one() {
    let mut c = compacted(1 << 16);
    c.node_mut(3).hold_writes = true;
    let first = whole(&c, 1, 1000);
    c.inject(1, 3, first);
    assert_eq!((10, 1), (span(&c, 3).0, c.nodes[&n(3)].writes.len()));
    for _ in 0..10 {
        c.propose(1, "Y").unwrap();
    }
    c.deliver_all();
    c.save(1);
    let second = whole(&c, 1, 1001);
    c.inject(1, 3, second);
    assert_eq!(0, acked(&mut c, 3));
    c.complete(3);
    c.answer(3, false);
    assert_eq!((20, 1), (span(&c, 3).0, c.nodes[&n(3)].writes.len()));
    assert_eq!(
        10,
        acked(&mut c, 3),
        "the second is loaded, and not written"
    );
    c.complete(3);
    assert_eq!(20, acked(&mut c, 3));
}

/// n2 has a snapshot, and its log begins behind 4.
fn n2_compacted(last: Index) -> Cluster {
    let mut c = Cluster::led(3);
    while c.commit(1) < 4 {
        c.propose(1, "X").unwrap();
        c.deliver_all();
    }
    c.heartbeat(1);
    c.save(2);
    c.compact(2, 4, true, true);
    c.network.hold(|e| e.is_append());
    while c.raft(1).log().last_index() < last {
        c.propose(1, "Y").unwrap();
    }
    c
}

#[test]
fn a52_the_very_first_append_changes_no_compacted_log() {
    let mut c = n2_compacted(5);
    let fifth = c.append_of(1, 4, 1000);
    c.inject(1, 2, Message::Append(fifth));
    assert_eq!((4, 5), span(&c, 2));
    for length in 1..=4 {
        let mut oldest = c.append_of(1, 0, 1000 + length);
        oldest.entries.truncate(length as usize);
        oldest.commit = 0;
        acked(&mut c, 2);
        c.node_mut(2).hold_writes = true;
        c.inject(1, 2, Message::Append(oldest));
        assert!(c.nodes[&n(2)].writes.is_empty());
        assert_eq!((5, 4), (acked(&mut c, 2), c.commit(2)));
        assert_eq!((4, 5), span(&c, 2));
    }
}

#[test]
fn a53_an_append_that_begins_before_a_compacted_log_is_no_conflict() {
    let mut c = n2_compacted(6);
    let mut fifth = c.append_of(1, 4, 1000);
    fifth.entries.truncate(1);
    c.inject(1, 2, Message::Append(fifth));
    assert_eq!((4, 5), span(&c, 2));
    c.node_mut(2).hold_writes = true;
    let append = c.append_of(1, 2, 1001);
    assert_eq!((3, 4), (append.entries[0].index, append.entries.len()));
    c.inject(1, 2, Message::Append(append));
    assert_eq!((4, 6), span(&c, 2));
    let written = c.nodes[&n(2)].writes.iter().flat_map(|w| &w.entries);
    assert!(written.map(|e| e.index).eq([6]), "5 is there already");
    c.complete_all(2);
    assert_eq!(6, acked(&mut c, 2));
}

/// A leader numbers its messages anew in every term: the number of an older one, said in a newer
/// term, would confirm reads that came later.
#[test]
fn a_number_of_an_older_term_confirms_nothing() {
    let mut c = compacted(1 << 16);
    c.node_mut(3).hold_asks = true;
    c.network.heal();
    c.run(4 * E);
    assert!(!c.node_mut(3).asks.is_empty(), "n3 is receiving");
    c.step_down(1);
    c.elect(1);
    assert!(c.raft(1).is_leader());
    c.run(2 * H);
    // n1 is cut off, and others commit without it.
    c.isolate(1);
    c.node_mut(3).hold_asks = false;
    c.elect(2);
    let (_, index) = c.propose(2, "W").unwrap();
    c.deliver_all();
    assert_eq!(index, c.commit(2));
    let read = c.read(1).unwrap();
    c.deliver_all();
    assert_eq!(None, c.outcome(1, read));
}
