#!/bin/bash
# Installs the library into a staging root, as a packager does, and uses it as a stranger does,
# who has only pkg-config and a C compiler. Run by `make check` after `make`.
# Prints a line a test, and `N passed, N failed` at the end.
set -u

cd "$(dirname "$0")/.."
# Variables given to an outer make would change where the inner ones install.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES DESTDIR PREFIX BINDIR LIBDIR INCLUDEDIR PKGCONFIGDIR
export LC_ALL=C

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
root=$tmp/root
prefix=/opt/keel
lib=$root$prefix/lib
header=$root$prefix/include/raftkeel.h
warnings='-std=c11 -Wall -Wextra -Wconversion -Werror'
export PKG_CONFIG_LIBDIR=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root

passed=0
failed=0

# check NAME COMMAND...: one test; what the command says is shown only when it fails.
check() {
    local name=$1
    shift
    if "$@" >"$tmp/output" 2>&1; then
        passed=$((passed + 1))
        echo "install: $name ... ok"
    else
        failed=$((failed + 1))
        echo "install: $name ... FAILED"
        sed 's/^/    /' "$tmp/output"
    fi
}

same() {
    [ "$1" = "$2" ] && return
    printf 'expected:\n%s\nfound:\n%s\n' "$1" "$2"
    return 1
}

version=$(sed -n '/^version = /{s/.*"\(.*\)".*/\1/p;q}' Cargo.toml)
case $version in
    0.*) soname=libraftkeel.so.$(echo "$version" | cut -d. -f1,2) ;;
    *) soname=libraftkeel.so.${version%%.*} ;;
esac
shared=$lib/libraftkeel.so.$version

cat >"$tmp/stranger.c" <<'C'
#include <raftkeel.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    const char *version = keel_version();
    const char *ok = keel_strerror(KEEL_OK);
    const char *invalid = keel_strerror(KEEL_ERR_INVALID);
    if (argc != 2 || strcmp(version, argv[1]) != 0) {
        printf("version %s\n", version);
        return 1;
    }
    if (ok[0] == '\0' || invalid[0] == '\0' || strcmp(ok, invalid) == 0) {
        printf("strerror: '%s', '%s'\n", ok, invalid);
        return 1;
    }
    return 0;
}
C

installs() {
    make --no-print-directory install DESTDIR="$root" PREFIX="$prefix"
}

# The list is exact: an installation that puts anything elsewhere is a fault, too.
has_exactly_the_files() {
    same "$(printf '%s\n' \
        "$prefix/bin/keelctl f" \
        "$prefix/include/raftkeel.h f" \
        "$prefix/lib/libraftkeel.a f" \
        "$prefix/lib/libraftkeel.so l" \
        "$prefix/lib/$soname l" \
        "$prefix/lib/libraftkeel.so.$version f" \
        "$prefix/lib/pkgconfig/raftkeel.pc f" | sort)" \
        "$(find "$root" ! -type d -printf '/%P %y\n' | sort)"
}

links_lead_to_the_library() {
    same "$soname" "$(readlink "$lib/libraftkeel.so")" &&
        same "libraftkeel.so.$version" "$(readlink "$lib/$soname")"
}

soname_is_right() {
    same "$soname" "$(readelf -d "$shared" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')"
}

needs_only_the_c_library() {
    same '' "$(readelf -d "$shared" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
        grep -vE '^(libc\.so|libm\.so|libgcc_s\.so|ld-linux)')"
}

has_no_text_relocations() {
    same '' "$(readelf -d "$shared" | grep TEXTREL)"
}

# With LTO everything is one unit, ours; without, that of the standard library shows as well.
shared_library_has_lto() {
    same 'raftkeel' "$(readelf -sW "$shared" |
        awk '$4 == "FILE" && $8 ~ /^(raftkeel|std)\./ { sub(/\..*/, "", $8); print $8 }' | sort -u)"
}

# `ar` may abort on Rust archives where an LLVM plugin is installed; the names of members are text.
archive_has_no_lto() {
    grep -aqE '(^|/)std-[0-9a-f]+\.std\.' "$lib/libraftkeel.a"
}

exports_what_the_header_declares() {
    # Preprocessed, because comments and macros name functions as well.
    same "$(gcc -E -P "$header" | grep -oE '\bkeel_[a-z0-9_]+[[:space:]]*\(' | tr -d ' (' | sort -u)" \
        "$(nm -D --defined-only "$shared" | awk '{ print $3 }' | sort -u)"
}

keelctl_runs() {
    same "keelctl (raftkeel) $version" "$("$root$prefix/bin/keelctl" --version)"
}

pc_has_the_version() {
    same "$version" "$(pkg-config --modversion raftkeel)"
}

pc_can_be_moved() {
    same 'libdir=${prefix}/lib includedir=${prefix}/include' \
        "$(grep dir= "$lib/pkgconfig/raftkeel.pc" | paste -sd' ')"
}

pc_has_the_native_libraries() {
    local said
    said=$(cat "${CARGO_TARGET_DIR:-target}/release/native-static-libs")
    [ -n "$said" ] || { echo 'rustc said nothing'; return 1; }
    # But for libgcc_s, which has no archive: a C compiler adds by itself what fits the program, it or,
    # with -static, its counterpart.
    same "${said/-lgcc_s /}" "$(sed -n 's/^Libs.private: //p' "$lib/pkgconfig/raftkeel.pc")"
}

# uses_it_* COMPILER: compiles with what pkg-config says, and runs. Word splitting is meant: these are
# lists of flags.
uses_it_shared() {
    "$1" $warnings "$tmp/stranger.c" -o "$tmp/stranger" $(pkg-config --cflags --libs raftkeel) &&
        readelf -d "$tmp/stranger" | grep -q "NEEDED.*\[$soname\]" &&
        LD_LIBRARY_PATH=$lib "$tmp/stranger" "$version"
}

# Where both libraries are installed the linker prefers the shared one, unless it is told the file.
archive_libs() {
    pkg-config --static --libs raftkeel | sed 's/-lraftkeel/-l:libraftkeel.a/'
}

uses_it_static() {
    "$1" $warnings "$tmp/stranger.c" -o "$tmp/stranger" $(pkg-config --cflags raftkeel) \
        $(archive_libs) &&
        ! readelf -d "$tmp/stranger" | grep raftkeel &&
        "$tmp/stranger" "$version"
}

uses_it_in_a_static_program() {
    "$1" -static $warnings "$tmp/stranger.c" -o "$tmp/stranger" \
        $(pkg-config --static --cflags --libs raftkeel) &&
        "$tmp/stranger" "$version"
}

works_from_the_working_tree() {
    PKG_CONFIG_LIBDIR=${CARGO_TARGET_DIR:-target}/release PKG_CONFIG_SYSROOT_DIR='' \
        bash -c 'gcc "$1" -o "$2" $(pkg-config --cflags --static --libs raftkeel |
            sed "s/-lraftkeel/-l:libraftkeel.a/")' - "$tmp/stranger.c" "$tmp/stranger" &&
        "$tmp/stranger" "$version"
}

# The program in README.md is the first that anybody will copy.
readme_compiles() {
    sed -n '/^```c$/,/^```$/{/^```/d;p}' README.md >"$tmp/readme.c"
    [ -s "$tmp/readme.c" ] || { echo "README.md has no C block"; return 1; }
    "$1" $warnings -c "$tmp/readme.c" -o "$tmp/readme.o" $(pkg-config --cflags raftkeel)
}

other_directories_are_obeyed() {
    local root=$tmp/multiarch
    make --no-print-directory install DESTDIR="$root" PREFIX=/usr \
        LIBDIR=/usr/lib/some-arch INCLUDEDIR=/usr/include/keel &&
        [ -f "$root/usr/include/keel/raftkeel.h" ] &&
        same 'libdir=${prefix}/lib/some-arch' \
            "$(grep ^libdir= "$root/usr/lib/some-arch/pkgconfig/raftkeel.pc")" &&
        make --no-print-directory uninstall DESTDIR="$root" PREFIX=/usr \
            LIBDIR=/usr/lib/some-arch INCLUDEDIR=/usr/include/keel &&
        same '' "$(find "$root" ! -type d)"
}

uninstalls_everything() {
    make --no-print-directory uninstall DESTDIR="$root" PREFIX="$prefix" &&
        same '' "$(find "$root" ! -type d)"
}

# Sums up, and ends with the status that make looks at.
finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

check 'make install' installs
[ "$failed" -eq 0 ] || finish
check 'exactly these files' has_exactly_the_files
check 'symlinks' links_lead_to_the_library
check 'soname' soname_is_right
check 'needs only the C library' needs_only_the_c_library
check 'no text relocations' has_no_text_relocations
check '.so is built with LTO' shared_library_has_lto
check '.a is built without LTO' archive_has_no_lto
check 'exported symbols are those of the header' exports_what_the_header_declares
check 'keelctl runs' keelctl_runs
check 'raftkeel.pc: version' pc_has_the_version
check 'raftkeel.pc: relocatable' pc_can_be_moved
check 'raftkeel.pc: Libs.private is what rustc says' pc_has_the_native_libraries
for cc in gcc clang; do
    check "program with the .so ($cc)" uses_it_shared $cc
    check "program with the .a ($cc)" uses_it_static $cc
    check "program that is all static ($cc)" uses_it_in_a_static_program $cc
    check "the program in README.md ($cc)" readme_compiles $cc
done
check 'program from the working tree' works_from_the_working_tree
check 'LIBDIR and INCLUDEDIR' other_directories_are_obeyed
check 'make uninstall' uninstalls_everything
finish
