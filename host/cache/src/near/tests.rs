//! Unit tests of the core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration as StdDuration;

use bytes::Bytes;

use super::NearOptions;
use super::feeds::{Feed, SERVERS};
use super::parts::Parts;
use super::tier::{Begun, Fetched, Keep, Tier};
use crate::error::CacheError;
use crate::key::{Key, Namespace, Selection};
use crate::ram::clock::Clock;

const MAX_STALENESS: u64 = 1000;

struct Setup {
    clock: Arc<AtomicU64>,
    tier: Arc<Tier>,
    feed: Feed,
}

fn setup(options: &NearOptions) -> Setup {
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let tier = Arc::new(Tier::with_clock(options, Clock::set_by(&clock), 2));
    let feed = Feed::open(&tier).unwrap();
    Setup { clock, tier, feed }
}

fn key(name: &str) -> Key {
    Key::new(None, name).unwrap()
}

impl Setup {
    fn advance(&self, milliseconds: u64) {
        self.clock.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// What a server replies: a value without expiry, whose changes the feed announces.
    fn found(&self, value: impl Into<Bytes>) -> Result<Fetched, CacheError> {
        let keep = self.feed.stamp().map(|stamp| Keep { stamp, life: None });
        Ok(Fetched { value: Some(value.into()), keep })
    }

    fn bring_near(&self, key: &Key, value: impl Into<Bytes>) {
        let Begun::Fetch(fetch) = self.tier.begin(key) else { panic!("`{key:?}` is near or being fetched") };
        fetch.complete(&self.found(value));
    }

    fn look_up(&self, key: &Key) -> Option<Bytes> {
        self.tier.look_up(key.as_ref())
    }

    /// Two pings, each sent after the answer to the one before.
    fn answer_pings(&self) {
        for _ in 0..2 {
            self.feed.answered(self.tier.now());
        }
    }
}

#[test]
fn a_look_up_allocates_nothing() {
    let setup = setup(&NearOptions::default());
    setup.bring_near(&key("k"), vec![b'v'; 10_000]);
    // The first look-up allocates once, as `Bytes` makes the value shareable.
    assert!(setup.look_up(&key("k")).is_some());
    let (near, other) = (key("k"), key("other"));
    let counted = allocation_counter::measure(|| {
        assert_eq!(setup.look_up(&near).map(|value| value.len()), Some(10_000));
        assert!(setup.look_up(&other).is_none());
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn a_late_horizon_hides_an_entry_and_an_answer_shows_it_again() {
    let setup = setup(&NearOptions::default());
    setup.bring_near(&key("k"), "v");
    setup.advance(MAX_STALENESS - 1);
    assert!(setup.look_up(&key("k")).is_some());
    setup.advance(1);
    assert!(setup.look_up(&key("k")).is_none());
    setup.feed.answered(setup.tier.now());
    assert!(setup.look_up(&key("k")).is_none(), "the answer to one ping says too little");
    setup.feed.answered(setup.tier.now());
    assert!(setup.look_up(&key("k")).is_some());
}

#[tokio::test]
async fn a_call_joins_a_young_fetch_and_gets_its_reply() {
    let setup = setup(&NearOptions::default());
    let Begun::Fetch(fetch) = setup.tier.begin(&key("k")) else { panic!("the key is not near") };
    setup.advance(MAX_STALENESS - 1);
    let Begun::Join(join) = setup.tier.begin(&key("k")) else { panic!("the key is being fetched") };
    let Begun::Join(given_up) = setup.tier.begin(&key("k")) else { panic!("the key is being fetched") };
    fetch.complete(&setup.found("v"));
    assert_eq!(join.reply().await.unwrap().unwrap(), Some("v".into()));
    assert_eq!(given_up.reply().await.unwrap().unwrap(), Some("v".into()));

    let Begun::Fetch(dropped) = setup.tier.begin(&key("other")) else { panic!("the key is not near") };
    let Begun::Join(join) = setup.tier.begin(&key("other")) else { panic!("the key is being fetched") };
    drop(dropped);
    assert!(join.reply().await.is_none());
    assert!(matches!(setup.tier.begin(&key("other")), Begun::Fetch(_)));
}

#[test]
fn a_fetch_as_old_as_max_staleness_is_not_joined() {
    let setup = setup(&NearOptions::default());
    let Begun::Fetch(old) = setup.tier.begin(&key("k")) else { panic!("the key is not near") };
    setup.advance(MAX_STALENESS);
    let Begun::Fetch(new) = setup.tier.begin(&key("k")) else { panic!("the fetch is too old to join") };
    old.complete(&setup.found("old"));
    assert!(setup.look_up(&key("k")).is_none(), "the fetch was replaced");
    new.complete(&setup.found("new"));
    assert!(setup.look_up(&key("k")).is_none(), "a read that ended meanwhile may be newer");
    setup.answer_pings();
    setup.bring_near(&key("k"), "newest");
    assert_eq!(setup.look_up(&key("k")), Some("newest".into()));
}

#[tokio::test]
async fn an_error_reaches_all_callers_and_is_not_kept() {
    let setup = setup(&NearOptions::default());
    let Begun::Fetch(fetch) = setup.tier.begin(&key("k")) else { panic!("the key is not near") };
    let Begun::Join(join) = setup.tier.begin(&key("k")) else { panic!("the key is being fetched") };
    fetch.complete(&Err(CacheError::WrongType));
    assert!(matches!(join.reply().await, Some(Err(CacheError::WrongType))));
    assert!(matches!(setup.tier.begin(&key("k")), Begun::Fetch(_)));
}

#[test]
fn max_expire_and_the_life_of_the_key_end_an_entry() {
    let options = NearOptions { max_expire: Some(StdDuration::from_millis(500)), ..NearOptions::default() };
    let setup = setup(&options);
    setup.bring_near(&key("k"), "v");
    let Begun::Fetch(fetch) = setup.tier.begin(&key("short")) else { panic!("the key is not near") };
    // The reply takes a while: the life counts from before the read was sent.
    setup.advance(100);
    let stamp = setup.feed.stamp().unwrap();
    let keep = Some(Keep { stamp, life: Some(StdDuration::from_millis(300)) });
    fetch.complete(&Ok(Fetched { value: Some("v".into()), keep }));
    setup.advance(199);
    assert!(setup.look_up(&key("short")).is_some());
    setup.advance(1);
    assert!(setup.look_up(&key("short")).is_none());
    setup.advance(199);
    assert!(setup.look_up(&key("k")).is_some());
    setup.advance(1);
    assert!(setup.look_up(&key("k")).is_none());
}

#[test]
fn max_expire_does_not_shorten_the_life_that_decides_whether_a_value_is_stale() {
    let options = NearOptions { max_expire: Some(StdDuration::from_millis(500)), ..NearOptions::default() };
    let setup = setup(&options);
    let Begun::Fetch(fetch) = setup.tier.begin(&key("k")) else { panic!("the key is not near") };
    let keep = Some(Keep { stamp: setup.feed.stamp().unwrap(), life: Some(StdDuration::from_secs(2)) });
    fetch.complete(&Ok(Fetched { value: Some("v".into()), keep }));
    setup.advance(499);
    assert!(setup.tier.look_up_fresh(key("k").as_ref(), StdDuration::from_millis(1500)).is_some());
    assert!(setup.tier.look_up_fresh(key("k").as_ref(), StdDuration::from_millis(1502)).is_none());
}

#[test]
fn a_value_over_the_limit_and_one_that_is_not_announced_are_not_kept() {
    let options = NearOptions { max_value_bytes: 3, ..NearOptions::default() };
    let setup = setup(&options);
    setup.bring_near(&key("short"), "abc");
    setup.bring_near(&key("long"), "abcd");
    let Begun::Fetch(fetch) = setup.tier.begin(&key("untracked")) else { panic!("the key is not near") };
    fetch.complete(&Ok(Fetched { value: Some("v".into()), keep: None }));
    assert!(setup.look_up(&key("short")).is_some());
    assert!(setup.look_up(&key("long")).is_none());
    assert!(setup.look_up(&key("untracked")).is_none());
}

/// Also if another feed takes the slot of the ended one.
#[test]
fn what_was_read_over_an_ended_feed_is_never_served_and_is_swept() {
    let mut setup = setup(&NearOptions::default());
    setup.bring_near(&key("a"), "v");
    let other = Feed::open(&setup.tier).unwrap();
    assert!(Feed::open(&setup.tier).is_none(), "there are two slots");
    setup.feed.close();
    assert!(setup.feed.stamp().is_none());
    setup.feed.complete_up_to(setup.tier.now());
    setup.feed = Feed::open(&setup.tier).unwrap();
    setup.answer_pings();
    assert_eq!(setup.tier.status().entries, 1);
    setup.tier.sweep();
    assert_eq!(setup.tier.status().entries, 0);
    assert!(setup.look_up(&key("a")).is_none());
    setup.bring_near(&key("a"), "w");
    assert_eq!(setup.look_up(&key("a")), Some("w".into()));
    // A flush of one feed leaves what another one announces.
    other.flush();
    assert!(setup.look_up(&key("a")).is_some());
    setup.feed.flush();
    assert!(setup.look_up(&key("a")).is_none());
}

/// A node of a cluster.
#[test]
fn a_feed_serves_what_was_read_while_its_server_was_known_to_have_the_part() {
    let mut setup = setup(&NearOptions::default());
    setup.feed = Feed::open_partial(&setup.tier, "a").unwrap();
    let parts = |all: &[u16]| {
        let mut parts = Parts::none();
        all.iter().for_each(|part| parts.insert(*part));
        parts
    };
    assert!(setup.feed.stamp_of(|| 1).is_none(), "the server has not answered");
    assert!(!setup.feed.has_parts(parts(&[1, 2])));
    let before = setup.feed.stamp_of(|| 1).unwrap();
    setup.bring_near(&key("k"), "v");
    // One more part is no loss.
    assert!(!setup.feed.has_parts(parts(&[1, 2, 3])));
    assert!(setup.look_up(&key("k")).is_some());
    assert!(setup.feed.has_parts(parts(&[1, 3])));
    assert!(setup.look_up(&key("k")).is_none());
    assert!(setup.feed.stamp_of(|| 2).is_none());
    assert_ne!(setup.feed.stamp_of(|| 1), Some(before), "what was under way is not kept");
}

#[test]
fn a_flush_during_a_fetch_keeps_its_value_out() {
    let setup = setup(&NearOptions::default());
    let Begun::Fetch(fetch) = setup.tier.begin(&key("k")) else { panic!("the key is not near") };
    let found = setup.found("v");
    setup.feed.flush();
    fetch.complete(&found);
    assert!(setup.look_up(&key("k")).is_none());
}

#[tokio::test]
async fn a_clear_by_pattern_removes_what_matches_and_poisons_every_fetch() {
    let setup = setup(&NearOptions::default());
    for name in ["a1", "a2", "b1"] {
        setup.bring_near(&key(name), "v");
    }
    let Begun::Fetch(fetch) = setup.tier.begin(&key("a3")) else { panic!("the key is not near") };
    let found = setup.found("v");
    setup.tier.invalidate_selected(&Selection::matching(None, "a*").unwrap()).await;
    fetch.complete(&found);
    let near = ["a1", "a2", "a3", "b1"].map(|name| setup.look_up(&key(name)).is_some());
    assert_eq!(near, [false, false, false, true]);
}

#[test]
fn the_entries_of_a_share_evict_only_each_other() {
    let namespaces = ["a", "b"].map(|name| Namespace::new(name).unwrap());
    let shares = vec![(namespaces[0].clone(), 256 << 10)];
    let options = NearOptions { max_bytes: 1 << 20, max_value_bytes: 1024, shares, ..NearOptions::default() };
    let setup = setup(&options);
    let own = Key::new(Some(&namespaces[0]), "k").unwrap();
    setup.bring_near(&own, vec![0; 1024]);
    for n in 0..5_000 {
        setup.bring_near(&Key::new(Some(&namespaces[1]), &format!("k{n}")).unwrap(), vec![0; 1024]);
    }
    let status = setup.tier.status();
    assert!(status.bytes <= 1 << 20 && status.evictions > 3_000, "{status:?}");
    assert!(setup.look_up(&own).is_some());
}

#[test]
fn the_status_counts_look_ups_announcements_and_the_age_of_the_horizon() {
    let setup = setup(&NearOptions::default());
    setup.bring_near(&key("k"), "v");
    assert!(setup.look_up(&key("k")).is_some(), "not counted");
    assert!(matches!(setup.tier.begin(&key("k")), Begun::Hit(_)));
    setup.advance(300);
    setup.feed.announced("k");
    setup.feed.announced("never read");
    setup.feed.flush();
    let status = setup.tier.status();
    assert_eq!((status.hits, status.misses, status.invalidations), (1, 1, 2));
    assert_eq!((status.flushes, status.losses), (1, 0));
    assert_eq!(status.horizon_age, Some(StdDuration::from_millis(300)));
    assert_eq!(status.max_staleness, StdDuration::from_secs(1));
    setup.answer_pings();
    assert_eq!(setup.tier.status().horizon_age, Some(StdDuration::ZERO));
    setup.feed.close();
    assert_eq!((setup.tier.status().losses, setup.tier.status().horizon_age), (1, None));
}

#[test]
fn the_last_value_is_known_until_a_connection_is_there_again() {
    let Setup { clock: _clock, tier, feed } = setup(&NearOptions::default());
    let key = key("k");
    let Begun::Fetch(fetch) = tier.begin(&key) else { panic!("the key is near") };
    let keep = feed.stamp().map(|stamp| Keep { stamp, life: None });
    fetch.complete(&Ok(Fetched { value: Some("v".into()), keep }));
    feed.close();
    tier.sweep();
    assert_eq!(tier.look_up(key.as_ref()), None);
    assert_eq!(tier.last_known(key.as_ref()), Some("v".into()));
    let _next = Feed::open(&tier).unwrap();
    assert_eq!(tier.last_known(key.as_ref()), None);
    tier.sweep();
    assert_eq!(tier.status().entries, 0);
}

/// Fetches a key over a feed of this server, which then ends.
fn bring_near_from(tier: &Arc<Tier>, server: &str, key: &Key) {
    let feed = Feed::open_partial(tier, server).unwrap();
    let Begun::Fetch(fetch) = tier.begin(key) else { panic!("the key is near") };
    let keep = feed.stamp().map(|stamp| Keep { stamp, life: None });
    fetch.complete(&Ok(Fetched { value: Some("v".into()), keep }));
}

#[test]
fn the_last_value_of_a_server_is_known_while_others_come_and_go_and_keys_stay_where_they_are() {
    let Setup { clock: _clock, tier, feed: _feed } = setup(&NearOptions::default());
    let ends: [fn(&Arc<Tier>); 2] = [|tier| drop(Feed::open_partial(tier, "lost")), |tier| tier.moved()];
    for end in ends {
        let key = key("k");
        bring_near_from(&tier, "lost", &key);
        // As many as are told apart beside it.
        for other in 1..SERVERS {
            drop(Feed::open_partial(&tier, &format!("other {other}")).unwrap());
        }
        assert_eq!(tier.last_known(key.as_ref()), Some("v".into()));
        end(&tier);
        assert_eq!(tier.last_known(key.as_ref()), None);
        tier.sweep();
        assert_eq!(tier.status().entries, 0);
    }
}

#[test]
fn beyond_those_that_are_told_apart_a_server_ends_the_last_values_of_the_one_named_longest_ago() {
    let Setup { clock: _clock, tier, feed: _feed } = setup(&NearOptions::default());
    let (first, second) = (key("first"), key("second"));
    for key in [&first, &second] {
        bring_near_from(&tier, key.as_str(), key);
    }
    for other in 1..SERVERS {
        drop(Feed::open_partial(&tier, &format!("other {other}")).unwrap());
    }
    assert_eq!(tier.last_known(first.as_ref()), None);
    assert_eq!(tier.last_known(second.as_ref()), Some("v".into()));
}

#[test]
fn what_was_removed_is_not_the_last_that_is_known() {
    let remove: [fn(&Setup, &Key); 3] = [
        |setup, key| setup.tier.invalidate(key.as_ref()),
        |setup, key| setup.feed.announced(key.as_str()),
        |setup, _| setup.feed.flush(),
    ];
    for remove in remove {
        let setup = setup(&NearOptions::default());
        let key = key("k");
        setup.bring_near(&key, "v");
        assert!(setup.tier.last_known(key.as_ref()).is_some());
        remove(&setup, &key);
        setup.feed.close();
        assert_eq!(setup.tier.last_known(key.as_ref()), None);
    }
}

#[test]
fn an_expired_value_is_not_the_last_that_is_known() {
    let setup = setup(&NearOptions::default());
    let key = key("k");
    let Begun::Fetch(fetch) = setup.tier.begin(&key) else { panic!("the key is near") };
    let keep = setup.feed.stamp().map(|stamp| Keep { stamp, life: Some(StdDuration::from_millis(500)) });
    fetch.complete(&Ok(Fetched { value: Some("v".into()), keep }));
    setup.feed.close();
    setup.advance(499);
    assert!(setup.tier.last_known(key.as_ref()).is_some());
    setup.advance(1);
    assert_eq!(setup.tier.last_known(key.as_ref()), None);
}

#[tokio::test]
async fn a_value_that_expired_while_it_was_fetched_is_not_for_those_who_joined() {
    let setup = setup(&NearOptions::default());
    for (advance, is_shared) in [(499, true), (500, false)] {
        let key = key(&format!("k{advance}"));
        let Begun::Fetch(fetch) = setup.tier.begin(&key) else { panic!("the key is near") };
        let Begun::Join(join) = setup.tier.begin(&key) else { panic!("the fetch is not joined") };
        let keep = setup.feed.stamp().map(|stamp| Keep { stamp, life: Some(StdDuration::from_millis(500)) });
        setup.advance(advance);
        fetch.complete(&Ok(Fetched { value: Some("v".into()), keep }));
        assert_eq!(join.reply().await.is_some(), is_shared, "after {advance} ms");
    }
}
