//! Recognises what nodes do that have lost entries.

use raftkeel::core::{AppendOutcome, Message, Raft, VoteRequest};

use crate::judge::Call;
use crate::marks::Mark::*;
use crate::server::{Input, State};

pub fn watch_start(state: &State) {
    if state.claim.is_some() {
        RestartedDamaged.hit();
        if state.last_index == 0 {
            RestartedEmpty.hit();
        }
    }
}

/// Whether a node that may have lost entries must not vote for this, though its log would let it.
pub fn is_forbidden(state: &State, request: &VoteRequest) -> bool {
    let last = (request.last_term, request.last_index);
    state
        .claim
        .is_some_and(|claim| last < (claim.term, claim.index))
}

pub fn watch(call: &Call<'_, Raft>) {
    let (before, after) = (call.before, call.after);
    if before.claim.is_some() {
        if after.claim.is_none() {
            ClaimEnded.hit();
            if matches!(call.input, Input::Installed { .. }) {
                ClaimEndedBySnapshot.hit();
            }
        }
        if let Input::Receive { packet, .. } = call.input
            && matches!(packet, Message::LogEndReply(_))
            && after.claim != before.claim
        {
            ClaimBounded.hit();
        }
        let forgets = before.leader.is_some() && after.leader.is_none();
        if matches!(call.input, Input::Tick) && forgets {
            ClaimHeld.hit();
        }
    }
    if let Input::Receive { from, packet } = call.input
        && let Message::AppendReply(reply) = packet
        && let AppendOutcome::Rejected { .. } = reply.outcome
        && let Some(progress) = call.server.progress(*from)
        && progress.has_lost_entries()
        && progress.match_index() == 0
    {
        MatchRegressed.hit();
    }
}
