//! What one peer testifies about the others: its newest row, and when it is known to have heard
//! whom (detection.md 4.4).

use crate::core::{MAX_MEMBERS, Millis, NodeId};

use super::clock::Listened;
use super::message::{Keepalive, RowItem};

/// A row is fresh if it arrived within so many keepalives (detection.md 4.5).
const FRESH_KEEPALIVES: Millis = 3;
/// And if it was sent after something that this node sent within so many. Without this a row
/// that hung in a stuck connection for a minute would pass for news.
const ECHO_KEEPALIVES: Millis = 2 * FRESH_KEEPALIVES;
/// Scores above this put a node's testimony aside (detection.md 4.4).
pub(super) const HEALTHY: u8 = 3;

/// The time at which a row is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instant {
    pub(super) now: Millis,
    pub(super) listened: Listened,
    pub(super) keepalive: Millis,
}

/// The newest row of one peer.
#[derive(Debug)]
struct Row {
    arrived: Listened,
    stamp: Millis,
    /// It was sent after this node sent this, on this node's clock.
    echo: Millis,
    items: Vec<RowItem>,
}

/// One peer as a witness.
#[derive(Debug, Default)]
pub(super) struct Witness {
    row: Option<Row>,
    health: u8,
    health_stamp: Millis,
    /// The latest points at which it is known to have heard whom, in any of its runs.
    heard: Vec<(NodeId, Listened)>,
}

impl Witness {
    /// Takes in a keepalive of its present run, sent at `stamp` on its clock.
    pub(super) fn testify(&mut self, at: Listened, stamp: Millis, echo: Millis, k: Keepalive) {
        assert!(
            k.row.len() <= MAX_MEMBERS,
            "wire lets no longer row through"
        );
        if stamp >= self.health_stamp {
            self.health_stamp = stamp;
            self.health = k.health;
        }
        let newest = self.row.as_ref().is_none_or(|row| stamp > row.stamp);
        if k.row.is_empty() || !newest {
            return;
        }
        for item in k.row.iter().filter(|item| item.age != u32::MAX) {
            self.mark(item.node, at.before(Millis::from(item.age)));
        }
        let mut items = k.row;
        items.sort_unstable_by_key(|item| item.node);
        self.row = Some(Row {
            arrived: at,
            stamp,
            echo,
            items,
        });
    }

    /// It runs anew. What it says about its listening starts from nothing, but that the old run
    /// heard somebody stays true: it may have confirmed that node's lease.
    pub(super) fn restarted(&mut self) {
        self.row = None;
        self.health = 0;
        self.health_stamp = 0;
    }

    /// Forgets nodes that are no longer known, so that memory stays bounded.
    pub(super) fn keep_only(&mut self, known: impl Fn(NodeId) -> bool) {
        self.heard.retain(|&(node, _)| known(node));
    }

    /// Whether its row is recent, by arrival and by what it proves to have been sent after.
    pub(super) fn is_fresh(&self, t: Instant) -> bool {
        self.row.as_ref().is_some_and(|row| {
            t.listened.since(row.arrived) <= FRESH_KEEPALIVES * t.keepalive
                && row.echo > 0
                && t.now.saturating_sub(row.echo) <= ECHO_KEEPALIVES * t.keepalive
        })
    }

    /// Whether its row counts: fresh, and of a healthy listener.
    pub(super) fn counts(&self, t: Instant) -> bool {
        self.health <= HEALTHY && self.is_fresh(t)
    }

    /// What its newest row says about `node`.
    pub(super) fn item(&self, node: NodeId) -> Option<&RowItem> {
        let items = &self.row.as_ref()?.items;
        let at = items.binary_search_by_key(&node, |item| item.node).ok()?;
        items.get(at)
    }

    /// Milliseconds since its newest row arrived; `None` without one in its present run.
    pub(super) fn row_age(&self, at: Listened) -> Option<Millis> {
        self.row.as_ref().map(|row| at.since(row.arrived))
    }

    /// Milliseconds since it is known to have heard `node`; `None` if it is not known to have.
    pub(super) fn heard_ago(&self, node: NodeId, at: Listened) -> Option<Millis> {
        let mut heard = self.heard.iter();
        heard.find(|(n, _)| *n == node).map(|&(_, h)| at.since(h))
    }

    fn mark(&mut self, node: NodeId, heard: Listened) {
        let known = self.heard.iter().position(|(n, _)| *n == node);
        match known {
            Some(at) => self.heard[at].1 = heard.max(self.heard[at].1),
            // Members and excluded nodes fit; what a peer adds beyond them is unknown here.
            None if self.heard.len() < 2 * MAX_MEMBERS => self.heard.push((node, heard)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::super::message::KeepaliveKind;
    use super::super::testing::{id, row_item};
    use super::*;

    const KEEPALIVE: Millis = 1000;

    fn push(health: u8, row: Vec<RowItem>) -> Keepalive {
        Keepalive {
            kind: KeepaliveKind::Push,
            health,
            applied: 0,
            row,
            notice: None,
        }
    }

    struct Bench {
        clock: Clock,
        witness: Witness,
    }

    impl Bench {
        fn new() -> Bench {
            let mut clock = Clock::default();
            clock.advance(1_000_000, KEEPALIVE, true);
            Bench {
                clock,
                witness: Witness::default(),
            }
        }

        fn instant(&self) -> Instant {
            Instant {
                now: self.clock.now(),
                listened: self.clock.listened(),
                keepalive: KEEPALIVE,
            }
        }

        fn pass(&mut self, span: Millis) {
            let end = self.clock.now() + span;
            while self.clock.now() < end {
                let next = end.min(self.clock.now() + 100);
                self.clock.advance(next, KEEPALIVE, true);
            }
        }

        fn testify(&mut self, stamp: Millis, echo: Millis, k: Keepalive) {
            self.witness.testify(self.clock.listened(), stamp, echo, k);
        }
    }

    #[test]
    fn a_row_is_fresh_for_three_keepalives() {
        let mut b = Bench::new();
        assert!(!b.witness.is_fresh(b.instant()));
        let now = b.clock.now();
        b.testify(1, now, push(0, vec![row_item(3, 5, 9000, 1)]));
        b.pass(3000);
        assert!(b.witness.counts(b.instant()));
        b.pass(100);
        assert!(!b.witness.counts(b.instant()));
        assert_eq!(b.witness.row_age(b.clock.listened()), Some(3100));
    }

    #[test]
    fn a_row_that_was_long_on_its_way_is_not_fresh() {
        let mut b = Bench::new();
        let old = b.clock.now() - 6001;
        b.testify(1, old, push(0, vec![row_item(3, 5, 9000, 1)]));
        assert!(!b.witness.is_fresh(b.instant()));
        b.testify(2, 0, push(0, vec![row_item(3, 5, 9000, 1)]));
        assert!(!b.witness.is_fresh(b.instant()), "it proves nothing");
        b.testify(3, old + 1, push(0, vec![row_item(3, 5, 9000, 1)]));
        assert!(b.witness.is_fresh(b.instant()));
    }

    #[test]
    fn an_older_row_replaces_nothing() {
        let mut b = Bench::new();
        let now = b.clock.now();
        b.testify(10, now, push(1, vec![row_item(3, 5, 9000, 1)]));
        b.testify(9, now, push(8, vec![row_item(3, 7000, 8000, 1)]));
        b.testify(11, now, push(2, vec![]));
        assert_eq!(b.witness.item(id(3)).map(|item| item.age), Some(5));
        assert!(b.witness.counts(b.instant()));
    }

    #[test]
    fn the_unhealthy_do_not_count() {
        let mut b = Bench::new();
        let now = b.clock.now();
        b.testify(1, now, push(4, vec![row_item(3, 5, 9000, 1)]));
        assert!(b.witness.is_fresh(b.instant()));
        assert!(!b.witness.counts(b.instant()));
    }

    #[test]
    fn a_restart_forgets_the_row_but_not_what_was_heard() {
        let mut b = Bench::new();
        let now = b.clock.now();
        b.testify(50, now, push(5, vec![row_item(3, 400, 9000, 1)]));
        b.witness.restarted();
        assert!(b.witness.item(id(3)).is_none());
        b.testify(1, now, push(0, vec![row_item(3, u32::MAX, 10, 0)]));
        b.pass(1000);
        assert_eq!(b.witness.heard_ago(id(3), b.clock.listened()), Some(1400));
        b.witness.keep_only(|node| node != id(3));
        assert_eq!(b.witness.heard_ago(id(3), b.clock.listened()), None);
    }

    #[test]
    fn hearing_once_known_is_not_taken_back() {
        let mut b = Bench::new();
        let now = b.clock.now();
        b.testify(1, now, push(0, vec![row_item(3, 400, 9000, 1)]));
        b.testify(2, now, push(0, vec![row_item(3, 20_000, 30_000, 1)]));
        assert_eq!(b.witness.heard_ago(id(3), b.clock.listened()), Some(400));
    }
}
