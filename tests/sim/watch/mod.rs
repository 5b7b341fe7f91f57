//! Recognises where a run gets to, from what goes into the servers and comes out of them. It
//! objects to nothing.

mod damage;
mod lost;
mod snapshots;

use std::collections::VecDeque;

use raftkeel::core::{
    Append, AppendOutcome, AppendReply, Message, Millis, NodeId, Persist, ProposeError, Raft,
    RoleKind, Snapshot, Term, TimeoutNow, VoteReply, VoteRequest,
};

use snapshots::Receiving;

use crate::host::Outcome;
use crate::image::Image;
use crate::judge::{Call, Judge};
use crate::marks::Mark::*;
use crate::server::{Answer, Input, Setup, State, Wish};

/// What the calls into one server do not show by themselves.
#[derive(Default)]
struct Watched {
    run: u64,
    batch_bytes: usize,
    priority: u8,
    /// Terms in which the writes under way were begun.
    writes: VecDeque<Term>,
    /// The term that it campaigned for on a leader's word.
    handed: Term,
    /// Its host loads a snapshot.
    installing: bool,
    /// Its connection to the leader is said to be lost.
    lost: bool,
    /// Outlives a restart.
    receiving: Option<Receiving>,
}

/// Looks on.
pub struct Watch {
    nodes: Vec<Watched>,
    /// The newest campaign.
    campaign: (Term, Option<NodeId>),
}

impl Watch {
    pub fn new(nodes: usize) -> Watch {
        Watch {
            nodes: (0..nodes).map(|_| Watched::default()).collect(),
            campaign: (0, None),
        }
    }
}

/// A server gave an answer of this kind.
fn replied<T>(call: &Call<'_, Raft>, kind: impl Fn(&Message) -> Option<T>) -> Option<T> {
    call.output.sent.iter().find_map(|(_, m)| kind(m))
}

fn ack(message: &Message) -> Option<&AppendReply> {
    match message {
        Message::AppendReply(reply) => Some(reply),
        _ => None,
    }
}

impl Judge<Raft> for Watch {
    fn found(&mut self, _: usize, _: &Image) {}

    fn started(&mut self, at: usize, setup: &Setup, _: Millis, state: &State, _: &Raft) {
        damage::watch_start(state);
        self.nodes[at] = Watched {
            run: setup.run,
            batch_bytes: setup.batch_bytes,
            priority: setup.priority,
            receiving: self.nodes[at].receiving.take(),
            ..Watched::default()
        };
    }

    fn called(&mut self, call: &Call<'_, Raft>) {
        self.watch_writes(call);
        match call.input {
            Input::Receive { from, packet } => self.watch_message(call, *from, packet),
            Input::Tick => watch_tick(call),
            Input::Bootstrap(_) if call.run > 1 => BootstrapLost.hit(),
            Input::Propose(_) => watch_proposal(call),
            Input::Change(wish) => watch_change(call, *wish),
            Input::Transfer(_) => watch_transfer(call),
            Input::Priority(None, priority) => self.nodes[call.node].priority = *priority,
            Input::Excluded(_) if call.after.excluded != call.before.excluded => ExcludedTold.hit(),
            Input::Excluded(_) if call.before.excluded.is_none() => ExcludedRefuted.hit(),
            _ => {}
        }
        if call.before != call.after {
            self.watch_state(call);
        }
        self.watch_appends(call);
        self.watch_snapshots(call);
        damage::watch(call);
        let lost = &mut self.nodes[call.node].lost;
        *lost = lost::watch(call, *lost);
        watch_reads(call);
    }

    fn landed(&mut self, _: usize, _: &Persist) {}

    fn kept(&mut self, _: usize, _: &Snapshot) {}

    fn loaded(&mut self, _: usize, _: &Snapshot, _: Option<u64>) {}

    fn stopped(&mut self, _: usize) {}

    fn outcome(&mut self, _: u64, _: Outcome) {}
}

impl Watch {
    fn watch_writes(&mut self, call: &Call<'_, Raft>) {
        let node = &mut self.nodes[call.node];
        if let Input::HeldBack { .. } = call.input {
            node.writes.pop_front();
        }
        if let Input::Written { ok, .. } = call.input {
            let begun = node.writes.pop_front();
            if begun.is_some_and(|term| term < call.before.term) {
                CompletedAfterTerm.hit();
            }
            if !ok && call.before.leads() {
                LeaderWriteFailed.hit();
            }
            let asks = |m: &Message| matches!(m, Message::Vote(_)).then_some(());
            if replied(call, asks).is_some() {
                OwnVoteDurable.hit();
            }
        }
        if call.output.write.is_some() {
            node.writes.push_back(call.after.term);
            if node.writes.len() == 4 {
                ManyWrites.hit();
            }
        }
    }

    /// What changed.
    fn watch_state(&mut self, call: &Call<'_, Raft>) {
        let (before, after) = (call.before, call.after);
        let node = &mut self.nodes[call.node];
        if after.leads() && !before.leads() {
            if before.joint {
                ElectedByBoth.hit();
            }
            if node.handed == after.term {
                TransferDone.hit();
            }
            if call.server.is_early() {
                ElectedEarly.hit();
            }
        }
        if after.elections > before.elections {
            let (term, id) = self.campaign;
            if term == after.term && id != Some(call.id) {
                SplitVote.hit();
            }
            self.campaign = (after.term, Some(call.id));
            if node.priority == 0 && node.handed != after.term {
                UnwillingCampaigned.hit();
            }
        }
        let voted = before.term < after.term && before.role == RoleKind::Candidate;
        if voted && !node.writes.is_empty() {
            OwnVoteTooLate.hit();
        }
        if before.excluded.is_some() && after.excluded.is_none() {
            Readmitted.hit();
        }
        match (before.transferring, after.transferring) {
            (None, Some(_)) if !matches!(call.input, Input::Transfer(_)) => {
                ReluctantHandedOver.hit();
            }
            (Some(_), None) if after.leads() => TransferGivenUp.hit(),
            (Some(_), None) if after.term == before.term => TransferBroken.hit(),
            _ => {}
        }
        let out = !call.server.configuration().is_voter(call.id);
        if before.leads() && !after.leads() && out && after.commit > before.commit {
            LeaderRemoved.hit();
        }
    }

    fn watch_message(&mut self, call: &Call<'_, Raft>, from: NodeId, message: &Message) {
        let (before, after) = (call.before, call.after);
        match message {
            Message::PreVote(request) => watch_pre_vote(call, request),
            Message::PreVoteReply(reply) => watch_pre_vote_reply(before, after, reply),
            Message::Vote(request) => watch_vote(call, from, request),
            Message::VoteReply(reply) => watch_vote_reply(before, reply),
            Message::Append(append) => watch_append(call, append),
            Message::AppendReply(reply) => watch_append_reply(before, after, reply),
            Message::TimeoutNow(word) => self.watch_timeout_now(call, word),
            Message::ReadIndexReply(reply) => {
                if reply.term != before.term || reply.run != self.nodes[call.node].run {
                    ReadStaleAnswer.hit();
                }
            }
            Message::ReadIndex(_)
            | Message::Snapshot(_)
            | Message::SnapshotReply(_)
            | Message::LogEnd(_)
            | Message::LogEndReply(_) => {}
        }
        if before.role == RoleKind::Candidate && after.term > before.term {
            CandidateOvertaken.hit();
        }
    }

    fn watch_timeout_now(&mut self, call: &Call<'_, Raft>, word: &TimeoutNow) {
        if call.after.elections > call.before.elections {
            self.nodes[call.node].handed = call.after.term;
        } else if word.term == call.before.term {
            TransferStale.hit();
        }
    }

    /// What a leader sends.
    fn watch_appends(&self, call: &Call<'_, Raft>) {
        if !call.after.leads() {
            return;
        }
        let limit = self.nodes[call.node].batch_bytes;
        for (_, message) in &call.output.sent {
            let Message::Append(append) = message else {
                continue;
            };
            let Some(last) = append.entries.last() else {
                continue;
            };
            if last.index < call.after.last_index {
                AppendLimited.hit();
            }
            if append.entries.len() == 1 && last.payload.weight() > limit {
                AppendAlone.hit();
            }
        }
    }
}

fn watch_tick(call: &Call<'_, Raft>) {
    let (before, after) = (call.before, call.after);
    if before.leads() && !after.leads() {
        LostQuorum.hit();
    }
    if before.role == RoleKind::Candidate && after.role == RoleKind::PreCandidate {
        CandidateTimedOut.hit();
    }
    let asked_again = !call.output.sent.is_empty();
    if before.role == RoleKind::PreCandidate && after.role == before.role && asked_again {
        PreVoteTimedOut.hit();
    }
}

fn is_older(state: &State, request: &VoteRequest) -> bool {
    (request.last_term, request.last_index) < (state.last_term, state.last_index)
}

fn watch_pre_vote(call: &Call<'_, Raft>, request: &VoteRequest) {
    let reply = replied(call, |message| match message {
        Message::PreVoteReply(reply) => Some(reply.clone()),
        _ => None,
    });
    if reply.is_none_or(|reply| reply.granted) {
        return;
    }
    let before = call.before;
    if request.term <= before.term {
        PreVoteRefusedTerm.hit();
    } else if is_older(before, request) {
        PreVoteRefusedOld.hit();
    } else if damage::is_forbidden(before, request) {
        PreVoteRefusedClaim.hit();
    } else if before.last_index == 0 {
        EmptyAbstained.hit();
    } else if before.leader.is_some() {
        PreVoteRefusedSticky.hit();
    } else if before.excluded.is_some() {
        ExcludedAbstained.hit();
    }
}

fn watch_pre_vote_reply(before: &State, after: &State, reply: &VoteReply) {
    if !reply.granted && after.term > before.term {
        PreVoteTaughtTerm.hit();
    }
    if reply.granted && before.role != RoleKind::PreCandidate {
        PreVoteOfOldRound.hit();
    }
}

fn watch_vote(call: &Call<'_, Raft>, from: NodeId, request: &VoteRequest) {
    let (before, after) = (call.before, call.after);
    if before.leads() && after.term > before.term {
        DeposedByVote.hit();
    }
    let reply = replied(call, |message| match message {
        Message::VoteReply(reply) => Some(reply.granted),
        _ => None,
    });
    let fresh = after.vote != before.vote || after.term != before.term;
    if request.term < before.term {
        VoteRefusedTerm.hit();
    } else if request.term > before.term && after.term == before.term {
        VoteIgnoredSticky.hit();
    } else if is_older(before, request) {
        VoteRefusedOld.hit();
    } else if after.vote.is_some_and(|vote| vote != from) {
        VoteRefusedTaken.hit();
    } else if damage::is_forbidden(before, request) {
        VoteRefusedClaim.hit();
    } else if before.last_index == 0 && before.claim.is_none() {
        EmptyAbstained.hit();
    } else if before.excluded.is_some() && after.vote.is_none() {
        ExcludedAbstained.hit();
    } else if after.vote == Some(from) && fresh {
        watch_granted(call, request, reply);
    } else if after.vote == Some(from) {
        VoteGrantedAgain.hit();
    }
}

fn watch_granted(call: &Call<'_, Raft>, request: &VoteRequest, reply: Option<bool>) {
    let before = call.before;
    if reply.is_none() {
        VoteHeldBack.hit();
    }
    if before.claim.is_some() {
        VoteGivenDamaged.hit();
    }
    if request.transfer && before.leader.is_some() {
        TransferVote.hit();
    }
    if request.last_index < before.last_index {
        VoteForShorterLog.hit();
    } else if request.last_term == before.last_term && request.last_index > before.last_index {
        VoteForLongerLog.hit();
    }
}

fn watch_vote_reply(before: &State, reply: &VoteReply) {
    let current = reply.term == before.term && before.role == RoleKind::Candidate;
    if reply.granted && !current {
        LateVote.hit();
    }
}

fn watch_append(call: &Call<'_, Raft>, append: &Append) {
    let (before, after) = (call.before, call.after);
    if before.leads() && after.term > before.term {
        DeposedByAppend.hit();
    }
    if before.role == RoleKind::Candidate && append.term == before.term {
        CandidateYielded.hit();
    }
    if append.term < before.term {
        OldLeaderRefused.hit();
        return;
    }
    let reply = replied(call, |message| ack(message).cloned());
    if append.term == before.term && after.leader.is_none() && !before.leads() {
        OldCopySilent.hit();
    }
    let end = |state: &State| (state.last_index, state.last_term);
    let shown = append.prev_index + append.entries.len() as u64;
    let outcome = reply.as_ref().map(|reply| &reply.outcome);
    match outcome {
        None if end(before) != end(after) => AckHeldBack.hit(),
        Some(AppendOutcome::Accepted { match_index }) => {
            if *match_index < shown {
                AckedLess.hit();
            } else if !append.entries.is_empty() {
                AckedAgain.hit();
            }
        }
        Some(AppendOutcome::Rejected { hint_index, .. }) => {
            watch_refusal(before, append, *hint_index);
        }
        None => {}
    }
    let accepted = matches!(outcome, Some(AppendOutcome::Accepted { .. }));
    if accepted && !append.entries.is_empty() && shown < after.last_index {
        OldCopyShort.hit();
    }
    if accepted && append.prev_index < before.commit {
        AppendBelowCommit.hit();
    }
}

fn watch_refusal(before: &State, append: &Append, hint: u64) {
    if append.prev_index > before.last_index {
        AppendRefusedGap.hit();
    } else {
        AppendRefusedConflict.hit();
    }
    if hint + 1 < append.prev_index {
        HintSkipped.hit();
    }
    if append.entries.is_empty() {
        HeartbeatRefused.hit();
    }
}

fn watch_append_reply(before: &State, after: &State, reply: &AppendReply) {
    if before.leads() && after.term > before.term {
        DeposedByReply.hit();
    }
    if before.leads() && reply.term < before.term {
        match reply.outcome {
            AppendOutcome::Accepted { .. } => LateAck.hit(),
            AppendOutcome::Rejected { .. } => StaleRefusal.hit(),
        }
    }
}

fn refused(call: &Call<'_, Raft>, error: ProposeError) -> bool {
    call.output.answer == Answer::Refused(error as u8)
}

fn watch_proposal(call: &Call<'_, Raft>) {
    let marks = [
        (ProposeError::Full, ProposalFull),
        (ProposeError::TooBig, ProposalTooBig),
        (ProposeError::NotLeader, ProposalElsewhere),
        (ProposeError::TransferInFlight, ProposalInTransfer),
    ];
    if let Some((_, mark)) = marks.iter().find(|(error, _)| refused(call, *error)) {
        mark.hit();
    }
}

fn watch_change(call: &Call<'_, Raft>, wish: Wish) {
    if refused(call, ProposeError::ChangeInFlight) {
        match call.before.settled {
            true => ChangeRefused.hit(),
            false => ChangeRefusedEarly.hit(),
        }
    }
    let placed = matches!(call.output.answer, Answer::Placed(..));
    if placed && matches!(wish, Wish::Promote(..)) {
        LearnerPromoted.hit();
    }
}

fn watch_transfer(call: &Call<'_, Raft>) {
    if call.before.leads() && matches!(call.output.answer, Answer::Refused(_)) {
        TransferRefused.hit();
    }
}

fn watch_reads(call: &Call<'_, Raft>) {
    if matches!(call.input, Input::Read) {
        match call.output.answer {
            Answer::Refused(_) => ReadRefused.hit(),
            _ if call.before.leads() && !call.before.settled => ReadBeforeNoop.hit(),
            _ => {}
        }
    }
    for (_, index) in &call.output.reads {
        if index.is_none() {
            ReadFailed.hit();
            continue;
        }
        if call.after.joint {
            ReadJoint.hit();
        }
        if call.after.leads() {
            ReadAtLeader.hit();
        } else if call.server.configuration().is_learner(call.id) {
            ReadAtLearner.hit();
        } else {
            ReadAtFollower.hit();
        }
    }
}
