//! Barriers, transfers and eligibility, as a host sees them.

use raftkeel::core::Priority;
use raftkeel::engine::{Error, Event, Input, Request, Role, Ticket};

use crate::cluster::{Cluster, id};

fn propose(c: &mut Cluster, raw: u64, text: &str) -> Result<u64, Error> {
    c.ask(raw, Request::Propose(text.as_bytes().into()))
}

fn set_eligible(c: &mut Cluster, raw: u64, eligible: bool) {
    let node = &c.nodes[&raw];
    let priority = Priority::from(eligible);
    node.handle.submit(Input::Priority(priority)).unwrap();
    // By then everybody has been told by a packet.
    c.run(3_000);
}

fn successor(leader: u64) -> u64 {
    leader % 3 + 1
}

#[test]
fn a_barrier_completes_on_every_node_after_what_was_committed() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let index = propose(&mut c, leader, "x").unwrap();
    for raw in 1..=3 {
        let read = c.ask(raw, Request::Barrier).unwrap();
        assert!(read >= index, "n{raw} reads at {read}");
        let applied = &c.nodes[&raw].told.applied;
        assert_eq!(Some(&(index, b"x".to_vec())), applied.last(), "n{raw}");
    }
}

/// A node that does not hear its leader must not pass for one that knows everything.
#[test]
fn a_barrier_on_a_node_cut_off_fails() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let other = successor(leader);
    c.cut_off(other);
    let unanswered = c.ask(other, Request::Barrier);
    assert!(
        matches!(unanswered, Err(Error::Lost | Error::NoQuorum(_))),
        "{unanswered:?}"
    );
    c.cut.clear();
    c.cut_off(leader);
    let unconfirmed = c.ask(leader, Request::Barrier);
    assert!(
        matches!(unconfirmed, Err(Error::Lost | Error::NoQuorum(_))),
        "{unconfirmed:?}"
    );
}

#[test]
fn many_barriers_of_one_call_cost_one_packet_to_each() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let sent = |c: &Cluster| c.nodes[&leader].handle.view(|v| v.metrics.packets_out);
    let before = sent(&c);
    for i in 0..100 {
        let input = Input::Request(Ticket(10_000 + i), Request::Barrier);
        c.nodes[&leader].handle.submit(input).unwrap();
    }
    let done = |c: &Cluster| {
        let done = &c.nodes[&leader].told.done;
        done.iter()
            .filter(|(t, r)| t.0 >= 10_000 && r.is_ok())
            .count()
            == 100
    };
    assert!(c.wait(1_000, done));
    assert!(sent(&c) - before <= 8, "{} packets", sent(&c) - before);
}

#[test]
fn leadership_goes_where_it_is_told_to() {
    let mut c = Cluster::new(3);
    let old = c.elect();
    let new = successor(old);
    let refused = c.ask(new, Request::Transfer(Some(id(old))));
    assert_eq!(Err(Error::NotLeader), refused);
    let began = c.now;
    assert!(c.ask(old, Request::Transfer(Some(id(new)))).is_ok());
    assert!(c.now - began < 200, "it took {} ms", c.now - began);
    assert_eq!((Role::Leader, Role::Follower), (c.role(new), c.role(old)));
    c.run(2_000);
    propose(&mut c, new, "x").unwrap();
    assert!(matches!(
        c.ask(new, Request::Transfer(Some(id(new)))),
        Err(Error::Exists(_))
    ));
    assert!(matches!(
        c.ask(new, Request::Transfer(Some(id(9)))),
        Err(Error::NotFound(_))
    ));
    assert!(c.ask(new, Request::Transfer(None)).is_ok());
    assert_ne!(Role::Leader, c.role(new));
}

#[test]
fn a_transfer_to_a_node_out_of_reach_is_given_up() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let away = successor(leader);
    c.cut_off(away);
    let given_up = c.ask(leader, Request::Transfer(Some(id(away))));
    assert!(matches!(given_up, Err(Error::Conflict(_))), "{given_up:?}");
    assert_eq!(Some(leader), c.leader());
    propose(&mut c, leader, "taken again").unwrap();
}

/// The target campaigns, wins, and cannot tell this node, which must say that it does not know.
#[test]
fn a_transfer_of_unknown_outcome_is_lost() {
    let mut c = Cluster::new(3);
    let old = c.elect();
    let (new, third) = (successor(old), successor(successor(old)));
    let ticket = Ticket(777);
    let request = Input::Request(ticket, Request::Transfer(Some(id(new))));
    c.nodes[&old].handle.submit(request).unwrap();
    c.run(5);
    c.cut.extend([(new, old), (third, old), (old, third)]);
    let done = |c: &Cluster| c.nodes[&old].told.done.iter().any(|(t, _)| *t == ticket);
    assert!(c.wait(10_000, done), "no completion");
    let done = c.nodes[&old].told.done.iter().find(|(t, _)| *t == ticket);
    let result = &done.unwrap().1;
    assert!(
        matches!(result, Err(Error::Lost | Error::Conflict(_))),
        "{result:?}"
    );
    assert_eq!(Role::Leader, c.role(new));
}

#[test]
fn everybody_knows_who_may_not_lead() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let (a, b) = (successor(leader), successor(successor(leader)));
    set_eligible(&mut c, a, false);
    assert!(matches!(
        c.ask(leader, Request::Transfer(Some(id(a)))),
        Err(Error::State(_))
    ));
    set_eligible(&mut c, leader, false);
    assert_eq!(Some(b), c.leader(), "it has handed over of itself");
    let led = |raw: u64| {
        let events = &c.nodes[&raw].told.events;
        events.iter().any(|e| matches!(e, Event::Leading { .. }))
    };
    assert!(!led(a));
    // Whoever may lead again is a target again.
    set_eligible(&mut c, a, true);
    assert!(c.ask(b, Request::Transfer(None)).is_ok());
    assert_eq!(Role::Leader, c.role(a));
}

#[test]
fn an_excluded_node_reads_and_hands_over_nothing() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let out = successor(leader);
    c.ask(leader, Request::Exclude(id(out))).unwrap();
    assert!(c.wait(10_000, |c| c.role(out) == Role::Excluded));
    assert_eq!(Err(Error::Excluded), c.ask(out, Request::Barrier));
    assert_eq!(Err(Error::Excluded), c.ask(out, Request::Transfer(None)));
}

/// What a node said when it last lost its majority: how many voters it heard then.
fn heard_without_quorum(c: &Cluster, raw: u64) -> Option<(u32, u32)> {
    let lost = |event: &Event| match event {
        Event::Quorum {
            has: false,
            heard,
            needed,
        } => Some((*heard, *needed)),
        _ => None,
    };
    c.nodes[&raw].told.events.iter().rev().find_map(lost)
}

#[test]
fn a_leader_that_died_is_not_heard() {
    for offset in (0..400).step_by(35) {
        let mut c = Cluster::new(3);
        let dead = c.elect();
        c.run(offset);
        for node in c.nodes.values_mut() {
            node.told.events.clear();
        }
        c.nodes.get_mut(&dead).unwrap().down = true;
        let others = [successor(dead), successor(successor(dead))];
        let said = |c: &Cluster| {
            others
                .iter()
                .any(|raw| heard_without_quorum(c, *raw).is_some())
        };
        assert!(c.wait(3_000, said), "nobody misses it");
        for raw in others {
            let heard = heard_without_quorum(&c, raw);
            assert!(heard.is_none_or(|heard| heard == (2, 2)), "{heard:?}");
        }
        c.run(5_000);
        let new = c.leader().unwrap();
        for raw in others {
            let heard = c.nodes[&raw].handle.view(|v| v.info.voters_heard);
            assert_eq!(heard, 2, "n{raw}, n{new} leads");
        }
    }
}

#[test]
fn a_leader_that_is_cut_off_hears_nobody() {
    for offset in (0..400).step_by(35) {
        let mut c = Cluster::new(3);
        let leader = c.elect();
        c.run(offset);
        let all = c.nodes[&leader].handle.view(|v| v.info.voters_heard);
        assert_eq!(all, 3);
        c.nodes.get_mut(&leader).unwrap().told.events.clear();
        c.cut_off(leader);
        let said = |c: &Cluster| heard_without_quorum(c, leader).is_some();
        assert!(c.wait(3_000, said));
        assert_eq!(heard_without_quorum(&c, leader), Some((1, 2)));
    }
}
