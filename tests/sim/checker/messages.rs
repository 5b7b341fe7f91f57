//! What leaves a server must be on its disk, and true: I2, I3, I12, I20.

use raftkeel::core::{Append, AppendOutcome, Index, Message, NodeId, Raft, Term, TimeoutNow};

use super::{Checker, place};
use crate::judge::Call;
use crate::server::Input;

impl Checker {
    pub(super) fn says(&mut self, call: &Call<'_, Raft>) {
        self.hears(call);
        for (to, message) in &call.output.sent {
            self.transport(call, *to);
            self.term_is_durable(call, message);
            match message {
                Message::Vote(request) => self.vote_is_durable(call.node, call.id, request.term),
                Message::VoteReply(reply) if reply.granted => {
                    self.vote_is_durable(call.node, *to, reply.term);
                    self.vote_given_once(call.node, *to, reply.term);
                }
                Message::Append(append) => self.append_is_true(call, append),
                Message::TimeoutNow(word) => self.handed_over_whole(call, *to, word),
                Message::Snapshot(piece) => self.piece_is_true(call, piece),
                Message::SnapshotReply(reply) => {
                    self.number_was_heard(call.node, reply.term, reply.seq);
                }
                Message::AppendReply(reply) => {
                    self.number_was_heard(call.node, reply.term, reply.seq);
                    if let AppendOutcome::Accepted { match_index } = reply.outcome {
                        self.ack_honesty(call.node, reply.term, match_index);
                    }
                }
                _ => {}
            }
        }
    }

    /// What a leader has numbered comes to a node.
    fn hears(&mut self, call: &Call<'_, Raft>) {
        let Input::Receive { packet, .. } = call.input else {
            return;
        };
        let seq = match packet {
            Message::Append(append) => append.seq,
            Message::Snapshot(piece) => piece.seq,
            Message::TimeoutNow(word) => word.seq,
            _ => return,
        };
        let heard = &mut self.nodes[call.node].numbered;
        *heard = (*heard).max((packet.term(), seq));
    }

    /// I12: a node answers only numbers that it has heard in the term, for reads, leases and the
    /// watch over the quorum are reckoned by them.
    fn number_was_heard(&self, at: usize, term: Term, seq: u64) {
        let node = &self.nodes[at];
        let heard = node.numbered;
        assert!(
            seq == 0 || (term, seq) <= heard,
            "I12: {} answers number {seq} of term {term}, and has heard {} of term {}",
            node.id,
            heard.1,
            heard.0
        );
    }

    /// I20: nobody talks to itself, or to nobody.
    fn transport(&self, call: &Call<'_, Raft>, to: NodeId) {
        assert!(
            to != call.id && place(to) < self.nodes.len(),
            "I20: {} sends to {to}",
            call.id
        );
    }

    /// I3: what is said of a term is durable. A pre-vote speaks of a term that may never be, and
    /// so does the answer that grants it.
    fn term_is_durable(&mut self, call: &Call<'_, Raft>, message: &Message) {
        let node = &mut self.nodes[call.node];
        let (durable, term) = (node.hard.term, message.term());
        match message {
            Message::PreVote(_) => assert!(
                durable + 1 >= term,
                "I3: {} asks for pre-votes of term {term}, its disk has {durable}",
                node.id
            ),
            Message::PreVoteReply(reply) if reply.granted => {}
            _ => {
                assert!(
                    durable >= term,
                    "I3: {} speaks in term {term}, its disk has {durable}",
                    node.id
                );
                node.spoke = term.max(node.spoke);
            }
        }
    }

    /// I2: a released vote is on the disk, for others as for oneself.
    pub(super) fn vote_is_durable(&self, at: usize, candidate: NodeId, term: Term) {
        let node = &self.nodes[at];
        // A newer term on the disk has replaced the vote, which left before.
        let kept = node.hard.term == term && node.hard.vote == Some(candidate);
        assert!(
            kept,
            "I2: {} votes for {candidate} in term {term}, its disk has {:?} in term {}",
            node.id, node.hard.vote, node.hard.term
        );
    }

    /// I2: votes that left were for one candidate a term.
    fn vote_given_once(&mut self, at: usize, candidate: NodeId, term: Term) {
        let node = &mut self.nodes[at];
        let (known, vote) = node.granted;
        assert!(
            known != term || vote == Some(candidate),
            "I2: {} gave its vote of term {term} to {vote:?} and to {candidate}",
            node.id
        );
        node.granted = (term, Some(candidate));
    }

    /// I5, I1: what a leader sends is its log.
    fn append_is_true(&self, call: &Call<'_, Raft>, append: &Append) {
        let (id, log) = (call.id, &self.nodes[call.node].log);
        assert!(
            call.after.term == append.term && call.after.commit >= append.commit,
            "I1: {id} sends an append of term {}, commit {}",
            append.term,
            append.commit
        );
        assert!(
            log.holds(append.prev_index, append.prev_term),
            "I5: {id} sends entries after {}.{}, which it has not",
            append.prev_index,
            append.prev_term
        );
        let mut index = append.prev_index;
        for entry in &append.entries {
            index += 1;
            let same = log.holds(index, entry.term) && self.ghost.is_same(entry);
            assert!(
                entry.index == index && same,
                "I5: {id} sends another entry at {index} than its log has"
            );
        }
    }

    /// I13: leadership is handed over to one who has acknowledged all, and all of it is committed.
    fn handed_over_whole(&self, call: &Call<'_, Raft>, to: NodeId, word: &TimeoutNow) {
        let told = self.nodes[place(to)].acked(word.term);
        let last = call.after.last_index;
        assert!(
            word.last_index == last && told >= last && call.after.commit == last,
            "I13: {} hands over to {to}, which has acknowledged {told} of {last}",
            call.id
        );
    }

    /// I12: what is acknowledged is durable, and is what the leader of the term has there.
    fn ack_honesty(&mut self, at: usize, term: Term, upto: Index) {
        let node = &mut self.nodes[at];
        let (id, durable) = (node.id, node.disk.log().term(upto));
        assert!(
            durable.is_some(),
            "I12: {id} acknowledges {upto}, its disk ends at {}",
            node.disk.log().last()
        );
        let led = self.leaders.get(term as usize).and_then(Option::as_ref);
        let theirs = led.and_then(|led| led.log.term(upto));
        assert!(
            durable == theirs || upto == 0,
            "I12: {id} acknowledges {upto} in term {term}: it has an entry of term {durable:?}, \
             the leader one of {theirs:?}"
        );
        match node.acked.last_mut() {
            Some((newest, most)) if *newest == term => *most = upto.max(*most),
            _ => node.acked.push((term, upto)),
        }
    }
}
