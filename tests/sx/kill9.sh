#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Random processes of three are killed with -9 and started again while a client writes numbered
# objects: first with automatic exclusion off, then with it on and short, where nodes are excluded and
# replaced by new ones while the killing goes on. At the end every acknowledged object must be
# readable with its content at every member.
#   SEED=N ROUNDS=N EXCLUSIONS=N kill9.sh    the same seed kills the same nodes after the same pauses
set -u

REPLICAS=2
SEED=${SEED:-$((EPOCHSECONDS % 32768))}
ROUNDS=${ROUNDS:-5}         # of killing in the steady state
EXCLUSIONS=${EXCLUSIONS:-2} # of killing until a node is excluded, and until it is replaced
DEADTIME=4
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$HERE/../../build/kill9}
. "$HERE/../../c-examples/cluster.sh"

echo "SEED=$SEED ROUNDS=$ROUNDS EXCLUSIONS=$EXCLUSIONS"
fail() { echo "FAILED after $(elapsed) s, SEED=$SEED: $*; the logs are in $WORK" >&2; exit 1; }
tell() { printf '[%5s s] %s\n' "$(elapsed)" "$*"; }

# Writes until it is told to stop: one line for every object tried. Most objects are overwritten again
# and again, so that an old version in place of the newest is found; some are never touched again.
writer() {
    local i=0 name members
    while [ -e "$WORK/members" ]; do
        i=$((i + 1))
        name=object-$((i % 40 == 0 ? i : i % 40))
        read -ra members <"$WORK/members" || continue
        printf 'content %d' "$i" | "$BIN/sxadm" put "$name" - "$(url "${members[i % 3]}")" >/dev/null 2>&1
        echo "$? $name content $i"
    done
}

# Its three nodes; MEMBERS changes with every replacement.
set_members() {
    MEMBERS=("$@")
    echo "$*" >"$WORK/members.new" && mv "$WORK/members.new" "$WORK/members"
}

# pause MAX: up to so many tenths of a second, as SEED has it.
pause() {
    local tenths=$((RANDOM % $1))
    sleep "$((tenths / 10)).$((tenths % 10))"
}

# One of MEMBERS, and at times a second one, dies and comes back.
kill_some() {
    local at=$((RANDOM % 3)) victim other both=$((RANDOM % 4))
    victim=${MEMBERS[at]} other=${MEMBERS[(at + 1) % 3]}
    pause 20
    kill_node "$victim"
    [ "$both" -ne 0 ] || kill_node "$other"
    pause 15
    start_node "$victim"
    [ "$both" -ne 0 ] || start_node "$other"
}

# True if any member but node $1 shows it as FAULTY.
is_faulty() {
    local id
    for id in "${MEMBERS[@]}"; do
        [ "$id" -eq "$1" ] || [ -z "$(excluded_at "$id" "$1")" ] || return 0
    done
    return 1
}

# The other two are killed now and then, one at a time, while node $1 is down: the decision needs both.
exclude_one() {
    local dead=$1 others=() id rounds=0
    for id in "${MEMBERS[@]}"; do
        [ "$id" -eq "$dead" ] || others+=("$id")
    done
    kill_node "$dead"
    until is_faulty "$dead"; do
        [ "$rounds" -lt 20 ] || fail "node $dead was not excluded"
        rounds=$((rounds + 1))
        # Pauses around the dead time: a kill hits the verdict, the decision, and what follows it.
        pause $((DEADTIME * 20))
        id=${others[RANDOM % 2]}
        kill_node "$id"
        pause 10
        start_node "$id"
        until_ok 10 same_leader "${others[@]}" || fail "no leader of nodes ${others[*]}"
    done
    tell "node $dead is excluded"
}

replaced() {
    local id
    "$BIN/sxadm" cluster --replace-faulty "$1=$2/$(address "$2")" "$(url "$LEADER")" >/dev/null 2>&1
    for id in "${MEMBERS[@]}"; do
        [ "$id" -eq "$1" ] || [ -n "$(line_of "$id" "$2")" ] || return 1
    done
}

is_member() { line_of "$1" "$2" | grep -Eq 'status: (follower|leader), online: yes'; }

# replace_one OLD NEW: old and new processes are killed while NEW takes the place of OLD.
replace_one() {
    local old=$1 new=$2 others=() id
    for id in "${MEMBERS[@]}"; do
        [ "$id" -eq "$old" ] || others+=("$id")
    done
    start_node "$new" --join
    until_ok 10 same_leader "${others[@]}" || fail "no leader of nodes ${others[*]}"
    # From here on it has a directory, and can be killed.
    until_ok 10 answers "$new" || fail "node $new does not start"
    until_ok 15 replaced "$old" "$new" || fail "node $old was not replaced by node $new"
    for id in "$new" "${others[RANDOM % 2]}" "$new"; do
        pause 10
        kill_node "$id"
        pause 5
        start_node "$id"
    done
    set_members "${others[@]}" "$new"
    until_ok 30 same_leader "${MEMBERS[@]}" || fail "no leader of nodes ${MEMBERS[*]}"
    until_ok 30 is_member "$LEADER" "$new" || fail "node $new is no full member"
    until_ok 30 healed "$LEADER" || fail "the objects were not copied"
    tell "node $new has its place"
}

# Takes into RIGHT what each object may be: what was acknowledged last, or what was tried after that and
# not acknowledged, which may have been stored or not.
declare -A RIGHT
judge() {
    local status name content
    for name in "${!CONTENT[@]}"; do
        RIGHT[$name]="|${CONTENT[$name]}|"
    done
    while read -r status name content; do
        if [ "$status" -eq 0 ]; then
            RIGHT[$name]="|$content|"
        elif [ -n "${RIGHT[$name]:-}" ]; then
            RIGHT[$name]+="$content|"
        fi
    done <"$WORK/writes"
    [ "${#RIGHT[@]}" -gt 0 ] || fail "nothing was acknowledged"
    for name in "${!RIGHT[@]}"; do
        for id in "${MEMBERS[@]}"; do
            until_ok 5 is_right "$name" "$id" || fail "$name at node $id: not one of \"${RIGHT[$name]}\" but \"$SEEN\""
        done
    done
}
is_right() {
    SEEN=$("$BIN/sxadm" get "$1" - "$(url "$2")" 2>&1) && [[ ${RIGHT[$1]} == *"|$SEEN|"* ]]
}

give_ports 1 $((3 + EXCLUSIONS))
set_members 1 2 3
for id in 1 2 3; do
    start_node "$id" --init --peers "$(peers 3)"
done
until_ok 20 same_leader 1 2 3 || fail "no leader"
for ((i = 1; i <= 12; i++)); do
    until_ok 10 store "early-$i" "early content $i" $((i % 3 + 1)) >/dev/null || fail "early-$i was not stored"
done
writer >"$WORK/writes" &
writer=$!
trap 'rm -f "$WORK/members"; end_all' EXIT

RANDOM=$SEED
for ((round = 1; round <= ROUNDS; round++)); do
    kill_some
done
tell "$ROUNDS rounds of killing in the steady state"
params_set() {
    "$BIN/sxadm" cluster --set-param hb_deadtime=$DEADTIME hb_initdead=$DEADTIME "$(url 1)" >/dev/null 2>&1
}
if [ "$EXCLUSIONS" -gt 0 ]; then
    until_ok 20 params_set || fail "the settings were not taken"
fi
for ((round = 1; round <= EXCLUSIONS; round++)); do
    # The oldest: after two of them some of the early objects are only where they were copied to.
    dead=${MEMBERS[0]}
    exclude_one "$dead"
    replace_one "$dead" $((3 + round))
done
until_ok 30 same_leader "${MEMBERS[@]}" || fail "no leader at the end"
rm "$WORK/members"
wait "$writer"
judge
attempts=$(wc -l <"$WORK/writes")
echo "ok: $attempts writes, ${#RIGHT[@]} acknowledged objects, all right at all nodes ($(elapsed) s)"
