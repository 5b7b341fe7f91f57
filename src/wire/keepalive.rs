//! Keepalives and verdicts as bytes.
