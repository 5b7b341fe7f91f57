//! Snapshots, compaction, leases and timers gone wrong.

use std::sync::Arc;

use super::reads::{READ, opened, read};
use super::votes::{campaign_of, runs, seek};
use super::{Kind, Mutant, Trial, new_entry, only};
use crate::model::data::{Ask, Id, Input, Message, Persist, Piece, Role, Snapshot, Wants};

pub const KINDS: &[Kind] = &[
    ("a snapshot that ends with another term", "I14", |t| {
        saved(t, |snapshot| snapshot.term += 1)
    }),
    ("a snapshot of what is not committed", "I14", |t| {
        saved(t, |snapshot| snapshot.index += 10_000)
    }),
    ("a snapshot with another configuration", "rule 37", |t| {
        saved(t, |snapshot| snapshot.config_index += 1)
    }),
    ("a log is compacted beyond its snapshot", "rule 40", |t| {
        runs(t)?;
        let compacted = t.idle().change(|step| step.input = Input::Compact);
        compacted.after(|after| after.base = after.snapshot + 1)
    }),
    ("a log loses its head unasked", "rule 40", |t| {
        only(runs(t).is_some() && t.node.base < t.node.snapshots.index())?;
        t.idle().after(|after| after.base += 1)
    }),
    ("a log grows a head", "rule 40", |t| {
        only(runs(t).is_some() && t.node.base > 0)?;
        let compacted = t.idle().change(|step| step.input = Input::Compact);
        compacted.after(|after| after.base -= 1)
    }),
    (
        "a leader sends a snapshot that it has not",
        "rule 38",
        |t| {
            leads(t)?;
            send(
                t,
                Arc::new(next(t, 9)),
                Piece {
                    offset: 0,
                    len: 0,
                    hash: 0,
                },
            )
        },
    ),
    ("a leader sends a piece of something else", "rule 38", |t| {
        leads(t)?;
        send(
            t,
            t.node.snapshots.newest()?.clone(),
            Piece {
                offset: 0,
                len: 5,
                hash: 1,
            },
        )
    }),
    (
        "a leader sends entries behind its base",
        "5.3: sends after",
        |t| {
            leads(t)?;
            only(t.node.base > 0)?;
            let prev_index = t.node.base - 1;
            let append = Message::Append {
                term: t.node.term,
                seq: t.node.seq + 1,
                prev_index,
                prev_term: t.node.log.term(prev_index)?,
                commit: 0,
                entries: Vec::new(),
            };
            t.idle().saying(t.other(), append)
        },
    ),
    ("a piece is stored that did not come", "rule 38", |t| {
        idle_store(t)?;
        let (snapshot, piece) = (
            Arc::new(next(t, 9)),
            Piece {
                offset: 0,
                len: 9,
                hash: 1,
            },
        );
        asking(t.idle(), Ask::Store { snapshot, piece })
    }),
    (
        "a piece is stored behind one that is missing",
        "rule 38",
        |t| {
            idle_store(t)?;
            let (snapshot, piece) = (
                Arc::new(next(t, 9)),
                Piece {
                    offset: 4,
                    len: 5,
                    hash: 1,
                },
            );
            let came = t.hears(t.other(), piece_of(t, &snapshot, piece));
            asking(came, Ask::Store { snapshot, piece })
        },
    ),
    ("two pieces are stored at once", "rule 38", |t| {
        idle_store(t)?;
        let (snapshot, piece) = (
            Arc::new(next(t, 9)),
            Piece {
                offset: 0,
                len: 9,
                hash: 1,
            },
        );
        let came = t.hears(t.other(), piece_of(t, &snapshot, piece));
        let ask = || Ask::Store {
            snapshot: snapshot.clone(),
            piece,
        };
        let first = asking(came, ask())?;
        asking(first.then(t.idle()), ask())
    }),
    (
        "a snapshot is installed before all of it came",
        "rule 38",
        |t| {
            idle_store(t)?;
            asking(
                t.idle(),
                Ask::Install {
                    snapshot: Arc::new(next(t, 9)),
                },
            )
        },
    ),
    (
        "a snapshot is installed that takes the host back",
        "rule 34",
        |t| {
            idle_store(t)?;
            only(t.node.commit > 0)?;
            let old = Snapshot {
                index: t.node.commit,
                ..next(t, 0)
            };
            asking(
                t.idle(),
                Ask::Install {
                    snapshot: Arc::new(old),
                },
            )
        },
    ),
    (
        "a log stays that its snapshot contradicts",
        "rule 34",
        |t| {
            installed(t, true)?;
            t.silently(|_| {})
        },
    ),
    (
        "what could not be loaded replaces the log",
        "rule 34",
        |t| {
            installed(t, true)?;
            let mut step = t.step.clone();
            if let Input::Installed { ok, .. } = &mut step.input {
                *ok = false;
            }
            step.output.messages.clear();
            Some(Mutant::of(step))
        },
    ),
    (
        "a part of the log outlives its replacement",
        "rule 34",
        |t| {
            installed(t, true)?;
            let mut step = t.step.clone();
            step.output.messages.clear();
            step.after.suffix.push(new_entry(t.node.term));
            Some(Mutant::of(step))
        },
    ),
    ("a log is replaced unasked", "rule 34", |t| {
        let reset = Some(t.node.snapshots.newest()?.clone());
        runs(t)?;
        let persist = Persist {
            token: u64::MAX,
            hard: None,
            reset,
            first: 0,
            entries: Vec::new(),
        };
        Some(t.idle().change(|step| step.output.persist = Some(persist)))
    }),
    ("more is wanted than what follows", "rule 38", |t| {
        let (snapshot, kept) = t.node.snapshots.incoming.clone()?;
        runs(t)?;
        want(t, &snapshot, t.node.heard.seq, kept + 1)
    }),
    (
        "an answer to a piece that has not come",
        "thesis 6.4",
        |t| {
            let (snapshot, kept) = t.node.snapshots.incoming.clone()?;
            runs(t)?;
            want(t, &snapshot, t.node.heard.seq + 1, kept)
        },
    ),
    (
        "a snapshot is acknowledged before it is there",
        "rule 16, I12",
        |t| {
            let (snapshot, _) = t.node.snapshots.incoming.as_ref()?;
            only(speaks(t).is_some() && snapshot.index > t.node.log.last())?;
            let (term, seq, match_index) = (t.node.term, t.node.heard.seq, snapshot.index);
            t.idle().saying(
                t.other(),
                Message::Accepted {
                    term,
                    seq,
                    match_index,
                },
            )
        },
    ),
    ("a campaign while a snapshot is loaded", "rule 36", |t| {
        let voter = t.config()?.is_voter(t.node.id) && !t.node.is_barred(t.node.excluded);
        only(t.node.snapshots.installing.is_some() && voter)?;
        seek(t)
    }),
    (
        "entries are applied while a snapshot is loaded",
        "rule 36",
        |t| {
            only(t.node.snapshots.installing.is_some() && runs(t).is_some())?;
            let applied = (t.node.applied + 1, vec![new_entry(1)]);
            Some(t.idle().change(|step| step.output.applied = applied))
        },
    ),
    ("entries are asked for that are not there", "rule 40", |t| {
        runs(t)?;
        let (to, first) = (0, t.node.log.last() + 1);
        asking(
            t.idle(),
            Ask::Entries {
                to,
                first,
                last: first,
            },
        )
    }),
    ("storage has read other entries", "harness", |t| {
        runs(t)?;
        match &t.step.input {
            Input::Fetched { entries, .. } if !entries.is_empty() => t.silently(|step| {
                if let Input::Fetched { entries, .. } = &mut step.input {
                    entries[0].hash ^= 2;
                }
            }),
            _ => None,
        }
    }),
    ("a start forgets its snapshot", "rule 33", |t| {
        let Input::Start {
            snapshot: Some(_),
            base: (0, 0),
            ..
        } = &t.step.input
        else {
            return None;
        };
        // One that became durable as the node stopped was never heard of.
        only(t.node.snapshots.index() > 0)?;
        t.silently(|step| {
            if let Input::Start { snapshot, .. } = &mut step.input {
                *snapshot = None;
            }
        })
    }),
    (
        "a start knows less to be committed than its snapshot",
        "rule 33",
        |t| {
            let Input::Start {
                snapshot: Some(snapshot),
                ..
            } = &t.step.input
            else {
                return None;
            };
            t.silently(|step| step.after.commit = snapshot.index - 1)
        },
    ),
    ("a lease that has run out", "rule 52", |t| {
        leased(t)?;
        let late = read(t).change(|step| {
            step.now += 10 * t.node.election;
            step.output.reads = vec![(READ, Some(t.node.commit))];
        });
        Some(t.renewed()?.then(late))
    }),
    ("a lease of one who hands over", "rule 52", |t| {
        leased(t)?;
        let to = t
            .config()?
            .voters
            .iter()
            .copied()
            .find(|id| *id != t.node.id)?;
        let (last_index, last_term) = t.node.log.end();
        let (term, seq) = (t.node.term, t.node.seq + 2);
        let word = Message::TimeoutNow {
            term,
            seq,
            last_index,
            last_term,
        };
        let said = t.idle().saying(to, word)?;
        // Who has answered something later may forget that, but no entry that is on its disk.
        let later = Message::Accepted {
            term,
            seq: seq + 1,
            match_index: last_index,
        };
        let heartbeat = Message::Append {
            term,
            seq: seq + 1,
            prev_index: last_index,
            prev_term: last_term,
            commit: 0,
            entries: Vec::new(),
        };
        let answered = t.idle().saying(to, heartbeat)?.then(t.hears(to, later));
        Some(t.renewed()?.then(said).then(answered).then(served(t)))
    }),
    ("a lease of one who was away", "rule 52", |t| {
        leased(t)?;
        let away = t.idle().change(|step| step.input = Input::Paused);
        Some(t.renewed()?.then(away).then(served(t)))
    }),
    (
        "a vote before the lease of an older leader has ended",
        "rule 55",
        |t| {
            runs(t)?;
            only(t.node.lease.enabled && t.node.is_promised(t.step.now))?;
            only(!t.node.is_barred(t.node.excluded))?;
            campaign_of(t, t.other())
        },
    ),
    ("a leader waits for its disk for too long", "rule 31", |t| {
        t.has(Role::Leader)?;
        let oldest = t.node.writes.front()?.since;
        Some(t.idle().change(|step| {
            step.input = Input::Tick;
            step.now = oldest + t.node.stall + 1;
        }))
    }),
    ("a leader that nobody hears", "rule 9", |t| {
        t.has(Role::Leader)?;
        only(t.node.writes.is_empty() && !t.config()?.agrees(|id| id == t.node.id))?;
        Some(t.idle().change(|step| {
            step.input = Input::Tick;
            step.now += 10 * t.node.election;
        }))
    }),
];

fn speaks(t: &Trial) -> Option<()> {
    runs(t)?;
    only(t.node.hard.term == t.node.term)
}

fn leads(t: &Trial) -> Option<()> {
    t.has(Role::Leader)?;
    speaks(t)
}

/// The recorded save, of another snapshot.
fn saved(t: &Trial, change: impl FnOnce(&mut Snapshot)) -> Option<Mutant> {
    let Input::Saved(snapshot) = &t.step.input else {
        return None;
    };
    let mut other = Snapshot::clone(snapshot);
    change(&mut other);
    t.silently(|step| step.input = Input::Saved(Arc::new(other)))
}

/// A snapshot that nobody has, of this size.
fn next(t: &Trial, size: u64) -> Snapshot {
    Snapshot {
        index: t.node.log.last() + 50,
        term: t.node.term,
        config: Arc::default(),
        config_index: 1,
        size,
        crc: 4711,
        pieces: None,
    }
}

fn piece_of(t: &Trial, snapshot: &Arc<Snapshot>, piece: Piece) -> Message {
    Message::Snapshot {
        term: t.node.term,
        seq: t.node.heard.seq + 1,
        snapshot: snapshot.clone(),
        piece,
    }
}

fn send(t: &Trial, snapshot: Arc<Snapshot>, piece: Piece) -> Option<Mutant> {
    let (term, seq) = (t.node.term, t.node.seq + 1);
    let message = Message::Snapshot {
        term,
        seq,
        snapshot,
        piece,
    };
    t.idle().saying(t.other(), message)
}

fn want(t: &Trial, snapshot: &Snapshot, seq: u64, offset: u64) -> Option<Mutant> {
    speaks(t)?;
    let reply = Message::SnapshotReply {
        term: t.node.term,
        seq,
        index: snapshot.index,
        crc: snapshot.crc,
        wants: Wants::From(offset),
    };
    t.idle().saying(t.other(), reply)
}

/// A follower that is neither storing nor loading anything.
fn idle_store(t: &Trial) -> Option<()> {
    only(runs(t).is_some() && t.node.role == Role::Follower)?;
    only(!t.node.snapshots.is_busy())
}

fn asking(mutant: Mutant, ask: Ask) -> Option<Mutant> {
    Some(mutant.change(|step| step.output.asks = vec![ask]))
}

/// The recorded step loads a snapshot and replaces the log.
fn installed(t: &Trial, replaces: bool) -> Option<()> {
    let reset = t
        .step
        .output
        .persist
        .as_ref()
        .is_some_and(|persist| persist.reset.is_some());
    only(matches!(t.step.input, Input::Installed { .. }) && reset == replaces)
}

/// A leader whose reads may trust clocks, and that has not told anybody to take over.
fn leased(t: &Trial) -> Option<()> {
    opened(t)?;
    only(t.node.lease.enabled && t.node.lease.is_whole())
}

/// A read that is answered at once.
fn served(t: &Trial) -> Mutant {
    read(t).change(|step| step.output.reads = vec![(READ, Some(t.node.commit))])
}

impl Trial<'_> {
    /// Everybody answers a message of just now, and a read is served by that.
    fn renewed(&self) -> Option<Mutant> {
        let seq = self.node.seq + 1;
        let (prev_index, prev_term) = self.node.log.end();
        let append = Message::Append {
            term: self.node.term,
            seq,
            prev_index,
            prev_term,
            commit: 0,
            entries: Vec::new(),
        };
        let config = self.config()?;
        let all = [config.voters.as_slice(), &config.outgoing].concat();
        let others: Vec<Id> = all.into_iter().filter(|id| *id != self.node.id).collect();
        let (term, match_index) = (self.node.term, prev_index);
        let answer = Message::Accepted {
            term,
            seq,
            match_index,
        };
        let first = self.idle().change(|step| {
            step.input = Input::Read(vec![READ - 1]);
            step.output.reads = vec![(READ - 1, Some(self.node.commit))];
        });
        let sent = self.idle().saying(self.other(), append)?;
        Some(sent.then(self.hears_all(&others, &answer)).then(first))
    }
}
