//! What a fuzzer puts in the place of META, segments, frames and images, and changes in whole
//! directories. Checksums are made right behind it, or nothing but them would ever be tried.

use std::sync::{Arc, OnceLock};

use super::super::buffer::Buffer;
use super::super::frame::{Frame, HEADER, Kind, Place, start_group, whiten};
use super::super::image::{self, Count, DATA, block_checksum, encode_counts};
use super::super::inspect::inspect_on;
use super::super::meta::{self, Meta};
use super::super::open::Contents;
use super::super::page::{PAGE, SECTOR};
use super::super::receive::{self, Partial};
use super::super::recover::{Reading, recover};
use super::super::segment;
use super::super::snapshot::ImageReader;
use super::super::{Directory, is_segment};
use super::images::read_all;
use super::model::{open, open_twice};
use super::sim::{Image, Loss, Sim};
use super::workload::{Mix, run};
use super::{INSTANCE, identity};
use crate::core::{Entry, HardState, Payload, Persist, Restored, Token};
use crate::fuzz::alloc::within;
use crate::fuzz::rng::Rng;
use crate::storage::{OPEN_AMPLIFICATION, OPEN_OVERHEAD, Storage, StorageError};

const META_MAGIC: &[u8; 8] = b"KEELMETA";
const SEGMENT_MAGIC: &[u8; 8] = b"KEELSEGM";
const IMAGE_MAGIC: &[u8; 8] = b"KEELSNAP";
/// Where the checksum of a page ends, and what it covers begins.
const SEALED: usize = 12;
/// Where the fields of a page begin.
const FIELDS: usize = 24;
/// Where the checksum of a frame header ends, and what it covers begins.
const FRAME_SEALED: usize = 8;
/// How far apart the slots of META are.
const REGION: usize = 64 * 1024;

/// A page with what follows its checksum, which is right.
fn sealed(magic: &[u8; 8], data: &[u8]) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    page[..8].copy_from_slice(magic);
    let len = data.len().min(PAGE - SEALED);
    page[SEALED..SEALED + len].copy_from_slice(&data[..len]);
    reseal(&mut page);
    page
}

fn reseal(page: &mut [u8]) {
    let crc = crc32fast::hash(&page[SEALED..PAGE]);
    page[8..SEALED].copy_from_slice(&crc.to_le_bytes());
}

/// Two slots of META. The first byte says which of them are sealed, and how much of the file is there.
pub fn meta(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let (first, second) = rest.split_at(rest.len() / 2);
    let slot = |bit: u8, data: &[u8]| match mode & bit {
        0 => sealed(META_MAGIC, data),
        _ => data[..data.len().min(PAGE)].to_vec(),
    };
    let mut file = vec![0; 2 * REGION];
    for (at, page) in [(0, slot(1, first)), (REGION, slot(2, second))] {
        file[at..at + page.len()].copy_from_slice(&page);
    }
    if mode & 4 != 0 {
        file.truncate(usize::from(*mode) * 512);
    }
    let sim = Sim::boot(&Image::from([(meta::NAME.to_owned(), Arc::new(file))]));
    // The file, and the text of an error.
    let bound = 2 * REGION + 1024;
    let Ok((found, _)) = within(bound, || meta::load(&sim)) else {
        return;
    };
    let again = Sim::default();
    meta::create(&again, &found).expect("nothing fails here");
    assert_eq!(meta::load(&again).expect("just written"), (found, false));
}

/// The first page of a segment.
pub fn segment(data: &[u8]) {
    let page = sealed(SEGMENT_MAGIC, data);
    let Ok(header) = within(0, || segment::Header::decode(&page)) else {
        return;
    };
    let again = segment::Header::decode(&header.encode());
    assert_eq!(again.as_ref(), Ok(&header));
    assert!(is_segment(&header.name()));
}

/// A commit group: the header behind its checksum, then the payload. Lengths and checksums are made
/// right if the first byte says so.
pub fn frame(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let (head, payload) = rest.split_at(rest.len().min(HEADER - FRAME_SEALED));
    let mut group = vec![0; HEADER];
    group[FRAME_SEALED..FRAME_SEALED + head.len()].copy_from_slice(head);
    group.extend_from_slice(payload);
    group.resize(group.len().next_multiple_of(PAGE), 0);
    if mode & 1 == 0 {
        group[48..52].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        let crc = crc32fast::hash(&group[HEADER..]);
        group[52..56].copy_from_slice(&crc.to_le_bytes());
    }
    seal_frame(&mut group);
    let Ok(frame) = within(0, || Frame::decode(&head_of(&group))) else {
        return;
    };
    if frame.size() != group.len() || !frame.is_whole(&group) {
        return;
    }
    let bound = OPEN_AMPLIFICATION * payload.len();
    let Ok(reset) = within(0, || frame.reset(&group)) else {
        return;
    };
    if let Ok(entries) = within(bound, || frame.entries(&group)) {
        let again =
            start_group(&mut Buffer::default(), reset, entries.iter()).expect("it was one before");
        let (bytes, _) = again.finish(frame.kind, &frame.place);
        let bytes = bytes.bytes();
        // What a newer version may say behind the last field is not read, and not written.
        group[60..HEADER].fill(0);
        seal_frame(&mut group);
        assert!(bytes == group, "two encodings of a group");
    }
}

fn head_of(group: &[u8]) -> [u8; HEADER] {
    let mut head = [0; HEADER];
    head.copy_from_slice(&group[..HEADER]);
    head
}

fn seal_frame(group: &mut [u8]) {
    group[..4].copy_from_slice(b"KLFR");
    let crc = crc32fast::hash(&group[FRAME_SEALED..HEADER]);
    group[4..FRAME_SEALED].copy_from_slice(&crc.to_le_bytes());
}

/// An image file, whole or as far as it was received: the fields of its page, then what is in its
/// last block. Size, checksums and counts are made right if the first byte says so, which also
/// says how many full blocks come before.
pub fn image(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let (fields, last) = rest.split_at(rest.len().min(200));
    let mut body = vec![7; usize::from(mode >> 6) * DATA];
    body.extend_from_slice(last);
    let mut page = sealed(IMAGE_MAGIC, fields);
    let Ok(mut header) = image::Header::decode(&page) else {
        return;
    };
    if mode & 1 == 0 {
        header.snapshot.size = body.len() as u64;
        header.snapshot.crc = crc32fast::hash(&body);
        page = header.encode();
    }
    let mut file = page;
    for (number, part) in body.chunks(DATA).enumerate() {
        let mut checksum = block_checksum(header.salt, number as u64);
        checksum.update(part);
        let count = Count {
            len: part.len() as u32,
            crc: checksum.finalize() ^ u32::from(mode & 2 != 0),
        };
        let mut sector = encode_counts(&[Count::default(), count]).to_vec();
        sector.resize(SECTOR, 0);
        file.extend_from_slice(&sector);
        file.extend_from_slice(part);
    }
    if mode & 4 != 0 {
        file.truncate(file.len() - last.len() / 2);
    }
    try_whole(&file, &body);
    try_received(&file, &body, &header);
}

fn try_whole(file: &[u8], body: &[u8]) {
    let sim = Sim::boot(&Image::from([("a".to_owned(), Arc::new(file.to_vec()))]));
    let bound = OPEN_AMPLIFICATION * PAGE + OPEN_OVERHEAD;
    let Ok(image) = within(bound, || image::Image::open(&sim, "a")) else {
        return;
    };
    let whole = within(bound, || image.verify()).is_ok();
    let reader = within(bound, || ImageReader::open(&sim, "a", image.snapshot()));
    if let Ok(mut reader) = reader {
        let read = read_all(&mut reader);
        assert!(!whole || read.is_ok_and(|all| all == body));
    }
}

/// What counts of it is what was there, and the rest can be received.
fn try_received(file: &[u8], body: &[u8], header: &image::Header) {
    let name = receive::NAME.to_owned();
    let sim = Sim::boot(&Image::from([(name, Arc::new(file.to_vec()))]));
    let origin = &header.origin;
    let meta = Meta {
        identity: origin.identity,
        instance: origin.instance,
        incarnation: origin.incarnation,
        generation: origin.generation,
        hard: HardState::default(),
        head_seq: 0,
        durable_lsn: 0,
        first_seq: 1,
        adopted: None,
    };
    let bound = OPEN_AMPLIFICATION * PAGE + OPEN_OVERHEAD;
    let found = within(bound, || Partial::find(&sim, &meta)).expect("nothing fails here");
    let mut partial = found.expect("it is this node's");
    let size = partial.snapshot().size;
    let stored = partial.stored() as usize;
    assert!(stored <= body.len() && stored as u64 <= size);
    if size == body.len() as u64 {
        partial.rewrite().expect("nothing fails here");
        let rest = partial.append(&body[stored..]);
        rest.expect("nothing fails here");
        let again = Partial::find(&sim, &meta).expect("nothing fails here");
        assert_eq!(again.map(|p| p.stored()), Some(size));
    }
}

/// A directory that was in use, changed as the bytes say, and opened; and, if the first byte says
/// so, written on, or changed once more and read.
pub fn directory(data: &[u8]) {
    let mut rng = Rng::of(data);
    let images = bases();
    let mode = rng.byte();
    let mut image = images[usize::from(mode) % images.len()].clone();
    for _ in 0..rng.below(8) {
        change(&mut image, &mut rng);
    }
    read_within(&image);
    let sim = Sim::boot(&image);
    let (opened, seen_by_reading) = open_twice(&sim);
    match opened {
        Ok((directory, opened)) if mode >= 0xc0 => go_on(&sim, directory, opened.restored),
        Ok((directory, opened)) if mode >= 0x80 => {
            rot(&sim, directory, &opened.restored, &mut rng);
        }
        Ok(_) => {}
        Err(StorageError::Io { op, .. }) => panic!("{op}: not a matter of input and output"),
        Err(error) => assert!(
            seen_by_reading || sim.operations() == 0,
            "changed, and then refused: {error}"
        ),
    }
}

/// All that an opening reads, or an inspection, held against the bound. Not what it writes: of that the simulated disk
/// keeps copies. An error comes again when it is opened.
fn read_within(image: &Image) {
    let sim = Sim::boot(image);
    let names: Vec<String> = image.keys().cloned().collect();
    let total: usize = image.values().map(|file| file.len()).sum();
    let bound = OPEN_AMPLIFICATION * total + OPEN_OVERHEAD;
    let all = Reading::Tail(usize::MAX);
    let read = within(bound, || Contents::read(&sim, &names, None, all));
    let _ = within(bound, || {
        Contents::read(&sim, &names, None, Reading::Tail(0)).is_ok()
    });
    let inspected = within(2 * bound, || inspect_on(&sim));
    let sound = inspected.is_ok_and(|found| found.verdict.is_ok());
    assert!(read.is_ok() || !sound, "sound, and not to be read");
}

/// Files change under an open directory: what is read of them is entries in their order, or an error.
fn rot(sim: &Sim, mut directory: Directory, found: &Restored, rng: &mut Rng<'_>) {
    let mut image = sim.now().lose_power(Loss::Nothing);
    while !rng.is_done() {
        change_one(&mut image, rng);
    }
    for (name, file) in image {
        sim.put(&name, file);
    }
    let (Some(first), Some(last)) = (found.entries.first(), found.entries.last()) else {
        return;
    };
    let total: usize = sim
        .now()
        .lose_power(Loss::Nothing)
        .values()
        .map(|f| f.len())
        .sum();
    let bound = OPEN_AMPLIFICATION * total + OPEN_OVERHEAD;
    let fetched = within(bound, || {
        directory.fetch(first.index, last.index, usize::MAX)
    });
    if let Ok(entries) = fetched {
        // Other ones, perhaps: checksums are forged.
        let indexes = entries.iter().map(|e| e.index);
        assert!(indexes.eq((first.index..).take(entries.len())), "a gap");
    }
    if let Some(snapshot) = &found.snapshot
        && let Ok(mut reader) = directory.read_snapshot(snapshot)
    {
        let _ = read_all(&mut *reader);
    }
}

/// What was found can be written on, and is found again.
fn go_on(sim: &Sim, mut directory: Directory, mut found: Restored) {
    let first = found.base.index + 1;
    let indexes = found.entries.iter().map(|e| e.index);
    assert!(indexes.eq((first..).take(found.entries.len())), "a gap");
    let term = found.hard.term.max(1);
    let entry = Entry {
        index: first + found.entries.len() as u64,
        term,
        payload: Payload::Noop,
    };
    found.hard = HardState { term, ..found.hard };
    found.entries.push(entry.clone());
    directory.submit(Persist {
        token: Token(1),
        hard: Some(found.hard),
        reset: None,
        entries: vec![entry],
    });
    let completion = directory.poll().expect("it writes at once");
    completion.result.expect("nothing fails here");
    drop(directory);
    let image = sim.now().lose_power(Loss::All);
    let (_, opened) = open(&Sim::boot(&image)).expect("it was just written");
    assert_eq!(opened.restored, found);
}

/// Directories of nodes that have lived for a while.
fn bases() -> &'static [Image] {
    static BASES: OnceLock<Vec<Image>> = OnceLock::new();
    BASES.get_or_init(|| {
        let lived = |(seed, steps, mix)| {
            let sim = Sim::default();
            assert!(run(&sim, seed, steps, mix).error.is_none());
            sim.now().lose_power(Loss::Nothing)
        };
        [
            (1, 0, Mix::Log),
            (2, 4, Mix::Log),
            (3, 40, Mix::All),
            (5, 24, Mix::All),
        ]
        .map(lived)
        .to_vec()
    })
}

fn change(image: &mut Image, rng: &mut Rng<'_>) {
    let names: Vec<String> = image.keys().cloned().collect();
    let Some(name) = names.get(rng.below(names.len().max(1) as u64) as usize) else {
        return;
    };
    match rng.below(10) {
        0 => drop(image.remove(name)),
        1 => {
            let other = image[&names[rng.below(names.len() as u64) as usize]].clone();
            image.insert(name.clone(), other);
        }
        2 => {
            let new: String = (0..rng.below(48)).map(|_| name_char(rng)).collect();
            let file = image.remove(name).unwrap_or_default();
            image.insert(new, file);
        }
        9 => forge(image, rng),
        _ => change_one(image, rng),
    }
}

/// Changes what is in one of the files.
fn change_one(image: &mut Image, rng: &mut Rng<'_>) {
    let nth = rng.below(image.len().max(1) as u64) as usize;
    if let Some((name, file)) = image.iter_mut().nth(nth) {
        let is_meta = *name == meta::NAME;
        change_file(3 + rng.below(6), is_meta, Arc::make_mut(file), rng);
    }
}

fn name_char(rng: &mut Rng<'_>) -> char {
    const CHARS: &[u8] = b"0123456789-.segpr/METALOCK";
    char::from(CHARS[rng.below(CHARS.len() as u64) as usize])
}

fn change_file(kind: u64, is_meta: bool, file: &mut Vec<u8>, rng: &mut Rng<'_>) {
    let page = match is_meta {
        true => rng.below(2) as usize * REGION,
        false => rng.below((file.len() / PAGE).max(1) as u64) as usize * PAGE,
    };
    if file.len() < page + PAGE {
        file.resize(page + PAGE, 0);
        return;
    }
    match kind {
        3 => file[page + rng.below(PAGE as u64) as usize] ^= rng.byte(),
        4 => file[page..page + PAGE / 8 * (1 + rng.below(8) as usize)].fill(0),
        5 => file.truncate(page + rng.below(PAGE as u64) as usize),
        6 => file.resize(file.len() + PAGE * rng.below(3) as usize, 0),
        _ if is_meta => change_fields(&mut file[page..page + PAGE], rng),
        _ if page == 0 => change_fields(&mut file[..PAGE], rng),
        _ => change_frame(file, page, rng),
    }
}

/// A field of a sealed page.
fn change_fields(page: &mut [u8], rng: &mut Rng<'_>) {
    let at = FIELDS - 8 + 4 * rng.below(28) as usize;
    let number = near(&page[at..at + 8], rng);
    page[at..at + 8].copy_from_slice(&number);
    reseal(page);
}

/// Another number, often one close by.
fn near(old: &[u8], rng: &mut Rng<'_>) -> [u8; 8] {
    let mut word = [0; 8];
    word.copy_from_slice(old);
    let old = u64::from_le_bytes(word);
    match rng.below(4) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        _ => rng.number(),
    }
    .to_le_bytes()
}

/// A field of a frame header, or bytes of its payload, at a page of a segment.
fn change_frame(file: &mut [u8], page: usize, rng: &mut Rng<'_>) {
    let Ok(header) = segment::Header::decode(&file[..PAGE]) else {
        return;
    };
    let group = &mut file[page..];
    let len = group.len() / 8 * 8;
    let group = &mut group[..len];
    whiten(header.salt, page as u64, group);
    match rng.flag() {
        true => {
            let at = FRAME_SEALED + 4 * rng.below(13) as usize;
            let number = near(&group[at..at + 8], rng);
            group[at..at + 8].copy_from_slice(&number);
        }
        false => {
            let at = HEADER + rng.below((len - HEADER).min(256) as u64) as usize;
            group[at] = rng.byte();
            let size = Frame::decode(&head_of(group)).map_or(len, |frame| frame.size());
            let crc = crc32fast::hash(&group[HEADER..size.min(len)]);
            group[52..56].copy_from_slice(&crc.to_le_bytes());
        }
    }
    seal_frame(group);
    whiten(header.salt, page as u64, group);
}

/// A group of entries that nobody wrote, in the place of the next one.
fn forge(image: &mut Image, rng: &mut Rng<'_>) {
    let sim = Sim::boot(image);
    let names: Vec<String> = image.keys().cloned().collect();
    let Ok((meta, _)) = meta::load(&sim) else {
        return;
    };
    let Ok(found) = recover(&sim, &names, &meta, Reading::Tail(usize::MAX), None) else {
        return;
    };
    let Some((header, _)) = found.tail else {
        return;
    };
    let entries = forged_entries(found.end.last.index, &meta, rng);
    let Ok(group) = start_group(&mut Buffer::default(), None, entries.iter()) else {
        return;
    };
    let place = Place {
        lsn: found.end.lsn,
        durable_lsn: found.end.lsn.saturating_sub(rng.below(2) * PAGE as u64),
        generation: meta.generation.wrapping_sub(rng.below(3)).wrapping_add(1),
        prev_crc: found.end.crc,
    };
    let kind = match rng.flag() {
        true => Kind::Append,
        false => Kind::Replace,
    };
    let (buffer, _) = group.finish(kind, &place);
    let mut bytes = buffer.bytes().to_vec();
    let offset = header.offset(found.end.lsn);
    whiten(header.salt, offset, &mut bytes);
    if let Some(file) = image.get_mut(&header.name()) {
        let file = Arc::make_mut(file);
        let end = file.len().min(offset as usize + bytes.len());
        file[offset as usize..end].copy_from_slice(&bytes[..end - offset as usize]);
    }
}

fn forged_entries(last: u64, meta: &Meta, rng: &mut Rng<'_>) -> Vec<Entry> {
    let first = match rng.below(4) {
        0 => rng.number().max(1),
        back => (last + 2).saturating_sub(back).max(1),
    };
    let indexes = (0..1 + rng.below(4)).map(|n| first.saturating_add(n));
    let term = meta.hard.term.saturating_sub(rng.below(2)).max(1);
    indexes
        .map(|index| Entry {
            index,
            term: term.saturating_add(rng.below(8) / 7),
            payload: match rng.flag() {
                true => Payload::Noop,
                false => Payload::Host(rng.bytes(64).into()),
            },
        })
        .collect()
}

/// Many small entries in one group: what takes the most memory for its length.
#[test]
fn the_worst_log_is_opened_within_the_bound() {
    let sim = Sim::default();
    Directory::create_on(&mut sim.clone(), &identity(), INSTANCE).unwrap();
    let (mut directory, _) = open(&sim).unwrap();
    let entries = (1..=(1 << 17) + 1).map(|index| Entry {
        index,
        term: 1,
        payload: Payload::Noop,
    });
    directory.submit(Persist {
        token: Token(1),
        hard: Some(HardState {
            term: 1,
            ..HardState::default()
        }),
        reset: None,
        entries: entries.collect(),
    });
    directory.poll().unwrap().result.unwrap();
    let image = sim.now().lose_power(Loss::All);
    read_within(&image);
    let (_, opened) = open(&Sim::boot(&image)).unwrap();
    assert_eq!(opened.restored.entries.len(), (1 << 17) + 1);
}
