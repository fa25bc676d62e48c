//! Makes so many hits on `key` of the default cache, `get N` or `get-or-set N`, and stores under `took` how many
//! nanoseconds they took together. What is done in turns with what is the benchmark's to say.

use std::time::Instant;

use larder::{Cache, Entry, Error};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [call, count] = arguments.as_slice() else { panic!("not a call and a number: {arguments:?}") };
    let count: u32 = count.parse().expect("a number of calls");
    let cache = Cache::default()?;
    let took = match call.as_str() {
        "get" => time(count, || Ok(cache.get_bytes("key")?.is_some())),
        "get-or-set" => time(count, || Ok(matches!(cache.entry("key")?, Entry::Occupied(_)))),
        other => panic!("no such call: {other}"),
    };
    cache.set_bytes("took", took?.to_string().as_bytes())
}

fn time(count: u32, hit: impl Fn() -> Result<bool, Error>) -> Result<u128, Error> {
    // The first one grows the plugin's memory.
    assert!(hit()?, "there is no value");
    let begun = Instant::now();
    for _ in 0..count {
        assert!(hit()?, "the value is gone");
    }
    Ok(begun.elapsed().as_nanos())
}
