#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The C examples as programs that run: each of them, and each story about sxd, is one test. Run by
# `make check`, after they are built. Prints a line a test, and `N passed, N failed` at the end.
#   run.sh [NAME...]    only these: hello replica notes conformance conformance-broken demo-3 demo-5
#                       admin hung_peer kill9 valgrind
set -u

cd "$(dirname "$0")/../.."
LOGS=build/sx
mkdir -p "$LOGS"
passed=0
failed=0

# try NAME COMMAND...: what the command says is kept, and shown when it fails.
try() {
    local name=$1 began=$SECONDS
    shift
    [ -z "$WANTED" ] || [[ " $WANTED " == *" $name "* ]] || return
    if "$@" >"$LOGS/$name.log" 2>&1; then
        passed=$((passed + 1))
        echo "daemon: $name ... ok ($((SECONDS - began)) s)"
    else
        failed=$((failed + 1))
        echo "daemon: $name ... FAILED ($((SECONDS - began)) s)"
        sed 's/^/    /' "$LOGS/$name.log"
    fi
}

WANTED=$*
try hello build/c-examples/hello
rm -rf "$LOGS/replica" && mkdir "$LOGS/replica"
try replica build/c-examples/replica "$LOGS/replica"
try notes env WORK=$LOGS/notes tests/sx/notes.sh
rm -rf "$LOGS/conformance" && mkdir "$LOGS/conformance"
try conformance build/c-examples/conformance "$LOGS/conformance"
try conformance-broken env WORK=$LOGS/conformance-broken tests/sx/conformance.sh
try admin env WORK=$LOGS/admin tests/sx/admin.sh
try demo-3 env WORK=$LOGS/demo-3 c-examples/demo.sh 3
try demo-5 env WORK=$LOGS/demo-5 c-examples/demo.sh 5
try hung_peer env WORK=$LOGS/hung_peer tests/sx/hung_peer.sh
try kill9 env WORK=$LOGS/kill9 tests/sx/kill9.sh
try valgrind env WORK=$LOGS/valgrind tests/sx/valgrind.sh
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
