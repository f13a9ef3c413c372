//! Profiles: what a VM used over the window W, as a distribution and as a time series (section 5.3.3).

use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, time::Duration};
use vibra_model::{Resource, Timestamp, UsageSample};

/// What a VM did in one measurement interval. What was not measured is `None`. Single precision is finer than any
/// sensor, and halves what a decision on many VMs has to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measurement {
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress: Option<f32>,
    /// Thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu: Option<f32>,
    /// The working set or, where that is not known, the memory in use, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<f32>,
    /// Bytes a second to and from swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    swapped: Option<f32>,
    /// Requests completed a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requests: Option<f32>,
    /// Requests dropped a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drops: Option<f32>,
    /// Mean service time in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<f32>,
    /// Requests in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_flight: Option<f32>,
}

impl Measurement {
    fn of(sample: &UsageSample, length: Option<Duration>) -> Self {
        let seconds = length.map(|length| length.as_secs_f64()).filter(|seconds| *seconds > 0.0);
        let rate = |count: Option<u64>| Some((count? as f64 / seconds?) as f32);
        let memory = sample.working_set.or(sample.memory_in_use);
        Measurement {
            egress: sample.egress.map(|egress| egress.0 as f32),
            cpu: sample.cpu_time.and_then(|time| Some((time.as_secs_f64() / seconds? * 1000.0) as f32)),
            memory: memory.map(|memory| memory.0 as f32),
            swapped: rate(sample.swapped.map(|swapped| swapped.0)),
            requests: rate(sample.requests),
            drops: rate(sample.drops),
            service: sample.service_time.map(|time| time.as_secs_f32()),
            in_flight: sample.in_flight.map(|requests| requests as f32),
        }
    }

    /// The running mean after `self`, the mean of `count` measurements, and one more.
    fn with(&self, more: &Measurement, count: u32) -> Self {
        let mean = |old: Option<f32>, new: Option<f32>| match (old, new) {
            (Some(old), Some(new)) => Some(old + (new - old) / (count + 1) as f32),
            (old, new) => new.or(old),
        };
        Measurement {
            egress: mean(self.egress, more.egress),
            cpu: mean(self.cpu, more.cpu),
            memory: mean(self.memory, more.memory),
            swapped: mean(self.swapped, more.swapped),
            requests: mean(self.requests, more.requests),
            drops: mean(self.drops, more.drops),
            service: mean(self.service, more.service),
            in_flight: mean(self.in_flight, more.in_flight),
        }
    }

    fn is_sound(&self) -> bool {
        let Measurement { egress, cpu, memory, swapped, requests, drops, service, in_flight } = *self;
        let all = [egress, cpu, memory, swapped, requests, drops, service, in_flight];
        all.into_iter().flatten().all(|value| value.is_finite() && value >= 0.0)
    }

    /// What was used of `resource`, in its base unit.
    pub(super) fn used(&self, resource: Resource) -> Option<f64> {
        let used = match resource {
            Resource::Bandwidth => self.egress,
            Resource::Memory => self.memory,
            Resource::Cpu => self.cpu,
        };
        used.map(f64::from)
    }

    /// Bytes a second to and from swap.
    pub(super) fn swapped(&self) -> Option<f64> {
        self.swapped.map(f64::from)
    }

    /// λ: requests that arrived a second, those that were dropped included.
    pub(super) fn arrivals(&self) -> Option<f64> {
        Some(f64::from(self.requests?) + f64::from(self.drops.unwrap_or(0.0)))
    }

    /// The share of the arrivals that was dropped; `None` if nothing arrived.
    pub(super) fn dropped(&self) -> Option<f64> {
        let arrivals = self.arrivals().filter(|arrivals| *arrivals > 0.0)?;
        Some(f64::from(self.drops?) / arrivals)
    }

    /// The mean response time in seconds, by Little's law: requests in flight over requests completed a second.
    pub(super) fn response(&self) -> Option<f64> {
        let requests = self.requests.filter(|requests| *requests > 0.0)?;
        Some(f64::from(self.in_flight?) / f64::from(requests))
    }

    /// s: the mean service time in seconds.
    pub(super) fn service(&self) -> Option<f64> {
        self.service.map(f64::from)
    }

    /// b: the mean bytes that a request sends.
    pub(super) fn bytes_per_request(&self) -> Option<f64> {
        let requests = self.requests.filter(|requests| *requests > 0.0)?;
        Some(f64::from(self.egress?) / f64::from(requests))
    }
}

/// The measurement that is being made: the mean of the samples so far of one interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    /// Which interval, counted from time zero.
    interval: u64,
    samples: u32,
    mean: Measurement,
}

/// The profile of one VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    /// The newest sample that went into it.
    at: Timestamp,
    open: Option<Open>,
    /// Oldest first, as many as the window has at most.
    series: VecDeque<Measurement>,
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
            let one = Measurement::of(sample, sample.interval.or(since));
            self.at = sample.at;
            // A sample is of the time before it: one that ends with an interval is of that interval.
            let length = grid.interval.as_micros() as u64;
            let interval = (sample.at.0.max(1) - 1) / length;
            match &mut self.open {
                Some(open) if open.interval == interval => {
                    open.mean = open.mean.with(&one, open.samples);
                    open.samples += 1;
                }
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
        if self.series.len() >= window {
            self.series.pop_front();
        }
        self.series.push_back(open.mean);
        true
    }

    /// Whether it can be one that measurements made, of `window` at most.
    pub(super) fn is_sound(&self, window: usize) -> bool {
        let open = self.open.iter().map(|open| &open.mean);
        self.series.len() <= window && self.series.iter().chain(open).all(Measurement::is_sound)
    }

    /// How many measurements there are.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// The measurements, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Measurement> {
        self.series.iter().rev()
    }

    /// The newest measurement.
    pub(super) fn newest(&self) -> Option<&Measurement> {
        self.series.back()
    }

    /// The `quantile` of what `value` tells over the window (nearest rank); `None` if it was never measured.
    pub(super) fn quantile(&self, quantile: f64, value: impl Fn(&Measurement) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.series.iter().filter_map(value).collect();
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
        let used = |m: &Measurement| m.used(Resource::Bandwidth);
        assert_eq!(profile.quantile(0.95, used), Some(95.0));
        assert_eq!(profile.quantile(1.0, used), Some(100.0));
        assert_eq!(profile.quantile(0.95, Measurement::swapped), None);
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
