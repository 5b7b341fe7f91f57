//! What one round has to say, gathered into as few packets as possible: one to each peer.

use std::collections::BTreeSet;

use crate::core::{Message, NodeId};
use crate::wire::{Header, MAX_PARTS, Packet, Part, try_encode};

/// Parts by addressee, in the order in which they were said. What there is no memory for is not said:
/// a message may always be lost, and what matters is said again.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    parts: Vec<(NodeId, Part)>,
}

impl Outbox {
    pub fn push(&mut self, to: NodeId, part: Part) {
        if self.parts.try_reserve(1).is_ok() {
            self.parts.push((to, part));
        }
    }

    /// Everybody who will be written to.
    pub fn addressees(&self) -> BTreeSet<NodeId> {
        self.parts.iter().map(|(to, _)| *to).collect()
    }

    /// Hands out the packets, as bytes; entries beyond `limit` bytes go into the peer's next one.
    /// `header` makes the one for an addressee.
    pub fn drain(
        &mut self,
        limit: usize,
        mut header: impl FnMut(NodeId) -> Header,
        mut send: impl FnMut(NodeId, Vec<u8>),
    ) {
        let mut finish = |to, parts| {
            let header = header(to);
            let packet = Packet {
                header,
                parts,
                skipped: 0,
            };
            if let Ok(bytes) = try_encode(&packet) {
                send(to, bytes);
            }
        };
        for to in self.addressees() {
            let mine = self.parts.extract_if(.., |(id, _)| *id == to);
            let mut parts: Vec<Part> = Vec::new();
            let mut size = 0;
            for (_, part) in mine {
                let weight = weight(&part);
                let full = parts.len() == MAX_PARTS || size + weight > limit;
                if full && !parts.is_empty() {
                    finish(to, std::mem::take(&mut parts));
                    size = 0;
                }
                size += weight;
                parts.push(part);
            }
            finish(to, parts);
        }
    }
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
