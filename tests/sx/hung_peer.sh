#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A node that is stopped (SIGSTOP) still accepts connections, in its kernel, and never answers. Nobody
# else may wait for it: of five nodes one follower is stopped; the leader and the term must stay, the
# others must serve, the stopped one is excluded after the dead time and learns of it when it goes on.
set -u

NODES=5 REPLICAS=3 DEADTIME=6
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$HERE/../../build/hung_peer}
. "$HERE/../../c-examples/cluster.sh"

fail() { echo "FAILED after $(elapsed) s: $*; the logs are in $WORK" >&2; exit 1; }

term_of() { view "$1" | sed -n 's/.* term: \([0-9]*\),.*/\1/p'; }

give_ports 1 $NODES
for id in 1 2 3 4 5; do
    start_node "$id" --init --peers "$(peers $NODES)"
done
until_ok 20 same_leader 1 2 3 4 5 || fail "no leader"
for i in 1 2 3 4 5 6 7 8 9 10; do
    until_ok 10 store "film-$i" "bytes $i" $((i % NODES + 1)) >/dev/null || fail "film-$i was not stored"
done
"$BIN/sxadm" cluster --set-param hb_deadtime=$DEADTIME "$(url 1)" >/dev/null || fail "the setting was refused"

leader=$LEADER
term=$(term_of "$leader")
hung=$((leader % NODES + 1))
others=()
for id in 1 2 3 4 5; do
    [ "$id" -eq "$hung" ] || others+=("$id")
done
free=
for name in "${!OWNERS[@]}"; do
    [[ ,${OWNERS[$name]}, == *,$hung,* ]] || free=$name
done
[ -n "$free" ] || fail "every object is on node $hung"

kill -STOP "${PID[$hung]}"
echo "node $hung is stopped; the leader is node $leader, the term $term"
writes=0
watch_until=$((SECONDS + DEADTIME - 1))
while [ "$SECONDS" -lt "$watch_until" ]; do
    for id in "${others[@]}"; do
        [ "$(leader_of "$id")" = "$leader" ] || fail "node $id lost its leader"
        [ "$(term_of "$id")" = "$term" ] || fail "the term of node $id moved"
        store "$free" "bytes $id $writes" "$id" >/dev/null || fail "a write through node $id that does not need node $hung"
        reads_right "$free" "$id" || fail "a read through node $id"
        writes=$((writes + 1))
    done
done
echo "$writes writes and reads through the others meanwhile"
# A write that waited for the stopped node would take its deadline, 2 seconds, each.
[ "$writes" -ge 12 ] || fail "the others were slowed down"

until_ok $((DEADTIME + 20)) faulty_on "$hung" "${others[@]}" || fail "node $hung was not excluded"
[ "$(term_of "$leader")" = "$term" ] || fail "the term moved"
echo "node $hung is FAULTY at $AT"
until_ok 10 healed "$leader" || fail "the objects were not copied"
all_readable "${others[@]}" || fail "an acknowledged object is not right"

says_excluded() { view "$1" | grep -q 'Refuses to serve: This node has been excluded'; }
kill -CONT "${PID[$hung]}"
until_ok 20 says_excluded "$hung" || fail "node $hung did not learn that it is excluded"
"$BIN/sxadm" get "$free" - "$(url "$hung")" >/dev/null 2>&1 && fail "node $hung serves"
[ "$(term_of "$leader")" = "$term" ] || fail "the return of node $hung moved the term"
echo "ok: node $hung knows, and refuses to serve ($(elapsed) s)"
