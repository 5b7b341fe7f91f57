#!/bin/sh
# The museum of bugs: src holds classic bugs of Raft and of its storage, each compiled in by
# `--cfg keel_bug="name"` and out otherwise. The simulator must find every one of the core's, and the
# tests of the log directory every one of storage, or their silence proves nothing.
# Prints a table: bug, seeds until it was found (one number for each attempt, or `kept` if one of
# those in tests/sim/seeds.txt did), what found it.
#
#   scripts/museum.sh [bug ...]      all of them by default
#
# In the environment: SEEDS and SECONDS_EACH bound one search (20000, 300); ATTEMPTS is how often each bug
# is searched, in other seeds each time (1).
#
# The core needs no other crate, and the simulator only the core: rustc builds both alone, and once, with
# every bug of the core in them; which one is there is said at run time.
set -eu

cd "$(dirname "$0")/.."
seeds=${SEEDS:-20000}
seconds=${SECONDS_EACH:-300}
attempts=${ATTEMPTS:-1}
out=${CARGO_TARGET_DIR:-target}/museum
mkdir -p "$out"

known() { grep -rhoE 'keel_bug = "[a-z_]+"' "$1" | cut -d'"' -f2 | sort -u; }
bugs=${*:-$(known src)}
for bug in $bugs; do
    known src | grep -qx "$bug" || { echo "museum: there is no bug $bug" >&2; exit 2; }
done

# The library without anything but the core, under its own name: whether a bug is compiled in becomes
# whether KEEL_BUG names it.
cat >"$out/raftkeel.rs" <<END
#![allow(missing_docs)]
macro_rules! cfg {
    (keel_bug = \$name:literal) => { crate::has_bug(\$name) };
    (any(\$(keel_bug = \$name:literal),* \$(,)?)) => { \$(crate::has_bug(\$name))||* };
    (\$(\$other:tt)*) => { std::cfg!(\$(\$other)*) };
}
fn has_bug(name: &str) -> bool {
    static BUG: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| std::env::var("KEEL_BUG").unwrap_or_default());
    *BUG == name
}
#[path = "$PWD/src/core/mod.rs"]
pub mod core;
END

build() {
    flags="--edition 2024 -C opt-level=3 -C debug-assertions=on -C overflow-checks=on -A warnings"
    rustc $flags --crate-type rlib --crate-name raftkeel --out-dir "$out" "$out/raftkeel.rs" &&
        rustc $flags --test --cfg keel_core_alone --extern raftkeel="$out/libraftkeel.rlib" \
            -o "$out/sim" tests/sim/main.rs
}

# Prints the seeds it took, and what was said.
search() {
    first=$((1 + $2 * 1000000))
    if KEEL_BUG=$1 RAFTKEEL_FIRST=$first RAFTKEEL_SEEDS=$seeds RAFTKEEL_SECONDS=$seconds \
        RUST_BACKTRACE=0 "$out/sim" no_promise_is_broken --nocapture >"$out/$1.log" 2>&1; then
        return 1
    fi
    seed=$(sed -n 's/.*RAFTKEEL_SEED=\([0-9]*\) .*/\1/p' "$out/$1.log" | head -1)
    [ -n "$seed" ] || return 1
    # One of the kept seeds, which are always run first.
    grep -q "^$seed " tests/sim/seeds.txt && { echo kept; return; }
    echo $((seed - first + 1))
}

# A bug of storage: the tests of the directory must find it.
storage() {
    program=$(cargo rustc --locked --quiet --target-dir "$out/storage" --lib --profile test \
        --message-format json -- --cfg "keel_bug=\"$1\"" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    RUST_BACKTRACE=0 "$program" storage::dir >"$out/storage.log" 2>&1 && return 1
    sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$out/storage.log" | head -1
}

# Without a bug nothing is found, or what is found below proves nothing.
build
if found=$(seconds=30 search none 0); then
    echo "museum: without any bug, seed $found fails" >&2
    exit 2
fi

survivors=0
printf '%-28s %-20s %s\n' "bug" "seeds" "found by"
for bug in $bugs; do
    if known src/storage | grep -qx "$bug"; then
        if found=$(storage "$bug"); then
            printf '%-28s %-20s %s\n' "$bug" "-" "$found"
        else
            printf '%-28s %-20s %s\n' "$bug" "-" SURVIVED
            survivors=$((survivors + 1))
        fi
        continue
    fi
    took= found= attempt=0
    while [ "$attempt" -lt "$attempts" ]; do
        if count=$(search "$bug" "$attempt"); then
            took="$took $count"
            found=$(grep -B1 '^failed: RAFTKEEL_SEED' "$out/$bug.log" | head -1 | cut -c1-110)
        else
            took="$took -"
            survivors=$((survivors + 1))
        fi
        attempt=$((attempt + 1))
    done
    printf '%-28s %-20s %s\n' "$bug" "${took# }" "${found:-SURVIVED}"
done
[ "$survivors" -eq 0 ] || { echo "museum: $survivors searches found nothing" >&2; exit 1; }
echo "museum: every bug was found"
