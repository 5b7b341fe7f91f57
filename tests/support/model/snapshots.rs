//! Snapshots and compaction: paper 7, thesis 5, rules 34 to 40.

use std::collections::HashSet;
use std::sync::Arc;

use super::data::{Ask, Id, Input, Message, MixState, Piece, Role, Snapshot, Step, Wants, mix};
use super::history::History;
use super::{Node, Verdict, Was, received};

#[derive(Clone, Debug, Default)]
pub struct Snapshots {
    /// Those that were durable in this run, ascending.
    own: Vec<Arc<Snapshot>>,
    /// Pieces of them that storage has read: for whom, of what.
    read: HashSet<u64, MixState>,
    /// Pieces of others that have come.
    came: HashSet<u64, MixState>,
    /// What is being received, and how much is kept.
    pub incoming: Option<(Arc<Snapshot>, u64)>,
    /// Where the piece ends that storage is keeping.
    storing: Option<(Arc<Snapshot>, u64)>,
    /// What the host is loading.
    pub installing: Option<Arc<Snapshot>>,
}

impl Snapshots {
    pub fn found(own: Option<Arc<Snapshot>>, incoming: Option<(Arc<Snapshot>, u64)>) -> Snapshots {
        Snapshots {
            own: own.into_iter().collect(),
            incoming,
            ..Snapshots::default()
        }
    }

    /// The last index of the newest durable one.
    pub fn index(&self) -> u64 {
        self.own.last().map_or(0, |snapshot| snapshot.index)
    }

    pub fn newest(&self) -> Option<&Arc<Snapshot>> {
        self.own.last()
    }

    /// Whether something is being stored or loaded.
    pub fn is_busy(&self) -> bool {
        self.storing.is_some() || self.installing.is_some()
    }

    fn keep(&mut self, snapshot: &Arc<Snapshot>) {
        if snapshot.index > self.index() {
            self.own.push(snapshot.clone());
        }
    }

    /// So much of a snapshot is kept.
    fn kept(&self, snapshot: &Arc<Snapshot>) -> u64 {
        let incoming = self
            .incoming
            .as_ref()
            .filter(|(known, _)| known == snapshot);
        incoming.map_or(0, |(_, kept)| *kept)
    }
}

impl Node {
    /// What storage and host say of snapshots, and where the log begins.
    pub(super) fn take_snapshots(&mut self, was: &Was, step: &Step, history: &History) -> Verdict {
        match &step.input {
            Input::Saved(snapshot) => {
                history.check_snapshot(snapshot)?;
                let own = snapshot.index <= self.applied;
                rule!(own => "harness", "saves {}, applied {}", snapshot.index, self.applied);
                self.snapshots.keep(snapshot);
            }
            Input::PieceRead {
                to,
                snapshot,
                piece: Some(piece),
            } => {
                self.snapshots.read.insert(mix(&(to, snapshot, piece)));
            }
            Input::Fetched { first, entries } if !entries.is_empty() => {
                // Of the log as it is, or as it was before a write that is under way.
                let own = [&self.log, &self.durable].into_iter().any(|log| {
                    let before = log.place(first - 1).unwrap_or_default();
                    let place = entries
                        .iter()
                        .fold(before, |place, entry| place.then(entry));
                    log.place(first - 1 + entries.len() as u64) == Some(place)
                });
                rule!(own => "harness", "reads other entries than were written from {first}");
            }
            Input::PieceStored { snapshot, end, ok } => self.piece_stored(snapshot, *end, *ok)?,
            Input::Installed { snapshot, ok } => {
                self.take_installed(step, snapshot, *ok, history)?
            }
            _ => {}
        }
        self.hear_piece(step);
        let (base, from) = (step.after.base, self.base);
        if base != from && self.dropped_for.is_none() {
            let asked = matches!(step.input, Input::Compact) && base > from;
            rule!(asked => "rule 40", "the log begins at {base}, began at {from}");
            let covered = base <= self.snapshots.index().min(self.applied).min(was.commit);
            rule!(covered => "paper 7, rule 40", "drops {base}, which no snapshot covers");
            self.base = base;
        }
        Ok(())
    }

    fn piece_stored(&mut self, snapshot: &Arc<Snapshot>, end: u64, ok: bool) -> Verdict {
        let asked = self.snapshots.storing.take() == Some((snapshot.clone(), end));
        rule!(asked => "harness", "stores to {end} of {snapshot:?} unasked");
        let incoming = &mut self.snapshots.incoming;
        if incoming.as_ref().is_some_and(|(of, _)| of == snapshot) {
            *incoming = ok.then(|| (snapshot.clone(), end));
        }
        Ok(())
    }

    /// Rule 34: the host's state is the snapshot's now. A log that agrees with it stays, any other
    /// goes as a whole.
    fn take_installed(
        &mut self,
        step: &Step,
        snapshot: &Arc<Snapshot>,
        ok: bool,
        history: &History,
    ) -> Verdict {
        let asked = self.snapshots.installing.take().as_ref() == Some(snapshot);
        rule!(asked => "harness", "installs {snapshot:?} unasked");
        self.snapshots.incoming = None;
        let reset = step
            .output
            .persist
            .as_ref()
            .and_then(|persist| persist.reset.as_ref());
        if !ok {
            rule!(reset.is_none() => "rule 34", "drops its log for what could not be loaded");
            return Ok(());
        }
        history.check_snapshot(snapshot)?;
        self.snapshots.keep(snapshot);
        self.applied = self.applied.max(snapshot.index);
        let agrees = self.log.term(snapshot.index) == Some(snapshot.term);
        let right = reset == (!agrees).then_some(snapshot);
        // On a full disk the log is dropped later.
        let waits = self.holds_back && reset.is_none();
        rule!(right || waits => "paper 7, rule 34", "agrees: {agrees}, goes on behind {reset:?}");
        self.dropped_for = (!agrees).then(|| snapshot.clone());
        if !agrees {
            self.owed = self.dropped_for.clone();
        }
        Ok(())
    }

    /// The log is dropped on the disk when a snapshot is installed; later if there was no room.
    pub(super) fn check_reset(&self, step: &Step, to: &Snapshot) -> Verdict {
        let installed = matches!(&step.input, Input::Installed { ok: true, .. });
        let owed = self.holds_back && self.owed.as_deref() == Some(to) && self.base == to.index;
        rule!(installed || owed => "rule 34", "drops its log for {to:?}");
        Ok(())
    }

    /// The log goes on behind a snapshot.
    pub(super) fn take_reset(&mut self, step: &Step, to: &Snapshot, history: &History) -> Verdict {
        let after = &step.after;
        let bare = after.base == to.index && after.kept == to.index && after.suffix.is_empty();
        rule!(bare => "paper 7, rule 34", "keeps {} of a log that is dropped", after.kept);
        let Some(log) = history.log_to(to.index) else {
            return Err(format!("paper 7, I14: nobody has committed {}", to.index));
        };
        (self.log, self.base) = (log, to.index);
        Ok(())
    }

    fn hear_piece(&mut self, step: &Step) {
        if let Some((
            _,
            Message::Snapshot {
                snapshot, piece, ..
            },
        )) = received(step)
        {
            self.snapshots.came.insert(mix(&(snapshot, piece)));
        }
    }

    /// A leader sends what is durable with it, as its storage has read it (rule 38).
    pub(super) fn check_piece(&self, to: Id, snapshot: &Arc<Snapshot>, piece: &Piece) -> Verdict {
        let own = self.snapshots.own.contains(snapshot);
        rule!(own => "paper 7, rule 38", "sends {snapshot:?}, which it has not");
        let inside = piece.offset + piece.len <= snapshot.size;
        rule!(inside => "rule 38", "sends {piece:?} of {}", snapshot.size);
        let read = piece.len == 0 || self.snapshots.read.contains(&mix(&(to, snapshot, piece)));
        rule!(read => "rule 38", "sends {piece:?}, which was not read for n{to}");
        Ok(())
    }

    /// Rules 35, 38: the follower says what it has; after a restart, what survived. What answers not
    /// the newest piece has waited for the term to be durable, and says what it had by then.
    pub(super) fn check_wants(&self, index: u64, crc: u32, wants: Wants, late: bool) -> Verdict {
        let Wants::From(offset) = wants else {
            return Ok(());
        };
        let this = |snapshot: &Snapshot| (snapshot.index, snapshot.crc) == (index, crc);
        let incoming = self
            .snapshots
            .incoming
            .as_ref()
            .filter(|(known, _)| this(known));
        let kept = incoming.map_or(0, |(_, kept)| *kept);
        // It may always begin again.
        let right = offset == kept || offset == 0 || (late && (offset < kept || kept == 0));
        rule!(right => "rule 38", "wants {index} from {offset}, has {kept}");
        Ok(())
    }

    pub(super) fn check_ask(&mut self, ask: &Ask) -> Verdict {
        match ask {
            Ask::Entries { to, first, last } => {
                let most = if *to == 0 {
                    self.commit
                } else {
                    self.log.last()
                };
                let there = self.base < *first && first <= last && *last <= most;
                rule!(there => "rule 40", "asks for {first} to {last} behind {}", self.base);
            }
            Ask::Piece {
                snapshot,
                offset,
                len,
                ..
            } => {
                let own = self.role == Role::Leader && self.snapshots.own.contains(snapshot);
                let right = own && offset + len <= snapshot.size;
                rule!(right => "rule 38", "reads {len} at {offset} of {snapshot:?}");
            }
            Ask::Store { snapshot, piece } => self.check_store(snapshot, piece)?,
            Ask::Install { snapshot } => {
                let idle = !self.snapshots.is_busy();
                let whole = self.snapshots.kept(snapshot) == snapshot.size;
                rule!(idle && whole => "rule 38", "installs {snapshot:?} before all of it came");
                self.check_needed(snapshot)?;
                self.snapshots.installing = Some(snapshot.clone());
            }
        }
        Ok(())
    }

    fn check_store(&mut self, snapshot: &Arc<Snapshot>, piece: &Piece) -> Verdict {
        let came = self.snapshots.came.contains(&mix(&(snapshot, piece)));
        rule!(came => "rule 38", "stores {piece:?}, which did not come");
        let idle = !self.snapshots.is_busy();
        rule!(idle => "rule 38", "stores a piece before the last one is kept");
        let kept = self.snapshots.kept(snapshot);
        let right = piece.offset == kept || piece.offset == 0;
        rule!(right => "rule 38", "stores {piece:?} behind {kept}");
        self.check_needed(snapshot)?;
        if self
            .snapshots
            .incoming
            .as_ref()
            .is_none_or(|(of, _)| of != snapshot)
        {
            self.snapshots.incoming = Some((snapshot.clone(), 0));
        }
        let end = piece.offset + piece.len;
        self.snapshots.storing = Some((snapshot.clone(), end));
        Ok(())
    }

    /// Rule 34: what is committed here already is ignored, and the host never goes back.
    fn check_needed(&self, snapshot: &Snapshot) -> Verdict {
        let newer = snapshot.index > self.commit.max(self.applied);
        rule!(newer => "paper 7, rule 34", "takes {}, has {}", snapshot.index, self.commit);
        Ok(())
    }
}
