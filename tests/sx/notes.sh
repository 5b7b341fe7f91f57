#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A node whose log is in SQLite comes back with its state: from its entries, from a snapshot, after
# kill -9; it is not made twice, not used twice at a time, and not made anew where it was lost.
set -u

cd "$(dirname "$0")/../.."
WORK=${WORK:-build/sx/notes}
rm -rf "$WORK" && mkdir -p "$WORK"
NOTES=build/c-examples/notes
DB=$WORK/notes.db

fail() { echo "FAILED: $*" >&2; exit 1; }
# has NUMBER-OF-LINES ARGUMENT..: what it prints, without the last line.
has() {
    local lines=$1
    shift
    $UNDER "$NOTES" "$@" >"$WORK/out" || fail "notes $*"
    [ "$(sed '$d' "$WORK/out" | sha256sum)" = "$(seq -f 'note %.0f' "$lines" | sha256sum)" ] ||
        fail "not $lines notes: $(cat "$WORK/out")"
}

UNDER=
"$NOTES" "$DB" 2>"$WORK/err" && fail "a node was made anew without being told"
grep -q 'KEEL_NEW_NODE' "$WORK/err" || fail "$(cat "$WORK/err")"
has 2 --new "$DB" 'note 1' 'note 2'
has 3 "$DB" 'note 3'
has 3 "$DB"
"$NOTES" --new "$DB" 2>"$WORK/err" && fail "a node was made twice"
mapfile -t more < <(seq -f 'note %.0f' 4 40)
has 40 "$DB" "${more[@]}"
has 40 "$DB"
grep -q '(1 snapshot and [0-9] entries)' "$WORK/out" || fail "no snapshot: $(tail -n 1 "$WORK/out")"

flock "$DB-lock" "$NOTES" "$DB" 2>"$WORK/err" && fail "two at a time"

# In the midst of a thousand notes, which must be there up to one of them.
mapfile -t more < <(seq -f 'note %.0f' 41 1040)
"$NOTES" "$DB" "${more[@]}" >/dev/null &
sleep 1
kill -9 $! 2>/dev/null # if it has not done them all
wait $! 2>/dev/null
"$NOTES" "$DB" >"$WORK/out" || fail "it does not come back"
lines=$(sed '$d' "$WORK/out" | wc -l)
[ "$lines" -ge 40 ] || fail "$lines notes"
has "$lines" "$DB"

command -v valgrind >/dev/null || exit 0
UNDER='valgrind --quiet --leak-check=full --error-exitcode=99'
lines=$((lines + 1))
has "$lines" "$DB" "note $lines"
