//! Histories of which it is known whether they are linearizable, and why.

use crate::linear::{Call, Operation, Reply, Value, Verdict, check};

const WRONG: Verdict = Verdict::Violation { key: 0 };
const RIGHT: Verdict = Verdict::Linearizable;

fn known(invoked: u64, returned: u64, call: Call, reply: Reply) -> Operation {
    Operation {
        key: 0,
        call,
        invoked,
        outcome: Some((returned, reply)),
    }
}

fn unknown(invoked: u64, call: Call) -> Operation {
    Operation {
        key: 0,
        call,
        invoked,
        outcome: None,
    }
}

fn read(invoked: u64, returned: u64, found: &[u64]) -> Operation {
    known(invoked, returned, Call::Read, Reply::Found(found.to_vec()))
}

fn put(value: u64) -> Call {
    Call::Write(vec![value])
}

fn write(invoked: u64, returned: u64, value: u64) -> Operation {
    known(invoked, returned, put(value), Reply::Done)
}

fn append(invoked: u64, returned: u64, number: u64) -> Operation {
    known(invoked, returned, Call::Append(number), Reply::Done)
}

fn swap(expected: &[u64], new: &[u64]) -> Call {
    let value = |list: &[u64]| -> Value { list.to_vec() };
    Call::CompareAndSet {
        expected: value(expected),
        new: value(new),
    }
}

fn verdict(history: &[Operation]) -> Verdict {
    check(history, 1_000_000)
}

#[test]
fn an_empty_history_is_right() {
    assert_eq!(RIGHT, verdict(&[]));
}

#[test]
fn a_read_sees_the_last_write_that_ended_before_it() {
    assert_eq!(RIGHT, verdict(&[write(1, 2, 7), read(3, 4, &[7])]));
    assert_eq!(WRONG, verdict(&[write(1, 2, 7), read(3, 4, &[])]), "stale");
}

#[test]
fn a_read_during_a_write_sees_either_value() {
    let during = |found: &[u64]| [write(1, 2, 1), write(3, 6, 2), read(4, 5, found)];
    assert_eq!(RIGHT, verdict(&during(&[1])));
    assert_eq!(RIGHT, verdict(&during(&[2])));
    assert_eq!(WRONG, verdict(&during(&[3])), "nobody wrote that");
}

#[test]
fn operations_that_meet_in_an_instant_are_concurrent() {
    assert_eq!(RIGHT, verdict(&[write(1, 2, 7), read(2, 3, &[])]));
}

#[test]
fn a_stale_read_is_wrong() {
    let history = [write(1, 2, 1), write(3, 4, 2), read(5, 6, &[1])];
    assert_eq!(WRONG, verdict(&history));
}

#[test]
fn a_value_that_goes_back_is_wrong() {
    // Each read alone is right, for the write lasts.
    let history = [
        write(1, 2, 1),
        write(3, 10, 2),
        read(4, 5, &[2]),
        read(6, 7, &[1]),
    ];
    assert_eq!(WRONG, verdict(&history));
    assert_eq!(RIGHT, verdict(&history[..3]));
    assert_eq!(
        RIGHT,
        verdict(&[history[0].clone(), history[1].clone(), history[3].clone()])
    );
}

#[test]
fn a_lost_update_is_wrong() {
    let history = [append(1, 2, 1), append(3, 4, 2), read(5, 6, &[2])];
    assert_eq!(WRONG, verdict(&history));
}

#[test]
fn two_winners_of_one_compare_and_set_are_wrong() {
    let wins =
        |invoked, returned, new| known(invoked, returned, swap(&[], &[new]), Reply::Swapped(true));
    assert_eq!(WRONG, verdict(&[wins(1, 9, 1), wins(2, 8, 2)]));
    let loses = known(2, 8, swap(&[], &[2]), Reply::Swapped(false));
    assert_eq!(RIGHT, verdict(&[wins(1, 9, 1), loses]));
}

#[test]
fn a_compare_and_set_that_fails_without_a_reason_is_wrong() {
    let fails = known(3, 4, swap(&[1], &[2]), Reply::Swapped(false));
    assert_eq!(WRONG, verdict(&[write(1, 2, 1), fails.clone()]));
    // An unknown write is a reason, though nobody ever reads its value.
    let excuse = unknown(1, put(5));
    assert_eq!(RIGHT, verdict(&[write(1, 2, 1), excuse, fails]));
}

#[test]
fn an_operation_applied_twice_is_wrong() {
    assert_eq!(WRONG, verdict(&[append(1, 2, 7), read(3, 4, &[7, 7])]));
    let unsure = [unknown(1, Call::Append(7)), read(3, 4, &[7, 7])];
    assert_eq!(WRONG, verdict(&unsure), "unknown is once at most");
}

#[test]
fn an_unknown_write_may_be_seen_or_not() {
    let first = unknown(1, put(7));
    assert_eq!(RIGHT, verdict(&[first.clone(), read(5, 6, &[])]));
    assert_eq!(RIGHT, verdict(&[first.clone(), read(5, 6, &[7])]));
    let late = [first, read(2, 3, &[]), read(90, 91, &[7])];
    assert_eq!(RIGHT, verdict(&late), "it may take effect long after");
}

#[test]
fn an_unknown_write_seen_and_then_unseen_is_wrong() {
    let history = [unknown(1, put(7)), read(2, 3, &[7]), read(4, 5, &[])];
    assert_eq!(WRONG, verdict(&history));
}

#[test]
fn an_unknown_write_seen_before_it_was_made_is_wrong() {
    assert_eq!(WRONG, verdict(&[read(1, 2, &[7]), unknown(3, put(7))]));
}

#[test]
fn appends_seen_in_two_orders_are_wrong() {
    let both = [append(1, 9, 1), append(1, 9, 2)];
    let reads = [read(3, 4, &[1, 2]), read(5, 6, &[2, 1])];
    assert_eq!(WRONG, verdict(&[&both[..], &reads[..]].concat()));
    assert_eq!(RIGHT, verdict(&[&both[..], &reads[1..]].concat()));
}

#[test]
fn objects_are_judged_each_on_its_own() {
    let mut wrong = read(3, 4, &[9]);
    wrong.key = 4;
    let history = [write(1, 2, 7), read(3, 4, &[7]), wrong];
    assert_eq!(Verdict::Violation { key: 4 }, verdict(&history));
}

#[test]
fn a_budget_that_runs_out_is_no_answer() {
    let history = [write(1, 2, 7), read(3, 4, &[7])];
    assert_eq!(Verdict::Unknown { key: 0 }, check(&history, 1));
    assert_eq!(RIGHT, check(&history, 2));
}

#[test]
fn a_violation_is_told_even_if_the_budget_ran_out_elsewhere() {
    let mut history = vec![write(1, 2, 7), read(3, 4, &[7])];
    let mut wrong = read(3, 4, &[9]);
    wrong.key = 4;
    history.push(wrong);
    assert_eq!(Verdict::Violation { key: 4 }, check(&history, 1));
}
