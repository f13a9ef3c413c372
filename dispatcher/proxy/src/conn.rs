//! A connection that carries HTTP/1.1 messages, in either role: heads and bodies come in, heads and bodies go out.
//!
//! Nothing here waits by itself or has a task: who uses a connection polls it.

use crate::admission::memory::{Held, Purse};
use crate::body::{BodyError, Piece, Sink, Source};
use crate::buffer::{Buffer, Buffers};
use crate::http1::head::{self, Fields, Rules};
use crate::http1::{Chunked, Length, Scan, chunked, rewrite};
use crate::io::Io;
use crate::socket::{Socket, Unread};
use crate::splice::{Pipe, Pipes};
use std::io::{self, Write};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// So many bytes of chunks and small pieces are gathered before they are written.
const GATHERED: usize = 32 * 1024;
/// A piece of a body that is no longer goes out in one with what is staged: copying it costs less than a second slice.
const COPIED: usize = 4096;
/// With a head so much is read at most: what a large body begins with is copied, the rest need not be.
const WITH_HEAD: usize = 16 * 1024;

/// What connections of a thread have in common.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) buffers: Buffers,
    pub(crate) pipes: Pipes,
    pub(crate) rules: Rules,
    pub(crate) memory: Rc<Purse>,
}

/// Where in an incoming body the next byte is.
#[derive(Debug)]
enum Reading {
    Over,
    Exact(u64),
    Chunked(Chunked),
    Trailers(Scan),
    UntilClose,
}

/// Why there is no head.
#[derive(Debug)]
pub(crate) enum HeadError {
    /// The connection ended before its first byte.
    Ended,
    /// The connection ended, or failed, in the middle.
    Broken,
    /// What came is no head.
    Malformed,
    /// It is longer than a buffer.
    TooLong,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    io: Io,
    wire: Rc<Wire>,
    input: Buffer,
    scan: Scan,
    reading: Reading,
    trailers: Option<Fields>,
    /// What goes out next, before anything else.
    staged: Vec<u8>,
    /// How much of it has gone.
    gone: usize,
    /// What was drawn from another socket and goes out after that; nothing is staged while it holds something.
    pipe: Option<Pipe>,
    /// Whether the body that goes out is chunked.
    chunked: bool,
    /// What `input` and `staged` take.
    memory: Held,
}

impl Conn {
    pub(crate) fn new(io: Io, wire: Rc<Wire>) -> Self {
        Conn {
            memory: wire.memory.hold(),
            io,
            wire,
            input: Buffer::default(),
            scan: Scan::default(),
            reading: Reading::Over,
            trailers: None,
            staged: Vec::new(),
            gone: 0,
            pipe: None,
            chunked: false,
        }
    }

    /// Gives back the space of what has been taken, and accounts for the rest.
    fn settle(&mut self) {
        self.wire.buffers.reclaim(&mut self.input);
        self.memory.resize(self.input.size() + self.staged.capacity() + self.piped());
    }

    /// Waits for more bytes; 0 at the end. There must be room.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.wire.buffers.lend(&mut self.input);
        let most = if self.is_read() { WITH_HEAD } else { usize::MAX };
        let room = self.input.room();
        let most = most.min(room.len());
        let read = self.io.poll_read(cx, &mut room[..most]);
        match read {
            Poll::Ready(Ok(n)) => self.input.filled(n),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.wire.buffers.shrink(&mut self.input),
        }
        self.settle();
        read
    }

    /// Waits for a head, and reads it. `moved` is told when bytes come.
    pub(crate) fn poll_head<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut moved: impl FnMut(),
        read: impl FnOnce(&[u8], &Rules) -> T,
    ) -> Poll<Result<T, HeadError>> {
        loop {
            let end = self.scan.end(self.input.bytes()).map_err(|_| HeadError::Malformed)?;
            if let Some(length) = end {
                let head = read(&self.input.bytes()[..length], &self.wire.rules);
                self.input.take(length);
                self.settle();
                return Poll::Ready(Ok(head));
            }
            if self.wire.buffers.is_full(&self.input) {
                return Poll::Ready(Err(HeadError::TooLong));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.input.is_empty() => return Poll::Ready(Err(HeadError::Ended)),
                Ok(0) | Err(_) => return Poll::Ready(Err(HeadError::Broken)),
                Ok(_) => moved(),
            }
        }
    }

    /// What has come and was not taken.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.input.bytes()
    }

    /// A body of that length comes next.
    pub(crate) fn expect(&mut self, length: Length) {
        self.trailers = None;
        self.reading = match length {
            Length::None => Reading::Over,
            Length::Exact(bytes) => Reading::Exact(bytes),
            Length::Chunked => Reading::Chunked(Chunked::Size),
            Length::UntilClose => Reading::UntilClose,
        };
    }

    /// Whether the incoming message has come to its end.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.reading, Reading::Over)
    }

    /// Space for what goes out next: a head. The body after it is chunked or goes as it is.
    pub(crate) fn stage(&mut self, chunked: bool) -> &mut Vec<u8> {
        self.chunked = chunked;
        self.staging()
    }

    fn staging(&mut self) -> &mut Vec<u8> {
        debug_assert_eq!(self.piped(), 0, "what was drawn goes first");
        self.wire.buffers.lend_staging(&mut self.staged);
        &mut self.staged
    }

    /// Whether everything that was staged is gone.
    pub(crate) fn is_flushed(&self) -> bool {
        self.is_unstaged() && self.piped() == 0
    }

    /// How many bytes were drawn and have not gone.
    fn piped(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::holds)
    }

    fn is_unstaged(&self) -> bool {
        self.gone == self.staged.len()
    }

    fn sent(&mut self, n: usize) {
        self.gone += n;
        if self.is_unstaged() {
            self.wire.buffers.reclaim_staging(&mut self.staged);
            self.gone = 0;
            self.settle();
        }
    }

    /// Ends the sending direction.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.io.poll_shutdown(cx)
    }

    /// Reads what comes and forgets it; 0 at the end.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.take(self.input.bytes().len());
        let read = self.poll_fill(cx);
        self.input.take(self.input.bytes().len());
        self.settle();
        read
    }

    /// The scheme of URLs that are asked for here.
    pub(crate) fn scheme(&self) -> &'static str {
        self.io.scheme()
    }

    /// Says under TLS that all was sent.
    pub(crate) fn farewell(&mut self) {
        self.io.farewell();
    }

    /// Reads what comes as it comes, what waits first.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return self.io.poll_fill(cx, room);
        }
        let n = room.remaining().min(self.input.bytes().len());
        room.put_slice(&self.input.bytes()[..n]);
        self.input.take(n);
        self.settle();
        Poll::Ready(Ok(()))
    }

    /// What bytes are written to as they are.
    pub(crate) fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Makes the connection end in a reset.
    pub(crate) fn reset(&self) {
        self.io.reset();
    }

    /// Whether another exchange can begin: nothing waits or is under way in either direction, nor has come unasked.
    pub(crate) fn is_at_rest(&mut self) -> bool {
        self.is_over() && self.io.unread() == Unread::Nothing
    }

    /// Whether the other side has heard everything, and nothing that it has said is unread: to close the connection then
    /// takes nothing away from it.
    pub(crate) fn may_close(&mut self) -> bool {
        self.is_over() && self.io.unread() != Unread::Something
    }

    fn is_over(&self) -> bool {
        self.is_read() && self.input.is_empty() && self.is_flushed()
    }

    /// Leaves the pipe to the next who wants one.
    fn put_pipe_aside(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.wire.pipes.put(pipe);
        }
    }

    /// The next `n` bytes of the incoming body were taken.
    fn advance(&mut self, n: usize) {
        match &mut self.reading {
            Reading::Exact(left) => {
                *left -= n as u64;
                if *left == 0 {
                    self.reading = Reading::Over;
                }
            }
            Reading::Chunked(state) => state.took(n),
            _ => {}
        }
    }

    /// Takes away `n` bytes of framing.
    fn next_chunk(&mut self, chunked: &mut Chunked) -> Result<chunked::Piece, BodyError> {
        let (framing, piece) = chunked.next(self.input.bytes()).map_err(|_| BodyError::Malformed)?;
        self.input.take(framing);
        Ok(piece)
    }

    /// What can be told of the body without waiting.
    fn next_piece(&mut self) -> Result<Option<Piece>, BodyError> {
        let here = self.input.bytes().len();
        loop {
            match &mut self.reading {
                Reading::Over => return Ok(Some(Piece::End)),
                Reading::Exact(left) => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(here);
                    return Ok((n > 0).then_some(Piece::Data(n)));
                }
                Reading::UntilClose => return Ok((here > 0).then_some(Piece::Data(here))),
                Reading::Chunked(state) => {
                    let mut state = *state;
                    let piece = self.next_chunk(&mut state)?;
                    self.reading = Reading::Chunked(state);
                    match piece {
                        chunked::Piece::Data(n) => return Ok(Some(Piece::Data(n))),
                        chunked::Piece::More => return Ok(None),
                        chunked::Piece::Trailers => self.reading = Reading::Trailers(Scan::default()),
                    }
                }
                Reading::Trailers(scan) => {
                    let end = scan.end(self.input.bytes()).map_err(|_| BodyError::Malformed)?;
                    let Some(length) = end else { return Ok(None) };
                    if length > 2 {
                        let trailers = head::read_trailers(&self.input.bytes()[..length], &self.wire.rules);
                        self.trailers = Some(trailers.map_err(|_| BodyError::Malformed)?);
                    }
                    self.input.take(length);
                    self.reading = Reading::Over;
                }
            }
        }
    }
}

impl Source for Conn {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        loop {
            if let Some(piece) = self.next_piece()? {
                if piece == Piece::End {
                    self.settle();
                }
                return Poll::Ready(Ok(piece));
            }
            // Framing alone must not fill it: its lines are bounded, and trailers by this.
            if self.wire.buffers.is_full(&self.input) {
                return Poll::Ready(Err(BodyError::Malformed));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if matches!(self.reading, Reading::UntilClose) => self.reading = Reading::Over,
                Ok(0) | Err(_) => return Poll::Ready(Err(BodyError::Ended)),
                Ok(_) => {}
            }
        }
    }

    fn data(&self) -> &[u8] {
        self.input.bytes()
    }

    fn took(&mut self, n: usize) {
        self.input.take(n);
        self.advance(n);
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    fn tap(&self) -> Option<(&Socket, u64)> {
        match &self.reading {
            Reading::Exact(left) if self.input.is_empty() => {
                let socket = self.io.plain()?;
                socket.is_heard().then_some((socket, *left))
            }
            _ => None,
        }
    }

    fn drew(&mut self, n: usize) {
        self.advance(n);
    }
}

impl Sink for Conn {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.piped() > 0 || self.staged.len() - self.gone >= GATHERED {
            ready!(self.poll_flush(cx))?;
        }
        if self.chunked {
            // Writing to a vector does not fail.
            let staged = self.staging();
            let _ = write!(staged, "{:x}\r\n", data.len());
            staged.extend_from_slice(data);
            staged.extend_from_slice(b"\r\n");
            self.settle();
            return Poll::Ready(Ok(data.len()));
        }
        if data.len() <= COPIED {
            self.staging().extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        loop {
            let before = self.staged.len() - self.gone;
            let written = ready!(self.io.poll_write(cx, &self.staged[self.gone..], data))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent(written.min(before));
            if written > before {
                return Poll::Ready(Ok(written - before));
            }
        }
    }

    fn finish(&mut self, trailers: Option<&Fields>) {
        if self.chunked {
            let staged = self.staging();
            staged.extend_from_slice(b"0\r\n");
            match trailers {
                Some(trailers) => rewrite::trailers(trailers, staged),
                None => staged.extend_from_slice(b"\r\n"),
            }
            self.chunked = false;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_unstaged() {
            match ready!(self.io.poll_write(cx, &self.staged[self.gone..], &[]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent(written),
            }
        }
        if self.piped() > 0
            && let (Some(pipe), Some(socket)) = (&mut self.pipe, self.io.plain_mut())
        {
            let drained = pipe.poll_drain(cx, socket);
            if drained.is_ready() {
                self.put_pipe_aside();
            }
            self.settle();
            ready!(drained)?;
        }
        self.io.poll_flush(cx)
    }

    fn draws(&mut self) -> bool {
        if self.chunked || self.io.plain().is_none() {
            return false;
        }
        if self.pipe.is_none() {
            self.pipe = self.wire.pipes.take();
        }
        self.pipe.is_some()
    }

    fn poll_draw(&mut self, cx: &mut Context<'_>, socket: &Socket, most: u64) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
        let drawn = pipe.poll_draw(cx, socket, most);
        if pipe.holds() == 0 {
            self.put_pipe_aside();
        }
        self.settle();
        if let Poll::Ready(Err(error)) = &drawn
            && self.wire.pipes.are_useless(error)
        {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        }
        drawn
    }
}
