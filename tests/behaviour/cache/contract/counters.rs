//! exists, increment, compare-and-swap and clear-many.

use std::time::Duration as StdDuration;

use larder_host::cache::{CacheError, Duration, Entry, Version};

use crate::backends::{
    Backend, assert_invalid, bytes, namespaced, over_every_backend, over_every_server, present, put, put_expired,
    read_only, view, within,
};

over_every_backend! {
    a_key_exists_while_it_holds_a_value,
    a_lease_is_no_value_to_exists,
    an_increment_of_a_missing_key_stores_the_delta,
    an_increment_adds_to_decimal_text,
    an_increment_of_what_is_no_number_changes_nothing,
    an_increment_out_of_range_changes_nothing,
    numbers_are_exact_over_the_whole_range,
    a_new_number_has_a_duration_and_keeps_it,
    a_value_that_has_come_back_has_another_version,
    an_increment_ends_a_lease,
    increments_at_the_same_time_all_count,
    a_value_is_replaced_while_it_has_the_version,
    a_value_is_stored_while_there_is_none,
    a_replacement_ends_a_lease_only_if_it_is_stored,
    of_many_swaps_at_the_same_time_one_wins,
    swaps_at_the_same_time_lose_nothing,
    clear_many_removes_and_counts_each_key_once,
    a_batch_of_1025_keys_to_clear_is_refused,
    read_only_access_lists_and_compares_but_does_not_write,
    counters_of_namespaces_are_separate,
}

async fn a_key_exists_while_it_holds_a_value(backend: Backend) {
    let cache = backend.view().await;
    cache.set("empty", bytes(""), Duration::Default).await.unwrap();
    put(&cache, &["k"]).await;
    cache.set("large", vec![b'x'; 100_000].into(), Duration::Default).await.unwrap();
    for (key, exists) in [("k", true), ("empty", true), ("large", true), ("missing", false)] {
        assert_eq!(cache.exists(key).await.unwrap(), exists, "{key}");
        assert_eq!(cache.exists(key).await.unwrap(), exists, "{key}");
    }
    cache.clear("k").await.unwrap();
    assert!(!cache.exists("k").await.unwrap());
    put_expired(&cache, "old").await;
    assert!(!cache.exists("old").await.unwrap());
    assert_invalid(cache.exists("").await, "key");
}

async fn a_lease_is_no_value_to_exists(backend: Backend) {
    let cache = backend.view().await;
    let Entry::Vacant(vacancy) = cache.get_or_set("k").await.unwrap() else { panic!("no value yet") };
    assert!(!cache.exists("k").await.unwrap());
    assert_eq!(cache.read_version("k").await.unwrap(), None);
    assert!(cache.fill(vacancy, bytes("v"), Duration::Default).await.unwrap());
    assert!(cache.exists("k").await.unwrap());
}

async fn an_increment_of_a_missing_key_stores_the_delta(backend: Backend) {
    let cache = backend.view().await;
    assert_eq!(cache.increment("up", 5, Duration::Default).await.unwrap(), 5);
    assert_eq!(cache.increment("down", -5, Duration::Default).await.unwrap(), -5);
    assert_eq!(cache.increment("zero", 0, Duration::Default).await.unwrap(), 0);
    assert_eq!(cache.get("up").await.unwrap(), Some(bytes("5")));
    assert_eq!(cache.get("down").await.unwrap(), Some(bytes("-5")));
    assert_eq!(cache.get("zero").await.unwrap(), Some(bytes("0")));
    put_expired(&cache, "old").await;
    assert_eq!(cache.increment("old", 1, Duration::Default).await.unwrap(), 1);
}

async fn an_increment_adds_to_decimal_text(backend: Backend) {
    let cache = backend.view().await;
    cache.set("n", bytes("9"), Duration::Default).await.unwrap();
    assert_eq!(cache.increment("n", 1, Duration::Default).await.unwrap(), 10);
    assert_eq!(cache.get("n").await.unwrap(), Some(bytes("10")));
    assert_eq!(cache.increment("n", -11, Duration::Default).await.unwrap(), -1);
    assert_eq!(cache.get("n").await.unwrap(), Some(bytes("-1")));
    assert_eq!(cache.increment("n", 0, Duration::Default).await.unwrap(), -1);
}

async fn an_increment_of_what_is_no_number_changes_nothing(backend: Backend) {
    let cache = backend.view().await;
    for text in ["", "x", "1.0", "01", "+1", " 1", "1 ", "-0", "-", "1\n", "9223372036854775808", "0x1"] {
        cache.set("n", bytes(text), Duration::Default).await.unwrap();
        assert_eq!(cache.increment("n", 1, Duration::Default).await, Err(CacheError::NotANumber), "{text:?}");
        assert_eq!(cache.get("n").await.unwrap(), Some(bytes(text)));
    }
    cache.set("n", vec![b'1'; 100_000].into(), Duration::Default).await.unwrap();
    assert_eq!(cache.increment("n", 1, Duration::Default).await, Err(CacheError::NotANumber));
    assert_invalid(cache.increment("", 1, Duration::Default).await, "key");
    assert_invalid(cache.increment("new", 1, Duration::Milliseconds(0)).await, "duration");
    assert!(!cache.exists("new").await.unwrap());
}

async fn an_increment_out_of_range_changes_nothing(backend: Backend) {
    let cache = backend.view().await;
    for (end, step) in [(i64::MAX, 1), (i64::MIN, -1), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN)] {
        cache.set("n", bytes(&end.to_string()), Duration::Default).await.unwrap();
        assert_eq!(
            cache.increment("n", step, Duration::Default).await,
            Err(CacheError::NumberOverflow),
            "{end} {step}"
        );
        assert_eq!(cache.get("n").await.unwrap(), Some(bytes(&end.to_string())));
    }
}

/// A double has 53 bits.
async fn numbers_are_exact_over_the_whole_range(backend: Backend) {
    let cache = backend.view().await;
    assert_eq!(cache.increment("n", i64::MAX, Duration::Default).await.unwrap(), i64::MAX);
    assert_eq!(cache.increment("n", -1, Duration::Default).await.unwrap(), i64::MAX - 1);
    assert_eq!(cache.increment("n", i64::MIN, Duration::Default).await.unwrap(), -2);
    assert_eq!(cache.increment("m", i64::MIN, Duration::Default).await.unwrap(), i64::MIN);
    assert_eq!(cache.increment("m", (1 << 53) + 1, Duration::Default).await.unwrap(), i64::MIN + (1 << 53) + 1);
    assert_eq!(cache.get("m").await.unwrap(), Some(bytes(&(i64::MIN + (1 << 53) + 1).to_string())));
}

async fn a_new_number_has_a_duration_and_keeps_it(backend: Backend) {
    let cache = view(&backend.cache("default_expire = 60").await);
    let minute = Some(StdDuration::from_secs(60));
    let twice = async || {
        cache.increment("n", 1, Duration::Default).await.unwrap();
        // The duration of a further increment has no effect.
        assert_eq!(cache.increment("n", 1, Duration::Milliseconds(3_600_000)).await.unwrap(), 2);
    };
    backend.assert_lasts(&cache, "n", minute, twice).await;
    let unlimited = async || {
        cache.set("u", bytes("1"), Duration::Unlimited).await.unwrap();
        assert_eq!(cache.increment("u", 1, Duration::Default).await.unwrap(), 2);
    };
    backend.assert_lasts(&cache, "u", None, unlimited).await;
}

async fn a_value_that_has_come_back_has_another_version(backend: Backend) {
    let cache = view(&backend.cache("default_expire = \"unlimited\"").await);
    let version = async || cache.read_version("k").await.unwrap().unwrap().1;
    let set = async |value| cache.set("k", bytes(value), cache.default_or_lasting()).await.unwrap();
    let add = async |delta| cache.increment("k", delta, cache.default_or_lasting()).await.unwrap();
    set("1").await;
    let seen = version().await;
    set("2").await;
    set("1").await;
    assert!(!cache.replace_copy("k", Some(&seen), b"9", Duration::Default).await.unwrap());
    let seen = version().await;
    assert_eq!((add(1).await, add(-1).await), (2, 1));
    assert!(!cache.replace_copy("k", Some(&seen), b"9", Duration::Default).await.unwrap());
    // A number without expiry, too.
    cache.set("k", bytes("1"), Duration::Unlimited).await.unwrap();
    let seen = version().await;
    assert_eq!((add(1).await, add(-1).await), (2, 1));
    assert_ne!(version().await, seen);
    // A life that is shorter than 50 years is kept.
    cache.set("k", bytes("1"), Duration::Milliseconds(3_600_000)).await.unwrap();
    let seen = version().await;
    assert_eq!((add(1).await, add(-1).await), (2, 1));
    assert_eq!(version().await, seen);
    let finite = view(&backend.cache("default_expire = 60").await);
    assert_eq!(finite.default_or_lasting(), Duration::Default);
}

async fn an_increment_ends_a_lease(backend: Backend) {
    let cache = backend.view().await;
    let Entry::Vacant(vacancy) = cache.get_or_set("n").await.unwrap() else { panic!("no value yet") };
    assert_eq!(cache.increment("n", 7, Duration::Default).await.unwrap(), 7);
    assert!(!cache.fill(vacancy, bytes("100"), Duration::Default).await.unwrap());
    assert_eq!(cache.get("n").await.unwrap(), Some(bytes("7")));
}

async fn increments_at_the_same_time_all_count(backend: Backend) {
    let cache = backend.cache("").await;
    let add = |_| {
        let cache = view(&cache);
        tokio::spawn(async move {
            for _ in 0..50 {
                cache.increment("n", 1, Duration::Default).await.unwrap();
            }
        })
    };
    let tasks: Vec<_> = (0..8).map(add).collect();
    for task in tasks {
        within(task).await.unwrap();
    }
    assert_eq!(view(&cache).get("n").await.unwrap(), Some(bytes("400")));
}

async fn a_value_is_replaced_while_it_has_the_version(backend: Backend) {
    let cache = backend.view().await;
    cache.set("k", bytes("a"), Duration::Default).await.unwrap();
    let (value, version) = cache.read_version("k").await.unwrap().unwrap();
    assert_eq!(value, bytes("a"));
    assert!(cache.replace_copy("k", Some(&version), b"longer", Duration::Default).await.unwrap());
    assert_eq!(cache.get("k").await.unwrap(), Some(bytes("longer")));
    assert!(!cache.replace_copy("k", Some(&version), b"c", Duration::Default).await.unwrap());
    assert!(!cache.replace_copy("k", None, b"c", Duration::Default).await.unwrap());
    assert_eq!(cache.get("k").await.unwrap(), Some(bytes("longer")));
    let (_, version) = cache.read_version("k").await.unwrap().unwrap();
    cache.clear("k").await.unwrap();
    assert!(!cache.replace_copy("k", Some(&version), b"c", Duration::Default).await.unwrap());
    assert_eq!(cache.get("k").await.unwrap(), None);
    assert_invalid(cache.replace_copy("", None, b"v", Duration::Default).await, "key");
}

async fn a_value_is_stored_while_there_is_none(backend: Backend) {
    let cache = view(&backend.cache("default_expire = 60\nmax_value_bytes = 100").await);
    let minute = Some(StdDuration::from_secs(60));
    let store = async || assert!(cache.replace_copy("k", None, b"v", Duration::Default).await.unwrap());
    backend.assert_lasts(&cache, "k", minute, store).await;
    cache.set("k", bytes(""), Duration::Default).await.unwrap();
    assert!(!cache.replace_copy("k", None, b"w", Duration::Default).await.unwrap());
    assert_eq!(cache.get("k").await.unwrap(), Some(bytes("")));
    put_expired(&cache, "old").await;
    assert!(cache.replace_copy("old", None, b"new", Duration::Default).await.unwrap());
    assert_eq!(cache.get("old").await.unwrap(), Some(bytes("new")));
    let too_large = cache.replace_copy("l", None, &[0; 101], Duration::Default).await;
    assert!(matches!(too_large, Err(CacheError::ValueTooLarge { max: 100, .. })), "{too_large:?}");
}

async fn a_replacement_ends_a_lease_only_if_it_is_stored(backend: Backend) {
    let cache = backend.view().await;
    let Entry::Vacant(fenced) = cache.get_or_set("a").await.unwrap() else { panic!("no value yet") };
    assert!(cache.replace_copy("a", None, b"swapped", Duration::Default).await.unwrap());
    assert!(!cache.fill(fenced, bytes("filled"), Duration::Default).await.unwrap());
    assert_eq!(cache.get("a").await.unwrap(), Some(bytes("swapped")));
    let Entry::Vacant(kept) = cache.get_or_set("b").await.unwrap() else { panic!("no value yet") };
    let other = Version::new(b"other", None);
    assert!(!cache.replace_copy("b", Some(&other), b"swapped", Duration::Default).await.unwrap());
    assert!(cache.fill(kept, bytes("filled"), Duration::Default).await.unwrap());
}

async fn of_many_swaps_at_the_same_time_one_wins(backend: Backend) {
    let cache = backend.cache("").await;
    view(&cache).set("k", bytes("a"), Duration::Default).await.unwrap();
    let (_, version) = view(&cache).read_version("k").await.unwrap().unwrap();
    for (key, version) in [("k", Some(version)), ("new", None)] {
        let swap = |nth: u32| {
            let (cache, version) = (view(&cache), version.clone());
            tokio::spawn(async move {
                let value = format!("value {nth}");
                cache.replace_copy(key, version.as_ref(), value.as_bytes(), Duration::Default).await.unwrap()
            })
        };
        let tasks: Vec<_> = (0..16).map(swap).collect();
        let mut won = 0;
        for task in tasks {
            won += u32::from(within(task).await.unwrap());
        }
        assert_eq!(won, 1, "{key}");
    }
}

async fn swaps_at_the_same_time_lose_nothing(backend: Backend) {
    let cache = backend.cache("").await;
    let append = |nth: u8| {
        let cache = view(&cache);
        tokio::spawn(async move {
            for _ in 0..10 {
                loop {
                    let seen = cache.read_version("k").await.unwrap();
                    let (mut value, version) = match seen {
                        Some((value, version)) => (value.to_vec(), Some(version)),
                        None => (Vec::new(), None),
                    };
                    value.push(b'a' + nth);
                    if cache.replace_copy("k", version.as_ref(), &value, Duration::Default).await.unwrap() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    let tasks: Vec<_> = (0..4).map(append).collect();
    for task in tasks {
        within(task).await.unwrap();
    }
    let value = view(&cache).get("k").await.unwrap().unwrap();
    let counts = [b'a', b'b', b'c', b'd'].map(|letter| value.iter().filter(|byte| **byte == letter).count());
    assert_eq!(counts, [10; 4]);
}

async fn clear_many_removes_and_counts_each_key_once(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["a", "b", "c"]).await;
    let Entry::Vacant(vacancy) = cache.get_or_set("leased").await.unwrap() else { panic!("no value yet") };
    assert_eq!(cache.clear_many(&["a", "missing", "b", "a", "leased"]).await.unwrap(), 2);
    assert_eq!(present(&cache, &["a", "b", "c"]).await, ["c"]);
    assert!(!cache.fill(vacancy, bytes("v"), Duration::Default).await.unwrap(), "the clear ended the lease");
    assert_eq!(cache.clear_many(&[""; 0]).await.unwrap(), 0);
    assert_invalid(cache.clear_many(&["c", ""]).await, "key");
    assert!(cache.exists("c").await.unwrap());
}

async fn a_batch_of_1025_keys_to_clear_is_refused(backend: Backend) {
    let cache = backend.view().await;
    let keys: Vec<String> = (0..1025).map(|nth| format!("key{nth}")).collect();
    put(&cache, &["key0"]).await;
    assert_invalid(cache.clear_many(&keys).await, "keys");
    assert!(cache.exists("key0").await.unwrap());
    assert_eq!(cache.clear_many(&keys[..1024]).await.unwrap(), 1);
}

async fn read_only_access_lists_and_compares_but_does_not_write(backend: Backend) {
    let cache = backend.cache("").await;
    put(&view(&cache), &["k"]).await;
    let reader = read_only(&cache);
    assert!(reader.exists("k").await.unwrap());
    assert_eq!(reader.list_keys(None).await.unwrap().keys, ["k"]);
    let (_, version) = reader.read_version("k").await.unwrap().unwrap();
    for version in [Some(&version), None] {
        assert_eq!(reader.replace_copy("k", version, b"v", Duration::Default).await, Err(CacheError::ReadOnly));
    }
    assert_eq!(reader.increment("n", 1, Duration::Default).await, Err(CacheError::ReadOnly));
    assert_eq!(reader.clear_many(&["k"]).await, Err(CacheError::ReadOnly));
    assert!(reader.exists("k").await.unwrap() && !reader.exists("n").await.unwrap());
}

async fn counters_of_namespaces_are_separate(backend: Backend) {
    let cache = backend.cache("").await;
    let (one, two, none) = (namespaced(&cache, "one"), namespaced(&cache, "two"), view(&cache));
    assert_eq!(one.increment("n", 1, Duration::Default).await.unwrap(), 1);
    assert_eq!(two.increment("n", 10, Duration::Default).await.unwrap(), 10);
    assert!(!none.exists("n").await.unwrap());
    assert!(none.replace_copy("n", None, b"none", Duration::Default).await.unwrap());
    assert_eq!(one.increment("n", 1, Duration::Default).await.unwrap(), 2);
    assert_eq!(one.clear_many(&["n"]).await.unwrap(), 1);
    assert_eq!(two.get("n").await.unwrap(), Some(bytes("10")));
}

mod servers {
    use super::*;

    over_every_server! {
        a_key_of_another_type_is_an_error,
        numbers_of_other_programs_are_added_to,
        a_full_server_refuses_an_increment,
    }

    async fn a_key_of_another_type_is_an_error(mut backend: Backend) {
        let cache = backend.view().await;
        ::redis::cmd("RPUSH").arg("cache:l").arg("x").exec(&mut backend.behind().client()).unwrap();
        assert_eq!(cache.exists("l").await, Err(CacheError::WrongType));
        assert_eq!(cache.increment("l", 1, Duration::Default).await, Err(CacheError::WrongType));
        assert_eq!(cache.replace_copy("l", None, b"v", Duration::Default).await, Err(CacheError::WrongType));
        assert!(cache.list_keys(None).await.unwrap().keys.is_empty());
    }

    async fn numbers_of_other_programs_are_added_to(mut backend: Backend) {
        let cache = backend.view().await;
        let mut client = backend.behind().client();
        ::redis::cmd("INCRBY").arg("cache:n").arg(41).exec(&mut client).unwrap();
        assert_eq!(cache.increment("n", 1, Duration::Default).await.unwrap(), 42);
        let (number, life): (i64, i64) =
            ::redis::pipe().get("cache:n").cmd("PTTL").arg("cache:n").query(&mut client).unwrap();
        assert_eq!((number, life), (42, -1));
    }

    async fn a_full_server_refuses_an_increment(mut backend: Backend) {
        let cache = backend.view().await;
        assert_eq!(cache.increment("n", 1, Duration::Default).await.unwrap(), 1);
        ::redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec(&mut backend.behind().client()).unwrap();
        let add = cache.increment("n", 1, Duration::Default).await;
        assert!(matches!(&add, Err(CacheError::Unavailable(reason)) if reason.contains("OOM")), "{add:?}");
        let swap = cache.replace_copy("new", None, b"v", Duration::Default).await;
        assert!(matches!(&swap, Err(CacheError::Unavailable(reason)) if reason.contains("OOM")), "{swap:?}");
        assert_eq!(cache.get("n").await.unwrap(), Some(bytes("1")));
    }
}
