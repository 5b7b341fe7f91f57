//! What the fuzzer reaches and nobody else outside does: the decoders inside the engine and the
//! storage directory. There only in tests, which try the corpus with them, and under the
//! `--cfg fuzzing` that cargo-fuzz sets.

#[path = "../../tests/fuzz/alloc.rs"]
pub mod alloc;
mod head;
#[path = "../../tests/support/rng.rs"]
pub(crate) mod rng;
#[cfg(test)]
mod tests;

pub use crate::storage::dir_fuzz::{directory, frame, image, meta, segment};
pub use crate::storage::host_fuzz::host;
pub use head::head;

/// The name of a target's corpus, and the target.
type Target = (&'static str, fn(&[u8]));

/// Every target; tests/fuzz/targets has those of what is public.
pub const TARGETS: &[Target] = &[
    ("head", head),
    ("meta", meta),
    ("segment", segment),
    ("frame", frame),
    ("image", image),
    ("directory", directory),
    ("host", host),
];
