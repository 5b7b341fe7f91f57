//! Time, links, and what can be asked of the servers.

use raftkeel::core::{Index, Millis, NodeId, Raft, RoleKind, Term};

use crate::cluster::{Cluster, E, H, n};
use crate::model::data::Input;

impl Cluster {
    // ---- time ------------------------------------------------------------

    /// Moves a server's clock without letting it act.
    pub fn skip(&mut self, raw: u64, span: Millis) {
        self.node_mut(raw).ahead += span;
    }

    /// Moves a server's clock and lets it act.
    pub fn advance(&mut self, raw: u64, span: Millis) {
        self.skip(raw, span);
        self.call(n(raw), Raft::tick, |_| Input::Tick);
    }

    /// Delivers until nobody has anything to say, without time passing.
    pub fn deliver_all(&mut self) {
        for _ in 0..100_000 {
            match self.network.next_due(Millis::MAX) {
                Some(envelope) => self.deliver(envelope),
                None => return,
            }
        }
        panic!("the servers never stop talking");
    }

    /// Moves a leader to its next heartbeat, and delivers all.
    pub fn heartbeat(&mut self, raw: u64) {
        self.advance(raw, H);
        self.deliver_all();
    }

    /// Lets every other server's sticky window pass and this one's election timeout, and delivers
    /// all: at most three times, for a term may have to be learnt first.
    pub fn elect(&mut self, raw: u64) {
        let running: Vec<u64> = self.nodes.keys().map(|id| id.get()).collect();
        for _ in 0..3 {
            for other in running.iter().filter(|other| **other != raw) {
                self.skip(*other, E);
            }
            self.advance(raw, 2 * E);
            self.deliver_all();
            if self.raft(raw).is_leader() {
                return;
            }
        }
    }

    /// One millisecond: deliver what is due, then let everybody act.
    pub fn step(&mut self) {
        self.now += 1;
        while let Some(envelope) = self.network.next_due(self.now) {
            let paused = self.nodes[&envelope.to].paused_until;
            if paused > self.now {
                self.network.put(paused, envelope);
            } else {
                self.deliver(envelope);
            }
        }
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in all {
            let now = self.clock(id);
            let node = &self.nodes[&id];
            let awake = node.paused_until <= self.now;
            let due = node
                .raft
                .as_ref()
                .is_some_and(|r| awake && now >= r.next_deadline());
            if due {
                self.call(id, Raft::tick, |_| Input::Tick);
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Millis) {
        for _ in 0..span {
            self.step();
        }
    }

    /// Lets time pass until something is so; panics if that takes longer than `span`.
    pub fn run_until(&mut self, span: Millis, what: &str, so: impl Fn(&Cluster) -> bool) {
        for _ in 0..span {
            if so(self) {
                return;
            }
            self.step();
        }
        assert!(so(self), "not within {span} ms: {what}");
    }

    // ---- links -----------------------------------------------------------

    /// Cuts both directions between two servers.
    pub fn cut(&mut self, a: u64, b: u64) {
        self.network.cut(n(a), n(b));
        self.network.cut(n(b), n(a));
    }

    /// Cuts a server off from everybody.
    pub fn isolate(&mut self, raw: u64) {
        let others: Vec<u64> = self.nodes.keys().map(|id| id.get()).collect();
        for other in others.into_iter().filter(|other| *other != raw) {
            self.cut(raw, other);
        }
    }

    /// Leaves only these links, both ways.
    pub fn only_links(&mut self, links: &[(u64, u64)]) {
        let all: Vec<u64> = self.nodes.keys().map(|id| id.get()).collect();
        self.network.heal();
        for a in &all {
            for b in all.iter().filter(|b| *b > a) {
                if !links.contains(&(*a, *b)) {
                    self.cut(*a, *b);
                }
            }
        }
    }

    /// Ends all holds and delivers what was held.
    pub fn release(&mut self) {
        for envelope in self.network.end_holds() {
            self.network.put(self.now, envelope);
        }
        self.deliver_all();
    }

    // ---- questions -------------------------------------------------------

    pub fn term(&self, raw: u64) -> Term {
        self.raft(raw).term()
    }

    pub fn commit(&self, raw: u64) -> Index {
        self.raft(raw).commit()
    }

    pub fn role(&self, raw: u64) -> RoleKind {
        self.raft(raw).role()
    }

    /// Terms of a server's log from index 1.
    pub fn terms(&self, raw: u64) -> Vec<Term> {
        let log = self.raft(raw).log();
        log.from(1).iter().map(|e| e.term).collect()
    }

    /// The running leader of the newest term.
    pub fn leader(&self) -> Option<u64> {
        let running = self.nodes.values().filter_map(|node| node.raft.as_ref());
        let leaders = running.filter(|raft| raft.is_leader());
        let newest = leaders.max_by_key(|raft| raft.term())?;
        newest.leader().map(NodeId::get)
    }
}
