//! One variant, measured: the whole loop of directory, agent, allocator and dispatcher, and the trace through it.

use super::{
    WARM_UP,
    cluster::{Cluster, MEMORY, VMS, initial},
    variants::Variant,
};
use anyhow::{Context, bail};
use indicatif::ProgressBar;
use std::{sync::Arc, time::Duration};
use vibra_agent::Agent;
use vibra_client::{Directory, follow};
use vibra_model::{
    Bytes, BytesPerSec, Command, Customer, CustomerId, HostSpec, Resources, Snapshot, VmSpec, VmState,
};
use vibra_proxy::{Config, Dispatcher, Handle, Source};
use vibra_replay::{Mode, Options, Spread, Summary, replay};
use vibra_report::DemoRow;
use vibra_routing::{HashKind, Settings};
use vibra_trace::Trace;

/// The least bandwidth that a VM ever has.
const FLOOR: BytesPerSec = BytesPerSec(100_000);

/// How long the parts may take to find each other.
const START_LIMIT: Duration = Duration::from_secs(15);

/// Runs `variant` on `cluster`, which starts cold, and measures it.
///
/// # Errors
/// If a part does not start. What goes wrong with single requests is counted in the row.
pub(super) async fn measure(
    cluster: &Cluster,
    variant: Variant,
    trace: &Trace,
    seed: u64,
    bar: &ProgressBar,
) -> anyhow::Result<DemoRow> {
    cluster.reset(variant.bandwidth).await.context("starting the VMs cold")?;
    let system = System::start(cluster, variant).await.with_context(|| format!("starting {}", variant.name()))?;
    let before = cluster.disk_blocks().await;
    let summary = replayed(&system.dispatcher, trace, seed, bar).await?;
    let after = cluster.disk_blocks().await;
    let disk_blocks = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    let moved = system.stop().await;
    Ok(row(variant, &summary, disk_blocks, moved))
}

/// The trace through the dispatcher: open loop at the recorded times, a seeded Poisson process within each second.
async fn replayed(dispatcher: &Handle, trace: &Trace, seed: u64, bar: &ProgressBar) -> anyhow::Result<Summary> {
    let target = *dispatcher.addresses().first().context("the dispatcher listens nowhere")?;
    let mode = Mode::Open { speed: 1.0, spread: Spread::Poisson { seed } };
    let options = Options { warm_up: WARM_UP, timeout: Duration::from_secs(10), ..Options::new(target, mode) };
    let (trace, bar) = (trace.clone(), bar.clone());
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

/// The parts of a running Vibra.
struct System {
    dispatcher: Handle,
    agent: tokio::task::JoinHandle<()>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl System {
    async fn start(cluster: &Cluster, variant: Variant) -> anyhow::Result<System> {
        let customer: CustomerId = "demo".parse()?;
        let directory: Arc<dyn Directory> = Arc::new(vibra_client::FakeDirectory::new());
        register(&*directory, cluster, &customer, variant).await?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let agent = Agent::new("h1".parse()?, cluster.machines().to_vec(), directory.clone());
        let mut agent_stop = stopped.clone();
        let agent = tokio::spawn(agent.run(async move { drop(agent_stop.wait_for(|stop| *stop).await) }));
        let settings = Settings {
            algorithm: variant.algorithm,
            hash: HashKind::Charsum,
            replicas: variant.replicas.unwrap_or(1),
            ..Settings::default()
        };
        let source = Source::Directory { directory: directory.clone(), customer: customer.clone() };
        let config = Config { threads: 1, settings, ..Config::new("127.0.0.1:0".parse()?, source) };
        let dispatcher = Dispatcher::start(config)?;
        serving(&directory, &dispatcher).await?;
        Ok(System { dispatcher, agent, stop })
    }

    /// Ends the parts; returns how much bandwidth the allocator moved.
    async fn stop(self) -> u64 {
        self.dispatcher.shutdown(Duration::from_secs(2)).await;
        self.stop.send_replace(true);
        drop(self.agent.await);
        0
    }
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
    let host = HostSpec { id: "h1".parse()?, capacity: Resources::NONE };
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
