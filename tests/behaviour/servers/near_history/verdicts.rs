//! The checker refuses histories that break a promise, and no others. `max_staleness` is 100 ms in them.

use std::time::Duration;

use super::check::{Findings, Rule, Violation, check};
use super::record::{Answer, By, Call, Operation};

/// Reads an operation a line: `BY SENT..ANSWERED CALL -> ANSWER`, in milliseconds. `BY` is the number of a host, or `o`.
fn history(text: &str) -> Vec<Operation> {
    text.trim().lines().map(|line| operation(line.trim())).collect()
}

fn operation(line: &str) -> Operation {
    let (done, answer) = line.split_once(" -> ").unwrap();
    let words: Vec<&str> = done.split(' ').collect();
    let (sent, answered) = words[1].split_once("..").unwrap();
    let ms = |text: &str| Duration::from_millis(text.parse().unwrap());
    let own = str::to_owned;
    let call = match words[2..] {
        ["get", key] => Call::Get(own(key)),
        ["set", key, value] => Call::Set(own(key), own(value), None),
        ["set", key, value, life] => Call::Set(own(key), own(value), Some(ms(life))),
        ["get-or-set", key, value] => Call::GetOrSet(own(key), own(value)),
        ["clear", key] => Call::Clear(own(key)),
        ["clear-pattern", pattern] => Call::ClearPattern(own(pattern.trim_end_matches('*'))),
        ["clear-all"] => Call::ClearAll,
        ["expire", key, life] => Call::Expire(own(key), ms(life)),
        ["rename", from, to] => Call::Rename(own(from), own(to)),
        ["crash"] => Call::Crash,
        ["fail-over"] => Call::FailOver,
        _ => panic!("no such operation: {line}"),
    };
    let answer = match answer.split(' ').collect::<Vec<_>>()[..] {
        ["hit", value] => Answer::Hit(own(value)),
        ["hit"] => Answer::HitUnknown,
        ["miss"] => Answer::Miss,
        ["filled", is_stored] => Answer::Filled(is_stored == "true"),
        ["ok"] => Answer::Done,
        ["error"] => Answer::Error(String::new()),
        _ => panic!("no such answer: {line}"),
    };
    let by = if words[0] == "o" { By::Other } else { By::Host(words[0].parse().unwrap()) };
    Operation { by, call, sent: ms(sent), answered: ms(answered), answer, scene: 0 }
}

fn judge(text: &str) -> Result<Findings, Violation> {
    check(&history(text), Duration::from_millis(100))
}

fn assert_breaks(rule: Rule, text: &str) {
    let violation = judge(text).expect_err("it breaks a promise");
    assert_eq!(violation.rule, rule, "{violation}");
}

/// The longest staleness in a history that is allowed, in milliseconds.
fn staleness(text: &str) -> u128 {
    let findings = judge(text).unwrap_or_else(|violation| panic!("{violation}"));
    findings.staleness.values().max().map_or(0, Duration::as_millis)
}

#[test]
fn a_value_that_no_operation_wrote_is_refused() {
    assert_breaks(Rule::FromSomewhere, "0 10..20 get a -> hit x");
    assert_breaks(Rule::FromSomewhere, "0 10..20 get a -> hit x\no 30..40 set a x -> ok");
    assert_breaks(Rule::FromSomewhere, "o 1..2 get-or-set a x -> filled false\n0 10..20 get a -> hit x");
}

#[test]
fn a_value_is_not_read_longer_than_max_staleness_after_its_end() {
    for end in [
        "o 20..30 set a y -> ok",
        "1 20..30 set a y -> ok",
        "1 20..30 clear a -> ok",
        "1 20..30 clear-pattern a* -> ok",
        "o 20..30 clear-all -> ok",
        "o 20..30 crash -> ok",
        "o 20..30 rename a b -> hit x",
        "o 20..30 rename b a -> hit",
        "1 20..30 get-or-set a y -> filled true",
        // Not a change, but it shows that there was one.
        "o 20..30 get a -> miss",
        "o 20..30 expire a 50 -> miss",
        "1 20..30 get-or-set a y -> filled false",
    ] {
        let read = |at| format!("o 1..2 set a x -> ok\n{end}\n0 {at}..140 get a -> hit x");
        assert_breaks(Rule::P1, &read(131));
        assert_eq!(staleness(&read(130)), 100, "{end}");
    }
    // A batch counts like a get, and a get-or-set too.
    assert_breaks(Rule::P1, "o 1..2 set a x -> ok\no 3..4 clear a -> ok\n0 105..106 get-or-set a y -> hit x");
}

#[test]
fn a_miss_of_a_host_may_be_as_old_as_a_fetch() {
    let read = |miss| format!("o 1..2 set a x -> ok\n1 {miss} get a -> miss\n0 350..351 get a -> hit x");
    assert_breaks(Rule::P1, &read("200..210"));
    // The key may have had no value yet.
    assert_eq!(staleness(&read("101..110")), 0);
}

#[test]
fn what_may_not_have_happened_ends_nothing() {
    for end in [
        "o 20..30 set a y -> error",
        "0 20..30 clear a -> error",
        "o 20..30 expire a 500 -> hit x",
        "o 20..30 clear-pattern b* -> ok",
    ] {
        let history = format!("o 1..2 set a x -> ok\n{end}\n0 140..150 get a -> hit x");
        assert_eq!(staleness(&history), 0, "{end}");
    }
}

#[test]
fn a_write_without_an_answer_may_come_late_until_its_value_is_read() {
    let history = "o 1..2 set a x -> error\no 20..30 set a y -> ok\n0 140..150 get a -> hit x";
    assert_eq!(staleness(history), 0);
    let seen = format!("{history}\n0 5..6 get a -> hit x");
    assert_breaks(Rule::P1, &seen);
}

#[test]
fn concurrent_writes_have_no_order() {
    assert_eq!(staleness("o 1..25 set a x -> ok\n1 20..30 set a y -> ok\n0 400..410 get a -> hit x"), 0);
    assert_eq!(
        staleness("1 1..25 set a x -> ok\n1 20..30 set a y -> ok\n1 40..41 get a -> hit y\n0 60..61 get a -> hit x"),
        0
    );
}

#[test]
fn a_value_that_is_renamed_is_written_again() {
    let back = "o 1..2 set a x -> ok\no 3..4 rename a b -> hit x\no 5..6 rename b a -> hit x";
    assert_eq!(staleness(&format!("{back}\n0 400..401 get a -> hit x")), 0);
    assert_breaks(Rule::P1, &format!("{back}\n0 400..401 get b -> hit x"));
    // Whatever was under `b` may have come.
    let unsure = "o 1..2 set a x -> ok\no 3..4 clear a -> ok\no 5..6 rename b a -> error\n0 400..401 get a -> hit x";
    assert_eq!(staleness(unsure), 0);
}

#[test]
fn a_process_does_not_go_back_behind_what_it_has_read() {
    let writes = "o 1..2 set a x -> ok\no 10..11 set a y -> ok\n";
    assert_breaks(Rule::P2, &format!("{writes}0 12..13 get a -> hit y\n0 14..15 get a -> hit x"));
    // In another process, and for a call that was sent before the answer.
    assert_eq!(staleness(&format!("{writes}0 12..13 get a -> hit y\n1 14..15 get a -> hit x")), 3);
    assert_eq!(staleness(&format!("{writes}0 12..14 get a -> hit y\n0 13..15 get a -> hit x")), 2);
    // One that was read between the two is older than both.
    let three = "o 1..2 set a x -> ok\no 3..4 set a y -> ok\no 5..6 set a z -> ok\n0 7..8 get a -> hit z\n";
    assert_breaks(Rule::P2, &format!("{three}0 9..10 get a -> hit y"));
}

#[test]
fn a_process_does_not_read_what_a_miss_has_shown_to_be_gone() {
    let write = "o 1..2 set a x -> ok\n";
    let history = format!("{write}0 103..104 get a -> miss\n0 105..106 get a -> hit x");
    assert_breaks(Rule::P2, &history);
    assert_eq!(staleness(&format!("{write}0 102..104 get a -> miss\n0 105..106 get a -> hit x")), 0);
}

#[test]
fn a_process_reads_its_own_writes() {
    for write in ["set a y -> ok", "clear a -> ok", "clear-all -> ok", "get-or-set a y -> filled true"] {
        let read = |by, at| format!("o 1..2 set a x -> ok\n0 10..20 {write}\n{by} {at} get a -> hit x");
        assert_breaks(Rule::P3, &read("0", "21..22"));
        assert_eq!(staleness(&read("0", "15..22")), 0);
        assert_eq!(staleness(&read("1", "21..22")), 1);
    }
    // One that failed promises nothing.
    assert_eq!(staleness("o 1..2 set a x -> ok\n0 10..20 set a y -> error\n0 21..22 get a -> hit x"), 0);
}

#[test]
fn a_value_is_not_read_after_its_expiry() {
    // The server's milliseconds are whole ones.
    assert_breaks(Rule::P4, "o 1..2 set a x 50 -> ok\n0 54..55 get a -> hit x");
    assert_eq!(staleness("o 1..2 set a x 50 -> ok\n0 53..54 get a -> hit x"), 0);
    let renamed = "o 1..2 set a x 50 -> ok\no 13..14 rename a b -> hit x";
    assert_breaks(Rule::P4, &format!("{renamed}\n0 54..55 get b -> hit x"));
    assert_eq!(staleness("o 1..2 set a x 50 -> error\n0 400..401 get a -> hit x"), 0);
}

#[test]
fn a_life_that_is_shortened_is_a_change() {
    let read =
        |life, at| format!("o 1..2 set a x -> ok\no 10..12 expire a {life} -> hit x\n0 {at}..400 get a -> hit x");
    assert_breaks(Rule::P4, &read(20, 113));
    assert_eq!(staleness(&read(20, 112)), 0);
    assert_breaks(Rule::P4, &read(150, 164));
    assert_eq!(staleness(&read(150, 163)), 0);
    // Shortened or not, what has a life when it is written ends with it.
    assert_breaks(Rule::P4, "o 1..2 set a x 50 -> ok\no 10..12 expire a 20 -> hit x\n0 54..55 get a -> hit x");
}

#[test]
fn a_failover_may_lose_what_was_written_while_it_lasted() {
    let lost = "o 1..2 set a x -> ok\no 20..60 fail-over -> ok\no 30..31 set a y -> ok\n0 40..41 get a -> hit y\n";
    assert_eq!(staleness(&format!("{lost}0 400..401 get a -> hit x")), 0);
    // But not what was written before, and what is written later ends both.
    let kept = "o 1..2 set a x -> ok\no 3..4 set a y -> ok\no 20..60 fail-over -> ok\n";
    assert_breaks(Rule::P1, &format!("{kept}0 105..106 get a -> hit x"));
    for gone in ["x", "y"] {
        assert_breaks(Rule::P1, &format!("{lost}o 70..71 set a z -> ok\n0 172..173 get a -> hit {gone}"));
    }
}
