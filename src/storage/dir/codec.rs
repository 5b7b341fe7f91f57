//! Log entries as bytes: little-endian, length-prefixed, checked.
//!
//! An entry is its index, its term, one byte of kind and what the kind demands. An unknown kind is
//! an error and never skipped: nodes that disagree on what an entry means must not go on.

use std::sync::Arc;

use crate::core::{Bytes, Configuration, Entry, NodeId, Payload};

use super::page::{Flaw, take, take_u8, take_u32, take_u64};

const NOOP: u8 = 0;
const HOST: u8 = 1;
const CLUSTER: u8 = 2;
const CONFIG: u8 = 3;

/// Appends the encoded entry to `out`.
///
/// # Panics
/// If its data exceeds 4 GiB.
pub(super) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.extend_from_slice(&entry.index.to_le_bytes());
    out.extend_from_slice(&entry.term.to_le_bytes());
    match &entry.payload {
        Payload::Noop => out.push(NOOP),
        Payload::Host(data) => {
            out.push(HOST);
            put_bytes(data, out);
        }
        Payload::Cluster(command) => {
            out.push(CLUSTER);
            put_bytes(command, out);
        }
        Payload::Config(configuration, command) => {
            out.push(CONFIG);
            out.extend_from_slice(&configuration.epoch.to_le_bytes());
            put_nodes(&configuration.voters, out);
            put_nodes(&configuration.outgoing, out);
            put_nodes(&configuration.learners, out);
            put_bytes(command, out);
        }
    }
}

/// Takes one entry off the front of `input`.
pub(super) fn decode_entry(input: &mut &[u8]) -> Result<Entry, Flaw> {
    let index = take_u64(input)?;
    let term = take_u64(input)?;
    let payload = match take_u8(input)? {
        NOOP => Payload::Noop,
        HOST => Payload::Host(take_bytes(input)?),
        CLUSTER => Payload::Cluster(take_bytes(input)?),
        CONFIG => {
            let configuration = Configuration {
                epoch: take_u64(input)?,
                voters: take_nodes(input)?,
                outgoing: take_nodes(input)?,
                learners: take_nodes(input)?,
            };
            Payload::Config(Arc::new(configuration), take_bytes(input)?)
        }
        unknown => return Err(Flaw::Newer(u32::from(unknown))),
    };
    Ok(Entry {
        index,
        term,
        payload,
    })
}

fn put_len(len: usize, out: &mut Vec<u8>) {
    let len = u32::try_from(len).unwrap_or_else(|_| panic!("{len} in one entry exceed its field"));
    out.extend_from_slice(&len.to_le_bytes());
}

fn put_bytes(data: &[u8], out: &mut Vec<u8>) {
    put_len(data.len(), out);
    out.extend_from_slice(data);
}

fn take_bytes(input: &mut &[u8]) -> Result<Bytes, Flaw> {
    let len = take_u32(input)? as usize;
    take(input, len).map(Bytes::from)
}

fn put_nodes(nodes: &[NodeId], out: &mut Vec<u8>) {
    put_len(nodes.len(), out);
    for id in nodes {
        out.extend_from_slice(&id.get().to_le_bytes());
    }
}

fn take_nodes(input: &mut &[u8]) -> Result<Vec<NodeId>, Flaw> {
    let count = take_u32(input)? as usize;
    // Sized by what is there, not by what the count claims.
    let mut nodes = Vec::with_capacity(count.min(input.len() / 8));
    for _ in 0..count {
        let id = NodeId::new(take_u64(input)?).ok_or(Flaw::Bad("node id 0 in an entry"))?;
        if nodes.last().is_some_and(|last| *last >= id) {
            return Err(Flaw::Bad("node ids out of order in an entry"));
        }
        nodes.push(id);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().filter_map(|id| NodeId::new(*id)).collect()
    }

    fn samples() -> Vec<Entry> {
        let configuration = Configuration {
            epoch: 7,
            voters: nodes(&[1, 2, u64::MAX]),
            outgoing: nodes(&[1]),
            learners: nodes(&[]),
        };
        [
            Payload::Noop,
            Payload::Host(Bytes::from(&b""[..])),
            Payload::Host(Bytes::from(&b"host data"[..])),
            Payload::Cluster(Bytes::from(&b"command"[..])),
            Payload::Config(Arc::new(configuration), Bytes::from(&b"why"[..])),
        ]
        .into_iter()
        .zip(1..)
        .map(|(payload, index)| Entry {
            index,
            term: 1 << 40,
            payload,
        })
        .collect()
    }

    #[test]
    fn entries_come_back() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|e| encode_entry(e, &mut bytes));
        let mut input = &bytes[..];
        for entry in samples() {
            assert_eq!(decode_entry(&mut input), Ok(entry));
        }
        assert!(input.is_empty());
    }

    #[test]
    fn every_cut_is_an_error() {
        for entry in samples() {
            let mut bytes = Vec::new();
            encode_entry(&entry, &mut bytes);
            for len in 0..bytes.len() {
                assert!(decode_entry(&mut &bytes[..len]).is_err(), "{entry:?} {len}");
            }
        }
    }

    #[test]
    fn any_byte_changed_is_another_entry_or_an_error() {
        for entry in samples() {
            let mut bytes = Vec::new();
            encode_entry(&entry, &mut bytes);
            for at in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    bytes[at] ^= flip;
                    let mut input = &bytes[..];
                    let same = decode_entry(&mut input).as_ref() == Ok(&entry) && input.is_empty();
                    assert!(!same, "{entry:?} {at}");
                    bytes[at] ^= flip;
                }
            }
        }
    }

    #[test]
    fn unknown_kinds_halt() {
        let mut bytes = vec![0; 16];
        bytes.push(9);
        assert_eq!(decode_entry(&mut &bytes[..]), Err(Flaw::Newer(9)));
    }

    #[test]
    fn a_huge_count_allocates_nothing() {
        let mut bytes = vec![0; 16];
        bytes.push(CONFIG);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode_entry(&mut &bytes[..]), Err(Flaw::Bad(_))));
    }
}
