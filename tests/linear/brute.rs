//! The checker against brute force: every order of every small history is tried, without any of
//! the checker's cleverness, and the answers must be the same.

use raftkeel::core::Random;

use crate::linear::{Call, Operation, Reply, Value, Verdict, check};
use crate::{number, seeds};

const HISTORIES: u64 = 120_000;

/// Whether any order of all operations with an outcome, and of any choice of the others, respects
/// real time and explains every reply.
fn is_linearizable(history: &[Operation]) -> bool {
    let unknown: Vec<usize> = (0..history.len())
        .filter(|i| history[*i].outcome.is_none())
        .collect();
    (0..1u32 << unknown.len()).any(|choice| {
        let left_out = |i: &usize| {
            let place = unknown.iter().position(|u| u == i);
            place.is_some_and(|place| choice >> place & 1 == 0)
        };
        let mut chosen: Vec<usize> = (0..history.len()).filter(|i| !left_out(i)).collect();
        any_order(&mut chosen, 0, &|order| explains(history, order))
    })
}

/// Whether any permutation of `items`, of which the first `fixed` stand, is good.
fn any_order(items: &mut [usize], fixed: usize, good: &impl Fn(&[usize]) -> bool) -> bool {
    if fixed == items.len() {
        return good(items);
    }
    (fixed..items.len()).any(|i| {
        items.swap(fixed, i);
        let found = any_order(items, fixed + 1, good);
        items.swap(fixed, i);
        found
    })
}

fn explains(history: &[Operation], order: &[usize]) -> bool {
    let in_time = order.iter().enumerate().all(|(place, i)| {
        let later = &order[place + 1..];
        later.iter().all(|j| !history[*j].precedes(&history[*i]))
    });
    let mut value = Value::new();
    in_time
        && order.iter().all(|i| {
            let (after, reply) = history[*i].call.apply(&value);
            value = after;
            let told = history[*i].outcome.as_ref().map(|(_, told)| told);
            told.is_none_or(|told| *told == reply)
        })
}

fn draw_value(random: &mut Random) -> Value {
    let length = random.between(0, 3);
    (0..length).map(|_| random.between(1, 3)).collect()
}

fn draw_operation(random: &mut Random) -> Operation {
    let call = match random.between(0, 6) {
        0 => Call::Write(draw_value(random)),
        1 => Call::Append(random.between(1, 3)),
        2 => Call::CompareAndSet {
            expected: draw_value(random),
            new: draw_value(random),
        },
        _ => Call::Read,
    };
    let reply = match call {
        Call::Read => Reply::Found(draw_value(random)),
        Call::CompareAndSet { .. } => Reply::Swapped(random.between(0, 2) == 0),
        _ => Reply::Done,
    };
    let invoked = random.between(0, 10);
    let returned = invoked + random.between(0, 6);
    let known = random.between(0, 4) > 0;
    Operation {
        key: 0,
        call,
        invoked,
        outcome: known.then_some((returned, reply)),
    }
}

/// Replies of a history are made likely by letting some of them come from a run in any order.
fn draw_history(random: &mut Random) -> Vec<Operation> {
    let count = random.between(1, 6);
    let mut history: Vec<Operation> = (0..count).map(|_| draw_operation(random)).collect();
    let mut value = Value::new();
    let honest = random.between(0, 100);
    for operation in &mut history {
        let (after, right) = operation.call.apply(&value);
        if let Some((_, reply)) = &mut operation.outcome
            && random.between(0, 100) < honest
        {
            *reply = right;
        }
        value = after;
    }
    history
}

#[test]
fn the_checker_agrees_with_brute_force() {
    let count = number("RAFTKEEL_HISTORIES").unwrap_or(HISTORIES);
    let mut good = 0;
    for seed in seeds(count) {
        let history = draw_history(&mut Random::new(seed));
        let expected = is_linearizable(&history);
        let verdict = match expected {
            true => Verdict::Linearizable,
            false => Verdict::Violation { key: 0 },
        };
        assert_eq!(
            verdict,
            check(&history, u64::MAX),
            "RAFTKEEL_SEED={seed} replays {history:#?}"
        );
        good += u64::from(expected);
    }
    println!("{count} histories, {good} of them linearizable");
    if number("RAFTKEEL_SEED").is_none() {
        let often = count / 5;
        assert!(
            good > often && count - good > often,
            "one answer hardly occurs: {good} of {count}"
        );
    }
}
