//! Members, the network between them, and what their hosts were told.

use std::collections::BTreeMap;
use std::sync::Arc;

use raftkeel::cluster::{Params, Peer};
use raftkeel::core::{Epoch, Index, Millis, NodeId, Term};
use raftkeel::detector::NodeState;
use raftkeel::engine::{
    Error, Event, Guard, Handle, Host, HostState, Input, Load, MESSAGE_DEFAULT, MESSAGE_REST,
    Member, Place, Request, Role, Save, Settings, Ticket,
};

use crate::slow::SlowStore;

/// What one host was told, and what it answers.
pub struct Told {
    outbox: Vec<(NodeId, Vec<u8>)>,
    pub longest: usize,
    pub applied: Vec<(Index, Vec<u8>)>,
    pub done: Vec<(Ticket, Result<Index, Error>)>,
    pub excluded: Vec<(Epoch, Vec<NodeId>, Index)>,
    pub fenced: bool,
    pub guard: Guard,
    pub params: Option<Params>,
    pub stopped: Option<Error>,
    pub events: Vec<Event>,
    /// It can neither write nor load snapshots.
    pub broken: bool,
    /// It goes on writing after it was asked to.
    pub slow: bool,
    /// Snapshots that it is writing.
    pub saves: Vec<Save>,
    /// Indexes of the snapshots that it has loaded.
    pub loaded: Vec<Index>,
    /// It goes on loading after it was asked to.
    pub loads: Option<Vec<Load>>,
    /// What happens elsewhere while it applies the next entry, which takes its time.
    pub meanwhile: Option<Box<dyn FnOnce()>>,
}

/// A host's state as bytes: all that it was told to apply.
fn written(applied: &[(Index, Vec<u8>)]) -> Vec<u8> {
    let mut image = Vec::new();
    for (index, data) in applied {
        image.extend_from_slice(&index.to_le_bytes());
        image.extend_from_slice(&(data.len() as u64).to_le_bytes());
        image.extend_from_slice(data);
    }
    image
}

fn read(mut image: &[u8]) -> Vec<(Index, Vec<u8>)> {
    let mut applied = Vec::new();
    while !image.is_empty() {
        let (head, rest) = image.split_at(16);
        let index = Index::from_le_bytes(head[..8].try_into().unwrap());
        let len = u64::from_le_bytes(head[8..].try_into().unwrap());
        let (data, rest) = rest.split_at(len as usize);
        applied.push((index, data.to_vec()));
        image = rest;
    }
    applied
}

impl Host for Told {
    fn apply(&mut self, index: Index, _term: Term, data: &[u8]) -> Result<(), i32> {
        self.applied.push((index, data.to_vec()));
        if let Some(happens) = self.meanwhile.take() {
            happens();
        }
        Ok(())
    }
    fn save(&mut self, mut save: Save, _index: Index) {
        save.write(&written(&self.applied)).unwrap();
        if self.slow {
            self.saves.push(save);
        } else {
            save.finish(!self.broken);
        }
    }
    fn load(&mut self, mut load: Load, index: Index) {
        if let Some(loads) = &mut self.loads {
            return loads.push(load);
        }
        let mut image = Vec::new();
        let mut piece = [0; 1000];
        while let n @ 1.. = load.read(&mut piece).unwrap() {
            image.extend_from_slice(&piece[..n]);
        }
        if self.broken {
            return load.finish(false);
        }
        self.applied = read(&image);
        self.loaded.push(index);
        load.finish(true);
    }
    fn send(&mut self, to: NodeId, bytes: &[u8]) {
        self.longest = self.longest.max(bytes.len());
        self.outbox.push((to, bytes.to_vec()));
    }
    fn done(&mut self, ticket: Ticket, result: Result<Index, Error>) {
        self.done.push((ticket, result));
    }
    fn role(&mut self, _role: Role, _term: Term, _leader: Option<NodeId>) {}
    fn node(&mut self, _id: NodeId, _state: NodeState, _old: NodeState, _silent: Millis) {}
    fn excluded(&mut self, epoch: Epoch, ids: &[NodeId], index: Index) {
        self.excluded.push((epoch, ids.to_vec(), index));
    }
    fn members(&mut self, _epoch: Epoch, _index: Index) {}
    fn params(&mut self, params: &Params) {
        self.params = Some(params.clone());
    }
    fn fence(&mut self, fenced: bool, _why: &str) {
        self.fenced = fenced;
    }
    fn event(&mut self, event: &Event) {
        self.events.push(event.clone());
    }
    fn guard(&mut self, _ids: &[NodeId]) -> Guard {
        self.guard.clone()
    }
    fn log(&mut self, _level: i32, _text: &str) {}
    fn stopped(&mut self, why: &Error) {
        self.stopped = Some(why.clone());
    }
}

pub struct Node {
    pub member: Member,
    pub handle: Handle,
    pub told: Told,
    due: Millis,
    /// Not driven, and nothing reaches it.
    pub down: bool,
    /// Where it stores, if writes are to take their time.
    store: Option<Arc<SlowStore>>,
}

pub struct Cluster {
    pub nodes: BTreeMap<u64, Node>,
    pub now: Millis,
    /// Links that carry nothing, from and to.
    pub cut: Vec<(u64, u64)>,
    tickets: u64,
}

pub fn id(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

pub fn peer(raw: u64) -> Peer {
    Peer {
        id: id(raw),
        address: format!("host{raw}:7000"),
        meta: Vec::new().into(),
    }
}

pub fn settings(raw: u64) -> Settings {
    Settings {
        election: 1000,
        host_state: HostState::Saved,
        ..Settings::new(id(raw), 77, 1000 + raw)
    }
}

/// `life` counts how often its storage was made anew.
fn node(raw: u64, message_max: usize, life: u64) -> Node {
    node_with(Settings {
        seed: 1000 * (life + 1) + raw,
        message_max,
        entry_max: message_max - MESSAGE_REST,
        ..settings(raw)
    })
}

fn node_with(settings: Settings) -> Node {
    node_at(settings, Place::Volatile)
}

fn node_at(settings: Settings, place: Place) -> Node {
    let (member, handle) = Member::new(settings, place).unwrap();
    Node {
        member,
        handle,
        told: Told {
            outbox: Vec::new(),
            longest: 0,
            applied: Vec::new(),
            done: Vec::new(),
            excluded: Vec::new(),
            fenced: false,
            guard: Guard::Allow,
            params: None,
            stopped: None,
            events: Vec::new(),
            broken: false,
            slow: false,
            saves: Vec::new(),
            loaded: Vec::new(),
            loads: None,
            meanwhile: None,
        },
        due: 0,
        down: false,
        store: None,
    }
}

impl Cluster {
    pub fn new(count: u64) -> Cluster {
        Cluster::with(count, MESSAGE_DEFAULT)
    }

    /// Over a transport that carries no larger messages.
    pub fn with(count: u64, message_max: usize) -> Cluster {
        let small = |settings| Settings {
            message_max,
            entry_max: message_max - MESSAGE_REST,
            ..settings
        };
        Cluster::of(count, small)
    }

    /// Members whose settings `change` has changed.
    pub fn of(count: u64, change: impl Fn(Settings) -> Settings) -> Cluster {
        let peers: Vec<Peer> = (1..=count).map(peer).collect();
        let mut nodes = BTreeMap::new();
        for raw in 1..=count {
            let mut node = node_with(change(settings(raw)));
            node.member.bootstrap(&peers).unwrap();
            nodes.insert(raw, node);
        }
        Cluster {
            nodes,
            now: 1_000_000,
            cut: Vec::new(),
            tickets: 0,
        }
    }

    /// Members that store in these, one each.
    pub fn on_stores(stores: &[Arc<SlowStore>], settings: impl Fn(u64) -> Settings) -> Cluster {
        let mut cluster = Cluster::of(0, |settings| settings);
        let peers: Vec<Peer> = (1..=stores.len() as u64).map(peer).collect();
        for (store, raw) in stores.iter().zip(1..) {
            let place = Place::Host {
                store: store.clone(),
                create: true,
            };
            let mut node = node_at(settings(raw), place);
            node.member.bootstrap(&peers).unwrap();
            node.store = Some(store.clone());
            cluster.nodes.insert(raw, node);
        }
        cluster
    }

    /// A node that waits to be added.
    pub fn join(&mut self, raw: u64) {
        self.join_with(settings(raw));
    }

    /// The same, with other settings.
    pub fn join_with(&mut self, settings: Settings) {
        self.nodes.insert(settings.id.get(), node_with(settings));
    }

    /// A node is opened in the place of the one of its id; a new one is bootstrapped.
    pub fn open(&mut self, settings: Settings, path: &std::path::Path, create: bool) {
        let raw = settings.id.get();
        let peers: Vec<Peer> = self.nodes.keys().map(|raw| peer(*raw)).collect();
        self.nodes.remove(&raw);
        let path = path.to_owned();
        let mut new = node_at(settings, Place::Directory { path, create });
        if create {
            new.member.bootstrap(&peers).unwrap();
        }
        self.nodes.insert(raw, new);
    }

    /// A node's storage is made anew, and perhaps bootstrapped once more.
    pub fn wipe(&mut self, raw: u64, bootstrapped: bool) {
        let peers: Vec<Peer> = self.nodes.keys().map(|raw| peer(*raw)).collect();
        let mut new = node(raw, MESSAGE_DEFAULT, 1);
        if bootstrapped {
            new.member.bootstrap(&peers).unwrap();
        }
        self.nodes.insert(raw, new);
    }

    /// The host of a node hears another one.
    pub fn hear(&mut self, by: u64, raw: u64) {
        let heard = Input::Heard(id(raw));
        self.nodes[&by].handle.submit(heard).unwrap();
    }

    pub fn run(&mut self, span: Millis) {
        let end = self.now + span;
        self.run_until(end, |_| false);
    }

    /// Runs until `done` or the end of `span`; whether it was done.
    pub fn wait(&mut self, span: Millis, done: impl Fn(&Cluster) -> bool) -> bool {
        let end = self.now + span;
        self.run_until(end, done)
    }

    fn run_until(&mut self, end: Millis, done: impl Fn(&Cluster) -> bool) -> bool {
        while self.now < end {
            self.now += 5;
            self.deliver();
            let now = self.now;
            for node in self.nodes.values_mut().filter(|n| !n.down) {
                for number in node.store.iter().flat_map(|store| store.ended(now)) {
                    node.handle.write_done(number, Ok(())).unwrap();
                }
                node.due = node.member.step(now, &mut node.told).unwrap();
                assert!(node.due >= now);
            }
            if done(self) {
                return true;
            }
        }
        false
    }

    /// One driving call of one node at a time of its own; what it sends, and to whom.
    pub fn drive(&mut self, raw: u64, now: Millis) -> Vec<(u64, Vec<u8>)> {
        let node = self.nodes.get_mut(&raw).unwrap();
        node.due = node.member.step(now, &mut node.told).unwrap();
        let sent = std::mem::take(&mut node.told.outbox);
        sent.into_iter().map(|(to, b)| (to.get(), b)).collect()
    }

    fn deliver(&mut self) {
        let mut packets = Vec::new();
        for (from, node) in &mut self.nodes {
            let sent = std::mem::take(&mut node.told.outbox);
            packets.extend(sent.into_iter().map(|(to, bytes)| (*from, to.get(), bytes)));
        }
        for (from, to, bytes) in packets {
            if self.cut.contains(&(from, to)) {
                continue;
            }
            if let Some(node) = self.nodes.get_mut(&to).filter(|n| !n.down) {
                node.handle.receive(Some(id(from)), &bytes).unwrap();
            }
        }
    }

    pub fn leader(&self) -> Option<u64> {
        let leads = |n: &Node| !n.down && n.handle.view(|v| v.info.role == Role::Leader);
        self.nodes
            .iter()
            .find(|(_, n)| leads(n))
            .map(|(raw, _)| *raw)
    }

    pub fn elect(&mut self) -> u64 {
        assert!(self.wait(10_000, |c| c.leader().is_some()), "no leader");
        self.run(3_000);
        self.leader().unwrap()
    }

    /// Asks a node and waits for the completion.
    pub fn ask(&mut self, raw: u64, request: Request) -> Result<Index, Error> {
        self.ask_together(raw, vec![request]).remove(0)
    }

    /// Asks a node for several things before it is driven again.
    pub fn ask_together(&mut self, raw: u64, requests: Vec<Request>) -> Vec<Result<Index, Error>> {
        let submit = |request| {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            let node = &self.nodes[&raw];
            node.handle.submit(Input::Request(ticket, request)).unwrap();
            ticket
        };
        let tickets: Vec<Ticket> = requests.into_iter().map(submit).collect();
        let results = tickets.into_iter().map(|t| self.completion(raw, t));
        results.collect()
    }

    fn completion(&mut self, raw: u64, ticket: Ticket) -> Result<Index, Error> {
        let finished = |c: &Cluster| c.nodes[&raw].told.done.iter().any(|(t, _)| *t == ticket);
        assert!(self.wait(20_000, finished), "no completion");
        let done = &self.nodes[&raw].told.done;
        let mut mine = done.iter().filter(|(t, _)| *t == ticket);
        let result = mine.next().unwrap().1.clone();
        assert!(mine.next().is_none(), "completed twice");
        result
    }

    pub fn role(&self, raw: u64) -> Role {
        self.nodes[&raw].handle.view(|v| v.info.role)
    }

    pub fn state(&self, seen_by: u64, of: u64) -> NodeState {
        let view =
            |v: &raftkeel::engine::View| v.nodes.iter().find(|n| n.id == id(of)).unwrap().state;
        self.nodes[&seen_by].handle.view(view)
    }

    pub fn cut_off(&mut self, raw: u64) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|o| *o != raw).collect();
        for other in others {
            self.cut.extend([(raw, other), (other, raw)]);
        }
    }
}

pub fn deadtime(seconds: u32) -> Request {
    Request::SetParams(Params {
        hb_deadtime: seconds * 1000,
        ..Params::default()
    })
}
