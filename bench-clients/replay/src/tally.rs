//! Distributions of times.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Longest time that is told from longer ones: 39 hours, in nanoseconds.
const MAX_NANOS: u64 = 1 << 47;

/// Significant decimal digits of recorded times.
const DIGITS: u8 = 3;

/// A distribution of times: a histogram with three significant digits, and the exact sum and maximum.
#[derive(Clone)]
pub struct Tally {
    histogram: Histogram<u64>,
    sum_nanos: u128,
    max: Duration,
}

/// A bar of a histogram, as `[nanoseconds, count]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket(
    /// The longest time that counts here, in nanoseconds.
    pub u64,
    /// How many there were.
    pub u64,
);

/// What is usually told of a distribution of times, in milliseconds. The mean and the maximum are exact; quantiles are
/// by rank (p50 of two times is the shorter one) and may be up to 0.1 % too long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are told by their names")]
pub struct Times {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("count", &self.count()).field("times", &self.times()).finish()
    }
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = Histogram::new_with_max(MAX_NANOS, DIGITS).expect("fit bounds");
        Tally { histogram, sum_nanos: 0, max: Duration::ZERO }
    }
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        Tally::default()
    }

    /// Adds a time.
    pub fn record(&mut self, time: Duration) {
        self.histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.sum_nanos += time.as_nanos();
        self.max = self.max.max(time);
    }

    /// Adds all times of `other`.
    pub fn merge(&mut self, other: &Tally) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
        self.sum_nanos += other.sum_nanos;
        self.max = self.max.max(other.max);
    }

    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The shortest time that at least the part `quantile`, from 0 to 1, of all times does not exceed; `None` without
    /// times.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let value = || Duration::from_nanos(self.histogram.value_at_quantile(quantile)).min(self.max);
        (self.count() > 0).then(value)
    }

    /// The mean, computed from the exact sum; `None` without times.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum_nanos as f64 / self.count() as f64 / 1e6)
    }

    /// What is usually told; `None` without times.
    pub fn times(&self) -> Option<Times> {
        let quantile = |quantile| self.quantile(quantile).map(millis);
        Some(Times {
            mean_ms: self.mean_ms()?,
            p50_ms: quantile(0.5)?,
            p90_ms: quantile(0.9)?,
            p99_ms: quantile(0.99)?,
            p999_ms: quantile(0.999)?,
            max_ms: millis(self.max),
        })
    }

    /// The histogram's bars that are not empty, the shortest times first.
    pub fn buckets(&self) -> Vec<Bucket> {
        let bars = self.histogram.iter_recorded();
        bars.map(|bar| Bucket(bar.value_iterated_to(), bar.count_since_last_iteration())).collect()
    }

    /// From [`buckets`](Self::buckets), so that saved results can be merged. Sum and maximum are now as exact as the
    /// buckets.
    pub fn from_buckets(buckets: &[Bucket]) -> Tally {
        let mut tally = Tally::new();
        for &Bucket(nanos, count) in buckets.iter().filter(|bucket| bucket.1 > 0) {
            tally.histogram.saturating_record_n(nanos, count);
            tally.sum_nanos += u128::from(nanos) * u128::from(count);
            tally.max = tally.max.max(Duration::from_nanos(nanos));
        }
        tally
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tally(nanos: &[u64]) -> Tally {
        let mut tally = Tally::new();
        nanos.iter().for_each(|&nanos| tally.record(Duration::from_nanos(nanos)));
        tally
    }

    #[test]
    fn nothing_has_no_times() {
        assert_eq!(Tally::new().times(), None);
        assert_eq!(Tally::new().buckets(), []);
    }

    #[test]
    fn mean_and_maximum_are_exact() {
        let times = tally(&[1_000_000, 2_000_001, 123_456_789, 4]).times().expect("four times");
        assert_eq!((times.mean_ms, times.max_ms), (126_456_794.0 / 4.0 / 1e6, 123.456_789));
    }

    #[test]
    fn a_time_out_of_range_is_counted() {
        let century = Duration::from_secs(3_000_000_000);
        let mut tally = Tally::new();
        tally.record(century);
        assert_eq!((tally.count(), tally.times().expect("one time").max_ms), (1, 3e12));
    }

    /// As in the histogram's definition: the smallest time with at least this part of all times up to it.
    fn exact(sorted: &[u64], quantile: f64) -> u64 {
        let rank = (quantile * sorted.len() as f64).ceil().max(1.0) as usize;
        sorted[rank - 1]
    }

    proptest! {
        #[test]
        fn quantiles_are_at_most_a_thousandth_too_long(
            mut nanos in prop::collection::vec(0u64..100_000_000_000, 1..300),
            quantile in prop::sample::select(vec![0.5, 0.9, 0.99, 0.999]),
        ) {
            let tally = tally(&nanos);
            nanos.sort_unstable();
            let exact = exact(&nanos, quantile);
            let found = tally.quantile(quantile).expect("times").as_nanos() as u64;
            prop_assert!(exact <= found && found <= exact + exact / 1000 + 1, "{found} for {exact}");
        }

        #[test]
        fn merged_parts_are_the_whole(
            nanos in prop::collection::vec(0u64..MAX_NANOS, 0..100), cut in any::<prop::sample::Index>()
        ) {
            let cut = cut.index(nanos.len() + 1);
            let mut merged = tally(&nanos[..cut]);
            merged.merge(&tally(&nanos[cut..]));
            let whole = tally(&nanos);
            prop_assert_eq!(merged.times(), whole.times());
            prop_assert_eq!(merged.buckets(), whole.buckets());
            prop_assert_eq!(Tally::from_buckets(&whole.buckets()).buckets(), whole.buckets());
        }
    }
}
