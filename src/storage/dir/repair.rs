//! Repair: an administrator gives up what a damaged log has lost.
//!
//! Everything that goes is written to a file before anything changes. Then the log is cut to what is
//! whole, as an opening would, and nothing is claimed any more: from now on the node acts as if it had
//! never held what is gone, so that what was committed may be lost with it.
//!
//! A node that votes alone by its own log gets another META as well ([`rebuild`]).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::{Entry, Index, NodeId, Position, Term};
use crate::storage::StorageError;
use crate::wire::encode_entry;

use super::aside::{self, is_aside};
use super::frame::is_zero;
use super::inspect::groups_from;
use super::open::{Alone, Contents, load_meta};
use super::page::{Flaw, PAGE, SECTOR};
use super::recover::Reading;
use super::segment::{Header, MAX_BYTES, is_segment};
use super::vfs::{Disk, Vfs, VfsFile};
use super::{Directory, LOCK, Options, holds_node, meta, rebuild, remove_prepared};

/// What names of files begin with that hold what was dropped.
pub(super) const PREFIX: &str = "lost-";

/// What the file begins with that holds what was dropped.
pub(super) const TITLE: &[u8] = b"keelctl repair 1\n";
/// What it ends with, so that one which was not finished is known.
pub(super) const END: &[u8] = b"end\n";

/// What a repair drops, or would.
#[derive(Clone, Debug)]
pub struct Repair {
    /// What is wrong; nothing if that was found by an earlier opening, which dropped it.
    pub what: Vec<String>,
    /// The last entry that the node may have acknowledged, or a place behind it; `None` if the log that
    /// is left looks whole.
    pub claim: Option<Position>,
    /// META is lost and is made anew, of this term.
    pub term: Option<Term>,
    /// What the log begins behind, and where it ends then.
    pub kept: (Position, Position),
    /// Who votes by the newest configuration that is left; nobody if there is none.
    pub voters: Vec<NodeId>,
    /// Parts of files that are dropped.
    pub regions: Vec<Region>,
    /// Entries that can still be read in them; some of them may have been replaced by others.
    pub entries: Vec<(Index, u64)>,
    /// Where all of that was written, if there is anything.
    pub saved: Option<PathBuf>,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The file's name.
    pub name: String,
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// What a repair would drop; `None` if there is nothing to repair. It changes nothing.
///
/// # Errors
/// As for [`Directory::open`]; of damage only what no repair can mend.
pub fn plan(path: &Path) -> Result<Option<Repair>, StorageError> {
    let mut fs = Disk::new(path);
    let found = find(&mut fs)?;
    found.map(|found| found.describe(&fs)).transpose()
}

/// Drops what is lost, once all of it is in the file `to`, or in one beside the log; `None` if there
/// was nothing to repair.
///
/// # Errors
/// As for [`plan`]; `Io` if `to` is there already, and is not what a repair has begun to write there that
/// was cut short.
pub fn repair(path: &Path, to: Option<&Path>) -> Result<Option<Repair>, StorageError> {
    let mut fs = Disk::new(path);
    let Some(found) = find(&mut fs)? else {
        return Ok(None);
    };
    let mut repair = found.describe(&fs)?;
    let number = found.contents.meta.incarnation.saturating_add(1);
    repair.saved = match to {
        Some(to) => Some(save(&fs, &repair, to).map(|()| to.to_owned())?),
        None if repair.regions.is_empty() => None,
        None => Some(save_beside(&fs, &repair, path, number)?),
    };
    remove_prepared(&fs, &found.names)?;
    if found.meta_lost.is_some() {
        meta::create(&fs, &found.contents.meta)?;
    }
    let (directory, _) = Directory::resume(
        Arc::new(fs),
        Options::default(),
        found.contents,
        found.reset,
    )?;
    {
        let mut log = directory.log();
        log.meta.hard.claim = None;
        log.update_meta()?;
    }
    aside::remove_all(&*directory.fs);
    Ok(Some(repair))
}

/// A directory that has lost something.
struct Damaged {
    names: Vec<String>,
    contents: Contents,
    reset: Option<Position>,
    /// Why META is made anew, if it is.
    meta_lost: Option<StorageError>,
}

fn find(fs: &mut Disk) -> Result<Option<Damaged>, StorageError> {
    if !holds_node(&fs.list()?) {
        return Err(StorageError::Missing { path: fs.root() });
    }
    fs.lock(LOCK)?;
    let names = fs.list()?;
    let mut contents = match load_meta(fs, &names) {
        Err(lost) if rebuild::is_lost(fs, &lost) => return without_meta(fs, names, lost).map(Some),
        known => {
            let (meta, repaired) = known?;
            Contents::behind(fs, &names, meta, repaired, Reading::All)?
        }
    };
    let reset = contents.reconcile(fs, Alone::Accepted)?;
    Ok(contents.meta.hard.claim.map(|_| Damaged {
        names,
        contents,
        reset,
        meta_lost: None,
    }))
}

/// The same, of a node that has lost META and votes alone; `lost` if it does not.
fn without_meta(
    fs: &Disk,
    names: Vec<String>,
    lost: StorageError,
) -> Result<Damaged, StorageError> {
    let Some(rebuilt) = rebuild::read(fs, &names)? else {
        return Err(lost);
    };
    let meta = rebuilt.meta.clone();
    let node = meta.identity.node;
    let mut contents = Contents::behind(fs, &names, meta, false, Reading::All)?;
    let reset = contents.reconcile(fs, Alone::Accepted)?;
    let (_, last) = contents.span();
    match contents.voters(reset) == [node] && !rebuilt.has_others(last.index) {
        true => Ok(Damaged {
            names,
            contents,
            reset,
            meta_lost: Some(lost),
        }),
        false => Err(lost),
    }
}

impl Damaged {
    fn describe(&self, fs: &dyn Vfs) -> Result<Repair, StorageError> {
        let contents = &self.contents;
        let (base, last) = contents.span();
        let lost = contents.lost.as_ref();
        let mut regions = Vec::new();
        // Whether a write was cut off that nobody was told of, only META could say.
        if lost.is_some() || self.meta_lost.is_some() {
            regions = self.regions(fs)?;
        }
        if self.meta_lost.is_some() && self.names.iter().any(|name| name == meta::NAME) {
            regions.extend(region(fs, meta::NAME, 0)?);
        }
        // What an earlier opening has dropped.
        for name in self.names.iter().filter(|name| is_aside(name)) {
            regions.extend(region(fs, name, 0)?);
        }
        self.given_up(fs, &mut regions)?;
        let mut entries = Vec::new();
        for region in &regions {
            let read = read(fs, region)?;
            entries.extend(read.1.iter().map(|entry| (entry.index, entry.term)));
        }
        Ok(Repair {
            what: self
                .meta_lost
                .iter()
                .map(ToString::to_string)
                .chain(lost.map(|lost| lost.what.clone()))
                .collect(),
            claim: contents.meta.hard.claim,
            term: self.meta_lost.as_ref().map(|_| contents.meta.hard.term),
            kept: (self.reset.unwrap_or(base), self.reset.unwrap_or(last)),
            voters: contents.voters(self.reset),
            regions,
            entries,
            saved: None,
        })
    }

    /// Segments that hold entries which the log ends before: an earlier opening has given them up, and
    /// nothing in them is damaged.
    fn given_up(&self, fs: &dyn Vfs, regions: &mut Vec<Region>) -> Result<(), StorageError> {
        let (_, last) = self.contents.span();
        let end = self.reset.unwrap_or(last).index;
        for name in self.names.iter().filter(|name| is_segment(name)) {
            if regions.iter().any(|region| region.name == *name) {
                continue;
            }
            if let Some(all) = region(fs, name, 0)? {
                let entries = read(fs, &all)?.1;
                regions.extend(entries.iter().any(|entry| entry.index > end).then_some(all));
            }
        }
        Ok(())
    }

    /// What goes of the log: all of it, or what comes behind that which is whole.
    fn regions(&self, fs: &dyn Vfs) -> Result<Vec<Region>, StorageError> {
        let recovered = &self.contents.recovered;
        let mut regions = Vec::new();
        if let Some((header, groups)) = &recovered.tail {
            let whole = match self.reset {
                Some(_) => 0,
                None => (PAGE + groups.len()) as u64,
            };
            regions.extend(region(fs, &header.name(), whole)?);
        }
        for name in &recovered.dropped {
            regions.extend(region(fs, name, 0)?);
        }
        Ok(regions)
    }
}

/// What was written of a file from `offset` on.
fn region(fs: &dyn Vfs, name: &str, offset: u64) -> Result<Option<Region>, StorageError> {
    let stored = fs.read(name, MAX_BYTES + 1)?;
    let rest = stored.get(offset as usize..).unwrap_or(&[]);
    let written = rest.chunks(SECTOR).rposition(|sector| !is_zero(sector));
    Ok(written.map(|last| Region {
        name: name.to_owned(),
        offset,
        bytes: ((last + 1) * SECTOR).min(rest.len()) as u64,
    }))
}

/// The bytes of a region, and the entries in them that can be read.
fn read(fs: &dyn Vfs, region: &Region) -> Result<(Vec<u8>, Vec<Entry>), StorageError> {
    let stored = fs.read(&region.name, MAX_BYTES + 1)?;
    let end = (region.offset + region.bytes) as usize;
    let bytes = stored[region.offset as usize..end].to_vec();
    let entries = match Header::decode(&stored[..stored.len().min(PAGE)]) {
        Ok(header) => {
            let from = region.offset.max(PAGE as u64) as usize;
            let groups = groups_from(&header, &stored, from);
            groups.flat_map(|group| group.entries).collect()
        }
        Err(_) => Vec::new(),
    };
    Ok((bytes, entries))
}

/// Names that are tried for a file beside the log.
const NAMES: u32 = 100;

/// Writes everything that goes to a file beside the log: the one that a repair has begun that was cut
/// short, or another.
fn save_beside(
    fs: &dyn Vfs,
    repair: &Repair,
    path: &Path,
    incarnation: u32,
) -> Result<PathBuf, StorageError> {
    let mut nth = 1;
    loop {
        let to = path.join(match nth {
            1 => format!("{PREFIX}{incarnation:010}"),
            _ => format!("{PREFIX}{incarnation:010}-{nth}"),
        });
        match save(fs, repair, &to) {
            Err(StorageError::Io { error, .. })
                if error.kind() == ErrorKind::AlreadyExists && nth < NAMES =>
            {
                nth += 1;
            }
            saved => return saved.map(|()| to),
        }
    }
}

/// Writes everything that goes. A file that is there already must begin as it is to be, all of it.
fn save(fs: &dyn Vfs, repair: &Repair, to: &Path) -> Result<(), StorageError> {
    let name = to.file_name().and_then(|name| name.to_str());
    let Some(name) = name else {
        let flaw = Flaw::Bad("no name of a file");
        return Err(flaw.at(to.to_owned(), 0, 0));
    };
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let place = Disk::new(parent);
    let file = match place.create(name) {
        Err(StorageError::Io { op, path, error }) if error.kind() == ErrorKind::AlreadyExists => {
            let file = place.open(name)?;
            match is_begun(fs, repair, &*file)? {
                true => file,
                false => return Err(StorageError::Io { op, path, error }),
            }
        }
        file => file?,
    };
    tell(fs, repair, |bytes, offset| file.write(bytes, offset))?;
    file.sync()?;
    place.sync_dir()
}

/// Whether the file holds nothing else than what is to be written, be it all of it or the beginning.
fn is_begun(fs: &dyn Vfs, repair: &Repair, file: &dyn VfsFile) -> Result<bool, StorageError> {
    let (mut same, mut end) = (true, 0);
    tell(fs, repair, |bytes, offset| {
        let mut found = vec![0; bytes.len()];
        let len = file.read(&mut found, offset)?;
        same &= found[..len] == bytes[..len];
        end = offset + bytes.len() as u64;
        Ok(())
    })?;
    Ok(same && file.size()? <= end)
}

/// Everything that goes, in pieces with their offsets: a line for each part and each entry, and behind
/// each line its bytes and the end of a line; the last line has none. Entries are encoded as peers send them.
fn tell(
    fs: &dyn Vfs,
    repair: &Repair,
    mut to: impl FnMut(&[u8], u64) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut end = 0;
    let mut write = |bytes: &[u8]| {
        end += bytes.len() as u64;
        to(bytes, end - bytes.len() as u64)
    };
    write(TITLE)?;
    for region in &repair.regions {
        let Region {
            name,
            offset,
            bytes,
        } = region;
        let (data, entries) = read(fs, region)?;
        write(format!("region {name} {offset} {bytes}\n").as_bytes())?;
        write(&data)?;
        write(b"\n")?;
        for entry in &entries {
            let mut data = Vec::new();
            encode_entry(entry, &mut data);
            let line = format!("entry {} {} {}\n", entry.index, entry.term, data.len());
            write(line.as_bytes())?;
            write(&data)?;
            write(b"\n")?;
        }
    }
    write(END)
}
