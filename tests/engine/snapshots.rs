//! Snapshots in the three ways of compaction, as hosts see them.

use raftkeel::core::{Index, NodeId};
use raftkeel::engine::{
    Compaction, Error, Event, HostState, Info, Input, MESSAGE_REST, Request, Role, Settings,
    Ticket, Way,
};

use crate::cluster::{Cluster, id, peer, settings};

const ENTRIES: u64 = 40;

pub fn compacting(way: Way) -> impl Fn(Settings) -> Settings {
    move |settings| Settings {
        compaction: Compaction {
            way,
            bytes: u64::MAX,
            entries: ENTRIES,
        },
        // Nearly nothing stays in memory, so that peers are served from storage.
        tail_bytes: 1000,
        ..settings
    }
}

pub fn propose(c: &mut Cluster, raw: u64, count: u64) {
    let data = |i: u64| Request::Propose(format!("{raw} {i} {}", "x".repeat(90)).as_bytes().into());
    for result in c.ask_together(raw, (0..count).map(data).collect()) {
        result.unwrap();
    }
}

pub fn info(c: &Cluster, raw: u64) -> Info {
    c.nodes[&raw].handle.view(|v| v.info.clone())
}

fn applied(c: &Cluster, raw: u64) -> &[(Index, Vec<u8>)] {
    &c.nodes[&raw].told.applied
}

fn events(c: &Cluster, raw: u64, code: &str) -> usize {
    let events = c.nodes[&raw].told.events.iter();
    events.filter(|e| e.code() == code).count()
}

/// All hosts hold what the leader's holds.
fn agree(c: &Cluster, leader: u64) -> bool {
    let all = c.nodes.values().filter(|n| !n.down);
    all.map(|n| &n.told.applied)
        .all(|a| a == &c.nodes[&leader].told.applied)
}

fn in_each_way(test: impl Fn(Way)) {
    for way in [Way::Application, Way::Leader, Way::InLog] {
        println!("{way:?}");
        test(way);
    }
}

#[test]
fn the_log_is_compacted_and_goes_on() {
    in_each_way(|way| {
        let mut c = Cluster::of(3, compacting(way));
        let leader = c.elect();
        for _ in 0..8 {
            propose(&mut c, leader, 30);
            c.run(500);
        }
        assert!(c.wait(5_000, |c| agree(c, leader)));
        for raw in 1..=3 {
            let info = info(&c, raw);
            assert!(info.snapshot_index > 100, "{way:?}: {info:?}");
            assert!(info.first_index > 60, "{way:?}: {info:?}");
            assert!(events(&c, raw, "SNAPSHOT") >= 3, "{way:?}");
            assert_eq!(0, events(&c, raw, "DIVERGED"), "{way:?}");
            assert!(c.nodes[&raw].told.loaded.is_empty(), "nobody fell behind");
        }
    });
}

#[test]
fn who_fell_behind_the_log_catches_up() {
    in_each_way(|way| {
        let mut c = Cluster::of(3, compacting(way));
        let leader = c.elect();
        let behind = (1..=3).find(|raw| *raw != leader).unwrap();
        c.nodes.get_mut(&behind).unwrap().down = true;
        for _ in 0..8 {
            propose(&mut c, leader, 30);
            c.run(1_500);
        }
        let last = info(&c, behind).last_index;
        let first = info(&c, leader).first_index;
        assert!(first > last + 1, "{way:?}: the log reaches back to {first}");
        c.nodes.get_mut(&behind).unwrap().down = false;
        assert!(c.wait(20_000, |c| agree(c, leader)), "{way:?}");
        let told = &c.nodes[&behind].told;
        assert_eq!(1, told.loaded.len(), "{way:?}");
        assert_eq!(1, events(&c, behind, "SNAPSHOT_INSTALLED"), "{way:?}");
        // What follows comes by entries again.
        propose(&mut c, leader, 5);
        assert!(c.wait(2_000, |c| agree(c, leader)), "{way:?}");
        assert_eq!(1, c.nodes[&behind].told.loaded.len(), "{way:?}");
    });
}

#[test]
fn a_node_that_joins_late_gets_a_snapshot_and_votes() {
    in_each_way(|way| {
        let mut c = Cluster::of(3, compacting(way));
        let leader = c.elect();
        for _ in 0..6 {
            propose(&mut c, leader, 30);
            c.run(500);
        }
        c.join_with(compacting(way)(settings(4)));
        c.ask(leader, Request::Add(peer(4))).unwrap();
        assert!(c.wait(20_000, |c| agree(c, leader)), "{way:?}");
        assert_eq!(1, c.nodes[&4].told.loaded.len(), "{way:?}");
        c.run(3_000);
        c.ask(leader, Request::Promote(id(4))).unwrap();
        let members = c.nodes[&4].handle.view(|v| v.nodes.len());
        assert_eq!(4, members, "the cluster's own state comes with it");
    });
}

#[test]
fn a_load_that_fails_is_tried_again() {
    let mut c = Cluster::of(3, compacting(Way::Application));
    let leader = c.elect();
    let behind = (1..=3).find(|raw| *raw != leader).unwrap();
    c.nodes.get_mut(&behind).unwrap().down = true;
    for _ in 0..6 {
        propose(&mut c, leader, 30);
        c.run(1_500);
    }
    let node = c.nodes.get_mut(&behind).unwrap();
    (node.down, node.told.broken) = (false, true);
    let failed = |c: &Cluster| events(c, behind, "SNAPSHOT_FAILED") >= 3;
    assert!(c.wait(20_000, failed));
    assert!(applied(&c, behind).len() < applied(&c, leader).len());
    c.nodes.get_mut(&behind).unwrap().told.broken = false;
    assert!(c.wait(20_000, |c| agree(c, leader)));
}

#[test]
fn writing_a_snapshot_slowly_holds_nothing_up() {
    in_each_way(|way| {
        let mut c = Cluster::of(3, compacting(way));
        let leader = c.elect();
        for node in c.nodes.values_mut() {
            node.told.slow = true;
        }
        for _ in 0..4 {
            propose(&mut c, leader, 30);
        }
        assert_eq!(1, info(&c, leader).first_index, "{way:?}");
        assert_eq!(1, c.nodes[&leader].told.saves.len(), "one at a time");
        assert_eq!(Some(leader), c.leader());
        for node in c.nodes.values_mut() {
            for save in node.told.saves.drain(..) {
                save.finish(true);
            }
            node.told.slow = false;
        }
        let made = |c: &Cluster| (1..=3).all(|raw| info(c, raw).snapshot_index > 0);
        assert!(c.wait(5_000, made), "{way:?}");
    });
}

#[test]
fn the_host_can_ask_for_a_snapshot() {
    for way in [Way::Leader, Way::InLog] {
        let mut c = Cluster::of(3, compacting(way));
        let leader = c.elect();
        let other = leader % 3 + 1;
        assert_eq!(Err(Error::NotLeader), c.ask(other, Request::Snapshot));
        let index = c.ask(leader, Request::Snapshot).unwrap();
        let everywhere = |c: &Cluster| (1..=3).all(|raw| info(c, raw).snapshot_index == index);
        assert!(c.wait(2_000, everywhere), "{way:?}");
    }
    let mut c = Cluster::of(3, compacting(Way::Application));
    let leader = c.elect();
    propose(&mut c, leader, 3);
    for raw in 1..=3 {
        let index = c.ask(raw, Request::Snapshot).unwrap();
        assert_eq!(index, info(&c, raw).snapshot_index);
    }
}

/// Where the leader says when, one that is none any more cannot know what becomes of it.
#[test]
fn a_snapshot_that_a_deposed_leader_was_asked_for_is_lost() {
    for way in [Way::Leader, Way::InLog] {
        let mut c = Cluster::of(3, compacting(way));
        let leader = c.elect();
        c.cut_off(leader);
        let result = c.ask(leader, Request::Snapshot);
        assert_eq!(Err(Error::Lost), result, "{way:?}");
        assert_ne!(Role::Leader, c.role(leader));
    }
}

/// It is committed, and who leads then has another host write it.
#[test]
fn a_snapshot_that_an_excluded_leader_was_asked_for_is_lost() {
    let mut c = Cluster::of(3, compacting(Way::InLog));
    let leader = c.elect();
    let requests = vec![Request::Exclude(id(leader)), Request::Snapshot];
    let results = c.ask_together(leader, requests);
    assert!(results[0].is_ok(), "{results:?}");
    assert_eq!(Err(Error::Lost), results[1]);
}

/// Neither the least message nor a small limit of the host's own is less than a piece in the log.
#[test]
fn a_large_snapshot_goes_into_the_log_by_small_messages() {
    let small = |settings: Settings| Settings {
        message_max: 2 * MESSAGE_REST,
        entry_max: 1000,
        ..compacting(Way::InLog)(settings)
    };
    let mut c = Cluster::of(3, small);
    let leader = c.elect();
    for _ in 0..60 {
        let data = vec![7; 1000].into();
        c.ask(leader, Request::Propose(data)).unwrap();
    }
    let index = c.ask(leader, Request::Snapshot).unwrap();
    let everywhere = |c: &Cluster| (1..=3).all(|raw| info(c, raw).snapshot_index == index);
    assert!(c.wait(5_000, everywhere), "it has 60,000 bytes");
}

#[test]
fn states_that_differ_are_reported() {
    let mut c = Cluster::of(3, compacting(Way::Leader));
    let leader = c.elect();
    let other = leader % 3 + 1;
    propose(&mut c, leader, 5);
    c.run(500);
    c.nodes.get_mut(&other).unwrap().told.applied[2].1[0] ^= 1;
    c.ask(leader, Request::Snapshot).unwrap();
    assert!(c.wait(5_000, |c| events(c, leader, "DIVERGED") > 0));
    let accused = |e: &Event| matches!(e, Event::Diverged { id, .. } if id.get() == other);
    let diverged = c.nodes[&leader].told.events.iter();
    let diverged: Vec<_> = diverged.filter(|e| e.code() == "DIVERGED").collect();
    assert!(diverged.iter().all(|e| accused(e)) && diverged.len() == 1);
}

#[test]
fn without_a_way_to_save_the_log_only_grows() {
    let unsaved = |settings| Settings {
        host_state: HostState::Unsaved,
        ..compacting(Way::Application)(settings)
    };
    let mut c = Cluster::of(3, unsaved);
    let leader = c.elect();
    for _ in 0..4 {
        propose(&mut c, leader, 30);
    }
    c.run(1_000);
    assert_eq!(1, info(&c, leader).first_index);
    assert!(matches!(
        c.ask(leader, Request::Snapshot),
        Err(Error::State(_))
    ));
    assert!(agree(&c, leader));
}

#[test]
fn without_a_state_of_the_hosts_the_clusters_own_is_saved() {
    in_each_way(|way| {
        let stateless = |settings| Settings {
            host_state: HostState::None,
            ..compacting(way)(settings)
        };
        let mut c = Cluster::of(3, stateless);
        let leader = c.elect();
        let behind = leader % 3 + 1;
        c.nodes.get_mut(&behind).unwrap().down = true;
        for _ in 0..8 {
            propose(&mut c, leader, 30);
            c.run(1_500);
        }
        c.nodes.get_mut(&behind).unwrap().down = false;
        let there = |c: &Cluster| info(c, behind).applied == info(c, leader).applied;
        assert!(c.wait(20_000, there), "{way:?}");
        assert!(info(&c, behind).first_index > 60, "{way:?}");
        assert!(c.nodes[&behind].told.loaded.is_empty());
    });
}

#[test]
fn who_leads_is_a_value_in_the_log() {
    let mut c = Cluster::of(3, compacting(Way::Application));
    let leader = c.elect();
    let recorded = |c: &Cluster, raw| {
        let info = info(c, raw);
        (info.recorded_leader, info.recorded_term)
    };
    let term = info(&c, leader).term;
    for raw in 1..=3 {
        assert_eq!((NodeId::new(leader), term), recorded(&c, raw));
    }
    let address = c.nodes[&1]
        .handle
        .view(|v| v.address_of(v.info.recorded_leader).to_owned());
    assert_eq!(format!("host{leader}:7000"), address);
    c.nodes.get_mut(&leader).unwrap().down = true;
    let next = |c: &Cluster| {
        c.leader()
            .is_some_and(|raw| recorded(c, raw).0 == NodeId::new(raw))
    };
    assert!(c.wait(20_000, next));
}

/// The word that everybody makes a snapshot is lost with its leader: who asked for it is told.
#[test]
fn a_snapshot_asked_of_a_leader_that_is_deposed_is_answered() {
    for way in [Way::Leader, Way::InLog] {
        let mut c = Cluster::of(3, compacting(way));
        let leader = c.elect();
        c.cut_off(leader);
        assert_eq!(
            Err(Error::Lost),
            c.ask(leader, Request::Snapshot),
            "{way:?}"
        );
    }
}

/// A host goes on writing for the log while others lead, who have begun another snapshot since.
#[test]
fn an_image_that_comes_too_late_for_the_log_is_dropped() {
    let mut c = Cluster::of(3, compacting(Way::InLog));
    let first = c.elect();
    let other = first % 3 + 1;
    propose(&mut c, first, 3);
    c.nodes.get_mut(&first).unwrap().told.slow = true;
    let ticket = Input::Request(Ticket(900), Request::Snapshot);
    c.nodes[&first].handle.submit(ticket).unwrap();
    assert!(c.wait(1_000, |c| !c.nodes[&first].told.saves.is_empty()));
    c.ask(first, Request::Transfer(Some(id(other)))).unwrap();
    c.run(3_000);
    let second = c.ask(other, Request::Snapshot).unwrap();
    c.run(1_000);
    c.ask(other, Request::Transfer(Some(id(first)))).unwrap();
    c.run(3_000);
    assert_eq!(Some(first), c.leader());
    let node = c.nodes.get_mut(&first).unwrap();
    node.told.slow = false;
    node.told.saves.drain(..).for_each(|save| save.finish(true));
    for _ in 0..4 {
        propose(&mut c, first, 30);
        c.run(500);
    }
    for raw in 1..=3 {
        let info = info(&c, raw);
        assert!(info.snapshot_index > second + ENTRIES, "{info:?}");
    }
}

/// Pieces of a state are larger than what the host wants in an entry.
#[test]
fn small_entries_do_not_keep_a_state_out_of_the_log() {
    let small = |settings| Settings {
        entry_max: 200,
        ..compacting(Way::InLog)(settings)
    };
    let mut c = Cluster::of(3, small);
    let leader = c.elect();
    for _ in 0..4 {
        propose(&mut c, leader, 30);
        c.run(500);
    }
    for raw in 1..=3 {
        let info = info(&c, raw);
        assert!(info.snapshot_index > ENTRIES, "{info:?}");
    }
}

/// A node that has begun anew knows nothing before its host has loaded its state: as long as others
/// can lead it does not, or nobody could serve until then.
#[test]
fn who_loads_its_own_state_leaves_it_to_others_to_lead() {
    let root = std::env::temp_dir().join(format!("raftkeel-loading-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    for round in 0..8 {
        let path = root.join(round.to_string());
        let change = compacting(Way::Application);
        let mut c = Cluster::of(3, &change);
        c.open(change(settings(3)), &path, true);
        let leader = c.elect();
        propose(&mut c, leader, 60);
        c.run(1_000);
        assert!(info(&c, 3).snapshot_index > 0);
        if leader == 3 {
            c.ask(3, Request::Transfer(Some(id(1)))).unwrap();
            c.run(1_000);
        }
        c.open(change(settings(3)), &path, false);
        c.nodes.get_mut(&3).unwrap().told.loads = Some(Vec::new());
        c.run(1_000 + 50 * round);
        assert!(info(&c, 3).loading);
        let leader = c.leader().unwrap();
        c.nodes.get_mut(&leader).unwrap().down = true;
        let serves = |c: &Cluster| {
            let leads = |raw: &u64| info(c, *raw).role == Role::Leader && *raw != leader;
            (1..=3)
                .find(leads)
                .is_some_and(|raw| info(c, raw).has_quorum)
        };
        assert!(c.wait(6_000, serves), "round {round}");
        assert_ne!(Some(3), c.leader(), "round {round}");
    }
    let _ = std::fs::remove_dir_all(root);
}

/// Where nobody else can, it leads in the end, and at once when it is alone.
#[test]
fn who_loads_its_own_state_leads_where_nobody_else_can() {
    let root = std::env::temp_dir().join(format!("raftkeel-alone-{}", std::process::id()));
    let change = compacting(Way::Application);
    let mut c = Cluster::of(1, &change);
    c.open(change(settings(1)), &root, true);
    let leader = c.elect();
    propose(&mut c, leader, 60);
    c.open(change(settings(1)), &root, false);
    c.nodes.get_mut(&1).unwrap().told.loads = Some(Vec::new());
    c.run(50);
    assert_eq!((Some(1), true), (c.leader(), info(&c, 1).loading));
    let _ = std::fs::remove_dir_all(root);
}
