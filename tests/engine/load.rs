//! A member under load: work that does not fit in one driving call is no absence, and does not
//! keep it from speaking to its peers.

use raftkeel::core::{Index, NodeId, Term};
use raftkeel::engine::{
    Error, Handle, Host, Input, Load, Member, Place, Request, Role, Save, Settings, Ticket,
};

use crate::cluster::{Cluster, peer, settings};

/// Makes its next request from within the completion of the last one.
struct Eager {
    handle: Handle,
    led: Vec<Term>,
    applied: u64,
    done: u64,
    full: u64,
    last: u64,
}

impl Eager {
    fn new(handle: Handle, last: u64) -> Eager {
        Eager {
            handle,
            led: Vec::new(),
            applied: 0,
            done: 0,
            full: 0,
            last,
        }
    }

    fn propose(&self) {
        let request = Request::Propose(b"more"[..].into());
        let input = Input::Request(Ticket(self.done), request);
        self.handle.submit(input).unwrap();
    }
}

impl Host for Eager {
    fn apply(&mut self, _index: Index, _term: Term, _data: &[u8]) -> Result<(), i32> {
        self.applied += 1;
        Ok(())
    }
    fn save(&mut self, save: Save, _index: Index) {
        save.finish(false);
    }
    fn load(&mut self, load: Load, _index: Index) {
        load.finish(false);
    }
    fn done(&mut self, _ticket: Ticket, result: Result<Index, Error>) {
        if result == Err(Error::Full) {
            self.full += 1;
            return;
        }
        result.unwrap();
        self.done += 1;
        if self.done < self.last {
            self.propose();
        }
    }
    fn role(&mut self, role: Role, term: Term, _leader: Option<NodeId>) {
        if role == Role::Leader {
            self.led.push(term);
        }
    }
}

#[test]
fn a_leader_that_always_has_more_to_do_is_not_away() {
    let (mut member, handle) = Member::new(settings(1), Place::Volatile).unwrap();
    member.bootstrap(&[peer(1)]).unwrap();
    let mut host = Eager::new(handle, u64::MAX);
    for now in 1_000..1_100 {
        member.step(now, &mut host).unwrap();
    }
    host.propose();
    for now in 1_100..6_000 {
        member.step(now, &mut host).unwrap();
    }
    assert!(host.done > 10_000, "hardly anything to do");
    assert_eq!(host.led.len(), 1, "{:?}", host.led);
}

/// What waits for the host is bounded, and it is told.
#[test]
fn a_host_that_proposes_faster_than_it_applies_is_stopped() {
    let settings = Settings {
        queue_max: 1 << 20,
        ..settings(1)
    };
    let (mut member, handle) = Member::new(settings, Place::Volatile).unwrap();
    member.bootstrap(&[peer(1)]).unwrap();
    let mut host = Eager::new(handle, 0);
    member.step(1_000, &mut host).unwrap();
    for _ in 0..100_000 {
        host.propose();
    }
    let mut now = 1_000;
    while host.done + host.full < 100_000 {
        now += 1;
        member.step(now, &mut host).unwrap();
        assert!(now < 60_000, "{} done, {} refused", host.done, host.full);
    }
    assert_eq!(1 << 16, host.done);
}

/// While the host applies nothing is sent, so a long log must not be applied in one call: a node
/// that starts again would be silent until its end.
#[test]
fn a_log_that_is_read_again_is_applied_a_little_at_a_time() {
    let path = std::env::temp_dir().join(format!("raftkeel-load-{}", std::process::id()));
    let place = |create| Place::Directory {
        path: path.clone(),
        create,
    };
    let (mut member, handle) = Member::new(settings(1), place(true)).unwrap();
    member.bootstrap(&[peer(1)]).unwrap();
    let mut host = Eager::new(handle, 0);
    member.step(1_000, &mut host).unwrap();
    for round in 0..100 {
        for _ in 0..30 {
            host.propose();
        }
        member.step(1_000 + round, &mut host).unwrap();
    }
    let written = host.applied;
    assert!(written > 2_000, "only {written} applied");
    drop(member);

    let (mut member, handle) = Member::new(settings(1), place(false)).unwrap();
    let mut host = Eager::new(handle, 0);
    let mut now = 0;
    while host.applied < written {
        let before = host.applied;
        member.step(now, &mut host).unwrap();
        assert!(host.applied - before <= 256, "{}", host.applied - before);
        now += 1;
        assert!(now < 60_000, "only {} of {written} applied", host.applied);
    }
    std::fs::remove_dir_all(&path).unwrap();
}

/// What is read from storage is asked for without waiting for anything else to happen.
#[test]
fn a_log_that_is_read_again_is_read_without_a_break() {
    let path = std::env::temp_dir().join(format!("raftkeel-reread-{}", std::process::id()));
    let open = |create| {
        let settings = Settings {
            tail_bytes: 1000,
            ..settings(1)
        };
        let path = path.clone();
        Member::new(settings, Place::Directory { path, create }).unwrap()
    };
    let (mut member, handle) = open(true);
    member.bootstrap(&[peer(1)]).unwrap();
    let mut host = Eager::new(handle, 0);
    member.step(1_000, &mut host).unwrap();
    for round in 0..20 {
        for ticket in 0..30 {
            let request = Request::Propose(vec![7; 8 << 10].into());
            let input = Input::Request(Ticket(ticket), request);
            host.handle.submit(input).unwrap();
        }
        member.step(1_000 + round, &mut host).unwrap();
    }
    let written = host.applied;
    assert!(written > 500, "only {written} applied");
    drop(member);

    let (mut member, handle) = open(false);
    let mut host = Eager::new(handle, 0);
    let mut now = 0;
    while host.applied < written {
        let due = member.step(now, &mut host).unwrap();
        assert!(
            due <= 1 || host.applied == written,
            "{} applied",
            host.applied
        );
        now = now.max(due);
    }
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn no_message_is_larger_than_the_transport_carries() {
    const LIMIT: usize = 48 << 10;
    let mut c = Cluster::with(3, LIMIT);
    let leader = c.elect();
    let behind = *c.nodes.keys().find(|raw| **raw != leader).unwrap();
    c.nodes.get_mut(&behind).unwrap().down = true;
    let mut sizes = vec![1, 32 << 10, 0, 5000];
    sizes.extend([700; 200]);
    for size in &sizes {
        let data = vec![7; *size];
        c.ask(leader, Request::Propose(data.into())).unwrap();
    }
    c.nodes.get_mut(&behind).unwrap().down = false;
    let all = |c: &Cluster| c.nodes[&behind].told.applied.len() == sizes.len();
    assert!(c.wait(20_000, all), "it never caught up");
    let longest = c.nodes[&leader].told.longest;
    assert!((32 << 10..=LIMIT).contains(&longest), "{longest} bytes");
}
