#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Can the conformance checks fail? The SQLite store is broken in ways that a daemon's author might
# break it, a line or two each, and the check that is for it must say so. Prints a line a fault.
#   conformance.sh [FAULT...]    only these
set -u

cd "$(dirname "$0")/../.."
WORK=${WORK:-build/sx/conformance-broken}
CHECKS=c-examples/conformance
rm -rf "$WORK" && mkdir -p "$WORK/db"
WANTED=$*
missed=0

# broken NAME CHECK SED-EXPRESSION...: the check fails, and with nothing worse than status 1.
broken() {
    local name=$1 check=$2 args=() status
    shift 2
    [ -z "$WANTED" ] || [[ " $WANTED " == *" $name "* ]] || return
    for expression; do args+=(-e "$expression"); done
    sed "${args[@]}" c-examples/sqlite_store.c >"$WORK/$name.c"
    if cmp -s c-examples/sqlite_store.c "$WORK/$name.c"; then
        echo "$name: the line to be broken is not there"
        missed=$((missed + 1))
        return
    fi
    # shellcheck disable=SC2046 # words
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -DDEADLINE_MS=15000 -O1 -Ic-examples -o "$WORK/$name" "$WORK/$name.c" \
        $CHECKS/sqlite_host.c $CHECKS/checks.c $CHECKS/nodes.c $CHECKS/syncs.c -pthread \
        $(pkg-config --cflags --libs raftkeel sqlite3) || exit 1
    "$WORK/$name" "$WORK/db" "$check" >"$WORK/$name.log" 2>&1
    status=$?
    if [ $status -eq 1 ] && grep -q "^$check: .* FAILED\$" "$WORK/$name.log"; then
        echo "$name: found by $check"
    else
        echo "$name: NOT found by $check (status $status)"
        sed 's/^/    /' "$WORK/$name.log"
        missed=$((missed + 1))
    fi
}

early='/^static int on_write/,/^}/s/pthread_cond_signal(&s->changed);/& keel_write_done(*s->k, given->number, 0);/'
broken reported-before-it-is-written kill "$early"
broken reported-before-it-is-synced sync "$early"
broken never-synced sync 's/synchronous=FULL/synchronous=NORMAL/'
broken not-atomic kill 's/"BEGIN IMMEDIATE"/"SELECT 1 WHERE 0"/' 's/"COMMIT"/"SELECT 1 WHERE 0"/'
broken state-is-never-replaced restart 's/INSERT OR REPLACE INTO keel_state/INSERT OR IGNORE INTO keel_state/'
broken nothing-stored-without-entries vote 's/^    code = run(c, BEGIN/    if (b->n == 0) { pthread_mutex_unlock(\&c->mutex); return 0; }\n&/;/^static int on_snap_put/,$s/    if (b->n == 0).*//'
broken old-entries-are-kept truncate 's/DELETE FROM keel_log WHERE idx >= ?1/& AND 0/' 's/INSERT INTO keel_log/INSERT OR REPLACE INTO keel_log/'
broken goes-on-after-a-failure failure 's/^        if (code == SQLITE_OK) .* after a failure.*//'
broken trims-one-too-many snapshot 's/idx <= ?1/idx <= ?1 + 1/'
broken loses-a-piece-later snapshot 's/DELETE FROM keel_piece WHERE image NOT IN.*"/DELETE FROM keel_piece WHERE at > 150000"/'
broken lists-what-is-not-committed images 's/SELECT image, size FROM keel_image/SELECT image, sum(length(data)) FROM keel_piece GROUP BY image/' 's/\[TIDY\] = .*/[TIDY] = "SELECT 1 WHERE 0",/'
broken image-not-synced images '/^static int on_snap_commit/,/^}/s/s->log/s->rest/g'
broken image-not-begun-anew images 's/&& offset == 0/\&\& 0/' 's/INSERT INTO keel_piece/INSERT OR REPLACE INTO keel_piece/'
broken enough-is-a-failure read 's/return code != SQLITE_OK ? -code : given;/return given;/' 's/^    return code;$/    return code == KEEL_ENOUGH ? -1 : code;/'
[ $missed -eq 0 ]
