//! Starting and stopping.

use crate::{
    Tokens,
    api::{self, App},
    published::Published,
    records, serve,
    silence::Silence,
    telemetry::Telemetry,
    writer::{Outlets, Writer},
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::{JoinError, JoinHandle},
};
use vibra_store::{Store, StoreError};

/// How a directory server is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What makes the directory durable.
    pub store: Arc<dyn Store>,
    /// Who may do what.
    pub tokens: Tokens,
    /// A host that is silent for longer is down, with its VMs.
    pub silence: Duration,
    /// How many usage samples are kept of each VM. One takes some 150 bytes.
    pub samples: usize,
    /// How many bytes of commits are kept for watches: who falls further behind takes a new snapshot.
    pub history: usize,
    /// How many commands may wait; more are told to come back later.
    pub queue: usize,
    /// The largest request body, in bytes.
    pub largest_body: usize,
    /// How many bytes of request bodies may be in hand at once.
    pub bodies: usize,
    /// How many connections are served at once, each with a file descriptor; more wait in the listening socket. Every
    /// host and every customer keeps one.
    pub connections: usize,
}

impl Config {
    /// The usual settings.
    pub fn new(listen: SocketAddr, store: Arc<dyn Store>, tokens: Tokens) -> Self {
        Config {
            listen,
            store,
            tokens,
            silence: Duration::from_secs(3),
            samples: 60,
            history: 64 << 20,
            queue: 4096,
            largest_body: 16 << 20,
            bodies: 256 << 20,
            connections: 16_384,
        }
    }

    fn check(&self) -> Result<(), StartError> {
        let least = |what: &'static str, value: usize| {
            if value == 0 { Err(StartError::Setting { what, hint: "it must be at least 1" }) } else { Ok(()) }
        };
        least("number of samples", self.samples)?;
        least("length of the history", self.history)?;
        least("length of the queue", self.queue)?;
        least("number of connections", self.connections)?;
        least("largest body", self.largest_body)?;
        if self.silence < Duration::from_millis(10) {
            return Err(StartError::Setting { what: "silence deadline", hint: "it must be at least 10 ms" });
        }
        if self.tokens.is_empty() {
            return Err(StartError::Setting { what: "list of tokens", hint: "nobody could use the directory" });
        }
        if self.bodies < self.largest_body || self.bodies > Semaphore::MAX_PERMITS {
            let hint = "it must have room for the largest body";
            return Err(StartError::Setting { what: "room for bodies", hint });
        }
        Ok(())
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error("the directory's {what} cannot be used: {hint}")]
    Setting {
        /// Which.
        what: &'static str,
        /// What would do.
        hint: &'static str,
    },
    /// The address is taken, or not one of this machine.
    #[error("the directory cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The store cannot be read.
    #[error("the directory's store cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The store has something else in it than a directory, or one of another version.
    #[error("{key:?} in the directory's store cannot be understood: {what}; restore the store, or use a new one")]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong with its value.
        what: String,
    },
}

/// Why a server ended by itself.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the directory server failed: {message}")]
pub struct ServerError {
    message: String,
}

impl From<JoinError> for ServerError {
    fn from(error: JoinError) -> Self {
        ServerError { message: error.to_string() }
    }
}

/// The directory server.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Loads the directory from its store and serves it, on tasks of the current tokio runtime. When this returns,
    /// connections are accepted. The directory has the revision that it had before.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Handle, StartError> {
        config.check()?;
        let contents = config.store.contents().await?;
        let snapshot = records::load(&contents)
            .map_err(|records::Unreadable { key, what }| StartError::Unreadable { key, what })?;
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        tracing::info!(%address, revision = %snapshot.revision(), vms = snapshot.vms().len(), "the directory serves");

        let (stop, stopping) = watch::channel(false);
        let (requests, waiting) = mpsc::channel(config.queue);
        let published = Arc::new(Published::new(snapshot.clone(), config.history));
        let telemetry = Arc::new(Telemetry::new(config.samples));
        let silence = Silence::new(config.silence, Instant::now());
        let outlets = Outlets { store: config.store, published: published.clone(), telemetry: telemetry.clone() };
        let writer = Writer::new(snapshot, &contents, silence, outlets);
        let app = App {
            tokens: Arc::new(config.tokens),
            requests,
            published,
            telemetry,
            stopping: stopping.clone(),
            largest_body: config.largest_body,
            bodies: Arc::new(Semaphore::new(config.bodies)),
        };
        // The writer ends when the last connection, with its sender of requests, is gone.
        let accepting = tokio::spawn(serve::serve(listener, api::router(app), config.connections, stopping));
        let writing = tokio::spawn(async move {
            writer.run(waiting).await.map_err(|failure| {
                tracing::error!(%failure, "nothing can be changed any more");
                ServerError { message: failure.to_string() }
            })
        });
        Ok(Handle { address, stop, accepting, writing, ended: None })
    }
}

/// A running server. Dropping it stops the server as [`stop`](Self::stop) does, but nobody waits.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    writing: JoinHandle<Result<(), ServerError>>,
    /// How the writing ended, once it is known.
    ended: Option<Result<(), ServerError>>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns when the server cannot go on: its store failed, or another server took the store over. It still answers
    /// readers then, and refuses every command; stop it.
    pub async fn failed(&mut self) -> ServerError {
        match self.ended().await {
            Ok(()) => ServerError { message: "it has ended".into() },
            Err(error) => error,
        }
    }

    async fn ended(&mut self) -> Result<(), ServerError> {
        if self.ended.is_none() {
            self.ended = Some((&mut self.writing).await.unwrap_or_else(|error| Err(error.into())));
        }
        self.ended.clone().unwrap_or(Ok(()))
    }

    /// Stops: no more connections; running requests are answered, watches end, idle connections are closed. Returns
    /// within seconds, when everything has ended.
    ///
    /// # Errors
    /// [`ServerError`] if the server had failed before.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.stop.send_replace(true);
        (&mut self.accepting).await?;
        self.ended().await
    }
}
