//! One cluster member: inputs are queued, one driving call takes them through core, detector and
//! storage, and what comes out is handed to the host at its end.

mod error;
mod host;
mod stub;
mod view;

pub use error::Error;
pub use host::{Guard, Host, Input, Request, Ticket};
pub use stub::{Handle, Member, Place, Settings};
pub use view::{Info, Metrics, NodeView, Role, View};
