//! Times that were counted in buckets, and what most of them stayed below.

use std::collections::BTreeMap;

/// How many times there were of at most so many seconds, for each of the histogram's bounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Buckets(
    /// By the bits of the bound: bounds are not negative, and the bits of such numbers are in the numbers' order.
    BTreeMap<u64, f64>,
);

/// What a share of the times stayed below, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Latency {
    /// About this.
    About(f64),
    /// More than the histogram's last bound, which is this.
    Over(f64),
}

impl Buckets {
    /// Adds what one of several histograms with the same bounds has counted.
    pub(super) fn add(&mut self, bound: f64, count: f64) {
        if bound > 0.0 {
            *self.0.entry(bound.to_bits()).or_default() += count;
        }
    }

    /// What was counted after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = |bound| earlier.0.get(bound).copied().unwrap_or_default();
        Self(self.0.iter().map(|(bound, count)| (*bound, (count - before(bound)).max(0.0))).collect())
    }

    /// What this share of the times stayed below, as Prometheus has it: within a bucket all times are as likely.
    /// `None` where nothing was counted.
    pub(super) fn percentile(&self, share: f64) -> Option<Latency> {
        let total = self.0.values().copied().fold(0.0, f64::max);
        if total <= 0.0 {
            return None;
        }
        let rank = share * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in self.0.iter().map(|(bits, count)| (f64::from_bits(*bits), *count)) {
            if count >= rank {
                let about = lower + (bound - lower) * (rank - below) / (count - below);
                return Some(if bound.is_finite() { Latency::About(about) } else { Latency::Over(lower) });
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
        // 50 up to 1 s, 30 from there to 2 s, 20 from there to 4 s.
        let times = buckets(&[(1.0, 50.0), (2.0, 80.0), (4.0, 100.0), (f64::INFINITY, 100.0)]);
        assert_eq!(times.percentile(0.25), Some(Latency::About(0.5)));
        assert_eq!(times.percentile(0.5), Some(Latency::About(1.0)));
        assert_eq!(times.percentile(0.65), Some(Latency::About(1.5)));
        assert_eq!(times.percentile(0.95), Some(Latency::About(3.5)));
        assert_eq!(times.percentile(1.0), Some(Latency::About(4.0)));
    }

    #[test]
    fn times_beyond_the_last_bound_are_over_it() {
        let times = buckets(&[(1.0, 50.0), (10.0, 50.0), (f64::INFINITY, 100.0)]);
        assert_eq!(times.percentile(0.5), Some(Latency::About(1.0)));
        assert_eq!(times.percentile(0.99), Some(Latency::Over(10.0)));
    }

    #[test]
    fn the_histograms_of_all_operations_count_together() {
        let times = buckets(&[(1.0, 10.0), (2.0, 10.0), (1.0, 0.0), (2.0, 10.0)]);
        assert_eq!(times.percentile(0.75), Some(Latency::About(1.5)));
    }

    #[test]
    fn only_what_was_counted_since_matters() {
        let earlier = buckets(&[(1.0, 1000.0), (2.0, 1000.0), (f64::INFINITY, 1000.0)]);
        let later = buckets(&[(1.0, 1000.0), (2.0, 1010.0), (f64::INFINITY, 1010.0)]);
        assert_eq!(later.since(&earlier).percentile(0.5), Some(Latency::About(1.5)));
        assert_eq!(later.since(&later).percentile(0.5), None);
    }

    #[test]
    fn counts_that_make_no_sense_give_no_percentile_that_makes_none() {
        assert_eq!(buckets(&[]).percentile(0.5), None);
        assert_eq!(buckets(&[(f64::NAN, 1.0), (-1.0, 1.0), (0.0, 1.0)]).percentile(0.5), None);
        // Counts that fall with the bound, as no histogram has them.
        let falling = buckets(&[(1.0, 4.0), (2.0, 2.0), (3.0, 8.0)]);
        assert_eq!(falling.percentile(0.75), Some(Latency::About(2.5)));
    }
}
