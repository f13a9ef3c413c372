//! A connection as h2 reads and writes it.

use super::balance::Balance;
use super::frames::{Frames, Unsettled, Use};
use crate::client::Client;
use crate::conn::Conn;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection: what was taken of it before is read first, its frames are weighed as they come, and it is known
/// whether the client takes what is sent.
#[derive(Clone)]
pub(super) struct Line<'a>(Rc<Inner<'a>>);

struct Inner<'a> {
    conn: RefCell<&'a mut Conn>,
    /// What was taken before and is to be read.
    begun: Cell<&'static [u8]>,
    frames: RefCell<Frames>,
    balance: Rc<Balance>,
    client: &'a Client,
    blocked: Cell<bool>,
    /// Whether all that has come was read, as far as this turn of the connection's task goes: h2 asks again for every
    /// stream that it accepts.
    exhausted: Cell<bool>,
}

impl<'a> Line<'a> {
    pub(super) fn new(conn: &'a mut Conn, begun: &'static [u8], balance: Rc<Balance>, client: &'a Client) -> Self {
        Line(Rc::new(Inner {
            conn: RefCell::new(conn),
            begun: Cell::new(begun),
            frames: RefCell::new(Frames::new()),
            balance,
            client,
            blocked: Cell::new(false),
            exhausted: Cell::new(false),
        }))
    }

    /// Whether there is something to be written that the client does not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.blocked.get()
    }

    /// A turn of the connection's task begins.
    pub(super) fn turns(&self) {
        self.0.exhausted.set(false);
    }

    /// The scheme of URLs that are asked for here.
    pub(super) fn scheme(&self) -> &'static str {
        self.0.conn.borrow().scheme()
    }

    fn read(&self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &*self.0;
        let begun = inner.begun.get();
        if begun.is_empty() {
            return inner.conn.borrow_mut().poll_read(cx, room);
        }
        let (now, later) = begun.split_at(begun.len().min(room.remaining()));
        room.put_slice(now);
        inner.begun.set(later);
        Poll::Ready(Ok(()))
    }

    fn write(&self, cx: &mut Context<'_>, first: &[u8], then: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &*self.0;
        let written = inner.conn.borrow_mut().io().poll_write(cx, first, then);
        self.notes(written)
    }

    /// Notes whether something waits to be sent.
    fn notes<T>(&self, sent: Poll<T>) -> Poll<T> {
        // What was in the way has moved.
        if self.0.blocked.replace(sent.is_pending()) && sent.is_ready() {
            self.0.client.moved();
        }
        sent
    }
}

impl AsyncRead for Line<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &*self.0;
        // Who has said too much is not listened to; the connection's task sees to the rest.
        if inner.balance.is_spent() || inner.exhausted.get() {
            return Poll::Pending;
        }
        let before = room.filled().len();
        let read = self.read(cx, room);
        inner.exhausted.set(read.is_pending());
        ready!(read)?;
        let passed = inner.frames.borrow_mut().pass(&room.filled()[before..], |used| {
            if used == Use::Talks {
                inner.balance.talks();
            }
        });
        Poll::Ready(passed.map_err(|Unsettled| io::ErrorKind::InvalidData.into()))
    }
}

impl AsyncWrite for Line<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, bytes, &[])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A frame's header and its payload; what there is beyond these goes next.
        let mut slices = slices.iter().filter(|slice| !slice.is_empty()).map(|slice| &**slice);
        self.write(cx, slices.next().unwrap_or_default(), slices.next().unwrap_or_default())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Under TLS what was written may still wait.
        let flushed = self.0.conn.borrow_mut().io().poll_flush(cx);
        self.notes(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.conn.borrow_mut().io().poll_shutdown(cx)
    }
}
