//! The envelope: header, parts, checksum.

use std::collections::TryReserveError;

use crate::core::{Epoch, Index, Message, NodeId, Priority, Term};
use crate::detector::Keepalive;

use super::{
    MAX_HEARD_TERM, MAX_PACKET, MAX_PARTS, Reader, VERSION, WireError, Writer, keepalive, length,
    raft, snapshot,
};

const MAGIC: [u8; 4] = *b"KEEL";
const HEADER_LEN: usize = 98;
const CRC_LEN: usize = 4;

// A type that was ever sent is never given another meaning. A raft message has its own type each,
// so that an unknown one is skipped like any other part (raft.md rule 59).
const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const VOTE: u8 = 3;
const VOTE_REPLY: u8 = 4;
const APPEND: u8 = 5;
const APPEND_REPLY: u8 = 6;
const TIMEOUT_NOW: u8 = 7;
const READ_INDEX: u8 = 8;
const READ_INDEX_REPLY: u8 = 9;
const SNAPSHOT: u8 = 10;
const SNAPSHOT_REPLY: u8 = 11;
const LOG_END: u8 = 12;
const LOG_END_REPLY: u8 = 13;
const KEEPALIVE: u8 = 16;
const VERDICT: u8 = 17;
const REMOVED: u8 = 18;
const LOST_STATE: u8 = 19;
const DIGEST: u8 = 20;

/// What every packet says about its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster's number, chosen by the host.
    pub cluster: u64,
    /// Digest of the bootstrap entry, 0 while the sender has none: tells clusters apart that were
    /// made from different lists under one number.
    pub genesis: u64,
    /// The sender.
    pub from: NodeId,
    /// The addressee.
    pub to: NodeId,
    /// Drawn when the sender's directory was made.
    pub instance: u64,
    /// The sender's run; grows with every start.
    pub incarnation: u64,
    /// The sender's applied epoch.
    pub epoch: Epoch,
    /// The sender's time in milliseconds when this was sent; comparable within one run only.
    pub stamp: u64,
    /// The newest stamp that the sender has received from the addressee, 0 for none.
    pub echo: u64,
    /// The addressee's run that `echo` belongs to, 0 for none.
    pub echo_incarnation: u64,
    /// The sender's term if it leads and a majority has just confirmed it, else 0.
    pub leader_term: Term,
    /// What the sender understands, a bit each, and [`NO_ROOM`]; unknown bits are ignored.
    pub features: u32,
    /// How much the sender is wished for as leader.
    pub priority: Priority,
}

/// A bit of [`Header::features`]: the sender understands snapshots, and the commands in the log
/// that are about them. A leader writes what not all members understand to nobody
/// (raft.md rule 59).
pub const SNAPSHOTS: u32 = 1;
/// A bit of [`Header::features`]: the sender's disk has no room for the log now.
pub const NO_ROOM: u32 = 1 << 31;
/// All of [`Header::features`] that this library understands.
pub const FEATURES: u32 = SNAPSHOTS;

/// "You are out", told by anyone to the node that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The epoch that began with it.
    pub epoch: Epoch,
    /// The log index of the decision.
    pub index: Index,
    /// Who leads, as far as the teller knows.
    pub leader: Option<NodeId>,
}

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// By the sender's Raft.
    Raft(Message),
    /// By the sender's failure detector.
    Keepalive(Keepalive),
    /// The addressee is excluded, or was replaced.
    Verdict(Verdict),
    /// The addressee was removed for good.
    Removed(Verdict),
    /// A node has lost its state, if it has another instance than this one, which the cluster knows
    /// under its id. Told to that node; and its answer to whatever it is sent from then on.
    LostState {
        /// Which node.
        node: NodeId,
        /// The instance that it had.
        instance: u64,
    },
    /// The sender's own snapshot at this log index has this checksum: the addressee's there must
    /// have the same, where the leader decides when snapshots are made.
    Digest {
        /// The last entry that it covers.
        index: Index,
        /// CRC-32 of its image.
        crc: u32,
    },
}

/// One packet between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who, to whom, when.
    pub header: Header,
    /// In the order in which they were said. Empty only if all were of unknown type.
    pub parts: Vec<Part>,
    /// Parts of unknown type that were left out; not encoded.
    pub skipped: u32,
}

/// Appends the packet's bytes to `out`.
///
/// # Panics
/// If the packet breaks a limit of this module or a rule that [`decode`] checks: the receiver would
/// drop it for ever, which is worse than stopping here.
pub fn encode(packet: &Packet, out: &mut Vec<u8>) {
    let parts = packet.parts.len();
    assert!(
        (1..=MAX_PARTS).contains(&parts),
        "{parts} parts in a packet"
    );
    let start = out.len();
    write_packet(packet, &mut Writer::new(out));
    let crc = crc32fast::hash(&out[start..]);
    Writer::new(out).u32(crc);
    let len = out.len() - start;
    assert!(len <= MAX_PACKET, "a packet of {len} bytes");
}

/// The packet's bytes, if there is memory for them. Panics as [`encode`] does.
pub fn try_encode(packet: &Packet) -> Result<Vec<u8>, TryReserveError> {
    let mut bytes = Vec::new();
    let len = length(|out| write_packet(packet, out));
    bytes.try_reserve_exact(len + CRC_LEN)?;
    encode(packet, &mut bytes);
    Ok(bytes)
}

/// All of it but the checksum.
fn write_packet(packet: &Packet, out: &mut Writer<'_>) {
    out.raw(&MAGIC);
    out.u8(VERSION);
    encode_header(&packet.header, out);
    for part in &packet.parts {
        out.u8(part_type(part));
        out.nested(|body| encode_part(part, body));
    }
}

/// Reads one packet, which must fill `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Packet, WireError> {
    let mut input = open(bytes)?;
    let header = decode_header(&mut input)?;
    let (mut parts, mut skipped) = (Vec::new(), 0);
    for count in 1.. {
        if count > MAX_PARTS {
            return Err(WireError::TooLong {
                what: "parts",
                len: count,
                max: MAX_PARTS,
            });
        }
        let kind = input.u8()?;
        let mut body = Reader::new(input.bytes("part", MAX_PACKET)?);
        match decode_part(kind, &mut body)? {
            Some(part) => {
                body.finish()?;
                parts.push(part);
            }
            None => skipped += 1,
        }
        if input.rest().is_empty() {
            break;
        }
    }
    Ok(Packet {
        header,
        parts,
        skipped,
    })
}

/// Reads the header only, after checking version, length and checksum: enough to tell whether the
/// packet is for this node of this cluster.
pub fn peek(bytes: &[u8]) -> Result<Header, WireError> {
    decode_header(&mut open(bytes)?)
}

/// What is between version and checksum, once both are known to be right.
fn open(bytes: &[u8]) -> Result<Reader<'_>, WireError> {
    if bytes.len() > MAX_PACKET {
        return Err(WireError::TooLong {
            what: "packet",
            len: bytes.len(),
            max: MAX_PACKET,
        });
    }
    let mut input = Reader::new(bytes);
    if input.take(MAGIC.len())? != MAGIC {
        return Err(WireError::BadMagic);
    }
    // Before the checksum: another version may have another one.
    match input.u8()? {
        VERSION => {}
        version => return Err(WireError::Version(version)),
    }
    if bytes.len() < HEADER_LEN + CRC_LEN {
        return Err(WireError::Truncated);
    }
    let end = bytes.len() - CRC_LEN;
    if Reader::new(&bytes[end..]).u32()? != crc32fast::hash(&bytes[..end]) {
        return Err(WireError::Checksum);
    }
    Ok(Reader::new(&bytes[MAGIC.len() + 1..end]))
}

fn encode_header(header: &Header, out: &mut Writer<'_>) {
    out.u64(header.cluster);
    out.u64(header.genesis);
    out.node(header.from);
    out.node(header.to);
    out.u64(header.instance);
    out.u64(header.incarnation);
    out.u64(header.epoch);
    out.u64(header.stamp);
    out.u64(header.echo);
    out.u64(header.echo_incarnation);
    out.u64(header.leader_term);
    out.u32(header.features);
    out.u8(header.priority);
}

fn decode_header(input: &mut Reader<'_>) -> Result<Header, WireError> {
    Ok(Header {
        cluster: input.u64()?,
        genesis: input.u64()?,
        from: input.node("sender")?,
        to: input.node("addressee")?,
        instance: input.u64()?,
        incarnation: input.u64()?,
        epoch: input.u64()?,
        stamp: input.u64()?,
        echo: input.u64()?,
        echo_incarnation: input.u64()?,
        leader_term: input.u64()?,
        features: input.u32()?,
        priority: input.u8()?,
    })
}

fn part_type(part: &Part) -> u8 {
    match part {
        Part::Raft(Message::PreVote(_)) => PRE_VOTE,
        Part::Raft(Message::PreVoteReply(_)) => PRE_VOTE_REPLY,
        Part::Raft(Message::Vote(_)) => VOTE,
        Part::Raft(Message::VoteReply(_)) => VOTE_REPLY,
        Part::Raft(Message::Append(_)) => APPEND,
        Part::Raft(Message::AppendReply(_)) => APPEND_REPLY,
        Part::Raft(Message::TimeoutNow(_)) => TIMEOUT_NOW,
        Part::Raft(Message::ReadIndex(_)) => READ_INDEX,
        Part::Raft(Message::ReadIndexReply(_)) => READ_INDEX_REPLY,
        Part::Raft(Message::Snapshot(_)) => SNAPSHOT,
        Part::Raft(Message::SnapshotReply(_)) => SNAPSHOT_REPLY,
        Part::Raft(Message::LogEnd(_)) => LOG_END,
        Part::Raft(Message::LogEndReply(_)) => LOG_END_REPLY,
        Part::Keepalive(_) => KEEPALIVE,
        Part::Verdict(_) => VERDICT,
        Part::Removed(_) => REMOVED,
        Part::LostState { .. } => LOST_STATE,
        Part::Digest { .. } => DIGEST,
    }
}

fn encode_part(part: &Part, out: &mut Writer<'_>) {
    match part {
        Part::Raft(message) => raft::encode(message, out),
        Part::Keepalive(keepalive) => keepalive::encode(keepalive, out),
        Part::Verdict(verdict) | Part::Removed(verdict) => {
            out.u64(verdict.epoch);
            out.u64(verdict.index);
            out.optional_node(verdict.leader);
        }
        Part::LostState { node, instance } => {
            out.node(*node);
            out.u64(*instance);
        }
        Part::Digest { index, crc } => {
            out.u64(*index);
            out.u32(*crc);
        }
    }
}

fn decode_verdict(body: &mut Reader<'_>) -> Result<Verdict, WireError> {
    Ok(Verdict {
        epoch: body.u64()?,
        index: body.u64()?,
        leader: body.optional_node()?,
    })
}

/// `None` for an unknown type.
fn decode_part(kind: u8, body: &mut Reader<'_>) -> Result<Option<Part>, WireError> {
    let message = match kind {
        PRE_VOTE => Message::PreVote(raft::decode_vote_request(body)?),
        PRE_VOTE_REPLY => Message::PreVoteReply(raft::decode_vote_reply(body)?),
        VOTE => Message::Vote(raft::decode_vote_request(body)?),
        VOTE_REPLY => Message::VoteReply(raft::decode_vote_reply(body)?),
        APPEND => Message::Append(raft::decode_append(body)?),
        APPEND_REPLY => Message::AppendReply(raft::decode_append_reply(body)?),
        TIMEOUT_NOW => Message::TimeoutNow(raft::decode_timeout_now(body)?),
        READ_INDEX => Message::ReadIndex(raft::decode_read_index(body)?),
        READ_INDEX_REPLY => Message::ReadIndexReply(raft::decode_read_index_reply(body)?),
        SNAPSHOT => Message::Snapshot(Box::new(snapshot::decode_piece(body)?)),
        SNAPSHOT_REPLY => Message::SnapshotReply(snapshot::decode_reply(body)?),
        LOG_END => Message::LogEnd(raft::decode_log_end(body)?),
        LOG_END_REPLY => Message::LogEndReply(raft::decode_log_end_reply(body)?),
        KEEPALIVE => return Ok(Some(Part::Keepalive(keepalive::decode(body)?))),
        VERDICT => return Ok(Some(Part::Verdict(decode_verdict(body)?))),
        REMOVED => return Ok(Some(Part::Removed(decode_verdict(body)?))),
        LOST_STATE => {
            return Ok(Some(Part::LostState {
                node: body.node("node without its state")?,
                instance: body.u64()?,
            }));
        }
        DIGEST => {
            return Ok(Some(Part::Digest {
                index: body.u64()?,
                crc: body.u32()?,
            }));
        }
        _ => return Ok(None),
    };
    raft::check(&message)?;
    if message.term() > MAX_HEARD_TERM {
        return Err(WireError::BadValue { what: "term" });
    }
    Ok(Some(Part::Raft(message)))
}
