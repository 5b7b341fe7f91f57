//! Behaviour of the Raft core: named scenarios that implementations get wrong, and random faults,
//! both under a checker that holds every step against the predicates of the protocol.

mod checker;
mod cluster;
mod network;
mod random;
mod scenarios;
