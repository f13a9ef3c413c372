//! Bodies, streamed in both directions.

use crate::account::Account;
use crate::link::Link;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A request's body on its way to a server.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None: such a request can be sent again.
    Empty,
    /// What the client sends, as it comes.
    Client(Incoming),
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        if body.is_end_stream() { RequestBody::Empty } else { RequestBody::Client(body) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Client(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Client(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Client(body) => body.size_hint(),
        }
    }
}

/// A response's body on its way to a client.
pub(crate) enum ResponseBody {
    /// The dispatcher's own words.
    Own(Option<Bytes>),
    /// What a server sends, as it comes.
    Relayed(Relayed),
}

/// Why a response's body broke. The client's connection is then broken too: he must not take a part for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the server's response ended early")]
pub(crate) struct Broken(#[source] Option<hyper::Error>);

/// A body that is read from a server, and the connection it comes on, which is driven as the client takes it.
pub(crate) struct Relayed {
    incoming: Incoming,
    /// `None` once the connection is back in its pool, or closed.
    link: Option<Box<Link>>,
    account: Account,
}

impl Relayed {
    /// The body of a response whose head came on `link`.
    pub(crate) fn new(incoming: Incoming, link: Box<Link>, account: Account) -> Self {
        let mut body = Relayed { incoming, link: Some(link), account };
        // A small body is here in whole with its head, and the link is free for the next request.
        body.release();
        if body.incoming.is_end_stream() {
            body.account.complete();
        }
        body
    }

    /// Gives the link back once the exchange is over on it.
    fn release(&mut self) {
        if let Some(link) = self.link.take_if(|link| link.is_ready()) {
            self.account.give_back(link);
        }
    }

    /// The body has ended as it should.
    fn end(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = &mut self.link {
            // Lets the link see the end too.
            let _ = link.poll_drive(cx);
            self.release();
        }
        self.account.complete();
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        // As in `Link::exchange`: a frame only comes while the link is driven, just below.
        let mut quiet = Context::from_waker(Waker::noop());
        let mut polled = Pin::new(&mut self.incoming).poll_frame(&mut quiet);
        if polled.is_pending() {
            let over = self.link.as_mut().is_none_or(|link| link.poll_drive(cx).is_ready());
            polled = Pin::new(&mut self.incoming).poll_frame(&mut quiet);
            if over && polled.is_pending() {
                return Poll::Ready(Some(Err(self.account.broke(None))));
            }
        }
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.end(cx);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if self.incoming.is_end_stream() {
                    self.end(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.account.broke(Some(error))))),
        }
    }
}

impl Broken {
    pub(crate) fn new(source: Option<hyper::Error>) -> Self {
        Broken(source)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            ResponseBody::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            ResponseBody::Relayed(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Own(text) => text.is_none(),
            ResponseBody::Relayed(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            ResponseBody::Relayed(body) => body.incoming.size_hint(),
        }
    }
}
