//! More files than the log has: what was put back under another name, or has got one.

use std::fs;
use std::path::Path;

use raftkeel::storage::StorageError;

use crate::alone::{files, filled};
use crate::{contents, expect, inspect, open, place, repair};

/// The name of the segment of this number, counted from 1.
fn name(path: &Path, number: usize) -> String {
    let file = &files(path, ".seg")[number - 1];
    file.file_name().unwrap().to_str().unwrap().to_owned()
}

fn entries(path: &Path) -> usize {
    open(path).unwrap().1.restored.entries.len()
}

/// It is refused with the file that is too much, and is whole without it.
fn refused(path: &Path, stray: &str, what: &str) {
    let before = contents(path);
    match open(path).err() {
        Some(StorageError::Corrupt {
            path: file,
            what: said,
            ..
        }) => {
            assert_eq!(path.join(stray), file, "{said}");
            assert!(said.contains(what), "{said}");
        }
        other => panic!("{other:?}"),
    }
    let (status, text) = repair(path, &["--accept-loss"]);
    assert_eq!(1, status);
    expect(&text, &["NOT REPAIRED", stray, "Nothing is lost by that"]);
    let (status, text) = inspect(path);
    assert_eq!(1, status);
    expect(&text, &["CANNOT BE OPENED", "do not delete it"]);
    assert!(before == contents(path), "it is left as it is");
    fs::remove_file(path.join(stray)).unwrap();
    assert_eq!(12, entries(path));
}

#[test]
fn of_two_files_of_one_number_the_right_one_is_not_accused() {
    // The copy is sorted before the segment of its number, and behind it.
    for (from, first) in [(3, 0), (3, 99), (2, 99), (4, 0)] {
        let path = place(&format!("double-{from}-{first}"));
        filled(&path);
        let right = name(&path, 3);
        let stray = format!("{}-{first:020}.seg", &right[..20]);
        let original = name(&path, from);
        fs::copy(path.join(&original), path.join(&stray)).unwrap();
        let (_, text) = inspect(&path);
        let holds = format!("it holds what is to be called {original}");
        expect(&text, &[&holds, "the same byte for byte. Move this one"]);
        refused(
            &path,
            &stray,
            "a copy of another segment under this one's number",
        );
    }
}

#[test]
fn of_two_files_of_one_number_the_damaged_one_is_not_said_to_be_wrong() {
    let path = place("double-damaged");
    filled(&path);
    let right = name(&path, 2);
    let copy = path.join(format!("{}-{:020}.seg", &right[..20], 99));
    fs::copy(path.join(&right), &copy).unwrap();
    let mut bytes = fs::read(path.join(&right)).unwrap();
    bytes[20] ^= 1;
    fs::write(path.join(&right), &bytes).unwrap();
    match open(&path).err() {
        Some(StorageError::Corrupt { what, .. }) => {
            assert!(what.starts_with("several files have the number"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    let (_, text) = inspect(&path);
    expect(&text, &["that file differs from it. Keep a copy of both"]);
    // As it says: the one that holds what the name says takes the place of the other.
    fs::rename(copy, path.join(right)).unwrap();
    assert_eq!(12, entries(&path));
}

#[test]
fn a_segment_that_was_renamed_is_recognized() {
    let path = place("renamed");
    filled(&path);
    let right = name(&path, 2);
    let wrong = format!("{}-{:020}.seg", &right[..20], 99);
    fs::rename(path.join(&right), path.join(&wrong)).unwrap();
    let (status, text) = inspect(&path);
    assert_eq!(1, status);
    let holds = format!("it holds what is to be called {right}");
    expect(&text, &[&holds, "no file is. Rename it"]);
    let (status, text) = repair(&path, &[]);
    assert_eq!(1, status);
    expect(&text, &["first see whether a new name helps"]);
    fs::rename(path.join(wrong), path.join(right)).unwrap();
    assert_eq!(12, entries(&path));
}

/// Nobody here gives a file such a name: it stays whatever becomes of the log.
#[test]
fn a_copy_that_no_segment_is_called_like_is_left_alone() {
    let path = place("copy");
    filled(&path);
    let right = name(&path, 2);
    let copies = [
        right.replace(".seg", " (copy).seg"),
        right.replace(".seg", ".old.seg"),
        format!("old-{right}"),
        format!("2-{}", &right[21..]),
    ];
    for copy in &copies {
        fs::copy(path.join(&right), path.join(copy)).unwrap();
    }
    let (status, text) = inspect(&path);
    assert_eq!(0, status);
    expect(&text, &["not raftkeel's, left alone: "]);
    assert_eq!(12, entries(&path));
    assert!(copies.iter().all(|copy| path.join(copy).exists()));
}
