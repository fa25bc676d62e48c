//! Computes a missing value with an async closure that sleeps, and prints how often it computes.

#![allow(missing_docs, reason = "the macro of the executor generates an undocumented function")]

use std::time::Duration;

use larder::{Cache, Error};

#[wstd::main]
async fn main() -> Result<(), Error> {
    let cache = Cache::default()?;
    let mut computations = 0_u32;
    for _ in 0..2 {
        let value: String = cache
            .get_or_set_async("key", Duration::from_secs(30), async || {
                wstd::task::sleep(wstd::time::Duration::from_millis(5)).await;
                computations = computations.saturating_add(1);
                "value".to_owned()
            })
            .await?;
        assert_eq!(value, "value");
    }
    println!("{computations} computations");

    let failed: Result<String, Failure> =
        cache.try_get_or_set_async("fails", Duration::from_secs(30), async || Err(Failure)).await;
    assert!(failed.is_err());
    assert_eq!(cache.get::<String>("fails")?, None, "a closure's error is not stored");
    Ok(())
}

struct Failure;

impl From<Error> for Failure {
    fn from(_: Error) -> Self {
        Self
    }
}
