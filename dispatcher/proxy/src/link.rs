//! One connection to a server.
//!
//! A link has no task of its own: who uses it drives it, so a request crosses no task boundary on its way to the
//! server and back. While it is unused nobody drives it; what happened to it meanwhile shows when it is next driven.

use crate::body::RequestBody;
use crate::clock::Tick;
use crate::config::Limits;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, task::unconstrained};

/// Why a link could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect")]
    Io(#[from] io::Error),
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error("no HTTP on the connection")]
    Http(#[from] hyper::Error),
}

/// Why an exchange got no response head.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The connection was gone before anything was sent: here is the request back.
    Unsent(Box<Request<RequestBody>>),
    /// The connection ended without a whole response head.
    Closed,
    /// What came is not HTTP.
    Garbage,
    /// The client's request body ended early: no fault of the server.
    Client,
    /// Nothing came in time.
    TimedOut,
}

/// One connection to a server.
pub(crate) struct Link {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once it is closed.
    connection: Option<http1::Connection<TokioIo<TcpStream>, RequestBody>>,
    /// When it was last put aside; `None` if never.
    pub(crate) unused_since: Option<Tick>,
}

impl Link {
    /// Connects to `address`.
    pub(crate) async fn connect(
        address: SocketAddr,
        wait: Duration,
        limits: &Limits,
    ) -> Result<Box<Self>, ConnectError> {
        let stream = match tokio::time::timeout(wait, TcpStream::connect(address)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(ConnectError::TimedOut(wait)),
        };
        stream.set_nodelay(true)?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(limits.buffer);
        if limits.headers != Limits::default().headers {
            builder.max_headers(limits.headers);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Box::new(Link { sender, connection: Some(connection), unused_since: None }))
    }

    /// Whether it has been used before, so that the server may be just closing it.
    pub(crate) fn is_reused(&self) -> bool {
        self.unused_since.is_some()
    }

    /// Whether it can take a request: the last exchange is over in both directions.
    pub(crate) fn is_ready(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Moves bytes in both directions as far as it goes without waiting; ready when the connection is over.
    /// Its errors reach the exchange that it carries.
    pub(crate) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        let over = Pin::new(connection).poll(cx);
        if over.is_ready() {
            self.connection = None;
        }
        over.map(drop)
    }

    /// Whether an unused link is still open, as far as the system has told.
    pub(crate) fn is_open(&mut self) -> bool {
        self.poll_drive(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends a request and waits for the response's head. `overdue` is asked, whenever this task is woken, whether
    /// to go on waiting.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        overdue: impl Fn() -> bool,
    ) -> Result<Response<Incoming>, ExchangeError> {
        // The response can only become ready while the link is driven, which is always done just before it is asked
        // for: so it needs no waker, and no budget that would have to wake.
        let mut response = pin!(unconstrained(self.sender.try_send_request(request)));
        let connection = &mut self.connection;
        poll_fn(|cx| {
            if connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready()) {
                *connection = None;
            }
            match response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => Poll::Ready(result.map_err(classify)),
                Poll::Pending if connection.is_none() => Poll::Ready(Err(ExchangeError::Closed)),
                Poll::Pending if overdue() => Poll::Ready(Err(ExchangeError::TimedOut)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

fn classify(mut error: TrySendError<Request<RequestBody>>) -> ExchangeError {
    if let Some(request) = error.take_message() {
        return ExchangeError::Unsent(Box::new(request));
    }
    let error = error.into_error();
    if error.is_parse() {
        ExchangeError::Garbage
    } else if error.is_user() {
        ExchangeError::Client
    } else {
        ExchangeError::Closed
    }
}
