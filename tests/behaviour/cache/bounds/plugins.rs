//! The limits on all instances of one plugin together, beside another plugin in the same process.

use std::sync::Arc;

use larder_host::cache::{Namespace, ScopedCache};
use larder_host::runtime::RunOptions;
use larder_host::{Config, Error, Runtime, operator_view};
use larder_tests::guest;

use crate::backends::within;

/// A host process with one cache, named `c`.
#[derive(Clone)]
struct Host(Arc<Runtime>);

impl Host {
    async fn start(config: &str) -> Self {
        Self(Arc::new(Runtime::new(Config::from_toml(config).unwrap()).await.unwrap()))
    }

    /// Runs the hostile plugin under a name. Its operations include the expected results.
    async fn run(&self, name: &str, operations: &[&str]) -> Result<i32, Error> {
        let plugin = self.0.load(&guest("hostile"), Some(name)).unwrap();
        let args = operations.iter().map(|operation| (*operation).to_owned()).collect();
        self.0.run(&plugin, &RunOptions { args, ..RunOptions::default() }).await
    }

    /// The host's own view of a key space.
    fn view(&self, namespace: Option<&str>) -> ScopedCache {
        let namespace = namespace.map(|namespace| Namespace::new(namespace).unwrap());
        operator_view(Arc::clone(self.0.caches().get("c").unwrap()), namespace)
    }
}

/// On one thread, a call that does not wait ends before the next one begins, so exactly the waiting calls count.
#[tokio::test]
async fn max_concurrent_calls_bounds_the_calls_of_all_instances_of_a_plugin() {
    let config = "[caches.c]\ntype = \"ram\"\nwait = \"10m\"\n[plugins.crowd]\nmax_concurrent_calls = 2\n\
                  [sandbox]\ntimeout = \"1m\"\n";
    let host = Host::start(config).await;
    let holds = ["hold => error Other(\"too many concurrent calls: the limit is 2\")"];
    let waits = ["slow slow mine 0 => received held"];
    let others = async {
        let view = host.view(None);
        while view.get("held").await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        tokio::join!(
            host.run("another", &waits),
            host.run("another", &waits),
            host.run("another", &waits),
            host.run("crowd", &waits),
            host.run("crowd", &waits),
        )
    };
    let (holder, others) = within(async { tokio::join!(host.run("crowd", &holds), others) }).await;
    assert_eq!(holder.unwrap(), 0);
    let (a, b, c, d, e) = others;
    assert_eq!([a, b, c, d, e].map(Result::unwrap), [0; 5]);
    assert_eq!(host.run("crowd", &["get slow => hit \"held\""]).await.unwrap(), 0, "the calls are over");
}

/// More values than the cache holds, and fewer than any share of it holds.
const FLOOD: usize = 20_000;
const FEW: usize = 1_000;

/// The most values of 1,000 bytes that fit into this many bytes; each counts about 1,200.
const fn room(bytes: usize) -> usize {
    bytes / 1200
}

/// The number of values of one plugin that are still stored.
async fn kept(view: &ScopedCache) -> usize {
    let keys: Vec<String> = (0..FLOOD).map(|n| format!("flood:{n}")).collect();
    let mut kept = 0;
    for keys in keys.chunks(1024) {
        kept += view.get_many(keys).await.unwrap().iter().flatten().count();
    }
    kept
}

/// One plugin fills a cache of 8 MiB, and then another one stores a few values. `sharer` has a namespace, and maybe a
/// share.
async fn flooded(share: &str, first: &str, second: &str) -> Host {
    let config = format!(
        "[caches.c]\ntype = \"ram\"\nmax_bytes = \"8MiB\"\ndefault_expire = \"unlimited\"\n\
         [plugins.sharer]\nnamespace = \"s\"\n{share}\n\
         [sandbox]\ntimeout = \"5m\"\nmax_cpu_time = \"5m\"\n"
    );
    let host = Host::start(&config).await;
    for (name, count) in [(first, FLOOD), (second, FEW)] {
        let flood = format!("flood {count} 1000 => flooded");
        assert_eq!(host.run(name, &[&flood]).await.unwrap(), 0);
    }
    host
}

#[tokio::test]
async fn max_bytes_keeps_a_plugin_from_evicting_the_values_of_others() {
    let host = flooded("max_bytes = \"2MiB\"", "sharer", "another").await;
    let (shared, own) = (host.view(None), host.view(Some("s")));
    assert_eq!(kept(&shared).await, FEW, "all of it is there");
    let in_share = kept(&own).await;
    assert!((room(1 << 20)..=room(2 << 20)).contains(&in_share), "{in_share} values in 2 MiB");
    // It clears its share, and nothing else.
    assert_eq!(own.clear_all().await.unwrap(), in_share as u64);
    assert_eq!((kept(&own).await, kept(&shared).await), (0, FEW));
}

#[tokio::test]
async fn max_bytes_keeps_others_from_evicting_the_values_of_a_plugin() {
    let host = flooded("max_bytes = \"2MiB\"", "another", "sharer").await;
    let (shared, own) = (host.view(None), host.view(Some("s")));
    assert_eq!(kept(&own).await, FEW, "all of it is there");
    let in_rest = kept(&shared).await;
    assert!((room(3 << 20)..=room(6 << 20)).contains(&in_rest), "{in_rest} values in 6 MiB");
    assert_eq!(shared.clear_all().await.unwrap(), in_rest as u64);
    assert_eq!((kept(&own).await, kept(&shared).await), (FEW, 0));
}

/// What a share is for: without it the flood leaves no room for others.
#[tokio::test]
async fn without_max_bytes_a_plugin_evicts_the_values_of_others() {
    let host = flooded("", "sharer", "another").await;
    let left = kept(&host.view(None)).await;
    assert!(left < FEW / 2, "{left} values");
}
