//! Wrong steps of nodes that have lost entries, or say so.

use super::votes::{campaign_of, seek};
use super::{CLAIMS, Kind, Mutant, Trial, only};
use crate::model::data::{Input, Message, Role};

pub const KINDS: &[Kind] = &[
    ("a campaign with a claim", CLAIMS, |t| {
        only(t.node.claim.is_some() && !t.node.snapshots.is_busy())?;
        only(t.config()?.is_voter(t.node.id) && !t.node.is_barred(t.node.excluded))?;
        seek(t)
    }),
    ("a vote that a claim forbids", CLAIMS, |t| {
        let (index, term) = t.node.log.end();
        only(t.node.claim > Some((term, index)) && !t.node.lease.enabled)?;
        campaign_of(t, t.other())
    }),
    ("a claim that ends before the log reaches it", CLAIMS, |t| {
        let (index, term) = t.node.log.end();
        only(t.node.claim > Some((term, index)))?;
        t.idle().after(|after| after.claim = None)
    }),
    ("a claim that becomes less", CLAIMS, |t| {
        let (term, index) = t.node.claim?;
        t.idle()
            .after(|after| after.claim = Some((term, index - 1)))
    }),
    ("a claim that nothing was lost for", CLAIMS, |t| {
        only(t.node.running && t.node.claim.is_none())?;
        t.idle().after(|after| after.claim = Some((1, 1)))
    }),
    ("a start that forgets a claim", CLAIMS, forget),
    ("a claim that an old answer makes less", CLAIMS, |t| {
        bounded(t, t.node.term, t.node.run + 1)
    }),
    (
        "a claim that an answer of another term makes less",
        CLAIMS,
        |t| bounded(t, t.node.term.checked_sub(1)?, t.node.run),
    ),
    ("a leader that says less than it has", CLAIMS, |t| {
        only(t.node.claim.is_none() && t.node.hard.term == t.node.term)?;
        t.has(Role::Leader)?;
        let (index, _) = t.node.log.end();
        let (term, run) = (t.node.term, 1);
        let index = index - 1;
        t.idle()
            .saying(t.other(), Message::LogEndReply { term, run, index })
    }),
];

/// Claims less, for a leader has said in a term and to a run that its log ends before.
fn bounded(t: &Trial, term: u64, run: u64) -> Option<Mutant> {
    let (claimed, index) = t.node.claim?;
    only(t.node.leader != 0 && claimed == t.node.term && term > 0)?;
    let index = index - 1;
    let reply = Message::LogEndReply { term, run, index };
    t.hears(t.node.leader, reply)
        .after(|after| after.claim = Some((claimed, index)))
}

/// Starts as if nothing had been lost.
fn forget(t: &Trial) -> Option<Mutant> {
    let Input::Start { hard, .. } = &t.step.input else {
        return None;
    };
    only(hard.claim.is_some() && t.step.after.claim.is_some())?;
    Mutant::of(t.step.clone()).after(|after| after.claim = None)
}
