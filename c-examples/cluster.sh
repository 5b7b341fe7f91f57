# SPDX-License-Identifier: MIT OR Apache-2.0
# Sourced by demo.sh and tests/sx/*.sh: sxd processes on loopback, started, killed and asked.
#
# Before: WORK, a directory to be made anew; REPLICAS; BIN, where sxd and sxadm are (optional).
# Every process is ended when the script ends, however it ends.

BIN=${BIN:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/build/c-examples}
BIN=$(cd "$BIN" && pwd) || exit 1
mkdir -p "$WORK" && rm -rf "${WORK:?}"/* && WORK=$(cd "$WORK" && pwd) || exit 1
declare -A PORT PID CONTENT OWNERS
START=$EPOCHREALTIME

end_all() {
    local id
    for id in "${!PID[@]}"; do
        kill -CONT "${PID[$id]}" && kill -9 "${PID[$id]}"
    done 2>/dev/null
}
trap end_all EXIT
trap 'exit 130' INT TERM

# Seconds since the start, as "12.3".
elapsed() {
    local us=$((${EPOCHREALTIME/[.,]/} - ${START/[.,]/}))
    printf '%d.%d' $((us / 1000000)) $((us / 100000 % 10))
}

# until_ok SECONDS COMMAND...: polls; false when the time is over. SECONDS are those of a machine that
# has time; only a test that fails waits for PATIENCE times as long.
PATIENCE=${PATIENCE:-4}
until_ok() {
    local end=$((${EPOCHREALTIME/[.,]/} + $1 * PATIENCE * 1000000))
    shift
    until "$@"; do
        [ "${EPOCHREALTIME/[.,]/}" -lt "$end" ] || return 1
        sleep 0.1
    done
}

free_port() {
    local port=$((20000 + RANDOM % 10000))
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || [[ " ${PORT[*]} " == *" $port "* ]]; do
        port=$((port + 1))
    done
    echo "$port"
}

address() { echo "127.0.0.1:${PORT[$1]}"; }
url() { echo "http://$(address "$1")"; }

# give_ports FIRST LAST: chooses the addresses of these nodes. peers N: those of 1..N, for --peers.
give_ports() {
    local id
    for ((id = $1; id <= $2; id++)); do
        PORT[$id]=$(free_port)
    done
}
peers() {
    local id list=
    for ((id = 1; id <= $1; id++)); do
        list+=${list:+,}$id=$(address "$id")
    done
    echo "$list"
}

# start_node ID [--init --peers LIST | --join]. UNDER: a command to run it under, or nothing.
start_node() {
    local id=$1
    shift
    ${UNDER:-} "$BIN/sxd" --id "$id" --cluster demo --listen "$(address "$id")" --dir "$WORK/node$id" \
        --replicas "$REPLICAS" --log "$WORK/node$id.log" "$@" &
    PID[$id]=$!
    # Without this, bash itself reports every kill -9.
    disown "$!"
}

is_gone() { ! kill -0 "$1" 2>/dev/null; }

kill_node() {
    kill -9 "${PID[$1]}"
    # Its port and its directory are free once it is gone altogether.
    until_ok 20 is_gone "${PID[$1]}"
    unset "PID[$1]"
}

living() { echo "${!PID[@]}" | tr ' ' '\n' | sort -n; }

view() { "$BIN/sxadm" cluster -I "$(url "$1")" 2>/dev/null; }

# True if node $1 answers, whatever it has to say.
answers() { view "$1" >/dev/null; [ "$?" -ne 4 ]; }

# The leader that node $1 knows; nothing if none.
leader_of() { view "$1" | sed -n 's/^Leader: node \([0-9]*\),.*/\1/p'; }

# The line of node $2 in the view of node $1.
line_of() { view "$1" | grep "^  \* node $2:"; }

# True if all the nodes given know the same leader, which is put into LEADER.
same_leader() {
    local id seen
    LEADER=
    for id in "$@"; do
        seen=$(leader_of "$id")
        [ -n "$seen" ] && [ "${LEADER:=$seen}" = "$seen" ] || return 1
    done
}

# "epoch E, index I" of the exclusion of node $2 as node $1 sees it; nothing if it does not.
excluded_at() { line_of "$1" "$2" | sed -n 's/.*FAULTY.*excluded at \(epoch [0-9]*, index [0-9]*\).*/\1/p'; }

# faulty_on NODE LIVING...: true if all show NODE as FAULTY since the same epoch and index, put into AT.
faulty_on() {
    local dead=$1 id seen
    shift
    AT=
    for id in "$@"; do
        seen=$(excluded_at "$id" "$dead")
        [ -n "$seen" ] && [ "${AT:=$seen}" = "$seen" ] || return 1
    done
}

# says_excluded NODE AT: true if NODE itself says where the decision about it is, AT being what
# excluded_at() gave at another node, and claims neither a quorum nor the right to serve.
says_excluded() {
    local seen
    seen=$(view "$1")
    [ "$?" -eq 2 ] && [[ $seen == *"Refuses to serve: This node has been excluded from the cluster at $2"* ]]
}

# store NAME CONTENT NODE: remembers what was acknowledged, and its owners.
store() {
    local out
    out=$(printf '%s' "$2" | "$BIN/sxadm" put "$1" - "$(url "$3")" 2>&1) || { echo "$out"; return 1; }
    CONTENT[$1]=$2
    OWNERS[$1]=${out##* }
    echo "$out"
}

# True if node $2 returns what was last acknowledged for object $1.
reads_right() { [ "$("$BIN/sxadm" get "$1" - "$(url "$2")" 2>/dev/null)" = "${CONTENT[$1]}" ]; }

# True if all acknowledged objects are right at all the nodes given.
all_readable() {
    local name id
    for id in "$@"; do
        for name in "${!CONTENT[@]}"; do
            reads_right "$name" "$id" || return 1
        done
    done
}

# True if every member has copied what changes of membership have moved.
healed() { "$BIN/sxadm" cluster --json "$(url "$1")" 2>/dev/null | grep -q '"healed":true'; }
