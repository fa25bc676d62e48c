//! A set or clear invalidates a computation that began before it.

use std::sync::Arc;

use larder_host::cache::{Cache, Duration, ScopedCache};

use super::{LONG_WAIT, answer, fill, many_waiting, occupied, take_over, vacancy, waiting};
use crate::backends::{Backend, bytes, namespaced, over_every_backend, pass_a_millisecond, put, put_expired, view};

over_every_backend! {
    a_clear_makes_a_fill_too_late,
    a_clear_pattern_makes_a_fill_too_late,
    a_clear_all_makes_a_fill_too_late,
    a_set_makes_a_fill_too_late_and_its_value_stays,
    a_set_many_makes_a_fill_too_late_and_its_value_stays,
    a_set_and_a_clear_make_a_fill_too_late,
    a_value_set_meanwhile_and_expired_makes_a_fill_too_late,
    calls_for_other_keys_do_not_disturb,
    a_refused_set_does_not_disturb,
    waiters_from_before_a_clear_compute_again_and_once,
    a_value_set_meanwhile_reaches_the_waiters,
    a_value_set_by_set_many_reaches_the_waiters,
    a_vacancy_given_after_a_clear_is_not_too_late,
    a_vacancy_passed_on_is_too_late_after_a_clear_as_well,
}

/// Holds a vacancy for `user:1`, lets another plugin do something, and asserts that the fill comes too late.
async fn assert_too_late(cache: &Arc<Cache>, left: Option<&str>, overtake: impl AsyncFnOnce(&ScopedCache)) {
    let (holder, other) = (view(cache), view(cache));
    let vacancy = vacancy(&holder, "user:1").await;
    overtake(&other).await;
    assert_eq!(fill(&holder, vacancy, "too late").await, Ok(false));
    assert_eq!(holder.get("user:1").await.unwrap(), left.map(bytes));
}

async fn a_clear_makes_a_fill_too_late(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    assert_too_late(&cache, None, async |other| assert!(!other.clear("user:1").await.unwrap())).await;
}

async fn a_clear_pattern_makes_a_fill_too_late(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let clear = async |other: &ScopedCache| assert_eq!(other.clear_pattern("u*:[1-9]").await.unwrap(), 0);
    assert_too_late(&cache, None, clear).await;
}

async fn a_clear_all_makes_a_fill_too_late(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    assert_too_late(&cache, None, async |other| assert_eq!(other.clear_all().await.unwrap(), 0)).await;
}

async fn a_set_makes_a_fill_too_late_and_its_value_stays(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let set = async |other: &ScopedCache| other.set("user:1", bytes("set"), Duration::Default).await.unwrap();
    assert_too_late(&cache, Some("set"), set).await;
}

async fn a_set_many_makes_a_fill_too_late_and_its_value_stays(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let entries = vec![("x".to_owned(), b"x".to_vec()), ("user:1".to_owned(), b"set".to_vec())];
    let set = async |other: &ScopedCache| other.set_many(entries, Duration::Default).await.unwrap();
    assert_too_late(&cache, Some("set"), set).await;
}

async fn a_set_and_a_clear_make_a_fill_too_late(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let set_and_clear = async |other: &ScopedCache| {
        put(other, &["user:1"]).await;
        assert!(other.clear("user:1").await.unwrap());
    };
    assert_too_late(&cache, None, set_and_clear).await;
}

async fn a_value_set_meanwhile_and_expired_makes_a_fill_too_late(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    assert_too_late(&cache, None, async |other| put_expired(other, "user:1").await).await;
    let entries = vec![("user:1".to_owned(), b"set".to_vec())];
    let set_many = async |other: &ScopedCache| {
        other.set_many(entries, Duration::Milliseconds(1)).await.unwrap();
        pass_a_millisecond(other).await;
    };
    assert_too_late(&cache, None, set_many).await;
}

async fn calls_for_other_keys_do_not_disturb(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let (holder, other, shop) = (view(&cache), view(&cache), namespaced(&cache, "shop"));
    let (held, shops) = (vacancy(&holder, "user:1").await, vacancy(&shop, "post:1").await);
    let caller = waiting(&cache, "user:1").await;
    put(&other, &["user:2", "user:*"]).await;
    other.set_many(vec![("user:3".to_owned(), b"v".to_vec())], Duration::Default).await.unwrap();
    assert!(!other.clear("user:?").await.unwrap());
    assert!(other.clear("user:*").await.unwrap());
    assert_eq!(other.clear_pattern("post:*").await.unwrap(), 0);
    assert_eq!(shop.clear_pattern("user:*").await.unwrap(), 0);
    assert!(!shop.clear("user:1").await.unwrap());
    assert!(!caller.is_finished());
    assert_eq!(fill(&holder, held, "in time").await, Ok(true));
    assert_eq!(occupied(answer(caller).await), bytes("in time"));
    assert_eq!(other.clear_all().await.unwrap(), 3);
    assert_eq!(fill(&shop, shops, "in time").await, Ok(true));
    assert_eq!(shop.clear_all().await.unwrap(), 1);
}

async fn a_refused_set_does_not_disturb(backend: Backend) {
    let cache = backend.cache(&format!("{LONG_WAIT}\nmax_value_bytes = 10")).await;
    let (holder, other) = (view(&cache), view(&cache));
    let vacancy = vacancy(&holder, "k").await;
    assert!(other.set("k", bytes("0123456789a"), Duration::Default).await.is_err());
    assert!(other.set("k", bytes("v"), Duration::Milliseconds(0)).await.is_err());
    assert_eq!(fill(&holder, vacancy, "in time").await, Ok(true));
}

async fn waiters_from_before_a_clear_compute_again_and_once(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let (holder, other) = (view(&cache), view(&cache));
    let outdated = vacancy(&holder, "k").await;
    let callers = many_waiting(&cache, "k", 5).await;
    other.clear("k").await.unwrap();
    let (anew, callers) = take_over(callers).await;
    assert_eq!(fill(&holder, outdated, "outdated").await, Ok(false));
    super::look_around(&other).await;
    assert!(callers.iter().all(|caller| !caller.is_finished()));
    assert_eq!(fill(&other, anew, "anew").await, Ok(true));
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("anew"));
    }
    assert_eq!(other.get("k").await.unwrap(), Some(bytes("anew")));
}

async fn a_value_set_meanwhile_reaches_the_waiters(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 5).await;
    view(&cache).set("k", bytes("set"), Duration::Default).await.unwrap();
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("set"));
    }
    assert_eq!(fill(&view(&cache), vacancy, "too late").await, Ok(false));
}

async fn a_value_set_by_set_many_reaches_the_waiters(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let _held = (vacancy(&view(&cache), "a").await, vacancy(&view(&cache), "b").await);
    let (a, b) = (waiting(&cache, "a").await, waiting(&cache, "b").await);
    let entries = vec![("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
    view(&cache).set_many(entries, Duration::Default).await.unwrap();
    assert_eq!(occupied(answer(a).await), bytes("1"));
    assert_eq!(occupied(answer(b).await), bytes("2"));
}

async fn a_vacancy_given_after_a_clear_is_not_too_late(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let outdated = vacancy(&view(&cache), "k").await;
    view(&cache).clear("k").await.unwrap();
    let fresh = vacancy(&view(&cache), "k").await;
    // The end of the outdated computation must not remove the new one.
    drop(outdated);
    let caller = waiting(&cache, "k").await;
    assert_eq!(fill(&view(&cache), fresh, "fresh").await, Ok(true));
    assert_eq!(occupied(answer(caller).await), bytes("fresh"));
}

async fn a_vacancy_passed_on_is_too_late_after_a_clear_as_well(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let first = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 2).await;
    drop(first);
    let (passed_on, callers) = take_over(callers).await;
    view(&cache).clear_all().await.unwrap();
    assert_eq!(fill(&view(&cache), passed_on, "too late").await, Ok(false));
    let (anew, _) = take_over(callers).await;
    assert_eq!(fill(&view(&cache), anew, "anew").await, Ok(true));
}

mod servers {
    use super::*;
    use crate::backends::over_every_server;

    over_every_server! { a_value_set_by_another_process_makes_a_fill_too_late }

    /// Another cache on the same server knows as little of our vacancies as another process does.
    async fn a_value_set_by_another_process_makes_a_fill_too_late(backend: Backend) {
        let (cache, elsewhere) = (backend.cache(LONG_WAIT).await, backend.cache(LONG_WAIT).await);
        assert_too_late(&cache, Some("user:1"), async |_| put(&view(&elsewhere), &["user:1"]).await).await;
    }
}
