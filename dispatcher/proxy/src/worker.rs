//! One thread of the data path: its listeners, its clients, its connections to servers.

use crate::buffer::Buffers;
use crate::client::Client;
use crate::clock::Clock;
use crate::config::{Limits, Timeouts};
use crate::conn::Wire;
use crate::dispatcher::{Shared, Stop};
use crate::http1::head::Rules;
use crate::metrics::ClientTally;
use crate::peer::{self, Peer};
use crate::peers::Peers;
use crate::pool::Pool;
use crate::proxy_protocol::Ends;
use crate::routes::Routes;
use crate::server::Server;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use std::{collections::HashMap, io, net::SocketAddr, rc::Rc};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use vibra_routing::{Candidates, PickState};

/// How long to wait before accepting again after the system refused, as it does when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often unused connections are looked at, unless they are kept for less.
const SWEEP: Duration = Duration::from_secs(1);

/// What the tasks of one thread share. Nothing here is locked: only one of them runs at a time.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    clock: Clock,
    tally: Arc<ClientTally>,
    view: RefCell<Rc<View>>,
    state: RefCell<PickState>,
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    /// A client has gone.
    left: Notify,
    draining: Cell<bool>,
}

/// The routing snapshot as one thread sees it: with its own pools, at the servers' indexes.
pub(crate) struct View {
    routes: Arc<Routes>,
    pub(crate) pools: Vec<Rc<Pool>>,
    wire: Rc<Wire>,
    peers: Rc<Peers>,
}

impl View {
    /// The first one.
    fn new(routes: Arc<Routes>) -> Self {
        let wire = Rc::new(wire(&routes.config.limits));
        let peers = Rc::new(routes.config.peers.clone());
        View { routes: routes.clone(), pools: Vec::new(), wire, peers }.followed_by(routes)
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
        let config = &routes.config;
        let (wire, peers) = if Arc::ptr_eq(config, &self.routes.config) {
            (self.wire.clone(), self.peers.clone())
        } else {
            (Rc::new(wire(&config.limits)), Rc::new(config.peers.clone()))
        };
        View { routes, pools, wire, peers }
    }
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, tally: Arc<ClientTally>) -> Self {
        let view = View::new(shared.routes.load_full());
        Worker {
            clock: Clock::start(),
            tally,
            view: RefCell::new(Rc::new(view)),
            state: RefCell::default(),
            clients: RefCell::default(),
            left: Notify::new(),
            draining: Cell::new(false),
            shared,
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// As they hold now; a reload changes them.
    pub(crate) fn timeouts(&self) -> Timeouts {
        self.view.borrow().routes.config.timeouts.clone()
    }

    /// Whom it believes, and how it is known to others.
    pub(crate) fn peers(&self) -> Rc<Peers> {
        self.view.borrow().peers.clone()
    }

    /// As they hold now; a reload changes them.
    pub(crate) fn limits(&self) -> Limits {
        self.view.borrow().routes.config.limits.clone()
    }

    /// What this thread's new connections have in common.
    pub(crate) fn wire(&self) -> Rc<Wire> {
        self.view.borrow().wire.clone()
    }

    pub(crate) fn tally(&self) -> &ClientTally {
        &self.tally
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
        if table.shares_state() {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            table.pick(&mut state, object, routes, self.clock.date())
        } else {
            table.pick(&mut self.state.borrow_mut(), object, routes, self.clock.date())
        }
    }

    /// A request to `server` failed.
    pub(crate) fn failed(&self, server: &Server) {
        if server.failed() >= self.view.borrow().routes.config.health.passive.failures {
            self.shared.alarm.notify_one();
        }
    }

    /// Serves until it is told to stop; returns how many connections were cut off then.
    pub(crate) async fn run(self: Rc<Self>, listeners: Vec<TcpListener>, mut stop: watch::Receiver<Stop>) -> usize {
        spawn_local(self.clone().keep_time());
        let accepting: Vec<_> =
            listeners.into_iter().map(|listener| spawn_local(self.clone().accept(listener))).collect();
        // A dispatcher whose handle is gone stops at once.
        let _ = stop.wait_for(Option::is_some).await;
        for task in accepting {
            task.abort();
        }
        self.drain(stop).await
    }

    async fn drain(&self, mut stop: watch::Receiver<Stop>) -> usize {
        self.draining.set(true);
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

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            while self.clients.borrow().len() >= self.limits().connections {
                self.left.notified().await;
            }
            match listener.accept().await {
                Ok((stream, source)) => self.receive(stream, source),
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; going on in {ACCEPT_PAUSE:?}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Finds out who is at the other end of a connection, and serves it.
    fn receive(self: &Rc<Self>, mut stream: TcpStream, source: SocketAddr) {
        // Fails only where the client has gone already.
        let _ = stream.set_nodelay(true);
        let Ok(destination) = stream.local_addr() else { return };
        let own = Ends { source, destination };
        let (worker, peers) = (self.clone(), self.peers());
        if !peers.demand_header {
            return self.admit(stream, Peer::new(own, &peers.trusted));
        }
        spawn_local(async move {
            let trust = &peers.trusted;
            match peer::announced(&mut stream, own, trust, worker.timeouts().header).await {
                Ok(ends) => worker.admit(stream, Peer::new(ends, trust)),
                Err(error) => {
                    tracing::debug!(peer = %source, "a connection is closed: {error}");
                    worker.tally.headless[error.kind()].add(1);
                }
            }
        });
    }

    /// Serves a connection in a task of its own.
    fn admit(self: &Rc<Self>, stream: TcpStream, peer: Peer) {
        let client = Rc::new(Client::new(self.clone(), peer));
        let seat = Seat { worker: self.clone(), number: self.tally.opened.get() };
        self.tally.opened.add(1);
        self.clients.borrow_mut().insert(seat.number, client.clone());
        spawn_local(async move {
            let _seat = seat;
            client.serve(stream).await;
        });
    }

    /// Advances the clock, and looks for what has waited too long.
    async fn keep_time(self: Rc<Self>) {
        let mut ticks = interval(self.timeouts().tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = self.clock.now();
        loop {
            ticks.tick().await;
            self.clock.advance();
            self.tally.ticks.add(1);
            // Lets go of the pools of servers that have left, even where no request comes.
            let view = self.view();
            let timeouts = &view.routes.config.timeouts;
            for client in self.clients.borrow().values() {
                client.check(timeouts);
                if self.is_draining() {
                    client.wake();
                }
            }
            let idle = timeouts.server_idle;
            let now = self.clock.now();
            if now.since(swept) >= idle.min(SWEEP) {
                swept = now;
                view.pools.iter().for_each(|pool| pool.sweep(now, idle));
            }
        }
    }
}

fn wire(limits: &Limits) -> Wire {
    let rules = Rules { fields: limits.headers, coding_overrules_length: limits.coding_overrules_length };
    Wire { buffers: Buffers::new(limits.buffer), rules }
}

/// A client's place among the clients of a thread.
struct Seat {
    worker: Rc<Worker>,
    number: u64,
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
