//! The in-memory host. `tests/behaviour/sdk/testing.rs` compares its answers with those of the real host.

use std::time::Duration as StdDuration;

use super::*;
use crate::{Cache, Entry, Error, Vacancy};

const SECOND: StdDuration = StdDuration::from_secs(1);

fn vacancy(cache: &Cache, key: &str) -> Vacancy {
    match cache.entry(key).unwrap() {
        Entry::Vacant(vacancy) => vacancy,
        Entry::Occupied(value) => panic!("{value:?}"),
    }
}

fn another(name: &str) -> Cache {
    as_another_plugin(|| Cache::open(name)).unwrap()
}

#[test]
fn each_cache_has_its_own_keys() {
    let (one, two) = (Cache::open("one").unwrap(), Cache::open("two").unwrap());
    one.set("k", "v").unwrap();
    assert_eq!((one.get("k"), two.get::<String>("k")), (Ok(Some("v".to_owned())), Ok(None)));
    assert_eq!(Cache::open("one").unwrap().get("k"), Ok(Some("v".to_owned())));
    Cache::default().unwrap().set("k", "w").unwrap();
    assert_eq!(cache("default").keys(), ["k"]);
}

#[test]
fn a_list_of_caches_sets_the_default_and_excludes_other_names() {
    caches(["pages", "sessions"]);
    Cache::default().unwrap().set("k", "v").unwrap();
    assert_eq!((cache("pages").keys().len(), cache("sessions").keys().len()), (1, 0));
    assert_eq!(Cache::open("shop").unwrap_err(), Error::NoSuchCache);
    caches::<String>([]);
    assert_eq!(Cache::default().unwrap_err(), Error::NoSuchCache);
}

#[test]
fn access_is_enforced() {
    cache("secret").access(Access::Denied);
    assert_eq!(Cache::open("secret").unwrap_err(), Error::AccessDenied);
    let pages = Cache::open("pages").unwrap();
    pages.set("k", "v").unwrap();
    cache("pages").access(Access::ReadOnly);
    assert_eq!(pages.get("k"), Ok(Some("v".to_owned())));
    assert_eq!(pages.get_many::<String>(&["k", "x"]), Ok(vec![Some("v".to_owned()), None]));
    assert_eq!(pages.set("k", "w"), Err(Error::AccessDenied));
    assert_eq!(pages.entry("k").unwrap_err(), Error::AccessDenied);
    assert_eq!(pages.clear_pattern("*"), Err(Error::AccessDenied));
}

#[test]
fn a_value_expires_exactly_after_its_duration() {
    let pages = Cache::open("pages").unwrap();
    pages.set_with_duration("k", "v", SECOND).unwrap();
    pages.set("default", "v").unwrap();
    pages.set_with_duration("kept", "v", Duration::Unlimited).unwrap();
    advance(SECOND - StdDuration::from_millis(1));
    assert_eq!(pages.get("k"), Ok(Some("v".to_owned())));
    assert_eq!(cache("pages").duration_left("k"), Some(Duration::Milliseconds(1)));
    advance(StdDuration::from_millis(1));
    assert_eq!(pages.get::<String>("k"), Ok(None));
    assert_eq!(pages.clear("k"), Ok(false));
    assert_eq!(cache("pages").duration_left("k"), None);
    advance(299 * SECOND);
    assert_eq!(cache("pages").keys(), ["kept"]);
    assert_eq!(cache("pages").duration_left("kept"), Some(Duration::Unlimited));
    advance(StdDuration::MAX);
    assert_eq!(pages.get("kept"), Ok(Some("v".to_owned())));
}

#[test]
fn expiry_settings_apply_to_durations() {
    cache("pages").default_expire(None).max_expire(Some(SECOND));
    let pages = Cache::open("pages").unwrap();
    pages.set("default", "v").unwrap();
    pages.set_with_duration("long", "v", Duration::Milliseconds(u64::MAX)).unwrap();
    for key in ["default", "long"] {
        assert_eq!(cache("pages").duration_left(key), Some(Duration::Milliseconds(1000)), "{key}");
    }
    cache("pages").max_expire(None);
    pages.set("default", "v").unwrap();
    assert_eq!(cache("pages").duration_left("default"), Some(Duration::Unlimited));
}

#[test]
fn a_value_is_computed_once_and_again_after_a_clear() {
    let pages = Cache::open("pages").unwrap();
    assert_eq!(pages.get_or_set("k", SECOND, || 1), Ok(1));
    assert_eq!(pages.get_or_set("k", SECOND, || 2), Ok(1));
    pages.clear("k").unwrap();
    assert_eq!(pages.get_or_set("k", SECOND, || 2), Ok(2));
}

#[test]
fn a_dropped_vacancy_passes_on() {
    let pages = Cache::open("pages").unwrap();
    drop(vacancy(&pages, "k"));
    assert_eq!(vacancy(&pages, "k").fill(b"1", SECOND), Ok(true));
    assert_eq!(pages.get("k"), Ok(Some(1)));
}

#[test]
fn a_plugin_that_requests_the_key_it_computes_gets_an_error() {
    let pages = Cache::open("pages").unwrap();
    let inner = pages.get_or_set("k", SECOND, || pages.get_or_set("k", SECOND, || 1).unwrap_err().to_string());
    assert_eq!(inner.unwrap(), "invalid argument: key: this plugin instance holds its vacancy already");
}

#[test]
fn a_set_or_clear_wins_over_a_computation_in_progress() {
    let (ours, theirs) = (Cache::open("pages").unwrap(), another("pages"));
    let outdated = vacancy(&ours, "k");
    theirs.set("k", "newer").unwrap();
    assert_eq!(outdated.fill(b"\"older\"", SECOND), Ok(false));
    assert_eq!(ours.get("k"), Ok(Some("newer".to_owned())));
    for clear in [|cache: &Cache| cache.clear("k").map(u64::from), |cache: &Cache| cache.clear_pattern("[k]")] {
        ours.clear("k").unwrap();
        let outdated = vacancy(&ours, "k");
        assert_eq!(clear(&theirs), Ok(0));
        assert_eq!(outdated.fill(b"1", SECOND), Ok(false));
        assert_eq!(ours.get::<u32>("k"), Ok(None));
    }
}

#[test]
fn one_of_two_concurrent_computations_is_stored() {
    let (ours, theirs) = (Cache::open("pages").unwrap(), another("pages"));
    let (first, second) = (vacancy(&ours, "k"), vacancy(&theirs, "k"));
    assert_eq!(second.fill(b"2", SECOND), Ok(true));
    assert_eq!(first.fill(b"1", SECOND), Ok(false));
    assert_eq!(ours.get("k"), Ok(Some(2)));
}

#[test]
fn a_vacancy_held_longer_than_its_lease_stores_nothing() {
    let pages = Cache::open("pages").unwrap();
    let (late, in_time) = (vacancy(&pages, "late"), vacancy(&pages, "in time"));
    advance(300 * SECOND - StdDuration::from_millis(1));
    assert_eq!(in_time.fill(b"1", SECOND), Ok(true));
    advance(StdDuration::from_millis(1));
    assert_eq!(late.fill(b"1", SECOND), Ok(false));
}

#[test]
fn an_outage_fails_writes_and_turns_reads_into_misses() {
    let pages = Cache::open("pages").unwrap();
    pages.set("k", &1).unwrap();
    for (kind, error) in [(Outage::Unavailable, Error::Unavailable), (Outage::Timeout, Error::Timeout)] {
        outage(kind);
        assert_eq!(pages.get::<u32>("k"), Ok(None));
        assert_eq!(pages.get_many::<u32>(&["k"]), Ok(vec![None]));
        assert_eq!(pages.get_or_set("k", SECOND, || 2), Ok(2));
        assert_eq!(vacancy(&pages, "k").fill(b"2", SECOND), Err(error.clone()));
        assert_eq!(pages.set("k", &2), Err(error.clone()));
        assert_eq!(pages.clear("k"), Err(error.clone()));
        assert_eq!(pages.clear_all(), Err(error.clone()));
        cache("pages").on_outage(OnOutage::Error);
        assert_eq!(pages.get::<u32>("k"), Err(error.clone()));
        assert_eq!(pages.get_or_set("k", SECOND, || 2), Err(error));
        cache("pages").on_outage(OnOutage::Miss);
        recover();
        assert_eq!(pages.get("k"), Ok(Some(1)));
    }
    outage(Outage::Unavailable);
    let during = vacancy(&pages, "new");
    recover();
    assert_eq!(during.fill(b"1", SECOND), Ok(false));
}

#[test]
fn arguments_are_checked() {
    cache("pages").max_value_bytes(20);
    let pages = Cache::open("pages").unwrap();
    assert_eq!(pages.set_bytes("k".repeat(1024), b"v"), Ok(()));
    let message = |outcome: Result<(), Error>| outcome.unwrap_err().to_string();
    for (key, rule) in [
        ("".to_owned(), "key: must not be empty"),
        ("k".repeat(1025), "key: must not be longer than 1024 bytes, but has 1025"),
        ("a\nb".to_owned(), "key: must not hold control characters"),
    ] {
        assert_eq!(message(pages.set_bytes(&key, b"v")), format!("invalid argument: {rule}"));
    }
    assert_eq!(pages.set_bytes("k", &[0; 21]), Err(Error::ValueTooLarge(20)));
    assert_eq!(vacancy(&pages, "k").fill(&[0; 21], SECOND), Err(Error::ValueTooLarge(20)));
    assert_eq!(
        message(pages.set_bytes("k", b"\0larder-lease:1")),
        "invalid argument: value: must not begin with the bytes that mark a lease"
    );
    assert_eq!(
        message(pages.set_with_duration("k", "v", StdDuration::ZERO)),
        "invalid argument: duration: must not be zero"
    );
    let keys = vec!["k"; 1025];
    assert_eq!(
        message(pages.get_many_bytes(&keys).map(drop)),
        "invalid argument: keys: must not be more than 1024, but are 1025"
    );
    assert!(message(pages.clear_pattern("[a-é]").map(drop)).contains("a range must not go"));
}

#[test]
fn a_handle_stays_with_its_host_in_another_thread() {
    let pages = Cache::open("pages").unwrap();
    pages.set("k", &1).unwrap();
    let elsewhere = move || {
        assert_eq!(pages.get("k"), Ok(Some(1)));
        assert_eq!(Cache::open("pages").unwrap().get::<u32>("k"), Ok(None));
        pages.set("k", &2).unwrap();
    };
    std::thread::spawn(elsewhere).join().unwrap();
    assert_eq!(Cache::open("pages").unwrap().get("k"), Ok(Some(2)));
}

#[test]
fn reset_creates_an_empty_host_and_keeps_open_handles_on_the_old_one() {
    let old = Cache::open("pages").unwrap();
    old.set("k", &1).unwrap();
    caches(["pages"]);
    reset();
    assert_eq!(Cache::open("other").unwrap().get::<u32>("k"), Ok(None));
    advance(1000 * SECOND);
    assert_eq!(old.get("k"), Ok(Some(1)));
}
