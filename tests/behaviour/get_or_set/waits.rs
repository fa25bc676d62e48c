//! Callers whose wait times out.

use std::time::Duration as StdDuration;

use larder_host::cache::Duration;

use super::{answer, fill, occupied, vacancy, vacant, waiting};
use crate::backends::{Backend, assert_invalid, bytes, over_every_backend, pass_a_millisecond, put, view, within};

over_every_backend! {
    a_waiter_whose_wait_runs_out_gets_a_vacancy_of_its_own,
    its_fill_does_not_overwrite_the_holder_s_value,
    the_holder_s_fill_does_not_overwrite_its_value,
    its_fill_comes_too_late_after_a_clear,
    its_fill_comes_too_late_after_a_set,
    its_fill_serves_the_waiters_of_the_holder,
    its_vacancy_is_not_the_vacancy_that_others_wait_for,
    it_holds_its_key_like_any_holder,
    two_plugins_that_wait_for_each_other_continue,
    no_wait_gives_a_vacancy_immediately,
    a_value_that_expired_meanwhile_makes_the_fill_of_the_holder_too_late,
}

const SHORT_WAIT: &str = "wait = \"50ms\"";

async fn a_waiter_whose_wait_runs_out_gets_a_vacancy_of_its_own(backend: Backend) {
    let cache = backend.cache(SHORT_WAIT).await;
    let asked = tokio::time::Instant::now();
    let _held = vacancy(&view(&cache), "k").await;
    let own = vacancy(&view(&cache), "k").await;
    assert!(asked.elapsed() >= StdDuration::from_millis(50));
    assert_eq!(fill(&view(&cache), own, "v").await, Ok(true));
    assert_eq!(view(&cache).get("k").await.unwrap(), Some(bytes("v")));
}

async fn its_fill_does_not_overwrite_the_holder_s_value(backend: Backend) {
    let cache = backend.cache(SHORT_WAIT).await;
    let held = vacancy(&view(&cache), "k").await;
    let own = vacancy(&view(&cache), "k").await;
    assert_eq!(fill(&view(&cache), held, "holder's").await, Ok(true));
    assert_eq!(fill(&view(&cache), own, "late").await, Ok(false));
    assert_eq!(view(&cache).get("k").await.unwrap(), Some(bytes("holder's")));
}

async fn the_holder_s_fill_does_not_overwrite_its_value(backend: Backend) {
    let cache = backend.cache(SHORT_WAIT).await;
    let held = vacancy(&view(&cache), "k").await;
    let own = vacancy(&view(&cache), "k").await;
    assert_eq!(fill(&view(&cache), own, "first").await, Ok(true));
    assert_eq!(fill(&view(&cache), held, "holder's").await, Ok(false));
    assert_eq!(view(&cache).get("k").await.unwrap(), Some(bytes("first")));
}

async fn its_fill_serves_the_waiters_of_the_holder(backend: Backend) {
    let cache = backend.cache(SHORT_WAIT).await;
    let _held = vacancy(&view(&cache), "k").await;
    let own = vacancy(&view(&cache), "k").await;
    let caller = waiting(&cache, "k").await;
    assert_eq!(fill(&view(&cache), own, "own").await, Ok(true));
    assert_eq!(occupied(answer(caller).await), bytes("own"));
}

async fn its_fill_comes_too_late_after_a_clear(backend: Backend) {
    let cache = backend.cache(SHORT_WAIT).await;
    let held = vacancy(&view(&cache), "k").await;
    let (one, two) = (vacancy(&view(&cache), "k").await, vacancy(&view(&cache), "k").await);
    assert_eq!(view(&cache).clear_pattern("?").await.unwrap(), 0);
    for outdated in [one, held, two] {
        assert_eq!(fill(&view(&cache), outdated, "too late").await, Ok(false));
    }
    assert_eq!(view(&cache).get("k").await.unwrap(), None);
}

async fn its_fill_comes_too_late_after_a_set(backend: Backend) {
    let cache = backend.cache(SHORT_WAIT).await;
    let _held = vacancy(&view(&cache), "k").await;
    let own = vacancy(&view(&cache), "k").await;
    put(&view(&cache), &["k"]).await;
    assert!(view(&cache).clear("k").await.unwrap());
    assert_eq!(fill(&view(&cache), own, "too late").await, Ok(false));
    assert_eq!(view(&cache).get("k").await.unwrap(), None);
}

/// Dropping it passes nothing on, and the holder's fill still wakes the others.
async fn its_vacancy_is_not_the_vacancy_that_others_wait_for(backend: Backend) {
    // Long enough for the last caller to be served before its own wait runs out.
    let cache = backend.cache("wait = \"2s\"").await;
    let held = vacancy(&view(&cache), "k").await;
    let own = vacancy(&view(&cache), "k").await;
    let caller = waiting(&cache, "k").await;
    drop(own);
    super::look_around(&view(&cache)).await;
    assert!(!caller.is_finished());
    assert_eq!(fill(&view(&cache), held, "holder's").await, Ok(true));
    assert_eq!(occupied(answer(caller).await), bytes("holder's"));
}

async fn it_holds_its_key_like_any_holder(backend: Backend) {
    let cache = backend.cache(SHORT_WAIT).await;
    let _held = vacancy(&view(&cache), "k").await;
    let late = view(&cache);
    let own = vacancy(&late, "k").await;
    assert_invalid(within(late.get_or_set("k")).await, "key");
    drop(own);
    let _again = vacancy(&late, "k").await;
}

async fn two_plugins_that_wait_for_each_other_continue(backend: Backend) {
    let cache = backend.cache(SHORT_WAIT).await;
    let (one, two) = (view(&cache), view(&cache));
    let a = vacancy(&one, "a").await;
    let b = vacancy(&two, "b").await;
    let (b_too, a_too) = within(async { tokio::join!(one.get_or_set("b"), two.get_or_set("a")) }).await;
    let (a_too, b_too) = (vacant(a_too), vacant(b_too));
    assert_eq!(fill(&one, a, "one's a").await, Ok(true));
    assert_eq!(fill(&two, b, "two's b").await, Ok(true));
    assert_eq!(fill(&two, a_too, "two's a").await, Ok(false));
    assert_eq!(fill(&one, b_too, "one's b").await, Ok(false));
    assert_eq!(occupied(one.get_or_set("b").await), bytes("two's b"));
    assert_eq!(occupied(two.get_or_set("a").await), bytes("one's a"));
}

async fn no_wait_gives_a_vacancy_immediately(backend: Backend) {
    let cache = backend.cache("wait = 0").await;
    let held = vacancy(&view(&cache), "k").await;
    let own = vacancy(&view(&cache), "k").await;
    assert_eq!(fill(&view(&cache), held, "holder's").await, Ok(true));
    assert_eq!(fill(&view(&cache), own, "late").await, Ok(false));
    assert_eq!(view(&cache).get("k").await.unwrap(), Some(bytes("holder's")));
}

async fn a_value_that_expired_meanwhile_makes_the_fill_of_the_holder_too_late(backend: Backend) {
    let cache = backend.cache("wait = 0").await;
    let held = vacancy(&view(&cache), "k").await;
    let own = vacancy(&view(&cache), "k").await;
    assert_eq!(view(&cache).fill(own, bytes("short"), Duration::Milliseconds(1)).await, Ok(true));
    pass_a_millisecond(&view(&cache)).await;
    // An expired value is indistinguishable from a cleared one.
    assert_eq!(fill(&view(&cache), held, "holder's").await, Ok(false));
    assert_eq!(view(&cache).get("k").await.unwrap(), None);
}

mod servers {
    use super::*;

    crate::backends::over_every_server! { a_wait_that_runs_out_looks_once_more }

    async fn a_wait_that_runs_out_looks_once_more(backend: Backend) {
        let cache = backend.cache(SHORT_WAIT).await;
        let _held = vacancy(&view(&cache), "k").await;
        let caller = waiting(&cache, "k").await;
        // A cache of another process, which does not notify the waiters of this one.
        view(&backend.cache("").await).set("k", bytes("foreign"), Duration::Default).await.unwrap();
        assert_eq!(occupied(answer(caller).await), bytes("foreign"));
    }
}
