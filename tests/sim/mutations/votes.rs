//! Wrong terms, votes and roles.

use super::{Kind, Mutant, Trial, lead, only};
use crate::model::data::{Id, Input, Message, Role, VoteRequest};

pub const KINDS: &[Kind] = &[
    ("a second vote in a term", "rule 2", second_vote),
    ("a vote for a shorter log", "5.4.1, rule 1", |t| {
        vote(t, (1, 0), 0)
    }),
    (
        "a vote for a longer log of an older term",
        "5.4.1, rule 1",
        |t| vote(t, (0, 9), 1),
    ),
    ("a vote while a leader is heard", "rules 6, 8, 13", disloyal),
    ("a vote that nobody asked for", "rule 2", |t| {
        only(t.node.vote == 0 && !t.node.poisoned)?;
        t.idle().after(|after| after.vote = t.other())
    }),
    ("a vote for another than who asks", "rule 2", |t| {
        campaign_of(t, t.other())?.after(|after| after.vote = t.other() + 1)
    }),
    ("a vote of an excluded node", "HardState", |t| {
        only(!t.node.lease.enabled)?;
        only(t.node.is_barred(t.node.excluded))?;
        campaign_of(t, t.other())
    }),
    ("a new term taken for a vote", "rule 2", |t| {
        let word = Message::VoteReply {
            term: t.node.term + 1,
            granted: false,
            early: false,
        };
        follow(t, t.hears(t.other(), word))?.after(|after| after.vote = t.other())
    }),
    ("a term that goes back", "I3", |t| {
        runs(t)?;
        t.idle()
            .after(|after| (after.term, after.role) = (after.term - 1, Role::Follower))
    }),
    ("a term that nothing brings", "rules 6, 8, 13", |t| {
        follow(t, t.idle())
    }),
    ("a pre-vote that brings a term", "thesis 9.6", |t| {
        let request = request(t, t.node.term + 1);
        follow(t, t.hears(t.other(), Message::PreVote(request)))
    }),
    (
        "a granted pre-vote that brings a term",
        "rules 6, 8, 13",
        |t| {
            let reply = Message::PreVoteReply {
                term: t.node.term + 1,
                granted: true,
            };
            follow(t, t.hears(t.other(), reply))
        },
    ),
    (
        "a vote request that brings a term to a loyal node",
        "rules 6, 8, 13",
        |t| {
            only(t.node.is_loyal(t.step.now))?;
            follow(
                t,
                t.hears(t.other(), Message::Vote(request(t, t.node.term + 1))),
            )
        },
    ),
    ("a campaign of a learner", "rules 47, 49", |t| {
        let committed = t.node.log.config_at(t.node.commit);
        only(!t.config()?.is_voter(t.node.id))?;
        only(committed.is_none_or(|(_, config)| !config.is_voter(t.node.id)))?;
        seek(t)
    }),
    ("a campaign of an excluded node", "HardState", |t| {
        only(t.node.is_barred(t.node.excluded) && t.config()?.is_voter(t.node.id))?;
        seek(t)
    }),
    ("a campaign before the timeout", "rule 10", |t| {
        let voter = t.config()?.is_voter(t.node.id);
        only(voter && t.node.is_loyal(t.step.now) && !t.node.is_barred(t.node.excluded))?;
        seek(t)
    }),
    ("a campaign without pre-votes", "rule 9", |t| {
        let seeks = t.step.after.role == Role::PreCandidate && t.node.role == Role::Follower;
        only(seeks && !t.config()?.agrees(|id| id == t.node.id))?;
        let mutant = t.silently(|_| {})?;
        mutant.after(|after| {
            (after.term, after.role) = (after.term + 1, Role::Candidate);
            after.vote = t.node.id;
        })
    }),
    ("a campaign without a vote for itself", "rule 2", |t| {
        only(t.step.after.role == Role::Candidate && t.node.role != Role::Candidate)?;
        t.silently(|step| step.after.vote = t.other())
    }),
    ("a leader turns candidate", "paper 5.2", |t| {
        t.has(Role::Leader)?;
        t.idle().after(|after| {
            (after.term, after.role) = (after.term + 1, Role::Candidate);
            (after.leader, after.successor) = (0, 0);
        })
    }),
    ("too few votes", "rules 3, 45", |t| {
        t.has(Role::Candidate)?;
        only(
            !t.config()?
                .agrees(|id| id == t.node.id || t.node.grants.contains(&id)),
        )?;
        elected(t, &[], 0)
    }),
    ("votes of another term", "rules 3, 45", |t| {
        t.has(Role::Candidate)?;
        only(
            !t.config()?
                .agrees(|id| id == t.node.id || t.node.grants.contains(&id)),
        )?;
        elected(t, &t.config()?.voters, t.node.term - 1)
    }),
    (
        "pre-votes taken for votes",
        "rules 3, 45",
        pre_votes_for_votes,
    ),
    ("an own vote that is not durable", "rules 3, 45", |t| {
        only(t.node.role == Role::Candidate && t.node.hard.term < t.node.term)?;
        elected(t, &t.almost()?, t.node.term)
    }),
    (
        "the votes of one half of a joint configuration",
        "rules 3, 45",
        |t| {
            t.has(Role::Candidate)?;
            let config = t.config()?;
            let says = |id| config.voters.contains(&id) || t.node.grants.contains(&id);
            let one = |id| id == t.node.id || says(id);
            only(!config.outgoing.is_empty() && !config.agrees(one))?;
            elected(t, &config.voters, t.node.term)
        },
    ),
    ("a leader without a no-op", "rule 4", |t| {
        only(t.step.after.role == Role::Leader && t.node.role != Role::Leader)?;
        t.silently(|step| {
            step.after.suffix.clear();
            step.after.last = t.node.log.end();
        })
    }),
    ("a follower turns leader", "paper 5.2", |t| {
        only(runs(t).is_some() && t.node.role != Role::Leader && t.node.role != Role::Candidate)?;
        t.idle().after(|after| lead(after, t.node.id))
    }),
    (
        "a candidate that hears its term's leader",
        "paper 5.2",
        |t| {
            t.has(Role::Candidate)?;
            Some(t.hears(t.other(), heartbeat(t, t.node.term)))
        },
    ),
    ("a late word to take over", "rule 57", |t| {
        take_over(t, 1, true)
    }),
    (
        "a word to take over before all is written",
        "rule 57",
        |t| take_over(t, 0, false),
    ),
];

/// It runs, and has not failed.
pub fn runs(t: &Trial) -> Option<()> {
    only(t.node.running && !t.node.poisoned && t.node.term > 0)
}

/// What this node would ask for.
fn request(t: &Trial, term: u64) -> VoteRequest {
    let (last_index, last_term) = t.node.log.end();
    VoteRequest {
        term,
        last_index,
        last_term,
        transfer: false,
    }
}

pub fn heartbeat(t: &Trial, term: u64) -> Message {
    let (prev_index, prev_term) = t.node.log.end();
    Message::Append {
        term,
        seq: t.node.heard.seq + 1,
        prev_index,
        prev_term,
        commit: 0,
        entries: Vec::new(),
    }
}

/// Becomes a follower of the next term.
fn follow(t: &Trial, mutant: Mutant) -> Option<Mutant> {
    runs(t)?;
    mutant.after(|after| {
        (after.term, after.vote) = (after.term + 1, 0);
        (after.role, after.leader, after.successor) = (Role::Follower, 0, 0);
    })
}

/// Becomes a pre-candidate.
pub fn seek(t: &Trial) -> Option<Mutant> {
    runs(t)?;
    t.has(Role::Follower)?;
    t.idle()
        .after(|after| (after.role, after.leader) = (Role::PreCandidate, 0))
}

/// Votes for a node that asks in the next term.
pub fn campaign_of(t: &Trial, from: Id) -> Option<Mutant> {
    only(!t.node.is_loyal(t.step.now))?;
    let request = request(t, t.node.term + 1);
    let mutant = follow(t, t.hears(from, Message::Vote(request)))?;
    mutant.after(|after| after.vote = from)
}

/// Votes for a log that is this much shorter, or longer, and whose last term is older.
fn vote(t: &Trial, (less, more): (u64, u64), older: u64) -> Option<Mutant> {
    let (index, term) = t.node.log.end();
    only(index > less && term > older)?;
    let mut mutant = campaign_of(t, t.other())?;
    let message = Message::Vote(VoteRequest {
        last_index: index - less + more,
        last_term: term - older,
        ..request(t, t.node.term + 1)
    });
    mutant.forged = vec![(t.other(), message.clone())];
    let from = t.other();
    Some(mutant.change(|step| step.input = Input::Receive { from, message }))
}

fn second_vote(t: &Trial) -> Option<Mutant> {
    let from = t.other();
    only(runs(t).is_some() && t.node.vote != 0 && t.node.vote != from)?;
    let message = Message::Vote(request(t, t.node.term));
    t.hears(from, message).after(|after| after.vote = from)
}

fn disloyal(t: &Trial) -> Option<Mutant> {
    only(t.node.is_loyal(t.step.now))?;
    let message = Message::Vote(request(t, t.node.term + 1));
    let mutant = follow(t, t.hears(t.other(), message))?;
    mutant.after(|after| after.vote = t.other())
}

/// Is elected by these, who say so in this term.
fn elected(t: &Trial, by: &[Id], term: u64) -> Option<Mutant> {
    let granted = true;
    let votes = t.hears_all(
        by,
        &Message::VoteReply {
            term,
            granted,
            early: false,
        },
    );
    votes.then(t.idle()).after(|after| lead(after, t.node.id))
}

fn pre_votes_for_votes(t: &Trial) -> Option<Mutant> {
    t.has(Role::Candidate)?;
    let config = t.config()?;
    only(!config.agrees(|id| id == t.node.id || t.node.grants.contains(&id)))?;
    let (term, granted) = (t.node.term, true);
    let votes = t.hears_all(&config.voters, &Message::PreVoteReply { term, granted });
    votes.then(t.idle()).after(|after| lead(after, t.node.id))
}

/// Campaigns at a leader's word that does not fit: its log is longer, or nothing is durable.
fn take_over(t: &Trial, longer: u64, durable: bool) -> Option<Mutant> {
    let (index, term) = t.node.log.end();
    only(t.node.role == Role::Follower && t.node.is_secure(index) == durable)?;
    only(t.config()?.is_voter(t.node.id) && !t.node.is_barred(t.node.excluded))?;
    only(t.node.leader != 0 && !t.node.snapshots.is_busy())?;
    let word = Message::TimeoutNow {
        term: t.node.term,
        seq: t.node.heard.seq + 1,
        last_index: index + longer,
        last_term: term,
    };
    t.hears(t.node.leader, word).after(|after| {
        (after.term, after.role) = (after.term + 1, Role::Candidate);
        (after.vote, after.leader) = (t.node.id, 0);
    })
}
