//! Starting and stopping.

use crate::admin;
use crate::config::{Config, Source, Timeouts};
use crate::control::{self, Call, Control};
use crate::error::StartError;
use crate::http1::head::MOST_FIELDS;
use crate::metrics::ClientTally;
use crate::reload::{Loader, ReloadError, Reloads};
use crate::routes::Routes;
use crate::status::Status;
use crate::worker::Worker;
use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{io, rc::Rc, thread};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use vibra_client::Link as DirectoryLink;
use vibra_routing::PickState;

/// Connections that wait in the kernel to be accepted, per listener.
const BACKLOG: i32 = 1024;
/// How many threads a dispatcher may have.
const MOST_THREADS: usize = 1024;
/// Wishes of operators that wait to be seen to; who has more waits.
const CALLS: usize = 16;
/// The longest time that may be configured.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// An HTTP load balancer. [`start`](Dispatcher::start) makes one.
#[derive(Debug)]
pub enum Dispatcher {}

/// What all threads of a dispatcher share.
pub(crate) struct Shared {
    /// What it was started with: for what is fixed while it runs. What holds now is with the routes.
    pub(crate) config: Config,
    loader: Option<Arc<Loader>>,
    /// Held while the configuration is read again and taken over, so that the last one read is the one that holds.
    reloading: tokio::sync::Mutex<()>,
    pub(crate) reloads: Mutex<Reloads>,
    /// To the control thread.
    calls: mpsc::Sender<Call>,
    /// Tells all threads to stop.
    stop: watch::Sender<Stop>,
    pub(crate) routes: ArcSwap<Routes>,
    /// The memory of algorithms whose threads must share one (LARD): the only lock on the request path, and taken by
    /// these algorithms alone.
    pub(crate) state: Mutex<PickState>,
    /// Some server has failed often enough.
    pub(crate) alarm: Notify,
    /// The directory's revision that the routes follow.
    pub(crate) revision: AtomicU64,
    /// One from each thread.
    pub(crate) clients: Vec<Arc<ClientTally>>,
    /// Whether the directory is heard; [`DirectoryLink::Live`] with a fixed list.
    pub(crate) link: watch::Sender<DirectoryLink>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    /// Reads the configuration again, and takes it over as a whole or not at all.
    pub(crate) async fn reload(&self) -> Result<Vec<&'static str>, ReloadError> {
        let _turn = self.reloading.lock().await;
        let read = self.read_again().await.map(Box::new);
        self.ask(|answer| Call::Reload(read, answer)).await.unwrap_or(Err(ReloadError::Stopping))
    }

    async fn read_again(&self) -> Result<Config, ReloadError> {
        let load = self.loader.clone().ok_or(ReloadError::Nowhere)?;
        let loaded = tokio::task::spawn_blocking(move || load()).await;
        loaded.map_err(|died| ReloadError::Load(died.into()))?.map_err(ReloadError::Load)
    }

    /// Asks the control thread; `None` once that has ended.
    pub(crate) async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.calls.send(call(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Makes all threads stop: requests that are under way may take `grace` to end, or less if that was said before.
    pub(crate) fn stop(&self, grace: Duration) {
        let deadline = Instant::now() + grace.min(LONGEST);
        self.stop.send_if_modified(|stop| {
            let sooner = stop.is_none_or(|before| deadline < before);
            if sooner {
                *stop = Some(deadline);
            }
            sooner
        });
    }

    /// Whether it is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }
}

/// When requests must have ended, once the threads are to stop; `None` while they go on.
pub(crate) type Stop = Option<Instant>;

impl Dispatcher {
    /// Binds the addresses and starts the threads. They have runtimes of their own, so this may be called from any
    /// thread, within or without one.
    ///
    /// With a fixed list of addresses (not names) requests are routed from the start; otherwise they are answered 503
    /// until names are resolved or the directory is heard ([`Handle::status`] tells).
    ///
    /// # Errors
    /// [`StartError`], with what to change.
    pub fn start(config: Config) -> Result<Handle, StartError> {
        Self::launch(config, None)
    }

    /// As [`start`](Dispatcher::start), with a configuration that can be reloaded: `loader` reads it again.
    ///
    /// # Errors
    /// As there.
    pub fn start_reloadable(config: Config, loader: Loader) -> Result<Handle, StartError> {
        Self::launch(config, Some(Arc::new(loader)))
    }

    fn launch(config: Config, loader: Option<Arc<Loader>>) -> Result<Handle, StartError> {
        check(&config)?;
        let mut control = Control::new(&config)?;
        let (listeners, addresses) = bind_all(&config)?;
        let admin = config.admin.map(|address| bind(address, Sharing::Alone)).transpose()?;
        let admin_address = admin.as_ref().map(local_address).transpose()?;

        let initial = match &config.source {
            Source::Static(_) => DirectoryLink::Live,
            Source::Directory { .. } => DirectoryLink::Connecting,
        };
        let (calls, called) = mpsc::channel(CALLS);
        let shared = Arc::new(Shared {
            routes: ArcSwap::from_pointee(control.routes(Instant::now())),
            loader,
            reloading: tokio::sync::Mutex::default(),
            reloads: Mutex::default(),
            calls,
            stop: watch::Sender::new(None),
            state: Mutex::default(),
            alarm: Notify::new(),
            revision: AtomicU64::new(0),
            clients: listeners.iter().map(|_| Arc::default()).collect(),
            link: watch::Sender::new(initial),
            config,
        });

        let (done, ended) = mpsc::unbounded_channel();
        let handle = Handle { shared: shared.clone(), addresses, admin: admin_address, ended, cut: 0 };
        // Every worker holds a receiver for as long as it runs: operators can look on until the last has ended.
        let (working, works) = watch::channel(());
        for (number, listeners) in listeners.into_iter().enumerate() {
            let tally = shared.clients[number].clone();
            let (shared, stopped, works) = (shared.clone(), shared.stop.subscribe(), works.clone());
            spawn(format!("proxy-{number}"), done.clone(), async move || {
                let _works = works;
                let worker = Rc::new(Worker::new(shared, tally));
                match listeners.into_iter().map(tokio::net::TcpListener::from_std).collect() {
                    Ok(listeners) => worker.run(listeners, stopped).await,
                    Err(error) => lost(&error),
                }
            })?;
        }
        drop(works);
        spawn("proxy-control".to_owned(), done, async move || {
            if let Some(listener) = admin {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => drop(tokio::task::spawn_local(admin::serve(listener, shared.clone()))),
                    Err(error) => return lost(&error),
                }
            }
            control::run(control, shared, called, working.closed()).await;
            0
        })?;
        Ok(handle)
    }
}

/// A listener that a runtime does not take: nothing is served there.
fn lost(error: &io::Error) -> usize {
    tracing::error!(%error, "a listener cannot be used");
    0
}

/// A running dispatcher. It stops at once, cutting off what is under way, when this is dropped;
/// [`shutdown`](Handle::shutdown) is the polite way.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    /// From each thread, as it ends: how many connections it cut off.
    ended: mpsc::UnboundedReceiver<usize>,
    /// The sum so far.
    cut: usize,
}

impl Handle {
    /// Where it listens, with the ports that were found, in the order of [`Config::listen`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it listens for operators.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// How it and its servers fare; what `/snapshot` serves.
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// Reads the configuration again and takes it over as a whole or not at all; requests go on meanwhile. Returns the
    /// parts that changed, by the names of the fields of [`Config`]. [`Handle::status`] shows the outcome of the last
    /// time. It needs a runtime that may block.
    ///
    /// # Errors
    /// [`ReloadError`], with what to change. Nothing has changed then.
    pub fn reload(&self) -> impl Future<Output = Result<Vec<&'static str>, ReloadError>> + Send + use<> {
        let shared = self.shared.clone();
        async move { shared.reload().await }
    }

    /// How long connections may take to end where nobody says so: [`Config::drain`], as it was last reloaded.
    pub fn drain_time(&self) -> Duration {
        self.shared.routes.load().config.drain
    }

    /// Stops: accepts no more connections, lets requests that are under way end for at most `grace`, and cuts off the
    /// rest. Returns how many connections were cut off. Where it is stopping already, the earlier end holds.
    pub async fn shutdown(mut self, grace: Duration) -> usize {
        self.shared.stop(grace);
        self.stopped().await
    }

    /// Waits until it has stopped, as operators can make it at the admin address; returns how many connections were cut
    /// off. May be given up and waited for again.
    pub async fn stopped(&mut self) -> usize {
        while let Some(connections) = self.ended.recv().await {
            self.cut += connections;
        }
        self.cut
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop(Duration::ZERO);
    }
}

/// Whether `config` makes sense by itself.
///
/// # Errors
/// What does not.
pub(crate) fn check(config: &Config) -> Result<(), StartError> {
    let invalid = |what, hint| Err(StartError::Invalid { what, hint });
    let (timeouts, health, limits) = (&config.timeouts, &config.health, &config.limits);
    if config.listen.is_empty() {
        return invalid("listen", "name at least one address");
    }
    if !(1..=MOST_THREADS).contains(&config.threads) {
        return invalid("threads", "use 1 to 1024");
    }
    if timeouts.tick < Duration::from_millis(1) {
        return invalid("timeouts.tick", "use 1 ms or more");
    }
    let Timeouts { connect, response, stall, tunnel, header, client_idle, .. } = *timeouts;
    let waits = [connect, response, stall, tunnel, header, client_idle];
    if waits.into_iter().any(is_odd) || timeouts.server_idle > LONGEST {
        return invalid("timeouts", "each must be more than 0 and at most a day");
    }
    if config.drain > LONGEST {
        return invalid("drain", "use at most a day");
    }
    if limits.buffer < 8192 {
        return invalid("limits.buffer", "use 8192 bytes or more");
    }
    if [limits.connections, limits.attempts, limits.headers].contains(&0) {
        return invalid("limits", "connections, attempts and headers must be 1 or more");
    }
    if limits.headers > MOST_FIELDS {
        return invalid("limits.headers", "use at most 256");
    }
    if health.passive.failures == 0 {
        return invalid("health.passive.failures", "use 1 or more");
    }
    if [health.passive.first, health.passive.longest].into_iter().any(is_odd) {
        return invalid("health.passive", "first and longest must be more than 0 and at most a day");
    }
    if health.slow_start > LONGEST {
        return invalid("health.slow_start", "use at most a day");
    }
    let Some(active) = &health.active else { return Ok(()) };
    if active.rise == 0 || active.fall == 0 {
        return invalid("health.active", "rise and fall must be 1 or more");
    }
    if is_odd(active.interval) || is_odd(active.timeout) {
        return invalid("health.active", "interval and timeout must be more than 0 and at most a day");
    }
    if active.path.as_ref().is_some_and(|path| !path.starts_with('/') || path.parse::<http::Uri>().is_err()) {
        return invalid("health.active.path", "use a path that begins with '/'");
    }
    Ok(())
}

/// Whether a time is none that anybody means to wait.
fn is_odd(wait: Duration) -> bool {
    wait.is_zero() || wait > LONGEST
}

/// Whether several sockets listen at one address.
#[derive(Clone, Copy)]
enum Sharing {
    Alone,
    WithSiblings,
}

/// One set of listeners for each thread, and their addresses.
fn bind_all(config: &Config) -> Result<(Vec<Vec<TcpListener>>, Vec<SocketAddr>), StartError> {
    let sharing = if config.threads == 1 { Sharing::Alone } else { Sharing::WithSiblings };
    let first: Vec<_> = config.listen.iter().map(|&address| bind(address, sharing)).collect::<Result<_, _>>()?;
    // The others take the port that the first has found.
    let addresses: Vec<_> = first.iter().map(local_address).collect::<Result<_, _>>()?;
    let mut sets = vec![first];
    for _ in 1..config.threads {
        sets.push(addresses.iter().map(|&address| bind(address, sharing)).collect::<Result<_, _>>()?);
    }
    Ok((sets, addresses))
}

fn bind(address: SocketAddr, sharing: Sharing) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if matches!(sharing, Sharing::WithSiblings) {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|source: io::Error| StartError::Listen { address, source })
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(StartError::System)
}

/// Starts a thread with a runtime of its own, and waits until that stands; `done` gets what `main` returns.
fn spawn<F>(name: String, done: mpsc::UnboundedSender<usize>, main: F) -> Result<(), StartError>
where
    F: AsyncFnOnce() -> usize + Send + 'static,
{
    let (started, starts) = std::sync::mpsc::sync_channel(1);
    let body = move || {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        let _ = started.send(Ok(()));
        let cut = runtime.block_on(main());
        // Closes the sockets before anybody is told that they are closed.
        drop(runtime);
        let _ = done.send(cut);
    };
    thread::Builder::new().name(name).spawn(body).map_err(StartError::System)?;
    let died = |_| Err(io::Error::other("a thread died as it started"));
    starts.recv().unwrap_or_else(died).map_err(StartError::System)
}
