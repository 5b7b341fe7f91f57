//! Runs of nodes: how they start, stop and find their disks; and what members tell of themselves.

use std::ffi::c_int;

use raftkeel::core::Millis;
use raftkeel::ffi::code::*;
use raftkeel::ffi::status::*;

use super::host::{Host, Manners, OWN_FAILURE, Told};
use super::judge::Kind;
use super::keel::{Order, last_error};
use super::marks::Mark::{self, *};
use super::world::{Due, World, occasions_of_role};
use crate::dice::Dice;
use crate::disk::Finished;
use crate::host::Pace;
use crate::marks::Fault::{self, StoppedUntold};
use crate::queue::NEVER;
use crate::swarm::Occasion;

impl World {
    /// Starts a node from its disk.
    pub fn start(&mut self, at: usize) {
        let pace = match self.rough {
            true => self.plan.swarm.pace(&mut self.dice),
            false => Pace::FAST,
        };
        let (seed, dice) = (self.dice.word(), Dice::new(self.dice.word()));
        let manners = self.manners(at);
        let node = &mut self.nodes[at];
        node.run += 1;
        (node.role, node.term, node.fenced) = (KEEL_ROLE_FOLLOWER, 0, false);
        (node.stopped, node.asleep) = (false, false);
        (node.paused_until, node.inbox) = (0, 0);
        (node.armed, node.timer_at) = (Millis::MAX, NEVER);
        node.pace = pace;
        node.driven = node.clock.read(self.now);
        node.seat.begin(dice, manners);
        self.judge.started(at);
        let node = &mut self.nodes[at];
        let blank = node.seat.disk.image.is_blank();
        let code = node.seat.open(&node.setup, seed, blank);
        self.trace.mix((at, code));
        self.trace
            .tell(self.now, format!("n{} starts: {code}", at + 1));
        if code != KEEL_OK {
            self.fail_to_open(at, code);
            return;
        }
        if std::mem::take(&mut node.poisoned) {
            PoisonReplaced.hit();
        }
        if node.priority != 1 {
            let code = node.seat.set_eligible(node.priority);
            assert_eq!(code, KEEL_OK, "keel_set_eligible(): {}", last_error());
        }
        self.quiet_since = self.now;
        if self.rough && self.plan.swarm.late_founders > 0 {
            let after = self.dice.below(self.plan.swarm.late_founders);
            self.plan_due(after, at, Due::Bootstrap);
        } else {
            self.bootstrap(at);
        }
        self.step(at);
    }

    fn manners(&self, at: usize) -> Manners {
        let manners = self.plan.manners[at];
        match self.rough {
            true => manners,
            false => Manners {
                image: manners.image,
                alike: manners.alike,
                stores_at_once: manners.stores_at_once,
                ..Manners::default()
            },
        }
    }

    /// Only a store that was told to fail may be a reason.
    fn fail_to_open(&mut self, at: usize, code: c_int) {
        let node = &self.nodes[at];
        assert!(
            code == KEEL_ERR_IO && node.seat.has_failed,
            "n{}: keel_new() returns {code}: {}",
            at + 1,
            last_error()
        );
        OpenFailed.hit();
        let after = self.draw_span();
        self.plan_due(after, at, Due::Restart);
    }

    /// A founder that holds nothing is given the first entry.
    pub fn bootstrap(&mut self, at: usize) {
        let founders = self.plan.swarm.founders as u64;
        let node = &mut self.nodes[at];
        if !node.founder || !node.lives() {
            return;
        }
        let code = node.seat.bootstrap(1..=founders);
        self.trace.mix((at, code));
        self.take_in(at);
        let node = &self.nodes[at];
        let failed = code == KEEL_ERR_IO && node.stopped && node.seat.has_failed;
        assert!(
            matches!(code, KEEL_OK | KEEL_ERR_EXISTS) || failed,
            "n{}: keel_bootstrap() returns {code}: {}",
            at + 1,
            last_error()
        );
        self.feed(at);
    }

    /// Stops a node at once. Some first few of its writes under way have reached the disk.
    pub fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.is_up() {
            return;
        }
        self.trace.tell(self.now, format!("n{} stops", at + 1));
        node.seat.free();
        let before = node.seat.disk.under_way();
        let wrote = !node.seat.disk.image.is_blank();
        node.seat.crash(&mut self.dice);
        if before > 0 {
            RestartedWithLoss.hit();
        }
        if before > 0 && !wrote && node.seat.disk.image.is_blank() {
            RestartedBare.hit();
        }
        self.take_in(at);
        self.nodes[at].run += 1;
        self.quiet_since = self.now;
    }

    /// Starts a node, which is stopped first if need be.
    pub fn restart(&mut self, at: usize) {
        self.crash(at);
        self.start(at);
    }

    /// Another node, with a new id and an empty disk, takes the place of one that is gone.
    pub fn renew(&mut self, at: usize) {
        self.crash(at);
        let nature = self.plan.swarm.disks[at];
        let id = self.next_id;
        self.next_id += 1;
        self.trace
            .tell(self.now, format!("n{} is node {id} now", at + 1));
        let node = &mut self.nodes[at];
        let listens = node.seat.listens;
        *node.seat = Host::new(id, nature);
        node.seat.listens = listens;
        (node.founder, node.gone, node.poisoned) = (false, false, false);
        (node.setup, node.priority) = (self.plan.setup, 1);
        self.start(at);
    }

    // ---- the disk --------------------------------------------------------

    pub fn finish_write(&mut self, at: usize) {
        let finished = self.nodes[at].seat.disk.finish(&mut self.dice);
        self.written(at, finished);
    }

    /// A write of a node has ended.
    pub fn written(&mut self, at: usize, finished: Finished<super::store::Batch>) {
        let node = &mut self.nodes[at];
        let (number, status) = match finished {
            Finished::Nothing => return,
            Finished::Landed(batch) => {
                let number = batch.number;
                if batch.term < node.term {
                    StoredInOldTerm.hit();
                }
                node.seat.disk.image.land(batch);
                (number, 0)
            }
            Finished::Failed => {
                node.seat.has_failed = true;
                let number = node.seat.disk.oldest().map_or(0, |batch| batch.number);
                if node.leads() {
                    LeaderWriteFailed.hit();
                }
                (number, OWN_FAILURE)
            }
        };
        if status == 0 && self.rough && self.dice.chance(self.plan.swarm.storage.stops) {
            StoppedUntold.hit();
            self.crash(at);
            let after = self.draw_span();
            self.plan_due(after, at, Due::Restart);
            return;
        }
        let code = node_write_done(self, at, number, status);
        self.trace.mix((at, number, status, code));
        self.feed(at);
    }

    /// All writes of a node are looked at again.
    pub fn revive_writes(&mut self, node: usize, count: usize) {
        for _ in 0..count {
            self.plan_due(0, node, Due::Written);
        }
    }

    /// What the host has put off is done.
    pub fn do_chores(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.is_up() {
            return;
        }
        if node.seat.finish_save() {
            SavedLate.hit();
        }
        if node.seat.finish_load() {
            LoadedLate.hit();
        }
        self.take_in(at);
        self.feed(at);
    }

    // ---- what members tell -----------------------------------------------

    /// Takes in what a member told its host; on which occasions for a fault.
    pub fn notice(&mut self, at: usize, told: &Told) -> u32 {
        match told {
            Told::Role { role, term, .. } => return self.notice_role(at, *role, *term),
            Told::Members { .. } => return 1 << Occasion::NewMembers as u32,
            Told::Applied { .. } if self.nodes[at].leads() => {
                return 1 << Occasion::CommitsAsLeader as u32;
            }
            Told::Save { .. } | Told::Load { .. } => {
                let takes = self.dice.scaled(1, self.plan.swarm.storage.loads);
                self.plan_due(takes, at, Due::Chores);
            }
            Told::Saved { kept: false } => SaveGivenUp.hit(),
            Told::Loaded { first: true, .. } => LoadedAtStart.hit(),
            Told::Loaded { .. } => SnapshotInstalled.hit(),
            Told::NotLoaded => LoadRefused.hit(),
            Told::Stopped(why) => self.notice_death(at, *why),
            Told::Fence(fenced) => {
                self.nodes[at].fenced = *fenced;
                if *fenced { Fenced.hit() } else { Served.hit() }
            }
            Told::Excluded { epoch, ids, .. } => self.notice_exclusion(*epoch, ids),
            Told::Asked { ids, answer } => self.notice_accusation(at, ids, *answer),
            Told::Node { state, .. } => notice_node(*state),
            Told::Event(code) => self.notice_event(at, code),
            Told::Done {
                request, status, ..
            } => return self.notice_completion(at, *request, *status),
            Told::Made { .. } => MadeInCompletion.hit(),
            Told::StoredAtOnce => StoredAtOnce.hit(),
            Told::WriteRefused => {
                WriteRefused.hit();
                Fault::WriteFailed.hit();
            }
            Told::Fetched { .. } => Fetched.hit(),
            Told::Params { version } if *version > 1 => ParamsChanged.hit(),
            _ => {}
        }
        0
    }

    fn notice_role(&mut self, at: usize, role: c_int, term: u64) -> u32 {
        let node = &mut self.nodes[at];
        let before = (node.role, node.term);
        (node.role, node.term) = (role, term);
        if role == KEEL_ROLE_LEADER && before != (role, term) {
            LeaderElected.hit();
            if self
                .judge
                .last_leader()
                .is_some_and(|id| id != self.nodes[at].seat.id)
            {
                LeaderChanged.hit();
            } else if before.0 != role && self.nodes[at].run > 1 {
                LeaderAgain.hit();
            }
        }
        if before.0 == KEEL_ROLE_LEADER && role == KEEL_ROLE_FOLLOWER {
            LeaderFell.hit();
        }
        occasions_of_role(before, (role, term))
    }

    /// A member dies only of what its host could not or would not do.
    fn notice_death(&mut self, at: usize, why: c_int) {
        let node = &mut self.nodes[at];
        let right = match why {
            KEEL_ERR_IO => node.seat.has_failed,
            KEEL_ERR_STATE => node.seat.has_refused,
            _ => false,
        };
        assert!(right, "n{} stops: {why}: {}", at + 1, last_error());
        node.stopped = true;
        self.quiet_since = self.now;
        match why {
            KEEL_ERR_IO => {
                node.poisoned = true;
                Poisoned.hit();
            }
            _ => HostRefused.hit(),
        }
        let after = self.draw_span();
        self.plan_due(after, at, Due::Restart);
    }

    /// The first word of an exclusion: whoever is hit must not serve any more.
    fn notice_exclusion(&mut self, epoch: u64, ids: &[u64]) {
        if !self.judge.is_news(epoch) {
            return;
        }
        if ids.len() > 1 {
            ExcludedSeveral.hit();
        }
        for id in ids {
            if self.ordered_out.contains(id) {
                ExcludedByOrder.hit();
                continue;
            }
            assert!(
                self.plan.setup.deadtime_ms > 0,
                "node {id} is excluded, and hb_deadtime_ms is 0"
            );
            ExcludedByDetector.hit();
            let Some(at) = self.place_of(*id).filter(|at| self.is_at_work(*at)) else {
                continue;
            };
            let node = &self.nodes[at];
            let since = node.clock.read(self.now) - node.driven;
            let lease = node.seat.lease_ms();
            assert!(
                lease <= since as c_int,
                "n{} is excluded, and may serve {lease} ms more",
                at + 1
            );
        }
    }

    /// A leader is about to exclude these: nobody must be hit whom all can hear.
    fn notice_accusation(&mut self, by: usize, ids: &[u64], answer: c_int) {
        if answer != 0 {
            ExclusionVetoed.hit();
        }
        let deadtime = u64::from(self.plan.setup.deadtime_ms) * 1000;
        let window = deadtime * 5 / 4 + 8 * self.unit();
        if self.rough || self.now - self.quiet_since <= window {
            return;
        }
        let heard = ids.iter().filter_map(|id| self.place_of(*id));
        let heard = heard.filter(|at| self.nodes[*at].lives() && !self.net.is_cut(*at, by));
        let heard: Vec<usize> = heard.collect();
        assert!(
            heard.is_empty(),
            "n{} accuses {heard:?}, whom it can hear since {}",
            by + 1,
            self.quiet_since
        );
    }

    fn notice_event(&mut self, at: usize, code: &str) {
        let mark = match code {
            "ADDED" => Added,
            "PROMOTED" => return,
            "REMOVED" => Removed,
            "REMOVED_SELF" => RemovedSelf,
            "REPLACED" => Replaced,
            "READMITTED" => Readmitted,
            "EXCLUDED_SELF" => ExcludedSelf,
            "SNAPSHOT" => SnapshotMade,
            "DISK_STALLED" => DiskStalled,
            "DISK_BACK" => DiskBack,
            "PAUSED" => PauseNoticed,
            "DIVERGED" => panic!(
                "n{}: all hosts have the same state, and it says DIVERGED",
                at + 1
            ),
            "PEER_NEWER" | "LOST_STATE" | "PEER_LOST_STATE" => {
                panic!(
                    "n{} says {code}, and nobody has lost or upgraded anything",
                    at + 1
                )
            }
            _ => return,
        };
        mark.hit();
    }

    fn notice_completion(&mut self, at: usize, number: u64, status: c_int) -> u32 {
        let request = self.judge.requests[number as usize];
        mark_completion(request.kind, status);
        let eager = self.rough && self.dice.chance(self.plan.eager);
        if eager && self.is_at_work(at) && self.nodes[at].seat.eager.is_none() {
            let number = self.judge.asks(at, Kind::Proposal);
            self.proposals += 1;
            self.nodes[at].seat.eager = Some(number);
        }
        let handed = matches!(request.kind, Kind::Order(Order::Transfer(_)));
        u32::from(handed) << Occasion::HandsOver as u32
    }
}

fn node_write_done(world: &mut World, at: usize, number: u64, status: c_int) -> c_int {
    let node = &mut world.nodes[at];
    let code = node.seat.write_done(number, status);
    let dead = code == KEEL_ERR_CLOSED && node.stopped;
    assert!(
        code == KEEL_OK || dead,
        "n{}: keel_write_done() returns {code}: {}",
        at + 1,
        last_error()
    );
    code
}

fn notice_node(state: c_int) {
    match state {
        KEEL_NODE_LATE => NodeLate.hit(),
        KEEL_NODE_SUSPECT => NodeSuspect.hit(),
        KEEL_NODE_RETURNED => NodeReturned.hit(),
        _ => {}
    }
}

fn mark_completion(kind: Kind, status: c_int) {
    let mark: Option<Mark> = match (kind, status) {
        (Kind::Proposal, KEEL_OK) => Some(ProposalDone),
        (Kind::Proposal, KEEL_ERR_NOT_LEADER) => Some(ProposalElsewhere),
        (Kind::Proposal, KEEL_ERR_CONFLICT) => Some(ProposalInTransfer),
        (Kind::Proposal, KEEL_ERR_LOST) => Some(ProposalLost),
        (Kind::Proposal, KEEL_ERR_CLOSED) => Some(ProposalClosed),
        (Kind::Order(Order::Barrier), KEEL_ERR_NO_QUORUM) => Some(BarrierNoQuorum),
        (Kind::Order(Order::Barrier), KEEL_ERR_LOST) => Some(BarrierLost),
        (Kind::Order(Order::Barrier), KEEL_ERR_EXCLUDED) => Some(BarrierOutside),
        (Kind::Order(Order::Transfer(_)), KEEL_OK) => Some(TransferDone),
        (Kind::Order(Order::Transfer(_)), KEEL_ERR_CONFLICT) => Some(TransferTimedOut),
        (Kind::Order(Order::Transfer(_)), KEEL_ERR_LOST) => Some(TransferLost),
        (Kind::Order(Order::Transfer(_)), KEEL_ERR_CLOSED) => None,
        (Kind::Order(Order::Transfer(_)), _) => Some(TransferRefused),
        (Kind::Order(Order::Snapshot), KEEL_OK) => Some(SnapshotAsked),
        (Kind::Order(Order::Promote(_)), KEEL_OK) => Some(Promoted),
        (Kind::Order(Order::Snapshot | Order::Barrier), _) => None,
        (Kind::Order(_), KEEL_ERR_CONFLICT) => Some(ChangeConflict),
        _ => None,
    };
    if let Some(mark) = mark {
        mark.hit();
    }
}
