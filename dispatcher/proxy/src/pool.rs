//! A worker's unused connections to one server.

use crate::clock::Tick;
use crate::limits::Limits;
use crate::link::Link;
use crate::metrics::Tally;
use crate::server::Server;
use std::{cell::RefCell, collections::VecDeque, sync::Arc, time::Duration};

/// A worker's view of one server: its unused connections, and what this worker counts of it.
pub(crate) struct Pool {
    pub(crate) server: Arc<Server>,
    pub(crate) tally: Arc<Tally>,
    /// In order of last use. The newest is taken first: it is the least likely to be just closing, and the others
    /// grow old and go.
    unused: RefCell<VecDeque<Box<Link>>>,
    room: usize,
}

impl Pool {
    pub(crate) fn new(server: Arc<Server>, limits: &Limits) -> Self {
        let tally = server.new_tally();
        Pool { server, tally, unused: RefCell::default(), room: limits.idle_per_server }
    }

    /// Of the connections that can take a request the one that was used last, if any.
    pub(crate) fn take(&self) -> Option<Box<Link>> {
        let mut unused = self.unused.borrow_mut();
        while let Some(mut link) = unused.pop_back() {
            if link.is_ready() {
                return Some(link);
            }
        }
        None
    }

    /// Puts a connection aside, if it can take another request and there is room.
    pub(crate) fn put(&self, mut link: Box<Link>, now: Tick) {
        let mut unused = self.unused.borrow_mut();
        if link.is_ready() && unused.len() < self.room {
            link.unused_since = Some(now);
            unused.push_back(link);
        }
    }

    /// Closes what is unused for longer than `idle`, and what the server closed.
    pub(crate) fn sweep(&self, now: Tick, idle: Duration) {
        self.unused.borrow_mut().retain_mut(|link| link.is_fresh(now, idle));
    }
}
