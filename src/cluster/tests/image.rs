//! The image of a state: one for each, and none of a state that no log leads to.

use super::*;
use crate::fuzz::alloc::within;
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

/// Peers of the shortest encoding, and what decoding makes of them: lists that have just grown.
#[test]
fn the_worst_amplification_is_within_the_bound() {
    let peers = |count: u64| -> Vec<Peer> {
        let peer = |id| Peer {
            id: n(id),
            address: String::new(),
            meta: [][..].into(),
        };
        (1..=count).map(peer).collect()
    };
    for count in [1, 5, 9, 17, 33, 64] {
        let command = Command::Bootstrap {
            members: peers(count),
            params: Params::default(),
        };
        let bytes = command.encode();
        let bound = MAX_AMPLIFICATION * bytes.len();
        let decoded = within(bound, || Command::decode(&bytes));
        assert_eq!(decoded, Ok(command));
    }
    for count in (1..100).chain([MAX_IDS as u64]) {
        let mut state = bootstrapped(1);
        let members = peers(count).into_iter().map(|peer| {
            let member = peer.into_member(Status::Voter, true);
            (member.id, member)
        });
        state.members = members.collect();
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        let bound = MAX_AMPLIFICATION * bytes.len();
        let decoded = within(bound, || decode(&bytes));
        assert_eq!(decoded, Ok(state));
    }
}
