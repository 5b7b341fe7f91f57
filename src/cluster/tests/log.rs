//! Entries as a log may hold them, also those that no leader of this version writes.

use super::*;

#[test]
#[should_panic(expected = "the log and its state")]
fn a_state_that_is_not_of_this_log_is_a_broken_invariant() {
    let state = bootstrapped(3);
    let _ = state.check(&config(1, &[1, 2], &[], &[]), &exclude(&state, &[3]));
}

#[test]
fn a_joint_configuration_is_left_for_the_one_entered_and_before_any_other() {
    let mut state = bootstrapped(5);
    let command = exclude(&state, &[5]);
    let target = config(2, &[1, 2, 3, 4], &[1, 2, 3, 4, 5], &[]);
    let payload = Payload::Config(target.into(), command.encode().into());
    let entry = next_entry(&state, payload);
    state.apply(&entry).expect("4 of 5 remain");
    let command = exclude(&state, &[4]).encode();
    let next = config(3, &[1, 2, 3], &[1, 2, 3, 4], &[]);
    let entry = next_entry(&state, Payload::Config(next.into(), command.into()));
    let error = state.apply(&entry);
    assert!(
        matches!(error, Err(ClusterError::Contradiction(_))),
        "{error:?}"
    );
    for wrong in [
        config(2, &[1, 2, 3], &[], &[]),
        config(2, &[1, 2, 3, 4], &[1, 2, 3, 4, 5], &[]),
        config(2, &[1, 2, 3, 4], &[], &[5]),
    ] {
        let entry = next_entry(&state, Payload::Config(wrong.into(), [][..].into()));
        let error = state.apply(&entry);
        assert!(
            matches!(error, Err(ClusterError::Contradiction(_))),
            "{error:?}"
        );
    }
}

#[test]
fn the_bootstrap_entry_is_the_first() {
    let noop = next_entry(&State::default(), Payload::Noop);
    let mut state = State::default();
    state.apply(&noop).expect("no-ops pass");
    let bootstrap = bootstrap_entry(&[peer(1)], &Params::default()).expect("a good list");
    assert!(
        state
            .apply(&Entry {
                index: 2,
                ..bootstrap
            })
            .is_err()
    );
    let set = samples().swap_remove(6).encode();
    let entry = next_entry(&state, Payload::Cluster(set.into()));
    let error = state.apply(&entry);
    assert!(
        matches!(error, Err(ClusterError::Contradiction(_))),
        "{error:?}"
    );
}

#[test]
fn entries_that_no_leader_writes_are_errors_and_change_nothing() {
    let mut state = bootstrapped(3);
    let before = state.clone();
    let empty = || [][..].into();
    let out = exclude(&state, &[3]).encode();
    let set = samples().swap_remove(6).encode();
    let cases = [
        (
            "an epoch skipped",
            Payload::Config(
                config(3, &[1, 2], &[1, 2, 3], &[]).into(),
                out.clone().into(),
            ),
        ),
        (
            "other voters",
            Payload::Config(
                config(2, &[1, 3], &[1, 2, 3], &[]).into(),
                out.clone().into(),
            ),
        ),
        (
            "not joint",
            Payload::Config(config(2, &[1, 2], &[], &[]).into(), out.clone().into()),
        ),
        (
            "left, not entered",
            Payload::Config(config(1, &[1, 2, 3], &[], &[]).into(), empty()),
        ),
        (
            "left, next epoch",
            Payload::Config(config(2, &[1, 2], &[], &[]).into(), empty()),
        ),
        ("members as settings", Payload::Cluster(out.into())),
        (
            "settings as members",
            Payload::Config(config(2, &[1, 2, 3], &[], &[]).into(), set.into()),
        ),
        ("no command", Payload::Cluster(empty())),
    ];
    for (name, payload) in cases {
        let entry = next_entry(&state, payload);
        assert!(state.apply(&entry).is_err(), "{name}");
        assert_eq!(state, before, "{name}");
    }
    let bootstrap = bootstrap_entry(&[peer(1)], &Params::default()).expect("a good list");
    let index = ClusterError::Index {
        expected: 2,
        found: 1,
    };
    assert_eq!(state.apply(&bootstrap), Err(index));
    let late = Entry {
        index: 2,
        ..bootstrap
    };
    assert!(state.apply(&late).is_err());
}

#[test]
fn other_payloads_pass() {
    let mut state = bootstrapped(3);
    let before = state.clone();
    for payload in [Payload::Noop, Payload::Host(b"x"[..].into())] {
        let entry = next_entry(&state, payload);
        assert_eq!(state.apply(&entry), Ok(vec![]));
    }
    assert_eq!(state.applied(), 3);
    assert_eq!(state.configuration(), before.configuration());
}
