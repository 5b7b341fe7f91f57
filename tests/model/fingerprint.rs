//! One number for a world, the same for worlds from which the same can happen. Two different
//! worlds share one by an accident of 64 bits: among ten million worlds, once in a few hundred
//! thousand searches.

use std::hash::{DefaultHasher, Hash, Hasher};

use raftkeel::core::{Message, NodeId, Sink, Term};

use crate::world::{Node, World};

/// What a server or a message is, with the numbers of appends apart: in a world only their order
/// matters.
#[derive(Clone, Default)]
pub struct Words {
    plain: u64,
    sequences: Vec<(Term, u64)>,
}

struct Collector {
    plain: DefaultHasher,
    sequences: Vec<(Term, u64)>,
}

impl Sink for Collector {
    fn word(&mut self, word: u64) {
        self.plain.write_u64(word);
    }

    fn sequence(&mut self, term: Term, seq: u64) {
        self.plain.write_u64(term);
        self.sequences.push((term, seq));
    }
}

impl Collector {
    fn new() -> Collector {
        Collector {
            plain: DefaultHasher::new(),
            sequences: Vec::new(),
        }
    }

    fn finish(self) -> Words {
        Words {
            plain: self.plain.finish(),
            sequences: self.sequences,
        }
    }
}

impl Words {
    pub fn of_node(node: &Node) -> Words {
        let mut collector = Collector::new();
        node.raft.digest(&mut collector);
        node.disk.hard.hash(&mut collector.plain);
        node.disk.entries.hash(&mut collector.plain);
        node.disk.lost.hash(&mut collector.plain);
        for write in &node.writes {
            write.hard.hash(&mut collector.plain);
            write.entries.hash(&mut collector.plain);
        }
        collector.finish()
    }

    pub fn of_message(from: NodeId, to: NodeId, message: &Message) -> Words {
        let mut collector = Collector::new();
        (from, to).hash(&mut collector.plain);
        message.digest(&mut collector);
        collector.finish()
    }

    fn hash(&self, known: &[(Term, u64)], hasher: &mut DefaultHasher) {
        hasher.write_u64(self.plain);
        for sequence in &self.sequences {
            let place = known.binary_search(sequence).map_or(0, |place| place + 1);
            hasher.write_u64(place as u64);
        }
    }
}

/// The number of a world.
pub fn fingerprint(world: &World) -> u64 {
    let nodes = world.nodes.iter().map(|node| &node.words);
    let messages = world.network.iter().map(|envelope| &envelope.words);
    let all = nodes.clone().chain(messages.clone());
    let mut known: Vec<(Term, u64)> = all.flat_map(|words| words.sequences.clone()).collect();
    known.retain(|(_, seq)| *seq > 0);
    known.sort_unstable();
    known.dedup();
    let mut hasher = DefaultHasher::new();
    (&world.past, world.used).hash(&mut hasher);
    nodes.for_each(|words| words.hash(&known, &mut hasher));
    let number = |words: &Words| {
        let mut hasher = DefaultHasher::new();
        words.hash(&known, &mut hasher);
        hasher.finish()
    };
    // Messages overtake each other, so their order is nothing.
    let mut numbers: Vec<u64> = messages.map(number).collect();
    numbers.sort_unstable();
    numbers.hash(&mut hasher);
    hasher.finish()
}
