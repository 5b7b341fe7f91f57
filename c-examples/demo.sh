#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The story of automatic failover, told with real sxd processes on loopback: demo.sh [3|5]
# Exit status 0 only if every step happened. Logs and data stay in build/demo.
set -u

NODES=${1:-3}
case $NODES in
3) REPLICAS=2 ;;
5) REPLICAS=3 ;;
*) echo "usage: demo.sh [3|5]" >&2; exit 64 ;;
esac
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$HERE/../build/demo}
DEADTIME=6
. "$HERE/cluster.sh"

STEPS=()
FAILED=0
declare -A OUT_AT # "epoch E, index I" of the exclusion of a node

tell() { printf '[%5s s] %s\n' "$(elapsed)" "$*"; }
chapter() { printf '\n== %s\n' "$*"; }
indent() { sed 's/^/              /'; }

# check TEXT COMMAND...: a step of the story happened, or did not.
check() {
    local text=$1
    shift
    if "$@"; then
        STEPS+=("ok      $text")
        tell "ok: $text"
    else
        STEPS+=("FAILED  $text")
        FAILED=$((FAILED + 1))
        tell "FAILED: $text"
    fi
}

# admin ARGUMENTS...: runs sxadm, showing it as an administrator would type it; OUT and RC are its results.
admin() {
    printf '            $ sxadm %s\n' "$*"
    OUT=$("$BIN/sxadm" "$@" 2>&1)
    RC=$?
    printf '%s\n' "$OUT" | indent
}

show() { admin cluster -I "$(url "$1")"; }

finish() {
    chapter "Summary: $NODES nodes, $REPLICAS replicas, hb_deadtime=$DEADTIME"
    printf '  %s\n' "${STEPS[@]}"
    if [ "$FAILED" -eq 0 ]; then
        tell "every step happened"
    else
        tell "$FAILED step(s) did not happen; the logs are in $WORK"
    fi
    exit $((FAILED > 0))
}

# must TEXT COMMAND...: check(), but the story cannot go on without it.
must() {
    check "$@"
    [ "$FAILED" -eq 0 ] || finish
}

# The first of the arguments after $1 that is not in the blank-separated list $1.
first_not_in() {
    local list=" $1 " id
    shift
    for id in "$@"; do
        [[ $list == *" $id "* ]] || { echo "$id"; return; }
    done
}

# Objects that have (or do not have) node $1 among their owners, one a line.
needing() { local n; for n in "${!OWNERS[@]}"; do [[ ,${OWNERS[$n]}, == *,$1,* ]] && echo "$n"; done | sort; }
not_needing() { local n; for n in "${!OWNERS[@]}"; do [[ ,${OWNERS[$n]}, != *,$1,* ]] && echo "$n"; done | sort; }

params_shown_everywhere() {
    local id
    for id in $(living); do
        "$BIN/sxadm" cluster --get-param "$(url "$id")" 2>/dev/null | grep -qx "$1" || return 1
    done
}

done_by_admin() { admin "$@"; [ "$RC" -eq 0 ]; }
refused_to_admin() { local text=$1; shift; admin "$@"; [ "$RC" -eq 3 ] && [[ $OUT == *"$text"* ]]; }

# put_shown NAME CONTENT NODE: store(), shown; RC is its status.
put_shown() {
    printf '            $ sxadm put %s - %s <<< "%s"\n' "$1" "$(url "$3")" "$2"
    OUT=$(store "$1" "$2" "$3")
    RC=$?
    printf '%s\n' "$OUT" | indent
    # store() ran in a subshell.
    if [ "$RC" -eq 0 ]; then
        CONTENT[$1]=$2
        OWNERS[$1]=${OUT##* }
    fi
    return "$RC"
}

refused_by() { ! put_shown "$1" "$2" "$3" && [[ $OUT == *"$4"* ]]; }
get_refused() { admin get "$1" - "$(url "$2")"; [ "$RC" -ne 0 ] && [[ $OUT == *"$3"* ]]; }
shows() { show "$1"; [[ $OUT == *"$2"* ]]; }

start_cluster() {
    local id
    chapter "1. $NODES nodes start; one is elected; objects are stored and read through any node"
    give_ports 1 $((NODES + 2))
    for ((id = 1; id <= NODES; id++)); do
        start_node "$id" --init --peers "$(peers "$NODES")"
    done
    tell "$NODES processes are running"
    must "one leader, the same for all $NODES nodes" until_ok 20 same_leader $(living)
    tell "the leader is node $LEADER"
    for ((id = 1; id <= 4 * NODES; id++)); do
        until_ok 10 store "film-$id" "the bytes of film $id" $((id % NODES + 1)) >/dev/null
    done
    must "$((4 * NODES)) objects stored through all nodes" [ "${#CONTENT[@]}" -eq $((4 * NODES)) ]
    check "every object is read right through every node" all_readable $(living)
}

arm() {
    chapter "2. One command turns automatic exclusion on, for the whole cluster"
    local any=$(( LEADER % NODES + 1 ))
    show "$any"
    must "the setting is committed, asked of a node that does not lead" \
        until_ok 15 done_by_admin cluster --set-param hb_deadtime=$DEADTIME "$(url "$any")"
    must "all nodes show hb_deadtime=$DEADTIME" until_ok 5 params_shown_everywhere "hb_deadtime=$DEADTIME"
    check "a senseless value is refused, with the reason" \
        refused_to_admin "hb_deadtime 1000 ms must be" cluster --set-param hb_deadtime=1 "$(url "$any")"
    show "$any"
}

# lose NODE WHAT: kills NODE, WHAT it is, and follows it until it is FAULTY for everybody.
lose() {
    local dead=$1 what=$2 with without at old_leader=$LEADER
    with=$(needing "$dead" | head -1)
    without=$(not_needing "$dead" | head -1)
    kill_node "$dead"
    tell "node $dead, $what, is killed with SIGKILL"
    at=$(living | head -1)
    check "a write that needs node $dead fails with a clear error" refused_by "$with" "new bytes of $with" "$at" "node $dead"
    if [ "$dead" = "$old_leader" ]; then
        must "the others elect a new leader" until_ok 15 new_leader "$dead" $(living)
        tell "the leader is node $LEADER"
        at=$LEADER
    fi
    check "a write that does not need it succeeds" until_ok 5 put_shown "$without" "new bytes of $without" "$at"
    check "all acknowledged objects can be read meanwhile" until_ok 5 all_readable "$at"
    until_ok "$DEADTIME" shows_offline "$at" "$dead"
    show "$at"
    must "node $dead is FAULTY on every living node, at the same epoch and log index" \
        until_ok $((DEADTIME + 20)) faulty_on "$dead" $(living)
    OUT_AT[$dead]=$AT
    tell "node $dead has been excluded at $AT"
    show "$at"
    check "the write that failed succeeds now" until_ok 10 put_shown "$with" "new bytes of $with" "$at"
    check "all acknowledged objects are read right" until_ok 10 all_readable $(living)
    check "what node $dead had is on $REPLICAS nodes again" until_ok 20 healed "$at"
}
# Followers believe in a dead leader until their election timeout.
new_leader() { same_leader "${@:2}" && [ "$LEADER" != "$1" ]; }
shows_offline() { line_of "$1" "$2" | grep -q 'online: \*\* NO'; }

no_quorum() { view "$1" >/dev/null; [ $? -eq 2 ]; }
refuses() { view "$1" | grep -q '^Refuses to serve'; }

# With one of three excluded already, the other two are all there is.
survivor_refuses() {
    local lost=$LEADER survivor
    chapter "4. The leader is killed too: the survivor must refuse to act alone"
    kill_node "$lost"
    survivor=$(living | head -1)
    tell "node $lost, the leader, is killed with SIGKILL; node $survivor is alone"
    check "node $survivor says that there is no quorum" until_ok 15 no_quorum "$survivor"
    check "node $survivor refuses to serve" until_ok 15 refuses "$survivor"
    show "$survivor"
    check "a write is refused" refused_by film-1 "bytes of a minority" "$survivor" "must not serve"
    tell "waiting for longer than the dead time: a minority must exclude nobody"
    check "node $lost is not excluded by a minority" stays_unexcluded "$survivor" "$lost" $((DEADTIME + 4))
    check "a notice says what holds the exclusion back" until_ok 10 has_notice "$survivor"
    show "$survivor"
    tell "node $lost is started again"
    start_node "$lost"
    must "the former leader rejoins, and a leader exists again" until_ok 25 same_leader $(living)
    tell "the leader is node $LEADER"
    check "objects are served again, all acknowledged ones are right" until_ok 15 all_readable $(living)
}

stays_unexcluded() {
    local end=$((SECONDS + $3))
    while [ "$SECONDS" -lt "$end" ]; do
        [ -z "$(excluded_at "$1" "$2")" ] || return 1
        sleep 0.5
    done
}

# With two of five excluded, a third dead node leaves a quorum, but must not be excluded.
third_is_held_back() {
    local lost=$LEADER
    chapter "4c. A third node dies: two of three are a quorum, but another exclusion would go too far"
    kill_node "$lost"
    tell "node $lost, the leader, is killed with SIGKILL"
    must "the other two elect a new leader" until_ok 15 new_leader "$lost" $(living)
    check "the exclusion of node $lost is held back, and the leader says why" until_ok $((DEADTIME + 15)) has_notice "$LEADER"
    show "$LEADER"
    check "node $lost is not excluded" [ -z "$(excluded_at "$LEADER" "$lost")" ]
    tell "node $lost is started again"
    start_node "$lost"
    must "it rejoins" until_ok 25 same_leader $(living)
    check "all acknowledged objects are right" until_ok 15 all_readable $(living)
}
has_notice() { view "$1" | grep -qi 'notice: '; }

told() {
    tell "node $1, excluded while it was dead, is started again"
    start_node "$1"
    check "node $1 is told that it was excluded at ${OUT_AT[$1]}, and refuses to serve" \
        until_ok 20 says_excluded "$1" "${OUT_AT[$1]}"
    show "$1"
    check "an object cannot be read through node $1" get_refused film-1 "$1" "excluded"
}

replace() {
    local old=$1 new=$2 any
    any=$(first_not_in "$LEADER ${OUT_NODES[*]}" $(living))
    start_node "$new" --join
    tell "node $new is started on an empty directory"
    must "node $old is replaced by node $new" until_ok 15 replaced "$old" "$new" "$any"
    kill_node "$old"
    tell "the process of node $old is ended for good"
    check "node $new catches up and is a full member" until_ok 25 is_follower "$any" "$new"
    check "it has received the objects that belong to it" until_ok 25 healed "$new"
    check "all acknowledged objects are right, read through node $new" until_ok 10 all_readable "$new"
}
# What was not confirmed in time may have been done all the same.
replaced() {
    done_by_admin cluster --replace-faulty "$1=$2/$(address "$2")" "$(url "$3")" || [ -n "$(line_of "$3" "$2")" ]
}
is_follower() { line_of "$1" "$2" | grep -Eq 'status: (follower|leader), online: yes'; }

well_everywhere() { local id; for id in $(living); do view "$id" >/dev/null || return 1; done; }

story_3() {
    local follower
    follower=$(first_not_in "$LEADER" 3 2 1)
    chapter "3. A follower is killed"
    lose "$follower" "a follower"
    survivor_refuses
    OUT_NODES=("$follower")
    told "$follower"
    chapter "5. The excluded node is replaced"
    replace "$follower" 4
}

story_5() {
    local first=$LEADER second
    chapter "3. The leader is killed"
    lose "$first" "the leader"
    second=$(first_not_in "$first $LEADER" 5 4 3 2 1)
    chapter "4. A follower is killed"
    lose "$second" "a follower"
    third_is_held_back
    OUT_NODES=("$first" "$second")
    told "$first"
    told "$second"
    chapter "5. The excluded nodes are replaced"
    replace "$first" 6
    OUT_NODES=("$second")
    replace "$second" 7
}

start_cluster
arm
"story_$NODES"
check "$NODES full members, one leader, no complaint" until_ok 15 well_everywhere
show "$(living | head -1)"
check "nothing acknowledged was lost" all_readable $(living)
finish
