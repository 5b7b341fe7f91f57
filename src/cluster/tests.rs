//! The rules of membership and settings, and what holds after any sequence of commands.

mod commands;
mod image;
mod log;
mod members;
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
        Command::Add {
            expect: 7,
            peer: peer(4),
        },
        Command::Remove {
            expect: 8,
            id: n(3),
        },
        Command::Register {
            instances: vec![(n(1), 0x0123_4567_89ab_cdef), (n(2), 5)],
        },
    ]
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
fn the_excluded_are_told_in_order() {
    let mut state = bootstrapped(5);
    let facts = run_on(&mut state, |s| exclude(s, &[5, 2])).expect("3 of 5 remain");
    let excluded = Fact::Excluded {
        epoch: 2,
        ids: ids(&[2, 5]),
        index: 2,
    };
    assert_eq!(facts[0], excluded);
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
fn one_change_at_a_time_also_if_it_is_not_joint() {
    let mut state = bootstrapped(3);
    run_on(&mut state, |s| exclude(s, &[3])).expect("2 of 3 remain");
    let logged = match state.check(&state.configuration(), &readmit(&state, 3)) {
        Ok(Change::Config(target)) => target,
        other => panic!("{other:?}"),
    };
    assert!(logged.outgoing.is_empty());
    let second = state.check(&logged, &replace(&state, 3, 4));
    assert!(matches!(second, Err(Refusal::Conflict(_))));
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
fn the_number_of_ids_is_bounded() {
    let mut state = bootstrapped(3);
    run_on(&mut state, |s| exclude(s, &[3])).expect("2 of 3 remain");
    let by = n(3);
    for id in 10..10 + (MAX_IDS as u64 - 4) {
        let member = peer(id).into_member(Status::Replaced { by }, true);
        state.members.insert(n(id), member);
    }
    assert!(
        state
            .check(&state.configuration(), &replace(&state, 3, 4))
            .is_ok()
    );
    let member = peer(9).into_member(Status::Replaced { by }, true);
    state.members.insert(n(9), member);
    assert!(matches!(
        refusal(&state, &replace(&state, 3, 4)),
        Refusal::TooBig(_)
    ));
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
