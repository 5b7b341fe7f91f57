# SPDX-License-Identifier: MIT OR Apache-2.0
# Ours against libraft, with the same load on the same disk, turn by turn. Sourced by run.sh, in bash.
# Without libraft ours is measured alone.
#   LOAD_RUNS=5, LOAD_SECONDS=1.5          runs, and how long one point of one of them lasts
#   FLOOR_SECONDS=1                        how long floor.c lasts, once a run and point
#   START_ENTRIES=1000000, START_RUNS=3  entries of 1 KiB that a member starts with, and how often

LOAD_RUNS=${LOAD_RUNS:-5}
LOAD_SECONDS=${LOAD_SECONDS:-1.5}
FLOOR_SECONDS=${FLOOR_SECONDS:-1}
START_ENTRIES=${START_ENTRIES:-1000000}
START_RUNS=${START_RUNS:-3}
LOAD_POINTS=(1 16 256)
LOAD_PAYLOADS=(128 1024 16384)
FLOOR_BYTES=16384
THEIRS=$PROGRAMS/load_raft

has_libraft() { [ -x "$THEIRS" ]; }

# load OUT PREFIX PROGRAM WORD...: what the program says, each line behind the prefix.
load() {
    local out=$1 prefix=$2 program=$3 mode=$4
    shift 4
    new_dir load
    "$program" "$mode" "$DIR" "$@" | sed "s|^|$prefix/|" >>"$out"
}

# Sets ELSE to what `figure` is given of theirs under this key; nothing without libraft.
against() {
    ELSE=()
    # Word splitting is meant, here and in the functions below: a value a run.
    ! has_libraft || ELSE=(against $(values "$1" "$2"))
}

# compared FILE NAME UNIT KEY TARGET: judged by the ratio of the medians.
compared() {
    local target=$5
    has_libraft || target=-
    against "$1" "raft/$4"
    figure "$2" "$3" ratio "$target" $(values "$1" "keel/$4") "${ELSE[@]}"
}

# absolute FILE NAME UNIT KEY TARGET: judged by ours.
absolute() {
    against "$1" "raft/$4"
    figure "$2" "$3" median "$5" $(values "$1" "keel/$4") "${ELSE[@]}"
}

# point_figures FILE PAYLOAD OUTSTANDING RATE P50 P99 CPU DEVICE: a figure a line, with these targets.
point_figures() {
    local name="$2 B x $3" key=$2/$3 target='>= 1.3x'
    compared "$1" "$name: throughput" entries/s "$key/rate" "$4"
    [ -z "$(values "$1" "floor/$key/rate")" ] || {
        against "$1" "raft/$key/rate"
        figure "$name: all in one round, no protocol" entries/s ratio - $(values "$1" "floor/$key/rate") "${ELSE[@]}"
    }
    compared "$1" "$name: payload" MB/s "$key/bytes" -
    if has_libraft; then
        figure "$name: throughput, theirs in one call" entries/s ratio "$target" \
            $(values "$1" "keel/$key/rate") against $(values "$1" "batch/$key/rate")
    fi
    compared "$1" "$name: p50" us "$key/p50" "$5"
    absolute "$1" "$name: p99" us "$key/p99" "$6"
    absolute "$1" "$name: p99.9" us "$key/p999" -
    absolute "$1" "$name: p99.9 to p99" times "$key/tail" '<= 3'
    compared "$1" "$name: CPU, all three processes" s/100k "$key/cpu" "$7"
    absolute "$1" "$name: write_bytes of one process" B/entry "$key/disk" -
    [ -z "$(values "$1" "keel/$key/device")" ] ||
        absolute "$1" "$name: written to the device, a third" B/entry "$key/device" "$8"
    absolute "$1" "$name: resident memory of the leader" kB "$key/rss" -
}

# Entries a second if as many as are outstanding went together, and nothing took any time but the disk, the
# sockets and the processes that wait for them: see floor.c. More than FLOOR_BYTES are better sent in
# pieces, so that it says nothing of them.
floor() {
    local points
    new_dir load
    for points in "${LOAD_POINTS[@]}"; do
        [ $(($2 * points)) -gt $FLOOR_BYTES ] ||
            "$PROGRAMS/floor" "$DIR" $(($2 * points)) "$FLOOR_SECONDS" |
            awk -v at="floor/$2/$points/rate" -v n="$points" '$1 == "rate" { printf "%s\t%.0f\n", at, $2 * n }' >>"$1"
    done
}

throughput() {
    local run payload out=$BENCH/load.values
    : >"$out"
    for ((run = 0; run < LOAD_RUNS; run++)); do
        for payload in "${LOAD_PAYLOADS[@]}"; do
            load "$out" "keel/$payload" "$PROGRAMS/load_keel" rate "$payload" "$LOAD_SECONDS" each "${LOAD_POINTS[@]}"
            ! has_libraft ||
                load "$out" "raft/$payload" "$THEIRS" rate "$payload" "$LOAD_SECONDS" each "${LOAD_POINTS[@]}"
            ! has_libraft ||
                load "$out" "batch/$payload" "$THEIRS" rate "$payload" "$LOAD_SECONDS" batch "${LOAD_POINTS[@]}"
            floor "$out" "$payload"
        done
    done
    point_figures "$out" 128 1 '>= 1.25x' '<= 0.8x' '<= 250' '<= 0.8x' -
    point_figures "$out" 128 16 '>= 3x' - '<= 600' '<= 0.3x' '<= 400'
    point_figures "$out" 128 256 '>= 4.5x' - '<= 6000' '<= 0.2x' -
    point_figures "$out" 1024 1 '>= 1.25x' '<= 0.8x' - - -
    point_figures "$out" 1024 16 '>= 20x' - - - -
    point_figures "$out" 1024 256 '>= 4x' - - - -
    point_figures "$out" 16384 1 '>= 1.25x' '<= 0.8x' - - -
    point_figures "$out" 16384 16 '>= 4x' - - - -
    point_figures "$out" 16384 256 '>= 6x' - - - -
}

# Election timeout and heartbeat are the same on both sides, in ms.
takeover() {
    local run timeouts out=$BENCH/takeover.values
    : >"$out"
    for timeouts in '1000 100' '150 15'; do
        for ((run = 0; run < LOAD_RUNS; run++)); do
            load "$out" "keel/${timeouts/ //}" "$PROGRAMS/load_keel" failover 1 $timeouts
            ! has_libraft || load "$out" "raft/${timeouts/ //}" "$THEIRS" failover 1 $timeouts
        done
        compared "$out" "leader killed to next commit, $timeouts ms" ms "${timeouts/ //}/failover" '<= 0.6x'
    done
    for ((run = 0; run < LOAD_RUNS; run++)); do
        load "$out" hint "$PROGRAMS/load_keel" failover 1 1000 100 hint
    done
    # Word splitting is meant: a value a run.
    figure 'the same, told of lost connections, 1000 100 ms' ms median '<= 300' $(values "$out" hint/failover)
}

start() {
    local out=$BENCH/start.values name="start with $START_ENTRIES entries of 1 KiB"
    : >"$out"
    load "$out" keel "$PROGRAMS/load_keel" start "$START_ENTRIES" 1024 "$START_RUNS"
    ! has_libraft || load "$out" raft "$THEIRS" start "$START_ENTRIES" 1024 "$START_RUNS"
    absolute "$out" "$name: until open" ms open '<= 1000'
    absolute "$out" "$name: resident memory then" kB rss '<= 65536'
    absolute "$out" "$name: until all is applied, and one more" ms serves -
}

against_libraft() {
    has_libraft || {
        echo 'libraft is not installed, so there is nothing to compare with; on Debian:' \
            'apt-get install libraft-dev libuv1-dev'
    }
    throughput
    takeover
    start
    rm -rf "$BENCH/load"
}
