//! The in-memory host. `tests/behaviour/sdk/testing.rs` compares its answers with those of the real host.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};
use std::time::Duration as StdDuration;

use super::*;
use crate::{Cache, Entry, Error, Freshness, Refresh, Vacancy};

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

/// Polls a future once, which must be enough.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// A get-or-refresh of `k`, fresh for one second and stale for nine, that computes the given value.
type Get = fn(&Cache, u32) -> Result<u32, Error>;

/// The forms that refresh within the call.
const FORMS: [Get; 4] = [
    |cache, value| cache.get_or_refresh("k", SECOND, 9 * SECOND, || value),
    |cache, value| cache.try_get_or_refresh("k", SECOND, 9 * SECOND, || Ok(value), |error: Error| panic!("{error}")),
    |cache, value| ready(cache.get_or_refresh_async("k", SECOND, 9 * SECOND, async || value)),
    |cache, value| {
        let on_error = |error: Error| panic!("{error}");
        ready(cache.try_get_or_refresh_async("k", SECOND, 9 * SECOND, async || Ok(value), on_error))
    },
];

/// A get-or-refresh of `k` whose computation fails, and the errors that its callback gets.
type GetFailing = fn(&Cache, &RefCell<Vec<Error>>) -> Result<u32, Error>;

const FAILING: [GetFailing; 2] = [
    |cache, errors| {
        let on_error = |error| errors.borrow_mut().push(error);
        cache.try_get_or_refresh("k", SECOND, 9 * SECOND, || Err(source_is_down()), on_error)
    },
    |cache, errors| {
        let on_error = |error| errors.borrow_mut().push(error);
        ready(cache.try_get_or_refresh_async("k", SECOND, 9 * SECOND, async || Err(source_is_down()), on_error))
    },
];

fn source_is_down() -> Error {
    Error::Other("the source is down".to_owned())
}

#[test]
fn a_value_is_fresh_then_stale_for_all_but_the_one_who_refreshes_and_then_gone() {
    for get in FORMS {
        reset();
        let (ours, theirs) = (Cache::open("pages").unwrap(), another("pages"));
        assert_eq!(get(&ours, 1), Ok(1));
        assert_eq!(cache("pages").duration_left("k"), Some(Duration::Milliseconds(10_000)));
        advance(SECOND - StdDuration::from_millis(1));
        assert_eq!(get(&ours, 2), Ok(1));
        advance(StdDuration::from_millis(1));
        // While one caller refreshes, the other one gets the stale value.
        let Freshness::Stale { value, refresh: Some(refresh) } = ours.freshness("k", 9 * SECOND).unwrap() else {
            panic!("it is stale")
        };
        assert_eq!((value.as_slice(), get(&theirs, 2)), (&b"1"[..], Ok(1)));
        assert_eq!(theirs.get("k"), Ok(Some(1)));
        assert_eq!(refresh.fill_stale(b"3", SECOND, 9 * SECOND), Ok(true));
        assert_eq!(get(&theirs, 4), Ok(3));
        advance(SECOND);
        assert_eq!((get(&ours, 5), get(&theirs, 6)), (Ok(5), Ok(5)));
        advance(10 * SECOND);
        assert_eq!(ours.get::<u32>("k"), Ok(None));
        assert_eq!(get(&ours, 7), Ok(7));
    }
}

#[test]
fn a_refresh_that_fails_returns_the_stale_value_pauses_and_leaves_its_end_as_it_was() {
    for get in FAILING {
        reset();
        let (pages, errors) = (Cache::open("pages").unwrap(), RefCell::default());
        assert_eq!(get(&pages, &errors), Err(source_is_down()));
        assert_eq!(FORMS[0](&pages, 1), Ok(1));
        advance(SECOND);
        assert_eq!(get(&pages, &errors), Ok(1));
        assert_eq!(errors.borrow().as_slice(), [source_is_down()]);
        advance(SECOND - StdDuration::from_millis(1));
        // No caller tries again yet.
        assert_eq!((get(&pages, &errors), FORMS[0](&another("pages"), 2)), (Ok(1), Ok(1)));
        assert_eq!(errors.borrow().len(), 1);
        advance(StdDuration::from_millis(1));
        assert_eq!((get(&pages, &errors), errors.borrow().len()), (Ok(1), 2));
        assert_eq!(cache("pages").duration_left("k"), Some(Duration::Milliseconds(8_000)));
        advance(8 * SECOND);
        assert_eq!((get(&pages, &errors), errors.borrow().len()), (Err(source_is_down()), 2));
    }
}

#[test]
fn a_refresh_that_takes_longer_than_max_lease_passes_to_another_caller() {
    reset();
    let (ours, theirs) = (Cache::open("pages").unwrap(), another("pages"));
    let refresh = |cache: &Cache| match cache.freshness("k", 3600 * SECOND).unwrap() {
        Freshness::Stale { refresh, .. } => refresh,
        other => panic!("it is stale: {other:?}"),
    };
    ours.set_with_duration("k", &1, 3600 * SECOND).unwrap();
    let slow = refresh(&ours).unwrap();
    advance(300 * SECOND - StdDuration::from_millis(1));
    assert!(refresh(&theirs).is_none());
    advance(StdDuration::from_millis(1));
    let next = refresh(&theirs).unwrap();
    drop(slow);
    assert!(refresh(&ours).is_none(), "one that ends late leaves that of another caller");
    assert_eq!(next.fill(b"2", SECOND), Ok(true));
}

/// A get-then-refresh of `k` in one of its forms.
type GetFirst = fn(&Cache, u32) -> Result<(u32, Option<Refresh>), Error>;

const FORMS_THAT_ANSWER_FIRST: [GetFirst; 4] = [
    |cache, value| cache.get_then_refresh("k", SECOND, 9 * SECOND, || value),
    |cache, value| cache.try_get_then_refresh("k", SECOND, 9 * SECOND, || Ok(value)),
    |cache, value| ready(cache.get_then_refresh_async("k", SECOND, 9 * SECOND, async || value)),
    |cache, value| ready(cache.try_get_then_refresh_async("k", SECOND, 9 * SECOND, async || Ok(value))),
];

#[test]
fn a_plugin_answers_first_and_refreshes_then() {
    for form in FORMS_THAT_ANSWER_FIRST {
        reset();
        let (ours, theirs) = (Cache::open("pages").unwrap(), another("pages"));
        let get = |cache: &Cache, value: u32| form(cache, value).unwrap();
        assert!(matches!(get(&ours, 1), (1, None)));
        assert!(matches!(get(&ours, 2), (1, None)));
        advance(SECOND);
        let (1, Some(refresh)) = get(&ours, 2) else { panic!("it is stale") };
        assert!(matches!(get(&theirs, 2), (1, None)));
        assert_eq!(refresh.store(&3), Ok(true));
        assert_eq!(cache("pages").duration_left("k"), Some(Duration::Milliseconds(10_000)));
        assert!(matches!(get(&theirs, 4), (3, None)));
        advance(SECOND);
        let (3, Some(dropped)) = get(&ours, 5) else { panic!("it is stale") };
        drop(dropped);
        assert!(matches!(get(&theirs, 5), (3, None)));
        advance(SECOND);
        let (3, Some(superseded)) = get(&theirs, 5) else { panic!("the pause is over") };
        ours.clear("k").unwrap();
        assert_eq!(superseded.store(&5), Ok(false));
        assert_eq!(ours.get::<u32>("k"), Ok(None));
    }
}

#[test]
fn a_plugin_that_answers_first_gets_the_error_of_its_closure_if_there_is_no_value() {
    let pages = Cache::open("pages").unwrap();
    let fail = || pages.try_get_then_refresh::<u32, _>("k", SECOND, SECOND, || Err(source_is_down()));
    let fail_async =
        || ready(pages.try_get_then_refresh_async::<u32, _>("k", SECOND, SECOND, async || Err(source_is_down())));
    assert_eq!((fail().unwrap_err(), fail_async().unwrap_err()), (source_is_down(), source_is_down()));
    assert_eq!(vacancy(&pages, "k").fill(b"1", SECOND), Ok(true));
    assert!(matches!((fail(), fail_async()), (Ok((1, _)), Ok((1, _)))));
}

#[test]
fn a_refresh_that_json_cannot_represent_is_an_error_and_given_back() {
    let pages = Cache::open("pages").unwrap();
    let get = || pages.get_then_refresh("k", SECOND, 9 * SECOND, || 1).unwrap();
    get();
    advance(SECOND);
    let map = std::collections::BTreeMap::from([((1, 2), 3)]);
    assert!(matches!(get().1.unwrap().store(&map), Err(Error::Codec(_))));
    assert!(get().1.is_none());
    advance(SECOND);
    assert!(get().1.is_some());
}

#[test]
fn a_set_or_clear_wins_over_a_refresh_in_progress() {
    let pages = Cache::open("pages").unwrap();
    let change: [fn(&Cache); 4] = [
        |cache| cache.set_with_duration("k", &1, 10 * SECOND).unwrap(),
        |cache| assert_eq!(cache.clear("k"), Ok(true)),
        |cache| assert_eq!(cache.clear_pattern("*"), Ok(1)),
        |cache| assert_eq!(cache.clear_all(), Ok(1)),
    ];
    for change in change {
        pages.clear_all().unwrap();
        FORMS[0](&pages, 1).unwrap();
        advance(SECOND);
        let Freshness::Stale { refresh: Some(refresh), .. } = pages.freshness("k", 9 * SECOND).unwrap() else {
            panic!("it is stale")
        };
        change(&another("pages"));
        let before = pages.get::<u32>("k");
        assert_eq!(refresh.fill_stale(b"2", SECOND, SECOND), Ok(false));
        assert_eq!(pages.get::<u32>("k"), before);
    }
}

#[test]
fn stored_bytes_that_are_not_json_are_computed_again_whether_fresh_or_stale() {
    for get in FORMS {
        reset();
        let (ours, theirs) = (Cache::open("pages").unwrap(), another("pages"));
        for life in [5 * SECOND, 100 * SECOND] {
            ours.set_bytes_with_duration("k", b"{", life).unwrap();
            assert_eq!((get(&ours, 1), get(&ours, 2)), (Ok(1), Ok(1)), "{life:?}");
        }
        // The bytes are stale, and another caller refreshes them.
        ours.set_bytes_with_duration("k", b"{", 5 * SECOND).unwrap();
        let Freshness::Stale { refresh: Some(refresh), .. } = theirs.freshness("k", 9 * SECOND).unwrap() else {
            panic!("it is stale")
        };
        assert_eq!(get(&ours, 3), Ok(3));
        assert_eq!(refresh.fill_stale(b"4", SECOND, SECOND), Ok(false));
        assert_eq!(get(&ours, 5), Ok(3));
    }
}

#[test]
fn max_expire_bounds_a_value_and_half_of_it_its_stale_part() {
    cache("pages").max_expire(Some(10 * SECOND));
    let pages = Cache::open("pages").unwrap();
    let get = |value: u32| pages.get_or_refresh("k", 60 * SECOND, 60 * SECOND, || value);
    assert_eq!(get(1), Ok(1));
    assert_eq!(cache("pages").duration_left("k"), Some(Duration::Milliseconds(10_000)));
    advance(5 * SECOND - StdDuration::from_millis(1));
    assert_eq!(get(2), Ok(1));
    advance(StdDuration::from_millis(1));
    assert_eq!(get(2), Ok(2));
}

#[test]
fn a_value_without_expiry_is_never_stale() {
    let pages = Cache::open("pages").unwrap();
    let get = |value: u32| pages.get_or_refresh("k", Duration::Unlimited, SECOND, || value);
    assert_eq!(get(1), Ok(1));
    advance(StdDuration::MAX);
    assert_eq!(get(2), Ok(1));
}

#[test]
fn a_stale_part_of_zero_or_without_end_is_refused() {
    let pages = Cache::open("pages").unwrap();
    let rule = Error::InvalidArgument("stale: must be neither zero nor unlimited".to_owned());
    for stale in [Duration::Milliseconds(0), Duration::Unlimited] {
        assert_eq!(pages.get_or_refresh("k", SECOND, stale, || 1), Err(rule.clone()));
        assert_eq!(vacancy(&pages, "k").fill_stale(b"1", SECOND, stale), Err(rule.clone()));
    }
    cache("pages").access(Access::ReadOnly);
    assert_eq!(pages.get_or_refresh("k", SECOND, SECOND, || 1), Err(Error::AccessDenied));
}

#[test]
fn during_an_outage_a_get_or_refresh_computes_or_fails_as_configured() {
    for get in FORMS {
        reset();
        let pages = Cache::open("pages").unwrap();
        get(&pages, 1).unwrap();
        outage(Outage::Unavailable);
        assert_eq!(get(&pages, 2), Ok(2));
        cache("pages").on_outage(OnOutage::Error);
        assert_eq!(get(&pages, 3), Err(Error::Unavailable));
        recover();
        assert_eq!(get(&pages, 4), Ok(1));
    }
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
