//! The end of a run: faults end, for all nodes or for one quorum of them, and what was promised
//! for such times must come to pass: L1 to L6.

use raftkeel::core::{Configuration, NodeId, RoleKind};

use crate::checker::is_quorum;
use crate::host::Pace;
use crate::judge::Judge;
use crate::marks::Mark::*;
use crate::server::{Answer, Input, Server};
use crate::swarm::Ending;
use crate::world::World;

/// In election timeouts: until there is a leader that can commit, until all have caught up, until
/// one more entry is everywhere, and how long leadership must then be at rest.
const ELECTS: u64 = 20;
const CATCHES_UP: u64 = 40;
const COMMITS: u64 = 4;
const RESTS: u64 = 4;

/// What the checker knows of a run that the servers do not say.
pub trait Knows {
    /// Every configuration that some node may still act by.
    fn acting(&self) -> Vec<Configuration>;
    /// Reads that wait at a node.
    fn reads_waiting(&self, node: usize) -> usize;
}

impl<S: Server, J: Judge<S> + Knows> World<S, J> {
    /// Ends the faults, and holds the cluster to its promises. Returns how long it took until
    /// there was a leader that could commit, in tenths of an election timeout.
    pub fn settle(&mut self) -> u64 {
        let whole: Vec<usize> = (0..self.nodes.len()).filter(|at| self.votes(*at)).collect();
        // The members have changed since logs were damaged, and who is left may need one to vote
        // that has lost what nobody else holds: then it is for an administrator to say what counts.
        let decided = is_enough(&self.judge.acting(), &whole) || !self.is_any_damaged();
        let well = self.calm();
        if !decided {
            return 0;
        }
        let unit = self.swarm.election_micros();
        let start = self.now;
        // A leader that was cut off or paused until now may still find out that it is none.
        self.run_until(self.now + 2 * unit);
        let elected = self.run_while((ELECTS - 2) * unit, |world| {
            let leader = world.leader_among(&well);
            leader.is_some_and(|at| world.nodes[at].state.settled)
        });
        assert!(
            elected,
            "L1: no leader that can commit within {ELECTS} E:{}",
            self.standings()
        );
        let took = 10 * (self.now - start) / unit;
        let agreed = self.run_while(CATCHES_UP * unit, |world| world.members_agree(&well));
        assert!(
            agreed,
            "L3: members have not caught up within {CATCHES_UP} E:{}",
            self.standings()
        );
        let leader = self.leader_among(&well).unwrap_or(0);
        let term = self.nodes[leader].state.term;
        let last = self.propose(leader, 16);
        assert!(
            matches!(last, Answer::Placed(..)),
            "L2: a leader at rest refuses a proposal"
        );
        let reached = self.run_while(COMMITS * unit, |world| world.members_agree(&well));
        assert!(
            reached,
            "L2: a proposal is not everywhere within {COMMITS} E:{}",
            self.standings()
        );
        self.read_at_rest(&well, leader);
        self.run_until(self.now + RESTS * unit);
        let state = &self.nodes[leader].state;
        assert!(
            state.leads() && state.term == term,
            "L1, L5: leadership is not at rest: n{} led term {term}, now it is {:?} in {}",
            leader + 1,
            state.role,
            state.term
        );
        self.nobody_waits(&well, leader);
        self.claims_have_ended(&well, leader);
        self.transfers_are_over(leader);
        took
    }

    // ---- ends of faults --------------------------------------------------

    /// Ends the faults of those who shall be well, and says who they are.
    fn calm(&mut self) -> Vec<usize> {
        let well = self.draw_well();
        self.trace
            .tell(self.now, format!("calm: {well:?} are well"));
        self.rough = false;
        // By a configuration that only a message holds nobody knows who is needed.
        self.lose_packets();
        self.net.calm(self.swarm.heartbeat * 250);
        self.heal();
        for at in 0..self.nodes.len() {
            if well.contains(&at) {
                self.cure(at);
            } else {
                self.break_for_good(at);
            }
        }
        for at in 0..self.nodes.len() {
            self.set_priority(at, 1);
        }
        well
    }

    /// Everybody, or those who with some luck are only just enough: any quorum of every
    /// configuration that may still be acted by.
    fn draw_well(&mut self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.nodes.len()).collect();
        if self.swarm.ending == Ending::All {
            return all;
        }
        let configs = self.judge.acting();
        self.dice.shuffle(&mut all);
        let mut well = Vec::new();
        while let Some(at) = all.pop() {
            well.push(at);
            let voters = well.iter().copied().filter(|at| self.votes(*at));
            let voters: Vec<usize> = voters.collect();
            if is_enough(&configs, &voters) {
                break;
            }
        }
        if !all.is_empty() {
            QuorumHealed.hit();
        }
        well
    }

    /// Who holds nothing abstains, and so may one who has lost what it held.
    fn votes(&self, at: usize) -> bool {
        let image = &self.nodes[at].disk.image;
        !image.is_blank() && image.hard.claim.is_none()
    }

    fn is_any_damaged(&self) -> bool {
        let mut images = self.nodes.iter().map(|node| &node.disk.image);
        images.any(|image| image.hard.claim.is_some())
    }

    fn cure(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        (node.paused_until, node.asleep) = (0, false);
        let latency = self.swarm.heartbeat * 250;
        self.make_room(at);
        let node = &mut self.nodes[at];
        let writes = node.disk.calm(latency);
        let (failed, up) = (node.failed, node.is_up());
        // Only a restart heals a server whose disk has failed.
        if !up || failed || self.dice.coin() {
            self.restart(at);
        } else {
            self.revive_writes(at, writes);
            // Its timer was put off to the end of its pause.
            self.clock_changed(at);
            self.call(at, Input::Tick);
        }
        self.nodes[at].host.pace = Pace::FAST;
        self.call(at, Input::Take);
    }

    /// A node that is not healed must not keep the others from their work.
    fn break_for_good(&mut self, at: usize) {
        match self.dice.below(4) {
            0 => {
                RestDown.hit();
                self.crash(at);
            }
            1 => {
                RestCutOff.hit();
                self.net.isolate(at);
            }
            2 => {
                RestDeaf.hit();
                self.net.deafen(at);
            }
            _ => {
                RestMute.hit();
                self.net.silence(at);
            }
        }
        if self.nodes[at].failed {
            self.crash(at);
        }
    }

    /// Where everybody stands, for whoever reads of a failure.
    fn standings(&self) -> String {
        let nodes = self.nodes.iter();
        nodes.fold(String::new(), |text, node| {
            let (state, applied) = (&node.state, node.host.applied.index);
            let up = if node.is_up() { "" } else { " down" };
            format!("{text}\n  {}{up} applied {applied} {state:?}", node.id)
        })
    }

    // ---- promises --------------------------------------------------------

    fn leader_among(&self, well: &[usize]) -> Option<usize> {
        let leaders = well
            .iter()
            .copied()
            .filter(|at| self.nodes[*at].state.leads());
        leaders.max_by_key(|at| self.nodes[*at].state.term)
    }

    /// L3, L6: a leader that stays, no joint configuration, and all members that are well hold
    /// and know the same.
    fn members_agree(&self, well: &[usize]) -> bool {
        let Some(leader) = self.leader_among(well) else {
            return false;
        };
        let (id, state) = (self.nodes[leader].id, &self.nodes[leader].state);
        let Some(server) = &self.nodes[leader].server else {
            return false;
        };
        let config = server.configuration();
        let same = |at: &usize| {
            let peer = &self.nodes[*at].state;
            let able = peer.excluded.is_none();
            let applied = self.nodes[*at].host.applied.index == state.commit;
            peer.last_index == state.last_index
                && peer.commit == state.last_index
                && able
                && applied
        };
        let mut members = well
            .iter()
            .filter(|at| config.contains(self.nodes[**at].id));
        let stays = config.contains(id) && state.transferring.is_none();
        stays && !state.joint && members.all(same)
    }

    /// L2 of reads: everybody who follows is answered, and nobody's old reads are left over.
    fn read_at_rest(&mut self, well: &[usize], leader: usize) {
        let unit = self.swarm.election_micros();
        let server = self.nodes[leader].server.as_ref();
        let config = server
            .map(|s| s.configuration().clone())
            .unwrap_or_default();
        for at in well.iter().copied() {
            if config.contains(self.nodes[at].id) {
                let read = self.call(at, Input::Read);
                let taken = matches!(read, Answer::Reading(_));
                assert!(taken, "L2: n{} refuses a read at rest", at + 1);
            }
        }
        let answered = self.run_while(2 * unit, |world| {
            well.iter().all(|at| world.judge.reads_waiting(*at) == 0)
        });
        assert!(answered, "L2: reads are not answered at rest");
    }

    /// L3: whoever had lost entries is whole again.
    fn claims_have_ended(&self, well: &[usize], leader: usize) {
        let Some(server) = &self.nodes[leader].server else {
            return;
        };
        let members = server.configuration();
        for at in well
            .iter()
            .filter(|at| members.contains(self.nodes[**at].id))
        {
            let claim = self.nodes[*at].state.claim;
            assert!(
                claim.is_none(),
                "L3: n{} claims {claim:?} still, and follows one who has it",
                at + 1
            );
        }
    }

    /// L7: snapshots converge: with everybody well the leader has none to send any more.
    fn transfers_are_over(&self, leader: usize) {
        let server = self.nodes[leader].server.as_ref();
        let busy = server.is_some_and(S::sends_snapshot);
        assert!(
            !busy || self.swarm.ending != Ending::All,
            "L7: leader n{} still sends a snapshot",
            leader + 1
        );
    }

    /// L2: every proposal that a server took has its outcome.
    fn nobody_waits(&self, well: &[usize], leader: usize) {
        let commit = self.nodes[leader].state.commit;
        for at in well {
            let node = &self.nodes[*at];
            let (waits, applied) = (node.host.waiting(), node.host.applied.index);
            assert!(
                waits == 0 || applied < commit,
                "L2: {waits} proposals at n{} have no outcome, {applied} of {commit} are applied",
                at + 1
            );
        }
        for at in self.running() {
            let node = &self.nodes[at];
            let rests = !well.contains(&at) && node.state.role == RoleKind::Leader;
            // One whose clock has stood still until now has yet to notice.
            let woke = node
                .paused_until
                .saturating_add(2 * self.swarm.election_micros());
            assert!(
                !rests || woke > self.now,
                "L4: n{} still leads without a quorum",
                at + 1
            );
        }
    }
}

fn is_enough(configs: &[Configuration], well: &[usize]) -> bool {
    let is_well = |id: NodeId| well.contains(&(id.get() as usize - 1));
    configs.iter().all(|config| is_quorum(config, is_well))
}
