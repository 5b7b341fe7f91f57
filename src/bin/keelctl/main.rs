//! keelctl: the administrator's command.
//!
//! It exits with 0 if all is well, 1 if something is wrong with what it was asked about, 2 if it
//! could not find out.

#![deny(unsafe_code)]

mod inspect;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: keelctl inspect DIR

  inspect DIR   says what is in the log directory of a node: whose it is, what it remembers, the
                log, the snapshots, what is damaged, and what to do about that. It changes nothing
                and may be used while the daemon runs.

  --help, --version

Exit status: 0 all is well, 1 the directory is damaged, 2 it could not be looked at.
";

enum Wish {
    Inspect(PathBuf),
    Print(String),
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some(wish) = read(&arguments) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match wish {
        Wish::Print(text) => tell(&text, ExitCode::SUCCESS),
        Wish::Inspect(path) => match inspect::inspect(&path) {
            Ok((text, true)) => tell(&text, ExitCode::SUCCESS),
            Ok((text, false)) => tell(&text, ExitCode::FAILURE),
            Err(error) => {
                eprintln!("keelctl: {error}");
                ExitCode::from(2)
            }
        },
    }
}

fn read(arguments: &[OsString]) -> Option<Wish> {
    let (first, rest) = arguments.split_first()?;
    match (first.to_str()?, rest) {
        ("inspect", [path]) if !path.is_empty() => Some(Wish::Inspect(path.into())),
        ("--help" | "-h" | "help", []) => Some(Wish::Print(USAGE.to_owned())),
        ("--version" | "-V", []) => {
            let version = env!("CARGO_PKG_VERSION");
            Some(Wish::Print(format!("keelctl (raftkeel) {version}\n")))
        }
        _ => None,
    }
}

/// A reader that has seen enough (`keelctl ... | head`) is no failure of ours.
fn tell(text: &str, status: ExitCode) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("keelctl: standard output: {error}");
            ExitCode::from(2)
        }
        _ => status,
    }
}
