//! What came out of a simulation.

use super::Nanos;
use hdrhistogram::Histogram;
use std::time::Duration;
use vibra_model::{Resource, Timestamp};

/// What came out of a simulation. `requests = completed + errors.total()`.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Requests that were due after the warm-up.
    pub requests: u64,
    /// Those with an answer.
    pub completed: u64,
    /// Those without.
    pub errors: Errors,
    /// All requests that were simulated, those of the warm-up too.
    pub simulated: u64,
    /// From when a request was due until its answer was complete, of those with an answer; `None` if there were none.
    pub response_time: Option<Times>,
    /// Bytes of the bodies of answers.
    pub bytes: u64,
    /// From the end of the warm-up until the last request was over.
    pub duration: Duration,
    /// Blocks of 512 bytes that were read from disk, with the warm-up.
    pub disk_blocks: u64,
    /// Of the requests that need data, those that found it in memory.
    pub hits: u64,
    /// And those that did not.
    pub misses: u64,
    /// Requests that were sent to another server because the one before it was gone.
    pub retries: u64,
    /// What the allocator did.
    pub allocator: Decisions,
    /// The measured time in equal parts, at most [`PARTS`].
    pub timeline: Vec<Part>,
    /// How long each of them is.
    pub part: Duration,
    /// What the VMs were given: at each change the amounts of all, in cluster order and the resource's base unit. At most
    /// [`CHANGES`]: of more every second one is left out, as often as it takes.
    pub allocations: Vec<Given>,
}

/// Requests without an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Errors {
    /// The answer was not complete in time.
    pub timeout: u64,
    /// The server's disk had too much to do.
    pub refused: u64,
    /// No server could be reached.
    pub unreachable: u64,
    /// The server failed amid the answer.
    pub broken: u64,
}

impl Errors {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.timeout + self.refused + self.unreachable + self.broken
    }
}

/// Times in milliseconds. Quantiles are exact to 0.1 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// Their mean.
    pub mean_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// What the allocator did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Decisions made.
    pub made: u64,
    /// Plans with changes that were carried out.
    pub accepted: u64,
    /// Plans that the checker or the directory refused: a fault of the policy.
    pub refused: u64,
    /// Moves of VMs that were completed.
    pub moves: u64,
    /// By resource, in base units, how much changed hands: the sum of all increases.
    pub moved: Vec<(Resource, u64)>,
}

impl Decisions {
    /// How much of a resource changed hands, in its base unit.
    pub fn moved(&self, resource: Resource) -> u64 {
        self.moved.iter().find(|(of, _)| *of == resource).map_or(0, |(_, amount)| *amount)
    }
}

/// What was given to the VMs from a time on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// From when on.
    pub at: Timestamp,
    /// Of what.
    pub resource: Resource,
    /// Of each VM, in cluster order and base units.
    pub amounts: Vec<u64>,
}

/// The most changes of allocations that an outcome has.
pub const CHANGES: usize = 4_096;

/// What was given, as [`Outcome::allocations`] has it.
#[derive(Debug, Clone, Default)]
pub(super) struct History(pub(super) Vec<Given>);

impl History {
    /// Takes note of `given`, if it differs from what was given of this resource before.
    pub(super) fn note(&mut self, given: Given) {
        let before = self.0.iter().rev().find(|before| before.resource == given.resource);
        if before.is_some_and(|before| before.amounts == given.amounts) {
            return;
        }
        if self.0.len() == CHANGES {
            self.thin();
        }
        self.0.push(given);
    }

    /// Leaves out every second change of each resource, but for the first and the last.
    fn thin(&mut self) {
        let mut seen: Vec<(Resource, usize)> = Vec::new();
        // From the end, so that what is in force stays.
        let mut kept: Vec<Given> = Vec::with_capacity(CHANGES);
        while let Some(given) = self.0.pop() {
            let place = seen.iter().position(|(resource, _)| *resource == given.resource).unwrap_or_else(|| {
                seen.push((given.resource, 0));
                seen.len() - 1
            });
            let count = &mut seen[place].1;
            *count += 1;
            let is_first = !self.0.iter().any(|before| before.resource == given.resource);
            if *count % 2 == 1 || is_first {
                kept.push(given);
            }
        }
        kept.reverse();
        self.0 = kept;
    }
}

/// The requests that were due in one part of the measured time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Part {
    /// All of them.
    pub requests: u64,
    /// Those with an answer.
    pub completed: u64,
    /// The sum of their response times in nanoseconds.
    sum: f64,
}

impl Part {
    /// Mean response time of those with an answer; `None` if there were none.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.completed > 0).then(|| self.sum / self.completed as f64 / 1e6)
    }

    fn add(&mut self, other: &Part) {
        self.requests += other.requests;
        self.completed += other.completed;
        self.sum += other.sum;
    }
}

/// The most parts that a timeline has.
pub const PARTS: usize = 400;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Answered { bytes: u64 },
    Timeout,
    Refused,
    Unreachable,
    Broken,
}

/// Counts requests as they end.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    warm_up: Nanos,
    times: Histogram<u64>,
    /// Of all response times, in nanoseconds.
    sum: f64,
    requests: u64,
    completed: u64,
    errors: Errors,
    bytes: u64,
    last: Nanos,
    timeline: Vec<Part>,
    part: Nanos,
    /// The part that was looked for last, by when it begins: the next request is mostly due in it, too.
    found: (Nanos, usize),
}

impl Tally {
    pub(super) fn new(warm_up: Duration) -> Self {
        // From a microsecond to a day, three digits.
        let times = Histogram::new_with_bounds(1, 86_400_000_000, 3).expect("these bounds are valid");
        let warm_up = u64::try_from(warm_up.as_nanos()).unwrap_or(u64::MAX);
        Tally {
            warm_up,
            times,
            sum: 0.0,
            requests: 0,
            completed: 0,
            errors: Errors::default(),
            bytes: 0,
            last: warm_up,
            timeline: Vec::new(),
            // A tenth of a second, doubled where that makes too many.
            part: 100_000_000,
            found: (0, 0),
        }
    }

    /// A request that was due at `due` ended so.
    #[inline]
    pub(super) fn count(&mut self, due: Nanos, now: Nanos, end: End) {
        if due < self.warm_up {
            return;
        }
        self.requests += 1;
        self.last = now;
        let took = now - due;
        let mut part = Part { requests: 1, ..Part::default() };
        match end {
            End::Answered { bytes } => {
                self.completed += 1;
                self.bytes += bytes;
                self.sum += took as f64;
                self.times.saturating_record(took / 1000);
                (part.completed, part.sum) = (1, took as f64);
            }
            End::Timeout => self.errors.timeout += 1,
            End::Refused => self.errors.refused += 1,
            End::Unreachable => self.errors.unreachable += 1,
            End::Broken => self.errors.broken += 1,
        }
        self.part_of(due - self.warm_up).add(&part);
    }

    #[inline]
    fn part_of(&mut self, since: Nanos) -> &mut Part {
        let (begins, index) = self.found;
        if since.wrapping_sub(begins) >= self.part || index >= self.timeline.len() {
            self.find_part(since);
        }
        &mut self.timeline[self.found.1]
    }

    fn find_part(&mut self, since: Nanos) {
        while since / self.part >= PARTS as u64 {
            self.part *= 2;
            let halved = self.timeline.chunks(2).map(|pair| {
                let mut sum = pair[0];
                pair[1..].iter().for_each(|part| sum.add(part));
                sum
            });
            self.timeline = halved.collect();
        }
        let index = (since / self.part) as usize;
        if index >= self.timeline.len() {
            self.timeline.resize(index + 1, Part::default());
        }
        self.found = (index as u64 * self.part, index);
    }

    /// The outcome as far as requests are concerned.
    pub(super) fn finish(self) -> Outcome {
        let quantile = |q| self.times.value_at_quantile(q) as f64 / 1e3;
        let response_time = (self.completed > 0).then(|| Times {
            mean_ms: self.sum / self.completed as f64 / 1e6,
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            max_ms: self.times.max() as f64 / 1e3,
        });
        Outcome {
            requests: self.requests,
            completed: self.completed,
            errors: self.errors,
            simulated: 0,
            response_time,
            bytes: self.bytes,
            duration: Duration::from_nanos(self.last - self.warm_up),
            disk_blocks: 0,
            hits: 0,
            misses: 0,
            retries: 0,
            allocator: Decisions::default(),
            timeline: self.timeline,
            part: Duration::from_nanos(self.part),
            allocations: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_is_counted_once_and_the_warm_up_not_at_all() {
        let mut tally = Tally::new(Duration::from_secs(1));
        const SECOND: Nanos = 1_000_000_000;
        tally.count(SECOND - 1, 5 * SECOND, End::Timeout);
        tally.count(SECOND, SECOND + 2_000_000, End::Answered { bytes: 7 });
        tally.count(2 * SECOND, 2 * SECOND + 4_000_000, End::Answered { bytes: 7 });
        tally.count(3 * SECOND, 4 * SECOND, End::Broken);
        let outcome = tally.finish();
        assert_eq!((outcome.requests, outcome.completed, outcome.errors.total(), outcome.bytes), (3, 2, 1, 14));
        let times = outcome.response_time.expect("two answers");
        assert!((times.mean_ms - 3.0).abs() < 1e-9, "{times:?}");
        assert_eq!(outcome.duration, Duration::from_secs(3));
    }

    #[test]
    fn a_history_of_changes_is_bounded_and_keeps_its_ends() {
        let mut history = History::default();
        for step in 0..10_000 {
            for resource in [Resource::Bandwidth, Resource::Memory] {
                let amounts = vec![if resource == Resource::Memory { step / 100 } else { step }];
                history.note(Given { at: Timestamp(step), resource, amounts });
            }
        }
        let of = |resource| history.0.iter().filter(move |given| given.resource == resource).collect::<Vec<_>>();
        let (bandwidth, memory) = (of(Resource::Bandwidth), of(Resource::Memory));
        assert!((1_000..=CHANGES).contains(&history.0.len()), "{}", history.0.len());
        assert_eq!((bandwidth[0].at, bandwidth[bandwidth.len() - 1].at), (Timestamp(0), Timestamp(9_999)));
        assert_eq!((memory[0].amounts[0], memory[memory.len() - 1].amounts[0]), (0, 99));
        assert!(history.0.is_sorted_by_key(|given| given.at));
    }

    #[test]
    fn a_timeline_has_a_bounded_number_of_parts() {
        let mut tally = Tally::new(Duration::ZERO);
        for second in 0..1_000 {
            tally.count(second * 1_000_000_000, second * 1_000_000_000 + 1, End::Answered { bytes: 0 });
        }
        let outcome = tally.finish();
        assert_eq!(outcome.part, Duration::from_millis(3_200));
        assert_eq!(outcome.timeline.len(), 313);
        assert_eq!(outcome.timeline.iter().map(|part| part.requests).sum::<u64>(), 1_000);
    }
}
