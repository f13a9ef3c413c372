//! What a dispatcher is to do.

use crate::limits::{Limits, Timeouts};
use crate::log::{Format, Target};
use crate::peers::Peers;
use crate::proxy_protocol::ProxyVersion;
use crate::tls::{BackTls, FrontTls};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use vibra_client::Directory;
use vibra_model::{CustomerId, VmId};
use vibra_routing::Settings;

/// What a dispatcher is to do. [`Config::new`] fills in the defaults that each field names.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect; port 0 takes a free one. At least one.
    pub listen: Vec<SocketAddr>,
    /// How clients are served by TLS; `None` (the default): they are not.
    pub tls: Option<FrontTls>,
    /// Where operators ask for metrics and explanations; `None` (the default): nowhere.
    pub admin: Option<SocketAddr>,
    /// How many threads serve requests, 1 to 1024. Default: as many as the machine has cores for this process.
    pub threads: usize,
    /// Which algorithm picks the server.
    pub settings: Settings,
    /// Which servers there are.
    pub source: Source,
    /// How the servers of a directory are spoken to. Default: by HTTP/1.1, without a PROXY header.
    pub manner: Manner,
    /// How servers whose address begins with `https://` are reached. `None` (the default): there is none.
    pub server_tls: Option<BackTls>,
    /// When a server counts as healthy.
    pub health: Health,
    /// Whom the dispatcher believes, and what it tells servers of clients.
    pub peers: Peers,
    /// How long is waited for what.
    pub timeouts: Timeouts,
    /// Whether clients may speak HTTP/2: where TLS negotiates it, and without TLS where they begin with it (prior
    /// knowledge). Default: yes.
    pub http2: bool,
    /// How much is accepted of clients and kept for servers.
    pub limits: Limits,
    /// Where each request is logged; `None` (the default): nowhere.
    pub access_log: Option<AccessLog>,
    /// What part the dispatcher takes in traces (W3C Trace Context); `None` (the default): none, `traceparent` and
    /// `tracestate` are passed on as they came.
    pub trace: Option<Tracing>,
    /// How long connections may take to end where operators drain the dispatcher without saying so, at most a day.
    /// Default: 10 s.
    pub drain: Duration,
}

impl Config {
    /// A dispatcher that listens at `listen` and takes its servers from `source`, with defaults for the rest.
    pub fn new(listen: SocketAddr, source: Source) -> Self {
        Config {
            listen: vec![listen],
            tls: None,
            admin: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            settings: Settings::default(),
            source,
            manner: Manner::default(),
            server_tls: None,
            health: Health::default(),
            peers: Peers::default(),
            timeouts: Timeouts::default(),
            http2: true,
            limits: Limits::default(),
            access_log: None,
            trace: None,
            drain: Duration::from_secs(10),
        }
    }

    /// All addresses to listen at: those of [`Config::listen`], then those for TLS alone.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listen.iter().chain(self.tls.iter().flat_map(|tls| &tls.listen)).copied()
    }

    /// Whether connections to the address with that place among [all](Config::addresses) begin with a PROXY header.
    pub(crate) fn demands_header(&self, place: usize) -> bool {
        match &self.tls {
            Some(tls) if place >= self.listen.len() => tls.demand_header,
            _ => self.peers.demand_header,
        }
    }

    /// Whether TLS is spoken at the address with that place among [all](Config::addresses).
    pub(crate) fn speaks_tls(&self, place: usize) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.listen.is_empty() || place >= self.listen.len())
    }
}

/// What part the dispatcher takes in traces: servers are told of a span of its own. Traces of trusted peers go on; with
/// others a new one begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Which share of the traces that begin here is recorded, 0 to 1. Servers that heed it record the same.
    pub sample: f64,
    /// Where spans of recorded traces are sent: an OpenTelemetry collector, such as `http://127.0.0.1:4318`. Needs the
    /// feature `otel`.
    pub collector: Option<http::Uri>,
}

/// Where and how requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where the lines go.
    pub target: Target,
    /// How they are written.
    pub format: Format,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// What is spoken on its connections. Default: HTTP/1.1.
    pub protocol: Protocol,
    /// The version of the PROXY header that its connections begin with; `None` (the default): they do not. With one,
    /// each client's connection has connections of its own to the server.
    pub send_proxy: Option<ProxyVersion>,
}

/// What is spoken on a connection to a server, by its name in ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "http/1.1")]
    Http1,
    /// HTTP/2: by prior knowledge, or under TLS if the server agrees; if it does not, HTTP/1.1.
    #[serde(rename = "h2")]
    Http2,
}

/// One server of a fixed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticServer {
    /// Its name; unique in the list.
    pub name: VmId,
    /// Where it serves HTTP: `host:port`, with a name or an IP address as host, after `https://` where it does so under
    /// TLS. A name is looked up until it is found, and then no more.
    pub address: String,
    /// Its share under weighted algorithms; at least 1.
    pub weight: u32,
    /// How it is spoken to.
    pub manner: Manner,
}

/// Where the list of servers comes from.
#[derive(Clone)]
pub enum Source {
    /// A fixed list, in cluster order: VM_1, …, VM_N of section 3.3.1.
    Static(Vec<StaticServer>),
    /// One customer's VMs in a directory, followed for as long as the dispatcher runs.
    Directory {
        /// The directory.
        directory: Arc<dyn Directory>,
        /// Whose VMs.
        customer: CustomerId,
    },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Static(servers) => f.debug_tuple("Static").field(servers).finish(),
            Source::Directory { customer, .. } => f.debug_struct("Directory").field("customer", customer).finish(),
        }
    }
}

/// When a server counts as healthy. A server gets requests while its VM serves and it is healthy; where no serving VM
/// is healthy, the verdicts are worth less than a try, and all serving VMs get requests ("panic mode").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Checks from outside the request path; `None`: requests alone tell. Default: as [`ActiveCheck`] has it.
    pub active: Option<ActiveCheck>,
    /// What failed requests tell.
    pub passive: PassiveCheck,
    /// How long a server that comes back, or is new, takes to get its whole share of requests, where others have been
    /// in use for as long: its cache is cold, and theirs are not. At most a day; 0: it gets its share at once. Not
    /// under LARD, whose own memory tells who has which object. Default: 30 s.
    pub slow_start: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            active: Some(ActiveCheck::default()),
            passive: PassiveCheck::default(),
            slow_start: Duration::from_secs(30),
        }
    }
}

/// A check that is repeated whether or not there are requests. A server is healthy until checks say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveCheck {
    /// `GET` this path and expect a status of 200 to 399; `None` (the default): a connection is enough, with its TLS
    /// handshake.
    pub path: Option<String>,
    /// From one check to the next. Default: 2 s.
    pub interval: Duration,
    /// How long a check may take. Default: 1 s.
    pub timeout: Duration,
    /// So many checks in a row must succeed before an unhealthy server is healthy. Default: 2.
    pub rise: u32,
    /// So many checks in a row must fail before a healthy server is unhealthy. Default: 3.
    pub fall: u32,
}

impl Default for ActiveCheck {
    fn default() -> Self {
        ActiveCheck { path: None, interval: Duration::from_secs(2), timeout: Duration::from_secs(1), rise: 2, fall: 3 }
    }
}

/// What failed requests tell: failed connections, no response in time, or one that is not HTTP. Any response, also one
/// that reports an error, ends a row of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassiveCheck {
    /// So many failures in a row eject a server. Default: 5.
    pub failures: u32,
    /// How long it then gets no requests; doubled each time, up to `longest`. Default: 1 s.
    pub first: Duration,
    /// The longest ejection, and the time after which earlier ejections are forgotten. Default: 60 s.
    pub longest: Duration,
}

impl Default for PassiveCheck {
    fn default() -> Self {
        PassiveCheck { failures: 5, first: Duration::from_secs(1), longest: Duration::from_secs(60) }
    }
}
