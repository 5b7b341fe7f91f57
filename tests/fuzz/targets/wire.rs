//! Packets, entries and snapshots as bytes.

use raftkeel::core::{Entry, Payload};
use raftkeel::wire::{
    MAX_AMPLIFICATION, PACKET_OVERHEAD, Packet, Reader, Writer, decode, decode_entry,
    decode_snapshot, encode, encode_entry, encode_snapshot, peek,
};

use super::within;
use crate::packets;
use crate::rng::Rng;

/// A packet from a transport, first as it is, then with the right checksum behind it: else nothing
/// but the envelope would ever be tried.
pub fn packet(data: &[u8]) {
    try_packet(data);
    let mut sealed = data.to_vec();
    sealed.extend_from_slice(&crc32fast::hash(data).to_le_bytes());
    try_packet(&sealed);
}

fn try_packet(bytes: &[u8]) {
    let header = within(0, || peek(bytes));
    let bound = MAX_AMPLIFICATION * bytes.len() + PACKET_OVERHEAD;
    let Ok(packet) = within(bound, || decode(bytes)) else {
        return;
    };
    assert_eq!(header.as_ref(), Ok(&packet.header));
    if packet.parts.is_empty() {
        assert!(packet.skipped > 0, "an empty packet");
        return;
    }
    let mut again = Vec::new();
    encode(&packet, &mut again);
    match packet.skipped {
        0 => assert!(again == bytes, "two encodings of {packet:?}"),
        _ => {
            let known = Packet {
                skipped: 0,
                ..packet
            };
            assert_eq!(decode(&again), Ok(known));
        }
    }
}

/// A packet that a correct core may send, as the bytes choose it.
pub fn packet_made(data: &[u8]) {
    let packet = packets::packet(&mut Rng::of(data));
    let mut bytes = Vec::new();
    encode(&packet, &mut bytes);
    try_packet(&bytes);
    assert_eq!(decode(&bytes), Ok(packet));
}

/// Entries, one behind the other, as they stand in a commit group.
pub fn entry(data: &[u8]) {
    let mut rest = data;
    while !rest.is_empty() {
        let before = rest;
        let bound = MAX_AMPLIFICATION * before.len();
        let Ok(entry) = within(bound, || decode_entry(&mut rest)) else {
            assert_eq!(rest, before, "an error takes nothing");
            return;
        };
        if let Payload::Config(configuration, _) = &entry.payload {
            configuration.assert_well_formed();
        }
        assert_eq!(encoded(&entry), before[..before.len() - rest.len()]);
    }
}

/// An entry that may stand in a log, as the bytes choose it.
pub fn entry_made(data: &[u8]) {
    let mut rng = Rng::of(data);
    let made = Entry {
        index: rng.number().max(1),
        term: rng.number().max(1),
        payload: packets::payload(&mut rng),
    };
    let bytes = encoded(&made);
    entry(&bytes);
    assert_eq!(decode_entry(&mut &bytes[..]), Ok(made));
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_entry(entry, &mut bytes);
    bytes
}

/// What a snapshot is.
pub fn snapshot(data: &[u8]) {
    let mut input = Reader::new(data);
    let bound = MAX_AMPLIFICATION * data.len();
    let Ok(snapshot) = within(bound, || decode_snapshot(&mut input)) else {
        return;
    };
    snapshot.config.assert_well_formed();
    let mut again = Vec::new();
    encode_snapshot(&snapshot, &mut Writer::new(&mut again));
    assert_eq!(again, data[..data.len() - input.rest().len()]);
}
