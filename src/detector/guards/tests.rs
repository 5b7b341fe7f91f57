use super::super::testing::{config, ids, timers};
use super::*;
use crate::core::Configuration;

struct Case {
    members: Members,
    timers: Timers,
    cut: Vec<NodeId>,
    dead: Vec<NodeId>,
    view: LeaderView,
    now: Millis,
    score: u8,
    recovering: bool,
    unaccounted: Option<NodeId>,
}

impl Case {
    /// Five voters, n5 dead, led by this node for ten minutes.
    fn new() -> Case {
        Case {
            members: Members::new(&config(&[1, 2, 3, 4, 5]), &[], 5),
            timers: timers(),
            cut: ids(&[5]),
            dead: ids(&[5]),
            view: LeaderView {
                leading: true,
                fresh: true,
                since: 0,
                change_in_flight: false,
            },
            now: 600_000,
            score: 0,
            recovering: false,
            unaccounted: None,
        }
    }

    fn held(&self) -> Option<Held> {
        Situation {
            members: &self.members,
            timers: &self.timers,
            cut: &self.cut,
            view: self.view,
            now: self.now,
            score: self.score,
            healthy: self.score <= 3,
            recovering: self.recovering,
            unaccounted: self.unaccounted,
            alive: &|id| !self.dead.contains(&id),
        }
        .held()
    }

    fn by(&self) -> BlockedBy {
        self.held().map_or(BlockedBy::None, |held| held.by)
    }
}

#[test]
fn a_sound_cut_passes() {
    assert_eq!(Case::new().held(), None);
}

#[test]
fn the_first_guard_in_order_is_the_one_shown() {
    let mut case = Case::new();
    case.timers.min_nodes = 5;
    assert_eq!(case.by(), BlockedBy::MinNodes);
    case.dead = ids(&[3, 4, 5]);
    assert_eq!(case.by(), BlockedBy::NoQuorumAfter);
    case.score = 4;
    assert_eq!(case.by(), BlockedBy::ListenerUnhealthy);
    case.view.fresh = false;
    assert_eq!(case.by(), BlockedBy::NotLeaderFresh);
    case.timers.deadtime = 0;
    assert_eq!(case.by(), BlockedBy::Disabled);
}

#[test]
fn a_new_leader_waits_for_its_grace() {
    let mut case = Case::new();
    case.now = 1999;
    assert_eq!(case.by(), BlockedBy::NotLeaderFresh);
    case.now = 2000;
    assert_eq!(case.by(), BlockedBy::None);
    case.timers.election = 9000;
    assert_eq!(case.by(), BlockedBy::NotLeaderFresh);
}

#[test]
fn missing_reports_hold_a_leader_younger_than_deadtime() {
    let mut case = Case::new();
    case.unaccounted = NodeId::new(2);
    case.now = 29_999;
    assert_eq!(case.by(), BlockedBy::NotLeaderFresh);
    case.now = 30_000;
    assert_eq!(case.by(), BlockedBy::None);
}

#[test]
fn a_pause_holds_until_it_is_overcome() {
    let mut case = Case::new();
    case.recovering = true;
    assert_eq!(case.by(), BlockedBy::ListenerUnhealthy);
}

#[test]
fn the_living_must_be_a_majority_of_the_present_voters_in_both_halves() {
    let mut case = Case::new();
    case.dead = ids(&[4, 5]);
    assert_eq!(case.by(), BlockedBy::None);
    case.cut = ids(&[4, 5]);
    assert_eq!(case.by(), BlockedBy::None);
    case.dead = ids(&[3, 4, 5]);
    assert_eq!(case.by(), BlockedBy::NoQuorumAfter);
    let joint = Configuration {
        voters: ids(&[1, 2, 3]),
        outgoing: ids(&[3, 4, 5]),
        ..Configuration::default()
    };
    case.members = Members::new(&joint, &[], 5);
    case.cut = ids(&[5]);
    case.dead = ids(&[4, 5]);
    assert_eq!(case.by(), BlockedBy::NoQuorumAfter);
}

#[test]
fn the_floor_counts_what_was_provisioned_and_is_never_under_two() {
    let mut case = Case::new();
    case.members = Members::new(&config(&[1, 2, 5]), &ids(&[3, 4]), 5);
    let held = case.held();
    let why = held.map(|held| held.why);
    assert_eq!(why.as_deref(), Some("2 would remain, floor is 3"));
    case.timers.min_nodes = 2;
    assert_eq!(case.by(), BlockedBy::None);
    case.members = Members::new(&config(&[1, 5]), &ids(&[2, 3, 4]), 5);
    case.timers.min_nodes = 1;
    case.dead = vec![];
    assert_eq!(case.by(), BlockedBy::NoQuorumAfter);
    assert_eq!(floor(&case.timers, 1), 2);
}

#[test]
fn a_dead_learner_does_not_touch_the_floor() {
    let mut case = Case::new();
    let mut with_learner = config(&[1, 2]);
    with_learner.learners = ids(&[5]);
    case.members = Members::new(&with_learner, &ids(&[3, 4]), 5);
    assert_eq!(case.by(), BlockedBy::None);
}

fn answered(answer: GuardAnswer) -> Consent {
    let mut consent = Consent::default();
    assert_eq!(consent.step(&ids(&[5]), 1000), Step::Ask);
    consent.answer(&ids(&[5]), answer, 1000, 1000);
    consent
}

fn is_held(step: &Step) -> bool {
    matches!(step, Step::Hold(held) if held.by == BlockedBy::Veto)
}

#[test]
fn the_host_is_asked_once_and_waited_for() {
    let mut consent = Consent::default();
    assert_eq!(consent.step(&ids(&[5]), 0), Step::Ask);
    assert!(is_held(&consent.step(&ids(&[5]), 900_000)));
}

#[test]
fn a_yes_is_good_for_a_keepalive() {
    let mut consent = answered(GuardAnswer::Allow);
    assert_eq!(consent.step(&ids(&[5]), 2000), Step::Propose);
    assert_eq!(consent.step(&ids(&[5]), 2001), Step::Ask);
}

#[test]
fn a_no_is_asked_again_after_five_seconds_and_a_later_when_it_says() {
    let mut no = answered(GuardAnswer::Deny("rebuild is running".into()));
    let step = no.step(&ids(&[5]), 5999);
    assert!(is_held(&step), "{step:?}");
    assert!(format!("{step:?}").contains("rebuild is running"));
    assert_eq!(no.step(&ids(&[5]), 6000), Step::Ask);
    let mut later = answered(GuardAnswer::Later(300, "soon".into()));
    assert!(is_held(&later.step(&ids(&[5]), 1299)));
    assert_eq!(later.step(&ids(&[5]), 1300), Step::Ask);
}

#[test]
fn another_cut_is_another_question_and_a_stale_answer_none() {
    let mut consent = answered(GuardAnswer::Allow);
    assert_eq!(consent.step(&ids(&[4, 5]), 1001), Step::Ask);
    consent.answer(&ids(&[5]), GuardAnswer::Allow, 1001, 1000);
    assert!(is_held(&consent.step(&ids(&[4, 5]), 1001)));
    consent.forget();
    assert_eq!(consent.step(&ids(&[4, 5]), 1001), Step::Ask);
}
