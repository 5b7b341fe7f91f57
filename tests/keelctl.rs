//! keelctl as an administrator uses it: what it prints and how it exits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use raftkeel::core::{Entry, HardState, NodeId, Payload, Persist, Token};
use raftkeel::storage::{Directory, Identity, Storage};

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

/// Ten entries in two terms.
fn filled(path: &Path) -> Directory {
    Directory::create(path, &IDENTITY, 0xabc).unwrap();
    let (mut directory, _) = Directory::open(path, &IDENTITY).unwrap();
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
                payload: Payload::Host(vec![index as u8; 1000].into()),
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
