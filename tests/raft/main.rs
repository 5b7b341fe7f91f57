//! Behaviour of the Raft core: named scenarios that implementations get wrong,
//! under a checker that holds every step against the predicates of the protocol. Random faults are
//! in `tests/sim`.

mod checker;
mod cluster;
mod network;
mod scenarios;
