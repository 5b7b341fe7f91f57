//! The host of a server: a state that is the hash of all that was applied, its snapshots, and the
//! answers to what a server asks of it and of its disk.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use raftkeel::core::{
    Ask, Bytes, Configuration, Entry, Index, Millis, NodeId, Payload, Position, Raft, Snapshot,
};

use crate::cluster::{Cluster, n};
use crate::disk::checksum;
use crate::model::adapter;
use crate::model::data::Input;

/// What a host has made of the log.
#[derive(Clone, Default)]
pub struct State {
    /// The last entry that is in it.
    pub last: Position,
    hash: u64,
    config: Arc<Configuration>,
    config_index: Index,
}

impl State {
    pub fn apply(&mut self, entry: &Entry) {
        let mut hasher = DefaultHasher::new();
        (self.hash, entry).hash(&mut hasher);
        self.hash = hasher.finish();
        (self.last.index, self.last.term) = (entry.index, entry.term);
        if let Payload::Config(config, _) = &entry.payload {
            (self.config, self.config_index) = (config.clone(), entry.index);
        }
    }

    /// A snapshot of it, and the image: the hash, and more or less besides.
    fn snapshot(&self) -> (Snapshot, Bytes) {
        let more = (self.last.index * 7 % 50) as usize;
        let mut image = self.hash.to_le_bytes().to_vec();
        image.extend((0..more).map(|at| (self.hash as usize + at) as u8));
        let snapshot = Snapshot {
            last: self.last,
            config: self.config.clone(),
            config_index: self.config_index,
            size: image.len() as u64,
            crc: checksum(&image),
            pieces: None,
        };
        (snapshot, Bytes::from(image))
    }

    /// What an image was made from.
    pub fn load(snapshot: &Snapshot, image: &[u8]) -> State {
        let hash = image.first_chunk().expect("an image holds the hash");
        State {
            last: snapshot.last,
            hash: u64::from_le_bytes(*hash),
            config: snapshot.config.clone(),
            config_index: snapshot.config_index,
        }
    }

    /// For comparison: I14.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl Cluster {
    /// Has a host save its state.
    pub fn save(&mut self, raw: u64) {
        let node = self.node_mut(raw);
        if node.raft.is_none() || node.state.last.index == 0 {
            return;
        }
        let (snapshot, image) = node.state.snapshot();
        node.disk.save(snapshot.clone(), image);
        let said = Input::Saved(adapter::snapshot(&snapshot));
        self.call(n(raw), |raft, _| raft.saved(snapshot), |_| said);
    }

    /// Has a log compacted; the disk may not have done it yet when the server starts again.
    pub fn compact(&mut self, raw: u64, upto: Index, anyway: bool, trimmed: bool) {
        let compact = |raft: &mut Raft, _| raft.compact(upto, anyway);
        let before = self.raft(raw).log().base();
        let base = self.call(n(raw), compact, |_| Input::Compact);
        if trimmed && base != before {
            self.node_mut(raw).disk.trim(base);
        }
    }

    /// Answers the oldest thing that a server has asked for; nothing can be had with `fails`.
    pub fn answer(&mut self, raw: u64, fails: bool) {
        let node = self.node_mut(raw);
        let Some(ask) = node.asks.pop_front() else {
            return;
        };
        match ask {
            Ask::Entries {
                to,
                first,
                last,
                bytes,
            } => {
                let found = node.disk.fetch(first, last, bytes);
                let found = if fails { Err(()) } else { found };
                let said = adapter::fetched(first, &found);
                let answer = |raft: &mut Raft, now| raft.fetched(now, to, first, found);
                self.call(n(raw), answer, |_| said);
            }
            Ask::Piece {
                to,
                snapshot,
                offset,
                len,
            } => {
                let found = node.disk.piece(&snapshot, offset, len);
                let found = if fails { Err(()) } else { found };
                let said = adapter::piece_read(to, &snapshot, offset, &found);
                let answer =
                    |raft: &mut Raft, now| raft.piece_read(now, to, &snapshot, offset, found);
                self.call(n(raw), answer, |_| said);
            }
            Ask::Store {
                snapshot,
                offset,
                data,
            } => {
                if !fails {
                    node.disk.store(&snapshot, offset, &data);
                }
                let (end, ok) = (offset + data.len() as u64, !fails);
                let said = adapter::piece_stored(&snapshot, end, ok);
                let answer =
                    |raft: &mut Raft, now: Millis| raft.piece_stored(now, &snapshot, end, ok);
                self.call(n(raw), answer, |_| said);
            }
            Ask::Install { snapshot } => {
                let ok = !fails && node.disk.adopt(&snapshot).is_ok();
                if ok {
                    let (of, image) = node.disk.snapshot.as_ref().expect("it was adopted");
                    node.state = State::load(of, image);
                    node.loaded = of.last.index;
                }
                let said = adapter::installed(&snapshot, ok);
                let answer = |raft: &mut Raft, now| raft.installed(now, &snapshot, ok);
                self.call(n(raw), answer, |_| said);
                self.check_state(n(raw));
            }
        }
    }

    /// I14: whoever comes to an index, by whatever way, has the same state there.
    pub fn check_state(&mut self, id: NodeId) {
        let state = &self.nodes[&id].state;
        let known = self.states.entry(state.last.index).or_insert(state.hash());
        assert_eq!(*known, state.hash(), "I14: {id} has another state");
    }
}
