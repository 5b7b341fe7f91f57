//! What holds for every packet: round trips, refusals, bounds.

mod golden;
#[path = "../../tests/support/packets.rs"]
mod packets;
mod random;

use std::sync::Arc;

use super::*;
use crate::core::{
    Append, AppendOutcome, AppendReply, Configuration, Entry, Index, LogEnd, LogEndReply, Message,
    NodeId, Payload, Position, ReadIndex, ReadIndexReply, Snapshot, SnapshotPiece, SnapshotReply,
    TimeoutNow, VoteReply, VoteRequest, Wants,
};
use crate::detector::{BlockedBy, Keepalive, KeepaliveKind, NodeState, Notice, RowItem};

use crate::fuzz::rng;
pub(crate) use rng::Rng;

pub(crate) fn n(id: u64) -> NodeId {
    NodeId::new(id).expect("a node id is not 0")
}

fn header() -> Header {
    Header {
        cluster: 0x1111_2222_3333_4444,
        genesis: 0x5555_6666_7777_8888,
        from: n(1),
        to: n(2),
        instance: 3,
        incarnation: 4,
        epoch: 5,
        stamp: 6,
        echo: 7,
        echo_incarnation: 8,
        leader_term: 9,
        features: 0x0a0b_0c0d,
        priority: 0x0e,
    }
}

fn packet(parts: Vec<Part>) -> Packet {
    Packet {
        header: header(),
        parts,
        skipped: 0,
    }
}

fn entries() -> Vec<Entry> {
    let configuration = Configuration {
        epoch: 3,
        voters: vec![n(1), n(3)],
        outgoing: vec![n(1), n(2), n(3)],
        learners: vec![n(9)],
    };
    [
        Payload::Noop,
        Payload::Host(b"data"[..].into()),
        Payload::Host([][..].into()),
        Payload::Cluster(b"command"[..].into()),
        Payload::Config(configuration.into(), b"cause"[..].into()),
    ]
    .into_iter()
    .zip(11..)
    .map(|(payload, index)| Entry {
        index,
        term: index / 6 + 5,
        payload,
    })
    .collect()
}

fn snapshot(pieces: Option<(Index, Index)>) -> Snapshot {
    let configuration = Configuration {
        epoch: 3,
        voters: vec![n(1), n(3)],
        outgoing: Vec::new(),
        learners: vec![n(9)],
    };
    Snapshot {
        last: Position { index: 13, term: 4 },
        config: configuration.into(),
        config_index: 12,
        size: 1 << 33,
        crc: 0xaabb_ccdd,
        pieces,
    }
}

fn piece(snapshot: Snapshot) -> SnapshotPiece {
    SnapshotPiece {
        term: 5,
        seq: 6,
        snapshot,
        offset: 1 << 32,
        data: b"image"[..].into(),
    }
}

fn wants(wants: Wants) -> Message {
    Message::SnapshotReply(SnapshotReply {
        term: 5,
        seq: 6,
        index: 13,
        crc: 0xaabb_ccdd,
        wants,
    })
}

fn keepalive(kind: KeepaliveKind) -> Keepalive {
    Keepalive {
        kind,
        health: 8,
        applied: 12,
        row: vec![
            RowItem {
                node: n(2),
                age: 31,
                span: 60_000,
                incarnation: 7,
            },
            RowItem {
                node: n(3),
                age: u32::MAX,
                span: 60_000,
                incarnation: 0,
            },
        ],
        notice: None,
    }
}

/// One packet of each kind, with its name.
fn samples() -> Vec<(&'static str, Packet)> {
    let request = VoteRequest {
        term: 8,
        last_index: 11,
        last_term: 7,
        transfer: true,
    };
    let reply = VoteReply {
        term: 8,
        granted: true,
        early: false,
    };
    let early = VoteReply {
        early: true,
        ..reply.clone()
    };
    let append = |entries| Append {
        term: 8,
        seq: 21,
        prev_index: 10,
        prev_term: 6,
        commit: 9,
        entries,
    };
    let append_reply = |outcome| AppendReply {
        term: 8,
        seq: 21,
        outcome,
    };
    let accepted = AppendOutcome::Accepted { match_index: 15 };
    let rejected = AppendOutcome::Rejected {
        prev_index: 10,
        hint_index: 4,
        hint_term: 2,
    };
    let timeout_now = TimeoutNow {
        term: 8,
        seq: 22,
        last_index: 15,
        last_term: 8,
    };
    let read_index = ReadIndex {
        term: 8,
        run: 4,
        seq: 31,
    };
    let read_index_reply = ReadIndexReply {
        term: 8,
        run: 4,
        seq: 31,
        index: 15,
    };
    let notice = Notice {
        nodes: vec![
            (n(2), NodeState::Alive, BlockedBy::None),
            (n(3), NodeState::Suspect, BlockedBy::MinNodes),
        ],
        why: "n3 silent for 6.2 s; 2 would remain, floor is 3 \u{b1}0".into(),
    };
    let raft = |message| packet(vec![Part::Raft(message)]);
    let kept = |keepalive| packet(vec![Part::Keepalive(keepalive)]);
    let fate = |leader| Verdict {
        epoch: 4,
        index: 99,
        leader,
    };
    let verdict = |leader| Part::Verdict(fate(leader));
    vec![
        ("pre-vote", raft(Message::PreVote(request.clone()))),
        ("pre-vote reply", raft(Message::PreVoteReply(reply.clone()))),
        ("vote", raft(Message::Vote(request))),
        ("vote reply", raft(Message::VoteReply(reply))),
        ("early vote", raft(Message::VoteReply(early))),
        ("heartbeat", raft(Message::Append(append(vec![])))),
        ("append", raft(Message::Append(append(entries())))),
        (
            "accepted",
            raft(Message::AppendReply(append_reply(accepted))),
        ),
        (
            "rejected",
            raft(Message::AppendReply(append_reply(rejected))),
        ),
        ("push", kept(keepalive(KeepaliveKind::Push))),
        ("probe", kept(keepalive(KeepaliveKind::Probe))),
        ("poll", kept(keepalive(KeepaliveKind::Poll))),
        (
            "reply with notice",
            kept(Keepalive {
                row: vec![],
                notice: Some(notice),
                ..keepalive(KeepaliveKind::Reply)
            }),
        ),
        ("verdict", packet(vec![verdict(Some(n(2)))])),
        ("removed", packet(vec![Part::Removed(fate(Some(n(2))))])),
        (
            "lost state",
            packet(vec![Part::LostState {
                node: n(2),
                instance: 0x0123_4567_89ab_cdef,
            }]),
        ),
        (
            "digest",
            packet(vec![Part::Digest {
                index: 13,
                crc: 0xaabb_ccdd,
            }]),
        ),
        (
            "three parts",
            packet(vec![
                verdict(None),
                Part::Raft(Message::Append(append(vec![]))),
                Part::Keepalive(keepalive(KeepaliveKind::Push)),
            ]),
        ),
        ("timeout now", raft(Message::TimeoutNow(timeout_now))),
        ("read index", raft(Message::ReadIndex(read_index))),
        (
            "read index reply",
            raft(Message::ReadIndexReply(read_index_reply)),
        ),
        (
            "piece",
            raft(Message::Snapshot(Box::new(piece(snapshot(None))))),
        ),
        (
            "piece of one in the log",
            raft(Message::Snapshot(Box::new(piece(snapshot(Some((14, 18))))))),
        ),
        ("wants", raft(wants(Wants::From(1 << 33)))),
        ("wants patience", raft(wants(Wants::Patience))),
        ("wants it again", raft(wants(Wants::Again))),
        ("log end", raft(Message::LogEnd(LogEnd { term: 8, run: 4 }))),
        (
            "log end reply",
            raft(Message::LogEndReply(LogEndReply {
                term: 8,
                run: 4,
                index: 15,
            })),
        ),
    ]
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, &mut bytes);
    bytes
}

/// Puts the right checksum on bytes that were tampered with.
fn reseal(bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
}

/// A packet with parts as they are given, type and body.
fn forge(parts: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = bytes_of(&samples()[0].1)[..98].to_vec();
    for (kind, body) in parts {
        bytes.push(*kind);
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(body);
    }
    bytes.extend_from_slice(&[0; 4]);
    reseal(&mut bytes);
    bytes
}

#[test]
fn every_kind_comes_back_as_it_was() {
    for (name, packet) in samples() {
        let bytes = bytes_of(&packet);
        assert_eq!(decode(&bytes), Ok(packet.clone()), "{name}");
        assert_eq!(peek(&bytes), Ok(packet.header), "{name}");
    }
}

#[test]
fn encoding_appends() {
    let (_, packet) = samples().swap_remove(0);
    let mut bytes = b"before".to_vec();
    encode(&packet, &mut bytes);
    assert_eq!(&bytes[..6], b"before");
    assert_eq!(decode(&bytes[6..]), Ok(packet));
}

#[test]
fn every_truncation_is_refused() {
    for (name, packet) in samples() {
        let bytes = bytes_of(&packet);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{name} cut at {len}");
            assert!(peek(&bytes[..len]).is_err(), "{name} cut at {len}");
            // Also when the checksum does not tell.
            if len > 102 {
                let mut cut = bytes[..len].to_vec();
                reseal(&mut cut);
                let whole_parts = decode(&cut).is_ok_and(|p| p.parts.len() < packet.parts.len());
                assert!(decode(&cut).is_err() || whole_parts, "{name} cut at {len}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for (name, packet) in samples() {
        let mut bytes = bytes_of(&packet);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "{name}, bit {bit}");
            assert!(peek(&bytes).is_err(), "{name}, bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn refusals_say_why() {
    let good = bytes_of(&samples()[0].1);
    assert_eq!(decode(&[]), Err(WireError::Truncated));
    assert_eq!(decode(b"HTTP/1.1 200 OK"), Err(WireError::BadMagic));
    let mut newer = good.clone();
    newer[4] = 2;
    assert_eq!(decode(&newer), Err(WireError::Version(2)));
    let mut changed = good.clone();
    changed[50] ^= 1;
    assert_eq!(decode(&changed), Err(WireError::Checksum));
    let huge = vec![0; MAX_PACKET + 1];
    let too_long = WireError::TooLong {
        what: "packet",
        len: MAX_PACKET + 1,
        max: MAX_PACKET,
    };
    assert_eq!(decode(&huge), Err(too_long));
    for (at, what) in [(21, "sender"), (29, "addressee")] {
        let mut nobody = good.clone();
        nobody[at..at + 8].fill(0);
        reseal(&mut nobody);
        assert_eq!(decode(&nobody), Err(WireError::BadValue { what }));
    }
    assert_eq!(decode(&forge(&[])), Err(WireError::Truncated));
}

#[test]
fn parts_of_unknown_type_are_skipped_and_counted() {
    let reply = VoteReply {
        term: 8,
        granted: true,
        early: false,
    };
    let body = [8, 0, 0, 0, 0, 0, 0, 0, 1];
    let decoded = decode(&forge(&[(0, b""), (2, &body), (200, b"whatever")]));
    let mut expected = packet(vec![Part::Raft(Message::PreVoteReply(reply))]);
    expected.skipped = 2;
    assert_eq!(decoded, Ok(expected));
    let nothing_known = decode(&forge(&[(200, b"whatever")])).map(|p| (p.parts, p.skipped));
    assert_eq!(nothing_known, Ok((vec![], 1)));
}

#[test]
fn the_number_of_parts_is_bounded() {
    let decoded = decode(&forge(&[(200, &[][..]); MAX_PARTS])).map(|p| p.skipped);
    assert_eq!(decoded, Ok(MAX_PARTS as u32));
    let refused = decode(&forge(&[(200, &[][..]); MAX_PARTS + 1]));
    assert!(matches!(
        refused,
        Err(WireError::TooLong { what: "parts", .. })
    ));
}

#[test]
fn a_part_must_be_used_up() {
    let body = [8, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(decode(&forge(&[(2, &body)])), Err(WireError::Trailing));
    assert_eq!(
        decode(&forge(&[(2, &body[..8])])),
        Err(WireError::Truncated)
    );
    let not_a_flag = [8, 0, 0, 0, 0, 0, 0, 0, 2];
    assert!(matches!(
        decode(&forge(&[(2, &not_a_flag)])),
        Err(WireError::BadValue { .. })
    ));
}

#[test]
fn counts_are_checked_before_anything_is_allocated() {
    let count = |item_len| Reader::new(&[3, 0, 0, 0, 1, 2, 3, 4, 5, 6]).count("x", 3, item_len);
    assert_eq!(count(2), Ok(3));
    assert_eq!(count(3), Err(WireError::Truncated));
    assert_eq!(count(usize::MAX), Err(WireError::Truncated));
    let mut append = vec![1; 40];
    append.extend_from_slice(&1_000_000u32.to_le_bytes());
    assert_eq!(decode(&forge(&[(5, &append)])), Err(WireError::Truncated));
    append[40..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        decode(&forge(&[(5, &append)])),
        Err(WireError::TooLong { .. })
    ));
    let mut row = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    row.extend_from_slice(&65u32.to_le_bytes());
    row.resize(row.len() + 65 * 24 + 1, 1);
    assert!(matches!(
        decode(&forge(&[(16, &row)])),
        Err(WireError::TooLong { what: "row", .. })
    ));
}

#[test]
fn messages_that_no_correct_core_sends_are_refused() {
    let u64s =
        |values: &[u64]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let with = |mut bytes: Vec<u8>, more: &[u8]| {
        bytes.extend_from_slice(more);
        bytes
    };
    let no_entries = [0; 4];
    let cases: Vec<(u8, Vec<u8>, &str)> = vec![
        (1, with(u64s(&[8, 0, 7]), &[0]), "last entry of a candidate"),
        (3, with(u64s(&[7, 11, 7]), &[0]), "term of a candidate"),
        (
            5,
            with(u64s(&[0, 1, 0, 0, 0]), &no_entries),
            "term of an append",
        ),
        (
            5,
            with(u64s(&[8, 1, 3, 0, 0]), &no_entries),
            "previous entry of an append",
        ),
        (
            5,
            with(u64s(&[8, 1, 3, 9, 0]), &no_entries),
            "order of an append's terms",
        ),
        (
            5,
            with(u64s(&[8, 1, u64::MAX, 8, 0]), &no_entries),
            "index of an append",
        ),
        (
            6,
            with(u64s(&[8, 1]), &with(vec![2], &u64s(&[3, 4, 1]))),
            "hint above the rejected index",
        ),
        (
            6,
            with(u64s(&[8, 1]), &with(vec![2], &u64s(&[3, 2, 0]))),
            "hint of a rejection",
        ),
        (7, u64s(&[8, 1, 0, 8]), "last entry of a leader"),
        (7, u64s(&[8, 1, 3, 7]), "term of a leader"),
        (7, u64s(&[0, 1, 3, 0]), "term of a leader"),
        (8, u64s(&[0, 1, 1]), "term of a question"),
        (9, u64s(&[0, 1, 1, 1]), "term of an answer"),
        (9, u64s(&[8, 1, 1, 0]), "index of an answer"),
    ];
    for (kind, body, what) in cases {
        let refused = decode(&forge(&[(kind, &body)]));
        assert_eq!(refused, Err(WireError::BadValue { what }), "{what}");
    }
}

#[test]
#[should_panic(expected = "contiguous")]
fn an_append_with_a_gap_is_not_sent() {
    let mut entries = entries();
    entries.remove(1);
    let append = Append {
        term: 8,
        seq: 1,
        prev_index: 10,
        prev_term: 5,
        commit: 0,
        entries,
    };
    bytes_of(&packet(vec![Part::Raft(Message::Append(append))]));
}

#[test]
fn a_snapshot_that_leaves_no_next_number_is_refused() {
    // None such is encoded either: index and term are the first numbers.
    let good = |index: u64, term: u64| {
        let mut bytes = Vec::new();
        encode_snapshot(&snapshot(None), &mut Writer::new(&mut bytes));
        bytes[..8].copy_from_slice(&index.to_le_bytes());
        bytes[8..16].copy_from_slice(&term.to_le_bytes());
        decode_snapshot(&mut Reader::new(&bytes)).is_ok()
    };
    assert!(good(MAX_SNAPSHOT_INDEX, MAX_TERM));
    assert!(!good(MAX_SNAPSHOT_INDEX + 1, 1) && !good(u64::MAX, 1));
    assert!(!good(99, MAX_TERM + 1) && !good(99, u64::MAX));
}

#[test]
fn an_append_may_end_where_the_indexes_do() {
    let entries = [u64::MAX - 2, u64::MAX - 1].map(|index| Entry {
        index,
        term: 8,
        payload: Payload::Noop,
    });
    let append = Append {
        term: 8,
        seq: 1,
        prev_index: u64::MAX - 3,
        prev_term: 8,
        commit: 0,
        entries: entries.to_vec(),
    };
    let sent = packet(vec![Part::Raft(Message::Append(append))]);
    assert_eq!(decode(&bytes_of(&sent)), Ok(sent));
}

#[test]
#[should_panic(expected = "0 parts")]
fn an_empty_packet_is_not_sent() {
    bytes_of(&packet(vec![]));
}

#[test]
fn a_long_notice_is_cut_at_a_character() {
    let why = format!("{}\u{20ac}\u{20ac}", "x".repeat(MAX_WHY - 1));
    let notice = Notice { nodes: vec![], why };
    let sent = packet(vec![Part::Keepalive(Keepalive {
        notice: Some(notice),
        ..keepalive(KeepaliveKind::Push)
    })]);
    let got = decode(&bytes_of(&sent)).expect("it was just encoded");
    let Part::Keepalive(keepalive) = &got.parts[0] else {
        panic!("a keepalive was sent");
    };
    let why = keepalive.notice.as_ref().map(|n| n.why.as_str());
    assert_eq!(why, Some("x".repeat(MAX_WHY - 1).as_str()));
}

#[test]
fn entries_follow_each_other() {
    let mut bytes = Vec::new();
    entries().iter().for_each(|e| encode_entry(e, &mut bytes));
    let mut rest = &bytes[..];
    let decoded = std::iter::from_fn(|| decode_entry(&mut rest).ok());
    let decoded: Vec<Entry> = decoded.take(entries().len() + 1).collect();
    assert_eq!(decoded, entries());
    assert_eq!(rest, b"");
}

#[test]
fn a_bad_entry_is_an_error_and_takes_nothing() {
    let mut bytes = Vec::new();
    encode_entry(&entries()[1], &mut bytes);
    for len in 0..bytes.len() {
        let mut rest = &bytes[..len];
        assert_eq!(decode_entry(&mut rest), Err(WireError::Truncated));
        assert_eq!(rest.len(), len);
    }
    let refusal = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        decode_entry(&mut &bytes[..])
    };
    let unknown = WireError::UnknownKind {
        what: "log entry",
        kind: 5,
    };
    assert_eq!(refusal(16, 5), Err(unknown));
    assert!(matches!(refusal(0, 0), Err(WireError::BadValue { .. })));
    assert!(matches!(refusal(8, 0), Err(WireError::BadValue { .. })));
    assert!(matches!(refusal(20, 9), Err(WireError::TooLong { .. })));
}

#[test]
fn an_append_whose_terms_go_back_is_refused() {
    let append = Append {
        term: 8,
        seq: 1,
        prev_index: 10,
        prev_term: 6,
        commit: 0,
        entries: [6, 7, 7].into_iter().zip(11..).map(noop).collect(),
    };
    let good = bytes_of(&packet(vec![Part::Raft(Message::Append(append))]));
    assert!(decode(&good).is_ok());
    // The part's body begins at 103; its entries, 9 bytes each, at 147.
    for (at, term) in [(147, 5), (156, 5), (165, 6), (165, 9)] {
        let mut bad = good.clone();
        bad[at] = term;
        reseal(&mut bad);
        let what = "order of an append's terms";
        assert_eq!(decode(&bad), Err(WireError::BadValue { what }), "{at}");
    }
}

fn noop((term, index): (u64, u64)) -> Entry {
    Entry {
        index,
        term,
        payload: Payload::Noop,
    }
}

#[test]
fn impossible_configurations_are_refused() {
    let bytes = |configuration: &Configuration| {
        let payload = Payload::Config(configuration.clone().into(), [][..].into());
        let mut bytes = Vec::new();
        encode_entry(
            &Entry {
                index: 1,
                term: 1,
                payload,
            },
            &mut bytes,
        );
        bytes
    };
    let good = Configuration {
        epoch: 1,
        voters: vec![n(1), n(2)],
        outgoing: vec![n(1), n(5)],
        learners: vec![n(3), n(4)],
    };
    // Lists as count and nodes: voters at 25, 29, 37; outgoing 45, 49, 57; learners 65, 69, 77.
    let whole = bytes(&good);
    for (at, value, what) in [
        (17, 0, "epoch of a configuration"),
        (29, 2, "order of voters"),
        (29, 3, "order of voters"),
        (29, 0, "node in a list"),
        (57, 1, "order of outgoing voters"),
        (77, 3, "order of learners"),
        (69, 1, "learner that votes"),
        (77, 5, "learner that votes"),
    ] {
        let mut bad = whole.clone();
        bad[at] = value;
        let refused = decode_entry(&mut &bad[..]);
        assert_eq!(
            refused,
            Err(WireError::BadValue { what }),
            "{value} at {at}"
        );
    }
    let nobody_votes = Configuration {
        voters: vec![],
        ..good
    };
    assert!(std::panic::catch_unwind(|| bytes(&nobody_votes)).is_err());
    let mut bad = bytes(&config_of_one());
    bad[25] = 0;
    drop(bad.drain(29..37));
    let what = "voters of a configuration";
    assert_eq!(
        decode_entry(&mut &bad[..]),
        Err(WireError::BadValue { what })
    );
}

#[test]
fn a_configuration_of_too_many_is_refused() {
    let ids = |ids: std::ops::RangeInclusive<u64>| -> Vec<NodeId> { ids.map(n).collect() };
    let configuration = Configuration {
        epoch: 1,
        voters: ids(1..=40),
        outgoing: ids(1..=40),
        learners: ids(41..=64),
    };
    let payload = |configuration| Payload::Config(Arc::new(configuration), [][..].into());
    let entry = |payload| Entry {
        index: 1,
        term: 1,
        payload,
    };
    let mut bytes = Vec::new();
    let most = entry(payload(configuration.clone()));
    encode_entry(&most, &mut bytes);
    assert_eq!(decode_entry(&mut &bytes[..]), Ok(most));
    // The outgoing voters stand behind index, term, kind, epoch and the voters.
    let last = 25 + (4 + 40 * 8) * 2 - 8;
    bytes[last..last + 8].copy_from_slice(&99u64.to_le_bytes());
    let refused = WireError::BadValue {
        what: "members of a configuration",
    };
    assert_eq!(decode_entry(&mut &bytes[..]), Err(refused));
}

fn config_of_one() -> Configuration {
    Configuration {
        epoch: 1,
        voters: vec![n(1)],
        ..Configuration::default()
    }
}

#[test]
fn a_term_that_leaves_no_next_one_is_refused() {
    let reply = |term| VoteReply {
        term,
        granted: false,
        early: false,
    };
    let part = |term| Part::Raft(Message::VoteReply(reply(term)));
    let mut bytes = Vec::new();
    // Whoever believes the highest term campaigns for the next one.
    encode(&packet(vec![part(MAX_HEARD_TERM + 1)]), &mut bytes);
    assert_eq!(decode(&bytes), Err(WireError::BadValue { what: "term" }));
    bytes.clear();
    encode(&packet(vec![part(MAX_HEARD_TERM)]), &mut bytes);
    assert!(decode(&bytes).is_ok());
    // The body of the only part ends with the term and one byte more, before the checksum.
    let at = bytes.len() - 4 - 1 - 8;
    bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&crc);
    assert_eq!(decode(&bytes), Err(WireError::BadValue { what: "term" }));
}
