//! The connections of one generator thread.

use crate::connection::{Answer, Connection, Slot};
use crate::exchange::Failure;
use crate::message::Message;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

/// Keeps idle connections, the one used last on top, so that no more are open than were ever in use at once.
pub(crate) struct Pool {
    target: SocketAddr,
    limit: usize,
    idle: RefCell<Vec<Connection>>,
    open: Rc<Cell<usize>>,
    opened: Cell<u64>,
    retries: Cell<u64>,
}

impl Pool {
    /// Of at most `limit` connections at once.
    pub(crate) fn new(target: SocketAddr, limit: usize) -> Pool {
        let (idle, open) = Default::default();
        Pool { target, limit, idle, open, opened: Cell::new(0), retries: Cell::new(0) }
    }

    /// Connections opened so far.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// Messages sent again so far, see [`exchange`](Self::exchange).
    pub(crate) fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// Sends `message` and waits for the whole answer.
    ///
    /// A server may close an idle connection in the very moment in which a request is on its way. So a request that
    /// gets no answer on a connection that was used before is sent once more on a new one (RFC 9110, section 9.2.2).
    pub(crate) async fn exchange(&self, message: Message) -> Result<Answer, Failure> {
        if let Some(connection) = self.idle().await {
            match self.exchange_on(connection, message.clone()).await {
                Err(Failure::Closed) => self.retries.set(self.retries.get() + 1),
                done => return done,
            }
        }
        let connection = self.open().await?;
        self.exchange_on(connection, message).await
    }

    async fn exchange_on(&self, mut connection: Connection, message: Message) -> Result<Answer, Failure> {
        let answer = connection.exchange(message).await?;
        if connection.is_usable().await {
            self.idle.borrow_mut().push(connection);
        }
        Ok(answer)
    }

    async fn idle(&self) -> Option<Connection> {
        loop {
            // Not in the loop's head: the borrow must not last over the await.
            let connection = self.idle.borrow_mut().pop();
            let mut connection = connection?;
            if connection.is_usable().await {
                return Some(connection);
            }
        }
    }

    async fn open(&self) -> Result<Connection, Failure> {
        let slot = Slot::take(&self.open, self.limit).ok_or_else(|| {
            Failure::Unsent(format!("all {} connections that a generator thread may open were in use", self.limit))
        })?;
        self.opened.set(self.opened.get() + 1);
        Connection::open(self.target, slot).await.map_err(|error| Failure::of_connecting(&error))
    }
}
