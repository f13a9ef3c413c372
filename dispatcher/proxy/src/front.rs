//! The client's side of an exchange.

use crate::body::{BodyError, Piece, Sink, Source};
use crate::client::Client;
use crate::conn::{Conn, HeadError};
use crate::http1::head::{Fields, Rules, Version};
use crate::http1::rewrite::{self, After, Own};
use crate::http1::{Bad, Length, RequestHead, ResponseHead};
use crate::io::Io;
use crate::metrics::Refusal;
use crate::socket::Socket;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// So many empty lines before a request are read over, which some clients send after a body (RFC 9112, section 2.2).
const MOST_EMPTY_LINES: usize = 4;

/// Where a request came from and its response goes: a connection, or a stream of one. Its body is the source, the
/// response's the sink.
pub(crate) trait Front: Source + Sink {
    /// The scheme of URLs that are asked for here.
    fn scheme(&self) -> &'static str;
    /// When the first byte of the request came.
    fn began(&self) -> Instant;
    /// Passes an interim response on, if the client can take one.
    fn interim(&mut self, head: &ResponseHead);
    /// Begins a response, with a body of that length as it comes from the server. `last` asks that no request follows;
    /// `own` is added to it.
    fn respond(&mut self, head: &ResponseHead, last: bool, own: &Own<'_>);
    /// Answers in the dispatcher's own words.
    fn refuse(&mut self, refusal: Refusal, last: bool, own: &Own<'_>);
    /// Hands the connection over to the protocol that a response has switched to.
    fn switch(&mut self, head: &ResponseHead);
    /// Whether all of the request has come.
    fn has_whole_request(&self) -> bool;
    /// Says that nothing more will be sent.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A client's connection that speaks HTTP/1.
pub(crate) struct Http1 {
    conn: Conn,
    client: Rc<Client>,
    /// Whether there was a request.
    served: bool,
    /// When the first byte of the request came; `None` before.
    began: Option<Instant>,
    /// What of the request decides on the response's form.
    request: Request,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    version_10: bool,
    to_head: bool,
    keep_alive: bool,
}

/// Why there is no request.
pub(crate) enum NoRequest {
    /// The client has gone, or overstayed at rest: there is nothing to say.
    Gone,
    /// The client has rested for so long that his connection is to be parked.
    Rests,
    /// The connection turns out to speak HTTP/2.
    Http2,
    /// What came is refused.
    Refused(Refusal),
}

impl Http1 {
    /// `served` tells whether it has carried requests before.
    pub(crate) fn new(io: Io, client: Rc<Client>, served: bool) -> Self {
        let conn = Conn::new(io, client.worker().wire());
        let request = Request { version_10: false, to_head: false, keep_alive: false };
        Http1 { conn, client, served, began: None, request }
    }

    /// Waits for a request's head. Its body is then expected.
    pub(crate) async fn request(&mut self) -> Result<Box<RequestHead>, NoRequest> {
        self.request = Request { version_10: false, to_head: false, keep_alive: false };
        self.began = None;
        if !self.conn.waiting().is_empty() {
            self.client.has_read();
            self.began = Some(Instant::now());
        }
        let mut empty_lines = 0;
        let head = loop {
            match poll_fn(|cx| self.poll_request(cx)).await? {
                Some(head) => break head,
                None if empty_lines < MOST_EMPTY_LINES => empty_lines += 1,
                None => return Err(NoRequest::Refused(Refusal::BadRequest)),
            }
        };
        self.served = true;
        self.conn.expect(head.length);
        self.request = Request {
            version_10: head.version == Version::Http10,
            to_head: head.method == http::Method::HEAD,
            keep_alive: head.keep_alive,
        };
        Ok(head)
    }

    /// Waits for a request's head; `None` for an empty line in its place.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Box<RequestHead>>, NoRequest>> {
        let (client, began) = (&self.client, &mut self.began);
        if client.may_be_parked() && self.conn.waiting().is_empty() && !client.worker().is_draining() {
            return Poll::Ready(Err(NoRequest::Rests));
        }
        let has_read = || {
            client.has_read();
            began.get_or_insert_with(Instant::now);
        };
        let read = |bytes: &[u8], rules: &Rules| match bytes {
            b"\r\n" => Ok(None),
            bytes => RequestHead::read(bytes, rules).map(|head| Some(Box::new(head))),
        };
        let polled = self.conn.poll_head(cx, has_read, read);
        let begun = !self.conn.waiting().is_empty();
        let head = match polled {
            Poll::Pending if client.is_overdue() && begun => return refused(Refusal::Late),
            Poll::Pending if client.is_overdue() || (client.worker().is_draining() && !begun && !client.is_new()) => {
                return Poll::Ready(Err(NoRequest::Gone));
            }
            Poll::Pending if client.may_be_parked() => return Poll::Ready(Err(NoRequest::Rests)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(head) => head,
        };
        match head {
            Ok(Ok(head)) => Poll::Ready(Ok(head)),
            // Nobody changes over in the middle, and under TLS it was agreed on (RFC 9113, sections 3.2 and 3.3).
            Ok(Err(Bad::Preface)) if !self.served && client.tls().is_none() && client.worker().speaks_http2() => {
                Poll::Ready(Err(NoRequest::Http2))
            }
            Ok(Err(bad)) => refused(bad.into()),
            Err(HeadError::Malformed) => refused(Refusal::BadRequest),
            Err(HeadError::TooLong) => refused(Refusal::TooLong),
            Err(HeadError::Ended | HeadError::Broken) => Poll::Ready(Err(NoRequest::Gone)),
        }
    }

    /// Whether another request may follow the last response.
    pub(crate) fn stays_open(&self) -> bool {
        self.request.keep_alive && self.conn.is_read()
    }

    /// What the connection does after a response, unless that is the `last`.
    fn after(&mut self, last: bool) -> After {
        self.request.keep_alive &= !last && !self.client.worker().is_draining();
        match (self.request.keep_alive, self.request.version_10) {
            (false, _) => After::Close,
            (true, true) => After::OpenForOld,
            (true, false) => After::Open,
        }
    }

    /// Closes the connection so that the client gets to read what was sent.
    pub(crate) async fn close(&mut self) {
        if self.conn.may_close() {
            self.leave();
        } else {
            close(&mut self.conn, &self.client).await;
        }
    }

    /// The connection, for who knows better what it speaks.
    pub(crate) fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Leaves a client to whom nothing is owed.
    pub(crate) fn leave(&mut self) {
        self.conn.farewell();
    }

    pub(crate) fn reset(&self) {
        self.conn.reset();
    }
}

/// Closes a connection so that the client gets to read what was sent: as long as he sends, that is read and forgotten,
/// since a connection that is closed with something unread ends in a reset.
pub(crate) async fn close(conn: &mut Conn, client: &Client) {
    client.lingers();
    poll_fn(|cx| {
        let shut = conn.poll_shutdown(cx);
        if client.is_overdue() || matches!(shut, Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        ready!(shut).ok();
        loop {
            if !matches!(ready!(conn.poll_discard(cx)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
    })
    .await;
}

impl From<Bad> for Refusal {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Malformed => Refusal::BadRequest,
            Bad::Version | Bad::Preface => Refusal::Version,
            Bad::Unsupported => Refusal::Unsupported,
            Bad::TooManyFields => Refusal::TooLong,
            Bad::TargetTooLong => Refusal::UriTooLong,
        }
    }
}

fn refused<T>(refusal: Refusal) -> Poll<Result<T, NoRequest>> {
    Poll::Ready(Err(NoRequest::Refused(refusal)))
}

impl Front for Http1 {
    fn scheme(&self) -> &'static str {
        self.conn.scheme()
    }

    fn began(&self) -> Instant {
        self.began.unwrap_or_else(Instant::now)
    }

    fn interim(&mut self, head: &ResponseHead) {
        if !self.request.version_10 {
            rewrite::interim(head, self.conn.stage(false));
        }
    }

    fn respond(&mut self, head: &ResponseHead, last: bool, own: &Own<'_>) {
        let length = match head.length {
            // Such a body ends with the connection for a client that knows no chunks.
            Length::Chunked | Length::UntilClose if self.request.version_10 => Length::UntilClose,
            Length::Chunked | Length::UntilClose => Length::Chunked,
            length => length,
        };
        let after = self.after(last || length == Length::UntilClose);
        let date = self.client.worker().clock().http_date();
        rewrite::response(head, length, after, &date, own, self.conn.stage(length == Length::Chunked));
    }

    fn refuse(&mut self, refusal: Refusal, last: bool, own: &Own<'_>) {
        let (bodiless, after) = (self.request.to_head, self.after(last));
        let date = self.client.worker().clock().http_date();
        let (status, text, retry_after) = (refusal.status(), refusal.text(), refusal.retry_after());
        rewrite::own(status, text, retry_after, bodiless, after, &date, own, self.conn.stage(false));
    }

    fn switch(&mut self, head: &ResponseHead) {
        self.request.keep_alive = false;
        rewrite::switching(head, self.conn.stage(false));
        self.conn.expect(Length::UntilClose);
    }

    fn has_whole_request(&self) -> bool {
        self.conn.is_read()
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_shutdown(cx)
    }
}

impl Source for Http1 {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        self.conn.poll_piece(cx)
    }

    fn data(&self) -> &[u8] {
        self.conn.data()
    }

    fn took(&mut self, n: usize) {
        self.conn.took(n);
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.conn.trailers()
    }

    fn tap(&self) -> Option<(&Socket, u64)> {
        self.conn.tap()
    }

    fn drew(&mut self, n: usize) {
        self.conn.drew(n);
    }
}

impl Sink for Http1 {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.conn.poll_send(cx, data)
    }

    fn finish(&mut self, trailers: Option<&Fields>) {
        self.conn.finish(trailers);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_flush(cx)
    }

    fn draws(&mut self) -> bool {
        self.conn.draws()
    }

    fn poll_draw(&mut self, cx: &mut Context<'_>, socket: &Socket, most: u64) -> Poll<io::Result<usize>> {
        self.conn.poll_draw(cx, socket, most)
    }
}

impl Drop for Http1 {
    /// A response that breaks off ends in a reset. A plain close would look like a good end to a client that reads
    /// until the connection closes.
    fn drop(&mut self) {
        if self.client.is_mid_response() {
            self.conn.reset();
        }
    }
}
