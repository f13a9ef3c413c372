//! The whole loop of directory, agent, allocator and dispatcher over a cluster.

use super::cluster::Cluster;
use crate::parts;
use anyhow::bail;
use serde_json::Value;
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
    BytesPerSec, Command, Customer, CustomerId, HostSpec, Resource, Resources, Role, Snapshot, VmSpec, VmState,
};
use vibra_policy::{Composition, Policies};
use vibra_proxy::{Config, Dispatcher, Handle, Source};
use vibra_routing::Settings;
use vibra_server::{Server, Tokens};
use vibra_store::MemoryStore;

/// A free port on loopback.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The host of all VMs.
pub(crate) const HOST: &str = "h1";

/// The least bandwidth that a VM ever has.
pub(crate) const FLOOR: BytesPerSec = BytesPerSec(100_000);

/// How long the parts may take to find each other.
const START_LIMIT: Duration = Duration::from_secs(15);

/// A way to run a cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Way {
    /// How requests are dispatched.
    pub(crate) routing: Settings,
    /// The policy for bandwidth, its parameters, and how often it decides; memory stays as it is.
    pub(crate) policy: &'static str,
    pub(crate) parameters: Value,
    pub(crate) interval: Duration,
    /// What each VM has at first; the customer has bought that for all of them.
    pub(crate) each: Resources,
}

/// The parts of a running Vibra, the dispatcher's and the agent's as `vibra up` would run them.
pub(crate) struct System {
    server: vibra_server::Handle,
    dispatcher: Handle,
    agent: JoinHandle<()>,
    allocator: JoinHandle<Core>,
    log: Log,
    stop: watch::Sender<bool>,
}

impl System {
    /// Starts the parts, and waits until the dispatcher uses every VM.
    ///
    /// # Errors
    /// If a part does not start, or they do not find each other in time.
    pub(crate) async fn start(cluster: &Cluster, way: &Way) -> anyhow::Result<System> {
        let customer: CustomerId = "local".parse()?;
        let (server, directory) = directory().await?;
        register(&*directory, cluster, &customer, way.each).await?;
        let (stop, stopped) = watch::channel(false);
        let agent = Agent::new(HOST.parse()?, cluster.machines().to_vec(), directory.clone());
        let agent = tokio::spawn(agent.run(parts::stop::told(stopped.clone())));
        let allocator = allocator(directory.clone(), &customer, way)?;
        let log = allocator.log();
        let allocator = tokio::spawn(allocator.run(parts::stop::told(stopped)));
        let source = Source::Directory { directory: directory.clone(), customer };
        let config = Config { threads: 1, settings: way.routing.clone(), ..Config::new(LOOPBACK, source) };
        let dispatcher = Dispatcher::start(config)?;
        serving(&directory, &dispatcher, cluster.machines().len()).await?;
        Ok(System { server, dispatcher, agent, allocator, log, stop })
    }

    /// Where clients find the dispatcher.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.dispatcher.addresses().first().copied()
    }

    /// Ends the parts; returns how much bandwidth the allocator moved, in bytes/s.
    ///
    /// # Errors
    /// If one has failed.
    pub(crate) async fn stop(self) -> anyhow::Result<u64> {
        self.dispatcher.shutdown(Duration::from_secs(2)).await;
        self.stop.send_replace(true);
        self.agent.await?;
        self.allocator.await?;
        self.server.stop().await?;
        Ok(self.log.summary().moved(Resource::Bandwidth))
    }
}

/// A directory in memory, as a service, and its operator's client.
///
/// # Errors
/// If it does not start.
pub(crate) async fn directory() -> anyhow::Result<(vibra_server::Handle, Arc<dyn Directory>)> {
    let secret = parts::directory::random_secret()?;
    let mut tokens = Tokens::new();
    tokens.insert(&secret, Role::Operator)?;
    let store = Arc::new(MemoryStore::new());
    let server = Server::start(vibra_server::Config::new(LOOPBACK, store, tokens)).await?;
    let client = HttpDirectory::new(&server.address().to_string(), &secret)?;
    Ok((server, Arc::new(client)))
}

fn allocator(directory: Arc<dyn Directory>, customer: &CustomerId, way: &Way) -> anyhow::Result<Allocator> {
    let policy = Policies::shipped().build(way.policy, Resource::Bandwidth, way.parameters.clone())?;
    let core = Core::new(customer.clone(), Composition::new(vec![policy])?);
    let settings = vibra_daemon::Settings { interval: way.interval, ..vibra_daemon::Settings::default() };
    Ok(Allocator::new(directory, core, settings))
}

/// Registers the customer, who has bought `each` for every VM, one host, and the VMs.
async fn register(
    directory: &dyn Directory,
    cluster: &Cluster,
    customer: &CustomerId,
    each: Resources,
) -> anyhow::Result<()> {
    let mut bounds = Resources::NONE;
    for amount in each.amounts() {
        bounds.set(amount.resource().amount(amount.raw() * cluster.machines().len() as u64));
    }
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
        initial: each,
    });
    let vms: Vec<_> = vms.collect();
    vibra_agent::register(directory, host, vms).await?;
    Ok(())
}

/// Waits until the dispatcher uses every VM.
async fn serving(directory: &Arc<dyn Directory>, dispatcher: &Handle, vms: usize) -> anyhow::Result<()> {
    let follower = follow(directory.clone());
    let mut snapshots = follower.snapshots();
    let all_up = |s: &Arc<Snapshot>| s.vms().len() == vms && s.vms().all(|vm| vm.state == VmState::Up);
    let waited = tokio::time::timeout(START_LIMIT, async {
        snapshots.wait_for(all_up).await?;
        while dispatcher.status().servers.iter().filter(|server| server.used).count() < vms {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    });
    waited.await.unwrap_or_else(|_| bail!("the VMs do not serve after {START_LIMIT:?}"))
}
