//! Where words of lost connections lead.

use raftkeel::core::{Message, Raft, RoleKind};

use crate::judge::Call;
use crate::marks::Mark::*;
use crate::server::Input;

/// `lost` is whether the node had lost its leader before; says whether it has now.
pub fn watch(call: &Call<'_, Raft>, lost: bool) -> bool {
    let (before, after) = (call.before, call.after);
    let now = call.server.has_lost_leader();
    match call.input {
        Input::Lost(id) if before.leader == Some(*id) && !before.leads() => match now {
            true => LeaderLost.hit(),
            false => LeaderLostLeased.hit(),
        },
        Input::Tick if lost && after.role == RoleKind::PreCandidate => LostCampaigned.hit(),
        _ => {}
    }
    if lost && !now && after.leader == before.leader && after.term == before.term {
        LeaderFoundAgain.hit();
    }
    for (_, message) in &call.output.sent {
        match message {
            Message::PreVoteReply(reply) if reply.granted && lost => LostGavePreVote.hit(),
            Message::VoteReply(reply) if reply.early => VoteEarly.hit(),
            _ => {}
        }
    }
    now
}
