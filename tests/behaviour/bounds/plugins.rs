//! The bounds on what all instances of one plugin take together, beside another plugin in the same process.

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

    /// Runs the hostile plugin under a name; its operations say themselves what must come of them.
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

/// On one thread a call that need not wait is over before another one begins, so that exactly those who wait count.
#[tokio::test]
async fn max_concurrent_calls_bounds_the_calls_of_all_instances_of_a_plugin() {
    let config = "[caches.c]\ntype = \"ram\"\nwait = \"10m\"\n[plugins.crowd]\nmax_concurrent_calls = 2\n\
                  [sandbox]\ntimeout = \"1m\"\n";
    let host = Host::start(config).await;
    let holds = ["hold => error Other(\"too many calls at once: the limit is 2\")"];
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
