//! The metrics of one scrape that `larder top` shows.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use anyhow::Context;
use larder_host::metrics;

use super::exposition::{MalformedLine, Sample, samples};
use super::latency::Buckets;
use super::plugins::PluginCounts;
use crate::metrics_url::MetricsUrl;

/// The metrics of all caches, and of the HTTP requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Snapshot {
    pub(super) caches: BTreeMap<String, Counts>,
    pub(super) requests: Requests,
    /// The plugins that answer requests.
    pub(super) plugins: BTreeMap<String, PluginCounts>,
}

/// The metrics of a cache. A field is `None` if the cache is of a type without that metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counts {
    /// The type: `ram`, `valkey` or `redis`.
    pub(super) backend: String,
    pub(super) calls: f64,
    pub(super) errors: f64,
    /// Keys looked up that had a value, those of `get-many` included.
    pub(super) hits: f64,
    pub(super) misses: f64,
    pub(super) computed: f64,
    pub(super) waited: f64,
    /// Stale values that were returned.
    pub(super) stale: f64,
    pub(super) refreshed: f64,
    pub(super) failed_refreshes: f64,
    pub(super) vacancies: f64,
    /// The latency of the backend.
    pub(super) latency: Buckets,
    pub(super) bytes: Option<f64>,
    pub(super) max_bytes: Option<f64>,
    pub(super) entries: Option<f64>,
    pub(super) evictions: Option<f64>,
    /// Keys looked up in the near tier that were answered there.
    pub(super) near_hits: Option<f64>,
    /// Keys looked up in the near tier for which the server was asked.
    pub(super) near_misses: Option<f64>,
    pub(super) near_bytes: Option<f64>,
    /// 1 if all connections to the server are up, else 0.
    pub(super) up: Option<f64>,
    pub(super) reconnects: Option<f64>,
}

/// The HTTP requests of all plugins.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Requests {
    /// By status class, such as `2xx`.
    pub(super) answered: BTreeMap<String, f64>,
    pub(super) refused: f64,
    pub(super) instances: f64,
}

/// A response that does not have the metrics of a host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::commands) enum SnapshotError {
    #[error("line {0} of the response is not in the text format of Prometheus")]
    Line(NonZeroUsize),
    #[error("the response has no metrics of a `larder serve`")]
    NoMetrics,
}

impl Snapshot {
    /// Requests and parses the metrics of a host.
    ///
    /// # Errors
    ///
    /// If the host cannot be reached, or the response does not have the metrics of a host.
    pub(super) async fn scrape(url: &MetricsUrl) -> anyhow::Result<Self> {
        let text = url.metrics().await?;
        Self::parse(&text).with_context(|| format!("cannot read the metrics of {url}"))
    }

    pub(super) fn parse(text: &str) -> Result<Self, SnapshotError> {
        let mut snapshot = Self::default();
        for sample in samples(text) {
            snapshot.add(&sample.map_err(|MalformedLine(line)| SnapshotError::Line(line))?);
        }
        // A host has at least one cache, and exports its counters from the start.
        if snapshot.caches.is_empty() { Err(SnapshotError::NoMetrics) } else { Ok(snapshot) }
    }

    /// True if `later` may be from the same process: no counter has decreased. Otherwise the host has restarted.
    pub(super) fn may_precede(&self, later: &Self) -> bool {
        let cache_may_precede = |(name, counts): (&String, &Counts)| {
            later.caches.get(name).is_some_and(|later| {
                counts.counters().iter().zip(later.counters()).all(|(before, after)| *before <= after)
            })
        };
        let class_may_precede = |(class, count): (&String, &f64)| later.requests.answered.get(class) >= Some(count);
        self.caches.iter().all(cache_may_precede)
            && self.requests.answered.iter().all(class_may_precede)
            && self.requests.refused <= later.requests.refused
    }

    fn add(&mut self, sample: &Sample<'_>) {
        let (name, is_bucket) = match sample.name.strip_suffix("_bucket") {
            Some(name) => (name, true),
            None => (sample.name, false),
        };
        let Some(metric) = metrics::all().find(|metric| metric.name == name) else { return };
        // No metric of a host is negative or infinite.
        let value = if sample.value.is_finite() { sample.value.max(0.0) } else { 0.0 };
        self.add_of_plugin(*metric, is_bucket, sample, value);
        match *metric {
            metrics::REQUESTS => {
                *self.requests.answered.entry(sample.label("status").to_owned()).or_default() += value;
            }
            metrics::REFUSALS => self.requests.refused += value,
            metrics::INSTANCES => self.requests.instances += value,
            _ if metric.labels.contains(&"cache") => {
                let counts = self.caches.entry(sample.label("cache").to_owned()).or_default();
                counts.add(*metric, is_bucket, sample, value);
            }
            _ => {}
        }
    }

    fn add_of_plugin(&mut self, metric: metrics::Metric, is_bucket: bool, sample: &Sample<'_>, value: f64) {
        let plugin = sample.label("plugin");
        // `-` stands for requests that no route matches.
        if matches!(plugin, "" | "-") {
            return;
        }
        let is_shown = [metrics::REQUESTS, metrics::REQUEST_SECONDS, metrics::INSTANCES, metrics::IDLE_INSTANCES]
            .contains(&metric);
        if !is_shown {
            return;
        }
        let counts = self.plugins.entry(plugin.to_owned()).or_default();
        match metric {
            metrics::REQUESTS => {
                counts.requests += value;
                counts.failed += if sample.label("status") == "5xx" { value } else { 0.0 };
            }
            metrics::REQUEST_SECONDS => {
                if let (true, Ok(bound)) = (is_bucket, sample.label("le").parse()) {
                    counts.latency.add(bound, value);
                }
            }
            metrics::INSTANCES => counts.running = value,
            metrics::IDLE_INSTANCES => counts.idle = Some(value),
            _ => {}
        }
    }
}

impl Counts {
    fn add(&mut self, metric: metrics::Metric, is_bucket: bool, sample: &Sample<'_>, value: f64) {
        let outcome = sample.label("outcome");
        match metric {
            metrics::CALLS => {
                self.calls += value;
                if !metrics::GOOD_OUTCOMES.contains(&outcome) {
                    self.errors += value;
                }
                self.add_lookups(outcome, value);
            }
            metrics::GET_MANY_KEYS => self.add_lookups(outcome, value),
            metrics::BACKEND_SECONDS => {
                sample.label("backend").clone_into(&mut self.backend);
                if let (true, Ok(bound)) = (is_bucket, sample.label("le").parse()) {
                    self.latency.add(bound, value);
                }
            }
            metrics::GET_OR_SET => match sample.label("event") {
                "computed" => self.computed += value,
                "waited" => self.waited += value,
                _ => {}
            },
            metrics::STALE_VALUES => self.stale = value,
            metrics::REFRESHES => match outcome {
                "stored" => self.refreshed = value,
                "failed" => self.failed_refreshes = value,
                _ => {}
            },
            metrics::VACANCIES => self.vacancies = value,
            metrics::RAM_BYTES => self.bytes = Some(value),
            metrics::RAM_MAX_BYTES => self.max_bytes = Some(value),
            metrics::RAM_ENTRIES => self.entries = Some(value),
            metrics::RAM_EVICTIONS => self.evictions = Some(value),
            metrics::NEAR_LOOKUPS => match outcome {
                "hit" => self.near_hits = Some(value),
                "miss" => self.near_misses = Some(value),
                _ => {}
            },
            metrics::NEAR_BYTES => self.near_bytes = Some(value),
            metrics::UP => self.up = Some(value),
            metrics::RECONNECTS => self.reconnects = Some(value),
            _ => {}
        }
    }

    fn add_lookups(&mut self, outcome: &str, value: f64) {
        match outcome {
            "hit" => self.hits += value,
            "miss" => self.misses += value,
            _ => {}
        }
    }

    /// The values that never decrease while the host runs.
    fn counters(&self) -> [f64; 13] {
        let Self { calls, errors, hits, misses, computed, waited, stale, refreshed, failed_refreshes, .. } = self;
        let [evictions, near_hits, near_misses, reconnects] =
            [self.evictions, self.near_hits, self.near_misses, self.reconnects].map(Option::unwrap_or_default);
        let [calls, errors, hits, misses] = [*calls, *errors, *hits, *misses];
        let [computed, waited, stale, refreshed, failed] = [*computed, *waited, *stale, *refreshed, *failed_refreshes];
        [
            calls,
            errors,
            hits,
            misses,
            computed,
            waited,
            stale,
            refreshed,
            failed,
            evictions,
            near_hits,
            near_misses,
            reconnects,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_grouped_by_cache_and_requests() {
        let text = r#"
larder_calls_total{cache="a",operation="get",outcome="hit"} 5
larder_calls_total{cache="a",operation="get",outcome="miss"} 2
larder_calls_total{cache="a",operation="get-or-set",outcome="hit"} 1
larder_calls_total{cache="a",operation="fill",outcome="stored"} 3
larder_calls_total{cache="a",operation="set",outcome="value-too-large"} 4
larder_get_many_keys_total{cache="a",outcome="hit"} 10
larder_get_many_keys_total{cache="a",outcome="miss"} 20
larder_get_or_set_total{cache="a",event="computed"} 7
larder_get_or_set_total{cache="a",event="waited"} 8
larder_stale_values_total{cache="a"} 13
larder_refreshes_total{cache="a",outcome="stored"} 14
larder_refreshes_total{cache="a",outcome="superseded"} 15
larder_refreshes_total{cache="a",outcome="failed"} 16
larder_get_or_set_total{cache="a",event="expired"} 9
larder_vacancies{cache="a"} 6
larder_ram_bytes{cache="a"} 1000
larder_ram_max_bytes{cache="a"} 2000
larder_ram_entries{cache="a"} 30
larder_ram_evictions_total{cache="a"} 40
larder_backend_seconds_bucket{cache="a",backend="ram",operation="get",le="1"} 1
larder_backend_seconds_bucket{cache="a",backend="ram",operation="get",le="+Inf"} 2
larder_backend_seconds_sum{cache="a",backend="ram",operation="get"} 50
larder_backend_seconds_count{cache="a",backend="ram",operation="get"} 60
larder_up{cache="b"} 1
larder_reconnects_total{cache="b"} 70
larder_near_lookups_total{cache="b",outcome="hit"} 80
larder_near_lookups_total{cache="b",outcome="miss"} 90
larder_near_bytes{cache="b"} 3000
larder_requests_total{plugin="p",status="2xx"} 100
larder_requests_total{plugin="q",status="2xx"} 200
larder_requests_total{plugin="q",status="5xx"} 300
larder_refused_requests_total{reason="busy"} 400
larder_refused_requests_total{reason="no-route"} 500
larder_instances{plugin="p"} 1
larder_instances{plugin="q"} 2
larder_idle_instances{plugin="q"} 3
larder_requests_total{plugin="-",status="4xx"} 1
larder_request_seconds_bucket{plugin="q",le="1"} 500
process_start_time_seconds 1
"#;
        let mut latency = Buckets::default();
        latency.add(1.0, 1.0);
        latency.add(f64::INFINITY, 2.0);
        let a = Counts {
            backend: "ram".to_owned(),
            calls: 15.0,
            errors: 4.0,
            hits: 16.0,
            misses: 22.0,
            computed: 7.0,
            waited: 8.0,
            stale: 13.0,
            refreshed: 14.0,
            failed_refreshes: 16.0,
            vacancies: 6.0,
            latency,
            bytes: Some(1000.0),
            max_bytes: Some(2000.0),
            entries: Some(30.0),
            evictions: Some(40.0),
            ..Counts::default()
        };
        let b = Counts {
            near_hits: Some(80.0),
            near_misses: Some(90.0),
            near_bytes: Some(3000.0),
            up: Some(1.0),
            reconnects: Some(70.0),
            ..Counts::default()
        };
        let answered =
            [("2xx", 300.0), ("4xx", 1.0), ("5xx", 300.0)].map(|(class, count)| (class.to_owned(), count)).into();
        let p = PluginCounts { requests: 100.0, running: 1.0, ..PluginCounts::default() };
        let mut q =
            PluginCounts { requests: 500.0, failed: 300.0, running: 2.0, idle: Some(3.0), ..PluginCounts::default() };
        q.latency.add(1.0, 500.0);
        let expected = Snapshot {
            caches: [("a".to_owned(), a), ("b".to_owned(), b)].into(),
            requests: Requests { answered, refused: 900.0, instances: 3.0 },
            plugins: [("p".to_owned(), p), ("q".to_owned(), q)].into(),
        };
        assert_eq!(Snapshot::parse(text), Ok(expected));
    }

    #[test]
    fn a_value_that_is_negative_or_not_finite_counts_as_zero() {
        for value in ["NaN", "-1", "+Inf", "-Inf", "1e999"] {
            let snapshot = Snapshot::parse(&format!("larder_vacancies{{cache=\"c\"}} {value}\n")).unwrap();
            assert_eq!(snapshot.caches["c"].vacancies, 0.0, "{value}");
        }
    }

    #[test]
    fn a_response_without_metrics_of_a_cache_is_refused() {
        for text in ["", "# a comment\n", "process_start_time_seconds 1\n", "larder_instances{plugin=\"p\"} 1\n"] {
            assert_eq!(Snapshot::parse(text), Err(SnapshotError::NoMetrics), "{text}");
        }
        let page = Snapshot::parse("<html>\n").unwrap_err();
        assert_eq!(page.to_string(), "line 1 of the response is not in the text format of Prometheus");
    }
}
