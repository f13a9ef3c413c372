//! One connection to a server.
//!
//! A link has no task of its own: who uses it drives it, so a request crosses no task boundary on its way to the
//! server and back. While it is unused nobody drives it; what happened to it meanwhile shows when it is next looked at.

use crate::clock::Tick;
use crate::conn::{Conn, HeadError, Wire};
use crate::http1::{Bad, ResponseHead};
use crate::io::Io;
use crate::metrics::Failure;
use crate::proxy_protocol::{self, Ends};
use crate::server::Server;
use crate::tls::Connector;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::{io, time::Duration};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Why a link could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error("its name has no address yet")]
    Unresolved,
}

impl ConnectError {
    /// What it counts as.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            ConnectError::Tls(_) => Failure::Tls,
            ConnectError::Io(_) | ConnectError::TimedOut(_) | ConnectError::Unresolved => Failure::Connect,
        }
    }
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoResponse {
    /// The connection ended without a whole head.
    Closed,
    /// What came is not HTTP.
    Garbage,
}

/// A new connection to `server`, for a client's connection between those `ends` or for nobody else. The server is told
/// which, if it wants to know. TLS begins after that, where it is spoken.
pub(crate) async fn open(server: &Server, ends: Option<&Ends>, connector: &Connector) -> Result<Io, ConnectError> {
    let address = server.address.ok_or(ConnectError::Unresolved)?;
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    if let Some(version) = server.send_proxy {
        let mut header = Vec::new();
        match ends {
            Some(ends) => proxy_protocol::write(version, ends, &mut header),
            None => {
                let own = Ends { source: stream.local_addr()?, destination: address };
                proxy_protocol::write_own(version, &own, &mut header);
            }
        }
        stream.write_all(&header).await?;
    }
    if !server.endpoint.has_tls() {
        return Ok(Io::Plain(stream));
    }
    // Its state is large and short-lived: it shall not make every request's task as large.
    let connecting = Box::pin(connector.connect(stream, server.endpoint.host()));
    let stream = connecting.await.map_err(ConnectError::Tls)?;
    Ok(Io::Tls(Box::new(stream)))
}

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: Conn,
    /// When it was last put aside; `None` if never.
    pub(crate) unused_since: Option<Tick>,
    /// Whether the server keeps it open after the response.
    kept_alive: bool,
}

impl Link {
    /// Connects to `server` for a client's connection between those `ends`, within `wait`.
    pub(crate) async fn connect(
        server: &Server,
        ends: &Ends,
        connector: &Connector,
        wait: Duration,
        wire: Rc<Wire>,
    ) -> Result<Box<Self>, ConnectError> {
        let io = match tokio::time::timeout(wait, open(server, Some(ends), connector)).await {
            Ok(io) => io?,
            Err(_) => return Err(ConnectError::TimedOut(wait)),
        };
        Ok(Box::new(Link { conn: Conn::new(io, wire), unused_since: None, kept_alive: true }))
    }

    /// Whether it has been used before, so that the server may be just closing it.
    pub(crate) fn is_reused(&self) -> bool {
        self.unused_since.is_some()
    }

    /// Whether it can take a request: the last exchange is over in both directions, and the server has neither closed
    /// it nor said anything unasked, as far as the system has told.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.kept_alive && self.conn.is_at_rest()
    }

    /// Whether it can take a request and has not been unused for longer than the server may be expected to bear.
    pub(crate) fn is_fresh(&mut self, now: Tick, idle: Duration) -> bool {
        self.unused_since.is_some_and(|since| now.since(since) < idle) && self.is_ready()
    }

    /// Waits for a response's head, interim ones included. Its body is then expected.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        to_head: bool,
        moved: impl FnMut(),
    ) -> Poll<Result<ResponseHead, NoResponse>> {
        let read = ready!(self.conn.poll_head(cx, moved, |bytes, rules| ResponseHead::read(bytes, to_head, rules)));
        let head: Result<ResponseHead, Bad> = read.map_err(|error| match error {
            HeadError::Ended | HeadError::Broken => NoResponse::Closed,
            HeadError::Malformed | HeadError::TooLong => NoResponse::Garbage,
        })?;
        let head = head.map_err(|_| NoResponse::Garbage)?;
        self.kept_alive = head.keep_alive;
        self.conn.expect(head.length);
        Poll::Ready(Ok(head))
    }
}
