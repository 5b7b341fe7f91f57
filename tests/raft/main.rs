//! Behaviour of the Raft core: named scenarios that implementations get wrong, under a checker
//! that holds every step against the predicates of the protocol, and under the reference model.
//! Random faults are in `tests/sim`.

mod checker;
mod cluster;
mod disk;
mod drive;
mod host;
#[path = "../support/model/mod.rs"]
mod model;
mod network;
mod scenarios;
