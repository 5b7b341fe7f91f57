//! Packets of every kind with random content, each one that a correct core may send.

#![allow(dead_code, reason = "each test file uses its part")]

use raftkeel::core::{
    Append, AppendOutcome, AppendReply, Bytes, Configuration, Entry, LogEnd, LogEndReply, Message,
    NodeId, Payload, Position, ReadIndex, ReadIndexReply, Snapshot, SnapshotPiece, SnapshotReply,
    TimeoutNow, VoteReply, VoteRequest, Wants,
};
use raftkeel::detector::{BlockedBy, Keepalive, KeepaliveKind, NodeState, Notice, RowItem};
use raftkeel::wire::{Header, MAX_HEARD_TERM, MAX_SNAPSHOT_INDEX, Packet, Part, Verdict};

use super::rng::Rng;

pub fn node(rng: &mut Rng<'_>) -> NodeId {
    NodeId::new(rng.number().max(1)).expect("not 0")
}

fn first() -> NodeId {
    NodeId::new(1).expect("not 0")
}

fn nodes(rng: &mut Rng<'_>, avoid: &[NodeId]) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = (0..rng.below(9)).map(|_| node(rng)).collect();
    nodes.retain(|id| !avoid.contains(id));
    nodes.sort();
    nodes.dedup();
    nodes
}

pub fn configuration(rng: &mut Rng<'_>) -> Configuration {
    let mut voters = nodes(rng, &[]);
    voters.insert(0, first());
    voters.dedup();
    let outgoing = nodes(rng, &[]);
    let votes = [&voters[..], &outgoing[..]].concat();
    let learners = nodes(rng, &votes);
    Configuration {
        epoch: rng.number().max(1),
        voters,
        outgoing,
        learners,
    }
}

pub fn payload(rng: &mut Rng<'_>) -> Payload {
    match rng.below(4) {
        0 => Payload::Noop,
        1 => Payload::Host(rng.bytes(300).into()),
        2 => Payload::Cluster(rng.bytes(300).into()),
        _ => Payload::Config(configuration(rng).into(), rng.bytes(300).into()),
    }
}

pub fn piece(rng: &mut Rng<'_>) -> SnapshotPiece {
    let index = rng.number().clamp(1, MAX_SNAPSHOT_INDEX);
    let term = rng.number().clamp(1, MAX_HEARD_TERM);
    let pieces = rng.flag() && index < 1 << 60;
    let first = index.wrapping_add(1 + rng.below(9));
    let data: Bytes = rng.bytes(300).into();
    let offset = rng.number() >> 2;
    SnapshotPiece {
        term,
        seq: rng.number(),
        snapshot: Snapshot {
            last: Position {
                index,
                term: 1 + rng.number() % term,
            },
            config: configuration(rng).into(),
            config_index: 1 + rng.number() % index,
            size: offset + data.len() as u64 + (rng.number() >> 2),
            crc: rng.number() as u32,
            pieces: pieces.then(|| (first, first + rng.below(99))),
        },
        offset,
        data,
    }
}

fn append(rng: &mut Rng<'_>) -> Append {
    let prev_index = rng.number() >> 1;
    let mut term = if prev_index == 0 { 0 } else { 1 + rng.below(9) };
    let prev_term = term;
    let entries = (prev_index + 1..)
        .take(rng.below(12) as usize)
        .map(|index| {
            term = (term + rng.below(3)).max(1);
            Entry {
                index,
                term,
                payload: payload(rng),
            }
        })
        .collect();
    Append {
        term: (term + rng.below(3)).max(1),
        seq: rng.number(),
        prev_index,
        prev_term,
        commit: rng.number(),
        entries,
    }
}

pub fn message(rng: &mut Rng<'_>) -> Message {
    let last_index = rng.number();
    let last_term = if last_index == 0 {
        0
    } else {
        1 + rng.below(99)
    };
    let request = VoteRequest {
        term: last_term + 1 + rng.below(99),
        last_index,
        last_term,
        transfer: rng.flag(),
    };
    let reply = VoteReply {
        term: rng.number().min(MAX_HEARD_TERM),
        granted: rng.flag(),
        early: false,
    };
    let vote = VoteReply {
        early: reply.granted && rng.flag(),
        ..reply.clone()
    };
    let prev_index = last_index.saturating_add(rng.below(9));
    let outcome = match rng.flag() {
        true => AppendOutcome::Accepted {
            match_index: rng.number(),
        },
        false => AppendOutcome::Rejected {
            prev_index,
            hint_index: last_index,
            hint_term: last_term,
        },
    };
    match rng.below(13) {
        0 => Message::PreVote(request),
        1 => Message::PreVoteReply(reply),
        2 => Message::Vote(request),
        3 => Message::VoteReply(vote),
        4 => Message::Append(append(rng)),
        5 => Message::TimeoutNow(TimeoutNow {
            term: last_term + 1,
            seq: rng.number(),
            last_index: rng.number().max(1),
            last_term: last_term + 1,
        }),
        6 => Message::ReadIndex(ReadIndex {
            term: rng.number().clamp(1, MAX_HEARD_TERM),
            run: rng.number(),
            seq: rng.number(),
        }),
        7 => Message::ReadIndexReply(ReadIndexReply {
            term: rng.number().clamp(1, MAX_HEARD_TERM),
            run: rng.number(),
            seq: rng.number(),
            index: rng.number().max(1),
        }),
        11 => Message::LogEnd(LogEnd {
            term: rng.number().clamp(1, MAX_HEARD_TERM),
            run: rng.number(),
        }),
        12 => Message::LogEndReply(LogEndReply {
            term: rng.number().clamp(1, MAX_HEARD_TERM),
            run: rng.number(),
            index: rng.number().max(1),
        }),
        8 => Message::Snapshot(Box::new(piece(rng))),
        9 => Message::SnapshotReply(SnapshotReply {
            term: rng.number().min(MAX_HEARD_TERM),
            seq: rng.number(),
            index: rng.number(),
            crc: rng.number() as u32,
            wants: match rng.below(3) {
                0 => Wants::From(rng.number()),
                1 => Wants::Patience,
                _ => Wants::Again,
            },
        }),
        _ => Message::AppendReply(AppendReply {
            term: rng.number().min(MAX_HEARD_TERM),
            seq: rng.number(),
            outcome,
        }),
    }
}

fn keepalive(rng: &mut Rng<'_>) -> Keepalive {
    use BlockedBy::*;
    use NodeState::*;
    let kinds = [
        KeepaliveKind::Push,
        KeepaliveKind::Probe,
        KeepaliveKind::Poll,
        KeepaliveKind::Reply,
    ];
    let states = [
        Joining, Alive, Late, Suspect, Excluded, Returned, Replaced, Removed,
    ];
    let guards = [
        None,
        Disabled,
        NotLeaderFresh,
        ListenerUnhealthy,
        NoQuorumAfter,
        MinNodes,
        Veto,
        InitDead,
        Settling,
    ];
    let row = (0..rng.below(65))
        .map(|_| RowItem {
            node: node(rng),
            age: rng.number() as u32,
            span: rng.number() as u32,
            incarnation: rng.number(),
        })
        .collect();
    let notice = rng.flag().then(|| Notice {
        nodes: (0..rng.below(65))
            .map(|_| {
                let state = states[rng.below(8) as usize];
                (node(rng), state, guards[rng.below(9) as usize])
            })
            .collect(),
        why: "n3 \u{2026} silent ".repeat(rng.below(12) as usize),
    });
    Keepalive {
        kind: kinds[rng.below(4) as usize],
        health: rng.below(9) as u8,
        applied: rng.number(),
        row,
        notice,
    }
}

fn verdict(rng: &mut Rng<'_>) -> Verdict {
    Verdict {
        epoch: rng.number(),
        index: rng.number(),
        leader: rng.flag().then(|| node(rng)),
    }
}

pub fn packet(rng: &mut Rng<'_>) -> Packet {
    let parts = (0..=rng.below(4))
        .map(|_| match rng.below(8) {
            0 => Part::Keepalive(keepalive(rng)),
            1 => Part::Verdict(verdict(rng)),
            2 => Part::Removed(verdict(rng)),
            3 => Part::LostState {
                node: node(rng),
                instance: rng.number(),
            },
            4 => Part::Digest {
                index: rng.number(),
                crc: rng.number() as u32,
            },
            _ => Part::Raft(message(rng)),
        })
        .collect();
    Packet {
        header: Header {
            cluster: rng.number(),
            genesis: rng.number(),
            from: node(rng),
            to: node(rng),
            instance: rng.number(),
            incarnation: rng.number(),
            epoch: rng.number(),
            stamp: rng.number(),
            echo: rng.number(),
            echo_incarnation: rng.number(),
            leader_term: rng.number(),
            features: rng.number() as u32,
            priority: rng.number() as u8,
        },
        parts,
        skipped: 0,
    }
}
