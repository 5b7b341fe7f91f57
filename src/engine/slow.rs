//! A leader whose own disk is slower than those of the others. It applies nothing that it does not hold
//! itself, so that every client waits for its disk; a quorum without it holds everything long before.
//! It hands leadership over to one of those, as a leader with a full disk does: followers do not wait
//! for a slow disk of one of them.
//!
//! How slow it is, is judged by samples: of one entry after the other how long it takes until a quorum
//! holds it, and how long until this node does. Only the difference counts, never the time itself: where
//! all disks are slow, or all nodes far away, nobody would lead better.

use crate::core::{Index, Millis, Term};

use super::Event;
use super::engine::Engine;

/// Slow is a disk in at least so many milliseconds more than a quorum takes, ...
const FLOOR: Millis = 5;
/// ... and so many times as long.
const FACTOR: Millis = 3;
/// A disk is judged by at least so many samples, ...
const SAMPLES: u64 = 16;
/// ... of which it was slow in so many of four: one long stall is one sample.
const SLOW_OF_FOUR: u64 = 3;
/// ... and over at least so many election timeouts, none of them taken for shorter than a second.
const WINDOW: Millis = 2;
/// Where entries are so rare that samples take so many times as long they are not put together.
const STALE: Millis = 30;
/// So long after it has handed over this node does not do it again; after the next time twice as long.
const PAUSE: Millis = 60_000;
const LONGEST_PAUSE: Millis = 3_600_000;

/// What a leader sees of its log.
#[derive(Clone, Copy, Debug)]
struct Seen {
    term: Term,
    last: Index,
    durable: Index,
    commit: Index,
}

/// One entry on its way to the disks.
#[derive(Clone, Copy, Debug)]
struct Sample {
    index: Index,
    since: Millis,
    /// How long a quorum took.
    quorum: Option<Millis>,
}

/// How long an entry takes on average, in milliseconds, where the disk is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    own: Millis,
    quorum: Millis,
}

/// The samples since some time.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Millis,
    samples: u64,
    slow: u64,
    /// Sums of the slow ones.
    own: Millis,
    quorum: Millis,
}

impl Window {
    fn begun(now: Millis) -> Window {
        Window {
            since: now,
            ..Window::default()
        }
    }

    fn add(&mut self, own: Millis, quorum: Millis) {
        self.samples += 1;
        if own >= quorum + FLOOR && own >= quorum * FACTOR {
            self.slow += 1;
            self.own += own;
            self.quorum += quorum;
        }
    }

    fn pace(&self) -> Option<Pace> {
        let slow = self.slow * 4 >= self.samples * SLOW_OF_FOUR;
        slow.then(|| Pace {
            own: self.own / self.slow.max(1),
            quorum: self.quorum / self.slow.max(1),
        })
    }
}

/// What is known of this node's disk while it leads, and when it handed over for that.
#[derive(Clone, Debug)]
pub(super) struct OwnDisk {
    term: Term,
    /// The end of the log when it was last looked at.
    last: Index,
    sample: Option<Sample>,
    window: Window,
    /// It is too slow for a leader.
    slow: Option<Pace>,
    /// This node does not hand over before this, ...
    stays_until: Millis,
    /// ... nor for so long after the next time.
    pause: Millis,
}

impl Default for OwnDisk {
    fn default() -> OwnDisk {
        OwnDisk {
            term: 0,
            last: 0,
            sample: None,
            window: Window::default(),
            slow: None,
            stays_until: 0,
            pause: PAUSE,
        }
    }
}

impl OwnDisk {
    /// Takes in what a leader of this election timeout sees; nothing of what was seen before counts
    /// after a time in which there was nothing to be seen.
    fn look(&mut self, now: Millis, election: Millis, seen: Option<Seen>) {
        let Some(seen) = seen else {
            // Not a leader.
            self.term = 0;
            return;
        };
        if seen.term != self.term {
            self.begin(now, seen);
        }
        let length = WINDOW * election.max(1000);
        if now - self.window.since >= STALE * length {
            // Nobody was ready to take over, and nothing has been written since.
            self.slow = None;
        }
        // One that is older has been on its way for some time.
        let new = seen.last > self.last;
        self.last = seen.last;
        if self.sample.is_none() && new {
            self.sample = Some(Sample {
                index: seen.last,
                since: now,
                quorum: None,
            });
        }
        if let Some(sample) = &mut self.sample {
            let took = now - sample.since;
            if seen.commit >= sample.index {
                sample.quorum.get_or_insert(took);
            }
            if seen.durable >= sample.index {
                // Without its disk there is no quorum yet, so it keeps nobody waiting.
                self.window.add(took, sample.quorum.unwrap_or(took));
                self.sample = None;
                self.judge(now, length);
            }
        }
    }

    fn begin(&mut self, now: Millis, seen: Seen) {
        self.term = seen.term;
        self.last = seen.last;
        self.sample = None;
        self.slow = None;
        self.window = Window::begun(now);
    }

    fn judge(&mut self, now: Millis, length: Millis) {
        let took = now - self.window.since;
        if took < length || self.window.samples < SAMPLES && took < STALE * length {
            return;
        }
        self.slow = self
            .window
            .pace()
            .filter(|_| self.window.samples >= SAMPLES);
        if self.slow.is_none() && now >= self.stays_until {
            self.pause = PAUSE;
        }
        self.window = Window::begun(now);
    }

    /// Whether it had better hand over now.
    fn wants(&self, now: Millis) -> Option<Pace> {
        self.slow.filter(|_| now >= self.stays_until)
    }

    /// It does. Whether that helps, or leadership comes back, the next time is not soon.
    fn handed_over(&mut self, now: Millis) {
        self.slow = None;
        self.stays_until = now + self.pause;
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
    }
}

impl Engine {
    /// Hands leadership over if this node's disk makes everybody wait, and somebody's does not.
    pub(super) fn spare_own_disk(&mut self) {
        let seen = self.is_disk_judged().then(|| Seen {
            term: self.raft.term(),
            last: self.raft.log().last_index(),
            durable: self.raft.log().durable(),
            commit: self.raft.commit(),
        });
        self.own_disk.look(self.now, self.settings.election, seen);
        if seen.is_none() {
            return;
        }
        let Some(Pace { own, quorum }) = self.own_disk.wants(self.now) else {
            return;
        };
        let Some(to) = self.raft.peer_to_lead() else {
            return;
        };
        if self.raft.transfer(self.now, Some(to)).is_err() {
            return;
        }
        self.own_disk.handed_over(self.now);
        self.metrics.slow_disk_transfers += 1;
        self.event(Event::Slow {
            to,
            own_ms: own,
            quorum_ms: quorum,
        });
        let text = format!(
            "handing leadership over to {to}: this node's disk takes {own} ms for an entry on \
             average, a quorum of the others {quorum} ms"
        );
        self.log(2, text);
    }

    fn is_disk_judged(&self) -> bool {
        self.settings.spares_own_disk
            && self.raft.is_leader()
            && self.raft.configuration().is_voter(self.settings.id)
            && self.raft.transferring().is_none()
            && !self.is_full()
            && self.snapshots.loading.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: Millis = 1000;

    /// A leader to whose log entries come one after the other, each when the last is on all disks.
    struct Leader {
        disk: OwnDisk,
        now: Millis,
        last: Index,
        term: Term,
    }

    impl Leader {
        fn new() -> Leader {
            let mut leader = Leader {
                disk: OwnDisk::default(),
                now: 5_000_000,
                last: 7,
                term: 3,
            };
            leader.see(7, 7);
            leader
        }

        fn see(&mut self, durable: Index, commit: Index) {
            let seen = Seen {
                term: self.term,
                last: self.last,
                durable,
                commit,
            };
            self.disk.look(self.now, ELECTION, Some(seen));
        }

        /// One entry, which is on this node's disk after `own` and on a quorum's without it after
        /// `others`.
        fn entry(&mut self, own: Millis, others: Millis) {
            let (begun, before) = (self.now, self.last);
            self.last += 1;
            for passed in 0..=own.max(others) {
                self.now = begun + passed;
                let held = |after| if passed >= after { before + 1 } else { before };
                self.see(held(own), held(others));
            }
        }

        fn entries_for(&mut self, span: Millis, own: Millis, others: Millis) {
            let end = self.now + span;
            while self.now < end {
                self.entry(own, others);
                self.now += 1;
            }
        }

        fn wants(&self) -> bool {
            self.disk.wants(self.now).is_some()
        }
    }

    #[test]
    fn a_disk_that_is_always_slow_is_noticed() {
        let mut leader = Leader::new();
        leader.entries_for(WINDOW * ELECTION - 100, 20, 2);
        assert!(!leader.wants(), "not before the end of the window");
        leader.entries_for(200, 20, 2);
        let pace = leader.disk.wants(leader.now);
        assert_eq!(pace, Some(Pace { own: 20, quorum: 2 }));
    }

    #[test]
    fn a_disk_that_is_as_slow_as_the_others_is_not() {
        for (own, others) in [
            (1, 1),
            (20, 20),
            (200, 190),
            (500, 500),
            (4, 0),
            (50, 20),
            (9, 60),
        ] {
            let mut leader = Leader::new();
            leader.entries_for(20 * ELECTION, own, others);
            assert!(!leader.wants(), "{own} ms, others {others} ms");
        }
    }

    #[test]
    fn neither_a_stall_nor_jitter_is_slowness() {
        let mut leader = Leader::new();
        for round in 0..20_000u64 {
            // Every tenth flush takes long; once in a while one takes very long.
            let own = match round % 1000 {
                999 => 1500,
                n if n % 10 == 0 => 30,
                _ => 1,
            };
            leader.entry(own, 1);
            leader.now += 1;
            assert!(!leader.wants(), "round {round}");
        }
    }

    #[test]
    fn a_few_entries_say_nothing() {
        let mut leader = Leader::new();
        for _ in 0..SAMPLES - 1 {
            leader.entry(50, 1);
            leader.now += ELECTION;
        }
        assert!(!leader.wants());
        leader.entry(50, 1);
        assert!(leader.wants(), "they were enough");
        // Nor do many that are years apart.
        let mut leader = Leader::new();
        for _ in 0..10 * SAMPLES {
            leader.entry(50, 1);
            leader.now += STALE * WINDOW * ELECTION / 4;
            assert!(!leader.wants());
        }
    }

    #[test]
    fn a_verdict_does_not_last() {
        let mut leader = Leader::new();
        leader.entries_for(WINDOW * ELECTION + 100, 20, 2);
        assert!(leader.wants());
        leader.now += STALE * WINDOW * ELECTION;
        leader.see(leader.last, leader.last);
        assert!(!leader.wants());
    }

    #[test]
    fn another_term_begins_anew() {
        let mut leader = Leader::new();
        leader.entries_for(WINDOW * ELECTION - 100, 20, 2);
        leader.disk.look(leader.now, ELECTION, None);
        leader.term += 2;
        leader.entries_for(WINDOW * ELECTION - 100, 20, 2);
        assert!(!leader.wants());
    }

    #[test]
    fn it_is_not_handed_over_again_soon_and_ever_later() {
        let mut leader = Leader::new();
        let mut pause = PAUSE;
        for _ in 0..12 {
            let begun = leader.now;
            while !leader.wants() {
                assert!(leader.now < begun + pause + 60_000, "it stays for ever");
                leader.entries_for(ELECTION, 20, 2);
            }
            let stayed = leader.now - begun;
            assert!(begun == 5_000_000 || stayed >= pause / 2, "{stayed} ms");
            leader.disk.handed_over(leader.now);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        assert_eq!(leader.disk.pause, LONGEST_PAUSE);
        // A disk that was well again for some time may be slow once more.
        leader.now = leader.disk.stays_until;
        leader.entries_for(3 * WINDOW * ELECTION, 2, 2);
        assert_eq!(leader.disk.pause, PAUSE);
    }
}
