//! A host: its VMs and its agent.

use crate::{
    commands::trace,
    config,
    exit::Failure,
    parts::{self, attached::Attached, stop},
};
use anyhow::{Context, anyhow};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::watch, task::JoinHandle};
use vibra_agent::{
    Agent, AttachedHost, Catalogue, InProcessHost, Machine, MachineSpec, NamespaceHost, NamespaceSettings,
    OriginSettings, QemuHost, QemuSettings, cleanup_stale, register,
};
use vibra_client::Directory;
use vibra_model::{Bytes, Command, HostId, HostSpec, PoolId, VmSpec};
use vibra_policy::fvm::Fvm;
use vibra_trace::Objects;

/// The seed of generated content.
const SEED: u64 = 1998;

/// A host whose VMs run, and whose agent does not yet.
pub(crate) struct Prepared {
    host: HostSpec,
    specs: Vec<VmSpec>,
    kinds: Vec<Kind>,
}

/// A running host.
pub(crate) struct Host {
    agent: JoinHandle<()>,
    kinds: Vec<Kind>,
}

/// VMs of one kind with one content.
enum Kind {
    InProcess(InProcessHost),
    Namespaces(NamespaceHost),
    Qemu(QemuHost),
    Attached(AttachedHost),
}

impl Kind {
    fn machines(&self) -> &[Arc<dyn Machine>] {
        match self {
            Kind::InProcess(host) => host.machines(),
            Kind::Namespaces(host) => host.machines(),
            Kind::Qemu(host) => host.machines(),
            Kind::Attached(host) => host.machines(),
        }
    }
}

impl Prepared {
    /// Starts the VMs that `config` has on `host`.
    ///
    /// # Errors
    /// If one does not start.
    pub(crate) async fn start(host: &HostSpec, config: &config::Config) -> anyhow::Result<Prepared> {
        let mut prepared = Prepared { host: host.clone(), specs: Vec::new(), kinds: Vec::new() };
        let failed = || format!("the VMs of host {}", host.id);
        for ((.., content), vms) in groups(host, config) {
            let started = start_kind(content, &vms).await.with_context(failed)?;
            let addresses = started.machines().iter().map(|machine| machine.address().to_owned());
            prepared.specs.extend(vms.iter().zip(addresses).map(|(vm, address)| VmSpec { address, ..vm.spec.clone() }));
            prepared.kinds.push(started);
        }
        if let Some(attached) = Attached::of(config, &host.id) {
            let started = attached.start().await.with_context(failed)?;
            let addresses = started.machines().iter().map(|machine| machine.address().to_owned());
            let specs = attached.vms.iter().zip(addresses).map(|(vm, address)| VmSpec { address, ..vm.spec.clone() });
            prepared.specs.extend(specs);
            prepared.kinds.push(Kind::Attached(started));
        }
        for spec in &prepared.specs {
            eprintln!("host {}: VM {} at http://{}", host.id, spec.id, spec.address);
        }
        Ok(prepared)
    }

    fn machines(&self) -> Vec<Arc<dyn Machine>> {
        self.kinds.iter().flat_map(|kind| kind.machines().to_vec()).collect()
    }

    /// Registers the host and its VMs.
    async fn register(&self, directory: &dyn Directory) -> anyhow::Result<()> {
        register(directory, self.host.clone(), self.specs.clone()).await.context("registering with the directory")
    }

    /// Starts its agent, which works until `stopped` says so.
    fn run(self, agent: Agent, stopped: watch::Receiver<bool>) -> Host {
        Host { agent: tokio::spawn(agent.run(stop::told(stopped))), kinds: self.kinds }
    }
}

impl Host {
    /// Starts `host` alone: its VMs, which it registers, and its agent, which works until `stopped` says so.
    ///
    /// # Errors
    /// If a VM does not start, or the directory does not accept one.
    pub(crate) async fn start(
        host: &HostSpec,
        config: &config::Config,
        directory: Arc<dyn Directory>,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<Host> {
        let prepared = Prepared::start(host, config).await?;
        prepared.register(&*directory).await?;
        let agent = agent(config, host, prepared.machines(), directory)?;
        Ok(prepared.run(agent, stopped))
    }

    /// Starts all hosts of `config`, as [`start`](Self::start) does one. Since they are in one process their agents can take over
    /// one another's VMs; those that had moved when it last ended are where they went.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn start_all(
        config: &config::Config,
        directory: Arc<dyn Directory>,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<Vec<Host>> {
        let hosts = &config.hosts;
        let pool: PoolId = format!("up-{}", &parts::directory::random_secret()?[..16]).parse()?;
        let known = directory.snapshot().await.context("asking the directory where VMs are")?;
        let moved = |spec: &VmSpec| {
            known.vm(&spec.id).map(|vm| vm.host.clone()).filter(|at| hosts.iter().any(|host| host.id == *at))
        };
        let mut all = Vec::new();
        for host in hosts {
            let mut prepared = Prepared::start(host, config).await?;
            for spec in &mut prepared.specs {
                spec.host = moved(spec).unwrap_or_else(|| spec.host.clone());
            }
            prepared.register(&*directory).await?;
            all.push(prepared);
        }
        join_networks(&all).await?;
        for host in hosts {
            let join = Command::JoinPool { host: host.id.clone(), pool: pool.clone() };
            directory.command(join).await.context("registering with the directory")?;
        }
        let machines: Vec<_> = all.iter().flat_map(Prepared::machines).collect();
        let run = |prepared: Prepared| {
            let agent = agent(config, &prepared.host, machines.clone(), directory.clone())?;
            Ok(prepared.run(agent, stopped.clone()))
        };
        all.into_iter().map(run).collect()
    }

    /// Waits for the agent, which was told to stop, and ends the VMs that it made. What somebody else runs keeps what it
    /// has.
    ///
    /// # Errors
    /// If something of them could not be ended.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.agent.await.context("the agent")?;
        for kind in self.kinds {
            match kind {
                Kind::InProcess(host) => {
                    for machine in host.machines() {
                        machine.stop().await?;
                    }
                }
                Kind::Namespaces(host) => host.stop().await?,
                Kind::Qemu(host) => host.stop().await?,
                Kind::Attached(_) => {
                    eprintln!("the limits on the uplink stay in force: `vibra agent --remove-limits` lifts them");
                }
            }
        }
        Ok(())
    }
}

/// Joins the networks of virtual machines on several hosts, so that those can move while they run.
async fn join_networks(prepared: &[Prepared]) -> anyhow::Result<()> {
    let mut hosts: Vec<(HostId, &QemuHost)> = Vec::new();
    for part in prepared {
        for kind in &part.kinds {
            if let Kind::Qemu(machines) = kind {
                hosts.push((part.host.id.clone(), machines));
            }
        }
    }
    if hosts.len() > 1 {
        QemuHost::join(&hosts).await.context("joining the networks of the hosts")?;
    }
    Ok(())
}

/// The agent of `host`, which drives its share of `machines`.
fn agent(
    config: &config::Config,
    host: &HostSpec,
    machines: Vec<Arc<dyn Machine>>,
    directory: Arc<dyn Directory>,
) -> anyhow::Result<Agent> {
    let agent = Agent::new(host.id.clone(), machines, directory);
    Ok(match config.allocator.as_ref().and_then(|allocator| allocator.level) {
        Some(level) => agent.with_level(Fvm::new(level)?),
        None => agent,
    })
}

/// What VMs have in common that are made together: their kind, what they boot with, and their content.
type Alike<'a> = (config::VmKind, Option<Bytes>, &'a str);

/// The VMs that are made on `host`, those together that are alike.
fn groups<'a>(host: &HostSpec, config: &'a config::Config) -> BTreeMap<Alike<'a>, Vec<&'a config::Vm>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for vm in config.vms.iter().filter(|vm| vm.spec.host == host.id && vm.attached.is_none()) {
        groups.entry((vm.kind, vm.boot_memory, vm.content.as_str())).or_default().push(vm);
    }
    groups
}

fn machine_specs(vms: &[&config::Vm]) -> Vec<MachineSpec> {
    vms.iter().map(|vm| MachineSpec { id: vm.spec.id.clone(), initial: vm.spec.initial }).collect()
}

/// Prints what would be run to make and shape the VMs of `host`, and runs nothing.
pub(crate) fn dry_run(host: &HostSpec, config: &config::Config) {
    println!("# host {}", host.id);
    for ((kind, ..), vms) in groups(host, config) {
        match kind {
            config::VmKind::InProcess => println!("# {} VMs in this process need no command", vms.len()),
            config::VmKind::Namespace => {
                let commands = NamespaceHost::dry_run(&NamespaceSettings::default(), &machine_specs(&vms));
                commands.iter().for_each(|command| println!("{command}"));
            }
            config::VmKind::Qemu => {
                let commands = QemuHost::dry_run(&qemu_settings(&vms), &machine_specs(&vms));
                commands.iter().for_each(|command| println!("{command}"));
            }
            config::VmKind::Attached => {}
        }
    }
    if let Some(attached) = Attached::of(config, &host.id) {
        attached.dry_run().iter().for_each(|command| println!("{command}"));
    }
}

/// Starts VMs that are alike but for their names and what they have at first.
async fn start_kind(content: &str, vms: &[&config::Vm]) -> anyhow::Result<Kind> {
    let loaded = trace::load(content, None, SEED).map_err(|failure| match failure {
        Failure::Runtime(error) | Failure::Usage(error) => error.context(format!("the content {content:?}")),
        Failure::Missed(why) | Failure::Void(why) => anyhow!(why),
    })?;
    let catalogue = Arc::new(catalogue(&loaded.objects)?);
    let specs = machine_specs(vms);
    Ok(match vms[0].kind {
        config::VmKind::InProcess => {
            Kind::InProcess(InProcessHost::start(OriginSettings::default(), catalogue, specs).await?)
        }
        config::VmKind::Namespace => {
            Kind::Namespaces(namespaces(NamespaceSettings::default(), catalogue, specs).await?)
        }
        config::VmKind::Qemu => Kind::Qemu(virtual_machines(qemu_settings(vms), catalogue, specs).await?),
        config::VmKind::Attached => anyhow::bail!("attached VMs are not made"),
    })
}

/// VMs in namespaces. What an earlier run left when it was killed is removed first.
///
/// # Errors
/// If they cannot be made.
pub(crate) async fn namespaces(
    settings: NamespaceSettings,
    catalogue: Arc<Catalogue>,
    specs: Vec<MachineSpec>,
) -> anyhow::Result<NamespaceHost> {
    remove_stale().await?;
    Ok(NamespaceHost::start(settings, catalogue, specs).await?)
}

/// What virtual machines that are alike have in common.
fn qemu_settings(vms: &[&config::Vm]) -> QemuSettings {
    let default = QemuSettings::default();
    QemuSettings { boot_memory: vms[0].boot_memory.unwrap_or(default.boot_memory), ..default }
}

/// Virtual machines, likewise.
async fn virtual_machines(
    settings: QemuSettings,
    catalogue: Arc<Catalogue>,
    specs: Vec<MachineSpec>,
) -> anyhow::Result<QemuHost> {
    remove_stale().await?;
    let host = QemuHost::start(settings, catalogue, specs).await?;
    eprintln!("virtual machines run on {}", host.accelerator());
    Ok(host)
}

async fn remove_stale() -> anyhow::Result<()> {
    let stale = tokio::task::spawn_blocking(cleanup_stale).await?.context("removing what an earlier run left")?;
    match stale.len() {
        0 => {}
        1 => eprintln!("removed what an earlier run left"),
        runs => eprintln!("removed what {runs} earlier runs left"),
    }
    Ok(())
}

/// What servers need in order to serve a trace's objects.
///
/// # Errors
/// If a URL cannot be served.
pub(crate) fn catalogue(objects: &Objects) -> anyhow::Result<Catalogue> {
    let items = objects.iter().map(|(_, object)| (object.target(), Bytes(object.size)));
    Catalogue::new(items).context("the trace's objects")
}
