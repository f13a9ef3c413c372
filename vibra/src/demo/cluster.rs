//! The demo's VMs: network namespaces with nginx where this machine lets us make them, else in this process.

use anyhow::Context;
use std::sync::Arc;
use vibra_agent::{Catalogue, InProcessHost, Machine, MachineSpec, OriginSettings};
use vibra_model::{Amount, Bytes, BytesPerSec, Resources, VmId};
use vibra_trace::Trace;

/// How many VMs: as in section 3.5.
pub(super) const VMS: usize = 4;
/// The memory of each, as in section 3.5.3.
pub(super) const MEMORY: Bytes = Bytes(48 << 20);

/// Four VMs that serve the objects of a trace.
pub(super) struct Cluster {
    vms: Vms,
    /// Why these VMs are what they are.
    description: String,
}

enum Vms {
    InProcess(InProcessHost),
}

impl Cluster {
    /// Makes the VMs.
    ///
    /// # Errors
    /// If they do not start.
    pub(super) async fn start(in_process: bool, trace: &Trace) -> anyhow::Result<Cluster> {
        let objects = trace.objects.iter().map(|(_, object)| (object.target(), Bytes(object.size)));
        let catalogue = Arc::new(Catalogue::new(objects).context("the trace's objects")?);
        let description = "in-process servers (asked for)".to_owned();
        let host = InProcessHost::start(OriginSettings::default(), catalogue, specs()).await?;
        Ok(Cluster { vms: Vms::InProcess(host), description })
    }

    /// What the VMs are, for the result.
    pub(super) fn kind(&self) -> &'static str {
        match &self.vms {
            Vms::InProcess(_) => "in-process",
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

    /// Ends the VMs.
    ///
    /// # Errors
    /// If one of them could not be ended.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        for machine in self.machines() {
            machine.stop().await?;
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
