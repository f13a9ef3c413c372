//! Starting and stopping.

use crate::admin;
use crate::admission::Admission;
use crate::config::{AccessLog, Config, Source};
use crate::control::{self, Control};
use crate::error::StartError;
use crate::limits::LONGEST;
use crate::log::{Log, Lost, Target};
use crate::metrics::ClientTally;
use crate::routes::Routes;
use crate::status::Status;
use crate::tls::{Tls, TlsError};
use crate::worker::Worker;
use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::{io, rc::Rc, thread, time::Duration};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, watch};
use vibra_client::Link as DirectoryLink;
use vibra_routing::PickState;

/// Connections that wait in the kernel to be accepted, per listener.
const BACKLOG: i32 = 1024;
/// How many threads a dispatcher may have.
const MOST_THREADS: usize = 1024;
/// How long the last lines of a log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(5);

/// An HTTP load balancer. [`start`](Dispatcher::start) makes one.
#[derive(Debug)]
pub enum Dispatcher {}

/// What all threads of a dispatcher share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) admission: Admission,
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

/// How long requests may take to end once the threads are to stop; `None` while they go on.
pub(crate) type Stop = Option<Duration>;

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
        check(&config)?;
        let mut control = Control::new(&config)?;
        let tls = Tls::new(config.tls.as_ref(), config.server_tls.as_ref(), config.http2)?;
        let (listeners, addresses) = bind_all(&config)?;
        let admin = config.admin.map(|address| bind(address, Sharing::Alone)).transpose()?;
        let admin_address = admin.as_ref().map(local_address).transpose()?;
        let logs = open_logs(&config)?;

        let initial = match &config.source {
            Source::Static(_) => DirectoryLink::Live,
            Source::Directory { .. } => DirectoryLink::Connecting,
        };
        let shared = Arc::new(Shared {
            admission: Admission::new(&config.limits),
            routes: ArcSwap::from_pointee(Routes::default()),
            state: Mutex::default(),
            alarm: Notify::new(),
            revision: AtomicU64::new(0),
            clients: listeners.iter().map(|_| Arc::default()).collect(),
            lost: logs.iter().map(|(name, log)| (*name, log.lost())).collect(),
            tls,
            link: watch::Sender::new(initial),
            config,
        });
        control.publish(&shared);

        let (stop, stopped) = watch::channel(None);
        let (done, ended) = mpsc::unbounded_channel();
        for (number, listeners) in listeners.into_iter().enumerate() {
            let tally = shared.clients[number].clone();
            let (shared, stopped) = (shared.clone(), stopped.clone());
            let sinks = logs.iter().map(|(_, log)| log.sink()).collect();
            spawn(format!("proxy-{number}"), done.clone(), async move || {
                let worker = Rc::new(Worker::new(shared, tally, sinks));
                match listeners.into_iter().map(tokio::net::TcpListener::from_std).collect() {
                    Ok(listeners) => worker.run(listeners, stopped).await,
                    Err(error) => lost(&error),
                }
            })?;
        }
        let handle = Handle { shared: shared.clone(), addresses, admin: admin_address, stop, ended, logs };
        spawn("proxy-control".to_owned(), done, async move || {
            if let Some(listener) = admin {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => drop(tokio::task::spawn_local(admin::serve(listener, shared.clone()))),
                    Err(error) => return lost(&error),
                }
            }
            control::run(control, shared, stopped).await;
            0
        })?;
        Ok(handle)
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
    stop: watch::Sender<Stop>,
    /// From each thread, as it ends: how many connections it cut off.
    ended: mpsc::UnboundedReceiver<usize>,
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
    /// rest. Returns how many connections were cut off.
    pub async fn shutdown(mut self, grace: Duration) -> usize {
        self.stop.send_replace(Some(grace));
        let mut cut = 0;
        while let Some(connections) = self.ended.recv().await {
            cut += connections;
        }
        for (name, log) in self.logs {
            if !log.finish(LAST_LINES).await {
                tracing::warn!(log = name, "the last requests were not written within {LAST_LINES:?}");
            }
        }
        cut
    }
}

fn check(config: &Config) -> Result<(), StartError> {
    let invalid = |what, hint| Err(StartError::Invalid { what, hint });
    let health = &config.health;
    if config.listen.is_empty() {
        return invalid("listen", "name at least one address");
    }
    if !(1..=MOST_THREADS).contains(&config.threads) {
        return invalid("threads", "use 1 to 1024");
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
    let first: Vec<_> = config.addresses().map(|address| bind(address, sharing)).collect::<Result<_, _>>()?;
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
