//! When requests are due.

use crate::Request;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::iter::Peekable;
use std::time::Duration;

/// How requests lie within a step of the trace's clock (one second for most logs), of which a log says only how many
/// there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "spread", rename_all = "kebab-case")]
pub enum Spread {
    /// All at the start of their step: the worst that the log allows.
    Burst,
    /// At even distances over their step: the smoothest that the log allows.
    Uniform,
    /// At independent uniformly distributed times: a Poisson process, given how many arrivals the step has.
    Poisson {
        /// Of the random numbers.
        seed: u64,
    },
}

/// Requests with the times at which they are due, in the order of these times.
///
/// Works through them a clock step at a time and so needs memory for one step only. Each step has its own stream of
/// random numbers, so that its times depend on the seed and on its place in the trace alone. A request that is earlier
/// than the one before it, as in a log that is read as a stream, counts to that one's step.
#[derive(Debug, Clone)]
pub struct Schedule<I: Iterator<Item = Request>> {
    requests: Peekable<I>,
    resolution: Duration,
    speed: f64,
    spread: Spread,
    /// What is left of the step, with times since the trace's first second.
    step: VecDeque<Request>,
    times: VecDeque<Duration>,
}

impl<I: Iterator<Item = Request>> Schedule<I> {
    /// Of `requests`, taken with a clock of this `resolution`, played `speed` times as fast as recorded.
    ///
    /// Times out of [`Duration`]'s range become its maximum.
    pub fn new(requests: I, resolution: Duration, speed: f64, spread: Spread) -> Self {
        let (step, times) = (VecDeque::new(), VecDeque::new());
        Schedule { requests: requests.peekable(), resolution, speed, spread, step, times }
    }

    /// Takes in the step in which the next request lies.
    fn fill(&mut self) {
        let Some(first) = self.requests.next() else { return };
        self.step.push_back(first);
        let step_nanos = self.resolution.as_nanos();
        if step_nanos == 0 {
            self.times.push_back(first.at);
            return;
        }
        let step = first.at.as_nanos() / step_nanos;
        let same_step = |request: &Request| request.at.as_nanos() / step_nanos <= step;
        while let Some(request) = self.requests.next_if(same_step) {
            self.step.push_back(request);
        }
        let count = self.step.len();
        let start = nanos(step * step_nanos);
        let step_nanos = u64::try_from(step_nanos).unwrap_or(u64::MAX);
        match self.spread {
            Spread::Burst => self.times.extend(std::iter::repeat_n(start, count)),
            Spread::Uniform => {
                let offset = |k: usize| nanos(u128::from(step_nanos) * k as u128 / count as u128);
                self.times.extend((0..count).map(|k| start.saturating_add(offset(k))));
            }
            Spread::Poisson { seed } => {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(step as u64);
                let offset = |_| Duration::from_nanos(random.random_range(0..step_nanos));
                self.times.extend((0..count).map(offset).map(|offset| start.saturating_add(offset)));
                self.times.make_contiguous().sort_unstable();
            }
        }
    }
}

impl<I: Iterator<Item = Request>> Iterator for Schedule<I> {
    /// A request, and when it is due, from the beginning of the replay.
    type Item = (Request, Duration);

    fn next(&mut self) -> Option<Self::Item> {
        if self.step.is_empty() {
            self.fill();
        }
        let (request, time) = (self.step.pop_front()?, self.times.pop_front()?);
        let due = Duration::try_from_secs_f64(time.as_secs_f64() / self.speed);
        Some((request, due.unwrap_or(Duration::MAX)))
    }
}

/// [`Duration::from_nanos`] for numbers that came out of a [`Duration`].
fn nanos(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    Duration::new((nanos / SECOND) as u64, (nanos % SECOND) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoggedBytes, Method, Objects, Origin, Trace};
    use proptest::prelude::*;

    fn trace(seconds: impl IntoIterator<Item = u64>, resolution: Duration) -> Trace {
        let mut objects = Objects::new();
        let object = objects.intern("/");
        let request = |second| Request {
            at: Duration::from_secs(second),
            client: 0,
            object,
            bytes: LoggedBytes::NONE,
            method: Method::Get,
            status: 200,
        };
        Trace {
            name: "test".into(),
            origin: Origin::Synthetic { seed: 0 },
            start: None,
            resolution,
            objects,
            requests: seconds.into_iter().map(request).collect(),
        }
    }

    fn times(trace: &Trace, speed: f64, spread: Spread) -> Vec<Duration> {
        let (requests, times): (Vec<_>, Vec<_>) = trace.schedule(speed, spread).unzip();
        assert_eq!(requests, trace.requests);
        times
    }

    #[test]
    fn times_beyond_all_bounds_come_last() {
        let trace = trace([1, u64::MAX], Duration::from_secs(1));
        for spread in [Spread::Burst, Spread::Uniform, Spread::Poisson { seed: 1 }] {
            assert_eq!(times(&trace, 0.5, spread)[1], Duration::MAX);
        }
    }

    fn millis(times: &[Duration]) -> Vec<u128> {
        times.iter().map(Duration::as_millis).collect()
    }

    #[test]
    fn the_rules_place_requests_as_they_say() {
        let trace = trace([0, 0, 2, 2, 2, 2], Duration::from_secs(1));
        assert_eq!(millis(&times(&trace, 1.0, Spread::Burst)), [0, 0, 2000, 2000, 2000, 2000]);
        assert_eq!(millis(&times(&trace, 1.0, Spread::Uniform)), [0, 500, 2000, 2250, 2500, 2750]);
        assert_eq!(millis(&times(&trace, 4.0, Spread::Uniform)), [0, 125, 500, 562, 625, 687]);
    }

    #[test]
    fn a_clock_without_steps_leaves_the_times_alone() {
        let trace = trace([0, 3, 3], Duration::ZERO);
        assert_eq!(millis(&times(&trace, 1.0, Spread::Poisson { seed: 1 })), [0, 3000, 3000]);
    }

    #[test]
    fn poisson_arrivals_fill_their_step_evenly() {
        let count = 20_000;
        let trace = trace(std::iter::repeat_n(5, count), Duration::from_secs(1));
        let times = times(&trace, 1.0, Spread::Poisson { seed: 7 });
        for (k, time) in times.iter().enumerate() {
            // The greatest distance of the empirical distribution from the uniform one (Kolmogorov-Smirnov) is below
            // 1.95 / sqrt(n) but once in a thousand seeds.
            let distance = (time.as_secs_f64() - 5.0 - k as f64 / count as f64).abs();
            assert!(distance < 1.95 / (count as f64).sqrt(), "request {k} is off by {distance}");
        }
    }

    #[test]
    fn a_request_out_of_order_counts_to_the_step_before_it() {
        let mut late = trace([3, 3, 5], Duration::from_secs(1));
        late.requests[1].at = Duration::from_secs(2);
        let times: Vec<_> = late.schedule(1.0, Spread::Uniform).map(|(_, due)| due).collect();
        assert_eq!(millis(&times), [3000, 3500, 5000]);
    }

    proptest! {
        #[test]
        fn every_rule_keeps_order_and_step_and_depends_on_its_seed_alone(
            mut seconds in prop::collection::vec(0u64..20, 0..200),
            resolution in 1u64..4,
            speed in 0.01f64..100.0,
            spread in prop_oneof![
                Just(Spread::Burst), Just(Spread::Uniform), any::<u64>().prop_map(|seed| Spread::Poisson { seed })
            ],
        ) {
            seconds.sort_unstable();
            let trace = trace(seconds, Duration::from_secs(resolution));
            let once = times(&trace, speed, spread);
            prop_assert_eq!(&once, &times(&trace, speed, spread));
            prop_assert!(once.is_sorted());
            for (request, time) in trace.requests.iter().zip(&once) {
                let step = request.at.as_secs() / resolution * resolution;
                let time = time.as_secs_f64() * speed;
                prop_assert!(step as f64 - 1e-6 <= time && time <= (step + resolution) as f64 + 1e-6);
            }
        }

        #[test]
        fn a_step_of_a_longer_trace_is_spread_alike(seed in any::<u64>(), before in 0usize..5) {
            let whole = trace(std::iter::repeat_n(3, before).chain([8; 9]), Duration::from_secs(1));
            let part = trace([8; 9], Duration::from_secs(1));
            let spread = Spread::Poisson { seed };
            prop_assert_eq!(&times(&whole, 1.0, spread)[before..], &times(&part, 1.0, spread)[..]);
        }
    }
}
