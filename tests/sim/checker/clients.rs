//! What clients were told, held against what came to pass. The order of the commits is the order
//! of all that took effect, so that a look at each answer is enough.

use raftkeel::core::{Index, NodeId, Term};

use crate::host::Outcome;
use crate::marks::Mark::*;

/// One proposal.
#[derive(Clone, Copy, Default)]
struct Proposal {
    refused: bool,
    /// How much was committed anywhere when it was made.
    after: Index,
    outcome: Option<Outcome>,
    committed: Option<(Term, Index)>,
}

/// A read that has no answer.
struct Reading {
    read: u64,
    /// How much was committed anywhere when it was made.
    after: Index,
}

/// All clients of all nodes.
#[derive(Default)]
pub struct Clients {
    proposals: Vec<Proposal>,
    /// By node.
    reads: Vec<Vec<Reading>>,
    pub reads_done: u64,
}

impl Clients {
    pub fn new(nodes: usize) -> Clients {
        Clients {
            reads: (0..nodes).map(|_| Vec::new()).collect(),
            ..Clients::default()
        }
    }

    fn proposal(&mut self, number: u64) -> &mut Proposal {
        let place = number as usize - 1;
        while self.proposals.len() <= place {
            self.proposals.push(Proposal::default());
        }
        &mut self.proposals[place]
    }

    pub fn proposed(&mut self, number: u64, placed: bool, committed: Index) {
        let proposal = self.proposal(number);
        proposal.refused = !placed;
        proposal.after = committed;
    }

    /// I19: what was refused is in no log.
    pub fn appended(&mut self, id: NodeId, number: u64, index: Index) {
        if number > 0 {
            let proposal = self.proposal(number);
            assert!(
                !proposal.refused,
                "I19: {id} has proposal {number} at {index}, which was refused"
            );
        }
    }

    /// I19: nothing takes effect twice, nor after it was said to be lost.
    pub fn committed(&mut self, number: u64, term: Term, index: Index) {
        if number == 0 {
            return;
        }
        let proposal = self.proposal(number);
        assert!(
            proposal.committed.is_none(),
            "I19: proposal {number} takes effect twice, at {:?} and at {index}",
            proposal.committed
        );
        assert!(
            proposal.outcome != Some(Outcome::Lost),
            "I19: proposal {number} is committed at {index}, and was said to be lost"
        );
        proposal.committed = Some((term, index));
        if proposal.outcome == Some(Outcome::Unknown) {
            UnknownTookEffect.hit();
        }
    }

    /// I19: there is one outcome, and it is true.
    pub fn outcome(&mut self, number: u64, outcome: Outcome) {
        let proposal = self.proposal(number);
        assert!(
            proposal.outcome.is_none(),
            "I19: proposal {number} has two outcomes, {:?} and {outcome:?}",
            proposal.outcome
        );
        proposal.outcome = Some(outcome);
        match outcome {
            Outcome::Done(term, index) => {
                ProposalDone.hit();
                assert!(
                    proposal.committed == Some((term, index)),
                    "I19: proposal {number} is said to be done at {index}.{term}, and was \
                     committed at {:?}",
                    proposal.committed
                );
                assert!(
                    index > proposal.after,
                    "I19: proposal {number} took effect at {index}, before it was made: {} were \
                     committed by then",
                    proposal.after
                );
            }
            Outcome::Lost => {
                ProposalOverwritten.hit();
                assert!(
                    proposal.committed.is_none(),
                    "I19: proposal {number} is said to be lost, and was committed"
                );
            }
            Outcome::Unknown if proposal.committed.is_some() => UnknownWasDone.hit(),
            Outcome::Unknown => UnknownOutcome.hit(),
        }
    }

    /// A server has taken a read in.
    pub fn read_made(&mut self, node: usize, id: NodeId, read: u64, committed: Index) {
        let reads = &mut self.reads[node];
        assert!(
            reads.iter().all(|r| r.read != read),
            "I17: {id} gives read {read} out twice"
        );
        let after = committed;
        reads.push(Reading { read, after });
    }

    /// I17: who reads at an index has applied all that was committed anywhere when it asked.
    pub fn read_done(
        &mut self,
        node: usize,
        id: NodeId,
        (read, index): (u64, Option<Index>),
        applied: Index,
    ) {
        let reads = &mut self.reads[node];
        let Some(at) = reads.iter().position(|r| r.read == read) else {
            panic!("I17: {id} finishes read {read}, which does not wait");
        };
        let after = reads.remove(at).after;
        let Some(index) = index else {
            return;
        };
        self.reads_done += 1;
        assert!(
            index >= after,
            "I17: {id} reads at {index}, and {after} was committed before it asked"
        );
        assert!(
            applied >= index,
            "I17: {id} reads at {index}, and has applied {applied}"
        );
    }

    /// A server is gone, and its reads with it.
    pub fn forget_reads(&mut self, node: usize) {
        self.reads[node].clear();
    }

    /// Reads that wait at a node.
    pub fn reads_waiting(&self, node: usize) -> usize {
        self.reads[node].len()
    }
}
