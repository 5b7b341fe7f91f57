//! What a damaged start and a repair leave behind, each file by itself.

use std::fs;
use std::path::{Path, PathBuf};

use crate::alone::{files, filled};
use crate::{expect, harm, keelctl, open, place, repair};

fn inspect(file: &Path) -> (i32, String) {
    crate::inspect(file)
}

fn extract(file: &Path, index: u64) -> (i32, Vec<u8>) {
    let output = keelctl(&["extract", file.to_str().unwrap(), &index.to_string()]);
    (output.status.code().unwrap(), output.stdout)
}

/// A log whose second segment of four is damaged, and what a repair has made of it.
fn repaired(name: &str) -> (PathBuf, PathBuf) {
    let path = place(name);
    filled(&path);
    let second = files(&path, ".seg").remove(1);
    let mut bytes = fs::read(&second).unwrap();
    bytes[4096 + 100] ^= 1;
    fs::write(&second, bytes).unwrap();
    assert_eq!(0, repair(&path, &["--accept-loss"]).0);
    let saved = path.join("lost-0000000002");
    (path, saved)
}

#[test]
fn what_a_repair_has_dropped_is_explained() {
    let (path, saved) = repaired("files-saved");
    let (status, text) = inspect(&saved);
    assert_eq!(0, status);
    expect(
        &text,
        &[
            "written by a repair before it dropped",
            "what a repair has dropped: 3 parts of files",
            "00000000000000000002-00000000000000000004.seg: 12.0 KiB from offset 4096 on",
            "    indexes 5 to 6, terms 1 to 2: 2 entries, of which 2 commands of the daemon, 5.86 KiB",
            "    indexes 7 to 9, term 2: 3 entries",
            "    indexes 10 to 12, terms 2 to 3: 3 entries",
        ],
    );
    assert_eq!((0, vec![9; 3000]), extract(&saved, 9));
    assert_eq!((1, Vec::new()), extract(&saved, 4), "it was damaged");
    let (status, text) = crate::inspect(&path);
    assert_eq!(0, status);
    expect(
        &text,
        &["taken out of the log by a repair", "lost-0000000002"],
    );
}

/// Wherever it ends, it is said that it does; and no byte of it is taken for another.
#[test]
fn one_that_was_cut_short_is_not_taken_for_whole() {
    let (_, saved) = repaired("files-cut");
    let bytes = fs::read(&saved).unwrap();
    let cut = saved.with_file_name("lost-cut");
    let last = bytes.len();
    let parts = bytes.windows(8).enumerate();
    let parts = parts.filter(|(_, bytes)| bytes == b"\nregion ");
    let boundaries = parts.map(|(at, _)| at + 1).chain([last - 4]);
    let inside = [
        18,
        60,
        4096,
        5000,
        last / 2,
        last - 3001,
        last - 100,
        last - 1,
    ];
    for len in boundaries.chain(inside) {
        fs::write(&cut, &bytes[..len]).unwrap();
        let (status, text) = inspect(&cut);
        assert_eq!(
            (1, true),
            (status, text.contains("IT ENDS TOO SOON")),
            "{len}"
        );
    }
    for at in [18, 40] {
        let mut other = bytes.clone();
        other[at] = b'?';
        fs::write(&cut, &other).unwrap();
        let (status, text) = inspect(&cut);
        assert!(status != 0 || !text.contains("00000000000000000002-00000000000000000004.seg"));
    }
}

#[test]
fn a_segment_that_was_set_aside_or_kept_is_explained() {
    let path = place("files-aside");
    drop(crate::filled(&path));
    let segment = files(&path, ".seg").remove(0);
    let bytes = fs::read(&segment).unwrap();
    harm(&path);
    for (name, whence) in [
        (
            "lost-0000000002-x.seg.aside",
            "set aside by an opening that found it behind damage",
        ),
        (
            "lost-0000000002-x.seg.found",
            "put back when the log had gone on without it",
        ),
        ("elsewhere", "a file by itself"),
    ] {
        let file = path.join(name);
        fs::write(&file, &bytes).unwrap();
        let (status, text) = inspect(&file);
        assert_eq!(0, status);
        expect(
            &text,
            &[
                whence,
                "segment of the log of node 3 of cluster 77, instance 0000000000000abc, made in opening 1",
                "it is called 00000000000000000001-00000000000000000001.seg",
                "indexes 1 to 10, terms 1 to 2",
                "keelctl extract ",
            ],
        );
        assert_eq!((0, vec![7; 1000]), extract(&file, 7));
        assert_eq!(1, extract(&file, 11).0);
    }
    let (status, text) = inspect(&segment);
    assert_eq!(1, status);
    expect(&text, &["NOT WHOLE: ", "where index 5 belongs"]);
    let (status, text) = inspect(&path.join("META"));
    assert_eq!(0, status);
    expect(&text, &["node 3 of cluster 77", "term 2, voted for node 2"]);
    assert_eq!(1, inspect(&path.join("LOCK")).0);
    assert!(open(&path).unwrap().1.lost.is_some());
}
