//! Round-robin and its weighted form.

use crate::{candidates::Candidates, circle::Circle};

/// Whose turn it is: the state of round-robin, and the order of ties under least-connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    /// The server at which the next search begins.
    next: usize,
}

impl Turn {
    /// The serving servers, from the one whose turn it is.
    pub(crate) fn order<'a>(&self, circle: &'a Circle, count: usize) -> &'a [u32] {
        circle.from(self.next, count)
    }

    /// `chosen` had its turn.
    pub(crate) fn taken(&mut self, chosen: usize, circle: &Circle) {
        self.next = (chosen + 1) % circle.servers();
    }

    /// The servers have moved to new places.
    pub(crate) fn carry(&mut self, moved: &[Option<usize>]) {
        self.next = moved.get(self.next).copied().flatten().unwrap_or(0);
    }
}

/// Round-robin's candidates: the servers in turn.
pub(crate) fn round_robin(turn: &Turn, circle: &Circle, count: usize) -> Candidates {
    turn.order(circle, count).iter().map(|&server| server as usize).collect()
}
