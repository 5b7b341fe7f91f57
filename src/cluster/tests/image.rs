//! The image of a state: one for each, and none of a state that no log leads to.

use super::*;
use crate::wire::Reader;

/// Offsets in an image: after the version come epoch, genesis, applied, the joint flag and the
/// settings, which begin with their version; the record of the leader and the assembly are last.
const EPOCH: usize = 1;
const APPLIED: usize = 17;
const PARAMS_VERSION: usize = 26;
const FROM_END: usize = 40;

fn image() -> Vec<u8> {
    let mut bytes = Vec::new();
    bootstrapped(3).encode(&mut bytes);
    bytes
}

fn with(at: usize, number: u64) -> Vec<u8> {
    let mut bytes = image();
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<State, WireError> {
    State::decode(&mut Reader::new(bytes))
}

#[test]
fn a_state_comes_back_as_it_was() {
    assert_eq!(decode(&image()), Ok(bootstrapped(3)));
}

#[test]
fn what_is_not_there_has_one_encoding() {
    let record = image().len() - FROM_END;
    let refused = Err(WireError::BadValue {
        what: "what is not there",
    });
    // The term of no leader; the first piece of no snapshot, and where its next one begins.
    for at in [8, 24, 32] {
        assert_eq!(decode(&with(record + at, 1)), refused, "{at}");
    }
}

#[test]
fn numbers_that_leave_no_next_one_are_refused() {
    for at in [EPOCH, APPLIED, PARAMS_VERSION] {
        assert!(decode(&with(at, 1 << 62)).is_ok(), "{at}");
        for number in [0, (1 << 62) + 1, u64::MAX] {
            assert!(decode(&with(at, number)).is_err(), "{at}: {number}");
        }
    }
}
