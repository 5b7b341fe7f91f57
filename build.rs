//! Writes `raftkeel.pc` beside the libraries in the target directory, so that a C program can
//! be built against a working tree without installing anything. Std only, fetches nothing.
//!
//! The soname is not set here but by the Makefile: cargo takes a link argument for a shared
//! library only from a package that lists one as its target, and ours does not (see `[lib]`).

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=raftkeel.pc.in");

    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let Some(libraries) = library_directory(&out) else {
        println!("cargo:warning=unknown layout of the target directory: no in-place raftkeel.pc");
        return Ok(());
    };
    let text = fs::read_to_string(root.join("raftkeel.pc.in"))?
        .replace("@PREFIX@", &root.display().to_string())
        .replace("@LIBDIR@", &libraries.display().to_string())
        .replace("@INCLUDEDIR@", "${prefix}/include")
        .replace("@VERSION@", &variable("CARGO_PKG_VERSION")?);
    fs::write(libraries.join("raftkeel.pc"), text)?;
    Ok(())
}

/// `<target>/<profile>`, where cargo puts what it builds, from
/// `<target>/<profile>/build/<package>-<hash>/out`.
fn library_directory(out: &Path) -> Option<&Path> {
    let build = out.ancestors().nth(2)?;
    if build.file_name()? != "build" {
        return None;
    }
    build.parent()
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}
