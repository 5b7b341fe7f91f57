# SPDX-License-Identifier: MIT OR Apache-2.0
# Disks whose flushes take their time, for ours and theirs alike: in a file system on a loop device over
# a disk of nbdkit's, every flush waits, be it asked for by fdatasync or by a write that is to be
# durable. Sourced by run.sh, in bash; needs root.
#   SLOW_RUNS=5, SLOW_SECONDS=1   runs, and how long one point of one of them lasts

SLOW_PLUGIN=$PROGRAMS/slow_disk.so
SLOW_BYTES=2G
SLOW_DISKS=()
SLOW_RUNS=${SLOW_RUNS:-5}
SLOW_SECONDS=${SLOW_SECONDS:-1}

# Whether such disks can be had; says what is missing.
may_be_slow() {
    local missing=() command
    for command in nbdkit nbdfuse losetup mkfs.ext4; do
        command -v "$command" >/dev/null || missing+=("$command")
    done
    [ -e "$SLOW_PLUGIN" ] || missing+=("nbdkit's headers")
    [ -e /dev/fuse ] || missing+=(/dev/fuse)
    [ "$(id -u)" -eq 0 ] || missing+=(root)
    [ ${#missing[@]} -eq 0 ] || {
        echo "SKIPPED: no slow disks without ${missing[*]}; on Debian:" \
            'apt-get install nbdkit nbdkit-plugin-dev libnbd-bin e2fsprogs'
        return 1
    }
}

# until_there TEST...: waits for something to be so.
until_there() {
    local end=$((SECONDS + 10))
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.02
    done
}

# begin_slow_disk N: mounts one at $BENCH/slow/N; false if that does not work here.
begin_slow_disk() {
    local at=$BENCH/slow/$1 device
    mkdir -p "$at" "$at.fuse"
    echo 0 >"$at.delay"
    # By the kernel's choice, for a path may be too long for a socket.
    local socket
    socket=$(mktemp -u /tmp/keel-bench-XXXXXX)
    nbdkit -f -U "$socket" "$SLOW_PLUGIN" size=$SLOW_BYTES delay="$at.delay" &
    SLOW_DISKS+=("$1 $! $socket")
    until_there test -S "$socket" || return 1
    nbdfuse "$at.fuse/disk" --unix "$socket" &
    until_there test -e "$at.fuse/disk" || return 1
    device=$(losetup --find --show "$at.fuse/disk") || return 1
    echo "$device" >"$at.device"
    mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$device" && mount "$device" "$at"
}

end_slow_disks() {
    local disk n pid socket at
    for disk in "${SLOW_DISKS[@]}"; do
        read -r n pid socket <<<"$disk"
        at=$BENCH/slow/$n
        umount "$at" 2>/dev/null || true
        [ ! -e "$at.device" ] || losetup --detach "$(cat "$at.device")" || true
        umount "$at.fuse" 2>/dev/null || true
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        rm -f "$socket"
    done
    SLOW_DISKS=()
    rm -rf "$BENCH/slow"
}

# begin_slow_disks: three; false, and nothing is left of them, if they cannot be had.
begin_slow_disks() {
    local n
    may_be_slow || return 1
    trap end_slow_disks EXIT
    for n in 1 2 3; do
        begin_slow_disk $n || {
            echo "SKIPPED: no slow disks: what mounts them does not work here"
            end_slow_disks
            return 1
        }
    done
}

# slow_load US OUT PREFIX PROGRAM MODE WORD...: as `load`, each member on such a disk of its own, which
# takes so many microseconds longer for every flush.
slow_load() {
    local us=$1 out=$2 prefix=$3 program=$4 mode=$5 n
    shift 5
    new_dir load
    for n in 1 2 3; do
        rm -rf "$BENCH/slow/$n/data"
        mkdir "$BENCH/slow/$n/data"
        ln -s "$BENCH/slow/$n/data" "$DIR/member$n"
        ln -s "$BENCH/slow/$n.delay" "$DIR/member$n.delay"
        echo "$us" >"$BENCH/slow/$n.delay"
    done
    "$program" "$mode" "$DIR" "$@" | sed "s|^|$prefix/|" >>"$out"
    echo 0 | tee "$BENCH"/slow/{1,2,3}.delay >/dev/null
}

# Where a flush takes a millisecond, as on a real disk, one flush for many entries decides.
slow_flushes() {
    local run points=(1 16 256) out=$BENCH/flushes.values point
    : >"$out"
    for ((run = 0; run < SLOW_RUNS; run++)); do
        slow_load 1000 "$out" keel "$PROGRAMS/load_keel" rate 128 "$SLOW_SECONDS" each "${points[@]}"
        ! has_libraft ||
            slow_load 1000 "$out" raft "$THEIRS" rate 128 "$SLOW_SECONDS" each "${points[@]}"
        ! has_libraft ||
            slow_load 1000 "$out" batch "$THEIRS" rate 128 "$SLOW_SECONDS" batch "${points[@]}"
    done
    slow_point "$out" 1 '>= 1.25x' '<= 0.8x'
    slow_point "$out" 16 '>= 3x' -
    slow_point "$out" 256 '>= 4.5x' -
}

# slow_point FILE OUTSTANDING RATE P50: with these targets.
slow_point() {
    local name="1 ms a flush, 128 B x $2" target='>= 1.3x'
    compared "$1" "$name: throughput" entries/s "$2/rate" "$3"
    # Word splitting is meant: a value a run.
    ! has_libraft ||
        figure "$name: throughput, theirs in one call" entries/s ratio "$target" \
            $(values "$1" "keel/$2/rate") against $(values "$1" "batch/$2/rate")
    compared "$1" "$name: p50" us "$2/p50" "$4"
    absolute "$1" "$name: p99" us "$2/p99" -
    compared "$1" "$name: CPU, all three processes" s/100k "$2/cpu" -
}

# One of three flushes in 20 ms, the others in 1 ms; and all of them in 1 ms, in the same run. A leader
# that hands over for that is given the time to do so: what is measured is what comes then.
slow_minority() {
    local run out=$BENCH/minority.values who name
    : >"$out"
    for ((run = 0; run < SLOW_RUNS; run++)); do
        slow_load 1000 "$out" keel "$PROGRAMS/load_keel" minority 128 "$SLOW_SECONDS" 16 1000 20000
        ! has_libraft ||
            slow_load 1000 "$out" raft "$THEIRS" minority 128 "$SLOW_SECONDS" 16 1000 20000
    done
    for who in follower leader; do
        for name in keel raft; do
            paste <(values "$out" "$name/$who/p99") <(values "$out" "$name/healthy/p99") |
                awk -v key="$name/$who/slower" 'NF == 2 { printf "%s\t%.3f\n", key, $1 / $2 }' >>"$out"
        done
    done
    absolute "$out" '128 B x 16, all flush in 1 ms: p99' us healthy/p99 -
    absolute "$out" '128 B x 16, a follower flushes in 20 ms: p99' us follower/p99 -
    absolute "$out" 'to that of the healthy cluster' times follower/slower '<= 1.1'
    echo "a slow leader hands over in $(values "$out" keel/leader/moved | grep -c .) of $SLOW_RUNS runs;" \
        'its p99 is that after it has, or had 6 s to do so'
    [ -z "$(values "$out" keel/leader/moved)" ] ||
        figure 'a slow leader until another one leads' ms median - $(values "$out" keel/leader/moved)
    absolute "$out" '128 B x 16, the leader flushes in 20 ms: p99' us leader/p99 -
    absolute "$out" 'to that of the healthy cluster' times leader/slower '<= 1.1'
}

# Ours against libraft on slow disks.
on_slow_disks() {
    begin_slow_disks || return 0
    slow_flushes
    slow_minority
    end_slow_disks
    rm -rf "$BENCH/load"
}
