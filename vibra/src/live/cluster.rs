//! VMs: network namespaces with nginx where this machine lets us make them, else in this process.

use crate::parts::host;
use anyhow::Context;
use std::{path::PathBuf, sync::Arc};
use vibra_agent::{
    DiskLimit, InProcessHost, Machine, MachineSpec, NamespaceHost, NamespaceSettings, OriginSettings, probe,
};
use vibra_model::{Amount, BytesPerSec, Resources, VmId};
use vibra_trace::Objects;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub(crate) struct Equipment {
    /// How many VMs.
    pub(crate) vms: usize,
    /// What each has at first.
    pub(crate) each: Resources,
    /// With servers in this process even where namespaces could be made.
    pub(crate) in_process: bool,
    /// Where namespaces have their files; `None`: where they usually are, which are kept.
    pub(crate) docroots: Option<PathBuf>,
}

/// A disk without a limit that matters.
const FREE: DiskLimit = DiskLimit { reads_per_s: 1_000_000, read: BytesPerSec(100_000_000_000) };

/// VMs that serve the objects of a trace. Dropped, it removes what was made for them.
pub(crate) struct Cluster {
    vms: Vms,
    /// What the VMs are, and why.
    description: String,
}

enum Vms {
    InProcess(InProcessHost),
    Namespaces(NamespaceHost),
}

impl Cluster {
    /// Makes the VMs: in namespaces where this machine can and it is not forbidden, else in this process.
    ///
    /// # Errors
    /// If they do not start.
    pub(crate) async fn start(equipment: &Equipment, objects: &Objects) -> anyhow::Result<Cluster> {
        let catalogue = Arc::new(host::catalogue(objects)?);
        let able = if equipment.in_process {
            Err("as asked for".to_owned())
        } else {
            tokio::task::spawn_blocking(probe).await?.namespaces().map_err(|reason| reason.to_string())
        };
        match able {
            Ok(()) => {
                let usual = NamespaceSettings::default();
                let docroots = equipment.docroots.clone().unwrap_or(usual.docroots);
                let settings = NamespaceSettings { docroots, ..usual };
                let vms = host::namespaces(settings, catalogue, specs(equipment)).await?;
                let mut description =
                    "network namespaces, each with nginx, an HTB class and a memory cgroup".to_owned();
                if let Some(reason) = vms.unthrottled() {
                    description.push_str(&format!("; disks as fast as they are, so misses cost little: {reason}"));
                }
                Ok(Cluster { vms: Vms::Namespaces(vms), description })
            }
            Err(why) => {
                let vms = InProcessHost::start(OriginSettings::default(), catalogue, specs(equipment)).await?;
                let description = format!("servers in this process ({why})");
                Ok(Cluster { vms: Vms::InProcess(vms), description })
            }
        }
    }

    /// What the VMs are, for the result.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.vms {
            Vms::InProcess(_) => "in-process",
            Vms::Namespaces(_) => "namespaces",
        }
    }

    /// What the VMs are and why, for the reader.
    pub(crate) fn description(&self) -> &str {
        &self.description
    }

    /// Why disks are as fast as they are, where they ought to be throttled.
    pub(crate) fn unthrottled(&self) -> Option<String> {
        match &self.vms {
            Vms::InProcess(_) => None,
            Vms::Namespaces(host) => host.unthrottled().map(ToString::to_string),
        }
    }

    /// The VMs, in cluster order.
    pub(crate) fn machines(&self) -> &[Arc<dyn Machine>] {
        match &self.vms {
            Vms::InProcess(host) => host.machines(),
            Vms::Namespaces(host) => host.machines(),
        }
    }

    /// Starts every VM anew, with cold caches and this much of everything.
    ///
    /// # Errors
    /// If one does not end, start or take what it is given.
    pub(crate) async fn reset(&self, each: Resources) -> anyhow::Result<()> {
        for machine in self.machines() {
            machine.stop().await?;
            for amount in each.amounts() {
                set(&**machine, amount).await?;
            }
            machine.start().await?;
        }
        Ok(())
    }

    /// Lets the VMs' disks give as much as they can, until they are started anew: caches then fill in seconds instead of
    /// minutes. Disks of servers in this process stay as they are.
    ///
    /// # Errors
    /// If the limit cannot be taken away.
    pub(crate) async fn free_disks(&self) -> anyhow::Result<()> {
        self.limit_disks(FREE).await
    }

    /// Limits the VMs' disks again as they are when they start.
    ///
    /// # Errors
    /// If that cannot be.
    pub(crate) async fn throttle_disks(&self) -> anyhow::Result<()> {
        self.limit_disks(DiskLimit::default()).await
    }

    async fn limit_disks(&self, limit: DiskLimit) -> anyhow::Result<()> {
        match &self.vms {
            Vms::InProcess(_) => Ok(()),
            Vms::Namespaces(host) => Ok(host.limit_disks(limit).await?),
        }
    }

    /// Disk blocks that the VMs have read since they were started; `None` if one of them does not know.
    pub(crate) async fn disk_blocks(&self) -> Option<u64> {
        let mut sum = 0;
        for machine in self.machines() {
            sum += machine.read().await.ok()?.disk_blocks?;
        }
        Some(sum)
    }

    /// Lets the VM with this index crash: its processes are killed. A server in this process has none, and is stopped.
    ///
    /// # Errors
    /// If a process cannot be killed.
    pub(crate) async fn crash(&self, index: usize) -> anyhow::Result<()> {
        match &self.vms {
            Vms::InProcess(host) => host.machines()[index].stop().await?,
            Vms::Namespaces(host) => host.crash(index).await?,
        }
        Ok(())
    }

    /// Ends the VMs and removes what was made for them.
    ///
    /// # Errors
    /// If something of them could not be ended or removed.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        match self.vms {
            Vms::InProcess(host) => {
                for machine in host.machines() {
                    machine.stop().await?;
                }
            }
            Vms::Namespaces(host) => host.stop().await?,
        }
        Ok(())
    }
}

fn specs(equipment: &Equipment) -> Vec<MachineSpec> {
    let id = |i: usize| VmId::try_from(format!("vm{i}")).expect("a plain name");
    (1..=equipment.vms).map(|i| MachineSpec { id: id(i), initial: equipment.each }).collect()
}

async fn set(machine: &dyn Machine, amount: Amount) -> anyhow::Result<()> {
    machine.set(amount).await.with_context(|| format!("giving {} {amount}", machine.id()))?;
    Ok(())
}
