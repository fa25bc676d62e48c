//! One line about what a host was asked in an interval.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::columns::{count, latency, share};
use super::latency::Latency;
use super::snapshot::{Counts, Snapshot, SnapshotError};
use super::stats::Stats;

/// The metrics at the end of the last interval.
#[derive(Debug)]
pub(in crate::commands) struct Summary {
    snapshot: Snapshot,
    at: Instant,
}

impl Summary {
    /// Begins the first interval with the metrics of a host, in the text format of Prometheus.
    pub(in crate::commands) fn new(metrics: &str) -> Result<Self, SnapshotError> {
        Ok(Self { snapshot: Snapshot::parse(metrics)?, at: Instant::now() })
    }

    /// Ends an interval, and begins the next one. `None` if the host was asked nothing in it.
    pub(in crate::commands) fn next(&mut self, metrics: &str) -> Result<Option<String>, SnapshotError> {
        let now = Self::new(metrics)?;
        let line = line(&self.snapshot, &now.snapshot, now.at.saturating_duration_since(self.at));
        *self = now;
        Ok(line)
    }
}

fn line(before: &Snapshot, after: &Snapshot, elapsed: Duration) -> Option<String> {
    let requests = |snapshot: &Snapshot| snapshot.requests.answered.values().sum::<f64>() + snapshot.requests.refused;
    let failed = |snapshot: &Snapshot| snapshot.plugins.values().map(|plugin| plugin.failed).sum::<f64>();
    let lookups =
        |snapshot: &Snapshot| [sum(&snapshot.caches, |cache| cache.hits), sum(&snapshot.caches, |cache| cache.misses)];
    let requests = requests(after) - requests(before);
    let ([hits, misses], [hits_before, misses_before]) = (lookups(after), lookups(before));
    let (hits, misses) = (hits - hits_before, misses - misses_before);
    if requests + hits + misses <= 0.0 {
        return None;
    }
    let hit_rate = (hits + misses > 0.0).then(|| hits / (hits + misses));
    let mut parts = vec![
        format!("in {:.0} s: requests {}", elapsed.as_secs_f64(), count(Some(requests))),
        format!("hits {}", count(Some(hits))),
        format!("misses {}", count(Some(misses))),
        format!("hit rate {}", share(hit_rate)),
        format!("p99 {}", latency(slowest(&Stats::new(after, Some((before, elapsed)))))),
    ];
    let failed = failed(after) - failed(before);
    parts.extend((failed > 0.0).then(|| format!("failed {}", count(Some(failed)))));
    Some(parts.join(", "))
}

fn sum(caches: &BTreeMap<String, Counts>, count: fn(&Counts) -> f64) -> f64 {
    caches.values().map(count).sum()
}

/// The 99th percentile of the requests of the plugin for which it is the longest.
fn slowest(stats: &Stats) -> Option<Latency> {
    let seconds = |latency: &Latency| match latency {
        Latency::Estimate(seconds) | Latency::Above(seconds) => *seconds,
    };
    let times = stats.plugins.iter().filter_map(|plugin| plugin.rates?.p99);
    times.max_by(|one, other| seconds(one).total_cmp(&seconds(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(requests: u32, failed: u32, hits: u32, misses: u32) -> Snapshot {
        let text = format!(
            "larder_requests_total{{plugin=\"p\",status=\"2xx\"}} {requests}\n\
             larder_requests_total{{plugin=\"p\",status=\"5xx\"}} {failed}\n\
             larder_request_seconds_bucket{{plugin=\"p\",le=\"0.002\"}} {requests}\n\
             larder_calls_total{{cache=\"c\",operation=\"get\",outcome=\"hit\"}} {hits}\n\
             larder_calls_total{{cache=\"c\",operation=\"get\",outcome=\"miss\"}} {misses}\n\
             larder_calls_total{{cache=\"d\",operation=\"get\",outcome=\"miss\"}} {misses}\n"
        );
        Snapshot::parse(&text).unwrap()
    }

    #[test]
    fn the_line_has_what_was_asked_in_the_interval() {
        let second = |before, after| line(&before, &after, Duration::from_secs(5));
        assert_eq!(
            second(snapshot(10, 0, 10, 1), snapshot(14, 0, 16, 2)).unwrap(),
            "in 5 s: requests 4, hits 6, misses 2, hit rate 75.0%, p99 2.0ms"
        );
        assert_eq!(
            second(snapshot(1, 0, 0, 0), snapshot(1, 2, 0, 0)).unwrap(),
            "in 5 s: requests 2, hits 0, misses 0, hit rate -, p99 -, failed 2"
        );
    }

    #[test]
    fn an_interval_in_which_nothing_was_asked_has_no_line() {
        assert_eq!(line(&snapshot(10, 2, 10, 1), &snapshot(10, 2, 10, 1), Duration::from_secs(5)), None);
    }
}
