//! The programs in tests/c, each against the shared library and the archive, with sanitizers and
//! under valgrind: what the header promises, tried from C.

mod clib;

use std::path::Path;
use std::process::{Command, Output};

use clib::Variant;

const HARNESS: &str = "cluster.c";
const STORE: &str = "store.c";

fn run(program: &Path, label: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    clib::succeed(command.args(args).current_dir(clib::empty_dir(label)))
}

fn run_under_valgrind(program: &Path, label: &str, args: &[&str]) {
    if !clib::present("valgrind") {
        return;
    }
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--leak-check=full", "--error-exitcode=99"])
        .arg(program)
        .args(args);
    clib::succeed(command.current_dir(clib::empty_dir(label)));
}

/// In every way that a host may be built.
fn try_in_all_ways(name: &str) {
    try_with(name, &[&format!("{name}.c"), HARNESS], &[]);
}

fn try_with(name: &str, sources: &[&str], args: &[&str]) {
    for variant in [Variant::Shared, Variant::Static, Variant::Sanitized] {
        let program = clib::compile(name, sources, variant);
        run(&program, &format!("{name}-{variant:?}"), args);
        if variant == Variant::Static {
            run_under_valgrind(&program, &format!("{name}-valgrind"), args);
        }
    }
}

#[test]
fn null_is_an_error_everywhere() {
    try_in_all_ways("abi_null");
}

#[test]
fn errors_have_their_codes() {
    try_in_all_ways("abi_errors");
}

#[test]
fn children_get_forked() {
    try_in_all_ways("abi_fork");
}

#[test]
fn every_function_may_be_tried_from_every_callback() {
    try_in_all_ways("abi_reentry");
}

#[test]
fn threads_may_feed_and_ask_while_one_drives() {
    try_in_all_ways("abi_threads");
}

#[test]
fn a_thread_writes_behind_the_descriptor() {
    try_in_all_ways("abi_writer");
}

/// The program has calls of its own to the disk, which sanitizers would replace.
#[test]
fn no_driving_call_waits_for_a_disk() {
    for variant in [Variant::Shared, Variant::Static] {
        let program = clib::compile("abi_reader", &["abi_reader.c"], variant);
        run(&program, &format!("abi_reader-{variant:?}"), &[]);
    }
}

#[test]
fn cancelled_threads_leave_first() {
    try_in_all_ways("abi_cancel");
}

#[test]
fn every_accepted_request_is_completed_once() {
    try_in_all_ways("abi_completions");
}

#[test]
fn the_host_may_store() {
    try_with("abi_storage", &["abi_storage.c", STORE, HARNESS], &[]);
}

#[test]
fn the_host_may_store_snapshots() {
    try_with("abi_snapshots", &["abi_snapshots.c", STORE, HARNESS], &[]);
}

/// The first node's directory is on a small file system of its own, seen by nobody else.
#[test]
fn a_full_disk_is_come_through() {
    const MOUNT: &str = "mkdir full elsewhere && mount -t tmpfs -o size=24m none full";
    let try_in = |label: &str, then: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-e", "-c", &format!("{MOUNT}; {then}")]);
        command.current_dir(clib::empty_dir(label)).output()
    };
    if !try_in("disk_full-mount", "true").is_ok_and(|tried| tried.status.success()) {
        eprintln!("SKIPPED: no file system can be mounted here, full disks are unchecked");
        return;
    }
    let ways = [
        (Variant::Shared, &["", "fd"][..]),
        (Variant::Sanitized, &["fd"]),
    ];
    for (variant, ways) in ways {
        let program = clib::compile("disk_full", &["disk_full.c"], variant);
        for how in ways {
            let then = format!("exec {} full elsewhere {how}", program.display());
            let output = try_in(&format!("disk_full-{variant:?}{how}"), &then).unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let wrong = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{how}: {said}{wrong}");
            println!("{how}: {said}");
        }
    }
}

/// The checks that hosts are given for their own, against ours; against one that is on a disk, and
/// against broken ones, tests/sx/run.sh runs them.
#[test]
fn the_conformance_checks_pass() {
    let checks = ["checks.c", "nodes.c", "syncs.c"];
    let checks = checks.map(|file| format!("../../c-examples/conformance/{file}"));
    let mut sources = vec!["store_conformance.c", STORE];
    sources.extend(checks.iter().map(String::as_str));
    try_with("store_conformance", &sources, &["."]);
}

/// The program has an allocator of its own, which sanitizers and valgrind would replace.
#[test]
fn lack_of_memory_is_an_error() {
    for variant in [Variant::Shared, Variant::Static] {
        let program = clib::compile("abi_memory", &["abi_memory.c"], variant);
        run(&program, &format!("abi_memory-{variant:?}"), &[]);
    }
}

#[test]
fn nothing_is_written_to_the_standard_descriptors() {
    for variant in [Variant::Shared, Variant::Static] {
        let program = clib::compile("abi_stdio", &["abi_stdio.c", HARNESS], variant);
        for args in [&[][..], &["closed"]] {
            let output = run(&program, &format!("abi_stdio-{variant:?}"), args);
            assert!(
                output.stdout.is_empty(),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            );
            assert!(
                output.stderr.is_empty(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// Seeds per run of this test; KEEL_SIM_FIRST and KEEL_SIM_SEEDS choose others.
fn seeds() -> [String; 2] {
    let from_env = |name, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    [
        from_env("KEEL_SIM_FIRST", "1"),
        from_env("KEEL_SIM_SEEDS", "1000"),
    ]
}

#[test]
fn clusters_come_through_a_bad_time() {
    let sources = [
        "sim.c",
        "sim_check.c",
        "sim_disk.c",
        "sim_state.c",
        STORE,
        HARNESS,
    ];
    let [first, count] = seeds();
    let program = clib::compile("sim", &sources, Variant::Static);
    run(&program, "sim", &[&first, &count]);
    let sanitized = clib::compile("sim", &sources, Variant::Sanitized);
    run(&sanitized, "sim-Sanitized", &[&first, "8"]);
}
