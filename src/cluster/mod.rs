//! The replicated cluster state: members, settings, epochs, exclusions; its commands.
//!
//! A leader asks [`State::check`] what a [`Command`] would change before it proposes it; every node
//! gives every committed entry to [`State::apply`], in order. Both sides use the same rules on the
//! same state, so what was checked is what happens.

mod command;
mod image;
mod member;
mod outcome;
mod params;
mod pieces;
mod rules;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Cause, Command, MAX_LOG_PIECE, Piece};
pub use image::MAX_IMAGE;
pub use member::{MAX_ADDRESS, MAX_IDS, MAX_META, Member, Peer, Status};
pub use outcome::{Change, ClusterError, Fact, Pieces, Refusal};
pub use params::{Params, ParamsError};
pub use pieces::Assembly;
pub use state::{Leadership, State, bootstrap_entry};

/// Heap bytes that decoding a command or the image of a state may take at any moment for one byte of
/// input; over time it takes at most twice as much. The worst case, 9, is a bootstrap of 33 nodes
/// without addresses: a list that has just grown.
pub const MAX_AMPLIFICATION: usize = 12;
