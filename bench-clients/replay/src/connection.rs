//! One connection to the server.

use crate::exchange::Failure;
use crate::message::Message;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// A connection that whoever holds it drives; no task of its own runs beside it.
pub(crate) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Driver,
    _slot: Slot,
}

/// One of the connections that may be open at once; gives itself back when it is dropped.
pub(crate) struct Slot(Rc<Cell<usize>>);

impl Slot {
    /// One more of `open`, if that makes no more than `limit`.
    pub(crate) fn take(open: &Rc<Cell<usize>>, limit: usize) -> Option<Slot> {
        (open.get() < limit).then(|| {
            open.set(open.get() + 1);
            Slot(open.clone())
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// An answer, when all of it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Length of its body.
    pub(crate) bytes: u64,
}

impl Connection {
    /// Connects to `target`.
    pub(crate) async fn open(target: SocketAddr, slot: Slot) -> io::Result<Connection> {
        let stream = TcpStream::connect(target).await?;
        // A request is one segment, which must not wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = Driver { connection: Box::pin(connection), finished: false };
        Ok(Connection { sender, driver, _slot: slot })
    }

    /// Whether another request can be sent. To be asked both when the connection becomes idle and before it is used
    /// again, for the server may have closed it meanwhile.
    pub(crate) async fn is_usable(&mut self) -> bool {
        let Connection { sender, driver, .. } = self;
        poll_fn(|context| {
            driver.poll(context);
            Poll::Ready(!driver.finished && matches!(sender.poll_ready(context), Poll::Ready(Ok(()))))
        })
        .await
    }

    /// Sends `message` and reads the answer to its end; the body is counted and thrown away as it arrives.
    pub(crate) async fn exchange(&mut self, message: Message) -> Result<Answer, Failure> {
        let response = self.sender.send_request(message);
        let response = self.driver.while_driven(response).await.ok_or(Failure::Closed)?;
        let response = response.map_err(|error| Failure::of_head(&error))?;
        let status = response.status().as_u16();
        let bytes = self.read(response.into_body()).await?;
        Ok(Answer { status, bytes })
    }

    async fn read(&mut self, mut body: Incoming) -> Result<u64, Failure> {
        let mut bytes = 0;
        loop {
            match self.driver.while_driven(body.frame()).await {
                Some(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Some(Err(error))) => return Err(Failure::of_body(&error)),
                Some(None) => return Ok(bytes),
                None => return Err(Failure::Truncated),
            }
        }
    }
}

/// The half of a hyper connection that reads and writes.
struct Driver {
    connection: Pin<Box<http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>>>,
    finished: bool,
}

impl Driver {
    fn poll(&mut self, context: &mut Context<'_>) {
        // An error is also told to whoever waits for the response or for the body.
        self.finished = self.finished || self.connection.as_mut().poll(context).is_ready();
    }

    /// Waits for `work`, which waits for this connection; `None` if the connection is over and it still waits.
    async fn while_driven<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Before, to tell the connection what is wanted; after, to take what it got.
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            self.poll(context);
            match work.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if self.finished => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
