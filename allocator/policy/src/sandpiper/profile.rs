//! Profiles: what a VM used over the window W, as a distribution and as a time series (section 5.3.3).

use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, time::Duration};
use vibra_model::{Resource, Timestamp, UsageSample};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    /// Bytes a second.
    Egress,
    /// Thousandths of a core.
    Cpu,
    /// The working set or, where that is not known, the memory in use, in bytes.
    Memory,
    /// Bytes a second to and from swap.
    Swapped,
    /// Requests completed a second.
    Requests,
    /// Requests dropped a second.
    Drops,
    /// Mean service time in seconds.
    Service,
    /// Requests in flight.
    InFlight,
}

/// How many quantities there are.
const QUANTITIES: usize = 8;

/// A value of each quantity; `None` where it was not measured. Single precision is finer than any sensor, and halves what
/// a decision on many VMs has to read.
type Values = [Option<f32>; QUANTITIES];

fn values(sample: &UsageSample, length: Option<Duration>) -> Values {
    let seconds = length.map(|length| length.as_secs_f64()).filter(|seconds| *seconds > 0.0);
    let rate = |count: Option<u64>| Some((count? as f64 / seconds?) as f32);
    let memory = sample.working_set.or(sample.memory_in_use);
    let mut values = [None; QUANTITIES];
    let mut set = |quantity: Quantity, value| values[quantity as usize] = value;
    set(Quantity::Egress, sample.egress.map(|egress| egress.0 as f32));
    set(Quantity::Cpu, sample.cpu_time.and_then(|time| Some((time.as_secs_f64() / seconds? * 1000.0) as f32)));
    set(Quantity::Memory, memory.map(|memory| memory.0 as f32));
    set(Quantity::Swapped, rate(sample.swapped.map(|swapped| swapped.0)));
    set(Quantity::Requests, rate(sample.requests));
    set(Quantity::Drops, rate(sample.drops));
    set(Quantity::Service, sample.service_time.map(|time| time.as_secs_f32()));
    set(Quantity::InFlight, sample.in_flight.map(|requests| requests as f32));
    values
}

/// One measurement of a VM.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measurement<'a> {
    profile: &'a Profile,
    /// How many there are after it.
    age: usize,
}

impl Measurement<'_> {
    fn get(&self, quantity: Quantity) -> Option<f64> {
        let series = &self.profile.series[quantity as usize].0;
        let value = series[series.len().checked_sub(self.age + 1)?];
        (value != UNKNOWN).then_some(f64::from(value))
    }

    /// What was used of `resource`, in its base unit.
    pub(super) fn used(&self, resource: Resource) -> Option<f64> {
        self.get(match resource {
            Resource::Bandwidth => Quantity::Egress,
            Resource::Memory => Quantity::Memory,
            Resource::Cpu => Quantity::Cpu,
        })
    }

    /// Bytes a second to and from swap.
    pub(super) fn swapped(&self) -> Option<f64> {
        self.get(Quantity::Swapped)
    }

    /// λ: requests that arrived a second, those that were dropped included.
    pub(super) fn arrivals(&self) -> Option<f64> {
        Some(self.get(Quantity::Requests)? + self.get(Quantity::Drops).unwrap_or(0.0))
    }

    /// The share of the arrivals that was dropped; `None` if nothing arrived.
    pub(super) fn dropped(&self) -> Option<f64> {
        let arrivals = self.arrivals().filter(|arrivals| *arrivals > 0.0)?;
        Some(self.get(Quantity::Drops)? / arrivals)
    }

    /// The mean response time in seconds, by Little's law: requests in flight over requests completed a second.
    pub(super) fn response(&self) -> Option<f64> {
        let requests = self.get(Quantity::Requests).filter(|requests| *requests > 0.0)?;
        Some(self.get(Quantity::InFlight)? / requests)
    }

    /// s: the mean service time in seconds.
    pub(super) fn service(&self) -> Option<f64> {
        self.get(Quantity::Service)
    }

    /// b: the mean bytes that a request sends.
    pub(super) fn bytes_per_request(&self) -> Option<f64> {
        let requests = self.get(Quantity::Requests).filter(|requests| *requests > 0.0)?;
        Some(self.get(Quantity::Egress)? / requests)
    }
}

/// What stands in a [`Series`] for a value that was not measured: no sensor gives it.
const UNKNOWN: f32 = -1.0;

/// The values of one quantity, oldest first and in one piece, so that a peak or a prediction reads little memory. It is empty as
/// long as there was none, and then has a value for each measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Option<f32>>", into = "Vec<Option<f32>>")]
struct Series(VecDeque<f32>);

impl From<Vec<Option<f32>>> for Series {
    fn from(values: Vec<Option<f32>>) -> Self {
        Series(values.into_iter().map(|value| value.unwrap_or(UNKNOWN)).collect())
    }
}

impl From<Series> for Vec<Option<f32>> {
    fn from(series: Series) -> Self {
        series.0.into_iter().map(|value| (value != UNKNOWN).then_some(value)).collect()
    }
}

impl Series {
    fn push(&mut self, value: Option<f32>, window: usize) {
        if value.is_none() && self.0.is_empty() {
            return;
        }
        if self.0.len() >= window {
            self.0.pop_front();
        }
        self.0.push_back(value.unwrap_or(UNKNOWN));
    }
}

/// The measurement that is being made: the mean of the samples so far of one interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    /// Which interval, counted from time zero.
    interval: u64,
    samples: u32,
    mean: Values,
}

impl Open {
    fn add(&mut self, values: &Values) {
        self.samples += 1;
        for (mean, value) in self.mean.iter_mut().zip(values) {
            *mean = match (*mean, *value) {
                (Some(mean), Some(value)) => Some(mean + (value - mean) / self.samples as f32),
                (mean, value) => value.or(mean),
            };
        }
    }
}

/// The profile of one VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    /// The newest sample that went into it.
    at: Timestamp,
    open: Option<Open>,
    /// How many measurements there are, as many as the window has at most.
    measurements: usize,
    series: [Series; QUANTITIES],
}

impl Profile {
    /// Takes the samples in that are new, as far as they are not after `newest`; says whether a measurement was
    /// completed.
    pub(super) fn take_in(&mut self, samples: &[UsageSample], newest: Timestamp, grid: &Grid) -> bool {
        let mut completed = false;
        for sample in samples.iter().filter(|sample| sample.at <= newest) {
            if sample.at <= self.at {
                continue;
            }
            let since = (self.at > Timestamp::ZERO).then(|| sample.at.since(self.at));
            let one = values(sample, sample.interval.or(since));
            self.at = sample.at;
            // A sample is of the time before it: one that ends with an interval is of that interval.
            let length = grid.interval.as_micros() as u64;
            let interval = (sample.at.0.max(1) - 1) / length;
            match &mut self.open {
                Some(open) if open.interval == interval => open.add(&one),
                _ => {
                    completed |= self.complete(grid.window);
                    self.open = Some(Open { interval, samples: 1, mean: one });
                }
            }
            if sample.at.0 % length == 0 {
                completed |= self.complete(grid.window);
            }
        }
        completed
    }

    fn complete(&mut self, window: usize) -> bool {
        let Some(open) = self.open.take() else { return false };
        self.measurements = (self.measurements + 1).min(window);
        for (series, value) in self.series.iter_mut().zip(open.mean) {
            series.push(value, window);
        }
        true
    }

    /// Whether it can be one that measurements made, of `window` at most.
    pub(super) fn is_sound(&self, window: usize) -> bool {
        let real = |value: f32| value.is_finite() && value >= 0.0;
        let open = self.open.iter().flat_map(|open| open.mean).flatten().all(real);
        let sound = |series: &Series| {
            series.0.len() <= self.measurements && series.0.iter().all(|&value| value == UNKNOWN || real(value))
        };
        open && self.measurements <= window && self.series.iter().all(sound)
    }

    /// How many measurements there are.
    pub(super) fn len(&self) -> usize {
        self.measurements
    }

    /// The measurements, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = Measurement<'_>> {
        (0..self.measurements).map(|age| Measurement { profile: self, age })
    }

    /// The newest measurement.
    pub(super) fn newest(&self) -> Option<Measurement<'_>> {
        self.newest_first().next()
    }

    /// The `quantile` of what `value` tells over the window (nearest rank); `None` if it was never measured.
    pub(super) fn quantile(&self, quantile: f64, value: impl Fn(&Measurement<'_>) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.newest_first().filter_map(|measurement| value(&measurement)).collect();
        let rank = ((quantile * values.len() as f64).ceil() as usize).max(1);
        (!values.is_empty()).then(|| *values.select_nth_unstable_by(rank - 1, f64::total_cmp).1)
    }
}

/// How measurements are cut out of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    /// I.
    pub(super) interval: Duration,
    /// W.
    pub(super) window: usize,
}

/// The first-order auto-regressive prediction of equation 5.1, û = µ + φ(u − µ), of a series with the newest first. φ
/// is estimated by least squares over the pairs of neighbours, within ±1; so three of 200 measurements on a new level are
/// enough to expect a fourth there. 0 where the series does not vary. `None` for an empty series.
pub(super) fn predicted(newest_first: &[f64]) -> Option<f64> {
    let last = *newest_first.first()?;
    let mean = newest_first.iter().sum::<f64>() / newest_first.len() as f64;
    let (mut variation, mut covariation) = (0.0, 0.0);
    for pair in newest_first.windows(2) {
        covariation += (pair[0] - mean) * (pair[1] - mean);
        variation += (pair[1] - mean).powi(2);
    }
    let phi = if variation > 0.0 { (covariation / variation).clamp(-1.0, 1.0) } else { 0.0 };
    Some(mean + phi * (last - mean))
}

/// Where the straight line through the newest `horizon` values leads in as many steps (the dotted lines of Figure
/// 5.12(a)). Equation 5.1 leads back to the mean, so that it cannot foresee that a load goes on rising. `None` for fewer
/// than three values.
pub(super) fn trend(newest_first: &[f64], horizon: usize) -> Option<f64> {
    let recent = &newest_first[..newest_first.len().min(horizon)];
    if recent.len() < 3 {
        return None;
    }
    let count = recent.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, recent.iter().sum::<f64>() / count);
    // Times run backwards from the newest, at 0.
    let times = || (0..recent.len()).map(|age| middle - age as f64);
    let slope =
        times().zip(recent).map(|(time, u)| time * (u - mean)).sum::<f64>() / times().map(|t| t * t).sum::<f64>();
    Some(mean + slope * (middle + horizon as f64))
}

/// Whether at least `k` of the newest `n` values are above `limit` (section 5.4).
pub(super) fn exceeds(newest_first: impl Iterator<Item = f64>, (k, n): (usize, usize), limit: f64) -> bool {
    newest_first.take(n).filter(|u| *u > limit).count() >= k
}

#[cfg(test)]
mod tests {
    use super::*;
    use vibra_model::BytesPerSec;

    fn grid(seconds: u64, window: usize) -> Grid {
        Grid { interval: Duration::from_secs(seconds), window }
    }

    fn sample(second: u64, egress: u64) -> UsageSample {
        let egress = Some(BytesPerSec(egress));
        UsageSample { at: Timestamp(second * 1_000_000), egress, ..UsageSample::default() }
    }

    fn egress(profile: &Profile) -> Vec<f64> {
        profile.newest_first().filter_map(|m| m.used(Resource::Bandwidth)).collect()
    }

    #[test]
    fn samples_of_an_interval_are_one_measurement() {
        let mut profile = Profile::default();
        let late = Timestamp(u64::MAX);
        assert!(!profile.take_in(&[sample(1, 10), sample(5, 20)], late, &grid(10, 3)));
        assert!(profile.take_in(&[sample(5, 20), sample(10, 30)], late, &grid(10, 3)), "the interval is over");
        assert_eq!(egress(&profile), [20.0]);
        assert!(!profile.take_in(&[sample(11, 7)], late, &grid(10, 3)));
        assert!(profile.take_in(&[sample(21, 8)], late, &grid(10, 3)), "a sample of the next one ends it as well");
        assert!(!profile.take_in(&[sample(25, 8)], Timestamp(24_000_000), &grid(10, 3)), "not yet believed");
        assert_eq!(egress(&profile), [7.0, 20.0]);
        profile.take_in(&[sample(40, 1), sample(300, 2)], late, &grid(10, 3));
        assert_eq!(egress(&profile), [2.0, 1.0, 8.0], "the window keeps three");
    }

    #[test]
    fn rates_need_the_length_of_the_interval() {
        let mut profile = Profile::default();
        let counted = |second| UsageSample { requests: Some(50), drops: Some(50), ..sample(second, 100) };
        profile.take_in(&[counted(10)], Timestamp(u64::MAX), &grid(10, 3));
        assert_eq!(profile.newest().unwrap().arrivals(), None, "it is not known since when it counts");
        profile.take_in(&[counted(20)], Timestamp(u64::MAX), &grid(10, 3));
        let newest = profile.newest().unwrap();
        assert_eq!(
            (newest.arrivals(), newest.dropped(), newest.bytes_per_request()),
            (Some(10.0), Some(0.5), Some(20.0))
        );
    }

    #[test]
    fn the_peak_is_a_high_percentile() {
        let mut profile = Profile::default();
        let samples: Vec<_> = (1..=100).map(|i| sample(10 * i, i)).collect();
        profile.take_in(&samples, Timestamp(u64::MAX), &grid(10, 200));
        let used = |m: &Measurement<'_>| m.used(Resource::Bandwidth);
        assert_eq!(profile.quantile(0.95, used), Some(95.0));
        assert_eq!(profile.quantile(1.0, used), Some(100.0));
        assert_eq!(profile.quantile(0.95, |m| m.swapped()), None);
    }

    #[test]
    fn the_prediction_goes_back_to_the_mean_and_the_trend_does_not() {
        assert_eq!(predicted(&[]), None);
        assert_eq!(predicted(&[5.0, 5.0]), Some(5.0));
        // µ = 0, φ = (2·0 + 0·(-2)) / 4 = 0.
        assert_eq!(predicted(&[2.0, 0.0, -2.0]), Some(0.0));
        // µ = 2, φ = (1·1 + 1·(-1) + (-1)(-1)) / 3 = 1/3: 2 + 1/3.
        assert_eq!(predicted(&[3.0, 3.0, 1.0, 1.0]), Some(2.0 + 1.0 / 3.0));
        let risen = [vec![85.0; 3], vec![45.0; 197]].concat();
        assert!(predicted(&risen).unwrap() > 84.0, "{:?}", predicted(&risen));
        let rising = [5.0, 4.0, 3.0, 2.0];
        assert!(predicted(&rising).unwrap() < 5.0);
        assert!((trend(&rising, 4).unwrap() - 9.0).abs() < 1e-9);
        assert_eq!(trend(&[1.0, 1.0], 12), None);
    }

    #[test]
    fn a_spike_is_not_sustained() {
        assert!(!exceeds([9.0, 9.0, 1.0, 1.0, 1.0, 9.0].into_iter(), (3, 5), 5.0));
        assert!(exceeds([9.0, 1.0, 9.0, 1.0, 9.0].into_iter(), (3, 5), 5.0));
    }
}
