//! HTTP/2 with clients (RFC 9113): one task drives a connection, one each of its streams, and a stream is a front as a
//! connection of HTTP/1 is.
//!
//! Frames, field compression and flow control are h2's. What a request may look like is decided by the one reader of
//! heads ([`crate::http1`]), and what a client may cost by the limits below, by h2's own, and by [`balance`].

mod balance;
mod body;
mod frames;
mod head;
mod line;
mod stream;
pub(crate) mod upstream;

use crate::client::Client;
use crate::conn::Conn;
use crate::front;
use balance::Balance;
use body::Parcel;
use h2::Reason;
use h2::server::{Builder, SendResponse};
use line::Line;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
pub(crate) use stream::Accepted;

/// The largest window there is (RFC 9113, section 6.9.1).
const MOST_WINDOW: u32 = (1 << 31) - 1;
/// How many bodies of requests a client may fill the connection's window with.
const BODIES: u32 = 16;
/// So many streams that h2 has reset for the client's faults end the connection.
const MOST_FAULTS: usize = 1024;
/// So many streams that were reset a moment ago are remembered, to tell late frames from faults.
const RESETS_KEPT: usize = 64;

/// Serves a connection until it ends. `begun` is what was taken of it before.
pub(crate) async fn serve(client: &Rc<Client>, conn: &mut Conn, begun: &'static [u8]) {
    match talk(client, conn, begun).await {
        End::Closed => front::close(conn, client).await,
        End::Stuck => conn.reset(),
    }
}

async fn talk(client: &Rc<Client>, conn: &mut Conn, begun: &'static [u8]) -> End {
    let worker = client.worker();
    worker.tally().http2.add(1);
    // Much goes both ways.
    if let Some(socket) = conn.io().plain_mut()
        && socket.watched().is_err()
    {
        return End::Closed;
    }
    let config = worker.config();
    let limits = &config.limits;
    let balance = Rc::new(Balance::new(worker.clone()));
    let line = Line::new(conn, begun, balance.clone(), client);
    let window = u32::try_from(limits.buffer).unwrap_or(u32::MAX);
    let mut handshake = Builder::new()
        .max_concurrent_streams(limits.streams)
        .initial_window_size(window.min(MOST_WINDOW))
        .initial_connection_window_size(window.saturating_mul(limits.streams.min(BODIES)).min(MOST_WINDOW))
        .max_header_list_size(window)
        .max_send_buffer_size(window as usize)
        .max_pending_accept_reset_streams(limits.streams as usize)
        .max_local_error_reset_streams(Some(MOST_FAULTS))
        .max_concurrent_reset_streams(RESETS_KEPT)
        .handshake(line.clone());
    let shaken = poll_fn(|cx| {
        line.turns();
        match std::pin::Pin::new(&mut handshake).poll(cx) {
            Poll::Ready(shaken) => Poll::Ready(shaken.ok()),
            Poll::Pending if client.is_overdue() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let Some(h2) = shaken.await else { return End::Closed };
    let mut connection = Connection { h2, client, line, balance, course: Course::Open };
    poll_fn(|cx| connection.poll(cx)).await
}

/// A connection whose streams are served.
struct Connection<'a> {
    h2: h2::server::Connection<Line<'a>, Parcel>,
    client: &'a Rc<Client>,
    line: Line<'a>,
    balance: Rc<Balance>,
    course: Course,
}

/// Where a connection is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It takes requests.
    Open,
    /// The requests that it has, and those that are on their way, are the last.
    Draining,
    /// It ends as soon as the client has been told.
    Ending,
}

/// How a connection ended.
enum End {
    /// With all said.
    Closed,
    /// With something to say that the client does not take.
    Stuck,
}

impl Connection<'_> {
    /// Moves everything on that is not a stream's own affair.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.line.turns();
        if self.course == Course::Open && self.client.worker().is_draining() {
            self.course = Course::Draining;
            self.h2.graceful_shutdown();
        }
        if self.client.is_overdue() {
            if self.course == Course::Ending || self.line.is_blocked() {
                return Poll::Ready(End::Stuck);
            }
            self.end(Reason::NO_ERROR);
        }
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        self.client.worker().tally().floods.add(1);
                    }
                    tracing::debug!(client = self.client.peer().address, %error, "HTTP/2 connection ended");
                    return Poll::Ready(End::Closed);
                }
                Poll::Ready(None) => return Poll::Ready(End::Closed),
                Poll::Pending if self.balance.is_spent() && self.course != Course::Ending => {
                    self.client.worker().tally().floods.add(1);
                    self.end(Reason::ENHANCE_YOUR_CALM);
                }
                Poll::Pending => break,
            }
        }
        if self.course != Course::Ending {
            self.client.shares(self.line.is_blocked());
        }
        Poll::Pending
    }

    /// Tells the client that the connection ends now, and why (RFC 9113, section 6.8).
    fn end(&mut self, reason: Reason) {
        self.course = Course::Ending;
        self.client.lingers();
        self.h2.abrupt_shutdown(reason);
    }

    /// Serves a stream in a task of its own.
    fn accept(&self, request: http::Request<h2::RecvStream>, respond: SendResponse<Parcel>) {
        let (open, balance, scheme) = (self.client.open_stream(), self.balance.clone(), self.line.scheme());
        self.client.worker().stream_tasks().take_on(Accepted { request, respond, open, balance, scheme });
    }
}
