//! Key spaces of single plugins, on a cache that several share.

use std::sync::Arc;

use larder_host::cache::{Cache, Duration, Entry};

use crate::backends::{
    Backend, bytes, namespaced, over_every_backend, over_every_server, present, put, put_expired, view,
};

over_every_backend! {
    two_namespaces_do_not_see_each_other,
    a_plugin_without_a_namespace_and_one_with_do_not_see_each_other,
    plugins_without_a_namespace_share_their_keys,
    plugins_of_one_namespace_share_their_keys,
    clear_stays_inside_the_namespace,
    clear_pattern_stays_inside_the_namespace,
    clear_all_stays_inside_the_namespace,
    clearing_without_a_namespace_never_touches_nor_counts_namespaced_keys,
    a_namespace_that_begins_with_another_is_its_own,
    a_namespace_of_glob_characters_means_itself,
    batches_stay_inside_the_namespace,
    get_or_set_stays_inside_the_namespace,
}

const KEYS: [&str; 3] = ["user:1", "user:2", "post:1"];

/// Three plugins that have stored the same keys: two with a namespace, and one without.
struct Three {
    cache: Arc<Cache>,
    shop: larder_host::cache::ScopedCache,
    blog: larder_host::cache::ScopedCache,
    plain: larder_host::cache::ScopedCache,
}

impl Three {
    async fn new(backend: &Backend) -> Self {
        let cache = backend.cache("").await;
        let (shop, blog, plain) = (namespaced(&cache, "shop"), namespaced(&cache, "blog"), view(&cache));
        for plugin in [&shop, &blog, &plain] {
            put(plugin, &KEYS).await;
        }
        Self { cache, shop, blog, plain }
    }

    /// Asserts what is left for `shop`, for `blog`, and for the plugin without a namespace.
    async fn assert_left(&self, shop: &[&str], blog: &[&str], plain: &[&str]) {
        assert_eq!(present(&self.shop, &KEYS).await, shop);
        assert_eq!(present(&self.blog, &KEYS).await, blog);
        assert_eq!(present(&self.plain, &KEYS).await, plain);
    }
}

async fn two_namespaces_do_not_see_each_other(backend: Backend) {
    let cache = backend.cache("").await;
    let (shop, blog) = (namespaced(&cache, "shop"), namespaced(&cache, "blog"));
    shop.set("k", bytes("shop's"), Duration::Default).await.unwrap();
    assert_eq!(blog.get("k").await.unwrap(), None);
    blog.set("k", bytes("blog's"), Duration::Default).await.unwrap();
    assert_eq!(shop.get("k").await.unwrap(), Some(bytes("shop's")));
    assert_eq!(blog.get("k").await.unwrap(), Some(bytes("blog's")));
}

async fn a_plugin_without_a_namespace_and_one_with_do_not_see_each_other(backend: Backend) {
    let cache = backend.cache("").await;
    let (shop, plain) = (namespaced(&cache, "shop"), view(&cache));
    shop.set("a", bytes("shop's"), Duration::Default).await.unwrap();
    plain.set("b", bytes("everybody's"), Duration::Default).await.unwrap();
    let keys = ["a", "b", "shopa", "shop a", "shop:a"];
    assert_eq!(present(&plain, &keys).await, ["b"]);
    assert_eq!(present(&shop, &keys).await, ["a"]);
}

async fn plugins_without_a_namespace_share_their_keys(backend: Backend) {
    let cache = backend.cache("").await;
    put(&view(&cache), &["k"]).await;
    assert_eq!(view(&cache).get("k").await.unwrap(), Some(bytes("k")));
}

async fn plugins_of_one_namespace_share_their_keys(backend: Backend) {
    let cache = backend.cache("").await;
    put(&namespaced(&cache, "shop"), &["k"]).await;
    assert_eq!(namespaced(&cache, "shop").get("k").await.unwrap(), Some(bytes("k")));
}

async fn clear_stays_inside_the_namespace(backend: Backend) {
    let three = Three::new(&backend).await;
    assert!(three.shop.clear("user:1").await.unwrap());
    assert!(!three.shop.clear("user:1").await.unwrap());
    three.assert_left(&KEYS[1..], &KEYS, &KEYS).await;
    assert!(three.plain.clear("user:2").await.unwrap());
    three.assert_left(&KEYS[1..], &KEYS, &["user:1", "post:1"]).await;
}

async fn clear_pattern_stays_inside_the_namespace(backend: Backend) {
    let three = Three::new(&backend).await;
    assert_eq!(three.shop.clear_pattern("user:*").await.unwrap(), 2);
    three.assert_left(&["post:1"], &KEYS, &KEYS).await;
    assert_eq!(three.shop.clear_pattern("*").await.unwrap(), 1);
    three.assert_left(&[], &KEYS, &KEYS).await;
    assert_eq!(three.shop.clear_pattern("blog?*").await.unwrap(), 0);
    three.assert_left(&[], &KEYS, &KEYS).await;
}

async fn clear_all_stays_inside_the_namespace(backend: Backend) {
    let three = Three::new(&backend).await;
    assert_eq!(three.shop.clear_all().await.unwrap(), 3);
    three.assert_left(&[], &KEYS, &KEYS).await;
}

async fn clearing_without_a_namespace_never_touches_nor_counts_namespaced_keys(backend: Backend) {
    let three = Three::new(&backend).await;
    assert_eq!(three.plain.clear_pattern("shop*").await.unwrap(), 0);
    assert_eq!(three.plain.clear_pattern("*user:*").await.unwrap(), 2);
    three.assert_left(&KEYS, &KEYS, &["post:1"]).await;
    assert_eq!(three.plain.clear_pattern("*").await.unwrap(), 1);
    three.assert_left(&KEYS, &KEYS, &[]).await;
    put(&three.plain, &KEYS).await;
    assert_eq!(three.plain.clear_all().await.unwrap(), 3);
    three.assert_left(&KEYS, &KEYS, &[]).await;
}

async fn a_namespace_that_begins_with_another_is_its_own(backend: Backend) {
    let three = Three::new(&backend).await;
    let shop2 = namespaced(&three.cache, "shop2");
    put(&shop2, &["k"]).await;
    assert_eq!(three.shop.clear_all().await.unwrap(), 3);
    assert_eq!(three.shop.clear_pattern("2*").await.unwrap(), 0);
    assert_eq!(present(&shop2, &["k"]).await, ["k"]);
    put(&three.shop, &KEYS).await;
    assert_eq!(shop2.clear_all().await.unwrap(), 1);
    three.assert_left(&KEYS, &KEYS, &KEYS).await;
}

async fn a_namespace_of_glob_characters_means_itself(backend: Backend) {
    let three = Three::new(&backend).await;
    for namespace in ["*", "sh*p", "sh?p", "[s]hop", "[^x]hop", "sho\\p", "s[a-z]op", "shop\\"] {
        let odd = namespaced(&three.cache, namespace);
        put(&odd, &["user:1"]).await;
        assert_eq!(odd.clear_pattern("user:*").await.unwrap(), 1, "{namespace}");
        put(&odd, &["user:1"]).await;
        assert_eq!(odd.clear_all().await.unwrap(), 1, "{namespace}");
        assert!(!odd.clear("user:1").await.unwrap(), "{namespace}");
        three.assert_left(&KEYS, &KEYS, &KEYS).await;
    }
}

async fn batches_stay_inside_the_namespace(backend: Backend) {
    let three = Three::new(&backend).await;
    let keys = KEYS.map(str::to_owned);
    let entries = keys.iter().map(|key| (key.clone(), b"shop's".to_vec())).collect();
    three.shop.set_many(entries, Duration::Default).await.unwrap();
    assert_eq!(three.shop.get_many(&keys).await.unwrap(), vec![Some(bytes("shop's")); 3]);
    assert_eq!(three.blog.get_many(&keys).await.unwrap(), KEYS.map(|key| Some(bytes(key))));
    assert_eq!(three.plain.get_many(&keys).await.unwrap(), KEYS.map(|key| Some(bytes(key))));
}

/// Each key space has its own value, and its own vacancy.
async fn get_or_set_stays_inside_the_namespace(backend: Backend) {
    let cache = backend.cache("").await;
    let (shop, plain) = (namespaced(&cache, "shop"), view(&cache));
    put_expired(&plain, "k").await;
    let Entry::Vacant(shops) = shop.get_or_set("k").await.unwrap() else { panic!("`shop` sees another's value") };
    let Entry::Vacant(plains) = plain.get_or_set("k").await.unwrap() else { panic!("`shop` is waited for") };
    assert!(shop.fill(shops, bytes("shop's"), Duration::Default).await.unwrap());
    assert!(plain.fill(plains, bytes("plain's"), Duration::Default).await.unwrap());
    assert_eq!(shop.get("k").await.unwrap(), Some(bytes("shop's")));
    assert_eq!(plain.get("k").await.unwrap(), Some(bytes("plain's")));
}

mod servers {
    use ::redis::cmd;

    use super::*;

    over_every_server! { a_unit_separator_is_between_namespace_and_key }

    async fn a_unit_separator_is_between_namespace_and_key(mut backend: Backend) {
        put(&namespaced(&backend.cache("").await, "shop"), &["user:1"]).await;
        let keys: Vec<String> = cmd("KEYS").arg("*").query(&mut backend.behind().client()).unwrap();
        assert_eq!(keys, ["cache:shop\u{1f}user:1"]);
    }
}
