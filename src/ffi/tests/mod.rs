//! What of the ABI cannot be reached from C: panics, structs of other versions, texts, what the
//! engine asks a storage for and when. The rest is tested by the programs in tests/c.

mod engine;
mod storage;
mod translation;
