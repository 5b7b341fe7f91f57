//! Behaviour of the Raft core: named scenarios that implementations get wrong, under a checker
//! that holds every step against the predicates of the protocol, and under the reference model.
//! Random faults are in `tests/sim`.

// The servers serve other tests too, which use more of them.
#[allow(dead_code)]
mod checker;
#[allow(dead_code)]
mod cluster;
mod disk;
#[allow(dead_code)]
mod drive;
mod host;
#[path = "../support/model/mod.rs"]
mod model;
#[allow(dead_code)]
mod network;
mod scenarios;
