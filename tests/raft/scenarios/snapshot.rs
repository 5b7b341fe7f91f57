//! Snapshots: what is said of them, and what that proves.

use crate::cluster::{Cluster, E, H};

/// n1 leads; n3 lacks what n1 has compacted away, and has been offered a snapshot of it, whose
/// pieces it cannot keep for now.
fn behind() -> Cluster {
    let mut c = Cluster::led(3);
    c.isolate(3);
    for _ in 0..8 {
        c.propose(1, "X").unwrap();
    }
    c.deliver_all();
    c.heartbeat(1);
    c.save(1);
    c.compact(1, 8, true, true);
    c.node_mut(3).hold_asks = true;
    c.network.heal();
    c
}

/// A leader numbers its messages anew in every term: the number of an older one, said in a newer
/// term, would confirm reads that came later.
#[test]
fn a_number_of_an_older_term_confirms_nothing() {
    let mut c = behind();
    c.run(4 * E);
    assert!(!c.node_mut(3).asks.is_empty(), "n3 is receiving");
    c.step_down(1);
    c.elect(1);
    assert!(c.raft(1).is_leader());
    c.run(2 * H);
    // n1 is cut off, and others commit without it.
    c.isolate(1);
    c.node_mut(3).hold_asks = false;
    c.elect(2);
    let (_, index) = c.propose(2, "W").unwrap();
    c.deliver_all();
    assert_eq!(index, c.commit(2));
    let read = c.read(1).unwrap();
    c.deliver_all();
    assert_eq!(None, c.outcome(1, read));
}
