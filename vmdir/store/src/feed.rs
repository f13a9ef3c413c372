//! A bounded history that any number of followers read at their own pace.
//!
//! Followers pull, so that nothing is queued for any of them: the history is the one queue, and who falls further
//! behind than it reaches is told so.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use vibra_model::Revision;

/// Why a history cannot be followed from a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// What came after the revision is forgotten.
    #[error("what came after revision {from} is forgotten, the oldest that is known is {oldest}: take a new snapshot")]
    Compacted {
        /// From where to follow.
        from: Revision,
        /// The oldest revision that can be followed from.
        oldest: Revision,
    },
    /// There is no such revision yet.
    #[error("revision {from} does not exist yet, the newest is {newest}: take a new snapshot")]
    Ahead {
        /// From where to follow.
        from: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// Nothing more will ever come.
    #[error("the history has ended")]
    Ended,
}

/// The newest items, by revision.
#[derive(Debug)]
pub struct Feed<T> {
    log: Arc<Mutex<Log<T>>>,
    newest: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Log<T> {
    items: VecDeque<Item<T>>,
    /// The revision before the oldest item.
    base: Revision,
    weight: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Item<T> {
    revision: Revision,
    weight: usize,
    value: T,
}

impl<T: Clone> Feed<T> {
    /// A history that begins after `revision`. It keeps as many of the newest items as together weigh no more than
    /// `capacity`, but always the newest one; a capacity in bytes, say, goes with weights in bytes.
    pub fn new(revision: Revision, capacity: usize) -> Self {
        let log = Log { items: VecDeque::new(), base: revision, weight: 0, capacity };
        Feed { log: Arc::new(Mutex::new(log)), newest: watch::Sender::new(revision) }
    }

    /// Appends items with their revisions, which must grow, and their weights; then wakes the followers.
    pub fn append(&self, items: impl IntoIterator<Item = (Revision, usize, T)>) {
        let mut log = lock(&self.log);
        for (revision, weight, value) in items {
            log.weight = log.weight.saturating_add(weight);
            log.items.push_back(Item { revision, weight, value });
        }
        while log.weight > log.capacity && log.items.len() > 1 {
            if let Some(oldest) = log.items.pop_front() {
                log.weight -= oldest.weight;
                log.base = oldest.revision;
            }
        }
        let newest = log.newest();
        drop(log);
        self.newest.send_if_modified(|told| std::mem::replace(told, newest) != newest);
    }

    /// The revision of the newest item.
    pub fn newest(&self) -> Revision {
        *self.newest.borrow()
    }

    /// Follows what comes after `from`.
    ///
    /// # Errors
    /// [`Gone`] if what came after `from` is forgotten, or `from` is yet to come.
    pub fn follow(&self, from: Revision) -> Result<Follow<T>, Gone> {
        let woken = self.newest.subscribe();
        let log = lock(&self.log);
        if from < log.base {
            return Err(Gone::Compacted { from, oldest: log.base });
        }
        if from > log.newest() {
            return Err(Gone::Ahead { from, newest: log.newest() });
        }
        Ok(Follow { log: self.log.clone(), woken, last: from })
    }
}

impl<T> Log<T> {
    fn newest(&self) -> Revision {
        self.items.back().map_or(self.base, |item| item.revision)
    }
}

// A holder of the lock that panics leaves the history as it was between two whole steps.
fn lock<T>(log: &Mutex<Log<T>>) -> MutexGuard<'_, Log<T>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One follower of a [`Feed`].
#[derive(Debug)]
pub struct Follow<T> {
    log: Arc<Mutex<Log<T>>>,
    woken: watch::Receiver<Revision>,
    last: Revision,
}

impl<T: Clone> Follow<T> {
    /// The revision of the last item taken, or where the following began.
    pub fn last(&self) -> Revision {
        self.last
    }

    /// The next items, at least one and at most `most`, in order and without a gap. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Gone`] if this follower fell behind the history, or the history has ended and was read to its end.
    pub async fn next(&mut self, most: usize) -> Result<Vec<T>, Gone> {
        loop {
            self.woken.borrow_and_update();
            let ready = self.ready(most)?;
            if !ready.is_empty() {
                return Ok(ready);
            }
            self.woken.changed().await.map_err(|_| Gone::Ended)?;
        }
    }

    fn ready(&mut self, most: usize) -> Result<Vec<T>, Gone> {
        let log = lock(&self.log);
        if self.last < log.base {
            return Err(Gone::Compacted { from: self.last, oldest: log.base });
        }
        let start = log.items.partition_point(|item| item.revision <= self.last);
        let end = log.items.len().min(start.saturating_add(most));
        let ready = log.items.range(start..end).map(|item| item.value.clone()).collect();
        if let Some(item) = end.checked_sub(1).and_then(|at| log.items.get(at)) {
            self.last = self.last.max(item.revision);
        }
        Ok(ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(capacity: usize, upto: u64) -> Feed<u64> {
        let feed = Feed::new(Revision(0), capacity);
        feed.append((1..=upto).map(|n| (Revision(n), 1, n)));
        feed
    }

    #[tokio::test]
    async fn a_follower_gets_everything_after_its_revision_in_order() {
        let feed = feed(100, 5);
        let mut follow = feed.follow(Revision(2)).unwrap();
        assert_eq!(follow.next(2).await, Ok(vec![3, 4]));
        assert_eq!(follow.next(2).await, Ok(vec![5]));
        feed.append([(Revision(6), 1, 6)]);
        assert_eq!(follow.next(2).await, Ok(vec![6]));
        assert_eq!(follow.last(), Revision(6));
    }

    #[tokio::test]
    async fn a_waiting_follower_is_woken() {
        let feed = feed(100, 0);
        let mut follow = feed.follow(Revision(0)).unwrap();
        let waiting = tokio::spawn(async move { follow.next(9).await });
        tokio::task::yield_now().await;
        feed.append([(Revision(1), 1, 1)]);
        assert_eq!(waiting.await.unwrap(), Ok(vec![1]));
    }

    #[tokio::test]
    async fn who_falls_behind_is_told() {
        let feed = feed(3, 3);
        let mut slow = feed.follow(Revision(0)).unwrap();
        feed.append([(Revision(4), 1, 4)]);
        assert_eq!(slow.next(9).await, Err(Gone::Compacted { from: Revision(0), oldest: Revision(1) }));
        assert!(feed.follow(Revision(0)).is_err());
        assert_eq!(feed.follow(Revision(1)).unwrap().next(9).await, Ok(vec![2, 3, 4]));
    }

    #[tokio::test]
    async fn the_newest_item_is_kept_however_heavy_it_is() {
        let feed = feed(3, 3);
        feed.append([(Revision(4), 1000, 4)]);
        assert_eq!(feed.follow(Revision(3)).unwrap().next(9).await, Ok(vec![4]));
        assert!(feed.follow(Revision(2)).is_err());
    }

    #[tokio::test]
    async fn the_future_cannot_be_followed_and_the_end_is_told() {
        let feed = feed(9, 3);
        let ahead = Gone::Ahead { from: Revision(4), newest: Revision(3) };
        assert_eq!(feed.follow(Revision(4)).err(), Some(ahead));
        let mut follow = feed.follow(Revision(2)).unwrap();
        drop(feed);
        assert_eq!(follow.next(9).await, Ok(vec![3]));
        assert_eq!(follow.next(9).await, Err(Gone::Ended));
    }
}
