//! Terms, votes and roles: paper 5.1, 5.2, 5.4.1; thesis 3.10, 4.2.3, 9.6.

use super::data::{Id, Input, Message, Role, Step, VoteRequest};
use super::history::History;
use super::reads::Lease;
use super::{Node, Peer, Verdict, Was, received};

impl Node {
    /// Votes and acknowledgements count in the term and the role that they were asked for in
    /// (rules 3, 7, 13).
    pub(super) fn hear_answer(&mut self, was: &Was, now: u64, from: Id, message: &Message) {
        let granted = true;
        let (pre_vote, vote) = (
            Message::PreVoteReply {
                term: was.term + 1,
                granted,
            },
            |early| Message::VoteReply {
                term: was.term,
                granted,
                early,
            },
        );
        let current = message.term() == was.term;
        match (was.role, message) {
            (Role::PreCandidate, _) if *message == pre_vote => self.pregrants.push(from),
            (Role::Candidate, Message::VoteReply { early, .. }) if *message == vote(*early) => {
                self.grants.push(from);
                self.early |= early;
            }
            (
                Role::Leader,
                Message::Accepted {
                    seq, match_index, ..
                },
            ) if current => {
                self.hear_peer(now, from, *match_index, *seq);
            }
            (Role::Leader, Message::Rejected { seq, .. } | Message::SnapshotReply { seq, .. })
                if current =>
            {
                self.hear_peer(now, from, 0, *seq)
            }
            _ => {}
        }
    }

    fn hear_peer(&mut self, now: u64, id: Id, matched: u64, seq: u64) {
        let known = self.peers.iter().position(|peer| peer.id == id);
        let at = known.unwrap_or_else(|| {
            let (matched, answered, heard_at) = (0, 0, now);
            self.peers.push(Peer {
                id,
                matched,
                answered,
                heard_at,
            });
            self.peers.len() - 1
        });
        let peer = &mut self.peers[at];
        peer.matched = peer.matched.max(matched);
        peer.answered = peer.answered.max(seq);
        peer.heard_at = now;
    }

    /// Thesis 9.6, rule 6: a pre-vote changes nothing on its receiver.
    pub(super) fn check_pre_vote(&mut self, was: &Was, step: &Step) -> Verdict {
        let Some((from, Message::PreVote(request))) = received(step) else {
            return Ok(());
        };
        let after = &step.after;
        let same = (after.term, after.vote, after.role) == (was.term, was.vote, was.role)
            && (after.leader, after.commit) == (was.leader, was.commit)
            && (after.kept, after.suffix.len()) == (was.last, 0);
        rule!(same => "thesis 9.6, rule 6", "a pre-vote changes something");
        let new = request.term > was.term && !self.is_barred(self.excluded);
        let current = self.is_up_to_date(request) && self.respects_claim(request);
        if new && current && !self.is_loyal(step.now) {
            self.askers.insert((from, request.term));
        }
        Ok(())
    }

    /// A host's word that a connection is lost: nothing changes that anybody sees. Who follows that
    /// node is loyal no more, unless a leader counts on it.
    pub(super) fn check_lost(&mut self, was: &Was, step: &Step) -> Verdict {
        let Input::Lost(id) = step.input else {
            return Ok(());
        };
        let after = &step.after;
        let same = (after.term, after.vote, after.role) == (was.term, was.vote, was.role)
            && (after.leader, after.commit) == (was.leader, was.commit)
            && (after.kept, after.suffix.len()) == (was.last, 0);
        rule!(same => "rule 8", "a lost connection changes something");
        let led = self.role == Role::Follower && self.leader == id;
        if led && !self.lease.enabled {
            self.lost_at = self.lost_at.or(Some(step.now));
            // A vote is waited for as long as it may have made a leader.
            self.voted_at = None;
        }
        Ok(())
    }

    pub(super) fn take_term_and_vote(&mut self, was: &Was, step: &Step) -> Verdict {
        let after = &step.after;
        let (term, vote) = (after.term, after.vote);
        rule!(term >= was.term => "paper 5.1, I3", "term {} becomes {term}", was.term);
        let campaigns = term == was.term + 1 && after.role == Role::Candidate;
        if term > was.term && !campaigns {
            let decreed = matches!(step.input, Input::Bootstrap(_)) && term == 1;
            let taught = received(step).is_some_and(|(_, m)| self.is_taught(m, step)) || decreed;
            rule!(taught => "paper 5.1, rules 6, 8, 13", "nothing brings term {term}");
        }
        let expected = match (campaigns, term > was.term) {
            (true, _) => self.id,
            (false, true) => 0,
            (false, false) => was.vote,
        };
        if vote != expected {
            let new = expected == 0;
            rule!(new => "paper 5.2, rule 2", "vote for n{expected} becomes n{vote}");
            self.check_grant(step)?;
        } else if term > was.term {
            self.check_refusal(step)?;
        }
        if term > was.term {
            self.heard = Default::default();
            self.grants.clear();
            self.forced = false;
            self.voted_late = false;
            // Its own vote, if it campaigns.
            self.early = self.is_promised(step.now);
        }
        (self.term, self.vote) = (term, vote);
        let asked = matches!(received(step), Some((from, Message::Vote(r)))
            if from == vote && r.term == term);
        self.voted_late |= asked && was.role != Role::Leader && !self.is_promised(step.now);
        Ok(())
    }

    /// Whether a message may make its receiver adopt its term.
    fn is_taught(&self, message: &Message, step: &Step) -> bool {
        message.term() == step.after.term
            && match message {
                Message::PreVote(_) | Message::PreVoteReply { granted: true, .. } => false,
                Message::Vote(request) => request.transfer || !self.is_loyal(step.now),
                _ => true,
            }
    }

    /// Paper 5.2 and 5.4.1, rules 1, 2, 8.
    fn check_grant(&mut self, step: &Step) -> Verdict {
        let after = &step.after;
        let request = match received(step) {
            Some((from, Message::Vote(request))) if from == after.vote => request,
            _ => {
                return Err(format!(
                    "paper 5.2, rule 2: votes unasked for n{}",
                    after.vote
                ));
            }
        };
        rule!(request.term == after.term => "paper 5.2", "votes in another term than asked");
        let current = self.is_up_to_date(request);
        rule!(current => "paper 5.4.1, rule 1", "votes for a log that lacks entries");
        let whole = self.respects_claim(request);
        rule!(whole => "recovery 5", "votes for {request:?}, and claims {:?}", self.claim);
        let loyal = self.is_loyal(step.now) && !request.transfer;
        rule!(!loyal => "thesis 4.2.3, rule 8", "votes while it hears a leader");
        let promised = self.lease.enabled && self.is_promised(step.now) && !request.transfer;
        rule!(!promised => "thesis 6.4.1, rule 55", "votes before its leader's lease has ended");
        let barred = self.is_barred(after.excluded);
        rule!(!barred => "HardState", "votes while excluded");
        let role = after.role;
        // Thesis 9.6: a pre-candidate is not one yet, and free to vote.
        let free = matches!(role, Role::Follower | Role::PreCandidate);
        rule!(free => "paper 5.2", "votes for another as {role:?}");
        self.voted_at = Some(step.now);
        Ok(())
    }

    /// Paper 5.2: one who enters a term for a candidate's sake has no vote to save in it, and gives
    /// it to whoever may have it. A quorum may depend on it (rule 47).
    fn check_refusal(&self, step: &Step) -> Verdict {
        let Some((_, Message::Vote(request))) = received(step) else {
            return Ok(());
        };
        // A blank node may be one that has lost its state (rule 51); a claim says what it was.
        let blank = self.log.end().0 == 0 && self.claim.is_none();
        let current = self.is_up_to_date(request) && self.respects_claim(request);
        let due = current && !blank && !self.is_barred(step.after.excluded);
        rule!(!due => "paper 5.2, rule 47", "withholds its vote without a reason");
        Ok(())
    }

    pub fn is_up_to_date(&self, request: &VoteRequest) -> bool {
        let (index, term) = self.log.end();
        (request.last_term, request.last_index) >= (term, index)
    }

    /// What a node once held counts like what it holds.
    pub fn respects_claim(&self, request: &VoteRequest) -> bool {
        let last = (request.last_term, request.last_index);
        self.claim.is_none_or(|claim| last >= claim)
    }

    /// An excluded node abstains until a configuration of a later epoch, in force as soon as it
    /// is appended (thesis 4.1), holds it again, be it on its way out once more (rule 47).
    pub fn is_barred(&self, excluded: Option<(u64, u64)>) -> bool {
        let config = self.config().map(|(_, config)| config);
        let back = |epoch| config.is_some_and(|c| c.readmits(self.id, epoch));
        excluded.is_some_and(|(epoch, _)| !back(epoch))
    }

    /// Where reads trust clocks, a leader may count on this node: on what it has heard, or may have
    /// heard in an earlier run, whichever leader it was.
    pub fn is_promised(&self, now: u64) -> bool {
        now < self.contact.unwrap_or(self.started_at) + self.election
    }

    /// It follows a leader that it has heard within the election timeout.
    pub fn is_loyal(&self, now: u64) -> bool {
        let heard = self.heard.at.is_some_and(|at| now < at + self.election);
        self.role == Role::Follower && self.leader != 0 && heard && self.lost_at.is_none()
    }

    pub(super) fn take_role(&mut self, was: &Was, step: &Step, history: &mut History) -> Verdict {
        let (role, same_term) = (step.after.role, step.after.term == was.term);
        let steps_aside = matches!(received(step),
            Some((_, m @ (Message::Append { .. } | Message::Snapshot { .. })))
                if m.term() == step.after.term);
        let right = !steps_aside || role != Role::Candidate;
        rule!(right => "paper 5.2", "{role:?} hears the leader of its term");
        let stays = role == was.role && same_term;
        match role {
            _ if stays => {}
            Role::Follower => {}
            Role::PreCandidate => {
                let right = was.role != Role::Leader && same_term;
                rule!(right => "thesis 9.6", "{:?} turns pre-candidate", was.role);
                self.check_campaign(was, step)?;
            }
            Role::Candidate => {
                let right = was.role != Role::Leader && step.after.term == was.term + 1;
                rule!(right => "paper 5.2", "{:?} turns candidate", was.role);
                self.check_campaign(was, step)?;
                self.check_chances(was, step)?;
            }
            Role::Leader => {
                let right = was.role == Role::Candidate && same_term;
                rule!(right => "paper 5.2", "{:?} turns leader", was.role);
                self.check_election()?;
                let right = step.after.early || !self.early;
                rule!(right => "detection.md 4.6", "leads by an early vote as if by none");
                self.peers.clear();
                (self.seq, self.opened_at) = (0, was.last + 1);
                self.lease = Lease::new(self.lease.enabled);
                history.lead(self)?;
            }
        }
        if !stays {
            // Rule 7c.
            self.pregrants.clear();
        }
        if was.role == Role::Leader && role != Role::Leader {
            // It counted on itself until now.
            self.contact = Some(step.now);
        }
        if step.after.leader != was.leader || !same_term {
            self.lost_at = None;
        }
        (self.role, self.leader) = (role, step.after.leader);
        Ok(())
    }

    /// Who may begin to campaign, and when: paper 5.2, rules 10, 47.
    fn check_campaign(&self, was: &Was, step: &Step) -> Verdict {
        let votes = |config: Option<&(u64, _)>| {
            config.is_some_and(|(_, c): &(u64, std::sync::Arc<super::Config>)| c.is_voter(self.id))
        };
        let voter = votes(self.log.config()) || votes(self.log.config_at(step.after.commit));
        rule!(voter => "thesis 4.2.2, rules 47, 49, I16", "campaigns and is no voter");
        let barred = self.is_barred(step.after.excluded);
        rule!(!barred => "HardState", "campaigns while excluded");
        let whole = self.claim.is_none();
        rule!(whole => "recovery 5", "campaigns, and may lack {:?}", self.claim);
        let loading = self.snapshots.installing.is_some();
        rule!(!loading => "rule 36", "campaigns while a snapshot is being loaded");
        let told = matches!(step.input, Input::Receive { .. });
        if was.role == Role::Follower && !told {
            let quiet = |at: Option<u64>| at.is_none_or(|at| step.now >= at + self.election);
            let timed_out = quiet(self.voted_at) && (was.leader == 0 || quiet(self.heard.at));
            // A leader that is connected after all is heard within a heartbeat.
            let lost = self
                .lost_at
                .is_some_and(|at| step.now >= at + self.heartbeat);
            rule!(timed_out || lost => "paper 5.2, rule 10", "campaigns before its timeout");
        }
        Ok(())
    }

    /// A campaign needs a quorum of pre-votes, or a leader that hands over.
    fn check_chances(&mut self, was: &Was, step: &Step) -> Verdict {
        let Some((_, config)) = self.config() else {
            return Ok(());
        };
        if let Some((from, message @ Message::TimeoutNow { .. })) = received(step) {
            let (index, term) = self.log.end();
            let fits = matches!(message, Message::TimeoutNow { last_index, last_term, .. }
                if (*last_index, *last_term) == (index, term));
            let current = message.term() == was.term && (was.leader == 0 || was.leader == from);
            let fit = fits && current && self.is_secure(index) && config.is_voter(self.id);
            rule!(fit => "thesis 3.10, rule 57", "heeds {message:?}, ends at {index}.{term}");
            self.forced = true;
            return Ok(());
        }
        let granted = config.agrees(|id| id == self.id || self.pregrants.contains(&id));
        rule!(granted => "thesis 9.6, rule 9", "campaigns with pre-votes of {:?}", self.pregrants);
        Ok(())
    }

    /// Paper 5.2, thesis 4.3: votes of a quorum, its own only once it is durable (rule 3).
    fn check_election(&self) -> Verdict {
        let own = (self.hard.term, self.hard.vote) == (self.term, self.id);
        let has = |id| {
            if id == self.id {
                own
            } else {
                self.grants.contains(&id)
            }
        };
        let elected = self.config().is_some_and(|(_, config)| config.agrees(has));
        rule!(elected => "paper 5.2, rules 3, 45", "leads by {:?}, own vote {own}", self.grants);
        Ok(())
    }
}
