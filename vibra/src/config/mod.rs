//! `vibra.toml`: read as written ([`raw`]), then resolved into what the rest of the program uses ([`resolve`]).

mod attached;
mod error;
mod raw;
mod resolve;
mod tls;

#[cfg(test)]
mod tests;

pub(crate) use error::ConfigError;
pub(crate) use raw::{LogFormat, VmKind, admin_address};
pub(crate) use resolve::{check_server, default_threads};

use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use vibra_daemon::{Mode, Recipe};
use vibra_model::{Bytes, Customer, CustomerId, HostId, HostSpec, Role, VmId, VmSpec};
use vibra_policy::fvm::FvmParameters;
use vibra_proxy::{AccessLog, BackTls, FrontTls, Limits, Manner, Peers, Timeouts, Tracing, log};
use vibra_routing::Settings;

/// A configuration that was found to make sense.
#[derive(Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) dispatcher: Option<Dispatcher>,
    pub(crate) directory: Option<Directory>,
    pub(crate) allocator: Option<Allocator>,
    pub(crate) customers: Vec<Customer>,
    pub(crate) hosts: Vec<HostSpec>,
    /// Where attached VMs' traffic leaves the hosts that have such VMs.
    pub(crate) uplinks: BTreeMap<HostId, Uplink>,
    pub(crate) vms: Vec<Vm>,
}

/// The dispatcher's part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dispatcher {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) settings: Settings,
    pub(crate) threads: usize,
    pub(crate) http2: bool,
    pub(crate) source: Source,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) trace: Option<Tracing>,
    pub(crate) health_path: Option<String>,
    pub(crate) peers: Peers,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) slow_start: Option<Duration>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    /// How the servers of a directory are spoken to.
    pub(crate) manner: Manner,
    pub(crate) tls: Option<FrontTls>,
    /// There where a server may be reached by TLS.
    pub(crate) server_tls: Option<BackTls>,
}

/// A log in the file that `place` finds for `path`, or on standard output where `path` is `-`.
pub(crate) fn access_log(path: &Path, format: LogFormat, place: impl FnOnce(&Path) -> PathBuf) -> AccessLog {
    let target = if path == Path::new("-") { log::Target::Stdout } else { log::Target::File(place(path)) };
    let format = match format {
        LogFormat::Combined => log::Format::Combined,
        LogFormat::Json => log::Format::Json,
    };
    AccessLog { target, format }
}

/// Where the dispatcher's servers come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// `[[server]]`.
    Static(Vec<Server>),
    /// The VMs of a customer, as the directory has them.
    Directory(CustomerId),
}

/// A server of a static list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: VmId,
    /// `host:port`, or `https://host:port`.
    pub(crate) address: String,
    pub(crate) weight: u32,
    pub(crate) manner: Manner,
}

/// The directory's part.
#[derive(Debug, PartialEq)]
pub(crate) struct Directory {
    /// Where it serves; absent where only its URL is known.
    pub(crate) listen: Option<SocketAddr>,
    /// Where others find it: `host:port`.
    pub(crate) authority: String,
    /// The database; `None` keeps everything in memory.
    pub(crate) path: Option<PathBuf>,
    /// The token that this process uses as a client; without `tokens`, the only one there is.
    pub(crate) token_file: PathBuf,
    pub(crate) silence: Option<Duration>,
    /// Whose token is in which file.
    pub(crate) tokens: Vec<(Role, PathBuf)>,
}

/// The allocator's part.
#[derive(Debug, PartialEq)]
pub(crate) struct Allocator {
    pub(crate) interval: Duration,
    /// The policies that decide.
    pub(crate) recipe: Recipe,
    /// Those that decide beside them and change nothing.
    pub(crate) shadows: Vec<Recipe>,
    /// How long a policy may take.
    pub(crate) time_limit: Duration,
    pub(crate) mode: Mode,
    /// How VMs adapt how many requests they take at once; each does so by itself, in its host's agent.
    pub(crate) level: Option<FvmParameters>,
    /// The decision log, of which each customer has one of his own.
    pub(crate) log: Option<PathBuf>,
    /// How large it grows, in bytes.
    pub(crate) log_size: u64,
    /// The policies' state, likewise.
    pub(crate) state: Option<PathBuf>,
}

impl Allocator {
    /// The file of `customer`, one of so many, that `path` stands for: a single customer has that itself, others have
    /// their name before the ending.
    pub(crate) fn file_of(path: &Path, customer: &CustomerId, customers: usize) -> PathBuf {
        if customers <= 1 {
            return path.to_owned();
        }
        let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!("{name}.{customer}{ending}"))
    }
}

/// A VM that an agent of this configuration runs.
#[derive(Debug, PartialEq)]
pub(crate) struct Vm {
    /// As it is registered; the address is known once it runs.
    pub(crate) spec: VmSpec,
    pub(crate) kind: VmKind,
    /// A trace whose objects it serves: a file, `worldcup` or `youtube`. Empty where somebody else runs it.
    pub(crate) content: String,
    /// What a virtual machine boots with: the most memory that it can ever have. `None` for other kinds.
    pub(crate) boot_memory: Option<Bytes>,
    /// What is to be known of one that somebody else runs; `None` for other kinds.
    pub(crate) attached: Option<Attached>,
}

/// Where a host's traffic leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub(crate) device: String,
    /// The destinations within the data centre, which are not limited.
    pub(crate) internal: Vec<IpNet>,
}

/// A VM that somebody else runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    /// Where it serves: `host:port`.
    pub(crate) address: String,
    /// Where its traffic comes from.
    pub(crate) sources: Vec<IpAddr>,
    /// Its control group, relative to where they are mounted.
    pub(crate) cgroup: Option<PathBuf>,
}

/// Which parts a process runs by a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// The dispatcher alone.
    Dispatcher,
    /// All that there are.
    Everything,
}

impl Config {
    /// Reads the file again for the dispatcher that runs by this configuration.
    ///
    /// # Errors
    /// As [`load`](Config::load); or that what this process runs besides cannot follow.
    pub(crate) fn dispatcher_again(&self, path: &Path, runs: Runs) -> anyhow::Result<Dispatcher> {
        let new = Config::load(path)?;
        let mut fixed = vec![("[directory]", self.directory == new.directory)];
        if runs == Runs::Everything {
            fixed.extend([
                ("[allocator]", self.allocator == new.allocator),
                ("[[customer]]", self.customers == new.customers),
                ("[[host]]", (&self.hosts, &self.uplinks) == (&new.hosts, &new.uplinks)),
                ("[[vm]]", self.vms == new.vms),
            ]);
        }
        let changed: Vec<_> = fixed.into_iter().filter(|(_, same)| !same).map(|(section, _)| section).collect();
        if !changed.is_empty() {
            let what = changed.join(", ");
            anyhow::bail!("{what} cannot change while this runs: restart it, or change that back");
        }
        new.dispatcher.ok_or_else(|| anyhow::anyhow!("{} has no [dispatcher] any more", path.display()))
    }

    /// Reads and resolves a configuration file.
    ///
    /// # Errors
    /// The first fault, with its place and a hint; or that the file cannot be read.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Config> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|e| anyhow::anyhow!("cannot read the configuration {}: {e}", path.display()))?;
        Ok(Config::parse(path, &text)?)
    }

    /// Resolves a configuration text; `path` names it in errors and is what relative paths start from.
    ///
    /// # Errors
    /// The first fault, with its place and a hint.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        resolve::resolve(&error::Source { path, text })
    }
}
