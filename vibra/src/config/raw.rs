//! `vibra.toml` as it is written: every key with its type and its place in the file, nothing yet compared.

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, de};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use toml::{Spanned, Table};
use vibra_model::{
    Bytes, BytesPerSec, CustomerId, HostId, MilliCpu, Resources, VmId,
    text::{some_duration, some_quantity},
};
use vibra_proxy::{Forwarding, Limits, Protocol, ProxyVersion, Timeouts};
use vibra_routing::{Algorithm, HashKind, LardSettings, Remap, SlotSettings};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) dispatcher: Option<Spanned<Dispatcher>>,
    #[serde(default)]
    pub(super) server: Vec<Spanned<Server>>,
    pub(super) directory: Option<Spanned<Directory>>,
    #[serde(default)]
    pub(super) token: Vec<Spanned<Token>>,
    pub(super) allocator: Option<Spanned<Allocator>>,
    #[serde(default)]
    pub(super) customer: Vec<Spanned<Customer>>,
    #[serde(default)]
    pub(super) host: Vec<Spanned<Host>>,
    #[serde(default)]
    pub(super) vm: Vec<Spanned<Vm>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dispatcher {
    pub(super) listen: SocketAddr,
    #[serde(default, deserialize_with = "admin")]
    pub(super) admin: Option<SocketAddr>,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) hash: Option<HashKind>,
    pub(super) replicas: Option<Spanned<usize>>,
    pub(super) remap: Option<Remap>,
    pub(super) fallbacks: Option<usize>,
    pub(super) balance: Option<f64>,
    pub(super) lard: Option<LardSettings>,
    pub(super) slots: Option<SlotSettings>,
    pub(super) threads: Option<Spanned<usize>>,
    pub(super) http2: Option<bool>,
    pub(super) customer: Option<Spanned<CustomerId>>,
    pub(super) server_protocol: Option<Protocol>,
    pub(super) server_send_proxy: Option<ProxyVersion>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) trace: Option<Trace>,
    pub(super) health_path: Option<String>,
    #[serde(default)]
    pub(super) trusted: Vec<Spanned<String>>,
    pub(super) proxy_protocol: Option<Spanned<ProxyProtocol>>,
    pub(super) forwarded: Option<Forwarding>,
    pub(super) via: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "some_duration")]
    pub(super) drain_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "some_duration")]
    pub(super) slow_start: Option<Duration>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
    pub(super) tls: Option<Spanned<Tls>>,
    pub(super) server_tls: Option<ServerTls>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClientAuth {
    Required,
    Optional,
}

/// How clients are served by TLS.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) listen: Option<SocketAddr>,
    pub(super) proxy_protocol: Option<Spanned<ProxyProtocol>>,
    pub(super) min_version: Option<TlsVersion>,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) client_auth: Option<Spanned<ClientAuth>>,
    #[serde(default)]
    pub(super) certificate: Vec<Certificate>,
}

/// How servers are reached by TLS.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerTls {
    pub(super) ca: Option<PathBuf>,
    pub(super) name: Option<String>,
    pub(super) certificate: Option<Certificate>,
}

/// A certificate and its key, which may share a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Certificate {
    pub(super) chain: PathBuf,
    pub(super) key: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessLog {
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) format: LogFormat,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trace {
    pub(super) sample: Option<Spanned<f64>>,
    pub(super) collector: Option<Spanned<String>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Combined,
    Json,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) name: Spanned<VmId>,
    pub(super) address: Spanned<String>,
    pub(super) weight: Option<Spanned<u32>>,
    pub(super) protocol: Option<Protocol>,
    pub(super) send_proxy: Option<ProxyVersion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProxyProtocol {
    Off,
    Accept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StoreKind {
    Redb,
    Memory,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Directory {
    pub(super) listen: Option<SocketAddr>,
    pub(super) url: Option<String>,
    pub(super) store: Option<Spanned<StoreKind>>,
    pub(super) path: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "some_duration")]
    pub(super) silence: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RoleKind {
    Operator,
    Customer,
    Host,
    Reader,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub(super) role: RoleKind,
    pub(super) customer: Option<CustomerId>,
    pub(super) host: Option<HostId>,
    pub(super) file: Spanned<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allocator {
    #[serde(default, deserialize_with = "some_duration")]
    pub(super) interval: Option<Duration>,
    pub(super) bandwidth: Option<Spanned<Table>>,
    pub(super) memory: Option<Spanned<Table>>,
    pub(super) cpu: Option<Spanned<Table>>,
    #[serde(default, deserialize_with = "some_duration")]
    pub(super) time_limit: Option<Duration>,
    #[serde(default)]
    pub(super) dry_run: bool,
    #[serde(default)]
    pub(super) shadow: Vec<Spanned<Shadow>>,
    pub(super) level: Option<Spanned<Table>>,
    pub(super) log: Option<PathBuf>,
    #[serde(default, deserialize_with = "some_quantity")]
    pub(super) log_size: Option<Bytes>,
    pub(super) state: Option<PathBuf>,
}

/// Policies in the shadow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shadow {
    pub(super) bandwidth: Option<Spanned<Table>>,
    pub(super) memory: Option<Spanned<Table>>,
    pub(super) cpu: Option<Spanned<Table>>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Amounts {
    #[serde(default, deserialize_with = "some_quantity")]
    pub(super) bandwidth: Option<BytesPerSec>,
    #[serde(default, deserialize_with = "some_quantity")]
    pub(super) memory: Option<Bytes>,
    #[serde(default, deserialize_with = "some_quantity")]
    pub(super) cpu: Option<MilliCpu>,
}

impl From<Amounts> for Resources {
    fn from(amounts: Amounts) -> Self {
        Resources { bandwidth: amounts.bandwidth, memory: amounts.memory, cpu: amounts.cpu }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Customer {
    pub(super) name: Spanned<CustomerId>,
    pub(super) bound: Spanned<Amounts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    pub(super) name: Spanned<HostId>,
    #[serde(default)]
    pub(super) capacity: Amounts,
    pub(super) uplink: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) internal: Vec<Spanned<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VmKind {
    InProcess,
    Namespace,
    Qemu,
    /// Somebody else runs it.
    Attached,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vm {
    pub(super) name: Spanned<VmId>,
    pub(super) customer: Spanned<CustomerId>,
    pub(super) host: Spanned<HostId>,
    pub(super) kind: VmKind,
    pub(super) content: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) sources: Option<Spanned<Vec<String>>>,
    pub(super) cgroup: Option<Spanned<PathBuf>>,
    pub(super) weight: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) floor: Amounts,
    pub(super) initial: Option<Amounts>,
    #[serde(default, deserialize_with = "some_quantity")]
    pub(super) boot_memory: Option<Bytes>,
}

/// An address for operators, as text or as a port alone.
fn admin<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a port such as 9090, or \"ADDRESS:PORT\"")]
    enum Written {
        Port(u16),
        Text(String),
    }
    let parsed = match Written::deserialize(from)? {
        Written::Port(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Written::Text(text) => admin_address(&text),
    };
    parsed.map(Some).map_err(de::Error::custom)
}

/// The address for operators that `text` means: who does not write out another one gets this machine's own, where
/// nobody from outside comes.
pub(crate) fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    match port.parse::<u16>() {
        Ok(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) => text.parse().map_err(|_| format!("{text:?} is no address: write a port, or \"ADDRESS:PORT\"")),
    }
}
