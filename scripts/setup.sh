#!/bin/sh
# Finds out whether this machine has what a target of the Makefile needs, and installs what is
# missing where it may. Silent when nothing is missing; else one line a decision.
#
#   scripts/setup.sh build|demo|bench|check
#
# Debian packages are installed with apt-get when run by root, or where sudo asks for no password;
# otherwise the one command to run is printed, and the exit status is 1. Rust is never installed.
set -eu

cd "$(dirname "$0")/.."
purpose=${1:-check}
case $purpose in
    build | demo | bench | check) ;;
    *) echo "usage: $0 build|demo|bench|check" >&2; exit 2 ;;
esac

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# need COMMAND PACKAGE: remembers the package that brings a missing command.
need() { have "$1" || packages="$packages $2"; }
# need_lib MODULE PACKAGE: the same for a C library that pkg-config should know.
need_lib() { { have pkg-config && pkg-config --exists "$1"; } || packages="$packages $2"; }

# Sets `packages` to the Debian packages that are missing; "" when there are none.
find_missing() {
    packages=
    # Rust links with `cc` too, so a C compiler is needed even to build.
    if ! have cc || ! printf '#include <stdint.h>\n' | cc -E - >/dev/null 2>&1; then
        packages=' gcc libc6-dev'
    fi
    [ "$purpose" = build ] && return
    need pkg-config pkg-config
    need_lib libmicrohttpd libmicrohttpd-dev
    need_lib libcurl libcurl4-openssl-dev
    need_lib libcjson libcjson-dev
    need_lib sqlite3 libsqlite3-dev
    case $purpose in demo | bench) return ;; esac
    need gcc gcc
    need clang clang
    need valgrind valgrind
    need readelf binutils
}

# The same for what something is left out without, loudly, by the target itself.
find_wished() {
    packages=
    case $purpose in
        bench | check)
            need_lib raft libraft-dev
            need_lib libuv libuv1-dev
            ;;
    esac
    # Of no use to others than root: slow disks have to be mounted.
    if [ "$purpose" = bench ] && [ "$(id -u)" -eq 0 ]; then
        need_lib nbdkit nbdkit-plugin-dev
        need nbdkit nbdkit
        need nbdfuse libnbd-bin
        need mkfs.ext4 e2fsprogs
    fi
    # Of no use to others than root: the power cuts of the tests mount file systems.
    if [ "$purpose" = check ] && [ "$(id -u)" -eq 0 ]; then
        need strace strace
        need mkfs.ext4 e2fsprogs
        need xfs_io xfsprogs
    fi
}

install_missing() {
    command="apt-get install -y --no-install-recommends$packages"
    if ! have apt-get; then
        fail "missing; install what your system calls these Debian packages:$packages"
    elif [ "$(id -u)" -eq 0 ]; then
        as_root=env
    elif have sudo && sudo -n true 2>/dev/null; then
        as_root='sudo -n env'
    else
        fail "missing:$packages; run: sudo apt-get update && sudo $command"
    fi
    say "installing$packages"
    # A new machine has no package lists yet, and may still be installing its own updates.
    options='-qq -o DPkg::Lock::Timeout=120'
    $as_root DEBIAN_FRONTEND=noninteractive apt-get $options update >/dev/null ||
        fail "'apt-get update' failed; needed:$packages"
    $as_root DEBIAN_FRONTEND=noninteractive apt-get $options ${command#apt-get } >/dev/null ||
        fail "'$command' failed"
    ${1:-find_missing}
    [ -z "$packages" ] || fail "installed, but still not found:$packages"
}

check_rust() {
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! have "${CARGO:-cargo}"; then
        if [ -x "$HOME/.cargo/bin/cargo" ]; then
            fail "Rust is in ~/.cargo/bin, which is not on PATH; run: . \"\$HOME/.cargo/env\""
        fi
        fail "no cargo: install Rust $wanted or newer, see https://rustup.rs"
    fi
    found=$("${CARGO:-cargo}" --version | cut -d' ' -f2 | cut -d- -f1)
    oldest=$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)
    [ "$oldest" = "$wanted" ] ||
        fail "Rust $found is too old, $wanted is needed; run: rustup update stable (or see https://rustup.rs)"
    [ "$purpose" = check ] || return 0
    for tool in fmt clippy; do
        "${CARGO:-cargo}" "$tool" --version >/dev/null 2>&1 ||
            fail "no 'cargo $tool'; run: rustup component add rustfmt clippy"
    done
}

# Rust first: what nobody can install for you should be said before anything is installed.
check_rust
find_missing
[ -z "$packages" ] || install_missing
find_wished
# In a process of its own: where it fails the target goes on.
[ -z "$packages" ] || (install_missing find_wished) || say "going on without"
