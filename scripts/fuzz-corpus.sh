#!/bin/sh
# Renews fuzz/corpus from what `make fuzz` has found: for each target the fewest small files that
# together reach as much, each under the SHA-1 of its content.
#
#   scripts/fuzz-corpus.sh [TARGET...]
set -eu

cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
[ $# -gt 0 ] || set -- $(ls fuzz/corpus)
for target; do
    least=fuzz/target/least/$target
    rm -rf "$least"
    mkdir -p "$least" "fuzz/target/corpus/$target"
    # Which edges are reached counts, and not how often: else ten times as many files would be needed.
    # What is longer is cut: the tree is no place for large files.
    "$cargo" +nightly fuzz run "$target" "$least" "fuzz/corpus/$target" "fuzz/target/corpus/$target" \
        -- -set_cover_merge=1 -use_counters=0 -max_len=1024 >"fuzz/target/$target.log" 2>&1
    rm -rf "fuzz/corpus/$target"
    mv "$least" "fuzz/corpus/$target"
    echo "$target: $(ls "fuzz/corpus/$target" | wc -l) files, $(cat fuzz/corpus/$target/* | wc -c) bytes"
done
