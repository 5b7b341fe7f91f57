//! raft-rs, as its documentation has it driven, and once more with all that makes it faster here.

use raft::eraftpb::{ConfState, Entry, HardState, Message, Snapshot};
use raft::storage::MemStorage;
use raft::{
    Config, Error, GetEntriesContext, RaftState, RawNode, StateRole, Storage, StorageError,
};
use slog::{Discard, Logger, o};

use crate::cluster::{KEPT, Node, Outputs, SERVERS};

pub struct RaftRs<S: Disk>(RawNode<S>);

/// With the storage in memory that comes with it, and its own defaults.
pub fn cluster() -> [RaftRs<MemStorage>; SERVERS] {
    servers(MemStorage::new_with_conf_state, false)
}

/// With a storage that neither locks nor copies, and appends merged while they wait to be sent.
pub fn tuned_cluster() -> [RaftRs<Lean>; SERVERS] {
    servers(Lean::new, true)
}

fn servers<S: Disk>(storage: fn(ConfState) -> S, batch_append: bool) -> [RaftRs<S>; SERVERS] {
    let voters: Vec<u64> = (1..=SERVERS as u64).collect();
    let state = ConfState::from((voters.clone(), vec![]));
    std::array::from_fn(|place| {
        let config = Config {
            id: voters[place],
            // As many bytes in an append, and the same guards against disturbed elections.
            max_size_per_msg: 256 << 10,
            check_quorum: true,
            pre_vote: true,
            batch_append,
            ..Config::default()
        };
        let logger = Logger::root(Discard, o!());
        match RawNode::new(&config, storage(state.clone()), &logger) {
            Ok(node) => RaftRs(node),
            Err(error) => panic!("raft-rs does not start: {error}"),
        }
    })
}

impl<S: Disk> Node for RaftRs<S> {
    type Message = Message;

    fn campaign(&mut self) {
        let result = self.0.campaign();
        assert!(result.is_ok(), "no campaign: {result:?}");
    }

    fn is_leader(&self) -> bool {
        self.0.raft.state == StateRole::Leader
    }

    fn propose(&mut self, data: &[u8]) {
        let result = self.0.propose(Vec::new(), data.to_vec());
        assert!(result.is_ok(), "refused: {result:?}");
    }

    fn receive(&mut self, _from: usize, message: Message) {
        let result = self.0.step(message);
        assert!(result.is_ok(), "message refused: {result:?}");
    }

    fn settle(&mut self, out: &mut Outputs<Message>) {
        if !self.0.has_ready() {
            return;
        }
        let mut ready = self.0.ready();
        send(out, ready.take_messages());
        apply(out, &ready.take_committed_entries());
        let entries = ready.take_entries();
        self.0.mut_store().write(entries);
        if let Some(hard) = ready.hs() {
            self.0.mut_store().set_hard(hard.clone());
        }
        send(out, ready.take_persisted_messages());
        let mut light = self.0.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.0.mut_store().set_commit(commit);
        }
        send(out, light.take_messages());
        apply(out, &light.take_committed_entries());
        self.0.advance_apply();
        let applied = self.0.raft.raft_log.applied();
        self.0.mut_store().applied(applied);
    }
}

fn send(out: &mut Outputs<Message>, messages: Vec<Message>) {
    for message in messages {
        out.send(message.to as usize - 1, message);
    }
}

/// The no-op that opens a term is empty, and not the client's.
fn apply(out: &mut Outputs<Message>, entries: &[Entry]) {
    for entry in entries.iter().filter(|e| !e.data.is_empty()) {
        out.apply(&entry.data);
    }
}

/// A storage that can be written to.
pub trait Disk: Storage {
    /// Contiguous entries; whatever is there from the first one's index on is replaced.
    fn write(&mut self, entries: Vec<Entry>);
    fn set_hard(&mut self, hard: HardState);
    fn set_commit(&mut self, commit: u64);
    /// Everything up to here is applied: what is beyond what is kept may be dropped.
    fn applied(&mut self, index: u64);
}

/// The first entry to be kept, if there are twice as many applied ones as are kept.
fn first_kept(first: u64, applied: u64) -> Option<u64> {
    let kept = KEPT as u64;
    (applied >= first + 2 * kept).then(|| applied - kept)
}

impl Disk for MemStorage {
    fn write(&mut self, entries: Vec<Entry>) {
        let result = self.wl().append(&entries);
        assert!(result.is_ok(), "memory takes every entry: {result:?}");
    }

    fn set_hard(&mut self, hard: HardState) {
        self.wl().set_hardstate(hard);
    }

    fn set_commit(&mut self, commit: u64) {
        self.wl().mut_hard_state().set_commit(commit);
    }

    fn applied(&mut self, index: u64) {
        let first = self.first_index().unwrap_or(u64::MAX);
        if let Some(first) = first_kept(first, index) {
            let result = self.wl().compact(first);
            assert!(result.is_ok(), "applied entries can be dropped: {result:?}");
        }
    }
}

/// Entries in a vector of which one server is the only user.
pub struct Lean {
    /// Index of the first entry.
    first: u64,
    entries: Vec<Entry>,
    state: RaftState,
}

impl Lean {
    fn new(members: ConfState) -> Lean {
        Lean {
            first: 1,
            entries: Vec::new(),
            state: RaftState::new(HardState::default(), members),
        }
    }
}

impl Disk for Lean {
    fn write(&mut self, mut entries: Vec<Entry>) {
        let Some(first) = entries.first() else {
            return;
        };
        let kept = (first.index - self.first) as usize;
        assert!(kept <= self.entries.len(), "a write leaves a gap");
        self.entries.truncate(kept);
        self.entries.append(&mut entries);
    }

    fn set_hard(&mut self, hard: HardState) {
        self.state.hard_state = hard;
    }

    fn set_commit(&mut self, commit: u64) {
        self.state.hard_state.commit = commit;
    }

    fn applied(&mut self, index: u64) {
        if let Some(first) = first_kept(self.first, index) {
            self.entries.drain(..(first - self.first) as usize);
            self.first = first;
        }
    }
}

impl Storage for Lean {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.state.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let Some(low) = low.checked_sub(self.first) else {
            return Err(Error::Store(StorageError::Compacted));
        };
        let range = low as usize..(high - self.first) as usize;
        let mut entries = self.entries[range].to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let Some(place) = index.checked_sub(self.first) else {
            return match index {
                0 => Ok(0),
                _ => Err(Error::Store(StorageError::Compacted)),
            };
        };
        let entry = self.entries.get(place as usize);
        entry.map_or(Err(Error::Store(StorageError::Unavailable)), |e| Ok(e.term))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.first + self.entries.len() as u64 - 1)
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
