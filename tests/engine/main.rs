//! Members together, over a network in memory and with injected time.

mod cluster;
mod exclusion;
mod load;
mod members;
