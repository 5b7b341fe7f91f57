//! Every decoder that is public, with the corpus that fuzzing has left and mutations of it, under an
//! allocator that counts: none panics, and none allocates more than its bound. The others are tried
//! in the same way inside the crate; fuzz/README.md says how the corpus is made.

mod alloc;
#[path = "../support/commands.rs"]
mod commands;
#[path = "../support/packets.rs"]
mod packets;
mod replay;
#[path = "../support/rng.rs"]
mod rng;
mod targets;

const MUTATIONS: u32 = 20_000;

#[test]
fn every_corpus_and_mutations_of_it() {
    for (name, target) in targets::TARGETS {
        replay::run(name, *target, MUTATIONS);
    }
}
