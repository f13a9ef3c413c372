//! One thread of the data path: its listeners, its clients, its connections to servers.

use crate::admission::connections;
use crate::admission::descriptors;
use crate::admission::memory::Purse;
use crate::admission::pace::Least;
use crate::admission::rate::Key;
use crate::admission::retries::RetryBudget;
use crate::buffer::Buffers;
use crate::client::{Allowed, Client};
use crate::clock::Clock;
use crate::config::Config;
use crate::conn::Wire;
use crate::dispatcher::{Shared, Stop};
use crate::http1::head::{Name, Rules};
use crate::http1::{Length, RequestHead};
use crate::http2;
use crate::ids::Ids;
use crate::limits::Limits;
use crate::log::{Record, Sink};
use crate::lot::{Lot, Parked};
use crate::metrics::{ClientTally, Refusal, Wait};
use crate::peer::{self, Peer};
use crate::pool::Pool;
use crate::proxy_protocol::Ends;
use crate::routes::Routes;
use crate::server::Server;
use crate::socket::{Promptness, Socket};
use crate::sockets;
use crate::splice::Pipes;
use crate::tasks::{Tasks, Work};
use crate::tls::{Acceptor, Connector};
use crate::trace::Sampling;
use foldhash::fast::FixedState;
use http::Method;
use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::mem::replace;
use std::net::TcpListener;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use std::{collections::HashMap, io, rc::Rc};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use vibra_routing::{Candidates, Explanation, PickState, Table};

/// How long to wait before accepting again after the system refused, as it does when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// So many connections are accepted before those that are served have a turn.
const MOST_AT_ONCE: usize = 64;

/// How often unused connections are looked at, unless they are kept for less.
const SWEEP: Duration = Duration::from_secs(1);

/// What the tasks of one thread share. Nothing here is locked: only one of them runs at a time.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    clock: Clock,
    tally: Arc<ClientTally>,
    view: RefCell<Rc<View>>,
    state: RefCell<PickState>,
    /// By their numbers, which nobody else chooses.
    clients: RefCell<HashMap<u64, Rc<Client>, FixedState>>,
    /// Connections of clients that rest, and have no task.
    lot: Lot<Kept>,
    /// A client has gone.
    left: Notify,
    draining: Cell<bool>,
    ids: RefCell<Ids>,
    sampling: Option<Sampling>,
    logs: RefCell<Vec<Sink>>,
    retries: RefCell<RetryBudget>,
    promptness: Rc<Promptness>,
    connection_tasks: Rc<Tasks<Connection>>,
    stream_tasks: Rc<Tasks<http2::Accepted>>,
}

/// The routing snapshot as one thread sees it: with its own pools, at the servers' indexes.
pub(crate) struct View {
    routes: Arc<Routes>,
    pub(crate) pools: Vec<Rc<Pool>>,
    /// The configuration that holds.
    config: Rc<Config>,
    wire: Rc<Wire>,
}

impl View {
    /// The first one.
    fn new(routes: Arc<Routes>, memory: Rc<Purse>) -> Self {
        let (config, wire) = own(&routes.config, memory);
        View { routes: routes.clone(), pools: Vec::new(), config, wire }.followed_by(routes)
    }

    /// The one after this: connections to servers that stay are kept.
    fn followed_by(&self, routes: Arc<Routes>) -> Self {
        let known = &self.pools;
        let known: HashMap<_, _> = known.iter().map(|pool| (Arc::as_ptr(&pool.server), pool)).collect();
        let pool = |server: &Arc<Server>| match known.get(&Arc::as_ptr(server)) {
            Some(&pool) => pool.clone(),
            None => Rc::new(Pool::new(server.clone())),
        };
        let pools = routes.servers.iter().map(pool).collect();
        let (config, wire) = if Arc::ptr_eq(&routes.config, &self.routes.config) {
            (self.config.clone(), self.wire.clone())
        } else {
            own(&routes.config, self.wire.memory.clone())
        };
        View { routes, pools, config, wire }
    }
}

impl Worker {
    /// For the thread whose runtime this is called in.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub(crate) fn new(shared: Arc<Shared>, tally: Arc<ClientTally>, logs: Vec<Sink>) -> io::Result<Self> {
        let view = View::new(shared.routes.load_full(), Purse::new(shared.admission.memory.clone()));
        Ok(Worker {
            clock: Clock::start(),
            tally,
            view: RefCell::new(Rc::new(view)),
            state: RefCell::default(),
            clients: RefCell::default(),
            lot: Lot::new()?,
            left: Notify::new(),
            draining: Cell::new(false),
            ids: RefCell::new(Ids::new()),
            sampling: shared.config.trace.as_ref().map(|trace| Sampling::new(trace.sample)),
            logs: RefCell::new(logs),
            retries: RefCell::new(RetryBudget::new(&shared.config.limits)),
            promptness: Rc::default(),
            connection_tasks: Rc::default(),
            stream_tasks: Rc::default(),
            shared,
        })
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The configuration as it holds now; a reload changes it.
    pub(crate) fn config(&self) -> Rc<Config> {
        self.view.borrow().config.clone()
    }

    /// Whether clients may speak HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.shared.config.http2
    }

    /// What this thread's new connections have in common.
    pub(crate) fn wire(&self) -> Rc<Wire> {
        self.view.borrow().wire.clone()
    }

    /// What makes connections to servers TLS.
    pub(crate) fn connector(&self) -> &Connector {
        &self.shared.tls.connector
    }

    pub(crate) fn tally(&self) -> &ClientTally {
        &self.tally
    }

    /// What serves streams of HTTP/2.
    pub(crate) fn stream_tasks(&self) -> &Rc<Tasks<http2::Accepted>> {
        &self.stream_tasks
    }

    /// Where new ids come from.
    pub(crate) fn ids(&self) -> RefMut<'_, Ids> {
        self.ids.borrow_mut()
    }

    /// Which new traces are recorded; `None` where the dispatcher takes no part in traces.
    pub(crate) fn sampling(&self) -> Option<Sampling> {
        self.sampling
    }

    /// Whether anybody wants to know of requests.
    pub(crate) fn logs(&self) -> bool {
        !self.logs.borrow().is_empty()
    }

    /// A request has ended.
    pub(crate) fn log(&self, record: &Record<'_>) {
        self.logs.borrow_mut().iter_mut().for_each(|log| log.log(record));
    }

    /// Whether clients get an answer to what they have sent, and no more.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The newest routing snapshot.
    pub(crate) fn view(&self) -> Rc<View> {
        let newest = self.shared.routes.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(&newest, &view.routes) {
            *view = Rc::new(view.followed_by(newest.clone()));
        }
        view.clone()
    }

    /// Ranked servers for an object, as indexes into the view's pools; none if there is none to try.
    pub(crate) fn pick(&self, view: &View, object: &str) -> Candidates {
        let routes = &*view.routes;
        let Some(table) = &routes.table else { return Candidates::new() };
        self.with_state(table, |state| table.pick(state, object, routes, self.clock.date()))
    }

    /// Where a request for an object would go now, and why; `None` if there is no table.
    pub(crate) fn explain(&self, view: &View, object: &str) -> Option<Explanation> {
        let routes = &*view.routes;
        let table = routes.table.as_ref()?;
        Some(self.with_state(table, |state| table.explain(state, object, routes, self.clock.date())))
    }

    /// Does something with what `table` remembers: the threads' common memory where it wants one, else this thread's.
    fn with_state<T>(&self, table: &Table, work: impl FnOnce(&mut PickState) -> T) -> T {
        if table.shares_state() {
            work(&mut self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
        } else {
            work(&mut self.state.borrow_mut())
        }
    }

    /// Whether a request may go on to a server.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn permit(&self, client: &Client, head: &RequestHead) -> Result<(), Refusal> {
        let config = self.config();
        let limits = &config.limits;
        if config.peers.via.is_among(head.fields.all(Name::Via)) {
            return Err(Refusal::Loop);
        }
        if head.max_forwards() == Some(0) {
            // A reflection would tell what proxies have added.
            return Err(if head.method == Method::OPTIONS { Refusal::LastHop } else { Refusal::Unsupported });
        }
        if let (Some(rate), Some(limit)) = (&self.shared.admission.rate, &limits.rate) {
            let value = limit.header.as_ref().and_then(|name| head.fields.find(name));
            let origin = || client.origin(&head.fields).into();
            if !rate.allows(value.map_or_else(origin, Key::Value)) {
                return Err(Refusal::TooMany);
            }
        }
        if let (Some(most), Length::Exact(length)) = (limits.body, head.length)
            && length > most
        {
            return Err(Refusal::BodyTooLong);
        }
        // One buffer for each direction.
        if !self.wire().memory.has_room(2 * limits.buffer) {
            return Err(Refusal::Memory);
        }
        self.retries.borrow_mut().request(self.clock.now().seconds());
        Ok(())
    }

    /// Whether a request that failed at one server may go to another.
    pub(crate) fn may_retry(&self) -> bool {
        let may = self.retries.borrow_mut().retry(self.clock.now().seconds());
        if !may {
            self.tally.unretried.add(1);
        }
        may
    }

    /// A request to `server` failed.
    pub(crate) fn failed(&self, server: &Server) {
        if server.failed() >= self.view.borrow().routes.config.health.passive.failures {
            self.shared.alarm.notify_one();
        }
    }

    /// Serves until it is told to stop; returns how many connections were cut off then.
    pub(crate) async fn run(
        self: Rc<Self>,
        listeners: Vec<(usize, AsyncFd<TcpListener>)>,
        mut stop: watch::Receiver<Stop>,
    ) -> usize {
        spawn_local(self.clone().keep_time());
        spawn_local(self.clone().keep_lot());
        let accept = |(place, listener)| spawn_local(self.clone().accept(listener, place));
        let accepting: Vec<_> = listeners.into_iter().map(accept).collect();
        // A dispatcher whose handle is gone stops at once.
        let _ = stop.wait_for(Option::is_some).await;
        for task in accepting {
            task.abort();
        }
        self.drain(stop).await
    }

    async fn drain(self: &Rc<Self>, mut stop: watch::Receiver<Stop>) -> usize {
        self.draining.set(true);
        self.clear_lot();
        for client in self.clients.borrow().values() {
            client.wake();
        }
        let gone = async {
            while !self.clients.borrow().is_empty() {
                self.left.notified().await;
            }
        };
        tokio::pin!(gone);
        loop {
            let deadline = stop.borrow_and_update().unwrap_or_else(Instant::now);
            tokio::select! {
                () = &mut gone => return 0,
                () = sleep_until(deadline.into()) => return self.clients.borrow().len(),
                // Sooner than it was: the deadline is looked at again.
                Ok(()) = stop.changed() => {}
            }
        }
    }

    /// Accepts connections to the address with that place among those of the configuration.
    async fn accept(self: Rc<Self>, listener: AsyncFd<TcpListener>, place: usize) {
        let acceptor = self.shared.tls.acceptor.clone().filter(|_| self.shared.config.speaks_tls(place));
        // Connections to a listener at one address are to that address.
        let address = listener.get_ref().local_addr().ok().filter(|address| !address.ip().is_unspecified());
        while let Ok(mut ready) = listener.readable().await {
            // By then more have come, and more of their requests.
            after_others().await;
            for _ in 0..MOST_AT_ONCE {
                match ready.try_io(|listener| sockets::accept(listener.get_ref())) {
                    Ok(Ok((stream, source))) => {
                        // Fails only where the client has gone already.
                        if let Ok(destination) = address.map_or_else(|| stream.local_addr(), Ok) {
                            let socket = Socket::accepted(stream, &self.promptness);
                            self.receive(socket, Ends { source, destination }, acceptor.clone(), place).await;
                        }
                    }
                    Ok(Err(error)) if is_the_clients(&error) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "cannot accept connections; going on in {ACCEPT_PAUSE:?}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                    Err(_nobody_waits) => break,
                }
            }
        }
    }

    /// Finds out who is at the other end of a connection to the address with the place `to`, and serves it, as soon as
    /// there is a place for it; until then no more are accepted.
    async fn receive(self: &Rc<Self>, mut socket: Socket, own: Ends, acceptor: Option<Arc<Acceptor>>, to: usize) {
        let places = &self.shared.admission.places;
        if places.is_full() {
            self.tally.delayed.add(1);
        }
        let place = places.take().await;
        let (worker, config) = (self.clone(), self.config());
        if !config.demands_header(to) {
            return self.admit(socket, Peer::new(own, &config.peers.trusted), acceptor, place);
        }
        spawn_local(async move {
            let trust = &config.peers.trusted;
            match peer::announced(&mut socket, own, trust, config.timeouts.header).await {
                Ok(ends) => worker.admit(socket, Peer::new(ends, trust), acceptor, place),
                Err(error) => {
                    tracing::debug!(peer = %own.source, "a connection is closed: {error}");
                    worker.tally.headless[error.kind()].add(1);
                }
            }
        });
    }

    /// Serves a connection in a task of its own, unless there are too many of its address.
    fn admit(
        self: &Rc<Self>,
        socket: Socket,
        peer: Peer,
        acceptor: Option<Arc<Acceptor>>,
        place: OwnedSemaphorePermit,
    ) {
        let address = self.shared.admission.addresses.admit(peer.ends.source.ip());
        // Who is trusted speaks for many.
        if address.is_none() && !peer.trusted {
            self.tally.crowded.add(1);
            return;
        }
        let number = self.tally.opened.get();
        let seat = Seat { worker: self.clone(), number, _place: place, _address: address };
        self.tally.opened.add(1);
        self.serve(socket, peer, acceptor, seat, None);
    }

    /// Serves a connection in a task of its own until it ends or is parked. `rest` is how long it was parked, if it was.
    fn serve(
        self: &Rc<Self>,
        socket: Socket,
        peer: Peer,
        acceptor: Option<Arc<Acceptor>>,
        seat: Seat,
        rest: Option<Duration>,
    ) {
        let client = Rc::new(Client::new(self.clone(), peer));
        rest.into_iter().for_each(|rest| client.has_rested(rest));
        self.clients.borrow_mut().insert(seat.number, client.clone());
        let served = rest.is_some();
        self.connection_tasks.take_on(Connection { client, socket, acceptor, served, seat });
    }

    /// Parks a connection that rests.
    fn park(&self, socket: std::net::TcpStream, client: &Client, seat: Seat) {
        self.clients.borrow_mut().remove(&seat.number);
        let Peer { ends, trusted, .. } = *client.peer();
        let kept = Kept { ends, trusted, seat };
        if let Err(error) = self.lot.park(Parked { socket, since: client.since(), kept }) {
            tracing::debug!(%error, "a connection that rests is closed: it cannot be parked");
        }
        self.count_parked();
    }

    /// Serves a connection again that was parked.
    fn unpark(self: &Rc<Self>, Parked { socket, since, kept }: Parked<Kept>) {
        let Kept { ends, trusted, seat } = kept;
        let rest = self.clock.now().since(since);
        self.serve(Socket::fresh(socket), Peer::known(ends, trusted), None, seat, Some(rest));
    }

    /// Serves those parked connections again that something comes on.
    async fn keep_lot(self: Rc<Self>) {
        while let Ok(woken) = self.lot.woken().await {
            woken.into_iter().for_each(|parked| self.unpark(parked));
            self.count_parked();
        }
    }

    /// Closes all parked connections but those that something has come on.
    fn clear_lot(self: &Rc<Self>) {
        loop {
            let woken = self.lot.take_woken();
            if woken.is_empty() {
                break;
            }
            woken.into_iter().for_each(|parked| self.unpark(parked));
        }
        self.lot.close(|_| false);
        self.count_parked();
    }

    fn count_parked(&self) {
        self.tally.parked.set(self.lot.len() as u64);
    }

    /// Advances the clock, and looks for what has waited too long.
    async fn keep_time(self: Rc<Self>) {
        let mut ticks = interval(self.config().timeouts.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = self.clock.now();
        loop {
            let before = self.clock.now();
            ticks.tick().await;
            self.clock.advance();
            self.tally.ticks.add(1);
            let elapsed = self.clock.now().since(before);
            // Lets go of the pools of servers that have left, even where no request comes.
            let view = self.view();
            let (timeouts, limits) = (&view.config.timeouts, &view.config.limits);
            let least = |rate| Least { rate, grace: timeouts.slow };
            let (upload, download) = (least(limits.upload_rate), least(limits.download_rate));
            let idle = self.shared.admission.places.patience(timeouts.client_idle);
            let allowed = Allowed { idle, timeouts, upload, download, elapsed };
            for client in self.clients.borrow().values() {
                client.check(&allowed);
                if self.is_draining() {
                    client.wake();
                }
            }
            let now = self.clock.now();
            let overstayed = self.lot.close(|since| now.since(since) < idle);
            self.tally.timeouts[Wait::Idle as usize].add(overstayed as u64);
            self.count_parked();
            if now.since(swept) >= timeouts.server_idle.min(SWEEP) {
                swept = now;
                view.pools.iter().for_each(|pool| pool.sweep(now, timeouts.server_idle));
                self.logs.borrow_mut().iter_mut().for_each(Sink::flush);
            }
        }
    }
}

/// Lets all tasks that have something to do go first, once.
async fn after_others() {
    let mut waited = false;
    poll_fn(|cx| {
        if replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A thread's own copy of a configuration, so that no count of its users has to be shared, and what follows from it.
fn own(config: &Config, memory: Rc<Purse>) -> (Rc<Config>, Rc<Wire>) {
    (Rc::new(config.clone()), Rc::new(wire(&config.limits, memory)))
}

fn wire(limits: &Limits, memory: Rc<Purse>) -> Wire {
    let rules = Rules {
        fields: limits.headers,
        line: limits.request_line,
        target: limits.uri,
        coding_overrules_length: limits.coding_overrules_length,
    };
    Wire { buffers: Buffers::new(limits.buffer), pipes: Pipes::for_thread(descriptors()), rules, memory }
}

/// What is kept of a parked connection, of which nothing else is.
struct Kept {
    ends: Ends,
    trusted: bool,
    seat: Seat,
}

/// A connection that is to be served.
struct Connection {
    client: Rc<Client>,
    socket: Socket,
    acceptor: Option<Arc<Acceptor>>,
    /// Whether it was before.
    served: bool,
    seat: Seat,
}

impl Work for Connection {
    type Kept = ();

    async fn run(self, (): &mut ()) {
        let Connection { client, socket, acceptor, served, seat } = self;
        if let Some(socket) = client.serve(socket, acceptor, served).await {
            client.worker().park(socket, &client, seat);
        }
    }
}

/// A client's place among the clients of a thread.
struct Seat {
    worker: Rc<Worker>,
    number: u64,
    _place: OwnedSemaphorePermit,
    _address: Option<connections::Seat>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.clients.borrow_mut().remove(&self.number);
        self.worker.tally.closed.add(1);
        self.worker.left.notify_one();
    }
}

/// Whether a connection failed by itself, which says nothing of the listener.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
