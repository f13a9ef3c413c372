//! A dispatcher: the real tables and picks, by the view that it has.

use super::Nanos;
use std::{collections::VecDeque, sync::Arc};
use vibra_model::Timestamp;
use vibra_routing::{Candidates, PickState, Table};

/// One of several dispatchers. Each hears of changes with a delay of its own and counts the requests that it sent itself,
/// as the real ones do.
#[derive(Debug, Clone)]
pub(super) struct Dispatcher {
    table: Arc<Table>,
    state: PickState,
    /// Its active requests, by server.
    active: Vec<u32>,
    /// Tables on the way, with when they arrive.
    coming: VecDeque<(Nanos, Arc<Table>)>,
}

impl Dispatcher {
    pub(super) fn new(table: Arc<Table>) -> Self {
        let active = vec![0; table.cluster().servers.len()];
        Dispatcher { table, state: PickState::default(), active, coming: VecDeque::new() }
    }

    /// It will hear of `table` then.
    pub(super) fn send(&mut self, table: Arc<Table>, at: Nanos) {
        self.coming.push_back((at, table));
    }

    /// The servers that may get a request, the best first.
    #[inline]
    pub(super) fn pick(&mut self, name: &str, now: Nanos) -> Candidates {
        while let Some(&(at, _)) = self.coming.front()
            && at <= now
        {
            self.table = self.coming.pop_front().map_or_else(|| self.table.clone(), |(_, table)| table);
        }
        self.table.pick(&mut self.state, name, &self.active, Timestamp(now / 1000))
    }

    #[inline]
    pub(super) fn sent(&mut self, server: usize) {
        self.active[server] += 1;
    }

    #[inline]
    pub(super) fn over(&mut self, server: usize) {
        self.active[server] -= 1;
    }
}
