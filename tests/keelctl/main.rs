//! keelctl as an administrator uses it: what it prints and how it exits.

mod alone;
mod doubles;
mod files;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use raftkeel::core::{Configuration, Entry, HardState, NodeId, Payload, Persist, Position, Token};
use raftkeel::storage::{Directory, Draft, Identity, Opened, Storage, StorageError};

const IDENTITY: Identity = Identity {
    cluster: 77,
    node: NodeId::new(3).unwrap(),
};

fn keelctl(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keelctl"));
    command.args(arguments).output().unwrap()
}

fn inspect(path: &Path) -> (i32, String) {
    let output = keelctl(&["inspect", path.to_str().unwrap()]);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    println!("{text}");
    (output.status.code().unwrap(), text)
}

/// A fresh place for a directory.
fn place(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keelctl-{name}"));
    let _ = fs::remove_dir_all(&path);
    path
}

fn open(path: &Path) -> Result<(Directory, Opened), StorageError> {
    Directory::open(path, &IDENTITY)
}

/// Ten entries in two terms.
fn filled(path: &Path) -> Directory {
    filled_with(path, |index| Payload::Host(vec![index as u8; 1000].into()))
}

fn filled_with(path: &Path, payload: impl Fn(u64) -> Payload) -> Directory {
    Directory::create(path, &IDENTITY, 0xabc).unwrap();
    let (mut directory, _) = open(path).unwrap();
    for index in 1..=10 {
        let term = 1 + index / 6;
        directory.submit(Persist {
            token: Token(index),
            hard: Some(HardState {
                term,
                vote: NodeId::new(2),
                commit: index - 1,
                excluded: None,
                claim: None,
            }),
            reset: None,
            entries: vec![Entry {
                index,
                term,
                payload: payload(index),
            }],
        });
        directory.poll().unwrap().result.unwrap();
    }
    directory
}

fn segment(path: &Path) -> PathBuf {
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let mut segments = files.filter(|file| file.extension().is_some_and(|e| e == "seg"));
    segments.next().unwrap()
}

fn expect(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not said");
    }
}

#[test]
fn a_sound_directory_is_explained() {
    let path = place("sound");
    drop(filled(&path));
    let (status, text) = inspect(&path);
    assert_eq!(0, status);
    expect(
        &text,
        &[
            "node 3 of cluster 77, instance 0000000000000abc, opened 1 time\n",
            "term 2, voted for node 2\n",
            "committed up to index 9 at least",
            "indexes 1 to 10, terms 1 to 2, 10 writes",
            "snapshots: none",
            "CAN BE OPENED: the log begins behind index 0 and ends at index 10 of term 2.",
        ],
    );
    assert!(!text.contains("in use"));
}

#[test]
fn one_that_is_in_use_is_explained_too() {
    let path = place("in-use");
    let directory = filled(&path);
    let (status, text) = inspect(&path);
    assert_eq!(0, status);
    expect(
        &text,
        &[&format!("in use by process {}:", std::process::id())],
    );
    drop(directory);
}

#[test]
fn damage_is_named_with_its_place_and_what_to_do() {
    let path = place("damaged");
    drop(filled(&path));
    let file = segment(&path);
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096 * 5 + 100] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (status, text) = inspect(&path);
    assert_eq!(1, status);
    expect(
        &text,
        &[
            "9 writes",
            "NOT WHOLE: 4.00 KiB at offset 20480, where index 5 belongs: wrong checksum of a group",
            "CAN BE OPENED, BUT ENTRIES ARE LOST: ",
            "wrong checksum of a group at offset 20480 (log index 5)",
            "ends at index 4 of term 1; it may have held entries up to index 10 of term 2 at most",
            "until the leader has sent it again",
        ],
    );
}

/// Damages the write of entry 5.
fn harm(path: &Path) {
    let file = segment(path);
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096 * 5 + 100] ^= 1;
    fs::write(&file, bytes).unwrap();
}

fn repair(path: &Path, options: &[&str]) -> (i32, String) {
    let mut arguments = vec!["repair", path.to_str().unwrap()];
    arguments.extend(options);
    let output = keelctl(&arguments);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    println!("{text}");
    (output.status.code().unwrap(), text)
}

/// All files but the lock, which looking may make.
fn contents(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|file| !file.ends_with("LOCK"));
    let mut files: Vec<_> = files.map(|f| (f.clone(), fs::read(f).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn what_a_repair_would_drop_is_told_and_nothing_is_changed() {
    let path = place("repair-plan");
    drop(filled(&path));
    harm(&path);
    let before = contents(&path);
    let (status, text) = repair(&path, &[]);
    assert_eq!((1, true), (status, before == contents(&path)));
    expect(
        &text,
        &[
            "wrong checksum of a group at offset 20480 (log index 5)",
            "the log would be cut: it begins behind index 0 and ends at index 4 of term 1",
            "it may have held entries up to index 10 of term 2 at most",
            ": 24.0 KiB from offset 20480 on would be dropped",
            "5 entries in there can still be read: indexes 6 to 10",
            "what clients were told\nwas done may be undone",
            "NOTHING WAS CHANGED.",
            "--accept-loss",
        ],
    );
}

#[test]
fn what_a_repair_drops_is_written_down_first() {
    let path = place("repair");
    drop(filled(&path));
    harm(&path);
    let dropped = fs::read(segment(&path)).unwrap()[4096 * 5..4096 * 11].to_vec();
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(0, status);
    expect(
        &text,
        &[
            "the log was cut",
            "DONE.",
            "all of that is in ",
            "lost-0000000002",
        ],
    );
    let saved = fs::read(path.join("lost-0000000002")).unwrap();
    let holds = |part: &[u8]| saved.windows(part.len()).any(|window| window == part);
    assert!(saved.starts_with(b"keelctl repair 1\nregion "));
    assert!(holds(&dropped) && holds(b"\nentry 6 2 ") && holds(&[10; 1000]));
    assert!(!holds(b"\nentry 5 "));

    let (directory, opened) = open(&path).unwrap();
    drop(directory);
    let found = opened.restored;
    assert_eq!((4, None), (found.entries.len(), opened.lost));
    let hard = found.hard;
    assert_eq!(
        (2, NodeId::new(2), None),
        (hard.term, hard.vote, hard.claim)
    );
    let (status, text) = inspect(&path);
    assert_eq!(0, status);
    expect(
        &text,
        &["CAN BE OPENED: the log begins behind index 0 and ends at index 4"],
    );
    assert!(!text.contains("not raftkeel's"));
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(0, status);
    expect(&text, &["nothing to repair"]);
}

#[test]
fn what_is_dropped_goes_where_it_is_wished() {
    let path = place("repair-save");
    drop(filled(&path));
    harm(&path);
    let before = contents(&path);
    let file = place("repair-saved");
    let _ = fs::remove_file(&file);
    fs::write(&file, "mine").unwrap();
    let to = file.to_str().unwrap();
    let (status, text) = repair(&path, &["--save", to, "--accept-loss"]);
    assert_eq!((2, true), (status, before == contents(&path)), "{text}");
    assert_eq!("mine", fs::read_to_string(&file).unwrap());
    fs::remove_file(&file).unwrap();
    assert_eq!(0, repair(&path, &["--accept-loss", "--save", to]).0);
    assert!(fs::read(&file).unwrap().starts_with(b"keelctl repair 1\n"));
}

/// The process ended when the file was there, or a part of it, and nothing else was done yet.
#[test]
fn a_repair_that_was_cut_short_can_be_done_again() {
    let path = place("repair-again");
    let file = place("repair-again-saved");
    let _ = fs::remove_file(&file);
    drop(filled(&path));
    harm(&path);
    let before = contents(&path);
    let options = ["--accept-loss", "--save", file.to_str().unwrap()];
    assert_eq!(0, repair(&path, &options).0);
    let saved = fs::read(&file).unwrap();
    let restore = || {
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        for (name, data) in &before {
            fs::write(path.join(name), data).unwrap();
        }
    };
    for len in [saved.len(), saved.len() - 1, saved.len() / 2, 0] {
        restore();
        fs::write(&file, &saved[..len]).unwrap();
        assert_eq!(0, repair(&path, &options).0, "{len}");
        assert_eq!(saved, fs::read(&file).unwrap());
    }
    // What is not the beginning of it stays as it is.
    for other in [&[&saved[..], b"more"].concat()[..], b"keelctl repair 2"] {
        restore();
        fs::write(&file, other).unwrap();
        assert_eq!(2, repair(&path, &options).0);
        assert_eq!(other, fs::read(&file).unwrap());
        let beside = path.join("lost-0000000002");
        fs::write(&beside, other).unwrap();
        let (status, text) = repair(&path, &["--accept-loss"]);
        assert_eq!(0, status, "{text}");
        expect(&text, &["lost-0000000002-2"]);
        assert_eq!(other, fs::read(&beside).unwrap());
        assert_eq!(saved, fs::read(path.join("lost-0000000002-2")).unwrap());
    }
}

#[test]
fn a_directory_that_is_in_use_is_not_repaired() {
    let path = place("repair-in-use");
    let directory = filled(&path);
    harm(&path);
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(2, status);
    expect(&text, &["in use by another engine"]);
    drop(directory);
}

#[test]
fn a_claim_of_an_earlier_opening_is_given_up() {
    let path = place("repair-claim");
    drop(filled(&path));
    harm(&path);
    let (directory, opened) = open(&path).unwrap();
    assert!(opened.lost.is_some() && opened.restored.hard.claim.is_some());
    drop(directory);
    let (status, text) = inspect(&path);
    assert_eq!(1, status);
    expect(
        &text,
        &["its log has lost entries, up to index 10 of term 2 at most"],
    );
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(0, status);
    expect(
        &text,
        &["an opening has found it", "ends at index 4 of term 1"],
    );
    let (_, opened) = open(&path).unwrap();
    assert_eq!(None, opened.restored.hard.claim);
    assert_eq!(0, inspect(&path).0);
}

#[test]
fn the_only_node_opens_after_a_repair_and_not_before() {
    let path = place("repair-only");
    let config = Configuration {
        epoch: 1,
        voters: vec![IDENTITY.node],
        ..Configuration::default()
    };
    drop(filled_with(&path, |index| match index {
        1 => Payload::Config(Arc::new(config.clone()), Vec::new().into()),
        _ => Payload::Host(vec![index as u8; 1000].into()),
    }));
    harm(&path);
    let (status, text) = inspect(&path);
    assert_eq!(1, status);
    expect(
        &text,
        &[
            "CANNOT BE OPENED",
            "By the configuration that is left this node votes alone",
            "says what could be kept of it",
        ],
    );
    assert!(open(&path).is_err());
    let (_, text) = repair(&path, &[]);
    expect(
        &text,
        &["n3 votes alone. IF THE CLUSTER HAS MORE VOTERS, DO\nNOT USE IT"],
    );
    assert_eq!(0, repair(&path, &["--accept-loss"]).0);
    let (_, opened) = open(&path).unwrap();
    assert_eq!((4, None), (opened.restored.entries.len(), opened.lost));
}

/// With the beginning of its log it has lost who the members are; nobody deletes the log if it is found.
#[test]
fn a_log_that_is_found_after_a_repair_is_kept() {
    let path = place("repair-found");
    drop(filled(&path));
    let file = segment(&path);
    let log = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let (status, text) = inspect(&path);
    assert_eq!(1, status);
    expect(
        &text,
        &[
            "00000000000000000001-*.seg: ",
            "the newest segment is missing",
        ],
    );
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(0, status);
    expect(&text, &["cannot be bootstrapped, for it has voted"]);
    fs::write(&file, &log).unwrap();
    let (_, text) = inspect(&path);
    expect(&text, &["sets it\n    aside, where none has"]);
    let (_, opened) = open(&path).unwrap();
    assert!(opened.restored.entries.is_empty());
    drop(open(&path).unwrap());
    let kept = contents(&path).into_iter().find(|(_, data)| *data == log);
    let kept = kept.unwrap().0;
    let name = kept.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("lost-"), "{name}");
}

#[test]
fn a_lost_meta_is_named() {
    let path = place("no-meta");
    drop(filled(&path));
    fs::remove_file(path.join("META")).unwrap();
    let (status, text) = inspect(&path);
    assert_eq!(1, status);
    expect(
        &text,
        &[
            "CANNOT BE OPENED: ",
            "META is missing, the log is not",
            "10 writes",
        ],
    );
}

#[test]
fn what_is_no_directory_is_no_success() {
    let path = place("nothing");
    let (status, text) = inspect(&path);
    assert_eq!(2, status);
    expect(&text, &["keelctl: ", "no node here"]);
    fs::create_dir(&path).unwrap();
    assert_eq!(2, inspect(&path).0);
}

#[test]
fn usage_is_told() {
    for wrong in [
        &[][..],
        &["inspect"],
        &["inspect", "a", "b"],
        &["frobnicate"],
        &["repair"],
        &["repair", "a", "b"],
        &["repair", "a", "--save"],
        &["repair", "a", "--force"],
        &["extract", "a"],
        &["extract", "a", "first"],
    ] {
        let output = keelctl(wrong);
        assert_eq!(Some(2), output.status.code());
        expect(&String::from_utf8(output.stderr).unwrap(), &["usage:"]);
    }
    let output = keelctl(&["--help"]);
    assert_eq!(Some(0), output.status.code());
    expect(&String::from_utf8(output.stdout).unwrap(), &["usage:"]);
    let output = keelctl(&["--version"]);
    expect(
        &String::from_utf8(output.stdout).unwrap(),
        &[env!("CARGO_PKG_VERSION")],
    );
}

/// A snapshot that holds a part of it is not in its place.
#[test]
fn a_log_that_is_found_after_a_repair_is_kept_beside_an_older_snapshot() {
    let path = place("repair-found-snapshot");
    let mut directory = filled(&path);
    let config = Configuration {
        epoch: 1,
        voters: vec![NodeId::new(2).unwrap(), IDENTITY.node],
        ..Configuration::default()
    };
    let draft = Draft {
        last: Position { index: 4, term: 1 },
        config: Arc::new(config),
        config_index: 1,
        pieces: None,
    };
    let mut writer = directory.write_snapshot(draft).unwrap();
    writer.write(b"state").unwrap();
    writer.finish().unwrap();
    drop(directory);
    let file = segment(&path);
    let log = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(0, repair(&path, &["--accept-loss"]).0);
    fs::write(&file, &log).unwrap();
    drop(open(&path).unwrap());
    let kept = contents(&path).into_iter().find(|(_, data)| *data == log);
    assert!(kept.is_some(), "no snapshot has entries 5 to 10");
}
