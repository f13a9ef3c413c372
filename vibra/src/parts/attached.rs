//! What the agent is to know of VMs that somebody else runs.

use crate::config::{Config, Uplink, Vm};
use anyhow::{Context, anyhow};
use vibra_agent::{AttachedHost, AttachedSettings, AttachedSpec, MachineSpec};
use vibra_model::HostId;

/// The attached VMs of a host, and where their traffic leaves.
pub(crate) struct Attached<'a> {
    uplink: &'a Uplink,
    pub(crate) vms: Vec<&'a Vm>,
}

impl<'a> Attached<'a> {
    /// `None` where the host has none.
    pub(crate) fn of(config: &'a Config, host: &HostId) -> Option<Attached<'a>> {
        let vms: Vec<_> = config.vms.iter().filter(|vm| vm.spec.host == *host && vm.attached.is_some()).collect();
        let uplink = config.uplinks.get(host).filter(|_| !vms.is_empty())?;
        Some(Attached { uplink, vms })
    }

    /// Shapes the uplink.
    ///
    /// # Errors
    /// If it cannot be shaped.
    pub(crate) async fn start(&self) -> anyhow::Result<AttachedHost> {
        let started = AttachedHost::start(settings(self.uplink), self.specs()).await;
        started.with_context(|| format!("the uplink {}", self.uplink.device))
    }

    /// What [`start`](Self::start) would run.
    pub(crate) fn dry_run(&self) -> Vec<String> {
        AttachedHost::dry_run(&settings(self.uplink), &self.specs())
    }

    fn specs(&self) -> Vec<AttachedSpec> {
        let spec = |vm: &&Vm| {
            let attached = vm.attached.as_ref()?;
            Some(AttachedSpec {
                machine: MachineSpec { id: vm.spec.id.clone(), initial: vm.spec.initial },
                address: attached.address.clone(),
                sources: attached.sources.clone(),
                cgroup: attached.cgroup.clone(),
            })
        };
        self.vms.iter().filter_map(spec).collect()
    }
}

fn settings(uplink: &Uplink) -> AttachedSettings {
    AttachedSettings { uplink: uplink.device.clone(), namespace: None, internal: uplink.internal.clone() }
}

/// Lifts the limits that an agent left on the uplink of `host`, or prints what would be run for that.
///
/// # Errors
/// If the host has no uplink, or something could not be removed.
pub(crate) fn remove_limits(config: &Config, host: &HostId, dry_run: bool) -> anyhow::Result<()> {
    let uplink = config.uplinks.get(host).ok_or_else(|| anyhow!("host {host} has no uplink"))?;
    let (settings, device) = (settings(uplink), &uplink.device);
    if dry_run {
        AttachedHost::dry_clear(&settings)?.iter().for_each(|command| println!("{command}"));
    } else if AttachedHost::clear(&settings).with_context(|| format!("the uplink {device}"))? {
        eprintln!("host {host}: nothing limits what leaves by {device} any more");
    } else {
        eprintln!("host {host}: nothing limited what leaves by {device}");
    }
    Ok(())
}
