//! Members whose directories are damaged while they are down: they come back, are filled again by
//! the others, and nobody has to do anything; unless all of them have lost entries.

use std::fs;
use std::path::{Path, PathBuf};

use raftkeel::core::Millis;
use raftkeel::engine::{Event, Request, Settings};
use raftkeel::storage::repair;

use crate::cluster::{Cluster, settings};

const PAGE: usize = 4096;
const LONG: Millis = 60_000;

/// Three members with directories.
struct Rack {
    cluster: Cluster,
    root: PathBuf,
    proposed: u64,
}

impl Drop for Rack {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn quick(raw: u64) -> Settings {
    Settings {
        tail_bytes: 2000,
        ..settings(raw)
    }
}

impl Rack {
    fn new(name: &str) -> Rack {
        let root = std::env::temp_dir().join(format!("raftkeel-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        let mut cluster = Cluster::new(3);
        for raw in 1..=3 {
            cluster.open(quick(raw), &root.join(raw.to_string()), true);
        }
        let mut rack = Rack {
            cluster,
            root,
            proposed: 0,
        };
        rack.lead();
        rack.propose(20);
        rack
    }

    fn path(&self, raw: u64) -> PathBuf {
        self.root.join(raw.to_string())
    }

    fn lead(&mut self) -> u64 {
        assert!(
            self.cluster.wait(LONG, |c| c.leader().is_some()),
            "nobody leads"
        );
        self.cluster.leader().unwrap()
    }

    /// Entries of two pages, on every member that is up.
    fn propose(&mut self, count: u64) {
        self.propose_of(count, 2);
    }

    /// The same, of so many pages.
    fn propose_of(&mut self, count: u64, pages: usize) {
        for _ in 0..count {
            self.proposed += 1;
            let leader = self.lead();
            let mut data = self.proposed.to_le_bytes().to_vec();
            data.resize(pages * PAGE, 7);
            let request = Request::Propose(data.into());
            self.cluster.ask(leader, request).unwrap();
        }
        let index = |c: &Cluster, raw: u64| c.nodes[&raw].handle.view(|v| v.info.applied);
        let everywhere = self.cluster.wait(LONG, |c| {
            let up: Vec<u64> = c
                .nodes
                .keys()
                .copied()
                .filter(|raw| !c.nodes[raw].down)
                .collect();
            let newest = up.iter().map(|raw| index(c, *raw)).max();
            c.leader().is_some() && up.iter().all(|raw| Some(index(c, *raw)) == newest)
        });
        assert!(everywhere, "not applied everywhere");
    }

    /// Stops a member for good: what it holds open is closed.
    fn stop(&mut self, raw: u64) {
        self.cluster.nodes.remove(&raw);
    }

    fn start(&mut self, raw: u64) {
        let path = self.path(raw);
        self.cluster.open(quick(raw), &path, false);
    }

    fn segments(&self, raw: u64) -> Vec<PathBuf> {
        let files = fs::read_dir(self.path(raw)).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let mut files: Vec<PathBuf> = files
            .filter(|file| file.extension().is_some_and(|e| e == "seg"))
            .collect();
        files.sort();
        files
    }

    /// Damages a page of the log, counted from the header of its first segment.
    fn rot(&self, raw: u64, page: usize) {
        let file = &self.segments(raw)[0];
        let mut bytes = fs::read(file).unwrap();
        bytes[page * PAGE + 100] ^= 1;
        fs::write(file, bytes).unwrap();
    }

    fn told(&self, raw: u64, wanted: impl Fn(&Event) -> bool) -> bool {
        self.cluster.nodes[&raw].told.events.iter().any(wanted)
    }

    /// It has said that it lost something, and that it has it again; all members have applied the
    /// same.
    fn expect_whole(&mut self, raw: u64) {
        let whole = self.cluster.wait(LONG, |c| {
            let events = &c.nodes[&raw].told.events;
            events.iter().any(|e| matches!(e, Event::Refilled { .. }))
        });
        assert!(
            whole,
            "n{raw} is not whole: {:?}",
            self.cluster.nodes[&raw].told.events
        );
        assert!(self.told(raw, |e| matches!(e, Event::LostData { .. })));
        self.propose(1);
        let notice = self.cluster.nodes[&raw]
            .handle
            .view(|v| v.info.notice.clone());
        assert_eq!("", notice);
    }
}

/// Takes away what a member has of its log.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_member_whose_log_is_damaged_is_filled_again() {
    let mut rack = Rack::new("damage-one");
    type Harm = fn(&Rack, u64);
    let harms: [Harm; 7] = [
        |rack, raw| rack.rot(raw, 1),
        |rack, raw| rack.rot(raw, 20),
        |rack, raw| change(&rack.segments(raw)[0], |bytes| bytes[50] ^= 1),
        |rack, raw| change(&rack.segments(raw)[0], |bytes| bytes[20 * PAGE..].fill(0)),
        |rack, raw| {
            change(&rack.segments(raw)[0], |bytes| {
                bytes.truncate(20 * PAGE + 9)
            })
        },
        |rack, raw| {
            for file in rack.segments(raw) {
                fs::remove_file(file).unwrap();
            }
        },
        |rack, raw| change(&rack.segments(raw)[0], |bytes| bytes.fill(0)),
    ];
    for (nth, harm) in harms.iter().enumerate() {
        let leader = rack.lead();
        let raw = 1 + (leader + nth as u64 % 2) % 3;
        rack.stop(raw);
        rack.propose(3);
        // An opening has META know how far the log reaches.
        rack.start(raw);
        rack.stop(raw);
        harm(&rack, raw);
        rack.start(raw);
        rack.expect_whole(raw);
    }
}

#[test]
fn two_members_whose_logs_are_damaged_are_filled_by_the_third() {
    let mut rack = Rack::new("damage-two");
    (1..=3).for_each(|raw| rack.stop(raw));
    rack.rot(1, 9);
    rack.rot(3, 1);
    rack.start(1);
    rack.start(3);
    rack.cluster.run(10_000);
    assert_eq!(None, rack.cluster.leader());
    for raw in [1, 3] {
        let notice = rack.cluster.nodes[&raw]
            .handle
            .view(|v| v.info.notice.clone());
        assert!(notice.contains("lost log entries"), "{notice}");
    }
    rack.start(2);
    assert_eq!(2, rack.lead());
    rack.expect_whole(1);
    rack.expect_whole(3);
}

#[test]
fn when_all_have_lost_entries_somebody_must_say_that_they_are_given_up() {
    let mut rack = Rack::new("damage-all");
    (1..=3).for_each(|raw| rack.stop(raw));
    (1..=3).for_each(|raw| rack.rot(raw, 40 + 3 * raw as usize));
    (1..=3).for_each(|raw| rack.start(raw));
    rack.cluster.run(20_000);
    assert_eq!(None, rack.cluster.leader());
    for raw in 1..=3 {
        assert!(rack.told(raw, |e| matches!(e, Event::LostData { .. })));
    }
    (1..=3).for_each(|raw| rack.stop(raw));
    for raw in 1..=3 {
        let path = rack.path(raw);
        assert!(repair::plan(&path).unwrap().is_some());
        let repaired = repair::repair(&path, None).unwrap().unwrap();
        // The opening before it has dropped what was damaged: there may be nothing left to be written down.
        let saved = repaired.saved.map(|file| file.exists());
        let wanted = (!repaired.regions.is_empty()).then_some(true);
        assert_eq!(wanted, saved);
        assert_eq!(3, repaired.voters.len());
        assert!(repair::plan(&path).unwrap().is_none());
    }
    (1..=3).for_each(|raw| rack.start(raw));
    rack.propose(2);
    for raw in 1..=3 {
        assert!(!rack.told(raw, |e| matches!(e, Event::LostData { .. })));
    }
}

#[test]
fn a_leader_that_cannot_read_its_log_hands_over() {
    let mut rack = Rack::new("unreadable");
    let leader = rack.lead();
    let late = if leader == 3 { 2 } else { 3 };
    rack.stop(late);
    rack.propose(20);
    // An entry that only those have who are up, and no longer in memory.
    rack.rot(leader, 3 * 30);
    rack.start(late);
    rack.propose(0);
    assert_ne!(leader, rack.lead(), "it still leads");
    rack.propose(3);
    rack.stop(leader);
    rack.start(leader);
    rack.expect_whole(leader);
}

/// An opening takes it on trust: the entries before it are applied, those behind it are not, and the next
/// opening sees.
#[test]
fn damage_behind_a_checkpoint_is_seen_when_it_is_read() {
    let mut rack = Rack::new("damage-passed");
    // More than one segment.
    rack.propose_of(40, 50);
    let raw = 1 + rack.lead() % 3;
    rack.stop(raw);
    let checkpoint = rack.segments(raw)[0].with_extension("ckpt");
    assert!(checkpoint.exists());
    rack.rot(raw, 20);
    rack.start(raw);
    rack.cluster.run(10_000);
    assert!(!rack.told(raw, |e| matches!(e, Event::LostData { .. })));
    let applied = rack.cluster.nodes[&raw].handle.view(|v| v.info.applied);
    assert!((1..20).contains(&applied), "{applied} applied");
    assert!(!checkpoint.exists(), "the next opening is to read it");
    rack.stop(raw);
    rack.start(raw);
    rack.expect_whole(raw);
}
