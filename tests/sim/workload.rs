//! The work: what hosts ask of their servers, and administrators of the cluster.

use raftkeel::core::{Exclusion, NodeId};

use crate::judge::Judge;
use crate::server::{Input, Server, Wish};
use crate::swarm::Work;
use crate::world::World;

impl<S: Server, J: Judge<S>> World<S, J> {
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
                let most = self.swarm.limits.entry_max as u64;
                let len = self.dice.within(most / 2, most + most / 8) as usize;
                self.each_leader(|world, at| {
                    world.propose(at, len);
                });
            }
            Work::ProposeAnywhere => {
                if self.is_at_work(at) {
                    self.propose(at, 8);
                }
            }
            Work::Read => {
                if self.is_at_work(at) {
                    self.call(at, Input::Read);
                }
            }
            Work::ReadEverywhere => self.read_everywhere(),
            Work::Change => self.change_members(),
            Work::Transfer => self.transfer(),
            Work::Priority => {
                let priority = *self.dice.pick(&[0, 1, 1, 2, 9]);
                self.set_priority(at, priority);
            }
            Work::TellExcluded => self.tell_excluded(at),
            Work::Churn => self.churn(),
            Work::Save => self.begin_save(at),
            Work::SaveEverywhere => (0..self.nodes.len()).for_each(|at| self.begin_save(at)),
            Work::Compact => self.compact(at),
        }
    }

    /// Whoever believes to lead is asked; there may be several.
    fn each_leader(&mut self, mut ask: impl FnMut(&mut Self, usize)) {
        for at in 0..self.nodes.len() {
            if self.is_at_work(at) && self.nodes[at].state.leads() {
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

    /// As much of the log as possible is dropped, or more.
    fn compact(&mut self, at: usize) {
        if self.is_at_work(at) {
            let upto = self.dice.within(0, self.nodes[at].state.last_index + 2);
            let anyway = self.dice.once_in(4);
            self.call(at, Input::Compact { upto, anyway });
        }
    }

    /// Several reads at each node, some of which one question to the leader is for.
    fn read_everywhere(&mut self) {
        for at in 0..self.nodes.len() {
            for _ in 0..self.dice.within(1, 3) {
                if self.is_at_work(at) {
                    self.call(at, Input::Read);
                }
            }
        }
    }

    fn transfer(&mut self) {
        let to = self.dice.within(1, self.nodes.len() as u64);
        let to = match self.dice.below(4) {
            0 => None,
            _ => NodeId::new(to),
        };
        self.each_leader(|world, at| {
            world.call(at, Input::Transfer(to));
        });
    }

    /// A host says how much it wants to lead, to its own server and to all others.
    pub fn set_priority(&mut self, at: usize, priority: u8) {
        self.nodes[at].setup.priority = priority;
        let id = self.nodes[at].id;
        for other in 0..self.nodes.len() {
            if self.is_at_work(other) {
                let of = (other != at).then_some(id);
                self.call(other, Input::Priority(of, priority));
            }
        }
    }

    fn change_members(&mut self) {
        // A founder that holds nothing abstains, and nobody may be made to need its vote.
        let founders = &self.nodes[..self.swarm.founders];
        if founders.iter().any(|node| node.disk.image.is_blank()) {
            return;
        }
        self.each_leader(|world, at| {
            if let Some(wish) = world.draw_wish(at) {
                world.call(at, Input::Change(wish));
            }
        });
    }

    /// One step away from the leader's configuration, if the dice find one.
    fn draw_wish(&mut self, leader: usize) -> Option<Wish> {
        let any = self.dice.below(self.nodes.len() as u64) as usize;
        let id = self.nodes[any].id;
        let server = self.nodes[leader].server.as_ref()?;
        let config = server.configuration();
        let mut ready = config.learners.iter().copied();
        let ready = ready.find(|learner| server.is_ready(*learner));
        match self.dice.below(6) {
            0 | 1 if !config.contains(id) => Some(Wish::Learn(id)),
            0 | 1 if config.is_learner(id) => Some(Wish::Promote(id, None)),
            2 => {
                // Two at once: only a joint configuration may do that.
                let other = config.is_voter(id) && self.dice.coin();
                Some(Wish::Promote(ready?, other.then_some(id)))
            }
            3 if config.is_voter(id) && config.voters.len() > 1 => Some(Wish::Demote(id)),
            4 if config.is_voter(id) && config.voters.len() > 1 => Some(Wish::Remove(id)),
            5 if config.is_learner(id) => Some(Wish::Remove(id)),
            _ => None,
        }
    }

    /// The same node goes and comes back for ever, and hears of its going at any time.
    fn churn(&mut self) {
        let at = self.nodes.len() - 1;
        let id = self.nodes[at].id;
        self.each_leader(|world, leader| {
            let server = world.nodes[leader].server.as_ref();
            let known = server.map(|server| server.configuration().clone());
            let config = known.unwrap_or_default();
            let wish = match (config.contains(id), config.is_learner(id)) {
                (false, _) => Wish::Learn(id),
                (true, true) => Wish::Promote(id, None),
                (true, false) => Wish::Remove(id),
            };
            world.call(leader, Input::Change(wish));
        });
        self.tell_excluded(at);
    }

    /// Peers tell a node that is out of the newest committed configuration. Old news comes too.
    pub fn tell_excluded(&mut self, at: usize) {
        let id = self.nodes[at].id;
        let Some((index, config)) = &self.members else {
            return;
        };
        let (index, epoch) = (*index, config.epoch);
        if epoch > 1 && !config.contains(id) {
            self.notices[at] = Some(Exclusion { epoch, index });
        }
        if let Some(notice) = self.notices[at]
            && self.is_at_work(at)
        {
            self.call(at, Input::Excluded(notice));
        }
    }
}
