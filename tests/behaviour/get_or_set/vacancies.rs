//! Which caller receives a vacancy, and what ends it.

use bytes::Bytes;
use larder_host::cache::{CacheError, Duration};

use super::{LONG_WAIT, answer, fill, many_waiting, occupied, take_over, vacancy, vacant, waiting};
use crate::backends::{Backend, assert_invalid, bytes, namespaced, over_every_backend, put, view, within};

over_every_backend! {
    a_stored_value_is_occupied,
    a_miss_is_a_vacancy_whose_fill_stores,
    a_key_has_one_vacancy_and_all_waiters_receive_its_value,
    another_key_has_a_vacancy_of_its_own,
    an_empty_value_fills_a_vacancy,
    a_dropped_vacancy_passes_to_exactly_one_waiter,
    many_drops_in_a_row_pass_through_all_waiters,
    a_vacancy_dropped_without_waiters_is_free_again,
    a_cancelled_waiter_does_not_swallow_the_vacancy,
    a_waiter_cancelled_with_the_vacancy_on_its_way_does_not_swallow_it,
    a_waiter_cancelled_while_it_waits_does_not_hold_up_the_fill,
    the_holder_that_asks_again_is_refused_immediately,
    the_holder_may_ask_for_its_key_through_another_cache,
    a_holder_that_gave_up_may_ask_again,
    a_fill_for_no_time_is_refused_and_passes_the_vacancy_on,
    a_fill_with_too_large_a_value_is_refused_and_passes_the_vacancy_on,
    vacancies_that_are_not_held_have_no_task,
}

async fn a_stored_value_is_occupied(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["k"]).await;
    assert_eq!(occupied(cache.get_or_set("k").await), bytes("k"));
}

async fn a_miss_is_a_vacancy_whose_fill_stores(backend: Backend) {
    let cache = backend.view().await;
    let vacancy = vacancy(&cache, "k").await;
    assert_eq!(cache.get("k").await.unwrap(), None);
    assert_eq!(fill(&cache, vacancy, "computed").await, Ok(true));
    assert_eq!(cache.get("k").await.unwrap(), Some(bytes("computed")));
    assert_eq!(occupied(cache.get_or_set("k").await), bytes("computed"));
}

async fn a_key_has_one_vacancy_and_all_waiters_receive_its_value(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let holder = view(&cache);
    let vacancy = vacancy(&holder, "k").await;
    let callers = many_waiting(&cache, "k", 31).await;
    assert_eq!(fill(&holder, vacancy, "computed").await, Ok(true));
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("computed"));
    }
}

async fn another_key_has_a_vacancy_of_its_own(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let (one, two) = (view(&cache), view(&cache));
    let a = vacancy(&one, "a").await;
    let b = vacancy(&two, "b").await;
    let c = vacancy(&one, "c").await;
    for (vacancy, value) in [(c, "c"), (a, "a"), (b, "b")] {
        assert_eq!(fill(&one, vacancy, value).await, Ok(true));
        assert_eq!(two.get(value).await.unwrap(), Some(bytes(value)));
    }
}

async fn an_empty_value_fills_a_vacancy(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let holder = view(&cache);
    let vacancy = vacancy(&holder, "k").await;
    let caller = waiting(&cache, "k").await;
    assert_eq!(fill(&holder, vacancy, "").await, Ok(true));
    assert_eq!(occupied(answer(caller).await), Bytes::new());
    assert_eq!(occupied(holder.get_or_set("k").await), Bytes::new());
}

async fn a_dropped_vacancy_passes_to_exactly_one_waiter(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 5).await;
    drop(vacancy);
    let (passed_on, others) = take_over(callers).await;
    super::look_around(&view(&cache)).await;
    assert!(others.iter().all(|caller| !caller.is_finished()));
    assert_eq!(fill(&view(&cache), passed_on, "second try").await, Ok(true));
    for caller in others {
        assert_eq!(occupied(answer(caller).await), bytes("second try"));
    }
}

async fn many_drops_in_a_row_pass_through_all_waiters(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let mut held = vacancy(&view(&cache), "k").await;
    let mut callers = many_waiting(&cache, "k", 32).await;
    while !callers.is_empty() {
        drop(held);
        (held, callers) = take_over(callers).await;
    }
    assert_eq!(fill(&view(&cache), held, "last try").await, Ok(true));
    assert_eq!(view(&cache).get("k").await.unwrap(), Some(bytes("last try")));
}

async fn a_vacancy_dropped_without_waiters_is_free_again(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    for _ in 0..3 {
        drop(vacancy(&view(&cache), "k").await);
    }
    assert_eq!(view(&cache).get("k").await.unwrap(), None);
}

async fn a_cancelled_waiter_does_not_swallow_the_vacancy(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    let (first, second) = (waiting(&cache, "k").await, waiting(&cache, "k").await);
    first.abort();
    assert!(within(first).await.unwrap_err().is_cancelled());
    drop(vacancy);
    let passed_on = vacant(answer(second).await);
    assert_eq!(fill(&view(&cache), passed_on, "v").await, Ok(true));
}

/// The first waiter is cancelled before it ever hears that the vacancy is its own.
async fn a_waiter_cancelled_with_the_vacancy_on_its_way_does_not_swallow_it(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    let (first, second) = (waiting(&cache, "k").await, waiting(&cache, "k").await);
    drop(vacancy);
    first.abort();
    assert!(within(first).await.unwrap_err().is_cancelled());
    let passed_on = vacant(answer(second).await);
    assert_eq!(fill(&view(&cache), passed_on, "v").await, Ok(true));
}

async fn a_waiter_cancelled_while_it_waits_does_not_hold_up_the_fill(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    let (first, second) = (waiting(&cache, "k").await, waiting(&cache, "k").await);
    first.abort();
    assert_eq!(fill(&view(&cache), vacancy, "v").await, Ok(true));
    assert_eq!(occupied(answer(second).await), bytes("v"));
}

async fn the_holder_that_asks_again_is_refused_immediately(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let holder = view(&cache);
    let vacancy = vacancy(&holder, "k").await;
    assert_invalid(within(holder.get_or_set("k")).await, "key");
    assert_invalid(within(holder.clone().get_or_set("k")).await, "key");
    assert_eq!(fill(&holder, vacancy, "v").await, Ok(true));
    assert_eq!(occupied(holder.get_or_set("k").await), bytes("v"));
}

/// A vacancy is for a key in one key space of one cache.
async fn the_holder_may_ask_for_its_key_through_another_cache(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let _plain = vacancy(&view(&cache), "k").await;
    let _shop = vacancy(&namespaced(&cache, "shop"), "k").await;
    let _blog = vacancy(&namespaced(&cache, "blog"), "k").await;
}

async fn a_holder_that_gave_up_may_ask_again(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let holder = view(&cache);
    drop(vacancy(&holder, "k").await);
    let held = vacancy(&holder, "k").await;
    assert!(holder.clear_all().await.is_ok());
    assert_eq!(fill(&holder, held, "too late").await, Ok(false));
    let _again = vacancy(&holder, "k").await;
}

async fn a_fill_for_no_time_is_refused_and_passes_the_vacancy_on(backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let holder = view(&cache);
    let vacancy = vacancy(&holder, "k").await;
    let caller = waiting(&cache, "k").await;
    assert_invalid(holder.fill(vacancy, bytes("v"), Duration::Milliseconds(0)).await, "duration");
    let passed_on = vacant(answer(caller).await);
    assert_eq!(holder.get("k").await.unwrap(), None);
    assert_eq!(fill(&holder, passed_on, "v").await, Ok(true));
}

async fn a_fill_with_too_large_a_value_is_refused_and_passes_the_vacancy_on(backend: Backend) {
    let cache = backend.cache(&format!("{LONG_WAIT}\nmax_value_bytes = 10")).await;
    let holder = view(&cache);
    let vacancy = vacancy(&holder, "k").await;
    let caller = waiting(&cache, "k").await;
    assert_eq!(fill(&holder, vacancy, "0123456789a").await, Err(CacheError::ValueTooLarge { len: 11, max: 10 }));
    let passed_on = vacant(answer(caller).await);
    assert_eq!(holder.get("k").await.unwrap(), None);
    assert_eq!(fill(&holder, passed_on, "0123456789").await, Ok(true));
}

/// As in a plugin that takes one vacancy after the other and never waits for anything else.
async fn vacancies_that_are_not_held_have_no_task(backend: Backend) {
    const TIMES: usize = 500;
    let cache = backend.cache(LONG_WAIT).await;
    let (holder, tasks) = (view(&cache), tokio::runtime::Handle::current().metrics());
    drop(vacancy(&holder, "k").await);
    within(cache.drain()).await;
    let before = tasks.num_alive_tasks();
    for n in 0..TIMES {
        let (key, dropped) = (n.to_string(), vacancy(&holder, "k").await);
        let filled = vacancy(&holder, &key).await;
        drop(dropped);
        assert_eq!(fill(&holder, filled, "v").await, Ok(true));
    }
    within(cache.drain()).await;
    let after = tasks.num_alive_tasks();
    assert!(after <= before + 2, "{after} tasks after {TIMES} vacancies twice, and {before} before");
}
