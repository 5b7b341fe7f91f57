//! Raft, pure: events go in with their time, actions come out.
//!
//! [`Raft`] is driven by three inputs, [`Raft::receive`], [`Raft::tick`] and the proposals, and by
//! [`Raft::persisted`]. After any of them, what it wants is taken: [`Raft::take_persist`],
//! [`Raft::take_messages`], [`Raft::take_committed`], [`Raft::take_read`], [`Raft::take_asks`],
//! in this order. One file per part of the protocol:
//!
//! - `election`: paper 5.2, 5.4.1; thesis 9.6
//! - `replication` (leader) and `append` (follower): paper 5.3, 5.4.2
//! - `lost`: what the host's word of a lost connection may do
//! - `claim`: what a log that has lost entries still stands for
//! - `membership`: thesis 4
//! - `snapshot`: paper 7, thesis 5
//! - `read`, `lease`: thesis 6.4; `transfer`: thesis 3.10
//! - `persistence`: what may leave when; `apply`: what is handed out
//! - `log`, `progress`, `quorum`, `bytes`: what these stand on
//! - `options`: what a server is made with; `status`: what it shows
//! - `digest`: what a server is, for those who search its states

mod append;
mod apply;
mod bytes;
mod claim;
mod digest;
mod election;
mod lease;
mod log;
mod lost;
mod membership;
mod message;
mod options;
mod persistence;
mod progress;
mod quorum;
mod raft;
mod random;
mod read;
mod replication;
mod snapshot;
mod status;
mod transfer;
mod types;

pub use bytes::Bytes;
#[doc(hidden)]
pub use digest::Sink;
pub use log::Log;
pub use membership::Configurations;
pub use message::{
    Append, AppendOutcome, AppendReply, LogEnd, LogEndReply, Message, ReadIndex, ReadIndexReply,
    SnapshotPiece, SnapshotReply, TimeoutNow, VoteReply, VoteRequest, Wants,
};
pub use options::Options;
pub use progress::{Flow, Progress};
pub use quorum::{agreed, majority, reached};
pub use raft::{ProposeError, Raft};
pub use random::Random;
pub use read::{MAX_READS, ReadError, ReadId};
pub use snapshot::Sending;
pub use status::RoleKind;
pub use transfer::{DEFAULT_PRIORITY, MAY_NOT_LEAD, Priority, TransferError};
pub use types::{
    Ask, Configuration, Entry, Epoch, Exclusion, HardState, Index, MAX_MEMBERS, Millis, NodeId,
    Outline, Payload, Persist, Position, Restored, Snapshot, Term, Token,
};
