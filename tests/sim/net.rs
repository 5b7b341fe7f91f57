//! The network between the nodes: what it does to a packet, and which links are cut.

use crate::dice::{Dice, Ppm};
use crate::marks::Fault::{self, *};
use crate::queue::Micros;

/// Most nodes of a cluster.
pub const MAX_NODES: usize = 7;
/// Packets that are kept to come again long after.
const ARCHIVE: usize = 48;
/// Packets that wait for the end of a cut.
const HELD: usize = 256;

/// What the network is like, from the seed.
#[derive(Clone, Debug)]
pub struct Nature {
    /// Every link has a latency between these.
    pub latency: (Micros, Micros),
    /// And every packet is up to this much later.
    pub jitter: Micros,
    pub lost: Ppm,
    pub doubled: Ppm,
    /// Some packets are late by up to `late_by`.
    pub late: Ppm,
    pub late_by: Micros,
    /// Packets of one link arrive in their order, like those of one connection.
    pub ordered: bool,
    /// What is sent over a cut link comes when the cut ends, as if a connection had survived it.
    pub holds: bool,
    /// Kept to come again, when everything is different.
    pub archived: Ppm,
}

/// Which links are left.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// One link, one way.
    OneWay,
    /// One link, both ways.
    Link,
    /// One node from all others.
    Isolated,
    /// One node hears nobody.
    Deaf,
    /// One node is heard by nobody.
    Mute,
    /// Two sides.
    Halves,
    /// Two sides that only one node hears and reaches both of.
    Bridge,
    /// All talk to one, and nobody to another.
    Hub,
    /// Everybody talks to two neighbours.
    Chain,
    /// A clique, and nodes that each talk to one of it.
    Cliques,
    /// Every link, each way, by a coin.
    Random,
}

pub const SHAPES: [Shape; 11] = [
    Shape::OneWay,
    Shape::Link,
    Shape::Isolated,
    Shape::Deaf,
    Shape::Mute,
    Shape::Halves,
    Shape::Bridge,
    Shape::Hub,
    Shape::Chain,
    Shape::Cliques,
    Shape::Random,
];

/// What cuts a leader off.
pub const CUT_OFFS: [Shape; 4] = [Shape::Isolated, Shape::Deaf, Shape::Mute, Shape::Halves];

/// A packet on a link.
#[derive(Clone)]
pub struct Passing<P> {
    pub from: usize,
    pub to: usize,
    pub packet: P,
}

type Links<T> = [[T; MAX_NODES]; MAX_NODES];

/// The links and what is kept of their traffic.
pub struct Net<P> {
    nature: Nature,
    nodes: usize,
    latency: Links<Micros>,
    cut: Links<bool>,
    cuts: usize,
    /// When the last packet of a link arrives.
    last: Links<Micros>,
    archive: Vec<Passing<P>>,
    held: Vec<Passing<P>>,
}

impl<P: Clone> Net<P> {
    pub fn new(nature: Nature, nodes: usize, dice: &mut Dice) -> Net<P> {
        let mut latency = [[0; MAX_NODES]; MAX_NODES];
        for one in latency.iter_mut().flatten() {
            *one = dice.within(nature.latency.0, nature.latency.1);
        }
        Net {
            nature,
            nodes,
            latency,
            cut: Default::default(),
            cuts: 0,
            last: Default::default(),
            archive: Vec::new(),
            held: Vec::new(),
        }
    }

    /// A packet leaves: what arrives of it, and when, a copy first.
    pub fn pass(
        &mut self,
        now: Micros,
        passing: Passing<P>,
        dice: &mut Dice,
    ) -> impl Iterator<Item = (Micros, Passing<P>)> + use<P> {
        let link = (passing.from, passing.to);
        let (mut copy, mut original) = (None, None);
        if self.is_cut(link.0, link.1) {
            self.stop(passing);
        } else {
            self.archive(&passing, dice);
            let fate = self.send(now, link, dice);
            copy = fate.copy.map(|at| (at, passing.clone()));
            original = fate.original.map(|at| (at, passing));
        }
        copy.into_iter().chain(original)
    }

    /// When a packet arrives, and when a copy of it does.
    fn send(&mut self, now: Micros, link: (usize, usize), dice: &mut Dice) -> Fate {
        let (from, to) = link;
        let nature = &self.nature;
        if dice.chance(nature.lost) {
            PacketLost.hit();
            return Fate::default();
        }
        let mut at = now + self.latency[from][to];
        if nature.jitter > 0 {
            at += dice.below(nature.jitter);
        }
        let mut fate = Fate::default();
        if dice.chance(nature.doubled) {
            PacketDoubled.hit();
            fate.copy = Some(at + dice.below(nature.late_by));
        }
        let last = &mut self.last[from][to];
        if dice.chance(nature.late) {
            PacketLate.hit();
            at += dice.below(nature.late_by);
        } else if nature.ordered {
            at = at.max(*last);
        } else if at < *last {
            PacketOvertook.hit();
        }
        *last = at.max(*last);
        fate.original = Some(at);
        fate
    }

    /// Keeps some packets for later.
    fn archive(&mut self, passing: &Passing<P>, dice: &mut Dice) {
        if !dice.chance(self.nature.archived) {
            return;
        }
        let passing = passing.clone();
        if self.archive.len() < ARCHIVE {
            self.archive.push(passing);
        } else {
            self.archive[dice.below(ARCHIVE as u64) as usize] = passing;
        }
    }

    /// A packet of long ago.
    pub fn remember(&self, dice: &mut Dice) -> Option<Passing<P>> {
        (!self.archive.is_empty()).then(|| dice.pick(&self.archive).clone())
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts > 0 && self.cut[from][to]
    }

    /// A packet meets a cut: it is lost, or waits for the end of it.
    pub fn stop(&mut self, passing: Passing<P>) {
        if self.nature.holds && self.held.len() < HELD {
            PacketHeld.hit();
            self.held.push(passing);
        } else {
            PacketCutOff.hit();
        }
    }

    /// Cuts one direction of one link.
    pub fn cut(&mut self, from: usize, to: usize) {
        if from != to && !self.cut[from][to] {
            self.cut[from][to] = true;
            self.cuts += 1;
        }
    }

    fn cut_both(&mut self, a: usize, b: usize) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Cuts a node off.
    pub fn isolate(&mut self, node: usize) {
        self.deafen(node);
        self.silence(node);
    }

    /// A node hears nobody any more.
    pub fn deafen(&mut self, node: usize) {
        (0..self.nodes).for_each(|other| self.cut(other, node));
    }

    /// Nobody hears a node any more.
    pub fn silence(&mut self, node: usize) {
        (0..self.nodes).for_each(|other| self.cut(node, other));
    }

    /// Repairs all links; what waited for that is handed out.
    pub fn heal(&mut self) -> Vec<Passing<P>> {
        self.cut = Default::default();
        self.cuts = 0;
        std::mem::take(&mut self.held)
    }

    /// From now on nothing is lost, doubled or late, and latencies are as short as these.
    pub fn calm(&mut self, latency: Micros) {
        for one in self.latency.iter_mut().flatten() {
            *one = (*one).min(latency);
        }
        let nature = &mut self.nature;
        (nature.lost, nature.doubled, nature.late) = (0, 0, 0);
        (nature.archived, nature.holds) = (0, false);
        nature.jitter = nature.jitter.min(latency);
        // Nothing waits any more behind a packet that is late.
        self.last = Default::default();
        self.archive.clear();
    }

    /// Adds cuts of a shape around a node.
    pub fn take_shape(&mut self, shape: Shape, node: usize, dice: &mut Dice) {
        if self.nodes < 2 {
            return;
        }
        let mut others: Vec<usize> = (0..self.nodes).filter(|other| *other != node).collect();
        dice.shuffle(&mut others);
        match shape {
            Shape::OneWay => self.cut(node, others[0]),
            Shape::Link => self.cut_both(node, others[0]),
            Shape::Isolated => self.isolate(node),
            Shape::Deaf => self.deafen(node),
            Shape::Mute => self.silence(node),
            Shape::Halves | Shape::Bridge => self.cut_halves(shape, node, &others, dice),
            Shape::Hub => {
                self.keep_links(|a, b| a == node || b == node);
            }
            Shape::Chain => {
                others.insert(0, node);
                let mut place = [0; MAX_NODES];
                for (at, node) in others.iter().enumerate() {
                    place[*node] = at;
                }
                self.keep_links(|a, b| place[a].abs_diff(place[b]) == 1);
            }
            Shape::Cliques => self.cut_cliques(node, &others),
            Shape::Random => self.cut_at_random(dice),
        }
        shape.fault().hit();
    }

    /// Cuts a node off, with fewer than half of the others.
    pub fn part_with_few(&mut self, node: usize, dice: &mut Dice) {
        let mut side: Vec<usize> = (0..self.nodes).filter(|other| *other != node).collect();
        dice.shuffle(&mut side);
        let most = (side.len() as u64).saturating_sub(1) / 2;
        side.truncate(dice.within(0, most) as usize);
        side.push(node);
        self.keep_links(|a, b| side.contains(&a) == side.contains(&b));
    }

    fn keep_links(&mut self, keep: impl Fn(usize, usize) -> bool) {
        for a in 0..self.nodes {
            for b in (0..self.nodes).filter(|b| !keep(a, *b)) {
                self.cut(a, b);
            }
        }
    }

    fn cut_halves(&mut self, shape: Shape, node: usize, others: &[usize], dice: &mut Dice) {
        let one_side = dice.within(1, others.len() as u64) as usize;
        let mut side = [false; MAX_NODES];
        others[..one_side].iter().for_each(|o| side[*o] = true);
        let bridge = matches!(shape, Shape::Bridge).then_some(node);
        let joins = |a, b| side[a] == side[b] || Some(a) == bridge || Some(b) == bridge;
        self.keep_links(joins);
    }

    /// The first half is a clique with the node; each of the others talks to one of these.
    fn cut_cliques(&mut self, node: usize, others: &[usize]) {
        let mut clique = others[..others.len() / 2].to_vec();
        clique.push(node);
        let mut friend = [usize::MAX; MAX_NODES];
        for (at, outside) in others[others.len() / 2..].iter().enumerate() {
            friend[*outside] = clique[at % clique.len()];
        }
        let inside = |a| clique.contains(&a);
        self.keep_links(|a, b| (inside(a) && inside(b)) || friend[a] == b || friend[b] == a);
    }

    fn cut_at_random(&mut self, dice: &mut Dice) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                if dice.once_in(3) {
                    self.cut(from, to);
                }
            }
        }
    }
}

/// When a packet arrives, if ever.
#[derive(Default)]
struct Fate {
    original: Option<Micros>,
    copy: Option<Micros>,
}

impl Shape {
    fn fault(self) -> Fault {
        match self {
            Shape::OneWay => CutOneWay,
            Shape::Link => CutLink,
            Shape::Isolated => CutIsolated,
            Shape::Deaf => CutDeaf,
            Shape::Mute => CutMute,
            Shape::Halves => CutHalves,
            Shape::Bridge => CutBridge,
            Shape::Hub => CutHub,
            Shape::Chain => CutChain,
            Shape::Cliques => CutCliques,
            Shape::Random => CutRandom,
        }
    }
}
