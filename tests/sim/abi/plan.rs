//! What a seed decides of a run through the C interface, besides what it decides of any run.

use raftkeel::ffi::snapshot::{KEEL_COMPACT_APPLICATION, KEEL_COMPACT_IN_LOG, KEEL_COMPACT_LEADER};

use super::host::Manners;
use super::keel::Setup;
use crate::dice::{Dice, Ppm};
use crate::net::MAX_NODES;
use crate::queue::Micros;
use crate::swarm::{Strike, Swarm};

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub swarm: Swarm,
    pub setup: Setup,
    /// Of each node's host.
    pub manners: [Manners; MAX_NODES],
    /// Inputs wait up to this long for the next driving call; 0 = they are taken at once.
    pub burst: Micros,
    /// A completion is answered by another request from within it.
    pub eager: Ppm,
    /// The transport does not know who sends.
    pub nameless: bool,
    /// At the end, when all is well, disks become slow.
    pub slow_end: Option<Slowness>,
}

/// Whose disks become slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slowness {
    Leader,
    All,
}

fn sometimes(dice: &mut Dice, low: u64, high: u64) -> Ppm {
    match dice.coin() {
        true => dice.scaled(low, high) as Ppm,
        false => 0,
    }
}

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        let mut swarm = Swarm::draw(seed ^ 0xab1_0000_0000);
        swarm
            .strikes
            .retain(|(strike, _)| !matches!(strike, Strike::Damage | Strike::FillDisk));
        let dice = &mut Dice::new(seed ^ 0x00ab_15ee_d000);
        let unit = swarm.election_micros();
        // Some images are of several pieces.
        let image = swarm.storage.size * if dice.once_in(8) { 24 } else { 1 };
        let mut setup = draw_setup(dice, &swarm);
        if swarm.limits.snapshot_rate.is_some() {
            setup.snapshot_rate = draw_rate(dice, image, unit);
        }
        let manners = draw_manners(dice, &swarm, &setup, image);
        // Drawn apart: runs without it are what they were before there was any.
        let slow = &mut Dice::new(seed ^ 0x510_d15c);
        if slow.coin() {
            let gap = slow.scaled(2 * unit, 20 * unit);
            swarm.strikes.push((Strike::SlowDisk, gap));
        }
        setup.slow_leader = slow.once_in(6);
        let slow_end = *slow.pick(&[
            None,
            None,
            None,
            Some(Slowness::Leader),
            Some(Slowness::All),
        ]);
        Plan {
            setup,
            manners,
            burst: match dice.coin() {
                true => 0,
                false => dice.scaled(10, unit / 50),
            },
            eager: sometimes(dice, 10_000, 300_000),
            nameless: dice.once_in(4),
            slow_end,
            swarm,
        }
    }
}

/// Bytes of snapshots in a second: all of an image, and of what the cluster adds to it, passes in a
/// few election timeouts to all nodes.
pub fn draw_rate(dice: &mut Dice, image: usize, unit: Micros) -> u64 {
    const OWN: u64 = 4_000;
    let least = 1 + (image as u64 + OWN) * MAX_NODES as u64 * 1_000_000 / (4 * unit);
    dice.scaled(least, 64 * least)
}

fn draw_setup(dice: &mut Dice, swarm: &Swarm) -> Setup {
    let election = swarm.election as u32;
    let keepalive = (election / dice.within(1, 5) as u32).max(10);
    let deadtime = match dice.once_in(4) {
        true => 0,
        false => (dice.within(4, 16) as u32 * election).max(2 * keepalive + 1),
    };
    let compactions = [
        KEEL_COMPACT_APPLICATION,
        KEEL_COMPACT_APPLICATION,
        KEEL_COMPACT_LEADER,
        KEEL_COMPACT_IN_LOG,
    ];
    Setup {
        heartbeat_ms: (swarm.heartbeat as u32).min(election / 3),
        election_ms: election,
        queue_max: match dice.once_in(8) {
            true => dice.scaled(4, 64) as u32,
            false => 0,
        },
        entry_max: swarm.limits.entry_max.min(1 << 14) as u32,
        message_max: if dice.coin() { 0 } else { 32 << 10 },
        compaction: *dice.pick(&compactions),
        compact_entries: match dice.once_in(4) {
            true => 0,
            false => dice.scaled(3, 200) as u32,
        },
        memory_max: match dice.coin() {
            true => 0,
            false => dice.scaled(1, 4000),
        },
        snapshot_rate: 0,
        lease_reads: swarm.limits.lease_reads,
        slow_leader: false,
        keepalive_ms: keepalive,
        deadtime_ms: deadtime,
        initdead_ms: deadtime * dice.within(1, 3) as u32,
        settle_ms: 0,
    }
}

/// One of the hosts may be another program than the others.
fn draw_manners(
    dice: &mut Dice,
    swarm: &Swarm,
    setup: &Setup,
    image: usize,
) -> [Manners; MAX_NODES] {
    let storage = &swarm.storage;
    // Members that compare their snapshots are promised equal ones.
    let alike = storage.alike || setup.compaction == KEEL_COMPACT_LEADER;
    let mut draw = || Manners {
        fails: storage.fails,
        refuses_writes: sometimes(dice, 20, 2_000),
        stores_at_once: match dice.below(3) {
            0 => 1_000_000,
            1 => 0,
            _ => dice.scaled(1_000, 500_000) as Ppm,
        },
        lazy: *dice.pick(&[0, 200_000, 1_000_000]),
        gives_up: sometimes(dice, 5_000, 200_000),
        refuses_entries: sometimes(dice, 20, 1_000),
        vetoes: sometimes(dice, 50_000, 900_000),
        image,
        alike,
    };
    let (common, other) = (draw(), draw());
    let mut manners = [common; MAX_NODES];
    if dice.coin() {
        manners[dice.below(MAX_NODES as u64) as usize] = other;
    }
    manners
}
