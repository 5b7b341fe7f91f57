//! A disk without room for the log, or no memory to write it with: hard state is written all the same,
//! entries wait, and everything goes on when there is room again (raft.md rule 29).

use std::io::ErrorKind;

use crate::core::{Millis, NodeId, Persist, Token, agreed};
use crate::storage::{Completion, Room, StorageError};
use crate::wire::NO_ROOM;

use super::Error;
use super::engine::Engine;

/// How often it is tried to find room.
const RETRY: Millis = 1000;

/// Whether there is no room, and why.
#[derive(Debug, Default)]
pub(super) struct Full {
    why: Option<Error>,
    /// What waited is written with this, so that there is room again when it is durable.
    tried: Option<Token>,
    /// When it is tried again.
    retry_at: Millis,
    /// A log that is to be dropped may be tried once more.
    tries_reset: bool,
}

impl Engine {
    /// What is written next, as far as there is room.
    pub(super) fn next_persist(&mut self) -> Option<Persist> {
        match self.storage.room() {
            Room::All => {
                let persist = self.raft.take_persist();
                if let Some(persist) = persist.as_ref().filter(|_| self.is_full()) {
                    self.full.tried.get_or_insert(persist.token);
                }
                persist
            }
            Room::Hard if self.full.tries_reset && self.raft.has_reset() => {
                self.full.tries_reset = false;
                self.raft.take_persist()
            }
            Room::Hard => self.raft.take_hard(),
            Room::None => None,
        }
    }

    /// A write has come to its end.
    pub(super) fn completed(&mut self, completion: Completion) {
        let Completion { token, result } = completion;
        match result {
            Ok(()) => {
                self.raft.persisted(token, true);
                // Not with what says only that the hard state is durable, and was under way before.
                if self.full.tried.is_some_and(|tried| tried <= token) {
                    self.end_full();
                }
            }
            Err(error @ StorageError::Full { .. }) => {
                self.raft.held_back(token);
                self.full.tried = None;
                self.begin_full(&error);
            }
            Err(error) => {
                self.raft.persisted(token, false);
                self.stop(error.into());
            }
        }
    }

    fn begin_full(&mut self, error: &StorageError) {
        if self.full.why.is_some() {
            return;
        }
        let why = error.to_string();
        self.log(
            1,
            format!("the log cannot be written on, and is not until there is room: {why}"),
        );
        let memory = match error {
            StorageError::Full { error, .. } => error.kind() == ErrorKind::OutOfMemory,
            _ => false,
        };
        self.full = Full {
            why: Some(match memory {
                true => Error::NoMemory(why),
                false => Error::NoSpace(why),
            }),
            tried: None,
            retry_at: self.now + RETRY,
            tries_reset: false,
        };
        self.raft.set_full(true);
    }

    fn end_full(&mut self) {
        if self.full.why.take().is_some() {
            self.full.tried = None;
            self.raft.set_full(false);
            self.log(2, "there is room for the log again".to_owned());
        }
    }

    /// Tries to find room, if it is time.
    pub(super) fn make_room(&mut self) {
        if self.full.why.is_some() && self.now >= self.full.retry_at {
            self.full.retry_at = self.now + RETRY;
            self.full.tries_reset = true;
            self.storage.make_room();
        }
    }

    /// When it is time.
    pub(super) fn room_due(&self) -> Millis {
        match self.is_full() {
            true => self.full.retry_at,
            false => Millis::MAX,
        }
    }

    /// Whether all of the log is durable and committed: nothing of it waits for memory.
    pub(super) fn holds_nothing_back(&self) -> bool {
        let (log, commit) = (self.raft.log(), self.raft.commit());
        log.durable() == log.last_index() && commit == log.last_index()
    }

    /// Whether there is no room for entries.
    pub(super) fn is_full(&self) -> bool {
        self.full.why.is_some()
    }

    /// Whether it is the disk that has none.
    pub(super) fn is_disk_full(&self) -> bool {
        matches!(self.full.why, Some(Error::NoSpace(_)))
    }

    /// Voters that are heard and have no room on their disks, if those that are heard are a majority
    /// with them and none without, and the leader is among them: nothing is committed until there is
    /// room, and a leader that is new confirms nobody. Else none: whom a leader hears that is not heard
    /// itself, nobody knows.
    pub(super) fn short_of_room(&self) -> Vec<NodeId> {
        let says = |id: &NodeId| self.features.get(id).is_some_and(|(_, f)| f & NO_ROOM != 0);
        let me = self.settings.id;
        let full = |id: &NodeId| says(id) || *id == me && self.is_disk_full();
        let config = self.raft.configuration();
        let mut ids: Vec<NodeId> = config.members().filter(full).collect();
        ids.retain(|id| config.is_voter(*id) && self.has_heard(*id));
        let heard = |id| self.has_heard(id);
        let led = self.raft.is_leader() || self.raft.leader().is_some_and(heard);
        let needed = led
            && !ids.is_empty()
            && agreed(config, heard)
            && !agreed(config, |id| heard(id) && !ids.contains(&id));
        if needed { ids } else { Vec::new() }
    }

    /// The same in plain words; `None` if there is no such lack.
    pub(super) fn lack_of_room(&self) -> Option<String> {
        let ids: Vec<String> = self.short_of_room().iter().map(NodeId::to_string).collect();
        (!ids.is_empty()).then(|| {
            format!(
                "no room for the log on the disk of {}: without that no majority stores anything, so \
                 that nothing is committed and no new leader is confirmed until there is",
                ids.join(", ")
            )
        })
    }

    /// What proposals are refused with for it.
    pub(super) fn why_full(&self) -> Error {
        let unknown = || Error::NoSpace(String::new());
        self.full.why.clone().unwrap_or_else(unknown)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, VecDeque};
    use std::sync::Arc;

    use super::*;
    use crate::cluster::{Params, Peer, bootstrap_entry};
    use crate::core::{Exclusion, Index};
    use crate::engine::action::Action;
    use crate::engine::shared::{Refused, Shared};
    use crate::engine::{Info, Input, Request, Settings, Ticket, View};
    use crate::storage::{Memory, Opened};
    use crate::wire::decode;

    /// A voter alone, and the storage that it keeps everything in.
    pub(in crate::engine) fn alone() -> (Engine, Memory) {
        let id = NodeId::new(1).unwrap();
        one_of(Settings::new(id, 7, 1), &[id])
    }

    /// The same among several.
    fn one_of(settings: Settings, ids: &[NodeId]) -> (Engine, Memory) {
        let id = settings.id;
        let opened = Opened {
            restored: Default::default(),
            incarnation: 1,
            instance: id.get(),
            torn_bytes: 0,
            meta_repaired: false,
            lost: None,
            damaged: Vec::new(),
        };
        let memory = Memory::new();
        let shared = Arc::new(Shared::new(id, 7, 1000, None));
        let storage = Box::new(memory.clone());
        let peer = |id: &NodeId| Peer {
            id: *id,
            address: String::new(),
            meta: Vec::new().into(),
        };
        let peers: Vec<Peer> = ids.iter().map(peer).collect();
        let entry = bootstrap_entry(&peers, &settings.params).unwrap();
        let mut engine = Engine::new(settings, opened, storage, shared).unwrap();
        engine.bootstrap(entry).unwrap();
        (engine, memory)
    }

    /// One driving call; what was completed, and what was logged at levels 1 and 2.
    fn drive(
        engine: &mut Engine,
        now: Millis,
        proposals: u64,
    ) -> (Vec<Result<Index, Error>>, Vec<String>) {
        let propose = |n| Input::Request(Ticket(n), Request::Propose(b"x"[..].into()));
        let mut inputs: VecDeque<Input> = (0..proposals).map(propose).collect();
        engine.begin(now);
        engine.round(&mut inputs);
        engine.next_deadline(false);
        let (mut done, mut said) = (Vec::new(), Vec::new());
        for action in std::mem::take(&mut engine.actions) {
            match action {
                Action::Done { result, .. } => done.push(result),
                Action::Log { level: 1 | 2, text } => said.push(text),
                _ => {}
            }
        }
        (done, said)
    }

    #[test]
    fn everything_goes_on_when_there_is_room_again() {
        let (mut engine, memory) = alone();
        let mut now = 0;
        while !engine.raft.is_leader() {
            now += 100;
            drive(&mut engine, now, 0);
        }
        let (done, _) = drive(&mut engine, now, 3);
        assert!(done.len() == 3 && done.iter().all(Result::is_ok));
        memory.fill(true);
        let (done, said) = drive(&mut engine, now, 3);
        assert_eq!((done.len(), said.len()), (0, 1), "they wait: {said:?}");
        assert!(engine.is_full());
        for _ in 0..30 {
            now += 100;
            let (done, said) = drive(&mut engine, now, 1);
            assert!(matches!(done[..], [Err(Error::NoSpace(_))]), "{done:?}");
            assert!(said.is_empty(), "it is said once: {said:?}");
            assert!(engine.raft.is_leader() && engine.stopped.is_none());
        }
        memory.fill(false);
        let due = engine.next_deadline(false);
        assert!(due <= now + RETRY);
        let mut told = Vec::new();
        let mut completed = Vec::new();
        while engine.is_full() {
            now += 100;
            let (done, said) = drive(&mut engine, now, 0);
            completed.extend(done);
            told.extend(said);
        }
        assert!(completed.len() == 3 && completed.iter().all(Result::is_ok));
        assert_eq!(told.len(), 1, "{told:?}");
        let (done, _) = drive(&mut engine, now, 2);
        assert!(done.len() == 2 && done.iter().all(Result::is_ok));
    }

    /// Voters that hear each other, and what they store in.
    struct Cluster {
        engines: BTreeMap<NodeId, (Engine, Memory)>,
        now: Millis,
        packets: Vec<(NodeId, Vec<u8>)>,
        /// From whom nothing comes to whom.
        cut: Vec<(NodeId, NodeId)>,
        /// Who was told why it must not serve, in order.
        fenced: Vec<(NodeId, String)>,
    }

    impl Cluster {
        fn new(size: u64) -> Cluster {
            let params = Params {
                hb_deadtime: 20_000,
                ..Params::default()
            };
            let ids: Vec<NodeId> = (1..=size).filter_map(NodeId::new).collect();
            let mut engines = BTreeMap::new();
            for id in &ids {
                let settings = Settings {
                    params: params.clone(),
                    ..Settings::new(*id, 7, id.get())
                };
                engines.insert(*id, one_of(settings, &ids));
            }
            Cluster {
                engines,
                now: 0,
                packets: Vec::new(),
                cut: Vec::new(),
                fenced: Vec::new(),
            }
        }

        fn run(&mut self, span: Millis) {
            let end = self.now + span;
            while self.now < end {
                self.now += 20;
                let packets = std::mem::take(&mut self.packets);
                for (id, (engine, _)) in &mut self.engines {
                    let mine = packets.iter().filter(|(to, _)| to == id);
                    let packet = |(_, bytes): &(_, Vec<u8>)| decode(bytes).unwrap();
                    let mut inputs: VecDeque<Input> =
                        mine.map(|p| Input::Packet(packet(p))).collect();
                    engine.begin(self.now);
                    engine.round(&mut inputs);
                    engine.conclude();
                    engine.next_deadline(false);
                    for action in std::mem::take(&mut engine.actions) {
                        match action {
                            Action::Send { to, .. } if self.cut.contains(&(*id, to)) => {}
                            Action::Send { to, bytes } => self.packets.push((to, bytes)),
                            Action::Fence { fenced: true, why } => self.fenced.push((*id, why)),
                            _ => {}
                        }
                    }
                }
            }
        }

        fn leader(&self) -> NodeId {
            let mut leaders = self.engines.iter().filter(|(_, e)| e.0.raft.is_leader());
            *leaders.next().unwrap().0
        }

        fn info(&self, id: NodeId) -> Info {
            let mut view = View::default();
            self.engines[&id].0.publish(&mut view, Refused::default());
            view.info
        }
    }

    /// Whoever leads after the leader has died needs the one whose disk is full.
    #[test]
    fn who_is_fenced_for_a_full_disk_is_told_whose() {
        let mut c = Cluster::new(3);
        c.run(10_000);
        let leader = c.leader();
        assert!(c.engines.keys().all(|id| !c.info(*id).fenced));
        c.engines.remove(&leader);
        let full = *c.engines.keys().next().unwrap();
        c.engines[&full].1.fill(true);
        c.fenced.clear();
        c.run(30_000);
        assert_eq!(c.fenced.len(), 2, "{:?}", c.fenced);
        let said = format!("no room for the log on the disk of {full}:");
        for (id, why) in &c.fenced {
            assert!(why.starts_with(&said), "{id} says {why}");
        }
        for id in c.engines.keys() {
            let info = c.info(*id);
            assert!(info.fenced && !info.has_quorum && info.voters_heard == 2);
            assert!(info.notice.starts_with(&said), "{}", info.notice);
            assert_eq!(info.fenced_why, "too few disks have room for the log");
            assert_eq!(info.full, *id == full);
        }
        c.engines[&full].1.fill(false);
        c.run(5_000);
        for id in c.engines.keys() {
            let info = c.info(*id);
            assert!(!info.fenced && info.has_quorum);
            assert!(!info.notice.contains("room"), "{}", info.notice);
        }
    }

    /// It hears no majority without a node whose disk is full. The leader does, and commits.
    #[test]
    fn who_does_not_hear_the_leader_accuses_no_disk() {
        let mut c = Cluster::new(5);
        c.run(10_000);
        let leader = c.leader();
        let others = c.engines.keys().copied().filter(|id| *id != leader);
        let others: Vec<NodeId> = others.collect();
        let (full, lonely) = (others[0], others[1]);
        c.engines[&full].1.fill(true);
        let propose = Request::Propose(b"x"[..].into());
        let mut inputs: VecDeque<Input> = [Input::Request(Ticket(1), propose)].into();
        let now = c.now + 1;
        let (engine, _) = c.engines.get_mut(&leader).unwrap();
        engine.begin(now);
        engine.round(&mut inputs);
        c.now += 20;
        c.run(3_000);
        assert!(c.info(full).full);
        for other in [leader, others[3]] {
            c.cut.extend([(lonely, other), (other, lonely)]);
        }
        c.run(20_000);
        let led = c.info(leader);
        assert!(led.has_quorum && led.commit == led.last_index && !led.fenced);
        let notice = c.info(lonely).notice;
        assert!(!notice.contains("no room"), "{notice}");
    }

    #[test]
    fn a_first_entry_without_room_is_no_success() {
        let (mut engine, _) = alone();
        let entry = engine.raft.log().get(1).unwrap().clone();
        let memory = Memory::new();
        memory.fill(true);
        engine.raft = crate::core::Raft::new(
            crate::core::Options::new(NodeId::new(1).unwrap()),
            Default::default(),
            0,
        );
        engine.storage = Box::new(memory.clone());
        let refused = engine.bootstrap(entry);
        assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
        assert!(memory.durable().entries.is_empty());
    }

    #[test]
    fn hard_state_that_was_under_way_says_nothing_of_room() {
        let (mut engine, memory) = alone();
        let mut now = 0;
        while !engine.raft.is_leader() {
            now += 100;
            drive(&mut engine, now, 0);
        }
        memory.fill(true);
        drive(&mut engine, now, 2);
        assert!(engine.is_full());
        memory.hold(true);
        engine.raft.note_exclusion(Exclusion { epoch: 9, index: 1 });
        drive(&mut engine, now, 0);
        assert_eq!(memory.waiting().len(), 1);
        memory.fill(false);
        assert!(memory.complete_next(true));
        engine.storage.make_room();
        assert_eq!(engine.storage.room(), Room::All);
        let of_room = |(_, said): (Vec<_>, Vec<String>)| {
            said.iter().filter(|text| text.contains("room")).count()
        };
        assert_eq!(of_room(drive(&mut engine, now, 0)), 0);
        assert!(engine.is_full(), "what waited is on its way");
        assert!(memory.complete_next(true));
        assert_eq!(of_room(drive(&mut engine, now, 0)), 1);
        assert!(!engine.is_full());
    }

    #[test]
    fn what_was_under_way_waits_as_well() {
        let (mut engine, memory) = alone();
        let mut now = 0;
        while !engine.raft.is_leader() {
            now += 100;
            drive(&mut engine, now, 0);
        }
        memory.hold(true);
        for _ in 0..3 {
            drive(&mut engine, now, 2);
        }
        assert_eq!(memory.waiting().len(), 3);
        memory.fill(true);
        while memory.complete_next(true) {}
        let (done, said) = drive(&mut engine, now, 0);
        assert_eq!((done.len(), said.len()), (0, 1));
        memory.hold(false);
        memory.fill(false);
        let mut completed = Vec::new();
        while completed.len() < 6 {
            now += 100;
            assert!(now < 100_000, "they never end");
            completed.extend(drive(&mut engine, now, 0).0);
        }
        assert!(completed.iter().all(Result::is_ok));
        assert_eq!(
            memory.durable().entries.len() as u64,
            engine.raft.log().last_index()
        );
    }
}
