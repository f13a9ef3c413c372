//! What this machine can do: found out by trying.

use super::NamespaceSettings;
use crate::host::{
    Reason,
    cgroup::{self, CgroupVersion},
    command::{Step, run_all},
    network::{MOST_VMS, Network},
    run::Run,
    shaper::{Shaper, ShaperError},
};
use std::{error::Error, fmt, path::Path, time::Duration};
use vibra_model::BytesPerSec;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// A host with a VM, its bridge, its shaper and its counters were made, read back and removed.
    pub network: Result<(), Reason>,
    /// A control group was made and removed; the version.
    pub cgroup: Result<CgroupVersion, Reason>,
    /// nginx with the modules that are used; its version.
    pub nginx: Result<String, Reason>,
    /// Reads of the files that VMs serve by default can be limited and counted. If not, VMs run with a disk that is as
    /// fast as it is.
    pub disk: Result<(), Reason>,
}

impl Capabilities {
    /// Whether namespace VMs can be made.
    ///
    /// # Errors
    /// Every [`Reason`] why not, in one.
    pub fn namespaces(&self) -> Result<(), Reason> {
        let network = self.network.as_ref().err().map(|reason| format!("no namespaces: {reason}"));
        let cgroup = self.cgroup.as_ref().err().map(|reason| format!("no control groups: {reason}"));
        let nginx = self.nginx.as_ref().err().map(|reason| format!("no nginx: {reason}"));
        let reasons: Vec<_> = [network, cgroup, nginx].into_iter().flatten().collect();
        if reasons.is_empty() { Ok(()) } else { Err(Reason(reasons.join("; "))) }
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.namespaces(), &self.cgroup, &self.nginx) {
            (Ok(()), Ok(version), Ok(nginx)) => {
                write!(f, "namespace VMs (at most {MOST_VMS}), control groups {version:?}, {nginx}")?;
                self.disk.as_ref().err().map_or(Ok(()), |reason| write!(f, "; disks are not throttled: {reason}"))
            }
            (Err(reason), ..) => write!(f, "in-process VMs only: {reason}"),
            _ => unreachable!("namespaces() names every failure"),
        }
    }
}

/// Tries what namespace VMs need, and removes what it made. Blocks for a fraction of a second.
pub fn probe() -> Capabilities {
    let cgroup = try_cgroup().map_err(|error| Reason::of(&*error));
    let try_disk = |&version| try_disk(version).map_err(|error| Reason::of(&*error));
    Capabilities {
        network: try_network().map_err(|error| Reason::of(&*error)),
        disk: cgroup.as_ref().map_err(Clone::clone).and_then(try_disk),
        cgroup,
        nginx: try_nginx(),
    }
}

fn try_network() -> Result<(), Box<dyn Error>> {
    let mut run = Run::begin()?;
    let network = Network { run: run.number, prefix: [10, 177], queue: Duration::from_millis(500) };
    let shaper = Shaper::new(network.uplink());
    let tried = run_all(&network.host_steps())
        .and_then(|()| run_all(&network.vm_steps(0)))
        .map_err(ShaperError::from)
        // What was made is read back.
        .and_then(|()| shaper.put([network.shaped(0, Some(BytesPerSec(1_000_000)))]));
    shaper.close();
    run.remove()?;
    Ok(tried?)
}

fn try_cgroup() -> Result<CgroupVersion, Box<dyn Error>> {
    let mount = Path::new(cgroup::MOUNT);
    let version = cgroup::version(mount)?;
    let mut run = Run::begin()?;
    let tried = cgroup::open(version, mount, &format!("{}/probe", run.cgroup())).create();
    run.remove()?;
    tried?;
    Ok(version)
}

fn try_disk(version: CgroupVersion) -> Result<(), Box<dyn Error>> {
    let mut run = Run::begin()?;
    let tried = cgroup::limitable_disk(version, &run.cgroup(), &NamespaceSettings::default().docroots);
    run.remove()?;
    tried?;
    Ok(())
}

fn try_nginx() -> Result<String, Reason> {
    // nginx -V prints to the error output.
    let shown = Step::new("sh -c").with_word("nginx -V 2>&1").run().map_err(|error| Reason::of(&error))?;
    for needed in ["--with-http_stub_status_module", "--with-threads"] {
        if !shown.contains(needed) {
            return Err(Reason(format!("nginx was built without {needed}")));
        }
    }
    let version = shown.lines().next().and_then(|line| line.split_once(": "));
    Ok(version.map_or("nginx", |(_, version)| version).to_owned())
}
