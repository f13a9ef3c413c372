//! A TCP connection, of which the runtime gets to know once something has to be waited for.

use rustix::net::{RecvFlags, recv};
use std::cell::Cell;
use std::io::{self, IoSlice, Read, Write};
use std::mem;
use std::net;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
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
        /// Whether it is read before it is watched. That is once at most: who reads on is watched, for the runtime sees to
        /// it that nobody reads for ever while others wait.
        tries: bool,
        /// Who wants to know what came of that.
        promptness: Option<Rc<Promptness>>,
    },
    /// The runtime watches what comes. That there is room to send goes without saying, and to be told so would wake the
    /// thread once more at the beginning.
    Heard(AsyncFd<net::TcpStream>),
    /// The runtime watches what comes, and whether there is room to send.
    Watched(TcpStream),
}

/// What came from the other side and was not read, as far as the system has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    Nothing,
    /// The end of what it says, or of the connection.
    End,
    Something,
}

impl Socket {
    /// A connection that does not block.
    pub(crate) fn fresh(stream: net::TcpStream) -> Self {
        Socket::Fresh { stream: Some(stream), tries: true, promptness: None }
    }

    /// The same, of a client who has just connected.
    pub(crate) fn accepted(stream: net::TcpStream, promptness: &Rc<Promptness>) -> Self {
        Socket::Fresh {
            stream: Some(stream),
            tries: promptness.suggests_to_try(),
            promptness: Some(promptness.clone()),
        }
    }

    /// The connection, of which the runtime tells everything from now on.
    ///
    /// # Errors
    /// If the runtime cannot. The connection is then lost.
    pub(crate) fn watched(&mut self) -> io::Result<&mut TcpStream> {
        if !matches!(self, Socket::Watched(_)) {
            *self = Socket::Watched(TcpStream::from_std(self.take()?)?);
        }
        match self {
            Socket::Watched(stream) => Ok(stream),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The same, for good.
    ///
    /// # Errors
    /// If the runtime cannot.
    pub(crate) fn into_watched(self) -> io::Result<TcpStream> {
        match self {
            Socket::Watched(stream) => Ok(stream),
            mut other => TcpStream::from_std(other.take()?),
        }
    }

    /// Has the runtime tell of what comes.
    fn hear(&mut self) -> io::Result<()> {
        if let Socket::Fresh { .. } = self {
            *self = Socket::Heard(watch(self.take()?)?);
        }
        Ok(())
    }

    /// Takes the connection away, which the runtime watches no more.
    ///
    /// # Errors
    /// If the runtime does not let go of it, or it is lost already.
    pub(crate) fn take(&mut self) -> io::Result<net::TcpStream> {
        match mem::replace(self, Socket::Fresh { stream: None, tries: false, promptness: None }) {
            Socket::Fresh { stream, .. } => stream.ok_or_else(|| io::ErrorKind::NotConnected.into()),
            Socket::Heard(stream) => Ok(stream.into_inner()),
            Socket::Watched(stream) => stream.into_std(),
        }
    }

    /// Whether the runtime tells of what comes.
    pub(crate) fn is_heard(&self) -> bool {
        !matches!(self, Socket::Fresh { .. })
    }

    /// Its descriptor, unless it is lost.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Socket::Fresh { stream, .. } => stream.as_ref().map(AsFd::as_fd),
            Socket::Heard(stream) => Some(stream.get_ref().as_fd()),
            Socket::Watched(stream) => Some(stream.as_fd()),
        }
    }

    /// What came from the other side and was not read. Where the runtime knows of nothing, the system is not asked.
    pub(crate) fn unread(&self) -> Unread {
        let peek = |socket: BorrowedFd<'_>| Ok(recv(socket, &mut [0], RecvFlags::PEEK)?.0);
        let peeked = match self {
            Socket::Fresh { stream: Some(stream), .. } => match peek(stream.as_fd()) {
                blocked if would_block(&blocked) => Poll::Pending,
                peeked => Poll::Ready(peeked),
            },
            other => other.poll_reading(&mut Context::from_waker(Waker::noop()), peek),
        };
        match peeked {
            Poll::Pending => Unread::Nothing,
            Poll::Ready(Ok(1..)) => Unread::Something,
            Poll::Ready(Ok(0) | Err(_)) => Unread::End,
        }
    }

    /// Reads in a way of the caller's own, as soon as that does not block. The runtime must [hear](Self::is_heard) it.
    pub(crate) fn poll_reading<T>(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let done = match self {
                Socket::Fresh { .. } => Err(io::ErrorKind::NotConnected.into()),
                Socket::Heard(stream) => match ready!(stream.poll_read_ready(cx))?.try_io(|fd| read(fd.as_fd())) {
                    Ok(done) => done,
                    Err(_would_block) => continue,
                },
                Socket::Watched(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || read(stream.as_fd()))
                }
            };
            if !would_block(&done) {
                return Poll::Ready(done);
            }
        }
    }

    /// Writes in a way of the caller's own, as soon as that does not block.
    pub(crate) fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if let Some(stream) = self.unwatched() {
            let done = write(stream.as_fd());
            if !would_block(&done) {
                return Poll::Ready(done);
            }
        }
        let stream = self.watched()?;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let done = stream.try_io(Interest::WRITABLE, || write(stream.as_fd()));
            if !would_block(&done) {
                return Poll::Ready(done);
            }
        }
    }

    /// The connection, if nobody watches whether there is room to send.
    fn unwatched(&self) -> Option<&net::TcpStream> {
        match self {
            Socket::Fresh { stream, .. } => stream.as_ref(),
            Socket::Heard(stream) => Some(stream.get_ref()),
            Socket::Watched(_) => None,
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
        if let Some(mut stream) = self.unwatched() {
            let written = stream.write(bytes);
            if !would_block(&written) {
                return Poll::Ready(written);
            }
        }
        Pin::new(self.watched()?).poll_write(cx, bytes)
    }

    /// Writes some of `slices`, the first ones first.
    pub(crate) fn poll_write_all(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(mut stream) = self.unwatched() {
            let written = stream.write_vectored(slices);
            if !would_block(&written) {
                return Poll::Ready(written);
            }
        }
        Pin::new(self.watched()?).poll_write_vectored(cx, slices)
    }

    /// Fills some of `room`; none at the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Socket::Fresh { stream: Some(stream), tries, promptness } = self
            && mem::take(tries)
        {
            let filled = stream.read(room.initialize_unfilled());
            let there = !would_block(&filled);
            if let Some(promptness) = promptness {
                promptness.tried(there);
            }
            if there {
                return Poll::Ready(filled.map(|n| room.advance(n)));
            }
        }
        self.hear()?;
        loop {
            let stream = match self {
                Socket::Fresh { .. } => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Socket::Heard(stream) => stream,
                Socket::Watched(stream) => return Pin::new(stream).poll_read(cx, room),
            };
            let mut readiness = ready!(stream.poll_read_ready(cx))?;
            let room_left = room.remaining();
            if let Ok(filled) = readiness.try_io(|fd| fd.get_ref().read(room.initialize_unfilled())) {
                let n = filled?;
                if (1..room_left).contains(&n) {
                    // That was all: the system tells of more, and has told of an end.
                    readiness.clear_ready();
                }
                room.advance(n);
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.unwatched() {
            Some(stream) => Poll::Ready(stream.shutdown(net::Shutdown::Write)),
            None => Pin::new(self.watched()?).poll_shutdown(cx),
        }
    }
}

/// Whether the first requests of the last clients were there when their connections were accepted.
///
/// Where they are, to read at once spares the watching, which costs ten times as much as a read for nothing; where they are
/// not, as on a machine with little to do, reading at once is what is for nothing.
#[derive(Debug, Default)]
pub(crate) struct Promptness {
    /// Connections since the last whose request was there.
    since: Cell<u32>,
}

impl Promptness {
    /// After so many whose requests were not there,
    const PATIENCE: u32 = 8;
    /// only one of so many is tried.
    const RARELY: u32 = 16;

    /// Whether to read a new connection before it is watched.
    fn suggests_to_try(&self) -> bool {
        let since = self.since.get();
        self.since.set(since.wrapping_add(1));
        since < Self::PATIENCE || since.is_multiple_of(Self::RARELY)
    }

    /// One was tried: its request was `there`, or not.
    fn tried(&self, there: bool) {
        if there {
            self.since.set(0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::runtime::Builder;
    use tokio::time::{sleep, timeout};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A client, and the socket that he is connected to.
    fn connection() -> (net::TcpStream, Socket) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        accepted.set_nonblocking(true).unwrap();
        (client, Socket::fresh(accepted))
    }

    /// The ways of a socket to be known to the runtime.
    const WAYS: [fn(&mut Socket); 3] =
        [|_| {}, |socket| socket.hear().unwrap(), |socket| assert!(socket.watched().is_ok())];

    fn run(test: impl AsyncFnOnce()) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, test()).await.expect("not in time") });
    }

    async fn until(socket: &Socket, unread: Unread) {
        while socket.unread() != unread {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn read(socket: &mut Socket) -> Vec<u8> {
        let mut room = [0; 16];
        let mut room = ReadBuf::new(&mut room);
        poll_fn(|cx| socket.poll_fill(cx, &mut room)).await.unwrap();
        room.filled().to_vec()
    }

    #[test]
    fn what_is_unread_is_told_from_an_end() {
        run(async || {
            for way in WAYS {
                let (mut client, mut socket) = connection();
                way(&mut socket);
                assert_eq!(socket.unread(), Unread::Nothing);
                client.write_all(b"ab").unwrap();
                until(&socket, Unread::Something).await;
                assert_eq!(read(&mut socket).await, b"ab");
                assert_eq!(socket.unread(), Unread::Nothing);
                client.shutdown(net::Shutdown::Write).unwrap();
                until(&socket, Unread::End).await;
            }
        });
    }

    #[test]
    fn an_end_that_comes_with_the_last_bytes_is_not_waited_for() {
        run(async || {
            for way in WAYS {
                let (mut client, mut socket) = connection();
                client.write_all(b"ab").unwrap();
                drop(client);
                way(&mut socket);
                assert_eq!(read(&mut socket).await, b"ab");
                assert_eq!(read(&mut socket).await, b"");
            }
        });
    }

    #[test]
    fn what_comes_after_a_read_that_emptied_the_socket_is_heard_of() {
        run(async || {
            for way in WAYS {
                let (mut client, mut socket) = connection();
                way(&mut socket);
                for _ in 0..3 {
                    let (come, ()) = tokio::join!(read(&mut socket), async {
                        tokio::task::yield_now().await;
                        client.write_all(b"ab").unwrap();
                    });
                    assert_eq!(come, b"ab");
                }
            }
        });
    }

    #[test]
    fn who_finds_no_room_to_send_is_told_of_it() {
        const MUCH: usize = 16 << 20;
        run(async || {
            for way in WAYS {
                let (mut client, mut socket) = connection();
                way(&mut socket);
                let reader = std::thread::spawn(move || io::copy(&mut client, &mut io::sink()).unwrap());
                let bytes = vec![b'v'; MUCH];
                let mut sent = 0;
                while sent < MUCH {
                    sent += poll_fn(|cx| socket.poll_write(cx, &bytes[sent..], &[])).await.unwrap();
                }
                drop(socket);
                assert_eq!(reader.join().unwrap(), MUCH as u64);
            }
        });
    }

    #[test]
    fn who_is_never_prompt_is_rarely_tried_until_one_is() {
        let promptness = Promptness::default();
        let trials = |connections: u32| (0..connections).filter(|_| promptness.suggests_to_try()).count();
        assert_eq!(trials(Promptness::PATIENCE), 8);
        assert_eq!(trials(10 * Promptness::RARELY), 10);
        promptness.tried(false);
        assert_eq!(trials(Promptness::RARELY), 1);
        promptness.tried(true);
        assert_eq!(trials(Promptness::PATIENCE), 8);
    }
}
