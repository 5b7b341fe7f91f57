//! Raft, pure: events go in with their time, actions come out.

mod message;
mod types;

pub use message::{Append, AppendOutcome, AppendReply, Message, VoteReply, VoteRequest};
pub use types::{
    Bytes, Configuration, Entry, Epoch, Exclusion, HardState, Index, Millis, NodeId, Payload,
    Persist, Restored, Term, Token,
};
