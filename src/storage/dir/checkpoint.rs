//! Checkpoints: what an opening needs to know of a segment that is not the last, in a file beside it,
//! so that the groups in it need not be read for that.
//!
//! A checkpoint says what reading the segment finds, or what whoever wrote it knows: the places of its
//! groups, the terms of its entries, the configurations. It counts only for the very file that it was made of, from exactly
//! where that begins to exactly where the next segment goes on; in any other case, and where it is
//! missing or damaged, the segment is read instead, and nothing is lost but time. So it may be written
//! late or never, and be lost at any moment. Entries behind one are compared with it, by the checksums
//! of their groups, whenever they are fetched; who finds that they are not what they were removes it,
//! so that the next opening reads the segment and sees.

use std::collections::TryReserveError;
use std::io::ErrorKind;
use std::sync::Arc;

use crate::core::{Configuration, Entry, Index, Payload, Position};
use crate::storage::StorageError;
use crate::wire::{decode_entry, encode_entry};

use super::fetch::{Body, Source};
use super::frame::{Frame, Kind, flaw};
use super::layout::{Layout, Run};
use super::page::{Flaw, PAGE, take, take_number, take_u8, take_u32, take_u64};
use super::segment::{End, Header, PREPARED, SUFFIX as SEGMENT};
use super::vfs::Vfs;

const SUFFIX: &str = ".ckpt";
const MAGIC: &[u8; 8] = b"KEELCKPT";
/// Another one is read by nobody else: the segment is.
const VERSION: u32 = 1;
const CRC_END: usize = MAGIC.len() + 4;
/// None is larger: a segment of the largest size has a place in it for each 64 KiB, if it is not full
/// of replacements.
const MAX_BYTES: usize = 1 << 20;

/// What is known of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Of this segment alone.
    pub(super) layout: Layout,
    /// Where the log ends with it.
    pub(super) end: End,
    pub(super) content: Content,
}

/// What is known of the entries in a segment, besides where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// META's generation when the last group was written.
    pub(super) generation: u64,
    /// The first index of every term, of the entries that nothing in the segment replaces.
    pub(super) terms: Vec<Position>,
    /// The configurations among them, as entries.
    pub(super) configs: Vec<Entry>,
}

impl Content {
    /// A group follows that begins with this index, after which nothing from there on is what it was.
    pub(super) fn group(&mut self, first: Index, generation: u64) {
        self.terms.retain(|run| run.index < first);
        self.configs.retain(|entry| entry.index < first);
        self.generation = self.generation.max(generation);
    }

    /// The next entry of the group.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<(), TryReserveError> {
        if self.terms.last().is_none_or(|run| run.term != entry.term) {
            self.terms.try_reserve(1)?;
            self.terms.push(entry.position());
        }
        if let Payload::Config(..) = entry.payload {
            self.configs.try_reserve(1)?;
            self.configs.push(entry.clone());
        }
        Ok(())
    }
}

/// The name of the checkpoint of a segment's file.
pub(super) fn name_of(segment: &str) -> String {
    let stem = segment.strip_suffix(SEGMENT).unwrap_or(segment);
    format!("{stem}{SUFFIX}")
}

/// Whether the name is that of a checkpoint.
pub(super) fn is_checkpoint(name: &str) -> bool {
    name.ends_with(SUFFIX) && !name.starts_with(PREPARED)
}

/// The segment is not what its checkpoint says, or is not needed any more. If this fails, or power
/// does, it is found again.
pub(super) fn remove(fs: &dyn Vfs, segment: &str) {
    if fs.remove(&name_of(segment)).is_ok() {
        let _ = fs.sync_dir();
    }
}

impl Checkpoint {
    /// Reads all groups of a segment and checks them, in pieces; `None` if `goes_on`, which is told of
    /// bytes that were read, says that this is to end.
    pub(super) fn of_segment(
        fs: &dyn Vfs,
        header: &Header,
        end: &End,
        goes_on: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Checkpoint>, StorageError> {
        let mut source = Source::of_segment(fs, header)?;
        let mut found = Checkpoint::at(header);
        while found.end.lsn < end.lsn {
            let frame = source.any_frame()?;
            found.take_in(&mut source, &frame)?;
            if !goes_on(frame.size() as u64) {
                return Ok(None);
            }
        }
        match found.end == *end {
            true => Ok(Some(found)),
            false => Err(source.flawed(Flaw::Bad("segment that the next one does not continue"))),
        }
    }

    fn at(header: &Header) -> Checkpoint {
        let mut layout = Layout::default();
        layout.enter(header);
        Checkpoint {
            layout,
            end: header.start(),
            ..Checkpoint::default()
        }
    }

    fn take_in(&mut self, source: &mut Source, frame: &Frame) -> Result<(), StorageError> {
        let mut body = Body::new(frame);
        let first = frame.first_index;
        let next = self.end.last.index + 1;
        let fits = match frame.kind {
            Kind::Append => first == next,
            Kind::Replace => first < next,
            Kind::Reset => self.end == self.layout.start(),
        };
        if !fits {
            return Err(source.flawed(Flaw::Bad("index out of order")));
        }
        if frame.kind == Kind::Reset {
            let (index, term) = (first - 1, body.base_term(source)?);
            self.end.last = Position { index, term };
            self.layout.reset(self.end.last);
        }
        self.content.group(first, frame.place.generation);
        self.layout
            .group(frame.kind, first, frame.place.lsn, frame.crc);
        for _ in 0..frame.count {
            let entry = body.entry(source)?;
            self.end.last = entry.position();
            self.content.entry(&entry)?;
        }
        body.finish(source)?;
        self.end.lsn = frame.place.lsn + frame.size() as u64;
        self.end.crc = frame.crc;
        Ok(())
    }

    /// The configurations, each with its index.
    pub(super) fn configs(&self) -> Vec<(Index, Arc<Configuration>)> {
        let configs = self
            .content
            .configs
            .iter()
            .filter_map(|entry| match &entry.payload {
                Payload::Config(config, _) => Some((entry.index, config.clone())),
                _ => None,
            });
        configs.collect()
    }

    // ---- the file ----------------------------------------------------------

    /// The checkpoint of this segment, if it has one that says how the log comes from its beginning to
    /// `end`. Any other is of no use.
    pub(super) fn read(fs: &dyn Vfs, header: &Header, end: &End) -> Option<Checkpoint> {
        let file = fs
            .read(&name_of(&header.name()), MAX_BYTES as u64 + 1)
            .ok()?;
        let found = Checkpoint::decode(&file, header).ok()?;
        (found.end == *end && found.is_sound()).then_some(found)
    }

    /// Writes it; durable when the directory is. If anything fails there is none.
    pub(super) fn write(&self, fs: &dyn Vfs, segment: &str) -> Result<(), StorageError> {
        let name = name_of(segment);
        let prepared = format!("{PREPARED}{name}");
        let bytes = self.encode();
        if bytes.len() > MAX_BYTES {
            return Ok(());
        }
        let made = (|| {
            let file = fs.create(&prepared)?;
            file.write(&bytes, 0)?;
            file.sync()?;
            fs.rename(&prepared, &name)
        })();
        if made.is_err() {
            // The next opening does if this fails.
            let _ = fs.remove(&prepared);
        }
        made
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[0; CRC_END - MAGIC.len()]);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let (header, extent) = self.layout.only();
        out.extend_from_slice(&header.fields());
        let base = self.layout.base();
        out.push(u8::from(extent.resets));
        out.extend_from_slice(&self.end.crc.to_le_bytes());
        for field in [
            base.index,
            base.term,
            extent.replaced,
            self.end.lsn,
            self.end.last.index,
            self.end.last.term,
            self.content.generation,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let lens = [
            self.layout.runs().len(),
            self.content.terms.len(),
            self.content.configs.len(),
        ];
        for len in lens {
            out.extend_from_slice(&(len as u32).to_le_bytes());
        }
        for run in self.layout.runs() {
            out.extend_from_slice(&run.first.to_le_bytes());
            out.extend_from_slice(&run.lsn.to_le_bytes());
            out.extend_from_slice(&run.crc.to_le_bytes());
        }
        for run in &self.content.terms {
            out.extend_from_slice(&run.index.to_le_bytes());
            out.extend_from_slice(&run.term.to_le_bytes());
        }
        for entry in &self.content.configs {
            encode_entry(entry, &mut out);
        }
        let crc = crc32fast::hash(&out[CRC_END..]);
        out[MAGIC.len()..CRC_END].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads one of this segment; that it makes sense is for the caller to check.
    fn decode(file: &[u8], header: &Header) -> Result<Checkpoint, Flaw> {
        let mut input = file;
        let other = Flaw::Bad("no checkpoint of this segment");
        if file.len() > MAX_BYTES || take(&mut input, MAGIC.len())? != MAGIC {
            return Err(other);
        }
        let crc = take_u32(&mut input)?;
        let version = take_u32(&mut &*input)?;
        if crc != crc32fast::hash(input) || version != VERSION {
            return Err(other);
        }
        take_u32(&mut input)?;
        let fields = header.fields();
        if take(&mut input, fields.len())? != fields {
            return Err(other);
        }
        let resets = take_u8(&mut input)? != 0;
        let crc = take_u32(&mut input)?;
        let base = take_position(&mut input)?;
        let replaced = take_u64(&mut input)?;
        let end = End {
            lsn: take_number(&mut input)?,
            crc,
            last: take_position(&mut input)?,
        };
        let generation = take_u64(&mut input)?;
        let lens = [(); 3].map(|()| take_u32(&mut input));
        let [runs, terms, configs] = lens;
        let (mut layout, mut found) = (Layout::default(), Checkpoint::default());
        layout.enter(header);
        let runs = take_all(runs?, || {
            Ok(Run {
                first: take_number(&mut input)?,
                seq: header.seq,
                lsn: take_number(&mut input)?,
                crc: take_u32(&mut input)?,
            })
        })?;
        layout.fill(resets.then_some(base), replaced, runs);
        found.layout = layout;
        found.content = Content {
            generation,
            terms: take_all(terms?, || take_position(&mut input))?,
            configs: take_all(configs?, || decode_entry(&mut input).map_err(flaw))?,
        };
        found.end = end;
        match input.is_empty() && base == found.layout.base() {
            true => Ok(found),
            false => Err(other),
        }
    }

    /// Whether it can be true of any segment.
    fn is_sound(&self) -> bool {
        let (header, _) = self.layout.only();
        let (first, last) = (self.layout.first(), self.end.last);
        let offset = |lsn: u64| lsn.checked_sub(header.start_lsn);
        let (runs, terms) = (self.layout.runs(), &self.content.terms[..]);
        let ordered = runs
            .windows(2)
            .all(|pair| pair[0].first < pair[1].first && pair[0].lsn < pair[1].lsn);
        let placed = runs.iter().all(|run| {
            run.lsn < self.end.lsn
                && offset(run.lsn).is_some_and(|at| at.is_multiple_of(PAGE as u64))
        });
        let rising = terms
            .windows(2)
            .all(|pair| pair[0].index < pair[1].index && pair[0].term < pair[1].term);
        let configs = &self.content.configs[..];
        let named = configs.windows(2).all(|p| p[0].index < p[1].index);
        let inside = |index: Index| (first..=last.index).contains(&index);
        let begins = match runs.first() {
            Some(run) => run.first == first && offset(self.end.lsn).is_some(),
            None => self.end == header.start(),
        };
        let ends = match terms.last() {
            Some(run) => terms[0].index == first && run.term == last.term,
            None => last.index + 1 == first && last == self.layout.base(),
        };
        let resets = self.layout.only().1.resets;
        let begins = begins && (!resets || first == self.layout.base().index + 1);
        let known = terms.iter().all(|run| inside(run.index) && run.term > 0)
            && configs.iter().all(|entry| inside(entry.index));
        ordered && placed && rising && named && begins && ends && known
    }
}

fn take_position(input: &mut &[u8]) -> Result<Position, Flaw> {
    Ok(Position {
        index: take_number(input)?,
        term: take_number(input)?,
    })
}

/// So many, taken one by one: no memory is set aside for what does not follow.
fn take_all<T>(count: u32, mut next: impl FnMut() -> Result<T, Flaw>) -> Result<Vec<T>, Flaw> {
    (0..count).map(|_| next()).collect()
}

/// Whether a file is not there.
pub(super) fn is_missing(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { error, .. } if error.kind() == ErrorKind::NotFound)
}
