//! How much a client talks without asking for anything.
//!
//! Frames that carry no request cost the dispatcher time: settings and pings must be answered, resets undo work, windows
//! opened by a byte make frames of a byte. A client may send such frames in measure with what he is sent; who goes on
//! beyond that is told to calm down.

use crate::clock::Tick;
use crate::worker::Worker;
use std::cell::Cell;
use std::rc::Rc;

/// So many frames may come at once.
const MOST: u64 = 1000;
/// So many are allowed again each second.
const A_SECOND: u64 = 50;
/// So many for each whole response: its windows, its priority, and a reset that came too late.
const A_RESPONSE: u64 = 8;
/// One for so many bytes sent, which open windows again.
const BYTES: u64 = 256;

/// What a client has left to say.
pub(super) struct Balance {
    worker: Rc<Worker>,
    left: Cell<u64>,
    /// Up to when seconds were counted.
    counted: Cell<Tick>,
    spent: Cell<bool>,
}

impl Balance {
    pub(super) fn new(worker: Rc<Worker>) -> Self {
        let counted = Cell::new(worker.clock().now());
        Balance { worker, left: Cell::new(MOST), counted, spent: Cell::new(false) }
    }

    /// A frame came that carries nothing.
    pub(super) fn talks(&self) {
        if self.left.get() == 0 {
            self.count_time();
        }
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => self.spent.set(true),
        }
    }

    /// A response has ended as it should.
    pub(super) fn responded(&self) {
        self.earn(A_RESPONSE);
    }

    /// So many bytes of a body were sent.
    pub(super) fn sent(&self, bytes: usize) {
        self.earn(bytes as u64 / BYTES);
    }

    /// Whether the client has said too much.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.get()
    }

    fn earn(&self, frames: u64) {
        self.left.set((self.left.get() + frames).min(MOST));
    }

    fn count_time(&self) {
        let now = self.worker.clock().now();
        let millis = now.since(self.counted.replace(now)).as_millis();
        self.earn(u64::try_from(millis).unwrap_or(u64::MAX).min(MOST * 1000) * A_SECOND / 1000);
    }
}
