//! One connection of a client.

use crate::clock::Tick;
use crate::config::Timeouts;
use crate::exchange::{self, End};
use crate::front::{Http1, NoRequest};
use crate::http2;
use crate::io::Io;
use crate::link::Link;
use crate::peer::Peer;
use crate::pool::Pool;
use crate::worker::Worker;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a client may go on sending after the last response, which is read and forgotten.
const LINGER: Duration = Duration::from_secs(2);

/// What a client's connection waits for. Each has a time-out of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next request's first byte.
    Rest,
    /// The rest of a request's head.
    Head,
    /// A server's response.
    Response,
    /// The rest of a response's body, to come or to go.
    Relay,
    /// Its streams, which wait for what each of them waits for.
    Streams,
    /// Bytes of another protocol.
    Tunnel,
    /// The client's end, after the last response.
    Linger,
}

/// What the streams of a connection have in common.
struct Who {
    peer: Peer,
    /// Unused connections to servers that were told whose they are, each with its server's pool.
    own: RefCell<Vec<(Rc<Pool>, Box<Link>)>>,
}

/// What is known of a client's connection by those who work for it: its task, its request and the worker's clock.
pub(crate) struct Client {
    worker: Rc<Worker>,
    who: Rc<Who>,
    phase: Cell<Phase>,
    /// When the phase began or, where it may take any time as long as something moves, when something last moved.
    since: Cell<Tick>,
    /// Set by the worker's clock; the task then ends the connection, or the wait for a response.
    overdue: Cell<bool>,
    task: OnceCell<Waker>,
    /// Those of its streams.
    streams: RefCell<Vec<Rc<Client>>>,
}

impl Client {
    pub(crate) fn new(worker: Rc<Worker>, peer: Peer) -> Self {
        Self::from(worker, Rc::new(Who { peer, own: RefCell::default() }))
    }

    fn from(worker: Rc<Worker>, who: Rc<Who>) -> Self {
        let since = Cell::new(worker.clock().now());
        Client {
            worker,
            who,
            phase: Cell::new(Phase::Head),
            since,
            overdue: Cell::new(false),
            task: OnceCell::new(),
            streams: RefCell::default(),
        }
    }

    /// Opens a stream of this connection, with waits of its own.
    pub(crate) fn open_stream(self: &Rc<Self>) -> OpenStream {
        let client = Rc::new(Self::from(self.worker.clone(), self.who.clone()));
        self.streams.borrow_mut().push(client.clone());
        OpenStream { connection: self.clone(), client }
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> &Peer {
        &self.who.peer
    }

    /// The client's own unused connection to the server of `pool`, if one can take a request.
    pub(crate) fn take_own(&self, pool: &Rc<Pool>) -> Option<Box<Link>> {
        let (now, idle) = (self.worker.clock().now(), self.worker.timeouts().server_idle);
        let mut own = self.who.own.borrow_mut();
        own.retain_mut(|(_, link)| link.is_fresh(now, idle));
        let place = own.iter().position(|(of, _)| Rc::ptr_eq(of, pool))?;
        Some(own.swap_remove(place).1)
    }

    /// Puts a connection of the client's own aside.
    pub(crate) fn put_own(&self, pool: &Rc<Pool>, mut link: Box<Link>, now: Tick) {
        link.unused_since = Some(now);
        self.who.own.borrow_mut().push((pool.clone(), link));
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.moved();
    }

    /// Something moved.
    pub(crate) fn moved(&self) {
        self.overdue.set(false);
        self.since.set(self.worker.clock().now());
    }

    /// A request goes to a server, for the first time or again.
    pub(crate) fn awaits_response(&self) {
        self.enter(Phase::Response);
    }

    /// A response is under way.
    pub(crate) fn relays(&self) {
        self.enter(Phase::Relay);
    }

    /// The connection carries another protocol.
    pub(crate) fn tunnels(&self) {
        self.enter(Phase::Tunnel);
    }

    /// The connection serves its streams, if it has any, and what is sent gets through unless it is `blocked`.
    pub(crate) fn shares(&self, blocked: bool) {
        let phase = match (blocked, self.streams.borrow().is_empty()) {
            (true, _) => Phase::Relay,
            (false, false) => Phase::Streams,
            (false, true) => Phase::Rest,
        };
        // What comes and asks for nothing does not lengthen a rest.
        if phase != self.phase.get() {
            self.enter(phase);
        }
    }

    /// The request is done.
    pub(crate) fn rests(&self) {
        self.enter(Phase::Rest);
    }

    /// The connection is closed as soon as the client has seen all.
    pub(crate) fn lingers(&self) {
        self.enter(Phase::Linger);
    }

    /// Some of a request's head came.
    pub(crate) fn has_read(&self) {
        if self.phase.get() == Phase::Rest {
            self.enter(Phase::Head);
        }
    }

    /// Whether the connection has waited too long.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.get()
    }

    /// Looks whether the connection has waited too long, and wakes its task if so.
    pub(crate) fn check(&self, timeouts: &Timeouts) {
        self.streams.borrow().iter().for_each(|stream| stream.check(timeouts));
        let allowed: Duration = match self.phase.get() {
            Phase::Rest => timeouts.client_idle,
            Phase::Head => timeouts.header,
            Phase::Response => timeouts.response,
            Phase::Relay => timeouts.stall,
            Phase::Tunnel => timeouts.tunnel,
            Phase::Streams => Duration::MAX,
            Phase::Linger => LINGER,
        };
        if self.worker.clock().now().since(self.since.get()) >= allowed {
            self.overdue.set(true);
            self.wake();
        }
    }

    /// Makes the task look at what has changed.
    pub(crate) fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// Whether a response has not wholly gone out.
    pub(crate) fn is_mid_response(&self) -> bool {
        matches!(self.phase.get(), Phase::Response | Phase::Relay | Phase::Tunnel)
    }

    /// The task that calls this is the one to be woken.
    pub(crate) async fn begins(&self) {
        poll_fn(|cx| {
            self.task.get_or_init(|| cx.waker().clone());
            Poll::Ready(())
        })
        .await;
    }

    /// Serves the connection until it ends.
    pub(crate) async fn serve(self: Rc<Self>, stream: TcpStream) {
        self.begins().await;
        let mut front = Http1::new(Io::Plain(stream), self.clone());
        loop {
            let end = match front.request().await {
                Ok(head) => exchange::run(&self, &mut front, &head).await,
                Err(NoRequest::Refused(refusal)) => exchange::refuse(&self, &mut front, refusal).await,
                Err(NoRequest::Gone) => return,
                Err(NoRequest::Http2) => {
                    return Box::pin(http2::serve(&self, front.conn(), http2::PREFACE_HEAD)).await;
                }
            };
            match end {
                End::Whole if front.stays_open() => {}
                End::Whole => return front.close().await,
                End::Broken => return front.reset(),
            }
        }
    }
}

/// A stream of a connection, for as long as it is served.
pub(crate) struct OpenStream {
    connection: Rc<Client>,
    /// Its own.
    pub(crate) client: Rc<Client>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut streams = self.connection.streams.borrow_mut();
        streams.retain(|stream| !Rc::ptr_eq(stream, &self.client));
        if streams.is_empty() {
            // Its rest begins.
            self.connection.wake();
        }
    }
}
