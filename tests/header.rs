//! include/raftkeel.h is what src/ffi says: it is generated here and compared byte for byte.
//! `KEEL_BLESS=1 cargo test --test header` writes it anew.

use std::path::Path;

/// In the order in which the header explains itself.
const SOURCES: [&str; 13] = [
    "code",
    "errmsg",
    "config",
    "tickets",
    "callbacks",
    "keel",
    "drive",
    "input",
    "leadership",
    "snapshot",
    "storage",
    "query",
    "status",
];

#[test]
fn checked_in_header_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/raftkeel.h");
    let generated = generate();
    if std::env::var_os("KEEL_BLESS").is_some() {
        std::fs::write(&path, &generated).expect("include/raftkeel.h can be written");
        return;
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = checked_in
        .lines()
        .zip(generated.lines())
        .position(|(old, new)| old != new)
        .unwrap_or(checked_in.lines().count().min(generated.lines().count()));
    assert!(
        checked_in == generated,
        "include/raftkeel.h is out of date from line {} on: KEEL_BLESS=1 cargo test --test header",
        differs + 1
    );
}

fn generate() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root.join("src/ffi").join(source).with_extension("rs"));
    }
    let mut text = Vec::new();
    builder
        .generate()
        .expect("src/ffi is understood")
        .write(&mut text);
    finish(&String::from_utf8(text).expect("the header is UTF-8"))
}

/// What cbindgen cannot do: versions, short comments on one line, parentheses around negative
/// constants, its trailer inside the include guard.
fn finish(raw: &str) -> String {
    const GUARD_END: &str = "#endif  /* RAFTKEEL_H */\n";
    let text = raw
        .replace("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR"))
        .replace("@MINOR@", env!("CARGO_PKG_VERSION_MINOR"))
        .replace("@PATCH@", env!("CARGO_PKG_VERSION_PATCH"));
    let (before, trailer) = text.split_once(GUARD_END).expect("the include guard ends");
    let text = format!("{before}{}\n\n{GUARD_END}", trailer.trim());
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let short = lines
            .get(at + 1)
            .and_then(|next| next.trim_start().strip_prefix("* "));
        let closes = lines
            .get(at + 2)
            .is_some_and(|next| next.trim_start() == "*/");
        if let (true, Some(text), true) = (line.trim_start() == "/**", short, closes) {
            out.push_str(&format!("{line} {text} */\n"));
            at += 3;
            continue;
        }
        match line
            .split_once(" -")
            .filter(|(define, _)| define.starts_with("#define "))
        {
            Some((define, value)) => out.push_str(&format!("{define} (-{value})\n")),
            None => out.push_str(&format!("{line}\n")),
        }
        at += 1;
    }
    out
}
