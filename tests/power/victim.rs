//! The process that writes a directory and says how far it has come, until it is killed, or one of its
//! system calls is made to fail.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::story::{self, Done};

const DIR: &str = "RAFTKEEL_VICTIM_DIR";
const SEED: &str = "RAFTKEEL_VICTIM_SEED";
const SIGKILL: i32 = 9;

/// Names of system calls, and how often each was made.
pub type Calls = BTreeMap<String, u64>;

/// What happens at system calls of one kind.
pub enum Fault {
    /// At the n-th.
    Kill(u64),
    /// The n-th fails.
    Error(u64, &'static str),
    /// None is made, and all of them report success.
    Deaf,
}

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Finished,
    /// By an error that the directory has given back.
    Failed,
    Killed,
    Panicked,
    /// The program itself did not come up.
    NotBegun,
}

fn strace(dir: &Path, seed: u64, options: &[&str]) -> Output {
    Command::new("strace")
        .args(["-f", "-qq"])
        .args(options)
        .arg(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
        .arg("victim::victim")
        .env(DIR, dir)
        .env(SEED, seed.to_string())
        .output()
        .unwrap()
}

/// How many system calls of these kinds a life consists of.
pub fn count_calls(dir: &Path, seed: u64, kinds: &str) -> Calls {
    let trace = format!("trace={kinds}");
    let output = strace(dir, seed, &["-c", "-e", &trace]);
    let table = String::from_utf8_lossy(&output.stderr);
    let mut calls = Calls::new();
    for line in table.lines() {
        // Share, seconds, microseconds a call, calls, perhaps errors, name.
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [share, _, _, count, .., name] = words[..]
            && share.parse::<f64>().is_ok()
            && name != "total"
        {
            calls.insert(name.to_owned(), count.parse().unwrap());
        }
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let whole = said.lines().any(|line| line.ends_with("finished"));
    assert!(whole && !calls.is_empty(), "{said} {table}");
    calls
}

/// A life, and what it said that it had done.
pub fn run(dir: &Path, seed: u64, call: &str, fault: Fault) -> (End, Done) {
    let what = match fault {
        Fault::Kill(nth) => format!("signal=KILL:when={nth}"),
        Fault::Error(nth, error) => format!("error={error}:when={nth}"),
        Fault::Deaf => "retval=0".to_owned(),
    };
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:{what}");
    let options = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
    let output = strace(dir, seed, &options);
    let said = String::from_utf8_lossy(&output.stdout);
    let has = |word: &str| said.lines().any(|line| line.ends_with(word));
    let end = match output.status.signal() {
        Some(SIGKILL) => End::Killed,
        _ if !has("begun") => End::NotBegun,
        _ if has("finished") => End::Finished,
        _ if has("failed") => End::Failed,
        // As a shell and some versions of strace say it.
        _ if output.status.code() == Some(128 + SIGKILL) => End::Killed,
        _ => End::Panicked,
    };
    (end, Done::heard(&said))
}

#[test]
#[ignore = "started by the others"]
fn victim() {
    let Some(dir) = env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let seed = env::var(SEED).unwrap().parse().unwrap();
    println!("\nbegun");
    match story::live(&dir, seed) {
        Ok(()) => println!("\nfinished"),
        Err(error) => println!("\n{error}\nfailed"),
    }
}
