//! How many requests a server has at once, and who waits.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// The way to a server, for all threads: so many requests at once, so many that wait, first come first served. While
/// nobody waits it costs one atomic change to enter and one to leave. How many enter can change at any time.
///
/// Who waits stands in a queue behind a lock. Who leaves looks whether anybody waits only after he has made his place
/// free, and who comes to wait says so before he looks whether a place is free. Both in one order that all threads
/// agree on (`SeqCst`), so one of them sees the other, and nobody waits beside a free place.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The most that it ever lets in.
    own: u32,
    /// The most that it lets in now.
    most: AtomicU32,
    room: usize,
    active: AtomicU32,
    /// The length of `queue`.
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<oneshot::Sender<()>>>,
}

/// How much a gate lets in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// So many requests may be active,
    pub(crate) most: u32,
    /// and so many more wait.
    pub(crate) room: usize,
}

/// What became of one who may wait.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    /// There was a place after all.
    Entered,
    /// It has to wait.
    Waits(Waiting<'a>),
    /// Too many wait already.
    Full,
}

impl Gate {
    pub(crate) fn new(Size { most, room }: Size) -> Self {
        Gate {
            own: most,
            most: AtomicU32::new(most),
            room,
            active: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
        }
    }

    /// Lets in no more than `most` from now on, nor more than its own limit. Who is inside stays there.
    pub(crate) fn limit(&self, most: Option<NonZeroU32>) {
        let most = most.map_or(self.own, |most| self.own.min(most.get()));
        // Like who leaves: first there is a place, then it is looked for somebody who waits.
        if self.most.swap(most, SeqCst) < most && self.waiting.load(SeqCst) > 0 {
            self.call();
        }
    }

    /// How many it lets in at once now.
    pub(crate) fn most(&self) -> u32 {
        self.most.load(Relaxed)
    }

    /// Requests that have entered and not left.
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Enters, unless all places are taken or somebody waits, whose turn it would be.
    pub(crate) fn try_enter(&self) -> bool {
        self.waiting.load(Relaxed) == 0 && self.take_place()
    }

    /// Enters, or queues up.
    pub(crate) fn enter(&self) -> Entry<'_> {
        let mut queue = self.queue();
        // Says that somebody waits before looking for a place.
        self.waiting.store(queue.len() + 1, SeqCst);
        if queue.is_empty() && self.take_place() {
            self.waiting.store(0, SeqCst);
            return Entry::Entered;
        }
        if queue.len() >= self.room {
            queue.retain(|waiting| !waiting.is_closed());
        }
        let entry = if queue.len() < self.room {
            let (call, called) = oneshot::channel();
            queue.push_back(call);
            Entry::Waits(Waiting { gate: self, called })
        } else {
            Entry::Full
        };
        self.waiting.store(queue.len(), SeqCst);
        entry
    }

    /// Leaves, and lets in who waits.
    pub(crate) fn leave(&self) {
        self.active.fetch_sub(1, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.call();
        }
    }

    /// Gives free places to those who wait, in their order.
    fn call(&self) {
        let mut queue = self.queue();
        while queue.front().is_some_and(oneshot::Sender::is_closed) {
            queue.pop_front();
        }
        while !queue.is_empty() && self.take_place() {
            let called = std::iter::from_fn(|| queue.pop_front()).any(|next| next.send(()).is_ok());
            if !called {
                self.active.fetch_sub(1, SeqCst);
            }
        }
        self.waiting.store(queue.len(), SeqCst);
    }

    fn take_place(&self) -> bool {
        let most = self.most.load(SeqCst);
        let one_more = |active| (active < most).then_some(active + 1);
        self.active.fetch_update(SeqCst, SeqCst, one_more).is_ok()
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<()>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits. Ready once it has entered; who drops it before gives up its turn.
#[derive(Debug)]
#[must_use = "who does not await its turn gives it up"]
pub(crate) struct Waiting<'a> {
    gate: &'a Gate,
    called: oneshot::Receiver<()>,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The gate outlives this borrow of it, and drops no caller that it has not called.
        Pin::new(&mut self.called).poll(cx).map(|called| called.expect("a gate calls everybody"))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.called.is_terminated() {
            return;
        }
        self.called.close();
        if self.called.try_recv().is_ok() {
            // Called, but not there any more.
            self.gate.leave();
        } else {
            self.gate.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::task::{Wake, Waker};
    use std::{sync::Arc, thread};

    #[derive(Default)]
    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    fn wait(gate: &Gate) -> Waiting<'_> {
        match gate.enter() {
            Entry::Waits(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    fn has_entered(waiting: &mut Waiting<'_>) -> bool {
        Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn so_many_enter_and_the_next_waits_to_be_called() {
        let gate = Gate::new(Size { most: 2, room: 8 });
        assert!(gate.try_enter());
        assert!(matches!(gate.enter(), Entry::Entered));
        assert!(!gate.try_enter());
        let mut waiting = wait(&gate);
        let bell = Arc::new(Bell::default());
        assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(&bell.clone().into())).is_pending());
        assert_eq!((gate.active(), gate.waiting()), (2, 1));
        gate.leave();
        assert!(bell.0.load(SeqCst));
        assert!(has_entered(&mut waiting));
        drop(waiting);
        assert_eq!((gate.active(), gate.waiting()), (2, 0));
    }

    #[test]
    fn those_who_wait_are_called_in_their_order_and_nobody_overtakes_them() {
        let gate = Gate::new(Size { most: 1, room: 8 });
        assert!(gate.try_enter());
        let mut waiting: Vec<_> = (0..3).map(|_| wait(&gate)).collect();
        for _ in 0..3 {
            gate.leave();
            assert!(!gate.try_enter());
            let entered: Vec<_> = waiting.iter_mut().map(has_entered).collect();
            assert_eq!(entered.iter().filter(|&&entered| entered).count(), 1);
            assert!(entered[0]);
            drop(waiting.remove(0));
        }
        gate.leave();
        assert_eq!((gate.active(), gate.waiting()), (0, 0));
        assert!(gate.try_enter());
    }

    #[test]
    fn a_lower_limit_puts_nobody_out_and_a_higher_one_lets_in_who_waits() {
        let gate = Gate::new(Size { most: 3, room: 8 });
        assert!((0..3).all(|_| gate.try_enter()));
        gate.limit(NonZeroU32::new(1));
        assert_eq!((gate.most(), gate.active()), (1, 3));
        let mut waiting: Vec<_> = (0..3).map(|_| wait(&gate)).collect();
        gate.leave();
        gate.leave();
        assert!(!has_entered(&mut waiting[0]), "one is inside");
        gate.leave();
        assert!(has_entered(&mut waiting[0]));
        assert!(!has_entered(&mut waiting[1]));
        gate.limit(NonZeroU32::new(9));
        assert_eq!(gate.most(), 3, "its own limit holds");
        assert!(has_entered(&mut waiting[1]) && has_entered(&mut waiting[2]));
        gate.limit(NonZeroU32::new(2));
        gate.limit(None);
        assert_eq!((gate.most(), gate.active(), gate.waiting()), (3, 3, 0));
    }

    #[test]
    fn the_queue_has_an_end() {
        let gate = Gate::new(Size { most: 1, room: 2 });
        assert!(gate.try_enter());
        let first = wait(&gate);
        let _second = wait(&gate);
        assert!(matches!(gate.enter(), Entry::Full));
        drop(first);
        let _third = wait(&gate);
        assert!(matches!(gate.enter(), Entry::Full));
        let none = Gate::new(Size { most: 1, room: 0 });
        assert!(none.try_enter());
        assert!(matches!(none.enter(), Entry::Full));
        none.leave();
        assert!(none.try_enter());
    }

    #[test]
    fn who_goes_away_leaves_no_hole() {
        let gate = Gate::new(Size { most: 1, room: 2 });
        assert!(gate.try_enter());
        let (gone, mut stays) = (wait(&gate), wait(&gate));
        drop(gone);
        assert_eq!(gate.waiting(), 1);
        gate.leave();
        assert!(has_entered(&mut stays));
    }

    #[test]
    fn who_goes_away_from_the_middle_makes_room() {
        let gate = Gate::new(Size { most: 1, room: 2 });
        assert!(gate.try_enter());
        let (mut first, second) = (wait(&gate), wait(&gate));
        drop(second);
        let mut third = wait(&gate);
        gate.leave();
        assert!(has_entered(&mut first));
        gate.leave();
        assert!(has_entered(&mut third));
    }

    #[test]
    fn who_is_called_and_goes_away_unheard_passes_the_place_on() {
        let gate = Gate::new(Size { most: 1, room: 8 });
        assert!(gate.try_enter());
        let (called, mut next) = (wait(&gate), wait(&gate));
        gate.leave();
        assert_eq!(gate.active(), 1);
        drop(called);
        assert!(has_entered(&mut next));
        drop(next);
        gate.leave();
        assert_eq!((gate.active(), gate.waiting()), (0, 0));
    }

    /// Threads that enter, wait, give up and leave as they like never see more inside than may be, and the last place
    /// is free in the end.
    #[test]
    fn threads_agree_on_who_is_inside() {
        let gate = Gate::new(Size { most: 3, room: 4 });
        let inside = AtomicU32::new(0);
        let work = |seed: u32| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let visit = || {
                assert!(inside.fetch_add(1, SeqCst) < 3);
                thread::yield_now();
                inside.fetch_sub(1, SeqCst);
                gate.leave();
            };
            for n in 0..2000 {
                match gate.enter() {
                    Entry::Entered => visit(),
                    // Waits for its turn, unless it is one who gives up.
                    Entry::Waits(waiting) if !(n + seed).is_multiple_of(5) => {
                        runtime.block_on(waiting);
                        visit();
                    }
                    Entry::Waits(_) | Entry::Full => {}
                }
            }
        };
        thread::scope(|scope| {
            for seed in 0..6 {
                scope.spawn(move || work(seed));
            }
            scope.spawn(|| (0..2000).for_each(|n| gate.limit(NonZeroU32::new(1 + n % 3))));
        });
        assert_eq!((gate.active(), gate.waiting()), (0, 0));
    }
}
