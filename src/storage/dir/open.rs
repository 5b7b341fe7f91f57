//! Opening: which image and how much of the log count together, and making that durable in this
//! process before anything is built on it.

use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::core::{Index, NodeId, Position, Restored};
use crate::panics::lock;
use crate::storage::read_back::ReadBack;
use crate::storage::{Identity, Lost, Opened, StorageError};

use super::aside;
use super::buffer::Buffer;
use super::check::{Checks, Sealed};
use super::checkpoint::{self, Checkpoint, Content};
use super::damage::{Damage, bound_behind, later};
use super::layout::Layout;
use super::meta::{self, Meta};
use super::page::{Flaw, PAGE};
use super::receive::{self, Partial};
use super::recover::{Reading, Recovered, recover};
use super::segment::{End, Header, Segment};
use super::snapshot::{self, Found, Snapshots};
use super::spare::Spares;
use super::vfs::{Vfs, VfsFile};
use super::write::{Known, Log};
use super::{Directory, LOCK, Options, holds_node, remove_prepared};

/// Whether the only voter, whom nobody can give back what it lost, may lose anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alone {
    Refused,
    Accepted,
}

/// What an opening found, all of it checked.
pub(super) struct Contents {
    pub(super) meta: Meta,
    meta_repaired: bool,
    pub(super) recovered: Recovered,
    found: Found,
    partial: Option<Partial>,
    /// There is a file of that name, of whatever use.
    received: bool,
    /// What is passed over, for something else has its place.
    pub(super) damaged: Vec<String>,
    /// What is not made up for.
    pub(super) lost: Option<Lost>,
}

impl Directory {
    pub(super) fn open_on(
        mut fs: Box<dyn Vfs>,
        identity: &Identity,
        options: Options,
    ) -> Result<(Directory, Opened), StorageError> {
        // Before the lock, so that nothing is left behind where there is no node.
        if !holds_node(&fs.list()?) {
            return Err(StorageError::Missing { path: fs.root() });
        }
        fs.lock(LOCK)?;
        let names = fs.list()?;
        let mut contents = Contents::read(
            &*fs,
            &names,
            Some(identity),
            Reading::Tail(options.tail_bytes),
        )?;
        let reset = contents.reconcile(&*fs, Alone::Refused)?;
        remove_prepared(&*fs, &names)?;
        Directory::resume(Arc::from(fs), options, contents, reset)
    }

    /// Makes durable, in this process, what was found, and takes it from there. With `reset` the
    /// log is dropped.
    pub(super) fn resume(
        fs: Arc<dyn Vfs>,
        options: Options,
        contents: Contents,
        reset: Option<Position>,
    ) -> Result<(Directory, Opened), StorageError> {
        let mut meta = contents.meta.clone();
        let mut recovered = contents.recovered;
        let meta_file = fs.open(meta::NAME)?;
        if reset.is_some() {
            // META is about to say that there is an image, and who gave it its name may have failed to
            // make that durable.
            fs.sync_dir()?;
        }
        let segment = take_over(
            &*fs,
            options,
            &*meta_file,
            &mut meta,
            &mut recovered,
            contents.lost.is_some(),
        )?;
        let mut layout = recovered.layout;
        layout.remade(&segment.header);
        let sealed = sealed(&*fs, &layout, recovered.checkpoints);
        let known = Known::new(layout, recovered.end.last.index, &meta);
        let known = Arc::new(Mutex::new(known));
        let checks = Checks::new(fs.clone(), known.clone(), sealed);
        let mut directory = Directory::of(Log {
            snapshots: Arc::new(Snapshots::new(fs.clone(), contents.found)),
            known,
            fs: fs.clone(),
            options,
            meta,
            meta_file,
            groups: 0,
            content: (recovered.end == segment.header.start()).then(Content::default),
            segment,
            end: recovered.end,
            spares: Arc::new(Spares::new(fs.clone(), options)),
            checks: Arc::new(checks),
            refused: None,
            buffer: Buffer::default(),
            unbuffered: false,
        });
        directory.log().note_used();
        if let Some(base) = reset {
            let written = directory.log().append(Some(base), std::iter::empty());
            directory.log().fail_with(written)?;
            recovered.log.reset(base);
        }
        directory.resume_partial(contents.partial, contents.received)?;
        put_away(&directory, &recovered.trimmed)?;
        if contents.meta.hard.claim.is_none() {
            aside::remove_all(&*directory.fs);
        }
        let origin = directory.known().origin;
        let opened = Opened {
            restored: directory.restored(recovered.log),
            incarnation: origin.incarnation,
            instance: origin.instance,
            torn_bytes: recovered.torn_bytes,
            meta_repaired: contents.meta_repaired,
            damaged: contents.damaged,
            lost: contents.lost,
        };
        Ok((directory, opened))
    }

    fn restored(&self, log: ReadBack) -> Restored {
        let (base, hard) = (self.known().layout.base(), self.log().meta.hard);
        assert_eq!(base, log.base(), "both say where the log begins");
        let partial = lock(&self.files.partial);
        let (outline, entries) = log.into_parts();
        Restored {
            hard,
            snapshot: self.snapshots.newest(),
            base,
            outline,
            entries,
            partial: partial.as_ref().map(|p| (p.snapshot().clone(), p.stored())),
        }
    }

    /// Goes on with what was received of an image, unless it is of no use any more.
    fn resume_partial(
        &mut self,
        partial: Option<Partial>,
        received: bool,
    ) -> Result<(), StorageError> {
        let mut kept = lock(&self.files.partial);
        *kept = partial.filter(|p| !self.snapshots.is_old(p.snapshot()));
        match &*kept {
            Some(partial) => partial.rewrite(),
            None if received => self.fs.remove(receive::NAME),
            None => Ok(()),
        }
    }
}

impl Contents {
    /// What the log begins behind, and where it ends.
    pub(super) fn span(&self) -> (Position, Position) {
        (self.recovered.layout.base(), self.recovered.end.last)
    }

    /// Bytes of a write that was cut off.
    pub(super) fn torn_bytes(&self) -> u64 {
        self.recovered.torn_bytes
    }

    /// Reads what is to be read, if it is of the node that is asked for. Changes nothing.
    pub(super) fn read(
        fs: &dyn Vfs,
        names: &[String],
        asked: Option<&Identity>,
        reading: Reading,
    ) -> Result<Contents, StorageError> {
        let (meta, meta_repaired) = load_meta(fs, names)?;
        if let Some(asked) = asked.filter(|asked| **asked != meta.identity) {
            return Err(StorageError::Foreign {
                path: fs.root(),
                found: meta.identity,
                asked: *asked,
            });
        }
        Contents::behind(fs, names, meta, meta_repaired, reading)
    }

    /// As [`Contents::read`], with this META.
    pub(super) fn behind(
        fs: &dyn Vfs,
        names: &[String],
        meta: Meta,
        meta_repaired: bool,
        reading: Reading,
    ) -> Result<Contents, StorageError> {
        let found = snapshot::find(fs, names, &meta)?;
        let covered = found.kept.last().map(|snapshot| snapshot.last);
        let recovered = recover(fs, names, &meta, reading, covered)?;
        let received = names.iter().any(|name| name == receive::NAME);
        let partial = match received {
            true => Partial::find(fs, &meta)?,
            false => None,
        };
        Ok(Contents {
            meta,
            meta_repaired,
            recovered,
            found,
            partial,
            received,
            damaged: Vec::new(),
            lost: None,
        })
    }

    /// Whether image and log belong together, and what is lost of them. An image that the log does
    /// not reach, or that the log contradicts, was received and counts: the place where it ends is
    /// returned, and the log is to begin there; so it is where nothing is left of the log that an
    /// image goes before.
    ///
    /// What is lost is an error where no peer has it; otherwise META claims it from now on.
    pub(super) fn reconcile(
        &mut self,
        fs: &dyn Vfs,
        alone: Alone,
    ) -> Result<Option<Position>, StorageError> {
        let commit = self.meta.hard.commit;
        let (reset, damage) = self.match_images(fs);
        let damage = self.miss_adopted(fs, damage);
        // Until the log begins there nothing but META tells that it must not be gone on with.
        self.meta.adopted = reset.filter(|at| *at != Position::default());
        let last = reset.unwrap_or(self.recovered.end.last);
        let Some(damage) = self.miss_commits(fs, last, commit, damage) else {
            return Ok(reset);
        };
        // What is left of the log is what it once was: entries in it may have been replaced later, by
        // those that were committed.
        let covered = self.found.kept.last().map_or(0, |s| s.last.index);
        self.meta.hard.commit = self.meta.hard.commit.min(covered);
        let known = self.meta.hard.claim.unwrap_or_default();
        let claim = later(damage.claim, known);
        if reset.is_some() && last.reaches(claim) {
            self.damaged.push(damage.error.to_string());
            return Ok(reset);
        }
        if alone == Alone::Refused && self.voters(reset) == [self.meta.identity.node] {
            return Err(damage.error);
        }
        self.meta.hard.claim = Some(claim);
        self.lost = Some(Lost {
            what: damage.error.to_string(),
            kept: last,
            claim,
        });
        Ok(reset)
    }

    /// Where the log is to begin anew, if it is, and what is wrong with log and images.
    fn match_images(&mut self, fs: &dyn Vfs) -> (Option<Position>, Option<Damage>) {
        let log = &mut self.recovered;
        let mut damage = log.damage.take();
        if let Some(error) = log.passed_over.take() {
            self.damaged.push(error.to_string());
        }
        let (base, end) = (log.layout.base(), log.end.last);
        let newest = self.found.kept.last().map(|s| s.last);
        let reached = match newest {
            Some(last) => last == base || last.index > base.index,
            None => base.index == 0,
        };
        let mut reset = newest.filter(|last| !log.log.holds(*last));
        // What a damaged image stood for must be found in the log, behind an older one.
        let known = self.meta.hard.claim;
        for (last, error) in self.found.damaged.drain(..) {
            let claimed = known.is_some_and(|claim| claim.reaches(later(last, end)));
            if reached && reset.is_none() && log.log.holds(last) {
                self.damaged.push(error.to_string());
            } else if claimed {
                // The log was to be dropped for it, perhaps, and holds what never was committed.
                let covered = newest.map_or(0, |last| last.index);
                self.meta.hard.commit = self.meta.hard.commit.min(covered);
                self.damaged.push(error.to_string());
            } else {
                // Be it that the log contradicts an older image, which then counts alone.
                damage = Some(Damage::add(damage, error, later(last, end)));
            }
        }
        if !reached {
            let flaw = Flaw::Bad("the snapshot that the log begins behind is missing");
            let error = flaw.at(fs.path(&snapshot::name(base)), 0, base.index);
            damage = Some(Damage::add(damage, error, end));
            reset = newest.or(Some(Position::default()));
        }
        (reset, damage)
    }

    /// An image that was adopted is missed even if nothing was built on it yet: the log may hold what
    /// it contradicts, and META already know of commits that only the image is witness of.
    fn miss_adopted(&self, fs: &dyn Vfs, damage: Option<Damage>) -> Option<Damage> {
        let (base, end) = self.span();
        let newest = self.found.kept.last().map_or(0, |s| s.last.index);
        let gone =
            |at: &Position| at.index > newest.max(base.index) && !self.recovered.log.holds(*at);
        let Some(at) = self.meta.adopted.filter(gone) else {
            return damage;
        };
        let flaw = Flaw::Bad("the snapshot that the log was to begin behind is missing");
        let error = flaw.at(fs.path(&snapshot::name(at)), 0, at.index);
        Some(Damage::add(damage, error, later(at, end)))
    }

    /// Whatever the tail looks like, what is known to be committed was acknowledged: it is never
    /// forgotten.
    fn miss_commits(
        &self,
        fs: &dyn Vfs,
        last: Position,
        commit: Index,
        damage: Option<Damage>,
    ) -> Option<Damage> {
        let claimed = damage.as_ref().map_or(0, |damage| damage.claim.index);
        if last.index.max(claimed) >= commit {
            return damage;
        }
        let flaw = Flaw::Bad("the log ends before an entry known to be committed");
        let error = flaw.at(fs.root(), 0, last.index + 1);
        let lost = self.recovered.tail.as_ref();
        let lost = lost.map_or(u64::MAX, |(header, groups)| {
            header.bytes.saturating_sub((PAGE + groups.len()) as u64)
        });
        let claim = bound_behind(&self.meta, last.index.max(commit), lost);
        Some(Damage::add(damage, error, claim))
    }

    /// Who votes by the newest configuration that is left, or is on the way out; nobody if none is.
    pub(super) fn voters(&self, reset: Option<Position>) -> Vec<NodeId> {
        let newest = self.found.kept.last().map(|s| &*s.config);
        let config = match reset {
            None => self.recovered.log.config().or(newest),
            Some(at) => newest.filter(|_| at != Position::default()),
        };
        let members = config.iter().flat_map(|config| {
            let voters = config.members().filter(|id| config.is_voter(*id));
            voters.collect::<Vec<_>>()
        });
        members.collect()
    }
}

/// The segments that are written no more, to be checked; checkpoints of others go.
fn sealed(fs: &dyn Vfs, layout: &Layout, mut checkpoints: BTreeSet<String>) -> VecDeque<Sealed> {
    let sealed = layout.sealed().into_iter().map(|(header, end)| {
        let name = checkpoint::name_of(&header.name());
        let has_checkpoint = checkpoints.remove(&name);
        Sealed {
            header,
            end,
            has_checkpoint,
            made: None,
            own: false,
        }
    });
    let sealed = sealed.collect();
    for name in checkpoints {
        // They do no harm.
        let _ = fs.remove(&name);
    }
    sealed
}

/// META, and whether one of its slots was damaged.
pub(super) fn load_meta(fs: &dyn Vfs, names: &[String]) -> Result<(Meta, bool), StorageError> {
    if !names.iter().any(|name| name == meta::NAME) {
        return Err(Flaw::Bad(meta::MISSING).at(fs.path(meta::NAME), 0, 0));
    }
    meta::load(fs)
}

/// Counts the opening in META, copies the last segment, as it was found, into a new file, and takes out
/// what is `lost` behind it. What META claims is durable before anything else changes.
fn take_over(
    fs: &dyn Vfs,
    options: Options,
    meta_file: &dyn VfsFile,
    meta: &mut Meta,
    recovered: &mut Recovered,
    lost: bool,
) -> Result<Segment, StorageError> {
    meta.incarnation = meta.incarnation.checked_add(1).ok_or_else(|| {
        Flaw::Bad("opened more often than can be counted").at(fs.path(meta::NAME), 0, 0)
    })?;
    // First: the new segment file carries META's generation, which must never be the newer one.
    meta.generation += 1;
    // From here on nobody misses what is lost: the claim has its place, or a snapshot.
    meta.durable_lsn = meta.durable_lsn.min(recovered.end.lsn);
    if let Some((header, _)) = &recovered.tail {
        meta.head_seq = meta.head_seq.min(header.seq);
    }
    meta::update(meta_file, meta)?;
    let tail = recovered.tail.take();
    let dropped = std::mem::take(&mut recovered.dropped);
    // If nothing of the log is left, if there ever was any, its files go when META does not miss them.
    let (now, then) = match tail.is_some() {
        true => (dropped, Vec::new()),
        false => (Vec::new(), dropped),
    };
    if tail.is_none() {
        recovered.first_seq = recovered.free_seq;
    }
    let segment = remake(fs, options, meta, recovered.free_seq, tail)?;
    take_out(fs, meta, &now, lost)?;
    meta.generation += 1;
    meta.first_seq = recovered.first_seq;
    meta.head_seq = segment.header.seq;
    meta.durable_lsn = recovered.end.lsn;
    meta::update(meta_file, meta)?;
    take_out(fs, meta, &then, lost)?;
    Ok(segment)
}

/// Removes the segments before those that count, if a snapshot has their place. If none has they were
/// not trimmed: they went with a log that was lost, and may be the last copy of an entry.
fn put_away(directory: &Directory, names: &[String]) -> Result<(), StorageError> {
    let fs = &*directory.fs;
    let (incarnation, claims) = {
        let log = directory.log();
        (log.meta.incarnation, log.meta.hard.claim.is_some())
    };
    let newest = directory.snapshots.newest();
    let covered = newest.map_or(0, |snapshot| snapshot.last.index);
    let header = |name: &String| Header::decode(&fs.read(name, PAGE as u64).ok()?).ok();
    let mut next = directory.known().layout.oldest().cloned();
    // From the last one on, for where one ends the next one says.
    for name in names.iter().rev() {
        let own = header(name);
        let trimmed = own.as_ref().zip(next.as_ref()).is_some_and(|(own, next)| {
            let continued = own.seq + 1 == next.seq && own.start_lsn < next.start_lsn;
            continued
                && next.prev.index <= covered
                && Checkpoint::of_segment(fs, own, &next.start(), &|_| true).is_ok()
        });
        match trimmed {
            true => fs.remove(name)?,
            false if claims => aside::set_aside(fs, incarnation, name)?,
            false => aside::keep(fs, incarnation, name)?,
        }
        next = own;
    }
    Ok(())
}

/// Removes segments that do not count, or sets them aside if entries are lost with them.
fn take_out(
    fs: &dyn Vfs,
    meta: &Meta,
    segments: &[String],
    lost: bool,
) -> Result<(), StorageError> {
    for name in segments {
        match lost {
            true => aside::set_aside(fs, meta.incarnation, name)?,
            false => fs.remove(name)?,
        }
    }
    match segments {
        [] => Ok(()),
        _ => fs.sync_dir(),
    }
}

/// The segment that the log goes on in; it has the number `seq` if nothing is left of the log.
/// A node whose disk has no room for another one goes on in the one that it has; without any, one that
/// is as small as may be will do to vote, and to take a snapshot.
fn remake(
    fs: &dyn Vfs,
    options: Options,
    meta: &Meta,
    seq: u64,
    tail: Option<(Header, Vec<u8>)>,
) -> Result<Segment, StorageError> {
    let (old, groups) = tail.unzip();
    let groups = groups.unwrap_or_default();
    let make = |size| {
        let salt = fs.random()?;
        let header = match &old {
            Some(old) => Header {
                origin: meta.origin(),
                salt,
                bytes: size,
                ..old.clone()
            },
            None => Header::new(meta.origin(), seq, &End::default(), salt, size),
        };
        Segment::make(fs, header, &groups)
    };
    let used = groups.len() as u64;
    match make(options.segment_size(used)) {
        // Whatever else failed: the new one may have the name already.
        Err(StorageError::Full { .. }) => {}
        made => return made,
    }
    if let Some(old) = &old {
        match Segment::rewrite(fs, old, &groups) {
            Ok(None) => {}
            Ok(Some(segment)) => return Ok(segment),
            Err(error) if lacks_room(&error) => {}
            Err(error) => return Err(error),
        }
    }
    aside::remove_all(fs);
    make(options.scant_segment_size(used))
}

/// Whether the disk, or this user's part of it, is full; or no descriptor is to be had. Either may
/// pass.
pub(super) fn lacks_room(error: &StorageError) -> bool {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    let none = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    match error {
        StorageError::Full { .. } => true,
        StorageError::Io { error, .. } => {
            full.contains(&error.kind()) || none.contains(&error.raw_os_error())
        }
        _ => false,
    }
}

/// Of a file that nothing relies on yet: for want of room it is not made now, and that is all.
pub(super) fn or_full(error: StorageError) -> StorageError {
    match error {
        StorageError::Io { path, error, op } => {
            let error = StorageError::Io { op, path, error };
            match (lacks_room(&error), error) {
                (true, StorageError::Io { path, error, .. }) => StorageError::Full { path, error },
                (_, error) => error,
            }
        }
        other => other,
    }
}
