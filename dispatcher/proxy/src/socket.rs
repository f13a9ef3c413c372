//! A TCP connection, of which the runtime gets to know once something has to be waited for.

use std::io::{self, IoSlice, Read, Write};
use std::mem;
use std::net;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection.
///
/// To watch one takes two system calls, one at its beginning and one at its end. The request of a client who connects for
/// just that is mostly there when the connection is accepted, and the response mostly fits into the socket: then nothing
/// of the client's is ever waited for.
#[derive(Debug)]
pub(crate) enum Socket {
    /// The runtime does not know it.
    Fresh {
        /// `None` if the runtime could not take it.
        stream: Option<net::TcpStream>,
        /// Whether something was read. Who reads on is watched: the runtime sees to it that nobody reads for ever while
        /// others wait.
        read: bool,
    },
    /// The runtime watches it.
    Watched(TcpStream),
}

impl Socket {
    /// A connection that does not block.
    pub(crate) fn fresh(stream: net::TcpStream) -> Self {
        Socket::Fresh { stream: Some(stream), read: false }
    }

    /// The connection, which the runtime watches from now on.
    ///
    /// # Errors
    /// If the runtime cannot. The connection is then lost.
    pub(crate) fn watched(&mut self) -> io::Result<&mut TcpStream> {
        if let Socket::Fresh { stream, .. } = self {
            let stream = stream.take().ok_or(io::ErrorKind::NotConnected)?;
            *self = Socket::Watched(TcpStream::from_std(stream)?);
        }
        match self {
            Socket::Watched(stream) => Ok(stream),
            Socket::Fresh { .. } => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The same, for good.
    ///
    /// # Errors
    /// If the runtime cannot.
    pub(crate) fn into_watched(self) -> io::Result<TcpStream> {
        match self {
            Socket::Watched(stream) => Ok(stream),
            Socket::Fresh { stream, .. } => TcpStream::from_std(stream.ok_or(io::ErrorKind::NotConnected)?),
        }
    }

    /// Takes the connection away, which the runtime watches no more.
    ///
    /// # Errors
    /// If the runtime does not let go of it, or it is lost already.
    pub(crate) fn take(&mut self) -> io::Result<net::TcpStream> {
        match mem::replace(self, Socket::Fresh { stream: None, read: true }) {
            Socket::Watched(stream) => stream.into_std(),
            Socket::Fresh { stream, .. } => stream.ok_or_else(|| io::ErrorKind::NotConnected.into()),
        }
    }

    /// The connection, if the runtime watches it.
    pub(crate) fn if_watched(&self) -> Option<&TcpStream> {
        match self {
            Socket::Watched(stream) => Some(stream),
            Socket::Fresh { .. } => None,
        }
    }

    /// Its descriptor, unless it is lost.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Socket::Fresh { stream, .. } => stream.as_ref().map(AsFd::as_fd),
            Socket::Watched(stream) => Some(stream.as_fd()),
        }
    }

    /// Whether nothing came from the other side, not even its end, as far as the system has told.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Socket::Fresh { stream, .. } => stream.as_ref().is_some_and(|stream| would_block(&stream.peek(&mut [0]))),
            Socket::Watched(stream) => {
                // The readiness costs no system call; only where there is some, the socket is asked.
                match stream.poll_read_ready(&mut Context::from_waker(Waker::noop())) {
                    Poll::Pending => true,
                    Poll::Ready(Err(_)) => false,
                    Poll::Ready(Ok(())) => would_block(&stream.try_read(&mut [0])),
                }
            }
        }
    }

    /// Writes some of `first` and, once that is written, of `then`.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], then: &[u8]) -> Poll<io::Result<usize>> {
        // A single slice costs the kernel less than a list of them.
        match (first, then) {
            (one, []) | ([], one) => self.poll_write_one(cx, one),
            (first, then) => self.poll_write_all(cx, &[IoSlice::new(first), IoSlice::new(then)]),
        }
    }

    fn poll_write_one(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Socket::Fresh { stream: Some(stream), .. } = self {
            let written = stream.write(bytes);
            if !would_block(&written) {
                return Poll::Ready(written);
            }
        }
        Pin::new(self.watched()?).poll_write(cx, bytes)
    }

    /// Writes some of `slices`, the first ones first.
    pub(crate) fn poll_write_all(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Socket::Fresh { stream: Some(stream), .. } = self {
            let written = stream.write_vectored(slices);
            if !would_block(&written) {
                return Poll::Ready(written);
            }
        }
        Pin::new(self.watched()?).poll_write_vectored(cx, slices)
    }

    /// Fills some of `room`; none at the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Socket::Fresh { stream: Some(stream), read: read @ false } = self {
            let filled = stream.read(room.initialize_unfilled());
            if !would_block(&filled) {
                *read = true;
                return Poll::Ready(filled.map(|n| room.advance(n)));
            }
        }
        Pin::new(self.watched()?).poll_read(cx, room)
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Fresh { stream: Some(stream), .. } => Poll::Ready(stream.shutdown(net::Shutdown::Write)),
            other => Pin::new(other.watched()?).poll_shutdown(cx),
        }
    }
}

/// Has the runtime tell when there is something to read from what has a descriptor of its own.
///
/// # Errors
/// If the runtime cannot.
#[expect(deprecated, reason = "safe for a descriptor that is owned; its successor is `unsafe` for the sake of others")]
pub(crate) fn watch<T: AsRawFd>(owned: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owned, Interest::READABLE)
}

fn would_block<T>(done: &io::Result<T>) -> bool {
    done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
