//! Which storage every member has. The leader registers it in the replicated state when it first
//! hears a member; from then on another one under the same id is a node that has lost what it
//! acknowledged, and nobody listens to it (raft.md rule 51).

use std::collections::BTreeMap;

use crate::cluster::Command;
use crate::core::{Index, NodeId, Term};
use crate::wire::{Packet, Part};

use super::Event;
use super::engine::Engine;

/// What packets have said in this run.
#[derive(Debug, Default)]
pub(super) struct Instances {
    /// The first instance heard of each member that is not registered yet; this node's own too.
    heard: BTreeMap<NodeId, u64>,
    /// Nodes that were heard without their state, and the instance that they have instead.
    lost: BTreeMap<NodeId, u64>,
    /// The newest registration that this node has proposed as leader.
    proposed: (Term, Index),
}

impl Instances {
    /// 0 stands for "not registered", and is never heard of.
    pub fn hear(&mut self, id: NodeId, instance: u64) {
        if instance != 0 {
            self.heard.entry(id).or_insert(instance);
        }
    }

    /// Whether a node was heard without its state, and not with it since.
    pub fn has_lost(&self, id: NodeId) -> bool {
        self.lost.contains_key(&id)
    }
}

impl Engine {
    /// Whether a packet comes from the storage that is known under its sender's id; a sender that
    /// has lost its state is told so, and nothing that it says may count.
    pub fn is_genuine(&mut self, packet: &Packet) -> bool {
        let (from, instance) = (packet.header.from, packet.header.instance);
        let registered = self.cluster.instance(from);
        if registered.is_none() && self.raft.configuration().contains(from) {
            self.instances.hear(from, instance);
        }
        let heard = || self.instances.heard.get(&from).copied();
        let Some(known) = registered.or_else(heard) else {
            return true;
        };
        if known == instance {
            self.instances.lost.remove(&from);
            return true;
        }
        if self.instances.lost.insert(from, instance) != Some(instance) {
            self.log(
                1,
                format!("{from} has lost its state and is ignored: replace it under a new id"),
            );
            self.event(Event::PeerLostState { id: from });
        }
        // One that says so itself must not be told again, or the two would never end.
        if !packet.parts.iter().any(is_lost_state) {
            let (node, instance) = (from, known);
            self.outbox.push(from, Part::LostState { node, instance });
        }
        false
    }

    /// It is known from the log which storage a member has.
    pub fn registered(&mut self, id: NodeId) {
        self.instances.heard.remove(&id);
        let mine = id == self.settings.id;
        let other = |known: &u64| *known != self.instance;
        if let Some(known) = self.cluster.instance(id).filter(other).filter(|_| mine) {
            self.lose_state(known, "its own log says");
        }
    }

    /// The leader puts on record what it has heard.
    pub fn register_instances(&mut self) {
        if self.instances.heard.is_empty() || !self.raft.has_committed_in_term() {
            return;
        }
        let (term, index) = self.instances.proposed;
        if term == self.raft.term() && index > self.cluster.applied() {
            return;
        }
        let members = self.raft.configuration();
        self.instances.heard.retain(|id, _| members.contains(*id));
        let heard = self.instances.heard.iter();
        let applied = heard.filter(|(id, _)| self.cluster.member(**id).is_some());
        let instances: Vec<_> = applied.map(|(id, instance)| (*id, *instance)).collect();
        if instances.is_empty() {
            return;
        }
        match self.propose_command(&Command::Register { instances }) {
            Ok(proposed) => self.instances.proposed = proposed,
            Err(error) => self.log(4, format!("instances are not registered yet: {error}")),
        }
    }
}

/// Whether it is said that somebody has lost its state.
pub(super) fn is_lost_state(part: &Part) -> bool {
    matches!(part, Part::LostState { .. })
}
