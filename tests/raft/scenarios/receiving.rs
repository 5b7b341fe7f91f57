//! Snapshots that are being received, one server at a time.

use std::sync::Arc;

use raftkeel::core::{
    Ask, HardState, Message, Millis, Position, Raft, Restored, Snapshot, SnapshotPiece,
};

use crate::cluster::{first_entry, n, plain, server};

fn snapshot(index: u64, crc: u32) -> Snapshot {
    Snapshot {
        last: Position { index, term: 1 },
        config: Arc::new(plain(1, &[1, 2, 3], &[])),
        config_index: 1,
        size: 0,
        crc,
        pieces: None,
    }
}

fn offer(term: u64, seq: u64, snapshot: &Snapshot) -> Message {
    Message::Snapshot(Box::new(SnapshotPiece {
        term,
        seq,
        snapshot: snapshot.clone(),
        offset: 0,
        data: Raft::no_bytes(),
    }))
}

/// A voter that holds the first entry only.
fn follower() -> Raft {
    let restored = Restored {
        hard: HardState {
            term: 1,
            ..HardState::default()
        },
        entries: vec![first_entry(&[1, 2, 3])],
        ..Restored::default()
    };
    server(2, restored)
}

/// Gives it a message, and has its writes complete; what it says and wants.
fn give(raft: &mut Raft, now: Millis, from: u64, message: Message) -> (Vec<Message>, Vec<Ask>) {
    raft.receive(now, n(from), message);
    while let Some(persist) = raft.take_persist() {
        raft.persisted(persist.token, true);
    }
    let said = raft.take_messages().map(|(_, message)| message).collect();
    (said, raft.take_asks())
}

/// The leader counts a peer as in contact by the newest number that it answers: also one whose host
/// loads a snapshot for long, which another leader has sent.
#[test]
fn who_loads_a_snapshot_still_answers_offers_of_another() {
    let mut raft = follower();
    let (first, second) = (snapshot(10, 1), snapshot(20, 2));
    let (_, asks) = give(&mut raft, 10, 1, offer(2, 1, &first));
    assert!(matches!(&asks[..], [Ask::Install { .. }]), "{asks:?}");
    for seq in [1, 2, 7] {
        let (said, asks) = give(&mut raft, 20 + seq, 3, offer(3, seq, &second));
        assert!(asks.is_empty());
        let [Message::SnapshotReply(reply)] = &said[..] else {
            panic!("one answer: {said:?}");
        };
        assert_eq!((3, seq), (reply.term, reply.seq));
    }
}

#[test]
fn who_is_poisoned_while_its_log_is_replaced_writes_nothing() {
    let mut raft = follower();
    let first = snapshot(10, 1);
    give(&mut raft, 10, 1, offer(2, 1, &first));
    raft.installed(20, &first, true);
    raft.poison();
    assert_eq!(None, raft.take_persist());
}
