//! Tells the model what the core does. Nothing is judged here.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use raftkeel::core::{
    self, AppendOutcome, Configuration, Index, NodeId, Payload, Raft, ReadError, ReadId, Restored,
    RoleKind,
};

use super::data::{
    Ask, Config, Entry, Hard, Input, Message, Mix, NOOP, Output, Persist, Piece, Role, Snapshot,
    Step, View, VoteRequest, Wants, mix,
};
use super::{Model, Node};

/// What was taken from a server after a call, in this order.
#[derive(Default)]
pub struct Taken<'a> {
    pub persist: Option<&'a core::Persist>,
    pub messages: &'a [(NodeId, core::Message)],
    pub committed: &'a [core::Entry],
    pub reads: &'a [(ReadId, Result<Index, ReadError>)],
    pub asks: &'a [core::Ask],
}

/// One call of a server, after which this was taken from it.
pub fn step(model: &Model, id: NodeId, now: u64, input: Input, raft: &Raft, taken: Taken) -> Step {
    let messages = taken.messages.iter();
    let reads = taken.reads.iter();
    let first = taken.committed.first().map_or(0, |entry| entry.index);
    let before = match input {
        Input::Start { .. } => None,
        _ => model.node(id.get()),
    };
    Step {
        node: id.get(),
        now,
        input,
        after: view(before, id, raft),
        output: Output {
            persist: taken.persist.map(persist),
            messages: messages.map(|(to, m)| (to.get(), message(m))).collect(),
            applied: (first, taken.committed.iter().map(entry).collect()),
            reads: reads.map(|(read, index)| (read.0, index.ok())).collect(),
            asks: taken.asks.iter().map(ask).collect(),
        },
    }
}

/// A server as it is; its log as it differs from what the model knows of it.
fn view(before: Option<&Node>, id: NodeId, raft: &Raft) -> View {
    let log = raft.log();
    let base = log.base().index;
    let memory = log.first_in_memory() - 1;
    let mut kept = before.map_or(memory, |node| node.log.last().min(log.last_index()));
    // By Log Matching it is enough to look at the terms.
    let same = |at| before.is_none_or(|node| node.log.term(at) == log.term(at));
    while kept > base && !same(kept) {
        kept -= 1;
    }
    let kept = kept.max(base);
    let hard = hard(&raft.hard_state());
    let config = raft.configuration();
    let mut peers = Vec::new();
    if raft.is_leader() {
        let others = config.members().filter(|peer| *peer != id);
        let known = others.filter_map(|peer| Some((peer, raft.progress(peer)?)));
        peers.extend(known.map(|(peer, p)| (peer.get(), p.match_index(), p.next_index())));
    }
    View {
        term: raft.term(),
        vote: hard.vote,
        role: role(raft.role()),
        leader: NodeId::raw(raft.leader()),
        commit: raft.commit(),
        excluded: hard.excluded,
        claim: hard.claim,
        snapshot: raft.snapshot().map_or(0, |snapshot| snapshot.last.index),
        base,
        config: (raft.configuration_index(), config.epoch),
        last: (log.last_index(), log.last_term()),
        kept,
        suffix: log.from(kept + 1).iter().map(entry).collect(),
        peers,
        successor: NodeId::raw(raft.transferring()),
        early: raft.is_early(),
    }
}

/// The input of a start.
pub fn start(options: &core::Options, restored: &Restored) -> Input {
    let partial = restored.partial.as_ref();
    Input::Start {
        election: options.election,
        heartbeat: options.heartbeat,
        run: options.run,
        stall: options.stall,
        leases: options.lease_reads,
        hard: hard(&restored.hard),
        snapshot: restored.snapshot.as_ref().map(snapshot),
        base: (restored.base.index, restored.base.term),
        entries: restored.entries.iter().map(entry).collect(),
        partial: partial.map(|(of, kept)| (snapshot(of), *kept)),
    }
}

/// The input of a message.
pub fn receive(from: NodeId, received: &core::Message) -> Input {
    Input::Receive {
        from: from.get(),
        message: message(received),
    }
}

/// The input of a proposal, and what came of it.
pub fn propose<E>(payload: &Payload, result: &Result<(u64, Index), E>) -> Input {
    Input::Propose {
        hash: payload_hash(payload),
        placed: result.as_ref().ok().copied(),
    }
}

/// The input of a change of members, and what came of it.
pub fn change<E>(target: &Configuration, result: &Result<(u64, Index), E>) -> Input {
    Input::Change {
        config: config(target),
        placed: result.as_ref().ok().copied(),
    }
}

/// The input of reads, of which some may have been taken in.
pub fn reads(made: &[Result<ReadId, ReadError>]) -> Input {
    Input::Read(made.iter().flatten().map(|read| read.0).collect())
}

/// The input of entries that storage has read, or not.
pub fn fetched(first: Index, found: &Result<Vec<core::Entry>, ()>) -> Input {
    Input::Fetched {
        first,
        entries: found.iter().flatten().map(entry).collect(),
    }
}

/// The input of a piece that storage has read, or not.
pub fn piece_read(
    to: NodeId,
    of: &core::Snapshot,
    offset: u64,
    found: &Result<core::Bytes, ()>,
) -> Input {
    Input::PieceRead {
        to: to.get(),
        snapshot: snapshot(of),
        piece: found.as_ref().ok().map(|data| piece(offset, data)),
    }
}

/// The input of a piece that storage keeps, or not.
pub fn piece_stored(of: &core::Snapshot, end: u64, ok: bool) -> Input {
    let snapshot = snapshot(of);
    Input::PieceStored { snapshot, end, ok }
}

/// The input of an image that was loaded, or not.
pub fn installed(of: &core::Snapshot, ok: bool) -> Input {
    let snapshot = snapshot(of);
    Input::Installed { snapshot, ok }
}

pub fn entry(entry: &core::Entry) -> Entry {
    Entry {
        term: entry.term,
        hash: payload_hash(&entry.payload),
        config: match &entry.payload {
            Payload::Config(c, _) => Some(Arc::new(config(c))),
            _ => None,
        },
    }
}

fn payload_hash(payload: &Payload) -> u64 {
    let mut hasher = Mix::default();
    match payload {
        Payload::Noop => return NOOP,
        Payload::Host(data) => (2, data).hash(&mut hasher),
        Payload::Cluster(data) => (3, data).hash(&mut hasher),
        Payload::Config(config, cause) => (4, config, cause).hash(&mut hasher),
    }
    // Never that of a no-op.
    hasher.finish() | 1 << 63
}

fn config(config: &Configuration) -> Config {
    let numbers = |list: &[NodeId]| list.iter().map(|id| id.get()).collect();
    Config {
        epoch: config.epoch,
        voters: numbers(&config.voters),
        outgoing: numbers(&config.outgoing),
        learners: numbers(&config.learners),
    }
}

fn hard(hard: &core::HardState) -> Hard {
    Hard {
        term: hard.term,
        vote: NodeId::raw(hard.vote),
        excluded: hard.excluded.map(|x| (x.epoch, x.index)),
        commit: hard.commit,
        claim: hard.claim.map(|claim| (claim.term, claim.index)),
    }
}

fn role(role: RoleKind) -> Role {
    match role {
        RoleKind::Follower => Role::Follower,
        RoleKind::PreCandidate => Role::PreCandidate,
        RoleKind::Candidate => Role::Candidate,
        RoleKind::Leader => Role::Leader,
    }
}

fn persist(persist: &core::Persist) -> Persist {
    Persist {
        token: persist.token.0,
        hard: persist.hard.as_ref().map(hard),
        reset: persist.reset.as_ref().map(snapshot),
        first: persist.entries.first().map_or(0, |entry| entry.index),
        entries: persist.entries.iter().map(entry).collect(),
    }
}

fn vote_request(request: &core::VoteRequest) -> VoteRequest {
    VoteRequest {
        term: request.term,
        last_index: request.last_index,
        last_term: request.last_term,
        transfer: request.transfer,
    }
}

pub fn message(message: &core::Message) -> Message {
    use core::Message as Core;
    match message {
        Core::PreVote(request) => Message::PreVote(vote_request(request)),
        Core::Vote(request) => Message::Vote(vote_request(request)),
        Core::PreVoteReply(reply) => Message::PreVoteReply {
            term: reply.term,
            granted: reply.granted,
        },
        Core::VoteReply(reply) => Message::VoteReply {
            term: reply.term,
            granted: reply.granted,
            early: reply.early,
        },
        Core::Append(append) => Message::Append {
            term: append.term,
            seq: append.seq,
            prev_index: append.prev_index,
            prev_term: append.prev_term,
            commit: append.commit,
            entries: append.entries.iter().map(entry).collect(),
        },
        Core::AppendReply(reply) => append_reply(reply),
        Core::TimeoutNow(word) => Message::TimeoutNow {
            term: word.term,
            seq: word.seq,
            last_index: word.last_index,
            last_term: word.last_term,
        },
        Core::ReadIndex(question) => Message::ReadIndex {
            term: question.term,
            run: question.run,
            seq: question.seq,
        },
        Core::ReadIndexReply(answer) => Message::ReadIndexReply {
            term: answer.term,
            run: answer.run,
            seq: answer.seq,
            index: answer.index,
        },
        Core::Snapshot(sent) => Message::Snapshot {
            term: sent.term,
            seq: sent.seq,
            snapshot: snapshot(&sent.snapshot),
            piece: piece(sent.offset, &sent.data),
        },
        Core::SnapshotReply(reply) => Message::SnapshotReply {
            term: reply.term,
            seq: reply.seq,
            index: reply.index,
            crc: reply.crc,
            wants: match reply.wants {
                core::Wants::From(offset) => Wants::From(offset),
                core::Wants::Patience => Wants::Patience,
                core::Wants::Again => Wants::Again,
            },
        },
        Core::LogEnd(question) => Message::LogEnd {
            term: question.term,
            run: question.run,
        },
        Core::LogEndReply(reply) => Message::LogEndReply {
            term: reply.term,
            run: reply.run,
            index: reply.index,
        },
    }
}

pub fn snapshot(snapshot: &core::Snapshot) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        index: snapshot.last.index,
        term: snapshot.last.term,
        config: Arc::new(config(&snapshot.config)),
        config_index: snapshot.config_index,
        size: snapshot.size,
        crc: snapshot.crc,
        pieces: snapshot.pieces,
    })
}

/// A part of an image.
pub fn piece(offset: u64, data: &[u8]) -> Piece {
    Piece {
        offset,
        len: data.len() as u64,
        hash: mix(&data),
    }
}

fn ask(ask: &core::Ask) -> Ask {
    match ask {
        core::Ask::Entries {
            to, first, last, ..
        } => Ask::Entries {
            to: NodeId::raw(*to),
            first: *first,
            last: *last,
        },
        core::Ask::Piece {
            to,
            snapshot: of,
            offset,
            len,
        } => Ask::Piece {
            to: to.get(),
            snapshot: snapshot(of),
            offset: *offset,
            len: *len as u64,
        },
        core::Ask::Store {
            snapshot: of,
            offset,
            data,
        } => Ask::Store {
            snapshot: snapshot(of),
            piece: piece(*offset, data),
        },
        core::Ask::Install { snapshot: of } => Ask::Install {
            snapshot: snapshot(of),
        },
    }
}

fn append_reply(reply: &core::AppendReply) -> Message {
    let (term, seq) = (reply.term, reply.seq);
    match reply.outcome {
        AppendOutcome::Accepted { match_index } => Message::Accepted {
            term,
            seq,
            match_index,
        },
        AppendOutcome::Rejected {
            prev_index,
            hint_index,
            hint_term,
        } => Message::Rejected {
            term,
            seq,
            prev_index,
            hint_index,
            hint_term,
        },
    }
}
