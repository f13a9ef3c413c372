//! What came out of a replay.

use crate::record::{Record, SecondSum};
use crate::tally::{Bucket, Tally, Times};
use crate::{Mode, Options};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What came out of a replay. `requests = completed + errors.total() + unsent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How the requests were sent.
    #[serde(flatten)]
    pub mode: Mode,
    /// If there is a reason here, the run says more of the load generator than of the server, and its numbers are not
    /// to be used. The reasons:
    ///
    /// - a request was not sent, because the connection limit was reached or the machine refused a connection;
    /// - in an open loop, requests were sent too late: the 99th percentile of [`send_lag`](Self::send_lag) exceeds
    ///   [`Options::lag_limit`];
    /// - in a closed loop of a second or more, a generator thread used over 95 % of a processor: it, not the server,
    ///   set the pace;
    /// - no request was measured at all.
    pub void: Option<String>,
    /// Requests that were due in the measured time, which is all but the warm-up.
    pub requests: u64,
    /// Those with a right answer.
    pub completed: u64,
    /// Those without.
    pub errors: Errors,
    /// Those that the generator could not send.
    pub unsent: u64,
    /// Requests of the warm-up, not counted in any other number here.
    pub warm_up_requests: u64,
    /// Requests of the trace that can not be replayed, for their method or for a URL that fits in no request line;
    /// not counted in any other number here.
    pub skipped: u64,
    /// Bytes of the bodies of right answers.
    pub bytes: u64,
    /// Seconds from the end of the warm-up until the last request was over.
    pub duration_s: f64,
    /// Right answers a second; `None` if no time passed.
    pub requests_per_s: Option<f64>,
    /// Bytes of right answers a second; `None` if no time passed.
    pub bytes_per_s: Option<f64>,
    /// From when a request was due until its answer was complete, of right answers; `None` if there were none.
    ///
    /// In a closed loop a request is due when its client is free.
    pub response_time: Option<Times>,
    /// From when a request was due until the generator began to send it, whatever came of it: the generator's own
    /// delay, which is part of the response time. `None` in a closed loop.
    pub send_lag: Option<Times>,
    /// Connections opened, with the warm-up.
    pub connections: u64,
    /// Requests sent again because the server had closed an idle connection when they came, with the warm-up.
    pub retries: u64,
    /// Processor time of the generator threads in seconds, with the warm-up.
    pub generator_cpu_s: f64,
    /// Nice value of the generator threads: -10 if they could take precedence over a system under test on the same
    /// machine, else what the process has.
    pub generator_nice: i32,
    /// The histogram of response times; see [`Tally::from_buckets`].
    pub histogram: Vec<Bucket>,
    /// The measured time by the second.
    pub seconds: Vec<Second>,
}

/// Requests without a right answer, by what went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// No connection was to be had.
    pub connect: u64,
    /// The answer was not complete in time.
    pub timeout: u64,
    /// The connection closed before the head of an answer had arrived.
    pub closed: u64,
    /// The answer was not HTTP/1.1.
    pub protocol: u64,
    /// A status from 400 to 499 that the trace does not have there.
    pub status_4xx: u64,
    /// A status of 500 or more that the trace does not have there.
    pub status_5xx: u64,
    /// The connection closed before the end of the body.
    pub truncated: u64,
    /// A whole body of another length than the trace says, see [`Lengths`](crate::Lengths).
    pub wrong_length: u64,
}

/// The requests that were due in one second of the measured time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// All of them.
    pub requests: u64,
    /// Those with a right answer.
    pub completed: u64,
    /// Bytes of the bodies of right answers.
    pub bytes: u64,
    /// Mean response time of right answers; `None` if there were none.
    pub mean_ms: Option<f64>,
}

/// What the generator threads used up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Effort {
    pub(crate) connections: u64,
    pub(crate) retries: u64,
    pub(crate) cpu: Duration,
    /// The highest nice value of a thread.
    pub(crate) nice: i32,
    /// The greatest part of its time that a thread was on a processor.
    pub(crate) busiest: f64,
}

/// From this part of its time on a processor, a thread of a closed loop sets the pace.
const BUSY: f64 = 0.95;

/// Shortest time over which [`BUSY`] means something.
const BUSY_OVER: Duration = Duration::from_secs(1);

impl Errors {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Errors { connect, timeout, closed, protocol, status_4xx, status_5xx, truncated, wrong_length } = self;
        connect + timeout + closed + protocol + status_4xx + status_5xx + truncated + wrong_length
    }

    pub(crate) fn merge(&mut self, other: &Errors) {
        self.connect += other.connect;
        self.timeout += other.timeout;
        self.closed += other.closed;
        self.protocol += other.protocol;
        self.status_4xx += other.status_4xx;
        self.status_5xx += other.status_5xx;
        self.truncated += other.truncated;
        self.wrong_length += other.wrong_length;
    }
}

impl Effort {
    pub(crate) fn merge(&mut self, other: Effort) {
        self.connections += other.connections;
        self.retries += other.retries;
        self.cpu += other.cpu;
        self.nice = self.nice.max(other.nice);
        self.busiest = self.busiest.max(other.busiest);
    }
}

impl Summary {
    pub(crate) fn new(options: &Options, record: &Record, effort: Effort) -> Summary {
        let duration = record.end.saturating_sub(options.warm_up);
        let per_second = |count: u64| (!duration.is_zero()).then(|| count as f64 / duration.as_secs_f64());
        let completed = record.response_time.count();
        Summary {
            mode: options.mode,
            void: void(options, record, effort),
            requests: record.requests,
            completed,
            errors: record.errors,
            unsent: record.unsent,
            warm_up_requests: record.warm_up_requests,
            skipped: record.skipped,
            bytes: record.bytes,
            duration_s: duration.as_secs_f64(),
            requests_per_s: per_second(completed),
            bytes_per_s: per_second(record.bytes),
            response_time: record.response_time.times(),
            send_lag: lag(options, record).and_then(Tally::times),
            connections: effort.connections,
            retries: effort.retries,
            generator_cpu_s: effort.cpu.as_secs_f64(),
            generator_nice: effort.nice,
            histogram: record.response_time.buckets(),
            seconds: record.seconds.iter().map(Second::new).collect(),
        }
    }
}

impl Second {
    fn new(sum: &SecondSum) -> Second {
        let SecondSum { requests, completed, bytes, response_time } = *sum;
        let mean_ms = (completed > 0).then(|| response_time.as_secs_f64() * 1e3 / completed as f64);
        Second { requests, completed, bytes, mean_ms }
    }
}

/// How late requests were sent; in a closed loop they are due when they are sent.
fn lag<'a>(options: &Options, record: &'a Record) -> Option<&'a Tally> {
    matches!(options.mode, Mode::Open { .. }).then_some(&record.send_lag)
}

fn void(options: &Options, record: &Record, effort: Effort) -> Option<String> {
    if record.requests == 0 {
        return Some("no request was measured: none was due, or all in the warm-up".into());
    }
    if record.unsent > 0 {
        let why = record.unsent_reason.as_deref().unwrap_or_default();
        return Some(format!("{} requests were not sent: {why}", record.unsent));
    }
    let late = lag(options, record).and_then(|lag| lag.quantile(0.99)).filter(|&lag| lag > options.lag_limit);
    if let Some(lag) = late {
        let limit = options.lag_limit;
        return Some(format!(
            "the generator fell behind: 1 % of the requests were sent more than {lag:.1?} late, and the limit is \
             {limit:?}; lower the speed, or give it more threads or a quieter machine"
        ));
    }
    let closed = matches!(options.mode, Mode::Closed { .. });
    if closed && effort.busiest > BUSY && record.end >= BUSY_OVER {
        let busy = 100.0 * effort.busiest;
        return Some(format!(
            "the generator set the pace: a thread of it used {busy:.0} % of a processor; give it more threads"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spread;
    use crate::exchange::Failure;
    use crate::record::Sample;

    const OPEN: Mode = Mode::Open { speed: 1.0, spread: Spread::Poisson { seed: 3 } };

    /// Of a hundred requests, `late` of which are sent 20 ms late, for 2 s.
    fn summary(mode: Mode, late: u64, busiest: f64) -> Summary {
        let mut record = Record::new(Duration::ZERO);
        for k in 0..100 {
            let due = Duration::from_millis(20 * k);
            let sent = due + Duration::from_millis(if k < late { 20 } else { 1 });
            record.add(Sample { due, sent, finished: due + Duration::from_millis(30), outcome: Ok(100) });
        }
        let options = Options::new(([127, 0, 0, 1], 80).into(), mode);
        Summary::new(&options, &record, Effort { busiest, ..Effort::default() })
    }

    #[test]
    fn an_open_loop_is_void_if_it_sent_late() {
        let fine = summary(OPEN, 1, 1.0);
        assert_eq!((fine.void, fine.requests, fine.completed), (None, 100, 100));
        let late = summary(OPEN, 2, 0.0);
        assert!(late.void.as_ref().is_some_and(|why| why.contains("more than 20.0ms late")), "{:?}", late.void);
    }

    #[test]
    fn a_closed_loop_is_void_if_the_generator_had_no_time_to_spare() {
        let closed = Mode::Closed { concurrency: 4 };
        let fine = summary(closed, 100, 0.9);
        assert_eq!((fine.void, fine.send_lag), (None, None));
        let busy = summary(closed, 0, 0.99).void.expect("void");
        assert!(busy.contains("used 99 % of a processor"), "{busy}");
    }

    #[test]
    fn a_run_with_requests_not_sent_or_none_is_void() {
        let options = Options::new(([127, 0, 0, 1], 80).into(), OPEN);
        let mut record = Record::new(Duration::ZERO);
        let nothing = Summary::new(&options, &record, Effort::default());
        assert!(nothing.void.is_some_and(|why| why.contains("no request was measured")));
        assert_eq!((nothing.requests_per_s, nothing.response_time, nothing.send_lag), (None, None, None));
        let at = Duration::from_secs(1);
        record.add(Sample { due: at, sent: at, finished: at, outcome: Err(Failure::Unsent("no way".into())) });
        let unsent = Summary::new(&options, &record, Effort::default());
        assert_eq!(unsent.void.as_deref(), Some("1 requests were not sent: no way"));
    }

    #[test]
    fn it_survives_json() {
        let summary = summary(OPEN, 2, 0.5);
        let json = serde_json::to_value(&summary).expect("serialisable");
        assert_eq!((&json["loop"], &json["spread"], &json["seed"]), (&"open".into(), &"poisson".into(), &3.into()));
        assert_eq!(json["response_time"]["mean_ms"], 30.0);
        assert_eq!(serde_json::from_value::<Summary>(json).expect("what was written"), summary);
    }
}
