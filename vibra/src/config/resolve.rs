//! From what the file says to what it means: defaults, comparisons, and the directory's own rules.

use super::{
    Allocator, Config, ConfigError, Directory, Dispatcher, Server, Source as ServerSource, Vm, access_log, attached,
    error::Source, raw, tls,
};
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Spanned;
use vibra_daemon::{LOG_SIZE, Mode, Named, Program, Recipe, TIME_LIMIT};
use vibra_model::{
    Bytes, Command, Customer, CustomerId, HostSpec, Rejection, Resource, Resources, Role, Snapshot, Violation, VmSpec,
};
use vibra_policy::fvm::FvmParameters;
use vibra_proxy::{FrontTls, Manner, Network, Peers, Pseudonym, StartError, Tracing, Trust};
use vibra_routing::Settings;
use vibra_trace::generate::NAMES;

/// How often the allocator decides where the file does not say: the interval found optimal in section 3.5.3.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(3);

/// Debian's kernel and its initramfs take so much until they run.
const LEAST_BOOT_MEMORY: Bytes = Bytes(128 << 20);

/// What a VM boots with whose memory is not managed.
const BOOT_MEMORY: Bytes = Bytes(256 << 20);

pub(super) type Fault<T> = Result<T, ConfigError>;

/// Reads and resolves `source`.
pub(super) fn resolve(source: &Source<'_>) -> Fault<Config> {
    let file: raw::File = toml::from_str(source.text).map_err(|e| source.syntax(&e))?;
    let manner = file.dispatcher.as_ref().map(|dispatcher| manner(dispatcher.get_ref())).unwrap_or_default();
    let servers = servers(source, &file.server, manner)?;
    let uplinks = attached::uplinks(source, &file.host)?;
    let cluster = Cluster::judge(source, &file)?;
    let directory = file.directory.as_ref().map(|d| directory(source, d, &file.token)).transpose()?;
    if let (None, Some(first)) = (&directory, file.token.first().or(None)) {
        return Err(source.fault(first.span(), "a token without a [directory] that it is for", None));
    }
    let resolver = DispatcherResolver { source, servers, cluster: &cluster, has_directory: directory.is_some() };
    let dispatcher = match &file.dispatcher {
        Some(raw) => Some(resolver.resolve(raw)?),
        None => {
            if let Some(server) = file.server.first() {
                let hint = "add [dispatcher] with listen = \"ADDRESS:PORT\"".to_owned();
                return Err(source.fault(server.span(), "[[server]] without a [dispatcher]", Some(hint)));
            }
            None
        }
    };
    let allocator = file.allocator.as_ref().map(|a| allocator(source, a, &file)).transpose()?;
    Ok(Config {
        dispatcher,
        directory,
        allocator,
        customers: cluster.customers,
        hosts: cluster.hosts,
        uplinks,
        vms: cluster.vms,
    })
}

/// Refuses the second of two equal names.
fn distinct<'a>(source: &Source<'_>, what: &str, names: impl Iterator<Item = (&'a str, Range<usize>)>) -> Fault<()> {
    let mut seen = BTreeMap::new();
    for (name, span) in names {
        if seen.insert(name, ()).is_some() {
            let hint = Some("every name may stand once".to_owned());
            return Err(source.fault(span, format!("a second {what} named {name:?}"), hint));
        }
    }
    Ok(())
}

/// How servers are spoken to that do not say otherwise.
fn manner(raw: &raw::Dispatcher) -> Manner {
    Manner { protocol: raw.server_protocol.unwrap_or_default(), send_proxy: raw.server_send_proxy }
}

fn servers(source: &Source<'_>, raw: &[Spanned<raw::Server>], default: Manner) -> Fault<Vec<Server>> {
    let name = |s: &'_ Spanned<raw::Server>| s.get_ref().name.span();
    distinct(source, "server", raw.iter().map(|s| (s.get_ref().name.get_ref().as_str(), name(s))))?;
    let server = |raw: &Spanned<raw::Server>| {
        let raw = raw.get_ref();
        check_server(raw.address.get_ref()).map_err(|hint| {
            let message = format!("{:?} is no address", raw.address.get_ref());
            source.fault(raw.address.span(), message, Some(hint))
        })?;
        let weight = weight(source, raw.weight.as_ref())?;
        let (name, address) = (raw.name.get_ref().clone(), raw.address.get_ref().clone());
        let manner = Manner {
            protocol: raw.protocol.unwrap_or(default.protocol),
            send_proxy: raw.send_proxy.or(default.send_proxy),
        };
        Ok(Server { name, address, weight, manner })
    };
    raw.iter().map(server).collect()
}

/// Whether `address` is that of a server: `host:port`, after `https://` where it speaks TLS; if not, what to write.
pub(crate) fn check_server(address: &str) -> Result<(), String> {
    check_address(address.strip_prefix("https://").unwrap_or(address))
}

/// Whether `address` is `host:port`; if not, what to write.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    let hint = || "write host:port, such as \"10.0.0.7:80\"".to_owned();
    let (host, port) = address.rsplit_once(':').ok_or_else(hint)?;
    let whole = !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|p| p > 0);
    if whole { Ok(()) } else { Err(hint()) }
}

fn weight(source: &Source<'_>, raw: Option<&Spanned<u32>>) -> Fault<u32> {
    match raw {
        Some(weight) if *weight.get_ref() == 0 => Err(source.fault(
            weight.span(),
            "a weight of 0",
            Some("the least is 1; leave the server out instead".into()),
        )),
        Some(weight) => Ok(*weight.get_ref()),
        None => Ok(1),
    }
}

fn tracing(source: &Source<'_>, raw: &raw::Trace) -> Fault<Tracing> {
    if let Some(sample) = raw.sample.as_ref().filter(|sample| !(0.0..=1.0).contains(sample.get_ref())) {
        let hint = "use 0 (no trace that begins here is recorded) to 1 (all are)".to_owned();
        return Err(source.fault(sample.span(), format!("{} is no share", sample.get_ref()), Some(hint)));
    }
    let url = |url: &Spanned<String>| {
        let plain = url.get_ref().parse().ok().filter(|url: &http::Uri| url.scheme_str() == Some("http"));
        let hint = || Some("use http://HOST:PORT, such as \"http://127.0.0.1:4318\"".to_owned());
        let collector = plain.ok_or_else(|| source.fault(url.span(), "no URL of a collector", hint()))?;
        if cfg!(feature = "otel") {
            return Ok(collector);
        }
        let hint = Some("build with --features otel, or leave it out".to_owned());
        Err(source.fault(url.span(), "this vibra was built without span export", hint))
    };
    Ok(Tracing {
        sample: raw.sample.as_ref().map_or(0.0, |sample| *sample.get_ref()),
        collector: raw.collector.as_ref().map(url).transpose()?,
    })
}

struct DispatcherResolver<'a> {
    source: &'a Source<'a>,
    servers: Vec<Server>,
    cluster: &'a Cluster,
    has_directory: bool,
}

impl DispatcherResolver<'_> {
    fn resolve(&self, spanned: &Spanned<raw::Dispatcher>) -> Fault<Dispatcher> {
        let raw = spanned.get_ref();
        let (source, n) = self.servers_of(spanned)?;
        let replicas = self.replicas(raw.replicas.as_ref(), n)?;
        let defaults = Settings::default();
        let settings = Settings {
            algorithm: raw.algorithm.unwrap_or(defaults.algorithm),
            hash: raw.hash.unwrap_or(defaults.hash),
            remap: raw.remap.unwrap_or(defaults.remap),
            replicas,
            fallbacks: raw.fallbacks.unwrap_or(defaults.fallbacks),
            balance: raw.balance.unwrap_or(defaults.balance),
            lard: raw.lard.unwrap_or(defaults.lard),
            slots: raw.slots.unwrap_or(defaults.slots),
        };
        settings.check().map_err(|e| self.source.fault(spanned.span(), e.to_string(), None))?;
        raw.limits.check().and_then(|()| raw.timeouts.check()).map_err(|error| self.nonsense(error))?;
        if let Some(threads) = raw.threads.as_ref().filter(|t| *t.get_ref() == 0) {
            return Err(self.source.fault(
                threads.span(),
                "0 threads serve nothing",
                Some("leave it out: one a core".into()),
            ));
        }
        Ok(Dispatcher {
            listen: raw.listen,
            admin: raw.admin,
            settings,
            threads: raw.threads.as_ref().map_or_else(default_threads, |t| *t.get_ref()),
            http2: raw.http2.unwrap_or(true),
            source,
            access_log: raw
                .access_log
                .as_ref()
                .map(|log| access_log(&log.path, log.format, |p| beside(self.source, p))),
            trace: raw.trace.as_ref().map(|trace| tracing(self.source, trace)).transpose()?,
            health_path: raw.health_path.clone(),
            peers: self.peers(raw)?,
            drain_timeout: raw.drain_timeout,
            slow_start: raw.slow_start,
            limits: raw.limits.clone(),
            timeouts: raw.timeouts.clone(),
            manner: manner(raw),
            tls: raw.tls.as_ref().map(|tls| self.tls(tls, raw)).transpose()?,
            server_tls: tls::back(self.source, raw.server_tls.as_ref(), &self.servers),
        })
    }

    fn peers(&self, raw: &raw::Dispatcher) -> Fault<Peers> {
        let network = |entry: &Spanned<String>| {
            let parsed = entry.get_ref().parse::<Network>();
            parsed.map_err(|e| self.source.fault(entry.span(), e.to_string(), None))
        };
        let trusted = raw.trusted.iter().map(network).collect::<Fault<Trust>>()?;
        let via = raw.via.as_ref().map(|name| {
            let named = name.get_ref().parse::<Pseudonym>();
            named.map_err(|e| self.source.fault(name.span(), e.to_string(), None))
        });
        let defaults = Peers::default();
        Ok(Peers {
            trusted,
            demand_header: self.demands_header(raw.proxy_protocol.as_ref(), raw)?,
            forwarding: raw.forwarded.unwrap_or(defaults.forwarding),
            via: via.transpose()?.unwrap_or(defaults.via),
        })
    }

    /// Whether connections begin with a PROXY header where the file says `said` of it.
    fn demands_header(&self, said: Option<&Spanned<raw::ProxyProtocol>>, raw: &raw::Dispatcher) -> Fault<bool> {
        let accept = said.filter(|kind| *kind.get_ref() == raw::ProxyProtocol::Accept);
        if let Some(accept) = accept.filter(|_| raw.trusted.is_empty()) {
            let hint = "add trusted = [\"ADDRESS\"] with the proxies that send it".to_owned();
            return Err(self.source.fault(accept.span(), "a PROXY header that nobody is trusted to send", Some(hint)));
        }
        Ok(accept.is_some())
    }

    /// How clients are served by TLS.
    fn tls(&self, spanned: &Spanned<raw::Tls>, raw: &raw::Dispatcher) -> Fault<FrontTls> {
        let own = &spanned.get_ref().proxy_protocol;
        if let (Some(own), None) = (own, spanned.get_ref().listen) {
            let hint = "add listen = \"ADDRESS:PORT\" here, or write it in [dispatcher]".to_owned();
            return Err(self.source.fault(own.span(), "a PROXY header at an address that is not there", Some(hint)));
        }
        let demand_header = self.demands_header(own.as_ref().or(raw.proxy_protocol.as_ref()), raw)?;
        Ok(FrontTls { demand_header, ..tls::front(self.source, spanned)? })
    }

    /// Points to the key that the proxy finds no sense in.
    fn nonsense(&self, error: StartError) -> ConfigError {
        let StartError::Invalid { what, hint } = error else {
            return self.source.fault(self.source.place("dispatcher"), error.to_string(), None);
        };
        let place = self.source.place(&format!("dispatcher.{what}"));
        self.source.fault(place, format!("{what} is out of range"), Some(hint.to_owned()))
    }

    /// The servers, and how many the file names (none where only the directory knows).
    fn servers_of(&self, spanned: &Spanned<raw::Dispatcher>) -> Fault<(ServerSource, Option<usize>)> {
        let customer = spanned.get_ref().customer.as_ref();
        match (customer, self.servers.is_empty()) {
            (Some(customer), false) => {
                let message = "both [[server]] and a customer whose VMs the directory lists";
                Err(self.source.fault(customer.span(), message, Some("keep one of them".into())))
            }
            (None, false) => Ok((ServerSource::Static(self.servers.clone()), Some(self.servers.len()))),
            (Some(customer), true) => {
                if !self.has_directory {
                    let hint = Some("add [directory] with listen or url".into());
                    return Err(self.source.fault(customer.span(), "a customer without a [directory]", hint));
                }
                let id = customer.get_ref();
                let n = self.cluster.vms.iter().filter(|vm| vm.spec.customer == *id).count();
                Ok((ServerSource::Directory(id.clone()), (n > 0).then_some(n)))
            }
            (None, true) => {
                let hint = "add [[server]] with name and address, or customer = \"NAME\" to follow the directory";
                Err(self.source.fault(spanned.span(), "a dispatcher without servers", Some(hint.into())))
            }
        }
    }

    fn replicas(&self, raw: Option<&Spanned<usize>>, n: Option<usize>) -> Fault<usize> {
        let Some(replicas) = raw else { return Ok(n.map_or(2, |n| n.min(2))) };
        let most = n.unwrap_or(usize::MAX);
        let r = *replicas.get_ref();
        if (1..=most).contains(&r) {
            return Ok(r);
        }
        let hint = match n {
            Some(n) => format!("R is at least 1 and at most the number of servers, {n}"),
            None => "R is at least 1".to_owned(),
        };
        Err(self.source.fault(replicas.span(), format!("replicas = {r}"), Some(hint)))
    }
}

/// One worker thread a core.
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn directory(source: &Source<'_>, raw: &Spanned<raw::Directory>, tokens: &[Spanned<raw::Token>]) -> Fault<Directory> {
    let (span, raw) = (raw.span(), raw.get_ref());
    let path = match (raw.store.as_ref().map(|s| (*s.get_ref(), s.span())), &raw.path) {
        (Some((raw::StoreKind::Memory, at)), Some(_)) => {
            let hint = Some("remove path, or use store = \"redb\"".into());
            return Err(source.fault(at, "the store \"memory\" has no path", hint));
        }
        (Some((raw::StoreKind::Memory, _)), None) => None,
        (_, Some(path)) => Some(beside(source, path)),
        (_, None) => Some(beside(source, &PathBuf::from("directory.redb"))),
    };
    let authority = match (&raw.url, raw.listen) {
        (Some(url), _) => {
            let plain = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
            check_address(plain).map_err(|_| {
                let hint = Some("write \"http://host:port\"".into());
                source.fault(span.clone(), format!("{url:?} is no URL of a directory"), hint)
            })?;
            plain.to_owned()
        }
        (None, Some(listen)) => listen.to_string(),
        (None, None) => {
            let hint = Some("listen where the directory runs here, url where it runs elsewhere".into());
            return Err(source.fault(span, "[directory] has neither listen nor url", hint));
        }
    };
    let tokens = tokens.iter().map(|t| token(source, t)).collect::<Fault<_>>()?;
    let token_file = match (&raw.token_file, &path) {
        (Some(file), _) => beside(source, file),
        (None, Some(path)) => path.with_added_extension("token"),
        (None, None) => beside(source, &PathBuf::from("directory.token")),
    };
    Ok(Directory { listen: raw.listen, authority, path, token_file, silence: raw.silence, tokens })
}

/// A path that starts from the folder of the configuration, as far as it is relative.
pub(super) fn beside(source: &Source<'_>, path: &Path) -> PathBuf {
    source.path.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

fn token(source: &Source<'_>, spanned: &Spanned<raw::Token>) -> Fault<(Role, PathBuf)> {
    let raw = spanned.get_ref();
    let fault = |hint: &str| source.fault(spanned.span(), "a token whose role does not fit", Some(hint.to_owned()));
    let role = match (raw.role, &raw.customer, &raw.host) {
        (raw::RoleKind::Operator, None, None) => Role::Operator,
        (raw::RoleKind::Reader, None, None) => Role::Reader,
        (raw::RoleKind::Customer, Some(id), None) => Role::Customer(id.clone()),
        (raw::RoleKind::Host, None, Some(id)) => Role::Host(id.clone()),
        (raw::RoleKind::Customer, ..) => return Err(fault("role = \"customer\" goes with customer = \"NAME\"")),
        (raw::RoleKind::Host, ..) => return Err(fault("role = \"host\" goes with host = \"NAME\"")),
        _ => return Err(fault("an operator or reader is neither customer nor host")),
    };
    Ok((role, beside(source, raw.file.get_ref())))
}

fn allocator(source: &Source<'_>, spanned: &Spanned<raw::Allocator>, file: &raw::File) -> Fault<Allocator> {
    let raw = spanned.get_ref();
    if file.directory.is_none() {
        let hint = Some("add [directory] with listen or url".into());
        return Err(source.fault(spanned.span(), "an allocator without a [directory]", hint));
    }
    if raw.interval == Some(Duration::ZERO) {
        return Err(source.fault(spanned.span(), "an interval of 0", Some("write interval = \"3s\"".into())));
    }
    if raw.time_limit == Some(Duration::ZERO) {
        return Err(source.fault(spanned.span(), "a time limit of 0", Some("write time_limit = \"2s\"".into())));
    }
    let replicas = file.dispatcher.as_ref().map(|dispatcher| {
        let replicas = dispatcher.get_ref().replicas.as_ref().map(|replicas| *replicas.get_ref());
        replicas.unwrap_or(Settings::default().replicas)
    });
    let shadow = |shadow: &Spanned<raw::Shadow>| {
        let raw = shadow.get_ref();
        let recipe = recipe(source, [&raw.bandwidth, &raw.memory, &raw.cpu], replicas)?;
        if recipe.0.is_empty() {
            let hint = "write shadow = [{ bandwidth = { policy = \"proportional\" } }]".to_owned();
            return Err(source.fault(shadow.span(), "a shadow without a policy", Some(hint)));
        }
        Ok(recipe)
    };
    Ok(Allocator {
        interval: raw.interval.unwrap_or(DEFAULT_INTERVAL),
        recipe: recipe(source, [&raw.bandwidth, &raw.memory, &raw.cpu], replicas)?,
        shadows: raw.shadow.iter().map(shadow).collect::<Fault<_>>()?,
        time_limit: raw.time_limit.unwrap_or(TIME_LIMIT),
        mode: if raw.dry_run { Mode::DryRun } else { Mode::Real },
        level: raw.level.as_ref().map(|table| level(source, table)).transpose()?,
        log: raw.log.as_ref().map(|p| beside(source, p)),
        log_size: raw.log_size.map_or(LOG_SIZE, |size| size.0),
        state: raw.state.as_ref().map(|p| beside(source, p)),
    })
}

/// The policies for bandwidth, memory and CPU; `replicas` is the dispatcher's R, where the file has one.
fn recipe(source: &Source<'_>, tables: [&Option<Spanned<toml::Table>>; 3], replicas: Option<usize>) -> Fault<Recipe> {
    let named = Resource::ALL.into_iter().zip(tables).filter_map(|(resource, table)| Some((resource, table.as_ref()?)));
    let policies = named.map(|(resource, table)| Ok((resource, policy(source, resource, table, replicas)?)));
    let recipe = Recipe(policies.collect::<Fault<_>>()?);
    // Each by itself is right: the first is as good a place as any for what is wrong with them together.
    let place = tables.into_iter().flatten().map(Spanned::span).next().unwrap_or_default();
    recipe.check().map_err(|error| source.fault(place, error.to_string(), None))?;
    Ok(recipe)
}

fn policy(
    source: &Source<'_>,
    resource: Resource,
    spanned: &Spanned<toml::Table>,
    replicas: Option<usize>,
) -> Fault<Named> {
    let fault = |message: String, hint: &str| source.fault(spanned.span(), message, Some(hint.to_owned()));
    let mut table = spanned.get_ref().clone();
    if !matches!(table.get("policy"), Some(toml::Value::String(_))) {
        return Err(fault(format!("{resource} names no policy"), "write { policy = \"proportional\" }"));
    }
    // A program is found, and finds its files, where the configuration is.
    if table.get("policy").and_then(toml::Value::as_str) == Some(Program::NAME) {
        let folder = table.get("folder").and_then(toml::Value::as_str).unwrap_or(".");
        let folder = beside(source, Path::new(folder));
        table.insert("folder".to_owned(), folder.to_string_lossy().into_owned().into());
    }
    // Resources follow the objects, so R is the dispatcher's.
    if let (Some(toml::Value::Table(takeover)), Some(replicas)) = (table.get_mut("takeover"), replicas) {
        match takeover.get("replicas").and_then(toml::Value::as_integer) {
            Some(other) if usize::try_from(other) != Ok(replicas) => {
                let message = format!("takeover.replicas of {resource} is {other}, and the dispatcher's is {replicas}");
                return Err(fault(message, "leave it out: it is taken from [dispatcher]"));
            }
            Some(_) => {}
            None => drop(takeover.insert("replicas".to_owned(), toml::Value::Integer(replicas as i64))),
        }
    }
    let named: Named = serde_json::to_value(&table)
        .and_then(serde_json::from_value)
        .map_err(|e| fault(format!("the parameters of {resource}: {e}"), "use numbers and text"))?;
    let built = vibra_daemon::policies().build(&named.policy, resource, named.parameters.clone().into());
    built.map_err(|e| fault(e.to_string(), "docs/policies.md lists the policies and their parameters"))?;
    Ok(named)
}

/// The level has one policy yet, but is named as every other is.
fn level(source: &Source<'_>, table: &Spanned<toml::Table>) -> Fault<FvmParameters> {
    let mut parameters = table.get_ref().clone();
    let fault = |message: String, hint: &str| source.fault(table.span(), message, Some(hint.to_owned()));
    match parameters.remove("policy") {
        Some(toml::Value::String(name)) if name == "fvm" => {}
        Some(toml::Value::String(name)) => {
            return Err(fault(format!("there is no policy {name:?} for the level"), "write { policy = \"fvm\" }"));
        }
        _ => return Err(fault("level names no policy".to_owned(), "write { policy = \"fvm\" }")),
    }
    let parameters = serde_json::to_value(&parameters)
        .map_err(|e| fault(format!("the parameters of level: {e}"), "use numbers and text"))?;
    let hint = "docs/configuration.md lists the parameters";
    FvmParameters::from_json(parameters).map_err(|e| fault(e.to_string(), hint))
}

/// Customers, hosts and VMs that the directory's own rules accept.
struct Cluster {
    customers: Vec<Customer>,
    hosts: Vec<HostSpec>,
    vms: Vec<Vm>,
}

impl Cluster {
    fn judge(source: &Source<'_>, file: &raw::File) -> Fault<Cluster> {
        let customer_name = |c: &raw::Customer| c.name.span();
        let customers = file.customer.iter().map(Spanned::get_ref);
        distinct(source, "customer", customers.map(|c| (c.name.get_ref().as_str(), customer_name(c))))?;
        let hosts = file.host.iter().map(Spanned::get_ref);
        distinct(source, "host", hosts.map(|h| (h.name.get_ref().as_str(), h.name.span())))?;
        let vms = file.vm.iter().map(Spanned::get_ref);
        distinct(source, "VM", vms.map(|v| (v.name.get_ref().as_str(), v.name.span())))?;

        let mut trial = Trial { source, directory: Snapshot::default() };
        let mut cluster = Cluster { customers: Vec::new(), hosts: Vec::new(), vms: Vec::new() };
        for raw in file.customer.iter().map(Spanned::get_ref) {
            let customer = Customer { id: raw.name.get_ref().clone(), bounds: (*raw.bound.get_ref()).into() };
            trial.run(raw.name.span(), Command::PutCustomer(customer.clone()))?;
            cluster.customers.push(customer);
        }
        for raw in file.host.iter().map(Spanned::get_ref) {
            let host = HostSpec { id: raw.name.get_ref().clone(), capacity: raw.capacity.into() };
            trial.run(raw.name.span(), Command::PutHost(host.clone()))?;
            cluster.hosts.push(host);
        }
        for (order, raw) in (1..).zip(file.vm.iter().map(Spanned::get_ref)) {
            let vm = vm(source, raw, order, &initial(file, raw, &cluster.customers), &cluster.customers)?;
            trial.run(raw.name.span(), Command::PutVm(vm.spec.clone()))?;
            cluster.vms.push(vm);
        }
        attached::check(source, file, &cluster.vms)?;
        Ok(cluster)
    }
}

/// What a VM has at first: what it says, else an equal share of what its customer bought.
fn initial(file: &raw::File, raw: &raw::Vm, customers: &[Customer]) -> Resources {
    if let Some(initial) = raw.initial {
        return initial.into();
    }
    let id: &CustomerId = raw.customer.get_ref();
    let bounds = customers.iter().find(|c| c.id == *id).map_or(Resources::NONE, |c| c.bounds);
    let siblings = file.vm.iter().filter(|vm| vm.get_ref().customer.get_ref() == id).count() as u64;
    let mut share = Resources::NONE;
    // Of a VM that somebody else runs, no more can be managed than there is an actuator for.
    let managed =
        |resource| raw.kind != raw::VmKind::Attached || raw.cgroup.is_some() || resource == Resource::Bandwidth;
    for amount in bounds.amounts().filter(|amount| managed(amount.resource())) {
        share.set(amount.resource().amount(amount.raw() / siblings));
    }
    share
}

/// What a VM boots with: a balloon only takes, so it is what the customer's other VMs could leave it, unless the file says
/// less.
fn boot_memory(
    source: &Source<'_>,
    raw: &raw::Vm,
    initial: &Resources,
    customers: &[Customer],
) -> Fault<Option<Bytes>> {
    let fault = |message: String, hint: &str| Err(source.fault(raw.name.span(), message, Some(hint.to_owned())));
    match (raw.kind, raw.boot_memory) {
        (raw::VmKind::Qemu, said) => {
            let bound = customers.iter().find(|customer| customer.id == *raw.customer.get_ref());
            let boot = said.or(bound.and_then(|customer| customer.bounds.memory)).unwrap_or(BOOT_MEMORY);
            if boot < LEAST_BOOT_MEMORY {
                return fault(format!("{boot} are too little to boot a VM"), "set boot_memory to 128MiB or more");
            }
            if initial.memory.is_some_and(|memory| memory > boot) {
                return fault(format!("it boots with {boot}, and shall have more at first"), "raise boot_memory");
            }
            Ok(Some(boot))
        }
        (_, None) => Ok(None),
        (_, Some(_)) => fault("boot_memory is for VMs of kind \"qemu\"".to_owned(), "take it out"),
    }
}

fn vm(source: &Source<'_>, raw: &raw::Vm, order: u32, initial: &Resources, customers: &[Customer]) -> Fault<Vm> {
    let spec = VmSpec {
        id: raw.name.get_ref().clone(),
        customer: raw.customer.get_ref().clone(),
        host: raw.host.get_ref().clone(),
        // Its agent fills it in when the VM runs.
        address: String::new(),
        order,
        weight: weight(source, raw.weight.as_ref())?,
        floor: raw.floor.into(),
        initial: *initial,
    };
    let attached = attached::attached(source, raw, initial)?;
    let content = match &raw.content {
        Some(content) => self::content(source, content.get_ref()),
        None if attached.is_some() => String::new(),
        None => {
            let hint = Some("add content: a trace file, \"worldcup\" or \"youtube\"".to_owned());
            return Err(source.fault(raw.name.span(), "a VM that serves nothing", hint));
        }
    };
    let boot_memory = boot_memory(source, raw, initial, customers)?;
    Ok(Vm { spec, kind: raw.kind, content, boot_memory, attached })
}

/// A trace by its name, or a file beside the configuration.
fn content(source: &Source<'_>, named: &str) -> String {
    match NAMES.contains(&named) {
        true => named.to_owned(),
        false => beside(source, &PathBuf::from(named)).to_string_lossy().into_owned(),
    }
}

/// An empty directory that is given the file's records one by one.
struct Trial<'a> {
    source: &'a Source<'a>,
    directory: Snapshot,
}

impl Trial<'_> {
    fn run(&mut self, span: Range<usize>, command: Command) -> Fault<()> {
        match self.directory.decide(&command) {
            Ok(changes) => {
                self.directory.apply(self.directory.revision().next(), &changes);
                Ok(())
            }
            Err(rejection) => Err(self.source.fault(span, rejection.to_string(), hint(&rejection))),
        }
    }
}

fn hint(rejection: &Rejection) -> Option<String> {
    let Rejection::Refused { violations } = rejection else { return None };
    let hints: Vec<&str> = violations.iter().filter_map(remedy).collect();
    (!hints.is_empty()).then(|| hints.join("; "))
}

fn remedy(violation: &Violation) -> Option<&'static str> {
    Some(match violation {
        Violation::UnknownCustomer { .. } => "add a [[customer]] of that name",
        Violation::UnknownHost { .. } => "add a [[host]] of that name",
        Violation::FloorsExceedBound { .. } => "lower the floors or raise the bound",
        Violation::BoundExceeded { .. } => "lower what the VMs have at first, or raise the bound",
        Violation::BelowFloor { .. } => "raise what the VM has at first, or lower its floor",
        Violation::CapacityExceeded { .. } => "place fewer VMs on the host, or raise its capacity",
        _ => return None,
    })
}
