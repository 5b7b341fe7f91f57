//! Directories that earlier versions wrote, kept for good: every later one must find in them what is
//! written down beside them, and say it if it cannot read them.
//!
//! A directory of this format is made anew, and what it holds is written beside it, with
//!
//! ```text
//! RAFTKEEL_GOLDEN=tests/golden/FORMAT cargo test --test golden -- --ignored write_a_directory
//! ```
//!
//! That is for a new format version only: what is there already is never written again.

mod story;

use std::path::{Path, PathBuf};
use std::{env, fs};

use raftkeel::storage::{Directory, Opened, Options, StorageError};

use story::{describe, identity, tell};

const PAGE: usize = 4096;
/// Where magic, checksum and version keep their places in every format.
const CHECKSUM: usize = 8;
const COVERED: usize = 12;
const INCOMPAT: usize = 16;
const COMPAT: usize = 20;
/// The slots of META.
const SLOTS: [usize; 2] = [0, 64 * 1024];

/// A copy that goes away with the value.
struct Copy(PathBuf);

impl Copy {
    fn of(golden: &Path, name: &str) -> Copy {
        let to = env::temp_dir().join(format!("keel-golden-{}-{name}", std::process::id()));
        fs::create_dir(&to).unwrap();
        let copy = Copy(to);
        for file in fs::read_dir(golden.join("directory")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.0.join(file.file_name())).unwrap();
        }
        copy
    }

    fn open(&self) -> Result<(Directory, Opened), StorageError> {
        Directory::open_with(&self.0, &identity(), options())
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        names
            .map(|name| name.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "LOCK")
            .collect()
    }

    /// Changes the sealed pages at these places, and makes their checksums right again.
    fn patch(&self, name: &str, pages: &[usize], change: impl Fn(&mut [u8])) {
        let path = self.0.join(name);
        let mut data = fs::read(&path).unwrap();
        for at in pages {
            let page = &mut data[*at..at + PAGE];
            change(page);
            let crc = crc32fast::hash(&page[COVERED..]);
            page[CHECKSUM..COVERED].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(path, data).unwrap();
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options() -> Options {
    Options {
        segment_bytes: 16 * 1024,
        ..Options::default()
    }
}

/// Every directory that is kept.
fn golden() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let paths = fs::read_dir(all)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = paths.filter(|p| p.join("expected.txt").exists()).collect();
    found.sort();
    assert!(!found.is_empty(), "none is kept");
    found
}

fn pages_of(name: &str) -> &'static [usize] {
    if name == "META" { &SLOTS } else { &SLOTS[..1] }
}

#[test]
fn what_earlier_versions_wrote_is_found() {
    for golden in golden() {
        let expected = fs::read_to_string(golden.join("expected.txt")).unwrap();
        let copy = Copy::of(&golden, "found");
        for earlier in 0..3 {
            let (mut directory, opened) = copy.open().unwrap();
            let found = describe(&mut directory, &opened, earlier);
            assert_eq!(found, expected, "{golden:?}, opening {earlier}");
            assert!(!opened.meta_repaired && opened.torn_bytes == 0);
            assert!(opened.damaged.is_empty());
        }
    }
}

#[test]
fn it_is_nobody_elses() {
    for golden in golden() {
        let copy = Copy::of(&golden, "foreign");
        let mut asked = identity();
        asked.cluster += 1;
        match Directory::open(&copy.0, &asked) {
            Err(StorageError::Foreign { found, .. }) => assert_eq!(found, identity()),
            Err(error) => panic!("{golden:?}: {error}"),
            Ok(_) => panic!("{golden:?}: opened for another cluster"),
        }
    }
}

#[test]
fn what_earlier_versions_wrote_is_gone_on_with() {
    for golden in golden() {
        let copy = Copy::of(&golden, "on");
        let (mut directory, opened) = copy.open().unwrap();
        let mut entries = opened.restored.entries;
        let next = story::host(
            entries[entries.len() - 1].index + 1,
            opened.restored.hard.term,
        );
        story::persist(&mut directory, None, vec![next.clone()]);
        entries.push(next);
        drop(directory);
        let (_, opened) = copy.open().unwrap();
        assert_eq!(opened.restored.entries, entries, "{golden:?}");
    }
}

#[test]
fn a_feature_that_nobody_knows_yet_is_refused_by_its_name() {
    for golden in golden() {
        let files = Copy::of(&golden, "files").files();
        for name in &files {
            let copy = Copy::of(&golden, "newer");
            copy.patch(name, pages_of(name), |page| page[INCOMPAT + 3] |= 0x40);
            match copy.open() {
                Err(StorageError::Version { path, found }) => {
                    assert_eq!((path, found), (copy.0.join(name), 0x4000_0000));
                }
                // The leader sends it again.
                Ok((_, opened)) if name == "recv.part" => {
                    assert_eq!(opened.restored.partial, None);
                }
                Ok(_) => panic!("{golden:?}, {name}: it was passed over"),
                Err(error) => panic!("{golden:?}, {name}: {error}"),
            }
        }
        assert!(files.len() >= 7, "META, segments, images, a part of one");
    }
}

#[test]
fn a_feature_that_may_be_ignored_is() {
    for golden in golden() {
        let expected = fs::read_to_string(golden.join("expected.txt")).unwrap();
        let copy = Copy::of(&golden, "compatible");
        for name in copy.files() {
            copy.patch(&name, pages_of(&name), |page| page[COMPAT + 3] |= 0x40);
        }
        let (mut directory, opened) = copy.open().unwrap();
        assert_eq!(describe(&mut directory, &opened, 0), expected);
    }
}

#[test]
#[ignore = "makes one: see above"]
fn write_a_directory() {
    let Some(golden) = env::var_os("RAFTKEEL_GOLDEN").map(PathBuf::from) else {
        panic!("RAFTKEEL_GOLDEN is where");
    };
    fs::create_dir(&golden).unwrap();
    let kept = golden.join("directory");
    tell(&kept, options());
    let _ = fs::remove_file(kept.join("LOCK"));
    let copy = Copy::of(&golden, "written");
    let (mut directory, opened) = copy.open().unwrap();
    let expected = describe(&mut directory, &opened, 0);
    fs::write(golden.join("expected.txt"), expected).unwrap();
}
