//! A file system that is frozen, as for a backup: whoever drives a member goes on.

use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use raftkeel::cluster::Peer;
use raftkeel::core::{Index, NodeId, Term};
use raftkeel::engine::{
    Error, Host, HostState, Input, Load, Member, Place, Request, Save, Settings, Ticket,
};

use super::rig::{self, Disk};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Told {
    done: u64,
    refused: u64,
}

impl Host for Told {
    fn apply(&mut self, _: Index, _: Term, _: &[u8]) -> Result<(), i32> {
        Ok(())
    }

    fn done(&mut self, _: Ticket, result: Result<Index, Error>) {
        match result {
            Ok(_) => self.done += 1,
            Err(_) => self.refused += 1,
        }
    }

    fn save(&mut self, _: Save, _: Index) {}

    fn load(&mut self, _: Load, _: Index) {}
}

fn freeze(flag: &str, disk: &Disk) {
    let status = Command::new("fsfreeze").arg(flag).arg(disk.path()).status();
    assert!(status.unwrap().success(), "fsfreeze {flag}");
}

#[test]
fn who_drives_does_not_wait_for_a_frozen_file_system() {
    let lacks = rig::lacks_for_power_cuts().or_else(|| rig::lacks("fsfreeze"));
    if let Some(why) = lacks {
        println!("SKIPPED: nothing is frozen on this machine: {why}");
        return;
    }
    for kind in rig::FILE_SYSTEMS {
        let disk = Disk::make(kind);
        let id = NodeId::new(1).unwrap();
        let settings = Settings {
            host_state: HostState::Saved,
            ..Settings::new(id, 7, 1)
        };
        let path = disk.path().join("frozen");
        let place = Place::Directory { path, create: true };
        let (mut member, handle) = Member::new(settings, place).unwrap();
        let peer = Peer {
            id,
            address: String::new(),
            meta: Vec::new().into(),
        };
        member.bootstrap(&[peer]).unwrap();
        member.fd().unwrap();
        let mut told = Told::default();
        let begun = Instant::now();
        let mut sent = 0;
        let propose = |sent: &mut u64| {
            let request = Request::Propose(vec![1; 100].into());
            let taken = handle.submit(Input::Request(Ticket(*sent), request));
            *sent += u64::from(taken.is_ok());
        };
        while told.done < 100 {
            assert!(begun.elapsed() < PATIENCE, "it does not come to lead");
            if sent == told.done + told.refused {
                propose(&mut sent);
            }
            member.dispatch(&mut told).unwrap();
        }
        freeze("-f", &disk);
        let (went_on, waits) = channel::<()>();
        let late = thread::scope(|scope| {
            let disk = &disk;
            let watch = scope.spawn(move || {
                let late = waits.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
                freeze("-u", disk);
                late
            });
            for _ in 0..2000 {
                if sent <= told.done + told.refused + 10 {
                    propose(&mut sent);
                }
                member.dispatch(&mut told).unwrap();
                thread::yield_now();
            }
            went_on.send(()).unwrap();
            watch.join().unwrap()
        });
        assert!(!late, "{kind}: it waited until the file system was thawed");
        let thawed = Instant::now();
        let before = told.done;
        while told.done <= before {
            assert!(thawed.elapsed() < PATIENCE, "it does not go on");
            member.dispatch(&mut told).unwrap();
            thread::yield_now();
        }
    }
}
