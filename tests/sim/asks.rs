//! What a server wants of its storage and its host besides writes, and the snapshots that hosts
//! make: each takes its time, and may fail.

use raftkeel::core::{Ask, Bytes, NodeId, Snapshot};

use crate::judge::Judge;
use crate::marks::Fault::*;
use crate::queue::Micros;
use crate::server::{Input, Server};
use crate::world::{Due, World};

impl<S: Server, J: Judge<S>> World<S, J> {
    /// Takes in what a server has asked for.
    pub fn start_asks(&mut self, at: usize) {
        let asks = std::mem::take(&mut self.output.asks);
        for ask in asks {
            let takes = self.draw_answer_time(&ask);
            self.plan_due(takes, at, Due::Answer(ask));
        }
    }

    fn draw_answer_time(&mut self, ask: &Ask) -> Micros {
        let nature = self.swarm.storage;
        let slowest = match ask {
            Ask::Install { .. } => nature.loads,
            _ => nature.latency,
        };
        match self.rough {
            true => self.dice.scaled(1, slowest),
            false => self.dice.scaled(1, slowest.min(self.swarm.heartbeat * 250)),
        }
    }

    /// Whether something fails this time.
    fn fails(&mut self, chance: u32) -> bool {
        self.rough && self.dice.chance(chance)
    }

    /// Answers a server.
    pub fn answer(&mut self, at: usize, ask: Ask) {
        match ask {
            Ask::Entries {
                to,
                first,
                last,
                bytes,
            } => {
                let fails = self.fails(self.swarm.storage.fails);
                let image = &self.nodes[at].disk.image;
                let entries = match fails {
                    true => {
                        FetchFailed.hit();
                        Err(())
                    }
                    false => image.fetch(first, last, bytes),
                };
                self.call(at, Input::Fetched { to, first, entries });
            }
            Ask::Piece {
                to,
                snapshot,
                offset,
                len,
            } => self.read_piece(at, to, snapshot, (offset, len)),
            Ask::Store {
                snapshot,
                offset,
                data,
            } => self.store_piece(at, snapshot, offset, data),
            Ask::Install { snapshot } => self.install(at, snapshot),
        }
    }

    fn read_piece(&mut self, at: usize, to: NodeId, snapshot: Snapshot, place: (u64, usize)) {
        let (offset, len) = place;
        let fails = self.fails(self.swarm.storage.fails);
        let image = &self.nodes[at].disk.image;
        let data = match fails {
            true => {
                PieceReadFailed.hit();
                Err(())
            }
            false => image.read(&snapshot, offset, len),
        };
        let input = Input::PieceRead {
            to,
            snapshot,
            offset,
            data,
        };
        self.call(at, input);
    }

    fn store_piece(&mut self, at: usize, snapshot: Snapshot, offset: u64, data: Bytes) {
        let fails = self.fails(self.swarm.storage.fails);
        let image = &mut self.nodes[at].disk.image;
        let end = offset + data.len() as u64;
        let mut ok = image.store(&snapshot, offset, &data).is_ok();
        if fails {
            StoreFailed.hit();
            image.give_up();
            ok = false;
        }
        if self.stops_untold(at) {
            return;
        }
        self.call(at, Input::PieceStored { snapshot, end, ok });
    }

    fn install(&mut self, at: usize, snapshot: Snapshot) {
        let fails = self.fails(self.swarm.storage.fails);
        let node = &mut self.nodes[at];
        let received = node.disk.image.received(&snapshot);
        let Some(image) = received.filter(|_| !fails) else {
            LoadFailed.hit();
            node.disk.image.give_up();
            let ok = false;
            self.call(at, Input::Installed { snapshot, ok });
            return;
        };
        let judge = &mut self.judge;
        if node.disk.image.adopt(&snapshot, image.clone()) {
            judge.kept(at, &snapshot);
        }
        if self.stops_untold(at) {
            return;
        }
        self.load(at, &snapshot, &image);
        let ok = true;
        self.call(at, Input::Installed { snapshot, ok });
    }

    /// Now and then a node stops between doing and saying.
    fn stops_untold(&mut self, at: usize) -> bool {
        if !self.fails(self.swarm.storage.stops) {
            return false;
        }
        StoppedUntold.hit();
        self.crash(at);
        let after = self.draw_span();
        self.plan_due(after, at, Due::Restart);
        true
    }

    /// The host takes on the state of an image.
    pub fn load(&mut self, at: usize, snapshot: &Snapshot, image: &[u8]) {
        let (host, judge) = (&mut self.nodes[at].host, &mut self.judge);
        host.load(snapshot, image, |id, outcome| judge.outcome(id, outcome));
        let known = Some(host.state).filter(|state| *state != 0);
        judge.loaded(at, snapshot, known);
    }

    // ---- the host's own snapshots ----------------------------------------

    /// A host begins a snapshot of what it has applied.
    pub fn begin_save(&mut self, at: usize) {
        let nature = self.swarm.storage;
        let node = &mut self.nodes[at];
        let newest = node.disk.image.newest();
        let newest = newest.map_or(0, |(snapshot, _)| snapshot.last.index);
        if !node.is_up() || node.failed || node.host.saving || node.host.applied.index <= newest {
            return;
        }
        let salt = match nature.alike {
            true => 0,
            false => node.id.get(),
        };
        let (snapshot, image) = node.host.save(nature.size, salt);
        node.host.saving = true;
        let takes = self.dice.scaled(1, nature.loads);
        self.plan_due(takes, at, Due::Saved(snapshot, image));
    }

    /// A host's own snapshot is written.
    pub fn saved(&mut self, at: usize, snapshot: Snapshot, image: Bytes) {
        let node = &mut self.nodes[at];
        if !node.host.saving || node.failed {
            return;
        }
        node.host.saving = false;
        if self.fails(self.swarm.storage.fails) {
            SaveFailed.hit();
            return;
        }
        let node = &mut self.nodes[at];
        if node.disk.image.keep(snapshot.clone(), image) {
            self.judge.kept(at, &snapshot);
        }
        if self.stops_untold(at) {
            return;
        }
        let upto = snapshot
            .last
            .index
            .saturating_sub(self.swarm.storage.behind);
        self.call(at, Input::Saved(snapshot));
        let anyway = self.dice.once_in(4);
        self.call(at, Input::Compact { upto, anyway });
    }
}
