// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a Raft core costs by itself: three servers in one thread, no disk, no clock, messages handed
//! over as values: `cores CORE MODE OUTSTANDING ENTRIES`.
//!
//! CORE is `raftkeel`, `raft-rs` or `raft-rs-tuned`. MODE is `each`, where a server handles what has come of every
//! single proposal and message before the next, or `batch`, where it does so once for all that wait
//! for it. One measurement a process, so that none finds the heap of another. Printed are lines
//! "KEY<TAB>value": `rate`, entries per second, and `cpu`, CPU seconds per 100,000 entries.

mod cluster;
mod keel;
mod raft_rs;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use cluster::{Cluster, KEPT, Mode, Node};

/// Entries before the measured ones, which find servers that have dropped entries already, and a
/// heap that need not grow.
const WARM_UP: u64 = 4 * KEPT as u64;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((core, mode, outstanding, entries)) = parse(&args) else {
        eprintln!("usage: cores raftkeel|raft-rs|raft-rs-tuned each|batch OUTSTANDING ENTRIES");
        return ExitCode::from(2);
    };
    match core {
        Core::Keel => measure(keel::cluster(), mode, outstanding, entries),
        Core::RaftRs => measure(raft_rs::cluster(), mode, outstanding, entries),
        Core::Tuned => measure(raft_rs::tuned_cluster(), mode, outstanding, entries),
    }
    ExitCode::SUCCESS
}

enum Core {
    Keel,
    RaftRs,
    Tuned,
}

fn parse(args: &[String]) -> Option<(Core, Mode, u64, u64)> {
    let [core, mode, outstanding, entries] = args else {
        return None;
    };
    let core = match core.as_str() {
        "raftkeel" => Core::Keel,
        "raft-rs" => Core::RaftRs,
        "raft-rs-tuned" => Core::Tuned,
        _ => return None,
    };
    let mode = match mode.as_str() {
        "each" => Mode::Each,
        "batch" => Mode::Batch,
        _ => return None,
    };
    let positive = |text: &String| text.parse().ok().filter(|n| *n > 0);
    Some((core, mode, positive(outstanding)?, positive(entries)?))
}

fn measure<N: Node>(nodes: [N; 3], mode: Mode, outstanding: u64, entries: u64) {
    let mut cluster = Cluster::new(nodes, mode);
    cluster.elect();
    cluster.run(outstanding, WARM_UP);
    let (began, cpu_began) = (Instant::now(), cpu());
    cluster.run(outstanding, entries);
    let (took, cpu_took) = (began.elapsed(), cpu() - cpu_began);
    cluster.check(WARM_UP + entries);
    let count = entries as f64;
    println!("rate\t{:.0}", count / took.as_secs_f64());
    println!("cpu\t{:.4}", cpu_took.as_secs_f64() * 100_000.0 / count);
}

/// CPU time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
