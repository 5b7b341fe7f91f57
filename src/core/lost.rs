//! The host's word that this server has lost its connection to the leader.
//!
//! A leader that dies takes its connections with it. All others could know at once, and still wait
//! for a silence of E and more. But it is the word of one server about one connection, and may be
//! wrong, at all servers at once. What it may do follows from what rests on E:
//!
//! - Safety does not: votes, terms and logs decide who leads and what is committed, whenever a
//!   server campaigns (paper 5.6).
//! - That nobody deposes a leader whom a quorum hears rests on the voters' loyalty (raft.md rules 6
//!   to 9). Who was told is loyal no more until it hears the leader again; nobody else learns of
//!   it. A campaign takes pre-votes of a quorum, and votes, each of a voter that was told and has
//!   not heard the leader since, or has not heard it for E, be it for a restart. So a leader that
//!   hears a quorum of which nobody was told leads on. And who was told waits for a heartbeat before it campaigns: a
//!   leader that is connected after all is heard by then, and the word is void. No other counts
//!   for E then, or a host that says it again and again would wear that down. Until it is acted on,
//!   it changes nothing that the host sees.
//! - Reads by leases rest on E: whoever answers an append votes for nobody for as long (raft.md
//!   rule 55). Where there are any, the word is ignored.
//! - Fencing rests on how long a leader that excludes has led (detection.md 4.6, invariant I1). An
//!   earlier leader gives others leave to serve until E after the round left that a quorum has
//!   answered last, whenever the answers came. That quorum and the later leader's voters have a
//!   server in common, which votes E after it heard that round or later, unless it was told: then
//!   the later leader may judge by what was heard before the earlier one has come to its end. So whoever votes within E of having heard a leader says
//!   that its vote is early, and a leader by an early vote counts as elected E later than it was
//!   ([`Raft::is_early`]): that is after every voter's E. Nothing about an exclusion comes sooner
//!   than it could without the word. Votes for whom a leader hands over to, and those of a server
//!   that has forgotten its leader by a restart, are early or not by the same measure.
//! - The failure detector does not hear of the word: a connection that is lost is no silence.

use super::raft::Raft;
use super::types::{Millis, NodeId};

impl Raft {
    /// The host has lost its connection to `id`, or cannot make one. If that is the leader, and it
    /// is not heard again meanwhile, this server campaigns in a heartbeat and up to a quarter of E:
    /// others that lose it are told at about the same time, and should not split the votes.
    pub fn lost(&mut self, now: Millis, id: NodeId) {
        self.observe(now);
        let led = self.leader == Some(id) && !self.is_leader();
        let leased = self.options.lease_reads && !cfg!(keel_bug = "lost_under_lease");
        // One that was void says more of the host than of the leader; and one wait is drawn for it,
        // however often it is said.
        let counts = self.now >= self.words_count_from && !self.leader_lost;
        if self.poisoned || !led || leased || !counts {
            return;
        }
        self.leader_lost = true;
        let beat = match cfg!(keel_bug = "lost_not_awaited") {
            true => 0,
            false => self.options.heartbeat,
        };
        let wait = beat + self.draw_of(self.options.election / 4);
        self.election_at = self.election_at.min(self.now + wait);
    }

    /// Whether it follows a leader to which its host has lost the connection, and has not heard it
    /// since.
    pub fn has_lost_leader(&self) -> bool {
        self.leader_lost
    }

    /// Whether a leader was heard within E, be it in an earlier term, before a restart, or this
    /// server itself: then its vote is early.
    pub(super) fn has_heard_lately(&self) -> bool {
        self.now < self.leader_heard_at + self.options.election
    }

    /// Leader only: whether it was elected by a vote, its own or another's, of a server that had
    /// heard a leader within E. An earlier leader may then be confirmed by a quorum for E more.
    pub fn is_early(&self) -> bool {
        self.is_leader() && self.early
    }
}
