//! The bare Raft core as the server that is driven.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use raftkeel::core::{
    Configuration, Entry, Index, Message, Millis, NodeId, Options, Outline, Payload, Persist,
    Position, ProposeError, Raft, Restored, Term, Token,
};

use crate::image::Image;
use crate::server::{Answer, Input, Output, Room, Server, Setup, State, Wish};

impl Server for Raft {
    type Packet = Message;
    type Write = Persist;

    fn start(setup: &Setup, image: &Image, now: Millis) -> Raft {
        let restored = outlined(image.restored(), setup.tail_bytes);
        let mut raft = Raft::new(options(setup), restored, now);
        raft.set_priority(setup.priority);
        raft
    }

    fn token(write: &Persist) -> u64 {
        write.token.0
    }

    fn first_written(write: &Persist) -> Option<Index> {
        match write.reset {
            Some(_) => Some(0),
            None => write.entries.first().map(|entry| entry.index),
        }
    }

    fn land(image: &mut Image, write: Persist) {
        if let Some(hard) = write.hard {
            image.hard = hard;
        }
        if let Some(snapshot) = write.reset {
            image.reset(snapshot.last);
        }
        image.write(write.entries);
    }

    fn torn(write: Persist) -> Option<Persist> {
        let more = write.reset.is_some() || !write.entries.is_empty();
        (write.hard.is_some() && more).then(|| Persist {
            reset: None,
            entries: Vec::new(),
            ..write
        })
    }

    fn step(&mut self, now: Millis, input: &Input<Message>, room: Room, output: &mut Output<Raft>) {
        output.answer = take_input(self, now, input);
        output.write = match room.writes {
            true => self.take_persist(),
            false => self.take_hard(),
        };
        output.sent = self.take_messages().collect();
        output.applied = take_committed(self, room.applies);
        let reads = std::iter::from_fn(|| self.take_read());
        output.reads = reads.map(|(id, result)| (id.0, result.ok())).collect();
        output.full = output.applied.len() >= room.applies;
        output.asks = self.take_asks();
    }

    fn deadline(&self) -> Millis {
        self.next_deadline()
    }

    fn state(&self) -> State {
        let (hard, log) = (self.hard_state(), self.log());
        State {
            role: self.role(),
            term: hard.term,
            vote: hard.vote,
            excluded: hard.excluded,
            claim: hard.claim,
            leader: self.leader(),
            commit: self.commit(),
            last_index: log.last_index(),
            last_term: log.last_term(),
            base: log.base(),
            durable: log.durable(),
            config_index: self.configuration_index(),
            joint: self.configuration().is_joint(),
            elections: self.elections(),
            transferring: self.transferring(),
            settled: self.has_committed_in_term(),
        }
    }

    fn configuration(&self) -> &Configuration {
        Raft::configuration(self)
    }

    fn is_ready(&self, learner: NodeId) -> bool {
        self.is_ready_to_vote(learner)
    }

    fn sends_snapshot(&self) -> bool {
        self.is_sending_snapshot()
    }

    fn digest_write<H: Hasher>(write: &Persist, hasher: &mut H) {
        (write.token.0, write.hard, &write.reset, &write.entries).hash(hasher);
    }
}

/// As storage hands it out: so many bytes of the last entries, and what to know of the others.
fn outlined(mut restored: Restored, most: usize) -> Restored {
    let mut weight = 0;
    let entries = restored.entries.iter().rev();
    let kept = entries.take_while(|entry| {
        weight += entry.payload.weight();
        weight <= most
    });
    let left = restored.entries.len() - kept.count();
    let tail = restored.entries.split_off(left);
    let left = std::mem::replace(&mut restored.entries, tail);
    let mut outline = Outline::default();
    for entry in &left {
        outline.last = entry.index;
        if outline.terms.last().is_none_or(|run| run.term < entry.term) {
            let (index, term) = (entry.index, entry.term);
            outline.terms.push(Position { index, term });
        }
        if let Payload::Config(config, _) = &entry.payload {
            outline.configs.push((entry.index, config.clone()));
        }
    }
    restored.outline = (!left.is_empty()).then_some(outline);
    restored
}

/// What a server is told once.
pub fn options(setup: &Setup) -> Options {
    Options {
        id: setup.id,
        heartbeat: setup.heartbeat,
        election: setup.election,
        batch_bytes: setup.batch_bytes,
        uncommitted_bytes: setup.uncommitted_bytes,
        entry_max: setup.entry_max,
        tail_bytes: setup.tail_bytes,
        piece_bytes: setup.piece_bytes,
        snapshot_rate: setup.snapshot_rate,
        stall: setup.stall,
        lease_reads: setup.lease_reads,
        seed: setup.seed,
        run: setup.run,
    }
}

/// As many entries as the host has room for. The core is asked once more than it has any, so that
/// it asks storage for what it lacks.
fn take_committed(raft: &mut Raft, room: usize) -> Vec<Entry> {
    let mut taken = raft.take_committed(room).into_owned();
    let mut more = !taken.is_empty();
    while more && taken.len() < room {
        let next = raft.take_committed(room - taken.len()).into_owned();
        more = !next.is_empty();
        taken.extend(next);
    }
    taken
}

fn take_input(raft: &mut Raft, now: Millis, input: &Input<Message>) -> Answer {
    match input {
        Input::Bootstrap(voters) => drop(raft.bootstrap(first_entry(voters))),
        Input::Tick => raft.tick(now),
        Input::Receive { from, packet } => raft.receive(now, *from, packet.clone()),
        Input::Written { token, ok } => raft.persisted(Token(*token), *ok),
        Input::HeldBack { token, full } => {
            raft.held_back(Token(*token));
            raft.set_full(*full);
        }
        // A member hears of it in a driving call, which knows the time.
        Input::Room => {
            raft.tick(now);
            raft.set_full(false);
        }
        Input::Propose(data) => return placed(raft.propose(now, Payload::Host(data.clone()))),
        Input::Read => {
            return match raft.read(now) {
                Ok(id) => Answer::Reading(id.0),
                Err(error) => Answer::Refused(error as u8),
            };
        }
        Input::Change(wish) => {
            return match target(raft, *wish) {
                Some(target) => placed(raft.propose_config(now, target, Raft::no_bytes())),
                None => Answer::None,
            };
        }
        Input::Transfer(to) => {
            return match raft.transfer(now, *to) {
                Ok(to) => Answer::Handing(to),
                Err(error) => Answer::Refused(error as u8),
            };
        }
        Input::Priority(None, priority) => raft.set_priority(*priority),
        Input::Priority(Some(node), priority) => raft.note_priority(*node, *priority),
        Input::Lost(node) => raft.lost(now, *node),
        Input::StepDown => raft.step_down(now),
        Input::Excluded(exclusion) => raft.note_exclusion(*exclusion),
        Input::Take => {}
        Input::Saved(snapshot) => raft.saved(snapshot.clone()),
        Input::Compact { upto, anyway } => drop_log(raft, *upto, *anyway),
        Input::WasAway => raft.void_lease(),
        answer => take_answer(raft, now, answer),
    }
    Answer::None
}

fn drop_log(raft: &mut Raft, upto: Index, anyway: bool) {
    raft.compact(upto, anyway);
}

/// The answer to what the core has asked for.
fn take_answer(raft: &mut Raft, now: Millis, input: &Input<Message>) {
    match input {
        Input::Fetched { to, first, entries } => {
            raft.fetched(now, *to, *first, entries.clone());
        }
        Input::PieceRead {
            to,
            snapshot,
            offset,
            data,
        } => raft.piece_read(now, *to, snapshot, *offset, data.clone()),
        Input::PieceStored { snapshot, end, ok } => raft.piece_stored(now, snapshot, *end, *ok),
        Input::Installed { snapshot, ok } => raft.installed(now, snapshot, *ok),
        other => unreachable!("{other:?} is no answer"),
    }
}

fn placed(result: Result<(Term, Index), ProposeError>) -> Answer {
    match result {
        Ok((term, index)) => Answer::Placed(term, index),
        Err(error) => Answer::Refused(error as u8),
    }
}

/// The first entry of every log: who votes at the beginning.
pub fn first_entry(voters: &[NodeId]) -> Entry {
    let config = Configuration {
        epoch: 1,
        voters: voters.to_vec(),
        ..Configuration::default()
    };
    Entry {
        index: 1,
        term: 1,
        payload: Payload::Config(Arc::new(config), Raft::no_bytes()),
    }
}

/// The configuration that a wish leads to from the leader's own; `None` if it makes no sense there.
fn target(raft: &Raft, wish: Wish) -> Option<Configuration> {
    let latest = raft.configuration();
    let mut next = latest.clone();
    next.epoch += 1;
    // A voter that does not know that it is in abstains: no learner becomes one.
    let told = raft.configuration_index();
    let knows = |id| raft.progress(id).is_some_and(|p| p.match_index() >= told);
    // Nor does one that never got the first entry vote: with fewer others it may be needed.
    let blank = |id: &&NodeId| raft.progress(**id).is_some_and(|p| p.match_index() == 0);
    let fewer = !matches!(wish, Wish::Learn(_) | Wish::Promote(_, None));
    if fewer && raft.has_committed_in_term() && latest.voters.iter().any(|id| blank(&id)) {
        return None;
    }
    match wish {
        Wish::Learn(id) if !latest.contains(id) => insert(&mut next.learners, id),
        Wish::Promote(id, other) if latest.is_learner(id) && knows(id) => {
            next.learners.retain(|learner| *learner != id);
            insert(&mut next.voters, id);
            next.voters.retain(|voter| Some(*voter) != other);
        }
        Wish::Demote(id) if latest.is_voter(id) => {
            next.voters.retain(|voter| *voter != id);
            insert(&mut next.learners, id);
        }
        Wish::Remove(id) if latest.contains(id) => {
            next.voters.retain(|voter| *voter != id);
            next.learners.retain(|learner| *learner != id);
        }
        _ => return None,
    }
    if next.voters != latest.voters {
        next.outgoing = latest.voters.clone();
    }
    (!next.voters.is_empty()).then_some(next)
}

fn insert(list: &mut Vec<NodeId>, id: NodeId) {
    list.push(id);
    list.sort();
}
