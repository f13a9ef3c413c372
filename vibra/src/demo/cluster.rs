//! The demo's VMs: network namespaces with nginx where this machine lets us make them, else in this process.

use crate::parts::host;
use anyhow::Context;
use std::sync::Arc;
use vibra_agent::{InProcessHost, Machine, MachineSpec, NamespaceHost, OriginSettings, probe};
use vibra_model::{Amount, Bytes, BytesPerSec, Resources, VmId};
use vibra_trace::Trace;

/// How many VMs: as in section 3.5.
pub(super) const VMS: usize = 4;
/// The memory of each, as in section 3.5.3.
pub(super) const MEMORY: Bytes = Bytes(48 << 20);

/// Four VMs that serve the objects of a trace.
pub(super) struct Cluster {
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
    pub(super) async fn start(in_process: bool, trace: &Trace) -> anyhow::Result<Cluster> {
        let catalogue = Arc::new(host::catalogue(&trace.objects)?);
        let able = if in_process {
            Err("as asked for".to_owned())
        } else {
            tokio::task::spawn_blocking(probe).await?.namespaces().map_err(|reason| reason.to_string())
        };
        match able {
            Ok(()) => {
                let vms = host::namespaces(catalogue, specs()).await?;
                let mut description =
                    "network namespaces, each with nginx, an HTB class and a memory cgroup".to_owned();
                if let Some(reason) = vms.unthrottled() {
                    description.push_str(&format!("; disks as fast as they are, so misses cost little: {reason}"));
                }
                Ok(Cluster { vms: Vms::Namespaces(vms), description })
            }
            Err(why) => {
                let vms = InProcessHost::start(OriginSettings::default(), catalogue, specs()).await?;
                let description = format!("servers in this process ({why})");
                Ok(Cluster { vms: Vms::InProcess(vms), description })
            }
        }
    }

    /// What the VMs are, for the result.
    pub(super) fn kind(&self) -> &'static str {
        match &self.vms {
            Vms::InProcess(_) => "in-process",
            Vms::Namespaces(_) => "namespaces",
        }
    }

    /// What the VMs are and why, for the reader.
    pub(super) fn description(&self) -> &str {
        &self.description
    }

    /// The VMs, in cluster order.
    pub(super) fn machines(&self) -> &[Arc<dyn Machine>] {
        match &self.vms {
            Vms::InProcess(host) => host.machines(),
            Vms::Namespaces(host) => host.machines(),
        }
    }

    /// Starts every VM anew, with cold caches and this bandwidth.
    pub(super) async fn reset(&self, bandwidth: BytesPerSec) -> anyhow::Result<()> {
        for machine in self.machines() {
            machine.stop().await?;
            for amount in initial(bandwidth).amounts() {
                set(&**machine, amount).await?;
            }
            machine.start().await?;
        }
        Ok(())
    }

    /// Disk blocks that the VMs have read since they were started; `None` if one of them does not know.
    pub(super) async fn disk_blocks(&self) -> Option<u64> {
        let mut sum = 0;
        for machine in self.machines() {
            sum += machine.read().await.ok()?.disk_blocks?;
        }
        Some(sum)
    }

    /// Ends the VMs and removes what was made for them.
    ///
    /// # Errors
    /// If something of them could not be ended or removed.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
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

/// What each VM has at first.
pub(super) fn initial(bandwidth: BytesPerSec) -> Resources {
    Resources { bandwidth: Some(bandwidth), memory: Some(MEMORY), cpu: None }
}

fn specs() -> Vec<MachineSpec> {
    let id = |i: usize| VmId::try_from(format!("vm{i}")).expect("a plain name");
    (1..=VMS).map(|i| MachineSpec { id: id(i), initial: initial(super::variants::BANDWIDTH) }).collect()
}

async fn set(machine: &dyn Machine, amount: Amount) -> anyhow::Result<()> {
    machine.set(amount).await.with_context(|| format!("giving {} {amount}", machine.id()))?;
    Ok(())
}
