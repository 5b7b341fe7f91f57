//! On a real file system: what is made, who may open it, and a process that is killed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use super::super::vfs::{Disk, Vfs};
use super::super::{Directory, meta};
use super::images::{draft, image, read_all};
use super::{INSTANCE, OPTIONS, identity};
use crate::core::{Entry, HardState, NodeId, Payload, Persist, Position, Token};
use crate::storage::{Identity, Opened, Storage, StorageError};

/// A path of its own for each test, removed at its end.
pub(super) struct Temp(pub(super) PathBuf);

impl Temp {
    fn new() -> Temp {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("raftkeel-dir-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Temp(path)
    }

    pub(super) fn made() -> Temp {
        let temp = Temp::new();
        Directory::create(&temp.0, &identity(), INSTANCE).unwrap();
        temp
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn open(path: &Path) -> Result<(Directory, Opened), StorageError> {
    Directory::open_with(path, &identity(), OPTIONS)
}

#[test]
fn a_log_that_ends_before_what_is_committed_has_lost_it() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    let mut persist = nth(1);
    persist.hard.as_mut().unwrap().commit = 2;
    write(&mut directory, persist);
    drop(directory);
    let (directory, opened) = open(&temp.0).unwrap();
    drop(directory);
    let (kept, lost) = (Position { index: 1, term: 1 }, opened.lost.unwrap());
    assert_eq!((kept, 1), (lost.kept, lost.claim.term));
    assert!(lost.claim.index >= 2, "{lost:?}");
    assert_eq!(Some(lost.claim), opened.restored.hard.claim);
    let (_, again) = open(&temp.0).unwrap();
    assert_eq!((again.lost, again.restored), (None, opened.restored));
}

/// Term `n`, a vote, and entry `n`.
pub(super) fn nth(n: u64) -> Persist {
    Persist {
        token: Token(n),
        hard: Some(HardState {
            term: n,
            vote: NodeId::new(n % 3 + 1),
            excluded: None,
            commit: n - 1,
            claim: None,
        }),
        reset: None,
        entries: vec![Entry {
            index: n,
            term: n,
            payload: Payload::Host(vec![n as u8; 700].into()),
        }],
    }
}

pub(super) fn write(directory: &mut Directory, persist: Persist) {
    let token = persist.token;
    directory.submit(persist);
    let completion = directory.poll().unwrap();
    assert_eq!(completion.token, token);
    completion.result.unwrap();
    assert!(directory.poll().is_none());
}

#[test]
fn what_was_written_is_there_again() {
    let temp = Temp::made();
    for opening in 0..4 {
        let (mut directory, opened) = open(&temp.0).unwrap();
        let before = opening * 5;
        assert_eq!(opened.incarnation as u64, opening + 1);
        assert_eq!(opened.instance, INSTANCE);
        assert_eq!(opened.restored.hard.term, before);
        let expected: Vec<Entry> = (1..=before).flat_map(|n| nth(n).entries).collect();
        assert_eq!(opened.restored.entries, expected);
        (before + 1..=before + 5).for_each(|n| write(&mut directory, nth(n)));
    }
}

#[test]
fn a_group_larger_than_a_segment_has_its_own() {
    let temp = Temp::made();
    let mut persist = nth(1);
    persist.entries[0].payload = Payload::Host(vec![0; 100_000].into());
    let (mut directory, _) = open(&temp.0).unwrap();
    write(&mut directory, persist.clone());
    write(&mut directory, nth(2));
    drop(directory);
    let (_, opened) = open(&temp.0).unwrap();
    assert_eq!(opened.restored.entries[0], persist.entries[0]);
    assert_eq!(opened.restored.entries.len(), 2);
}

#[test]
fn restarts_use_up_no_space() {
    let temp = Temp::made();
    let files = || fs::read_dir(&temp.0).unwrap().count();
    let (mut directory, _) = open(&temp.0).unwrap();
    write(&mut directory, nth(1));
    drop(directory);
    let before = files();
    for _ in 0..5 {
        open(&temp.0).unwrap();
    }
    assert_eq!(files(), before);
}

/// There is no path to it, as there is no descriptor for one in a host that has run out of them.
#[test]
fn a_directory_in_use_is_synced_without_being_opened_anew() {
    let temp = Temp::made();
    let aside = temp.0.with_extension("aside");
    let disk = Disk::new(&temp.0);
    disk.sync_dir().unwrap();
    fs::rename(&temp.0, &aside).unwrap();
    let synced = disk.sync_dir();
    fs::rename(&aside, &temp.0).unwrap();
    synced.unwrap();
}

#[test]
fn a_node_is_made_only_once() {
    let temp = Temp::made();
    let again = || Directory::create(&temp.0, &identity(), INSTANCE);
    assert!(matches!(again(), Err(StorageError::Exists { .. })));
    open(&temp.0).unwrap();
    fs::remove_file(temp.0.join(meta::NAME)).unwrap();
    assert!(matches!(again(), Err(StorageError::Exists { .. })));
    assert!(matches!(open(&temp.0), Err(StorageError::Corrupt { .. })));
}

#[test]
fn nothing_there_is_not_a_new_node() {
    let temp = Temp::new();
    assert!(matches!(open(&temp.0), Err(StorageError::Missing { .. })));
    assert!(!temp.0.exists());
    fs::create_dir(&temp.0).unwrap();
    assert!(matches!(open(&temp.0), Err(StorageError::Missing { .. })));
    assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 0, "left alone");
    // As after a crash during the making.
    fs::write(temp.0.join("prep-META"), b"half").unwrap();
    assert!(matches!(open(&temp.0), Err(StorageError::Missing { .. })));
    Directory::create(&temp.0, &identity(), INSTANCE).unwrap();
    open(&temp.0).unwrap();
}

#[test]
fn another_nodes_directory_is_refused() {
    let temp = Temp::made();
    let asked = Identity {
        node: NodeId::new(2).unwrap(),
        ..identity()
    };
    match Directory::open(&temp.0, &asked) {
        Err(StorageError::Foreign { found, .. }) => assert_eq!(found, identity()),
        _ => panic!("opened"),
    }
}

#[test]
fn a_second_opener_is_refused_while_the_first_lives() {
    let temp = Temp::made();
    let (first, _) = open(&temp.0).unwrap();
    assert!(matches!(open(&temp.0), Err(StorageError::Locked { .. })));
    drop(first);
    open(&temp.0).unwrap();
}

#[test]
#[should_panic(expected = "second vote")]
fn a_second_vote_is_a_bug_of_the_caller() {
    let temp = Temp::made();
    let (mut directory, _) = open(&temp.0).unwrap();
    write(&mut directory, nth(1));
    let mut second = nth(1);
    second.hard = second.hard.map(|hard| HardState {
        vote: NodeId::new(9),
        ..hard
    });
    directory.submit(second);
}

const VICTIM: &str = "KEEL_TEST_VICTIM_DIR";

/// The process that is killed: it says each number whose write was acknowledged, and takes a
/// snapshot of each tenth, in a thread, after which it trims its log.
#[test]
#[ignore = "started by a_killed_process_has_lost_nothing"]
fn victim() {
    let path = PathBuf::from(std::env::var_os(VICTIM).unwrap());
    let (mut directory, opened) = open(&path).unwrap();
    let restored = opened.restored;
    let last = restored.base.index + restored.entries.len() as u64;
    let mut saving = None;
    for n in last + 1..last + 100_000 {
        write(&mut directory, nth(n));
        say(&format!("acknowledged {n}"));
        if n % 10 != 0 {
            continue;
        }
        let saved: Option<JoinHandle<u64>> = saving.take();
        if let Some(saved) = saved {
            say(&format!("saved {}", saved.join().unwrap()));
            let index = directory.oldest_snapshot();
            let term = index;
            directory.trim(Position { index, term }).unwrap();
        }
        let mut writer = directory.write_snapshot(draft(n)).unwrap();
        saving = Some(thread::spawn(move || {
            writer.write(&image(n, 100_000)).unwrap();
            writer.finish().unwrap().last.index
        }));
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}").unwrap();
    out.flush().unwrap();
}

/// Starts a victim on the directory, lets it say so many lines, and kills it; the last numbers
/// that it acknowledged and saved.
fn kill_one(path: &Path, lines: usize) -> (u64, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("storage::dir::tests::disk::victim")
        .env(VICTIM, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Held until it is dead: it must not die of having nobody to speak to.
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let (mut acknowledged, mut saved) = (0, 0);
    let heard = said.by_ref().lines().map_while(Result::ok);
    for line in heard.take(lines) {
        if let Some((_, n)) = line.split_once("acknowledged ") {
            acknowledged = n.parse().unwrap();
        } else if let Some((_, n)) = line.split_once("saved ") {
            saved = n.parse().unwrap();
        }
    }
    assert!(matches!(open(path), Err(StorageError::Locked { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    (acknowledged, saved)
}

#[test]
fn a_killed_process_has_lost_nothing() {
    let temp = Temp::new();
    Directory::create(&temp.0, &identity(), INSTANCE).unwrap();
    for round in 0..6 {
        let (acknowledged, saved) = kill_one(&temp.0, 60 + round);
        let (mut directory, opened) = open(&temp.0).unwrap();
        let restored = opened.restored;
        let first = restored.base.index + 1;
        let found = restored.base.index + restored.entries.len() as u64;
        assert!(found >= acknowledged && acknowledged > 30);
        let expected: Vec<Entry> = (first..=found).flat_map(|n| nth(n).entries).collect();
        assert_eq!(restored.entries, expected);
        assert!(restored.hard.term >= found);
        let snapshot = restored.snapshot.unwrap();
        assert!(snapshot.last.index >= saved && saved > 0);
        assert!(first <= directory.oldest_snapshot() + 1);
        let mut reader = directory.read_snapshot(&snapshot).unwrap();
        let read = read_all(&mut *reader).unwrap();
        assert!(read == image(snapshot.last.index, 100_000));
    }
    let (_, opened) = open(&temp.0).unwrap();
    assert!(opened.restored.base.index > 0, "nothing was trimmed");
}
