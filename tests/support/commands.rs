//! Commands of every kind with random content, and states to give them to.

#![allow(dead_code, reason = "each test file uses its part")]

use raftkeel::cluster::{
    Cause, Command, MAX_ADDRESS, MAX_META, Params, Peer, State, bootstrap_entry,
};
use raftkeel::core::{Epoch, NodeId};

use super::rng::Rng;

/// The state of a new cluster of so many nodes.
pub fn bootstrapped(count: u64) -> State {
    let peers: Vec<Peer> = (1..=count)
        .map(|id| Peer {
            id: node(id),
            address: format!("10.0.0.{id}:7000"),
            meta: [id as u8][..].into(),
        })
        .collect();
    let entry = bootstrap_entry(&peers, &Params::default()).expect("a good list");
    let mut state = State::default();
    state.apply(&entry).expect("a good entry");
    state
}

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("not 0")
}

/// Mostly one of few, so that commands meet.
fn id(rng: &mut Rng<'_>) -> NodeId {
    match rng.below(16) {
        0 => node(rng.number().max(1)),
        some => node(some),
    }
}

fn peer(rng: &mut Rng<'_>) -> Peer {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut address = text(rng.bytes(40));
    let long = rng.below(8) == 0;
    address.push_str(&"a".repeat(if long { MAX_ADDRESS - address.len() } else { 0 }));
    Peer {
        id: id(rng),
        address,
        meta: rng.bytes(if long { MAX_META as u64 + 1 } else { 9 }).into(),
    }
}

fn params(rng: &mut Rng<'_>) -> Params {
    let mut milliseconds = || match rng.below(3) {
        0 => 0,
        1 => rng.below(100_000) as u32,
        _ => rng.number() as u32,
    };
    Params {
        hb_keepalive: milliseconds(),
        hb_warntime: milliseconds(),
        hb_deadtime: milliseconds(),
        hb_initdead: milliseconds(),
        settle: milliseconds(),
        min_nodes: rng.below(66) as u32,
        version: rng.number(),
    }
}

/// One that can be encoded; mostly decided on this epoch.
pub fn command(rng: &mut Rng<'_>, epoch: Epoch) -> Command {
    let expect = match rng.below(16) {
        0 => rng.number(),
        _ => epoch,
    };
    match rng.below(12) {
        0 => Command::Bootstrap {
            members: (0..rng.below(9)).map(|_| peer(rng)).collect(),
            params: params(rng),
        },
        1 => exclude(rng, expect),
        2 => Command::Readmit {
            expect,
            id: id(rng),
        },
        3 => Command::Replace {
            expect,
            old: id(rng),
            by: peer(rng),
        },
        4 => Command::Promote {
            expect,
            id: id(rng),
        },
        5 => Command::SetParams {
            expect_version: rng.below(4),
            params: params(rng),
        },
        6 => Command::Add {
            expect,
            peer: peer(rng),
        },
        7 => Command::Remove {
            expect,
            id: id(rng),
        },
        8 => Command::Register {
            instances: (0..rng.below(9)).map(|_| (id(rng), rng.number())).collect(),
        },
        9 => Command::Lead {
            id: id(rng),
            term: rng.number(),
        },
        10 => Command::Compact { in_log: rng.flag() },
        _ => Command::Piece {
            at: rng.below(64),
            offset: match rng.flag() {
                true => 0,
                false => rng.number(),
            },
            data: rng.bytes(99),
            whole: rng.flag().then(|| rng.next() as u32),
        },
    }
}

fn exclude(rng: &mut Rng<'_>, expect: Epoch) -> Command {
    let ids: Vec<NodeId> = (0..rng.below(5)).map(|_| id(rng)).collect();
    Command::Exclude {
        expect,
        silent: ids.iter().map(|_| rng.number() as u32).collect(),
        ids,
        by: match rng.flag() {
            true => Cause::Detector,
            false => Cause::Admin,
        },
    }
}
