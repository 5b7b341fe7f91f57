#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# What an administrator is told: every refusal has its reason, asked of the leader or of another node;
# the settings in force are shown; a node that is set faulty is out at once, and back when readmitted.
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
    must_refuse "$node" 3 "n9 was never a member" --set-faulty 9
    must_refuse "$node" 3 "n2 is not excluded" --readmit 2
    must_refuse "$node" 3 "n2 is not excluded" --replace-faulty "2=7/127.0.0.1:1"
}

is_member() { line_of "$1" "$2" | grep -Eq 'status: (follower|leader), online: yes'; }
well() { view "$1" >/dev/null; }

give_ports 1 $NODES
for id in 1 2 3; do
    start_node "$id" --init --peers "$(peers $NODES)"
done
until_ok 20 same_leader 1 2 3 || fail "no leader"
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
echo "ok: refused with reasons, shown, excluded and taken back ($(elapsed) s)"
