//! Messages as bytes: versioned, bounded, checked.

/// One packet between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {}
