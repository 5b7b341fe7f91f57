//! Which settings are accepted, and what unset ones mean.

use super::*;

/// The presets and defaults of detection.md 4.2 are written `keepalive/warntime/deadtime/initdead`.
fn params(times: [u32; 4]) -> Params {
    Params {
        hb_keepalive: times[0],
        hb_warntime: times[1],
        hb_deadtime: times[2],
        hb_initdead: times[3],
        ..Params::default()
    }
}

const HOUR: u32 = 3_600_000;
const WEEK: u32 = 7 * 24 * HOUR;

#[test]
fn good_settings_are_accepted() {
    for times in [
        [0, 0, 0, 0],
        [1_000, 15_000, 30_000, 30_000],
        [20_000, 120_000, 0, 120_000],
        [10, 0, 21, 0],
        [10, 20, 21, 21],
        [HOUR, HOUR, WEEK, WEEK],
        [0, 0, 2_001, 0],
    ] {
        assert_eq!(params(times).validate(), Ok(()), "{times:?}");
    }
}

#[test]
fn bad_settings_are_refused_by_name_value_and_rule() {
    let refused = |params: Params, text: &str| {
        let error = params.validate().expect_err(text).to_string();
        assert!(error.contains(text), "{error}");
    };
    refused(params([9, 0, 0, 0]), "hb_keepalive 9 ms must be 10 ms to");
    refused(params([HOUR + 1, 0, 0, 0]), "hb_keepalive 3600001 ms");
    refused(
        params([100, 0, 200, 0]),
        "hb_deadtime 200 ms must be 0 or more than twice",
    );
    refused(params([0, 0, 2_000, 0]), "hb_keepalive (1000 ms)");
    refused(
        params([100, 99, 0, 0]),
        "hb_warntime 99 ms must be at least",
    );
    refused(
        params([100, 1_000, 1_000, 0]),
        "hb_warntime 1000 ms must be less",
    );
    refused(
        params([100, 0, 1_000, 999]),
        "hb_initdead 999 ms must be at least",
    );
    refused(
        params([0, WEEK + 1, 0, 0]),
        "hb_warntime 604800001 ms must be at most 7 days",
    );
    refused(
        params([0, 0, WEEK + 1, 0]),
        "hb_deadtime 604800001 ms must be at most 7 days",
    );
    refused(
        params([0, 0, 0, u32::MAX]),
        "hb_initdead 4294967295 ms must be at most 7 days",
    );
    let settle = WEEK + 1;
    refused(
        Params {
            settle,
            ..Params::default()
        },
        "settle 604800001 ms",
    );
    let min_nodes = 65;
    refused(
        Params {
            min_nodes,
            ..Params::default()
        },
        "min_nodes 65 must be at most 64",
    );
}

#[test]
fn unset_times_are_derived() {
    let derived = |times: [u32; 4]| {
        let p = params(times);
        [
            p.keepalive_ms(),
            p.warntime_ms(),
            p.deadtime_ms(),
            p.initdead_ms(),
            p.settle_ms(),
        ]
    };
    assert_eq!(derived([0, 0, 0, 0]), [1_000, 10_000, 0, 120_000, 2_000]);
    assert_eq!(
        derived([0, 0, 30_000, 0]),
        [1_000, 15_000, 30_000, 120_000, 3_000]
    );
    assert_eq!(
        derived([0, 0, 600_000, 0]),
        [1_000, 300_000, 600_000, 600_000, 10_000]
    );
    assert_eq!(derived([100, 150, 400, 500]), [100, 150, 400, 500, 200]);
    // The least deadtime there can be: warntime does not fall below keepalive.
    assert_eq!(derived([10, 0, 21, 0])[1], 10);
    // Two keepalives above the upper bound of settle.
    assert_eq!(derived([6_000, 0, 60_000, 0])[4], 12_000);
    let set = Params {
        settle: 7,
        ..Params::default()
    };
    assert_eq!(set.settle_ms(), 7);
}

#[test]
fn what_is_derived_keeps_the_rules_of_what_is_set() {
    for keepalive in [0, 10, 1_000, HOUR] {
        for factor in [3, 4, 10, 168] {
            let resolved = params([keepalive, 0, 0, 0]).keepalive_ms() as u32;
            let p = params([keepalive, 0, resolved * factor, 0]);
            assert_eq!(p.validate(), Ok(()));
            let set = params([
                resolved,
                p.warntime_ms() as u32,
                p.hb_deadtime,
                p.initdead_ms() as u32,
            ]);
            assert_eq!(set.validate(), Ok(()), "{keepalive} x {factor}");
        }
    }
}

#[test]
fn the_floor_is_a_majority_and_never_under_two() {
    let p = Params::default();
    let floors: Vec<usize> = (1..=7).map(|nodes| p.floor(nodes)).collect();
    assert_eq!(floors, [2, 2, 2, 3, 3, 4, 4]);
    for (min_nodes, floor) in [(1, 2), (2, 2), (5, 5)] {
        let p = Params {
            min_nodes,
            ..Params::default()
        };
        assert_eq!(p.floor(7), floor);
    }
}

#[test]
fn fencetime_is_before_deadtime_and_at_least_its_half() {
    let fencetime =
        |keepalive, deadtime, election| params([keepalive, 0, deadtime, 0]).fencetime_ms(election);
    assert_eq!(fencetime(1_000, 30_000, 2_000), 26_000);
    assert_eq!(fencetime(1_000, 6_000, 2_000), 3_000);
    assert_eq!(fencetime(100, 400, u64::MAX), 200);
    assert_eq!(fencetime(1_000, 0, 2_000), 0);
}

#[test]
fn warnings_name_what_may_be_regretted() {
    assert!(params([0, 0, 0, 0]).warnings().is_empty());
    assert!(params([1_000, 0, 10_000, 10_000]).warnings().is_empty());
    let warned = params([1_000, 0, 9_999, 9_999]).warnings();
    assert_eq!(warned.len(), 2);
    assert!(warned[0].contains("hb_deadtime 9999 ms"), "{}", warned[0]);
    assert!(warned[1].contains("hb_initdead 9999 ms"), "{}", warned[1]);
}

#[test]
fn settings_change_by_version() {
    let mut state = bootstrapped(3);
    let set = |expect_version, hb_deadtime| Command::SetParams {
        expect_version,
        params: params([0, 0, hb_deadtime, 0]),
    };
    assert_eq!(run(&mut state, &set(1, 30_000)), Ok(vec![Fact::Params]));
    let now = (state.params().version, state.params().hb_deadtime);
    assert_eq!(now, (2, 30_000));
    assert!(matches!(
        refusal(&state, &set(1, 60_000)),
        Refusal::Conflict(_)
    ));
    assert!(matches!(refusal(&state, &set(2, 1)), Refusal::Invalid(_)));
    assert_eq!(run(&mut state, &set(0, 60_000)), Ok(vec![Fact::Params]));
    assert_eq!(state.params().version, 3);
    assert_eq!(state.epoch(), 1);
}

#[test]
fn of_two_settings_for_one_version_the_first_wins() {
    let mut state = bootstrapped(3);
    let set = |hb_deadtime| {
        let command = Command::SetParams {
            expect_version: 1,
            params: params([0, 0, hb_deadtime, 0]),
        };
        Payload::Cluster(command.encode().into())
    };
    let entry = next_entry(&state, set(30_000));
    assert_eq!(state.apply(&entry), Ok(vec![Fact::Params]));
    let entry = next_entry(&state, set(60_000));
    let facts = state.apply(&entry);
    assert!(
        matches!(
            facts.as_deref(),
            Ok([Fact::ParamsRefused(Refusal::Conflict(_))])
        ),
        "{facts:?}"
    );
    assert_eq!(state.params().hb_deadtime, 30_000);
    assert_eq!(state.applied(), 3);
}

#[test]
fn settings_can_change_while_members_do() {
    let mut state = bootstrapped(3);
    let command = exclude(&state, &[3]);
    let Ok(Change::Config(target)) = state.check(&state.configuration(), &command) else {
        panic!("2 of 3 remain");
    };
    // Automatic exclusion must be possible to switch off in the middle of an incident.
    let off = Command::SetParams {
        expect_version: 0,
        params: Params::default(),
    };
    assert_eq!(state.check(&target, &off), Ok(Change::Plain));
    let entry = next_entry(
        &state,
        Payload::Config(target.into(), command.encode().into()),
    );
    state.apply(&entry).expect("it was checked");
    let entry = next_entry(&state, Payload::Cluster(off.encode().into()));
    assert_eq!(state.apply(&entry), Ok(vec![Fact::Params]));
}
