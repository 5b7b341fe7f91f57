//! Random packets and random damage. The seed is printed; `RAFTKEEL_SEED` replays it.

use std::mem::size_of;

use super::*;

/// A small generator (splitmix64): enough for tests, the same everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    /// Seeded by `RAFTKEEL_SEED` or, without it, by the time.
    pub(crate) fn for_test(name: &str) -> Rng {
        let seed = match std::env::var("RAFTKEEL_SEED") {
            Ok(text) => text.parse().expect("RAFTKEEL_SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |d| d.as_nanos() as u64),
        };
        println!("{name}: RAFTKEEL_SEED={seed}");
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 .. `end`, which is excluded.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Numbers of every magnitude, the extremes often.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            _ => self.next() >> self.below(64),
        }
    }

    fn node(&mut self) -> NodeId {
        n(self.number().max(1))
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn bytes(&mut self, end: u64) -> crate::core::Bytes {
        (0..self.below(end)).map(|_| self.next() as u8).collect()
    }
}

fn nodes(rng: &mut Rng, avoid: &[NodeId]) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = (0..rng.below(9)).map(|_| rng.node()).collect();
    nodes.retain(|id| !avoid.contains(id));
    nodes.sort();
    nodes.dedup();
    nodes
}

fn configuration(rng: &mut Rng) -> Configuration {
    let mut voters = nodes(rng, &[]);
    voters.insert(0, n(1));
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

fn payload(rng: &mut Rng) -> Payload {
    match rng.below(4) {
        0 => Payload::Noop,
        1 => Payload::Host(rng.bytes(300)),
        2 => Payload::Cluster(rng.bytes(300)),
        _ => Payload::Config(configuration(rng).into(), rng.bytes(300)),
    }
}

fn piece(rng: &mut Rng) -> SnapshotPiece {
    let index = rng.number().clamp(1, u64::MAX - 1);
    let term = rng.number().clamp(1, MAX_TERM);
    let pieces = rng.flag() && index < 1 << 60;
    let first = index.wrapping_add(1 + rng.below(9));
    let data = rng.bytes(300);
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

fn append(rng: &mut Rng) -> Append {
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

fn message(rng: &mut Rng) -> Message {
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
        term: rng.number().min(MAX_TERM),
        granted: rng.flag(),
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
    match rng.below(11) {
        0 => Message::PreVote(request),
        1 => Message::PreVoteReply(reply),
        2 => Message::Vote(request),
        3 => Message::VoteReply(reply),
        4 => Message::Append(append(rng)),
        5 => Message::TimeoutNow(TimeoutNow {
            term: last_term + 1,
            seq: rng.number(),
            last_index: rng.number().max(1),
            last_term: last_term + 1,
        }),
        6 => Message::ReadIndex(ReadIndex {
            term: rng.number().clamp(1, MAX_TERM),
            run: rng.number(),
            seq: rng.number(),
        }),
        7 => Message::ReadIndexReply(ReadIndexReply {
            term: rng.number().clamp(1, MAX_TERM),
            run: rng.number(),
            seq: rng.number(),
            index: rng.number().max(1),
        }),
        8 => Message::Snapshot(Box::new(piece(rng))),
        9 => Message::SnapshotReply(SnapshotReply {
            term: rng.number().min(MAX_TERM),
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
            term: rng.number().min(MAX_TERM),
            seq: rng.number(),
            outcome,
        }),
    }
}

fn random_keepalive(rng: &mut Rng) -> Keepalive {
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
            node: rng.node(),
            age: rng.number() as u32,
            span: rng.number() as u32,
            incarnation: rng.number(),
        })
        .collect();
    let notice = rng.flag().then(|| Notice {
        nodes: (0..rng.below(65))
            .map(|_| {
                let state = states[rng.below(8) as usize];
                (rng.node(), state, guards[rng.below(9) as usize])
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

fn random_verdict(rng: &mut Rng) -> Verdict {
    Verdict {
        epoch: rng.number(),
        index: rng.number(),
        leader: rng.flag().then(|| rng.node()),
    }
}

fn random_packet(rng: &mut Rng) -> Packet {
    let parts = (0..=rng.below(4))
        .map(|_| match rng.below(8) {
            0 => Part::Keepalive(random_keepalive(rng)),
            1 => Part::Verdict(random_verdict(rng)),
            2 => Part::Removed(random_verdict(rng)),
            3 => Part::LostState {
                node: rng.node(),
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
            from: rng.node(),
            to: rng.node(),
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

/// Heap bytes that a decoded packet holds, by its lengths and capacities; 16 for every counter pair
/// of an `Arc`.
fn heap(packet: &Packet) -> usize {
    let part = |part: &Part| match part {
        Part::Raft(Message::Append(m)) => {
            let inner: usize = m.entries.iter().map(|e| payload_heap(&e.payload)).sum();
            m.entries.capacity() * size_of::<Entry>() + inner
        }
        Part::Keepalive(k) => {
            let notice = k.notice.as_ref().map_or(0, |n| {
                n.why.capacity() + n.nodes.capacity() * size_of::<(NodeId, NodeState, BlockedBy)>()
            });
            k.row.capacity() * size_of::<RowItem>() + notice
        }
        Part::Raft(Message::Snapshot(m)) => {
            let config = [&m.snapshot.config.voters, &m.snapshot.config.learners];
            let nodes: usize = config.iter().map(|list| list.capacity()).sum();
            let nodes = nodes + m.snapshot.config.outgoing.capacity();
            32 + size_of::<Configuration>() + nodes * size_of::<NodeId>() + m.data.len()
        }
        _ => 0,
    };
    packet.parts.iter().map(part).sum()
}

fn payload_heap(payload: &Payload) -> usize {
    match payload {
        Payload::Noop => 0,
        Payload::Host(b) | Payload::Cluster(b) => 16 + b.len(),
        Payload::Config(c, cause) => {
            let nodes = c.voters.capacity() + c.outgoing.capacity() + c.learners.capacity();
            16 + size_of::<Configuration>() + nodes * 8 + 16 + cause.len()
        }
    }
}

fn assert_bounded(packet: &Packet, bytes: &[u8]) {
    assert!(
        heap(packet) <= MAX_AMPLIFICATION * bytes.len(),
        "{} bytes on the heap for {}",
        heap(packet),
        bytes.len()
    );
}

#[test]
fn random_packets_come_back_as_they_were() {
    let mut rng = Rng::for_test("random_packets_come_back_as_they_were");
    for _ in 0..20_000 {
        let packet = random_packet(&mut rng);
        let bytes = bytes_of(&packet);
        let decoded = decode(&bytes).expect("it was just encoded");
        assert_eq!(decoded, packet);
        assert_bounded(&decoded, &bytes);
        assert_eq!(peek(&bytes), Ok(packet.header));
    }
}

#[test]
fn random_damage_never_panics_and_never_swells() {
    let mut rng = Rng::for_test("random_damage_never_panics_and_never_swells");
    let mut templates: Vec<Vec<u8>> = samples().iter().map(|(_, p)| bytes_of(p)).collect();
    templates.extend((0..50).map(|_| bytes_of(&random_packet(&mut rng))));
    let mut accepted = 0;
    for round in 0..200_000 {
        let mut bytes = templates[round % templates.len()].clone();
        damage(&mut rng, &mut bytes);
        reseal(&mut bytes);
        if let Ok(packet) = decode(&bytes) {
            accepted += 1;
            assert_bounded(&packet, &bytes);
            // What was accepted is a packet like any other: it can be sent on, and is the same.
            if !packet.parts.is_empty() {
                let again = decode(&bytes_of(&packet)).expect("accepted packets can be encoded");
                assert_eq!((again.header, again.parts), (packet.header, packet.parts));
            }
        }
    }
    // Otherwise the damage would be too coarse to reach the inner decoders.
    assert!(accepted > 1000, "{accepted} accepted");
}

fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        // Behind version 1 and in front of the checksum, where damage gets through.
        let at = 5 + rng.below(bytes.len() as u64 - 9) as usize;
        match rng.below(5) {
            0 => bytes[at] = rng.next() as u8,
            1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes[at] = [0, 1, 0x7f, 0xff][rng.below(4) as usize],
            3 if bytes.len() > 120 => drop(bytes.remove(at)),
            _ => bytes.insert(at, rng.next() as u8),
        }
    }
}

#[test]
fn the_worst_amplification_is_within_the_bound() {
    let noop = Entry {
        index: 0,
        term: 1,
        payload: Payload::Noop,
    };
    let empty = Entry {
        payload: Payload::Host([][..].into()),
        ..noop.clone()
    };
    for kind in [noop, empty] {
        let entries = (1..=10_000).map(|index| Entry {
            index,
            ..kind.clone()
        });
        let append = Append {
            term: 1,
            seq: 1,
            prev_index: 0,
            prev_term: 0,
            commit: 0,
            entries: entries.collect(),
        };
        let bytes = bytes_of(&packet(vec![Part::Raft(Message::Append(append))]));
        assert_bounded(&decode(&bytes).expect("it was just encoded"), &bytes);
    }
}
