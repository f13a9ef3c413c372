//! Counters that cost the request path next to nothing, and their export.
//!
//! Each thread has counters of its own for each server: it finds them where it finds its connections to that server,
//! so that no label is looked up, and is the only one to write them. Who reads adds the threads' counters up.

use crate::http1::head::Version;
use crate::peer::NoHeader;
use http::StatusCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A counter that one thread writes and any may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        // With one writer no increment is lost, and none needs the bus.
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How a request that was sent to a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection.
    Connect,
    /// The connection ended before a response.
    Closed,
    /// What came is not HTTP.
    Garbage,
    /// No response in time.
    TimedOut,
    /// The response's body ended early.
    Broken,
    /// The client went away, or sent no more.
    Client,
}

impl Failure {
    pub(crate) const ALL: [Failure; 6] =
        [Failure::Connect, Failure::Closed, Failure::Garbage, Failure::TimedOut, Failure::Broken, Failure::Client];

    /// Its name as a label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::Closed => "closed",
            Failure::Garbage => "garbage",
            Failure::TimedOut => "timeout",
            Failure::Broken => "broken",
            Failure::Client => "client",
        }
    }

    /// Whether it speaks against the server.
    pub(crate) fn is_the_servers(self) -> bool {
        self != Failure::Client
    }
}

/// Names of the status classes, the class of 100 first.
pub(crate) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What one thread counts of one server.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests that were sent here, or tried to.
    pub(crate) picks: Counter,
    /// Connections made.
    pub(crate) connects: Counter,
    /// Responses by status class.
    pub(crate) responses: [Counter; CLASSES.len()],
    /// Failures by kind.
    pub(crate) failures: [Counter; Failure::ALL.len()],
    /// Requests that were sent here after another server had failed.
    pub(crate) retries: Counter,
    /// What it took to connect.
    pub(crate) connect: Histogram,
    /// From the request's first byte to the response's head.
    pub(crate) first_byte: Histogram,
    /// From the request's first byte to the end of the response's body, of complete requests.
    pub(crate) latency: Histogram,
}

impl Tally {
    pub(crate) fn responded(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len());
        self.responses[class - 1].add(1);
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.failures[failure as usize].add(1);
    }
}

/// What one thread counts of its clients.
#[derive(Debug, Default)]
pub(crate) struct ClientTally {
    /// Connections accepted.
    pub(crate) opened: Counter,
    /// Connections ended.
    pub(crate) closed: Counter,
    /// Responses that broke off at one server and were gone on with at another.
    pub(crate) resumed: Counter,
    /// Connections closed for want of a PROXY header, by [`NoHeader::KINDS`].
    pub(crate) headless: [Counter; NoHeader::KINDS.len()],
    /// Connections that spoke HTTP/2.
    pub(crate) http2: Counter,
    /// Of these, how many were ended since the client asked too much of them.
    pub(crate) floods: Counter,
    /// Requests by [`Version`].
    pub(crate) requests: [Counter; Version::ALL.len()],
    /// Requests that the dispatcher answered itself, by [`Refusal`].
    pub(crate) refused: [Counter; Refusal::ALL.len()],
}

/// Why the dispatcher answers a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not well formed, or its body is not.
    BadRequest,
    /// The client takes too long to send it.
    Late,
    /// Its head is longer, or has more fields, than is taken.
    TooLong,
    /// It asks for a tunnel, or its body is encoded in a way that is not undone here.
    Unsupported,
    /// It speaks another version of HTTP.
    Version,
    /// It has been here before.
    Loop,
    /// No server that was tried gave a response.
    BadGateway,
    /// There is no server to try.
    NoServer,
    /// The server gave no response in time.
    TimedOut,
}

impl Refusal {
    pub(crate) const ALL: [Refusal; 9] = [
        Refusal::BadRequest,
        Refusal::Late,
        Refusal::TooLong,
        Refusal::Unsupported,
        Refusal::Version,
        Refusal::Loop,
        Refusal::BadGateway,
        Refusal::NoServer,
        Refusal::TimedOut,
    ];

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Refusal::BadRequest => StatusCode::BAD_REQUEST,
            Refusal::Late => StatusCode::REQUEST_TIMEOUT,
            Refusal::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Refusal::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Refusal::Loop => StatusCode::LOOP_DETECTED,
            Refusal::BadGateway => StatusCode::BAD_GATEWAY,
            Refusal::NoServer => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Its name in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refusal::BadRequest => "bad-request",
            Refusal::Late => "late",
            Refusal::TooLong => "too-long",
            Refusal::Unsupported => "unsupported",
            Refusal::Version => "version",
            Refusal::BadGateway => "bad-gateway",
            Refusal::Loop => "loop",
            Refusal::NoServer => "no-server",
            Refusal::TimedOut => "timeout",
        }
    }

    /// Whether it is the client's doing; what else he sends is then not to be relied on.
    pub(crate) fn is_the_clients(self) -> bool {
        matches!(self.status().as_u16(), 400..=499 | 501 | 505)
    }

    /// What the client is told.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Refusal::BadRequest => "400: a request needs one Host, a path, clear framing, and a whole body\n",
            Refusal::Late => "408: the request took too long to come\n",
            Refusal::TooLong => "431: the request's head is too long\n",
            Refusal::Version => "505: this is HTTP/1.1 or HTTP/2\n",
            Refusal::Unsupported => "501: no tunnels, and no transfer coding but chunked\n",
            Refusal::Loop => {
                "508: this request has been here before: a server is the dispatcher itself, or leads back to it\n"
            }
            Refusal::BadGateway => "502: no server gave a valid response\n",
            Refusal::NoServer => "503: no server is available\n",
            Refusal::TimedOut => "504: the server gave no response in time\n",
        }
    }
}

/// Upper bounds of the latency buckets, in microseconds; what is above the last counts in a bucket of its own.
pub(crate) const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// A histogram of durations that one thread writes.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    pub(crate) buckets: [Counter; BOUNDS.len() + 1],
    /// In microseconds.
    pub(crate) sum: Counter,
}

impl Histogram {
    pub(crate) fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|&bound| bound < micros)].add(1);
        self.sum.add(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let counts: Vec<_> = histogram.buckets.iter().map(Counter::get).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.sum.get(), 20_001_002);
    }

    #[test]
    fn strange_statuses_count_in_the_nearest_class() {
        let tally = Tally::default();
        for status in [100, 204, 304, 404, 502, 799] {
            tally.responded(StatusCode::from_u16(status).unwrap());
        }
        assert_eq!(tally.responses.each_ref().map(Counter::get), [1, 1, 1, 1, 2]);
    }
}
