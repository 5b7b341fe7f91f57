//! include/raftkeel.h compiles alone and twice, as every C and C++ that a host may be written in,
//! with every warning on; its initialisers set the size and nothing else; and it declares exactly
//! what the library exports.

mod clib;

use std::collections::BTreeSet;
use std::process::Command;

const WARNINGS: [&str; 6] = [
    "-pedantic-errors",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Werror",
];
const STANDARDS: [(&str, &str); 8] = [
    ("c", "c99"),
    ("c", "c11"),
    ("c", "c17"),
    ("c++", "c++98"),
    ("c++", "c++11"),
    ("c++", "c++14"),
    ("c++", "c++17"),
    ("c++", "c++20"),
];

/// Alone: nothing before it. Twice: the guard. The functions: initialisers in both places where
/// one may stand, and constants in the preprocessor.
const PROGRAM: &str = r#"
#include "raftkeel.h"
#include "raftkeel.h"

#if KEEL_VERSION_NUMBER < 0x100 || KEEL_ERR_STALE >= KEEL_OK
#error "the constants are no numbers"
#endif

static keel_config config = KEEL_CONFIG_INIT;

int first_bytes(void);
int first_bytes(void)
{
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    static keel_storage storage = KEEL_STORAGE_INIT;
    keel_params params = KEEL_PARAMS_INIT;
    keel_peer peer = KEEL_PEER_INIT;

    config.storage = &storage;
    config.flags |= KEEL_NEW_NODE;
    config.flags = KEEL_NEW_NODE | KEEL_VOLATILE;
    return callbacks.size == sizeof callbacks && params.size == sizeof params &&
           peer.size == sizeof peer && config.size == sizeof config &&
           storage.size == sizeof storage && config.params.size == sizeof params && callbacks.log == NULL && peer.meta == NULL;
}
"#;

#[test]
fn header_compiles_in_every_dialect() {
    let dir = clib::scratch("header");
    for (language, standard) in STANDARDS {
        let source = dir.join(format!("{standard}.txt"));
        std::fs::write(&source, PROGRAM).expect("the target directory is writable");
        for cc in clib::compilers() {
            let mut command = Command::new(cc);
            command.args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"]);
            command
                .args(WARNINGS)
                .arg("-I")
                .arg(clib::root().join("include"))
                .arg(&source);
            clib::succeed(&mut command);
        }
    }
}

#[test]
fn programs_compile_with_both_compilers() {
    let programs = std::fs::read_dir(clib::root().join("tests/c")).expect("tests/c is there");
    for program in programs.map(|entry| entry.expect("tests/c is readable").path()) {
        if program
            .extension()
            .is_some_and(|extension| extension == "c")
        {
            for cc in clib::compilers() {
                let mut command = Command::new(cc);
                command.args(clib::STRICT).args(["-fsyntax-only", "-I"]);
                clib::succeed(command.arg(clib::root().join("include")).arg(&program));
            }
        }
    }
}

#[test]
fn initialisers_leave_everything_else_zero() {
    let dir = clib::scratch("header");
    let source = dir.join("zero.c");
    let program = r#"
#include <string.h>
#include "raftkeel.h"

#define REST_IS_ZERO(type, init)                                                   \
    do {                                                                           \
        static const type zero;                                                    \
        type value = init;                                                         \
        if (value.size != sizeof value) return 1;                                  \
        value.size = 0;                                                            \
        if (memcmp(&value, &zero, sizeof value) != 0) return 2;                    \
    } while (0)

int main(void)
{
    keel_config config = KEEL_CONFIG_INIT;
    static const keel_config zero;

    REST_IS_ZERO(keel_peer, KEEL_PEER_INIT);
    REST_IS_ZERO(keel_params, KEEL_PARAMS_INIT);
    REST_IS_ZERO(keel_callbacks, KEEL_CALLBACKS_INIT);
    REST_IS_ZERO(keel_storage, KEEL_STORAGE_INIT);
    if (config.size != sizeof config || config.params.size != sizeof config.params) return 3;
    config.size = config.params.size = 0;
    return memcmp(&config, &zero, sizeof config) == 0 ? 0 : 4;
}
"#;
    std::fs::write(&source, program).expect("the target directory is writable");
    let binary = dir.join("zero");
    let mut command = Command::new("gcc");
    command
        .arg("-I")
        .arg(clib::root().join("include"))
        .arg(&source)
        .arg("-o")
        .arg(&binary);
    clib::succeed(&mut command);
    clib::succeed(&mut Command::new(&binary));
}

/// The names that follow a type or a star and stand before a parenthesis at the head of a
/// declaration; function pointers have `(*name)` and are none.
fn declared() -> BTreeSet<String> {
    let path = clib::root().join("include/raftkeel.h");
    let header = std::fs::read_to_string(path).expect("include/raftkeel.h is there");
    header
        .split("KEEL_API")
        .skip(1)
        .filter_map(|declaration| {
            let head = declaration.split_once('(')?.0;
            let name = head.rsplit([' ', '*', '\n']).next()?;
            name.starts_with("keel_").then(|| name.to_owned())
        })
        .collect()
}

#[test]
fn exported_symbols_are_the_headers_functions() {
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only", "--format=posix"])
        .arg(clib::shared());
    let output = String::from_utf8(clib::succeed(&mut nm).stdout).expect("symbols are ASCII");
    let exported: BTreeSet<String> = output
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert_eq!(exported, declared());
    assert!(exported.len() > 30, "{exported:?}");
}
