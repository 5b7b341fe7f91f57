//! Members of several versions in one cluster, while it is upgraded node by node.

use raftkeel::core::{Append, Entry, Message, NodeId, Payload};
use raftkeel::engine::{Error, Event, Request, Settings, Way};
use raftkeel::wire::{FEATURES, Header, Packet, Part, encode};

use crate::cluster::{Cluster, id};
use crate::snapshots::{compacting, info, propose};

#[test]
fn members_that_do_not_understand_are_not_given_what_they_cannot_read() {
    let old = |settings: Settings| {
        let features = if settings.id == id(3) {
            0
        } else {
            settings.features
        };
        Settings {
            features,
            ..compacting(Way::Leader)(settings)
        }
    };
    let mut c = Cluster::of(3, old);
    let leader = c.elect();
    if leader == 3 {
        c.ask(leader, Request::Transfer(NodeId::new(1))).unwrap();
        c.run(1_000);
    }
    let leader = c.leader().unwrap();
    for _ in 0..4 {
        propose(&mut c, leader, 30);
        c.run(500);
    }
    assert_eq!(0, info(&c, leader).snapshot_index);
    assert_eq!(None, info(&c, leader).recorded_leader);
    assert!(matches!(
        c.ask(leader, Request::Snapshot),
        Err(Error::Conflict(_))
    ));
}

/// A leader that was just elected by others has not heard everybody yet who lives.
#[test]
fn a_member_that_is_heard_a_little_later_is_not_taken_for_one_that_understands() {
    let old = |settings: Settings| Settings {
        features: settings.features * u32::from(settings.id != id(3)),
        ..compacting(Way::Leader)(settings)
    };
    let mut c = Cluster::of(3, old);
    c.cut.extend([(3, 1), (3, 2)]);
    assert!(c.wait(10_000, |c| c.leader().is_some()));
    c.run(300);
    c.cut.clear();
    c.run(5_000);
    let leader = c.leader().unwrap();
    assert_ne!(3, leader);
    assert_eq!(None, info(&c, leader).recorded_leader);
}

/// An append of `from` to `to`, with an entry of a kind that nobody knows.
fn of_the_future(from: u64, to: u64, term: u64, prev: (u64, u64)) -> Vec<u8> {
    const MARK: &[u8] = b"a payload like no other";
    let append = Append {
        term,
        seq: 1 << 40,
        prev_index: prev.0,
        prev_term: prev.1,
        commit: prev.0,
        entries: vec![Entry {
            index: prev.0 + 1,
            term,
            payload: Payload::Host(MARK.into()),
        }],
    };
    let mut bytes = Vec::new();
    let header = Header {
        cluster: 77,
        genesis: 0,
        from: id(from),
        to: id(to),
        instance: 0,
        incarnation: 1,
        epoch: 1,
        stamp: 1,
        echo: 0,
        echo_incarnation: 0,
        leader_term: 0,
        features: FEATURES,
        priority: 1,
    };
    let packet = Packet {
        header,
        parts: vec![Part::Raft(Message::Append(append))],
        skipped: 0,
    };
    encode(&packet, &mut bytes);
    let mark = bytes.windows(MARK.len()).position(|w| w == MARK);
    // Before the payload its length, before that the kind.
    bytes[mark.unwrap() - 5] = 99;
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn an_entry_of_an_unknown_kind_is_not_skipped_and_is_told() {
    let mut c = Cluster::of(3, compacting(Way::Application));
    let leader = c.elect();
    let other = leader % 3 + 1;
    let before = info(&c, other);
    let place = (before.last_index, before.term);
    let packet = of_the_future(leader, other, before.term, place);
    for _ in 0..3 {
        let taken = c.nodes[&other].handle.receive(None, &packet);
        assert!(matches!(taken, Err(Error::Malformed(_))), "{taken:?}");
    }
    c.run(1_000);
    assert_eq!(before.last_index, info(&c, other).last_index);
    let told = |e: &&Event| **e == Event::PeerNewer { id: id(leader) };
    assert_eq!(1, c.nodes[&other].told.events.iter().filter(told).count());
}
