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

use alloc::Fault;
use cluster::{Cluster, Order, Place};
use sweep::{alone, sweep};

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
    for _ in 0..2 {
        c.commit(2, 150_000);
        // A leader that is new by then waits for it as well.
        c.pass(3000);
        if in_log {
            c.order(None, Order::Snapshot);
            continue;
        }
        // Whichever of them leads by now, or later.
        for id in [leader, third] {
            c.order(Some(id), Order::Snapshot);
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

/// More is proposed than there is memory for: some of it is refused, and what was taken does not wait for
/// memory that it holds itself. In a process of its own: all tests of one share its memory.
#[test]
fn what_waits_does_not_wait_for_itself() {
    alone("what_waits_does_not_wait_for_itself", |root| {
        for (size, place) in [
            (1, Place::Directory),
            (1, Place::Host),
            // Three hosts' storage would take the memory of one.
            (3, Place::Directory),
        ] {
            for len in [20_000, 400_000] {
                let root = root.join(format!("{size}-{place:?}-{len}"));
                std::fs::create_dir(&root).expect("a directory");
                flooded(&root, place, size, len);
            }
        }
    });
}

fn flooded(root: &Path, place: Place, size: usize, len: usize) {
    const ROOM: usize = 24 << 20;
    let mut c = Cluster::new(root.to_owned(), place, false, size);
    let ids: Vec<u64> = (1..=size as u64).collect();
    ids.iter().for_each(|id| c.open(*id, true));
    ids.iter().for_each(|id| c.bootstrap(*id, &ids));
    c.await_leader();
    c.commit(10, 1000);
    c.limit_leader();
    alloc::limit(ROOM);
    let (refused, committed) = c.flood(2 * ROOM / len, len);
    println!("{size} {place:?} {len}: {refused} refused, {committed} committed");
    assert!(refused > 0 && committed > 0, "{refused}, {committed}");
    // What a host has stored takes its memory.
    alloc::limit(ROOM);
    c.commit(10, len);
    c.agree();
    c.free_all();
    alloc::unlimit();
}

/// Of a proposal of any size but a few bytes the copy is an allocation that may fail.
#[test]
fn no_proposal_is_too_small_to_be_refused() {
    const SMALLEST: usize = 128;
    alone("no_proposal_is_too_small_to_be_refused", |root| {
        let mut c = Cluster::new(root.to_owned(), Place::Directory, false, 1);
        c.open(1, true);
        c.bootstrap(1, &[1]);
        c.await_leader();
        for len in [SMALLEST, 500, 1000, 2000, 2048, 2049, 4000, 5000] {
            let failed = alloc::failed();
            alloc::set(Fault::From(1), SMALLEST, 1);
            let refused = c.refuses(len);
            alloc::heal();
            assert!(refused && alloc::failed() > failed, "{len} bytes");
            c.commit(3, len);
        }
        c.agree();
        c.free_all();
    });
}
