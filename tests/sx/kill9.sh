#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Random processes of three are killed with -9 and started again while a client writes numbered
# objects. At the end every acknowledged object must be readable with its content at every node.
#   SEED=N ROUNDS=N kill9.sh        the same seed kills the same nodes after the same pauses
set -u

NODES=3 REPLICAS=2
SEED=${SEED:-$((EPOCHSECONDS % 32768))}
ROUNDS=${ROUNDS:-12}
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$HERE/../../build/kill9}
. "$HERE/../../c-examples/cluster.sh"

echo "SEED=$SEED ROUNDS=$ROUNDS"
fail() { echo "FAILED after $(elapsed) s, SEED=$SEED: $*; the logs are in $WORK" >&2; exit 1; }

give_ports 1 $NODES
for id in 1 2 3; do
    start_node "$id" --init --peers "$(peers $NODES)"
done
until_ok 20 same_leader 1 2 3 || fail "no leader"

# Writes until it is told to stop: one line for every acknowledged object. An object is overwritten
# every tenth time, so that an old version in place of the newest would be found too.
writer() {
    local i=0 name
    trap 'exit 0' TERM
    while :; do
        i=$((i + 1))
        name=object-$((i % 10 == 0 ? i / 10 : i))
        printf 'content %d' "$i" | "$BIN/sxadm" put "$name" - "$(url $((i % NODES + 1)))" >/dev/null 2>&1
        # What is not acknowledged may have been stored or not: such a name is no longer judged.
        echo "$? $name content $i"
    done
}
writer >"$WORK/writes" &
writer=$!
trap 'kill "$writer" 2>/dev/null; end_all' EXIT

RANDOM=$SEED
for ((round = 1; round <= ROUNDS; round++)); do
    victim=$((RANDOM % NODES + 1))
    up=$((RANDOM % 30))
    down=$((RANDOM % 20))
    both=$((RANDOM % 4))
    sleep "$((up / 10)).$((up % 10))"
    other=$((victim % NODES + 1))
    kill_node "$victim"
    [ "$both" -ne 0 ] || kill_node "$other"
    sleep "$((down / 10)).$((down % 10))"
    start_node "$victim"
    [ "$both" -ne 0 ] || start_node "$other"
done
until_ok 30 same_leader 1 2 3 || fail "no leader at the end"
sleep 1
kill "$writer" && wait "$writer"

while read -r status name content; do
    if [ "$status" -eq 0 ]; then
        CONTENT[$name]=$content
    else
        unset "CONTENT[$name]"
    fi
done <"$WORK/writes"
attempts=$(wc -l <"$WORK/writes")
[ "${#CONTENT[@]}" -gt 0 ] || fail "nothing was acknowledged"
for name in "${!CONTENT[@]}"; do
    for id in 1 2 3; do
        until_ok 5 reads_right "$name" "$id" ||
            fail "$name at node $id: not \"${CONTENT[$name]}\" but \"$("$BIN/sxadm" get "$name" - "$(url "$id")" 2>&1)\""
    done
done
echo "ok: $attempts writes, ${#CONTENT[@]} acknowledged objects, all right at all nodes ($(elapsed) s)"
