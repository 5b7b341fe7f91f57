//! What a node says of a directory that it finds damaged, and opens nevertheless.

use std::fs;
use std::path::{Path, PathBuf};

use raftkeel::core::{Index, Term};
use raftkeel::engine::{
    Error, Host, HostState, Input, Load, Member, Place, Request, Save, Settings, Ticket,
};

use crate::cluster::{peer, settings};

/// A host with a state of one byte, that keeps what it is told.
#[derive(Default)]
struct Listener {
    said: Vec<String>,
    done: u64,
}

impl Host for Listener {
    fn apply(&mut self, _index: Index, _term: Term, _data: &[u8]) -> Result<(), i32> {
        Ok(())
    }
    fn save(&mut self, mut save: Save, _index: Index) {
        save.write(b"state").unwrap();
        save.finish(true);
    }
    fn load(&mut self, load: Load, _index: Index) {
        load.finish(true);
    }
    fn done(&mut self, _ticket: Ticket, result: Result<Index, Error>) {
        result.unwrap();
        self.done += 1;
    }
    fn log(&mut self, _level: i32, text: &str) {
        self.said.push(text.to_owned());
    }
}

/// Runs the node at `path` until it has made so many snapshots; what it has said.
fn run(path: &Path, create: bool, snapshots: u64) -> Vec<String> {
    let settings = Settings {
        host_state: HostState::Saved,
        ..settings(1)
    };
    let place = Place::Directory {
        path: path.to_owned(),
        create,
    };
    let (mut member, handle) = Member::new(settings, place).unwrap();
    if create {
        member.bootstrap(&[peer(1)]).unwrap();
    }
    let mut host = Listener::default();
    for now in 1_000..1_050 {
        member.step(now, &mut host).unwrap();
    }
    for n in 1..=snapshots {
        let snapshot = Input::Request(Ticket(2 * n), Request::Snapshot);
        handle.submit(snapshot).unwrap();
        for now in 0..50 {
            member.step(1_050 + 100 * n + now, &mut host).unwrap();
        }
        let more = Request::Propose(b"more"[..].into());
        handle
            .submit(Input::Request(Ticket(2 * n + 1), more))
            .unwrap();
        for now in 50..100 {
            member.step(1_050 + 100 * n + now, &mut host).unwrap();
        }
    }
    assert_eq!(2 * snapshots, host.done);
    host.said
}

/// Changes a byte of the newest file of that kind.
fn damage(path: &Path, ending: &str, at: usize) {
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = files
        .filter(|file| file.to_str().unwrap().ends_with(ending))
        .collect();
    files.sort();
    let file = files.pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
}

#[test]
fn damage_that_is_passed_over_is_told() {
    let path = std::env::temp_dir().join(format!("raftkeel-opening-{}", std::process::id()));
    run(&path, true, 2);
    let said = run(&path, false, 0);
    assert!(
        !said
            .iter()
            .any(|text| text.contains("damaged") || text.contains("passed over"))
    );
    damage(&path, "META", 100);
    damage(&path, ".snap", 4096 + 512);
    let said = run(&path, false, 0);
    for wanted in ["META was damaged", "a snapshot is passed over"] {
        assert!(
            said.iter().any(|text| text.contains(wanted)),
            "{wanted}: {said:?}"
        );
    }
    fs::remove_dir_all(&path).unwrap();
}

/// It has voted in terms that a log begun anew would use again.
#[test]
fn a_log_that_was_given_up_is_not_begun_anew() {
    let path = std::env::temp_dir().join(format!("raftkeel-given-up-{}", std::process::id()));
    run(&path, true, 0);
    let files = fs::read_dir(&path)
        .unwrap()
        .map(|file| file.unwrap().path());
    let segments = files.filter(|file| file.extension().is_some_and(|e| e == "seg"));
    segments.for_each(|file| fs::remove_file(file).unwrap());
    assert!(
        raftkeel::storage::repair::repair(&path, None)
            .unwrap()
            .is_some()
    );
    let place = Place::Directory {
        path: path.clone(),
        create: false,
    };
    let (mut member, _handle) = Member::new(settings(1), place).unwrap();
    let refused = member.bootstrap(&[peer(1)]);
    let wanted = "begin with an empty directory";
    assert!(
        matches!(&refused, Err(Error::Exists(text)) if text.contains(wanted)),
        "{refused:?}"
    );
    drop(member);
    let said = run(&path, false, 0);
    assert!(said.iter().any(|text| text.contains(wanted)), "{said:?}");
    fs::remove_dir_all(&path).unwrap();
}
