//! Histories as long as those of real runs, made right by construction, and the same with one
//! reply made wrong. Only appends of numbers that are used once: then it is certain that the
//! changed reply is wrong.

use raftkeel::core::Random;

use crate::linear::{Call, Operation, Reply, Value, Verdict, check};
use crate::{number, seeds};

const HISTORIES: u64 = 1_000;
const BUDGET: u64 = 1_000_000;
const CLIENTS: usize = 4;
const OPERATIONS: u64 = 60;

/// What clients of an atomic list saw. Each operation takes effect at an instant between its ends;
/// one whose end is unknown takes effect then, or never.
fn right_history(random: &mut Random) -> Vec<Operation> {
    let mut value = Value::new();
    let mut free_at = [0u64; CLIENTS];
    let mut history = Vec::new();
    // Effects happen in the order of this loop; what surrounds them overlaps.
    for step in 0..OPERATIONS {
        let effect = (step + 1) * 10;
        let ready: Vec<usize> = (0..CLIENTS).filter(|c| free_at[*c] < effect).collect();
        if ready.is_empty() {
            continue;
        }
        let client = ready[random.between(0, ready.len() as u64) as usize];
        let invoked = random.between(free_at[client].max(effect.saturating_sub(40)), effect) + 1;
        let returned = effect + random.between(0, 40);
        free_at[client] = returned;
        let call = match random.between(0, 2) {
            0 => Call::Read,
            _ => Call::Append(step),
        };
        let known = random.between(0, 10) > 0;
        let (after, reply) = call.apply(&value);
        if known || random.between(0, 2) == 0 {
            value = after;
        }
        history.push(Operation {
            key: 0,
            call,
            invoked,
            outcome: known.then_some((returned, reply)),
        });
    }
    let end = OPERATIONS * 20;
    history.push(Operation {
        key: 0,
        call: Call::Read,
        invoked: end,
        outcome: Some((end + 1, Reply::Found(value))),
    });
    history
}

/// What can be made wrong about what a read found.
const MUTATIONS: [fn(&mut Value, &mut Random); 4] = [
    // A lost update, or a stale read: the last number is missing.
    |found, _| {
        found.pop();
    },
    // Applied twice.
    |found, random| {
        let place = random.between(0, found.len() as u64) as usize;
        found.push(found[place]);
    },
    // In another order than others saw.
    |found, random| {
        let place = random.between(1, found.len() as u64) as usize;
        found.swap(place - 1, place);
    },
    // Never appended.
    |found, random| {
        let place = random.between(0, found.len() as u64) as usize;
        found[place] += 1_000;
    },
];

/// The same history with what the last read found made wrong, or what an earlier one found when
/// another saw the same before it.
fn make_wrong(history: &mut [Operation], kind: usize, random: &mut Random) -> bool {
    let witness = |history: &[Operation], i: usize, found: &Value| {
        history.iter().any(|other| {
            let same = matches!(&other.outcome, Some((_, Reply::Found(f))) if f == found);
            same && other.precedes(&history[i])
        })
    };
    let choices: Vec<usize> = (0..history.len())
        .filter(|i| match &history[*i].outcome {
            Some((_, Reply::Found(found))) => found.len() > 1 && witness(history, *i, found),
            _ => false,
        })
        .collect();
    if choices.is_empty() {
        return false;
    }
    let i = choices[random.between(0, choices.len() as u64) as usize];
    if let Some((_, Reply::Found(found))) = &mut history[i].outcome {
        MUTATIONS[kind](found, random);
    }
    true
}

#[test]
fn one_wrong_reply_in_a_long_history_is_found() {
    let count = number("RAFTKEEL_SEEDS").unwrap_or(HISTORIES);
    let mut made = [0; MUTATIONS.len()];
    for seed in seeds(count) {
        let mut random = Random::new(seed);
        let mut history = right_history(&mut random);
        assert_eq!(
            Verdict::Linearizable,
            check(&history, BUDGET),
            "RAFTKEEL_SEED={seed}: right by construction"
        );
        let kind = seed as usize % MUTATIONS.len();
        if make_wrong(&mut history, kind, &mut random) {
            made[kind] += 1;
            assert_eq!(
                Verdict::Violation { key: 0 },
                check(&history, BUDGET),
                "RAFTKEEL_SEED={seed}: mutation {kind}"
            );
        }
    }
    println!("{count} right histories, wrong ones of each kind: {made:?}");
    if number("RAFTKEEL_SEED").is_none() {
        let few = count / 20;
        assert!(made.iter().all(|m| *m > few), "hardly any made: {made:?}");
    }
}
