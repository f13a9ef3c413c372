//! One stream: a request and its response.

use super::super::body::{Incoming, Outgoing, gone};
use super::{Connection, head};
use crate::body::{BodyError, Piece, Sink, Source};
use crate::clock::Tick;
use crate::http1::head::Fields;
use crate::http1::rewrite::Onward;
use crate::http1::{Length, RequestHead, ResponseHead};
use crate::link::{NoResponse, Unsayable};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::Response;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A place for a request on a connection, and the stream that carries the request, once there is one.
#[derive(Debug)]
pub(crate) struct Stream {
    connection: Rc<Connection>,
    /// Whether the connection was not made for this.
    reused: bool,
    /// When it was last put aside; `None` if never.
    unused_since: Option<Tick>,
    /// The response, as long as it is awaited.
    response: Option<ResponseFuture>,
    request_body: Option<Outgoing>,
    response_body: Option<Incoming>,
    /// Whether the response has no body, whatever comes.
    bodiless: bool,
}

impl Stream {
    pub(crate) fn of(connection: Rc<Connection>, reused: bool) -> Self {
        connection.used.set(true);
        Stream {
            connection,
            reused,
            unused_since: None,
            response: None,
            request_body: None,
            response_body: None,
            bodiless: false,
        }
    }

    pub(crate) fn is_reused(&self) -> bool {
        self.reused || self.unused_since.is_some()
    }

    /// Ends the stream; the place stays taken.
    pub(crate) fn rest(&mut self, now: Tick) {
        *self = Stream { unused_since: Some(now), ..Stream::of(self.connection.clone(), true) };
    }

    /// As [`Link::is_fresh`](crate::link::Link::is_fresh).
    pub(crate) fn is_fresh(&self, now: Tick, idle: Duration) -> bool {
        self.unused_since.is_some_and(|since| now.since(since) < idle) && self.connection.is_open()
    }

    /// As [`Link::distrust`](crate::link::Link::distrust): requests that are under way on the connection go on.
    pub(crate) fn distrust(&self) {
        self.connection.distrusted.set(true);
    }

    /// As [`Link::ask`](crate::link::Link::ask).
    pub(crate) fn ask(&mut self, head: &RequestHead, onward: &Onward<'_>) -> Result<(), Unsayable> {
        let request = head::request(head, onward, self.connection.scheme.clone())?;
        let mut sender = self.connection.sender.clone();
        // Where the connection has just ended, that shows when the response is asked for.
        if let Ok((response, body)) = sender.send_request(request, head.length == Length::None) {
            self.response = Some(response);
            self.request_body = Some(Outgoing::new(body, head.length, &self.connection.wire.memory));
        }
        Ok(())
    }

    /// As [`Link::poll_response`](crate::link::Link::poll_response).
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        to_head: bool,
        mut moved: impl FnMut(),
    ) -> Poll<Result<ResponseHead, NoResponse>> {
        // No stream, no request.
        let Some(awaited) = &mut self.response else { return Poll::Ready(Err(NoResponse::Refused)) };
        let interim = match awaited.poll_informational(cx) {
            Poll::Ready(interim) => interim.transpose().map_err(|error| no_response(&error))?,
            Poll::Pending => None,
        };
        let response = match interim {
            Some(response) => response.map(|()| None),
            None => {
                let response = ready!(Pin::new(awaited).poll(cx)).map_err(|error| no_response(&error))?;
                self.response = None;
                response.map(Some)
            }
        };
        moved();
        Poll::Ready(self.expect(response, to_head).ok_or(NoResponse::Garbage))
    }

    /// Reads a response's head, and expects its body, if it is the final one.
    fn expect(&mut self, response: Response<Option<RecvStream>>, to_head: bool) -> Option<ResponseHead> {
        let (parts, body) = response.into_parts();
        let is_empty = body.as_ref().is_some_and(RecvStream::is_end_stream);
        let head = head::response(&parts, is_empty, to_head, &self.connection.wire.rules).ok()?;
        if let Some(body) = body {
            self.bodiless = head.length == Length::None;
            let (window, purse) = (self.connection.window as usize, &self.connection.wire.memory);
            self.response_body = Some(Incoming::new(body, head.length, window, purse));
        }
        Some(head)
    }
}

/// What it means that a response ended before its head had come.
fn no_response(error: &h2::Error) -> NoResponse {
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        NoResponse::Refused
    } else if error.is_library() {
        NoResponse::Garbage
    } else {
        NoResponse::Closed
    }
}

impl Source for Stream {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        let Some(body) = &mut self.response_body else { return Poll::Ready(Err(BodyError::Ended)) };
        let piece = ready!(body.poll_piece(cx, &self.connection.wire.rules))?;
        match piece {
            Piece::Data(_) if self.bodiless => Poll::Ready(Err(BodyError::Malformed)),
            piece => Poll::Ready(Ok(piece)),
        }
    }

    fn data(&self) -> &[u8] {
        self.response_body.as_ref().map_or(&[], Incoming::data)
    }

    fn took(&mut self, n: usize) {
        if let Some(body) = &mut self.response_body {
            body.took(n);
        }
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.response_body.as_mut().and_then(Incoming::trailers)
    }
}

impl Sink for Stream {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.request_body {
            Some(body) => body.poll_send(cx, data),
            None => Poll::Ready(Err(gone())),
        }
    }

    fn finish(&mut self, trailers: Option<&Fields>) {
        if let Some(body) = &mut self.request_body {
            body.finish(trailers);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.request_body {
            Some(body) => body.poll_flush(cx),
            None => Poll::Ready(Err(gone())),
        }
    }
}
