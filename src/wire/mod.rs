//! Messages as bytes: versioned, bounded, checked.
//!
//! A packet is a header, 1 to [`MAX_PARTS`] parts and a checksum; every integer is little endian:
//!
//! ```text
//! offset  size
//!      0     4  magic "KEEL"
//!      4     1  version, 1
//!      5    88  cluster, genesis, from, to, instance, incarnation, epoch, stamp, echo,
//!               echo_incarnation, leader_term: 8 bytes each
//!     93     4  features
//!     97     1  priority
//!     98     .  parts: type (1), length of the body (4), body
//!      .     4  CRC-32 of everything before it
//! ```
//!
//! A part of an unknown type is skipped and counted, so that a newer peer may say more than this
//! version understands. Nothing else that is unknown passes: a version, the kind of a log entry, a
//! flag. An entry that was skipped would be a hole in the log.
//!
//! What holds for every sequence of bytes, as fuzzing has it:
//!
//! - No decoder panics, or takes anything when it fails.
//! - A decoder believes no length before it has compared it with the bytes that are there: at any
//!   moment it has allocated at most [`MAX_AMPLIFICATION`] times the length of its input, and a
//!   packet's [`PACKET_OVERHEAD`]; over time at most twice as much. [`peek`] allocates nothing.
//! - What was decoded can be encoded, and gives the same bytes again: every value has one encoding.
//!   Only parts of an unknown type are lost.
//! - A configuration keeps all that `core::Configuration` promises, its limit on members too.

mod bytes;
mod entry;
mod error;
mod keepalive;
mod packet;
mod raft;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

use crate::core::{Index, Term};

pub use bytes::{Reader, Writer, length, try_written};
pub use entry::{decode_entry, encode_entry, entry_len};
pub use error::WireError;
pub use packet::{
    FEATURES, Header, NO_ROOM, Packet, Part, SNAPSHOTS, Verdict, decode, encode, peek, try_encode,
};
pub use snapshot::{decode_snapshot, encode_snapshot};

/// Version of the packet format that this library speaks.
pub const VERSION: u8 = 1;

/// Bytes of one encoded packet: one entry of the largest size, with a mebibyte for what rides along.
pub const MAX_PACKET: usize = MAX_PAYLOAD + (1 << 20);

/// The highest term that there may be: at a thousand elections a second a cluster needs longer than
/// there is time to get there, but one forged message could, and leave no term to go on with.
pub const MAX_TERM: Term = 1 << 62;

/// The highest term that a peer is believed, so that whoever believed it can still campaign.
pub const MAX_HEARD_TERM: Term = MAX_TERM / 2;

/// The highest index at which a snapshot may end, for the same reason: the log goes on behind it.
pub const MAX_SNAPSHOT_INDEX: Index = 1 << 62;

/// Parts of one packet, those of unknown type included.
pub const MAX_PARTS: usize = 16;

/// Bytes of the host's data in one entry; `keel_config.entry_max` is never more.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// Bytes of one encoded cluster command; the largest, a bootstrap of 64 nodes with the longest
/// addresses and meta, needs little more than half of it.
pub const MAX_COMMAND: usize = 64 << 10;

/// Bytes of one piece of a snapshot's image in a message.
pub const MAX_PIECE: usize = 1 << 20;

/// Bytes of a notice's text; a longer one is cut at a character's boundary when it is encoded.
pub const MAX_WHY: usize = 200;

/// The highest health score (detection.md 4.4).
pub const MAX_HEALTH: u8 = 8;

/// Heap bytes that decoding may take at any moment for one byte of input; the worst case is a packet
/// of no-ops, 9 bytes each on the wire.
pub const MAX_AMPLIFICATION: usize = 8;

/// Heap bytes that decoding a packet may take besides: its list of parts, which grows by doubling.
pub const PACKET_OVERHEAD: usize = 2 * MAX_PARTS * size_of::<Part>();
