//! How much is accepted, how long is waited, and how all of it is written in a configuration.
//!
//! The names of the fields are the keys of the tables `limits` and `timeouts`; what is left out has its default.

use crate::admission::memory::PIECE as MEMORY_PIECE;
use crate::error::StartError;
use crate::http1::head::MOST_FIELDS;
use serde::{Deserialize, Deserializer, de};
use std::{num::NonZeroU32, num::NonZeroUsize, time::Duration};
use vibra_model::{
    Bytes, BytesPerSec,
    text::{duration, quantity},
};

/// The longest time that may be configured.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// A head must fit in a buffer.
const SMALLEST_BUFFER: usize = 8192;

/// How long is waited for what, at most a day. All but `connect` and `queue` are kept to within one
/// [`Timeouts::tick`], and `server_idle` to within a second.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection to a server, with its TLS handshake; then the next candidate is tried. Default: 1 s.
    #[serde(deserialize_with = "duration")]
    pub connect: Duration,
    /// For a place at a server, where all candidates are full; then 503. Default: 1 s.
    #[serde(deserialize_with = "duration")]
    pub queue: Duration,
    /// For a server's response head, from when the request was sent or its body last moved; then 504. Default: 60 s.
    #[serde(deserialize_with = "duration")]
    pub response: Duration,
    /// While nothing of a body moves; then the connection is broken. Default: 60 s.
    #[serde(deserialize_with = "duration")]
    pub stall: Duration,
    /// While nothing moves on a connection that carries another protocol since an upgrade. Default: 1 h.
    #[serde(deserialize_with = "duration")]
    pub tunnel: Duration,
    /// How far a body may fall behind [`Limits::upload_rate`] or [`Limits::download_rate`], in time. Default: 20 s.
    #[serde(deserialize_with = "duration")]
    pub slow: Duration,
    /// For a client's TLS handshake. Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub handshake: Duration,
    /// For a request head, from its first byte (or from the start of the connection). Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub header: Duration,
    /// For a client's next request; less where connections run short. Default: 65 s.
    #[serde(deserialize_with = "duration")]
    pub client_idle: Duration,
    /// How long an unused connection to a server is kept: below the servers' own limit, which is 60 s and more for
    /// most, so that they do not close what is just being used again. Default: 50 s.
    #[serde(deserialize_with = "duration")]
    pub server_idle: Duration,
    /// How often time-outs are looked at. Default: 100 ms.
    #[serde(deserialize_with = "duration")]
    pub tick: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(1),
            queue: Duration::from_secs(1),
            response: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            tunnel: Duration::from_secs(3600),
            slow: Duration::from_secs(20),
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            client_idle: Duration::from_secs(65),
            server_idle: Duration::from_secs(50),
            tick: Duration::from_millis(100),
        }
    }
}

impl Timeouts {
    /// Whether every time is one that somebody may mean to wait.
    ///
    /// # Errors
    /// [`StartError::Invalid`] with the field and what is possible.
    pub fn check(&self) -> Result<(), StartError> {
        let waits = [
            ("timeouts.connect", self.connect),
            ("timeouts.queue", self.queue),
            ("timeouts.response", self.response),
            ("timeouts.stall", self.stall),
            ("timeouts.tunnel", self.tunnel),
            ("timeouts.slow", self.slow),
            ("timeouts.handshake", self.handshake),
            ("timeouts.header", self.header),
            ("timeouts.client_idle", self.client_idle),
        ];
        for (what, wait) in waits {
            require(!wait.is_zero() && wait <= LONGEST, what, "use more than 0 and at most a day")?;
        }
        require(self.server_idle <= LONGEST, "timeouts.server_idle", "use at most a day")?;
        let ticks = Duration::from_millis(1)..=Duration::from_secs(1);
        require(ticks.contains(&self.tick), "timeouts.tick", "use 1 ms to 1 s")
    }
}

/// How much is accepted of clients, asked of servers and held at once. What is beyond is refused, and counted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client connections in all, but never more than half of the file descriptors that the process may have; more
    /// wait in the kernel. Default: 100,000.
    pub connections: usize,
    /// Client connections of one address (of one /64 in IPv6); more are closed at once. Default: 10,000.
    pub connections_per_address: u32,
    /// Requests a second of one client; `None` (the default): any.
    pub rate: Option<RateLimit>,
    /// Requests that a server has at once; what is beyond goes to the next candidate. Default: 10,000.
    pub requests_per_server: u32,
    /// Requests that wait for a place at a server, where all candidates are full. Default: 1,000.
    pub queue_per_server: usize,
    /// Unused connections kept per thread and server. Default: 256.
    pub idle_per_server: usize,
    /// Servers that are tried for one request. Default: 3.
    pub attempts: usize,
    /// Retries, as a share of a thread's requests of the last ten seconds. Default: 20 percent.
    pub retry_percent: u32,
    /// Retries a second besides, per thread. Default: 10.
    pub retries_per_second: u32,
    /// Memory for messages under way, in bytes; new requests are refused while all of it is taken. Default: 1 GiB.
    #[serde(deserialize_with = "size")]
    pub memory: usize,
    /// Size of a request's or response's head, and of what is buffered of a body per direction, in bytes; at least
    /// 8192. Default: 64 KiB.
    #[serde(deserialize_with = "size")]
    pub buffer: usize,
    /// Requests that a client may have under way on one connection of HTTP/2; at least 1. Default: 100.
    pub streams: u32,
    /// Header lines of a request or response; at most 256. Default: 100.
    pub headers: usize,
    /// Length of a request's first line, in bytes; then 414. Default: 16 KiB.
    #[serde(deserialize_with = "size")]
    pub request_line: usize,
    /// Length of a request's target, in bytes; then 414. Default: 8 KiB.
    #[serde(deserialize_with = "size")]
    pub uri: usize,
    /// Length of a request's body, in bytes; then 413. `None` (the default): any, since bodies are not kept.
    #[serde(deserialize_with = "some_size")]
    pub body: Option<u64>,
    /// Whether a message with both a length and a transfer coding is taken by its coding (RFC 9112, section 6.3)
    /// instead of refused. Default: no.
    pub coding_overrules_length: bool,
    /// The least rate at which a client sends a request's body, in bytes a second; 0 asks for nothing. Time in which
    /// the server does not take what came does not count. Default: 500 B/s.
    #[serde(deserialize_with = "rate")]
    pub upload_rate: u64,
    /// The least rate at which a client takes a response, in bytes a second; 0 asks for nothing. Time in which there is
    /// nothing to take does not count. Default: 500 B/s.
    #[serde(deserialize_with = "rate")]
    pub download_rate: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 100_000,
            connections_per_address: 10_000,
            rate: None,
            requests_per_server: 10_000,
            queue_per_server: 1_000,
            idle_per_server: 256,
            attempts: 3,
            retry_percent: 20,
            retries_per_second: 10,
            memory: 1 << 30,
            buffer: 64 * 1024,
            streams: 100,
            headers: 100,
            request_line: 16 * 1024,
            uri: 8 * 1024,
            body: None,
            coding_overrules_length: false,
            upload_rate: 500,
            download_rate: 500,
        }
    }
}

impl Limits {
    /// Whether every limit is one that something can be done within.
    ///
    /// # Errors
    /// [`StartError::Invalid`] with the field and what is possible.
    pub fn check(&self) -> Result<(), StartError> {
        let least = [
            ("limits.connections", self.connections),
            ("limits.connections_per_address", self.connections_per_address as usize),
            ("limits.requests_per_server", self.requests_per_server as usize),
            ("limits.attempts", self.attempts),
            ("limits.streams", self.streams as usize),
            ("limits.request_line", self.request_line),
            ("limits.uri", self.uri),
        ];
        for (what, number) in least {
            require(number > 0, what, "use 1 or more")?;
        }
        require((1..=MOST_FIELDS).contains(&self.headers), "limits.headers", "use 1 to 256")?;
        require(self.retry_percent <= 100, "limits.retry_percent", "use 0 to 100")?;
        require(self.buffer >= SMALLEST_BUFFER, "limits.buffer", "use 8 KiB or more")?;
        let header = self.rate.as_ref().and_then(|rate| rate.header.as_deref());
        let named = header.is_none_or(|name| name.parse::<http::HeaderName>().is_ok());
        require(named, "limits.rate.header", "use the name of a header")?;
        require(self.memory >= MEMORY_PIECE, "limits.memory", "use 256 KiB or more")?;
        require(
            self.memory / 2 >= self.buffer,
            "limits.memory",
            "use twice limits.buffer or more: a request may need two",
        )
    }
}

/// How many requests a client may make.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// So many a second.
    pub per_second: NonZeroU32,
    /// So many at once, if there were few before.
    pub burst: NonZeroU32,
    /// Requests with the same value of this header count together; `None`, and without the header, those of one
    /// address (of one /64 in IPv6).
    pub header: Option<String>,
    /// Of so many clients, those seen last, it is known what they have used up. Default: 100,000.
    #[serde(default = "default_clients")]
    pub clients: NonZeroUsize,
}

fn default_clients() -> NonZeroUsize {
    const { NonZeroUsize::new(100_000).unwrap() }
}

fn require(holds: bool, what: &'static str, hint: &'static str) -> Result<(), StartError> {
    if holds { Ok(()) } else { Err(StartError::Invalid { what, hint }) }
}

/// An amount of memory, written as text such as "64KiB".
fn size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let Bytes(bytes) = quantity(from)?;
    usize::try_from(bytes).map_err(de::Error::custom)
}

/// An amount of data, written as text such as "10MiB".
fn some_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    quantity(from).map(|Bytes(bytes)| Some(bytes))
}

/// A data rate, written as text such as "500B/s".
fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    quantity(from).map(|BytesPerSec(rate)| rate)
}
