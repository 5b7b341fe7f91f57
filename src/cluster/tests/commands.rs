//! Commands as bytes, and the first of them.

use super::*;

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
    let golden: Vec<&str> = include_str!("golden.txt").lines().collect();
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
