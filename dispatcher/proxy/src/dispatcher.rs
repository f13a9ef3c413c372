//! Starting and stopping.

use crate::admin;
use crate::admission::Admission;
use crate::config::{AccessLog, Config, Source};
use crate::control::{self, Call, Control};
use crate::error::StartError;
use crate::limits::LONGEST;
use crate::log::{Log, Lost, Target};
use crate::members::Orders;
use crate::metrics::ClientTally;
use crate::reload::{Loader, ReloadError, Reloads};
use crate::routes::Routes;
use crate::socket::watch;
use crate::sockets::{Inherited, local_address};
use crate::status::Status;
use crate::tls::{Loaded, Tls, TlsError};
use crate::worker::Worker;
use arc_swap::ArcSwap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, rc::Rc, thread};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use vibra_client::Link as DirectoryLink;
use vibra_routing::PickState;

/// How many threads a dispatcher may have.
const MOST_THREADS: usize = 1024;
/// Wishes of operators that wait to be seen to; who has more waits.
const CALLS: usize = 16;
/// How long the last lines of a log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(5);

/// An HTTP load balancer. [`start`](Dispatcher::start) makes one.
#[derive(Debug)]
pub enum Dispatcher {}

/// What all threads of a dispatcher share.
pub(crate) struct Shared {
    /// What it was started with: for what is fixed while it runs. What holds now is with the routes.
    pub(crate) config: Config,
    pub(crate) admission: Admission,
    loader: Option<Arc<Loader>>,
    /// All that it listens with, for its successor; none any more once it stops, for an open socket takes connections.
    sockets: Mutex<Vec<TcpListener>>,
    /// Somebody else serves operators.
    retired: Notify,
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
    /// The logs by name, with the requests that they had to drop.
    pub(crate) lost: Vec<(&'static str, Arc<Lost>)>,
    /// What makes connections TLS.
    pub(crate) tls: Tls,
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
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Vec<&'static str>, ReloadError> {
        let _turn = self.reloading.lock().await;
        let read = self.read_again().await;
        self.ask(|answer| Call::Reload(read, answer)).await.unwrap_or(Err(ReloadError::Stopping))
    }

    /// The configuration, and what it names of certificates and keys.
    async fn read_again(self: &Arc<Self>) -> Result<(Box<Config>, Loaded), ReloadError> {
        let load = self.loader.clone().ok_or(ReloadError::Nowhere)?;
        let shared = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let config = load().map_err(ReloadError::Load)?;
            let loaded = shared.tls.load(config.tls.as_ref(), config.server_tls.as_ref(), config.http2);
            Ok((Box::new(config), loaded.map_err(StartError::Tls)?))
        });
        read.await.map_err(|died| ReloadError::Load(died.into()))?
    }

    /// Asks the control thread; `None` once that has ended.
    pub(crate) async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.calls.send(call(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Makes all threads stop: requests that are under way may take `grace` to end, or less if that was said before.
    pub(crate) fn stop(&self, grace: Duration) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
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

/// What a process was given besides the configuration of its dispatcher.
#[derive(Default)]
pub struct Given {
    /// How the configuration is read again; without, it cannot be reloaded.
    pub loader: Option<Loader>,
    /// Sockets that listen already: a service manager's, or those of the dispatcher that this one replaces. They are
    /// used at the configured addresses, whatever the number of threads; those that listen elsewhere are closed.
    pub sockets: Vec<TcpListener>,
    /// What operators wanted of the servers of the dispatcher that this one replaces ([`Handle::hold_orders`]); `None` where
    /// it replaces none. With it no other orders are taken before [`Handle::take_orders`]: they would be lost if this one
    /// does not come so far.
    pub orders: Option<Orders>,
}

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
        Self::start_with(config, Given::default())
    }

    /// As [`start`](Dispatcher::start), with what the process was given besides the configuration.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(config: Config, given: Given) -> Result<Handle, StartError> {
        check(&config)?;
        let mut control = Control::new(&config, given.orders)?;
        let tls = Tls::new(config.tls.as_ref(), config.server_tls.as_ref(), config.http2)?;
        let mut inherited = Inherited::new(given.sockets)?;
        let bound = config.addresses().map(|address| inherited.listen(address, config.threads));
        let bound: Vec<_> = bound.collect::<Result<_, _>>()?;
        let admin = config.admin.map(|address| inherited.listen_alone(address)).transpose()?;
        inherited.close_rest();
        let addresses = bound.iter().map(|bound| bound.address).collect();
        let admin_address = admin.as_ref().map(local_address).transpose()?;
        let sockets = bound.iter().flat_map(|bound| bound.threads.iter().flatten()).chain(&admin);
        let sockets = sockets.map(TcpListener::try_clone).collect::<Result<_, _>>().map_err(StartError::System)?;
        let mut listeners: Vec<Vec<(usize, TcpListener)>> = (0..config.threads).map(|_| Vec::new()).collect();
        for (place, bound) in bound.into_iter().enumerate() {
            for (own, more) in listeners.iter_mut().zip(bound.threads) {
                own.extend(more.into_iter().map(|socket| (place, socket)));
            }
        }
        let logs = open_logs(&config)?;

        let initial = match &config.source {
            Source::Static(_) => DirectoryLink::Live,
            Source::Directory { .. } => DirectoryLink::Connecting,
        };
        let (calls, called) = mpsc::channel(CALLS);
        let shared = Arc::new(Shared {
            admission: Admission::new(&config.limits),
            routes: ArcSwap::from_pointee(control.routes(Instant::now())),
            loader: given.loader.map(Arc::new),
            sockets: Mutex::new(sockets),
            retired: Notify::new(),
            reloading: tokio::sync::Mutex::default(),
            reloads: Mutex::default(),
            calls,
            stop: watch::Sender::new(None),
            state: Mutex::default(),
            alarm: Notify::new(),
            revision: AtomicU64::new(0),
            clients: listeners.iter().map(|_| Arc::default()).collect(),
            lost: logs.iter().map(|(name, log)| (*name, log.lost())).collect(),
            tls,
            link: watch::Sender::new(initial),
            config,
        });

        let (done, ended) = mpsc::unbounded_channel();
        // Every worker holds a receiver for as long as it runs: operators can look on until the last has ended.
        let (working, works) = watch::channel(());
        for (number, listeners) in listeners.into_iter().enumerate() {
            let tally = shared.clients[number].clone();
            let (shared, stopped, works) = (shared.clone(), shared.stop.subscribe(), works.clone());
            let sinks = logs.iter().map(|(_, log)| log.sink()).collect();
            spawn(format!("proxy-{number}"), done.clone(), async move || {
                let _works = works;
                let taken = |(place, socket)| Ok((place, watch(socket)?));
                let listeners = listeners.into_iter().map(taken).collect::<io::Result<_>>();
                match listeners.and_then(|listeners| Ok((listeners, Worker::new(shared, tally, sinks)?))) {
                    Ok((listeners, worker)) => Rc::new(worker).run(listeners, stopped).await,
                    Err(error) => lost(&error),
                }
            })?;
        }
        drop(works);
        let handle = Handle { shared: shared.clone(), addresses, admin: admin_address, ended, cut: 0, logs };
        spawn("proxy-control".to_owned(), done, async move || {
            if let Some(listener) = admin {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => drop(tokio::task::spawn_local(serve_operators(listener, shared.clone()))),
                    Err(error) => return lost(&error),
                }
            }
            control::run(control, shared, called, working.closed()).await;
            0
        })?;
        Ok(handle)
    }
}

/// Serves operators until somebody else does.
async fn serve_operators(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    tokio::select! {
        () = admin::serve(listener, shared.clone()) => {}
        () = shared.retired.notified() => {}
    }
}

/// What requests are logged to, by name.
fn open_logs(config: &Config) -> Result<Vec<(&'static str, Log)>, StartError> {
    let access_log = config.access_log.as_ref().map(open).transpose()?.map(|log| ("access", log));
    let collector = config.trace.as_ref().and_then(|trace| trace.collector.as_ref());
    let spans = collector.map(export).transpose()?.map(|log| ("spans", log));
    Ok(access_log.into_iter().chain(spans).collect())
}

#[cfg(feature = "otel")]
fn export(collector: &http::Uri) -> Result<Log, StartError> {
    Log::export(collector).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidInput => {
            StartError::Invalid { what: "trace.collector", hint: "use http://HOST:PORT, without TLS" }
        }
        _ => StartError::System(source),
    })
}

#[cfg(not(feature = "otel"))]
fn export(_: &http::Uri) -> Result<Log, StartError> {
    Err(StartError::Invalid {
        what: "trace.collector",
        hint: "this build exports no spans: build with the feature otel",
    })
}

fn open(access_log: &AccessLog) -> Result<Log, StartError> {
    let opened = Log::write(access_log.target.clone(), access_log.format);
    opened.map_err(|source| match &access_log.target {
        Target::File(path) => StartError::AccessLog { path: path.clone(), source },
        Target::Stdout => StartError::System(source),
    })
}

/// A thread for which the system has nothing left: it serves nobody.
fn lost(error: &io::Error) -> usize {
    tracing::error!(%error, "a thread cannot serve");
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
    logs: Vec<(&'static str, Log)>,
}

impl Handle {
    /// Where it listens, with the ports that were found: in the order of [`Config::listen`], then of
    /// [`FrontTls::listen`](crate::FrontTls::listen).
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The same as URLs, which tell where TLS is spoken.
    pub fn urls(&self) -> impl Iterator<Item = String> {
        self.addresses.iter().enumerate().map(|(place, address)| {
            let scheme = if self.shared.config.speaks_tls(place) { "https" } else { "http" };
            format!("{scheme}://{address}")
        })
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

    /// Duplicates of all sockets that it listens with, for a successor in another process
    /// ([`Given::sockets`]). None once it stops.
    ///
    /// # Errors
    /// If the system has no room for them.
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        let sockets = self.shared.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.iter().map(TcpListener::try_clone).collect()
    }

    /// What operators want of servers, for a successor ([`Given::orders`]). From now on their orders are refused, since the
    /// successor would not know of them, until [`take_orders`](Handle::take_orders). None once it has stopped.
    pub async fn hold_orders(&self) -> Orders {
        self.shared.ask(Call::HoldOrders).await.unwrap_or_default()
    }

    /// Takes orders of operators about servers again: the successor did not come up, or this one has taken over.
    pub async fn take_orders(&self) {
        // Once it has stopped there is nobody to take them.
        let _ = self.shared.ask(Call::TakeOrders).await;
    }

    /// By what it is seen that no thread hangs.
    pub fn pulse(&self) -> Pulse {
        Pulse(self.shared.clone())
    }

    /// As [`shutdown`](Handle::shutdown), but operators are served no more from the start: a successor does.
    pub async fn hand_over(self, grace: Duration) -> usize {
        self.shared.retired.notify_one();
        self.shutdown(grace).await
    }

    /// How long connections may take to end where nobody says so: [`Config::drain`], as it was last reloaded.
    pub fn drain_time(&self) -> Duration {
        self.shared.routes.load().config.drain
    }

    /// Reads all certificates and keys anew. New connections use them; those that exist go on.
    ///
    /// # Errors
    /// What is wrong with which file. Then all stays as it was.
    pub fn renew_certificates(&self) -> Result<(), TlsError> {
        let Shared { config, tls, .. } = &*self.shared;
        tls.install(tls.load(config.tls.as_ref(), config.server_tls.as_ref(), config.http2)?);
        Ok(())
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
        for (name, log) in self.logs.drain(..) {
            if !log.finish(LAST_LINES).await {
                tracing::warn!(log = name, "the last requests were not written within {LAST_LINES:?}");
            }
        }
        self.cut
    }
}

/// The pulse of a running dispatcher.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Shared>);

impl Pulse {
    /// How often each thread that serves requests has looked at its clock: one whose number stands still hangs. No
    /// numbers once the dispatcher stops, for then threads may end; `None` if it has stopped. It does not come back
    /// while the control thread hangs.
    pub async fn read(&self) -> Option<Vec<u64>> {
        self.0.ask(Call::Hello).await?;
        let clients = if self.0.is_stopping() { &[][..] } else { &self.0.clients };
        Some(clients.iter().map(|tally| tally.ticks.get()).collect())
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
    let health = &config.health;
    if config.listen.is_empty() {
        return invalid("listen", "name at least one address");
    }
    if !(1..=MOST_THREADS).contains(&config.threads) {
        return invalid("threads", "use 1 to 1024");
    }
    if config.drain > LONGEST {
        return invalid("drain", "use at most a day");
    }
    if config.trace.as_ref().is_some_and(|trace| !(0.0..=1.0).contains(&trace.sample)) {
        return invalid("trace.sample", "use 0 to 1");
    }
    config.timeouts.check()?;
    config.limits.check()?;
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
