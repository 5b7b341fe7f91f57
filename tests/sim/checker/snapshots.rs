//! Snapshots: I14, and what they make of disks and logs.

use raftkeel::core::{Ask, Index, Message, Position, Raft, Snapshot, SnapshotPiece};

use super::outline::Outline;
use super::{Checker, Configured, Seen};
use crate::judge::Call;
use crate::marks::Mark::*;
use crate::server::Input;

/// What is durable on one node.
#[derive(Default)]
pub struct Disk {
    /// The log as it was written.
    pub written: Outline,
    pub written_configs: Vec<Configured>,
    /// Where the newest snapshot ends.
    pub image: Option<Position>,
    /// A snapshot that the log does not reach counts alone: all that is committed up to its end.
    covered: Option<(Outline, Vec<Configured>)>,
}

impl Disk {
    /// The log that a start finds; what was dropped of it counts as being there, for a snapshot
    /// has its place.
    pub fn log(&self) -> &Outline {
        self.covered.as_ref().map_or(&self.written, |c| &c.0)
    }

    pub fn configs(&self) -> &[Configured] {
        self.covered
            .as_ref()
            .map_or(&self.written_configs, |c| &c.1)
    }
}

fn up_to(configs: &[Configured], last: Index) -> Vec<Configured> {
    configs.iter().filter(|c| c.0 <= last).cloned().collect()
}

impl Checker {
    /// What the log on a disk is, after something has reached it.
    pub(super) fn find_disk(&mut self, at: usize) {
        let disk = &mut self.nodes[at].disk;
        let Some(image) = disk.image else {
            return;
        };
        if disk.written.holds(image.index, image.term) {
            disk.covered = None;
        } else if disk
            .covered
            .as_ref()
            .is_none_or(|c| c.0.last() != image.index)
        {
            let log = self.common.up_to(image.index);
            disk.covered = Some((log, up_to(&self.common_configs, image.index)));
        }
    }

    /// At a start the log that a snapshot does not go on from is gone for good.
    pub(super) fn disk_found(&mut self, at: usize) {
        self.find_disk(at);
        let disk = &mut self.nodes[at].disk;
        if let Some((log, configs)) = disk.covered.take() {
            RestartedByImage.hit();
            (disk.written, disk.written_configs) = (log, configs);
        }
    }

    /// A write that drops the log has reached a disk.
    pub(super) fn disk_reset(&mut self, at: usize, snapshot: &Snapshot) {
        self.snapshot_is_true(&self.nodes[at], snapshot);
        let last = snapshot.last.index;
        let disk = &mut self.nodes[at].disk;
        disk.written = self.common.up_to(last);
        disk.written_configs = up_to(&self.common_configs, last);
        self.copies_changed = true;
    }

    /// A log in memory is dropped for a snapshot.
    pub(super) fn log_reset(&mut self, call: &Call<'_, Raft>, snapshot: &Snapshot) {
        let last = snapshot.last;
        assert!(
            !call.after.leads() && call.before.commit < last.index,
            "I14: {} drops its log for snapshot {}, and has committed {}",
            call.id,
            last.index,
            call.before.commit
        );
        let node = &mut self.nodes[call.node];
        if node.log.last() > call.before.commit {
            InstalledOverTail.hit();
        }
        if node
            .configs
            .last()
            .is_some_and(|c| c.0 > call.before.commit)
        {
            InstalledOverConfig.hit();
        }
        if call.before.config_index != snapshot.config_index {
            InstalledConfig.hit();
        }
        node.log = self.common.up_to(last.index);
        node.configs = up_to(&self.common_configs, last.index);
    }

    /// The image of a snapshot is durable; so must the term be by then in which its last entry came, or
    /// a restart finds a log that is newer than the hard state.
    pub(super) fn image_kept(&mut self, at: usize, snapshot: &Snapshot) {
        let node = &self.nodes[at];
        self.snapshot_is_true(node, snapshot);
        assert!(
            node.hard.term >= snapshot.last.term,
            "I3: {} keeps a snapshot up to {:?}, its disk has term {}",
            node.id,
            snapshot.last,
            node.hard.term
        );
        let disk = &mut self.nodes[at].disk;
        assert!(
            disk.image
                .is_none_or(|place| place.index < snapshot.last.index),
            "I14: an older snapshot takes the place of a newer one"
        );
        disk.image = Some(snapshot.last);
        self.find_disk(at);
    }

    /// I14: a snapshot ends where something is committed, with the newest configuration there.
    fn snapshot_is_true(&self, node: &Seen, snapshot: &Snapshot) {
        let (last, id) = (snapshot.last, node.id);
        let known = self.committed.get((last.index as usize).wrapping_sub(1));
        assert!(
            known.is_some_and(|c| c.term == last.term),
            "I14: {id} has a snapshot up to {last:?}, which is not what is committed there"
        );
        let newest = self.common_configs.iter().rfind(|c| c.0 <= last.index);
        assert!(
            newest.is_some_and(|c| c.0 == snapshot.config_index && c.2 == snapshot.config),
            "I14: {id} has a snapshot up to {} with the configuration at {}, the newest is \
             at {:?}",
            last.index,
            snapshot.config_index,
            newest.map(|c| c.0)
        );
    }

    /// I14: the state in an image is that of everybody who has applied as much; and a host's state
    /// never goes back.
    pub(super) fn state_loaded(&mut self, at: usize, snapshot: &Snapshot, state: Option<u64>) {
        let node = &mut self.nodes[at];
        let index = snapshot.last.index;
        let known = self.committed[index as usize - 1].state;
        assert!(
            state.is_none_or(|state| state == known),
            "I14: {} loads another state than all have at {index}",
            node.id
        );
        assert!(
            node.applied <= index,
            "I14: {} loads snapshot {index}, and has applied {}",
            node.id,
            node.applied
        );
        node.applied = index;
    }

    /// I14: a leader sends a snapshot of what it knows to be committed.
    pub(super) fn piece_is_true(&self, call: &Call<'_, Raft>, piece: &SnapshotPiece) {
        let node = &self.nodes[call.node];
        self.snapshot_is_true(node, &piece.snapshot);
        let last = piece.snapshot.last.index;
        assert!(
            last <= call.after.commit && node.disk.image.is_some_and(|i| i.index >= last),
            "I14: {} sends a snapshot up to {last}, which is not its own to send",
            call.id
        );
        assert!(
            piece.data.len() <= node.limits.piece_bytes,
            "I23: {} sends a piece of {} bytes",
            call.id,
            piece.data.len()
        );
    }

    /// What is asked of hosts and told by them.
    pub(super) fn snapshots(&mut self, call: &Call<'_, Raft>) {
        let node = &mut self.nodes[call.node];
        if let Input::Installed { .. } = call.input {
            node.installing = false;
        }
        for ask in &call.output.asks {
            if let Ask::Install { snapshot } = ask {
                assert!(
                    !node.installing && snapshot.last.index > call.after.commit,
                    "I14: {} installs snapshot {}, and has committed {}",
                    call.id,
                    snapshot.last.index,
                    call.after.commit
                );
                node.installing = true;
            }
        }
        let sends = |m: &Message| matches!(m, Message::Snapshot(_));
        assert!(
            call.after.leads() || !call.output.sent.iter().any(|(_, m)| sends(m)),
            "I14: {} sends a snapshot, and does not lead",
            call.id
        );
    }
}
