//! Virtual machines: each a QEMU that runs in the host's namespace, in a control group of its own.
//!
//! This needs root, QEMU, a VM image, and the tools that [`probe_qemu`] looks for. A VM's bandwidth is a class on the
//! host's uplink, its CPU a quota of its control group, and its memory what its balloon leaves it.

mod balloon;
mod content;
mod guest;
mod migration;
mod place;
mod probe;
mod process;
mod qmp;
#[cfg(test)]
mod script;
mod shrink;
mod vm;

pub use probe::{Accelerator, QemuCapabilities, probe_qemu};

use crate::{
    Catalogue, HostError, Machine, MachineError, MachineSpec,
    host::{
        cgroup::{self, Cgroup, CgroupVersion, DiskLimit},
        command,
        network::{MOST_VMS, Network},
        run::{Run, RunError},
        shaper::Shaper,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use vibra_model::{Bytes, BytesPerSec, HostId};
use vm::QemuVm;

/// What virtual machines have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuSettings {
    /// The first two octets of all addresses; the third is the number of the run.
    pub prefix: [u8; 2],
    /// What waits before the shaper of one VM, as the time that it takes to pass; what comes on top is dropped, and
    /// TCP sends it again.
    pub queue: Duration,
    /// What each VM's disk gives; `None`: as much as it can.
    pub disk: Option<DiskLimit>,
    /// Where the disk images of what is served are kept, for the next run with the same catalogue.
    pub contents: PathBuf,
    /// The directory with the VM's kernel and initramfs; `None`: the newest that `images/build` made.
    pub image: Option<PathBuf>,
    /// What a VM boots with, in whole MiB: the most that it can ever have, as a balloon only takes. A VM needs 128 MiB
    /// to boot.
    pub boot_memory: Bytes,
    /// How long a VM may take until it serves. Emulated on a busy machine that is many seconds.
    pub boot_time: Duration,
    /// How many VMs boot at a time, in the order in which they are specified: with 1 each waits until those before it serve.
    pub boot_at_once: NonZeroUsize,
    /// How fast a VM's memory may be copied to another host.
    pub moving_rate: BytesPerSec,
    /// How long that may take; then the VM is stopped and started there.
    pub moving_time: Duration,
    /// What runs the guests' code; `None`: KVM if a VM boots with it, else emulation.
    pub accelerator: Option<Accelerator>,
}

impl Default for QemuSettings {
    /// 10.177.x.y; queues of half a second; the default disk; contents below /var/cache/vibra; VMs of 256 MiB that boot,
    /// one a processor, within a minute and a half, and move within a minute at 100 Mbit/s.
    fn default() -> Self {
        QemuSettings {
            prefix: [10, 177],
            queue: Duration::from_millis(500),
            disk: Some(DiskLimit::default()),
            contents: "/var/cache/vibra/contents".into(),
            image: None,
            boot_memory: Bytes(256 << 20),
            boot_time: Duration::from_secs(90),
            boot_at_once: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            moving_rate: BytesPerSec(12_500_000),
            moving_time: Duration::from_secs(60),
            accelerator: None,
        }
    }
}

/// What all VMs of a host share. Dropped, it removes everything that was made.
struct Inner {
    network: Network,
    shaper: Shaper,
    settings: QemuSettings,
    accelerator: Accelerator,
    image: PathBuf,
    content: PathBuf,
    version: CgroupVersion,
    run: Mutex<Run>,
    directory: PathBuf,
    group: String,
    /// The ports that are taken.
    ports: Mutex<BTreeSet<usize>>,
    /// Where its VMs can go.
    peers: Mutex<Vec<(HostId, Weak<Inner>)>>,
}

impl Inner {
    fn begin(settings: QemuSettings, catalogue: &Catalogue) -> Result<Self, HostError> {
        probe::version().map_err(|reason| HostError::Unable("run QEMU", reason))?;
        let image = probe::find_image(settings.image.as_deref());
        let image = image.map_err(|reason| HostError::Unable("find a VM image", reason))?;
        let accelerator = settings.accelerator.unwrap_or_else(|| match probe::kvm(&image) {
            Ok(()) => Accelerator::Kvm,
            Err(_) => Accelerator::Tcg,
        });
        let content = content::image(&settings.contents, catalogue).map_err(HostError::Content)?;
        let version = cgroup::version(Path::new(cgroup::MOUNT)).map_err(HostError::Cgroups)?;
        let run = Run::begin()?;
        let network = Network { run: run.number, prefix: settings.prefix, queue: settings.queue };
        let (directory, group) = (run.directory(), run.cgroup());
        let (shaper, run) = (Shaper::new(network.uplink()), Mutex::new(run));
        let inner = Inner {
            network,
            shaper,
            settings,
            accelerator,
            image,
            content,
            version,
            run,
            directory,
            group,
            ports: Mutex::default(),
            peers: Mutex::default(),
        };
        command::run_all(&inner.network.host_steps())?;
        Ok(inner)
    }

    fn vm_directory(&self, index: usize) -> PathBuf {
        self.directory.join(format!("vm{index}"))
    }

    fn cgroup(&self, index: usize) -> Box<dyn Cgroup> {
        cgroup::open(self.version, Path::new(cgroup::MOUNT), &format!("{}/vm{index}", self.group))
    }

    /// Takes the first free port.
    fn take_port(&self) -> Option<usize> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..MOST_VMS).find(|port| !ports.contains(port))?;
        ports.insert(free);
        Some(free)
    }

    fn give_port(&self, port: usize) {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
    }

    fn peers(&self) -> MutexGuard<'_, Vec<(HostId, Weak<Inner>)>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where on `host` its VMs can go: to where the same image of what they serve is.
    fn peer(&self, host: &HostId) -> Option<Arc<Inner>> {
        let peers = self.peers();
        let mut there = peers.iter().filter(|(id, _)| id == host).filter_map(|(_, peer)| peer.upgrade());
        there.find(|peer| peer.content == self.content)
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

/// One host with virtual machines, all with the same catalogue. It ends when it is stopped, or when it and all its
/// machines are dropped.
pub struct QemuHost {
    inner: Arc<Inner>,
    machines: Vec<Arc<dyn Machine>>,
}

impl QemuHost {
    /// Makes the host and its VMs and the disk image of what they serve, and boots them in the order of `specs`, some at a
    /// time.
    ///
    /// # Errors
    /// [`HostError`] of the first thing that failed; what was made until then is removed.
    pub async fn start(
        settings: QemuSettings,
        catalogue: Arc<Catalogue>,
        specs: Vec<MachineSpec>,
    ) -> Result<Self, HostError> {
        let at_once = settings.boot_at_once.get();
        let (inner, vms) = tokio::task::spawn_blocking(move || make(settings, &catalogue, &specs)).await??;
        let boots = stream::iter(vms.iter().map(|vm| vm.start())).buffered(at_once);
        boots.try_collect::<Vec<()>>().await?;
        let machines = vms.into_iter().map(|vm| Arc::new(vm) as Arc<dyn Machine>).collect();
        Ok(QemuHost { inner, machines })
    }

    /// The VMs, in the order in which they were specified.
    pub fn machines(&self) -> &[Arc<dyn Machine>] {
        &self.machines
    }

    /// What runs the guests' code.
    pub fn accelerator(&self) -> Accelerator {
        self.inner.accelerator
    }

    /// This machine's address outside the data centre: what is sent to it is shaped.
    pub fn outside(&self) -> Ipv4Addr {
        self.inner.network.outside()
    }

    /// This machine's address within the data centre: what is sent to it is internal traffic, and not shaped.
    pub fn inside(&self) -> Ipv4Addr {
        self.inner.network.inside()
    }

    /// Joins the networks of hosts on this machine to one, as a switch does for machines, so that VMs can go from one to
    /// another and keep their addresses: see [`Machine::move_to`]. It lasts as long as the first of them.
    ///
    /// # Errors
    /// [`HostError::Network`] where that could not be done.
    pub async fn join(hosts: &[(HostId, &QemuHost)]) -> Result<(), HostError> {
        let Some((_, first)) = hosts.first() else { return Ok(()) };
        let networks: Vec<_> = hosts.iter().map(|(_, host)| host.inner.network.clone()).collect();
        let step = first.inner.network.join_step(&networks);
        tokio::task::spawn_blocking(move || step.run()).await??;
        let peers: Vec<_> = hosts.iter().map(|(id, host)| (id.clone(), Arc::downgrade(&host.inner))).collect();
        for (_, host) in hosts {
            host.inner.peers().clone_from(&peers);
        }
        Ok(())
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

    /// What [`start`](Self::start) would run to make the network, as a shell would take it. Nothing is run.
    pub fn dry_run(settings: &QemuSettings, specs: &[MachineSpec]) -> Vec<String> {
        let network = Network { run: 0, prefix: settings.prefix, queue: settings.queue };
        let taps = (0..specs.len()).flat_map(|index| network.tap_steps(index));
        let shaped = specs.iter().enumerate().map(|(index, spec)| network.shaped(index, spec.initial.bandwidth));
        let steps = network.host_steps().into_iter().chain(Shaper::dry_run(&network.uplink(), shaped)).chain(taps);
        steps.map(|step| step.to_string()).collect()
    }
}

fn make(
    settings: QemuSettings,
    catalogue: &Catalogue,
    specs: &[MachineSpec],
) -> Result<(Arc<Inner>, Vec<QemuVm>), HostError> {
    if specs.len() > MOST_VMS {
        return Err(HostError::TooMany(specs.len()));
    }
    let inner = Arc::new(Inner::begin(settings, catalogue)?);
    let make = |(index, spec): (usize, &MachineSpec)| {
        let made = QemuVm::make(inner.clone(), inner.network.vm(index), spec);
        made.map_err(|error| MachineError::failed(&spec.id, "make it", error))
    };
    let vms = specs.iter().enumerate().map(make).collect::<Result<_, _>>()?;
    Ok((inner, vms))
}
