//! What happens next.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};
use vibra_model::Timestamp;

/// Events in the order of their times; those of one time in the order in which they were scheduled.
///
/// ```
/// use vibra_model::Timestamp;
///
/// let mut queue = vibra_sim::Queue::default();
/// queue.schedule(Timestamp(20), "late");
/// queue.schedule(Timestamp(10), "early");
/// assert_eq!(queue.next(), Some("early"));
/// assert_eq!(queue.now(), Timestamp(10));
/// ```
#[derive(Debug, Clone)]
pub struct Queue<E> {
    now: Timestamp,
    scheduled: u64,
    events: BinaryHeap<Reverse<Scheduled<E>>>,
}

#[derive(Debug, Clone)]
struct Scheduled<E> {
    at: Timestamp,
    number: u64,
    event: E,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue { now: Timestamp::ZERO, scheduled: 0, events: BinaryHeap::new() }
    }
}

impl<E> Queue<E> {
    /// The time of the event that came last.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Has `event` happen at `at`; one of the past happens now.
    pub fn schedule(&mut self, at: Timestamp, event: E) {
        let scheduled = Scheduled { at: at.max(self.now), number: self.scheduled, event };
        self.scheduled += 1;
        self.events.push(Reverse(scheduled));
    }

    /// The time of the event that comes next.
    pub fn next_time(&self) -> Option<Timestamp> {
        self.events.peek().map(|Reverse(next)| next.at)
    }

    /// Takes the next event, and sets the clock to its time.
    #[expect(clippy::should_implement_trait, reason = "events are scheduled between two of them: no iterator")]
    pub fn next(&mut self) -> Option<E> {
        let Reverse(next) = self.events.pop()?;
        self.now = next.at;
        Some(next.event)
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Scheduled<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_order_of_scheduling() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b')] {
            queue.schedule(Timestamp(at), event);
        }
        assert_eq!(queue.next_time(), Some(Timestamp(3)));
        assert_eq!([queue.next(), queue.next(), queue.next()], [Some('a'), Some('b'), Some('c')]);
        queue.schedule(Timestamp(1), 'e');
        assert_eq!([queue.next(), queue.next()], [Some('d'), Some('e')], "what is late happens now");
        assert_eq!((queue.next(), queue.now()), (None, Timestamp(5)));
    }
}
