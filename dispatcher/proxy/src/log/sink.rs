//! A log as a thread that serves requests sees it.

use super::pipe::Lost;
use super::{Formatter, Record};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

/// So many bytes of lines are handed to the writer at a time.
const BATCH: usize = 64 * 1024;
/// Room for the line that makes a batch full.
const SPARE: usize = 4 * 1024;

/// Collects the lines of one thread. It never waits: where the writer cannot keep up, lines are dropped and counted.
#[derive(Debug)]
pub struct Sink {
    formatter: Formatter,
    lines: Vec<u8>,
    writer: SyncSender<Vec<u8>>,
    lost: Arc<Lost>,
}

impl Sink {
    pub(super) fn new(formatter: Formatter, writer: SyncSender<Vec<u8>>, lost: Arc<Lost>) -> Self {
        Sink { formatter, lines: Vec::new(), writer, lost }
    }

    /// Logs a request.
    pub fn log(&mut self, record: &Record<'_>) {
        if self.lines.capacity() == 0 {
            self.lines.reserve(BATCH + SPARE);
        }
        self.formatter.append(record, &mut self.lines);
        if self.lines.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands on what there is. To be called every second or so, so that no line is held back for longer.
    pub fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        match self.writer.try_send(std::mem::take(&mut self.lines)) {
            Ok(()) => {}
            Err(TrySendError::Full(mut lines) | TrySendError::Disconnected(mut lines)) => {
                if self.lost.add(&lines) == 0 {
                    tracing::warn!("a log's target is too slow: lines are dropped, and counted as lost");
                }
                lines.clear();
                self.lines = lines;
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Format;
    use std::sync::mpsc::sync_channel;
    use vibra_model::Timestamp;

    #[test]
    fn a_stuck_target_makes_nobody_wait() {
        // Nobody receives: as if the writer hung in the system.
        let (batches, arriving) = sync_channel(1);
        let lost = Arc::new(Lost::default());
        let record = Record::new("192.0.2.7", Timestamp(0));
        let mut sink = Sink::new(Formatter::new(Format::Combined), batches, lost.clone());
        for _ in 0..2 {
            sink.log(&record);
            sink.flush();
        }
        assert_eq!(lost.lines(), 1);
        drop(arriving);
        sink.log(&record);
        drop(sink);
        assert_eq!(lost.lines(), 2);
    }
}
