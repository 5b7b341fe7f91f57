//! The corpus that fuzzing has left, and mutations of it: what every run of the tests tries again.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::rng::Rng;

/// Where the corpus of a target lies.
pub fn corpus_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

/// Every file of a target's corpus, by name.
pub fn read(target: &str) -> Vec<Vec<u8>> {
    let dir = corpus_of(target);
    let files = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = files.map(|f| f.expect("readable").path()).collect();
    paths.sort();
    let contents = paths.iter().map(|p| std::fs::read(p).expect("readable"));
    contents.collect()
}

/// Runs a target with all of its corpus, then with so many mutations of it.
pub fn run(target: &str, f: fn(&[u8]), mutations: u32) {
    let corpus = read(target);
    assert!(!corpus.is_empty(), "{target} has no corpus");
    let run = |input: &[u8]| show_if_it_fails(target, f, input);
    corpus.iter().for_each(|input| run(input));
    let mut rng = Rng::for_test(target);
    for _ in 0..mutations {
        let input = mutated(&corpus, &mut rng);
        run(&input);
    }
}

/// A failure says by which input: as a file it goes into the corpus.
fn show_if_it_fails(target: &str, f: fn(&[u8]), input: &[u8]) {
    struct Show<'a>(&'a str, &'a [u8]);
    impl Drop for Show<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let mut hex = String::new();
                for byte in self.1 {
                    let _ = write!(hex, "{byte:02x}");
                }
                println!("input of {}: {hex}", self.0);
            }
        }
    }
    let _show = Show(target, input);
    f(input);
}

fn mutated(corpus: &[Vec<u8>], rng: &mut Rng<'_>) -> Vec<u8> {
    let any = |rng: &mut Rng<'_>| &corpus[rng.below(corpus.len() as u64) as usize];
    let mut bytes = any(rng).clone();
    for _ in 0..=rng.below(4) {
        let other = any(rng);
        mutate(&mut bytes, other, rng);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng<'_>) {
    let len = bytes.len() as u64;
    let at = rng.below(len + 1) as usize;
    let end = at + rng.below((len - at as u64).min(16) + 1) as usize;
    match rng.below(7) {
        0 => bytes[at..end].iter_mut().for_each(|b| *b = rng.byte()),
        1 => bytes[at..end]
            .iter_mut()
            .for_each(|b| *b ^= 1 << rng.below(8)),
        2 => drop(bytes.drain(at..end)),
        3 => drop(bytes.splice(at..at, rng.bytes(16))),
        4 => bytes.truncate(at),
        5 => bytes.extend_from_slice(&other[other.len().min(at)..]),
        _ => {
            // A number, as lengths, terms and indexes are.
            let size = [1, 2, 4, 8][rng.below(4) as usize];
            let number = rng.number().to_le_bytes();
            let end = bytes.len().min(at + size);
            bytes.splice(at..end, number[..size].iter().copied());
        }
    }
}
