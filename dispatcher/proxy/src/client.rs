//! One connection of a client.

use crate::clock::Tick;
use crate::config::{Limits, Timeouts};
use crate::service;
use crate::worker::Worker;
use http::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::TcpStream;

/// What a client's connection waits for. Each has a time-out of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next request's first byte.
    Rest,
    /// The rest of a request's head.
    Head,
    /// A server's response.
    Response,
    /// The rest of a response's body, to come or to go.
    Relay,
}

/// What is known of a client's connection by those who work for it: its task, its request and the worker's clock.
pub(crate) struct Client {
    worker: Rc<Worker>,
    /// The client's IP address, as a header's value.
    address: HeaderValue,
    phase: Cell<Phase>,
    /// When the phase began or, where it may take any time as long as something moves, when something last moved.
    since: Cell<Tick>,
    /// Whether bytes could not be handed to the system since some last could.
    blocked: Cell<bool>,
    /// Set by the worker's clock; the task then ends the connection, or the wait for a response.
    overdue: Cell<bool>,
    task: OnceCell<Waker>,
}

impl Client {
    pub(crate) fn new(worker: Rc<Worker>, peer: SocketAddr) -> Self {
        let address = HeaderValue::try_from(peer.ip().to_canonical().to_string());
        let since = Cell::new(worker.clock().now());
        Client {
            worker,
            address: address.expect("an IP address is plain ASCII"),
            phase: Cell::new(Phase::Head),
            since,
            blocked: Cell::new(false),
            overdue: Cell::new(false),
            task: OnceCell::new(),
        }
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// The client's IP address, as a header's value.
    pub(crate) fn address(&self) -> &HeaderValue {
        &self.address
    }

    fn enter(&self, phase: Phase) {
        self.overdue.set(false);
        self.phase.set(phase);
        self.since.set(self.worker.clock().now());
    }

    /// A request goes to a server, for the first time or again.
    pub(crate) fn awaits_response(&self) {
        self.enter(Phase::Response);
    }

    /// A response is under way.
    pub(crate) fn relays(&self) {
        self.enter(Phase::Relay);
    }

    /// The request is done.
    pub(crate) fn rests(&self) {
        self.enter(Phase::Rest);
    }

    /// Whether the wait for a response has been long enough; says so once.
    pub(crate) fn gives_up(&self) -> bool {
        self.phase.get() == Phase::Response && self.overdue.take()
    }

    /// Looks whether the connection has waited too long, and wakes its task if so.
    pub(crate) fn check(&self, timeouts: &Timeouts) {
        let allowed: Duration = match self.phase.get() {
            Phase::Rest => timeouts.client_idle,
            Phase::Head => timeouts.header,
            Phase::Response => timeouts.response,
            Phase::Relay => timeouts.stall,
        };
        if self.worker.clock().now().since(self.since.get()) >= allowed {
            self.overdue.set(true);
            self.wake();
        }
    }

    /// Makes the task look at what has changed.
    pub(crate) fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    fn has_read(&self) {
        match self.phase.get() {
            Phase::Rest => self.enter(Phase::Head),
            Phase::Head => {}
            Phase::Response | Phase::Relay => self.since.set(self.worker.clock().now()),
        }
    }

    fn has_written(&self) {
        self.blocked.set(false);
        if self.phase.get() != Phase::Head {
            self.since.set(self.worker.clock().now());
        }
    }

    /// Whether the rest of a response has not come in time, although the client takes what comes.
    pub(crate) fn is_starved(&self) -> bool {
        self.phase.get() == Phase::Relay && self.overdue.get() && !self.blocked.get()
    }

    /// Whether a response has not wholly gone out.
    fn is_mid_response(&self) -> bool {
        self.blocked.get() || matches!(self.phase.get(), Phase::Response | Phase::Relay)
    }

    /// Serves the connection until it ends.
    pub(crate) async fn serve(self: Rc<Self>, stream: TcpStream) {
        let limits = self.worker.limits();
        let io = ClientIo { stream: TokioIo::new(stream), client: self.clone() };
        let service = service_fn(|request| service::respond(self.clone(), request));
        let mut connection = pin!(builder(limits).serve_connection(io, service));
        let mut leaving = false;
        poll_fn(|cx| {
            self.task.get_or_init(|| cx.waker().clone());
            if self.overdue.get() && self.phase.get() != Phase::Response {
                return Poll::Ready(());
            }
            if self.worker.is_draining() && !leaving {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            // How it ended matters to nobody: what concerns a request was counted there.
            connection.as_mut().poll(cx).map(drop)
        })
        .await;
    }
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The time for heads is kept by `Client::check`, which costs no timer a request.
    // A client that has said all it has to say still gets its answer; one that has gone is found out by writing.
    builder.max_buf_size(limits.buffer).header_read_timeout(None).half_close(true);
    if limits.headers != Limits::default().headers {
        builder.max_headers(limits.headers);
    }
    builder
}

/// The client's socket; it tells the [`Client`] what moves.
struct ClientIo {
    stream: TokioIo<TcpStream>,
    client: Rc<Client>,
}

impl ClientIo {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(_)) => self.client.has_written(),
            Poll::Pending => self.client.blocked.set(true),
            Poll::Ready(Err(_)) => {}
        }
        result
    }
}

impl Read for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if matches!(result, Poll::Ready(Ok(()))) {
            self.client.has_read();
        }
        result
    }
}

impl Write for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ClientIo {
    /// A response that breaks off ends in a reset. A plain close would look like a good end to a client that reads
    /// until the connection closes.
    fn drop(&mut self) {
        if self.client.is_mid_response() {
            let _ = self.stream.inner().set_zero_linger();
        }
    }
}
