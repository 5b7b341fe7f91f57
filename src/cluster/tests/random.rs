//! Random sequences of commands. The seed is printed; `RAFTKEEL_SEED` replays it.

use std::collections::BTreeSet;

use super::*;
use crate::core::MAX_MEMBERS;
use crate::wire::tests::Rng;

/// A command that may or may not make sense, for nodes that exist or do not.
fn random_command(rng: &mut Rng<'_>, state: &State, fresh: u64) -> Command {
    let expect = state.epoch() - u64::from(rng.below(20) == 0);
    let id = n(1 + rng.below(fresh));
    match rng.below(10) {
        0 => {
            let ids: Vec<NodeId> = (0..1 + rng.below(3))
                .map(|_| n(1 + rng.below(fresh)))
                .collect();
            Command::Exclude {
                expect,
                silent: vec![1; ids.len()],
                ids,
                by: Cause::Detector,
            }
        }
        1 => Command::Readmit { expect, id },
        2 => Command::Replace {
            expect,
            old: id,
            by: peer(fresh - rng.below(2).min(fresh - 1)),
        },
        3 | 4 => Command::Promote { expect, id },
        5 | 6 => Command::Add {
            expect,
            peer: peer(fresh - rng.below(2).min(fresh - 1)),
        },
        7 => Command::Remove { expect, id },
        8 => Command::Register {
            instances: vec![(id, rng.below(3)), (n(1), rng.below(3))],
        },
        _ => Command::SetParams {
            expect_version: rng.below(2) * (state.params().version + rng.below(2)),
            params: Params {
                hb_deadtime: rng.below(4) as u32 * 1_500,
                ..Params::default()
            },
        },
    }
}

fn assert_invariants(state: &State) {
    let configuration = state.configuration();
    let with = |wanted: fn(&Status) -> bool| -> Vec<NodeId> {
        let members = state.members().filter(|m| wanted(&m.status));
        members.map(|m| m.id).collect()
    };
    assert_eq!(configuration.voters, with(|s| *s == Status::Voter));
    assert_eq!(configuration.learners, with(|s| *s == Status::Learner));
    assert!(!configuration.voters.is_empty());
    let out = with(|s| !matches!(s, Status::Voter | Status::Learner));
    for member in state.members() {
        let exclusion = state.is_excluded(member.id);
        assert_eq!(exclusion.is_some(), out.contains(&member.id));
        if let Status::Excluded { epoch, index } | Status::Removed { epoch, index } = member.status
        {
            assert_eq!(exclusion, Some(Exclusion { epoch, index }));
        }
    }
    assert!(state.provisioned() <= MAX_MEMBERS);
    assert_eq!(state.params().validate(), Ok(()));
}

/// Epochs grow by one with members and not otherwise; whoever is gone for good stays so, and whoever
/// is registered keeps its instance.
fn assert_step(before: &State, after: &State, facts: &[Fact]) {
    let changes = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::Members { .. }))
        .count();
    assert_eq!(after.epoch(), before.epoch() + changes as u64);
    assert_eq!(after.genesis(), before.genesis());
    for old in before.members() {
        let new = after.member(old.id).expect("nobody is forgotten");
        assert_eq!((&new.address, &new.meta), (&old.address, &old.meta));
        if old.instance != 0 {
            assert_eq!(new.instance, old.instance);
        }
        if !old.status.is_provisioned() {
            assert_eq!(new.status, old.status);
        }
    }
}

#[test]
fn any_sequence_keeps_the_invariants() {
    let mut rng = Rng::for_test("any_sequence_keeps_the_invariants");
    let (mut accepted, mut replaced, mut added, mut removed) = (0, 0, 0, 0);
    for _ in 0..60 {
        let first = 1 + rng.below(7);
        let mut state = bootstrapped(first);
        let mut used: BTreeSet<NodeId> = state.members().map(|m| m.id).collect();
        for _ in 0..200 {
            let fresh = used.last().map_or(1, |id| id.get() + 1);
            let before = state.clone();
            let command = random_command(&mut rng, &state, fresh);
            match run(&mut state, &command) {
                Ok(facts) => {
                    accepted += 1;
                    assert_step(&before, &state, &facts);
                    let newcomer = match &command {
                        Command::Replace { by, .. } => Some(by),
                        Command::Add { peer, .. } => Some(peer),
                        _ => None,
                    };
                    if let Some(peer) = newcomer {
                        assert!(used.insert(peer.id), "{} was used twice", peer.id);
                    }
                    replaced += u32::from(matches!(command, Command::Replace { .. }));
                    added += u32::from(matches!(command, Command::Add { .. }));
                    removed += u32::from(matches!(command, Command::Remove { .. }));
                }
                Err(_) => assert_eq!(state, before),
            }
            assert_invariants(&state);
        }
    }
    // Otherwise the sequences would be too short-lived to show anything.
    assert!(accepted > 600 && replaced > 20, "{accepted} {replaced}");
    assert!(added > 100 && removed > 100, "{added} {removed}");
}

#[test]
fn equal_logs_make_equal_states() {
    let mut rng = Rng::for_test("equal_logs_make_equal_states");
    let bootstrap = bootstrap_entry(&[peer(2), peer(1), peer(3), peer(4)], &Params::default());
    let mut log = vec![bootstrap.expect("a good list")];
    let mut state = State::default();
    state.apply(&log[0]).expect("a good entry");
    while log.len() < 150 {
        let fresh = state.members().count() as u64 + 1;
        let payload = match random_command(&mut rng, &state, fresh) {
            // Also the refused ones, as if another leader had been ahead.
            command @ (Command::SetParams { .. } | Command::Register { .. }) => {
                Payload::Cluster(command.encode().into())
            }
            command => match state.check(&state.configuration(), &command) {
                Ok(Change::Config(target)) => {
                    Payload::Config(Arc::new(target), command.encode().into())
                }
                _ => continue,
            },
        };
        append(&mut log, &mut state, payload.clone());
        if matches!(&payload, Payload::Config(target, _) if !target.outgoing.is_empty()) {
            let left = state.configuration().into();
            append(&mut log, &mut state, Payload::Config(left, [][..].into()));
        }
    }
    let mut other = State::default();
    for entry in &log {
        // As it comes from another node, or from the disk.
        let mut bytes = Vec::new();
        crate::wire::encode_entry(entry, &mut bytes);
        let entry = crate::wire::decode_entry(&mut &bytes[..]).expect("it was just encoded");
        other.apply(&entry).expect("it was applied before");
    }
    assert_eq!(other, state);
}

fn append(log: &mut Vec<Entry>, state: &mut State, payload: Payload) {
    let entry = next_entry(state, payload);
    state.apply(&entry).expect("it was checked");
    log.push(entry);
}
