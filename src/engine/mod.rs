//! One cluster member: inputs are queued, one driving call takes them through core, detector and
//! storage, and what comes out is handed to the host at its end.
//!
//! - [`Handle`]: inputs and questions, from any thread
//! - [`Member`]: the driven half: plain steps, or behind a descriptor
//! - `engine`: one round; `peers`: packets in and out; `watch`: detection, and what is told; `apply`: what is committed; `requests`: what the host asks for;
//!   `leadership`: barriers, transfers, eligibility; `outbox`: packets; `status`: the view
//! - `snapshot`: this node's own snapshots; `install`: those of others, and what the core asks
//!   storage for; `image`: what one is made of, and the host's handles on it
//! - `full`: a disk without room for the log; `slow`: one that a leader makes everybody wait for
//! - `instances`: which storage every member has; `outcast`: who is out, and is told
//! - [`Host`]: what the host is told

mod action;
mod apply;
mod descriptor;
#[allow(clippy::module_inception)]
mod engine;
mod error;
mod event;
mod full;
mod host;
mod image;
mod install;
mod instances;
mod leadership;
mod member;
mod outbox;
mod outcast;
mod peers;
mod requests;
mod reserve;
mod settings;
mod shared;
mod slow;
mod snapshot;
mod status;
mod view;
mod watch;

use crate::cluster::Params;
use crate::detector::Timers;

pub use error::Error;
pub use event::Event;
pub use host::{Guard, Host, Input, Request, Ticket};
pub use image::{HEAD_AMPLIFICATION, Load, Save, Saved};
#[cfg(any(test, fuzzing))]
pub(crate) use image::{head_of, read_head};
pub use member::Member;
pub use settings::{
    COMPACT_BYTES_DEFAULT, COMPACT_ENTRIES_DEFAULT, Compaction, ELECTION_HEARTBEATS, ENTRY_DEFAULT,
    HEARTBEAT_DEFAULT, HostState, MESSAGE_DEFAULT, MESSAGE_REST, Place, QUEUE_DEFAULT, Settings,
    TAIL_DEFAULT, Way,
};
pub use shared::Handle;
pub use view::{Info, Metrics, NodeView, Role, View};

/// The detector's timers under these settings.
fn timers(params: &Params, settings: &Settings, provisioned: usize) -> Timers {
    Timers {
        keepalive: params.keepalive_ms(),
        warntime: params.warntime_ms(),
        deadtime: params.deadtime_ms(),
        initdead: params.initdead_ms(),
        settle: params.settle_ms(),
        fencetime: params.fencetime_ms(settings.election),
        election: settings.election,
        min_nodes: u32::try_from(params.floor(provisioned)).unwrap_or(u32::MAX),
    }
}

/// Whether two texts are the same. Empty ones, the usual case, are told apart without memcmp(): an
/// empty `String` points at no memory, and processors are slow to find that reading none of it is
/// no fault.
fn same_text(a: &str, b: &str) -> bool {
    a.is_empty() && b.is_empty() || a == b
}
