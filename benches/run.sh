#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Measures, and prints a line a figure: its name; ours and theirs, each as median (least..most of the
# runs); ratio of the medians, target, verdict. What is not to be had is -.
# The same goes to a file as JSON: run.sh [FILE]; without it, target/bench.json.
#   RUNS=3         runs of everything that is measured over a while
#   CORE_RUNS=5, CORE_ENTRIES=300000   runs of every core, and entries in one of them
#   IDLE_SECONDS=20, SXD_SECONDS=10    how long one of them lasts
#   LOAD_RUNS=5, LOAD_SECONDS=1.5, START_ENTRIES=1000000, START_RUNS=3   see libraft.sh
#   SLOW_RUNS=5, SLOW_SECONDS=1        see slow.sh
#   ONLY="idle load"                   of idle, sxd, feed, failover, cores, load (against libraft) and
#                                      slow (the same on slow disks) only these
#
# Exit status 0 if everything could be measured, whatever came out. The programs must have been
# built: `make bench` does all of it. Its nodes have their directories in build/bench.
set -eu -o pipefail
export LC_ALL=C

HERE=$(cd "$(dirname "$0")" && pwd)
PROGRAMS=$HERE/../build/benches
BENCH=$HERE/../build/bench
JSON=${1:-$HERE/../target/bench.json}
RUNS=${RUNS:-3}
IDLE_SECONDS=${IDLE_SECONDS:-20}
SXD_SECONDS=${SXD_SECONDS:-10}
CORE_RUNS=${CORE_RUNS:-5}
CORE_ENTRIES=${CORE_ENTRIES:-300000}
FAILOVERS=5
FEEDS=9
REPLICAS=2
WORK=$BENCH/sxd
. "$HERE/../c-examples/cluster.sh"
. "$HERE/figure.sh"
. "$HERE/libraft.sh"
. "$HERE/slow.sh"

machine() {
    local model
    model=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1 | tr -d '"\\')
    CORES=$(getconf _NPROCESSORS_ONLN) KERNEL=$(uname -sr) CPU=${model:-$(uname -m)}
    FILESYSTEM=$(df --output=fstype "$BENCH" | tail -n 1) LOAD=$(cut -d' ' -f1 /proc/loadavg)
    echo "machine: $CORES cores, $CPU, $KERNEL, $FILESYSTEM; load when this began: $LOAD"
    MACHINE=$(printf '{"cores":%d,"cpu":"%s","kernel":"%s","filesystem":"%s","load":%s}' \
        "$CORES" "$CPU" "$KERNEL" "$FILESYSTEM" "$LOAD")
    echo "a figure: median (least..most of its runs); judged by the median, growth by its most, a target"
    echo "with x by the ratio; a later version aims at < 0.3 % of a core for an idle node of three"
    echo "theirs: raft-rs 0.7 as it comes, and tuned: a storage without locks and copies, appends merged;"
    echo "willemt/raft is not measured: no package registry has it; of libraft, Debian's package: one"
    echo "entry a call, and, where it says so, as many in one call as are outstanding"
}

# new_dir NAME: an empty directory, its path in DIR.
new_dir() {
    DIR=$BENCH/$1
    rm -rf "$DIR" && mkdir -p "$DIR"
}

idle() {
    local nodes=$1 run out=$BENCH/idle$1.values
    : >"$out"
    for ((run = 0; run < RUNS; run++)); do
        new_dir "idle$nodes"
        "$PROGRAMS/idle" "$nodes" "$IDLE_SECONDS" "$DIR" >>"$out"
    done
    figures_of "$out" "idle, $nodes nodes" \
        'leader_cpu|CPU of the leader|% core|median|< 0.5' \
        'follower_cpu|CPU of the busiest follower|% core|median|< 0.5' \
        'rss|resident memory, largest node|kB|median|< 8192' \
        'growth|its growth in a run|kB|most|<= 0' \
        'leader_turns|driving calls of the leader|/s|median|-' \
        'follower_turns|driving calls of the busiest follower|/s|median|-' \
        'leader_sent|messages from the leader|/s|median|-' \
        'follower_sent|messages from the busiest follower|/s|median|-'
}

# Three sxd that have a leader, and have come to rest.
start_sxd() {
    local id
    give_ports 1 3
    for id in 1 2 3; do
        start_node "$id" --init --peers "$(peers 3)" --hb-keepalive 1
    done
    until_ok 60 same_leader 1 2 3
    # As in idle.c: what begins once is not what idling costs.
    sleep 5
}

# As the library's figures, of the example daemon, whose messages are HTTP requests.
idle_sxd() {
    local run id out=$BENCH/sxd.values
    start_sxd || { echo "bench: the sxd nodes found no leader; logs are in $WORK" >&2; exit 1; }
    : >"$out"
    for ((run = 0; run < RUNS; run++)); do
        "$PROGRAMS/watch" "$SXD_SECONDS" "${PID[@]}" | awk '
            $1 > cpu { cpu = $1 } $2 > rss { rss = $2 } $3 > growth { growth = $3 }
            END { printf "cpu\t%.3f\nrss\t%d\ngrowth\t%d\n", cpu, rss, growth }' >>"$out"
    done
    for id in 1 2 3; do
        kill_node "$id"
    done
    figures_of "$out" 'idle, 3 sxd over HTTP' \
        'cpu|CPU of the busiest|% core|median|< 0.5' \
        'rss|resident memory, largest|kB|median|-' \
        'growth|its growth in a run|kB|most|-'
}

feed() {
    local out=$BENCH/feed.values
    "$PROGRAMS/feed" "$FEEDS" >"$out"
    figures_of "$out" 'keel_recv + keel_step, one message' \
        'follower|follower|ns|median|<= 1000' \
        'leader|leader|ns|median|<= 1000'
}

failover() {
    new_dir failover
    # Word splitting is meant: a value a failover.
    figure 'leader killed to next commit, default timers' ms median - $("$PROGRAMS/failover" "$FAILOVERS" "$DIR")
}

# What a core costs by itself. Ours and theirs take turns.
cores() {
    local run depth program out=$BENCH/cores.values
    : >"$out"
    for ((run = 0; run < CORE_RUNS; run++)); do
        for depth in 1 16 256; do
            for program in {raftkeel,raft-rs,raft-rs-tuned}/batch {raftkeel,raft-rs}/each; do
                "$PROGRAMS/cores" "${program%/*}" "${program#*/}" "$depth" "$CORE_ENTRIES" |
                    sed "s|^|$program/$depth/|" >>"$out"
            done
        done
    done
    for depth in 1 16 256; do
        core_figures "$out" "x $depth, in batches" batch/$depth raft-rs '>= 4x'
        core_figures "$out" "x $depth, in batches, tuned" batch/$depth raft-rs-tuned '>= 4x'
        core_figures "$out" "x $depth, one by one" each/$depth raft-rs -
    done
}

# core_figures FILE NAME KEY PEER TARGET
core_figures() {
    # Word splitting is meant: a value a run.
    figure "core, 128 B $2: throughput" entries/s ratio "$5" $(values "$1" "raftkeel/$3/rate") \
        against $(values "$1" "$4/$3/rate")
    figure "core, 128 B $2: CPU" s/100k ratio - $(values "$1" "raftkeel/$3/cpu") \
        against $(values "$1" "$4/$3/cpu")
}

wanted() { [[ " ${ONLY:-$1} " == *" $1 "* ]]; }

machine
figure_heading
! wanted idle || idle 3
! wanted idle || idle 5
! wanted sxd || idle_sxd
! wanted feed || feed
! wanted failover || failover
! wanted load || against_libraft
! wanted slow || on_slow_disks
! wanted cores || cores
write_json "$JSON" "$MACHINE"
