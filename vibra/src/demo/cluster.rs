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
