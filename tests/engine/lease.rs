//! Reads by a lease, on hosts that take their time: what comes while a driving call lasts is older
//! than the time of that call says.

use raftkeel::core::Millis;
use raftkeel::engine::{Error, Input, Request, Role, Settings, Ticket};

use crate::cluster::{Cluster, id};

/// Election timeout of the test's members.
const E: Millis = 1000;

fn leased(settings: Settings) -> Settings {
    Settings {
        lease_reads: true,
        ..settings
    }
}

fn submit(c: &Cluster, raw: u64, ticket: u64, request: Request) {
    let input = Input::Request(Ticket(ticket), request);
    c.nodes[&raw].handle.submit(input).unwrap();
}

fn done(c: &Cluster, raw: u64, ticket: u64) -> Option<Result<u64, Error>> {
    let done = &c.nodes[&raw].told.done;
    let mine = done.iter().find(|(t, _)| *t == Ticket(ticket));
    mine.map(|(_, result)| result.clone())
}

fn data(text: &str) -> Request {
    Request::Propose(text.as_bytes().into())
}

fn hand(c: &Cluster, from: u64, to: u64, bytes: &[u8]) {
    c.nodes[&to].handle.receive(Some(id(from)), bytes).unwrap();
}

fn packets_to(sent: Vec<(u64, Vec<u8>)>, to: u64) -> impl Iterator<Item = Vec<u8>> {
    sent.into_iter()
        .filter(move |(t, _)| *t == to)
        .map(|(_, b)| b)
}

/// Drives a node alone for a while; what it says, when and to whom.
fn drive_alone(c: &mut Cluster, raw: u64, until: Millis) -> Vec<(Millis, u64, Vec<u8>)> {
    let mut said = Vec::new();
    let mut now = c.now;
    while now < until {
        now += 5;
        said.extend(c.drive(raw, now).into_iter().map(|(to, b)| (now, to, b)));
    }
    said
}

/// A voter's host takes 600 ms to apply an entry. The heartbeat that comes meanwhile is answered,
/// and the leader counts its lease from when that heartbeat left.
fn slow_voter(offset: Millis) -> Option<()> {
    let mut c = Cluster::of(3, leased);
    let leader = c.elect();
    let (voter, rival) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    c.cut_off(rival);
    c.run(offset);
    if c.leader() != Some(leader) {
        return None;
    }
    // The voter has X, and is told of its commit in the call that takes so long.
    let begun = c.now;
    c.nodes.get_mut(&voter).unwrap().down = true;
    submit(&c, leader, 500, data("X"));
    for bytes in packets_to(c.drive(leader, begun + 5), voter) {
        hand(&c, leader, voter, &bytes);
    }
    for bytes in packets_to(c.drive(voter, begun + 5), leader) {
        hand(&c, voter, leader, &bytes);
    }
    for bytes in packets_to(c.drive(leader, begun + 10), voter) {
        hand(&c, leader, voter, &bytes);
    }
    c.now = begun + 10;
    let said = drive_alone(&mut c, leader, begun + 560);
    let late = |(at, to, _): &(Millis, u64, Vec<u8>)| *to == voter && *at >= begun + 450;
    let to_voter: Vec<_> = said.into_iter().filter(late).map(|(.., b)| b).collect();
    assert!(!to_voter.is_empty(), "heartbeats");
    let handle = c.nodes[&voter].handle.clone();
    let node = c.nodes.get_mut(&voter).unwrap();
    let applied = node.told.applied.len();
    node.told.meanwhile = Some(Box::new(move || {
        for bytes in to_voter {
            handle.receive(Some(id(leader)), &bytes).unwrap();
        }
    }));
    let mut answers = c.drive(voter, begun + 10);
    let told = &c.nodes[&voter].told;
    assert!(told.applied.len() > applied && told.meanwhile.is_none());
    answers.extend(c.drive(voter, begun + 600));
    for bytes in packets_to(answers, leader) {
        hand(&c, voter, leader, &bytes);
    }
    c.now = begun + 600;
    c.drive(leader, c.now);
    c.nodes.get_mut(&voter).unwrap().down = false;
    // Now the leader is alone, and the two others hear each other.
    c.cut.clear();
    c.cut_off(leader);
    let wrote = |c: &Cluster, raw| matches!(done(c, raw, 501), Some(Ok(_)));
    let mut asked = None;
    while c.now < begun + 450 + E * 95 / 100 - 20 {
        c.run(5);
        let leads = |raw: &u64| *raw != leader && c.role(*raw) == Role::Leader;
        let Some(new) = [voter, rival].into_iter().find(leads) else {
            continue;
        };
        if asked.is_none() {
            asked = Some(new);
            submit(&c, new, 501, data("W"));
        }
        if wrote(&c, new) && done(&c, leader, 502).is_none() {
            submit(&c, leader, 502, Request::Barrier);
            c.run(10);
            let Some(Ok(written)) = done(&c, new, 501) else {
                panic!("W was written");
            };
            let read = done(&c, leader, 502);
            assert!(
                !read.as_ref().is_some_and(|r| r.is_ok()),
                "offset {offset}: W was written at {written}, and a read is answered: {read:?}"
            );
            return Some(());
        }
    }
    None
}

#[test]
fn a_vote_is_not_given_away_too_early_after_a_long_call() {
    for offset in (0..950).step_by(50) {
        slow_voter(offset);
    }
}

/// A leader's host takes 1.4 s to apply an entry. A follower's question that comes meanwhile must
/// not be answered by a lease of before.
fn slow_leader(offset: Millis) -> Option<()> {
    let mut c = Cluster::of(5, leased);
    let leader = c.elect();
    c.run(offset);
    let mut others: Vec<u64> = (0..4).map(|k| (leader + k) % 5 + 1).collect();
    // Who is next in line is the first to look for another leader.
    others.rotate_left(1);
    let asker = others[0];
    let begun = c.now;
    // The leader will learn of the commit in the call that takes so long.
    submit(&c, leader, 500, data("X"));
    let sent = c.drive(leader, begun + 5);
    let mut acks = Vec::new();
    for raw in &others {
        for bytes in packets_to(sent.clone(), *raw) {
            hand(&c, leader, *raw, &bytes);
        }
        for bytes in packets_to(c.drive(*raw, begun + 5), leader) {
            acks.push((*raw, bytes));
        }
    }
    c.now = begun + 5;
    c.cut_off(asker);
    c.cut_off(leader);
    c.nodes.get_mut(&leader).unwrap().down = true;
    let mut written = None;
    let (mut question, mut asked) = (None, None);
    while c.now < begun + 2 * E {
        c.run(5);
        let new = others[1..].iter().find(|raw| c.role(**raw) == Role::Leader);
        let Some(new) = new.copied() else { continue };
        match done(&c, new, 501) {
            Some(Ok(index)) => written = Some(index),
            Some(Err(_)) => return None,
            None if asked != Some(new) => {
                asked = Some(new);
                submit(&c, new, 501, data("W"));
            }
            None => {}
        }
        if written.is_some() {
            let knows = c.nodes[&asker].handle.view(|v| v.info.leader) == Some(id(leader));
            if !knows {
                return None;
            }
            submit(&c, asker, 502, Request::Barrier);
            let mut sent = c.drive(asker, c.now);
            sent.extend(c.drive(asker, c.now));
            question = Some(packets_to(sent, leader).collect::<Vec<_>>());
            break;
        }
    }
    let (written, question) = (written?, question?);
    let handle = c.nodes[&leader].handle.clone();
    let node = c.nodes.get_mut(&leader).unwrap();
    node.told.meanwhile = Some(Box::new(move || {
        for bytes in question {
            handle.receive(Some(id(asker)), &bytes).unwrap();
        }
    }));
    for (from, bytes) in acks {
        hand(&c, from, leader, &bytes);
    }
    let mut answers = c.drive(leader, begun + 10);
    assert!(c.nodes[&leader].told.meanwhile.is_none(), "X is applied");
    answers.extend(c.drive(leader, c.now));
    for bytes in packets_to(answers, asker) {
        hand(&c, leader, asker, &bytes);
    }
    for _ in 0..2 {
        c.drive(asker, c.now);
    }
    let read = done(&c, asker, 502);
    assert!(
        !read.as_ref().is_some_and(|r| r.is_ok()),
        "offset {offset}: W was written at {written}, and a read is answered: {read:?}"
    );
    Some(())
}

#[test]
fn a_question_that_came_during_a_long_call_is_not_answered_by_an_old_lease() {
    let tried = (0..400).step_by(20).filter_map(slow_leader).count();
    assert!(tried > 0, "the follower never knew its leader for so long");
}
