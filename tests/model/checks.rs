//! The promises, looked at after every step; their numbers are those of the design's list. What no
//! single world shows is remembered in [`Past`], which is part of the world.

use raftkeel::core::{
    AppendOutcome, Configuration, Entry, Index, Message, NodeId, Payload, Persist, Raft, Term,
};

use crate::world::{Disk, World, n};

/// Terms that a history may have, counted from 0.
const TERMS: usize = 8;
const NODES: usize = 4;

/// What a running server was last seen to be.
#[derive(Clone, Copy, Default, Hash)]
struct View {
    term: Term,
    leads: bool,
    commit: Index,
    last: Index,
}

/// What must be remembered.
#[derive(Clone, Hash)]
pub struct Past {
    leaders: [Option<NodeId>; TERMS],
    /// Every entry that anybody knew to be committed: its term, and that of who knew it first.
    committed: Vec<(Term, Term)>,
    views: [View; NODES],
}

impl Past {
    /// The first entry is committed by decree.
    pub fn new() -> Past {
        Past {
            leaders: [None; TERMS],
            committed: vec![(1, 0)],
            views: [View::default(); NODES],
        }
    }

    /// A server has lost all that is not on its disk.
    pub fn restarted(&mut self, i: usize) {
        self.views[i] = View::default();
    }

    /// Number of entries known to be committed.
    pub fn committed(&self) -> usize {
        self.committed.len()
    }
}

fn is_quorum(config: &Configuration, member: impl Fn(NodeId) -> bool) -> bool {
    let most = |list: &[NodeId]| 2 * list.iter().filter(|id| member(**id)).count() > list.len();
    most(&config.voters) && (config.outgoing.is_empty() || most(&config.outgoing))
}

fn disk(world: &World, id: NodeId) -> &Disk {
    &world.nodes[id.get() as usize - 1].disk
}

/// The newest configuration of a log up to an index.
fn configuration_at(entries: &[Entry], upto: Index) -> Option<(Index, &Configuration)> {
    let within = entries.iter().rev().filter(|entry| entry.index <= upto);
    let mut configs = within.filter_map(|entry| match &entry.payload {
        Payload::Config(config, _) => Some((entry.index, &**config)),
        _ => None,
    });
    configs.next()
}

/// I2, I3: a write reaches a disk. One vote a term, and terms never go back.
pub fn written(disk: &Disk, write: &Persist) {
    if let Some(hard) = write.hard {
        assert!(
            hard.term >= disk.hard.term,
            "I3: the durable term goes back"
        );
        let kept = disk.hard.vote.is_none() || hard.vote == disk.hard.vote;
        assert!(
            hard.term > disk.hard.term || kept,
            "I2: the vote of term {} changes from {:?} to {:?}",
            hard.term,
            disk.hard.vote,
            hard.vote
        );
    }
    if let Some(first) = write.entries.first() {
        let end = disk.entries.len() as Index + 1;
        assert!(first.index <= end, "a write leaves a gap");
    }
}

/// A server has taken an input.
pub fn stepped(world: &mut World, i: usize) {
    let node = world.nodes[i].clone();
    let raft = &node.raft;
    let view = world.past.views[i];
    let now = View {
        term: raft.term(),
        leads: raft.is_leader(),
        commit: raft.commit(),
        last: raft.log().last_index(),
    };
    assert!(now.term >= view.term, "I3: the term of {} goes back", i + 1);
    assert!(
        now.commit >= view.commit,
        "I11: commit of {} goes back",
        i + 1
    );
    assert!(
        now.commit <= now.last,
        "I11: {} commits beyond its log",
        i + 1
    );
    let went_on = view.leads && view.term == now.term;
    check_log_matching(world, i);
    if now.leads {
        check_leader(world, i, raft, went_on);
    }
    if now.leads && went_on {
        assert!(
            now.last >= view.last,
            "I4: leader {} truncates its log",
            i + 1
        );
    }
    check_commit(world, i, raft, view);
    world.past.views[i] = now;
    check_copies(world);
}

/// I5: the same term at an index, the same log up to there, in memory and on disk.
fn check_log_matching(world: &World, i: usize) {
    let own = world.nodes[i].raft.log().from(1);
    for other in &world.nodes {
        for log in [other.raft.log().from(1), &other.disk.entries[..]] {
            let mut both = own.iter().zip(log);
            let Some(last) = both.rfind(|(a, b)| a.term == b.term) else {
                continue;
            };
            let upto = last.0.index as usize;
            assert!(
                own[..upto] == log[..upto],
                "I5: two logs agree at {upto} and differ before it, or in it"
            );
        }
    }
}

/// I1, I2, I7.
fn check_leader(world: &mut World, i: usize, raft: &Raft, went_on: bool) {
    let (id, term) = (n(i as u64 + 1), raft.term());
    let leader = *world.past.leaders[term as usize].get_or_insert(id);
    assert_eq!(leader, id, "I1: two leaders in term {term}");
    if went_on {
        check_change(world, i, raft);
    }
    let hard = world.nodes[i].disk.hard;
    assert_eq!(
        (term, Some(id)),
        (hard.term, hard.vote),
        "I2: {id} leads without a durable vote of its own"
    );
    for peer in raft.configuration().members() {
        let lost = raft.progress(peer).is_some_and(|p| p.has_lost_entries());
        let may = world.used.rots > 0;
        assert!(!lost || may, "{id} believes that {peer} has lost entries");
    }
    if went_on {
        return;
    }
    for (at, (entry_term, by_term)) in world.past.committed.iter().enumerate() {
        let index = at as Index + 1;
        assert!(
            *by_term >= term || raft.log().term(index) == Some(*entry_term),
            "I7: leader {id} of term {term} lacks the committed entry {index}"
        );
    }
}

/// I15: a leader changes the configuration only when the one before is committed.
fn check_change(world: &World, i: usize, raft: &Raft) {
    let log = raft.log().from(1);
    let latest = raft.configuration_index();
    if latest <= world.past.views[i].last {
        return;
    }
    let before = configuration_at(log, latest - 1);
    let (index, _) = before.expect("the first entry is a configuration");
    assert!(
        index <= raft.commit(),
        "I15: leader {} leaves the configuration at {index} before it is committed",
        i + 1
    );
}

/// I6, I9, I11.
fn check_commit(world: &mut World, i: usize, raft: &Raft, view: View) {
    let (commit, term) = (raft.commit(), raft.term());
    for index in view.commit + 1..=commit {
        let own = raft.log().term(index).unwrap_or(0);
        if index as usize > world.past.committed.len() {
            world.past.committed.push((own, term));
        }
        assert_eq!(
            world.past.committed[index as usize - 1].0,
            own,
            "I6: {} commits another entry at {index}",
            i + 1
        );
    }
    let counted = view.leads && view.term == term && commit > view.commit;
    if !counted {
        return;
    }
    assert_eq!(
        Some(term),
        raft.log().term(commit),
        "I11: leader {} commits an entry of an old term by counting",
        i + 1
    );
    // What it appends when an entry commits was not in force when it counted.
    let config = configuration_at(raft.log().from(1), view.last);
    let (_, config) = config.expect("a leader has a configuration");
    let durable = |id| disk(world, id).keeps(commit, term);
    assert!(
        is_quorum(config, durable),
        "I9: leader {} commits {commit} without a durable quorum",
        i + 1
    );
}

/// I8: whichever quorum acts next, one of it has all that is committed on its disk, or claims it.
fn check_copies(world: &World) {
    let index = world.past.committed.len() as Index;
    if index == 1 {
        return;
    }
    let (term, _) = world.past.committed[index as usize - 1];
    let lacks = |id: NodeId| !disk(world, id).keeps(index, term);
    let holds = |entries: &[Entry]| {
        let last = entries.get(index as usize - 1);
        last.is_some_and(|entry| entry.term == term)
    };
    let logs = || world.nodes.iter().map(|node| node.raft.log().from(1));
    let disks = world.nodes.iter().map(|node| &node.disk);
    let disks = disks.flat_map(|disk| [&disk.entries[..], &disk.lost[..]]);
    let full = logs().chain(disks).find(|entries| holds(entries));
    let full = full.expect("I8: a committed entry is nowhere");
    let newest = configuration_at(full, index).expect("the first entry is a configuration");
    let later = logs().filter_map(|log| configuration_at(log, Index::MAX));
    for (_, config) in later.filter(|c| c.0 > newest.0).chain([newest]) {
        assert!(
            !is_quorum(config, lacks),
            "I8: {index} is committed, and a quorum of {config:?} lacks it on its disks"
        );
    }
}

/// I6, rule 25: what is handed out to be applied is committed and on the disk.
pub fn applied(world: &World, i: usize, entries: &[Entry]) {
    for entry in entries {
        let committed = world.past.committed.get(entry.index as usize - 1);
        assert_eq!(
            Some(entry.term),
            committed.map(|(term, _)| *term),
            "I6: {} applies another entry at {}",
            i + 1,
            entry.index
        );
        assert_eq!(
            Some(entry),
            world.nodes[i].disk.get(entry.index),
            "{} applies what is not on its disk",
            i + 1
        );
    }
}

/// I2, I3, I12: what a server says is on its disk.
pub fn sent(world: &World, i: usize, to: NodeId, message: &Message) {
    let (id, disk) = (n(i as u64 + 1), &world.nodes[i].disk);
    let said = match message {
        Message::PreVote(request) => request.term - 1,
        Message::PreVoteReply(reply) if reply.granted => 0,
        _ => message.term(),
    };
    assert!(
        disk.hard.term >= said,
        "I3: {id} speaks in term {said}, its disk has {}",
        disk.hard.term
    );
    let vote = match message {
        Message::Vote(request) => Some((request.term, id)),
        Message::VoteReply(reply) if reply.granted => Some((reply.term, to)),
        _ => None,
    };
    if let Some((term, candidate)) = vote {
        assert_eq!(
            (term, Some(candidate)),
            (disk.hard.term, disk.hard.vote),
            "I2: {id} gives a vote that is not durable"
        );
    }
    if let Message::AppendReply(reply) = message
        && let AppendOutcome::Accepted { match_index } = reply.outcome
    {
        check_acknowledged(world, i, to, reply.term, match_index);
    }
}

/// I12: what is acknowledged is durable, and what the leader has there, if it still leads.
fn check_acknowledged(world: &World, i: usize, to: NodeId, term: Term, upto: Index) {
    let durable = world.nodes[i].disk.term(upto);
    assert!(
        durable.is_some(),
        "I12: {} acknowledges {upto}, which is not on its disk",
        i + 1
    );
    let leader = &world.nodes[to.get() as usize - 1].raft;
    if leader.is_leader() && leader.term() == term {
        assert_eq!(
            leader.log().term(upto),
            durable,
            "I12: {} acknowledges {upto}, where the leader has another entry",
            i + 1
        );
    }
}
