//! Leaders and candidates: I1, I7, I16, what a leader believes of others (I13), its limits (I23)
//! and how long it leads without a quorum (L4).

use raftkeel::core::{Index, Message, Raft, RoleKind};

use super::ghost::{Led, reached};
use super::{Checker, place};
use crate::judge::Call;
use crate::marks::Mark::*;
use crate::net::MAX_NODES;
use crate::server::{Answer, Input};

/// Most appends with entries, and most of their bytes, that one peer is sent without an answer;
/// one append may exceed the bytes.
const WINDOW: (usize, usize) = (64, 4 << 20);

impl Checker {
    pub(super) fn leads(&mut self, call: &Call<'_, Raft>) {
        if !call.after.leads() {
            return;
        }
        let term = call.after.term;
        let went_on = call.before.leads() && call.before.term == term;
        if !went_on {
            self.elected(call);
        }
        self.election_safety(call);
        let led = self.leaders[term as usize].as_mut().expect("it leads");
        let log = &self.nodes[call.node].log;
        while led.log.last() < log.last() {
            led.log.push(term);
        }
        self.leader_without_quorum(call);
    }

    /// A server begins to lead.
    fn elected(&mut self, call: &Call<'_, Raft>) {
        let (at, term) = (call.node, call.after.term);
        let node = &mut self.nodes[at];
        node.heard = [call.now; MAX_NODES];
        node.in_flight = [(0, 0); MAX_NODES];
        // Its first entry is its own.
        let own = call.server.log().from(call.before.last_index + 1);
        node.uncommitted = own.iter().map(|e| e.payload.weight()).sum();
        self.vote_is_durable(at, call.id, term);
        self.leader_completeness(call);
        let node = &self.nodes[at];
        while self.leaders.len() <= term as usize {
            self.leaders.push(None);
        }
        let led = Led {
            id: call.id,
            log: node.log.clone(),
        };
        self.leaders[term as usize].get_or_insert(led);
        let config = call.server.configuration();
        LeaderElected.hit();
        if config.members().count() == 1 {
            LeaderAlone.hit();
        }
        if call.before.joint {
            JointInherited.hit();
            if call.before.config_index > call.before.commit {
                JointInheritedUncommitted.hit();
            }
        } else if call.before.config_index > call.before.commit {
            ChangeInherited.hit();
        }
        if !config.is_voter(call.id) {
            LeaderOutside.hit();
        }
    }

    /// I1: a term has one leader, in all of history.
    fn election_safety(&self, call: &Call<'_, Raft>) {
        let term = call.after.term;
        let led = self.leaders[term as usize].as_ref();
        let leader = led.map(|led| led.id);
        assert!(
            leader == Some(call.id),
            "I1: {} leads term {term}, and so did {leader:?}",
            call.id
        );
    }

    /// I7: a new leader has all that was committed in earlier terms.
    fn leader_completeness(&self, call: &Call<'_, Raft>) {
        let (log, term) = (&self.nodes[call.node].log, call.after.term);
        let earlier = self.committed.iter().rposition(|c| c.by_term < term);
        let Some(last) = earlier else {
            return;
        };
        assert!(
            log.holds(last as Index + 1, self.committed[last].term),
            "I7: leader {} of term {term} lacks the committed entry {}",
            call.id,
            last + 1
        );
    }

    /// I16: only a voter, of the newest configuration or of the committed one, campaigns, or asks
    /// whether it could.
    pub(super) fn campaigns(&mut self, call: &Call<'_, Raft>) {
        let asks = |role| role == RoleKind::PreCandidate;
        let asked = asks(call.after.role) && !asks(call.before.role);
        if call.after.elections == call.before.elections && !asked {
            return;
        }
        let (node, id) = (&self.nodes[call.node], call.id);
        let newest = node.configs.last();
        let committed = node.configs.iter().rev();
        let committed = committed.clone().find(|c| c.0 <= call.before.commit);
        let votes = |c: Option<&super::Configured>| c.is_some_and(|c| c.2.is_voter(id));
        assert!(
            votes(newest) || votes(committed),
            "I16: {id} campaigns and is no voter"
        );
        if !votes(newest) {
            CampaignByCommitted.hit();
        }
        let config = newest.map(|c| &c.2);
        let readmits = |epoch| config.is_some_and(|c| c.epoch > epoch && c.contains(id));
        let out = call.after.excluded.is_some_and(|x| !readmits(x.epoch));
        assert!(!out, "I16: {id} campaigns and is excluded");
        let claim = call.before.claim;
        assert!(
            claim.is_none(),
            "I16: {id} campaigns, and has lost what it held up to {claim:?}"
        );
        let loads = node.installing;
        assert!(
            !loads,
            "I16: {id} campaigns while its host loads a snapshot"
        );
    }

    /// What a leader believes of others.
    pub(super) fn believes(&mut self, call: &Call<'_, Raft>) {
        if !call.after.leads() {
            return;
        }
        if let Input::Receive { from, packet } = call.input {
            let peer = place(*from);
            let node = &mut self.nodes[call.node];
            node.in_flight[peer] = (0, 0);
            let answers = matches!(packet, Message::AppendReply(_) | Message::SnapshotReply(_));
            if answers && packet.term() == call.after.term {
                node.heard[peer] = call.now;
                self.leader_match(call, peer);
            }
        }
        if call.after.config_index != call.before.config_index {
            (0..self.nodes.len()).for_each(|peer| self.leader_match(call, peer));
        }
        self.bounded_windows(call);
    }

    /// I13: a leader believes no more than it was told.
    fn leader_match(&self, call: &Call<'_, Raft>, peer: usize) {
        let peer = &self.nodes[peer];
        let Some(progress) = call.server.progress(peer.id) else {
            return;
        };
        let told = peer.acked(call.after.term);
        assert!(
            progress.match_index() <= told,
            "I13: {} believes that {} has {}, it said {told}",
            call.id,
            peer.id,
            progress.match_index()
        );
        assert!(
            progress.next_index() > progress.match_index(),
            "I13: {} would send {} what it has",
            call.id,
            peer.id
        );
    }

    /// I23: no more is on its way to a peer than the window allows.
    fn bounded_windows(&mut self, call: &Call<'_, Raft>) {
        let node = &mut self.nodes[call.node];
        for (to, message) in &call.output.sent {
            let Message::Append(append) = message else {
                continue;
            };
            if append.entries.is_empty() {
                continue;
            }
            let (count, bytes) = &mut node.in_flight[place(*to)];
            assert!(
                *bytes <= WINDOW.1,
                "I23: {} sends {to} more bytes than the window holds",
                call.id
            );
            *count += 1;
            *bytes += append
                .entries
                .iter()
                .map(|e| e.payload.weight())
                .sum::<usize>();
            assert!(
                *count <= WINDOW.0,
                "I23: {} sends {to} more appends than the window holds",
                call.id
            );
            if *count == WINDOW.0 {
                WindowFull.hit();
            }
        }
    }

    /// I23: no more proposals wait for their commit than the limit allows, but for a single one.
    pub(super) fn bounded_backlog(&self, call: &Call<'_, Raft>, size: usize) {
        let node = &self.nodes[call.node];
        assert!(
            node.uncommitted == 0 || node.uncommitted + size <= node.limits.uncommitted_bytes,
            "I23: {} takes a proposal of {size} bytes, {} wait and the limit is {}",
            call.id,
            node.uncommitted,
            node.limits.uncommitted_bytes
        );
        debug_assert!(matches!(call.output.answer, Answer::Placed(..)));
    }

    /// L4: who has not heard a quorum for an election timeout leads no more.
    fn leader_without_quorum(&self, call: &Call<'_, Raft>) {
        if !matches!(call.input, Input::Tick) {
            return;
        }
        let node = &self.nodes[call.node];
        let heard = |id| match id == call.id {
            true => call.now,
            false => node.heard[place(id)],
        };
        let newest = reached(call.server.configuration(), heard);
        assert!(
            call.now < newest + node.limits.election,
            "L4: {} leads at {}, and heard a quorum at {newest}",
            call.id,
            call.now
        );
    }
}
