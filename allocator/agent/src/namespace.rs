//! Namespace VMs: each a network namespace with an nginx of its own, shaped and limited from outside.
//!
//! This needs root and the tools that [`probe`] looks for. Everything that is made has a name that follows from the
//! number of the run, and is removed when the host is stopped or dropped; after a crash by [`cleanup_stale`].

mod nginx;
mod probe;
mod times;
mod vm;

pub use probe::{Capabilities, probe};

use crate::{
    Catalogue, Machine, MachineError, MachineSpec,
    host::{
        Reason,
        cgroup::{self, Cgroup, CgroupVersion, CpuControl, DiskLimit},
        command::{self, CommandError},
        network::{MOST_VMS, Network},
        run::{Run, RunError},
        shaper::{Shaper, ShaperError},
    },
};
use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use vibra_guest::{Method, Sampling};
use vibra_model::{Resource, Resources};
use vm::NamespaceVm;

/// What namespace VMs have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceSettings {
    /// The first two octets of all addresses; the third is the number of the run.
    pub prefix: [u8; 2],
    /// What waits before the shaper of one VM, as the time that it takes to pass; what comes on top is dropped, and
    /// TCP sends it again.
    pub queue: Duration,
    /// What each VM's disk gives; `None`: as much as it can. Where that cannot be limited the VMs run all the same:
    /// see [`NamespaceHost::unthrottled`].
    pub disk: Option<DiskLimit>,
    /// What an allocation of CPU means.
    pub cpu: CpuControl,
    /// How the VMs' working sets are found out, and how often; `None`: not at all. By
    /// [deactivation](vibra_guest::Method::Deactivation), or by [refaults](vibra_guest::Method::Refaults) where the
    /// kernel's multi-generation LRU is on.
    pub working_set: Option<Sampling>,
    /// Where the files that are served are written, on a real file system. They are kept: the next run with the same
    /// catalogue need not write them again.
    pub docroots: PathBuf,
}

impl Default for NamespaceSettings {
    /// 10.177.x.y; queues of half a second; the default disk; working sets of a minute; files below /var/cache/vibra.
    fn default() -> Self {
        let method = if vibra_guest::lru_gen::is_on() { Method::Refaults } else { Method::Deactivation };
        NamespaceSettings {
            prefix: [10, 177],
            queue: Duration::from_millis(500),
            disk: Some(DiskLimit::default()),
            cpu: CpuControl::default(),
            working_set: Some(Sampling { method, period_ms: 60_000 }),
            docroots: "/var/cache/vibra".into(),
        }
    }
}

/// Why a host of namespace VMs or virtual machines could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// More VMs than there are addresses.
    #[error("{0} VMs are too many for one host: at most {MOST_VMS}")]
    TooMany(usize),
    /// The run could not begin or end.
    #[error(transparent)]
    Run(#[from] RunError),
    /// This machine lacks something.
    #[error("could not {0}: {1}")]
    Unable(&'static str, Reason),
    /// The disk image of what is served could not be made.
    #[error("could not make the disk image of what is served")]
    Content(#[source] io::Error),
    /// No control groups, or they refuse.
    #[error("could not use control groups")]
    Cgroups(#[source] io::Error),
    /// The host's network could not be made.
    #[error("could not make the host's network")]
    Network(#[from] CommandError),
    /// Nor what limits it.
    #[error("could not shape the host's uplink")]
    Shaper(#[from] ShaperError),
    /// A VM could not be made or started.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The work ended early.
    #[error("the work was cut short")]
    Cut(#[from] tokio::task::JoinError),
}

/// What all VMs of a host share. Dropped, it removes everything that was made.
struct Inner {
    network: Network,
    shaper: Shaper,
    settings: NamespaceSettings,
    catalogue: Arc<Catalogue>,
    version: CgroupVersion,
    run: Mutex<Run>,
    directory: PathBuf,
    group: String,
    /// The disk that the files are on, or why its reads can be neither limited nor counted.
    disk: Result<String, Reason>,
}

impl Inner {
    fn begin(settings: NamespaceSettings, catalogue: Arc<Catalogue>) -> Result<Self, HostError> {
        let version = cgroup::version(Path::new(cgroup::MOUNT)).map_err(HostError::Cgroups)?;
        let run = Run::begin()?;
        let network = Network { run: run.number, prefix: settings.prefix, queue: settings.queue };
        let (directory, group) = (run.directory(), run.cgroup());
        let disk = cgroup::limitable_disk(version, &group, &settings.docroots).map_err(|error| Reason::of(&error));
        if let (Err(reason), Some(_)) = (&disk, settings.disk) {
            tracing::warn!(%reason, "the VMs' disks are not throttled");
        }
        let (shaper, run) = (Shaper::new(network.uplink()), Mutex::new(run));
        let inner = Inner { network, shaper, settings, catalogue, version, run, directory, group, disk };
        command::run_all(&inner.network.host_steps())?;
        Ok(inner)
    }

    fn docroot(&self, index: usize) -> PathBuf {
        self.settings.docroots.join(format!("r{}", self.network.run)).join(format!("vm{index}"))
    }

    fn vm_directory(&self, index: usize) -> PathBuf {
        self.directory.join(format!("vm{index}"))
    }

    fn cgroup(&self, index: usize) -> Box<dyn Cgroup> {
        cgroup::open(self.version, Path::new(cgroup::MOUNT), &self.group_name(index))
    }

    fn group_name(&self, index: usize) -> String {
        format!("{}/vm{index}", self.group)
    }

    fn remove(&self) -> Result<(), RunError> {
        self.shaper.close();
        self.run.lock().unwrap_or_else(PoisonError::into_inner).remove()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!("something of a run is left: {}", crate::machine::chain(&error));
        }
    }
}

/// One host with namespace VMs, all with the same catalogue. It ends when it is stopped, or when it and all its
/// machines are dropped.
pub struct NamespaceHost {
    inner: Arc<Inner>,
    machines: Vec<Arc<dyn Machine>>,
}

impl NamespaceHost {
    /// Makes the host and its VMs, writes their files, and starts them, all at once.
    ///
    /// # Errors
    /// [`HostError`] of the first thing that failed; what was made until then is removed.
    pub async fn start(
        settings: NamespaceSettings,
        catalogue: Arc<Catalogue>,
        specs: Vec<MachineSpec>,
    ) -> Result<Self, HostError> {
        let (inner, vms) = tokio::task::spawn_blocking(move || make(settings, catalogue, &specs)).await??;
        futures_util::future::try_join_all(vms.iter().map(|vm| vm.start())).await?;
        let machines = vms.into_iter().map(|vm| Arc::new(vm) as Arc<dyn Machine>).collect();
        Ok(NamespaceHost { inner, machines })
    }

    /// The VMs, in the order in which they were specified.
    pub fn machines(&self) -> &[Arc<dyn Machine>] {
        &self.machines
    }

    /// Why the VMs' disks give as much as they can, although [`NamespaceSettings::disk`] asks for less: in a container,
    /// for one, files may be on no disk of their own. `None` if they give what was asked for.
    pub fn unthrottled(&self) -> Option<&Reason> {
        self.inner.disk.as_ref().err().filter(|_| self.inner.settings.disk.is_some())
    }

    /// Limits what each VM's disk gives, until the VM is started anew: it then has what
    /// [`NamespaceSettings::disk`] says. Nothing happens where disks cannot be limited: see
    /// [`unthrottled`](Self::unthrottled).
    ///
    /// # Errors
    /// [`HostError::Cgroups`] where the kernel refuses.
    pub async fn limit_disks(&self, limit: DiskLimit) -> Result<(), HostError> {
        let (inner, vms) = (self.inner.clone(), self.machines.len());
        let work = move || {
            let Ok(disk) = &inner.disk else { return Ok(()) };
            (0..vms).try_for_each(|index| inner.cgroup(index).limit_disk(disk, limit))
        };
        tokio::task::spawn_blocking(work).await?.map_err(HostError::Cgroups)
    }

    /// Kills the processes of the VM with this index, as a crash would: its machine finds out by itself.
    ///
    /// # Errors
    /// [`HostError::Cgroups`] if a process does not end.
    pub async fn crash(&self, index: usize) -> Result<(), HostError> {
        let inner = self.inner.clone();
        let work = move || inner.cgroup(index).directories().iter().try_for_each(|group| cgroup::end(group));
        tokio::task::spawn_blocking(work).await?.map_err(HostError::Cgroups)
    }

    /// This machine's address outside the data centre: what is sent to it is shaped. Connections from this machine to
    /// the VMs come from here, unless they are bound to another address.
    pub fn outside(&self) -> Ipv4Addr {
        self.inner.network.outside()
    }

    /// This machine's address within the data centre: what is sent to it is internal traffic, and not shaped.
    pub fn inside(&self) -> Ipv4Addr {
        self.inner.network.inside()
    }

    /// Ends the VMs and removes everything that was made. The machines are of no use afterwards.
    ///
    /// # Errors
    /// [`HostError`] where something could not be ended or removed; the rest is.
    pub async fn stop(self) -> Result<(), HostError> {
        let stopped = futures_util::future::join_all(self.machines.iter().map(|machine| machine.stop())).await;
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.remove()).await??;
        stopped.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(())
    }

    /// What [`start`](Self::start) would run to make the network and the control groups, as a shell would take it, and what
    /// it would limit these to, as a remark. Nothing is run.
    pub fn dry_run(settings: &NamespaceSettings, specs: &[MachineSpec]) -> Vec<String> {
        let network = Network { run: 0, prefix: settings.prefix, queue: settings.queue };
        let vms = (0..specs.len()).flat_map(|index| network.vm_steps(index));
        let shaped = specs.iter().enumerate().map(|(index, spec)| network.shaped(index, spec.initial.bandwidth));
        let steps = network.host_steps().into_iter().chain(vms).chain(Shaper::dry_run(&network.uplink(), shaped));
        let groups = specs.iter().enumerate().flat_map(|(index, spec)| dry_group(index, &spec.initial));
        steps.map(|step| step.to_string()).chain(groups).collect()
    }
}

/// What would be done for the control group of VM `index`, and its limits.
fn dry_group(index: usize, limits: &Resources) -> Vec<String> {
    let mount = Path::new(cgroup::MOUNT);
    let version = match cgroup::version(mount) {
        Ok(version) => version,
        Err(error) => return vec![format!("# {error}")],
    };
    let directories = cgroup::open(version, mount, &format!("vibra-r0/vm{index}")).directories();
    let limited: Vec<_> = limits.amounts().filter(|amount| amount.resource() != Resource::Bandwidth).collect();
    let words = limited.iter().map(|amount| format!("{} {amount}", amount.resource())).collect::<Vec<_>>().join(", ");
    let remark = (!limited.is_empty()).then(|| format!("# limited there: {words}"));
    directories.iter().map(|directory| format!("mkdir -p {}", directory.display())).chain(remark).collect()
}

fn make(
    settings: NamespaceSettings,
    catalogue: Arc<Catalogue>,
    specs: &[MachineSpec],
) -> Result<(Arc<Inner>, Vec<NamespaceVm>), HostError> {
    if specs.len() > MOST_VMS {
        return Err(HostError::TooMany(specs.len()));
    }
    let inner = Arc::new(Inner::begin(settings, catalogue)?);
    let shaped = specs.iter().enumerate().map(|(index, spec)| inner.network.shaped(index, spec.initial.bandwidth));
    inner.shaper.put(shaped)?;
    let make = |(index, spec): (usize, &MachineSpec)| {
        let made = NamespaceVm::make(inner.clone(), index, spec);
        made.map_err(|error| MachineError::failed(&spec.id, "make it", error))
    };
    let vms = specs.iter().enumerate().map(make).collect::<Result<_, _>>()?;
    Ok((inner, vms))
}
