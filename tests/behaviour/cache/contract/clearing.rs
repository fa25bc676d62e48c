//! clear, clear-pattern and clear-all.

use std::cell::Cell;

use larder_host::cache::{Duration, ScopedCache};

use crate::backends::{Backend, assert_invalid, bytes, over_every_backend, over_every_server, present, put};

over_every_backend! {
    clear_removes_one_key_and_returns_whether_it_existed,
    a_star_in_clear_is_a_character,
    clear_pattern_removes_what_matches_and_counts_it,
    a_pattern_means_the_whole_key,
    a_question_mark_is_one_byte,
    a_class_is_one_of_its_members,
    a_backslash_makes_a_character_mean_itself,
    odd_classes_match_as_on_the_servers,
    a_bad_pattern_is_refused,
    a_range_that_servers_disagree_on_is_refused,
    clear_all_removes_everything_and_counts_it,
    clearing_more_than_a_page_of_keys_leaves_none,
    a_clear_removes_and_counts_all_previous_keys_while_others_are_set,
}

/// Stores all keys, clears by the pattern, and asserts that it took exactly those.
async fn assert_clears(cache: &ScopedCache, keys: &[&str], pattern: &str, cleared: &[&str]) {
    cache.clear_all().await.unwrap();
    put(cache, keys).await;
    let count = cache.clear_pattern(pattern).await.unwrap();
    let left = present(cache, keys).await;
    let gone: Vec<&str> = keys.iter().copied().filter(|key| !left.contains(key)).collect();
    assert_eq!(gone, cleared, "`{pattern}`");
    assert_eq!(count, cleared.len() as u64, "`{pattern}`");
}

async fn clear_removes_one_key_and_returns_whether_it_existed(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["a", "b"]).await;
    assert!(cache.clear("a").await.unwrap());
    assert!(!cache.clear("a").await.unwrap());
    assert_eq!(present(&cache, &["a", "b"]).await, ["b"]);
}

async fn a_star_in_clear_is_a_character(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["user:*", "user:1", "user:?", "user:[1]"]).await;
    assert!(cache.clear("user:*").await.unwrap());
    assert!(!cache.clear("user:*").await.unwrap());
    assert!(cache.clear("user:[1]").await.unwrap());
    assert!(!cache.clear("*").await.unwrap());
    assert_eq!(present(&cache, &["user:*", "user:1", "user:?", "user:[1]"]).await, ["user:1", "user:?"]);
}

async fn clear_pattern_removes_what_matches_and_counts_it(backend: Backend) {
    let cache = backend.view().await;
    let keys = ["user:1", "user:2", "user:3", "post:1"];
    assert_clears(&cache, &keys, "user:*", &["user:1", "user:2", "user:3"]).await;
    assert_eq!(cache.clear_pattern("user:*").await.unwrap(), 0);
}

async fn a_pattern_means_the_whole_key(backend: Backend) {
    let cache = backend.view().await;
    let keys = ["user", "user:1", "a:user", "User", "user:1:x"];
    assert_clears(&cache, &keys, "user", &["user"]).await;
    assert_clears(&cache, &keys, "*user", &["user", "a:user"]).await;
    assert_clears(&cache, &keys, "user:*1", &["user:1"]).await;
    assert_clears(&cache, &keys, "*", &keys).await;
    assert_clears(&cache, &keys, "cache:*", &[]).await;
}

async fn a_question_mark_is_one_byte(backend: Backend) {
    let cache = backend.view().await;
    let keys = ["user:1", "user:12", "user:é", "user:?", "user:"];
    assert_clears(&cache, &keys, "user:?", &["user:1", "user:?"]).await;
    assert_clears(&cache, &keys, "user:??", &["user:12", "user:é"]).await;
}

async fn a_class_is_one_of_its_members(backend: Backend) {
    let cache = backend.view().await;
    let keys = ["k1", "k2", "k3", "k9", "ka", "k^", "k"];
    assert_clears(&cache, &keys, "k[13]", &["k1", "k3"]).await;
    assert_clears(&cache, &keys, "k[1-3]", &["k1", "k2", "k3"]).await;
    assert_clears(&cache, &keys, "k[3-1]", &["k1", "k2", "k3"]).await;
    assert_clears(&cache, &keys, "k[^1-9]", &["ka", "k^"]).await;
}

async fn a_backslash_makes_a_character_mean_itself(backend: Backend) {
    let cache = backend.view().await;
    let keys = ["a*", "ab", "a?", "a[b]", "a\\", "a]"];
    assert_clears(&cache, &keys, "a\\*", &["a*"]).await;
    assert_clears(&cache, &keys, "a\\?", &["a?"]).await;
    assert_clears(&cache, &keys, "a\\[b]", &["a[b]"]).await;
    assert_clears(&cache, &keys, "a\\b", &["ab"]).await;
    assert_clears(&cache, &keys, "a\\", &["a\\"]).await;
    assert_clears(&cache, &keys, "a[\\]]", &["a]"]).await;
}

async fn odd_classes_match_as_on_the_servers(backend: Backend) {
    let cache = backend.view().await;
    let keys = ["]", "^", "a", "-", "!", "b", "[", "\\", "z", "0"];
    assert_clears(&cache, &keys, "[a-]", &["]", "^", "a"]).await;
    assert_clears(&cache, &keys, "[]a]", &[]).await;
    assert_clears(&cache, &keys, "[", &[]).await;
    assert_clears(&cache, &keys, "[^]", &keys).await;
    assert_clears(&cache, &keys, "[a", &["a"]).await;
    assert_clears(&cache, &keys, "[a-", &["a", "-"]).await;
    assert_clears(&cache, &keys, "[!a]", &["a", "!"]).await;
}

async fn a_bad_pattern_is_refused(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["a"]).await;
    for bad in ["", "a\n*", "*\u{1f}*", "\u{7f}", &"a".repeat(1025)] {
        assert_invalid(cache.clear_pattern(bad).await, "pattern");
    }
    assert_eq!(cache.clear_pattern(&"*".repeat(1024)).await.unwrap(), 1);
}

async fn a_range_that_servers_disagree_on_is_refused(backend: Backend) {
    let cache = backend.view().await;
    assert_invalid(cache.clear_pattern("[a-é]").await, "pattern");
    assert_clears(&cache, &["б", "a"], "[а-я]*", &["б"]).await;
}

async fn clear_all_removes_everything_and_counts_it(backend: Backend) {
    let cache = backend.view().await;
    assert_eq!(cache.clear_all().await.unwrap(), 0);
    let keys = ["a", "*", "é", "user:1"];
    put(&cache, &keys).await;
    assert_eq!(cache.clear_all().await.unwrap(), 4);
    assert!(present(&cache, &keys).await.is_empty());
    assert_eq!(cache.clear_all().await.unwrap(), 0);
}

/// More keys than a page of `SCAN` returns, and than one `UNLINK` removes.
async fn clearing_more_than_a_page_of_keys_leaves_none(backend: Backend) {
    let cache = backend.view().await;
    for chunk in 0..5 {
        let key = |n: u32| if n.is_multiple_of(2) { format!("even:{chunk}:{n}") } else { format!("odd:{chunk}:{n}") };
        let entries = (0..1000).map(|n| (key(n), b"v".to_vec())).collect();
        cache.set_many(entries, Duration::Unlimited).await.unwrap();
    }
    assert_eq!(cache.clear_pattern("even:*").await.unwrap(), 2500);
    assert_eq!(cache.clear_pattern("even:*").await.unwrap(), 0);
    assert_eq!(cache.get("odd:0:1").await.unwrap(), Some(bytes("v")));
    assert_eq!(cache.clear_all().await.unwrap(), 2500);
}

mod servers {
    use ::redis::cmd;

    use super::*;

    over_every_server! { clear_all_leaves_the_rest_of_the_database }

    async fn clear_all_leaves_the_rest_of_the_database(mut backend: Backend) {
        let cache = backend.view().await;
        let mut client = backend.behind().client();
        let others = ["cache", "session:1", "xcache:a", "Cache:a"];
        for other in others {
            cmd("SET").arg(other).arg("theirs").exec(&mut client).unwrap();
        }
        put(&cache, &["a", "session:1"]).await;
        assert_eq!(cache.clear_pattern("*").await.unwrap(), 2);
        assert_eq!(cache.clear_all().await.unwrap(), 0);
        let mut left: Vec<String> = cmd("KEYS").arg("*").query(&mut client).unwrap();
        left.sort();
        assert_eq!(left, ["Cache:a", "cache", "session:1", "xcache:a"]);
    }
}

async fn a_clear_removes_and_counts_all_previous_keys_while_others_are_set(backend: Backend) {
    let (cache, other) = (backend.view().await, backend.view().await);
    let old: Vec<String> = (0..5000).map(|nth| format!("old:{nth}")).collect();
    for keys in old.chunks(1000) {
        let entries = keys.iter().map(|key| (key.clone(), b"v".to_vec())).collect();
        cache.set_many(entries, Duration::Default).await.unwrap();
    }
    // In RAM, caches do not share their values.
    let other = if present(&other, &["old:0"]).await.is_empty() { cache.clone() } else { other };
    let is_over = Cell::new(false);
    let clearing = async {
        let removed = cache.clear_all().await.unwrap();
        is_over.set(true);
        removed
    };
    let setting = async {
        let mut new = Vec::new();
        while !is_over.get() {
            new.push(format!("new:{}", new.len()));
            other.set(&new[new.len() - 1], bytes("v"), Duration::Default).await.unwrap();
            tokio::task::yield_now().await;
        }
        new
    };
    let (removed, new) = tokio::join!(clearing, setting);
    let mut left = 0;
    for keys in [&old[..], &new].concat().chunks(1000) {
        let values = cache.get_many(keys).await.unwrap();
        let found = keys.iter().zip(values).filter_map(|(key, value)| value.map(|_| key));
        left += found.inspect(|key| assert!(key.starts_with("new:"), "`{key}` was there and stayed")).count();
    }
    assert_eq!(removed, (old.len() + new.len() - left) as u64);
}
