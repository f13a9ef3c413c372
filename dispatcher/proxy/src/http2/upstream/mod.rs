//! HTTP/2 to servers: one task drives a connection, and the tasks of requests their streams, each of which is a
//! [`Link`](crate::link::Link) as a connection of HTTP/1 is.
//!
//! A request's head is written by the one writer of heads and its lines taken over; a response's is written down as
//! HTTP/1.1 has it and read by the one strict reader ([`head`]).

mod head;
mod stream;

pub(crate) use stream::Stream;

use super::MOST_WINDOW;
use super::body::Parcel;
use crate::clock::Tick;
use crate::conn::Wire;
use crate::io::Io;
use crate::link::ConnectError;
use h2::client::{Builder, SendRequest};
use http::uri::Scheme;
use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// A connection carries no more requests at a time, whatever the server would take: what is lost on the way holds all of
/// them up.
const STREAMS: usize = 100;
/// How long a connection that is not used any more may take to say so.
const GOODBYE: Duration = Duration::from_secs(1);

/// One connection to a server. Each of its streams has a share in it, and the pool has another.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Parcel>,
    /// That of URLs that are asked for here. What the client's is, `X-Forwarded-Proto` or `Forwarded` tell.
    scheme: Scheme,
    wire: Rc<Wire>,
    /// Of each body that comes, in bytes.
    window: u32,
    /// Whether there was a request since it was last looked at.
    used: Cell<bool>,
    /// When it was last seen in use, or first seen at all.
    since: Cell<Option<Tick>>,
    /// Whether the server kept a request waiting for too long.
    distrusted: Cell<bool>,
    /// Dropped last; the task then ends.
    _in_use: oneshot::Sender<Infallible>,
}

impl Connection {
    /// Agrees with the server on what a connection is like; each body may fill a window of so many bytes.
    ///
    /// # Errors
    /// [`ConnectError::Http2`].
    pub(crate) async fn open(io: Io, window: usize, wire: Rc<Wire>) -> Result<Rc<Self>, ConnectError> {
        let window = u32::try_from(window).unwrap_or(u32::MAX).min(MOST_WINDOW);
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(window)
            // Room for all: no client who is slow to take a response shall hold up the others' (RFC 9113, 5.2.2).
            .initial_connection_window_size(window.saturating_mul(STREAMS as u32).min(MOST_WINDOW))
            .max_header_list_size(window)
            .max_send_buffer_size(window as usize)
            // None before the server has said how many it takes.
            .initial_max_send_streams(0);
        let scheme = if io.scheme() == "https" { Scheme::HTTPS } else { Scheme::HTTP };
        let (sender, connection) = builder.handshake(io).await.map_err(ConnectError::Http2)?;
        let mut connection = Box::pin(connection);
        let settled = poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => Poll::Ready(Err(h2::Reason::NO_ERROR.into())),
            Poll::Pending if connection.max_concurrent_send_streams() == 0 => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        });
        settled.await.map_err(ConnectError::Http2)?;
        let (in_use, unused) = oneshot::channel();
        spawn_local(drive(connection, unused));
        let (used, since, distrusted) = Default::default();
        Ok(Rc::new(Connection { sender, scheme, wire, window, used, since, distrusted, _in_use: in_use }))
    }

    /// Whether the server takes new streams, as far as it has told.
    fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.distrusted.get() && matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// How many requests are under way on it, where the pool has a share.
    fn streams(self: &Rc<Self>) -> usize {
        Rc::strong_count(self) - 1
    }

    /// Whether there is a place for one more request.
    pub(crate) fn has_room(self: &Rc<Self>) -> bool {
        self.streams() < self.sender.current_max_send_streams().min(STREAMS) && self.is_open()
    }

    /// Whether it is kept: it has not been unused for longer than `idle`, and takes new streams. Else those that it has
    /// are its last.
    pub(crate) fn is_kept(self: &Rc<Self>, now: Tick, idle: Duration) -> bool {
        if self.used.take() || self.streams() > 0 || self.since.get().is_none() {
            self.since.set(Some(now));
        }
        self.is_open() && self.since.get().is_some_and(|since| now.since(since) < idle)
    }
}

/// Moves a connection on until it ends: by itself, or once it is `unused`.
async fn drive(mut connection: Pin<Box<h2::client::Connection<Io, Parcel>>>, unused: oneshot::Receiver<Infallible>) {
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // It now ends by itself, unless the server takes nothing any more.
        _ = unused => timeout(GOODBYE, connection).await.unwrap_or(Ok(())),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP/2 connection to a server ended");
    }
}
