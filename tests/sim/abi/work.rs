//! The work: what hosts ask of their members, and administrators of the cluster.

use raftkeel::ffi::code::*;
use raftkeel::ffi::status::*;

use super::host::{ENTRY_MIN, data_of};
use super::judge::Kind;
use super::keel::{Order, Seen, last_error};
use super::marks::Mark::*;
use super::world::{Due, World};
use crate::swarm::Work;

impl World {
    pub fn work(&mut self, work: Work) {
        let at = self.dice.below(self.nodes.len() as u64) as usize;
        match work {
            Work::Propose => self.propose_at_leaders(1),
            Work::ProposeMany => {
                // Now and then as many as fill a window.
                let count = match self.dice.below(8) {
                    0 => self.dice.scaled(64, 200),
                    _ => self.dice.scaled(2, 24),
                };
                self.propose_at_leaders(count);
            }
            Work::ProposeBig => {
                // Around the limit, and over it.
                let most = u64::from(self.plan.setup.entry_max);
                let len = self.dice.within(most / 2, most + most / 8) as usize;
                self.each_leader(|world, at| {
                    world.propose(at, len);
                });
            }
            Work::ProposeAnywhere => {
                self.propose(at, ENTRY_MIN);
            }
            Work::Read => self.order(at, Order::Barrier),
            Work::ReadEverywhere => self.read_everywhere(),
            Work::Change => self.change_members(),
            Work::Transfer => self.transfer(),
            Work::Priority => {
                let priority = *self.dice.pick(&[0, 1, 1, 2, 9]);
                self.set_priority(at, priority);
            }
            Work::TellExcluded => self.mend(),
            Work::Churn => self.churn(),
            Work::Save => self.order(at, Order::Snapshot),
            Work::SaveEverywhere => {
                (0..self.nodes.len()).for_each(|at| self.order(at, Order::Snapshot));
            }
            Work::Compact => self.each_leader(|world, at| {
                let settle = 2 * world.plan.setup.keepalive_ms + world.dice.below(50) as u32;
                world.order(at, Order::Settle(settle));
            }),
        }
        self.look_around();
    }

    /// Several barriers at each node, some of which one question to the leader is for.
    fn read_everywhere(&mut self) {
        for at in 0..self.nodes.len() {
            for _ in 0..self.dice.within(1, 3) {
                self.order(at, Order::Barrier);
            }
        }
    }

    /// The judge sees what some member says of itself.
    fn look_around(&mut self) {
        let at = self.dice.below(self.nodes.len() as u64) as usize;
        if self.look_at(at) && self.look.first > 1 {
            LogDropped.hit();
        }
    }

    /// Whoever believes to lead is asked; there may be several.
    fn each_leader(&mut self, mut ask: impl FnMut(&mut Self, usize)) {
        for at in 0..self.nodes.len() {
            if self.is_at_work(at) && self.nodes[at].leads() {
                ask(self, at);
            }
        }
    }

    fn propose_at_leaders(&mut self, count: u64) {
        for _ in 0..count {
            let len = self.dice.scaled(8, 64) as usize;
            self.each_leader(|world, at| {
                world.propose(at, len);
            });
        }
    }

    /// Proposes something new at a node; its number.
    pub fn propose(&mut self, at: usize, len: usize) -> Option<u64> {
        if !self.is_at_work(at) {
            return None;
        }
        self.proposals += 1;
        let number = self.judge.asks(at, Kind::Proposal);
        data_of(number, len, &mut self.data);
        let code = self.nodes[at].seat.propose(number, &self.data);
        let too_big = self.data.len() > self.plan.setup.entry_max as usize;
        match code {
            KEEL_ERR_TOO_BIG if too_big => ProposalTooBig.hit(),
            KEEL_ERR_FULL => QueueFull.hit(),
            KEEL_OK => assert!(!too_big, "a proposal over entry_max is accepted"),
            _ => panic!("keel_propose() returns {code}: {}", last_error()),
        }
        self.asked(at, number, code);
        Some(number)
    }

    /// Asks something of a member.
    pub fn order(&mut self, at: usize, order: Order) {
        if !self.is_at_work(at) {
            return;
        }
        let number = self.judge.asks(at, Kind::Order(order));
        let code = self.nodes[at].seat.order(number, order);
        assert!(
            matches!(code, KEEL_OK | KEEL_ERR_FULL),
            "{order:?} at n{} returns {code}: {}",
            at + 1,
            last_error()
        );
        self.asked(at, number, code);
    }

    fn asked(&mut self, at: usize, number: u64, code: i32) {
        let kind = self.judge.requests[number as usize].kind;
        self.trace.mix((at, number, code));
        if self.trace.is_told() {
            let text = format!("n{} is asked {number}: {kind:?}, returns {code}", at + 1);
            self.trace.tell(self.now, text);
        }
        self.judge.asked(number, code);
        self.feed(at);
    }

    fn transfer(&mut self) {
        let to = match self.dice.below(4) {
            0 => 0,
            _ => self.any_id(),
        };
        if self.dice.once_in(4) {
            let at = self.dice.below(self.nodes.len() as u64) as usize;
            self.order(at, Order::Transfer(to));
        }
        self.each_leader(|world, at| world.order(at, Order::Transfer(to)));
    }

    fn any_id(&mut self) -> u64 {
        let at = self.dice.below(self.nodes.len() as u64) as usize;
        self.nodes[at].seat.id
    }

    /// A host says how much it wants to lead.
    pub fn set_priority(&mut self, at: usize, priority: i32) {
        self.nodes[at].priority = priority;
        if self.nodes[at].lives() {
            let code = self.nodes[at].seat.set_eligible(priority);
            assert!(
                matches!(code, KEEL_OK | KEEL_ERR_FULL),
                "keel_set_eligible() returns {code}: {}",
                last_error()
            );
            if code == KEEL_OK && self.is_at_work(at) {
                self.feed(at);
            }
        }
    }

    // ---- members ---------------------------------------------------------

    fn change_members(&mut self) {
        self.each_leader(|world, at| {
            if let Some(order) = world.draw_change(at) {
                world.order_change(at, order);
            }
        });
    }

    /// One change of those that the leader knows, if the dice find one.
    fn draw_change(&mut self, leader: usize) -> Option<Order> {
        if !self.look_at(leader) {
            return None;
        }
        let id = self.any_id();
        let voters = self.look.voters;
        let spare = self.nodes.iter().map(|node| node.seat.id);
        let spare = spare.filter(|id| self.seen(*id).is_none()).min();
        let Some(seen) = self.seen(id) else {
            return Some(Order::Add(id));
        };
        match (seen.state, seen.role) {
            (KEEL_NODE_EXCLUDED | KEEL_NODE_RETURNED, _) => match spare {
                Some(spare) if self.dice.once_in(3) => Some(Order::Replace(id, spare)),
                _ => Some(Order::Readmit(id)),
            },
            (KEEL_NODE_REPLACED | KEEL_NODE_REMOVED, _) => None,
            _ if seen.awaits_promotion => Some(Order::Promote(id)),
            (_, KEEL_ROLE_LEARNER) => None,
            _ if voters < 2 => None,
            _ => match self.dice.below(4) {
                0 => Some(Order::Remove(id)),
                1 => Some(Order::Exclude(id)),
                _ => None,
            },
        }
    }

    /// The same node goes and comes back for ever.
    fn churn(&mut self) {
        let id = self.nodes[self.nodes.len() - 1].seat.id;
        self.each_leader(|world, leader| {
            if !world.look_at(leader) {
                return;
            }
            let order = match world.seen(id) {
                None => Order::Add(id),
                Some(seen) if seen.awaits_promotion => Order::Promote(id),
                Some(seen) => match seen.state {
                    KEEL_NODE_EXCLUDED | KEEL_NODE_RETURNED => Order::Readmit(id),
                    KEEL_NODE_REPLACED | KEEL_NODE_REMOVED => return,
                    _ if seen.role == KEEL_ROLE_LEARNER || world.look.voters < 2 => return,
                    _ => Order::Exclude(id),
                },
            };
            world.order_change(leader, order);
        });
    }

    fn seen(&self, id: u64) -> Option<Seen> {
        self.look.nodes.iter().copied().find(|seen| seen.id == id)
    }

    fn order_change(&mut self, at: usize, order: Order) {
        if let Order::Exclude(id) | Order::Remove(id) | Order::Replace(id, _) = order {
            self.ordered_out.push(id);
        }
        self.order(at, order);
    }

    /// What an administrator does about those who are out: they are taken back, or others take
    /// the places of those who are out for good.
    pub fn mend(&mut self) {
        self.each_leader(|world, leader| {
            if !world.look_at(leader) {
                return;
            }
            world.put_out_lost(leader);
            // A change of voters goes through a joint configuration: until that is left, the vote
            // of one who is on its way out may be needed.
            let over = world.look.applied == world.look.last;
            for at in 0..world.nodes.len() {
                let Some(seen) = world.seen(world.nodes[at].seat.id) else {
                    continue;
                };
                match seen.state {
                    KEEL_NODE_REPLACED | KEEL_NODE_REMOVED if over && at != leader => {
                        world.take_away(at);
                    }
                    KEEL_NODE_RETURNED => world.order(leader, Order::Readmit(seen.id)),
                    _ if seen.awaits_promotion => world.order(leader, Order::Promote(seen.id)),
                    _ => {}
                }
            }
        });
    }

    /// Nodes that have lost their disks must go: others will take their places.
    pub fn put_out_lost(&mut self, leader: usize) {
        let counts = |seen: &&Seen| self.lost.contains(&seen.id);
        let lost: Vec<Seen> = self.look.nodes.iter().filter(counts).copied().collect();
        for seen in lost {
            let spare = self.nodes.iter().map(|node| node.seat.id);
            let spare = spare.filter(|id| self.seen(*id).is_none()).min();
            let order = match (seen.state, spare) {
                (KEEL_NODE_REPLACED | KEEL_NODE_REMOVED, _) => continue,
                (KEEL_NODE_EXCLUDED | KEEL_NODE_RETURNED, Some(spare)) => {
                    Order::Replace(seen.id, spare)
                }
                _ => Order::Remove(seen.id),
            };
            self.order_change(leader, order);
        }
    }

    /// The place of a node that is out for good will be another's.
    fn take_away(&mut self, at: usize) {
        if !std::mem::replace(&mut self.nodes[at].gone, true) {
            let after = self.draw_span();
            self.plan_due(after, at, Due::Renew);
        }
    }
}
