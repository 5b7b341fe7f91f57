//! The only voter of a cluster, which nobody can give back what it has lost: what the tool says is followed
//! to the letter, and the node started again.

use std::fs;
use std::path::{Path, PathBuf};

use raftkeel::cluster::{Params, Peer, bootstrap_entry};
use raftkeel::core::{Entry, HardState, Index, NodeId, Payload, Persist, Term, Token};
use raftkeel::engine::{
    Error, Host, HostState, Input, Load, Member, Place, Request, Role, Save, Settings, Ticket,
};
use raftkeel::storage::{Directory, Options, Storage};

use crate::{IDENTITY, expect, inspect, place, repair};

/// Entries of the host in the log: numbers 2 to this one.
const LAST: u64 = 12;

/// A host that keeps the commands it is given.
#[derive(Default)]
struct Keeper {
    applied: Vec<Index>,
    loaded: Option<Index>,
    leads: bool,
    done: bool,
}

impl Host for Keeper {
    fn apply(&mut self, _index: Index, _term: Term, data: &[u8]) -> Result<(), i32> {
        self.applied.push(u64::from(data[0]));
        Ok(())
    }
    fn save(&mut self, mut save: Save, _index: Index) {
        save.write(b"state").unwrap();
        save.finish(true);
    }
    fn load(&mut self, load: Load, index: Index) {
        self.loaded = Some(index);
        load.finish(true);
    }
    fn role(&mut self, role: Role, _term: Term, _leader: Option<NodeId>) {
        self.leads = role == Role::Leader;
    }
    fn done(&mut self, _ticket: Ticket, result: Result<Index, Error>) {
        result.unwrap();
        self.done = true;
    }
}

fn myself() -> Peer {
    Peer {
        id: IDENTITY.node,
        address: "host:7000".to_owned(),
        meta: Vec::new().into(),
    }
}

/// Starts the node, which leads and does what is asked for.
fn start(path: &Path, create: bool, request: Request) -> Result<Keeper, Error> {
    let settings = Settings {
        election: 1000,
        host_state: HostState::Saved,
        ..Settings::new(IDENTITY.node, IDENTITY.cluster, 1)
    };
    let place = Place::Directory {
        path: path.to_owned(),
        create,
    };
    let (mut member, handle) = Member::new(settings, place)?;
    if create {
        member.bootstrap(&[myself()])?;
    }
    let mut host = Keeper::default();
    let mut now = 1_000;
    let mut run = |host: &mut Keeper, until: fn(&Keeper) -> bool| {
        while !until(host) {
            now += 1;
            assert!(now < 20_000, "it neither leads nor does what is asked for");
            member.step(now, host)?;
        }
        Ok::<(), Error>(())
    };
    run(&mut host, |host| host.leads)?;
    handle.submit(Input::Request(Ticket(1), request)).unwrap();
    run(&mut host, |host| host.done)?;
    Ok(host)
}

fn propose(number: u64) -> Request {
    Request::Propose([number as u8][..].into())
}

/// A log of an only voter, in segments of three entries.
pub fn filled(path: &Path) {
    Directory::create(path, &IDENTITY, 0xabc).unwrap();
    let options = Options {
        segment_bytes: 1 << 14,
        ..Options::default()
    };
    let (mut directory, _) = Directory::open_with(path, &IDENTITY, options).unwrap();
    let first = bootstrap_entry(&[myself()], &Params::default()).unwrap();
    let others = (2..=LAST).map(|index| Entry {
        index,
        term: 1 + index / 6,
        payload: Payload::Host(vec![index as u8; 3000].into()),
    });
    for entry in std::iter::once(first).chain(others) {
        directory.submit(Persist {
            token: Token(entry.index),
            hard: Some(HardState {
                term: entry.term,
                vote: Some(IDENTITY.node),
                commit: entry.index - 1,
                excluded: None,
                claim: None,
            }),
            reset: None,
            entries: vec![entry],
        });
        directory.poll().unwrap().result.unwrap();
    }
}

pub fn files(path: &Path, ending: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.to_str().unwrap().ends_with(ending))
        .collect();
    files.sort();
    files
}

/// The way that is named where nothing else is left: the directory is moved away, and the node begins.
fn begin_anew(path: &Path, text: &str) {
    let lost = path.with_extension("lost");
    let _ = fs::remove_dir_all(&lost);
    let moved = format!("mv {} {}", path.display(), lost.display());
    expect(text, &[&moved, "KEEL_NEW_NODE", "keel_bootstrap()"]);
    fs::rename(path, lost).unwrap();
    assert_eq!(vec![99], start(path, true, propose(99)).unwrap().applied);
    assert_eq!(0, inspect(path).0);
}

fn everything() -> Vec<Index> {
    (2..=LAST).chain([99]).collect()
}

#[test]
fn without_meta_it_goes_on_with_all_that_is_in_its_log() {
    for how in ["missing", "zeros", "both slots", "short"] {
        let path = place(&format!("alone-meta-{}", how.replace(' ', "-")));
        filled(&path);
        let meta = path.join("META");
        let mut bytes = fs::read(&meta).unwrap();
        match how {
            "missing" => fs::remove_file(&meta).unwrap(),
            "zeros" => fs::write(&meta, vec![0; bytes.len()]).unwrap(),
            "short" => fs::write(&meta, &bytes[..100]).unwrap(),
            _ => {
                (bytes[100], bytes[64 * 1024 + 100]) = (!bytes[100], !bytes[64 * 1024 + 100]);
                fs::write(&meta, &bytes).unwrap();
            }
        }
        let left = fs::read(&meta).ok();
        let (status, text) = inspect(&path);
        assert_eq!(1, status);
        expect(&text, &["CANNOT BE OPENED", "keelctl repair"]);
        assert!(start(&path, false, propose(99)).is_err());

        let (status, text) = repair(&path, &[]);
        assert_eq!((1, left), (status, fs::read(&meta).ok()));
        expect(
            &text,
            &["META would be made anew", "n3 votes alone", "--accept-loss"],
        );
        let (status, text) = repair(&path, &["--accept-loss"]);
        assert_eq!(0, status);
        expect(
            &text,
            &[
                "META was made anew, of term 429496729",
                "at index 12",
                "DONE. Start",
            ],
        );
        let host = start(&path, false, propose(99)).unwrap();
        assert_eq!(everything(), host.applied);
        let (status, text) = inspect(&path);
        assert_eq!(0, status);
        expect(&text, &["voted for node 3"]);
        assert_eq!(0, repair(&path, &[]).0, "nothing is left to be repaired");
    }
}

/// The log is cut where it is damaged, as with META.
#[test]
fn without_meta_and_with_a_damaged_log_it_goes_on_with_what_is_whole() {
    let path = place("alone-meta-log");
    filled(&path);
    fs::write(path.join("META"), "gone").unwrap();
    fs::remove_file(&files(&path, ".seg")[2]).unwrap();
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(0, status);
    expect(
        &text,
        &[
            "both META slots are damaged",
            "the segment is missing at offset 0 (log index 7)",
            "META: 4 B from offset 0 on was dropped",
            "3 entries in there can still be read: indexes 10 to 12",
        ],
    );
    let host = start(&path, false, propose(99)).unwrap();
    assert_eq!(vec![2, 3, 4, 5, 6, 99], host.applied);
}

/// Of a node that votes with others nobody knows how it has voted.
/// The last entry takes in these voters.
fn take_in(path: &Path, others: &[u64]) {
    let (mut directory, _) = Directory::open(path, &IDENTITY).unwrap();
    let other = |id: &u64| Peer {
        id: NodeId::new(*id).unwrap(),
        ..myself()
    };
    let mut all = vec![myself()];
    all.extend(others.iter().map(other));
    let config = bootstrap_entry(&all, &Params::default()).unwrap();
    directory.submit(Persist {
        token: Token(1),
        hard: None,
        reset: None,
        entries: vec![Entry {
            index: LAST + 1,
            term: 3,
            payload: config.payload,
        }],
    });
    directory.poll().unwrap().result.unwrap();
}

#[test]
fn a_meta_of_several_voters_is_not_made_anew() {
    let path = place("two-voters");
    filled(&path);
    fs::remove_file(path.join("META")).unwrap();
    let sound = place("two-voters-sound");
    filled(&sound);
    take_in(&sound, &[4]);
    fs::remove_file(sound.join("META")).unwrap();
    let (status, text) = repair(&sound, &["--accept-loss"]);
    assert_eq!((1, false), (status, sound.join("META").exists()));
    expect(
        &text,
        &[
            "NOT REPAIRED: ",
            "META is missing, the log is not",
            "by that this one does not",
            "Remove this node\n  from the cluster",
        ],
    );
}

#[test]
fn an_older_meta_says_how_to_go_on() {
    let path = place("alone-older-meta");
    filled(&path);
    let meta = path.join("META");
    let older = fs::read(&meta).unwrap();
    start(&path, false, propose(99)).unwrap();
    fs::write(&meta, older).unwrap();
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(1, status);
    expect(
        &text,
        &[
            "META is older than the log",
            "move META\nout of the directory",
        ],
    );
    fs::remove_file(&meta).unwrap();
    assert_eq!(0, repair(&path, &["--accept-loss"]).0);
    let host = start(&path, false, propose(100)).unwrap();
    assert_eq!(everything(), host.applied[..LAST as usize]);
}

#[test]
fn without_the_beginning_of_its_log_it_begins_anew() {
    let path = place("alone-first");
    filled(&path);
    let first = files(&path, ".seg").remove(0);
    let bytes = fs::read(&first).unwrap();
    fs::remove_file(&first).unwrap();
    let (status, _) = inspect(&path);
    assert_eq!(1, status);
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(1, status);
    expect(
        &text,
        &[
            "NOT REPAIRED: ",
            "the segment before this one is missing at offset 0 (log index 3)",
            "put them back",
        ],
    );
    // As it says.
    fs::write(&first, bytes).unwrap();
    let host = start(&path, false, propose(99)).unwrap();
    assert_eq!(everything(), host.applied);
    fs::remove_file(&first).unwrap();
    let (_, text) = repair(&path, &["--accept-loss"]);
    begin_anew(&path, &text);
    let (_, text) = inspect(&path.with_extension("lost"));
    expect(&text, &["indexes 4 to 6", "indexes 10 to 1"]);
}

#[test]
fn without_any_of_its_log_it_begins_anew() {
    let path = place("alone-all");
    filled(&path);
    files(&path, ".seg")
        .iter()
        .for_each(|file| fs::remove_file(file).unwrap());
    let (status, text) = repair(&path, &[]);
    assert_eq!(1, status);
    expect(
        &text,
        &[
            "If other nodes vote, but none",
            "  If no other node votes, begin anew",
        ],
    );
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(0, status);
    expect(&text, &["DONE. If other nodes vote, start the daemon"]);
    let (status, said) = inspect(&path);
    assert_eq!(1, status);
    expect(&said, &["nothing is left of its log", "begin anew"]);
    begin_anew(&path, &text);
}

/// Its snapshot says who votes, and has the place of what came before.
#[test]
fn without_its_log_it_goes_on_with_its_snapshot() {
    for meta in [true, false] {
        let path = place(&format!("alone-snapshot-{meta}"));
        filled(&path);
        start(&path, false, Request::Snapshot).unwrap();
        assert_eq!(1, files(&path, ".snap").len());
        start(&path, false, propose(98)).unwrap();
        files(&path, ".seg")
            .iter()
            .for_each(|file| fs::remove_file(file).unwrap());
        if !meta {
            fs::remove_file(path.join("META")).unwrap();
        }
        let (status, text) = repair(&path, &["--accept-loss"]);
        assert_eq!(0, status);
        expect(&text, &["n3 votes alone", "DONE. Start the daemon"]);
        let host = start(&path, false, propose(99)).unwrap();
        assert!(host.loaded > Some(LAST), "{:?}", host.loaded);
        assert_eq!(vec![99], host.applied);
        assert_eq!(0, inspect(&path).0);
    }
}

/// A start without the snapshot gives up the log behind it, which lies there as before when the snapshot
/// is put back.
#[test]
fn what_an_earlier_start_gave_up_is_written_down() {
    let path = place("alone-snapshot-away");
    filled(&path);
    start(&path, false, Request::Snapshot).unwrap();
    start(&path, false, propose(98)).unwrap();
    let snapshot = files(&path, ".snap").remove(0);
    let away = path.with_extension("away");
    fs::rename(&snapshot, &away).unwrap();
    drop(Directory::open(&path, &IDENTITY).unwrap());
    fs::rename(&away, &snapshot).unwrap();
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_eq!(0, status, "{text}");
    expect(&text, &["lost-", "can still be read"]);
    let saved = files(&path, "").into_iter();
    let mut saved = saved.filter(|file| file.to_string_lossy().contains("/lost-"));
    let file = saved.next().unwrap();
    let found = (LAST + 1..LAST + 10).map(|index| {
        let index = index.to_string();
        super::keelctl(&["extract", file.to_str().unwrap(), &index]).stdout
    });
    assert!(found.collect::<Vec<_>>().contains(&vec![98]));
}

#[test]
fn meta_is_not_made_anew_if_what_can_still_be_read_names_other_voters() {
    let path = place("two-voters-cut");
    filled(&path);
    take_in(&path, &[4, 5]);
    fs::remove_file(path.join("META")).unwrap();
    // One bit flips in an old segment.
    let file = files(&path, ".seg").remove(2);
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096 + 200] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (status, text) = repair(&path, &["--accept-loss"]);
    assert_ne!(status, 0, "{text}");
    assert!(!path.join("META").exists());
}
