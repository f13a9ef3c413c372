//! One stream: a request and its response.

use super::balance::Balance;
use super::body::{Incoming, Outgoing, Parcel, gone};
use super::head;
use crate::body::{BodyError, Piece, Sink, Source};
use crate::client::{Client, OpenStream};
use crate::exchange::{self, End};
use crate::front::Front;
use crate::http1::head::Fields;
use crate::http1::rewrite::{self, After, Own};
use crate::http1::{Length, ResponseHead};
use crate::metrics::Refusal;
use crate::tasks::Work;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// A stream that a client has opened.
pub(crate) struct Accepted {
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Parcel>,
    pub(super) open: OpenStream,
    pub(super) balance: Rc<Balance>,
    pub(super) scheme: &'static str,
}

impl Work for Accepted {
    /// Empty space that heads are written down in.
    type Kept = Vec<u8>;

    /// Serves a stream until it ends.
    async fn run(self, space: &mut Vec<u8>) {
        let Accepted { request, respond, open, balance, scheme } = self;
        let client = &open.client;
        let (parts, body) = request.into_parts();
        let (wire, config) = (client.worker().wire(), client.worker().config());
        let head = head::request(&parts, !body.is_end_stream(), &wire.rules);
        let length = head.as_ref().map_or(Length::None, |head| head.length);
        let mut stream = Stream {
            to_head: parts.method == Method::HEAD,
            client: client.clone(),
            balance,
            scheme,
            began: Instant::now(),
            request: Incoming::new(body, length, config.limits.buffer, &wire.memory),
            respond,
            response: None,
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
}

/// The front that a stream is.
pub(super) struct Stream<'a> {
    client: Rc<Client>,
    balance: Rc<Balance>,
    scheme: &'static str,
    /// When the request was taken.
    began: Instant,
    request: Incoming,
    to_head: bool,
    respond: SendResponse<Parcel>,
    /// The response's body, once the response has begun.
    response: Option<Outgoing>,
    /// Space for heads.
    space: &'a mut Vec<u8>,
}

impl Stream<'_> {
    /// Takes the head that was written.
    fn staged(&mut self, status: http::StatusCode) -> Response<()> {
        let fields = memchr::memchr(b'\n', self.space).map_or(self.space.len(), |at| at + 1);
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = head::fields(&self.space[fields..]);
        self.space.clear();
        self.space.shrink_to(head::USUAL);
        response
    }

    /// Begins the response. Where the client has reset the stream, that shows when more is to be sent.
    fn begin(&mut self, status: http::StatusCode, length: Length) {
        let response = self.staged(status);
        let sent = self.respond.send_response(response, length == Length::None);
        let wire = self.client.worker().wire();
        self.response = sent.ok().map(|body| Outgoing::new(body, length, &wire.memory));
    }
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
            response.end_with(Bytes::from_static(refusal.text().as_bytes()));
        }
    }

    fn switch(&mut self, _head: &ResponseHead) {
        // No request here asks for another protocol (RFC 9113, section 8.6), so no response is taken that changes to one.
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }

    fn has_whole_request(&self) -> bool {
        self.request.is_whole()
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Source for Stream<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        self.request.poll_piece(cx, &self.client.worker().wire().rules)
    }

    fn data(&self) -> &[u8] {
        self.request.data()
    }

    fn took(&mut self, n: usize) {
        self.request.took(n);
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.request.trailers()
    }
}

impl Sink for Stream<'_> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let response = self.response.as_mut().ok_or_else(gone)?;
        let sent = ready!(response.poll_send(cx, data))?;
        self.balance.sent(sent);
        Poll::Ready(Ok(sent))
    }

    fn finish(&mut self, trailers: Option<&Fields>) {
        if let Some(response) = &mut self.response {
            response.finish(trailers);
        }
    }

    /// What is left to be told is that the client has gone.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.response {
            Some(response) => response.poll_flush(cx),
            None if self.respond.poll_reset(cx).is_ready() => Poll::Ready(Err(gone())),
            None => Poll::Ready(Ok(())),
        }
    }
}
