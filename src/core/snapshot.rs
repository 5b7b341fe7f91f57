//! Snapshots: the log before them is dropped, and they are sent to those who need what was
//! dropped (paper 7, thesis 5; raft.md rules 34 to 40).
//!
//! The follower drives a transfer: it says from which byte on it wants the image, and gets one
//! piece at a time. What a server has of an image is known by the snapshot's identity, so a
//! transfer goes on where it was after the loss of anything, also with another leader. Images are
//! kept and read by the driver; here are only their bytes' numbers.

use super::bytes::Bytes;
use super::message::{AppendOutcome, AppendReply, Message, SnapshotPiece, SnapshotReply, Wants};
use super::persistence::Effect;
use super::raft::{Raft, Role};
use super::types::{Ask, Index, Millis, NodeId, Position, Snapshot};

/// A snapshot on its way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    snapshot: Snapshot,
    /// What the peer has asked for.
    wanted: Option<u64>,
    /// The piece is being read.
    reading: bool,
    /// Where the last piece began, and when it left or could not be read.
    last: Option<(u64, Millis)>,
}

impl Sending {
    pub(super) fn new(snapshot: Snapshot) -> Sending {
        Sending {
            snapshot,
            wanted: None,
            reading: false,
            last: None,
        }
    }

    /// Which snapshot it is.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How much of the image the peer is known to have.
    pub fn offset(&self) -> u64 {
        self.wanted.unwrap_or(0)
    }

    /// When the piece that is wanted may leave; `None` if none is.
    fn due(&self, patience: Millis) -> Option<Millis> {
        let wanted = self.wanted.filter(|at| *at < self.snapshot.size)?;
        match self.last {
            _ if self.reading => None,
            // It may still be on its way.
            Some((at, when)) if at == wanted => Some(when + patience),
            _ => Some(0),
        }
    }
}

/// A snapshot that is being received.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    snapshot: Snapshot,
    /// So much of the image is kept.
    stored: u64,
    /// The piece that is being kept is one of it.
    storing: bool,
    /// The host is loading the image.
    pub installing: bool,
    /// Number of the newest piece of this term.
    seq: u64,
}

impl Incoming {
    pub(super) fn new(snapshot: Snapshot, stored: u64) -> Incoming {
        assert!(stored <= snapshot.size, "more of an image than there is");
        Incoming {
            snapshot,
            stored,
            storing: false,
            installing: false,
            seq: 0,
        }
    }

    /// Numbers of an older term mean nothing in this one: who answered with such a number would
    /// confirm what was never sent to it.
    pub fn forget_number(&mut self) {
        self.seq = 0;
    }
}

impl Raft {
    // ---- this server's own ----------------------------------------------

    /// A snapshot of this server's own state is durable. An older one than the newest known is of
    /// no use any more, and is ignored.
    pub fn saved(&mut self, snapshot: Snapshot) {
        let newest = self.snapshot.as_ref().map_or(0, |s| s.last.index);
        if self.poisoned || snapshot.last.index <= newest {
            return;
        }
        assert!(
            snapshot.last.index <= self.handed && self.log.matches(snapshot.last),
            "a snapshot of what was not applied"
        );
        self.snapshot = Some(snapshot);
    }

    /// The newest durable snapshot.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Drops the log up to `upto`, or up to where it is still needed: not beyond the newest
    /// snapshot, what was applied, and what is durable; nor, unless `anyway`, behind a snapshot
    /// that is being sent, whose receiver will go on from there (raft.md rule 40), nor behind what
    /// a peer in contact has. The new base is returned, and storage is to be told.
    pub fn compact(&mut self, upto: Index, anyway: bool) -> Position {
        let snapshot = self.snapshot.as_ref().map_or(0, |s| s.last.index);
        let mut upto = upto.min(snapshot).min(self.handed).min(self.log.durable());
        if !anyway {
            upto = upto.min(self.needed_by_peers());
        }
        if upto > self.log.base().index && !self.poisoned {
            self.log.compact(upto);
        }
        self.log.base()
    }

    fn needed_by_peers(&self) -> Index {
        let Role::Leader(leader) = &self.role else {
            return Index::MAX;
        };
        let needed = leader.peers.values().map(|peer| match peer.sending() {
            Some(sending) => sending.snapshot.last.index,
            None if self.now < peer.heard_at() + self.options.election => peer.match_index(),
            None => Index::MAX,
        });
        needed.min().unwrap_or(Index::MAX)
    }

    /// Whether a snapshot is being sent.
    pub fn is_sending_snapshot(&self) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        leader.peers.values().any(|peer| peer.sending().is_some())
    }

    // ---- the leader ------------------------------------------------------

    /// Sends a peer the newest snapshot, if the log before its next entry was dropped. True if it
    /// is being sent one.
    pub(super) fn needs_snapshot(&mut self, to: NodeId) -> bool {
        let base = self.log.base().index;
        let Role::Leader(leader) = &mut self.role else {
            return false;
        };
        let Some(progress) = leader.peers.get_mut(&to) else {
            return false;
        };
        let lost = match progress.sending() {
            // What comes behind it was dropped as well.
            Some(sending) => sending.snapshot.last.index < base,
            None if progress.next_index() > base => return false,
            None => true,
        };
        if lost {
            let Some(newest) = &self.snapshot else {
                panic!("the log was dropped without a snapshot");
            };
            progress.begin_snapshot(newest.clone());
        }
        true
    }

    /// Asks how much of the snapshot the peer has; a heartbeat at the same time.
    pub(super) fn offer(&mut self, to: NodeId) {
        let data = Raft::no_bytes();
        self.send_piece(to, data, |sending| sending.offset());
    }

    fn send_piece(&mut self, to: NodeId, data: Bytes, offset: impl FnOnce(&mut Sending) -> u64) {
        let (term, now) = (self.hard.term, self.now);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let seq = leader.numbers.next(now);
        let progress = leader.peers.get_mut(&to);
        let Some(sending) = progress.and_then(|p| p.sending_mut()) else {
            return;
        };
        let offset = offset(sending);
        let snapshot = sending.snapshot.clone();
        assert!(
            offset + data.len() as u64 <= snapshot.size,
            "a piece runs past the end of its image"
        );
        let piece = SnapshotPiece {
            term,
            seq,
            snapshot,
            offset,
            data,
        };
        self.send(to, Message::Snapshot(Box::new(piece)));
    }

    pub(super) fn on_snapshot_reply(&mut self, from: NodeId, reply: &SnapshotReply) {
        let Some(progress) = self.hear(from, reply.term, reply.seq) else {
            return;
        };
        let Some(sending) = progress.sending_mut() else {
            return;
        };
        let snapshot = &sending.snapshot;
        if (snapshot.last.index, snapshot.crc) != (reply.index, reply.crc) {
            return;
        }
        sending.wanted = match reply.wants {
            Wants::From(offset) => Some(offset).filter(|at| *at <= snapshot.size),
            Wants::Patience | Wants::Again => None,
        };
    }

    /// Asks storage for the pieces that may leave now.
    pub(super) fn ask_for_pieces(&mut self) {
        let (now, patience) = (self.now, 2 * self.options.heartbeat);
        let piece = self.options.piece_bytes as u64;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if now < leader.piece_at {
            return;
        }
        for (to, progress) in &mut leader.peers {
            let Some(sending) = progress.sending_mut() else {
                continue;
            };
            if sending.due(patience).is_none_or(|due| due > now) {
                continue;
            }
            sending.reading = true;
            let offset = sending.offset();
            self.asks.push(Ask::Piece {
                to: *to,
                snapshot: sending.snapshot.clone(),
                offset,
                len: piece.min(sending.snapshot.size - offset) as usize,
            });
        }
    }

    /// When [`Raft::ask_for_pieces`] has something to do.
    pub(super) fn pieces_due(&self) -> Millis {
        let patience = 2 * self.options.heartbeat;
        let Role::Leader(leader) = &self.role else {
            return Millis::MAX;
        };
        let sending = leader.peers.values().filter_map(|p| p.sending());
        let due = sending.filter_map(|s| s.due(patience)).min();
        due.map_or(Millis::MAX, |due| due.max(leader.piece_at))
    }

    /// Storage has answered [`Ask::Piece`]. After an error nothing is sent, and it is asked again
    /// later; of a newer snapshot if there is one, for storage need not keep older ones.
    pub fn piece_read(
        &mut self,
        now: Millis,
        to: NodeId,
        snapshot: &Snapshot,
        offset: u64,
        data: Result<Bytes, ()>,
    ) {
        self.observe(now);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let progress = leader.peers.get_mut(&to);
        let sending = progress.and_then(|p| p.sending_mut());
        // The peer may have left, or caught up, or be sent another one by now (raft.md rule 39).
        let Some(sending) = sending.filter(|s| s.snapshot == *snapshot && s.reading) else {
            return;
        };
        sending.reading = false;
        sending.last = Some((offset, now));
        let Ok(data) = data else {
            if let (Some(progress), Some(newest)) = (leader.peers.get_mut(&to), &self.snapshot)
                && newest != snapshot
            {
                progress.begin_snapshot(newest.clone());
            }
            return;
        };
        if sending.wanted != Some(offset) {
            return;
        }
        if let Some(rate) = self.options.snapshot_rate {
            let spent = (data.len() as u64 * 1000).div_ceil(rate.get());
            leader.piece_at = leader.piece_at.max(now) + spent;
        }
        self.send_piece(to, data, |_| offset);
    }

    // ---- the follower ----------------------------------------------------

    pub(super) fn on_snapshot(&mut self, from: NodeId, piece: SnapshotPiece) {
        let place = (piece.offset, piece.data.len() as u64);
        let size = piece.snapshot.size;
        let fits = place.0.checked_add(place.1).is_some_and(|end| end <= size);
        if !fits || piece.snapshot.last.term > piece.term || piece.snapshot.last.index == 0 {
            // Forged, or its sender is broken.
            return;
        }
        if piece.term < self.hard.term {
            self.refuse_term(from);
            return;
        }
        let Some(repeated) = self.hear_leader(from, piece.term, piece.seq) else {
            return;
        };
        let known =
            self.log.matches(piece.snapshot.last) && !cfg!(keel_bug = "snapshot_drops_suffix");
        if known || piece.snapshot.last.index <= self.commit {
            self.reach(from, &piece);
            return;
        }
        match &mut self.incoming {
            Some(incoming) if incoming.snapshot == piece.snapshot => {}
            Some(incoming)
                if cfg!(keel_bug = "pieces_mixed")
                    && incoming.snapshot.last == piece.snapshot.last => {}
            // The host cannot be stopped in the middle, and this server is in contact meanwhile.
            Some(incoming) if incoming.installing => {
                incoming.seq = incoming.seq.max(piece.seq);
                return self.say_what_is_wanted(from);
            }
            // An old copy does not take the place of what its leader sent since.
            _ if repeated => return,
            _ => self.incoming = Some(Incoming::new(piece.snapshot.clone(), 0)),
        }
        self.take_piece(from, piece);
    }

    /// The log holds all that the snapshot stands for: it is not needed, but what it says of the
    /// commit index is (raft.md rule 34).
    fn reach(&mut self, from: NodeId, piece: &SnapshotPiece) {
        let index = piece.snapshot.last.index;
        self.verified = self.verified.max(index).max(self.commit);
        self.commit_to(index);
        if self.incoming.as_ref().is_some_and(|i| !i.installing) {
            self.incoming = None;
        }
        let (term, seq) = (self.hard.term, piece.seq);
        let to = from;
        self.after_hard(Effect::Acknowledge { to, term, seq });
    }

    fn take_piece(&mut self, from: NodeId, piece: SnapshotPiece) {
        let Some(incoming) = &mut self.incoming else {
            panic!("a piece belongs to a snapshot");
        };
        incoming.seq = incoming.seq.max(piece.seq);
        // One piece at a time, whatever it belongs to: what is said of it names the snapshot only.
        let idle = !self.storing && !incoming.installing;
        if idle && piece.offset == incoming.stored && !piece.data.is_empty() {
            (self.storing, incoming.storing) = (true, true);
            self.asks.push(Ask::Store {
                snapshot: piece.snapshot,
                offset: piece.offset,
                data: piece.data,
            });
            return;
        }
        self.install_if_whole();
        self.say_what_is_wanted(from);
    }

    /// Only one who follows has its host load an image: who campaigns may lead before that is done.
    fn install_if_whole(&mut self) {
        let follows = matches!(self.role, Role::Follower);
        let Some(incoming) = self.incoming.as_mut().filter(|_| follows) else {
            return;
        };
        let busy = self.storing || incoming.installing;
        if !busy && incoming.snapshot.last.index <= self.commit {
            // The log came up to there meanwhile: it must not go back (raft.md rule 34).
            self.incoming = None;
            return;
        }
        if !busy && incoming.stored == incoming.snapshot.size {
            incoming.installing = true;
            let snapshot = incoming.snapshot.clone();
            match cfg!(keel_bug = "install_before_term") {
                true => self.asks.push(Ask::Install { snapshot }),
                false => self.after_hard(Effect::Install(Box::new(snapshot))),
            }
        }
    }

    /// The term is durable, so the image may be made this server's own; unless the log came up to
    /// there meanwhile.
    pub(super) fn install_unless_reached(&mut self, snapshot: Snapshot) {
        if snapshot.last.index > self.commit {
            self.asks.push(Ask::Install { snapshot });
        } else {
            self.incoming = None;
        }
    }

    fn say_what_is_wanted(&mut self, to: NodeId) {
        let Some(incoming) = &self.incoming else {
            return;
        };
        let wants = match self.storing || incoming.installing {
            true => Wants::Patience,
            false => Wants::From(incoming.stored),
        };
        self.tell_sender(to, &incoming.snapshot.clone(), incoming.seq, wants);
    }

    fn tell_sender(&mut self, to: NodeId, snapshot: &Snapshot, seq: u64, wants: Wants) {
        let term = self.hard.term;
        let reply = Message::SnapshotReply(SnapshotReply {
            term,
            seq,
            index: snapshot.last.index,
            crc: snapshot.crc,
            wants,
        });
        self.after_hard(Effect::Send(to, term, Box::new(reply)));
    }

    /// Storage has answered [`Ask::Store`].
    pub fn piece_stored(&mut self, now: Millis, snapshot: &Snapshot, end: u64, ok: bool) {
        self.observe(now);
        self.storing = false;
        let incoming = self.incoming.as_mut();
        let Some(incoming) = incoming.filter(|i| i.storing && i.snapshot == *snapshot) else {
            return;
        };
        assert!(
            incoming.stored < end && end <= snapshot.size,
            "a piece was stored that did not come"
        );
        incoming.storing = false;
        if ok {
            incoming.stored = end;
            self.install_if_whole();
            if let Some(leader) = self.leader.filter(|_| !self.is_leader()) {
                self.say_what_is_wanted(leader);
            }
        } else {
            self.give_up_snapshot();
        }
    }

    /// Nothing of it is kept; its sender may begin again, a little later.
    fn give_up_snapshot(&mut self) {
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        if let Some(leader) = self.leader.filter(|_| !self.is_leader()) {
            self.tell_sender(leader, &incoming.snapshot, incoming.seq, Wants::Again);
        }
    }

    /// Storage and host have answered [`Ask::Install`]. With `true` the image is durable, and the
    /// host's state is what it says: everything up to its last entry counts as handed out.
    pub fn installed(&mut self, now: Millis, snapshot: &Snapshot, ok: bool) {
        self.observe(now);
        let incoming = self.incoming.as_ref();
        if self.poisoned || !incoming.is_some_and(|i| i.installing && i.snapshot == *snapshot) {
            return;
        }
        if !ok {
            self.give_up_snapshot();
            return;
        }
        let seq = incoming.map_or(0, |i| i.seq);
        self.incoming = None;
        self.install(snapshot);
        self.end_claim();
        if let Some(leader) = self.leader.filter(|_| !self.is_leader()) {
            let (to, term) = (leader, self.hard.term);
            if cfg!(keel_bug = "snapshot_acked_before_durable") {
                let outcome = AppendOutcome::Accepted {
                    match_index: snapshot.last.index,
                };
                let reply = AppendReply { term, seq, outcome };
                self.send(to, Message::AppendReply(reply));
            }
            self.after_hard(Effect::Acknowledge { to, term, seq });
        }
    }

    fn install(&mut self, snapshot: &Snapshot) {
        let last = snapshot.last;
        let keeps = cfg!(keel_bug = "snapshot_keeps_tail") && last.index <= self.log.last_index();
        let held = self.log.matches(last) && !cfg!(keel_bug = "snapshot_drops_suffix");
        if held || last.index <= self.commit || keeps {
            // It came up to here by entries meanwhile: the log behind it is kept.
            self.commit_to(last.index);
        } else {
            self.replace_log(snapshot);
        }
        self.handed = self.handed.max(last.index);
        self.fetched.forget();
        let newest = self.snapshot.as_ref().map_or(0, |s| s.last.index);
        if last.index > newest {
            self.snapshot = Some(snapshot.clone());
        }
    }

    /// A tail that conflicts, or that cannot be known not to, goes as a whole (raft.md rule 34).
    fn replace_log(&mut self, snapshot: &Snapshot) {
        let last = snapshot.last;
        self.log.reset(last);
        self.configs
            .reset(snapshot.config_index, snapshot.config.clone());
        self.commit = last.index;
        self.verified = last.index;
        for pending in &mut self.pending {
            // What it writes of the log is not in the log any more (raft.md rule 28).
            pending.last = 0;
        }
        self.staged.first = None;
        self.staged.reset = Some(snapshot.clone());
        self.configuration_committed();
    }

    /// A message of an older term teaches its sender the present one, and no more.
    fn refuse_term(&mut self, to: NodeId) {
        let term = self.hard.term;
        let outcome = AppendOutcome::Rejected {
            prev_index: 0,
            hint_index: 0,
            hint_term: 0,
        };
        let seq = 0;
        let reply = Message::AppendReply(AppendReply { term, seq, outcome });
        self.after_hard(Effect::Send(to, term, Box::new(reply)));
    }
}
