//! The rules of membership and settings, and what holds after any sequence of commands.

mod random;
mod settings;

use std::sync::Arc;

use super::*;
use crate::core::{Configuration, Entry, Exclusion, NodeId, Payload};
use crate::wire::WireError;
use crate::wire::tests::n;

fn peer(id: u64) -> Peer {
    Peer {
        id: n(id),
        address: format!("10.0.0.{id}:7000"),
        meta: [id as u8][..].into(),
    }
}

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().map(|id| n(*id)).collect()
}

fn config(epoch: u64, voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Configuration {
    Configuration {
        epoch,
        voters: ids(voters),
        outgoing: ids(outgoing),
        learners: ids(learners),
    }
}

fn bootstrapped(count: u64) -> State {
    let members: Vec<Peer> = (1..=count).map(peer).collect();
    let entry = bootstrap_entry(&members, &Params::default()).expect("a good list");
    let mut state = State::default();
    state.apply(&entry).expect("a good entry");
    state
}

fn next_entry(state: &State, payload: Payload) -> Entry {
    Entry {
        index: state.applied() + 1,
        term: 2,
        payload,
    }
}

/// What a leader and a log make of a command: checked, proposed, applied, and a joint configuration
/// left again.
fn run(state: &mut State, command: &Command) -> Result<Vec<Fact>, Refusal> {
    let bytes = command.encode().into();
    let (payload, leave) = match state.check(&state.configuration(), command)? {
        Change::Plain => (Payload::Cluster(bytes), None),
        Change::Config(target) => {
            let mut left = target.clone();
            left.outgoing.clear();
            let leave = (left != target).then_some(left);
            (Payload::Config(Arc::new(target), bytes), leave)
        }
    };
    let entry = next_entry(state, payload);
    let facts = state.apply(&entry).expect("what was checked applies");
    if let Some(left) = leave {
        let entry = next_entry(state, Payload::Config(left.into(), [][..].into()));
        assert_eq!(state.apply(&entry), Ok(vec![]));
    }
    Ok(facts)
}

/// The same with a command that is decided on the present state.
fn run_on(state: &mut State, decide: impl Fn(&State) -> Command) -> Result<Vec<Fact>, Refusal> {
    let command = decide(state);
    run(state, &command)
}

fn exclude(state: &State, out: &[u64]) -> Command {
    Command::Exclude {
        expect: state.epoch(),
        ids: ids(out),
        silent: vec![30_000; out.len()],
        by: Cause::Detector,
    }
}

fn readmit(state: &State, id: u64) -> Command {
    Command::Readmit {
        expect: state.epoch(),
        id: n(id),
    }
}

fn replace(state: &State, old: u64, by: u64) -> Command {
    Command::Replace {
        expect: state.epoch(),
        old: n(old),
        by: peer(by),
    }
}

fn promote(state: &State, id: u64) -> Command {
    Command::Promote {
        expect: state.epoch(),
        id: n(id),
    }
}

fn refusal(state: &State, command: &Command) -> Refusal {
    match state.check(&state.configuration(), command) {
        Err(refusal) => refusal,
        Ok(change) => panic!("{command:?} was accepted: {change:?}"),
    }
}

fn samples() -> Vec<Command> {
    let state = bootstrapped(3);
    vec![
        Command::Bootstrap {
            members: vec![peer(1), peer(2)],
            params: Params {
                version: 1,
                hb_deadtime: 30_000,
                ..Params::default()
            },
        },
        exclude(&state, &[3]),
        Command::Exclude {
            expect: 9,
            ids: vec![],
            silent: vec![],
            by: Cause::Admin,
        },
        readmit(&state, 3),
        replace(&state, 3, 4),
        promote(&state, 4),
        Command::SetParams {
            expect_version: 1,
            params: Params {
                version: 0,
                hb_keepalive: 1,
                hb_warntime: 2,
                hb_deadtime: 3,
                hb_initdead: 4,
                settle: 5,
                min_nodes: 6,
            },
        },
    ]
}

#[test]
fn commands_come_back_as_they_were() {
    for command in samples() {
        let mut bytes = command.encode();
        assert_eq!(Command::decode(&bytes), Ok(command));
        for len in 0..bytes.len() {
            assert!(Command::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        bytes.push(0);
        assert_eq!(Command::decode(&bytes), Err(WireError::Trailing));
    }
}

#[test]
fn the_bytes_of_commands_are_what_they_were() {
    let hex = |command: &Command| -> String {
        let bytes = command.encode();
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    };
    let now: Vec<String> = samples().iter().map(hex).collect();
    // Printed, so that a new command can be added; a changed line needs a new tag instead.
    now.iter().for_each(|line| println!("{line}"));
    let golden: Vec<&str> = include_str!("tests/golden.txt").lines().collect();
    assert_eq!(now, golden);
}

#[test]
fn an_unknown_command_stops_the_node() {
    let mut state = bootstrapped(3);
    let before = state.clone();
    let unknown = WireError::UnknownKind {
        what: "cluster command",
        kind: 99,
    };
    assert_eq!(Command::decode(&[99, 1, 2]), Err(unknown));
    let entry = next_entry(&state, Payload::Cluster([99, 1, 2][..].into()));
    assert_eq!(state.apply(&entry), Err(ClusterError::Malformed(unknown)));
    assert_eq!(state, before);
}

#[test]
fn bootstrap_does_not_depend_on_the_order_of_the_list() {
    let params = Params::default();
    let entry = bootstrap_entry(&[peer(3), peer(1), peer(2)], &params);
    assert_eq!(
        entry,
        bootstrap_entry(&[peer(1), peer(2), peer(3)], &params)
    );
    let entry = entry.expect("a good list");
    assert_eq!((entry.index, entry.term), (1, 1));
    let mut state = State::default();
    let facts = state.apply(&entry);
    let members = Fact::Members { epoch: 1, index: 1 };
    assert_eq!(facts, Ok(vec![Fact::Bootstrapped, Fact::Params, members]));
    assert_eq!(state.configuration(), config(1, &[1, 2, 3], &[], &[]));
    assert_eq!(state.params().version, 1);
    assert_eq!(state.provisioned(), 3);
    // The digest is told to peers of other versions: it must not change either.
    assert_eq!(format!("{:016x}", state.genesis()), "c2f6353836af9fa5");
}

#[test]
fn different_lists_have_different_genesis() {
    let genesis = |members: &[Peer], params: &Params| {
        let mut state = State::default();
        let entry = bootstrap_entry(members, params).expect("a good list");
        state.apply(&entry).expect("a good entry");
        state.genesis()
    };
    let params = Params::default();
    let mut moved = peer(2);
    moved.address.push('1');
    let other = Params {
        hb_deadtime: 30_000,
        ..params.clone()
    };
    let all = [
        genesis(&[peer(1), peer(2)], &params),
        genesis(&[peer(1), peer(3)], &params),
        genesis(&[peer(1), moved], &params),
        genesis(&[peer(1), peer(2)], &other),
    ];
    for (at, genesis) in all.iter().enumerate() {
        assert_ne!(*genesis, 0);
        assert!(!all[..at].contains(genesis), "{at}");
    }
}

#[test]
fn bootstrap_refuses_bad_lists() {
    let params = Params::default();
    let refused = |members: &[Peer]| bootstrap_entry(members, &params).unwrap_err();
    assert!(matches!(refused(&[]), Refusal::Invalid(_)));
    assert!(matches!(refused(&[peer(1), peer(1)]), Refusal::Invalid(_)));
    let many: Vec<Peer> = (1..=65).map(peer).collect();
    assert!(matches!(refused(&many), Refusal::TooBig(_)));
    assert!(bootstrap_entry(&many[..64], &params).is_ok());
    let mut long = peer(1);
    long.address = "x".repeat(MAX_ADDRESS + 1);
    assert!(matches!(refused(&[long]), Refusal::TooBig(_)));
    let mut fat = peer(1);
    fat.meta = vec![0; MAX_META + 1].into();
    assert!(matches!(refused(&[fat]), Refusal::TooBig(_)));
    let bad = Params {
        min_nodes: 65,
        ..params.clone()
    };
    assert!(matches!(
        bootstrap_entry(&[peer(1)], &bad),
        Err(Refusal::Invalid(_))
    ));
}

#[test]
fn the_largest_bootstrap_fits_its_limit() {
    let members: Vec<Peer> = (1..=64)
        .map(|id| Peer {
            id: n(id),
            address: "x".repeat(MAX_ADDRESS),
            meta: vec![0; MAX_META].into(),
        })
        .collect();
    let entry = bootstrap_entry(&members, &Params::default()).expect("within the limits");
    assert_eq!(
        State::default().apply(&entry).map(|facts| facts.len()),
        Ok(3)
    );
}

#[test]
fn exclusion_is_joint_and_begins_an_epoch() {
    let mut state = bootstrapped(3);
    let command = exclude(&state, &[3]);
    let change = state.check(&state.configuration(), &command);
    let target = config(2, &[1, 2], &[1, 2, 3], &[]);
    assert_eq!(change, Ok(Change::Config(target)));
    let facts = run(&mut state, &command);
    let excluded = Fact::Excluded {
        epoch: 2,
        ids: ids(&[3]),
        index: 2,
    };
    let members = Fact::Members { epoch: 2, index: 2 };
    assert_eq!(facts, Ok(vec![excluded, members]));
    assert_eq!(state.epoch(), 2);
    assert_eq!(
        state.is_excluded(n(3)),
        Some(Exclusion { epoch: 2, index: 2 })
    );
    assert_eq!(state.is_excluded(n(2)), None);
    assert_eq!(
        state.excluded().map(|m| m.id).collect::<Vec<_>>(),
        ids(&[3])
    );
    assert_eq!(state.provisioned(), 3);
}

#[test]
fn exclusion_of_a_learner_is_not_joint() {
    let mut state = bootstrapped(3);
    run_on(&mut state, |s| exclude(s, &[3])).expect("2 of 3 remain");
    run_on(&mut state, |s| replace(s, 3, 4)).expect("3 is out");
    let change = state.check(&state.configuration(), &exclude(&state, &[4]));
    assert_eq!(change, Ok(Change::Config(config(4, &[1, 2], &[], &[]))));
}

#[test]
fn exclusion_needs_those_who_remain_to_decide_it() {
    for (voters, out, allowed) in [
        (1, 1, false),
        (2, 1, false),
        (3, 1, true),
        (3, 2, false),
        (4, 1, true),
        (4, 2, false),
        (5, 2, true),
        (5, 3, false),
        (64, 31, true),
        (64, 32, false),
    ] {
        let state = bootstrapped(voters);
        let out: Vec<u64> = (1..=out).collect();
        let change = state.check(&state.configuration(), &exclude(&state, &out));
        match allowed {
            true => assert!(change.is_ok(), "{} of {voters}", out.len()),
            false => assert!(matches!(change, Err(Refusal::State(_))), "{voters}"),
        }
    }
}

#[test]
fn exclusion_is_refused() {
    let mut state = bootstrapped(5);
    assert!(matches!(
        refusal(&state, &exclude(&state, &[9])),
        Refusal::NotFound(_)
    ));
    assert!(matches!(
        refusal(&state, &exclude(&state, &[])),
        Refusal::Invalid(_)
    ));
    assert!(matches!(
        refusal(&state, &exclude(&state, &[2, 2])),
        Refusal::Invalid(_)
    ));
    let one_silence_short = Command::Exclude {
        expect: 1,
        ids: ids(&[2]),
        silent: vec![],
        by: Cause::Admin,
    };
    assert!(matches!(
        refusal(&state, &one_silence_short),
        Refusal::Invalid(_)
    ));
    let stale = exclude(&state, &[4]);
    run_on(&mut state, |s| exclude(s, &[5])).expect("4 of 5 remain");
    assert!(matches!(refusal(&state, &stale), Refusal::Conflict(_)));
    assert!(matches!(
        refusal(&state, &exclude(&state, &[5])),
        Refusal::State(_)
    ));
    run_on(&mut state, |s| replace(s, 5, 6)).expect("5 is out");
    assert!(matches!(
        refusal(&state, &exclude(&state, &[5])),
        Refusal::State(_)
    ));
}

#[test]
fn one_change_at_a_time() {
    let mut state = bootstrapped(5);
    let first = exclude(&state, &[5]);
    let Ok(Change::Config(target)) = state.check(&state.configuration(), &first) else {
        panic!("4 of 5 remain");
    };
    // Logged and not applied.
    let second = exclude(&state, &[4]);
    assert!(matches!(
        state.check(&target, &second),
        Err(Refusal::Conflict(_))
    ));
    // Applied and still joint; then left in the log, but not applied.
    let entry = next_entry(
        &state,
        Payload::Config(target.clone().into(), first.encode().into()),
    );
    state.apply(&entry).expect("it was checked");
    let second = exclude(&state, &[4]);
    assert!(matches!(
        state.check(&target, &second),
        Err(Refusal::Conflict(_))
    ));
    let left = state.configuration();
    assert!(matches!(
        state.check(&left, &second),
        Err(Refusal::Conflict(_))
    ));
    let entry = next_entry(&state, Payload::Config(left.clone().into(), [][..].into()));
    state
        .apply(&entry)
        .expect("the joint configuration is left");
    assert!(state.check(&left, &second).is_ok());
}

#[test]
fn readmission_is_for_the_excluded() {
    let mut state = bootstrapped(3);
    assert!(matches!(
        refusal(&state, &readmit(&state, 9)),
        Refusal::NotFound(_)
    ));
    assert!(matches!(
        refusal(&state, &readmit(&state, 3)),
        Refusal::State(_)
    ));
    run_on(&mut state, |s| exclude(s, &[3])).expect("2 of 3 remain");
    let facts = run_on(&mut state, |s| readmit(s, 3));
    let members = Fact::Members { epoch: 3, index: 4 };
    assert_eq!(facts, Ok(vec![Fact::Readmitted { id: n(3) }, members]));
    assert_eq!(state.configuration(), config(3, &[1, 2], &[], &[3]));
    assert_eq!(state.is_excluded(n(3)), None);
    let facts = run_on(&mut state, |s| promote(s, 3));
    let members = Fact::Members { epoch: 4, index: 5 };
    assert_eq!(facts, Ok(vec![Fact::Promoted { id: n(3) }, members]));
    assert_eq!(state.configuration(), config(4, &[1, 2, 3], &[], &[]));
}

#[test]
fn promotion_is_joint_and_for_learners() {
    let mut state = bootstrapped(3);
    assert!(matches!(
        refusal(&state, &promote(&state, 9)),
        Refusal::NotFound(_)
    ));
    assert!(matches!(
        refusal(&state, &promote(&state, 3)),
        Refusal::State(_)
    ));
    run_on(&mut state, |s| exclude(s, &[3])).expect("2 of 3 remain");
    assert!(matches!(
        refusal(&state, &promote(&state, 3)),
        Refusal::State(_)
    ));
    run_on(&mut state, |s| readmit(s, 3)).expect("3 is out");
    let change = state.check(&state.configuration(), &promote(&state, 3));
    let target = config(4, &[1, 2, 3], &[1, 2], &[]);
    assert_eq!(change, Ok(Change::Config(target)));
}

#[test]
fn replacement_keeps_the_old_node_out_for_good() {
    let mut state = bootstrapped(3);
    assert!(matches!(
        refusal(&state, &replace(&state, 9, 4)),
        Refusal::NotFound(_)
    ));
    assert!(matches!(
        refusal(&state, &replace(&state, 3, 4)),
        Refusal::State(_)
    ));
    run_on(&mut state, |s| exclude(s, &[3])).expect("2 of 3 remain");
    for used in [1, 2, 3] {
        let refused = refusal(&state, &replace(&state, 3, used));
        assert!(matches!(refused, Refusal::Exists(_)), "{used}");
    }
    let facts = run_on(&mut state, |s| replace(s, 3, 4));
    let replaced = Fact::Replaced {
        old: n(3),
        by: n(4),
    };
    let members = Fact::Members { epoch: 3, index: 4 };
    assert_eq!(facts, Ok(vec![replaced, members]));
    assert_eq!(state.configuration(), config(3, &[1, 2], &[], &[4]));
    assert_eq!(
        state.member(n(3)).map(|m| m.status.clone()),
        Some(Status::Replaced { by: n(4) })
    );
    assert_eq!(
        state.is_excluded(n(3)),
        Some(Exclusion { epoch: 2, index: 2 })
    );
    assert_eq!(state.excluded().count(), 0);
    assert_eq!(state.provisioned(), 3);
    assert!(matches!(
        refusal(&state, &readmit(&state, 3)),
        Refusal::State(_)
    ));
    assert!(matches!(
        refusal(&state, &replace(&state, 3, 5)),
        Refusal::State(_)
    ));
}

#[test]
fn a_newcomer_must_fit() {
    let mut state = bootstrapped(3);
    run_on(&mut state, |s| exclude(s, &[3])).expect("2 of 3 remain");
    let mut command = replace(&state, 3, 4);
    if let Command::Replace { by, .. } = &mut command {
        by.meta = vec![0; MAX_META + 1].into();
    }
    assert!(matches!(refusal(&state, &command), Refusal::TooBig(_)));
}

#[test]
fn nothing_is_checked_before_the_bootstrap() {
    let state = State::default();
    let command = exclude(&state, &[1]);
    let refused = state.check(&Configuration::default(), &command);
    assert!(matches!(refused, Err(Refusal::State(_))));
    let state = bootstrapped(3);
    let again = samples().swap_remove(0);
    assert!(matches!(refusal(&state, &again), Refusal::Exists(_)));
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
