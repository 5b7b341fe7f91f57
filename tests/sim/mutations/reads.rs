//! Reads that are answered wrongly.

use super::votes::runs;
use super::{Kind, Mutant, Trial, only};
use crate::model::data::{Id, Input, Message, Role};

pub const KINDS: &[Kind] = &[
    ("a leader answers before anybody else has", "rule 52", |t| {
        asked(t)?;
        finish(t, read(t), t.node.commit)
    }),
    (
        "a leader counts answers to older messages",
        "rule 52",
        |t| {
            asked(t)?;
            finish(t, read(t).then(answered(t, t.node.seq)), t.node.commit)
        },
    ),
    (
        "a leader counts one half of a joint configuration",
        "rule 52",
        |t| {
            asked(t)?;
            let config = t.config()?;
            let one = |id| config.voters.contains(&id) || id == t.node.id;
            only(!config.outgoing.is_empty() && !config.agrees(one))?;
            finish(t, read(t).then(answered(t, t.node.seq + 1)), t.node.commit)
        },
    ),
    ("a read of less than was committed", "rule 52", |t| {
        asked(t)?;
        only(agrees(t)?)?;
        finish(
            t,
            read(t).then(answered(t, t.node.seq + 1)),
            t.node.commit - 1,
        )
    }),
    (
        "a read before the leader has committed in its term",
        "rule 53",
        |t| {
            only(t.node.role == Role::Leader && t.node.commit < t.node.opened_at)?;
            only(agrees(t)? && t.node.applied == t.node.commit)?;
            finish(t, read(t).then(answered(t, t.node.seq + 1)), t.node.commit)
        },
    ),
    ("a read of what is not applied", "rule 52", |t| {
        only(t.node.role == Role::Leader && t.node.commit > t.node.applied)?;
        finish(t, read(t).then(answered(t, t.node.seq + 1)), t.node.commit)
    }),
    ("a follower answers from what it has", "thesis 6.4", |t| {
        only(runs(t).is_some() && t.node.role == Role::Follower)?;
        finish(t, read(t), t.node.applied)
    }),
    (
        "a follower answers before it has applied enough",
        "rule 52",
        |t| {
            only(runs(t).is_some() && t.node.role == Role::Follower)?;
            let answer = told(t, t.node.run, READ, t.node.applied + 1);
            finish(t, read(t).then(answer), t.node.applied + 1)
        },
    ),
    ("an answer to an earlier question", "thesis 6.4", |t| {
        only(runs(t).is_some() && t.node.role == Role::Follower)?;
        let answer = told(t, t.node.run, READ - 1, 0);
        finish(t, read(t).then(answer), t.node.applied)
    }),
    ("an answer to another run", "thesis 6.4", |t| {
        only(runs(t).is_some() && t.node.role == Role::Follower)?;
        let answer = told(t, t.node.run + 1, READ, 0);
        finish(t, read(t).then(answer), t.node.applied)
    }),
    ("a read that nobody made", "thesis 6.4: finishes", |t| {
        runs(t)?;
        finish(t, t.idle(), t.node.applied)
    }),
    (
        "an answer that nobody asked for",
        "thesis 6.4: answers what",
        |t| {
            asked(t)?;
            t.idle().saying(t.other(), reply(t))
        },
    ),
    ("a peer is answered before a quorum has", "rule 52", |t| {
        asked(t)?;
        let (term, run, seq) = (t.node.term, 1, READ);
        let question = t.hears(t.other(), Message::ReadIndex { term, run, seq });
        question.then(t.idle()).saying(t.other(), reply(t))
    }),
    ("a question for a read that is not there", "rule 54", |t| {
        only(runs(t).is_some() && t.node.hard.term == t.node.term)?;
        let (term, run, seq) = (t.node.term, t.node.run, READ);
        t.idle()
            .saying(t.other(), Message::ReadIndex { term, run, seq })
    }),
];

/// The number of a read that no run has made.
pub const READ: u64 = 1 << 40;

/// The same, and it must ask.
fn asked(t: &Trial) -> Option<()> {
    only(!t.node.lease.enabled)?;
    opened(t)
}

/// A leader that may answer once a quorum of others has confirmed it.
pub fn opened(t: &Trial) -> Option<()> {
    only(t.node.role == Role::Leader && t.node.hard.term == t.node.term)?;
    only(t.node.commit >= t.node.opened_at && t.node.applied == t.node.commit)?;
    only(!t.config()?.agrees(|id| id == t.node.id))
}

fn agrees(t: &Trial) -> Option<bool> {
    let config = t.config()?;
    Some(config.agrees(|id| id == t.node.id || config.voters.contains(&id)))
}

pub fn read(t: &Trial) -> Mutant {
    t.idle().change(|step| step.input = Input::Read(vec![READ]))
}

/// All voters of the newer half answer this message of the leader.
fn answered(t: &Trial, seq: u64) -> Mutant {
    let voters = t
        .config()
        .map_or(Vec::new(), |config| config.voters.clone());
    let others: Vec<Id> = voters.into_iter().filter(|id| *id != t.node.id).collect();
    let (term, match_index) = (t.node.term, 0);
    let reply = Message::Accepted {
        term,
        seq,
        match_index,
    };
    t.hears_all(&others, &reply)
}

fn told(t: &Trial, run: u64, seq: u64, index: u64) -> Mutant {
    let term = t.node.term;
    let reply = Message::ReadIndexReply {
        term,
        run,
        seq,
        index,
    };
    t.hears(t.other(), reply)
}

fn reply(t: &Trial) -> Message {
    Message::ReadIndexReply {
        term: t.node.term,
        run: 1,
        seq: READ,
        index: t.node.commit,
    }
}

/// The read is answered with an index.
fn finish(t: &Trial, before: Mutant, index: u64) -> Option<Mutant> {
    let last = t
        .idle()
        .change(|step| step.output.reads = vec![(READ, Some(index))]);
    Some(before.then(last))
}
