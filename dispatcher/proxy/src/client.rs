//! One connection of a client.

use crate::admission::pace::{Flow, Least};
use crate::clock::Tick;
use crate::exchange::{self, End};
use crate::front::{Http1, NoRequest};
use crate::http1::head::{Fields, PREFACE_HEAD};
use crate::http1::rewrite;
use crate::http2;
use crate::io::Io;
use crate::limits::Timeouts;
use crate::link::Link;
use crate::metrics::Wait;
use crate::origin::origin;
use crate::peer::Peer;
use crate::pool::Pool;
use crate::socket::Socket;
use crate::tls::{Acceptor, Fault, TlsVersion};
use crate::worker::Worker;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long a client may go on sending after the last response, which is read and forgotten.
const LINGER: Duration = Duration::from_secs(2);

/// How long after it has connected a client's first request is waited for in any case.
const NEW: Duration = Duration::from_secs(1);

/// Clients that ask again within this keep their task: one that ends and one that begins cost more time than is worth the
/// memory.
const NAP: Duration = Duration::from_millis(100);

/// What a client's connection waits for. Each has a time-out of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The end of the handshake of TLS.
    Handshake,
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

/// What connections are measured by when the clock looks at them.
pub(crate) struct Allowed<'a> {
    pub(crate) timeouts: &'a Timeouts,
    /// For a client's next request, as things are.
    pub(crate) idle: Duration,
    pub(crate) upload: Least,
    pub(crate) download: Least,
    /// Since the last look.
    pub(crate) elapsed: Duration,
}

/// What the streams of a connection have in common.
struct Who {
    peer: Peer,
    /// Unused connections to servers that were told whose they are, each with its server's pool.
    own: RefCell<Vec<(Rc<Pool>, Link)>>,
    /// The version of TLS that is spoken.
    tls: Cell<Option<TlsVersion>>,
}

/// What is known of a client's connection by those who work for it: its task, its request and the worker's clock.
pub(crate) struct Client {
    worker: Rc<Worker>,
    who: Rc<Who>,
    /// His part in sending a request's body.
    pub(crate) upload: Flow,
    /// His part in taking a response.
    pub(crate) download: Flow,
    phase: Cell<Phase>,
    /// When the phase began or, where it may take any time as long as something moves, when something last moved.
    since: Cell<Tick>,
    /// Set by the worker's clock; the task then ends the connection, or the wait for a response.
    overdue: Cell<bool>,
    /// Set likewise where a body moves, but too slowly: no progress takes that back.
    slow: Cell<bool>,
    /// Whether the last rest was a short one, so that the next is taken for one too.
    naps: Cell<bool>,
    /// Whether the rest is long, or is taken for a long one; the task then gives the connection away to be parked.
    rests_long: Cell<bool>,
    task: OnceCell<Waker>,
    /// Those of its streams.
    streams: RefCell<Vec<Rc<Client>>>,
}

impl Client {
    pub(crate) fn new(worker: Rc<Worker>, peer: Peer) -> Self {
        Self::from(worker, Rc::new(Who { peer, own: RefCell::default(), tls: Cell::new(None) }))
    }

    fn from(worker: Rc<Worker>, who: Rc<Who>) -> Self {
        let since = Cell::new(worker.clock().now());
        Client {
            worker,
            who,
            upload: Flow::default(),
            download: Flow::default(),
            phase: Cell::new(Phase::Head),
            since,
            overdue: Cell::new(false),
            slow: Cell::new(false),
            naps: Cell::new(false),
            rests_long: Cell::new(false),
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

    /// Where a request with those fields began, as far as the word of trusted peers goes.
    pub(crate) fn origin(&self, fields: &Fields) -> IpAddr {
        origin(&self.worker.config().peers, self.peer().ends.source.ip(), &rewrite::claims(fields))
    }

    /// The client's own unused connection to the server of `pool`, if one can take a request.
    pub(crate) fn take_own(&self, pool: &Rc<Pool>) -> Option<Link> {
        let (now, idle) = (self.worker.clock().now(), self.worker.config().timeouts.server_idle);
        let mut own = self.who.own.borrow_mut();
        own.retain_mut(|(_, link)| link.is_fresh(now, idle));
        let place = own.iter().position(|(of, _)| Rc::ptr_eq(of, pool))?;
        Some(own.swap_remove(place).1)
    }

    /// Puts a connection of the client's own aside.
    pub(crate) fn put_own(&self, pool: &Rc<Pool>, mut link: Link, now: Tick) {
        link.rest(now);
        self.who.own.borrow_mut().push((pool.clone(), link));
    }

    /// The version of TLS that is spoken, if any.
    pub(crate) fn tls(&self) -> Option<TlsVersion> {
        self.who.tls.get()
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
        self.upload.reset();
        self.download.reset();
        self.slow.set(false);
        self.rests_long.set(!self.naps.get() && self.is_plain());
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

    /// Whether it has connected just now, so that its first request may be on the way: who takes no more requests still
    /// takes this one.
    pub(crate) fn is_new(&self) -> bool {
        self.phase.get() == Phase::Head && self.worker.clock().now().since(self.since.get()) < NEW
    }

    /// Its last rest took so long.
    pub(crate) fn has_rested(&self, rest: Duration) {
        self.naps.set(rest < NAP);
    }

    /// Whether the connection has nothing to say for so long that it need not have a task.
    pub(crate) fn may_be_parked(&self) -> bool {
        self.rests_long.get() && self.phase.get() == Phase::Rest
    }

    /// When its phase began.
    pub(crate) fn since(&self) -> Tick {
        self.since.get()
    }

    /// Whether the connection has waited too long.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.get() || self.slow.get()
    }

    /// Whether that is since the client is too slow with a body.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.get()
    }

    /// Looks whether the connection has waited too long, and wakes its task if so.
    pub(crate) fn check(&self, allowed: &Allowed<'_>) {
        self.streams.borrow().iter().for_each(|stream| stream.check(allowed));
        let timeouts = allowed.timeouts;
        let (wait, most) = match self.phase.get() {
            Phase::Handshake => (Some(Wait::Handshake), timeouts.handshake),
            Phase::Rest => (Some(Wait::Idle), allowed.idle),
            Phase::Head => (Some(Wait::Header), timeouts.header),
            Phase::Response => (Some(Wait::Response), timeouts.response),
            Phase::Relay => (Some(Wait::Stall), timeouts.stall),
            Phase::Tunnel => (Some(Wait::Tunnel), timeouts.tunnel),
            Phase::Streams => (None, Duration::MAX),
            Phase::Linger => (None, LINGER),
        };
        let waited = self.worker.clock().now().since(self.since.get());
        if waited >= most {
            self.give_up(&self.overdue, wait);
        } else if wait == Some(Wait::Idle) && waited >= NAP && self.is_plain() && !self.rests_long.replace(true) {
            self.wake();
        }
        if matches!(self.phase.get(), Phase::Response | Phase::Relay) {
            if self.upload.is_too_slow(&allowed.upload, allowed.elapsed) {
                self.give_up(&self.slow, Some(Wait::Upload));
            }
            if self.download.is_too_slow(&allowed.download, allowed.elapsed) {
                self.give_up(&self.slow, Some(Wait::Download));
            }
        }
    }

    /// Whether nothing is kept for the connection but its socket: neither a session of TLS nor connections of its own.
    fn is_plain(&self) -> bool {
        self.tls().is_none() && self.who.own.borrow().is_empty()
    }

    fn give_up(&self, why: &Cell<bool>, wait: Option<Wait>) {
        if let (false, Some(wait)) = (why.replace(true), wait) {
            self.worker.tally().timeouts[wait as usize].add(1);
        }
        self.wake();
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

    /// Serves the connection, under TLS where there is an acceptor, until it ends or rests for long: then it is given back.
    /// `served` tells whether it was before.
    pub(crate) async fn serve(
        self: &Rc<Self>,
        socket: Socket,
        acceptor: Option<Arc<Acceptor>>,
        served: bool,
    ) -> Option<std::net::TcpStream> {
        self.begins().await;
        let (io, by_http2) = match acceptor {
            None => (Io::Plain(socket), false),
            Some(acceptor) => match self.shake_hands(socket, &acceptor).await {
                Some(agreed) => agreed,
                None => return None,
            },
        };
        let mut front = Http1::new(io, self.clone(), served);
        if by_http2 {
            Box::pin(http2::serve(self, front.conn(), &[])).await;
            return None;
        }
        loop {
            let end = match front.request().await {
                Ok(head) => exchange::run(self, &mut front, &head).await,
                Err(NoRequest::Refused(refusal)) => Box::pin(exchange::refuse(self, &mut front, refusal)).await,
                Err(NoRequest::Rests) => return front.conn().io().take().ok(),
                Err(NoRequest::Gone) => {
                    front.leave();
                    break;
                }
                Err(NoRequest::Http2) => {
                    Box::pin(http2::serve(self, front.conn(), PREFACE_HEAD)).await;
                    break;
                }
            };
            match end {
                End::Whole if front.stays_open() => continue,
                End::Whole => Box::pin(front.close()).await,
                End::Broken => front.reset(),
            }
            break;
        }
        None
    }

    /// The connection under TLS, and whether it speaks HTTP/2; `None` where the client does not get that far.
    async fn shake_hands(&self, socket: Socket, acceptor: &Acceptor) -> Option<(Io, bool)> {
        self.enter(Phase::Handshake);
        // Its state is large and short-lived: it shall not make the task of every connection as large.
        let mut accepting = Box::pin(async { acceptor.accept(socket.into_watched()?).await });
        let accepted = poll_fn(|cx| match accepting.as_mut().poll(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending if self.is_overdue() || self.worker.is_draining() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let tally = &self.worker.tally().handshakes;
        match accepted.await {
            Some(Ok((stream, handshake))) => {
                tally.made(&handshake);
                tracing::debug!(
                    client = self.peer().address,
                    version = handshake.version.name(),
                    resumed = handshake.resumed,
                    http2 = handshake.http2,
                    server_name = handshake.server_name,
                    certificate = handshake.client,
                    "handshake"
                );
                self.who.tls.set(Some(handshake.version));
                self.enter(Phase::Head);
                Some((Io::Tls(Box::new(stream)), handshake.http2))
            }
            Some(Err(error)) => {
                tally.failed(Fault::of(&error));
                tracing::debug!(client = self.peer().address, %error, "no handshake");
                None
            }
            None => {
                if self.is_overdue() {
                    tally.failed(Fault::TimedOut);
                }
                None
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
        if let Some(place) = streams.iter().position(|stream| Rc::ptr_eq(stream, &self.client)) {
            streams.swap_remove(place);
        }
        if streams.is_empty() {
            // Its rest begins.
            self.connection.wake();
        }
    }
}
