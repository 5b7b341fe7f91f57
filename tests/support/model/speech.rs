//! What is written, said and applied, and what must be durable before: rules 16, 25, 27, 28, 29.

use super::data::{Entry, Hard, Id, Message, Persist, Role, Step, VoteRequest};
use super::history::History;
use super::log::Tail;
use super::{Node, Verdict, Write};

impl Node {
    /// A write has come to its end.
    pub(super) fn write_ended(&mut self, token: u64, ok: bool) -> Verdict {
        let first = self.writes.front().map(|write| write.token);
        rule!(first == Some(token) => "harness", "write {token} ends before {first:?}");
        let follows = self
            .writes
            .front()
            .is_none_or(|w| w.tail.follows(&self.durable));
        rule!(!ok || follows => "rule 28", "write {token} lands behind another entry than its own");
        match ok && !self.poisoned {
            true => self.land(true),
            false => self.poisoned = true,
        }
        Ok(())
    }

    /// A write's entries found no room.
    pub(super) fn write_held_back(&mut self, token: u64) -> Verdict {
        let first = self.writes.front().map(|write| write.token);
        rule!(first == Some(token) => "harness", "write {token} ends before {first:?}");
        self.land(false);
        self.holds_back = true;
        Ok(())
    }

    /// The oldest write reaches the disk.
    pub(super) fn land(&mut self, whole: bool) {
        let Some(write) = self.writes.pop_front() else {
            return;
        };
        if let Some(hard) = write.hard {
            self.hard = hard;
        }
        if whole {
            self.holds_back &= write.tail.end().is_none();
            write.tail.write(&mut self.durable);
        }
    }

    /// Rule 29, I21: after a failed write nothing leaves the node any more.
    pub(super) fn check_silence(&self, step: &Step) -> Verdict {
        let out = &step.output;
        let silent = out.persist.is_none()
            && out.messages.is_empty()
            && out.applied.1.is_empty()
            && out.reads.is_empty()
            && out.asks.is_empty();
        rule!(silent => "rule 29, I21", "acts after a failed write");
        Ok(())
    }

    pub(super) fn check_output(&mut self, step: &Step, history: &mut History) -> Verdict {
        if let Some(persist) = &step.output.persist {
            self.check_persist(step.now, persist, history)?;
        }
        for (to, message) in &step.output.messages {
            rule!(*to != self.id && *to != 0 => "rule 60, I20", "speaks to n{to}");
            self.check_message(step.now, *to, message)?;
            history.say(self.id, *to, message);
        }
        self.check_applied(step.output.applied.0, &step.output.applied.1)?;
        for (number, index) in &step.output.reads {
            self.check_finished(*number, *index)?;
        }
        for ask in &step.output.asks {
            self.check_ask(ask)?;
        }
        Ok(())
    }

    /// A write is of what the node is now.
    fn check_persist(&mut self, now: u64, persist: &Persist, history: &History) -> Verdict {
        let Persist {
            token,
            hard,
            reset,
            first,
            entries,
        } = persist;
        rule!(*token > self.token => "rule 28", "token {token} after {}", self.token);
        self.token = *token;
        if let Some(hard) = hard {
            let own = Hard {
                term: self.term,
                vote: self.vote,
                excluded: self.excluded,
                commit: hard.commit,
                claim: self.claim,
            };
            let right = *hard == own && hard.commit <= self.commit;
            rule!(right => "paper fig. 2, rule 27", "writes {hard:?}, has {own:?}");
        }
        let before = first.checked_sub(1).and_then(|index| self.log.place(index));
        let mut tail = Tail::default();
        if reset.is_some() {
            let fresh = entries.is_empty() || self.holds_back;
            rule!(fresh => "rule 34", "writes entries into a log that is dropped");
            let log = history.log_to(self.base).unwrap_or_default();
            tail = Tail::whole(log);
        }
        if !entries.is_empty() {
            let Some(before) = before else {
                return Err("rule 27: writes a gap".into());
            };
            let written = Tail::new(*first, entries, before);
            let mut later = self.writes.iter().rev();
            let staged = match reset {
                Some(to) => (*first == to.index + 1).then_some(before),
                None => later
                    .find_map(|write| write.tail.place(first - 1))
                    .unwrap_or_else(|| self.durable.place(first - 1)),
            };
            rule!(staged == Some(before) => "rule 27", "writes {first} after {staged:?}");
            let own = written
                .end()
                .is_some_and(|(i, place)| self.log.place(i) == Some(place));
            rule!(own => "rule 27", "writes other entries than its log's from {first}");
            tail = match reset {
                Some(_) => Tail::whole(self.log.clone()),
                None => written,
            };
        }
        let mut ends = self
            .writes
            .iter()
            .rev()
            .filter_map(|write| write.tail.end());
        let end = tail
            .end()
            .or_else(|| ends.next())
            .map_or(self.durable.last(), |end| end.0);
        let all = self.holds_back || !entries.is_empty() || end >= self.log.last();
        rule!(all => "rule 27", "writes up to {end} of {}", self.log.last());
        self.writes.push_back(Write {
            token: *token,
            since: now,
            hard: *hard,
            tail,
        });
        Ok(())
    }

    fn check_message(&mut self, now: u64, to: Id, message: &Message) -> Verdict {
        let (term, durable) = (message.term(), self.hard.term);
        match message {
            Message::PreVote(request) => {
                let right = self.sought == Some((term, request.last_index, request.last_term));
                rule!(right => "thesis 9.6", "asks for pre-votes: {request:?}");
                let right = term <= durable + 1;
                rule!(right => "paper fig. 2, I3", "{durable} is durable");
                return Ok(());
            }
            Message::PreVoteReply { granted: true, .. } => {
                let right = self.askers.contains(&(to, term));
                rule!(right => "thesis 9.6, rules 1, 6, 8", "gives n{to} a pre-vote of {term}");
                return Ok(());
            }
            _ => {}
        }
        // Paper fig. 2, I3: what is said of a term is durable.
        rule!(term <= durable => "paper fig. 2, I3", "says {term}, {durable} is durable");
        rule!(term == self.term => "paper 5.1", "says {term} in term {}", self.term);
        let vote = self.hard.vote;
        match message {
            Message::Vote(request) => {
                let right = self.role == Role::Candidate;
                rule!(right => "paper 5.2", "asks for votes as {:?}", self.role);
                let durable = vote == self.id && durable == term;
                rule!(durable => "paper fig. 2, rules 2, 3", "asks before its vote is durable");
                self.check_request(request)
            }
            Message::VoteReply {
                granted: true,
                early,
                ..
            } => {
                let durable = vote == to && durable == term;
                rule!(durable => "paper fig. 2, rule 2, I2", "n{vote} has the durable vote");
                let honest = *early || self.voted_late;
                rule!(honest => "detection.md 4.6", "hides that its vote for n{to} is early");
                Ok(())
            }
            Message::Append { .. } | Message::TimeoutNow { .. } | Message::Snapshot { .. } => {
                self.check_leaders_word(now, to, message)
            }
            Message::Accepted { .. } | Message::Rejected { .. } => self.check_reply(message),
            Message::LogEnd { run, .. } => {
                let right = *run == self.run && self.role == Role::Follower;
                rule!(right => "recovery 5", "asks in run {run} as {:?}", self.role);
                Ok(())
            }
            Message::LogEndReply { index, .. } => {
                let right = self.role == Role::Leader && *index == self.log.last();
                rule!(right => "recovery 5", "ends at {:?}, says {index}", self.log.end());
                Ok(())
            }
            Message::ReadIndex { run, seq, .. } => self.check_question(*run, *seq),
            Message::ReadIndexReply {
                run, seq, index, ..
            } => self.check_answer((to, *run, *seq), *index),
            Message::SnapshotReply {
                seq,
                index,
                crc,
                wants,
                ..
            } => {
                let newest = self.heard.seq;
                rule!(*seq <= newest => "thesis 6.4", "answers {seq}, has heard {newest}");
                self.check_wants(*index, *crc, *wants, *seq < newest)
            }
            _ => Ok(()),
        }
    }

    /// A candidate shows its own log (paper 5.4.1).
    fn check_request(&self, request: &VoteRequest) -> Verdict {
        let (index, term) = self.log.end();
        let honest = (request.last_index, request.last_term) == (index, term);
        rule!(honest => "paper 5.4.1, rule 1", "{request:?}, ends at {index}.{term}");
        let right = !request.transfer || self.forced;
        rule!(right => "thesis 3.10, rule 57", "claims that a leader hands over");
        Ok(())
    }

    /// Appends and the end of a transfer: paper 5.3, thesis 3.10.
    fn check_leaders_word(&mut self, now: u64, to: Id, message: &Message) -> Verdict {
        // Rule 46: who is out by its own change may spread the news of its commit.
        let leads = self.role == Role::Leader;
        let last_word = self.led && matches!(message, Message::Append { .. });
        rule!(leads || last_word => "paper 5.3", "appends as {:?}", self.role);
        let number = match message {
            Message::Append {
                seq,
                prev_index,
                prev_term,
                commit,
                entries,
                ..
            } => {
                let prev = *prev_index;
                let known = self.log.place(prev).filter(|_| prev >= self.base);
                let before = known.filter(|place| place.term == *prev_term);
                let Some(before) = before else {
                    return Err(format!("paper 5.3: sends after {prev}.{prev_term}"));
                };
                let last = prev + entries.len() as u64;
                let place = entries
                    .iter()
                    .fold(before, |place, entry| place.then(entry));
                let own = self.log.place(last) == Some(place);
                rule!(own => "paper 5.3, rule 22", "sends other entries than its own to {last}");
                let right = *commit <= self.commit;
                rule!(right => "paper 5.3", "says commit {commit}, has {}", self.commit);
                *seq
            }
            Message::TimeoutNow {
                seq,
                last_index,
                last_term,
                ..
            } => {
                let end = self.log.end();
                let right = (*last_index, *last_term) == end;
                rule!(right => "thesis 3.10, rule 57", "hands over at {last_index}");
                let matched = self.peer(to).map_or(0, |peer| peer.matched);
                rule!(matched == end.0 => "thesis 3.10, rule 56", "n{to} has {matched}");
                let voter = self.config().is_some_and(|(_, config)| config.is_voter(to));
                rule!(voter => "thesis 3.10, rule 56", "hands over to n{to}, which has no vote");
                *seq
            }
            Message::Snapshot {
                seq,
                snapshot,
                piece,
                ..
            } => {
                self.check_piece(to, snapshot, piece)?;
                *seq
            }
            _ => return Ok(()),
        };
        rule!(number > self.seq => "Append::seq", "message {number} after {}", self.seq);
        self.seq = number;
        self.lease.sent(number, now);
        if let Message::TimeoutNow { last_index, .. } = message {
            self.lease.hand_over(to, *last_index);
        }
        Ok(())
    }

    /// A follower's answer: rules 16, 19, I12.
    fn check_reply(&self, message: &Message) -> Verdict {
        let newest = self.heard.seq;
        match message {
            Message::Accepted {
                seq, match_index, ..
            } => {
                rule!(*seq <= newest => "thesis 6.4", "answers {seq}, has heard {newest}");
                let shown = self.heard.verified.max(self.commit);
                rule!(*match_index <= shown => "paper 5.3, rule 16, I12",
                    "{match_index} of {shown}");
                let durable = self.is_secure(*match_index);
                rule!(durable => "paper fig. 2, rule 16, I12", "{match_index} is not durable");
            }
            Message::Rejected {
                seq,
                prev_index,
                hint_index,
                hint_term,
                ..
            } => {
                rule!(*seq <= newest => "thesis 6.4", "answers {seq}, has heard {newest}");
                // What waited for a write tells of the log as it was.
                let unknown = self.delayed || *hint_index < self.base;
                let honest = unknown || self.log.term(*hint_index) == Some(*hint_term);
                let right = honest && hint_index <= prev_index;
                rule!(right => "rule 19", "hints at {hint_index}.{hint_term}");
            }
            _ => {}
        }
        Ok(())
    }

    /// Paper 5.3, rule 25, I11: in order, each once, committed, and durable on this node as well.
    fn check_applied(&mut self, first: u64, entries: &[Entry]) -> Verdict {
        if entries.is_empty() {
            return Ok(());
        }
        let loading = self.snapshots.installing.is_some();
        rule!(!loading => "rule 36", "applies while a snapshot is being loaded");
        rule!(first == self.applied + 1 => "I11", "applies {first} after {}", self.applied);
        let last = self.applied + entries.len() as u64;
        rule!(last <= self.commit => "paper 5.3, I11", "applies {last}, not committed");
        let before = self.log.place(self.applied).unwrap_or_default();
        let place = entries
            .iter()
            .fold(before, |place, entry| place.then(entry));
        rule!(self.log.place(last) == Some(place) => "I6", "applies other entries to {last}");
        rule!(self.is_secure(last) => "rule 25", "applies {last}, which is not durable");
        self.applied = last;
        Ok(())
    }
}
