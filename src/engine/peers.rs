//! What comes from the peers, and what goes to them: one packet each in a round.

use crate::detector::Envelope;
use crate::wire::{Header, NO_ROOM, Packet, Part};

use super::action::Action;
use super::engine::Engine;
use super::outbox::Outbox;

impl Engine {
    /// What a member says of itself: the newest counts, for a late packet says what is no more so.
    fn note_sender(&mut self, header: &Header) {
        let (from, at) = (header.from, (header.incarnation, header.stamp));
        let known = self.features.get(&from);
        if known.is_some_and(|(newest, _)| at < *newest) {
            return;
        }
        self.raft.note_priority(from, header.priority);
        if self.raft.configuration().contains(from) {
            self.features.insert(from, (at, header.features));
        }
    }

    pub fn packet(&mut self, packet: Packet) {
        let from = packet.header.from;
        if self.has_lost_state() {
            self.admit_loss(&packet);
            return;
        }
        if !self.is_genuine(&packet) {
            return;
        }
        let header = &packet.header;
        let envelope = self.envelope(header);
        self.detector.heard(self.now, &envelope);
        if envelope.leader_term >= self.raft.term() && envelope.leader_term > 0 {
            self.watch.leader_fresh_at = Some(self.now);
        }
        self.note_sender(header);
        let barred = self.is_barred(from, header.epoch);
        if barred && self.detector.node(from).is_none() {
            // Out for good: the detector does not follow it, but it must learn its fate.
            self.tell(from);
        }
        for part in packet.parts {
            match part {
                Part::Raft(_) if barred => {}
                Part::Raft(message) => self.raft_message(from, message),
                Part::Keepalive(keepalive) => {
                    self.detector.keepalive(self.now, &envelope, keepalive);
                }
                Part::Verdict(verdict) => self.verdict(from, verdict, false),
                Part::Removed(verdict) => self.verdict(from, verdict, true),
                Part::LostState { node, instance } => self.lost_state(from, node, instance),
                Part::Digest { index, crc } => self.compare_digest(from, index, crc),
            }
        }
    }

    /// What the detector needs to know of a packet. A leader confirms this node's right to serve
    /// only once this node knows the membership that the leader has: it may have been excluded
    /// and taken back, and must learn both before it serves.
    fn envelope(&self, header: &Header) -> Envelope {
        let behind = header.epoch > self.raft.configuration().epoch;
        Envelope {
            from: header.from,
            incarnation: header.incarnation,
            stamp: header.stamp,
            echo: header.echo,
            echo_incarnation: header.echo_incarnation,
            leader_term: if behind { 0 } else { header.leader_term },
        }
    }

    /// Whether all members understand this, as far as they were heard: what one does not must not
    /// come into the log. One that was never heard may be dead, and must not hold up the others for
    /// ever; should it not understand, it stops there, and skips nothing (raft.md rule 59). But a
    /// leader waits for two election timeouts, for others may have elected it.
    pub fn all_understand(&self, feature: u32) -> bool {
        let patience = 2 * self.settings.election;
        let patient = self.now >= self.watch.leading_since + patience;
        let mut members = self.raft.configuration().members();
        members.all(|id| {
            let said = match id == self.settings.id {
                true => Some(self.settings.features),
                false => self.features.get(&id).map(|(_, said)| *said),
            };
            said.map_or(patient, |said| said & feature == feature)
        })
    }

    /// Keepalives that are due, and those that may ride on what leaves anyway.
    pub fn keepalives(&mut self) {
        self.detector.set_applied(self.cluster.applied());
        let mut due = Vec::new();
        self.detector.take_due(self.now, &mut due);
        let leader = self.raft.leader();
        for (to, keepalive) in due {
            self.outbox.push(to, Part::Keepalive(keepalive));
            if Some(to) == leader
                && let Some((index, crc)) = self.newest_digest()
            {
                self.outbox.push(to, Part::Digest { index, crc });
            }
        }
        for to in self.outbox.addressees() {
            if let Some(keepalive) = self.detector.ride_along(to, self.now) {
                self.outbox.push(to, Part::Keepalive(keepalive));
            }
        }
    }

    pub fn flush(&mut self) {
        if self.stopped.is_some() {
            self.outbox = Outbox::default();
            return;
        }
        let fresh = self.is_fresh() && self.raft.may_confirm(self.now);
        let changed_at = self.changed_at;
        let base = Header {
            cluster: self.settings.cluster,
            genesis: self.cluster.genesis(),
            from: self.settings.id,
            to: self.settings.id,
            instance: self.instance,
            incarnation: self.incarnation,
            epoch: self.raft.configuration().epoch,
            stamp: self.now,
            echo: 0,
            echo_incarnation: 0,
            leader_term: 0,
            features: self.settings.features | if self.is_disk_full() { NO_ROOM } else { 0 },
            priority: self.raft.priority(),
        };
        let (detector, cluster, term) = (&self.detector, &self.cluster, self.raft.term());
        let newest = self.raft.configuration();
        let limit = self.settings.message_entries();
        let header = |to| {
            let (echo, echo_incarnation) = detector.echo_for(to);
            // A leader's word gives leave to serve: not to a node that is on its way out, nor to
            // one that is out until its return is decided, nor to one that does not know the
            // settings yet that say for how long.
            let knows = detector.applied_by(to) >= changed_at;
            let stays = newest.keeps(to) && cluster.is_excluded(to).is_none();
            let confirms = fresh && stays && knows;
            Header {
                to,
                echo,
                echo_incarnation,
                leader_term: if confirms { term } else { 0 },
                ..base.clone()
            }
        };
        self.outbox.drain(limit, header, |to, bytes| {
            self.metrics.packets_out += 1;
            self.metrics.bytes_out += bytes.len() as u64;
            self.actions.push(Action::Send { to, bytes });
        });
    }
}
