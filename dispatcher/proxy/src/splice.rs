//! Bytes that go from one socket to another inside the system, without being copied to the process and back.

use crate::socket::Socket;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// A body of which less is left is read and written: copying so little costs no more than a pipe does.
pub(crate) const WORTHWHILE: u64 = 16 * 1024;

/// What a pipe is asked to hold. The system may give less.
const CAPACITY: usize = 256 * 1024;

/// So many unused pipes are kept by a thread. Each is two descriptors.
const KEPT: usize = 16;

/// So many pipes are in use on a thread at most, each by a body that waits for its receiver. Bodies beyond that are copied.
const MOST: usize = 256;

/// A way through the system for bytes between two sockets.
#[derive(Debug)]
pub(crate) struct Pipe {
    into: OwnedFd,
    out: OwnedFd,
    holds: usize,
    _token: Token,
}

impl Pipe {
    fn new(token: Token) -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A user who has too many large pipes gets small ones.
        let _ = fcntl_setpipe_size(&into, CAPACITY);
        Ok(Pipe { into, out, holds: 0, _token: token })
    }

    /// How many bytes are in it.
    pub(crate) fn holds(&self) -> usize {
        self.holds
    }

    /// Takes up to `most` bytes from `socket` into the pipe, which is empty; 0 at the end.
    pub(crate) fn poll_draw(&mut self, cx: &mut Context<'_>, socket: &Socket, most: u64) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.holds, 0);
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(CAPACITY);
        let drawn = socket.poll_reading(cx, |socket| {
            Ok(splice(socket, None, &self.into, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
        });
        if let Poll::Ready(Ok(n)) = drawn {
            self.holds = n;
        }
        drawn
    }

    /// Gives all it holds to `socket`.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<io::Result<()>> {
        while self.holds > 0 {
            let given = socket.poll_writing(cx, |socket| {
                Ok(splice(&self.out, None, socket, None, self.holds, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
            });
            match ready!(given)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.holds -= n,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The pipes of a thread.
#[derive(Debug)]
pub(crate) struct Pipes {
    unused: RefCell<Vec<Pipe>>,
    /// How many more may be made.
    left: Rc<Cell<usize>>,
    /// Whether the system turned out not to take bytes from sockets so.
    useless: Cell<bool>,
}

impl Pipes {
    /// As many as a thread may have where the process may have so many `descriptors`: most of these are for connections.
    pub(crate) fn for_thread(descriptors: usize) -> Self {
        let most = MOST.min(descriptors / 256);
        Pipes { unused: RefCell::default(), left: Rc::new(Cell::new(most)), useless: Cell::new(false) }
    }

    /// An empty pipe; `None` where all are in use, the system has no descriptor left, or pipes are of no use.
    pub(crate) fn take(&self) -> Option<Pipe> {
        if self.useless.get() {
            return None;
        }
        self.unused.borrow_mut().pop().or_else(|| Pipe::new(Token::take(&self.left)?).ok())
    }

    /// Keeps an empty pipe for the next who wants one.
    pub(crate) fn put(&self, pipe: Pipe) {
        let mut unused = self.unused.borrow_mut();
        if pipe.holds == 0 && unused.len() < KEPT {
            unused.push(pipe);
        }
    }

    /// Notes that `error` came from a pipe; whether that says that pipes are of no use here, as where a sandbox does not
    /// know the call. Nothing is lost then: bodies are read and written.
    pub(crate) fn are_useless(&self, error: &io::Error) -> bool {
        let unknown = [Errno::INVAL, Errno::NOSYS, Errno::PERM].map(Errno::raw_os_error);
        let useless = error.raw_os_error().is_some_and(|code| unknown.contains(&code));
        if useless && !self.useless.replace(true) {
            tracing::warn!(%error, "the system does not splice: bodies are copied");
        }
        useless
    }
}

/// The leave to have a pipe.
#[derive(Debug)]
struct Token(Rc<Cell<usize>>);

impl Token {
    fn take(left: &Rc<Cell<usize>>) -> Option<Self> {
        left.set(left.get().checked_sub(1)?);
        Some(Token(left.clone()))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Both ends of a connection.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_go_through_as_they_are_and_the_end_shows() {
        let (mut server, from) = connection().await;
        let (to, mut client) = connection().await;
        let (from, mut to) = (Socket::Watched(from), Socket::Watched(to));
        let pipes = Pipes::for_thread(512);
        let mut pipe = pipes.take().unwrap();
        server.write_all(b"hello, world").await.unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_draw(cx, &from, 5)).await.unwrap(), 5);
        assert_eq!(pipe.holds(), 5);
        poll_fn(|cx| pipe.poll_drain(cx, &mut to)).await.unwrap();
        let mut come = [0; 5];
        client.read_exact(&mut come).await.unwrap();
        assert_eq!((&come, pipe.holds()), (b"hello", 0));
        assert_eq!(poll_fn(|cx| pipe.poll_draw(cx, &from, 99)).await.unwrap(), 7);
        pipes.put(pipe);
        assert!(pipes.unused.borrow().is_empty(), "one that holds something is not used again");
        drop(server);
        let mut pipe = pipes.take().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_draw(cx, &from, 99)).await.unwrap(), 0);
        pipes.put(pipe);
        assert_eq!(pipes.unused.borrow().len(), 1);
    }

    #[test]
    fn no_more_are_in_use_than_there_may_be() {
        let pipes = Pipes::for_thread(512);
        let two = (pipes.take().unwrap(), pipes.take().unwrap());
        assert!(pipes.take().is_none());
        pipes.put(two.0);
        assert!(pipes.take().is_some() && pipes.take().is_some(), "what is dropped may be made anew");
    }

    #[test]
    fn a_system_that_cannot_is_not_asked_again() {
        let pipes = Pipes::for_thread(512);
        assert!(!pipes.are_useless(&Errno::CONNRESET.into()) && pipes.take().is_some());
        assert!(pipes.are_useless(&Errno::NOSYS.into()) && pipes.take().is_none());
    }
}
