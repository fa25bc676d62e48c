//! A model of the near tier: the real core, between a modelled server, wires and callers, explored exhaustively.
//!
//! The model runs every order of a bounded number of calls, writes, announcements, pings, losses and ticks of the clock,
//! and checks the promises of `docs/near.md` at the end of every call. Broken variants show that it finds violations.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the model is part of the tests, and all its numbers are small"
)]

mod explore;
mod steps;
mod takeover;
mod wires;
mod world;

use explore::{Explored, explore};
use steps::{Announce, Bounds, Broken};

/// Calls and writes that race with each other, while the clock stands still.
const RACES: Bounds = Bounds { reads: 2, plain_reads: 1, own_writes: 1, foreign_writes: 1, ..Bounds::NONE };

/// Readers and another program.
const READERS: Bounds = Bounds { reads: 4, plain_reads: 1, foreign_writes: 2, ..Bounds::NONE };

/// Readers and writers of this process.
const WRITERS: Bounds = Bounds { reads: 3, own_writes: 2, writes_apart: true, ..Bounds::NONE };

/// Two readers, while the connection may break and the clock runs.
const SILENCE: Bounds = Bounds { reads: 2, foreign_writes: 1, pings: 2, breaks: 1, ticks: 3, ..Bounds::NONE };

/// A value that expires.
const EXPIRY: Bounds = Bounds { reads: 2, pings: 2, ticks: 4, expires_at: Some(3), ..Bounds::NONE };

/// All keys are removed.
const REMOVAL: Bounds = Bounds { reads: 2, flushes: 1, pings: 2, ticks: 3, ..Bounds::NONE };

/// A node of a cluster loses the key to another one, which the process learns from it, from another node, or by a ping.
const TAKEOVER: Bounds =
    Bounds { reads: 3, own_writes: 1, foreign_writes: 1, takeovers: 1, is_known: true, ..Bounds::NONE };

/// A node that may be cut off from the cluster loses the key, while the clock runs.
const ISOLATION: Bounds =
    Bounds { reads: 2, foreign_writes: 1, pings: 2, ticks: 2, takeovers: 1, is_known: true, ..Bounds::NONE };

/// A node got the key after the last ping, and loses it.
const UNKNOWN: Bounds = Bounds { is_known: false, ..ISOLATION };

const SCENARIOS: [(&str, Bounds); 9] = [
    ("races", RACES),
    ("readers", READERS),
    ("writers", WRITERS),
    ("silence", SILENCE),
    ("expiry", EXPIRY),
    ("removal", REMOVAL),
    ("takeover", TAKEOVER),
    ("isolation", ISOLATION),
    ("unknown", UNKNOWN),
];

/// The scenarios with both ways in which servers announce.
fn scenarios() -> impl Iterator<Item = (String, Bounds)> {
    SCENARIOS.into_iter().flat_map(|(name, bounds)| {
        [Announce::AtOnce, Announce::EndOfTurn]
            .map(|announce| (format!("{name}, {announce:?}"), Bounds { announce, ..bounds }))
    })
}

#[test]
fn no_order_of_events_breaks_a_promise() {
    for (name, bounds) in scenarios() {
        let Explored { states, hits, joins, violation } = explore(bounds, None);
        println!("{name}: {states} states, {hits} near hits, {joins} joined fetches");
        assert_eq!(violation, None, "{name}");
        assert!(hits > 0 && joins > 0, "{name}: a tier that serves nothing is not what is checked");
    }
}

/// A variant is caught if it violates a promise in a scenario. Prints the first violation.
fn assert_caught(broken: Broken, scenario: &str) {
    let mut scenarios = scenarios().filter(|(name, _)| name.starts_with(scenario));
    let caught = scenarios.find_map(|(name, bounds)| Some((name, explore(bounds, Some(broken)).violation?)));
    let (name, violation) = caught.unwrap_or_else(|| panic!("{broken:?} is not caught"));
    println!("{broken:?} is caught by {name}: {violation}");
}

#[test]
fn without_poison_a_fetch_stores_what_was_overwritten_meanwhile() {
    assert_caught(Broken::NoPoison, "races");
}

#[test]
fn without_a_horizon_a_half_open_connection_is_stale_for_ever() {
    assert_caught(Broken::NoHorizon, "silence");
}

#[test]
fn the_answer_to_one_ping_says_too_little() {
    assert_caught(Broken::OnePing, "silence");
}

#[test]
fn a_write_that_stores_its_value_near_stores_an_overwritten_one() {
    assert_caught(Broken::StoreAfterWrite, "races");
}

#[test]
fn entries_of_a_lost_connection_are_stale_after_the_reconnect() {
    assert_caught(Broken::NoFlushOnReconnect, "silence");
}

#[test]
fn a_poisoned_fetch_is_too_old_to_join() {
    assert_caught(Broken::JoinPoisoned, "races");
}

#[test]
fn a_write_that_invalidates_only_before_it_is_sent_is_not_read_afterwards() {
    assert_caught(Broken::InvalidateBeforeOnly, "writers");
}

#[test]
fn a_read_over_another_connection_invalidates_what_is_near() {
    assert_caught(Broken::NoObserve, "races");
}

#[test]
fn an_entry_that_is_kept_for_longer_than_the_key_lives_is_caught() {
    assert_caught(Broken::NoExpiry, "expiry");
}

#[test]
fn an_ignored_removal_of_all_keys_is_caught() {
    assert_caught(Broken::NoFlush, "removal");
}

#[test]
fn a_node_that_is_not_asked_for_its_slots_is_stale_for_ever() {
    assert_caught(Broken::PingOnly, "isolation");
}

#[test]
fn what_a_node_serves_before_it_is_known_to_have_the_key_is_not_kept() {
    assert_caught(Broken::KeepUnknown, "unknown");
}
