//! Two snapshots and the time in between: how things stand, and at what rate they happen.

use std::collections::BTreeMap;
use std::time::Duration;

use super::latency::Latency;
use super::snapshot::{Counts, Requests, Snapshot};

/// What is shown.
#[derive(Debug, PartialEq)]
pub(super) struct Reading {
    /// In the order of their names.
    pub(super) caches: Vec<CacheReading>,
    /// Plugins that run.
    pub(super) instances: f64,
    /// Between the snapshots; `None` after the first one.
    pub(super) requests: Option<RequestRates>,
}

/// HTTP requests a second.
#[derive(Debug, PartialEq)]
pub(super) struct RequestRates {
    /// By the class of the answer's status.
    pub(super) answered: BTreeMap<String, f64>,
    pub(super) refused: f64,
}

/// One cache.
#[derive(Debug, PartialEq)]
pub(super) struct CacheReading {
    pub(super) name: String,
    /// Since the host's start, and at the moment.
    pub(super) counts: Counts,
    /// Between the snapshots; `None` after the first one.
    pub(super) lately: Option<Lately>,
}

/// What happened between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lately {
    /// A second.
    pub(super) calls: f64,
    /// A second.
    pub(super) errors: f64,
    /// Of keys that were looked for, the share that had a value; `None` where none was.
    pub(super) hit_rate: Option<f64>,
    /// What half of the calls to the backend took at most; `None` where there was none.
    pub(super) p50: Option<Latency>,
    pub(super) p99: Option<Latency>,
}

impl Reading {
    /// Reads a snapshot, and what has happened since an earlier one, so long ago. What a host that was started again in
    /// between has counted has all happened since.
    pub(super) fn new(snapshot: &Snapshot, earlier: Option<(&Snapshot, Duration)>) -> Self {
        let none = Snapshot::default();
        let earlier = earlier.map(|(earlier, ago)| {
            let earlier = if earlier.grew_into(snapshot) { earlier } else { &none };
            // No clock is so coarse, but a division by nothing would be endless.
            (earlier, ago.as_secs_f64().max(1e-3))
        });
        let no_counts = Counts::default();
        let cache = |(name, counts): (&String, &Counts)| {
            let lately =
                earlier.map(|(earlier, ago)| Lately::new(counts, earlier.caches.get(name).unwrap_or(&no_counts), ago));
            CacheReading { name: name.clone(), counts: counts.clone(), lately }
        };
        Self {
            caches: snapshot.caches.iter().map(cache).collect(),
            instances: snapshot.requests.instances,
            requests: earlier.map(|(earlier, ago)| RequestRates::new(&snapshot.requests, &earlier.requests, ago)),
        }
    }
}

impl RequestRates {
    fn new(requests: &Requests, earlier: &Requests, ago: f64) -> Self {
        let before = |class: &String| earlier.answered.get(class).copied().unwrap_or_default();
        let rate = |(class, count): (&String, &f64)| (class.clone(), (count - before(class)) / ago);
        Self {
            answered: requests.answered.iter().map(rate).collect(),
            refused: (requests.refused - earlier.refused) / ago,
        }
    }
}

impl CacheReading {
    /// Whether the server is out of reach.
    pub(super) fn is_down(&self) -> bool {
        self.counts.up == Some(0.0)
    }
}

impl Lately {
    fn new(counts: &Counts, earlier: &Counts, ago: f64) -> Self {
        let hits = counts.hits - earlier.hits;
        let looks = hits + counts.misses - earlier.misses;
        let seconds = counts.seconds.since(&earlier.seconds);
        Self {
            calls: (counts.calls - earlier.calls) / ago,
            errors: (counts.errors - earlier.errors) / ago,
            hit_rate: (looks > 0.0).then(|| hits / looks),
            p50: seconds.percentile(0.5),
            p99: seconds.percentile(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache `c` with so many hits, misses and failed calls, of which so many took up to 1 s and up to 2 s.
    fn snapshot(hits: u32, misses: u32, failed: u32, times: [u32; 2]) -> Snapshot {
        let [first, second] = times;
        let calls = |outcome, count| format!("larder_calls_total{{cache=\"c\",outcome=\"{outcome}\"}} {count}\n");
        let bucket = |bound, count| format!("larder_backend_seconds_bucket{{cache=\"c\",le=\"{bound}\"}} {count}\n");
        let requests =
            format!("larder_requests_total{{status=\"2xx\"}} {hits}\nlarder_refused_requests_total {failed}\n");
        let text =
            [calls("hit", hits), calls("miss", misses), calls("timeout", failed), bucket(1, first), bucket(2, second)];
        Snapshot::parse(&(text.concat() + &requests)).unwrap()
    }

    fn lately(earlier: &Snapshot, later: &Snapshot, ago: Duration) -> Lately {
        Reading::new(later, Some((earlier, ago))).caches[0].lately.unwrap()
    }

    #[test]
    fn the_first_snapshot_has_counts_and_no_rates() {
        let reading = Reading::new(&snapshot(1, 2, 3, [4, 5]), None);
        let cache = &reading.caches[0];
        assert_eq!((cache.name.as_str(), cache.counts.hits, cache.counts.misses), ("c", 1.0, 2.0));
        assert_eq!((cache.lately, reading.requests), (None, None));
    }

    #[test]
    fn rates_and_percentiles_are_over_the_time_in_between() {
        let (earlier, later) = (snapshot(100, 100, 10, [200, 210]), snapshot(130, 110, 12, [200, 250]));
        let expected = Lately {
            calls: 21.0,
            errors: 1.0,
            hit_rate: Some(0.75),
            p50: Some(Latency::About(1.5)),
            p99: Some(Latency::About(1.99)),
        };
        assert_eq!(lately(&earlier, &later, Duration::from_secs(2)), expected);
        let requests = Reading::new(&later, Some((&earlier, Duration::from_secs(2)))).requests.unwrap();
        assert_eq!(requests, RequestRates { answered: [("2xx".to_owned(), 15.0)].into(), refused: 1.0 });
    }

    #[test]
    fn where_nothing_happened_there_is_no_hit_rate_and_no_percentile() {
        let same = snapshot(100, 100, 10, [200, 210]);
        let expected = Lately { calls: 0.0, errors: 0.0, hit_rate: None, p50: None, p99: None };
        assert_eq!(lately(&same, &same, Duration::from_secs(1)), expected);
    }

    #[test]
    fn a_host_that_was_started_again_has_counted_all_since() {
        // More misses than before, but fewer hits: none of it is from before.
        let (earlier, later) = (snapshot(100, 1, 10, [110, 110]), snapshot(6, 2, 0, [0, 8]));
        let expected = Lately {
            calls: 4.0,
            errors: 0.0,
            hit_rate: Some(0.75),
            p50: Some(Latency::About(1.5)),
            p99: Some(Latency::About(1.99)),
        };
        assert_eq!(lately(&earlier, &later, Duration::from_secs(2)), expected);
        let requests = Reading::new(&later, Some((&earlier, Duration::from_secs(2)))).requests.unwrap();
        assert_eq!(requests, RequestRates { answered: [("2xx".to_owned(), 3.0)].into(), refused: 0.0 });
    }

    #[test]
    fn a_cache_that_was_not_there_before_has_counted_all_since() {
        let earlier = Snapshot::default();
        assert_eq!(lately(&earlier, &snapshot(6, 2, 0, [8, 8]), Duration::from_secs(2)).calls, 4.0);
    }

    #[test]
    fn no_time_at_all_is_no_endless_rate() {
        let rate = lately(&snapshot(0, 0, 0, [0, 0]), &snapshot(5, 0, 0, [5, 5]), Duration::ZERO).calls;
        assert!(rate.is_finite(), "{rate}");
    }
}
