//! Wrong commits, and what a leader believes of its peers.

use super::votes::{heartbeat, runs};
use super::{Kind, Mutant, Trial, only};
use crate::model::data::{Id, Input, Message, Role};

pub const KINDS: &[Kind] = &[
    ("a follower commits more than it was told", "rule 17", |t| {
        only(runs(t).is_some() && t.node.role == Role::Follower)?;
        let last = t.node.log.last();
        only(last > t.node.commit && t.node.heard.commit < last)?;
        t.idle().after(|after| after.commit = last)
    }),
    ("a follower commits its own stale tail", "rule 17", |t| {
        only(runs(t).is_some() && t.node.role == Role::Follower)?;
        let last = t.node.log.last();
        only(last > t.node.commit.max(t.node.heard.verified))?;
        let mut told = heartbeat(t, t.node.term);
        if let Message::Append {
            prev_index,
            prev_term,
            commit,
            ..
        } = &mut told
        {
            (*prev_index, *prev_term, *commit) = (0, 0, last);
        }
        t.hears(t.other(), told).after(|after| after.commit = last)
    }),
    ("a candidate commits", "rule 17", |t| {
        only(t.node.role == Role::Candidate && t.node.log.last() > t.node.commit)?;
        t.idle().after(|after| after.commit += 1)
    }),
    ("a commit beyond the log", "I11", |t| {
        runs(t)?;
        t.idle().after(|after| after.commit = after.last.0 + 1)
    }),
    ("a commit index that goes back", "I11", |t| {
        only(runs(t).is_some() && t.node.commit > 0)?;
        t.idle().after(|after| after.commit -= 1)
    }),
    ("a leader commits without a quorum", "rules 3, 5, 45", |t| {
        counted(t, &[], t.node.term)
    }),
    (
        "a leader counts what was said in another term",
        "rules 3, 5, 45",
        |t| counted(t, &t.config()?.voters, t.node.term - 1),
    ),
    ("a leader counts learners", "rules 3, 5, 45", |t| {
        only(!t.config()?.learners.is_empty())?;
        counted(t, &t.config()?.learners, t.node.term)
    }),
    (
        "a leader counts one half of a joint configuration",
        "rules 3, 5, 45",
        |t| {
            only(!t.config()?.outgoing.is_empty())?;
            counted(t, &t.config()?.voters, t.node.term)
        },
    ),
    (
        "a leader counts itself before its disk has it",
        "rules 3, 5, 45",
        |t| {
            only(!t.node.is_secure(t.node.log.last()))?;
            counted(t, &t.almost()?, t.node.term)
        },
    ),
    (
        "a leader counts itself and has no vote",
        "rules 3, 5, 45",
        |t| {
            let config = t.config()?;
            let even = config.outgoing.is_empty() && config.voters.len().is_multiple_of(2);
            only(even && !config.is_voter(t.node.id))?;
            counted(t, &config.voters[config.voters.len() / 2..], t.node.term)
        },
    ),
    (
        "an entry of an old term is committed by counting",
        "paper 5.4.2, rule 5",
        |t| {
            t.has(Role::Leader)?;
            let old = t.node.opened_at - 1;
            only(t.node.commit < old)?;
            acked(t, &t.config()?.voters, t.node.term, old).after(|after| after.commit = old)
        },
    ),
    (
        "a leader believes a peer to have more than it said",
        "I13",
        |t| {
            let peer = believed(t)?;
            let told = t.node.peer(peer).map_or(0, |peer| peer.matched);
            t.idle()
                .after(|after| after.peers = vec![(peer, told + 1, told + 2)])
        },
    ),
    ("a leader would send what a peer has", "I13", |t| {
        let peer = believed(t)?;
        let told = t.node.peer(peer).map_or(0, |peer| peer.matched);
        t.idle()
            .after(|after| after.peers = vec![(peer, told, told)])
    }),
];

fn believed(t: &Trial) -> Option<Id> {
    t.has(Role::Leader)?;
    t.config()?
        .voters
        .iter()
        .copied()
        .find(|voter| *voter != t.node.id)
}

/// These say that they have the log up to an index.
pub fn acked(t: &Trial, by: &[Id], term: u64, match_index: u64) -> Mutant {
    let by: Vec<Id> = by.iter().copied().filter(|id| *id != t.node.id).collect();
    let seq = t.node.seq;
    let said = Message::Accepted {
        term,
        seq,
        match_index,
    };
    t.hears_all(&by, &said).then(t.idle())
}

/// A leader commits its last entry, which these are said to have; they do not suffice.
fn counted(t: &Trial, by: &[Id], term: u64) -> Option<Mutant> {
    t.has(Role::Leader)?;
    let (last, own) = t.node.log.end();
    only(own == t.node.term && last > t.node.commit)?;
    let says = |id| by.contains(&id) && term == t.node.term;
    let has = |id| says(id) || t.node.peer(id).is_some_and(|peer| peer.matched >= last);
    let own = |id| id == t.node.id && t.node.is_secure(last);
    only(
        !t.config()?
            .agrees(|id| own(id) || id != t.node.id && has(id)),
    )?;
    let wrong = acked(t, by, term, last).after(|after| after.commit = last)?;
    Some(wrong.change(|step| step.input = Input::Tick))
}
