//! The events of the stores of this crate: a bounded [`Feed`].

use crate::{Entry, Feed, Follow, StoreError, StoreEvent, Watch, rules::Events};
use async_trait::async_trait;
use std::sync::Arc;
use vibra_model::Revision;

/// How much a store remembers for watches, in bytes of keys and values.
const HISTORY: usize = 64 << 20;

/// The history of a store that begins at `revision`.
pub(crate) fn history(revision: Revision) -> Feed<Arc<StoreEvent>> {
    Feed::new(revision, HISTORY)
}

/// Tells the watches of `events`.
pub(crate) fn tell(feed: &Feed<Arc<StoreEvent>>, events: Events) {
    feed.append(events.into_iter().map(|event| (event.revision, weight(&event), event)));
}

/// What an event holds in memory, about, in bytes.
fn weight(event: &StoreEvent) -> usize {
    let value = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.value.len());
    event.changes.iter().map(|(key, entry)| size_of::<Entry>() + key.len() + value(entry)).sum()
}

#[async_trait]
impl Watch for Follow<Arc<StoreEvent>> {
    async fn next(&mut self) -> Result<Arc<StoreEvent>, StoreError> {
        // Named in full: the follower's own `next` takes how many.
        let events = Follow::next(self, 1).await?;
        Ok(events.into_iter().next().expect("a follower returns at least one"))
    }
}
