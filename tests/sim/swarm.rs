//! What a run is like. Every seed draws which faults and which work there are, and how hard:
//! all troubles at once would often keep anything from happening (Groce and others 2012: swarm
//! testing).

use std::num::NonZeroU64;

use raftkeel::core::{Index, Millis, NodeId};

use crate::dice::{Dice, Ppm};
use crate::disk;
use crate::host::Pace;
use crate::net::{self, MAX_NODES, SHAPES, Shape};
use crate::queue::Micros;
use crate::server::Setup;

/// A fault, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    Crash,
    CrashLeader,
    CrashMost,
    CrashAll,
    Pause,
    PauseLeader,
    Suspend,
    Cut,
    CutLeader,
    Depose,
    Blackout,
    Flap,
    StickDisk,
    FailWrite,
    FillDisk,
    SlowDisk,
    JumpClock,
    Replay,
    EarlyTick,
    Upgrade,
    StepDown,
    Damage,
    /// One node, or all, are told that they have lost the leader, which runs.
    Lose,
    LoseAll,
}

/// What hosts and administrators do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Propose,
    ProposeMany,
    ProposeBig,
    ProposeAnywhere,
    Read,
    ReadEverywhere,
    Change,
    Transfer,
    Priority,
    TellExcluded,
    Churn,
    Save,
    SaveEverywhere,
    Compact,
}

/// What a node does that draws a fault on itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    Leads,
    Campaigns,
    Votes,
    NewTerm,
    NewMembers,
    Truncates,
    CommitsAsLeader,
    Writes,
    HandsOver,
}

/// Whether what the node has just said still leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    BeforeSending,
    AfterSending,
}

/// A fault that waits for an occasion.
#[derive(Clone, Copy, Debug)]
pub struct Ambush {
    pub on: Occasion,
    pub strike: Strike,
    pub when: When,
    pub chance: Ppm,
}

/// How the faults end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything works again.
    All,
    /// One quorum works; every other node is out, one way or another.
    Quorum,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub nodes: usize,
    /// How many of them make up the first configuration.
    pub founders: usize,
    pub election: Millis,
    pub heartbeat: Millis,
    /// Founders are given the first entry up to this late.
    pub late_founders: Micros,
    /// How long faults last.
    pub span: Micros,
    pub net: net::Nature,
    pub shapes: Vec<Shape>,
    pub disks: [disk::Nature; MAX_NODES],
    pub storage: Storage,
    /// Clocks run too fast or too slow by up to this, in millionths.
    pub drift: u64,
    /// Timers go off late by up to this.
    pub lateness: Micros,
    /// Stopped nodes, cuts and pauses last up to this.
    pub down: Micros,
    pub strikes: Vec<(Strike, Micros)>,
    pub work: Vec<(Work, Micros)>,
    pub ambushes: Vec<Ambush>,
    pub limits: Limits,
    /// The share of hosts that are slow to apply.
    pub slow_hosts: Ppm,
    /// How many of those that run are told that they have lost one that has stopped.
    pub news: Ppm,
    /// A host that was paused gives leadership up.
    pub careful_hosts: bool,
    pub ending: Ending,
}

/// What is asked of storage and host besides writes, and what their snapshots are like.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// An answer takes up to this.
    pub latency: Micros,
    /// Loading or saving a state takes up to this.
    pub loads: Micros,
    pub fails: Ppm,
    /// A node stops when it has kept something, and has not heard so.
    pub stops: Ppm,
    /// Bytes of an image; 0 for hosts without a state.
    pub size: usize,
    /// All nodes make the same image of the same state.
    pub alike: bool,
    /// So many entries before a snapshot are kept.
    pub behind: Index,
}

/// Limits of the servers, often so small that they are met.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub batch_bytes: usize,
    pub uncommitted_bytes: usize,
    pub entry_max: usize,
    pub tail_bytes: usize,
    pub piece_bytes: usize,
    /// Bytes of snapshots in a second.
    pub snapshot_rate: Option<NonZeroU64>,
    pub lease_reads: bool,
}

impl Limits {
    const WIDE: Limits = Limits {
        batch_bytes: 1 << 16,
        uncommitted_bytes: 1 << 20,
        entry_max: 1 << 16,
        tail_bytes: 1 << 20,
        piece_bytes: 1 << 16,
        snapshot_rate: None,
        lease_reads: false,
    };

    pub fn draw(dice: &mut Dice, size: usize, unit: Micros) -> Limits {
        let size = size.max(1) as u64;
        // All of an image passes in a few election timeouts, to all peers.
        let rate = 1 + size * MAX_NODES as u64 * 1_000_000 / (4 * unit);
        let mut limits = Limits::WIDE;
        if dice.once_in(2) {
            limits.batch_bytes = dice.scaled(1, 1000) as usize;
            limits.uncommitted_bytes = dice.scaled(1, 5000) as usize;
            limits.entry_max = dice.scaled(16, 4000) as usize;
        }
        if dice.coin() {
            limits.tail_bytes = dice.below(2000) as usize;
        }
        if dice.coin() {
            limits.piece_bytes = dice.within(size.div_ceil(30), size) as usize;
            limits.snapshot_rate = NonZeroU64::new(dice.scaled(rate, 64 * rate));
        }
        limits
    }
}

impl Swarm {
    /// Everything that a seed decides before the run begins.
    pub fn draw(seed: u64) -> Swarm {
        let dice = &mut Dice::new(seed ^ 0x5eed_05ee_d05e);
        let nodes = 1 + dice.weighted(&[4, 6, 36, 12, 26, 6, 10]);
        let founders = match dice.below(5) {
            0 => dice.within(1, nodes as u64) as usize,
            _ => nodes,
        };
        let election = dice.scaled(100, 2000);
        let unit = election * 1000;
        let storage = draw_storage(dice, unit);
        let lease_reads = dice.once_in(4);
        let limits = Limits {
            lease_reads,
            ..Limits::draw(dice, storage.size, unit)
        };
        // In many runs trouble is rare.
        let peace = *dice.pick(&[1, 1, 1, 2, 4]);
        let mut swarm = Swarm {
            nodes,
            founders,
            election,
            heartbeat: (election / dice.within(3, 10)).max(1),
            late_founders: if dice.once_in(4) {
                dice.scaled(1000, 6 * unit)
            } else {
                0
            },
            span: dice.within(20, 100) * unit,
            net: draw_net(dice, unit),
            shapes: draw_shapes(dice),
            disks: draw_disks(dice, unit),
            drift: if dice.coin() { dice.below(20_001) } else { 0 },
            lateness: if dice.once_in(3) {
                dice.scaled(100, unit / 4)
            } else {
                0
            },
            down: dice.scaled(unit / 10, 8 * unit),
            news: 0,
            strikes: draw_strikes(dice, unit * peace, lease_reads),
            work: draw_work(dice, unit),
            ambushes: draw_ambushes(dice, peace),
            limits,
            storage,
            slow_hosts: *dice.pick(&[0, 0, 100_000, 500_000, 1_000_000]),
            careful_hosts: dice.once_in(4),
            ending: *dice.pick(&[Ending::All, Ending::Quorum]),
        };
        swarm.ambushes.extend(draw_blow(dice, peace));
        if dice.once_in(6) {
            let gap = dice.scaled(unit / 10, 2 * unit);
            swarm.work.push((Work::Churn, gap));
        }
        // Drawn apart: runs without it are what they were before there was any.
        let damage = &mut Dice::new(seed ^ 0xda3a_6ed0);
        if damage.once_in(3) {
            let gap = damage.scaled(2 * unit * peace, 20 * unit * peace);
            swarm.strikes.push((Strike::Damage, gap));
        }
        let room = &mut Dice::new(seed ^ 0xf011_d15c);
        if room.once_in(3) {
            let gap = room.scaled(2 * unit * peace, 20 * unit * peace);
            swarm.strikes.push((Strike::FillDisk, gap));
        }
        let lost = &mut Dice::new(seed ^ 0x1057_c0de);
        if lost.coin() {
            swarm.news = *lost.pick(&[0, 300_000, 1_000_000, 1_000_000]);
            let gap = lost.scaled(unit / 4, 20 * unit * peace);
            swarm.strikes.push((Strike::Lose, gap));
            let gap = lost.scaled(2 * unit, 40 * unit * peace);
            swarm.strikes.push((Strike::LoseAll, gap));
        }
        swarm
    }

    /// What speed is measured with: three nodes and moderate trouble, the same in every run.
    pub fn moderate(span: Micros) -> Swarm {
        const SECOND: Micros = 1_000_000;
        let disk = disk::Nature {
            latency: (100, 3_000),
            stalls: 1_000,
            stall: SECOND,
            fails: 20,
        };
        Swarm {
            nodes: 3,
            founders: 3,
            election: 1000,
            heartbeat: 100,
            late_founders: 0,
            span,
            net: net::Nature {
                latency: (100, 1_000),
                jitter: 5_000,
                lost: 10_000,
                doubled: 5_000,
                late: 1_000,
                late_by: 2 * SECOND,
                ordered: false,
                holds: false,
                archived: 1_000,
            },
            shapes: SHAPES.to_vec(),
            disks: [disk; MAX_NODES],
            storage: Storage {
                latency: 2_000,
                loads: SECOND / 5,
                fails: 100,
                stops: 100,
                size: 1000,
                alike: true,
                behind: 20,
            },
            drift: 20_000,
            lateness: 0,
            down: 5 * SECOND,
            strikes: vec![
                (Strike::Crash, 30 * SECOND),
                (Strike::Cut, 30 * SECOND),
                (Strike::Pause, 60 * SECOND),
                (Strike::JumpClock, 120 * SECOND),
                (Strike::Replay, 10 * SECOND),
            ],
            work: vec![
                (Work::Propose, SECOND / 2),
                (Work::Read, SECOND),
                (Work::Transfer, 60 * SECOND),
                (Work::Change, 20 * SECOND),
                (Work::SaveEverywhere, 60 * SECOND),
            ],
            ambushes: Vec::new(),
            limits: Limits::WIDE,
            slow_hosts: 100_000,
            news: 0,
            careful_hosts: false,
            ending: Ending::All,
        }
    }

    pub fn election_micros(&self) -> Micros {
        self.election * 1000
    }

    pub fn setup(&self, id: NodeId) -> Setup {
        Setup {
            id,
            run: 0,
            seed: 0,
            heartbeat: self.heartbeat,
            election: self.election,
            batch_bytes: self.limits.batch_bytes,
            uncommitted_bytes: self.limits.uncommitted_bytes,
            entry_max: self.limits.entry_max,
            tail_bytes: self.limits.tail_bytes,
            piece_bytes: self.limits.piece_bytes,
            snapshot_rate: self.limits.snapshot_rate,
            stall: 4 * self.election,
            lease_reads: self.limits.lease_reads,
            priority: 1,
        }
    }

    /// How fast the host of one run is.
    pub fn pace(&self, dice: &mut Dice) -> Pace {
        if !dice.chance(self.slow_hosts) {
            return Pace::FAST;
        }
        Pace {
            batch: dice.scaled(1, 64) as usize,
            takes: dice.scaled(10, self.election_micros()),
        }
    }
}

/// In half of all runs nothing, otherwise any order of magnitude.
fn sometimes(dice: &mut Dice, low: u64, high: u64) -> Ppm {
    match dice.coin() {
        true => dice.scaled(low, high) as Ppm,
        false => 0,
    }
}

fn draw_net(dice: &mut Dice, unit: Micros) -> net::Nature {
    let low = dice.scaled(50, 2_000);
    let high = low + dice.below(unit / 20);
    let late_by = dice.scaled(unit / 10, 8 * unit);
    net::Nature {
        latency: (low, high),
        jitter: if dice.coin() {
            dice.scaled(100, unit / 8)
        } else {
            0
        },
        lost: sometimes(dice, 500, 120_000),
        doubled: sometimes(dice, 500, 120_000),
        late: sometimes(dice, 500, 60_000),
        late_by,
        ordered: dice.once_in(3),
        holds: dice.once_in(3),
        archived: sometimes(dice, 1_000, 60_000),
    }
}

fn draw_storage(dice: &mut Dice, unit: Micros) -> Storage {
    Storage {
        latency: dice.scaled(10, unit / 4),
        // Some take so long that the world is another when they are done.
        loads: match dice.coin() {
            true => dice.scaled(10, unit),
            false => dice.within(unit, 8 * unit),
        },
        fails: sometimes(dice, 1_000, 100_000),
        stops: sometimes(dice, 1_000, 60_000),
        size: if dice.once_in(8) {
            0
        } else {
            dice.scaled(24, 4000) as usize
        },
        alike: dice.coin(),
        behind: if dice.coin() { 0 } else { dice.scaled(1, 50) },
    }
}

fn draw_shapes(dice: &mut Dice) -> Vec<Shape> {
    let mut shapes = SHAPES.to_vec();
    dice.shuffle(&mut shapes);
    shapes.truncate(dice.within(1, SHAPES.len() as u64) as usize);
    shapes
}

fn draw_disks(dice: &mut Dice, unit: Micros) -> [disk::Nature; MAX_NODES] {
    // Some are so slow that what is under way is history when it is done.
    let slowest = *dice.pick(&[unit / 50, unit / 4, unit / 4, 2 * unit]);
    let mut draw = || {
        let low = dice.scaled(10, 1_000);
        disk::Nature {
            latency: (low, low + dice.scaled(1, slowest)),
            stalls: sometimes(dice, 500, 30_000),
            stall: dice.scaled(unit / 10, 4 * unit),
            fails: sometimes(dice, 50, 3_000),
        }
    };
    let (common, other) = (draw(), draw());
    let mut disks = [common; MAX_NODES];
    if dice.coin() {
        disks[dice.below(MAX_NODES as u64) as usize] = other;
    }
    disks
}

/// Each is there or not, and strikes once in `gap` election timeouts on average.
fn draw_strikes(dice: &mut Dice, unit: Micros, leases: bool) -> Vec<(Strike, Micros)> {
    let all = [
        (Strike::Crash, 2, 15),
        (Strike::CrashLeader, 3, 20),
        (Strike::CrashMost, 10, 40),
        (Strike::CrashAll, 10, 40),
        (Strike::Pause, 2, 15),
        (Strike::PauseLeader, 3, 20),
        (Strike::Suspend, 4, 25),
        (Strike::Cut, 1, 12),
        (Strike::CutLeader, 3, 20),
        (Strike::Depose, 4, 20),
        (Strike::Blackout, 10, 40),
        (Strike::Flap, 2, 20),
        (Strike::StickDisk, 4, 20),
        (Strike::FailWrite, 6, 30),
        (Strike::JumpClock, 2, 20),
        (Strike::Replay, 1, 4),
        (Strike::EarlyTick, 1, 4),
        (Strike::Upgrade, 4, 30),
        (Strike::StepDown, 4, 30),
    ];
    let mut strikes = Vec::new();
    for (strike, low, high) in all {
        // A lease trusts clocks to be equally fast, within a bound.
        let absurd = leases && strike == Strike::JumpClock;
        if dice.once_in(3) && !absurd {
            strikes.push((strike, dice.scaled(low * unit, high * unit)));
        }
    }
    strikes
}

fn draw_work(dice: &mut Dice, unit: Micros) -> Vec<(Work, Micros)> {
    // In tenths of an election timeout; and in how many runs of ten.
    let all = [
        (Work::Propose, 1, 20, 10),
        (Work::ProposeMany, 5, 60, 3),
        (Work::ProposeBig, 5, 60, 3),
        (Work::ProposeAnywhere, 5, 60, 3),
        (Work::Read, 1, 30, 8),
        (Work::ReadEverywhere, 10, 60, 4),
        (Work::Change, 3, 60, 6),
        (Work::Transfer, 10, 100, 4),
        (Work::Priority, 10, 100, 3),
        (Work::TellExcluded, 5, 40, 5),
        (Work::Save, 2, 60, 6),
        (Work::SaveEverywhere, 20, 100, 4),
        (Work::Compact, 5, 60, 2),
    ];
    let mut work = Vec::new();
    for (kind, low, high, often) in all {
        if dice.below(10) < often {
            work.push((kind, dice.scaled(low * unit / 10, high * unit / 10)));
        }
    }
    work
}

/// A change of the members that is cut off on many nodes at once is what the next leader finds.
fn draw_blow(dice: &mut Dice, peace: u64) -> Option<Ambush> {
    let drawn = dice.once_in(4);
    drawn.then(|| Ambush {
        on: Occasion::NewMembers,
        strike: *dice.pick(&[Strike::CrashLeader, Strike::CrashMost, Strike::CrashAll]),
        when: *dice.pick(&[When::BeforeSending, When::AfterSending]),
        chance: (dice.scaled(20_000, 250_000) / peace) as Ppm,
    })
}

fn draw_ambushes(dice: &mut Dice, peace: u64) -> Vec<Ambush> {
    const OCCASIONS: [Occasion; 9] = [
        Occasion::Leads,
        Occasion::Campaigns,
        Occasion::Votes,
        Occasion::NewTerm,
        Occasion::NewMembers,
        Occasion::Truncates,
        Occasion::CommitsAsLeader,
        Occasion::Writes,
        Occasion::HandsOver,
    ];
    const STRIKES: [Strike; 9] = [
        Strike::Crash,
        Strike::Crash,
        Strike::Crash,
        Strike::Pause,
        Strike::CutLeader,
        Strike::Depose,
        Strike::Cut,
        Strike::StickDisk,
        Strike::FailWrite,
    ];
    let count = dice.below(4);
    let draw = |_| Ambush {
        on: *dice.pick(&OCCASIONS),
        strike: *dice.pick(&STRIKES),
        when: *dice.pick(&[When::BeforeSending, When::AfterSending, When::AfterSending]),
        chance: (dice.scaled(2_000, 250_000) / peace) as Ppm,
    };
    (0..count).map(draw).collect()
}
