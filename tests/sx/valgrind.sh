#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A short life of a cluster under valgrind: election, objects, a refused and a granted setting, an
# exclusion, a replacement, an end by SIGTERM. No error and no leak in any process.
set -u

NODES=3 REPLICAS=2 DEADTIME=6
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$HERE/../../build/valgrind}
. "$HERE/../../c-examples/cluster.sh"
UNDER="valgrind --quiet --leak-check=full --error-exitcode=99 --log-file=$WORK/valgrind.%p"

fail() { echo "FAILED after $(elapsed) s: $*; the logs are in $WORK" >&2; exit 1; }
sxadm_ok() { "$BIN/sxadm" "$@" >/dev/null 2>&1; }
ended() { ! kill -0 "$1" 2>/dev/null; }
is_member() { line_of "$1" "$2" | grep -Eq 'status: (follower|leader), online: yes'; }
replaced() { sxadm_ok cluster --replace-faulty "$1=$2/$(address "$2")" "$(url "$3")" || [ -n "$(line_of "$3" "$2")" ]; }

# end_node ID: by SIGTERM, as an init system does.
end_node() {
    local pid=${PID[$1]}
    kill "$pid"
    until_ok 30 ended "$pid" || fail "node $1 does not end"
    unset "PID[$1]"
    tail -n 1 "$WORK/node$1.log" | grep -q ' stopping$' || fail "node $1 did not end in order"
}

give_ports 1 $((NODES + 1))
for id in 1 2 3; do
    start_node "$id" --init --peers "$(peers $NODES)"
done
until_ok 60 same_leader 1 2 3 || fail "no leader"
for i in 1 2 3 4 5 6; do
    until_ok 20 store "film-$i" "bytes $i" $((i % NODES + 1)) >/dev/null || fail "film-$i was not stored"
done
until_ok 20 all_readable 1 2 3 || fail "an object is not right"
dead=$((LEADER % NODES + 1))
sxadm_ok cluster --set-param hb_deadtime=1 "$(url "$dead")" && fail "a senseless setting was taken"
until_ok 20 sxadm_ok cluster --set-param hb_deadtime=$DEADTIME "$(url "$dead")" || fail "the setting was refused"

end_node "$dead"
rest=($(living))
store late "bytes of a write that may find an owner gone" "${rest[0]}" >/dev/null
until_ok $((DEADTIME + 30)) faulty_on "$dead" "${rest[@]}" || fail "node $dead was not excluded"
start_node "$dead"
until_ok 30 says_excluded "$dead" "$AT" || fail "node $dead does not say that it is excluded"
start_node 4 --join
until_ok 20 answers 4 || fail "node 4 does not start"
until_ok 30 replaced "$dead" 4 "${rest[0]}" || fail "node $dead was not replaced"
until_ok 30 is_member "${rest[0]}" 4 || fail "node 4 is no member"
until_ok 30 healed 4 || fail "node 4 did not get its objects"
until_ok 20 all_readable "${rest[@]}" 4 || fail "an object is not right"
# They end with requests in every state; whether those succeed does not matter.
for ((i = 0; i < 30; i++)); do
    "$BIN/sxadm" put "last-$i" - "$(url "${rest[i % 2]}")" <<<"$i" >/dev/null 2>&1 &
done
for id in $(living); do
    end_node "$id"
done
for log in "$WORK"/valgrind.*; do
    [ ! -s "$log" ] || { cat "$log" >&2; fail "valgrind found something"; }
done
echo "ok: five processes, no error, no leak ($(elapsed) s)"
