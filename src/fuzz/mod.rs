//! What tests of the insides share with those in tests/.

#[path = "../../tests/fuzz/alloc.rs"]
pub mod alloc;
