//! Who is out: excluded, removed for good, or without its state. Such a node is told, and is not
//! listened to; when it is this one, it neither votes nor serves.

use crate::cluster::State;
use crate::core::{Epoch, Exclusion, Index, NodeId};
use crate::detector::Outcast;
use crate::wire::{Packet, Part, Verdict};

use super::Event;
use super::engine::Engine;
use super::instances::is_lost_state;

/// What this node knows of its own fate besides what its hard state says.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Its exclusion is a removal.
    removed: bool,
    /// The instance that the cluster knows under its id, if that is another one.
    lost: Option<u64>,
}

impl Engine {
    /// Why this node is no member, if it is none.
    pub fn outcast(&self) -> Option<Outcast> {
        let out = self.raft.hard_state().excluded.is_some();
        match &self.fate {
            fate if fate.lost.is_some() => Some(Outcast::LostState),
            fate if out && fate.removed => Some(Outcast::Removed),
            _ => out.then_some(Outcast::Excluded),
        }
    }

    /// Whether this node has lost its state; then that is all that it says to anybody.
    pub fn has_lost_state(&self) -> bool {
        self.fate.lost.is_some()
    }

    /// Answers a packet by saying that this node has lost its state, so that everybody knows who
    /// sends it anything.
    pub fn admit_loss(&mut self, packet: &Packet) {
        if let Some(instance) = self.fate.lost
            && !packet.parts.iter().any(is_lost_state)
        {
            let node = self.settings.id;
            let admission = Part::LostState { node, instance };
            self.outbox.push(packet.header.from, admission);
        }
    }

    /// Whether a node is out and does not speak from a later epoch, in which it may be back
    /// while this node lags behind.
    pub fn is_barred(&self, from: NodeId, epoch: Epoch) -> bool {
        let out = self.cluster.is_excluded(from);
        out.is_some_and(|exclusion| epoch <= exclusion.epoch)
    }

    /// Tells a node that it is out, so that it stops serving.
    pub fn tell(&mut self, id: NodeId) {
        let Some(exclusion) = self.cluster.is_excluded(id) else {
            return;
        };
        let verdict = Verdict {
            epoch: exclusion.epoch,
            index: exclusion.index,
            leader: self.raft.leader(),
        };
        let part = match self.cluster.is_removed(id) {
            true => Part::Removed(verdict),
            false => Part::Verdict(verdict),
        };
        self.outbox.push(id, part);
    }

    /// A peer says that this node has been excluded, or removed.
    pub fn verdict(&mut self, told_by: NodeId, verdict: Verdict, removed: bool) {
        let Verdict { epoch, index, .. } = verdict;
        let before = self.raft.hard_state().excluded;
        self.raft.note_exclusion(Exclusion { epoch, index });
        let known = self.raft.hard_state().excluded;
        // After a restart only the exclusion is known, until somebody says it again.
        self.fate.removed |= removed && known.is_some_and(|x| x.epoch == epoch);
        if known == before {
            return;
        }
        let word = if removed { "removed" } else { "excluded" };
        let text = format!("{told_by} says: {word} at epoch {epoch}, log index {index}");
        self.log(1, text);
        self.event(match removed {
            true => Event::RemovedSelf {
                epoch,
                index,
                told_by,
            },
            false => Event::ExcludedSelf {
                epoch,
                index,
                told_by,
            },
        });
    }

    /// It was decided that a node leaves for good.
    pub fn removed(&mut self, epoch: Epoch, id: NodeId, index: Index) {
        let text = format!("removed {id} at epoch {epoch}, log index {index}");
        self.log(2, text);
        self.event(Event::Removed { epoch, index, id });
    }

    /// This node's own removal takes effect, once it is in force: until then it does its part in
    /// the change, as its leader if it is one (thesis 4.2.2).
    pub fn leave(&mut self) {
        if let Some(exclusion) = own_removal(&self.cluster, self.settings.id) {
            self.fate.removed = true;
            self.raft.note_exclusion(exclusion);
        }
    }

    /// A peer says which instance the cluster knows under a node's id.
    pub fn lost_state(&mut self, told_by: NodeId, node: NodeId, instance: u64) {
        if node == self.settings.id && instance != self.instance {
            self.lose_state(instance, &format!("{told_by} says"));
        }
    }

    /// What this node once acknowledged is gone with its earlier storage: its vote could undo what
    /// was committed, so that it must not take part in anything (raft.md rule 51).
    pub fn lose_state(&mut self, known: u64, source: &str) {
        if self.fate.lost.replace(known).is_some() {
            return;
        }
        self.raft.poison();
        self.fail_barriers();
        self.log(
            1,
            format!(
                "{source}: the cluster knows this id with other storage than this node has; its \
                 state is lost, and a new node under a new id must replace it"
            ),
        );
        self.event(Event::LostState);
    }
}

fn own_removal(cluster: &State, me: NodeId) -> Option<Exclusion> {
    cluster.is_excluded(me).filter(|_| cluster.is_removed(me))
}
