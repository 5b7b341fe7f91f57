//! A log that a start has left in storage, uncommitted entries too, one server at a time.

use std::sync::Arc;

use raftkeel::core::{
    Append, AppendOutcome, AppendReply, Ask, Entry, HardState, Message, Outline, Payload, Position,
    Raft, Restored, VoteReply,
};

use crate::cluster::{E, host_entry, n, plain, server};

/// Entries 1 to 5 of term 1, of which only the first is known to be committed.
fn outlined() -> Raft {
    let restored = Restored {
        hard: HardState {
            term: 1,
            ..HardState::default()
        },
        outline: Some(Outline {
            last: 5,
            terms: vec![Position { index: 1, term: 1 }],
            configs: vec![(1, Arc::new(plain(1, &[1, 2, 3], &[])))],
        }),
        ..Restored::default()
    };
    server(2, restored)
}

fn write(raft: &mut Raft) {
    while let Some(persist) = raft.take_persist() {
        raft.persisted(persist.token, true);
    }
}

/// It leads term 2, and n1 needs all but the first entry, which were asked for.
fn asking() -> Raft {
    let (mut raft, now, term) = (outlined(), 3 * E, 2);
    raft.tick(now);
    let granted = true;
    for message in [
        Message::PreVoteReply(VoteReply {
            term,
            granted,
            early: false,
        }),
        Message::VoteReply(VoteReply {
            term,
            granted,
            early: false,
        }),
    ] {
        raft.receive(now, n(1), message);
        write(&mut raft);
        raft.take_messages();
    }
    assert!(raft.is_leader());
    let refusal = AppendReply {
        term,
        seq: 1,
        outcome: AppendOutcome::Rejected {
            prev_index: 5,
            hint_index: 1,
            hint_term: 1,
        },
    };
    raft.receive(now, n(1), Message::AppendReply(refusal));
    raft.take_messages();
    assert!(raft.has_asks());
    raft
}

/// Another leader's entry takes the place of the second one and of those behind it.
fn replace(raft: &mut Raft) {
    let append = Append {
        term: 3,
        seq: 1,
        prev_index: 1,
        prev_term: 1,
        commit: 1,
        entries: vec![Entry {
            index: 2,
            term: 3,
            payload: Payload::Noop,
        }],
    };
    raft.receive(3 * E, n(3), Message::Append(append));
    assert_eq!(2, raft.log().last_index());
}

/// Storage may still hold what was replaced, or be about to drop it.
#[test]
fn what_a_deposed_leader_wanted_is_not_read_back() {
    let mut raft = asking();
    replace(&mut raft);
    assert!(raft.take_asks().is_empty());
}

#[test]
fn what_was_read_back_too_late_is_of_no_use() {
    let mut raft = asking();
    let asks = raft.take_asks();
    let [
        Ask::Entries {
            to, first, last, ..
        },
    ] = asks[..]
    else {
        panic!("entries are asked for: {asks:?}");
    };
    assert_eq!((Some(n(1)), 2, 5), (to, first, last));
    replace(&mut raft);
    let entries = (first..=last).map(|index| host_entry(index, 1)).collect();
    raft.fetched(3 * E, to, first, Ok(entries));
    assert_eq!(0, raft.take_messages().count());
}
