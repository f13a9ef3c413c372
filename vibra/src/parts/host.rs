//! A host: its VMs and its agent.

use crate::{commands::trace, config, exit::Failure, parts::stop};
use anyhow::{Context, anyhow};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::watch, task::JoinHandle};
use vibra_agent::{
    Agent, Catalogue, InProcessHost, Machine, MachineSpec, NamespaceHost, NamespaceSettings, OriginSettings,
    cleanup_stale, register,
};
use vibra_client::Directory;
use vibra_model::{Bytes, HostSpec, VmSpec};
use vibra_policy::fvm::Fvm;
use vibra_trace::Objects;

/// The seed of generated content.
const SEED: u64 = 1998;

/// A running host.
pub(crate) struct Host {
    agent: JoinHandle<()>,
    kinds: Vec<Kind>,
}

/// VMs of one kind with one content.
enum Kind {
    InProcess(InProcessHost),
    Namespaces(NamespaceHost),
}

impl Kind {
    fn machines(&self) -> &[Arc<dyn Machine>] {
        match self {
            Kind::InProcess(host) => host.machines(),
            Kind::Namespaces(host) => host.machines(),
        }
    }
}

impl Host {
    /// Starts the VMs that `config` has on `host`, registers them, and starts the agent, which works until `stopped` says
    /// so.
    ///
    /// # Errors
    /// If a VM does not start, or the directory does not accept one.
    pub(crate) async fn start(
        host: &HostSpec,
        config: &config::Config,
        directory: Arc<dyn Directory>,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<Host> {
        let mut groups: BTreeMap<(config::VmKind, &str), Vec<&config::Vm>> = BTreeMap::new();
        for vm in config.vms.iter().filter(|vm| vm.spec.host == host.id) {
            groups.entry((vm.kind, vm.content.as_str())).or_default().push(vm);
        }
        let mut kinds = Vec::new();
        let mut specs = Vec::new();
        for ((kind, content), vms) in groups {
            let started =
                start_kind(kind, content, &vms).await.with_context(|| format!("the VMs of host {}", host.id))?;
            let addresses = started.machines().iter().map(|machine| machine.address().to_owned());
            specs.extend(vms.iter().zip(addresses).map(|(vm, address)| VmSpec { address, ..vm.spec.clone() }));
            kinds.push(started);
        }
        for spec in &specs {
            eprintln!("host {}: VM {} at http://{}", host.id, spec.id, spec.address);
        }
        register(&*directory, host.clone(), specs).await.context("registering with the directory")?;
        let machines = kinds.iter().flat_map(|kind| kind.machines().to_vec()).collect();
        let mut agent = Agent::new(host.id.clone(), machines, directory);
        if let Some(level) = config.allocator.as_ref().and_then(|allocator| allocator.level) {
            agent = agent.with_level(Fvm::new(level)?);
        }
        let agent = tokio::spawn(agent.run(stop::told(stopped)));
        Ok(Host { agent, kinds })
    }

    /// Waits for the agent, which was told to stop, and ends the VMs.
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
            }
        }
        Ok(())
    }
}

async fn start_kind(kind: config::VmKind, content: &str, vms: &[&config::Vm]) -> anyhow::Result<Kind> {
    let loaded = trace::load(content, None, SEED).map_err(|failure| match failure {
        Failure::Runtime(error) | Failure::Usage(error) => error.context(format!("the content {content:?}")),
        Failure::Missed(why) | Failure::Void(why) => anyhow!(why),
    })?;
    let catalogue = Arc::new(catalogue(&loaded.objects)?);
    let specs = vms.iter().map(|vm| MachineSpec { id: vm.spec.id.clone(), initial: vm.spec.initial }).collect();
    Ok(match kind {
        config::VmKind::InProcess => {
            Kind::InProcess(InProcessHost::start(OriginSettings::default(), catalogue, specs).await?)
        }
        config::VmKind::Namespace => Kind::Namespaces(namespaces(catalogue, specs).await?),
    })
}

/// VMs in namespaces. What an earlier run left when it was killed is removed first.
///
/// # Errors
/// If they cannot be made.
pub(crate) async fn namespaces(catalogue: Arc<Catalogue>, specs: Vec<MachineSpec>) -> anyhow::Result<NamespaceHost> {
    let stale = tokio::task::spawn_blocking(cleanup_stale).await?.context("removing what an earlier run left")?;
    match stale.len() {
        0 => {}
        1 => eprintln!("removed what an earlier run left"),
        runs => eprintln!("removed what {runs} earlier runs left"),
    }
    Ok(NamespaceHost::start(NamespaceSettings::default(), catalogue, specs).await?)
}

/// What servers need in order to serve a trace's objects.
///
/// # Errors
/// If a URL cannot be served.
pub(crate) fn catalogue(objects: &Objects) -> anyhow::Result<Catalogue> {
    let items = objects.iter().map(|(_, object)| (object.target(), Bytes(object.size)));
    Catalogue::new(items).context("the trace's objects")
}
