//! A worker's connections to one server.

use crate::clock::Tick;
use crate::config::Protocol;
use crate::http2::upstream::{Connection, Stream};
use crate::link::{self, ConnectError, Http1, Link};
use crate::metrics::Tally;
use crate::proxy_protocol::Ends;
use crate::server::Server;
use crate::worker::Worker;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use std::{collections::VecDeque, rc::Rc, sync::Arc};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// A worker's view of one server: its connections, and what this worker counts of it.
pub(crate) struct Pool {
    pub(crate) server: Arc<Server>,
    pub(crate) tally: Arc<Tally>,
    /// Unused connections that speak HTTP/1.1, in order of last use. The newest is taken first: it is the least likely
    /// to be just closing, and the others grow old and go.
    unused: RefCell<VecDeque<Box<Http1>>>,
    /// Those that speak HTTP/2, used or not, in the order in which they were made. The first that has a place is taken,
    /// so that those at the end grow old and go.
    shared: RefCell<Vec<Rc<Connection>>>,
    /// Held by who makes one of these; others wait for a place on that.
    making: Mutex<()>,
    /// Whether the server did not agree to HTTP/2 when it was last asked.
    declined: Cell<bool>,
}

impl Pool {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        let tally = server.new_tally();
        let (unused, shared, making, declined) = Default::default();
        Pool { server, tally, unused, shared, making, declined }
    }

    /// Whether the server is told whose connection it is: then nobody else's request may go there.
    pub(crate) fn is_private(&self) -> bool {
        self.server.manner.send_proxy.is_some()
    }

    /// Of the connections that can take a request the one that was used last, or a place on one that takes several; if
    /// there is any.
    pub(crate) fn take(&self) -> Option<Link> {
        let mut unused = self.unused.borrow_mut();
        while let Some(mut link) = unused.pop_back() {
            if link.is_ready() {
                return Some(Link::Http1(link));
            }
        }
        self.place()
    }

    /// A place on a connection that takes several requests.
    fn place(&self) -> Option<Link> {
        let shared = self.shared.borrow();
        let connection = shared.iter().find(|connection| connection.has_room())?;
        Some(Link::Http2(Box::new(Stream::of(connection.clone(), true))))
    }

    /// Connects to the server for a client's connection between those `ends`; unless the connection must be `new`, a
    /// place on one that somebody else has made meanwhile will do.
    ///
    /// # Errors
    /// Why there is none, at the latest after `timeouts.connect`.
    pub(crate) async fn connect(&self, worker: &Worker, ends: &Ends, new: bool) -> Result<Link, ConnectError> {
        let wait = worker.config().timeouts.connect;
        let several = self.server.manner.protocol == Protocol::Http2 && !self.declined.get();
        let connected = timeout(wait, async {
            if several && !new && !self.is_private() {
                self.share(worker, ends).await
            } else {
                self.make(worker, ends).await
            }
        });
        connected.await.unwrap_or(Err(ConnectError::TimedOut(wait)))
    }

    /// A place on a connection for several requests. Where there is none, one connection is made at a time: who waits
    /// for that has a place on it, as long as there are any.
    async fn share(&self, worker: &Worker, ends: &Ends) -> Result<Link, ConnectError> {
        let turn = self.making.lock().await;
        if let Some(link) = self.place() {
            return Ok(link);
        }
        if self.declined.get() {
            drop(turn);
        }
        self.make(worker, ends).await
    }

    async fn make(&self, worker: &Worker, ends: &Ends) -> Result<Link, ConnectError> {
        let (began, wire) = (Instant::now(), worker.wire());
        let (io, protocol) = link::open(&self.server, Some(ends), worker.connector()).await?;
        self.declined.set(protocol == Protocol::Http1);
        let link = match protocol {
            Protocol::Http1 => Link::Http1(Box::new(Http1::new(io, wire))),
            Protocol::Http2 => {
                let connection = Connection::open(io, worker.config().limits.buffer, wire).await?;
                if !self.is_private() {
                    self.shared.borrow_mut().push(connection.clone());
                }
                Link::Http2(Box::new(Stream::of(connection, false)))
            }
        };
        self.tally.connects.add(1);
        self.tally.connect.record(began.elapsed());
        Ok(link)
    }

    /// Puts a connection aside, if it can take another request and there is room: for `room` at most. One that takes
    /// several requests is here already.
    pub(crate) fn put(&self, link: Link, now: Tick, room: usize) {
        let Link::Http1(mut link) = link else { return };
        let mut unused = self.unused.borrow_mut();
        if link.is_ready() && unused.len() < room {
            link.unused_since = Some(now);
            unused.push_back(link);
        }
    }

    /// Closes what is unused for longer than `idle`, and what the server closed.
    pub(crate) fn sweep(&self, now: Tick, idle: Duration) {
        self.unused.borrow_mut().retain_mut(|link| link.is_fresh(now, idle));
        self.shared.borrow_mut().retain(|connection| connection.is_kept(now, idle));
    }
}
