//! Repeats one hot path: `instructions PATH TIMES`. The test module `instructions` runs this program under a tool that
//! counts instructions.

use std::hint::black_box;

use larder_host::cache::glob::Pattern;
use larder_host::cache::ram::RamBackend;
use larder_host::cache::{Access, Cache, Duration, Key, Namespace, Owner, Policy, ScopedCache};
use larder_host::{Config, operator_view};

const CONFIG: &str = "
default = \"pages\"

[caches.pages]
type = \"ram\"
max_bytes = \"256MiB\"
default_expire = 300

[caches.shared]
type = \"valkey\"
host = \"127.0.0.1\"
port = 6379
timeout = \"500ms\"

[plugins.shop]
caches = [\"pages\", \"shared\"]
namespace = \"shop\"
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, times] = arguments.as_slice() else { panic!("expected `PATH TIMES`, not {arguments:?}") };
    let times: u32 = times.parse().expect("`TIMES` is a number");
    let namespace = Namespace::new("shop").unwrap();
    let cache = cache();
    let plain = operator_view(cache.clone(), None);
    let namespaced = ScopedCache::new(cache, Some(namespace.clone()), Access::ReadWrite, Owner::new());
    for view in [&plain, &namespaced] {
        view.fast_path().unwrap().set("user:42", vec![b'v'; 100].into(), Duration::Default).unwrap();
    }
    let pattern = Pattern::new("user:*:pro[a-f]ile").unwrap();
    for _ in 0..times {
        match path.as_str() {
            "nothing" => {}
            "get" => assert!(get(&plain, "user:42")),
            "get-in-a-namespace" => assert!(get(&namespaced, "user:42")),
            "miss" => assert!(!get(&plain, "user:43")),
            "get-or-set" => assert!(plain.fast_path().unwrap().occupied(black_box("user:42")).is_some()),
            "set" => {
                let value = vec![b'v'; 100].into();
                plain.fast_path().unwrap().set(black_box("user:42"), value, Duration::Default).unwrap();
            }
            "key" => drop(black_box(Key::new(Some(&namespace), black_box("user:42")).unwrap())),
            "glob" => assert!(pattern.matches(black_box(b"user:1234567:profile"))),
            "configuration" => drop(black_box(Config::from_toml(black_box(CONFIG)).unwrap())),
            other => panic!("unknown path: {other}"),
        }
    }
}

fn get(view: &ScopedCache, key: &str) -> bool {
    view.fast_path().unwrap().get(black_box(key)).unwrap().is_some()
}

/// Creates the cache outside a Tokio runtime, so that no background task is counted.
fn cache() -> std::sync::Arc<Cache> {
    let policy = Policy::default();
    Cache::new("cache", RamBackend::new(64 << 20, policy.max_value_bytes, &[]), policy).into()
}
