//! Driving calls that last, while another thread gives what has come.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::core::{
    Append, DEFAULT_PRIORITY, Entry, Index, Message, NodeId, Payload, Term, VoteRequest,
};
use crate::engine::{Load, Request, Save, Ticket};
use crate::wire::{FEATURES, Header, Packet, Part, decode, try_encode};

const E: Millis = 1000;
/// When everything begins.
const BEGUN: Millis = 1_000_000;
/// How long the call takes.
const LONG: Millis = 700;

type Meanwhile = Box<dyn FnOnce() + Send>;

/// A host that takes its time.
#[derive(Default)]
struct Busy {
    /// What another thread does while the next entry is applied.
    meanwhile: Option<Meanwhile>,
    /// A proposal to be made as soon as another one is done.
    again: Option<Handle>,
    done: Vec<Ticket>,
    sent: Vec<Vec<u8>>,
}

impl Host for Busy {
    fn apply(&mut self, _index: Index, _term: Term, _data: &[u8]) -> Result<(), i32> {
        self.meanwhile.take().map_or(Ok(()), |meanwhile| {
            thread::spawn(meanwhile).join().map_err(|_| 1)
        })
    }
    fn save(&mut self, save: Save, _index: Index) {
        save.finish(false);
    }
    fn load(&mut self, load: Load, _index: Index) {
        load.finish(false);
    }
    fn send(&mut self, _to: NodeId, bytes: &[u8]) {
        self.sent.push(bytes.to_vec());
    }
    fn done(&mut self, ticket: Ticket, _result: Result<Index, Error>) {
        self.done.push(ticket);
        if let Some(handle) = self.again.take() {
            propose(&handle, 2);
        }
    }
}

fn propose(handle: &Handle, ticket: u64) {
    let request = Request::Propose(b"x"[..].into());
    handle
        .submit(Input::Request(Ticket(ticket), request))
        .unwrap();
}

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

/// n1 of so many.
fn member(of: u64) -> (Member, Handle) {
    let settings = Settings {
        election: E,
        ..Settings::new(id(1), 7, 1)
    };
    let (mut member, handle) = Member::new(settings, Place::Volatile).unwrap();
    let peer = |raw| Peer {
        id: id(raw),
        address: String::new(),
        meta: Vec::new().into(),
    };
    let peers: Vec<Peer> = (1..=of).map(peer).collect();
    member.bootstrap(&peers).unwrap();
    (member, handle)
}

/// A message for n1.
fn packet(from: u64, stamp: Millis, message: Message) -> Vec<u8> {
    let header = Header {
        cluster: 7,
        genesis: 0,
        from: id(from),
        to: id(1),
        instance: 0,
        incarnation: 1,
        epoch: 1,
        stamp,
        echo: 0,
        echo_incarnation: 0,
        leader_term: 0,
        features: FEATURES,
        priority: DEFAULT_PRIORITY,
    };
    let packet = Packet {
        header,
        parts: vec![Part::Raft(message)],
        skipped: 0,
    };
    try_encode(&packet).unwrap()
}

/// An append of n2, which leads in term 2; the first brings an entry of the host's.
fn append(seq: u64) -> Message {
    let entry = Entry {
        index: 2,
        term: 2,
        payload: Payload::Host(b"x"[..].into()),
    };
    Message::Append(Append {
        term: 2,
        seq,
        prev_index: seq.min(2),
        prev_term: seq.min(2),
        commit: 2,
        entries: if seq == 1 { vec![entry] } else { Vec::new() },
    })
}

/// Whether n1 gives n3 its vote at that time.
fn votes(member: &mut Member, handle: &Handle, host: &mut Busy, now: Millis, steps: bool) -> bool {
    let request = Message::Vote(VoteRequest {
        term: 9,
        last_index: 2,
        last_term: 2,
        transfer: false,
    });
    handle
        .receive(Some(id(3)), &packet(3, now, request))
        .unwrap();
    host.sent.clear();
    drive(member, host, &|| now, steps);
    let granted = |part: &Part| matches!(part, Part::Raft(Message::VoteReply(r)) if r.granted);
    let packets = host.sent.iter().map(|bytes| decode(bytes).unwrap());
    packets.into_iter().any(|p| p.parts.iter().any(granted))
}

fn drive(member: &mut Member, host: &mut Busy, read: &dyn Fn() -> Millis, steps: bool) {
    match steps {
        true => member.step(read(), host).unwrap(),
        false => member.drive(Clock::Read(read), host).unwrap(),
    };
}

/// Whether n1 is loyal to its leader for as long as it has promised that by an answer to a heartbeat
/// which came in a long call: while its host applied an entry, or while the clock was being read.
fn is_loyal(steps: bool, while_applying: bool) {
    let (mut member, handle) = member(3);
    let mut host = Busy::default();
    let clock = Arc::new(AtomicU64::new(BEGUN));
    let now = || clock.load(Ordering::SeqCst);
    drive(&mut member, &mut host, &now, steps);
    handle
        .receive(Some(id(2)), &packet(2, 1, append(1)))
        .unwrap();
    let (giver, later) = (handle.clone(), clock.clone());
    let meanwhile: Meanwhile = Box::new(move || {
        later.fetch_add(LONG, Ordering::SeqCst);
        let heartbeat = packet(2, 1 + LONG, append(2));
        giver.receive(Some(id(2)), &heartbeat).unwrap();
    });
    let while_reading = RefCell::new(None);
    match while_applying {
        true => host.meanwhile = Some(meanwhile),
        false => *while_reading.borrow_mut() = Some(meanwhile),
    }
    let slow = || {
        let read = now();
        if let Some(meanwhile) = while_reading.borrow_mut().take() {
            thread::spawn(meanwhile).join().unwrap();
        }
        read
    };
    drive(&mut member, &mut host, &slow, steps);
    assert_eq!(
        now(),
        BEGUN + LONG,
        "it took long, and the heartbeat has come"
    );
    drive(&mut member, &mut host, &now, steps);
    let heard = BEGUN + LONG;
    for at in [BEGUN + E + 50, heard + E - 1] {
        assert!(!votes(&mut member, &handle, &mut host, at, steps), "{at}");
    }
    assert!(votes(&mut member, &handle, &mut host, heard + E, steps));
}

#[test]
fn what_comes_during_a_long_step_waits_for_the_next_one() {
    is_loyal(true, true);
}

#[test]
fn what_comes_during_a_long_dispatch_is_taken_at_the_time_after_it() {
    is_loyal(false, true);
}

#[test]
fn the_clock_is_read_after_the_inputs_were_taken() {
    is_loyal(false, false);
}

/// It votes alone, and leads after a few calls.
fn begin_to_lead(member: &mut Member, host: &mut Busy, read: &dyn Fn() -> Millis) {
    for _ in 0..5 {
        drive(member, host, read, false);
    }
    assert!(member.engine.raft.is_leader());
}

/// As clocks do where a process is moved to another machine.
#[test]
fn a_clock_that_goes_back_is_refused_or_stands_still() {
    let (mut member, handle) = member(1);
    let mut host = Busy::default();
    let clock = Arc::new(AtomicU64::new(BEGUN));
    let now = || clock.load(Ordering::SeqCst);
    begin_to_lead(&mut member, &mut host, &now);
    clock.store(BEGUN - 5000, Ordering::SeqCst);
    for steps in [false, true] {
        let given = match steps {
            true => Clock::Given(now()),
            false => Clock::Read(&now),
        };
        let refused = member.drive(given, &mut host);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    clock.store(BEGUN + 1, Ordering::SeqCst);
    let (giver, later) = (handle.clone(), clock.clone());
    host.meanwhile = Some(Box::new(move || {
        later.store(BEGUN - 5000, Ordering::SeqCst);
        propose(&giver, 2);
    }));
    propose(&handle, 1);
    drive(&mut member, &mut host, &now, false);
    assert_eq!(host.done, [Ticket(1), Ticket(2)]);
    assert!(member.stopped().is_none());
}

#[test]
fn what_the_host_asks_for_when_it_is_told_is_done_in_the_same_step() {
    let (mut member, handle) = member(1);
    let mut host = Busy::default();
    for now in BEGUN..BEGUN + 5 {
        member.step(now, &mut host).unwrap();
    }
    host.again = Some(handle.clone());
    let giver = handle.clone();
    // From outside, behind which the proposal must not wait.
    host.meanwhile = Some(Box::new(move || {
        giver.submit(Input::Heard(id(2))).unwrap();
    }));
    propose(&handle, 1);
    let due = member.step(BEGUN + 5, &mut host).unwrap();
    assert_eq!(host.done, [Ticket(1), Ticket(2)]);
    assert_eq!(due, BEGUN + 5, "what came from outside waits");
    assert!(member.step(due, &mut host).unwrap() > due);
}

#[test]
fn a_leader_that_was_away_in_a_call_leads_no_more_when_it_takes_what_came() {
    let (mut member, handle) = member(1);
    let mut host = Busy::default();
    let clock = Arc::new(AtomicU64::new(BEGUN));
    let now = || clock.load(Ordering::SeqCst);
    begin_to_lead(&mut member, &mut host, &now);
    let (giver, later) = (handle.clone(), clock.clone());
    host.meanwhile = Some(Box::new(move || {
        later.fetch_add(E, Ordering::SeqCst);
        propose(&giver, 2);
    }));
    propose(&handle, 1);
    let term = member.engine.raft.term();
    drive(&mut member, &mut host, &now, false);
    assert_eq!(host.done, [Ticket(1), Ticket(2)]);
    let leads_on = member.engine.raft.is_leader() && member.engine.raft.term() == term;
    assert!(!leads_on, "others may lead by now");
}
