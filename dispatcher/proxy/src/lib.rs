//! The HTTP data path of the dispatcher: a reverse proxy for HTTP/1.1 and HTTP/2 that sends each request to the server that
//! [`vibra_routing`] picks for its URL.
//!
//! It is there so that requests for a URL reach the same few servers whatever connection they come on: connections
//! persist on both sides, and every request of a client's connection is dispatched on its own. Bodies are streamed in
//! both directions, at the pace of the slower side, and never held in whole. It takes its servers from a fixed list or
//! follows a directory, checks their health, and explains itself at an admin address.
//!
//! ```
//! use vibra_proxy::{Config, Dispatcher, Manner, Source, StaticServer};
//!
//! let server = |n: u16| StaticServer {
//!     name: format!("web-{n}").parse().unwrap(),
//!     address: format!("127.0.0.1:{}", 8000 + n),
//!     weight: 1,
//!     manner: Manner::default(),
//! };
//! let servers = Source::Static(vec![server(1), server(2)]);
//! let config = Config { threads: 1, ..Config::new("127.0.0.1:0".parse().unwrap(), servers) };
//! let dispatcher = Dispatcher::start(config).unwrap();
//! assert_ne!(dispatcher.addresses()[0].port(), 0);
//! assert!(dispatcher.status().server("web-2").unwrap().used);
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! dispatcher.shutdown(std::time::Duration::from_secs(5)).await;
//! # });
//! ```
//!
//! # How it is built
//!
//! Each of [`Config::threads`] threads has its own listener (`SO_REUSEPORT`), runtime, connections to servers and
//! counters, and serves a request from its first byte to its last. Threads share the routing snapshot, which is swapped
//! whole, and the servers' counts of active requests. No lock is taken on the way of a request, except under LARD and
//! slots, whose threads must share one memory of objects. A client's connection that rests for long is parked: it has a
//! task again when something comes.
//!
//! A request's phases are drawn in the module `exchange`. One more thread hears of the cluster and of the servers'
//! health, obeys operators, and makes the routing snapshots.

mod account;
mod admin;
mod admission;
mod body;
mod buffer;
mod change;
mod check;
mod client;
mod clock;
mod config;
mod conn;
mod control;
mod dispatcher;
mod endpoint;
mod error;
mod exchange;
mod export;
mod following;
mod forwarded;
mod front;
mod health;
mod http1;
mod http2;
mod ids;
mod io;
mod journal;
mod kept;
mod limits;
mod link;
pub mod log;
mod lot;
mod members;
mod metrics;
mod origin;
mod peer;
mod peers;
mod pool;
mod proxy_protocol;
mod reload;
mod resume;
mod routes;
mod server;
mod socket;
mod sockets;
mod splice;
mod status;
mod tasks;
mod tls;
mod trace;
mod trust;
mod turns;
mod via;
mod warmup;
mod worker;

pub use config::{
    AccessLog, ActiveCheck, Config, Health, Manner, PassiveCheck, Protocol, Source, StaticServer, Tracing,
};
pub use dispatcher::{Dispatcher, Given, Handle, Pulse};
pub use error::StartError;
pub use forwarded::Forwarding;
pub use limits::{Limits, RateLimit, Timeouts};
pub use members::{Order, Orders};
pub use peers::Peers;
pub use proxy_protocol::ProxyVersion;
pub use reload::{Loader, Reload, ReloadError, ReloadOutcome};
pub use status::{DirectoryStatus, ServerStatus, Status};
pub use tls::{Authorities, BackTls, CertificateFiles, ClientAuth, FrontTls, TlsError, TlsVersion, TlsWarning};
pub use trust::{BadNetwork, Network, Trust};
pub use via::{BadPseudonym, Pseudonym};
