//! Percentiles of a Prometheus histogram.

use std::collections::BTreeMap;

/// The cumulative buckets of a histogram: for each upper bound, in seconds, the number of durations at or below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Buckets(
    /// By the bits of the bound. Bounds are positive, and the bits of positive floats sort as the floats do.
    BTreeMap<u64, f64>,
);

/// A percentile, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Latency {
    /// Interpolated within a bucket.
    Estimate(f64),
    /// Above this, the last finite bound of the histogram.
    Above(f64),
}

impl Buckets {
    /// Adds a bucket. Buckets of several histograms with the same bounds add up. Ignores a bound that is not positive.
    pub(super) fn add(&mut self, bound: f64, count: f64) {
        if bound > 0.0 {
            *self.0.entry(bound.to_bits()).or_default() += count;
        }
    }

    /// The durations that were counted after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = |bound| earlier.0.get(bound).copied().unwrap_or_default();
        Self(self.0.iter().map(|(bound, count)| (*bound, (count - before(bound)).max(0.0))).collect())
    }

    /// The percentile of a share from 0 to 1, computed as Prometheus does: durations are spread evenly within a bucket.
    /// `None` if there are no durations.
    pub(super) fn percentile(&self, share: f64) -> Option<Latency> {
        let total = self.0.values().copied().fold(0.0, f64::max);
        if total <= 0.0 {
            return None;
        }
        let rank = share * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in self.0.iter().map(|(bits, count)| (f64::from_bits(*bits), *count)) {
            if count >= rank {
                let estimate = lower + (bound - lower) * (rank - below) / (count - below);
                return Some(if bound.is_finite() { Latency::Estimate(estimate) } else { Latency::Above(lower) });
            }
            (lower, below) = (bound, f64::max(below, count));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: &[(f64, f64)]) -> Buckets {
        let mut buckets = Buckets::default();
        for (bound, count) in counts {
            buckets.add(*bound, *count);
        }
        buckets
    }

    #[test]
    fn a_percentile_lies_between_the_bounds_of_its_bucket() {
        // 50 of at most 1 s, 30 from 1 s to 2 s, 20 from 2 s to 4 s.
        let buckets = buckets(&[(1.0, 50.0), (2.0, 80.0), (4.0, 100.0), (f64::INFINITY, 100.0)]);
        assert_eq!(buckets.percentile(0.25), Some(Latency::Estimate(0.5)));
        assert_eq!(buckets.percentile(0.5), Some(Latency::Estimate(1.0)));
        assert_eq!(buckets.percentile(0.65), Some(Latency::Estimate(1.5)));
        assert_eq!(buckets.percentile(0.95), Some(Latency::Estimate(3.5)));
        assert_eq!(buckets.percentile(1.0), Some(Latency::Estimate(4.0)));
    }

    #[test]
    fn a_percentile_beyond_the_last_finite_bound_is_above_it() {
        let buckets = buckets(&[(1.0, 50.0), (10.0, 50.0), (f64::INFINITY, 100.0)]);
        assert_eq!(buckets.percentile(0.5), Some(Latency::Estimate(1.0)));
        assert_eq!(buckets.percentile(0.99), Some(Latency::Above(10.0)));
    }

    #[test]
    fn histograms_of_several_operations_add_up() {
        let buckets = buckets(&[(1.0, 10.0), (2.0, 10.0), (1.0, 0.0), (2.0, 10.0)]);
        assert_eq!(buckets.percentile(0.75), Some(Latency::Estimate(1.5)));
    }

    #[test]
    fn only_durations_since_the_earlier_buckets_count() {
        let earlier = buckets(&[(1.0, 1000.0), (2.0, 1000.0), (f64::INFINITY, 1000.0)]);
        let later = buckets(&[(1.0, 1000.0), (2.0, 1010.0), (f64::INFINITY, 1010.0)]);
        assert_eq!(later.since(&earlier).percentile(0.5), Some(Latency::Estimate(1.5)));
        assert_eq!(later.since(&later).percentile(0.5), None);
    }

    #[test]
    fn invalid_buckets_give_no_invalid_percentile() {
        assert_eq!(buckets(&[]).percentile(0.5), None);
        assert_eq!(buckets(&[(f64::NAN, 1.0), (-1.0, 1.0), (0.0, 1.0)]).percentile(0.5), None);
        // Counts that fall as the bound rises, which no histogram has.
        let falling = buckets(&[(1.0, 4.0), (2.0, 2.0), (3.0, 8.0)]);
        assert_eq!(falling.percentile(0.75), Some(Latency::Estimate(2.5)));
    }
}
