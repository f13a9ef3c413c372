//! Counters that cost the request path next to nothing, and their export.
//!
//! Each thread has counters of its own for each server: it finds them where it finds its connections to that server,
//! so that no label is looked up, and is the only one to write them. Who reads adds the threads' counters up.

use crate::http1::head::Version;
use crate::peer::NoHeader;
use crate::tls::Handshakes;
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

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
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
    /// No TLS on the connection, or the server's certificate does not count.
    Tls,
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
    pub(crate) const ALL: [Failure; 7] = [
        Failure::Connect,
        Failure::Tls,
        Failure::Closed,
        Failure::Garbage,
        Failure::TimedOut,
        Failure::Broken,
        Failure::Client,
    ];

    /// Its name as a label, and in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::Tls => "tls",
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
    /// Requests that found no place here.
    pub(crate) full: Counter,
    /// Connections made.
    pub(crate) connects: Counter,
    /// Responses by status class.
    pub(crate) responses: [Counter; CLASSES.len()],
    /// Failures by kind.
    pub(crate) failures: [Counter; Failure::ALL.len()],
    /// Requests that were sent here after another server had failed.
    pub(crate) retries: Counter,
    /// How long requests waited for a place here, of those that had to.
    pub(crate) queue: Histogram,
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
    /// Connections that are parked now.
    pub(crate) parked: Counter,
    /// Responses that broke off at one server and were gone on with at another.
    pub(crate) resumed: Counter,
    /// Connections closed for want of a PROXY header, by [`NoHeader::KINDS`].
    pub(crate) headless: [Counter; NoHeader::KINDS.len()],
    /// How often the thread has looked at its clock.
    pub(crate) ticks: Counter,
    /// Connections that had to wait for a place.
    pub(crate) delayed: Counter,
    /// Connections that were closed at once, since their address has too many.
    pub(crate) crowded: Counter,
    /// Waits that were long enough, by [`Wait`].
    pub(crate) timeouts: [Counter; Wait::ALL.len()],
    /// Requests that did not go to another server after one had failed, since too many had.
    pub(crate) unretried: Counter,
    /// TLS handshakes.
    pub(crate) handshakes: Handshakes,
    /// Connections that spoke HTTP/2.
    pub(crate) http2: Counter,
    /// Of these, how many were ended since the client asked too much of them.
    pub(crate) floods: Counter,
    /// Requests by [`Version`].
    pub(crate) requests: [Counter; Version::ALL.len()],
    /// Requests that the dispatcher answered itself, by [`Refusal`].
    pub(crate) refused: [Counter; Refusal::ALL.len()],
}

/// What a client's connection waits for, and may wait for no longer than so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The rest of a TLS handshake.
    Handshake,
    /// A request.
    Idle,
    /// The rest of a request's head.
    Header,
    /// A server's response.
    Response,
    /// Anything of a body to move.
    Stall,
    /// Anything to move after an upgrade.
    Tunnel,
    /// A request's body, which comes too slowly.
    Upload,
    /// The client, who takes a response too slowly.
    Download,
}

impl Wait {
    pub(crate) const ALL: [Wait; 8] = [
        Wait::Handshake,
        Wait::Idle,
        Wait::Header,
        Wait::Response,
        Wait::Stall,
        Wait::Tunnel,
        Wait::Upload,
        Wait::Download,
    ];

    /// Its name as a label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Wait::Handshake => "handshake",
            Wait::Idle => "idle",
            Wait::Header => "header",
            Wait::Response => "response",
            Wait::Stall => "stall",
            Wait::Tunnel => "tunnel",
            Wait::Upload => "upload",
            Wait::Download => "download",
        }
    }
}

/// When to come again after a refusal for overload, in seconds (RFC 9110, section 10.2.3). Overload seldom lasts, and a
/// refusal costs little.
const RETRY_AFTER: u32 = 1;

/// Why the dispatcher answers a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not well formed, or its body is not.
    BadRequest,
    /// The client takes too long to send it.
    Late,
    /// Its head is longer, or has more fields, than is taken.
    TooLong,
    /// Its first line is longer than is taken.
    UriTooLong,
    /// Its body is longer than is taken.
    BodyTooLong,
    /// Its client makes too many.
    TooMany,
    /// It asks for a tunnel or to be reflected, or its body is encoded in a way that is not undone here.
    Unsupported,
    /// It speaks another version of HTTP.
    Version,
    /// It has been here before.
    Loop,
    /// It goes no farther than here.
    LastHop,
    /// No server that was tried gave a response.
    BadGateway,
    /// There is no server to try.
    NoServer,
    /// No server has a place for it.
    Full,
    /// There is no memory for it.
    Memory,
    /// The server gave no response in time.
    TimedOut,
}

impl Refusal {
    pub(crate) const ALL: [Refusal; 15] = [
        Refusal::BadRequest,
        Refusal::Late,
        Refusal::TooLong,
        Refusal::UriTooLong,
        Refusal::BodyTooLong,
        Refusal::TooMany,
        Refusal::Unsupported,
        Refusal::Version,
        Refusal::Loop,
        Refusal::LastHop,
        Refusal::BadGateway,
        Refusal::NoServer,
        Refusal::Full,
        Refusal::Memory,
        Refusal::TimedOut,
    ];

    /// Its name as a label, and in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refusal::BadRequest => "malformed",
            Refusal::Late => "late",
            Refusal::TooLong => "header",
            Refusal::UriTooLong => "uri",
            Refusal::BodyTooLong => "body",
            Refusal::TooMany => "rate",
            Refusal::Unsupported => "unsupported",
            Refusal::Version => "version",
            Refusal::Loop => "loop",
            Refusal::LastHop => "last_hop",
            Refusal::BadGateway => "server",
            Refusal::NoServer => "no_server",
            Refusal::Full => "full",
            Refusal::Memory => "memory",
            Refusal::TimedOut => "timeout",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Refusal::BadRequest => StatusCode::BAD_REQUEST,
            Refusal::Late => StatusCode::REQUEST_TIMEOUT,
            Refusal::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::UriTooLong => StatusCode::URI_TOO_LONG,
            Refusal::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Refusal::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Refusal::Loop => StatusCode::LOOP_DETECTED,
            Refusal::LastHop => StatusCode::OK,
            Refusal::BadGateway => StatusCode::BAD_GATEWAY,
            Refusal::NoServer | Refusal::Full | Refusal::Memory => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// When to come again, in seconds, if it may help to come again.
    pub(crate) fn retry_after(self) -> Option<u32> {
        matches!(self.status().as_u16(), 429 | 503).then_some(RETRY_AFTER)
    }

    /// Whether it is the client's doing; what else he sends is then not to be relied on.
    pub(crate) fn is_the_clients(self) -> bool {
        self != Refusal::TooMany && matches!(self.status().as_u16(), 400..=499 | 501 | 505)
    }

    /// What the client is told.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Refusal::BadRequest => "400: a request needs one Host, a path, clear framing, and a whole body\n",
            Refusal::Late => "408: the request took too long to come\n",
            Refusal::TooLong => "431: the request's head is too long\n",
            Refusal::UriTooLong => "414: the request's target is too long\n",
            Refusal::BodyTooLong => "413: the request's body is too long\n",
            Refusal::TooMany => "429: too many requests\n",
            Refusal::Version => "505: this is HTTP/1.1 or HTTP/2\n",
            Refusal::Unsupported => "501: no tunnels, no reflections, and no transfer coding but chunked\n",
            Refusal::Loop => {
                "508: this request has been here before: a server is the dispatcher itself, or leads back to it\n"
            }
            Refusal::LastHop => "200: this is as far as Max-Forwards lets the request go\n",
            Refusal::BadGateway => "502: no server gave a valid response\n",
            Refusal::NoServer => "503: no server is available\n",
            Refusal::Full => "503: every server is busy\n",
            Refusal::Memory => "503: too much is under way\n",
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
