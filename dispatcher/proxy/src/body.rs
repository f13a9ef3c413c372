//! Bodies, streamed at the pace of the slower side.

use crate::http1::head::Fields;
use crate::socket::Socket;
use crate::splice::WORTHWHILE;
use std::io;
use std::task::{Context, Poll, ready};

/// What a body goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes, at the front of [`Source::data`].
    Data(usize),
    /// It has ended as it should.
    End,
}

/// Why a body does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The connection ended, or failed, before the body did.
    Ended,
    /// It is not framed as it said.
    Malformed,
}

/// Where a body comes from.
pub(crate) trait Source {
    /// Waits for the next piece. The same is told again until [`took`](Self::took) says otherwise.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>>;
    /// What has come; a piece of data is at its front.
    fn data(&self) -> &[u8];
    /// Takes the first `n` bytes of the piece away.
    fn took(&mut self, n: usize);
    /// The trailer section, if there was one, once the body has ended.
    fn trailers(&mut self) -> Option<Fields>;
    /// The socket that the next bytes of the body come from as they are, and how many they are, if that is so and none
    /// of them has come to [`data`](Self::data).
    fn tap(&self) -> Option<(&Socket, u64)> {
        None
    }
    /// So many bytes were taken from the [`tap`](Self::tap).
    fn drew(&mut self, _: usize) {}
}

/// Where a body goes.
pub(crate) trait Sink {
    /// Sends some of `data`, or keeps it to be sent; how much of it.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;
    /// Ends the body; what that takes is kept to be sent.
    fn finish(&mut self, trailers: Option<&Fields>);
    /// Sends what is kept.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Whether it can [draw](Self::poll_draw) from a socket.
    fn draws(&mut self) -> bool {
        false
    }
    /// Takes up to `most` bytes from a socket, unseen, and keeps them to be sent; 0 at that socket's end. Nothing else may
    /// be kept.
    ///
    /// # Errors
    /// Those of the socket; [`Unsupported`](io::ErrorKind::Unsupported) if it does not [draw](Self::draws) after all.
    fn poll_draw(&mut self, _: &mut Context<'_>, _: &Socket, _: u64) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// Why a body did not get across.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It did not come.
    Source(BodyError),
    /// It could not be sent.
    Sink,
}

/// A body on its way across.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    /// How many bytes of it are across.
    pub(crate) bytes: u64,
    /// Whether all of it is, but for what is kept to be sent.
    ended: bool,
    waits_for: Option<Side>,
}

/// One of the two that a transfer is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Sink,
}

impl Transfer {
    /// Moves what can be moved; ready once the body is across. `moved` is told of any progress.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Source,
        to: &mut impl Sink,
        moved: impl FnMut(),
    ) -> Poll<Result<(), Broken>> {
        ready!(self.poll_taken(cx, from, to, moved))?;
        self.waits_for = Some(Side::Sink);
        ready!(to.poll_flush(cx)).map_err(|_| Broken::Sink)?;
        self.waits_for = None;
        Poll::Ready(Ok(()))
    }

    /// As [`poll`](Self::poll), but ready as soon as the source has nothing more to do with it; some of it may still be
    /// kept to be sent.
    pub(crate) fn poll_taken(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Source,
        to: &mut impl Sink,
        mut moved: impl FnMut(),
    ) -> Poll<Result<(), Broken>> {
        self.waits_for = Some(Side::Sink);
        while !self.ended {
            if from.tap().is_some_and(|(_, left)| left >= WORTHWHILE) && to.draws() {
                ready!(self.poll_drawn(cx, from, to)?);
                moved();
                continue;
            }
            let piece = match from.poll_piece(cx) {
                Poll::Ready(piece) => piece.map_err(Broken::Source)?,
                Poll::Pending => {
                    // What is kept must not wait for more to come.
                    ready!(to.poll_flush(cx)).map_err(|_| Broken::Sink)?;
                    self.waits_for = Some(Side::Source);
                    return Poll::Pending;
                }
            };
            match piece {
                Piece::Data(n) => {
                    let sent = ready!(to.poll_send(cx, &from.data()[..n])).map_err(|_| Broken::Sink)?;
                    from.took(sent);
                    self.bytes += sent as u64;
                    moved();
                }
                Piece::End => {
                    to.finish(from.trailers().as_ref());
                    self.ended = true;
                }
            }
        }
        self.waits_for = None;
        Poll::Ready(Ok(()))
    }

    /// Moves some of what is left without looking at it.
    fn poll_drawn(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Source,
        to: &mut impl Sink,
    ) -> Poll<Result<(), Broken>> {
        let Some((socket, left)) = from.tap() else { return Poll::Ready(Ok(())) };
        ready!(to.poll_flush(cx)).map_err(|_| Broken::Sink)?;
        self.waits_for = Some(Side::Source);
        match ready!(to.poll_draw(cx, socket, left)) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Ok(0) | Err(_) => return Poll::Ready(Err(Broken::Source(BodyError::Ended))),
            Ok(n) => {
                from.drew(n);
                self.bytes += n as u64;
            }
        }
        self.waits_for = Some(Side::Sink);
        Poll::Ready(Ok(()))
    }

    /// Whose turn it is, where it came to a halt.
    pub(crate) fn waits_for(&self) -> Option<Side> {
        self.waits_for
    }
}
