//! Nodes that join, are promoted and leave for good; which storage each of them has.

use super::*;
use crate::core::MAX_MEMBERS;

fn add(state: &State, id: u64) -> Command {
    Command::Add {
        expect: state.epoch(),
        peer: peer(id),
    }
}

fn remove(state: &State, id: u64) -> Command {
    Command::Remove {
        expect: state.epoch(),
        id: n(id),
    }
}

fn register(instances: &[(u64, u64)]) -> Command {
    Command::Register {
        instances: instances.iter().map(|(id, i)| (n(*id), *i)).collect(),
    }
}

fn status(state: &State, id: u64) -> Option<Status> {
    state.member(n(id)).map(|m| m.status.clone())
}

#[test]
fn a_new_node_is_a_learner_until_it_is_promoted() {
    let mut state = bootstrapped(3);
    let change = state.check(&state.configuration(), &add(&state, 4));
    let target = config(2, &[1, 2, 3], &[], &[4]);
    assert_eq!(change, Ok(Change::Config(target)), "not joint");
    let facts = run_on(&mut state, |s| add(s, 4));
    let members = Fact::Members { epoch: 2, index: 2 };
    assert_eq!(facts, Ok(vec![Fact::Added { id: n(4) }, members]));
    assert!(!state.is_elector(n(4)) && state.is_elector(n(3)));
    assert_eq!(state.provisioned(), 4);
    run_on(&mut state, |s| promote(s, 4)).expect("a learner");
    assert!(state.is_elector(n(4)));
    assert_eq!(state.configuration(), config(3, &[1, 2, 3, 4], &[], &[]));
}

#[test]
fn an_id_that_was_ever_used_is_not_added() {
    let mut state = bootstrapped(4);
    run_on(&mut state, |s| exclude(s, &[4])).expect("3 of 4 remain");
    run_on(&mut state, |s| remove(s, 3)).expect("2 remain");
    run_on(&mut state, |s| replace(s, 4, 5)).expect("4 is out");
    for used in 1..=5 {
        let refused = refusal(&state, &add(&state, used));
        assert!(matches!(refused, Refusal::Exists(_)), "{used}");
    }
    let mut long = add(&state, 6);
    if let Command::Add { peer, .. } = &mut long {
        peer.address = "x".repeat(MAX_ADDRESS + 1);
    }
    assert!(matches!(refusal(&state, &long), Refusal::TooBig(_)));
}

#[test]
fn there_is_room_for_so_many() {
    let mut state = bootstrapped(MAX_MEMBERS as u64);
    assert!(matches!(
        refusal(&state, &add(&state, 99)),
        Refusal::TooBig(_)
    ));
    run_on(&mut state, |s| exclude(s, &[64])).expect("one of many");
    let refused = refusal(&state, &add(&state, 99));
    assert!(matches!(refused, Refusal::TooBig(_)), "it may come back");
    run_on(&mut state, |s| remove(s, 64)).expect("it is excluded");
    assert!(run_on(&mut state, |s| add(s, 99)).is_ok());
}

#[test]
fn a_voter_is_out_when_the_joint_configuration_is_left() {
    let mut state = bootstrapped(3);
    let command = remove(&state, 3);
    let target = config(2, &[1, 2], &[1, 2, 3], &[]);
    let change = state.check(&state.configuration(), &command);
    assert_eq!(change, Ok(Change::Config(target.clone())));
    let entry = next_entry(
        &state,
        Payload::Config(target.into(), command.encode().into()),
    );
    let removed = Fact::Removed {
        epoch: 2,
        id: n(3),
        index: 2,
    };
    let members = Fact::Members { epoch: 2, index: 2 };
    assert_eq!(state.apply(&entry), Ok(vec![removed, members]));
    assert!(state.is_removed(n(3)));
    assert_eq!(state.is_excluded(n(3)), None, "it still counts");
    let left = state.configuration().into();
    let entry = next_entry(&state, Payload::Config(left, [][..].into()));
    state.apply(&entry).expect("it was entered");
    let out = Exclusion { epoch: 2, index: 2 };
    assert_eq!(state.is_excluded(n(3)), Some(out));
    assert_eq!(
        (state.excluded().count(), state.provisioned()),
        (0, 2),
        "nobody waits for it"
    );
}

#[test]
fn an_older_exclusion_holds_while_another_node_leaves() {
    let mut state = bootstrapped(5);
    run_on(&mut state, |s| exclude(s, &[5])).expect("4 of 5 remain");
    let command = remove(&state, 4);
    let Ok(Change::Config(target)) = state.check(&state.configuration(), &command) else {
        panic!("3 remain");
    };
    let entry = next_entry(
        &state,
        Payload::Config(target.into(), command.encode().into()),
    );
    state.apply(&entry).expect("it was checked");
    assert!(state.is_excluded(n(5)).is_some());
    assert_eq!(state.is_excluded(n(4)), None);
}

#[test]
fn learners_and_the_excluded_are_removed_at_once() {
    let mut state = bootstrapped(3);
    run_on(&mut state, |s| add(s, 4)).expect("a new id");
    run_on(&mut state, |s| remove(s, 4)).expect("a learner");
    assert_eq!(state.is_excluded(n(4)).map(|x| x.epoch), Some(3));
    run_on(&mut state, |s| exclude(s, &[3])).expect("2 of 3 remain");
    let change = state.check(&state.configuration(), &remove(&state, 3));
    let target = config(5, &[1, 2], &[], &[]);
    assert_eq!(change, Ok(Change::Config(target)));
    run_on(&mut state, |s| remove(s, 3)).expect("it is excluded");
    assert_eq!(state.is_excluded(n(3)).map(|x| x.epoch), Some(5));
}

#[test]
fn the_removed_never_come_back() {
    let mut state = bootstrapped(3);
    run_on(&mut state, |s| remove(s, 3)).expect("2 remain");
    for command in [
        readmit(&state, 3),
        promote(&state, 3),
        remove(&state, 3),
        exclude(&state, &[3]),
        replace(&state, 3, 9),
    ] {
        let refused = refusal(&state, &command);
        assert!(matches!(refused, Refusal::State(_)), "{command:?}");
    }
    assert!(matches!(
        refusal(&state, &remove(&state, 9)),
        Refusal::NotFound(_)
    ));
}

#[test]
fn a_voter_remains() {
    let mut state = bootstrapped(2);
    run_on(&mut state, |s| remove(s, 1)).expect("one remains");
    assert!(matches!(
        refusal(&state, &remove(&state, 2)),
        Refusal::State(_)
    ));
    run_on(&mut state, |s| add(s, 3)).expect("a new id");
    assert!(matches!(
        refusal(&state, &remove(&state, 2)),
        Refusal::State(_)
    ));
    assert_eq!(state.configuration(), config(3, &[2], &[], &[3]));
}

#[test]
fn whoever_comes_in_place_of_a_node_votes_if_that_one_was_meant_to() {
    let mut state = bootstrapped(3);
    run_on(&mut state, |s| add(s, 4)).expect("a new id");
    run_on(&mut state, |s| exclude(s, &[3, 4])).expect("2 of 3 remain");
    run_on(&mut state, |s| replace(s, 3, 5)).expect("3 is out");
    run_on(&mut state, |s| readmit(s, 4)).expect("4 is out");
    assert!(state.is_elector(n(5)) && !state.is_elector(n(4)));
}

#[test]
fn the_first_instance_holds() {
    let mut state = bootstrapped(3);
    assert_eq!(state.instance(n(2)), None);
    let facts = run(&mut state, &register(&[(1, 11), (2, 12), (9, 19), (3, 0)]));
    let registered = |id| Fact::Registered { id: n(id) };
    assert_eq!(facts, Ok(vec![registered(1), registered(2)]));
    assert_eq!(state.epoch(), 1, "no change of members");
    let facts = run(&mut state, &register(&[(2, 22), (3, 13), (3, 23)]));
    assert_eq!(facts, Ok(vec![registered(3)]));
    let instances = [1, 2, 3, 9].map(|id| state.instance(n(id)));
    assert_eq!(instances, [Some(11), Some(12), Some(13), None]);
    run_on(&mut state, |s| exclude(s, &[3])).expect("2 of 3 remain");
    run_on(&mut state, |s| readmit(s, 3)).expect("it is out");
    run(&mut state, &register(&[(3, 33)])).expect("plain");
    assert_eq!(state.instance(n(3)), Some(13), "it comes back as it was");
}

#[test]
fn instances_are_registered_while_members_change() {
    let state = bootstrapped(3);
    let command = remove(&state, 3);
    let Ok(Change::Config(target)) = state.check(&state.configuration(), &command) else {
        panic!("2 remain");
    };
    assert_eq!(
        state.check(&target, &register(&[(1, 11)])),
        Ok(Change::Plain)
    );
    assert_eq!(status(&state, 3), Some(Status::Voter));
    let before = State::default();
    let refused = before.check(&Configuration::default(), &register(&[(1, 11)]));
    assert!(matches!(refused, Err(Refusal::State(_))));
}
