#!/bin/sh
# The simulator must do the same in every build: compares what the first seeds did in a debug
# build and in a release. SEEDS says how many.
set -eu

cd "$(dirname "$0")/.."
seeds=${SEEDS:-200}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

for profile in dev release; do
    RAFTKEEL_SEEDS=$seeds cargo test --locked --profile "$profile" --test sim hashes -- \
        --ignored --nocapture | grep '^hash of seed' >"$out/$profile"
done
[ "$(wc -l <"$out/dev")" -eq "$seeds" ] || { echo "sim-hashes: no hashes" >&2; exit 1; }
diff "$out/dev" "$out/release"
echo "sim-hashes: $seeds seeds did the same in a debug build and in a release"
