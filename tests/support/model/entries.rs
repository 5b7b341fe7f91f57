//! The log, commits and configurations: paper 5.3, 5.4.2; thesis 4.

use std::sync::Arc;

use super::data::{Config, Entry, Input, Message, NOOP, Role, Step};
use super::history::History;
use super::{Node, Verdict, Was, entries_of, received};

impl Node {
    pub(super) fn take_log(&mut self, was: &Was, step: &Step, history: &mut History) -> Verdict {
        let after = &step.after;
        if let Some(to) = step.output.persist.as_ref().and_then(|p| p.reset.as_ref()) {
            self.check_reset(step, to)?;
        }
        if let Some(to) = self.dropped_for.take() {
            return self.take_reset(step, &to, history);
        }
        self.check_placed(was, step)?;
        let appends = matches!(received(step), Some((_, Message::Append { .. })));
        let leads = after.role == Role::Leader;
        let opens = leads && was.role != Role::Leader;
        let first = after.suffix.first();
        let noop = first.is_some_and(|entry| entry.hash == NOOP);
        rule!(!opens || noop => "thesis 6.4, rule 4", "leads without a no-op");
        if after.kept == was.last && first.is_none() {
            return Ok(());
        }
        match &step.input {
            _ if appends && !leads => self.check_append(was, step)?,
            Input::Bootstrap(entry) => {
                let decreed = was.last == 0 && after.suffix == std::slice::from_ref(entry);
                rule!(decreed => "bootstrap", "a log to {} gets {:?}", was.last, after.suffix);
            }
            _ => {
                let extends = after.kept == was.last;
                rule!(leads => "paper 5.3, rule 18", "changes its log and does not lead");
                rule!(extends => "Leader Append-Only, I4", "truncates after {}", after.kept);
            }
        }
        self.log.truncate(after.kept);
        for (i, entry) in after.suffix.iter().enumerate() {
            if leads && !(opens && i == 0) {
                self.check_own(was, step, entry)?;
            }
            let grows = entry.term >= self.log.end().1;
            rule!(grows => "paper 5.3", "term {} after {:?}", entry.term, self.log.end());
            let right = !leads || entry.term == after.term;
            rule!(right => "paper 5.3", "a leader appends in term {}", entry.term);
            let place = self.log.push(entry);
            history.append(self.log.last(), Some(place))?;
        }
        Ok(())
    }

    /// I19: an accepted proposal stands where the proposer is told, a refused one nowhere.
    fn check_placed(&self, was: &Was, step: &Step) -> Verdict {
        let after = &step.after;
        let placed = match &step.input {
            Input::Propose { placed, .. } | Input::Change { placed, .. } => *placed,
            _ => return Ok(()),
        };
        let first = (after.kept == was.last)
            .then(|| after.suffix.first())
            .flatten();
        let found = first.map(|entry| (entry.term, was.last + 1));
        rule!(placed == found => "I19", "proposed to {placed:?}, stands at {found:?}");
        let busy = was.successor != 0 && after.successor == was.successor;
        rule!(placed.is_none() || !busy => "rule 56", "accepts while it hands over");
        Ok(())
    }

    /// What a leader appends is what it was given, or ends the joint configuration.
    fn check_own(&self, was: &Was, step: &Step, entry: &Entry) -> Verdict {
        let Some(config) = &entry.config else {
            let given = matches!(&step.input, Input::Propose { hash, placed: Some((_, at)) }
                if *hash == entry.hash && *at == self.log.last() + 1);
            rule!(given => "paper 5.3", "appends what nobody proposed");
            return Ok(());
        };
        let Some((at, before)) = self.config() else {
            return Err("thesis 4.1: changes a configuration that it has not".into());
        };
        let settled = at <= was.commit || self.is_counted(at, before);
        rule!(settled => "thesis 4.1, rules 43, 45", "changes {at}, which is not committed");
        let leaves = !before.outgoing.is_empty() && config.outgoing.is_empty();
        if !leaves {
            let own = self.log.term(was.commit) == Some(step.after.term);
            rule!(own => "2015 errata, rule 43", "changes members before it has committed");
            let given = matches!(&step.input, Input::Change { config: c, placed: Some((_, at)) }
                if c == &**config && *at == self.log.last() + 1);
            rule!(given => "thesis 4.1", "changes members unasked");
        }
        let right = is_adjacent(before, config);
        rule!(right => "thesis 4.3, I15", "goes from {before:?} to {config:?}");
        Ok(())
    }

    /// Paper 5.3, rules 14, 15, 17: a log is changed by an append of its term's leader only; what
    /// does not conflict stays, and what is committed never conflicts.
    fn check_append(&self, was: &Was, step: &Step) -> Verdict {
        let Some((
            _,
            Message::Append {
                term,
                prev_index,
                prev_term,
                entries,
                ..
            },
        )) = received(step)
        else {
            return Ok(());
        };
        let (after, prev) = (&step.after, *prev_index);
        rule!(*term == after.term => "paper 5.1", "heeds an append of term {term}");
        let fits = self.agrees(prev, *prev_term);
        rule!(fits => "paper 5.3, rule 14", "appends after {prev}.{prev_term}, which it lacks");
        let held = |(i, entry): &(u64, &Entry)| self.log.term(prev + i) == Some(entry.term);
        let held = (1..).zip(entries).take_while(held).count();
        let at = prev + held as u64;
        let right = after.kept == at && entries[held..].starts_with(&after.suffix);
        rule!(right => "paper 5.3, rule 15", "keeps to {}, agrees to {at}", after.kept);
        rule!(at >= was.commit => "State Machine Safety, I6", "drops {} of {}", at + 1, was.commit);
        rule!(!after.suffix.is_empty() => "paper 5.3, rule 15", "drops entries for nothing");
        Ok(())
    }

    /// Learns what a leader of this node's term shows it, after it has been heeded or not.
    pub(super) fn hear_leader(&mut self, now: u64, message: &Message) {
        let (seq, commit, shown) = match message {
            Message::Append {
                seq,
                prev_index,
                prev_term,
                commit,
                ..
            } => {
                let shown = match self.agrees(*prev_index, *prev_term) {
                    true => {
                        let entries = (prev_index + 1..).zip(entries_of(message));
                        let held = |(at, e): &(u64, &Entry)| self.log.term(*at) == Some(e.term);
                        prev_index + entries.take_while(held).count() as u64
                    }
                    false => 0,
                };
                (*seq, *commit, shown)
            }
            // What a snapshot covers is committed (rule 34).
            Message::Snapshot { seq, snapshot, .. } => {
                let agrees = self.agrees(snapshot.index, snapshot.term);
                (
                    *seq,
                    snapshot.index,
                    if agrees { snapshot.index } else { 0 },
                )
            }
            _ => return,
        };
        if message.term() != self.term {
            return;
        }
        if self.heard.at.is_none() || seq > self.heard.seq {
            (self.heard.at, self.heard.seq) = (Some(now), seq);
            self.contact = Some(now);
            self.lost_at = None;
        }
        self.heard.commit = self.heard.commit.max(commit);
        self.heard.verified = self.heard.verified.max(shown);
    }

    /// Paper 5.3 and 5.4.2, rules 5 and 17.
    pub(super) fn take_commit(&mut self, was: &Was, step: &Step, history: &mut History) -> Verdict {
        let (to, term) = (step.after.commit, step.after.term);
        rule!(to >= was.commit => "paper fig. 2, I11", "commit {} becomes {to}", was.commit);
        if to == was.commit {
            return Ok(());
        }
        rule!(to <= self.log.last() => "I11", "commits {to}, beyond its log");
        self.commit = to;
        if let Input::Bootstrap(_) = step.input {
            rule!(to == 1 => "bootstrap", "commits {to}");
        } else if step.after.role == Role::Leader || was.role == Role::Leader && was.term == term {
            let own = self.log.term(to) == Some(term);
            rule!(own => "paper 5.4.2, rule 5, I11", "commits {to} of an old term by counting");
            // One step may count by a joint configuration, leave it, and count once more.
            let configs = [self.log.config_at(was.last), self.log.config()];
            let counted = configs
                .iter()
                .flatten()
                .any(|(_, c)| self.is_counted(to, c));
            rule!(counted => "paper 5.3, rules 3, 5, 45", "commits {to} without a quorum");
        } else {
            let (said, verified) = (self.heard.commit, self.heard.verified);
            let installed = match &step.input {
                Input::Installed { snapshot, ok: true } => snapshot.index,
                _ => 0,
            };
            let known = to <= said.min(verified).max(installed);
            rule!(known => "paper 5.3, rule 17", "commits {to}: told {said}, shown {verified}");
        }
        history.commit(self, was.commit)
    }

    /// Whether a quorum holds an index durably, as far as this leader has been told; itself
    /// included only where it votes (thesis 4.2.2, rules 3, 5, 46).
    pub fn is_counted(&self, index: u64, config: &Config) -> bool {
        config.agrees(|id| match id == self.id {
            true => self.is_secure(index),
            false => self.peer(id).is_some_and(|peer| peer.matched >= index),
        })
    }

    /// Told by a peer or read in the log; ended by a committed configuration of a later epoch
    /// that holds the node again.
    pub(super) fn take_exclusion(&mut self, was: &Was, step: &Step) -> Verdict {
        let after = step.after.excluded;
        if after == self.excluded {
            return Ok(());
        }
        let committed = self.log.config_at(self.commit);
        let right = match after {
            Some((epoch, index)) => {
                let told = matches!(step.input, Input::Exclude(e, i) if (e, i) == (epoch, index));
                let read = committed.is_some_and(|(at, c): &(u64, Arc<Config>)| {
                    *at > was.commit && c.epoch == epoch && !c.keeps(self.id)
                });
                let newer = self.excluded.is_none_or(|(known, _)| known < epoch);
                (told || read) && newer
            }
            None => committed.is_some_and(|(_, c)| {
                let known = self.excluded.map_or(0, |(epoch, _)| epoch);
                c.readmits(self.id, known)
            }),
        };
        rule!(right => "HardState", "exclusion {:?} becomes {after:?}", self.excluded);
        self.excluded = after;
        Ok(())
    }
}

/// Thesis 4.1 and 4.3: one voter more or less, or into a joint configuration, or out of it.
fn is_adjacent(before: &Config, after: &Config) -> bool {
    if !before.outgoing.is_empty() {
        let left = Config {
            outgoing: Vec::new(),
            ..before.clone()
        };
        return *after == left;
    }
    let lacks = |a: &Config, b: &Config| a.voters.iter().filter(|v| !b.voters.contains(v)).count();
    let single = after.outgoing.is_empty() && lacks(before, after) + lacks(after, before) <= 1;
    let enters = after.outgoing == before.voters;
    after.epoch == before.epoch + 1 && (single || enters)
}
