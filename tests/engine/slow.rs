//! A leader whose disk is slower than those of the others hands leadership over: once, and only then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use raftkeel::core::{Index, Millis, Priority};
use raftkeel::engine::{Event, Input, Request, Role, Settings, Ticket};
use raftkeel::storage::{Batch, HostCode, HostStore, Records};

use crate::cluster::{Cluster, id, settings};

/// What a host says of what it was not made for.
const NOTHING: HostCode = 5;

/// A store that forgets everything, and takes its time for it: its nodes are never opened again.
#[derive(Debug, Default)]
pub struct SlowStore {
    /// How long a write takes.
    delay: AtomicU64,
    now: AtomicU64,
    /// Under way, with the times of their ends.
    writes: Mutex<VecDeque<(Millis, u64)>>,
}

impl SlowStore {
    /// The writes that have ended by now.
    pub fn ended(&self, now: Millis) -> Vec<u64> {
        self.now.store(now, Relaxed);
        let mut writes = self.writes.lock().unwrap();
        let ended = writes.iter().take_while(|(end, _)| *end <= now).count();
        writes.drain(..ended).map(|(_, number)| number).collect()
    }
}

impl HostStore for SlowStore {
    fn open(&self, _records: &mut Records) -> Result<(), HostCode> {
        Ok(())
    }
    fn write(&self, batch: &Batch<'_>) -> Result<(), HostCode> {
        let mut writes = self.writes.lock().unwrap();
        let end = self.now.load(Relaxed) + self.delay.load(Relaxed);
        // They end in their order, also where the delay has become shorter.
        let end = writes.back().map_or(end, |(last, _)| end.max(*last));
        writes.push_back((end, batch.number));
        Ok(())
    }
    fn read(&self, _: Index, _: Index, _: &mut Records) -> Result<(), HostCode> {
        Err(NOTHING)
    }
    fn trim(&self, _: Index) -> Result<(), HostCode> {
        Ok(())
    }
    fn keeps_snapshots(&self) -> bool {
        false
    }
    fn snap_put(&self, _: u64, _: u64, _: &[u8]) -> Result<(), HostCode> {
        Err(NOTHING)
    }
    fn snap_commit(&self, _: u64) -> Result<(), HostCode> {
        Err(NOTHING)
    }
    fn snap_get(&self, _: u64, _: u64, _: &mut [u8]) -> Result<usize, HostCode> {
        Err(NOTHING)
    }
    fn snap_drop(&self, _: u64) -> Result<(), HostCode> {
        Err(NOTHING)
    }
}

/// Members on such disks, the times that they take, and who led.
struct Loaded {
    c: Cluster,
    disks: Vec<Arc<SlowStore>>,
    leaders: Vec<u64>,
    tickets: u64,
}

impl Loaded {
    fn new(delays: &[Millis]) -> Loaded {
        Loaded::of(delays, |settings| settings)
    }

    fn of(delays: &[Millis], change: impl Fn(Settings) -> Settings) -> Loaded {
        let disks: Vec<Arc<SlowStore>> = delays.iter().map(|_| Arc::default()).collect();
        let mut c = Cluster::on_stores(&disks, |raw| change(settings(raw)));
        for (disk, delay) in disks.iter().zip(delays) {
            disk.delay.store(*delay, Relaxed);
        }
        let leaders = vec![c.elect()];
        Loaded {
            c,
            disks,
            leaders,
            tickets: 1 << 32,
        }
    }

    fn leader(&self) -> u64 {
        *self.leaders.last().unwrap()
    }

    fn set_delay(&self, raw: u64, delay: Millis) {
        self.disks[raw as usize - 1].delay.store(delay, Relaxed);
    }

    /// Whoever leads is asked for something all the time.
    fn load(&mut self, span: Millis) {
        let end = self.c.now + span;
        while self.c.now < end {
            if let Some(leader) = self.c.leader() {
                if leader != self.leader() {
                    self.leaders.push(leader);
                }
                self.tickets += 1;
                let request = Request::Propose(b"some data"[..].into());
                let input = Input::Request(Ticket(self.tickets), request);
                self.c.nodes[&leader].handle.submit(input).unwrap();
            }
            self.c.run(5);
        }
    }

    fn transfers(&self, raw: u64) -> u64 {
        let handle = &self.c.nodes[&raw].handle;
        handle.view(|v| v.metrics.slow_disk_transfers)
    }

    fn all_transfers(&self) -> u64 {
        self.c.nodes.keys().map(|raw| self.transfers(*raw)).sum()
    }
}

#[test]
fn a_leader_with_a_slow_disk_hands_over_once() {
    let mut l = Loaded::new(&[5, 5, 5]);
    let old = l.leader();
    l.load(5_000);
    l.set_delay(old, 100);
    l.load(60_000);
    assert_eq!(2, l.leaders.len(), "led in turn: {:?}", l.leaders);
    assert_eq!((1, 1), (l.transfers(old), l.all_transfers()));
    let events = l.c.nodes[&old].told.events.iter();
    let told: Vec<_> = events.filter(|e| e.code() == "DISK_SLOW").collect();
    let [
        Event::Slow {
            to,
            own_ms,
            quorum_ms,
        },
    ] = told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(id(l.leader()), *to);
    assert!(*own_ms >= 100 && *quorum_ms < 50, "{told:?}");
    l.c.run(1_000);
    let refused = l.c.nodes.values().flat_map(|n| &n.told.done);
    let refused = refused.filter(|(_, result)| result.is_err()).count();
    // While leadership is handed over, some twenty milliseconds.
    assert!(refused < 20, "{refused} proposals were refused");
}

#[test]
fn disks_that_are_alike_move_nothing() {
    for delays in [[5; 5], [100; 5], [300; 5]] {
        let mut l = Loaded::new(&delays);
        l.load(60_000);
        assert_eq!((1, 0), (l.leaders.len(), l.all_transfers()), "{delays:?}");
    }
}

/// A quorum without the leader is no faster than its slowest member.
#[test]
fn one_fast_disk_of_three_moves_nothing() {
    let mut l = Loaded::new(&[5, 5, 5]);
    let (leader, slow) = (l.leader(), l.leader() % 3 + 1);
    l.set_delay(leader, 100);
    l.set_delay(slow, 100);
    l.load(60_000);
    assert_eq!((1, 0), (l.leaders.len(), l.all_transfers()));
}

#[test]
fn leadership_that_comes_back_stays_for_a_while() {
    let mut l = Loaded::new(&[5, 5, 5]);
    let old = l.leader();
    l.set_delay(old, 100);
    l.load(10_000);
    let new = l.leader();
    assert_ne!(old, new);
    l.c.ask(new, Request::Transfer(Some(id(old)))).unwrap();
    l.load(40_000);
    assert_eq!(old, l.leader(), "not within a minute");
    l.load(30_000);
    assert_ne!(old, l.leader(), "{:?}", l.leaders);
    assert_eq!(2, l.transfers(old));
}

#[test]
fn a_host_may_not_want_it() {
    let unwanted = |settings| Settings {
        spares_own_disk: false,
        ..settings
    };
    let mut l = Loaded::of(&[5, 5, 5], unwanted);
    l.set_delay(l.leader(), 100);
    l.load(30_000);
    assert_eq!((1, 0), (l.leaders.len(), l.all_transfers()));
}

/// Otherwise it would be handed back at once.
#[test]
fn nobody_takes_over_who_is_wished_for_less() {
    let mut l = Loaded::new(&[5, 5, 5]);
    let old = l.leader();
    let wished: Priority = 9;
    let input = Input::Priority(wished);
    l.c.nodes[&old].handle.submit(input).unwrap();
    l.c.run(3_000);
    l.set_delay(old, 100);
    l.load(30_000);
    assert_eq!((1, 0), (l.leaders.len(), l.all_transfers()));
    assert_eq!(Role::Leader, l.c.role(old));
}
