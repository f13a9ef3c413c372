//! An open loop over HTTP/1.1 at rates of tens of thousands of requests a second, on the core that the servers use as well.
//!
//! Requests are due at the times of a [`Schedule`](vibra_trace::Schedule), a Poisson process, and a response time counts
//! from when its request was due. The sending is not `vibra-replay`'s: that one speaks all of HTTP and costs 25 to 30 µs a
//! request, more than the proxy. This one is a thread with an epoll set, asks for a few known URLs, and costs half of that,
//! nearly all of it the kernel's.

use super::{http1, origin};
use anyhow::{Context, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    process::setpriority_process,
    thread::set_current_timer_slack,
};
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroU64,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use vibra_replay::{Spread, Tally};
use vibra_trace::{LoggedBytes, Method, Objects, Origin, Request, Trace};

/// Connections. A request that is due while all are in use waits for one, and the wait is part of its response time. (To
/// open more just then would cost the proxy and this generator most when both have least to spare.)
const CONNECTIONS: usize = 64;
/// A rate is carried if the median response time is below this: where it is not, a queue grows throughout the run. (Higher
/// percentiles would tell of other disturbances, too.)
const CARRIED: Duration = Duration::from_millis(5);
/// Where the load generator itself is later than this, at the 99th percentile, the run says more of it than of a proxy.
pub(super) const LAG_LIMIT: Duration = Duration::from_millis(5);
/// Where a request waits for so long for a connection, the rate is too high.
const MOST_BEHIND: Duration = Duration::from_secs(1);
/// How long answers may take after the last request.
const PATIENCE: Duration = Duration::from_secs(5);
/// At the beginning, and not counted: caches and connections to servers fill.
const WARM_UP: Duration = Duration::from_millis(150);
/// How often answers are looked for. To sleep until there is one would wake this thread once more for each request, which
/// costs the servers on its core more than these moments cost in truth: they are the same for all proxies.
const TICK: Duration = Duration::from_micros(50);
/// What is read at once.
const BUFFER: usize = 256 * 1024;

/// What is asked for, and how fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) target: SocketAddr,
    /// Size of the bodies in bytes.
    pub(super) size: u64,
    /// Requests a second.
    pub(super) rate: f64,
    /// How long requests are sent and counted, besides a warm-up.
    pub(super) length: Duration,
    /// Of the times at which requests are due.
    pub(super) seed: u64,
}

/// The rate is more than the proxy, or this generator beside the servers, can carry.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("does not keep up with {rate:.0} requests a second")]
struct Overload {
    rate: f64,
}

/// What an open loop saw.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// From when a request was due until its answer was complete.
    pub(super) response: Tally,
    /// From when a request was due until this generator looked at it: its own part of the above.
    pub(super) lag: Tally,
}

/// Whether the proxy, and this generator beside the servers, can carry the plan's rate.
///
/// # Errors
/// If a request has no right answer.
pub(super) fn is_carried(plan: &Plan) -> anyhow::Result<bool> {
    match run(plan) {
        Ok(seen) => {
            let is = |of: &Tally, quantile, below| of.quantile(quantile).is_some_and(|time| time < below);
            Ok(is(&seen.response, 0.5, CARRIED) && is(&seen.lag, 0.99, LAG_LIMIT))
        }
        Err(error) if error.is::<Overload>() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends all requests of the plan, and waits for the answers.
///
/// # Errors
/// If a request has no right answer, or the proxy does not keep up.
pub(super) fn run(plan: &Plan) -> anyhow::Result<Seen> {
    // On a thread of its own, which goes before others as long as it lasts: clients do not wait for servers' cores.
    let looping = || {
        // Without the privilege, the lag tells whether it did.
        let _ = setpriority_process(None, -10);
        // Else the kernel lets a wait end up to 50 µs late.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        Loop::new(plan)?.run()
    };
    let thread = std::thread::scope(|scope| scope.spawn(looping).join());
    thread.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// When requests are due: a Poisson process, given how many there are.
fn due_times(plan: &Plan) -> Vec<Duration> {
    let length = WARM_UP + plan.length;
    let mut objects = Objects::new();
    let object = objects.intern("/");
    let bytes = LoggedBytes::NONE;
    let request = Request { at: Duration::ZERO, client: 0, object, bytes, method: Method::Get, status: 0 };
    let count = (plan.rate * length.as_secs_f64()).round() as usize;
    let trace = Trace {
        name: "bench".into(),
        origin: Origin::Synthetic { seed: plan.seed },
        start: None,
        // One step of the clock, over which requests are spread.
        resolution: length,
        objects,
        requests: vec![request; count],
    };
    trace.schedule(1.0, Spread::Poisson { seed: plan.seed }).map(|(_, due)| due).collect()
}

struct Connection {
    stream: TcpStream,
    /// When the request that is under way was due.
    due: Duration,
    /// The beginning of a head that is not whole yet.
    head: Vec<u8>,
    /// Bytes of the body that are still to come, once the head is there.
    body: Option<u64>,
}

struct Loop<'a> {
    plan: &'a Plan,
    epoll: OwnedFd,
    requests: Vec<Vec<u8>>,
    connections: Vec<Connection>,
    /// Connections that nothing is under way on, the one used last on top.
    idle: Vec<usize>,
    /// Requests so far.
    sent: usize,
    buffer: Vec<u8>,
    seen: Seen,
}

impl<'a> Loop<'a> {
    fn new(plan: &'a Plan) -> anyhow::Result<Self> {
        let requests = (0..origin::URLS).map(|number| http1::get(&origin::path(plan.size, number))).collect();
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let (connections, idle) = Default::default();
        let seen = Seen { response: Tally::new(), lag: Tally::new() };
        let mut new = Loop { plan, epoll, requests, connections, idle, sent: 0, buffer: vec![0; BUFFER], seen };
        for _ in 0..CONNECTIONS {
            let connection = new.connect()?;
            new.idle.push(connection);
        }
        Ok(new)
    }

    fn connect(&mut self) -> anyhow::Result<usize> {
        let number = self.connections.len();
        let stream = TcpStream::connect(self.plan.target).context("connecting to the proxy")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(number as u64), EventFlags::IN)?;
        self.connections.push(Connection { stream, due: Duration::ZERO, head: Vec::new(), body: None });
        Ok(number)
    }

    fn run(mut self) -> anyhow::Result<Seen> {
        // What is not due yet, and what is due and waits for a connection.
        let mut coming: VecDeque<Duration> = due_times(self.plan).into();
        let mut waiting = VecDeque::new();
        let last = coming.back().copied().context("a rate of no requests")?;
        let mut events = Vec::with_capacity(CONNECTIONS);
        let start = Instant::now();
        while !coming.is_empty() || !waiting.is_empty() || self.idle.len() < CONNECTIONS {
            let now = start.elapsed();
            while let Some(&due) = coming.front().filter(|due| **due <= now) {
                coming.pop_front();
                waiting.push_back(due);
                if due >= WARM_UP {
                    self.seen.lag.record(now - due);
                }
            }
            while !self.idle.is_empty()
                && let Some(due) = waiting.pop_front()
            {
                self.send(due)?;
            }
            let behind = waiting.front().map_or(Duration::ZERO, |due| now - *due);
            if behind > MOST_BEHIND {
                bail!(Overload { rate: self.plan.rate });
            }
            ensure!(now < last + PATIENCE, "left requests without an answer for {PATIENCE:?}");
            let next = coming.front().map_or(TICK, |due| due.saturating_sub(start.elapsed()));
            std::thread::sleep(next.min(TICK));
            events.clear();
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&at_once))?;
            for event in &events {
                self.receive(usize::try_from(event.data.u64())?, start)?;
            }
        }
        Ok(self.seen)
    }

    fn send(&mut self, due: Duration) -> anyhow::Result<()> {
        let free = self.idle.pop().context("no connection is idle")?;
        let request = &self.requests[self.sent % self.requests.len()];
        self.sent += 1;
        let connection = &mut self.connections[free];
        connection.due = due;
        // It fits into an empty socket buffer.
        connection.stream.write_all(request).context("sending a request")
    }

    /// Reads what has come on a connection; once its answer is complete it is free again.
    fn receive(&mut self, number: usize, start: Instant) -> anyhow::Result<()> {
        let connection = &mut self.connections[number];
        let length = match connection.stream.read(&mut self.buffer) {
            Ok(0) => bail!("closed a connection before its answer was complete"),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("reading an answer"),
        };
        if !connection.take(&self.buffer[..length], self.plan.size)? {
            return Ok(());
        }
        if connection.due >= WARM_UP {
            self.seen.response.record(start.elapsed() - connection.due);
        }
        self.idle.push(number);
        Ok(())
    }
}

impl Connection {
    /// Takes note of bytes that have come; says whether the answer is complete with them.
    fn take(&mut self, bytes: &[u8], size: u64) -> anyhow::Result<bool> {
        let (left, more) = match self.body {
            Some(left) => (left, bytes.len()),
            None => {
                self.head.extend_from_slice(bytes);
                let Some((head, body)) = http1::head(&self.head)? else { return Ok(false) };
                ensure!(body == size, "an answer of {body} bytes instead of {size}");
                (body, self.head.len() - head)
            }
        };
        let left = left.checked_sub(more as u64).context("more bytes than the answer has")?;
        let complete = left == 0;
        self.body = (!complete).then_some(left);
        if complete {
            self.head.clear();
        }
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that gives each request of each connection the answer `answer`, after a pause.
    fn server(answer: &'static [u8], pause: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                std::thread::spawn(move || {
                    while client.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {
                        std::thread::sleep(pause);
                        if client.write_all(answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    fn plan(target: SocketAddr) -> Plan {
        Plan { target, size: 5, rate: 500.0, length: Duration::from_millis(200), seed: 1 }
    }

    #[test]
    fn the_schedule_has_the_rate_over_the_whole_time_and_follows_the_seed() {
        let plan = Plan { rate: 10_000.0, length: Duration::from_secs(1), ..plan(([127, 0, 0, 1], 1).into()) };
        let due = due_times(&plan);
        assert_eq!(due.len(), 11_500);
        assert!(due.is_sorted() && due[11_499] < WARM_UP + plan.length);
        let first_half = due.iter().filter(|due| **due < (WARM_UP + plan.length) / 2).count();
        assert!((5_300..6_200).contains(&first_half), "{first_half}");
        assert_eq!(due, due_times(&plan));
        assert_ne!(due, due_times(&Plan { seed: 2, ..plan }));
    }

    #[test]
    fn all_requests_after_the_warm_up_are_answered_and_counted() {
        let target = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Duration::from_millis(2));
        let plan = plan(target);
        let seen = run(&plan).unwrap();
        let counted = due_times(&plan).iter().filter(|due| **due >= WARM_UP).count() as u64;
        assert_eq!((seen.response.count(), seen.lag.count()), (counted, counted));
        let shortest = seen.response.quantile(0.0).unwrap();
        assert!(shortest >= Duration::from_millis(2), "{shortest:?}");
    }

    #[test]
    fn a_rate_that_is_too_high_is_told_from_an_answer_that_is_wrong() {
        let slow = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Duration::from_millis(300));
        let plan = |rate| Plan { rate, length: Duration::from_millis(1500), ..plan(slow) };
        // 64 connections carry 213 requests a second, none of them in 25 ms.
        assert!(!is_carried(&plan(100.0)).unwrap());
        let error = run(&plan(5_000.0)).unwrap_err();
        assert_eq!(error.to_string(), "does not keep up with 5000 requests a second");
        assert!(!is_carried(&plan(5_000.0)).unwrap());
        assert!(is_carried(&super::tests::plan(server(b"HTTP/1.1 502 No\r\n\r\n", Duration::ZERO))).is_err());
    }

    #[test]
    fn wrong_answers_fail_the_run() {
        for (answer, says) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell"[..], "4 bytes instead of 5"),
            (b"HTTP/1.1 502 Bad\r\nContent-Length: 5\r\n\r\nhello", "status 502"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!", "more bytes"),
        ] {
            let error = run(&plan(server(answer, Duration::ZERO))).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_answer_may_come_in_pieces() {
        let stream = TcpStream::connect(server(b"", Duration::ZERO)).unwrap();
        let mut connection = Connection { stream, due: Duration::ZERO, head: Vec::new(), body: None };
        for _ in 0..2 {
            let pieces: [&[u8]; 4] = [b"HTTP/1.1 200 O", b"K\r\nContent-Length: 5\r\n\r\nhe", b"ll", b"o"];
            let complete = pieces.map(|piece| connection.take(piece, 5).unwrap());
            assert_eq!(complete, [false, false, false, true]);
        }
    }
}
