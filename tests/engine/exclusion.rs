//! A node dies: it is excluded once, everywhere alike; it is told; it is replaced or taken back.

use raftkeel::detector::NodeState;
use raftkeel::engine::{Error, Event, Guard, Request, Role};

use crate::cluster::{Cluster, deadtime, id, peer};

fn others(c: &Cluster, than: u64) -> Vec<u64> {
    c.nodes.keys().copied().filter(|raw| *raw != than).collect()
}

#[test]
fn a_proposal_is_applied_everywhere_once() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let index = c
        .ask(leader, Request::Propose(b"hello"[..].into()))
        .unwrap();
    c.run(500);
    for node in c.nodes.values() {
        assert_eq!(node.told.applied, [(index, b"hello".to_vec())]);
        assert!(!node.told.fenced);
    }
    let follower = others(&c, leader)[0];
    let refused = c.ask(follower, Request::Propose(b"x"[..].into()));
    assert_eq!(refused, Err(Error::NotLeader));
}

#[test]
fn a_dead_follower_is_excluded_at_one_epoch_and_index() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.ask(leader, deadtime(6)).unwrap();
    let dead = others(&c, leader)[0];
    c.nodes.get_mut(&dead).unwrap().down = true;
    c.run(5_500);
    assert!(c.nodes[&leader].told.excluded.is_empty(), "too early");
    let alive = others(&c, dead);
    let all = |c: &Cluster| {
        alive
            .iter()
            .all(|raw| !c.nodes[raw].told.excluded.is_empty())
    };
    assert!(c.wait(4_500, all), "not excluded in time");
    assert_eq!(
        c.nodes[&alive[0]].told.excluded,
        c.nodes[&alive[1]].told.excluded
    );
    assert_eq!(c.nodes[&leader].told.excluded[0].1, [id(dead)]);
    assert_eq!(c.state(leader, dead), NodeState::Excluded);
    // Two nodes go on together.
    c.ask(leader, Request::Propose(b"on"[..].into())).unwrap();
}

#[test]
fn the_survivor_of_two_refuses_to_act_alone() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.ask(leader, deadtime(6)).unwrap();
    let dead = others(&c, leader)[0];
    c.nodes.get_mut(&dead).unwrap().down = true;
    c.run(12_000);
    c.nodes.get_mut(&leader).unwrap().down = true;
    let alone = c
        .nodes
        .iter()
        .find(|(_, n)| !n.down)
        .map(|(raw, _)| *raw)
        .unwrap();
    c.run(60_000);
    assert_ne!(c.role(alone), Role::Leader);
    assert!(c.nodes[&alone].told.fenced);
    assert_eq!(c.nodes[&alone].told.excluded.len(), 1);
    assert!(!c.nodes[&alone].handle.view(|v| v.info.has_quorum));
    // Both come back: one leads again, the excluded one is told.
    c.nodes.get_mut(&leader).unwrap().down = false;
    c.nodes.get_mut(&dead).unwrap().down = false;
    c.run(10_000);
    assert!(c.leader().is_some());
    assert_eq!(c.role(dead), Role::Excluded);
    assert!(c.nodes[&dead].told.fenced);
    assert_eq!(c.state(alone, dead), NodeState::Returned);
}

#[test]
fn an_excluded_node_is_replaced_by_a_new_one() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.ask(leader, deadtime(6)).unwrap();
    let dead = others(&c, leader)[0];
    c.nodes.get_mut(&dead).unwrap().down = true;
    c.run(12_000);
    let by = peer(4);
    c.join(4);
    let old = id(dead);
    c.ask(
        leader,
        Request::Replace {
            old,
            by: by.clone(),
        },
    )
    .unwrap();
    let voter = |c: &Cluster| {
        c.nodes[&4]
            .handle
            .view(|v| v.info.voters == 3 && !v.info.fenced)
    };
    assert!(c.wait(10_000, voter), "the new node never became a voter");
    assert_eq!(c.role(4), Role::Follower);
    assert_eq!(c.state(leader, dead), NodeState::Replaced);
    let decision = c.nodes[&leader].told.excluded[0].clone();
    let told = c.nodes[&leader].handle.view(|v| {
        let node = v.nodes.iter().find(|n| n.id == id(dead)).unwrap();
        (node.epoch, node.index)
    });
    assert_eq!(told, (decision.0, decision.2));
    let again = c.ask(leader, Request::Replace { old, by });
    assert!(again.is_err());
    // The old machine comes back, and stays out.
    c.nodes.get_mut(&dead).unwrap().down = false;
    c.run(5_000);
    assert_eq!(c.role(dead), Role::Excluded);
}

#[test]
fn an_excluded_node_is_taken_back() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let out = others(&c, leader)[0];
    c.ask(leader, Request::Exclude(id(out))).unwrap();
    c.run(3_000);
    assert_eq!(c.role(out), Role::Excluded);
    assert!(c.nodes[&out].told.fenced);
    c.ask(leader, Request::Readmit(id(out))).unwrap();
    let back = |c: &Cluster| c.role(out) == Role::Follower && !c.nodes[&out].told.fenced;
    assert!(c.wait(10_000, back), "{:?}", c.role(out));
    c.run(3_000);
    assert_eq!(c.state(leader, out), NodeState::Alive);
    assert_eq!(c.nodes[&leader].handle.view(|v| v.info.voters), 3);
}

#[test]
fn a_veto_holds_an_exclusion_back() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.ask(leader, deadtime(6)).unwrap();
    for node in c.nodes.values_mut() {
        node.told.guard = Guard::Deny("one replica left".to_owned());
    }
    let dead = others(&c, leader)[0];
    c.nodes.get_mut(&dead).unwrap().down = true;
    c.run(30_000);
    assert!(c.nodes[&leader].told.excluded.is_empty());
    assert_eq!(c.state(leader, dead), NodeState::Suspect);
    let other = *others(&c, dead).iter().find(|raw| **raw != leader).unwrap();
    let notice = c.nodes[&other].handle.view(|v| v.info.notice.clone());
    assert!(notice.contains("one replica left"), "{notice}");
}

#[test]
fn a_leader_cut_off_is_fenced_and_excludes_nobody() {
    let mut c = Cluster::new(3);
    let old = c.elect();
    c.ask(old, deadtime(6)).unwrap();
    c.cut_off(old);
    c.run(30_000);
    assert!(c.nodes[&old].told.excluded.is_empty());
    assert!(c.nodes[&old].told.fenced);
    for raw in others(&c, old) {
        assert_eq!(c.nodes[&raw].told.excluded.len(), 1);
        assert!(!c.nodes[&raw].told.fenced);
    }
    c.cut.clear();
    c.run(5_000);
    assert_eq!(c.role(old), Role::Excluded);
    assert_eq!(
        c.nodes
            .keys()
            .filter(|r| c.role(**r) == Role::Leader)
            .count(),
        1
    );
}

#[test]
fn bad_settings_change_nothing() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let refused = c.ask(leader, deadtime(1));
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert_eq!(c.nodes[&leader].handle.view(|v| v.params.hb_deadtime), 0);
}

#[test]
fn a_node_that_is_on_its_way_out_is_not_confirmed() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.ask(leader, deadtime(6)).unwrap();
    c.run(1_000);
    let out = others(&c, leader)[0];
    let third = others(&c, leader)[1];
    let logged = c.nodes[&leader].handle.view(|v| v.info.last_index);
    c.cut_off(out);
    let decided = |c: &Cluster| c.nodes[&leader].handle.view(|v| v.info.last_index) > logged;
    assert!(c.wait(12_000, decided), "no decision");
    assert!(c.nodes[&out].told.fenced);
    // The leader is heard again while it waits for the consent of the third to what it decided.
    c.cut = vec![(third, leader)];
    c.run(500);
    c.cut.clear();
    c.cut_off(out);
    let excluded = |c: &Cluster| !c.nodes[&leader].told.excluded.is_empty();
    assert!(c.wait(1_000, excluded), "never committed");
    assert!(c.nodes[&out].told.fenced, "it is out, and serves");
}

/// Its lease would last for as long as the settings say that it still has.
#[test]
fn a_node_that_does_not_know_the_settings_is_not_confirmed() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.ask(leader, deadtime(60)).unwrap();
    c.run(1_000);
    for node in c.nodes.values_mut() {
        node.told.guard = Guard::Deny("not yet".to_owned());
    }
    let out = others(&c, leader)[0];
    c.cut_off(out);
    assert!(c.wait(60_000, |c| c.nodes[&out].told.fenced));
    c.ask(leader, deadtime(6)).unwrap();
    // It is heard, then it hears, but the log does not get through to it.
    c.cut.retain(|cut| *cut != (out, leader));
    c.run(1_000);
    c.cut_off(out);
    c.cut.retain(|cut| *cut != (leader, out));
    c.run(1_000);
    c.cut_off(out);
    for node in c.nodes.values_mut() {
        node.told.guard = Guard::Allow;
    }
    let excluded = |c: &Cluster| !c.nodes[&leader].told.excluded.is_empty();
    assert!(c.wait(20_000, excluded), "never excluded");
    assert!(c.nodes[&out].told.fenced, "it is out, and serves");
}

#[test]
fn what_holds_an_exclusion_back_is_told_when_it_changes() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let dead = others(&c, leader)[0];
    c.nodes.get_mut(&dead).unwrap().down = true;
    c.run(60_000);
    c.nodes.get_mut(&dead).unwrap().down = false;
    c.run(10_000);
    for raw in others(&c, dead) {
        let told = c.nodes[&raw].told.events.iter().filter_map(|e| match e {
            Event::Blocked { why } => Some(why.as_str()),
            _ => None,
        });
        let told: Vec<&str> = told.collect();
        assert!(told[0].contains("DISABLED"), "{told:?}");
        assert_eq!(told.last(), Some(&""), "{told:?}");
        assert!(told.len() <= 4, "told {} times: {told:?}", told.len());
    }
}
