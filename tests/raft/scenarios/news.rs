//! What is committed is news, which is told once.

use std::sync::Arc;

use raftkeel::core::{
    AppendOutcome, AppendReply, Configuration, HardState, Message, NodeId, Options, Payload,
    Position, Raft, Restored, Snapshot, SnapshotReply, VoteReply, Wants,
};

fn n(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

/// One driving call.
fn drive(raft: &mut Raft) -> Vec<(NodeId, Message)> {
    while let Some(persist) = raft.take_persist() {
        raft.persisted(persist.token, true);
    }
    let mut all: Vec<_> = raft.take_first_messages().collect();
    all.extend(raft.take_messages());
    raft.take_committed(100);
    raft.take_asks();
    all
}

/// A leader of 1 to 3 whose log begins with a snapshot at 10, and the time.
fn leader() -> (Raft, u64) {
    let config = Arc::new(Configuration {
        epoch: 1,
        voters: vec![n(1), n(2), n(3)],
        ..Configuration::default()
    });
    let last = Position { index: 10, term: 1 };
    let snapshot = Snapshot {
        last,
        config,
        config_index: 1,
        size: 5000,
        crc: 7,
        pieces: None,
    };
    let restored = Restored {
        hard: HardState {
            term: 1,
            commit: 10,
            ..HardState::default()
        },
        snapshot: Some(snapshot),
        base: last,
        ..Restored::default()
    };
    let mut raft = Raft::new(Options::new(n(1)), restored, 0);
    raft.start(0);
    let now = 4000;
    raft.tick(now);
    drive(&mut raft);
    let granted = VoteReply {
        term: 2,
        granted: true,
        early: false,
    };
    raft.receive(now, n(2), Message::PreVoteReply(granted.clone()));
    drive(&mut raft);
    raft.receive(now, n(2), Message::VoteReply(granted));
    assert!(raft.is_leader());
    (raft, now)
}

#[test]
fn who_is_offered_a_snapshot_instead_is_not_offered_it_with_every_call() {
    let (mut raft, mut now) = leader();
    let reply = |seq, outcome| {
        Message::AppendReply(AppendReply {
            term: 2,
            seq,
            outcome,
        })
    };
    let mut seqs = [0; 4];
    let mut note = |out: &[(NodeId, Message)]| {
        for (to, message) in out {
            if let Message::Append(append) = message {
                seqs[to.get() as usize] = append.seq;
            }
        }
        seqs
    };
    note(&drive(&mut raft));
    now += 100;
    raft.tick(now);
    let seqs = note(&drive(&mut raft));
    // Both hold everything, and get one more entry.
    let all = AppendOutcome::Accepted { match_index: 11 };
    for peer in [2, 3] {
        raft.receive(now, n(peer), reply(seqs[peer as usize], all.clone()));
    }
    note(&drive(&mut raft));
    now += 1;
    raft.propose(now, Payload::Host(vec![1].into())).unwrap();
    let out = drive(&mut raft);
    assert_eq!(out.len(), 2);
    let seqs = note(&out);
    // In one call 2 has it durable, and 3, which was started again with a damaged log, refuses.
    let durable = AppendOutcome::Accepted { match_index: 12 };
    let refused = AppendOutcome::Rejected {
        prev_index: 11,
        hint_index: 5,
        hint_term: 1,
    };
    raft.receive(now, n(2), reply(seqs[2], durable));
    raft.receive(now, n(3), reply(seqs[3], refused));
    drive(&mut raft);
    let mut offers = 0;
    for _ in 0..1000 {
        for (to, message) in drive(&mut raft) {
            let Message::Snapshot(piece) = message else {
                continue;
            };
            offers += 1;
            let patience = SnapshotReply {
                term: 2,
                seq: piece.seq,
                index: 10,
                crc: 7,
                wants: Wants::Patience,
            };
            raft.receive(now, to, Message::SnapshotReply(patience));
        }
    }
    assert_eq!(offers, 0, "in calls without a cause");
}
