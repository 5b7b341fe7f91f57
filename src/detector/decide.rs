//! The verdicts of one detector, and what it does about them.

use crate::core::{Millis, NodeId};

use super::guards::{Held, Situation, Step};
use super::machine::{Detector, clamp_age};
use super::verdict::{Report, Tally, Testimony, weigh};
use super::{BlockedBy, LeaderView, NodeState, Notice, Output};

/// The most bytes of a notice's text.
const WHY_MAX: usize = 200;
/// A leader's notice is shown for so many keepalives.
const NOTICE_KEEPALIVES: Millis = 3;

impl Detector {
    /// Judges everybody, after all that arrived was taken in. `view` is the core's word about
    /// this node's leadership as of `now`.
    pub fn evaluate(&mut self, now: Millis, view: LeaderView) {
        self.check_now(now);
        self.view = view;
        if !view.leading {
            self.proposed = false;
        }
        self.settle_health();
        self.judge_self();
        let standing = self.judge_peers();
        let held = self.judge_cut();
        self.explain(held.or(standing));
        self.adopt_leader_notice();
    }

    /// The newest of this node's stamps that a majority of voters is known to have received;
    /// this node, if it votes, has received `now`.
    pub fn quorum_echo(&self) -> Millis {
        self.members
            .reached_by_majority(|id| match self.position(id) {
                Some(i) => self.peers[i].evidence.echoed(),
                None if id == self.me => self.clock.now(),
                None => 0,
            })
    }

    fn settle_health(&mut self) {
        let at = self.clock.listened();
        if self.health.is_due(at, self.timers.keepalive) {
            let deaf = self.is_deaf();
            self.health.settle(at, deaf);
        }
    }

    /// Whether this node misses at least half of the voters, and more than one, that most of the
    /// other witnesses hear. A single broken link is not deafness: it would silence both of its
    /// ends as witnesses, and a dead third node could never be put out.
    fn is_deaf(&self) -> bool {
        let at = self.clock.listened();
        let (mut audible, mut missed) = (0, 0);
        for target in self.members.voters().filter(|&id| id != self.me) {
            let (mut rows, mut hear) = (0, 0);
            for i in self.witnesses(target) {
                let item = self.peers[i].witness.item(target);
                rows += u32::from(item.is_some());
                hear += u32::from(
                    item.is_some_and(|item| Millis::from(item.age) < self.timers.warntime),
                );
            }
            if 2 * hear <= rows {
                continue;
            }
            audible += 1;
            let peer = self.position(target).map(|i| &self.peers[i].evidence);
            missed += u32::from(peer.is_some_and(|e| e.silence(at) >= self.timers.warntime));
        }
        missed >= 2 && 2 * missed >= audible
    }

    /// Positions of the other voters whose testimony about `target` counts.
    fn witnesses(&self, target: NodeId) -> impl Iterator<Item = usize> + '_ {
        let instant = self.instant();
        (0..self.peers.len()).filter(move |&i| {
            let peer = &self.peers[i];
            peer.id != target && self.members.votes(peer.id) && peer.witness.counts(instant)
        })
    }

    fn judge_self(&mut self) {
        let quorum_echo = self.quorum_echo();
        let keepalive = self.timers.keepalive;
        self.recovering = self.clock.recovering(keepalive, quorum_echo);
        // One that leads its own way out gives leave to others, not to itself.
        let stays = self.members.incoming().contains(&self.me);
        if self.view.leading && self.view.fresh && stays {
            self.lease.lead(quorum_echo);
        }
        if let Some((fenced, why)) = self.lease.judge(self.clock.now(), &self.timers) {
            self.outputs.push(Output::Fence { fenced, why });
        }
    }

    /// What all voters but `target` say about it.
    pub(super) fn tally(&self, target: NodeId) -> Tally {
        let (instant, at) = (self.instant(), self.clock.listened());
        let others = self.members.voters().filter(|&id| id != target);
        let reports = others.filter_map(|witness| {
            if witness == self.me {
                return Some(self.own_report(target));
            }
            let peer = &self.peers[self.position(witness)?];
            let item = peer.witness.item(target);
            let item = item.filter(|_| peer.witness.counts(instant));
            Some(Report {
                witness,
                testimony: item.map(|item| Testimony {
                    age: (item.age != u32::MAX).then_some(Millis::from(item.age)),
                    span: Millis::from(item.span),
                }),
                heard_ago: peer.witness.heard_ago(target, at),
            })
        });
        weigh(&self.members, &self.timers, &reports.collect::<Vec<_>>())
    }

    fn own_report(&self, target: NodeId) -> Report {
        let at = self.clock.listened();
        let peer = self.position(target).map(|i| &self.peers[i]);
        let age = peer.and_then(|peer| peer.evidence.age(at));
        let testimony = peer.filter(|_| self.health.is_healthy());
        Report {
            witness: self.me,
            testimony: testimony.map(|peer| Testimony {
                age,
                span: peer.evidence.span(at),
            }),
            heard_ago: age,
        }
    }

    /// Gives every peer its state. Returns what stands in the way of a verdict, if only a
    /// verdict is missing, with the node it is about.
    fn judge_peers(&mut self) -> Option<(Vec<NodeId>, Held)> {
        let at = self.clock.listened();
        self.polling = false;
        let mut standing = None;
        for i in 0..self.peers.len() {
            let peer = &self.peers[i];
            let silence = peer.evidence.silence(at);
            let heard = peer.evidence.was_heard();
            // Whom this node hears is not dead, whatever the others say.
            if peer.excluded || heard && silence < self.timers.warntime {
                let state = match (peer.excluded, peer.returned) {
                    (false, _) => NodeState::Alive,
                    (true, true) => NodeState::Returned,
                    (true, false) => NodeState::Excluded,
                };
                self.set_state(i, state, None, None);
                continue;
            }
            let tally = self.tally(peer.id);
            self.polling |= self.view.leading && self.timers.deadtime > 0 && tally.near;
            let state = match (tally.dead, heard) {
                (true, _) => NodeState::Suspect,
                (false, false) => NodeState::Joining,
                (false, true) => NodeState::Late,
            };
            let held = self.undecided(&tally, silence, heard);
            let foreseen = match held.as_ref().map(|held| held.by) {
                None | Some(BlockedBy::InitDead) => tally.quorate && tally.heard_by == 0,
                Some(_) => false,
            };
            let left = (foreseen && silence >= self.timers.warntime).then_some(tally.left);
            self.peers[i].silent = if tally.dead { tally.silent } else { silence };
            self.set_state(i, state, held.as_ref().map(|held| held.by), left);
            let id = self.peers[i].id;
            standing = standing.or(held.map(|held| (vec![id], held)));
        }
        standing
    }

    /// Why a silent node is not dead, where that is not simply because somebody hears it.
    fn undecided(&self, tally: &Tally, silence: Millis, heard: bool) -> Option<Held> {
        let need = match heard {
            true => self.timers.deadtime,
            false => self.timers.initdead,
        };
        if tally.dead || silence < self.timers.warntime {
            None
        } else if self.timers.deadtime == 0 {
            Some(Held::new(BlockedBy::Disabled, "hb_deadtime is 0"))
        } else if tally.initdead && silence >= self.timers.deadtime {
            let why = format!(
                "a witness that has not heard it in its run demands {}",
                seconds(self.timers.initdead)
            );
            Some(Held::new(BlockedBy::InitDead, why))
        } else if !tally.quorate && silence >= need {
            let why = format!("only {} healthy witnesses report", tally.witnesses);
            Some(Held::new(BlockedBy::NoQuorumAfter, why))
        } else {
            None
        }
    }

    fn set_state(
        &mut self,
        i: usize,
        state: NodeState,
        blocked_by: Option<BlockedBy>,
        excludes_in: Option<Millis>,
    ) {
        let silent = self.peers[i].evidence.silence(self.clock.listened());
        let peer = &mut self.peers[i];
        peer.blocked_by = blocked_by.unwrap_or_default();
        peer.excludes_in = excludes_in;
        let old = std::mem::replace(&mut peer.state, state);
        if old != state {
            let id = peer.id;
            self.outputs.push(Output::NodeChange {
                id,
                state,
                old,
                silent,
            });
        }
    }

    /// Collects the dead, and proposes them unless something holds them back. Returns what does.
    fn judge_cut(&mut self) -> Option<(Vec<NodeId>, Held)> {
        let dead = self.peers.iter().filter(|p| p.state == NodeState::Suspect);
        let dead: Vec<NodeId> = dead.map(|peer| peer.id).collect();
        self.cut.update(!dead.is_empty(), self.clock.listened());
        if dead.is_empty() {
            self.consent.forget();
            return None;
        }
        let held = self.hold_or_propose(&dead);
        let by = held.as_ref().map(|held| held.by);
        let left = match by {
            None => Some(0),
            Some(BlockedBy::Settling) => {
                Some(self.cut.settling(self.clock.listened(), self.timers.settle))
            }
            Some(_) => None,
        };
        for peer in &mut self.peers {
            if peer.state == NodeState::Suspect {
                peer.blocked_by = by.unwrap_or_default();
                peer.excludes_in = left;
            }
        }
        held.map(|held| (dead, held))
    }

    fn hold_or_propose(&mut self, dead: &[NodeId]) -> Option<Held> {
        let now = self.clock.now();
        if let Some(held) = self.guarded(dead) {
            return Some(held);
        }
        if self.proposed {
            return None;
        }
        if let Some(held) = self.unsettled(dead) {
            return Some(held);
        }
        match self.consent.step(dead, now) {
            Step::Hold(held) => Some(held),
            Step::Ask => {
                let cut = dead.to_vec();
                self.outputs.push(Output::AskGuard { cut });
                Some(Held::new(BlockedBy::Veto, "the host has not answered yet"))
            }
            Step::Propose => {
                self.consent.forget();
                self.proposed = true;
                let suspects = self.peers.iter().filter(|p| p.state == NodeState::Suspect);
                self.outputs.push(Output::Exclude {
                    ids: dead.to_vec(),
                    silent: suspects.map(|peer| clamp_age(peer.silent)).collect(),
                });
                None
            }
        }
    }

    fn guarded(&self, dead: &[NodeId]) -> Option<Held> {
        let at = self.clock.listened();
        let alive = |id: NodeId| match self.position(id) {
            Some(i) => {
                let peer = &self.peers[i];
                let age = peer.evidence.age(at);
                !peer.excluded && age.is_some_and(|age| age < self.timers.warntime)
            }
            None => id == self.me,
        };
        Situation {
            members: &self.members,
            timers: &self.timers,
            cut: dead,
            view: self.view,
            now: self.clock.now(),
            score: self.health.score(),
            healthy: self.health.is_healthy(),
            recovering: self.recovering,
            unaccounted: self.unaccounted(dead),
            alive: &alive,
        }
        .held()
    }

    /// A voter outside the cut that others heard clearly after its last row came here: it may
    /// have heard the dead, and confirmed their leases, without this node knowing.
    fn unaccounted(&self, dead: &[NodeId]) -> Option<NodeId> {
        let (instant, at) = (self.instant(), self.clock.listened());
        let deadtime = self.timers.deadtime;
        self.members.voters().find(|&voter| {
            let Some(i) = self.position(voter) else {
                return false;
            };
            let peer = &self.peers[i];
            if dead.contains(&voter) || peer.witness.is_fresh(instant) {
                return false;
            }
            let rows = self.witnesses(voter);
            let ages = rows.filter_map(|w| self.peers[w].witness.item(voter));
            let heard = ages.map(|item| Millis::from(item.age));
            let heard = heard.chain(peer.evidence.age(at)).min();
            let Some(heard) = heard.filter(|&ago| ago < deadtime) else {
                return false;
            };
            let report = peer.witness.row_age(at);
            report.is_none_or(|age| age > heard + 3 * self.timers.keepalive)
        })
    }

    /// Whether the cut must wait for something that passes by itself.
    fn unsettled(&self, dead: &[NodeId]) -> Option<Held> {
        let held = |why: String| Some(Held::new(BlockedBy::Settling, why));
        if self.view.change_in_flight {
            return held("a change of membership is not yet committed".into());
        }
        if self.clock.now() < self.retry_at {
            return held("the last proposal was not accepted".into());
        }
        let at = self.clock.listened();
        let left = self.cut.settling(at, self.timers.settle);
        let late = self.peers.iter().find(|peer| {
            self.members.votes(peer.id)
                && !dead.contains(&peer.id)
                && peer.evidence.silence(at) >= self.timers.warntime
        })?;
        if left == 0 {
            return None;
        }
        held(format!(
            "{} is late too, waiting {}",
            late.id,
            seconds(left)
        ))
    }

    /// Puts what holds an exclusion back into words: who, which code, values and threshold.
    fn explain(&mut self, held: Option<(Vec<NodeId>, Held)>) {
        self.why.clear();
        let Some((ids, held)) = held else { return };
        for (n, id) in ids.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            self.why.push_str(&format!("{separator}{id}"));
        }
        let silent = self.peers.iter().filter(|peer| ids.contains(&peer.id));
        let silent = silent.map(|peer| peer.silent).min().unwrap_or(0);
        self.why.push_str(&format!(
            " silent for {}; held back by {}: {}",
            seconds(silent),
            held.by.code(),
            held.why
        ));
        if self.why.len() > WHY_MAX {
            let end = (0..=WHY_MAX).rev().find(|&n| self.why.is_char_boundary(n));
            self.why.truncate(end.unwrap_or(0));
        }
    }

    /// What a leader tells the others: every member that it does not take for alive.
    pub(super) fn assessment(&self) -> Notice {
        let peers = self.peers.iter();
        let notable = peers.filter(|peer| !peer.excluded && peer.state != NodeState::Alive);
        Notice {
            nodes: notable.map(|p| (p.id, p.state, p.blocked_by)).collect(),
            why: self.why.clone(),
        }
    }

    /// The leader's notice, on a node that does not lead, as long as it is fresh.
    pub(super) fn fresh_leader_notice(&self) -> Option<&Notice> {
        let at = self.clock.listened();
        let limit = NOTICE_KEEPALIVES * self.timers.keepalive;
        let notice = self.leader_notice.as_ref().filter(|_| !self.view.leading);
        notice
            .filter(|(came, _)| at.since(*came) <= limit)
            .map(|(_, notice)| notice)
    }

    /// Shows the leader's reasons instead of "this node does not lead".
    fn adopt_leader_notice(&mut self) {
        let Some(notice) = self.fresh_leader_notice() else {
            return;
        };
        let nodes = notice.nodes.clone();
        for peer in self.peers.iter_mut().filter(|peer| !peer.excluded) {
            let entry = nodes.iter().find(|(id, ..)| *id == peer.id);
            peer.blocked_by = entry.map_or(BlockedBy::None, |&(_, _, by)| by);
            let passing = matches!(
                peer.blocked_by,
                BlockedBy::None | BlockedBy::InitDead | BlockedBy::Settling
            );
            peer.excludes_in = peer.excludes_in.filter(|_| passing);
        }
    }
}

/// Milliseconds as an operator reads them.
fn seconds(ms: Millis) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
