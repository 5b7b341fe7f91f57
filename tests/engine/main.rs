//! Members together, over a network in memory and with injected time.

mod chaos;
mod cluster;
mod damage;
mod ears;
mod exclusion;
mod fleet;
mod leadership;
mod lease;
mod load;
mod members;
mod opening;
mod slow;
mod snapshots;
mod versions;
