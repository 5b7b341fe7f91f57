//! Nodes as the cluster knows them.

use crate::core::{Bytes, Epoch, Index, NodeId};
use crate::wire::{Reader, WireError, Writer};

/// Nodes that a cluster may have had in its life. One that was replaced or removed is remembered for
/// ever, so that its id is never given to another; this bounds the memory for it.
pub const MAX_IDS: usize = 4096;
/// Bytes of a node's address.
pub const MAX_ADDRESS: usize = 255;
/// Bytes that the host may keep about a node.
pub const MAX_META: usize = 256;

/// Where a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Votes.
    Voter,
    /// Receives the log and does not vote.
    Learner,
    /// Out, by decision.
    Excluded {
        /// The epoch that began with it.
        epoch: Epoch,
        /// The log index of the decision.
        index: Index,
    },
    /// Out for good: another node has its place.
    Replaced {
        /// That node.
        by: NodeId,
    },
    /// Out for good: the administrator took it away.
    Removed {
        /// The epoch that began with it.
        epoch: Epoch,
        /// The log index of the decision.
        index: Index,
    },
}

impl Status {
    /// Whether it is a part of the cluster for which there must be room: also one that is excluded,
    /// for it may come back.
    pub fn is_provisioned(&self) -> bool {
        match self {
            Status::Voter | Status::Learner | Status::Excluded { .. } => true,
            Status::Replaced { .. } | Status::Removed { .. } => false,
        }
    }
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Opaque in host-fed mode, at most 255 bytes.
    pub address: String,
    /// The host's own, at most 256 bytes.
    pub meta: Bytes,
    /// Where it stands.
    pub status: Status,
    /// Whether it is meant to vote: a learner that is, is promoted without being asked for when it
    /// has caught up. One that was added is not until somebody promotes it.
    pub meant_to_vote: bool,
    /// Which storage it has, as its packets say (`wire::Header::instance`); 0 = not registered yet.
    /// Never changed: another one under the same id has lost what this one has acknowledged
    /// (raft.md rule 51).
    pub instance: u64,
}

/// A node that is to become a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id, never used before.
    pub id: NodeId,
    /// Opaque in host-fed mode, at most [`MAX_ADDRESS`] bytes.
    pub address: String,
    /// The host's own, at most [`MAX_META`] bytes.
    pub meta: Bytes,
}

impl Peer {
    /// Bytes of the shortest encoding.
    pub(super) const MIN_LEN: usize = 16;

    pub(super) fn into_member(self, status: Status, meant_to_vote: bool) -> Member {
        Member {
            id: self.id,
            address: self.address,
            meta: self.meta,
            status,
            meant_to_vote,
            instance: 0,
        }
    }

    pub(super) fn encode(&self, out: &mut Writer<'_>) {
        out.node(self.id);
        out.text("address", MAX_ADDRESS, &self.address);
        out.bytes("meta", MAX_META, &self.meta);
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Peer, WireError> {
        Ok(Peer {
            id: input.node("member id")?,
            address: input.text("address", MAX_ADDRESS)?.to_owned(),
            meta: input.bytes("meta", MAX_META)?.into(),
        })
    }
}
