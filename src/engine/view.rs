//! What any thread may ask about, as of the end of the last driving call.

use std::collections::TryReserveError;

use crate::cluster::Params;
use crate::core::{Bytes, Epoch, Index, Millis, NodeId, Term};
use crate::detector::{BlockedBy, NodeState, Timers};

/// A node's part in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows, or looks for a leader.
    #[default]
    Follower,
    /// Campaigns or pre-campaigns.
    Candidate,
    /// Leads.
    Leader,
    /// Receives the log and does not vote.
    Learner,
    /// Has been excluded or removed, or has lost its state.
    Excluded,
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// This node's id.
    pub id: Option<NodeId>,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// This node's role.
    pub role: Role,
    /// Whether this node must not serve.
    pub fenced: bool,
    /// Why it must not, in plain words; or empty.
    pub fenced_why: &'static str,
    /// The cluster's number.
    pub cluster: u64,
    /// Raft's term.
    pub term: Term,
    /// The applied epoch.
    pub epoch: Epoch,
    /// Highest index known to be committed.
    pub commit: Index,
    /// Highest index applied.
    pub applied: Index,
    /// Highest index in the log.
    pub last_index: Index,
    /// Lowest index in the log; those before it are in a snapshot only.
    pub first_index: Index,
    /// The last index that the newest snapshot covers, 0 if there is none.
    pub snapshot_index: Index,
    /// Whether the host has yet to load its state: nothing is applied before that.
    pub loading: bool,
    /// Whether there is no room for the log: nothing is added to it until there is.
    pub full: bool,
    /// Who led last as the log says, and in which term: the same on every node at the same index.
    pub recorded_leader: Option<NodeId>,
    /// See `recorded_leader`.
    pub recorded_term: Term,
    /// Voters of the newest configuration.
    pub voters: u32,
    /// Of them, those heard lately, this node included: a leader, and on a leader the others, within
    /// less than the election timeout; else within that and one keepalive.
    pub voters_heard: u32,
    /// How many make a majority.
    pub quorum: u32,
    /// Whether a leader confirmed by a majority is known.
    pub has_quorum: bool,
    /// The cluster's timers in force, every derived value filled in.
    pub timers: Timers,
    /// Whether dead nodes are excluded automatically.
    pub armed: bool,
    /// How long this node may serve unheard; `None` without limit, 0 when fenced.
    pub lease: Option<Millis>,
    /// 0 healthy .. 8; above 3 this node's testimony does not count.
    pub health_score: u32,
    /// Why an exclusion is held back, as the leader or, without one, this node sees it; what this
    /// node's log has lost; whose full disks keep all from being committed; or empty.
    pub notice: String,
}

/// One node as this node sees it.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its id.
    pub id: NodeId,
    /// Its role as far as known.
    pub role: Role,
    /// ALIVE, LATE ..
    pub state: NodeState,
    /// What holds its exclusion back.
    pub blocked_by: BlockedBy,
    /// Listened time since it was heard; `None` never in this run.
    pub silent: Option<Millis>,
    /// When it will be excluded unless heard.
    pub excludes_in: Option<Millis>,
    /// The epoch of its exclusion or removal.
    pub epoch: Epoch,
    /// The log index of its exclusion or removal.
    pub index: Index,
    /// Leader only: how far its durable log agrees.
    pub match_index: Index,
    /// Fresh witnesses that hear it.
    pub heard_by: u32,
    /// Fresh witnesses.
    pub witnesses: u32,
    /// Its address, opaque.
    pub address: String,
    /// The host's own bytes about it.
    pub meta: Bytes,
    /// Who took its place.
    pub replaced_by: Option<NodeId>,
    /// Whether it was heard without the storage that is known under its id.
    pub lost_state: bool,
    /// Whether it is a learner that votes only once it is promoted by request.
    pub awaits_promotion: bool,
}

/// Counters since the engine was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics {
    /// Driving calls.
    pub steps: u64,
    /// Packets received and accepted.
    pub packets_in: u64,
    /// Packets handed to the host.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets that did not parse.
    pub dropped_malformed: u64,
    /// Packets of other clusters or for other nodes.
    pub dropped_foreign: u64,
    /// Packets dropped because the queue was full.
    pub dropped_full: u64,
    /// Parts of unknown type that were skipped.
    pub unknown_parts: u64,
    /// Elections started.
    pub elections: u64,
    /// Latest driving call, in milliseconds after it was due.
    pub step_late_ms_max: u64,
    /// Pauses noticed: calls so late that this node's own testimony was put aside.
    pub pauses: u64,
    /// Writes submitted.
    pub persists: u64,
    /// Entries in them.
    pub entries_persisted: u64,
    /// Snapshots made.
    pub snapshots: u64,
    /// Snapshots of leaders that took the place of this node's state.
    pub snapshots_installed: u64,
    /// Bytes of snapshots received.
    pub snapshot_bytes_in: u64,
    /// Bytes of snapshots sent.
    pub snapshot_bytes_out: u64,
    /// Times that this node handed leadership over for its slow disk.
    pub slow_disk_transfers: u64,
}

/// One consistent instant.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The time of the driving call that published it.
    pub at: Millis,
    /// The cluster.
    pub info: Info,
    /// Every node that was ever a member, by id.
    pub nodes: Vec<NodeView>,
    /// The settings in force.
    pub params: Params,
    /// The counters.
    pub metrics: Metrics,
}

impl View {
    /// A copy, if there is memory for it.
    pub fn copy(&self) -> Result<View, TryReserveError> {
        let mut nodes = Vec::new();
        nodes.try_reserve_exact(self.nodes.len())?;
        nodes.extend_from_slice(&self.nodes);
        Ok(View {
            at: self.at,
            info: self.info.clone(),
            nodes,
            params: self.params.clone(),
            metrics: self.metrics,
        })
    }

    /// Of an engine that is dead: it hears nothing any more. Whatever it last knew, it must not
    /// serve, and leads nobody.
    pub fn bury(&mut self) {
        self.info.fenced = true;
        self.info.lease = Some(0);
        self.info.fenced_why = "the engine has stopped";
        self.info.leader = None;
        self.info.has_quorum = false;
        let roles = self.nodes.iter_mut().map(|node| &mut node.role);
        for role in roles.chain([&mut self.info.role]) {
            if let Role::Leader | Role::Candidate = *role {
                *role = Role::Follower;
            }
        }
    }

    /// Where a node is to be found; empty for none, and for one that was never a member.
    pub fn address_of(&self, id: Option<NodeId>) -> &str {
        let known = self.nodes.iter().find(|node| Some(node.id) == id);
        known.map_or("", |node| &node.address)
    }
}
