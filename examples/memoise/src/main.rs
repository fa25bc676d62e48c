//! A plugin that computes a value once and then reads it from the cache.

use std::time::{Duration, Instant};

use larder::Cache;

fn main() -> Result<(), larder::Error> {
    let cache = Cache::default()?;
    for round in 1..=3 {
        let started = Instant::now();
        let primes: usize =
            cache.get_or_set("primes-below-2000000", Duration::from_secs(60), || count_primes(2_000_000))?;
        let took = started.elapsed();
        println!("round {round}: {primes} primes below 2000000, in {took:.1?}");
    }
    Ok(())
}

/// Counts primes by trial division, which is deliberately slow.
fn count_primes(below: u32) -> usize {
    println!("computing ...");
    let is_prime = |n: &u32| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..below).filter(is_prime).count()
}
