//! Attached VMs: those that somebody else runs (libvirt, containers, processes) behind an uplink of this machine.
//!
//! What they send to outside is held to their allocation where it leaves, and their memory and CPU by the control groups that
//! they have already. They are neither made, started nor stopped. When the agent ends, or is killed, they keep what they
//! have; the next agent takes over what it left, without a gap.

mod vm;

use crate::{
    Machine, MachineSpec,
    host::{
        cgroup::{self, CgroupVersion},
        claim::Claim,
        command::{CommandError, Step},
        netlink::NAMESPACES,
        run::RunError,
        shaper::{Hook, Shaped, Shaper, ShaperError, Uplink},
    },
};
use ipnet::IpNet;
use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use vm::AttachedVm;

/// How long the queue of each VM is, at its rate.
const QUEUE: Duration = Duration::from_millis(500);

/// Where attached VMs' traffic leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedSettings {
    /// The device, such as `eth0`.
    pub uplink: String,
    /// The network namespace of the device, by its name of `ip netns`; `None`: this process's own.
    pub namespace: Option<String>,
    /// The destinations within the data centre, which are counted apart and not limited.
    pub internal: Vec<IpNet>,
}

/// A VM that somebody else runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedSpec {
    /// Which VM, and which resources are managed. Its bandwidth is set to this at first, unless an earlier agent left it
    /// another; memory and CPU are left as they are until the directory desires something else.
    pub machine: MachineSpec,
    /// Where it serves HTTP: `host:port`.
    pub address: String,
    /// Where its traffic comes from.
    pub sources: Vec<IpAddr>,
    /// Its control group, relative to where they are mounted, such as `machine.slice/web1.scope`.
    pub cgroup: Option<PathBuf>,
}

/// Why attached VMs cannot be managed.
#[derive(Debug, thiserror::Error)]
pub enum AttachedError {
    /// The uplink cannot be claimed.
    #[error(transparent)]
    Claim(#[from] RunError),
    /// It cannot be shaped.
    #[error("could not shape the uplink")]
    Shaper(#[from] ShaperError),
    /// Demand cannot be counted.
    #[error(
        "could not count what leaves by {device}: that needs nftables and a kernel from 5.16 on \
         (CONFIG_NETFILTER_EGRESS), or a device that is a bridge's port"
    )]
    Uncounted {
        /// The uplink.
        device: String,
        /// Why.
        source: CommandError,
    },
    /// A VM has a control group and there are none.
    #[error("could not find control groups")]
    Cgroups(#[source] io::Error),
    /// The work ended early.
    #[error("the work was cut short")]
    Cut(#[from] tokio::task::JoinError),
}

impl AttachedSettings {
    fn uplink(&self, hook: Hook) -> Uplink {
        Uplink {
            namespace: self.namespace.clone(),
            device: self.uplink.clone(),
            hook,
            internal: IpNet::aggregate(&self.internal),
            queue: QUEUE,
        }
    }

    /// The file that the device's namespace is known by.
    fn namespace_file(&self) -> PathBuf {
        let named = |name| Path::new(NAMESPACES).join(name);
        self.namespace.as_ref().map_or_else(|| "/proc/self/ns/net".into(), named)
    }

    /// Where demand can be counted, found out by asking.
    fn hook(&self) -> Result<Hook, AttachedError> {
        let Err(source) = self.uplink(Hook::Egress).hook_check().run() else { return Ok(Hook::Egress) };
        let is_port = Path::new("/sys/class/net").join(&self.uplink).join("brport").exists();
        if self.namespace.is_none() && is_port {
            tracing::info!(uplink = self.uplink, %source, "demand is counted in the bridge");
            return Ok(Hook::Bridge);
        }
        Err(AttachedError::Uncounted { device: self.uplink.clone(), source })
    }
}

impl AttachedSpec {
    fn shaped(&self) -> Shaped {
        Shaped { addresses: self.sources.clone(), rate: self.machine.initial.bandwidth }
    }
}

/// The attached VMs of one uplink. Dropped, it leaves everything as it is.
pub struct AttachedHost {
    inner: Arc<Inner>,
    machines: Vec<Arc<dyn Machine>>,
}

struct Inner {
    shaper: Shaper,
    claim: Claim,
}

impl AttachedHost {
    /// Shapes the uplink, or takes over what an earlier agent left there.
    ///
    /// # Errors
    /// [`AttachedError`]; a queue that somebody else put on the uplink is left alone.
    pub async fn start(settings: AttachedSettings, specs: Vec<AttachedSpec>) -> Result<Self, AttachedError> {
        tokio::task::spawn_blocking(move || Self::begin(&settings, &specs)).await?
    }

    fn begin(settings: &AttachedSettings, specs: &[AttachedSpec]) -> Result<Self, AttachedError> {
        let version = cgroup_version(specs)?;
        let inner = Inner::open(settings)?;
        let found = inner.find()?;
        inner.claim.note()?;
        let classes = inner.shaper.adopt(specs.iter().map(AttachedSpec::shaped).collect());
        if classes.is_err() && !found {
            // Nothing was there before, and nothing is left.
            inner.remove().unwrap_or_else(|error| tracing::warn!("{}", crate::machine::chain(&error)));
        }
        let inner = Arc::new(inner);
        let machine = |(spec, class): (&AttachedSpec, u16)| {
            Arc::new(AttachedVm::new(inner.clone(), spec.clone(), class, version)) as Arc<dyn Machine>
        };
        let machines = specs.iter().zip(classes?).map(machine).collect();
        tracing::info!(uplink = settings.uplink, vms = specs.len(), found, "the uplink is shaped");
        Ok(AttachedHost { inner, machines })
    }

    /// The VMs, in the order in which they were specified.
    pub fn machines(&self) -> &[Arc<dyn Machine>] {
        &self.machines
    }

    /// Lifts all limits of bandwidth: the uplink gets back the queue that it has by default.
    ///
    /// # Errors
    /// [`AttachedError`] where something could not be removed.
    pub async fn release(self) -> Result<(), AttachedError> {
        tokio::task::spawn_blocking(move || self.inner.remove()).await?
    }

    /// Lifts the limits that an agent left on an uplink; whether there were any.
    ///
    /// # Errors
    /// [`AttachedError`] where another agent works there, or something could not be removed.
    pub fn clear(settings: &AttachedSettings) -> Result<bool, AttachedError> {
        let inner = Inner::open(settings)?;
        let found = inner.find()?;
        inner.remove()?;
        Ok(found)
    }

    /// What [`start`](Self::start) would run where nothing was shaped yet, as a shell would take it. Nothing is run.
    pub fn dry_run(settings: &AttachedSettings, specs: &[AttachedSpec]) -> Vec<String> {
        let shaped = (crate::host::shaper::FIRST_CLASS..).zip(specs.iter().map(AttachedSpec::shaped));
        Shaper::dry_run(&settings.uplink(Hook::Egress), shaped).iter().map(Step::to_string).collect()
    }

    /// What [`clear`](Self::clear) would run. Nothing is run, and nobody is kept out.
    ///
    /// # Errors
    /// [`AttachedError`] where the kernel cannot be asked, or something else is on the uplink.
    pub fn dry_clear(settings: &AttachedSettings) -> Result<Vec<String>, AttachedError> {
        let steps = Shaper::new(settings.uplink(Hook::Egress)).dry_removal()?;
        Ok(steps.iter().map(Step::to_string).collect())
    }
}

impl Inner {
    fn open(settings: &AttachedSettings) -> Result<Inner, AttachedError> {
        let claim = Claim::take(&settings.uplink, &settings.namespace_file())?;
        // Which device it is comes first: a name that is misspelt is no fault of the kernel's.
        Shaper::new(settings.uplink(Hook::Egress)).is_there()?;
        Ok(Inner { shaper: Shaper::new(settings.uplink(settings.hook()?)), claim })
    }

    /// Whether an earlier agent left something. What looks like its work and is noted nowhere is somebody else's.
    fn find(&self) -> Result<bool, AttachedError> {
        let there = self.shaper.is_there()?;
        if there && !self.claim.is_noted()? { Err(self.shaper.unknown().into()) } else { Ok(there) }
    }

    fn remove(&self) -> Result<(), AttachedError> {
        self.shaper.remove()?;
        Ok(self.claim.clear()?)
    }
}

/// The version of control groups, where a VM has one.
fn cgroup_version(specs: &[AttachedSpec]) -> Result<CgroupVersion, AttachedError> {
    match cgroup::version(Path::new(cgroup::MOUNT)) {
        Err(error) if specs.iter().any(|spec| spec.cgroup.is_some()) => Err(AttachedError::Cgroups(error)),
        // Nobody asks for it.
        version => Ok(version.unwrap_or(CgroupVersion::V2)),
    }
}
