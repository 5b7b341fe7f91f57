//! The life that a golden directory has seen, and what is found of it, in words.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use raftkeel::core::{
    Bytes, Configuration, Entry, Exclusion, HardState, NodeId, Payload, Persist, Position,
    Snapshot, Token,
};
use raftkeel::storage::{Directory, Draft, Identity, Opened, Options, SnapshotReader, Storage};

/// Where the two images of the node's own end, and how large they are.
const IMAGES: [(u64, usize); 2] = [(6, 1000), (9, 70_000)];
/// The leader's, of which only a part has come.
const RECEIVED: (u64, usize) = (40, 5000);
const RECEIVED_SO_FAR: usize = 3000;

pub fn identity() -> Identity {
    Identity {
        cluster: 42,
        node: NodeId::new(3).unwrap(),
    }
}

fn configuration(epoch: u64, learners: &[u64]) -> Configuration {
    Configuration {
        epoch,
        voters: (1..=3).filter_map(NodeId::new).collect(),
        learners: learners.iter().filter_map(|id| NodeId::new(*id)).collect(),
        ..Configuration::default()
    }
}

/// Bytes that another length has too.
fn bytes(from: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (from.wrapping_mul(251) + at * at / 3) as u8)
        .collect()
}

pub fn host(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        payload: Payload::Host(bytes(index, 100 * index as usize).into()),
    }
}

fn term_of(index: u64) -> u64 {
    if index < 8 { 1 } else { 4 }
}

fn snapshot(index: u64, size: usize) -> Snapshot {
    let image = bytes(index, size);
    draft(index).finished(size as u64, crc32fast::hash(&image))
}

fn draft(index: u64) -> Draft {
    Draft {
        last: Position {
            index,
            term: term_of(index),
        },
        config: Arc::new(configuration(1, &[])),
        config_index: 1,
        pieces: None,
    }
}

/// Writes, and waits until it is durable.
pub fn persist(directory: &mut Directory, hard: Option<HardState>, entries: Vec<Entry>) {
    directory.submit(Persist {
        token: Token(1),
        hard,
        reset: None,
        entries,
    });
    loop {
        match directory.poll() {
            Some(completion) => return completion.result.unwrap(),
            None => thread::yield_now(),
        }
    }
}

fn save(directory: &mut Directory, (index, size): (u64, usize)) {
    let mut writer = directory.write_snapshot(draft(index)).unwrap();
    writer.write(&bytes(index, size)).unwrap();
    assert_eq!(writer.finish().unwrap(), snapshot(index, size));
}

fn voted(term: u64, vote: u64) -> HardState {
    HardState {
        term,
        vote: NodeId::new(vote),
        ..HardState::default()
    }
}

/// One entry of each kind that is not the host's.
fn others(first: u64, term: u64, config: Configuration) -> Vec<Entry> {
    let payloads = [
        Payload::Config(Arc::new(config), Bytes::from(&b"cause"[..])),
        Payload::Noop,
        Payload::Cluster(Bytes::from(&b"a command to the cluster"[..])),
    ];
    let payloads = (first..).zip(payloads);
    payloads
        .map(|(index, payload)| Entry {
            index,
            term,
            payload,
        })
        .collect()
}

fn first_life(directory: &mut Directory) {
    let founded = others(1, 1, configuration(1, &[]));
    persist(directory, Some(voted(1, 2)), founded);
    // The tail of a leader that was not followed: from 8 on something else will be there.
    for index in 4..=10 {
        persist(directory, None, vec![host(index, 1)]);
    }
}

fn second_life(directory: &mut Directory) {
    let replaced = (8..=9).map(|index| host(index, 4)).collect();
    persist(directory, Some(voted(4, 0)), replaced);
    persist(directory, None, vec![host(10, 4), host(11, 4)]);
    for image in IMAGES {
        save(directory, image);
    }
    let (index, term) = (IMAGES[0].0, term_of(IMAGES[0].0));
    directory.trim(Position { index, term }).unwrap();
    for entry in others(12, 4, configuration(2, &[4])) {
        persist(directory, None, vec![entry]);
    }
    persist(directory, None, vec![host(15, 4)]);
    let last = HardState {
        excluded: Some(Exclusion { epoch: 7, index: 6 }),
        commit: 12,
        ..voted(5, 1)
    };
    persist(directory, Some(last), vec![host(16, 5)]);
    let received = snapshot(RECEIVED.0, RECEIVED.1);
    let image = bytes(RECEIVED.0, RECEIVED.1);
    let piece = &image[..RECEIVED_SO_FAR];
    directory.store_piece(&received, 0, piece).unwrap();
}

/// Makes a directory that has seen two runs.
pub fn tell(path: &Path, options: Options) {
    Directory::create(path, &identity(), 0x1234).unwrap();
    for life in [first_life, second_life] {
        let (mut directory, _) = Directory::open_with(path, &identity(), options).unwrap();
        life(&mut directory);
    }
}

/// Everything that the opening found and that can be read. Openings count themselves: `earlier`
/// ones were not there when this was written down.
pub fn describe(directory: &mut Directory, opened: &Opened, earlier: u32) -> String {
    let mut text = String::new();
    let restored = &opened.restored;
    let hard = &restored.hard;
    let incarnation = opened.incarnation - earlier;
    let _ = writeln!(
        text,
        "instance {:#x} incarnation {incarnation}",
        opened.instance
    );
    let vote = NodeId::raw(hard.vote);
    let _ = writeln!(
        text,
        "term {} vote {vote} commit {}",
        hard.term, hard.commit
    );
    if let Some(Exclusion { epoch, index }) = hard.excluded {
        let _ = writeln!(text, "excluded in epoch {epoch} at {index}");
    }
    let base = restored.base;
    let _ = writeln!(text, "log behind {} term {}", base.index, base.term);
    assert!(restored.outline.is_none(), "all of it was asked for");
    for entry in &restored.entries {
        let (index, term) = (entry.index, entry.term);
        let _ = writeln!(
            text,
            "entry {index} term {term} {}",
            payload(&entry.payload)
        );
    }
    let last = base.index + restored.entries.len() as u64;
    let fetched = directory.fetch(base.index + 1, last, usize::MAX).unwrap();
    assert_eq!(fetched, restored.entries, "what is read later is the same");
    let _ = writeln!(text, "oldest image {}", directory.oldest_snapshot());
    if let Some(newest) = &restored.snapshot {
        let _ = writeln!(text, "newest: {}", words(newest));
    }
    for (index, size) in IMAGES {
        let mut reader = directory.read_snapshot(&snapshot(index, size)).unwrap();
        let image = read_all(&mut *reader);
        let crc = crc32fast::hash(&image);
        let _ = writeln!(text, "image {index} bytes {} crc {crc:08x}", image.len());
    }
    if let Some((snapshot, stored)) = &restored.partial {
        let _ = writeln!(text, "received {stored} of: {}", words(snapshot));
    }
    text
}

fn words(snapshot: &Snapshot) -> String {
    let Snapshot { last, config, .. } = snapshot;
    let of = format!("index {} term {}", last.index, last.term);
    let size = format!("bytes {} crc {:08x}", snapshot.size, snapshot.crc);
    let at = snapshot.config_index;
    assert_eq!(snapshot.pieces, None);
    format!("{of}, {size}, {} at {at}", members(config))
}

fn members(config: &Configuration) -> String {
    let ids = |ids: &[NodeId]| {
        let ids: Vec<String> = ids.iter().map(|id| id.get().to_string()).collect();
        ids.join(" ")
    };
    assert!(!config.is_joint());
    let (voters, learners) = (ids(&config.voters), ids(&config.learners));
    let epoch = config.epoch;
    format!("epoch {epoch} voters [{voters}] learners [{learners}]")
}

fn payload(payload: &Payload) -> String {
    let data = |kind, data: &[u8]| {
        let crc = crc32fast::hash(data);
        format!("{kind} bytes {} crc {crc:08x}", data.len())
    };
    match payload {
        Payload::Noop => "no-op".to_owned(),
        Payload::Host(bytes) => data("host", bytes),
        Payload::Cluster(bytes) => data("cluster", bytes),
        Payload::Config(config, cause) => {
            format!("config {}, {}", members(config), data("for", cause))
        }
    }
}

fn read_all(reader: &mut dyn SnapshotReader) -> Vec<u8> {
    let (mut image, mut buf) = (Vec::new(), vec![0; 10_007]);
    loop {
        match reader.read_at(image.len() as u64, &mut buf).unwrap() {
            0 => return image,
            len => image.extend_from_slice(&buf[..len]),
        }
    }
}
