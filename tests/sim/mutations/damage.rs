//! Wrong steps of nodes that have lost entries, or say so.

use super::votes::{campaign_of, seek};
use super::{CLAIMS, Kind, Mutant, Trial, only};
use crate::model::data::Input;

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
];

/// Starts as if nothing had been lost.
fn forget(t: &Trial) -> Option<Mutant> {
    let Input::Start { hard, .. } = &t.step.input else {
        return None;
    };
    only(hard.claim.is_some() && t.step.after.claim.is_some())?;
    Mutant::of(t.step.clone()).after(|after| after.claim = None)
}
