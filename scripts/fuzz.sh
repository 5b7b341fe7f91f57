#!/bin/sh
# Fuzzes every decoder, one after the other, and says what came of it.
#
#   scripts/fuzz.sh SECONDS [TARGET...]
#
# What is new goes to fuzz/target/corpus; the corpus in the tree is only read. fuzz/README.md says
# how it is renewed. cargo-fuzz is installed from crates.io if it is missing; a compiler never is.
set -eu

cd "$(dirname "$0")/.."
seconds=${1:?usage: $0 SECONDS [TARGET...]}
shift
cargo=${CARGO:-cargo}
if [ $# -eq 0 ]; then
    set -- $(sed -n '/^\[\[bin\]\]/{n;s/^name = "\(.*\)"/\1/p;}' fuzz/Cargo.toml)
fi

# All that is missing at once: nobody likes to be told one thing at a time.
missing=
lacks() {
    echo "fuzz: $1; run: $2" >&2
    missing=yes
}
"$cargo" +nightly --version >/dev/null 2>&1 ||
    lacks "no nightly compiler, which the sanitizer needs" "rustup toolchain install nightly"
command -v c++ >/dev/null 2>&1 ||
    lacks "no C++ compiler, which libFuzzer needs" "apt-get install g++"
[ -z "$missing" ] || exit 1
if ! "$cargo" fuzz --version >/dev/null 2>&1; then
    echo "fuzz: installing cargo-fuzz from crates.io"
    "$cargo" install --quiet --locked cargo-fuzz ||
        { lacks "no cargo-fuzz" "$cargo install --locked cargo-fuzz"; exit 1; }
fi

"$cargo" +nightly fuzz build
failed=
for target; do
    new=fuzz/target/corpus/$target
    found=fuzz/artifacts/$target
    log=fuzz/target/$target.log
    mkdir -p "$new" "$found"
    if "$cargo" +nightly fuzz run "$target" "$new" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=20 -print_final_stats=1 \
        >"$log" 2>&1; then
        said=$(sed -n 's/^#\([0-9]*\)[^0-9]*DONE *cov: \([0-9]*\).*/\1 executions, \2 edges/p' "$log")
        echo "fuzz: $target: $said"
    else
        failed="$failed $target"
        echo "fuzz: $target FAILED: see $log, and $found" >&2
    fi
done
[ -z "$failed" ] || { echo "fuzz: failed:$failed" >&2; exit 1; }
