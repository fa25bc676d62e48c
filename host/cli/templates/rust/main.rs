//! Prints a greeting twice, and caches each greeting for a minute.

use std::time::Duration;

use larder::{Cache, Error};

fn main() -> Result<(), Error> {
    let name = std::env::args().nth(1).unwrap_or("world".into());
    let cache = Cache::default()?;
    for _ in 0..2 {
        let (greeting, how) = greeting(&cache, &name)?;
        println!("{greeting} ({how})");
    }
    Ok(())
}

/// Computes each greeting at most once a minute, for all processes that share the cache. Returns how it got it, too.
fn greeting(cache: &Cache, name: &str) -> Result<(String, &'static str), Error> {
    let mut how = "from the cache";
    let greeting = cache.get_or_set(format!("greeting:{name}"), Duration::from_secs(60), || {
        how = "computed now";
        format!("Hello, {name}!")
    })?;
    Ok((greeting, how))
}

/// `cargo test` runs these tests natively, on the in-memory host of `larder::testing`.
#[cfg(test)]
mod tests {
    use larder::testing;

    use super::*;

    #[test]
    fn a_greeting_is_cached_for_a_minute() {
        let cache = Cache::default().unwrap();
        assert_eq!(
            greeting(&cache, "Ada").unwrap(),
            ("Hello, Ada!".into(), "computed now")
        );
        assert_eq!(
            greeting(&cache, "Ada").unwrap(),
            ("Hello, Ada!".into(), "from the cache")
        );
        assert_eq!(testing::cache("default").keys(), ["greeting:Ada"]);
        testing::advance(Duration::from_secs(60));
        assert!(testing::cache("default").keys().is_empty());
    }

    #[test]
    fn there_is_a_greeting_during_an_outage() {
        testing::outage(testing::Outage::Unavailable);
        let cache = Cache::default().unwrap();
        assert_eq!(greeting(&cache, "Ada").unwrap().0, "Hello, Ada!");
    }
}
