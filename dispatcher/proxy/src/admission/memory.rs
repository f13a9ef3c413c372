//! How much memory messages under way take.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A thread takes memory from the budget in pieces of this size, in bytes, so that requests seldom touch what the
/// threads share.
pub(crate) const PIECE: usize = 256 * 1024;

/// What all threads together may hold for messages under way.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `most` bytes.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Budget { most, used: AtomicUsize::new(0) })
    }

    /// Bytes that are taken, counting what threads keep at hand.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn try_take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|&used| used <= self.most);
        self.used.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Relaxed);
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// One thread's share of the [`Budget`].
#[derive(Debug)]
pub(crate) struct Purse {
    budget: Arc<Budget>,
    /// Bytes that were taken from the budget and are not held by anybody.
    spare: Cell<usize>,
}

impl Purse {
    pub(crate) fn new(budget: Arc<Budget>) -> Rc<Self> {
        Rc::new(Purse { budget, spare: Cell::new(0) })
    }

    /// Whether there is memory for something new that may come to hold so many bytes.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.spare.get());
        if missing == 0 {
            return true;
        }
        let piece = missing.next_multiple_of(PIECE);
        let taken = self.budget.try_take(piece);
        if taken {
            self.spare.update(|spare| spare + piece);
        }
        taken
    }

    /// Memory that something holds, from none on.
    pub(crate) fn hold(self: &Rc<Self>) -> Held {
        Held { purse: self.clone(), bytes: 0 }
    }

    fn give(&self, bytes: usize) {
        let spare = self.spare.get() + bytes;
        let kept = spare.min(PIECE);
        self.spare.set(kept);
        if spare > kept {
            self.budget.give(spare - kept);
        }
    }
}

impl Drop for Purse {
    fn drop(&mut self) {
        self.budget.give(self.spare.get());
    }
}

/// Memory that something under way holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    purse: Rc<Purse>,
    bytes: usize,
}

impl Held {
    /// Holds `bytes` from now on. What is under way goes on even where the budget is spent: it has a bound of its own,
    /// and to break it off would throw away what it has cost already.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.purse.give(self.bytes - bytes);
        } else if bytes > self.bytes {
            let more = bytes - self.bytes;
            if !self.purse.has_room(more) {
                let missing = more.saturating_sub(self.purse.spare.get());
                self.purse.budget.take(missing);
                self.purse.spare.update(|spare| spare + missing);
            }
            self.purse.spare.update(|spare| spare - more);
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.purse.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(purse: &Rc<Purse>, bytes: usize) -> Held {
        let mut held = purse.hold();
        held.resize(bytes);
        held
    }

    #[test]
    fn there_is_no_room_beyond_the_budget_until_some_is_given_back() {
        let budget = Budget::new(2 * PIECE);
        let (mine, theirs) = (Purse::new(budget.clone()), Purse::new(budget.clone()));
        let held = hold(&mine, PIECE + 1);
        assert_eq!(budget.used(), 2 * PIECE);
        assert!(!theirs.has_room(1));
        assert!(mine.has_room(PIECE - 1) && !mine.has_room(PIECE));
        drop(held);
        // A thread keeps a piece at hand for its own next request.
        assert_eq!(budget.used(), PIECE);
        assert!(theirs.has_room(PIECE));
        drop((mine, theirs));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn small_amounts_come_from_one_piece() {
        let budget = Budget::new(10 * PIECE);
        let purse = Purse::new(budget.clone());
        let held: Vec<_> = (0..16).map(|_| hold(&purse, 1000)).collect();
        assert_eq!(budget.used(), PIECE);
        drop(held);
        assert_eq!(budget.used(), PIECE);
    }

    #[test]
    fn what_is_under_way_goes_on_beyond_the_budget() {
        let budget = Budget::new(PIECE);
        let purse = Purse::new(budget.clone());
        let mut held = hold(&purse, PIECE);
        held.resize(3 * PIECE);
        assert_eq!(budget.used(), 3 * PIECE);
        assert!(!purse.has_room(1));
        held.resize(100);
        assert_eq!(budget.used(), PIECE + 100);
        drop(held);
        drop(purse);
        assert_eq!(budget.used(), 0);
    }
}
