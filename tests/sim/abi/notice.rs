//! What members tell their hosts: what the world makes of it, and which marks it reaches.

use std::ffi::c_int;

use raftkeel::ffi::code::*;
use raftkeel::ffi::status::*;

use super::host::Told;
use super::judge::Kind;
use super::keel::{Order, last_error};
use super::marks::Mark::{self, *};
use super::world::{Due, World};
use crate::marks::Fault;
use crate::swarm::Occasion;

impl World {
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
            Told::Slow { to, own, quorum } => self.notice_slow(at, *to, *own, *quorum),
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
        // One that hears nothing may not even know whom to tell that it lives.
        let cut = |at: usize| self.net.is_cut(at, by) || self.net.is_cut(by, at);
        let heard = heard.filter(|at| self.nodes[*at].lives() && !cut(*at));
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
            "PEER_NEWER" | "LOST_STATE" | "PEER_LOST_STATE" | "PEER_LOST_DATA" | "LOST_DATA" => {
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

/// Which occasions a change of role is.
fn occasions_of_role(before: (i32, u64), after: (i32, u64)) -> u32 {
    let mut occasions = 0;
    let mut add = |so: bool, occasion: Occasion| occasions |= u32::from(so) << occasion as u32;
    add(
        after.0 == KEEL_ROLE_LEADER && before.0 != after.0,
        Occasion::Leads,
    );
    add(after.0 == KEEL_ROLE_CANDIDATE, Occasion::Campaigns);
    add(after.1 > before.1, Occasion::NewTerm);
    add(
        after.1 > before.1 && after.0 == KEEL_ROLE_FOLLOWER,
        Occasion::Votes,
    );
    occasions
}
