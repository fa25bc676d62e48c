//! The JSON of `larder top --once --json`. `docs/command-line.md` lists its keys.

use std::time::Duration;

use serde_json::{Value, json};

use super::latency::Latency;
use super::plugins::PluginStats;
use super::stats::{CacheStats, Stats};
use crate::json::SCHEMA;

/// The whole output.
pub(super) fn object(stats: &Stats, elapsed: Duration) -> Value {
    json!({
        "schema": SCHEMA,
        "interval_seconds": elapsed.as_secs_f64(),
        "instances": whole(stats.instances),
        "answered_per_second": stats.requests.as_ref().map(|requests| &requests.answered),
        "refused_per_second": stats.requests.as_ref().map(|requests| requests.refused),
        "caches": stats.caches.iter().map(cache).collect::<Vec<_>>(),
        "plugins": stats.plugins.iter().map(plugin).collect::<Vec<_>>(),
    })
}

fn plugin(plugin: &PluginStats) -> Value {
    let (counts, rates) = (&plugin.counts, plugin.rates);
    json!({
        "name": plugin.name,
        "requests_per_second": rates.map(|rates| rates.requests),
        "failed_per_second": rates.map(|rates| rates.failed),
        "p50": latency(rates.and_then(|rates| rates.p50)),
        "p99": latency(rates.and_then(|rates| rates.p99)),
        "requests": whole(counts.requests),
        "failed": whole(counts.failed),
        "running": whole(counts.running),
        "idle": counts.idle.map(whole),
    })
}

fn cache(cache: &CacheStats) -> Value {
    let (counts, rates) = (&cache.counts, cache.rates);
    json!({
        "name": cache.name,
        "type": counts.backend,
        "up": counts.up.map(|_| !cache.is_down()),
        "calls_per_second": rates.map(|rates| rates.calls),
        "errors_per_second": rates.map(|rates| rates.errors),
        "hit_rate": rates.and_then(|rates| rates.hit_rate),
        "p50": latency(rates.and_then(|rates| rates.p50)),
        "p99": latency(rates.and_then(|rates| rates.p99)),
        "hits": whole(counts.hits),
        "misses": whole(counts.misses),
        "held": whole(counts.vacancies),
        "computed": whole(counts.computed),
        "waited": whole(counts.waited),
        "stale": whole(counts.stale),
        "refreshed": whole(counts.refreshed),
        "failed_refreshes": whole(counts.failed_refreshes),
        "bytes": counts.bytes.map(whole),
        "max_bytes": counts.max_bytes.map(whole),
        "entries": counts.entries.map(whole),
        "evicted": counts.evictions.map(whole),
        "near_hit_rate": rates.and_then(|rates| rates.near_hit_rate),
        "near_hits": counts.near_hits.map(whole),
        "near_misses": counts.near_misses.map(whole),
        "near_bytes": counts.near_bytes.map(whole),
        "reconnects": counts.reconnects.map(whole),
    })
}

/// A latency is above the last bucket of the histogram if `is_above`.
fn latency(latency: Option<Latency>) -> Value {
    let (seconds, is_above) = match latency {
        None => return Value::Null,
        Some(Latency::Estimate(seconds)) => (seconds, false),
        Some(Latency::Above(seconds)) => (seconds, true),
    };
    json!({ "seconds": seconds, "is_above": is_above })
}

/// A count, which is a float in the metrics. Saturates.
fn whole(count: f64) -> u64 {
    count as u64
}
