//! One variant, measured: the whole loop of directory, agent, allocator and dispatcher, and the trace through it.

use super::{
    cluster::{Cluster, MEMORY, VMS, initial},
    variants::Variant,
};
use crate::parts;
use anyhow::{Context, bail};
use indicatif::ProgressBar;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};
use vibra_agent::Agent;
use vibra_client::{Directory, HttpDirectory, follow};
use vibra_daemon::{Allocator, Core, Log};
use vibra_model::{
    Bytes, BytesPerSec, Command, Customer, CustomerId, HostSpec, Resource, Resources, Role, Snapshot, VmSpec, VmState,
};
use vibra_policy::{Composition, Policies};
use vibra_proxy::{Config, Dispatcher, Handle, Source};
use vibra_replay::{Mode, Options, Spread, Summary, replay};
use vibra_report::DemoRow;
use vibra_routing::{HashKind, Settings};
use vibra_server::{Server, Tokens};
use vibra_store::MemoryStore;
use vibra_trace::Trace;

/// A free port on loopback.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The host of all VMs.
pub(crate) const HOST: &str = "h1";

/// The least bandwidth that a VM ever has.
pub(crate) const FLOOR: BytesPerSec = BytesPerSec(100_000);

/// How long the parts may take to find each other.
const START_LIMIT: Duration = Duration::from_secs(15);

/// What every variant has to serve.
pub(super) struct Workload<'a> {
    pub(super) trace: &'a Trace,
    /// How long it runs before it is measured.
    pub(super) warm_up: Duration,
    /// Of the arrival times within each second.
    pub(super) seed: u64,
}

/// Runs `variant` on `cluster`, which starts cold, and measures it.
///
/// # Errors
/// If a part does not start. What goes wrong with single requests is counted in the row.
pub(super) async fn measure(
    cluster: &Cluster,
    variant: Variant,
    workload: &Workload<'_>,
    bar: &ProgressBar,
) -> anyhow::Result<DemoRow> {
    cluster.reset(variant.bandwidth).await.context("starting the VMs cold")?;
    let system = System::start(cluster, variant).await.with_context(|| format!("starting {}", variant.name()))?;
    let before = cluster.disk_blocks().await;
    let summary = replayed(&system.dispatcher, workload, bar).await?;
    let after = cluster.disk_blocks().await;
    let disk_blocks = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    let moved = system.stop().await?;
    Ok(row(variant, &summary, disk_blocks, moved))
}

/// The trace through the dispatcher: open loop at the recorded times, a seeded Poisson process within each second.
async fn replayed(dispatcher: &Handle, workload: &Workload<'_>, bar: &ProgressBar) -> anyhow::Result<Summary> {
    let target = *dispatcher.addresses().first().context("the dispatcher listens nowhere")?;
    let mode = Mode::Open { speed: 1.0, spread: Spread::Poisson { seed: workload.seed } };
    let options = Options { warm_up: workload.warm_up, timeout: Duration::from_secs(10), ..Options::new(target, mode) };
    let (trace, bar) = (workload.trace.clone(), bar.clone());
    let before = bar.position();
    let run = move || replay(&trace, &options, |now| bar.set_position(before + now.finished));
    Ok(tokio::task::spawn_blocking(run).await??)
}

fn row(variant: Variant, summary: &Summary, disk_blocks: Option<u64>, moved: u64) -> DemoRow {
    let times = summary.response_time.as_ref();
    DemoRow {
        algorithm: variant.algorithm.to_string(),
        replicas: variant.replicas,
        policy: variant.policy.to_owned(),
        requests: summary.requests,
        errors: summary.errors.total(),
        mean_ms: times.map(|t| t.mean_ms),
        p50_ms: times.map(|t| t.p50_ms),
        p99_ms: times.map(|t| t.p99_ms),
        bytes_per_s: summary.bytes_per_s,
        disk_blocks,
        bandwidth_moved_bytes_per_s: Some(moved as f64),
        void: summary.void.clone(),
    }
}

/// The parts of a running Vibra, the dispatcher's and the agent's as `vibra up` would run them.
struct System {
    server: vibra_server::Handle,
    dispatcher: Handle,
    agent: JoinHandle<()>,
    allocator: JoinHandle<Core>,
    log: Log,
    stop: watch::Sender<bool>,
}

impl System {
    async fn start(cluster: &Cluster, variant: Variant) -> anyhow::Result<System> {
        let customer: CustomerId = "demo".parse()?;
        let (server, directory) = directory().await?;
        register(&*directory, cluster, &customer, variant).await?;
        let (stop, stopped) = watch::channel(false);
        let agent = Agent::new(HOST.parse()?, cluster.machines().to_vec(), directory.clone());
        let agent = tokio::spawn(agent.run(parts::stop::told(stopped.clone())));
        let allocator = allocator(directory.clone(), &customer, variant)?;
        let log = allocator.log();
        let allocator = tokio::spawn(allocator.run(parts::stop::told(stopped)));
        let settings = Settings {
            algorithm: variant.algorithm,
            hash: HashKind::Charsum,
            replicas: variant.replicas.unwrap_or(1),
            ..Settings::default()
        };
        let source = Source::Directory { directory: directory.clone(), customer };
        let config = Config { threads: 1, settings, ..Config::new(LOOPBACK, source) };
        let dispatcher = Dispatcher::start(config)?;
        serving(&directory, &dispatcher).await?;
        Ok(System { server, dispatcher, agent, allocator, log, stop })
    }

    /// Ends the parts; returns how much bandwidth the allocator moved, in bytes/s.
    async fn stop(self) -> anyhow::Result<u64> {
        self.dispatcher.shutdown(Duration::from_secs(2)).await;
        self.stop.send_replace(true);
        self.agent.await?;
        self.allocator.await?;
        self.server.stop().await?;
        Ok(self.log.summary().moved(Resource::Bandwidth))
    }
}

/// A directory in memory, as a service, and its operator's client.
async fn directory() -> anyhow::Result<(vibra_server::Handle, Arc<dyn Directory>)> {
    let secret = parts::directory::random_secret()?;
    let mut tokens = Tokens::new();
    tokens.insert(&secret, Role::Operator)?;
    let store = Arc::new(MemoryStore::new());
    let server = Server::start(vibra_server::Config::new(LOOPBACK, store, tokens)).await?;
    let client = HttpDirectory::new(&server.address().to_string(), &secret)?;
    Ok((server, Arc::new(client)))
}

/// The variant's policy for bandwidth; memory stays as it is.
fn allocator(directory: Arc<dyn Directory>, customer: &CustomerId, variant: Variant) -> anyhow::Result<Allocator> {
    let policy = Policies::shipped().build(variant.policy, Resource::Bandwidth, serde_json::json!({}))?;
    let core = Core::new(customer.clone(), Composition::new(vec![policy])?);
    Ok(Allocator::new(directory, core, vibra_daemon::Settings::default()))
}

/// Registers the customer with what the variant gives, one host, and the VMs.
async fn register(
    directory: &dyn Directory,
    cluster: &Cluster,
    customer: &CustomerId,
    variant: Variant,
) -> anyhow::Result<()> {
    let share = initial(variant.bandwidth);
    let bounds = Resources {
        bandwidth: Some(BytesPerSec(variant.bandwidth.0 * VMS as u64)),
        memory: Some(Bytes(MEMORY.0 * VMS as u64)),
        cpu: None,
    };
    directory.command(Command::PutCustomer(Customer { id: customer.clone(), bounds })).await?;
    let host = HostSpec { id: HOST.parse()?, capacity: Resources::NONE };
    let vms = cluster.machines().iter().zip(1..).map(|(machine, order)| VmSpec {
        id: machine.id().clone(),
        customer: customer.clone(),
        host: host.id.clone(),
        address: machine.address().to_owned(),
        order,
        weight: 1,
        floor: Resources { bandwidth: Some(FLOOR), ..Resources::NONE },
        initial: share,
    });
    let vms: Vec<_> = vms.collect();
    vibra_agent::register(directory, host, vms).await?;
    Ok(())
}

/// Waits until the dispatcher uses every VM.
async fn serving(directory: &Arc<dyn Directory>, dispatcher: &Handle) -> anyhow::Result<()> {
    let follower = follow(directory.clone());
    let mut snapshots = follower.snapshots();
    let all_up = |s: &Arc<Snapshot>| s.vms().len() == VMS && s.vms().all(|vm| vm.state == VmState::Up);
    let waited = tokio::time::timeout(START_LIMIT, async {
        snapshots.wait_for(all_up).await?;
        while dispatcher.status().servers.iter().filter(|server| server.used).count() < VMS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    });
    waited.await.unwrap_or_else(|_| bail!("the VMs do not serve after {START_LIMIT:?}"))
}
