//! What one generator thread has measured.

use crate::exchange::Failure;
use crate::summary::Errors;
use crate::tally::Tally;
use std::time::Duration;

/// One request that is over. Times are since the beginning of the replay.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When it should have been sent.
    pub(crate) due: Duration,
    /// When the generator began to send it.
    pub(crate) sent: Duration,
    /// When the answer was complete, or was given up.
    pub(crate) finished: Duration,
    /// Bytes of the answer's body.
    pub(crate) outcome: Result<u64, Failure>,
}

/// Sums over samples.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    warm_up: Duration,
    /// Requests that were due in the warm-up; they count nowhere else.
    pub(crate) warm_up_requests: u64,
    /// Requests that could not be replayed; they count nowhere else.
    pub(crate) skipped: u64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: Errors,
    pub(crate) unsent: u64,
    /// Why the first of them was not sent.
    pub(crate) unsent_reason: Option<String>,
    /// Of right answers.
    pub(crate) response_time: Tally,
    /// Of all requests that were sent.
    pub(crate) send_lag: Tally,
    pub(crate) seconds: Vec<SecondSum>,
    /// When the last request was over.
    pub(crate) end: Duration,
}

/// Sums over the requests that were due in one second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SecondSum {
    pub(crate) requests: u64,
    pub(crate) completed: u64,
    pub(crate) bytes: u64,
    pub(crate) response_time: Duration,
}

impl Record {
    pub(crate) fn new(warm_up: Duration) -> Record {
        Record { warm_up, ..Record::default() }
    }

    pub(crate) fn add(&mut self, sample: Sample) {
        let Some(since_warm_up) = sample.due.checked_sub(self.warm_up) else {
            self.warm_up_requests += 1;
            return;
        };
        self.requests += 1;
        self.end = self.end.max(sample.finished);
        let index = since_warm_up.as_secs() as usize;
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, SecondSum::default());
        }
        let second = &mut self.seconds[index];
        second.requests += 1;
        if !matches!(sample.outcome, Err(Failure::Unsent(_))) {
            self.send_lag.record(sample.sent.saturating_sub(sample.due));
        }
        match sample.outcome {
            Ok(bytes) => {
                let response_time = sample.finished.saturating_sub(sample.due);
                self.bytes += bytes;
                self.response_time.record(response_time);
                second.completed += 1;
                second.bytes += bytes;
                second.response_time += response_time;
            }
            Err(failure) => self.fail(failure),
        }
    }

    fn fail(&mut self, failure: Failure) {
        let errors = &mut self.errors;
        let count = match failure {
            Failure::Connect => &mut errors.connect,
            Failure::Timeout => &mut errors.timeout,
            Failure::Closed => &mut errors.closed,
            Failure::Protocol => &mut errors.protocol,
            Failure::Status(..500) => &mut errors.status_4xx,
            Failure::Status(_) => &mut errors.status_5xx,
            Failure::Truncated => &mut errors.truncated,
            Failure::WrongLength => &mut errors.wrong_length,
            Failure::Unsent(reason) => {
                self.unsent_reason.get_or_insert(reason);
                &mut self.unsent
            }
        };
        *count += 1;
    }

    pub(crate) fn merge(&mut self, other: Record) {
        self.warm_up_requests += other.warm_up_requests;
        self.skipped += other.skipped;
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.errors.merge(&other.errors);
        self.unsent += other.unsent;
        self.unsent_reason = self.unsent_reason.take().or(other.unsent_reason);
        self.response_time.merge(&other.response_time);
        self.send_lag.merge(&other.send_lag);
        self.end = self.end.max(other.end);
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), SecondSum::default());
        }
        for (second, other) in self.seconds.iter_mut().zip(other.seconds) {
            second.requests += other.requests;
            second.completed += other.completed;
            second.bytes += other.bytes;
            second.response_time += other.response_time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Effort;
    use crate::{Mode, Options, Spread, Summary};
    use Failure::*;

    fn sample(due_ms: u64, sent_ms: u64, finished_ms: u64, outcome: Result<u64, Failure>) -> Sample {
        let [due, sent, finished] = [due_ms, sent_ms, finished_ms].map(Duration::from_millis);
        Sample { due, sent, finished, outcome }
    }

    #[test]
    fn each_request_counts_in_one_place() {
        let mut record = Record::new(Duration::from_secs(1));
        record.add(sample(999, 999, 5000, Ok(10)));
        record.add(sample(1000, 1002, 1010, Ok(10)));
        record.add(sample(3500, 3500, 4000, Ok(5)));
        for failure in [Connect, Timeout, Closed, Protocol, Status(404), Status(503), Truncated, WrongLength] {
            record.add(sample(3600, 3600, 3700, Err(failure)));
        }
        record.add(sample(3600, 4600, 4600, Err(Unsent("why".into()))));
        let one_each = Errors {
            connect: 1,
            timeout: 1,
            closed: 1,
            protocol: 1,
            status_4xx: 1,
            status_5xx: 1,
            truncated: 1,
            wrong_length: 1,
        };
        assert_eq!(record.errors, one_each);
        assert_eq!((record.warm_up_requests, record.requests, record.unsent, record.bytes), (1, 11, 1, 15));
        assert_eq!(record.unsent_reason.as_deref(), Some("why"));
        assert_eq!(record.response_time.mean_ms(), Some((10.0 + 500.0) / 2.0));
        assert_eq!((record.send_lag.count(), record.send_lag.mean_ms()), (10, Some(0.2)));
        let by_second: Vec<_> = record.seconds.iter().map(|second| (second.requests, second.completed)).collect();
        assert_eq!(by_second, [(1, 1), (0, 0), (10, 1)]);
        assert_eq!(record.end, Duration::from_millis(4600));
    }

    #[test]
    fn merging_is_as_if_all_had_been_one() {
        let samples = [
            sample(0, 1, 2, Ok(1)),
            sample(2500, 2501, 2600, Ok(7)),
            sample(1500, 1501, 1502, Err(Timeout)),
            sample(1600, 1601, 1602, Err(Unsent("why".into()))),
        ];
        let mut whole = Record::new(Duration::ZERO);
        let mut parts = [Record::new(Duration::ZERO), Record::new(Duration::ZERO)];
        for (k, sample) in samples.into_iter().enumerate() {
            whole.add(sample.clone());
            parts[k % 2].add(sample);
        }
        let [mut merged, other] = parts;
        merged.merge(other);
        let options = Options::new(([127, 0, 0, 1], 80).into(), Mode::Open { speed: 1.0, spread: Spread::Burst });
        let summary = |record| Summary::new(&options, record, Effort::default());
        assert_eq!(summary(&merged), summary(&whole));
    }
}
