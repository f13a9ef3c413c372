//! A trace in memory.

use crate::{Objects, Request};
use std::fmt;
use std::time::Duration;
use vibra_model::Timestamp;

/// Where a trace comes from. Whoever shows a result shows this with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Logged by a server.
    Recorded,
    /// Made to agree with what is known of a recording that is not at hand.
    Reconstruction {
        /// Of its random numbers.
        seed: u64,
    },
    /// Drawn from a model.
    Synthetic {
        /// Of its random numbers.
        seed: u64,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Recorded => f.write_str("recorded"),
            Origin::Reconstruction { seed } => write!(f, "reconstruction, seed {seed}"),
            Origin::Synthetic { seed } => write!(f, "synthetic, seed {seed}"),
        }
    }
}

/// Requests in the order of their times, and the objects that they ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What it is called.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The first second, from which [`Request::at`] counts; `None` if the trace has no place in time.
    pub start: Option<Timestamp>,
    /// The step of the clock that the times were taken with: one second for most logs. How requests lie within a step
    /// is not known; whoever replays them says how he spreads them.
    pub resolution: Duration,
    /// What is asked for.
    pub objects: Objects,
    /// The requests; their times never decrease.
    pub requests: Vec<Request>,
}

impl Trace {
    /// From the first second to the end of the clock step of the last request; zero without requests.
    pub fn duration(&self) -> Duration {
        self.requests
            .last()
            .map_or(Duration::ZERO, |last| last.at + self.resolution)
    }
}
