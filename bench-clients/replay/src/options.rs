//! What to replay against, and how.

use crate::{ReplayError, Spread};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "kebab-case")]
pub enum Mode {
    /// At the trace's times, whatever becomes of earlier requests: as many clients as it takes.
    Open {
        /// How much faster than recorded; 2 halves the time.
        speed: f64,
        /// How requests lie within a step of the trace's clock.
        #[serde(flatten)]
        spread: Spread,
    },
    /// In the trace's order, a fixed number of clients that each wait for their answer before they send again. The
    /// trace's times are not used.
    Closed {
        /// How many clients.
        concurrency: usize,
    },
}

/// Whether the lengths of bodies are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lengths {
    /// An answer without the body that the trace says is an error. For servers that serve the trace's objects.
    AsTraced,
    /// Any length will do. For servers that have something else under the trace's URLs.
    Any,
}

/// What to replay against, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The server's address.
    pub target: SocketAddr,
    /// The `Host` that requests name; by default the address.
    pub host: String,
    /// When requests are sent.
    pub mode: Mode,
    /// How long at the beginning requests are sent, but not counted. 0 by default.
    pub warm_up: Duration,
    /// After how long, with the warm-up, no more requests are sent. By default the whole trace is replayed.
    pub stop_after: Option<Duration>,
    /// How long after it was due a request is given up. 30 s by default.
    pub timeout: Duration,
    /// How many connections may be open at once, over all threads. A request that would need one more is not sent,
    /// and the run is void. 4,096 by default.
    pub connections: usize,
    /// Generator threads, each with its own connections. One by default, which is good for tens of thousands of small
    /// requests a second.
    pub threads: usize,
    /// Whether the lengths of bodies are checked. They are by default.
    pub lengths: Lengths,
    /// The run is void if the 99th percentile of how late requests were sent exceeds this. 5 ms by default.
    pub lag_limit: Duration,
}

/// Slowest and fastest replay, as a factor of the recorded speed. A trace of a day takes 27 years or 86 ms.
const SPEEDS: std::ops::RangeInclusive<f64> = 1e-4..=1e6;

/// Most threads.
const MAX_THREADS: usize = 256;

/// Most connections: the ports that a client's address has for one server.
const MAX_CONNECTIONS: usize = 65_535;

impl Options {
    /// Defaults for all but the server and the mode.
    pub fn new(target: SocketAddr, mode: Mode) -> Options {
        Options {
            target,
            host: target.to_string(),
            mode,
            warm_up: Duration::ZERO,
            stop_after: None,
            timeout: Duration::from_secs(30),
            connections: 4096,
            threads: 1,
            lengths: Lengths::AsTraced,
            lag_limit: Duration::from_millis(5),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ReplayError> {
        within("number of threads", self.threads, 1, MAX_THREADS)?;
        within("connection limit", self.connections, self.threads, MAX_CONNECTIONS)?;
        match self.mode {
            Mode::Open { speed, .. } if !SPEEDS.contains(&speed) => {
                Err(refuse("speed", speed, format!("from {:e} to {:e}", SPEEDS.start(), SPEEDS.end())))
            }
            Mode::Open { .. } => Ok(()),
            Mode::Closed { concurrency } => within("concurrency", concurrency, self.threads, self.connections),
        }?;
        if self.timeout.is_zero() || self.timeout > Duration::from_secs(86_400) {
            return Err(refuse("time-out", format!("{:?}", self.timeout), "more than 0 and at most a day".into()));
        }
        match self.stop_after {
            Some(stop) if stop <= self.warm_up => {
                let allowed = format!("longer than the warm-up of {:?}", self.warm_up);
                Err(refuse("duration", format!("{stop:?}"), allowed))
            }
            _ => Ok(()),
        }
    }

    /// This thread's part of `whole`, so that the parts of all threads add up to it.
    pub(crate) fn share(&self, whole: usize, thread: usize) -> usize {
        whole / self.threads + usize::from(thread < whole % self.threads)
    }
}

fn within(option: &'static str, value: usize, least: usize, most: usize) -> Result<(), ReplayError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(refuse(option, value, format!("from {least} to {most}")))
}

fn refuse(option: &'static str, value: impl ToString, allowed: String) -> ReplayError {
    ReplayError::Option { option, value: value.to_string(), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(concurrency: usize) -> Options {
        Options::new(([127, 0, 0, 1], 80).into(), Mode::Closed { concurrency })
    }

    #[test]
    fn options_out_of_range_are_refused_with_the_range() {
        for (options, expected) in [
            (closed(0), "the replay's concurrency is 0; it must be from 1 to 4096"),
            (Options { threads: 0, ..closed(1) }, "the replay's number of threads is 0; it must be from 1 to 256"),
            (Options { connections: 1, threads: 2, ..closed(1) }, "connection limit is 1; it must be from 2 to 65535"),
            (Options { timeout: Duration::ZERO, ..closed(1) }, "time-out is 0ns; it must be more than 0"),
            (
                Options { warm_up: Duration::from_secs(5), stop_after: Some(Duration::from_secs(5)), ..closed(1) },
                "duration is 5s; it must be longer than the warm-up of 5s",
            ),
            (
                Options { mode: Mode::Open { speed: f64::NAN, spread: Spread::Burst }, ..closed(1) },
                "speed is NaN; it must be from 1e-4 to 1e6",
            ),
        ] {
            let refusal = options.check().expect_err(expected).to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
        closed(1).check().expect("the defaults are fine");
    }

    #[test]
    fn shares_add_up() {
        let options = Options { threads: 3, ..closed(3) };
        let shares = [0, 1, 2].map(|thread| options.share(8, thread));
        assert_eq!(shares, [3, 3, 2]);
    }
}
