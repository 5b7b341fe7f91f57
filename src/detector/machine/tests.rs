use super::super::testing::{config, id, ids, timers};
use super::*;

fn envelope(from: u64, incarnation: u64, stamp: Millis) -> Envelope {
    Envelope {
        from: id(from),
        incarnation,
        stamp,
        echo: 0,
        echo_incarnation: 0,
        leader_term: 0,
    }
}

/// Node 1 of three, which has listened since 0.
fn detector() -> Detector {
    let mut d = Detector::new(id(1), 7, 1, timers());
    d.advance(0);
    d.set_members(&config(&[1, 2, 3]), &[], 3);
    d
}

fn listen(d: &mut Detector, from: Millis, to: Millis) {
    for now in (from..=to).step_by(100) {
        d.advance(now);
    }
}

fn sent(d: &mut Detector, now: Millis) -> Vec<(NodeId, Keepalive)> {
    let mut out = Vec::new();
    d.take_due(now, &mut out);
    out
}

#[test]
fn a_node_that_becomes_a_member_is_listened_for_from_then_on() {
    let mut d = detector();
    listen(&mut d, 100, 600_000);
    d.set_members(&config(&[1, 2, 3, 4]), &[], 4);
    listen(&mut d, 600_100, 601_000);
    let row = sent(&mut d, 601_000).remove(0).1.row;
    let spans: Vec<_> = row.iter().map(|item| (item.node, item.span)).collect();
    assert_eq!(spans, [(id(2), 601_000), (id(3), 601_000), (id(4), 1000)]);
    assert!(
        row.iter()
            .all(|item| item.age == u32::MAX && item.incarnation == 0)
    );
}

#[test]
fn an_excluded_node_taken_back_is_judged_as_one_never_heard() {
    let mut d = detector();
    d.heard(0, &envelope(3, 5, 1));
    d.set_members(&config(&[1, 2]), &ids(&[3]), 3);
    listen(&mut d, 100, 600_000);
    d.set_members(&config(&[1, 2, 3]), &[], 3);
    listen(&mut d, 600_100, 630_000);
    let row = sent(&mut d, 630_000).remove(0).1.row;
    assert_eq!((row[1].age, row[1].span), (u32::MAX, 30_000));
}

#[test]
fn a_row_tells_age_span_and_run() {
    let mut d = detector();
    listen(&mut d, 100, 1000);
    d.heard(1000, &envelope(2, 5, 77));
    d.note_heard(id(3));
    listen(&mut d, 1100, 3000);
    let row = sent(&mut d, 3000).remove(0).1.row;
    assert_eq!((row[0].age, row[0].incarnation), (2000, 5));
    assert_eq!((row[1].age, row[1].incarnation), (2000, 0));
    assert_eq!(d.echo_for(id(2)), (77, 5));
    assert_eq!(d.echo_for(id(3)), (0, 0));
}

#[test]
fn strangers_and_this_node_itself_are_ignored() {
    let mut d = detector();
    d.heard(0, &envelope(9, 5, 77));
    d.heard(0, &envelope(1, 5, 77));
    d.note_heard(id(9));
    assert_eq!(d.echo_for(id(9)), (0, 0));
    assert!(d.node(id(9)).is_none());
    assert!(d.take_outputs().is_empty());
}

#[test]
fn a_new_run_of_a_peer_is_spoken_to_at_once() {
    let mut d = detector();
    assert_eq!(sent(&mut d, 0).len(), 2);
    d.advance(100);
    assert!(sent(&mut d, 100).is_empty());
    d.heard(100, &envelope(2, 5, 1));
    let out = sent(&mut d, 100);
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].0, out[0].1.kind), (id(2), KeepaliveKind::Push));
}

#[test]
fn only_a_poll_is_answered_with_a_row_and_no_copy_is_answered() {
    let mut d = detector();
    sent(&mut d, 0);
    let ask = |kind| Keepalive {
        kind,
        health: 0,
        applied: 12,
        row: Vec::new(),
        notice: None,
    };
    d.heard(0, &envelope(2, 5, 1));
    sent(&mut d, 0);
    for (stamp, kind, row) in [
        (2, KeepaliveKind::Push, 0),
        (3, KeepaliveKind::Probe, 0),
        (4, KeepaliveKind::Poll, 2),
    ] {
        let e = envelope(2, 5, stamp);
        d.heard(0, &e);
        d.keepalive(0, &e, ask(kind));
        let out = sent(&mut d, 0);
        assert_eq!(out.len(), 1, "{kind:?}");
        assert_eq!(out[0].1.kind, KeepaliveKind::Reply);
        assert_eq!(out[0].1.row.len(), row);
    }
    let old = envelope(2, 5, 3);
    d.heard(0, &old);
    d.keepalive(0, &old, ask(KeepaliveKind::Poll));
    let reply = envelope(2, 5, 9);
    d.heard(0, &reply);
    d.keepalive(0, &reply, ask(KeepaliveKind::Reply));
    assert!(sent(&mut d, 0).is_empty());
    assert_eq!(d.node(id(2)).map(|node| node.applied), Some(12));
}

#[test]
fn a_call_is_due_within_a_tick_with_peers_and_before_the_lease_ends_without() {
    let mut d = detector();
    sent(&mut d, 0);
    assert_eq!(d.next_deadline(), 100);
    d.set_members(&config(&[1]), &[], 1);
    assert_eq!(d.next_deadline(), timers().fencetime / 2);
    let mut off = timers();
    (off.deadtime, off.fencetime) = (0, 0);
    d.set_timers(off);
    assert_eq!(d.next_deadline(), Millis::MAX);
}

#[test]
fn a_single_voter_that_leads_confirms_itself() {
    let mut d = detector();
    d.set_members(&config(&[1]), &[], 1);
    d.advance(500);
    let view = LeaderView {
        leading: true,
        fresh: true,
        ..LeaderView::default()
    };
    d.evaluate(500, view);
    assert_eq!(d.fenced(), None);
    assert_eq!(d.lease_ms(500), Some(timers().fencetime));
}

#[test]
fn a_leader_on_its_way_out_does_not_confirm_itself() {
    let fenced_in = |voters: &[u64]| {
        let mut d = detector();
        let joint = Configuration {
            outgoing: ids(&[1, 2]),
            ..config(voters)
        };
        d.set_members(&joint, &[], 2);
        d.advance(500);
        let e = Envelope {
            echo: 400,
            echo_incarnation: 7,
            ..envelope(2, 5, 1)
        };
        d.heard(500, &e);
        let view = LeaderView {
            leading: true,
            fresh: true,
            ..LeaderView::default()
        };
        d.evaluate(500, view);
        d.fenced()
    };
    assert_eq!(fenced_in(&[1, 2]), None);
    assert_eq!(fenced_in(&[2]), Some("not confirmed by a leader yet"));
}

#[test]
fn the_excluded_are_neither_asked_nor_answered() {
    let mut d = detector();
    d.set_members(&config(&[1, 2]), &ids(&[3]), 3);
    d.advance(100);
    let e = envelope(3, 5, 1);
    d.heard(100, &e);
    assert_eq!(d.take_outputs(), [Output::Tell(id(3))], "told");
    assert!(sent(&mut d, 100).iter().all(|(to, _)| *to == id(2)));
    assert!(d.ride_along(id(3), 100).is_none());
}

#[test]
#[should_panic(expected = "advance() comes first")]
fn a_call_that_did_not_advance_is_a_mistake() {
    detector().heard(1, &envelope(2, 5, 1));
}

#[test]
#[should_panic(expected = "too many members")]
fn the_number_of_members_is_bounded() {
    let all: Vec<u64> = (1..=65).collect();
    detector().set_members(&config(&all), &[], 65);
}
