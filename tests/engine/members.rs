//! Nodes join, are promoted, leave for good; and come back without their state.

use raftkeel::core::Index;
use raftkeel::detector::NodeState;
use raftkeel::engine::{Error, Event, NodeView, Request, Role, Settings};

use crate::cluster::{Cluster, deadtime, id, peer};

fn others(c: &Cluster, than: u64) -> Vec<u64> {
    c.nodes.keys().copied().filter(|raw| *raw != than).collect()
}

fn voters(c: &Cluster, seen_by: u64) -> u32 {
    c.nodes[&seen_by].handle.view(|v| v.info.voters)
}

fn term(c: &Cluster, raw: u64) -> u64 {
    c.nodes[&raw].handle.view(|v| v.info.term)
}

fn view_of(c: &Cluster, seen_by: u64, of: u64) -> NodeView {
    c.nodes[&seen_by].handle.view(|v| {
        let node = v.nodes.iter().find(|n| n.id == id(of));
        node.expect("it is or was a member").clone()
    })
}

fn down(c: &mut Cluster, raw: u64, down: bool) {
    c.nodes.get_mut(&raw).unwrap().down = down;
}

fn has_event(c: &Cluster, raw: u64, event: &Event) -> bool {
    c.nodes[&raw].told.events.contains(event)
}

/// It is out and knows it: it does not serve, and is asked for nothing.
fn assert_outcast(c: &Cluster, raw: u64, why: &str) {
    assert_eq!(c.role(raw), Role::Excluded);
    assert!(c.nodes[&raw].told.fenced);
    let said = c.nodes[&raw].handle.view(|v| v.info.fenced_why);
    assert!(said.contains(why), "{said}");
    assert_eq!(c.nodes[&raw].handle.lease_ms(), Some(0));
}

/// A proposal is committed, and applied by all of these.
fn assert_works(c: &mut Cluster, leader: u64, applied_by: &[u64]) {
    let index: Index = c.ask(leader, Request::Propose(b"on"[..].into())).unwrap();
    c.run(1_000);
    for raw in applied_by {
        let applied = &c.nodes[raw].told.applied;
        assert!(applied.iter().any(|(at, _)| *at == index), "node {raw}");
    }
}

#[test]
fn an_added_node_votes_only_when_it_is_promoted() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    for _ in 0..20 {
        c.ask(leader, Request::Propose(b"x"[..].into())).unwrap();
    }
    c.ask(leader, Request::Add(peer(4))).unwrap();
    let early = c.ask(leader, Request::Promote(id(4)));
    let Err(Error::Conflict(why)) = early else {
        panic!("nothing has reached it: {early:?}");
    };
    assert!(why.contains("entries behind"), "{why}");
    c.join(4);
    c.run(20_000);
    assert_eq!(c.role(4), Role::Learner, "nobody has asked for more");
    assert!(view_of(&c, leader, 4).awaits_promotion);
    assert_eq!(voters(&c, leader), 3);
    c.ask(leader, Request::Promote(id(4))).unwrap();
    c.run(1_000);
    assert_eq!((c.role(4), voters(&c, leader)), (Role::Follower, 4));
    assert!(has_event(&c, 4, &Event::Added { id: id(4) }));
    let again = c.ask(leader, Request::Promote(id(4)));
    assert!(matches!(again, Err(Error::State(_))), "{again:?}");
    // It counts: of 4 voters 3 are needed, and it is one of them.
    let third = others(&c, leader)[0];
    down(&mut c, third, true);
    assert_works(&mut c, leader, &[4]);
}

/// What the host may propose is another matter.
#[test]
fn changes_are_not_held_to_the_hosts_limit() {
    let mut c = Cluster::of(3, |settings| Settings {
        entry_max: 4,
        ..settings
    });
    let leader = c.elect();
    let big = c.ask(leader, Request::Propose(b"large"[..].into()));
    assert!(matches!(big, Err(Error::TooBig(_))), "{big:?}");
    assert_works(&mut c, leader, &[1, 2, 3]);
    c.join(4);
    c.ask(leader, Request::Add(peer(4))).unwrap();
    c.run(3_000);
    // Only one whose directory is registered is promoted.
    c.ask(leader, Request::Promote(id(4))).unwrap();
    c.ask(leader, deadtime(10)).unwrap();
    assert_eq!(4, voters(&c, leader));
}

#[test]
fn ids_are_used_once_and_changes_come_one_by_one() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let both = [Request::Add(peer(4)), Request::Add(peer(5))];
    let results = c.ask_together(leader, both.into());
    assert!(results[0].is_ok());
    assert!(matches!(results[1], Err(Error::Conflict(_))), "{results:?}");
    c.ask(leader, Request::Remove(id(4))).unwrap();
    for used in [1, 2, 3, 4] {
        let refused = c.ask(leader, Request::Add(peer(used)));
        assert!(matches!(refused, Err(Error::Exists(_))), "{refused:?}");
    }
    let follower = others(&c, leader)[0];
    let elsewhere = c.ask(follower, Request::Add(peer(6)));
    assert_eq!(elsewhere, Err(Error::NotLeader));
}

#[test]
fn a_removed_follower_is_told_and_stays_out() {
    let mut c = Cluster::new(4);
    let leader = c.elect();
    let (gone, away) = (others(&c, leader)[0], others(&c, leader)[1]);
    c.ask(leader, Request::Remove(id(gone))).unwrap();
    c.run(2_000);
    assert_outcast(&c, gone, "removed");
    assert_eq!(c.state(leader, gone), NodeState::Removed);
    assert_eq!(c.state(gone, gone), NodeState::Removed);
    assert_eq!((voters(&c, leader), term(&c, leader)), (3, term(&c, away)));
    // One that was away meanwhile is told when it comes back.
    down(&mut c, away, true);
    c.run(2_500);
    c.ask(leader, Request::Remove(id(away))).unwrap();
    c.run(3_000);
    let before = term(&c, leader);
    down(&mut c, away, false);
    c.run(5_000);
    assert_outcast(&c, away, "removed");
    assert_eq!(term(&c, leader), before, "it deposes nobody");
    let told = |e: &Event| matches!(e, Event::RemovedSelf { epoch: 3, .. });
    assert!(c.nodes[&away].told.events.iter().any(told));
    let refused = c.ask(leader, Request::Readmit(id(away)));
    assert!(matches!(refused, Err(Error::State(_))), "{refused:?}");
    let asked = c.ask(away, Request::Propose(b"x"[..].into()));
    assert_eq!(asked, Err(Error::Excluded));
    let stay = c
        .nodes
        .keys()
        .copied()
        .filter(|r| ![gone, away].contains(r));
    let stay: Vec<u64> = stay.collect();
    assert_works(&mut c, leader, &stay);
}

#[test]
fn a_leader_leads_its_own_removal_to_its_end() {
    for count in [2, 3, 5] {
        let mut c = Cluster::new(count);
        let old = c.elect();
        let before = term(&c, old);
        c.ask(old, Request::Remove(id(old))).unwrap();
        let out = |c: &Cluster| c.role(old) == Role::Excluded;
        assert!(c.wait(2_000, out), "it never left");
        let info = c.nodes[&old].handle.view(|v| v.info.clone());
        assert_eq!(info.commit, info.last_index, "it left before its end");
        let stay = others(&c, old);
        for raw in &stay {
            assert_eq!(term(&c, *raw), before, "no other leader was needed");
            assert_eq!(voters(&c, *raw), count as u32 - 1);
        }
        assert_outcast(&c, old, "removed");
        let leads = |c: &Cluster| c.leader().is_some_and(|raw| raw != old);
        assert!(c.wait(10_000, leads), "the rest elect nobody");
        c.run(3_000);
        let leader = c.leader().unwrap();
        assert_works(&mut c, leader, &stay);
        assert_eq!(c.state(leader, old), NodeState::Removed);
        assert_outcast(&c, old, "removed");
    }
}

#[test]
fn the_last_voter_stays() {
    let mut c = Cluster::new(2);
    let leader = c.elect();
    let other = others(&c, leader)[0];
    c.ask(leader, Request::Remove(id(other))).unwrap();
    c.run(2_000);
    assert_outcast(&c, other, "removed");
    let refused = c.ask(leader, Request::Remove(id(leader)));
    assert!(matches!(refused, Err(Error::State(_))), "{refused:?}");
    assert_works(&mut c, leader, &[leader]);
}

#[test]
fn a_removal_leaves_a_living_majority() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let (dead, alive) = (others(&c, leader)[0], others(&c, leader)[1]);
    down(&mut c, dead, true);
    c.run(10_000);
    let refused = c.ask(leader, Request::Remove(id(alive)));
    assert!(matches!(refused, Err(Error::NoQuorum(_))), "{refused:?}");
    c.ask(leader, Request::Remove(id(dead))).unwrap();
    assert_eq!(voters(&c, leader), 2);
    assert_works(&mut c, leader, &[alive]);
}

/// One that holds nothing does not vote, and nothing may come to depend on it.
#[test]
fn a_removal_leaves_a_majority_that_can_vote() {
    let mut c = Cluster::new(3);
    c.wipe(3, false);
    c.cut_off(3);
    let leader = c.elect();
    for request in [
        Request::Remove(id(leader)),
        Request::Exclude(id(3 - leader)),
    ] {
        c.hear(leader, 3);
        let result = c.ask(leader, request);
        assert!(matches!(result, Err(Error::NoQuorum(_))), "{result:?}");
    }
    c.cut.clear();
    c.run(3_000);
    c.ask(leader, Request::Remove(id(leader))).unwrap();
}

#[test]
fn learners_and_the_excluded_can_be_removed() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.join(4);
    c.ask(leader, Request::Add(peer(4))).unwrap();
    c.run(3_000);
    c.ask(leader, Request::Remove(id(4))).unwrap();
    let out = others(&c, leader)[0];
    c.ask(leader, Request::Exclude(id(out))).unwrap();
    c.run(3_000);
    c.ask(leader, Request::Remove(id(out))).unwrap();
    c.run(3_000);
    assert_outcast(&c, 4, "removed");
    assert_outcast(&c, out, "removed");
    assert_eq!(c.state(leader, out), NodeState::Removed);
    assert_eq!(voters(&c, leader), 2);
}

/// A43: n2 lacks what the two others have committed; then one of them is wiped.
fn with_a_wiped_voter(bootstrapped: bool) -> (Cluster, u64, u64, u64) {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let (behind, wiped) = (others(&c, leader)[0], others(&c, leader)[1]);
    c.cut_off(behind);
    c.ask(leader, Request::Propose(b"X"[..].into())).unwrap();
    c.run(500);
    down(&mut c, leader, true);
    c.wipe(wiped, bootstrapped);
    c.cut.clear();
    (c, leader, behind, wiped)
}

#[test]
fn a43_a_wiped_voter_cannot_undo_what_it_acknowledged() {
    for bootstrapped in [true, false] {
        let (mut c, old, behind, wiped) = with_a_wiped_voter(bootstrapped);
        c.run(30_000);
        assert_eq!(c.leader(), None, "nobody has X");
        assert_outcast(&c, wiped, "lost its state");
        assert!(has_event(&c, wiped, &Event::LostState));
        let event = Event::PeerLostState { id: id(wiped) };
        assert!(has_event(&c, behind, &event));
        assert!(view_of(&c, behind, wiped).lost_state);
        down(&mut c, old, false);
        c.run(10_000);
        assert_eq!(c.leader(), Some(old), "only it has X");
        assert_eq!(c.nodes[&behind].told.applied[0].1, b"X");
        // It is as good as dead: a new node takes its place.
        c.ask(old, Request::Exclude(id(wiped))).unwrap();
        c.run(2_000);
        let refused = c.ask(old, Request::Readmit(id(wiped)));
        assert!(matches!(refused, Err(Error::State(_))), "{refused:?}");
        c.join(4);
        let (gone, by) = (id(wiped), peer(4));
        c.ask(old, Request::Replace { old: gone, by }).unwrap();
        let votes = |c: &Cluster| c.role(4) == Role::Follower && voters(c, old) == 3;
        assert!(c.wait(10_000, votes), "the new node never votes");
        assert_outcast(&c, wiped, "lost its state");
    }
}

#[test]
fn a_wiped_voter_counts_as_dead() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.ask(leader, deadtime(6)).unwrap();
    let wiped = others(&c, leader)[0];
    c.wipe(wiped, true);
    c.run(500);
    // Nor does it help that the host hears something there.
    for _ in 0..30 {
        c.hear(leader, wiped);
        c.run(400);
    }
    assert_eq!(c.state(leader, wiped), NodeState::Excluded);
    assert_outcast(&c, wiped, "lost its state");
    let stay = others(&c, wiped);
    assert_works(&mut c, leader, &stay);
}

/// It was heard a moment ago, and will never vote again.
#[test]
fn no_change_needs_the_vote_of_a_wiped_voter() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.run(3_000);
    let (leaves, wiped) = (others(&c, leader)[0], others(&c, leader)[1]);
    c.wipe(wiped, true);
    let event = Event::PeerLostState { id: id(wiped) };
    assert!(c.wait(2_000, |c| has_event(c, leader, &event)));
    assert_eq!(c.state(leader, wiped), NodeState::Alive, "not silent yet");
    let removed = c.ask(leader, Request::Remove(id(leaves)));
    assert!(matches!(removed, Err(Error::NoQuorum(_))), "{removed:?}");
    assert_works(&mut c, leader, &[leaves]);
}

/// Whenever it is wiped while the leader judges the third: it will never vote for the exclusion.
#[test]
fn no_exclusion_needs_the_vote_of_a_wiped_voter() {
    for wiped_at in (3_000..12_000).step_by(100) {
        let mut c = Cluster::new(3);
        let leader = c.elect();
        c.ask(leader, deadtime(6)).unwrap();
        c.run(3_000);
        let (dead, wiped) = (others(&c, leader)[0], others(&c, leader)[1]);
        down(&mut c, dead, true);
        c.run(wiped_at);
        // What is under way already may need it.
        let decided = voters(&c, leader) < 3;
        c.wipe(wiped, true);
        c.run(20_000);
        down(&mut c, dead, false);
        let leads = |c: &Cluster| c.leader().is_some();
        assert!(
            decided || c.wait(20_000, leads),
            "wiped after {wiped_at} ms"
        );
    }
}

#[test]
fn a_wiped_learner_is_not_promoted() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.join(4);
    c.ask(leader, Request::Add(peer(4))).unwrap();
    c.run(5_000);
    c.wipe(4, false);
    c.run(5_000);
    let refused = c.ask(leader, Request::Promote(id(4)));
    assert!(matches!(refused, Err(Error::State(_))), "{refused:?}");
    assert_outcast(&c, 4, "lost its state");
}

#[test]
fn a_node_that_restarts_with_its_state_is_welcome() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let away = others(&c, leader)[0];
    down(&mut c, away, true);
    c.run(5_000);
    down(&mut c, away, false);
    c.run(5_000);
    assert!(!view_of(&c, leader, away).lost_state);
    assert_works(&mut c, leader, &[away]);
}

/// Whoever asked a node for something before it knew that its state is lost is answered all the same.
#[test]
fn what_a_wiped_voter_was_asked_for_is_answered() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let wiped = others(&c, leader)[0];
    c.wipe(wiped, false);
    let knows = |c: &Cluster| c.nodes[&wiped].handle.view(|v| v.info.leader.is_some());
    assert!(c.wait(3_000, knows));
    let answer = c.ask(wiped, Request::Barrier);
    assert!(answer.is_err(), "{answer:?}");
    assert!(has_event(&c, wiped, &Event::LostState));
}
