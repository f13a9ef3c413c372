//! What a dispatcher is to do.

use crate::log::{Format, Target};
use crate::peers::Peers;
use crate::proxy_protocol::ProxyVersion;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use vibra_client::Directory;
use vibra_model::{CustomerId, VmId};
use vibra_routing::Settings;

/// What a dispatcher is to do. [`Config::new`] fills in the defaults that each field names.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect; port 0 takes a free one. At least one.
    pub listen: Vec<SocketAddr>,
    /// Where operators ask for metrics and explanations; `None` (the default): nowhere.
    pub admin: Option<SocketAddr>,
    /// How many threads serve requests, 1 to 1024. Default: as many as the machine has cores for this process.
    pub threads: usize,
    /// Which algorithm picks the server.
    pub settings: Settings,
    /// Which servers there are.
    pub source: Source,
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
}

impl Config {
    /// A dispatcher that listens at `listen` and takes its servers from `source`, with defaults for the rest.
    pub fn new(listen: SocketAddr, source: Source) -> Self {
        Config {
            listen: vec![listen],
            admin: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            settings: Settings::default(),
            source,
            health: Health::default(),
            peers: Peers::default(),
            timeouts: Timeouts::default(),
            http2: true,
            limits: Limits::default(),
            access_log: None,
            trace: None,
        }
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

/// One server of a fixed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticServer {
    /// Its name; unique in the list.
    pub name: VmId,
    /// Where it serves HTTP: `host:port`, with a name or an IP address as host. A name is looked up until it is found,
    /// and then no more.
    pub address: String,
    /// Its share under weighted algorithms; at least 1.
    pub weight: u32,
    /// The version of the PROXY header that its connections begin with; `None`: they do not. With one, each client's
    /// connection has connections of its own to the server.
    pub send_proxy: Option<ProxyVersion>,
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
}

impl Default for Health {
    fn default() -> Self {
        Health { active: Some(ActiveCheck::default()), passive: PassiveCheck::default() }
    }
}

/// A check that is repeated whether or not there are requests. A server is healthy until checks say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveCheck {
    /// `GET` this path and expect a status of 200 to 399; `None` (the default): a TCP connection is enough.
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

/// How long is waited for what, at most a day. All but `connect` are kept to within one [`Timeouts::tick`], and
/// `server_idle` to within a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to a server; then the next candidate is tried. Default: 1 s.
    pub connect: Duration,
    /// For a server's response head, from when the request was sent or its body last moved; then 504. Default: 60 s.
    pub response: Duration,
    /// While nothing of a body moves; then the connection is broken. Default: 60 s.
    pub stall: Duration,
    /// While nothing moves on a connection that carries another protocol since an upgrade. Default: 1 h.
    pub tunnel: Duration,
    /// For a request head, from its first byte (or from the start of the connection). Default: 10 s.
    pub header: Duration,
    /// For a client's next request. Default: 65 s.
    pub client_idle: Duration,
    /// How long an unused connection to a server is kept: below the servers' own limit, which is 60 s and more for
    /// most, so that they do not close what is just being used again. Default: 50 s.
    pub server_idle: Duration,
    /// How often time-outs are looked at. Default: 100 ms.
    pub tick: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            tunnel: Duration::from_secs(3600),
            header: Duration::from_secs(10),
            client_idle: Duration::from_secs(65),
            server_idle: Duration::from_secs(50),
            tick: Duration::from_millis(100),
        }
    }
}

/// How much is accepted of clients and kept for servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections per thread; more wait in the kernel. Default: 10,000.
    pub connections: usize,
    /// Unused connections kept per thread and server. Default: 256.
    pub idle_per_server: usize,
    /// Servers that are tried for one request. Default: 3.
    pub attempts: usize,
    /// Size of a request's or response's head, and of what is buffered of a body per direction, in bytes; at least
    /// 8192. Default: 64 KiB.
    pub buffer: usize,
    /// Requests that a client may have under way on one connection of HTTP/2; at least 1. Default: 100.
    pub streams: u32,
    /// Header lines of a request or response; at most 256. Default: 100.
    pub headers: usize,
    /// Whether a message with both a length and a transfer coding is taken by its coding (RFC 9112, section 6.3)
    /// instead of refused. Default: no.
    pub coding_overrules_length: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 10_000,
            idle_per_server: 256,
            attempts: 3,
            buffer: 64 * 1024,
            streams: 100,
            headers: 100,
            coding_overrules_length: false,
        }
    }
}
