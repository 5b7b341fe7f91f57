//! Where transfers of snapshots get to, and what is fetched.

use raftkeel::core::{
    AppendOutcome, Ask, Message, NodeId, Raft, Snapshot, SnapshotPiece, SnapshotReply, Wants,
};

use super::{Watch, replied};
use crate::judge::Call;
use crate::marks::Mark::*;
use crate::server::Input;

/// A snapshot that a node is receiving.
#[derive(Clone)]
pub struct Receiving {
    snapshot: Snapshot,
    /// Who sent the last piece that was kept.
    from: NodeId,
    /// In which run of the node.
    run: u32,
}

impl Watch {
    pub(super) fn watch_snapshots(&mut self, call: &Call<'_, Raft>) {
        match call.input {
            Input::Receive { from, packet } => match packet {
                Message::Snapshot(piece) => self.watch_piece(call, *from, piece),
                Message::SnapshotReply(reply) => watch_snapshot_reply(call, reply),
                _ => {}
            },
            Input::Saved(snapshot) => watch_saved(call, snapshot),
            Input::Compact { upto, anyway } => watch_compaction(call, *upto, *anyway),
            Input::Fetched { to, entries, .. } => match to {
                _ if entries.is_err() => {}
                Some(_) => FetchedForPeer.hit(),
                None => FetchedToApply.hit(),
            },
            Input::Installed { ok: true, .. } => watch_installed(call),
            Input::Tick if self.nodes[call.node].installing && !call.before.leads() => {
                TickedWhileLoading.hit();
            }
            _ => {}
        }
        self.watch_asks(call);
    }

    fn watch_asks(&mut self, call: &Call<'_, Raft>) {
        let node = &mut self.nodes[call.node];
        if let Input::Installed { .. } = call.input {
            node.installing = false;
        }
        for ask in &call.output.asks {
            match ask {
                Ask::Install { .. } => node.installing = true,
                Ask::Piece { offset: 0, .. } => SnapshotBegun.hit(),
                _ => {}
            }
        }
    }

    /// A piece has come.
    fn watch_piece(&mut self, call: &Call<'_, Raft>, from: NodeId, piece: &SnapshotPiece) {
        let ack = |m: &Message| match m {
            Message::AppendReply(reply) => Some(reply.outcome.clone()),
            _ => None,
        };
        if piece.term < call.before.term {
            PieceOfOldLeader.hit();
            return;
        }
        if let Some(AppendOutcome::Accepted { .. }) = replied(call, ack) {
            SnapshotNotNeeded.hit();
        }
        let known = self.nodes[call.node].receiving.clone();
        let other = known.as_ref().filter(|k| k.snapshot != piece.snapshot);
        let store = call.output.asks.iter().find_map(|ask| match ask {
            Ask::Store { offset, .. } => Some(*offset),
            _ => None,
        });
        let Some(offset) = store else {
            let patience = |m: &Message| match m {
                Message::SnapshotReply(reply) => Some(reply.wants == Wants::Patience),
                _ => None,
            };
            if !piece.data.is_empty() && replied(call, patience) == Some(true) {
                PieceTooEarly.hit();
            }
            return;
        };
        if let Some(other) = other {
            SnapshotReplaced.hit();
            if other.snapshot.last == piece.snapshot.last {
                SnapshotRivalled.hit();
            }
        }
        if let Some(known) = known.filter(|k| k.snapshot == piece.snapshot && offset > 0) {
            if known.from != from {
                TransferTakenOver.hit();
            }
            if known.run != call.run {
                TransferGoesOn.hit();
            }
        }
        self.nodes[call.node].receiving = Some(Receiving {
            snapshot: piece.snapshot.clone(),
            from,
            run: call.run,
        });
    }
}

fn watch_snapshot_reply(call: &Call<'_, Raft>, reply: &SnapshotReply) {
    if reply.wants == Wants::Again && call.after.leads() {
        TransferBeganAgain.hit();
    }
    if reply.term < call.before.term {
        LateSnapshotReply.hit();
    }
}

fn watch_saved(call: &Call<'_, Raft>, snapshot: &Snapshot) {
    let newest = call.server.snapshot().map_or(0, |s| s.last.index);
    match newest > snapshot.last.index {
        true => SavedTooLate.hit(),
        false => SnapshotSaved.hit(),
    }
}

fn watch_compaction(call: &Call<'_, Raft>, upto: u64, anyway: bool) {
    let (before, after) = (call.before.base.index, call.after.base.index);
    if after > before {
        Compacted.hit();
    }
    let covered = call.server.snapshot().map_or(0, |s| s.last.index);
    let sending = call.before.leads() && call.server.is_sending_snapshot();
    if sending && after < upto.min(covered) && !anyway {
        CompactionHeldBack.hit();
    }
    if sending && anyway && after > before {
        CompactedUnderTransfer.hit();
    }
}

fn watch_installed(call: &Call<'_, Raft>) {
    let reset = call
        .output
        .write
        .as_ref()
        .is_some_and(|w| w.reset.is_some());
    match reset {
        true => SnapshotInstalled.hit(),
        false => InstalledInLog.hit(),
    }
}
