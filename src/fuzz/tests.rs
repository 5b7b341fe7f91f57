//! The corpus of the decoders inside, and mutations of it.

use super::{TARGETS, rng};

#[path = "../../tests/fuzz/replay.rs"]
mod replay;

const MUTATIONS: u32 = 10_000;

#[test]
fn every_corpus_and_mutations_of_it() {
    for (name, target) in TARGETS {
        replay::run(name, *target, MUTATIONS);
    }
}
