//! Invalidation across processes: the time from a write in one process until another one does not serve the old value.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration as StdDuration, SystemTime};

use bytes::Bytes;
use larder_host::cache::{Cache, Duration};
use larder_host::{Config, connect_cache};

use crate::backend::view;
use crate::{servers, table, version};

/// The argument before the configuration of the process that writes.
pub(crate) const WRITER: &str = "--writer";

const WRITES: u32 = 2000;
const INTERVAL: StdDuration = StdDuration::from_millis(2);

pub(crate) async fn changes() {
    table::heading("From a set in one process until another process does not serve the old value near");
    table::columns(&["median", "99th percentile", "longest", "writes"]);
    for server in servers() {
        let toml = format!("{}timeout = \"20s\"\n", server.cache("cache"));
        let cache = view(&connect(&format!("{toml}near = {{ max_staleness = \"60s\" }}\n")).await);
        let near = cache.near_path().expect("a cache with a near tier");
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--bench", WRITER, &toml])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut times = Vec::new();
        while writer.try_wait().unwrap().is_none() {
            let Some(near_value) = near.get("k") else {
                cache.get("k").await.unwrap();
                tokio::task::yield_now().await;
                continue;
            };
            let gone = loop {
                if near.get("k").is_none() {
                    break nanoseconds();
                }
                // The connection gets its turn.
                tokio::task::yield_now().await;
                if nanoseconds() - time(&near_value) > 5_000_000_000 {
                    break 0;
                }
            };
            let next = cache.get("k").await.unwrap();
            if let Some(next) = next.filter(|next| gone > 0 && *next != near_value) {
                times.push((gone - time(&next)) as f64 / 1e9);
            }
        }
        let [median, slow, longest] = [0.5, 0.99, 1.0].map(|part| table::time(table::quantile(&times, part)));
        table::row(&version(&server), "set, then a hit no more", &[median, slow, longest, times.len().to_string()]);
    }
}

/// The process that writes: each value is the time before its set was called.
pub(crate) async fn write(toml: &str) {
    let cache = view(&connect(toml).await);
    for _ in 0..WRITES {
        tokio::time::sleep(INTERVAL).await;
        let value = Bytes::from(nanoseconds().to_string());
        cache.set("k", value, Duration::Unlimited).await.unwrap();
    }
}

async fn connect(toml: &str) -> Arc<Cache> {
    connect_cache("cache", &Config::from_toml(toml).unwrap().caches["cache"]).await.unwrap()
}

fn time(value: &Bytes) -> i64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// The time of the clock that all processes share.
fn nanoseconds() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_nanos()).unwrap()
}
