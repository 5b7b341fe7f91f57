//! What of the ABI cannot be reached from C: panics, structs of other versions, texts. The rest
//! is tested by the programs in tests/c.

mod engine;
mod translation;
