//! One connection to a server, or a stream of one, for a request at a time.
//!
//! A link has no task of its own: who uses it drives it, so a request by HTTP/1 crosses no task boundary on its way to
//! the server and back. While it is unused nobody drives it; what happened to it meanwhile shows when it is next looked
//! at.

use crate::body::{BodyError, Piece, Sink, Source};
use crate::clock::Tick;
use crate::config::Protocol;
use crate::conn::{Conn, HeadError, Wire};
use crate::http1::head::Fields;
use crate::http1::rewrite::{self, Onward};
use crate::http1::{Bad, Length, RequestHead, ResponseHead};
use crate::http2::upstream;
use crate::io::Io;
use crate::metrics::Failure;
use crate::proxy_protocol::{self, Ends};
use crate::server::Server;
use crate::socket::Socket;
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
    #[error("no HTTP/2: {0}")]
    Http2(h2::Error),
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
            ConnectError::Io(_) | ConnectError::Http2(_) | ConnectError::TimedOut(_) | ConnectError::Unresolved => {
                Failure::Connect
            }
        }
    }
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoResponse {
    /// The connection, or the stream, ended without a whole head.
    Closed,
    /// The same, and the server has said that it did not act on the request (RFC 9113, section 8.7).
    Refused,
    /// What came is not HTTP.
    Garbage,
}

/// The request cannot be said in the server's version of HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsayable;

/// A new connection to `server`, for a client's connection between those `ends` or for nobody else, and what is spoken
/// on it. The server is told for whom it is, if it wants to know. TLS begins after that, where it is spoken.
pub(crate) async fn open(
    server: &Server,
    ends: Option<&Ends>,
    connector: &Connector,
) -> Result<(Io, Protocol), ConnectError> {
    let address = server.address.ok_or(ConnectError::Unresolved)?;
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let manner = &server.manner;
    if let Some(version) = manner.send_proxy {
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
        return Ok((Io::Plain(Socket::Watched(stream)), manner.protocol));
    }
    let connecting = connector.connect(stream, server.endpoint.host(), manner.protocol);
    let (stream, agreed) = connecting.await.map_err(ConnectError::Tls)?;
    Ok((Io::Tls(Box::new(stream)), agreed))
}

/// What carries a request to a server and its response back. The response's body is the source, the request's the sink.
#[derive(Debug)]
pub(crate) enum Link {
    /// A connection that speaks HTTP/1.1.
    Http1(Box<Http1>),
    /// A stream of a connection that speaks HTTP/2.
    Http2(Box<upstream::Stream>),
}

impl Link {
    /// Whether its connection has been used before, so that the server may be just closing it.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Link::Http1(link) => link.unused_since.is_some(),
            Link::Http2(stream) => stream.is_reused(),
        }
    }

    /// Puts it aside; who takes it up again asks whether it [is fresh](Self::is_fresh).
    pub(crate) fn rest(&mut self, now: Tick) {
        match self {
            Link::Http1(link) => link.unused_since = Some(now),
            Link::Http2(stream) => stream.rest(now),
        }
    }

    /// Whether it can take a request and has not been unused for longer than the server may be expected to bear.
    pub(crate) fn is_fresh(&mut self, now: Tick, idle: Duration) -> bool {
        match self {
            Link::Http1(link) => link.is_fresh(now, idle),
            Link::Http2(stream) => stream.is_fresh(now, idle),
        }
    }

    /// Begins a request; what it takes may be kept to be sent.
    ///
    /// # Errors
    /// [`Unsayable`].
    pub(crate) fn ask(&mut self, head: &RequestHead, onward: &Onward<'_>) -> Result<(), Unsayable> {
        match self {
            Link::Http1(link) => {
                link.asking = true;
                rewrite::request(head, onward, link.conn.stage(head.length == Length::Chunked));
                Ok(())
            }
            Link::Http2(stream) => stream.ask(head, onward),
        }
    }

    /// Waits for a response's head, interim ones included. Its body is then expected. `to_head` says that the request
    /// had the method `HEAD`; `moved` is told of any progress.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        to_head: bool,
        moved: impl FnMut(),
    ) -> Poll<Result<ResponseHead, NoResponse>> {
        match self {
            Link::Http1(link) => link.poll_response(cx, to_head, moved),
            Link::Http2(stream) => stream.poll_response(cx, to_head, moved),
        }
    }

    /// The server kept a request waiting for too long: nothing more shall be asked there.
    pub(crate) fn distrust(&mut self) {
        match self {
            // It does not come to rest, and so is not used again.
            Link::Http1(_) => {}
            Link::Http2(stream) => stream.distrust(),
        }
    }
}

impl Source for Link {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        match self {
            Link::Http1(link) => link.conn.poll_piece(cx),
            Link::Http2(stream) => stream.poll_piece(cx),
        }
    }

    fn data(&self) -> &[u8] {
        match self {
            Link::Http1(link) => link.conn.data(),
            Link::Http2(stream) => stream.data(),
        }
    }

    fn took(&mut self, n: usize) {
        match self {
            Link::Http1(link) => link.conn.took(n),
            Link::Http2(stream) => stream.took(n),
        }
    }

    fn trailers(&mut self) -> Option<Fields> {
        match self {
            Link::Http1(link) => link.conn.trailers(),
            Link::Http2(stream) => stream.trailers(),
        }
    }

    fn tap(&self) -> Option<(&Socket, u64)> {
        match self {
            Link::Http1(link) => link.conn.tap(),
            Link::Http2(stream) => stream.tap(),
        }
    }

    fn drew(&mut self, n: usize) {
        match self {
            Link::Http1(link) => link.conn.drew(n),
            Link::Http2(stream) => stream.drew(n),
        }
    }
}

impl Sink for Link {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Link::Http1(link) => link.conn.poll_send(cx, data),
            Link::Http2(stream) => stream.poll_send(cx, data),
        }
    }

    fn finish(&mut self, trailers: Option<&Fields>) {
        match self {
            Link::Http1(link) => {
                link.asking = false;
                link.conn.finish(trailers);
            }
            Link::Http2(stream) => stream.finish(trailers),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Link::Http1(link) => link.conn.poll_flush(cx),
            Link::Http2(stream) => stream.poll_flush(cx),
        }
    }

    fn draws(&mut self) -> bool {
        match self {
            Link::Http1(link) => link.conn.draws(),
            Link::Http2(stream) => stream.draws(),
        }
    }

    fn poll_draw(&mut self, cx: &mut Context<'_>, socket: &Socket, most: u64) -> Poll<io::Result<usize>> {
        match self {
            Link::Http1(link) => link.conn.poll_draw(cx, socket, most),
            Link::Http2(stream) => stream.poll_draw(cx, socket, most),
        }
    }
}

/// A connection to a server that speaks HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(crate) conn: Conn,
    /// When it was last put aside; `None` if never.
    pub(crate) unused_since: Option<Tick>,
    /// Whether the server keeps it open after the response.
    kept_alive: bool,
    /// Whether a request has begun and not ended. A server may answer before that, and then takes what comes next for the
    /// rest of it, which must not be anybody's request.
    asking: bool,
}

impl Http1 {
    pub(crate) fn new(io: Io, wire: Rc<Wire>) -> Self {
        Http1 { conn: Conn::new(io, wire), unused_since: None, kept_alive: true, asking: false }
    }

    /// Whether it can take a request: the last exchange is over in both directions, the request wholly sent, and the server has neither closed
    /// it nor said anything unasked, as far as the system has told.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.kept_alive && !self.asking && self.conn.is_at_rest()
    }

    /// As [`Link::is_fresh`].
    pub(crate) fn is_fresh(&mut self, now: Tick, idle: Duration) -> bool {
        self.unused_since.is_some_and(|since| now.since(since) < idle) && self.is_ready()
    }

    fn poll_response(
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
