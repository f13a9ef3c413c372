//! How far a replay is.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How far a replay is, its warm-up included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Time since the beginning.
    pub elapsed: Duration,
    /// How many requests there are to send. A replay that stops earlier or skips requests ends below it.
    pub planned: u64,
    /// Requests that have begun.
    pub started: u64,
    /// Requests that are over, rightly or wrongly.
    pub finished: u64,
    /// Those of them that went wrong.
    pub failed: u64,
    /// Bytes of bodies of those that went right.
    pub bytes: u64,
}

/// What the generator threads count for the thread that shows progress.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    started: AtomicU64,
    finished: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn start(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    /// Counts a request that is over: the bytes of its right answer, or `None`.
    pub(crate) fn finish(&self, bytes: Option<u64>) {
        self.finished.fetch_add(1, Relaxed);
        match bytes {
            Some(bytes) => self.bytes.fetch_add(bytes, Relaxed),
            None => self.failed.fetch_add(1, Relaxed),
        };
    }

    pub(crate) fn read(&self, elapsed: Duration, planned: u64) -> Progress {
        Progress {
            elapsed,
            planned,
            started: self.started.load(Relaxed),
            finished: self.finished.load(Relaxed),
            failed: self.failed.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}
