//! get-or-set: one computation per key.
//!
//! - `full_server`: a server that evicts leases, or refuses to store them.
//! - `leases`: one computation across caches and processes that share a server.
//! - `outage`: get-or-set while the server is unreachable.
//! - `invalidated`: a set or clear invalidates a computation that began before it.
//! - `race`: many plugins on many threads; one computes.
//! - `refresh`: stale values, and who refreshes them.
//! - `sharing`: a process reads what another one stored.
//! - `vacancies`: which caller receives the vacancy, and what ends it.
//! - `waits`: a caller whose wait times out.
//!
//! All callers of a test run on one thread and share one connection, which answers in order. So [`waiting`] knows
//! without a sleep that a caller is waiting.

mod full_server;
mod invalidated;
mod leases;
mod outage;
mod race;
mod refresh;
mod sharing;
mod vacancies;
mod waits;

use std::sync::Arc;
use std::time::Duration as StdDuration;

use bytes::Bytes;
use larder_host::cache::{Cache, CacheError, Duration, Entry, ScopedCache, Vacancy};
use tokio::task::JoinHandle;

use crate::backends::{Backend, view, within};

/// No test that expects a fill wants a wait to run out.
pub(crate) const LONG_WAIT: &str = "wait = \"10m\"";

pub(crate) type Asked = Result<Entry, CacheError>;

/// A get-or-set of which a vacancy is expected.
pub(crate) async fn vacancy(cache: &ScopedCache, key: &str) -> Vacancy {
    vacant(within(cache.get_or_set(key)).await)
}

/// The vacancy of an answer.
pub(crate) fn vacant(answer: Asked) -> Vacancy {
    match answer {
        Ok(Entry::Vacant(vacancy)) => vacancy,
        other => panic!("no vacancy, but {other:?}"),
    }
}

/// The value of an answer.
pub(crate) fn occupied(answer: Asked) -> Bytes {
    match answer {
        Ok(Entry::Occupied(value)) => value,
        other => panic!("no value, but {other:?}"),
    }
}

/// Fills with the default duration.
pub(crate) async fn fill(cache: &ScopedCache, vacancy: Vacancy, value: &str) -> Result<bool, CacheError> {
    within(cache.fill(vacancy, crate::backends::bytes(value), Duration::Default)).await
}

/// A new plugin's get-or-set in a task of its own, which waits for another's vacancy by the time this returns.
pub(crate) async fn waiting(cache: &Arc<Cache>, key: &str) -> JoinHandle<Asked> {
    let (cache, key) = (view(cache), key.to_owned());
    let others = cache.clone();
    let mut asking = Box::pin(async move { cache.get_or_set(&key).await });
    tokio::select! {
        biased;
        answer = &mut asking => panic!("it does not wait: {answer:?}"),
        // These look-ups follow the caller's on the same connection; when they are answered, so is the caller's.
        () = look_around(&others) => {}
    }
    tokio::spawn(asking)
}

/// Kills the server and waits until the cache has noticed.
pub(crate) async fn lose(backend: &mut Backend, cache: &Cache) {
    backend.behind().kill();
    within(async {
        while cache.check().await.is_ok() {
            tokio::time::sleep(StdDuration::from_millis(1)).await;
        }
    })
    .await;
}

/// A few round trips to wherever the cache is.
pub(crate) async fn look_around(cache: &ScopedCache) {
    for _ in 0..3 {
        // During an outage there is no answer, which is as good.
        let _nothing = cache.get("another key").await;
    }
}

/// A number of callers that wait.
pub(crate) async fn many_waiting(cache: &Arc<Cache>, key: &str, count: usize) -> Vec<JoinHandle<Asked>> {
    let mut callers = Vec::new();
    for _ in 0..count {
        callers.push(waiting(cache, key).await);
    }
    callers
}

/// What a waiting caller was answered.
pub(crate) async fn answer(caller: JoinHandle<Asked>) -> Asked {
    within(caller).await.unwrap()
}

/// Waits for the caller that receives the vacancy, and returns the vacancy and the callers that still wait.
pub(crate) async fn take_over(mut callers: Vec<JoinHandle<Asked>>) -> (Vacancy, Vec<JoinHandle<Asked>>) {
    let first = async {
        loop {
            match callers.iter().position(JoinHandle::is_finished) {
                Some(first) => break first,
                None => tokio::time::sleep(StdDuration::from_millis(1)).await,
            }
        }
    };
    let first = within(first).await;
    (vacant(answer(callers.swap_remove(first)).await), callers)
}
