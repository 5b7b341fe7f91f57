//! Wrong changes of logs and of configurations.

use std::sync::Arc;

use super::commits::acked;
use super::votes::runs;
use super::{Kind, Mutant, Trial, append, new_entry, only};
use crate::model::data::{Config, Entry, Input, Message, Role};

pub const KINDS: &[Kind] = &[
    (
        "a committed entry is replaced",
        "State Machine Safety",
        |t| {
            only(runs(t).is_some() && t.node.commit >= 2)?;
            appended(
                t,
                t.node.term + 1,
                t.node.commit - 1,
                vec![new_entry(t.node.term + 1)],
            )
        },
    ),
    ("a short append drops what comes after it", "rule 15", |t| {
        only(t.node.log.last() > t.node.commit.max(3))?;
        appended(t, t.node.term, t.node.log.last() - 1, vec![])
    }),
    (
        "entries are put after one that is missing",
        "rule 14",
        |t| {
            let (last, term) = t.node.log.end();
            let entries = vec![new_entry(t.node.term)];
            let message = leaders_word(t, t.node.term, last + 5, term, entries.clone());
            followed(t, t.node.term, message)?.after(|after| append(after, entries))
        },
    ),
    ("entries are put after another one", "rule 14", |t| {
        let (last, term) = t.node.log.end();
        only(last > t.node.commit)?;
        let entries = vec![new_entry(t.node.term)];
        let message = leaders_word(t, t.node.term, last, term + 1, entries.clone());
        followed(t, t.node.term, message)?.after(|after| append(after, entries))
    }),
    ("an append of an old term is heeded", "paper 5.1", |t| {
        let (last, term) = t.node.log.end();
        only(t.node.term > term)?;
        let entries = vec![new_entry(term)];
        let message = leaders_word(t, term, last, term, entries.clone());
        followed(t, t.node.term, message)?.after(|after| append(after, entries))
    }),
    ("a change of role shortens the log", "rule 18", |t| {
        only(t.node.role == Role::Leader && t.node.log.last() > t.node.commit)?;
        t.idle().after(|after| {
            (after.role, after.leader, after.successor) = (Role::Follower, 0, 0);
            after.kept -= 1;
        })
    }),
    ("a leader shortens its log", "I4", |t| {
        only(t.node.role == Role::Leader && t.node.log.last() > t.node.commit)?;
        t.idle().after(|after| after.kept -= 1)
    }),
    (
        "a leader appends what nobody proposed",
        "5.3: appends what",
        |t| {
            t.has(Role::Leader)?;
            t.idle()
                .after(|after| append(after, vec![new_entry(t.node.term)]))
        },
    ),
    (
        "a leader takes entries of another leader",
        "paper 5.3",
        |t| {
            t.has(Role::Leader)?;
            let (last, term) = t.node.log.end();
            let entries = vec![new_entry(t.node.term)];
            let message = leaders_word(t, t.node.term, last, term, entries.clone());
            t.hears(t.other(), message)
                .after(|after| append(after, entries))
        },
    ),
    ("another payload is stored", "rule 15", |t| {
        stored(t, 1)?;
        t.silently(|step| step.after.suffix[0].hash ^= 2)
    }),
    ("another term is stored", "rule 15", |t| {
        stored(t, 1)?;
        t.silently(|step| step.after.suffix[0].term -= 1)
    }),
    ("an entry of an append is left out", "rule 15", |t| {
        stored(t, 2)?;
        t.silently(|step| drop(step.after.suffix.remove(0)))
    }),
    ("an entry is stored twice", "rule 15", |t| {
        stored(t, 1)?;
        t.silently(|step| step.after.suffix.insert(0, step.after.suffix[0].clone()))
    }),
    ("an accepted proposal is not in the log", "I19", |t| {
        proposed(t)?;
        t.silently(|step| step.after.suffix.clear())
    }),
    ("a refused proposal is in the log", "I19", |t| {
        t.has(Role::Leader)?;
        let (hash, placed) = (4711, None);
        let mutant = t
            .idle()
            .change(|step| step.input = Input::Propose { hash, placed });
        mutant.after(|after| append(after, vec![new_entry(t.node.term)]))
    }),
    ("a proposal is told another place", "I19", |t| {
        proposed(t)?;
        t.silently(|step| {
            if let Input::Propose {
                placed: Some(placed),
                ..
            } = &mut step.input
            {
                placed.1 += 1;
            }
        })
    }),
    (
        "another payload than the proposed one",
        "5.3: appends what",
        |t| {
            proposed(t)?;
            t.silently(|step| step.after.suffix[0].hash ^= 2)
        },
    ),
    (
        "a proposal is taken while leadership is handed over",
        "rule 56",
        |t| {
            only(t.node.successor != 0)?;
            let (hash, placed) = (4711, Some((t.node.term, t.node.log.last() + 1)));
            let mutant = t
                .idle()
                .change(|step| step.input = Input::Propose { hash, placed });
            mutant.after(|after| append(after, vec![new_entry(t.node.term)]))
        },
    ),
    (
        "members change while a change is under way",
        "rules 43, 45",
        |t| {
            only(!settled(t)?)?;
            changed(t, |config| config.learners.push(90))
        },
    ),
    (
        "members change before the leader has committed",
        "rule 43",
        |t| {
            only(settled(t)? && t.node.log.term(t.node.commit) != Some(t.node.term))?;
            only(t.config()?.outgoing.is_empty())?;
            changed(t, |config| config.learners.push(90))
        },
    ),
    (
        "a joint configuration is left before it is committed",
        "rules 43, 45",
        |t| {
            only(!settled(t)? && !t.config()?.outgoing.is_empty())?;
            let config = Config {
                outgoing: Vec::new(),
                ..t.config()?.clone()
            };
            let entries = vec![config_entry(t.node.term, config)];
            t.idle().after(|after| append(after, entries))
        },
    ),
    (
        "a joint configuration is left for another one",
        "thesis 4.3",
        |t| {
            let (index, joint) = t.node.config()?;
            only(t.node.role == Role::Leader && !joint.outgoing.is_empty())?;
            only(t.node.is_secure(index))?;
            let all = [joint.voters.as_slice(), &joint.outgoing].concat();
            let config = Config {
                outgoing: Vec::new(),
                voters: vec![t.node.id, 90],
                ..joint.clone()
            };
            let entries = vec![config_entry(t.node.term, config)];
            let counted = acked(t, &all, t.node.term, index);
            counted.after(|after| append(after, entries))
        },
    ),
    ("two voters change at once", "thesis 4.3", |t| {
        only(settled(t)? && t.node.log.term(t.node.commit) == Some(t.node.term))?;
        only(t.config()?.outgoing.is_empty())?;
        changed(t, |config| config.voters.extend([90, 91]))
    }),
    (
        "a joint configuration that forgets old voters",
        "thesis 4.3",
        |t| {
            only(settled(t)? && t.node.log.term(t.node.commit) == Some(t.node.term))?;
            only(t.config()?.outgoing.is_empty() && t.config()?.voters.len() > 1)?;
            changed(t, |config| config.outgoing = vec![config.voters[0]])
        },
    ),
    ("members change unasked", "thesis 4.1", |t| {
        only(settled(t)? && t.node.log.term(t.node.commit) == Some(t.node.term))?;
        only(t.config()?.outgoing.is_empty())?;
        let mutant = changed(t, |config| config.learners.push(90))?;
        Some(mutant.change(|step| step.input = Input::Tick))
    }),
    (
        "a configuration that is not the newest of the log",
        "rule 44",
        |t| {
            only(runs(t).is_some() && t.config().is_some())?;
            t.idle().after(|after| after.config.0 -= 1)
        },
    ),
    (
        "a configuration that was truncated stays in force",
        "rule 44",
        |t| {
            let (index, config) = t.node.config()?;
            // Of a term that nobody leads in the recorded run.
            let (before, term) = ((index, config.epoch), t.node.term + 1000);
            only(index > t.node.commit.max(1))?;
            let truncated = appended(t, term, index - 1, vec![new_entry(term)])?;
            truncated.after(|after| after.config = before)
        },
    ),
    ("an exclusion that nobody told", "HardState", |t| {
        runs(t)?;
        let epoch = t.node.excluded.map_or(99, |(epoch, _)| epoch + 1);
        t.idle().after(|after| after.excluded = Some((epoch, 1)))
    }),
    ("an exclusion that ends by itself", "HardState", |t| {
        only(runs(t).is_some() && t.node.is_barred(t.node.excluded))?;
        t.idle().after(|after| after.excluded = None)
    }),
];

fn leaders_word(t: &Trial, term: u64, prev: u64, prev_term: u64, entries: Vec<Entry>) -> Message {
    Message::Append {
        term,
        seq: t.node.heard.seq + 1,
        prev_index: prev,
        prev_term,
        commit: 0,
        entries,
    }
}

/// A step of a follower of this term that hears an append.
fn followed(t: &Trial, term: u64, message: Message) -> Option<Mutant> {
    runs(t)?;
    only(term > t.node.term || t.node.role == Role::Follower)?;
    t.hears(t.other(), message).after(|after| {
        if term > after.term {
            (after.term, after.vote) = (term, 0);
            (after.role, after.leader, after.successor) = (Role::Follower, 0, 0);
        }
    })
}

/// Puts entries after `prev`, whatever is there.
fn appended(t: &Trial, term: u64, prev: u64, entries: Vec<Entry>) -> Option<Mutant> {
    let message = leaders_word(t, term, prev, t.node.log.term(prev)?, entries.clone());
    followed(t, term, message)?.after(|after| {
        after.kept = prev;
        append(after, entries);
    })
}

/// The recorded step stores as many entries of an append.
fn stored(t: &Trial, least: usize) -> Option<()> {
    let appended = matches!(t.message()?, Message::Append { .. });
    only(appended && t.step.after.suffix.len() >= least)
}

/// The recorded step takes a proposal in.
fn proposed(t: &Trial) -> Option<()> {
    only(matches!(
        t.step.input,
        Input::Propose {
            placed: Some(_),
            ..
        }
    ))
}

/// A leader whose configuration is committed, or not.
fn settled(t: &Trial) -> Option<bool> {
    t.has(Role::Leader)?;
    let (index, config) = t.node.config()?;
    let settled = index <= t.node.commit;
    only(settled || !t.node.is_counted(index, config))?;
    Some(settled)
}

fn config_entry(term: u64, config: Config) -> Entry {
    Entry {
        term,
        hash: 4712,
        config: Some(Arc::new(config)),
    }
}

/// A leader takes a change of members in.
fn changed(t: &Trial, change: impl FnOnce(&mut Config)) -> Option<Mutant> {
    only(t.node.successor == 0)?;
    let mut config = t.config()?.clone();
    config.epoch += 1;
    change(&mut config);
    let placed = Some((t.node.term, t.node.log.last() + 1));
    let entries = vec![config_entry(t.node.term, config.clone())];
    let mutant = t
        .idle()
        .change(|step| step.input = Input::Change { config, placed });
    mutant.after(|after| append(after, entries))
}
