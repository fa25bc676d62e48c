//! Calls that are begun, and whose answers wait in the host while the plugin computes.

use std::future::poll_fn;
use std::hint::spin_loop;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use larder::Error;
use larder::concurrent::{Cache, Entry};
use wasip3::clocks::monotonic_clock::now;

/// Does `KIND/COUNT/MILLISECONDS`: begins so many calls, computes for a time without a look at them, and ends. Calls that
/// read are cancelled.
pub(crate) async fn hoard(query: &str) -> String {
    let mut words = query.split('/');
    let kind = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let (count, milliseconds) = (number(), number());
    let cache = match Cache::default() {
        Ok(cache) => cache,
        Err(error) => return error.to_string(),
    };
    match kind {
        "get" => cancel((0..count).map(|_| cache.get_bytes("k")), milliseconds).await,
        "get-many" => cancel((0..count).map(|_| cache.get_many_bytes(&["k"; 8])), milliseconds).await,
        "get-or-set" => cancel((0..count).map(|_| cache.entry("k")), milliseconds).await,
        "get-or-refresh" => {
            let stale = Duration::from_secs(1);
            cancel((0..count).map(|_| cache.freshness("k", stale)), milliseconds).await
        }
        "fill" => fill(&cache, count).await.unwrap_or_else(|error| error.to_string()),
        _ => "unknown".to_owned(),
    }
}

async fn cancel<F: Future>(calls: impl Iterator<Item = F>, milliseconds: u64) -> String {
    let mut calls = Box::pin(join_all(calls));
    let first = poll_fn(|cx| Poll::Ready(calls.as_mut().poll(cx))).await;
    let end = now().saturating_add(milliseconds.saturating_mul(1_000_000));
    while now() < end {
        spin_loop();
    }
    match first {
        Poll::Pending => "waiting".to_owned(),
        Poll::Ready(_) => "answered".to_owned(),
    }
}

/// Fills so many keys with a million bytes each at the same time.
async fn fill(cache: &Cache, count: u64) -> Result<String, Error> {
    let mut vacancies = Vec::new();
    for nth in 0..count {
        if let Entry::Vacant(vacancy) = cache.entry(&format!("f{nth}")).await? {
            vacancies.push(vacancy);
        }
    }
    let value = vec![b'x'; 1_000_000];
    let fills = vacancies.into_iter().map(|vacancy| vacancy.fill(&value, Duration::from_secs(60)));
    let (mut stored, mut refused) = (0, String::new());
    for outcome in join_all(fills).await {
        match outcome {
            Ok(is_stored) => stored += u64::from(is_stored),
            Err(error) => refused = error.to_string(),
        }
    }
    Ok(format!("{stored} stored, {refused}"))
}
