//! Behaviour of the failure detector: clusters of 3, 5 and 7 under loss, pauses, partitions and
//! crashes, in simulated time. `RAFTKEEL_SEED` replays a run.

mod sim;

use raftkeel::core::Millis;
use raftkeel::detector::{BlockedBy, GuardAnswer, NodeState, Timers};
use sim::{DEADTIME, Event, Rng, Sim, id, seed, timers};

const MINUTE: Millis = 60_000;

fn quiet(n: usize, default_seed: u64) -> (Sim, usize) {
    let mut sim = Sim::new(n, seed(default_seed), timers());
    let leader = sim.settle_in();
    (sim, leader)
}

/// Somebody who is neither of these.
fn other(sim: &Sim, not: &[usize]) -> usize {
    let mut all = 0..sim.nodes.len();
    all.find(|i| !not.contains(i)).expect("enough nodes")
}

#[test]
fn loss_up_to_half_of_all_packets_accuses_and_fences_nobody() {
    for n in [3, 5, 7] {
        for loss in [0, 100, 300, 500] {
            let mut sim = Sim::new(n, seed(n as u64 * 1000 + u64::from(loss)), timers());
            sim.lose_everywhere(loss);
            sim.delay_max = 400;
            sim.duplicates = 100;
            sim.run(30_000);
            sim.log.clear();
            sim.run(10 * MINUTE);
            assert!(
                !sim.anybody_suspected(),
                "{n} nodes, {loss} lost: {:?}",
                sim.log
            );
            assert!(sim.excluded().is_empty());
            assert!((0..n).all(|i| sim.fenced_at(i).is_none()), "{:?}", sim.log);
            assert!((0..n).all(|i| sim.nodes[i].detector.health() == 0));
        }
    }
}

#[test]
fn a_dead_node_is_put_out_within_two_seconds_of_deadtime_and_never_early() {
    for n in [3, 5, 7] {
        for loss in [0, 100, 300] {
            let mut sim = Sim::new(n, seed(n as u64 * 77 + u64::from(loss)), timers());
            sim.lose_everywhere(loss);
            let leader = sim.settle_in();
            let victim = other(&sim, &[leader]);
            sim.crash(victim);
            let died = sim.now;
            sim.run_until(DEADTIME + 2000, |sim| !sim.excluded().is_empty());
            let (when, ids) = sim.excluded().remove(0);
            assert_eq!(ids, [id(victim)]);
            assert!(
                when >= died + DEADTIME - 1000,
                "the last packet was that old"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut sim = Sim::new(5, 4711, timers());
        sim.lose_everywhere(300);
        let leader = sim.settle_in();
        sim.crash(other(&sim, &[leader]));
        sim.run(MINUTE);
        (sim.sent, sim.log)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_pause_of_any_node_accuses_nobody_else() {
    for who in 0..5 {
        for span in [300, 2000, 20_000, 60 * MINUTE] {
            let (mut sim, _) = quiet(5, 11 + who as u64);
            sim.pause(who, span);
            // The sleeper itself may rightly be found dead; what matters is its awakening.
            sim.run(span - 100);
            sim.log.clear();
            sim.run(5000);
            let late = |e: &Event| matches!(e, Event::Late { by, .. } if *by == who);
            assert!(!sim.log.iter().any(|(_, e)| late(e)), "{who} for {span}");
            sim.run(2 * MINUTE);
            assert!(!sim.anybody_suspected(), "{who} for {span}: {:?}", sim.log);
            let noticed = sim.log.iter().any(|(_, e)| *e == Event::Paused { who });
            assert_eq!(noticed, span > 600, "{who} for {span}");
        }
    }
}

#[test]
fn a_whole_cluster_that_was_stopped_accuses_nobody() {
    let (mut sim, _) = quiet(5, 12);
    (0..5).for_each(|i| sim.pause(i, 60 * MINUTE));
    sim.run(62 * MINUTE);
    assert!(!sim.anybody_suspected());
    assert!((0..5).all(|i| !sim.nodes[i].fenced));
}

#[test]
fn clocks_that_differ_by_days_make_no_difference() {
    let excluded = |shift: Millis| {
        let mut sim = Sim::new(5, 13, timers());
        (0..5).for_each(|i| {
            sim.nodes[i].offset = 1 + shift * i as Millis;
            sim.start(i);
        });
        let leader = sim.settle_in();
        sim.crash(other(&sim, &[leader]));
        sim.run(MINUTE);
        sim.excluded()
    };
    assert_eq!(excluded(0), excluded(86_400_000));
    assert_eq!(excluded(0).len(), 1);
}

#[test]
fn one_witness_that_hears_blocks_and_its_silence_unblocks() {
    let (mut sim, leader) = quiet(5, 14);
    let target = other(&sim, &[leader]);
    let witness = other(&sim, &[leader, target]);
    for i in (0..5).filter(|&i| i != witness && i != target) {
        sim.cut_both(i, target, true);
    }
    sim.run(5 * MINUTE);
    assert!(sim.excluded().is_empty(), "{:?}", sim.excluded());
    let seen = sim.node(leader, target);
    assert_eq!((seen.state, seen.heard_by), (NodeState::Late, 1));
    assert_eq!(seen.witnesses, 4);
    sim.cut_both(witness, target, true);
    sim.run_until(DEADTIME + 2000, |sim| !sim.excluded().is_empty());
}

#[test]
fn a_leader_that_goes_deaf_accuses_nobody() {
    let (mut sim, leader) = quiet(5, 15);
    (0..5).for_each(|i| sim.cut(i, leader, true));
    sim.run(20_000);
    (0..5).for_each(|i| sim.cut(i, leader, false));
    sim.run(5 * MINUTE);
    assert!(sim.excluded().is_empty());
    (0..5)
        .filter(|&i| i != leader)
        .for_each(|i| assert!(!sim.suspected(i), "{i}"));
}

#[test]
fn a_half_deaf_leader_doubts_itself_and_a_broken_link_makes_nobody_doubt() {
    for n in [3, 5] {
        let (mut sim, leader) = quiet(n, 15 + n as u64);
        let lost = other(&sim, &[leader]);
        sim.cut_both(leader, lost, true);
        sim.run(15 * MINUTE);
        assert!(sim.nodes.iter().all(|node| node.detector.health() == 0));
        assert!(sim.excluded().is_empty());
    }
    let (mut sim, leader) = quiet(7, 16);
    let lost = other(&sim, &[leader]);
    sim.cut_both(leader, lost, true);
    sim.run(MINUTE);
    assert!((0..7).all(|i| sim.nodes[i].detector.health() == 0));
    let (two, three) = (
        other(&sim, &[leader, lost]),
        other(&sim, &[leader, lost, 0, 1, 2]),
    );
    sim.cut_both(leader, two, true);
    sim.cut_both(leader, three, true);
    sim.run(MINUTE);
    assert_eq!(sim.nodes[leader].detector.health(), 8);
    assert!(sim.excluded().is_empty());
}

#[test]
fn what_only_the_dead_leader_heard_blocks_until_it_is_old() {
    let (mut sim, leader) = quiet(5, 17);
    let target = other(&sim, &[leader]);
    for i in (0..5).filter(|&i| i != leader) {
        sim.cut_both(i, target, true);
    }
    sim.run(MINUTE);
    assert!(!sim.nodes[target].fenced, "the leader confirms it");
    sim.crash(leader);
    sim.crash(target);
    let died = sim.now;
    // Four of five were silent for the target long ago; only the dead leader's row is not.
    sim.run(DEADTIME - 2000);
    assert!(sim.excluded().is_empty());
    assert!(sim.leader().is_some());
    sim.run_until(10_000, |sim| !sim.excluded().is_empty());
    assert!(sim.excluded()[0].0 >= died + DEADTIME - 1000);
}

#[test]
fn a_new_leader_that_got_no_reports_of_the_old_one_waits_for_time_to_tell() {
    let first = seed(400);
    for run in first..first + 20 {
        let (mut sim, leader) = quiet(5, run);
        let target = other(&sim, &[leader]);
        let go_between = other(&sim, &[leader, target]);
        for i in (0..5).filter(|&i| i != leader) {
            sim.cut_both(i, target, true);
            sim.cut(leader, i, i != go_between && i != target);
        }
        sim.run(MINUTE);
        assert!(!sim.nodes[target].fenced, "the leader confirms it");
        sim.crash(leader);
        let died = sim.now;
        sim.run_until(2 * DEADTIME, |sim| !sim.excluded().is_empty());
        assert!(sim.excluded()[0].0 >= died + DEADTIME - 1000, "run {run}");
    }
}

#[test]
fn two_deaths_a_second_apart_are_one_cut() {
    let (mut sim, leader) = quiet(5, 18);
    let (a, b) = (other(&sim, &[leader]), other(&sim, &[leader, 0, 1]));
    sim.crash(a);
    sim.run(1000);
    sim.crash(b);
    sim.run(DEADTIME + 2000);
    let cuts: Vec<_> = sim.excluded().into_iter().map(|(_, ids)| ids).collect();
    let mut both = vec![id(a), id(b)];
    both.sort_unstable();
    assert_eq!(cuts, [both]);
}

#[test]
fn a_restarted_witness_that_is_needed_demands_initdead() {
    let (mut sim, leader) = quiet(3, 19);
    let target = other(&sim, &[leader]);
    let witness = other(&sim, &[leader, target]);
    sim.crash(target);
    sim.crash(witness);
    sim.run(1000);
    sim.start(witness);
    let restarted = sim.now;
    sim.run(MINUTE);
    let leader = sim.leader().expect("two of three lead");
    assert!(sim.excluded().is_empty());
    assert_eq!(sim.node(leader, target).blocked_by, BlockedBy::InitDead);
    assert!(sim.nodes[leader].detector.notice().contains("INITDEAD"));
    sim.run_until(2 * MINUTE, |sim| !sim.excluded().is_empty());
    assert!(sim.excluded()[0].0 >= restarted + timers().initdead);
}

#[test]
fn a_minority_leader_excludes_nobody_and_stops_before_the_majority_acts() {
    let (mut sim, leader) = quiet(5, 20);
    let friend = other(&sim, &[leader]);
    let minority = [leader, friend];
    for &i in &minority {
        (0..5)
            .filter(|j| !minority.contains(j))
            .for_each(|j| sim.cut_both(i, j, true));
    }
    sim.log.clear();
    sim.run(5 * MINUTE);
    let cuts = sim.excluded();
    assert_eq!(cuts.len(), 1, "{cuts:?}");
    assert_eq!(cuts[0].1.len(), 2);
    for who in minority {
        let fenced = sim.fenced_at(who).expect("a minority stops serving");
        assert!(
            fenced < cuts[0].0,
            "fenced {fenced}, excluded {}",
            cuts[0].0
        );
    }
    assert!(
        (0..5)
            .filter(|i| !minority.contains(i))
            .all(|i| !sim.nodes[i].fenced)
    );
    let told_apart = sim.node(leader, other(&sim, &minority));
    assert_ne!(
        told_apart.blocked_by,
        BlockedBy::None,
        "it says what stops it"
    );
}

#[test]
fn the_excluded_are_told_and_seen_to_return_and_can_be_taken_back() {
    let (mut sim, leader) = quiet(5, 21);
    let target = other(&sim, &[leader]);
    (0..5).for_each(|i| sim.cut_both(i, target, true));
    sim.run_until(DEADTIME + 2000, |sim| !sim.excluded().is_empty());
    sim.run(2000);
    assert_eq!(sim.node(leader, target).state, NodeState::Excluded);
    (0..5).for_each(|i| sim.cut_both(i, target, false));
    sim.log.clear();
    sim.run(10_500);
    assert_eq!(sim.node(leader, target).state, NodeState::Returned);
    assert!(sim.nodes[target].fenced);
    let told = Event::Told {
        by: leader,
        who: id(target),
    };
    let told = sim.log.iter().filter(|(_, e)| *e == told).count();
    assert!(
        (5..=11).contains(&told),
        "told {told} times in ten keepalives"
    );
    sim.readmit(target);
    sim.run(5000);
    assert_eq!(sim.node(leader, target).state, NodeState::Alive);
    assert!(!sim.nodes[target].fenced);
}

#[test]
fn the_floor_and_the_host_hold_and_every_node_says_so() {
    let mut strict = timers();
    strict.min_nodes = 5;
    let mut sim = Sim::new(5, seed(22), strict);
    let leader = sim.settle_in();
    let victim = other(&sim, &[leader]);
    sim.crash(victim);
    sim.run(DEADTIME + 10_000);
    let name = id(victim);
    for i in (0..5).filter(|&i| i != victim) {
        assert_eq!(sim.node(i, victim).blocked_by, BlockedBy::MinNodes, "{i}");
        let notice = sim.nodes[i].detector.notice().to_owned();
        assert!(
            notice.starts_with(&format!("{name} silent for ")),
            "{notice}"
        );
        assert!(
            notice.ends_with("MIN_NODES: 4 would remain, floor is 5"),
            "{notice}"
        );
    }
    sim.answer = GuardAnswer::Deny("replicas".into());
    let looser = timers();
    (0..5).for_each(|i| sim.nodes[i].detector.set_timers(looser));
    sim.run(20_000);
    assert_eq!(sim.node(leader, victim).blocked_by, BlockedBy::Veto);
    assert!(sim.nodes[leader].detector.notice().ends_with("replicas"));
    assert!(sim.excluded().is_empty());
    sim.answer = GuardAnswer::Allow;
    sim.run_until(6000, |sim| !sim.excluded().is_empty());
}

#[test]
fn without_deadtime_everything_is_seen_and_nothing_done() {
    let mut off = timers();
    (off.deadtime, off.fencetime) = (0, 0);
    let mut sim = Sim::new(3, seed(23), off);
    let leader = sim.settle_in();
    let victim = other(&sim, &[leader]);
    sim.crash(victim);
    sim.run(10 * MINUTE);
    let seen = sim.node(leader, victim);
    assert_eq!(
        (seen.state, seen.blocked_by),
        (NodeState::Late, BlockedBy::Disabled)
    );
    assert!(sim.excluded().is_empty());
    let sole = other(&sim, &[leader, victim]);
    sim.crash(sole);
    sim.run(10 * MINUTE);
    assert!(!sim.nodes[leader].fenced, "silence fences nobody");
}

#[test]
fn packets_of_the_past_keep_nobody_alive() {
    let (mut sim, leader) = quiet(3, 24);
    let victim = other(&sim, &[leader]);
    sim.recording = Some(Vec::new());
    sim.run(5000);
    sim.crash(victim);
    sim.run(100);
    let recorded = sim.recording.take().unwrap_or_default();
    let theirs = recorded
        .into_iter()
        .filter(|p| p.envelope.from == id(victim));
    let theirs: Vec<_> = theirs.collect();
    assert!(theirs.len() > 10);
    let died = sim.now;
    while sim.excluded().is_empty() {
        assert!(sim.now < died + DEADTIME + 2000, "replays kept it alive");
        sim.run(1000);
        for packet in &theirs {
            let local = sim.now + sim.nodes[packet.to].offset;
            let keepalive = packet.keepalive.clone();
            let receiver = &mut sim.nodes[packet.to].detector;
            receiver.advance(local);
            receiver.heard(local, &packet.envelope);
            if let Some(k) = keepalive {
                receiver.keepalive(local, &packet.envelope, k);
            }
        }
    }
}

#[test]
fn an_isolated_node_is_late_to_know_but_never_late_to_stop() {
    for n in [3, 5, 7] {
        for loss in [0, 300] {
            let mut sim = Sim::new(n, seed(n as u64 + 25 + u64::from(loss)), timers());
            sim.lose_everywhere(loss);
            let leader = sim.settle_in();
            let target = other(&sim, &[leader]);
            let began = sim.now;
            (0..n).for_each(|i| sim.cut_both(i, target, true));
            sim.run_until(DEADTIME + 3000, |sim| !sim.excluded().is_empty());
            let fenced = sim.fenced_at(target).expect("it stops serving");
            assert!(fenced > began && fenced < sim.excluded()[0].0);
        }
    }
}

/// A deadtime so short that fencetime, which takes an election into account, is at its least.
fn tight() -> Timers {
    Timers {
        warntime: 1500,
        deadtime: 3000,
        initdead: 3000,
        settle: 2000,
        fencetime: 1500,
        ..timers()
    }
}

/// A node that only the leader hears, on links that break around both: the leader confirms it to
/// the end of its freshness, and so long as that is, deadtime is short. Says when the node stopped
/// serving, and when it was put out.
fn race(run: u64, words: bool, hasty: bool) -> (Millis, Millis) {
    let mut sim = Sim::new(5, run, tight());
    let leader = sim.settle_in();
    let target = other(&sim, &[leader]);
    let rest: Vec<usize> = (0..5).filter(|i| ![leader, target].contains(i)).collect();
    rest.iter().for_each(|&i| sim.cut_both(i, target, true));
    sim.run(10_000);
    assert!(!sim.nodes[target].fenced, "the leader confirms it");
    sim.hasty = hasty;
    rest.iter().for_each(|&i| sim.cut_both(i, leader, true));
    if words {
        rest.iter().for_each(|&i| sim.lose_leader(i));
    }
    sim.unsafely = true;
    sim.run_until(MINUTE, |sim| !sim.excluded().is_empty());
    let put_out = sim.excluded()[0].0;
    sim.run_until(MINUTE, |sim| sim.nodes[target].fenced);
    (sim.fenced_at(target).expect("it stops"), put_out)
}

#[test]
fn words_of_a_lost_leader_let_nobody_be_put_out_who_still_serves() {
    let first = seed(700);
    let mut violated = 0;
    for run in first..first + 20 {
        for words in [false, true] {
            let (stopped, put_out) = race(run, words, false);
            assert!(stopped <= put_out, "run {run}: {stopped}, {put_out}");
        }
        let (stopped, put_out) = race(run, true, true);
        violated += u32::from(stopped > put_out);
    }
    assert!(violated > 0, "early votes must make a difference here");
}

/// One random event in the life of a cluster.
fn churn(sim: &mut Sim, dice: &mut Rng) {
    let n = sim.nodes.len();
    let mut pick = || dice.below(n as u64) as usize;
    let (a, b) = (pick(), pick());
    match dice.below(10) {
        8 => sim.lose_leader(a),
        9 => (0..n).for_each(|i| sim.lose_leader(i)),
        0 | 1 => sim.cut(a, b, true),
        2 => sim.cut_both(a, b, true),
        3 => (0..n).for_each(|i| sim.cut_both(a, i, true)),
        4 => (0..n).for_each(|i| sim.cut_both(a, i, false)),
        5 => sim.lose_everywhere([0, 100, 300, 500][dice.below(4) as usize]),
        6 if sim.nodes[a].running => sim.crash(a),
        _ if !sim.nodes[a].running => sim.start(a),
        _ => sim.cut_both(a, b, false),
    }
}

/// The simulator itself checks every proposal: a majority's true silence, a confirmed leader,
/// and that whoever is put out has stopped serving before (I1).
#[test]
fn no_mix_of_crashes_restarts_and_broken_links_breaks_the_rules() {
    let first = seed(1);
    let replay = std::env::var("RAFTKEEL_SEED").is_ok();
    let mut cuts = 0;
    for run in first..first + if replay { 1 } else { 60 } {
        println!("RAFTKEEL_SEED={run}");
        let mut dice = Rng::new(run + 9_000_000);
        let n = [3, 5, 7][dice.below(3) as usize];
        let tight = [timers, timers, tight][run as usize % 3]();
        let mut sim = Sim::new(n, run, tight);
        sim.delay_max = 1 + dice.below(300);
        sim.run(30_000);
        for _ in 0..40 {
            churn(&mut sim, &mut dice);
            let wait = 1000 + dice.below(25_000);
            sim.run(wait);
        }
        cuts += sim.excluded().len();
    }
    assert!(
        replay || cuts > 10,
        "only {cuts} exclusions put to the test"
    );
}
