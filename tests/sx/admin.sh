#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# What an administrator is told: every refusal has its reason, asked of the leader or of another node;
# the settings in force are shown; a node that is set faulty is out at once, and back when readmitted; a
# request that a paused node finds is not done; a node that starts wrong leaves nothing behind, and one
# that was cut off while it started is healed by the next start.
set -u

NODES=3 REPLICAS=2
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$HERE/../../build/admin}
. "$HERE/../../c-examples/cluster.sh"

fail() { echo "FAILED after $(elapsed) s: $*; the logs are in $WORK" >&2; exit 1; }

# refuses NODE STATUS TEXT ARGUMENTS...: `sxadm cluster ARGUMENTS` ends with STATUS and says TEXT.
refuses() {
    local node=$1 status=$2 text=$3 out rc
    shift 3
    out=$("$BIN/sxadm" cluster "$@" "$(url "$node")" 2>&1)
    rc=$?
    [ "$rc" -eq "$status" ] && [[ $out == *"$text"* ]] && return
    REFUSAL="$rc: $out"
    return 1
}
must_refuse() {
    until_ok 5 refuses "$@" || fail "node $1, ${*:4}: expected $2: \"$3\", got $REFUSAL"
}

sxadm_ok() { "$BIN/sxadm" "$@" >/dev/null 2>&1; }
shows() { [[ $(view "$1") == *"$2"* ]]; }

refusals() {
    local node=$1 keys="there are hb_keepalive, hb_warntime, hb_deadtime, hb_initdead"
    must_refuse "$node" 3 "hb_deadtime 1000 ms must be" --set-param hb_deadtime=1
    must_refuse "$node" 3 "hb_initdead 30000 ms must be at least hb_deadtime" --set-param hb_deadtime=60 hb_initdead=30
    must_refuse "$node" 3 "hb_keepalive is a whole number of seconds from 1" --set-param hb_keepalive=0
    must_refuse "$node" 3 "$keys" --set-param hb_deadtme=60
    must_refuse "$node" 64 "hb_deadtime=1.5 is not KEY=SECONDS" --set-param hb_deadtime=1.5
    must_refuse "$node" 3 "node 9 was never a member" --set-faulty 9
    must_refuse "$node" 3 "node 2 is not excluded: exclude it first: sxadm cluster --set-faulty 2 URL" --readmit 2
    must_refuse "$node" 3 "node 2 is not excluded: exclude it first: sxadm cluster --set-faulty 2 URL" \
        --replace-faulty "2=7/127.0.0.1:1" --force
    must_refuse "$node" 3 "Node 7 does not answer at $(address 1)" --replace-faulty "2=7/$(address 1)"
}

# refuses_to_start ID TEXT OPTIONS...: sxd ends at once, and says TEXT.
refuses_to_start() {
    local id=$1 text=$2 out
    shift 2
    out=$(timeout 20 "$BIN/sxd" --id "$id" --cluster demo --listen "$(address "$id")" --dir "$WORK/node$id" "$@" 2>&1)
    [ "$?" -eq 1 ] && [[ $out == *"$text"* ]] || fail "sxd $*: expected \"$text\", got: $out"
}

# As if node 1 had died after its directory was made, and before it knew the first members.
cut_off_start() {
    start_node 1 --join
    until_ok 20 answers 1 || fail "node 1 does not start"
    shows 1 "not a member yet: on a member run sxadm cluster --replace-faulty OLD=1/$(address 1)" ||
        fail "a node that waits does not say what for"
    kill_node 1
    rm "$WORK/node1/joins"
}

wrong_starts() {
    refuses_to_start 2 "another sxd runs in $WORK/node2" --listen "$(address 5)"
    kill_node 1
    refuses_to_start 1 "lives in $WORK/node1 already: start it without --init and --join" --listen "$(address 5)" \
        --init --peers "$(peers $NODES)"
    start_node 1 --peers "$(peers $NODES)"
    until_ok 20 same_leader 1 2 3 || fail "no leader after node 1 has started again"
    refuses_to_start 5 "no node lives in $WORK/node5" --peers "$(peers $NODES)"
    refuses_to_start 4 "cannot listen on $(address 1)" --listen "$(address 1)" --join
    refuses_to_start 4 "not an IPv4 address and port" --listen "nowhere:1" --join
    [ ! -e "$WORK/node4" ] || fail "a node that did not start has left a directory"
}

# paused NODE: a change that was sent to it while it is stopped is not done afterwards.
paused() {
    kill -STOP "${PID[$1]}"
    refuses "$1" 3 "may still take effect" --set-param hb_warntime=17 || fail "a stopped node: $REFUSAL"
    kill -CONT "${PID[$1]}"
    until_ok 20 well "$1" || fail "node $1 does not go on"
    grep -q "event PAUSED" "$WORK/node$1.log" || fail "node $1 was not stopped"
    ! shows "$1" "hb_warntime 17" || fail "node $1 has done what was asked of it before its pause"
}

# moved NODE: it listens elsewhere than the others think.
moved() {
    local right=${PORT[$1]}
    kill_node "$1"
    PORT[$1]=${PORT[5]}
    start_node "$1"
    until_ok 20 shows "$1" "Warning: node $1 listens on $(address "$1"), but the others look for it at 127.0.0.1:$right" ||
        fail "node $1 does not say that it is not where it should be"
    kill_node "$1"
    PORT[$1]=$right
    start_node "$1"
    until_ok 20 well "$1" || fail "node $1 is not back"
}

# dies DEAD NODE: what NODE says about a dead one, before and after it is put out.
dies() {
    local dead=$1 node=$2
    until_ok 10 sxadm_ok cluster --set-param hb_deadtime=4 hb_initdead=120 "$(url "$node")" || fail "no dead time"
    kill_node "$dead"
    kill_node "$node"
    start_node "$node"
    until_ok 20 shows_node "$node" "$dead" "excluded in [0-9]* s: not heard since node $node started (hb_initdead 120) \[INITDEAD\]" ||
        fail "node $node does not say why it does not exclude node $dead: $(line_of "$node" "$dead")"
    until_ok 10 sxadm_ok cluster --set-param hb_initdead=4 "$(url "$node")" || fail "no initial dead time"
    until_ok 30 shows_node "$node" "$dead" "excluded at epoch [0-9]*, index [0-9]*, [0-9]* seconds ago" ||
        fail "node $node does not say when node $dead was excluded: $(line_of "$node" "$dead")"
}
shows_node() { line_of "$1" "$2" | grep -q "$3"; }

replaced() {
    sxadm_ok cluster --replace-faulty "$1=4/$(address 4)" "$(url "$2")" || [ -n "$(line_of "$2" 4)" ]
}

# wiped NODE OTHER: its directory is lost, and it is made again under its old id.
wiped() {
    kill_node "$1"
    rm -rf "$WORK/node$1"
    start_node "$1" --init --peers "$(peers $NODES)"
    until_ok 20 shows_node "$2" "$1" "lost its data: .*replace it under a new id" ||
        fail "node $2 does not say that node $1 has lost its data: $(line_of "$2" "$1")"
    until_ok 10 shows "$1" "Refuses to serve: " && ! "$BIN/sxadm" get film-1 - "$(url "$1")" >/dev/null 2>&1 ||
        fail "node $1 serves without its data"
}

is_member() { line_of "$1" "$2" | grep -Eq 'status: (follower|leader), online: yes'; }
well() { view "$1" >/dev/null; }

give_ports 1 5
cut_off_start
for id in 1 2 3; do
    start_node "$id" --init --peers "$(peers $NODES)"
done
until_ok 20 same_leader 1 2 3 || fail "no leader"
wrong_starts
[[ $("$BIN/sxadm" cluster -I sx://demo 2>&1) == *"use http://HOST:PORT" ]] || fail "sx:// is not explained"
for i in 1 2 3 4 5 6; do
    until_ok 10 store "film-$i" "bytes $i" $((i % NODES + 1)) >/dev/null || fail "film-$i was not stored"
done
other=$((LEADER % NODES + 1))
refusals "$LEADER"
refusals "$other"
shows "$other" "Automatic exclusion: off (hb_deadtime 0)" || fail "exclusion is not shown as off"

until_ok 10 sxadm_ok cluster --set-param hb_deadtime=60 "$(url "$other")" || fail "the setting was refused"
until_ok 10 shows "$other" "hb_keepalive 1, hb_warntime 30 (derived), hb_deadtime 60, hb_initdead 120 (derived)" ||
    fail "the settings in force are not shown"

# It is told by the others: it was alive all the time.
until_ok 10 sxadm_ok cluster --set-faulty "$other" "$(url "$LEADER")" || fail "node $other was not excluded"
until_ok 10 faulty_on "$other" "$LEADER" || fail "node $other is not FAULTY"
until_ok 10 says_excluded "$other" "$AT" || fail "node $other does not say that it is excluded at $AT"
must_refuse "$other" 3 "excluded from the cluster at $AT" --set-param hb_deadtime=6
until_ok 10 store film-1 "newer bytes" "$LEADER" >/dev/null || fail "no write without node $other"
until_ok 10 sxadm_ok cluster --readmit "$other" "$(url "$LEADER")" || fail "node $other was not readmitted"
until_ok 20 is_member "$LEADER" "$other" || fail "node $other is no member again"
until_ok 20 healed "$other" || fail "node $other did not get what it had missed"
until_ok 10 all_readable 1 2 3 || fail "an acknowledged object is not right"
until_ok 10 well "$other" || fail "node $other sees the cluster not well"

paused "$other"
moved "$other"
dies "$other" "$LEADER"
start_node "$other"
until_ok 20 shows "$other" ", before its exclusion:" || fail "node $other does not say how old its view is"
start_node 4 --join
until_ok 20 answers 4 || fail "node 4 does not start"
until_ok 20 replaced "$other" "$LEADER" || fail "node $other was not replaced"
until_ok 20 is_member "$LEADER" 4 || fail "node 4 is no member"
wiped $((6 - LEADER - other)) "$LEADER"
echo "ok: refused with reasons, shown, excluded and taken back ($(elapsed) s)"
