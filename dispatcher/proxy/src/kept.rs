//! The beginning of a request's body, kept for as long as a server may still say that it has not acted on the request
//! (RFC 9113, section 8.7). The request then goes on another connection as if nothing of it had gone.

use crate::admission::memory::Held;
use crate::body::{BodyError, Piece, Source};
use crate::http1::head::Fields;
use std::task::{Context, Poll};

/// What has gone of a body, up to so many bytes.
#[derive(Debug)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    trailers: Option<Fields>,
    /// How much of `bytes` the current server has got.
    at: usize,
    /// So many bytes are kept at most.
    most: usize,
    /// Whether more has gone than is kept.
    is_beyond: bool,
    /// What `bytes` takes.
    memory: Held,
}

impl Kept {
    /// Of a body of which nothing has gone. `memory` holds nothing yet.
    pub(crate) fn new(most: usize, memory: Held) -> Self {
        Kept { bytes: Vec::new(), trailers: None, at: 0, most, is_beyond: false, memory }
    }

    /// Whether all that has gone is there to go again.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_beyond
    }

    /// Whether the current server has got all that was kept.
    pub(crate) fn is_through(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The body goes again from its beginning.
    pub(crate) fn rewind(&mut self) {
        self.at = 0;
    }

    /// The whole body: what is kept, then what `source` goes on with.
    pub(crate) fn before<'a, S: Source>(&'a mut self, source: &'a mut S) -> Whole<'a, S> {
        Whole { kept: self, source }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.is_beyond || self.bytes.len() + bytes.len() > self.most {
            (self.is_beyond, self.bytes) = (true, Vec::new());
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        self.at = self.bytes.len();
        self.memory.resize(self.bytes.capacity());
    }
}

/// A body whose beginning is kept.
pub(crate) struct Whole<'a, S> {
    kept: &'a mut Kept,
    source: &'a mut S,
}

impl<S: Source> Source for Whole<'_, S> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        match self.kept.bytes.len() - self.kept.at {
            0 => self.source.poll_piece(cx),
            left => Poll::Ready(Ok(Piece::Data(left))),
        }
    }

    fn data(&self) -> &[u8] {
        if self.kept.is_through() { self.source.data() } else { &self.kept.bytes[self.kept.at..] }
    }

    fn took(&mut self, n: usize) {
        if !self.kept.is_through() {
            self.kept.at += n;
            return;
        }
        self.kept.keep(&self.source.data()[..n]);
        self.source.took(n);
    }

    fn trailers(&mut self) -> Option<Fields> {
        if let Some(trailers) = self.source.trailers() {
            self.kept.trailers = Some(trailers);
        }
        self.kept.trailers.clone()
    }
}
