//! What one round has to say, gathered into as few packets as possible: one to each peer.

use crate::core::{Message, NodeId};
use crate::wire::{Header, MAX_PARTS, Packet, Part, encode};

/// Room for a packet without entries, so that it is not moved as it grows.
const SMALL_PACKET: usize = 256;

/// Parts by addressee, in the order in which they were said.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    parts: Vec<(NodeId, Part)>,
}

impl Outbox {
    pub fn push(&mut self, to: NodeId, part: Part) {
        self.parts.push((to, part));
    }

    /// Everybody who will be written to, each once.
    pub fn addressees(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.parts.iter().map(|(to, _)| *to).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The packets, as bytes; entries beyond `limit` bytes go into the peer's next one. `header`
    /// makes the one for an addressee.
    pub fn drain(
        &mut self,
        limit: usize,
        mut header: impl FnMut(NodeId) -> Header,
    ) -> Vec<(NodeId, Vec<u8>)> {
        let mut packets = Vec::new();
        for to in self.addressees() {
            let mine = self.parts.extract_if(.., |(id, _)| *id == to);
            let mut parts: Vec<Part> = Vec::new();
            let mut size = 0;
            for (_, part) in mine {
                let weight = weight(&part);
                let full = parts.len() == MAX_PARTS || size + weight > limit;
                if full && !parts.is_empty() {
                    packets.push((to, finish(header(to), std::mem::take(&mut parts))));
                    size = 0;
                }
                size += weight;
                parts.push(part);
            }
            packets.push((to, finish(header(to), parts)));
        }
        packets
    }
}

fn finish(header: Header, parts: Vec<Part>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SMALL_PACKET);
    let skipped = 0;
    encode(
        &Packet {
            header,
            parts,
            skipped,
        },
        &mut bytes,
    );
    bytes
}

/// Bytes of the entries in a part; everything else is small.
fn weight(part: &Part) -> usize {
    match part {
        Part::Raft(Message::Append(append)) => {
            append.entries.iter().map(|e| e.payload.weight()).sum()
        }
        _ => 0,
    }
}
