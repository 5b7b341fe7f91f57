//! raftkeel's core.

use std::sync::Arc;

use raftkeel::core::{
    Configuration, Entry, Message, Millis, NodeId, Options, Payload, Raft, Restored,
};

use crate::cluster::{KEPT, Node, Outputs, PAYLOAD, SERVERS};

const ELECTION: Millis = 1000;
/// The clock stands still here: every election timeout has run out.
const NOW: Millis = 2 * ELECTION;

/// What an entry weighs besides its payload.
const OVERHEAD: usize = 64;

pub struct Keel(Raft);

pub fn cluster() -> [Keel; SERVERS] {
    let members: Vec<NodeId> = (0..SERVERS).map(id).collect();
    std::array::from_fn(|place| {
        let options = Options {
            election: ELECTION,
            tail_bytes: KEPT * (PAYLOAD + OVERHEAD),
            seed: place as u64,
            run: 1,
            ..Options::new(id(place))
        };
        let mut raft = Raft::new(options, Restored::default(), 0);
        let config = Configuration {
            epoch: 1,
            voters: members.clone(),
            ..Configuration::default()
        };
        let first = Entry {
            index: 1,
            term: 1,
            payload: Payload::Config(Arc::new(config), Raft::no_bytes()),
        };
        assert!(raft.bootstrap(first), "a new server is empty");
        Keel(raft)
    })
}

fn id(place: usize) -> NodeId {
    let Some(id) = NodeId::new(place as u64 + 1) else {
        panic!("identities begin at 1");
    };
    id
}

fn place(id: NodeId) -> usize {
    id.get() as usize - 1
}

impl Node for Keel {
    type Message = Message;

    fn campaign(&mut self) {
        self.0.tick(NOW);
    }

    fn is_leader(&self) -> bool {
        self.0.is_leader()
    }

    fn propose(&mut self, data: &[u8]) {
        let result = self.0.propose(NOW, Payload::Host(data.into()));
        assert!(result.is_ok(), "refused: {result:?}");
    }

    fn receive(&mut self, from: usize, message: Message) {
        self.0.receive(NOW, id(from), message);
    }

    fn settle(&mut self, out: &mut Outputs<Message>) {
        while let Some(persist) = self.0.take_persist() {
            self.0.persisted(persist.token, true);
        }
        for (to, message) in self.0.take_messages() {
            out.send(place(to), message);
        }
        for entry in self.0.take_committed(usize::MAX).iter() {
            if let Payload::Host(data) = &entry.payload {
                out.apply(data);
            }
        }
    }
}
