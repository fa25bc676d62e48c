//! A plugin with a function that is computed once, and whose value is then read from the cache.

use std::time::Instant;

fn main() {
    for round in 1..=3 {
        let started = Instant::now();
        let primes = count_primes(2_000_000);
        let took = started.elapsed();
        println!("round {round}: {primes} primes below 2000000, in {took:.1?}");
    }
}

/// Counts primes by trial division, which is deliberately slow.
#[larder::cached(duration = "60s")]
fn count_primes(below: u32) -> usize {
    println!("computing ...");
    let is_prime = |n: &u32| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..below).filter(is_prime).count()
}
