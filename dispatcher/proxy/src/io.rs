//! Sockets.

use crate::tls;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection to a client or a server.
#[derive(Debug)]
pub(crate) enum Io {
    /// Bytes as they are.
    Plain(TcpStream),
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
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, room),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, room),
        }
    }

    /// Writes some of `first` and, once that is written, of `then`.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], then: &[u8]) -> Poll<io::Result<usize>> {
        // A single slice costs the kernel less than a list of them.
        match self {
            Io::Plain(stream) if then.is_empty() => Pin::new(stream).poll_write(cx, first),
            Io::Plain(stream) if first.is_empty() => Pin::new(stream).poll_write(cx, then),
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(then)]),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(then)]),
        }
    }

    /// Sees to it that what was written is on its way.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
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

    fn socket(&self) -> &TcpStream {
        match self {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => stream.get_ref().0,
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
        // Fails only where the connection has ended already.
        let _ = self.socket().set_zero_linger();
    }

    /// The socket once more, apart from the runtime, which knows it no more once this is dropped.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub(crate) fn apart(&self) -> io::Result<std::net::TcpStream> {
        self.socket().as_fd().try_clone_to_owned().map(Into::into)
    }

    /// Whether nothing came from the other side, not even its end, as far as the system has told.
    pub(crate) fn is_quiet(&mut self) -> bool {
        // Of what is deciphered already, the end included, the socket knows nothing.
        if let Io::Tls(stream) = self
            && !stream.get_ref().1.wants_read()
        {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        // The readiness costs no system call; only where there is some, the socket is asked.
        match self.socket().poll_read_ready(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(Err(_)) => false,
            Poll::Ready(Ok(())) => {
                let mut byte = [0];
                self.poll_read(&mut cx, &mut byte).is_pending()
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, room),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, room),
        }
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
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
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
