//! The tasks that serve streams. One that is done waits for the next stream, of whatever connection: to make a task and
//! to let it go costs more than to wake it.

use super::stream::{self, Accepted};
use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use tokio::task::spawn_local;

/// So many tasks of a thread wait at most, each with some 4 KiB.
const KEPT: usize = 256;

/// Those of a thread.
#[derive(Default)]
pub(crate) struct Tasks {
    /// What has been used last is taken first.
    waiting: RefCell<Vec<Rc<Seat>>>,
}

/// Where a waiting task is told of its next stream.
#[derive(Default)]
struct Seat {
    stream: Cell<Option<Accepted>>,
    task: OnceCell<Waker>,
}

impl Tasks {
    /// Has a stream served.
    pub(super) fn serve(self: &Rc<Self>, stream: Accepted) {
        let waiting = self.waiting.borrow_mut().pop();
        let Some(seat) = waiting else {
            spawn_local(self.clone().work(stream));
            return;
        };
        seat.stream.set(Some(stream));
        if let Some(task) = seat.task.get() {
            task.wake_by_ref();
        }
    }

    async fn work(self: Rc<Self>, first: Accepted) {
        let (seat, mut space) = (Rc::default(), Vec::new());
        let mut next = Some(first);
        while let Some(stream) = next {
            stream::serve(stream, &mut space).await;
            next = self.next(&seat).await;
        }
    }

    /// Waits for another stream; `None` where enough others wait.
    async fn next(&self, seat: &Rc<Seat>) -> Option<Accepted> {
        if self.waiting.borrow().len() == KEPT {
            return None;
        }
        self.waiting.borrow_mut().push(seat.clone());
        poll_fn(|cx| {
            seat.task.get_or_init(|| cx.waker().clone());
            seat.stream.take().map_or(Poll::Pending, |stream| Poll::Ready(Some(stream)))
        })
        .await
    }
}
