//! The tasks that serve connections, and streams of HTTP/2. One that is done waits for the next, whosever it is: to make a
//! task and to let it go costs more than to wake it.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use tokio::task::spawn_local;

/// So many tasks of a thread wait at most for each kind of work, each with 2 to 4 KiB.
const KEPT: usize = 256;

/// What a task does until it is done.
pub(crate) trait Work: 'static {
    /// What a task keeps from one piece of work for the next.
    type Kept: Default;

    async fn run(self, kept: &mut Self::Kept);
}

/// Those of a thread.
pub(crate) struct Tasks<W> {
    /// What has been used last is taken first.
    waiting: RefCell<Vec<Rc<Seat<W>>>>,
}

/// Where a waiting task is told of its next work.
struct Seat<W> {
    work: Cell<Option<W>>,
    task: OnceCell<Waker>,
}

impl<W> Default for Tasks<W> {
    fn default() -> Self {
        Tasks { waiting: RefCell::default() }
    }
}

impl<W: Work> Tasks<W> {
    /// Has work done.
    pub(crate) fn take_on(self: &Rc<Self>, work: W) {
        let waiting = self.waiting.borrow_mut().pop();
        let Some(seat) = waiting else {
            spawn_local(self.clone().go_on(work));
            return;
        };
        seat.work.set(Some(work));
        if let Some(task) = seat.task.get() {
            task.wake_by_ref();
        }
    }

    async fn go_on(self: Rc<Self>, first: W) {
        let seat = Rc::new(Seat { work: Cell::new(Some(first)), task: OnceCell::new() });
        let mut kept = W::Kept::default();
        loop {
            seat.next().await.run(&mut kept).await;
            let mut waiting = self.waiting.borrow_mut();
            if waiting.len() == KEPT {
                return;
            }
            waiting.push(seat.clone());
        }
    }
}

impl<W> Seat<W> {
    /// Waits for work.
    async fn next(&self) -> W {
        poll_fn(|cx| {
            self.task.get_or_init(|| cx.waker().clone());
            self.work.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
