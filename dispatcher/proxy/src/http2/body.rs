//! Bodies of a stream, in either role.

use super::head;
use crate::admission::memory::{Held, Purse};
use crate::body::{BodyError, Piece};
use crate::http1::head::{Fields, Rules};
use crate::http1::{Length, rewrite};
use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// A part of a body that h2 has to send, counted as memory until it is sent.
#[derive(Debug)]
pub(super) struct Parcel {
    bytes: Bytes,
    _memory: Held,
}

impl Parcel {
    fn new(bytes: Bytes, purse: &Rc<Purse>) -> Self {
        let mut memory = purse.hold();
        memory.resize(bytes.len());
        Parcel { bytes, _memory: memory }
    }
}

impl Buf for Parcel {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, n: usize) {
        self.bytes.advance(n);
    }
}

/// A body that comes. Windows open again as it is taken.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    /// What has come and was not taken.
    data: Bytes,
    /// Whether it has come to its end.
    read: bool,
    trailers: Option<Fields>,
    /// What h2 may come to hold of it while nobody takes it, which h2 does not tell.
    memory: Held,
}

impl Incoming {
    /// A body of that length, of which `window` bytes come before any are taken.
    pub(super) fn new(stream: RecvStream, length: Length, window: usize, purse: &Rc<Purse>) -> Self {
        let mut memory = purse.hold();
        memory.resize(match length {
            _ if stream.is_end_stream() => 0,
            Length::None => 0,
            Length::Exact(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX).min(window),
            Length::Chunked | Length::UntilClose => window,
        });
        Incoming { stream, data: Bytes::new(), read: false, trailers: None, memory }
    }

    /// As [`Source::poll_piece`](crate::body::Source::poll_piece).
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>, rules: &Rules) -> Poll<Result<Piece, BodyError>> {
        loop {
            if !self.data.is_empty() {
                return Poll::Ready(Ok(Piece::Data(self.data.len())));
            }
            if self.read {
                return Poll::Ready(Ok(Piece::End));
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(data) => self.data = data.map_err(|_| BodyError::Ended)?,
                None => {
                    let trailers = ready!(self.stream.poll_trailers(cx)).map_err(|_| BodyError::Ended)?;
                    let read = |fields| head::trailers(&fields, rules);
                    self.trailers = trailers.map(read).transpose().map_err(|_| BodyError::Malformed)?;
                    self.read = true;
                    self.memory.resize(0);
                }
            }
        }
    }

    /// Whether all of it has come and was taken.
    pub(super) fn is_whole(&self) -> bool {
        self.read || self.data.is_empty() && self.stream.is_end_stream()
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(super) fn took(&mut self, n: usize) {
        self.data.advance(n);
        // Fails where the stream is over, and its window with it.
        let _ = self.stream.flow_control().release_capacity(n);
    }

    pub(super) fn trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }
}

/// A body that goes.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: SendStream<Parcel>,
    purse: Rc<Purse>,
    /// How much of one of known length is left to be sent.
    left: Option<u64>,
    /// Whether all of it has been handed over to be sent.
    ended: bool,
}

impl Outgoing {
    /// A body of that length, after its head was sent.
    pub(super) fn new(stream: SendStream<Parcel>, length: Length, purse: &Rc<Purse>) -> Self {
        let left = match length {
            Length::Exact(bytes) => Some(bytes),
            _ => None,
        };
        Outgoing { stream, purse: purse.clone(), left, ended: length == Length::None }
    }

    /// As [`Sink::poll_send`](crate::body::Sink::poll_send).
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.reserve_capacity(data.len());
        let room = match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(cx)) {
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
        let parcel = Parcel::new(Bytes::copy_from_slice(&data[..n]), &self.purse);
        self.stream.send_data(parcel, self.ended).map_err(|_| gone())?;
        Poll::Ready(Ok(n))
    }

    /// Ends it with those bytes, for which h2 waits for the window.
    pub(super) fn end_with(&mut self, bytes: Bytes) {
        self.ended = true;
        // Fails where the other side has gone.
        let _ = self.stream.send_data(Parcel::new(bytes, &self.purse), true);
    }

    /// As [`Sink::finish`](crate::body::Sink::finish).
    pub(super) fn finish(&mut self, trailers: Option<&Fields>) {
        if self.ended {
            return;
        }
        let Some(trailers) = trailers else { return self.end_with(Bytes::new()) };
        self.ended = true;
        let mut lines = Vec::new();
        rewrite::trailers(trailers, &mut lines);
        // Fails where the other side has gone.
        let _ = self.stream.send_trailers(head::fields(&lines));
    }

    /// All is with h2, which sends as soon as it can. What is left to be told is that the other side wants no more.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reset = !self.ended && self.stream.poll_reset(cx).is_ready();
        Poll::Ready(if reset { Err(gone()) } else { Ok(()) })
    }
}

pub(super) fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
