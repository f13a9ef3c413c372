//! From the threads that serve requests to the one that writes about them.

use super::file::{Target, Writer};
use super::{Format, Formatter, Sink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;
use std::{fmt::Display, io, thread};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Batches that may wait to be written. With a [`Sink`]'s 64 KiB a batch they are a few MiB.
const BACKLOG: usize = 64;

/// A log that is being written by a thread of its own.
#[derive(Debug)]
pub struct Log {
    formatter: Formatter,
    batches: SyncSender<Vec<u8>>,
    lost: Arc<Lost>,
    /// Never sent to; ends as the thread does.
    writing: oneshot::Receiver<()>,
}

impl Log {
    /// Opens `target` and writes lines of `format` there.
    ///
    /// # Errors
    /// Where the file cannot be opened, or the system refuses a thread.
    pub fn write(target: Target, format: Format) -> io::Result<Self> {
        let mut writer = Writer::open(target)?;
        Log::start("access-log", Formatter::new(format), move |lines, lost| writer.write(lines, lost))
    }

    /// Hands batches of what `formatter` makes to `consume`, in a thread called `name`.
    pub(super) fn start(
        name: &str,
        formatter: Formatter,
        mut consume: impl FnMut(&[u8], &Lost) + Send + 'static,
    ) -> io::Result<Self> {
        let (batches, arriving) = sync_channel::<Vec<u8>>(BACKLOG);
        let (ends, writing) = oneshot::channel();
        let lost = Arc::new(Lost::default());
        let counted = lost.clone();
        let body = move || {
            let _ends: oneshot::Sender<()> = ends;
            for lines in arriving {
                consume(&lines, &counted);
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Log { formatter, batches, lost, writing })
    }

    /// A sink for one thread.
    pub fn sink(&self) -> Sink {
        Sink::new(self.formatter.clone(), self.batches.clone(), self.lost.clone())
    }

    /// Counts the lines that are dropped.
    pub(crate) fn lost(&self) -> Arc<Lost> {
        self.lost.clone()
    }

    /// Waits until everything is written, for at most `patience`; whether it is. Every [`Sink`] must be gone.
    pub async fn finish(self, patience: Duration) -> bool {
        drop(self.batches);
        timeout(patience, self.writing).await.is_ok()
    }
}

/// The number of lines that were dropped.
#[derive(Debug, Default)]
pub(crate) struct Lost(AtomicU64);

impl Lost {
    /// Counts `lines`; returns how many were lost before.
    pub(super) fn add(&self, lines: &[u8]) -> u64 {
        let count = memchr::memchr_iter(b'\n', lines).count();
        self.0.fetch_add(count as u64, Relaxed)
    }

    /// How many there are.
    pub(crate) fn lines(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Says that a log's target fails, and that it works again: each once, not with every batch.
#[derive(Debug)]
pub(super) struct Report {
    target: String,
    failing: bool,
}

impl Report {
    pub(super) fn new(target: String) -> Self {
        Report { target, failing: false }
    }

    pub(super) fn outcome(&mut self, outcome: Result<(), impl Display>, lost: &Lost) {
        match outcome {
            Err(error) if !self.failing => {
                tracing::error!(%error, "cannot write to {}: what is lost is counted, the next is tried", self.target);
                self.failing = true;
            }
            Ok(()) if self.failing => {
                tracing::info!(lost = lost.lines(), "{} is written to again", self.target);
                self.failing = false;
            }
            _ => {}
        }
    }

    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }
}
