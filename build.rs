//! Sets the soname of the shared library; std only, fetches nothing.

fn main() {
    let major = std::env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
    let minor = std::env::var("CARGO_PKG_VERSION_MINOR").unwrap_or_default();
    // Before 1.0 every minor version may change the ABI, so the soname carries it.
    let soname = if major == "0" {
        format!("libraftkeel.so.0.{minor}")
    } else {
        format!("libraftkeel.so.{major}")
    };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    println!("cargo:rerun-if-changed=build.rs");
}
