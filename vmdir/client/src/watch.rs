//! A watch: the directory's commits as they happen.

use crate::ClientError;
use async_trait::async_trait;
use std::fmt;
use vibra_model::{Event, Revision};

/// Where a [`Watch`] gets its commits from.
#[async_trait]
pub trait EventSource: Send {
    /// The next commit. Dropping the future before it is done loses nothing.
    ///
    /// # Errors
    /// [`ClientError::Resync`] after which nothing more comes; others where the source is gone.
    async fn next(&mut self) -> Result<Event, ClientError>;
}

/// The directory's commits after a revision: in order, without gaps, each once.
///
/// A commit that does not follow the one before is never handed out: it ends the watch with [`ClientError::Resync`].
pub struct Watch {
    source: Box<dyn EventSource>,
    last: Revision,
}

impl Watch {
    /// A watch of what comes after `from`.
    pub fn new(from: Revision, source: impl EventSource + 'static) -> Self {
        Watch { source: Box::new(source), last: from }
    }

    /// The next commit; waits for it. Dropping the future before it is done loses nothing.
    ///
    /// # Errors
    /// [`ClientError::Resync`] where commits were lost: take a new snapshot. [`ClientError::Silent`] where the
    /// directory shows no sign of life, [`ClientError::Unreachable`] where the connection broke. After an error,
    /// start a new watch.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        let event = self.source.next().await?;
        if event.revision != self.last.next() {
            return Err(ClientError::Resync);
        }
        self.last = event.revision;
        Ok(event)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("last", &self.last).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(Vec<u64>);

    #[async_trait]
    impl EventSource for Script {
        async fn next(&mut self) -> Result<Event, ClientError> {
            Ok(Event { revision: Revision(self.0.remove(0)), changes: Vec::new() })
        }
    }

    #[tokio::test]
    async fn a_gap_or_a_repetition_is_a_lost_commit() {
        for (revisions, good) in [(vec![4, 5, 7], 2), (vec![4, 4], 1), (vec![3], 0)] {
            let mut watch = Watch::new(Revision(3), Script(revisions.clone()));
            for _ in 0..good {
                watch.next().await.unwrap();
            }
            assert!(matches!(watch.next().await, Err(ClientError::Resync)), "{revisions:?}");
        }
    }
}
