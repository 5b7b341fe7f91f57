#!/bin/bash
# Runs several lists of targets of the Makefile at once, each list in its order:
#
#   side-by-side.sh "TARGET..." "TARGET..."...
#
# The first list is the one that waits for time to pass: what it prints is seen at once, and it has the
# processors before the others. These print when all have ended, so that nothing is mixed, and in the
# order given: the last list's last line is the last one. The first target of a list that fails ends it,
# and fails the whole.
set -u

logs=$(mktemp -d) || exit 1
pids=()
trap 'rm -rf "$logs"' EXIT
# What runs in the background of a script hears no Ctrl-C.
trap 'kill "${pids[@]}" 2>/dev/null; exit 130' INT TERM

waiting=$1
shift
for targets in "$@"; do
    # Word splitting is meant: this is a list.
    nice -n 19 "${MAKE:-make}" $targets >"$logs/${#pids[@]}" 2>&1 &
    pids+=($!)
done

failed=()
"${MAKE:-make}" $waiting || failed+=("$waiting")
at=0
for targets in "$@"; do
    wait "${pids[at]}" || failed+=("$targets")
    at=$((at + 1))
done

for log in "$logs"/*; do
    cat "$log"
done
for targets in "${failed[@]}"; do
    echo "make check: FAILED in: $targets" >&2
done
[ ${#failed[@]} -eq 0 ]
