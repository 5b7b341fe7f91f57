//! The library as C gets it, C compilers, and C programs run to their end.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// What a program must be linked with besides the archive (`--print native-static-libs`).
pub const NATIVE: [&str; 7] = [
    "-lgcc_s",
    "-lutil",
    "-lrt",
    "-lpthread",
    "-lm",
    "-ldl",
    "-lc",
];
/// How strictly C that is ours is compiled.
pub const STRICT: [&str; 5] = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where this run may write.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).expect("the target directory is writable");
    dir
}

/// The shared library, under its own name and its soname, in a directory of its own.
pub fn shared() -> &'static Path {
    static NAMED: OnceLock<PathBuf> = OnceLock::new();
    NAMED.get_or_init(|| {
        let library = built().join("libraftkeel.so");
        let major_minor = concat!(
            env!("CARGO_PKG_VERSION_MAJOR"),
            ".",
            env!("CARGO_PKG_VERSION_MINOR")
        );
        let soname = library.with_file_name(format!("libraftkeel.so.{major_minor}"));
        if std::fs::symlink_metadata(&soname).is_err() {
            // Another test file may make it at the same time: then it is there as well.
            let _ = std::os::unix::fs::symlink("libraftkeel.so", &soname);
        }
        library
    })
}

/// The archive.
pub fn archive() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built().join("libraftkeel.a"))
}

/// Where both are, compiled once for both. The Makefile makes one at a time, for the sake of LTO; here
/// is none.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = scratch("clib");
        let release = !cfg!(debug_assertions);
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(root())
            .args(["rustc", "--quiet", "--lib"])
            .args(["--crate-type", "cdylib,staticlib", "--target-dir"])
            .arg(&target);
        if release {
            cargo.arg("--release");
        }
        succeed(&mut cargo);
        target.join(if release { "release" } else { "debug" })
    })
}

/// The C compilers to try. Without clang half of the checks are missing: a developer is told,
/// CI fails.
pub fn compilers() -> Vec<&'static str> {
    ["gcc", "clang"]
        .into_iter()
        .filter(|cc| present(cc))
        .collect()
}

/// Whether a tool can be run; in CI it must be there.
pub fn present(tool: &str) -> bool {
    let found = Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(
        found || !ci,
        "{tool} is not installed, and CI=true skips nothing"
    );
    if !found {
        eprintln!("SKIPPED: {tool} is not installed, what it would have checked is unchecked");
    }
    found
}

/// Runs a command that must succeed; what it said is shown if it does not.
pub fn succeed(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// How a program is linked and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Shared,
    Static,
    /// With the address and undefined behaviour sanitizers, against the shared library.
    Sanitized,
}

/// Compiles tests/c/`sources` into one program.
pub fn compile(name: &str, sources: &[&str], variant: Variant) -> PathBuf {
    let program = scratch("c").join(format!("{name}-{variant:?}"));
    let mut cc = Command::new("gcc");
    cc.current_dir(root())
        .args(STRICT)
        .args(["-g", "-O1", "-Iinclude", "-o"])
        .arg(&program);
    cc.args(sources.iter().map(|source| format!("tests/c/{source}")));
    if variant == Variant::Sanitized {
        cc.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    }
    if variant == Variant::Static {
        cc.arg(archive()).args(NATIVE);
    } else {
        let library = shared();
        let dir = library.parent().expect("a file is in a directory");
        cc.arg(library)
            .arg(format!("-Wl,-rpath,{}", dir.display()))
            .arg("-lpthread");
    }
    succeed(&mut cc);
    program
}

/// A new, empty directory to run in.
pub fn empty_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("run")
        .join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("the target directory is writable");
    dir
}
