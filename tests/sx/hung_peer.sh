#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A node that is stopped (SIGSTOP) still accepts connections, in its kernel, and never answers. Nobody
# else may wait for it. Of five nodes first a follower is stopped, then the leader: the others serve and
# exclude it after the dead time; when it goes on it learns of that, and serves nobody.
set -u

NODES=5 REPLICAS=3 DEADTIME=6
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$HERE/../../build/hung_peer}
. "$HERE/../../c-examples/cluster.sh"

GONE= # who has been stopped so far
fail() { echo "FAILED after $(elapsed) s: $*; the logs are in $WORK" >&2; exit 1; }
tell() { printf '[%5s s] %s\n' "$(elapsed)" "$*"; }

term_of() { view "$1" | sed -n 's/.* term: \([0-9]*\),.*/\1/p'; }
keep() { until_ok 10 store "$1" "bytes of $1" "$2" >/dev/null || fail "$1 was not stored"; }
others() {
    local id
    for id in $(living); do
        [[ " $GONE " == *" $id "* ]] || echo "$id"
    done
}

# Stores objects until there is one that node $1 does not own, FREE, and one that it does, HELD.
store_around() {
    local i
    FREE= HELD=
    for ((i = 1; i <= 100; i++)); do
        [ -z "$FREE" ] || [ -z "$HELD" ] || return 0
        keep "film-$i" "$LEADER"
        if [[ ,${OWNERS[film-$i]}, == *,$1,* ]]; then
            HELD=film-$i
        else
            FREE=film-$i
        fi
    done
    fail "node $1 has a place in all owners or in none"
}

# timed COMMAND...: runs it; the shortest time that one has taken is put into FASTEST, in microseconds.
timed() {
    local began=${EPOCHREALTIME/[.,]/} status took
    "$@" >/dev/null
    status=$?
    took=$((${EPOCHREALTIME/[.,]/} - began))
    [ "$took" -ge "$FASTEST" ] || FASTEST=$took
    return "$status"
}

# Writes and reads FREE through all the others until they have excluded node $1. A write at the moment of
# the exclusion may be refused: the owners have just changed.
serve_meanwhile() {
    local id n=0
    FASTEST=999999999
    until faulty_on "$1" $(others); do
        for id in $(others); do
            timed store "$FREE" "bytes $id $n" "$id" || [ -n "$(excluded_at "$id" "$1")" ] ||
                fail "a write through node $id that does not need node $1"
            n=$((n + 1))
        done
        [ "$n" -lt 2000 ] || fail "node $1 was not excluded"
    done
    tell "node $1 is FAULTY at $AT; $n writes through the others until then"
    # A write that waits for the stopped node takes its deadline, 2 seconds: then none is faster.
    [ "$FASTEST" -lt 1900000 ] || fail "the others were slowed down"
    until_ok 10 store "$FREE" "bytes after $AT" "$id" >/dev/null || fail "a write after the exclusion"
    until_ok 20 healed "$id" || fail "the objects were not copied"
    all_readable $(others) || fail "an acknowledged object is not right"
}

# go_on NODE: it is continued, learns where it was excluded, and serves nobody.
go_on() {
    kill -CONT "${PID[$1]}"
    until_ok 20 says_excluded "$1" "$AT" || fail "node $1 did not learn that it is excluded at $AT"
    ! "$BIN/sxadm" get "$FREE" - "$(url "$1")" >/dev/null 2>&1 || fail "node $1 serves"
    all_readable $(others) || fail "an acknowledged object is not right"
    tell "node $1 knows, and refuses to serve"
}

stopped_follower() {
    local hung=$1 id term
    store_around "$hung"
    term=$(term_of "$LEADER")
    kill -STOP "${PID[$hung]}"
    tell "node $hung, a follower, is stopped; the leader is node $LEADER, the term $term"
    GONE=$hung
    serve_meanwhile "$hung"
    go_on "$hung"
    for id in $(others); do
        [ "$(leader_of "$id")" = "$LEADER" ] || fail "node $id changed its leader"
        [ "$(term_of "$id")" = "$term" ] || fail "the term of node $id moved"
    done
}

new_leader() { same_leader $(others) && [ "$LEADER" != "$1" ]; }

# Requests that wait while it is stopped are the first that it sees when it goes on, before anybody could
# tell it anything: it must not answer them as the leader that it was.
stopped_leader() {
    local hung=$LEADER get put
    store_around "$hung"
    kill -STOP "${PID[$hung]}"
    tell "node $hung, the leader, is stopped"
    GONE="$GONE $hung"
    until_ok 20 new_leader "$hung" || fail "no new leader"
    tell "the leader is node $LEADER"
    until_ok 10 store "$FREE" "bytes of a new term" "$LEADER" >/dev/null || fail "the new leader does not serve"
    serve_meanwhile "$hung"
    until_ok 10 store "$HELD" "bytes without node $hung" "$LEADER" >/dev/null || fail "a write after the exclusion"
    "$BIN/sxadm" get "$HELD" - "$(url "$hung")" >"$WORK/answer" 2>&1 &
    get=$!
    echo late | "$BIN/sxadm" put late - "$(url "$hung")" >"$WORK/answer-put" 2>&1 &
    put=$!
    # Meanwhile these requests leave.
    all_readable $(others) || fail "an acknowledged object is not right"
    go_on "$hung"
    ! wait "$get" || fail "node $hung served \"$(cat "$WORK/answer")\" from the past"
    ! wait "$put" || fail "node $hung acknowledged a write after its exclusion"
}

give_ports 1 $NODES
for id in 1 2 3 4 5; do
    start_node "$id" --init --peers "$(peers $NODES)"
done
until_ok 20 same_leader 1 2 3 4 5 || fail "no leader"
armed() { "$BIN/sxadm" cluster --set-param hb_deadtime=$DEADTIME "$(url 1)" >/dev/null 2>&1; }
until_ok 10 armed || fail "the setting was refused"
stopped_follower $((LEADER % NODES + 1))
stopped_leader
echo "ok: nobody waited for a stopped node, follower or leader ($(elapsed) s)"
