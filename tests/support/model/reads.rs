//! Linearizable reads: thesis 6.4, rules 52 to 54.

use std::collections::VecDeque;

use super::data::{Config, Id, Input, Message, Role, Step};
use super::history::History;
use super::{Node, Verdict, received};

/// A read of this node, or a peer's question to this leader.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// 0 for a read of this node's own.
    from: Id,
    run: u64,
    number: u64,
    /// The commit index when it came; the term, and the newest message of it, if this node led.
    commit: u64,
    term: u64,
    seq: u64,
    /// What anybody knew to be committed then.
    known: u64,
    /// A quorum of the time has answered a message that this leader sent since.
    confirmed: bool,
}

/// A leader that has so many questions waiting has forgotten some.
const QUESTIONS: usize = 1 << 12;

#[derive(Clone, Debug, Default)]
pub struct Reads {
    own: Vec<Waiting>,
    /// The newest of this run's reads.
    newest: u64,
    questions: Vec<Waiting>,
    /// Leaders' answers to this run's questions: number and index.
    answers: Vec<(u64, u64)>,
}

impl Reads {
    /// How many wait here.
    pub fn waiting(&self) -> usize {
        self.own.len()
    }
}

/// What a leader's right to answer reads without asking is reckoned by (thesis 6.4.1).
#[derive(Clone, Debug, Default)]
pub struct Lease {
    pub enabled: bool,
    /// When messages were sent: number and time, ascending; not for longer than they matter.
    sent: VecDeque<(u64, u64)>,
    /// Who was told to take over, and where its log must end for that.
    successors: Vec<(Id, u64)>,
    /// What was sent up to here proves nothing: the process was away since.
    void: u64,
}

impl Lease {
    pub fn new(enabled: bool) -> Lease {
        Lease {
            enabled,
            ..Lease::default()
        }
    }

    pub fn void(&mut self, seq: u64) {
        self.void = seq;
    }

    pub fn sent(&mut self, seq: u64, now: u64) {
        if self.enabled {
            self.sent.push_back((seq, now));
        }
    }

    /// Nobody was told to take over, and the process was never away.
    pub fn is_whole(&self) -> bool {
        self.successors.is_empty() && self.void == 0
    }

    pub fn hand_over(&mut self, to: Id, last: u64) {
        self.successors.push((to, last));
    }
}

impl Node {
    /// Rule 55: a quorum has answered what was sent less than an election timeout ago, less a
    /// twentieth for its clocks; those who were told to take over hold a later entry durably, and so
    /// will not, not even after a restart (rule 57).
    fn holds_lease(&mut self, now: u64) -> bool {
        let since = now.saturating_sub(self.election - self.election.div_ceil(20));
        while self.lease.sent.front().is_some_and(|(_, at)| *at < since) {
            self.lease.sent.pop_front();
        }
        let Some((first, _)) = self.lease.sent.front().filter(|_| self.lease.enabled) else {
            return false;
        };
        let first = *first.max(&(self.lease.void + 1));
        let has = |id, seq| self.peer(id).is_some_and(|peer| peer.answered >= seq);
        let holds = |id, last| self.peer(id).is_some_and(|peer| peer.matched > last);
        let loyal = |(to, last): &(Id, u64)| holds(*to, *last);
        let agrees = |c: &Config| c.agrees(|id| id == self.id || has(id, first));
        self.config().is_some_and(|(_, c)| agrees(c)) && self.lease.successors.iter().all(loyal)
    }

    fn waiting(&self, from: Id, run: u64, number: u64, history: &History) -> Waiting {
        let leads = self.role == Role::Leader;
        Waiting {
            from,
            run,
            number,
            commit: self.commit,
            term: if leads { self.term } else { 0 },
            seq: if leads { self.seq } else { 0 },
            known: history.committed(),
            confirmed: false,
        }
    }

    /// Whether a quorum has answered a message sent since a read came.
    fn is_confirmed(&self, read: &Waiting) -> bool {
        // Before it led, everything that it has sent in its term is later.
        let since = if read.term == self.term { read.seq } else { 0 };
        let answered = |id| self.peer(id).is_some_and(|peer| peer.answered > since);
        let agrees = |c: &Config| c.agrees(|id| id == self.id || answered(id));
        self.role == Role::Leader && self.config().is_some_and(|(_, config)| agrees(config))
    }

    /// Marks what waits and is confirmed now. What came first is confirmed first.
    fn confirm_reads(&mut self, now: u64) {
        let waits = |reads: &[Waiting]| reads.last().is_some_and(|read| !read.confirmed);
        if self.role != Role::Leader || !waits(&self.reads.own) && !waits(&self.reads.questions) {
            return;
        }
        let leased = self.holds_lease(now);
        let mut reads = std::mem::take(&mut self.reads);
        for list in [&mut reads.own, &mut reads.questions] {
            for read in list.iter_mut().rev().take_while(|read| !read.confirmed) {
                read.confirmed = leased || self.is_confirmed(read);
            }
        }
        self.reads = reads;
    }

    /// Takes in reads, questions and answers.
    pub(super) fn hear_reads(&mut self, step: &Step, history: &History) {
        if self.role != Role::Leader {
            self.reads.questions.clear();
        } else if self.reads.questions.len() > 2 * QUESTIONS {
            self.reads.questions.drain(..QUESTIONS);
        }
        if self.reads.own.is_empty() {
            self.reads.answers.clear();
        }
        if let Input::Read(numbers) = &step.input {
            for number in numbers {
                let read = self.waiting(0, self.run, *number, history);
                self.reads.own.push(read);
                self.reads.newest = *number;
            }
        }
        match received(step) {
            Some((from, Message::ReadIndex { term, run, seq })) => {
                let question = self.waiting(from, *run, *seq, history);
                let same = |q: &Waiting| (q.from, q.run, q.number) == (from, *run, *seq);
                // The first time is what an answer may be measured by.
                if *term == question.term && !self.reads.questions.iter().any(same) {
                    self.reads.questions.push(question);
                }
            }
            Some((
                _,
                Message::ReadIndexReply {
                    run, seq, index, ..
                },
            )) if *run == self.run => {
                self.reads.answers.push((*seq, *index));
            }
            _ => {}
        }
        self.confirm_reads(step.now);
    }

    /// Thesis 6.4: a leader that has committed in its term, a quorum that has answered a message
    /// sent after the read came, and at least what was committed by then.
    fn check_read(&self, read: &Waiting, index: u64) -> Verdict {
        rule!(self.role == Role::Leader => "thesis 6.4", "answers reads and does not lead");
        let opened = self.commit >= self.opened_at;
        rule!(opened => "thesis 6.4, rule 53", "answers before it has committed in its term");
        rule!(read.confirmed => "thesis 6.4, rule 52", "no quorum has answered since {}", read.seq);
        let enough = index >= read.commit.max(self.opened_at) && index <= self.commit;
        rule!(enough => "thesis 6.4, rule 52", "reads at {index}, had {}", read.commit);
        rule!(index >= read.known => "I17", "reads at {index}, {} was committed", read.known);
        Ok(())
    }

    /// An answer to a peer's question.
    pub(super) fn check_answer(&mut self, question: (Id, u64, u64), index: u64) -> Verdict {
        let same = |q: &Waiting| (q.from, q.run, q.number) == question;
        let asked = self.reads.questions.iter().position(same);
        let Some(asked) = asked else {
            return Err("thesis 6.4: answers what nobody asked".into());
        };
        // Should a copy of it come later, it is asked anew.
        let question = self.reads.questions.remove(asked);
        self.check_read(&question, index)
    }

    /// A read of its own is finished.
    pub(super) fn check_finished(&mut self, number: u64, index: Option<u64>) -> Verdict {
        let at = self.reads.own.iter().position(|read| read.number == number);
        let Some(at) = at else {
            return Err(format!(
                "thesis 6.4: finishes read {number}, which does not wait"
            ));
        };
        let read = self.reads.own.remove(at);
        let Some(index) = index else {
            return Ok(());
        };
        let applied = self.applied;
        rule!(index <= applied => "thesis 6.4, rule 52", "reads at {index}, applied {applied}");
        // A leader's answer is for all reads that were made before its question.
        let told = |(seq, least): &(u64, u64)| *seq >= number && *least <= index;
        if self.reads.answers.iter().any(told) {
            rule!(index >= read.known => "I17", "reads at {index}, {} was committed", read.known);
            return Ok(());
        }
        self.check_read(&read, index)
    }

    /// What this node may ask: for reads that it has.
    pub(super) fn check_question(&self, run: u64, number: u64) -> Verdict {
        let right = run == self.run && number <= self.reads.newest;
        rule!(right => "rule 54", "asks for read {number}, which it has not");
        Ok(())
    }
}
