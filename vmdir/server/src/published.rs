//! What readers see: the committed directory, and its history for watches.

use crate::records::json;
use bytes::{BufMut, Bytes, BytesMut};
use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};
use vibra_model::{Event, Revision, Snapshot, api::WatchLine};
use vibra_store::Feed;

/// So many commits may wait for the next reader; then they are applied as soon as no reader is at work.
const LAZY: usize = 256;
/// So many may wait while a reader is at work; then the writer waits for him.
const MOST: usize = 65_536;

/// The committed directory.
///
/// To write a large snapshot as JSON takes long. Readers do it on a replica of their own, which takes in what the
/// writer committed in the meantime when they begin: the writer waits for no reader, and does not copy the directory.
#[derive(Debug)]
pub(crate) struct Published {
    replica: Arc<tokio::sync::Mutex<Snapshot>>,
    pending: Mutex<Vec<Event>>,
    /// Each commit as a line of a watch.
    lines: Feed<Bytes>,
}

impl Published {
    /// Begins with `snapshot`, and keeps `history` bytes of lines for watches.
    pub(crate) fn new(snapshot: Snapshot, history: usize) -> Self {
        let lines = Feed::new(snapshot.revision(), history);
        Published { replica: Arc::new(snapshot.into()), pending: Mutex::default(), lines }
    }

    /// The commits as lines of a watch.
    pub(crate) fn lines(&self) -> &Feed<Bytes> {
        &self.lines
    }

    /// The newest committed revision.
    pub(crate) fn revision(&self) -> Revision {
        self.lines.newest()
    }

    /// Makes commits visible to readers and watches.
    pub(crate) async fn publish(&self, events: Vec<Event>) {
        let line = |event: &Event| line(&WatchLine::Event(event.clone()));
        let lines: Vec<_> = events.iter().map(|event| (event.revision, line(event))).collect();
        let waiting = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.extend(events);
            pending.len()
        };
        self.lines.append(lines.into_iter().map(|(revision, line)| (revision, line.len(), line)));
        if waiting > MOST {
            self.catch_up(&mut *self.replica.lock().await);
        } else if waiting > LAZY
            && let Ok(mut replica) = self.replica.try_lock()
        {
            self.catch_up(&mut replica);
        }
    }

    /// The committed directory as JSON.
    pub(crate) async fn snapshot(&self) -> Bytes {
        let mut replica = self.replica.clone().lock_owned().await;
        self.catch_up(&mut replica);
        let written = tokio::task::spawn_blocking(move || json(&*replica));
        written.await.expect("a snapshot can be written")
    }

    fn catch_up(&self, replica: &mut Snapshot) {
        let pending = mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        for event in pending {
            replica.apply(event.revision, &event.changes);
        }
    }
}

/// A line of a watch, with its end.
pub(crate) fn line(line: &WatchLine) -> Bytes {
    let mut text = BytesMut::new().writer();
    serde_json::to_writer(&mut text, line).expect("the model's types are all JSON");
    let mut text = text.into_inner();
    text.put_u8(b'\n');
    text.freeze()
}
