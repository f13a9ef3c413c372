//! Confidence intervals by resampling.

use crate::statistics::{StatisticsError, check, quantile_of_sorted};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A statistic with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Of the sample as it is.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// How often intervals made like this one hold the true value, from 0 to 1. With few values (below about ten) they
    /// hold it less often, as all bootstrap intervals do.
    pub level: f64,
}

/// How a bootstrap is done. The same seed gives the same interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Resampling {
    /// How many samples are drawn.
    pub resamples: usize,
    /// The confidence level, between 0 and 1.
    pub level: f64,
    /// Of the random numbers.
    pub seed: u64,
}

impl Resampling {
    /// 10,000 resamples for a level of 95 %.
    pub fn with_seed(seed: u64) -> Resampling {
        Resampling { resamples: 10_000, level: 0.95, seed }
    }

    /// The interval of `statistic`, which gets the indexes of a sample of `size` values drawn with replacement.
    pub(crate) fn interval(
        &self,
        size: usize,
        mut statistic: impl FnMut(&[usize]) -> f64,
    ) -> Result<(f64, f64), StatisticsError> {
        let &Resampling { resamples, level, seed } = self;
        if resamples < 100 || !(level > 0.0 && level < 1.0) {
            return Err(StatisticsError::Resampling { resamples, level });
        }
        if size == 0 {
            return Err(StatisticsError::Empty);
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut drawn = vec![0; size];
        let mut statistics: Vec<f64> = (0..resamples)
            .map(|_| {
                drawn.fill_with(|| random.random_range(0..size));
                statistic(&drawn)
            })
            .collect();
        statistics.sort_unstable_by(f64::total_cmp);
        let at = |q| quantile_of_sorted(&statistics, q).ok_or(StatisticsError::Empty);
        Ok((at((1.0 - level) / 2.0)?, at((1.0 + level) / 2.0)?))
    }
}

/// A statistic of a sample, with its percentile bootstrap interval (Efron and Tibshirani 1993, section 13.3).
///
/// # Errors
///
/// If the sample is empty or has a value that is not finite, or the resampling's options are out of their ranges.
pub fn bootstrap(
    sample: &[f64],
    statistic: impl Fn(&[f64]) -> f64,
    resampling: Resampling,
) -> Result<Estimate, StatisticsError> {
    check(sample)?;
    let mut resample = Vec::with_capacity(sample.len());
    let (low, high) = resampling.interval(sample.len(), |drawn| {
        resample.clear();
        resample.extend(drawn.iter().map(|&index| sample[index]));
        statistic(&resample)
    })?;
    Ok(Estimate { value: statistic(sample), low, high, level: resampling.level })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mean, median};

    fn mean_of(sample: &[f64]) -> f64 {
        mean(sample).expect("not empty")
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let sample = [1u8, 2, 3, 5, 7, 11, 13].map(|k| f64::from(k).sqrt());
        let estimate = |seed| bootstrap(&sample, mean_of, Resampling::with_seed(seed)).expect("a fine sample");
        assert_eq!(estimate(1), estimate(1));
        assert_ne!(estimate(1), estimate(2));
        assert_eq!(estimate(1).value, mean_of(&sample));
    }

    #[test]
    fn a_sample_without_spread_has_an_interval_without_width() {
        let estimate = bootstrap(&[7.0; 5], |sample| median(sample).expect("not empty"), Resampling::with_seed(1));
        assert_eq!(estimate, Ok(Estimate { value: 7.0, low: 7.0, high: 7.0, level: 0.95 }));
    }

    #[test]
    fn intervals_hold_the_true_mean_about_as_often_as_they_say() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let held = (0..400).filter(|&seed| {
            let sample: Vec<f64> = (0..40).map(|_| random.random_range(0.0..1.0)).collect();
            let resampling = Resampling { resamples: 400, ..Resampling::with_seed(seed) };
            let estimate = bootstrap(&sample, mean_of, resampling).expect("a fine sample");
            estimate.low <= 0.5 && 0.5 <= estimate.high
        });
        // 380 of 400 are expected, with a standard deviation of 4.4.
        assert!((360..=396).contains(&held.count()));
    }

    #[test]
    fn impossible_wishes_are_refused() {
        let refused = |resampling| bootstrap(&[1.0], mean_of, resampling).expect_err("refused");
        let fine = Resampling::with_seed(1);
        assert_eq!(
            refused(Resampling { level: 1.0, ..fine }),
            StatisticsError::Resampling { resamples: 10_000, level: 1.0 }
        );
        assert_eq!(
            refused(Resampling { resamples: 3, ..fine }),
            StatisticsError::Resampling { resamples: 3, level: 0.95 }
        );
        assert_eq!(bootstrap(&[], mean_of, fine), Err(StatisticsError::Empty));
    }
}
