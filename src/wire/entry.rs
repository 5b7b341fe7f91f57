//! Log entries as bytes.

use crate::core::Entry;

use super::WireError;

/// Appends one entry.
///
/// # Panics
/// If the entry breaks a limit or a rule that [`decode_entry`] checks.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    let _ = (entry, out);
    unimplemented!()
}

/// Takes one entry off the front of `bytes`. After an error `bytes` is unchanged.
pub fn decode_entry(bytes: &mut &[u8]) -> Result<Entry, WireError> {
    let _ = bytes;
    unimplemented!()
}
