//! Statistics of a sample.

/// Why a sample has no statistics.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatisticsError {
    /// There is nothing to compute from.
    #[error("the sample is empty; measure at least once")]
    Empty,
    /// A value is infinite or not a number.
    #[error("value {index} of the sample is {value}; leave out what was not measured")]
    NotFinite {
        /// Which, from 0.
        index: usize,
        /// What it is.
        value: f64,
    },
    /// Samples that belong together in pairs differ in their numbers of values.
    #[error("{before} values cannot be paired with {after}; repeat each measurement equally often")]
    NotPaired {
        /// Values of the first sample.
        before: usize,
        /// Values of the second sample.
        after: usize,
    },
    /// The sum that a relative change refers to is 0.
    #[error("a change relative to a mean of 0 is not defined; use the difference")]
    NoBase,
    /// Options of a bootstrap are out of their ranges.
    #[error(
        "{resamples} resamples at a confidence level of {level}; at least 100 and a level between 0 and 1 are needed"
    )]
    Resampling {
        /// How many resamples were asked for.
        resamples: usize,
        /// The level that was asked for.
        level: f64,
    },
}

/// The arithmetic mean; `None` for an empty sample.
pub fn mean(sample: &[f64]) -> Option<f64> {
    (!sample.is_empty()).then(|| sample.iter().sum::<f64>() / sample.len() as f64)
}

/// The median: the middle value, or the mean of the two middle ones; `None` for an empty sample.
pub fn median(sample: &[f64]) -> Option<f64> {
    quantile(sample, 0.5)
}

/// The quantile `q` from 0 (the minimum) to 1 (the maximum), interpolated linearly between neighbours (type 7 of
/// Hyndman and Fan 1996); `None` for an empty sample.
pub fn quantile(sample: &[f64], q: f64) -> Option<f64> {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    quantile_of_sorted(&sorted, q)
}

pub(crate) fn quantile_of_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[position as usize], sorted[(position.ceil() as usize).min(last)]);
    Some(low + (high - low) * position.fract())
}

/// The sample standard deviation, with n - 1; `None` for fewer than two values.
pub fn standard_deviation(sample: &[f64]) -> Option<f64> {
    let mean = mean(sample)?;
    let squares: f64 = sample.iter().map(|value| (value - mean).powi(2)).sum();
    (sample.len() > 1).then(|| (squares / (sample.len() - 1) as f64).sqrt())
}

/// Refuses what has no statistics.
pub(crate) fn check(sample: &[f64]) -> Result<(), StatisticsError> {
    if sample.is_empty() {
        return Err(StatisticsError::Empty);
    }
    match sample.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(StatisticsError::NotFinite { index, value: sample[index] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_sample_has_no_statistics() {
        assert_eq!(
            (mean(&[]), median(&[]), standard_deviation(&[]), standard_deviation(&[1.0])),
            (None, None, None, None)
        );
    }

    #[test]
    fn statistics_of_a_known_sample() {
        let sample = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!((mean(&sample), median(&sample)), (Some(5.0), Some(4.5)));
        assert_eq!(standard_deviation(&sample), Some((32.0f64 / 7.0).sqrt()));
        // As R's quantile(x, c(0.25, 0.9)) has it.
        assert_eq!((quantile(&sample, 0.25), quantile(&sample, 0.9)), (Some(4.0), Some(7.6)));
    }

    #[test]
    fn what_was_not_measured_is_refused_with_its_place() {
        assert_eq!(check(&[]), Err(StatisticsError::Empty));
        let refusal = check(&[1.0, f64::INFINITY]).expect_err("not finite").to_string();
        assert_eq!(refusal, "value 1 of the sample is inf; leave out what was not measured");
    }

    proptest! {
        #[test]
        fn quantiles_grow_from_minimum_to_maximum(
            sample in prop::collection::vec(-1e6f64..1e6, 1..50), a in 0.0f64..=1.0, b in 0.0f64..=1.0
        ) {
            let at = |q| quantile(&sample, q).expect("not empty");
            prop_assert!(at(a.min(b)) <= at(a.max(b)));
            prop_assert_eq!(at(0.0), sample.iter().copied().fold(f64::INFINITY, f64::min));
            prop_assert_eq!(at(1.0), sample.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
    }
}
