//! Sockets.

use crate::socket::{Socket, Unread};
use crate::tls;
use socket2::SockRef;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection to a client or a server.
#[derive(Debug)]
pub(crate) enum Io {
    /// Bytes as they are.
    Plain(Socket),
    /// Bytes under TLS.
    Tls(Box<tls::Stream>),
}

impl Io {
    /// Reads into `room`; 0 at the end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(room);
        self.poll_fill(cx, &mut room).map_ok(|()| room.filled().len())
    }

    /// Fills some of `room`; none at the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(socket) => socket.poll_fill(cx, room),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, room),
        }
    }

    /// Writes some of `first` and, once that is written, of `then`.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], then: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Io::Plain(socket) => socket.poll_write(cx, first, then),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(then)]),
        }
    }

    /// Sees to it that what was written is on its way.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(_) => Poll::Ready(Ok(())),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(socket) => socket.poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// The scheme of URLs that are asked for here.
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Io::Plain(_) => "http",
            Io::Tls(_) => "https",
        }
    }

    /// The socket, if bytes pass it as they are.
    pub(crate) fn plain(&self) -> Option<&Socket> {
        match self {
            Io::Plain(socket) => Some(socket),
            Io::Tls(_) => None,
        }
    }

    /// The same, to write to.
    pub(crate) fn plain_mut(&mut self) -> Option<&mut Socket> {
        match self {
            Io::Plain(socket) => Some(socket),
            Io::Tls(_) => None,
        }
    }

    /// The descriptor of its socket, unless that is lost.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Io::Plain(socket) => socket.descriptor(),
            Io::Tls(stream) => Some(stream.get_ref().0.as_fd()),
        }
    }

    /// Says under TLS that all was sent (RFC 8446, section 6.1), as far as the system takes it at once; without TLS the
    /// connection's end says so.
    pub(crate) fn farewell(&mut self) {
        if let Io::Tls(stream) = self {
            // Who has gone does not hear it.
            let _ = Pin::new(stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Makes the connection end in a reset.
    pub(crate) fn reset(&self) {
        if let Some(descriptor) = self.descriptor() {
            // Fails only where the connection has ended already.
            let _ = SockRef::from(&descriptor).set_linger(Some(Duration::ZERO));
        }
    }

    /// Takes the socket away, which the runtime watches no more.
    ///
    /// # Errors
    /// If there is none to be had: it is lost, or under TLS.
    pub(crate) fn take(&mut self) -> io::Result<std::net::TcpStream> {
        match self {
            Io::Plain(socket) => socket.take(),
            Io::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// What came from the other side and was not read, as far as the system has told.
    pub(crate) fn unread(&mut self) -> Unread {
        match self {
            Io::Plain(socket) => socket.unread(),
            // Of what is deciphered already, the end included, the socket knows nothing.
            Io::Tls(stream) if !stream.get_ref().1.wants_read() => Unread::Something,
            Io::Tls(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                match Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut [0])) {
                    Poll::Pending => Unread::Nothing,
                    Poll::Ready(_) => Unread::Something,
                }
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_fill(cx, room)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Io::poll_write(self.get_mut(), cx, bytes, &[])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(socket) => socket.poll_write_all(cx, slices),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_shutdown(self.get_mut(), cx)
    }
}
