//! A bounded model check: the Raft core itself, driven through every order of events within small
//! bounds, and held against the promises of the protocol after each of them. Every test below is
//! a search of its own; each prints its bounds and how many distinct states it has seen, and none
//! of them leaves a state out.
//!
//! `RAFTKEEL_STATES=n` loosens the bounds of every search and gives it up after n states.

mod checks;
mod fingerprint;
mod scope;
mod search;
mod world;

use scope::{Scope, configuration};
use search::search;

/// Far more states than a search has within its bounds.
const MOST: usize = 4_000_000;

/// Searches all of a scope, in which as many entries can be committed.
fn run(scope: Scope, committed: usize) {
    if let Ok(text) = std::env::var("RAFTKEEL_STATES") {
        let states = text.parse().expect("a number is wanted");
        search(&scope.loosened(), states);
        return;
    }
    let found = search(&scope, MOST);
    assert!(found.complete, "the bounds are too wide for a whole search");
    // A search in which nothing is committed proves nothing.
    assert_eq!(committed, found.committed, "not what these bounds allow");
}

#[test]
fn two_campaigns_and_a_crash() {
    let scope = Scope {
        timeouts: 2,
        crashes: 1,
        messages: 3,
        ..Scope::quiet("two campaigns and a crash")
    };
    run(scope, 3);
}

#[test]
fn three_campaigns() {
    let scope = Scope {
        timeouts: 3,
        messages: 3,
        ..Scope::quiet("three campaigns")
    };
    run(scope, 3);
}

#[test]
fn copies_of_messages() {
    let scope = Scope {
        timeouts: 2,
        copies: 1,
        messages: 3,
        ..Scope::quiet("copies of messages")
    };
    run(scope, 3);
}

#[test]
fn pre_votes() {
    let scope = Scope {
        pre_votes: true,
        timeouts: 2,
        messages: 3,
        ..Scope::quiet("pre-votes")
    };
    run(scope, 3);
}

#[test]
fn campaigns_with_slow_disks() {
    let scope = Scope {
        slow_disks: true,
        timeouts: 2,
        messages: 3,
        ..Scope::quiet("campaigns with slow disks")
    };
    run(scope, 3);
}

#[test]
fn a_proposal_and_a_crash() {
    let scope = Scope {
        led: true,
        timeouts: 1,
        proposals: 1,
        crashes: 1,
        ..Scope::quiet("a proposal and a crash")
    };
    run(scope, 4);
}

#[test]
fn a_proposal_under_two_new_leaders() {
    let scope = Scope {
        led: true,
        terms: 4,
        timeouts: 2,
        proposals: 1,
        messages: 3,
        ..Scope::quiet("a proposal under two new leaders")
    };
    run(scope, 5);
}

#[test]
fn a_proposal_and_a_heartbeat() {
    let scope = Scope {
        led: true,
        timeouts: 1,
        heartbeats: 1,
        proposals: 1,
        messages: 3,
        ..Scope::quiet("a proposal and a heartbeat")
    };
    run(scope, 4);
}

#[test]
fn a_proposal_with_slow_disks() {
    let scope = Scope {
        led: true,
        slow_disks: true,
        timeouts: 1,
        proposals: 1,
        crashes: 1,
        messages: 2,
        ..Scope::quiet("a proposal with slow disks")
    };
    run(scope, 4);
}

#[test]
fn a_voter_leaves() {
    let scope = Scope {
        led: true,
        timeouts: 1,
        changes: 1,
        crashes: 1,
        targets: vec![
            configuration(2, &[1, 2], &[1, 2, 3], &[]),
            configuration(2, &[2, 3], &[1, 2, 3], &[]),
        ],
        ..Scope::quiet("a voter leaves")
    };
    run(scope, 5);
}

#[test]
fn a_voter_is_replaced() {
    let scope = Scope {
        first: configuration(1, &[1, 2], &[], &[3]),
        led: true,
        timeouts: 1,
        changes: 1,
        crashes: 1,
        targets: vec![
            configuration(2, &[1, 3], &[1, 2], &[]),
            configuration(2, &[2, 3], &[1, 2], &[]),
        ],
        ..Scope::quiet("a voter is replaced")
    };
    run(scope, 5);
}

#[test]
fn a_proposal_before_a_voter_leaves() {
    let scope = Scope {
        led: true,
        proposals: 1,
        changes: 1,
        timeouts: 1,
        messages: 2,
        targets: vec![configuration(2, &[2, 3], &[1, 2, 3], &[])],
        ..Scope::quiet("a proposal before a voter leaves")
    };
    run(scope, 6);
}

#[test]
fn a_crash_with_slow_disks() {
    let scope = Scope {
        slow_disks: true,
        timeouts: 2,
        crashes: 1,
        messages: 2,
        ..Scope::quiet("a crash with slow disks")
    };
    run(scope, 3);
}

#[test]
fn a_heartbeat_after_a_crash_with_slow_disks() {
    let scope = Scope {
        slow_disks: true,
        timeouts: 2,
        crashes: 1,
        heartbeats: 1,
        messages: 1,
        ..Scope::quiet("a heartbeat after a crash with slow disks")
    };
    run(scope, 3);
}

#[test]
fn a_proposal_and_a_damaged_disk() {
    let scope = Scope {
        led: true,
        rots: 1,
        timeouts: 1,
        proposals: 1,
        messages: 3,
        ..Scope::quiet("a proposal and a damaged disk")
    };
    run(scope, 4);
}

#[test]
fn a_proposal_and_two_damaged_disks() {
    let scope = Scope {
        led: true,
        rots: 2,
        timeouts: 1,
        proposals: 1,
        messages: 2,
        ..Scope::quiet("a proposal and two damaged disks")
    };
    run(scope, 4);
}
