//! The envelope: header, parts, checksum.

use crate::core::{Epoch, Index, Message, NodeId, Term};
use crate::detector::Keepalive;

use super::{MAX_PACKET, MAX_PARTS, VERSION, WireError};

const MAGIC: [u8; 4] = *b"KEEL";
const CRC_LEN: usize = 4;
const HEADER_LEN: usize = 97;

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
    /// What the sender's version can do, a bit each; unknown bits are ignored.
    pub features: u32,
}

/// "You are excluded", told by anyone to the excluded node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The epoch that the exclusion began.
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
    /// About the addressee.
    Verdict(Verdict),
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
    let _ = (
        packet, out, MAX_PACKET, MAX_PARTS, VERSION, MAGIC, CRC_LEN, HEADER_LEN,
    );
    unimplemented!()
}

/// Reads one packet, which must fill `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Packet, WireError> {
    let _ = bytes;
    unimplemented!()
}

/// Reads the header only, after checking version, length and checksum: enough to tell whether the
/// packet is for this node of this cluster.
pub fn peek(bytes: &[u8]) -> Result<Header, WireError> {
    let _ = bytes;
    unimplemented!()
}
