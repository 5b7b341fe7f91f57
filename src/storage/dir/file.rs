//! One file by itself, wherever it lies: so what a damaged opening or a repair has taken out of a log can be
//! looked at, and the commands in it be taken out.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::core::{Entry, Index, Payload, Snapshot, Term};
use crate::storage::{Identity, StorageError};
use crate::wire::decode_entry;

use super::image::Image;
use super::inspect::{MetaState, Walk, groups_from, state_of, walk};
use super::meta;
use super::page::{Flaw, PAGE};
use super::repair::{END, Region, TITLE};
use super::segment::{Header, MAX_BYTES};
use super::vfs::{Disk, Vfs};

/// The longest line of a file that a repair has written.
const LINE: u64 = 4096;

/// What a file is.
#[derive(Debug)]
pub enum FileState {
    /// A segment of a log.
    Segment {
        /// Whose it is.
        identity: Identity,
        /// Drawn when the directory was made.
        instance: u64,
        /// The opening in which it was made.
        made: u32,
        /// What it is called in a log.
        name: String,
        /// Its size in bytes.
        bytes: u64,
        /// What was found in it.
        walk: Walk,
    },
    /// What a repair has dropped.
    Saved(Saved),
    /// The image of a snapshot.
    Image {
        /// Whose it is.
        identity: Identity,
        /// Its snapshot.
        snapshot: Box<Snapshot>,
        /// Every byte of it was checked, and this is wrong.
        damaged: Option<StorageError>,
    },
    /// META.
    Meta(Box<MetaState>),
    /// None of these, or its first page is damaged.
    Unknown,
}

/// What a repair has dropped, as it has written it down.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// Parts of files, each with what could be read in it.
    pub parts: Vec<(Region, Vec<Run>)>,
    /// The file ends before all of it is there: the repair was cut short, and changed nothing.
    pub cut: bool,
}

/// Entries that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first and the last index.
    pub indexes: (Index, Index),
    /// The first and the last term.
    pub terms: (Term, Term),
    /// How many of them are commands of the daemon.
    pub commands: u64,
    /// Bytes of those commands.
    pub bytes: u64,
}

impl Run {
    /// Takes in the next entry.
    fn add(runs: &mut Vec<Run>, entry: &Entry) {
        let (commands, bytes) = match &entry.payload {
            Payload::Host(data) => (1, data.len() as u64),
            _ => (0, 0),
        };
        match runs.last_mut() {
            Some(run) if run.indexes.1 + 1 == entry.index => {
                (run.indexes.1, run.terms.1) = (entry.index, entry.term);
                run.commands += commands;
                run.bytes += bytes;
            }
            _ => runs.push(Run {
                indexes: (entry.index, entry.index),
                terms: (entry.term, entry.term),
                commands,
                bytes,
            }),
        }
    }
}

/// Reads the file at `path`, and changes nothing.
///
/// # Errors
/// `Corrupt` if it is a repair's and cannot be read, `Version`, `Io`.
pub fn file(path: &Path) -> Result<FileState, StorageError> {
    let mut saved = Saved::default();
    let mut runs = Vec::new();
    let part = |part: Part| match part {
        Part::Region(region) => {
            if let Some((_, last)) = saved.parts.last_mut() {
                *last = std::mem::take(&mut runs);
            }
            saved.parts.push((region, Vec::new()));
        }
        Part::Entry(entry) => Run::add(&mut runs, &entry),
    };
    if let Some(whole) = read_saved(path, part)? {
        if let Some((_, last)) = saved.parts.last_mut() {
            *last = runs;
        }
        saved.cut = !whole;
        return Ok(FileState::Saved(saved));
    }
    let (fs, name) = place(path)?;
    let stored = fs.read(&name, MAX_BYTES + 1)?;
    let page = &stored[..stored.len().min(PAGE)];
    match Header::decode(page) {
        Ok(header) => {
            return Ok(FileState::Segment {
                identity: header.origin.identity,
                instance: header.origin.instance,
                made: header.origin.incarnation,
                name: header.name(),
                bytes: stored.len() as u64,
                walk: walk(&header, &stored),
            });
        }
        Err(newer @ Flaw::Newer(_)) => return Err(newer.at(path.to_owned(), 0, 0)),
        Err(_) => {}
    }
    if let Ok((meta, repaired)) = meta::choose(&stored) {
        return Ok(FileState::Meta(Box::new(state_of(&meta, repaired))));
    }
    match Image::open(&fs, &name) {
        Ok(image) => Ok(FileState::Image {
            identity: image.header.origin.identity,
            damaged: image.verify().err(),
            snapshot: Box::new(image.header.snapshot),
        }),
        Err(StorageError::Corrupt { .. }) => Ok(FileState::Unknown),
        Err(error) => Err(error),
    }
}

/// The daemon's command of this index in a segment, or in what a repair has written down: the last one, if
/// it was replaced. `None` if there is none.
///
/// # Errors
/// As for [`file`].
pub fn command(path: &Path, index: Index) -> Result<Option<Vec<u8>>, StorageError> {
    let mut found = None;
    let mut look = |entry: &Entry| {
        if entry.index == index {
            found = match &entry.payload {
                Payload::Host(data) => Some(data.to_vec()),
                _ => None,
            };
        }
    };
    let part = |part: Part| {
        if let Part::Entry(entry) = part {
            look(&entry);
        }
    };
    if read_saved(path, part)?.is_none() {
        let (fs, name) = place(path)?;
        let stored = fs.read(&name, MAX_BYTES + 1)?;
        let header = Header::decode(&stored[..stored.len().min(PAGE)]);
        let header = header.map_err(|flaw| flaw.at(path.to_owned(), 0, 0))?;
        groups_from(&header, &stored, PAGE)
            .for_each(|group| group.entries.iter().for_each(&mut look));
    }
    Ok(found)
}

fn place(path: &Path) -> Result<(Disk, String), StorageError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match name {
        Some(name) => Ok((Disk::new(parent), name.to_owned())),
        None => Err(Flaw::Bad("no name of a file").at(path.to_owned(), 0, 0)),
    }
}

/// What comes next in a file that a repair has written.
enum Part {
    Region(Region),
    Entry(Entry),
}

/// Reads such a file, and whether all of it is there; `None` if it is none.
fn read_saved(path: &Path, mut part: impl FnMut(Part)) -> Result<Option<bool>, StorageError> {
    let failed = |op| {
        move |error| StorageError::Io {
            op,
            path: path.to_owned(),
            error,
        }
    };
    let file = File::open(path).map_err(failed("open"))?;
    let mut input = BufReader::new(file);
    let mut offset = 0;
    let mut line = Vec::new();
    let next = |input: &mut BufReader<File>, line: &mut Vec<u8>| {
        line.clear();
        let read = input.take(LINE).read_until(b'\n', line);
        read.map_err(failed("read"))
    };
    offset += next(&mut input, &mut line)? as u64;
    if line != TITLE {
        return Ok(None);
    }
    loop {
        let begin = offset;
        offset += next(&mut input, &mut line)? as u64;
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok(Some(false));
        };
        if line == END {
            return Ok(Some(true));
        }
        let bad = |what| Flaw::Bad(what).at(path.to_owned(), begin, 0);
        let words = std::str::from_utf8(text).ok().and_then(words);
        let (kind, bytes) = words.ok_or_else(|| bad("no line of a repair"))?;
        let mut data = Vec::new();
        let mut rest = (&mut input).take(bytes);
        match kind {
            // Entries in it come by themselves.
            Kind::Region(_) => std::io::copy(&mut rest, &mut std::io::sink()),
            Kind::Entry => rest.read_to_end(&mut data).map(|len| len as u64),
        }
        .map_err(failed("read"))
        .map(|len| offset += len)?;
        if offset - begin < line.len() as u64 + bytes || next(&mut input, &mut line)? == 0 {
            return Ok(Some(false));
        }
        offset += line.len() as u64;
        part(match kind {
            Kind::Region(region) => Part::Region(region),
            Kind::Entry => {
                let entry = decode_entry(&mut &data[..]);
                Part::Entry(entry.map_err(|_| bad("entry that cannot be read"))?)
            }
        });
    }
}

enum Kind {
    Region(Region),
    Entry,
}

/// What a line says, and how many bytes follow it.
fn words(line: &str) -> Option<(Kind, u64)> {
    let (kind, rest) = line.split_once(' ')?;
    let (rest, bytes) = rest.rsplit_once(' ')?;
    let bytes = bytes.parse().ok()?;
    match kind {
        "region" => {
            let (name, offset) = rest.rsplit_once(' ')?;
            let region = Region {
                name: name.to_owned(),
                offset: offset.parse().ok()?,
                bytes,
            };
            Some((Kind::Region(region), bytes))
        }
        "entry" => Some((Kind::Entry, bytes)),
        _ => None,
    }
}
