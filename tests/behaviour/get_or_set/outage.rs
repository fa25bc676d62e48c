//! get-or-set while the server is out of reach.

use std::time::Duration as StdDuration;

use larder_host::cache::{Duration, Entry};

use super::{LONG_WAIT, answer, fill, lose, many_waiting, occupied, take_over, vacancy};
use crate::backends::{Backend, bytes, over_every_server, view, within};

over_every_server! {
    during_an_outage_get_or_set_gives_a_vacancy,
    during_an_outage_the_value_reaches_the_waiters_although_it_is_not_stored,
    during_an_outage_a_dropped_vacancy_passes_on,
    a_vacancy_from_before_an_outage_reports_it_and_serves_the_waiters,
    a_vacancy_whose_lease_the_server_lost_stores_nothing,
    on_outage_error_reports_the_outage,
    a_cancelled_fill_leaves_no_waiter_hanging,
    a_fill_without_an_answer_serves_the_waiters,
    vacancies_that_were_held_during_an_outage_have_no_task,
}

async fn during_an_outage_get_or_set_gives_a_vacancy(mut backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    lose(&mut backend, &cache).await;
    let holder = view(&cache);
    let vacancy = vacancy(&holder, "k").await;
    let error = fill(&holder, vacancy, "v").await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    assert_eq!(holder.get("k").await, Ok(None));
}

async fn during_an_outage_the_value_reaches_the_waiters_although_it_is_not_stored(mut backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    lose(&mut backend, &cache).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 5).await;
    assert!(fill(&view(&cache), vacancy, "computed once").await.unwrap_err().is_outage());
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("computed once"));
    }
}

async fn during_an_outage_a_dropped_vacancy_passes_on(mut backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    lose(&mut backend, &cache).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 2).await;
    drop(vacancy);
    let (passed_on, callers) = take_over(callers).await;
    assert!(fill(&view(&cache), passed_on, "second try").await.unwrap_err().is_outage());
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("second try"));
    }
}

async fn a_vacancy_from_before_an_outage_reports_it_and_serves_the_waiters(mut backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 5).await;
    backend.behind().kill();
    assert!(fill(&view(&cache), vacancy, "computed once").await.unwrap_err().is_outage());
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("computed once"));
    }
}

async fn a_vacancy_whose_lease_the_server_lost_stores_nothing(mut backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    lose(&mut backend, &cache).await;
    backend.behind().restart();
    within(async {
        while cache.check().await.is_err() {
            tokio::time::sleep(StdDuration::from_millis(1)).await;
        }
    })
    .await;
    // It may have been cleared unnoticed.
    assert_eq!(fill(&view(&cache), vacancy, "v").await, Ok(false));
    assert_eq!(view(&cache).get("k").await.unwrap(), None);
    let renewed = super::vacancy(&view(&cache), "k").await;
    assert_eq!(fill(&view(&cache), renewed, "renewed").await, Ok(true));
}

async fn on_outage_error_reports_the_outage(mut backend: Backend) {
    let cache = backend.cache("on_outage = \"error\"").await;
    let held = vacancy(&view(&cache), "held").await;
    lose(&mut backend, &cache).await;
    let error = within(view(&cache).get_or_set("k")).await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    assert!(fill(&view(&cache), held, "v").await.unwrap_err().is_outage());
}

async fn a_cancelled_fill_leaves_no_waiter_hanging(mut backend: Backend) {
    let cache = backend.cache(LONG_WAIT).await;
    let holder = view(&cache);
    let vacancy = vacancy(&holder, "k").await;
    let callers = many_waiting(&cache, "k", 5).await;
    backend.behind().freeze();
    {
        let mut filling = Box::pin(holder.fill(vacancy, bytes("cut off"), Duration::Default));
        tokio::select! {
            biased;
            outcome = &mut filling => panic!("the server does not answer, and yet: {outcome:?}"),
            // By then the command has been sent.
            () = tokio::task::yield_now() => {}
        }
    }
    // Who asks after the fill began waits as well.
    let late = view(&cache);
    let late = tokio::spawn(async move { late.get_or_set("k").await });
    backend.behind().thaw();
    for caller in callers.into_iter().chain([late]) {
        match answer(caller).await.unwrap() {
            Entry::Occupied(value) => assert_eq!(value, bytes("cut off")),
            // Where the command never left, each in turn may compute.
            Entry::Vacant(vacancy) => drop(vacancy),
        }
    }
}

async fn a_fill_without_an_answer_serves_the_waiters(mut backend: Backend) {
    let cache = backend.cache(&format!("{LONG_WAIT}\ntimeout = \"100ms\"")).await;
    let vacancy = vacancy(&view(&cache), "k").await;
    let callers = many_waiting(&cache, "k", 5).await;
    backend.behind().freeze();
    assert!(fill(&view(&cache), vacancy, "computed once").await.unwrap_err().is_outage());
    for caller in callers {
        assert_eq!(occupied(answer(caller).await), bytes("computed once"));
    }
}

/// The server cannot have the leases, as their claims were not sent.
async fn vacancies_that_were_held_during_an_outage_have_no_task(mut backend: Backend) {
    const TIMES: usize = 500;
    for on_outage in ["miss", "error"] {
        let cache = backend.cache(&format!("{LONG_WAIT}\non_outage = \"{on_outage}\"")).await;
        let (holder, tasks) = (view(&cache), tokio::runtime::Handle::current().metrics());
        lose(&mut backend, &cache).await;
        within(cache.drain()).await;
        let before = tasks.num_alive_tasks();
        for _ in 0..TIMES {
            match within(holder.get_or_set("k")).await {
                Ok(Entry::Vacant(vacancy)) => drop(vacancy),
                Ok(Entry::Occupied(value)) => panic!("{value:?}"),
                Err(error) => assert!(error.is_outage(), "{error:?}"),
            }
        }
        let after = tasks.num_alive_tasks();
        assert!(after <= before + 4, "{on_outage}: {after} tasks after {TIMES} vacancies, and {before} before");
        backend.behind().restart();
    }
}
