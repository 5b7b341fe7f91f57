//! Linearizable reads without a log entry: ReadIndex, at the leader and at everybody who follows
//! it (thesis 6.4; raft.md rules 52 to 54). No clock is trusted, unless there is a lease.
//!
//! A read asks for an index: once this server has applied everything up to there, it holds all
//! that was committed anywhere when the read was made. Whoever makes it numbers it by a counter of
//! its own; one who follows asks its leader, and a leader treats its own reads like those of
//! others. The leader answers only after a quorum has answered appends that left it later: by then
//! nobody can have committed anything that it did not know of when the read came.

use std::collections::VecDeque;

use super::message::{Message, ReadIndex, ReadIndexReply};
use super::persistence::Effect;
use super::progress::Progress;
use super::quorum;
use super::raft::{Raft, Role};
use super::types::{Index, Millis, NodeId};

/// Most reads of one server that may wait.
pub const MAX_READS: usize = 4096;

/// Most questions of others that may wait at a leader. One question is for all reads that its
/// sender has made so far, and one who gets no answer asks again.
const MAX_QUESTIONS: usize = 1024;

/// Names a read of this server until it is finished; grows by one each, from 1 in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// Why a read was refused or has failed. A read changes nothing, so it may always be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// No leader is known.
    NoLeader,
    /// [`MAX_READS`] wait already.
    Full,
    /// The leader changed, or was lost, before it had answered.
    LeaderLost,
    /// Two election timeouts have passed without an answer.
    TimedOut,
    /// There is no memory for one more.
    NoMemory,
}

/// A read that this server has made.
#[derive(Clone, Debug)]
struct Read {
    id: ReadId,
    made_at: Millis,
    /// Where it may be finished; `None` until the leader has said so.
    index: Option<Index>,
}

/// The reads that this server has made.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    newest: u64,
    /// Oldest first.
    waiting: VecDeque<Read>,
    /// The leader has not been asked since the newest was made, or has not answered for long.
    ask: bool,
    asked_at: Millis,
    /// Has room for all that wait.
    finished: VecDeque<(ReadId, Result<Index, ReadError>)>,
}

/// A read index that somebody asked a leader for.
#[derive(Clone, Debug)]
struct Question {
    /// Who asked; the leader itself too.
    from: NodeId,
    run: u64,
    seq: u64,
    /// Number of the newest append when it came: answers to later ones confirm it.
    after: u64,
    index: Index,
}

/// What a leader was asked and has not answered yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Questions {
    /// In the order in which they came, so that `after` never decreases.
    waiting: VecDeque<Question>,
    /// One came since the last appends left: a round must begin.
    round: bool,
}

impl Reads {
    /// Whether no read of this server waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.finished.is_empty() && !self.ask
    }
}

impl Questions {
    /// Whether nobody waits for an answer.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Raft {
    /// Makes a read, finished by [`Raft::take_read`] exactly once unless the server is poisoned.
    pub fn read(&mut self, now: Millis) -> Result<ReadId, ReadError> {
        self.observe(now);
        if self.poisoned || self.leader().is_none() {
            return Err(ReadError::NoLeader);
        }
        if self.reads.waiting.len() >= MAX_READS {
            return Err(ReadError::Full);
        }
        let Reads {
            waiting, finished, ..
        } = &mut self.reads;
        if waiting.try_reserve(1).is_err() || finished.try_reserve(waiting.len() + 1).is_err() {
            return Err(ReadError::NoMemory);
        }
        self.reads.newest += 1;
        let id = ReadId(self.reads.newest);
        self.reads.waiting.push_back(Read {
            id,
            made_at: now,
            index: None,
        });
        self.reads.ask = true;
        Ok(id)
    }

    /// The next read that is finished: with the index up to which everything has been handed out by
    /// [`Raft::take_committed`], which must have been called before.
    pub fn take_read(&mut self) -> Option<(ReadId, Result<Index, ReadError>)> {
        let reads = &mut self.reads;
        if let Some(failed) = reads.finished.pop_front() {
            return Some(failed);
        }
        let read = reads.waiting.front()?;
        let finished = (read.id, Ok(read.index.filter(|i| *i <= self.handed)?));
        reads.waiting.pop_front();
        Some(finished)
    }

    /// Fails every read that waits.
    pub(super) fn fail_reads(&mut self, why: ReadError) {
        self.reads.ask = false;
        let failed = self.reads.waiting.drain(..).map(|read| (read.id, Err(why)));
        self.reads.finished.extend(failed);
    }

    /// Gives up on reads that were not answered for too long, and has the leader asked again for
    /// the others. One that is answered waits for this server to catch up, as long as that takes.
    pub(super) fn tick_reads(&mut self) {
        let (now, reads) = (self.now, &mut self.reads);
        let patience = 2 * self.options.election;
        let open = reads.first_open();
        let overdue = |read: &&Read| now >= read.made_at + patience;
        let count = reads.waiting.range(open..).take_while(overdue).count();
        for read in reads.waiting.drain(open..open + count) {
            reads
                .finished
                .push_back((read.id, Err(ReadError::TimedOut)));
        }
        if open < reads.waiting.len() && now >= reads.asked_at + self.options.heartbeat {
            reads.ask = true;
        }
    }

    /// When [`Raft::tick_reads`] has something to do.
    pub(super) fn reads_due(&self) -> Millis {
        let reads = &self.reads;
        let again = reads.asked_at + self.options.heartbeat;
        let oldest = reads.waiting.get(reads.first_open());
        oldest.map_or(Millis::MAX, |read| {
            again.min(read.made_at + 2 * self.options.election)
        })
    }

    /// Asks the leader, once for all reads that were made in this driving call.
    pub(super) fn ask_for_reads(&mut self) {
        if !self.reads.ask {
            return;
        }
        self.reads.ask = false;
        self.reads.asked_at = self.now;
        let question = ReadIndex {
            term: self.hard.term,
            run: self.options.run,
            seq: self.reads.newest,
        };
        if self.is_leader() {
            self.take_question(self.id, &question);
        } else if let Some(leader) = self.leader {
            // The term itself may still be on its way to the disk.
            let message = Message::ReadIndex(question);
            self.after_hard(Effect::Send(leader, self.hard.term, Box::new(message)));
        }
    }

    pub(super) fn on_read_index_reply(&mut self, from: NodeId, reply: &ReadIndexReply) {
        // The answer to an earlier run's question knows nothing of what was committed since.
        let own_run = reply.run == self.options.run || cfg!(keel_bug = "read_of_another_run");
        let mine = reply.term == self.hard.term && own_run;
        if mine && self.leader == Some(from) {
            self.reads.answered(reply.seq, reply.index);
        }
    }

    // ---- the leader ------------------------------------------------------

    /// A question of an earlier term is nobody's any more: its asker has a new leader by now.
    pub(super) fn on_read_index(&mut self, from: NodeId, question: &ReadIndex) {
        let current = question.term == self.hard.term;
        if current && self.progress(from).is_some() {
            self.take_question(from, question);
        }
    }

    fn take_question(&mut self, from: NodeId, question: &ReadIndex) {
        let (run, seq) = (question.run, question.seq);
        let commit = self.commit;
        let unasked = self.has_lease();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let waiting = &mut leader.questions.waiting;
        let repeated = waiting
            .iter()
            .any(|q| (q.from, q.run, q.seq) == (from, run, seq));
        if repeated || waiting.len() >= MAX_QUESTIONS || waiting.try_reserve(1).is_err() {
            return;
        }
        // Earlier leaders may have committed all that this one found in its log.
        let index = match cfg!(keel_bug = "read_before_noop") {
            true => commit,
            false => commit.max(leader.opened_at),
        };
        if unasked {
            self.answer(from, run, seq, index);
            return;
        }
        waiting.push_back(Question {
            from,
            run,
            seq,
            after: leader.numbers.newest(),
            index,
        });
        leader.questions.round = true;
    }

    /// Sends every voter an append for what was asked in this driving call. Should it get lost,
    /// the next heartbeat does as well.
    pub(super) fn begin_round(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if !std::mem::take(&mut leader.questions.round) {
            return;
        }
        let config = self.configs.latest();
        let peers = leader.peers.keys().copied();
        let voters: Vec<NodeId> = peers.filter(|id| config.is_voter(*id)).collect();
        for voter in voters {
            self.send_append(voter, false);
        }
    }

    /// Answers what a quorum has confirmed. Looked at in every driving call, for a change of the
    /// members may confirm it as well as a message (raft.md rule 54); never before an entry of
    /// this leader's own term is committed (rule 53).
    pub(super) fn answer_questions(&mut self) {
        let id = self.id;
        let config = self.configs.latest();
        let has_committed = self.has_committed_in_term() || cfg!(keel_bug = "read_before_noop");
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if !has_committed || leader.questions.waiting.is_empty() {
            return;
        }
        let (peers, newest) = (&leader.peers, leader.numbers.newest());
        // A number that was never sent is forged.
        let heard = |id: NodeId| peers.get(&id).map_or(0, Progress::heard_seq).min(newest);
        let confirmed = quorum::reached(config, |voter| match voter == id {
            true => u64::MAX,
            false => heard(voter),
        });
        let waiting = &mut leader.questions.waiting;
        let slack = u64::from(cfg!(keel_bug = "stale_read_round"));
        let count = waiting.partition_point(|q| q.after < confirmed + slack);
        let mut answered: Vec<Question> = Vec::new();
        if answered.try_reserve_exact(count).is_err() {
            // Then with the next one.
            return;
        }
        answered.extend(waiting.drain(..count));
        if cfg!(keel_bug = "read_by_callers_context") {
            // What askers call their reads is not unique: others' come with the same name.
            let names: Vec<u64> = answered.iter().map(|q| q.seq).collect();
            answered.extend(waiting.iter().filter(|q| names.contains(&q.seq)).cloned());
            waiting.retain(|q| !names.contains(&q.seq));
        }
        for question in answered {
            let Question {
                from,
                run,
                seq,
                index,
                ..
            } = question;
            self.answer(from, run, seq, index);
        }
    }

    fn answer(&mut self, to: NodeId, run: u64, seq: u64, index: Index) {
        assert!(index <= self.commit, "a read index is committed");
        if to == self.id {
            self.reads.answered(seq, index);
            return;
        }
        let term = self.hard.term;
        let reply = ReadIndexReply {
            term,
            run,
            seq,
            index,
        };
        self.send(to, Message::ReadIndexReply(reply));
    }
}

impl Reads {
    /// Position of the first read that is not answered; an answer is for all up to one of them.
    fn first_open(&self) -> usize {
        self.waiting.partition_point(|read| read.index.is_some())
    }

    /// Every read up to number `seq` may be finished at `index`.
    fn answered(&mut self, seq: u64, index: Index) {
        let open = self.first_open();
        let mine = |read: &&mut Read| read.id.0 <= seq;
        for read in self.waiting.range_mut(open..).take_while(mine) {
            read.index = Some(index);
        }
    }
}
