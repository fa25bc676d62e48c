//! The checker refuses histories that break a promise, and no others.

use std::time::Duration;

use super::check::{Rule, Terms, check};
use super::record::{Answer, Call, Operation};

/// A third and a quarter of the lease are round numbers.
const TERMS: Terms = Terms { lease: Duration::from_millis(1200), wait: Duration::from_millis(2000) };

/// Reads an operation a line: `PROCESS.LIFE SENT..ANSWERED CALL -> ANSWER`, in milliseconds; no answer is a lost one.
fn history(text: &str) -> Vec<Operation> {
    text.trim().lines().map(|line| operation(line.trim())).collect()
}

fn operation(line: &str) -> Operation {
    let (done, answer) = line.split_once(" ->").unwrap();
    let mut words = done.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (origin, when, call) = (word(), word(), word());
    let (process, life) = origin.split_once('.').unwrap();
    let (sent, answered) = when.split_once("..").unwrap();
    let at = |ms: &str| Duration::from_millis(ms.parse().unwrap());
    Operation {
        process: process.parse().unwrap(),
        life: life.parse().unwrap(),
        call: self::call(call),
        sent: at(sent),
        answered: at(answered),
        answer: Answer::read(answer.trim()),
    }
}

fn call(line: &str) -> Call {
    let own = str::to_owned;
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["get", key] => Call::Get(own(key)),
        ["set", key, value] => Call::Set(own(key), own(value)),
        ["take", key] => Call::Take(own(key)),
        ["refresh", key] => Call::Refresh(own(key)),
        ["fill", key, value] => Call::Fill(own(key), own(value)),
        ["drop", key] => Call::Drop(own(key)),
        ["clear", key] => Call::Clear(own(key)),
        ["clear-pattern", pattern] => Call::ClearPattern(own(pattern.trim_end_matches('*'))),
        ["clear-all"] => Call::ClearAll,
        ["trap"] => Call::Trap,
        ["kill"] => Call::Kill,
        ["freeze"] => Call::Freeze,
        _ => panic!("no such operation: {line}"),
    }
}

fn assert_breaks(rule: Rule, text: &str) {
    let violation = check(&history(text), TERMS).expect_err("it breaks a promise");
    assert_eq!(violation.rule, rule, "{violation}");
}

fn assert_allowed(text: &str) {
    if let Err(violation) = check(&history(text), TERMS) {
        panic!("{violation}");
    }
}

/// A number of reads of process 0, in quick succession, from that moment on.
fn pulses(from: u64, count: u64) -> String {
    (0..count).map(|nth| format!("0.0 {0}..{0} get pulse -> miss\n", from + 200 * nth)).collect()
}

#[test]
fn a_value_that_was_never_written_is_caught() {
    assert_breaks(Rule::FromSomewhere, "0.0 0..1 get k -> hit 7");
}

#[test]
fn a_value_of_another_key_is_caught() {
    assert_breaks(
        Rule::FromSomewhere,
        "0.0 0..1 set j 7 -> ok
         0.0 2..3 get k -> hit 7",
    );
}

#[test]
fn a_value_read_before_it_was_sent_is_caught() {
    assert_breaks(
        Rule::FromSomewhere,
        "0.0 0..1 get k -> hit 7
         1.0 2..3 set k 7 -> ok",
    );
}

#[test]
fn a_value_whose_fill_said_false_is_caught() {
    assert_breaks(
        Rule::FromSomewhere,
        "0.0 0..1 take k -> vacant
         1.0 2..3 clear k -> false
         0.0 4..5 fill k 7 -> filled false
         1.0 6..7 get k -> hit 7",
    );
}

#[test]
fn a_write_without_an_answer_may_be_read_or_not() {
    let lost = "0.0 0..1 set k 7 ->
                0.0 0..1 kill -> ok";
    assert_allowed(&format!("{lost}\n1.0 2..3 get k -> hit 7"));
    assert_allowed(&format!("{lost}\n1.0 2..3 get k -> miss"));
    assert_allowed(&format!("{lost}\n1.0 2..3 clear k -> false\n1.0 4..5 get k -> hit 7"));
}

#[test]
fn a_set_from_before_a_clear_is_caught() {
    for clear in ["clear k", "clear-pattern k*", "clear-all"] {
        let text = format!("0.0 0..1 set k 7 -> ok\n1.0 2..3 {clear} -> 1\n");
        assert_breaks(Rule::UpToDate, &format!("{text}0.0 4..5 get k -> hit 7"));
        assert_breaks(Rule::UpToDate, &format!("{text}0.0 4..5 take k -> hit 7"));
        assert_allowed(&format!("{text}0.0 4..5 get k -> miss"));
    }
}

#[test]
fn a_value_computed_from_before_a_clear_is_caught_even_if_filled_after_it() {
    assert_breaks(
        Rule::UpToDate,
        "0.0 0..1 take k -> vacant
         1.0 2..3 clear k -> false
         0.0 4..5 fill k 7 ->
         0.0 4..5 kill -> ok
         1.0 6..7 get k -> hit 7",
    );
}

#[test]
fn a_value_that_a_set_or_a_fill_replaced_is_caught() {
    assert_breaks(
        Rule::UpToDate,
        "0.0 0..1 set k 7 -> ok
         1.0 2..3 set k 8 -> ok
         0.0 4..5 get k -> hit 7",
    );
    assert_breaks(
        Rule::UpToDate,
        "0.0 0..1 set k 7 -> ok
         1.0 2..3 clear k -> true
         1.0 4..5 take k -> vacant
         1.0 6..7 fill k 8 -> filled true
         0.0 8..9 get k -> hit 7",
    );
}

#[test]
fn a_value_may_be_read_while_it_is_cleared() {
    assert_allowed(
        "0.0 0..1 set k 7 -> ok
         1.0 2..9 clear k -> true
         0.0 4..5 get k -> hit 7
         2.0 6..7 get k -> miss",
    );
    assert_allowed(
        "0.0 0..4 set k 7 -> ok
         1.0 2..3 clear k -> false
         0.0 5..6 get k -> hit 7",
    );
}

#[test]
fn other_keys_may_be_cleared() {
    assert_allowed(
        "0.0 0..1 set k 7 -> ok
         1.0 2..3 clear j -> false
         1.0 4..5 clear-pattern j* -> 0
         0.0 6..7 get k -> hit 7",
    );
}

#[test]
fn a_lost_set_is_caught() {
    for read in ["get k -> miss", "take k -> vacant"] {
        assert_breaks(Rule::Kept, &format!("0.0 0..1 set k 7 -> ok\n1.0 2..3 {read}"));
    }
}

#[test]
fn a_lost_fill_is_caught() {
    assert_breaks(
        Rule::Kept,
        "0.0 0..1 take k -> vacant
         0.0 2..3 fill k 7 -> filled true
         1.0 4..5 get k -> miss",
    );
}

#[test]
fn a_fill_that_overwrites_a_newer_set_is_caught() {
    let text = "0.0 0..1 take k -> vacant
                1.0 2..3 set k 8 -> ok";
    assert_breaks(Rule::Overtaken, &format!("{text}\n0.0 4..5 fill k 7 -> filled true"));
    assert_allowed(&format!("{text}\n0.0 4..5 fill k 7 -> filled false\n0.0 6..7 get k -> hit 8"));
}

#[test]
fn a_fill_of_a_computation_from_before_a_clear_is_caught() {
    for clear in ["clear k", "clear-pattern k*", "clear-all"] {
        let text = format!("0.0 0..2 take k -> vacant\n1.0 3..5 {clear} -> 0\n");
        assert_breaks(Rule::Overtaken, &format!("{text}0.0 6..7 fill k 7 -> filled true"));
        assert_allowed(&format!("{text}0.0 4..7 fill k 7 -> filled true"));
        assert_allowed(&format!("{text}0.0 4..7 fill k 7 -> filled false"));
    }
}

#[test]
fn a_clear_while_the_vacancy_is_handed_out_may_come_first() {
    assert_allowed(
        "0.0 0..4 take k -> vacant
         1.0 2..3 clear k -> false
         0.0 5..6 fill k 7 -> filled true",
    );
}

#[test]
fn two_computations_at_once_that_are_both_stored_are_caught() {
    assert_breaks(
        Rule::StoredOnce,
        "0.0 0..1 take k -> vacant
         1.0 2..2500 take k -> vacant
         0.0 2501..2502 fill k 7 -> filled true
         1.0 2503..2504 fill k 8 -> filled true",
    );
}

#[test]
fn a_second_holder_is_caught_when_the_first_has_its_value_stored() {
    assert_breaks(
        Rule::OneHolder,
        "0.0 0..1 take k -> vacant
         1.0 5000..5001 take k -> vacant
         0.0 9000..9001 fill k 7 -> filled true",
    );
}

#[test]
fn a_second_holder_is_caught_while_the_first_is_heard_of() {
    let (early, late) = (pulses(200, 10), pulses(2200, 5));
    let text = format!("0.0 0..1 take k -> vacant\n{early}1.0 2100..2101 take k -> vacant\n{late}");
    assert_breaks(Rule::OneHolder, &text);
    // As well where the first is killed later on.
    assert_breaks(Rule::OneHolder, &format!("{text}0.0 3200..3201 kill -> ok"));
}

#[test]
fn of_two_concurrent_takes_only_one_is_granted() {
    assert_breaks(
        Rule::OneHolder,
        "0.0 0..10 take k -> vacant
         1.0 1..9 take k -> vacant
         0.0 20..30 drop k -> dropped
         1.0 20..30 drop k -> dropped",
    );
}

#[test]
fn the_end_of_a_lease_allows_the_next() {
    let ends = ["fill k 7 -> filled false", "drop k -> dropped", "trap ->", "kill -> ok"];
    for end in ends {
        assert_allowed(&format!(
            "2.0 0..1 clear k -> false
             0.0 0..1 take k -> vacant
             0.0 10..20 {end}
             1.0 11..12 take k -> vacant",
        ));
    }
    for end in ["set k 8 -> ok", "clear k -> false", "clear-all -> 0", "clear k ->"] {
        assert_allowed(&format!(
            "0.0 0..1 take k -> vacant
             1.0 10..20 {end}
             1.0 30..30 kill -> ok
             2.0 {after} take k -> {found}
             0.0 60..70 drop k -> dropped",
            after = "40..50",
            found = if end.starts_with("set") { "hit 8" } else { "vacant" },
        ));
    }
}

#[test]
fn a_caller_killed_before_it_received_its_vacancy_holds_nothing() {
    assert_allowed(
        "0.0 0..100 take k -> vacant
         0.0 50..99 kill -> ok
         1.0 60..1400 take k -> vacant
         1.0 1401..1402 drop k -> dropped",
    );
}

#[test]
fn a_holder_without_activity_may_lose_its_lease() {
    assert_allowed(
        "0.0 0..1 take k -> vacant
         1.0 2..1300 take k -> vacant
         0.0 1400..1401 fill k 7 -> filled false
         1.0 1500..1501 fill k 8 -> filled true",
    );
    assert_allowed(
        "0.0 0..1 take k -> vacant
         0.0 2..250 freeze -> ok
         0.0 500..501 get pulse -> miss
         1.0 400..401 take k -> vacant
         0.0 600..601 drop k -> dropped",
    );
    // Granted early, heard of late.
    assert_allowed(
        "1.0 0..1400 take k -> vacant
         0.0 1300..1301 take k -> vacant
         0.0 1500..1501 drop k -> dropped
         1.0 1500..1501 drop k -> dropped",
    );
}

#[test]
fn a_caller_whose_wait_timed_out_computes_as_well() {
    let early = pulses(200, 9);
    let takes = format!("0.0 0..1 take k -> vacant\n1.0 2..2002 take k -> vacant\n{early}");
    assert_allowed(&format!("{takes}0.0 2003..2004 fill k 7 -> filled true\n1.0 2005..2006 fill k 8 -> filled false"));
    assert_allowed(&format!("{takes}1.0 2003..2004 fill k 8 -> filled true\n0.0 2005..2006 fill k 7 -> filled false"));
}

#[test]
fn a_fill_refused_without_a_reason_is_caught() {
    let text = format!("0.0 0..1 take k -> vacant\n{}", pulses(200, 10));
    assert_breaks(Rule::Renewed, &format!("{text}0.0 2001..2002 fill k 7 -> filled false"));
    assert_allowed(&format!("{text}0.0 2001..2002 fill k 7 -> filled true"));
    assert_allowed(&format!("{text}0.0 2901..2902 fill k 7 -> filled false"));
}

#[test]
fn an_answer_that_never_comes_is_caught() {
    assert_breaks(Rule::Answered, "0.0 0..1 get k ->");
    assert_breaks(
        Rule::Answered,
        "0.0 0..1 get k ->
         0.1 2..3 kill -> ok",
    );
}

#[test]
fn a_refusal_is_caught_and_an_outage_is_not() {
    assert_breaks(Rule::Answered, "0.0 0..1 get k -> error InvalidArgument(\"key\")");
    assert_breaks(Rule::Answered, "0.0 0..1 get k -> gibberish");
    assert_allowed("0.0 0..1 get k -> error Timeout");
}

#[test]
fn a_call_that_takes_too_long_is_caught() {
    assert_breaks(Rule::Prompt, "0.0 0..20000 take k -> vacant");
    assert_allowed("0.0 0..3200 take k -> vacant");
}

#[test]
fn a_violation_shows_the_history_of_its_key() {
    let text = "0.0 0..1 set k 7 -> ok
                1.0 2..3 set j 8 -> ok
                1.0 4..5 get k -> miss";
    let shown = check(&history(text), TERMS).unwrap_err().to_string();
    assert!(shown.contains("broken: Kept"), "{shown}");
    assert_eq!(shown.matches("\n> ").count(), 2, "{shown}");
    assert!(!shown.contains("set j"), "{shown}");
}

#[test]
fn a_clear_during_a_refresh_that_is_stored_is_caught() {
    assert_breaks(
        Rule::Overtaken,
        "0.0 0..1 set k 1 -> ok
         0.0 2..3 refresh k -> stale 1
         1.0 4..5 clear k -> true
         0.0 6..7 fill k 2 -> filled true",
    );
}

#[test]
fn a_stale_value_after_its_clear_is_caught() {
    assert_breaks(
        Rule::UpToDate,
        "0.0 0..1 set k 1 -> ok
         1.0 2..3 clear k -> true
         0.0 4..5 refresh k -> stale 1",
    );
}

#[test]
fn a_computed_value_after_a_clear_during_its_refresh_is_caught() {
    assert_breaks(
        Rule::UpToDate,
        "0.0 0..1 set k 1 -> ok
         0.0 2..3 refresh k -> stale 1
         1.0 4..5 clear k -> true
         0.0 6..7 fill k 2 ->
         0.0 7..8 kill -> ok
         1.0 8..9 get k -> hit 2",
    );
}

#[test]
fn two_refreshes_of_one_value_that_are_both_stored_are_caught() {
    assert_breaks(
        Rule::StoredOnce,
        "0.0 0..1 set k 1 -> ok
         0.0 2..3 refresh k -> stale 1
         1.0 4..5 refresh k -> stale 1
         0.0 6..7 fill k 2 -> filled true
         1.0 8..9 fill k 3 -> filled true",
    );
}

#[test]
fn a_second_refresh_while_the_first_is_alive_is_caught() {
    assert_breaks(
        Rule::OneHolder,
        "0.0 0..1 set k 1 -> ok
         0.0 2..3 refresh k -> stale 1
         1.0 4..5 refresh k -> stale 1
         0.0 6..7 get k -> hit 1",
    );
}

#[test]
fn a_refresh_beside_the_computation_of_the_missing_value_is_allowed() {
    assert_allowed(
        "0.0 0..1 set k 1 -> ok
         0.0 2..3 refresh k -> stale 1
         1.0 4..5 clear k -> true
         1.0 6..7 take k -> vacant
         0.0 8..9 fill k 2 -> filled false
         1.0 10..11 fill k 3 -> filled true
         0.0 12..13 refresh k -> stale 3",
    );
}
