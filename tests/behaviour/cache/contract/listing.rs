//! Lists of keys, in pages.

use std::collections::BTreeSet;
use std::sync::Arc;

use larder_host::cache::{Duration, Entry, ListCursor, ScopedCache};

use crate::backends::{
    Backend, bytes, namespaced, over_every_backend, over_every_server, present, put, put_expired, view,
};

over_every_backend! {
    a_list_has_the_keys_with_values,
    an_empty_cache_has_one_empty_page,
    a_long_list_comes_in_pages,
    a_list_has_the_keys_of_the_own_namespace_only,
    keys_that_stay_are_listed_while_others_change,
    any_number_is_a_harmless_cursor,
    a_list_of_a_prefix_has_the_keys_that_begin_with_it,
}

/// All keys in their order, and the number of keys on each page.
async fn list(cache: &ScopedCache) -> (BTreeSet<String>, Vec<usize>) {
    let (mut keys, mut pages, mut cursor) = (BTreeSet::new(), Vec::new(), None);
    loop {
        let page = cache.list_keys(cursor).await.unwrap();
        pages.push(page.keys.len());
        keys.extend(page.keys);
        match page.next {
            Some(next) => cursor = Some(next),
            None => return (keys, pages),
        }
    }
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

async fn fill(cache: &ScopedCache, keys: &[String]) {
    for keys in keys.chunks(1000) {
        let entries = keys.iter().map(|key| (key.clone(), b"v".to_vec())).collect();
        cache.set_many(entries, Duration::Default).await.unwrap();
    }
}

async fn a_list_has_the_keys_with_values(backend: Backend) {
    let cache = backend.view().await;
    let keys = ["a", "*", "[a]", "é", "cache:a", "user:1"];
    put(&cache, &keys).await;
    cache.set("empty", bytes(""), Duration::Unlimited).await.unwrap();
    put(&cache, &["cleared"]).await;
    cache.clear("cleared").await.unwrap();
    let Entry::Vacant(vacancy) = cache.get_or_set("leased").await.unwrap() else { panic!("no value yet") };
    let mut expected = names(keys);
    expected.insert("empty".to_owned());
    assert_eq!(list(&cache).await.0, expected);
    assert!(cache.fill(vacancy, bytes("v"), Duration::Default).await.unwrap());
    put_expired(&cache, "old").await;
    // The hourglass of `put_expired` has run out too.
    expected.insert("leased".to_owned());
    assert_eq!(list(&cache).await.0, expected);
}

async fn an_empty_cache_has_one_empty_page(backend: Backend) {
    let cache = backend.view().await;
    let page = cache.list_keys(None).await.unwrap();
    assert_eq!((page.keys.len(), list(&cache).await.0.len()), (0, 0));
}

async fn a_long_list_comes_in_pages(backend: Backend) {
    let cache = backend.view().await;
    let keys: Vec<String> = (0..5000).map(|nth| format!("key{nth}")).collect();
    fill(&cache, &keys).await;
    let (listed, pages) = list(&cache).await;
    assert_eq!(listed, keys.into_iter().collect());
    // A server may return a few keys more than it was asked for.
    assert!(pages.len() >= 5 && pages.iter().all(|page| *page <= 1200), "{pages:?}");
}

async fn a_list_has_the_keys_of_the_own_namespace_only(backend: Backend) {
    let cache = backend.cache("").await;
    let (one, two, none) = (namespaced(&cache, "n"), namespaced(&cache, "?"), view(&cache));
    put(&one, &["a", "b"]).await;
    put(&two, &["b", "c"]).await;
    put(&none, &["d"]).await;
    assert_eq!(list(&one).await.0, names(["a", "b"]));
    assert_eq!(list(&two).await.0, names(["b", "c"]));
    assert_eq!(list(&none).await.0, names(["d"]));
}

async fn keys_that_stay_are_listed_while_others_change(backend: Backend) {
    let cache = backend.view().await;
    let keys = |name: &str| -> Vec<String> { (0..3000).map(|nth| format!("{name}{nth}")).collect() };
    let (stay, go, come) = (keys("stay"), keys("go"), keys("come"));
    fill(&cache, &stay).await;
    fill(&cache, &go).await;
    let (mut listed, mut cursor, mut nth) = (BTreeSet::new(), None, 0);
    loop {
        let page = cache.list_keys(cursor).await.unwrap();
        listed.extend(page.keys);
        let Some(next) = page.next else { break };
        cursor = Some(next);
        let range = (nth * 500).min(2500)..(nth * 500 + 500).min(3000);
        cache.clear_many(&go[range.clone()]).await.unwrap();
        fill(&cache, &come[range]).await;
        nth += 1;
    }
    assert!(nth > 2, "{nth} pages");
    assert!(stay.iter().all(|key| listed.contains(key)));
    assert!(listed.iter().all(|key| ["stay", "go", "come"].iter().any(|name| key.starts_with(name))));
}

async fn any_number_is_a_harmless_cursor(backend: Backend) {
    let cache = backend.view().await;
    put(&cache, &["a", "b"]).await;
    for number in [1, 2, 1023, 1 << 14, 1 << 45, 1 << 46, 1 << 55, 1 << 63, u64::MAX, 0x0123_4567_89ab_cdef] {
        if let Ok(page) = cache.list_keys(ListCursor::new(number)).await {
            assert!(page.keys.iter().all(|key| key == "a" || key == "b"));
        }
    }
    assert_eq!(present(&cache, &["a", "b"]).await, ["a", "b"]);
}

async fn a_list_of_a_prefix_has_the_keys_that_begin_with_it(backend: Backend) {
    let cache = backend.cache("").await;
    let (one, two, none) = (namespaced(&cache, "n"), namespaced(&cache, "*"), view(&cache));
    for cache in [&one, &two, &none] {
        put(cache, &["a", "ab", "a*", "a*b", "a[b]", "b", "cache:a"]).await;
    }
    let all = ["a", "ab", "a*", "a*b", "a[b]", "b", "cache:a"];
    for (prefix, expected) in [
        ("", names(all)),
        ("a", names(["a", "ab", "a*", "a*b", "a[b]"])),
        ("a*", names(["a*", "a*b"])),
        ("a[", names(["a[b]"])),
        ("a[b]", names(["a[b]"])),
        ("?", names([])),
        ("cache:", names(["cache:a"])),
        ("\\", names([])),
    ] {
        for cache in [&one, &two, &none] {
            let page = cache.list_keys_with_prefix(prefix, None).await.unwrap();
            let mut listed = BTreeSet::from_iter(page.keys);
            let mut cursor = page.next;
            while let Some(next) = cursor {
                let page = cache.list_keys_with_prefix(prefix, Some(next)).await.unwrap();
                listed.extend(page.keys);
                cursor = page.next;
            }
            assert_eq!(listed, expected, "{prefix}");
        }
    }
}

/// Three primaries, whose keys do not change. A server that does not shrink its table lists none of them twice.
#[tokio::test]
async fn each_key_of_a_cluster_is_on_one_page() {
    let Some(cluster) = larder_tests::Cluster::start(larder_tests::Kind::Valkey) else { return };
    let cluster = Arc::new(cluster);
    let cache = Backend::cluster(&cluster, "").cache("").await;
    for (cache, name) in [(view(&cache), "none"), (namespaced(&cache, "n"), "n")] {
        let mut keys: Vec<String> = (0..5000).map(|nth| format!("{name}:{nth}")).collect();
        fill(&cache, &keys).await;
        let (mut listed, mut pages, mut cursor) = (Vec::new(), 0, None);
        loop {
            let page = cache.list_keys(cursor).await.unwrap();
            listed.extend(page.keys);
            pages += 1;
            let Some(next) = page.next else { break };
            cursor = Some(next);
        }
        listed.sort_unstable();
        keys.sort_unstable();
        assert_eq!(listed, keys);
        assert!(pages >= 6, "{pages} pages: each of three primaries has over 1,024 keys");
    }
}

mod servers {
    use super::*;

    over_every_server! {
        a_list_has_no_keys_of_other_programs,
        a_page_may_be_empty_where_other_programs_have_many_keys,
        a_list_sends_scan_and_not_keys,
    }

    async fn a_list_has_no_keys_of_other_programs(mut backend: Backend) {
        let cache = backend.view().await;
        let mut client = backend.behind().client();
        for key in [&b"session:1"[..], b"cache", b"xcache:a", b"cache:\xff", b"cache:a\nb", b"cache:n\x1fk", b"cache:"]
        {
            ::redis::cmd("SET").arg(key).arg("theirs").exec(&mut client).unwrap();
        }
        ::redis::cmd("SET").arg(format!("cache:{}", "k".repeat(1025))).arg("theirs").exec(&mut client).unwrap();
        put(&cache, &["a"]).await;
        assert_eq!(list(&cache).await.0, names(["a"]));
    }

    async fn a_page_may_be_empty_where_other_programs_have_many_keys(mut backend: Backend) {
        let cache = backend.view().await;
        let mut fill = ::redis::pipe();
        for nth in 0..40_000 {
            fill.cmd("SET").arg(format!("session:{nth}")).arg("theirs").ignore();
        }
        fill.exec(&mut backend.behind().client()).unwrap();
        put(&cache, &["a", "b"]).await;
        let (keys, pages) = list(&cache).await;
        assert_eq!(keys, names(["a", "b"]));
        // A page ends after 16 scans of 1,000 keys.
        assert!(pages.len() >= 3, "{pages:?}");
    }

    async fn a_list_sends_scan_and_not_keys(mut backend: Backend) {
        let cache = backend.view().await;
        put(&cache, &["a"]).await;
        list(&cache).await;
        let stats: String = ::redis::cmd("INFO").arg("commandstats").query(&mut backend.behind().client()).unwrap();
        assert!(stats.contains("cmdstat_scan:") && !stats.contains("cmdstat_keys:"), "{stats}");
    }
}
