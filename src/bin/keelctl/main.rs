//! keelctl: the administrator's command.
//!
//! It exits with 0 if all is well, 1 if something is wrong with what it was asked about, 2 if it
//! could not find out.

#![deny(unsafe_code)]

mod advice;
mod file;
mod inspect;
mod repair;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: keelctl inspect DIR
       keelctl inspect FILE
       keelctl extract FILE INDEX
       keelctl repair DIR [--accept-loss] [--save FILE]

  inspect DIR   says what is in the log directory of a node: whose it is, what it remembers, the
                log, the snapshots, what is damaged, and what to do about that. It changes nothing
                and may be used while the daemon runs.

  inspect FILE  says what is in one file: a file lost-* that a repair or a damaged start has left, a
                segment, a snapshot, META, wherever it lies.

  extract FILE INDEX
                writes the daemon's command of that index in a file lost-* or a segment to standard
                output, so that it can be looked at or done again.

  repair DIR    says what of a damaged log would be given up for good, so that the node can go on
                without it: the only node of a cluster, or all nodes of one in which every node has
                lost entries. Any other node is made whole by its leader, and needs no repair.
                A node that votes alone by its own log, and has lost META, gets another one. Where
                nothing helps it says how to begin anew.
                With --accept-loss it does so: what is dropped is written to FILE first, or to a
                file lost-* in DIR. The daemon must not run.

  --help, --version

Exit status: 0 all is well, 1 the directory is damaged, 2 it could not be looked at.
";

enum Wish {
    Inspect(PathBuf),
    Extract(PathBuf, u64),
    Repair {
        path: PathBuf,
        accept: bool,
        save: Option<PathBuf>,
    },
    Print(String),
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some(wish) = read(&arguments) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let said = match wish {
        Wish::Print(text) => Ok((text, true)),
        Wish::Inspect(path) if path.is_file() => file::inspect(&path),
        Wish::Inspect(path) => inspect::inspect(&path),
        Wish::Extract(path, index) => match raftkeel::storage::inspect::command(&path, index) {
            Ok(Some(data)) => return tell(&data, ExitCode::SUCCESS),
            Ok(None) => {
                eprintln!(
                    "keelctl: {}: no command of the daemon at index {index}",
                    path.display()
                );
                return ExitCode::FAILURE;
            }
            Err(error) => Err(error),
        },
        Wish::Repair { path, accept, save } => repair::run(&path, accept, save.as_deref()),
    };
    match said {
        Ok((text, true)) => tell(text.as_bytes(), ExitCode::SUCCESS),
        Ok((text, false)) => tell(text.as_bytes(), ExitCode::FAILURE),
        Err(error) => {
            eprintln!("keelctl: {error}");
            ExitCode::from(2)
        }
    }
}

fn read(arguments: &[OsString]) -> Option<Wish> {
    let (first, rest) = arguments.split_first()?;
    match (first.to_str()?, rest) {
        ("inspect", [path]) if !path.is_empty() => Some(Wish::Inspect(path.into())),
        ("extract", [path, index]) if !path.is_empty() => {
            let index = index.to_str()?.parse().ok()?;
            Some(Wish::Extract(path.into(), index))
        }
        ("repair", options) => read_repair(options),
        ("--help" | "-h" | "help", []) => Some(Wish::Print(USAGE.to_owned())),
        ("--version" | "-V", []) => {
            let version = env!("CARGO_PKG_VERSION");
            Some(Wish::Print(format!("keelctl (raftkeel) {version}\n")))
        }
        _ => None,
    }
}

fn read_repair(mut options: &[OsString]) -> Option<Wish> {
    let (mut path, mut accept, mut save) = (None, false, None);
    while let Some((option, rest)) = options.split_first() {
        options = rest;
        match option.to_str() {
            Some("--accept-loss") => accept = true,
            Some("--save") => {
                let (file, rest) = options.split_first()?;
                (save, options) = (Some(PathBuf::from(file)), rest);
            }
            Some(unknown) if unknown.starts_with('-') => return None,
            _ if path.is_none() && !option.is_empty() => path = Some(PathBuf::from(option)),
            _ => return None,
        }
    }
    let path = path?;
    Some(Wish::Repair { path, accept, save })
}

/// A reader that has seen enough (`keelctl ... | head`) is no failure of ours.
fn tell(text: &[u8], status: ExitCode) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("keelctl: standard output: {error}");
            ExitCode::from(2)
        }
        _ => status,
    }
}
