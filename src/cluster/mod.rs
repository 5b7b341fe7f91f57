//! The replicated cluster state: members, settings, epochs, exclusions; its commands.
//!
//! A leader asks [`State::check`] what a [`Command`] would change before it proposes it; every node
//! gives every committed entry to [`State::apply`], in order. Both sides use the same rules on the
//! same state, so what was checked is what happens.

mod command;
mod member;
mod outcome;
mod params;
mod rules;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Cause, Command};
pub use member::{MAX_ADDRESS, MAX_IDS, MAX_META, Member, Peer, Status};
pub use outcome::{Change, ClusterError, Fact, Refusal};
pub use params::{Params, ParamsError};
pub use state::{State, bootstrap_entry};
