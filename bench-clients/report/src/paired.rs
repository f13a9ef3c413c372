//! Comparing two series of runs.

use crate::resampling::{Estimate, Resampling};
use crate::statistics::{StatisticsError, check, mean};

/// Measurements in pairs: the k-th of each series was taken under the same conditions (the same seed, or in one
/// interleaved run), so that what both have in common cancels out.
#[derive(Debug, Clone, PartialEq)]
pub struct Paired<'a> {
    before: &'a [f64],
    after: &'a [f64],
}

impl<'a> Paired<'a> {
    /// Of these series.
    ///
    /// # Errors
    ///
    /// If they are empty, not equally long, or have a value that is not finite.
    pub fn new(before: &'a [f64], after: &'a [f64]) -> Result<Paired<'a>, StatisticsError> {
        if before.len() != after.len() {
            return Err(StatisticsError::NotPaired { before: before.len(), after: after.len() });
        }
        check(before)?;
        check(after)?;
        Ok(Paired { before, after })
    }

    /// The mean of `after - before`, in their unit.
    ///
    /// # Errors
    ///
    /// If the resampling's options are out of their ranges.
    pub fn difference(&self, resampling: Resampling) -> Result<Estimate, StatisticsError> {
        let differences: Vec<f64> = self.after.iter().zip(self.before).map(|(after, before)| after - before).collect();
        crate::bootstrap(&differences, |sample| mean(sample).unwrap_or_default(), resampling)
    }

    /// The mean of `after` relative to that of `before`: -0.5 is half as much. Pairs are resampled as pairs.
    ///
    /// # Errors
    ///
    /// If the mean of `before` is 0, or that of so many resamples that the interval has no finite end, or the
    /// resampling's options are out of their ranges.
    pub fn relative_change(&self, resampling: Resampling) -> Result<Estimate, StatisticsError> {
        let change = |indexes: &[usize]| {
            let sum = |series: &[f64]| indexes.iter().map(|&index| series[index]).sum::<f64>();
            sum(self.after) / sum(self.before) - 1.0
        };
        let all: Vec<usize> = (0..self.before.len()).collect();
        let value = change(&all);
        let (low, high) = resampling.interval(all.len(), change)?;
        if ![value, low, high].into_iter().all(f64::is_finite) {
            return Err(StatisticsError::NoBase);
        }
        Ok(Estimate { value, low, high, level: resampling.level })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLING: Resampling = Resampling { resamples: 2000, level: 0.95, seed: 1 };

    #[test]
    fn what_both_series_have_in_common_cancels_out() {
        // Runs differ by a factor of ten, but each is halved.
        let before = [10.0, 100.0, 50.0, 20.0];
        let after = [5.0, 50.0, 25.0, 10.0];
        let pairs = Paired::new(&before, &after).expect("fine series");
        let change = pairs.relative_change(RESAMPLING).expect("a change");
        for end in [change.value, change.low, change.high] {
            assert!((end + 0.5).abs() < 1e-12, "{change:?}");
        }
        let difference = pairs.difference(RESAMPLING).expect("a difference");
        assert_eq!(difference.value, -22.5);
        assert!(difference.low < -22.5 && -22.5 < difference.high && difference.high <= -5.0, "{difference:?}");
    }

    #[test]
    fn series_that_are_no_pairs_are_refused() {
        let refusal = Paired::new(&[1.0], &[1.0, 2.0]).expect_err("not pairs").to_string();
        assert_eq!(refusal, "1 values cannot be paired with 2; repeat each measurement equally often");
        assert_eq!(Paired::new(&[], &[]), Err(StatisticsError::Empty));
        assert!(Paired::new(&[1.0], &[f64::NAN]).is_err());
    }

    #[test]
    fn nothing_is_relative_to_zero() {
        let (before, after) = ([0.0, 0.0], [1.0, 2.0]);
        let pairs = Paired::new(&before, &after).expect("fine series");
        assert_eq!(pairs.relative_change(RESAMPLING), Err(StatisticsError::NoBase));
        assert_eq!(pairs.difference(RESAMPLING).expect("a difference").value, 1.5);
    }
}
