//! Memory that cannot be had. A cluster lives through everything that takes memory by the size of
//! what its host or its peers give it, and each allocation of some size fails: once, or from there on
//! for a while. No call ever ends the process; what was acknowledged stays, what was refused never
//! happens, and everything goes on.
//!
//! Each run is a process of its own. By default one run for each place in the code that allocates, on
//! each way that leads to it; `RAFTKEEL_MEMORY=all` has every single allocation fail.

mod alloc;
mod cluster;
mod host;
mod sweep;

use std::path::Path;

use cluster::{Cluster, Order, Place};
use sweep::sweep;

/// Everything that takes memory by the size of what it is given.
fn live(root: &Path, place: Place, in_log: bool) {
    let mut c = Cluster::new(root.to_owned(), place, in_log, 3);
    for id in 1..=3 {
        c.open(id, true);
    }
    for id in 1..=3 {
        c.bootstrap(id, &[1, 2, 3]);
    }
    c.await_leader();
    c.commit(300, 40);
    c.commit(3, 500_000);
    c.order(None, Order::Add(9));
    c.order(None, Order::Remove(9));
    // One that has missed some of it gets entries that are not in memory any more.
    let leader = c.await_leader();
    let away = 1 + leader % 3;
    let third = 1 + away % 3;
    c.free(away);
    c.commit(4, 150_000);
    c.commit(100, 5000);
    c.order(Some(third), Order::Barrier);
    c.open(away, false);
    c.agree();
    // One that has missed more gets a snapshot, once nobody waits for it any more.
    c.free(away);
    c.pass(3000);
    for _ in 0..2 {
        c.commit(2, 150_000);
        c.order(None, Order::Snapshot);
        if !in_log {
            c.order(Some(third), Order::Snapshot);
        }
    }
    c.commit(5, 100_000);
    c.open(away, false);
    c.agree();
    assert!(c.installed(away) > 0, "a snapshot was to be sent");
    c.order(None, Order::Transfer(away));
    for id in 1..=3 {
        c.until("the status", |c| c.status(id).is_some());
    }
    // All begin anew, with snapshots and large entries.
    for id in 1..=3 {
        c.free(id);
        c.open(id, false);
    }
    c.commit(3, 500_000);
    c.agree();
    c.free_all();
}

#[test]
fn with_directories() {
    sweep("with_directories", |root| {
        live(root, Place::Directory, false)
    });
}

#[test]
fn with_storage_of_the_hosts() {
    sweep("with_storage_of_the_hosts", |root| {
        live(root, Place::Host, false)
    });
}

#[test]
fn with_snapshots_in_the_log() {
    sweep("with_snapshots_in_the_log", |root| {
        live(root, Place::Directory, true)
    });
}
