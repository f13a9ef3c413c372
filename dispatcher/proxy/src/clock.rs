//! A worker's coarse clock.

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use vibra_model::Timestamp;

/// A point in time, in milliseconds since the worker started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

impl Tick {
    /// How long after `earlier` this is.
    pub(crate) fn since(self, earlier: Tick) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Time as of the last [`Clock::advance`]: exact enough for time-outs, and free to read.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    now: Cell<Tick>,
    date: Cell<Timestamp>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let clock = Clock { start: Instant::now(), now: Cell::new(Tick(0)), date: Cell::new(Timestamp(0)) };
        clock.advance();
        clock
    }

    /// Reads the system's clocks.
    pub(crate) fn advance(&self) {
        let elapsed = self.start.elapsed().as_millis();
        self.now.set(Tick(u64::try_from(elapsed).unwrap_or(u64::MAX)));
        self.date.set(Timestamp(0).after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
    }

    pub(crate) fn now(&self) -> Tick {
        self.now.get()
    }

    pub(crate) fn date(&self) -> Timestamp {
        self.date.get()
    }
}
