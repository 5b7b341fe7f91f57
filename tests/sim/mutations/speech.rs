//! What is wrongly written, said, heard and applied, and wrong starts.

use super::votes::runs;
use super::{Kind, Mutant, SILENCE, Trial, new_entry, only};
use crate::model::data::{Entry, Input, Message, Persist, Role, VoteRequest};

pub const KINDS: &[Kind] = &[
    (
        "a vote is given before it is durable",
        "paper fig. 2",
        |t| {
            let after = &t.step.after;
            t.message()?;
            let granted = after.vote != t.node.vote && after.vote != t.node.id;
            only(granted && after.vote != 0)?;
            let reply = Message::VoteReply {
                term: after.term,
                granted,
                early: false,
            };
            t.silently(|_| {})?.saying(after.vote, reply)
        },
    ),
    (
        "a vote is given to another than who has it",
        "rule 2, I2",
        |t| {
            let hard = t.node.hard;
            only(speaks(t).is_some() && hard.vote != t.other())?;
            let reply = Message::VoteReply {
                term: hard.term,
                granted: true,
                early: false,
            };
            t.idle().saying(t.other(), reply)
        },
    ),
    (
        "an answer in a term that is not durable",
        "fig. 2, I3",
        |t| {
            only(runs(t).is_some() && t.node.hard.term < t.node.term)?;
            let reply = Message::VoteReply {
                term: t.node.term,
                granted: false,
                early: false,
            };
            t.idle().saying(t.other(), reply)
        },
    ),
    ("an answer in a term that is over", "paper 5.1", |t| {
        speaks(t)?;
        let reply = Message::VoteReply {
            term: t.node.term - 1,
            granted: false,
            early: false,
        };
        t.idle().saying(t.other(), reply)
    }),
    (
        "votes are asked for before the own one is durable",
        "fig. 2",
        |t| {
            only(t.node.role == Role::Candidate && t.node.hard.term < t.node.term)?;
            t.idle()
                .saying(t.other(), Message::Vote(request(t, 0, false)))
        },
    ),
    (
        "votes are asked for by who is no candidate",
        "paper 5.2",
        |t| {
            only(speaks(t).is_some() && t.node.role == Role::Follower)?;
            t.idle()
                .saying(t.other(), Message::Vote(request(t, 0, false)))
        },
    ),
    ("a candidate claims a longer log", "5.4.1, rule 1", |t| {
        only(speaks(t).is_some() && t.node.role == Role::Candidate)?;
        only(t.node.hard.vote == t.node.id)?;
        t.idle()
            .saying(t.other(), Message::Vote(request(t, 1, false)))
    }),
    (
        "a candidate claims that a leader hands over",
        "rule 57",
        |t| {
            let honest = |(_, m): &(u64, Message)| matches!(m, Message::Vote(r) if !r.transfer);
            only(t.step.output.messages.iter().any(honest))?;
            let mut step = t.step.clone();
            step.output.messages = vec![(t.other(), Message::Vote(request(t, 0, true)))];
            Some(Mutant::of(step))
        },
    ),
    (
        "a pre-vote for a log that lacks entries",
        "rules 1, 6, 8",
        |t| {
            only(runs(t).is_some() && t.node.log.last() > 0)?;
            let term = t.node.term + 50;
            let ask = VoteRequest {
                term,
                ..request(t, 0, false)
            };
            let ask = Message::PreVote(VoteRequest {
                last_index: ask.last_index - 1,
                ..ask
            });
            t.hears(t.other(), ask).saying(
                t.other(),
                Message::PreVoteReply {
                    term,
                    granted: true,
                },
            )
        },
    ),
    ("a pre-vote while a leader is heard", "rules 1, 6, 8", |t| {
        only(t.node.is_loyal(t.step.now))?;
        let term = t.node.term + 50;
        let ask = Message::PreVote(VoteRequest {
            term,
            ..request(t, 0, false)
        });
        t.hears(t.other(), ask).saying(
            t.other(),
            Message::PreVoteReply {
                term,
                granted: true,
            },
        )
    }),
    (
        "pre-votes are asked for by who seeks none",
        "thesis 9.6",
        |t| {
            runs(t)?;
            let term = t.node.term + 2;
            let ask = VoteRequest {
                term,
                ..request(t, 0, false)
            };
            t.idle().saying(t.other(), Message::PreVote(ask))
        },
    ),
    (
        "an acknowledgement before the disk has it",
        "rule 16, I12",
        |t| {
            let last = t.node.log.last();
            only(speaks(t).is_some() && !t.node.is_secure(last))?;
            only(t.node.heard.verified >= last)?;
            acknowledge(t, last, t.node.heard.seq)
        },
    ),
    (
        "an acknowledgement of what no leader has shown",
        "rule 16, I12",
        |t| {
            let last = t.node.log.last();
            only(speaks(t).is_some() && last > t.node.heard.verified.max(t.node.commit))?;
            acknowledge(t, last, t.node.heard.seq)
        },
    ),
    ("an acknowledgement beyond the log", "rule 16, I12", |t| {
        speaks(t)?;
        acknowledge(t, t.node.log.last() + 1, t.node.heard.seq)
    }),
    (
        "an answer to what has not come",
        "thesis 6.4: answers",
        |t| {
            speaks(t)?;
            acknowledge(t, 0, t.node.heard.seq + 1)
        },
    ),
    ("a refusal with a wrong hint", "rule 19", |t| {
        speaks(t)?;
        let (index, term) = t.node.log.end();
        let reply = Message::Rejected {
            term: t.node.term,
            seq: 0,
            prev_index: index + 9,
            hint_index: index,
            hint_term: term + 1,
        };
        t.idle().saying(t.other(), reply)
    }),
    ("a follower appends", "5.3: appends as", |t| {
        only(speaks(t).is_some() && t.node.role != Role::Leader)?;
        t.idle().saying(t.other(), append(t, |_, _| {}))
    }),
    (
        "a leader sends other entries than its own",
        "rule 22",
        |t| {
            led(t)?;
            t.idle()
                .saying(t.other(), append(t, |_, entries| entries[0].hash ^= 2))
        },
    ),
    ("a leader leaves an entry out", "rule 22", |t| {
        led(t)?;
        only(t.node.log.last() > t.node.commit && t.node.log.last() > t.node.base + 1)?;
        let skipped = append(t, |prev, _| *prev -= 1);
        t.idle().saying(t.other(), skipped)
    }),
    (
        "a leader knows no term before the entries",
        "5.3: sends after",
        |t| {
            led(t)?;
            let mut message = append(t, |_, entries| entries.clear());
            if let Message::Append { prev_term, .. } = &mut message {
                *prev_term = 0;
            }
            t.idle().saying(t.other(), message)
        },
    ),
    (
        "a leader tells more than is committed",
        "says commit",
        |t| {
            led(t)?;
            let mut message = append(t, |_, entries| entries.clear());
            if let Message::Append { commit, .. } = &mut message {
                *commit = t.node.commit + 1;
            }
            t.idle().saying(t.other(), message)
        },
    ),
    (
        "a leader numbers two messages the same",
        "Append::seq",
        |t| {
            led(t)?;
            let mut message = append(t, |_, entries| entries.clear());
            if let Message::Append { seq, .. } = &mut message {
                *seq = t.node.seq;
            }
            t.idle().saying(t.other(), message)
        },
    ),
    ("leadership goes to who lacks entries", "rule 56", |t| {
        only(led(t).is_some())?;
        let behind = |id: &&u64| {
            t.node
                .peer(**id)
                .is_none_or(|p| p.matched < t.node.log.last())
        };
        let voters = t.config()?.voters.iter().filter(|id| **id != t.node.id);
        let behind = *voters.into_iter().find(behind)?;
        t.idle().saying(behind, take_over(t))
    }),
    ("leadership goes to a learner", "rule 56", |t| {
        only(led(t).is_some())?;
        let equal = |id: &&u64| {
            t.node
                .peer(**id)
                .is_some_and(|p| p.matched == t.node.log.last())
        };
        let learner = *t.config()?.learners.iter().find(equal)?;
        only(!t.config()?.is_voter(learner))?;
        t.idle().saying(learner, take_over(t))
    }),
    ("a node speaks to itself", "I20", |t| {
        speaks(t)?;
        let reply = Message::VoteReply {
            term: t.node.term,
            granted: false,
            early: false,
        };
        t.idle().saying(t.node.id, reply)
    }),
    ("a node speaks after a failed write", SILENCE, |t| {
        only(t.node.poisoned && t.node.running)?;
        let reply = Message::VoteReply {
            term: t.node.hard.term,
            granted: false,
            early: false,
        };
        t.idle().saying(t.other(), reply)
    }),
    ("a write of another vote", "fig. 2, rule 27", |t| {
        written(t, |persist| {
            persist.hard.as_mut().map(|hard| hard.vote += 1)
        })
    }),
    ("a write of another term", "fig. 2, rule 27", |t| {
        written(t, |persist| {
            persist.hard.as_mut().map(|hard| hard.term += 1)
        })
    }),
    (
        "a write of more than is committed",
        "fig. 2, rule 27",
        |t| {
            written(t, |persist| {
                persist.hard.as_mut().map(|hard| hard.commit += 1000)
            })
        },
    ),
    ("a write of another entry", "rule 27", |t| {
        written(t, |persist| {
            persist.entries.first_mut().map(|entry| entry.hash ^= 2)
        })
    }),
    ("a write that leaves an entry out", "rule 27", |t| {
        written(t, |persist| {
            only(persist.entries.len() > 1)?;
            persist.first += 1;
            persist.entries.remove(0);
            DONE
        })
    }),
    ("a token that was used", "rule 28", |t| {
        written(t, |persist| {
            persist.token = 0;
            DONE
        })
    }),
    ("an entry is applied twice", "I11", |t| {
        only(runs(t).is_some() && t.node.applied > 0)?;
        apply(t, t.node.applied, vec![new_entry(1)])
    }),
    ("an entry is left out when applied", "I11", |t| {
        applied(t, 2, |first, entries| {
            *first += 1;
            entries.remove(0);
        })
    }),
    (
        "an entry is applied that is not committed",
        "paper 5.3, I11",
        |t| {
            runs(t)?;
            let count = (t.node.commit + 1 - t.node.applied) as usize;
            apply(t, t.node.applied + 1, vec![new_entry(1); count])
        },
    ),
    ("another entry is applied", "I6", |t| {
        applied(t, 1, |_, entries| entries[0].hash ^= 2)
    }),
    ("entries are applied out of their order", "I6", |t| {
        applied(t, 2, |_, entries| entries.swap(0, 1))
    }),
    ("a message that nobody sent", "harness", |t| {
        runs(t)?;
        let mutant = t.hears(
            t.other(),
            Message::VoteReply {
                term: 900,
                granted: true,
                early: false,
            },
        );
        Some(Mutant {
            forged: Vec::new(),
            ..mutant
        })
    }),
    ("a message that was changed on its way", "harness", |t| {
        let reply = matches!(t.message()?, Message::Accepted { .. });
        only(reply)?;
        t.silently(|step| {
            if let Input::Receive {
                message: Message::Accepted { match_index, .. },
                ..
            } = &mut step.input
            {
                *match_index += 1000;
            }
        })
    }),
    ("a start that forgets a vote", "rule 33", |t| {
        started(t, |step| {
            only(step.after.vote != 0)?;
            step.after.vote = 0;
            DONE
        })
    }),
    ("a start in an older term", "rule 33", |t| {
        started(t, |step| {
            step.after.term = step.after.term.checked_sub(1)?;
            DONE
        })
    }),
    ("a start without the last entry", "rule 33", |t| {
        started(t, |step| step.after.suffix.pop().map(drop))
    }),
    ("a start that knows more to be committed", "rule 33", |t| {
        started(t, |step| {
            let (last, commit) = (step.after.last.0, step.after.commit);
            only(last > commit.max(t.node.hard.commit))?;
            step.after.commit = last;
            DONE
        })
    }),
    ("a start as leader", "rule 33", |t| {
        started(t, |step| {
            step.after.role = Role::Leader;
            DONE
        })
    }),
    ("a disk that lost its last entry", "rule 33", |t| {
        started(t, |step| match &mut step.input {
            Input::Start { entries, .. } => entries.pop().map(drop),
            _ => None,
        })
    }),
];

/// A change that could be made.
const DONE: Option<()> = Some(());

/// It runs, and its term is durable.
fn speaks(t: &Trial) -> Option<()> {
    runs(t)?;
    only(t.node.hard.term == t.node.term)
}

/// It leads, and has an entry to send.
fn led(t: &Trial) -> Option<()> {
    t.has(Role::Leader)?;
    only(t.node.log.last() > t.node.base)?;
    speaks(t)
}

fn request(t: &Trial, longer: u64, transfer: bool) -> VoteRequest {
    let (last_index, last_term) = t.node.log.end();
    VoteRequest {
        term: t.node.term,
        last_index: last_index + longer,
        last_term,
        transfer,
    }
}

fn acknowledge(t: &Trial, match_index: u64, seq: u64) -> Option<Mutant> {
    let term = t.node.term;
    let reply = Message::Accepted {
        term,
        seq,
        match_index,
    };
    t.idle().saying(t.other(), reply)
}

/// An append of an entry after the last one but one, and what is to be wrong with it.
fn append(t: &Trial, change: impl FnOnce(&mut u64, &mut Vec<Entry>)) -> Message {
    let last = t.node.log.last();
    let mut prev_index = last.saturating_sub(1);
    let mut entries = vec![new_entry(t.node.log.end().1)];
    change(&mut prev_index, &mut entries);
    Message::Append {
        term: t.node.term,
        seq: t.node.seq + 1,
        prev_index,
        prev_term: t.node.log.term(prev_index).unwrap_or_default(),
        commit: 0,
        entries,
    }
}

fn take_over(t: &Trial) -> Message {
    let (last_index, last_term) = t.node.log.end();
    Message::TimeoutNow {
        term: t.node.term,
        seq: t.node.seq + 1,
        last_index,
        last_term,
    }
}

/// The recorded step with another write, and without words.
fn written(t: &Trial, change: impl FnOnce(&mut Persist) -> Option<()>) -> Option<Mutant> {
    let mut persist = t.step.output.persist.clone()?;
    change(&mut persist)?;
    t.silently(|step| step.output.persist = Some(persist))
}

fn apply(t: &Trial, first: u64, entries: Vec<Entry>) -> Option<Mutant> {
    Some(
        t.idle()
            .change(|step| step.output.applied = (first, entries)),
    )
}

/// The recorded step with other entries to be applied, and nothing else.
fn applied(
    t: &Trial,
    least: usize,
    change: impl FnOnce(&mut u64, &mut Vec<Entry>),
) -> Option<Mutant> {
    let (mut first, mut entries) = t.step.output.applied.clone();
    only(entries.len() >= least)?;
    change(&mut first, &mut entries);
    t.silently(|step| step.output.applied = (first, entries))
}

/// The recorded start, changed.
fn started(
    t: &Trial,
    change: impl FnOnce(&mut crate::model::data::Step) -> Option<()>,
) -> Option<Mutant> {
    only(matches!(t.step.input, Input::Start { .. }))?;
    let mut step = t.step.clone();
    change(&mut step)?;
    Some(Mutant::of(step))
}
