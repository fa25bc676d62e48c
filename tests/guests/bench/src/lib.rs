//! A plugin for the benchmarks: it repeats one call, and the host measures the time.

#![allow(missing_docs, unsafe_code, reason = "the generated exports are undocumented and use raw pointers")]

use larder::{Cache, Duration, Entry, Error, Freshness};

wit_bindgen::generate!({
    inline: "
        package larder-bench:plugin;

        interface host {
            /// Does nothing.
            nothing: func();
            /// Does nothing, as an async function of the host.
            nothing-later: func();
            /// Returns the requested number of bytes, which the host has in memory.
            bytes: func(key: string, size: u32) -> option<list<u8>>;
        }

        world bench {
            import host;
            /// Repeats one kind of call on the default cache. `size` is the size of the value in bytes, or the number of
            /// keys of a batch.
            export run: func(call: string, size: u32, calls: u32);
        }
    ",
});

use self::larder_bench::plugin::host;

/// The `stale` of a get-or-refresh.
const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

struct Plugin;

impl Guest for Plugin {
    fn run(call: String, size: u32, calls: u32) {
        if let Err(error) = run(&call, size, calls) {
            panic!("{call} of {size}: {error}");
        }
    }
}

export!(Plugin);

fn run(call: &str, size: u32, calls: u32) -> Result<(), Error> {
    let cache = Cache::default()?;
    let key = format!("value-{size}");
    let value = vec![b'v'; size as usize];
    let is_whole = |found: &[u8]| found.len() == value.len();
    match call {
        "nothing" => repeat(calls, || {
            host::nothing();
            Ok(true)
        }),
        "nothing-later" => repeat(calls, || {
            host::nothing_later();
            Ok(true)
        }),
        "bytes" => repeat(calls, || Ok(host::bytes(&key, size).is_some_and(|found| is_whole(&found)))),
        "get" => repeat(calls, || Ok(cache.get_bytes(&key)?.is_some_and(|found| is_whole(&found)))),
        "get-or-refresh" => {
            repeat(calls, || Ok(matches!(cache.freshness(&key, SECOND)?, Freshness::Fresh(found) if is_whole(&found))))
        }
        "get-or-set" => repeat(calls, || Ok(matches!(cache.entry(&key)?, Entry::Occupied(found) if is_whole(&found)))),
        "get-many" => {
            let batch: Vec<String> = (0..size).map(|nth| format!("batch-{nth}")).collect();
            repeat(calls, || Ok(cache.get_many_bytes(&batch)?.iter().all(Option::is_some)))
        }
        "set" => repeat(calls, || {
            cache.set_bytes_with_duration(&key, &value, Duration::Unlimited)?;
            Ok(true)
        }),
        other => panic!("unknown call: {other}"),
    }
}

fn repeat(calls: u32, call: impl Fn() -> Result<bool, Error>) -> Result<(), Error> {
    for _ in 0..calls {
        assert!(call()?, "a value is missing");
    }
    Ok(())
}
