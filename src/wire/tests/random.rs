//! Random packets and random damage. The seed is printed; `RAFTKEEL_SEED` replays it.

use super::*;
use crate::fuzz::alloc::within;

fn bounded(bytes: &[u8]) -> Result<Packet, WireError> {
    let bound = MAX_AMPLIFICATION * bytes.len() + PACKET_OVERHEAD;
    within(bound, || decode(bytes))
}

#[test]
fn random_packets_come_back_as_they_were() {
    let mut rng = Rng::for_test("random_packets_come_back_as_they_were");
    for _ in 0..20_000 {
        let packet = packets::packet(&mut rng);
        let bytes = bytes_of(&packet);
        let decoded = bounded(&bytes).expect("it was just encoded");
        assert_eq!(decoded, packet);
        assert_eq!(peek(&bytes), Ok(packet.header.clone()));
        assert_eq!(try_encode(&packet), Ok(bytes), "measured and written alike");
    }
}

#[test]
fn random_damage_never_panics_and_never_swells() {
    let mut rng = Rng::for_test("random_damage_never_panics_and_never_swells");
    let mut templates: Vec<Vec<u8>> = samples().iter().map(|(_, p)| bytes_of(p)).collect();
    templates.extend((0..50).map(|_| bytes_of(&packets::packet(&mut rng))));
    let mut accepted = 0;
    for round in 0..200_000 {
        let mut bytes = templates[round % templates.len()].clone();
        damage(&mut rng, &mut bytes);
        reseal(&mut bytes);
        if let Ok(packet) = bounded(&bytes) {
            accepted += 1;
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

fn damage(rng: &mut Rng<'_>, bytes: &mut Vec<u8>) {
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
        bounded(&bytes).expect("it was just encoded");
    }
}
