//! In-process VMs: origins on loopback that need no privilege.
//!
//! Bandwidth is a token bucket; memory is an LRU cache of whole objects in front of a disk model whose reads are really
//! waited for. Bodies are not kept: they follow from the objects' names, and the cache holds the books.

mod condition;
mod egress;
mod origin;
mod storage;
mod vm;

pub use storage::DiskModel;

use crate::{Catalogue, Machine, MachineError, MachineSpec};
use std::{sync::Arc, time::Duration};
use vibra_model::Bytes;
use vm::InProcessVm;

/// What in-process VMs have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginSettings {
    /// What of a VM's memory is not left for objects: kernel, server processes, buffers.
    pub overhead: Bytes,
    /// The disk of each VM.
    pub disk: DiskModel,
    /// The working set is what was touched within this time.
    pub working_set_window: Duration,
    /// The most connections at once; more wait in the listener's backlog.
    pub connections: usize,
    /// How long a connection may be idle, or a request's head incomplete.
    pub idle: Duration,
}

impl Default for OriginSettings {
    /// An overhead of 16 MiB, which a small guest's kernel and server processes take; the default disk; a window of a
    /// minute; 4,096 connections, each idle for at most ten minutes.
    fn default() -> Self {
        OriginSettings {
            overhead: Bytes(16 << 20),
            disk: DiskModel::default(),
            working_set_window: Duration::from_secs(60),
            connections: 4_096,
            idle: Duration::from_secs(600),
        }
    }
}

/// VMs in this process, all with the same catalogue. They end when the host and all its machines are dropped.
///
/// ```
/// use std::sync::Arc;
/// use vibra_agent::{Catalogue, InProcessHost, MachineSpec, OriginSettings};
/// use vibra_model::{Bytes, BytesPerSec, Resources};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let catalogue = Arc::new(Catalogue::new([("/index.html", Bytes(5_000))]).unwrap());
/// let initial = Resources { bandwidth: Some(BytesPerSec(2_700_000)), memory: Some(Bytes(48 << 20)), cpu: None };
/// let specs = ["vm1", "vm2"].map(|name| MachineSpec { id: name.parse().unwrap(), initial });
/// let host = InProcessHost::start(OriginSettings::default(), catalogue, specs.to_vec()).await.unwrap();
/// assert!(host.machines()[0].address().starts_with("127.0.0.1:"));
/// # });
/// ```
pub struct InProcessHost {
    machines: Vec<Arc<dyn Machine>>,
}

impl InProcessHost {
    /// Makes and starts the VMs, each on a port of its own on 127.0.0.1.
    ///
    /// # Errors
    /// [`MachineError`] of the first VM that does not start.
    pub async fn start(
        settings: OriginSettings,
        catalogue: Arc<Catalogue>,
        specs: Vec<MachineSpec>,
    ) -> Result<Self, MachineError> {
        let mut machines: Vec<Arc<dyn Machine>> = Vec::with_capacity(specs.len());
        for spec in specs {
            let vm = InProcessVm::new(spec, settings, catalogue.clone())?;
            vm.start().await?;
            machines.push(Arc::new(vm));
        }
        Ok(InProcessHost { machines })
    }

    /// The VMs, in the order in which they were specified.
    pub fn machines(&self) -> &[Arc<dyn Machine>] {
        &self.machines
    }
}
