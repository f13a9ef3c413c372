//! One stream: a request and its response.

use super::balance::Balance;
use super::head;
use crate::body::{BodyError, Piece, Sink, Source};
use crate::client::{Client, OpenStream};
use crate::exchange::{self, End};
use crate::front::Front;
use crate::http1::head::Fields;
use crate::http1::rewrite::{self, After, Own};
use crate::http1::{Length, ResponseHead};
use crate::metrics::Refusal;
use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// A stream that a client has opened.
pub(super) struct Accepted {
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
    pub(super) open: OpenStream,
    pub(super) balance: Rc<Balance>,
    pub(super) scheme: &'static str,
}

/// Serves a stream until it ends. Heads are written down in `space`, which is empty.
pub(super) async fn serve(accepted: Accepted, space: &mut Vec<u8>) {
    let Accepted { request, respond, open, balance, scheme } = accepted;
    let client = &open.client;
    let (parts, body) = request.into_parts();
    let head = head::request(&parts, !body.is_end_stream(), &client.worker().wire().rules);
    let mut stream = Stream {
        to_head: parts.method == Method::HEAD,
        client: client.clone(),
        balance,
        scheme,
        began: Instant::now(),
        request: body,
        data: Bytes::new(),
        read: false,
        trailers: None,
        respond,
        response: None,
        left: None,
        ended: false,
        space,
    };
    drop(parts);
    client.begins().await;
    let end = match head {
        Ok(head) => exchange::run(client, &mut stream, &head).await,
        Err(bad) => exchange::refuse(client, &mut stream, bad.into()).await,
    };
    match end {
        End::Whole => stream.balance.responded(),
        // What the client has of the response must not look whole.
        End::Broken => {
            stream.balance.talks();
            stream.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// The front that a stream is.
pub(super) struct Stream<'a> {
    client: Rc<Client>,
    balance: Rc<Balance>,
    scheme: &'static str,
    /// When the request was taken.
    began: Instant,
    request: RecvStream,
    /// What has come of the request's body and was not taken.
    data: Bytes,
    /// Whether the request's body has come to its end.
    read: bool,
    trailers: Option<Fields>,
    to_head: bool,
    respond: SendResponse<Bytes>,
    /// The response's body, once the response has begun and if it has one.
    response: Option<SendStream<Bytes>>,
    /// How much of a response of known length is left to be sent.
    left: Option<u64>,
    /// Whether all of the response has been handed over to be sent.
    ended: bool,
    /// Space for heads.
    space: &'a mut Vec<u8>,
}

impl Stream<'_> {
    /// Takes the head that was written.
    fn staged(&mut self, status: http::StatusCode) -> Response<()> {
        let fields = memchr::memchr(b'\n', self.space).map_or(self.space.len(), |at| at + 1);
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = self.fields(fields);
        response
    }

    /// Takes the fields that were written, from there on.
    fn fields(&mut self, start: usize) -> HeaderMap {
        let fields = head::fields(&self.space[start..]);
        self.space.clear();
        self.space.shrink_to(head::USUAL);
        fields
    }

    /// Begins the response. Where the client has reset the stream, that shows when more is to be sent.
    fn begin(&mut self, status: http::StatusCode, length: Length) {
        let response = self.staged(status);
        self.ended = length == Length::None;
        self.left = match length {
            Length::Exact(bytes) => Some(bytes),
            _ => None,
        };
        self.response = self.respond.send_response(response, self.ended).ok();
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Front for Stream<'_> {
    fn began(&self) -> Instant {
        self.began
    }

    fn scheme(&self) -> &'static str {
        self.scheme
    }

    fn interim(&mut self, head: &ResponseHead) {
        rewrite::interim(head, self.space);
        let interim = self.staged(head.status);
        // Fails where the client has gone, which shows later.
        let _ = self.respond.send_informational(interim);
    }

    fn respond(&mut self, head: &ResponseHead, _last: bool, own: &Own<'_>) {
        // Frames need no coding; the stream's end is the body's.
        let length = if head.length == Length::Chunked { Length::UntilClose } else { head.length };
        let date = self.client.worker().clock().http_date();
        rewrite::response(head, length, After::Open, &date, own, self.space);
        self.begin(head.status, length);
    }

    fn refuse(&mut self, refusal: Refusal, _last: bool, own: &Own<'_>) {
        // A malformed request is a fault of its stream (RFC 9113, section 8.1.1).
        if refusal == Refusal::BadRequest {
            return self.respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        let date = self.client.worker().clock().http_date();
        let (status, text, retry_after) = (refusal.status(), refusal.text(), refusal.retry_after());
        rewrite::own(status, text, retry_after, true, After::Open, &date, own, self.space);
        self.begin(refusal.status(), if self.to_head { Length::None } else { Length::UntilClose });
        if let Some(response) = self.response.as_mut().filter(|_| !self.to_head) {
            // It is short enough to be kept by h2 until the client wants it.
            let _ = response.send_data(Bytes::from_static(refusal.text().as_bytes()), true);
            self.ended = true;
        }
    }

    fn switch(&mut self, _head: &ResponseHead) {
        // No request here asks for another protocol (RFC 9113, section 8.6), so no response is taken that changes to one.
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }

    fn has_whole_request(&self) -> bool {
        self.read || self.data.is_empty() && self.request.is_end_stream()
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Source for Stream<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        loop {
            if !self.data.is_empty() {
                return Poll::Ready(Ok(Piece::Data(self.data.len())));
            }
            if self.read {
                return Poll::Ready(Ok(Piece::End));
            }
            match ready!(self.request.poll_data(cx)) {
                Some(data) => self.data = data.map_err(|_| BodyError::Ended)?,
                None => {
                    let trailers = ready!(self.request.poll_trailers(cx)).map_err(|_| BodyError::Ended)?;
                    let read = |fields| head::trailers(&fields, &self.client.worker().wire().rules);
                    self.trailers = trailers.map(read).transpose().map_err(|_| BodyError::Malformed)?;
                    self.read = true;
                }
            }
        }
    }

    fn data(&self) -> &[u8] {
        &self.data
    }

    fn took(&mut self, n: usize) {
        self.data.advance(n);
        // Fails where the stream is over, and its window with it.
        let _ = self.request.flow_control().release_capacity(n);
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }
}

impl Sink for Stream<'_> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let response = self.response.as_mut().ok_or_else(gone)?;
        response.reserve_capacity(data.len());
        let room = match response.capacity() {
            0 => match ready!(response.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                _ => return Poll::Ready(Err(gone())),
            },
            room => room,
        };
        let n = room.min(data.len());
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(n as u64);
            self.ended = *left == 0;
        }
        response.send_data(Bytes::copy_from_slice(&data[..n]), self.ended).map_err(|_| gone())?;
        self.balance.sent(n);
        Poll::Ready(Ok(n))
    }

    fn finish(&mut self, trailers: Option<&Fields>) {
        if self.ended {
            return;
        }
        self.ended = true;
        let trailers = trailers.map(|trailers| {
            rewrite::trailers(trailers, self.space);
            self.fields(0)
        });
        let Some(response) = &mut self.response else { return };
        // Either fails where the client has gone.
        let _ = match trailers {
            Some(trailers) => response.send_trailers(trailers),
            None => response.send_data(Bytes::new(), true),
        };
    }

    /// All is with h2, which sends as soon as it can. What is left to be told is that the client has gone.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reset = match &mut self.response {
            _ if self.ended => return Poll::Ready(Ok(())),
            Some(response) => response.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        Poll::Ready(if reset.is_ready() { Err(gone()) } else { Ok(()) })
    }
}
