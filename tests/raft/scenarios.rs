//! The scenarios that fresh implementations get wrong, under their numbers in the design. There
//! they start with a leader in term 1; here a bootstrap makes 1.1 and n1's no-op is 2.2, so terms
//! and indexes are one higher than in their text.

mod damaged;
mod election;
mod full;
mod interaction;
mod lost;
mod membership;
mod news;
mod outlined;
mod persistence;
mod read;
mod receiving;
mod replication;
mod sending;
mod snapshot;
mod transfer;
