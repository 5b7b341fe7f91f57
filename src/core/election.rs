//! Elections: pre-vote, votes, stickiness, check-quorum (paper 5.2, 5.4.1; thesis 9.6; raft.md
//! rules 1 to 13). All of them are always on, for each makes up for another's weakness.

use std::collections::BTreeMap;

use super::lease::Numbers;
use super::message::{Message, VoteReply, VoteRequest};
use super::persistence::Effect;
use super::progress::Progress;
use super::quorum;
use super::raft::{Leader, Raft, Role};
use super::read::Questions;
use super::types::{Millis, NodeId, Payload, Term};

/// Milliseconds over which timeouts are spread at least, be E as short as that: as many different
/// ones there are.
const LEAST_SPREAD: Millis = 16;

impl Raft {
    /// Draws a new timeout from [E, 1.5E), or later if somebody else had better lead. The paper's
    /// [E, 2E) keeps a cluster waiting longer, and splits no fewer votes: tests/elections.rs counts
    /// them.
    pub(super) fn draw_election_timeout(&mut self) {
        let base = self.options.election;
        self.election_at = self.now + base + self.draw_of(base / 2);
    }

    /// Draws a wait of less than `spread`, which is taken for [`LEAST_SPREAD`] at least, as far as E
    /// allows; or a longer one if somebody else had better lead. The voter next in line to the leader
    /// has the first sixth for itself: where one is alone a short wait splits no votes. It leaves half
    /// of that to the others, who may have heard the leader a little later, and would still be loyal.
    pub(super) fn draw_of(&mut self, spread: Millis) -> Millis {
        let base = self.options.election;
        let spread = spread.max(base.min(LEAST_SPREAD));
        let deference = if self.is_outranked() { base } else { 0 };
        let sixth = spread.div_ceil(6);
        let (low, high) = match self.is_next_in_line() {
            Some(true) => (sixth / 2, sixth),
            Some(false) => (sixth, spread),
            None => (0, spread),
        };
        self.random.between(low, high) + deference
    }

    /// Whether this server's number follows the leader's among those of the voters, which are a
    /// ring; `None` if no leader is known.
    fn is_next_in_line(&self) -> Option<bool> {
        let leader = self.leader?;
        let voters = &self.configs.latest().voters;
        let behind = voters.partition_point(|id| *id <= leader);
        let next = voters.get(behind).or(voters.first());
        Some(next == Some(&self.id))
    }

    /// The first timeout of a run: a server alone has nobody to wait for, but for one who may have
    /// led it out of the cluster and reads by a lease still.
    pub(super) fn draw_first_timeout(&mut self) {
        self.draw_election_timeout();
        let config = self.configs.latest();
        let alone = config.is_only_voter(self.id);
        if alone && self.may_campaign() && !self.options.lease_reads {
            self.election_at = self.now;
        }
    }

    /// A voter of the configuration in force, or still of the committed one (raft.md rule 47).
    pub(super) fn may_campaign(&self) -> bool {
        let committed = self.configs.committed(self.commit);
        let voter = self.configs.latest().is_voter(self.id) || committed.is_voter(self.id);
        // Its own log may lack what others know to be committed.
        let whole = self.hard.claim.is_none() || cfg!(keel_bug = "damaged_campaigns");
        voter && whole && self.may_vote() && self.is_fit()
    }

    /// Not while its own disk does not answer, for it could not serve as a leader (raft.md
    /// rule 31); nor while the host loads a snapshot (rule 36).
    fn is_fit(&self) -> bool {
        let loading = self.incoming.as_ref().is_some_and(|i| i.installing);
        let since = self.writing_since();
        let waits = since.is_some_and(|since| self.now >= since + self.options.election);
        (!loading || cfg!(keel_bug = "campaign_while_loading")) && !waits
    }

    /// An excluded node abstains, and so does one that holds nothing: it may be a voter that
    /// has lost its state, whose vote could undo what it once acknowledged (raft.md rule 51).
    fn may_vote(&self) -> bool {
        // A claim stands for the state that was lost.
        let holds = self.log.last_index() > 0 || self.hard.claim.is_some();
        !self.is_excluded() && holds
    }

    /// A later configuration that holds this node again counts from its place in the log, known
    /// to be committed or not: others may need this vote to commit it (raft.md rule 47), also
    /// when it is on its way out once more.
    fn is_excluded(&self) -> bool {
        let latest = self.configs.latest();
        let readmits = |epoch| latest.epoch > epoch && latest.contains(self.id);
        self.hard.excluded.is_some_and(|x| !readmits(x.epoch))
    }

    /// Whether a live leader is known, as far as the host has not lost its connection to it: then
    /// nobody is helped to depose it. The base timeout counts, not the drawn one (raft.md rule 8).
    /// Where leaders read by leases, this promise holds however this server came to forget its leader, by a restart for example.
    fn is_sticky(&self) -> bool {
        let bound = self.leader.is_some() || self.options.lease_reads;
        self.is_leader() || (bound && !self.leader_lost && self.has_heard_lately())
    }

    pub(super) fn election_timed_out(&mut self) {
        // The leader is forgotten also by those who cannot campaign, for the status's sake, and
        // because a pre-candidate is never sticky (raft.md rule 7).
        self.become_follower(self.hard.term, None);
        self.draw_election_timeout();
        if self.may_campaign() && self.may_lead() {
            self.pre_campaign();
        }
    }

    fn pre_campaign(&mut self) {
        self.role = Role::PreCandidate { grants: Vec::new() };
        let request = self.vote_request(self.hard.term + 1, false);
        for peer in self.voting_peers() {
            // The term itself may still be on its way to the disk.
            let message = Message::PreVote(request.clone());
            self.after_hard(Effect::Send(peer, self.hard.term, Box::new(message)));
        }
        self.count_pre_vote(self.id);
    }

    fn vote_request(&self, term: Term, transfer: bool) -> VoteRequest {
        VoteRequest {
            term,
            last_index: self.log.last_index(),
            last_term: self.log.last_term(),
            transfer,
        }
    }

    fn voting_peers(&self) -> Vec<NodeId> {
        let config = self.configs.latest();
        let peers = config.members().filter(|id| config.is_voter(*id));
        peers.filter(|id| *id != self.id).collect()
    }

    fn count_pre_vote(&mut self, from: NodeId) {
        let config = self.configs.latest();
        let Role::PreCandidate { grants } = &mut self.role else {
            return;
        };
        if !grants.contains(&from) {
            grants.push(from);
        }
        if quorum::agreed(config, |id| grants.contains(&id)) {
            self.campaign(false);
        }
    }

    /// Enters a new term; the vote for oneself counts, and the requests leave, once term and
    /// vote are durable (raft.md rule 3). In a transfer nobody is asked to stay loyal to the leader.
    pub(super) fn campaign(&mut self, transfer: bool) {
        let early = self.has_heard_lately();
        self.become_follower(self.hard.term + 1, None);
        self.draw_election_timeout();
        self.elections += 1;
        self.role = Role::Candidate {
            grants: Vec::new(),
            transfer,
            early,
        };
        self.hard.vote = Some(self.id);
        if cfg!(keel_bug = "own_vote_before_sync") {
            self.campaign_durable();
            return;
        }
        self.after_hard(Effect::Campaign(self.hard.term));
    }

    pub(super) fn campaign_durable(&mut self) {
        let Role::Candidate { transfer, .. } = self.role else {
            return;
        };
        let request = self.vote_request(self.hard.term, transfer);
        for peer in self.voting_peers() {
            self.send(peer, Message::Vote(request.clone()));
        }
        self.count_vote(self.id, false);
    }

    fn count_vote(&mut self, from: NodeId, is_early: bool) {
        let config = self.configs.latest();
        let Role::Candidate { grants, early, .. } = &mut self.role else {
            return;
        };
        if !grants.contains(&from) {
            grants.push(from);
        }
        *early |= is_early && !cfg!(keel_bug = "early_votes_forgotten");
        if quorum::agreed(config, |id| grants.contains(&id)) {
            let early = *early;
            self.become_leader(early);
        }
    }

    fn become_leader(&mut self, early: bool) {
        let (now, last) = (self.now, self.log.last_index());
        let heartbeat = self.options.heartbeat;
        let members = self.configs.latest().members();
        let peers: BTreeMap<NodeId, Progress> = members
            .filter(|id| *id != self.id)
            .map(|id| (id, Progress::new(last, now)))
            .collect();
        self.leader = None;
        self.early = early;
        // What the host loads already will be its state.
        self.incoming.take_if(|incoming| !incoming.installing);
        self.role = Role::Leader(Leader {
            peers,
            opened_at: last + 1,
            numbers: Numbers::new(self.options.lease_reads, self.options.election),
            heartbeat_at: now + heartbeat,
            uncommitted: 0,
            questions: Questions::default(),
            transfer: None,
            willing_until: now,
            piece_at: now,
        });
        // It commits what earlier leaders left, and opens the way for changes (rule 4).
        if !cfg!(keel_bug = "no_noop") {
            self.append_own(Payload::Noop);
        }
        if cfg!(keel_bug = "joint_left_early") {
            self.leave_joint();
        }
    }

    /// When the newest contact with a quorum is an election timeout old (check-quorum). Any
    /// answer counts, refusals too; learners do not (raft.md rule 9).
    pub(super) fn quorum_lost_at(&self) -> Millis {
        let Role::Leader(leader) = &self.role else {
            return Millis::MAX;
        };
        let heard = |id: NodeId| {
            if id == self.id {
                return self.now;
            }
            leader.peers.get(&id).map_or(0, Progress::heard_at)
        };
        if cfg!(keel_bug = "no_check_quorum") {
            return Millis::MAX;
        }
        quorum::reached(self.configs.latest(), heard) + self.options.election
    }

    // ---- requests --------------------------------------------------------

    pub(super) fn on_pre_vote(&mut self, from: NodeId, request: &VoteRequest) {
        if cfg!(keel_bug = "pre_vote_changes_term") && request.term > self.hard.term {
            self.become_follower(request.term, None);
        }
        let granted = request.term > self.hard.term
            && self.may_vote()
            && !self.is_sticky()
            && self.is_current(request);
        // A granted pre-vote promises nothing and changes nothing here; a refusal teaches the
        // term, so that one who lags behind catches up with it (raft.md rule 6).
        let term = if granted {
            request.term
        } else {
            self.hard.term
        };
        let early = false;
        let reply = Message::PreVoteReply(VoteReply {
            term,
            granted,
            early,
        });
        self.after_hard(Effect::Send(from, self.hard.term, Box::new(reply)));
    }

    pub(super) fn on_pre_vote_reply(&mut self, from: NodeId, reply: &VoteReply) {
        if !reply.granted {
            if reply.term > self.hard.term {
                self.become_follower(reply.term, None);
            }
            return;
        }
        let mine = reply.term == self.hard.term + 1;
        if mine && self.configs.latest().is_voter(from) {
            self.count_pre_vote(from);
        }
    }

    pub(super) fn on_vote(&mut self, from: NodeId, request: &VoteRequest) {
        let loyal = self.is_sticky() && !cfg!(keel_bug = "not_sticky");
        if !request.transfer && loyal {
            return;
        }
        let back = cfg!(keel_bug = "old_term_adopted") && request.term < self.hard.term;
        if request.term > self.hard.term || back {
            self.become_follower(request.term, None);
        }
        let free = self.hard.vote.is_none()
            || self.hard.vote == Some(from)
            || cfg!(keel_bug = "second_vote");
        let granted =
            request.term == self.hard.term && free && self.may_vote() && self.is_current(request);
        let changes = cfg!(keel_bug = "second_vote") && self.hard.vote != Some(from);
        if granted && (self.hard.vote.is_none() || changes) {
            self.hard.vote = Some(from);
            self.staged.hard = true;
        }
        if granted {
            // Only a granted vote holds a voter's own campaign back (raft.md rule 10).
            self.draw_election_timeout();
        }
        let term = self.hard.term;
        let reply = Message::VoteReply(VoteReply {
            term,
            granted,
            early: granted && self.has_heard_lately() && !cfg!(keel_bug = "early_vote_hidden"),
        });
        if cfg!(keel_bug = "vote_before_sync") {
            self.send(from, reply);
            return;
        }
        self.after_hard(Effect::Send(from, term, Box::new(reply)));
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, reply: &VoteReply) {
        if reply.term > self.hard.term {
            self.become_follower(reply.term, None);
            return;
        }
        let current = reply.term == self.hard.term || cfg!(keel_bug = "vote_of_old_term");
        let mine = reply.granted && current;
        if mine && self.configs.latest().is_voter(from) {
            self.count_vote(from, reply.early);
        }
    }
}
