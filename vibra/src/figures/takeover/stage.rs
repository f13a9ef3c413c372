//! A whole Vibra over four VMs, each on a host of its own, whose parts run as `vibra up` would run them.

use crate::{
    live::{self, Cluster},
    parts,
};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use vibra_agent::{Agent, Machine, register};
use vibra_client::{Follower, follow};
use vibra_daemon::{Allocator, Core, Settings as AllocatorSettings};
use vibra_model::{
    Bytes, BytesPerSec, Command, Customer, CustomerId, HostSpec, Resource, Resources, Snapshot, VmSpec, VmState,
};
use vibra_policy::{Composition, Policies};
use vibra_proxy::{Config, Dispatcher, Handle, Source};
use vibra_replay::{Options, Summary, replay};
use vibra_routing::Settings;
use vibra_trace::Trace;

/// The VM that fails, as in Figure 4.4.
pub(super) const VICTIM: usize = 1;
/// How many VMs: as in sections 3.5 and 4.4.
pub(super) const VMS: usize = 4;
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The least that each VM ever has: what keeps a server alive.
const FLOOR: Resources = Resources { bandwidth: Some(BytesPerSec(50_000)), memory: Some(Bytes(20 << 20)), cpu: None };
/// How long the parts may take to find each other.
const START_LIMIT: Duration = Duration::from_secs(15);

/// How requests and resources are divided.
pub(super) struct Way {
    pub(super) settings: Settings,
    /// The policy of each resource that moves, with its parameters.
    pub(super) policies: Vec<(Resource, &'static str, Value)>,
    /// What each VM has at first.
    pub(super) share: Resources,
    /// What the VM that fails keeps of it: a floor.
    pub(super) kept: Resources,
}

/// The parts, running.
pub(super) struct Stage {
    server: vibra_server::Handle,
    dispatcher: Handle,
    follower: Follower,
    agents: Vec<JoinHandle<()>>,
    allocator: JoinHandle<Core>,
    stop: watch::Sender<bool>,
}

impl Stage {
    /// Starts the parts, and waits until all VMs are used.
    ///
    /// # Errors
    /// If one does not start.
    pub(super) async fn start(cluster: &Cluster, way: &Way) -> anyhow::Result<Stage> {
        let customer: CustomerId = "figures".parse()?;
        let (server, directory) = live::directory().await?;
        let mut bounds = Resources::NONE;
        way.share.amounts().for_each(|share| bounds.set(share.resource().amount(share.raw() * VMS as u64)));
        directory.command(Command::PutCustomer(Customer { id: customer.clone(), bounds })).await?;
        let (stop, stopped) = watch::channel(false);
        let mut agents = Vec::new();
        for (machine, order) in cluster.machines().iter().zip(1..) {
            let host = HostSpec { id: format!("h{order}").parse()?, capacity: Resources::NONE };
            let agent = Agent::new(host.id.clone(), vec![machine.clone()], directory.clone());
            register(&*directory, host.clone(), vec![spec(&**machine, order, &customer, host, way)]).await?;
            agents.push(tokio::spawn(agent.run(parts::stop::told(stopped.clone()))));
        }
        let policy = |(resource, name, parameters): &(Resource, &str, Value)| {
            Policies::shipped().build(name, *resource, parameters.clone())
        };
        let policies = Composition::new(way.policies.iter().map(policy).collect::<Result<_, _>>()?)?;
        let core = Core::new(customer.clone(), policies);
        let allocator = Allocator::new(directory.clone(), core, AllocatorSettings::default());
        let allocator = tokio::spawn(allocator.run(parts::stop::told(stopped)));
        let source = Source::Directory { directory: directory.clone(), customer };
        let dispatcher =
            Dispatcher::start(Config { threads: 1, settings: way.settings.clone(), ..Config::new(LOOPBACK, source) })?;
        let stage = Stage { server, dispatcher, follower: follow(directory), agents, allocator, stop };
        stage
            .until("every VM used", |all| all.vms().len() == VMS && all.vms().all(|vm| vm.state == VmState::Up))
            .await?;
        stage.used(VMS).await?;
        Ok(stage)
    }

    /// Waits until the directory is as `like` says.
    ///
    /// # Errors
    /// If it is not for too long.
    pub(super) async fn until(&self, what: &str, like: impl Fn(&Snapshot) -> bool) -> anyhow::Result<()> {
        let mut snapshots = self.follower.snapshots();
        let found = timeout(START_LIMIT, snapshots.wait_for(|snapshot| like(snapshot))).await;
        found.with_context(|| format!("{what}: not after {START_LIMIT:?}"))??;
        Ok(())
    }

    /// Waits until the dispatcher uses so many VMs.
    ///
    /// # Errors
    /// If it does not for too long.
    pub(super) async fn used(&self, count: usize) -> anyhow::Result<()> {
        let uses = async {
            while self.dispatcher.status().servers.iter().filter(|server| server.used).count() != count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(START_LIMIT, uses).await.is_err() {
            bail!("the dispatcher does not use {count} VMs after {START_LIMIT:?}");
        }
        Ok(())
    }

    /// Replays a trace through the dispatcher.
    ///
    /// # Errors
    /// If that is not possible.
    pub(super) async fn replay(
        &self,
        trace: &Trace,
        options: impl FnOnce(SocketAddr) -> Options,
    ) -> anyhow::Result<Summary> {
        let target = *self.dispatcher.addresses().first().context("the dispatcher listens nowhere")?;
        let (trace, options) = (trace.clone(), options(target));
        Ok(tokio::task::spawn_blocking(move || replay(&trace, &options, |_| {})).await??)
    }

    /// Ends the parts.
    ///
    /// # Errors
    /// If one of them did not work to its end.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.dispatcher.shutdown(Duration::from_secs(2)).await;
        self.stop.send_replace(true);
        for agent in self.agents {
            agent.await?;
        }
        self.allocator.await?;
        self.server.stop().await?;
        Ok(())
    }
}

fn spec(machine: &dyn Machine, order: u32, customer: &CustomerId, host: HostSpec, way: &Way) -> VmSpec {
    let (id, address) = (machine.id().clone(), machine.address().to_owned());
    let mut floor = FLOOR;
    if order as usize == VICTIM + 1 {
        way.kept.amounts().for_each(|kept| floor.set(kept));
    }
    VmSpec { id, customer: customer.clone(), host: host.id, address, order, weight: 1, floor, initial: way.share }
}
