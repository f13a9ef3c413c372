//! What is counted of one request at one server.

use crate::client::Client;
use crate::link::Link;
use crate::metrics::Failure;
use crate::pool::Pool;
use http::StatusCode;
use std::{rc::Rc, time::Duration};

/// One request at one server, from the pick until it is complete: until the response's body is with the
/// client, or was given up by either side. However it ends, dropping this takes it out of the server's active requests,
/// unless the server was released before, when the body had wholly come.
pub(crate) struct Account {
    pool: Rc<Pool>,
    client: Rc<Client>,
    /// Whether the request is one of the server's active ones.
    active: bool,
    /// Whether it is known how the request ended.
    ended: bool,
}

impl Account {
    /// Counts a request that is going to be tried at the server of `pool`, and has entered there.
    pub(crate) fn open(pool: Rc<Pool>, client: Rc<Client>) -> Self {
        pool.tally.picks.add(1);
        Account { pool, client, active: true, ended: false }
    }

    /// The pool that the request's connection comes from.
    pub(crate) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// An unused connection to the server that may carry the request, if there is one.
    pub(crate) fn take(&self) -> Option<Link> {
        if self.pool.is_private() { self.client.take_own(&self.pool) } else { self.pool.take() }
    }

    /// The head of the response is here.
    pub(crate) fn responded(&mut self, status: StatusCode) {
        self.pool.server.succeeded();
        self.pool.tally.responded(status);
        self.client.relays();
    }

    /// The server did its part, but another was asked for.
    pub(crate) fn dismissed(&mut self) {
        self.ended = true;
        self.pool.server.succeeded();
    }

    /// The server did not do its part.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.ended = true;
        self.pool.tally.failed(failure);
        if failure.is_the_servers() {
            self.client.worker().failed(&self.pool.server);
        }
    }

    /// The body has ended as it should; how long that took from the request's first byte.
    pub(crate) fn complete(&mut self, within: Duration) {
        self.ended = true;
        self.pool.tally.latency.record(within);
        self.client.rests();
    }

    /// The server has done all it had to do; its connection is free for the next request.
    pub(crate) fn release(&mut self, link: Link) {
        self.leave();
        let worker = self.client.worker();
        let now = worker.clock().now();
        if self.pool.is_private() {
            self.client.put_own(&self.pool, link, now);
        } else {
            self.pool.put(link, now, worker.config().limits.idle_per_server);
        }
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.active) {
            self.pool.server.gate.leave();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.leave();
        if !self.ended {
            self.failed(Failure::Client);
        }
    }
}
