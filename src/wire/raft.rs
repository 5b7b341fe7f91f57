//! What cores say to each other, as bytes.
