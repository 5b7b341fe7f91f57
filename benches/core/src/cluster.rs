//! Three servers, the messages between them, and a client that keeps a number of proposals
//! outstanding at the leader. The same code drives every core, so that only the cores differ.

use std::hint::black_box;

/// Bytes of an entry.
pub const PAYLOAD: usize = 128;

/// Applied entries that every server keeps in memory. Up to twice as many are: then those beyond it
/// are dropped, as a server must that has run for long.
pub const KEPT: usize = 5000;

/// Servers of a cluster; the one at place 0 leads.
pub const SERVERS: usize = 3;
const LEADER: usize = 0;

/// One server, as its library's documentation says it is driven. Its writes are done at once.
pub trait Node {
    /// What servers say to each other, as the library has it in memory.
    type Message;

    /// Begins an election that only this server may win.
    fn campaign(&mut self);
    fn is_leader(&self) -> bool;
    /// Proposes one entry; never refused here.
    fn propose(&mut self, data: &[u8]);
    fn receive(&mut self, from: usize, message: Self::Message);
    /// Handles all that the inputs so far have brought about.
    fn settle(&mut self, out: &mut Outputs<Self::Message>);
}

/// Where a server's messages and committed entries go.
pub struct Outputs<'a, M> {
    from: usize,
    inboxes: &'a mut [Inbox<M>; SERVERS],
    applied: &'a mut Applied,
}

/// Messages with their senders, in the order in which they were sent.
type Inbox<M> = Vec<(usize, M)>;

impl<M> Outputs<'_, M> {
    pub fn send(&mut self, to: usize, message: M) {
        self.inboxes[to].push((self.from, message));
    }

    pub fn apply(&mut self, data: &[u8]) {
        self.applied.apply(data);
    }
}

/// When a server is settled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// After every single proposal and message.
    Each,
    /// Once for all that wait for it.
    Batch,
}

/// The state machine: a digest of what was applied, in this order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Applied {
    count: u64,
    digest: u64,
}

impl Applied {
    fn apply(&mut self, data: &[u8]) {
        let (Some(head), Some(tail)) = (data.first_chunk(), data.last_chunk()) else {
            panic!("an entry of {} bytes was applied", data.len());
        };
        let word = u64::from_le_bytes(*head) ^ u64::from_le_bytes(*tail).rotate_left(32);
        self.count += 1;
        self.digest = (self.digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The entry with this number: the number at its beginning, its complement at the end.
fn payload(number: u64) -> [u8; PAYLOAD] {
    let mut data = [0x55; PAYLOAD];
    data[..8].copy_from_slice(&number.to_le_bytes());
    data[PAYLOAD - 8..].copy_from_slice(&(!number).to_le_bytes());
    data
}

pub struct Cluster<N: Node> {
    nodes: [N; SERVERS],
    inboxes: [Inbox<N::Message>; SERVERS],
    applied: [Applied; SERVERS],
    mode: Mode,
    proposed: u64,
}

impl<N: Node> Cluster<N> {
    pub fn new(nodes: [N; SERVERS], mode: Mode) -> Cluster<N> {
        Cluster {
            nodes,
            inboxes: [(); SERVERS].map(|()| Vec::new()),
            applied: [Applied::default(); SERVERS],
            mode,
            proposed: 0,
        }
    }

    pub fn elect(&mut self) {
        self.nodes[LEADER].campaign();
        self.settle(LEADER);
        while self.round(0, 0) {}
        assert!(
            self.nodes[LEADER].is_leader(),
            "nobody disturbs the election"
        );
    }

    /// Proposes `entries` more and goes on until every server has applied them. One is proposed
    /// whenever less than `outstanding` wait for being applied at the leader.
    pub fn run(&mut self, outstanding: u64, entries: u64) {
        let last = self.proposed + entries;
        while self.applied.iter().any(|applied| applied.count < last) {
            assert!(self.round(outstanding, last), "entries got lost");
        }
    }

    /// Everybody gets a turn: the leader the proposals that are due, and each what was sent to it.
    /// False if there was nothing of either.
    fn round(&mut self, outstanding: u64, last: u64) -> bool {
        let mut any = false;
        while self.proposed < last.min(self.applied[LEADER].count + outstanding) {
            self.proposed += 1;
            self.nodes[LEADER].propose(black_box(&payload(self.proposed)));
            self.settle_each(LEADER);
            any = true;
        }
        for i in 0..SERVERS {
            let mut inbox = std::mem::take(&mut self.inboxes[i]);
            any |= !inbox.is_empty();
            for (from, message) in inbox.drain(..) {
                self.nodes[i].receive(from, message);
                self.settle_each(i);
            }
            // Nobody writes to itself: what takes its place holds nothing.
            self.inboxes[i] = inbox;
            if self.mode == Mode::Batch {
                self.settle(i);
            }
        }
        any
    }

    fn settle_each(&mut self, i: usize) {
        if self.mode == Mode::Each {
            self.settle(i);
        }
    }

    fn settle(&mut self, i: usize) {
        self.nodes[i].settle(&mut Outputs {
            from: i,
            inboxes: &mut self.inboxes,
            applied: &mut self.applied[i],
        });
    }

    /// Panics unless every server has applied exactly the first `entries`, in order.
    pub fn check(&self, entries: u64) {
        let mut expected = Applied::default();
        for number in 1..=entries {
            expected.apply(&payload(number));
        }
        for applied in self.applied {
            assert_eq!(expected, applied, "a server has applied something else");
        }
    }
}
