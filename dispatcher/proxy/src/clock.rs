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

    /// The whole seconds since the worker started.
    pub(crate) fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Time as of the last [`Clock::advance`]: exact enough for time-outs, and free to read.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// When it was last advanced.
    read: Cell<Instant>,
    now: Cell<Tick>,
    date: Cell<Timestamp>,
    http_date: Cell<HttpDate>,
}

/// A date as heads have it, such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
pub(crate) type HttpDate = [u8; 29];

impl Clock {
    pub(crate) fn start() -> Self {
        let start = Instant::now();
        let clock = Clock {
            start,
            read: Cell::new(start),
            now: Cell::new(Tick(0)),
            date: Cell::new(Timestamp(0)),
            http_date: Cell::new(http_date(UNIX_EPOCH)),
        };
        clock.advance();
        clock
    }

    /// Reads the system's clocks.
    pub(crate) fn advance(&self) {
        let read = Instant::now();
        self.read.set(read);
        let elapsed = read.duration_since(self.start).as_millis();
        self.now.set(Tick(u64::try_from(elapsed).unwrap_or(u64::MAX)));
        let now = SystemTime::now();
        self.date.set(Timestamp(0).after(now.duration_since(UNIX_EPOCH).unwrap_or_default()));
        self.http_date.set(http_date(now));
    }

    pub(crate) fn now(&self) -> Tick {
        self.now.get()
    }

    pub(crate) fn date(&self) -> Timestamp {
        self.date.get()
    }

    /// What the date was at `time`, not long ago. Unlike [`date`](Self::date) this is exact, and still costs no system
    /// call.
    pub(crate) fn date_of(&self, time: Instant) -> Timestamp {
        let (read, date) = (self.read.get(), self.date.get());
        match time.checked_duration_since(read) {
            Some(later) => date.after(later),
            None => {
                let earlier = read.duration_since(time).as_micros();
                Timestamp(date.0.saturating_sub(u64::try_from(earlier).unwrap_or(u64::MAX)))
            }
        }
    }

    pub(crate) fn http_date(&self) -> HttpDate {
        self.http_date.get()
    }
}

fn http_date(time: SystemTime) -> HttpDate {
    let text = httpdate::fmt_http_date(time);
    text.as_bytes().try_into().expect("dates before the year 10000 have 29 characters")
}
