//! What `larder top` shows: the counts of a snapshot, and the rates between two snapshots.

use std::collections::BTreeMap;
use std::time::Duration;

use super::latency::Latency;
use super::plugins::{PluginCounts, PluginRates, PluginStats};
use super::snapshot::{Counts, Requests, Snapshot};

/// The counts and rates of a host.
#[derive(Debug, PartialEq)]
pub(super) struct Stats {
    /// Sorted by name.
    pub(super) caches: Vec<CacheStats>,
    /// Running plugin instances.
    pub(super) instances: f64,
    /// `None` after the first snapshot.
    pub(super) requests: Option<RequestRates>,
    /// Sorted by name.
    pub(super) plugins: Vec<PluginStats>,
}

/// HTTP requests per second.
#[derive(Debug, PartialEq)]
pub(super) struct RequestRates {
    /// By status class, such as `2xx`.
    pub(super) answered: BTreeMap<String, f64>,
    pub(super) refused: f64,
}

/// The counts and rates of a cache.
#[derive(Debug, PartialEq)]
pub(super) struct CacheStats {
    pub(super) name: String,
    /// Counters since the host started, and current gauges.
    pub(super) counts: Counts,
    /// `None` after the first snapshot.
    pub(super) rates: Option<CacheRates>,
}

/// The rates of a cache between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CacheRates {
    /// Calls per second.
    pub(super) calls: f64,
    /// Failed calls per second.
    pub(super) errors: f64,
    /// The share of keys looked up that had a value. `None` if no key was looked up.
    pub(super) hit_rate: Option<f64>,
    /// The median latency of the backend. `None` without a call to it.
    pub(super) p50: Option<Latency>,
    /// The 99th percentile of the backend's latency. `None` without a call to it.
    pub(super) p99: Option<Latency>,
    /// The share of keys looked up in the near tier that were answered there. `None` if no key was looked up there.
    pub(super) near_hit_rate: Option<f64>,
}

impl Stats {
    /// Computes the rates from an earlier snapshot and the time since. If the host restarted in between, all of its
    /// counts are from that time.
    pub(super) fn new(snapshot: &Snapshot, earlier: Option<(&Snapshot, Duration)>) -> Self {
        let empty = Snapshot::default();
        let earlier = earlier.map(|(earlier, elapsed)| {
            let earlier = if earlier.may_precede(snapshot) { earlier } else { &empty };
            // A minimum, so that a rate is never infinite.
            (earlier, elapsed.as_secs_f64().max(1e-3))
        });
        let no_counts = Counts::default();
        let cache = |(name, counts): (&String, &Counts)| {
            let rates = earlier.map(|(earlier, seconds)| {
                CacheRates::new(counts, earlier.caches.get(name).unwrap_or(&no_counts), seconds)
            });
            CacheStats { name: name.clone(), counts: counts.clone(), rates }
        };
        let no_plugin = PluginCounts::default();
        let plugin = |(name, counts): (&String, &PluginCounts)| {
            let rates = earlier.map(|(earlier, seconds)| {
                PluginRates::new(counts, earlier.plugins.get(name).unwrap_or(&no_plugin), seconds)
            });
            PluginStats { name: name.clone(), counts: counts.clone(), rates }
        };
        Self {
            plugins: snapshot.plugins.iter().map(plugin).collect(),
            caches: snapshot.caches.iter().map(cache).collect(),
            instances: snapshot.requests.instances,
            requests: earlier
                .map(|(earlier, seconds)| RequestRates::new(&snapshot.requests, &earlier.requests, seconds)),
        }
    }
}

impl RequestRates {
    fn new(requests: &Requests, earlier: &Requests, seconds: f64) -> Self {
        let before = |class: &String| earlier.answered.get(class).copied().unwrap_or_default();
        let rate = |(class, count): (&String, &f64)| (class.clone(), (count - before(class)) / seconds);
        Self {
            answered: requests.answered.iter().map(rate).collect(),
            refused: (requests.refused - earlier.refused) / seconds,
        }
    }
}

impl CacheStats {
    /// True if a connection to the cache's server is lost.
    pub(super) fn is_down(&self) -> bool {
        self.counts.up == Some(0.0)
    }
}

impl CacheRates {
    fn new(counts: &Counts, earlier: &Counts, seconds: f64) -> Self {
        let share = |hits: f64, misses: f64| (hits + misses > 0.0).then(|| hits / (hits + misses));
        let since = |count: Option<f64>, before: Option<f64>| count.unwrap_or_default() - before.unwrap_or_default();
        let latency = counts.latency.since(&earlier.latency);
        Self {
            calls: (counts.calls - earlier.calls) / seconds,
            errors: (counts.errors - earlier.errors) / seconds,
            hit_rate: share(counts.hits - earlier.hits, counts.misses - earlier.misses),
            p50: latency.percentile(0.5),
            p99: latency.percentile(0.99),
            near_hit_rate: share(
                since(counts.near_hits, earlier.near_hits),
                since(counts.near_misses, earlier.near_misses),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache `c` with these numbers of hits, misses and failed calls, and of calls of at most 1 s and at most 2 s.
    fn snapshot(hits: u32, misses: u32, failed: u32, buckets: [u32; 2]) -> Snapshot {
        let [first, second] = buckets;
        let calls = |outcome, count| format!("larder_calls_total{{cache=\"c\",outcome=\"{outcome}\"}} {count}\n");
        let bucket = |bound, count| format!("larder_backend_seconds_bucket{{cache=\"c\",le=\"{bound}\"}} {count}\n");
        let requests =
            format!("larder_requests_total{{status=\"2xx\"}} {hits}\nlarder_refused_requests_total {failed}\n");
        let text =
            [calls("hit", hits), calls("miss", misses), calls("timeout", failed), bucket(1, first), bucket(2, second)];
        Snapshot::parse(&(text.concat() + &requests)).unwrap()
    }

    fn rates(earlier: &Snapshot, later: &Snapshot, elapsed: Duration) -> CacheRates {
        Stats::new(later, Some((earlier, elapsed))).caches[0].rates.unwrap()
    }

    #[test]
    fn the_first_snapshot_has_counts_and_no_rates() {
        let stats = Stats::new(&snapshot(1, 2, 3, [4, 5]), None);
        let cache = &stats.caches[0];
        assert_eq!((cache.name.as_str(), cache.counts.hits, cache.counts.misses), ("c", 1.0, 2.0));
        assert_eq!((cache.rates, stats.requests), (None, None));
    }

    #[test]
    fn rates_and_percentiles_cover_the_time_between_the_snapshots() {
        let (earlier, later) = (snapshot(100, 100, 10, [200, 210]), snapshot(130, 110, 12, [200, 250]));
        let expected = CacheRates {
            calls: 21.0,
            errors: 1.0,
            hit_rate: Some(0.75),
            p50: Some(Latency::Estimate(1.5)),
            p99: Some(Latency::Estimate(1.99)),
            near_hit_rate: None,
        };
        assert_eq!(rates(&earlier, &later, Duration::from_secs(2)), expected);
        let requests = Stats::new(&later, Some((&earlier, Duration::from_secs(2)))).requests.unwrap();
        assert_eq!(requests, RequestRates { answered: [("2xx".to_owned(), 15.0)].into(), refused: 1.0 });
    }

    #[test]
    fn the_near_hit_rate_covers_the_time_between_the_snapshots() {
        let near = |hits: u32, misses: u32| {
            let lookups =
                |outcome, count| format!("larder_near_lookups_total{{cache=\"c\",outcome=\"{outcome}\"}} {count}\n");
            Snapshot::parse(&(lookups("hit", hits) + &lookups("miss", misses))).unwrap()
        };
        let rate = |earlier: &Snapshot, later: &Snapshot| rates(earlier, later, Duration::from_secs(1)).near_hit_rate;
        assert_eq!(rate(&near(10, 10), &near(40, 20)), Some(0.75));
        assert_eq!(rate(&near(10, 10), &near(10, 10)), None);
        // The host restarted.
        assert_eq!(rate(&near(40, 20), &near(1, 3)), Some(0.25));
    }

    #[test]
    fn without_calls_there_is_no_hit_rate_and_no_percentile() {
        let same = snapshot(100, 100, 10, [200, 210]);
        let expected =
            CacheRates { calls: 0.0, errors: 0.0, hit_rate: None, p50: None, p99: None, near_hit_rate: None };
        assert_eq!(rates(&same, &same, Duration::from_secs(1)), expected);
    }

    #[test]
    fn after_a_restart_all_counts_are_from_the_time_between_the_snapshots() {
        // More misses than before but fewer hits: the host restarted.
        let (earlier, later) = (snapshot(100, 1, 10, [110, 110]), snapshot(6, 2, 0, [0, 8]));
        let expected = CacheRates {
            calls: 4.0,
            errors: 0.0,
            hit_rate: Some(0.75),
            p50: Some(Latency::Estimate(1.5)),
            p99: Some(Latency::Estimate(1.99)),
            near_hit_rate: None,
        };
        assert_eq!(rates(&earlier, &later, Duration::from_secs(2)), expected);
        let requests = Stats::new(&later, Some((&earlier, Duration::from_secs(2)))).requests.unwrap();
        assert_eq!(requests, RequestRates { answered: [("2xx".to_owned(), 3.0)].into(), refused: 0.0 });
    }

    #[test]
    fn all_counts_of_a_new_cache_are_from_the_time_between_the_snapshots() {
        let earlier = Snapshot::default();
        assert_eq!(rates(&earlier, &snapshot(6, 2, 0, [8, 8]), Duration::from_secs(2)).calls, 4.0);
    }

    #[test]
    fn a_rate_over_no_time_is_finite() {
        let rate = rates(&snapshot(0, 0, 0, [0, 0]), &snapshot(5, 0, 0, [5, 5]), Duration::ZERO).calls;
        assert!(rate.is_finite(), "{rate}");
    }
}
